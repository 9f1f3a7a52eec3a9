"""How SeeWhy knows its own files again.

* Text (JSON, HTML) ends in a line of 64 blanks and tabs: the first bits of a SHA-256 of all that stands before it.
  No reader of JSON or HTML sees it, and a file that a person has edited no longer has it: it is theirs.
* A PNG carries the same digest as text, in a chunk of its own.
* safetensors has a place for such facts: ``seewhy``, the version.
* JSON lines end their last line in those blanks and tabs, before the newline.
* CSV has no place for them, and a program that changes a Parquet file keeps its facts: what SeeWhy wrote there is
  remembered in the cache, by place and digest. Where the cache is gone, they are known no more.
* Lines that are added one by one, to go on where a run was stopped, are SeeWhy's where each has the fields it writes.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from ..errors import DataError
from .cache import cache_dir

if TYPE_CHECKING:
    from torch import Tensor

_SALT = b"seewhy\0"
_BITS = 64
_BLANKS = bytes.maketrans(b"01", b" \t")
_LAST = 1 + _BITS + 1
_BLOCK = 2**20
LONGEST = 2**26
"""Bytes of a line of JSON; no record is longer."""
_HEADER = 2**28
"""Bytes of a safetensors header; no card is longer."""
MADE_BY = "seewhy"
"""The fact that says whose a file is, where a format has a place for facts."""


class Mark(Protocol):
    """What tells SeeWhy's files of one kind from others."""

    def put(self, data: bytes) -> bytes:
        """The contents with the mark, where it is not among them already."""

    def is_on(self, path: Path) -> bool:
        """Whether a file has it; never raises for what is in the file."""


@dataclass(frozen=True)
class SealedText:
    """JSON and HTML: a last line of blanks and tabs that holds a digest of all before it.

    Attributes:
        kind: what is written; a file of one kind is not taken for one of another.
        lines: each line is JSON; the blanks and tabs end the last one, since a blank line is none.
    """

    kind: str
    lines: bool = False

    def put(self, data: bytes) -> bytes:
        body = data if data.endswith(b"\n") else data + b"\n"
        if self.lines:
            body = body[:-1]
        return body and body + _seal(hashlib.sha256(self._salt + body)) + b"\n"

    def is_whole(self, data: bytes) -> bool:
        """Whether nothing before the last line was changed since; true where there is no such line."""
        body, last = data[: -_LAST + 1], data[-_LAST:]
        if len(last) < _LAST or last[:1] != b"\n" or last[-1:] != b"\n" or last[1:-1].strip(b" \t"):
            return True
        return last[1:-1] == _seal(hashlib.sha256(self._salt + body))

    @property
    def _salt(self) -> bytes:
        return _SALT + self.kind.encode() + b"\0"

    def is_on(self, path: Path) -> bool:
        with open(path, "rb") as file:
            end = file.seek(0, 2)
            if end < _LAST:
                return False
            file.seek(end - _LAST)
            last = file.read(_LAST)
            if (last[:1] == b"\n") is self.lines or last[-1:] != b"\n" or last[1:-1].strip(b" \t"):
                return False
            digest = hashlib.sha256(self._salt)
            for block in _blocks(file, end - _LAST + 1):
                digest.update(block)
        return last[1:-1] == _seal(digest)


@dataclass(frozen=True)
class SealedComment:
    """YAML, in which a tab may not begin a line, and TOML: a last line of comment with a digest of all before it."""

    def put(self, data: bytes) -> bytes:
        body = data if data.endswith(b"\n") else data + b"\n"
        return body + self._line(body)

    def _line(self, body: bytes) -> bytes:
        return b"# SeeWhy " + hashlib.sha256(_SALT + body).hexdigest().encode() + b"\n"

    def is_on(self, path: Path) -> bool:
        with open(path, "rb") as file:
            data = file.read(LONGEST)
        body, last = data[: -len(self._line(b""))], data[-len(self._line(b"")) :]
        return last == self._line(body)


@dataclass(frozen=True)
class SealedPicture:
    """PNG: a text chunk with a digest of all other chunks."""

    def put(self, data: bytes) -> bytes:
        head, rest = data[:33], data[33:]  # signature and IHDR, which must come first
        text = b"Software\0SeeWhy " + hashlib.sha256(_SALT + head + rest).hexdigest().encode()
        crc = struct.pack(">I", zlib.crc32(b"tEXt" + text))
        return head + struct.pack(">I", len(text)) + b"tEXt" + text + crc + rest

    def is_on(self, path: Path) -> bool:
        with open(path, "rb") as file:
            head = file.read(33)
            size = file.read(4)
            if not head.startswith(b"\x89PNG\r\n\x1a\n") or size != struct.pack(">I", 9 + 7 + 64):
                return False
            text, _crc = file.read(4 + 80), file.read(4)
            digest = hashlib.sha256(_SALT + head)
            while block := file.read(_BLOCK):
                digest.update(block)
        return text == b"tEXtSoftware\0SeeWhy " + digest.hexdigest().encode()


@dataclass(frozen=True)
class TensorFile:
    """safetensors: a fact in its header.

    Attributes:
        earlier: facts by which files of earlier versions, which did not write that one, are known.
    """

    earlier: tuple[frozenset[str], ...] = ()

    def put(self, data: bytes) -> bytes:
        return data

    def is_on(self, path: Path) -> bool:
        facts = _header(path)
        return facts is not None and (MADE_BY in facts or any(known <= set(facts) for known in self.earlier))


