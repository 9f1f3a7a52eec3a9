"""A run in object storage: the rows and bytes of a folder's, whole or not at all, and nobody else's object lost."""

from __future__ import annotations

import errno
import io
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_rows_to_index import Embedding, index

from seewhy.errors import DataError, ForeignFileError, MissingExtraError
from seewhy.progress import Progress
from seewhy.scale import job as jobs
from seewhy.scale.inputs import find_input
from seewhy.scale.places import LocalFolder, ObjectStore, find_place
from seewhy.scale.reading import add_run, is_run, status
from seewhy.scale.run import Part, run
from simulated_work import Simulated, make_pictures

fsspec = pytest.importorskip("fsspec")
N, PER_SHARD = 23, 5
OUT = "memory://runs/out"


@pytest.fixture
def bucket() -> Iterator[Any]:
    """Object storage in memory."""
    files = fsspec.filesystem("memory")
    files.makedirs("/runs")
    yield files
    files.rm("/runs", recursive=True)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    make_pictures(tmp_path / "photos", N, broken=(4,))
    return tmp_path / "photos"


def do(photos: Path, output: Any = OUT, part: str = "1/1", work: Simulated | None = None) -> Any:
    return run(work or Simulated(), find_input(photos, per_shard=PER_SHARD), output, part=Part.read(part))


def there(files: Any, root: str = "/runs/out") -> dict[str, bytes]:
    return {name.rpartition("/")[2]: files.cat_file(name) for name in files.find(root)}


