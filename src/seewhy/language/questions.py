"""Prompts for descriptions of classes (Menon & Vondrick 2022) and differences between two (FuDD), and their files."""

from __future__ import annotations

import json
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

from ..descriptions.base import Difference, Pair
from ..errors import DataError
from ..explanation.prediction import Prediction
from ..storage.output import write
from ..storage.reading import json_value, read_text, readable
from ..types import Failure
from .writers import Prompt, WriterError, WriterSession

_TABLE = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
EXAMPLES = tuple((label, tuple(texts)) for label, texts in _TABLE.items())
_KEYS = ("attribute", "first", "second")
_BULLET = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s*(.+?)\s*[.;,]?\s*$")


def _question(label: str, kind: str) -> str:
    of = f" among {kind}" if kind else ""
    return f"Q: Which visible features tell a {label}{of} in a photograph?\nA: A {label} can be told by:"


def class_prompt(label: str, kind: str = "", n: int = 6, seed: int = 0) -> Prompt:
    """Return the prompt for a class, with two worked examples of SeeWhy (arXiv 2210.07183, section 2.1)."""
    shown = [f"{_question(name, '')}\n" + "\n".join(f"- {t}" for t in texts) for name, texts in EXAMPLES]
    system = (
        f"You list up to {n} short visual features of a thing, one a line, each beginning with '- '. Only what can be "
        "seen in a photograph: colours, shapes, parts, textures, sizes. No names, no uses, no sentences."
    )
    return Prompt("\n\n".join([*shown, _question(label.replace("_", " "), kind)]), system, max_tokens=120, seed=seed)


def read_bullets(answer: str, n: int = 6, label: str = "") -> tuple[str, ...]:
    """Parse a bulleted list into unique items, without items of the worked examples."""
    found = [m.group(1) for line in answer.splitlines() if (m := _BULLET.match(line))]
    shown = {t for name, lines in EXAMPLES for t in lines if name != label.lower()}
    texts = tuple(dict.fromkeys(t for t in found if 2 <= len(t) <= 160 and t not in shown))[:n]
    if len(texts) < 2:
        what = "repeats the examples" if shown & set(found) else f"has {len(texts)} lines that begin with '- '"
        raise ValueError(f"it {what}, but must have at least two new lines that begin with '- '")
    return texts


def write_classes(
    desk: WriterSession, classes: Sequence[str], kind: str = "", n: int = 6
) -> Iterator[tuple[str, tuple[str, ...] | WriterError]]:
    """Yield each class with its descriptors, or with the error if there are none."""
    answers = desk.ask_all((class_prompt(c, kind, n), partial(read_bullets, n=n, label=c)) for c in classes)
    yield from zip(classes, answers, strict=True)


def object_schema(**properties: Any) -> dict[str, Any]:
    """Return the JSON schema of an object with exactly these fields."""
    own = {"properties": properties, "required": list(properties), "additionalProperties": False}
    return {"type": "object", **own}


_DIFFERENCE = object_schema(**{key: {"type": "string"} for key in _KEYS})
PAIR_SCHEMA = object_schema(differences={"type": "array", "items": _DIFFERENCE})
PAIR_EXAMPLE = ("zebra", "horse")
PAIR_SHOWN = (
    ("coat", "black and white stripes", "one plain colour"),
    ("mane", "short and upright", "long and hanging"),
)


def pair_prompt(first: str, second: str, kind: str = "", n: int = 5, seed: int = 0) -> Prompt:
    """Return the prompt that asks for attributes in which two classes differ, as JSON."""
    of = f" (both {kind})" if kind else ""
    first, second = first.replace("_", " "), second.replace("_", " ")
    shown = json.dumps({"differences": [dict(zip(_KEYS, row, strict=True)) for row in PAIR_SHOWN]})
    user = (
        f"For two kinds of thing, name up to {n} visible attributes in which photographs of the two differ. For each "
        "say in a few words how it looks on the first, and how on the second, so that 'a photo of a NAME, with' can "
        f"stand before them.\n\n1. {PAIR_EXAMPLE[0]} 2. {PAIR_EXAMPLE[1]}\nAnswer: {shown}"
        f"\n\n1. {first} 2. {second}{of}\nAnswer:"
    )
    system = "You know what things look like, say only what can be seen in a photograph, and answer in JSON."
    return Prompt(user, system, max_tokens=600, schema=PAIR_SCHEMA, seed=seed)


