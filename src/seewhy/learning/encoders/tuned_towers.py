"""An encoder's own halves after training: copies of the picture tower, of the words tower, or of both."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from ...encoders.base import Encoder, Tokenised, TrainableText
from ...encoders.region_heads import RegionHeads
from ...encoders.split import freeze, weights_digest
from ...encoders.text_tokens import TokenEmbeddings, TokenVectors, embed, encode_tokens
from ...errors import ModelError
from .delta import halves_of, load_delta, seeing_the_same, state_delta

Halves = Literal["image", "text", "towers"]
"""Which halves are trained: one of the two, or both."""
BATCH = 64
"""Sentences at once."""


def trainable(on: Encoder, instead: str = "heads") -> TrainableText:
    """The encoder's words half, whose weights can be trained."""
    tower = on.text
    if not isinstance(tower, TrainableText):
        raise ModelError(
            f"The text half of {on.name!r} shows no weights to train. The embedded encoder, or one under 'open_clip:' "
            f"or 'hf:', was expected. Take one of those, or train {instead} behind this one: train={instead!r}."
        )
    return tower


class TunedTowers(nn.Module):
    """Copies of an encoder's halves; a half that is not trained is ``None`` and stays the encoder's own.

    Memory: 4 bytes a weight for the copies; while they are trained, 12 more for gradients and AdamW's two moments,
    and what the trunk keeps of a batch for its gradient.

    Args:
        form: which halves.
        trunk: pixels → features.
        pool: features → pooled vector.
        projection: pooled vector → the space of the texts, not of unit length.
        words: tokens → the same space.
        heads: of a detector, on the trunk's map; trained with it and saved, not used by the encoder itself.
    """

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
        """What an encoder's halves are before any training, frozen; the encoder stays as it is."""
        tower = trainable(on)
        words = None if form == "image" else freeze(copy.deepcopy(tower.module)).cpu()
        if form == "text":
            return cls(form, None, None, None, words)
        return cls(form, *halves_of(on), freeze(copy.deepcopy(tower.projection)).cpu(), words)

    def image_parts(self) -> tuple[nn.Module, nn.Module, nn.Module]:
        """Trunk, pool and projection, of towers that have a picture half."""
        assert self.trunk is not None
        assert self.pool is not None
        assert self.projection is not None
        return self.trunk, self.pool, self.projection

    def image(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Pictures in the space of the texts, not of unit length."""
        trunk, pool, projection = self.image_parts()
        vectors: Tensor = projection(pool(trunk(pixels)))
        return vectors

    def grown(self, on: Encoder, name: str, keep: float) -> Encoder:
        """An encoder of the copies, as far from the encoder's own weights towards the trained ones as ``keep`` says.

        In between, averages of weights keep much of what both can do (WiSE-FT, Wortsman et al. 2022,
        arXiv:2109.01903). Where nothing is kept, it sees, reads and has classes as its own.
        """
        if not keep:
            return seeing_the_same(on, name, on.fingerprint, lambda: on.text, on.under if on.takes_condition else None)
        tensors = self.delta(on)
        own = self if keep == 1.0 else self._between(on, tensors, keep)
        fingerprint = weights_digest(tensors, f"{on.fingerprint}|{keep!r}")
        seen = own.trunk is None  # by the encoder's own picture half, whose classes then hold
        trunk, head = own.trunk, on.head if own.pool is None else own.pool
        return Encoder(
            name=name,
            transform=on.transform,
            trunk=(lambda: on.trunk) if trunk is None else (lambda: trunk),
            head=head,
            layout=on.layout,
            fingerprint=fingerprint,
            classifier=on.classifier if seen else None,
            classes=on.classes if seen else (),
            text=lambda: TunedText(trainable(on), own, fingerprint),
            module=(lambda: on.module) if trunk is None else (lambda: nn.Sequential(trunk, head)),
            engine=(lambda: on.engine) if trunk is None else on.engine_asked,
            looks=on.looks if seen else None,
            base=on,
            region_heads=own.heads,
        )

    def _between(self, on: Encoder, tensors: Mapping[str, Tensor], keep: float) -> Self:
        found = type(self).before(on, self.form)
        found.heads = self.heads
        state = found.state_dict()
        with torch.no_grad():
            for name, after in tensors.items():
                if after.is_floating_point() and not name.startswith("heads."):
                    state[name].lerp_(after, keep)
        return found

    def delta(self, on: Encoder) -> dict[str, Tensor]:
        """The tensors that are not as they are in the encoder."""
        before = dict(type(self).before(on, self.form).named_children())
        parts = {name: part for name, part in self.named_children() if name in before}
        found = state_delta(parts, before, whole=False)
        return found | ({} if self.heads is None else state_delta({"heads": self.heads}, {}, whole=True))

    def facts(self) -> dict[str, Any]:
        return {"form": self.form} | ({} if self.heads is None else {"heads": self.heads.facts()})

    @classmethod
    def restored(cls, on: Encoder, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        if facts["form"] not in get_args(Halves):
            raise ValueError(f"its form is {facts['form']!r}")
        towers = cls.before(on, facts["form"])
        if "heads" in facts:
            towers.heads = RegionHeads.restored(facts["heads"])
        load_delta(dict(towers.named_children()), tensors, whole=False)
        return towers


class TunedText:
    """The words half of an encoder of tuned towers, whose weights can be trained further.

    Args:
        tower: the encoder's own.
        towers: what was trained.
        fingerprint: of both.
    """

    def __init__(self, tower: TrainableText, towers: TunedTowers, fingerprint: str) -> None:
        self.tower = tower
        self.own_words = towers.words is None
        self.module: nn.Module = tower.module if towers.words is None else towers.words
        self.projection: nn.Module = tower.projection if towers.projection is None else towers.projection
        self.fingerprint = tower.fingerprint if self.own_words else fingerprint
        self.logit_scale = tower.logit_scale
        self.templates = tower.templates
        self.tuning_lr = tower.tuning_lr

    def tokens(self, texts: Sequence[str]) -> Tokenised:
        return self.tower.tokens(texts)

    def n_cut(self, texts: Sequence[str]) -> int:
        return self.tower.n_cut(texts)

    def embed(self, tokens: Tokenised) -> TokenEmbeddings:
        return embed(self.module, tokens)

    def encode_tokens(self, tokens: Tokenised | TokenEmbeddings) -> TokenVectors:
        return encode_tokens(self.module, tokens)

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        if self.own_words or not len(texts):
            return self.tower.encode_text(texts)
        parts = [self.module(*self.tokens(texts[i : i + BATCH])) for i in range(0, len(texts), BATCH)]
        return normalize(torch.cat(parts).float(), dim=1)

    def project(self, pooled: Float[Tensor, "b p"]) -> Float[Tensor, "b d"]:
        vectors: Tensor = self.projection(pooled)
        return vectors
