"""How much of the heat lies outside the object: known maps, the card's line, and pictures without a mask."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from planting import SIDE, TRANSFORM, plant, reader
from schemas import check
from seewhy.cli import app
from seewhy.errors import InputError
from seewhy.evidence.explain import ExplainOptions, show_outside
from seewhy.explanation.base import Where
from seewhy.pictures.images import Picture
from seewhy.pictures.object_masks import MaskFiles

VIEW = Picture("a.png", np.zeros((SIDE, SIDE, 3), np.uint8), (SIDE, SIDE), (0.0, 0.0, float(SIDE), float(SIDE)), "")


def left_half(tmp_path: Path, name: str = "a.png") -> MaskFiles:
    drawn = np.zeros((SIDE, SIDE), np.uint8)
    drawn[:, : SIDE // 4] = 255
    (tmp_path / "masks").mkdir(exist_ok=True)
    Image.fromarray(drawn).save(tmp_path / "masks" / name)
    return MaskFiles.of(tmp_path / "masks", TRANSFORM, [name])


def test_shares_of_known_maps(tmp_path: Path) -> None:
    masks = left_half(tmp_path)
    even = show_outside(torch.ones(8, 8), VIEW, "red", masks)
    assert (even.share, even.area) == (pytest.approx(0.75), 0.75)
    inside = torch.full((8, 8), -5.0)  # what speaks against is no part of it
    inside[:, 0] = 1.0
    assert show_outside(inside, VIEW, "red", masks).share == 0
    right = torch.zeros(8, 8)
    right[:, 6:] = 1.0
    assert show_outside(right, VIEW, "red", masks).share == 1
    assert show_outside(right, VIEW, "red", masks).sentence == (
        "100 % of the heat lies outside the object; by chance it would be 75 %."
    )


def test_what_cannot_be_measured_says_why(tmp_path: Path) -> None:
    masks = left_half(tmp_path)
    other = show_outside(torch.ones(8, 8), replace(VIEW, name="b.png"), "red", masks)
    assert other.to_json() == {
        "masks": "given, in masks", "share": None, "area": None,
        "why": "the picture has no mask in masks; add one of the same name",
    }  # fmt: skip
    assert show_outside(torch.zeros(8, 8), VIEW, "red", masks).why == "there is no heat"


def test_a_planted_watermark_lies_outside_and_the_card_says_so(tmp_path: Path) -> None:
    planted = plant("shortcut", 3)
    Image.fromarray(planted.pixels).save(tmp_path / "a.png")
    (tmp_path / "masks").mkdir()
    wide = np.zeros((SIDE, SIDE), bool)
    rows, columns = (slice(0, 16) if at.min() == 0 else slice(48, 64) for at in np.nonzero(planted.mask))
    wide[rows, columns] = True  # the watermark's cells, as enlarged maps reach beyond it
    Image.fromarray(np.roll(wide, (24, 24), (0, 1))).save(tmp_path / "masks" / "a.png")
    Image.fromarray(wide).save(tmp_path / "mark.png")
    share = {}
    for name in ("masks", "mark.png"):
        source = MaskFiles.of(tmp_path / name, TRANSFORM, ["a.png"])
        why = reader("cnn", False).explain(str(tmp_path / "a.png"), objects=source, measure=False)
        assert isinstance(why.where, Where)
        assert why.where.outside is not None
        share[name] = why.where.outside.share
        check("explanation", [why.to_json()])
        page = why.to_html()
        assert why.where.outside.sentence in page
        assert 'id="def-outside"' in page
        assert len(why.to_png()) > 1000
    assert share["masks"] is not None
    assert share["mark.png"] is not None
    assert share["masks"] > 0.8 > 0.2 > share["mark.png"]
    plain = reader("cnn", False).explain(str(tmp_path / "a.png"), measure=False)
    assert "outside" not in plain.to_json()["where"]
    assert "outside the object" not in plain.to_html().partition('id="definitions"')[0]


def test_the_command_says_it_and_makes_cards_anew_for_other_masks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seewhy.cli.options.ClassifierChoice.opened", lambda *_: reader("cnn", False))
    Image.fromarray(plant("shortcut", 3).pixels).save(tmp_path / "a.png")
    left_half(tmp_path)
    argued = ["explain", str(tmp_path / "a.png"), "--store", "none", "-q", "-o", str(tmp_path / "why")]
    argued += ["--masks", str(tmp_path / "masks")]
    done = CliRunner().invoke(app, argued)
    assert "of the heat lies outside the object; by chance it would be 75 %." in done.stdout, done.output
    assert "(kept)" in CliRunner().invoke(app, argued).stdout
    drawn = np.zeros((SIDE, SIDE), np.uint8)
    drawn[:, : SIDE // 2] = 255
    Image.fromarray(drawn).save(tmp_path / "masks" / "a.png")
    line = json.loads(CliRunner().invoke(app, [*argued, "--json"]).stdout)
    assert line["where"]["outside"]["area"] == 0.5
    done = CliRunner().invoke(app, [*argued, "--object", "bird"])
    assert isinstance(done.exception, InputError)
    assert str(done.exception).startswith(
        f"--masks {tmp_path / 'masks'} and --object cannot be combined, because both give the "
        "position of the object. Use only one of them."
    )


def test_an_evaluation_says_it_of_all_explained_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seewhy.cli.options.ClassifierChoice.opened", lambda *_: reader("cnn", False))
    for i, label in enumerate(("red", "red", "blue", "blue")):
        (tmp_path / "photos" / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(plant("shortcut", i).pixels).save(tmp_path / "photos" / label / f"{i}.png")
    for name in ("0.png", "1.png", "2.png"):
        left_half(tmp_path, name)
    argued = ["evaluate", str(tmp_path / "photos"), "--store", "none", "-q", "--masks", str(tmp_path / "masks")]
    done = CliRunner().invoke(app, [*argued, "--json"])
    data = json.loads(done.stdout)
    check("evaluate", [data])
    found, model = data["faithfulness"]["outside"], reader("cnn", False)
    source = MaskFiles.of(tmp_path / "masks", TRANSFORM, ["0.png", "1.png", "2.png"])
    shares = []
    for name in ("red/0", "red/1", "blue/2"):
        where = model.explain(str(tmp_path / "photos" / f"{name}.png"), objects=source, measure=False).where
        assert isinstance(where, Where)
        assert where.outside is not None
        shares.append(where.outside.share)
    assert (found["n"], found["area"]) == (3, 0.75)
    assert found["share"] == pytest.approx(np.mean(shares), abs=2e-4)
    assert found["beyond"] == pytest.approx(found["share"] - 0.75, abs=2e-4)
    assert min(shares) - 0.75 - 1e-3 <= found["interval"][0] < found["beyond"] < found["interval"][1]
    assert any("not measured on 1 picture(s), such as" in note and "has no mask" in note for note in data["notes"])
    assert found["sentence"] in " ".join(CliRunner().invoke(app, argued).stdout.split())
    page = tmp_path / "report.html"
    CliRunner().invoke(app, [*argued, "-o", str(page)])
    assert found["sentence"] in page.read_text("utf-8")
    assert 'id="def-outside"' in page.read_text("utf-8")
    for more in (["--n-explained", "0"], ["--retrieval"]):
        wrong = CliRunner().invoke(app, [*argued, *more])
        assert str(wrong.exception).startswith(
            "--masks and --object require pictures with classes and at least one explained picture. Leave them out."
        )
    plain = CliRunner().invoke(app, [*argued[:2], "--store", "none", "-q", "--json", "--n-explained", "4"])
    assert "outside" not in json.loads(plain.stdout)["faithfulness"]


def test_masks_are_no_part_of_what_options_look_like(tmp_path: Path) -> None:
    assert "objects" not in repr(ExplainOptions(objects=left_half(tmp_path)))
