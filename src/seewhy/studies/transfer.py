"""Would another representation help? Several encoders on the same pictures, and which differences are real."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..classifiers.linear.recipe import Linear
from ..encoders.base import Encoder
from ..errors import InputError
from ..pictures.samples import Samples
from ..progress import Progress
from ..storage.features import FeatureStore
from . import pages
from .differences import Measure, compared, said_of, standings
from .material import Material, classifier_text, look_with_each
from .records import Row, measured
from .study import Findings, beside
from .transfer_tasks import Corrupted, FewShot, LabelPart, Neighbours, OwnClass, Task, Values


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
        least = [("n_seeds", self.n_seeds, 2), ("n_corrupted", self.n_corrupted, 0)]
        for name, given, at_least in least + [(f"shots {k}", k, 1) for k in self.shots]:
            if given < at_least:
                raise InputError(f"{name} is {given}. At least {at_least} was expected. Give more.")
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
    ) -> Findings:
        """Look, measure every cell that is not in the journal yet, and compare."""
        if not encoders:
            raise InputError("No encoder was given. One or more were expected. Give lite0 and lite2, say.")
        progress = progress or Progress()
        materials = look_with_each(
            encoders, samples, self.recipe, held_out=self.held_out, seed=self.seed, test=test, store=store,
            progress=progress,
        )  # fmt: skip
        tasks = self._tasks(next(iter(materials.values())), store, progress)
        measures = self._measured(tasks, materials, folder, progress)
        return Findings(self._findings(measures, materials, progress, pairs), pages.comparison)

    def _tasks(self, material: Material, store: FeatureStore | None, progress: Progress) -> list[Task]:
        """Those that can be asked of these pictures; of the others it is noted why not."""
        every: list[Task] = [FewShot(k) for k in sorted(set(self.shots))]
        every += [LabelPart(part) for part in sorted({*self.parts, 1.0})]
        every += [Neighbours(), OwnClass()]
        if self.n_corrupted:
            every.append(Corrupted(n_pictures=self.n_corrupted, store=store, progress=progress))
        reasons = {task: task.why_not(material) for task in every}
        for reason in reasons.values():
            if reason is not None:
                progress.note(reason)
        return [task for task, reason in reasons.items() if reason is None]

    def _measured(
        self, tasks: Sequence[Task], materials: Mapping[str, Material], folder: Path | None, progress: Progress
    ) -> list[Measure]:
        """Every task of every encoder and draw, as measures."""
        planned = [
            (task, name, seed)
            for task in tasks
            for name in materials
            for seed in range(self.seed, self.seed + (self.n_seeds if task.drawn else 1))
        ]
        digests = {name: material.digest() for name, material in materials.items()}
        chosen: dict[tuple[Task, str], float | None] = {}

        def ask(task: Task, name: str, seed: int) -> Row:
            values, c = task.measured(materials[name], seed, chosen.get((task, name)))
            return {"values": written(values), "cell": {"encoder": name, "C": c}}

        cells = [(f"{digests[n]} {task!r} {seed}", partial(ask, task, n, seed)) for task, n, seed in planned]
        found: dict[tuple[str, str], dict[str, list[Tensor]]] = defaultdict(lambda: defaultdict(list))
        for (task, name, _), row in zip(planned, measured(cells, folder, progress, "Measuring"), strict=True):
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
        material, names = next(iter(materials.values())), list(materials)
        groups = material.pictures.groups[material.test]
        tables = compared(measures, names, groups, self.level, pairs)
        n_compared = sum(len(t["differences"]) for t in tables)
        return {
            "study": "transfer",
            "sentence": f"{said_of(tables, names)} ({self.level:.0%}, corrected for {n_compared} comparisons).",
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
                "n_seeds": self.n_seeds, "level": self.level, "seed": self.seed, "n_corrupted": self.n_corrupted,
                "n_compared": n_compared, "classifier": classifier_text(self.recipe),
            },
            **beside(progress),
        }  # fmt: skip


def written(values: Values) -> dict[str, list[float | None]]:
    """Numbers as the journal keeps them: whole ones short, those that were not asked as ``null``.

    >>> written({"R@1": torch.tensor([1.0, torch.nan, 0.123456])})
    {'R@1': [1, None, 0.12346]}
    """

    def short(value: float) -> float | None:
        if value != value:
            return None
        return int(value) if value == int(value) else round(value, 5)

    return {name: [short(v) for v in numbers.tolist()] for name, numbers in values.items()}


def read(numbers: Sequence[float | None]) -> Tensor:
    """The same back."""
    return torch.tensor([torch.nan if v is None else v for v in numbers], dtype=torch.double)
