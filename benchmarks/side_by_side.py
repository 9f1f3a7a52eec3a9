"""Times programs in turn, so that whatever else the machine does falls on all of them alike."""

from __future__ import annotations

import ctypes
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from statistics import median
from typing import Any


def keep_memory() -> None:
    """glibc keeps what is freed, for all alike; else half of a peer's time is the kernel's clearing of pages."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(-3, 32 << 20)  # M_MMAP_THRESHOLD
            libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def cpu_seconds() -> tuple[float, float]:
    """In user mode and in the kernel, of all threads of this process and of child processes that have ended."""
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime for u in both), sum(u.ru_stime for u in both)


@dataclass
class Times:
    """Seconds of one program, a round each.

    Attributes:
        wall: by the clock on the wall.
        user: CPU seconds in user mode, child processes included.
        sys: CPU seconds in the kernel, child processes included.
    """

    wall: list[float] = field(default_factory=list)
    user: list[float] = field(default_factory=list)
    sys: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return median(self.wall)

    @property
    def best(self) -> float:
        return min(self.wall)

    @property
    def cpu(self) -> list[float]:
        return [user + sys for user, sys in zip(self.user, self.sys, strict=True)]

    @property
    def cpu_best(self) -> float:
        return min(self.cpu)

    @property
    def cpu_median(self) -> float:
        return median(self.cpu)

    @property
    def sys_median(self) -> float:
        return median(self.sys)

    def over(self, other: Times) -> dict[str, float]:
        """How many times as long as the other: by medians and best rounds of the clock and of CPU seconds."""
        names = {"median": "median", "best": "best", "cpu": "cpu_best", "cpu_median": "cpu_median"}
        return {key: round(getattr(self, name) / getattr(other, name), 2) for key, name in names.items()}

    def to_json(self) -> dict[str, float]:
        names = ("median", "best", "cpu_best", "cpu_median", "sys_median")
        return {name: round(getattr(self, name), 4) for name in names}


def in_turn(
    programs: Mapping[str, Callable[[], Any]],
    rounds: int,
    order: Sequence[str] | None = None,
    times: dict[str, Times] | None = None,
) -> dict[str, Times]:
    """Run every program once a round.

    Args:
        programs: by name.
        rounds: how often; what must be warm is run beforehand by the caller.
        order: names within a round; one so short that a single run is mostly noise may stand there several times.
        times: of earlier rounds, to which these are added.
    """
    times = {name: Times() for name in programs} if times is None else times
    for _ in range(rounds):
        for name in order or list(programs):
            wall, (user, sys) = time.perf_counter(), cpu_seconds()
            programs[name]()
            now = cpu_seconds()
            times[name].wall.append(time.perf_counter() - wall)
            times[name].user.append(now[0] - user)
            times[name].sys.append(now[1] - sys)
    return times


@contextmanager
def busy_programs(n: int) -> Iterator[None]:
    """``n`` programs that keep a core busy each, for as long as this is open."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n)]
    try:
        time.sleep(0.5)
        yield
    finally:
        for one in running:
            one.kill()
            one.wait()


def alone_and_beside(
    programs: Mapping[str, Callable[[], Any]], rounds: int, n: int
) -> tuple[dict[str, Times], dict[str, Times]]:
    """Every program once a round alone, and once beside ``n`` busy ones."""
    alone, beside = ({name: Times() for name in programs} for _ in range(2))
    for _ in range(rounds):
        for times, company in ((alone, nullcontext()), (beside, busy_programs(n))):
            with company:
                in_turn(programs, 1, times=times)
    return alone, beside


def ratios(found: Mapping[str, float]) -> str:
    """The ratios as a table shows them."""
    return (
        f"{found['median']:.2f} × (best {found['best']:.2f} ×, CPU {found['cpu_median']:.2f} ×, "
        f"best CPU {found['cpu']:.2f} ×)"
    )
