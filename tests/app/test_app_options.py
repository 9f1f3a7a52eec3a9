"""``seewhy app``: options that would do nothing are refused, and what opens the page to others is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from seewhy.cli import app
from seewhy.errors import InputError
from seewhy.service.app import Settings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--by", "country"], "--by country requires a table. Add --data FILE."),
        (["--decisions", "decided"], "--decisions decided requires labelled pictures. Add --data FOLDER."),
    ],
)
def test_options_that_would_do_nothing(options: list[str], message: str) -> None:
    done = CliRunner().invoke(app, ["app", *options])
    assert isinstance(done.exception, InputError)
    assert str(done.exception) == message


def test_the_page_is_told_where_the_pictures_come_from(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr("seewhy.service.app.make_app", lambda *_, **options: given.update(options))
    monkeypatch.setattr("seewhy.service.app.serving.run", lambda *_: None)
    options = ["--labels", "moss,rust,sky", "--data", str(folders), "--unlabelled", str(folders / "sky")]
    done = CliRunner().invoke(app, ["app", *options, "--store", str(tmp_path / "store")])
    assert done.exit_code == 0, done.output
    assert given["sources"] == [folders, folders / "sky"]


@pytest.mark.parametrize(
    ("host", "is_open"),
    [
        ("127.0.0.1", False),
        ("127.0.0.2", False),
        ("::1", False),
        ("localhost", False),
        ("LOCALHOST", False),
        ("0.0.0.0", True),
        ("::", True),
        ("192.168.1.7", True),
        ("birds.example.org", True),
    ],
)
def test_who_can_reach_the_page(host: str, is_open: bool) -> None:
    assert Settings(host=host).is_open is is_open
