"""The arms of the study of descriptions: who is right on which picture, by words, by names, by noise."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from seewhy.classifiers.by_sentences import WEIGHTS, Pool, Selection, Selector, best_weight, hits, selection_matrix
from seewhy.classifiers.linear.solvers import fit_linear
from seewhy.descriptions.base import Descriptions, describe
from seewhy.encoders.base import Encoder
from seewhy.encoders.names import filled
from seewhy.encoders.stream import encode_texts
from seewhy.storage.features import FeatureStore

PROBE_C = 100.0
"""Of the probes: weak against unit vectors, so that few pictures are fitted; not tuned on any pictures."""


def halves(labels: Int[Tensor, " n"], seed: int) -> Bool[Tensor, " n"]:
    """Flags of one half of every class's pictures, drawn at random; of an odd number the larger half."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    flags = torch.zeros(len(labels), dtype=torch.bool)
    for k in labels.unique().tolist():
        mine = order[labels[order] == k]
        flags[mine[: (len(mine) + 1) // 2]] = True
    return flags


def nearest_mean(
    pictures: Float[Tensor, "n d"], labels: Int[Tensor, " n"], asked: Float[Tensor, "q d"], n_classes: int
) -> Int[Tensor, " q"]:
    """The few-shot control of the same labels: the class whose pictures' mean is nearest, by the cosine."""
    sums = torch.zeros(n_classes, pictures.shape[1], dtype=pictures.dtype).index_add_(0, labels, pictures)
    return (asked @ normalize(sums, dim=1).T).argmax(1)


@dataclass(frozen=True)
class Right:
    """One arm with one seed.

    Attributes:
        hits: on each picture, whether the choice is right.
        curve: accuracy for each weight of the class's name, for arms that have one.
    """

    hits: Bool[Tensor, " n"]
    curve: tuple[float, ...] = ()

    @property
    def best(self) -> float | None:
        """The best of the curve: chosen on the very pictures, so an oracle."""
        return max(self.curve) if self.curve else None


@dataclass(frozen=True)
class Arms:
    """Pictures, and what any sentences would decide on them.

    Attributes:
        encoder: with a text half.
        classes: names.
        seen: pictures in the space of the sentences, unit vectors.
        labels: index of each one's class.
        selector: how descriptions are chosen on labelled pictures.
        k: classes in question, where descriptions are chosen.
        seed: of the halves.
        store: where sentences are kept.
    """

    encoder: Encoder
    classes: tuple[str, ...]
    seen: Float[Tensor, "n d"]
    labels: Int[Tensor, " n"]
    selector: Selector = field(default_factory=Selector)
    k: int = 3
    seed: int = 0
    store: FeatureStore | None = None

    def cosines(self, texts: Sequence[str]) -> Float[Tensor, "n t"]:
        return self.seen @ encode_texts(self.encoder, list(texts), self.store).T

    def names(self) -> Right:
        """Each class by its bare name."""
        return Right(self._chosen(self.cosines(self.classes)))

    def templates(self) -> Right:
        """Each class by the encoder's own templates, an ensemble without descriptions."""
        sentences = [filled(t, c) for c in self.classes for t in self.encoder.text.templates]
        n = len(self.encoder.text.templates)
        return Right(self._chosen(self.cosines(sentences).unflatten(1, (-1, n)).mean(2)))

    def with_names(self, descriptions: Descriptions) -> Right:
        """Each class by its descriptions said with its name, as :class:`~seewhy.classifiers.unfitted.Described`."""
        return Right(self._chosen(self._means(descriptions, named=True)))

    def alone(self, descriptions: Descriptions) -> Right:
        """Each class by its descriptions without its name."""
        return Right(self._chosen(self._means(descriptions, named=False)))

    def luck(self, descriptions: Descriptions, n_draws: int) -> float:
        """How often lists dealt out to the classes otherwise are right as often as :meth:`alone` is, or more often.

        A p-value: resampled pictures do not show that few lists, whatever they say, may fit few classes by accident. It
        is exact where there are no more ways to deal than ``n_draws``; theirs is among them, so it is never 0.
        """
        chosen = self._means(descriptions, named=False).argmax(1)
        n = len(self.classes)
        table = torch.zeros(n, n).index_put_((self.labels, chosen), torch.ones(()), accumulate=True)
        if math.factorial(n) <= n_draws:
            dealt = torch.tensor(list(itertools.permutations(range(n))))
        else:
            generator = torch.Generator().manual_seed(self.seed)
            drawn = [torch.randperm(n, generator=generator) for _ in range(n_draws)]
            dealt = torch.stack([torch.arange(n), *drawn])
        right = table[torch.arange(n), dealt].sum(1)
        return float((right >= table.diagonal().sum()).float().mean())

    def weighed(self, descriptions: Descriptions) -> Right:
        """``w · name + descriptions``, ``w`` chosen on one half of the pictures for the other."""
        captions, words = self.cosines(self.classes), self._means(descriptions, named=False)
        right = torch.stack([self._chosen(w * captions + words) for w in WEIGHTS])
        found = torch.zeros_like(right[0])
        for half in self._folds():
            found[~half] = right[int(right[:, half].float().mean(1).argmax())][~half]
        return Right(found, tuple(right.float().mean(1).tolist()))

    def _folds(self) -> tuple[Bool[Tensor, " n"], Bool[Tensor, " n"]]:
        half = halves(self.labels, self.seed)
        return half, ~half

    @property
    def can_select(self) -> bool:
        """Whether every class has the four pictures that choosing descriptions and a weight on a half of them needs."""
        return int(torch.bincount(self.labels, minlength=len(self.classes)).min()) >= 4

    def selected(self, descriptions: Descriptions) -> Right:
        """Descriptions chosen on one half of the pictures, with the weight of the names, for the other half."""
        pool = Pool.of(descriptions)
        captions, words = self.cosines(self.classes), encode_texts(self.encoder, pool.texts, self.store)
        found = torch.zeros(len(self.labels), dtype=torch.bool)
        curve = torch.zeros(len(WEIGHTS))
        for half in self._folds():
            weight = self._inner_weight(half, captions, words, pool)
            cap, mean, right, _ = self._in_question(half, ~half, captions, words, pool)
            found[~half] = hits(weight * cap + mean, right)
            curve += best_weight(cap, mean, right)[1] * float((~half).float().mean())
        return Right(found, tuple(curve.tolist()))

    def selected_with_names(self, descriptions: Descriptions) -> Right:
        """The same choice, each description said with the name of the class in question (no weight to choose)."""
        pool = Pool.of(descriptions)
        captions, words = self.cosines(self.classes), encode_texts(self.encoder, pool.texts, self.store)
        found = torch.zeros(len(self.labels), dtype=torch.bool)
        for half in self._folds():
            _, _, right, (at, chosen) = self._in_question(half, ~half, captions, words, pool)
            keys = at[..., None] * len(pool.texts) + chosen.texts
            distinct, where = keys.unique(return_inverse=True)
            said = [describe(self.classes[k // len(pool.texts)], pool.texts[k % len(pool.texts)]) for k in distinct]
            vectors = encode_texts(self.encoder, said, self.store)
            cosines = (self.seen[~half] @ vectors.T)[:, None].expand(-1, at.shape[1], -1).gather(2, where)
            found[~half] = hits((cosines * chosen.used).sum(2) / chosen.used.sum(2).clamp(min=1), right)
        return Right(found)

    def few_shot(self) -> Right:
        """The nearest mean of the half's pictures: what the labels alone give."""
        found = torch.zeros(len(self.labels), dtype=torch.bool)
        for half in self._folds():
            near = nearest_mean(self.seen[half], self.labels[half], self.seen[~half], len(self.classes))
            found[~half] = near == self.labels[~half]
        return Right(found)

    @property
    def n_shots(self) -> tuple[int, ...]:
        """Pictures a class that a probe can be fitted on: 1, 2, 4, …, while every class has so many in a half."""
        fewest = int(torch.bincount(self.labels, minlength=len(self.classes)).min()) // 2
        return tuple(2**i for i in range(fewest.bit_length()))

    def probe(self, n: int, seed: int) -> Right:
        """Logistic regression on ``n`` pictures a class drawn from one half, for the other half, in the same space."""
        found = torch.zeros(len(self.labels), dtype=torch.bool)
        generator = torch.Generator().manual_seed(seed)
        for half in self._folds():
            order = half.nonzero()[:, 0]
            order = order[torch.randperm(len(order), generator=generator)]
            own = [order[self.labels[order] == k][:n] for k in range(len(self.classes))]
            shown = torch.cat(own)
            fit = fit_linear(self.seen[shown], self.labels[shown], len(self.classes), PROBE_C)
            found[~half] = fit.logits(self.seen[~half]).argmax(1) == self.labels[~half]
        return Right(found)

    def ceiling(self) -> Right:
        """Whether the class is in question at all; no choice of descriptions can do better."""
        at = self.cosines(self.classes).topk(min(self.k, len(self.classes)), dim=1).indices
        return Right((at == self.labels[:, None]).any(1))

    def _inner_weight(
        self, half: Bool[Tensor, " n"], captions: Float[Tensor, "n c"], words: Float[Tensor, "p d"], pool: Pool
    ) -> float:
        """The weight chosen inside the half: part of it chooses descriptions, the rest the weight."""
        part = torch.zeros_like(half)
        part[half] = halves(self.labels[half], self.seed + 1)
        cap, mean, right, _ = self._in_question(part, half & ~part, captions, words, pool)
        return best_weight(cap, mean, right)[0]

    def _in_question(
        self,
        on: Bool[Tensor, " n"],
        of: Bool[Tensor, " n"],
        captions: Float[Tensor, "n c"],
        words: Float[Tensor, "p d"],
        pool: Pool,
    ) -> tuple[Float[Tensor, "q k"], Float[Tensor, "q k"], Bool[Tensor, "q k"], tuple[Int[Tensor, "q k"], Selection]]:
        """Of some pictures: cosines of names and of descriptions chosen on others, which is right, and the choice."""
        matrix = selection_matrix(words, self.seen[on], self.labels[on], len(self.classes))
        top = captions[of].topk(min(self.k, len(self.classes)), dim=1)
        chosen = self.selector(matrix, top.indices, pool.assigned)
        right = top.indices == self.labels[of][:, None]
        picked = (self.seen[of] @ words.T)[:, None].expand(-1, chosen.texts.shape[1], -1).gather(2, chosen.texts)
        mean = (picked * chosen.used).sum(2) / chosen.used.sum(2).clamp(min=1)
        return top.values, mean, right, (top.indices, chosen)

    def _means(self, descriptions: Descriptions, *, named: bool) -> Float[Tensor, "n c"]:
        """Mean cosine with the texts of each class."""
        pairs = [(c, t) for c, lines in descriptions.texts.items() for t in lines]
        cosines = self.cosines([describe(c, t) if named else t for c, t in pairs])
        owner = torch.tensor([i for i, lines in enumerate(descriptions.texts.values()) for _ in lines])
        sums = torch.zeros(len(cosines), len(descriptions.texts)).index_add_(1, owner, cosines)
        return sums / torch.bincount(owner)

    def _chosen(self, scores: Float[Tensor, "n c"]) -> Bool[Tensor, " n"]:
        return scores.argmax(1) == self.labels
