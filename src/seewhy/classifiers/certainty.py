"""How far to trust a decision: what held-out pictures say of it, or what can be said without any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import InputError
from ..explanation.prediction import Certainty, Decision
from ..progress import Progress
from ..storage.tensors import compact
from ..threads import beside
from ..trust.base import LEVEL, Judgement, Trust
from ..trust.measure import MIN_PICTURES, measure_trust, trust_features
from ..trust.strangeness import Inputs, strangers
from .figures import linear_fit, log_odds_shift

if TYPE_CHECKING:
    from .base import Classifier

N_STRANGERS = 32
N_NAMED = 4
"""Classes of a set that a sentence names; the others are counted."""
MIN_LEVEL = 0.5


def check_level(level: float) -> float:
    """The level, if it is one."""
    if not MIN_LEVEL <= level < 1:
        raise InputError(
            f"A level of {level} was given. A number from {MIN_LEVEL} to below 1 was expected, how often the true "
            "class is to be among those named. Give 0.9, say."
        )
    return level


def trust_inputs(classifier: Classifier, pooled: Float[Tensor, "b d"], logits: Float[Tensor, "b k"]) -> Inputs:
    """What pictures are judged by: their features, what was decided, and what the encoder itself takes them for."""
    own, layer = None, classifier.encoder.classifier
    if layer is not None and layer.in_features == pooled.shape[1]:
        with torch.no_grad():
            own = layer(pooled.float()).softmax(1)
    return Inputs(trust_features(pooled.float()), logits.float(), own)


def trust_of(classifier: Classifier, progress: Progress | None = None) -> Trust | None:
    """Measured on the classifier's held-out pictures and on pictures of nothing; ``None`` where there are too few."""
    held = classifier.held_out
    if held is None or held.logits is None:
        return None
    height, width = classifier.encoder.transform.input_size
    odd = [p[:height, :width] for p in strangers(N_STRANGERS, max(height, width))]
    with beside(classifier.encoder.engine.name, len(held.labels)):
        with torch.no_grad():
            strange = torch.cat([classifier.encoder.pooled(classifier.encoder.pixels([p])) for p in odd])
            strange_logits = classifier.head(strange)
        kept = compact(held.pooled).float()  # as it is when it is loaded again
        return measure_trust(
            trust_inputs(classifier, kept, held.logits),
            held.labels,
            held.groups,
            fit=partial(linear_fit, c=classifier.measures.get("C")) if "n_pictures" in classifier.measures else None,
            strange=trust_inputs(classifier, strange, strange_logits),
            shift=log_odds_shift(classifier.measures),
            progress=progress,
        )


def decide(
    classifier: Classifier, pooled: Float[Tensor, "b d"], logits: Float[Tensor, "b k"], level: float = LEVEL
) -> list[Decision]:
    """The decisions on pictures, judged."""
    check_level(level)
    trust = classifier.measured_trust
    if trust is None:
        return [_unmeasured(classifier, row.softmax(0), level, why_unmeasured(classifier)) for row in logits]
    judged = trust.judge(trust_inputs(classifier, pooled, logits), level)
    n_sure, sure_right = trust.sure_held_out(level)
    another_day = torch.sigmoid(torch.tensor(level).logit() - trust.shift[0])
    whole = Decision(
        "not measured",
        "",
        (),
        level,
        n=len(trust.held.labels),
        n_sure=n_sure,
        sure_right=sure_right,
        unknowns=trust.unknowns,
        another_day=float(another_day) if trust.shift[0] else None,
    )
    seen = trust.gaussian.known
    found = []
    for i, decided in enumerate(logits.argmax(1).tolist()):
        if bool(seen[decided]):
            found.append(_measured(classifier, whole, judged, i, decided))
        else:
            why = f"none of the {whole.n:,} pictures it was measured on is of {classifier.classes[decided]}"
            found.append(_unmeasured(classifier, logits[i].softmax(0), level, f"{why}. Measure it on some that are."))
    return found


