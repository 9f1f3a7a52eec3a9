"""Convert dataclasses to tensors and back, and check their dtypes and shapes by their type annotations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from functools import cache
from typing import Any, TypeVar, cast, get_args, get_type_hints

from torch import Tensor

T = TypeVar("T")

SAVED = {"float16", "float32", "int64"}


def tensors_of(part: Any, prefix: str = "") -> dict[str, Tensor]:
    found = {f"{prefix}{f.name}": getattr(part, f.name) for f in fields(part)}
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}


def rebuilt(
    kind: type[T], tensors: Mapping[str, Tensor], prefix: str = "", sizes: Mapping[str, int] | None = None, **given: Any
) -> T:
    """Build a dataclass from tensors and other values; a field without a value must have a default.

    Raises:
        KeyError: a tensor is missing.
        ValueError: a tensor has another dtype or shape than its type annotation.
    """
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
    """Check the dtype and shape of a tensor; axes of the same name must have the same length.

    Of the dtypes that ``Float`` and ``Int`` allow, SeeWhy saves only those of :data:`SAVED`.
    """
    axes, dtypes = hint.dim_str.split(), set(hint.dtypes)
    if str(tensor.dtype).removeprefix("torch.") not in (dtypes & SAVED or dtypes) or tensor.ndim != len(axes):
        raise ValueError(f"{name} is {tensor.dtype} {tuple(tensor.shape)}")
    for axis, length in zip(axes, tensor.shape, strict=True):
        expected = int(axis) if axis.isdecimal() else lengths.setdefault(axis, length)
        if length != expected:
            raise ValueError(f"{name} is {tuple(tensor.shape)}, not ({hint.dim_str.strip()}) with {axis} = {expected}")


def check_finite(tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise ValueError(f"{name} must be finite")


def check_index(name: str, index: Tensor, n: int) -> None:
    """Check that an index is one-dimensional, with integers from 0 to ``n - 1``."""
    if index.ndim != 1 or index.is_floating_point() or not bool(((index >= 0) & (index < n)).all()):
        raise ValueError(f"{name} must be integers from 0 to {n - 1}")


@cache
def _axes(kind: type) -> dict[str, Any]:
    hints = {name: (hint, *get_args(hint)) for name, hint in get_type_hints(kind).items()}
    return {name: h for name, kinds in hints.items() for h in kinds if hasattr(h, "dim_str")}
