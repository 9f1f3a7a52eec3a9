"""The embedded encoders see pictures as large as their networks were trained on."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import timm
import torch

from seewhy.encoders.embedded import SOURCES, fingerprint_of
from seewhy.encoders.find import encoder
from seewhy.types import Transform

HALF = (0.5, 0.5, 0.5)


@pytest.mark.parametrize(("name", "side", "resize"), [("lite0", 224, 256), ("lite1", 240, 272), ("lite2", 260, 292)])
def test_the_size_is_the_networks_own(name: str, side: int, resize: int) -> None:
    if find_spec(SOURCES[name].package) is None:
        pytest.skip("the extra 'lite' is not installed")
    found = encoder(name, engine="torch")
    assert found.transform == Transform((side, side), resize, "bicubic", HALF, HALF)
    assert found.fingerprint == fingerprint_of(name)
    config = timm.get_pretrained_cfg(SOURCES[name].architecture)
    assert config is not None
    assert config.input_size == (3, side, side)
    assert (config.mean, config.std, config.interpolation) == (HALF, HALF, "bicubic")
    assert resize == pytest.approx(side / config.crop_pct, abs=3)


def test_the_default_looks_at_224_pixels() -> None:
    found = encoder(engine="torch")
    assert found.name == "lite0"
    look = found.encode(torch.zeros(1, 3, 224, 224))
    assert (look.features.shape, look.pooled.shape) == ((1, 1280, 7, 7), (1, 1280))
