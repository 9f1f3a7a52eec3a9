"""The metrics of an audit."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import partial
from math import sqrt
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from ...classifiers.base import Classifier
from ...classifiers.words import texts_of
from ...descriptions.base import Descriptions, random_words
from ...errors import DataError
from ...evaluation.figures import N_NOISE, trust_figures, with_texts
from ...evidence.explain import IN_PART
from ...explanation.base import Explanation, Where
from ...explanation.verdict import Missing
from ...heads.head import Projected
from ...metrics.calibration import calibration_error, reliability
from ...pictures.samples import gathered, some
from ..background import BackgroundStudy
from ..bootstrap import N_BINS, fisher, holm, paired_means, rounded
from .contract import RANK, Figure, Limit, Material, check, missing, share
from .drift import FAR

N_DRAWS = 500
FEWEST = 10
"""Smallest number of pictures per group, and of cards for a place in the frame."""
ALPHA = 0.05
NO_CARDS = "No card was made. Explain at least one picture."
GRID, WINDOW = 8, 2
"""Grid cells per side of the frame, and per side of a place."""
N_ELSEWHERE = 3
"""Number of other places per picture that are swapped as a control."""
_ROWS, _MIDDLE = range(GRID - WINDOW + 1), range(GRID // 4, GRID - GRID // 4 - WINDOW + 1)
BORDER = [(r, c) for r in _ROWS for c in _ROWS if r not in _MIDDLE or c not in _MIDDLE]
"""Places outside the middle half of the frame."""
Place = tuple[int, int]


@check(
    "Accuracy",
    "Share of the pictures that are predicted correctly.",
    "Correct wrong labels (seewhy check) and add training pictures of the classes that it confuses.",
    Limit("at_least", 0.8, "worst"),
)
def accuracy(material: Material, limit: Limit) -> Figure:
    right = material.right
    return share(right, f"{int(right.sum())} of {len(right)} pictures are predicted correctly.{material.caveat}")


@check(
    "Calibration error",
    "Mean gap between the probability of predictions and the share that is correct (ECE).",
    "Fit again with more pictures that resemble these.",
    Limit("at_most", 0.15), name="calibration_error",
)  # fmt: skip
def calibration_gap(material: Material, limit: Limit) -> Figure:
    """Measure the calibration error, with a bootstrap interval.

    The text also gives the error that a perfectly calibrated model would have on as many pictures; it is above 0.
    """
    confidence = material.logits.softmax(1).max(1).values
    value, n = calibration_error(reliability(confidence, material.right, N_BINS)), len(confidence)
    generator = torch.Generator().manual_seed(material.seed)
    drawn = torch.randint(n, (N_DRAWS, n), generator=generator)
    again = _errors(confidence[drawn], material.right[drawn])
    lucky = _errors(confidence.expand(N_DRAWS, n), torch.rand(N_DRAWS, n, generator=generator) < confidence)
    low, high = torch.quantile(again, torch.tensor([0.025, 0.975])).tolist()
    sentence = (
        f"The calibration error is {value:.3f}. On {n} pictures, a perfectly calibrated model would have "
        f"{float(lucky.mean()):.3f}."
    )
    return Figure(value, (min(low, value), max(high, value)), n, sentence)


def _errors(confidence: Float[Tensor, "d n"], right: Bool[Tensor, "d n"]) -> Float[Tensor, " d"]:
    place = (confidence * N_BINS).long().clamp(0, N_BINS - 1)
    sums = torch.zeros(len(confidence), N_BINS).scatter_add_(1, place, confidence - right.float())
    return sums.abs().sum(1) / confidence.shape[1]


@check(
    "Promise kept",
    "Coverage: share of the pictures whose true class is named. The limit is also the target, 0.5 to 0.99.",
    "Fit again with pictures that resemble these.",
    Limit("at_least", 0.9, "best"), low=0.5, high=0.99,
)  # fmt: skip
def coverage(material: Material, limit: Limit) -> Figure:
    seen = material.seen
    reliability = trust_figures(material.classifier, seen.pooled, material.logits, seen.labels, level=limit.value)
    low, high = reliability["coverage_interval"]
    by = "from held-out pictures" if reliability["by"] == "held-out pictures" else "from its own probabilities"
    sentence = (
        f"The named classes include the true class on {100 * reliability['coverage']:.1f} % of the pictures; the share "
        f"promised "
        f"{by} is {100 * limit.value:.0f} %. A prediction names {reliability['set_size']:.2f} classes on average."
    )
    return Figure(reliability["coverage"], (low, high), len(material.seen), sentence)


@check(
    "Sure on unknown classes",
    "Share of pictures of unknown classes that are called sure, measured during the fit.",
    "Check predictions on new kinds of pictures by hand.",
    Limit("at_most", 0.3, "best", required=False),
)
def unseen_sure(material: Material, limit: Limit) -> Figure:
    trust = material.classifier.measured_trust
    unknowns = None if trust is None else trust.unknowns
    if unknowns is None or unknowns.near_found is None:
        return missing("The classifier was fitted on too few pictures, or on fewer than three classes.")
    sure, unknown = 100 * (unknowns.near_sure or 0), 100 * unknowns.near_found
    sentence = f"Of pictures of an unknown class, {sure:.0f} % are called sure and {unknown:.0f} % unknown."
    return Figure(unknowns.near_sure, unknowns.near_sure_interval, unknowns.n_near, sentence)


def apart(counts: tuple[int, int, int, int], level: float) -> tuple[float, float]:
    """Return Newcombe's interval (1998, method 10) of the difference of two accuracies."""
    from scipy.stats import binomtest

    right, n, right_rest, n_rest = counts
    a, b = right_rest / n_rest, right / n
    (low_a, high_a), (low_b, high_b) = (
        binomtest(hits, of).proportion_ci(level, "wilson") for hits, of in ((right_rest, n_rest), (right, n))
    )
    return a - b - sqrt((a - low_a) ** 2 + (high_b - b) ** 2), a - b + sqrt((high_a - a) ** 2 + (b - low_b) ** 2)


