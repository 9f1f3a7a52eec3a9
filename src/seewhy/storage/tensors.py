"""Tensors in files, with SeeWhy's mark and a sum of theirs; and dataclasses as tensors, checked by their types."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar, cast, get_args, get_type_hints

import torch
from safetensors.torch import save
from torch import Tensor

from ..errors import DataError
from .cache import cache_dir
from .marks import MADE_BY
from .output import write_atomic
from .reading import SUM, read_tensors, tensors_sum

T = TypeVar("T")
_log = logging.getLogger("seewhy")


def marked_tensors(tensors: Mapping[str, Tensor], facts: Mapping[str, str] | None = None) -> bytes:
    """The contents of a safetensors file with SeeWhy's mark, and a sum of all that is in it."""
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


def tensors_of(part: Any, prefix: str = "") -> dict[str, Tensor]:
    """Every field of a dataclass that is a tensor, by its name behind the prefix."""
    found = {f"{prefix}{f.name}": getattr(part, f.name) for f in fields(part)}
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}


def rebuilt(
    kind: type[T], tensors: Mapping[str, Tensor], prefix: str = "", sizes: Mapping[str, int] | None = None, **given: Any
) -> T:
    """The dataclass of these tensors and what else is given; a field that is in neither must have a default."""
    values = dict(given)
    for f in fields(kind):  # type: ignore[arg-type]
        name = f"{prefix}{f.name}"
        if f.name in values or (name not in tensors and (f.default, f.default_factory) != (MISSING, MISSING)):
            continue
        values[f.name] = tensors[name]
    lengths, of_fields = dict(sizes or {}), cast("Any", kind)
    for name, hint in _axes(of_fields).items():
        if isinstance(value := values.get(name), Tensor):
            check_axes(f"{prefix}{name}", value, hint, lengths)
    return kind(**values)


def check_axes(name: str, tensor: Tensor, hint: Any, lengths: dict[str, int]) -> None:
    """Refuse a tensor that is not as its type says; axes of the same name are as long as each other."""
    axes = hint.dim_str.split()
    if str(tensor.dtype).removeprefix("torch.") not in hint.dtypes or tensor.ndim != len(axes):
        raise ValueError(f"{name} is {tensor.dtype} {tuple(tensor.shape)}")
    for axis, length in zip(axes, tensor.shape, strict=True):
        expected = int(axis) if axis.isdecimal() else lengths.setdefault(axis, length)
        if length != expected:
            raise ValueError(f"{name} is {tuple(tensor.shape)}, not ({hint.dim_str.strip()}) with {axis} = {expected}")


@cache
def _axes(kind: type) -> dict[str, Any]:
    hints = {name: (hint, *get_args(hint)) for name, hint in get_type_hints(kind).items()}
    return {name: h for name, kinds in hints.items() for h in kinds if hasattr(h, "dim_str")}
