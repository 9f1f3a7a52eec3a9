"""Trainable copies of encoders, and the tensors that training changed."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

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


class EncoderCopy(nn.Module, ABC):
    """Trainable copies of an encoder's parts, and the new layers named by ``added``."""

    added: ClassVar[str]

    @abstractmethod
    def fresh(self, on: Encoder) -> Self:
        """Return the same parts before training."""

    def between(self, on: Encoder, tensors: Mapping[str, Tensor], keep: float) -> Self:
        """Interpolate between original and trained weights (WiSE-FT, Wortsman et al. 2022, arXiv:2109.01903)."""
        if keep == 1.0:
            return self
        found = self.fresh(on)
        setattr(found, self.added, getattr(self, self.added))
        state = found.state_dict()
        with torch.no_grad():
            for name, after in tensors.items():
                if after.is_floating_point() and not name.startswith(f"{self.added}."):
                    state[name].lerp_(after, keep)
        return found

    def delta(self, on: Encoder) -> dict[str, Tensor]:
        """Return the tensors that differ from the original encoder."""
        before = dict(self.fresh(on).named_children())
        parts = {name: part for name, part in self.named_children() if name in before}
        more: nn.Module | None = getattr(self, self.added)
        own = {} if more is None else state_delta({self.added: more}, {}, whole=True)
        return state_delta(parts, before, whole=False) | own

    def load(self, tensors: Mapping[str, Tensor]) -> Self:
        """Load the output of :meth:`delta`."""
        load_delta(dict(self.named_children()), tensors, whole=False)
        return self
