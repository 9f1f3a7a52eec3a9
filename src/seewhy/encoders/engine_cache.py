"""What converted trunks are kept in: a folder that appears whole or not at all, with the digest of each file in it."""

from __future__ import annotations

import atexit
import errno
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

from ..errors import DataError, EngineError
from ..storage.cache import cache_dir
from ..storage.folders import drop_folder, new_folder, write_inside
from ..storage.output import temporary_folder
from ..storage.reading import file_sha256, read_json

_FULL = 10_000_000
"""Fewer bytes than this left on a disk, after a conversion that failed there, are the reason."""
_CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR)
_log = logging.getLogger("seewhy")


def kept_folder(name: str, build: Callable[[Path], None]) -> Path:
    """The folder ``name`` in the cache, built if it is missing or damaged; safe beside other processes.

    Where the cache cannot be written to, the folder is built elsewhere, for this run alone, and a note says so.
    """
    try:
        root = cache_dir("engines")
    except DataError as error:
        return _for_this_run(build, str(error))
    kept = root / name
    if _is_whole(kept):
        return kept
    try:
        with new_folder(kept) as fresh:
            _fill(fresh, build)
            if kept.exists() and not _is_whole(kept):
                _log.warning("The converted trunk %s was damaged and has been made again.", kept)
                drop_folder(kept, r"trunk\..+|digests\.json|precision")
    except Exception as error:
        reason = _why_not_there(root, error)
        if reason is not None and not _is_whole(kept):
            return _for_this_run(build, reason)
        if not isinstance(error, OSError):
            raise
    if not _is_whole(kept):  # else another process was first, and its folder is as good as ours
        raise EngineError(f"The converted trunk could not be kept in {kept}. Check what else is in the way there.")
    return kept


def _why_not_there(root: Path, error: Exception) -> str | None:
    """What is wrong with the cache, if it is what made a conversion fail."""
    if isinstance(error, OSError) and error.errno in _CLOSED and error.errno != errno.ENOSPC:
        return f"{root} cannot be written to: {(error.strerror or str(error)).lower()}."
    return f"The disk of {root} is full." if shutil.disk_usage(root).free <= _FULL else None


def _for_this_run(build: Callable[[Path], None], reason: str) -> Path:
    _log.warning(
        "%s The converted trunk is made anew in every run until SEEWHY_CACHE names a folder with room that can be "
        "written to.",
        reason,
    )
    folder = temporary_folder()
    atexit.register(drop_folder, folder, r".+")
    _fill(folder, build)
    return folder


def _fill(folder: Path, build: Callable[[Path], None]) -> None:
    build(folder)
    write_inside(folder / "digests.json", json.dumps(_digests(folder)))


def _digests(folder: Path) -> dict[str, str]:
    found = {}
    for path in sorted(folder.iterdir()):
        if path.name != "digests.json":
            found[path.name] = file_sha256(path)
    return found


def _is_whole(folder: Path) -> bool:
    try:
        return bool(read_json(folder / "digests.json") == _digests(folder))
    except (OSError, ValueError):
        return False
