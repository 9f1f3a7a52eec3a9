"""The cache folder, and addresses in object storage."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from ..errors import DataError

_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/{1,3}(?=[^/])", re.IGNORECASE)


def address_of(path: str | Path) -> str | None:
    """Return the address, such as ``s3://bucket/photos``, that a path was made from; ``None`` for a local path.

    Example:
        >>> address_of(Path("s3://bucket/photos"))
        's3://bucket/photos'
    """
    text = os.fspath(path)
    scheme = _ADDRESS.match(text)
    return None if scheme is None else f"{scheme[1].lower()}://{text[scheme.end() :]}"


def refuse_address(path: str | Path) -> None:
    """Check that a path is not an address, which would create a folder ``s3:``."""
    if (address := address_of(path)) is not None:
        raise DataError(
            f"{address} is an address, but a local file or folder is required. Only predict, explain "
            "and index with --parquet write to object storage."
        )


_CURE = "Set SEEWHY_CACHE to a writable folder."


def cache_dir(*parts: str) -> Path:
    """Return a folder in the cache, created if it is missing.

    ``SEEWHY_CACHE`` sets the root; by default it is the platform's cache folder.
    """
    try:
        root = _root()
        refuse_address(root)
        folder = root.joinpath(*parts)
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        said = (error.strerror or str(error)).lower()
        raise DataError(f"The cache folder {folder} cannot be used: {said}. {_CURE}") from error
    except RuntimeError as error:  # raised by pathlib if the user has no home folder
        raise DataError(f"No cache folder was found: {str(error).rstrip('.')}. {_CURE}") from error
    return folder


def _root() -> Path:
    if own := os.environ.get("SEEWHY_CACHE"):
        return Path(own).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local") / "seewhy"
    if sys.platform == "darwin":
        return Path.home() / "Library/Caches/seewhy"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "seewhy"
