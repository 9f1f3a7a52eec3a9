"""Checked records of annotation: pictures, objects in boxes, texts, versions and comparisons.

The tasks follow ImageInWords (section 3): ``objects`` in boxes, and ``caption``, one text on the whole picture.
Two texts are compared on the paper's dimensions and scale (section 4).
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from ...errors import InputError
from ...results import Count, Doc
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

MAX_OBJECTS = 200
MAX_LABEL = 200
MAX_TEXT = 20_000
MAX_SECONDS = 1e7
KINDS = ("seed", "round", "merge")
_ID = re.compile(r"[A-Za-z0-9_-]{1,40}")

Content = dict[str, Any]
"""``{"objects": [...]}`` or ``{"text": "..."}``, by task."""


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

    id: Annotated[str, Doc("identifier, the same in all versions")]
    label: Annotated[str, Doc("name of the object")]
    box: Annotated[FractionBox, Doc("box in fractions of the upright picture")]
    description: Annotated[str, Doc("description of its appearance")] = ""
    attributes: Annotated[tuple[str, ...], Doc("attributes that the annotator ticked")] = ()

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "box": [round(v, 5) for v in self.box], "attributes": list(self.attributes)}


@dataclass(frozen=True)
class Version:
    """A saved version of the annotations that a task asks for on a picture; it never changes."""

    task: Annotated[str, Doc("task of the annotation")]
    number: Annotated[Count, Doc("number of the version; 0 is a model's proposal")]
    author: Annotated[str, Doc("author of the version")]
    kind: Annotated[Literal["seed", "round", "merge"], Doc("`merge` if two people began from the same version")]
    content: Annotated[Content, Doc("all `objects`, or the `text`")]
    seconds: Annotated[float, Doc("active time in seconds")]
    base: Annotated[Count | None, Doc("number of the version on which it is based")]
    made: Annotated[str, Doc("time in UTC, ISO 8601")]


def objects_of(content: Content) -> tuple[BoxedObject, ...]:
    return tuple(
        BoxedObject(o["id"], o["label"], tuple(o["box"]), o["description"], tuple(o["attributes"]))
        for o in content.get("objects", ())
    )


def check_author(name: object) -> str:
    """Check a person's name and return it without extra spaces."""
    text = " ".join(_text(name, "The annotator's name", 1000).split())
    if not 0 < len(text) <= 80:
        raise InputError(f"The annotator's name must have 1 to 80 characters, got {len(text)}.")
    return text


def check_content(task: str, content: object) -> Content:
    if task not in (*TASKS, LABEL):
        raise InputError(f"The task must be one of {', '.join(TASKS)}, got {task!r}.")
    if not isinstance(content, dict):
        raise InputError(f"The content of {task} must be a JSON object, got {type(content).__name__}.")
    if task == LABEL:
        return _decision(content)
    if task == "caption":
        return {"text": _text(content.get("text", ""), "The text", MAX_TEXT)}
    given = content.get("objects", [])
    if not isinstance(given, list) or len(given) > MAX_OBJECTS:
        raise InputError(f"The objects must be a list of at most {MAX_OBJECTS}.")
    objects = [_object(row) for row in given]
    if len({o.id for o in objects}) < len(objects):
        raise InputError("The objects must have different ids.")
    return {"objects": [o.to_json() for o in objects]}


def _decision(content: Content) -> Content:
    decision, restores = content.get("decision"), content.get("restores")
    if decision not in (*DECISIONS, OPEN) or not (restores is None or _is_count(restores)):
        raise InputError(f"The decision must be one of {', '.join(DECISIONS)}, got {decision!r:.40}.")
    kept = {"decision": decision, **{k: _text(content.get(k), "A label", MAX_LABEL) for k in ("label", "given")}}
    return kept if restores is None else {**kept, "restores": restores}


