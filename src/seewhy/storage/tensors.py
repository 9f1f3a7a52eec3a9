"""Tensors kept in the cache: written with a sum of theirs, checked whenever they are read, made again if damaged."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..errors import DataError
from .cache import cache_dir
from .marks import marked_tensors
from .output import write_atomic
from .reading import SUM, read_tensors

_log = logging.getLogger("seewhy")


def compact(tensor: Tensor) -> Tensor:
    """In half precision where that holds the largest number, else as it is.

    >>> compact(torch.tensor([1e3])).dtype, compact(torch.tensor([1e6])).dtype
    (torch.float16, torch.float32)
    """
    return tensor.half() if bool((tensor.abs() <= torch.finfo(torch.float16).max).all()) else tensor


def cached_tensors(folder: str, name: str, make: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors of ``folder/name.safetensors`` in the cache; where it is missing or damaged, ``make`` gives them.

    Where they cannot be written, they are used as they were made, and a note says so.
    """
    try:
        path = cache_dir(folder) / f"{name}.safetensors"
    except DataError as error:
        return _unkept(make(), error)
    found = _read(path)
    if found is None:
        found = {key: value.contiguous() for key, value in make().items()}
        try:
            write_atomic(path, marked_tensors(found))
        except DataError as error:
            return _unkept(found, error)
    return found


def _unkept(made: Mapping[str, Tensor], error: DataError) -> dict[str, Tensor]:
    _log.warning("%s What belongs there is made anew in every run until then.", error)
    return {key: value.contiguous() for key, value in made.items()}


def _read(path: Path) -> dict[str, Tensor] | None:
    """The tensors of a whole file; ``None`` where there is none."""
    if not path.exists():
        return None
    try:
        found, texts = read_tensors(path)
    except (OSError, ValueError):
        _log.warning("%s was damaged and is made again.", path)
        return None
    return found if SUM in texts else None  # without a sum it is not damaged but from an earlier version


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and values, whatever the order."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
