"""A map of rows drawn by chance, on a server of its own: for tests in a browser, and for frame times."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from PIL import Image

from seewhy.classifiers.base import Classifier
from seewhy.pictures.samples import Sample, Samples
from seewhy.service.app import Settings, make_app
from seewhy.service.app.rows import READ
from seewhy.service.app.tiles import square


def mixture(n: int, d: int, n_classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features of ``n_classes`` clouds of different widths, as float16, and each row's cloud."""
    draw = np.random.default_rng(seed)
    label = draw.integers(0, n_classes, n)
    centres = draw.normal(size=(n_classes, d)).astype(np.float32)
    width = draw.uniform(0.4, 1.2, n_classes).astype(np.float32)
    features = np.empty((n, d), np.float16)
    for start in range(0, n, 4096):
        part = label[start : start + 4096]
        features[start : start + len(part)] = centres[part] + width[part, None] * draw.normal(size=(len(part), d))
    return features, label.astype(np.int32)


def filled(classifier: Classifier, picture: Path, n: int, d: int, n_clouds: int = 0) -> Any:
    """The app with ``n`` rows that count as looked at, all of one file."""
    classes = classifier.classes
    features, cloud = mixture(n, d, n_clouds or len(classes))
    label = cloud % len(classes)
    data = Samples(tuple(Sample(str(picture), classes[k]) for k in label), classes)
    app = make_app(classifier, Settings(), data=data)
    rows = app.state.seewhy.rows
    rows.start = lambda: None
    rows.features, rows.n_done = features, n
    rows.tiles.put([(b"a tile", square(np.asarray(Image.open(picture).convert("RGB"))))])
    rows._keys = [b"a tile"] * n
    rows.state[:] = READ
    rows.predicted[:] = label
    rows.predicted[::10] = (label[::10] + 1) % len(classes)
    rows.score[:] = np.linspace(0, 1, n)
    rows.verdict[:] = 3
    rows.key[:] = [f"{i:016x}".encode() for i in range(n)]
    return app


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """Its address."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not (server.started and server.servers):
        time.sleep(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(20)
