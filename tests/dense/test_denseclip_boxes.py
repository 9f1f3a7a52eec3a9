"""DenseCLIP's detector: its map and loss beside the authors', what it learns, and what explains its boxes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_refine import wave

from coloured import colours, squares
from seewhy.dense import detectors
from seewhy.dense.detection.denseclip_boxes import (
    BoxLearning,
    BoxNetwork,
    DenseCLIPBoxes,
    MappedBoxes,
    _grids,
    box_map_loss,
)
from seewhy.dense.detection.fit import AUTO, fit_detector, methods_for
from seewhy.dense.detection.trained import TrainedDetector
from seewhy.dense.detection.trunk import looked_once
from seewhy.dense.reader import Reader
from seewhy.errors import DataError, InputError
from seewhy.pictures.boxes import BoxData, BoxedPicture
from seewhy.progress import Progress
from seewhy.training.batches import Batch

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "denseclip.json").read_text("utf-8"))["box_map"]
SHORT: dict[str, Any] = {"n_steps": 3, "batch_size": 3, "n_proposed": 12, "zoom": 1.0}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> BoxData:
    return squares(tmp_path_factory.mktemp("boxes") / "squares", 8)


def network(texts: torch.Tensor, **how: Any) -> BoxNetwork:
    return BoxNetwork(2, texts, DenseCLIPBoxes(prompting="none", **how)).eval()


def test_the_map_and_its_loss_are_the_authors() -> None:
    joint, maps = wave(2, 5, 2, 3, k=0.7, i=2), wave(2, 2, 2, 3, k=0.2)
    texts = wave(2, 3, 5, k=0.6, i=1)
    found = [network(texts[i])(maps[i : i + 1], joint[i : i + 1]) for i in range(2)]
    scores = torch.cat([one for _, one in found])
    torch.testing.assert_close(scores.flatten(), torch.tensor(GOLDEN["given"]), atol=2e-5, rtol=1e-4)
    assert torch.equal(found[1][0], torch.cat([maps[1:], scores[1:]], 1)), "by its temperature, behind the features"
    boxes, labels = torch.zeros(2, 2, 4), torch.full((2, 2), -1)
    for i, (own, named) in enumerate(zip(GOLDEN["boxes"], GOLDEN["labels"], strict=True)):
        boxes[i, : len(own)] = torch.tensor(own) / torch.tensor([96.0, 64.0, 96.0, 64.0])
        labels[i, : len(own)] = torch.tensor(named)
    assert float(box_map_loss(scores, boxes, labels)) == pytest.approx(GOLDEN["loss"], abs=2e-5)
    assert float(box_map_loss(scores, boxes, torch.full((2, 2), -1))) == 0.0


def test_the_loss_is_of_both_stages_and_of_the_map(data: BoxData) -> None:
    how, reader = DenseCLIPBoxes(**SHORT), Reader(colours(), 1.0)
    columns = looked_once(reader, data, _grids, Progress())
    made = BoxNetwork(3, torch.eye(2, 3), how)
    task = BoxLearning(made, 2.0).train()
    batch = Batch([0, 1], {name: one[:2] for name, one in columns.items()})
    torch.manual_seed(1)
    features = task.features(batch)
    terms = task.loss(features, batch)
    assert terms["loss"].item() == pytest.approx(terms["stages"].item() + 2 * terms["map"].item(), rel=1e-5)
    assert terms["map"].item() == pytest.approx(box_map_loss(features[1], batch["boxes"], batch["labels"]).item())
    terms["loss"].backward()
    assert made.gamma.grad is not None
    assert float(made.gamma.grad.abs().sum()) > 0
    mean, spread = columns["maps"].float().mean((0, 2, 3)), columns["maps"].float().transpose(0, 1).flatten(1).std(1)
    learnt = how.fit(reader, data)
    torch.testing.assert_close(learnt.network.mean, mean)
    torch.testing.assert_close(learnt.network.spread, spread)


@pytest.mark.slow
def test_it_finds_what_it_was_shown(data: BoxData) -> None:
    how = DenseCLIPBoxes(n_steps=60, batch_size=4, n_proposed=20, zoom=1.0, lr=3e-3)
    finder = how.fit(Reader(colours(), 1.0), data)
    detector = TrainedDetector("denseclip_boxes", {}, colours(), data.classes, finder, (0.0, 0.0), 1.0)
    right = 0
    for picture in data.pictures:
        best = detector.detect(picture.image).regions[0]
        overlaps = [_overlap(best.box, b.box) for b in picture.boxes if b.label == best.label]
        right += max(overlaps, default=0.0) >= 0.5
    assert right >= 6
    made = dict(best.made_of)
    assert best.score == pytest.approx(made["class"] * made["objectness"], rel=1e-4)


def _overlap(a: Any, b: Any) -> float:
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(w, 0) * max(h, 0)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


@pytest.mark.parametrize("kind", ["names", "shuffled", "random", "none"])
def test_every_kind_of_texts_learns(kind: Any, data: BoxData) -> None:
    how = DenseCLIPBoxes(**SHORT, texts=kind)
    finder = how.fit(Reader(colours(), 1.0), data)
    channels = finder.network.stages.heads.sizes.channels
    assert channels == 3 + 2 * (kind != "none")
    assert ("gamma" in finder.tensors()) == (kind != "none")
    again = how.restore(colours(), data.classes, finder.tensors())
    looked = next(Reader(colours(), 1.0).looked([data.pictures[0].image]))
    found = finder.regions(colours(), looked)  # type: ignore[arg-type]
    assert torch.equal(again.regions(colours(), looked).scores, found.scores)  # type: ignore[arg-type]
    torch.testing.assert_close(found.scores, found.made_of["class"] * found.made_of["objectness"])


def test_a_box_is_explained_by_the_place_that_was_moved_to_it(data: BoxData) -> None:
    how = DenseCLIPBoxes(**SHORT)
    finder = how.fit(Reader(colours(), 1.0), data)
    reader = Reader(colours(), 1.0)
    score = finder.pooled(reader, data.classes)
    looked = next(reader.looked([data.pictures[0].image]))
    whole = score.cells(reader.encoder, looked.features)  # type: ignore[union-attr]
    proposed, boxes, _, logits = (one[0] for one in finder.found(whole[:, :3], whole[:, 3:]))
    assert score.reads is not None
    read = score.reads(whole, boxes[4:5])
    torch.testing.assert_close(read(whole)[0], logits[4].roll(-1))
    assert score.classes == ("red", "blue", "nothing")
    other = torch.tensor([[0.1, 0.2, 0.9, 0.7]])  # a box that nothing was moved to is read where it lies
    assert float((boxes - other).abs().amax(1).min()) > 1e-3
    levels = finder.network.stages.heads.levels(finder.network(whole[:, :3], whole[:, 3:])[0])
    own, _ = finder.network.stages.read(levels, other, torch.zeros(1, dtype=torch.long))
    torch.testing.assert_close(score.reads(whole, other)(whole), own.roll(-1, 1))
    assert len(proposed) == 12


def test_it_is_fitted_by_name_and_not_tried_by_auto(data: BoxData, tmp_path: Path) -> None:
    assert "denseclip_boxes" not in {how.name for how in methods_for(AUTO, {})}
    assert isinstance(methods_for("denseclip_boxes", {"tau": 0.1})[0], detectors["denseclip_boxes"])
    made = fit_detector(data, colours(), method="denseclip_boxes", folds=2, **SHORT)
    assert isinstance(made.finder, MappedBoxes)
    whys = made.keeping(least=0.0).explain(data.pictures[0].image, where="occlusion", most=1)
    assert whys[0].prediction.label in data.classes


def test_what_is_wrong_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"`prompting` of denseclip_boxes must be 'post' or 'none'"):
        DenseCLIPBoxes(prompting="pre")  # type: ignore[arg-type]
    empty = BoxData((BoxedPicture(str(tmp_path / "none.png"), (8, 8), ()),), ("red",))
    with pytest.raises(
        DataError, match=r"At least one readable picture with a box is needed for training, got none among 1"
    ):
        DenseCLIPBoxes(**SHORT).fit(Reader(colours(), 1.0), empty)


def test_one_class_is_learnt_and_its_texts_cannot_be_shuffled(data: BoxData) -> None:
    red = data.classes[:1]
    boxes = [replace(p, boxes=tuple(b for b in p.boxes if b.label in red)) for p in data.pictures]
    one, reader = BoxData(tuple(boxes), red), Reader(colours(), 1.0, kept={})
    made = DenseCLIPBoxes(**SHORT).fit(reader, one)
    assert made.classes == red
    assert float(made.network.fixed.norm()) == pytest.approx(1)
    with pytest.raises(InputError, match="The texts of one class cannot be shuffled"):
        DenseCLIPBoxes(**SHORT, texts="shuffled").fit(reader, one)
