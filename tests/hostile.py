"""Makes a folder of files that are broken, odd, or meant to do harm; several tests feed on it."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms

OUTCOMES = dict[str, str | None]
HEIGHT, WIDTH = 48, 64


def photo(seed: int = 0) -> np.ndarray:
    """A smooth colour picture with a bright corner, so that turning it shows."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    pixels = np.stack([x * 3, y * 4, (x + y + 10 * seed) % 256], axis=2).astype(np.uint8)
    pixels[:12, :16] = 255
    return pixels


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """The picture as a camera stores it, so that applying ``orientation`` gives it back."""
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    return image.transpose(Image.Transpose(undo[orientation])) if orientation > 1 else image


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, rows: bytes = b"", depth: int = 8, colour: int = 2) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    packed = png_chunk(b"IDAT", zlib.compress(rows, 1))
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + packed + png_chunk(b"IEND", b"")


def tiff_header(width: int, height: int) -> bytes:
    entries = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, height), (279, 100)]
    body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries)) + body + bytes(4)


def broken_jpegs(image: Image.Image) -> dict[str, tuple[bytes, str | None]]:
    whole = encoded(image, "JPEG", quality=90)
    bad_exif = encoded(image, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x03\0\xff\xff\xff\xff" * 3)
    return {
        "cut_in_header.jpg": (whole[:20], "starts like JPEG, but its header is damaged or cut off"),
        "cut_in_middle.jpg": (whole[: len(whole) // 2], "is cut off before its end"),
        "cut_before_last_bytes.jpg": (whole[:-40], "is cut off before its end"),
        "magic_only.jpg": (b"\xff\xd8\xff", "starts like JPEG, but its header is damaged or cut off"),
        "broken_exif.jpg": (bad_exif, None),
        "corrupt_icc.jpg": (encoded(image, "JPEG", icc_profile=b"not a profile" * 20), None),
        "progressive.jpg": (encoded(image, "JPEG", progressive=True), None),
        "cmyk.jpg": (encoded(image.convert("CMYK"), "JPEG"), None),
        "grey.jpg": (encoded(image.convert("L"), "JPEG"), None),
        "srgb_icc.jpg": (
            encoded(image, "JPEG", icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()),
            None,
        ),
        "zeros_after_magic.jpg": (b"\xff\xd8\xff" + bytes(500), "starts like JPEG, but its header is damaged"),
    }


def broken_pngs(image: Image.Image) -> dict[str, tuple[bytes, str | None]]:
    whole = encoded(image, "PNG")
    start = whole.index(b"IDAT") + 4
    flipped = whole[: start + 20] + bytes([whole[start + 20] ^ 255]) + whole[start + 21 :]
    header = bytearray(whole)
    header[29] ^= 255
    squashed = b"".join([zlib.compress(bytes(1000), 9)])
    return {
        "cut.png": (whole[: len(whole) // 2], "is cut off before its end"),
        "bad_crc.png": (bytes(flipped), "cannot be decoded"),
        "bad_header_crc.png": (bytes(header), "starts like PNG, but its header is damaged or cut off"),
        "magic_only.png": (whole[:8], "starts like PNG, but its header is damaged or cut off"),
        "zero_width.png": (png(0, 10), "starts like PNG, but its header is damaged or cut off"),
        "50000x50000.png": (png(50_000, 50_000), "has 2,500,000,000 pixels, more than the 178,956,970 allowed"),
        "bomb.png": (png(20_000, 20_000, bytes(20_000 * 2_501), 1, 0), "has 400,000,000 pixels, more than"),
        "text_bomb.png": (
            whole[:33] + png_chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(80_000_000), 1)) + whole[33:],
            "cannot be decoded (Decompressed ",  # Pillow 10.3 writes capitals
        ),
        "not_enough_rows.png": (png(64, 48, squashed), "is cut off before its end"),
        "one_pixel.png": (encoded(image.resize((1, 1)), "PNG"), None),
        "sliver.png": (encoded(image.resize((1, 5000)), "PNG"), None),
        "lying_sliver.png": (encoded(image.resize((5000, 1)), "PNG"), None),
    }


def odd_modes(image: Image.Image) -> dict[str, tuple[bytes, str | None]]:
    grey = np.asarray(image.convert("L"))
    holes = grey.astype(np.float32) / 255
    holes[3, 4], holes[5, 6] = np.nan, np.inf
    alpha = image.copy()
    alpha.putalpha(Image.fromarray(np.tile(np.linspace(0, 255, WIDTH).astype(np.uint8), (HEIGHT, 1))))
    return {
        "grey16.png": (encoded(Image.fromarray(grey.astype(np.uint16) * 257), "PNG"), None),
        "grey16.tif": (encoded(Image.fromarray(grey.astype(np.uint16) * 257), "TIFF"), None),
        "int32.tif": (encoded(Image.fromarray(grey.astype(np.int32) * 1000 - 5), "TIFF"), None),
        "float_nan.tif": (encoded(Image.fromarray(holes), "TIFF"), None),
        "all_nan.tif": (
            encoded(Image.fromarray(holes * np.nan), "TIFF"),
            "has no finite value; save it again with 8 bits per channel",
        ),
        "rgb16.png": (png(2, 2, b"".join(b"\0" + bytes(range(12)) for _ in range(2)), depth=16), None),
        "rgba.png": (encoded(alpha, "PNG"), None),
        "rgba.webp": (encoded(alpha, "WEBP"), None),
        "la.png": (encoded(alpha.convert("LA"), "PNG"), None),
        "one_bit.png": (encoded(image.convert("1"), "PNG"), None),
        "one_bit.tif": (encoded(image.convert("1"), "TIFF", compression="group4"), None),
        "palette_transparent.png": (encoded(image.quantize(16), "PNG", transparency=bytes(range(0, 160, 10))), None),
        "colour_key.png": (encoded(image, "PNG", transparency=(255, 255, 255)), None),
        "cmyk.tif": (encoded(image.convert("CMYK"), "TIFF"), None),
        "plain.bmp": (encoded(image, "BMP"), None),
    }


def other_containers(image: Image.Image) -> dict[str, tuple[bytes, str | None]]:
    frames = [Image.fromarray(photo(seed)) for seed in (1, 2)]
    gif = encoded(image, "GIF", save_all=True, append_images=frames)
    webp = encoded(image, "WEBP", save_all=True, append_images=frames)
    bmp = b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 50_000, 50_000, 1, 24, 0, 0, 0, 0, 0, 0)
    html = b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>"
    return {
        "animated.gif": (gif, None),
        "animated.webp": (webp, None),
        "no_frames.gif": (b"GIF89a" + struct.pack("<HHBBB", 8, 8, 0, 0, 0) + b";", "cut off"),
        "cut.gif": (gif[:900], "is cut off before its end"),
        "cut.webp": (webp[:200], "cannot be decoded (could not create decoder object)"),
        "50000x50000.bmp": (bmp, "has 2,500,000,000 pixels, more than the 178,956,970 allowed"),
        "50000x50000.tif": (tiff_header(50_000, 50_000), "has 2,500,000,000 pixels, more than the 178,956,970"),
        "cut.tif": (encoded(image, "TIFF")[:400], "is cut off before its end"),
        "zero_bytes.jpg": (b"", "is empty (0 bytes)"),
        "png_inside.jpg": (encoded(image, "PNG"), None),
        "jpeg_inside.heic": (encoded(image, "JPEG"), None),
        "text.jpg": (b"Not a picture at all.\n", "is text, not a picture"),
        "web_page.png": (html, "is a web page, not a picture"),
        "document.jpg": (b"%PDF-1.7\n\x93\x8c", "is a PDF document, not a picture"),
        "drawing.png": (b"<?xml version='1.0'?>\n<svg xmlns='http://www.w3.org/2000/svg'/>", "is an SVG drawing"),
        "archive.png": (b"PK\x03\x04" + bytes(40), "is an archive, not a picture"),
        "zeros.png": (bytes(4096), "is in no format that SeeWhy reads"),
        "script.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is text, not a picture"),
        "video.heic": (b"\0\0\0\x18ftypmp42" + bytes(64), "HEIC or AVIF"),
        "straße_日本.png": (encoded(image, "PNG"), None),
        "new\nline.png": (encoded(image, "PNG"), None),
        "🙂.png": (encoded(image, "PNG"), None),
        "n" * 250 + ".png": (encoded(image, "PNG"), None),
    }


def turned_by_exif(image: Image.Image) -> dict[str, tuple[bytes, str | None]]:
    return {
        f"orientation_{n}.{suffix}": (encoded(turned(image, n), format, exif=exif(n)), None)
        for n in range(1, 9)
        for suffix, format in (("jpg", "JPEG"), ("png", "PNG"))
    }


def make_special(root: Path) -> OUTCOMES:
    """Names in the folder that are no regular files, as far as the system has such things."""
    (root / "folder.png").mkdir()
    with open(root / "sparse.png", "wb") as file:
        file.truncate(2**31 + 1)
    outcomes: OUTCOMES = {"folder.png": "is a folder, not a picture", "sparse.png": "has 2,147,483,649 bytes"}
    loop = root / "loop"

    def link(name: str, target: str) -> Callable[[], None]:
        return lambda: (root / name).symlink_to(target)

    special: list[tuple[str, str, Callable[[], None]]] = [
        ("broken_link.png", "is a link to 'nowhere.png', which does not exist", link("broken_link.png", "nowhere.png")),
        ("own_link.png", "is a link that leads back to itself", link("own_link.png", "own_link.png")),
        ("pipe.png", "is a pipe, socket or device", lambda: os.mkfifo(root / "pipe.png")),
        ("device.png", "is a pipe, socket or device", link("device.png", "/dev/zero")),
        ("loop", "is a folder, not a picture", lambda: (loop.mkdir(), (loop / "again").symlink_to(loop))[1]),
    ]
    for name, outcome, make in special:
        try:
            make()
        except (OSError, AttributeError, NotImplementedError):
            continue
        outcomes[name] = outcome
    forbidden = root / "forbidden.png"
    forbidden.write_bytes(b"\x89PNG")
    forbidden.chmod(0)
    if os.access(forbidden, os.R_OK):
        forbidden.unlink()
    else:
        outcomes[forbidden.name] = "may not be read (permission denied)"
    return outcomes


def make_hostile_folder(root: Path) -> OUTCOMES:
    """Fills ``root``; maps each name to ``None`` if it must be readable, else to a part of the reason expected."""
    image = Image.fromarray(photo())
    outcomes: OUTCOMES = {"missing.png": "does not exist"}
    for make in (broken_jpegs, broken_pngs, odd_modes, other_containers, turned_by_exif):
        for name, (data, outcome) in make(image).items():
            (root / name).write_bytes(data)
            outcomes[name] = outcome
    return outcomes | make_special(root)
