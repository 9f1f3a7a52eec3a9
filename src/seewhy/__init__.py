"""SeeWhy: image recognition that explains itself.

All names and subpackages are imported on first use.

>>> import seewhy
>>> why = seewhy.explain("photo.jpg")                        # doctest: +SKIP
>>> why.prediction.label, why.where.deletion                 # doctest: +SKIP
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import described, explain, fit, from_module, pretrained, zero_shot
    from .catalogue import list_methods
    from .classifiers.base import Classifier
    from .classifiers.saving import load
    from .dense.by_words import detect, segment
    from .dense.detection.fit import fit_detector
    from .dense.regions import Detections, Segmentation
    from .dense.saving import load_detector
    from .descriptions import Descriptions
    from .encoders import Encoder
    from .encoders.find import encoder, list_encoders
    from .errors import SeeWhyError
    from .evaluation import Report
    from .explanation.base import Explanation
    from .explanation.prediction import Prediction
    from .generation.generate import generate
    from .learning.api import adapt, pretrain
    from .pictures.boxes import BoxData, load_boxes, save_boxes
    from .pictures.pairs import load_pairs
    from .pictures.samples import Samples, load_samples
    from .progress import Bars, Progress
    from .results import schema
    from .service.export import export
    from .storage.features import FeatureStore
    from .studies.auditing.audit import audit
    from .studies.faithfulness import study
    from .types import Failure, Transform

    __version__: str

_NAMES = {
    "api": ("described", "explain", "fit", "from_module", "pretrained", "zero_shot"),
    "catalogue": ("list_methods",),
    "classifiers.base": ("Classifier",),
    "classifiers.saving": ("load",),
    "dense": ("Detections", "Segmentation"),
    "dense.by_words": ("detect", "segment"),
    "dense.detection.fit": ("fit_detector",),
    "dense.saving": ("load_detector",),
    "descriptions": ("Descriptions",),
    "encoders": ("Encoder",),
    "encoders.find": ("encoder", "list_encoders"),
    "errors": ("SeeWhyError",),
    "evaluation": ("Report",),
    "explanation.base": ("Explanation",),
    "explanation.prediction": ("Prediction",),
    "generation.generate": ("generate",),
    "learning.api": ("adapt", "pretrain"),
    "pictures.boxes": ("BoxData", "load_boxes", "save_boxes"),
    "pictures.pairs": ("load_pairs",),
    "pictures.samples": ("Samples", "load_samples"),
    "progress": ("Bars", "Progress"),
    "results": ("schema",),
    "service.export": ("export",),
    "storage.features": ("FeatureStore",),
    "studies.faithfulness": ("study",),
    "studies.auditing": ("audit",),
    "types": ("Failure", "Transform"),
}
_WHERE = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [*_WHERE]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(f".{_WHERE[name]}", __name__), name)
    if name == "__version__":
        from importlib.metadata import version

        return version("seewhy")
    if not name.startswith("_") and importlib.util.find_spec(f"{__name__}.{name}") is not None:
        return importlib.import_module(f".{name}", __name__)
    from .spelling import nearest

    near = nearest(name, __dir__())
    raise AttributeError(
        f"module 'seewhy' has no attribute {name!r}" + (f". Did you mean {near[0]!r}?" if near else "")
    )


def __dir__() -> list[str]:
    parts = [part.name for part in pkgutil.iter_modules(__path__) if not part.name.startswith("_")]
    return sorted({*_WHERE, "__version__", *parts})
