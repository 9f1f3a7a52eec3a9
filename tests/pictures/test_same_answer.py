"""One file and one view have one answer: every reader, every EXIF orientation, cut-off files, views read together."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import GifImagePlugin, Image, ImageCms, ImageDraw, ImageFile, ImageOps, TiffImagePlugin

from hostile import encoded, exif, png, png_chunk, turned
from seewhy.encoders.stream import EncodeRequest, encode_stream
from seewhy.errors import ImageError
from seewhy.pictures.decoder_process import read_reply, write_request
from seewhy.pictures.images import read_picture, read_views, upright_size
from seewhy.pictures.pixel_classes import read_values
from seewhy.storage.features import FeatureStore
from seewhy.types import Crop, Transform
from tiny import tiny_cnn

ZEROS, ONES = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
SIZE = (480, 320)
SMALL = Transform((32, 48), (32, 48), "bicubic", ZEROS, ONES)
CORNERS = {(0, 0): "red", (1, 0): "lime", (0, 1): "blue", (1, 1): "yellow"}
TURNING: dict[str, tuple[str, dict[str, Any]]] = {
    "JPEG": ("JPEG", {"quality": 95}),
    "progressive JPEG": ("JPEG", {"quality": 95, "progressive": True}),
    "MPO": ("MPO", {"quality": 95, "save_all": True, "append_images": [Image.new("RGB", SIZE)]}),
    "PNG": ("PNG", {}),
    "WebP": ("WEBP", {"quality": 95}),
    "TIFF": ("TIFF", {}),
    "LZW TIFF": ("TIFF", {"compression": "tiff_lzw"}),
    "AVIF": ("AVIF", {"quality": 95}),
    "HEIF": ("HEIF", {"quality": 95}),
}


def corners() -> Image.Image:
    image = Image.new("RGB", SIZE, "grey")
    for (x, y), colour in CORNERS.items():
        left, top = x * SIZE[0] // 2, y * SIZE[1] // 2
        ImageDraw.Draw(image).rectangle((left, top, left + SIZE[0] // 2, top + SIZE[1] // 2), colour)
    return image


def written(kind: str, orientation: int) -> bytes:
    format, options = TURNING[kind]
    if format == "HEIF":
        heif = pytest.importorskip("pillow_heif")
        heif.register_heif_opener()
    if format == "AVIF" and "AVIF" not in Image.SAVE:
        pytest.skip("this Pillow writes no AVIF")
    return encoded(turned(corners(), orientation), format, exif=exif(orientation), **options)


def seen_corners(pixels: np.ndarray) -> dict[tuple[int, int], str]:
    names = {(255, 0, 0): "red", (0, 255, 0): "lime", (0, 0, 255): "blue", (255, 255, 0): "yellow"}
    height, width = pixels.shape[:2]
    found = {}
    for x, y in CORNERS:
        value = pixels[height // 4 + y * height // 2, width // 4 + x * width // 2].astype(int)
        found[x, y] = next((n for c, n in names.items() if np.abs(value - c).max() < 40), str(value))
    return found


@pytest.fixture(scope="module")
def decoder() -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-P", "-m", "seewhy.pictures.decoder_process", "30", str(2**31)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", TURNING)
def test_every_reader_turns_every_picture_once(
    kind: str, orientation: int, tmp_path: Path, decoder: subprocess.Popen[bytes]
) -> None:
    data = written(kind, orientation)
    file = tmp_path / "a.bin"
    file.write_bytes(data)
    independent = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert independent.size == SIZE
    assert seen_corners(np.asarray(independent.convert("RGB"))) == CORNERS
    large = Transform(SIZE[::-1], SIZE[::-1], "bicubic", ZEROS, ONES)
    for source in (data, file, str(file), bytearray(data), Image.open(io.BytesIO(data))):
        assert upright_size(source) == SIZE
        for transform in (SMALL, large, Transform((40, 40), 50, "bilinear", ZEROS, ONES)):
            picture = read_picture(source, transform)
            assert picture.original_size == SIZE
            assert seen_corners(picture.pixels) == CORNERS
        boxes = [Crop((x / 2, y / 2, x / 2 + 0.5, y / 2 + 0.5)) for x, y in CORNERS]
        quarters = read_views(source, SMALL, boxes)
        for (x, y), quarter in zip(CORNERS, quarters, strict=True):
            assert set(seen_corners(quarter.pixels).values()) == {CORNERS[x, y]}
            assert quarter.to_original((0, 0, 1, 1)) == (240 * x, 160 * y, 240 * x + 240, 160 * y + 160)
        assert upright_size(source) == SIZE  # also after loading
    assert decoder.stdin is not None
    assert decoder.stdout is not None
    write_request(decoder.stdin, data, SMALL)
    reply = read_reply(decoder.stdout, "a", SMALL)
    assert reply.original_size == SIZE
    assert np.array_equal(reply.pixels, read_picture(data, SMALL).pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_a_mask_is_turned_as_its_picture(format: str, orientation: int, tmp_path: Path) -> None:
    values = np.arange(6, dtype=np.uint8).reshape(2, 3)
    file = tmp_path / "mask"
    file.write_bytes(encoded(turned(Image.fromarray(values), orientation), format, exif=exif(orientation)))
    assert np.array_equal(read_values(str(file)), values)


# --- Cut-off files ------------------------------------------------------------------------------------------------

CUT: dict[str, tuple[str, dict[str, Any]]] = {
    **TURNING,
    "interlaced PNG": ("PNG", {"interlace": 1}),
    "lossless WebP": ("WEBP", {"lossless": True}),
    "deflated TIFF": ("TIFF", {"compression": "tiff_deflate"}),
    "JPEG TIFF": ("TIFF", {"compression": "jpeg"}),
    "GIF": ("GIF", {}),
    "BMP": ("BMP", {}),
}
del CUT["MPO"]


@pytest.fixture
def truncated_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)


def noisy(format: str, **options: Any) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3)).astype(np.uint8)
    return encoded(Image.fromarray(noise).resize((320, 240)), format, **options)


@pytest.mark.usefixtures("truncated_are_loaded")
@pytest.mark.parametrize("share", [0.5, 0.9])
@pytest.mark.parametrize("kind", CUT)
def test_a_cut_off_file_is_refused_whatever_pillow_is_set_to(kind: str, share: float) -> None:
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    data = noisy(CUT[kind][0], **CUT[kind][1])
    assert read_picture(data, SMALL).original_size == (320, 240)
    with pytest.raises(ImageError):
        read_picture(data[: int(len(data) * share)], SMALL)
    if CUT[kind][0] in ("PNG", "JPEG"):
        with pytest.raises(ImageError, match="is cut off before its end"):
            read_picture(data[: int(len(data) * share)], SMALL)


@pytest.mark.usefixtures("truncated_are_loaded")
def test_damage_in_the_middle_and_a_mask_are_refused_too(tmp_path: Path) -> None:
    middle = bytearray(noisy("PNG"))
    middle[len(middle) // 2 : len(middle) // 2 + 2000] = bytes(2000)
    with pytest.raises(ImageError):
        read_picture(bytes(middle), SMALL)
    whole = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 9, (99, 99), np.uint8)), "PNG")
    file = tmp_path / "mask.png"
    file.write_bytes(whole)
    assert read_values(str(file)).shape == (99, 99)
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError, match="is cut off"):
        read_values(str(file))


@pytest.mark.usefixtures("truncated_are_loaded")
def test_no_features_of_half_a_picture_are_stored(tmp_path: Path) -> None:
    data = noisy("JPEG")
    file = tmp_path / "a.jpg"
    file.write_bytes(data[: len(data) // 2])
    store = FeatureStore(tmp_path / "store.sqlite")
    assert "is cut off" in next(iter(encode_stream(tiny_cnn(), [file], store=store))).error  # type: ignore[union-attr]
    assert list(store._db.execute("SELECT * FROM looks_2")) == []


def test_pillow_s_registers_and_limits_do_not_change_a_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    files = [noisy("JPEG"), noisy("PNG"), noisy("GIF"), noisy("TIFF", compression="tiff_lzw"), noisy("TIFF")]
    before = [read_picture(data, SMALL).pixels for data in files]

    def grey(*_: Any) -> Any:
        raise AssertionError("a reader that somebody registered")

    for format in ("JPEG", "PNG", "GIF", "TIFF"):
        monkeypatch.setitem(Image.OPEN, format, (grey, lambda _: True))
    monkeypatch.setattr(TiffImagePlugin, "READ_LIBTIFF", True)
    monkeypatch.setattr(GifImagePlugin, "LOADING_STRATEGY", GifImagePlugin.LoadingStrategy.RGB_ALWAYS)
    for data, pixels in zip(files, before, strict=True):
        assert np.array_equal(read_picture(data, SMALL).pixels, pixels)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for data, pixels in zip(files[:2], before, strict=False):
        assert np.array_equal(read_picture(data, SMALL).pixels, pixels)
    with pytest.raises(ImageError, match="has 76,800 pixels, more than PIL"):
        read_picture(files[-1], SMALL)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(ImageError, match="more than the 178,956,970 allowed"):
        read_picture(png(20_000, 20_000, bytes(9), 1, 0), SMALL)


def odd_pictures() -> dict[str, bytes]:
    """Pictures of unusual modes, each with several ways to read it wrongly."""
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3)).astype(np.uint8)
    colours = Image.fromarray(noise).resize((320, 240))
    grey, alpha = colours.convert("L"), Image.linear_gradient("L").resize(colours.size)
    wide = np.asarray(grey).astype(np.uint16) * 257
    with_alpha = Image.merge("LA", (grey, alpha))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    gamma = encoded(colours, "PNG")
    gamma = gamma[:33] + png_chunk(b"gAMA", (100_000).to_bytes(4, "big")) + gamma[33:]
    return {
        "CMYK": encoded(colours.convert("CMYK"), "JPEG", quality=95), "grey JPEG": encoded(grey, "JPEG"),
        "16 bits": encoded(Image.fromarray(wide), "PNG"), "16-bit TIFF": encoded(Image.fromarray(wide), "TIFF"),
        "LA": encoded(with_alpha, "PNG"), "palette": encoded(colours.quantize(16), "PNG", transparency=3),
        "gamma": gamma, "profile": encoded(colours, "PNG", icc_profile=srgb),
        "animated": encoded(colours, "WEBP", save_all=True, append_images=[Image.new("RGB", colours.size)]),
        "GIF": encoded(colours, "GIF", save_all=True, append_images=[Image.new("RGB", colours.size)]),
    }  # fmt: skip


def test_an_odd_picture_is_the_same_by_every_way(tmp_path: Path, decoder: subprocess.Popen[bytes]) -> None:
    assert decoder.stdin is not None
    assert decoder.stdout is not None
    for kind, data in odd_pictures().items():
        file = tmp_path / "a.bin"
        file.write_bytes(data)
        expected = read_picture(file, SMALL)
        for source in (data, memoryview(data), {"bytes": data, "path": None}, {"bytes": None, "path": str(file)}):
            assert np.array_equal(read_picture(source, SMALL).pixels, expected.pixels), kind
        opened = read_picture(Image.open(io.BytesIO(data)), SMALL).pixels.astype(int)  # not scaled while decoded
        assert np.abs(opened - expected.pixels).max() <= 4, kind
        write_request(decoder.stdin, data, SMALL)
        reply = read_reply(decoder.stdout, kind, SMALL)
        assert np.array_equal(reply.pixels, expected.pixels), kind
        assert reply.digest == expected.digest == read_picture(data, SMALL).digest, kind


# --- Views of one picture -----------------------------------------------------------------------------------------


def test_a_view_is_the_same_alone_and_beside_others() -> None:
    data = noisy("JPEG")
    large = encoded(Image.open(io.BytesIO(data)).resize((1600, 1200)), "JPEG", quality=92, exif=exif(6))
    views = [None, Crop((0, 0, 1, 1)), Crop((0.4, 0.4, 0.45, 0.45)), Crop((0.1, 0.1, 0.9, 0.4), flip=True)]
    together = read_views(large, SMALL, views)
    for view, picture in zip(views, together, strict=True):
        alone = read_views(large, SMALL, [view])[0]
        assert np.array_equal(alone.pixels, picture.pixels)
        assert (alone.window, alone.digest) == (picture.window, picture.digest)
    assert np.array_equal(read_picture(large, SMALL).pixels, together[0].pixels)
    assert np.array_equal(read_views(large, SMALL, views[::-1])[0].pixels, together[-1].pixels)


def test_the_features_of_a_view_do_not_depend_on_the_request(tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(encoded(Image.open(io.BytesIO(noisy("JPEG"))).resize((2400, 1800)), "JPEG", quality=92))
    crop = Crop((0.4, 0.4, 0.5, 0.5))
    request = EncodeRequest(views=lambda _: [None, crop])
    both = next(iter(encode_stream(tiny_cnn(), [file], request=request))).pooled  # type: ignore[union-attr]
    for i, view in enumerate([None, crop]):
        alone = next(iter(encode_stream(tiny_cnn(), [file], request=EncodeRequest(views=lambda _, v=view: [v]))))
        assert np.allclose(alone.pooled[0], both[i], atol=1e-5)  # type: ignore[union-attr]
