"""An option means the same in every verb that has it; an old name still works, and nothing is written unasked."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer.main
from PIL import Image
from typer.testing import CliRunner

from seewhy.cli import app
from seewhy.cli.pretrain import held
from seewhy.cli.renamed import GOES, RENAMED, with_new_names
from seewhy.errors import InputError

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_flags", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_option_takes_and_means_the_same_in_every_verb(generate: ModuleType) -> None:
    different = {
        name: {
            (generate.takes(option).removesuffix(generate.AGAIN), generate.meaning(option)): verb
            for verb, option in verbs.items()
        }
        for name, verbs in generate.options().items()
    }
    assert {name for name, found in different.items() if len(found) > 1} == generate.TWO_MEANINGS


def test_every_option_says_what_it_is_for(generate: ModuleType) -> None:
    silent = [name for name, verbs in generate.options().items() for option in verbs.values() if not option.help]
    assert silent == []


def test_one_name_belongs_to_one_option(generate: ModuleType) -> None:
    """``--like`` may not be an option in one verb and another spelling of one elsewhere."""
    owners: dict[str, set[str]] = {}
    for names in generate.options():
        for name in names.split("/"):
            owners.setdefault(name, set()).add(names)
    assert {name: found for name, found in owners.items() if len(found) > 1} == {}


def verbs(group: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, verb in group.commands.items():
        found |= verbs(verb) if hasattr(verb, "commands") else {name: verb}
    return found


@pytest.mark.parametrize(("verb", "old", "new"), [(v, o, n) for v, names in RENAMED.items() for o, n in names.items()])
def test_an_old_name_works_with_a_line_that_says_the_new_one(
    verb: str, old: str, new: str, capsys: pytest.CaptureFixture[str]
) -> None:
    known = {o for p in verbs(typer.main.get_command(app))[verb].params for o in p.opts}
    assert new in known
    assert old not in known
    line = f"seewhy: {old} is now {new}; the old name goes in version {GOES}\n"
    assert with_new_names(verb, ["x", old, "y"]) == ["x", new, "y"]
    assert capsys.readouterr().err == line
    assert with_new_names(verb, ["x", f"{old}=y", "--", old]) == ["x", f"{new}=y", "--", old]
    assert capsys.readouterr().err == line
    assert with_new_names(verb, ["x", new, "y"]) == ["x", new, "y"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("arguments", [["annotate", "photos"], ["fit", "photos"]])
def test_what_makes_something_for_later_asks_for_a_place(arguments: list[str]) -> None:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert "--output" in done.output
    unnamed = CliRunner().invoke(app, ["index", "photos"])  # where --verify and --rebuild may stand alone
    assert str(unnamed.exception) == "No index was named. The folder of one was expected. Name it with -o."


@pytest.mark.slow
def test_what_reports_writes_nothing_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.chdir(place)
    words = tmp_path / "words.json"
    words.write_text('{"stripes": ["stripes from left to right"], "dots": ["round dots"]}')
    described = ["--labels", str(words), "--json"]
    picture = tmp_path / "a.png"
    Image.new("RGB", (64, 48), (200, 30, 30)).save(picture)
    for arguments in (
        ["explain", str(picture), "--no-measure", *described],
        ["study", "faithfulness", str(picture), "--metrics", "sparsity", "--methods", "grad_cam", *described],
    ):
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, done.output
        assert list(place.iterdir()) == [], arguments
    done = CliRunner().invoke(app, ["explain", str(picture), "--no-measure", "--png", *described])
    assert str(done.exception) == ("--png was given, and no place for it. A folder was expected. Name one with -o.")
    done = CliRunner().invoke(app, ["explain", str(picture), "--no-measure", "--png", "-o", "why.html", *described])
    assert str(done.exception) == "--png was given, and why.html is one file. A folder was expected. Name one with -o."
    assert list(place.iterdir()) == []


def test_pictures_to_measure_on_are_given_once() -> None:
    assert (held(None, None), held(None, "a.jsonl"), held(Path("dev"), None)) == (None, "a.jsonl", "dev")
    with pytest.raises(InputError, match=r"^Both --validation and --validation-pairs were given\. One of them was exp"):
        held(Path("dev"), "a.jsonl")
