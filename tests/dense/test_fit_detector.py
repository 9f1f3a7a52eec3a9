"""Detectors that are trained: planted things are learnt and found, thresholds are right, what is wrong is named."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import seewhy
from coloured import squares as world
from schemas import check
from seewhy.cli import app
from seewhy.dense.detection.fit import (
    FIGURES,
    Ranked,
    beside,
    best_point,
    calibrated,
    dealt,
    fit_detector,
    out_of_fold,
    part,
    usable,
)
from seewhy.dense.detection.linear import (
    Linear,
    RegionProbe,
    best_overlaps,
    common_shapes,
    windows_of,
)
from seewhy.dense.detection.trained import Regions, TrainedDetector
from seewhy.dense.reader import Looked, Reader
from seewhy.dense.saving import is_detector, load_detector, save_detector
from seewhy.encoders.base import Encoder, Layout
from seewhy.errors import DataError, ForeignFileError, InputError, ModelError, UnknownNameError
from seewhy.metrics.average_precision import Matched
from seewhy.metrics.calibration import wilson
from seewhy.pictures.boxes import BoxData, BoxedPicture, BoxRecord, save_boxes
from seewhy.progress import Progress
from seewhy.types import Failure, Transform

SMALL: dict[str, Any] = {"n_shapes": 3, "parts": 2, "rounds": 1}


class Colours(nn.Module):
    """Each cell is the mean colour of its pixels, and their products."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        cells = nn.functional.avg_pool2d(pixels, 4)
        return torch.cat([cells, cells.relu(), (-cells).relu(), cells[:, :1] * cells[:, 2:]], 1)


def colours() -> Encoder:
    trunk = Colours()
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Encoder(
        name="colours", trunk=lambda: trunk, head=head, layout=Layout("nchw"), engine="torch",
        transform=Transform((32, 32), (32, 32), "bilinear", (0.5,) * 3, (0.5,) * 3), fingerprint="colours",
    )  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> BoxData:
    return world(tmp_path_factory.mktemp("squares"), 24)


@pytest.fixture(scope="module")
def fitted(data: BoxData) -> TrainedDetector:
    return fit_detector(data, colours(), folds=2, **SMALL)


def test_planted_squares_are_found_and_come_back(fitted: TrainedDetector, tmp_path: Path) -> None:
    new = world(tmp_path / "new", 6, seed=9)
    right = n_found = 0
    for picture, found in zip(new.pictures, fitted.detect_all([p.image for p in new.pictures]), strict=True):
        assert not isinstance(found, seewhy.Failure)
        for record in picture.boxes:
            same = torch.tensor([d.box for d in found.regions if d.label == record.label]).reshape(-1, 4)
            right += bool(best_overlaps(torch.tensor([record.box]).float(), same)[0] > 0.5)
        n_found += len(found)
    assert right >= 10
    assert n_found <= 22, "thresholds leave little else than the twelve"
    again = load_detector(save_detector(fitted, tmp_path / "det"), encoder=colours())
    assert is_detector(tmp_path / "det")
    assert again.thresholds == fitted.thresholds
    assert again.calibration == fitted.calibration
    assert [one["name"] for one in fitted.calibration["methods"]] == ["linear"], "dito needs words"
    first = new.pictures[0].image
    assert again.detect(first).to_json() == fitted.detect(first).to_json()
    assert again.keeping(least=1.0).detect(first).regions == ()
    assert len(again.keeping(least=0.0, most=7).detect(first)) == 7


def test_scores_of_all_windows_are_those_of_each(fitted: TrainedDetector) -> None:
    probe = fitted.finder
    assert isinstance(probe, RegionProbe)
    grid = torch.randn(len(probe.axes.components), 6, 7, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[0.0, 0.0, 7.0, 6.0], [1.2, 0.3, 2.9, 5.5]])
    one_by_one = probe.features(grid, boxes) @ probe.weight.T + probe.bias
    torch.testing.assert_close(probe.outputs(grid, boxes), one_by_one, atol=1e-4, rtol=1e-4)
    windows, scores, _ = probe.scan(grid)
    torch.testing.assert_close(scores, probe.outputs(grid, windows), atol=1e-4, rtol=1e-4)


