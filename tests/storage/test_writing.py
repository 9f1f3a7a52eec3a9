"""Files are written whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from seewhy.errors import DataError
from seewhy.storage.output import check_target, write_atomic


def test_bytes_and_text_arrive_as_they_are(tmp_path: Path) -> None:
    assert write_atomic(tmp_path / "a", b"\x00\r\n") == tmp_path / "a"
    assert (tmp_path / "a").read_bytes() == b"\x00\r\n"
    write_atomic(tmp_path / "a", "é\n")
    assert (tmp_path / "a").read_bytes() == "é\n".encode()
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_permissions_are_the_usual_ones_and_stay(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    write_atomic(tmp_path / "new", "x")
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "plain").stat().st_mode
    (tmp_path / "new").chmod(0o640)
    write_atomic(tmp_path / "new", "y")
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640


def test_a_link_keeps_pointing(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_atomic(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


def test_a_very_long_name_is_fine(tmp_path: Path) -> None:
    name = "n" * 250 + ".html"
    assert write_atomic(tmp_path / name, "x").read_text() == "x"


def refuse(number: int) -> Any:
    def fail(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize(
    ("number", "said", "cure"),
    [
        (errno.ENOSPC, "no space left on device", "Free some space on that disk, or choose another."),
        (errno.EACCES, "permission denied", "Choose a folder you may write to."),
        (errno.EROFS, "read-only file system", "Choose another place to write to."),
    ],
)
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failure_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, number: int, said: str, cure: str
) -> None:
    path = tmp_path / "card.html"
    path.write_text("before")
    monkeypatch.setattr(os, step, refuse(number))
    with pytest.raises(DataError) as error:
        write_atomic(path, "after")
    assert str(error.value) == f"{path} could not be written: {said}. {cure}"
    assert path.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["card.html"]


def test_a_target_is_checked_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    assert check_target(tmp_path / "new.html") == tmp_path / "new.html"
    assert check_target(tmp_path / "file") == tmp_path / "file"
    places = {
        tmp_path: "is a directory. Give the name of a file, not of a folder.",
        tmp_path / "no" / "x": f"no such file or directory. Create the folder {tmp_path / 'no'} first.",
        tmp_path / "file" / "x": "not a directory. Give the name of a file, not of a folder.",
    }
    for place, said in places.items():
        with pytest.raises(DataError) as error:
            check_target(place)
        assert str(error.value) == f"{place} could not be written: {said}"
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(DataError) as error:
        check_target(tmp_path / "x")
    said = "permission denied. Choose a folder you may write to."
    assert str(error.value) == f"{tmp_path / 'x'} could not be written: {said}"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file"]


def test_a_name_that_is_no_unicode_is_written_as_json_reads_it(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    write_atomic(tmp_path / "a", json.dumps({"image": name, "é": 1}, ensure_ascii=False))
    assert json.loads((tmp_path / "a").read_text("utf-8")) == {"image": name, "é": 1}


def test_a_missing_folder_and_a_folder_in_the_way(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        write_atomic(tmp_path / "no" / "card.html", "x")
    assert str(error.value) == (
        f"{tmp_path / 'no' / 'card.html'} could not be written: no such file or directory. "
        f"Create the folder {tmp_path / 'no'} first."
    )
    with pytest.raises(DataError) as error:
        write_atomic(tmp_path, "x")
    assert str(error.value) == (
        f"{tmp_path} could not be written: is a directory. Give the name of a file, not of a folder."
    )
