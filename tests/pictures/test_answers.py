"""Pictures with several answers each: every form says the same, unknown is never "no", and mistakes are refused."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from seewhy.errors import DataError, InputError
from seewhy.pictures.answers import Answers, load_answers
from seewhy.pictures.samples import Sample, load_samples

NAMES = [f"{i}.png" for i in range(5)]
GIVEN = {"cat": ("no cat", "cat", "cat", "no cat", ""), "dog": ("no dog", "dog", "no dog", "dog", "")}
"""The labels of the pictures: none, both, a cat, a dog, unknown."""
UNKNOWN = ("1 picture(s) have no known answer: ",)
DATA = Path(os.environ.get("SEEWHY_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i, name in enumerate(NAMES):
        Image.new("RGB", (8 + i, 8)).save(tmp_path / name)
    return tmp_path


@pytest.fixture
def table(folder: Path) -> Callable[..., Path]:
    def write(*rows: str, heading: str = "image,label", name: str = "t.csv") -> Path:
        lines = [f"{image},{row}" for image, row in zip(NAMES, rows, strict=False)]
        (folder / name).write_text("\n".join([heading, *lines]) + "\n")
        return folder / name

    return write


def in_json_lines(folder: Path, cells: list[Any]) -> Path:
    lines = [json.dumps({"image": name, "label": cell}) for name, cell in zip(NAMES, cells, strict=True)]
    (folder / "t.jsonl").write_text("\n".join(lines))
    return folder / "t.jsonl"


def in_parquet(folder: Path, cells: list[Any]) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet").write_table(
        pyarrow.table({"image": NAMES, "label": cells}), folder / "t.parquet"
    )
    return folder / "t.parquet"


def test_every_form_of_a_table_gives_the_same_labels(folder: Path, table: Callable[..., Path]) -> None:
    """Spaces, empty parts and repeated labels say nothing; an empty list is no label, and an empty cell is unknown."""
    lists: list[Any] = [[], ["dog", "cat"], ["cat", "cat"], [" dog ", ""], None]
    for path in (
        table("No Finding", "dog|cat", "cat", " dog |dog||", " "),
        table("NONE", "cat| dog", "cat|cat", "dog", ""),
        in_json_lines(folder, lists),
        in_json_lines(folder, [["no findings"], "dog|cat", ["cat"], "dog", ""]),
        in_parquet(folder, lists),
    ):
        answers = load_answers(path)
        assert (answers.kind, dict(answers.given), list(answers.given)) == ("labels", GIVEN, ["cat", "dog"])
        assert [Path(s.image).name for s in answers.items] == NAMES
        assert {(s.label, s.kind) for s in answers.items} == {("", "")}
        assert [note.startswith(UNKNOWN) for note in answers.notes] == [True]


@pytest.mark.parametrize(
    "rows",
    [("0,0", "1,1", "1,0", "0,1", ","), ("no,No", "YES,y", "true,N", "False,1.0", "nan,<NA>")],
)
def test_columns_of_yes_and_no_are_labels(table: Callable[..., Path], rows: tuple[str, ...]) -> None:
    path = table(*rows, heading="image,cat,dog")
    assert dict(load_answers(path, label=("cat", "dog")).given) == GIVEN
    assert list(load_answers(path, label=("dog", "cat")).given) == ["dog", "cat"]


def test_an_unknown_label_of_a_known_picture_is_left_out_for_that_label_only(table: Callable[..., Path]) -> None:
    answers = load_answers(table("1,", "0,1", "1,0", heading="image,cat,dog"), label=["cat", "dog"])
    assert answers.given["dog"] == ("", "dog", "no dog")
    assert (len(answers.of("cat")), len(answers.of("dog")), answers.notes) == (3, 2, ())


def test_boxes_are_labels_of_their_picture(folder: Path) -> None:
    """A picture without boxes has no label, and two boxes of a class are one label."""
    boxes = [(1, 1), (1, 2), (1, 2), (2, 1), (3, 2)]
    coco = {
        "images": [{"id": i, "file_name": name} for i, name in enumerate(NAMES)],
        "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}],
        "annotations": [
            {"id": i, "image_id": image, "category_id": label, "bbox": [0, 0, 2, 2]}
            for i, (image, label) in enumerate(boxes)
        ],
    }
    (folder / "annotations.json").write_text(json.dumps(coco))
    (folder / "boxes").mkdir()
    rows = [f"{folder / NAMES[image]},0,0,2,2,{['dog', 'cat'][label - 1]}" for image, label in boxes]
    rows += [f"{folder / NAMES[i]},,,,," for i in (0, 4)]
    (folder / "boxes" / "b.csv").write_text("\n".join(["image,left,top,right,bottom,label", *rows]))
    for source in (folder / "annotations.json", folder, folder / "boxes" / "b.csv"):
        answers = load_answers(source)
        of = {
            Path(s.image).name: (cat, dog) for s, cat, dog in zip(answers.items, *answers.given.values(), strict=True)
        }
        assert list(answers.given) == ["cat", "dog"]
        assert list(of) == (NAMES if source.suffix != ".csv" else [*NAMES[1:4], NAMES[0], NAMES[4]])
        assert [of[name] for name in NAMES] == [
            ("no cat", "no dog"), ("cat", "dog"), ("no cat", "dog"), ("cat", "no dog"), ("no cat", "no dog"),
        ]  # fmt: skip
    for wrong in ({"group": "patient"}, {"questions": ["colour"]}, {"label": ["cat"]}):
        with pytest.raises(
            DataError, match=r"has boxes, of which only the labels are read. Leave out questions, group"
        ):
            load_answers(folder, **wrong)  # type: ignore[arg-type]


def test_questions_have_classes_of_their_own(table: Callable[..., Path]) -> None:
    """Numbers that a data frame wrote with .0 are read as they were, in each column."""
    path = table("red,3.0,a", ",12.0,a", "blue ,,b", ",,b", heading="image,colour,size,site")
    answers = load_answers(path, questions=("size", "colour"), group="site")
    assert answers.kind == "questions"
    assert dict(answers.given) == {"size": ("3", "12", "", ""), "colour": ("red", "", "blue", "")}
    assert [s.group for s in answers.items] == ["a", "a", "b", "b"]
    assert repr(answers) == "Answers(4 pictures, 2 questions: 'size', 'colour')"
    size = answers.of("size")
    assert [(Path(s.image).name, s.label, s.kind) for s in size.items] == [
        ("0.png", "3", "3|red"),
        ("1.png", "12", "12|"),
    ]
    assert size.classes == ("3", "12")
    with pytest.raises(InputError, match=r"'colours' is not one of the questions. Did you mean 'colour'"):
        answers.of("colours")


def test_a_row_without_a_picture_takes_its_answers_with_it(folder: Path) -> None:
    (folder / "t.csv").write_text("image,label\n0.png,3.0\n,4.0\n2.png,4.0\n")
    answers = load_answers(folder / "t.csv")
    assert dict(answers.given) == {"3": ("3", "no 3"), "4": ("no 4", "4")}
    assert [Path(s.image).name for s in answers.items] == ["0.png", "2.png"]
    assert answers.notes == ("left out 1 row(s) without picture: 2",)


def test_names_fix_the_labels_of_an_evaluation(table: Callable[..., Path]) -> None:
    """A known label that no picture has is absent, one without a column is unknown, and a strange one is left out."""
    path = table("dog|cat", "dog", "wren|dog")
    answers = load_answers(path, names=["fox", "dog", "cat"])
    assert dict(answers.given) == {"fox": ("no fox",) * 3, "dog": ("dog",) * 3, "cat": ("cat", "no cat", "no cat")}
    assert list(answers.given) == ["fox", "dog", "cat"]
    assert answers.notes == ("left out 1 labels that are not among the 3 known: wren",)
    columns = load_answers(table("1,1", "1,0", heading="image,cat,dog"), label=["cat", "dog"], names=["fox", "cat"])
    assert dict(columns.given) == {"fox": ("", ""), "cat": ("cat", "cat")}
    same = table("red", "red", heading="image,colour")
    assert dict(load_answers(same, questions=["colour"], names=["colour"]).given) == {"colour": ("red", "red")}


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (("a", "b"), {"label": "labels"}, "no column 'labels' of answers. Did you mean 'label'?"),
        (("a", "b"), {"label": ["label", "mass"]}, "no column 'mass' of answers. It has 'image', 'label'"),
        (("a", "b"), {"questions": ["labels"]}, "no column 'labels' of answers. Did you mean 'label'?"),
        (("a", "b"), {"group": "patient"}, "no column 'patient' that says which pictures belong together"),
        (("a", "b"), {"image": "file"}, "has no column 'file'"),
        (("", " "), {}, "None of the 2 pictures has a known answer to one of the labels. Fill some in."),
        (("", " "), {"questions": ["label"]}, "None of the 2 pictures has a known answer to one of the questions"),
        (("", " "), {"label": ["label"], "names": ["x"]}, "None of the 2 pictures has a known answer"),
        (("a|b", "a"), {}, "Each of the labels must have pictures with it and pictures without it, but the answers to "
            "'a' are all the same; the first is 'a'. Add pictures, or leave it out."),
        (("0", "no"), {"label": ["label"]}, "the answers to 'label' are all the same; the first is 'no label'"),
        (("a", ""), {"questions": ["label"]}, "Each of the questions must have at least two classes with pictures, but "
            "the answers to 'label' are all the same; the first is 'a'"),
        (("1", "-1"), {"label": ["label"]}, "t.csv, row 2, column 'label', must be one of 1, yes, true, y, 1.0, 0, no, "
            "false, n, 0.0, got '-1'. Correct it, or leave it empty if it is unknown."),
        (("a", "nan"), {}, "t.csv, row 2, column 'label', must be a name, got 'nan'"),
        (("a", "b|none"), {}, "row 2, column 'label', must be either 'none' or labels, got 'b', 'none'. Correct"),
        (("dog", "Dog |b"), {}, "must differ by more than case and spacing, got 'Dog' and 'dog'"),
        (("dog", "b"), {"names": ["Dog"]}, "must differ by more than case and spacing, got 'Dog' and 'dog'"),
        (("red", "Red"), {"questions": ["label"]}, "must differ by more than case and spacing, got 'red' and 'Red'"),
        (("mass", "No_mass"), {}, "The labels 'mass' and 'No_mass' cannot be used together, because 'No_mass' is the "
            "answer of pictures without 'mass'. Rename one, or leave 'No_mass' out."),
    ],
)  # fmt: skip
def test_what_can_be_misread_is_refused(
    table: Callable[..., Path], rows: tuple[str, ...], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError) as caught:
        load_answers(table(*rows), **options)
    assert message in str(caught.value)


def test_a_decision_named_twice_is_refused(table: Callable[..., Path]) -> None:
    path = table("a", "b")
    for wrong in ({"questions": ["label"] * 2}, {"label": ["label"] * 2}, {"names": ["a", "a"]}):
        with pytest.raises(InputError, match=r"must differ, got .* twice. Name it once"):
            load_answers(path, **wrong)  # type: ignore[arg-type]


def test_a_label_with_a_bar_is_refused(folder: Path) -> None:
    with pytest.raises(DataError, match=r"A label must have no '\|', which joins labels, got 'a\|b'. Rename it"):
        load_answers(in_json_lines(folder, [["a|b"], ["c"], [], [], []]))


def test_a_picture_with_two_rows_of_other_answers_is_refused(folder: Path) -> None:
    """Read as they stand, a picture of a dog and a cat would be one without a dog."""
    (folder / "t.csv").write_text("image,label\n0.png,dog\n0.png,cat\n1.png,cat\n")
    with pytest.raises(DataError, match=r"has 2 rows with .*0.png, whose answers differ. .* join its labels by '\|'"):
        load_answers(folder / "t.csv")
    (folder / "t.csv").write_text("image,label\n0.png,dog\n0.png,dog\n1.png,cat\n")
    assert len(load_answers(folder / "t.csv")) == 3


def test_what_is_no_table_and_has_no_boxes_is_refused(table: Callable[..., Path]) -> None:
    path = table("a", "b")
    with pytest.raises(DataError, match=r"does not exist. Did you mean '.*t.csv'\? Give a table ending in .csv"):
        load_answers(path.with_name("tt.csv"))
    with pytest.raises(DataError, match=r"is neither a table nor boxes. Give a table"):
        load_answers(path.parent)


def test_too_many_labels_are_refused_before_they_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    items, labels = [Sample(str(i)) for i in range(20)], [[f"caption {i}"] for i in range(20)]
    assert len(Answers.of_labels(items, labels).given) == 20
    monkeypatch.setattr("seewhy.pictures.answers.MOST_ANSWERS", 399)
    with pytest.raises(DataError, match="20 pictures with 20 labels are too many, as 399 answers are allowed"):
        Answers.of_labels(items, labels)


CAT_DOG = [[0, 0], [1, 1], [1, 0], [0, 1], [None, float("nan")]]


@pytest.mark.parametrize(
    ("answers", "names"),
    [
        ([[], ["dog", "cat"], {"cat"}, ("dog",), None], None),
        (["none", "dog|cat", "cat", "dog", float("nan")], None),
        (CAT_DOG, ["cat", "dog"]),
        (np.array(CAT_DOG, float), ["cat", "dog"]),
        (np.array(CAT_DOG, object), ["cat", "dog"]),
        (torch.tensor(np.array(CAT_DOG, float)), ["cat", "dog"]),
        ([*np.array(CAT_DOG, float)], ["cat", "dog"]),
    ],
)
def test_every_form_in_memory_gives_the_same_labels(answers: Any, names: list[str] | None) -> None:
    found = Answers.of_pictures(np.zeros((5, 4, 4, 3), np.uint8), answers, names)
    assert (found.kind, dict(found.given)) == ("labels", GIVEN)
    assert [s.image for s in found.items] == [f"picture {i}" for i in range(1, 6)]
    assert found.items[0].pixels is not None
    assert [s.image for s in Answers.of_pictures(NAMES, answers, names).items] == NAMES


def test_questions_in_memory(folder: Path) -> None:
    pandas = pytest.importorskip("pandas")
    questions = {"size": [1, None, 2, 1, 1], "colour": ["red", "", "blue", None, "red"]}
    for given in (
        questions,
        pandas.DataFrame(questions),
        {"size": [1.0, np.nan, 2, 1, 1], "colour": questions["colour"]},
    ):
        answers = Answers.of_pictures(NAMES, given)
        assert answers.kind == "questions"
        assert dict(answers.given) == {"size": ("1", "", "2", "1", "1"), "colour": ("red", "", "blue", "", "red")}


@pytest.mark.parametrize(
    ("pictures", "answers", "names", "message"),
    [
        (NAMES, [["a"], ["b"]], None, "numbers of pictures and answers must be equal, got 5 pictures and 2 answers"),
        (NAMES, {"q": ["a", "b"]}, None, "numbers of pictures and answers must be equal, got 5 pictures and 2 answers"),
        (NAMES, CAT_DOG, None, "`names` must have the label of each column of the matrix, got 2 columns and no names"),
        (
            NAMES,
            CAT_DOG,
            ["cat"],
            "`names` must have the label of each column of the matrix, got 2 columns and 1 names",
        ),
        (NAMES, "dog", None, "The answers must be a list with the labels of each picture, a matrix of 0 and 1, or a"),
        ("pictures", [["a"]], None, "The pictures must be a list or an array, got a str"),
        (NAMES, [[0.5, 1]] * 5, ["cat", "dog"], "The answers, row 1, column 'cat', must be one of 1, yes"),
    ],
)
def test_what_is_wrong_in_memory_is_named(pictures: Any, answers: Any, names: list[str] | None, message: str) -> None:
    with pytest.raises((DataError, InputError)) as caught:
        Answers.of_pictures(pictures, answers, names)
    assert message in str(caught.value)


def test_three_questions_of_real_products_are_those_of_their_columns() -> None:
    table = DATA / "fashion" / "train.csv"
    if not table.is_file():
        pytest.skip(f"{table} is not there; set SEEWHY_TEST_DATA to the folder that holds 'fashion'")
    questions = ("gender", "season", "usage")
    answers = load_answers(table, questions=questions)
    for question in questions:
        alone, found = load_samples(table, label=question), answers.of(question)
        assert [(s.image, s.label) for s in found.items] == [(s.image, s.label) for s in alone.items]
        assert (found.classes, found.notes) == (alone.classes, alone.notes)
    assert len({s.kind for s in answers.of("season").items}) == 41