def test_windows_lie_in_the_picture_and_shapes_are_those_of_boxes() -> None:
    sizes = torch.tensor([[0.1, 0.2]] * 5 + [[0.5, 0.5]] * 5)
    shapes = common_shapes(sizes, 2, 0)
    assert sorted(round(v, 3) for v in shapes[:, 0].tolist()) == [0.1, 0.5]
    assert len(common_shapes(sizes, 9, 0)) == 2
    windows = windows_of(shapes, (10, 20))
    assert windows.min() >= 0
    assert (windows[:, 2] <= 20.001).all()
    assert (windows[:, 3] <= 10.001).all()
    # Wherever a box of a shape lies, a window overlaps with it.
    there = torch.tensor([[3.3, 4.1, 5.3, 6.1], [7.7, 2.2, 17.7, 7.2]])
    assert best_overlaps(there, windows)[0].min() > 0.6


def matched(scores: Sequence[float], right: Sequence[bool], n: int) -> Matched:
    place = np.zeros(len(scores), int)
    return Matched(place, np.array(scores), np.array([right]), np.ones((1, len(right)), bool), np.array([n]))


def test_a_threshold_is_the_best_there_is() -> None:
    one = matched([0.9, 0.8, 0.7, 0.6, 0.1], [True, True, False, True, False], 4)
    assert best_point([one], None) == (0.35, True)
    # Nineteen right ones, a wrong one, one that is right: the bound of nineteen is .875, of all .81.
    row = matched([1 - i / 100 for i in range(21)], [True] * 19 + [False, True], 30)
    assert best_point([row], 0.8) == (pytest.approx(0.4), True)
    assert best_point([row], 0.87) == (pytest.approx(0.815), True)
    # Nothing is as sure: the place whose bound is highest, and it is said.
    assert best_point([row], 0.95) == (pytest.approx(0.815), False)
    ties = best_point([matched([0.5, 0.5], [True, False], 1)], 0.9)
    assert ties == (0.25, False)
    assert best_point([matched([0.5], [False], 3)], None) is None
    # What lies on an ignored place is no mistake.
    ignored = replace(matched([0.9, 0.8], [False, True], 1), counts=np.array([[False, True]]))
    assert best_point([ignored], None) == (0.4, True)


