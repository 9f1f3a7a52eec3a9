"""What a run counts and keeps: rows however many are in memory at once, pictures that failed, shards that are whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from test_jobs import pack

from seewhy.errors import ForeignFileError, InputError
from seewhy.progress import Progress
from seewhy.scale import job as jobs
from seewhy.scale import run as runs
from seewhy.scale.inputs import Folder, Shard, Tars, find_input
from seewhy.scale.job import Job, Survey, claim
from seewhy.scale.reading import status
from seewhy.scale.run import run
from simulated_work import Simulated, make_pictures, rows

WORK = Simulated()


@dataclass(frozen=True)
class Deciding(Simulated):
    verb = "predict"


def test_a_survey_counts_where_nothing_has_to_be_opened(tmp_path: Path) -> None:
    names = make_pictures(tmp_path / "photos", 5)
    pack(tmp_path / "tars" / "a.tar", tmp_path / "photos", names)
    found = Survey.of(find_input(tmp_path / "photos", per_shard=2))
    assert (found.n_pictures, found.per_shard, len(found.digests)) == (5, 2, 3)
    assert Survey.of(find_input(tmp_path / "tars")).n_pictures is None

    class Both(Folder):
        def shards(self) -> Iterator[Shard]:
            yield from Tars(str(tmp_path / "tars")).shards()
            yield from super().shards()

    mixed = Survey.of(Both(str(tmp_path / "photos")))
    assert (mixed.n_pictures, mixed.per_shard) == (None, None)
    turned = Survey(found.kind, found.place, found.digests[::-1], 5, 2)
    assert turned.digest != found.digest


def test_names_of_shards_sort_however_many_there_are() -> None:
    named = [Job(Path("out"), {"digest": "", "n_shards": n}).name(3) for n in (5, 1_000_000)]
    assert named == ["shard-00003-of-00005.parquet", "shard-0000003-of-1000000.parquet"]


def test_a_shard_in_the_place_of_another_is_not_there(tmp_path: Path) -> None:
    make_pictures(tmp_path / "photos", 6)
    out = tmp_path / "out"
    run(WORK, find_input(tmp_path / "photos", per_shard=2), out)
    shutil.copy(out / "shard-00001-of-00003.parquet", out / "shard-00002-of-00003.parquet")
    assert status(out).missing == ["2"]


@pytest.mark.parametrize("in_hand", [2, 3, 7, 100])
def test_rows_are_the_same_however_many_are_in_memory(
    in_hand: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = make_pictures(tmp_path / "photos", 7)
    monkeypatch.setattr(jobs, "IN_HAND", in_hand)
    run(WORK, find_input(tmp_path / "photos"), tmp_path / "out")
    assert [row["image"] for row in rows(tmp_path / "out")] == names
    (path,) = (tmp_path / "out").glob("*.parquet")
    assert pq.read_metadata(path).num_row_groups == -(-7 // in_hand)


def test_all_that_failed_are_counted_and_the_first_are_named(tmp_path: Path) -> None:
    """Six shards with nine broken pictures each: five of a shard are named, and twenty of a run."""
    make_pictures(tmp_path / "photos", 60, broken=tuple(i for i in range(60) if i % 10))
    heard, given = Progress(), find_input(tmp_path / "photos", per_shard=10)
    report = run(WORK, given, tmp_path / "out", progress=heard)
    assert (report.done, report.rows, report.failed) == (6, 60, 54)
    assert len(heard.failures) == 20
    assert [Path(one.image).stem for one in heard.failures[:6]] == ["1", "2", "3", "4", "5", "11"]
    found = status(tmp_path / "out")
    assert (found.rows, found.failed, found.missing) == (60, 54, [])
    again = run(WORK, given, tmp_path / "out")
    assert (again.done, again.there, again.failed) == (0, 6, 0)


def test_a_shard_without_pictures_is_done_and_one_that_cannot_be_read_is_noted(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("nothing to see")
    pack(tmp_path / "tars" / "a.tar", tmp_path, ["t.txt"])
    (tmp_path / "tars" / "b.tar").write_bytes(b"no tar at all")
    heard = Progress()
    report = run(WORK, find_input(tmp_path / "tars"), tmp_path / "out", progress=heard)
    assert (report.done, report.rows) == (1, 0)
    told = report.unread
    assert [one["shard"] for one in told] == ["b.tar"]
    assert "b.tar cannot be read" in told[0]["error"]
    assert heard.notes == [f"The shard b.tar was skipped: {told[0]['error']}"]


def test_names_that_are_no_text_are_written_as_they_can_be(tmp_path: Path) -> None:
    make_pictures(tmp_path / "photos", 1)
    odd = bytes(tmp_path / "photos") + b"/0/1\xff.png"
    Path(odd.decode("utf-8", "surrogateescape")).write_bytes((tmp_path / "photos" / "0" / "0.png").read_bytes())
    run(WORK, find_input(tmp_path / "photos"), tmp_path / "out")
    assert [row["image"] for row in rows(tmp_path / "out")] == ["0/0.png", "0/1\\udcff.png"]


def test_what_a_folder_was_begun_with_is_said_wherever_it_differs(tmp_path: Path) -> None:
    names = make_pictures(tmp_path / "photos", 4)
    pack(tmp_path / "tars" / "a.tar", tmp_path / "photos", names)
    photos = Survey.of(find_input(tmp_path / "photos"))
    model = WORK.open().model
    job = claim(tmp_path / "out", "embed", photos, model)
    assert job.facts["input"]["n_pictures"] == 4
    with pytest.raises(
        ForeignFileError,
        match=(
            r"out belongs to another run: verb embed, not predict\. Choose another folder, or "
            r"run with the same input and options as before\."
        ),
    ):
        claim(tmp_path / "out", "predict", photos, model)
    fewer = type(model)(model.identity, model.columns[:1])
    with pytest.raises(
        ForeignFileError, match=r"belongs to another run: columns \['image', 'digest', 'embedding', 'error'\]"
    ):
        claim(tmp_path / "out", "embed", photos, fewer)
    with pytest.raises(
        ForeignFileError, match=r"Choose another folder, or run with the same input and options as before\."
    ):
        claim(tmp_path / "out", "embed", Survey.of(find_input(tmp_path / "tars")), model)
    assert claim(tmp_path / "out", "embed", photos, model).digest == job.digest
    run(Deciding(), find_input(tmp_path / "photos"), tmp_path / "decisions")
    assert status(tmp_path / "decisions").verb == "predict"


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2}, {"digest": 7}, {"n_shards": True}, {"n_shards": -1}, {"n_shards": 1_000_001}, {"verb": None},
        {"columns": "image"}, {"input": {"kind": "folder"}},
    ],
)  # fmt: skip
def test_a_manifest_of_another_make_is_told(change: dict[str, Any], tmp_path: Path) -> None:
    make_pictures(tmp_path / "photos", 2)
    run(WORK, find_input(tmp_path / "photos"), tmp_path / "out")
    manifest = tmp_path / "out" / jobs.MANIFEST
    facts = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(facts))
    assert status(tmp_path / "out").n_shards == 1, "as it is, it is read"
    manifest.write_text(json.dumps(facts | change))
    with pytest.raises(
        ForeignFileError,
        match=(
            r"_manifest\.json was changed or written by another version\. Choose "
            r"another folder for the run\."
        ),
    ):
        status(tmp_path / "out")


def test_shards_that_came_or_went_at_the_end_are_told(tmp_path: Path) -> None:
    make_pictures(tmp_path / "photos", 4)
    given = find_input(tmp_path / "photos", per_shard=2)
    report, survey = runs.Run("out"), Survey.of(given)
    job = claim(tmp_path / "out", "embed", survey, WORK.open().model)
    shutil.copytree(tmp_path / "photos" / "0", tmp_path / "photos" / "9")
    with pytest.raises(InputError, match=r"photos changed while they were read\."):
        list(runs.missing(given, survey, job, runs.WHOLE, report))
    fewer = Survey.of(find_input(tmp_path / "photos", per_shard=1))
    with pytest.raises(InputError, match=r"photos changed while they were read\."):
        list(runs.missing(Firsts(str(tmp_path / "photos"), 1), fewer, job, runs.WHOLE, report))


class Firsts(Folder):
    """Loses its last shard."""

    def shards(self) -> Iterator[Shard]:
        yield from list(super().shards())[:-1]


def test_threads_are_shared_by_the_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_pictures(tmp_path / "photos", 2)
    given, told = find_input(tmp_path / "photos"), []

    def workers(start: Any, n: int) -> Any:
        told.append((n, start.args[1]))
        return nullcontext(runs.Alone(WORK))

    monkeypatch.setattr(runs, "Workers", workers)
    monkeypatch.setattr(runs, "n_cores", lambda: 8)
    for i, how in enumerate(({"workers": 3, "threads": 7}, {"workers": 2}, {"workers": 9})):
        run(WORK, given, tmp_path / f"out-{i}", **how)
    assert told == [(3, 2), (2, 4), (8, 1)]


def test_one_process_keeps_to_its_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_pictures(tmp_path / "photos", 2)
    bound: list[int] = []
    monkeypatch.setattr(runs, "bound_threads", bound.append)
    for i, threads in enumerate((None, 3)):
        run(WORK, find_input(tmp_path / "photos"), tmp_path / f"out-{i}", threads=threads)
    assert bound == [3]


def test_how_a_status_is_read(tmp_path: Path) -> None:
    make_pictures(tmp_path / "photos", 12, broken=(1, 7))
    given, out = find_input(tmp_path / "photos", per_shard=2), tmp_path / "out"
    for part in ("1/3", "2/3"):
        run(WORK, given, out, part=runs.Part.read(part))
    found = status(out)
    assert list(found.lines()) == [f"{out}: 4 of 6 shards, 8 rows, 2 not readable", "  missing: 2, 5"]
    told = vars(found)
    assert (told["n_missing"], told["missing"], told["rows"], told["failed"]) == (2, ["2", "5"], 8, 2)
    (out / "shard-00001-of-00006.parquet").unlink()
    assert status(out).missing == ["1-2", "5"]
    run(WORK, given, out)
    assert list(status(out).lines()) == [f"{out}: 6 of 6 shards, 12 rows, 2 not readable"]
