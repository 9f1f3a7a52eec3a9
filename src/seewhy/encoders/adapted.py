"""Encoders that were trained here on top of others: ``adapted:FOLDER``, or the folder alone.

The folder holds a card, JSON, and beside it the tensors of what was trained, under a name made of their SHA-256. The
encoder it stands on is found again by its name, and must see what it saw. Loading runs no code.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, cast, get_args

import torch
from torch import Tensor

from ..errors import ForeignFileError, InputError, ModelError, WeightsError
from ..storage.folders import write_together
from ..storage.marks import Facts, marked_tensors
from ..storage.output import check_folder
from ..storage.reading import check_kinds, read_json, read_tensor_bytes, reason, tensors_of
from .base import Encoder
from .find import ADAPTED
from .instructed import InstructedHead
from .paired_heads import PairedHeads
from .prefixed import PrefixedWords
from .provenance import saved_encoder
from .tuned_pictures import TunedPictures
from .tuned_towers import Halves, TunedTowers

CARD = ADAPTED
FORMAT = 1
DIGITS = 16
"""Of a picture's SHA-256."""
FACTS = Facts(("format", "seewhy", "adapted", "base"))
MAX_CARD = 16 << 20
"""Bytes of the largest card."""


class Trained(Protocol):
    """What was trained, in whichever form."""

    def grown(self, on: Encoder, name: str, keep: float) -> Encoder:
        """The encoder with it."""

    def delta(self, on: Encoder) -> dict[str, Tensor]:
        """Its tensors."""

    def facts(self) -> dict[str, Any]:
        """What beside tensors is needed to build it again, as JSON; ``form`` says which it is."""