@check(
    "Groups treated alike",
    "Accuracy on all other groups minus accuracy on the worst group (--group COLUMN).",
    "Add training pictures of this group.",
    Limit("at_most", 0.05, "best", required=False), low=-1.0,
)  # fmt: skip
def group_gap(material: Material, limit: Limit) -> Figure:
    """Measure the largest gap between a group's accuracy and the accuracy on all other groups.

    The intervals are corrected for the number of groups (Bonferroni), and Fisher's p values for multiple tests (Holm).
    """
    if not material.grouped:
        return missing("No groups are known. Name their column with --group.")
    names = [s.group for s in material.seen.items]
    if empty := [s.image for s in material.seen.items if s.group is None]:
        raise DataError(
            f"Every picture must have a group, and {len(empty)} of {len(names)} have none: {some(empty, 3)}. Fill the "
            "column, or leave these pictures out."
        )
    rows = group_rows(list(map(str, names)), material.right)
    judged = [row for row in rows if row["gap"] is not None]
    if len(judged) < 2:
        return missing(
            f"{len(judged)} of {len(rows)} groups have {FEWEST} pictures or more. At least two such groups are needed."
        )
    worst = max(judged, key=lambda row: limit.judged(Figure(row["gap"], tuple(row["interval"]))) or -1.0)
    few = len(rows) - len(judged)
    said = (
        f"On {worst['group']} ({worst['n']} pictures) the accuracy is {100 * worst['accuracy']:.1f} %, on all other "
        f"pictures {100 * worst['accuracy_rest']:.1f} % (p = {worst['p']:.2g}, corrected over {len(judged)} groups)."
    ) + (f" {few} groups with fewer than {FEWEST} pictures were not tested." if few else "")
    return Figure(worst["gap"], tuple(worst["interval"]), worst["n"], said + material.caveat, rows)


def group_rows(names: list[str], right: Bool[Tensor, " n"]) -> list[dict[str, Any]]:
    """Return the accuracy of each group and of all other groups together; small groups get no ``gap``."""
    rows, judged = [], []
    for group in sorted(set(names)):
        mine = torch.tensor([n == group for n in names])
        n, n_right = int(mine.sum()), int(right[mine].sum())
        rest, rest_right = len(names) - n, int(right.sum()) - n_right
        elsewhere = round(rest_right / rest, 4) if rest else None
        row: dict[str, Any] = {"group": group, "n": n, "accuracy": round(n_right / n, 4), "accuracy_rest": elsewhere}
        row |= dict.fromkeys(("gap", "interval", "p"))
        rows.append(row)
        if n >= FEWEST and rest >= FEWEST:
            judged.append((row, (n_right, n, rest_right, rest)))
    corrected = holm([fisher(*counts) for _, counts in judged])
    for (row, counts), p in zip(judged, corrected, strict=True):
        gap = counts[2] / counts[3] - counts[0] / counts[1]
        row |= {"gap": round(gap, 4), "interval": rounded(apart(counts, 1 - ALPHA / len(judged))), "p": p}
    return rows


