"""The figures of an audit: decisions, groups of pictures, what was fitted on, explanations, drift."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from math import sqrt
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ...classifiers.base import Classifier
from ...descriptions.base import Descriptions, WordBank, random_words
from ...errors import DataError
from ...evaluation.figures import find_copies, trust_figures
from ...evidence.explain import IN_PART
from ...explanation.verdict import Missing
from ...heads.head import Projected
from ...metrics.calibration import calibration_error, reliability
from ...pictures.samples import some
from ..bootstrap import fisher, holm, paired_means, rounded
from .contract import CHECKS, RANK, Figure, Limit, Material, check, missing, share
from .drift import FAR, Drifted, DriftTest, known_of
from .shortcuts import background, one_place

__all__ = ["CHECKS", "RANK"]

N_DRAWS, N_BINS = 500, 15
FEWEST = 10
"""Pictures that a group needs to be judged."""
ALPHA = 0.05
N_NOISE = 7
NO_CARDS = "No card was made; explain one picture at least."


@check("Accuracy", "Part of the pictures that are decided rightly.", Limit("at_least", 0.8, "worst"))
def accuracy(material: Material, limit: Limit) -> Figure:
    """Part of the decisions that are right; interval by Wilson."""
    right = material.right
    return share(right, f"{int(right.sum())} of {len(right)} pictures are decided rightly.")


@check(
    "Calibration error",
    "Mean gap between how sure decisions are and how often they are right (ECE); few pictures make it larger.",
    Limit("at_most", 0.15),
    name="calibration_error",
)
def calibration_gap(material: Material, limit: Limit) -> Figure:
    """Expected calibration error (Guo et al. 2017, arXiv:1706.04599) in 15 bins; interval by resampling pictures.

    It is never 0 on few pictures, so what a perfectly calibrated model with these confidences would show stands beside
    it.
    """
    confidence = material.logits.softmax(1).max(1).values
    value, n = calibration_error(reliability(confidence, material.right, N_BINS)), len(confidence)
    generator = torch.Generator().manual_seed(material.seed)
    drawn = torch.randint(n, (N_DRAWS, n), generator=generator)
    again = _errors(confidence[drawn], material.right[drawn])
    lucky = _errors(confidence.expand(N_DRAWS, n), torch.rand(N_DRAWS, n, generator=generator) < confidence)
    low, high = torch.quantile(again, torch.tensor([0.025, 0.975])).tolist()
    said = (
        f"How sure a decision is and how often it is right differ by {value:.3f} on average; on {n} pictures a "
        f"perfectly calibrated model would show {float(lucky.mean()):.3f}."
    )
    return Figure(value, (min(low, value), max(high, value)), n, said)


def _errors(confidence: Float[Tensor, "d n"], right: Bool[Tensor, "d n"]) -> Float[Tensor, " d"]:
    """Calibration errors of many sets at once."""
    place = (confidence * N_BINS).long().clamp(0, N_BINS - 1)
    sums = torch.zeros(len(confidence), N_BINS).scatter_add_(1, place, confidence - right.float())
    return sums.abs().sum(1) / confidence.shape[1]


@check(
    "Promise kept",
    "How often the true class is among those that a decision names; the limit is also the promise, 0.5 to 0.99.",
    Limit("at_least", 0.9, "best"), low=0.5, high=0.99,
)  # fmt: skip
def coverage(material: Material, limit: Limit) -> Figure:
    """How often the true class is among those that a decision names, where the limit is what is promised."""
    found = trust_figures(material.classifier, material.pooled, material.logits, material.labels, level=limit.value)
    low, high = found["coverage_interval"]
    by = "on held-out pictures" if found["by"] == "held-out pictures" else "by its own probability"
    said = f"{limit.value:.0%} were promised {by}; a decision names {found['set_size']:.2f} classes on average."
    return Figure(found["coverage"], (low, high), len(material.labels), said)


@check(
    "Sure of what it never saw",
    "Part of the pictures of a class left out of the fit that are called sure; measured when it was fitted.",
    Limit("at_most", 0.3, "best", required=False),
)
def unseen_sure(material: Material, limit: Limit) -> Figure:
    """Of pictures of classes that were left out of the fit in turn, the share called sure (measured while fitting)."""
    trust = material.classifier.measured_trust
    found = None if trust is None else trust.unknowns
    if found is None or found.near_found is None:
        return missing("It was fitted on too few pictures, or on fewer than three classes.")
    said = f"{found.near_found:.0%} of them are noticed."
    return Figure(found.near_sure, found.near_sure_interval, found.n_near, said)


def apart(counts: tuple[int, int, int, int], level: float) -> tuple[float, float]:
    """Newcombe's interval (1998, method 10) of the rest's share less this part's: right and all of each.

    >>> [round(v, 3) for v in apart((48, 80, 56, 70), 0.95)]
    [0.052, 0.334]
    """
    from scipy.stats import binomtest

    right, n, right_rest, n_rest = counts
    a, b = right_rest / n_rest, right / n
    (low_a, high_a), (low_b, high_b) = (
        binomtest(hits, of).proportion_ci(level, "wilson") for hits, of in ((right_rest, n_rest), (right, n))
    )
    return a - b - sqrt((a - low_a) ** 2 + (high_b - b) ** 2), a - b + sqrt((high_a - a) ** 2 + (b - low_b) ** 2)


@check(
    "Groups treated alike",
    "Accuracy of all other groups less that of the worst group (--group COLUMN); intervals hold for all groups.",
    Limit("at_most", 0.05, "best", required=False), low=-1.0,
)  # fmt: skip
def group_gap(material: Material, limit: Limit) -> Figure:
    """How much worse decisions are on one group than on all others together, for the group that is worst off.

    Intervals hold for all groups together (Bonferroni); p values are Fisher's, corrected by Holm's rule.
    """
    if not material.grouped:
        return missing("No groups are known. Name the column that has them with --group.")
    names = [s.group for s in material.items]
    if empty := [s.image for s in material.items if s.group is None]:
        raise DataError(
            f"{len(empty)} of {len(names)} pictures are of no group: {some(empty, 3)}. A group for each was "
            "expected. Fill the column, or leave these out."
        )
    rows = group_rows(set(map(str, names)), list(map(str, names)), material.right)
    judged = [row for row in rows if row["gap"] is not None]
    if len(judged) < 2:
        return missing(
            f"{len(judged)} of {len(rows)} groups have {FEWEST} pictures. Two such groups, at least, are needed."
        )
    worst = max(judged, key=lambda row: limit.judged(Figure(row["gap"], tuple(row["interval"]))) or -1.0)
    said = (
        f"On {worst['group']} ({worst['n']} pictures) it is right on {worst['accuracy']:.1%}, on all others on "
        f"{worst['accuracy_rest']:.1%} (p = {worst['p']:.2g}, corrected over {len(judged)} groups)."
    )
    few = len(rows) - len(judged)
    said += f" {few} groups with fewer than {FEWEST} pictures are not judged." if few else ""
    return Figure(worst["gap"], tuple(worst["interval"]), worst["n"], said, rows)


def group_rows(groups: Iterable[str], names: list[str], right: Bool[Tensor, " n"]) -> list[dict[str, Any]]:
    """Each group's accuracy beside that of all others; groups that are too small have no gap."""
    rows, judged = [], []
    for group in sorted(groups):
        mine = torch.tensor([n == group for n in names])
        n, n_right = int(mine.sum()), int(right[mine].sum())
        rest, rest_right = len(names) - n, int(right.sum()) - n_right
        row: dict[str, Any] = {"group": group, "n": n, "accuracy": round(n_right / n, 4)}
        row |= {
            "accuracy_rest": round(rest_right / rest, 4) if rest else None,
            "gap": None,
            "interval": None,
            "p": None,
        }
        rows.append(row)
        if n >= FEWEST and rest >= FEWEST:
            judged.append((row, (n_right, n, rest_right, rest)))
    corrected = holm([fisher(*counts) for _, counts in judged])
    for (row, counts), p in zip(judged, corrected, strict=True):
        gap = counts[2] / counts[3] - counts[0] / counts[1]
        row |= {"gap": round(gap, 4), "interval": rounded(apart(counts, 1 - ALPHA / len(judged))), "p": p}
    return rows


