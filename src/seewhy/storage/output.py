"""Atomic writing of output files, and protection of files that SeeWhy did not write.

No module outside ``storage`` writes, empties, renames or deletes a file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from ..errors import DataError, ForeignFileError
from .cache import refuse_address
from .marks import CHECKPOINT, Mark, is_own, remember

PICTURES = (".avif", ".bmp", ".dcm", ".gif", ".heic", ".heif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""File endings of pictures."""
_PICTURE = re.compile(
    rb"\x89PNG|\xff\xd8\xff|GIF8|BM.{4}\0{4}|II[*+]\0|MM\0[*+]|RIFF.{4}WEBP|.{4}ftyp(avi|hei|hev|mif|msf)|.{128}DICM",
    re.DOTALL,
)
"""The first bytes of pictures."""
WRITTEN = ".seewhy"
"""File that marks a folder of pictures which SeeWhy wrote."""
CARD = "SeeWhy card"
"""The ``Software`` of a PNG that is a card."""
_inputs: dict[tuple[int, int], tuple[int, int, str]] = {}
"""Size, time and name of each file that this process has read, by device and inode; another file may get its inode."""
_STREAM = re.compile(r"/dev/(stdout|stderr|fd/(\d+))|/proc/self/fd/(\d+)")
_WAIT = 10.0
"""Maximum seconds to wait for the reader of a pipe."""


def write(path: str | Path, data: bytes | str, mark: Mark | None = None, *, force: bool | None = False) -> Path:
    """Write a file that a user named, unless it exists and SeeWhy did not write it.

    Pipes, terminals and ``/dev/stdout`` are written directly.

    Args:
        path: file to write.
        data: contents.
        mark: mark of files that may be overwritten.
        force: whether to overwrite any file; ``None`` if the user does not have this option.
    """
    path = check_file(path, mark, force=force)
    if special(path):
        try:
            with open(descriptor(path), "wb") as file:
                file.write(_bytes(data))
        except OSError as error:
            raise write_error(path, error) from error
        return path
    whole = _bytes(data + "\n" * (not data.endswith("\n")) if isinstance(data, str) else data)
    remember(path, whole)
    return write_atomic(path, whole)


def check_file(path: str | Path, mark: Mark | None = None, *, force: bool | None = False) -> Path:
    """Return the path, after a check that :func:`write` may write there."""
    path = check_target(Path(path))
    if not special(path) and path.exists() and not force and not is_own(path, mark):
        cure = "Choose another name" + (", or --force (force=True) to write over it." if force is False else ".")
        raise ForeignFileError(f"{path} exists, and either SeeWhy did not write it or it has changed since. {cure}")
    if force:
        check_replaceable(path, mark)
    return path


def note_input(path: str | Path, status: os.stat_result) -> None:
    """Note a file that this process reads, so that it is not overwritten; pictures are recognised without notes."""
    if not os.fspath(path).lower().endswith(PICTURES):
        _inputs[status.st_dev, status.st_ino] = (status.st_size, status.st_mtime_ns, os.path.realpath(path))


def check_replaceable(path: Path, mark: Mark | None = None) -> None:
    """Check that a file is no picture and was not read by this process, unless SeeWhy wrote it."""
    if special(path) or not path.is_file() or is_own(path, mark):
        return
    status = path.stat()
    *known, name = _inputs.get((status.st_dev, status.st_ino), (None, None, None))
    is_input = known == [status.st_size, status.st_mtime_ns] or name == os.path.realpath(path)
    if is_input or _is_picture(path):
        what = "is also an input" if is_input else "is a picture that SeeWhy did not write"
        raise ForeignFileError(f"{path} {what}, and would be overwritten. Choose another name; --force does not help.")


def _is_picture(path: Path) -> bool:
    if path.name.lower().endswith(PICTURES):
        return True
    with open(path, "rb") as file:
        return _PICTURE.match(file.read(132)) is not None


def check_checkpoint(path: Path) -> Path:
    """Return the path, after a check that a checkpoint can be written there."""
    path = check_target(path)
    if path.exists() and not is_own(path, CHECKPOINT):
        raise ForeignFileError(
            f"{path} must be a checkpoint of SeeWhy, but it is damaged, or not a checkpoint. Move it away."
        )
    return path


def check_apart(output: Path, inputs: Iterable[Path]) -> None:
    """Check that the output is not one of the input files."""
    if special(output) or not output.is_file():
        return
    written = output.stat()
    for path in inputs:
        with contextlib.suppress(OSError):
            if os.path.samestat(path.stat(), written):
                also = "" if path == output else f", as {path}"
                raise ForeignFileError(
                    f"{output} is also an input{also}, and would be overwritten. Choose another name; --force "
                    "does not help."
                )


def check_single(path: Path) -> None:
    """Check that a file which is changed in place has no other name, because the other would change too.

    A hard link of a temporary file is left by an interrupted run and is deleted.
    """
    target = Path(os.path.realpath(path))
    if not target.is_file() or target.stat().st_nlink == 1:
        return
    for name in os.listdir(target.parent):
        with contextlib.suppress(FileNotFoundError):
            part = target.with_name(name)
            if re.fullmatch(r"\.[0-9a-f]{12}\.part", name) and part.samefile(target):
                part.unlink()
    if target.stat().st_nlink > 1:
        raise ForeignFileError(
            f"{path} is a hard link, so writing would change another file too. Copy {path.parent} without links first."
        )


