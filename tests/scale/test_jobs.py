"""A run's folder: one row for each picture whatever stopped it, the same bytes by whomever, and no two runs mixed."""

from __future__ import annotations

import errno
import hashlib
import tarfile
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import ArrowException

from seewhy.errors import DataError, EmptyFolderError, ForeignFileError, InputError
from seewhy.pictures.pairs import load_pairs
from seewhy.progress import Progress
from seewhy.scale import job as jobs
from seewhy.scale.inputs import find_input
from seewhy.scale.reading import status
from seewhy.scale.run import Part, run
from simulated_work import Simulated, make_pictures, rows, vector

PLAIN = Simulated()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    make_pictures(tmp_path / "photos", 23, broken=(4,))
    return tmp_path / "photos"


def do(photos: Path, output: Path, part: str = "1/1", work: Simulated = PLAIN, per_shard: int = 5) -> Any:
    return run(work, find_input(photos, per_shard=per_shard), output, part=Part.read(part))


def files(output: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in output.iterdir()}


def test_every_picture_has_one_row_in_order(photos: Path, tmp_path: Path) -> None:
    progress = Progress()
    report = run(PLAIN, find_input(photos, per_shard=5), tmp_path / "out", progress=progress)
    assert [failure.image for failure in progress.failures] == ["0/4.png"]
    found = rows(tmp_path / "out")
    assert [row["image"] for row in found] == [f"{i * 3 // 23}/{i}.png" for i in range(23)]
    assert (report.done, report.there, report.rows, report.failed) == (5, 0, 23, 1)
    for i, row in enumerate(found):
        if i == 4:
            assert (row["digest"], row["embedding"]) == (None, None)
            assert row["error"].startswith("cannot be decoded") or "damaged" in row["error"]
        else:
            digest = hashlib.sha256((photos / row["image"]).read_bytes()).hexdigest()
            assert (row["digest"], row["embedding"], row["error"]) == (digest, vector(digest).tolist(), None)
    assert pq.read_table(tmp_path / "out").num_rows == 23, "a folder that Parquet's readers take as it is"


def test_parts_together_are_the_whole_and_the_same_bytes(photos: Path, tmp_path: Path) -> None:
    do(photos, tmp_path / "one")
    for part in ("2/3", "3/3", "1/3"):
        do(photos, tmp_path / "three", part)
    assert files(tmp_path / "three") == files(tmp_path / "one")


def test_a_part_is_always_the_same_pictures(photos: Path, tmp_path: Path) -> None:
    report = do(photos, tmp_path / "out", "2/3")
    assert [p.name for p in sorted((tmp_path / "out").glob("*.parquet"))] == [
        "shard-00001-of-00005.parquet",
        "shard-00004-of-00005.parquet",
    ]
    assert (report.n_part, report.n_shards) == (2, 5)
    assert status(tmp_path / "out").missing == ["0", "2-3"]


def test_what_is_there_is_left_and_what_is_damaged_is_done_again(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    do(photos, out)
    before = files(out)
    first, second = sorted(out.glob("*.parquet"))[:2]
    first.write_bytes(first.read_bytes()[:-40])
    second.unlink()
    (out / f".{second.name}.0011.part").write_bytes(b"what a kill left")
    assert status(out).missing == ["0-1"]
    assert do(photos, out).done == 2
    assert files(out) == before
    assert do(photos, out).there == 5


def test_a_shard_whose_names_or_counts_are_none_is_done_again(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    do(photos, out)
    before = files(out)
    first, second = sorted(out.glob("*.parquet"))[:2]
    data = first.read_bytes()
    start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")  # of the footer
    first.write_bytes(data[:start] + data[start:].replace(b"embedding", b"\xec\xfebedding"))
    table = pq.read_table(second)
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, b"n_failed": b"some"}), second)
    assert status(out).missing == ["0-1"]
    assert do(photos, out).there == 3
    assert files(out) == before


