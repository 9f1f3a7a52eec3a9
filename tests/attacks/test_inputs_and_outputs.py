"""What is read is never written over, what SeeWhy wrote is never data, and a file with two names is not changed."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from seewhy import Descriptions, FeatureStore, load_samples, zero_shot
from seewhy.cli import app
from seewhy.dense.regions import SegmentFolder
from seewhy.errors import ForeignFileError, ImageError, SeeWhyError
from seewhy.evidence.batch import CardFolder
from seewhy.pictures.images import read_picture
from seewhy.pictures.samples import load_pictures
from seewhy.pictures.sources import list_pictures
from seewhy.storage.database import DatabaseKind, connect
from seewhy.storage.journal import Journal
from seewhy.storage.marks import Lines, Record
from seewhy.storage.output import WRITTEN, output_folder, write
from seewhy.storage.reading import read_text

KIND = DatabaseKind("a test's database", 77, "CREATE TABLE IF NOT EXISTS rows (n INTEGER);")
NOTES = Lines((Record(("n",)),))


def picture(path: Path, form: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(path, form)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for label in ("cat", "dog"):
        for i in range(3):
            picture(tmp_path / "photos" / label / f"{i}.jpg")
    return tmp_path / "photos"


def seewhy(*arguments: Any, stdin: str = "") -> Any:
    return CliRunner().invoke(app, [*map(str, arguments), "--quiet"], input=stdin)


# Never written over


@pytest.mark.parametrize("name", ["0.jpg", "link", "hard", "UPPER.JPG"])
def test_force_replaces_no_photograph_that_a_list_names(photos: Path, name: str) -> None:
    target, photo = photos / "cat" / name, photos / "cat" / "0.jpg"
    if name == "link":
        target.symlink_to(photo)
    elif name == "hard":
        os.link(photo, target)
    elif name == "UPPER.JPG":
        picture(target, "JPEG")
    before = target.read_bytes()
    done = seewhy("predict", "-", "--labels", "cat,dog", "-o", target, "--force", stdin=f"{photos / 'cat'}\n")
    assert isinstance(done.exception, ForeignFileError)
    assert str(done.exception).endswith("Choose another name; --force does not help.")
    assert target.read_bytes() == before


@pytest.mark.parametrize("form", ["png", "jpeg", "gif", "bmp", "tiff", "webp", "avif"])
def test_a_picture_is_known_by_its_first_bytes(tmp_path: Path, form: str) -> None:
    target = picture(tmp_path / "notes.txt", form)
    (tmp_path / "broken.jpg").write_bytes(b"no picture any more")
    with pytest.raises(ForeignFileError, match=r"broken\.jpg is a picture that SeeWhy did not write"):
        write(tmp_path / "broken.jpg", "x", force=True)
    with pytest.raises(ForeignFileError, match=r"notes\.txt is a picture that SeeWhy did not write, and"):
        write(target, "x", force=True)


def test_a_dicom_file_is_a_picture(tmp_path: Path) -> None:
    (tmp_path / "IM0001").write_bytes(bytes(128) + b"DICM" + bytes(9))
    with pytest.raises(ForeignFileError, match="is a picture that SeeWhy did not write"):
        write(tmp_path / "IM0001", "x", force=True)


def test_a_picture_that_seewhy_wrote_is_replaced_until_it_changes(tmp_path: Path) -> None:
    card = tmp_path / "card.png"
    data = picture(tmp_path / "x.png").read_bytes()
    write(card, data)
    write(card, data + b"1")
    write(card, data, force=True)
    card.write_bytes(data + b"2")
    for force in (False, True):
        with pytest.raises(ForeignFileError):
            write(card, data, force=force)


def test_force_replaces_another_programs_text_but_no_input(tmp_path: Path) -> None:
    table, other, link = tmp_path / "table.csv", tmp_path / "other.csv", tmp_path / "also.csv"
    table.write_text("image,label\n")
    other.write_text("BMI,age\n1,2\n")
    write(other, "x", force=True)
    read_text(table)
    os.link(table, link)
    for name in (table, link):
        with pytest.raises(ForeignFileError, match=r"is also an input, and would be overwritten\. Choose"):
            write(name, "x", force=True)
    assert table.read_text() == "image,label\n"


def test_force_replaces_no_file_behind_standard_input(photos: Path) -> None:
    """``seewhy predict - -o list.txt --force < list.txt``."""
    list_ = photos.parent / "list.txt"
    list_.write_text(f"{photos / 'cat' / '0.jpg'}\n")
    with list_.open() as stdin:
        done = subprocess.run(
            [sys.executable, "-m", "seewhy", "predict", "-", "--labels", "cat,dog", "-o", list_, "--force", "-q"],
            stdin=stdin, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (
        2, f"seewhy: {list_} is also an input, and would be overwritten. Choose another name; --force does not help.\n"
    )  # fmt: skip
    assert list_.read_text() == f"{photos / 'cat' / '0.jpg'}\n"


def test_python_replaces_no_input_either(tmp_path: Path) -> None:
    file = tmp_path / "words.json"
    file.write_text(json.dumps({"cat": ["with whiskers"], "dog": ["with a lead"]}))
    read = Descriptions.read(file)
    with pytest.raises(ForeignFileError, match="is also an input"):
        read.write(file, force=True)
    read.write(tmp_path / "more.json")
    again = Descriptions.read(tmp_path / "more.json")
    again.write(tmp_path / "more.json")


def test_a_journal_replaces_no_photograph(tmp_path: Path) -> None:
    with pytest.raises(ForeignFileError, match="is a picture that SeeWhy did not write"):
        Journal(picture(tmp_path / "0.png"), NOTES, force=True)


# Never data


def test_a_folder_that_seewhy_wrote_is_no_class(photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = SegmentFolder(photos / "masks", ("cat",))
    picture(folder.path / "0.png")
    CardFolder(photos / "cat" / "cards").close()
    picture(photos / "cat" / "cards" / "0.png")
    samples = load_samples(photos)
    assert samples.classes == ("cat", "dog")
    assert "left out 1 folder(s) that SeeWhy wrote: masks" in samples.notes
    assert [s.image for s in samples.items if "cards" in s.image or "masks" in s.image] == []
    assert f"{photos / 'cat' / 'cards'} was left out, because SeeWhy wrote it." in caplog.text
    assert len(list(list_pictures([photos]))) == 6
    assert len(list(list_pictures([photos / "masks"]))) == 1, "a folder that is named is read"


def test_pictures_beside_masks_are_one_list(tmp_path: Path) -> None:
    picture(tmp_path / "pics" / "0.jpg")
    picture(SegmentFolder(tmp_path / "pics" / "masks", ("cat",)).path / "0.png")
    assert [Path(s.image).name for s in load_pictures(tmp_path / "pics").items] == ["0.jpg"]


def test_the_command_names_what_it_left_out(photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    picture(output_folder(photos / "made") / "0.png")
    shown = CliRunner().invoke(app, ["predict", str(photos), "--labels", "cat,dog", "--json"])
    assert f"{photos / 'made'} was left out, because SeeWhy wrote it." in caplog.text
    assert len([line for line in shown.stdout.splitlines() if line.startswith("{")]) == 6


def test_a_folder_with_notes_gets_the_mark_and_one_with_pictures_below_does_not(photos: Path) -> None:
    for made in (photos / "masks", photos / "cat" / "cards"):
        made.mkdir()
        (made / "notes.txt").write_text("of the user")
    picture(SegmentFolder(photos / "masks", ("cat",)).path / "0.png")
    picture(output_folder(photos / "cat" / "cards") / "0.png")
    (photos / "dog" / "IM0001").write_bytes(bytes(128) + b"DICM" + bytes(9))
    CardFolder(photos).close()
    CardFolder(photos / "dog").close()
    assert load_samples(photos).classes == ("cat", "dog")
    assert len(list(list_pictures([photos]))) == 7


def test_a_card_among_pictures_is_no_picture(photos: Path) -> None:
    """``seewhy explain photos/cat/0.jpg -o photos/cat/why.png``."""
    card = photos / "cat" / "why.png"
    explanation = zero_shot(["cat", "dog"]).explain(photos / "cat" / "0.jpg")
    explanation.save(card)
    for given in (card, card.read_bytes()):
        with pytest.raises(ImageError, match="is a card that SeeWhy wrote, not a photograph; leave it out"):
            read_picture(given, zero_shot(["cat", "dog"]).encoder.transform)


def test_masks_are_not_mixed_with_pictures(photos: Path) -> None:
    with pytest.raises(ForeignFileError, match=r"has the picture \d\.jpg, which SeeWhy did not write, so masks and"):
        SegmentFolder(photos / "cat", ("cat",), force=True)
    assert not (photos / "cat" / WRITTEN).exists()
    assert load_samples(photos).classes == ("cat", "dog")


def test_a_folder_of_the_user_gets_no_mark(photos: Path) -> None:
    CardFolder(photos / "cat").close()
    assert len(load_samples(photos).items) == 6


# Two names


@pytest.fixture
def database(tmp_path: Path) -> Path:
    (tmp_path / "decided").mkdir()
    path = tmp_path / "decided" / "d.sqlite"
    connect(path, KIND).close()
    return path


def test_a_database_with_a_hard_link_is_refused(database: Path, tmp_path: Path) -> None:
    os.link(database, tmp_path / "backup.sqlite")
    for name in (database, tmp_path / "backup.sqlite"):
        with pytest.raises(ForeignFileError, match=r"is a hard link, so writing would change another file too\. Copy "):
            connect(name, KIND)
    (tmp_path / "backup.sqlite").unlink()
    connect(database, KIND).close()


def test_a_link_that_an_interrupted_run_left_is_cleared(database: Path) -> None:
    left = database.parent / ".0123456789ab.part"
    os.link(database, left)
    (database.parent / ".ba9876543210.part").write_text("of another run")
    connect(database, KIND).close()
    assert not left.exists()
    assert (database.parent / ".ba9876543210.part").exists()


def test_two_connections_through_a_linked_folder_share_all(database: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(database.parent)
    one, two = connect(database, KIND, timeout=5), connect(tmp_path / "link" / "d.sqlite", KIND, timeout=5)
    for n in range(20):
        for db in (one, two):
            with db:
                db.execute("INSERT INTO rows VALUES (?)", (n,))
    assert [db.execute("SELECT COUNT(*) FROM rows").fetchone() for db in (one, two)] == [(40,)] * 2
    assert {Path(name).resolve() for _, _, name in one.execute("PRAGMA database_list")} == {database.resolve()}
    for db in (one, two):
        db.close()


def test_a_store_with_a_hard_link_is_refused_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEEWHY_CACHE", str(tmp_path))
    FeatureStore().close()
    os.link(tmp_path / "features.sqlite", tmp_path / "copy.sqlite")
    for path in (None, tmp_path / "copy.sqlite"):
        with pytest.raises(SeeWhyError, match="is a hard link, so writing would change another file too"):
            FeatureStore(path)


def test_a_journal_with_a_hard_link_is_refused(tmp_path: Path) -> None:
    with Journal(tmp_path / "progress.jsonl", NOTES) as journal:
        journal.add({"n": 1})
    os.link(tmp_path / "progress.jsonl", tmp_path / "backup.jsonl")
    with pytest.raises(ForeignFileError, match="is a hard link"):
        Journal(tmp_path / "progress.jsonl", NOTES)
    assert (tmp_path / "backup.jsonl").read_text() == '{"n": 1}\n'


def test_a_linked_database_in_a_folder_without_writing_is_read(database: Path, tmp_path: Path) -> None:
    os.link(database, tmp_path / "backup.sqlite")
    with sqlite3.connect(database) as db:
        assert db.execute("SELECT COUNT(*) FROM rows").fetchone() == (0,)
