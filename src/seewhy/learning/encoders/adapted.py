"""Encoders trained by SeeWhy on top of others: ``adapted:FOLDER``, or just the folder.

The folder has a JSON card and the trained tensors, in a file named by its SHA-256. The base encoder is loaded by name
and must give the same outputs as in the training. Loading does not execute code from the folder.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Protocol, get_args

import torch
from jaxtyping import UInt8
from torch import Tensor

from ...classifiers.saving import load as load_classifier
from ...encoders.base import Encoder
from ...encoders.find import ADAPTED, CLASSIFIER, encoder_in
from ...errors import InputError
from ...results import Doc, Share
from ...storage.archive import FolderArchive
from ...storage.marks import Facts
from ...storage.parts import check_axes, check_finite
from ...storage.tensors import marked_tensors
from .heads import PairedHeads
from .image_copy import ImageCopy
from .instructed import Instructed
from .towers import Halves, PrefixedWords, TunedTowers

CARD = ADAPTED
FORMAT = 1
DIGITS = 16
"""Number of hexadecimal digits stored of a picture's SHA-256."""
Keep = Annotated[Share, Doc("interpolation weight between original (0) and trained (1)")]
Named = Annotated[
    Share | None,
    Doc("share of held-out pictures whose nearest class name is the prediction of the encoder's classifier"),
]
ARCHIVE = FolderArchive(
    CARD,
    Facts(("format", "seewhy", "adapted", "base")),
    format=FORMAT,
    kind="an adapted encoder",
    make="Expected a folder that seewhy adapt or fit wrote. Make one with: seewhy adapt PAIRS -o {folder}",
    again="adapt the encoder again",
    most=16 << 20,
)


FORMS: dict[str, Any] = {kind.form: kind for kind in (PairedHeads, Instructed, PrefixedWords, ImageCopy)}
FORMS |= dict.fromkeys(get_args(Halves), TunedTowers)
"""Class of the trained part for each ``form``."""


class Trained(Protocol):
    """Protocol of the trained part of an encoder."""

    def grown(self, on: Encoder, name: str, keep: float) -> Encoder:
        """Return the encoder with the trained part."""

    def delta(self, on: Encoder) -> dict[str, Tensor]:
        """Return the trained tensors."""

    def facts(self) -> dict[str, Any]:
        """Return the fields to save as JSON; ``form`` names the kind of training."""


@dataclass(frozen=True, eq=False)
class Adaptation:
    """A base encoder, its trained part, and the interpolation weight ``keep``, 0 to 1.

    ``trained_on`` holds the first 16 hexadecimal digits of the SHA-256 of each picture file.
    """

    base: Encoder
    trained: Trained
    keep: float = 1.0
    provenance: Mapping[str, Any] = field(default_factory=dict)
    trained_on: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.keep <= 1:
            raise InputError(f"`keep` must be between 0 (original encoder) and 1 (trained encoder), got {self.keep:g}.")

    def encoder(self, name: str = "adapted") -> Encoder:
        """Return the encoder with its trained part."""
        return self.trained.grown(self.base, name, self.keep)

    def save(self, folder: str | Path, more: Mapping[str, bytes | str] | None = None) -> Path:
        """Write card and tensors to a folder, replacing an adapted encoder there."""
        folder = check_place(Path(folder))
        own = {f"trained.{n}": t for n, t in self.trained.delta(self.base).items()}
        digests = list(bytes.fromhex("".join(d[:DIGITS] for d in self.trained_on)))
        pictures = torch.tensor(digests, dtype=torch.uint8).view(-1, DIGITS // 2)
        tensors = marked_tensors({**own, "pictures": pictures})
        card = {
            "format": FORMAT, "seewhy": version("seewhy"), "adapted": self.trained.facts(),
            "base": self.base.describe(), "keep": self.keep, "provenance": dict(self.provenance),
        }  # fmt: skip
        return ARCHIVE.save(folder, card, tensors, more)


def check_place(folder: Path) -> Path:
    """Check that an adapted encoder can be saved to a folder, and return it."""
    return ARCHIVE.check(folder)


def is_adapted(folder: str | Path) -> bool:
    """Return whether a folder is marked as an adapted encoder."""
    with contextlib.suppress(OSError, ValueError):
        return ARCHIVE.is_one(Path(folder))
    return False


def load(name: str, *, engine: str = "auto", base: Encoder | str | None = None) -> Encoder:
    """Load an adapted encoder from ``FOLDER`` or ``FOLDER@NAME``, where ``NAME`` is its base encoder.

    The folder may also be that of a classifier, whose network may be trained.
    """
    folder, _, named = name.partition("@")
    if (Path(folder) / CLASSIFIER).is_file():
        made = load_classifier(folder, engine=engine, encoder=base or named or None)
        return made.encoder if made.network is None else made.encoder.but(name=f"adapted:{name}")
    return open_adaptation(folder, engine=engine, base=base or named or None).encoder(f"adapted:{name}")


def open_adaptation(folder: str | Path, *, engine: str = "auto", base: Encoder | str | None = None) -> Adaptation:
    """Open a folder that :meth:`Adaptation.save` wrote; see :func:`load`."""
    folder = Path(folder)
    command = f"seewhy … --encoder {shlex.quote(str(folder))}@{{}}"
    card, found = encoder_in(ARCHIVE, folder, base, engine=engine, command=command, key="base")
    tensors = ARCHIVE.checked_tensors(folder, card)
    own = {n.removeprefix("trained."): t for n, t in tensors.items() if n.startswith("trained.")}
    with ARCHIVE.reading(folder):
        check_finite(own)
        if (form := card["adapted"]["form"]) not in FORMS:
            raise ValueError(f"its form is {form!r}")
        trained = FORMS[form].restored(found, card["adapted"], own)
        check_axes("pictures", tensors["pictures"], UInt8[Tensor, "n digits"], {})
        digests = tuple(bytes(row).hex() for row in tensors["pictures"].tolist())
        return Adaptation(found, trained, float(card["keep"]), dict(card["provenance"]), digests)
