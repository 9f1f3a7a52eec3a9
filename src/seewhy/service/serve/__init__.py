"""A headless service of classifiers. Needs the extra ``serve``, and nothing of it is loaded before."""

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
"""A classifier, or the folder of a saved one, which is loaded again when it changes."""


def make_service(
    models: Mapping[str, Source],
    settings: ServiceSettings | None = None,
    *,
    load: Callable[[Path], Classifier] | None = None,
    log_to: int | None = None,
) -> FastAPI:
    """Classifiers behind HTTP as an ASGI app, by their names; the first answers where a request names none.

    A line per request is written to the file descriptor ``log_to``.
    """
    try:
        from .serving import make
    except ImportError as error:
        raise MissingExtraError("serve", "The service") from error
    return make(models, settings or ServiceSettings(), load, log_to)
