"""A set of made pictures by the names of classes, each with the seed that makes it again (as CIFAKE's was made)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from zlib import crc32

import numpy as np
from jaxtyping import UInt8

from ..classifiers.base import Classifier
from ..encoders.split import weights_digest
from ..errors import DataError, ForeignFileError, InputError
from ..progress import Progress
from ..storage.journal import Journal
from ..storage.marks import PICTURE, Lines, Record
from ..storage.output import check_file, check_folder, make_folder, write
from ..storage.reading import file_sha256
from .conditions import Condition, OfClass, OfText
from .generator import Generator, bytes_of
from .sampler import PPGN, noise

TABLE = "pictures.jsonl"
FIELDS = ("image", "label", "prompt", "seed", "generator", "sha256")
ROWS = Lines((Record(FIELDS),))
NO_CLASS = "made"
"""Folder and label of pictures of no class."""


class Source(Protocol):
    """What makes pictures."""

    @property
    def name(self) -> str: ...
    @property
    def fingerprint(self) -> str: ...
    def refusal(self, classes: tuple[str, ...]) -> str | None:
        """Why it does not make these, if it does not."""
        ...

    def picture(self, label: str | None, prompt: str, seed: int) -> UInt8[np.ndarray, "h w 3"]: ...


@dataclass(frozen=True, eq=False)
class OfGenerator:
    """A generator of ``seewhy fit-generator``: a walk (PPGN) from noise towards the class.

    Attributes:
        generator: what makes them.
        classifier: whose class is climbed; left out, the prompt by the words of the generator's own encoder.
        sampler: the walk.
    """

    generator: Generator
    classifier: Classifier | None = None
    sampler: PPGN = field(default_factory=PPGN)

    @property
    def name(self) -> str:
        return f"seewhy generator on {self.generator.read.encoder.name}"

    @property
    def fingerprint(self) -> str:
        tensors = {f"g.{k}": v for k, v in self.generator.network.state_dict().items()}
        told = f"{self.sampler}|{self.generator.read.encoder.fingerprint}"
        if self.classifier is not None:
            tensors |= {f"c.{k}": v for k, v in self.classifier.head.state_dict().items()}
            told += f"|{self.classifier.encoder.fingerprint}"
        return weights_digest(tensors, told)[:32]

    def refusal(self, classes: tuple[str, ...]) -> str | None:
        if classes and self.classifier is None and not self.generator.read.encoder.has_text:
            return f"the encoder {self.generator.read.encoder.name!r} of the generator reads no words"
        for name in classes if self.classifier is not None else ():
            self.classifier.index_of(name)  # type: ignore[union-attr]
        return None

    def picture(self, label: str | None, prompt: str, seed: int) -> UInt8[np.ndarray, "h w 3"]:
        """The picture of a class and a seed, always the same."""
        goal: Condition | None = None
        if label is not None:
            own = self.generator.read.encoder
            goal = OfText(own, prompt) if self.classifier is None else OfClass(self.classifier, label)
        walk = self.sampler.sample(self.generator, goal, noise(self.generator, 1, seed), seed=seed)
        return bytes_of(walk.pictures[-1])[0].numpy()


@dataclass(frozen=True)
class MadeSet:
    """Which pictures are made.

    A picture's seed follows from the set's seed, the class's name and the picture's number alone, so that more
    pictures or further classes change none that are there.

    Args:
        classes: names; none for a generator that reads no words.
        count: pictures of each.
        prompt: sentence with ``{}`` where the name goes; CIFAKE's own sentences are not known word for word.
        seed: of all of them.

    Example:
        >>> [row["seed"] for row in MadeSet(("wren",), 2).rows("g")]
        [1633811461, 1414937683]
    """

    classes: tuple[str, ...] = ()
    count: int = 10
    prompt: str = "a photograph of a {}"
    seed: int = 0

    def __post_init__(self) -> None:
        folders = [_folder(name) for name in self.classes]
        if self.count < 1 or not all(folders) or len(set(folders)) < len(folders):
            raise InputError(
                f"{self.count} pictures of each of {', '.join(map(repr, self.classes)) or 'no class'} were asked for. "
                "One or more, of names that differ in letters and digits, were expected. Change them."
            )
        if self.classes and self.prompt.count("{}") != 1:
            raise InputError(
                f"The prompt is {self.prompt!r}. A sentence with {{}} where the class's name goes was expected. For "
                "example: 'a photograph of a {}'"
            )

    def rows(self, fingerprint: str) -> Iterator[dict[str, Any]]:
        """What is made, one picture of each class after another; all but the digest."""
        for number in range(self.count):
            for name in self.classes or (None,):
                label = NO_CLASS if name is None else name
                yield {
                    "image": f"{_folder(label)}/{number:06d}.png",
                    "label": label,
                    "prompt": "" if name is None else self.prompt.replace("{}", name),
                    "seed": crc32(f"{self.seed}|{label}|{number}".encode()),
                    "generator": fingerprint,
                }

    def make(self, source: Source, folder: Path, progress: Progress | None = None) -> dict[str, Any]:
        """Make what is not there yet; a stopped run goes on."""
        progress = progress or Progress()
        refusal = source.refusal(self.classes)
        if refusal is not None:
            given = f"{len(self.classes)} class(es) were named" if self.classes else "No class was named"
            cure = "Leave them out, or give a classifier that knows them." if self.classes else "Name some."
            raise InputError(f"{given}, and {refusal}. {cure}")
        check_set(folder)
        planned, n_new = list(self.rows(source.fingerprint)), 0
        with Journal(folder / TABLE, ROWS, force=None, sync=True) as table:
            known = {row["image"]: row for row in table.rows}
            for row in planned:
                self._check(row, known.get(row["image"]), folder)
            for row in progress.track(planned, "Making", len(planned)):
                digest = known.get(row["image"], {}).get("sha256")
                path = folder / row["image"]
                if digest is not None and path.is_file():
                    continue
                found = self._made(source, row, path)
                if digest is None:
                    table.add({**row, "sha256": found})
                elif found != digest:
                    progress.note(f"{row['image']} was made again and is another picture: libraries may have changed")
                n_new += 1
        return {
            "made": str(folder),
            "table": str(folder / TABLE),
            "generator": source.name,
            "fingerprint": source.fingerprint,
            "n": len(planned),
            "n_new": n_new,
            "pictures": [{k: row[k] for k in ("image", "label", "prompt", "seed")} for row in planned],
            "notes": list(dict.fromkeys(progress.notes)),
        }

    def _check(self, row: dict[str, Any], known: dict[str, Any] | None, folder: Path) -> None:
        path = folder / row["image"]
        if known is not None and {k: known[k] for k in row} != row:
            raise DataError(
                f"{folder} holds pictures that were made otherwise: {row['image']} by generator {known['generator']}, "
                f"seed {known['seed']}, prompt {known['prompt']!r}. The same generator, settings, seed and prompt were "
                "expected. Give another folder."
            )
        if known is None and path.parent.is_dir():
            check_file(path, PICTURE, force=None)
        if known is not None and path.is_file() and file_sha256(path) != known["sha256"]:
            raise ForeignFileError(
                f"{path} is no longer the picture that was made. It as it was, or none, was expected. Move it away."
            )

    def _made(self, source: Source, row: dict[str, Any], path: Path) -> str:
        from ..report.page import png_of

        make_folder(path.parent)
        label = None if not self.classes else row["label"]
        write(path, png_of(source.picture(label, row["prompt"], row["seed"])), PICTURE, force=None)
        return file_sha256(path)


def check_set(folder: Path) -> Path:
    """The folder, if a set can be made or gone on with there; nothing is touched."""
    check_folder(folder)
    if folder.is_dir() and any(folder.iterdir()) and not (folder / TABLE).is_file():
        raise ForeignFileError(
            f"{folder} is not empty and holds no {TABLE}. A new folder, or one that this command left, was expected. "
            "Choose another name."
        )
    return folder


def _folder(name: str) -> str:
    return re.sub(r"\W+", "_", name.strip()).strip("_").lower()
