"""Would another representation help? Several encoders on the same pictures, and which differences are real."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..classifiers.linear.recipe import Linear
from ..encoders.base import Encoder
from ..errors import InputError
from ..pictures.samples import Samples
from ..progress import Progress
from ..report.paging import Answer
from ..storage.features import FeatureStore
from .differences import Measure, compared, said_of, standings
from .material import Material, classifier_text, look_with_each
from .records import cell_records
from .transfer_tasks import Corrupted, FewShot, LabelPart, Neighbours, OwnClass, Task, Values


@dataclass(frozen=True, repr=False)
class TransferFindings(Answer):
    """What the study found; ``data`` is the documented JSON (docs/json.md)."""

    def to_html(self) -> str:
        from ..report.transfer import render_transfer

        return render_transfer(self.data)


@dataclass(frozen=True)
class TransferStudy:
    """Ask several encoders the same, on the same pictures, and tell which differences are real.

    Linear classifiers on few pictures per class, on parts of the labels and on all of them, the vote of the nearest,
    retrieval of the own class, and corrupted pictures: the protocol of transfer of ConVIRT (Zhang et al. 2020,
    arXiv:2010.00747: 1, 10 and 100 % of the labels, 5 draws) and of later papers, on frozen features. Every picture is
    looked at once by each encoder, corrupted ones once for each corruption. See :func:`.differences.compared`
    for how differences are judged.

    Args:
        shots: pictures per class.
        parts: of the labels, beside all of them.
        n_seeds: draws of few pictures and of parts.
        n_corrupted: test pictures that are corrupted, at most; 0 for none.
        recipe: what is fitted.
        held_out: part of the pictures that is tested on, those of the same thing together, where none are given.
        level: of intervals, and 1 less what corrected p values must be below.
        seed: of the split and the draws.
    """

    shots: tuple[int, ...] = (1, 2, 4, 8, 16)
    parts: tuple[float, ...] = (0.01, 0.1)
    n_seeds: int = 5
    n_corrupted: int = 300
    recipe: Linear = field(default_factory=lambda: Linear(n_crops=0))
    held_out: float = 0.2
    level: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        least: dict[str, tuple[float, float]] = {"n_seeds": (self.n_seeds, 2), "n_corrupted": (self.n_corrupted, 0)}
        least |= {f"shots {k}": (k, 1) for k in self.shots}
        for name, (given, at_least) in least.items():
            if given < at_least:
                raise InputError(f"{name} is {given}. At least {at_least:g} was expected. Give more.")
        for part in self.parts:
            if not 0 < part < 1:
                raise InputError(
                    f"The part of the labels {part:g} was given. A number above 0 and below 1 was expected, as all "
                    "labels are asked anyway. Give 0.1, say."
                )

    def run(
        self,
        encoders: Mapping[str, Encoder],
        samples: Samples,
        folder: Path | None = None,
        *,
        test: Samples | None = None,
        store: FeatureStore | None = None,
        progress: Progress | None = None,
        pairs: Sequence[tuple[str, str]] | None = None,
    ) -> TransferFindings:
        """Look, measure every cell that is not in the journal yet, and compare."""
        if not encoders:
            raise InputError("No encoder was given. One or more were expected. Give lite0 and lite2, say.")
        progress = progress or Progress()
        materials = look_with_each(
            encoders, samples, self.recipe, held_out=self.held_out, seed=self.seed, test=test, store=store,
            progress=progress,
        )  # fmt: skip
        first = next(iter(materials.values()))
        tasks = self._tasks(first, store, progress)
        measures = self._measure(tasks, materials, folder, progress)
        return TransferFindings(self._findings(measures, materials, progress, pairs))

    def _tasks(self, material: Material, store: FeatureStore | None, progress: Progress) -> list[Task]:
        """Those that can be asked of these pictures; of the others it is noted why not."""
        every: list[Task] = [FewShot(k) for k in sorted(set(self.shots))]
        every += [LabelPart(part) for part in sorted({*self.parts, 1.0})]
        every += [Neighbours(), OwnClass()]
        if self.n_corrupted:
            every.append(Corrupted(n_pictures=self.n_corrupted, store=store, progress=progress))
        for task in every:
            if (why := task.why_not(material)) is not None:
                progress.note(why)
        return [task for task in every if task.why_not(material) is None]

    def _measure(
        self, tasks: Sequence[Task], materials: Mapping[str, Material], folder: Path | None, progress: Progress
    ) -> list[Measure]:
        """Every cell, from the journal or anew."""
        planned = [
            (task, name, seed)
            for task in tasks
            for name in materials
            for seed in range(self.seed, self.seed + (self.n_seeds if task.drawn else 1))
        ]
        digests = {name: material.digest() for name, material in materials.items()}
        found: dict[tuple[str, str], dict[str, list[Tensor]]] = defaultdict(lambda: defaultdict(list))
        chosen: dict[tuple[Task, str], float | None] = {}
        with cell_records(folder) as records:
            for task, name, seed in progress.track(iter(planned), "Measuring", len(planned)):
                key = f"{digests[name]} {task!r} {seed}"
                row = records.done.get(key)
                if row is None:
                    values, c = task.measured(materials[name], seed, chosen.get((task, name)))
                    row = {"key": key, "values": written(values), "cell": {"encoder": name, "C": c}}
                    records.add(row)
                chosen.setdefault((task, name), row["cell"]["C"])
                for measure, numbers in row["values"].items():
                    found[task.family, measure][name].append(read(numbers))
        return [
            Measure(measure, family, torch.stack([torch.stack(by_name[name]) for name in materials]))
            for (family, measure), by_name in found.items()
        ]

    def _findings(
        self,
        measures: Sequence[Measure],
        materials: Mapping[str, Material],
        progress: Progress,
        pairs: Sequence[tuple[str, str]] | None,
    ) -> dict[str, Any]:
        material = next(iter(materials.values()))
        names = list(materials)
        groups = material.pictures.groups[material.test]
        tables = compared(measures, names, groups, self.level, pairs)
        n_compared = sum(len(t["differences"]) for t in tables)
        sentence = f"{said_of(tables, names)} ({self.level:.0%}, corrected for {n_compared} comparisons)."
        return {
            "study": "transfer",
            "sentence": sentence,
            "n": len(material.labels),
            "n_learn": len(material.pool),
            "n_test": len(material.test),
            "n_groups": len(groups.unique()),
            "n_classes": len(material.classes),
            "encoders": [
                {"name": name, "fingerprint": m.encoder.fingerprint[:12], "width": m.tested.shape[1]}
                for name, m in materials.items()
            ],
            "standings": standings(tables, names),
            "measures": tables,
            "settings": {
                "n_seeds": self.n_seeds, "level": self.level, "seed": self.seed,
                "n_corrupted": self.n_corrupted, "n_compared": n_compared,
                "classifier": classifier_text(self.recipe),
            },
            "notes": list(progress.notes),
            "failures": [f.to_json() for f in progress.failures],
        }  # fmt: skip


def written(values: Values) -> dict[str, list[float | None]]:
    """Numbers as the journal keeps them: whole ones short, those that were not asked as ``null``.

    >>> written({"R@1": torch.tensor([1.0, torch.nan, 0.123456])})
    {'R@1': [1, None, 0.12346]}
    """

    def one(value: float) -> float | None:
        if value != value:
            return None
        return int(value) if value == int(value) else round(value, 5)

    return {name: [one(v) for v in numbers.tolist()] for name, numbers in values.items()}


def read(numbers: Sequence[float | None]) -> Tensor:
    """The same back."""
    return torch.tensor([torch.nan if v is None else v for v in numbers], dtype=torch.double)
