"""Diffs, merges, the stop rule and coverage: closed forms."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seewhy.language.annotation.records import BoxedObject, Version
from seewhy.language.annotation.rounds import (
    Change,
    StopRule,
    changes,
    coverage,
    edited,
    head_of,
    history,
    left_out,
    merged,
    naming_words,
)

TEXT = st.text(alphabet="ab .\n", max_size=40)


@given(TEXT, TEXT)
def test_changes_hold_both_texts(before: str, after: str) -> None:
    found = changes(before, after)
    assert "".join(t for kind, t in found if kind != "added") == before
    assert "".join(t for kind, t in found if kind != "removed") == after


def test_a_word_that_stayed_is_not_said_to_have_changed() -> None:
    assert changes("A bag. It shines.", "A bag. It shines. The light is warm.") == (
        Change("same", "A bag. It shines."),
        Change("added", " The light is warm."),
    )
    assert changes("one\ntwo", "one two") == (
        Change("same", "one"),
        Change("removed", "\n"),
        Change("added", " "),
        Change("same", "two"),
    )


@given(TEXT, TEXT)
def test_the_edited_part_is_a_part(before: str, after: str) -> None:
    assert 0 <= edited(before, after) <= 1
    assert edited(before, before) == 0


def test_the_edited_part_in_closed_form() -> None:
    assert edited("a b c d", "a b c d e f g h") == 0.5
    assert edited("a b c d", "a x c d") == 0.25
    assert edited("a b", "c d") == 1
    assert edited("a b c k", "k x y z") == 1  # the one word that stayed has moved past all others


def text(base: str, theirs: str, mine: str) -> tuple[str, bool]:
    content, clash = merged("caption", {"text": base}, {"text": theirs}, {"text": mine})
    return content["text"], clash


def test_edits_in_different_sentences_come_together() -> None:
    base = "A cup. It is red. It stands on a table."
    theirs = "A large cup. It is red. It stands on a table."
    mine = "A cup. It is red. It stands on a wooden table. A cat sleeps."
    assert text(base, theirs, mine) == ("A large cup. It is red. It stands on a wooden table. A cat sleeps.", False)


def test_edits_in_one_sentence_stand_one_after_the_other() -> None:
    assert text("A cup. End.", "A red cup. End.", "A blue cup. End.") == ("A red cup. A blue cup. End.", True)


def test_two_first_texts_are_both_kept() -> None:
    assert text("", "A cup", "A mug") == ("A cup A mug", True)


@given(TEXT, TEXT)
def test_where_one_side_did_nothing_the_other_wins(base: str, other: str) -> None:
    assert text(base, other, base) == (other, False)
    assert text(base, base, other) == (other, False)
    assert text(base, other, other) == (other, False)


@given(TEXT, TEXT, TEXT)
def test_no_word_that_one_side_added_is_lost(base: str, theirs: str, mine: str) -> None:
    joined, _ = text(base, theirs + " NEW1", mine + " NEW2")
    assert "NEW1" in joined
    assert "NEW2" in joined


def thing(id: str, label: str = "cup", description: str = "") -> dict[str, object]:
    return {"id": id, "label": label, "box": [0, 0, 1, 1], "description": description, "attributes": []}


def test_objects_come_together_one_by_one() -> None:
    base = {"objects": [thing("a"), thing("b"), thing("c")]}
    theirs = {"objects": [thing("a", "mug"), thing("b"), thing("d")]}  # a changed, c deleted, d new
    mine = {"objects": [thing("a"), thing("b", "pot"), thing("c")]}  # b changed
    content, clash = merged("objects", base, theirs, mine)
    assert [(o["id"], o["label"]) for o in content["objects"]] == [("a", "mug"), ("b", "pot"), ("d", "cup")]
    assert not clash


def test_an_object_both_changed_is_there_twice() -> None:
    content, clash = merged(
        "objects", {"objects": [thing("a")]}, {"objects": [thing("a", "mug")]}, {"objects": [thing("a", "pot")]}
    )
    assert [o["label"] for o in content["objects"]] == ["mug", "pot"]
    assert len({o["id"] for o in content["objects"]}) == 2
    assert clash


def test_an_object_one_deleted_and_the_other_changed_stays() -> None:
    content, clash = merged("objects", {"objects": [thing("a")]}, {"objects": []}, {"objects": [thing("a", "pot")]})
    assert [o["label"] for o in content["objects"]] == ["pot"]
    assert clash


def version(number: int, author: str, words: str, kind: str = "round") -> Version:
    base = None if kind == "seed" else number - 1
    return Version("caption", number, author, kind, {"text": words}, 10.0, base, "2026-01-01T00:00:00.000+00:00")


TWENTY = " ".join(f"w{i}" for i in range(20))


@pytest.mark.parametrize(
    ("versions", "said"),
    [
        ([], None),
        ([version(0, "model", TWENTY, "seed"), version(1, "Ann", TWENTY)], None),
        ([version(1, "Ann", "a b"), version(2, "Bob", "c d")], None),
        ([version(1, "Ann", TWENTY), version(2, "Bob", TWENTY)], "The last round changed 0 % of the words."),
        ([version(1, "Ann", TWENTY), version(2, "Ann", TWENTY)], None),
        ([version(1, "Ann", TWENTY), version(2, "Bob", TWENTY + " x")], "The last round changed 5 % of the words."),
        ([version(1, "Ann", "a"), version(2, "Bob", "b"), version(3, "Cy", "c")], "3 rounds are done."),
    ],
)
def test_when_a_text_is_finished(versions: list[Version], said: str | None) -> None:
    assert StopRule(3, 0.05).finished(versions) == said


def test_the_history_says_what_each_version_changed() -> None:
    rows = history([version(0, "model", "a red cup", "seed"), version(1, "Ann", "a blue cup")])
    assert [(r["words"], r["edited"]) for r in rows] == [(3, 1.0), (3, 0.3333)]
    assert ["added", "blue "] in rows[1]["changes"]


def test_the_released_example_leaves_out_its_bee() -> None:
    """IIW-400's first record, retold: the second task's text drops an object that the first lists."""
    objects = [
        BoxedObject("1", "Thistle flowers", (0, 0, 1, 1), "Purple, in front of others."),
        BoxedObject("2", "Bumble bee", (0.5, 0.5, 0.7, 0.8), "Black and yellow stripes."),
        BoxedObject("3", "Sky", (0, 0, 1, 0.5), "Blurry and blue."),
    ]
    words = "A close-up of a purple thistle flower before others and a blurry blue sky."
    assert left_out(objects, words) == ("Bumble bee",)
    bee = coverage(objects, words)[1]
    assert bee.missing == ("bumble", "bee", "black", "yellow", "stripe")
    assert bee.share == 0
    assert coverage(objects, words)[2].share == 1


def test_words_that_name() -> None:
    assert naming_words("The three berries, and a cup of tea on it") == ["berry", "cup", "tea"]
    assert head_of("the bottle with a red cap") == "bottle"
    assert coverage([BoxedObject("1", "", (0, 0, 1, 1))], "")[0].named


def test_a_sentence_put_at_the_end_does_not_touch_the_one_before() -> None:
    assert text("A cup. It is red.", "A large cup. It is red.", "A cup. It is red. It shines.") == (
        "A large cup. It is red. It shines.",
        False,
    )


def test_a_sentence_they_rewrote_and_one_you_added_after_it() -> None:
    assert text("A cup.", "A large cup.", "A cup. It shines.") == ("A large cup. It shines.", False)
    assert text("It costs 3.50. End.", "It costs 3.50. The end.", "Look. It costs 3.50. End.") == (
        "Look. It costs 3.50. The end.",
        False,
    )
    assert text("A. B. C.", "A. C.", "A. B! C. D.") == ("A. B! C. D.", True)
