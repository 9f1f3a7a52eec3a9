"""Accuracy on held-out pictures, its expected range on new pictures, and the reliability of one prediction.

For the expected range, each class is split into two halves by appearance, and the pictures of one half are predicted by
a classifier that was fitted on the other half. In benchmarks/strangers.py, the range contained the accuracy on later
pictures in 93 % of the cases.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from ..bounds import in_turn
from ..clusters import lloyd
from ..errors import InputError
from ..explanation.prediction import Certainty, Decision
from ..metrics.calibration import accuracy_interval, calibration_error, reliability
from ..printable import percent
from ..progress import Progress
from ..storage.tensors import compact
from ..threads import beside
from ..trust.base import LEVEL, Judgement, Trust
from ..trust.measure import MIN_PICTURES, measure_trust, trust_features
from ..trust.strangeness import Inputs, strangers
from .encoded_set import EncodedSet, HeldOut
from .linear.solvers import fit_linear

if TYPE_CHECKING:
    from .base import Classifier

N_STRANGERS = 32
N_NAMED = 4
"""Maximum number of class names in a sentence; the others are counted."""
MIN_LEVEL = 0.5
HALF = 0.5
"""Minimum score of a class, if no pictures were used, for its name to fit well."""
FIT = "seewhy fit PHOTOS -o MODEL"
C = 100.0
"""Default C per picture if no C was chosen."""
DOWN, UP = 1.0, 0.7
"""Maximum shift of the log odds, down and up, from the held-out interval to the expected range."""
UNTYPICAL = "The picture is less typical of its class than most, so it may show a class that was never learnt."
STEADY = 0.2
"""The same shift, down and up, if the pictures come in no series: ``N_STEADY`` pictures or more, of which
``PART_STEADY`` as many objects are judged by appearance."""
N_STEADY, PART_STEADY = 100, 0.75
MOST = 3000
"""Maximum number of pictures to split into halves."""
N_STARTS, N_ROUNDS = 4, 15


def common_figures(
    pictures: EncodedSet, n: int, held: HeldOut | None, progress: Progress, measured: Tensor | None, c: float | None
) -> dict[str, Any]:
    """Return the metrics that every classifier fitted on pictures reports."""
    index = pictures.held.nonzero()[:, 0] if measured is None else measured
    figures: dict[str, Any] = {"held_out_accuracy": None, "held_out_interval": None, "held_out_calibration_error": None}
    how, expected, grouping = None, None, pictures.grouping
    if grouping is not None and not pictures.validation:
        lone = [k for k in pictures.labels.unique().tolist() if not bool((pictures.labels[index] == k).any())]
        how = {
            "by": grouping.by,
            "threshold": None if grouping.threshold is None else round(grouping.threshold, 4),
            "n_groups": len(grouping.groups.unique()),
            "unmeasured_classes": [pictures.classes[k] for k in lone] if len(index) else [],
            "one_thing_classes": [pictures.classes[k] for k in grouping.one_thing],
        }
    if held is not None and held.logits is not None:
        confidence, decided = held.logits.softmax(1).max(1)
        right = decided == held.labels
        interval = accuracy_interval(right, held.groups)
        figures = {
            "held_out_accuracy": round(float(right.double().mean()), 4),
            "held_out_interval": [round(end, 4) for end in interval],
            "held_out_calibration_error": round(calibration_error(reliability(confidence, right)), 4),
            "weak_classes": weak_classes(pictures.classes, held.labels, right),
        }
        if how is not None and how["by"] != "given":
            hardest = accuracy_between_halves(held.pooled, held.labels, len(pictures.classes), c)
            n_groups: Any = how["n_groups"] if how["by"] == "looks" and len(pictures) >= N_STEADY else 0
            steady = n_groups >= PART_STEADY * len(pictures)
            expected = None if hardest is None else expected_range(interval, hardest, steady)
    return {
        **figures, "n_held_out": len(index) if held is None else len(held.labels),
        "measured_on": "validation pictures" if pictures.validation else "a part of the pictures", "split": how,
        "expected_range": expected and [round(end, 4) for end in expected], "n_pictures": n,
        "notes": list(progress.notes), "failures": [f.to_json() for f in progress.failures],
    }  # fmt: skip


def weak_classes(classes: Sequence[str], labels: Int[Tensor, " n"], right: Bool[Tensor, " n"]) -> list[dict[str, Any]]:
    """Return the classes with less than half of their pictures predicted correctly, lowest first."""
    n = torch.bincount(labels, minlength=len(classes)).tolist()
    hits = torch.bincount(labels[right], minlength=len(classes)).tolist()
    weak = sorted((k for k in range(len(classes)) if 2 * hits[k] < n[k]), key=lambda k: hits[k] / n[k])
    return [{"label": classes[k], "n_right": hits[k], "n": n[k]} for k in weak]


def held_out_lines(measures: dict[str, Any]) -> list[str]:
    """Return the lines that ``fit`` prints about the held-out accuracy."""
    right, how = measures.get("held_out_accuracy"), measures.get("split")
    if right is None:
        return ["no picture could be held out, so the accuracy is unknown"]
    low, high = measures["held_out_interval"]
    of = f"right on {100 * right:.1f} % of {measures['n_held_out']}"
    between = f"(95 % interval {100 * low:.1f} to {100 * high:.1f} %)"
    weak = [f"{row['label']} {row['n_right']} of {row['n']}" for row in measures.get("weak_classes", ())]
    few = "fewer than half of the held-out pictures of"
    poor = [f"{few} {_counted(weak)} were predicted correctly; add pictures of such classes"] if weak else []
    if how is None:
        return [f"{of} validation pictures {between}", *poor]
    if how["by"] == "given":
        lines = [f"{of} pictures {between}; each group is held out as a whole, so expect this accuracy on new groups"]
    else:
        rule = f"similar-looking shots are held out together ({how['n_groups']:,} groups)"
        if how["by"] == "copies":
            rule = "held out at random; if several pictures show the same object, this accuracy is too high"
        first = "these pictures do not show the accuracy in another place or on another day"
        if (expected := measures.get("expected_range")) is not None:  # rounded outwards
            first = (
                f"in another place or on another day, expect {math.floor(expected[0] * 100)} to "
                f"{math.ceil(expected[1] * 100)} % right"
            )
        first += (
            ". To measure it, name visits, cameras or patients with --group, or run seewhy evaluate on new pictures"
        )
        lines = [first, f"{of} pictures {between}; {rule}"]
    lines += poor
    at_random, lowest = measures.get("random_accuracy"), (measures.get("random_interval") or (0.0,))[0]
    if at_random is not None and lowest > right:  # otherwise the difference may be chance
        lines.append(
            f"with pictures held out at random, so that shots of one object are on both sides, the accuracy "
            f"is {100 * at_random:.1f} %"
        )
    lone = how["unmeasured_classes"]
    alike = [name for name in how["one_thing_classes"] if name not in lone]
    for names, what in (
        (lone, "cannot be measured, because all of {its} pictures show one object"),
        (alike, "may {each}show only one object, so the accuracy on other objects is unknown"),
    ):
        if names:
            its, each = ("their", "each ") if len(names) > 1 else ("its", "")
            lines.append(f"{_counted(names)} {what.format(its=its, each=each)}")
    return lines


def _counted(names: Sequence[str]) -> str:
    some = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    return f"{len(names)} class{'es' if len(names) > 1 else ''} ({some})"


def linear_fit(
    features: Float[Tensor, "n d"], labels: Int[Tensor, " n"], n_classes: int, c: float | None = None
) -> Callable[[Float[Tensor, "b d"]], Float[Tensor, "b k"]]:
    """Fit a linear classifier without crops, and return its function from features to logits."""
    return fit_linear(features, labels, n_classes, c or C, tol=1e-4).logits


def accuracy_between_halves(
    pooled: Float[Tensor, "n p"], labels: Int[Tensor, " n"], n_classes: int, c: float | None = None
) -> float | None:
    """Return the accuracy on one half of each class after a fit on the other; ``None`` for fewer than two classes."""
    if len(labels) > MOST:
        some = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))[:MOST]
        pooled, labels = pooled[some], labels[some]
    features, half = trust_features(pooled.float()), torch.zeros(len(labels), dtype=torch.long)
    for k in labels.unique().tolist():
        mine = (labels == k).nonzero()[:, 0]
        half[mine] = halves(features[mine])
    right = []
    for part in (0, 1):
        tested = half == part
        if not bool(tested.any()) or len(labels[~tested].unique()) < 2:
            return None
        logits = linear_fit(features[~tested], labels[~tested], n_classes, c)(features[tested])
        right.append(logits.argmax(1) == labels[tested])
    return float(torch.cat(right).double().mean())


def halves(features: Float[Tensor, "n d"], seed: int = 0) -> Int[Tensor, " n"]:
    """Split pictures into clusters 0 and 1 by spherical 2-means, the best of ``N_STARTS`` initialisations."""
    n = len(features)
    if n < 4:
        return torch.arange(n) % 2
    x = normalize(features - features.mean(0), dim=1)
    draw, best, chosen = torch.Generator().manual_seed(seed), -math.inf, torch.arange(n) % 2
    for _ in range(N_STARTS):
        centres, nearest = lloyd(x, x[torch.randperm(n, generator=draw)[:2]], N_ROUNDS, spherical=True)
        fit = float((x @ centres.T).max(1).values.sum())
        if fit > best and len(nearest.unique()) == 2:
            best, chosen = fit, nearest
    return chosen


def expected_range(interval: tuple[float, float], hardest: float, steady: bool = False) -> tuple[float, float]:
    """Return the expected range of the accuracy on new pictures; ``steady``: the pictures come in no series."""
    low, high = interval
    if steady:
        return _moved(low, -STEADY), _moved(high, STEADY)
    return min(low, max(hardest, _moved(low, -DOWN))), _moved(high, UP)


def paired_gain(before: Tensor, after: Tensor, groups: Int[Tensor, " m"] | None) -> tuple[float, float]:
    """Return the gain in accuracy and its standard error over groups of pictures."""
    gains = after.double() - before.double()
    own = torch.arange(len(gains)) if groups is None else groups.unique(return_inverse=True)[1]
    sums = torch.zeros(int(own.max()) + 1, dtype=torch.float64).index_add(0, own, gains - gains.mean())
    return float(gains.mean()), float(sums.square().sum().sqrt()) / len(gains)


def log_odds_shift(measures: Mapping[str, Any]) -> tuple[float, float]:
    """Return by how much the log odds of a right prediction may fall and rise on new pictures; 0 if not measured."""
    expected, interval = measures.get("expected_range"), measures.get("held_out_interval")
    if expected is None or interval is None:
        return 0.0, 0.0
    return max(0.0, _log_odds(interval[0]) - _log_odds(expected[0])), UP


def _log_odds(p: float) -> float:
    p = min(max(p, 1e-4), 1 - 1e-4)
    return math.log(p / (1 - p))


def _moved(p: float, by: float) -> float:
    return 1 / (1 + math.exp(-(_log_odds(p) + by)))


def check_level(level: float) -> float:
    if not MIN_LEVEL <= level < 1:
        raise InputError(f"`level` must be at least {MIN_LEVEL} and less than 1, got {level}. Use 0.9, for example.")
    return level


def trust_inputs(classifier: Classifier, pooled: Float[Tensor, "b d"], logits: Float[Tensor, "b k"]) -> Inputs:
    """Return the inputs of the reliability measure: features, logits, and the encoder's own probabilities."""
    own, layer = None, classifier.encoder.classifier
    if layer is not None and layer.in_features == pooled.shape[1]:
        with torch.no_grad():
            own = layer(pooled.float()).softmax(1)
    return Inputs(trust_features(pooled.float()), logits.float(), own)


