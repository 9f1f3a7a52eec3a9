"""The surface is small and whole: how many verbs and options, and what each means."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from PIL import Image
from typer.testing import CliRunner

from seewhy.cli import app
from seewhy.cli.session import settings
from seewhy.cli.settings import SETTINGS
from seewhy.cli.verbs import EVERY, N_SHOWN
from seewhy.errors import InputError

SOURCE = Path(__file__).resolve().parents[2] / "src/seewhy/cli"
ROOT = typer.main.get_command(app)
TWO_MEANINGS = {
    "against", "also", "by", "captions", "data", "description", "export", "group", "judge", "like", "masks", "method",
    "model", "output", "pairs", "pictures", "target", "text", "labels", "validation", "writer", "descriptions",
    "dry_run", "test",
}  # fmt: skip
"""Options that say more in one verb than in another, as what is made or read differs."""


def verbs(group: Any = ROOT, before: str = "") -> Iterator[tuple[str, Any]]:
    for name, verb in group.commands.items():
        if hasattr(verb, "commands"):
            yield from verbs(verb, f"{before}{name} ")
        else:
            yield before + name, verb


def options(verb: Any, shared: bool = False) -> list[Any]:
    found = [p for p in verb.params if p.param_type_name == "option"]
    return [p for p in found if (p.rich_help_panel == EVERY) is shared]


def shared_options() -> list[Any]:
    return options(dict(verbs())["fit"], shared=True)


def test_it_is_small() -> None:
    assert len(ROOT.commands) <= 18  # type: ignore[attr-defined]
    n = sum(len(options(verb)) for _, verb in verbs()) + len(shared_options())
    assert n <= 300, n


def test_every_option_says_what_it_is_for_and_means_one_thing() -> None:
    meanings: dict[str, set[str]] = {}
    for name, verb in verbs():
        for option in options(verb):
            assert option.help, (name, option.name)
            meanings.setdefault(option.name, set()).add(option.help)
    assert {name for name, texts in meanings.items() if len(texts) > 1} <= TWO_MEANINGS
    own = {option for _, verb in verbs() for p in options(verb) for option in p.opts}
    assert not own & {option for p in shared_options() for option in p.opts}


@pytest.mark.parametrize(("name", "verb"), [*verbs()], ids=[name for name, _ in verbs()])
def test_help_shows_ten_options_and_help_all_the_rest(name: str, verb: Any) -> None:
    short = CliRunner().invoke(app, [*name.split(), "--help"], env={"COLUMNS": "200"}).output
    whole = CliRunner().invoke(app, [*name.split(), "--help-all"], env={"COLUMNS": "200"}).output
    assert sum(line.startswith(("│ --", "│ -k")) for line in short.splitlines()) <= N_SHOWN
    for option in (*options(verb), *shared_options()):
        assert option.opts[0] in whole, option.opts
    assert ("Settings, as --set NAME=VALUE" in whole) == (name in SETTINGS)


def test_the_table_of_settings_is_what_the_classes_say() -> None:
    spec = importlib.util.spec_from_file_location("generate", SOURCE.parents[2] / "docs/generate.py")
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(generate := importlib.util.module_from_spec(spec))
    assert (SOURCE / "settings.json").read_text("utf-8") == generate.settings_text(), "run: make docs"


def test_help_imports_no_torch() -> None:
    code = (
        "import sys; from seewhy.cli import main\nfor words in (['--help'], ['explain', '--help-all']):\n"
        "    sys.argv = ['seewhy', *words]\n    try:\n        main()\n    except SystemExit:\n        pass\n"
        "sys.exit(bool({'torch', 'numpy', 'PIL', 'pyarrow'} & {*sys.modules}))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_settings_are_pairs() -> None:
    assert settings(None) == {}
    assert settings(["n-masks = 20", "layer=a=b", "p=1", "p=2"]) == {"n_masks": "20", "layer": "a=b", "p": "1,2"}
    for given in ("n_masks", "=3", "n_masks=", " "):
        with pytest.raises(InputError, match="For example: --set n_masks=2000"):
            settings([given])


def test_what_nothing_takes_is_refused() -> None:
    done = CliRunner().invoke(app, ["predict", "x.png", "--set", "batch_sise=3"])
    assert str(done.exception).startswith("There is no setting of seewhy predict called 'batch_sise'. Did you mean")
    done = CliRunner().invoke(app, ["predict", "x.png", "--set", "batch_size=0"])
    assert str(done.exception) == (
        "`batch_size` of seewhy predict must be a whole number of at least 1, got 0. See: seewhy predict --help"
    )
    done = CliRunner().invoke(app, ["predict", "x.png", "--set", "model=m"])
    assert str(done.exception).endswith(" model is an option: --model.")
    done = CliRunner().invoke(app, ["adapt", "x", "-o", "m", "--set", "epochs=2"])
    assert str(done.exception) == (
        "There is no setting of clip called 'epochs'. Known: max_scale, temperature. epochs is an option: --epochs."
    )
    done = CliRunner().invoke(app, ["evaluate", "x", "--column", "lable=kind"])
    assert str(done.exception) == (
        "--column must be image, label, text or split, then = and the name of a column, got "
        "'lable=kind'. For example: --column label=kind"
    )


@pytest.mark.parametrize("line", ["fit-prototypes p", "fit p -o m --label-column kind", "predict p --batch-size 2"])
def test_words_that_were_never_released_are_not_read(line: str) -> None:
    done = CliRunner().invoke(app, line.split())
    assert (done.exit_code, "No such" in done.output) == (2, True)


@pytest.mark.parametrize("arguments", [["app", "--annotate", "t.sqlite"], ["fit", "photos"], ["index", "photos"]])
def test_what_makes_something_for_later_asks_for_a_place(arguments: list[str]) -> None:
    done = CliRunner().invoke(app, arguments)
    assert isinstance(done.exception, InputError)
    assert re.search(r" (requires|is required)\b", str(done.exception))


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
    assert str(done.exception) == ("--png requires an output folder, but it was given without -o. Give one with -o.")
    done = CliRunner().invoke(app, ["explain", str(picture), "--no-measure", "--png", "-o", "why.html", *described])
    assert str(done.exception) == (
        "--png requires an output folder, but it was given with the single file why.html. Give one with -o."
    )
    assert list(place.iterdir()) == []
