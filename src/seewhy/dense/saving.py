"""Saved segmenters and detectors in folders of safetensors and JSON, which are loaded without executing code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors.torch import save as save_tensors
from torch import Tensor

from ..arguments import checked
from ..encoders.base import Encoder
from ..encoders.find import encoder_in
from ..errors import ModelError
from ..learning.encoders.image_copy import ImageCopy
from ..registry import Registry
from ..storage.archive import FolderArchive
from ..storage.marks import Facts
from . import detectors, segmenters
from .detection.trained import TrainedDetector
from .finders import Segmenter
from .regions import class_names

FORMAT = 1
OF_ENCODER = "encoder."
"""Prefix of the names of a trained encoder's tensors."""


@dataclass(frozen=True)
class DenseArchive:
    """The file format of saved segmenters and detectors."""

    what: str
    task: str
    verb: str
    methods: Registry[Any] = field(repr=False)

    @property
    def archive(self) -> FolderArchive:
        return FolderArchive(
            f"{self.what}.json",
            Facts(("format", "seewhy", "method", "encoder", "classes")),
            format=FORMAT,
            kind=f"a saved {self.what}",
            make=f"Make one with: seewhy fit --task {self.task} DATA -o {{folder}}",
            again=f"fit the {self.what} again",
        )

    def save(self, made: Any, on: Encoder, tensors: Mapping[str, Tensor], folder: Path, **more: Any) -> Path:
        """Write the JSON card with the encoder ``on``, and the tensors."""
        card = {
            "format": FORMAT, "seewhy": version("seewhy"), "method": made.method, "parameters": made.parameters,
            "encoder": on.describe(), "classes": list(made.classes), "trained_on": made.trained_on, **more,
        }  # fmt: skip
        plain = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
        return self.archive.save(folder, card, save_tensors(plain))

    @contextmanager
    def opened(
        self, folder: Path, encoder: Encoder | str | None, engine: str
    ) -> Iterator[tuple[Any, Encoder, dict[str, Any], dict[str, Tensor]]]:
        """Load method, encoder, card and tensors; damaged files raise an error."""
        archive, other = self.archive, DETECTORS if self is SEGMENTERS else SEGMENTERS
        if (folder / other.archive.card).is_file() and not (folder / archive.card).is_file():
            raise ModelError(
                f"{folder} must contain a saved {self.what}, got a saved {other.what}. To use the {other.what}: seewhy "
                f"{other.verb} PICTURE --model {folder}"
            )
        command = f"seewhy {self.verb} PICTURE -m {folder} --encoder {{}}"
        card, looks = encoder_in(archive, folder, encoder, engine=engine, command=command)
        tensors = archive.checked_tensors(folder, card)
        with archive.reading(folder):
            cls = self.methods[card["method"]]
            given = {k: tuple(v) if isinstance(v, list) else v for k, v in card["parameters"].items()}
            if unknown := sorted(set(given) - {f.name for f in fields(cls)}):
                raise ValueError(f"its method has no parameter {unknown[0]!r}")
            yield cls(**given), looks, card, tensors


SEGMENTERS = DenseArchive("segmenter", "masks", "segment", segmenters)
DETECTORS = DenseArchive("detector", "boxes", "detect", detectors)


def save_segmenter(segmenter: Segmenter, folder: Path) -> Path:
    on, image, tensors = segmenter.base, segmenter.image, segmenter.scorer.tensors()
    if image is not None and on.base is not None:
        on = on.base
        tensors |= {f"{OF_ENCODER}{name}": t for name, t in image.delta(on).items()}
    return SEGMENTERS.save(segmenter, on, tensors, folder)


@checked
def load_segmenter(folder: str | Path, *, encoder: Encoder | str | None = None, engine: str = "auto") -> Segmenter:
    """Load a saved segmenter."""
    with SEGMENTERS.opened(Path(folder), encoder, engine) as (how, on, card, tensors):
        own = {n.removeprefix(OF_ENCODER): t for n, t in tensors.items() if n.startswith(OF_ENCODER)}
        image = ImageCopy.restored(on, {}, own) if own else None
        rest = {name: t for name, t in tensors.items() if not name.startswith(OF_ENCODER)}
        looks = on if image is None else image.with_text(on)
        segmenter: Segmenter = how.restore(looks, class_names(card["classes"]), rest)
        segmenter.check()
        return replace(segmenter, trained_on=str(card["trained_on"]), image=image)


@checked
def save_detector(detector: TrainedDetector, folder: str | Path) -> Path:
    """Save a detector with its thresholds."""
    more = {
        "thresholds": list(detector.thresholds), "overlap": detector.overlap, "most": detector.most,
        "calibration": detector.calibration, "pictures": list(detector.pictures),
    }  # fmt: skip
    return DETECTORS.save(detector, detector.base, detector.finder.tensors(), Path(folder), **more)


@checked
def load_detector(folder: str | Path, *, encoder: Encoder | str | None = None, engine: str = "auto") -> TrainedDetector:
    """Load a saved detector.

    Args:
        folder: a folder that ``seewhy fit --task boxes`` or :func:`save_detector` wrote.
        encoder: the encoder of the detector; default: the embedded encoder.
        engine: engine that runs the encoder, unless ``encoder`` is an encoder object: ``"auto"``, ``"torch"``,
            ``"onnxruntime"`` or ``"openvino"``.
    """
    with DETECTORS.opened(Path(folder), encoder, engine) as (how, looks, card, tensors):
        classes = class_names(card["classes"], boxes=True)
        detector = TrainedDetector(
            card["method"], card["parameters"], looks, classes, how.restore(looks, classes, tensors),
            tuple(map(float, card["thresholds"])), how.zoom, float(card["overlap"]), int(card["most"]),
            dict(card["calibration"]), str(card["trained_on"]), tuple(map(str, card["pictures"])),
        )  # fmt: skip
        detector.check()
        return detector


def is_segmenter(folder: str | Path) -> bool:
    return (Path(folder) / SEGMENTERS.archive.card).is_file()


def is_detector(folder: str | Path) -> bool:
    return (Path(folder) / DETECTORS.archive.card).is_file()
