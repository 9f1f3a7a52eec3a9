"""``seewhy serve``, ``embed --plan`` and ``embed --cluster``: every option reaches what it is for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from seewhy.cli import app
from seewhy.cli.options import ClassifierChoice
from seewhy.scale.on_ray import Cluster
from seewhy.service.app import Settings
from seewhy.service.serve import ServiceSettings
from seewhy.service.serve.settings import TOKEN_VARIABLE

TOKEN = "0123456789abcdef"


class Stop(Exception):
    """What was to be run was asked for."""


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the service was to be made of."""
    told: dict[str, Any] = {}

    def make(sources: Any, settings: Any, **how: Any) -> Any:
        told.update(how, sources=sources, settings=settings)
        raise Stop

    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    monkeypatch.setattr("seewhy.service.serve.make_service", make)
    monkeypatch.setattr("seewhy.cli.options.ClassifierChoice.opened", lambda *given: given)
    return told


def serve(*arguments: object) -> None:
    with pytest.raises(Stop):
        CliRunner().invoke(app, ["serve", *map(str, arguments), "-q"], catch_exceptions=False)


def test_a_service_without_options(served: dict[str, Any]) -> None:
    serve()
    assert served["settings"] == ServiceSettings(
        Settings(request_seconds=60, gather_seconds=0.005, n_waiting=256, batch=16)
    )
    assert served["sources"] == {"imagenet": (ClassifierChoice(None, None, "lite0", "auto"), None)}
    assert served["log_to"] == 1


def test_every_limit_of_a_service_is_the_one_that_was_given(
    served: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    asked: list[object] = ["-m", "a=x", "-m", "b=y", "--host", "0.0.0.0", "--port", 8123, "--name", "birds.example"]
    asked += [
        "--token-file",
        tmp_path / "token",
        "--set",
        "max_upload=1.5",
        "--set",
        "max_pictures=3",
        "--set",
        "max_batch=4",
    ]
    asked += [
        "--set",
        "max_wait=250",
        "--set",
        "max_waiting=6",
        "--rate",
        7,
        "--set",
        "request_seconds=8",
        "--set",
        "decode_seconds=9",
    ]
    asked += [
        "--no-measure",
        "--set",
        "reload_seconds=10",
        "--set",
        "drain_seconds=11",
        "--no-access-log",
        "--engine",
        "torch",
    ]
    serve(*asked, "-e", "net")
    web = Settings(
        host="0.0.0.0", port=8123, names=("birds.example",), max_upload=1_500_000, request_seconds=8, decode_seconds=9,
        measure=False, n_waiting=6, batch=4, gather_seconds=0.25,
    )  # fmt: skip
    assert served["settings"] == ServiceSettings(
        web, token=TOKEN, n_pictures=3, rate=7, reload_seconds=10, drain_seconds=11
    )
    assert (served["sources"], served["log_to"]) == ({"a": Path("x"), "b": Path("y")}, None)
    loaded: list[Any] = []
    monkeypatch.setattr("seewhy.classifiers.saving.load", lambda *given, **how: loaded.append((given, how)))
    serve(*asked, "-e", "net")
    served["load"](Path("x"))
    assert loaded == [((Path("x"),), {"engine": "torch", "encoder": "net"})]


def test_without_a_token_only_where_that_is_said(served: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    serve("-m", "a=x")
    assert served["settings"].token == TOKEN
    serve("-m", "a=x", "--no-token", "--host", "0.0.0.0")
    assert (served["settings"].token, served["settings"].open_without_token) == (None, True)


def test_a_cluster_is_the_one_that_was_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, Any] = {}

    def run(*_given: Any, **how: Any) -> Any:
        told.update(how)
        raise Stop

    monkeypatch.setattr("seewhy.scale.run.run", run)
    (tmp_path / "t.csv").write_text("image\n")
    words = ["index", "--parquet", str(tmp_path / "t.csv"), "-o", str(tmp_path / "out"), "--cluster", "head:6379"]
    words += ["--workers", "3", "--set", "threads=2", "--set", "gpus=0.5"]
    with pytest.raises(Stop):
        CliRunner().invoke(app, words, catch_exceptions=False)
    assert told["cluster"] == Cluster("head:6379", 3, 2, 0.5)
