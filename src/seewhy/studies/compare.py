"""Compare all applicable methods on the same held-out pictures, within a given time."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..bounds import Bound, InnerPart, Natural, Positive, check_fields
from ..classifiers import classifiers
from ..classifiers.base import Classifier
from ..classifiers.encoded_set import EncodedSet, HoldOut, encode_samples
from ..classifiers.fitting import PictureRecipe, recipe_named
from ..descriptions.base import Descriptions
from ..encoders.base import Encoder
from ..encoders.stream import encode_stream
from ..errors import DataError, InputError, SeeWhyError
from ..explanation.base import Explanation
from ..metrics.calibration import accuracy_interval, calibration_error, reliability
from ..pictures.samples import Samples, gathered
from ..progress import Progress, duration
from ..report.blocks import Block, Cell, Chart, Curve, Document, Dot, Facts, Note, Section, Table, closing, pair, points
from ..report.page import method_name, percent
from ..storage.features import FeatureStore
from ..storage.marks import CHECKPOINT
from ..storage.output import remove, working_folder
from ..types import Failure
from .bootstrap import group_sums, paired, ratio
from .pages import of_difference
from .study import PROGRESS, Findings, Row, StudyRecords, beside, bits, from_bits

T = TypeVar("T")
N_TIMED = 64
"""Test pictures on which the cost of a decision is measured."""
SAME_COST = 1.25
"""Ratio of two decision times up to which they count as equal, because a shared machine varies by this much."""
KINDS = ("where", "like", "words")


class OutOfTimeError(Exception):
    """Raised when the given time is over."""


class Deadline(Progress):
    """Report progress to another reporter, and stop the work when the time is over."""

    def __init__(self, inner: Progress, end: float) -> None:
        super().__init__()
        self.inner, self.end = inner, end

    def track(self, items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
        for item in self.inner.track(items, what, total):
            yield item
            if time.monotonic() > self.end:
                raise OutOfTimeError

    def tell(self, text: str) -> None:
        self.inner.tell(text)

    def doing(self, what: str) -> AbstractContextManager[None]:
        return self.inner.doing(what)

    def measured(self, step: int, terms: Mapping[str, float]) -> None:
        self.inner.measured(step, terms)


@dataclass(frozen=True)
class Held:
    """The training and test pictures, which are the same for all methods."""

    learn: Samples
    test: Samples
    groups: Int[Tensor, " t"]
    digest: str

    @classmethod
    def of(cls, pictures: EncodedSet) -> Held:
        parts = [[i for i, held in enumerate(pictures.held.tolist()) if held is side] for side in (False, True)]
        if not parts[1]:
            raise DataError(
                "No picture can be held out, because all pictures of each class look alike. Add pictures of "
                "other objects, or give test pictures."
            )
        learn, test = (gathered([pictures.items[i] for i in part]) for part in parts)
        digest = hashlib.sha256()
        for one, label, held in zip(pictures.encoded, pictures.labels.tolist(), pictures.held.tolist(), strict=True):
            digest.update(f"|{one.digest} {pictures.classes[label]} {held}".encode())
        return cls(learn, test, pictures.groups[parts[1]], digest.hexdigest()[:20])


@dataclass(frozen=True)
class CompareStudy:
    """A study that fits every applicable method, and tests all methods on the same held-out pictures.

    Each method has its default settings. The results are accuracy, calibration, the time of a training and of a
    prediction, and how often each kind of evidence is believable. Among the methods whose accuracy is within one
    standard error of the best, the recommended method has the fastest predictions. Of methods whose times are within
    25 % of the fastest, it is the most accurate. The reported accuracy of the
    recommended method is unbiased: a method is chosen on one half of the test pictures and measured on the other half,
    and then the halves are exchanged.

    Args:
        only: names of the methods to compare; default: all that apply.
        minutes: time in minutes for all methods together. Methods that train no network run first, and only the total
            time limits them. Each of the other methods gets an equal share of the remaining time. A method that needs
            longer is stopped; it continues if time is left, or in the next run.
        n_explained: number of test pictures for which the evidence of each method is evaluated; with 0, it is not.
        held_out: fraction of the pictures to test on, 0 to 1, if no test pictures are given.
        seed: seed of the split and the resampling.
    """

    only: tuple[str, ...] = ()
    minutes: Positive = 30.0
    n_explained: Natural = 20
    held_out: InnerPart = 0.25
    seed: int = 0
    n_draws: Annotated[int, Bound(100)] = 2000

    def __post_init__(self) -> None:
        check_fields(self, "the study")
        known = [name for name in classifiers if issubclass(classifiers[name], PictureRecipe)]
        if unknown := [name for name in self.only if name not in known]:
            raise InputError(
                f"{unknown[0]!r} is not a method that learns from pictures. Choose one of {', '.join(known)}."
            )

    def run(
        self,
        encoders: Mapping[str, Encoder],
        samples: Samples,
        folder: Path | None = None,
        *,
        test: Samples | None = None,
        descriptions: Descriptions | None = None,
        store: FeatureStore | None = None,
        progress: Progress | None = None,
    ) -> Findings:
        """Fit and test every pair of method and encoder without a record in the folder; fast methods first."""
        progress = progress or Progress()
        start, began = time.monotonic(), time.time_ns()
        end = start + 60 * self.minutes
        held: Held | None = None
        waiting: list[Candidate] = []
        for label, encoder in encoders.items():
            how = HoldOut(self.held_out, self.seed, test, "grouped")
            pictures = encode_samples(encoder, samples, how, store=store, progress=progress)
            held = held or Held.of(pictures)
            waiting += [Candidate(name, label, encoder, held, descriptions, store, self) for name in self._methods()]
        assert held is not None
        waiting.sort(key=lambda one: self._methods().index(one.name))
        with working_folder(folder) as place, StudyRecords(place / PROGRESS) as records:
            rows_by_candidate: dict[Candidate, Row | None] = {}
            runs, late = f"run {held.digest} ", waiting
            while late:
                for i, one in enumerate(late):
                    try:
                        rows_by_candidate[one] = self._row(one, records, place, progress, end, len(late) - i)
                    finally:
                        records.add({"key": f"{runs}{began}", "seconds": round(time.monotonic() - start, 2)})
                late = [one for one in late if rows_by_candidate[one] is None] if time.monotonic() < end else []
            spent = [row["seconds"] for key, row in records.done.items() if key.startswith(runs)]
        stopped = {"skipped": f"Stopped after {self.minutes:g} minutes. Run again to continue."}
        rows = [{"method": one.name, "encoder": one.label, **(rows_by_candidate[one] or stopped)} for one in waiting]
        return Findings(self._findings(rows, held, spent, progress), page)

    def _row(
        self, one: Candidate, records: StudyRecords, folder: Path, progress: Progress, end: float, n_waiting: int
    ) -> Row | None:
        """Return the record of a method, or the reason why it cannot be used; ``None`` if its time was too short."""
        now = time.monotonic()
        share = Deadline(progress, now + (end - now) / (n_waiting if is_slow(one.name) else 1))
        fits = f"fits {one.key}"
        one.spent[:] = records.done.get(fits, {"fits": []})["fits"]
        try:
            return records.row(one.key, partial(one.measure, folder, share))
        except OutOfTimeError:
            return None
        except SeeWhyError as error:
            return {"skipped": str(error)}
        finally:
            if one.key not in records.done and one.spent:
                records.add({"key": fits, "fits": one.spent})

    def _methods(self) -> list[str]:
        """Return the names of the methods that learn from pictures; those that train no network come first."""
        able = [n for n in classifiers if issubclass(classifiers[n], PictureRecipe) and n in (self.only or classifiers)]
        return sorted(able, key=is_slow)

    def _findings(self, rows: Sequence[Row], held: Held, spent: Sequence[float], progress: Progress) -> Row:
        done = [row for row in rows if "right" in row]
        if not done:
            why = "; ".join(f"{row['method']}: {row['skipped']}" for row in rows)
            raise InputError(f"No method could be fitted ({why}). Raise --minutes, or give other pictures.")
        right = torch.tensor([from_bits(row["right"]) for row in done], dtype=torch.double).T
        sums = group_sums(torch.stack([right, torch.ones_like(right)], 2), held.groups)
        resampled = paired(sums, ratio, n_draws=self.n_draws, seed=self.seed)
        best = cheapest_of_the_best(right, done, held.groups)
        expected = read_on_the_other_half(right, done, held.groups, self.seed)
        answers: list[Row] = []
        for i, row in enumerate(done):
            answers.append({
                **{k: v for k, v in row.items() if k not in ("key", "right", "values", "cell")}, **row["values"],
                "against": None if i == best else resampled.change(i, best),
                "pareto": not any(_beats(other, row) for other in done if other is not row),
            })  # fmt: skip
        data: Row = {
            "study": "compare", "n": len(held.learn) + len(held.test), "n_learn": len(held.learn),
            "n_test": len(held.test), "n_classes": len(held.learn.classes), "recommended": answers[best]["method"],
            "encoder": answers[best]["encoder"], "expected_accuracy": round(expected, 4),
            "seconds": round(sum(spent), 1), "n_runs": len(spent), "rows": answers,
            "skipped": [row for row in rows if "skipped" in row],
            "settings": {"seed": self.seed, "minutes": self.minutes, "n_explained": self.n_explained},
            **beside(progress),
        }  # fmt: skip
        return {**data, "sentence": sentence(data)}


@dataclass(frozen=True, eq=False)
class Candidate:
    """A method with an encoder.

    Attributes:
        spent: wall-clock and processor seconds of each fit that led to the checkpoint, including earlier runs.
    """

    name: str
    label: str
    encoder: Encoder
    held: Held
    descriptions: Descriptions | None
    store: FeatureStore | None
    study: CompareStudy
    spent: list[tuple[float, float]] = field(default_factory=list)

    @property
    def key(self) -> str:
        """The key of the record, made from all inputs that the result depends on."""
        texts = json.dumps(None if self.descriptions is None else dict(self.descriptions.texts))
        about = f"{self.held.digest} {self.study.n_explained} {self.study.seed} {texts}"
        return f"{self.encoder.fingerprint[:20]} {self.name} {hashlib.sha256(about.encode()).hexdigest()[:20]}"

    def measure(self, folder: Path, progress: Progress) -> Row:
        """Fit, test and explain; a checkpoint of the training stays in ``folder`` until the result is complete."""
        progress.tell(f"{self.name} …")
        recipe = recipe_named(self.name, {"seed": self.study.seed})
        texts = self.descriptions if "descriptions" in recipe.takes else None
        own = folder / f"{self.name}-{self.encoder.fingerprint[:8]}.checkpoint"
        checkpoint = own if "checkpoint" in recipe.takes else None
        start, work = time.monotonic(), time.process_time()
        if checkpoint is None or not checkpoint.exists():
            self.spent.clear()
        try:
            classifier = recipe.fit(
                self.encoder, self.held.learn, descriptions=texts, store=self.store, progress=progress,
                checkpoint=checkpoint,
            )  # fmt: skip
        finally:
            self.spent.append((time.monotonic() - start, time.process_time() - work))
        seconds, of_processor = (sum(times) for times in zip(*self.spent, strict=True))
        values = {"seconds": seconds, "processor_seconds": of_processor}
        right, confidence = self._tested(classifier, progress)
        low, high = accuracy_interval(right.bool(), self.held.groups)
        values |= {"accuracy": float(right.mean()), "low": low, "high": high}
        values |= {"calibration_error": calibration_error(reliability(confidence, right.bool()))}
        values |= {"milliseconds": self._milliseconds(classifier), **self._believable(classifier, progress)}
        if checkpoint is not None:
            remove(checkpoint, CHECKPOINT)
        return {"right": bits(right.tolist()), "values": {k: round(v, 4) for k, v in values.items()}}

    def _tested(self, classifier: Classifier, progress: Progress) -> tuple[Float[Tensor, " t"], Float[Tensor, " t"]]:
        """Return whether each test picture is predicted correctly, and the probability of the predicted class."""
        items, right, confidence = self.held.test.items, [], []
        stream = encode_stream(classifier.encoder, [s.source for s in items], store=self.store)
        for item, one in zip(items, progress.track(stream, f"Testing {self.name}", len(items)), strict=True):
            if isinstance(one, Failure):
                raise InputError(
                    f"{item.image} could not be read again: {one.error}. Restore the file, then run again."
                )
            p = classifier.head.probabilities(one.pooled[:1])[0]
            confidence.append(float(p.max()))
            right.append(float(classifier.classes[int(p.argmax())] == item.label))
        return torch.tensor(right), torch.tensor(confidence)

    def _milliseconds(self, classifier: Classifier) -> float:
        """Return the wall time of a decision in milliseconds, from the picture file, in batches and without a cache."""
        names = [s.source for s in self.held.test.items[:N_TIMED]]
        for _ in range(2):
            start = time.monotonic()
            list(classifier.predict_all(names))
        return 1000 * (time.monotonic() - start) / len(names)

    def _believable(self, classifier: Classifier, progress: Progress) -> dict[str, float]:
        """Return the share of cards on which each kind of evidence is believable."""
        n = self.study.n_explained
        draw = torch.randperm(len(self.held.test), generator=torch.Generator().manual_seed(self.study.seed))
        names = [self.held.test.items[i].source for i in draw[:n].tolist()]
        stream = classifier.explain_all(names, store=self.store) if names else ()
        cards = [
            {answer.key: answer.level for answer in one.answers}
            for one in progress.track(islice(stream, n), f"Explaining {self.name}", len(names))
            if isinstance(one, Explanation)
        ]
        levels = {kind: [c[kind] for c in cards if c.get(kind, "not measured") != "not measured"] for kind in KINDS}
        return {
            f"believable_{kind}": sum(v == "believable" for v in own) / len(own) for kind, own in levels.items() if own
        }


def is_slow(name: str) -> bool:
    """Return whether a method trains a network."""
    kind: Any = classifiers[name]
    return kind.network is not None or "checkpoint" in kind.takes


def cheapest_of_the_best(right: Float[Tensor, "n m"], rows: Sequence[Row], groups: Int[Tensor, " n"]) -> int:
    """Return the method with the fastest decisions within one standard error of the best accuracy (Breiman et al.
    1984). The standard error is of the difference, over groups of similar-looking pictures. Of equally fast methods,
    the result is the most accurate.
    """
    accuracy = right.mean(0)
    top = int(accuracy.argmax())
    gap = right[:, [top]] - right
    error = group_sums(gap - gap.mean(0), groups).square().sum(0).sqrt() / len(right)
    near = [i for i in range(len(rows)) if float(gap.mean(0)[i]) <= float(error[i])]
    most = SAME_COST * min(rows[i]["values"]["milliseconds"] for i in near)
    cheap = [i for i in near if rows[i]["values"]["milliseconds"] <= most]
    return max(cheap, key=lambda i: (float(accuracy[i]), -rows[i]["values"]["seconds"]))


def read_on_the_other_half(
    right: Float[Tensor, "n m"], rows: Sequence[Row], groups: Int[Tensor, " n"], seed: int
) -> float:
    """Return the accuracy of a method that is chosen on one half of the pictures and measured on the other half."""
    names = groups.unique()
    first = names[torch.randperm(len(names), generator=torch.Generator().manual_seed(seed))[: len(names) // 2]]
    half = torch.isin(groups, first)
    if not bool(half.any()) or bool(half.all()):
        return float(right[:, cheapest_of_the_best(right, rows, groups)].mean())
    read = torch.cat([right[~own, cheapest_of_the_best(right[own], rows, groups[own])] for own in (half, ~half)])
    return float(read.mean())


def _beats(other: Row, row: Row) -> bool:
    """Return whether another method is at least as accurate and as fast, and better in accuracy or speed."""
    a, b = other["values"], row["values"]
    no_worse = a["accuracy"] >= b["accuracy"] and a["milliseconds"] <= b["milliseconds"]
    return bool(no_worse and (a["accuracy"] > b["accuracy"] or a["milliseconds"] < b["milliseconds"]))


def sentence(data: Row) -> str:
    """Return a sentence on the recommended method, its accuracy, and a more accurate method if there is one."""
    row = next(r for r in data["rows"] if r["against"] is None)
    of = f" with {data['encoder']}" if len({r["encoder"] for r in data["rows"]}) > 1 else ""
    right, low, high = (100 * row[key] for key in ("accuracy", "low", "high"))
    of_them = f"{right:.1f} % of {data['n_test']:,} held-out pictures correctly ({low:.0f} to {high:.0f} %)"
    text = f"Use {row['method']}{of}: it predicts {of_them}."
    better = [r for r in data["rows"] if r["against"] and r["against"]["real"] and r["against"]["difference"] > 0]
    if better:
        top = max(better, key=lambda r: r["accuracy"])
        longer = top["milliseconds"] / max(row["milliseconds"], 1e-9)
        text += (
            f" {top['method']} is more accurate ({100 * top['accuracy']:.1f} %) and takes {longer:.1f} times as long."
        )
    elif len(data["rows"]) > 1:
        text += " No other method is shown to be more accurate."
    return text


def page(study: Row) -> Document:
    """Build the page: the methods, their accuracy by decision time, and the methods that were left out."""
    rows = sorted(study["rows"], key=lambda row: -row["accuracy"])
    several = len({row["encoder"] for row in rows}) > 1
    best = next(row for row in rows if row["against"] is None)
    blocks: list[Block] = [
        Note(
            f"Each method learnt from the same {study['n_learn']:,} pictures with its default settings, and was "
            f"tested on the same {study['n_test']:,} pictures. SeeWhy recommends the fastest method whose accuracy is "
            f"within one standard error of the highest accuracy. Times that differ by at most {percent(SAME_COST - 1)} "
            f"count as equal; then the most accurate of these methods is recommended. When SeeWhy chooses the method "
            f"on one half of the test pictures, the accuracy on the other half is "
            f"{percent(study['expected_accuracy'])}."
        ),
        Table(
            (
                "method", *(("encoder",) if several else ()), "right", "95 %", f"against {method_name(best['method'])}",
                "calibration error", "seconds to fit", "ms to decide", "where", "like what", "in words",
            ),
            [_line(row, several) for row in rows],
        ),
        Note("The last three columns show on how many of the explained pictures each kind of evidence is believable."),
        Note(_cost(study["seconds"], study["n_runs"])),
    ]  # fmt: skip
    front = sorted((row["milliseconds"], row["accuracy"]) for row in rows if row["pareto"])
    dots = [
        Dot(row["milliseconds"], row["accuracy"], 5.0, f"{_name(row, several)}: {percent(row['accuracy'])}, "
            f"{row['milliseconds']:.1f} ms", "good" if row["pareto"] else "idle")
        for row in rows
    ]  # fmt: skip
    chart = Chart(
        "Accuracy and the cost of a decision", [Curve(front, "", "", "good")], dots=dots,
        across="milliseconds per picture", log=True, alt="; ".join(dot.title for dot in dots),
    )  # fmt: skip
    legend = Note("Green: no other method is both as accurate and as fast.")
    sections = [Section("Methods", blocks), Section("What accuracy costs", [chart, legend])]
    if study["skipped"]:
        sections.append(Section("Not compared", [Facts({_name(r, several): r["skipped"] for r in study["skipped"]})]))
    first, end, *rest = study["sentence"].partition("). ")
    below = tuple(filter(None, rest))
    return Document("Methods compared", first + end.strip(), [*sections, *closing(study)], "Study of methods", below)


def _cost(seconds: float, n_runs: int) -> str:
    several = f", the sum of its {n_runs} runs. The time to fit a method is the sum of the runs that fitted it"
    return f"The comparison took {duration(seconds)}{several if n_runs > 1 else ''}."


def _name(row: Row, several: bool) -> str:
    return method_name(row["method"]) + (f" with {row['encoder']}" if several else "")


def _line(row: Row, several: bool) -> list[Any]:
    against = row["against"]
    gap: Any = "recommended"
    if against is not None:
        by, interval = against["difference"], pair(against["interval"], True)
        gap = of_difference(by, against["real"], points(by, True), interval)
    shares = [row.get(f"believable_{kind}") for kind in KINDS]
    return [
        Cell(method_name(row["method"]), strong=against is None), *((row["encoder"],) if several else ()),
        percent(row["accuracy"]), pair((row["low"], row["high"])), gap, f"{row['calibration_error']:.3f}",
        f"{row['seconds']:.1f}", f"{row['milliseconds']:.1f}", *(None if v is None else percent(v) for v in shares),
    ]  # fmt: skip
