"""FuDD: follow-up descriptions that distinguish the likeliest classes (Esfandiarpoor & Bach 2023)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Annotated, Any, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..bounds import Bound, Finite
from ..clusters import grouped
from ..descriptions.base import Pair, WordBank, check_pairs
from ..encoders.base import Encoder
from ..encoders.stream import encode_texts
from ..errors import InputError
from ..heads.head import Head, Projected
from ..heads.votes import Reason, Reranking
from ..storage.features import FeatureStore
from . import Recipe, classifiers
from .base import Classifier
from .unfitted import ZeroShot

TEMPLATE = "A photo of a {}."


@dataclass(frozen=True)
class Caption:
    """A caption of one class that distinguishes it from a rival class."""

    row: int
    label: int
    rival: int
    attribute: str
    text: str


@dataclass(frozen=True)
class Captions(Reranking):
    """Scores of the likeliest classes, from captions that distinguish them.

        t_a = scale * (x · e_a) + fusion * s_a

    ``t_a`` is the score of class ``a``, ``x`` the picture's unit vector, ``e_a`` the normalised mean of the captions of
    class ``a`` against the other likely classes, and ``s_a`` the zero-shot score. A pair of classes without captions
    uses the sentences with the class names. The rows of ``vectors``, each with the norm ``scale``, are the sentences
    with the class names, then the captions.
    """

    name = "follow_up"
    small = {"k": 2}

    classes: tuple[str, ...]
    captions: tuple[Caption, ...]
    vectors: Float[Tensor, "r d"] = field(repr=False)
    scale: float
    k: int = 10
    fusion: float = 0.0
    gate: float | None = None

    @property
    def n_classes(self) -> int:  # type: ignore[override]
        return len(self.classes)

    @cached_property
    def _by_pair(self) -> dict[tuple[int, int], list[Caption]]:
        return grouped(((caption.label, caption.rival), caption) for caption in self.captions)

    def rows_of(self, label: int, ambiguous: Sequence[int]) -> list[int]:
        """Return the rows of the captions that compare a class with the other ``ambiguous`` classes."""
        rows: set[int] = set()
        for rival in ambiguous:
            if rival != label:
                rows |= {c.row for c in self._by_pair.get((label, rival), ())} or {label}
        return sorted(rows or {label})

    def mix(self, ambiguous: Int[Tensor, "b k"], *, words_only: bool = False) -> Float[Tensor, "b k r"]:
        out = torch.zeros(*ambiguous.shape, len(self.vectors))
        for i, among in enumerate(ambiguous.tolist()):
            for j, label in enumerate(among):
                rows = self.rows_of(label, among)
                length = float(self.vectors[rows].sum(0).norm()) / self.scale
                out[i, j, rows] = 1 / max(length, 1e-12)
                if not words_only:
                    out[i, j, label] += self.fusion
        return out

    def reasons(self, ambiguous: Int[Tensor, " k"], label: int) -> tuple[Reason, ...]:
        found: dict[int, Reason] = {}
        among = ambiguous.tolist()
        for rival in among:
            for c in self._by_pair.get((label, rival), ()):
                found.setdefault(c.row, Reason(c.row, c.text, c.attribute or None, rival))
        return tuple(found.values())

    def facts(self) -> dict[str, Any]:
        captions = [list(vars(c).values()) for c in self.captions]
        given = {name: getattr(self, name) for name in ("scale", "k", "fusion", "gate")}
        return {"classes": list(self.classes), "captions": captions, **given}

    def tensors(self) -> dict[str, Tensor]:
        return {}

    @classmethod
    def restore(cls, facts: Mapping[str, Any], tensors: Mapping[str, Tensor], weight: Float[Tensor, "r d"]) -> Self:
        captions = tuple(Caption(*row) for row in facts["captions"])
        if len(weight) < len(facts["classes"]) or any(c.row >= len(weight) for c in captions):
            raise ValueError(f"captions or classes beyond the {len(weight)} rows")
        given = {k: facts[k] for k in ("scale", "k", "fusion", "gate")}
        return cls(tuple(facts["classes"]), captions, weight, **given)


@classifiers.register
@dataclass(frozen=True)
class FollowUp(Recipe):
    """Classification by captions that distinguish each pair of the likeliest zero-shot classes (FuDD).

    For each class ``a`` of the ``k`` likeliest, ``e_a`` is the normalised mean of the normalised embeddings of the
    captions that distinguish ``a`` from the other likely classes, each caption once. The class with the largest ``x ·
    e_a`` is predicted, where ``x`` is the picture's embedding. A pair of classes without captions uses the sentences
    with the class names.

    Where we differ: the authors' code (BatsResearch/fudd) converts all letters of a caption but the first to lower
    case. The authors' code has no ``fusion`` and no ``gate``.

    Args:
        k: number of likeliest classes to decide between. With the number of all classes, the zero-shot step has no
            effect.
        fusion: weight of the zero-shot cosine similarity in the final score, at least 0.
        gate: if the two largest zero-shot probabilities differ by at least this much, the zero-shot prediction stands.
        templates: sentences with ``{}`` for the class name, for the zero-shot step; default: the encoder's templates.
        scale: logit scale; default: the logit scale of the encoder.
    """

    name = "follow_up"
    paper = "Esfandiarpoor & Bach 2023, arXiv:2311.07593"
    needs = "class names, captions for pairs of them, and an image-text encoder"
    reranking = Captions

    k: Annotated[int, Bound(2)] = 10
    fusion: Finite = 0.0
    gate: Finite | None = None
    templates: tuple[str, ...] = (TEMPLATE,)
    scale: float | None = None

    def build(
        self, encoder: Encoder, labels: Sequence[str], pairs: Iterable[Pair] = (), store: FeatureStore | None = None
    ) -> Classifier:
        first = ZeroShot(self.templates, self.scale).build(encoder, labels, store)
        return self.after(first, list(pairs), store)

    def after(self, first: Classifier, pairs: Sequence[Pair], store: FeatureStore | None = None) -> Classifier:
        """Return a copy of a zero-shot or described classifier with follow-up captions."""
        if not isinstance(first.head.feature, Projected) or first.head.votes is not None:
            raise InputError(
                f"--follow-up requires a classifier made from names or descriptions, got {first.recipe}. "
                "Give its classes with --labels, without --model."
            )
        pairs = check_pairs(pairs, first.classes) if pairs else []
        texts, captions = _captions(pairs, first.classes)
        vectors = encode_texts(first.encoder, texts, store) if texts else torch.empty(0, first.head.weight.shape[1])
        weight = torch.cat([first.head.weight, vectors]) * first.head.scale
        decides = Captions(first.classes, captions, weight, float(first.head.scale), self.k, self.fusion, self.gate)
        return replace(
            first,
            recipe=self.name,
            parameters=self.parameters(),
            head=Head(first.head.feature, weight, votes=decides),
            words=_bank(first.classes, captions, weight / first.head.scale, self.templates[0]),
            decided_by_words=True,
            trained_on=f"nothing but names and {len(texts)} captions that distinguish {len(pairs)} pairs of classes",
        )


def _captions(pairs: Sequence[Pair], classes: tuple[str, ...]) -> tuple[list[str], tuple[Caption, ...]]:
    at = {name: i for i, name in enumerate(classes)}
    rows: dict[str, int] = {}
    found: dict[tuple[int, int, int], Caption] = {}
    for pair in pairs:
        a, b = (at[n] for n in pair.classes)
        for d in pair.differences:
            for label, rival, text in ((a, b, d.first), (b, a, d.second)):
                row = rows.setdefault(text, len(classes) + len(rows))
                found.setdefault((row, label, rival), Caption(row, label, rival, d.attribute, text))
    return list(rows), tuple(found.values())


def _bank(
    classes: tuple[str, ...], captions: Sequence[Caption], vectors: Float[Tensor, "r d"], template: str
) -> WordBank:
    rows: list[tuple[str, int, int]] = []
    for i, name in enumerate(classes):
        own = {c.row: c.text for c in captions if c.label == i} or {i: template.replace("{}", name)}
        rows += [(text, i, row) for row, text in own.items()]
    texts, owner, at = zip(*rows, strict=True)
    return WordBank(classes, tuple(texts), torch.tensor(owner), vectors[list(at)])
