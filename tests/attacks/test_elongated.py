"""Pictures a thousand times as long as wide: a bounded number of windows, or one sentence, and the rest goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from seewhy.dense.pretrained import READ, PretrainedDetector, part_of
from seewhy.dense.reader import LONGEST, MOST, WHOLE, Looked, Reader, tiling
from seewhy.dense.regions import Detections, Keep
from seewhy.types import Failure
from tiny_words import tiny_pair

STRIPS = ((1, 1000), (1000, 1), (1, 65000), (3, 20000), (8000, 8), (1, 65))


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader(tiny_pair(), zoom=1.0)


def strip(folder: Path, width: int, height: int) -> str:
    path = folder / f"{width}x{height}.png"
    Image.new("RGB", (width, height), (200, 30, 60)).save(path)
    return str(path)


def test_too_elongated_is_one_sentence_and_the_rest_goes_on(tmp_path: Path, reader: Reader) -> None:
    names = [strip(tmp_path, *size) for size in (*STRIPS, (20, 20))]
    *refused, last = reader.looked(names)
    assert isinstance(last, Looked)
    assert [one.image for one in refused if isinstance(one, Failure)] == names[:-1]
    assert isinstance(refused[0], Failure)
    assert refused[0].error == (
        "has 1 by 1,000 pixels; the longer side may be at most 64 times the shorter side for a sliding window; cut the "
        "picture into shorter pieces"
    )


def test_what_is_just_short_enough_is_looked_at_as_before(tmp_path: Path, reader: Reader) -> None:
    (found,) = reader.looked([strip(tmp_path, LONGEST, 1)])
    assert isinstance(found, Looked)
    assert found.windows.n == (1, 57)


@pytest.mark.parametrize("along", [1, 2, 16, 32])
@pytest.mark.parametrize("ratio", [1, 1.5, 10, LONGEST])
def test_windows_on_one_picture_are_bounded(along: int, ratio: float) -> None:
    down, across = tiling((round(100 * ratio), 100), along)
    assert down * across <= MOST
    assert across >= down
    fewer = tiling((round(100 * ratio), 100), down + 1)
    assert down == along or fewer[0] == down  # no fewer than the bound asks for


def test_few_large_pictures_wait_decoded_where_each_has_many_windows(
    tmp_path: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    fine, reads = Reader(reader.base, zoom=8.0), 0
    read = Reader.cut

    def counted(self: Reader, number: int, source: Any) -> Any:
        nonlocal reads
        reads += 1
        return read(self, number, source)

    monkeypatch.setattr(Reader, "cut", counted)
    looked = fine.looked([strip(tmp_path, 20, 20 + i) for i in range(12)])
    next(looked)
    looked.close()  # type: ignore[attr-defined]
    assert reads <= 3


def test_ready_detectors_pad_no_strip_to_a_square_of_its_length(tmp_path: Path) -> None:
    shapes = []

    def look(pixels: np.ndarray) -> Any:
        shapes.append(pixels.shape)
        return torch.tensor([[0.0, 0.0, pixels.shape[1], pixels.shape[0]]]), torch.ones(1, 1)

    detector = PretrainedDetector(("a",), {}, look, Keep(0.1, 0.5, 9))
    refused, long = detector.detect_all([strip(tmp_path, 20000, 3), strip(tmp_path, 8192, 200)])
    assert isinstance(refused, Failure)
    assert "20,000 by 3 pixels" in refused.error
    assert shapes == [(100, READ, 3)]
    assert isinstance(long, Detections)
    assert long.regions[0].box == (0, 0, 8192, 200)
    assert part_of(strip(tmp_path, 40, 20), (40, 20), WHOLE).shape == (20, 40, 3)
