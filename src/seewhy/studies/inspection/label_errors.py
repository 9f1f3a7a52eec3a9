"""Which labels are likely wrong, by what heads that never saw a picture say of it, or by its neighbours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ...classifiers.encoded_set import EncodedSet
from ...classifiers.linear.recipe import Linear
from ...encoders.base import Encoder
from ...encoders.stream import Encoded
from ...errors import InputError, MissingExtraError
from ...heads.normalise import Normalise
from ...pictures.samples import Sample
from ...trust.groups import Grouping, group_folds

N_FOLDS = 5


@dataclass(frozen=True)
class HeldOutScores:
    """What was said of each picture without it."""

    probabilities: Float[Tensor, "n k"]
    labels: Int[Tensor, " n"]
    features: Float[Tensor, "n d"]
    groups: Int[Tensor, " n"]
    judged: Bool[Tensor, " n"]

    @property
    def accuracy(self) -> float:
        """Part of the judged pictures that the head puts where their label does."""
        said = self.probabilities.argmax(1) == self.labels
        return float(said[self.judged].double().mean())

    def thresholds(self) -> Float[Tensor, " k"]:
        """What a class gets on average from the pictures that bear its label; above 1 where none was judged."""
        k = self.probabilities.shape[1]
        labels = self.labels[self.judged]
        own = self.probabilities[self.judged].gather(1, labels[:, None])[:, 0].double()
        count = labels.bincount(minlength=k)
        mean = torch.zeros(k, dtype=torch.double).index_add(0, labels, own) / count.clamp(min=1)
        return torch.where(count > 0, mean, 2.0)


def held_out_scores(
    encoder: Encoder,
    items: Sequence[Sample],
    seen: Sequence[Encoded],
    classes: Sequence[str],
    groups: Int[Tensor, " n"],
    seed: int = 0,
) -> HeldOutScores:
    """Linear heads over features that were looked at once, each fitted without a fifth of the pictures."""
    number = {name: i for i, name in enumerate(classes)}
    labels = torch.tensor([number[s.label] for s in items])
    pooled = torch.stack([s.pooled[0] for s in seen])
    folds = group_folds(labels, groups, N_FOLDS, seed)
    judged = folds >= 0
    probabilities = torch.full((len(items), len(classes)), 1 / len(classes))
    if bool(judged.any()):
        grouping = Grouping(groups, "given")
        pictures = EncodedSet(items, seen, tuple(classes), labels, folds == 0, grouping=grouping, folds=folds)
        found = Linear(n_crops=0, seed=seed).learn_seen(encoder, pictures)
        assert found.measured is not None
        assert found.index is not None
        assert found.measured.logits is not None
        probabilities[found.index] = found.measured.logits.softmax(1)
    return HeldOutScores(probabilities, labels, Normalise(0.5, l2=True)(pooled), groups, judged)


@dataclass(frozen=True)
class LabelIssues:
    """What a ranker says of every picture."""

    flagged: Bool[Tensor, " n"]
    doubt: Float[Tensor, " n"]
    proposed: Int[Tensor, " n"]


Ranker = Callable[[HeldOutScores], LabelIssues]
"""In which order labels are to be doubted; pictures that were not judged are never flagged."""


def _rival(p: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> tuple[Tensor, Tensor]:
    """The likeliest of the other classes, and what it gets."""
    best = p.scatter(1, labels[:, None], -1.0).max(1)
    return best.indices, best.values


def odds(scores: HeldOutScores) -> LabelIssues:
    """A label is flagged that gets no more than any label would: our own rule.

    A picture's odds are what its label gets, as a part of what the likeliest other class gets. They are held against
    what the label's class gets on average, as a part of the likeliest, from pictures that bear other labels: a label
    drawn without looking would have as much. With ``u`` for this average, doubt is ``u / (u + odds)``, and what
    reaches one half is flagged. There is nothing to set: ``u`` measures what classes that look alike share, which a
    fixed limit (20) did not. Chosen on training pictures only; docs/check.md has the figures on others.
    """
    p, labels, judged = scores.probabilities, scores.labels, scores.judged
    proposed, rival = _rival(p, labels)
    own = p.gather(1, labels[:, None])[:, 0] / rival
    others = torch.ones_like(p).scatter(1, labels[:, None], 0.0)[judged]
    given = (p / p.amax(1, keepdim=True))[judged] * others
    usual = (given.sum(0) / others.sum(0).clamp(min=1))[labels].clamp(min=1e-12)
    doubt = usual / (usual + own)
    return LabelIssues((doubt >= 0.5) & judged, doubt, proposed)


def confident(scores: HeldOutScores) -> LabelIssues:
    """Confident learning: off the diagonal of the confident joint (Northcutt et al. 2021, arXiv:1911.00068, 3.1).

    A picture counts for the likeliest class ``j`` with ``p_j ≥ t_j``, the mean of ``p_j`` over the pictures labelled
    ``j`` (equation 2), and is flagged where that is not its label; in order of ``1 − p_label``. The authors'
    library, which prunes by the joint in other ways too, is behind :func:`cleanlab`.
    """
    p, labels = scores.probabilities, scores.labels
    counted = p.double() >= scores.thresholds() - 1e-9
    likeliest = p.masked_fill(~counted, -1.0).argmax(1)
    flagged = counted.any(1) & (likeliest != labels) & scores.judged
    doubt = 1 - p.gather(1, labels[:, None])[:, 0]
    return LabelIssues(flagged, doubt, torch.where(flagged, likeliest, _rival(p, labels)[0]))


def cleanlab(scores: HeldOutScores) -> LabelIssues:
    """``cleanlab.filter.find_label_issues`` on the same probabilities, with the library's own defaults."""
    try:
        from cleanlab.filter import find_label_issues
        from cleanlab.rank import get_label_quality_scores
    except ImportError as error:
        raise MissingExtraError("cleanlab", "--by cleanlab") from error
    asked = scores.judged.nonzero()[:, 0]
    p, labels = scores.probabilities[asked].double().numpy(), scores.labels[asked].numpy()
    p = p / p.sum(1, keepdims=True)
    flagged, doubt = torch.zeros(len(scores.labels), dtype=torch.bool), torch.zeros(len(scores.labels))
    if len(asked):
        flagged[asked] = torch.as_tensor(find_label_issues(labels, p, n_jobs=1))
        doubt[asked] = 1 - torch.as_tensor(get_label_quality_scores(labels, p)).float()
    return LabelIssues(flagged, doubt, _rival(scores.probabilities, scores.labels)[0])