def _measured(classifier: Classifier, whole: Decision, judged: Judgement, i: int, decided: int) -> Decision:
    order = judged.order[i].argsort(descending=True).tolist()
    order.sort(key=lambda k: k != decided)
    names = [classifier.classes[k] for k in order]
    inside = tuple(name for k, name in zip(order, names, strict=True) if bool(judged.sets[i, k]))
    verdict: Certainty = "one of few"
    if bool(judged.unknown[i]):
        verdict = "unlike anything it knows"
    elif bool(judged.sure[i]):
        verdict = "sure"
    low, high = float(judged.low[i]), float(judged.high[i])
    made = replace(
        whole,
        verdict=verdict,
        classes=inside,
        probability=float(judged.probability[i]),
        interval=(low, high),
        fit=float(judged.fit[i]),
    )
    return replace(made, sentence=_SENTENCES[verdict](made, names))


def _sure(d: Decision, names: Sequence[str]) -> str:
    held = f"; of {d.n_sure:,} held-out pictures called sure, {_part(d.sure_right)} were" if d.n_sure else ""
    return f"{names[0]}. Decisions like this one are right in {_odds(d)}{held}."


def _few(d: Decision, names: Sequence[str]) -> str:
    itself = f"{names[0]} itself is right in {_odds(d)}."
    if len(d.classes) == 1:
        other = f", and {names[1]} comes next" if len(names) > 1 else ""
        return f"Perhaps {names[0]}: decisions like this one are right in {_odds(d)}{other}."
    day = "" if d.another_day is None else f", and on another day in {_part(d.another_day)} or more"
    promise = f"the true class is among these {len(d.classes)} in {_part(d.level)} of cases like those held out{day}"
    return f"{listed(d.classes)}: {promise}. {itself}"


def _unlike(d: Decision, names: Sequence[str]) -> str:
    told = "" if d.unknowns is None else f" {d.unknowns.sentence}"
    strange = f"Only {_part(d.fit)} of held-out pictures are" if d.fit else "No held-out picture is"
    return f"{strange} as strange. If it must be one of its classes, {names[0]}.{told}"


_SENTENCES = {"sure": _sure, "one of few": _few, "unlike anything it knows": _unlike}


def listed(names: Sequence[str]) -> str:
    """``A``, ``A or B``, ``A, B or C``; of many the first ones.

    Example:
        >>> listed(["wren", "robin"]), listed(list("abcdef"))
        ('wren or robin', 'a, b, c, d or 2 more')
    """
    shown = list(names[:N_NAMED])
    if len(names) > N_NAMED:
        shown.append(f"{len(names) - N_NAMED} more")
    return " or ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else shown[0]


def _part(value: float | None) -> str:
    """Whole per cents that never claim certainty."""
    value = value or 0.0
    return ">99%" if 0.995 <= value < 1 else "<1%" if 0 < value < 0.005 else f"{value:.0%}"


def _odds(d: Decision) -> str:
    low, high = d.interval or (0.0, 1.0)
    return f"{_part(d.probability)} of cases ({_part(low)} to {_part(high)})"


def _unmeasured(classifier: Classifier, p: Float[Tensor, " k"], level: float, why: str) -> Decision:
    """What can be had without pictures: the classes with the promised part of the probability, by its own count."""
    values, order = p.sort(descending=True)
    n = int((values.cumsum(0) < level).sum()) + 1
    names = tuple(classifier.classes[k] for k in order[:n].tolist())
    own = f"{listed(names)} by its own count, of which {_part(level)} of its probability is"
    if n == 1:
        own = f"{names[0]}, {_part(float(values[0]))} by its own count"
    return Decision("not measured", f"{own}. How often that is right is not known: {why}", names, level, missing=why)


def why_unmeasured(classifier: Classifier) -> str:
    """Why nothing was measured, and what it takes."""
    held = classifier.held_out
    if held is None and "n_pictures" in classifier.measures:
        return "no picture could be held out. Give each class pictures that show different things."
    if held is None:
        return (
            "it was made without pictures of yours. Give labelled ones with --validation PHOTOS, or fit a classifier "
            "on them: seewhy fit PHOTOS -o MODEL"
        )
    if held.logits is None:
        return "it was fitted by an earlier version or method that kept no held-out decisions. Fit it again."
    return (
        f"{len(held.labels)} pictures are held out, and {MIN_PICTURES} of two classes, showing different things, are "
        "needed. Give more pictures."
    )
