"""Small heads behind frozen towers: what is added to a picture's and to a sentence's place in their shared space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from .base import Encoder, SentenceText, TextTower
from .split import freeze, weights_digest

RANK = 64
"""Of what is added to pictures: a full matrix learns the training pictures by heart."""
SENTENCE_SCALE = 8.0
"""Unit vectors of some hundred numbers are made larger by this, so that one rate of learning suits all weights."""


class ResidualHeads(nn.Module):
    """``picture = p + keep · size · U V (p - mean) / spread`` and ``text = t + keep · W s``; at first, as it was.

    ``p`` is a picture in the space of the texts, ``t`` a sentence there, ``s`` the sentence's own vector (``t`` again
    where the encoder has no other). What is done to a picture is affine in the pooled features, so every closed form of
    an explanation holds.

    Args:
        width: of the shared space.
        sentence_width: of the sentences' own vectors.
        rank: of what is added to pictures; 0 adds nothing there.
        words: whether anything is added to texts.
    """

    form = "heads"
    mean: Tensor
    spread: Tensor
    size: Tensor

    def __init__(self, width: int, sentence_width: int, rank: int = RANK, words: bool = True) -> None:
        super().__init__()
        self.width, self.sentence_width, self.rank = width, sentence_width, rank
        self.down = nn.Linear(width, rank) if rank else None
        self.up = nn.Linear(rank, width, bias=False) if rank else None
        self.words = nn.Linear(sentence_width, width) if words else None
        for name, value in (("mean", torch.zeros(width)), ("spread", torch.ones(())), ("size", torch.ones(()))):
            self.register_buffer(name, value)
        for last in (self.up, self.words):
            for p in () if last is None else last.parameters():
                nn.init.zeros_(p)

    @classmethod
    def before(cls, on: Encoder, rank: int = RANK, words: bool = True) -> Self:
        """Heads that add nothing yet; the first weights are torch's random numbers."""
        one = own_vectors(on.text, ["a"])
        return cls(place(on.text, one).shape[1], one.shape[1], rank, words)

    def measure(self, projected: Float[Tensor, "n d"]) -> Self:
        """Take mean, spread and length from the pictures that will be trained on."""
        self.mean = projected.mean(0)
        self.spread = (projected - self.mean).square().mean().sqrt().clamp(min=1e-6)
        self.size = projected.norm(dim=1).mean()
        return self

    def image(self, projected: Float[Tensor, "b d"], keep: float = 1.0) -> Float[Tensor, "b d"]:
        """Pictures in the space of the texts → where they are now, not of unit length."""
        if self.down is None or self.up is None:
            return projected
        added: Tensor = self.up(self.down((projected - self.mean) / self.spread))
        return projected + keep * self.size * added

    def text(
        self, sentences: Float[Tensor, "b e"], placed: Float[Tensor, "b d"], keep: float = 1.0
    ) -> Float[Tensor, "b d"]:
        """Sentences by their own vectors and their place → where they are now, not of unit length."""
        return placed if self.words is None else placed + keep * self.words(SENTENCE_SCALE * sentences)

    def grown(self, on: Encoder, name: str, keep: float) -> Encoder:
        """The encoder with other words; it sees what it saw, its own classes among that."""
        fingerprint = weights_digest(self.delta(on), f"{on.fingerprint}|{keep!r}")
        return Encoder(
            name=name,
            transform=on.transform,
            trunk=lambda: on.trunk,
            head=on.head,
            layout=on.layout,
            fingerprint=fingerprint,
            classifier=on.classifier,
            classes=on.classes,
            text=lambda: AdaptedText(on.text, self, keep, fingerprint),
            module=lambda: on.module,
            engine=lambda: on.engine,
            conditioned=on.encode if on.takes_condition else None,
            looks=on.looks,
            base=on,
        )

    def delta(self, on: Encoder) -> dict[str, Tensor]:
        """All weights."""
        return {name: tensor.detach().cpu() for name, tensor in self.state_dict().items()}

    def facts(self) -> dict[str, Any]:
        return {
            "form": self.form,
            "width": self.width,
            "sentence_width": self.sentence_width,
            "rank": self.rank,
            "words": self.words is not None,
        }

    @classmethod
    def restored(cls, on: Encoder, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        sizes = facts["width"], facts["sentence_width"], facts["rank"]
        if not all(type(n) is int and 0 <= n <= 1 << 16 for n in sizes):
            raise ValueError(f"its heads have the sizes {sizes}")
        with torch.device("meta"):
            heads = cls(*sizes, bool(facts["words"]))
        heads.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, assign=True)
        freeze(heads)
        return heads


class AdaptedText:
    """The words half of an encoder with heads behind it.

    Args:
        tower: the encoder's own.
        heads: what was trained.
        keep: how much of it is added.
        fingerprint: of both.
    """

    def __init__(self, tower: TextTower, heads: ResidualHeads, keep: float, fingerprint: str) -> None:
        self.tower, self.heads, self.keep = tower, heads, keep
        self.fingerprint = fingerprint
        self.logit_scale = tower.logit_scale
        self.templates = tower.templates

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        return self.place(self.sentences(texts))

    def sentences(self, texts: Sequence[str]) -> Float[Tensor, "n e"]:
        return own_vectors(self.tower, texts)

    def place(self, vectors: Float[Tensor, "n e"]) -> Float[Tensor, "n d"]:
        return normalize(self.heads.text(vectors, place(self.tower, vectors), self.keep), dim=1)

    def project(self, pooled: Float[Tensor, "b p"]) -> Float[Tensor, "b d"]:
        return self.heads.image(self.tower.project(pooled), self.keep)


def own_vectors(tower: TextTower, texts: Sequence[str]) -> Float[Tensor, "n e"]:
    """Sentences → vectors of their own, or among the pictures where a words half has no others."""
    return tower.sentences(texts) if isinstance(tower, SentenceText) else tower.encode_text(texts)


def place(tower: TextTower, vectors: Float[Tensor, "n e"]) -> Float[Tensor, "n d"]:
    """What :func:`own_vectors` gave → unit vectors among the pictures."""
    return tower.place(vectors) if isinstance(tower, SentenceText) else vectors
