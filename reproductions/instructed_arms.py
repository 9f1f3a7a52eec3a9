"""What FocalLens is measured by: an encoder taught by instructions, and how well it names and finds pictures."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from seewhy.classifiers.encoded_set import EncodedSet
from seewhy.encoders.base import Encoder
from seewhy.encoders.names import own_vectors
from seewhy.encoders.stream import Encoded, encode_stream
from seewhy.learning.api import ByInstructions
from seewhy.learning.encoders.adapted import Adaptation
from seewhy.pictures.samples import Sample
from seewhy.progress import Progress
from seewhy.storage.features import FeatureStore
from seewhy.training.loop import train as fit

Answers = dict[str, list[str]]
PLAIN: dict[int, tuple[Tensor, Tensor]] = {}
"""By their place in memory, pictures, and as the encoder pools them without an instruction."""


@dataclass(frozen=True)
class Set:
    """Pictures as the encoder below the last layers sees them, at half precision, and the answers to all questions."""

    seen: Tensor
    answers: Answers

    def some(self, rows: Sequence[int]) -> Set:
        return Set(self.seen[list(rows)], {a: [v[i] for i in rows] for a, v in self.answers.items()})


def look(below: Encoder, paths: Sequence[Path]) -> tuple[Tensor, list[int]]:
    """What is below the last layers of each picture that can be read, and which those are."""
    stream = enumerate(encode_stream(below, paths, store=FeatureStore()))
    kept = [(i, seen.pooled[0].half()) for i, seen in stream if isinstance(seen, Encoded)]
    return torch.stack([one for _, one in kept]), [i for i, _ in kept]


class Taught:
    """An encoder that was taught by what it has seen, and pictures as it pools them under a sentence."""

    def __init__(self, on: Encoder, train: Set, instructions: dict[str, Sequence[str]], seed: int, **settings: Any):
        how = ByInstructions({a: tuple(said) for a, said in instructions.items()}, seed=seed, **settings)
        names = tuple(str(i) for i in range(len(train.seen)))
        said = {a: tuple((answer,) if answer else () for answer in train.answers[a]) for a in instructions}
        encoded = [Encoded(n, n, one[None]) for n, one in zip(names, train.seen, strict=True)]
        own = EncodedSet(list(map(Sample, names)), encoded, columns=said)
        self.part, task, data = how.prepared(on, own, Progress())
        fit(task, data, how.training(data, on))
        self.encoder, self.n_through = Adaptation(on, self.part).encoder(), how.n_through
        self.known: dict[tuple[str, int], Tensor] = {}

    def under(self, words: str, seen: Tensor) -> Tensor:
        key = words, seen.data_ptr()
        if key not in self.known:
            if not self.n_through:  # the layers are as they were: what is below the projection is computed once
                return self.projected(words, seen)
            parts = (self.encoder.under(words).beyond(one.float()).pooled for one in seen.split(100))
            self.known[key] = torch.cat([*parts])
        return self.known[key]

    @torch.no_grad()
    def projected(self, words: str, seen: Tensor) -> Tensor:
        read, trust = self.part.read(own_vectors(self.encoder.base.text, [words]))
        return self.part.projection(self.plain(seen), read[0], float(trust))

    def plain(self, seen: Tensor) -> Tensor:
        """The same pictures without any instruction."""
        if seen.data_ptr() not in PLAIN:
            PLAIN[seen.data_ptr()] = seen, self.part.plain(seen)
        return PLAIN[seen.data_ptr()][1]

    def strength(self, words: str) -> float:
        """How much of what is changed a sentence changes, by its likeness to those that were taught."""
        return float(self.part.read(own_vectors(self.encoder.base.text, [words]))[1])

    def as_if_taught(self) -> Taught:
        """The same, which trusts every sentence wholly."""
        other = copy.copy(self)
        other.part, other.known = copy.deepcopy(self.part), {}
        other.part.far.fill_(-1.0)
        other.encoder = Adaptation(self.encoder.base, other.part).encoder()
        return other


Found = dict[str, dict[str, list[float]]]
"""Attribute → arm → a number of each test picture with an answer, mean over seeds."""


class Scoring:
    """How well pictures of known answers are named, and found by one another."""

    def __init__(self, on: Encoder, known: list[str], answers: list[str]) -> None:
        self.rows = [i for i, answer in enumerate(answers) if answer]
        self.own = [answers[i] for i in self.rows]
        self.words = sorted({*known, *self.own} - {""})
        self.text, self.project = on.encode_text(self.words).clone(), on.text.project

    @torch.no_grad()
    def __call__(self, pooled: Tensor) -> tuple[list[float], list[float]]:
        """Of each picture: whether the nearest of all answers is its own; average precision of those that share it."""
        image = normalize(self.project(pooled[self.rows]), dim=1)
        own = torch.tensor([self.words.index(answer) for answer in self.own])
        named = ((image @ self.text.T).argmax(1) == own).double()
        return [[round(v, 5) for v in one.tolist()] for one in (named, average_precision(image @ image.T, own))]


def average_precision(cosine: Tensor, own: Tensor) -> Tensor:
    """Of each picture as a query among all others; 0 where no other shares its answer.

    >>> average_precision(torch.tensor([[1.0, 0.5, 0.9], [0.5, 1.0, 0.1], [0.9, 0.1, 1.0]]), torch.tensor([0, 0, 1]))
    tensor([0.5000, 1.0000, 0.0000], dtype=torch.float64)
    """
    order = cosine.clone().fill_diagonal_(-2).argsort(1, descending=True)[:, :-1]
    same = (own[order] == own[:, None]).double()
    precision = same.cumsum(1) / torch.arange(1, same.shape[1] + 1)
    return (precision * same).sum(1) / same.sum(1).clamp(min=1)


def mean(several: Sequence[Sequence[float]]) -> list[float]:
    """Of each picture."""
    return torch.tensor([list(one) for one in several], dtype=torch.double).mean(0).tolist()


def averaged(seeds: Sequence[Found]) -> Found:
    return {a: {arm: mean([one[a][arm] for one in seeds]) for arm in arms} for a, arms in seeds[0].items()}
