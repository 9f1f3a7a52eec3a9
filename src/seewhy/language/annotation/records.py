"""What is annotated: pictures, objects in boxes, texts, their versions and judgements; checked, whoever sends them.

The tasks are ImageInWords' (section 3): ``objects`` in boxes, and ``caption``, one text on the whole picture. What a
person writes is its *content*, plain JSON; two texts are compared on the released dimensions and points (section 4).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from ...errors import InputError
from ...results import Count, Doc
from ...types import FractionBox

TASKS = ("objects", "caption")
LABEL = "label"
"""The task of ``seewhy check``, which the annotation pages have not."""
OPEN = "open"
DECISIONS = ("corrected", "confirmed", "later", "dropped")
ATTRIBUTES: dict[str, str] = {
    "shape": "What form does it have?",
    "size": "How large is it, beside the other things?",
    "colour": "Which colours, and where?",
    "pattern": "Stripes, dots, print, or plain?",
    "texture": "Rough, smooth, glossy, soft?",
    "material": "What is it made of?",
    "opacity": "Can one see through it?",
    "orientation": "Which way does it face?",
    "location": "Where is it on the picture?",
    "relations": "What does it touch, hide, hold, look at?",
    "text": "What is written on it?",
}
DIMENSIONS: dict[str, str] = {
    "comprehensiveness": "Which one says more of what is on the picture?",
    "specificity": "Which one is more exact about it?",
    "hallucination": "Which one has fewer things that are not on the picture?",
    "first_lines": "Whose first line or two gives the better idea of the whole?",
    "human_likeness": "Which one reads more as if a person had written it?",
}
POINTS: dict[int, str] = {
    2: "A is substantially better",
    1: "A is marginally better",
    0: "Neutral",
    -1: "B is marginally better",
    -2: "B is substantially better",
}
"""Scores of an answer, from the first text's side."""

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
    """One picture to annotate; its key is the beginning of the SHA-256 of the file, its size upright."""

    key: str
    digest: str
    name: str
    width: int
    height: int


@dataclass(frozen=True)
class BoxedObject:
    """One object on a picture."""

    id: Annotated[str, Doc("identifier, the same in all versions")]
    label: Annotated[str, Doc("name of the object")]
    box: Annotated[FractionBox, Doc("box on the upright picture, as fractions")]
    description: Annotated[str, Doc("description in the context of the picture")] = ""
    attributes: Annotated[tuple[str, ...], Doc("attributes that were searched for")] = ()

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "box": [round(v, 5) for v in self.box], "attributes": list(self.attributes)}


@dataclass(frozen=True)
class Version:
    """One state of one task of one picture; versions are only ever added."""

    task: Annotated[str, Doc("what was annotated")]
    number: Annotated[Count, Doc("0 is a model's proposal")]
    author: Annotated[str, Doc("who made the version")]
    kind: Annotated[Literal["seed", "round", "merge"], Doc("`merge` if two people started from the same version")]
    content: Annotated[Content, Doc("the complete content: `objects`, or `text`")]
    seconds: Annotated[float, Doc("active time in seconds")]
    base: Annotated[Count | None, Doc("number of the version it is based on")]
    made: Annotated[str, Doc("time in UTC, ISO 8601")]


def objects_of(content: Content) -> tuple[BoxedObject, ...]:
    """The objects in checked content."""
    return tuple(
        BoxedObject(o["id"], o["label"], tuple(o["box"]), o["description"], tuple(o["attributes"]))
        for o in content.get("objects", ())
    )


def check_author(name: object) -> str:
    """A person's name, without outer blanks."""
    text = " ".join(_text(name, "The annotator's name", 1000).split())
    if not 0 < len(text) <= 80:
        raise InputError(f"The annotator's name has {len(text)} characters. 1 to 80 were expected. Type a name.")
    return text


def check_content(task: str, content: object) -> Content:
    """Content as it is kept: a known task and keys, plain text, boxes that lie on the picture."""
    if task not in (*TASKS, LABEL):
        raise InputError(f"The task {task!r} was given. One of {', '.join(TASKS)} was expected.")
    if not isinstance(content, dict):
        raise InputError(f"The content of {task} is a {type(content).__name__}. A JSON object was expected.")
    if task == LABEL:
        return _decision(content)
    if task == "caption":
        return {"text": _text(content.get("text", ""), "The text", MAX_TEXT)}
    given = content.get("objects", [])
    if not isinstance(given, list) or len(given) > MAX_OBJECTS:
        raise InputError(f"The objects are no list, or more than {MAX_OBJECTS}. A shorter list was expected.")
    objects = [_object(row) for row in given]
    if len({o.id for o in objects}) < len(objects):
        raise InputError("Two objects have the same id. Each id once was expected.")
    return {"objects": [o.to_json() for o in objects]}


