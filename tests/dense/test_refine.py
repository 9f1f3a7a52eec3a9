"""Prompt denoising and key smoothing: against the released code, and by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from seewhy.dense.maskclip import denoise, smooth
from seewhy.dense.reader import ABSENT

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "maskclip.json").read_text("utf-8"))


def wave(*shape: int, k: float, i: float = 0.0) -> Tensor:
    return torch.sin(torch.arange(math.prod(shape), dtype=torch.float64) * k + i).reshape(shape).float()


@pytest.mark.parametrize("run", GOLDEN["refined"], ids=lambda r: f"{r['pd']}-{r['ks']}")
def test_over_positions_it_is_the_released_code(run: dict[str, Any]) -> None:
    scores = 0.02 * wave(2, 3, 2, 4, k=1.3)
    keys = wave(2, 8, 5, k=0.9, i=2).transpose(1, 2).reshape(2, 5, 2, 4)
    found = smooth(denoise(scores, run["pd"]), keys, run["ks"], "positions")
    expected = torch.tensor(run["out"]).reshape(2, 3, 2, 4)
    assert not torch.equal(expected, scores)
    torch.testing.assert_close(found, expected, atol=GOLDEN["tolerance"], rtol=0)
    if run["ks"]:
        assert not torch.allclose(smooth(denoise(scores, run["pd"]), keys, run["ks"], "channels"), expected, atol=1e-2)


def test_over_channels_it_is_the_papers_cosine() -> None:
    scores = torch.tensor([[[[0.01, 0.05, -0.01]], [[0.0, 0.0, 0.04]]]])
    keys = torch.tensor([[[[3.0, 1.0, 0.0]], [[0.0, 1.0, 2.0]]]])
    p = (100 * scores).softmax(1)[0, :, 0]
    found = smooth(scores, keys, 0.9)[0, :, 0]
    assert float(p[0, 0]) < 0.9 < float(p[0, 1])
    torch.testing.assert_close(found[:, 0], p[:, 0] + p[:, 1] / math.sqrt(2))  # cosines 1, 1/√2, 0
    assert torch.equal(found[:, 1:], p[:, 1:])  # the sure ones stay
    torch.testing.assert_close(smooth(10 * scores, keys, 0.9, scale=10), smooth(scores, keys, 0.9))


def test_a_class_that_no_cell_is_sure_of_is_absent() -> None:
    scores = torch.tensor([[[[0.03, 0.0]], [[0.0, 0.02]], [[0.0, 0.01]]]])
    found = denoise(scores, 0.5)
    assert (found[0, 2] == ABSENT).all()
    assert torch.equal(found[0, :2], scores[0, :2])
    assert denoise(scores, 0.0) is scores
    assert (denoise(scores, 0.5, scale=1.0) == ABSENT).all()
