"""FocalLens' reproduction in small: every arm runs, and its measure is exact where the answer is known."""

from __future__ import annotations

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
    found = importlib.import_module("focallens").average_precision
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


def test_forty_wordings_and_more_none_of_them_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    script = importlib.import_module("focallens")
    said = [words for several in script.FASHION.values() for words in several]
    assert len(said) == len(set(said)) == 45
    assert {len(several) - script.N_HEARD for several in script.FASHION.values()} == {3}


@pytest.mark.slow
def test_every_arm_on_a_few_drawn_pictures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    script = importlib.import_module("focallens")
    monkeypatch.setattr(script, "N_SEEDS", 1)
    asked = ["--drawn", "12", "--epochs", "2", "--two", "8", "--out", str(tmp_path / "f.json")]
    report = script.main(asked)
    assert [len(report.claims), report.claims[0].n] == [15, 12]
    assert set(report.numbers) == {"fashion", "left out", "two things"}
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
    assert "worse by less than .01" in page
    assert "falls from .691 to .686 (a difference of -.006 to -.003)" in page
