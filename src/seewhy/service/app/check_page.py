"""The page of ``seewhy check`` on which labels are corrected: the findings, and what several people decided on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from fastapi import FastAPI
from starlette.responses import Response

from ...language.annotation.labels import Corrections
from ...report.check import check_context
from ...studies.inspection.check import KINDS
from .base import PAGE, Format, answer, make_base, page_route, render
from .deciding import SCRIPT, Deciding
from .settings import Settings


class CheckPage:
    """The handler; its docstring is the words of the OpenAPI document.

    Args:
        check: the document of ``seewhy check --json``.
        corrections: the data that were checked, and what is decided on them.
        read: gives a picture by its name.
    """

    def __init__(
        self, check: dict[str, Any], corrections: Corrections, read: Callable[[str], np.ndarray | None]
    ) -> None:
        self.check = check
        self.context = {**check_context(check, KINDS, read), "data": corrections.data.path.name}

    def mount(self, app: FastAPI) -> None:
        """Give it its address."""
        app.add_api_route("/", self.page, responses=PAGE, **page_route())

    def page(self, format: Format = "html") -> Response:
        """The findings, each with what can be decided."""
        return answer(format, lambda: self.check, lambda: render("check_served.html", **self.context))


def make_check_app(
    check: dict[str, Any],
    corrections: Corrections,
    read: Callable[[str], np.ndarray | None],
    settings: Settings | None = None,
) -> FastAPI:
    """The page as an ASGI app: ``seewhy check DATA --from check/ --serve``."""
    app = make_base("SeeWhy check", settings or Settings(), (SCRIPT,))
    images = {(f["key"], f["label"]): f["image"] for f in check["findings"] if f["key"]}
    CheckPage(check, corrections, read).mount(app)
    Deciding(corrections, lambda key, given: images.get((key, given))).mount(app)
    return app
