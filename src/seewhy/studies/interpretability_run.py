"""One encoder after another with every concept library, each number noted once it is there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from ..errors import DataError
from ..heads.sparse_concepts import Mask
from ..progress import Progress
from .concepts import CONTROL, LIBRARIES, Looked
from .interpretability_score import HeadTraining, Parts, measure, standardised
from .records import StudyRecords

NEIGHBOURS = 10


@dataclass(frozen=True, eq=False)
class LibraryRow:
    """What a library's concepts are worth to one encoder, over its draws.

    Attributes:
        right: part of the draws that are right on each test picture, at each sparsity.
        kept: concepts of each picture.
        used: different concepts that any test picture kept, in the first draw.
        n_concepts: in the library.
        draws: averaged.
        words_of: whose words they are, where they are words.
    """

    right: Float[Tensor, "t s"]
    kept: tuple[int, ...]
    used: tuple[int, ...]
    n_concepts: int
    draws: int
    words_of: str | None


@dataclass(frozen=True, eq=False)
class EncoderRow:
    """One encoder.

    Attributes:
        name: as it is called here.
        fingerprint: of its weights.
        width: of its features.
        right: of the layer on all features, on each test picture.
        neighbours: accuracy of the nearest training pictures on those to choose on: other pictures, another measure.
        libraries: what each is worth.
    """

    name: str
    fingerprint: str
    width: int
    right: Float[Tensor, " t"]
    neighbours: float
    libraries: dict[str, LibraryRow]


@dataclass(frozen=True)
class Measuring:
    """What is measured of every encoder.

    Attributes:
        libraries: names.
        mask: how few are kept.
        n_random: draws of the control.
        raw_reference: whether the layer on all features sees these as they are.
        training: of every layer.
        said: what else decides a number.
        records: what is known; ``None`` notes nothing.
    """

    libraries: tuple[str, ...]
    mask: Mask
    n_random: int
    raw_reference: bool
    training: HeadTraining
    said: str
    records: StudyRecords | None

    def __call__(self, name: str, looked: Looked, progress: Progress) -> EncoderRow:
        """Every library of one encoder; one that cannot be made for it is left out, with a note."""
        if not bool(torch.isfinite(looked.pooled).all()):
            raise DataError(f"The features of {name} are NaN or infinite. Finite numbers were expected. Leave it out.")
        fingerprint = looked.encoder.fingerprint
        features = looked.pooled if self.raw_reference else standardised(looked.pooled, looked.parts.train)
        whole = self._noted(
            f"{fingerprint} all features",
            lambda: {"right": [_bits(self.training(features, looked.labels, looked.parts))], "kept": []},
        )
        rows = {}
        for library in self.libraries:
            try:
                rows[library] = self._library(library, looked)
            except DataError as error:
                progress.note(f"{library} of {name} is left out: {error}")
                continue
            for note in rows[library][1]:
                progress.note(note)
        return EncoderRow(
            name,
            fingerprint[:12],
            looked.pooled.shape[1],
            _flags(whole["right"][0]),
            neighbours(looked.pooled, looked.labels, looked.parts),
            {library: row for library, (row, _) in rows.items()},
        )

    def _library(self, library: str, looked: Looked) -> tuple[LibraryRow, tuple[str, ...]]:
        draws = self.n_random if library == CONTROL else 1
        judge = "" if looked.judge is None else looked.judge[0].fingerprint
        found = [
            self._noted(
                f"{looked.encoder.fingerprint} {library} {judge if library == 'text' else ''} {draw}",
                lambda draw=draw: self._measured(library, looked, draw),  # type: ignore[misc]
            )
            for draw in range(draws)
        ]
        first = found[0]
        right = torch.stack([torch.stack([_flags(bits) for bits in one["right"]], 1) for one in found]).mean(0)
        row = LibraryRow(
            right, tuple(first["kept"]), tuple(first["used"]), first["n_concepts"], draws, first["words_of"]
        )
        return row, tuple(first["notes"])

    def _measured(self, library: str, looked: Looked, draw: int) -> dict:
        concepts = LIBRARIES[library](looked, draw)
        found = measure(concepts.scores, looked.labels, looked.parts, mask=self.mask, training=self.training)
        return {
            "right": [_bits(column) for column in found.right.T],
            "kept": list(found.kept),
            "used": list(found.used),
            "n_concepts": concepts.scores.shape[1],
            "words_of": concepts.words_of,
            "notes": list(concepts.notes),
        }

    def _noted(self, what: str, make: Callable[[], dict]) -> dict:
        """From the records, or made now and noted."""
        if self.records is None:
            return make()
        key = hashlib.sha256(json.dumps([self.said, what]).encode()).hexdigest()
        if key not in self.records.done:
            row = make()
            self.records.add({"key": key, **row})
        return self.records.done[key]


def neighbours(pooled: Float[Tensor, "n d"], labels: Int[Tensor, " n"], parts: Parts) -> float:
    """How often most of the ten training pictures nearest by cosine have the class of a picture to choose on."""
    own, of = normalize(pooled[parts.train], dim=1), labels[parts.train]
    near = (normalize(pooled[parts.selection], dim=1) @ own.T).topk(min(NEIGHBOURS, len(own)), dim=1)
    votes = torch.zeros(len(near.indices), int(labels.max()) + 1)
    votes.scatter_add_(1, of[near.indices], 1 + near.values / 1000)  # of equal votes those that are nearer
    return float((votes.argmax(1) == labels[parts.selection]).double().mean())


def _bits(right: Tensor) -> str:
    return "".join("01"[int(b)] for b in right)


def _flags(bits: str) -> Float[Tensor, " t"]:
    return torch.tensor([b == "1" for b in bits]).double()
