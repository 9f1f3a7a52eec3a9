"""A map of all labelled pictures, with similar pictures near each other."""

from __future__ import annotations

import base64
import hashlib
import logging
import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from fastapi import FastAPI
from jaxtyping import Float
from starlette.responses import JSONResponse, Response
from torch.nn.functional import normalize

from ...errors import MissingExtraError, needs
from ...language.annotation.records import DECISIONS, OPEN
from ...report.blocks import spoken
from ...report.palette import MAP
from ...storage.tensors import cached_tensors
from ...studies.inspection.check import KINDS
from .base import Format, add_data, add_file, add_page, answer, render
from .browse import PACKED
from .rows import READ, VERDICTS, Rows
from .state import State

SCRIPTS = ("points.js", "map.js")
N_COMPONENTS = 50
"""Number of principal components for the nearest neighbours."""
FIT_ON = 20_000
"""Maximum number of pictures to compute the components from."""
CHUNK = 4096
PERPLEXITY = 30
FEWEST = 12
"""Minimum number of pictures for openTSNE; fewer are placed by two principal components."""
EARLY, LATE, EVERY = 250, 500, 25
"""Steps of openTSNE, as its authors set them; the page is updated every 25 steps."""
MOST_COLOURS = 20
UNKNOWN = 65535
Column = Literal["label", "predicted", "right", "verdict", "score", "likeness", "finding", "decision"]
TITLES: dict[Column, str] = {
    "label": "Label", "predicted": "Prediction", "right": "Right or wrong", "verdict": "Certainty",
    "score": "Score", "likeness": "Similarity to training pictures", "finding": "Finding of a check",
    "decision": "Decision",
}  # fmt: skip
DECIDED = (OPEN, *DECISIONS)

_logger = logging.getLogger(__name__)


def principal(features: Float[np.ndarray, "n d"], k: int, fit_on: int = FIT_ON) -> Float[np.ndarray, "n k"]:
    """Return the first ``k`` principal components of the L2-normalised rows.

    The components are exact eigenvectors of the covariance of up to ``fit_on`` evenly spaced rows. If there are fewer
    than ``k`` components, the others are 0.
    """
    n, d = features.shape
    some = np.linspace(0, n - 1, min(n, fit_on)).astype(np.int64)
    mean = torch.zeros(d)
    for part in _parts(features, some):
        mean += part.sum(0) / len(some)
    spread = torch.zeros(d, d)
    for part in _parts(features, some):
        spread.addmm_((part - mean).T, part - mean)
    axes = torch.linalg.eigh(spread).eigenvectors.flip(1)[:, :k]
    strongest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    axes = axes * strongest.sign()  # an eigenvector's sign is arbitrary
    components = np.zeros((n, k), np.float32)
    start = 0
    for part in _parts(features, np.arange(n)):
        components[start : start + len(part), : axes.shape[1]] = ((part - mean) @ axes).numpy()
        start += len(part)
    return components


def _parts(features: np.ndarray, index: np.ndarray) -> Iterator[torch.Tensor]:
    for start in range(0, len(index), CHUNK):
        yield normalize(torch.from_numpy(features[index[start : start + CHUNK]].astype(np.float32)), dim=1)


class Closed(Exception):
    """Raised to stop the computation when the page is closed."""


