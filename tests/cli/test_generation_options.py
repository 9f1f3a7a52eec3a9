"""``study generate``: every option reaches what it is for."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from seewhy.cli import app
from seewhy.cli.options import ClassifierChoice
from seewhy.errors import InputError
from seewhy.generation.sampler import PPGN
from tiny import tiny_cnn


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


WALK = ("n_steps=7", "eps1=0.2", "eps2=0.3", "eps3=0.4", "normalise=false", "gradient=own_logit")
SETTINGS = [word for pair in (*WALK, "n=3", "start=noise", "controls=false") for word in ("--set", pair)]


@pytest.mark.parametrize(
    ("asked", "walk", "asking"),
    [
        ((), PPGN(), (4, "facets", True, 0)),
        (
            (*SETTINGS, "--seed", 5),
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
    monkeypatch.setattr(
        "seewhy.cli.options.ClassifierChoice.opened", lambda *given: told.update(through=given[0]) or model
    )
    monkeypatch.setattr(
        "seewhy.generation.generate.load_generator", lambda *given, **how: told.update(loaded=(given, how)) or loaded
    )
    monkeypatch.setattr("seewhy.generation.generate.make", stopping(told))
    monkeypatch.setattr("seewhy.cli.explain.judge_named", lambda session, name: name)
    invoke("study", "generate", "gen", "-m", "birds", "-e", "net", "--engine", "torch", "--neuron", 3, "--judge",
           "other", "--set", "generator_encoder=small", *asked)  # fmt: skip
    assert told["through"] == ClassifierChoice("birds", None, "net", "torch")
    assert told["loaded"] == ((Path("gen"),), {"encoder": "small", "own": on, "engine": "torch"})
    assert told["sampler"] == walk
    found = told["asking"]
    assert (found.n, found.start, found.controls, found.seed) == asking
    assert (told["judge"], told["classes"]) == ("other", model.classes)
    assert told["given"][1].asked == "neuron 3"


@pytest.mark.parametrize("setting", ["start=centre", "start=picture", "n=0"])
def test_a_start_that_does_not_exist_is_refused_before_anything_is_read(setting: str) -> None:
    with pytest.raises(InputError, match=f"{setting.partition('=')[0]}.* must be .*, got"):
        CliRunner().invoke(app, ["study", "generate", "gen", "--neuron", "3", "--set", setting], catch_exceptions=False)