def test_a_shard_of_another_run_is_none_of_this(photos: Path, tmp_path: Path) -> None:
    do(photos, tmp_path / "out")
    do(photos, tmp_path / "other", work=Simulated("another"))
    name = "shard-00002-of-00005.parquet"
    (tmp_path / "out" / name).write_bytes((tmp_path / "other" / name).read_bytes())
    assert status(tmp_path / "out").missing == ["2"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"work": Simulated("another")}, "the encoder simulated, not another"),
        ({"per_shard": 6}, "5 pictures per shard, not 6"),
        ({"photos": "more"}, r"other pictures \(.*photos\), not those of .*more"),
    ],
)
def test_two_runs_are_not_mixed(photos: Path, tmp_path: Path, change: dict[str, Any], says: str) -> None:
    do(photos, tmp_path / "out", "1/2")
    make_pictures(tmp_path / "more", 24)
    before = files(tmp_path / "out")
    if "photos" in change:
        change = {"photos": tmp_path / "more"}
    with pytest.raises(
        ForeignFileError,
        match=rf"out belongs to another run: {says}\. Choose another folder, or run with the same input and options",
    ):
        do(**{"photos": photos, "output": tmp_path / "out", **change})
    assert files(tmp_path / "out") == before


def test_another_version_is_refused(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    do(photos, tmp_path / "out")
    monkeypatch.setattr(jobs, "version", lambda _: "9.9")
    with pytest.raises(ForeignFileError, match=r"belongs to another run: seewhy [\d.]+, not 9\.9\."):
        do(photos, tmp_path / "out")


def test_the_same_pictures_elsewhere_are_the_same_run(photos: Path, tmp_path: Path) -> None:
    do(photos, tmp_path / "out", "1/2")
    photos.rename(tmp_path / "mounted")
    do(tmp_path / "mounted", tmp_path / "out")
    assert len(rows(tmp_path / "out")) == 23


def test_two_at_once_leave_what_one_would(photos: Path, tmp_path: Path) -> None:
    do(photos, tmp_path / "one")
    work = Simulated(seconds=0.002)
    errors: list[BaseException] = []

    def both() -> None:
        try:
            do(photos, tmp_path / "two", work=work)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=both) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert files(tmp_path / "two") == files(tmp_path / "one")