def trust_of(classifier: Classifier, progress: Progress | None = None) -> Trust | None:
    """Measure the reliability on held-out pictures and unknown classes; ``None`` if there are too few pictures."""
    held = classifier.held_out
    if held is None or held.logits is None:
        return None
    progress = progress or Progress()
    height, width = classifier.encoder.transform.input_size
    odd = [p[:height, :width] for p in strangers(N_STRANGERS, max(height, width))]
    measuring = progress.doing("Measuring how far to trust it")
    with measuring, beside(classifier.encoder.engine.name, len(held.labels)):
        with torch.no_grad():
            strange = torch.cat([classifier.encoder.pooled(classifier.encoder.pixels([p])) for p in odd])
            strange_logits = classifier.head(strange)
        saved = compact(held.pooled).float()  # the precision of a saved model
        return measure_trust(
            trust_inputs(classifier, saved, held.logits),
            held.labels,
            held.groups,
            fit=partial(linear_fit, c=classifier.measures.get("C")) if "n_pictures" in classifier.measures else None,
            strange=trust_inputs(classifier, strange, strange_logits),
            shift=log_odds_shift(classifier.measures),
            progress=progress,
        )


class Unmeasured(NamedTuple):
    """Return why no reliability was measured, and what to do; ``by_names`` says that no pictures were used."""

    reason: str
    cure: str
    by_names: bool = False

    def __str__(self) -> str:
        other = ". Or measure it on labelled pictures: --validation PHOTOS" if self.by_names else ""
        return f"{self.reason}. {self.cure}{other}"


