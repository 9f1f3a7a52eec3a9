"""The command line: one verb a file. Nothing heavy is imported before a verb runs."""

from __future__ import annotations

import sys

import typer

from . import (
    annotate,
    describe,
    dialogue,
    doctor,
    evaluate,
    explain,
    fit,
    fit_explainer,
    fit_prototypes,
    index,
    methods,
    predict,
    search,
    study,
)
from . import app as page
from .options import version_option

app = typer.Typer(
    name="seewhy",
    help="Image recognition that explains itself: where it looked, like what, and why in words, each one measured.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.callback()(version_option)
VERBS = (
    explain,
    fit,
    fit_explainer,
    fit_prototypes,
    predict,
    evaluate,
    index,
    search,
    annotate,
    dialogue,
    methods,
    doctor,
)
for module in VERBS:
    verb = module.__name__.rpartition(".")[2]
    app.command(verb.replace("_", "-"), epilog=module.EXAMPLES)(getattr(module, verb))
app.command("app", epilog=page.EXAMPLES)(page.app)
app.add_typer(study.app, name="study")
app.add_typer(describe.app, name="describe")


def main() -> None:
    """Entry point: a mistake is one line and exit code 2; ``--debug`` shows where it came from."""
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    from ..errors import SeeWhyError

    try:
        app()
    except SeeWhyError as error:
        if debug:
            raise
        print(f"seewhy: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("seewhy: stopped; run the same command again to go on where it was", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
