"""What a picture may be given as: one rule for every call that takes pictures.

=====================  ==============================================================================================
given                  read as
=====================  ==============================================================================================
``str``, path          a file
``bytes``              the bytes of a file
Pillow image           itself, turned upright by its EXIF
numpy array            ``(h, w)``, ``(h, w, 1)``, ``(h, w, 3)`` or ``(h, w, 4)``, channels last; uint8 as it is, other
                       kinds by the rule of :mod:`.colours`: floats within 0…1 times 255, within 0…255 kept
torch tensor           ``(h, w)`` or ``(1 or 3 or 4, h, w)``, channels first; uint8 0…255, or floats 0…1
anything with          as a numpy array
``__array__``
=====================  ==============================================================================================

Several pictures are a list, a tuple, anything that can be walked through, or an array with one axis more in front:
``(n, h, w, c)``, for tensors ``(n, c, h, w)``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from PIL import Image

from ..arguments import article
from ..errors import ImageError, InputError

if TYPE_CHECKING:
    from torch import Tensor

Plain = str | Path | bytes | Image.Image | np.ndarray
CHANNELS = (1, 3, 4)
FORMS = "A file name, bytes, a Pillow image, an array (h, w, 3) or a tensor (3, h, w)"


@dataclass(frozen=True, eq=False)
class InMemory:
    """A picture that is no file, under a name of its own; it is fetched when it is read.

    Attributes:
        name: what predictions, cards and messages call it.
        load: gives it, in any form a picture may have.
    """

    name: str
    load: Callable[[], Any]

    def __str__(self) -> str:
        return self.name


if TYPE_CHECKING:
    One = str | os.PathLike[str] | bytes | Image.Image | np.ndarray | Tensor | InMemory
    Many = Iterable[One]
else:
    One = Annotated[Any, "checked where it is read"]
    Many = One


def name_of(source: Any, number: int) -> str:
    """What a picture is called: its file, its own name, or ``picture 3`` for the third of several."""
    return str(source) if isinstance(source, str | os.PathLike | InMemory) else f"picture {number}"


def plain(source: Any) -> Plain:
    """A picture in one of the forms that are decoded.

    Raises:
        InputError: it is in none of the forms above.
        ImageError: it is a tensor of another shape or range, or its data set does not give it.
    """
    if isinstance(source, InMemory):
        return plain(_fetched(source))
    if isinstance(source, str | Path | bytes | Image.Image | np.ndarray):
        return source
    if isinstance(source, os.PathLike):
        return Path(source)
    if isinstance(source, bytearray | memoryview):
        return bytes(source)
    if _is_tensor(source):
        return _from_tensor(source)
    if isinstance(source, Mapping) and (source.get("bytes") or source.get("path")):  # as Hugging Face keeps them
        return source["bytes"] if source.get("bytes") else str(source["path"])
    array = _as_array(source)
    if array is None or array.ndim < 2:
        raise InputError(
            f"A picture cannot be {article(type(source).__name__)}. {FORMS} was expected. Convert it first."
        )
    return array


def several(source: Any) -> Iterable[Any] | None:
    """The pictures in a collection; ``None`` where it is one picture, or no collection."""
    if isinstance(source, str | bytes | bytearray | memoryview | os.PathLike | Image.Image | InMemory):
        return None
    if isinstance(source, Mapping):
        return None
    array = source if _is_tensor(source) else _as_array(source)
    if array is not None:
        is_names = array.ndim == 1 and not _is_tensor(array) and array.dtype.kind in "OUST"
        return list(array) if array.ndim == 4 or is_names else None
    return source if isinstance(source, Iterable) else None


def _fetched(source: InMemory) -> Any:
    try:
        return source.load()
    except InputError:
        raise
    except Exception as error:  # somebody else's data set raises anything
        reason = f"cannot be fetched ({type(error).__name__}: {error}); correct what gives it, or leave it out"
        raise ImageError(source.name, reason) from error


def _is_tensor(source: Any) -> bool:
    torch = sys.modules.get("torch")  # decoding alone does not load it
    return torch is not None and isinstance(source, torch.Tensor)


def _as_array(source: Any) -> np.ndarray | None:
    if isinstance(source, np.ndarray):
        return source
    return np.asarray(source) if hasattr(source, "__array__") else None


def _from_tensor(tensor: Any) -> np.ndarray:
    """Channels last; floats as they are, since 0…1 is the array's rule too."""
    name = f"<tensor {'x'.join(map(str, tensor.shape))}>"
    if tensor.ndim not in (2, 3) or (tensor.ndim == 3 and tensor.shape[0] not in CHANNELS):
        cure = "put channels first, as tensor.permute(2, 0, 1) does"
        raise ImageError(name, f"has the shape {tuple(tensor.shape)}; expected (h, w) or (1, 3 or 4, h, w); {cure}")
    array = tensor.detach().cpu()
    array = (array.float() if array.is_floating_point() else array).numpy()
    if array.dtype.kind == "f" and array.size and not (np.nanmin(array) >= 0 and np.nanmax(array) <= 1):
        low, high = float(np.nanmin(array)), float(np.nanmax(array))
        cure = "give it as it was before it was normalised, or divide 0…255 by 255"
        raise ImageError(name, f"holds numbers from {low:.3g} to {high:.3g}; floats from 0 to 1 were expected; {cure}")
    if array.dtype.kind == "i" and array.size and array.min() >= 0 and array.max() <= 255:
        array = array.astype(np.uint8)
    return array if array.ndim == 2 else np.moveaxis(array, 0, -1)
