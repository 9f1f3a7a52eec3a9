"""Save and load fitted models as a JSON card with safetensors, in one file or in a folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from ..errors import ForeignFileError, ModelError, SeeWhyError, WeightsError
from .folders import write_together
from .marks import TENSORS, Facts
from .output import check_file, check_folder, write
from .reading import (
    LONGEST,
    MAX_JSON,
    parse_json,
    read_file,
    read_json,
    read_tensor_bytes,
    read_tensors,
    reason,
    tensors_of,
)
from .tensors import marked_tensors

T = TypeVar("T")

SPOKEN = Facts(("seewhy", "method"))
DAMAGE = (OSError, ValueError, LookupError, AttributeError, TypeError, RuntimeError, OverflowError, MemoryError)
"""Errors that damaged or changed files can cause."""


def find_file(root: Path | None, name: str, folder: str) -> Path | None:
    """Return ``root`` if it is a file, or the file of this name in ``root`` or in its ``folder``.

    Anything with this name is returned, even a pipe or a folder: reading it raises a clear error.
    """
    places = [] if root is None else [root / name, root / folder / name] if root.is_dir() else [root]
    return next((path for path in places if path.exists()), None)


@dataclass(frozen=True)
class TensorArchive:
    """A kind of safetensors file, with an optional card in the header and an optional JSON file next to the file."""

    otherwise: str
    again: str
    missing: str | None = None
    format: int | None = None
    error: type[SeeWhyError] = WeightsError

    def check(self, path: Path) -> Path:
        """Return the path, after a check that an archive can be saved there."""
        if path.parent.is_dir():
            check_file(path, TENSORS, force=None)
            check_file(path.with_suffix(".json"), SPOKEN, force=None)
        check_folder(path.parent)
        return path

    def save(
        self,
        path: Path,
        tensors: Mapping[str, Tensor],
        card: Mapping[str, Any] | None = None,
        spoken: Mapping[str, Any] | None = None,
        *,
        force: bool | None = None,
    ) -> Path:
        """Write the file, and the JSON file of facts."""
        if spoken is not None:
            check_file(path.with_suffix(".json"), SPOKEN, force=force)
        facts = None if card is None else {"card": json.dumps(card)}
        write(path, marked_tensors(tensors, facts), TENSORS, force=force)
        if spoken is not None:
            write(path.with_suffix(".json"), json.dumps(spoken, indent=1, ensure_ascii=False), SPOKEN, force=force)
        return path

    def load(self, path: Path, assemble: Callable[[dict[str, Any], dict[str, Tensor]], T]) -> T:
        """Return ``assemble(card, tensors)``; if it fails, the file counts as damaged."""
        try:
            tensors, texts = read_tensors(path)
            card = {} if self.format is None and "card" not in texts else parse_json(texts["card"])
            if self.format is not None and card["format"] != self.format:
                again = self.again[:1].lower() + self.again[1:]
                raise ModelError(
                    f"{path} must have format {self.format}, got {card['format']!r}. Update SeeWhy, or {again}"
                )
            return assemble(card, tensors)
        except FileNotFoundError as error:
            if self.missing is None:
                raise
            raise ModelError(self.missing.format(path=path)) from error
        except DAMAGE as error:
            why = f"it has no {error}" if isinstance(error, KeyError) else reason(error)
            raise self.error(f"{path} is damaged or {self.otherwise} ({why}). {self.again}") from error


@dataclass(frozen=True)
class FolderArchive:
    """A kind of folder with a JSON card, and the tensors in a file named by their SHA-256."""

    card: str
    facts: Facts
    format: int
    kind: str
    make: str
    again: str
    most: int = MAX_JSON

    def check(self, folder: Path) -> Path:
        """Return the folder, after a check that it can be saved there."""
        if folder.exists() and not self.is_one(folder):
            raise ForeignFileError(f"{folder} exists and is not {self.kind}. Give another name.")
        return check_folder(folder)

    def is_one(self, folder: Path) -> bool:
        card = folder / self.card
        return card.is_file() and not card.is_symlink() and self.facts.is_on(card)

    def save(
        self, folder: Path, card: Mapping[str, Any], tensors: bytes, more: Mapping[str, bytes | str] | None = None
    ) -> Path:
        self.check(folder)
        sealed = {**card, "tensors": hashlib.sha256(tensors).hexdigest()}
        own = {self.tensors_file(sealed): tensors, self.card: self.written(sealed)}
        old = None
        with contextlib.suppress(*DAMAGE):
            old = folder / self.tensors_file(read_json(folder / self.card, self.most))
        return write_together(folder, {**(more or {}), **own}, old)

    def written(self, card: Mapping[str, Any]) -> bytes:
        """Return the card as it is written, with its digest."""
        return self.facts.put(json.dumps(card, indent=1, ensure_ascii=False).encode("utf-8", "backslashreplace"))

    def tensors_file(self, card: Mapping[str, Any]) -> str:
        sha256 = card.get("tensors")
        if not isinstance(sha256, str) or re.fullmatch("[0-9a-f]{64}", sha256) is None:
            raise ValueError(f"its tensors must have a SHA-256, got {sha256!r}")
        return f"tensors-{sha256[:16]}.safetensors"

    def load_card(self, folder: Path) -> dict[str, Any]:
        try:
            data = read_file(folder / self.card, self.most)
            if not self.facts.is_whole(data):
                raise ModelError(
                    f"{folder / self.card} was changed or damaged. If you changed it, delete its last entry, sha256. "
                    f"Otherwise copy the whole folder again, or {self.again}."
                )
            card = parse_json(data)
        except (OSError, ValueError) as error:
            why = f"{self.card}: {reason(error)}"
            raise ModelError(f"{folder} is not {self.kind} ({why}). {self.make.format(folder=folder)}") from error
        card = card if isinstance(card, dict) else {}
        card.pop("sha256", None)
        if (written := card.get("format")) != self.format:
            raise ModelError(
                f"{folder} must have format {self.format}, got {written!r}. "
                f"Update SeeWhy with: pip install -U seewhy, or {self.again}."
            )
        return card

    def checked_tensors(self, folder: Path, card: Mapping[str, Any]) -> dict[str, Tensor]:
        with self.reading(folder):
            file = folder / self.tensors_file(card)
        try:
            data = read_tensor_bytes(file)
            if hashlib.sha256(data).hexdigest() != card["tensors"]:
                raise ValueError(f"its SHA-256 differs from the one in {self.card}")
            return tensors_of(data)[0]
        except (OSError, ValueError) as error:
            raise WeightsError(
                f"{file} is damaged ({reason(error)}). Copy the whole folder again, or {self.again}."
            ) from error

    @contextlib.contextmanager
    def reading(self, folder: Path) -> Iterator[None]:
        """Say that the card is damaged if what it says causes an error here; a :class:`ModelError` passes."""
        try:
            yield
        except DAMAGE as error:
            said = reason(error) if isinstance(error, ValueError) else repr(error)
            said = said if len(said) <= LONGEST else said[:LONGEST] + "…"
            again = self.again[:1].upper() + self.again[1:]
            raise ModelError(f"{folder / self.card} is damaged ({said}). {again}.") from error