@check(
    "Pictures it was fitted on",
    "Part of the pictures that the classifier was fitted on: the same file, or a near copy of one.",
    Limit("at_most", 0.0, required=False),
)
def copies(material: Material, limit: Limit) -> Figure:
    """Pictures that were fitted on, byte for byte or as near copies; all of them are counted."""
    found = find_copies(material.classifier, material.files, material.pooled, material.right)
    if found is None:
        return missing("It does not know what it was fitted on. Give those pictures with --against.")
    same, near, n = found["n_same_bytes"], found["n_near"], len(material.files)
    left = found["accuracy_without"]
    rest = "" if not same + near or left is None else f" On the others it is right on {left:.1%}."
    looked = "" if found["n_compared"] else " Near copies are not sought: it was saved before they could be."
    said = f"{same} of {n} pictures are the same file as one that it was fitted on, {near} are near copies."
    return Figure((same + near) / n, None, n, said + rest + looked, found["pictures"])


def _verdicts(material: Material, limit: Limit, *, evidence: str, cure: str) -> Figure:
    """Part of the cards that have the evidence whose verdict is the contract's level at least; Wilson's interval."""
    every = [getattr(card, evidence) for card in material.explained]
    levels = [one.verdict.level for one in every if not isinstance(one, Missing)]
    if not levels:
        return missing(f"No card has this evidence. {cure}" if every else NO_CARDS)
    kept = torch.tensor([RANK[level] >= RANK[limit.level] for level in levels])  # type: ignore[index]
    counts = ", ".join(f"{level} {levels.count(level)}" for level in RANK if level in levels)
    return share(kept, f"Of {len(levels)} cards: {counts}.")


