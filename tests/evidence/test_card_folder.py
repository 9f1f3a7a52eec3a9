"""Cards for many pictures: no file of the user is written over, no card is taken for another's, none is explained."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from seewhy.classifiers.base import Classifier
from seewhy.classifiers.unfitted import Pretrained
from seewhy.errors import DataError
from seewhy.evidence.batch import Batch, Done
from seewhy.evidence.explain import ExplainOptions
from seewhy.heads.head import Head
from seewhy.types import Failure
from tiny import COLOURS, picture, tiny_cnn

QUICK = ExplainOptions(measure=False)


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Pretrained().build(tiny_cnn(), None, None)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pictures of one name in several folders, and the folder that holds them."""
    monkeypatch.chdir(tmp_path)
    for folder, label in zip(("x", "y", "z"), COLOURS, strict=False):
        Path(folder).mkdir()
        Image.fromarray(picture(label, 0)).save(f"{folder}/a.png")
    return tmp_path


def run(classifier: Classifier, *names: str, output: str = "why", **options: Any) -> list[tuple[str, bool]]:
    """The card of each picture, and whether it was kept."""
    found = list(Batch(classifier, QUICK, Path(output), **options).run(names))
    assert all(isinstance(f, Done) for f in found)
    return [(f.record["card"], f.explanation is None) for f in found if isinstance(f, Done)]


def refused(classifier: Classifier, *names: str, output: str, force: bool = False) -> str:
    with pytest.raises(DataError) as caught:
        list(Batch(classifier, QUICK, Path(output), force=force).run(names))
    return str(caught.value)


def shows(card: str) -> str:
    """The picture a card is of."""
    return Path(card).read_text("utf-8").partition('class="file" title="')[2].split('"')[0]


def test_a_photo_is_never_written_over(classifier: Classifier) -> None:
    photo = Path("z/a.png").read_bytes()
    (first,) = run(classifier, "z/a.png", output="z", png=True)
    assert Path("z/a.png").read_bytes() == photo
    assert Path(first[0]).with_suffix(".png").is_file()
    assert run(classifier, "z/a.png", output="z", png=True) == [(first[0], True)]
    said = refused(classifier, "z/a.png", output="z/a.png")
    foreign = "exists, and either SeeWhy did not write it or it has changed since."
    assert said.startswith(f"z/a.png {foreign}")
    os.link("z/a.png", "z/same.png")
    assert refused(classifier, "z/a.png", output="z/same.png").startswith(f"z/same.png {foreign}")
    assert Path("z/a.png").read_bytes() == photo
    own = "z/card.png"
    list(Batch(classifier, QUICK, Path(own)).run(["x/a.png"]))
    assert refused(classifier, own, output=own).startswith(f"{own} is the picture itself")
    assert Path("z/a.png").read_bytes() == photo


def test_a_file_of_the_user_is_never_written_over(classifier: Classifier) -> None:
    Path("why").mkdir()
    Path("why/a.html").write_text("mine")
    (card,) = run(classifier, "x/a.png")
    assert (Path("why/a.html").read_text(), shows(card[0])) == ("mine", "x/a.png")
    Path(card[0]).write_text("changed by hand")
    (again,) = run(classifier, "x/a.png")
    assert (Path(card[0]).read_text(), shows(again[0])) == ("changed by hand", "x/a.png")
    Path(again[0]).write_text("this too")
    assert refused(classifier, "x/a.png", output="why") == (
        "The folder why has files with all possible names for the card of x/a.png. Give another folder with -o."
    )


@pytest.mark.parametrize("name", ["index.html", "explanations.jsonl"])
def test_an_index_of_the_user_is_never_written_over(classifier: Classifier, name: str) -> None:
    Path("site").mkdir()
    Path("site", name).write_text("mine")
    assert refused(classifier, "x/a.png", output="site") == (
        f"site/{name} already exists and was not written by seewhy explain. Give another folder with -o."
    )
    assert refused(classifier, "x/a.png", output="site", force=True).startswith(f"site/{name} already exists and was")
    assert [p.name for p in Path("site").iterdir()] == [name]
    assert Path("site", name).read_text() == "mine"


