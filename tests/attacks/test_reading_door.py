"""What is no file, has no end, or unpacks to gigabytes: a sentence, soon, in little memory."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seewhy.cli.options import lines_of
from seewhy.cli.places import _files
from seewhy.descriptions.base import Descriptions
from seewhy.encoders.stream import file_digest
from seewhy.errors import DataError, InputError, SeeWhyError
from seewhy.language.matching import read_captions
from seewhy.language.questions import read_pairs
from seewhy.pictures import tables as parquet
from seewhy.pictures.boxes import load_boxes
from seewhy.pictures.samples import Sample, content_digest, load_samples
from seewhy.pictures.shards import in_shard, records_of
from seewhy.pictures.sources import list_pictures
from seewhy.pictures.tables import rows_of
from seewhy.scale.inputs import find_input
from seewhy.service.serve.settings import read_token
from seewhy.storage import reading
from seewhy.storage.reading import MAX_LINE, UnreadableError, open_lines, read_file, read_text
from seewhy.studies.auditing.contract import Contract
from seewhy.studies.inspection.check import read_check

SPARSE = 30 << 30
Read = Callable[[Path], Any]
READERS: dict[str, tuple[str, Read]] = {
    "class list": ("names.txt", lambda p: lines_of(p, "class")),
    "table": ("t.csv", lambda p: list(rows_of(p))),
    "tabs": ("t.tsv", lambda p: list(rows_of(p))),
    "json lines": ("t.jsonl", lambda p: list(rows_of(p))),
    "parquet": ("t.parquet", lambda p: list(rows_of(p))),
    "samples": ("t.csv", load_samples),
    "shard": ("t.tar", lambda p: list(records_of(p, []))),
    "descriptions": ("d.json", Descriptions.read),
    "captions": ("c.jsonl", read_captions),
    "pairs": ("p.json", read_pairs),
    "contract": ("c.toml", Contract.load),
    "token": ("token", read_token),
    "check": ("check.json", lambda p: read_check(p.parent, p, [])),
    "boxes": ("boxes.json", lambda p: load_boxes(p, format="coco")),
    "table of boxes": ("boxes.csv", load_boxes),
    "parquet of a run": ("t.parquet", lambda p: [list(s.items()) for s in find_input(p).shards()]),
    "shard of a run": ("t.tar", lambda p: [list(s.items()) for s in find_input(p).shards()]),
}


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    """A reader that waits is a failure, not a hang."""

    def end(*_: Any) -> None:
        raise TimeoutError("it waits")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", READERS)
def test_a_pipe_and_a_device_are_refused_and_not_waited_for(name: str, tmp_path: Path) -> None:
    file, read = READERS[name]
    os.mkfifo(tmp_path / file)
    with pytest.raises(SeeWhyError, match="it is a pipe, socket or device, not a file"):
        read(tmp_path / file)
    (tmp_path / file).unlink()
    (tmp_path / file).symlink_to("/dev/zero")
    with pytest.raises(SeeWhyError, match="it is a pipe, socket or device, not a file"):
        read(tmp_path / file)


@pytest.mark.parametrize("name", [name for name in READERS if name != "shard"])  # a tar of nothing is an empty one
def test_thirty_gigabytes_of_nothing_are_refused_unread(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MAX_LINE", 1 << 20)
    file, read = READERS[name]
    (tmp_path / file).touch()
    os.truncate(tmp_path / file, SPARSE)
    with pytest.raises(SeeWhyError) as caught:
        read(tmp_path / file)
    assert str(tmp_path / file) in str(caught.value) or file in str(caught.value)


def test_digests_of_pictures_stop_where_reading_does(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.touch()
    os.truncate(path, SPARSE)
    assert file_digest(str(path)) is None
    assert content_digest(Sample(str(path))) is None
    path.unlink()
    os.mkfifo(path)
    assert content_digest(Sample(str(path))) is None


def test_a_line_may_be_long_and_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_LINE", 10)
    (tmp_path / "t.txt").write_text("0123456789", "utf-8-sig")
    with open_lines(tmp_path / "t.txt") as lines:
        assert list(lines) == ["0123456789"]
    (tmp_path / "t.txt").write_text("a\n01234567890\n")
    with (
        open_lines(tmp_path / "t.txt") as lines,
        pytest.raises(UnreadableError, match="one of its lines has more than the limit of 10 characters"),
    ):
        list(lines)
    assert MAX_LINE >= 1 << 24


def test_text_is_as_python_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_bytes(b"\xef\xbb\xbfa\r\nb\rc\n")
    assert read_text(path) == "a\nb\nc\n" == path.read_text("utf-8-sig")
    path.write_bytes(b"\xff")
    with pytest.raises(UnreadableError, match="it is not text in UTF-8"):
        read_text(path)


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="this system has no /dev/fd")
def test_what_the_shell_hands_over_is_read_up_to_the_limit(tmp_path: Path) -> None:
    """As ``--labels <(command)`` does."""
    get, put = os.pipe()
    os.write(put, b"moss\nrust\n")
    os.close(put)
    assert lines_of(Path(f"/dev/fd/{get}"), "class") == ["moss", "rust"]
    os.close(get)
    endless = subprocess.Popen([sys.executable, "-c", "while True: print('y' * 1000)"], stdout=subprocess.PIPE)
    assert endless.stdout is not None
    with pytest.raises(UnreadableError, match="it has more than the limit of 5,000 bytes"):
        read_file(f"/dev/fd/{endless.stdout.fileno()}", 5000)
    endless.kill()
    endless.wait()
    endless.stdout.close()
    zero = os.open("/dev/zero", os.O_RDONLY)
    with pytest.raises(UnreadableError, match="it is a terminal or device, not a file"):
        read_file(f"/dev/fd/{zero}")
    os.close(zero)


def test_a_token_is_read_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("x" * 5000)
    with pytest.raises(InputError, match="it has 5,000 bytes, more than the limit of 4,096"):
        read_token(tmp_path / "token")


BOMBS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "a long cell": lambda _: {"image": ["a" * 40_000_000]},
    "one text for many rows": lambda pa: {"image": ["b" * 100_000] * 300},
    "one category for many rows": lambda pa: {"image": category(pa, 30_000, "b" * 100_000)},
    "many rows": lambda pa: {"image": category(pa, 2_000_000, "a.png")},
    "a long list": lambda pa: {"image": pa.array([np.zeros(2_000_000, np.int8)])},
}


def category(pa: Any, n: int, text: str) -> Any:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), pa.array([text]))


@pytest.mark.parametrize("name", BOMBS)
def test_parquet_that_unpacks_to_gigabytes_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a sixteenth of the size."""
    pyarrow = pytest.importorskip("pyarrow", reason="the extra 'parquet' is not installed")
    from pyarrow.parquet import write_table

    for limit in ("ROOM", "FREE_BYTES", "FREE_VALUES"):
        monkeypatch.setattr(parquet, limit, getattr(parquet, limit) >> 4)
    path = tmp_path / "t.parquet"
    write_table(pyarrow.table(BOMBS[name](pyarrow)), path, compression="zstd")
    assert path.stat().st_size < 20_000
    with pytest.raises(DataError, match=r"bytes, which expand to .* (bytes|values of a column)\. Write it again"):
        sum(held(pyarrow) for _ in rows_of(path))
    with pytest.raises(DataError, match="which expand to"):
        [sum(held(pyarrow) for _ in shard.items()) for shard in find_input(path).shards()]