@check(
    "Training pictures among these",
    "Share of the pictures that are training pictures or near copies of them.",
    "Remove these pictures from the test.",
    Limit("at_most", 0.0, required=False),
)
def copies(material: Material, limit: Limit) -> Figure:
    counts = material.copies
    if counts is None:
        return missing("The classifier does not know its training pictures. Give them with --against.")
    same, near, n = counts["n_same_bytes"], counts["n_near"], len(material.seen)
    left = counts["accuracy_without"]
    rest = ""
    if same + near and left is not None:
        rest = f" Of the other pictures, {100 * left:.1f} % are predicted correctly."
    caveat = "" if counts["n_compared"] else " The classifier has no thumbnails to find near copies by."
    sentence = (
        f"{same} of {n} pictures are training pictures (same file), and {near} are near copies of training pictures."
    )
    return Figure((same + near) / n, None, n, sentence + rest + caveat, counts["pictures"])


def _verdicts(material: Material, limit: Limit, *, evidence: str, needed: str) -> Figure:
    """Return the share of cards whose verdict on this evidence reaches the contract's level."""
    every = [getattr(card, evidence) for card in material.explained]
    levels = [one.verdict.level for one in every if not isinstance(one, Missing)]
    if not levels:
        return missing(f"No card has this evidence. {needed}" if every else NO_CARDS)
    kept = torch.tensor([RANK[level] >= RANK[limit.level] for level in levels])  # type: ignore[index]
    counts = ", ".join(f"{level} {levels.count(level)}" for level in RANK if level in levels)
    return share(kept, f"Verdicts on {len(levels)} cards: {counts}.")


_PARTLY = Limit("at_least", 0.5, required=False, level="partly")
for _evidence, _of, _told, _needed, _limit in (
    ("where", "heat maps", "Share of the cards whose heat map has at least the verdict that the contract requires.",
     "Use another kind of heat map.", replace(_PARTLY, required=True)),
    ("like", "similar pictures", "Share of the cards whose similar pictures have at least the verdict that the "
        "contract requires.",
     "Fit on pictures of your own.", _PARTLY),
    ("words", "descriptions", "Share of the cards whose descriptions have at least the verdict that the contract "
        "requires.",
     "Give descriptions with --descriptions FILE.", _PARTLY),
):  # fmt: skip
    check(f"Believable {_of}", _told, f"Do not rely on the {_of} of this model.", _limit, name=f"{_evidence}_verdict")(
        partial(_verdicts, evidence=_evidence, needed=_needed)
    )


@check(
    "Descriptions better than noise",
    "Accuracy of the descriptions alone minus accuracy of as many random words (WaffleCLIP).",
    "Rewrite the descriptions: these say little about the pictures.",
    Limit("at_least", 0.01, "worst", required=False), low=-1.0,
)  # fmt: skip
def words_meaning(material: Material, limit: Limit) -> Figure:
    classifier = material.classifier
    if classifier.words is None:
        return missing("The classifier has no descriptions. Give some with --descriptions FILE.")
    described = Descriptions(texts_of(classifier.words))
    joint = Projected(classifier.encoder.text)(material.seen.pooled)

    def right(one: Classifier) -> Float[Tensor, " n"]:
        assert one.words is not None
        return ((joint @ one.words.measured.class_weight().T).argmax(1) == material.seen.labels).float()

    noise = [random_words(described, material.seed + i) for i in range(N_NOISE)]
    by_noise = torch.stack([right(with_texts(classifier, texts, material.store)) for texts in noise]).mean(0)
    both = torch.stack([right(classifier), by_noise], 1)
    means = paired_means(both, seed=material.seed)
    value, interval, _ = means.difference(0, 1)
    by_words, by_random = means.values.tolist()
    meaning = f"The descriptions alone predict {100 * by_words:.1f} % of the pictures correctly"
    return Figure(value, interval, len(both), f"{meaning}, and random words {100 * by_random:.1f} %.")


