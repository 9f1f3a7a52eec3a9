"""Read the first frame of DICOM files as 8-bit pictures, without any text of the header.

Pixels, modality and window follow DICOM PS3.3, C.7.6.3, C.11.1 and C.11.2, with these choices:

* The first window of the file is used. Without a window, 8-bit values are unchanged, and other values are scaled from
  their minimum to their maximum. ``MONOCHROME1`` is inverted. VOI lookup tables and segmented palettes are not applied.
* Only the elements for the pixels are parsed. Messages of pydicom are not repeated, because they may quote the header.
* Deflated files are refused, because pydicom inflates them without a limit.
"""

from __future__ import annotations

import importlib
import itertools
import logging
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Shaped
from PIL import Image, ImageFile

from ..errors import ImageError
from .colours import to_bytes
from .decoding import BoundedFile, TooCostlyError, check_scans

_PREAMBLE = 128
_DEFLATED, _RLE = b"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.5"
_ELEMENTS = (
    *("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelData", "ModalityLUTSequence"),
    *("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth", "VOILUTFunction"),
    *(f"{c}PaletteColorLookupTable{part}" for c in ("Red", "Green", "Blue") for part in ("Descriptor", "Data")),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
)
_NESTED = ("PixelValueTransformationSequence", "FrameVOILUTSequence")
_DAMAGED = "is DICOM, but its header is damaged or cut off; copy or export it again"
_EMPTY = "is DICOM without pixels (a report, a directory or cut off); name the file of a picture, or copy it again"
_UNREADABLE = "is DICOM whose pixels do not fit its header ({}); copy or export it again"
_PACKED = "is deflated DICOM, which SeeWhy does not read; export it without deflating it"
_EXTRA = "is DICOM, which needs an extra; run pip install 'seewhy[dicom]', or export it as PNG"
_LOGGERS = ("pydicom", "pydicom.pixels.utils", "pydicom.pixels.decoders.base")
T = TypeVar("T")
_logger = logging.getLogger(__name__)


def is_dicom(data: bytes) -> bool:
    """Return whether a file begins with a DICOM preamble.

    >>> is_dicom(bytes(128) + b"DICM")
    True
    """
    return data[_PREAMBLE : _PREAMBLE + 4] == b"DICM"


def open_dicom(name: str, data: bytes, seconds: float) -> Image.Image:
    """Return the picture with its size; its pixels are decoded on access."""
    try:
        importlib.import_module("pydicom")
    except ImportError:
        raise ImageError(name, _EXTRA) from None
    if _DEFLATED in data:
        raise ImageError(name, _PACKED)
    return _guarded(name, _DAMAGED, lambda: _DicomFile(BoundedFile(data, seconds), name))


class _Mute(threading.local):
    """A log filter that drops pydicom's messages in the reading thread, because they quote header values."""

    reading = False

    def filter(self, _: logging.LogRecord) -> bool:
        return not self.reading


_MUTE = _Mute()


def _guarded(name: str, reason: str, work: Callable[[], T]) -> T:
    """Call ``work``, and replace errors of pydicom by ``reason``, because they may quote a patient."""
    for logger in _LOGGERS:
        logging.getLogger(logger).addFilter(_MUTE)  # adding the same filter again has no effect
    _MUTE.reading = True
    try:
        return work()
    except (ImageError, TooCostlyError, MemoryError):
        raise
    except Exception as error:  # a decoder fed hostile bytes may raise any exception
        kind = type(error).__name__
    finally:
        _MUTE.reading = False
    raise ImageError(name, reason.format(kind))  # outside the handler, so that the exception is not chained


class _DicomFile(ImageFile.ImageFile):
    format = "DICOM"

    def _open(self) -> None:
        import pydicom

        name = str(self.filename)
        dataset = pydicom.dcmread(self.fp, specific_tags=list(_ELEMENTS))
        if "PixelData" not in dataset:
            raise ImageError(name, _EMPTY)
        self._size = (int(dataset.Columns), int(dataset.Rows))
        if 0 in self._size:
            raise ImageError(name, f"has no pixels ({self.width} by {self.height}); the size must be at least 1 by 1")
        self._mode = "RGB" if int(dataset.SamplesPerPixel) == 3 else "L"
        self._dataset = dataset

    def load(self) -> Any:
        name, dataset = str(self.filename), self._dataset
        image = _guarded(name, _UNREADABLE, lambda: Image.fromarray(to_bytes(name, _colours(name, dataset))))
        self.__class__, self.__dict__ = Image.Image, image.__dict__  # type: ignore[assignment]  # as Pillow's stubs do
        return image.load()


