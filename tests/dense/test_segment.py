"""Segments by words, from files to files: a picture whose classes are known is found again."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize
from typer.testing import CliRunner

import seewhy
from coloured import COLOURS, colours, picture
from schemas import check
from seewhy.cli import app
from seewhy.dense import Segmentation, Segmenter, segmenters
from seewhy.dense.maskclip import MaskCLIP
from seewhy.errors import DataError, ForeignFileError, ImageError, InputError, UnknownNameError
from seewhy.pictures.pixel_classes import decode
from seewhy.types import Failure


def truth(pixels: np.ndarray) -> np.ndarray:
    return pixels.argmax(2)


def agreement(found: Segmentation, pixels: np.ndarray) -> float:
    return float((found.mask == truth(pixels)).mean())


@pytest.mark.parametrize("size", [(96, 64), (64, 96), (400, 60), (64, 64), (31, 200)])
@pytest.mark.parametrize("times", [1.0, 2.0, 6.0])
def test_what_is_planted_is_found_at_any_shape_and_size(size: tuple[int, int], times: float) -> None:
    pixels = picture(*size)
    found = MaskCLIP(zoom=times).build(colours(), list(COLOURS)).segment(pixels)
    assert found.size == size
    assert agreement(found, pixels) > 0.9
    assert [s.label for s in found.regions] == ["red", "green", "blue"] or times < 2 or min(size) < 60
    assert sum(s.share for s in found.regions) + found.unnamed == pytest.approx(1)
    assert found.unnamed < 0.001
    assert not found.not_found
    assert (found.about["n_windows"] == 1) == (times <= 2 and max(size) / min(size) <= 1.5)


def test_the_control_names_shuffled_is_wrong() -> None:
    pixels = picture()
    found = MaskCLIP().build(colours("green blue red"), list(COLOURS)).segment(pixels)
    assert agreement(found, pixels) < 0.05


def test_a_result_says_what_it_holds(tmp_path: Path) -> None:
    pixels = picture()
    found = seewhy.segment(pixels, ["red", "green", "blue"], colours())
    assert isinstance(found, Segmentation)
    red = found.regions[0]
    assert red.label == "red"
    assert red.box[:2] == (0, 0)
    assert abs(red.box[2] - 48) <= 4
    assert red.area == found.mask_of("red").sum()
    with pytest.raises(UnknownNameError, match="Did you mean 'green'"):
        found.mask_of("gren")
    data = found.to_json()
    check("segmentation", [data])
    assert all(np.array_equal(decode(s["rle"]), found.mask_of(s["label"])) for s in data["segments"])
    indexed = Image.open(io.BytesIO(found.to_png()))
    assert indexed.mode == "P"
    assert np.array_equal(np.asarray(indexed), found.mask)
    page = found.to_html()
    assert page.count("<img") == 2
    assert "aspect-ratio: 96 / 64" in page
    assert "<iframe" in found._repr_html_()
    assert repr(found).startswith("Segmentation('picture 1', red 3")
    for name in ("seg.png", "seg.json", "seg.html"):
        assert found.save(tmp_path / name).stat().st_size > 100
        found.save(tmp_path / name)  # its own it writes over
    (tmp_path / "mine.png").write_bytes(b"not ours")
    with pytest.raises(ForeignFileError, match=r"mine\.png exists"):
        found.save(tmp_path / "mine.png")
    with pytest.raises(DataError) as caught:
        found.save(tmp_path / "seg.tif")
    assert str(caught.value).startswith("Segments must be written as .png, .html, .json, got")


def test_options_change_what_they_say() -> None:
    pixels = picture()
    how: dict[str, Any] = {"encoder": colours(), "labels": ["red", "green", "blue", "red blue"]}
    plain = seewhy.segment(pixels, **how)
    unsure = seewhy.segment(pixels, least=0.9, scale=1.0, **how)
    assert (unsure.mask == 255).all()
    assert unsure.regions == ()
    assert "none of the names" in repr(unsure)
    assert "nothing found" in unsure.to_html()
    gone = seewhy.segment(pixels, denoised=0.99, scale=3.0, **how)
    assert len(gone.regions) <= len(plain.regions)
    centred, bare = seewhy.segment(pixels, centred=1.0, **how), seewhy.segment(pixels, centred=0.0, **how)
    assert centred.scores.mean((1, 2)) == pytest.approx(0, abs=1e-6)
    cells = normalize(torch.tensor([COLOURS["red"]]) / 255 * 4 - 2 + 0.5)  # what the transform makes of red, projected
    assert bare.scores[0, 0, 0] == pytest.approx(float(cells[0, 0]), abs=1e-3)
    for form in ("channels", "positions"):
        smoothed = seewhy.segment(pixels, smoothed=0.999, normalised=form, scale=3.0, **how)
        assert not np.allclose(smoothed.scores, plain.scores)
        assert agreement(smoothed, pixels) > 0.8


def test_pictures_that_cannot_be_read_stop_no_other(tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xff")
    segmenter = MaskCLIP().build(colours(), list(COLOURS))
    nothing, drawn = np.zeros((0, 3, 3), np.uint8), [picture(40 + i, 40) for i in range(9)]
    many = [picture(), str(tmp_path / "bad.jpg"), nothing, *drawn]
    found = list(segmenter.segment_all(many))
    assert [type(one) for one in found] == [Segmentation, Failure, Failure, *[Segmentation] * 9]
    assert [one.size[0] for one in found[3:] if isinstance(one, Segmentation)] == [*range(40, 49)]
    alone = segmenter.segment(picture(44, 40))
    again = found[7]
    assert isinstance(again, Segmentation)
    assert np.array_equal(alone.mask, again.mask)
    with pytest.raises(ImageError, match=r"bad\.jpg"):
        segmenter.segment(tmp_path / "bad.jpg")


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ([], "Segmentation needs 2 to 255 different names, got 0 names."),
        ("road", "Segmentation needs 2 to 255 different names, got 1 name."),
        (["a", " a "], "Segmentation needs 2 to 255 different names, got 'a' twice."),
        (map(str, range(256)), "Segmentation needs 2 to 255 different names, got 256 names."),
    ],
)
def test_names_that_make_no_classes(labels: Any, says: str) -> None:
    with pytest.raises(DataError) as caught:
        MaskCLIP().build(colours(), labels)
    assert str(caught.value).startswith(says)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"denoised": 1.5}, "`denoised` of maskclip must be a number from 0 to 1, got 1.5"),
        ({"normalised": "cells"}, "`normalised` of maskclip must be 'channels' or 'positions', got 'cells'"),
        ({"templates": ("a photo",)}, "Each template must have {} in place of the class name, got 'a photo'."),
        ({"templates": ()}, "Each template must have {} in place of the class name, got ''."),
    ],
)
def test_parameters_out_of_range(given: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as caught:
        MaskCLIP(**given)
    assert str(caught.value).startswith(says)


def test_sizes_out_of_range() -> None:
    for given in ({"zoom": 0.1}, {"zoom": 64.0}, {"least": 1.0}):
        with pytest.raises(InputError, match=r"^`(zoom|least)` of a segmenter must be a number from"):
            MaskCLIP(**given).build(colours(), list(COLOURS))


def test_the_registered_name_is_that_of_its_file() -> None:
    assert "maskclip" in list(segmenters)
    for name in segmenters:
        assert segmenters[name].name == name
        assert segmenters[name].paper
        assert segmenters[name].__module__.rpartition(".")[2] in (name, "recipe")


def test_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import seewhy.dense.by_words

    monkeypatch.setattr(seewhy.dense.by_words, "find", lambda name, engine: colours())
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        Image.fromarray(picture()).save(tmp_path / place / "street.png")
    (tmp_path / "b" / "bad.png").write_bytes(b"\x89PNG")
    words = ["segment", str(tmp_path / "a"), str(tmp_path / "b"), "--labels", "red, green,blue", "--store", "none"]
    out = tmp_path / "seg"
    done = CliRunner().invoke(app, [*words, "-o", str(out), "--json", "--quiet"])
    assert done.exit_code == 1, done.output
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [Path(row["mask"]).name for row in rows if "mask" in row] == ["street.png", "street-2.png"]
    assert [row["error"] for row in rows if "error" in row]
    assert (np.asarray(Image.open(out / "street-2.png")) == truth(picture())).mean() > 0.9
    coco = json.loads((out / "segments.json").read_text("utf-8"))
    assert [c["name"] for c in coco["categories"]] == ["red", "green", "blue"]
    assert len(coco["images"]) == 2
    assert [a["id"] for a in coco["annotations"]] == [1, 2, 3, 4, 5, 6]
    assert {a["image_id"] for a in coco["annotations"]} == {1, 2}
    one = coco["annotations"][0]
    assert decode(one["segmentation"]).sum() == one["area"]
    assert (out / "index.html").read_text("utf-8").count("<figure>") == 2
    again = CliRunner().invoke(app, [*words, "-o", str(out)])
    assert again.exit_code == 1, again.output
    assert f"page: {out / 'index.html'}" in again.stdout
    assert "street.png\tred 3" in again.stdout
    (out / "index.html").write_text("mine")
    refused = CliRunner().invoke(app, [*words, "-o", str(out)])
    assert isinstance(refused.exception, ForeignFileError)
    nothing = CliRunner().invoke(app, words[:3])
    assert str(nothing.exception).startswith('Class names are required. Add --labels "road, car, tree", for example.')
    (tmp_path / "names.txt").write_text("red\ngreen\n\nblue\n")
    listed = CliRunner().invoke(app, [*words[:4], str(tmp_path / "names.txt"), "--quiet"])
    assert "green" in listed.stdout
    absent = CliRunner().invoke(app, [*words[:4], str(tmp_path / "absent.txt")])
    assert "absent.txt cannot be read" in str(absent.exception)


def test_one_look_for_each_window(monkeypatch: pytest.MonkeyPatch) -> None:
    segmenter = MaskCLIP(zoom=2.0).build(colours(), list(COLOURS))
    seen: list[int] = []
    run = segmenter.encoder.forward_features
    monkeypatch.setattr(segmenter.encoder, "forward_features", lambda x: (seen.append(len(x)), run(x))[1])
    list(segmenter.segment_all([picture()] * 5))
    assert sum(seen) == 5
    assert isinstance(segmenter, Segmenter)
