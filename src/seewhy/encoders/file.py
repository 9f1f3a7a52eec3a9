"""Encoders from one weights file: ``file:PATH.safetensors`` or ``file:PATH.pth``, if it says what it is."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..errors import ModelError, UnknownNameError
from .base import Encoder
from .fence import fenced
from .sidecar import WeightsFile
from .split import freeze
from .timm import encoder_of

LARGEST = 4096
"""Side in pixels above which a file is not believed: one picture would take hundreds of megabytes."""


def load(name: str, *, engine: str = "auto", **options: Any) -> Encoder:
    """A timm architecture filled from a file that says its architecture, classes and preprocessing.

    Args:
        name: the file; its metadata or ``FILE.json`` beside it has ``architecture`` (a timm name), ``num_classes`` or
            ``classes``, and ``transform`` as :meth:`seewhy.types.Transform.to_json` writes it.
        engine: what runs the trunk.
        options: passed to ``timm.create_model``.

    Raises:
        WeightsError: missing, damaged, with code in it, or for another architecture.
        ModelError: something that must be known is not said (names the key and shows an example), or the network does
            not take pictures of the size said.
    """
    import timm

    file = WeightsFile.open(name)
    file.require(["architecture", "transform"])
    architecture, transform = str(file.said["architecture"]), file.transform
    if not timm.is_model(architecture):
        raise UnknownNameError("timm network", architecture, timm.list_models())
    with fenced():
        model = file.fill(
            lambda: timm.create_model(architecture, pretrained=False, num_classes=file.num_classes, **options),
            architecture,
        )
    frozen = freeze(model)
    _check_size(frozen, name, architecture, transform.input_size)
    return encoder_of(frozen, f"file:{name}", engine=engine, transform=transform, classes=file.classes)


@torch.no_grad()
def _check_size(model: nn.Module, name: str, architecture: str, size: tuple[int, int]) -> None:
    """See that the network takes pictures of the size that the file says, by one look at nothing."""
    reason = f"more than {LARGEST} pixels"
    if max(size) <= LARGEST:
        try:
            model.eval()(torch.zeros(1, 3, *size))
            return
        except (RuntimeError, AssertionError, ValueError) as error:
            reason = str(error).partition("\n")[0] or type(error).__name__
    raise ModelError(
        f"{name!r} says an input_size of {size[0]} × {size[1]}, which its {architecture} does not take ({reason}). The "
        "size that it was trained with was expected. Correct the transform."
    )