_PARTLY = Limit("at_least", 0.5, required=False, level="partly")
for _evidence, _title, _told, _cure, _limit in (
    ("where", "Heat maps to be believed",
     "Part of the cards whose heat map gets this verdict at least: partly, or believable.",
     "Another way of showing where is needed.", replace(_PARTLY, required=True)),
    ("like", "Likenesses to be believed", "The same of the user's own pictures that it is shown to look like.",
     "Fit on pictures of your own.", _PARTLY),
    ("words", "Descriptions to be believed", "The same of descriptions.",
     "Give descriptions with --descriptions FILE.", _PARTLY),
):  # fmt: skip
    check(_title, _told, _limit, name=f"{_evidence}_verdict")(partial(_verdicts, evidence=_evidence, cure=_cure))


@check(
    "Words say more than noise",
    "Accuracy of the descriptions alone, less that of meaningless words in equal number (WaffleCLIP).",
    Limit("at_least", 0.01, "worst", required=False), low=-1.0,
)  # fmt: skip
def words_meaning(material: Material, limit: Limit) -> Figure:
    """Accuracy of the words alone less that of meaningless words in equal number; paired bootstrap over pictures."""
    words = material.classifier.words
    if words is None:
        return missing("It has no descriptions. Give some with --descriptions FILE.")
    texts: dict[str, list[str]] = {c: [] for c in words.classes}
    for text, owner in zip(words.texts, words.owner.tolist(), strict=True):
        texts[words.classes[owner]].append(text)
    described = Descriptions({c: tuple(t) for c, t in texts.items()})
    noise = []
    for i in range(N_NOISE):
        control = Descriptions(random_words(described, material.seed + i))
        bank = WordBank.build(material.classifier.encoder, control, with_names=False, store=material.store)
        noise.append(_by_words(replace(material.classifier, words=bank), material))
    both = torch.stack([_by_words(material.classifier, material), torch.stack(noise).mean(0)], 1)
    found = paired_means(both, seed=material.seed)
    value, interval, _ = found.difference(0, 1)
    said, by_noise = found.values.tolist()
    meaning = f"By its descriptions alone it is right on {said:.1%}, by meaningless words on {by_noise:.1%}."
    return Figure(value, interval, len(both), meaning)


