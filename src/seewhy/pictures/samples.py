"""Samples: pictures with their classes, from class folders or a table; classes are in natural sort order."""

from __future__ import annotations

import hashlib
import random
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..arguments import checked
from ..clusters import connected, grouped, links, numbered
from ..errors import DataError, EmptyFolderError, ImageError, InputError
from ..spelling import nearest
from ..storage.output import is_written
from ..storage.reading import file_sha256
from .images import MAX_BYTES
from .sources import SUFFIXES, InMemory, is_picture, is_unicode, list_pictures, natural_key, plain, unlistable
from .tables import TABLES, cell_text, no_column, plain_text, rows_of, whole_numbers

_SPLITS = {"train", "training", "val", "valid", "validation", "test"}


@dataclass(frozen=True)
class Sample:
    """A picture with its class, texts and group, as far as they are known.

    Attributes:
        image: file name, or the name of a picture in memory.
        label: class name; empty if unknown.
        texts: captions of the picture.
        group: name of the object, person or place that it shows; pictures of one group are held out together.
        pixels: the picture, if it has no file.
        split: name of its split, such as train or test.
        kind: what the picture shows by all its answers together; pictures that differ in it never count as the same
            object.
    """

    image: str
    label: str = ""
    texts: tuple[str, ...] = ()
    group: str | None = None
    pixels: InMemory | None = None
    split: str | None = None
    kind: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.texts, str):
            raise InputError(
                f"texts of the sample {self.image} must be a tuple, got {self.texts!r}. Write ({self.texts!r},)."
            )

    @property
    def text(self) -> str | None:
        """The first caption of the picture, or ``None`` if it has none."""
        return self.texts[0] if self.texts else None

    @property
    def source(self) -> str | InMemory:
        """The file name, or the picture in memory."""
        return self.image if self.pixels is None else self.pixels


@dataclass(frozen=True)
class Samples:
    """Pictures with their classes, texts and groups, as far as they are known.

    Attributes:
        items: the samples, in the order they were found.
        classes: class names in natural sort order; empty if no picture has a class.
        notes: remarks about the data for the user.
    """

    items: tuple[Sample, ...]
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.items)

    def __repr__(self) -> str:
        has = [f"{len(self.classes)} classes: {few(self.classes)}"] if self.classes else []
        has += [f"{n} texts"] if (n := self.n_texts) else []
        return f"Samples({', '.join([f'{len(self)} pictures', *has])})"

    @property
    def n_texts(self) -> int:
        return sum(len(s.texts) for s in self.items)

    def labelled(self) -> Samples:
        """Return the samples, after a check that every sample has a class."""
        without = [s.image for s in self.items if not s.label]
        if without:
            raise DataError(
                f"Every picture must have a class, but {len(without)} of {len(self)} have none: "
                f"{some(without, 3)}. Give the column of classes, or leave these pictures out."
            )
        return self

    def of(self, classes: Sequence[str]) -> tuple[tuple[Sample, ...], tuple[str, ...]]:
        """Return the samples of the given classes, with a note on the number of all other samples."""
        known = set(classes)
        items = tuple(s for s in self.items if s.label in known)
        if not items:
            raise DataError(
                f"None of the {len(self.classes)} labels ({few(self.classes)}) is one of the "
                f"{len(classes)} classes ({few(classes)}). Use the same class names in both."
            )
        strange = [c for c in self.classes if c not in known]
        n = len(self) - len(items)
        return items, (f"left out {n} picture(s) of {len(strange)} unknown class(es): {few(strange)}",) if n else ()


def few(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:3])) + (", …" if len(names) > 3 else "")


