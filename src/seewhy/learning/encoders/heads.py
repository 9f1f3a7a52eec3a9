"""Linear heads on top of frozen encoders."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from ...clusters import lloyd
from ...encoders.base import Encoder, RefittedText, SentenceText, TextTower
from ...encoders.names import named, names_of, own_sentences, own_vectors, sentence_fingerprint
from ...encoders.split import freeze
from .delta import digest_of, seeing_the_same, sizes_of

WIDTH = 256
"""Default dimensions of the learnt space."""
SENTENCE_SCALE = 8.0
"""Factor on unit vectors, so that one learning rate suits all weights."""
REFIT = ("coefficients", "centres", "left", "right")
"""Tensors of the refitted regression; see :class:`RefittedText`."""
N_HEARD = 256
"""Number of centres that represent the sentences of an adaptation."""
N_ROUNDS = 8
SOFTNESS = 0.05
"""Width of the transition between the original and the adapted space, in cosine similarity."""


class PairedHeads(nn.Module):
    """Heads that add a learnt space to the encoder's joint space of pictures and texts.

        picture = [√(1 - keep) p, √keep · size · A (p - mean) / spread]
        text    = [√(1 - keep) t, √keep · B s / |B s|]

    * ``p``, ``t``: vectors of the picture and the sentence in the encoder's joint space.
    * ``s``: sentence vector of the text encoder.
    * ``A``, ``B``: learnt matrices.
    * ``mean``, ``spread``: mean and standard deviation of ``p`` over the training pictures.
    * ``size``: factor that gives both parts of ``picture`` the same median norm.
    * ``keep``: interpolation weight, 0 to 1.

    The cosine of a picture and a text is the sum of the original score with the weight ``1 - keep`` and the new score
    with the weight ``keep``. Because ``picture`` is affine in the pooled features, closed-form explanations remain
    valid.

    If the encoder maps sentences by a regression (:class:`RefittedText`), the regression is refitted. A sentence that
    is nearer to one of the encoder's class names than to any training text keeps its original vector.
    """

    form = "heads"
    mean: Tensor
    spread: Tensor
    size: Tensor
    heard: Tensor | None

    def __init__(self, own_width: int, sentence_width: int, width: int = WIDTH) -> None:
        super().__init__()
        self.own_width, self.sentence_width, self.width = own_width, sentence_width, width
        self.pictures = nn.Linear(own_width, width)
        self.sentences = nn.Linear(sentence_width, width)
        for name, value in (("mean", torch.zeros(own_width)), ("spread", torch.ones(())), ("size", torch.ones(()))):
            self.register_buffer(name, value)
        for name in (*REFIT, "heard"):
            self.register_buffer(name, None)
        self.names: Callable[[], Tensor] | None = None

    @classmethod
    def before(cls, on: Encoder, width: int = WIDTH, *, refit: bool = True) -> Self:
        one = own_vectors(on.text, ["a"])
        heads = cls(place(on.text, one).shape[1], one.shape[1], width)
        if refit and isinstance(on.text, RefittedText):
            for name, tensor in on.text.refit().items():
                setattr(heads, name, tensor.half().float())  # as they are saved
        return heads.beside(on)

    def beside(self, on: Encoder) -> Self:
        """Set the names of the encoder's own classes."""
        if named(on):
            self.names = cache(lambda: own_sentences(on.text, names_of(on)))
        return self

    @torch.no_grad()
    def hear(self, sentences: Float[Tensor, "n e"]) -> Self:
        """Store the training sentences' cluster centres, for comparison with class names."""
        if self.names is not None:
            centres = centres_of(sentences)
            self.heard = (centres / centres.abs().amax(1, keepdim=True) * 127).round()  # saved as whole numbers
        return self

    @property
    def refit(self) -> dict[str, Tensor]:
        return {name: tensor for name in REFIT if (tensor := getattr(self, name)) is not None}

    def placed(self, tower: TextTower, vectors: Float[Tensor, "n e"], keep: float) -> Float[Tensor, "n d"]:
        refit = self.refit
        if not refit or not keep or not isinstance(tower, RefittedText):
            return place(tower, vectors)
        return tower.place_by(vectors, refit)

    @torch.no_grad()
    def measure(self, projected: Float[Tensor, "n d"]) -> Self:
        """Compute mean and spread of the training pictures."""
        self.mean = projected.mean(0)
        self.spread = (projected - self.mean).square().mean().sqrt().clamp(min=1e-6)
        return self.level(projected)

    @torch.no_grad()
    def level(self, projected: Float[Tensor, "n d"]) -> Self:
        """Round the weights to half precision and equalise the norms of both parts of a picture."""
        for weight in self.parameters():
            weight.copy_(weight.half())
        new = self.pictures((projected - self.mean) / self.spread).norm(dim=1)
        self.size = (projected.norm(dim=1) / new.clamp(min=1e-6)).median()
        return self

    def image(self, projected: Float[Tensor, "b d"], keep: float) -> Float[Tensor, "b e"]:
        """Return pictures in both spaces, without normalisation."""
        new = self.size * self.pictures((projected - self.mean) / self.spread)
        return torch.cat([math.sqrt(1 - keep) * projected, math.sqrt(keep) * new], 1)

    def text(self, sentences: Float[Tensor, "b s"], placed: Float[Tensor, "b d"], keep: float) -> Float[Tensor, "b e"]:
        """Return unit vectors of sentences in both spaces."""
        new = normalize(self.sentences(SENTENCE_SCALE * sentences), dim=1)
        return torch.cat([math.sqrt(1 - keep) * placed, math.sqrt(keep) * new], 1)

    def guarded(
        self, tower: TextTower, sentences: Float[Tensor, "b s"], keep: float, near_names: Tensor | None = None
    ) -> Float[Tensor, "b e"]:
        """Return unit vectors of sentences in both spaces; a sentence near a class name keeps its original vector."""
        text = self.text(sentences, self.placed(tower, sentences, keep), keep)
        if self.heard is None or self.names is None or not keep:
            return text
        near = likest(sentences, self.names()) if near_names is None else near_names
        old, new = text.split([text.shape[1] - self.width, self.width], 1)
        return normalize(torch.cat([old, openness(sentences, normalize(self.heard, dim=1), near) * new], 1), dim=1)

    def named_anew(self, tower: TextTower, keep: float) -> Float[Tensor, "k e"]:
        """Return the vectors that the encoder's class names would have if they were new names."""
        assert self.names is not None
        return self.guarded(tower, self.names(), keep, likest_other(self.names()))

    def grown(self, on: Encoder, name: str, keep: float) -> Encoder:
        """Return the encoder with these heads; the pooled vectors and the classes of the encoder do not change."""
        fingerprint = digest_of(self.delta(on), on, keep)
        under = (lambda words: self.grown(on.under(words), name, keep)) if on.takes_condition else None
        return seeing_the_same(on, name, fingerprint, lambda: AdaptedText(on.text, self, keep, fingerprint), under)

    def delta(self, on: Encoder) -> dict[str, Tensor]:
        """Return all weights, each in the smallest data type that represents it exactly."""
        return {name: fewest_digits(tensor.detach().cpu()) for name, tensor in self.state_dict().items()}

    def facts(self) -> dict[str, Any]:
        sizes = {"own_width": self.own_width, "sentence_width": self.sentence_width, "width": self.width}
        return {"form": self.form, **sizes}

    @classmethod
    def restored(cls, on: Encoder, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        with torch.device("meta"):
            heads = cls(*sizes_of(facts, "own_width", "sentence_width", "width"))
            for name in {*REFIT, "heard"} & {*tensors}:
                setattr(heads, name, torch.empty(tensors[name].shape))
        heads.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, assign=True)
        freeze(heads)
        return heads.beside(on)