def _decision(content: Content) -> Content:
    """What was decided on a label: the label it is to have, the one it had, and the version an undoing restores."""
    decision, restores = content.get("decision"), content.get("restores")
    if decision not in (*DECISIONS, OPEN) or not (restores is None or _is_count(restores)):
        raise InputError(f"The decision {decision!r:.40} was given. One of {', '.join(DECISIONS)} was expected.")
    kept = {"decision": decision, **{k: _text(content.get(k), "A label", MAX_LABEL) for k in ("label", "given")}}
    return kept if restores is None else {**kept, "restores": restores}


def _object(given: object) -> BoxedObject:
    if not isinstance(given, dict) or not isinstance(given.get("id"), str) or not _ID.fullmatch(given["id"]):
        raise InputError("An object has no id. 1 to 40 letters, digits, - or _ were expected.")
    ticked = given.get("attributes", [])
    if not isinstance(ticked, list) or not all(isinstance(a, str) and a in ATTRIBUTES for a in ticked):
        raise InputError(f"The attributes {ticked!r:.80} were given. Some of {', '.join(ATTRIBUTES)} were expected.")
    label, box = _text(given.get("label", ""), "A label", MAX_LABEL), check_box(given.get("box"))
    description = _text(given.get("description", ""), "A description", MAX_TEXT)
    return BoxedObject(given["id"], label, box, description, tuple(a for a in ATTRIBUTES if a in ticked))


def check_version(row: dict[str, Any]) -> Version:
    """One version, by the names of its fields."""
    number, base, kind, made = (row.get(name) for name in ("number", "base", "kind", "made"))
    whole = _is_count(number) and (base is None or _is_count(base))
    if not whole or kind not in KINDS or not isinstance(made, str):
        raise InputError(
            f"A version has the number {number!r:.20}, the base {base!r:.20}, the kind {kind!r:.20} and the time "
            f"{made!r:.40}. Whole numbers from 0, one of {', '.join(KINDS)}, and a time as text were expected."
        )
    task = str(row.get("task"))
    content, seconds = check_content(task, row.get("content")), check_seconds(row.get("seconds"))
    return Version(task, int(number), check_author(row.get("author")), kind, content, seconds, base, made)  # type: ignore[arg-type]


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**9


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_seconds(seconds: Any) -> float:
    """A time from 0."""
    if _is_number(seconds) and 0 <= seconds <= MAX_SECONDS:
        return float(seconds)
    raise InputError(f"The time {seconds!r:.40} was given. Seconds from 0 to {MAX_SECONDS:.0e} were expected.")


def check_box(box: object) -> FractionBox:
    """A box in fractions of the picture."""
    if isinstance(box, list | tuple) and len(box) == 4 and all(map(_is_number, box)):
        left, top, right, bottom = (round(float(v), 5) for v in box)
        if 0 <= left < right <= 1 and 0 <= top < bottom <= 1:
            return left, top, right, bottom
    raise InputError(
        f"The box {box!r:.80} was given. [left, top, right, bottom] as fractions with 0 ≤ left < right ≤ 1 and "
        "0 ≤ top < bottom ≤ 1 were expected. Draw it anew."
    )


def _text(given: object, what: str, most: int) -> str:
    """Plain text that SQLite and JSON both hold."""
    if not isinstance(given, str):
        raise InputError(f"{what} is a {type(given).__name__}. Text was expected.")
    if len(given) > most:
        raise InputError(f"{what} has {len(given):,} characters. At most {most:,} were expected. Shorten it.")
    return given.encode("utf-8", "replace").decode().replace("\x00", "").replace("\r\n", "\n")


def check_answers(answers: object, turned: bool = False) -> dict[str, int]:
    """One score a dimension, from the first text's side; ``turned`` where the second text stood on the left."""
    if not isinstance(answers, Mapping) or set(answers) != set(DIMENSIONS):
        raise InputError(f"The answers {answers!r:.120} were given. One each was expected for {', '.join(DIMENSIONS)}.")
    for name, score in answers.items():
        if isinstance(score, bool) or not isinstance(score, int) or score not in POINTS:
            raise InputError(f"The answer {score!r:.40} to {name} was given. One of 2, 1, 0, -1, -2 was expected.")
    return {name: -answers[name] if turned else answers[name] for name in DIMENSIONS}


def check_judgement(row: object) -> dict[str, Any]:
    """One comparison as the export writes it."""
    if not isinstance(row, Mapping) or not all(isinstance(row.get(k), str) for k in ("first", "second")):
        raise InputError("A judgement does not name two texts. What this program exports was expected.")
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
