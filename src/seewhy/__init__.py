"""SeeWhy: image recognition that explains itself.

Everything named here, and every part of the package (``seewhy.attributions``, ``seewhy.metrics``, …), is loaded
on first use, so that importing the package, and ``seewhy --help``, cost nothing.

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
    from .studies.api import study
    from .studies.auditing.audit import audit
    from .types import Failure, Transform

    __version__: str

_WHERE = {
    "Bars": "progress",
    "BoxData": "pictures.boxes",
    "Classifier": "classifiers.base",
    "Descriptions": "descriptions",
    "Detections": "dense",
    "Encoder": "encoders",
    "Explanation": "explanation.base",
    "Failure": "types",
    "FeatureStore": "storage.features",
    "Progress": "progress",
    "Prediction": "explanation.prediction",
    "Report": "evaluation",
    "Samples": "pictures.samples",
    "SeeWhyError": "errors",
    "Segmentation": "dense",
    "Transform": "types",
    "adapt": "learning.api",
    "audit": "studies.auditing",
    "described": "api",
    "detect": "dense.by_words",
    "encoder": "encoders.find",
    "explain": "api",
    "export": "service.export",
    "fit": "api",
    "fit_detector": "dense.detection.fit",
    "from_module": "api",
    "generate": "generation.generate",
    "list_encoders": "encoders.find",
    "list_methods": "catalogue",
    "load": "classifiers.saving",
    "load_boxes": "pictures.boxes",
    "load_detector": "dense.saving",
    "load_pairs": "pictures.pairs",
    "load_samples": "pictures.samples",
    "pretrain": "learning.api",
    "pretrained": "api",
    "save_boxes": "pictures.boxes",
    "schema": "results",
    "segment": "dense.by_words",
    "study": "studies.api",
    "zero_shot": "api",
}

__all__ = [
    "Bars",
    "BoxData",
    "Classifier",
    "Descriptions",
    "Detections",
    "Encoder",
    "Explanation",
    "Failure",
    "FeatureStore",
    "Prediction",
    "Progress",
    "Report",
    "Samples",
    "SeeWhyError",
    "Segmentation",
    "Transform",
    "adapt",
    "audit",
    "described",
    "detect",
    "encoder",
    "explain",
    "export",
    "fit",
    "fit_detector",
    "from_module",
    "generate",
    "list_encoders",
    "list_methods",
    "load",
    "load_boxes",
    "load_detector",
    "load_pairs",
    "load_samples",
    "pretrain",
    "pretrained",
    "save_boxes",
    "schema",
    "segment",
    "study",
    "zero_shot",
]


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
    return sorted({*__all__, "__version__", *parts})
