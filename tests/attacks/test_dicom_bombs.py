"""DICOM files made to harm: each is one sentence that names no patient, soon and in little memory."""

from __future__ import annotations

import logging
import struct
import traceback
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bombs import many_scans
from scans import NUMBER, PATIENT, dataset, saved
from seewhy.errors import ImageError
from seewhy.pictures import dicom
from seewhy.pictures.images import read_picture
from tiny import TRANSFORM

encaps = pytest.importorskip("pydicom.encaps")

VALUES = np.arange(48, dtype=np.uint16).reshape(6, 8)
DEFLATED, RLE, JPEG = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.50"
UNFIT = "whose pixels do not fit its header"
EMPTY = "is DICOM without pixels (a report, a directory or cut off); name the file of a picture, or copy it again"
HEADER = "is DICOM, but its header is damaged or cut off; copy or export it again"


def without_pixels() -> bytes:
    made = dataset(VALUES)
    del made.PixelData
    return saved(made)


def without_rows() -> bytes:
    made = dataset(VALUES)
    del made.Rows
    return saved(made)


def huge() -> bytes:
    return saved(dataset(VALUES, Rows=50_000, Columns=50_000))


def endless_element() -> bytes:
    return saved(dataset(VALUES))[:-104] + b"\xe0\x7f\x10\0OW\0\0" + struct.pack("<I", 0xFFFFFFF0) + bytes(8)


def packed(frame: bytes, syntax: str) -> bytes:
    made = dataset(VALUES.astype(np.uint8), PixelData=encaps.encapsulate([frame]))
    made.file_meta.TransferSyntaxUID = syntax
    made["PixelData"].VR, made["PixelData"].is_undefined_length = "OB", True
    return saved(made)


def bursting_runs() -> bytes:
    return packed(struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\0" * 200_000, RLE)


def deflated() -> bytes:
    made = dataset(VALUES)
    made.file_meta.TransferSyntaxUID = DEFLATED
    return saved(made)


def odd_bits() -> bytes:
    return saved(dataset(VALUES, BitsAllocated=13))


CASES: list[tuple[Callable[[], bytes], str]] = [
    (without_pixels, EMPTY),
    (without_rows, HEADER),
    (huge, "has 2,500,000,000 pixels, more than the 178,956,970 allowed"),
    (lambda: saved(dataset(VALUES, Rows=0)), "has no pixels (8 by 0); the size must be at least 1 by 1"),
    (lambda: saved(dataset(VALUES))[:-40], UNFIT),
    (lambda: saved(dataset(VALUES, Rows=60)), UNFIT),
    (lambda: saved(dataset(VALUES, SamplesPerPixel=7)), UNFIT),
    (odd_bits, UNFIT),
    (endless_element, UNFIT),
    (lambda: bytes(128) + b"DICM", EMPTY),
    (lambda: bytes(128) + b"DICM" + b"\xff" * 99, EMPTY),
    (lambda: packed(bytes(64), "1.2.840.10008.1.2.4.80"), "JPEG-LS Lossless Image Compression, which no installed"),
    (lambda: packed(many_scans(400), JPEG), "has more than 64 scans; save it again"),
    (bursting_runs, "has more pixels than its header says; export it again uncompressed"),
    (deflated, "is deflated DICOM, which SeeWhy does not read; export it without deflating it"),
]


@pytest.mark.parametrize("number", range(len(CASES)))
def test_each_is_one_sentence(number: int) -> None:
    make, expected = CASES[number]
    data = make()
    tracemalloc.start()
    with pytest.raises(ImageError) as caught:
        read_picture(data, TRANSFORM)
    assert tracemalloc.get_traced_memory()[1] < 80_000_000
    tracemalloc.stop()
    assert expected in caught.value.reason, caught.value.reason
    assert "\n" not in caught.value.reason


def test_no_patient_is_named(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    whole = dataset(np.stack([VALUES, VALUES]), WindowCenter=9, WindowWidth=9)
    said = []
    with caplog.at_level(logging.DEBUG):
        data = saved(whole).replace(b"19700101", b"not.date")
        caplog.clear()
        assert PATIENT.encode() in data
        assert NUMBER.encode() in data
        read_picture(data, TRANSFORM)
        for cut in range(140, len(data) - 1, 7):
            with pytest.raises(ImageError) as caught:
                read_picture(data[:cut], TRANSFORM)
            said.append(str(caught.value))
    text = " ".join([caplog.text, *said, *capfd.readouterr()])
    assert "has 2 frames" in text
    assert not any(secret in text for secret in ("Secret", "4711", "not.date"))


def test_identifying_elements_are_not_even_parsed() -> None:
    opened: Any = dicom.open_dicom("x", saved(dataset(VALUES, WindowCenter=9)), 9)
    assert {"WindowCenter", "Rows"} <= set(opened._dataset.dir())
    assert not {"PatientName", "PatientID", "PatientBirthDate"} & set(opened._dataset.dir())


@pytest.mark.parametrize("keyword", ["WindowCenter", "RescaleSlope", "NumberOfFrames"])
def test_a_name_in_the_place_of_a_number_is_not_shown(keyword: str, caplog: pytest.LogCaptureFixture) -> None:
    data = saved(dataset(VALUES, WindowWidth=9, **{keyword: 471147})).replace(b"471147", b"Secret")
    caplog.clear()
    with caplog.at_level(logging.DEBUG), pytest.raises(ImageError) as caught:
        read_picture(data, TRANSFORM)
    assert caught.value.reason.startswith(f"is DICOM {UNFIT}")
    whole = "".join(traceback.format_exception(caught.value))
    assert "Secret" not in caplog.text + whole + repr(caught.value.__context__)
    logging.getLogger("pydicom").warning("somebody else's")
    assert "somebody else's" in caplog.text
