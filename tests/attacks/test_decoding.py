"""Pictures that ask for more than they are worth are refused soon, by name, and stop nobody else."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from bombs import long_comment, many_chunks, many_scans, many_segments, same_bytes_again
from hostile import encoded, photo, png_chunk
from seewhy.errors import ImageError, WeightsError
from seewhy.pictures import decoding, images
from seewhy.pictures.decoding import count_scans
from seewhy.pictures.images import read_picture
from seewhy.pictures.miniatures import decode_thumbnail
from tiny import TRANSFORM


def refused(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        read_picture(data, TRANSFORM)
    return caught.value.reason


def test_scans_are_counted_as_they_were_written() -> None:
    image = Image.fromarray(photo())
    assert count_scans(encoded(image, "JPEG")) == 1
    progressive = count_scans(encoded(image, "JPEG", progressive=True))
    assert 5 <= progressive <= 13
    assert count_scans(many_scans(20)) == count_scans(many_scans(0)) + 20
    assert count_scans(many_scans(9000), most=30) == 31
    # A thumbnail inside EXIF has scans of its own, which are not the picture's.
    inside = b"Exif\0\0" + encoded(image.resize((16, 12)), "JPEG", progressive=True)
    assert count_scans(encoded(image, "JPEG", exif=inside)) == 1
    # Markers may begin with any number of 0xff; one before 0x00 or a restart is no marker, nor is its last.
    filled = b"\xff\xd8\xff\xff\xff\xda\0\2a\xff\xff\0b\xff\xff\xd3c\xff\xff\xff\xda\0\2d\xff\xff\xd9"
    assert count_scans(filled) == 2


def test_a_jpeg_of_400_scans_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    data = many_scans(400)
    monkeypatch.setattr(Image, "open", lambda *_a, **_k: pytest.fail("was opened"))
    assert refused(data) == "has more than 64 scans; save it again"


def test_the_scans_of_programs_are_read() -> None:
    pixels = read_picture(many_scans(40), TRANSFORM).pixels
    assert (pixels == 128).all()


def test_a_thumbnail_kept_with_a_model_is_counted_too() -> None:
    with pytest.raises(WeightsError, match="more than 64 scans"):
        decode_thumbnail(many_scans(100), "x")


@pytest.mark.parametrize("data", [many_segments(6_000), many_chunks(6_000)], ids=["segments", "chunks"])
def test_a_file_in_too_many_pieces_is_refused(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_picture(data, TRANSFORM).original_size == (8, 8)
    monkeypatch.setattr(decoding, "_MOST_READS", 5_000)
    assert refused(data) == "makes the decoder read it again and again; save it again as PNG"


@pytest.mark.parametrize(
    "data",
    [
        same_bytes_again(3000, 4_000_000),
        encoded(Image.new("RGB", (8, 8)), "PNG")[:33]
        + png_chunk(b"eXIf", same_bytes_again(3000, 4_000_000))
        + encoded(Image.new("RGB", (8, 8)), "PNG")[33:],
        long_comment(20_000),
    ],
    ids=["tiff", "exif", "comment"],
)
def test_what_points_at_itself_costs_little(data: bytes) -> None:
    """3,000 entries for the same 4 MB would fill 12 GB."""
    start = time.thread_time()
    with contextlib.suppress(ImageError):
        read_picture(data, TRANSFORM)
    assert time.thread_time() - start < 5


def test_time_is_limited_and_a_variable_sets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_SECONDS", 0)
    assert refused(encoded(Image.fromarray(photo()), "PNG")) == (
        "takes more than 0 seconds to decode; shrink it, save it again, or set SEEWHY_MAX_SECONDS to a larger number"
    )
    monkeypatch.setenv("SEEWHY_MAX_SECONDS", "soon")
    with pytest.raises(
        decoding.InputError, match="SEEWHY_MAX_SECONDS must be a whole number of seconds, at least 1, got 'soon'"
    ):
        decoding.limit_of("SEEWHY_MAX_SECONDS", "seconds", 30)


def test_seconds_on_the_clock_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is busy with something else refuses no picture."""
    mine = threading.current_thread()
    for name in ("time", "monotonic", "perf_counter"):
        clock = getattr(time, name)

        def read(clock: Callable[[], float] = clock) -> float:
            assert threading.current_thread() is not mine, "looked at the clock"  # threads of other tests may
            return clock()

        monkeypatch.setattr(time, name, read)
    read_picture(encoded(Image.fromarray(photo()), "PNG"), TRANSFORM)