def neighbours(scores: HeldOutScores, k: int = 10) -> LabelIssues:
    """The label against the votes of the nearest pictures; nothing is fitted (Zhu et al. 2022, arXiv:2110.06283, 4.1).

    Flagged where most of the ``k`` (10 in the paper) nearest pictures that are no copies bear one other label; in
    order of the part of the votes, each as heavy as its cosine, that the label does not have. The paper (SimiFeat-V)
    repeats this over random crops and takes soft labels; here features were looked at once.
    """
    x, labels, n_classes = scores.features, scores.labels, scores.probabilities.shape[1]
    votes = torch.zeros(len(x), n_classes)
    for part in torch.arange(len(x)).split(512):
        cosine = x[part] @ x.T
        cosine[scores.groups[part][:, None] == scores.groups[None]] = -1.0
        near = cosine.topk(min(k, len(x)), dim=1)
        votes[part] = votes[part].scatter_add(1, labels[near.indices], near.values.clamp(min=0))
    votes = votes / votes.sum(1, keepdim=True).clamp(min=1e-9)
    proposed, rival = _rival(votes, labels)
    own = votes.gather(1, labels[:, None])[:, 0]
    return LabelIssues((rival > 0.5) & scores.judged, (1 + rival - own) / 2, proposed)


RANKERS: Mapping[str, Ranker] = {f.__name__: f for f in (odds, confident, cleanlab, neighbours)}


def ranker(name: str) -> Ranker:
    if name not in RANKERS:
        raise InputError(f"--by {name!r} was given. One of {', '.join(RANKERS)} was expected. Choose one.")
    return RANKERS[name]
