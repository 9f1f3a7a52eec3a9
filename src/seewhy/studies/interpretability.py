"""Compare encoders by Inherent Interpretability Scores: the accuracy of a linear classifier on a few concepts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from ..bounds import Count, check_fields
from ..classifiers.encoded_set import EncodedSet, encode_labelled
from ..encoders.base import Encoder
from ..errors import DataError, InputError, UnknownNameError
from ..heads.sparse_concepts import SPARSITIES, Mask, n_kept
from ..pictures.samples import Samples, split
from ..progress import Progress, shown
from ..spelling import first_repeated
from ..storage.features import FeatureStore
from .concepts import CONTROL, LIBRARIES, HeadTraining, Looked, Parts, measure, standardised
from .interpretability_findings import EncoderRow, LibraryRow, findings, interpretability_page
from .study import Findings, Row, StudyRecords, beside, bits, from_bits, inputs_digest, records_in

TESTED, CHOOSING = 0.25, 0.2
"""Share of all pictures in the test set, and share of the others in the selection set."""
NEIGHBOURS = 10


@dataclass(frozen=True)
class InterpretabilityStudy:
    """A study of the accuracy of a linear layer on a few concepts per picture (IIS, Shen et al. 2025,
    arXiv:2510.24105).

    ``ARR(s)`` is the accuracy with ``M - floor(sM)`` of ``M`` concepts per picture, divided by the accuracy of a linear
    layer on all features. The score is the integral of ``ARR`` over the sparsity ``s``
    (:func:`~seewhy.studies.concepts.iis`). An encoder with a low accuracy can also have a high score. The score does
    not measure whether people understand the concepts.

    Args:
        libraries: kinds of concepts: ``prototype``, ``cluster``, ``text`` or ``random``, separated by commas; default:
            all.
        n_concepts: number of concepts, at least 50; lower it if there are few training pictures.
        mask: how concepts are removed: ``hard`` sets all but the largest values to 0, ``soft`` shrinks all values, and
            ``authors`` is ``hard`` with one value fewer.
        layer_norm: whether to normalise values over the concepts of a picture, as the authors do; otherwise, each
            concept is normalised over the pictures.
        grid: number of rows and columns of the crops that concepts come from, at least 1; 1 uses whole pictures.
        n_random: number of sets of random directions over which results are averaged, at least 1.
        seed: seed of the split, the random sets and the resampling.
        raw_reference: whether to train the layer on all features without standardising them, as the authors do; this
            can raise the score.
        training: training of every layer.
        n_draws: number of bootstrap resamples.
        level: confidence level of the intervals, 0.5 to 1.
    """

    libraries: tuple[str, ...] = tuple(LIBRARIES)
    n_concepts: int = 200
    mask: Mask = "hard"
    layer_norm: bool = True
    grid: Count = 4
    n_random: Count = 3
    seed: int = 0
    raw_reference: bool = False
    training: HeadTraining = field(default_factory=HeadTraining)
    n_draws: int = 2000
    level: float = 0.95

    def __post_init__(self) -> None:
        for name in self.libraries:
            UnknownNameError.check("concept library", name, LIBRARIES)
        if not self.libraries:
            raise InputError(f"`libraries` must have at least one of {', '.join(LIBRARIES)}, got none.")
        check_fields(self, "the study")
        for sparsity in SPARSITIES:
            n_kept(self.n_concepts, sparsity, self.mask)

    @shown("Working out the answer")
    def run(
        self,
        encoders: Sequence[Encoder],
        samples: Samples,
        output: str | Path | None = None,
        *,
        test: Samples | None = None,
        concepts: Sequence[str] = (),
        judge: Encoder | None = None,
        store: FeatureStore | None = None,
        progress: Progress | None = None,
    ) -> Findings:
        """Run the study; results that an earlier run stored in ``output`` are not computed again."""
        progress = progress or Progress()
        if not encoders:
            raise InputError("`encoders` must have at least one entry. Add -e lite0, for example.")
        needed = "text" in self.libraries and any(not one.has_text for one in encoders)
        judges = [judge] if judge is not None and needed else []
        looks = look([*encoders, *judges], samples, test, store, progress)
        encoded, names = looks[0], [one.name for one in encoders]
        parts = divide(encoded, test is not None, self.seed, progress)
        # Add the beginning of the fingerprint to repeated names.
        names = [f"{n} {e.fingerprint[:6]}" if names.count(n) > 1 else n for n, e in zip(names, encoders, strict=True)]
        if (twice := first_repeated(names)) is not None:
            raise InputError(f"`encoders` must be different, got {twice} twice.")
        own = {k: v for k, v in vars(self).items() if k not in ("libraries", "n_random", "n_draws", "level")}
        sets = [rows.int().tolist() for rows in vars(parts).values()]
        said = inputs_digest([repr(own), list(encoded.digests), encoded.labels.tolist(), sets, list(concepts)])
        rows = []
        with records_in(output) as records:
            places = list(zip(names, encoders, looks, strict=False))
            for name, encoder, own_look in progress.track(places, "Measuring encoders", len(places)):
                looked = Looked(
                    encoder, own_look.pooled, encoded.labels, [item.source for item in encoded.items], parts,
                    self.n_concepts, self.grid, texts=tuple(dict.fromkeys(concepts)),
                    judge=(judges[0], looks[-1].pooled) if judges and not encoder.has_text else None,
                    layer_norm=self.layer_norm, seed=self.seed, store=store,
                )  # fmt: skip
                rows.append(self._encoder_row(name, looked, said, records, progress))
        if not any(row.libraries for row in rows):
            raise DataError(f"Nothing was measured. {progress.notes[-1]}")
        how = {"n_draws": self.n_draws, "level": self.level, "seed": self.seed}
        settings = {**vars(self), "libraries": list(self.libraries), "training": vars(self.training)}
        data = {**findings(rows, encoded, parts, **how), "settings": settings, **beside(progress)}
        return Findings(data, interpretability_page)

    def _encoder_row(
        self, name: str, looked: Looked, said: str, records: StudyRecords, progress: Progress
    ) -> EncoderRow:
        """Measure an encoder with every library; a library that fails is skipped with a note."""
        if not bool(torch.isfinite(looked.pooled).all()):
            raise DataError(
                f"Features must be finite, but the features of {name} have NaN or infinite values. Leave this encoder "
                "out."
            )
        fingerprint, labels, parts = looked.encoder.fingerprint, looked.labels, looked.parts

        def row(what: str, measure: Callable[[], Row]) -> Row:
            return records.row(inputs_digest([said, f"{fingerprint} {what}"]), measure)

        def whole() -> Row:
            features = looked.pooled if self.raw_reference else standardised(looked.pooled, parts.train)
            return {"right": [bits(self.training(features, labels, parts).tolist())], "kept": []}

        right = torch.tensor(from_bits(row("all features", whole)["right"][0])).double()
        libraries = {}
        for library in progress.track(self.libraries, "Measuring kinds of concepts", len(self.libraries)):
            by = looked.judge[0].fingerprint if library == "text" and looked.judge is not None else ""
            draws = range(self.n_random if library == CONTROL else 1)
            try:
                found = [row(f"{library} {by} {i}", partial(self._measured, library, looked, i)) for i in draws]
            except DataError as error:
                progress.note(f"{library} of {name} is left out: {error}")
                continue
            libraries[library] = LibraryRow.of(found)
            progress.note_all(found[0]["notes"])
        near = neighbours(looked.pooled, labels, parts)
        return EncoderRow(name, fingerprint[:12], looked.pooled.shape[1], right, near, libraries)

    def _measured(self, library: str, looked: Looked, draw: int) -> Row:
        concepts = LIBRARIES[library](looked, draw)
        how: dict[str, Any] = {"mask": self.mask, "training": self.training}
        right, kept, used = measure(concepts.scores, looked.labels, looked.parts, **how)
        return {
            "right": [bits(column) for column in right.T], "kept": kept, "used": used,
            "n_concepts": concepts.scores.shape[1], "words_of": concepts.words_of, "notes": list(concepts.notes),
        }  # fmt: skip


def neighbours(pooled: Float[Tensor, "n d"], labels: Int[Tensor, " n"], parts: Parts) -> float:
    """Return the accuracy of the ten nearest neighbours on the selection pictures."""
    own, of = normalize(pooled[parts.train], dim=1), labels[parts.train]
    near = (normalize(pooled[parts.selection], dim=1) @ own.T).topk(min(NEIGHBOURS, len(own)), dim=1)
    votes = torch.zeros(len(near.indices), int(labels.max()) + 1)
    votes.scatter_add_(1, of[near.indices], 1 + near.values / 1000)  # ties go to the nearer pictures
    return float((votes.argmax(1) == labels[parts.selection]).double().mean())


def look(
    encoders: Sequence[Encoder], samples: Samples, test: Samples | None, store: FeatureStore | None, progress: Progress
) -> list[EncodedSet]:
    """Encode the same pictures with every encoder; pictures that one encoder cannot read are left out for all."""
    if len(samples.classes) < 2:
        given = f"one class, {samples.classes[0]}" if samples.classes else "no classes"
        raise DataError(f"The pictures must have at least two classes, got {given}.")
    held = () if test is None else tuple(map(replace, test.items))  # may be the same objects
    whole, quiet = replace(samples, items=(*samples.items, *held)), Progress()
    heard = [progress, *[quiet] * (len(encoders) - 1)]
    found = [encode_labelled(e, samples.classes, whole, store, p) for e, p in zip(encoders, heard, strict=True)]
    for failure in quiet.failures:
        if failure.image not in {f.image for f in progress.failures}:
            progress.failed(failure)
    shared = set.intersection(*({id(s) for s in one.items} for one in found))
    if not shared:
        raise DataError("No picture can be read by all encoders. Compare fewer encoders.")
    parts = [one.subset([i for i, s in enumerate(one.items) if id(s) in shared]) for one in found]
    ids = {id(s) for s in held}
    is_held = torch.tensor([id(s) in ids for s in parts[0].items])
    return [replace(part, held=is_held) for part in parts]


def divide(encoded: EncodedSet, is_given: bool, seed: int, progress: Progress) -> Parts:
    """Split pictures into training, selection and test sets; copies and groups stay in one set."""
    labels = [item.label for item in encoded.items]
    things = [item.group or digest for item, digest in zip(encoded.items, encoded.digests, strict=True)]
    held, classes, needed = encoded.held, encoded.classes, 2 if is_given else 3
    for name in classes:
        n = len({things[i] for i, of in enumerate(labels) if of == name and not held[i]})
        if n < needed:
            raise DataError(
                f"Every class must have at least {needed} different pictures, got {n} of {name}. SeeWhy splits them "
                f"into training{', selection and test' if not is_given else ' and selection'} pictures. Add pictures "
                "of this class, or leave it out."
            )
    test = held if is_given else torch.tensor(split(labels, things, TESTED, seed))
    shown = {thing for thing, held in zip(things, test.tolist(), strict=True) if held}
    twice = torch.tensor([thing in shown for thing in things]) & ~test
    if bool(twice.any()):
        progress.note(f"{int(twice.sum())} picture(s) are also test pictures and were left out of training.")
    rest = (~test & ~twice).nonzero()[:, 0]
    chosen = split([labels[i] for i in rest], [things[i] for i in rest], CHOOSING, seed + 1)
    selection = torch.zeros_like(test)
    selection[rest[torch.tensor(chosen, dtype=torch.bool)]] = True
    parts = Parts(~test & ~twice & ~selection, selection, test)
    for rows, what in ((parts.train, "train on"), (parts.selection, "choose on"), (parts.test, "test on")):
        there = set(encoded.labels[rows].tolist())
        if len(there) < 2:
            raise DataError(
                f"Pictures to {what} must have at least two classes, got {len(there)} class(es). Add pictures."
            )
        if absent := [c for i, c in enumerate(classes) if i not in there]:
            progress.note(f"The class {absent[0]} has no picture to {what}: results are for the other classes.")
    return parts
