"""DITO as a detector that is fitted: scores are what they say, it comes back, and other names can be given."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from seewhy.dense.cells import joint_cells
from seewhy.dense.detection import dito
from seewhy.dense.detection.dito import DITO, WordedBoxes
from seewhy.dense.detection.fit import fit_detector
from seewhy.dense.detection.trained import TrainedDetector
from seewhy.dense.detection.trunk import at_size
from seewhy.dense.reader import Reader
from seewhy.dense.saving import load_detector, save_detector
from seewhy.dense.two_stage import Found, box_coder
from seewhy.encoders.region_heads import HeadSizes, RegionHeads
from seewhy.errors import DataError, InputError
from seewhy.pictures.boxes import BoxData, BoxedPicture, BoxRecord
from seewhy.progress import Progress, duration
from seewhy.seeded import seeded
from seewhy.types import Failure
from tiny_words import tiny_pair

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "dito.json").read_text("utf-8"))
SMALL: dict[str, Any] = {"n_steps": 3, "batch_size": 4, "n_proposed": 12, "template": "a {}"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> BoxData:
    folder, rng, pictures = tmp_path_factory.mktemp("squares"), np.random.default_rng(0), []
    for i in range(8):
        pixels = rng.integers(90, 150, (40, 48, 3), np.uint8)
        label = ("red", "blue")[i % 2]
        left, top = int(rng.integers(0, 28)), int(rng.integers(0, 20))
        pixels[top : top + 18, left : left + 18] = (220, 30, 30) if label == "red" else (30, 30, 220)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        boxes = (BoxRecord((left, top, left + 18, top + 18), label),) if i < 6 else ()
        pictures.append(BoxedPicture(str(folder / f"{i}.png"), (48, 40), boxes))
    return BoxData(tuple(pictures), ("red", "blue"))


@pytest.fixture(scope="module")
def fitted(data: BoxData) -> TrainedDetector:
    return fit_detector(data, tiny_pair(), method="dito", **SMALL)


def test_it_comes_back_as_it_was(fitted: TrainedDetector, data: BoxData, tmp_path: Path) -> None:
    again = load_detector(save_detector(fitted, tmp_path / "det"), encoder=tiny_pair())
    one = data.pictures[0].image
    assert again.keeping(least=0).detect(one).to_json() == fitted.keeping(least=0).detect(one).to_json()


def test_a_score_is_made_of_what_stands_beside_it(fitted: TrainedDetector, data: BoxData) -> None:
    found = fitted.keeping(least=0).detect(data.pictures[0].image)
    assert len(found)
    for one in found.regions:
        made = dict(one.made_of)
        assert set(made) == {"detector", "words", "objectness", "weight"}
        assert made["weight"] == pytest.approx(0.35)
        assert all(0 <= v <= 1 for v in made.values())
    assert found.to_json()["detections"][0]["made_of"].keys() == set(made)


def test_scores_are_the_formula(fitted: TrainedDetector, data: BoxData) -> None:
    finder = fitted.finder
    assert isinstance(finder, WordedBoxes)
    looked = next(fitted.reader.looked([data.pictures[0].image]))
    assert not isinstance(looked, Failure)
    regions = finder.regions(fitted.reader.encoder, looked)
    p, z, objectness = (regions.made_of[name] for name in ("detector", "words", "objectness"))
    assert 0 < len(regions.boxes) <= 12, "as many as are proposed"
    names = p**0.65 * z**0.35
    background = 1 - p.sum(1, keepdim=True)
    wanted = names / (names.sum(1, keepdim=True) + background) * objectness**3
    torch.testing.assert_close(regions.scores, wanted, rtol=1e-3, atol=1e-6)


def test_frozen_words_are_read_of_the_smaller_box_at_their_own_temperature(
    fitted: TrainedDetector, data: BoxData
) -> None:
    finder = fitted.finder
    assert isinstance(finder, WordedBoxes)
    encoder, looked = fitted.reader.encoder, next(fitted.reader.looked([data.pictures[0].image]))
    assert not isinstance(looked, Failure)
    cells = looked.windows.merged(joint_cells(encoder, looked.features)).float()

    def words(box: list[float], **how: float) -> torch.Tensor:
        return replace(finder, how=replace(finder.how, **how))._words(encoder, cells, torch.tensor([box]))

    smaller = words([0.15, 0.15, 0.85, 0.85])
    whole = words([0.0, 0.0, 1.0, 1.0])
    torch.testing.assert_close(words([0.15, 0.15, 0.85, 0.85], shrink=1.0), whole, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(smaller, whole, atol=1e-3)
    torch.testing.assert_close(whole / encoder.text.logit_scale, words([0.0, 0.0, 1.0, 1.0], words_temperature=1.0))
    torch.testing.assert_close(
        words([0.0, 0.0, 1.0, 1.0], words_temperature=0.1), 10 * whole / encoder.text.logit_scale
    )
    regions = finder.regions(encoder, looked)
    grid = looked.windows.merged(encoder.layout.to_grid(looked.features))
    found = finder.network.found(grid[None], finder.how.n_proposed)
    keep = (found.boxes[0][:, None] == regions.boxes[None]).all(2).any(1)
    z = finder._words(encoder, cells, found.proposals[0][keep]).softmax(1)[:, 1:]
    torch.testing.assert_close(regions.made_of["words"], z)
    assert float((regions.boxes[:, 2:] - regions.boxes[:, :2]).min()) > 1e-3
    moved = replace(finder, how=replace(finder.how, words_at="moved")).regions(encoder, looked)
    torch.testing.assert_close(moved.made_of["words"], finder._words(encoder, cells, regions.boxes).softmax(1)[:, 1:])


def test_from_proposals_to_boxes_as_the_authors_do(fitted: TrainedDetector, monkeypatch: pytest.MonkeyPatch) -> None:
    """The frozen words are read at proposals, the boxes that are given were moved from there."""
    finder, given = fitted.finder, GOLDEN["chain"]
    assert isinstance(finder, WordedBoxes)
    cells, texts, first, by, logits, objectness = (
        torch.tensor(given[name]) for name in ("cells", "texts", "proposals", "by", "detector", "objectness")
    )
    boxes = box_coder().decode_single(by, first).clamp(0, 1)
    found = Found(first[None], boxes[None], objectness[None], logits[None])
    network = SimpleNamespace(found=lambda grid, n: found, texts=texts)
    monkeypatch.setattr(dito, "joint_cells", lambda encoder, features: cells[None])
    own = replace(finder, network=network, how=DITO(words_temperature=given["temperature"]), classes=("a", "b", "c"))
    own = replace(own, trained=tuple(n for n, base in zip(own.classes, given["base"], strict=True) if base))
    looked = next(fitted.reader.looked([np.zeros((64, 64, 3), np.uint8)]))
    assert not isinstance(looked, Failure)
    regions = own.regions(fitted.reader.encoder, looked)
    torch.testing.assert_close(regions.scores, torch.tensor(given["scores"])[:, 1:], rtol=0, atol=5e-5)
    words = torch.tensor(given["words"]).softmax(1)[:, 1:]
    torch.testing.assert_close(regions.made_of["words"], words, rtol=0, atol=2e-4)
    kept = replace(fitted, finder=own, classes=own.classes, thresholds=(0.0,) * 3, most=given["most"]).found(looked)
    assert len(kept) == len(given["found"])
    for one, theirs in zip(kept.regions, given["found"], strict=True):
        assert (own.classes.index(one.label), one.score) == (theirs["name"], pytest.approx(theirs["score"], abs=5e-5))
        assert [v / 64 for v in one.box] == pytest.approx(theirs["box"], abs=1e-3), "they count a pixel more"


def test_a_trunk_that_learns_is_kept_and_the_words_stay_as_they_were(data: BoxData, tmp_path: Path) -> None:
    on = tiny_pair()
    before = {name: value.clone() for name, value in on.trunk.state_dict().items()}
    detector = fit_detector(
        data, on, method="dito", folds=2, **SMALL, trunk_lr=0.6, zoom=1.0, progress=(heard := Progress())
    )
    said = next(note for note in heard.notes if note.startswith("the trunk is trained too"))
    assert "3 trainings of 3 steps" in said
    assert all(torch.equal(value, before[name]) for name, value in on.trunk.state_dict().items()), "the encoder stays"
    finder = detector.finder
    assert isinstance(finder, WordedBoxes)
    assert finder.trunk is not None
    changed = [n for n, value in finder.trunk.state_dict().items() if not torch.equal(value, before[n])]
    assert changed == [n for n, _ in finder.trunk.named_parameters()], "all weights, and no statistics"
    looked = next(detector.reader.looked([data.pictures[0].image]))
    assert not isinstance(looked, Failure)
    frozen, own = looked.features.chunk(2, 1)
    alone = next(Reader(on, 1.0).looked([data.pictures[0].image]))
    assert not isinstance(alone, Failure)
    torch.testing.assert_close(frozen, alone.features)
    torch.testing.assert_close(own, finder.trunk(Reader(on, 1.0).encoder.pixels([alone.pixels])), rtol=1e-3, atol=1e-4)
    places = finder.network.found(own, finder.how.n_proposed)
    regions = finder.regions(detector.reader.encoder, looked)
    keep = ((places.boxes[0][:, None] - regions.boxes[None]).abs() < 1e-4).all(2).any(1)
    assert keep.any(), "what learnt says where things are"
    words = finder._words(on, joint_cells(on, frozen)[0], places.proposals[0][keep]).softmax(1)[:, 1:]
    torch.testing.assert_close(regions.made_of["words"], words)
    again = load_detector(save_detector(detector, tmp_path / "det"), encoder=on)
    one = data.pictures[0].image
    assert again.keeping(least=0).detect(one).to_json() == detector.keeping(least=0).detect(one).to_json()
    assert detector.keeping(least=0).explain(one, most=1, settings={"window": 8, "stride": 8})
    assert again.for_classes(["blue", "green"]).keeping(least=0).detect(one)


def test_a_trunk_learns_from_windows_as_they_are_merged(data: BoxData) -> None:
    """At a rate of nothing the maps that are learnt from are those that are looked at."""
    reader = Reader(tiny_pair(), 4.0)
    task, given = DITO(**SMALL, trunk_lr=0.6, zoom=4.0)._prepared(reader, data, Progress())
    batch = given.batch(0, 3, 0)
    looked = list(reader.looked([data.pictures[i].image for i in batch.index]))
    task.train()
    maps = task.features(batch)
    for own, one in zip(maps, looked, strict=True):
        assert not isinstance(one, Failure)
        assert one.windows.n[0] * one.windows.n[1] > 1
        torch.testing.assert_close(own, one.windows.merged(one.features), rtol=1e-3, atol=1e-4)


def test_a_stopped_training_of_a_trunk_goes_on(data: BoxData, tmp_path: Path) -> None:
    class Stops(Progress):
        def measured(self, step: int, terms: object) -> None:
            if step == 2:
                raise KeyboardInterrupt

    how = DITO(**SMALL, trunk_lr=0.6, zoom=1.0)
    reader = Reader(tiny_pair(), 1.0)
    with pytest.raises(KeyboardInterrupt):
        how.fit(reader, data, progress=Stops(), checkpoint=tmp_path / "c")
    found = [
        how.fit(reader, data, progress=(heard := Progress()), checkpoint=path).tensors()
        for path in (tmp_path / "d", tmp_path / "c")
    ]
    assert any("resuming at step 3" in note for note in heard.notes)
    assert any(name.startswith("trunk.") for name in found[0])
    for name, value in found[0].items():
        assert torch.equal(value, found[1][name]), name


def test_what_a_trunk_will_take_is_said(data: BoxData, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, how = Reader(tiny_pair(), 1.0), DITO(**SMALL | {"n_steps": 300}, trunk_lr=0.6, zoom=1.0)
    ticks = count(step=2.0)
    monkeypatch.setattr("seewhy.training.memory.time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    said = how.cost_of(reader, data, 6)
    assert said is not None
    looks = "each picture then takes two passes, one of them through the frozen encoder for the words"
    n, own = how.batch_size, 2.0 * how.batch_size / min(2, how.batch_size)
    assert f"a step of {n} samples takes about {own:.2g} seconds" in said
    assert said.endswith(f", 6 trainings of 300 steps about {duration(1800 * own)}; {looks}")
    task, given = how._prepared(reader, data, Progress())
    learns = how.training(given, how.trunk_lr)
    assert (learns.n_steps, learns.part_lr, learns.part_decay) == (300, (("trunk", 0.6),), (("trunk", 0.0),))
    assert {n.split(".")[0] for n, p in task.named_parameters() if p.requires_grad} == {"network", "trunk"}
    assert DITO(**SMALL).cost_of(reader, data, 6) is None


def test_a_picture_that_goes_while_a_trunk_learns_is_named(data: BoxData, tmp_path: Path) -> None:
    kept = tmp_path / "gone.png"
    kept.write_bytes(Path(data.pictures[0].image).read_bytes())
    own = BoxData((replace(data.pictures[0], image=str(kept)), *data.pictures[1:]), data.classes)
    _, given = DITO(**SMALL, trunk_lr=0.6, zoom=1.0)._prepared(Reader(tiny_pair(), 1.0), own, Progress())
    kept.unlink()
    with pytest.raises(DataError, match=r"gone.png was readable before the training, but no longer"):
        given.columns["pixels"]([0], torch.Generator())


def test_maps_of_other_sizes_are_stretched() -> None:
    flat = torch.arange(4.0).view(1, 2, 2)
    assert torch.equal(at_size(flat, (2, 2)), flat)
    assert at_size(flat, (4, 4))[0, 0].tolist() == [0.0, 0.25, 0.75, 1.0]


def test_names_that_no_box_was_drawn_of_have_more_of_the_words(fitted: TrainedDetector, data: BoxData) -> None:
    other = fitted.for_classes(["blue", "green"])
    finder = other.finder
    assert isinstance(finder, WordedBoxes)
    assert finder.is_base.tolist() == [True, False]
    torch.testing.assert_close(finder.network.texts, finder.how.texts(tiny_pair(), ("blue", "green")))
    found = other.keeping(least=0).detect(data.pictures[0].image)
    first, second = fitted.thresholds
    assert other.thresholds == pytest.approx((second, (first + second) / 2))
    weights = {d.label: round(dict(d.made_of)["weight"], 2) for d in found.regions}
    assert weights == {"blue": 0.35, "green": 0.65}
    same = fitted.for_classes(["blue", "red"]).keeping(least=0).detect(data.pictures[0].image)
    back = {(d.label, d.box): d.score for d in fitted.keeping(least=0).detect(data.pictures[0].image).regions}
    assert {(d.label, d.box): d.score for d in same.regions} == pytest.approx(back, rel=1e-4)


def test_heads_that_were_pretrained_are_gone_on_from(data: BoxData) -> None:
    on, how = tiny_pair(), DITO(**{**SMALL, "n_steps": 1, "lr": 1e-9})
    plain = how.fit(Reader(on, how.zoom), data)
    sizes = plain.network.heads.sizes
    with seeded(77):
        on.region_heads = RegionHeads(sizes)
    begun = how.fit(Reader(on, how.zoom), data)
    for a, b in zip(begun.network.heads.parameters(), on.region_heads.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
    assert not torch.allclose(plain.network.heads.hidden.weight, begun.network.heads.hidden.weight)

    class Hearing(Progress):
        def note(self, text: str) -> None:
            notes.append(text)

    notes: list[str] = []
    on.region_heads = RegionHeads(HeadSizes(sizes.channels, sizes.out, width=16))
    how.fit(Reader(on, how.zoom), data, progress=Hearing())
    assert any("has heads of other sizes, so these are trained" in note for note in notes)


@pytest.mark.parametrize(
    "wrong", [{"shrink": 0.0}, {"temperature": 0.0}, {"words_temperature": -1.0}, {"n_proposed": 0}]
)
def test_what_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"must be a (whole )?number .*, got"):
        DITO(**wrong)


def test_pictures_without_a_box_are_no_data(data: BoxData) -> None:
    with pytest.raises(
        DataError, match=r"At least one readable picture with a box is needed for training, got none among 2"
    ):
        DITO(**SMALL).fit(Reader(tiny_pair(), 2.0), BoxData(data.pictures[6:], ("red",)))


def test_a_box_is_explained_by_what_changes_its_own_score(fitted: TrainedDetector, data: BoxData) -> None:
    image, detector = data.pictures[0].image, fitted.keeping(least=0)
    first, second = detector.detect(image).regions[:2]
    found = detector.explain(image, most=2, settings={"window": 8, "stride": 8})
    for one, box in zip(found, (first, second), strict=True):
        assert one.prediction.top[0].label == box.label
        assert one.prediction.top[0].score == pytest.approx(box.score, rel=1e-3)
        assert one.where.to_json()["method"].startswith("occlusion")  # type: ignore[union-attr]
        assert one.part is not None
        assert one.part.outside is not None
    for wrong in ("grad_cam", "attention_rollout"):
        with pytest.raises(InputError, match=r"(Choose|Use only grad_cam,) occlusion or rise"):
            detector.explain(image, most=1, where=wrong)
    assert detector.explain(image, most=1, where="rise", settings={"n_masks": 8}, measure=False)