def decide(
    classifier: Classifier, pooled: Float[Tensor, "b d"], logits: Float[Tensor, "b k"], level: float = LEVEL
) -> list[Decision]:
    """Return the predictions with their reliability."""
    check_level(level)
    trust = classifier.measured_trust
    if trust is None:
        return [_unmeasured(classifier, row.softmax(0), level, why_unmeasured(classifier)) for row in logits]
    judged = trust.judge(trust_inputs(classifier, pooled, logits), level)
    n_sure, sure_right = trust.sure_held_out(level)
    another_day = torch.sigmoid(torch.tensor(level).logit() - trust.shift[0])
    day = float(another_day) if trust.shift[0] else None
    whole = Decision(
        "not measured", "", (), level, n=len(trust.held.labels), n_sure=n_sure, sure_right=sure_right,
        unknowns=trust.unknowns, another_day=day, n_classes=len(classifier.classes),
    )  # fmt: skip
    found = []
    for i, decided in enumerate(logits.argmax(1).tolist()):
        if bool(trust.gaussian.known[decided]):
            found.append(_measured(classifier, whole, judged, i, logits[i]))
        else:
            name = classifier.classes[decided]
            why = Unmeasured(f"none of the {whole.n:,} held-out pictures shows {name}", f"Add pictures of {name}.")
            found.append(_unmeasured(classifier, logits[i].softmax(0), level, why))
    return found


