"""The command line; heavy modules are imported only when a command runs."""

from __future__ import annotations

import copy
import errno
import io
import logging
import os
import sys
from functools import cache
from importlib.metadata import entry_points
from typing import Annotated, Any

import typer

from ..errors import SeeWhyError
from . import check, dense, describe, evaluate, explain, fit, index, methods, pages, predict, study, train
from .terminal import Notes, say, say_stopped, take_standard_input, tidy_after_signals
from .verbs import register

app = typer.Typer(
    name="seewhy",
    help="Image recognition that explains itself: where it looked, which pictures are similar, and why in words.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        say(version("seewhy"))
        raise typer.Exit


@app.callback()
def options_of_all(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    pass


LONGEST_NAME = 200
"""Maximum characters of a file name in an error message."""
STOPPED = 130
"""Exit code after Ctrl-C."""
BACKSLASHES = "backslashreplace"
"""Error handler for file names that are not UTF-8; JSON restores them."""
VERBS = {
    "Make a model": (fit.fit, pages.export),
    "Decide and explain": (
        predict.predict, explain.explain, dense.segment, dense.detect, evaluate.evaluate, pages.app, pages.serve,
    ),
    "Look at pictures": (check.check, index.index, index.search),
    "Teach an encoder": (train.adapt, train.pretrain),
    "What there is": (methods.methods, methods.doctor),
}  # fmt: skip
for panel, verbs in VERBS.items():
    for verb in verbs:
        register(app, verb, panel)
for point in entry_points(group="seewhy.verbs"):
    register(app, point.load(), "Verbs of other packages")
app.add_typer(describe.app, name="describe", rich_help_panel="Teach an encoder")
app.add_typer(study.app, name="study", rich_help_panel="Decide and explain")


def main() -> None:
    """Run the command line; errors print one line and exit with code 2, and ``--debug`` prints the traceback."""
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=BACKSLASHES)
    take_standard_input()
    logging.getLogger("seewhy").addHandler(Notes())
    try:
        with tidy_after_signals():
            _of_verb("".join(sys.argv[1:2]))()
    except (SeeWhyError, OSError) as error:
        if isinstance(error, OSError) and error.filename is None and error.errno == errno.ENOSPC and not debug:
            sys.exit(_full())
        if debug or not (isinstance(error, SeeWhyError) or isinstance(error.filename, str | bytes)):
            raise
        say(f"seewhy: {error if isinstance(error, SeeWhyError) else _unusable(error)}", file=sys.stderr)
        say_stopped(error, otherwise="")
        sys.exit(2)
    except SystemExit as end:
        sys.exit(_exit_code(end))


def _full() -> int:
    """Say that standard output takes no more, and write nothing to it when the interpreter closes it."""
    say("seewhy: Standard output could not be written: no space left on device. Free some space.", file=sys.stderr)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 2


def _unusable(error: OSError) -> str:
    """Return the message for a file name that the operating system refuses."""
    name = os.fsdecode(error.filename)
    name = name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}…"
    wanted = "Check the name and the permissions."
    return f"{name} cannot be used: {error.strerror}. {wanted}"


@cache
def _of_verb(name: str) -> typer.Typer:
    """Return the command line with only this command, which starts faster."""
    own = [command for command in app.registered_commands if command.name == name]
    groups = [group for group in app.registered_groups if group.name == name]
    if not (own or groups):
        return app
    alone = copy.copy(app)
    alone.registered_commands, alone.registered_groups = own, groups
    return alone


def _exit_code(end: SystemExit) -> Any:
    """Return the exit code, with Ctrl-C and closed pipes handled."""
    behind: set[type[BaseException]] = set()
    cause: BaseException | None = end
    while cause is not None:
        behind.add(type(cause))
        if isinstance(cause, KeyboardInterrupt):
            say_stopped(cause)
            return STOPPED
        cause = cause.__context__
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        behind.add(BrokenPipeError)
    except OSError as error:
        return _full() if error.errno == errno.ENOSPC else end.code
    if BrokenPipeError not in behind:
        return end.code
    # The reader closed the pipe. Write nothing more, even when the interpreter closes the stream.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 0
