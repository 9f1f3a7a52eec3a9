"""Learnt and new classes: figures by hand, drawn pictures learnt, resumed without learning again, bad input named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from schemas import check
from seewhy.classifiers.encoded_set import EncodedSet
from seewhy.cli import app
from seewhy.encoders.stream import Encoded
from seewhy.errors import DataError, InputError
from seewhy.learning.adaptation.word_prompts import CoOp
from seewhy.pictures.samples import load_samples
from seewhy.studies import base_to_new
from seewhy.studies.base_to_new import ALL, HARMONIC, LEARNT, NEW, BaseToNewStudy, ClassHalves, sentence_of, values_of
from seewhy.studies.bootstrap import mean_of
from seewhy.studies.forgetting import of_classes
from tiny import CLASSES, class_folders
from tiny_words import opened

SETTINGS = (("epochs", 3), ("batch_size", 4), ("lr", 0.3))


def asked_of(labels: list[int]) -> ClassHalves:
    n = len(labels)
    encoded = [Encoded(str(i), str(i), torch.zeros(1, 2)) for i in range(n)]
    seen = EncodedSet((), encoded, labels=torch.tensor(labels))
    none: Any = None
    return ClassHalves(none, ("a", "b"), ("c", "d"), seen, torch.arange(n), none)


def test_measures_by_hand() -> None:
    on = asked_of([0, 1, 1, 2, 3])
    scores = {
        ("a", "b"): torch.tensor([[1.0, 0], [0, 1], [1, 0], [1, 0], [1, 0]]),
        ("c", "d"): torch.tensor([[1.0, 0], [1, 0], [1, 0], [1, 0], [1, 0]]),
        ("a", "b", "c", "d"): torch.tensor([[1.0, 0, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0]]),
    }
    right = on.right(scores.__getitem__)
    assert values_of(right, LEARNT, on).nanmean().item() == pytest.approx(2 / 3)
    assert values_of(right, NEW, on).nanmean().item() == pytest.approx(1 / 2)
    assert values_of(right, ALL, on).mean().item() == pytest.approx(2 / 5)
    assert values_of(right, HARMONIC, on).mean().item() == pytest.approx(2 * (2 / 3) * 0.5 / (2 / 3 + 0.5))


def test_the_interval_of_the_harmonic_mean_is_that_of_resampling() -> None:
    generator = torch.Generator().manual_seed(0)
    on = asked_of([0] * 300 + [2] * 100)
    right = {LEARNT: torch.rand(400, generator=generator) < 0.8, NEW: torch.rand(400, generator=generator) < 0.4}
    draws = []
    for _ in range(2000):
        b = right[LEARNT][torch.randint(300, (300,), generator=generator)].double().mean()
        n = right[NEW][300 + torch.randint(100, (100,), generator=generator)].double().mean()
        draws.append(2 * b * n / (b + n))
    found = mean_of(values_of(right, HARMONIC, on)[None], on.groups)
    assert found.errors[1].size == pytest.approx(float(torch.stack(draws).std()), rel=0.05)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_folders(tmp_path_factory.mktemp("classes"), 4, CLASSES)


def test_learnt_once_and_resumed(folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = BaseToNewStudy(("coop",), (1, 2), 2, 0.4, settings=SETTINGS)
    on, samples = opened(), load_samples(folders)
    learnt: list[tuple[Any, ...]] = []
    own = base_to_new._cell

    def counted(how: Any, learn: Any, *rest: Any) -> Any:
        learnt.append((how.shots, how.seed, how.keep, learn.classes))
        return own(how, learn, *rest)

    monkeypatch.setattr(base_to_new, "_cell", counted)
    found = study.run(on, samples, tmp_path)
    first, rest = tuple(samples.classes[:2]), tuple(samples.classes[2:])
    assert learnt == [(k, seed, 1.0, first) for k in (1, 2) for seed in (0, 1)]
    again = study.run(on, samples, tmp_path)
    assert len(learnt) == 4
    assert again.data == found.data
    check("study-base-to-new", [{**json.loads(json.dumps(found.data)), "report": None}])
    assert found.data["classes"] == {"learnt": list(first), "new": list(rest)}
    tables = {(t["family"], t["measure"]): {r["method"]: r for r in t["rows"]} for t in found.data["measures"]}
    assert len(tables) == 8
    before = [tables[f"{k} per class", LEARNT]["before"]["by_draw"] for k in (1, 2)]
    assert before[0] == before[1]
    assert before[0][0] == before[0][1]
    page = found.to_html()
    assert "Learnt and new classes" in page
    assert all(name in page for name in (*samples.classes, "coop", "harmonic mean"))


def test_what_is_learnt_is_what_the_recipe_learns(folders: Path) -> None:
    """The cell's figures are those of a classifier fitted by hand on the same half."""
    on, samples = opened(), load_samples(folders)
    found = BaseToNewStudy(("coop",), (2,), 2, settings=SETTINGS).run(on, samples, test=samples)
    base = of_classes(samples, samples.classes[:2])
    made = CoOp(shots=2, keep=1.0, held_out=0.0, n_bank=0, **dict(SETTINGS)).fit(on, base)
    looked = base_to_new.encode_labelled(on, samples.classes, samples)
    new = looked.labels >= 2
    logits = made.network.classifier(samples.classes[2:]).head(looked.pooled[new])  # type: ignore[union-attr]
    right = (logits.argmax(1) + 2 == looked.labels[new]).double().mean().item()
    row = next(t for t in found.data["measures"] if t["measure"] == NEW)["rows"][1]
    assert row["by_draw"][0] == pytest.approx(right, abs=1e-4)


