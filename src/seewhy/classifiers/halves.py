"""Trunk and pooling of an encoder as they are trained, saved and put back."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..encoders.base import Encoder, Layout
from .comet_predictor import Backbone, halves_of, new_halves


def halves(base: Encoder, backbone: Backbone) -> tuple[nn.Module, nn.Module, Layout]:
    """Copies of the encoder's trunk and pooling, or those of the small ResNet with new weights; and the layout."""
    return new_halves() if backbone == "scratch" else (*halves_of(base), base.layout)


def reader_of(base: Encoder) -> Encoder:
    """Looks at pictures only to see whether they can be read, with next to no network."""
    trunk, pool, layout = new_halves()
    return Encoder(
        name="reader",
        transform=base.transform,
        trunk=lambda: trunk,
        head=pool,
        layout=layout,
        fingerprint="reader",
        engine="torch",
    )


def learnt(parts: Mapping[str, nn.Module], before: Mapping[str, nn.Module], *, whole: bool) -> dict[str, Tensor]:
    """Tensors of the parts that are not as they were before.

    Args:
        parts: name → trained module.
        before: name → the same before training.
        whole: take all of them, for parts that are not found again without.
    """
    known = {f"{part}.{n}": t for part, module in before.items() for n, t in module.state_dict().items()}
    # An engine on a graphics card has moved the trained trunk there.
    now = {f"{part}.{n}": t.cpu() for part, module in parts.items() for n, t in module.state_dict().items()}
    return {name: t for name, t in now.items() if whole or not torch.equal(t, known[name])}


def put_back(parts: Mapping[str, nn.Module], tensors: Mapping[str, Tensor], *, whole: bool) -> None:
    """What :func:`learnt` gave, into parts that are as they were before.

    Raises:
        KeyError: a tensor is of none of the parts.
        RuntimeError: one is missing where ``whole``, or of another shape.
    """
    for part, module in parts.items():
        own = {n.removeprefix(f"{part}."): t for n, t in tensors.items() if n.startswith(f"{part}.")}
        unknown = module.load_state_dict(own, strict=whole).unexpected_keys
        if unknown:
            raise KeyError(f"{part} has no {unknown[0]}")
