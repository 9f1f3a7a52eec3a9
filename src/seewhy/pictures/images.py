"""Read pictures of any format, with the same pixels as timm and limits for hostile files."""

from __future__ import annotations

import errno
import hashlib
import importlib
import math
import os
import re
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from ..errors import ImageError, InputError
from ..storage.output import CARD
from ..storage.reading import UnreadableError, open_regular
from ..types import INTERPOLATIONS, Crop, FractionBox, PixelBox, Transform
from .colours import flatten, note_depth, say_once, to_bytes
from .decoding import BoundedFile, Room, TooCostlyError, check_scans, limit_of, load_whole
from .dicom import is_dicom, open_dicom
from .sources import InMemory, One, Plain, plain

FloatBox = tuple[float, float, float, float]

MAX_BYTES = 2**31
DRAFT_GAP = 2.0
REDUCING_GAP = 3.0

_RESAMPLING = {name: Image.Resampling[name.upper()] for name in INTERPOLATIONS}
_TURNS = dict(zip(range(2, 9), (Image.Transpose(v) for v in (0, 3, 1, 5, 4, 6, 2)), strict=True))
# Pillow's own readers, whatever a program registers with Pillow in their place.
_READERS: tuple[tuple[str, bytes, Callable[..., ImageFile.ImageFile]], ...] = (
    ("JPEG", rb"\xff\xd8", JpegImagePlugin.jpeg_factory),
    ("PNG", rb"\x89PNG", PngImagePlugin.PngImageFile),
    ("GIF", rb"GIF8", GifImagePlugin.GifImageFile),
    ("WebP", rb"(?s)RIFF....WEBP", WebPImagePlugin.WebPImageFile),
    ("TIFF", rb"II[*+]\0|MM\0[*+]|II\0\*|MM\*\0", TiffImagePlugin.TiffImageFile),
    ("BMP", rb"BM", BmpImagePlugin.BmpImageFile),
)
_DAMAGED = "starts like {}, but its header is damaged or cut off; copy or download it again"
_LOOKS = (
    *((magic, _DAMAGED.format(kind)) for kind, magic, _ in _READERS),
    (rb"%PDF", "is a PDF document, not a picture; export the page as PNG or JPEG"),
    (rb"(?si)\s*(<\?xml.*)?<svg", "is an SVG drawing, not a pixel picture; export it as PNG"),
    (rb"(?i)\s*<(!doctype )?html", "is a web page, not a picture; the download failed, so fetch the picture again"),
    (rb"PK\x03\x04|\x1f\x8b|Rar!|7z\xbc", "is an archive, not a picture; unpack it first"),
    (rb"[\t\n\r -~]+\Z", "is text, not a picture; check what wrote it"),
    (rb"", "is in no format that SeeWhy reads (JPEG, PNG, WebP, TIFF, GIF, BMP, AVIF, HEIC, DICOM); save it as PNG"),
)
# Pillow's own error threshold; anything larger is refused from the header, before a pixel is decoded.
_DEFAULT_MAX_PIXELS = 178_956_970


MAX_PIXELS = limit_of("SEEWHY_MAX_PIXELS", "pixels", _DEFAULT_MAX_PIXELS)
MAX_SECONDS = limit_of("SEEWHY_MAX_SECONDS", "seconds", 30)
"""Maximum seconds to decode one picture."""
if Image.MAX_IMAGE_PIXELS is not None:
    Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, math.ceil(MAX_PIXELS / 2))
_BLOCK = 16_384  # bytes decoded at once, so that a decoder is stopped soon


