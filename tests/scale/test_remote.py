"""Inputs by their address: the same rows as from a disk, and whatever is wrong there told in a sentence."""

from __future__ import annotations

import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from seewhy.errors import DataError, EmptyFolderError, MissingExtraError
from seewhy.scale.inputs import find_input
from seewhy.scale.run import run
from simulated_work import Simulated, make_pictures, rows

fsspec = pytest.importorskip("fsspec")
N = 11


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[Any]:
    """A file system in memory with pictures, tars, a table and Parquet."""
    files = fsspec.filesystem("memory")
    fill(files, "/bucket", tmp_path)
    yield files
    files.rm("/bucket", recursive=True)


def fill(files: Any, root: str, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    photos = tmp_path / "photos"
    names = make_pictures(photos, N)
    (photos / "t.csv").write_text("image\n" + "".join(f"{n}\n" for n in names))
    (tmp_path / "tars").mkdir()
    for i in range(2):
        with tarfile.open(tmp_path / "tars" / f"a-{i}.tar", "w") as tar:
            for name in names[i::2]:
                tar.add(photos / name, Path(name).name)
    (tmp_path / "tables").mkdir()
    cells = [{"bytes": (photos / n).read_bytes(), "path": None} for n in names[:-1]]
    pq.write_table(pa.table({"image": [*cells, {"bytes": None, "path": names[-1]}]}), tmp_path / "tables" / "p.parquet")
    for path in tmp_path.rglob("*"):
        if path.is_file():
            files.pipe_file(f"{root}/{path.relative_to(tmp_path)}", path.read_bytes())


def embedded(given: Any, output: Path) -> list[tuple[str, str]]:
    run(Simulated(), find_input(given, per_shard=4), output)
    return [(row["image"], row["digest"]) for row in rows(output)]


@pytest.mark.parametrize("place", ["photos", "photos/t.csv", "tars", "tars/a-1.tar", "tars/a-{0..1}.tar"])
def test_the_rows_are_those_of_a_disk(bucket: Any, tmp_path: Path, place: str) -> None:
    found = embedded(f"memory://bucket/{place}", tmp_path / "far")
    assert found == embedded(tmp_path / place, tmp_path / "near")
    assert len(found) == (N // 2 if "a-1" in place else N)
    assert all(digest for _, digest in found)


def test_parquet_has_pictures_and_names_of_them(bucket: Any, tmp_path: Path) -> None:
    bucket.pipe_file("/bucket/tables/2/10.png", bucket.cat_file("/bucket/photos/2/10.png"))
    found = embedded("memory://bucket/tables", tmp_path / "out")
    assert [name for name, _ in found] == [*(f"p.parquet/{i}" for i in range(N - 1)), "2/10.png"]
    assert all(digest for _, digest in found)


def test_what_is_not_there_is_a_row_and_what_is_refused_a_shard(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.pipe_file("/bucket/photos/t.csv", b"image\n0/0.png\n0/gone.png\n0/1.png\n0/2.png\n1/4.png\n")
    run(Simulated(), find_input("memory://bucket/photos/t.csv", per_shard=4), tmp_path / "out")
    assert [row["error"] is None for row in rows(tmp_path / "out")] == [True, False, True, True, True]
    cat = type(bucket).cat_file

    def refusing(self: Any, path: str, **how: Any) -> bytes:
        if path.endswith("0/1.png"):
            raise PermissionError("The security token included in the request is expired")
        return cat(self, path, **how)

    monkeypatch.setattr(type(bucket), "cat_file", refusing)
    report = run(Simulated(), find_input("memory://bucket/photos/t.csv", per_shard=4), tmp_path / "two")
    assert (report.rows, [one["shard"] for one in report.unread]) == (1, ["pictures 1 to 4"])
    assert report.unread[0]["error"].startswith(
        "memory://bucket/photos/0/1.png cannot be read: PermissionError: The security token included in the request is "
        "expired. Check the address and the credentials"
    )


def test_an_address_with_nothing_is_told(bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.makedirs("/bucket/empty")
    for address, kind, says in (
        ("memory://bucket/empty", EmptyFolderError, "memory://bucket/empty has no pictures"),
        ("memory://bucket/nowhere", DataError, "memory://bucket/nowhere cannot be read: FileNotFoundError: "),
        ("memory://bucket/no.tar", DataError, "memory://bucket/no.tar cannot be read: FileNotFoundError: "),
        ("nothing://bucket", DataError, "nothing://bucket cannot be read: ValueError: Protocol not known: nothing"),
        (
            "simplecache::memory://bucket",
            DataError,
            "An address must have the form s3://bucket/photos, got simplecache::memory://bucket.",
        ),
    ):
        with pytest.raises(kind) as caught:
            run(Simulated(), find_input(address), tmp_path / "out")
        assert str(caught.value).startswith(says)
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(MissingExtraError, match=r"Run: pip install 'seewhy\[s3\]'"):
        run(Simulated(), find_input("s3://bucket"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_name_leads_to_no_other_address(bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.pipe_file("/bucket/photos/t.csv", b"image\nx::file:///etc/hostname.png\nhttp://127.0.0.1/a.png\n")
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("it asked the network"))
    run(Simulated(), find_input("memory://bucket/photos/t.csv"), tmp_path / "out")
    assert [row["digest"] for row in rows(tmp_path / "out")] == [None, None]


@pytest.mark.slow
def test_a_service_that_speaks_s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("s3fs", reason="s3fs is not installed: pip install 'seewhy[s3]'")
    pytest.importorskip(
        "moto.server", reason="the service for this test is not installed: pip install 'moto[s3,server]'"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    service = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(600):
            with socket.socket() as asked:
                if asked.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        for name, value in (
            ("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}"),
            ("AWS_ACCESS_KEY_ID", "a"),
            ("AWS_SECRET_ACCESS_KEY", "b"),
            ("AWS_DEFAULT_REGION", "us-east-1"),
        ):
            monkeypatch.setenv(name, value)
        files = fsspec.filesystem("s3")
        files.mkdir("bucket")
        fill(files, "bucket", tmp_path)
        for place in ("photos", "photos/t.csv", "tars"):
            far, near = tmp_path / "far" / place, tmp_path / "near" / place
            assert embedded(f"s3://bucket/{place}", far) == embedded(tmp_path / place, near)
        with pytest.raises(DataError, match=r"^s3://another cannot be read: FileNotFoundError: "):
            run(Simulated(), find_input("s3://another"), tmp_path / "out")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("HOME", str(tmp_path))
        type(files).clear_instance_cache()
        with pytest.raises(DataError, match=r"^s3://bucket/photos cannot be read: .*[Cc]redentials"):
            run(Simulated(), find_input("s3://bucket/photos"), tmp_path / "out")
        assert not (tmp_path / "out").exists()
    finally:
        service.kill()
        service.wait()
