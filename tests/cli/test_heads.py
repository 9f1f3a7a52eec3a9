"""Every option of ``seewhy explain`` stands under a head, and every name under a head is one of its options."""

from __future__ import annotations

import typer.main

from seewhy.cli import app
from seewhy.cli.heads import EVERYWHERE, HEADS


def test_explain_has_every_option_under_a_head() -> None:
    command = typer.main.get_command(app).commands["explain"]  # type: ignore[attr-defined]
    heads = {p.name: p.rich_help_panel for p in command.params if p.param_type_name == "option"}
    assert heads == {name: head for head, names in HEADS.items() for name in names}


def test_other_verbs_have_only_the_heads_that_mean_the_same_everywhere() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for verb in ("fit", "fit-prototypes", "predict", "app", "search"):
        heads = [p.rich_help_panel for p in commands[verb].params if p.param_type_name == "option"]
        assert set(heads) <= {None, *EVERYWHERE}
        assert heads == sorted(heads, key=lambda h: -1 if h is None else list(HEADS).index(h)), verb
