"""Measure prompt learning on learnt classes and on new classes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from ..bounds import Bound, Count, check_fields
from ..classifiers.encoded_set import EncodedSet, HoldOut, encode_labelled, encode_samples
from ..classifiers.fitting import PictureRecipe, recipe_named
from ..classifiers.network import NamesClasses
from ..clusters import grouped
from ..encoders.base import Encoder
from ..errors import DataError, InputError
from ..evaluation.figures import groups_of
from ..learning.adaptation.prompts import as_it_was
from ..pictures.samples import Samples
from ..progress import Progress, shown
from ..report.blocks import points
from ..storage.features import FeatureStore
from ..trust.groups import group_by_looks
from . import pages
from .bootstrap import Measure, compared, standings
from .forgetting import base_and_new, unaware
from .study import Findings, Row, beside, inputs_digest, measured
from .transfer import read, written

BEFORE = "before"
"""Name of the encoder before learning, with class names only."""
LEARNT, NEW, ALL, HARMONIC = "learnt classes", "new classes", "all classes together", "harmonic mean"
ALL_KEPT = {"keep": 1.0, "held_out": 0.0, "n_bank": 0}
Right = Mapping[str, Bool[Tensor, " n"]]


@dataclass(frozen=True, eq=False)
class ClassHalves:
    """Encoded test pictures of learnt and new classes."""

    on: Encoder
    base: tuple[str, ...]
    new: tuple[str, ...]
    seen: EncodedSet
    groups: Int[Tensor, " n"]
    samples: Samples

    @property
    def is_new(self) -> Bool[Tensor, " n"]:
        return self.seen.labels >= len(self.base)

    @property
    def classes(self) -> tuple[str, ...]:
        return (*self.base, *self.new)

    def right(self, scores: Callable[[tuple[str, ...]], Float[Tensor, "n k"]]) -> Right:
        """Return correct predictions among the learnt classes, among the new classes, and among all classes."""
        labels = self.seen.labels
        learnt, new = scores(self.base).argmax(1) == labels, scores(self.new).argmax(1) == labels - len(self.base)
        return {LEARNT: learnt, NEW: new, ALL: scores(self.classes).argmax(1) == labels}


@dataclass(frozen=True)
class BaseToNewStudy:
    """A study that trains on the first half of the classes, and measures the accuracy on both halves.

    This is the protocol of CoCoOp (Zhou et al. 2022, arXiv:2203.05557). Learnt classes are predicted among learnt
    classes, and new classes among new classes. The harmonic mean combines both accuracies. SeeWhy adds the accuracy
    among
    all classes. :func:`.bootstrap.compared` tests the differences.

    Args:
        methods: registered methods that learn prompts, separated by commas.
        shots: numbers of training pictures per class, at least 1.
        n_seeds: number of random draws of these pictures, at least 2; more draws give narrower intervals.
        held_out: fraction of the pictures to test on, 0 to 1, if no test pictures are given; pictures of the same
            object stay together.
        level: confidence level of the intervals, 0.5 to 1; a difference is significant if its corrected p value is
            below 1 - level.
        seed: seed of the split, and first seed of the draws.
        settings: settings of all methods, instead of the defaults.
    """

    methods: tuple[str, ...] = ("coop",)
    shots: tuple[Count, ...] = (1, 4, 16)
    n_seeds: Annotated[int, Bound(2)] = 3
    held_out: float = 0.2
    level: float = 0.95
    seed: int = 0
    settings: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        if not self.methods or len(set(self.methods)) < len(self.methods) or BEFORE in self.methods:
            raise InputError(
                f"`methods` must be one or more different names, such as coop, got {', '.join(self.methods) or 'none'}."
            )
        if not self.shots:
            raise InputError("`shots` must have at least one number, got none.")
        check_fields(self, "the study")

    @shown("Working out the answer")
    def run(
        self,
        on: Encoder,
        samples: Samples,
        folder: Path | None = None,
        *,
        test: Samples | None = None,
        store: FeatureStore | None = None,
        progress: Progress | None = None,
    ) -> Findings:
        """Run the study; results that an earlier run stored in ``folder`` are not computed again."""
        progress = progress or Progress()
        recipes = {name: self._recipe(name) for name in self.methods}
        learn, tested = self._parted(on, samples, test, store, progress)
        before = self._before(tested)
        found = self._learn(recipes, learn, tested, folder, store, progress)
        measures = []
        for k in self.shots:
            arms = [[before] * self.n_seeds, *(found[name, k] for name in self.methods)]
            for measure in (LEARNT, NEW, HARMONIC, ALL):
                values = [torch.stack([values_of(right, measure, tested) for right in arm]) for arm in arms]
                measures.append(Measure(measure, f"{k} per class", torch.stack(values), (0.0, 1.0)))
        return Findings(self._findings(measures, learn, tested, progress), pages.comparison)

    def _recipe(self, name: str) -> PictureRecipe:
        if not {"shots", "keep"} <= {field.name for field in fields(cast(Any, recipe_named(name)))}:
            raise InputError(
                f"`methods` must learn prompts from a few pictures, such as coop, got {name!r}. See seewhy adapt "
                "--method."
            )
        return recipe_named(name, dict(self.settings))

    def _parted(
        self, on: Encoder, samples: Samples, test: Samples | None, store: FeatureStore | None, progress: Progress
    ) -> tuple[Samples, ClassHalves]:
        """Return the training pictures, and the encoded test pictures."""
        learn = samples
        if test is None:
            seen = encode_samples(on, samples, HoldOut(self.held_out, self.seed), store=store, progress=progress)
            sides = (seen.subset(rows.nonzero()[:, 0].tolist()) for rows in (~seen.held, seen.held))
            learn, test = (replace(samples, items=tuple(side.items)) for side in sides)
        base, new = base_and_new(replace(learn, classes=samples.classes))
        looked = encode_labelled(on, (*base.classes, *new.classes), test, store, progress)
        if len((looked.labels >= len(base.classes)).unique()) < 2:
            raise DataError(
                f"Both halves of the classes need test pictures, and one half ({len(base.classes)} learnt, "
                f"{len(new.classes)} new classes) has none. Give some with --test."
            )
        groups = groups_of(looked.items)
        if groups is None:
            groups = group_by_looks(looked.pooled, looked.labels, looked.digests).groups
        return base, ClassHalves(on, base.classes, new.classes, looked, groups, test)

    def _before(self, tested: ClassHalves) -> Right:
        text = tested.on.text
        with torch.no_grad():
            image = normalize(text.project(tested.seen.pooled), dim=1)
        return tested.right(lambda names: image @ as_it_was(text, names).T)

    def _learn(
        self,
        recipes: Mapping[str, PictureRecipe],
        learn: Samples,
        tested: ClassHalves,
        folder: Path | None,
        store: FeatureStore | None,
        progress: Progress,
    ) -> dict[tuple[str, int], list[Right]]:
        """Fit every method, size and seed that is not in the journal."""
        cells: list[tuple[Any, ...]] = [
            (replace(cast(Any, unaware(recipe, tested.new)), shots=k, seed=self.seed + i, **ALL_KEPT), name, k)
            for name, recipe in recipes.items() for k in self.shots for i in range(self.n_seeds)
        ]  # fmt: skip
        inputs = [tested.on.fingerprint, [str(s.image) for s in learn.items], tested.base, tested.new]
        digest = inputs_digest([*inputs, tested.seen.digests])[:16]

        def key(how: PictureRecipe, name: str, k: int) -> str:
            return json.dumps([digest, name, how.parameters()])

        def learnt(how: PictureRecipe, name: str, k: int) -> Row:
            told = Progress()
            right = _cell(how, learn, tested, store, told)
            for note in told.notes:
                if "fewer than" in note and note not in progress.notes:
                    progress.note(note)
            values = written({n: v.double() for n, v in right.items()})
            return {"values": values, "cell": {"method": name, "shots": k, "seed": how.seed}}

        rows = measured(cells, key, learnt, folder, progress, "Learning prompts")
        return grouped(
            ((name, k), {n: read(values).bool() for n, values in row["values"].items()}) for (_, name, k), row in rows
        )

    def _findings(
        self, measures: Sequence[Measure], learn: Samples, tested: ClassHalves, progress: Progress
    ) -> dict[str, Any]:
        names = [BEFORE, *self.methods]
        tables = compared(measures, names, tested.groups, self.level)
        won = standings(tables, names)
        for row in (*won, *(row for table in tables for row in table["rows"])):
            row["method"] = row.pop("encoder")
        return {
            "study": "base-to-new",
            "sentence": sentence_of(tables, self.methods, max(self.shots), self.level),
            "n": len(learn.items) + len(tested.seen.labels), "n_learn": len(learn.items),
            "n_test": len(tested.seen.labels), "n_groups": len(tested.groups.unique()),
            "encoder": {"name": tested.on.name, "fingerprint": tested.on.fingerprint[:12]},
            "classes": {"learnt": list(tested.base), "new": list(tested.new)},
            "methods": names, "standings": won, "measures": tables,
            "settings": {
                "n_seeds": self.n_seeds, "shots": list(self.shots), "level": self.level, "seed": self.seed,
                "n_compared": sum(len(t["differences"]) for t in tables),
            },
            **beside(progress),
        }  # fmt: skip


def _cell(how: PictureRecipe, learn: Samples, tested: ClassHalves, store: FeatureStore | None, told: Progress) -> Right:
    made = how.fit(tested.on, learn, store=store, progress=told)
    network, pooled = made.network, tested.seen.pooled
    if not isinstance(network, NamesClasses):
        raise InputError(
            f"`methods` must be able to name new classes, such as coop, got {how.name!r}. See seewhy adapt --method."
        )
    if made.encoder.looks != tested.on.looks:
        pooled = encode_labelled(made.encoder, tested.classes, tested.samples).pooled
    with torch.no_grad():
        return tested.right(lambda names: network.classifier(names).head(pooled))


def values_of(right: Right, measure: str, tested: ClassHalves) -> Float[Tensor, " n"]:
    """Return a number for each test picture, whose mean is the measure; NaN for pictures that are not tested.

    The harmonic mean ``h`` is linearised. A picture ``i`` of a learnt class has the value::

        h + N / N_b dh/db (x_i - b)

        where ``b`` is the accuracy on learnt classes, ``N_b`` the number of their pictures, ``N`` the number of all
        test pictures, and ``x_i`` is 1 if the prediction is right and otherwise 0.
    """
    is_new = tested.is_new
    if measure != HARMONIC:
        asked = torch.ones_like(is_new) if measure == ALL else is_new if measure == NEW else ~is_new
        return right[measure].double().masked_fill(~asked, torch.nan)
    one, other = right[LEARNT].double(), right[NEW].double()
    b, n = one[~is_new].mean(), other[is_new].mean()
    both = (b + n).clamp(min=1e-12)
    by_b, by_n = 2 * n.square() / both.square(), 2 * b.square() / both.square()
    share = is_new.double().mean()
    own = torch.where(is_new, by_n * (other - n) / share, by_b * (one - b) / (1 - share))
    return 2 * b * n / both + own


def sentence_of(tables: Sequence[Mapping[str, Any]], methods: Sequence[str], shots: int, level: float) -> str:
    """Return sentences on the gains and losses of each method at the largest number of pictures per class."""
    changes, verdicts = [], []
    for name in methods:
        parts, real = [], []
        for measure, where in ((LEARNT, "on learnt classes"), (NEW, "on new ones"), (HARMONIC, "in the harmonic mean")):
            table = next(t for t in tables if t["family"] == f"{shots} per class" and t["measure"] == measure)
            d = next(d for d in table["differences"] if (d["a"], d["b"]) == (BEFORE, name))
            parts.append(f"{points(-d['difference'], sign=True)} {where}{'' if d['real'] else ' (not shown)'}")
            if d["real"] and measure != HARMONIC:
                real.append(
                    f"{'loses' if d['difference'] > 0 else 'gains'} {abs(100 * d['difference']):.1f} points {where}"
                )
        verdicts.append(f"{name} {' and '.join(real) or 'shows no real change'}.")
        changes.append(f"{name} {', '.join(parts)}")
    n = sum(len(t["differences"]) for t in tables)
    return (
        f"{' '.join(verdicts)} Change of accuracy against class names alone, in points, with {shots} pictures per "
        f"class: {'; '.join(changes)}. Level: {100 * level:.0f} %, corrected for {n} comparisons."
    )
