"""Prototypes that are fitted for a classifier, and their files."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
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
from ..storage import archive
from ..storage.archive import TensorArchive
from ..storage.features import FeatureStore
from ..storage.output import make_folder
from ..storage.parts import check_finite, rebuilt
from .bank import Patches, check_patches, joined_thumbnails, listed, pictures_of

FOLDER = "prototypes"
ARCHIVE = TensorArchive(
    otherwise="holds no prototypes",
    again="Fit them again.",
    missing="There are no prototypes at {path}. Make them with: seewhy fit --task prototypes DATA",
    format=1,
)


@dataclass(frozen=True, eq=False)
class FittedBank(Patches, ABC):
    """Prototypes that were fitted for a classifier and can be saved.

    Class attributes:
        method: registered name of the method; also the file name without its ending.

    Attributes:
        classifier: digest of the classifier.
        measures: evaluation of the fit, as JSON.
        made_from: digest of the pictures and settings that the prototypes were fitted with.
    """

    method: ClassVar[str]

    classifier: str = field(default="", kw_only=True)
    measures: dict[str, Any] = field(default_factory=dict, kw_only=True)
    made_from: str = field(default="", kw_only=True)

    @abstractmethod
    def own(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the tensors and JSON facts that a subclass saves."""

    def check_loaded(self) -> None:
        """Raise ``ValueError`` if the fields of the subclass are invalid."""

    @abstractmethod
    def lines(self) -> list[str]:
        """Return the results as lines of text."""

    def spoken(self) -> dict[str, Any]:
        """Return the prototypes as readable JSON."""
        return {}

    def check(self, model: Explainable) -> None:
        """Check that the bank fits a classifier."""

    def save(self, folder: str | Path) -> Path:
        """Write ``METHOD.safetensors`` and a readable ``METHOD.json``."""
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
        """Load a bank saved by :meth:`save`, without executing code from the file."""

        def assemble(card: dict[str, Any], tensors: dict[str, Tensor]) -> Any:
            check_finite(tensors)
            if card["method"] != cls.method:
                raise ValueError(f"`method` must be {cls.method}, got {card['method']}")
            wide = {k: t.float() if t.is_floating_point() else t.long() for k, t in tensors.items()}
            pictures = pictures_of(card["pictures"], tensors["thumbnails"])
            about = {name: card[name] for name in ("classifier", "measures", "made_from")}
            bank = rebuilt(cls, wide, sizes={"m": len(pictures)}, pictures=pictures, **about)
            bank.check_loaded()
            check_patches(bank, n_classes)
            return bank

        bank: Self = ARCHIVE.load(Path(path), assemble)
        return bank

    @classmethod
    def of(cls, model: Explainable, place: str | Path | None = None) -> Self | None:
        """Load the bank that was fitted for a classifier, or return ``None``."""
        path = find_file(cls.method, model, place)
        if path is None:
            return None
        status = path.stat()
        bank: Self = _loaded(cls, path, status.st_mtime_ns, status.st_size, len(model.head.bias))
        if bank.classifier != classifier_digest(model):
            raise InputError(
                f"{path} was fitted for another classifier. Fit it again with: seewhy fit --task prototypes DATA. Or "
                "use --like nearest."
            )
        try:
            bank.check(model)
        except ValueError as error:
            raise WeightsError(f"{path} is damaged ({error}). Fit the prototypes again.") from error
        return bank


@lru_cache(maxsize=2)
def _loaded(kind: type[FittedBank], path: Path, _changed: int, _size: int, n_classes: int) -> Any:
    return kind.load(path, n_classes)


class Fitting(ABC):
    """Base class of fitting procedures; their fields are options of ``seewhy fit --task prototypes``."""

    def seal(self, model: Explainable, pictures: Sequence[tuple[str, int | None]]) -> str:
        """Return the digest of classifier, settings, and the pictures' bytes and classes."""
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
        """Fit the prototypes.

        Args:
            model: the classifier.
            pictures: file name and class index of each picture; a picture without a class gets the predicted class.
            store: cache of features.
            checkpoint: file from which an interrupted fit continues, for methods that support it.
            progress: callback for progress, notes and failures.
        """


def file_name(method: str) -> str:
    return f"{method}.safetensors"


def find_file(method: str, model: Explainable, place: str | Path | None = None) -> Path | None:
    from . import prototypes

    root, name = Path(place) if place is not None else getattr(model, "folder", None), file_name(method)
    if root is not None and root.name != name and root.stem in prototypes and root.is_file():
        return None  # the file of another method
    return archive.find_file(root, name, FOLDER)
