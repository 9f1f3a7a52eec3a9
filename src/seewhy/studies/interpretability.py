"""How much of what an encoder knows can be said with few concepts? The Inherent Interpretability Score, compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..encoders.base import Encoder
from ..errors import DataError, InputError, UnknownNameError
from ..heads.sparse_concepts import SPARSITIES, Mask, n_kept
from ..pictures.samples import Samples
from ..progress import Progress
from ..report.paging import Answer
from ..spelling import first_repeated
from ..storage.features import FeatureStore
from .concepts import LIBRARIES, Looked
from .interpretability_answer import answer, correlations, encoders_told, rows_told
from .interpretability_parts import Seen, divide, look
from .interpretability_run import EncoderRow, Measuring
from .interpretability_score import HeadTraining, Parts
from .records import PROGRESS, StudyRecords


@dataclass(frozen=True, repr=False)
class InterpretabilityFindings(Answer):
    """What the study found; ``data`` is the documented JSON (docs/json.md)."""

    def row(self, encoder: str, library: str) -> dict[str, Any]:
        """The figures of one encoder with one library."""
        for row in self.data["rows"]:
            if (row["encoder"], row["library"]) == (encoder, library):
                return dict(row)
        raise KeyError(f"{encoder}, {library}")

    def to_html(self) -> str:
        from ..report.interpretability import render_interpretability

        return render_interpretability(self.data)


@dataclass(frozen=True)
class InterpretabilityStudy:
    """Accuracy that is left when a linear layer sees a few concepts of each picture (IIS, Shen et al. 2025).

    ``ARR(s)`` is the accuracy with ``M - floor(sM)`` of ``M`` concepts a picture, by the accuracy of a linear layer on
    all features; the score is its integral over the grid of sparsities
    (:func:`~seewhy.studies.interpretability_score.iis`; arXiv:2510.24105). Beside it stand the accuracies themselves,
    since a ratio is high where little is lost *or little was known*, the same for random directions, and how the score
    goes with accuracy over the encoders, with and without what random directions say.

    Pictures to train on, to choose the learning rate on, and to report on are three sets. Each picture keeps concepts
    of its own, so a classifier may still use all of them: both counts are told. The score measures how much of the
    accuracy a few numbers carry; whether people understand these numbers it does not measure.

    Args:
        libraries: names of :data:`~seewhy.studies.concepts.LIBRARIES`.
        n_concepts: ``M``, 200 as in the authors' scripts.
        mask: how few are kept; see :data:`~seewhy.heads.sparse_concepts.Mask`.
        layer_norm: as the authors, a picture's values are normalised over its concepts; without, each concept over the
            pictures, so that a value that is kept does not depend on those that are not.
        grid: pieces of pictures are cells of so many rows and columns; 1 takes whole pictures.
        n_random: draws of random directions, averaged.
        seed: of the parts, the draws and the resampling.
        raw_reference: train the layer on all features on these as they are, as the authors do; else in standard units,
            since three learning rates do not fit every encoder's scale, and a reference trained too little flatters.
        training: of every layer.
        n_draws: resampled sets of test pictures.
        level: of the intervals.
    """

    libraries: tuple[str, ...] = tuple(LIBRARIES)
    n_concepts: int = 200
    mask: Mask = "hard"
    layer_norm: bool = True
    grid: int = 4
    n_random: int = 3
    seed: int = 0
    raw_reference: bool = False
    training: HeadTraining = field(default_factory=HeadTraining)
    n_draws: int = 2000
    level: float = 0.95

    def __post_init__(self) -> None:
        for name in self.libraries:
            if name not in LIBRARIES:
                raise UnknownNameError("concept library", name, list(LIBRARIES))
        if not self.libraries or self.grid < 1 or self.n_random < 1:
            raise InputError(
                f"{len(self.libraries)} libraries, a grid of {self.grid} and {self.n_random} random draws were asked "
                "for. One or more of each was expected. Leave them out for the usual ones."
            )
        for sparsity in SPARSITIES:
            n_kept(self.n_concepts, sparsity, self.mask)

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
    ) -> InterpretabilityFindings:
        """Measure what is not measured yet, and say what follows. Stopped, it goes on where it was.

        Args:
            encoders: compared on the same pictures.
            samples: labelled pictures, of which a quarter is reported on.
            output: folder of the progress; left out, nothing is noted.
            test: pictures to report on instead.
            concepts: what concepts in words say.
            judge: an encoder with words that says how well a sentence fits a picture, for encoders that have none.
            store: where looks and sentences are kept.
            progress: hears of progress and failures.

        Raises:
            DataError: fewer than two classes, fewer than three pictures of one, no picture that can be read, or no
                library that can be made.
        """
        progress = progress or Progress()
        if not encoders:
            raise InputError("No encoder was given. One or more was expected. Give lite0, say.")
        judged = judge is not None and any(not one.has_text for one in encoders) and "text" in self.libraries
        looks = [*encoders, judge] if judged and judge is not None else list(encoders)
        seen = look(looks, samples, test, store, progress)
        parts = divide(seen, samples.classes, self.seed, progress)
        names = _named(encoders)
        found = []
        with nullcontext() if output is None else StudyRecords(Path(output) / PROGRESS) as records:
            measuring = Measuring(
                self.libraries,
                self.mask,
                self.n_random,
                self.raw_reference,
                self.training,
                self._said(seen, parts, concepts),
                records,
            )
            for i in progress.track(range(len(encoders)), "Measuring", len(encoders)):
                asked = (judge, seen.pooled[-1]) if judged and judge is not None and not encoders[i].has_text else None
                sources = [item.source for item in seen.items]
                looked = Looked(
                    encoders[i],
                    seen.pooled[i],
                    seen.labels,
                    sources,
                    parts,
                    self.n_concepts,
                    self.grid,
                    texts=tuple(dict.fromkeys(concepts)),
                    judge=asked,
                    layer_norm=self.layer_norm,
                    seed=self.seed,
                    store=store,
                )
                found.append(measuring(names[i], looked, progress))
        if not any(one.libraries for one in found):
            raise DataError(f"Nothing was measured. {progress.notes[-1]}")
        return InterpretabilityFindings(self._data(found, seen, parts, progress))

    def _said(self, seen: Seen, parts: Parts, concepts: Sequence[str]) -> str:
        """What decides a number beside the encoder and the library."""
        own = {k: v for k, v in vars(self).items() if k not in ("libraries", "n_random", "n_draws", "level")}
        sets = [rows.int().tolist() for rows in vars(parts).values()]
        said = [repr(own), list(seen.digests), seen.labels.tolist(), sets, list(concepts)]
        return hashlib.sha256(json.dumps(said).encode("utf-8", "surrogatepass")).hexdigest()

    def _data(self, found: list[EncoderRow], seen: Seen, parts: Parts, progress: Progress) -> dict[str, Any]:
        n_classes = len(set(seen.labels.tolist()))
        # Twice chance would be perfect for two classes.
        floor = min(2 / n_classes, (1 + 1 / n_classes) / 2)
        encoders = encoders_told(found, floor, self.n_draws, self.level, self.seed)
        rows = rows_told(found, self.n_draws, self.level, self.seed)
        data: dict[str, Any] = {
            "study": "interpretability",
            "n": int(parts.test.sum()),
            "n_train": int(parts.train.sum()),
            "n_selection": int(parts.selection.sum()),
            "n_classes": n_classes,
            "chance": round(1 / n_classes, 4),
            "floor": round(floor, 4),
            "sparsities": list(SPARSITIES),
            "encoders": encoders,
            "rows": rows,
            "correlations": correlations(encoders, rows, self.n_draws, self.level, self.seed),
            "settings": {**vars(self), "libraries": list(self.libraries), "training": vars(self.training)},
            "notes": list(dict.fromkeys(progress.notes)),
            "failures": [f.to_json() for f in progress.failures],
        }
        return {"sentence": answer(data), **data}


def _named(encoders: Sequence[Encoder]) -> list[str]:
    """Their names, with the beginning of a fingerprint where two are called alike."""
    names = [one.name for one in encoders]
    found = [f"{n} {e.fingerprint[:6]}" if names.count(n) > 1 else n for n, e in zip(names, encoders, strict=True)]
    if (twice := first_repeated(found)) is not None:
        raise InputError(f"The encoder {twice} was given twice. Different ones were expected. Name each once.")
    return found
