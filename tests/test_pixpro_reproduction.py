"""PixPro's reproduction in small: scenes and views are what they say, figures by hand, every arm runs."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

pytestmark = pytest.mark.usefixtures("beside_the_scripts")


@pytest.fixture
def script() -> ModuleType:
    return importlib.import_module("pixpro")


def test_a_view_shows_what_its_box_says() -> None:
    """A picture that is its own coordinates: brightness goes from left to right, and down another channel."""
    scenes = importlib.import_module("textured_scenes")
    across = torch.arange(64).expand(64, 64) * 4
    picture = torch.stack([across, across.T, torch.zeros(64, 64).long()]).to(torch.uint8)[None].repeat(40, 1, 1, 1)
    views = scenes.Views(picture, 16, (0.2, 1.0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scenes, "_recoloured", lambda cut, draw: cut)
        columns = views.columns()
        draw = torch.Generator().manual_seed(3)
        (first, second), boxes, flipped = (columns[n](list(range(40)), draw) for n in ("views", "boxes", "flipped"))
    assert 4 < int(flipped[0].sum()) < 36
    assert not torch.equal(boxes[0], boxes[1])
    areas = (boxes[..., 2:] - boxes[..., :2]).prod(-1)
    assert float(areas.min()) >= 0.19
    assert float(areas.max()) <= 1.0
    from seewhy.learning.objectives.regional import centres

    for view, places in zip((first, second), centres(boxes, flipped, 16, 16), strict=True):
        seen = (view[:, :2] * 255 / 4 + 0.5).flatten(2).transpose(1, 2) / 64
        inside = ((places > 0.02) & (places < 0.98)).all(-1)
        torch.testing.assert_close(seen[inside], places[inside], rtol=0, atol=0.01)


def test_a_cell_has_the_class_of_most_of_its_pixels(script: ModuleType) -> None:
    labels = torch.tensor([[0, 0, 1, 2], [0, 1, 2, 2], [1, 0, 3, 3], [1, 0, 3, 3]])[None]
    assert script.majority(labels, (2, 2), 3)[0].tolist() == [[0, 2], [3, 3]], "half is not most; 3 is none of them"


def test_mean_iou_is_of_the_classes_that_there_are(script: ModuleType) -> None:
    both, other = [[[4, 0, 0], [8, 0, 4]]] * 3, [[[2, 0, 2], [8, 0, 2]]] * 3
    found = {("a", s): {"counts": both} for s in (0, 1)} | {("b", s): {"counts": other} for s in (0, 1)}
    measured = script.Measured(found, ("a", "b"))
    assert measured.value("a").value == pytest.approx((0.5 + 0) / 2)
    assert measured.value("b").value == pytest.approx((0.25 + 1) / 2)
    lead, each = measured.lead("b", "a")
    assert (lead.value, each) == (pytest.approx(0.375), [0.375, 0.375])
    assert script.of_leads("x", "claim", measured, "b", "a").verdict == "shown"
    assert script.of_leads("x", "claim", measured, "a", "b").verdict == "not shown"


@pytest.mark.slow
def test_every_arm_runs_and_a_second_run_learns_nothing(script: ModuleType, tmp_path: Path) -> None:
    drawn = np.random.default_rng(0)
    for part in ("train", "test"):
        for kind in ("images", "labels"):
            (tmp_path / "streets" / part / kind).mkdir(parents=True)
        for i in range(8):
            picture = drawn.integers(0, 256, (64, 64, 3)).astype(np.uint8)
            Image.fromarray(picture).save(tmp_path / "streets" / part / "images" / f"{i}.png")
            labels = np.repeat(np.repeat(drawn.integers(0, 3, (4, 4)), 16, 0), 16, 1).astype(np.uint8)
            Image.fromarray(labels).save(tmp_path / "streets" / part / "labels" / f"{i}.png")
    small = [
        "--seeds",
        "1",
        "--street-seeds",
        "1",
        "--steps",
        "2",
        "--street-steps",
        "2",
        "--pictures",
        "32",
        "--labelled",
        "30",
    ]
    given = [*small, "--camvid", str(tmp_path / "streets"), "--out", str(tmp_path / "pixpro.json")]
    report = script.main(given)
    assert [c.section for c in report.claims] == [script.SCENES] * 6 + [script.CAMVID] * 2
    assert set(report.numbers[script.SCENES]) == set(script.ARMS)
    again = script.main(given)
    assert (again.seconds, again.numbers) == (report.seconds, report.numbers)
