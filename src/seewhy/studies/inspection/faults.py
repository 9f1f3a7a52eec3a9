"""Rules that find wrong labels, duplicates, outliers, and blank, dark, overexposed, blurred or oddly sized pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from ...classifiers.encoded_set import EncodedSet
from ...classifiers.known_pictures import compact
from ...classifiers.linear.recipe import Linear
from ...clusters import connected, grouped, links, numbered
from ...encoders.base import Encoder
from ...encoders.stream import Encoded
from ...errors import InputError, needs
from ...heads.normalise import Normalise
from ...pictures.miniatures import Likeness, same_pictures, stacked
from ...pictures.samples import Sample
from ...printable import percent
from ...progress import Progress
from ...trust.groups import Grouping, group_folds
from ...trust.measure import trust_features
from ...trust.strangeness import Gaussian

FAR = 4.5
"""Outlier score above which a picture is flagged as unlike every class. Flags 3 of 972 groceries, 20 of 20 ImageNet
photographs and 5 of 20 product photographs on white."""
LEAST = 30
"""Smallest number of pictures for which outlier scores are computed."""
BLANK = 0.015
"""Standard deviation of brightness at or below which a picture is blank; lower for dark pictures."""
DARK = 0.3
"""A picture is dark if the 95th percentile of its brightness is below this. The darkest of 972 photographs of groceries
has 0.46."""
BRIGHT = 0.95
"""A picture is overexposed if the 5th percentile of its brightness is above this. Product photographs on white have at
most 0.91."""
BLURRED = 0.65
"""Blur metric above which a picture is blurred. Photographs of groceries have at most 0.63; 98 of 100 are flagged after
a Gaussian blur of 2 pixels at 224."""
LEAST_SIDE = 96
"""Shorter side in pixels below which blur is not judged: enlarging alone takes the metric of photographs of groceries
to 0.62 from 96 pixels, to 0.72 from 64 and to 0.86 from 32."""
ODD = 4.0
"""Factor between a picture's area or aspect ratio and the median, from which its size or shape is flagged."""


@dataclass(frozen=True)
class Copy:
    first: int
    second: int
    agreement: float
    same_bytes: bool


def find_copies(
    pooled: Float[Tensor, "n d"],
    miniatures: Sequence[UInt8[Tensor, " w"]],
    digests: Sequence[str],
    n_own: int | None = None,
    splits: Sequence[str | None] = (),
    progress: Progress | None = None,
) -> tuple[Copy, ...]:
    """Return the pairs of duplicate pictures, in the order of the data."""
    n = len(digests)
    n_own = n if n_own is None else n_own
    files = list(grouped((digest, i) for i, digest in enumerate(digests)).values())  # files of the data come first
    of = [file[0] for file in files]
    likeness = Likeness(stacked([miniatures[i] for i in of]), compact(pooled[of]).float() if n else None)
    found = [
        Copy(min(i, j), max(i, j), round(value, 4), False)
        for a, b, value in zip(*(x.tolist() for x in same_pictures(likeness, None, progress)), strict=True)
        for i in files[a]
        for j in files[b]
        if min(i, j) < n_own
    ]
    return tuple(sorted([*same_files(digests, n_own, splits or [None] * n), *found], key=lambda c: (c.first, c.second)))


def same_files(digests: Sequence[str], n_own: int, splits: Sequence[str | None]) -> list[Copy]:
    """Return the pairs of pictures whose files are equal."""
    found = []
    first: dict[str, dict[str | None, int]] = {}
    for j, (digest, split) in enumerate(zip(digests, splits, strict=True)):
        there = first.setdefault(digest, {})
        known = [there[split]] if j < n_own and split in there else list(there.values())
        found += [Copy(i, j, 1.0, True) for i in known]
        if j < n_own:
            there.setdefault(split, j)
    return found


def joined(n: int, copies: Sequence[Copy], given: Sequence[str | None]) -> Int[Tensor, " n"]:
    """Return a group number for each picture; duplicates, and pictures with the same given group, share a number."""
    named = links(numbered([i if g is None else g for i, g in enumerate(given)]))
    return connected(n, named, torch.tensor([(c.first, c.second) for c in copies if c.second < n]).long().view(-1, 2))


