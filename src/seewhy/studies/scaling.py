"""How many more pictures are needed? A classifier fitted on ever more, and the curve of what it gets right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ..classifiers.linear.recipe import Linear
from ..encoders.base import Encoder
from ..errors import InputError
from ..pictures.samples import Samples
from ..progress import Progress
from ..report.paging import Answer
from ..storage.features import FeatureStore
from .material import Material, look_with_each
from .records import cell_records
from .scaling_cells import Arm, Draws, as_text, cell, check_settings, check_sizes, from_text, sizes
from .scaling_findings import Measured, findings

FEWEST_SEEDS = 2


@dataclass(frozen=True, repr=False)
class ScalingFindings(Answer):
    """What the study found; ``data`` is the documented JSON (docs/json.md)."""

    def to_html(self) -> str:
        from ..report.scaling import render_scaling

        return render_scaling(self.data)


@dataclass(frozen=True)
class ScalingStudy:
    """Fit on growing parts of the pictures, test always on the same others, and foretell what more would bring.

    Every picture is looked at once; what is fitted is the linear classifier of ``seewhy fit``, its regularisation
    chosen at every size on parts of the first subset. The form of the curve is chosen by how well it
    foretells larger sizes that it was not fitted on (:mod:`.learning_curve`); intervals are of seeds, subsets and test
    pictures, and of forms that foretell about as well.

    Args:
        target: the accuracy wanted; left out, what a doubling brings is told.
        n_sizes: of subsets, up to all pictures learnt from.
        n_seeds: subsets of each size.
        draws: ``"nested"``, small subsets within larger ones; ``"independent"``, each drawn anew.
        recipe: what is fitted.
        held_out: part of the pictures that is tested on, those of the same thing together, where none are given.
        beyond: how many times what was seen is the most that is foretold.
        noise: parts of the labels that are wrong, a curve for each.
        n_classes: numbers of classes, a curve for each.
        n_draws: resampled sets.
        seed: of the split, the subsets and the resampling.
    """

    target: float | None = None
    n_sizes: int = 7
    n_seeds: int = 5
    draws: Draws = "nested"
    recipe: Linear = field(default_factory=lambda: Linear(n_crops=0))
    held_out: float = 0.2
    beyond: float = 4.0
    noise: tuple[float, ...] = ()
    n_classes: tuple[int, ...] = ()
    n_draws: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("n_sizes", 3), ("n_seeds", FEWEST_SEEDS), ("beyond", 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)}. At least {least} was expected. Give more.")

    def run(
        self,
        encoders: Mapping[str, Encoder],
        samples: Samples,
        folder: Path | None = None,
        *,
        test: Samples | None = None,
        store: FeatureStore | None = None,
        progress: Progress | None = None,
    ) -> ScalingFindings:
        """Look, fit every cell that is not in the journal yet, and conclude."""
        progress = progress or Progress()
        check_settings(self.target, self.noise, self.n_classes, len(samples.classes))
        materials = self.look(encoders, samples, test, store, progress)
        first = next(iter(encoders))
        arms = [Arm(name) for name in encoders]
        arms += [Arm(first, noise=part) for part in self.noise]
        arms += [Arm(first, n_classes=count) for count in self.n_classes]
        measured = self._measure(arms, materials, folder, progress)
        pictures = materials[first].pictures
        have = len(pictures.labels) if test is None else int((~pictures.held).sum())
        return ScalingFindings(findings(self, measured, materials[first], have, progress))

    def look(
        self,
        encoders: Mapping[str, Encoder],
        samples: Samples,
        test: Samples | None = None,
        store: FeatureStore | None = None,
        progress: Progress | None = None,
    ) -> dict[str, Material]:
        """All pictures once by each encoder, the same held out for all; arguments and errors as for :meth:`run`."""
        found = look_with_each(
            encoders, samples, self.recipe, held_out=self.held_out, seed=self.seed, test=test, store=store,
            progress=progress,
        )  # fmt: skip
        for material in found.values():
            check_sizes(material)
        return found

    def _measure(
        self, arms: Sequence[Arm], materials: Mapping[str, Material], folder: Path | None, progress: Progress
    ) -> list[Measured]:
        """Every cell, from the journal or anew."""
        digests = {name: material.digest() for name, material in materials.items()}
        planned = [
            (arm, size, seed)
            for arm in arms
            for size in sizes(materials[arm.encoder], arm, self.n_sizes)
            for seed in range(self.seed, self.seed + self.n_seeds)
        ]
        found: dict[tuple[Arm, int], list[list[int]]] = {}
        chosen: dict[tuple[Arm, int], float] = {}
        with cell_records(folder) as journal:
            for arm, size, seed in progress.track(iter(planned), "Fitting", len(planned)):
                key = f"{digests[arm.encoder]} {arm.noise} {arm.n_classes} {size} {seed} {self.draws}"
                row = journal.done.get(key)
                if row is None:
                    right, c = cell(materials[arm.encoder], arm, size, seed, self.draws, chosen.get((arm, size)))
                    row = {"key": key, "right": as_text(right), "curve": {"arm": arm.name, "n": size, "C": c}}
                    journal.add(row)
                chosen.setdefault((arm, size), row["curve"]["C"])
                found.setdefault((arm, size), []).append(from_text(row["right"]))
        return [
            Measured(
                arm, [s for a, s in found if a == arm], torch.tensor([r for (a, _), r in found.items() if a == arm])
            )
            for arm in arms
        ]