def on_disk(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_objects_are_the_files_of_a_folder(bucket: Any, photos: Path, tmp_path: Path) -> None:
    report = do(photos)
    do(photos, tmp_path / "near")
    assert there(bucket) == on_disk(tmp_path / "near")
    assert (report.output, report.done, report.rows, report.failed) == (OUT, 5, N, 1)
    assert do(photos, Path(OUT)).there == 5
    found = status(OUT)
    assert (found.output, found.missing, found.rows, found.failed) == (OUT, [], N, 1)
    assert list(tmp_path.glob("[sm][3e]*:")) == []


def test_parts_by_several_are_one_run_and_its_end_is_said_last(bucket: Any, photos: Path) -> None:
    for part, missing in (("2/3", ["0", "2-3"]), ("3/3", ["0", "3"])):
        do(photos, part=part)
        assert jobs.SUCCESS not in there(bucket)
        assert status(OUT).missing == missing
    do(photos, part="1/3")
    assert jobs.SUCCESS in there(bucket)


def test_the_end_is_said_when_every_shard_is_there_and_not_before(bucket: Any, photos: Path, tmp_path: Path) -> None:
    order: list[str] = []
    pipe, put = type(bucket).pipe_file, type(bucket).put_file

    def piping(self: Any, path: str, *args: Any, **how: Any) -> Any:
        order.append(path)
        return pipe(self, path, *args, **how)

    def putting(self: Any, near: str, far: str, **how: Any) -> Any:
        order.append(far)
        return put(self, near, far, **how)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(type(bucket), "pipe_file", piping)
        patched.setattr(type(bucket), "put_file", putting)
        do(photos)
    names = [path.rpartition("/")[2] for path in order if "shard" in path or "_" in path]
    assert (names[0], names[-1]) == (jobs.MANIFEST, jobs.SUCCESS)
    assert names[1:-1] == [f"shard-{i:05}-of-00005.parquet" for i in range(5)]
    (photos / "0" / "0.png").unlink()
    (tmp_path / "gone.tar").write_bytes(b"no tar")
    run(Simulated(), find_input(tmp_path / "gone.tar"), "memory://runs/unread")
    assert jobs.SUCCESS not in there(bucket, "/runs/unread"), "a shard that was left out is missing"


def test_what_is_missing_or_damaged_is_done_again_and_only_that(bucket: Any, photos: Path) -> None:
    do(photos)
    before = there(bucket)
    first, second, third = (f"/runs/out/shard-{i:05}-of-00005.parquet" for i in range(3))
    bucket.rm(first)
    bucket.pipe_file(second, bucket.cat_file(second)[:-40])
    bucket.pipe_file(third, b"")
    assert status(OUT).missing == ["0-2"]
    report = do(photos)
    assert (report.done, report.there) == (3, 2)
    assert there(bucket) == before


def test_footers_longer_than_what_is_read_first_are_read_whole(
    bucket: Any, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    do(photos)
    for end in (8, 64, 1000):
        monkeypatch.setattr(jobs, "END", end)
        assert status(OUT).rows == N


@pytest.mark.parametrize("kind", ["text", "parquet", "long parquet"])
@pytest.mark.parametrize("where", ["far", "near"])
def test_what_has_a_shards_name_and_is_not_seewhys_is_refused(
    kind: str, where: str, bucket: Any, photos: Path, tmp_path: Path
) -> None:
    output = OUT if where == "far" else tmp_path / "near"
    do(photos, output, "1/2")
    name = "shard-00001-of-00005.parquet"
    if kind == "text":
        data = b"a thesis"
    else:
        names = [f"column {i}" for i in range(2000 if kind == "long parquet" else 1)]
        pq.write_table(pa.table({name: [1] for name in names}), tmp_path / "theirs")
        data = (tmp_path / "theirs").read_bytes()
    if where == "far":
        bucket.pipe_file(f"/runs/out/{name}", data)
    else:
        (tmp_path / "near" / name).write_bytes(data)
    for ask in (lambda: do(photos, output), lambda: status(output)):
        with pytest.raises(
            ForeignFileError,
            match=rf"{name} was not written by SeeWhy\. Move it away, or choose another folder for the run\.",
        ):
            ask()
    left = there(bucket) if where == "far" else on_disk(tmp_path / "near")
    assert left[name] == data
    assert do(photos, output, "1/2").there == 3, "parts that have nothing to do with it go on"


def test_a_place_of_something_else_is_left(bucket: Any, photos: Path) -> None:
    bucket.pipe_file("/runs/out/thesis.tex", b"x")
    for output in (OUT, "memory://runs"):
        with pytest.raises(
            ForeignFileError, match=rf"{output} has files that do not belong to a run\. Choose another folder\."
        ):
            do(photos, output)
    with pytest.raises(DataError, match=r"memory://runs/out has no _manifest\.json\."):
        status(OUT)
    assert there(bucket) == {"thesis.tex": b"x"}
    bucket.pipe_file("/runs/file", b"x")
    with pytest.raises(
        DataError, match=r"memory://runs/file has files that do not belong to a run\. Choose another folder\."
    ):
        do(photos, "memory://runs/file")


def test_an_object_that_stands_for_the_folder_and_hidden_ones_are_no_files(bucket: Any, photos: Path) -> None:
    bucket.makedirs("/runs/out")
    bucket.pipe_file("/runs/out/.DS_Store", b"x")
    assert do(photos, OUT + "/").done == 5
    assert find_place("s3://bucket/a/").at("b") == "s3://bucket/a/b"


def test_two_runs_are_not_mixed_and_two_at_once_leave_what_one_would(
    bucket: Any, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = type(bucket)._open

    def copy(self: Any, path: str, mode: str = "rb", **how: Any) -> Any:
        """To read, fsspec's memory gives all threads one file with one place in it; no service does."""
        file = opened(self, path, mode, **how)
        return io.BytesIO(file.getvalue()) if mode == "rb" else file

    monkeypatch.setattr(type(bucket), "_open", copy)
    do(photos, tmp_path / "near")
    errors: list[BaseException] = []

    def one() -> None:
        try:
            do(photos, work=Simulated(seconds=0.002))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=one) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert there(bucket) == on_disk(tmp_path / "near")
    with pytest.raises(ForeignFileError, match=r"out belongs to another run: the encoder simulated, not another\."):
        do(photos, work=Simulated("another"))


def test_whoever_is_second_takes_the_first_ones_manifest(
    bucket: Any, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = find_place(OUT)
    assert [place.write_first("a", data) for data in (b"1", b"2")] == [True, False]
    assert place.read("a", 0) == b"1"
    pipe = type(bucket).pipe_file

    def refusing(self: Any, path: str, data: bytes, mode: str = "overwrite", **how: Any) -> Any:
        if mode == "create":
            raise OSError(code, "says the service")
        return pipe(self, path, data, mode=mode, **how)

    monkeypatch.setattr(type(bucket), "pipe_file", refusing)
    for code in (errno.EINVAL, errno.EBUSY, errno.ENOSYS):  # noqa: B007  # 412, 409, 501 as s3fs has them
        assert place.write_first("a", b"3") is False
    assert place.read("a", 0) == b"1"
    assert place.write_first("b", b"4") is True, "a service that knows of no firsts"
    code = errno.EIO
    with pytest.raises(
        DataError,
        match=(
            r"out/c could not be written: OSError: says the service\. Check the bucket and the "
            r"credentials, then run the same command again; files already written are complete\."
        ),
    ):
        place.write_first("c", b"5")


def test_a_network_that_fails_is_told_and_takes_no_shard_for_missing(
    bucket: Any, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    do(photos, part="1/2")
    before = there(bucket)

    def failing(*_: Any, **__: Any) -> Any:
        raise ConnectionError("reset by peer")

    for broken, says in (
        (
            "put_file",
            (
                r"out/shard-00001-of-00005\.parquet could not be written: ConnectionError: reset by "
                r"peer\. Check the bucket and the credentials, then run the same command again; files "
                r"already written are complete\."
            ),
        ),
        ("cat_file", r"out/shard-0000\d-of-00005\.parquet cannot be read: ConnectionError: reset by peer\."),
        (
            "get_file",
            (
                r"out/_manifest\.json cannot be read: ConnectionError: reset by peer\. Check the "
                r"address and the credentials; for s3://, check the settings of the AWS tools\."
            ),
        ),
        (
            "ls",
            (
                r"memory://runs/out cannot be read: ConnectionError: reset by peer\. Check the address "
                r"and the credentials; for s3://, check the settings of the AWS tools\."
            ),
        ),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(type(bucket), broken, failing)
            with pytest.raises(DataError, match=says) as caught:
                do(photos)
            assert str(caught.value).count("cannot be read") <= 1
        assert there(bucket) == before
    assert do(photos).there == 3


def test_a_full_disk_on_the_way_is_told(bucket: Any, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_self: object, _batch: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_batch", full)
    with pytest.raises(
        DataError, match=r"/shard-00000-of-00005\.parquet could not be written: no space left on device"
    ):
        do(photos)
    assert list(there(bucket)) == [jobs.MANIFEST]


def test_a_bucket_that_is_not_there_is_told_before_the_model_is_loaded(bucket: Any, photos: Path) -> None:
    with pytest.raises(
        DataError,
        match=(
            r"memory://gone/out cannot be written: the bucket gone does not exist\. Create it, or "
            r"correct its name\."
        ),
    ):
        do(photos, "memory://gone/out", work=Simulated(refuses="the model was loaded"))
    assert not bucket.exists("/gone")


def test_a_manifest_that_was_edited_is_told(bucket: Any, photos: Path) -> None:
    do(photos)
    manifest = f"/runs/out/{jobs.MANIFEST}"
    bucket.pipe_file(manifest, bucket.cat_file(manifest).replace(b'"simulated"', b'"another"'))
    with pytest.raises(
        ForeignFileError,
        match=(
            r"_manifest\.json was changed or written by another version\. Choose "
            r"another folder for the run\."
        ),
    ):
        status(OUT)


def test_vectors_go_from_there_into_an_index(bucket: Any, photos: Path, tmp_path: Path) -> None:
    for output in (OUT, tmp_path / "near"):
        do(photos, output, "1/2", Embedding())
    assert is_run(Path(OUT))
    heard = Progress()
    far: Any = add_run(index(), Path(OUT), heard)
    near: Any = add_run(index(), tmp_path / "near", Progress())
    assert [(one.name, one.digest) for one in far] == [(one.name, one.digest) for one in near]
    assert heard.notes == [f"2 of 5 shards of {OUT} are missing. Add the run again when they exist."]
    with pytest.raises(DataError, match=r"memory://runs/none has no _manifest\.json\."):
        is_run(Path("memory://runs/none"))


def test_a_place_travels_and_says_what_it_needs(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    place = find_place(OUT)
    place.check()
    assert pickle.loads(pickle.dumps(place)) == place == ObjectStore(OUT)
    assert find_place("photos") == LocalFolder(Path("photos"))
    with pytest.raises(
        DataError, match=r"hf://datasets/a has no atomic writes\. Give a folder, or an address that begins with"
    ):
        find_place("hf://datasets/a")
    monkeypatch.setitem(__import__("sys").modules, "fsspec.core", None)
    with pytest.raises(MissingExtraError, match=r"'seewhy\[s3\]'"):
        find_place("s3://bucket/out").check()