def strangeness(
    pooled: Float[Tensor, "n d"], labels: Int[Tensor, " n"], folds: Int[Tensor, " n"], n_classes: int
) -> Float[Tensor, " n"]:
    """Return an outlier score per picture, in robust standard deviations above the median.

    The score is the relative Mahalanobis distance (Ren et al. 2021, arXiv:2106.09022): the distance to the nearest
    class minus the distance to all pictures. The Gaussians are fitted to the pictures of other folds. The score is 0
    for fewer than 30 pictures or a single class.
    """
    if len(labels) < LEAST or len(labels.unique()) < 2:
        return torch.zeros(len(labels))
    features, found = trust_features(pooled), torch.zeros(len(labels))
    for fold in folds.unique().tolist():
        mine = folds == fold
        found[mine] = Gaussian.fit(features[~mine], labels[~mine], n_classes).relative(features[mine])
    centre = found.median()
    spread = 1.4826 * (found - centre).abs().median()
    return (found - centre) / spread.clamp(min=1e-9)


@dataclass(frozen=True)
class PixelFacts:
    """Brightness and sharpness of one picture after preprocessing."""

    size: tuple[int, int]
    low: float
    high: float
    spread: float
    blur: float


def pixel_facts(pixels: UInt8[np.ndarray, "h w 3"], size: tuple[int, int]) -> PixelFacts:
    grey = torch.from_numpy(pixels @ np.array([0.299, 0.587, 0.114], np.float32))[None, None].float() / 255
    low, high = np.quantile(grey.numpy(), (0.05, 0.95))
    return PixelFacts(size, float(low), float(high), round(float(grey.std(correction=0)), 6), _blur(grey))


def _blur(grey: torch.Tensor) -> float:
    """Return the blur metric of Crété et al. 2007, from 0 (sharp) to 1; the worse of the two directions counts."""
    worst = 0.0
    for one in (grey, grey.transpose(2, 3).contiguous()):
        if min(one.shape[2:]) <= 10:
            return 0.0
        # Neighbouring means of nine pixels differ by a ninth of the difference of their ends.
        again = (one[..., 9:] - one[..., :-9]).abs() / 9
        before = one[..., 4:-4].diff(dim=3).abs()
        lost = (before - again).clamp(min=0).sum()
        total = float(before.sum())
        worst = max(worst, 0.0 if total < 1e-6 else 1 - float(lost) / total)
    return worst


def pixel_faults(facts: Sequence[PixelFacts]) -> Iterator[tuple[int, str, float, str]]:
    """Yield the faults: position of the picture, kind, severity from 0 to 1, and a sentence.

    A picture that is reported as blank is not also reported as dark, bright or blurred.
    """
    areas = np.array([f.size[0] * f.size[1] for f in facts], float)
    shapes = np.array([f.size[0] / f.size[1] for f in facts], float)
    area, shape = (float(np.median(values)) if len(facts) else 1.0 for values in (areas, shapes))
    for i, one in enumerate(facts):
        yield from ((i, *fault) for fault in _faults(one))
        yield from ((i, *fault) for fault in _odd(one.size, area, shape))


def _faults(f: PixelFacts) -> Iterator[tuple[str, float, str]]:
    least = BLANK * min(1.0, f.high / DARK)
    if f.spread <= least:
        why = f"Its brightness is almost the same everywhere: standard deviation {f.spread:.3f}, limit {least:.3f}."
        yield "blank", 1 - f.spread / least if least else 1.0, why
        return
    if f.high < DARK:
        why = f"95 % of its pixels are darker than {f.high:.2f} of full brightness; the limit is {DARK:.2f}."
        yield "dark", 1 - f.high / DARK, why
    if f.low > BRIGHT:
        why = f"95 % of its pixels are brighter than {f.low:.2f} of full brightness; the limit is {BRIGHT:.2f}."
        yield "overexposed", (f.low - BRIGHT) / (1 - BRIGHT), why
    if f.blur > BLURRED and min(f.size) >= LEAST_SIDE:
        kept, most = percent(f.blur, " "), percent(BLURRED, " ")
        why = f"After one more blur it keeps {kept} of its detail; a sharp picture keeps less than {most}."
        yield "blurred", (f.blur - BLURRED) / (1 - BLURRED), why


def _odd(size: tuple[int, int], area: float, shape: float) -> Iterator[tuple[str, float, str]]:
    width, height = size
    times, drawn = width * height / area, width / height / shape
    larger, longer = max(times, 1 / times), max(drawn, 1 / drawn)
    if larger >= ODD:
        side = "larger" if times > 1 else "smaller"
        why = f"At {width} × {height} pixels, its area is {larger:.1f} times {side} than the median; limit {ODD:g}."
        yield "size", 1 - ODD / larger / 2, why
    if longer >= ODD:
        side = "wider" if drawn > 1 else "taller"
        why = f"At {width} × {height} pixels, its shape is {longer:.1f} times {side} than the median; limit {ODD:g}."
        yield "shape", 1 - ODD / longer / 2, why


