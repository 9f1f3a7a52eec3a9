"""Which pictures are meant: files as named, folders walked in natural order."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ..errors import DataError, EmptyFolderError
from .dicom import is_dicom

SUFFIXES = (".avif", ".bmp", ".dcm", ".gif", ".heic", ".heif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def list_pictures(paths: Iterable[str | Path]) -> Iterator[str]:
    """Names the given files as they are, even missing ones, and the pictures in the given folders and below.

    Folders are walked lazily in natural order ("2" before "10"), each once however linked; hidden entries are skipped,
    and so are links to a folder that they lie in.
    """
    for path in [paths] if isinstance(paths, (str, Path)) else paths:
        if not os.path.isdir(path):
            yield os.fspath(path)
            continue
        names = list_files(path, _is_picture)
        first = next(names, None)
        if first is None:
            looked = f"No picture is in the folder {os.fspath(path)} or below. Expected files ending in"
            raise EmptyFolderError(
                f"{looked} {', '.join(SUFFIXES)}. Give another folder, or name the files one by one."
            )
        yield first
        yield from names


def list_files(folder: str | Path, wanted: Callable[[str, str], bool]) -> Iterator[str]:
    """The files in a folder and below, as :func:`list_pictures` walks it."""
    seen, pending = set(), [(os.fspath(folder), True)]
    while pending:
        path, is_folder = pending.pop()
        if not is_folder:
            yield path
            continue
        real = os.path.realpath(path)
        if real in seen:
            continue
        seen.add(real)
        try:
            with os.scandir(path) as entries:
                shown = [e for e in entries if not e.name.startswith(".")]
            # A link to itself makes is_dir() raise; isdir() calls it no folder.
            found = [(e.name, e.path, os.path.isdir(e.path) if e.is_symlink() else e.is_dir()) for e in shown]
            above = {e.path for e in shown if e.is_symlink() and _leads_back(os.path.realpath(e.path), real)}
        except FileNotFoundError as error:
            if path == os.fspath(folder):
                raise unlistable(path, error) from error
            continue  # it was taken away meanwhile
        except OSError as error:
            raise unlistable(path, error) from error
        found.sort(key=lambda entry: natural_key(entry[0]), reverse=True)
        pending += [
            (path, is_folder)
            for name, path, is_folder in found
            if path not in above and (is_folder or wanted(name, path))
        ]


def _leads_back(target: str, folder: str) -> bool:
    """Whether a link's target is the real folder that the link lies in, or one above."""
    return folder == target or folder.startswith(target.rstrip(os.sep) + os.sep)


def _is_picture(name: str, path: str) -> bool:
    return name.lower().endswith(SUFFIXES) or _is_bare_dicom(name, path)


def _is_bare_dicom(name: str, path: str) -> bool:
    """Whether a file without a suffix is DICOM, as scanners and archives write it."""
    if not re.fullmatch(r"[^.]+|[0-9.]+", name) or not os.path.isfile(path):
        return False
    try:
        with open(path, "rb") as file:
            return is_dicom(file.read(132))
    except OSError:
        return False


def is_unicode(name: str) -> bool:
    """Whether a name can be written as UTF-8; one made of other bytes cannot, though its file can be read."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def unlistable(folder: str | Path, error: OSError) -> DataError:
    """What is said of a folder whose entries the system does not give."""
    expected = "Expected a folder whose files may be listed. Allow reading it, or leave it out."
    return DataError(f"The folder {folder} cannot be listed ({error.strerror}). {expected}")


def natural_key(name: str) -> tuple[list[str | tuple[int, str]], str]:
    """Sorts "2" before "10"; numbers by length and digits, as Python turns no more than 4,300 digits into one."""
    digits = (part.lstrip("0") if i % 2 else part for i, part in enumerate(re.split("([0-9]+)", name)))
    return [(len(part), part) if i % 2 else part for i, part in enumerate(digits)], name
