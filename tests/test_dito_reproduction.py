"""DITO's reproduction in small: scenes are what their boxes and texts say, figures by hand, every arm runs."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch

pytestmark = pytest.mark.usefixtures("beside_the_scripts")


@pytest.fixture
def script() -> ModuleType:
    return importlib.import_module("dito")


def test_a_box_holds_its_thing_and_a_text_names_all() -> None:
    world = importlib.import_module("worded_scenes")
    drawn = world.scenes(30, 5)
    said = drawn.texts()
    for pixels, boxes, labels, text in zip(drawn.pixels, drawn.boxes, drawn.labels, said, strict=True):
        real = labels >= 0
        words = " ".join(world.WORDS[i] for i in text.tolist() if i)
        assert words == " and ".join(world.NAMES[k] for k in labels[real].tolist())
        ground = pixels[:, 0, 0].float()
        other = (pixels.float() - ground[:, None, None]).abs().amax(0) > 60
        inside = torch.zeros_like(other)
        for box in boxes[real]:
            left, top, right, bottom = (box * world.SIDE).round().int().tolist()
            inside[max(top - 1, 0) : bottom + 1, max(left - 1, 0) : right + 1] = True
            assert other[top:bottom, left:right].float().mean() > 0.2, "a disc, if its colour is not the ground's"
        assert not (other & ~inside).any()


def test_novel_pairs_are_in_captions_alone_and_their_parts_in_boxes() -> None:
    world = importlib.import_module("worded_scenes")
    boxes, captions = world.scenes(200, 1, world.BASE).labels, world.scenes(200, 1).labels
    assert set(boxes[boxes >= 0].tolist()) == set(world.BASE)
    assert set(captions[captions >= 0].tolist()) >= set(world.NOVEL)
    for part in (0, 1):
        assert {world.NAMES[i].split()[part] for i in world.NOVEL} <= {world.NAMES[i].split()[part] for i in world.BASE}


def test_a_lead_is_the_mean_over_draws(script: ModuleType) -> None:
    def one(value: float) -> dict[str, object]:
        return {"value": [0.0, value], "draws": [[0.0, value - 0.01], [0.0, value + 0.01]]}

    found = script.Lead.of([one(0.5), one(0.3)], [one(0.2), one(0.2)], 1)
    assert found.found.value == pytest.approx(0.2)
    assert found.each == [0.3, 0.1]
    assert found.found.low == pytest.approx(0.1), "draws are resampled, too"
    assert found.claim("a", "b", 2).verdict == "shown"
    mixed = script.Lead.of([one(0.5), one(0.1)], [one(0.2), one(0.2)], 1)
    assert mixed.claim("a", "b", 2).verdict == "too small to tell"
    small = script.Lead.of([one(0.2), one(0.21)], [one(0.2), one(0.2)], 1)
    assert small.claim("a", "b", 2, script.EFFECT).verdict == "not shown", "the paper's effect is excluded"


def test_the_arithmetic_control_has_the_same_background_and_weights(script: ModuleType) -> None:
    draw = torch.Generator().manual_seed(0)
    p, z = torch.randn(4, 17, generator=draw), torch.randn(4, 17, generator=draw)
    found = script.arithmetic(0.35, 0.65)(p, z)
    a, b = p.softmax(1), z.softmax(1)
    novel = 1 + script.NOVEL[0]
    assert float(found[0, novel] / found[0, 0]) == pytest.approx(
        float((0.35 * a[0, novel] + 0.65 * b[0, novel]) / a[0, 0]), rel=1e-5
    )
    torch.testing.assert_close(script.arithmetic(0.0, 0.0)(p, z), a)


def test_a_map_that_moves_with_its_picture_has_no_edges(script: ModuleType) -> None:
    given = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    rows = script.moved_by_cells(torch.nn.AvgPool2d(8), given)
    assert torch.tensor(rows).abs().max() < 1e-4
    assert [len(row) for row in rows] == [4, 4, 4]


@pytest.mark.slow
def test_every_arm_runs_and_a_second_run_learns_nothing(script: ModuleType, tmp_path: Path) -> None:
    sizes = {"steps": 2, "box-steps": 2, "window-steps": 2, "pictures": 64, "scenes": 16, "test": 24, "batch": 16}
    small = [part for name, n in {"seeds": 1, **sizes}.items() for part in (f"--{name}", str(n))]
    given = [*small, "--out", str(tmp_path / "dito.json")]
    report = script.main(given)
    assert [c.claim for c in report.claims if c.headline] == [report.claims[0].claim]
    assert len(report.claims) == 14
    assert sum(name.startswith("heads ") for name in report.numbers) == 4
    again = script.main(given)
    assert (again.seconds, again.numbers) == (report.seconds, report.numbers)


def test_the_papers_effect_is_of_what_is_found() -> None:
    """It stood at naming in true boxes as well, of which the paper says nothing."""
    place = Path(__file__).parents[1] / "reproductions" / "results" / "dito.json"
    claims = json.loads(place.read_text("utf-8"))["claims"]
    assert {c["claim"] for c in claims if "paper's effect" in c["rule"]} == {
        "Heads that learnt from captions find more of what no box was drawn of"
    }