def special(path: Path) -> bool:
    """Return whether the path is a pipe, a terminal or another device."""
    if _STREAM.fullmatch(os.path.abspath(path)):
        return True
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def write_atomic(path: Path, data: bytes | str, *, follow: bool = True) -> Path:
    """Write a file atomically, keeping the permissions of an existing file and links to it."""
    target = Path(os.path.realpath(path)) if follow else path
    temporary = target.parent / f".{secrets.token_hex(6)}.part"
    try:
        _write_flushed(temporary, _bytes(data))
        if target.is_file() and not target.is_symlink():
            shutil.copymode(target, temporary)
        os.replace(temporary, target)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return path


def _bytes(data: bytes | str) -> bytes:
    return data.encode("utf-8", "backslashreplace") if isinstance(data, str) else data


def _write_flushed(path: Path, payload: bytes) -> None:
    with open(path, "xb") as file:
        file.write(payload)
        file.flush()
        os.fsync(file.fileno())


def descriptor(path: Path) -> int:
    """Open a pipe or device for writing; a pipe waits up to ``_WAIT`` seconds for its reader."""
    found = _STREAM.fullmatch(os.path.abspath(path))
    if found is not None:
        sys.stdout.flush()
        number = {"stdout": 1, "stderr": 2}.get(found[1])
        return os.dup(int(found[2] or found[3]) if number is None else number)
    end = time.monotonic() + _WAIT
    while True:
        try:
            opened = os.open(path, os.O_WRONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0))
        except OSError as error:
            if error.errno != errno.ENXIO or time.monotonic() > end:
                raise
            time.sleep(0.05)
        else:
            os.set_blocking(opened, True)
            return opened


def check_target(path: Path) -> Path:
    """Return the path, after a check that a file can be written there."""
    if special(path):
        return path
    refuse_address(path)
    target = Path(os.path.realpath(path))
    if target.is_dir():
        code = errno.EISDIR
    elif not target.parent.is_dir():
        code = errno.ENOTDIR if target.parent.exists() else errno.ENOENT
    elif not os.access(target.parent, os.W_OK | os.X_OK):
        code = errno.EACCES
    elif target.exists() and not target.stat().st_mode & 0o222:  # root could write, but the mode forbids it
        raise DataError(f"{path} is write-protected. Choose another name.")
    else:
        return path
    raise write_error(path, OSError(code, os.strerror(code)))


def check_folder(path: Path) -> Path:
    """Return the path, after a check that it is or can become a writable folder."""
    refuse_address(path)
    whole = Path(os.path.abspath(path))
    there = next(p for p in (whole, *whole.parents) if p.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        fault = "is not writable" if there.is_dir() else "is a file"
        raise DataError(f"{path} cannot be created, because {there} {fault}. Choose another place.")
    return path


def make_folder(path: str | Path) -> Path:
    refuse_address(path)
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise DataError(f"The folder {path} cannot be created: {reason}. Choose another place.") from error
    return path


@contextlib.contextmanager
def made_folder(path: Path) -> Iterator[Path]:
    """Create a folder if it is missing; if an error ends the block and the new folder is empty, remove it."""
    is_new = not path.exists()
    try:
        yield make_folder(path)
    except BaseException:
        if is_new:
            with contextlib.suppress(OSError):  # it is not empty
                path.rmdir()
        raise


def output_folder(path: Path) -> Path:
    """Create a folder for pictures that SeeWhy writes; its mark keeps them from being read as data.

    A folder that has pictures already gets no mark, because they may be the user's.
    """
    make_folder(path)
    if not (path / WRITTEN).exists() and not any(_is_picture(p) for p in path.rglob("*") if p.is_file()):
        write_atomic(path / WRITTEN, "SeeWhy wrote the pictures in this folder, so they are not read with others.\n")
    return path


def is_written(folder: str | Path) -> bool:
    """Return whether a folder has the mark of :func:`output_folder`."""
    return os.path.isfile(os.path.join(folder, WRITTEN))


def lock(file: IO[bytes]) -> bool:
    """Lock a file until it is closed; return whether no other process has locked it."""
    if sys.platform != "win32":
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:  # some network file systems have no locks
            return error.errno not in (errno.EWOULDBLOCK, errno.EACCES)
    return True


def safe_stem(picture: str) -> str:
    """Return the start of a portable file name for what is made from a picture.

    >>> safe_stem("photos/a cat: asleep.jpg"), safe_stem("..")
    ('a cat_ asleep', 'picture')
    """
    safe = (c if c.isalnum() or c in "-_. " else "_" for c in Path(picture).stem)
    return "".join(safe).strip(". ")[:80] or "picture"


def temporary_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="seewhy-"))


@contextlib.contextmanager
def working_folder(folder: Path | None) -> Iterator[Path]:
    """Yield the given folder, or a temporary folder."""
    if folder is not None:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="seewhy-") as made:
        yield Path(made)


def remove(path: Path, mark: Mark | None = None) -> bool:
    if path.is_symlink() or not path.is_file() or not is_own(path, mark):
        return False
    with contextlib.suppress(OSError):
        path.unlink()
    return not path.exists()


def write_error(path: Path, error: OSError) -> DataError:
    """Return the error for a file that could not be written, with its cause and a cure."""
    reason = (error.strerror or str(error)).lower()
    return DataError(f"{path} could not be written: {reason}. {_cure(error, Path(os.path.realpath(path)))}")


def _cure(error: OSError, target: Path) -> str:
    if error.errno == errno.ENXIO:
        return "Start the program that reads from it first."
    if isinstance(error, FileNotFoundError) and not target.parent.is_dir():
        return f"Create the folder {target.parent} first."
    if isinstance(error, IsADirectoryError | NotADirectoryError):
        return "Give the name of a file, not of a folder."
    if isinstance(error, PermissionError):
        return "Choose a folder you may write to."
    if error.errno == errno.ENOSPC:
        return "Free some space on that disk, or choose another."
    return "Choose another place to write to."
