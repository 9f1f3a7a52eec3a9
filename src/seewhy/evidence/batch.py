"""Cards for many pictures: a folder of them with an index and JSON lines, resumable."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from ..attributions.explainers import trained_digest
from ..card import IndexEntry, index_entry, render_index
from ..classifiers.base import Classifier
from ..errors import DataError
from ..explanation import Explanation
from ..features import file_digest
from ..files import write_atomic
from ..prototypes.epic_bank import find_file
from ..store import FeatureStore
from ..types import Failure
from .explain import ExplainOptions, explain_all

RECORDS = "explanations.jsonl"
PROGRESS = ".explanations.progress.jsonl"
GROUP = 16
ONE_FILE = (".html", ".htm", ".png", ".json")


@dataclass(frozen=True)
class Done:
    """One explained picture.

    Attributes:
        record: the documented JSON with the card's path.
        explanation: what it was made from; ``None`` when an earlier run made it.
    """

    record: dict[str, Any]
    explanation: Explanation | None


@dataclass(frozen=True)
class _Plan:
    """One picture before it is explained.

    Attributes:
        name: file name as given.
        key: of picture, classifier and options.
        card: where it goes.
        earlier: the line an earlier run left, if it still holds.
    """

    name: str
    key: str
    card: Path
    earlier: dict[str, Any] | None


class Batch:
    """Explains pictures into a folder, or one picture into one file.

    What was explained before with the same classifier and options, and whose card is still there, is not done again.

    Args:
        classifier: what explains.
        options: what and how.
        output: a folder, or one file with the ending of a card.
        png: also write a still picture of each card.
        store: where looks are kept.
    """

    def __init__(
        self,
        classifier: Classifier,
        options: ExplainOptions,
        output: Path,
        *,
        png: bool = False,
        store: FeatureStore | None = None,
    ) -> None:
        self.classifier = classifier
        self.options = options
        self.output = output
        self.png = png
        self.store = store
        self.single = output.suffix.lower() in ONE_FILE
        self.index = None if self.single else output / "index.html"
        self._taken: dict[str, str] = {}

    def run(self, names: Iterable[str]) -> Iterator[Done | Failure]:
        """Explain as a stream, in order; cards are written as they are made, the index at the end."""
        if self.single:
            yield from self._one_file(names)
            return
        try:
            self.output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"The folder {self.output} cannot be made: {error}. Give another with -o.") from error
        before = self._before()
        records: list[dict[str, Any]] = []
        entries: list[IndexEntry] = []
        failures: list[Failure] = []
        with open(self.output / PROGRESS, "a", encoding="utf-8") as progress:
            for result in self._explained(names, before):
                if isinstance(result, Failure):
                    failures.append(result)
                    yield result
                    continue
                done, line = result
                if done.explanation is not None:
                    progress.write(json.dumps(line, ensure_ascii=False) + "\n")
                    progress.flush()
                records.append(done.record)
                entries.append(_entry(line["entry"]))
                yield done
        lines = [*records, *(f.to_json() for f in failures)]
        write_atomic(self.output / RECORDS, "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in lines))
        write_atomic(self.output / "index.html", render_index(entries, failures))

    def _one_file(self, names: Iterable[str]) -> Iterator[Done | Failure]:
        pictures = list(names)
        if len(pictures) != 1:
            raise DataError(f"{len(pictures)} pictures do not fit into {self.output}. Give a folder with -o.")
        for result in explain_all(self.classifier, pictures, self.options, store=self.store):
            if isinstance(result, Failure):
                yield result
                continue
            result.save(self.output)
            yield Done({**result.to_json(), "card": str(self.output)}, result)

    def _explained(
        self, names: Iterable[str], before: dict[str, dict[str, Any]]
    ) -> Iterator[tuple[Done, dict[str, Any]] | Failure]:
        """Earlier results and new ones, in order; what is new is looked at in groups."""
        fingerprint = self._fingerprint()
        plans = (self._plan(name, before, fingerprint) for name in names)
        while group := list(islice(plans, GROUP)):
            todo = [plan.name for plan in group if plan.earlier is None]
            made = explain_all(self.classifier, todo, self.options, store=self.store, batch_size=GROUP)
            for plan in group:
                if plan.earlier is not None:
                    yield Done({**plan.earlier["record"], "card": str(plan.card)}, None), plan.earlier
                else:
                    yield self._write(plan, next(made))

    def _plan(self, name: str, before: dict[str, dict[str, Any]], fingerprint: str) -> _Plan:
        """What is to be done about a picture; nothing where its card is there and says what it would say again."""
        seal = f"{name}|{file_digest(name)}|{fingerprint}".encode("utf-8", "surrogatepass")
        key = hashlib.sha256(seal).hexdigest()
        card = self.output / f"{self._card_name(name)}.html"
        return _Plan(name, key, card, before.get(key) if card.exists() else None)

    def _write(self, plan: _Plan, result: Explanation | Failure) -> tuple[Done, dict[str, Any]] | Failure:
        """The card on disk, and its line for the next run."""
        if isinstance(result, Failure):
            return result
        result.save(plan.card)
        if self.png:
            result.save(plan.card.with_suffix(".png"))
        record = {**result.to_json(), "card": str(plan.card)}
        line = {"key": plan.key, "record": record, "entry": asdict(index_entry(result, plan.card.name))}
        return Done(record, result), line

    def _card_name(self, name: str) -> str:
        """The picture's own name, made safe for any disk, and different for different pictures."""
        stem = "".join(c if c.isalnum() or c in "-_. " else "_" for c in Path(name).stem).strip(". ")[:80] or "picture"
        if self._taken.setdefault(stem.casefold(), name) == name:
            return stem
        return f"{stem}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"

    def _fingerprint(self) -> str:
        """What decides an explanation beside the picture."""
        c = self.classifier
        digest = hashlib.sha256(f"{c.encoder.fingerprint}|{c.classes}|{self.options}|{self.png}".encode())
        digest.update(str(float(c.head.weight.double().sum())).encode() + str(c.words and c.words.texts).encode())
        digest.update(f"{c.head.scale}|{c.head.votes and c.head.votes.k}".encode())
        if c.bank is not None:
            digest.update(torch.tensor([len(c.bank.pictures)]).numpy().tobytes())
        digest.update(trained_digest(self.options.method(c.where), c))
        prototypes = None if self.options.like == "nearest" else find_file(c, self.options.prototypes)
        if prototypes is not None:
            digest.update(hashlib.sha256(prototypes.read_bytes()).digest())
        return digest.hexdigest()

    def _before(self) -> dict[str, dict[str, Any]]:
        """What earlier runs noted; a line cut short by a kill is passed over, since its card is simply made again."""
        path = self.output / PROGRESS
        found: dict[str, dict[str, Any]] = {}
        if not path.exists():
            return found
        for line in path.read_text("utf-8", errors="replace").splitlines():
            try:
                row = json.loads(line)
                found[row["key"]] = row
            except (json.JSONDecodeError, KeyError, TypeError):
                continue
        if os.path.getsize(path) and not path.read_bytes().endswith(b"\n"):
            with open(path, "a", encoding="utf-8") as file:
                file.write("\n")
        return found


def _entry(data: dict[str, Any]) -> IndexEntry:
    second = data["second"]
    return IndexEntry(
        **{**data, "second": tuple(second) if second else None, "levels": tuple(data["levels"])},
    )
