"""Checked records of annotation: pictures, objects in boxes, texts, versions and comparisons.

The tasks follow ImageInWords (section 3): ``objects`` in boxes, and ``caption``, one text on the whole picture.
Two texts are compared on the paper's dimensions and scale (section 4).
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast

from annotated_types import Ge, Le, MaxLen
from pydantic import AfterValidator, BeforeValidator, Strict, StringConstraints, ValidationError

from ...errors import InputError
from ...results import Count, Doc, adapter
from ...types import FractionBox

TASKS = ("objects", "caption")
LABEL = "label"
"""The task of ``seewhy check``, which is not on the annotation pages."""
OPEN = "undecided"
DECISIONS = {"changed": "Change to", "kept": "Keep", "postponed": "Postpone", "left_out": "Leave out"}
"""What people decide on a label, with the words of its button; elsewhere a decision goes by its own name."""
_TABLES: dict[str, dict[str, str]] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
ATTRIBUTES, DIMENSIONS = _TABLES["attributes"], _TABLES["dimensions"]
"""Questions on an object, and on two texts."""
POINTS = {int(points): text for points, text in _TABLES["points"].items()}
"""Scores of an answer; positive scores prefer the first text."""

Content = dict[str, Any]
"""``{"objects": [...]}`` or ``{"text": "..."}``, by task."""
T = TypeVar("T")


def _storable(text: object) -> str:
    """Return a text in a form that SQLite and JSON can store."""
    if not isinstance(text, str):
        raise InputError(f"A text must be given as text, got {type(text).__name__}.")
    return text.encode("utf-8", "replace").decode().replace("\x00", "").replace("\r\n", "\n")


def check_author(name: object) -> str:
    """Check a person's name and return it without extra spaces."""
    text = " ".join(_storable(name).split())
    if not 0 < len(text) <= 80:
        raise InputError(f"The annotator's name must have 1 to 80 characters, got {len(text)}.")
    return text


def check_answers(answers: object, turned: bool = False) -> dict[str, int]:
    """Check the scores per dimension; ``turned`` inverts them, because the second text was shown first."""
    if not isinstance(answers, Mapping) or set(answers) != set(DIMENSIONS):
        raise InputError(f"The answers must have one score each for {', '.join(DIMENSIONS)}, got {answers!r:.120}.")
    for name, score in answers.items():
        if isinstance(score, bool) or not isinstance(score, int) or score not in POINTS:
            raise InputError(f"The answer to {name} must be 2, 1, 0, -1 or -2, got {score!r:.40}.")
    return {name: -answers[name] if turned else answers[name] for name in DIMENSIONS}


def _in_picture(box: FractionBox) -> FractionBox:
    left, top, right, bottom = (round(float(v), 5) for v in box)
    if 0 <= left < right <= 1 and 0 <= top < bottom <= 1:
        return left, top, right, bottom
    raise InputError(
        "The box must be [left, top, right, bottom] with 0 ≤ left < right ≤ 1 and 0 ≤ top < bottom ≤ 1, got "
        f"{list(box)!r:.80}. Draw it again."
    )


def _in_order(ticked: Sequence[str]) -> tuple[str, ...]:
    if not set(ticked) <= set(ATTRIBUTES):
        raise InputError(f"Each attribute must be one of {', '.join(ATTRIBUTES)}, got {list(ticked)!r:.80}.")
    return tuple(name for name in ATTRIBUTES if name in ticked)


Text = Annotated[str, BeforeValidator(_storable), MaxLen(20_000)]
Label = Annotated[str, BeforeValidator(_storable), MaxLen(200)]
Author = Annotated[str, BeforeValidator(check_author)]
Number = Annotated[Count, Strict()]
Seconds = Annotated[float, Strict(), Ge(0), Le(1e7)]
Side = Annotated[float, Strict()]
Box = Annotated[tuple[Side, Side, Side, Side], AfterValidator(_in_picture)]


