"""Texts of single pictures, as a file: one JSON object a line, found by the picture's own bytes, never by its place."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..storage.files import json_value
from ..storage.journal import Journal
from ..storage.marks import Lines, Record, SealedText
from ..storage.output import remove
from ..storage.reading import read_text, reason

FORM = '{"image": "a.jpg", "digest": "…", "texts": ["…", …]}'


@dataclass(frozen=True)
class Caption:
    """What is said about one picture.

    Attributes:
        image: file name, as it was listed.
        digest: SHA-256 of the file's bytes; empty where the file of captions has none.
        texts: at least one, the one that fits best first.
        label: class, where it is known.
        scores: how well each text fits among those it was chosen from, 0…1; empty where nothing was chosen.
        model: who wrote or chose the texts.
        prompt: what was asked, where a model was asked.
    """

    image: str
    digest: str
    texts: tuple[str, ...]
    label: str | None = None
    scores: tuple[float, ...] = ()
    model: str = ""
    prompt: str = ""

    def to_json(self) -> dict[str, Any]:
        """Without what is empty."""
        found = {**vars(self), "texts": list(self.texts), "scores": [round(s, 6) for s in self.scores]}
        return {name: value for name, value in found.items() if value not in (None, "", [])}


def read_captions(path: str | Path) -> tuple[Caption, ...]:
    """Read a ``.jsonl``; ``text`` may stand for ``texts``."""
    try:
        lines = read_text(path).split("\n")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {reason(error)}. Write one object a line: {FORM}.") from error
    found = tuple(_caption(line, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line.strip())
    if not found:
        raise DataError(f"{path} holds no texts. One object a line was expected: {FORM}. Write some.")
    return found


def _caption(line: str, where: str) -> Caption:
    try:
        row = json_value(line)
    except ValueError as error:
        said = getattr(error, "msg", str(error))
        raise DataError(f"{where}, is not JSON: {said}. Write one object a line: {FORM}.") from error
    texts = row.get("texts", row.get("text")) if isinstance(row, dict) else None
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list) or not texts or not all(isinstance(t, str) and t.strip() for t in texts):
        raise DataError(f"{where}, holds no texts. A list of texts was expected: {FORM}. Write some, or drop the line.")
    if not (row.get("digest") or row.get("image")):
        raise DataError(f"{where}, names no picture. A digest or an image was expected: {FORM}. Add one.")
    texts_of_it, scores = tuple(t.strip() for t in texts), row.get("scores", [])
    if not isinstance(scores, list) or not all(type(s) in (int, float) and math.isfinite(s) for s in scores):
        raise DataError(f"{where}, has scores that are no numbers. A list of one a text was expected. Correct it.")
    if scores and len(scores) != len(texts):
        raise DataError(
            f"{where}, has {len(scores)} scores for {len(texts)} texts. One a text was expected. Correct it."
        )
    label = row.get("label")
    if not isinstance(label, str | None):
        raise DataError(f"{where}, has a label that is no text. The name of a class was expected. Correct it.")
    names = {name: str(row.get(name) or "") for name in ("image", "digest", "model", "prompt")}
    return Caption(texts=texts_of_it, label=label, scores=tuple(map(float, scores)), **names)


def of_pictures(captions: Sequence[Caption], digests: Sequence[str], names: Sequence[str]) -> tuple[Caption, ...]:
    """The captions of these pictures, in their order, one to one.

    A caption with a digest is found by it; one without by its file name, which must then be no other picture's.
    """
    by_digest = _index((c for c in captions if c.digest), lambda c: c.digest)
    by_name = _index((c for c in captions if not c.digest), lambda c: Path(c.image).name)
    files = Counter(Path(name).name for name in names)
    found, missing = [], []
    for digest, name in zip(digests, names, strict=True):
        caption = by_digest.get(digest)
        if caption is None and (caption := by_name.get(Path(name).name)) is not None and files[Path(name).name] > 1:
            raise DataError(
                f"{files[Path(name).name]} pictures are called {Path(name).name}, and its texts have no digest. One "
                'picture was expected. Write "digest", the SHA-256 of the file, into each line.'
            )
        missing += [name] if caption is None else []
        found += [] if caption is None else [caption]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(names)} pictures have no text, the first {missing[0]!r}. A text for each picture "
            "that is trained on was expected, found by the file's digest or name. Write them, or leave those out."
        )
    return tuple(found)


def _index(captions: Iterable[Caption], key: Callable[[Caption], str]) -> Mapping[str, Caption]:
    found: dict[str, Caption] = {}
    for caption in captions:
        known = found.setdefault(key(caption), caption)
        if known.texts != caption.texts:
            raise DataError(
                f"{caption.image or caption.digest!r} has two lines with different texts. One line per picture was "
                "expected. Put its texts into one list."
            )
    return found


CAPTIONS = SealedText("captions", lines=True)
_CAPTION = Record(("image", "digest", "texts", "label", "scores"), frozenset({"model", "prompt"}))
PART = Lines((Record(("seal",)), _CAPTION))
"""What ``seewhy describe match`` writes, and what it has written while it is not finished."""


def resume_rows(part: Path, seal: str) -> tuple[Journal, tuple[Caption, ...]]:
    """A file to go on writing to, and what a stopped run left in it; begun anew where it was of another run."""
    journal = Journal(part, PART, force=None)
    if journal.rows[:1] != [{"seal": seal}]:
        remove(part, PART)
        journal = Journal(part, PART, force=None)
        try:
            journal.add({"seal": seal})
        except OSError as error:
            raise DataError(f"{part} could not be written: {error}. Free some space or give another place.") from error
    lines = (json.dumps(row) for row in journal.rows[1:])
    return journal, tuple(_caption(line, f"{part}, line {number}") for number, line in enumerate(lines, 2))