@dataclass(frozen=True, eq=False)
class Adaptation:
    """An encoder, what was trained on it, and how much of that is kept.

    Attributes:
        base: the encoder, which stays as it is.
        trained: frozen.
        keep: 0 is the encoder as it was, 1 all that was learnt; between them its heads count less, or its weights
            lie between those before and after.
        provenance: what it was trained on and how, as JSON.
        trained_on: SHA-256 of the pictures' files, each by its first 16 digits.
    """

    base: Encoder
    trained: Trained
    keep: float = 1.0
    provenance: Mapping[str, Any] = field(default_factory=dict)
    trained_on: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.keep <= 1:
            raise InputError(
                f"keep={self.keep:g} was given. A part from 0, the encoder as it was, to 1, all that was learnt, was "
                "expected. Change it."
            )

    def encoder(self, name: str = "adapted") -> Encoder:
        """The encoder with what was trained."""
        return self.trained.grown(self.base, name, self.keep)

    def save(self, folder: str | Path, more: Mapping[str, bytes | str] | None = None) -> Path:
        """Write the card and, beside it, the tensors; an adapted encoder that was there is replaced with its card.

        Args:
            folder: where.
            more: further files of the folder.

        Raises:
            ForeignFileError: the folder exists and is no adapted encoder.
            DataError: it cannot be written.
        """
        folder = check_place(Path(folder))
        own = {f"trained.{n}": t.contiguous() for n, t in self.trained.delta(self.base).items()}
        tensors = marked_tensors({**own, "pictures": _as_bytes(self.trained_on)})
        card = {
            "format": FORMAT,
            "seewhy": version("seewhy"),
            "adapted": self.trained.facts(),
            "base": self.base.describe(),
            "keep": self.keep,
            "provenance": dict(self.provenance),
            "tensors": hashlib.sha256(tensors).hexdigest(),
        }
        text = FACTS.put((json.dumps(card, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace"))
        files = {**(more or {}), _tensors_file(card): tensors, CARD: text}
        return write_together(folder, files, _old_tensors(folder))


def check_place(folder: Path) -> Path:
    """The folder, if an adapted encoder can be saved there; asked before the work begins.

    Raises:
        ForeignFileError: it exists and is none.
        DataError: it cannot be written to.
    """
    if folder.exists() and not is_adapted(folder):
        raise ForeignFileError(
            f"{folder} exists and is not an encoder that SeeWhy adapted. A new name, or one of those, was expected. "
            "Give another name."
        )
    return check_folder(folder)


def is_adapted(folder: str | Path) -> bool:
    """Whether a folder has the mark of an adapted encoder; never raises for what is in it."""
    card = Path(folder) / CARD
    with contextlib.suppress(OSError, ValueError):
        return card.is_file() and not card.is_symlink() and FACTS.is_on(card)
    return False


def load(name: str, *, engine: str = "auto", base: Encoder | str | None = None) -> Encoder:
    """Load an adapted encoder.

    Args:
        name: the folder; with ``@NAME`` after it, the encoder it stands on, where that is not an embedded one.
        engine: what runs the trunk.
        base: the encoder it stands on, or its name; left out, the one after ``@``, else the embedded one of the card.

    Raises:
        ModelError: no adapted encoder, of a newer format, or the base is not the one it was trained on.
        WeightsError: its tensors are damaged.
    """
    folder, _, named = name.partition("@")
    return open_adaptation(folder, engine=engine, base=base or named or None).encoder(f"adapted:{name}")


def open_adaptation(folder: str | Path, *, engine: str = "auto", base: Encoder | str | None = None) -> Adaptation:
    """What :meth:`Adaptation.save` wrote; see :func:`load`."""
    folder = Path(folder)
    card = _read_card(folder)
    try:
        found = saved_encoder(
            card["base"],
            base,
            engine=engine,
            place=str(folder),
            command=f"seewhy … --encoder {shlex.quote(str(folder))}@{{}}",
            again="adapt the encoder again",
            argument="base",
        )
        tensors = _read_tensors(folder, card)
        own = {n.removeprefix("trained."): t for n, t in tensors.items() if n.startswith("trained.")}
        trained = _restored(found, card["adapted"], own)
        keep, provenance = float(card["keep"]), dict(card["provenance"])
        return Adaptation(found, trained, keep, provenance, _as_digests(tensors["pictures"]))
    except (LookupError, AttributeError, TypeError, ValueError, RuntimeError, OverflowError, MemoryError) as error:
        if isinstance(error, WeightsError):
            raise
        raise ModelError(
            f"{folder / CARD} is damaged ({reason(error)}). A card as SeeWhy writes it was expected. Copy the whole "
            "folder again, or adapt the encoder again."
        ) from error


def _as_bytes(digests: Sequence[str]) -> Tensor:
    """The first 16 digits of each, in 8 bytes."""
    return torch.tensor(list(bytes.fromhex("".join(d[:DIGITS] for d in digests))), dtype=torch.uint8).view(
        -1, DIGITS // 2
    )


def _as_digests(rows: Tensor) -> tuple[str, ...]:
    check_kinds({"pictures": rows}, {"pictures": "bytes2"})
    return tuple(bytes(row).hex() for row in rows.tolist())


def _restored(on: Encoder, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Trained:
    """What was trained, from its facts and tensors."""
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        raise ValueError("a number of its tensors is not finite")
    form = facts["form"]
    if form == PairedHeads.form:
        return PairedHeads.restored(on, facts, tensors)
    if form == InstructedHead.form:
        return InstructedHead.restored(on, facts, tensors)
    if form == PrefixedWords.form:
        return PrefixedWords.restored(on, facts, tensors)
    if form == TunedPictures.form:
        return TunedPictures.restored(on, facts, tensors)
    if form in get_args(Halves):
        return TunedTowers.restored(on, facts, tensors)
    raise ValueError(f"its form is {form!r}")


def _read_card(folder: Path) -> dict[str, Any]:
    try:
        card = read_json(folder / CARD, MAX_CARD)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{folder} is not an adapted encoder ({CARD}: {reason(error)}). A folder that seewhy adapt wrote was "
            f"expected. Make one with: seewhy adapt PAIRS -o {shlex.quote(str(folder))}"
        ) from error
    written = card.get("format") if isinstance(card, dict) else None
    if written != FORMAT:
        raise ModelError(
            f"{folder} has format {written!r}; this SeeWhy reads {FORMAT}. "
            "Update SeeWhy with: pip install -U seewhy, or adapt the encoder again."
        )
    return cast(dict[str, Any], card)


def _tensors_file(card: Mapping[str, Any]) -> str:
    sha256 = card["tensors"]
    if not isinstance(sha256, str) or re.fullmatch("[0-9a-f]{64}", sha256) is None:
        raise ValueError(f"its tensors are {sha256!r}, not a SHA-256")
    return f"tensors-{sha256[:16]}.safetensors"


def _old_tensors(folder: Path) -> Path | None:
    """The tensors of the encoder in a folder; ``None`` where its card cannot be read."""
    with contextlib.suppress(OSError, ValueError, TypeError, LookupError):
        return folder / _tensors_file(read_json(folder / CARD, MAX_CARD))
    return None


def _read_tensors(folder: Path, card: Mapping[str, Any]) -> dict[str, Tensor]:
    file = folder / _tensors_file(card)
    try:
        data = read_tensor_bytes(file)
        if hashlib.sha256(data).hexdigest() != card["tensors"]:
            raise ValueError(f"its SHA-256 is not the one in {CARD}")
        return tensors_of(data)[0]
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"{file} is damaged ({reason(error)}). Copy the whole folder again, or adapt the encoder again."
        ) from error
