"""The paper's search: convolutions first, then dense layers on the best of them, chosen on pictures held out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from small_cnn import SmallCNN, Topology
from torch import Tensor

from seewhy.progress import Progress
from seewhy.studies.study import StudyRecords, records_in

CONVS, FILTERS = (1, 2, 3), (16, 32, 64, 128)
DENSE, UNITS = (1, 2, 3), (32, 64, 128, 256, 512, 1024, 2048, 4096)


@dataclass(frozen=True)
class Material:
    """Pictures of the search, all of them from training.

    Attributes:
        pixels: of 0 to 1.
        labels: index of each one's class.
        chosen_on: those that nothing is trained on, and topologies are chosen by.
        digest: of pictures and division.
    """

    pixels: Float[Tensor, "n 3 h w"]
    labels: Int[Tensor, " n"]
    chosen_on: Tensor
    digest: str

    def score(self, recipe: SmallCNN) -> float:
        """Part of the held-out pictures on which such a network is right."""
        own = ~self.chosen_on
        trunk, head, last = recipe.train_on(self.pixels[own], self.labels[own], 2)
        with torch.no_grad():
            parts = self.pixels[self.chosen_on].split(256)
            said = torch.cat([last(head(trunk(part))).argmax(1) for part in parts])
        return float((said == self.labels[self.chosen_on]).float().mean())


@dataclass(frozen=True)
class Search:
    """What is tried.

    Attributes:
        recipe: of every network, but for its topology and its seed.
        convs: numbers of convolutions.
        filters: numbers of filters.
        dense: numbers of dense layers, tried on the best convolutions.
        units: numbers of units.
        n_seeds: networks of each topology.
    """

    recipe: SmallCNN
    convs: Sequence[int] = CONVS
    filters: Sequence[int] = FILTERS
    dense: Sequence[int] = DENSE
    units: Sequence[int] = UNITS
    n_seeds: int = 1

    def first(self) -> list[Topology]:
        """Convolutions alone."""
        return [Topology(c, f, 0, 1) for c in self.convs for f in self.filters]

    def second(self, best: Topology) -> list[Topology]:
        """The best of them under dense layers."""
        return [Topology(best.n_convs, best.n_filters, d, u) for d in self.dense for u in self.units]

    def run(self, material: Material, folder: Path | None, progress: Progress) -> list[dict[str, Any]]:
        """Every topology with what it is right on, in the order tried; a stopped search goes on from the folder."""
        with records_in(folder) as records:
            one = self._measured(self.first(), material, records, progress, "convolutions")
            best = best_of(one)
            two = self._measured(self.second(_topology(best)), material, records, progress, "dense layers")
        return [*one, *two]

    def _measured(
        self, topologies: Sequence[Topology], material: Material, records: StudyRecords, progress: Progress, part: str
    ) -> list[dict[str, Any]]:
        found = []
        for topology in progress.track(topologies, f"Trying {part}", len(topologies)):
            scores = [self._cell(topology, seed, material, records) for seed in range(self.n_seeds)]
            found.append(
                {
                    "topology": str(topology),
                    "part": part,
                    **vars(topology),
                    "n_weights": topology.n_weights(self.recipe.side, 2),
                    "right": round(sum(scores) / len(scores), 4),
                    "by_seed": [round(score, 4) for score in scores],
                }
            )
        return found

    def _cell(self, topology: Topology, seed: int, material: Material, records: StudyRecords) -> float:
        recipe = replace(self.recipe, **vars(topology), seed=self.recipe.seed + seed)
        said = json.dumps([material.digest, recipe.parameters()], sort_keys=True)
        key = hashlib.sha256(said.encode()).hexdigest()[:32]
        row = records.row(key, lambda: {"right": material.score(recipe), "kept": str(topology)})
        return float(row["right"])


def best_of(rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The one that is right most often; of equals the smallest.

    Example:
        >>> best_of([{"right": 0.8, "n_weights": 9}, {"right": 0.9, "n_weights": 7}, {"right": 0.9, "n_weights": 5}])
        {'right': 0.9, 'n_weights': 5}
    """
    return min(rows, key=lambda row: (-row["right"], row["n_weights"]))


def _topology(row: dict[str, Any]) -> Topology:
    return Topology(*(row[name] for name in ("n_convs", "n_filters", "n_dense", "n_units")))
