"""Both stages of a detector by words: what cells are to propose, what is learnt from, and that it learns."""

from __future__ import annotations

import pytest
import torch

from seewhy.dense.two_stage import TwoStage, TwoStageLearning, _iou, _taught, box_coder, centres, targets
from seewhy.encoders.region_heads import HeadSizes, RegionHeads
from seewhy.seeded import seeded
from seewhy.training.batches import Batch, TrainingData
from seewhy.training.loop import Training, train


def network(k: int = 3) -> TwoStage:
    with seeded(0):
        return TwoStage(RegionHeads(HeadSizes(4, 5, width=8, side=2, hidden=16)), torch.eye(5)[:k], 0.1)


def test_cells_of_the_level_that_fits_propose_a_box_by_its_middle() -> None:
    sizes = [(8, 8), (4, 4), (2, 2)]
    small, large = [0.0, 0.0, 0.2, 0.2], [0.25, 0.25, 1.0, 1.0]
    cells, boxes, wanted, others = targets(sizes, torch.tensor([small, large]))
    middle = torch.cat([centres(*size) for size in sizes])
    level = torch.cat([torch.full((h * w,), i) for i, (h, w) in enumerate(sizes)])
    for own, box, centred in zip(cells, boxes, wanted, strict=True):
        fits = 0 if box.tolist() == pytest.approx(small) else 2
        assert int(level[own]) == fits
        x, y = middle[own].tolist()
        ratios = [min(a, b) / max(a, b) for a, b in ((x - box[0], box[2] - x), (y - box[1], box[3] - y))]
        assert float(centred) == pytest.approx(float((ratios[0] * ratios[1]) ** 0.5), abs=1e-5)
    assert {tuple(box) for box in boxes.tolist()} == {tuple(b) for b in torch.tensor([small, large]).tolist()}
    assert sorted([*cells.tolist(), *others.tolist()]) == list(range(84)), "all others propose nothing"
    none, _, _, every = targets(sizes, torch.zeros(0, 4))
    assert (len(none), len(every)) == (0, 84)


def test_what_is_learnt_from() -> None:
    there, named = torch.tensor([[0.0, 0.0, 0.4, 0.4], [0.5, 0.5, 1.0, 1.0]]), torch.tensor([2, 0])
    proposed = torch.tensor([[0.02, 0.0, 0.4, 0.4], [0.0, 0.5, 0.4, 1.0], [0.5, 0.5, 1.0, 0.8]])
    with seeded(0):
        boxes, labels, wanted = _taught(proposed, there, named)
    rows = {tuple(round(v, 2) for v in box): int(label) for box, label in zip(boxes.tolist(), labels, strict=True)}
    assert rows == {
        (0.0, 0.0, 0.4, 0.4): 3,
        (0.5, 0.5, 1.0, 1.0): 1,
        (0.02, 0.0, 0.4, 0.4): 3,
        (0.0, 0.5, 0.4, 1.0): 0,
        (0.5, 0.5, 1.0, 0.8): 1,
    }
    real = labels > 0
    back = box_coder().decode_single(wanted[real], boxes[real])
    assert _iou(back, there[(labels[real] == 1).long()]).min() > 0.999
    assert wanted[~real].abs().sum() == 0


def test_proposals_are_in_the_picture_surest_first_and_filled_up() -> None:
    net = network()
    levels = net.heads.levels(torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0)))
    boxes, objectness = net.proposed(levels, 100)
    assert boxes.shape == (2, 100, 4)
    assert (boxes >= 0).all()
    assert (boxes <= 1).all()
    assert (objectness.diff(dim=1) <= 0).all()
    assert objectness[0, -1] == 0, "84 cells cannot propose 100"
    assert len(net.proposed(levels, 100, 0.3)[1][0].nonzero()) < 84


@pytest.mark.slow
def test_planted_things_are_learnt() -> None:
    """A channel says where something is, two others which of two names it has."""
    draw = torch.Generator().manual_seed(0)
    maps, boxes = torch.zeros(40, 4, 8, 8), torch.zeros(40, 1, 4)
    labels = torch.randint(2, (40, 1), generator=draw)
    for i in range(40):
        x, y = torch.randint(0, 5, (2,), generator=draw).tolist()
        maps[i, 0, y : y + 3, x : x + 3] = 3.0
        maps[i, 1 + int(labels[i, 0]), y : y + 3, x : x + 3] = 3.0
        boxes[i, 0] = torch.tensor([x, y, x + 3, y + 3]) / 8
    net = network()
    columns = {"maps": maps[:30], "boxes": boxes[:30], "labels": labels[:30]}
    done = train(TwoStageLearning(net), TrainingData(30, columns), Training(120, 10, lr=1e-2, schedule="cosine"))
    assert done.history[-1]["loss"] < 0.5 * done.history[0]["loss"]
    found = net.found(maps[30:], 5)
    logits = found.logits
    best = (found.objectness * (1 - logits.softmax(2)[..., 0])).argmax(1)
    own = found.boxes[torch.arange(10), best]
    assert float(_iou(own, boxes[30:, 0]).mean()) > 0.6
    assert (logits[torch.arange(10), best][:, 1:].argmax(1) == labels[30:, 0]).float().mean() > 0.8


def test_a_trunk_learns_in_parts_as_it_does_in_one() -> None:
    """Its maps are made part by part, where memory is short; the heads see the whole batch."""
    draw = torch.Generator().manual_seed(0)
    columns = {
        "pixels": torch.randn(6, 3, 8, 8, generator=draw),
        "boxes": torch.tensor([0.1, 0.1, 0.6, 0.7]).expand(6, 1, 4),
        "labels": torch.zeros(6, 1, dtype=torch.long),
    }
    found = []
    for micro in (None, 2):
        with seeded(1):
            trunk = torch.nn.Conv2d(3, 4, 3, 1, 1)
        before = trunk.weight.detach().clone()
        how = Training(2, 6, optimiser="sgd", lr=0.01, micro_batch=micro, part_lr=(("trunk", 0.6),))
        train(TwoStageLearning(network(), trunk), TrainingData(6, columns), how)
        assert not torch.equal(trunk.weight, before)
        found.append(trunk.weight)
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-7)


def test_pictures_without_anything_teach_that_nothing_is_there() -> None:
    net = network()
    batch = Batch(
        [0, 1], {"maps": torch.ones(2, 4, 4, 4), "boxes": torch.zeros(2, 1, 4), "labels": torch.full((2, 1), -1)}
    )
    task = TwoStageLearning(net)
    with seeded(0):
        terms = task.loss(task.features(batch), batch)
    assert all(bool(term.isfinite()) for term in terms.values())
    assert terms["move"] == 0
    assert terms["overlap"] == 0
