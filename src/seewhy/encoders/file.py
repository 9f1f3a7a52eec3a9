"""Encoders from one weights file: ``file:PATH.safetensors`` or ``file:PATH.pth``, if it says what it is."""

from __future__ import annotations

from typing import Any

from ..errors import UnknownNameError
from .base import Encoder
from .fence import fenced
from .sidecar import WeightsFile
from .split import freeze
from .timm import encoder_of


def load(name: str, *, engine: str = "auto", **options: Any) -> Encoder:
    """A timm architecture filled from a file that says its architecture, classes and preprocessing.

    Args:
        name: the file; its metadata or ``FILE.json`` beside it has ``architecture`` (a timm name), ``num_classes`` or
            ``classes``, and ``transform`` as :meth:`seewhy.types.Transform.to_json` writes it.
        engine: what runs the trunk.
        options: passed to ``timm.create_model``.

    Raises:
        WeightsError: missing, damaged, with code in it, or for another architecture.
        ModelError: something that must be known is not said; names the key and shows an example.
    """
    import timm

    file = WeightsFile.open(name)
    file.require(["architecture", "transform"])
    architecture, transform = str(file.said["architecture"]), file.transform
    if not timm.is_model(architecture):
        raise UnknownNameError("timm network", architecture, timm.list_models())
    with fenced():
        model = timm.create_model(architecture, pretrained=False, num_classes=file.num_classes, **options)
    file.load_into(model, architecture)
    return encoder_of(freeze(model), f"file:{name}", engine=engine, transform=transform, classes=file.classes)
