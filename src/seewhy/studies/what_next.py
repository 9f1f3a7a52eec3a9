"""Find which new pictures would help a classifier most: pictures of all classes, or of the least accurate classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..classifiers.encoded_set import EncodedSet, HoldOut, hold_out
from ..encoders.base import Encoder
from ..encoders.stream import Encoded
from ..pictures.samples import Sample
from ..progress import Progress
from ..report.blocks import pair, points
from .inspection.faults import HeldOutScores, held_out_scores
from .material import LEAST_PER_CLASS, Material
from .scaling import LEAST_RATIO, ScalingStudy
from .study import Row

N_LISTED = 10
"""Maximum number of listed classes."""
FEW = 0.5
"""Share of the median number of pictures per class below which a class has few pictures."""
MOST_WRONG = 24
"""Maximum number of listed mistakes per class."""


def what_next(
    encoder: Encoder, pooled: Float[Tensor, "n d"], labels: Sequence[str], keys: Sequence[str],
    progress: Progress | None = None, scaling: ScalingStudy | None = None,
) -> Row:  # fmt: skip
    """Test the linear classifier on held-out pictures of each class, and predict the gain from more pictures.

    Stored features are used, and no pictures are read. Similar-looking pictures are held out together. Copies of a
    picture have equal ``keys``. ``scaling`` makes the learning curve.
    """
    scaling = scaling or ScalingStudy()
    progress = progress or Progress()
    items = [Sample(str(i), label) for i, label in enumerate(labels)]
    encoded = [Encoded(str(i), key, pooled[i : i + 1]) for i, key in enumerate(keys)]
    for _ in progress.track([0], "Finding pictures that look alike", 1):
        pictures = hold_out(items, encoded, HoldOut(scaling.held_out), progress)
    groups = pictures.groups.unique(return_inverse=True)[1]
    for _ in progress.track([0], "Testing on held-out pictures", 1):
        scores = held_out_scores(encoder, items, encoded, pictures.classes, groups)
    return {
        "n": len(labels), "n_classes": len(pictures.classes), "n_judged": int(scores.judged.sum()),
        "accuracy": round(scores.accuracy, 4) if bool(scores.judged.any()) else None,
        "more": _more(encoder, pictures, scaling, progress),
        "classes": weak_classes(scores, pictures.classes, N_LISTED),
    }  # fmt: skip


def _more(encoder: Encoder, pictures: EncodedSet, scaling: ScalingStudy, progress: Progress) -> Row:
    """Return the predicted accuracy with more pictures, or the reason why it cannot be predicted."""
    n, k = len(pictures.labels), len(pictures.classes)
    learnt, tests = (pictures.labels[of].bincount(minlength=k) for of in (~pictures.held, pictures.held))
    enough = (learnt >= LEAST_PER_CLASS) & (tests > 0)
    chosen, each = enough.nonzero()[:, 0], LEAST_RATIO * LEAST_PER_CLASS
    if len(chosen) < 2 or int(learnt[chosen].sum()) < each * len(chosen):
        return {
            "missing": f"There are too few pictures to predict the gain from more pictures: {n:,} pictures of "
            f"{k:,} classes. Give at least {each} pictures per class to learn from, and others of the same "
            f"class to test on."
        }
    number = torch.full((k,), -1).index_put((chosen,), torch.arange(len(chosen)))
    part = pictures.subset(enough[pictures.labels].nonzero()[:, 0].tolist())
    part = replace(part, classes=tuple(pictures.classes[i] for i in chosen.tolist()), labels=number[part.labels])
    material = Material(encoder, part, scaling.recipe)
    findings = scaling.on({"model": material}, is_cut=True, progress=progress).data
    arm = findings["arms"][0]
    if arm["predictions"][0]["interval_90"][1] < (now := arm["points"][-1]["accuracy"]):
        return {
            "missing": f"The gain from more pictures cannot be predicted, because the learning curve does not fit: "
            f"{100 * now:.0f} % of {findings['n_test']:,} held-out pictures are predicted correctly now. Test on "
            f"more pictures, or on harder ones."
        }
    data = {
        "learnt_from": findings["tested_range"][1], "n": findings["n"], "n_test": findings["n_test"],
        "left_out": [pictures.classes[i] for i in (~enough).nonzero()[:, 0].tolist()],
        "accuracy": arm["points"][-1]["accuracy"], "doubling": arm["slope"],
        "predictions": [
            {"times": 2 ** (i + 1), "accuracy": one["accuracy"], "interval_90": one["interval_90"]}
            for i, one in enumerate(arm["predictions"])
        ],
    }  # fmt: skip
    return {**data, "sentence": sentence(data)}


def sentence(data: Row) -> str:
    """Return sentences on the gain per doubling so far, and on the expected accuracy with twice as many pictures."""
    slope, ahead = data["doubling"], data["predictions"][0]["interval_90"]
    change, interval = points(slope["value"], sign=True), pair(slope["interval_90"], sign=True)
    low, high, now = (f"{100 * v:.0f}" for v in (*ahead, data["accuracy"]))
    helps = "would help" if slope["interval_90"][0] > 0 else "may not help"
    return (
        f"More pictures {helps}. Each doubling so far changed accuracy by {change} points ({interval}; 90 % "
        f"interval). With twice as many pictures, expect an accuracy of {low} to {high} %; now it is {now} %."
    )


def weak_classes(scores: HeldOutScores, classes: Sequence[str], most: int) -> list[Row]:
    """Return the classes with the lowest accuracy on held-out pictures, each with reasons in words.

    The result has the classes below the overall accuracy and those that cannot be tested. The classes are sorted by
    accuracy. Because accuracies on few pictures are unreliable, one right and one wrong picture are added for each
    class.
    """
    labels, predicted, judged = scores.labels, scores.probabilities.argmax(1), scores.judged
    count = labels.bincount(minlength=len(classes))
    tested = labels[judged].bincount(minlength=len(classes))
    right = labels[judged & (predicted == labels)].bincount(minlength=len(classes))
    middle = float(count[count > 0].double().median())
    overall = scores.accuracy if bool(judged.any()) else 1.0
    smooth = (right + 1) / (tested + 2)
    weak = [k for k in range(len(classes)) if int(count[k]) and (not tested[k] or right[k] / tested[k] < overall)]
    weak.sort(key=lambda k: (float(smooth[k]), int(count[k]), k))
    rows = []
    for k in weak[:most]:
        wrong = (judged & (labels == k) & (predicted != k)).nonzero()[:, 0]
        wrong = wrong[scores.probabilities[wrong, k].argsort(stable=True)]
        predictions = predicted[wrong].bincount(minlength=len(classes))
        row: dict[str, Any] = {
            "label": classes[k], "n": int(count[k]), "tested": int(tested[k]), "right": int(right[k]),
            "taken_for": classes[int(predictions.argmax())] if len(wrong) else None, "n_taken": int(predictions.max()),
            "few": int(count[k]) < FEW * middle, "median": middle, "wrong": wrong[:MOST_WRONG].tolist(),
        }  # fmt: skip
        rows.append({**row, "reasons": reasons(row)})
    return rows


def reasons(row: Row) -> list[str]:
    """Return the reasons why more pictures of a class may help."""
    n, tested = row["n"], row["tested"]
    sentences = [f"{row['right']} of {tested} held-out pictures are predicted correctly."]
    if not tested:
        why = "This class has one picture" if n == 1 else f"Its {n} pictures look like one object"
        sentences = [f"{why}, so its accuracy is unknown."]
    if row["n_taken"]:
        sentences.append(f"{row['n_taken']} {'is' if row['n_taken'] == 1 else 'are'} predicted as {row['taken_for']}.")
    if row["few"] and n > 1:
        sentences.append(f"This class has {n} pictures; half of the classes have {row['median']:g} or more.")
    return sentences
