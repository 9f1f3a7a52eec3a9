"""Before a verb runs: what it writes is none of what it reads, under whatever name either is given."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer.core import TyperCommand

from ..errors import ForeignFileError, InputError, SeeWhyError
from .options import output
from .renamed import with_new_names
from .terminal import say

if TYPE_CHECKING:
    from ..report.paging import Answer, Page

OUTPUTS = ("output", "export", "save", "cards", "junit", "write_contract")
"""Options that name what is written; ``--store`` is read and written."""
ADDRESS = "ADDRESS"
"""Stands in the metavar of an option that takes the name of a place in object storage, too."""
MODEL_FILES = (".safetensors", ".sqlite", ".f32", ".faiss", "seewhy.json", "encoder.json")
"""What SeeWhy reads of a folder of its own, by the end of the name."""


class Guarded(TyperCommand):
    """A verb that does not begin where an output is also an input, or has an empty name, which would be this folder.

    Nor where an address is given to an option that takes names of this machine alone.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        args = with_new_names(self.name or "", args)
        names = {"-o", *(f"--{name.replace('_', '-')}" for name in OUTPUTS)}
        for name, value in pairwise([*args, None]):
            if (name in names and value == "") or name in {f"{option}=" for option in names}:
                raise InputError(
                    f"The name after {name} is empty. The name of a file or folder was expected. Give one."
                )
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        for option in self.params:
            if ADDRESS not in (option.metavar or ""):
                refuse_addresses(ctx.params.get(option.name))
        check_options(ctx.params, keeps=(self.name or "").startswith("fit"))
        return super().invoke(ctx)


def refuse_addresses(values: Any) -> None:
    """Refuse what is an address among an option's values that are names of files."""
    from ..storage.addresses import refuse_address

    for value in values if isinstance(values, list | tuple) else [values]:
        if isinstance(value, Path):
            refuse_address(value)


def check_options(options: Mapping[str, Any], *, keeps: bool = False) -> None:
    """See that no output among a verb's options is an input too."""
    from ..storage.output import check_apart

    for name in OUTPUTS:
        value = options.get(name)
        if value is None:
            continue
        output = Path(value)
        others = [v for key, v in options.items() if key != name]
        for other in (*OUTPUTS, "store"):
            second = options.get(other)
            if other != name and second is not None and os.path.realpath(second) == os.path.realpath(output):
                raise InputError(
                    f"{output} was given twice, after --{name} and --{other}. Two names were expected. Choose another."
                )
        if output.is_file():
            check_apart(output, (file for path in _paths(others) for file in _files(path)))
        for folder in _paths(others):
            if output.is_dir() and not keeps and _is_own(folder) and output.samefile(folder):
                raise ForeignFileError(
                    f"{output} is also read, and other files would be put among its own. A folder of its own was "
                    "expected. Choose another name; here --force does not help."
                )
            if _lands_in(output, folder):
                raise ForeignFileError(
                    f"{output} would be one of the pictures of {folder} the next time. A place outside was expected. "
                    "Choose another."
                )


def _paths(values: Any) -> Iterator[Path]:
    """Those of an option's values that are names of something on this disk."""
    if isinstance(values, list | tuple):
        for value in values:
            yield from _paths(value)
    elif isinstance(values, str | Path):
        name = os.fspath(values)
        for part in {name, name.partition(":")[2], name.rpartition(":")[2], name.rpartition("@")[2]}:  # of an encoder
            with contextlib.suppress(OSError, ValueError):
                if part and os.path.lexists(part):
                    yield Path(part)


def _files(path: Path) -> Iterator[Path]:
    """The file, and those that are read because of it: pictures of a folder or a table, a model's own."""
    from ..pictures.sources import SUFFIXES, list_files
    from ..pictures.tables import TABLES, rows_of

    if path.is_dir():
        endings: tuple[str, ...] = MODEL_FILES if _is_own(path) else SUFFIXES
        if (path / "config.json").exists() or (path / "open_clip_config.json").exists():
            endings = ("",)  # weights of somebody else's: all of it may be read
        with contextlib.suppress(SeeWhyError):
            yield from map(Path, list_files(path, lambda name, _: name.lower().endswith(endings)))
        return
    yield path
    if path.suffix.lower() in TABLES:
        with contextlib.suppress(SeeWhyError):
            for row in rows_of(path):
                yield from (path.parent / cell for cell in row.values() if isinstance(cell, str) and cell)


