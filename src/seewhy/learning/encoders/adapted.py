"""Encoders that were trained here on top of others: ``adapted:FOLDER``, or the folder alone.

The folder holds a card, JSON, and beside it the tensors of what was trained, under a name made of their SHA-256. The
encoder it stands on is found again by its name, and must see what it saw. Loading runs no code.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, get_args

import torch
from torch import Tensor

from ...encoders.base import Encoder
from ...encoders.find import ADAPTED, saved_encoder
from ...errors import InputError, ModelError, WeightsError
from ...storage.archive import FolderArchive
from ...storage.marks import Facts
from ...storage.reading import check_kinds, reason
from ...storage.tensors import marked_tensors
from .heads import PairedHeads
from .instructed import Instructed
from .towers import Halves, PrefixedWords, TunedPictures, TunedTowers

CARD = ADAPTED
FORMAT = 1
DIGITS = 16
"""Digits kept of a picture's SHA-256."""
ARCHIVE = FolderArchive(
    CARD,
    Facts(("format", "seewhy", "adapted", "base")),
    formats=(FORMAT,),
    kind="an adapted encoder",
    make="Expected a folder that seewhy adapt wrote. Make one with: seewhy adapt PAIRS -o {folder}",
    again="adapt the encoder again",
    most=16 << 20,
)


FORMS: dict[str, Any] = {kind.form: kind for kind in (PairedHeads, Instructed, PrefixedWords, TunedPictures)}
FORMS |= dict.fromkeys(get_args(Halves), TunedTowers)
"""What was trained, by the ``form`` that its facts name."""
OLDER = {"instructed": "an instruction changed the pooled vector and not what the network sees"}
"""Forms that can no longer be trained, and their names."""


class Trained(Protocol):
    """A trained part of an encoder, in any form."""

    def grown(self, on: Encoder, name: str, keep: float) -> Encoder:
        """Return the encoder with the trained part."""

    def delta(self, on: Encoder) -> dict[str, Tensor]:
        """Return the trained tensors."""

    def facts(self) -> dict[str, Any]:
        """Return the facts needed besides tensors to build it again, as JSON; ``form`` names the form."""


@dataclass(frozen=True, eq=False)
class Adaptation:
    """An encoder, its trained part, and the share of the training to keep, from 0 (nothing) to 1 (all).

    ``trained_on`` holds the first 16 digits of the SHA-256 of each picture file.
    """

    base: Encoder
    trained: Trained
    keep: float = 1.0
    provenance: Mapping[str, Any] = field(default_factory=dict)
    trained_on: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.keep <= 1:
            raise InputError(
                f"keep={self.keep:g} was given. Expected a number from 0 (the encoder as it was) to 1 (all that "
                "was learnt). Change it."
            )

    def encoder(self, name: str = "adapted") -> Encoder:
        """The encoder with its trained part."""
        return self.trained.grown(self.base, name, self.keep)

    def save(self, folder: str | Path, more: Mapping[str, bytes | str] | None = None) -> Path:
        """Write the card and, beside it, the tensors; they replace an existing adapted encoder."""
        folder = check_place(Path(folder))
        own = {f"trained.{n}": t for n, t in self.trained.delta(self.base).items()}
        digests = list(bytes.fromhex("".join(d[:DIGITS] for d in self.trained_on)))
        pictures = torch.tensor(digests, dtype=torch.uint8).view(-1, DIGITS // 2)
        tensors = marked_tensors({**own, "pictures": pictures})
        card = {
            "format": FORMAT,
            "seewhy": version("seewhy"),
            "adapted": self.trained.facts(),
            "base": self.base.describe(),
            "keep": self.keep,
            "provenance": dict(self.provenance),
        }
        return ARCHIVE.save(folder, card, tensors, more)


def check_place(folder: Path) -> Path:
    """Return the folder, if an adapted encoder can be saved there; checked before the work begins."""
    return ARCHIVE.check(folder)


def is_adapted(folder: str | Path) -> bool:
    """Whether a folder has the mark of an adapted encoder; never raises for its content."""
    with contextlib.suppress(OSError, ValueError):
        return ARCHIVE.is_one(Path(folder))
    return False


def load(name: str, *, engine: str = "auto", base: Encoder | str | None = None) -> Encoder:
    """Load an adapted encoder from its folder; ``@NAME`` after it names the base encoder, if ``base`` does not."""
    folder, _, named = name.partition("@")
    return open_adaptation(folder, engine=engine, base=base or named or None).encoder(f"adapted:{name}")


def open_adaptation(folder: str | Path, *, engine: str = "auto", base: Encoder | str | None = None) -> Adaptation:
    """Open the folder that :meth:`Adaptation.save` wrote; see :func:`load`."""
    folder = Path(folder)
    card = ARCHIVE.load_card(folder)
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
        tensors = ARCHIVE.checked_tensors(folder, card)
        own = {n.removeprefix("trained."): t for n, t in tensors.items() if n.startswith("trained.")}
        if not all(bool(tensor.isfinite().all()) for tensor in own.values()):
            raise ValueError("a tensor holds numbers that are not finite")
        if (form := card["adapted"]["form"]) in OLDER:
            raise WeightsError(
                f"{folder} was written by an older version, in which {OLDER[form]}. Expected a folder of this "
                "version. Adapt the encoder again."
            )
        if form not in FORMS:
            raise ValueError(f"its form is {form!r}")
        trained = FORMS[form].restored(found, card["adapted"], own)
        check_kinds({"pictures": tensors["pictures"]}, {"pictures": "bytes2"})
        digests = tuple(bytes(row).hex() for row in tensors["pictures"].tolist())
        return Adaptation(found, trained, float(card["keep"]), dict(card["provenance"]), digests)
    except (LookupError, AttributeError, TypeError, ValueError, RuntimeError, OverflowError, MemoryError) as error:
        if isinstance(error, WeightsError):
            raise
        raise ModelError(
            f"{folder / CARD} is damaged ({reason(error)}). Expected the card that SeeWhy wrote. Copy the whole "
            "folder again, or adapt the encoder again."
        ) from error
