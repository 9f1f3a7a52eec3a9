"""What detectors, their controls and their folder are made of, each beside the answer that it must give."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from seewhy.dense import Detections, Region
from seewhy.dense.by_words import detector_for
from seewhy.dense.evaluation import box_controls, evaluate_boxes
from seewhy.dense.grounding_dino import GroundingDino
from seewhy.dense.owlv2 import Owlv2
from seewhy.dense.pretrained import PretrainedDetector
from seewhy.dense.regions import BoxFolder, Keep
from seewhy.dense.windows import box_means
from seewhy.dense.word_regions import WordRegions, cut_regions
from seewhy.errors import ForeignFileError, InputError, UnknownNameError
from seewhy.metrics.average_precision import PictureBoxes
from seewhy.pictures.boxes import BoxData, BoxedPicture, BoxRecord
from seewhy.storage.features import FeatureStore
from seewhy.types import Failure
from tiny_words import tiny_pair

PIXELS = np.zeros((40, 80, 3), np.uint8)


class Words:
    """Numbers words as they come; a full stop is 1, the end 0 and special."""

    all_special_ids = (0,)

    def __init__(self) -> None:
        self.known = {"<end>": 0, ".": 1}

    def __call__(self, sentence: str) -> dict[str, list[int]]:
        words = sentence.replace(".", " .").split()
        return {"input_ids": [*(self.known.setdefault(w, len(self.known)) for w in words), 0]}

    def convert_tokens_to_ids(self, word: str) -> int:
        return self.known[word]


def asked(logits: torch.Tensor, boxes: torch.Tensor) -> tuple[Any, Any, dict[str, Any]]:
    """A network that answers so, its processor, and what this one was given."""
    given: dict[str, Any] = {}

    class Processor:
        tokenizer = Words()

        def __call__(self, **more: Any) -> dict[str, Any]:
            given.update(more)
            return {}

    class Network:
        config = SimpleNamespace(max_text_len=8)

        def __call__(self) -> Any:
            return SimpleNamespace(logits=logits[None], pred_boxes=boxes[None])

    return Network(), Processor(), given


def test_the_best_word_of_a_name_is_its_score() -> None:
    logits = torch.tensor([[2.0, -1.0, 5.0, 0.0, 9.0, 9.0, 9.0]])  # Red cat . dog . <end> and padding
    network, processor, given = asked(logits, torch.tensor([[0.5, 0.5, 0.5, 0.25]]))
    boxes, scores = GroundingDino().look(("Red cat", "dog"), network, processor)(PIXELS)
    assert given["text"] == "red cat. dog."
    torch.testing.assert_close(scores, torch.tensor([[2.0, 0.0]]).sigmoid())
    assert boxes.tolist() == [[20, 15, 60, 25]]
    with pytest.raises(InputError, match="1 names are 2 words to Grounding DINO, which reads 8"):
        GroundingDino().look(("..",), network, processor)
    with pytest.raises(InputError, match="2 names are 10 words"):
        GroundingDino().look(("a b c", "d e f g"), network, processor)


def test_owlv2_pads_to_a_square_and_asks_sentences() -> None:
    logits = torch.tensor([[2.0, -1.0]])
    network, processor, given = asked(logits, torch.tensor([[0.5, 0.25, 0.5, 0.25]]))
    boxes, scores = Owlv2().look(("cat", "dog"), network, processor)(PIXELS)
    assert given["text"] == [["a photo of a cat.", "a photo of a dog."]]
    torch.testing.assert_close(scores, logits.sigmoid())
    assert boxes.tolist() == [[20, 10, 60, 30]]


def test_a_ready_detector_takes_its_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    network, processor, _ = asked(torch.zeros(1, 1), torch.zeros(1, 4))
    monkeypatch.setattr("seewhy.dense.pretrained.open_network", lambda *_: (network, processor, "abc"))
    built = Owlv2(least=0.3, overlap=0.4, most=7, tiles=2).build(["cat"], folder="x")
    assert (built.keep, built.tiles) == (Keep(0.3, 0.4, 7), 2)
    assert {k: built.about[k] for k in ("method", "encoder", "fingerprint")} == {
        "method": "owlv2", "encoder": "x", "fingerprint": "abc",
    }  # fmt: skip
    assert built.about["parameters"]["least"] == 0.3
    assert (Owlv2().least, GroundingDino().least, Owlv2.tiled(3)) == (0.1, 0.25, {"tiles": 3})


@pytest.mark.parametrize("tiles", [1, 2])
def test_what_is_in_a_tile_is_placed_on_the_picture(tiles: int, tmp_path: Path) -> None:
    pixels = np.zeros((64, 128, 3), np.uint8)
    pixels[40:50, 100:120] = 255

    def look(shown: np.ndarray) -> Any:
        rows, columns = (np.flatnonzero((shown[..., 0] > 128).any(axis)) for axis in (1, 0))
        if not len(rows):
            return torch.zeros(0, 4), torch.zeros(0, 2)
        box = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        return torch.tensor([box], dtype=torch.float32), torch.tensor([[0.2, 0.9]])

    detector = PretrainedDetector(("a", "b"), {}, look, Keep(), tiles)
    found, failed = detector.detect_all([pixels, tmp_path / "none.png"])
    assert isinstance(found, Detections)
    assert isinstance(failed, Failure)
    assert [d.label for d in found.found] == ["b"]
    assert found.found[0].score == pytest.approx(0.9)
    assert np.abs(np.array(found.found[0].box) - (100, 40, 120, 50)).max() <= 1
    assert len(detector._crops((128, 64))) == (1 if tiles == 1 else len({c.box for c in detector._crops((128, 64))}))
    assert (len(detector._crops((128, 64))) > 1) is (tiles > 1)


def test_controls_know_less_and_lose_no_picture(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (60, 120, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    pictures = [BoxedPicture(str(tmp_path / "a.png"), (120, 60)), BoxedPicture(str(tmp_path / "gone.png"), (40, 20))]
    there = [PictureBoxes.of([(0, 0, 9, 9)] * 3, [1, 1, 0]), PictureBoxes.of([], [])]
    by = dict(box_controls(pictures, there, there, 2, tiny_pair(), 0))
    for b, middle in zip(by["middle of the picture"][0], ([12, 6, 108, 54], [4, 2, 36, 18]), strict=True):
        assert b.boxes[0].tolist() == pytest.approx(middle)
    assert all(set(b.labels.tolist()) <= {1} for name in by for b in by[name][0] if name != "names shuffled")
    assert all(draw[0].labels.tolist() == [0, 0, 1] for draw in by["names shuffled"])
    norms, none = by["feature norm"][0]
    assert len(none.boxes) == 0
    assert 60 < norms.boxes[:, 2].max() <= 120
    assert norms.boxes[:, 3].max() <= 60
    assert len(set(norms.scores.tolist())) > 1
    assert len(by["names shuffled"]) == 20


def evaluated(there: list[BoxedPicture], found: list[BoxedPicture], n_draws: int = 50) -> dict[str, Any]:
    return evaluate_boxes(BoxData(tuple(there), ("a", "b")), BoxData(tuple(found), ("a", "b")), n_draws=n_draws).data


def test_what_is_ignored_scores_and_files_count_as_they_should() -> None:
    box, other = (0.0, 0.0, 9.0, 9.0), (20.0, 20.0, 29.0, 29.0)
    there = [
        BoxedPicture("x/1.png", (40, 40), (BoxRecord(box, "a"), BoxRecord(other, "b", None, True))),
        BoxedPicture("x/2.png", (40, 40), (BoxRecord(box, "b"),)),
    ]
    sure, unsure = BoxRecord(box, "a", 0.9), BoxRecord(other, "a", 0.1)
    second = BoxedPicture("y/2.png", (40, 40), (BoxRecord(box, "b", 0.8),))
    d = evaluated(there, [BoxedPicture("y/1.png", (40, 40), (unsure, sure)), second])
    assert (d["ap50"], d["n_boxes"], d["n_found"], d["notes"]) == (1, 2, 3, [])
    twice = evaluated(there, [BoxedPicture("y/1.png", None, (sure,)), BoxedPicture("z/1.png", None), second])
    assert (twice["ap50"], twice["n_found"]) == (0, 0)
    assert twice["notes"] == ["2 picture(s) were not looked at, and count as without boxes: x/1.png, x/2.png"]


def test_a_lead_that_its_interval_does_not_part_from_0_is_not_real() -> None:
    """One class is found on every second picture, the other nowhere: the names the other way round do as well."""
    box = (0.0, 0.0, 9.0, 9.0)
    there = [BoxedPicture(f"{i}.png", (40, 40), (BoxRecord(box, "ab"[i % 2]),)) for i in range(12)]
    found = [BoxedPicture(f"{i}.png", (40, 40), (BoxRecord(box, "ab"[(i // 2) % 2], 0.9),)) for i in range(12)]
    d = evaluated(there, found, 200)
    shuffled = d["controls"][0]
    low, high = shuffled["above_best_interval"]
    assert low < 0 < high
    assert shuffled["real"] is False
    assert shuffled["above_best"] == pytest.approx(d["ap50"] - shuffled["ap50_best"], abs=2e-6)


def found_on(name: str, n: int = 1) -> Detections:
    boxes = tuple(Region("a", 0.5, (1.0, 2.0, 3.0, 4.0 + i)) for i in range(n))
    return Detections(
        name,
        (40, 40),
        ("a",),
        boxes,
        {"method": "x", "encoder": "y", "fingerprint": "z", "parameters": {}},
        np.zeros((8, 8, 3), np.uint8),
    )


def test_a_folder_of_boxes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seewhy.dense.regions.MOST_SHOWN", 2)
    folder = BoxFolder(tmp_path / "det", ("a",), "csv")
    for i in range(3):
        folder.add(found_on(f"{i}.png"))
    boxes, page = folder.finish()
    assert (boxes.name, page.name) == ("boxes.csv", "index.html")
    assert boxes.read_text().count("0.5") == 3
    said = page.read_text()
    assert ("0.png" in said, "1.png" in said, "2.png" in said) == (True, True, False)
    assert "1 more picture is in the other files." in said
    with pytest.raises(UnknownNameError):
        BoxFolder(tmp_path / "new", ("a",), "cvs")
    assert not (tmp_path / "new").exists()
    page.write_text("mine")
    with pytest.raises(ForeignFileError):
        BoxFolder(tmp_path / "det", ("a",))


def test_results_keep_their_scores_and_what_is_no_number_is_not_found(tmp_path: Path) -> None:
    one = found_on("a.png")
    assert one.record() == BoxedPicture("a.png", (40, 40), (BoxRecord((1, 2, 3, 4), "a", 0.5),))
    (tmp_path / "a.html").write_text("mine")
    with pytest.raises(ForeignFileError):
        one.save(tmp_path / "a.html")
    boxes, scores = torch.tensor([[0, 0, 9, 9.0], [20, 0, 29, 9]]), torch.tensor([float("nan"), 0.5])
    kept = Keep(least=0.5).detections(boxes, scores, torch.zeros(2, dtype=torch.long), ("a",), (40, 40))
    assert [(d.score, d.box[0]) for d in kept] == [(0.5, 20)]


def test_engine_and_store_are_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engines = []
    monkeypatch.setattr("seewhy.dense.by_words.find", lambda name, engine: engines.append(engine) or tiny_pair())
    detector_for("word_regions", ["a"], "some", engine="torch")
    assert engines == ["torch"]
    store = FeatureStore(tmp_path / "s.sqlite")
    detector_for("word_regions", ["a"], tiny_pair(), store=store)
    assert store._db.execute("SELECT COUNT(*) FROM texts_2").fetchone()[0] > 0


def test_regions_are_of_what_stands_out() -> None:
    """A map that is high everywhere has a region where it is higher, and each belongs to its own map."""
    maps = torch.full((2, 8, 8), 5.0)
    maps[0, 1:3, 1:4] += 1
    maps[1, 4:7, 5:8] += 1
    which, boxes = cut_regions(maps, (0.5, 0.7))
    assert Counter(which.tolist()) == {0: 2, 1: 2}
    for k, place in ((0, (1, 1, 4, 3)), (1, (5, 4, 8, 7))):
        assert (boxes[which == k] - torch.tensor(place)).abs().max() <= 0.6
    assert WordRegions.tiled(3)["size"] > 3


def test_parameters_of_regions_reach_what_they_rule() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (40, 120, 3), np.uint8)
    found = {
        o: detector_for(
            "word_regions", ["a", "b"], tiny_pair(), size=1, overlap=o, least_presence=0.0, part=0.0
        ).detect(pixels)
        for o in (0.0, 1.0)
    }
    assert len(found[0.0]) < len(found[1.0])
    assert max(d.box[2] for d in found[1.0].found) > 60
    small, large = (detector_for("word_regions", ["a"], tiny_pair(), size=s).reader for s in (1.0, 2.0))  # type: ignore[attr-defined]
    assert (small.zoom, large.zoom) == (1.0, 2.0)
    cells = torch.zeros(8, 8, 8)
    narrow, wide = (detector_for("word_regions", ["a"], tiny_pair(), size=1, around=a) for a in (0.1, 1.0))
    torch.manual_seed(0)
    cells = torch.randn(8, 8, 8)
    box, label = torch.tensor([[3.0, 3.0, 5.0, 5.0]]), torch.tensor([0])
    assert narrow.scores(cells, box, label) != wide.scores(cells, box, label)  # type: ignore[attr-defined]


def test_a_mean_over_a_large_map_is_exact() -> None:
    grid = torch.full((1, 400, 400), 1000.0)
    grid[0, 399, 399] = 1001.0
    corner = torch.tensor([[398.5, 398.5, 400.0, 400.0]])
    assert float(box_means(grid, corner)) == pytest.approx(1000 + 1 / 2.25, abs=1e-3)