def test_names_that_are_judged_on_are_none_of_a_method_s_own(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Any] = []

    def cell(how: Any, _learn: Any, tested: ClassHalves, *_: Any) -> Any:
        kept.append(how)
        return tested.right(lambda names: torch.rand(len(tested.seen.labels), len(names)))

    monkeypatch.setattr(base_to_new, "_cell", cell)
    study = BaseToNewStudy(("ogen", "coop"), (1,), n_seeds=2)
    told = study.run(opened(), load_samples(folders)).data["classes"]["new"]
    assert told
    assert {how.excluded for how in kept if how.name == "ogen"} == {tuple(told)}
    assert {how.keep for how in kept} == {1.0}


def test_the_sentence_says_what_is_gained_and_lost() -> None:
    def table(measure: str, difference: float, real: bool) -> dict[str, Any]:
        d = {"a": "before", "b": "coop", "difference": difference, "real": real}
        return {"family": "4 per class", "measure": measure, "differences": [d]}

    tables = [table(LEARNT, -0.2, True), table(NEW, 0.051, True), table(HARMONIC, -0.01, False)]
    assert sentence_of(tables, ("coop",), 4, 0.95) == (
        "coop gains 20.0 points on learnt classes and loses 5.1 points on new ones. Change of accuracy against class "
        "names alone, in points, with 4 pictures per class: coop +20.0 on learnt classes, −5.1 on new ones, +1.0 in "
        "the harmonic mean (not shown). Level: 95 %, corrected for 3 comparisons."
    )


def test_bad_input_is_said_in_a_sentence(folders: Path) -> None:
    samples = load_samples(folders)
    for methods in ((), ("coop", "coop"), ("before",)):
        with pytest.raises(InputError, match=r"`methods` must be one or more different names"):
            BaseToNewStudy(methods)
    with pytest.raises(InputError, match="`n_seeds` of the study must be a whole number of at least 2, got 1"):
        BaseToNewStudy(n_seeds=1)
    with pytest.raises(InputError, match="`shots` of the study must be a whole number of at least 1, got 0"):
        BaseToNewStudy(shots=(1, 0))
    with pytest.raises(InputError, match="`shots` must have at least one number"):
        BaseToNewStudy(shots=())
    with pytest.raises(
        InputError, match="`methods` must learn prompts from a few pictures, such as coop, got 'linear'"
    ):
        BaseToNewStudy(("linear",)).run(opened(), samples)
    with pytest.raises(DataError, match="Both halves of the classes need test pictures"):
        BaseToNewStudy().run(opened(), samples, test=of_classes(samples, samples.classes[:2]))


@pytest.mark.slow
def test_on_the_command_line(folders: Path, tmp_path: Path) -> None:
    out = tmp_path / "study"
    words = ["study", "base-to-new", str(folders), "--set", "shots=1", "--set", "n_seeds=2", "-o", str(out), "--quiet"]
    done = CliRunner().invoke(app, [*words, "--test", str(folders), "--json"])
    assert done.exit_code == 0, done.output
    data = json.loads(done.stdout)
    check("study-base-to-new", [data])
    assert data["report"] == str(out / "base-to-new.html")
    assert "harmonic mean" in CliRunner().invoke(app, [*words, "--test", str(folders)]).stdout
