"""Safetensors files with SeeWhy's mark and a checksum, and a cache of computed tensors."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from ..errors import DataError
from .cache import cache_dir
from .marks import MADE_BY
from .output import write_atomic
from .reading import SUM, read_tensors, tensor_bytes, tensors_sum

_log = logging.getLogger("seewhy")


def marked_tensors(tensors: Mapping[str, Tensor], facts: Mapping[str, str] | None = None) -> bytes:
    """Return the contents of a safetensors file with SeeWhy's mark and a checksum."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    texts = {MADE_BY: version("seewhy"), **(facts or {})}
    data = save(plain, {**texts, SUM: tensors_sum(plain, texts)})
    # Its texts are in an order drawn anew with each file; here they are sorted.
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def compact(tensor: Tensor) -> Tensor:
    """Return the tensor in half precision if its values fit, otherwise unchanged.

    >>> compact(torch.tensor([1e3])).dtype, compact(torch.tensor([1e6])).dtype
    (torch.float16, torch.float32)
    """
    return tensor.half() if bool((tensor.abs() <= torch.finfo(torch.float16).max).all()) else tensor


def cached_tensors(folder: str, name: str, make: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the tensors of ``folder/name.safetensors`` in the cache; if it is missing or damaged, compute them by
    ``make``.

    If the cache cannot be written, a warning is logged.
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
    _log.warning("%s Until then, it is computed again in every run.", error)
    return {key: value.contiguous() for key, value in made.items()}


def _read(path: Path) -> dict[str, Tensor] | None:
    if not path.exists():
        return None
    try:
        tensors, texts = read_tensors(path)
        if SUM in texts:
            return tensors
    except (OSError, ValueError):
        pass
    _log.warning("%s was damaged and is computed again.", path)
    return None


def tensors_digest(tensors: Mapping[str, Tensor], more: str = "") -> str:
    """Return the SHA-256 of names, dtypes, shapes and values, in any order, and of ``more``."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor_bytes(tensor))
    digest.update(more.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
