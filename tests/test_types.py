"""The words every room uses: a transform that no network was trained with is refused where it is made."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from seewhy.errors import InputError
from seewhy.types import Transform

GOOD = Transform((224, 200), 256, "bicubic", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
MEAN = "`mean` of a transform must be three numbers from 0 to 1, for R, G and B, got"
STD = "`std` of a transform must be three numbers greater than 0 and at most 1, for R, G and B, got"
UNITS = "Divide numbers from 0 to 255 by 255."


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"mean": (124, 116, 104)},
            f"{MEAN} (124, 116, 104). {UNITS}",
        ),
        (
            {"mean": (0.5, 0.5)},
            f"{MEAN} (0.5, 0.5). {UNITS}",
        ),
        (
            {"std": (0.2, 0.0, 0.2)},
            f"{STD} (0.2, 0.0, 0.2). {UNITS}",
        ),
        (
            {"std": "abc"},
            f"{STD} 'abc'. {UNITS}",
        ),
        (
            {"std": (0.2, float("nan"), 0.2)},
            f"{STD} (0.2, nan, 0.2). {UNITS}",
        ),
        (
            {"input_size": (224,)},
            ("`input_size` of a transform must be (height, width) in pixels, for example (224, 224), got (224,)."),
        ),
        (
            {"resize": "256"},
            (
                "`resize` of a transform must be the short side in pixels, for example 256, or (height, width), got "
                "'256'."
            ),
        ),
        (
            {"interpolation": "nearest"},
            "`interpolation` of a transform must be one of bicubic, bilinear, lanczos, got 'nearest'.",
        ),
    ],
)
def test_a_transform_that_cannot_be_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        replace(GOOD, **change)
    assert str(caught.value) == message
    with pytest.raises(InputError):
        Transform.from_json(GOOD.to_json() | change)


@pytest.mark.parametrize("resize", [0, -1, True, 2.5, (8, 0), (8, 8, 8), None])
def test_sizes_that_cannot_be_are_refused(resize: Any) -> None:
    with pytest.raises(
        InputError,
        match=(
            r"`resize` of a transform must be the short side in pixels, for example 256, or " r"\(height, width\), got"
        ),
    ):
        replace(GOOD, resize=resize)


@pytest.mark.parametrize("resize", [256, (256, 300), np.int64(8)])
def test_a_transform_comes_back_from_json(resize: Any) -> None:
    transform = replace(GOOD, resize=resize, mean=(0, 0, 0), std=(1, 1, 1 / 255))
    said = json.loads(json.dumps(transform.to_json(), default=int))
    assert Transform.from_json(said) == transform
