"""Data that change while the page is open: what is noticed, how it is told, and what a check costs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from gone_through import looked
from starlette.testclient import TestClient

from seewhy.classifiers.base import Classifier
from seewhy.encoders.stream import file_digest
from seewhy.pictures.samples import Sample, load_samples
from seewhy.service.app import folders, make_app
from seewhy.service.app.folders import Folders, News
from seewhy.service.app.settings import Settings
from seewhy.service.app.tiles import file_key

DICOM = bytes(128) + b"DICM"


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "SECONDS", 0.0)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two classes of three pictures."""
    for label in "ab":
        (tmp_path / "data" / label).mkdir(parents=True)
        for i, name in enumerate(("0.png", "1.png", "2.PNG")):
            (tmp_path / "data" / label / name).write_bytes(f"{label}{i}".encode())
    return tmp_path / "data"


def predicted(samples: Sequence[Sample]) -> Any:
    """The rows of pictures that have been predicted."""
    n = len(samples)
    keys = [file_key(s.image) for s in samples]
    digests = [(file_digest(s.image) or "").encode() for s in samples]
    rows = SimpleNamespace(items=samples, n_done=n, state=np.ones(n), key=np.array(digests, "S16"))
    rows.tile_keys = lambda index: [keys[i] for i in index]
    return rows


def of(data: Path, *more: Path) -> Folders:
    return Folders(predicted(load_samples(data).items), [data, *more])


def test_pictures_that_came_or_went_are_told(data: Path) -> None:
    watched = of(data)
    assert watched.news() == News()
    assert watched.news().note is None
    (data / "a" / "notes.sqlite").write_bytes(b"")
    (data / "a" / ".hidden.png").write_bytes(b"")
    (data / "loose.png").write_bytes(b"")
    (data / "a" / "README").write_bytes(b"no picture")
    (data / "a" / ".cache").mkdir()
    (data / "a" / ".cache" / "small.png").write_bytes(b"")
    assert watched.news() == News(), "no picture of a class"
    (data / "a" / "0.png").rename(data / "a" / "other.PNG")
    assert watched.news() == News(new=1, gone=1)
    (data / "b" / "deep").mkdir()
    (data / "b" / "deep" / "new.jpg").write_bytes(b"")
    assert watched.news() == News(new=2, gone=1)
    assert watched.news().note == (
        "The data have changed since the page was started: 2 new pictures, 1 missing picture. Start the page again to "
        "see the data as they are now. All decisions are kept."
    )
    (data / "a" / "other.PNG").rename(data / "a" / "0.png")
    shutil.rmtree(data / "b" / "deep")
    assert watched.news() == News(), "all is as at the start"
    shutil.rmtree(data / "b")
    assert watched.news() == News(gone=3)


def test_files_without_a_suffix_are_pictures_if_they_are_dicom(data: Path) -> None:
    (data / "a" / "1.2.840").write_bytes(DICOM)
    watched = of(data)
    (data / "a" / "IM0001").write_bytes(DICOM)
    (data / "b" / "LICENSE").write_bytes(b"no picture")
    (data / "x-ray").mkdir()
    (data / "x-ray" / "1.2.841").write_bytes(DICOM)
    assert watched.news() == News(new=2, classes=("x-ray",)), "as the reader of folders decides it"
    (data / "a" / "1.2.840").unlink()
    assert watched.news() == News(new=2, gone=1, classes=("x-ray",))


def test_a_new_class_is_told_by_name_once_it_has_pictures(data: Path) -> None:
    watched = of(data)
    (data / "Kiwi").mkdir()
    assert watched.news() == News()
    (data / "Kiwi" / "deep").mkdir()
    (data / "Kiwi" / "deep" / "1.jpg").write_bytes(b"")
    assert watched.news() == News(new=1, classes=("Kiwi",))
    assert "started: 1 new picture, 1 new class. Start" in watched.news().note
    odd = os.fsdecode(os.fsencode(str(data)) + b"/\xff")
    os.mkdir(odd)
    Path(odd, "1.png").write_bytes(b"")
    assert watched.news().classes == ("Kiwi", "\\udcff")
    assert "2 new classes" in watched.news().note


def test_a_picture_that_was_replaced_is_told_and_one_that_was_touched_is_not(data: Path) -> None:
    watched = of(data)
    (data / "a" / "0.png").write_bytes(b"another picture")
    (data / "b" / "1.png").touch()
    (data / "b" / "2.PNG").chmod(0o600)
    assert watched.news() == News(changed=1)
    assert "1 changed picture." in watched.news().note
    (data / "a" / "0.png").write_bytes(b"a0")
    assert watched.news() == News()
    (data / "b" / "1.png").write_bytes(b"once more")
    assert watched.news() == News(changed=1)
    (data / "b" / "1.png").unlink()
    assert watched.news() == News(gone=1), "and is counted once"