@dataclass(frozen=True, eq=False)
class Picture:
    """One view of a picture in the encoder's input size.

    Attributes:
        name: file name, or the name of a picture in memory.
        pixels: uint8 ``(h, w, 3)``.
        original_size: ``(width, height)`` of the upright picture, in pixels.
        window: area of the view, ``(left, top, right, bottom)`` in pixels of the upright picture. The area can extend
            beyond the picture, because the transform may pad.
        digest: SHA-256 of the file's bytes, or of the upright RGB pixels and their shape.
        flipped: whether the view is mirrored left to right.
    """

    name: str
    pixels: np.ndarray
    original_size: tuple[int, int]
    window: FloatBox
    digest: str
    flipped: bool = False

    @property
    def in_view(self) -> float:
        """The share of the upright picture's area that the view shows."""
        (x0, y0, x1, y1), (width, height) = self.window, self.original_size
        return (min(x1, width) - max(x0, 0)) * (min(y1, height) - max(y0, 0)) / (width * height)

    def to_original(self, fraction_box: FractionBox) -> PixelBox:
        """Return a box of the view in pixels of the upright picture, clipped to the picture and never empty."""
        left, top, right, bottom = fraction_box
        if self.flipped:
            left, right = 1 - right, 1 - left
        x0, y0, x1, y1 = self.window
        spans = ((x0 + left * (x1 - x0), x0 + right * (x1 - x0)), (y0 + top * (y1 - y0), y0 + bottom * (y1 - y0)))
        start = [min(max(round(a), 0), n - 1) for (a, _), n in zip(spans, self.original_size, strict=True)]
        stop = [min(max(round(b), s + 1), n) for (_, b), s, n in zip(spans, start, self.original_size, strict=True)]
        return (*start, *stop)  # type: ignore[return-value]


class _Hush(threading.local):
    """A warning filter that mutes Pillow's warnings about damaged metadata in the reading thread only."""

    reading = 0
    pattern = "(?!)"  # matches nothing; needed by libraries that copy the filters, such as scikit-learn

    def match(self, module: str) -> bool:
        return self.reading > 0 and module.startswith(("PIL.", "pillow_heif", "pydicom"))

    def __reduce__(self) -> tuple[Any, ...]:
        """Become a pattern that matches nothing in another process, to which scikit-learn sends the filters."""
        return re.compile, (self.pattern,)

    def __enter__(self) -> None:
        filters = cast("list[Any]", warnings.filters)
        if not filters or filters[0] is not _FILTER:
            filters.insert(0, _FILTER)
        self.reading += 1

    def __exit__(self, *_: object) -> None:
        self.reading -= 1


_HUSH = _Hush()
_FILTER = ("ignore", None, Warning, _HUSH, 0)


class _Cut(NamedTuple):
    """The geometry of a view: ``box`` is resized to ``size`` and pasted at ``at``."""

    window: FloatBox
    box: FloatBox
    size: tuple[int, int]
    at: tuple[int, int] = (0, 0)
    flip: bool = False


_ROOM = Room(64_000_000, free=1_000_000)
FILES = Room(MAX_BYTES, free=2**26)
"""Memory limit for the bytes of large files that threads read at the same time."""


@contextmanager
def opening(given: One) -> Iterator[tuple[str, Image.Image, bytes]]:
    """Open a picture; yield its name, the undecoded picture and its bytes; errors become :class:`ImageError`."""
    source = plain(given)
    name = given.name if isinstance(given, InMemory) else _name(source)
    with FILES.taken(_n_bytes(source)), _HUSH:
        try:
            if isinstance(source, np.ndarray):
                yield name, _from_array(name, source), b""
            elif isinstance(source, Image.Image):
                yield name, source, b""
            else:
                data = source if isinstance(source, bytes) else _read_bytes(os.fspath(source))
                yield name, _identify(name, data), data
        except InputError:
            raise
        except Exception as error:  # a decoder fed hostile bytes may raise any exception
            raise ImageError(name, _why_not_decoded(error)) from error


def _n_bytes(source: Plain) -> int:
    with suppress(OSError, ValueError):
        return os.stat(source).st_size if isinstance(source, str | Path) else 0
    return 0


