"""Classifiers that predict from descriptions, selected for the likeliest classes or for each picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, NamedTuple, Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..bounds import Bound, Checked, Count, Finite, NotNegative
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
from .encoded_set import EncodedSet, accuracy_by_words, with_logits
from .fitting import Fitting, Outcome, PictureRecipe
from .linear.choosing import c_path, choosing_folds
from .linear.solvers import LinearFit, fit_linear, share_weight
from .unfitted import ZeroShot

WEIGHTS = tuple(w / 4 for w in range(160))
"""Candidate weights of the class name: 0, 0.25, …, 39.75, as in the authors' code."""


@dataclass(frozen=True)
class Pool:
    """The distinct descriptions of all classes."""

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
        """Return the first class that a text describes, or ``None`` if the text describes ``label``."""
        owners = [c for c, mine in enumerate(self.assigned) if text in mine]
        return None if label in owners or not owners else owners[0]


def selection_matrix(
    texts: Float[Tensor, "p d"], pictures: Float[Tensor, "n d"], labels: Int[Tensor, " n"], n_classes: int
) -> Float[Tensor, "p c"]:
    """Return the mean cosine similarity of each text with the pictures of each class, ``(texts, classes)``."""
    counts = torch.bincount(labels, minlength=n_classes)
    if int(counts.min()) == 0:
        raise DataError(
            f"Every class must have at least one picture to choose descriptions with, but {int((counts == 0).sum())} "
            f"of {n_classes} classes have none. Add pictures, or leave those classes out."
        )
    sums = torch.zeros(n_classes, pictures.shape[1], dtype=pictures.dtype).index_add_(0, labels, pictures)
    return texts @ (sums / counts[:, None]).T


class Selection(NamedTuple):
    texts: Int[Tensor, "b k m"]
    used: Bool[Tensor, "b k m"]


@dataclass(frozen=True)
class Selector(Checked):
    """Training-free selector of the descriptions that fit a class better than its rivals.

    Text ``p`` qualifies for class ``a`` if, for every rival class ``b``,

        M_pa - M_pb >= margin

    where ``M_pa`` is the mean cosine similarity of text ``p`` with the pictures of class ``a``. The ``m`` qualified
    texts with the largest mean difference are chosen. If no text qualifies, the first ``m`` descriptions of the class
    are used. Paper: ``m = 5`` and ``margin = 0``.
    """

    noun = "the selector"

    m: Count = 5
    margin: float = 0.0

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
    """Return the ``w`` for which ``w * captions + words`` has the best accuracy, and the accuracy of every ``w``."""
    found = torch.stack([hits(w * captions + words, right).float().mean() for w in WEIGHTS])
    return WEIGHTS[int(found.argmax())], found


def hits(scores: Float[Tensor, "n k"], right: Bool[Tensor, "n k"]) -> Bool[Tensor, " n"]:
    return right.gather(1, scores.argmax(1, keepdim=True))[:, 0]


@dataclass(frozen=True)
class Chosen(Reranking):
    """Scores of the likeliest classes, from their names and their chosen texts.

        t_a = (w * s_a + mean of s_p over the chosen texts p) / (w + 1)

    ``t_a`` is the score of class ``a``, ``s_a`` the score of the sentence with its name, ``s_p`` the score of text
    ``p``, and ``w`` the weight of the name.
    """

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


def _by_words(
    recipe: PictureRecipe, fitting: Fitting, pictures: EncodedSet, head: Head, texts: Descriptions | None, origin: str
) -> Classifier:
    """Return the classifier of a head that decides by sentences, measured on the held-out pictures."""
    encoder, classes = fitting.encoder, pictures.classes
    words = None if texts is None else WordBank.build(encoder, texts, with_names=False, store=fitting.store)
    made = Classifier(recipe.name, recipe.parameters(), encoder, classes, head, words, True, trained_on=origin)
    if (held := with_logits(head, pictures.held_out())) is None:
        return made
    on = f"{len(held.labels)} held-out pictures"
    return replace(made, held_out=held, words_accuracy=accuracy_by_words(head, held), words_accuracy_on=on)


