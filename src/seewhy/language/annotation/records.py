"""What is annotated: pictures, objects in boxes, texts, and the versions they went through.

An annotation has two tasks (section 3 of the paper): ``objects``, boxes with a label and a description each, and
``caption``, one text on the whole picture. What a person writes for a task is its *content*: plain JSON, checked here,
whoever sends it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from ...errors import InputError
from ...types import FractionBox

TASKS = ("objects", "caption")
LABEL = "label"
"""A task of its own, of ``seewhy check``; the annotation pages have those of :data:`TASKS`."""
OPEN = "open"
DECISIONS = ("corrected", "confirmed", "later", "dropped")
"""What can be decided on a label; undone, it is :data:`OPEN` again."""
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
"""What to look for on every object, and how to ask for it."""

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
    """One picture to annotate.

    Attributes:
        key: names it in addresses; the beginning of ``digest``.
        digest: SHA-256 of the file's bytes.
        name: file name as given.
        width, height: upright, in pixels.
    """

    key: str
    digest: str
    name: str
    width: int
    height: int


@dataclass(frozen=True)
class BoxedObject:
    """One object on a picture.

    Attributes:
        id: stays the same from version to version.
        label: what it is.
        box: on the upright picture.
        description: in the context of the picture.
        attributes: of :data:`ATTRIBUTES`, those that the annotator has looked for.
    """

    id: str
    label: str
    box: FractionBox
    description: str = ""
    attributes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "label": self.label,
            "box": [round(v, 5) for v in self.box],
            "description": self.description,
            "attributes": list(self.attributes),
        }


@dataclass(frozen=True)
class Version:
    """One state of one task of one picture; versions are only ever added.

    Attributes:
        task: of :data:`TASKS`.
        number: 0 for a model's seed, then counting up.
        author: who made it.
        kind: ``"seed"``, ``"round"``, or ``"merge"`` where two people had begun from the same version.
        content: the whole of it.
        seconds: the author's active time.
        base: number of the version it was made from; a seed has none.
        made: UTC, ISO 8601.
    """

    task: str
    number: int
    author: str
    kind: str
    content: Content
    seconds: float
    base: int | None
    made: str

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


def objects_of(content: Content) -> tuple[BoxedObject, ...]:
    """The objects in checked content."""
    return tuple(
        BoxedObject(o["id"], o["label"], tuple(o["box"]), o["description"], tuple(o["attributes"]))
        for o in content.get("objects", ())
    )


def check_task(task: str) -> str:
    """The task, if there is one of that name."""
    if task not in (*TASKS, LABEL):
        raise InputError(f"The task {task!r} was given. One of {', '.join(TASKS)} was expected.")
    return task


def check_author(name: object) -> str:
    """A person's name, without outer blanks."""
    text = " ".join(_text(name, "The annotator's name", 1000).split())
    if not 0 < len(text) <= 80:
        raise InputError(f"The annotator's name has {len(text)} characters. 1 to 80 were expected. Type a name.")
    return text


def check_content(task: str, content: object) -> Content:
    """Content as it is kept: known keys, plain text, boxes that lie on the picture."""
    if not isinstance(content, dict):
        raise InputError(f"The content of {task} is a {type(content).__name__}. A JSON object was expected.")
    if check_task(task) == LABEL:
        return _decision(content)
    if task == "caption":
        return {"text": _text(content.get("text", ""), "The text", MAX_TEXT)}
    given = content.get("objects", [])
    if not isinstance(given, list) or len(given) > MAX_OBJECTS:
        raise InputError(f"The objects are no list, or more than {MAX_OBJECTS}. A shorter list was expected.")
    found = [_object(one) for one in given]
    if len({o.id for o in found}) < len(found):
        raise InputError("Two objects have the same id. Each id once was expected.")
    return {"objects": [o.to_json() for o in found]}


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
    return BoxedObject(
        given["id"],
        _text(given.get("label", ""), "A label", MAX_LABEL),
        check_box(given.get("box")),
        _text(given.get("description", ""), "A description", MAX_TEXT),
        tuple(a for a in ATTRIBUTES if a in ticked),
    )


def check_versions(given: object) -> tuple[Version, ...]:
    """Versions as :meth:`Version.to_json` writes them, each number of a task once."""
    if not isinstance(given, list) or not all(isinstance(row, dict) for row in given):
        raise InputError("The versions are no list of objects. What this program exports was expected.")
    found = [check_version(row) for row in given]
    if len({(v.task, v.number) for v in found}) < len(found):
        raise InputError("Two versions of a task have the same number. Each number once was expected.")
    return tuple(found)


def check_version(row: dict[str, Any]) -> Version:
    """One version as :meth:`Version.to_json` writes it."""
    number, base, kind, made = (row.get(name) for name in ("number", "base", "kind", "made"))
    whole = _is_count(number) and (base is None or _is_count(base))
    if not whole or kind not in KINDS or not isinstance(made, str):
        raise InputError(
            f"A version has the number {number!r:.20}, the base {base!r:.20}, the kind {kind!r:.20} and the time "
            f"{made!r:.40}. Whole numbers from 0, one of {', '.join(KINDS)}, and a time as text were expected."
        )
    task = check_task(str(row.get("task")))
    content, seconds = check_content(task, row.get("content")), check_seconds(row.get("seconds"))
    return Version(task, int(number), check_author(row.get("author")), kind, content, seconds, base, made)  # type: ignore[arg-type]


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**9


def check_seconds(seconds: object) -> float:
    """A time from 0."""
    if isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 <= seconds <= MAX_SECONDS:
        return float(seconds)
    raise InputError(f"The time {seconds!r:.40} was given. Seconds from 0 to {MAX_SECONDS:.0e} were expected.")


def check_box(box: object) -> FractionBox:
    """A box in fractions of the picture.

    Example:
        >>> check_box([0, 0.25, 1, 0.5])
        (0.0, 0.25, 1.0, 0.5)
    """
    numbers = isinstance(box, list | tuple) and all(
        isinstance(v, int | float) and not isinstance(v, bool) and v == v for v in box
    )
    if numbers and isinstance(box, list | tuple) and len(box) == 4:
        left, top, right, bottom = (round(float(v), 5) for v in box)
        if 0 <= left < right <= 1 and 0 <= top < bottom <= 1:
            return left, top, right, bottom
    raise InputError(
        f"The box {box!r:.80} was given. [left, top, right, bottom] as fractions with 0 ≤ left < right ≤ 1 and "
        "0 ≤ top < bottom ≤ 1 were expected. Draw it anew."
    )


def _text(given: object, what: str, most: int) -> str:
    """Plain text that SQLite, JSON and Parquet all hold."""
    if not isinstance(given, str):
        raise InputError(f"{what} is a {type(given).__name__}. Text was expected.")
    if len(given) > most:
        raise InputError(f"{what} has {len(given):,} characters. At most {most:,} were expected. Shorten it.")
    plain = given.encode("utf-8", "replace").decode().replace("\x00", "")
    return plain.replace("\r\n", "\n")
