"""A words half that is told by a learnt prefix what kind of text it reads."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import normalize

from ...encoders.base import Encoder, TrainableText
from ...encoders.split import freeze, weights_digest
from ...encoders.text_tokens import embed, encode_tokens
from ...errors import InputError
from .delta import load_delta, seeing_the_same, state_delta
from .tuned_towers import BATCH, trainable

SOURCES = ("class", "caption")
"""Kinds of text; an encoder reads with the last one's prefix where nothing is said."""


class PrefixedWords(nn.Module):
    """``G([p_s, words])``: a text network, and ``n_tokens`` learnt vectors for each kind of text before its words.

    Saito et al. 2023, arXiv 2206.01125. Positions shift by the prefix; a text that does not fit loses its last words.

    Args:
        words: tokens → vectors, a network that can be opened behind its vocabulary.
        width: of what it reads.
        n_tokens: of each prefix.
    """

    form = "prefix"

    def __init__(self, words: nn.Module, width: int, n_tokens: int = 1) -> None:
        super().__init__()
        self.words, self.width, self.n_tokens = words, width, n_tokens
        self.prefix = nn.Parameter(torch.zeros(len(SOURCES), n_tokens, width))

    @classmethod
    def before(cls, on: Encoder, n_tokens: int = 1) -> Self:
        """A copy of an encoder's words half, frozen, with prefixes like a word of it and torch's random numbers."""
        tower = trainable(on)
        vectors = tower.embed(tower.tokens(["a word"])).vectors.detach()
        found = cls(freeze(copy.deepcopy(tower.module)).cpu(), vectors.shape[2], n_tokens)
        with torch.no_grad():
            found.prefix.normal_(std=float(vectors.std()))
        return found

    def forward(self, source: Int[Tensor, " n"], *tokens: Tensor) -> Float[Tensor, "n d"]:
        """Texts of a kind each → vectors, not of unit length."""
        said = embed(self.words, tokens).with_prefix(self.prefix[source])
        return encode_tokens(self.words, said).pooled

    def grown(self, on: Encoder, name: str, keep: float) -> Encoder:
        """The encoder with other words, which reads captions; under ``"class"`` it reads names of classes."""
        digest = weights_digest(self.delta(on), f"{on.fingerprint}|{keep!r}")

        def reading(source: str, own_name: str, other: bool) -> Encoder:
            fingerprint = weights_digest({}, f"{digest}|{source}")
            return seeing_the_same(
                on,
                own_name,
                fingerprint,
                lambda: PrefixedText(trainable(on), self, source, keep, fingerprint),
                under if other else None,
            )

        def under(source: str) -> Encoder:
            if source not in SOURCES:
                raise InputError(
                    f"The prefix {source!r} was asked of {name!r}, which was trained on classes and captions. "
                    f"{' or '.join(map(repr, SOURCES))} was expected. Take one of them, or leave it out for captions."
                )
            return reading(source, f"{name}#{source}", other=False)

        return reading(SOURCES[-1], name, other=True)

    def delta(self, on: Encoder) -> dict[str, Tensor]:
        """The prefixes, and the words half's tensors that are not as they are in the encoder."""
        changed = state_delta({"words": self.words}, {"words": trainable(on).module}, whole=False)
        return {"prefix": self.prefix.detach().cpu(), **changed}

    def facts(self) -> dict[str, Any]:
        return {"form": self.form, "n_tokens": self.n_tokens}

    @classmethod
    def restored(cls, on: Encoder, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        n = facts["n_tokens"]
        if type(n) is not int or not 0 < n <= 1 << 10:
            raise ValueError(f"its prefixes have {n!r} tokens")
        found = cls.before(on, n)
        if tensors["prefix"].shape != found.prefix.shape:
            raise ValueError(f"its prefixes have the shape {tuple(tensors['prefix'].shape)}")
        found.prefix.data = tensors["prefix"].float()
        load_delta({"words": found.words}, tensors, whole=False)
        freeze(found)
        return found


class PrefixedText:
    """The words half of an encoder with prefixes, reading one kind of text.

    Args:
        tower: the encoder's own.
        words: what was trained.
        source: the kind of text.
        keep: how much it counts beside what the encoder's own makes of a text.
        fingerprint: of all of these.
    """

    def __init__(self, tower: TrainableText, words: PrefixedWords, source: str, keep: float, fingerprint: str) -> None:
        self.tower, self.words, self.keep = tower, words, keep
        self.source = SOURCES.index(source)
        self.fingerprint = fingerprint
        self.logit_scale = tower.logit_scale
        self.templates = tower.templates

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        if not self.keep or not len(texts):
            return self.tower.encode_text(texts)
        parts = []
        for i in range(0, len(texts), BATCH):
            tokens = self.tower.tokens(texts[i : i + BATCH])
            parts.append(self.words(torch.full((len(tokens[0]),), self.source), *tokens))
        now = normalize(torch.cat(parts).float(), dim=1)
        if self.keep == 1:
            return now
        return normalize(self.keep * now + (1 - self.keep) * self.tower.encode_text(texts), dim=1)

    def project(self, pooled: Float[Tensor, "b p"]) -> Float[Tensor, "b d"]:
        return self.tower.project(pooled)