@check(
    "Evidence that agrees",
    "Share of the cards whose heat map, similar pictures and descriptions agree, at least in part.",
    "Look at the cards on which they disagree (seewhy explain).",
    Limit("at_least", 0.5, required=False),
)
def agreement(material: Material, limit: Limit) -> Figure:
    """Measure the share of cards whose kinds of evidence agree at least in part."""
    scores = [c.agreement.score for c in material.explained if c.agreement.score is not None]
    if not scores:
        few = "There is only one kind of evidence to compare. Fit on pictures, or give descriptions."
        return missing(few if material.explained else NO_CARDS)
    alike = torch.tensor(scores) >= IN_PART
    return share(alike, f"On {int((~alike).sum())} of {len(scores)} cards the kinds of evidence disagree.")


@check(
    "Relies on the background",
    "Score on backgrounds of the same class minus score on other backgrounds (seewhy study background).",
    "Add training pictures with other backgrounds.",
    Limit("at_most", 0.05, "best", required=False), low=-1.0,
)  # fmt: skip
def background(material: Material, limit: Limit) -> Figure:
    if material.masks is None:
        return missing("The positions of the objects are unknown. Give --masks or --object.")
    study, samples = BackgroundStudy(n_draws=200, seed=material.seed), gathered(list(material.seen.items))
    try:
        found = study.run(material.classifier, samples, material.masks, progress=material.progress)
    except DataError as error:
        return missing(str(error))
    masks, difference = found.data["masks"], found.data["all"]["difference"]
    if not masks["by_hand"] and not masks["check"]["hit"]:
        return missing(
            f"The masks ({masks['source']}) may miss the object: filling them lowers the score no more than filling "
            "other places. Give hand-drawn masks."
        )
    low, high = difference["interval"]
    return Figure(difference["value"], (low, high), found.data["n"], found.sentence)


@check(
    "Depends on one place of the frame",
    "SeeWhy replaces the hottest place at the border with the same place of a picture of another class. Share of "
    "predictions that change, minus the share that change when other places are replaced.",
    "Look at this place for a watermark, a date or a border, and crop it.",
    Limit("at_most", 0.1, "best", required=False), low=-1.0,
)  # fmt: skip
def one_place(material: Material, limit: Limit) -> Figure:
    """Measure how many predictions depend on one place in the frame, such as a watermark, a date or a border.

    On one half of the cards, the place at the border with the most heat is found, and on the other half it is tested;
    then the halves are exchanged. In the test, the pixels of this place, and for comparison those of other places, are
    replaced by pixels of a picture with another prediction. This takes 4 forward passes per card.
    """
    heated = [(c, c.where.heat) for c in material.explained if isinstance(c.where, Where) and not c.where.is_zero]
    cards = [card for card, _ in heated]
    if len(cards) < FEWEST:
        return missing(f"{len(cards)} cards have a heat map. At least {FEWEST} are needed. Explain more pictures.")
    if len({c.prediction.label for c in cards}) < 2:
        return missing(
            "All cards predict the same class, but this test needs two classes. Explain pictures of another class too."
        )
    mass = torch.stack([_mass(torch.from_numpy(heat)) for _, heat in heated])
    halves = [list(range(0, len(cards), 2)), list(range(1, len(cards), 2))]
    means = [mass[other].mean(0) for other in reversed(halves)]
    places = [max(BORDER, key=lambda place, mean=mean: float(mean[place])) for mean in means]  # type: ignore[misc]
    changed = torch.zeros(len(cards), 2)
    for half, place in zip(halves, places, strict=True):
        for i in half:
            changed[i] = torch.tensor(_changed(material.classifier, cards, i, place, material.seed + i))
    effect = paired_means(changed, seed=material.seed)
    value, interval, _ = effect.difference(0, 1)
    here, elsewhere = effect.values.tolist()
    boxes = [_box(place) for place in places]
    sentence = (
        f"Pasting {_in_words(boxes)} of another picture changes {100 * here:.1f} % of predictions; pasting other "
        f"places changes {100 * elsewhere:.1f} %."
    )
    held = [mass[half][:, row, column].mean() for half, (row, column) in zip(halves, places, strict=True)]
    return Figure(value, interval, len(cards), sentence, {
        "boxes": [list(b) for b in boxes], "share": round(float(torch.stack(held).mean()), 4),
        "changed": round(here, 4), "changed_elsewhere": round(elsewhere, 4),
    })  # fmt: skip