def held(pyarrow: Any) -> int:
    n = pyarrow.total_allocated_bytes()
    assert n < 1 << 26
    return int(n)


def test_lists_of_categories_are_refused(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="the extra 'parquet' is not installed")
    from pyarrow.parquet import write_table

    kind = pyarrow.list_(pyarrow.dictionary(pyarrow.int32(), pyarrow.string()))
    write_table(pyarrow.table({"texts": pyarrow.array([["a", "a"]], kind)}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"must have lists of texts, got lists of categories\. Write them as texts\."):
        list(rows_of(tmp_path / "t.parquet"))


def test_tables_of_pictures_are_read_as_before(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="the extra 'parquet' is not installed")
    from pyarrow.parquet import write_table

    names = [f"img_{i:06}.png" for i in range(50_000)]
    rows = pyarrow.table({"image": names, "label": ["moss"] * len(names), "texts": [["a", "b"]] * len(names)})
    write_table(rows, tmp_path / "t.parquet", compression="zstd")
    found = list(rows_of(tmp_path / "t.parquet"))
    assert [row["image"] for row in found] == names
    assert found[-1] == {"image": names[-1], "label": "moss", "texts": ["a", "b"]}
    wide = pyarrow.table({f"c{i}": [os.urandom(1 << 16)] * 40 for i in range(30)})
    write_table(wide, tmp_path / "w.parquet", use_dictionary=False)
    assert len(list(rows_of(tmp_path / "w.parquet"))) == 40
    assert parquet.MOST_ROWS < 50_000


def test_a_header_of_a_shard_is_short(tmp_path: Path) -> None:
    """A member whose extended header is announced as 8 GB, in a file with a hole of as much."""
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 8 << 30
    path = tmp_path / "t.tar"
    path.write_bytes(header.tobuf(tarfile.GNU_FORMAT))
    os.truncate(path, (8 << 30) + 10_240)
    with pytest.raises(DataError, match=r"its header has 8,589,\d+,\d+ bytes"):
        list(records_of(path, []))


@pytest.mark.parametrize("whole", [True, False])
def test_a_hole_is_no_empty_shard(whole: bool, tmp_path: Path) -> None:
    """A tar made ready for a download, or one that broke off: zeros end a tar, so it had few pictures, or none."""
    path = tmp_path / "t.tar"
    with tarfile.open(path, "w") as tar:
        member = tarfile.TarInfo("a.txt")
        member.size = 2
        tar.addfile(member, io.BytesIO(b"ab"))
    assert len(list(records_of(path, []))) == 1
    os.truncate(path, 0 if whole else path.stat().st_size)
    os.truncate(path, 30 << 30)
    with pytest.raises(DataError, match=r"the archive ends 32,\d+,\d+,\d+ bytes before the end of the file"):
        list(records_of(path, []))


def test_a_shard_of_long_names_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("ä" * 400 + ".txt")
        member.size = 2
        tar.addfile(member, io.BytesIO(b"ab"))
    ((key, record),) = records_of(path, [])
    assert (key, record.facts) == ("ä" * 400, {"txt": "ab"})
    assert in_shard(path, "a.png").name.endswith("t.tar/a.png")


@pytest.fixture
def looped(tmp_path: Path, picture: Path) -> Path:
    """Two classes, each with links to itself, to the folder above, and to that folder under another name."""
    for name in ("moss", "rust"):
        (tmp_path / "data" / name).mkdir(parents=True)
        shutil.copy(picture, tmp_path / "data" / name / f"{name}.png")
    (tmp_path / "alias").symlink_to(tmp_path / "data")
    for name in ("moss", "rust"):
        (tmp_path / "data" / name / "a").symlink_to(tmp_path / "data" / name)
        (tmp_path / "data" / name / "b").symlink_to("..")
        (tmp_path / "data" / name / "c").symlink_to(tmp_path / "alias")
    return tmp_path / "data"


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    from PIL import Image

    path = tmp_path / "one.png"
    Image.new("RGB", (8, 8), (10, 200, 30)).save(path)
    return path


def test_links_that_lead_back_bring_no_picture_twice(looped: Path) -> None:
    assert [Path(p).relative_to(looped).as_posix() for p in list_pictures([looped])] == [
        "moss/moss.png",
        "rust/rust.png",
    ]
    samples = load_samples(looped)
    assert [(Path(s.image).name, s.label) for s in samples.items] == [("moss.png", "moss"), ("rust.png", "rust")]
    assert [Path(p).name for p in list_pictures([looped.parent / "alias"])] == ["moss.png", "rust.png"]


def test_what_an_output_is_compared_with_is_walked_once(looped: Path) -> None:
    """Which hung when the output was there already, on the second run."""
    assert [*_files(looped)] == [], "pictures are kept where they are written"
    (looped / "config.json").write_text("{}")
    assert sorted(file.name for file in _files(looped)) == ["config.json", "moss.png", "rust.png"]


def test_a_link_to_a_folder_beside_is_followed(looped: Path, picture: Path) -> None:
    more = looped.parent / "more"
    more.mkdir()
    shutil.copy(picture, more / "more.png")
    (looped / "moss" / "more").symlink_to(more)
    assert [Path(s.image).name for s in load_samples(looped).items] == ["more.png", "moss.png", "rust.png"]
