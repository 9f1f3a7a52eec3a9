"""The reproduction of DenseCLIP: levels are cut as packed, seeds are kept apart, verdicts follow; a run in small."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest
import torch

from seewhy.encoders.base import Layout
from test_reproductions import script

FOLDER = Path(__file__).parents[1] / "reproductions"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return script("denseclip")


def table(right: int, wrong: int) -> list[list[int]]:
    """So many right and wrong pixels of each of two classes."""
    return [[right, wrong, 0], [wrong, right, 0]]


def test_fewer_levels_are_the_first_ones(made: ModuleType) -> None:
    layout = Layout(finer=((2, 2), (1, 4)))
    x = torch.arange(3 + 8 + 16.0)[None, :, None, None]
    assert made._cut(x, layout, 3).shape[1] == 27
    assert made._cut(x, layout, 2).flatten().tolist() == list(range(11))
    assert made._cut(x, layout, 1).flatten().tolist() == [0, 1, 2]


def test_arms_are_compared_seed_by_seed(made: ModuleType) -> None:
    own = [torch.tensor([table(9, 1), table(8, 2)]), torch.tensor([table(7, 3)] * 2)]
    probe = [torch.tensor([table(6, 4)] * 2), torch.tensor([table(6, 4)] * 2)]
    found = made.Measured({"DenseCLIP": own, made.PROBE: probe, made.FREE: probe[:1]})
    lead, each = found.lead("DenseCLIP", made.PROBE)
    assert each == pytest.approx([17 / 23 - 12 / 28, 14 / 26 - 12 / 28], abs=1e-4)
    assert lead.value == pytest.approx(sum(each) / 2, abs=1e-4)
    assert found.lead("DenseCLIP", made.FREE)[1] == each  # one draw stands for all seeds
    assert made.of_target(found).verdict == "shown"
    assert made.of_lead("x", found, made.PROBE).verdict == "shown"
    less = [own[0], torch.tensor([table(6, 4)] * 2)]
    found = made.Measured({"DenseCLIP": less, made.PROBE: probe})
    assert made.of_target(found).verdict == "partly"
    assert made.of_lead("x", found, made.PROBE).verdict == "partly"
    assert made.of_target(made.Measured({"DenseCLIP": probe, made.PROBE: own})).verdict == "not shown"


def test_words_without_training_against_shuffled_ones(made: ModuleType) -> None:
    for right, expected in ((9, "shown"), (5, "not shown")):
        free = torch.tensor([table(right, 10 - right)] * 3)
        found = made.Measured({made.FREE: [free]})
        assert made.of_free(found, free).verdict == expected


@pytest.mark.slow  # lite0 looks at 24 scenes, and four small trainings
def test_a_run_in_small_goes_on_where_it_was(made: ModuleType, tmp_path: Path) -> None:
    given = ["--pictures", "8", "--steps", "2", "--seeds", "1", "--out", str(tmp_path / "denseclip.json")]
    report = made.main(given)
    assert len(report.claims) == 6
    kept = {p.name: p.stat().st_mtime_ns for p in (tmp_path / ".denseclip.parts").iterdir()}
    assert len(kept) == 3 + 5
    again = made.main(given)
    assert {p.name: p.stat().st_mtime_ns for p in (tmp_path / ".denseclip.parts").iterdir()} == kept
    assert again.claims == report.claims
    assert json.loads((tmp_path / "denseclip.json").read_text("utf-8"))["numbers"]["chosen"]["n_steps"] in (2, 4)
