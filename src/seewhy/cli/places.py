"""Checks that the outputs of a command are not among its inputs."""

from __future__ import annotations

import contextlib
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

OUTPUTS = ("output", "export", "backup", "cards", "junit", "write_contract", "annotate")
"""Options for outputs; ``--store`` is read and written."""
MODEL_FILES = (".safetensors", ".sqlite", ".f32", ".faiss", "seewhy.json", "encoder.json")
"""Suffixes of the files that SeeWhy reads in its own folders."""


def check_words(args: Sequence[str]) -> None:
    """Check that no output option is empty, which would mean the current folder."""
    names = {"-o", *(f"--{name.replace('_', '-')}" for name in OUTPUTS)}
    for name, value in pairwise([*args, None]):
        if (name in names and value == "") or name in {f"{option}=" for option in names}:
            raise InputError(f"{name} must be a file or folder, got an empty name.")


def refuse_addresses(values: Any) -> None:
    for value in values if isinstance(values, list | tuple) else [values]:
        if isinstance(value, Path):
            refuse_address(value)


def check_options(options: Mapping[str, Any], *, keeps: bool = False) -> None:
    """Check that no output of a command is also an input."""
    for name in OUTPUTS:
        value = options.get(name)
        if value is None:
            continue
        output = Path(value)
        others = [v for key, v in options.items() if key != name]
        for other in (*OUTPUTS, "store"):
            second = options.get(other)
            if other != name and second is not None and os.path.realpath(second) == os.path.realpath(output):
                raise InputError(f"--{name} and --{other} must differ, got {output} for both. Choose another name.")
        if output.is_file():
            check_apart(output, (file for path in _paths(others) for file in _files(path)))
        for folder in _paths(others):
            if output.is_dir() and not keeps and _is_own(folder) and output.samefile(folder):
                raise ForeignFileError(
                    f"{output} is also an input, and new files would be mixed with its own. Choose another "
                    "folder; --force does not help."
                )
            if _lands_in(output, folder):
                raise ForeignFileError(
                    f"{output} is in {folder}, so the next run would read it as a picture. Choose a place "
                    "outside of it."
                )


def _paths(values: Any) -> Iterator[Path]:
    """Yield the values of options that are existing paths."""
    if isinstance(values, list | tuple):
        for value in values:
            yield from _paths(value)
    elif isinstance(values, str | Path):
        name = os.fspath(values)
        for part in {name, name.partition(":")[2], name.rpartition(":")[2], name.rpartition("@")[2]}:  # parts of a name
            with contextlib.suppress(OSError, ValueError):
                if part and os.path.lexists(part):
                    yield Path(part)


def _files(path: Path) -> Iterator[Path]:
    """Yield a file, or the files of a model or index; pictures and files of others are kept where they are written."""
    from ..pictures.sources import list_files

    is_bare = (path / "config.json").exists() or (path / "open_clip_config.json").exists()
    endings = ("",) if is_bare else MODEL_FILES if _is_own(path) else ()  # of weights from elsewhere, any may be read
    if endings:
        with contextlib.suppress(SeeWhyError):
            yield from map(Path, list_files(path, lambda name, _: name.lower().endswith(endings)))
    elif not path.is_dir():
        yield path


def _is_own(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("seewhy.json", "catalogue.sqlite", "encoder.json"))


def _lands_in(output: Path, folder: Path) -> bool:
    """Return whether a file of this name would be listed with the pictures of the folder."""
    from ..pictures.sources import SUFFIXES

    if output.suffix.lower() not in SUFFIXES or output.is_dir() or not folder.is_dir():
        return False
    return Path(os.path.realpath(output.parent)).is_relative_to(os.path.realpath(folder))


def check_report(folder: Path | None, name: str, force: bool) -> None:
    """Check that a page, its JSON and its progress can be written into a folder."""
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


def write_lines(lines: Iterator[str], form: str, output: Path | None, force: bool) -> None:
    """Write lines to standard output one by one, or to a file atomically."""
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