def centres_of(vectors: Float[Tensor, "n e"], n: int = N_HEARD, *, seed: int = 0) -> Float[Tensor, "m e"]:
    """Compute up to ``n`` cluster centres of unit vectors by spherical k-means."""
    start = vectors[torch.randperm(len(vectors), generator=torch.Generator().manual_seed(seed))[:n]]
    return lloyd(vectors, start, N_ROUNDS, spherical=True)[0] if len(vectors) > n else start


def likest(vectors: Float[Tensor, "n e"], among: Float[Tensor, "m e"]) -> Float[Tensor, " n"]:
    """Compute, for each vector, the highest cosine similarity with a vector of ``among``."""
    return torch.cat([(part @ among.T).amax(1) for part in vectors.split(4096)])


def likest_other(names: Float[Tensor, "k e"]) -> Float[Tensor, " k"]:
    """Compute the highest cosine similarity of each name with another name."""
    return (names @ names.T).fill_diagonal_(-1.0).amax(1)


def openness(
    vectors: Float[Tensor, "n e"], heard: Float[Tensor, "m e"], near_names: Float[Tensor, " n"]
) -> Float[Tensor, "n 1"]:
    """Compute, for each sentence, the weight of the adapted space.

        σ((max_j s·u_j - max_c s·n_c) / softness)

    where ``s`` is the vector of the sentence, ``u_j`` are the centres of the sentences of the adaptation, ``n_c`` are
    the vectors of the class names, and ``σ`` is the logistic function.
    """
    return torch.sigmoid((likest(vectors, heard) - near_names) / SOFTNESS)[:, None]


class AdaptedText:
    """Text encoder with heads."""

    def __init__(self, tower: TextTower, heads: PairedHeads, keep: float, fingerprint: str) -> None:
        self.tower, self.heads, self.keep, self.fingerprint = tower, heads, keep, fingerprint
        self.sentence_fingerprint = sentence_fingerprint(tower)
        self.logit_scale, self.templates = tower.logit_scale, tower.templates

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        return self.place(self.sentences(texts))

    def sentences(self, texts: Sequence[str]) -> Float[Tensor, "n e"]:
        return own_vectors(self.tower, texts)

    def place(self, vectors: Float[Tensor, "n e"]) -> Float[Tensor, "n d"]:
        return self.heads.guarded(self.tower, vectors, self.keep)

    def project(self, pooled: Float[Tensor, "b p"]) -> Float[Tensor, "b d"]:
        return self.heads.image(self.tower.project(pooled), self.keep)


def fewest_digits(tensor: Tensor) -> Tensor:
    """Return the tensor as int8 or float16 if that is exact."""
    return next((t for t in (tensor.to(torch.int8), tensor.half()) if torch.equal(t.to(tensor.dtype), tensor)), tensor)


def place(tower: TextTower, vectors: Float[Tensor, "n e"]) -> Float[Tensor, "n d"]:
    """Map sentence vectors to unit vectors in the image space."""
    return tower.place(vectors) if isinstance(tower, SentenceText) else vectors
