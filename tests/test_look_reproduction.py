"""LOOK's reproduction in small: worlds are what they say, figures by hand, verdicts by their rules, every arm runs."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest
import torch

pytestmark = pytest.mark.usefixtures("beside_the_scripts")


@pytest.fixture
def script() -> ModuleType:
    return importlib.import_module("look")


def test_a_shape_has_its_form_its_colour_and_its_texture() -> None:
    worlds = importlib.import_module("coarse_worlds")
    kinds = torch.arange(4)
    draw = torch.Generator().manual_seed(0)
    red, plain = torch.zeros(4, dtype=torch.long), torch.zeros(4, dtype=torch.long)
    forms = worlds.drawn(kinds, plain, red, draw)
    inside = forms[:, 0] - forms[:, 2] > 1.5  # red more than blue
    n = inside.sum((1, 2)).tolist()
    assert max(n) < 24 * 24 / 2
    assert n[1] > n[2]
    assert n[0] > n[3], "a cross has less in it than a disc"
    surfaces = worlds.drawn(plain, kinds, red, draw)[:, 0]
    light = [one[9:15, 9:15].std().item() for one in surfaces]
    assert light[0] < min(light[1], light[2])
    assert surfaces[3, 11:13, 11:13].mean() < surfaces[0, 11:13, 11:13].mean() - 0.5, "a rim is dark within"
    world = worlds.shapes(0, 300)
    assert world.pictures.shape == (300, 3, 24, 24)
    assert int(world.held.sum()) == 100
    same = worlds.shapes(0, 300)
    assert torch.equal(world.pictures, same.pictures)
    assert not torch.equal(world.pictures, worlds.shapes(1, 300).pictures)


def test_views_are_moved_a_little_and_apart() -> None:
    worlds = importlib.import_module("coarse_worlds")
    pictures = torch.zeros(6, 1, 8, 8)
    pictures[:, :, 3:5, 3:5] = 1.0
    one, other = worlds.Moved(pictures, 2)([0, 1, 2, 3, 4, 5], torch.Generator().manual_seed(1))
    assert one.shape == pictures.shape
    assert not torch.equal(one, other)
    assert (one.sum((1, 2, 3)) > 2).all()
    assert (one.sum((1, 2, 3)) < 6).all()


def test_figures_by_hand(script: ModuleType) -> None:
    x = torch.tensor([[1.0, 0.0], [0.6, 0.8], [-1.0, 0.0], [-0.6, -0.8]])
    y = torch.tensor([0, 0, 1, 1])
    # Means (0.8, 0.4) and its opposite: 4 x 0.2 within, 4 x 0.8 between.
    assert script.ratio(2 * x, y) == pytest.approx(0.25)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(script, "NEAR", 2)
        assert script.purity(x, y, x[:1], y[:1]) == 1.0
        assert script.purity(x, torch.tensor([0, 1, 0, 1]), x[:1], y[:1]) == 0.5
        assert script.votes(x, y, -x, y) == 0.0
    rows = script.some(torch.tensor([0] * 30 + [1] * 10 + [2]), 0.1, torch.Generator().manual_seed(0))
    assert [int(((rows >= a) & (rows < b)).sum()) for a, b in ((0, 30), (30, 40), (40, 41))] == [3, 1, 1]
    far = torch.cat([x + 5 * y[:, None]] * 10)
    assert script.probe(far, y.repeat(10), far, y.repeat(10), 0.1, 2, seed=0) == 1.0


def test_a_mark_is_on_any_scene_and_the_scene_is_seen_more_easily() -> None:
    worlds = importlib.import_module("coarse_worlds")
    world = worlds.marks(0, 900)
    mark, both = world.upstream, world.downstream["both"]
    assert torch.equal(both // worlds.N_SCENES, mark)
    assert len(both.unique()) == worlds.N_MARKS * worlds.N_SCENES
    assert int(world.held.sum()) == 300
    assert world.pictures.std().item() == pytest.approx(1.0, abs=0.15)
    flat = world.pictures.flatten(1)

    def apart(labels: torch.Tensor) -> float:
        """Variance of means, as part of all."""
        means = torch.stack([flat[labels == k].mean(0) for k in labels.unique()])
        return float(means.var(0, unbiased=False).sum() / flat.var(0).sum())

    assert apart(both % worlds.N_SCENES) > 1.2 * apart(mark) > 0.1
    assert torch.equal(worlds.marks(0, 900).pictures, world.pictures)
    assert not torch.equal(worlds.marks(1, 900).pictures, world.pictures)


def made(script: ModuleType, **right: float) -> object:
    """Figures of three draws: of every arm 0.5 but where another is given."""
    names = ("upstream", "ratio", "digit purity", "spread", "digit 1%", "digit 10%", "digit 100%")
    found = {}
    for arm in script.ARMS:
        for seed in range(3):
            value = right.get(arm.replace(" = ", ""), 0.5) + 0.001 * seed
            found[arm, seed] = {name: 0.9 if name == "upstream" else value for name in names}
    return script.Measured(found)


def test_verdicts_follow_the_numbers(script: ModuleType) -> None:
    ahead = made(script, k5=0.8, k10=0.7, k50=0.65, **{"k10 from the first step": 0.6})
    claims = script.claims_of(ahead, "digits", ("digit",))
    assert [claim.verdict for claim in claims] == ["shown"] * 9
    assert "difference 0.200 (0.200 to 0.200)" in claims[0].measured
    assert "an effect of 0.050 would be shown in 100%" in claims[0].measured
    assert str(claims[0].interval) == "0.200 (0.200 to 0.200)"
    level = script.claims_of(made(script), "digits", ("digit",))
    assert [claim.verdict for claim in level] == ["not shown"] * 7 + ["too small to tell", "shown"]
    scattered = made(script)
    for seed, value in enumerate((0.3, 0.9, 0.5)):
        scattered.found["k = 10", seed]["digit 10%"] = value
    assert script.claims_of(scattered, "digits", ("digit",))[0].verdict == "too small to tell"
    for seed in range(3):
        ahead.found["k = 10", seed]["upstream"] = 0.85
        ahead.found["k = 50", seed]["digit 10%"] = 0.85
    worse = script.claims_of(ahead, "digits", ("digit",))
    assert worse[0].verdict == "partly", "the coarse classes are told worse"
    assert worse[5].verdict == "partly", "it does not fall with k"
    assert worse[-1].verdict == "shown"
    for seed in range(3):
        ahead.found["k = 10", seed]["upstream"] = 0.95
    assert script.claims_of(ahead, "digits", ("digit",))[-1].verdict == "not shown"


def test_the_weakest_of_several_counts(script: ModuleType) -> None:
    assert script.weakest(["shown", "too small to tell"]) == "too small to tell"
    assert script.weakest(["too small to tell", "not shown", "shown"]) == "not shown"
    one = script.Measured({("a", 0): {"x": 0.5}, ("b", 0): {"x": 0.4}})
    assert "one draw shows nothing" in str(one.beside("a", "b", "x"))
    assert one.beside("a", "b", "x").verdict == "too small to tell"


@pytest.mark.slow
def test_every_arm_runs_and_a_second_run_learns_nothing(script: ModuleType, tmp_path: Path) -> None:
    given = ["--seeds", "2", "--other-seeds", "1", "--steps", "3", "--pictures", "240", "--worlds", "marks", "shapes"]
    given += ["--out", str(tmp_path / "look.json")]
    report = script.main(given)
    assert [c.section for c in report.claims].count("shapes, texture") == 8
    assert {c.n for c in report.claims if c.section == "marks"} == {2}
    assert {c.n for c in report.claims if c.section == "shapes, texture"} == {1}
    assert set(report.numbers["marks"]) == set(script.ARMS)
    again = script.main(given)
    assert (again.seconds, again.numbers) == (report.seconds, report.numbers)