def read_picture(source: One, transform: Transform) -> Picture:
    """Read a picture in any form of :mod:`seewhy.pictures.sources`."""
    return read_views(source, transform, [None])[0]


def pixels_of(source: One, transform: Transform) -> np.ndarray | None:
    """Return the pixels of a picture, to show them; ``None`` if it cannot be read."""
    try:
        return read_picture(source, transform).pixels
    except ImageError:
        return None


def read_views(given: One, transform: Transform, views: Sequence[Crop | None]) -> list[Picture]:
    """Decode a picture once, and return several views; ``None`` is the transform's resize and centre crop."""
    with opening(given) as (name, opened, data):
        if opened.info.get("Software") == CARD:
            raise ImageError(name, "is a card that SeeWhy wrote, not a photograph; leave it out")
        if opened.width * opened.height > MAX_PIXELS:
            raise ImageError(name, _too_many(opened.width * opened.height))
        pixels: dict[int, np.ndarray] = {}
        with _ROOM.taken(opened.width * opened.height):
            size = _upright_size(name, opened)
            cuts = [_place(size, transform, view) for view in views]
            reducible = bool(data) and opened.format in ("JPEG", "MPO")
            factors = [_factor(cut) if reducible else 1 for cut in cuts]
            for factor in sorted(set(factors)):
                image = _decode(name, _identify(name, data) if pixels else opened, factor)
                pixels |= {i: _cut(image, factor, transform, c) for i, c in enumerate(cuts) if factors[i] == factor}
            digest = hashlib.sha256(data or repr(size).encode() + image.tobytes()).hexdigest() if pixels else ""
    return [Picture(name, pixels[i], size, c.window, digest, c.flip) for i, c in enumerate(cuts)]


def _name(source: Plain) -> str:
    if isinstance(source, bytes):
        return f"<{len(source)} bytes>"
    if isinstance(source, np.ndarray):
        return f"<array {'x'.join(map(str, source.shape))}>"
    if isinstance(source, Image.Image):
        return str(getattr(source, "filename", "") or f"<{source.mode} image {source.width}x{source.height}>")
    return os.fspath(source)


def _read_bytes(name: str) -> bytes:
    """Return the bytes of a regular file; a pipe or device raises an error."""
    try:
        with open_regular(name) as (file, size):
            if size > MAX_BYTES:
                raise ImageError(name, f"has {size:,} bytes, more than the limit of {MAX_BYTES:,}; shrink it")
            data = file.read()
    except (OSError, ValueError) as error:
        raise ImageError(name, _why_not_opened(name, error)) from error
    if not data:
        raise ImageError(name, "is empty (0 bytes); copy or download it again")
    return data


def _why_not_opened(name: str, error: BaseException) -> str:
    error = error.__cause__ if isinstance(error, UnreadableError) and error.__cause__ is not None else error
    if isinstance(error, UnreadableError):
        if os.path.isdir(name):
            return "is a folder, not a picture; name the files in it, or list it with list_pictures"
        return "is a pipe, socket or device, not a file; save the picture to a file, or give its bytes"
    if isinstance(error, PermissionError):
        return "may not be read (permission denied); allow reading it, for example with chmod +r"
    if isinstance(error, FileNotFoundError):
        if os.path.islink(name):
            return f"is a link to {os.readlink(name)!r}, which does not exist; restore that file or remove the link"
        if "://" in name:
            return "is an address, which only --parquet reads; copy the picture to this machine"
        return "does not exist; check the spelling and the folder"
    if getattr(error, "errno", None) == errno.ELOOP:
        return "is a link that leads back to itself; remove the link"
    return f"cannot be opened ({getattr(error, 'strerror', error)}); check the name and the disk"


