"""DICOM: the same grey values as pydicom's own rescaling and windowing, colours, frames, listing."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hostile import encoded
from scans import dataset, saved
from seewhy.pictures.images import read_picture
from seewhy.pictures.sources import list_pictures
from seewhy.types import Transform

pydicom = pytest.importorskip("pydicom")
pixels = pytest.importorskip("pydicom.pixels")

SIZE = (6, 8)
AS_IS = Transform(SIZE, SIZE, "bicubic", (0.0,) * 3, (1.0,) * 3)
KINDS = [("u1", 8), ("i1", 8), ("u2", 12), ("i2", 12), ("u2", 16), ("i2", 16)]
WINDOWS: list[dict[str, Any]] = [
    {"WindowCenter": 40, "WindowWidth": 80},
    {"WindowCenter": [30, 500], "WindowWidth": [60, 900]},
    {"WindowCenter": 35.5, "WindowWidth": 50.5, "VOILUTFunction": "LINEAR_EXACT"},
    {"WindowCenter": 35, "WindowWidth": 50, "VOILUTFunction": "SIGMOID"},
    {"WindowCenter": 20, "WindowWidth": 1},
]


def ramp(kind: str, bits: int) -> np.ndarray:
    low = -(2 ** (bits - 1)) if kind[0] == "i" else 0
    wide = np.linspace(low, low + 2**bits - 1, 24)
    return np.concatenate([wide, np.linspace(0, min(120, low + 2**bits - 1), 24)]).round().astype(kind).reshape(SIZE)


def read(made: Any) -> np.ndarray:
    return read_picture(saved(made), AS_IS).pixels


def grey(made: Any) -> np.ndarray:
    pixels = read(made)
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0].astype(int)


@pytest.mark.parametrize(("kind", "bits"), KINDS)
@pytest.mark.parametrize("rescale", [{}, {"RescaleSlope": 0.5, "RescaleIntercept": -7}])
def test_windows_are_pydicoms(kind: str, bits: int, rescale: dict[str, Any]) -> None:
    values = ramp(kind, bits)
    for window in WINDOWS:
        made = dataset(values, bits, **rescale, **window)
        with np.errstate(over="ignore"):
            theirs = pixels.apply_windowing(pixels.apply_modality_lut(values, made), made).astype(float)
        low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if kind[0] == "i" else (0, 2**bits - 1)
        if rescale:
            low, high = low * 0.5 - 7, high * 0.5 - 7
        expected = (theirs - low) / (high - low) * 255
        assert np.abs(grey(made) - expected).max() <= 0.51, window


def test_without_a_window_wide_values_are_stretched_and_bytes_kept() -> None:
    assert (grey(dataset(ramp("u1", 8))) == ramp("u1", 8)).all()
    for kind, bits in KINDS[1:]:
        values = ramp(kind, bits).astype(float)
        expected = np.rint((values - values.min()) / (values.max() - values.min()) * 255)
        assert np.abs(grey(dataset(ramp(kind, bits), bits)) - expected).max() <= 1, kind
    assert (grey(dataset(np.full(SIZE, 700, "u2"), 12)) == 0).all()


def test_monochrome1_is_inverted() -> None:
    made = dataset(ramp("u2", 12), 12, **WINDOWS[0])
    plain = grey(made)
    made.PhotometricInterpretation = "MONOCHROME1"
    assert plain.max() == 255
    assert (grey(made) == 255 - plain).all()


def test_colours_and_palettes() -> None:
    colours = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
    assert (read(dataset(colours)) == colours).all()
    values = (np.arange(48) % 4).astype(np.uint8).reshape(SIZE)
    made = dataset(values, PhotometricInterpretation="PALETTE COLOR")
    table = np.array([[0, 10, 200, 255], [5, 60, 70, 80], [255, 0, 1, 2]])
    for colour, row in zip(("Red", "Green", "Blue"), table, strict=True):
        setattr(made, f"{colour}PaletteColorLookupTableDescriptor", [4, 0, 16])
        setattr(made, f"{colour}PaletteColorLookupTableData", (row * 257).astype("<u2").tobytes())
    assert (read(made) == table.T[values]).all()


def test_the_first_frame_is_read_and_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    frames = np.stack([ramp("u1", 8), 255 - ramp("u1", 8)])
    with caplog.at_level(logging.WARNING):
        assert (grey(dataset(frames)) == frames[0]).all()
    assert [r.getMessage().split(": ")[1] for r in caplog.records] == ["has 2 frames; only the first is read"]


def test_enhanced_files_keep_their_window_in_groups() -> None:
    plain = dataset(ramp("u2", 12), 12, RescaleSlope=2, RescaleIntercept=-9, **WINDOWS[0])
    made, group, values, window = dataset(ramp("u2", 12), 12), *(pydicom.Dataset() for _ in range(3))
    values.RescaleSlope, values.RescaleIntercept = 2, -9
    window.WindowCenter, window.WindowWidth = 40, 80
    group.PixelValueTransformationSequence, group.FrameVOILUTSequence = [values], [window]
    made.SharedFunctionalGroupsSequence = [group]
    assert (grey(made) == grey(plain)).all()


def test_run_lengths() -> None:
    made = dataset(ramp("u2", 12), 12, **WINDOWS[0])
    plain = grey(made)
    made.compress("1.2.840.10008.1.2.5")
    made.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.5"
    assert (grey(made) == plain).all()


def test_jpeg_inside_is_decoded_as_colours_of_light() -> None:
    picture = np.full((16, 16, 3), (200, 40, 90), np.uint8)
    made = dataset(picture, syntax="1.2.840.10008.1.2.4.50", PhotometricInterpretation="YBR_FULL_422")
    made.PixelData = pydicom.encaps.encapsulate([encoded(Image.fromarray(picture), "JPEG", quality=95)])
    made["PixelData"].is_undefined_length = True
    assert np.abs(read(made).astype(int) - picture[0, 0]).max() <= 4


def test_folders_list_files_with_and_without_suffix(tmp_path: Path) -> None:
    data = saved(dataset(ramp("u1", 8)))
    for name in ("b.DCM", "IM0001", "1.2.840.7", "notes.txt"):
        (tmp_path / name).write_bytes(data)
    (tmp_path / "README").write_text("no picture")
    assert sorted(Path(p).name for p in list_pictures(tmp_path)) == ["1.2.840.7", "IM0001", "b.DCM"]
