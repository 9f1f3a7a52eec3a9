"""The command line: one verb a file. Nothing heavy is imported before a verb runs."""

from __future__ import annotations

import copy
import io
import logging
import os
import sys
from functools import cache
from typing import Any

import typer

from . import (
    adapt,
    annotate,
    audit,
    check,
    describe,
    detect,
    doctor,
    drift,
    embed,
    evaluate,
    explain,
    export,
    fit,
    fit_detector,
    fit_explainer,
    fit_prototypes,
    fit_segmenter,
    generate,
    index,
    methods,
    pairs,
    predict,
    pretrain,
    schema,
    search,
    segment,
    serve,
    study,
)
from . import app as page
from .heads import Headed
from .options import version_option
from .standard_input import take_standard_input
from .terminal import Notes, say

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
LONGEST_NAME = 200
"""Signs of a name that are shown where the system refuses it."""
STOPPED = 130
"""Exit code of a run that was ended with Ctrl-C."""
BACKSLASHES = "backslashreplace"
"""What becomes of file names that are not UTF-8: what JSON reads back as they were."""
MAKE, LEARN, LOOK, WORDS, FIND, ABOUT = (
    "Make a classifier",
    "Teach an encoder",
    "Decide and explain",
    "Describe in words",
    "Find pictures",
    "What there is",
)
VERBS = {
    LOOK: (explain, predict, segment, detect, evaluate, audit, drift, generate, serve),
    MAKE: (fit, fit_prototypes, fit_explainer, fit_segmenter, fit_detector, export),
    LEARN: (adapt, pretrain),
    WORDS: (annotate,),
    FIND: (embed, index, search, check),
    ABOUT: (methods, schema, doctor),
}
for panel, modules in VERBS.items():
    for module in modules:
        verb = module.__name__.rpartition(".")[2]
        register = app.command(verb.replace("_", "-"), cls=Headed, epilog=module.EXAMPLES, rich_help_panel=panel)
        register(getattr(module, verb))
app.command("app", cls=Headed, epilog=page.EXAMPLES, rich_help_panel=LOOK)(page.app)
app.add_typer(study.app, name="study", rich_help_panel=LOOK)
app.add_typer(describe.app, name="describe", rich_help_panel=WORDS)
app.add_typer(pairs.app, name="pairs", rich_help_panel=WORDS)


def main() -> None:
    """Entry point: a mistake is one line and exit code 2; ``--debug`` shows where it came from."""
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    from ..errors import SeeWhyError

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=BACKSLASHES)
    take_standard_input()
    logging.getLogger("seewhy").addHandler(Notes())
    try:
        _of_verb("".join(sys.argv[1:2]))()
    except (SeeWhyError, OSError) as error:
        if debug or not (isinstance(error, SeeWhyError) or isinstance(error.filename, str | bytes)):
            raise
        say(f"seewhy: {error if isinstance(error, SeeWhyError) else _unusable(error)}", file=sys.stderr)
        sys.exit(2)
    except SystemExit as end:
        sys.exit(_exit_code(end))


def _unusable(error: OSError) -> str:
    """What is said of a name that the system refuses, wherever it is asked: too long, not allowed, a broken disk."""
    name = os.fsdecode(error.filename)
    name = name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}…"
    wanted = "A file or folder that the system gives was expected. Check its name, and who may use it."
    return f"{name} cannot be used: {error.strerror}. {wanted}"


@cache
def _of_verb(name: str) -> typer.Typer:
    """The command line with this verb alone: reading the options of all takes a tenth of a second."""
    own = [command for command in app.registered_commands if command.name == name]
    if not own:
        return app
    alone = copy.copy(app)
    alone.registered_commands, alone.registered_groups = own, []
    return alone


def _exit_code(end: SystemExit) -> Any:
    """The code to end with; the parser hides Ctrl-C and a closed pipe behind codes and words of its own."""
    behind: set[type[BaseException]] = set()
    cause: BaseException | None = end
    while cause is not None:
        behind.add(type(cause))
        cause = cause.__context__
    if KeyboardInterrupt in behind:
        say("seewhy: stopped; run the same command again to go on where it was", file=sys.stderr)
        return STOPPED
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        behind.add(BrokenPipeError)
    if BrokenPipeError not in behind:
        return end.code
    # Whoever read has what it wanted; nothing more may go there, not even when the interpreter closes the stream.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 0
