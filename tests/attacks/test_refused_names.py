"""Names that the system refuses, folders that change while they are walked, and large files read by many threads."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from PIL import Image

from seewhy import cli
from seewhy.errors import DataError
from seewhy.pictures import images
from seewhy.pictures.decoding import Room
from seewhy.pictures.images import read_picture, upright_size
from seewhy.pictures.sources import list_files, list_pictures
from tiny import TRANSFORM


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "{}"],
        ["index", "{}", "-o", "out", "--parquet"],
        ["fit", "{}.csv", "-o", "out"],
        ["predict", "a.png", "-e", "hf:{}"],
    ],
)
def test_a_name_of_4000_signs_is_one_sentence(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["seewhy", *(one.format("x" * 4000) for one in arguments)])
    monkeypatch.setattr(cli, "take_standard_input", lambda: None)
    with pytest.raises(SystemExit) as end:
        cli.main()
    told = capsys.readouterr().err
    assert end.value.code == 2
    assert told.endswith("… cannot be used: File name too long. Check the name and the permissions.\n")
    assert len(told) < 500


def test_an_error_of_no_file_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(cli, "_of_verb", lambda _: broken)
    monkeypatch.setattr(cli, "take_standard_input", lambda: None)
    with pytest.raises(OSError, match="Input/output error"):
        cli.main()


def test_a_folder_that_goes_while_it_is_walked_ends_nothing(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / name / "x.png")
    walk = list_pictures([tmp_path])
    assert Path(next(walk)).parent.name == "a"
    (tmp_path / "b" / "x.png").unlink()
    (tmp_path / "b").rmdir()
    assert [Path(p).parent.name for p in walk] == ["c"]
    with pytest.raises(DataError, match="cannot be listed"):
        next(list_files(tmp_path / "gone", lambda *_: True))


def test_large_files_are_in_memory_together_up_to_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight holes of almost 2 GB, read at once, took 16 GB."""
    room = Room(2_000, free=100)
    monkeypatch.setattr(images, "FILES", room)
    monkeypatch.setattr("seewhy.pictures.images.FILES", room)
    (tmp_path / "large.png").write_bytes(b"\0" * 1_500)
    read, most, lock = images._read_bytes, 0, threading.Lock()

    def counted(name: str) -> bytes:
        nonlocal most
        with lock:
            most = max(most, room.pixels - room.left)
        return read(name)

    monkeypatch.setattr(images, "_read_bytes", counted)
    monkeypatch.setattr("seewhy.pictures.images._read_bytes", counted)

    def attempt(i: int) -> None:
        with pytest.raises(images.ImageError, match="is in no format that SeeWhy reads"):
            (read_picture(tmp_path / "large.png", TRANSFORM) if i % 2 else upright_size(tmp_path / "large.png"))

    threads = [threading.Thread(target=attempt, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (most, room.left) == (1_500, 2_000)


def test_permission_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (4, 4)).save(path)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read every file (root, for example)")
    with pytest.raises(images.ImageError, match=r"may not be read \(permission denied\)"):
        read_picture(path, TRANSFORM)
