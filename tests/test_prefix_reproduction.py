"""Prefix conditioning's reproduction in small: the drawn world is biased as it says, arms differ as they say."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest
import torch

pytestmark = pytest.mark.usefixtures("beside_the_scripts")


@pytest.fixture
def world() -> ModuleType:
    return importlib.import_module("two_sources")


@pytest.fixture
def script() -> ModuleType:
    return importlib.import_module("prefix_conditioning")


def test_only_the_first_source_gives_classes_away_by_their_ground(world: ModuleType) -> None:
    drawn = world.TwoSources(3)
    named, told = drawn.named(400), drawn.captioned(400)
    assert set(named.weave.tolist()) == set(world.NAMED)
    assert torch.equal(torch.tensor(world.NAMED)[named.ground], named.weave)
    assert set(told.weave.tolist()) == set(range(world.N_CLASSES))
    assert len({(w, g) for w, g in zip(told.weave.tolist(), told.ground.tolist(), strict=True)}) > 100, "any ground"
    again = world.TwoSources(3)
    assert torch.equal(again.named(400).pixels, named.pixels)
    assert not torch.equal(world.TwoSources(4).named(400).pixels, named.pixels)


def test_a_cloth_has_its_stripes_on_its_ground(world: ModuleType) -> None:
    weave = torch.tensor([0, 4, 8, 12]).repeat(50)
    ground = torch.tensor([0, 7, 4, 1]).repeat(50)
    pixels = world.drawn(weave, ground, 0.0, torch.Generator().manual_seed(0)).pixels
    cloth = (pixels.abs() == 1).all(1)
    assert set(cloth.sum((1, 2)).tolist()) <= set(range(80, world.CLOTH**2 + 1)), "where a stripe is 0 for a moment"
    changes = [(pixels[:, 0].diff(dim=d).abs() == 2).sum((1, 2)).float().view(50, 4).mean(0) for d in (2, 1)]
    assert (changes[0][[0, 2]] > 5 * changes[1][[0, 2]]).all(), "upright stripes change from left to right"
    assert (changes[1][[1, 3]] > 5 * changes[0][[1, 3]]).all(), "level ones from top to bottom"
    assert changes[0][0] > changes[0][2], "narrow ones change more often"
    corner = torch.stack([p[:, ~c].mean(1) for p, c in zip(pixels, cloth, strict=True)]).view(50, 4, 3).mean(0)
    assert (corner.sign() == torch.tensor([[-1, -1, -1], [1, 1, 1], [1, -1, -1], [-1, -1, 1]])).all()


def test_captions_name_the_weave_and_half_of_them_the_ground(world: ModuleType) -> None:
    drawn = world.TwoSources(0)
    told = drawn.captioned(300)
    captions = drawn.captions(told)
    pairs = [(text, i) for i, several in enumerate(captions) for text in several]
    assert len(pairs) == 600
    assert all(world.NAMES[int(told.weave[i])] in text.split() for text, i in pairs)
    on = [(text, i) for text, i in pairs if " on " in text]
    assert all(world.GROUNDS[int(told.ground[i])] in text.split() for text, i in on)
    assert 240 < len(on) < 360
    assert 100 < sum(text.startswith("a photo of a") for text, _ in pairs) < 200


def test_arms_read_the_prefixes_and_sources_that_they_say(world: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, tuple[set[int], int, int]] = {}

    def train(task: torch.nn.Module, data: object, how: object) -> None:
        columns, n = data.columns, data.n_samples  # type: ignore[attr-defined]
        sources = {source for several in columns["text"].choices for source, _ in several}
        apart = data.apart  # type: ignore[attr-defined]
        seen[arm] = sources, n, 0 if apart is None else len(apart.unique())
        assert len(columns["labels"].unique()) == (20 if arm == world.ALONE else 28), "a caption is of its own class"
        assert dict(how.part_decay) == {"text.prefix": 0.0}  # type: ignore[attr-defined]

    monkeypatch.setattr(world, "train", train)
    drawn = world.TwoSources(0)
    learnt = drawn.named(100), drawn.captioned(20)
    said = drawn.captions(learnt[1])
    for arm in world.ARMS:
        made = world.towers(world.ARMS[arm], drawn, learnt, said, 1)
        vectors = [made.classes([["a photo of a weave3"]], source) for source in (world.CLASS, world.CAPTION)]
        assert torch.equal(*vectors) != world.ARMS[arm].two, "one prefix for both reads alike"
    assert seen == {
        world.ALONE: ({1}, 20, 0), world.NAIVE: ({1}, 120, 0), world.APART: ({1}, 120, 2),
        world.MIXED: ({0, 1}, 120, 0), world.METHOD: ({0, 1}, 120, 2),
    }  # fmt: skip


def test_naming_by_hand(world: ModuleType) -> None:
    pictures = world.Pictures(torch.eye(3)[:, :, None, None], torch.tensor([0, 1, 1]), torch.zeros(3, dtype=torch.long))
    towers = world.Towers(torch.nn.Flatten(), None, True)
    assert towers.right(pictures, torch.eye(3), torch.arange(3)) == pytest.approx(2 / 3)
    assert towers.right(pictures, torch.eye(3), torch.tensor([2])) == 0.0


def test_verdicts_of_the_world_follow_the_numbers(script: ModuleType, world: ModuleType) -> None:
    ways = [f"{arm}{way}" for arm in world.ARMS for way in (*world.READ, world.SAID)]
    names = [f"{way}: {group}" for way in ways for group in (world.OLD, world.NEW, world.SHOP)]
    level = {name: [0.7 + 0.01 * i for i in range(4)] for name in names}
    assert {c.verdict for c in script.world_claims(level)} == {"not shown"}, "the same in every draw"
    level |= {f"{world.METHOD}: {world.NEW}": [0.8 + 0.011 * i for i in range(4)]}
    found = [c.verdict for c in script.world_claims(level) if world.NEW in c.section]
    assert found == ["shown"] * 3 + ["not shown"] + ["shown"] * 3
    level |= {f"{world.METHOD}: {world.NEW}": [0.9, 0.5, 0.9, 0.5]}
    claims = script.world_claims(level)
    assert claims[0].verdict == "too small to tell"
    assert "would be shown in" in claims[0].measured
    assert claims[0].interval.low < 0 < claims[0].interval.high


def test_verdicts_of_real_pictures_follow_the_numbers(script: ModuleType) -> None:
    arms = (script.METHOD, script.NAIVE, script.APART, script.MIXED, script.WRONG)
    right = {group: dict.fromkeys(arms, [1.0, 0.0] * 40) for group in script.GROUPS}
    assert [c.verdict for c in script.claims(right)] == ["not shown"] * 4 + ["shown"]
    right[script.GROUPS[1]] = {**right[script.GROUPS[1]], script.NAIVE: [0.0] * 80}
    right[script.GROUPS[0]] = {**right[script.GROUPS[0]], script.METHOD: [0.0] * 80}
    assert [c.verdict for c in script.claims(right)] == ["shown", "not shown", "not shown", "not shown", "not shown"]


@pytest.mark.slow
def test_the_world_runs_and_goes_on_where_it_was_stopped(script: ModuleType, tmp_path: Path) -> None:
    given = ["--draws", "2", "--world-steps", "2", "--out", str(tmp_path / "prefix.json")]
    report = script.main(given)
    again = script.main(given)
    assert again.numbers == report.numbers
    assert len(list((tmp_path / ".prefix.parts").iterdir())) == 10
    assert [c.n for c in report.claims] == [2] * 11
