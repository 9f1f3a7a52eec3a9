"""A linear classifier on the few concepts in words that stand out on a picture (IIS, Shen et al. 2025)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..bounds import Count
from ..descriptions.base import WordBank
from ..encoders.names import imagenet_descriptions
from ..encoders.stream import encode_texts
from ..errors import DataError
from ..heads.head import Head, Projected
from ..heads.sparse_concepts import KeptConcepts
from ..trust.groups import group_folds
from . import classifiers
from .base import Classifier
from .encoded_set import EncodedSet, HeldOutPart, Split, accuracy_by_words, with_logits
from .fitting import Fitting, Outcome, PictureRecipe
from .linear.solvers import LinearFit, c_path, fit_logistic, share_weight

N_FOLDS = 5


@classifiers.register
@dataclass(frozen=True)
class SparseConcepts(PictureRecipe):
    """Logistic regression on cosines with sentences, of which each picture keeps only the few that stand out most.

    ``a`` = cosines in standard units over the pictures learnt from; the ``kept`` largest ``|a|`` of each picture stay
    and all others are 0; ``logits = W · a + b`` (Shen et al. 2025, arXiv:2510.24105, the interpretable prediction on
    which their score is built). So the card can name every number that made the decision: the concepts kept, and what
    each adds to the lead over the runner-up. A concept that is *less* there than usual can be among them.

    Concepts are the descriptions, whosever they are, or, without any, phrases of ImageNet's glosses; of more than
    ``n_concepts`` those are taken whose cosines differ most between classes, by variance between and within, on the
    pictures learnt from. The penalty is chosen on a fifth of these; figures are of pictures held out from all of it.
    The authors train by Adam, choose on what they report, and normalise over a picture's concepts, by which what is
    kept depends on what is not; see ``seewhy study interpretability``.

    Args:
        kept: concepts of each picture; 10 of 200 is their sparsity 0.95.
        n_concepts: at most.
        held_out: part of the pictures on which the figures on the card are measured.
        split: "grouped" keeps pictures of the same thing on one side; "random" does not, and flatters.
        n_bank: pictures whose patches are kept as evidence.
        seed: of the splits.
    """

    name = "sparse_concepts"
    paper = "Shen et al. 2025, arXiv:2510.24105"
    needs = "pictures in classes and an image-text encoder"
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
            raise DataError("No text differs between pictures. Some that do were expected. Give other descriptions.")
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