def some(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")


@checked
def load_samples(
    source: str | Path,
    *,
    image: str = "image",
    label: str = "label",
    text: str = "text",
    group: str | None = None,
    split: str | None = None,
) -> Samples:
    """Load labelled pictures from class folders or a table.

    Args:
        source: a folder with one subfolder per class, or a table.
        image: column of file names, relative to the table.
        label: column of class names.
        text: column of captions; it may be missing.
        group: column that says which object, visit or patient a picture shows. Pictures with the same value are held
            out together. For class folders, ``"folder"`` groups pictures by the folders below each class.
        split: column that names the split of a picture (train, test); not for class folders.

    Raises:
        DataError: no usable pictures were found.
    """
    path = Path(source)
    if path.is_dir():
        if split is not None:
            raise DataError(
                f"{path} is a folder, so it has no column {split!r} of splits. Give a table with that "
                "column, or one folder per split."
            )
        items, notes = _from_folders(path, group)
    elif path.suffix.lower() in TABLES and path.exists():
        items, notes = from_table(path, list(rows_of(path)), image, label, text, group, split)
    else:
        raise DataError(
            f"{refused(path)} Give a folder with one folder per class, or "
            f"a table ending in {', '.join(TABLES)} with the columns {image!r} and {label!r}."
        )
    return gathered(items, notes)


def load_pictures(
    source: str | Path, *, image: str = "image", label: str = "label", group: str | None = None
) -> Samples:
    """Load pictures from class folders, a table, a folder without subfolders, or a table without classes."""
    path = Path(source)
    if path.is_dir():
        if any(p.is_dir() and not p.name.startswith(".") and not is_written(p) for p in path.iterdir()):
            return load_samples(path, image=image, label=label, group=group)
        return gathered([Sample(name) for name in list_pictures([path])])
    if path.suffix.lower() in TABLES and path.exists():
        rows = list(rows_of(path))
        columns = {name for row in rows for name in row}
        without = label not in columns and image in columns
        return gathered(*from_table(path, rows, image, None if without else label, "", group, None))
    raise DataError(
        f"{refused(path)} Give a folder of pictures, one with a folder per class, or a "
        f"table ending in {', '.join(TABLES)} with the column {image!r}; pictures end in {', '.join(SUFFIXES)}."
    )


def refused(path: Path, forms: str = "a folder nor a table") -> str:
    """Return why a path cannot be read, and the most similar name in its folder if the path does not exist."""
    if path.exists():
        return f"{path} is neither {forms}."
    beside = (one.name for one in path.parent.iterdir()) if path.parent.is_dir() else iter(())
    near = nearest(path.name, beside)
    return f"{path} does not exist." + (f" Did you mean {str(path.with_name(near[0]))!r}?" if near else "")


def gathered(items: Sequence[Sample], notes: Sequence[str] = ()) -> Samples:
    """Return the samples with their classes, after a check that the class names differ."""
    counts, notes = Counter(s.label for s in items if s.label), list(notes)
    check_names(counts)
    single = [c for c, n in counts.items() if n == 1]
    if single:
        notes.append(f"{len(single)} class(es) have only one picture, which is never held out: {some(single)}")
    return Samples(tuple(items), tuple(sorted(counts, key=natural_key)), tuple(notes))


def check_names(names: Iterable[str]) -> dict[str, str]:
    """Check that class names differ for a reader, and return them by the form that is compared."""
    seen: dict[str, str] = {}
    for name in names:
        if not is_unicode(name):  # a class is written, spoken of and encoded as text
            raise DataError(f"Class names must be UTF-8, got {name!r}. Rename the class.")
        # Two names that a person would read as one must not become two classes.
        folded = " ".join(unicodedata.normalize("NFKC", name).casefold().replace("_", " ").split())
        if folded in seen:
            raise DataError(
                f"Class names must differ by more than case and spacing, got {seen[folded]!r} and "
                f"{name!r}. Rename or merge them."
            )
        seen[folded] = name
    return seen


def _from_folders(root: Path, group: str | None) -> tuple[list[Sample], list[str]]:
    try:
        entries = list(root.iterdir())
    except OSError as error:
        raise unlistable(root, error) from error
    folders = [p for p in entries if p.is_dir() and not p.name.startswith(".")]
    written = [p.name for p in folders if is_written(p)]
    folders = [p for p in folders if p.name not in written]
    folders.sort(key=lambda p: natural_key(p.name))
    if not folders:
        raise DataError(f"{root} must have one subfolder per class, but it has no subfolders.")
    if {f.name.lower() for f in folders} <= _SPLITS:
        raise DataError(
            f"{root} has the splits {', '.join(f.name for f in folders)} instead of classes. Give one "
            f"of them, for example {folders[-1]}."
        )
    items, empty = [], []
    for folder in folders:
        try:
            items += [Sample(picture, folder.name) for picture in list_pictures([folder])]
        except EmptyFolderError:
            empty.append(folder.name)
    if not items:
        raise DataError(
            f"The subfolders of {root} have no pictures. Pictures end in "
            f"{', '.join(sorted(SUFFIXES))}. Add some, or give another folder."
        )
    notes = [f"left out {len(empty)} folder(s) without pictures: {some(empty)}"] if empty else []
    notes += [f"left out {len(written)} folder(s) that SeeWhy wrote: {some(written)}"] if written else []
    loose = sum(is_picture(p.name, str(p)) for p in entries if p.is_file())
    if loose:
        notes.append(f"left out {loose} picture(s) directly in {root}, as they have no class")
    if group is None:
        return items, notes
    if group != "folder":
        raise DataError(
            f"{root} is a folder, so it has no column {group!r}. Use 'folder' to group pictures by "
            "the folders below each class, or give a table with that column."
        )
    return [replace(s, group=str(Path(s.image).parent)) for s in items], notes


def from_table(
    path: Path, rows: Sequence[dict[str, Any]], image: str, label: str | None, text: str, group: str | None,
    split: str | None,
) -> tuple[list[Sample], list[str]]:  # fmt: skip
    items, incomplete, needed = [], [], [image] if label is None else [image, label]
    for number, row in enumerate(rows, start=1):
        if missing := [c for c in needed if c not in row]:
            raise DataError(
                f"{path}, row {number}, has no column {' and no column '.join(map(repr, missing))}. Its columns are "
                f"{', '.join(map(repr, row))}. Give the columns with --column image=NAME --column label=NAME, or in "
                "Python with seewhy.load_samples(…, image=NAME, label=NAME)."
            )
        place, *name = (cell_text(row[c], f"{path}, row {number}, column {c!r},") for c in needed)
        if not place.strip() or not all(n.strip() for n in name):
            incomplete.append(str(number))
            continue
        texts = (str(row[text]),) if row.get(text) else ()
        belongs, part = plain_text(row, group), plain_text(row, split)
        file = place if "://" in place else str(path.parent / place)  # a Path would make http:/ of an address
        items.append(Sample(file, "".join(name), texts, belongs, split=part))
    columns = {name for row in rows for name in row}
    for column, what in ((group, "which pictures belong together"), (split, "to which split a picture belongs")):
        if column is not None and column not in columns:
            raise no_column(path, column, columns, f" that says {what}")
    if not items:
        both = repr(image) if label is None else f"both {image!r} and {label!r}"
        raise DataError(f"{path} has no rows with {both}. Fill in the values.")
    whole = whole_numbers([s.label for s in items])
    items = [replace(s, label=name) for s, name in zip(items, whole, strict=True)]
    what = "picture" if label is None else "picture or class"
    return items, [f"left out {len(incomplete)} row(s) without {what}: {some(incomplete)}"] if incomplete else []


def split(labels: Sequence[str], digests: Sequence[str], fraction: float, seed: int) -> list[bool]:
    """Choose the held-out samples: stratified by class and seeded.

    About ``fraction`` of the distinct pictures of each class is held out. A class with two or more pictures has at
    least one held-out picture and one training picture. Exact copies stay together. Copies that have different classes
    are never held out.
    """
    each = zip(labels, digests, under_two_classes(labels, digests), strict=True)
    groups = grouped((label, digest) for label, digest, twice in each if not twice)
    held: set[str] = set()
    for label in sorted(groups):
        distinct = sorted(set(groups[label]))
        random.Random(f"{seed}|{label}").shuffle(distinct)
        if len(distinct) > 1 and fraction > 0:
            held.update(distinct[: min(len(distinct) - 1, max(1, round(fraction * len(distinct))))])
    return [d in held for d in digests]


def under_two_classes(labels: Sequence[str], digests: Sequence[str]) -> list[bool]:
    """Return, for each picture, whether an exact copy of it has another class."""
    owners = grouped(zip(digests, labels, strict=True))
    twice = {digest for digest, own in owners.items() if len(set(own)) > 1}
    return [digest in twice for digest in digests]


def content_digest(sample: Sample) -> str | None:
    """Return the SHA-256 of a file's bytes or of a picture in memory; ``None`` if it cannot be read."""
    try:
        given: Any = plain(sample.source)
        if isinstance(given, bytes):
            return hashlib.sha256(given).hexdigest()
        if isinstance(given, Image.Image | np.ndarray):
            pixels = np.asarray(given)
            return hashlib.sha256(repr(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes()).hexdigest()
        return file_sha256(given, MAX_BYTES)
    except (OSError, ValueError, ImageError):
        return None


def copies(samples: Samples) -> list[tuple[int, ...]]:
    """Return groups of indices whose pictures are identical byte for byte."""
    places = grouped((content_digest(sample), i) for i, sample in enumerate(samples.items))
    return [tuple(same) for digest, same in places.items() if digest is not None and len(same) > 1]


def check_apart(train: Samples, test: Samples) -> None:
    """Check that no picture is in both the training and the test set."""
    known = {digest: s.image for s in train.items if (digest := content_digest(s)) is not None}
    both = [f"{known[digest]} = {s.image}" for s in test.items if (digest := content_digest(s)) in known]
    if both:
        raise DataError(
            f"{len(both)} picture(s) are in both the training and the test set: {some(both, 3)}. "
            "Remove them from one of the two sets."
        )


def folds_of(samples: Samples, n: int, seed: int = 0) -> list[int]:
    """Return a fold from 0 to ``n - 1`` per picture; copies and groups stay together, and folds have similar sizes."""
    owners = _together(samples)
    sizes = Counter(owners)
    order = sorted(sizes)
    random.Random(seed).shuffle(order)
    full, fold = [0] * min(n, len(order)), dict[int, int]()
    for owner in sorted(order, key=lambda o: -sizes[o]):
        fold[owner] = full.index(min(full))
        full[fold[owner]] += sizes[owner]
    return [fold[owner] for owner in owners]


def _together(samples: Samples) -> list[int]:
    """Return, for each picture, the number of those that share its group or its bytes, with all that these share."""
    groups = [i if s.group is None else s.group for i, s in enumerate(samples.items)]
    digests = [content_digest(s) or i for i, s in enumerate(samples.items)]
    return connected(len(samples), links(numbered(groups)), links(numbered(digests))).tolist()
