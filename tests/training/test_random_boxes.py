"""A detector's heads that learn from pictures with texts: what a box is read as, what is compared, what is saved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from seewhy.encoders.base import Layout
from seewhy.encoders.find import encoder
from seewhy.encoders.region_heads import HeadSizes, RegionHeads
from seewhy.learning.adapt import Adapt
from seewhy.learning.contrast import BoxContrast, levels_of, random_boxes
from seewhy.learning.encoders.adapted import load
from seewhy.learning.objectives.pairs import DITO
from seewhy.pictures.samples import Sample
from seewhy.seeded import seeded
from seewhy.training.batches import Batch


def heads(channels: int = 8) -> RegionHeads:
    with seeded(1):
        return RegionHeads(HeadSizes(channels, 6, width=8, side=2, hidden=10)).eval()


def test_random_boxes_fit_the_picture() -> None:
    with seeded(0):
        boxes = random_boxes(2000, 0.3)
    sides = boxes[:, 2:] - boxes[:, :2]
    assert boxes.min() >= 0
    assert boxes.max() <= 1
    assert sides.min() >= 0.3 - 1e-6
    assert float(sides.mean()) == pytest.approx(0.65, abs=0.02)
    assert float((boxes[:, 0] + boxes[:, 2]).mean()) == pytest.approx(1.0, abs=0.02)


def test_levels_are_three_scales_and_a_box_is_read_off_the_one_that_fits() -> None:
    net, grid = heads(), torch.randn(2, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    levels = net.levels(grid)
    assert [tuple(level.shape) for level in levels] == [(2, 8, 16, 16), (2, 8, 8, 8), (2, 8, 4, 4)]
    boxes = torch.tensor([[0.1, 0.1, 0.2, 0.2], [0.2, 0.3, 0.5, 0.6], [0.0, 0.0, 0.9, 0.9]])
    owner = torch.tensor([1, 0, 1])
    found = net.read(levels, boxes, owner)
    for i, level in enumerate(levels):
        torch.testing.assert_close(found[i], net.on_level(level, boxes[i : i + 1], owner[i : i + 1])[0])
    assert not torch.allclose(net.on_level(levels[1], boxes[1:2], torch.tensor([1])), found[1:2])


def test_what_is_outside_a_box_does_not_reach_it() -> None:
    net = heads()
    level = torch.zeros(1, 8, 8, 8)
    level[:, :, 4:, 4:] = 5.0
    box = torch.tensor([[0.0, 0.0, 0.4, 0.4]])
    same, other = net.on_level(level, box, torch.tensor([0])), net.on_level(0 * level, box, torch.tensor([0]))
    torch.testing.assert_close(same, other)
    inside = net.on_level(level, torch.tensor([[0.6, 0.6, 1.0, 1.0]]), torch.tensor([0]))
    assert not torch.allclose(inside, other)


def test_a_picture_is_the_largest_of_its_boxes_on_each_level() -> None:
    net, grid, how = heads(), torch.randn(3, 8, 6, 6, generator=torch.Generator().manual_seed(2)), DITO(n_boxes=4)
    with seeded(5):
        found = levels_of(net, grid, how)
    with seeded(5):
        boxes = random_boxes(12, how.smallest)
    assert found.shape == (3, 3, 6)
    for i, level in enumerate(net.levels(grid)):
        own = net.embed(net.on_level(level, boxes[4:8], torch.ones(4, dtype=torch.long)))
        torch.testing.assert_close(found[1, i], own.amax(0))


def test_the_loss_is_the_whole_and_the_mean_of_levels() -> None:
    torch.manual_seed(0)
    pool = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, 6))
    still = torch.nn.Identity()
    task = BoxContrast(still, pool, heads(), still, DITO(level_weight=0.5), layout=Layout())
    batch = Batch([0, 1, 2], {"pixels": torch.randn(3, 8, 6, 6), "text": torch.randn(3, 6)})
    with torch.no_grad():
        image, text = task.features(batch)
        terms = task.loss((image, text), batch)
        each = [float(DITO()(image[:, i], text)) for i in range(4)]
    assert float(terms["whole"]) == pytest.approx(each[0], rel=1e-5)
    assert float(terms["levels"]) == pytest.approx(sum(each[1:]) / 3, rel=1e-5)
    assert float(terms["loss"]) == pytest.approx(each[0] + 0.5 * sum(each[1:]) / 3, rel=1e-5)


def test_the_temperature_learns_is_told_and_is_held_and_norms_may_stay() -> None:
    torch.manual_seed(0)
    norm = torch.nn.BatchNorm2d(8)
    pool = torch.nn.Sequential(norm, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, 6))
    still = torch.nn.Identity()
    batch = Batch([0, 1, 2], {"pixels": torch.randn(3, 8, 6, 6), "text": torch.randn(3, 6)})
    for hold in (True, False):
        task = BoxContrast(still, pool, heads(), still, DITO(max_scale=50.0), layout=Layout(), hold=hold).train()
        terms = task.loss(task.features(batch), batch)
        assert norm.training is not hold
        terms["loss"].backward()
        (theta,) = task.state.parameters()
        assert theta.grad is not None
        assert float(theta.grad.abs()) > 1e-4
        assert not terms["whole"].requires_grad
        (told,) = (value for name, value in terms.items() if name not in {"loss", "whole", "levels"})
        assert float(told) == pytest.approx(theta.item())
        with torch.no_grad():
            theta.fill_(9.0)
        task.after_step()
        assert theta.exp().item() == pytest.approx(50.0, rel=1e-4)


@pytest.mark.slow
def test_the_heads_are_trained_saved_and_found_again(tmp_path: Path) -> None:
    rng, items = np.random.default_rng(0), []
    for i in range(6):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(tmp_path / f"{i}.png")
        items.append(Sample(str(tmp_path / f"{i}.png"), texts=(f"picture {'abcdef'[i]}",)))
    on = encoder("new:resnet/32", engine="torch")
    done = Adapt("dito", train="towers", keep=1.0, epochs=1, batch_size=4, held_out=0.3).fit(on, items)
    assert on.region_heads is None
    grown = done.encoder
    assert grown.region_heads is not None
    with seeded(0):
        before = RegionHeads(grown.region_heads.sizes)
    moved = [not torch.equal(a, b) for a, b in zip(before.parameters(), grown.region_heads.parameters(), strict=True)]
    assert all(moved)
    done.save(tmp_path / "enc")
    again = load(str(tmp_path / "enc"), engine="torch", base=on)
    assert again.region_heads is not None
    for a, b in zip(again.region_heads.parameters(), grown.region_heads.parameters(), strict=True):
        assert torch.equal(a, b)


def test_sizes_that_a_file_says_are_checked() -> None:
    for wrong in ({"width": 12}, {"side": 0}, {"hidden": 10**9}, {"n_convolutions": 9}):
        with pytest.raises(ValueError, match="its heads are"):
            RegionHeads.restored({"channels": 8, "out": 4, **wrong})
