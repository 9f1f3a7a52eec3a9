"""Parts of segmenting, each with numbers that are known: segments, files, controls, probes, what is handed on."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import seewhy
import seewhy.dense.by_words
import seewhy.dense.evaluation
import seewhy.dense.linear
import seewhy.dense.regions
import seewhy.dense.saving
from coloured import NAMES, colours, masked, picture
from seewhy.dense.linear import Affine, Linear, gathered
from seewhy.dense.maskclip import MaskCLIP
from seewhy.dense.reader import Reader
from seewhy.dense.regions import NOTHING, Segmentation, SegmentFolder, segments_of
from seewhy.dense.saving import is_segmenter, load_segmenter, save_segmenter
from seewhy.errors import DataError, ForeignFileError, InputError, ModelError, UnknownNameError
from seewhy.pictures.pixel_classes import encode, load_masks
from seewhy.progress import Progress
from seewhy.report.palette import class_colours
from seewhy.storage.features import FeatureStore

MASK = np.array([[2, 2, 255, 255], [2, 2, 2, 0], [255, 255, 255, 0]], np.uint8)
SURE = np.linspace(0.1, 0.98, 12).reshape(3, 4)


def result(name: str = "a.png") -> Segmentation:
    found = segments_of(NAMES, MASK, SURE)
    about = {"method": "x", "encoder": "tiny", "fingerprint": "0", "input": [4, 4], "n_windows": 1, "grid": [1, 1]}
    return Segmentation(
        name, MASK.shape[::-1], NAMES, found, about, np.zeros((4, 4, 3), np.uint8), MASK, np.zeros((3, 1, 1))
    )


def test_segments_have_their_numbers() -> None:
    blue, red = segments_of(NAMES, MASK, SURE)  # the largest first; green is not there
    assert (blue.label, blue.area, blue.box) == ("blue", 5, (0, 0, 3, 2))
    assert (red.label, red.area, red.box) == ("red", 2, (3, 1, 4, 3))
    assert blue.share == 5 / 12  # of all pixels, named or not
    assert blue.score == pytest.approx(SURE[MASK == 2].mean())
    numbers = {"label": "blue", "area": 5, "share": 0.416667, "box": [0, 0, 3, 2], "score": 0.356}
    assert blue.to_json() == {**numbers, "rle": encode(MASK == 2)}
    found = result()
    assert found.mask_of("red").tolist() == (MASK == 0).tolist()
    assert found.mask_of("green").sum() == 0
    palette = Image.open(io.BytesIO(found.to_png())).convert("RGB")
    assert palette.getpixel((0, 0)) == class_colours(3)[2]
    assert NOTHING == 255


def test_a_folder_names_its_masks_and_leaves_others_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seewhy.dense.regions, "MOST_SHOWN", 2)
    folder = SegmentFolder(tmp_path / "seg", NAMES)
    given = ("x/Cat.jpg", "y/cat.jpg", " .hid.den. .png", "a?b/c:d.png", f"{'l' * 200}.png", "....", "cat.png")
    names = [folder.add(result(one)).name for one in given]
    assert names == ["Cat.png", "cat-2.png", "hid.den.png", "c_d.png", f"{'l' * 80}.png", "picture.png", "cat-3.png"]
    page = folder.finish().read_text("utf-8")
    assert page.count("<figure>") == 2
    assert "7" in page
    assert len(json.loads((tmp_path / "seg" / "segments.json").read_text("utf-8"))["images"]) == 7
    SegmentFolder(tmp_path / "seg", NAMES).add(result())  # its own it writes over
    many = SegmentFolder(tmp_path / "many", NAMES)
    many._names |= {Path(result().image).stem, *(f"{Path(result().image).stem}-{i}" for i in range(2, 1000))}
    assert many.add(result()).stem.endswith("-1000")
    (tmp_path / "seg" / "mine.png").write_bytes(b"mine")
    for force in (False, True):
        with pytest.raises(ForeignFileError, match=r"mine\.png"):
            SegmentFolder(tmp_path / "seg", NAMES, force=force).add(result("mine.jpg"))
    for name in ("segments.json", "index.html"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text("{}")
        with pytest.raises(ForeignFileError, match=name):
            SegmentFolder(tmp_path / name, NAMES)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return masked(tmp_path_factory.mktemp("masks") / "train", 4, noise=20)


def test_smoothed_scores_keep_their_probabilities() -> None:
    scorer = replace(MaskCLIP().build(colours(), NAMES).scorer, how=MaskCLIP(centred=0.0, smoothed=1.0), scale=7.0)
    scores, keys = torch.rand(3, 2, 2), torch.rand(4, 2, 2)
    found = scorer.finish(scores, keys)
    unit = torch.nn.functional.normalize(keys.flatten(1), dim=0)
    expected = ((7 * scores).softmax(0).flatten(1) @ (unit.T @ unit)).unflatten(1, (2, 2))
    torch.testing.assert_close((7 * found).softmax(0), expected / expected.sum(0))
    assert torch.equal(replace(scorer, how=MaskCLIP(centred=0.0)).finish(scores, None), scores)


def test_sentences_are_kept_and_engines_are_handed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, on = FeatureStore(tmp_path / "store.sqlite"), colours()
    text: Any = on.text
    seewhy.segment(picture(), list(NAMES), on, store=store)
    n = text.n_encoded
    assert n > 0
    seewhy.segment(picture(), list(NAMES), on, store=store)
    seewhy.dense.by_words.finder_for(seewhy.dense.segmenters, "maskclip", NAMES, on, store=store)
    assert text.n_encoded == n
    asked: list[Any] = []
    monkeypatch.setattr(seewhy.dense.by_words, "find", lambda name, engine=None: asked.append((name, engine)) or on)
    seewhy.dense.by_words.finder_for(seewhy.dense.segmenters, "maskclip", NAMES, "some", engine="torch")
    assert asked == [("some", "torch")]
    found = seewhy.segment([picture(), picture(64, 96)], list(NAMES), "other")
    assert [one.size for one in found] == [(96, 64), (64, 96)]  # type: ignore[union-attr]
    assert asked[1][0] == "other"


def test_a_misspelt_encoder_is_not_called_damage(tmp_path: Path) -> None:
    folder = save_segmenter(MaskCLIP(scale=1.0, least=0.9).build(colours(), NAMES), tmp_path / "seg")
    with pytest.raises(UnknownNameError, match=r"^There is no encoder called 'lite9'\. Did you mean"):
        load_segmenter(folder, encoder="lite9")


def test_what_is_saved_comes_back_with_its_scale_and_engine(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = MaskCLIP(scale=1.0, least=0.9).build(colours(), NAMES)
    folder = save_segmenter(made, tmp_path / "seg")
    asked: list[Any] = []

    def saved(archive: Any, folder: Path, given: Any, *, engine: str, **more: Any) -> Any:
        asked.append((given, engine))
        return archive.load_card(folder), colours()

    monkeypatch.setattr(seewhy.dense.saving, "encoder_in", saved)
    again = load_segmenter(folder, encoder="mine", engine="torch")
    assert asked == [("mine", "torch")]
    assert (again.segment(picture()).mask == NOTHING).all()  # none of three names is that sure at such a scale
    assert is_segmenter(folder)
    assert not is_segmenter(tmp_path)
    two = Affine(torch.zeros(2, 3), torch.zeros(2))  # scores of other classes than the card has
    wrong = save_segmenter(replace(Linear().fit(colours(), load_masks(data)), scorer=two), tmp_path / "wrong")
    with pytest.raises(ModelError):
        load_segmenter(wrong)
    short = save_segmenter(replace(made, scorer=two), tmp_path / "short")  # tensors of another method
    with pytest.raises(ModelError):
        load_segmenter(short)


def test_a_tiled_picture_is_shown_whole() -> None:
    segmenter = MaskCLIP(zoom=6.0).build(colours(), NAMES)
    pixels = picture(400, 300)
    found = segmenter.segment(pixels)
    assert found.about["n_windows"] == 9
    assert abs(found.pixels.astype(int) - np.asarray(Image.fromarray(pixels).resize((64, 64)))).mean() < 12
    assert MaskCLIP(zoom=3.0).build(colours(), NAMES).segment(pixels).about["n_windows"] == 4  # 1.5 is nearer to 2
    least = MaskCLIP(zoom=0.25, least=0.999).build(colours(), NAMES).segment(pixels)
    assert least.size == (400, 300)
    with pytest.raises(InputError, match=r"`least` of a segmenter must be .*, got 1"):
        MaskCLIP(least=1.0).build(colours(), NAMES)


def test_numbers_that_are_not_finite_are_named() -> None:
    segmenter = MaskCLIP().build(colours(), NAMES)
    looks = segmenter.encoder
    forward = looks.forward_features
    looks.forward_features = lambda x: forward(x) * torch.tensor(float("nan"))  # type: ignore[method-assign]
    found = next(iter(segmenter.segment_all([picture()])))
    assert "not finite; try --engine torch" in found.error  # type: ignore[union-attr]


def test_cells_that_are_learnt_from(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = load_masks(data)
    bare = Reader(colours(), Linear().zoom)
    cells = gathered(bare, given, 0, Progress())
    assert cells.picture.bincount().tolist() == [256] * 4
    torch.testing.assert_close(cells.shares.sum(1), torch.ones(len(cells.shares)))
    monkeypatch.setattr(seewhy.dense.linear, "MOST_CELLS", 40)
    assert gathered(bare, given, 0, Progress()).picture.bincount().tolist() == [10] * 4
    monkeypatch.undo()
    root = masked(tmp_path / "one", 3)
    for i in range(3):  # only the upper rows have a class, in one picture of each five pixels
        mask = np.full((48, 64), 255, np.uint8)
        mask[:24] = 0
        mask[:6, :8] = 1 if i else 0
        Image.fromarray(mask).save(root / "labels" / f"{i}.png")
    half = gathered(bare, load_masks(root), 0, Progress())
    assert half.picture.bincount().tolist() == [128] * 3
    for i in range(3):
        Image.fromarray(np.zeros((48, 64), np.uint8)).save(root / "labels" / f"{i}.png")
    with pytest.raises(DataError, match=r"are needed for training, got 3 picture\(s\) with 1 class\(es\)"):
        gathered(bare, load_masks(root), 0, Progress())
