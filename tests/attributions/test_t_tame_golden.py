"""T-TAME's mechanism, masks and loss beside numbers from the authors' own code."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from seewhy.attributions.explainers import AttentionMechanism, masked
from seewhy.attributions.t_tame_training import FitTTAME

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "t_tame.json").read_text("utf-8"))
SHAPES = ((2, 3, 8, 8), (2, 5, 4, 4), (2, 4, 2, 2))
LABELS = torch.tensor([4, 1])
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def wave(*shape: int, rate: float, start: float = 0.0) -> Tensor:
    return torch.sin(torch.arange(math.prod(shape), dtype=torch.float64) * rate + start).reshape(shape)


@pytest.fixture(scope="module")
def logit_maps() -> Tensor:
    """Ours with the authors' weights, which were set in the order of their parameters and buffers."""
    ours = AttentionMechanism([s[1] for s in SHAPES], 6).double()
    order = [*ours.mixes.parameters(), *ours.norms.parameters(), *ours.last.parameters()]
    assert len(order) == sum("num_" not in n and "running" not in n for n in GOLDEN["names"])
    with torch.no_grad():
        for i, parameter in enumerate(order):
            parameter.copy_(wave(*parameter.shape, rate=0.53, start=0.2 * i))
        for i, buffer in enumerate(ours.norms.buffers()):
            if buffer.is_floating_point():
                buffer.copy_(wave(*buffer.shape, rate=0.71, start=0.3 * i).abs() + 0.5)
    maps = [wave(*s, rate=0.37 + 0.1 * i, start=i) for i, s in enumerate(SHAPES)]
    return ours.eval()(maps, LABELS).detach()


def test_the_mechanism_is_the_authors(logit_maps: Tensor) -> None:
    expected = torch.tensor(GOLDEN["logit_maps"]["values"], dtype=torch.float64)
    assert list(logit_maps.shape) == GOLDEN["logit_maps"]["shape"]
    assert logit_maps.flatten().numpy() == pytest.approx(expected.numpy(), abs=GOLDEN["tolerance"])


def test_the_loss_is_the_authors(logit_maps: Tensor) -> None:
    fit = FitTTAME()
    found = fit.objective(wave(2, 6, rate=1.3), LABELS, logit_maps.sigmoid())
    ours = [found["loss"], fit.ce * found["ce"], fit.area * found["area"], fit.smooth * found["smooth"]]
    assert [float(v) for v in ours] == pytest.approx(GOLDEN["loss"], abs=GOLDEN["tolerance"])


@pytest.mark.parametrize("fill", ["black", "mean"])
def test_masked_pictures_are_the_authors(fill: str, logit_maps: Tensor) -> None:
    """Black: the mask times the picture in 0…1, then normalised (CNN); mean: times the normalised one (ViT)."""
    picture = (wave(2, 3, 224, 224, rate=0.011) + 1) / 2
    mean, std = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (MEAN, STD))
    pixels = (picture - mean) / std if fill == "black" else picture
    own = logit_maps.sigmoid()[torch.arange(2), torch.arange(2)]
    found = masked(pixels, own, fill, MEAN, STD)  # type: ignore[arg-type]
    at = [float(found[tuple(p)]) for p in GOLDEN["masked_points"]]
    assert at == pytest.approx(GOLDEN[fill], abs=1e-5)
    assert float(found.sum()) == pytest.approx(GOLDEN["sums"][fill == "mean"], rel=1e-5)
