"""The forgetting table: closed forms of its numbers, and what the command line makes of classes and names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import seewhy
from schemas import check
from seewhy.cli import app
from seewhy.errors import DataError, InputError, ModelError
from seewhy.learning.adaptation.ogen import OGEN
from seewhy.learning.adaptation.word_prompts import CoOp
from seewhy.metrics.calibration import calibration_error, reliability
from seewhy.pictures.samples import load_samples
from seewhy.progress import Progress
from seewhy.studies.bootstrap import accuracy_sums, calibration_sums, gap, harmonic, measure_row, ratio
from seewhy.studies.forgetting import AdaptingData, adapt_names, base_and_new, forgetting
from tiny import picture, tiny_cnn
from tiny_words import opened

CLASSES = ("moss", "rust", "sand", "sky")
COOP = CoOp(keep=0.5, epochs=2, batch_size=4, n_bank=0)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("forgetting")
    for label in CLASSES:
        (root / label).mkdir()
        for i in range(6):
            Image.fromarray(picture(label, i)).save(root / label / f"{i}.png")
    return root


def test_the_numbers_are_those_of_their_definitions() -> None:
    generator = torch.Generator().manual_seed(0)
    confidence, right = torch.rand(50, generator=generator), torch.rand(50, generator=generator) > 0.4
    wanted = calibration_error(reliability(confidence, right))
    assert float(gap(calibration_sums(confidence, right).mean(0))) == pytest.approx(wanted, abs=1e-6)
    assert float(ratio(accuracy_sums(right).mean(0))) == pytest.approx(float(right.float().mean()))
    assert float(harmonic(torch.tensor([0.4, 0.5, 0.3, 0.5]))) == pytest.approx(2 * 0.8 * 0.6 / 1.4)
    row = measure_row("x", [accuracy_sums(right), accuracy_sums(~right)], None, 0)
    assert row["difference"] == pytest.approx(row["after"] - row["before"], abs=1e-4)
    assert row["difference_interval"][0] <= row["difference"] <= row["difference_interval"][1]


def test_learnt_new_and_all_classes_before_and_after(folders: Path) -> None:
    data = AdaptingData(load_samples(folders), base_to_new=True)
    made = adapt_names(COOP, opened(), data)
    assert made.classes == ("moss", "rust")
    rows = {row["measure"]: row for row in made.measures["forgetting"]}
    assert [*rows] == [
        "these classes",
        "calibration error, these classes",
        "new classes",
        "calibration error, new classes",
        "all classes together",
        "harmonic mean",
        "agrees with its own classes by name",
        "these classes, beside seewhy fit",
    ]
    assert rows["new classes"]["n"] == 12
    assert rows["these classes"]["n"] + rows["new classes"]["n"] == rows["all classes together"]["n"]
    for when in ("before", "after"):
        b, n = rows["these classes"][when], rows["new classes"][when]
        assert rows["harmonic mean"][when] == pytest.approx(2 * b * n / max(b + n, 1e-9), abs=1e-3)
        assert rows["all classes together"][when] <= max(b, n) + 1e-9
    same = forgetting(replaced(made, 0.0), also={"new classes": base_and_new(load_samples(folders))[1]})
    assert all(row["difference"] == 0 for row in same)


def test_what_new_names_do_is_told_beside_the_same_without_them(folders: Path) -> None:
    how = OGEN(keep=1.0, epochs=2, batch_size=4, lr=0.5, n_bank=0, generator_steps=2)
    told = adapt_names(how, opened(), AdaptingData(load_samples(folders), base_to_new=True, new_names=("sand", "sky")))
    noted = Progress()
    plain = adapt_names(how, opened(), AdaptingData(load_samples(folders), base_to_new=True), progress=noted)
    rows, before = ({r["measure"]: r for r in made.measures["forgetting"]} for made in (told, plain))
    assert "by the new names: new classes" in rows
    assert not any("by the new names: calibration" in name for name in rows)
    assert rows["by the new names: new classes"]["before"] == before["new classes"]["after"]
    assert rows["by the new names: new classes"]["after"] == rows["new classes"]["after"]
    assert told.parameters["new_names"] == ["sand", "sky"]
    assert plain.parameters["new_names"] is None
    assert f"unknown names: {', '.join(plain.measures['unknown_names'])}" in noted.notes
    assert plain.parameters["excluded"] == ["sand", "sky"]
    assert not {"sand", "sky", "sandbar"} & set(plain.measures["unknown_names"])
    assert len(plain.measures["unknown_names"]) == 2
    none = adapt_names(how, opened(), AdaptingData(load_samples(folders), base_to_new=True, new_names=()))
    assert none.measures["unknown_names"] == []
    assert not any("by the new names" in row["measure"] for row in none.measures["forgetting"])
    with pytest.raises(InputError) as caught:
        adapt_names(how, opened(), AdaptingData(load_samples(folders), new_names=("moss",)))
    assert str(caught.value) == ("`new_names` must not contain classes with pictures, got 'moss'. Remove this name.")


def replaced(made: Any, keep: float) -> Any:
    from dataclasses import replace

    network = replace(made.network, keep=keep)
    return replace(network.classifier(made.classes), held_out=made.held_out)


def test_what_cannot_be_measured_or_learnt_is_said(folders: Path) -> None:
    samples = load_samples(folders)
    with pytest.raises(ModelError) as caught:
        forgetting(seewhy.fit(folders, encoder=tiny_cnn(), n_crops=0))
    assert str(caught.value).startswith(
        "Forgetting can be measured only for a classifier with a learnt prompt, got 'linear'"
    )
    three = AdaptingData(seewhy.Samples(samples.of(CLASSES[:3])[0], CLASSES[:3]), base_to_new=True)
    with pytest.raises(DataError) as few:
        adapt_names(COOP, opened(), three)
    assert str(few.value) == "--base-to-new needs at least four classes, got 3."
    with pytest.raises(InputError) as names:
        adapt_names(COOP, opened(), AdaptingData(samples, new_names=("wren",)))
    assert str(names.value).startswith("'coop' cannot use the names of classes without pictures.")
    base, _ = base_and_new(samples)
    with pytest.raises(DataError) as absent:
        adapt_names(COOP, opened(), AdaptingData(samples, validation=base, base_to_new=True))
    assert str(absent.value).startswith("`validation` must have pictures of the 2 new classes ('sand', …)")


def test_python_gives_a_classifier(folders: Path) -> None:
    made = seewhy.adapt(folders, opened(), method=COOP, also={"others": folders})
    assert {row["measure"] for row in made.measures["forgetting"]} >= {"these classes", "others"}
    assert made.predict(str(folders / "moss" / "0.png")).label in CLASSES


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("seewhy.encoders.find.encoder", lambda name, engine="auto": opened())
    monkeypatch.setattr("seewhy.encoders.find.find", lambda name, engine="auto": opened(), raising=False)

    def call(*words: object) -> tuple[str, str]:
        done = CliRunner().invoke(app, [*map(str, words)])
        return done.stdout, "" if done.exit_code == 0 else str(done.exception)

    return call


def test_the_verb(folders: Path, tmp_path: Path, run: Any) -> None:
    how = ("--method", "coop", "--epochs", 2, "--keep", 0.5, "--store", "none", "--quiet")
    said, wrong = run("adapt", folders, "-o", tmp_path / "m", *how, "--base-to-new", "--json")
    assert not wrong
    check("adapt", [json.loads(said)])
    assert json.loads(said)["classes"] == ["moss", "rust"]
    assert (tmp_path / "m" / "seewhy.json").is_file()
    text, wrong = run("adapt", folders, "-o", tmp_path / "n", *how)
    assert "these classes" in text
    assert run("adapt", folders, "-o", tmp_path / "o", *how, "--dry-run")[1].startswith(
        "--dry-run cannot be combined with --method"
    )
    assert not (tmp_path / "o").exists()


def test_options_that_do_not_go_together(folders: Path, tmp_path: Path, run: Any) -> None:
    out = ("-o", tmp_path / "m")
    assert run("adapt", folders, *out, "--shots", 2)[1] == (
        "--shots requires --method. Add --method coop, for example, or leave it out."
    )
    assert run("adapt", folders, *out, "--method", "coop", "--objective", "clip")[1] == (
        "--objective cannot be combined with --method coop. Use only one of them."
    )
