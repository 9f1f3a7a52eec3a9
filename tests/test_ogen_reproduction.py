"""OGEN in small: sets are cut as said, verdicts follow the numbers, a second run learns nothing."""

from __future__ import annotations

import argparse
import importlib
import json
import shutil
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from seewhy.studies.base_to_new import ALL, HARMONIC, LEARNT, NEW
from tiny import CLASSES, class_folders
from tiny_words import opened

FOLDER = Path(__file__).resolve().parents[1] / "reproductions"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("ogen")


@pytest.fixture
def sets(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("ogen_sets")


IS_NEW = torch.arange(200) >= 100


def right(learnt: float, new: float) -> dict[str, Tensor]:
    """Of 100 pictures of learnt classes and as many of new ones, so many right."""
    share = torch.where(IS_NEW, torch.tensor(100 * new), torch.tensor(100 * learnt))
    hits = torch.arange(200) % 100 < share
    return {LEARNT: hits & ~IS_NEW, NEW: hits & IS_NEW, ALL: hits}


def found(script: ModuleType, zero: Any, curves: dict[str, Any], name: str = "stamps") -> Any:
    world = SimpleNamespace(is_new=IS_NEW, base=("a", "b"), new=("c", "d"), test=(torch.zeros(200), torch.zeros(200)))
    whole = {arm: [curve] * 3 for arm, curve in curves.items()}
    return script.Found(name, world, zero, whole)


def test_verdicts_follow_the_numbers(script: ModuleType) -> None:
    falls = [right(0.4, 0.6), *[right(0.8, 0.2)] * 5]
    keeps = [right(0.4, 0.6), *[right(0.9, 0.5)] * 5]
    curves = {**dict.fromkeys(script.ARMS, falls), script.OWN: keeps, script.NAMED: keeps}
    zero = right(0.3, 0.5)
    made = script.claims([found(script, zero, curves)])
    assert [c.verdict for c in made] == ["shown"] * 13
    assert "0.500 against 0.200; difference 0.300" in made[3].measured
    assert "in points: stamps +30.0" in made[3].measured
    assert made[3].interval.value == pytest.approx(0.3)
    assert made[1].interval.value == pytest.approx(0.4)
    turned = {**dict.fromkeys(script.ARMS, keeps), script.OWN: falls, script.NAMED: falls}
    other = script.claims([found(script, right(0.95, 0.2), turned)])
    assert [c.verdict for c in other] == ["not shown", "shown", *["not shown"] * 11]
    same = script.claims([found(script, right(0.9, 0.5), dict.fromkeys(script.ARMS, [keeps[1]] * 6))])
    words = [c.verdict for c in same]
    assert words[2] == "not shown"  # the paper's eleven points are excluded
    assert words[7] == "shown"  # no loss
    assert words[3] == "too small to tell"


def test_numbers_have_every_arm_with_its_course(script: ModuleType) -> None:
    curve = [right(0.4, 0.6), *[right(0.8, 0.2)] * 5]
    rows = script.numbers(found(script, right(0.3, 0.5), dict.fromkeys(script.ARMS, curve)))
    assert list(rows) == ["zero-shot", *script.ARMS]
    assert rows["CoOp"][LEARNT][0] == 0.8
    assert rows["CoOp"][HARMONIC][0] == 0.32
    assert rows["CoOp"]["course"][NEW] == [0.6, *[0.2] * 5]
    assert set(rows["fit"]) == {LEARNT, ALL}


def test_the_mean_of_sets_has_the_errors_of_all(script: ModuleType) -> None:
    one = found(script, right(0.3, 0.5), dict.fromkeys(script.ARMS, [right(0.8, 0.2)] * 6))
    alone, twice = script.over_sets([one.mean("CoOp", NEW)]), script.over_sets([one.mean("CoOp", NEW)] * 2)
    assert alone.value == twice.value == pytest.approx(0.2)
    assert (twice.high - twice.low) / (alone.high - alone.low) == pytest.approx(2**-0.5, rel=0.03)


def test_fit_answers_no_new_class(script: ModuleType) -> None:
    pooled = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(40) % 2
    pooled[:, 0] += 6 * labels
    test = (torch.cat([pooled, pooled]), torch.cat([labels, labels + 2]))
    world = script.World(None, ("a", "b"), ("c", "d"), (pooled, labels), test)
    curve = script.learnt(world, "fit", argparse.Namespace(shots=10), 0)
    assert len(curve) == 1
    assert curve[0][LEARNT][:40].double().mean() > 0.9
    assert not curve[0][ALL][40:].any()
    assert not curve[0][NEW].any()
    few = world.few(3, 1)[1]
    assert few.tolist() == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(("n_steps", "seen"), [(2, [1, 1, 1, 1, 2, 2]), (12, [2, 4, 6, 8, 10, 12])])
def test_a_course_has_six_points_also_of_fewer_steps(script: ModuleType, n_steps: int, seen: list[int]) -> None:
    at: list[int] = []
    world = SimpleNamespace(on=opened(), base=("moss",), new=("sky",), named=lambda text: at[-1])
    prompt = SimpleNamespace(vectors=torch.zeros(1, 8))
    watch = script.Watch(world, SimpleNamespace(prompt=prompt), n_steps)
    for step in range(1, n_steps + 1):
        at.append(step)
        watch.measured(step, {})
    assert watch.curve == seen


def test_an_arm_is_learnt_once(script: ModuleType, tmp_path: Path) -> None:
    args = argparse.Namespace(out=tmp_path / "ogen.json", shots=2, steps=3, lr=None, generator_steps=4)
    first = script.Kept(args)
    made = first.get("grocery", 0, "CoOp", lambda: [right(0.4, 0.5)])
    again = script.Kept(args)
    kept = again.get("grocery", 0, "CoOp", lambda: pytest.fail("it was learnt before"))
    assert again.seconds == first.seconds
    assert torch.equal(kept[0][NEW], made[0][NEW])
    for place, seed in (("grocery", 1), ("flickr", 0)):
        with pytest.raises(pytest.fail.Exception):
            again.get(place, seed, "CoOp", lambda: pytest.fail("another one"))


def test_a_cut_keeps_what_is_learnt_from_what_is_tested(sets: ModuleType) -> None:
    pool = {name: [f"{name}{i}" for i in range(9)] for name in "edcba"}
    cut = sets.Cut.of(pool, {name: [f"{name} test {i}" for i in range(4)] for name in "abcde"}, 3, 7)
    assert cut.classes == tuple("abcde")
    assert list(cut.pool) == ["a", "b", "c"]
    assert {name: len(paths) for name, paths in cut.test.items()} == {"a": 3, "b": 3, "c": 3, "d": 7, "e": 7}
    assert not {p for paths in cut.pool.values() for p in paths} & {p for paths in cut.test.values() for p in paths}
    assert any("test" not in path for path in cut.test["e"])


def test_captions_that_agree_on_one_word(sets: ModuleType, tmp_path: Path) -> None:
    told = {
        "one": ["A dog runs", "Two dogs", "The dog", "An animal", "Something"],
        "two": ["A dog on a beach"] * 5,
        "few": ["A dog", "a pet", "a pet", "a pet", "a pet"],
        "hot": ["A hotdog"] * 5,
    }
    lines = [json.dumps({"image": f"{name}.jpg", "text": text}) for name, text in told.items() for _ in range(20)]
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    cut = sets.flickr(tmp_path)
    assert cut.classes == ("dog",)
    assert {Path(p).name for p in (*cut.pool["dog"], *cut.test["dog"])} == {"one.jpg"}


def test_numbers_at_the_end_of_names_are_classes(sets: ModuleType, tmp_path: Path) -> None:
    class_folders(tmp_path / "made", 3, ("moss",))
    pictures = sorted((tmp_path / "made" / "moss").iterdir())
    for part in ("train", "test"):
        folder = tmp_path / part / "REAL"
        folder.mkdir(parents=True)
        for name, source in zip(("0001", "0007_4", "0009_10"), pictures, strict=True):
            (folder / f"{name}{source.suffix}").write_bytes(source.read_bytes())
    cut = sets.cifar(tmp_path)
    assert cut.classes == ("airplane", "cat", "truck")
    assert [Path(p).stem for p in cut.pool["cat"]] == ["0007_4"]


@pytest.mark.slow
def test_every_arm_runs_and_a_second_run_says_the_same(script: ModuleType, tmp_path: Path) -> None:
    for part in ("train", "test"):
        class_folders(tmp_path / part, 3, CLASSES)
        for i, name in ((i, name) for name in CLASSES for i in range(4)):  # every fourth kind is taken
            shutil.copytree(tmp_path / part / name, tmp_path / "photos" / part / f"{name}-{i}")
    given = [
        "--grocery",
        str(tmp_path / "photos"),
        "--shots",
        "3",
        "--steps",
        "2",
        "--seeds",
        "2",
        "--generator-steps",
        "2",
    ]
    report = script.main([*given, "--out", str(tmp_path / "ogen.json")])
    assert len(report.claims) == 13
    assert report.headline.claim.startswith("OGEN, told no new name")
    assert set(report.numbers["groceries"]) == {"zero-shot", *script.ARMS}
    again = script.main([*given, "--out", str(tmp_path / "ogen.json")])
    assert (again.seconds, again.numbers) == (report.seconds, report.numbers)
