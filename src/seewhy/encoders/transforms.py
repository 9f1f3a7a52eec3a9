"""Preprocessing as other libraries write it, as a :class:`~seewhy.types.Transform`."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from ..arguments import article
from ..errors import InputError
from ..types import Transform

PLAIN = ("ToTensor", "MaybeToTensor", "PILToTensor", "MaybePILToTensor", "ToImage", "ToDtype", "ConvertImageDtype",
         "ToPureTensor", "RGB")  # fmt: skip
"""Steps that change how a picture is kept, and nothing that is seen."""

FORMS = (
    "A seewhy.Transform, torchvision's weights.transforms(), timm's data config or create_transform(...), an image "
    "processor of transformers, or a Compose of Resize, CenterCrop, ToTensor and Normalize"
)


def as_transform(given: Any, name: str = "The transform") -> Transform:
    """What a network's own library says of its preprocessing."""
    if isinstance(given, Transform):
        return given
    if hasattr(given, "transforms") and hasattr(given, "meta"):  # a member of torchvision's weights
        given = given.transforms
    if isinstance(given, functools.partial):
        given = given()
    if hasattr(given, "crop_size") and hasattr(given, "resize_size"):
        from .torchvision import transform_of

        return transform_of(given)
    if hasattr(given, "image_mean") and hasattr(given, "to_dict"):
        from .huggingface import transform_of as of_processor

        return of_processor(given.to_dict(), name)
    if isinstance(given, Mapping) and {"input_size", "mean", "std", "interpolation"} <= set(given):
        from .timm import transform_of_config

        return transform_of_config(dict(given), name)
    steps = getattr(given, "transforms", given)
    if isinstance(steps, Sequence) and not isinstance(steps, str) and len(steps):
        return _of_steps(list(steps))
    raise InputError(f"The transform is {article(type(given).__name__)}. {FORMS} was expected. Give one of them.")


def _of_steps(steps: list[Any]) -> Transform:
    """Resize, centre crop and normalisation, in this order; anything else is refused rather than left out."""
    found: dict[str, Any] = {}
    for step in steps:
        kind = type(step).__name__
        if kind in ("Resize", "CenterCrop", "Normalize") and kind not in found:
            found[kind] = step
        elif kind not in PLAIN and getattr(step, "__name__", "") != "_convert_to_rgb":
            raise InputError(
                f"The transform has the step {kind}, which a Transform does not express. Resize, CenterCrop, ToTensor "
                "and Normalize were expected, each once. Give the network's transform for evaluation, not for training."
            )
    if "Resize" not in found or list(found) != [k for k in ("Resize", "CenterCrop", "Normalize") if k in found]:
        raise InputError(
            f"The transform has the steps {', '.join(type(s).__name__ for s in steps)}. Resize first, then CenterCrop, "
            "then Normalize were expected. Write a seewhy.Transform."
        )
    resize = _size(found["Resize"].size)
    crop = _size(found["CenterCrop"].size) if "CenterCrop" in found else resize
    size = (crop, crop) if isinstance(crop, int) else crop
    if "CenterCrop" not in found and isinstance(resize, int):
        raise InputError(
            "The transform resizes the short side and crops nothing, so its pictures differ in shape. One size was "
            f"expected. Add CenterCrop({resize}), or resize to (height, width)."
        )
    interpolation = str(getattr(found["Resize"].interpolation, "value", found["Resize"].interpolation))
    normal = found.get("Normalize")
    mean, std = ((0.0,) * 3, (1.0,) * 3) if normal is None else (_numbers(normal.mean), _numbers(normal.std))
    return Transform(size, resize, interpolation, mean, std)  # type: ignore[arg-type]


def _size(size: Any) -> int | tuple[int, int]:
    if isinstance(size, Sequence):
        return int(size[0]) if len(size) == 1 else (int(size[0]), int(size[1]))
    return int(size)


def _numbers(values: Any) -> tuple[float, ...]:
    """As they were written: single precision keeps seven digits of them."""
    return tuple(float(f"{float(v):.7g}") for v in values)
