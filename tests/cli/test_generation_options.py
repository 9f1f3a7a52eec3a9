"""``generate``, ``fit-generator`` and ``study real-or-generated``: every option reaches what it is for."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from seewhy.studies.real_or_generated import RealOrGeneratedStudy
from typer.testing import CliRunner

from seewhy.cli import app
from seewhy.generation.made_set import MadeSet
from seewhy.generation.sampler import PPGN
from tiny import class_folders, tiny_cnn


class Stop(Exception):
    """What was to be run was asked for."""


def invoke(*arguments: object) -> None:
    with pytest.raises(Stop):
        CliRunner().invoke(app, [*map(str, arguments), "-q"], catch_exceptions=False)


def stopping(told: dict[str, Any]) -> Any:
    def stop(*given: Any, **how: Any) -> Any:
        told.update(how, given=given)
        raise Stop

    return stop


@pytest.mark.parametrize(
    ("asked", "walk", "asking"),
    [
        ((), PPGN(), (4, "facets", True, 0)),
        (
            ("--n-steps", 7, "--eps1", 0.2, "--eps2", 0.3, "--eps3", 0.4, "--raw-steps", "--gradient", "own_logit",
             "--count", 3, "--start", "noise", "--no-controls", "--seed", 5),
            PPGN(0.2, 0.3, 0.4, n_steps=7, normalise=False, gradient="own_logit"), (3, "noise", False, 5),
        ),
    ],
)  # fmt: skip
def test_a_walk_is_as_it_was_asked_for(
    asked: tuple[object, ...], walk: PPGN, asking: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, Any] = {}
    on, loaded = tiny_cnn(), SimpleNamespace(side=16, read=SimpleNamespace(encoder=tiny_cnn()))
    model: Any = SimpleNamespace(encoder=on, classes=("moss", "rust"))
    monkeypatch.setattr("seewhy.cli.generate.resolve", lambda *given: told.update(through=given) or model)
    monkeypatch.setattr(
        "seewhy.generation.generator.load_generator", lambda *given, **how: told.update(loaded=(given, how)) or loaded
    )
    monkeypatch.setattr("seewhy.generation.generate.make", stopping(told))
    monkeypatch.setattr("seewhy.cli.generate.judge_named", lambda *given: given)
    invoke("generate", "--generator", "gen", "-m", "birds", "-e", "net", "--engine", "torch", "--neuron", 3, "--judge",
           "other", "--generator-encoder", "small", *asked)  # fmt: skip
    assert told["through"][:4] == ("birds", None, "net", "torch")
    assert told["loaded"] == ((Path("gen"), "small"), {"own": on, "engine": "torch"})
    assert told["sampler"] == walk
    found = told["asking"]
    assert (found.n, found.start, found.controls, found.seed) == asking
    assert (told["judge"], told["classes"]) == (("other", "torch"), model.classes)
    assert told["given"][1].asked == "neuron 3"


def test_a_study_is_run_as_it_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, Any] = {}
    folders = class_folders(tmp_path / "all", 2)
    others = class_folders(tmp_path / "others", 1)
    monkeypatch.setattr("seewhy.encoders.find.encoder", lambda *given, **how: (given, how))

    def run(self: RealOrGeneratedStudy, encoder: Any, samples: Any, folder: Any, **how: Any) -> Any:
        told.update(how, study=self, encoder=encoder, samples=samples, folder=folder)
        raise Stop

    monkeypatch.setattr(RealOrGeneratedStudy, "run", run)
    words = ["study", "real-or-generated", folders]
    invoke(*words)
    assert told["study"] == RealOrGeneratedStudy()
    assert (told["test"], told["unseen"], told["masks"], told["folder"]) == (None, {}, None, None)
    asked = ["--generated", "moss", "--test", others, "--unseen", f"up={others}", "--masks", tmp_path]
    asked += ["--n-epochs", 3, "--search-epochs", 2, "--n-networks", 5, "--search-networks", 6, "--side", 16]
    asked += ["--held-out", 0.3, "--seed", 8, "-e", "net", "--engine", "torch", "-o", tmp_path / "out"]
    invoke(*words, *asked)
    study = told["study"]
    assert (study.generated, study.n_epochs, study.n_seeds, study.held_out, study.seed) == ("moss", 3, 5, 0.3, 8)
    recipe = study.search.recipe
    assert (study.search.n_seeds, recipe.n_epochs, recipe.side, recipe.seed) == (6, 2, 16, 8)
    assert (told["encoder"], told["folder"], told["masks"]) == (
        (("net",), {"engine": "torch"}),
        tmp_path / "out",
        tmp_path,
    )
    assert (len(told["samples"].items), len(told["test"].items)) == (6, 3)
    assert {name: len(found.items) for name, found in told["unseen"].items()} == {"up": 3}


def test_a_set_is_made_as_it_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, Any] = {}
    monkeypatch.setattr("seewhy.generation.made_set.is_pipeline", lambda folder: folder.name == "sd")
    monkeypatch.setattr("seewhy.generation.made_set.load_pipeline", lambda *given, **how: ("pipeline", given, how))
    monkeypatch.setattr("seewhy.cli.make_pictures.resolve", lambda *given: told.update(through=given) or model)
    monkeypatch.setattr(
        "seewhy.generation.generator.load_generator", lambda *given, **how: told.update(loaded=(given, how)) or loaded
    )

    def make(self: MadeSet, source: Any, folder: Path, _terminal: Any) -> Any:
        told.update(made=self, source=source, folder=folder)
        raise Stop

    monkeypatch.setattr(MadeSet, "make", make)
    model: Any = SimpleNamespace(encoder="of the model")
    loaded: Any = SimpleNamespace(read=SimpleNamespace(encoder=SimpleNamespace(has_text=True)))
    words = ["study", "real-or-generated", "--make", tmp_path / "out", "--classes", "cat, ,ship", "--count", 3]
    words += ["--seed", 7, "--denoising-steps", 5, "--prompt", "one {}"]
    invoke(*words, "--generator", "sd", "--guidance", 2)
    assert told["made"] == MadeSet(("cat", "ship"), 3, "one {}", 7)
    assert told["source"] == ("pipeline", (Path("sd"),), {"steps": 5, "guidance": 2.0})
    assert "through" not in told
    invoke(*words, "--generator", "gen", "--engine", "torch")
    assert told["loaded"] == ((Path("gen"),), {"own": None, "engine": "torch"})
    assert (told["source"].classifier, told["source"].sampler) == (None, PPGN(n_steps=5))
    invoke(*words, "--generator", "gen", "-m", "birds", "--engine", "torch")
    assert told["through"] == ("birds", None, "lite0", "torch", None, None)
    assert told["loaded"] == ((Path("gen"),), {"own": "of the model", "engine": "torch"})
    assert told["source"].classifier is model
    loaded.read.encoder.has_text = False
    invoke(*words, "--generator", "gen", "-e", "net")
    assert told["through"] == (None, None, "net", "auto", None, None)
    assert told["source"].classifier is model