def _identify(name: str, data: bytes) -> Image.Image:
    """Return the picture with its header read, after a check of the format and the number of pixels."""
    check_scans(data)
    file = BoundedFile(data, MAX_SECONDS)
    for _, magic, reader in _READERS:
        if re.match(magic, data):
            with suppress(SyntaxError):  # the header is damaged
                return _noted(name, reader(file))
    if is_dicom(data):
        return open_dicom(name, data, MAX_SECONDS)
    if data[4:8] != b"ftyp":
        reasons = (reason for pattern, reason in _LOOKS if re.match(pattern, data[:1024]))
        raise ImageError(name, next(reasons)) from None
    for module, reader_name in (("PIL.AvifImagePlugin", "AvifImageFile"), ("pillow_heif", "HeifImageFile")):
        try:
            file.seek(0)
            return _noted(name, getattr(importlib.import_module(module), reader_name)(file))
        except ImportError:
            reason = "looks like HEIC or AVIF, which needs an extra; run pip install 'seewhy[heif]', or save it as JPEG"
        except (SyntaxError, ValueError):
            reason = "has a damaged HEIC or AVIF header, or is a video; save it as JPEG"
    raise ImageError(name, reason)


def _noted(name: str, opened: ImageFile.ImageFile) -> ImageFile.ImageFile:
    opened.decodermaxblock = _BLOCK
    note_depth(opened)
    if opened.format == "TIFF" and getattr(opened, "is_animated", False):
        say_once("pages", f"{name}: has several pages, of which only the first is read; so for similar pictures")
    return opened


def _why_not_decoded(error: Exception) -> str:
    detail = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, TooCostlyError):
        return detail
    if isinstance(error, Image.DecompressionBombError):
        count = re.search(r"\((\d+) pixels\)", detail)
        return _too_many(int(count[1]) if count else None)
    if isinstance(error, MemoryError):
        return "needs more memory than there is; shrink it"
    if "truncated" in detail.lower() or isinstance(error, EOFError):
        return f"is cut off before its end ({detail}); copy or download it again"
    return f"cannot be decoded ({detail}); if it is damaged, copy or download it again; otherwise save it again as PNG"


def _too_many(count: int | None) -> str:
    has = f"has {count:,} pixels" if count else "has too many pixels"
    if count and count <= MAX_PIXELS:  # a limit that the program has set
        return f"{has}, more than PIL.Image.MAX_IMAGE_PIXELS allows; set it to a larger number"
    return f"{has}, more than the {MAX_PIXELS:,} allowed; shrink it, or set SEEWHY_MAX_PIXELS to a larger number"


def _factor(cut: _Cut) -> int:
    """Return how far the JPEG decoder may downscale for a view, whichever views are read beside it."""
    spare = min((cut.box[i + 2] - cut.box[i]) / cut.size[i] / DRAFT_GAP for i in (0, 1))
    return next(f for f in (8, 4, 2, 1) if f == 1 or f <= spare)


