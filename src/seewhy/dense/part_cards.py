"""Cards for the boxes or segments of many pictures: a folder of them with an index and JSON lines, resumable."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..encoders.stream import file_digest
from ..errors import ImageError, InputError
from ..evidence.batch import FORMS, INDEX, CardFolder, Done, Result, as_before, check_output, streamed, write_card
from ..evidence.explain import ExplainOptions
from ..explanation.base import Explanation
from ..explanation.part import Part
from ..progress import Progress
from ..report import IndexEntry, render_index
from ..types import Failure
from .finders import Detector
from .part_evidence import MOST, PartExplainer, parts_of


class PartBatch:
    """Explains what is found in pictures, and writes a card each."""

    def __init__(
        self,
        explainer: PartExplainer,
        options: ExplainOptions,
        output: Path | None,
        *,
        most: int = MOST,
        png: bool = False,
        force: bool = False,
        progress: Progress | None = None,
    ) -> None:
        if output is not None and check_output(output, force=force):
            raise InputError(
                f"Cards of boxes or segments were to go to {output}, which is one file. A folder was expected, since a "
                "picture may have many. Give one with -o."
            )
        self.explainer, self.options, self.output, self.most = explainer, explainer.options(options), output, most
        self.endings = tuple(FORMS) if png else (".html",)
        self.force, self.progress = force, progress or Progress()
        self.index = None if output is None else output / INDEX
        self.n_pictures = 0

    def run(self, names: Iterable[str]) -> Iterator[Done | Failure]:
        """Explain as a stream, in order; cards are written as they are made, the index at the end."""
        if self.output is None:
            yield from (one if isinstance(one, Failure) else one[0] for one in self._explained(names, None))
            return
        with closing(CardFolder(self.output, force=self.force)) as folder:
            own = (name for name in names if not folder.is_own(name))
            if not (yield from streamed(self._explained(own, folder), folder, self._page)):
                folder.finish([], self._page([], []))  # nothing was found is an answer

    def _page(self, entries: list[IndexEntry], failures: list[Failure]) -> str:
        nouns = ("box", "boxes") if isinstance(self.explainer.finder, Detector) else ("segment", "segments")
        return render_index(entries, failures, nouns[1].capitalize(), nouns)

    def _explained(self, names: Iterable[str], folder: CardFolder | None) -> Iterator[Result]:
        fingerprint = self._fingerprint()
        for name in names:
            try:
                found = self.explainer.finder.find(name)
            except ImageError as error:
                yield Failure(name, error.reason)
                continue
            self.n_pictures += 1
            parts = parts_of(found)
            if len(parts) > self.most or not parts:
                left = f"{len(parts) - self.most} of {len(parts)} are left out; --set most_cards explains more"
                self.progress.note(f"{name}: {left if parts else 'nothing was found'}")
            keys = {part.number: self._key(name, part, fingerprint) for part in parts[: self.most]}
            earlier = {} if folder is None else {number: folder.earlier(key) for number, key in keys.items()}
            new = [number for number in keys if earlier.get(number) is None]
            made = self.explainer.explain(name, found, self.options, new)
            for part in parts[: self.most]:
                line = earlier.get(part.number)
                if line is not None and folder is not None:
                    yield as_before(line, folder)
                else:
                    yield self._written(keys[part.number], folder, next(made))

    def _written(self, key: str, folder: CardFolder | None, result: Explanation) -> tuple[Done, dict[str, Any]]:
        part = result.part
        if folder is None or part is None:
            return Done({**result.to_json(), "card": None}, result), {}
        # What follows the last dot would be taken for the ending of a picture's name.
        name = f"{Path(result.prediction.image).with_suffix('')} {part.kind} {part.number} {part.label}."
        return write_card(result, folder, key, name, self.endings)

    def _key(self, name: str, part: Part, fingerprint: str) -> str:
        told = f"{name}|{file_digest(name)}|{part.to_json()}|{fingerprint}"
        return hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()

    def _fingerprint(self) -> str:
        """What decides an explanation beside the picture and the part."""
        model, engine = self.explainer.model, self.explainer.score.reader.encoder.engine
        told = (version("seewhy"), model.provenance(), model.parameters, engine.name, self.options, self.endings)
        digest = hashlib.sha256(repr(told).encode())
        more = [] if model.words is None else [model.words.vectors]
        more += [model.bank.vectors] if model.bank is not None else []
        for tensor in (model.head.weight, model.head.bias, *more):
            digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()
