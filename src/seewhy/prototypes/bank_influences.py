"""Global influences of a bank's prototypes: measured once over many pictures, kept beside the bank, found again."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from ..attributions.base import Explainable
from ..attributions.explainers import classifier_digest
from ..encoders.base import EncoderOutput
from ..encoders.stream import file_digest
from ..errors import ImageError, ModelError
from ..pictures.images import Picture, read_picture
from ..pictures.miniatures import decode_thumbnail
from ..progress import Progress
from ..storage.archive import TensorArchive
from ..storage.output import make_folder
from ..storage.parts import rebuilt, tensors_of
from ..types import Failure
from . import prototypes
from .bank import BankPicture, Patches, check_finite
from .base import Prototypes
from .characteristics import Characteristics, GlobalInfluences, View
from .fitted import FOLDER
from .perturbations import PROPERTIES, Changes, EqualChanges

N_STRONGEST = 3
PREFIX = "because."
ARCHIVE = TensorArchive(
    otherwise="holds no influences",
    again="Make them again with: seewhy fit --task prototypes DATA --because",
    missing="There are no influences at {path}. Make them with: seewhy fit --task prototypes DATA --because",
)


@dataclass(frozen=True, eq=False)
class BankInfluences:
    """How much each property matters to each prototype of a bank, a row each by number and name, over many pictures.

    ``bank`` is the seal of the bank they are of, ``seal`` that of everything that decides them.
    """

    method: str
    numbers: Int[Tensor, " p"]
    names: tuple[str, ...]
    means: GlobalInfluences
    bank: str
    seal: str

    def of(self, number: int) -> dict[str, float] | None:
        """Of one prototype, property → mean part of its similarity that is lost; ``None`` where it has no row."""
        at = (self.numbers == number).nonzero()[:, 0]
        return dict(zip(PROPERTIES, self.means.relative[int(at[0])].tolist(), strict=True)) if len(at) else None

    def summary(self) -> dict[str, Any]:
        """What is said of all prototypes together, for JSON and for the command's table.

        Of the prototypes that some picture is like: a property's ``mean`` influence and the part of them to which it
        matters most (``first``); ``strongest`` are those to which it matters most of all, among the half that
        pictures are most like.
        """
        alive = (self.means.similarity > 0).nonzero()[:, 0]
        lost, similarity = self.means.relative[alive], self.means.similarity[alive]
        common = (similarity >= similarity.median()).nonzero()[:, 0] if len(alive) else alive
        rows = []
        for i, name in enumerate(PROPERTIES):
            order = common[lost[common, i].argsort(descending=True, stable=True)][:N_STRONGEST].tolist()
            first = (lost.argmax(1) == i) & (lost.amax(1) > 0) if len(alive) else alive
            numbers = {"mean": lost[:, i].mean(), "first": first.float().mean()}
            row = {name: round(float(value), 4) if len(alive) else 0.0 for name, value in numbers.items()}
            most = [{"prototype": self.names[int(alive[k])], "lost": round(float(lost[k, i]), 4)} for k in order]
            rows.append({"name": name, **row, "change": round(float(self.means.change[i]), 2), "strongest": most})
        return {
            "method": self.method,
            "strengths": self.means.strengths,
            "n_pictures": self.means.n_pictures,
            "n_prototypes": len(alive),
            "properties": rows,
        }

    def save(self, folder: Path) -> Path:
        """Write ``METHOD.because.safetensors``, which holds everything, and ``METHOD.because.json``, for people."""
        path = ARCHIVE.check(make_folder(folder) / file_of(self.method))
        about = {"seewhy": version("seewhy"), "method": self.method, "bank": self.bank, "seal": self.seal}
        about |= {"properties": list(PROPERTIES), "n_pictures": self.means.n_pictures}
        about |= {"strengths": self.means.strengths}
        tensors = {"numbers": self.numbers, **tensors_of(self.means, PREFIX)}
        rows = {n: [round(v, 4) for v in row] for n, row in zip(self.names, self.means.relative.tolist(), strict=True)}
        kept = {name: tensor.contiguous() for name, tensor in tensors.items()}
        return ARCHIVE.save(path, kept, {**about, "names": self.names}, {**about, "lost": rows})


def file_of(method: str) -> str:
    """The name of the file in which a method's influences are kept."""
    return f"{method}.because.safetensors"


def load_influences(path: Path) -> BankInfluences:
    """Read what :meth:`BankInfluences.save` wrote. It runs no code."""

    def assemble(card: dict[str, Any], tensors: dict[str, Tensor]) -> BankInfluences:
        if tuple(card["properties"]) != PROPERTIES:
            raise ValueError(f"influences of {card['properties']}, not of {list(PROPERTIES)}")
        check_finite(tensors)
        facts = {"n_pictures": int(card["n_pictures"]), "strengths": str(card["strengths"])}
        means = rebuilt(GlobalInfluences, tensors, PREFIX, {"m": len(PROPERTIES)}, **facts)
        if len(names := tuple(card["names"])) != len(means.similarity):
            raise ValueError(f"{len(names)} names for {len(means.similarity)} prototypes")
        about = {name: card[name] for name in ("method", "bank", "seal")}
        return rebuilt(BankInfluences, tensors, sizes={"p": len(names)}, names=names, means=means, **about)

    return ARCHIVE.load(path, assemble)


