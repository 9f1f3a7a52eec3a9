"""What the study of backgrounds is made of, each part beside the answer that it must give."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from backgrounds import CHOSEN, Known, planted
from planting import TRANSFORM, reader
from seewhy.errors import InputError
from seewhy.pictures.boxes import BoxData, BoxedPicture, BoxRecord
from seewhy.pictures.images import read_views
from seewhy.pictures.samples import Sample, gathered
from seewhy.progress import Progress
from seewhy.studies.background import BackgroundStudy, Findings, Scenes, alone, filled, lenders, moved
from seewhy.studies.background_verdict import ALL, ALONE, Answers, error_of, judged, mask_check, one_sided
from seewhy.studies.bootstrap import Error

FEW = BackgroundStudy(n_draws=20)


@cache
def few() -> Findings:
    """Three of each class: with three rounds, the last lends nobody a background of the own class."""
    samples, masks = planted(3, 0, "around")
    return FEW.run(reader("cnn", False), samples, Known(masks))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"n_per_class": 1}, "`n_per_class` of the study must be a whole number of at least 2, got 1."),
        ({"n_per_class": 0}, "`n_per_class` of the study must be a whole number of at least 2, got 0."),
        (
            {"level": 0.4},
            "`level` of the study must be a number from 0.5 to below 1, got 0.4. Leave it out to use 0.95.",
        ),
        ({"level": 1.0}, "`level` of the study must be a number from 0.5 to below 1, got 1. Leave it out to use 0.95."),
        (
            {"n_draws": 0},
            "`n_draws` of the study must be a whole number of at least 1, got 0. Leave it out to use 2000.",
        ),
        (
            {"n_rounds": 0},
            "`n_rounds` of the study must be a whole number of at least 1, got 0. Leave it out to use 3.",
        ),
    ],
)
def test_settings_out_of_range_are_told(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as caught:
        BackgroundStudy(**wrong)
    assert str(caught.value) == says
    assert BackgroundStudy(n_per_class=2, level=0.5, n_draws=1).level == 0.5


def test_pictures_are_drawn_by_the_seed() -> None:
    items = [Sample(f"{i}", "ab"[i % 2]) for i in range(40)]
    drawn = [[s.image for s in replace(FEW, n_per_class=3, seed=seed)._drawn(items)] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1]
    assert set(drawn[0]) != set(drawn[2])
    assert len(drawn[0]) == 6
    assert set(drawn[0]) != {str(i) for i in range(6)}, "not the first ones"


def test_a_round_without_a_donor_counts_for_nothing() -> None:
    data = few().data
    rows = {row["version"]: row for row in data["all"]["versions"]}
    assert rows["same class"]["accuracy"]["value"] == 1
    assert rows["same class"]["score"]["value"] > 0.5
    assert data["masks"]["area"] == round(24 * 24 / 64**2, 4)


def test_an_example_says_what_the_model_says_of_the_pixels_shown() -> None:
    model = reader("cnn", False)
    for _, own, versions in few().page.keywords["examples"]:
        pixels = [shown for _, shown, _, _ in versions]
        said = model.head.probabilities(model.encoder.encode(model.encoder.pixels(pixels)).pooled)
        place = model.classes.index(own)
        assert [score for *_, score in versions] == pytest.approx(said[:, place].tolist(), abs=2e-6)
        assert [label for _, _, label, _ in versions] == [model.classes[k] for k in said.argmax(1).tolist()]
        assert set(pixels[-1][0, 0].tolist()) == {128}, "nothing is the mean that the model takes from pictures"


def test_the_page_tells_right_from_wrong_and_begins_with_the_class_that_leans_most() -> None:
    found = few()
    page, examples = found.to_html(), found.page.keywords["examples"]
    right = sum(said == label for _, label, versions in examples for _, _, said, _ in versions)
    assert page.count("✓ ") == right
    first, _, rest = found.sentence.partition(". ")
    assert f'<h1 class="long">{first}.</h1>' in page
    assert f'<p class="nearly">{rest[:20]}' in page
    data = dict(found.data)
    rows = [{**row, "label": name, "difference": {"value": v, "interval": [v, v]}} for row, name, v in zip(
        [data["all"], *data["classes"]], (ALL, "less", "more"), (0.2, 0.1, 0.3), strict=True)]  # fmt: skip
    told = Findings(data | {"all": rows[0], "classes": rows[1:]}, found.page).to_html()
    table = told[told.index("Class by class") :]
    assert table.index(f">{ALL}<") < table.index(">more<") < table.index(">less<")
    shown = examples[0][2]
    assert f"{shown[0][2]} {shown[0][3]:.2f}</span>" in page


def test_what_cannot_be_read_or_has_another_class_stops_nothing(tmp_path: Path) -> None:
    samples, masks = planted(2, 0, "object")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    odd = [Sample(str(tmp_path / "broken.png"), "red"), Sample("x", "of none", pixels=samples.items[0].pixels)]
    progress = Progress()
    boxes = BoxData((BoxedPicture(samples.items[0].image, (64, 64), (BoxRecord((0, 0, 64, 60), "red"),)),), CHOSEN)
    study = replace(FEW, n_rounds=1)
    data = study.run(
        reader("cnn", False), gathered([*samples.items, *odd]), Known(masks), boxes=boxes, progress=progress
    ).data
    assert [Path(one["image"]).name for one in data["failures"]] == ["broken.png"]
    assert data["n"] == 4
    assert "left out 1 picture(s) of 1 unknown class(es): 'of none'" in data["notes"]
    assert data["masks"]["boxes"] == {"n": 1, "covered": round(24**2 / (64 * 60), 4), "within": 1.0}


def test_answers_are_known_again_by_all_that_they_depend_on() -> None:
    samples, masks = planted(2, 0, "object")
    pictures = tuple(read_views(s.source, TRANSFORM, [None])[0] for s in samples.items)
    on = tuple(torch.from_numpy(masks[s.image]) for s in samples.items)
    seen = Scenes(samples.items, pictures, on, torch.tensor([0, 0, 1, 1]), np.zeros(3, np.uint8))
    moved = replace(seen, masks=(on[0], on[1].roll(3, 0), *on[2:]))
    own = replace(seen, masks=(on[0].roll(3, 0), *on[1:]))
    keys = [
        seen.key("model", 0, [1, 2], 0), seen.key("other", 0, [1, 2], 0), seen.key("model", 0, [1, 2], 1),
        seen.key("model", 0, [2, 1], 0), seen.key("model", 0, [1, 3], 0), seen.key("model", 1, [0, 2], 0),
        moved.key("model", 0, [1, 2], 0), own.key("model", 0, [1, 2], 0),
    ]  # fmt: skip
    assert len(set(keys)) == len(keys)
    assert seen.key("model", 0, [1, -1, 2], 0) == keys[0]
    assert moved.key("model", 0, [2, 3], 0) == seen.key("model", 0, [2, 3], 0), "what is not lent does not count"


def answers(apart: torch.Tensor, elsewhere: torch.Tensor | float = 0.0) -> Answers:
    n, rounds = apart.shape
    score = torch.full((n, len(ALONE) + 2 * rounds), 0.5)
    score[:, len(ALONE) : len(ALONE) + rounds] += apart
    score[:, ALONE.index("elsewhere filled")] += elsewhere
    score[:, 0] = 0.8
    return Answers(score, (score > 0.6).float())


def row_of(given: Answers, level: float = 0.95, n_draws: int = 20) -> dict[str, Any]:
    return judged({ALL: torch.ones(len(given.score), dtype=torch.bool)}, given, True, level, n_draws, 0)[0]


def test_p_values_are_of_one_side() -> None:
    assert one_sided(2.132, Error(1.0, 4)) == pytest.approx(0.05, abs=1e-3)
    assert one_sided(-2.132, Error(1.0, 4)) == pytest.approx(0.95, abs=1e-3)


def test_a_difference_is_of_pictures_whose_rounds_count_where_they_are() -> None:
    apart = torch.tensor([[0.4, torch.nan], [0.0, 0.2], [0.2, 0.2]])
    row = row_of(answers(apart))
    assert row["difference"]["value"] == pytest.approx((0.4 + 0.1 + 0.2) / 3, abs=1e-4)
    # Rounds have variances of .04 and 0 over three and two pictures, and a mean of three half of theirs.
    error = error_of(apart)
    assert (error.size, error.freedom) == (pytest.approx((0.02 / 3) ** 0.5), 2)
    # Student's t of two degrees of freedom: 4.303 and 9.925.
    for level, t in ((0.95, 4.303), (0.99, 9.925)):
        low, high = row_of(answers(apart), level)["difference"]["interval"]
        assert (high - low) / 2 == pytest.approx(t * error.size, rel=1e-3)
        assert (low + high) / 2 == pytest.approx(0.7 / 3, abs=1e-4)
    same = next(v for v in row["versions"] if v["version"] == "same class")
    assert same["score"]["value"] == pytest.approx(0.5 + 0.7 / 3, abs=1e-4)


def test_versions_change_from_the_picture_as_it_is() -> None:
    versions = {v["version"]: v for v in row_of(answers(torch.tensor([[0.2], [0.0], [0.2], [0.0]])))["versions"]}
    assert versions["original"]["score"]["change"] == 0
    assert versions["other classes"]["score"] == {
        "value": 0.5, "interval": [0.5, 0.5], "change": -0.3, "change_interval": [-0.3, -0.3],
    }  # fmt: skip
    assert (versions["same class"]["accuracy"]["value"], versions["same class"]["accuracy"]["change"]) == (0.5, -0.5)


def test_the_level_rules_intervals_and_verdicts() -> None:
    draw = torch.Generator().manual_seed(0)
    apart = 0.1 + 0.2 * torch.randn(40, 1, generator=draw)
    wide, narrow = (row_of(answers(apart), level, 400) for level in (0.95, 0.5))
    for i in (1, 2):
        (a, b), (c, d) = (row["versions"][1]["score"]["interval"] for row in (wide, narrow))
        assert b - a > 2 * (d - c), i
    # p of .02 is below 5 %, and not below 1 %.
    error = error_of(apart)
    apart = apart - apart.mean() + 2.42 * error.size
    assert one_sided(float(apart.mean()), error) == pytest.approx(0.01, abs=1e-3)
    assert [row_of(answers(apart), level)["verdict"] for level in (0.95, 0.995)] == ["yes", "undecided"]
    cost = apart[:, 0]
    assert [mask_check(answers(apart, cost), level)["hit"] for level in (0.95, 0.995)] == [True, False]
    low, high = mask_check(answers(apart, cost), 0.99)["interval"]
    assert (high - low) / 2 == pytest.approx(2.708 * error.size, rel=1e-3)


def test_ten_pictures_are_enough_and_nine_are_not() -> None:
    spread = torch.tensor([[0.2], [0.3]]).repeat(5, 1)
    assert row_of(answers(spread))["verdict"] == "yes"
    assert row_of(answers(spread[:9]))["verdict"] == "undecided"


def test_few_others_lend_their_backgrounds_equally_often() -> None:
    drawn = lenders(torch.tensor([0] * 6 + [1] * 2), 1, 0)
    assert drawn[:6, 1].bincount(minlength=8).tolist() == [0] * 6 + [3, 3]


def test_what_is_filled_is_rounded_and_blur_is_a_part_of_the_longer_side() -> None:
    for value in (1, 90, 255):
        plain = np.full((30, 50, 3), value, np.uint8)
        hole = torch.zeros(30, 50, dtype=torch.bool)
        hole[3:20, 5:33] = True
        assert (filled(plain, hole) == value).all()
    pixels = np.random.default_rng(0).integers(0, 256, (20, 80, 3)).astype(np.uint8)
    mask = torch.zeros(20, 80, dtype=torch.bool)
    mask[5:9, 5:9] = True
    _, blurred, *_ = alone(pixels, mask, pixels, np.zeros(3, np.uint8), 0)
    expected = np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(4)))
    assert (blurred[~mask.numpy()] == expected[~mask.numpy()]).all()


def test_a_piece_of_background_is_as_large_as_what_it_is_compared_with() -> None:
    mask = torch.zeros(12, 12, dtype=torch.bool)
    mask[1:10, 2:11] = True  # too large to lie anywhere without covering itself
    for seed in range(3):
        here, there = moved(mask, seed)
        assert int(here.sum()) == int(there.sum()) > 0
        assert not bool((there & mask).any())
        assert bool((here & mask).sum() == here.sum())
