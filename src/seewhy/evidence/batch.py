"""Cards for many pictures: a folder of them with an index and JSON lines, resumable."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from ..attributions.explainers import trained_digest
from ..classifiers.base import Classifier
from ..encoders.stream import file_digest
from ..errors import DataError, ForeignFileError
from ..explanation.base import Explanation
from ..pictures.sources import SUFFIXES
from ..prototypes.find import files_of
from ..report import IndexEntry, check_card, index_entry, render_index
from ..storage.features import FeatureStore
from ..storage.folders import write_inside
from ..storage.journal import Journal
from ..storage.marks import Lines, Record
from ..storage.output import check_folder, make_folder
from ..types import Failure
from .explain import ExplainOptions, explain_all

RECORDS = "explanations.jsonl"
PROGRESS = ".explanations.progress.jsonl"
INDEX = "index.html"
NOTES = Lines((Record(("key", "record", "entry", "files")), Record(("key", "files"))))
GROUP = 16
FORMS: dict[str, Callable[[Explanation], str | bytes]] = {".html": Explanation.to_html, ".png": Explanation.to_png}
ONE_FILE = (".html", ".htm", ".png", ".json")
OTHER_FILES = (*SUFFIXES, ".jsonl", ".pdf", ".svg")
"""File endings that no folder name has."""


@dataclass(frozen=True)
class Done:
    record: dict[str, Any]
    explanation: Explanation | None


class CardFolder:
    """The output folder of cards; it overwrites a file only if SeeWhy wrote it and noted its digest."""

    def __init__(self, path: Path, *, force: bool = False) -> None:
        self.path = make_folder(path)
        self._real = os.path.realpath(path)
        self._owners = {"index": ""}
        self._own: dict[str, set[str]] = defaultdict(set)
        self._lines: dict[str, dict[str, Any]] = {}
        self._notes = Journal(path / PROGRESS, NOTES, force=force)
        for line in self._notes.rows:
            with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
                self._take(line)
        for taken in (INDEX, RECORDS):
            there = path / taken
            # Earlier versions did not note these two: there the folder's notes must do.
            own = self._still_own(taken) if self._own[taken] else bool(self._notes.rows)
            if os.path.lexists(there) and not own and not force:
                raise ForeignFileError(
                    f"{there} already exists and is not from seewhy explain. Expected a folder without this file. "
                    "Give another with -o, or overwrite it with --force."
                )

    def _take(self, line: dict[str, Any]) -> None:
        """What an earlier run noted; names of files that are not of this folder are passed over."""
        if "entry" in line:
            self._owners.setdefault(Path(line["entry"]["href"]).stem.casefold(), line["record"]["image"])
        for file, digest in line["files"].items():
            if os.path.basename(file) != file:
                return
            self._own[file].add(digest)
        if "entry" in line:
            self._lines[line["key"]] = line

    def earlier(self, key: str) -> dict[str, Any] | None:
        """Return the line noted under this key, if its files are there and unchanged."""
        line = self._lines.get(key)
        if line is None or not all(file_digest(self.path / f) == digest for f, digest in line["files"].items()):
            return None
        return line

    def is_own(self, file: str | Path) -> bool:
        """Whether a file lies in this folder and was written by it."""
        folder, name = os.path.split(file)
        return name in self._own and os.path.realpath(folder) == self._real and self._still_own(name)

    def _still_own(self, name: str) -> bool:
        return file_digest(self.path / name) in self._own[name]

    def place(self, picture: str, endings: Sequence[str]) -> str:
        """Return the name of a picture's card, without an ending: valid on any disk, and unlike every other file's."""
        kept = (c if c.isalnum() or c in "-_. " else "_" for c in Path(picture).stem)
        stem = "".join(kept).strip(". ")[:80] or "picture"
        digest = hashlib.sha256(picture.encode("utf-8", "surrogatepass")).hexdigest()
        for name in (stem, f"{stem}-{digest[:8]}", f"{stem}-{digest}"):
            files = [f"{name}{ending}" for ending in endings]
            free = all(not os.path.lexists(self.path / f) or self._still_own(f) for f in files)
            if free and self._owners.setdefault(name.casefold(), picture) == picture:
                return name
        raise DataError(
            f"The folder {self.path} already has other files under every possible name for the card of {picture}. "
            "Give another with -o."
        )

    def keep(self, key: str, record: dict[str, Any], entry: dict[str, Any], files: Mapping[str, str | bytes]) -> None:
        """Note a card, then write its files; after a kill in between, the next run knows the files and makes them
        again.
        """
        self._write({"key": key, "record": record, "entry": entry}, files)

    def finish(self, lines: Sequence[dict[str, Any]], index: str) -> None:
        records = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        self._write({"key": ""}, {RECORDS: records, INDEX: index})

    def _write(self, line: dict[str, Any], files: Mapping[str, str | bytes]) -> None:
        data = {n: f.encode("utf-8", "backslashreplace") if isinstance(f, str) else f for n, f in files.items()}
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in data.items()}
        try:
            self._notes.add({**line, "files": digests})
        except OSError as error:
            raise DataError(
                f"The folder {self.path} cannot be written to: {error.strerror}. Give another with -o."
            ) from error
        for name, content in data.items():
            self._own[name].add(digests[name])
            write_inside(self.path / name, content)

    def close(self) -> None:
        self._notes.close()


class Batch:
    """Explains pictures into a folder with an index, or one picture into one file.

    Finished cards are not made again; files that no earlier run wrote stay untouched.
    """

    def __init__(
        self,
        classifier: Classifier,
        options: ExplainOptions,
        output: Path | None,
        *,
        png: bool = False,
        store: FeatureStore | None = None,
        force: bool = False,
    ) -> None:
        self.classifier = classifier
        self.options = options.opened(classifier)
        self.output = output
        self.endings = tuple(FORMS) if png else (".html",)
        self.store = store
        self.force = force
        self.single = output is not None and check_output(output, force=force)
        self.index = None if output is None or self.single else output / INDEX

    def run(self, names: Iterable[str]) -> Iterator[Done | Failure]:
        """Explain pictures one after another, in order; cards are written as they are made, the index at the end."""
        if self.output is None:
            for shown in explain_all(self.classifier, names, self.options, store=self.store):
                yield shown if isinstance(shown, Failure) else Done({**shown.to_json(), "card": None}, shown)
            return
        if self.single:
            yield from self._one_file(names, self.output)
            return
        with contextlib.closing(CardFolder(self.output, force=self.force)) as folder:
            if not (yield from streamed(self._explained(names, folder), folder, render_index)):
                raise DataError(
                    f"There is nothing to explain: no picture was given, or only cards in {self.output}. Name pictures."
                )

    def _one_file(self, names: Iterable[str], output: Path) -> Iterator[Done | Failure]:
        pictures = list(names)
        if len(pictures) != 1:
            raise DataError(
                f"{len(pictures)} pictures were given for one file, {output}. Expected a folder. Give one with -o."
            )
        if output.exists() and os.path.exists(pictures[0]) and output.samefile(pictures[0]):
            raise ForeignFileError(
                f"{output} is the picture itself, and its card would overwrite it. Give another place with -o."
            )
        for result in explain_all(self.classifier, pictures, self.options, store=self.store):
            if isinstance(result, Failure):
                yield result
                continue
            result.save(output, force=self.force)
            yield Done({**result.to_json(), "card": str(output)}, result)

    def _explained(self, names: Iterable[str], folder: CardFolder) -> Iterator[Result]:
        """Earlier results and new ones with their index entries, in order; what is new is looked at in groups."""
        fingerprint = self.fingerprint()
        todo = ((name, _key(name, fingerprint)) for name in names if not folder.is_own(name))
        while group := list(islice(todo, GROUP)):
            earlier = [folder.earlier(key) for _, key in group]
            new = [name for (name, _), line in zip(group, earlier, strict=True) if line is None]
            made = explain_all(self.classifier, new, self.options, store=self.store, batch_size=GROUP)
            for (name, key), line in zip(group, earlier, strict=True):
                if line is not None:
                    yield as_before(line, folder)
                elif isinstance(result := next(made), Failure):
                    yield result
                else:
                    yield write_card(result, folder, key, name, self.endings)

    def fingerprint(self) -> str:
        """Return the digest of everything besides the picture that an explanation depends on."""
        c = self.classifier
        digest = hashlib.sha256(f"{c.digest}|{c.encoder.engine.name}|{self.options}|{self.endings}".encode())
        digest.update(trained_digest(self.options.method(c.where), c))
        if self.options.objects is not None:
            digest.update(self.options.objects.seal.encode())
        fitted = files_of(c, self.options.like, self.options.prototypes)
        for path in fitted:
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()


def _key(name: str, fingerprint: str) -> str:
    """Under which a picture's card is noted."""
    seal = f"{name}|{file_digest(name)}|{fingerprint}"
    return hashlib.sha256(seal.encode("utf-8", "surrogatepass")).hexdigest()


