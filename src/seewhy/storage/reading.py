"""Safe reading of untrusted files: regular files only, size limits, strict JSON, and checked safetensors."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import stat
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader, StringIO, TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor

from ..errors import DataError, SeeWhyError
from ..spelling import first_repeated
from .output import note_input

MAX_JSON = 256 << 20
"""Maximum bytes of a JSON file; enough for a million names with digests."""
MAX_LINE = 64 << 20
"""Maximum characters of a line of a table; enough for an encoded picture."""
MAX_TENSORS = 4 << 30
"""Maximum bytes of a safetensors file."""
MAX_HEADER = 64 << 20
"""Maximum bytes of a safetensors header."""
SUM = "crc32"
"""Key of the checksum :func:`tensors_sum` in a safetensors header."""
LONGEST = 300
"""Maximum characters of a reason in a message."""
_INHERITED = re.compile(r"/dev/fd/\d+|/proc/self/fd/\d+")
"""Paths of pipes that the shell opened for this program."""


def json_value(text: str, pairs: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """Parse JSON; every syntax error raises ``ValueError``."""
    try:
        return json.loads(text, object_pairs_hook=pairs)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except (json.JSONDecodeError, SeeWhyError):  # SeeWhyError is raised by ``pairs``
        raise
    except ValueError as error:
        raise ValueError("it has a number with too many digits") from error


def json_lines(text: str) -> list[Any]:
    """Parse JSON lines, which are separated by newlines only."""
    return [json_value(line) for line in text.split("\n") if line.strip()]


class UnreadableError(OSError):
    """An existing file that cannot be used; the message does not name the file."""


def reason(error: Exception) -> str:
    """Return the reason of a read error in one line, without the file name."""
    text = " ".join((getattr(error, "strerror", None) or str(error) or type(error).__name__).split())
    return text.rstrip(".") if len(text) <= LONGEST else text[:LONGEST] + "…"


@contextmanager
def readable(what: object, cure: str, kind: type[SeeWhyError] = DataError) -> Iterator[None]:
    """Raise an error of this kind, with the reason, if ``what`` cannot be read inside this context."""
    try:
        yield
    except SeeWhyError:
        raise
    except (OSError, ValueError) as error:
        raise kind(f"{what} cannot be read: {reason(error)}. {cure}") from error


def check_regular(path: str | Path) -> None:
    with open_regular(path):
        pass


@contextmanager
def open_regular(path: str | Path) -> Iterator[tuple[BufferedReader, int]]:
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        # Asked before opening, as opening a device can act on it; again after, as the name can change hands.
        _check_kind(os.stat(path))
        handle = os.open(path, flags)
    except (FileNotFoundError, UnreadableError):
        raise
    except (OSError, ValueError) as error:
        raise UnreadableError(getattr(error, "strerror", None) or str(error)) from error
    with open(handle, "rb") as file:
        status = os.fstat(handle)
        _check_kind(status)
        note_input(path, status)
        yield file, status.st_size


def _check_kind(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise UnreadableError("it is a folder, not a file")
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableError("it is a pipe, socket or device, not a file")


def read_file(path: str | Path, limit: int = MAX_JSON) -> bytes:
    """Read a regular file, or a pipe that the shell opened, as in ``<(command)``."""
    if _INHERITED.fullmatch(os.fspath(path)) is None:
        with open_regular(path) as (file, size):
            return _read(file, size, limit)
    try:
        with open(path, "rb") as pipe:
            if stat.S_ISCHR(os.fstat(pipe.fileno()).st_mode):
                raise UnreadableError("it is a terminal or device, not a file")
            data = pipe.read(limit + 1)
    except (UnreadableError, FileNotFoundError):
        raise
    except OSError as error:
        raise UnreadableError(error.strerror or str(error)) from error
    if len(data) > limit:
        raise UnreadableError(f"it has more than the limit of {limit:,} bytes")
    return data


def read_text(path: str | Path, limit: int = MAX_JSON) -> str:
    try:
        return StringIO(read_file(path, limit).decode("utf-8-sig"), newline=None).read()
    except UnicodeDecodeError as error:
        raise UnreadableError("it is not text in UTF-8") from error


@contextmanager
def open_lines(path: str | Path, newline: str | None = None) -> Iterator[Iterator[str]]:
    with open_regular(path) as (file, _), TextIOWrapper(file, "utf-8-sig", newline=newline) as text:

        def lines() -> Iterator[str]:
            while line := text.readline(MAX_LINE + 1):
                if len(line) > MAX_LINE:
                    raise UnreadableError(f"one of its lines has more than the limit of {MAX_LINE:,} characters")
                yield line

        yield lines()


def _read(file: BufferedReader, size: int, limit: int) -> bytes:
    if size > limit:
        raise UnreadableError(f"it has {size:,} bytes, more than the limit of {limit:,}")
    try:
        data = file.read(size + 1)
    except MemoryError as error:
        raise UnreadableError(f"its {size:,} bytes do not fit into memory") from error
    except OSError as error:
        raise UnreadableError(error.strerror or str(error)) from error
    if len(data) > size:
        raise UnreadableError(f"it grew beyond its {size:,} bytes while it was read")
    return data


def file_sha256(path: str | Path, limit: int | None = None) -> str:
    with open_regular(path) as (file, size):
        if limit is not None and size > limit:
            raise UnreadableError(f"it has {size:,} bytes, more than the limit of {limit:,}")
        return hashlib.file_digest(file, "sha256").hexdigest()


def parse_json(data: bytes | str) -> Any:
    """Parse JSON in UTF-8; duplicate keys, NaN and numbers out of range raise ``ValueError``."""
    try:
        text = data.decode("utf-8-sig") if isinstance(data, bytes) else data
        return json.loads(
            text, object_pairs_hook=_unique, parse_constant=_no_number, parse_int=_integer, parse_float=_number
        )
    except RecursionError as error:
        raise ValueError("its JSON is nested too deeply") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not valid JSON: {error.msg} at line {error.lineno}") from error
    except UnicodeDecodeError as error:
        raise ValueError("it is not text in UTF-8") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) < len(pairs):
        twice = str(first_repeated(name for name, _ in pairs))
        raise ValueError(f"its key {twice[:40]!r} occurs twice")
    return unique


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"it has the number {text}, which JSON does not allow")


def _integer(text: str) -> int:
    if len(text) > 19 or not -(2**63) <= int(text) < 2**63:
        raise ValueError(f"its number {text[:12]}… is too large")
    return int(text)


def _number(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"its number {text[:12]} is too large")
    return number


def read_json(path: str | Path, limit: int = MAX_JSON) -> Any:
    return parse_json(read_file(path, limit))


def read_tensors(path: str | Path, limit: int = MAX_TENSORS) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors and header texts of a safetensors file, and verify their checksum if there is one."""
    tensors, texts = tensors_of(read_tensor_bytes(path, limit))
    if SUM in texts and texts[SUM] != tensors_sum(tensors, texts):
        raise ValueError("its checksum does not match")
    return tensors, texts


