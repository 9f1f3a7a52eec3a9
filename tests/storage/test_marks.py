"""SeeWhy knows its own files, as it left them, and takes nothing else for one."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load, save

from seewhy.errors import DataError, ForeignFileError
from seewhy.storage.folders import drop_folder, inside, write_at, write_inside
from seewhy.storage.journal import Journal
from seewhy.storage.marks import (
    CARD,
    CHECKPOINT,
    DESCRIPTIONS,
    PICTURE,
    TABLE,
    TENSORS,
    Facts,
    Lines,
    Mark,
    Record,
    SealedText,
    TensorFile,
    marked_tensors,
)
from seewhy.storage.output import remove, write
from seewhy.storage.reading import SUM, tensors_of, tensors_sum

ROWS = Lines((Record(("image", "label", "score"), None), Record(("image", "error"))))


def png() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(file, "png")
    return file.getvalue()


OWN: dict[str, tuple[Mark, bytes]] = {
    "json": (CARD, b'{"a": [1, 2]}'),
    "html": (CARD, b"<!doctype html>\n<p>\n"),
    "png": (PICTURE, png()),
    "safetensors": (TENSORS, marked_tensors({"a": torch.ones(2)})),
    "jsonl": (SealedText("rows", lines=True), b'{"image": "a", "label": "b"}\n{"image": "b", "error": "gone"}\n'),
    "csv": (TABLE, b"image,label,score,error\na,b,0.5,\n"),
}


@pytest.mark.parametrize("kind", OWN)
def test_a_file_of_its_own_is_written_over(kind: str, tmp_path: Path) -> None:
    mark, data = OWN[kind]
    path = tmp_path / f"a.{kind}"
    write(path, data, mark)
    first = path.read_bytes()
    assert mark.is_on(path)
    write(path, data, mark)
    assert path.read_bytes() == first


@pytest.mark.parametrize("kind", ["json", "html", "png", "jsonl", "csv"])
@pytest.mark.parametrize("place", [0.3, 0.6, 0.99])
def test_what_a_person_edited_is_theirs(kind: str, place: float, tmp_path: Path) -> None:
    mark, data = OWN[kind]
    path = write(tmp_path / f"a.{kind}", data, mark)
    changed = bytearray(path.read_bytes())
    at = int(place * len(changed))
    changed[at : at + 1] = b"\t" if changed[at : at + 1] == b" " else b" "
    path.write_bytes(changed)
    with pytest.raises(ForeignFileError):
        write(path, data, mark)
    assert path.read_bytes() == changed
    write(path, data, mark, force=True)
    assert mark.is_on(path)


def test_a_file_of_one_kind_is_not_written_over_as_another(tmp_path: Path) -> None:
    """A card is not put in the place of descriptions that were paid for, though SeeWhy wrote both."""
    path = write(tmp_path / "a.json", "{}", DESCRIPTIONS)
    with pytest.raises(ForeignFileError):
        write(path, "{}", CARD)
    assert DESCRIPTIONS.is_on(path)


@pytest.mark.parametrize("edit", [lambda d: d + b"{}\n", lambda d: d.partition(b"\n")[2], lambda d: d.rstrip() + b"\n"])
def test_lines_that_were_added_or_taken_away_are_seen(edit: Callable[[bytes], bytes], tmp_path: Path) -> None:
    for kind in ("jsonl", "csv"):
        mark, data = OWN[kind]
        path = write(tmp_path / f"a.{kind}", data + data, mark)
        path.write_bytes(edit(path.read_bytes()) + (b"x,y\n" if kind == "csv" else b""))
        with pytest.raises(ForeignFileError):
            write(path, data, mark)


def test_a_table_is_known_where_it_was_written_and_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.csv", "a,b\n", TABLE)
    (tmp_path / "copy.csv").write_bytes(path.read_bytes())
    assert not TABLE.is_on(tmp_path / "copy.csv")
    TABLE.remember(path, b"c,d\n")  # and killed before it was written
    assert TABLE.is_on(path)
    write(path, "c,d\n", TABLE)
    (tmp_path / "link.csv").symlink_to(path)
    assert TABLE.is_on(tmp_path / "link.csv")
    monkeypatch.setenv("SEEWHY_CACHE", str(tmp_path / "another"))
    assert not TABLE.is_on(path)
    monkeypatch.setenv("SEEWHY_CACHE", str(path))
    assert not TABLE.is_on(path), "no cache can be made there"
    assert write(tmp_path / "b.csv", "a\n", TABLE).read_text() == "a\n"


def test_the_mark_is_seen_by_nobody_else(tmp_path: Path) -> None:
    lines = write(tmp_path / "a.jsonl", *OWN["jsonl"][::-1]).read_bytes().splitlines()
    assert [json.loads(line) for line in lines] == [{"image": "a", "label": "b"}, {"image": "b", "error": "gone"}]
    assert write(tmp_path / "none.jsonl", "", OWN["jsonl"][0]).read_bytes() == b""
    assert json.loads(write(tmp_path / "a.json", '{"é": 1}', CARD).read_bytes()) == {"é": 1}
    with Image.open(write(tmp_path / "a.png", png(), PICTURE)) as picture, Image.open(io.BytesIO(png())) as before:
        picture.load()
        assert picture.tobytes() == before.tobytes()
        assert picture.info["Software"].startswith("SeeWhy ")
    assert torch.equal(load(write(tmp_path / "a", OWN["safetensors"][1], TENSORS).read_bytes())["a"], torch.ones(2))


@pytest.mark.parametrize(
    "data",
    [
        b"", b"x", b"\n", b"\n" * 66, b"\n" + b" " * 64 + b"\n", b"{}\n" + b"\t" * 64 + b"\n", png(), png()[:40],
        save({"a": torch.ones(1)}), save({"a": torch.ones(1)}, {"made": "by me"}), b"\xff" * 200, bytes(200),
        b'{"image": "a", "label": "b"}\n', b'{"label": "b", "image": "a", "score": 1}\n', b"[" * 10**5, b'{"image": ',
        b'{"image": "a", "label": "b", "score": 1}\n{"mine": 1}\n', b"image,label\na,b\n", b"image,label,error\na,b\n",
        b'image,label,error\n"a', b'{"seewhy": 1}',
    ],
)  # fmt: skip
def test_nothing_else_is_taken_for_one(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(data)
    for mark, _ in OWN.values():
        assert not mark.is_on(path)
    assert not CHECKPOINT.is_on(path)
    assert not Facts(("seewhy", "method")).is_on(path)


def test_files_of_earlier_versions_are_known_by_their_facts(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(save({"a": torch.ones(1)}, {"seal": "x", "history": "[]"}))
    assert CHECKPOINT.is_on(path)
    assert not TensorFile((frozenset({"card"}),)).is_on(path)
    path.write_text('{"seewhy": "0.1.0", "method": "epic", "form": 1}')
    assert Facts(("seewhy", "method")).is_on(path)
    path.write_text('{\n "format": 2,\n "seewhy": "0.1.0",\n "recipe": "lin')
    assert Facts(("format", "seewhy")).is_on(path), "a card that was cut off is still its own"


def test_a_journal_goes_on_and_keeps_to_its_own(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.jsonl"
    with Journal(path, ROWS) as journal:
        assert not path.parent.exists(), "nothing is made before there is something to note"
        journal.add({"image": os.fsdecode(b"\xe9"), "error": "ä"})
    with open(path, "ab") as file:
        file.write(b'{"image": "cut of')
    with Journal(path, ROWS) as journal:
        assert journal.rows == [{"image": os.fsdecode(b"\xe9"), "error": "ä"}]
        assert path.read_bytes().endswith(b"cut of"), "reading changes nothing"
        journal.add({"image": "b", "error": ""})
    assert [json.loads(line)["error"] for line in path.read_bytes().splitlines()] == ["ä", ""]
    path.write_bytes(path.read_bytes()[:-1])
    with Journal(path, ROWS, sync=True) as journal:
        journal.add({"image": "c", "error": ""})
    assert len(Journal(path, ROWS).rows) == 3


@pytest.mark.parametrize("data", [b"", b"x", b"\n", b'{"image": "a"}', b'{"image": "a", "error": ""}\nmine', b"\xff\n"])
def test_a_journal_of_somebody_else_s_is_not_touched(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(data)
    with pytest.raises(ForeignFileError, match="holds something else"):
        Journal(path, ROWS)
    assert path.read_bytes() == data
    with Journal(path, ROWS, force=True) as journal:
        assert path.read_bytes() == data, "not before there is something to note"
        journal.add({"image": "a", "error": ""})
    assert Journal(path, ROWS).rows == [{"image": "a", "error": ""}]


@pytest.mark.parametrize("name", ["../a.f32", "/a.f32", "b/a.f32", "a.f32/..", "..", "", "a.txt", 3, None, "a.f32\n"])
def test_names_that_data_gives_stay_in_their_folder(name: object, tmp_path: Path) -> None:
    with pytest.raises(ForeignFileError, match="as a file of its own"):
        inside(tmp_path, name, r"[a-z]+\.f32")
    assert inside(tmp_path, "a.f32", r"[a-z]+\.f32") == tmp_path / "a.f32"


@pytest.mark.parametrize("link", ["symlink_to", "hardlink_to"])
def test_no_link_in_a_folder_of_its_own_is_followed(link: str, tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("mine")
    path = tmp_path / "a.f32"
    getattr(path, link)(tmp_path / "theirs")
    with pytest.raises(ForeignFileError, match="linked to another place"):
        write_at(path, 0, b"x")
    write_inside(path, "ours")
    assert (path.read_text(), path.is_symlink()) == ("ours", False)
    assert (tmp_path / "theirs").read_text() == "mine"


def test_only_files_with_the_mark_are_deleted(tmp_path: Path) -> None:
    own, theirs, link = tmp_path / "own", tmp_path / "theirs", tmp_path / "link"
    write(own, "{}", CARD)
    theirs.write_text("{}")
    link.symlink_to(own)
    assert [remove(p, CARD) for p in (theirs, link, tmp_path, tmp_path / "none", own)] == [False] * 4 + [True]
    assert theirs.exists()
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "trunk.xml").write_text("")
    (tmp_path / "kept" / "mine").write_text("")
    drop_folder(tmp_path / "kept", r"trunk\..+")
    assert [p.name for p in (tmp_path / "kept").iterdir()] == ["mine"]


def test_a_file_that_may_not_be_written_stays(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", "{}", CARD)
    path.chmod(0o444)
    with pytest.raises(DataError, match="write-protected"):
        write(path, "{}", CARD, force=True)


def test_the_same_tensors_are_the_same_bytes() -> None:
    """Files are named by their digest; safetensors writes its texts in any order."""
    tensors, facts = {"b": torch.ones(3), "a": torch.zeros(2, dtype=torch.int8)}, {"é": 'x"', "seal": "y", "d": "\n"}
    first = marked_tensors(tensors, facts)
    assert {marked_tensors(tensors, facts) for _ in range(20)} == {first}
    assert int.from_bytes(first[:8], "little") % 8 == 0
    again, texts = tensors_of(first)
    assert all(torch.equal(again[name], value) for name, value in tensors.items())
    assert texts[SUM] == tensors_sum(again, texts)
    assert texts | facts == texts
