"""The operations of the annotation page: pictures, proposals, the next task, comparisons and the JSONL export."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...clusters import grouped
from ...errors import DataError, ImageError
from ...pictures.images import read_picture
from ...pictures.sources import is_unicode
from ...storage.output import check_file, write
from ...types import Failure, Transform
from ..experts import WHOLE, CellDetector
from ..textualize import jpeg, position_in_words, sentence_for
from .records import TASKS, BoxedObject, Picture, Version, check_answers, check_content, objects_of
from .rounds import StopRule, agreement, by_authors_of_a_text, by_round, coverage, left_out, net_preference, text_of
from .store import AnnotationStore

if TYPE_CHECKING:
    from ...classifiers.base import Classifier

_HEADER = Transform((8, 8), (8, 8), "bilinear", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
LEAST = 1e-5
"""Smallest width and height of a box, as a fraction of the picture."""
Text = tuple[str, str]
"""The name and content of a text in a comparison."""


def find_pictures(names: Iterable[str]) -> Iterator[Picture | Failure]:
    """Yield the pictures to annotate, without exact copies; an unreadable picture yields a failure."""
    seen = set()
    for name in names:
        if not is_unicode(name):
            yield Failure(name, "has a name that is not UTF-8, which the annotation file cannot store; rename it")
            continue
        try:
            picture = read_picture(name, _HEADER)
        except ImageError as error:
            yield Failure(name, error.reason)
            continue
        if picture.digest not in seen:
            seen.add(picture.digest)
            yield Picture(picture.digest[:16], picture.digest, name, *picture.original_size)


Seed = tuple[str, list[BoxedObject], str]
"""A model's proposal for a picture: its name, objects and a text."""


@dataclass(frozen=True)
class ClassifierSeeder:
    """A model that proposes the objects in a classifier's feature map."""

    classifier: Classifier
    threshold: float = 0.5
    most: int = 5

    def __call__(self, name: str) -> Seed:
        scene = read_picture(name, WHOLE)
        found = CellDetector(self.classifier, self.threshold, self.most).detect(scene)
        objects = []
        for i, o in enumerate(found, 1):
            words = ", ".join(filter(None, (o.colour, position_in_words(o.box))))
            objects.append(BoxedObject(f"seed-{i}", o.label, _inside(o.box), words))
        return f"the model ({self.classifier.recipe})", objects, " ".join(map(sentence_for, found))


