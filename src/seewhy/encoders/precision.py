"""What an engine computes in: what was asked for, else bfloat16 where the machine has it natively, else float32."""

from __future__ import annotations

import os

import torch
from torch import Tensor

from ..errors import EngineError, UnknownNameError

PRECISIONS = {"f32": "float32", "bf16": "bfloat16"}
VARIABLE = "SEEWHY_PRECISION"
"""Environment variable: the precision of engines for which none is named."""

TOLERANCE = {"float32": 1e-4, "bfloat16": 0.35}
"""Largest difference from eager float32 torch, as a part of the picture's largest absolute feature.

Of bfloat16 it is the worst single feature of 500 photographs in lite0; the typical error is a sixth of that.
"""

UNASKED = 0.05
"""Root mean square difference on random pixels, as a part of the features', up to which bfloat16 is taken unasked.

lite0 has 0.03, ViT-S, ConvNeXt-T, ResNet-50 and Swin-T with random weights 0.005 to 0.011.
"""


def named(precision: str, engine: str) -> str:
    """``"f32"`` or ``"bf16"`` → its whole name; nothing → what the environment asks of this engine, or nothing.

    Raises:
        EngineError: it is unknown.
    """
    short = precision or ("" if engine == "onnxruntime" else os.environ.get(VARIABLE, ""))
    if short and short not in PRECISIONS:
        where = "" if precision else f" It was named in {VARIABLE}."
        raise EngineError(UnknownNameError("precision", short, PRECISIONS).message + where)
    return PRECISIONS.get(short, "")


def on_torch() -> str:
    """bfloat16 on a GPU that has it, float32 elsewhere."""
    fast = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return "bfloat16" if fast else "float32"


def to_try(asked: str, is_native: bool) -> tuple[str, ...]:
    """The precisions of a converted trunk, in the order they are tried; the last is taken or refused."""
    if asked:
        return (asked,)
    return ("bfloat16", "float32") if is_native else ("float32",)


def differs(got: Tensor, wanted: Tensor, precision: str) -> bool:
    """Whether a converted trunk answers otherwise than its precision explains; what is not a number does."""
    if got.shape != wanted.shape:
        return True
    return not (got - wanted).abs().max() <= TOLERANCE[precision] * wanted.abs().max() + 1e-6


def is_rough(got: Tensor, wanted: Tensor) -> bool:
    """Whether it is too far off to be taken without being asked for."""
    return not (got - wanted).pow(2).mean().sqrt() <= UNASKED * wanted.pow(2).mean().sqrt() + 1e-6
