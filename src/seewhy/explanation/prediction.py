"""The prediction for a picture, with its reliability."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NamedTuple

from ..errors import DataError
from ..printable import percent
from ..results import Count, Doc, Share
from ..spelling import nearest, suggestion
from .result import HIDDEN, OPTIONAL, Json, Result, plain

Certainty = Literal["sure", "not sure", "unlike anything it knows", "not measured"]
UNKNOWN = "unknown"
"""Label of rejected pictures."""
N_TITLED = 3
"""Maximum number of classes in the first line of a card; of more, the first two are named and the others counted."""
Interval = tuple[Share, Share]

RULE = (
    "On held-out pictures, from which the classifier does not learn, SeeWhy measures how often decisions like this one "
    "are right. It also measures how many classes a decision must name to include the true class as often as "
    "promised. A picture is unlike anything the classifier knows if it is stranger than 95 % of held-out pictures, by "
    "the mean of two distances from the training pictures. Otherwise the decision is sure if four conditions hold. "
    "Naming one class is enough to include the true class as often as promised. Decisions like this one are right at "
    "least as often as promised. The picture is not stranger than nine tenths of held-out pictures. The picture is not "
    "more unusual for its predicted class than 60 % of held-out pictures, by the mean of six published scores. If one "
    "condition fails, the decision is not sure. If one of the last two fails, the picture "
    "may show an unknown class, so SeeWhy gives no percentage."
)


@dataclass(frozen=True)
class Unknowns(Result):
    """How well pictures of unknown classes are detected; ``None`` if not measured."""

    near: Annotated[Share | None, Doc("area under the ROC curve of known classes against held-out classes")] = None
    near_found: Annotated[Share | None, Doc("share of pictures of held-out classes that are rejected")] = None
    near_interval: Annotated[Interval | None, Doc("95 % interval of `near_found` on other unknown classes")] = None
    near_sure: Annotated[Share | None, Doc("share of pictures of held-out classes that are called sure")] = None
    near_sure_interval: Annotated[Interval | None, Doc("95 % interval of `near_sure` on other unknown classes")] = None
    near_kept: Annotated[Share | None, Doc("share of pictures of known classes that are accepted by the same fits")] = (
        None
    )
    n_near: Annotated[Count, Doc("number of pictures of held-out classes")] = 0
    far: Annotated[Share | None, Doc("area under the ROC curve of known classes against noise and patterns")] = None
    far_found: Annotated[Share | None, Doc("share of noise and patterns that are rejected")] = None
    far_sure: Annotated[Share | None, Doc("share of noise and patterns that are called sure")] = None
    kept: Annotated[Share, Doc("share of held-out pictures of known classes that are accepted")] = 1.0

    @classmethod
    def restore(cls, facts: dict[str, Any]) -> Unknowns:
        read: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in facts.items()}
        return cls(**read)

    @property
    def sentence(self) -> str:
        parts = []
        if self.near_found is not None:
            noticed, sure = _between(self.near_interval), _between(self.near_sure_interval)
            parts.append(
                f"For a class it never learnt, the classifier reports an unknown class on {noticed} of pictures, and "
                f"is wrongly sure on {sure}."
            )
        if self.far_found is not None:
            parts.append(
                f"It reports an unknown class on {100 * self.far_found:.0f} % of pictures of noise or patterns."
            )
        if not parts:
            return "SeeWhy has not measured how often the classifier notices a picture of an unknown class."
        parts.append(f"It wrongly calls {100 * (1 - self.kept):.0f} % of held-out pictures unlike anything it knows.")
        return " ".join(parts)


def _between(interval: tuple[float, float] | None) -> str:
    low, high = interval or (0.0, 1.0)
    return f"between {low * 100:.0f} and {100 * high:.0f} %"


@dataclass(frozen=True)
class Decision(Result):
    verdict: Annotated[Certainty, Doc("reliability of the decision")]
    sentence: Annotated[str, Doc("reliability and its reason in one sentence")]
    classes: Annotated[
        tuple[str, ...], Doc("the conformal set; if not measured, the classes with the highest scores"), Json("set")
    ]
    level: Annotated[Share, Doc("guaranteed coverage of the set"), Json(digits=17)]
    probability: Annotated[
        Share | None,
        Doc("calibrated probability of a right decision; `null` if the class may be an unknown one"),
    ] = None
    interval: Annotated[Interval | None, Doc("95 % interval of `probability`, which includes other days")] = None
    if_known: Annotated[
        Share | None, Doc("probability that the decision is right if the picture shows a known class")
    ] = None
    fit: Annotated[Share | None, Doc("share of held-out pictures that are at least as strange")] = None
    n: Annotated[Count, Doc("number of held-out pictures")] = 0
    n_sure: Annotated[Count, Doc("number of held-out pictures called sure")] = 0
    sure_right: Annotated[Share | None, Doc("accuracy of sure decisions on held-out pictures")] = None
    unknowns: Annotated[Unknowns | None, Doc("detection of pictures of unknown classes")] = None
    another_day: Annotated[Share | None, Doc("lower bound of the coverage of the set on another day")] = None
    missing: Annotated[str, Doc("pictures needed for more measurements"), OPTIONAL] = ""
    rule: Annotated[str, HIDDEN] = RULE
    figures: Annotated[str, HIDDEN] = ""
    """Figures behind the sentence, in words."""
    cure: Annotated[str, HIDDEN] = ""
    """Advice for an uncertain decision."""
    fits_poorly: Annotated[bool, HIDDEN] = False
    """Whether a zero-shot decision has no class with at least half of the score."""
    n_classes: Annotated[int, HIDDEN] = 0
    """Number of classes of the classifier, if known."""

    @property
    def label(self) -> str:
        return self.classes[0]

    @property
    def is_unknown(self) -> bool:
        return self.verdict == "unlike anything it knows"

    @property
    def narrows(self) -> bool:
        """Whether the decision names several classes, but not all. A set of all classes is always right."""
        return self.verdict == "not sure" and 1 < len(self.classes) != self.n_classes

    @property
    def word(self) -> str:
        """The verdict at the head of a card."""
        return self.verdict.capitalize()

    @property
    def is_open(self) -> bool:
        """Whether the decision is a question: it is not sure, was not measured, or no name fits well."""
        return self.verdict in ("not sure", "not measured") or self.fits_poorly

    @property
    def doubt(self) -> float | None:
        """The probability that the decision is wrong, or a number above 1 for unknown pictures."""
        if self.is_unknown:
            return 2 - (self.fit or 0.0)
        right = self.if_known if self.probability is None else self.probability
        return None if right is None else 1 - right


class Ranked(NamedTuple):
    """A class with its score, 0 to 1."""

    label: str
    score: float


@dataclass(frozen=True)
class Prediction:
    """The classes of a picture, most probable first, and the reliability of the decision.

    Attributes:
        image: name of the picture.
        label: the most probable class.
        score: its score.
        probability: the probability that the decision is right, or ``None`` if the picture may show an unknown class.
            It is calibrated on held-out pictures; without held-out pictures, it is the score.
        top: the classes with their scores, most probable first.
        n_classes: number of classes of the classifier.
        decision: reliability of the decision.
        rejected: whether the picture is unlike anything the classifier knows, if that was asked.
    """

    image: str
    label: str = field(init=False, compare=False)
    score: float = field(init=False, compare=False)
    probability: float | None = field(init=False, compare=False)
    top: tuple[Ranked, ...]
    n_classes: int = 0
    decision: Decision | None = None
    rejected: bool = False

    def __post_init__(self) -> None:
        first, n = self.top[0], self.n_classes or len(self.top)
        right = self.decision.probability if self.decision is not None and self.is_measured else first.score
        right = None if n == 1 else right
        for name, value in (("n_classes", n), ("label", first.label), ("score", first.score), ("probability", right)):
            object.__setattr__(self, name, value)

    @property
    def names(self) -> tuple[str, ...]:
        """The classes between which the decision is. An open decision names at least the two with the highest scores,
        unless the first is as probable as promised; an unmeasured one names the first.
        """
        d = self.decision
        if d is None or not d.is_open:
            return (self.label,)
        if d.narrows:
            return d.classes
        if not (self.is_measured or d.fits_poorly):
            return (self.label,)
        is_lone = len(d.classes) == 1 and (d.if_known or d.probability or 0.0) >= d.level
        return tuple(r.label for r in self.top[: 1 if is_lone else 2])

    @property
    def title(self) -> str:
        """The first line of a card: the class, ``Mango or Lime?``, or ``Unlike anything it knows``."""
        d, names = self.decision, self.names
        if d is None or not (d.is_open or d.is_unknown):
            return self.label
        if d.is_unknown:
            return d.word
        shown = names if len(names) <= N_TITLED else (*names[:2], f"{len(names) - 2} more")
        return f"{', '.join(shown[:-1])} or {shown[-1]}?" if len(shown) > 1 else f"{shown[0]}?"

    @property
    def is_measured(self) -> bool:
        """Whether the reliability was measured on held-out pictures."""
        return self.decision is not None and self.decision.verdict != "not measured"

    def __repr__(self) -> str:
        scores = ", ".join(f"{r.label[:40]} {100 * r.score:.1f} %" for r in self.top[:3])
        rest = "" if self.n_classes <= 3 else f", … of {self.n_classes:,} classes"
        d, right = self.decision, self.probability
        judged = "" if d is None else f"; {d.verdict}"
        if d is not None and self.is_measured:
            decided = (
                f"{d.verdict}, or {self.label}"
                if d.is_unknown
                else f"{self.title}{'' if d.is_open else ','} {d.verdict}"
            )
            scores = f"{decided}{'' if right is None else f', right {100 * right:.1f} %'}; own scores {scores}"
            judged = ""
        return f"Prediction({self.image[-80:]!r}: {scores}{rest}{judged})"

    def to_json(self) -> dict[str, Any]:
        top = [{"label": r.label, "score": round(r.score, 6)} for r in self.top]
        label = UNKNOWN if self.rejected else self.label
        data = {"image": self.image, "label": label, "score": round(self.score, 6), "top": top}
        return data if self.decision is None else data | {"decision": plain(self.decision)}


@dataclass(frozen=True)
class Finding(Result):
    name: Annotated[str, Doc("the finding"), Json("finding")]
    probability: Annotated[Share, Doc("probability that the finding is present"), Json(digits=6)]
    margin: Annotated[float, Doc("cosine with affirming sentences minus cosine with denying sentences"), Json(digits=6)]


@dataclass(frozen=True)
class Findings(Result):
    """One line of ``seewhy predict --finding --json``: the findings of one picture."""

    picture: Annotated[str, Doc("file name as given"), Json("image")]
    found: Annotated[tuple[Finding, ...], Doc("each finding, in the order given"), Json("findings")]


@dataclass(frozen=True)
class LabelDecision(Result):
    """Whether a label is given to a picture."""

    label: Annotated[str, Doc("the label")]
    probability: Annotated[Share, Doc("calibrated probability that the picture has the label"), Json(digits=6)]
    given: Annotated[bool, Doc("whether the probability reaches the threshold of the label")]
    possible: Annotated[bool, Doc("whether the label is in the set that misses a true label as rarely as promised")]
    verdict: Annotated[Certainty, Doc("reliability of the decision")]


@dataclass(frozen=True)
class MultiPrediction:
    """The decisions about one picture.

    Attributes:
        image: name of the picture.
        predictions: for each decision, the prediction of its classifier.
        labels: for each label, whether it is given; empty for questions.
    """

    image: str
    predictions: Mapping[str, Prediction]
    labels: Mapping[str, LabelDecision]

    @property
    def given(self) -> tuple[str, ...]:
        """The labels that are given, most probable first."""
        order = sorted(self.labels.values(), key=lambda one: -one.probability)
        return tuple(one.label for one in order if one.given)

    @property
    def possible(self) -> tuple[str, ...]:
        """The labels that are possible, but not given."""
        return tuple(one.label for one in self.labels.values() if one.possible and not one.given)

    def asked(self, target: str | None = None) -> tuple[str, ...]:
        """Return the decisions to explain: ``target``, otherwise each question, or each label that is given."""
        if target is not None:
            return (named(target, self.predictions),)
        return self.given if self.labels else tuple(self.predictions)

    def to_json(self) -> dict[str, Any]:
        if self.labels:
            rows = [one.to_json() for one in self.labels.values()]
            return {"image": self.image, "labels": list(self.given), "decisions": rows}
        answers = {name: one.label for name, one in self.predictions.items()}
        decisions = [{"question": name, **one.to_json()} for name, one in self.predictions.items()]
        for row in decisions:
            del row["image"]
        return {"image": self.image, "answers": answers, "decisions": decisions}

    def rows(self) -> Iterator[tuple[str, str, float | str, str, str]]:
        """Yield the name, answer, probability, possible answers and verdict of each decision."""
        for name, one in self.predictions.items():
            if (label := self.labels.get(name)) is not None:
                answer, possible = ("yes" if flag else "no" for flag in (label.given, label.possible))
                yield name, answer, round(label.probability, 6), possible, label.verdict
            else:
                right = "" if one.probability is None else round(one.probability, 6)
                named = () if one.decision is None else one.decision.classes
                yield name, one.label, right, "; ".join(named), "" if one.decision is None else one.decision.verdict

    @property
    def parts(self) -> list[str]:
        """Each answer, or the labels that are given and those that are possible, as text."""
        if not self.labels:
            return [_answer(name, one) for name, one in self.predictions.items()]
        given = ", ".join(f"{name} {percent_of(self.labels[name].probability)}" for name in self.given) or "no label"
        strange: Certainty = "unlike anything it knows"
        noted = [strange] * any(one.verdict == strange for one in self.labels.values())
        return [given, *([f"possible: {', '.join(self.possible)}"] if self.possible else []), *noted]

    def __repr__(self) -> str:
        return f"MultiPrediction({self.image[-80:]!r}: {'; '.join(self.parts)})"


def _answer(name: str, one: Prediction) -> str:
    verdict = "" if one.decision is None or one.decision.verdict in ("sure", "not measured") else one.decision.verdict
    right = percent_of(one.score if one.probability is None else one.probability)
    return f"{name}: {one.label} {right}" + (f" ({verdict})" if verdict else "")


def percent_of(value: float | None) -> str:
    return "unknown" if value is None else percent(value, " ")


def named(name: str, decisions: Iterable[str]) -> str:
    """Return the name, after a check that there is such a decision."""
    if name not in (names := [*decisions]):
        near = nearest(name, names, n=3, cutoff=0.4)
        raise DataError(f"There is no label or question {name!r} among {len(names)}. {suggestion(near, names)}")
    return name