def read_pair(answer: str, first: str, second: str) -> Pair:
    """Parse the differences in an answer as captions."""
    data = read_json(answer)
    rows = data.get("differences") if isinstance(data, dict) else None
    if not isinstance(rows, list):
        raise ValueError("it has no list called 'differences'")
    found, names = [], {_plain(first), _plain(second)}
    echo = set() if names == set(PAIR_EXAMPLE) else {row[1:] for row in PAIR_SHOWN}
    for row in rows:
        if not isinstance(row, dict) or not all(isinstance(row.get(k), str) for k in _KEYS):
            raise ValueError("a difference must have the keys 'attribute', 'first' and 'second'")
        attribute, one, other = (row[k].strip().rstrip(".") for k in _KEYS)
        if one and other and one != other and (one, other) not in echo and not names & {_plain(one), _plain(other)}:
            found.append(Difference(attribute, caption(first, one), caption(second, other)))
    if not found:
        raise ValueError("it names no difference of these two classes")
    return Pair((first, second), tuple(dict.fromkeys(found)))


def caption(label: str, looks: str) -> str:
    """Return a class and its appearance as one sentence."""
    if looks.lower().startswith("a photo of"):
        return looks
    return f"a photo of a {label.replace('_', ' ')}, with {looks.removeprefix('with ')}"


def _plain(text: str) -> str:
    return re.sub(r"[\W_]+", " ", text).strip().lower()


def read_json(answer: str) -> Any:
    """Return the first JSON object or list in a text."""
    start = min((i for i in (answer.find("{"), answer.find("[")) if i >= 0), default=-1)
    if start < 0:
        raise ValueError("it has no JSON")
    try:
        return json.JSONDecoder().raw_decode(answer[start:])[0]
    except json.JSONDecodeError as error:
        raise ValueError(f"its JSON is broken ({error.msg} at character {error.pos})") from error


def write_pairs(
    desk: WriterSession, pairs: Iterable[tuple[str, str]], kind: str = "", n: int = 5
) -> Iterator[tuple[tuple[str, str], Pair | WriterError]]:
    """Yield each pair with its differences, or with the error if there are none."""
    pairs = list(pairs)
    questions = ((pair_prompt(a, b, kind, n), partial(read_pair, first=a, second=b)) for a, b in pairs)
    yield from zip(pairs, desk.ask_all(questions), strict=True)


FORM = '[{"classes": ["a", "b"], "differences": [{"attribute": "…", "first": "…", "second": "…"}, …]}, …]'


def read_pairs(path: str | Path) -> list[Pair]:
    """Read a file of pairs, which may repeat the same two classes in either order."""
    with readable(path, f"It must contain {FORM}."):
        rows = json_value(read_text(path))
    if not isinstance(rows, list) or not rows:
        raise DataError(f"{path} must have at least one pair of classes: {FORM}.")
    return [_pair(row, f"{path}, pair {i}") for i, row in enumerate(rows, 1)]


def _pair(row: Any, place: str) -> Pair:
    names = row.get("classes") if isinstance(row, dict) else None
    if not isinstance(names, list) or len(names) != 2 or not all(isinstance(n, str) and n.strip() for n in names):
        raise DataError(f"{place} must name two classes: {FORM}.")
    first, second = (n.strip() for n in names)
    if first == second:
        raise DataError(f"{place} names {first!r} twice. Name two classes.")
    found = []
    listed = row.get("differences")
    for one in listed if isinstance(listed, list) else []:
        given = [one.get(k) for k in _KEYS] if isinstance(one, dict) else []
        texts = [t.strip() for t in given if isinstance(t, str)]
        if len(texts) < 3 or not all(texts[1:]):
            raise DataError(f"{place} must have the keys 'attribute', 'first' and 'second' in each difference: {FORM}.")
        found.append(Difference(*texts))
    if not found:
        raise DataError(f"{place} must have at least one difference. Write one, or remove the pair.")
    return Pair((first, second), tuple(found))


def write_pairs_file(path: str | Path, pairs: Iterable[Pair], *, force: bool = False) -> Path:
    """Write pairs to a file; ``force`` also overwrites a file that SeeWhy did not write or that was edited."""
    return write(path, json.dumps([p.to_json() for p in pairs], indent=1, ensure_ascii=False), force=force)


def confusable_pairs(predictions: Iterable[Prediction | Failure], most: int) -> list[tuple[str, str]]:
    """Return up to ``most`` pairs of classes with the largest sum of the smaller of their probabilities."""
    weight: dict[tuple[str, str], float] = defaultdict(float)
    for one in predictions:
        for a, b in combinations(() if isinstance(one, Failure) else one.top, 2):
            first, second = sorted((a.label, b.label))
            weight[first, second] += min(a.score, b.score)
    return [pair for pair, _ in sorted(weight.items(), key=lambda item: (-item[1], item[0]))[:most]]
