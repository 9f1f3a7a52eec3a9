"""An encoder that looks at pictures larger than it was trained on: the same weights, a finer grid of cells."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from ..errors import InputError
from .base import Encoder

STEP = 32
"""Sides are whole multiples of this, the stride of most convolutional trunks."""


def can_grow(encoder: Encoder) -> bool:
    """Whether an encoder takes inputs of another size: maps do, tokens have places for one grid alone."""
    return encoder.layout.kind == "nchw"


def larger(encoder: Encoder, times: float) -> Encoder:
    """The encoder at an input so many times as high and as wide.

    Its engine is converted for that size, once, and kept; its head stays what it is. A picture is stretched to the
    input: crops are chosen by the caller.

    Example:
        >>> import seewhy
        >>> larger(seewhy.encoder("lite0"), 2).transform.input_size
        (448, 448)
    """
    if times == 1:
        return encoder
    if not can_grow(encoder) or times <= 0:
        raise InputError(
            f"The encoder {encoder.name!r} was to look at inputs {times:g} times as large. A number above 0 and an "
            "encoder with a map of features were expected; tokens have places for one size. Cut the picture into tiles."
        )
    height, width = (max(STEP, round(times * side / STEP) * STEP) for side in encoder.transform.input_size)
    transform = replace(encoder.transform, input_size=(height, width), resize=(height, width))
    made = f"{encoder.fingerprint}:{transform.fingerprint}"
    under = (lambda words: larger(encoder.under(words), times)) if encoder.takes_condition else None
    fingerprint = hashlib.sha256(made.encode()).hexdigest()
    return encoder.but(transform=transform, fingerprint=fingerprint, conditioned=under)
