"""A plan by its closed forms: the clock is moved by the work alone, so every number that is told is known before."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_jobs import pack

import simulated_work
from seewhy.scale import plan as plans
from seewhy.scale.inputs import find_input
from seewhy.scale.plan import Plan, plan
from simulated_work import Simulated, make_pictures

LOAD, EACH = 10.0, 0.5


@dataclass
class Clock:
    """Seconds that the work took, and the pictures that it saw."""

    now: float = 0.0
    seen: list[str] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Of a plan that samples 8 pictures after 2, from 4 places."""
    made = Clock()
    monkeypatch.setattr(simulated_work, "time", made)
    monkeypatch.setattr(plans, "time", SimpleNamespace(perf_counter=lambda: made.now))
    for name, number in (("SAMPLE", 8), ("WARM", 2), ("PLACES", 4)):
        monkeypatch.setattr(plans, name, number)

    def read(source: Any, transform: Any) -> Any:
        made.seen.append(Path(str(source)).stem)
        return own(source, transform)

    own = simulated_work.read_picture
    monkeypatch.setattr(simulated_work, "read_picture", read)
    opened = Simulated.open

    def load(work: Simulated) -> Any:
        made.now += LOAD
        return opened(work)

    monkeypatch.setattr(Simulated, "open", load)
    return made


WORK = Simulated(seconds=EACH)


def test_machines_hours_and_money_by_their_formulas(tmp_path: Path, clock: Clock) -> None:
    """10 shards on 3 machines: the busiest has 4 of them, and each loads the model."""
    make_pictures(tmp_path / "photos", 40)
    told = plan(WORK, find_input(tmp_path / "photos", per_shard=4), machines=3, price=72.0)
    assert clock.seen == [str(i) for first in (0, 12, 24, 36) for i in range(first, first + 3)], "spread over all"
    assert (told.n_pictures, told.n_sample, told.per_second, told.load_seconds) == (40, 10, 2.0, LOAD)
    assert told.hours * 3600 == pytest.approx(LOAD + 16 * EACH)
    assert told.machine_hours * 3600 == pytest.approx(3 * LOAD + 40 * EACH)
    assert told.money == 1.0


def test_measuring_ends_when_it_took_long_enough(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "SECONDS", 1.9)
    make_pictures(tmp_path / "photos", 40)
    told = plan(WORK, find_input(tmp_path / "photos", per_shard=4))
    assert (told.n_sample, told.per_second) == (4, 2.0)


def test_fewer_pictures_than_it_takes_to_grow_warm_are_measured_still(tmp_path: Path, clock: Clock) -> None:
    make_pictures(tmp_path / "photos", 1)
    told = plan(WORK, find_input(tmp_path / "photos"))
    assert (told.n_pictures, told.n_sample, told.per_second) == (1, 1, 2.0)


def test_shards_that_cannot_be_read_are_no_pictures(tmp_path: Path, clock: Clock) -> None:
    """Of the four shards that are opened, spread over seven, one is cut off: the mean of the others counts."""
    names = make_pictures(tmp_path / "photos", 30)
    for i, n in enumerate((3, 30, 1, 30, 4, 30, 8)):
        pack(tmp_path / "tars" / f"{i}.tar", tmp_path / "photos", names[:n])
    cut = tmp_path / "tars" / "2.tar"
    cut.write_bytes(cut.read_bytes()[:700])
    told = plan(WORK, find_input(tmp_path / "tars"))
    assert (told.n_pictures, told.counted) == (35, False)
    assert told.n_sample == 3 + 3 + 3 - 2


def test_what_cannot_be_read_is_told_as_a_part_of_the_sample(tmp_path: Path, clock: Clock) -> None:
    make_pictures(tmp_path / "photos", 10, broken=(0, 4, 5))
    told = plan(WORK, find_input(tmp_path / "photos", per_shard=10))
    assert told.failed == 2 / 8
    assert " ".join(list(told.lines())[-1].split()) == "failed 25.0% of the sample could not be read"
    assert "failed" not in "".join(replace(told, failed=0.0).lines())


def test_threads_are_bound_before_the_model_is_loaded(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound: list[tuple[int, float]] = []
    monkeypatch.setattr(plans, "bound_threads", lambda n: bound.append((n, clock.now)))
    make_pictures(tmp_path / "photos", 1)
    for threads in (None, 3):
        plan(WORK, find_input(tmp_path / "photos"), threads=threads)
    assert bound == [(3, LOAD + 2 * EACH)], "after the first plan, and before the second loads"


TOLD = Plan(1_234_567, False, 512, 20.0, 5.0, 2, 1.25, 2.5, 0.35, 0.88, 2_500_000, 999, 0.0)


def test_how_a_plan_is_read() -> None:
    assert [" ".join(line.split()) for line in TOLD.lines()] == [
        "about 1,234,567 pictures, 20.0 a second (measured on 512)",
        "time 1.2 h on each of 2 machines, 2.50 machine hours",
        "money 0.88 at 0.35 per machine and hour",
        "bytes 2.5 MB read, 999 bytes written",
    ]
    for hours, said in (
        (0.5, "30.0 min"),
        (1.0, "1.0 h"),
        (1 / 60, "1.0 min"),
        (30 / 3600, "30 s"),
        (1500, "1,500.0 h"),
    ):
        assert f" {said}, " in list(replace(TOLD, hours=hours, machines=1).lines())[1]
    for size, said in ((1000, "1.0 kB"), (25 * 10**8, "2.5 GB"), (3 * 10**15, "3,000.0 TB")):
        assert list(replace(TOLD, bytes_written=size, bytes_read=None).lines())[-1].split("bytes    ")[1] == (
            f"{said} written"
        )
