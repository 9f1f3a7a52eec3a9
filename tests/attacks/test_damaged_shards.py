"""Shards of ``embed`` that rot, and inputs replaced under their names: no number of then is taken for one of now."""

from __future__ import annotations

import json
import os
import random
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from damage import flipped
from fsspec import filesystem
from PIL import Image
from typer.testing import CliRunner

from schemas import check
from seewhy.cli import app
from seewhy.errors import DataError, InputError
from seewhy.progress import Progress
from seewhy.scale.inputs import find_input
from seewhy.scale.job import read_job
from seewhy.scale.reading import add_run, status, verify
from seewhy.scale.run import run
from simulated_work import Simulated, make_pictures, rows, vector


@dataclass(frozen=True)
class Embedding(Simulated):
    """Says of itself what an encoder's run says."""

    def open(self) -> Any:
        opened = super().open()
        about = {"encoder": self.name, "space": "features", "fingerprint": "abc"}
        return replace(opened, model=replace(opened.model, identity=about))


def added(out: Path) -> list[Any]:
    """What an index is given of a run."""
    index: Any = SimpleNamespace(
        encoder=SimpleNamespace(name="net", fingerprint="abc"),
        settings=SimpleNamespace(parts="none"),
        describe=lambda: {"columns": {"look": 4}},
        add_seen=list,
    )
    return add_run(index, out, Progress())  # type: ignore[return-value]


NAME = "shard-00000-of-00001.parquet"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    make_pictures(folder / "photos", 40, broken=(3,))
    run(Embedding(), find_input(folder / "photos"), folder / "out")
    return folder / "out"


@pytest.fixture
def out(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "out"))


def ran(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [*map(str, arguments)])
    return result.exit_code, result.output


def test_each_flipped_bit_of_a_shard_is_noticed_wherever_it_is_read(whole: Path, out: Path) -> None:
    data, path = (whole / NAME).read_bytes(), out / NAME
    assert not verify(out).damaged
    draw = random.Random(0)
    places = {*range(len(data) - 800, len(data)), *draw.sample(range(len(data)), 400)}
    for place in sorted(places):
        path.write_bytes(flipped(data, place, draw.randrange(8)))
        assert [one.file for one in verify(out).damaged] == [NAME], place
        with pytest.raises(DataError, match="is damaged"):
            added(out)


def test_a_flipped_footer_is_no_shard_and_is_done_again(out: Path) -> None:
    path = out / NAME
    data = path.read_bytes()
    start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    for place in range(start, len(data), 7):
        path.write_bytes(flipped(data, place, place % 8))
        assert status(out).missing == ["0"], place
    report = run(Embedding(), _input(out), out)
    assert (report.done, report.changed) == (1, 0)
    assert path.read_bytes() == data


def _input(out: Path) -> Any:
    return find_input(read_job(out).facts["input"]["place"])


def test_the_manifest_too(out: Path) -> None:
    path = out / "_manifest.json"
    data = path.read_bytes()
    for place in range(0, len(data), 3):
        path.write_bytes(flipped(data, place, place % 8))
        with pytest.raises(DataError, match=r"_manifest\.json"):
            verify(out)