Result = tuple[Done, IndexEntry] | Failure
"""One explained picture with its card's entry in the index, or the reason why it failed."""


def streamed(
    results: Iterable[Result], folder: CardFolder, page: Callable[[list[IndexEntry], list[Failure]], str]
) -> Generator[Done | Failure, None, bool]:
    """Yield results as they come; at the end write the list and the index, and return whether there was any result."""
    records: list[dict[str, Any]] = []
    entries: list[IndexEntry] = []
    failures: list[Failure] = []
    for result in results:
        if isinstance(result, Failure):
            failures.append(result)
            yield result
        else:
            done, entry = result
            records.append(done.record)
            entries.append(entry)
            yield done
    lines = [*records, *(f.to_json() for f in failures)]
    if lines:
        folder.finish(lines, page(entries, failures))
    return bool(lines)


def as_before(line: dict[str, Any], folder: CardFolder) -> tuple[Done, IndexEntry]:
    data = line["entry"]
    second = tuple(data["second"]) if data["second"] else None
    entry = IndexEntry(**{**data, "second": second, "levels": tuple(data["levels"])})
    return Done({**line["record"], "card": str(folder.path / entry.href)}, None), entry


def write_card(
    result: Explanation, folder: CardFolder, key: str, name: str, endings: tuple[str, ...]
) -> tuple[Done, IndexEntry]:
    """Write the card, and note it for the next run."""
    place = folder.place(name, endings)
    record = {**result.to_json(), "card": str(folder.path / f"{place}.html")}
    entry = index_entry(result, f"{place}.html")
    folder.keep(key, record, asdict(entry), {place + e: FORMS[e](result) for e in endings})
    return Done(record, result), entry


def check_output(output: Path, *, force: bool = False) -> bool:
    """Check before the work begins that an output is a file and not a folder."""
    ending = output.suffix.lower()
    if ending in ONE_FILE:
        check_card(output, force=force)
        return True
    if ending in OTHER_FILES and not output.is_dir():
        raise DataError(
            f"{output} ends in {output.suffix!r}. Expected {', '.join(ONE_FILE)} for one card, or a folder for many. "
            "Give one of these with -o."
        )
    check_folder(output)
    if output.is_dir():
        CardFolder(output, force=force).close()
    return False
