"""Writing files so that a reader never meets half of one."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from pathlib import Path

from ..errors import DataError


def write_atomic(path: Path, data: bytes | str) -> Path:
    """Write ``data`` to ``path`` whole or not at all.

    The bytes go to a temporary file in the same folder, are flushed to the disk, and take the
    name in one step. A file that was there keeps its permissions; a link keeps pointing.

    Args:
        path: where to write. Its folder must exist.
        data: bytes as they are, text as UTF-8 with its line endings untouched. What UTF-8 cannot say, as in the file
            name ``caf\\udce9.png``, is written with backslashes, which JSON reads back as it was.

    Returns:
        The path as given.

    Raises:
        DataError: the disk is full, the folder is missing, read-only, or the name is a folder;
            nothing is left behind and what was there before is unchanged.
    """
    payload = data.encode("utf-8", "backslashreplace") if isinstance(data, str) else data
    target = Path(os.path.realpath(path))
    temporary = target.parent / f".{secrets.token_hex(6)}.part"
    try:
        _write_flushed(temporary, payload)
        if target.exists():
            shutil.copymode(target, temporary)
        os.replace(temporary, target)
    except OSError as error:
        raise _problem(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return path


def _write_flushed(path: Path, payload: bytes) -> None:
    with open(path, "xb") as file:
        file.write(payload)
        file.flush()
        os.fsync(file.fileno())


def check_target(path: Path) -> Path:
    """The path, if a file can be written there as far as can be told; asked before the work begins.

    Raises:
        DataError: its folder is missing or may not be written to, or the path is a folder.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        code = errno.EISDIR
    elif not target.parent.is_dir():
        code = errno.ENOTDIR if target.parent.exists() else errno.ENOENT
    elif not os.access(target.parent, os.W_OK | os.X_OK):
        code = errno.EACCES
    else:
        return path
    raise _problem(path, OSError(code, os.strerror(code)))


def check_folder(path: Path) -> Path:
    """The path, if it is a folder that can be written to, or one can be made there; asked before the work begins.

    Raises:
        DataError: a file is in the way, or a folder on the way may not be written to.
    """
    whole = Path(os.path.abspath(path))
    there = next(p for p in (whole, *whole.parents) if p.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        said = "may not be written to" if there.is_dir() else "is a file"
        raise DataError(f"{path} was to be a folder, and {there} {said}. Choose another place.")
    return path


def _problem(path: Path, error: OSError) -> DataError:
    reason = (error.strerror or str(error)).lower()
    return DataError(f"{path} could not be written: {reason}. {_cure(error, Path(os.path.realpath(path)))}")


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
