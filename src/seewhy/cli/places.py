"""Before a verb runs: what it writes is none of what it reads, under whatever name either is given."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..errors import ForeignFileError, InputError, SeeWhyError
from ..storage.cache import refuse_address
from ..storage.output import check_apart, check_folder, write
from .terminal import say

OUTPUTS = ("output", "export", "cards", "junit", "write_contract", "annotate")
"""Options that name what is written; ``--store`` is read and written."""
MODEL_FILES = (".safetensors", ".sqlite", ".f32", ".faiss", "seewhy.json", "encoder.json")
"""What SeeWhy reads of a folder of its own, by the end of the name."""


def check_words(args: Sequence[str]) -> None:
    """Refuse an empty name as output, because it would mean the current folder."""
    names = {"-o", *(f"--{name.replace('_', '-')}" for name in OUTPUTS)}
    for name, value in pairwise([*args, None]):
        if (name in names and value == "") or name in {f"{option}=" for option in names}:
            raise InputError(f"The name after {name} is empty. Expected a file or folder. Give one.")


def refuse_addresses(values: Any) -> None:
    for value in values if isinstance(values, list | tuple) else [values]:
        if isinstance(value, Path):
            refuse_address(value)


def check_options(options: Mapping[str, Any], *, keeps: bool = False) -> None:
    """Refuse an output that is also an input, among a verb's options."""
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
                    f"{output} was given twice, after --{name} and --{other}. Expected two names. Choose another."
                )
        if output.is_file():
            check_apart(output, (file for path in _paths(others) for file in _files(path)))
        for folder in _paths(others):
            if output.is_dir() and not keeps and _is_own(folder) and output.samefile(folder):
                raise ForeignFileError(
                    f"{output} is also read, and new files would be mixed with its own. Expected another folder. "
                    "Choose another name; --force does not help here."
                )
            if _lands_in(output, folder):
                raise ForeignFileError(
                    f"{output} lies in {folder}, so the next run would read it as a picture. Expected a place outside. "
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
    return any((folder / name).exists() for name in ("seewhy.json", "catalogue.sqlite", "encoder.json"))


def _lands_in(output: Path, folder: Path) -> bool:
    """Whether a file of this name would be found when the pictures of the folder are listed."""
    from ..pictures.sources import SUFFIXES

    if output.suffix.lower() not in SUFFIXES or output.is_dir() or not folder.is_dir():
        return False
    return Path(os.path.realpath(output.parent)).is_relative_to(os.path.realpath(folder))


def check_report(folder: Path | None, name: str, force: bool) -> None:
    """Check that a page, its JSON and its progress can be written into a folder; called before the work begins."""
    from ..report.paging import ENDINGS, check_ending
    from ..storage.journal import Journal
    from ..studies.study import NUMBERS, PROGRESS

    if folder is None:
        return
    check_folder(folder)
    if folder.is_dir():
        Journal(folder / PROGRESS, NUMBERS, force=None)
        for ending in ENDINGS:
            check_ending(folder / f"{name}{ending}", force=force)


def csv_row(values: list[Any]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(values)
    return buffer.getvalue()


def write_lines(lines: Iterator[str], form: str, output: Path | None, force: bool) -> None:
    """Write lines to standard output as they come, or to a file, whole or not at all."""
    if output is None:
        raw = form == "csv" and not sys.stdout.isatty()
        for line in lines:
            if raw:
                sys.stdout.write(line)
                sys.stdout.flush()
            else:
                say(line.removesuffix("\n"))
        return
    write(output, "".join(lines), force=force)
