"""Which pictures lie at an address, in which order and by which column; what leads elsewhere is none."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_jobs import pack

from seewhy.errors import DataError, MissingExtraError
from seewhy.pictures.images import read_picture
from seewhy.scale import places as remote
from seewhy.scale.inputs import find_input
from simulated_work import TRANSFORM, make_pictures

fsspec = pytest.importorskip("fsspec")
ROOT = "memory://places"


@pytest.fixture
def files() -> Iterator[Any]:
    """A file system in memory."""
    found = fsspec.filesystem("memory")
    found.makedirs("/places", exist_ok=True)
    yield found
    found.rm("/places", recursive=True)


def put(files: Any, name: str, data: bytes = b"") -> None:
    files.pipe_file(f"/places/{name}", data)


def items(place: str, **how: Any) -> list[Any]:
    return [item for shard in find_input(f"{ROOT}{place}", **how).shards() for item in shard.items()]


def table(column: str, cells: list[str]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table({"image": ["no"] * len(cells), column: cells}), file)
    return file.getvalue()


@pytest.mark.parametrize("address", ["memory://places/a::file:///etc", "memory:///etc", "memory:places", "://places"])
def test_what_is_no_address_is_told(files: Any, address: str) -> None:
    with pytest.raises(DataError, match="An address must have the form s3://bucket/photos, got"):
        remote.Remote(address)


def test_a_place_is_walked_as_a_folder_is(files: Any, tmp_path: Path) -> None:
    names = ["10.PNG", "9.png", "b/2.png", "b/c/1.png", "a10/1.png", "a9/1.png", ".x.png", ".git/a.png", "notes.txt"]
    for name in names:
        put(files, name)
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    near = [item.name for shard in find_input(tmp_path).shards() for item in shard.items()]
    assert near == ["9.png", "10.PNG", "a9/1.png", "a10/1.png", "b/2.png", "b/c/1.png"]
    for place in ("", "/"):
        assert [item.name for item in items(place)] == near
    shards = list(find_input(ROOT, per_shard=4).shards())
    assert [shard.name for shard in shards] == ["pictures 1 to 4", "pictures 5 to 6"]


def test_more_than_are_fetched_at_once_come_all_and_in_order(files: Any) -> None:
    for i in range(60):
        put(files, f"{i}.png", str(i).encode())
    assert [bytes(item.source.load()) for item in items("")] == [str(i).encode() for i in range(60)]


def test_packed_files_come_in_natural_order_tars_before_tables(files: Any, tmp_path: Path) -> None:
    names = make_pictures(tmp_path / "photos", 2)
    for name in ("t10.tar", "t9.TAR"):
        pack(tmp_path / name, tmp_path / "photos", names)
        put(files, name, (tmp_path / name).read_bytes())
    put(files, "0.parquet", b"")
    put(files, "photo.png", b"")
    found = items("")
    assert [item.name for item in found] == [f"{tar}/{name}" for tar in ("t9.TAR", "t10.tar") for name in names]
    assert [read_picture(item.source, TRANSFORM).digest for item in found[:2]] == [
        read_picture(tmp_path / "photos" / name, TRANSFORM).digest for name in names
    ]
    assert [item.name for item in items("/t9.TAR")] == [f"t9.TAR/{name}" for name in names]


def test_the_column_that_is_named_is_read(files: Any) -> None:
    put(files, "one.parquet", table("photo", ["1.png"]))
    put(files, "TWO.CSV", b"image,photo\nno,2.png\nno,3.png\n")
    put(files, "all/1.parquet", table("photo", ["4.png"]))
    put(files, "all/2.PARQUET", table("photo", ["5.png"]))
    for place, names in (
        ("/one.parquet", ["1.png"]),
        ("/TWO.CSV", ["2.png", "3.png"]),
        ("/all", ["4.png", "5.png"]),
    ):
        assert [item.name for item in items(place, column="photo")] == names


def test_a_file_is_read_up_to_one_byte_more_than_is_decoded(files: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    put(files, "Large.png", bytes(500))
    monkeypatch.setattr(remote, "MAX_BYTES", 50)
    (item,) = items("")
    assert (item.name, len(item.source.load())) == ("Large.png", 51)


def test_a_single_file_that_is_not_there_is_told_before_the_run(files: Any) -> None:
    for ending in ("tar", "parquet", "csv"):
        with pytest.raises(DataError, match=rf"^memory://places/gone\.{ending} cannot be read: FileNotFoundError: "):
            list(find_input(f"{ROOT}/gone.{ending}").shards())


def test_what_an_address_needs_and_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_address: str) -> Any:
        raise ImportError("Install s3fs")

    monkeypatch.setattr("fsspec.core.url_to_fs", missing)
    with pytest.raises(MissingExtraError, match=r"^Reading s3://bucket needs the extra 's3'.*'seewhy\[s3\]'"):
        remote.Remote("s3://bucket")