def folder_of(
    model: Explainable, method: Prototypes | type[Prototypes], place: str | Path | None = None
) -> Path | None:
    """Where a method's influences lie: beside its own file, else in the classifier's folder for prototypes."""
    if (path := method.file_for(model, place)) is not None:
        return path.parent
    folder = getattr(model, "folder", None)
    return None if folder is None else folder / FOLDER


def kept_influences(
    model: Explainable, method: Prototypes, bank: Patches, place: str | Path | None = None
) -> BankInfluences | None:
    """The global influences that were measured for this very bank; ``None`` where there are none."""
    folder = folder_of(model, method, place)
    path = None if folder is None else folder / file_of(method.name)
    if path is None or not path.is_file():
        return None
    status = path.stat()
    found = _loaded(path, status.st_mtime_ns, status.st_size)
    return found if found.bank == bank_seal(model, bank) else None


def influence_files(model: Explainable, place: str | Path | None = None) -> list[Path]:
    """Every file of influences that an explanation of this classifier might show."""
    folders = {f for name in prototypes if (f := folder_of(model, prototypes[name], place)) is not None}
    return sorted(path for folder in folders for path in folder.glob(file_of("*")))


@lru_cache(maxsize=2)
def _loaded(path: Path, _changed: int, _size: int) -> BankInfluences:
    return load_influences(path)


def bank_seal(model: Explainable, bank: Patches) -> str:
    """Of the classifier and the bank's patches; 16 hexadecimal digits."""
    digest = hashlib.sha256(classifier_digest(model).encode())
    for tensor in (bank.owner, bank.boxes, getattr(bank, "channels", bank.owner), getattr(bank, "purity", bank.owner)):
        digest.update(tensor.contiguous().numpy().tobytes())
    digest.update("|".join(p.digest for p in bank.pictures).encode())
    return digest.hexdigest()[:16]


def bank_influences(
    model: Explainable,
    method: Prototypes,
    bank: Patches,
    which: Sequence[int],
    changes: Changes | None = None,
    *,
    pictures: Iterable[View] | None = None,
    progress: Progress | None = None,
) -> GlobalInfluences:
    """How much each property matters to patches of a bank, or to the channels they stand for, over many pictures.

    Cost: 7 forward passes and 0.3 to 0.6 s on one core a picture, whatever the number of patches.
    """
    chosen = torch.tensor(list(which))

    def maps(look: EncoderOutput) -> Tensor:
        return method.activation(model, bank, look, chosen)

    views = [view_of(p) for p in bank.pictures] if pictures is None else pictures
    return Characteristics(changes or EqualChanges()).overall(model.encoder, maps, views, progress=progress)


def measure_bank(
    model: Explainable,
    method: Prototypes,
    bank: Patches,
    names: Sequence[str],
    folder: Path,
    changes: Changes | None = None,
    *,
    progress: Progress | None = None,
) -> tuple[BankInfluences, bool]:
    """The influences of every prototype of a bank, measured and kept; and whether they were kept already."""
    changes, progress = changes or EqualChanges(), progress or Progress()
    first: dict[int, int] = {}
    for patch in range(len(bank.owner)):
        first.setdefault(method.prototype_of(bank, patch), patch)
    sealed = bank_seal(model, bank)
    seal = hashlib.sha256(f"{sealed}|{method.name}|{changes}".encode())
    for name in names:
        seal.update(f"|{file_digest(name)}".encode())
    with contextlib.suppress(ModelError):  # not there, or damaged: made anew
        known = load_influences(folder / file_of(method.name))
        if known.seal == seal.hexdigest():
            return known, True
    views = progress.track(_readable(model, names, changes, progress), "Changing pictures", len(names))
    means = bank_influences(model, method, bank, list(first.values()), changes, pictures=views)
    said = tuple(method.title_of(bank, patch) for patch in first.values())
    found = BankInfluences(method.name, torch.tensor(list(first)), said, means, sealed, seal.hexdigest())
    found.save(folder)
    return found, False


def _readable(model: Explainable, names: Sequence[str], changes: Changes, progress: Progress) -> Iterator[View]:
    """Each picture's view, or its file where it is changed before it is resized."""
    for name in names:
        try:
            view = read_picture(name, model.encoder.transform)
        except ImageError as error:
            if (failure := Failure(name, error.reason)) not in progress.failures:  # fitting may have told of it
                progress.failed(failure)
            continue
        yield view if changes.on_view else Path(name)


def view_of(picture: BankPicture) -> Picture:
    """The view a bank keeps, as a picture."""
    pixels = decode_thumbnail(picture.thumbnail, picture.name)
    height, width = pixels.shape[:2]
    return Picture(picture.name, pixels, (width, height), (0.0, 0.0, float(width), float(height)), picture.digest)
