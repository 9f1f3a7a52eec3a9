"""Read WebDataset shards: tar files of ``name.jpg``, ``name.txt``, ``name.json``, without unpacking them."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache, partial
from io import BufferedReader
from itertools import product
from pathlib import Path, PurePosixPath
from typing import Any, cast

from ..errors import DataError, ImageError, SeeWhyError
from ..storage.reading import json_value, open_regular, reason
from .images import MAX_BYTES
from .samples import some
from .sources import SUFFIXES, InMemory, natural_key

TEXT_BYTES, HEADER_BYTES = 2**20, 2**20
"""Maximum bytes of a text or JSON member, and of a member's header."""
PADDING = 2**20
"""Maximum bytes of padding after the end of the tar data."""
TEXTS = ("txt", "text", "caption", "json", "cls")


@dataclass
class Record:
    """The files with one key in a shard."""

    picture: InMemory | None = None
    facts: dict[str, Any] = field(default_factory=dict)


def shards_of(source: str | Path) -> list[Path]:
    """Return the shards of a source: a ``.tar``, the ``.tar`` files of a folder, or ``shard-{000..012}.tar``."""
    text, path = str(source), Path(source)
    if "{" in text and text.endswith(".tar"):
        choices = []
        for part in re.split(r"(\{\d+\.\.\d+\})", text):
            if span := re.fullmatch(r"\{(\d+)\.\.(\d+)\}", part):
                first, last = int(span[1]), min(int(span[2]), int(span[1]) + 10**6)
                choices.append([str(i).zfill(len(span[1])) for i in range(first, last + 1)])
            else:
                choices.append([part])
        return [Path("".join(one)) for one in product(*choices)]
    if path.is_dir():
        return sorted(path.glob("*.tar"), key=lambda p: natural_key(p.name))
    return [path] if path.suffix.lower() == ".tar" else []


def in_shard(shard: Path, member: str) -> InMemory:
    name = f"{shard}/{member}"

    def load() -> Any:
        if (picture := _pictures(shard, shard.stat().st_mtime_ns).get(name)) is None:
            raise ImageError(name, "is not in the shard; check the name")
        return picture.load()

    return InMemory(name, load)


@lru_cache(maxsize=256)
def _pictures(shard: Path, _changed: int) -> dict[str, InMemory]:
    return {r.picture.name: r.picture for _, r in records_of(shard, []) if r.picture is not None}


def records_of(shard: Path, notes: list[str]) -> Iterator[tuple[str, Record]]:
    """Yield the keys of a shard with their files, in order."""
    records: dict[str, Record] = {}
    odd: list[str] = []
    try:
        with open_regular(shard) as (file, size), tarfile.open(fileobj=cast(Any, _Headers(file)), mode="r:") as tar:
            for member in tar:
                if member.offset_data + (0 if member.issparse() else member.size) > size:
                    raise tarfile.ReadError(f"{member.name!r} is truncated")
                if member.isdir():
                    continue
                key, ending = _key(member.name)
                load = partial(_bytes, shard, member.name, member.offset_data, member.size)
                if why := _refused(member, ending):
                    odd.append(f"{member.name} ({why})")
                elif f".{ending.rpartition('.')[2]}" in SUFFIXES:
                    records.setdefault(key, Record()).picture = InMemory(f"{shard}/{member.name}", load)
                elif ending in TEXTS:
                    records.setdefault(key, Record()).facts[ending] = _fact(shard, member.name, load())
            if (rest := size - tar.offset) > PADDING:
                raise tarfile.ReadError(f"the archive ends {rest:,} bytes before the end of the file")
    except SeeWhyError:
        raise
    except (OSError, tarfile.TarError, EOFError, ArithmeticError, LookupError, ValueError) as error:
        # tarfile raises many exceptions for a damaged header.
        raise DataError(
            f"{shard} cannot be read as an uncompressed tar: {reason(error)}. Copy it again, or "
            "repack it without compression."
        ) from error
    if odd:
        notes.append(f"left out {len(odd)} member(s) of {shard}: {some(odd, 3)}")
    yield from records.items()


class _Headers:
    """A tar file that limits the size of a header."""

    def __init__(self, file: BufferedReader) -> None:
        self.file, self.seek, self.tell = file, file.seek, file.tell

    def read(self, size: int) -> bytes:
        if size > HEADER_BYTES:
            raise tarfile.ReadError(f"its header has {size:,} bytes, more than the limit of {HEADER_BYTES:,}")
        return self.file.read(size)


def _key(name: str) -> tuple[str, str]:
    """Split a name at the first dot of its file name, as WebDataset does, into key and extension."""
    folder, slash, file = name.rpartition("/")
    stem, _, ending = file.partition(".")
    return folder + slash + stem, ending.lower()


def _refused(member: tarfile.TarInfo, ending: str) -> str:
    """Return why a member is not read, or an empty text."""
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or "\\" in member.name:
        return "its name leads outside the shard"
    if not member.isreg() or member.issparse():
        return "it is a link, a device or sparse, not a plain file"
    if member.size > (most := TEXT_BYTES if ending in TEXTS else MAX_BYTES):
        return f"it has {member.size:,} bytes, more than the limit of {most:,}"
    return ""


def _bytes(shard: Path, name: str, start: int, size: int) -> bytes:
    with open_regular(shard) as (file, _):
        file.seek(start)
        data = file.read(size)
    if len(data) < size:
        raise ImageError(f"{shard}/{name}", "is truncated, because the shard has changed; read the shard again")
    return data


def _fact(shard: Path, name: str, data: bytes) -> Any:
    try:
        text = data.decode("utf-8-sig")
        return json_value(text) if name.lower().endswith(".json") else text.strip()
    except ValueError as error:
        raise DataError(f"{shard}, {name}, cannot be read: {error}. Save it as UTF-8.") from error
