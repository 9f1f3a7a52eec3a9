"""What a writer is asked by Image Textualization's three phases; the wording and the examples are ours."""

from __future__ import annotations

from collections.abc import Sequence

from ..descriptions.class_questions import read_json
from .experts import FoundObject
from .llm import Prompt

OBJECTS_SCHEMA = {
    "type": "object",
    "properties": {"objects": {"type": "array", "items": {"type": "string"}}},
    "required": ["objects"],
    "additionalProperties": False,
}


def draft_prompt(image: bytes, seed: int = 0) -> Prompt:
    """Phase 1: a whole description, from a writer that sees."""
    user = (
        "Describe this picture so that someone who cannot see it knows what is on it: the view first, then the main "
        "things with their colours, shapes, materials and places, then what is around them. State only what you see."
    )
    return Prompt(user, "You describe pictures exactly and invent nothing.", (image,), max_tokens=400, seed=seed)


def objects_prompt(draft: str) -> Prompt:
    """Phase 2: the things a draft states for certain."""
    user = (
        "List the things that this description says are on the picture, each once, as short noun phrases without an "
        "article. Leave out what it only supposes, and what cannot be touched, such as moods, light or weather.\n\n"
        "Description: A black dog lies on a sofa, perhaps waiting for its owner. The mood is calm.\n"
        'Answer: {"objects": ["black dog", "sofa"]}\n\n'
        f"Description: {draft}\nAnswer:"
    )
    return Prompt(user, "You answer in JSON.", max_tokens=300, schema=OBJECTS_SCHEMA)


def read_objects(answer: str) -> tuple[str, ...]:
    """The phrases in an answer, each once."""
    data = read_json(answer)
    rows = data.get("objects") if isinstance(data, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, str) for row in rows):
        raise ValueError("it has no list of texts called 'objects'")
    return tuple(dict.fromkeys(row.strip().rstrip(".") for row in rows if row.strip(" .")))


def rewrite_prompt(draft: str, removed: Sequence[str], found: Sequence[FoundObject]) -> Prompt:
    """Phase 3: the draft without what is not there and with what is, numbers turned into words."""
    lines = []
    for o in found:
        box = ", ".join(f"{v:.2f}" for v in o.box)
        size = "" if o.size is None else f"; size {100 * o.size:.2f} %"
        depth = "" if o.depth is None else f"; nearness {o.depth:.2f}"
        lines.append(f"- {' '.join(filter(None, (o.colour, o.label)))}; box [{box}]{size}{depth}")
    user = (
        "Rewrite the description below so that it is more detailed and correct.\n"
        "You get things that were measured on the picture: a box [left, top, right, bottom] as fractions of the "
        "picture, the part of the picture in per cent, and nearness from 0 (far) to 1 (near) among these things.\n"
        "Rules: 1. Take out every thing listed as not there, with all that is said of it. 2. Add measured things that "
        "are missing; several may be the same thing, so do not say it twice. 3. Say places, distances and sizes in "
        "words, never as numbers, and sizes only when they are very small or very large. 4. Keep all else, also "
        "remarks on view and style. 5. Answer with the description alone.\n\n"
        f"Not there: {', '.join(removed) or 'nothing'}\nMeasured:\n{chr(10).join(lines)}\n\nDescription: {draft}"
    )
    return Prompt(user, "You edit descriptions of pictures and invent nothing.", max_tokens=900)


def read_text(answer: str) -> str:
    """A description without quotation marks around it."""
    text = answer.strip().strip('"').strip()
    if not text:
        raise ValueError("it is empty")
    return text
