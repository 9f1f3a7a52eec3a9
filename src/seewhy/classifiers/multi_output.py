"""Several decisions about one picture: labels that may be given together, or questions with classes of their own.

Each decision is a :class:`Classifier` on the features of one frozen encoder, so a picture is encoded once. The answers
of label ``X`` are ``X`` and ``no X``.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, Unpack, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..arguments import checked
from ..bounds import Count
from ..encoders.base import Encoder
from ..encoders.stream import Views
from ..errors import ModelError
from ..explanation.prediction import Interval, LabelDecision, MultiPrediction, Prediction, percent_of
from ..explanation.result import EXACT, Result
from ..keywords import ExplainKeywords
from ..metrics.labels import Aim, agreement, average_precision, interval_of, possible_from
from ..pictures.sources import Many, One, several
from ..results import Count as N
from ..results import Doc, Share
from ..storage.features import FeatureStore
from ..storage.folders import write_inside, write_together
from ..storage.output import safe_stem
from ..storage.reading import MAX_TENSORS, file_sha256, read_file
from ..trust.base import LEVEL
from ..types import Failure
from .base import Classifier, looked_at, only
from .certainty import held_out_lines
from .saving import CARD, FORMAT, OUTPUTS, SHARED, load, shared_in

if TYPE_CHECKING:
    from ..explanation.base import Explanation


class Shared(Protocol):
    """A trained encoder that can be saved."""

    def encoder(self) -> Encoder: ...

    def save(self, folder: Path) -> Path: ...


@dataclass(frozen=True)
class LabelMeasure(Result):
    """How well one label is given, measured on pictures that were not used for training."""

    label: Annotated[str, Doc("the label")]
    n: Annotated[N, Doc("number of pictures for which the answer is known")]
    n_with: Annotated[N, Doc("number of these with the label")]
    average_precision: Annotated[Share | None, Doc("average precision; `null` if no picture has the label")]
    average_precision_interval: Annotated[Interval | None, Doc("95 % interval of the average precision")]
    threshold: Annotated[Share | None, Doc("the label is given from this probability; `null`: never"), EXACT]
    precision: Annotated[Share | None, Doc("share of given labels that are right")]
    recall: Annotated[Share | None, Doc("share of pictures with the label to which it is given")]
    f1: Annotated[Share | None, Doc("harmonic mean of precision and recall")]

    @classmethod
    def of(
        cls,
        label: str,
        probability: Float[Tensor, " n"],
        true: Bool[Tensor, " n"],
        groups: Tensor,
        threshold: float | None,
        given: Bool[Tensor, " n"],
    ) -> LabelMeasure:
        """Measure a label; ``given`` says to which pictures it is given."""
        right = agreement(given, true)
        ap = average_precision(probability, true)
        ends = interval_of(lambda weights: average_precision(probability, true, weights), groups)
        known = [None if math.isnan(x) else x for x in (ap, right.precision, right.recall, right.f1)]
        interval = None if math.isnan(ends[0]) else ends
        return cls(label, len(true), int(true.sum()), known[0], interval, threshold, *known[1:])

    @property
    def line(self) -> str:
        if self.average_precision is None:
            return f"{self.label}: not measured, because none of {self.n:,} held-out pictures has it"
        low, high = self.average_precision_interval or (0.0, 1.0)
        given = "never given"
        if self.threshold is not None:
            figures = [f"{k} {percent_of(v)}" for k, v in (("precision", self.precision), ("recall", self.recall))]
            given = f"given from {self.threshold:.2f} on: {', '.join(figures)}"
        return (
            f"{self.label}: average precision {self.average_precision:.3f} ({low:.3f} to {high:.3f}), {given}; "
            f"{self.n_with:,} of {self.n:,} pictures have it"
        )


@dataclass(frozen=True, repr=False)
class MultiOutput:
    """A model that makes several decisions about each picture. Fit one with :func:`seewhy.fit_multi`.

    Attributes:
        kind: ``"labels"`` or ``"questions"``.
        decisions: the classifier of each label or question. All have the same encoder.
        aim: what the thresholds of the labels were chosen for.
        measures: for each label, how well it is given; empty for questions.
        left_out: labels or questions that could not be learnt, and why.
        shared: the network that was trained for all decisions, or its folder; ``None`` if the encoder is frozen.
    """

    kind: Literal["labels", "questions"]
    decisions: Mapping[str, Classifier]
    aim: Aim
    measures: Mapping[str, LabelMeasure]
    left_out: Mapping[str, str]
    shared: Shared | Path | None = None

    @property
    def encoder(self) -> Encoder:
        return next(iter(self.decisions.values())).encoder

    @cached_property
    def mean_average_precision(self) -> float | None:
        """Mean over the labels of the average precision on held-out pictures."""
        found = [m.average_precision for m in self.measures.values() if m.average_precision is not None]
        return sum(found) / len(found) if found else None

    def lines(self) -> list[str]:
        """Return lines about the held-out pictures."""
        lines = [f"left out {name}: {why}" for name, why in self.left_out.items()]
        if self.kind == "questions":
            for name, one in self.decisions.items():
                lines += [f"{name}: {line}" for line in held_out_lines(one.measures)]
            return lines
        if (mean := self.mean_average_precision) is not None:
            lines.append(f"mean average precision {mean:.3f} on held-out pictures; thresholds chosen for {self.aim}")
        return lines + [m.line for m in self.measures.values()]

    def to_json(self) -> dict[str, Any]:
        """Return what :meth:`lines` says as JSON."""
        base = {
            "kind": self.kind,
            "encoder": self.encoder.name,
            "tuned": self.shared is not None,
            "left_out": dict(self.left_out),
        }
        if self.kind == "questions":
            rows = [{"question": n, "classes": [*c.classes], **c.measures} for n, c in self.decisions.items()]
            return {**base, "questions": rows}
        mean = self.mean_average_precision
        rows = [m.to_json() for m in self.measures.values()]
        return {**base, "aim": str(self.aim), "mean_average_precision": mean and round(mean, 4), "labels": rows}

    def least(self, level: float) -> dict[str, float]:
        """Return the probability from which each label is possible, so that it is missed as rarely as promised."""
        return {name: possible_from(*held_out(name, one)[:2], level) for name, one in self.decisions.items()}

    @checked
    def predict_all(
        self,
        pictures: Many,
        *,
        store: FeatureStore | None = None,
        views: Views | None = None,
        batch_size: Count = 32,
        top: Count = 5,
        level: float = LEVEL,
    ) -> Iterator[MultiPrediction | Failure]:
        """Predict pictures one by one, as :meth:`seewhy.Classifier.predict_all`; each picture is encoded once.

        ``level`` is also the least probability that a label of the picture is among those given or possible.
        """
        least = self.least(level) if self.kind == "labels" else {}
        for seen in looked_at(self.encoder, pictures, store, views, batch_size):
            if isinstance(seen, Failure):
                yield seen
                continue
            made = {name: one.predict_seen(seen, top, level) for name, one in self.decisions.items()}
            labels = {name: self._label(name, made[name], least[name]) for name in least}
            yield MultiPrediction(seen.name, made, labels)

    def _label(self, name: str, made: Prediction, least: float) -> LabelDecision:
        p = made.top[0].score if made.label == name else 1 - made.top[0].score
        threshold = self.measures[name].threshold
        verdict = "not measured" if made.decision is None else made.decision.verdict
        given = threshold is not None and p >= threshold
        return LabelDecision(name, p, given, given or p >= least, verdict)

    @checked
    def predict(
        self, picture: One | Many, *, store: FeatureStore | None = None, level: float = LEVEL
    ) -> MultiPrediction | list[MultiPrediction | Failure]:
        """Predict one picture or several; see :meth:`seewhy.Classifier.predict`."""
        many = several(picture)
        if many is None:
            return cast(MultiPrediction, only(self.predict_all(cast(Many, [picture]), store=store, level=level)))
        return list(self.predict_all(many, store=store, level=level))

    @checked
    def explain(
        self, picture: One, *, store: FeatureStore | None = None, **options: Unpack[ExplainKeywords]
    ) -> dict[str, Explanation]:
        """Explain the decisions about one picture: each question, or each label that is given.

        Args:
            picture: one picture.
            store: cache of features between runs; default: no cache.
            **options: options of :class:`seewhy.evidence.explain.ExplainOptions`; ``target`` is the only decision to
                explain, which may also be a label that is not given.
        """
        target = options.pop("target", None)
        found = cast(MultiPrediction, self.predict(picture, store=store))
        return {
            name: self.decisions[name].explain(picture, store=store, **self.aimed(name), **options)
            for name in found.asked(None if target is None else str(target))
        }

    def aimed(self, name: str) -> dict[str, Any]:
        """Return the option with which a decision is explained: a label is explained, not its absence."""
        return {"target": name} if self.kind == "labels" else {}

    @checked
    def save(self, folder: str | Path) -> Path:
        """Save each decision to a subfolder, from which ``seewhy.load`` reads it, and a card that lists them."""
        folder = OUTPUTS.check(Path(folder))
        rows = []
        if isinstance(self.shared, Path):
            if self.shared.resolve() != (folder / SHARED).resolve():
                files = sorted(self.shared.iterdir(), key=lambda file: file.suffix == ".json")  # its card is last
                write_together(folder / SHARED, {file.name: read_file(file, MAX_TENSORS) for file in files})
        elif self.shared is not None:
            self.shared.save(folder / SHARED)
        for name, place in places(self.decisions).items():
            self.decisions[name].save(folder / place)
            rows.append({"name": name, "folder": place, "card": file_sha256(folder / place / CARD)})
        measures = [m.to_json() for m in self.measures.values()]
        card = {
            "format": FORMAT, "seewhy": version("seewhy"), "kind": self.kind, "decisions": rows, "aim": str(self.aim),
            "tuned": self.shared is not None, "measures": measures, "left_out": dict(self.left_out),
        }  # fmt: skip
        write_inside(folder / OUTPUTS.card, OUTPUTS.written(card))
        return folder

    def __repr__(self) -> str:
        return f"MultiOutput({self.kind}: {', '.join(self.decisions)}; {self.encoder.name!r})"


def places(names: Iterable[str]) -> dict[str, str]:
    """Return a portable folder name for each decision."""
    found: dict[str, str] = {}
    for name in names:
        stem = safe_stem(re.sub(r"[./\\]", "_", name))
        if stem.casefold() in (SHARED, *(one.casefold() for one in found.values())):
            stem = f"{stem}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        found[name] = stem
    return found


def held_out(name: str, one: Classifier) -> tuple[Float[Tensor, " n"], Bool[Tensor, " n"], Tensor]:
    """Return the probabilities of a label on held-out pictures, whether these have it, and their groups."""
    held = one.held_out
    if held is None or held.logits is None:
        return torch.empty(0), torch.empty(0, dtype=torch.bool), torch.empty(0, dtype=torch.long)
    k = one.classes.index(name)
    groups = torch.arange(len(held.labels)) if held.groups is None else held.groups
    return held.logits.softmax(1)[:, k], held.labels == k, groups


@checked
def load_multi(folder: str | Path, *, engine: str = "auto", encoder: Encoder | str | None = None) -> MultiOutput:
    """Load a model that makes several decisions; see :func:`seewhy.load`."""
    folder = Path(folder)
    card = OUTPUTS.load_card(folder)
    with OUTPUTS.reading(folder):
        rows = [(str(row["name"]), folder / _plain(row["folder"]), row["card"]) for row in card["decisions"]]
        measures = {row["label"]: LabelMeasure(**{**row, **_ends(row)}) for row in card["measures"]}
        aim, kind, left_out = Aim.parse(card["aim"]), card["kind"], dict(card["left_out"])
        if kind not in ("labels", "questions") or (kind == "labels" and [*measures] != [name for name, *_ in rows]):
            raise ValueError(f"a model of {kind!r} with {len(rows)} decisions and {len(measures)} measures")
    decisions: dict[str, Classifier] = {}
    for name, place, sha256 in rows:
        if place.is_dir() and file_sha256(place / CARD) != sha256:
            raise ModelError(f"{place} was changed after {folder / OUTPUTS.card} was written. {OUTPUTS.again}.")
        decisions[name] = load(place, engine=engine, encoder=encoder)
        encoder = decisions[name].base
    return MultiOutput(kind, decisions, aim, measures, left_out, shared_in(folder))


def _plain(name: Any) -> str:
    if not isinstance(name, str) or "." in name or safe_stem(name) != name:
        raise ValueError(f"the folder of a decision is {name!r}")
    return name


def _ends(row: Mapping[str, Any]) -> dict[str, Any]:
    ends = row["average_precision_interval"]
    return {"average_precision_interval": None if ends is None else tuple(ends)}
