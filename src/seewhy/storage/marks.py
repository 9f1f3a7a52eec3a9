"""Marks by which SeeWhy recognises its own files.

Files that a user named are recognised by path and digest, which are stored in the cache. Safetensors files are
recognised by a key in the header, folders by a JSON card with a digest, and JSON lines by their fields.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..errors import DataError
from .cache import cache_dir

LONGEST = 2**26
"""Maximum bytes of a line of JSON."""
MADE_BY = "seewhy"
"""Key of the mark in a safetensors header."""
_HEADER = 2**28
"""Maximum bytes of a safetensors header."""
_SEALED = re.compile(rb'(.*),\n "sha256": "([0-9a-f]{64})"\n}\n', re.DOTALL)


class Mark(Protocol):
    """Recognises the files of one kind that SeeWhy wrote."""

    def is_on(self, path: Path) -> bool:
        """Return whether a file has the mark; invalid contents raise no error."""


def is_own(path: Path, mark: Mark | None = None) -> bool:
    """Return whether a file has the mark or is unchanged since SeeWhy wrote it."""
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return digest in _kept(path) or (mark is not None and mark.is_on(path))
    except OSError:
        return False


def remember(path: Path, data: bytes) -> None:
    """Store the digest of a file before the file is written; the digest of the previous contents is kept.

    Without a cache, the file cannot be recognised later and is not overwritten.
    """
    with contextlib.suppress(DataError, OSError):
        memory = _memory(path)
        fresh = memory.with_name(f".{memory.name}.{os.getpid()}.part")
        fresh.write_text(" ".join([hashlib.sha256(data).hexdigest(), *_kept(path)[:1]]))
        os.replace(fresh, memory)


def _kept(path: Path) -> list[str]:
    try:
        return _memory(path).read_text("ascii")[:1000].split()
    except (DataError, OSError, ValueError):
        return []


def _memory(path: Path) -> Path:
    return cache_dir("written") / hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()[:32]


@dataclass(frozen=True)
class TensorFile:
    """Recognises SeeWhy's safetensors files by a key in their header."""

    def is_on(self, path: Path) -> bool:
        with open(path, "rb") as file:
            end = file.seek(0, 2)
            file.seek(0)
            size = int.from_bytes(file.read(8), "little")
            if size > min(end - 8, _HEADER):
                return False
            try:
                facts = json.loads(file.read(size))["__metadata__"]
            except (ValueError, KeyError, TypeError, RecursionError):
                return False
        return isinstance(facts, dict) and MADE_BY in facts


@dataclass(frozen=True)
class Facts:
    """Recognises a JSON card by the fields that it must have."""

    fields: tuple[str, ...]

    def put(self, data: bytes) -> bytes:
        body = data.rstrip().removesuffix(b"}").rstrip()
        return body + b',\n "sha256": "' + hashlib.sha256(body).hexdigest().encode() + b'"\n}\n'

    def is_whole(self, data: bytes) -> bool:
        sealed = _SEALED.fullmatch(data)
        return sealed is None or hashlib.sha256(sealed[1]).hexdigest().encode() == sealed[2]

    def is_on(self, path: Path) -> bool:
        """Return whether a file is a JSON card with these fields; a damaged card is recognised by its first bytes."""
        with open(path, "rb") as file:
            data = file.read(LONGEST)
        try:
            facts = json.loads(data)
        except (ValueError, RecursionError):
            return data.startswith(b'{\n "format": ') and b'"seewhy": "' in data[:100]
        return isinstance(facts, dict) and set(self.fields) <= facts.keys()


@dataclass(frozen=True)
class Record:
    """The fields of one kind of JSON line: required ones in order, and optional ones; ``None`` allows any."""

    fields: tuple[str, ...]
    more: frozenset[str] | None = frozenset()

    def is_form_of(self, row: Mapping[str, object]) -> bool:
        names, n = tuple(row), len(self.fields)
        return names[:n] == self.fields and (self.more is None or self.more.issuperset(names[n:]))


@dataclass(frozen=True)
class Lines:
    """Recognises files of JSON lines in which every line has the fields of a :class:`Record`."""

    forms: tuple[Record, ...]

    def is_on(self, path: Path) -> bool:
        with open(path, "rb") as file:
            while line := file.readline(LONGEST):
                if not self.knows(line):
                    return False
            return file.tell() > 0

    def knows(self, line: bytes) -> bool:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            return False
        return isinstance(row, dict) and any(form.is_form_of(row) for form in self.forms)

    def begins(self, line: bytes) -> bool:
        """Return whether a line is the beginning of a record, cut off by an interruption."""
        if not line.startswith(tuple(f'{{"{form.fields[0]}": '.encode() for form in self.forms)):
            return False
        try:
            json.loads(line)
        except (ValueError, RecursionError):
            return True
        return False


TENSORS = TensorFile()
CHECKPOINT = TensorFile()
"""The mark of a checkpoint."""
