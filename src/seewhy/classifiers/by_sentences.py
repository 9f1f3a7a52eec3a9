"""Sentences that decide, chosen on your pictures: anew for the classes in question on each, or few on each picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..bounds import Bound, Count, Finite, NotNegative, check_fields
from ..descriptions.base import Descriptions, WordBank
from ..encoders.names import imagenet_descriptions
from ..encoders.stream import encode_texts
from ..errors import DataError
from ..heads.head import Head, Projected
from ..heads.sparse_concepts import KeptConcepts
from ..heads.votes import Reason, Reranking
from ..trust.groups import group_folds
from . import classifiers
from .base import Classifier
from .encoded_set import EncodedSet, HeldOutPart, Split, accuracy_by_words, with_logits
from .fitting import Fitting, Outcome, PictureRecipe
from .linear.solvers import LinearFit, c_path, fit_logistic, share_weight
from .unfitted import ZeroShot

WEIGHTS = tuple(w / 4 for w in range(160))
"""Of the class's own sentence: 0, 0.25, …, 39.75, as in the authors' code."""


@dataclass(frozen=True)
class Pool:
    """All texts of all classes, each once."""

    classes: tuple[str, ...]
    texts: tuple[str, ...]
    assigned: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, descriptions: Descriptions) -> Pool:
        texts = sorted({t for lines in descriptions.texts.values() for t in lines})
        at = {text: i for i, text in enumerate(texts)}
        assigned = tuple(tuple(at[t] for t in lines) for lines in descriptions.texts.values())
        return cls(tuple(descriptions.texts), tuple(texts), assigned)

    def written_for(self, text: int, label: int) -> int | None:
        """The class that a text was written for if it is not this class; the first, if there are several."""
        owners = [c for c, mine in enumerate(self.assigned) if text in mine]
        return None if label in owners or not owners else owners[0]


def selection_matrix(
    texts: Float[Tensor, "p d"], pictures: Float[Tensor, "n d"], labels: Int[Tensor, " n"], n_classes: int
) -> Float[Tensor, "p c"]:
    """``M``: the mean cosine of each text with the pictures of each class (the authors use equally many per class)."""
    counts = torch.bincount(labels, minlength=n_classes)
    if int(counts.min()) == 0:
        raise DataError(
            f"{int((counts == 0).sum())} of {n_classes} classes have no picture to choose words with. Expected one per "
            "class. Add pictures, or leave those classes out."
        )
    sums = torch.zeros(n_classes, pictures.shape[1], dtype=pictures.dtype).index_add_(0, labels, pictures)
    return texts @ (sums / counts[:, None]).T


class Selection(NamedTuple):
    texts: Int[Tensor, "b k m"]
    used: Bool[Tensor, "b k m"]


@dataclass(frozen=True)
class Selector:
    """The training-free selector: for a class in question, texts that hold more for it than for each of its rivals.

    A text ``p`` is kept for class ``a`` when ``M_pa − M_pb ≥ margin`` for every rival ``b`` in question. The ``m`` of
    the largest ``mean over b of (M_pa − M_pb)``, the zero for ``b = a`` among them, are chosen; fewer where fewer are
    kept. Where none is, the first ``m`` texts written for the class stand in. The authors take ``m = 5`` and the margin
    0, which takes what is ahead at all; on few pictures that is noise.
    """

    m: Count = 5
    margin: float = 0.0

    def __post_init__(self) -> None:
        check_fields(self, "The selector")

    def __call__(
        self, matrix: Float[Tensor, "p c"], ambiguous: Int[Tensor, "b k"], assigned: Sequence[Sequence[int]]
    ) -> Selection:
        at = matrix[:, ambiguous].permute(1, 2, 0)  # b k p
        rival = torch.full_like(at, -torch.inf)  # the largest value among the other classes in question
        if at.shape[1] > 1:
            top = at.topk(2, dim=1)
            first = torch.arange(at.shape[1])[None, :, None] == top.indices[:, :1]
            rival = torch.where(first, top.values[:, 1:], top.values[:, :1])
        ahead = torch.where(at - rival >= self.margin, at - at.mean(1, keepdim=True), -torch.inf)
        # Sorting is stable where topk is not: equal texts are taken in the pool's order on every machine.
        lead, texts = ahead.sort(dim=2, descending=True, stable=True)
        lead, texts = lead[..., : self.m], texts[..., : self.m].clone()
        used = lead > -torch.inf
        for picture, place in (~used.any(2)).nonzero().tolist():
            own = list(assigned[int(ambiguous[picture, place])])[: texts.shape[2]]
            texts[picture, place, : len(own)] = torch.tensor(own, dtype=torch.long)
            used[picture, place, : len(own)] = True
        return Selection(texts, used)


def best_weight(
    captions: Float[Tensor, "n k"], words: Float[Tensor, "n k"], right: Bool[Tensor, "n k"]
) -> tuple[float, Float[Tensor, " w"]]:
    """The ``w`` of ``w · caption + words`` with the best accuracy, the smallest if several are equal; and all
    accuracies.
    """
    found = torch.stack([hits(w * captions + words, right).float().mean() for w in WEIGHTS])
    return WEIGHTS[int(found.argmax())], found


def hits(scores: Float[Tensor, "n k"], right: Bool[Tensor, "n k"]) -> Bool[Tensor, " n"]:
    return right.gather(1, scores.argmax(1, keepdim=True))[:, 0]


@dataclass(frozen=True)
class Chosen(Reranking):
    """For the classes in question, ``t_a = (w · s_a + mean over the chosen texts of s_p) / (w + 1)``."""

    name = "discriminative"
    small = {"k": 2}

    pool: Pool
    matrix: Float[Tensor, "p c"]
    weight: float
    selector: Selector
    k: int = 3
    gate: float | None = None

    @property
    def n_classes(self) -> int:  # type: ignore[override]
        return len(self.pool.classes)

    def mix(self, ambiguous: Int[Tensor, "b k"], *, words_only: bool = False) -> Float[Tensor, "b k r"]:
        chosen = self.selector(self.matrix, ambiguous, self.pool.assigned)
        weight = 0.0 if words_only else self.weight
        part = chosen.used / chosen.used.sum(2, keepdim=True).clamp(min=1) / (weight + 1)
        rows = torch.zeros(*ambiguous.shape, self.n_classes + len(self.pool.texts))
        rows.scatter_add_(2, chosen.texts + self.n_classes, part)
        return rows.scatter_add_(2, ambiguous[..., None], torch.full((*ambiguous.shape, 1), weight / (weight + 1)))

    def reasons(self, ambiguous: Int[Tensor, " k"], label: int) -> tuple[Reason, ...]:
        chosen = self.selector(self.matrix, ambiguous[None], self.pool.assigned)
        place = ambiguous.tolist().index(label)
        texts = chosen.texts[0, place][chosen.used[0, place]].tolist()
        return tuple(
            Reason(self.n_classes + t, self.pool.texts[t], written_for=self.pool.written_for(t, label)) for t in texts
        )

    def facts(self) -> dict[str, Any]:
        pool = {**vars(self.pool), "assigned": [list(a) for a in self.pool.assigned]}
        given = {"weight": self.weight, "selector": vars(self.selector), "k": self.k, "gate": self.gate}
        return {"pool": pool, **given}

    def tensors(self) -> dict[str, Tensor]:
        return {"matrix": self.matrix}

    @classmethod
    def restore(cls, facts: Mapping[str, Any], tensors: Mapping[str, Tensor], weight: Float[Tensor, "r d"]) -> Self:
        given = facts["pool"]
        pool = Pool(tuple(given["classes"]), tuple(given["texts"]), tuple(tuple(a) for a in given["assigned"]))
        if len(weight) != len(pool.classes) + len(pool.texts):
            raise ValueError(f"{len(weight)} rows for {len(pool.classes)} classes and {len(pool.texts)} texts")
        selector = Selector(**facts["selector"])
        return cls(pool, tensors["matrix"], float(facts["weight"]), selector, int(facts["k"]), facts["gate"])


@classifiers.register
@dataclass(frozen=True)
class Discriminative(PictureRecipe):
    """Decides between the likeliest classes by descriptions that your pictures chose to separate them.

    The first look is zero-shot, by class names. For each of its ``k`` best classes, those of all descriptions are
    chosen that fit it better than each rival on your pictures (:class:`Selector`). The class then scores
    ``w · cosine with its sentence + mean cosine of its chosen descriptions``; descriptions carry no class names.
    Nothing is trained, but it is not zero-shot: it uses the pictures' classes.

    ``w`` is chosen on half of the pictures, where the other half chose descriptions; the authors take the best on the
    test pictures. Other differences: classes may have different numbers of pictures, texts are never repeated to fill
    up, and classes outside the first ``k`` keep the first look's probabilities.

    Args:
        k: number of likeliest classes to decide between.
        m: most descriptions per class.
        margin: how far a description must be ahead (paper: 0).
        weight: ``w``, the weight of the name; default: chosen on your pictures.
        gate: see :class:`~seewhy.heads.votes.Reranking`; default: descriptions decide every picture.
        templates: sentences for the class names; default: the encoder's own.
    """

    name = "discriminative"
    paper = "Ma et al. 2024, arXiv:2412.11917"
    needs = "labelled pictures, descriptions and an image-text encoder"
    reranking = Chosen

    k: Annotated[int, Bound(2)] = 3
    m: Count = 5
    margin: Finite = 0.0
    weight: NotNegative | None = None
    gate: Finite | None = None
    templates: tuple[str, ...] = ()
    held_out: HeldOutPart = 0.2
    split: Split = "grouped"
    n_bank: int = 1000
    seed: int = 0

    def learn(self, fitting: Fitting) -> Outcome:
        encoder, descriptions, store = fitting.encoder, fitting.descriptions, fitting.store
        if descriptions is None:
            raise DataError("No descriptions were given. Expected texts to choose from. Add --descriptions FILE.")
        pictures = fitting.look(n_bank=self.n_bank)
        first = ZeroShot(templates=self.templates).build(encoder, pictures.classes, store)
        described = descriptions.limited_to(pictures.classes)
        pool = Pool.of(described)
        vectors = torch.cat([first.head.weight, encode_texts(encoder, pool.texts, store)])
        pooled, labels, _ = pictures.rows(~pictures.held)
        seen = Projected(encoder.text)(pooled)
        weight = self.weight
        if weight is None:
            weight = self._weight(pool, vectors, seen, labels, pictures.groups[~pictures.held])
        decides = self._decides(pool, vectors, seen, labels, weight)
        head = Head(first.head.feature, vectors * first.head.scale, votes=decides)
        held = with_logits(head, pictures.held_out())
        alone = None if held is None else accuracy_by_words(head, held)
        made = Classifier(
            self.name,
            {**self.parameters(), "templates": list(self.templates)},
            encoder,
            pictures.classes,
            head,
            words=WordBank.build(encoder, described, with_names=False, store=store),
            decided_by_words=True,
            held_out=held,
            words_accuracy=alone,
            words_accuracy_on="" if held is None else f"{len(held.labels)} held-out pictures",
            trained_on=f"{len(labels):,} of your pictures, {len(pool.classes)} classes; they chose the descriptions",
        )
        figures: dict[str, Any] = {"words_accuracy": alone, "n_texts": len(pool.texts), "weight": weight}
        if held is not None:
            at = decides.ambiguous(head.feature(held.pooled) @ head.weight.T)
            of_names = first.head.probabilities(held.pooled).argmax(1) == held.labels
            figures["names_accuracy"] = round(float(of_names.float().mean()), 4)
            figures["in_question"] = round(float((at == held.labels[:, None]).any(1).float().mean()), 4)
        return Outcome(made, pictures, figures)

    def _decides(self, pool: Pool, vectors: Tensor, seen: Tensor, labels: Tensor, weight: float) -> Chosen:
        matrix = selection_matrix(vectors[len(pool.classes) :], seen, labels, len(pool.classes))
        return Chosen(pool, matrix, weight, Selector(self.m, self.margin), self.k, self.gate)

    def _weight(self, pool: Pool, vectors: Tensor, seen: Tensor, labels: Tensor, groups: Tensor) -> float:
        """The weight that is right most often on one half of the pictures, where the other half chose descriptions."""
        half = group_folds(labels, groups, 2, self.seed) != 1
        if int(torch.bincount(labels, minlength=len(pool.classes)).min()) < 2:
            raise DataError(
                "A class has only one picture, too few to choose both descriptions and the weight of the names. "
                "Expected two per class. Add pictures, or set --set weight=1."
            )
        decides = self._decides(pool, vectors, seen[half], labels[half], 0.0)
        scores = seen[~half] @ vectors.T
        at = decides.ambiguous(scores)
        return best_weight(scores.gather(1, at), decides.second(scores), at == labels[~half][:, None])[0]


N_FOLDS = 5


@classifiers.register
@dataclass(frozen=True)
class SparseConcepts(PictureRecipe):
    """A linear classifier on the few concepts, in words, that stand out in a picture.

    ``a`` = cosines with sentences, in standard units over the training pictures; the ``kept`` largest ``|a|`` of each
    picture stay and all others are 0; ``logits = W · a + b`` (Shen et al. 2025, the interpretable prediction behind
    their score). So the card can list every number that made the decision. A concept that is *weaker* than usual can be
    among them.

    Concepts are the descriptions of any class, or phrases of ImageNet's glosses. If there are more than
    ``n_concepts``, those are taken whose cosines differ most between classes. The authors train by Adam, choose on
    what they report, and normalise over a picture's concepts; see ``seewhy study interpretability``.

    Args:
        kept: concepts to keep per picture; 10 of 200 is the paper's sparsity 0.95.
        n_concepts: most concepts to use.
    """

    name = "sparse_concepts"
    paper = "Shen et al. 2025, arXiv:2510.24105"
    needs = "labelled pictures and an image-text encoder"
    reranking = KeptConcepts
    small = {"kept": 3, "n_concepts": 6}

    kept: Count = 10
    n_concepts: Count = 200
    held_out: HeldOutPart = 0.2
    split: Split = "grouped"
    n_bank: int = 1000
    seed: int = 0

    def learn(self, fitting: Fitting) -> Outcome:
        encoder, store = fitting.encoder, fitting.store
        tower = encoder.text
        pictures = fitting.look(n_bank=self.n_bank)
        described = None if fitting.descriptions is None else fitting.descriptions.limited_to(pictures.classes)
        lists = imagenet_descriptions() if described is None else described.texts
        texts = tuple(dict.fromkeys(t for lines in lists.values() for t in lines))
        pooled, labels, of = pictures.rows(~pictures.held)
        vectors = encode_texts(encoder, list(texts), store)
        cosines = Projected(tower)(pooled).detach() @ vectors.T
        chosen = _telling(cosines, labels)[: self.n_concepts].sort().values
        if not len(chosen):
            raise DataError(
                "Every description fits all pictures equally well. Expected some that differ. Give other descriptions."
            )
        cosines, texts = cosines[:, chosen], tuple(texts[i] for i in chosen.tolist())
        mean, spread = cosines.mean(0), cosines.std(0, correction=0)
        n_classes = len(pictures.classes)
        blank = torch.zeros(n_classes, len(texts))
        start = KeptConcepts(texts, mean, spread, blank, torch.zeros(n_classes), self.kept)
        fit, temperature = self._fit(start.values(cosines), labels, pictures, of)
        decides = KeptConcepts(texts, mean, spread, fit.weight / temperature, fit.bias / temperature, self.kept)
        head = Head(Projected(tower), vectors[chosen], torch.zeros(n_classes), votes=decides)
        held = with_logits(head, pictures.held_out())
        accuracy = None if held is None else accuracy_by_words(head, held)
        words = None if described is None else WordBank.build(encoder, described, with_names=False, store=store)
        made = Classifier(
            self.name,
            self.parameters(),
            encoder,
            pictures.classes,
            head,
            words=words,
            decided_by_words=True,
            held_out=held,
            words_accuracy=accuracy,
            words_accuracy_on="" if held is None else f"{len(held.labels)} held-out pictures",
            trained_on=f"{len(labels):,} of your pictures, {n_classes} classes, by {len(texts)} concepts in words",
        )
        used = int(decides.which(cosines).any(0).sum())
        return Outcome(made, pictures, {"words_accuracy": accuracy, "n_concepts": len(texts), "n_used": used})

    def _fit(
        self, x: Float[Tensor, "n m"], labels: Int[Tensor, " n"], pictures: EncodedSet, of: Int[Tensor, " n"]
    ) -> tuple[LinearFit, float]:
        """The penalty and the temperature chosen on a fifth of the rows; without any to spare, neither is."""
        n_classes = len(pictures.classes)
        fold = torch.where(group_folds(labels, pictures.groups[of], N_FOLDS, self.seed) == 0, 0, -1)
        if len(fold.unique()) < 2:
            return fit_logistic(x, labels, n_classes, 1.0), 1.0
        shares = labels.bincount(minlength=n_classes).float()
        path = c_path(x, labels, n_classes, fold, weigh=lambda y: share_weight(y, shares))
        return fit_logistic(x, labels, n_classes, path.best.c, warm_start=path.fit), path.best.temperature


def _telling(cosines: Float[Tensor, "n t"], labels: Int[Tensor, " n"]) -> Int[Tensor, " u"]:
    """Texts that change, those first whose variance between classes is largest by that within."""
    within, between = torch.zeros_like(cosines[0]), torch.zeros_like(cosines[0])
    for label in labels.unique():
        own = cosines[labels == label]
        within += (own - own.mean(0)).square().sum(0)
        between += len(own) * (own.mean(0) - cosines.mean(0)).square()
    order = (between / within.clamp(min=1e-12)).argsort(descending=True, stable=True)
    return order[cosines.std(0, correction=0)[order] > 1e-6]
