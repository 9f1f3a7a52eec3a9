"""Nothing that was typed is ever lost or overwritten: versions, drafts, the shelf, two people, two windows."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from seewhy.errors import DataError, ForeignFileError, InputError
from seewhy.language.annotation.records import DIMENSIONS, Picture, Version, check_author, check_content
from seewhy.language.annotation.rounds import text_of
from seewhy.language.annotation.store import AnnotationStore, Conflict

KEY = "k" * 16


def answers(score: int) -> dict[str, int]:
    return dict.fromkeys(DIMENSIONS, score)


@pytest.fixture
def store(tmp_path: Path) -> AnnotationStore:
    made = AnnotationStore(tmp_path / "a.sqlite")
    made.add_pictures([Picture(KEY, KEY * 4, "cat.jpg", 40, 30)])
    return made


def test_a_file_that_gets_a_second_name_meanwhile_takes_no_version(store: AnnotationStore, tmp_path: Path) -> None:
    os.link(store.path, tmp_path / "backup.sqlite")
    with pytest.raises(ForeignFileError, match=r"a\.sqlite is a hard link, so writing would change another file too"):
        store.save(KEY, "caption", "Ann", {"text": "A cup."}, 0, 1)
    (tmp_path / "backup.sqlite").unlink()
    assert isinstance(store.save(KEY, "caption", "Ann", {"text": "A cup."}, 0, 1), Version)


def test_versions_go_on_top_of_one_another(store: AnnotationStore) -> None:
    first = store.save(KEY, "caption", " Ann  B ", {"text": "A cup."}, 0, 12.34)
    assert isinstance(first, Version)
    assert (first.number, first.author, first.seconds) == (1, "Ann B", 12.3)
    second = store.save(KEY, "caption", "Bob", {"text": "A red cup."}, 1, 5)
    assert isinstance(second, Version)
    assert [text_of(v.content) for v in store.versions(KEY, "caption")] == ["A cup.", "A red cup."]
    assert store.versions(KEY, "objects") == ()


def test_whoever_comes_second_overwrites_nothing(store: AnnotationStore) -> None:
    store.save(KEY, "caption", "Ann", {"text": "A cup."}, 0, 1)
    store.keep_draft(KEY, "caption", "Bob", {"text": "A mug."}, 0, 1, 0)
    late = store.save(KEY, "caption", "Bob", {"text": "A mug."}, 0, 1)
    assert isinstance(late, Conflict)
    assert (late.latest.author, late.latest.content) == ("Ann", {"text": "A cup."})
    assert len(store.versions(KEY, "caption")) == 1
    draft = store.draft(KEY, "caption", "Bob")
    assert draft is not None
    assert draft.content == {"text": "A mug."}


def test_of_many_who_save_at_once_one_wins_and_the_others_are_told(store: AnnotationStore) -> None:
    answers: list[object] = []
    gate = threading.Barrier(8)

    def save(i: int) -> None:
        gate.wait()
        answers.append(store.save(KEY, "caption", f"p{i}", {"text": str(i)}, 0, 0))

    threads = [threading.Thread(target=save, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert sorted(type(a).__name__ for a in answers) == ["Conflict"] * 7 + ["Version"]
    assert len(store.versions(KEY, "caption")) == 1


def test_two_windows_of_one_person_keep_both_texts(store: AnnotationStore) -> None:
    assert store.keep_draft(KEY, "caption", "Ann", {"text": "one"}, 0, 1, 0, tab="a", sequence=1) == (1, False)
    assert store.keep_draft(KEY, "caption", "Ann", {"text": "one two"}, 0, 1, 0, tab="a", sequence=2) == (2, False)
    # Another window that never saw the draft: the one that was there goes to the shelf.
    assert store.keep_draft(KEY, "caption", "Ann", {"text": "other"}, 0, 1, 0, tab="b", sequence=1) == (3, True)
    assert [text_of(d.content) for d in store.drafts(KEY, "caption", "Ann", "shelved")] == ["one two"]
    # A message of a window that comes after a later one of the same window does not undo it.
    assert store.keep_draft(KEY, "caption", "Ann", {"text": "oth"}, 0, 1, 0, tab="b", sequence=0) == (3, False)
    draft = store.draft(KEY, "caption", "Ann")
    assert draft is not None
    assert draft.content == {"text": "other"}


def test_a_version_drops_its_own_draft_and_shelves_another(store: AnnotationStore) -> None:
    store.keep_draft(KEY, "caption", "Ann", {"text": "typed elsewhere"}, 0, 1, 0)
    store.save(KEY, "caption", "Ann", {"text": "finished"}, 0, 1)
    assert store.draft(KEY, "caption", "Ann") is None
    assert [text_of(d.content) for d in store.drafts(KEY, "caption", "Ann", "shelved")] == ["typed elsewhere"]
    store.keep_draft(KEY, "caption", "Ann", {"text": "same"}, 1, 1, 0)
    store.save(KEY, "caption", "Ann", {"text": "same"}, 1, 1)
    assert len(store.drafts(KEY, "caption", "Ann", "shelved")) == 1


def test_a_seed_never_comes_over_what_people_began(store: AnnotationStore) -> None:
    assert store.seed(KEY, "caption", "model: x", {"text": "A seed."})
    assert not store.seed(KEY, "caption", "model: x", {"text": "Another."})
    store.keep_draft(KEY, "objects", "Ann", {"objects": []}, 0, 1, 0)
    assert not store.seed(KEY, "objects", "model: x", {"objects": []})
    latest = store.latest(KEY, "caption")
    assert latest is not None
    assert (latest.number, latest.kind, latest.base) == (0, "seed", None)
    saved = store.save(KEY, "caption", "Ann", {"text": "Better."}, 0, 1)
    assert isinstance(saved, Version)
    assert saved.number == 1


WRITER = """
import sys
from seewhy.language.annotation.store import AnnotationStore
store = AnnotationStore(sys.argv[1])
for i in range(100000):
    store.keep_draft(sys.argv[2], "caption", "Ann", {"text": "word " * i}, 0, 1, i, tab="t", sequence=i)
    print(i, flush=True)
