"""SeeWhy: image recognition that explains itself.

Everything named here is loaded on first use, so that importing the package, and ``seewhy --help``, cost nothing.

>>> import seewhy
>>> classifier = seewhy.pretrained()                         # doctest: +SKIP
>>> why = classifier.explain("photo.jpg")                    # doctest: +SKIP
>>> why.prediction.label, why.where.deletion                 # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import described, fit, from_module, pretrained, zero_shot
    from .classifiers.base import Classifier
    from .classifiers.saving import load
    from .data import Samples, load_samples
    from .descriptions import Descriptions
    from .encoders import Encoder
    from .encoders.find import encoder
    from .errors import SeeWhyError
    from .evaluation import Report
    from .explanation import Explanation
    from .store import FeatureStore
    from .types import Failure, Prediction, Transform

_WHERE = {
    "Classifier": "classifiers.base",
    "Descriptions": "descriptions",
    "Encoder": "encoders",
    "Explanation": "explanation",
    "Failure": "types",
    "FeatureStore": "store",
    "Prediction": "types",
    "Report": "evaluation",
    "Samples": "data",
    "SeeWhyError": "errors",
    "Transform": "types",
    "described": "api",
    "encoder": "encoders.find",
    "fit": "api",
    "from_module": "api",
    "load": "classifiers.saving",
    "load_samples": "data",
    "pretrained": "api",
    "zero_shot": "api",
}

__all__ = [
    "Classifier",
    "Descriptions",
    "Encoder",
    "Explanation",
    "Failure",
    "FeatureStore",
    "Prediction",
    "Report",
    "Samples",
    "SeeWhyError",
    "Transform",
    "described",
    "encoder",
    "fit",
    "from_module",
    "load",
    "load_samples",
    "pretrained",
    "zero_shot",
]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(f".{_WHERE[name]}", __name__), name)
    raise AttributeError(f"module 'seewhy' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
