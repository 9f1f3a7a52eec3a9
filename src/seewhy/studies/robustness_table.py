"""Accuracy and what becomes of it, in one table that does not exist without either."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..errors import InputError
from ..progress import Progress
from .bootstrap import paired
from .perturbations import PERTURBATIONS
from .real_or_generated_judges import NUMBERS, Judge, Pixels, wrong_alarms

RARE = 0.01
"""A share of made pictures that is nearer to life than one half."""
N_DRAWS, LEVEL = 2000, 0.95


@dataclass(frozen=True)
class Table:
    """Who judges, and what each says of every version of the same pictures.

    Attributes:
        judges: by name, the network first, each with one instance per seed.
        said: judge → version → probability of being made, a row per seed.
        made: whether each picture is.
    """

    judges: Mapping[str, tuple[Judge, ...]]
    said: Mapping[str, Mapping[str, Float[Tensor, "s n"]]]
    made: Bool[Tensor, " n"]

    def __post_init__(self) -> None:
        lacks = [name for name in NUMBERS if name not in self.said]
        lacks += ["a frozen encoder"] * (not any(name.startswith("frozen") for name in self.said))
        for judge, versions in self.said.items():
            lacks += [f"{version} of {judge}" for version in PERTURBATIONS if version not in versions]
        if lacks:
            raise InputError(
                f"The table lacks {', '.join(lacks[:3])}. An accuracy is never told without what becomes of it and "
                "what stands beside it. Measure them, too."
            )

    @classmethod
    def of(
        cls,
        judges: Mapping[str, tuple[Judge, ...]],
        versions: Mapping[str, Pixels],
        made: Bool[Tensor, " n"],
        progress: Progress | None = None,
    ) -> Table:
        """Ask everyone of every version."""
        progress, said = progress or Progress(), {name: {} for name in judges}  # type: ignore[var-annotated]
        for version, pixels in progress.track(versions.items(), "Testing", len(versions)):
            for name, seeds in judges.items():
                said[name][version] = torch.stack([judge(pixels) for judge in seeds])
        return cls(judges, said, made)

    def right(self, judge: str, version: str) -> Float[Tensor, "s n"]:
        """1 where a seed is right."""
        return ((self.said[judge][version] > 0.5) == self.made).double()

    def told(self, seed: int) -> dict[str, Any]:
        """Rows with intervals of the first seed, what the others gave, and how often alarms would be wrong."""
        names, versions = [*self.said], [*PERTURBATIONS]
        sums = torch.stack([torch.stack([self.right(j, v)[0] for v in versions]) for j in names])
        flat = sums.flatten(0, 1).T[..., None]
        drawn = paired(flat, lambda means: means[..., 0], n_draws=N_DRAWS, level=LEVEL, seed=seed)
        rows = [
            {
                "judge": judge,
                "cells": [self._cell(judge, v, drawn, i * len(versions) + k) for k, v in enumerate(versions)],
            }
            for i, judge in enumerate(names)
        ]
        lead = [{"version": v, **_difference(drawn.difference(k, len(versions) + k))} for k, v in enumerate(versions)]
        clean = rows[0]["cells"][0]
        alarms = wrong_alarms(clean["false_alarms"], clean["missed"], RARE)  # type: ignore[index]
        return {"judges": rows, "lead_over_frozen": lead, "wrong_alarms": round(alarms, 4) if alarms == alarms else 0.0}

    def _cell(self, judge: str, version: str, drawn: Any, place: int) -> dict[str, Any]:
        called = self.said[judge][version][0] > 0.5
        return {
            "version": version,
            "right": {"value": round(float(drawn.values[place]), 4), "interval": _rounded(drawn.interval(place))},
            "false_alarms": round(float(called[~self.made].float().mean()), 4),
            "missed": round(float((~called[self.made]).float().mean()), 4),
            "by_seed": _rounded(self.right(judge, version).mean(1).tolist()),
        }


def _difference(found: tuple[float, tuple[float, float], bool]) -> dict[str, Any]:
    value, interval, real = found
    return {"difference": round(value, 4), "interval": _rounded(interval), "real": real}


def _rounded(values: Any) -> list[float]:
    return [round(float(v), 4) for v in values]
