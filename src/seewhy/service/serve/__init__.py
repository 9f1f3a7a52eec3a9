"""Classifiers behind HTTP, for programs. Needs the extra ``serve``, which is imported on first use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ...classifiers.base import Classifier
from ...errors import MissingExtraError
from .settings import ServiceSettings

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["ServiceSettings", "make_service"]

Source = Classifier | Path
"""A classifier, or the folder of a saved one; SeeWhy loads the folder again when it changes."""


def make_service(
    models: Mapping[str, Source],
    settings: ServiceSettings | None = None,
    *,
    load: Callable[[Path], Classifier] | None = None,
    log_to: int | None = None,
) -> FastAPI:
    """Return an ASGI app that serves classifiers by name; the first answers requests without a name.

    It writes one line per request to the file descriptor ``log_to``.
    """
    try:
        from .serving import make
    except ImportError as error:
        raise MissingExtraError("serve", "The service") from error
    return make(models, settings or ServiceSettings(), load, log_to)
