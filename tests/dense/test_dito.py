"""DITO as a detector that is fitted: scores are what they say, it comes back, and other names can be given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from seewhy.dense.cells import joint_cells
from seewhy.dense.detection.dito import DITO, WordedBoxes
from seewhy.dense.detection.fit import fit_detector
from seewhy.dense.detection.trained import TrainedDetector
from seewhy.dense.reader import Reader
from seewhy.dense.saving import load_detector, save_detector
from seewhy.encoders.region_heads import HeadSizes, RegionHeads
from seewhy.errors import DataError, InputError
from seewhy.pictures.boxes import BoxData, BoxedPicture, BoxRecord
from seewhy.progress import Progress
from seewhy.seeded import seeded
from seewhy.types import Failure
from tiny_words import tiny_pair

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
    for one in found.found:
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
    z = finder._words(encoder, cells, regions.boxes).softmax(1)[:, 1:]
    torch.testing.assert_close(regions.made_of["words"], z)
    assert float((regions.boxes[:, 2:] - regions.boxes[:, :2]).min()) > 1e-3


def test_names_that_no_box_was_drawn_of_have_more_of_the_words(fitted: TrainedDetector, data: BoxData) -> None:
    other = fitted.for_classes(["blue", "green"])
    finder = other.finder
    assert isinstance(finder, WordedBoxes)
    assert finder.is_base.tolist() == [True, False]
    torch.testing.assert_close(finder.network.texts, finder.how.texts(tiny_pair(), ("blue", "green")))
    found = other.keeping(least=0).detect(data.pictures[0].image)
    first, second = fitted.thresholds
    assert other.thresholds == pytest.approx((second, (first + second) / 2))
    weights = {d.label: round(dict(d.made_of)["weight"], 2) for d in found.found}
    assert weights == {"blue": 0.35, "green": 0.65}
    same = fitted.for_classes(["blue", "red"]).keeping(least=0).detect(data.pictures[0].image)
    back = {(d.label, d.box): d.score for d in fitted.keeping(least=0).detect(data.pictures[0].image).found}
    assert {(d.label, d.box): d.score for d in same.found} == pytest.approx(back, rel=1e-4)


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
    assert any("has heads of other sizes: these begin from nothing" in note for note in notes)


@pytest.mark.parametrize(
    "wrong", [{"shrink": 0.0}, {"temperature": 0.0}, {"words_temperature": -1.0}, {"n_proposed": 0}]
)
def test_what_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"was expected\. Change it"):
        DITO(**wrong)


def test_pictures_without_a_box_are_no_data(data: BoxData) -> None:
    with pytest.raises(DataError, match=r"None of 2 picture\(s\) could be used with its boxes"):
        DITO(**SMALL).fit(Reader(tiny_pair(), 2.0), BoxData(data.pictures[6:], ("red",)))


def test_a_box_is_explained_by_what_changes_its_own_score(fitted: TrainedDetector, data: BoxData) -> None:
    image, detector = data.pictures[0].image, fitted.keeping(least=0)
    first, second = detector.detect(image).found[:2]
    found = detector.explain(image, most=2, settings={"window": 8, "stride": 8})
    for one, box in zip(found, (first, second), strict=True):
        assert one.prediction.top[0].label == box.label
        assert one.prediction.top[0].score == pytest.approx(box.score, rel=1e-3)
        assert one.where.to_json()["method"].startswith("occlusion")  # type: ignore[union-attr]
        assert one.part is not None
        assert one.part.outside is not None
    for wrong in ("grad_cam", "attention_rollout"):
        with pytest.raises(InputError, match=r"Choose (grad_cam, )?occlusion or rise"):
            detector.explain(image, most=1, where=wrong)
    assert detector.explain(image, most=1, where="rise", settings={"n_masks": 8}, measure=False)
