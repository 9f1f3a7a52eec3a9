"""FocalLens' reproduction in small: every arm runs, and its measure is exact where the answer is known."""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

FOLDER = Path(__file__).resolve().parents[1] / "reproductions"


def test_average_precision_of_known_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    found = importlib.import_module("instructed_arms").average_precision
    cosine = torch.tensor([[1.0, 0.9, 0.1, 0.5], [0.9, 1.0, 0.2, 0.1], [0.1, 0.2, 1.0, 0.3], [0.5, 0.1, 0.3, 1.0]])
    assert found(cosine, torch.tensor([0, 0, 1, 0])).tolist() == pytest.approx([1, (1 + 2 / 3) / 2, 0, (1 + 2 / 3) / 2])


@pytest.mark.parametrize(
    ("rule", "leads", "verdict"),
    [
        ("ALL", (0.1, 0.1), "shown"),
        ("ALL", (0.1, -0.1), "not shown"),
        ("TWO_OF_FIVE", (0.1, 0.1, -0.1), "shown"),
        ("TWO_OF_FIVE", (0.1, -0.1, -0.1), "partly"),
        ("NO_WORSE", (-0.005, 0.0), "shown"),
        ("NO_WORSE", (-0.02, -0.02), "not shown"),
    ],
)
def test_what_a_rule_says(rule: str, leads: tuple[float, ...], verdict: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    script = importlib.import_module("focallens")
    found = {str(i): {"own": [0.5 + x] * 4, "plain": [0.5] * 4} for i, x in enumerate(leads)}
    assert script.compared("?", "", found, "own", "plain", 4, getattr(script, rule)).verdict == verdict


def test_what_is_asked_of_drawn_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    world = importlib.import_module("instructed_world")
    (paths, answers), sides = world.draw_two(tmp_path / "two", 6, 0)
    for i, path in enumerate(paths):
        pixels = np.asarray(Image.open(path)).astype(int)
        asked = [name for name in world.TWO if answers[name][i]]
        assert sorted(sides[name][i] for name in asked) == ["left", "right"]
        for name in asked:
            half = pixels[:, :112] if sides[name][i] == "left" else pixels[:, 112:]
            colour = world.COLOURS[answers[name][i]]
            assert (np.abs(half - colour).sum(2) < 6).sum() > 1000
    said = world.without_labels([*paths, *paths])
    assert {len(values) for values in said.values()} == {12}
    assert set(said["light"]) <= {"dark", "medium light", "light"}


def test_the_world_of_factors_is_what_its_answers_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    world = importlib.import_module("factor_world")
    paths, answers = world.draw_factors(tmp_path / "six", 24, 0)
    again = world.draw_factors(tmp_path / "again", 24, 0)
    assert again[1] == answers
    assert again[0][5].read_bytes() == paths[5].read_bytes()
    assert [len(set(said)) for said in answers.values()] == [4, 3, 4, 3, 4, 3]
    for i, path in enumerate(paths):
        pixels = np.asarray(Image.open(path)).astype(int)
        assert np.abs(np.median(pixels[:8], (0, 1)) - world.GROUNDS[answers["colour of the background"][i]]).max() < 31
        for side, half in (("left", pixels[:, :48]), ("right", pixels[:, 48:])):
            colour = world.COLOURS[answers[f"colour of the thing on the {side}"][i]]
            there = np.abs(half - colour).sum(2) < 6
            y, x = np.where(there)
            filled = there.sum() / ((np.ptp(y) + 1) * (np.ptp(x) + 1))
            shape = "square" if filled > 0.95 else "disc" if filled > 0.65 else "triangle"
            assert shape == answers[f"shape of the thing on the {side}"][i]


def test_each_pattern_and_only_a_plain_ground_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    world = importlib.import_module("factor_world")
    down, across = {}, {}
    for pattern in world.PATTERNS:
        ground = world.grounded("grey", pattern, np.random.default_rng(0)).mean(2)
        down[pattern], across[pattern] = ground.mean(0).std(), ground.mean(1).std()
    assert down["plain"] < 1
    assert across["plain"] < 1
    assert down["striped"] > 10
    assert across["striped"] < 1
    assert down["dotted"] > 3
    assert across["dotted"] > 3


def test_a_factor_left_out_is_composed_of_what_is_taught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    world = importlib.import_module("factor_world")
    said = [words for several in world.FACTORS.values() for words in several]
    assert len(said) == len(set(said)) == 54
    parts = {f"{q} of the {t}": (q, t) for q, t in world.PARTS}
    for name in world.LEFT_OUT:
        others = [two for other, two in parts.items() if other != name]
        assert all(parts[name][k] in [two[k] for two in others] for k in (0, 1))
        assert all(parts[name][0] in words and parts[name][1] in words for words in world.FACTORS[name])


def test_the_world_of_factors_is_put_into_a_report_and_nothing_else_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    script = importlib.import_module("focallens")
    before = importlib.import_module("claims").read_report(FOLDER / "results" / "focallens.json")
    arms = {"plain": [0.3, 0.3], "own": [0.2, 0.2], "unheard": [0.2, 0.2], "shuffled": [0.1, 0.1], "strength": [0.25]}
    arms |= {"as if taught": [0.4, 0.4], "unheard, as if taught": [0.4, 0.4], "likest": [0.4, 0.4]}
    found = {"six factors": {"colour": arms}, script.WITHOUT_ONE: {"colour": arms}}
    args = argparse.Namespace(factors=4, epochs=1, through=0)
    once = script.with_factors(before, found, args, "python x --factors 4", 90)
    twice = script.with_factors(once, found, args, "python x --factors 4", 90)
    assert twice == once
    assert once.numbers[script.WITHOUT_ONE]["colour"]["strength"][0] == 0.25
    old = [c for c in before.claims if not c.section.startswith("six factors")]
    assert list(once.claims[: len(old)]) == old
    assert once.headline == before.headline
    assert {name: v for name, v in once.numbers.items() if not name.startswith("six factors")} == {
        name: v for name, v in before.numbers.items() if not name.startswith("six factors")
    }
    assert [c.verdict for c in once.claims[len(old) :]] == [
        *("not shown", "shown", "not shown", "not shown"),
        *("not shown", "not shown", "shown", "shown", "not shown", "shown"),
    ]
    assert "x --factors 4 --out reproductions/results/focallens.json`, 2 minutes" in once.differences[-1]


def test_forty_wordings_and_more_none_of_them_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    script = importlib.import_module("focallens")
    said = [words for several in script.FASHION.values() for words in several]
    assert len(said) == len(set(said)) == 45
    assert {len(several) - script.N_HEARD for several in script.FASHION.values()} == {3}


@pytest.mark.slow
def test_a_projection_alone_gives_what_the_encoder_gives(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    script, world = (importlib.import_module(name) for name in ("focallens", "factor_world"))
    on, (paths, answers) = script.find("lite0"), world.draw_factors(tmp_path / "six", 24, 0)
    below = script.ByInstructions(world.FACTORS).begun(on).below
    seen = script.Set(script.look(below, paths)[0], answers)
    trained = script.Taught(on, seen, world.FACTORS, 0, epochs=20, n_through=0, batch_size=24, lr=0.01)
    for words, which in (
        ("the colour of the background", trained),
        ("its shape", trained),
        ("x", trained.as_if_taught()),
    ):
        whole = which.encoder.under(words).beyond(seen.seen.float()).pooled
        torch.testing.assert_close(which.under(words, seen.seen), whole, rtol=1e-3, atol=1e-3)
    assert (trained.under(world.FACTORS[world.LEFT_OUT[0]][0], seen.seen) - trained.plain(seen.seen)).abs().max() > 0.01
    assert trained.strength("the colour of the background") == 1


@pytest.mark.slow
def test_every_arm_on_a_few_drawn_pictures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    script = importlib.import_module("focallens")
    monkeypatch.setattr(script, "N_SEEDS", 1)
    asked = ["--drawn", "12", "--epochs", "2", "--two", "8", "--factors", "24", "--out", str(tmp_path / "f.json")]
    report = script.main(asked)
    assert [len(report.claims), report.claims[0].n] == [25, 12]
    assert set(report.numbers) == {"fashion", "left out", "two things", "six factors", script.WITHOUT_ONE}
    monkeypatch.setattr(script, "Taught", lambda *_a, **_k: pytest.fail("computed again"))
    assert script.main(asked).claims == report.claims, "a run that was stopped goes on"


def test_what_the_pages_say_is_in_the_results() -> None:
    """Figures of an earlier FocalLens, and "no worse" beside an interval below 0, stood there."""
    root = Path(__file__).parents[1]
    results = json.loads((root / "reproductions" / "results" / "focallens.json").read_text("utf-8"))
    fashion = results["numbers"]["fashion"]
    told = f"{fashion['baseColour']['named'][0]:.0%} of colours and {fashion['articleType']['named'][0]:.0%} of kinds"
    assert told.replace("%", " %") in (root / "docs" / "adapt.md").read_text("utf-8")
    worse = next(c for c in results["claims"] if c["claim"] == "Nor under other wordings")
    assert "usage 0.686 against 0.691, -0.005 (-0.006 to -0.003)" in worse["measured"]
    page = " ".join((root / "docs" / "reproductions" / "focallens.md").read_text("utf-8").split("<!--")[0].split())
    assert "No attribute got worse by .01 or more" in page
    assert "falls from .691 to .686 (a difference of -.006 to -.003)" in page
