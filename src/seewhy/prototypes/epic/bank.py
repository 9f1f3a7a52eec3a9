"""EPIC's prototypes as they are kept: the matrix, and for every channel the patches that excite it most."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...attributions.base import Explainable
from ...attributions.explainers import classifier_digest
from ...errors import InputError, ModelError, WeightsError
from ...storage.marks import Facts, TensorFile, marked_tensors
from ...storage.output import check_file, check_folder, make_folder, write
from ...storage.reading import check_kinds, parse_json, read_tensors, reason
from ..bank import (
    BankPicture,
    Patches,
    check_finite,
    check_index,
    check_patches,
    joined_thumbnails,
    listed,
    pictures_of,
)
from .rotation import TOLERANCE, Rotation

FORMAT = 1
FOLDER = "prototypes"
FILE = "epic.safetensors"


@dataclass(frozen=True, eq=False)
class EPICBank(Patches):
    """Prototypes of every channel, positive and negative, duplicates left out.

    Attributes:
        pictures: those that serve as prototypes.
        pooled: one unit row a picture, for near-duplicates.
        owner: index of each patch's picture.
        boxes: the cell at which the channel is strongest, grown by half a cell, as fractions of the view.
        pixel_boxes: the same on the upright original.
        channels: channel of each patch; a channel's patches follow each other, strongest picture first.
        signs: 1 for positive prototypes, −1 for negative ones.
        purity: of each patch, the cosine of its features with the channel's direction, −1…1.
        rotation: the matrix and its inverse.
        classifier: digest of the classifier it was made for.
        measures: what was found while fitting: purities, the choice, the check of the folded head.
        made_from: seal of the pictures and the settings it was fitted with.
    """

    pictures: tuple[BankPicture, ...]
    pooled: Float[Tensor, "m d"]
    owner: Int[Tensor, " n"]
    boxes: Float[Tensor, "n 4"]
    pixel_boxes: Int[Tensor, "n 4"]
    channels: Int[Tensor, " n"]
    signs: Int[Tensor, " n"]
    purity: Float[Tensor, " n"]
    rotation: Rotation
    classifier: str
    measures: dict[str, Any] = field(default_factory=dict)
    made_from: str = ""

    def of_channel(self, channel: int, sign: int) -> list[int]:
        """Patches of a channel, strongest picture first."""
        return ((self.channels == channel) & (self.signs == sign)).nonzero()[:, 0].tolist()

    def save(self, folder: str | Path) -> Path:
        """Write ``folder/epic.safetensors``, which holds everything, and ``epic.json``, for people.

        Raises:
            DataError: the folder cannot be written.
        """
        path = Path(folder) / FILE
        check_bank(make_folder(folder))
        tensors = {
            "matrix": self.rotation.matrix,
            "pooled": self.pooled.half(),
            "owner": self.owner,
            "boxes": self.boxes,
            "pixel_boxes": self.pixel_boxes,
            "channels": self.channels.int(),
            "signs": self.signs.to(torch.int8),
            "purity": self.purity.half(),
            "thumbnails": joined_thumbnails(self.pictures),
        }
        if self.rotation.form == "invertible":
            tensors["inverse"] = self.rotation.inverse
        about = {
            "format": FORMAT,
            "seewhy": version("seewhy"),
            "method": "epic",
            "form": self.rotation.form,
            "classifier": self.classifier,
            "measures": self.measures,
            "made_from": self.made_from,
        }
        card = json.dumps({**about, "pictures": listed(self.pictures)}, ensure_ascii=False)
        write(path, marked_tensors({k: v.contiguous() for k, v in tensors.items()}, {"card": card}), BANK)
        spoken = json.dumps({**about, **self._spoken()}, indent=1, ensure_ascii=False)
        write(path.with_suffix(".json"), spoken, FACTS)
        return path

    def _spoken(self) -> dict[str, Any]:
        """The prototypes of each channel by file name, digest and box."""
        pictures = [{"image": p.name, "sha256": p.digest, "class": p.label} for p in self.pictures]
        rows = zip(
            self.channels.tolist(), self.signs.tolist(), self.owner.tolist(), self.pixel_boxes.tolist(), strict=True
        )
        channels: dict[str, list[list[Any]]] = {}
        for channel, sign, owner, box in rows:
            channels.setdefault(f"{'+' if sign > 0 else '-'}{channel}", []).append([owner, box])
        return {"pictures": pictures, "prototypes": channels}


BANK = TensorFile(earlier=(frozenset({"card"}),))
FACTS = Facts(("seewhy", "method"))


def check_bank(folder: Path, file: str = FILE) -> Path:
    """The folder, if a bank, or what lies beside it, can be saved there; asked before the work begins.

    Raises:
        ForeignFileError: a file of its name is there that SeeWhy did not make.
    """
    if folder.is_dir():
        check_file(folder / file, BANK, force=None)
        check_file((folder / file).with_suffix(".json"), FACTS, force=None)
    return check_folder(folder)


def load_bank(path: str | Path, n_classes: int | None = None) -> EPICBank:
    """Read what :meth:`EPICBank.save` wrote. It runs no code.

    Args:
        path: the file.
        n_classes: of the classifier it is for; left out, the pictures' classes are not checked.

    Raises:
        ModelError: it is missing or of a newer format.
        WeightsError: it is damaged.
    """
    try:
        tensors, texts = read_tensors(path)
        card = parse_json(texts["card"])
        if card["format"] != FORMAT:
            raise ModelError(
                f"{path} has format {card['format']!r}; this SeeWhy reads {FORMAT}. Update SeeWhy, or fit it again."
            )
        return _assemble(card, tensors, n_classes)
    except FileNotFoundError as error:
        raise ModelError(f"There are no prototypes at {path}. Make them with: seewhy fit-prototypes DATA") from error
    except (OSError, ValueError, LookupError, AttributeError, TypeError, RuntimeError, OverflowError) as error:
        raise WeightsError(f"{path} is damaged or holds no prototypes ({reason(error)}). Fit them again.") from error


def _assemble(card: dict[str, Any], tensors: dict[str, Tensor], n_classes: int | None) -> EPICBank:
    check_kinds(tensors, _KINDS)
    check_finite(tensors)
    matrix = tensors["matrix"]
    if len({len(matrix), matrix.shape[1], *tensors.get("inverse", matrix).shape}) != 1:
        raise ValueError(f"its matrix is {tuple(matrix.shape)}")
    rotation = Rotation(matrix, tensors.get("inverse", matrix.T), card["form"])
    if not rotation.error < TOLERANCE:
        raise ValueError(f"its matrix times its inverse is off by {rotation.error:.1e}")
    bank = EPICBank(
        pictures_of(card["pictures"], tensors["thumbnails"]),
        tensors["pooled"].float(),
        tensors["owner"],
        tensors["boxes"],
        tensors["pixel_boxes"],
        tensors["channels"].long(),
        tensors["signs"].long(),
        tensors["purity"].float(),
        rotation,
        card["classifier"],
        card["measures"],
        card.get("made_from", ""),
    )
    check_patches(bank, n_classes)
    check_index("the prototypes' channels", bank.channels, len(matrix))
    if not len(bank.channels) == len(bank.signs) == len(bank.purity) == len(bank.owner):
        raise ValueError(f"{len(bank.channels)} channels for {len(bank.owner)} prototypes")
    return bank


_KINDS = {
    "matrix": "float2",
    "inverse": "float2",
    "pooled": "float2",
    "owner": "int1",
    "boxes": "float2",
    "pixel_boxes": "int2",
    "channels": "int1",
    "signs": "int1",
    "purity": "float1",
    "thumbnails": "bytes1",
}


def find_file(model: Explainable, place: str | Path | None = None) -> Path | None:
    """The file of a classifier's prototypes; ``None`` where there is none.

    Args:
        model: whose folder is searched when no place is given.
        place: the file, the folder it lies in, or a classifier's folder.
    """
    root = Path(place) if place is not None else getattr(model, "folder", None)
    if root is None:
        return None
    # Whatever bears the name is it, also a pipe or a folder: reading it says what is wrong.
    found = [p for p in (root / FILE, root / FOLDER / FILE) if p.exists()] if root.is_dir() else [root]
    found = [p for p in found if p.exists()]
    return found[0] if found else None


def bank_of(model: Explainable, place: str | Path | None = None) -> EPICBank | None:
    """The prototypes that were fitted for a classifier; ``None`` where there are none.

    Raises:
        InputError: they are not where they were said to be, or were made for another classifier.
    """
    path = find_file(model, place)
    if path is None:
        if place is None:
            return None
        raise InputError(f"There are no prototypes at {place}. Make them with: seewhy fit-prototypes DATA -o {place}")
    status = path.stat()
    bank = _loaded(path, status.st_mtime_ns, status.st_size, len(model.head.bias))
    if bank.classifier != classifier_digest(model):
        raise InputError(
            f"{path} was made for another classifier than this one, whose logits it would not divide. "
            "Make it again with: seewhy fit-prototypes DATA. Or leave it out: --like nearest."
        )
    if len(bank.rotation.matrix) != model.head.weight.shape[1]:
        raise WeightsError(
            f"{path} is damaged (a matrix {tuple(bank.rotation.matrix.shape)} for {model.head.weight.shape[1]} "
            "channels). Fit them again."
        )
    return bank


@lru_cache(maxsize=2)
def _loaded(path: Path, _changed: int, _size: int, n_classes: int) -> EPICBank:
    return load_bank(path, n_classes)