def _colours(name: str, dataset: Any) -> np.ndarray:
    """Return the first frame: grey values windowed to 8 bits, or colours as stored."""
    from pydicom.pixels import apply_color_lut, pixel_array

    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames > 1:
        _logger.warning("%s: has %d frames; only the first is read", name, frames)
    _check_frame(name, dataset, frames)
    pixels = pixel_array(dataset, index=0)
    if pixels.ndim == 3:
        return pixels
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        return apply_color_lut(pixels, dataset)
    return windowed(pixels, dataset)


def _check_frame(name: str, dataset: Any, frames: int) -> None:
    """Check that the frame can be decoded, and that it has no more pixels than the header says."""
    from pydicom.encaps import get_frame
    from pydicom.pixels import get_decoder

    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_compressed:
        return
    if not get_decoder(syntax).is_available:
        cure = "export it uncompressed, or pip install pylibjpeg with its plugins"
        raise ImageError(name, f"is DICOM compressed as {syntax.name}, which no installed package decodes; {cure}")
    frame = get_frame(dataset.PixelData, 0, number_of_frames=frames)
    check_scans(frame)
    if syntax == _RLE:
        _check_runs(frame, int(dataset.Rows) * int(dataset.Columns))


def _check_runs(frame: bytes, n_pixels: int) -> None:
    """Check that the run lengths of an RLE frame add up to no more than its number of pixels."""
    starts = [int.from_bytes(frame[i : i + 4], "little") for i in range(4, 64, 4)]
    starts = [*starts[: int.from_bytes(frame[:4], "little")], len(frame)]
    for at, end in itertools.pairwise(starts):
        count = 0
        while at < min(end, len(frame)):
            head = frame[at]
            count += 0 if head == 128 else head + 1 if head < 128 else 257 - head
            at += head + 2 if head < 128 else 1 if head == 128 else 2
            if count > n_pixels + 128:
                raise TooCostlyError("has more pixels than its header says; export it again uncompressed")


def windowed(pixels: Shaped[np.ndarray, "h w"], dataset: Any) -> Shaped[np.ndarray, "h w"]:
    """Return stored values as 8-bit grey levels, by PS3.3 C.11.1.1 and C.11.2.1.2 to C.11.2.1.3."""
    from pydicom import Dataset
    from pydicom.pixels import apply_modality_lut, apply_windowing

    scale, window = Dataset(), Dataset()
    window.BitsStored, window.PixelRepresentation, window.PhotometricInterpretation = 8, 0, "MONOCHROME2"
    centre, width = _value(dataset, "WindowCenter", None), _value(dataset, "WindowWidth", None)
    window.WindowCenter, window.WindowWidth = centre, width
    window.VOILUTFunction = _value(dataset, "VOILUTFunction", "LINEAR")
    scale.RescaleSlope = _value(dataset, "RescaleSlope", 1.0)
    scale.RescaleIntercept = _value(dataset, "RescaleIntercept", 0.0)
    values = apply_modality_lut(pixels, dataset if "ModalityLUTSequence" in dataset else scale).astype(np.float64)
    if centre is not None and width is not None and width > 0:
        levels = apply_windowing(values, window)
    elif int(dataset.BitsStored) == 8 and not int(dataset.PixelRepresentation):
        levels = pixels
    else:
        low, high = float(values.min()), float(values.max())
        levels = (values - low) * (255 / ((high - low) or 1))
    grey = np.rint(levels).astype(np.uint8)
    return 255 - grey if dataset.PhotometricInterpretation == "MONOCHROME1" else grey


def _value(dataset: Any, keyword: str, default: Any) -> Any:
    groups = [dataset]
    for sequence in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for group in list(dataset.get(sequence) or [])[:1]:
            groups += [item for nested in _NESTED for item in list(group.get(nested) or [])[:1]]
    found = next((g.get(keyword) for g in groups if g.get(keyword) not in (None, "")), default)
    return found[0] if isinstance(found, list) or hasattr(found, "insert") else found
