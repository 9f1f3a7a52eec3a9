"""Fit anew with what people decided, in the background, and show whether it helped."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import torch
from fastapi import FastAPI
from starlette.responses import JSONResponse, Response

from ...errors import InputError, SeeWhyError
from ...language.annotation.labels import NAME, Corrections
from ...progress import Progress
from ...report.page import document_context
from ...studies.refit import Labels, RefitStudy
from ...studies.study import Findings
from .base import Format, add_data, add_page, answer, render
from .rows import READ, Rows

T = TypeVar("T")

_logger = logging.getLogger(__name__)


class LastStep(Progress):
    """Keeps the last step, for the page."""

    def __init__(self) -> None:
        super().__init__()
        self.step: dict[str, Any] = {"what": "Starting", "done": 0, "of": 1}

    def track(self, items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
        for done, item in enumerate(items):
            self.step = {"what": what, "done": done, "of": total or 1}
            yield item


class Refitting:
    """The handlers; their docstrings are the words of the OpenAPI document."""

    def __init__(self, rows: Rows, corrections: Corrections, bar: Any, study: RefitStudy | None = None) -> None:
        self.rows = rows
        self._corrections = corrections
        self._bar = bar
        self._study = study or RefitStudy()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._progress = LastStep()
        self.findings: Findings | None = None
        self.problem = ""

    def mount(self, app: FastAPI) -> None:
        add_page(app, "/refit", self.page)
        add_data(app, "/refit/start", self.start, methods=["POST"])
        add_data(app, "/refit/state", self.state)

    @property
    def is_running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def page(self, format: Format = "html") -> Response:
        """Whether the decisions helped: accuracy before and after, and what changed."""
        found = self.findings
        data = self._state() if found is None else {**self._state(), **found.data}

        def rendered() -> str:
            about = {} if found is None else document_context(found.document())
            more = {"state": self._state(), "found": found is not None, "export": NAME}
            return render("refit.html", **about, **more, **self._bar("refit"))

        return answer(format, lambda: data, rendered)

    def state(self) -> Response:
        """What is being done, and how far it is."""
        return JSONResponse(self._state())

    def _state(self) -> dict[str, Any]:
        step = self._progress.step if self.is_running else None
        return {"running": step, "done": self.findings is not None, "problem": self.problem or None}

    def start(self) -> Response:
        """Begin, with the decisions that stand now; one at a time."""
        with self._lock:
            if not self.is_running:
                if left := len(self.rows.items) - self.rows.n_done:
                    raise InputError(f"{left:,} pictures are not predicted yet. Wait until the grid has all of them.")
                self._progress, self.problem = LastStep(), ""
                self._thread = threading.Thread(target=self._run, name="seewhy-refit", daemon=True)
                self._thread.start()
        return JSONResponse(self._state())

    def _run(self) -> None:
        rows = self.rows
        try:
            index = (rows.state == READ).nonzero()[0]
            given = [rows.items[i].label for i in index]
            keys = [rows.key[i].decode() for i in index]
            labels = Labels.of(given, keys, self._corrections.decisions.standing(), rows.classes)
            names = [rows.name(i) for i in index]
            with torch.random.fork_rng(devices=[]):
                encoder, pooled = rows.classifier.encoder, rows.pooled(index)
                found = self._study.run(encoder, pooled, labels, rows.classes, names, self._progress)
            for row in found.data["changed"]:
                row["index"] = int(index[row["index"]])
            self.findings = found
        except SeeWhyError as error:
            self.problem = str(error)
        except Exception:
            _logger.exception("fitting with the decisions stopped")
            self.problem = "Fitting stopped. The server's log says why. Mend the cause and try again."