@dataclass(frozen=True)
class Facts:
    """JSON that stands beside tensors or among a folder's files, and that earlier versions did not seal.

    Attributes:
        fields: those it always has; a file that is damaged is known by how it begins.
    """

    fields: tuple[str, ...]

    def put(self, data: bytes) -> bytes:
        return _FACTS.put(data)

    def is_whole(self, data: bytes) -> bool:
        """As :meth:`SealedText.is_whole`."""
        return _FACTS.is_whole(data)

    def is_on(self, path: Path) -> bool:
        if _FACTS.is_on(path):
            return True
        with open(path, "rb") as file:
            data = file.read(LONGEST)
        try:
            facts = json.loads(data)
        except (ValueError, RecursionError):
            return data.startswith(b'{\n "format": ') and b'"seewhy": "' in data[:100]
        return isinstance(facts, dict) and set(self.fields) <= facts.keys()


def marked_tensors(tensors: Mapping[str, Tensor], facts: Mapping[str, str] | None = None) -> bytes:
    """The contents of a safetensors file that :class:`TensorFile` knows, with a sum of all that is in it."""
    from safetensors.torch import save  # not needed by all that write

    from .reading import SUM, tensors_sum

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    texts = {MADE_BY: version("seewhy"), **(facts or {})}
    return _in_order(save(plain, {**texts, SUM: tensors_sum(plain, texts)}))


def _in_order(data: bytes) -> bytes:
    """The same safetensors file with its texts sorted: it has them in an order drawn anew with each file."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


@dataclass(frozen=True)
class Record:
    """One kind of line.

    Attributes:
        fields: those that it always has, in their order, before any other.
        more: those that may follow; ``None`` where later versions may add any.
    """

    fields: tuple[str, ...]
    more: frozenset[str] | None = frozenset()

    def is_form_of(self, row: Mapping[str, object]) -> bool:
        names = tuple(row)
        own = names[: len(self.fields)] == self.fields
        return own and (self.more is None or self.more.issuperset(names[len(self.fields) :]))


@dataclass(frozen=True)
class Lines:
    """JSON lines that are added one by one: every line is one of SeeWhy's records.

    Attributes:
        forms: the kinds of record.
    """

    forms: tuple[Record, ...]

    def put(self, data: bytes) -> bytes:
        return data

    def is_on(self, path: Path) -> bool:
        with open(path, "rb") as file:
            while line := file.readline(LONGEST):
                if not self.knows(line):
                    return False
            return file.tell() > 0

    def knows(self, line: bytes) -> bool:
        """Whether a line is a record of SeeWhy's."""
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            return False
        return isinstance(row, dict) and any(form.is_form_of(row) for form in self.forms)

    def begins(self, line: bytes) -> bool:
        """Whether a line is what a kill leaves of a record: its beginning, and no JSON."""
        if not any(line.startswith(f'{{"{form.fields[0]}": '.encode()) for form in self.forms):
            return False
        try:
            json.loads(line)
        except (ValueError, RecursionError):
            return True
        return False


@dataclass(frozen=True)
class Remembered:
    """CSV and Parquet: the digest of what was written to a place is kept in the cache."""

    def put(self, data: bytes) -> bytes:
        return data

    def is_on(self, path: Path) -> bool:
        with open(path, "rb") as file:
            return _hex(file) in self._kept(path)

    def remember(self, path: Path, data: bytes) -> None:
        """Before it is written; what was there is known until then, so that a kill in between leaves either.

        Without a cache it is not known again, and not written over.
        """
        from .output import write_atomic

        with contextlib.suppress(DataError):
            write_atomic(self._memory(path), " ".join([_hex(io.BytesIO(data)), *self._kept(path)[:1]]))

    def _kept(self, path: Path) -> list[str]:
        try:
            with open(self._memory(path), encoding="ascii") as file:
                return file.read(1000).split()
        except (DataError, OSError, ValueError):
            return []

    def _memory(self, path: Path) -> Path:
        place = hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()
        return cache_dir("written") / place[:32]


PICTURE, TENSORS, TABLE = SealedPicture(), TensorFile(), Remembered()
CARD, PAGE, DESCRIPTIONS, PAIRS, JOB, AUDIT = map(SealedText, ("card", "page", "descriptions", "pairs", "job", "audit"))
CONTRACT = SealedComment()
_FACTS = SealedText("facts")
CHECKPOINT = TensorFile(tuple(map(frozenset, (("seal", "history"), ("seal", "n"), ("stage", "step", "how")))))
"""What a stopped run goes on from."""


def _seal(digest: Any) -> bytes:
    bits = int.from_bytes(digest.digest()[: _BITS // 8], "big")
    return f"{bits:0{_BITS}b}".encode().translate(_BLANKS)


def _hex(file: IO[bytes]) -> str:
    digest = hashlib.sha256(_SALT)
    while block := file.read(_BLOCK):
        digest.update(block)
    return digest.hexdigest()


def _blocks(file: IO[bytes], n: int) -> Iterator[bytes]:
    file.seek(0)
    while n > 0 and (block := file.read(min(_BLOCK, n))):
        n -= len(block)
        yield block


def _header(path: Path) -> Mapping[str, str] | None:
    """The facts in a safetensors header; ``None`` where it is no such file."""
    with open(path, "rb") as file:
        end = file.seek(0, 2)
        file.seek(0)
        size = int.from_bytes(file.read(8), "little")
        if size > min(end - 8, _HEADER):
            return None
        try:
            facts = json.loads(file.read(size))["__metadata__"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return None
    return facts if isinstance(facts, dict) else None
