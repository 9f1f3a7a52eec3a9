"""Cards for many pictures: a folder of them with an index and JSON lines, resumable."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
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
from ..storage.output import check_folder
from ..types import Failure
from .card_folder import INDEX, CardFolder
from .explain import ExplainOptions, explain_all

GROUP = 16
FORMS: dict[str, Callable[[Explanation], str | bytes]] = {".html": Explanation.to_html, ".png": Explanation.to_png}
ONE_FILE = (".html", ".htm", ".png", ".json")
OTHER_FILES = (*SUFFIXES, ".jsonl", ".pdf", ".svg")
"""Endings that nobody gives to a folder."""


@dataclass(frozen=True)
class Done:
    """One explained picture."""

    record: dict[str, Any]
    explanation: Explanation | None


@dataclass(frozen=True)
class _Plan:
    """One picture before it is explained."""

    name: str
    key: str
    earlier: dict[str, Any] | None
    place: str


class Batch:
    """Explains pictures into a folder, or one picture into one file.

    What was explained before with the same classifier and options, and whose card is still there as it was written, is
    not done again. A file that no earlier run wrote is left alone; a card that one wrote is not explained in turn.

    Args:
        classifier: what explains.
        options: what and how.
        output: a folder, or one file with the ending of a card; ``None`` writes none.
        png: also write a still picture of each card.
        store: where looks are kept.
        force: write over one file, or an index, that SeeWhy did not make; never over a picture that is explained.

    Raises:
        DataError: as :func:`check_output`.
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
        """Explain as a stream, in order; cards are written as they are made, the index at the end."""
        if self.output is None:
            for shown in explain_all(self.classifier, names, self.options, store=self.store):
                yield shown if isinstance(shown, Failure) else Done({**shown.to_json(), "card": None}, shown)
            return
        if self.single:
            yield from self._one_file(names, self.output)
            return
        with closing(CardFolder(self.output, force=self.force)) as folder:
            if not (yield from streamed(self._explained(names, folder), folder, render_index)):
                raise DataError(
                    f"There is nothing to explain: no picture was named, or only cards in {self.output}. Name pictures."
                )

    def _one_file(self, names: Iterable[str], output: Path) -> Iterator[Done | Failure]:
        pictures = list(names)
        if len(pictures) != 1:
            raise DataError(f"{len(pictures)} pictures do not fit into {output}. Give a folder with -o.")
        if output.exists() and os.path.exists(pictures[0]) and output.samefile(pictures[0]):
            raise ForeignFileError(
                f"{output} is the picture itself, which its card would replace. Give another with -o."
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
        plans = (self._plan(name, folder, fingerprint) for name in names if not folder.is_own(name))
        while group := list(islice(plans, GROUP)):
            todo = [plan.name for plan in group if plan.earlier is None]
            made = explain_all(self.classifier, todo, self.options, store=self.store, batch_size=GROUP)
            for plan in group:
                if plan.earlier is not None:
                    yield as_before(plan.earlier, folder)
                    continue
                result = next(made)
                if isinstance(result, Failure):
                    yield result
                else:
                    yield write_card(result, folder, plan.key, plan.place, self.endings)

    def _plan(self, name: str, folder: CardFolder, fingerprint: str) -> _Plan:
        """What is to be done about a picture; nothing where its card is there and says what it would say again."""
        seal = f"{name}|{file_digest(name)}|{fingerprint}".encode("utf-8", "surrogatepass")
        key = hashlib.sha256(seal).hexdigest()
        earlier = folder.earlier(key)
        return _Plan(name, key, earlier, "" if earlier else folder.place(name, self.endings))

    def fingerprint(self) -> str:
        """What decides an explanation beside the picture."""
        c = self.classifier
        digest = hashlib.sha256(f"{c.digest}|{c.encoder.engine.name}|{self.options}|{self.endings}".encode())
        digest.update(trained_digest(self.options.method(c.where), c))
        if self.options.objects is not None:
            digest.update(self.options.objects.seal.encode())
        fitted = files_of(c, self.options.like, self.options.prototypes)
        for path in fitted:
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()


Result = tuple[Done, dict[str, Any]] | Failure
"""One explained picture with the entry of its card in the index, or why it was not."""


def streamed(
    results: Iterable[Result], folder: CardFolder, page: Callable[[list[IndexEntry], list[Failure]], str]
) -> Generator[Done | Failure, None, bool]:
    """Results as they come; at the end the list and the index are written, and whether there was any is given back."""
    records: list[dict[str, Any]] = []
    entries: list[IndexEntry] = []
    failures: list[Failure] = []
    for result in results:
        if isinstance(result, Failure):
            failures.append(result)
            yield result
            continue
        done, entry = result
        records.append(done.record)
        entries.append(entry_of(entry))
        yield done
    lines = [*records, *(f.to_json() for f in failures)]
    if lines:
        folder.finish(lines, page(entries, failures))
    return bool(lines)


def as_before(line: dict[str, Any], folder: CardFolder) -> tuple[Done, dict[str, Any]]:
    """What an earlier run made."""
    card = str(folder.path / line["entry"]["href"])
    return Done({**line["record"], "card": card}, None), line["entry"]


def write_card(
    result: Explanation, folder: CardFolder, key: str, place: str, endings: tuple[str, ...]
) -> tuple[Done, dict[str, Any]]:
    """The card on disk, and its line for the next run."""
    record = {**result.to_json(), "card": str(folder.path / f"{place}.html")}
    entry = asdict(index_entry(result, f"{place}.html"))
    folder.keep(key, record, entry, {place + e: FORMS[e](result) for e in endings})
    return Done(record, result), entry


def check_output(output: Path, *, force: bool = False) -> bool:
    """Whether an output is one file and not a folder; asked before the work begins."""
    ending = output.suffix.lower()
    if ending in ONE_FILE:
        check_card(output, force=force)
        return True
    if ending in OTHER_FILES and not output.is_dir():
        raise DataError(
            f"{output} ends in {output.suffix!r}. A card is written as {', '.join(ONE_FILE)}, many into a folder. "
            "Give one of these endings, or a folder, with -o."
        )
    check_folder(output)
    if output.is_dir():
        CardFolder(output, force=force).close()
    return False


def entry_of(data: dict[str, Any]) -> IndexEntry:
    """The entry that was noted as JSON."""
    second = data["second"]
    return IndexEntry(
        **{**data, "second": tuple(second) if second else None, "levels": tuple(data["levels"])},
    )
