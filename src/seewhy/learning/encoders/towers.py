"""Trained copies of the text encoder, or of both encoders."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import normalize

from ...encoders.base import Encoder, Tokenised, TrainableText
from ...encoders.region_heads import RegionHeads
from ...encoders.split import freeze, weights_digest
from ...encoders.text_tokens import OpenedText, embed, encode_tokens
from ...errors import InputError, ModelError
from .delta import EncoderCopy, digest_of, halves_of, load_delta, seeing_the_same, state_delta

Halves = Literal["image", "text", "towers"]
"""Encoders to train: image, text or both."""
BATCH = 64
"""Sentences per batch."""
SOURCES = ("class", "caption")
"""Kinds of text; the last is the default."""


def trainable(on: Encoder, instead: str = "heads") -> TrainableText:
    """Return the text encoder, and check that its weights can be trained."""
    tower = on.text
    if not isinstance(tower, TrainableText):
        raise ModelError(
            f"The text encoder of {on.name!r} cannot be trained. Use the embedded encoder, one whose name begins with "
            f"'open_clip:' or 'hf:', or train={instead!r}."
        )
    return tower


class TunedTowers(EncoderCopy):
    """Trained copies of an image and a text encoder, or ``None``, and optionally the ``heads`` of a detector."""

    added = "heads"

    def __init__(
        self,
        form: Halves,
        trunk: nn.Module | None,
        pool: nn.Module | None,
        projection: nn.Module | None,
        words: nn.Module | None,
        heads: RegionHeads | None = None,
    ) -> None:
        super().__init__()
        self.form: Halves = form
        self.trunk, self.pool, self.projection, self.words, self.heads = trunk, pool, projection, words, heads

    @classmethod
    def before(cls, on: Encoder, form: Halves) -> Self:
        tower = trainable(on)
        words = None if form == "image" else freeze(copy.deepcopy(tower.module)).cpu()
        if form == "text":
            return cls(form, None, None, None, words)
        return cls(form, *halves_of(on), freeze(copy.deepcopy(tower.projection)).cpu(), words)

    def fresh(self, on: Encoder) -> Self:
        return self.before(on, self.form)

    def image_parts(self) -> tuple[nn.Module, nn.Module, nn.Module]:
        assert self.trunk is not None
        assert self.pool is not None
        assert self.projection is not None
        return self.trunk, self.pool, self.projection

    def grown(self, on: Encoder, name: str, keep: float) -> Encoder:
        """Return the trained encoder; with ``keep`` 0 it equals the original one."""
        if not keep:
            return seeing_the_same(on, name, on.fingerprint, lambda: on.text, on.under if on.takes_condition else None)
        tensors = self.delta(on)
        own, fingerprint = self.between(on, tensors, keep), digest_of(tensors, on, keep)
        parts: dict[str, Any] = {"classifier": None, "classes": ()}
        if own.trunk is None:  # the encoder's own picture half, whose classes then hold
            parts = {"engine": lambda: on.engine, "looks": on.looks}
        else:
            trunk, pool, _ = own.image_parts()
            parts |= {"trunk": lambda: trunk, "head": pool, "module": lambda: nn.Sequential(trunk, pool)}
        return on.but(
            name=name,
            fingerprint=fingerprint,
            text=lambda: TunedText(trainable(on), own, fingerprint),
            base=on,
            region_heads=own.heads,
            **parts,
        )

    def facts(self) -> dict[str, Any]:
        return {"form": self.form} | ({} if self.heads is None else {"heads": self.heads.facts()})

    @classmethod
    def restored(cls, on: Encoder, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        towers = cls.before(on, facts["form"])
        if "heads" in facts:
            towers.heads = RegionHeads.restored(facts["heads"])
        return towers.load(tensors)


class TunedText(OpenedText):
    """The text encoder of a trained encoder, which can be trained again."""

    def __init__(self, tower: TrainableText, towers: TunedTowers, fingerprint: str) -> None:
        self.tower = tower
        self.own_words = towers.words is None
        self.module: nn.Module = tower.module if towers.words is None else towers.words
        self.projection: nn.Module = tower.projection if towers.projection is None else towers.projection
        self.fingerprint = tower.fingerprint if self.own_words else fingerprint
        self.logit_scale, self.templates, self.tuning_lr = tower.logit_scale, tower.templates, tower.tuning_lr

    def tokens(self, texts: Sequence[str]) -> Tokenised:
        return self.tower.tokens(texts)

    def n_cut(self, texts: Sequence[str]) -> int:
        return self.tower.n_cut(texts)

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        if self.own_words or not len(texts):
            return self.tower.encode_text(texts)
        parts = [self.module(*self.tokens(texts[i : i + BATCH])) for i in range(0, len(texts), BATCH)]
        return normalize(torch.cat(parts).float(), dim=1)

    def project(self, pooled: Float[Tensor, "b p"]) -> Float[Tensor, "b d"]:
        return self.projection(pooled)


class PrefixedWords(nn.Module):
    """Text encoder with a learnt prefix for each kind of text (Saito et al. 2023, arXiv 2206.01125)."""

    form = "prefix"

    def __init__(self, words: nn.Module, width: int, n_tokens: int = 1) -> None:
        super().__init__()
        self.words, self.width, self.n_tokens = words, width, n_tokens
        self.prefix = nn.Parameter(torch.zeros(len(SOURCES), n_tokens, width))

    @classmethod
    def before(cls, on: Encoder, n_tokens: int = 1) -> Self:
        """Return a frozen copy of the text encoder, with random prefixes."""
        tower = trainable(on)
        vectors = tower.embed(tower.tokens(["a word"])).vectors.detach()
        found = cls(freeze(copy.deepcopy(tower.module)).cpu(), vectors.shape[2], n_tokens)
        with torch.no_grad():
            found.prefix.normal_(std=float(vectors.std()))
        return found

    def forward(self, source: Int[Tensor, " n"], *tokens: Tensor) -> Float[Tensor, "n d"]:
        """Return text vectors without normalisation, given the kind of each text."""
        said = embed(self.words, tokens).with_prefix(self.prefix[source])
        return encode_tokens(self.words, said).pooled

    def grown(self, on: Encoder, name: str, keep: float) -> Encoder:
        """Return the encoder with the caption prefix; ``under("class")`` selects the prefix of class names."""
        digest = digest_of(self.delta(on), on, keep)

        def reading(source: str, own_name: str, other: bool) -> Encoder:
            mark = weights_digest({}, f"{digest}|{source}")
            text = lambda: PrefixedText(trainable(on), self, source, keep, mark)  # noqa: E731
            return seeing_the_same(on, own_name, mark, text, under if other else None)

        def under(source: str) -> Encoder:
            if source not in SOURCES:
                raise InputError(f"The prefix of {name!r} must be {' or '.join(map(repr, SOURCES))}, got {source!r}.")
            return reading(source, f"{name}#{source}", other=False)

        return reading(SOURCES[-1], name, other=True)

    def delta(self, on: Encoder) -> dict[str, Tensor]:
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
    """Text encoder with the learnt prefix for class names or for captions; ``keep`` is the interpolation weight."""

    def __init__(self, tower: TrainableText, words: PrefixedWords, source: str, keep: float, fingerprint: str) -> None:
        self.tower, self.words, self.source, self.keep = tower, words, SOURCES.index(source), keep
        self.fingerprint, self.logit_scale, self.templates = fingerprint, tower.logit_scale, tower.templates

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
