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
UNITS = "one for each of R, G and B. Divide numbers from 0 to 255 by 255."


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"mean": (124, 116, 104)},
            f"The transform's mean is (124, 116, 104). Expected three numbers from 0 to 1, {UNITS}",
        ),
        ({"mean": (0.5, 0.5)}, f"The transform's mean is (0.5, 0.5). Expected three numbers from 0 to 1, {UNITS}"),
        (
            {"std": (0.2, 0.0, 0.2)},
            f"The transform's std is (0.2, 0.0, 0.2). Expected three numbers above 0 and at most 1, {UNITS}",
        ),
        ({"std": "abc"}, f"The transform's std is 'abc'. Expected three numbers above 0 and at most 1, {UNITS}"),
        (
            {"std": (0.2, float("nan"), 0.2)},
            f"The transform's std is (0.2, nan, 0.2). Expected three numbers above 0 and at most 1, {UNITS}",
        ),
        (
            {"input_size": (224,)},
            "The transform's input_size is (224,). Expected two whole numbers of pixels above 0. Write (height, "
            "width), for example (224, 224).",
        ),
        (
            {"resize": "256"},
            "The transform's resize is '256'. Expected one or two whole numbers of pixels above 0. Write the short "
            "side, for example 256, or (height, width).",
        ),
        (
            {"interpolation": "nearest"},
            "The transform's interpolation is 'nearest'. Expected bicubic, bilinear, lanczos. Choose one.",
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
    with pytest.raises(InputError, match="The transform's resize is"):
        replace(GOOD, resize=resize)


@pytest.mark.parametrize("resize", [256, (256, 300), np.int64(8)])
def test_a_transform_comes_back_from_json(resize: Any) -> None:
    transform = replace(GOOD, resize=resize, mean=(0, 0, 0), std=(1, 1, 1 / 255))
    said = json.loads(json.dumps(transform.to_json(), default=int))
    assert Transform.from_json(said) == transform