def _object(given: object) -> BoxedObject:
    if not isinstance(given, dict) or not isinstance(given.get("id"), str) or not _ID.fullmatch(given["id"]):
        raise InputError("The id of an object must have 1 to 40 letters, digits, - or _.")
    ticked = given.get("attributes", [])
    if not isinstance(ticked, list) or not all(isinstance(a, str) and a in ATTRIBUTES for a in ticked):
        raise InputError(f"Each attribute must be one of {', '.join(ATTRIBUTES)}, got {ticked!r:.80}.")
    label, box = _text(given.get("label", ""), "A label", MAX_LABEL), check_box(given.get("box"))
    description = _text(given.get("description", ""), "A description", MAX_TEXT)
    return BoxedObject(given["id"], label, box, description, tuple(a for a in ATTRIBUTES if a in ticked))


def check_version(row: dict[str, Any]) -> Version:
    number, base, kind, made = (row.get(name) for name in ("number", "base", "kind", "made"))
    whole = _is_count(number) and (base is None or _is_count(base))
    if not whole or kind not in KINDS or not isinstance(made, str):
        raise InputError(
            f"A version must have whole numbers as number and base, one of {', '.join(KINDS)} as kind, and a text as "
            f"time, got {number!r:.20}, {base!r:.20}, {kind!r:.20} and {made!r:.40}."
        )
    task = str(row.get("task"))
    content, seconds = check_content(task, row.get("content")), check_seconds(row.get("seconds"))
    return Version(task, int(number), check_author(row.get("author")), kind, content, seconds, base, made)  # type: ignore[arg-type]


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**9


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_seconds(seconds: Any) -> float:
    if _is_number(seconds) and 0 <= seconds <= MAX_SECONDS:
        return float(seconds)
    raise InputError(f"The time must be from 0 to {MAX_SECONDS:.0e} seconds, got {seconds!r:.40}.")


def check_box(box: object) -> FractionBox:
    if isinstance(box, list | tuple) and len(box) == 4 and all(map(_is_number, box)):
        left, top, right, bottom = (round(float(v), 5) for v in box)
        if 0 <= left < right <= 1 and 0 <= top < bottom <= 1:
            return left, top, right, bottom
    raise InputError(
        "The box must be [left, top, right, bottom] with 0 ≤ left < right ≤ 1 and 0 ≤ top < bottom ≤ 1, got "
        f"{box!r:.80}. Draw it again."
    )


def _text(given: object, what: str, most: int) -> str:
    """Check a text and return it in a form that SQLite and JSON can store."""
    if not isinstance(given, str):
        raise InputError(f"{what} must be text, got {type(given).__name__}.")
    if len(given) > most:
        raise InputError(f"{what} must have at most {most:,} characters, got {len(given):,}.")
    return given.encode("utf-8", "replace").decode().replace("\x00", "").replace("\r\n", "\n")


def check_answers(answers: object, turned: bool = False) -> dict[str, int]:
    """Check the scores per dimension; ``turned`` inverts them, because the second text was shown first."""
    if not isinstance(answers, Mapping) or set(answers) != set(DIMENSIONS):
        raise InputError(f"The answers must have one score each for {', '.join(DIMENSIONS)}, got {answers!r:.120}.")
    for name, score in answers.items():
        if isinstance(score, bool) or not isinstance(score, int) or score not in POINTS:
            raise InputError(f"The answer to {name} must be 2, 1, 0, -1 or -2, got {score!r:.40}.")
    return {name: -answers[name] if turned else answers[name] for name in DIMENSIONS}


def check_judgement(row: object) -> dict[str, Any]:
    """Check a comparison in the form of the export and return it."""
    if not isinstance(row, Mapping) or not all(isinstance(row.get(k), str) for k in ("first", "second")):
        raise InputError("A comparison must name two texts, as in the export.")
    made = row.get("made")
    return {
        "author": check_author(row.get("author")),
        "first": row["first"],
        "second": row["second"],
        "swapped": row.get("swapped") is True,
        "answers": check_answers(row.get("answers")),
        "seconds": check_seconds(row.get("seconds")),
        "made": made if isinstance(made, str) else None,
    }