# The page: processes of their own


pytest.importorskip("fastapi", reason="the extra 'app' is not installed, so there is no page")

from seewhy.service.app import worker as decoder_module  # noqa: E402
from seewhy.service.app.worker import BusyError, Decoder  # noqa: E402

HANGS = """
import sys, time
from seewhy.pictures import decoder_process
real = decoder_process.read_picture
def slow(source, transform):
    if source[:4] == b"HANG":
        while True: pass
    if source[:4] == b"GROW":
        return [bytes(10**8) + bytes([i]) * 10**8 for i in range(60)]
    if source[:4] == b"DIES":
        import os; os._exit(3)
    return real(source, transform)
decoder_process.read_picture = slow
decoder_process.main()
"""


@pytest.fixture
def breakable(monkeypatch: pytest.MonkeyPatch) -> Decoder:
    """A decoder whose processes hang, grow or die on command, as a fault in a library would make them."""
    real = subprocess.Popen

    def start(arguments: list[str], variables: object, **options: object) -> subprocess.Popen[bytes]:
        return real([sys.executable, "-P", "-c", HANGS, *arguments[2:]], **options)  # type: ignore[call-overload]

    monkeypatch.setattr(decoder_module, "start_python", start)
    monkeypatch.setattr(decoder_module, "SPARE_SECONDS", 4)
    return Decoder(1, 8)


@pytest.mark.slow
@pytest.mark.parametrize("fault", [b"HANG", b"GROW", b"DIES"])
def test_a_process_that_breaks_is_replaced_and_the_others_are_served(fault: bytes, breakable: Decoder) -> None:
    good = encoded(Image.fromarray(photo()), "PNG")
    expected = read_picture(good, TRANSFORM)
    bad = breakable.read(fault, "bad.jpg", TRANSFORM)
    meanwhile = breakable.read(good, "good.png", TRANSFORM).result(60)
    assert (meanwhile.pixels == expected.pixels).all()
    assert (meanwhile.digest, meanwhile.window, meanwhile.name) == (expected.digest, expected.window, "good.png")
    with pytest.raises(ImageError) as caught:
        bad.result(60)
    assert caught.value.path == "bad.jpg"
    for _ in range(4):
        assert breakable.read(good, "good.png", TRANSFORM).result(60).original_size == expected.original_size
    breakable.stop()


@pytest.mark.slow
def test_what_cannot_be_read_says_the_same_as_everywhere(tmp_path: Path) -> None:
    decoder = Decoder(5, 2)
    text = b"no picture at all"
    with pytest.raises(ImageError) as caught:
        decoder.read(text, "a.txt", TRANSFORM).result(60)
    assert str(caught.value) == f"a.txt: {refused(text)}"
    path = tmp_path / "caf\udce9.png"
    path.write_bytes(encoded(Image.fromarray(photo()), "PNG"))
    assert decoder.read(str(path), path.name, TRANSFORM).result(60).original_size == (64, 48)
    decoder.stop()


def test_more_than_may_wait_are_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder, go = Decoder(1, 2), threading.Event()
    monkeypatch.setattr(decoder, "_read", lambda *_: go.wait(30))
    futures = [decoder.read(b"x", "x", TRANSFORM) for _ in range(2)]
    with pytest.raises(BusyError, match="2 pictures are already waiting"):
        decoder.read(b"x", "x", TRANSFORM)
    go.set()
    assert all(f.result(30) for f in futures)
    decoder.read(b"x", "x", TRANSFORM).result(30)
