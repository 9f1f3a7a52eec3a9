"""Safe writing and deleting of files in folders that SeeWhy owns."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from ..errors import DataError, ForeignFileError
from .cache import refuse_address
from .output import WRITTEN, lock, write_atomic

T = TypeVar("T")


@contextlib.contextmanager
def new_folder(folder: Path, is_own: Callable[[Path], bool] = lambda _folder: False) -> Iterator[Path]:
    """Yield a temporary folder that is renamed to ``folder`` when it is complete, and deleted after an error.

    An existing folder is replaced only if ``is_own`` accepts it.
    """
    refuse_address(folder)
    with _part(folder) as part:
        fresh, old = part / "new", part / "old"
        fresh.mkdir()
        yield fresh
        if folder.exists() and is_own(folder):
            os.rename(folder, old)
        try:
            os.rename(fresh, folder)
        except BaseException:
            if old.exists():
                os.rename(old, folder)
            raise


@contextlib.contextmanager
def _part(target: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``target``, and delete those of interrupted runs.

    The file that marks it is locked, so that another run does not delete it. If a run was killed between two renames,
    the earlier ``target`` is put back.
    """
    for left in target.parent.glob(f".{glob.escape(target.name)}.*.part"):
        with contextlib.suppress(OSError), open(left / WRITTEN, "rb") as file:
            is_new = abs(time.time() - os.fstat(file.fileno()).st_mtime) < 1  # and may not be locked yet
            if is_new or left.is_symlink() or not lock(file):
                continue
            if (left / "old").exists() and not target.exists():
                os.rename(left / "old", target)
            shutil.rmtree(left, ignore_errors=True)
    part = target.parent / f".{target.name}.{secrets.token_hex(4)}.part"
    part.mkdir(parents=True)
    try:
        with open(part / WRITTEN, "xb") as file:
            lock(file)
            yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_inside(path: Path, data: bytes | str) -> Path:
    """Write a file atomically; a link is replaced, never followed."""
    return write_atomic(path, data, follow=False)


def write_together(folder: Path, files: Mapping[str, bytes | str], stale: Path | None = None) -> Path:
    """Write files into a folder, and delete the ``stale`` file afterwards.

    All files are on the disk before the first is renamed. The last file must refer to the others; until it is replaced,
    the old contents stay valid.
    """
    try:
        if not folder.exists():
            with new_folder(folder) as fresh:
                _write_all(fresh, files, folder)
            return folder
        added = [folder / name for name in files if not (folder / name).exists()]
        try:
            with _part(folder / "files") as staged:
                _write_all(staged, files, folder)
                for name in files:
                    target = folder / name
                    if target.is_file() and not target.is_symlink():
                        shutil.copymode(target, staged / name)
                    os.replace(staged / name, target)
        except BaseException:
            for path in added:
                remove_inside(path)
            raise
        if stale is not None and stale.name not in files:
            with contextlib.suppress(DataError):
                remove_inside(stale)
    except OSError as error:
        why = getattr(error, "strerror", None) or error
        raise DataError(f"{folder} could not be written: {why}. Free some space, or give another place.") from error
    return folder


def _write_all(fresh: Path, files: Mapping[str, bytes | str], folder: Path) -> None:
    for name, data in files.items():
        try:
            write_inside(fresh / name, data)
        except DataError as error:
            raise DataError(str(error).replace(str(fresh), str(folder))) from error


def write_at(path: Path, place: int, data: bytes | memoryview) -> None:
    """Write data at byte ``place`` of a file, and sync it to the disk."""
    if path.is_symlink() or (path.exists() and path.stat().st_nlink > 1):
        raise ForeignFileError(
            f"{path} is a link, so writing would change another file too. Copy {path.parent} without links first."
        )
    with open(path, "r+b" if path.exists() else "xb") as file:
        file.seek(place)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_first(path: Path, data: bytes) -> bool:
    """Write a file atomically unless it exists; return whether it was written."""
    part = path.parent / f".{path.name}.{secrets.token_hex(6)}.part"
    try:
        part.write_bytes(data)
        return renamed_first(part, path)
    finally:
        part.unlink(missing_ok=True)


def renamed_first(part: Path, path: Path) -> bool:
    """Give a file its name unless that exists; return whether it has the name."""
    try:
        os.link(part, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):  # file systems without hard links
            raise
        if path.exists():
            return False
        os.replace(part, path)
    return True


def write_by(path: Path, make: Callable[[Path], T]) -> T:
    """Write a file atomically by calling ``make`` with a temporary path.

    If several processes write the same file, the first process succeeds. Temporary files of interrupted runs are
    deleted.
    """
    part = path.parent / f".{path.name}.{secrets.token_hex(6)}.part"
    try:
        made = make(part)
        try:
            with open(part, "r+b") as file:
                os.fsync(file.fileno())
            os.replace(part, path)
        except FileNotFoundError:
            if not path.exists():
                raise
    finally:
        part.unlink(missing_ok=True)
    for left in path.parent.glob(f".{path.name}.*.part"):
        left.unlink(missing_ok=True)
    return made


def remove_inside(path: Path) -> None:
    """Delete a file if it exists; only the link is deleted if it is a link."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"{path} cannot be deleted: {error.strerror}. Delete it by hand.") from error


def drop_folder(folder: Path, pattern: str) -> None:
    """Delete the files that match ``pattern``, and then the folder if it is empty."""
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if re.fullmatch(pattern, path.name) and (path.is_file() or path.is_symlink()):
                path.unlink()
        folder.rmdir()