def tensors_sum(tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> str:
    """Return the CRC-32 of tensors with their names, types and shapes, and of the header texts."""
    facts = sorted((name, text) for name, text in texts.items() if name != SUM)
    found = zlib.crc32(json.dumps(facts).encode())
    for name, tensor in sorted(tensors.items()):
        found = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode(), found)
        found = zlib.crc32(tensor_bytes(tensor), found)
    return f"{found:08x}"


def tensor_bytes(tensor: Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def read_tensor_bytes(path: str | Path, limit: int = MAX_TENSORS) -> bytes:
    """Read a safetensors file, after a check that its header fits its size."""
    with open_regular(path) as (file, size):
        _read_layout(file, size)
        file.seek(0)
        return _read(file, size, limit)


def tensors_of(data: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    _, header = _layout(data, len(data))
    try:
        return load_tensors(data), header
    except (SafetensorError, KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"it is not a valid safetensors file: {error}") from error
    except MemoryError as error:
        raise UnreadableError(f"its {len(data):,} bytes do not fit into memory") from error


def read_layout(path: str | Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return the dtype (such as ``"F32"``) and shape of each tensor of a safetensors file."""
    with open_regular(path) as (file, size):
        header, _ = _read_layout(file, size)
    found = {}
    for name, about in header.items():
        kind: Any = about.get("dtype")
        shape: Any = about.get("shape")
        sizes = shape if isinstance(shape, list) else [None]
        if not isinstance(kind, str) or not all(type(n) is int and n >= 0 for n in sizes):
            raise ValueError(f"its header does not give the type and shape of {name[:80]!r}")
        found[name] = (kind, tuple(sizes))
    return found


def _read_layout(file: BufferedReader, size: int) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    start = file.read(8)
    length = int.from_bytes(start, "little")
    return _layout(start + file.read(length if length <= min(MAX_HEADER, size - 8) else 0), size)


def _layout(data: bytes, size: int) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Return the entries and texts of a safetensors header, after a check that the tensors end with the file."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or not 2 <= length <= min(MAX_HEADER, size - 8):
        raise ValueError(f"its {size:,} bytes do not begin like a safetensors file" if size else "it is empty")
    header = parse_json(data[8 : 8 + length])
    if not isinstance(header, dict):
        raise ValueError("its header is not a JSON object")
    texts = header.pop("__metadata__", None) or {}
    ends = [about.get("data_offsets") if isinstance(about, dict) else None for about in header.values()]
    if not all(isinstance(end, list) and len(end) == 2 and all(type(e) is int for e in end) for end in ends):
        raise ValueError("its header does not give the offsets of its tensors")
    if (last := max((end[1] for end in ends if end), default=0)) != size - 8 - length:
        raise ValueError(f"its tensors end at byte {last:,} instead of {size - 8 - length:,}")
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise ValueError("the metadata in its header must be texts")
    return header, texts