def test_a_changed_file_is_read_once_and_one_that_could_not_be_read_is_not_compared(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched, read = of(data), []
    watched._rows.state[0] = 2  # unreadable
    for name in ("0.png", "1.png"):
        (data / "a" / name).write_bytes(b"another picture")
    monkeypatch.setattr(folders, "file_digest", lambda name: read.append(Path(name).name) or file_digest(name))
    assert [watched.news() for _ in range(2)] == [News(changed=1)] * 2
    assert read == ["1.png"]


def test_a_check_compares_a_part_and_the_next_goes_on(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "COMPARING_SECONDS", 0.0)
    watched = of(data)
    stats: list[str] = []
    monkeypatch.setattr(folders, "file_key", lambda name: stats.append(name) or b"")
    for _ in range(6):
        watched.news()
    assert len(stats) == 6
    assert set(stats) == {s.image for s in load_samples(data).items}, "each in turn"


def test_a_folder_is_listed_again_only_if_it_has_changed(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in (data, data / "a", data / "b"):
        os.utime(folder, (1e9, 1e9))
    watched = of(data)
    listed: list[str] = []
    real = folders._listing
    monkeypatch.setattr(folders, "_listing", lambda name, *more: listed.append(name) or real(name, *more))
    watched.news()
    assert listed == []
    (data / "a" / "new.png").write_bytes(b"")
    watched.news()
    assert listed == [str(data / "a")]
    watched.news()
    assert listed == [str(data / "a")] * 2, "a time of change that is this recent may hide a second change"


def test_the_folders_are_not_checked_for_each_request(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "SECONDS", 60.0)
    watched = of(data)
    watched.news()
    (data / "a" / "0.png").unlink()
    assert watched.news() == News()


def test_links_in_a_circle_end(data: Path) -> None:
    (data / "a" / "to-b").symlink_to(data / "b", target_is_directory=True)
    (data / "b" / "to-a").symlink_to(data / "a", target_is_directory=True)
    (data / "b" / "self").symlink_to("self")
    watched = of(data)
    (data / "a" / "new.png").write_bytes(b"")
    assert watched.news().new >= 1
    assert len(watched._now) < 10


def test_of_a_table_its_own_pictures_and_the_table_count(data: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("image,label\ndata/a/0.png,a\ndata/b/1.png,b\n")
    pool = tmp_path / "pool"
    pool.mkdir()
    watched = of(table, pool)
    (data / "a" / "new.png").write_bytes(b"")
    (data / "b" / "0.png").unlink()
    assert watched.news() == News(), "no pictures of the table"
    (data / "b" / "1.png").unlink()
    (pool / "unlabelled.png").write_bytes(b"")
    assert watched.news() == News(new=1, gone=1)
    table.write_text("image,label\ndata/a/0.png,b\n")
    assert watched.news() == News(new=1, gone=1, tables=("table.csv",))
    assert "1 changed table." in watched.news().note


def test_without_sources_only_the_folders_of_the_pictures_are_watched(
    data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    names = [str(data / "a" / "0.png"), str(data / "a" / "1.picture"), str(data / "a" / "missing.png")]
    (data / "a" / "1.picture").write_bytes(b"")
    in_memory = Sample("picture 3", pixels=object())  # type: ignore[arg-type]
    watched = Folders(predicted([*map(Sample, names), in_memory]))
    (data / "b" / "new.png").write_bytes(b"")
    (data / "a" / "deep").mkdir()
    (data / "a" / "deep" / "new.png").write_bytes(b"")
    assert watched.news() == News()
    (data / "a" / "new.png").write_bytes(b"")
    assert watched.news() == News(new=1)
    (data / "a" / "1.picture").unlink()
    assert watched.news() == News(new=1, gone=1)
    assert set(watched._now) == {str(data / "a")}


def test_the_page_says_what_changed(fitted: Classifier, wrong: Path) -> None:
    samples = load_samples(wrong)
    with TestClient(make_app(fitted, data=samples, sources=[wrong]), base_url="http://localhost:8000") as page:
        looked(page)
        same = {"new": 0, "gone": 0, "changed": 0, "classes": [], "tables": [], "note": None}
        same["data"] = page.app.state.seewhy.rows.digest  # type: ignore[attr-defined]
        assert page.get("/changed").json() == same
        first = Path(samples.items[0].image)
        shutil.copy(Path(samples.items[5].image), first)
        (wrong / "teal").mkdir()
        shutil.copy(first, wrong / "teal")
        found = page.get("/changed").json()
        assert found == {**same, "new": 1, "changed": 1, "classes": ["teal"], "note": found["note"]}
        for path in ("/", "/browse", "/map", "/mistakes", "/next", "/help"):
            assert page.get(path).text.count('id="changed" ') == 1, path


def test_without_data_no_page_asks_for_it(client: Callable[..., TestClient], fitted: Classifier) -> None:
    assert 'id="changed"' not in client(fitted).get("/").text


def test_other_machines_do_not_learn_where_the_data_lie(fitted: Classifier, folders: Path, tmp_path: Path) -> None:
    places = [tmp_path / "secret" / "data", tmp_path / "other" / "pool"]
    for place in places:
        shutil.copytree(folders, place)
    data, pool = map(load_samples, places)
    lists = {}
    for host in ("127.0.0.1", "0.0.0.0"):
        for sources in (places, []):
            app = make_app(fitted, Settings(host=host), data=data, unlabelled=pool, sources=sources)
            with TestClient(app, base_url="http://localhost:8000") as page:
                lists[host, bool(sources)] = page.get("/selection.csv?places=9,33").text.splitlines()[1:]
                looked(page)
                for path in ("/", "/rows", "/browse", "/mistakes", "/next", "/sample/0", "/changed", "/map"):
                    for address in (path, f"{path}?format=json"):
                        assert str(tmp_path) not in page.get(address).text, address
    whole = [f"{data.items[9].image},rust", f"{pool.items[9].image},"]
    assert lists["127.0.0.1", True] == lists["127.0.0.1", False] == whole
    assert lists["0.0.0.0", True] == ["data/rust/rust_1.png,rust", "pool/rust/rust_1.png,"]
    assert lists["0.0.0.0", False] == ["rust_1.png,rust", "rust_1.png,"]
    saved = places[0].parent / "list.csv"
    saved.write_text("image,label\n" + lists["0.0.0.0", True][0])
    assert load_samples(saved).items[0].image == data.items[9].image
