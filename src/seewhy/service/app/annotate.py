"""The annotation page as an ASGI app: ``seewhy app --annotate``."""

from __future__ import annotations

from fastapi import FastAPI

from ...language.annotation.desk import AnnotationDesk
from .annotate_data import AnnotationData
from .annotate_pages import AnnotationPages
from .base import make_base
from .settings import Settings

SCRIPTS = ("annotate.js", "annotate_boxes.js", "annotate_compare.js")


def make_annotation_app(desk: AnnotationDesk, settings: Settings | None = None) -> FastAPI:
    """Pages on which people describe pictures in rounds."""
    app = make_base("SeeWhy annotation", settings or Settings(), SCRIPTS)
    AnnotationPages(desk).mount(app)
    AnnotationData(desk).mount(app)
    return app
