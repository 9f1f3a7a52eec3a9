"""What a run will take, held against runs that took it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from test_jobs import pack

from seewhy.errors import DataError
from seewhy.scale.inputs import find_input
from seewhy.scale.plan import plan
from seewhy.scale.run import run
from simulated_work import Simulated, make_pictures

RATE = Simulated(seconds=0.004)


def test_a_plan_is_what_the_run_then_takes(tmp_path: Path) -> None:
    make_pictures(tmp_path / "photos", 150, broken=(3, 90))
    given = find_input(tmp_path / "photos", per_shard=20)
    told = plan(RATE, given, price=2.0)
    start = time.perf_counter()
    run(RATE, given, tmp_path / "out")
    took = time.perf_counter() - start
    assert abs(told.hours * 3600 / took - 1) < 0.5, "a busy machine; benchmarks/scale.py holds it to 0.2"
    assert (told.n_pictures, told.counted, told.n_sample) == (150, True, 118)
    assert 0 < told.failed <= 2 / 118
    assert told.money == round(told.machine_hours * 2.0, 2)
    written = sum(p.stat().st_size for p in (tmp_path / "out").glob("*.parquet"))
    assert 0.2 < told.bytes_written / written < 1.1, "tiny files are mostly their footers"
    read = sum(p.stat().st_size for p in (tmp_path / "photos").rglob("*.png"))
    assert abs(told.bytes_read / read - 1) < 0.1  # type: ignore[operator]
    assert next(iter(told.lines())).startswith("150 pictures, ")


def test_machines_share_shards_and_the_last_takes_longest(tmp_path: Path) -> None:
    names = make_pictures(tmp_path / "photos", 30)
    for i in range(5):
        pack(tmp_path / "tars" / f"{i}.tar", tmp_path / "photos", names[6 * i : 6 * i + 6])
    told = plan(RATE, find_input(tmp_path / "tars"), machines=3)
    assert (told.n_pictures, told.counted, told.money) == (30, False, None)
    assert told.hours / told.machine_hours == pytest.approx(2 / 5, abs=0.02), "two of five shards"
    assert "on each of 3 machines" in list(told.lines())[1]
    assert next(iter(told.lines())).startswith("about 30 pictures")


def test_a_plan_of_nothing_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"")
    with pytest.raises(DataError, match=r"a\.tar names no pictures\. At least one was expected\."):
        plan(RATE, find_input(tmp_path / "a.tar"))