def _by_words(classifier: Classifier, material: Material) -> Float[Tensor, " n"]:
    """1 for pictures that are decided rightly by the words alone."""
    assert classifier.words is not None
    joint = Projected(classifier.encoder.text)(material.pooled)
    return ((joint @ classifier.words.measured.class_weight().T).argmax(1) == material.labels).float()


@check(
    "Evidence that agrees",
    "Part of the cards whose kinds of evidence (where, like what, in words) agree, in part at least.",
    Limit("at_least", 0.5, required=False),
)
def agreement(material: Material, limit: Limit) -> Figure:
    """Part of the cards whose kinds of evidence do not disagree (:data:`~seewhy.evidence.explain.IN_PART`)."""
    scores = [c.agreement.score for c in material.explained if c.agreement.score is not None]
    if not scores:
        cure = "Too little evidence of different kinds to compare. Fit on pictures, or give descriptions."
        return missing(cure if material.explained else NO_CARDS)
    alike = torch.tensor(scores) >= IN_PART
    return share(alike, f"On {int((~alike).sum())} of {len(scores)} cards the kinds of evidence disagree.")


check(
    "Leans on the background",
    "By how much the score is higher on backgrounds of its own class than on others (seewhy study background).",
    Limit("at_most", 0.05, "best", required=False),
    low=-1.0,
)(background)
check(
    "Decisions that follow one place of the frame",
    "Part of decisions that change when the border place with most heat is exchanged, less that at other places.",
    Limit("at_most", 0.1, "best", required=False),
    low=-1.0,
)(one_place)


def _drifted(material: Material) -> Drifted | Figure:
    try:
        known = known_of(material.classifier)
    except DataError as error:
        return missing(str(error))
    if min(len(known.names), len(material.items)) < FEWEST:
        return missing("Fewer than ten pictures are on either side. Give more.")
    return DriftTest(seed=material.seed).compare(known, material.pooled)


@check(
    "From the same source as training",
    "How often pictures of one source differ as much as these from those fitted on (a p value): at least so often.",
    Limit("at_least", 0.01, required=False),
)
def drift_p(material: Material, limit: Limit) -> Figure:
    """The p value of :class:`~seewhy.studies.auditing.drift.DriftTest`."""
    found = _drifted(material)
    if isinstance(found, Figure):
        return found
    said = f"Pictures of one source differ as much (energy distance {found.energy:.4f}) in {found.p:.1%} of draws."
    return Figure(found.p, None, len(material.items), said)


@check(
    "Pictures unlike all of training",
    "Part of the pictures that are farther from those fitted on than 95 % of these are from one another.",
    Limit("at_most", 0.25, "best", required=False),
)
def far_pictures(material: Material, limit: Limit) -> Figure:
    """Part of the pictures farther from the training pictures than 95 % of these are from one another."""
    found = _drifted(material)
    if isinstance(found, Figure):
        return found
    first = material.items[int(found.near.argmin())].image
    n = f"{int(found.far.sum())} of {len(found.far)}"
    return share(found.far, f"{n} pictures are that far, where {FAR:.0%} would be; the farthest is {first}.")


@check("Pictures that cannot be read", "Part of the pictures that cannot be read.", Limit("at_most", 0.0))
def unreadable(material: Material, limit: Limit) -> Figure:
    """Pictures that cannot be read, counted."""
    n, failed = len(material.items) + material.n_unreadable, material.n_unreadable
    return Figure(failed / n, None, n, f"{failed} of {n} pictures cannot be read.")
