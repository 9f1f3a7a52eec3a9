"""Classifiers of small networks behind the page, and a client that stands where a browser would."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from browser import Browser
from tiny import CLASSES, class_folders, picture, tiny_cnn

pytest.importorskip("fastapi", reason="the extra 'app' is not installed, so there is no page")

from starlette.testclient import TestClient

from seewhy.classifiers.base import Classifier
from seewhy.classifiers.linear.recipe import Linear
from seewhy.classifiers.unfitted import Described
from seewhy.descriptions.base import Descriptions
from seewhy.language.annotation.labels import Corrections
from seewhy.pictures.samples import load_samples
from seewhy.service.app import Settings, make_app

TEXTS = {
    "moss": ("soft green cushions", "grows on stones"),
    "rust": ("a brown flaking crust", "on old iron"),
    "sky": ("blue with clouds", "above the roofs"),
}


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_folders(tmp_path_factory.mktemp("classes") / "pictures", n=8)


@pytest.fixture
def wrong(folders: Path, tmp_path: Path) -> Path:
    """Pictures of the sky and of rust, most of them called moss."""
    for label, source, n in (("moss", "sky", 4), ("moss", "rust", 2), ("sky", "sky", 3), ("rust", "rust", 1)):
        (tmp_path / label).mkdir(exist_ok=True)
        for file in sorted((folders / source).iterdir())[:n]:
            (tmp_path / label / f"{source}-{file.name}").write_bytes(file.read_bytes())
    return tmp_path


@pytest.fixture(scope="session")
def fitted(folders: Path) -> Classifier:
    """Decides from pictures; words are evidence."""
    words = Descriptions.of({k: list(v) for k, v in TEXTS.items()})
    return Linear(n_crops=1).fit(tiny_cnn(), load_samples(folders), descriptions=words)


@pytest.fixture(scope="session")
def by_words() -> Classifier:
    """Decides from words alone."""
    return Described().build(tiny_cnn(), Descriptions.of({k: list(v) for k, v in TEXTS.items()}))


@pytest.fixture(scope="session")
def sky() -> bytes:
    """A picture file."""
    return png(picture("sky", 90))


@pytest.fixture
def client() -> Iterator[Callable[..., TestClient]]:
    """Makes clients; closes them at the end."""
    opened: list[TestClient] = []

    def make(
        classifier: Classifier, data: Path | None = None, corrections: Corrections | None = None, **settings: Any
    ) -> TestClient:
        samples = None if data is None else load_samples(data)
        app = make_app(classifier, Settings(**settings), data=samples, corrections=corrections)
        found = TestClient(app, base_url="http://localhost:8000")
        found.__enter__()
        opened.append(found)
        return found

    yield make
    for one in opened:
        one.__exit__(None, None, None)


@pytest.fixture(scope="session")
def grid(fitted: Classifier, folders: Path) -> Iterator[str]:
    from served_map import serving

    with serving(make_app(fitted, data=load_samples(folders))) as address:
        yield address


@pytest.fixture
def two() -> Iterator[tuple[Browser, Browser]]:
    pytest.importorskip("websocket", reason="websocket-client is not installed, so the browser cannot be spoken to")
    with Browser() as ann, Browser() as bo:
        yield ann, bo


assert set(TEXTS) <= set(CLASSES)
