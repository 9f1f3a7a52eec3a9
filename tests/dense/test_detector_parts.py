"""What detectors, their controls and their folder are made of, each beside the answer that it must give."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from seewhy.dense import Detections, Region
from seewhy.dense.evaluation import evaluate_boxes
from seewhy.dense.grounding_dino import GroundingDino
from seewhy.dense.owlv2 import Owlv2
from seewhy.dense.pretrained import PretrainedDetector
from seewhy.dense.reader import box_means
from seewhy.dense.regions import BoxFolder, Keep
from seewhy.errors import ForeignFileError, UnknownNameError
from seewhy.pictures.boxes import BoxData, BoxedPicture, BoxRecord
from seewhy.types import Failure

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


def test_a_ready_detector_takes_its_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    network, processor, _ = asked(torch.zeros(1, 1), torch.zeros(1, 4))
    monkeypatch.setattr("seewhy.dense.pretrained.open_network", lambda *_: (network, processor, "abc"))
    built = Owlv2(least=0.3, overlap=0.4, most=7, tiles=2).build(["cat"], folder="x")
    assert (built.keep, built.tiles) == (Keep(0.3, 0.4, 7), 2)
    assert {k: built.about[k] for k in ("method", "encoder", "fingerprint")} == {
        "method": "owlv2", "encoder": "x", "fingerprint": "abc",
    }  # fmt: skip
    assert built.about["parameters"]["least"] == 0.3
    assert (Owlv2().least, GroundingDino().least) == (0.1, 0.25)


@pytest.mark.parametrize("tiles", [1, 2])
def test_what_is_in_a_tile_is_placed_on_the_picture(tiles: int, tmp_path: Path) -> None:
    pixels = np.zeros((64, 128, 3), np.uint8)
    pixels[40:50, 100:120] = 255

    looks = []

    def look(shown: np.ndarray) -> Any:
        looks.append(shown)
        rows, columns = (np.flatnonzero((shown[..., 0] > 128).any(axis)) for axis in (1, 0))
        if not len(rows):
            return torch.zeros(0, 4), torch.zeros(0, 2)
        box = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        return torch.tensor([box], dtype=torch.float32), torch.tensor([[0.2, 0.9]])

    detector = PretrainedDetector(("a", "b"), {}, look, Keep(), tiles)
    found, failed = detector.detect_all([pixels, tmp_path / "none.png"])
    assert isinstance(found, Detections)
    assert isinstance(failed, Failure)
    assert [d.label for d in found.regions] == ["b"]
    assert found.regions[0].score == pytest.approx(0.9)
    assert np.abs(np.array(found.regions[0].box) - (100, 40, 120, 50)).max() <= 1
    assert (len(looks) > 1) is (tiles > 1)


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
    assert twice["notes"] == [
        "2 picture(s) have no detections in the file and count as without boxes: x/1.png, x/2.png"
    ]


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


def test_a_mean_over_a_large_map_is_exact() -> None:
    grid = torch.full((1, 400, 400), 1000.0)
    grid[0, 399, 399] = 1001.0
    corner = torch.tensor([[398.5, 398.5, 400.0, 400.0]])
    assert float(box_means(grid, corner)) == pytest.approx(1000 + 1 / 2.25, abs=1e-3)
