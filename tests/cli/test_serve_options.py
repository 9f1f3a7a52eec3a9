"""``seewhy serve``: what its options refuse, and one whole run to SIGTERM, with a full disk under its log."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from typer.testing import CliRunner

from seewhy.cli import app
from seewhy.cli.pages import named
from seewhy.errors import InputError
from seewhy.service.serve.settings import TOKEN_VARIABLE, read_token


def test_models_have_names(tmp_path: Path) -> None:
    (tmp_path / "a=b").mkdir()
    assert named(["x/birds/", "p=plants"]) == {"birds": Path("x/birds/"), "p": Path("plants")}
    with pytest.raises(InputError) as caught:
        named([str(tmp_path / "a=b")])
    assert str(caught.value).startswith(
        "The name of a model must be up to 64 letters, digits, points and dashes, got 'a=b' from -m"
    )
    with pytest.raises(InputError) as caught:
        named(["x/birds", "y/birds"])
    assert str(caught.value) == "Models must have different names, but 'birds' occurs twice. Give -m NAME=FOLDER."


def test_the_token_is_of_the_file_or_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    assert read_token(None) is None
    monkeypatch.setenv(TOKEN_VARIABLE, "of-the-environment")
    assert read_token(None) == "of-the-environment"
    file = tmp_path / "token"
    file.write_text("of-the-file-itself\n")
    assert read_token(file) == "of-the-file-itself"
    for text, said in (
        ("short\n", "got 5 characters"),
        ("two words of a token", "20 characters"),
        ("é" * 20, "20 characters"),
    ):
        file.write_text(text)
        with pytest.raises(InputError, match=said):
            read_token(file)
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_token(tmp_path / "none")


def test_a_model_that_is_none_and_a_door_without_a_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("prometheus_client", reason="the extra 'serve' is not installed, so there is no service")
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    refused = CliRunner().invoke(app, ["serve", "-m", str(tmp_path)])
    assert "not a saved SeeWhy classifier" in str(refused.exception)
    assert "A token is required, because other machines can reach" in str(
        CliRunner().invoke(app, ["serve", "--host", "0.0.0.0"]).exception
    )


@pytest.mark.slow
def test_a_whole_run() -> None:
    pytest.importorskip("prometheus_client", reason="the extra 'serve' is not installed, so there is no service")
    full = os.open("/dev/full", os.O_WRONLY)
    command = [sys.executable, "-m", "seewhy", "serve", "--port", "0"]
    process = subprocess.Popen(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    # A slow start says first what it is waiting for.
    url = next(urls[0] for line in process.stderr if (urls := re.findall(r"http://\S+/", line)))
    with urllib.request.urlopen(f"{url}version") as answer:
        assert json.load(answer)["models"][0]["name"] == "imagenet"
    process.send_signal(signal.SIGHUP)
    with urllib.request.urlopen(f"{url}readyz") as answer:
        assert answer.status == 200
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    with process.stderr as rest:
        assert rest.read() == ""
    os.close(full)