def _mass(heat: Float[Tensor, "h w"]) -> Float[Tensor, "r c"]:
    full = interpolate(heat.clamp(min=0)[None, None].float(), size=(GRID * 4, GRID * 4), mode="nearest-exact")
    cells = avg_pool2d(full, 4)
    return avg_pool2d(cells / cells.sum().clamp(min=1e-12), WINDOW, 1)[0, 0] * WINDOW**2


def _changed(classifier: Classifier, cards: list[Explanation], i: int, place: Place, seed: int) -> tuple[float, float]:
    """Return whether the prediction changes when this place is replaced, and how often when other places are."""
    rng = random.Random(seed)
    view = cards[i].view
    other = rng.choice([c for c in cards if c.prediction.label != cards[i].prediction.label]).view
    far = [p for p in BORDER if max(abs(p[0] - place[0]), abs(p[1] - place[1])) >= WINDOW]
    views: list[np.ndarray] = []
    for left, top, right, bottom in map(_box, (place, *rng.sample(far, N_ELSEWHERE))):
        height, width = view.shape[:2]
        rows = slice(round(top * height), round(bottom * height))
        columns = slice(round(left * width), round(right * width))
        views.append(view.copy())
        views[-1][rows, columns] = other[rows, columns]
    with torch.no_grad():
        pooled = classifier.encoder.pooled(classifier.encoder.pixels(views))
        decided = classifier.head.probabilities(pooled).argmax(1)
    changed = [float(classifier.classes[k] != cards[i].prediction.label) for k in decided.tolist()]
    return changed[0], sum(changed[1:]) / N_ELSEWHERE


def _box(place: Place) -> tuple[float, float, float, float]:
    row, column = place
    return (column / GRID, row / GRID, (column + WINDOW) / GRID, (row + WINDOW) / GRID)


def _in_words(boxes: list[Any]) -> str:
    names = []
    for left, top, right, bottom in boxes:
        across, down = (left + right) / 2, (top + bottom) / 2
        side = "left" if across < 0.4 else "right" if across > 0.6 else "middle"
        names.append(f"the {'upper' if down < 0.4 else 'lower' if down > 0.6 else 'middle'} {side}")
    return names[0] if names[0] == names[1] else f"{names[0]} (in one half of the cards, {names[1]} in the other)"


@check(
    "From the same source as training",
    "p value of a test whether these pictures come from the same source as the training pictures.",
    "Look at the most unusual pictures: seewhy evaluate DATA -m MODEL --against fit.",
    Limit("at_least", 0.01, required=False),
)
def drift_p(material: Material, limit: Limit) -> Figure:
    drift = material.drift
    if isinstance(drift, Figure):
        return drift
    said = f"The p value is {drift.p:.3g} (energy distance {drift.energy:.4f})."
    return Figure(drift.p, None, len(material.seen), said)


@check(
    "Pictures unlike training",
    "Share of the pictures that are less similar to the training pictures than 95 % of training pictures are.",
    "Look at the most unusual pictures: seewhy evaluate DATA -m MODEL --against fit.",
    Limit("at_most", 0.25, "best", required=False),
)
def far_pictures(material: Material, limit: Limit) -> Figure:
    found = material.drift
    if isinstance(found, Figure):
        return found
    first = material.seen.items[int(found.near.argmin())].image
    n = f"{int(found.far.sum())} of {len(found.far)}"
    return share(
        found.far,
        f"{n} pictures are unlike the training pictures; {100 * FAR:.0f} % would be expected. The most unusual is "
        f"{first}.",
    )


@check(
    "Unreadable pictures",
    "Share of the pictures that cannot be read.",
    "Replace these files, or leave them out.",
    Limit("at_most", 0.0),
)
def unreadable(material: Material, limit: Limit) -> Figure:
    n, failed = len(material.seen) + material.n_unreadable, material.n_unreadable
    return Figure(failed / n, None, n, f"{failed} of {n} pictures cannot be read.")
