"""The reproduction of an encoder that learns: what is drawn, how arms are compared over pictures and seeds."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from test_reproductions import script

FOLDER = Path(__file__).parents[1] / "reproductions"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return script("denseclip_encoder")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return script("composites")


def table(right: int, wrong: int) -> list[list[int]]:
    """So many right and wrong pixels of each of two classes."""
    return [[right, wrong, 0], [wrong, right, 0]]


def test_things_lie_where_mask_and_boxes_say(drawn: ModuleType, tmp_path: Path) -> None:
    made = drawn.composites(12, 3)
    for mask, boxes, labels, caption in zip(made.masks, made.boxes, made.labels, made.captions(), strict=True):
        names = [drawn.NAMES[k] for k in labels.tolist() if k >= 0]
        assert caption == " and ".join(names)
        assert len(set(mask.unique().tolist()) - {0}) == len(set(names))
        for (left, top, right, bottom), k in zip(boxes.int().tolist(), labels.tolist(), strict=True):
            if k >= 0:
                inside = mask[top:bottom, left:right] == 1 + k
                assert bool(inside.any(0).all())
                assert bool(inside.any(1).all())
    again = drawn.composites(12, 3)
    assert torch.equal(again.pixels, made.pixels)
    masked = made.masked(tmp_path / "m")
    truth, _ = masked.truth(masked.items[5], (48, 48))
    assert np.array_equal(truth, made.masks[5].numpy())
    boxed = made.boxed(tmp_path / "m")
    assert boxed.n_boxes == int((made.labels >= 0).sum())


def test_captions_teach_words(drawn: ModuleType) -> None:
    encoder = drawn.encoder_of_captions(2, 64, 16)
    texts = encoder.text.encode_text(["a photo of a red disc.", "red disc", "blue disc"])
    torch.testing.assert_close(texts[0], texts[1])
    assert not torch.allclose(texts[1], texts[2], atol=1e-3)
    assert drawn.counts(["red disc and red square"])[0].tolist() == [0, 2, 0, 0, 1, 1, 0]


def test_pictures_and_seeds_are_both_drawn_again(made: ModuleType) -> None:
    own = [[table(9, 1), table(8, 2)], [table(7, 3), table(7, 3)]]
    other = [[table(6, 4)] * 2] * 2
    found = made.Measured({"a": own, "b": other})
    lead = found.lead("a", "b")
    expected = [17 / 23 - 12 / 28, 14 / 26 - 12 / 28]
    assert lead.value == pytest.approx(sum(expected) / 2, abs=1e-4)
    assert (found.each[0] - found.each[1]).tolist() == pytest.approx(expected, abs=1e-4)
    assert lead.low == pytest.approx(expected[1], abs=1e-4), "twice the worse seed"
    assert lead.high == pytest.approx(18 / 22 - 12 / 28, abs=1e-4), "twice the better seed and picture"
    assert found.lead("a", "a").low == 0.0


def test_verdicts_follow(made: ModuleType) -> None:
    arms = dict.fromkeys(made.ARMS, [[table(6, 4)] * 3] * 2)
    arms[made.OWN] = [[table(9, 1)] * 3] * 2
    claims = made.of_world("drawn things", made.Measured(arms))
    assert [c.verdict for c in claims] == ["shown"] * 4 + ["too small to tell", "not shown"]
    assert all(c.section == "drawn things" and c.interval is not None for c in claims)
    aps: dict[tuple[str, int], dict[str, Any]] = {
        (kind, seed): {"ap50": value, "draws": [value] * made.N_BOX_DRAWS}
        for kind, value in (("none", 0.1), ("names", 0.3), ("random", 0.4))
        for seed in (0, 1)
    }
    assert [c.verdict for c in made.of_boxes(aps, (0, 1), 9)] == ["shown", "not shown"]


@pytest.mark.slow  # a small encoder, six small trainings and three of boxes
def test_a_run_in_small_goes_on_where_it_was(made: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = made.encoder_of_captions(5, 64, 16)
    monkeypatch.setattr(made, "encoder_of_captions", lambda: quick)
    monkeypatch.setitem(made.ENCODERS, "drawn things", lambda: quick)
    given = ["--pictures", "4", "--steps", "2", "--seeds", "1", "--out", str(tmp_path / "denseclip_encoder.json")]
    report = made.main(given)
    assert len(report.claims) == 8
    kept = {p.name: p.stat().st_mtime_ns for p in (tmp_path / ".denseclip_encoder.parts").iterdir()}
    assert len(kept) == 6 + 3
    again = made.main(given)
    assert {p.name: p.stat().st_mtime_ns for p in (tmp_path / ".denseclip_encoder.parts").iterdir()} == kept
    assert again.claims == report.claims
    assert json.loads((tmp_path / "denseclip_encoder.json").read_text("utf-8"))["numbers"]["steps"] == 2


def test_the_papers_effect_is_of_the_map_against_none(made: ModuleType) -> None:
    """It stood at random directions and at shuffled names as well, of which the paper says nothing."""
    carried = [(own, over) for _, own, over, effect in made.LEADS if effect]
    assert carried == [(made.OWN, "learns, no map"), ("frozen, words", "frozen, no map")]
    kept = json.loads((FOLDER / "results" / "denseclip_encoder.json").read_text("utf-8"))["claims"]
    assert all("pixel-text map adds" in claim["claim"] for claim in kept if "paper's effect" in claim["rule"])
