"""What every format of boxes says: pictures, their size, and boxes in pixels."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol

from ...errors import DataError, ImageError
from ..listing import natural_key
from ..regions import Box
from ..samples import Sample, Samples, gathered, some
from ..sizes import upright_size

Corners = tuple[float, float, float, float]
"""``(left, top, right, bottom)`` in pixels of the upright picture, not rounded."""


@dataclass(frozen=True)
class BoxRecord:
    """One box."""

    box: Corners
    label: str
    score: float | None = None
    ignored: bool = False

    @property
    def area(self) -> float:
        left, top, right, bottom = self.box
        return (right - left) * (bottom - top)


@dataclass(frozen=True)
class BoxedPicture:
    """A picture and its boxes."""

    image: str
    size: tuple[int, int] | None
    boxes: tuple[BoxRecord, ...] = ()


@dataclass(frozen=True)
class LeftOut:
    """A box that cannot be used, as it stood in the file."""

    where: str
    image: str
    label: str
    values: tuple[float, ...]
    why: str


@dataclass(frozen=True)
class BoxData:
    """Pictures with boxes."""

    pictures: tuple[BoxedPicture, ...]
    classes: tuple[str, ...]
    left_out: tuple[LeftOut, ...] = ()
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def n_boxes(self) -> int:
        return sum(len(p.boxes) for p in self.pictures)

    def __repr__(self) -> str:
        return f"BoxData({len(self)} pictures, {self.n_boxes} boxes, {len(self.classes)} classes)"

    def present(self) -> BoxData:
        """Those whose picture is there."""
        gone = set(self.missing)
        kept = tuple(p for p in self.pictures if p.image not in gone)
        if not kept:
            raise DataError(
                f"None of the {len(self)} pictures is there, such as {self.pictures[0].image if self else 'any'}. "
                "Their files were expected. Name the folder that they are in with --pictures."
            )
        return BoxData(kept, self.classes, self.left_out, (), self.notes)

    def samples(self) -> Samples:
        """The same as samples, whose boxes are fractions of the picture."""
        items = []
        for one in self.pictures:
            width, height = size_of(one)
            boxes = tuple(
                Box((b.box[0] / width, b.box[1] / height, b.box[2] / width, b.box[3] / height), b.label)
                for b in one.boxes
            )
            items.append(Sample(one.image, boxes=boxes))
        return gathered(items, self.notes)


class BoxFormat(Protocol):
    """One way of writing boxes down."""

    name: ClassVar[str]

    def knows(self, path: Path) -> bool:
        """Whether a file or folder looks like this format; nothing large is read."""
        ...

    def read(self, path: Path, pictures: Path | None) -> BoxData:
        """All of it."""
        ...

    def files(self, data: BoxData, folder: Path) -> Mapping[str, str]:
        """What is to be written into a folder: file name → text."""
        ...


def size_of(picture: BoxedPicture) -> tuple[int, int]:
    """Width and height."""
    if picture.size is None:
        raise DataError(
            f"The size of {picture.image} is not known, as the file is not there. Width and height were expected, "
            "since boxes are parts of them. Name the folder of the pictures with --pictures."
        )
    return picture.size


@dataclass
class Gathering:
    """Boxes as they are read: what is not right is named, and the rest goes on."""

    source: Path
    classes: list[str] = field(default_factory=list)
    _boxes: dict[str, list[BoxRecord]] = field(default_factory=dict)
    _sizes: dict[str, tuple[int, int] | None] = field(default_factory=dict)
    _own: dict[str, tuple[int, int] | None] = field(default_factory=dict)
    _other: dict[str, str] = field(default_factory=dict)
    _left_out: list[LeftOut] = field(default_factory=list)
    _cut: list[str] = field(default_factory=list)
    _notes: list[str] = field(default_factory=list)

    def picture(self, image: str, stated: tuple[int, int] | None = None) -> tuple[int, int] | None:
        """A picture, with or without boxes to come; its size, as it has it or else as the file states it.

        Where both are known and differ, its boxes would lie elsewhere, and the picture is left out with them.
        """
        if image not in self._boxes:
            self._boxes[image] = []
            try:
                self._own[image] = upright_size(image)
            except ImageError:
                self._own[image] = None
        own = self._own[image]
        if own is not None and stated is not None and own != stated:
            turned = " when it is upright" if own == stated[::-1] else ""
            self._other[image] = f"stated {stated[0]} by {stated[1]}, is {own[0]} by {own[1]}{turned}"
        self._sizes[image] = own or self._sizes.get(image) or stated
        return self._sizes[image]

    def has(self, image: str) -> bool:
        return image in self._boxes

    def note(self, text: str) -> None:
        self._notes.append(text)

    def leave_out(self, where: str, image: str, label: str, values: Sequence[float], why: str) -> None:
        self._left_out.append(LeftOut(where, image, label, tuple(values), why))

    def box(self, where: str, image: str, record: BoxRecord) -> None:
        """A box of a picture that was named before; cut where it reaches beyond it."""
        if image in self._other:
            return
        why, cut = _placed(record.box, self._sizes.get(image))
        if why is None and record.score is not None and not math.isfinite(record.score):
            why = "has no number for its score"
        if why is None and not record.label.strip():
            why = "has no class"
        if why is not None:
            self.leave_out(where, image, record.label, record.box, why)
            return
        if cut != record.box:
            self._cut.append(where)
            record = BoxRecord(cut, record.label, record.score, record.ignored)
        self._boxes[image].append(record)

    def done(self) -> BoxData:
        """All that was read."""
        if not self._boxes:
            raise DataError(
                f"{self.source} names no picture. At least one was expected, be it without boxes. Give another file."
            )
        if len(self._other) == len(self._boxes):
            raise DataError(
                f"{self.source} states sizes that its pictures do not have: {self._differing()}. Boxes on the pictures "
                "as they are were expected. Export it again from these pictures, saved upright, or give those that it "
                "was made of."
            )
        kept = {i: b for i, b in self._boxes.items() if i not in self._other}
        pictures = tuple(BoxedPicture(i, self._sizes[i], tuple(b)) for i, b in kept.items())
        used = Counter(b.label for p in pictures for b in p.boxes)
        classes = (*self.classes, *sorted(set(used) - set(self.classes), key=natural_key))
        missing = tuple(p.image for p in pictures if not os.path.exists(p.image))
        return BoxData(pictures, classes, tuple(self._left_out), missing, self._said(classes, used, missing))

    def _differing(self) -> str:
        return some([f"{Path(image).name} ({what})" for image, what in self._other.items()], 3)

    def _said(self, classes: Sequence[str], used: Counter[str], missing: Sequence[str]) -> tuple[str, ...]:
        notes = list(self._notes)
        if self._other:
            notes.append(
                f"{len(self._other)} picture(s) left out, as the size stated is not theirs and the boxes would lie "
                f"elsewhere: {self._differing()}"
            )
        reasons: dict[str, list[LeftOut]] = {}
        for one in self._left_out:
            reasons.setdefault(one.why, []).append(one)
        for why, those in reasons.items():
            places = [f"{o.where} ({o.label}: {', '.join(f'{v:g}' for v in o.values)})" for o in those]
            notes.append(f"{len(those)} box(es) left out, each of which {why}: {some(places, 3)}")
        if self._cut:
            notes.append(f"{len(self._cut)} box(es) cut at the edge of the picture: {some(self._cut, 3)}")
        if missing:
            notes.append(f"{len(missing)} picture(s) are not there: {some(missing, 3)}")
        if without := [c for c in classes if c not in used]:
            notes.append(f"{len(without)} class(es) have no box: {some(without)}")
        return tuple(notes)


def _placed(box: Corners, size: tuple[int, int] | None) -> tuple[str | None, Corners]:
    """What is wrong with a box, if it cannot be used; and the box within the picture."""
    left, top, right, bottom = box
    if not all(map(math.isfinite, box)):
        return "has a number that is none", box
    if right <= left or bottom <= top:
        return "has no area", box
    if size is None:
        return None, box
    width, height = size
    if right <= 0 or bottom <= 0 or left >= width or top >= height:
        return "lies outside the picture", box
    return None, (max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height)))