@dataclass(frozen=True)
class Picture:
    """A picture to annotate, with the beginning of its SHA-256 as key and the size of the upright picture."""

    key: str
    digest: str
    name: str
    width: int
    height: int


@dataclass(frozen=True)
class BoxedObject:
    """An object in a picture."""

    id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,40}$"), Doc("identifier, the same in all versions")]
    label: Annotated[Label, Doc("name of the object")]
    box: Annotated[Box, Doc("box in fractions of the upright picture")]
    description: Annotated[Text, Doc("description of its appearance")] = ""
    attributes: Annotated[tuple[str, ...], AfterValidator(_in_order), Doc("attributes that the annotator ticked")] = ()

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "box": [round(v, 5) for v in self.box], "attributes": list(self.attributes)}


@dataclass(frozen=True)
class Version:
    """A saved version of the annotations that a task asks for on a picture; it never changes."""

    task: Annotated[str, Doc("task of the annotation")]
    number: Annotated[Number, Doc("number of the version; 0 is a model's proposal")]
    author: Annotated[Author, Doc("author of the version")]
    kind: Annotated[Literal["seed", "round", "merge"], Doc("`merge` if two people began from the same version")]
    content: Annotated[Content, Doc("all `objects`, or the `text`")]
    seconds: Annotated[Seconds, Doc("active time in seconds")]
    base: Annotated[Number | None, Doc("number of the version on which it is based")]
    made: Annotated[str, Doc("time in UTC, ISO 8601")]


@dataclass(frozen=True)
class Draft:
    """A person's unsaved text in one browser tab, based on the version ``base``."""

    revision: Number
    base: Number
    content: Content
    seconds: Seconds
    made: str
    tab: str
    sequence: Number


@dataclass(frozen=True)
class Judgement:
    """A person's comparison of two texts."""

    author: Annotated[Author, Doc("name of the person who judged")]
    first: Annotated[str, Doc("name of one text")]
    second: Annotated[str, Doc("name of the other text")]
    swapped: Annotated[bool, Doc("whether the second text was on the left")]
    answers: Annotated[
        dict[str, int], BeforeValidator(check_answers), Doc("for each question, from 2 to −2 for the first text")
    ]
    seconds: Annotated[Seconds, Doc("active time in seconds")]
    made: Annotated[str, Doc("time in UTC, ISO 8601")]


@dataclass(frozen=True)
class _Objects:
    objects: Annotated[tuple[BoxedObject, ...], MaxLen(200)] = ()


@dataclass(frozen=True)
class _Caption:
    text: Text = ""


@dataclass(frozen=True)
class _Decision:
    decision: Annotated[str, StringConstraints(pattern=f"^({'|'.join((*DECISIONS, OPEN))})$")]
    label: Label
    given: Label
    restores: Number | None = None


def read_record(kind: type[T], data: object, what: str) -> T:
    """Build a record from what a page or a file gives, and check every field."""
    try:
        made: T = adapter(cast(Any, kind)).validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        if isinstance(own := first.get("ctx", {}).get("error"), InputError):
            raise own from None
        place = ".".join(map(str, first["loc"])) or "all of it"
        raise InputError(f"{what} must be valid, but {place} is not: {first['msg']}.") from None
    return made


def objects_of(content: object) -> tuple[BoxedObject, ...]:
    made = read_record(_Objects, content, "The content of objects")
    if len({o.id for o in made.objects}) < len(made.objects):
        raise InputError("The objects must have different ids.")
    return made.objects


def check_content(task: str, content: object) -> Content:
    if task not in (*TASKS, LABEL):
        raise InputError(f"The task must be one of {', '.join(TASKS)}, got {task!r}.")
    if task == "objects":
        return {"objects": [one.to_json() for one in objects_of(content)]}
    made = vars(read_record(_Caption if task == "caption" else _Decision, content, f"The content of {task}"))
    return {name: value for name, value in made.items() if value is not None}
