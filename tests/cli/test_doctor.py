"""What is wrong on a machine is told beside what is right there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from seewhy.cli import app


@pytest.fixture(autouse=True)
def no_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking for them imports every one, which takes seconds."""
    monkeypatch.setattr("seewhy.encoders.engines.available_engines", list)


@pytest.fixture
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A place where no folder can be made, and the sentence about it."""
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "cache"
    monkeypatch.setenv("SEEWHY_CACHE", str(folder))
    return f"The cache folder {folder} cannot be used: not a directory. Set SEEWHY_CACHE to a writable folder."


def test_without_a_cache_the_rest_is_still_told(no_cache: str) -> None:
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 0
    *rest, last = done.stdout.splitlines()
    assert last == f"cache   {no_cache}"
    assert any(line.startswith("model   lite0") and line.endswith("ready") for line in rest)


def test_json_has_no_folder_then_but_the_reason(no_cache: str) -> None:
    done = CliRunner().invoke(app, ["doctor", "--json"])
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    assert (found["cache"], found["cache_note"]) == (None, no_cache)


def test_with_a_cache_there_is_no_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEEWHY_CACHE", str(tmp_path / "cache"))
    done = CliRunner().invoke(app, ["doctor", "--json"])
    found = json.loads(done.stdout)
    assert (found["cache"], found["cache_note"]) == (str(tmp_path / "cache"), "")
