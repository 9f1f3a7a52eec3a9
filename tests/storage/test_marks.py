"""SeeWhy knows its own files, as it left them, and takes nothing else for one."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from seewhy.errors import DataError, ForeignFileError
from seewhy.storage.folders import drop_folder, write_at, write_inside
from seewhy.storage.journal import Journal
from seewhy.storage.marks import CHECKPOINT, TENSORS, Facts, Lines, Record, is_own, remember
from seewhy.storage.output import remove, write
from seewhy.storage.reading import SUM, tensors_of, tensors_sum
from seewhy.storage.tensors import marked_tensors

ROWS = Lines((Record(("image", "label", "score"), None), Record(("image", "error"))))
CARD = Facts(("seewhy", "method"))


@pytest.mark.parametrize("data", [b'{"a": [1, 2]}', "<!doctype html>\n<p>\n", b"\x89PNG", "image,label\na,b\n", ""])
def test_a_file_is_its_own_as_long_as_nobody_changes_it(data: bytes | str, tmp_path: Path) -> None:
    path = write(tmp_path / "a", data)
    first = path.read_bytes()
    assert write(path, data).read_bytes() == first
    changed = bytearray(first or b"x")
    changed[len(changed) // 2] ^= 1
    path.write_bytes(changed)
    with pytest.raises(ForeignFileError):
        write(path, data)
    assert path.read_bytes() == changed
    assert is_own(write(path, data, force=True))


def test_a_file_is_known_where_it_was_written_and_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.csv", "a,b\n")
    (tmp_path / "copy.csv").write_bytes(path.read_bytes())
    assert not is_own(tmp_path / "copy.csv")
    remember(path, b"c,d\n")  # and killed before it was written
    assert is_own(path)
    write(path, "c,d\n")
    (tmp_path / "link.csv").symlink_to(path)
    assert is_own(tmp_path / "link.csv")
    monkeypatch.setenv("SEEWHY_CACHE", str(tmp_path / "another"))
    assert not is_own(path)
    monkeypatch.setenv("SEEWHY_CACHE", str(path))
    assert not is_own(path), "no cache can be made there"
    assert write(tmp_path / "b.csv", "a\n").read_text() == "a\n"


def test_tensors_are_written_over_by_tensors_alone(tmp_path: Path) -> None:
    """A card is not put in the place of a saved model, though SeeWhy wrote both."""
    path = tmp_path / "a.safetensors"
    path.write_bytes(marked_tensors({"a": torch.ones(2)}))
    with pytest.raises(ForeignFileError):
        write(path, "{}")
    write(path, marked_tensors({"a": torch.zeros(2)}), TENSORS)
    assert TENSORS.is_on(path)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"x", b"\n", save({"a": torch.ones(1)}), save({"a": torch.ones(1)}, {"made": "by me"}), b"\xff" * 200,
        bytes(200), b'{"image": "a", "label": "b"}\n', b'{"label": "b", "image": "a", "score": 1}\n', b"[" * 10**5,
        b'{"image": ', b'{"image": "a", "label": "b", "score": 1}\n{"mine": 1}\n', b'{"seewhy": 1}',
    ],
)  # fmt: skip
def test_nothing_else_is_taken_for_one(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(data)
    assert not any(is_own(path, mark) for mark in (None, TENSORS, CHECKPOINT, CARD, ROWS))


def test_cards_are_known_by_their_facts(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text('{"seewhy": "0.1.0", "method": "epic", "form": 1}')
    assert CARD.is_on(path)
    path.write_text('{\n "format": 2,\n "seewhy": "0.1.0",\n "recipe": "lin')
    assert Facts(("format", "seewhy")).is_on(path), "a card that was cut off is still its own"


def test_a_card_says_whether_it_was_changed() -> None:
    card = CARD.put(b'{\n "seewhy": "1",\n "method": "\xc3\xa9"\n}')
    assert json.loads(card)["method"] == "é"
    assert CARD.is_whole(card)
    assert CARD.is_whole(b'{\n "seewhy": "1"\n}'), "those of earlier versions say nothing"
    changed = [card.replace(b'"1"', b'"2"'), card.replace(b'"method"', b'"methods"'), card.replace(b"{\n", b"{ \n")]
    assert not any(map(CARD.is_whole, changed))


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
    with pytest.raises(ForeignFileError, match=r"exists and was not written by this command\."):
        Journal(path, ROWS)
    assert path.read_bytes() == data
    with Journal(path, ROWS, force=True) as journal:
        assert path.read_bytes() == data, "not before there is something to note"
        journal.add({"image": "a", "error": ""})
    assert Journal(path, ROWS).rows == [{"image": "a", "error": ""}]


@pytest.mark.parametrize("link", ["symlink_to", "hardlink_to"])
def test_no_link_in_a_folder_of_its_own_is_followed(link: str, tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("mine")
    path = tmp_path / "a.f32"
    getattr(path, link)(tmp_path / "theirs")
    with pytest.raises(ForeignFileError, match="a link, so writing"):
        write_at(path, 0, b"x")
    write_inside(path, "ours")
    assert (path.read_text(), path.is_symlink()) == ("ours", False)
    assert (tmp_path / "theirs").read_text() == "mine"


def test_only_files_with_the_mark_are_deleted(tmp_path: Path) -> None:
    own, theirs, link = tmp_path / "own", tmp_path / "theirs", tmp_path / "link"
    write(own, "{}")
    theirs.write_text("{}")
    link.symlink_to(own)
    assert [remove(p) for p in (theirs, link, tmp_path, tmp_path / "none", own)] == [False] * 4 + [True]
    assert theirs.exists()
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "trunk.xml").write_text("")
    (tmp_path / "kept" / "mine").write_text("")
    drop_folder(tmp_path / "kept", r"trunk\..+")
    assert [p.name for p in (tmp_path / "kept").iterdir()] == ["mine"]


def test_a_file_that_may_not_be_written_stays(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", "{}")
    path.chmod(0o444)
    with pytest.raises(DataError, match="write-protected"):
        write(path, "{}", force=True)


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
