"""Changed tensors of a trained encoder."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...encoders.base import Encoder, TextTower
from ...encoders.split import freeze, weights_digest

WITHOUT_WORDS: dict[str, Any] = {"classifier": None, "classes": (), "text": None}
"""Fields to reset if the pooled vectors no longer match classes and text encoder."""


def halves_of(encoder: Encoder) -> tuple[nn.Module, nn.Module]:
    return freeze(copy.deepcopy(encoder.trunk)).cpu(), freeze(copy.deepcopy(encoder.head)).cpu()


def seeing_the_same(
    on: Encoder,
    name: str,
    fingerprint: str,
    text: Callable[[], TextTower],
    conditioned: Callable[[str], Encoder] | None,
) -> Encoder:
    """Return an encoder with another text encoder; the image encoder and the classes stay the same."""
    own = {"name": name, "fingerprint": fingerprint, "text": text, "conditioned": conditioned}
    return on.but(**own, engine=lambda: on.engine, looks=on.looks, base=on)


def digest_of(trained: Mapping[str, Tensor], on: Encoder, keep: float, mark: str = "") -> str:
    return weights_digest(trained, f"{on.fingerprint}|{keep!r}{mark}")


def sizes_of(facts: Mapping[str, Any], *names: str) -> list[int]:
    """Return the widths that a file states, after a check that they are plausible."""
    sizes = [facts[name] for name in names]
    if not all(type(n) is int and 0 < n <= 1 << 16 for n in sizes):
        raise ValueError(f"its {', '.join(names)} are {sizes}")
    return sizes


def state_delta(parts: Mapping[str, nn.Module], before: Mapping[str, nn.Module], *, whole: bool) -> dict[str, Tensor]:
    """Return the tensors that differ from the originals."""
    known = {f"{part}.{n}": t for part, module in before.items() for n, t in module.state_dict().items()}
    # An engine on a graphics card has moved the trained trunk there.
    now = {f"{part}.{n}": t.cpu() for part, module in parts.items() for n, t in module.state_dict().items()}
    return {name: t for name, t in now.items() if whole or not torch.equal(t, known[name])}


def load_delta(parts: Mapping[str, nn.Module], tensors: Mapping[str, Tensor], *, whole: bool) -> None:
    """Load the output of :func:`state_delta` into the original modules."""
    for part, module in parts.items():
        own = {n.removeprefix(f"{part}."): t for n, t in tensors.items() if n.startswith(f"{part}.")}
        unknown = module.load_state_dict(own, strict=whole).unexpected_keys
        if unknown:
            raise KeyError(f"{part} has no {unknown[0]}")
