"""Pictures of 12 bits in files of 16 are not black, and those that use the whole range are as they were."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from hostile import encoded, png_chunk
from seewhy.pictures import colours
from seewhy.pictures.images import read_picture
from seewhy.types import Transform

RAMP = np.array([[0, 1000, 2000, 4000]], np.uint16)
SIZE = Transform((1, 4), (1, 4), "bilinear", (0.0,) * 3, (1.0,) * 3)


@pytest.fixture(autouse=True)
def _nothing_noted() -> Iterator[None]:
    colours._noted.clear()
    yield
    colours._noted.clear()


def grey(source: bytes | np.ndarray) -> list[int]:
    return [int(v) for v in read_picture(source, SIZE).pixels[0, :, 0]]


def png(values: np.ndarray, *chunks: bytes) -> bytes:
    data = encoded(Image.fromarray(values), "PNG")
    return data[:33] + b"".join(chunks) + data[33:]


def tiff(values: np.ndarray, tags: dict[int, int]) -> bytes:
    file, info = io.BytesIO(), TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in tags.items():
        info[tag] = value
    Image.fromarray(values).save(file, "TIFF", tiffinfo=info)
    return file.getvalue()


def test_twelve_bits_in_sixteen_are_seen_and_said(caplog: pytest.LogCaptureFixture) -> None:
    twelve = [0, 62, 125, 249]
    assert grey(png(RAMP)) == grey(tiff(RAMP, {})) == grey(RAMP) == grey(RAMP.astype(np.int32)) == twelve
    assert len(caplog.messages) == 1
    assert caplog.messages[0].endswith(
        ": has values up to 4,000 of 65,535; it and similar pictures are read as 12-bit pictures"
    )


def test_a_folder_of_one_camera_is_scaled_alike() -> None:
    """The half as bright picture stays half as bright."""
    assert grey(png(RAMP // 2)) == [0, 31, 62, 125]


def test_the_whole_range_is_as_it_was(caplog: pytest.LogCaptureFixture) -> None:
    wide = np.array([[0, 4096, 32768, 65535]], np.uint16)
    assert grey(png(wide)) == grey(tiff(wide, {})) == grey(wide) == [0, 16, 128, 255]
    every = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    size = Transform((256, 256), (256, 256), "bilinear", (0.0,) * 3, (1.0,) * 3)
    assert np.array_equal(read_picture(every, size).pixels[..., 0], (every.astype(np.uint32) + 128) // 257)
    assert not caplog.records


def test_eight_bits_in_sixteen_are_kept() -> None:
    assert grey(png(np.array([[0, 1, 100, 255]], np.uint16))) == [0, 1, 100, 255]


def test_what_the_file_states_counts(caplog: pytest.LogCaptureFixture) -> None:
    fourteen = [0, 16, 31, 62]
    assert grey(tiff(RAMP, {341: 16383})) == grey(tiff(RAMP, {281: 16383})) == fourteen
    assert grey(tiff(RAMP, {281: 65535})) == [0, 4, 8, 16]
    assert not caplog.records


def test_what_the_file_states_and_does_not_keep_to_does_not_count() -> None:
    wide = np.array([[0, 4096, 32768, 65535]], np.uint16)
    assert grey(tiff(wide, {281: 4095})) == [0, 16, 128, 255]
    assert grey(tiff(RAMP, {281: 0})) == [0, 62, 125, 249]


def test_packed_twelve_bits_of_tiff() -> None:
    rows = b"".join(struct.pack(">I", (a << 12 | b) << 8)[:3] for a, b in ((0, 1000), (2000, 4000)))
    tags = {256: 4, 257: 1, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: len(rows)}
    entries = b"".join(struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, v) for tag, v in tags.items())
    start = 8 + len(rows)
    data = b"II*\0" + struct.pack("<I", start) + rows + struct.pack("<H", len(tags)) + entries + b"\0" * 4
    assert grey(data) == [0, 62, 125, 249]


def test_colours_of_twelve_bits_are_not_black(caplog: pytest.LogCaptureFixture) -> None:
    def deep(values: list[int]) -> bytes:
        row = b"\0" + b"".join(struct.pack(">HHH", v, v, v) for v in values)
        head = struct.pack(">IIBBBBB", 4, 1, 16, 2, 0, 0, 0)
        body = png_chunk(b"IHDR", head) + png_chunk(b"IDAT", zlib.compress(row)) + png_chunk(b"IEND", b"")
        return b"\x89PNG\r\n\x1a\n" + body

    assert grey(deep([0, 1000, 2000, 4000])) == [0, 51, 119, 255]
    assert (
        "has 12-bit colours in 16 bits, of which only 4 bits can be read; save it and similar pictures with 8 bits"
    ) in caplog.text
    assert grey(deep([0, 1000, 2000, 40000])) == [0, 3, 7, 156]


def test_a_black_picture_stays_black(caplog: pytest.LogCaptureFixture) -> None:
    assert grey(png(np.zeros((1, 4), np.uint16))) == [0] * 4
    assert not caplog.records


def test_a_stack_is_noted_once(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """A stack of a microscope had cards as any other picture: only its first page was read, and nothing said so."""
    pages = [Image.fromarray(np.full((40, 50, 3), 40 * i, np.uint8)) for i in range(3)]
    pages[0].save(tmp_path / "one.tif")
    for name in ("stack.tif", "more.tif"):
        pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:])
    pages[0].save(tmp_path / "moving.gif", save_all=True, append_images=pages[1:])
    for name in ("one.tif", "moving.gif", "stack.tif", "more.tif"):
        read_picture(tmp_path / name, SIZE)
    said = f"{tmp_path / 'stack.tif'}: has several pages, of which only the first is read; so for similar pictures"
    assert caplog.messages == [said]