"""


def test_what_was_answered_for_survives_a_kill(store: AnnotationStore, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(store.path), KEY], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    assert process.stdout is not None
    told = [process.stdout.readline() for _ in range(5)]
    assert told[-1], "the writer did not start"
    time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    last = int([*told, *process.stdout.read().splitlines()][-1])
    process.stdout.close()
    process.wait()
    draft = AnnotationStore(store.path).draft(KEY, "caption", "Ann")
    assert draft is not None
    assert len(text_of(draft.content).split()) >= last


@pytest.mark.parametrize(
    ("task", "content"),
    [
        ("caption", {"text": 3}),
        ("caption", {"text": "x" * 20_001}),
        ("caption", []),
        ("colour", {"text": "x"}),
        ("objects", {"objects": {}}),
        ("objects", {"objects": [{"id": "a b", "label": "cup", "box": [0, 0, 1, 1]}]}),
        ("objects", {"objects": [{"id": "a", "label": "cup", "box": [0, 0, 1.1, 1]}]}),
        ("objects", {"objects": [{"id": "a", "label": "cup", "box": [0.5, 0, 0.5, 1]}]}),
        ("objects", {"objects": [{"id": "a", "label": "cup", "box": [0, 0, float("nan"), 1]}]}),
        ("objects", {"objects": [{"id": "a", "label": "cup", "box": [0, 0, 1, True]}]}),
        ("objects", {"objects": [{"id": "a", "label": "cup", "box": [0, 0, 1, 1], "attributes": ["smell"]}]}),
        ("objects", {"objects": [{"id": "a", "label": "cup", "box": [0, 0, 1, 1]}] * 2}),
    ],
)
def test_content_of_another_form_is_refused(store: AnnotationStore, task: str, content: object) -> None:
    with pytest.raises(InputError, match="must"):
        store.save(KEY, task, "Ann", content, 0, 1)
    with pytest.raises(InputError, match="must"):
        store.keep_draft(KEY, task, "Ann", content, 0, 1, 0)


def test_text_that_databases_choke_on_is_kept(store: AnnotationStore) -> None:
    saved = store.save(KEY, "caption", "Ann", {"text": "a\x00b \ud800 \U0001f431 '; DROP TABLE versions; --\r\n"}, 0, 1)
    assert isinstance(saved, Version)
    assert text_of(store.versions(KEY, "caption")[0].content) == "ab ? \U0001f431 '; DROP TABLE versions; --\n"
    assert check_content("objects", {}) == {"objects": []}
    rounded = {"id": "a", "label": "cup", "box": [0, 0, 0.333333, 1]}
    assert check_content("objects", {"objects": [rounded]})["objects"][0]["box"] == [0.0, 0.0, 0.33333, 1.0]
    with pytest.raises(InputError, match="must have 1 to 80 characters"):
        check_author("  ")


def test_a_stranger_and_a_file_that_is_no_database(store: AnnotationStore, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no picture 'nope'"):
        store.save("nope", "caption", "Ann", {"text": "x"}, 0, 1)
    (tmp_path / "x.sqlite").write_text("this is no database, and long enough to be seen as none" * 30)
    with pytest.raises(DataError, match="is not a file of annotations of SeeWhy"):
        AnnotationStore(tmp_path / "x.sqlite")


def test_the_last_judgement_of_a_person_on_a_pair_counts(store: AnnotationStore) -> None:
    row = {"author": "Ann", "first": "a", "second": "b", "swapped": True, "answers": answers(1), "seconds": 3.0}
    store.put_judgement(KEY, row)
    store.put_judgement(KEY, {**row, "answers": answers(-1)})
    store.put_judgement(KEY, {**row, "author": "Bob"})
    assert [(r["author"], r["answers"]["comprehensiveness"]) for r in store.judgements()] == [("Ann", -1), ("Bob", 1)]


@pytest.mark.parametrize(
    ("change", "read"),
    [
        ("UPDATE versions SET content = '{\"objects\": 3}', task = 'objects'", "histories"),
        ("UPDATE versions SET content = '[1]'", "histories"),
        ("UPDATE versions SET number = 'first'", "histories"),
        ("UPDATE versions SET author = ''", "histories"),
        ("UPDATE drafts SET content = '{\"text\": 5}'", "draft"),
        ("UPDATE drafts SET revision = 'x'", "draft"),
        ("UPDATE drafts SET seconds = -1", "draft"),
        ("UPDATE pictures SET width = 'wide'", "pictures"),
        ("UPDATE judgements SET answers = '{}'", "judgements"),
        ("UPDATE judgements SET answers = '{'", "judgements"),
    ],
)
def test_a_row_by_another_hand_is_told(store: AnnotationStore, change: str, read: str) -> None:
    store.save(KEY, "caption", "Ann", {"text": "A cup."}, 0, 1)
    store.keep_draft(KEY, "caption", "Bob", {"text": "A mug."}, 1, 1, 0)
    row = {"author": "Ann", "first": "a", "second": "b", "swapped": True, "answers": answers(1), "seconds": 3.0}
    store.put_judgement(KEY, row)
    given = (KEY, "caption", "Bob") if read == "draft" else ()
    before = getattr(store, read)(*given)
    assert before
    with sqlite3.connect(store.path) as db:
        db.execute(change)
    with pytest.raises(DataError, match="has an invalid row"):
        getattr(store, read)(*given)


def test_what_is_kept_comes_back_as_it_was(store: AnnotationStore) -> None:
    store.keep_draft(KEY, "caption", "Bob", {"text": "A mug."}, 1, 2.5, 0, tab="t", sequence=4)
    kept = store.draft(KEY, "caption", "Bob")
    assert kept is not None
    assert (kept.revision, kept.base, kept.content, kept.seconds) == (1, 1, {"text": "A mug."}, 2.5)
    assert (kept.tab, kept.sequence) == ("t", 4)
    row = {"author": "Ann", "first": "a", "second": "b", "swapped": True, "answers": answers(1), "seconds": 3.0}
    store.put_judgement(KEY, {**row, "made": "2026-01-01"})
    assert store.judgements() == [{"picture": KEY, **row, "made": "2026-01-01"}]
    assert store.picture(KEY) == Picture(KEY, KEY * 4, "cat.jpg", 40, 30)
