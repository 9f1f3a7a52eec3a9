"""The views a picture is predicted from, by name."""

from __future__ import annotations

from ..errors import UnknownNameError
from ..features import Views
from .jitter import ten_crops

CROPS = ("center", "ten")


def predict_views(name: str) -> Views | None:
    """``"center"`` is the model's own crop (``None``); ``"ten"`` the corners and the centre, and their mirror images.

    Raises:
        UnknownNameError: another name.
    """
    if name not in CROPS:
        raise UnknownNameError("set of crops", name, CROPS)
    crops = ten_crops()
    return None if name == "center" else lambda _index: crops
