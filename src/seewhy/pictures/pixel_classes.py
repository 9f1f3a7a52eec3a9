"""Pictures with a class for every pixel: a folder of masks, or a COCO JSON file.

A folder has ``images/`` and ``labels/`` (or ``masks/``, ``annotations/``), with one mask per picture of the same name.
A mask has one channel of class numbers. The class names are in ``classes.txt``, one per line from class 0, or in
``classes.json``, as ``["sky", …]`` or ``{"0": "sky", …}``. That file is in the folder or its parent. Pictures of a COCO
file are relative to the file, to ``images/`` next to it, or to the given folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ..arguments import checked
from ..clusters import grouped
from ..errors import DataError, ImageError
from ..spelling import first_repeated
from ..storage.reading import read_json, read_text, reason
from .decoding import load_whole
from .images import opening, upright
from .samples import some
from .sources import list_pictures

LEFT_OUT = 255
"""Value of ignored pixels after reading: pixels without a class, or of a class without a name."""
FOLDERS = ("labels", "masks", "annotations")
NAMES = ("classes.txt", "classes.json")
ELSE = "background"
"""Name of the class for pixels without a COCO annotation."""
MOST = 255
CLASSES = 2**20
"""Maximum bytes of a file of class names."""


@dataclass(frozen=True, eq=False)
class MaskedPicture:
    """A picture with its mask, which is read on access."""

    image: str
    mask: str | tuple[tuple[int, int], tuple[tuple[int, Any], ...]] = field(repr=False)


@dataclass(frozen=True, eq=False)
class MaskedPictures:
    """Pictures with masks."""

    items: tuple[MaskedPicture, ...]
    classes: tuple[str, ...]
    values: Mapping[int, int]
    ignored: tuple[int, ...] = (255,)
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.items)

    def truth(self, item: MaskedPicture, size: tuple[int, int]) -> tuple[np.ndarray, dict[int, int]]:
        """Return the class of each pixel ``(height, width)``, 255 if ignored, and counts of values without a name."""
        if not isinstance(item.mask, str):
            return self._drawn(item.image, *item.mask, size), {}
        found = read_values(item.mask)
        if found.shape[::-1] != size:
            raise ImageError(
                item.mask,
                f"has {found.shape[1]} by {found.shape[0]} pixels, but its picture {item.image} has {size[0]} by "
                f"{size[1]}; save the mask in the size of the picture",
            )
        table = np.full(int(found.max(initial=0)) + 1, LEFT_OUT, np.uint8)
        for value, place in self.values.items():
            if value < len(table):
                table[value] = place
        values, counts = np.unique(found, return_counts=True)
        named = {*self.values, *self.ignored}
        return table[found], {int(v): int(n) for v, n in zip(values, counts, strict=True) if int(v) not in named}

    def _drawn(
        self, image: str, said: tuple[int, int], annotations: tuple[tuple[int, Any], ...], size: tuple[int, int]
    ) -> np.ndarray:
        """Draw COCO annotations in descending order of area, so that large masks do not cover small ones."""
        if said != size:
            raise ImageError(
                image,
                f"has {size[0]} by {size[1]} pixels, but its annotations have {said[0]} by {said[1]}; "
                "export them again, or use the picture that was annotated",
            )
        rest = self.classes.index(ELSE) if ELSE in self.classes else LEFT_OUT
        canvas = np.full(size[::-1], rest, np.uint8)
        masks = [(_mask_of(shape, size, image), value) for value, shape in annotations]
        for mask, value in sorted(masks, key=lambda one: -int(one[0].sum())):
            canvas[mask] = self.values[value]
        return canvas


def _mask_of(shape: Any, size: tuple[int, int], image: str) -> np.ndarray:
    try:
        if isinstance(shape, Mapping):
            mask = decode(shape, f"a mask of {image}")
            if mask.shape != size[::-1]:
                raise ImageError(
                    image,
                    f"has a mask of {mask.shape[1]} by {mask.shape[0]} pixels, which differs from the size of "
                    "the picture; export it again",
                )
            return mask
        drawn = Image.new("1", size)
        for polygon in shape:
            ImageDraw.Draw(drawn).polygon([float(v) for v in polygon], fill=1)
    except DataError as error:
        raise ImageError(image, str(error)) from error
    except (TypeError, ValueError) as error:
        raise ImageError(image, f"has an invalid polygon ({error}); export it again") from error
    return np.asarray(drawn)


def read_values(path: str) -> np.ndarray:
    """Read a mask file as class numbers ``(h, w)``: palette indices or grey levels."""
    with opening(path) as (name, opened, _):
        if opened.mode not in ("1", "L", "P") and not opened.mode.startswith("I"):
            raise ImageError(
                name, f"has colours ({opened.mode}); a mask must have one channel of class numbers; convert it"
            )
        load_whole(opened)
        found = np.asarray(upright(opened, opened))
    if found.size and (found.min() < 0 or found.max() > 65535):
        raise ImageError(
            path, f"has values from {found.min()} to {found.max()}; class numbers must be from 0 to 65535; convert it"
        )
    return found.astype(np.int64)


@checked
def load_masks(
    source: str | Path,
    *,
    classes: Sequence[str] | None = None,
    ignore: Sequence[int] = (255,),
    pictures: str | Path | None = None,
) -> MaskedPictures:
    """Load pictures with masks from a folder or a COCO JSON file.

    Args:
        source: the folder or the JSON file.
        classes: names of the values 0, 1, …; default: those in ``classes.txt`` or ``classes.json``.
        ignore: mask values to ignore.
        pictures: folder of the pictures of a COCO file; default: the folder of the JSON file.

    Raises:
        DataError: no usable pictures were found.
    """
    path = Path(source)
    if path.suffix.lower() == ".json":
        return _from_coco(path, None if pictures is None else Path(pictures))
    return _from_folder(path, classes, tuple(ignore))


def is_masked(source: str | Path) -> bool:
    """Return whether a source has masks or is a COCO file."""
    path = Path(source)
    return path.is_file() if path.suffix.lower() == ".json" else _masks_of(path) is not None


def _masks_of(root: Path) -> Path | None:
    return next((root / n for n in FOLDERS if (root / n).is_dir() and (root / "images").is_dir()), None)


def _from_folder(root: Path, classes: Sequence[str] | None, ignored: tuple[int, ...]) -> MaskedPictures:
    if (place := _masks_of(root)) is None:
        raise DataError(
            f"{root} has no folder of masks. Add labels/ with one mask per picture (images/a.jpg, "
            "labels/a.png), or give a COCO JSON file."
        )
    names = dict(enumerate(classes)) if classes is not None else _names(root)
    if LEFT_OUT in names or len(names) > MOST:
        raise DataError(f"{root} must have at most {MOST} classes, got {len(names)}. Merge some.")
    masks = {_stem(f, place): f for f in list_pictures([place])}
    items, without = [], []
    for image in list_pictures([root / "images"]):
        mask = masks.pop(_stem(image, root / "images"), None)
        if mask is None:
            without.append(os.path.basename(image))
        else:
            items.append(MaskedPicture(image, mask))
    if not items:
        raise DataError(
            f"No picture in {root / 'images'} has a mask of the same name in {place}. Use the same "
            "names, for example a.jpg and a.png."
        )
    notes = [f"left out {len(without)} picture(s) without a mask: {some(without)}"] if without else []
    if masks:
        notes.append(f"left out {len(masks)} mask(s) without a picture: {some([Path(m).name for m in masks.values()])}")
    named = {v: n for v, n in names.items() if v not in ignored}
    return MaskedPictures(tuple(items), tuple(named.values()), _places(named), ignored, tuple(notes))


def _stem(file: str, root: Path) -> str:
    return os.path.splitext(os.path.relpath(file, root))[0]


def _places(values: Iterable[int]) -> dict[int, int]:
    return {value: i for i, value in enumerate(values)}


def _names(root: Path) -> dict[int, str]:
    place = next((f / n for f in (root, root.parent) for n in NAMES if (f / n).is_file()), None)
    if place is None:
        raise DataError(
            f"{root} has no class names. Add classes.txt with one name per line from value 0, or "
            'classes.json, or give --labels "sky, road, car".'
        )
    try:
        said = read_json(place, CLASSES) if place.suffix == ".json" else read_text(place, CLASSES).splitlines()
        pairs: Iterable[tuple[Any, Any]] = said.items() if isinstance(said, dict) else enumerate(said)
        found = {int(value): str(name).strip() for value, name in pairs}
    except (OSError, ValueError, TypeError) as error:
        raise DataError(
            f"{place} cannot be read ({reason(error)}). Write one name per line, or a JSON object that maps mask "
            "values to names."
        ) from error
    found = {value: name for value, name in sorted(found.items()) if name}
    twice = first_repeated(found.values())
    if len(found) < 2 or twice or min(found) < 0:
        given = f"{twice!r} twice" if twice else f"{len(found)} class(es)"
        raise DataError(f"{place} must have at least two different names, for values from 0, got {given}.")
    return found


def _from_coco(path: Path, pictures: Path | None) -> MaskedPictures:
    try:
        said = read_json(path)
        names = {int(c["id"]): str(c["name"]) for c in said["categories"]}
        masks = [one for one in said["annotations"] if one.get("segmentation")]
        shapes = grouped((one["image_id"], (int(one["category_id"]), one["segmentation"])) for one in masks)
        n_boxes = len(said["annotations"]) - len(masks)
        images = [
            (shapes.get(i["id"], ()), str(i["file_name"]), int(i["width"]), int(i["height"])) for i in said["images"]
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        why = f"it has no {error}" if isinstance(error, KeyError) else reason(error)
        raise DataError(
            f"{path} is not a valid COCO file ({why}). It must have images, categories and "
            "annotations with segmentations."
        ) from error
    if not 2 <= len(names) <= MOST:
        raise DataError(f"{path} must have 2 to {MOST} categories, got {len(names)}.")
    roots = [pictures] if pictures is not None else [path.parent, path.parent / "images"]
    items, absent, bare = [], [], []
    for own, name, width, height in images:
        file = next((r / name for r in roots if os.path.isfile(r / name)), None)  # isfile accepts any name
        known = tuple((c, shape) for c, shape in own if c in names)
        if file is None:
            absent.append(name)
        elif not known and ELSE not in names.values():
            bare.append(name)
        else:
            items.append(MaskedPicture(str(file), ((width, height), known)))
    if not items:
        raise DataError(
            f"None of the {len(images)} pictures of {path} exists and has a mask. Put the pictures "
            "next to it or into images/, or give their folder."
        )
    notes = [f"{len(absent)} picture(s) of {path.name} do not exist: {some(absent)}"] if absent else []
    notes += [f"left out {len(bare)} picture(s) without a mask: {some(bare)}"] if bare else []
    notes += [f"left out {n_boxes} annotation(s) without a mask"] if n_boxes else []
    return MaskedPictures(tuple(items), tuple(names.values()), _places(names), (), tuple(notes))


LARGEST = 2**28
"""Maximum number of pixels of a mask."""


def runs(mask: np.ndarray) -> np.ndarray:
    """Return the lengths of the alternating runs of 0 and 1, column by column, beginning with 0.

    Example:
        >>> runs(np.array([[0, 1], [1, 1]])).tolist()
        [1, 3]
    """
    flat = np.asarray(mask, bool).ravel(order="F")
    ends = np.concatenate([[0], np.flatnonzero(np.diff(flat)) + 1, [flat.size]])
    lengths = np.diff(ends)
    return np.concatenate([[0], lengths]) if flat.size and flat[0] else lengths


def encode(mask: np.ndarray) -> dict[str, Any]:
    """Encode a mask as ``{"size": [h, w], "counts": text}``, as pycocotools' ``mask.encode`` does.

    Example:
        >>> encode(np.array([[0, 1], [1, 1]]))
        {'size': [2, 2], 'counts': '13'}
    """
    lengths = runs(mask).tolist()
    letters = []
    for i, length in enumerate(lengths):
        x, more = length - (lengths[i - 2] if i > 2 else 0), True
        while more:
            group = x & 0x1F
            x >>= 5
            more = x != -1 if group & 0x10 else x != 0
            letters.append(chr((group | 0x20 if more else group) + 48))
    return {"size": [int(n) for n in np.shape(mask)], "counts": "".join(letters)}


def decode(coded: Any, name: str = "a mask") -> np.ndarray:
    """Decode a run-length mask to booleans ``(h, w)``; the counts are a text or a list of lengths.

    Example:
        >>> decode({"size": [2, 2], "counts": [1, 3]}).tolist()
        [[False, True], [True, True]]
    """
    try:
        (height, width), counts = (int(n) for n in coded["size"]), coded["counts"]
        lengths = _lengths(counts) if isinstance(counts, str) else [int(n) for n in counts]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f'{name} must be a COCO run-length mask {{"size": [height, width], "counts": …}}, got '
            f"{type(error).__name__}: {error}. Export it again."
        ) from error
    right = min(lengths, default=0) >= 0 and sum(lengths) == height * width
    if not right or height < 1 or width < 1 or height * width > LARGEST:
        raise DataError(
            f"The runs of {name} must add up to its {height} x {width} pixels, got {sum(lengths)}. Export it again."
        )
    return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape((height, width), order="F")


def _lengths(text: str) -> list[int]:
    found: list[int] = []
    x = shift = 0
    for letter in text:
        group = ord(letter) - 48
        if not 0 <= group < 64 or shift > 60:
            raise ValueError(f"{letter!r} is not a valid letter")
        x, shift = x | (group & 0x1F) << shift, shift + 5
        if not group & 0x20:
            x |= -1 << shift if group & 0x10 else 0
            found.append(x + (found[-2] if len(found) > 2 else 0))
            x = shift = 0
    if shift:
        raise ValueError("its counts are truncated")
    return found
