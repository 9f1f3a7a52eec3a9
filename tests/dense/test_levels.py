"""Finer maps from the same pass: which they are, that they travel with the last, and that a segmenter reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from coloured import NAMES, masked
from seewhy.dense.cells import unpacked, with_levels
from seewhy.dense.denseclip import DenseCLIP
from seewhy.dense.evaluation import PROBE, evaluate_segmenter
from seewhy.dense.mask_training import FromMaps
from seewhy.dense.saving import load_segmenter, save_segmenter
from seewhy.encoders.base import Encoder, GlobalAverage, Layout
from seewhy.encoders.split import example_pixels
from seewhy.pictures.pixel_classes import load_masks
from seewhy.training.batches import Batch
from tiny import HashedWords, build


def stages() -> Encoder:
    """Maps of 16, 10, 8 and 4 cells; that of 10 is no whole number of times as fine as the last."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        trunk = nn.Sequential(
            nn.Conv2d(3, 5, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(10), nn.AdaptiveAvgPool2d(8),
            nn.Conv2d(5, 6, 1), nn.Conv2d(6, 8, 3, 2, 1),
        )  # fmt: skip
        return build(trunk, GlobalAverage(), Layout())


class Blind(nn.Module):
    """A last map of nothing; the one before it knows colours."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = nn.AvgPool2d(4), nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        return 0 * self.coarse(self.fine(x)) + torch.linspace(-1, 1, 3)[:, None, None]


def blind() -> Encoder:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build(Blind(), GlobalAverage(), Layout(), 3, text=HashedWords(3))


def test_levels_are_the_last_maps_of_their_size() -> None:
    encoder, x = stages(), example_pixels((32, 32), batch=2)
    deep = with_levels(encoder, 3)
    features = deep.forward_features(x)
    assert deep.layout.finer == ((6, 2), (5, 4))
    assert features.shape == (2, 8 + 6 * 4 + 5 * 16, 4, 4)
    maps = unpacked(deep.layout, features)
    trunk = encoder.trunk
    torch.testing.assert_close(maps[0], trunk(x))
    torch.testing.assert_close(maps[1], trunk[:5](x))  # type: ignore[index]
    torch.testing.assert_close(maps[2], trunk[:2](x))  # type: ignore[index]
    assert torch.equal(deep.layout.to_grid(features), maps[0])
    two = with_levels(encoder, 2)
    torch.testing.assert_close(two.forward_features(x), features[:, : 8 + 24])
    assert len({encoder.fingerprint, two.fingerprint, deep.fingerprint}) == 3
    assert with_levels(encoder, 1) is encoder
    assert deep.text is encoder.text
    assert not any(module._forward_hooks for module in trunk.modules())


def test_what_only_a_finer_map_knows_is_learnt_kept_and_measured(tmp_path: Path) -> None:
    data = load_masks(masked(tmp_path / "data", noise=20))
    how = DenseCLIP(n_steps=60, batch_size=4, width=16, lr=5e-3, levels=2, prompting="none")
    made = how.fit(blind(), data)
    right = [float((made.segment(i.image).mask == data.truth(i, (64, 48))[0]).mean()) for i in data.items]
    assert min(right) > 0.8
    again = load_segmenter(save_segmenter(made, tmp_path / "seg"), encoder=blind())
    found = again.segment(data.items[0].image)
    assert np.array_equal(found.scores, made.segment(data.items[0].image).scores)
    assert found.scores.shape[1:] == (16, 16)
    report = evaluate_segmenter(made, data, train=data)
    rows = {row["name"]: row["miou"] for row in report.data["rows"]}
    assert report.data["miou"] > 0.7 > 0.5 > rows[PROBE]  # the probe sees the last map alone
    assert made.classes == NAMES


def test_a_mirrored_step_mirrors_every_level(monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout(finer=((2, 2),))
    seen: list[list[Tensor]] = []

    class Recorder(nn.Module):
        names = None

        def forward(self, maps: list[Tensor], joint: Tensor, whole: Tensor) -> tuple[Tensor, Tensor]:
            seen.append([*maps, joint])
            return joint, joint

    task = FromMaps(Recorder(), 0.07, 0.4, layout).train()  # type: ignore[arg-type]
    x, joint = torch.rand(1, 11, 4, 4), torch.rand(1, 3, 4, 4)
    batch = Batch(
        [0], {"maps": x, "joint": joint, "whole": joint.mean((2, 3)), "labels": torch.arange(16).view(1, 4, 4)}
    )
    monkeypatch.setattr(torch, "rand", lambda *_: torch.tensor(0.7))
    plain = task.features(batch)
    monkeypatch.setattr(torch, "rand", lambda *_: torch.tensor(0.2))
    mirrored = task.features(batch)
    for one, other in zip(*seen, strict=True):
        assert torch.equal(other, one.flip(3))
    assert torch.equal(mirrored[2], plain[2].flip(2))
    task.eval()
    assert torch.equal(task.features(batch)[2], plain[2])
