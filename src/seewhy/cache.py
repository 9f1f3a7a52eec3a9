"""Where SeeWhy keeps what it can make again: converted weights, compiled trunks, looked-at features."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_dir(*parts: str) -> Path:
    """A folder under the cache, made if it is not there.

    ``SEEWHY_CACHE`` sets the root; otherwise it is the platform's own place for caches.
    """
    root = os.environ.get("SEEWHY_CACHE")
    if root:
        base = Path(root).expanduser()
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData/Local")) / "seewhy"
    elif sys.platform == "darwin":
        base = Path.home() / "Library/Caches/seewhy"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "seewhy"
    folder = base.joinpath(*parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
