"""Image Textualization: experts with known answers, the rules for words, removal, and a run that goes on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from schemas import check
from seewhy.errors import DataError
from seewhy.language.experts import WHOLE, BoxSegmenter, CellDetector, CellVerifier, FoundObject, colour_name
from seewhy.language.textualize import (
    Drafter,
    Textualizer,
    depth_in_words,
    estimate,
    jpeg,
    offline,
    position_in_words,
    read_drafts,
    read_objects,
    rewrite_prompt,
    scaled_depths,
    size_in_words,
    textualize_all,
    without,
)
from seewhy.language.writers import Prompt, Writer, WriterSession, Written
from seewhy.pictures.images import Picture, read_picture
from seewhy.types import Failure

SCENE = Picture("x.png", np.full((200, 200, 3), 255, np.uint8), (100, 50), (0, 0, 100, 50), "d" * 64)
CUP = FoundObject("cup", (0.0, 0.8, 0.1, 1.0), 0.9, "red", depth=8.0)
PLATE = FoundObject("plate", (0.3, 0.3, 0.7, 0.7), 0.8, "white", depth=4.0)


@dataclass(frozen=True)
class Finds:
    found: tuple[FoundObject, ...] = (CUP, PLATE)

    def detect(self, scene: Picture) -> Sequence[FoundObject]:
        return self.found


@dataclass(frozen=True)
class Knows:
    there: frozenset[str] = frozenset({"cup", "plate"})

    def supports(self, scene: Picture, phrase: str) -> bool:
        return phrase in self.there


def test_what_is_not_there_goes_and_what_is_missing_comes() -> None:
    made = Textualizer(Finds(), Knows(), BoxSegmenter())(SCENE, "A cup stands next to a dog. The light is warm.")
    assert made.removed == ("dog",)
    assert [o.label for o in made.added] == ["cup", "plate"]  # the cup went with the dog's sentence, and comes again
    assert made.description == (
        "The light is warm. There is a very small red cup in the lower left, close to the viewer. "
        "There is a white plate in the middle, far in the background."
    )
    row = made.to_json()
    assert row["bounding_boxes"][0] == [0.0, 40.0, 10.0, 50.0]
    assert row["object_depth"] == [1.0, 0.0]
    assert row["del_obj_from_desc"] == ["dog"]
    json.dumps(row)


def test_a_list_loses_its_item_only() -> None:
    made = Textualizer(Finds(), Knows())(SCENE, "There is a cup, a dog and a plate.")
    assert made.description == "There is a cup and a plate."


def test_nothing_to_do_leaves_the_draft_as_it_is() -> None:
    made = Textualizer(Finds(), Knows())(SCENE, "A cup  on a plate")
    assert (made.description, made.kept) == ("A cup  on a plate", "nothing to add or to remove")
    one = Textualizer(Finds((CUP,)), Knows())(SCENE, "A table of stone.")
    assert one.kept == ""  # "table" is not there
    assert Textualizer(Finds((CUP,)), Knows())(SCENE, "Warm light.").kept == "fewer than 2 objects were found"


def test_at_most_the_first_objects_are_listed() -> None:
    many = tuple(FoundObject(f"thing{i}", (0, 0, 0.5, 0.5)) for i in range(14))
    made = Textualizer(Finds(many))(SCENE, "")
    assert len(made.found) == 10
    assert "thing9" in made.description
    assert "thing10" not in made.description


def test_no_figure_is_in_the_text() -> None:
    made = Textualizer(Finds(), Knows(), BoxSegmenter())(SCENE, "")
    assert not any(c.isdigit() for c in made.description)


@given(st.floats(0, 0.9), st.floats(0, 0.9))
def test_every_place_has_words_and_a_mirrored_one_the_mirrored_words(x: float, y: float) -> None:
    said = position_in_words((x, y, x + 0.1, y + 0.1))
    turned = position_in_words((1 - x - 0.1, y, 1 - x, y + 0.1))
    swap = said.replace("left", "#").replace("right", "left").replace("#", "right")
    middle = abs(x + 0.05 - 1 / 3) < 1e-6 or abs(x + 0.05 - 2 / 3) < 1e-6
    assert turned == swap or middle


def test_sizes_and_depths_at_their_edges() -> None:
    assert [size_in_words(s) for s in (0.0199, 0.02, 0.4, 0.41, None)] == ["very small", "", "", "very large", ""]
    assert [bool(depth_in_words(d)) for d in (0.25, 0.26, 0.74, 0.75)] == [True, False, False, True]
    same = scaled_depths([FoundObject("a", (0, 0, 1, 1), depth=3.0), FoundObject("b", (0, 0, 1, 1), depth=3.0)])
    assert [o.depth for o in same] == [None, None]


def test_removal_by_rules() -> None:
    assert without("A dog. A cat.", ["dog"]) == "A cat."
    assert without("A dog and a cat sit. End.", ["dog"]) == "End."  # the first item carries the verb
    assert without("A cat, which watches a dog. End.", ["dog"]) == "End."
    assert without("Keep   this.", []) == "Keep   this."
    assert without("Three dogs and a cat", ["dog"]) == ""
    assert without("A hotdog.", ["dog"]) == "A hotdog."


def test_colours_have_names() -> None:
    for name, rgb in (
        ("red", (220, 20, 30)),
        ("white", (250, 250, 250)),
        ("blue", (30, 60, 200)),
        ("grey", (120,) * 3),
    ):
        assert colour_name(np.full((3, 3, 3), rgb, np.uint8)) == name
    half = np.zeros((4, 4, 3), np.uint8)
    half[:3] = (250, 210, 40)
    assert colour_name(half) == "yellow"


def test_the_ellipse_in_a_box() -> None:
    mask = BoxSegmenter().segment(
        Picture("", np.zeros((400, 400, 3), np.uint8), (1, 1), (0, 0, 1, 1), ""), (0, 0, 1, 1)
    )
    assert mask.mean() == pytest.approx(np.pi / 4, abs=0.002)


@dataclass
class Says(Writer):
    """Answers by a part of the question."""

    answers: dict[str, str]
    asked: list[Prompt] = field(default_factory=list)

    @property
    def sees(self) -> bool:
        return True

    @property
    def follows_schema(self) -> bool:
        return True

    @property
    def model(self) -> str:
        return "says"

    def write(self, prompt: Prompt) -> str:
        self.asked.append(prompt)
        return next(answer for part, answer in self.answers.items() if part in prompt.user)


def test_with_a_writer_the_phrases_and_the_rewrite_are_its_own() -> None:
    writer = Says({"List the things": '{"objects": ["brown dog", "cup."]}', "Rewrite": '"A cup and a plate."'})
    made = Textualizer(Finds(), Knows(), desk=WriterSession(writer, Written(":memory:")))(
        SCENE, "A brown dog and a cup."
    )
    assert made.phrases == ("brown dog", "cup")
    assert made.removed == ("brown dog",)
    assert made.description == "A cup and a plate."
    assert "Not there: brown dog" in writer.asked[-1].user
    assert "red cup; box [0.00, 0.80, 0.10, 1.00]; nearness 1.00" in writer.asked[-1].user


def test_answers_of_another_form_are_asked_for_again() -> None:
    with pytest.raises(ValueError, match="no list"):
        read_objects('{"objects": "dog"}')
    assert "Not there: nothing" in rewrite_prompt("x", (), ()).user


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    names = [str(folder / f"{i}.png") for i in range(3)]
    for name in names:
        Image.fromarray(rng.integers(0, 255, (60, 90, 3), np.uint8)).save(name)
    return names


def test_a_run_goes_on_where_it_was_stopped(pictures: list[str], tmp_path: Path) -> None:
    out = tmp_path / "d.jsonl"
    drafts = {Path(name).name: "A cup." for name in pictures}
    drafter = Drafter(None, None, drafts)  # type: ignore[arg-type]
    pipeline = Textualizer(Finds(), Knows())
    stream = textualize_all([*pictures, "missing.png"], pipeline, drafter, out, "a")
    next(stream)
    stream.close()
    with open(out, "ab") as file:
        file.write(b'{"image": "cut off by a ki')
    rows = list(textualize_all([*pictures, "missing.png"], pipeline, drafter, out, "a"))
    assert [isinstance(r, Failure) for r in rows] == [False, False, False, True]
    check("describe-images", rows[:3])
    assert [bool(r.get("known")) for r in rows if not isinstance(r, Failure)] == [True, False, False]
    assert len({json.loads(line)["digest"] for line in out.read_text("utf-8").splitlines()}) == 3
    # Made otherwise, all are described again; the old lines stay.
    assert not any(r.get("known") for r in textualize_all(pictures, pipeline, drafter, out, "b"))  # type: ignore[union-attr]
    out.write_text("{}\n")
    with pytest.raises(DataError, match=r"d\.jsonl exists and was not written by this command\."):
        list(textualize_all(pictures, pipeline, drafter, out, "a"))


def test_what_a_writer_would_cost_is_said_without_asking(pictures: list[str]) -> None:
    writer = Says({})
    desk = WriterSession(writer, Written(":memory:"))
    found = estimate([*pictures, "missing.png"], desk)
    assert found.n_prompts == 9
    assert found.tokens_in > 3 * 765
    assert estimate(pictures, desk, {Path(p).name: "A cup." for p in pictures}).n_prompts == 6
    assert writer.asked == []
    assert jpeg(pictures[0], (64, 48))[:2] == b"\xff\xd8"


def test_drafts_are_read_by_file_name(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text('{"image": "a/b.jpg", "description": "x"}\n')
    assert read_drafts(tmp_path / "d.jsonl") == [("b.jpg", "x")]
    (tmp_path / "d.jsonl").write_text('{"image": "a/b.jpg"}\n')
    with pytest.raises(DataError, match="description"):
        read_drafts(tmp_path / "d.jsonl")


@pytest.mark.slow
def test_with_the_library_s_own_experts_on_a_photograph(photo: Path, tmp_path: Path) -> None:
    import seewhy

    classifier = seewhy.zero_shot(["cat", "airplane", "pizza"])
    found = CellDetector(classifier).detect(read_picture(str(photo), WHOLE))
    assert found[0].label == "cat"
    verifier = CellVerifier(classifier)
    assert verifier.supports(read_picture(str(photo), WHOLE), "cat")
    assert not verifier.supports(read_picture(str(photo), WHOLE), "airplane")
    pipeline, drafter = offline(classifier), Drafter(classifier, None, {photo.name: "A cat. An airplane lands."})
    (row,) = textualize_all([str(photo)], pipeline, drafter, tmp_path / "d.jsonl", "x")
    assert not isinstance(row, Failure)
    assert "airplane" in row["del_obj_from_desc"]
    assert "airplane" not in row["description"]
    assert Drafter(classifier)(read_picture(str(photo), WHOLE)) == "A photo of a cat."