class Arrangement:
    """The position of each picture on the map, computed by a thread at low priority.

    While pictures are encoded, their positions are the first two principal components. Afterwards openTSNE places
    neighbours near each other. The result is cached for these pictures and this encoder.
    """

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self.xy = np.full((len(rows.items), 2), np.nan, np.float32)
        self.method: Literal["none", "components", "neighbours"] = "none"
        self.version = 0
        """Number of changes of ``xy``."""
        self.progress = 0.0
        """Progress of openTSNE, from 0 to 1."""
        self.note = ""
        self.kept = False
        """Whether the positions came from the cache."""
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start the thread, unless it was started."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="map", daemon=True)
                self._thread.start()

    def close(self) -> None:
        self._closed.set()
        if self._thread is not None:
            self._thread.join(5)

    @property
    def working(self) -> bool:
        return self._thread is None or self._thread.is_alive()

    def to_json(self) -> dict[str, Any]:
        rows = self.rows
        return {
            "n": len(rows.items), "done": rows.n_done, "method": self.method, "version": self.version,
            "progress": round(self.progress, 3), "working": self.working, "note": self.note or rows.problem or None,
        }  # fmt: skip

    def _run(self) -> None:
        if sys.platform == "linux":  # only Linux has a priority per thread
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
        try:
            if self._place_all():
                self._arrange()
        except Closed:
            pass
        except MissingExtraError as error:
            self.note = str(error)
        except Exception:
            _logger.exception("computing the map stopped")
            self.note = "SeeWhy stopped computing the map. The server's log says why. Start the page again."

    def _place_all(self) -> bool:
        """Place encoded pictures by principal components as their number grows; return whether all were encoded."""
        rows, drawn = self.rows, 0
        while not (self._closed.is_set() or rows.problem):
            done = rows.n_done
            if done >= max(1, 1.5 * drawn) or (done == len(rows.items) and done > drawn):
                index = self._index()
                if len(index):
                    self._take(index, self._components(index, 2), "components")
                drawn = done
            if done == len(rows.items):
                return True
            self._closed.wait(0.25)
        return False

    def _index(self) -> np.ndarray:
        return (self.rows.state == READ).nonzero()[0]

    def _components(self, index: np.ndarray, k: int) -> Float[np.ndarray, "m k"]:
        assert self.rows.features is not None
        return principal(self.rows.features[index], k)

    def _take(self, index: np.ndarray, positions: np.ndarray, method: Literal["components", "neighbours"]) -> None:
        xy = np.full_like(self.xy, np.nan)
        xy[index] = positions
        self.xy, self.method = xy, method
        self.version += 1

    def _arrange(self) -> None:
        index = self._index()
        if len(index) < FEWEST:
            return
        self.kept = True
        # Under the cache's own check: a damaged file is made again.
        positions = cached_tensors("maps", self._digest(), lambda: {"xy": torch.from_numpy(self._embed(index))})["xy"]
        if positions.shape != (len(index), 2) or not positions.isfinite().all():
            raise ValueError(f"the cached map of {len(index)} pictures has the shape {tuple(positions.shape)}")
        self._take(index, positions.numpy(), "neighbours")
        self.progress = 1.0

    def _digest(self) -> str:
        rows = self.rows
        facts = f"tsne 1 {N_COMPONENTS} {PERPLEXITY} {EARLY} {LATE} {rows.classifier.encoder.fingerprint} "
        return hashlib.sha256(facts.encode() + rows.state.tobytes() + rows.key.tobytes()).hexdigest()[:32]

    def _embed(self, index: np.ndarray) -> Float[np.ndarray, "m 2"]:
        with needs("map", "Putting similar pictures beside each other"):
            import openTSNE
        self.kept = False
        rows = self._components(index, N_COMPONENTS)
        steps = 0

        def seen(_step: int, _error: float, found: np.ndarray) -> bool:
            nonlocal steps
            steps += EVERY
            self.progress = min(0.99, 0.3 + 0.7 * steps / (EARLY + LATE))
            if steps > EARLY:
                self._take(index, np.asarray(found, np.float32), "neighbours")
            return self._closed.is_set()

        embedding = openTSNE.TSNE(
            perplexity=min(PERPLEXITY, (len(index) - 1) / 3),
            initialization=openTSNE.initialization.rescale(rows[:, :2].astype(np.float64)),
            early_exaggeration_iter=EARLY, n_iter=LATE, n_jobs=max(1, (os.cpu_count() or 1) // 2), random_state=0,
            callbacks=seen, callbacks_every_iters=EVERY,
        ).fit(rows)  # fmt: skip
        if self._closed.is_set():
            raise Closed
        return np.ascontiguousarray(embedding, np.float32)


def column(rows: Rows, name: Column, decided: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the colour value of each picture as 16-bit integers in base64, and the legend.

    For classes, a value is the position of the class in the legend. For quantities, 0 to 65,534 stands for ``low`` to
    ``high``. The value 65,535 stands for unknown.
    """
    read = rows.state == READ
    if name == "score":
        return _quantity(rows.score, 0.0, 1.0)
    if name == "likeness":
        known = rows.likeness[~np.isnan(rows.likeness)]
        low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
        return _quantity(rows.likeness, low, high)
    if name in ("label", "predicted"):
        values = rows.label if name == "label" else rows.predicted
        # Both take their colours by how frequent labels are, so that a class has one colour.
        return _classes(values, rows.classes, np.bincount(rows.label[rows.label >= 0], minlength=len(rows.classes)))
    if name == "right":
        return _classes(np.where(rows.right, 0, np.where(rows.wrong, 1, -1)), ("right", "wrong"))
    if name == "verdict":
        return _classes(np.where(read, rows.verdict.astype(np.int32), -1), VERDICTS)
    if name == "finding":
        lowest = rows.findings & -rows.findings.astype(np.int32)
        first = np.where(rows.findings > 0, 1 + np.log2(np.maximum(lowest, 1)), 0)
        return _classes(first.astype(np.int32), ("none", *(kind.name for kind in KINDS.values())))
    standing = [decided.get(key.decode(), {}).get("decision", OPEN) for key in rows.key]
    places = np.array([DECIDED.index(one) if one in DECIDED else -1 for one in standing])
    return _classes(places, [*map(spoken, DECIDED)])


def _classes(values: np.ndarray, names: Sequence[str], weight: np.ndarray | None = None) -> dict[str, Any]:
    order = np.arange(len(names))
    if len(names) > MOST_COLOURS:
        order = np.argsort(np.zeros(len(names)) if weight is None else -weight, kind="stable")[:MOST_COLOURS]
    place = np.full(len(names) + 1, len(order))  # the last entry is for unknown values
    place[order], place[-1] = np.arange(len(order)), UNKNOWN
    places = place[values]
    legend = [{"name": names[int(k)], "n": int((places == i).sum())} for i, k in enumerate(order)]
    if len(names) > MOST_COLOURS:
        legend.append({"name": "others", "n": int((places == len(order)).sum())})
    return {"kind": "classes", "legend": legend, "values": _packed(places)}


def _quantity(values: np.ndarray, low: float, high: float) -> dict[str, Any]:
    scaled = (values.astype(np.float64) - low) / ((high - low) or 1) * (UNKNOWN - 1)
    levels = np.where(np.isnan(scaled), UNKNOWN, np.nan_to_num(scaled).round().clip(0, UNKNOWN - 1))
    return {"kind": "quantity", "low": round(low, 4), "high": round(high, 4), "values": _packed(levels)}


def _packed(values: np.ndarray) -> str:
    return base64.b64encode(values.astype("<u2").tobytes()).decode()


class Map:
    """The request handlers; their docstrings appear in the OpenAPI document."""

    def __init__(self, state: State) -> None:
        assert state.rows is not None
        self.rows, self._state = state.rows, state
        self.arrangement = Arrangement(state.rows)

    def mount(self, app: FastAPI) -> None:
        add_page(app, "/map", self.page)
        add_file(app, "/points", self.points, PACKED)
        add_data(app, "/column", self.column)

    def page(self, format: Format = "html") -> Response:
        """All labelled pictures as points, with similar pictures near each other. As JSON: the progress of the
        computation.
        """
        self.arrangement.start()
        columns = [name for name in get_args(Column) if name != "decision" or self._state.corrections is not None]
        shown = {"n": len(self.rows.items), "columns": {name: TITLES[name] for name in columns}, "palette": MAP}
        return answer(format, self.arrangement.to_json, lambda: render("map.html", **shown, **self._state.bar("map")))

    def points(self) -> Response:
        """The position of each picture as 32-bit floats x, y, x, y, …; NaN for pictures that are not encoded yet."""
        arrangement = self.arrangement
        arrangement.start()
        version = arrangement.version  # first: positions that come in between are asked for again
        return Response(arrangement.xy.astype("<f4").tobytes(), media_type=PACKED, headers={"x-version": str(version)})

    def column(self, name: Column) -> Response:
        """The colours of the points: a value for each picture, and a legend."""
        return JSONResponse({"name": name, "title": TITLES[name], **column(self.rows, name, self._state.decided())})
