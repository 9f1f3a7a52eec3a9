"""What a writer is asked about classes: visual descriptors (Menon & Vondrick 2022), and what parts two (FuDD)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InputError
from .base import Descriptions
from .llm import Desk, Prompt, WriterError

EXAMPLES = (
    (
        "lemon",
        (
            "yellow or green skin",
            "oval shape with a pointed end",
            "smooth, shiny and dimpled surface",
            "small stem scar",
        ),
    ),
    (
        "bicycle",
        ("two thin wheels with spokes", "metal frame of triangles", "handlebar", "small saddle", "pedals and a chain"),
    ),
)
_BULLET = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s*(.+?)\s*[.;,]?\s*$")


def _question(label: str, kind: str) -> str:
    of = f" among {kind}" if kind else ""
    return f"Q: Which visible features tell a {label}{of} in a photograph?\nA: A {label} can be told by:"


def class_prompt(label: str, kind: str = "", n: int = 6, seed: int = 0) -> Prompt:
    """Two worked examples and the question (arXiv 2210.07183, section 2.1; the examples are ours).

    Args:
        label: the class.
        kind: what the classes are, for example ``"birds"``.
        n: descriptors wanted.
        seed: of the draw.
    """
    shown = [f"{_question(name, '')}\n" + "\n".join(f"- {t}" for t in texts) for name, texts in EXAMPLES]
    system = (
        f"You list up to {n} short visual features of a thing, one a line, each beginning with '- '. Only what can be "
        "seen in a photograph: colours, shapes, parts, textures, sizes. No names, no uses, no sentences."
    )
    return Prompt("\n\n".join([*shown, _question(label.replace("_", " "), kind)]), system, max_tokens=120, seed=seed)


def read_bullets(answer: str, n: int = 6) -> tuple[str, ...]:
    """The lines of a list, each once, without marks.

    Raises:
        ValueError: there are fewer than two.

    Example:
        >>> read_bullets("- red beak\\n- black  cap.\\nThat is all.")
        ('red beak', 'black  cap')
    """
    found = [m.group(1) for line in answer.splitlines() if (m := _BULLET.match(line))]
    texts = tuple(dict.fromkeys(t for t in found if 2 <= len(t) <= 160))[:n]
    if len(texts) < 2:
        raise ValueError(f"it has {len(texts)} lines that begin with '- ', and at least two were expected")
    return texts


def write_classes(
    desk: Desk, classes: Sequence[str], kind: str = "", n: int = 6
) -> Iterator[tuple[str, tuple[str, ...] | WriterError]]:
    """Descriptors of each class, in order; where there are none, the reason."""
    answers = desk.ask_all((class_prompt(c, kind, n) for c in classes), lambda answer: read_bullets(answer, n))
    yield from zip(classes, answers, strict=True)


PAIR_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "differences": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "attribute": {"type": "string"},
                    "first": {"type": "string"},
                    "second": {"type": "string"},
                },
                "required": ["attribute", "first", "second"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["differences"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class Difference:
    """One thing in which two classes differ.

    Attributes:
        attribute: what it is, for example ``"beak"``.
        first: a caption of the first class that says it.
        second: of the second.
    """

    attribute: str
    first: str
    second: str


@dataclass(frozen=True)
class Pair:
    """Two classes and what parts them (arXiv 2311.07593, section 3.2).

    Attributes:
        classes: the two, in the order of ``first`` and ``second``.
        differences: at least one.
    """

    classes: tuple[str, str]
    differences: tuple[Difference, ...]

    def captions(self, label: str) -> tuple[str, ...]:
        """Those of one of the two classes.

        Raises:
            InputError: it is neither.
        """
        if label not in self.classes:
            raise InputError(f"{label!r} is not of the pair {self.classes}. One of the two was expected.")
        first = label == self.classes[0]
        return tuple(dict.fromkeys(d.first if first else d.second for d in self.differences))

    def to_json(self) -> dict[str, Any]:
        return {"classes": list(self.classes), "differences": [vars(d) for d in self.differences]}


def pair_prompt(first: str, second: str, kind: str = "", n: int = 5, seed: int = 0) -> Prompt:
    """Captions that differ in one attribute each, as JSON."""
    of = f", both {kind}" if kind else ""
    user = (
        f"Two kinds of thing{of}: 1. {first}  2. {second}\n"
        f"Name up to {n} visible attributes in which photographs of the two differ. For each, write two captions of "
        "the form 'a photo of a NAME, with …', one for the first and one for the second, that differ in that attribute "
        "alone."
    )
    system = "You know what things look like, say only what can be seen in a photograph, and answer in JSON."
    return Prompt(user, system, max_tokens=600, schema=PAIR_SCHEMA, seed=seed)


def read_pair(answer: str, first: str, second: str) -> Pair:
    """The differences in an answer.

    Raises:
        ValueError: it is no JSON of the schema, or says nothing.
    """
    data = read_json(answer)
    rows = data.get("differences") if isinstance(data, dict) else None
    if not isinstance(rows, list):
        raise ValueError("it has no list called 'differences'")
    found = []
    for row in rows:
        if not isinstance(row, dict) or not all(isinstance(row.get(k), str) for k in ("attribute", "first", "second")):
            raise ValueError("a difference lacks attribute, first or second")
        if row["first"].strip() and row["second"].strip() and row["first"].strip() != row["second"].strip():
            found.append(Difference(row["attribute"].strip(), row["first"].strip(), row["second"].strip()))
    if not found:
        raise ValueError("it names no difference")
    return Pair((first, second), tuple(found))


def read_json(answer: str) -> Any:
    """The first JSON object or list in a text: models like to say something around it.

    Raises:
        ValueError: there is none.
    """
    start = min((i for i in (answer.find("{"), answer.find("[")) if i >= 0), default=-1)
    if start < 0:
        raise ValueError("it holds no JSON")
    try:
        return json.JSONDecoder().raw_decode(answer[start:])[0]
    except json.JSONDecodeError as error:
        raise ValueError(f"its JSON is broken ({error.msg} at character {error.pos})") from error


def write_pairs(
    desk: Desk, pairs: Iterable[tuple[str, str]], kind: str = "", n: int = 5
) -> Iterator[tuple[tuple[str, str], Pair | WriterError]]:
    """What parts each pair, in order; where nothing is had, the reason."""
    for first, second in pairs:
        try:
            yield (
                (first, second),
                desk.ask(
                    pair_prompt(first, second, kind, n),
                    lambda answer, a=first, b=second: read_pair(answer, a, b),  # type: ignore[misc]
                ),
            )
        except WriterError as error:
            yield (first, second), error


def as_descriptions(written: Iterable[tuple[str, tuple[str, ...] | WriterError]]) -> Descriptions:
    """Of the classes that have some."""
    return Descriptions({label: texts for label, texts in written if not isinstance(texts, WriterError)})
