"""Saved segmenters and detectors: folders of safetensors and JSON. Loading one runs no code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from safetensors.torch import save as save_tensors
from torch import Tensor

from ..arguments import checked
from ..encoders.base import Encoder
from ..encoders.provenance import saved_encoder
from ..errors import ModelError, SeeWhyError
from ..registry import Registry
from ..storage.archive import DAMAGE, FolderArchive
from ..storage.marks import Facts
from . import detectors, segmenters
from .detection.trained import TrainedDetector
from .finders import Segmenter
from .regions import class_names

FORMAT = 1
T = TypeVar("T")


TASKS = {"segmenter": "masks", "detector": "boxes"}
"""What is saved → what ``seewhy fit`` learns it from."""


@dataclass(frozen=True)
class DenseArchive:
    """How one kind is saved: a card of its method, encoder and classes, beside its tensors."""

    what: str
    use: str
    methods: Registry[Any] = field(repr=False)

    @property
    def archive(self) -> FolderArchive:
        """Where its card lies, and what is said of a wrong one."""
        return FolderArchive(
            f"{self.what}.json",
            Facts(("format", "seewhy", "method", "encoder", "classes")),
            formats=(FORMAT,),
            kind=f"a saved {self.what}",
            make=f"Make one with: seewhy fit --task {TASKS[self.what]} DATA -o {{folder}}",
            again=f"fit the {self.what} again",
        )

    def save(self, made: Any, tensors: Mapping[str, Tensor], folder: Path, **more: Any) -> Path:
        """Write the card, and beside it the tensors under a name made of their SHA-256."""
        card = {
            "format": FORMAT,
            "seewhy": version("seewhy"),
            "method": made.method,
            "parameters": made.parameters,
            "encoder": made.base.describe(),
            "classes": list(made.classes),
            "trained_on": made.trained_on,
            **more,
        }
        plain = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
        return self.archive.save(folder, card, save_tensors(plain))

    def load(
        self,
        folder: Path,
        encoder: Encoder | str | None,
        engine: str,
        assemble: Callable[[Any, Encoder, dict[str, Any], dict[str, Tensor]], T],
    ) -> T:
        """What ``assemble`` makes of method, encoder, card and tensors; what it cannot use is damage."""
        archive = self.archive
        card = archive.load_card(folder)
        tensors = archive.checked_tensors(folder, card)
        try:
            found = saved_encoder(
                card["encoder"], encoder, engine=engine, place=str(folder), again=archive.again,
                command=self.use.format(folder=folder),
            )  # fmt: skip
            return assemble(self._method(card), found, card, tensors)
        except ModelError:
            raise
        except (SeeWhyError, *DAMAGE) as error:
            raise archive.damaged(folder, error) from error

    def _method(self, card: dict[str, Any]) -> Any:
        """What made it, with the parameters it had."""
        cls = self.methods[card["method"]]
        given = {k: tuple(v) if isinstance(v, list) else v for k, v in card["parameters"].items()}
        unknown = set(given) - {f.name for f in fields(cls)}
        if unknown:
            raise ValueError(f"its method has no parameter {sorted(unknown)[0]!r}")
        return cls(**given)


SEGMENTERS = DenseArchive("segmenter", "seewhy segment PICTURE -m {folder} --encoder {{}}", segmenters)
DETECTORS = DenseArchive("detector", "seewhy detect PICTURE -m {folder} --encoder {{}}", detectors)


def save_segmenter(segmenter: Segmenter, folder: Path) -> Path:
    """Write a segmenter."""
    return SEGMENTERS.save(segmenter, segmenter.scorer.tensors(), folder)


@checked
def load_segmenter(folder: str | Path, *, encoder: Encoder | str | None = None, engine: str = "auto") -> Segmenter:
    """Bring a segmenter back."""

    def assemble(how: Any, found: Encoder, card: dict[str, Any], tensors: dict[str, Tensor]) -> Segmenter:
        made: Segmenter = how.restore(found, class_names(card["classes"]), tensors)
        made.check()
        return made.with_trained_on(str(card["trained_on"]))

    return SEGMENTERS.load(Path(folder), encoder, engine, assemble)


@checked
def save_detector(detector: TrainedDetector, folder: str | Path) -> Path:
    """Write a detector with its thresholds."""
    more = {
        "thresholds": list(detector.thresholds), "overlap": detector.overlap, "most": detector.most,
        "calibration": detector.calibration, "pictures": list(detector.pictures),
    }  # fmt: skip
    return DETECTORS.save(detector, detector.finder.tensors(), Path(folder), **more)


@checked
def load_detector(folder: str | Path, *, encoder: Encoder | str | None = None, engine: str = "auto") -> TrainedDetector:
    """Bring a detector back.

    Args:
        folder: what ``seewhy fit --task boxes`` or :func:`save_detector` wrote.
        encoder: what it looks with; needed where that is not embedded.
        engine: what runs the trunk, where it is loaded here.

    Raises:
        ModelError: it is none, or damaged, or of another encoder.
        WeightsError: its tensors are damaged.
    """

    def assemble(how: Any, found: Encoder, card: dict[str, Any], tensors: dict[str, Tensor]) -> TrainedDetector:
        classes = class_names(card["classes"], boxes=True)
        made = TrainedDetector(
            card["method"], card["parameters"], found, classes, how.restore(found, classes, tensors),
            tuple(map(float, card["thresholds"])), how.zoom, float(card["overlap"]), int(card["most"]),
            dict(card["calibration"]), str(card["trained_on"]), tuple(map(str, card.get("pictures", ()))),
        )  # fmt: skip
        made.check()
        return made

    return DETECTORS.load(Path(folder), encoder, engine, assemble)


def is_segmenter(folder: str | Path) -> bool:
    """Whether a folder is a saved segmenter."""
    return (Path(folder) / SEGMENTERS.archive.card).is_file()


def is_detector(folder: str | Path) -> bool:
    """Whether a folder is a saved detector."""
    return (Path(folder) / DETECTORS.archive.card).is_file()
