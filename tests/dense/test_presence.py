"""Names that a picture does not hold: no box, no pixel, and said so wherever a result is said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import seewhy
from coloured import COLOURS, colours
from schemas import check
from seewhy.cli import app
from seewhy.dense.finders import Presence, other_names, standing_out
from seewhy.dense.word_regions import few_of_each

LABELS = ["red", "green", "blue"]


def red_on_green() -> np.ndarray:
    pixels = np.empty((64, 64, 3), np.uint8)
    pixels[:] = COLOURS["green"]
    pixels[16:48, 16:48] = COLOURS["red"]
    return pixels


def test_the_measure_is_the_formula() -> None:
    torch.manual_seed(0)
    own, others = torch.randn(2, 3), torch.randn(6, 3)
    compared = torch.ones(2, 6, dtype=torch.bool)
    compared[1, 4:] = False
    found = standing_out(own, others, compared)
    for k in range(2):
        among = others[compared[k]]
        assert torch.allclose(found[k], (own[k] - among.mean(0)) / among.std(0, unbiased=False), atol=1e-5)


def test_a_name_is_not_compared_with_those_most_like_it() -> None:
    presence = Presence(seewhy.encoder("lite0"), ("dog",), "a photo of a {}.")
    assert len(other_names()) == len(set(other_names())) == 250
    left_out = {n for n, keep in zip(other_names(), presence.compared[0], strict=True) if not keep}
    assert len(left_out) == 25
    assert "Afghan hound" in left_out
    assert "aircraft carrier" not in left_out


def test_an_absent_name_has_no_box_and_is_said() -> None:
    found = seewhy.detect(red_on_green(), LABELS, colours(), size=1.0)
    assert found.not_found == ("blue",)
    assert {d.label for d in found.regions} == {"red", "green"}
    assert found.presence["blue"] < 3.3 < found.presence["red"]
    assert "not found: blue" in repr(found)
    assert found.to_json()["not_found"] == ["blue"]
    check("detections", [found.to_json()])
    assert "<b>not found</b> <span>blue</span>" in found.to_html()
    every = seewhy.detect(red_on_green(), LABELS, colours(), size=1.0, least_presence=0.0)
    assert every.presence == found.presence
    assert len(every) >= len(found)


def test_an_absent_name_has_no_pixel_and_none_of_these_is_an_answer() -> None:
    found = seewhy.segment(red_on_green(), ["red", "blue"], colours())
    assert found.not_found == ("blue",)
    assert not found.mask_of("blue").any()
    assert 0.2 < found.regions[0].share < 0.4  # the green is none of them
    assert found.unnamed == pytest.approx(1 - found.regions[0].share)
    assert found.to_json()["unnamed"] == pytest.approx(found.unnamed, abs=1e-6)
    check("segmentation", [found.to_json()])
    assert "<b>no name</b>" in found.to_html()
    assert "<b>not found</b> <span>blue</span>" in found.to_html()
    named = seewhy.segment(red_on_green(), ["red", "blue"], colours(), least_presence=0.0)
    assert (named.mask < 2).all()
    assert named.presence == {}


def test_nothing_found_is_an_answer_in_the_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import seewhy.dense.by_words

    for module in (seewhy.dense.by_words, seewhy.dense.by_words):
        monkeypatch.setattr(module, "find", lambda name, engine: colours())
    pixels = np.full((64, 64, 3), COLOURS["green"], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    for verb in ("detect", "segment"):
        words = [verb, str(tmp_path / "a.png"), "--labels", "red,blue", "--store", "none", "-q"]
        done = CliRunner().invoke(app, [*words, "-o", str(tmp_path / verb)])
        assert done.exit_code == 0, done.output
        assert "a.png\tnothing found; not found: red, blue" in done.stdout
        page = (tmp_path / verb / "index.html").read_text("utf-8")
        assert "<strong>Nothing was found.</strong>" in page
        assert "<b>nothing found</b> <span>for red, blue</span>" in page
        lines = CliRunner().invoke(app, [*words, "--json"]).stdout.splitlines()
        assert json.loads(lines[0])["not_found"] == ["red", "blue"]
    every = CliRunner().invoke(app, [*words, "--json", "--set", "least_presence=0"]).stdout.splitlines()
    assert json.loads(every[0])["unnamed"] == 0
    refused = CliRunner().invoke(app, ["detect", str(tmp_path / "a.png"), "-m", "det", "--set", "least_presence=2"])
    assert str(refused.exception).startswith(
        "--model and --set least_presence cannot be combined, because a saved detector has "
        "its own thresholds. Use only one of them, or --least-score."
    )


def test_few_boxes_of_each_name() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [2, 2, 8, 8], [20, 0, 30, 10], [40, 0, 50, 10], [2, 2, 8, 8]])
    scores, labels = torch.tensor([0.50, 0.55, 0.52, 0.30, 0.1]), torch.tensor([0, 0, 0, 0, 1])
    assert few_of_each(boxes, scores, labels, 0.9).tolist() == [1, 2, 4]
    assert few_of_each(boxes, scores, labels, 0.5).tolist() == [1, 2, 3, 4]


@pytest.mark.slow  # the shipped encoder, on a photograph
def test_a_cat_is_no_sports_car() -> None:
    import skimage.data

    found = seewhy.detect(skimage.data.chelsea(), ["cat", "sports car", "pineapple", "bus", "ball"])
    assert {d.label for d in found.regions} <= {"cat"}
    assert set(found.not_found) >= {"sports car", "pineapple", "bus", "ball"}
