"""The annotators' desk: pictures, their seeds, what is next, and what the text leaves out; what the page shows."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from ...encoders.stream import file_digest
from ...errors import DataError, ImageError
from ...pictures.images import read_picture
from ...pictures.sources import is_unicode
from ...types import Failure, Transform
from .figures import Net, agreement, by_authors_of_a_text, by_round, coverage, net_preference
from .records import TASKS, Picture, Version, check_answers, check_content, objects_of
from .rounds import StopRule, text_of
from .seeding import Seeder
from .store import AnnotationStore

_HEADER = Transform((8, 8), (8, 8), "bilinear", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def find_pictures(names: Iterable[str]) -> Iterator[Picture | Failure]:
    """Pictures to annotate, each once by its content; one that cannot be read is a failure under its name."""
    seen = set()
    for name in names:
        if not is_unicode(name):
            yield Failure(name, "has a name that is not UTF-8, which the file of annotations cannot hold; rename it")
            continue
        digest = file_digest(name)
        try:
            picture = read_picture(name, _HEADER)
        except ImageError as error:
            yield Failure(name, error.reason)
            continue
        digest = digest or picture.digest
        if digest not in seen:
            seen.add(digest)
            yield Picture(digest[:16], digest, name, *picture.original_size)


class AnnotationDesk:
    """What a page needs."""

    def __init__(self, store: AnnotationStore, rule: StopRule | None = None, seeder: Seeder | None = None) -> None:
        self.store = store
        self.rule = rule or StopRule()
        self.seeder = seeder
        self._seeding = threading.Lock()

    def picture(self, key: str) -> Picture:
        """One picture."""
        found = self.store.picture(key)
        if found is None:
            raise DataError(f"There is no picture {key[:40]!r}. One of those listed was expected. Go back to the list.")
        return found

    def jpeg(self, key: str, longest: int = 1600) -> bytes:
        """The picture upright, as the page shows it; decoded by us, so the file itself never leaves the disk."""
        picture = self.picture(key)
        if file_digest(picture.name) != picture.digest:
            raise ImageError(
                Path(picture.name).name, "is gone, or was changed since it was listed; start annotate anew"
            )
        scale = min(1.0, longest / max(picture.width, picture.height))
        size = (max(1, round(picture.height * scale)), max(1, round(picture.width * scale)))
        pixels = read_picture(picture.name, Transform(size, size, "bilinear", (0, 0, 0), (1, 1, 1))).pixels
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "jpeg", quality=88)
        return file.getvalue()

    def seed(self, key: str) -> None:
        """Ask the model for its proposal, if there is a model and nobody has begun; once a picture."""
        if self.seeder is None:
            return
        with self._seeding:
            if all(self.store.latest(key, task) for task in TASKS):
                return
            proposal = self.seeder(self.picture(key).name)
            self.store.seed(key, "objects", proposal.author, {"objects": [o.to_json() for o in proposal.objects]})
            self.store.seed(key, "caption", proposal.author, {"text": proposal.text})

    def state(self, key: str, task: str, author: str) -> dict[str, Any]:
        """All that a person needs to go on with a task: the last version, their own draft, what was put aside."""
        versions = self.store.versions(key, task)
        latest = versions[-1] if versions else None
        draft = self.store.draft(key, task, author)
        empty = check_content(task, {})
        return {
            "task": task,
            "base": draft.base if draft else latest.number if latest else 0,
            "latest": latest.number if latest else 0,
            "latest_author": latest.author if latest else None,
            "content": draft.content if draft else latest.content if latest else empty,
            "revision": draft.revision if draft else 0,
            "seconds": draft.seconds if draft else 0.0,
            "is_draft": draft is not None,
            "shelved": [
                {"made": d.made, "text": text_of(d.content), "content": d.content}
                for d in self.store.shelved(key, task, author)[-5:]
            ],
            "finished": self.rule.finished(versions),
        }

    def overview(self) -> list[dict[str, Any]]:
        """Every picture with how far it is."""
        histories = self.store.histories()
        rows = []
        for picture in self.store.pictures():
            versions = histories.get(picture.key) or {task: [] for task in TASKS}
            people = [v for v in versions["caption"] if v.kind != "seed"]
            objects = [v for v in versions["objects"] if v.kind != "seed"]
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
        """The picture's key and the task that wait for a person; ``None`` when nothing does."""
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
        """What a text leaves out of the objects in their last version."""
        latest = self.store.latest(key, "objects")
        return [vars(c) for c in coverage(objects_of(latest.content), text)] if latest else []

    # comparing

    def pair(self, key: str) -> tuple[tuple[str, str], tuple[str, str]] | None:
        """Two texts to compare, each with its name: the last round, and a text from elsewhere or the first round."""
        versions = [v for v in self.store.versions(key, "caption") if text_of(v.content).strip()]
        if not versions:
            return None
        last = (_name(versions[-1]), text_of(versions[-1].content))
        others = [*self.store.texts(key).items(), *((_name(v), text_of(v.content)) for v in versions[:-1])]
        return next(((last, other) for other in others if other[1].strip() and other[1] != last[1]), None)

    def comparison(self, key: str, author: str) -> dict[str, Any] | None:
        """A pair as one person sees it: left and right drawn once for them, no names."""
        pair = self.pair(key)
        if pair is None:
            return None
        turned = swapped(key, author, pair[0][0], pair[1][0])
        texts = [text for _, text in (reversed(pair) if turned else pair)]
        return {"a": texts[0], "b": texts[1], "token": self._token(pair, turned)}

    def next_comparison(self, author: str) -> str | None:
        """The first picture with two texts that a person has not compared yet."""
        done = {
            (row["picture"], row["first"], row["second"]) for row in self.store.judgements() if row["author"] == author
        }
        for picture in self.store.pictures():
            pair = self.pair(picture.key)
            if pair is not None and (picture.key, pair[0][0], pair[1][0]) not in done:
                return picture.key
        return None

    def judge(self, key: str, author: str, answers: object, token: str, seconds: float) -> None:
        """Keep a comparison, from the last round's side."""
        pair = self.pair(key)
        turned = pair is not None and swapped(key, author, pair[0][0], pair[1][0])
        if pair is None or token != self._token(pair, turned):
            raise DataError("The texts were changed meanwhile. The ones shown were expected. Load the page again.")
        row = {"author": author, "first": pair[0][0], "second": pair[1][0], "swapped": turned}
        row |= {"answers": check_answers(answers, turned), "seconds": round(seconds, 1)}
        self.store.put_judgement(key, row)

    def _token(self, pair: tuple[tuple[str, str], tuple[str, str]], turned: bool) -> str:
        said = repr((pair, turned)).encode("utf-8", "surrogatepass")
        return hashlib.sha256(said).hexdigest()[:16]

    def preferences(self) -> dict[str, dict[str, Net]]:
        """Net preference for the last round, by what it was compared with."""
        groups: dict[str, list[dict[str, Any]]] = {}
        for row in self.store.judgements():
            groups.setdefault(row["second"].split(" by ")[0], []).append(row)
        return {
            name: net_preference([r["answers"] for r in rows], [r["picture"] for r in rows])
            for name, rows in groups.items()
        }

    def figures(self) -> dict[str, Any]:
        """Rounds, preferences, and whether the people who compared texts agree; as JSON (docs/json.md)."""
        judged, histories = self.store.judgements(), self.store.histories().values()
        return {
            "against": {k: {d: net.to_json() for d, net in nets.items()} for k, nets in self.preferences().items()},
            "agreement": {name: found.to_json() for name, found in agreement(judged).items()},
            "judged": len(judged),
            "judged_by_authors": by_authors_of_a_text(judged),
            "rounds": {task: [row.to_json() for row in by_round(h[task] for h in histories)] for task in TASKS},
        }


def _name(version: Version) -> str:
    """How a judgement names a version."""
    return f"{'seed' if version.kind == 'seed' else f'round {version.number}'} by {version.author}"


def swapped(key: str, author: str, first: str, second: str) -> bool:
    """Whether the second text is shown on the left: even odds, the same each time for one person and pair."""
    digest = hashlib.sha256("\x00".join((key, author, first, second)).encode("utf-8", "surrogatepass")).digest()
    return digest[0] % 2 == 1
