"""The HTTP service; it requires the extra ``serve``, which is imported on first use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ...classifiers.base import Classifier
from ...errors import needs
from .settings import ServiceSettings

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["ServiceSettings", "make_service"]


def make_service(
    models: Mapping[str, Classifier | Path],
    settings: ServiceSettings | None = None,
    *,
    load: Callable[[Path], Classifier] | None = None,
    log_to: int | None = None,
) -> FastAPI:
    """Return an ASGI app that serves classifiers by name.

    Args:
        models: classifiers, or folders of saved ones that are reloaded when they change, by name; the first model
            answers requests without a name.
        settings: limits and settings.
        load: function that loads a folder.
        log_to: file descriptor for the access log; default: no log.
    """
    with needs("serve", "The service"):
        from .serving import make
    return make(models, settings or ServiceSettings(), load, log_to)
