"""Write cards of many pictures into a folder, with an index and JSON lines; an interrupted run can be resumed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
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
from ..results import restore
from ..storage.features import FeatureStore
from ..storage.folders import write_inside
from ..storage.journal import Journal
from ..storage.marks import Lines, Record
from ..storage.output import check_folder, output_folder, safe_stem
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
"""File endings that are refused as folder names."""


@dataclass(frozen=True)
class Done:
    record: dict[str, Any]
    explanation: Explanation | None


class CardFolder:
    """An output folder of cards, in which only files that SeeWhy wrote are overwritten."""

    def __init__(self, path: Path, *, force: bool = False) -> None:
        self.path = path
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
            if os.path.lexists(there) and not self._still_own(taken):
                raise ForeignFileError(
                    f"{there} already exists and was not written by seewhy explain. Give another folder with -o."
                )
        output_folder(path)

    def _take(self, line: dict[str, Any]) -> None:
        """Read a line of the journal; file names outside this folder are ignored."""
        if "entry" in line:
            self._owners.setdefault(Path(line["entry"]["href"]).stem.casefold(), line["record"]["image"])
        for file, digest in line["files"].items():
            if os.path.basename(file) != file:
                return
            self._own[file].add(digest)
        if "entry" in line:
            self._lines[line["key"]] = line

    def earlier(self, key: str) -> dict[str, Any] | None:
        """Return the record of an earlier run with this key, or ``None`` if it is missing or its files have changed."""
        line = self._lines.get(key)
        if line is None or not all(file_digest(self.path / f) == digest for f, digest in line["files"].items()):
            return None
        return line

    def is_own(self, file: str | Path) -> bool:
        """Return whether SeeWhy wrote this file into this folder."""
        folder, name = os.path.split(file)
        return name in self._own and os.path.realpath(folder) == self._real and self._still_own(name)

    def _still_own(self, name: str) -> bool:
        return file_digest(self.path / name) in self._own[name]

    def place(self, picture: str, endings: Sequence[str]) -> str:
        """Return a unique, portable file name, without ending, for the card of a picture."""
        stem = safe_stem(picture)
        digest = hashlib.sha256(picture.encode("utf-8", "surrogatepass")).hexdigest()
        for name in (stem, f"{stem}-{digest[:8]}", f"{stem}-{digest}"):
            files = [f"{name}{ending}" for ending in endings]
            free = all(not os.path.lexists(self.path / f) or self._still_own(f) for f in files)
            if free and self._owners.setdefault(name.casefold(), picture) == picture:
                return name
        raise DataError(
            f"The folder {self.path} has files with all possible names for the card of {picture}. Give another folder "
            "with -o."
        )

    def keep(self, key: str, record: dict[str, Any], entry: dict[str, Any], files: Mapping[str, str | bytes]) -> None:
        self._write({"key": key, "record": record, "entry": entry}, files)

    def finish(self, lines: Sequence[dict[str, Any]], index: str) -> None:
        records = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        self._write({"key": ""}, {RECORDS: records, INDEX: index})

    def _write(self, line: dict[str, Any], files: Mapping[str, str | bytes]) -> None:
        data = {n: f.encode("utf-8", "backslashreplace") if isinstance(f, str) else f for n, f in files.items()}
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in data.items()}
        self._notes.add({**line, "files": digests})
        for name, content in data.items():
            self._own[name].add(digests[name])
            write_inside(self.path / name, content)

    def close(self) -> None:
        self._notes.close()


@dataclass(eq=False)
class Batch:
    """A run that writes the explanations of pictures into a folder with an index, or of one picture into one file.

    Existing cards of an earlier run are reused. Other files are not overwritten.
    """

    classifier: Classifier
    options: ExplainOptions
    output: Path | None
    png: bool = False
    store: FeatureStore | None = None
    force: bool = False

    def __post_init__(self) -> None:
        self.options = self.options.opened(self.classifier)
        self.endings = tuple(FORMS) if self.png else (".html",)
        self.single = self.output is not None and check_output(self.output, force=self.force)
        self.index = None if self.output is None or self.single else self.output / INDEX

    def run(self, names: Iterable[str]) -> Iterator[Done | Failure]:
        """Explain pictures in order and write each card at once; the index is written at the end."""
        if self.output is None:
            for shown in explain_all(self.classifier, names, self.options, store=self.store):
                yield shown if isinstance(shown, Failure) else Done({**shown.to_json(), "card": None}, shown)
            return
        if self.single:
            yield from self._one_file(names, self.output)
            return
        index = partial(render_index, classes=self.classifier.classes)
        with contextlib.closing(CardFolder(self.output, force=self.force)) as folder:
            if not (yield from streamed(self._explained(names, folder), folder, index)):
                raise DataError(
                    f"There are no pictures to explain. Cards in {self.output} do not count. Give pictures."
                )

    def _one_file(self, names: Iterable[str], output: Path) -> Iterator[Done | Failure]:
        pictures = list(names)
        if len(pictures) != 1:
            raise DataError(f"{output} can store one card, got {len(pictures)} pictures. Give a folder with -o.")
        if output.exists() and os.path.exists(pictures[0]) and output.samefile(pictures[0]):
            raise ForeignFileError(
                f"{output} is the picture itself, which the card would overwrite. Give another path with -o."
            )
        for result in explain_all(self.classifier, pictures, self.options, store=self.store):
            if isinstance(result, Failure):
                yield result
                continue
            result.save(output, force=self.force)
            yield Done({**result.to_json(), "card": str(output)}, result)

    def _explained(self, names: Iterable[str], folder: CardFolder) -> Iterator[Result]:
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
        """Return a digest of all inputs of an explanation except the picture."""
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
    seal = f"{name}|{file_digest(name)}|{fingerprint}"
    return hashlib.sha256(seal.encode("utf-8", "surrogatepass")).hexdigest()


Result = tuple[Done, IndexEntry] | Failure
"""An explained picture with its index entry, or a failure."""


def streamed(
    results: Iterable[Result], folder: CardFolder, page: Callable[[list[IndexEntry], list[Failure]], str]
) -> Generator[Done | Failure, None, bool]:
    """Yield results, then write the JSON lines and the index; return whether there was any result."""
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
    entry = restore(IndexEntry, line["entry"], str(folder.path / PROGRESS))
    return Done({**line["record"], "card": str(folder.path / entry.href)}, None), entry


def write_card(
    result: Explanation, folder: CardFolder, key: str, name: str, endings: tuple[str, ...]
) -> tuple[Done, IndexEntry]:
    place = folder.place(name, endings)
    record = {**result.to_json(), "card": str(folder.path / f"{place}.html")}
    entry = index_entry(result, f"{place}.html")
    folder.keep(key, record, asdict(entry), {place + e: FORMS[e](result) for e in endings})
    return Done(record, result), entry


def check_output(output: Path, *, force: bool = False) -> bool:
    """Check an output path before the work begins; return whether it is a single file."""
    ending = output.suffix.lower()
    if ending in ONE_FILE:
        check_card(output, force=force)
        return True
    if ending in OTHER_FILES and not output.is_dir():
        raise DataError(f"-o must be a folder, or a file that ends in {', '.join(ONE_FILE)}, got {output}.")
    check_folder(output)
    if output.is_dir():
        CardFolder(output, force=force).close()
    return False
