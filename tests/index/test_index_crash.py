"""Killed at any moment an index keeps what it reported and nothing else; others read while one writes."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from seewhy.errors import DataError
from seewhy.retrieval import Index
from seewhy.retrieval.catalogue import Catalogue

N, WIDTH, STEP = 1_000_000, 32, 50
WRITER = f"""
import sys, time, torch
from seewhy.retrieval import Index
index = Index.create(sys.argv[1], width={WIDTH}, fingerprint="seeded")
for first in range(len(index), {N}, {STEP}):
    rows = torch.stack([torch.full(({WIDTH},), 1.0).index_fill_(0, torch.tensor([i % {WIDTH}]), i + 2.0)
                        for i in range(first, first + {STEP})])
    index.add_vectors(rows, [str(i) for i in range(first, first + {STEP})])
    print(first + {STEP}, flush=True)
    time.sleep(0.01)  # readers of an index that outgrows them read for minutes
"""


def vector(i: int) -> torch.Tensor:
    row = torch.ones(WIDTH)
    row[i % WIDTH] = i + 2.0
    return row / row.norm()


def start(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def said(process: subprocess.Popen[str]) -> int:
    """The last number it printed, after its end."""
    lines = process.communicate()[0].split()
    return int(lines[-1]) if lines else 0


def check(index: Index) -> None:
    """Every vector belongs to its name."""
    names, known = index.names(), index.vectors()
    assert sorted(map(int, names)) == list(range(len(names)))
    expected = torch.stack([vector(int(n)) for n in names])
    torch.testing.assert_close(known, expected)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="this system has no SIGKILL")
def test_a_kill_loses_nothing_that_was_reported(tmp_path: Path) -> None:
    folder, n_killed, reported = tmp_path / "index", 0, 0
    for wait in (0.35, 0.15, 0.6):
        process = start(folder)
        assert process.stdout is not None
        reported = max(reported, int(process.stdout.readline() or 0))  # importing takes longer than writing
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        n_killed += process.poll() is None
        reported = max(reported, said(process))
        index = Index.open(folder)
        assert reported <= len(index) <= reported + STEP
        check(index)
        index.close()
    assert n_killed >= 1
    assert reported < N, "it was killed in the middle"
    index = Index.open(folder)
    more = torch.stack([vector(i) for i in range(len(index), len(index) + 3)])
    index.add_vectors(more, [str(i) for i in range(len(index), len(index) + 3)])
    check(index)


def test_what_a_killed_writer_left_behind_is_overwritten(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "index", width=WIDTH)
    index.add_vectors(torch.stack([vector(0)]), ["0"])
    with open(index.folder / "look-000001.f32", "ab") as file:
        file.write(b"\xff" * 1000)  # half of a step whose catalogue entry was never made
    assert index.names() == ["0"]
    index.add_vectors(torch.stack([vector(1)]), ["1"])
    check(index)


@pytest.mark.slow
def test_two_readers_and_a_writer(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    process = start(folder)
    assert process.stdout is not None
    readers: list[Index] = []
    sizes = [0]
    for _ in range(10):
        while (reported := int(process.stdout.readline())) <= sizes[-1]:
            pass
        readers = readers or [Index.open(folder), Index.open(folder)]
        for reader in readers:
            names, known = reader.names(), reader.vectors()
            sizes.append(len(names))
            assert len(names) >= reported, "what the writer finished is seen by readers that are open"
            assert len(names) % STEP == 0, "a step is seen whole or not at all"
            i = len(names) - 1
            torch.testing.assert_close(known[names.index(str(i))], vector(i))
            assert reader.nearest(vector(i), 1)[1].scores[0] == pytest.approx(1, abs=1e-5)
    process.kill()
    process.communicate()
    assert sizes == sorted(sizes)


def test_a_second_writer_waits_and_then_is_told(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "index", width=WIDTH)
    index.add_vectors(torch.stack([vector(0)]), ["0"])
    other = sqlite3.connect(index.folder / "catalogue.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    impatient = Catalogue(index.folder, wait=0.1)
    with pytest.raises(DataError) as caught:
        with impatient.writing():
            pass
    assert str(caught.value) == (
        f"Another process is writing to the index {index.folder} and did not finish within 0.1 s. You can "
        "search meanwhile. Add the pictures when it has finished."
    )
    assert index.names() == ["0"]
    other.execute("ROLLBACK")
    with impatient.writing():
        pass
    index.add_vectors(torch.stack([vector(1)]), ["1"])
    check(index)


def test_clearing_away_under_an_open_reader(tmp_path: Path) -> None:
    writer = Index.create(tmp_path / "index", width=WIDTH)
    writer.add_vectors(torch.stack([vector(i) for i in range(200)]), [str(i) for i in range(200)])
    reader = Index.open(writer.folder)
    assert len(reader.names()) == 200
    assert writer.remove(map(str, range(100, 200))) == 100
    assert (writer.folder / "look-000002.f32").exists()
    check(reader)
    assert len(reader.names()) == 100


def test_a_step_that_fails_is_taken_back(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "index", width=WIDTH)
    index.add_vectors(torch.stack([vector(0)]), ["0"])

    def fail() -> None:
        with index._catalogue.writing():
            index._catalogue.remove([1])
            raise RuntimeError("on the way")

    with pytest.raises(RuntimeError, match="on the way"):
        fail()
    check(index)
