"""Where SeeWhy keeps what it can make again: converted weights, compiled trunks, looked-at features."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ..errors import DataError
from .addresses import refuse_address

_CURE = "Name a folder that you may write to with SEEWHY_CACHE."


def cache_dir(*parts: str) -> Path:
    """A folder under the cache, made if it is not there.

    ``SEEWHY_CACHE`` sets the root; otherwise it is the platform's own place for caches.
    """
    try:
        root = _root()
        refuse_address(root)
        folder = root.joinpath(*parts)
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        said = (error.strerror or str(error)).lower()
        raise DataError(f"The cache folder {folder} cannot be used: {said}. {_CURE}") from error
    except RuntimeError as error:  # pathlib's, where a user has no home
        raise DataError(f"There is no place for a cache: {str(error).rstrip('.')}. {_CURE}") from error
    return folder


def _root() -> Path:
    if own := os.environ.get("SEEWHY_CACHE"):
        return Path(own).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local") / "seewhy"
    if sys.platform == "darwin":
        return Path.home() / "Library/Caches/seewhy"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "seewhy"