def _is_own(folder: Path) -> bool:
    """Whether a folder is a saved classifier, an index or an adapted encoder."""
    return any((folder / name).exists() for name in ("seewhy.json", "catalogue.sqlite", "encoder.json"))


def _lands_in(output: Path, folder: Path) -> bool:
    """Whether a file of this name would be found when the pictures of the folder are listed."""
    from ..pictures.sources import SUFFIXES

    if output.suffix.lower() not in SUFFIXES or output.is_dir() or not folder.is_dir():
        return False
    return Path(os.path.realpath(output.parent)).is_relative_to(os.path.realpath(folder))


StudyFolder = Annotated[
    Path | None, output("A folder for the report, its JSON and what it is made from; left out, it is only printed.")
]


def check_both(folder: Path | None, name: str, force: bool) -> None:
    """See that a page, its JSON and its progress can be written into a folder; asked before the work begins."""
    from ..report.paging import ENDINGS, check_ending
    from ..storage.journal import Journal
    from ..storage.output import check_folder
    from ..studies.records import NUMBERS, PROGRESS

    if folder is None:
        return
    check_folder(folder)
    if folder.is_dir():
        Journal(folder / PROGRESS, NUMBERS, force=None)
        for ending in ENDINGS:
            check_ending(folder / f"{name}{ending}", force=force)


def save_both(found: Page, folder: Path | None, name: str, force: bool) -> str | None:
    """A page and its JSON in a folder; where the page is."""
    from ..storage.output import make_folder

    if folder is None:
        return None
    make_folder(folder)
    found.save(folder / f"{name}.json", force=force)
    return str(found.save(folder / f"{name}.html", force=force))


def report_line(page: str | None) -> tuple[str, ...]:
    """What is said of a page that was written."""
    return () if page is None else (f"report: {page}",)


def answer(
    found: Answer, folder: Path | None, name: str, force: bool, as_json: bool, show: Callable[[dict[str, Any]], None]
) -> None:
    """Write a study's page and its JSON, and say what it found.

    Args:
        found: the study's findings.
        folder: where the page goes; none, if it is only printed.
        name: of the page, without its ending.
        force: write over files that SeeWhy did not make.
        as_json: say the JSON, and nothing else.
        show: prints the numbers; the sentence and the page's place come after them.
    """
    page = save_both(found, folder, name, force)
    if as_json:
        say(json.dumps({**found.data, "report": page}, ensure_ascii=False))
    else:
        show(found.data)
        say(found.sentence, *report_line(page))


def deliver(report: Page, path: Path | None, force: bool, as_json: bool, show: Callable[[], None]) -> None:
    """Write a report where a file was named, and say it: its JSON, or what ``show`` prints of it."""
    if path is not None:
        report.save(path, force=force)
    if as_json:
        say(json.dumps({**report.data, "report": None if path is None else str(path)}, ensure_ascii=False))
    else:
        show()


def refuse_beside(context: Any, option: str, names: Sequence[str]) -> None:
    """Refuse options that were given beside one that has no use for them."""
    for name in names:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise InputError(
                f"--{option} and --{name.replace('_', '-')} were both given. One of them was expected, since they "
                "decide in different ways. Drop one."
            )


def csv_row(values: list[Any]) -> str:
    """A row of a table, with its end."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(values)
    return buffer.getvalue()


def write_lines(lines: Iterator[str], form: str, output: Path | None, force: bool) -> None:
    """Lines as they come, on standard output; or a file, whole or not at all."""
    if output is None:
        raw = form == "csv" and not sys.stdout.isatty()
        for line in lines:
            if raw:
                sys.stdout.write(line)
                sys.stdout.flush()
            else:
                say(line.removesuffix("\n"))
        return
    from ..storage.output import write

    write(output, "".join(lines), force=force)
