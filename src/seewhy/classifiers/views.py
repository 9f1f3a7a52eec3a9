"""The views a picture is predicted from, by name."""

from __future__ import annotations

from ..encoders.stream import Views
from ..errors import UnknownNameError
from .linear.jitter import paper_twelve

CROPS = ("center", "twelve")


def predict_views(name: str) -> Views | None:
    """``"center"`` is the model's own crop (``None``); ``"twelve"`` the paper's twelve versions."""
    if name not in CROPS:
        raise UnknownNameError("set of crops", name, CROPS)
    crops = paper_twelve()
    return None if name == "center" else lambda _index: crops
