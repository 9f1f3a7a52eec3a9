"""The supported forms of a picture, and picture files in folders."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from PIL import Image

from ..bounds import article
from ..errors import DataError, EmptyFolderError, ImageError, InputError
from ..storage.output import PICTURES, WRITTEN, is_written
from .dicom import is_dicom
from .tables import opened, pictures_in

if TYPE_CHECKING:
    from torch import Tensor

Plain = str | Path | bytes | Image.Image | np.ndarray
_log = logging.getLogger("seewhy")
CHANNELS = (1, 3, 4)
FORMS = "a file name, bytes, a Pillow image, an array (h, w, 3) or a tensor (3, h, w)"


@dataclass(frozen=True, eq=False)
class InMemory:
    """A picture without a file; ``load`` returns it on access."""

    name: str
    load: Callable[[], Any]

    def __str__(self) -> str:
        return self.name


if TYPE_CHECKING:
    One = str | os.PathLike[str] | bytes | Image.Image | np.ndarray | Tensor | InMemory
    Many = Iterable[One]
else:
    One = Annotated[Any, "checked where it is read"]
    Many = One


def name_of(source: Any, number: int) -> str:
    """Return the name of a picture, or ``picture 3`` for the third picture without a name."""
    return str(source) if isinstance(source, str | os.PathLike | InMemory) else f"picture {number}"


def plain(source: Any) -> Plain:
    """Return a picture in one of the forms that SeeWhy decodes."""
    if isinstance(source, InMemory):
        try:
            return plain(source.load())
        except InputError:
            raise
        except Exception as error:  # somebody else's data set may raise any exception
            reason = (
                f"cannot be loaded ({type(error).__name__}: {error}); correct the data set that gives it, or leave it "
                "out"
            )
            raise ImageError(source.name, reason) from error
    if isinstance(source, str | Path | bytes | Image.Image | np.ndarray):
        return source
    if isinstance(source, os.PathLike):
        return Path(source)
    if isinstance(source, bytearray | memoryview):
        return bytes(source)
    if _is_tensor(source):
        return _from_tensor(source)
    if isinstance(source, Mapping) and (source.get("bytes") or source.get("path")):  # as Hugging Face keeps them
        return source["bytes"] if source.get("bytes") else str(source["path"])
    array = _as_array(source)
    if array is None or array.ndim < 2:
        raise InputError(f"A picture must be {FORMS}, got {article(type(source).__name__)}.")
    return array


def several(source: Any) -> Iterable[Any] | None:
    """Return the pictures of a collection, or ``None`` if ``source`` is not a collection."""
    if isinstance(source, str | bytes | bytearray | memoryview | os.PathLike | Image.Image | InMemory):
        return None
    if (table := opened(source)) is not None:
        return pictures_in(*table)
    if isinstance(source, Mapping):
        return None
    array = source if _is_tensor(source) else _as_array(source)
    if array is not None:
        is_names = array.ndim == 1 and not _is_tensor(array) and array.dtype.kind in "OUST"
        return list(array) if array.ndim == 4 or is_names else None
    return source if isinstance(source, Iterable) else None


def _is_tensor(source: Any) -> bool:
    torch = sys.modules.get("torch")  # decoding does not import torch
    return torch is not None and isinstance(source, torch.Tensor)


def _as_array(source: Any) -> np.ndarray | None:
    if isinstance(source, np.ndarray):
        return source
    return np.asarray(source) if hasattr(source, "__array__") else None


def _from_tensor(tensor: Any) -> np.ndarray:
    """Return a tensor as an array with channels last."""
    name = f"<tensor {'x'.join(map(str, tensor.shape))}>"
    if tensor.ndim not in (2, 3) or (tensor.ndim == 3 and tensor.shape[0] not in CHANNELS):
        cure = "put channels first, as tensor.permute(2, 0, 1) does"
        raise ImageError(
            name, f"has the shape {tuple(tensor.shape)}; the shape must be (h, w) or (1, 3 or 4, h, w); {cure}"
        )
    array = tensor.detach().cpu()
    array = (array.float() if array.is_floating_point() else array).numpy()
    if array.dtype.kind == "f" and array.size and not (np.nanmin(array) >= 0 and np.nanmax(array) <= 1):
        low, high = float(np.nanmin(array)), float(np.nanmax(array))
        cure = "undo its normalisation, or divide values from 0 to 255 by 255"
        raise ImageError(name, f"has values from {low:.3g} to {high:.3g}; floats must be from 0 to 1; {cure}")
    if array.dtype.kind == "i" and array.size and array.min() >= 0 and array.max() <= 255:
        array = array.astype(np.uint8)
    return array if array.ndim == 2 else np.moveaxis(array, 0, -1)


SUFFIXES = PICTURES


def list_pictures(paths: Iterable[str | Path]) -> Iterator[str]:
    """Yield the given files, and the pictures in the given folders and their subfolders.

    Files are yielded even if they do not exist. Folders are read lazily in natural order ("2" before "10"), each only
    once. Hidden entries are skipped.
    """
    for path in [paths] if isinstance(paths, (str, Path)) else paths:
        if not os.path.isdir(path):
            yield os.fspath(path)
            continue
        names = list_files(path, is_picture)
        first = next(names, None)
        if first is None:
            raise EmptyFolderError(
                f"The folder {os.fspath(path)} and its subfolders have no pictures. Pictures end in "
                f"{', '.join(SUFFIXES)}. Give another folder, or name the files one by one."
            )
        yield first
        yield from names


def list_files(folder: str | Path, wanted: Callable[[str, str], bool]) -> Iterator[str]:
    """Yield the files in a folder and its subfolders, in the order of :func:`list_pictures`."""
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
            # For a link to itself, is_dir() raises and isdir() returns False.
            found = [(e.name, e.path, os.path.isdir(e.path) if e.is_symlink() else e.is_dir()) for e in shown]
            links = {e.path: os.path.realpath(e.path).rstrip(os.sep) + os.sep for e in shown if e.is_symlink()}
        except FileNotFoundError as error:
            if path == os.fspath(folder):
                raise unlistable(path, error) from error
            continue  # the folder was deleted in the meantime
        except OSError as error:
            raise unlistable(path, error) from error
        found.sort(key=lambda entry: natural_key(entry[0]), reverse=True)
        for name, path, is_folder in found:
            leads_back = path in links and f"{real}{os.sep}".startswith(links[path])  # a link to a parent folder
            if is_folder and is_written(path):
                _note_left_out(os.path.abspath(path))
            elif not leads_back and (is_folder or wanted(name, path)):
                pending.append((path, is_folder))


@cache
def _note_left_out(folder: str) -> None:
    _log.warning(
        "%s was left out, because SeeWhy wrote it. If its pictures belong to your data, delete its file %s.",
        folder,
        WRITTEN,
    )


def is_picture(name: str, path: str) -> bool:
    """Return whether a file has the suffix of a picture, or no suffix and a DICOM preamble."""
    if name.lower().endswith(SUFFIXES):
        return True
    if not re.fullmatch(r"[^.]+|[0-9.]+", name) or not os.path.isfile(path):
        return False
    try:
        with open(path, "rb") as file:
            return is_dicom(file.read(132))
    except OSError:
        return False


def is_unicode(name: str) -> bool:
    """Return whether a name can be encoded as UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def unlistable(folder: str | Path, error: OSError) -> DataError:
    """Return the error for a folder that cannot be listed."""
    return DataError(f"The folder {folder} cannot be listed ({error.strerror}). Allow reading it, or leave it out.")


def natural_key(name: str) -> tuple[list[str | tuple[int, str]], str]:
    """Return a sort key that puts "2" before "10"."""
    digits = (part.lstrip("0") if i % 2 else part for i, part in enumerate(re.split("([0-9]+)", name)))
    return [(len(part), part) if i % 2 else part for i, part in enumerate(digits)], name
