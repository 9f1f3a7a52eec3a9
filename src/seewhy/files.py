"""Writing files so that a reader never meets half of one."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from pathlib import Path

from .errors import DataError


def write_atomic(path: Path, data: bytes | str) -> Path:
    """Write ``data`` to ``path`` whole or not at all.

    The bytes go to a temporary file in the same folder, are flushed to the disk, and take the
    name in one step. A file that was there keeps its permissions; a link keeps pointing.

    Args:
        path: where to write. Its folder must exist.
        data: bytes as they are, text as UTF-8 with its line endings untouched.

    Returns:
        The path as given.

    Raises:
        DataError: the disk is full, the folder is missing, read-only, or the name is a folder;
            nothing is left behind and what was there before is unchanged.
    """
    payload = data.encode("utf-8") if isinstance(data, str) else data
    target = Path(os.path.realpath(path))
    temporary = target.parent / f".{secrets.token_hex(6)}.part"
    try:
        _write_flushed(temporary, payload)
        if target.exists():
            shutil.copymode(target, temporary)
        os.replace(temporary, target)
    except OSError as error:
        raise DataError(f"{path} could not be written: {_reason(error)}. {_cure(error, target)}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return path


def _write_flushed(path: Path, payload: bytes) -> None:
    with open(path, "xb") as file:
        file.write(payload)
        file.flush()
        os.fsync(file.fileno())


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _cure(error: OSError, target: Path) -> str:
    if isinstance(error, FileNotFoundError) and not target.parent.is_dir():
        return f"Create the folder {target.parent} first."
    if isinstance(error, IsADirectoryError | NotADirectoryError):
        return "Give the name of a file, not of a folder."
    if isinstance(error, PermissionError):
        return "Choose a folder you may write to."
    if error.errno == errno.ENOSPC:
        return "Free some space on that disk, or choose another."
    return "Choose another place to write to."
