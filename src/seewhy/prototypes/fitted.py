"""Prototypes that are fitted for a classifier: what makes them, and how they are kept."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Self

from torch import Tensor

from ..attributions.base import Explainable
from ..attributions.explainers import classifier_digest
from ..encoders.stream import file_digest
from ..errors import InputError, WeightsError
from ..progress import Progress
from ..storage.archive import TensorArchive
from ..storage.features import FeatureStore
from ..storage.output import make_folder
from ..storage.parts import rebuilt
from .bank import Patches, check_finite, check_patches, joined_thumbnails, listed, pictures_of

FOLDER = "prototypes"
ARCHIVE = TensorArchive(
    otherwise="holds no prototypes",
    again="Fit them again.",
    missing="There are no prototypes at {path}. Make them with: seewhy fit --task prototypes DATA",
    format=1,
)


@dataclass(frozen=True, eq=False)
class FittedBank(Patches, ABC):
    """Prototypes that were found in the user's pictures for one classifier, and are kept in a file.

    Class attributes:
        method: registered name of what shows them; the file is called after it.

    Attributes:
        classifier: digest of the classifier it was made for.
        measures: what was found while fitting, as JSON.
        made_from: seal of the pictures and the settings it was fitted with.
    """

    method: ClassVar[str]

    classifier: str = field(default="", kw_only=True)
    measures: dict[str, Any] = field(default_factory=dict, kw_only=True)
    made_from: str = field(default="", kw_only=True)

    @abstractmethod
    def own(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The tensors and facts of the subclass, as they are saved."""

    @classmethod
    def given(cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> dict[str, Any]:
        """The other fields, from the result of :meth:`own`."""
        return {}

    @abstractmethod
    def lines(self) -> list[str]:
        """The results as lines for people; the first one follows the name of the file."""

    def spoken(self) -> dict[str, Any]:
        """The prototypes for people, in the JSON file beside the bank."""
        return {}

    def check(self, model: Explainable) -> None:
        """Refuse a classifier that the bank does not fit."""

    def save(self, folder: str | Path) -> Path:
        """Write ``METHOD.safetensors``, which holds everything, and ``METHOD.json``, for people."""
        path = ARCHIVE.check(make_folder(folder) / file_name(self.method))
        own, facts = self.own()
        kept = {name: getattr(self, name) for name in ("owner", "boxes", "pixel_boxes")}
        tensors = {**own, **kept, "pooled": self.pooled.half(), "thumbnails": joined_thumbnails(self.pictures)}
        about = {"format": ARCHIVE.format, "seewhy": version("seewhy"), "method": self.method, **facts}
        about |= {name: getattr(self, name) for name in ("classifier", "measures", "made_from")}
        card = {**about, "pictures": listed(self.pictures)}
        return ARCHIVE.save(path, {k: v.contiguous() for k, v in tensors.items()}, card, {**about, **self.spoken()})

    @classmethod
    def load(cls, path: str | Path, n_classes: int | None = None) -> Self:
        """Read the result of :meth:`save`. No code in the file is run."""

        def assemble(card: dict[str, Any], tensors: dict[str, Tensor]) -> Any:
            check_finite(tensors)
            if card.get("method", cls.method) != cls.method:
                raise ValueError(f"they are of {card['method']}, not of {cls.method}")
            wide = {k: t.float() if t.is_floating_point() else t.long() for k, t in tensors.items()}
            pictures = pictures_of(card["pictures"], tensors["thumbnails"])
            about = {name: card[name] for name in ("classifier", "measures")}
            given = {"pictures": pictures, **about, "made_from": card.get("made_from", ""), **cls.given(wide, card)}
            bank = rebuilt(cls, wide, sizes={"m": len(pictures)}, **given)
            check_patches(bank, n_classes)
            return bank

        bank: Self = ARCHIVE.load(Path(path), assemble)
        return bank

    @classmethod
    def of(cls, model: Explainable, place: str | Path | None = None) -> Self | None:
        """The bank that was fitted for a classifier; ``None`` if there is none."""
        path = find_file(cls.method, model, place)
        if path is None:
            return None
        status = path.stat()
        bank: Self = _loaded(cls, path, status.st_mtime_ns, status.st_size, len(model.head.bias))
        if bank.classifier != classifier_digest(model):
            raise InputError(
                f"{path} was made for another classifier. Make it again with: seewhy fit --task prototypes DATA. Or "
                "use --like nearest."
            )
        try:
            bank.check(model)
        except ValueError as error:
            raise WeightsError(f"{path} is damaged ({error}). Fit them again.") from error
        return bank


@lru_cache(maxsize=2)
def _loaded(kind: type[FittedBank], path: Path, _changed: int, _size: int, n_classes: int) -> Any:
    return kind.load(path, n_classes)


class Fitting(ABC):
    """Makes the bank of one method: a frozen dataclass whose fields ``seewhy fit --task prototypes`` takes."""

    def seal(self, model: Explainable, pictures: Sequence[tuple[str, int | None]]) -> str:
        """Seal of all that decides the bank: classifier, settings, and the pictures' bytes and classes."""
        seal = hashlib.sha256(f"{classifier_digest(model)}|{self}".encode())
        for name, label in pictures:
            seal.update(f"|{file_digest(name)} {label}".encode())
        return seal.hexdigest()

    @abstractmethod
    def fit(
        self,
        model: Explainable,
        pictures: Sequence[tuple[str, int | None]],
        *,
        store: FeatureStore | None = None,
        checkpoint: Path | None = None,
        progress: Progress | None = None,
    ) -> FittedBank:
        """Find the prototypes; ``classifier`` and ``made_from`` of the bank are set by the caller where they are empty.

        Args:
            model: the classifier.
            pictures: file name and index of the class; without a class, the classifier's own decision counts.
            store: where looks are kept.
            checkpoint: where what is half done is kept, for methods that go on where they were stopped.
            progress: callback for progress, notes and failures.
        """


def file_name(method: str) -> str:
    """The name of the file that holds a method's prototypes."""
    return f"{method}.safetensors"


def find_file(method: str, model: Explainable, place: str | Path | None = None) -> Path | None:
    """The file with a classifier's prototypes; ``None`` if there is none."""
    from . import prototypes

    root, name = Path(place) if place is not None else getattr(model, "folder", None), file_name(method)
    if root is None:
        return None
    if root.name != name and root.stem in prototypes and root.is_file():
        return None  # another method's
    # Whatever bears the name is it, also a pipe or a folder: reading it says what is wrong.
    found = [root / name, root / FOLDER / name] if root.is_dir() else [root]
    return next((path for path in found if path.exists()), None)


def check_bank(folder: Path, file: str) -> Path:
    """Return the folder if a bank and the file beside it can be saved there; called before the work begins."""
    return ARCHIVE.check(folder / file).parent