def _measured(
    classifier: Classifier, whole: Decision, judged: Judgement, i: int, logits: Float[Tensor, " k"]
) -> Decision:
    best = logits.argsort(descending=True, stable=True)[:2].tolist()
    order = judged.order[i].argsort(descending=True).tolist()
    order.sort(key=lambda k: k != best[0])
    inside = tuple(classifier.classes[k] for k in order if bool(judged.sets[i, k]))
    verdict: Certainty = "sure" if bool(judged.sure[i]) else "not sure"
    if bool(judged.unknown[i]):
        verdict = "unlike anything it knows"
    probability, low, high, fit = (float(x[i]) for x in (judged.probability, judged.low, judged.high, judged.fit))
    made = replace(whole, verdict=verdict, classes=inside, if_known=probability, fit=fit)
    if bool(judged.familiar[i]) and not made.is_unknown:
        made = replace(made, probability=probability, interval=(low, high))
    return _worded(made, [classifier.classes[k] for k in best], (low, high))


def _worded(d: Decision, names: Sequence[str], interval: tuple[float, float]) -> Decision:
    """Return the decision with its sentences.

    Args:
        d: the decision without sentences.
        names: the decided and the next class by the classifier's scores.
        interval: 95 % interval of ``d.if_known``.
    """
    right = _part(d.if_known)
    figures = [f"{names[0]} is right in {right} of cases like this ({_part(interval[0])} to {_part(interval[1])})."]
    if d.probability is None:
        figures[0] = f"If the picture shows one of the classes, {figures[0]}"
    strange = f"{_part(d.fit)} of held-out pictures look" if d.fit else "No held-out picture looks"
    often = f"In cases like this, the prediction is right {right} of the time"
    cure, sentence = "", f"{often}, measured on {d.n:,} held-out pictures."
    if d.is_unknown:
        sentence = f"{'Only ' if d.fit else ''}{strange} as strange as this one, so do not trust any class."
        figures[:0] = [f"The most similar class is {names[0]}."]
        cure = f"Something new? Add pictures of it and fit again: {FIT}"
    elif d.narrows:
        n = len(d.classes)
        among = f"one of these {n}: " if n > N_NAMED else ""
        sentence = f"In {_part(d.level)} of cases like this, the true class is {among}{listed(d.classes)}."
        if d.probability is None:
            sentence = f"{UNTYPICAL} Otherwise it is {among}{listed(d.classes)} in {_part(d.level)} of cases."
        figures[0] = figures[0].replace(" is right", " alone is right", 1)
        if d.another_day is not None:
            figures[:0] = [
                f"On another day, the true class is among these in at least {_part(d.another_day)} of cases."
            ]
        cure = f"{'Neither' if n == 2 else 'None of these'}? Add pictures of it and fit again: {FIT}"
    elif d.verdict != "sure":
        sentence = often + (f"; the next most probable class is {names[1]}." if len(names) > 1 else ".")
        if d.probability is None:
            sentence = UNTYPICAL
        cure = f"Something else? Add pictures of it and fit again: {FIT}"
    if not d.is_unknown:
        figures.append(f"{strange} as strange as this one.")
    if d.n_sure:
        figures.append(
            f"Of {d.n_sure:,} held-out pictures called sure, {_part(d.sure_right)} were predicted correctly."
        )
    figures += [] if d.unknowns is None else [d.unknowns.sentence]
    return replace(d, sentence=sentence, figures=" ".join(figures), cure=cure)


