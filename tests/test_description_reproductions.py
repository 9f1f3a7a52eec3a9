"""The reproductions of ImageInWords and Image Textualization: closed forms, and the scripts in small."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parents[1] / "reproductions"


@pytest.fixture(params=["imageinwords", "image_textualization"])
def script(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return load(request.param, monkeypatch)


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module(name)


@pytest.mark.slow
def test_it_runs_in_small(script: ModuleType, tmp_path: Path) -> None:
    report = script.main(["--fast", "--out", str(tmp_path / "x.json")])
    assert len(report.claims) >= 6
    assert (tmp_path / "x.json").stat().st_size < 40_000


def test_people_in_closed_form(monkeypatch: pytest.MonkeyPatch) -> None:
    iiw = load("imageinwords", monkeypatch)
    rng = np.random.default_rng(0)
    perfect = iiw.Person(sees=1.0, errs=0.0, checks=1.0, doubts=0.0)
    everything = np.ones(2 * iiw.N_FACTS, bool)
    assert iiw.scores(iiw.written(perfect, everything, rng)) == {"recall": 1, "precision": 1, "f1": 1}
    blind = iiw.Person(sees=0.0, errs=0.0, checks=0.0, doubts=0.0)
    assert (iiw.written(blind, everything, rng) == everything).all()
    # Recall after n rounds is 1 − (1 − sees)ⁿ where nothing is struck out.
    steady = iiw.Person(sees=0.35, errs=0.0, checks=0.0, doubts=0.0)
    found = np.mean([iiw.scores(iiw.sequential(steady, 3, rng)[-1])["recall"] for _ in range(400)])
    assert found == pytest.approx(1 - 0.65**3, abs=0.02)
    stuck = iiw.Person(anchored=1.0, errs=0.0, doubts=0.0)
    seed = iiw.seeded(0.5, 0.5, rng)
    assert (iiw.written(stuck, seed, rng) == seed).all()


def test_a_preference_is_written_with_its_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    claim = load("imageinwords", monkeypatch).preference(
        {way: [{"recall": at, "precision": at, "f1": at}] * 3 for way, at in (("in turn", 0.9), ("one person", 0.1))}
    )
    assert claim.interval.rounded() == [1, 1, 1]


def test_pixels_are_measured_as_they_were_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    it = load("image_textualization", monkeypatch)
    one = it.drawn(np.random.default_rng(3), 8)
    found = {o.label: o for o in it.PixelDetector().detect(one.scene)}
    assert set(found) == {o.label for o in one.there}
    for true in one.there:
        assert found[true.label].box == pytest.approx(true.box)
