"""Make CLI commands from functions: parameters become arguments and options, and docstrings become help texts."""

from __future__ import annotations

import inspect
import json
import tomllib
from collections.abc import Callable, Sequence
from functools import reduce
from math import isfinite
from operator import or_
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperOption

from ..bounds import Bound, alternatives, plain
from ..parameters import documented
from .places import check_options, check_words, refuse_addresses
from .session import Session
from .terminal import say

ADDRESS = "ADDRESS"
"""Part of an option's metavar that says that the option also accepts an address in object storage."""
ALL, SHORT = "seewhy.all", "seewhy.short"
N_SHOWN = 10
"""Number of options in ``--help``."""
LETTERS = {
    "output": "-o", "model": "-m", "labels": "-l", "encoder": "-e", "method": "-M", "image": "-i", "text": "-t",
    "writer": "-w", "quiet": "-q",
}  # fmt: skip
EVERY = "Options of every command"
PANELS = {
    **dict.fromkeys(("parquet", "shard", "workers", "cluster", "status"), "Many pictures"),
    **dict.fromkeys(("host", "port", "name"), "The page"),
}
TEXTS = tomllib.loads(Path(__file__).with_name("texts.toml").read_text("utf-8"))


def register(app: typer.Typer, function: Callable[..., None], panel: str = "") -> None:
    """Register a function as a command; its first parameter is the session, and positional parameters are arguments."""
    name = function.__name__.replace("_", "-")
    context = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    shared = parameters_of(Session)[2:]
    parameters = [context, *parameters_of(function)[1:], *shared, HELP_ALL]

    def run(context: typer.Context, **given: Any) -> None:
        session = Session(verb_of(context), context, **{p.name: given.pop(p.name) for p in shared})
        del given["help_all"]
        session.given = SimpleNamespace(**given)
        with session.working():
            function(session, **given)

    # What typer reads.
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    run.__doc__, run.__module__ = documented(function)[0], function.__module__
    examples = TEXTS["examples"].get(name, getattr(function, "examples", ""))
    epilog = "Examples:\n\n" + "\n\n".join(f"  {line}" for line in examples.strip().splitlines())
    app.command(name, cls=Verb, epilog=epilog, rich_help_panel=panel or None)(run)


def parameters_of(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """Return the parameters in typer's form, with their help texts."""
    texts = {**TEXTS["options"], **TEXTS["verbs"].get(function.__name__, {})}
    told = {name: ("", text) if isinstance(text, str) else tuple(text) for name, text in texts.items()}
    told |= documented(function)[1]
    return [
        p
        if p.name in ("session", "context", "verb")
        else _parameter(p, EVERY if function is Session else PANELS.get(p.name), *told.get(p.name, ("", "")))
        for p in inspect.signature(function, eval_str=True).parameters.values()
    ]


def _parameter(p: inspect.Parameter, panel: str | None, metavar: str, help: str) -> inspect.Parameter:
    """Return one argument or option; the trailing underscore of a Python keyword is dropped."""
    name, (kind, bound) = p.name.rstrip("_"), _without_bound(p.annotation)
    shown = p.default not in (None, "", False, inspect.Parameter.empty)
    if p.kind is not inspect.Parameter.KEYWORD_ONLY:
        declared = typer.Argument(help=help, show_default=shown, metavar=metavar or None)
    else:
        flag = "-k" if name == "k" else "--" + name.replace("_", "-")
        names = [flag, *([LETTERS[name]] if name in LETTERS else [])]
        if kind is bool and p.default:
            names = [f"{flag}/--no-{name.replace('_', '-')}"]
        ends = {} if bound is None else {"min": bound.least, "max": bound.most}
        limits: dict[str, Any] = {name: value for name, value in ends.items() if isfinite(value)}
        declared = typer.Option(
            *names, help=help, show_default=shown, metavar=metavar or None, rich_help_panel=panel, **limits
        )
    return p.replace(annotation=Annotated[kind, declared], kind=inspect.Parameter.POSITIONAL_OR_KEYWORD)


def _without_bound(hint: Any) -> tuple[Any, Bound | None]:
    """Split a type such as ``Count | None`` into the plain type and its bound."""
    kinds = alternatives(hint)
    bounds = [bound for kind in kinds for bound in getattr(kind, "__metadata__", ())]
    return reduce(or_, map(plain, kinds)), next(iter(bounds), None)


def _show_all(context: typer.Context, wanted: bool) -> None:
    if wanted:
        context.meta[ALL] = True
        say(*context.get_help().splitlines())
        context.exit()


HELP_ALL = inspect.Parameter(
    "help_all", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=False,
    annotation=Annotated[
        bool, typer.Option("--help-all", is_eager=True, callback=_show_all, help="Every option, and all settings.",
                           rich_help_panel=EVERY)],
)  # fmt: skip


class Verb(TyperCommand):
    """A command with the shared options, which checks that no output is also an input."""

    def get_params(self, ctx: Any) -> list[Any]:
        everything = super().get_params(ctx)
        return _shown(everything) if ctx.meta.get(SHORT) else everything

    def format_help(self, ctx: Any, formatter: Any) -> None:
        ctx.meta[SHORT] = not ctx.meta.get(ALL)
        try:
            super().format_help(ctx, formatter)
        finally:
            ctx.meta[SHORT] = False
        if ctx.meta.get(ALL):
            say(*settings_lines(verb_of(ctx)))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        check_words(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        for option in self.params:
            if ADDRESS not in (option.metavar or ""):
                refuse_addresses(ctx.params.get(option.name))
        check_options(ctx.params, keeps=self.name == "fit")
        return super().invoke(ctx)


def _shown(params: Sequence[Any]) -> list[Any]:
    options = [p for p in params if isinstance(p, TyperOption)]
    own = [p for p in options if p.rich_help_panel != EVERY]
    *shared, more = (p for p in options if p.rich_help_panel == EVERY)
    always = [*shared[:2], more, *options[-1:]]
    first = [p for p in own if p not in always][: N_SHOWN - len(always)]
    rest = [p for p in shared if p not in always][: N_SHOWN - len(always) - len(first)]
    wanted = {id(p) for p in (*first, *rest, *always)}
    return [p for p in params if not isinstance(p, TyperOption) or id(p) in wanted]


def verb_of(ctx: Any) -> str:
    names = []
    while ctx.parent is not None:
        names.append(str(ctx.info_name))
        ctx = ctx.parent
    return " ".join(reversed(names))


def settings_lines(verb: str) -> list[str]:
    """Return the lines of ``--help-all`` about the settings of a command."""
    table = json.loads(Path(__file__).with_name("settings.json").read_text("utf-8")).get(verb, [])
    lines = [f"  {row['name']}={row['default']}  ({row['kind']})  {row['help']}".rstrip() for row in table]
    return ["Settings, as --set NAME=VALUE:", *lines] if lines else []