def test_a_folder_of_something_else_is_left(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").touch()
    with pytest.raises(ForeignFileError, match=r"out has files that do not belong to a run\. Choose another folder\."):
        do(photos, tmp_path / "out")
    with pytest.raises(
        DataError, match=r"out has no _manifest\.json\. Give the output folder of seewhy index --parquet\."
    ):
        status(tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["thesis.tex"]


def test_a_manifest_that_was_edited_is_told(photos: Path, tmp_path: Path) -> None:
    do(photos, tmp_path / "out")
    manifest = tmp_path / "out" / jobs.MANIFEST
    manifest.write_text(manifest.read_text().replace('"simulated"', '"another"'))
    with pytest.raises(
        ForeignFileError,
        match=(
            r"_manifest\.json was changed or written by another version\. Choose "
            r"another folder for the run\."
        ),
    ):
        status(tmp_path / "out")
    manifest.write_text('{"format": ')
    with pytest.raises(DataError, match=r"_manifest\.json cannot be read: "):
        do(photos, tmp_path / "out")


def test_a_full_disk_stops_with_a_sentence_and_leaves_what_is_whole(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    do(photos, tmp_path / "out", "1/3")
    before = files(tmp_path / "out")

    def full(_self: object, _batch: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_batch", full)
    with pytest.raises(
        DataError, match=r"shard-00001-of-00005\.parquet could not be written: no space left on device\."
    ):
        do(photos, tmp_path / "out")
    assert files(tmp_path / "out") == before


def test_files_that_change_while_they_are_read_are_told(photos: Path, tmp_path: Path) -> None:
    given = find_input(photos, per_shard=5)

    class Copying(Simulated):
        def open(self) -> Any:
            make_pictures(photos / "0" / "late", 1)
            return super().open()

    class Clearing(Simulated):
        def open(self) -> Any:
            for i in (20, 21, 22):
                (photos / "2" / f"{i}.png").unlink()
            return super().open()

    for n, work in enumerate((Clearing(), Copying())):
        with pytest.raises(
            InputError,
            match=(
                r"photos changed while they were read\. Wait until copying has ended, "
                r"then run again with another output folder; files already written are complete\."
            ),
        ):
            run(work, given, tmp_path / f"out-{n}")


@pytest.mark.parametrize("text", ["0/4", "5/4", "2", "1/0", "a/b", "-1/4", ""])
def test_a_part_that_is_none_is_told(text: str) -> None:
    with pytest.raises(
        InputError,
        match=(
            r"--shard must be a part such as 3/16, from 1/16 to 16/16, got .*\. In a Slurm array of "
            r"1-16, write \$SLURM_ARRAY_TASK_ID/16\."
        ),
    ):
        Part.read(text)


def pack(path: Path, folder: Path, names: list[str]) -> None:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name in names:
            tar.add(folder / name, name)


def test_tars_are_shards_and_one_that_is_cut_off_stops_no_other(tmp_path: Path) -> None:
    names = make_pictures(tmp_path / "photos", 12)
    for i in range(3):
        pack(tmp_path / "tars" / f"a-{i}.tar", tmp_path / "photos", names[4 * i : 4 * i + 4])
    whole = (tmp_path / "tars" / "a-1.tar").read_bytes()
    (tmp_path / "tars" / "a-1.tar").write_bytes(whole[:1600])
    report = run(Simulated(), find_input(tmp_path / "tars"), tmp_path / "out")
    assert [one["shard"] for one in report.unread] == ["a-1.tar"]
    assert "a-1.tar cannot be read as an uncompressed tar: " in report.unread[0]["error"]
    assert [row["image"] for row in rows(tmp_path / "out")] == [
        f"a-{i}.tar/{name}" for i in (0, 2) for name in names[4 * i : 4 * i + 4]
    ]
    (tmp_path / "tars" / "a-1.tar").write_bytes(whole)
    report = run(Simulated(), find_input(str(tmp_path / "tars" / "a-{0..2}.tar")), tmp_path / "out")
    assert (report.done, report.there, report.unread) == (1, 2, [])
    assert [row["image"].partition("/")[2] for row in rows(tmp_path / "out")] == names


def test_tables_and_parquet_are_read(tmp_path: Path) -> None:
    names = make_pictures(tmp_path / "photos", 7)
    (tmp_path / "photos" / "t.csv").write_text("image,label\n" + "".join(f"{n},x\n" for n in names))
    run(Simulated(), find_input(tmp_path / "photos" / "t.csv", per_shard=3), tmp_path / "csv")
    assert [row["image"] for row in rows(tmp_path / "csv")] == names
    data = [(tmp_path / "photos" / n).read_bytes() for n in names]
    (tmp_path / "pq").mkdir()
    pq.write_table(
        pa.table({"image": [{"bytes": d, "path": "x"} for d in data], "n": names}), tmp_path / "pq" / "0.parquet"
    )
    pq.write_table(pa.table({"jpg": [*data[:2], None]}), tmp_path / "pq" / "1.parquet")
    report = run(Simulated(), find_input(tmp_path / "pq"), tmp_path / "out")
    assert "1.parquet has no column of pictures among 'jpg'." in report.unread[0]["error"]
    assert [(row["image"], row["digest"]) for row in rows(tmp_path / "out")] == [
        (f"0.parquet/{i}", hashlib.sha256(d).hexdigest()) for i, d in enumerate(data)
    ]
    run(Simulated(), find_input(tmp_path / "pq" / "1.parquet", column="jpg"), tmp_path / "jpg")
    assert [row["error"] is None for row in rows(tmp_path / "jpg")] == [True, True, False]


def test_nothing_usable_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere does not exist\. Give a folder of pictures, a table ending in"):
        find_input(tmp_path / "nowhere")
    (tmp_path / "a.txt").touch()
    with pytest.raises(DataError, match=r"a\.txt is neither a folder, a table nor a shard\."):
        find_input(tmp_path / "a.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(EmptyFolderError, match=r"empty and its subfolders have no pictures\. Pictures end in"):
        run(Simulated(), find_input(tmp_path / "empty"), tmp_path / "out")
    (tmp_path / "t.csv").write_text("image\n")
    with pytest.raises(DataError, match=r"t\.csv has no file names of pictures\. Add one row per picture\."):
        run(Simulated(), find_input(tmp_path / "t.csv"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="`per_shard` must be at least 1, got 0"):
        find_input(tmp_path, per_shard=0)


def test_names_in_parquet_that_are_no_text_are_told(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": ["moss.png"]}), tmp_path / "a.parquet", compression="none", use_dictionary=False)
    whole = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(whole.replace(b"moss.png", b"\xff\xfess.png"))
    report = run(Simulated(), find_input(tmp_path / "a.parquet"), tmp_path / "out")
    assert "a.parquet " in report.unread[0]["error"]
    with pytest.raises(DataError, match=r"a\.parquet (is not a readable Parquet file|cannot be read)"):
        load_pairs(tmp_path / "a.parquet")


def test_what_a_parquet_reader_says_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and nothing more")
    report = run(Simulated(), find_input(tmp_path / "a.parquet"), tmp_path / "out")
    assert "a.parquet " in report.unread[0]["error"]
    assert not issubclass(DataError, ArrowException)
    assert replace(Simulated(), name="b") != Simulated()