def test_a_kept_card_is_of_its_own_picture(classifier: Classifier) -> None:
    (x,) = run(classifier, "x/a.png")
    (y,) = run(classifier, "y/a.png")
    assert run(classifier, "y/a.png", "x/a.png") == [(y[0], True), (x[0], True)]
    assert (shows(x[0]), shows(y[0])) == ("x/a.png", "y/a.png")


def test_a_card_that_became_another_is_made_again(classifier: Classifier) -> None:
    (x,), (y,) = run(classifier, "x/a.png"), run(classifier, "y/a.png")
    Path(x[0]).write_bytes(Path(y[0]).read_bytes())
    (again,) = run(classifier, "x/a.png")
    assert (again[1], shows(again[0])) == (False, "x/a.png")


def test_a_picture_called_index_has_a_card(classifier: Classifier) -> None:
    os.rename("x/a.png", "x/Index.png")
    (card,) = run(classifier, "x/Index.png")
    assert Path(card[0]).name != "Index.html"
    assert shows(card[0]) == "x/Index.png"
    assert Path(card[0]).name in Path("why/index.html").read_text("utf-8")


def test_cards_are_not_explained_in_turn(classifier: Classifier) -> None:
    (x,) = run(classifier, "x/a.png", png=True)
    pictures = ["why/a.png", "x/a.png", os.path.abspath("why/a.png"), "y/../why/a.png"]
    assert run(classifier, *pictures, png=True) == [(x[0], True)]
    assert refused(classifier, "why/a.png", output="why") == (
        "There are no pictures to explain. Cards in why do not count. Give pictures."
    )
    Image.fromarray(picture("sky", 1)).save("why/a.png")
    assert len(run(classifier, "why/a.png")) == 1


def test_an_ending_no_card_has_is_refused(classifier: Classifier) -> None:
    assert refused(classifier, "x/a.png", output="card.jpg") == (
        "-o must be a folder, or a file that ends in .html, .htm, .png, .json, got card.jpg."
    )
    assert not Path("card.jpg").exists()
    assert run(classifier, "x/a.png", output="v1.2")[0][0] == "v1.2/a.html"


def test_a_model_that_changed_makes_its_cards_again(classifier: Classifier) -> None:
    run(classifier, "x/a.png")
    old = classifier.head
    for changed in (
        replace(classifier, head=Head(old.feature, old.weight, old.bias + torch.tensor([1.0, 0, 0, 0]), old.scale)),
        replace(classifier, head=Head(old.feature, old.weight[[1, 0, 2, 3]], old.bias, old.scale)),
        replace(classifier, trained_on="9 pictures"),
    ):
        assert run(changed, "x/a.png") == [("why/a.html", False)]
        assert run(changed, "x/a.png") == [("why/a.html", True)]


def test_killed_between_note_and_card_it_goes_on(classifier: Classifier) -> None:
    (card,) = run(classifier, "x/a.png")
    whole = Path(card[0]).read_bytes()
    Path(card[0]).unlink()
    with open("why/.explanations.progress.jsonl", "a") as notes:
        notes.write('{"key": "cut')
    assert run(classifier, "x/a.png") == [(card[0], False)]
    assert Path(card[0]).read_bytes() == whole
    assert run(classifier, "x/a.png") == [(card[0], True)]


def test_a_name_that_is_no_unicode(classifier: Classifier) -> None:
    name = os.fsdecode(b"x/caf\xe9.png")
    try:
        os.rename("x/a.png", name)
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    found = run(classifier, name, "y/a.png", png=True)
    assert found == [("why/caf_.html", False), ("why/a.html", False)]
    assert run(classifier, name, "y/a.png", png=True) == [(card, True) for card, _ in found]
    lines = Path("why/explanations.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["image"] for line in lines] == [name, "y/a.png"]
    os.rename(name, "x/a.png")
    (failed,) = Batch(classifier, QUICK, Path("why")).run([name])
    assert isinstance(failed, Failure)
    assert r"caf\udce9.png" in Path("why/index.html").read_text("utf-8")


def test_a_folder_that_may_not_be_written_to(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    from seewhy.storage import journal

    def deny(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(journal, "open", deny, raising=False)
    assert refused(classifier, "x/a.png", output="why") == (
        "why/.explanations.progress.jsonl could not be written: permission denied. Choose a folder you may write to."
    )