def test_boxes_of_one_picture_are_not_as_many_as_boxes_of_many() -> None:
    """Half right, mixed in each of twenty pictures, beside ten pictures all right and ten all wrong."""
    right = np.tile([True, False], 40)
    mixed, parted = np.repeat(np.arange(20), 4), np.where(right, np.arange(80) % 20 // 2, 10 + np.arange(80) % 20 // 2)
    scores = np.linspace(1, 0.5, 80)

    def bound(picture: Any) -> float:
        counts = np.ones((1, 80), bool)
        return float(Ranked.of([Matched(picture, scores, right[None], counts, np.full(20, 4))]).lower(1.96)[-1])

    assert bound(mixed) == pytest.approx(wilson(0.5, 80, 1.96)[0], abs=1e-6)
    assert bound(parted) == pytest.approx(wilson(0.5, 20, 1.96)[0], abs=1e-6)
    hits = np.bincount(parted, right, 20).astype(int)
    assert part(hits, np.full(20, 4)) == (0.5, pytest.approx(19.0))


def test_a_rare_class_has_the_threshold_of_all_and_nothing_is_said_of_it() -> None:
    boxes = tuple(BoxRecord((20.0 * i, 0.0, 20.0 * i + 10, 10.0), "often") for i in range(5))
    rare = BoxRecord((0.0, 50.0, 10.0, 60.0), "rare")
    there = [BoxedPicture(name, (200, 200), (*boxes, rare)) for name in "ab"]
    found = [replace(p, boxes=tuple(BoxRecord(b.box, b.label, 0.8) for b in p.boxes)) for p in there]
    often, row = calibrated(there, found, [0, 1], ("often", "rare"))
    assert (often["own"], often["n"], often["threshold"], often["recall"]) == (True, 10, 0.4, 1.0)
    assert (row["own"], row["n"], row["threshold"]) == (False, 2, 0.4)
    assert [row[name] for name in FIGURES] == [None] * 4
    assert often["promised"] is None


def test_figures_of_a_threshold_are_of_pictures_that_it_was_not_chosen_on() -> None:
    """In the first fold scores are half as high: what was chosen on the other finds none of it."""
    boxes = tuple(BoxRecord((20.0 * i, 0.0, 20.0 * i + 10, 10.0), "a") for i in range(10))
    there = [BoxedPicture(name, (200, 200), boxes) for name in "ab"]
    found = [
        replace(p, boxes=(*(BoxRecord(b.box, "a", s) for b in boxes), BoxRecord((0, 90, 9, 99), "a", s / 10)))
        for p, s in zip(there, (0.4, 0.9), strict=True)
    ]
    (row,) = calibrated(there, found, [0, 1], ("a",))
    assert row["threshold"] == pytest.approx((0.4 + 0.09) / 2)
    assert row["recall"] == 0.5, "from .495 none of the first, from .22 all of the second"
    assert row["precision"] == 1.0
    assert row["recall_interval"][0] < 0.5 < row["recall_interval"][1]


def test_folds_keep_copies_together_and_spread_what_has_boxes(data: BoxData, tmp_path: Path) -> None:
    copies = [tmp_path / f"copy{i}.png" for i in range(2)]
    for copy in copies:
        copy.write_bytes(Path(data.pictures[0].image).read_bytes())
    more = (*(replace(data.pictures[0], image=str(copy)) for copy in copies), *(
        replace(p, boxes=()) for p in data.pictures[12:]
    ))  # fmt: skip
    given = replace(data, pictures=(*data.pictures[:12], *more))
    for seed in range(4):
        fold = dealt(given, 5, seed)
        assert len({fold[0], fold[12], fold[13]}) == 1
        boxed = [fold[:14].count(k) for k in range(5)]
        assert min(boxed) >= 2
        assert max(boxed) <= 4
    assert dealt(given, 5, 0) != dealt(given, 5, 1)
    assert sorted(dealt(replace(data, pictures=data.pictures[:3]), 5, 0)) == [0, 1, 2]


def test_each_picture_is_found_by_a_detector_that_has_not_learnt_from_it(data: BoxData, tmp_path: Path) -> None:
    """A method that remembers what it learnt from, in which a class of one picture is not known to the others."""
    green = BoxRecord((0, 0, 9, 9), "green")
    few = replace(data, pictures=(replace(data.pictures[0], boxes=(green,)), *data.pictures[1:6]))
    few = replace(few, classes=("red", "blue", "green"))
    fold, learnt = dealt(few, 3, 0), list[tuple[set[str], tuple[str, ...]]]()

    @dataclass(frozen=True)
    class Remembers:
        name = "remembers"
        zoom: float = 1.0

        def fit(self, reader: Reader, given: BoxData, *, progress: Any = None) -> Any:
            learnt.append(({p.image for p in given.pictures}, given.classes))
            return Everywhere(len(given.classes))

    kept = tmp_path / "kept"
    reader = Reader(colours(), 1.0, kept={})

    def found_in(data: BoxData) -> list[BoxedPicture]:
        return out_of_fold(Remembers(), reader, data, fold, Progress(), kept)

    found = found_in(few)
    assert [p.image for p in found] == [p.image for p in few.pictures]
    assert all(len(p.boxes) for p in found)
    for k, (images, classes) in enumerate(learnt):
        assert images == {p.image for p, f in zip(few.pictures, fold, strict=True) if f != k}
        assert ("green" in classes) is (fold[0] != k)
    # Folds that are done are not done again, but where the pictures are others.
    assert found_in(few) == found
    assert len(learnt) == 3
    assert beside(kept).is_file()
    others = replace(few, pictures=(few.pictures[0], *data.pictures[6:11]))
    again = found_in(others)
    assert len(learnt) == 6
    beside(kept).write_bytes(beside(kept).read_bytes()[:-9])
    assert (found_in(few), found_in(others)) == (found, again), "what was cut short is found again"
    assert len(learnt) == 7
    beside(kept).write_text("mine")
    with pytest.raises(ForeignFileError):
        found_in(few)


class Everywhere:
    """Finds the left half, of every class."""

    def __init__(self, n: int) -> None:
        self.n = n

    def regions(self, encoder: Any, looked: Any) -> Regions:
        return Regions(torch.tensor([[0.0, 0.0, 0.5, 1.0]]), torch.full((1, self.n), 0.5))

    def tensors(self) -> dict[str, torch.Tensor]:
        return {}


def test_a_file_is_looked_at_once_by_a_reader_that_keeps(data: BoxData, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, names = Reader(colours(), 1.0, kept={}), [p.image for p in data.pictures[:2]]
    first = list(reader.looked([names[0], "/none.png", names[1]]))
    plain = list(Reader(colours(), 1.0).looked(names))
    assert [type(one) for one in first] == [Looked, Failure, Looked]
    assert list(reader.kept or ()) == names
    monkeypatch.setattr(Reader, "_look", lambda self, pictures: iter(pictures))
    for a, b, c in zip(first[::2], reader.looked(names), plain, strict=True):
        assert isinstance(a, Looked)
        assert isinstance(b, Looked)
        assert isinstance(c, Looked)
        assert torch.equal(a.features, b.features)
        torch.testing.assert_close(a.features, c.features, atol=2e-3, rtol=1e-3)
    monkeypatch.undo()
    monkeypatch.setattr("seewhy.dense.reader.MOST_KEPT", plain[0].features.numel())  # type: ignore[union-attr]
    little = Reader(colours(), 1.0, kept={})
    for _ in range(2):
        assert [type(one) for one in little.looked(names)] == [Looked, Looked]
        assert list(little.kept or ()) == names[:1]


def test_what_cannot_be_learnt_from_is_told(data: BoxData, tmp_path: Path) -> None:
    empty = BoxData(tuple(BoxedPicture(p.image, p.size) for p in data.pictures), ("red",))
    with pytest.raises(DataError, match=r"At least one box is needed for training, got 24"):
        fit_detector(empty, colours())
    with pytest.raises(
        DataError, match=r"^At least 2 different pictures with boxes are needed for cross-validation, got 1"
    ):
        fit_detector(BoxData(data.pictures[:1], data.classes), colours())
    with pytest.raises(InputError, match="precision=2"):
        fit_detector(data, colours(), precision=2)
    with pytest.raises(
        InputError, match=r"The detector owlv2 cannot be trained\. Choose one of auto, denseclip_boxes, dito, linear"
    ):
        fit_detector(data, colours(), method="owlv2")
    with pytest.raises(UnknownNameError, match="zooom"):
        fit_detector(data, colours(), zooom=2)
    with pytest.raises(InputError, match=r"`rounds` of linear must be .*, got -1"):
        Linear(rounds=-1)
    with pytest.raises(
        InputError, match=r"must be trained on pictures before it can be used\..*--task boxes .*--method linear"
    ):
        seewhy.detect(np.zeros((9, 9, 3), np.uint8), ["cat"], colours(), detector="linear")


def test_missing_and_broken_pictures_are_named_and_the_rest_is_learnt(data: BoxData, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    boxes = (BoxRecord((1, 1, 20, 20), "red"),)
    odd = (BoxedPicture(str(tmp_path / "broken.png"), (64, 64), boxes), BoxedPicture("/none.png", (64, 64), boxes))
    mixed = BoxData((*data.pictures[:8], *odd), (*data.classes, "never"), missing=("/none.png",), notes=("of old",))
    heard = Progress()
    made = fit_detector(mixed, colours(), method="linear", folds=2, progress=heard, **SMALL)
    assert made.classes == data.classes
    assert [Path(f.image).name for f in heard.failures] == ["broken.png"]
    assert heard.notes[0] == "of old"
    assert made.calibration["n_pictures"] == 8
    assert any("class(es) have fewer than 10 boxes" in note for note in heard.notes)
    assert made.measured.startswith("Not measured: every class has fewer than 10 boxes")


def test_many_objects_in_one_picture(data: BoxData) -> None:
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 60, (10_000, 2))
    crowd = tuple(BoxRecord((x, y, x + 3, y + 3), "red") for x, y in corner.tolist())
    full = BoxData((*data.pictures[:4], BoxedPicture(data.pictures[4].image, (64, 64), crowd)), data.classes)
    assert Linear(**SMALL).fit(Reader(colours(), 2.0), usable(full)).weight.isfinite().all()


def test_a_saved_one_is_read_with_care(fitted: TrainedDetector, tmp_path: Path) -> None:
    folder = save_detector(fitted, tmp_path / "det")
    with pytest.raises(ModelError, match="SeeWhy never loads an encoder only because a file names it"):
        load_detector(folder)
    card = json.loads((folder / "detector.json").read_text())
    figures = {"ap50": 0.5, "ap50_interval": [0.4, 0.6], "n_pictures": 9, "n_folds": 5, "fewest": 10, "controls": []}
    figures["classes"] = [{"ap50": 0.5}]
    damaged: tuple[dict[str, Any], ...] = (
        {"thresholds": [0.5]}, {"thresholds": [0.5, 7]}, {"classes": ["a", "b", "c"]}, {"method": "owlv3"},
        *({"calibration": figures | wrong} for wrong in ({"ap50": "high"}, {"controls": [None]}, {"controls": [{}]})),
        {"calibration": {"ap50": 0.5, "n_folds": 5}},
    )  # fmt: skip
    for change in damaged:
        (folder / "detector.json").write_text(json.dumps({**card, **change}))
        with pytest.raises(ModelError, match="is damaged"):
            load_detector(folder, encoder=colours())
    with pytest.raises(ModelError, match="Make one with: seewhy fit --task boxes DATA -o"):
        load_detector(tmp_path, encoder=colours())
    (tmp_path / "segmenter.json").write_text("{}")
    with pytest.raises(ModelError, match=r"must contain a saved detector, got a saved segmenter\. .* seewhy segment P"):
        load_detector(tmp_path, encoder=colours())
    with pytest.raises(InputError, match="finds only the classes it was trained on: red, blue"):
        fitted.for_classes(["green"])
    assert fitted.for_classes(["red", "blue"]) is fitted


def test_from_the_command_line(data: BoxData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import seewhy.encoders.find

    monkeypatch.setattr(seewhy.encoders.find, "encoder", lambda name, engine="auto": colours())
    monkeypatch.setattr(seewhy.encoders.find, "encoder", lambda name, engine="auto": colours())
    boxes = save_boxes(BoxData(data.pictures[:10], data.classes), tmp_path / "data")[0]

    def run(*words: str) -> Any:
        done = CliRunner().invoke(app, [*words, "--quiet"])
        assert done.exit_code == 0, (done.output, done.exception)
        return done.stdout

    sets = [word for name, value in SMALL.items() for word in ("--set", f"{name}={value}")]
    fit = ["fit", str(boxes), "--task", "boxes", "-o", str(tmp_path / "det"), "--method", "linear", *sets]
    about = json.loads(run(*fit, "--json"))
    check("fit-detector", [about])
    assert about["classes"] == ["red", "blue"]
    told = run(*fit, "--set", "precision=0.9", "--set", "folds=2").splitlines()
    assert told[0].startswith(f"{tmp_path / 'det'}: linear, 2 class(es), ")
    assert re.match(r"Expect an AP50 of \d+ to \d+ on 10 new pictures like the training pictures\.", told[1])
    assert re.match(r"red\tfrom a score of 0\.\d\d: precision \d+ % \(\d+ to \d+ %\).*, recall .*, 10 boxes$", told[2])
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == [], "what was kept on the way is gone"
    saved = ["-m", str(tmp_path / "det"), "-e", "colours"]
    found = json.loads(run("detect", data.pictures[0].image, *saved, "--json"))
    check("detect", [found])
    assert set(found["parameters"]["thresholds"]) == {"red", "blue"}
    report = json.loads(run("evaluate", str(boxes), *saved, "--novel", "blue", "--json"))
    check("evaluate-boxes", [report])
    assert report["ap50"] > 0.6
    (note,) = report["notes"]
    assert note.startswith(
        "The detector was fitted on 10 of 10 pictures, so its metrics are too optimistic. The first is"
    )
    assert note.endswith("/0.png.")
    others = save_boxes(BoxData(data.pictures[8:14], data.classes), tmp_path / "others")[0]
    notes = json.loads(run("evaluate", str(others), *saved, "--json"))["notes"]
    assert ["2 of 6" in note for note in notes] == [True]
    unseen = save_boxes(BoxData(data.pictures[10:14], data.classes), tmp_path / "unseen")[0]
    assert json.loads(run("evaluate", str(unseen), *saved, "--json"))["notes"] == []
    wrong = CliRunner().invoke(app, ["detect", data.pictures[0].image, *saved, "--tiles", "2"])
    assert (
        "--model and --tiles cannot be combined, because a saved detector uses the tiles it "
        "was fitted with. Use only one of them, or fit the detector with another --set zoom=…."
    ) in str(wrong.exception)
