"""Which pictures the command line is given: what cannot be listed is said, never left out in silence."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main

from seewhy.classifiers.unfitted import ZeroShot
from seewhy.cli.options import named_by, picture_names
from seewhy.errors import DataError, InputError
from tiny_words import tiny_pair


def test_a_classifier_is_promised_without_a_model_only_where_one_is_made() -> None:
    """``segment`` and ``detect`` said that the embedded ImageNet classifier stands in; they refuse."""
    from seewhy.cli import app

    def models(group: Any, before: str) -> dict[str, str]:
        texts: dict[str, str] = {}
        for name, verb in group.commands.items():
            if hasattr(verb, "commands"):
                texts |= models(verb, f"{before}{name} ")
            texts.update((before + name, p.help) for p in getattr(verb, "params", ()) if p.name == "model")
        return texts

    promising = {
        verb
        for verb, text in models(typer.main.get_command(app), "").items()
        if "from the encoder's own classes" in text
    }
    assert {"explain", "predict", "evaluate", "app"} <= promising
    assert not promising & {"segment", "detect", "index", "check"}


def typed(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def test_names_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    typed(monkeypatch, "a.png\r\n\n b.png\n")
    assert list(picture_names(["-", "c.png"])) == ["a.png", " b.png", "c.png"]


def test_empty_standard_input_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    typed(monkeypatch, "\n")
    with pytest.raises(DataError) as caught:
        list(picture_names(["-"]))
    assert str(caught.value) == ("Standard input has no file names. Check the command before the pipe.")
    assert list(picture_names(["-", "c.png"])) == ["c.png"]


def test_a_folder_that_cannot_be_listed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("A/1.png", "A/sub/2.png", "A/z/3.png", "B/4.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "C").mkdir()
    scandir = os.scandir

    def deny(path: Any) -> Any:
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    folders = [str(tmp_path / folder) for folder in "ACB"]
    assert [Path(n).name for n in picture_names(folders)] == ["1.png", "2.png", "3.png", "C", "4.png"]
    monkeypatch.setattr(os, "scandir", deny)
    with pytest.raises(DataError) as caught:
        list(picture_names(folders))
    assert str(caught.value) == (
        f"The folder {tmp_path / 'A' / 'sub'} cannot be listed (Permission denied). Allow reading it, or leave it out."
    )


def test_the_stores_own_trouble_stops_no_run_that_did_not_ask_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from seewhy.cli.options import open_store
    from seewhy.errors import DataError

    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SEEWHY_CACHE", str(tmp_path / "file"))
    assert open_store(None) is None
    assert caplog.messages[0].endswith("Set SEEWHY_CACHE to a writable folder. This run continues without it.")
    with pytest.raises(DataError):
        open_store(str(tmp_path / "file" / "mine.sqlite"))


def test_a_classifier_without_a_learnt_prompt_has_its_own_classes() -> None:
    with pytest.raises(InputError) as caught:
        named_by(ZeroShot().build(tiny_pair(), ["a", "b"]), "c, d")
    assert str(caught.value) == (
        "--model and --labels cannot be combined, because a saved classifier has its own classes. Use only one of them."
    )
