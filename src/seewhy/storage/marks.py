"""How SeeWhy knows its own files again.

One that a user named by its place and digest, kept in the cache, until somebody changes it; tensors by a fact in their
header; a folder by its card, JSON that ends in a digest of all before it; lines by the fields that each has.
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
"""Bytes of a line of JSON; no record is longer."""
MADE_BY = "seewhy"
"""The fact that says whose a file of tensors is."""
_HEADER = 2**28
"""Bytes of a safetensors header; no card is longer."""
_SEALED = re.compile(rb'(.*),\n "sha256": "([0-9a-f]{64})"\n}\n', re.DOTALL)


class Mark(Protocol):
    """What identifies files of one kind, wherever they are."""

    def is_on(self, path: Path) -> bool:
        """Whether a file has the mark; never raises for the file's contents."""


def is_own(path: Path, mark: Mark | None = None) -> bool:
    """Whether a file has the mark, or is as SeeWhy wrote it there; an unreadable file is never touched."""
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return digest in _kept(path) or (mark is not None and mark.is_on(path))
    except OSError:
        return False


def remember(path: Path, data: bytes) -> None:
    """Record a file before it is written; the old record stays until then, so a kill in between loses neither.

    Without a cache it is not known again, and not written over.
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
    """The mark of a safetensors file: a fact in its header."""

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
    """The mark of a JSON card, in a folder or beside tensors: fields that it always has."""

    fields: tuple[str, ...]

    def put(self, data: bytes) -> bytes:
        body = data.rstrip().removesuffix(b"}").rstrip()
        return body + b',\n "sha256": "' + hashlib.sha256(body).hexdigest().encode() + b'"\n}\n'

    def is_whole(self, data: bytes) -> bool:
        sealed = _SEALED.fullmatch(data)
        return sealed is None or hashlib.sha256(sealed[1]).hexdigest().encode() == sealed[2]

    def is_on(self, path: Path) -> bool:
        """Whether a file is such a card; a damaged one is recognised by its beginning."""
        with open(path, "rb") as file:
            data = file.read(LONGEST)
        try:
            facts = json.loads(data)
        except (ValueError, RecursionError):
            return data.startswith(b'{\n "format": ') and b'"seewhy": "' in data[:100]
        return isinstance(facts, dict) and set(self.fields) <= facts.keys()


@dataclass(frozen=True)
class Record:
    """A kind of line: fields that it always has, in their order, and optional ones; ``None`` allows any."""

    fields: tuple[str, ...]
    more: frozenset[str] | None = frozenset()

    def is_form_of(self, row: Mapping[str, object]) -> bool:
        names, n = tuple(row), len(self.fields)
        return names[:n] == self.fields and (self.more is None or self.more.issuperset(names[n:]))


@dataclass(frozen=True)
class Lines:
    """The mark of a file of JSON lines: every line is one of SeeWhy's records."""

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
        """Whether a line is the beginning of a record that a kill cut off."""
        if not line.startswith(tuple(f'{{"{form.fields[0]}": '.encode() for form in self.forms)):
            return False
        try:
            json.loads(line)
        except (ValueError, RecursionError):
            return True
        return False


TENSORS = TensorFile()
CHECKPOINT = TensorFile()
"""What a stopped run goes on from."""