def listed(names: Sequence[str]) -> str:
    """Join names as ``A``, ``A or B`` or ``A, B or C``; long lists are shortened."""
    return in_turn([*names[:N_NAMED], *([f"{len(names) - N_NAMED} more"] if len(names) > N_NAMED else [])])


def _part(value: float | None) -> str:
    return percent(value or 0.0, " ")


def _unmeasured(classifier: Classifier, p: Float[Tensor, " k"], level: float, why: Unmeasured) -> Decision:
    values, order = p.sort(descending=True)
    n = int((values.cumsum(0) < level).sum()) + 1
    names, best = tuple(classifier.classes[k] for k in order[:n].tolist()), float(values[0])
    poorly = why.by_names and best < HALF
    sentence = f"SeeWhy cannot say how often a score of {_part(best)} is right, because {why.reason}."
    if why.by_names:
        sentence = "SeeWhy never measured how often this score is right."
    if poorly:
        sentence = f"Best guess: {names[0]}, with a score of only {_part(best)}; other names share the rest."
    if len(classifier.classes) == 1:
        sentence = f"The classifier knows only one class, {names[0]}."
    own = f"{listed(names)}: their scores add up to {_part(level)} or more." if n > 1 else ""
    reason = f"SeeWhy cannot say how often such a guess is right, because {why.reason}." if poorly else ""
    figures = " ".join(part for part in (own, reason) if part)
    return Decision(
        "not measured", sentence, names, level, missing=str(why), figures=figures, cure=why.cure, fits_poorly=poorly
    )


def why_unmeasured(classifier: Classifier) -> Unmeasured:
    held = classifier.held_out
    if held is None and "n_pictures" in classifier.measures:
        cure = "Give each class pictures that show different objects."
        return Unmeasured("no picture could be held out", cure)
    if held is None:
        return Unmeasured("no labelled pictures of yours were used", f"Fit on your pictures: {FIT}", by_names=True)
    if held.logits is None:
        return Unmeasured("the classifier has no saved held-out decisions", "Fit it again.")
    n, two = len(held.labels), len(held.labels.unique()) > 1
    if n >= MIN_PICTURES and two:
        return Unmeasured("all held-out pictures show one object", "Add pictures that show other objects.")
    counted = f"only {n} picture{'s are' if n != 1 else ' is'} held out" + ("" if two else ", of one class")
    more = f"at least {MIN_PICTURES - n} more pictures" if n < MIN_PICTURES else "pictures"
    return Unmeasured(counted, f"Add {more} that show other objects{'' if two else ', of another class too'}.")