def _decode(name: str, image: Image.Image, factor: int) -> Image.Image:
    """Return the upright RGB picture, which the JPEG decoder downscales by ``factor``."""
    if factor > 1:
        image.draft(cast("str", None), (image.width // factor, image.height // factor))
    load_whole(image)
    return upright(image, flatten(name, image))


def upright(image: Image.Image, pixels: Image.Image) -> Image.Image:
    """Return the pixels of a decoded picture, turned as its EXIF says."""
    orientation = _orientation(image)
    return pixels.transpose(_TURNS[orientation]) if orientation > 1 else pixels


def _orientation(image: Image.Image) -> int:
    if image.format == "PNG":  # its EXIF may come after the pixels, where Pillow looks for it
        load_whole(image)
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:  # damaged EXIF may raise any exception; the pixels may be sound
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _from_array(name: str, array: np.ndarray) -> Image.Image:
    if array.ndim not in (2, 3) or 0 in array.shape or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise ImageError(
            name, f"has the shape {array.shape}; the shape must be (h, w) or (h, w, 1, 3 or 4); put channels last"
        )
    array = array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array
    return Image.fromarray(np.ascontiguousarray(to_bytes(name, array)))


def _place(size: tuple[int, int], transform: Transform, crop: Crop | None) -> _Cut:
    """Return the geometry of a view, with the rounding and padding of torchvision's ``Resize`` and ``CenterCrop``."""
    inputs = transform.input_size[::-1]
    if crop is not None:
        left, top, right, bottom = crop.box
        if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
            expected = "must be fractions with 0 ≤ left < right ≤ 1 and 0 ≤ top < bottom ≤ 1"
            raise InputError(f"The box of a crop {expected}, got {crop.box}.")
        window = cast(FloatBox, tuple(f * size[i % 2] for i, f in enumerate(crop.box)))
        return _Cut(window, window, inputs, flip=crop.flip)
    if isinstance(transform.resize, int):
        resized = tuple(int(transform.resize * side / min(size)) for side in size)
    else:
        resized = transform.resize[::-1]
    pairs = list(zip(resized, inputs, strict=True))
    start = [round((r - n) / 2) if r >= n else -((n - r) // 2) for r, n in pairs]
    first = [max(s, 0) for s in start]
    last = [min(s + n, r) for s, (r, n) in zip(start, pairs, strict=True)]
    stop = [s + n for s, n in zip(start, inputs, strict=True)]
    window, box = (
        cast(FloatBox, tuple(v * size[i % 2] / resized[i % 2] for i, v in enumerate(corners)))
        for corners in (start + stop, first + last)
    )
    return _Cut(window, box, (last[0] - first[0], last[1] - first[1]), (first[0] - start[0], first[1] - start[1]))


def _cut(image: Image.Image, factor: int, transform: Transform, cut: _Cut) -> np.ndarray:
    box = cast(FloatBox, tuple(min(v / factor, image.size[i % 2]) for i, v in enumerate(cut.box)))
    canvas = Image.new("RGB", transform.input_size[::-1])
    canvas.paste(image.resize(cut.size, _RESAMPLING[transform.interpolation], box, REDUCING_GAP), cut.at)
    return np.array(canvas.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if cut.flip else canvas)


def upright_size(given: One, *, longest: int | None = None) -> tuple[int, int]:
    """Return the width and height of the upright picture, without decoding it."""
    with opening(given) as (name, opened, _):
        width, height = _upright_size(name, opened)
        if longest is not None and max(width, height) > longest * min(width, height):
            times = f"the longer side may be at most {longest} times the shorter side for a sliding window"
            raise ImageError(name, f"has {width:,} by {height:,} pixels; {times}; cut the picture into shorter pieces")
        return width, height


def _upright_size(name: str, image: Image.Image) -> tuple[int, int]:
    width, height = image.size
    if not width or not height:
        raise ImageError(name, f"has no pixels ({width} by {height}); the size must be at least 1 by 1")
    stored: Any = getattr(image, "tag_v2", {})
    turned = (stored.get(257), stored.get(256)) == image.size  # Pillow gives the size of a TIFF as it is after loading
    return (height, width) if _orientation(image) >= 5 and not turned else (width, height)


def random_crop(rng: np.random.Generator, scale: tuple[float, float], aspect: tuple[float, float], flip: bool) -> Crop:
    """Return a random crop; its area is uniform in ``scale``, and its aspect ratio is log-uniform in ``aspect``."""
    area = rng.uniform(*scale)
    ratio = math.exp(rng.uniform(math.log(aspect[0]), math.log(aspect[1])))
    # A side longer than the picture is cut back and the other grows, which keeps the area.
    ratio = min(max(ratio, area), 1 / area)
    width, height = min(math.sqrt(area * ratio), 1.0), min(math.sqrt(area / ratio), 1.0)
    left, top = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
    mirrored = bool(rng.random() < 0.5)
    return Crop((left, top, min(left + width, 1.0), min(top + height, 1.0)), flip and mirrored)