def _inside(box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    """Round a box and clip it to the picture."""
    left, top, right, bottom = (round(min(max(v, 0.0), 1.0), 5) for v in box)
    left, top = min(left, 1 - LEAST), min(top, 1 - LEAST)
    return left, top, max(right, round(left + LEAST, 5)), max(bottom, round(top + LEAST, 5))


@dataclass(frozen=True, eq=False)
class AnnotationDesk:
    """The operations of the annotation page; ``seeder`` proposes content for a picture's file."""

    store: AnnotationStore
    rule: StopRule = field(default_factory=StopRule)
    seeder: Callable[[str], Seed] | None = None
    _seeding: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def jpeg(self, key: str, longest: int = 1600) -> bytes:
        """Return the upright picture as JPEG, with its longest side at most ``longest`` pixels."""
        picture = self.store.known(key)
        return jpeg(self.store.file(key), (picture.width, picture.height), longest, 88)

    def seed(self, key: str) -> None:
        """Store a model's proposal for a picture that nobody has annotated."""
        if self.seeder is None:
            return
        with self._seeding:
            if all(self.store.latest(key, task) for task in TASKS):
                return
            author, objects, text = self.seeder(self.store.file(key))
            self.store.seed(key, "objects", author, {"objects": [o.to_json() for o in objects]})
            self.store.seed(key, "caption", author, {"text": text})

    def state(self, key: str, task: str, author: str) -> dict[str, Any]:
        """Return the latest version, a person's draft and their earlier drafts."""
        versions = self.store.versions(key, task)
        latest = versions[-1] if versions else None
        draft = self.store.draft(key, task, author)
        there, number = draft or latest, latest.number if latest else 0
        return {
            "task": task,
            "base": draft.base if draft else number,
            "latest": number,
            "latest_author": latest.author if latest else None,
            "content": there.content if there else check_content(task, {}),
            "revision": draft.revision if draft else 0,
            "seconds": draft.seconds if draft else 0.0,
            "is_draft": draft is not None,
            "shelved": [
                {"made": d.made, "text": text_of(d.content), "content": d.content}
                for d in self.store.drafts(key, task, author, "shelved")[-5:]
            ],
            "finished": self.rule.finished(versions),
        }

    def overview(self) -> list[dict[str, Any]]:
        """Return the annotation progress of every picture."""
        histories = self.store.histories()
        rows = []
        for picture in self.store.pictures():
            versions = histories.get(picture.key) or {task: [] for task in TASKS}
            objects, people = ([v for v in versions[task] if v.kind != "seed"] for task in TASKS)
            rows.append(
                {
                    "key": picture.key,
                    "name": Path(picture.name).name,
                    "objects": len(objects_of(versions["objects"][-1].content)) if versions["objects"] else 0,
                    "object_rounds": len(objects),
                    "rounds": len(people),
                    "authors": sorted({v.author for v in (*people, *objects)}),
                    "last_author": people[-1].author if people else None,
                    "seconds": round(sum(v.seconds for v in (*people, *objects))),
                    "words": len(text_of(people[-1].content).split()) if people else 0,
                    "finished": self.rule.finished(versions["caption"]),
                }
            )
        return rows

    def next_for(self, author: str) -> tuple[str, str] | None:
        """Return the key and task of a person's next picture, or ``None``."""
        rows, begun = self.overview(), self.store.drafted(author)
        for row in rows:
            for task in TASKS:
                if (row["key"], task) in begun:
                    return row["key"], task
        for row in rows:
            if not row["object_rounds"]:
                return row["key"], "objects"
            if row["finished"] is None and row["last_author"] != author:
                return row["key"], "caption"
        return None

    def covered(self, key: str, text: str) -> list[dict[str, Any]]:
        """Compute how many of the objects in a picture, by their latest version, a text mentions."""
        latest = self.store.latest(key, "objects")
        return [vars(c) for c in coverage(objects_of(latest.content), text)] if latest else []

    def pair(self, key: str) -> tuple[Text, Text] | None:
        """Return the text of the last round, and a text from another source or an earlier round to compare it with."""
        texts = [(_name(v), text_of(v.content)) for v in self.store.versions(key, "caption")]
        texts = [text for text in texts if text[1].strip()]
        if not texts:
            return None
        *earlier, last = texts
        others = [*self.store.texts(key).items(), *earlier]
        return next(((last, other) for other in others if other[1].strip() and other[1] != last[1]), None)

    def comparison(self, key: str, author: str) -> dict[str, Any] | None:
        """Return the texts of a pair, without names and in an order that is random but fixed per person."""
        pair = self.pair(key)
        if pair is None:
            return None
        turned = swapped(key, author, pair[0][0], pair[1][0])
        texts = [text for _, text in (reversed(pair) if turned else pair)]
        return {"a": texts[0], "b": texts[1], "token": _token(pair, turned)}

    def next_comparison(self, author: str) -> str | None:
        """Return the first picture whose pair of texts a person has not compared."""
        rows = self.store.judgements()
        done = {(row["picture"], row["first"], row["second"]) for row in rows if row["author"] == author}
        for picture in self.store.pictures():
            pair = self.pair(picture.key)
            if pair is not None and (picture.key, pair[0][0], pair[1][0]) not in done:
                return picture.key
        return None

    def judge(self, key: str, author: str, answers: object, token: str, seconds: float) -> None:
        """Save a person's comparison of two texts."""
        pair = self.pair(key)
        turned = pair is not None and swapped(key, author, pair[0][0], pair[1][0])
        if pair is None or token != _token(pair, turned):
            raise DataError(
                "Your answers were not saved, because the texts have changed since the page was loaded. Reload the "
                "page and compare again."
            )
        row = {"author": author, "first": pair[0][0], "second": pair[1][0], "swapped": turned}
        row |= {"answers": check_answers(answers, turned), "seconds": round(seconds, 1)}
        self.store.put_judgement(key, row)

    def figures(self) -> dict[str, Any]:
        """Return statistics on rounds, preferences and agreement as JSON (docs/json.md)."""
        judged, histories = self.store.judgements(), self.store.histories().values()
        against = {}
        for name, rows in grouped((row["second"].split(" by ")[0], row) for row in judged).items():
            nets = net_preference([row["answers"] for row in rows], [row["picture"] for row in rows])
            against[name] = {d: {k: round(v, 4) for k, v in vars(net).items()} for d, net in nets.items()}
        return {
            "against": against,
            "agreement": agreement(judged),
            "judged": len(judged),
            "judged_by_authors": by_authors_of_a_text(judged),
            "rounds": {task: by_round(h[task] for h in histories) for task in TASKS},
        }


def records(store: AnnotationStore, rule: StopRule) -> Iterator[dict[str, Any]]:
    """Yield one record per picture: objects, text, all versions and all comparisons."""
    judged = grouped((row.pop("picture"), row) for row in store.judgements())
    for picture in store.pictures():
        versions = {task: store.versions(picture.key, task) for task in TASKS}
        objects = objects_of(versions["objects"][-1].content) if versions["objects"] else ()
        text = text_of(versions["caption"][-1].content) if versions["caption"] else ""
        yield {
            "format": 1,
            "image": picture.name,
            "digest": picture.digest,
            "width": picture.width,
            "height": picture.height,
            "objects": [o.to_json() for o in objects],
            "text": text,
            "left_out": list(left_out(objects, text)) if text else [],
            "finished": rule.finished(versions["caption"]),
            "versions": [dict(vars(v)) for task in TASKS for v in versions[task]],
            "judgements": judged.get(picture.key, []),
        }


def lines(store: AnnotationStore, rule: StopRule) -> str:
    """Return all records as JSON lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in records(store, rule))


def check_export(path: Path, *, force: bool = False) -> Path:
    """Check that annotations can be written to a path, and return the path."""
    if path.suffix != ".jsonl":
        raise DataError(f"The name of an annotation file must end in .jsonl, got {path}.")
    return check_file(path, force=force)


def export(store: AnnotationStore, path: Path, rule: StopRule, *, force: bool = False) -> int:
    """Write all annotations and return the number of pictures."""
    write(check_export(path, force=force), lines(store, rule), force=force)
    return len(store.pictures())


def _name(version: Version) -> str:
    return f"{'seed' if version.kind == 'seed' else f'round {version.number}'} by {version.author}"


def _token(pair: tuple[Text, Text], turned: bool) -> str:
    return hashlib.sha256(repr((pair, turned)).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def swapped(key: str, author: str, first: str, second: str) -> bool:
    """Return whether the second text is shown first, a random choice that is fixed per person and pair."""
    digest = hashlib.sha256("\x00".join((key, author, first, second)).encode("utf-8", "surrogatepass")).digest()
    return digest[0] % 2 == 1
