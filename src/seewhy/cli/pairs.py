"""``seewhy pairs``: what of pictures with texts is worth learning from, checked and cleaned by rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import EncoderName, EngineName, Force, Group, Json, Quiet, Store, open_store, output
from .outputs import Guarded
from .terminal import Terminal, say

if TYPE_CHECKING:
    from ..language.pairs import Rule

EXAMPLES = """
Examples:\n\n
  seewhy pairs check captions.jsonl\n\n
  seewhy pairs check shards/ --encoder lite0 --json\n\n
  seewhy pairs clean captions.csv -o clean.jsonl --skip small_picture --rule too_long:most=40\n\n
  seewhy pairs clean clean.jsonl -o fuller.jsonl --restore too_short
"""
app = typer.Typer(help="Pictures with texts: checked and cleaned by rules.", no_args_is_help=True)
Pairs = Annotated[
    Path,
    typer.Argument(help="Pictures with texts: a table, a folder, WebDataset shards (.tar).", show_default=False),
]
ImageColumn = Annotated[str | None, typer.Option(help="A table's column of file names.", show_default=False)]
TextColumn = Annotated[
    list[str] | None, typer.Option(help="A table's column of texts; again for another.", show_default=False)
]
LabelColumn = Annotated[str | None, typer.Option(help="A table's column of classes.", show_default=False)]
Scoring = Annotated[
    str | None,
    typer.Option(
        "--encoder",
        "-e",
        help=f"{EncoderName.__metadata__[0].help} It scores how well text and picture fit; left out, nothing does.",
        show_default=False,
    ),
]
Setting = Annotated[
    list[str] | None,
    typer.Option(
        "--rule",
        metavar="NAME:FIELD=VALUE",
        help="A setting of a rule, as too_long:most=40; again for another.",
        show_default=False,
    ),
]
Skip = Annotated[
    list[str] | None, typer.Option(help="A rule that is not asked; again for another.", show_default=False)
]


@app.command("check", cls=Guarded, epilog=EXAMPLES)
def check(
    pairs: Pairs,
    encoder: Scoring = None,
    engine: EngineName = "auto",
    rule: Setting = None,
    skip: Skip = None,
    image_column: ImageColumn = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    group: Group = None,
    examples: Annotated[int, typer.Option(min=0, help="Examples of each rule.")] = 3,
    as_json: Json = False,
    store: Store = None,
    quiet: Quiet = False,
) -> None:
    """Say what each rule finds: ALIGN's, copies, scripts, with an encoder texts that do not fit. Changes nothing."""
    from ..language.pairs import check as find

    terminal = Terminal(quiet)
    columns = _columns(image_column, text_column, label_column, group)
    chosen = _rules(rule, skip)
    found = find(
        pairs,
        with_rules=chosen,
        n_examples=examples,
        progress=terminal,
        **_scoring(encoder, engine, store),
        **columns,
    )
    for note in found.notes:
        terminal.note(note)
    if as_json:
        say(json.dumps(found.to_json(), ensure_ascii=False))
        return
    say(*str(found).splitlines())


@app.command("clean", cls=Guarded, epilog=EXAMPLES)
def clean(
    pairs: Pairs,
    output: Annotated[Path, output("The .jsonl; beside it, NAME.removed.jsonl says what was removed, and why.")],
    encoder: Scoring = None,
    engine: EngineName = "auto",
    rule: Setting = None,
    skip: Skip = None,
    restore: Annotated[
        str | None,
        typer.Option(help="Put back what this rule removed; PAIRS is then a cleaned set.", show_default=False),
    ] = None,
    image_column: ImageColumn = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    group: Group = None,
    force: Force = False,
    as_json: Json = False,
    store: Store = None,
    quiet: Quiet = False,
) -> None:
    """Write the pairs that break no rule, and the others with the reasons. The original stays as it is."""
    from ..language.pairs import clean as take_out
    from ..language.pairs import restore as put_back
    from ..language.pairs.checking import beside, check_place
    from ..storage.output import check_apart

    terminal = Terminal(quiet)
    if restore is not None:
        back = put_back(pairs, restore, output, force=force)
        _tell({"file": str(output), "restored": back}, f"{output}: {back} pairs are back", as_json)
        return
    for place in (output, beside(output)):
        check_apart(place, [pairs])
    check_place(output, force=force)
    found = take_out(
        pairs,
        with_rules=_rules(rule, skip),
        progress=terminal,
        **_scoring(encoder, engine, store),
        **_columns(image_column, text_column, label_column, group),
    )
    for note in found.kept.notes:
        terminal.note(note)
    kept, removed = found.save(output, force=force)
    told = {"file": str(kept), "removed_file": str(removed), "pictures": len(found.kept)}
    told |= {"pairs": found.kept.n_texts, "removed": len(found.removed)}
    _tell(
        told,
        f"{kept}: {len(found.kept)} pictures with {found.kept.n_texts} texts; {removed}: {len(found.removed)} removed",
        as_json,
    )


def _columns(image: str | None, text: list[str] | None, label: str | None, group: str | None) -> dict[str, Any]:
    return {"image": image, "text": text or None, "label": label, "group": group}


def _scoring(encoder: str | None, engine: str, store: str | None) -> dict[str, Any]:
    if encoder is None:
        return {}
    from ..encoders.find import encoder as find

    return {"encoder": find(encoder, engine=engine), "store": open_store(store)}


def _rules(settings: list[str] | None, skip: list[str] | None) -> list[Rule]:
    """All rules but some, with these settings."""
    from dataclasses import fields

    from ..errors import InputError, UnknownNameError
    from ..language.pairs import rules

    for name in skip or ():
        rules[name]
    given: dict[str, dict[str, Any]] = {}
    for one in settings or ():
        name, colon, rest = one.partition(":")
        field, equals, value = (part.strip() for part in rest.partition("="))
        if not (colon and equals and value):
            raise InputError(f"--rule was given {one!r}. NAME:FIELD=VALUE was expected. For example: too_long:most=40")
        defaults: dict[str, Any] = {f.name: f.default for f in fields(rules[name])}  # type: ignore[arg-type]
        if field not in defaults:
            raise UnknownNameError(f"field of {name}", field, defaults)
        kind = type(defaults[field])
        try:
            given.setdefault(name, {})[field] = kind(value)
        except ValueError as error:
            what = {int: "A whole number", float: "A number"}[kind]
            raise InputError(f"--rule was given {one!r}. {what} was expected as {field}. Correct it.") from error
    return [rules[name](**given.get(name, {})) for name in rules if name not in (skip or ())]


def _tell(data: dict[str, Any], line: str, as_json: bool) -> None:
    say(json.dumps(data, ensure_ascii=False) if as_json else line)
