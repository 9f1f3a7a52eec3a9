"""Does it use the background: a planted shortcut is found, a clean model is not accused, masks are doubted."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

from backgrounds import CHOSEN, Known, planted
from planting import CLASSES, TRANSFORM, reader
from schemas import check
from seewhy.classifiers.base import Classifier
from seewhy.classifiers.linear.recipe import Linear
from seewhy.cli import app
from seewhy.dense.by_words import SegmenterMasks, WordMasks
from seewhy.dense.finders import Segmenter
from seewhy.errors import DataError, ImageError, InputError
from seewhy.pictures.boxes import BoxData, BoxedPicture, BoxRecord
from seewhy.pictures.images import Picture, read_views
from seewhy.pictures.object_masks import BoxMasks, MaskFiles, in_view
from seewhy.pictures.samples import Sample, Samples, gathered
from seewhy.progress import Progress
from seewhy.studies.background import BackgroundStudy, Findings, alone, filled, lenders, pasted
from seewhy.studies.background_verdict import (
    ALL,
    ALONE,
    LEAST,
    Answers,
    error_of,
    judged,
    mask_check,
    one_sided,
    overall,
)

STUDY = BackgroundStudy(n_draws=200)
RUNNER = CliRunner()


@cache
def found(where: str) -> Findings:
    samples, masks = planted(12, 0, where)
    return STUDY.run(reader("cnn", False), samples, Known(masks))


def version(row: dict[str, Any], name: str, measure: str = "accuracy") -> float:
    return float(next(v for v in row["versions"] if v["version"] == name)[measure]["value"])


def test_a_planted_shortcut_is_found() -> None:
    data = found("around").data
    assert data["verdict"] == "yes"
    assert {row["label"]: row["verdict"] for row in data["classes"]} == dict.fromkeys(CHOSEN, "yes")
    assert version(data["all"], "same class") == version(data["all"], "background alone") == 1
    assert version(data["all"], "other classes") < 0.1
    assert version(data["all"], "object alone") < 0.8
    assert found("around").sentence.startswith(
        "On 24 pictures, the model relies on the background. Its accuracy is 100.0 % on"
    )
    assert not data["masks"]["check"]["hit"]


def test_a_clean_model_is_not_accused() -> None:
    data = found("object").data
    assert data["verdict"] == data["all"]["verdict"] == "no"
    assert version(data["all"], "other classes") == version(data["all"], "object alone") == 1
    assert version(data["all"], "background alone") < 0.9
    assert abs(data["all"]["difference"]["value"]) < LEAST
    assert data["masks"]["check"]["hit"]


def test_pictures_that_the_model_was_fitted_on_are_counted() -> None:
    samples, masks = planted(12, 0, "around")
    model = Linear(n_crops=0).fit(reader("cnn", False).encoder, samples)
    fresh, others = planted(12, 1, "around")
    data = STUDY.run(model, samples, Known(masks))
    assert data.data["n_fitted_on"] == 24
    assert "The classifier was fitted on 24 of these pictures, so its accuracy is too high." in data.sentence
    new = STUDY.run(model, fresh, Known(others))
    assert new.data["n_fitted_on"] == 0
    assert "fitted on" not in new.sentence


def test_what_is_found_is_as_its_schema_says_and_its_page_shows_the_versions() -> None:
    check("study-background", [{**found("around").data, "report": None}])
    page = found("around").to_html()
    assert page.count("<figure>") == 6 * 2
    assert "same class" in page
    assert "Yes: the score is at least 0.05 higher on backgrounds of its own class" in page
    assert [label for _, label, _ in found("around").page.keywords["examples"]] == list(CHOSEN)
    names = [name for name, *_ in found("around").page.keywords["examples"][0][2]]
    assert names == ["original", "same class", "other class", "blurred", "background alone", "object alone"]


def answers(apart: Tensor, cost: float = 0.0) -> Answers:
    """Of two classes, whose score on a background of another class is .5, and apart from it on their own."""
    n, rounds = apart.shape
    score = torch.full((n, len(ALONE) + 2 * rounds), 0.5)
    score[:, len(ALONE) : len(ALONE) + rounds] += apart
    score[:, ALONE.index("elsewhere filled")] += cost
    return Answers(score, (score > 0.5).float())


def verdicts(given: Answers, hit: bool = True) -> list[str]:
    is_b = torch.arange(len(given.score)) % 2 == 1
    parts = {"a": ~is_b, "b": is_b, ALL: is_b | True}
    return [row["verdict"] for row in judged(parts, given, hit, 0.95, 50, 0)]


def noise(n: int, mean: float, spread: float, seed: int = 0) -> Tensor:
    drawn = torch.randn(n, 1, generator=torch.Generator().manual_seed(seed))
    return mean + spread * (drawn - drawn.mean()) / drawn.std()


@pytest.mark.parametrize(
    ("n", "mean", "spread", "expected"),
    [
        (60, 0.2, 0.1, "yes"),
        (60, 0.03, 0.01, "no"),  # real, and too little to be called leaning
        (60, 0.05, 0.4, "undecided"),
        (60, 0.0, 0.02, "no"),
        (60, -0.3, 0.1, "no"),  # better where it should be worse
        (18, 0.4, 0.01, "undecided"),  # nine of each class are too few
    ],
)
def test_the_rule(n: int, mean: float, spread: float, expected: str) -> None:
    given = answers(noise(n, mean, spread))
    assert verdicts(given)[0] == expected
    assert verdicts(given, hit=False)[0] == ("undecided" if expected == "yes" else expected)


def test_p_values_are_corrected_over_all_rows() -> None:
    given = answers(noise(40, 0.06, 0.125))
    alone_p = one_sided(float(given.apart[::2].mean()), error_of(given.apart[::2]))
    is_b = torch.arange(40) % 2 == 1
    parts = {"a": ~is_b, ALL: is_b | True}
    rows = judged({**parts, **{f"{i}": is_b for i in range(3)}}, given, True, 0.95, 50, 0)
    assert rows[0]["p_leans"] > 1.5 * alone_p
    assert len(rows) == 5


def test_other_rounds_of_the_same_backgrounds_make_nothing_surer() -> None:
    one = noise(30, 0.1, 0.2)
    assert error_of(one.repeat(1, 5)) == error_of(one)
    assert error_of(one).freedom == 29


def test_the_model_is_accused_where_any_class_is() -> None:
    row = lambda label, verdict: {"label": label, "verdict": verdict}  # noqa: E731
    assert overall([row("a", "yes"), row(ALL, "no")]) == "yes"
    assert overall([row("a", "undecided"), row(ALL, "no")]) == "no"
    assert overall([row("a", "no"), row(ALL, "undecided")]) == "undecided"


def test_masks_are_believed_where_filling_the_object_costs_more_than_filling_elsewhere() -> None:
    assert mask_check(answers(noise(20, 0, 0.1), 0.3), 0.95)["hit"]
    assert not mask_check(answers(noise(20, 0, 0.1), 0.0), 0.95)["hit"]
    assert mask_check(answers(noise(20, 0, 0.1), -0.3), 0.95) == {
        "value": -0.3, "interval": [-0.3, -0.3], "p": 1.0, "hit": False,
    }  # fmt: skip


def test_a_machines_masks_at_random_places_do_not_accuse_a_clean_model() -> None:
    samples, masks = planted(12, 0, "object")
    wrong = {name: np.roll(mask, (32, 32), (0, 1)) for name, mask in masks.items()}
    data = STUDY.run(reader("cnn", False), samples, Known(wrong, by_hand=False)).data
    assert data["all"]["difference"]["value"] > 0.5  # as a model that leans would have
    assert data["verdict"] == "undecided"
    assert "The masks may miss the object" in data["sentence"]


def test_backgrounds_are_lent_once_a_round_and_by_nobody_to_himself() -> None:
    labels = torch.tensor([0] * 5 + [1] * 4 + [2] * 6)
    own_class, other_class = lenders(labels, 4, 3).chunk(2, 1)
    for r in range(4):
        for k in range(3):
            own = (labels == k).nonzero()[:, 0]
            same, other = own_class[own, r], other_class[own, r]
            if k == 1 and r == 3:
                assert (same == -1).all()
                assert (other == -1).all()
                continue
            assert sorted(same.tolist()) == own.tolist()
            assert not (same == own).any()
            assert (labels[other] != k).all()
            assert len(other.unique()) == len(own)
    assert len({tuple(own_class[:5, r].tolist()) for r in range(4)}) == 4
    assert not torch.equal(lenders(labels, 4, 4)[:, :4], own_class)


def test_versions_keep_the_object_or_lose_it() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (32, 32, 3)).astype(np.uint8)
    mask = torch.zeros(32, 32, dtype=torch.bool)
    mask[4:14, 6:20] = True
    ground = filled(pixels, mask)
    grey = np.array([1, 2, 3], np.uint8)
    own = dict(zip(ALONE, alone(pixels, mask, ground, grey, 0), strict=True))
    on = mask.numpy()
    for name in ("blurred", "object alone"):
        assert (own[name][on] == pixels[on]).all()
    assert (own["object alone"][~on] == grey).all()
    assert (own["background alone"][~on] == pixels[~on]).all()
    assert own["background alone"][on].std() < pixels[on].std() / 3
    assert own["blurred"][~on].std() < pixels[~on].std() / 2
    changed = [(own[name] != pixels).any(2) for name in ("object filled", "elsewhere filled")]
    assert (changed[0] & ~on).sum() == (changed[1] & on).sum() == 0
    assert abs(changed[0].sum() - changed[1].sum()) <= 4  # a filled pixel may keep its colour by chance
    assert (pasted(pixels, mask, ground)[on] == pixels[on]).all()


def test_a_hole_is_filled_from_its_own_surroundings() -> None:
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[:, 20:] = 200
    hole = torch.zeros(40, 40, dtype=torch.bool)
    hole[10:20, 4:10] = hole[10:20, 30:36] = True
    pixels[hole.numpy()] = 77
    smooth = filled(pixels, hole)
    assert smooth[10:20, 4:8].max() < 40
    assert smooth[10:20, 32:36].min() > 160


def folder(tmp_path: Path, size: tuple[int, int] = (64, 64)) -> tuple[Path, Samples]:
    """The clean world on disk with its masks, of which some are not right."""
    samples, masks = planted(12, 0, "object")
    items = []
    for i, sample in enumerate(samples.items):
        place = tmp_path / "data" / sample.label / f"{i}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(sample.pixels)).save(place)
        items.append(Sample(str(place), sample.label))
        drawn = masks[sample.image]
        drawn = {0: np.zeros_like(drawn), 1: np.ones_like(drawn), 2: drawn[:32]}.get(i, drawn)
        (tmp_path / "masks").mkdir(exist_ok=True)
        if i != 3:
            Image.fromarray((drawn * 1).astype(np.uint8)).save(tmp_path / "masks" / f"{i}.png")
    return tmp_path / "data", gathered(items)


def test_masks_that_cannot_be_used_are_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    _, samples = folder(tmp_path)
    progress = Progress()
    source = MaskFiles.of(tmp_path / "masks", TRANSFORM, [s.image for s in samples.items])
    data = STUDY.run(reader("cnn", False), samples, source, progress=progress).data
    assert data["n"] == 20
    assert {Path(one["image"]).name: one["error"] for one in data["left_out"]} == {
        "0.png": ("the mask 0.png is empty in the area that the model sees; draw the object, or leave the picture out"),
        "1.png": "the mask 1.png covers 100 % of the area that the model sees, so there is no background",
        "2.png": "has 64 by 64 pixels, but its mask 2.png has 64 by 32; save the mask in the size of the picture",
        "3.png": "has no mask in masks; add one of the same name",
    }
    assert any(
        note.startswith("4 picture(s) were left out because they have no usable mask. The first: ")
        for note in data["notes"]
    )
    assert data["masks"]["source"] == "given, in masks"


def test_a_class_of_one_picture_is_named_and_left_out() -> None:
    samples, masks = planted(12, 0, "object")
    blue = Sample("alone", CLASSES[2], pixels=np.asarray(samples.items[0].pixels))
    more = gathered([*samples.items, blue])
    data = STUDY.run(reader("cnn", False), more, Known({**masks, "alone": masks["red 0"]})).data
    assert data["classes_left_out"] == [CLASSES[2]]
    assert [row["label"] for row in data["classes"]] == list(CHOSEN)
    with pytest.raises(
        DataError, match="At least two classes must have two pictures with usable masks, but only 2 of 2 pictures"
    ):
        STUDY.run(reader("cnn", False), gathered([samples.items[0], blue]), Known({**masks, "alone": masks["red 0"]}))


def test_one_mask_does_not_serve_two_pictures_of_one_name(tmp_path: Path) -> None:
    (tmp_path / "red").mkdir()
    Image.fromarray(np.eye(64, dtype=np.uint8) * 255).save(tmp_path / "a.png")
    samples = gathered([Sample(f"{k}/a.png", k, pixels=np.zeros((64, 64, 3), np.uint8)) for k in CHOSEN])
    source = MaskFiles.of(tmp_path, TRANSFORM, [s.image for s in samples.items])
    views = [read_views(s.source, TRANSFORM, [None])[0] for s in samples.items]
    with pytest.raises(
        ImageError,
        match=(
            r"is one of several pictures called a, so a\.png is ambiguous; put the masks into one " r"folder per class"
        ),
    ):
        source.mask(samples.items[1], views[1])
    Image.fromarray(np.eye(64, dtype=np.uint8) * 255).save(tmp_path / "red" / "a.png")
    assert int(source.mask(samples.items[0], views[0]).sum()) == 64
    with pytest.raises(
        DataError, match=r"--masks must be a folder with one mask per picture, got one file, .*a\.png, for 2 pictures\."
    ):
        MaskFiles.of(tmp_path / "a.png", TRANSFORM, ["b", "c"])
    with pytest.raises(DataError, match=r"do not exist\. Check the path\."):
        MaskFiles.of(tmp_path / "none", TRANSFORM, ["b"])


def test_boxes_are_masks_and_say_how_much_of_them_masks_cover() -> None:
    samples, masks = planted(12, 0, "object")
    boxed = []
    for one in samples.items:
        rows, columns = np.nonzero(masks[one.image])
        corners = (float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1))
        others = BoxRecord((0.0, 0.0, 64.0, 4.0), "shade")
        boxed.append(BoxedPicture(one.image, (64, 64), (others, BoxRecord(corners, one.label))))
    boxes = BoxData(tuple(boxed), (*CHOSEN, "shade"))
    view = read_views(samples.items[0].source, TRANSFORM, [None])[0]
    assert torch.equal(BoxMasks(boxes).mask(samples.items[0], view), torch.from_numpy(masks["red 0"]))
    half = {name: mask & (np.arange(64) % 2 == 0) for name, mask in masks.items()}
    data = STUDY.run(reader("cnn", False), samples, Known(half), boxes=boxes).data
    assert data["masks"]["boxes"] == {"n": 24, "covered": 0.5, "within": 1.0}
    with pytest.raises(ImageError, match="has no box"):
        BoxMasks(BoxData((), ())).mask(samples.items[0], view)


def test_a_mask_of_the_whole_picture_is_cut_as_the_view_is() -> None:
    mask = np.zeros((40, 80), bool)
    mask[10:20, 30:60] = True
    view = Picture("a", np.zeros((20, 20, 3), np.uint8), (80, 40), (20.0, 0.0, 60.0, 40.0), "")
    expected = torch.zeros(20, 20, dtype=torch.bool)
    expected[5:10, 5:20] = True
    assert torch.equal(in_view(mask, view), expected)
    assert torch.equal(in_view(mask, replace(view, flipped=True)), expected.flip(1))
    beyond = in_view(np.ones((40, 80), bool), replace(view, window=(-40.0, 0.0, 40.0, 40.0)))
    assert beyond[:, :10].sum() == 0
    assert beyond[:, 10:].all()


class Halves:
    """Names the left half *thing* and the right half *ground*."""

    scale, compares = 1.0, False

    def scores(self, encoder: Any, features: Tensor) -> Tensor:
        left = torch.linspace(1, -1, 4)[None, None, None].expand(len(features), 1, 4, 4)
        return torch.cat([left, -left], 1)

    def random(self, seed: int) -> None:
        return None

    def tensors(self) -> dict[str, Tensor]:
        return {}

    def finish(self, scores: Tensor, keys: Any) -> Tensor:
        return scores


def test_a_segmenters_masks_grow_and_name_the_class_they_lack() -> None:
    classifier: Classifier = reader("cnn", False)
    segmenter = Segmenter("halves", {}, classifier.encoder, ("thing", "ground"), Halves(), 1.0)
    sample = Sample("a", "red", pixels=np.zeros((64, 64, 3), np.uint8))
    view = read_views(sample.source, TRANSFORM, [None])[0]
    assert float(SegmenterMasks(segmenter, ("thing",), 0.0).mask(sample, view).float().mean()) == 0.5
    assert int(SegmenterMasks(segmenter, ("thing",), 0.1).mask(sample, view)[0].sum()) == 32 + 6
    with pytest.raises(ImageError, match=r"^a: the segmenter does not know its class 'red'\. Name the object"):
        SegmenterMasks(segmenter).mask(sample, view)
    with pytest.raises(DataError, match=r"The segmenter has no class 'bird'\. Choose one of thing, ground\."):
        SegmenterMasks(segmenter, ("bird",))
    assert not SegmenterMasks(segmenter).by_hand
    assert WordMasks(classifier.encoder, ("bird", "egg")).told.startswith(
        "MaskCLIP's on planted cnn, for 'bird' or 'egg'"
    )


def test_a_stopped_study_asks_nothing_twice(tmp_path: Path) -> None:
    samples, masks = planted(6, 0, "object")
    model = reader("cnn", False)
    first = STUDY.run(model, samples, Known(masks), tmp_path)
    rows = (tmp_path / "progress.jsonl").read_text().splitlines(keepends=True)
    assert len(rows) == 12
    (tmp_path / "progress.jsonl").write_text("".join(rows[:-3]) + rows[-3][:20])
    again = STUDY.run(model, samples, Known(masks), tmp_path)
    assert again.data == first.data
    assert len((tmp_path / "progress.jsonl").read_text().splitlines()) == 12
    moved = {name: np.roll(mask, 2, 1) for name, mask in masks.items()}
    STUDY.run(model, samples, Known(moved), tmp_path)
    assert len((tmp_path / "progress.jsonl").read_text().splitlines()) == 24


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(InputError, match=r"`n_rounds` of the study must be a whole number of at least 1"):
        BackgroundStudy(n_rounds=0)
    samples, masks = planted(12, 0, "object")
    few = BackgroundStudy(n_draws=50, n_per_class=4).run(reader("cnn", False), samples, Known(masks)).data
    assert [row["n"] for row in few["classes"]] == [4, 4]
    assert few["verdict"] == "undecided"


def test_the_command_prints_its_table_and_writes_its_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seewhy.cli.options.ClassifierChoice.opened", lambda *_: reader("cnn", False))
    data, _ = folder(tmp_path)
    argued = ["study", "background", str(data), "--masks", str(tmp_path / "masks"), "--set", "n_rounds=1"]
    argued += ["-o", str(tmp_path / "out"), "--set", "n_per_class=4", "--store", "none", "-q"]
    done = RUNNER.invoke(app, argued)
    assert done.exit_code == 0, done.output
    assert "undecided" in done.stdout
    assert "Masks: given, in masks" in done.stdout
    assert (tmp_path / "out" / "background.html").is_file()
    done = RUNNER.invoke(app, [*argued, "--json"])
    check("study-background", [json.loads(done.stdout)])
    done = RUNNER.invoke(app, [*argued, "--object", "cup"])
    assert (
        "and --object cannot be combined, because both give the position of the object. Use only one of them."
        in str(done.exception)
    )