def test_verify_says_which_rows_and_ends_with_2(out: Path) -> None:
    assert ran("index", "--verify", out) == (0, f"{out}: 2 of 2 files are unchanged, 0 damaged\n")
    path = out / NAME
    chunk = pq.read_metadata(path).row_group(0).column(2)
    path.write_bytes(flipped(path.read_bytes(), chunk.data_page_offset + chunk.total_compressed_size // 2, 1))
    code, told = ran("index", "--verify", out)
    assert (code, told.splitlines()) == (
        2,
        [
            f"{out}: 1 of 2 files are unchanged, 1 damaged",
            f"  {NAME}: its rows 1 to 40 were changed",
        ],
    )
    code, told = ran("index", "--verify", out, "--json")
    check("embed", [json.loads(told)])
    assert code == 2
    with pytest.raises(
        InputError,
        match=(r"^--verify and pictures or a change cannot be combined\. Use only one of them\."),
    ):
        CliRunner().invoke(app, ["index", str(out), "--verify", str(out)], catch_exceptions=False)


def test_other_readers_take_the_file_and_can_check_its_pages(out: Path) -> None:
    assert pq.read_table(out / NAME, page_checksum_verification=True).num_rows == 40
    assert pq.ParquetFile(out / NAME, memory_map=True).read().num_rows == 40


def test_a_shard_without_digests_is_damaged(out: Path) -> None:
    table = pq.read_table(out / NAME)
    facts = {key: value for key, value in table.schema.metadata.items() if key not in (b"digests", b"stamp")}
    pq.write_table(table.replace_schema_metadata(facts | {b"n_failed": b"1"}), out / NAME)
    assert verify(out).to_json()["damaged"] == [{"file": NAME, "error": "it has no digests"}]


def make_tar(folder: Path, names: list[str]) -> Path:
    with tarfile.open(folder.parent / "a.tar", "w") as tar:
        for name in names:
            tar.add(folder / name, name)
    return folder.parent / "a.tar"


def make_table(folder: Path, names: list[str]) -> Path:
    (folder / "t.csv").write_text("image\n" + "".join(f"{n}\n" for n in names))
    return folder / "t.csv"


def make_bytes(folder: Path, names: list[str]) -> Path:
    pq.write_table(pa.table({"image": [(folder / n).read_bytes() for n in names]}), folder / "b.parquet")
    return folder / "b.parquet"


def make_names(folder: Path, names: list[str]) -> Path:
    pq.write_table(pa.table({"image": names}), folder / "n.parquet")
    return folder / "n.parquet"


def make_structs(folder: Path, names: list[str]) -> Path:
    pq.write_table(pa.table({"image": [{"bytes": None, "path": n} for n in names]}), folder / "s.parquet")
    return folder / "s.parquet"


def at_an_address(path: Path) -> str:
    """The same on a file system of fsspec's."""
    files = filesystem("memory")
    if files.exists("/attacked"):
        files.rm("/attacked", recursive=True)
    if path.suffix == ".tar":
        files.put(str(path), f"/attacked/{path.name}")
        return f"memory://attacked/{path.name}"
    files.put(str(path if path.is_dir() else path.parent), "/attacked/photos", recursive=True)
    return "memory://attacked/photos" + ("" if path.is_dir() else f"/{path.name}")


INPUTS: dict[str, Callable[[Path, list[str]], Any]] = {
    "folder": lambda folder, _: folder,
    "tar": make_tar,
    "table": make_table,
    "bytes in Parquet": make_bytes,
    "names in Parquet": make_names,
    "structs in Parquet": make_structs,
    "address": lambda folder, _: at_an_address(folder),
    "tar at an address": lambda folder, names: at_an_address(make_tar(folder, names)),
    "table at an address": lambda folder, names: at_an_address(make_table(folder, names)),
}


@pytest.mark.parametrize("kind", INPUTS)
def test_what_is_replaced_under_its_name_is_done_again(kind: str, tmp_path: Path) -> None:
    names = make_pictures(tmp_path / "photos", 9)
    given = INPUTS[kind](tmp_path / "photos", names)
    first = run(Simulated(), find_input(given, per_shard=3), tmp_path / "out")
    assert first.failed == 0
    assert run(Simulated(), find_input(given, per_shard=3), tmp_path / "out").there == first.done
    before = [row["digest"] for row in rows(tmp_path / "out")]
    Image.new("RGB", (9, 8), (200, 1, 7)).save(tmp_path / "photos" / names[4])
    INPUTS[kind](tmp_path / "photos", names)
    report = run(Simulated(), find_input(given, per_shard=3), tmp_path / "out")
    assert (report.done, report.changed, report.there) == (1, 1, first.done - 1)
    now = rows(tmp_path / "out")
    assert [i for i, row in enumerate(now) if row["digest"] != before[i]] == [4]
    assert all(row["embedding"] == vector(row["digest"]).tolist() for row in now)
    assert run(Simulated(), find_input(given, per_shard=3), tmp_path / "out").there == first.done


def test_a_time_that_changed_alone_and_a_file_that_is_gone_cost_no_work(tmp_path: Path) -> None:
    names = make_pictures(tmp_path / "photos", 6)
    given = make_table(tmp_path / "photos", names)
    run(Simulated(), find_input(given, per_shard=3), tmp_path / "out")
    for name in names:
        os.utime(tmp_path / "photos" / name, (1, 1))
    assert run(Simulated(), find_input(given, per_shard=3), tmp_path / "out").there == 2
    (tmp_path / "photos" / names[0]).unlink()
    assert run(Simulated(), find_input(given, per_shard=3), tmp_path / "out").there == 2


def test_a_picture_that_could_not_be_read_and_now_can_is_done_again(tmp_path: Path) -> None:
    names = make_pictures(tmp_path / "photos", 3, broken=(1,))
    assert run(Simulated(), find_input(tmp_path / "photos"), tmp_path / "out").failed == 1
    shutil.copy(tmp_path / "photos" / names[0], tmp_path / "photos" / names[1])
    report = run(Simulated(), find_input(tmp_path / "photos"), tmp_path / "out")
    assert (report.done, report.failed, report.changed) == (1, 0, 1)