N_FOLDS = 5


@dataclass(frozen=True)
class HeldOutScores:
    """Cross-validated probabilities: each picture is scored by a model trained without it."""

    probabilities: Float[Tensor, "n k"]
    labels: Int[Tensor, " n"]
    features: Float[Tensor, "n d"]
    groups: Int[Tensor, " n"]
    judged: Bool[Tensor, " n"]

    @property
    def accuracy(self) -> float:
        """Accuracy on the scored pictures."""
        said = self.probabilities.argmax(1) == self.labels
        return float(said[self.judged].double().mean())

    def thresholds(self) -> Float[Tensor, " k"]:
        """Return, for each class, the mean probability over pictures with this label; 2 without scored pictures."""
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
    """Return cross-validated probabilities of linear classifiers on the features."""
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
    """Result of a rule for wrong labels, with one entry per picture."""

    flagged: Bool[Tensor, " n"]
    doubt: Float[Tensor, " n"]
    proposed: Int[Tensor, " n"]


Ranker = Callable[[HeldOutScores], LabelIssues]
"""A rule that flags doubtful labels."""


def _rival(p: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> tuple[Tensor, Tensor]:
    """Return the most probable other class, and its probability."""
    best = p.scatter(1, labels[:, None], -1.0).max(1)
    return best.indices, best.values


def odds(scores: HeldOutScores) -> LabelIssues:
    """Flag labels that are not more probable than a wrong label would be; this rule is SeeWhy's own.

    Labels with a ``doubt`` of at least 0.5 are flagged::

        odds = p(label) / p(most probable other class)
        u = mean of p(label) / p(most probable class) over pictures with other labels
        doubt = u / (u + odds)

    ``p`` are the cross-validated class probabilities. The rule has no settings. SeeWhy chose this rule on training
    pictures; docs/measured.md has results on other pictures.
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
    """Flag labels by confident learning (Northcutt et al. 2021, arXiv:1911.00068, section 3.1).

    Let ``p_j`` be the probability of class ``j`` for a picture, and the threshold ``t_j`` the mean of ``p_j`` over
    pictures labelled ``j`` (equation 2). A picture is flagged if its label differs from the most probable class with
    ``p_j ≥ t_j``. Flagged pictures are ordered by ``1 − p_label``.
    """
    p, labels = scores.probabilities, scores.labels
    counted = p.double() >= scores.thresholds() - 1e-9
    likeliest = p.masked_fill(~counted, -1.0).argmax(1)
    flagged = counted.any(1) & (likeliest != labels) & scores.judged
    doubt = 1 - p.gather(1, labels[:, None])[:, 0]
    return LabelIssues(flagged, doubt, torch.where(flagged, likeliest, _rival(p, labels)[0]))


def cleanlab(scores: HeldOutScores) -> LabelIssues:
    """Flag labels by ``cleanlab.filter.find_label_issues`` with its defaults."""
    with needs("cleanlab", "--by cleanlab"):
        from cleanlab.filter import find_label_issues
        from cleanlab.rank import get_label_quality_scores
    asked = scores.judged.nonzero()[:, 0]
    p, labels = scores.probabilities[asked].double().numpy(), scores.labels[asked].numpy()
    p = p / p.sum(1, keepdims=True)
    flagged, doubt = torch.zeros(len(scores.labels), dtype=torch.bool), torch.zeros(len(scores.labels))
    if len(asked):
        flagged[asked] = torch.as_tensor(find_label_issues(labels, p, n_jobs=1))
        doubt[asked] = 1 - torch.as_tensor(get_label_quality_scores(labels, p)).float()
    return LabelIssues(flagged, doubt, _rival(scores.probabilities, scores.labels)[0])


def neighbours(scores: HeldOutScores, k: int = 10) -> LabelIssues:
    """Flag labels that differ from most of the nearest pictures (Zhu et al. 2022, arXiv:2110.06283, section 4.1).

    A label is flagged if more than half of the votes of the ``k`` nearest pictures are for the same other label. Votes
    are weighted by cosine similarity, and duplicates do not vote. Pictures are ordered by the votes against their
    label. Where we differ: the paper (SimiFeat-V) uses random crops and soft labels; SeeWhy encodes each picture once.
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
        raise InputError(f"--by must be one of {', '.join(RANKERS)}, got {name!r}.")
    return RANKERS[name]
