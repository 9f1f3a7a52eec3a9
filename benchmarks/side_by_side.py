"""Times programs in turn, so that whatever else the machine does falls on all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any


@dataclass
class Times:
    """Seconds of one program, a round each.

    Attributes:
        wall: by the clock on the wall.
        cpu: of all threads of this process.
    """

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return median(self.wall)

    @property
    def best(self) -> float:
        return min(self.wall)

    @property
    def cpu_best(self) -> float:
        return min(self.cpu)

    def over(self, other: Times) -> dict[str, float]:
        """How many times as long as the other: by medians, by best rounds, by best CPU seconds."""
        return {
            "median": round(self.median / other.median, 2),
            "best": round(self.best / other.best, 2),
            "cpu": round(self.cpu_best / other.cpu_best, 2),
        }

    def to_json(self) -> dict[str, float]:
        return {name: round(getattr(self, name), 4) for name in ("median", "best", "cpu_best")}


def in_turn(
    programs: Mapping[str, Callable[[], Any]], rounds: int, order: Sequence[str] | None = None
) -> dict[str, Times]:
    """Run every program once a round.

    Args:
        programs: by name.
        rounds: how often; what must be warm is run beforehand by the caller.
        order: names within a round; one so short that a single run is mostly noise may stand there several times.
    """
    times = {name: Times() for name in programs}
    for _ in range(rounds):
        for name in order or list(programs):
            wall, cpu = time.perf_counter(), time.process_time()
            programs[name]()
            times[name].wall.append(time.perf_counter() - wall)
            times[name].cpu.append(time.process_time() - cpu)
    return times


def ratios(found: Mapping[str, float]) -> str:
    """The three ratios as a table shows them."""
    return f"{found['median']:.1f} × (best {found['best']:.1f} ×, CPU {found['cpu']:.1f} ×)"
