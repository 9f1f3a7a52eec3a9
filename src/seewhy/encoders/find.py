"""From the name of an encoder to the encoder."""

from __future__ import annotations

import importlib
from typing import Any

from ..errors import UnknownNameError
from .base import Encoder

EMBEDDED = ("lite0", "lite1", "lite2")
SCHEMES = {
    "timm": "timm",
    "torchvision": "torchvision",
    "open_clip": "open_clip",
    "hf": "huggingface",
    "file": "file",
}


def encoder(name: str = "lite0", *, engine: str = "auto", **options: Any) -> Encoder:
    """Load an encoder by name.

    Args:
        name: ``"lite0"``, ``"lite1"``, ``"lite2"`` (embedded), or ``"timm:NAME"``, ``"torchvision:NAME"``,
            ``"open_clip:MODEL/PRETRAINED"``, ``"hf:ORG/NAME"``, ``"file:PATH.safetensors"``; each also takes a
            local folder.
        engine: ``"auto"``, ``"torch"``, ``"onnxruntime"`` or ``"openvino"``.
        **options: passed to the scheme's loader.

    Raises:
        UnknownNameError: no such encoder or scheme.
        WeightsError: its weights are not here; the message says which file is missing and how to bring it.
        MissingExtraError: its library is not installed; the message names the extra.
    """
    if name in EMBEDDED:
        from .embedded import load

        return load(name, engine=engine, **options)
    scheme, colon, rest = name.partition(":")
    if not colon or scheme not in SCHEMES:
        raise UnknownNameError("encoder", name, [*EMBEDDED, *(f"{s}:{name}" for s in SCHEMES)])
    module = importlib.import_module(f".{SCHEMES[scheme]}", __package__)
    found: Encoder = module.load(rest, engine=engine, **options)
    return found