@classifiers.register
@dataclass(frozen=True)
class Discriminative(PictureRecipe):
    """Classification by the descriptions that best separate the likeliest classes on your pictures.

    Zero-shot classification by class names gives the ``k`` likeliest classes. For each of these classes,
    :class:`Selector` chooses descriptions. The score of a class is

        w * cosine with the sentence of its name + mean cosine with its chosen descriptions

    Nothing is trained, but the labels of your pictures are used, so the method is not zero-shot.

    Where we differ: the authors use the ``w`` that is best on the test set. Here, half of the pictures choose the
    descriptions, and the other half chooses ``w``. Classes may have different numbers of pictures. A class with fewer
    than ``m`` texts uses each text once. Classes outside the ``k`` likeliest keep their zero-shot probabilities.

    Args:
        k: number of likeliest classes to decide between.
        m: maximum number of descriptions per class.
        margin: minimum difference in mean cosine similarity to every rival (paper: 0).
        weight: ``w``, the weight of the class name, at least 0; default: chosen on your pictures.
        gate: if the two largest zero-shot probabilities differ by at least this much, the zero-shot prediction stands;
            default: the descriptions decide every picture.
        templates: sentences with ``{}`` for the class name; default: the encoder's templates.
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
    n_bank: int = 1000

    def learn(self, fitting: Fitting) -> Outcome:
        encoder, descriptions, store = fitting.encoder, fitting.descriptions, fitting.store
        if descriptions is None:
            raise DataError("The method discriminative requires descriptions. Add --descriptions FILE.")
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
        origin = f"{len(labels):,} of your pictures, {len(pool.classes)} classes; they were also used to choose the "
        made = _by_words(self, fitting, pictures, head, described, f"{origin}descriptions")
        figures: dict[str, Any] = {"words_accuracy": made.words_accuracy}
        figures |= {"n_texts": len(pool.texts), "weight": weight}
        if (held := made.held_out) is not None:
            at = decides.ambiguous(head.feature(held.pooled) @ head.weight.T)
            of_names = first.head.probabilities(held.pooled).argmax(1) == held.labels
            figures["names_accuracy"] = round(float(of_names.float().mean()), 4)
            figures["in_question"] = round(float((at == held.labels[:, None]).any(1).float().mean()), 4)
        return Outcome(made, pictures, figures)

    def _decides(self, pool: Pool, vectors: Tensor, seen: Tensor, labels: Tensor, weight: float) -> Chosen:
        matrix = selection_matrix(vectors[len(pool.classes) :], seen, labels, len(pool.classes))
        return Chosen(pool, matrix, weight, Selector(self.m, self.margin), self.k, self.gate)

    def _weight(self, pool: Pool, vectors: Tensor, seen: Tensor, labels: Tensor, groups: Tensor) -> float:
        """Return the weight with the best accuracy on half of the pictures; the other half chooses descriptions."""
        half = group_folds(labels, groups, 2, self.seed) != 1
        if int(torch.bincount(labels, minlength=len(pool.classes)).min()) < 2:
            raise DataError(
                "Every class must have at least two pictures, on which `weight` is chosen. Add pictures, or use "
                "--set weight=1."
            )
        decides = self._decides(pool, vectors, seen[half], labels[half], 0.0)
        scores = seen[~half] @ vectors.T
        at = decides.ambiguous(scores)
        return best_weight(scores.gather(1, at), decides.second(scores), at == labels[~half][:, None])[0]


N_FOLDS = 5


@classifiers.register
@dataclass(frozen=True)
class SparseConcepts(PictureRecipe):
    """A linear classifier on the few concepts that are most unusual in a picture; a concept is a text.

    A picture's cosine similarities with the concepts are standardised over the training pictures. The ``kept`` values
    with the largest magnitude remain, and the others become 0. A linear layer maps these values ``a`` to logits (Shen
    et al. 2025):

        logits = W a + b

    ``W`` and ``b`` are fitted. A concept whose similarity is unusually low can also be among the ``kept`` concepts.

    Concepts are the descriptions of all classes, or phrases from WordNet's definitions of the ImageNet classes. If
    there are more than ``n_concepts`` texts, those whose cosine similarities differ most between classes are used.

    Where we differ: the authors train by Adam, choose settings on the test set, and normalise over the concepts of a
    picture. See ``seewhy study interpretability``.

    Args:
        kept: number of concepts per picture that are not set to 0; the paper's sparsity of 0.95 is 10 of 200.
        n_concepts: maximum number of concepts in total.
    """

    name = "sparse_concepts"
    paper = "Shen et al. 2025, arXiv:2510.24105"
    needs = "labelled pictures and an image-text encoder"
    reranking = KeptConcepts
    small = {"kept": 3, "n_concepts": 6}

    kept: Count = 10
    n_concepts: Count = 200
    n_bank: int = 1000

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
            raise DataError("Every description fits all pictures equally well. Give descriptions that differ.")
        cosines, texts = cosines[:, chosen], tuple(texts[i] for i in chosen.tolist())
        mean, spread = cosines.mean(0), cosines.std(0, correction=0)
        n_classes = len(pictures.classes)
        blank = torch.zeros(n_classes, len(texts))
        start = KeptConcepts(texts, mean, spread, blank, torch.zeros(n_classes), self.kept)
        fit, temperature = self._fit(start.values(cosines), labels, pictures, of)
        decides = KeptConcepts(texts, mean, spread, fit.weight / temperature, fit.bias / temperature, self.kept)
        head = Head(Projected(tower), vectors[chosen], torch.zeros(n_classes), votes=decides)
        origin = f"{len(labels):,} of your pictures, {n_classes} classes, by {len(texts)} concepts in words"
        made = _by_words(self, fitting, pictures, head, described, origin)
        used = int(decides.which(cosines).any(0).sum())
        figures = {"words_accuracy": made.words_accuracy, "n_concepts": len(texts), "n_used": used}
        return Outcome(made, pictures, figures)

    def _fit(
        self, x: Float[Tensor, "n m"], labels: Int[Tensor, " n"], pictures: EncodedSet, of: Int[Tensor, " n"]
    ) -> tuple[LinearFit, float]:
        """Fit with the penalty and temperature that are best on held-out rows; with defaults if rows are few."""
        n_classes = len(pictures.classes)
        fold = group_folds(labels, pictures.groups[of], N_FOLDS, self.seed)
        if len(fold.unique()) < 2:
            return fit_linear(x, labels, n_classes, 1.0), 1.0
        fold = choosing_folds(fold, torch.arange(len(fold)))
        shares = labels.bincount(minlength=n_classes).float()
        path = c_path(x, labels, n_classes, fold, usual=1.0, weigh=lambda y: share_weight(y, shares))
        return fit_linear(x, labels, n_classes, path.best.c, warm_start=path.fit), path.best.temperature


def _telling(cosines: Float[Tensor, "n t"], labels: Int[Tensor, " n"]) -> Int[Tensor, " u"]:
    """Return the texts in descending order of the ratio of between-class to within-class variance."""
    within, between = torch.zeros_like(cosines[0]), torch.zeros_like(cosines[0])
    for label in labels.unique():
        own = cosines[labels == label]
        within += (own - own.mean(0)).square().sum(0)
        between += len(own) * (own.mean(0) - cosines.mean(0)).square()
    order = (between / within.clamp(min=1e-12)).argsort(descending=True, stable=True)
    return order[cosines.std(0, correction=0)[order] > 1e-6]
