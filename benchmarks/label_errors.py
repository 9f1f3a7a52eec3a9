"""Planted label noise on labelled pictures: what each ranker of ``seewhy check`` finds of it.

Labels of a part of the pictures are changed to another class: drawn evenly, or, with ``--others``, as people err. Then
the class is drawn by what a head says on average of other pictures of the true class without having seen them.
Precision and recall are of the pictures flagged; the area under precision and recall is of the order of all pictures;
"repaired" is the part of those found whose proposed label is the true one. Labels that were wrong before count as
right, which lowers every precision alike.

    python benchmarks/label_errors.py ../shared/data/grocery/test --others ../shared/data/grocery/train
    python benchmarks/label_errors.py cells.csv --group smear --encoder lite2 --per-class 4

Cleanlab's rows need ``pip install 'seewhy[cleanlab]'``.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev

import torch

from seewhy.encoders.base import Encoder
from seewhy.encoders.find import encoder
from seewhy.encoders.stream import Encoded, EncodeRequest, encode_stream
from seewhy.errors import MissingExtraError
from seewhy.pictures.samples import Sample, gathered, load_samples
from seewhy.storage.features import FeatureStore
from seewhy.studies.inspection.faults import (
    RANKERS,
    HeldOutScores,
    LabelIssues,
    find_copies,
    held_out_scores,
    joined,
    pixel_facts,
)

PARTS = (0.05, 0.2)
FIGURES = ("flagged", "precision", "recall", "area", "repaired")


@dataclass(frozen=True)
class Data:
    """Pictures that were looked at.

    Attributes:
        items, seen: in the same order.
        classes: of the labels.
        groups: copies, and those of one given group, have the same number.
    """

    items: tuple[Sample, ...]
    seen: list[Encoded]
    classes: tuple[str, ...]
    groups: torch.Tensor

    @property
    def labels(self) -> torch.Tensor:
        return torch.tensor([self.classes.index(s.label) for s in self.items])

    def scores(self, encoder: Encoder, labels: torch.Tensor, seed: int) -> HeldOutScores:
        """As ``seewhy check`` has them, were these the labels."""
        items = [replace(s, label=self.classes[k]) for s, k in zip(self.items, labels.tolist(), strict=True)]
        return held_out_scores(encoder, items, self.seen, self.classes, self.groups, seed)


def looked_at(
    place: Path, encoder: Encoder, columns: tuple[str, str | None], per_class: int | None, most: int | None
) -> Data:
    """Labelled pictures, of each class the first so many in an order drawn once."""
    samples = load_samples(place, label=columns[0], group=columns[1])
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(0)).tolist()
    taken, counts = [], Counter[str]()
    for i in order[:most]:
        counts[samples.items[i].label] += 1
        if per_class is None or counts[samples.items[i].label] <= per_class:
            taken.append(i)
    samples = gathered([samples.items[i] for i in sorted(taken)])
    stream = encode_stream(
        encoder, [s.image for s in samples.items], store=FeatureStore(), request=EncodeRequest(pictures=True)
    )
    items, seen, facts = [], [], []
    for sample, one in zip(samples.items, stream, strict=True):
        if isinstance(one, Encoded) and one.picture is not None:
            facts.append(pixel_facts(one.picture.pixels, one.picture.original_size))
            items.append(sample)
            seen.append(replace(one, picture=None))
    copies = find_copies(torch.stack([one.pooled[0] for one in seen]), facts, [one.digest for one in seen])
    return Data(tuple(items), seen, samples.classes, joined(len(items), copies, [s.group for s in items]))


def even(n_classes: int) -> torch.Tensor:
    """Where a label goes when it goes anywhere alike."""
    return 1 - torch.eye(n_classes)


def confusable(others: Data, encoder: Encoder, classes: Sequence[str]) -> torch.Tensor:
    """Where a label goes when people err: what a held-out head gives each class, a row for each true one.

    A class that the other pictures lack is confused with all alike.
    """
    scores = others.scores(encoder, others.labels, 0)
    found = even(len(classes)) / (len(classes) - 1)
    place = [classes.index(c) if c in classes else -1 for c in others.classes]
    columns = torch.tensor([j for j, to in enumerate(place) if to >= 0])
    to = torch.tensor(place)[columns]
    for k, row in enumerate(place):
        own = (scores.labels == k) & scores.judged
        if row >= 0 and bool(own.any()):
            found[row] = 1e-6
            found[row, to] += scores.probabilities[own].mean(0)[columns]
    return found.fill_diagonal_(0)


def noisy(labels: torch.Tensor, to: torch.Tensor, part: float, seed: int) -> torch.Tensor:
    """The labels, a part of them moved to another class, drawn by the row of ``to``."""
    draw = torch.Generator().manual_seed(seed)
    moved = torch.randperm(len(labels), generator=draw)[: round(part * len(labels))]
    return labels.index_copy(0, moved, torch.multinomial(to[labels[moved]], 1, generator=draw)[:, 0])


def average_precision(doubt: torch.Tensor, wrong: torch.Tensor) -> float:
    """Area under precision and recall, by steps."""
    hit = wrong[doubt.argsort(descending=True, stable=True)].double()
    return float((hit * hit.cumsum(0) / torch.arange(1, len(hit) + 1)).sum() / hit.sum())


def figures(found: LabelIssues, wrong: torch.Tensor, truth: torch.Tensor) -> dict[str, float]:
    both = found.flagged & wrong
    return {
        "flagged": float(found.flagged.sum()),
        "precision": float(both.sum()) / max(1, int(found.flagged.sum())),
        "recall": float(both.sum()) / int(wrong.sum()),
        "area": average_precision(found.doubt, wrong),
        "repaired": float((found.proposed[both] == truth[both]).double().mean()) if bool(both.any()) else 0.0,
    }


def planted(
    data: Data, encoder: Encoder, noise: dict[str, torch.Tensor], seeds: int
) -> Iterator[tuple[str, float, int, torch.Tensor, HeldOutScores]]:
    """Kind of noise, part moved, seed, labels with noise, and what held-out heads say of them."""
    for kind, to in noise.items():
        for part in PARTS:
            for seed in range(seeds):
                labels = noisy(data.labels, to, part, seed)
                yield kind, part, seed, labels, data.scores(encoder, labels, seed)


def main() -> None:
    given = _arguments()
    eyes = encoder(given.encoder)
    data = looked_at(given.data, eyes, (given.label_column, given.group), given.per_class, given.most)
    truth, noise = data.labels, {"even": even(len(data.classes))}
    if given.others is not None:
        others = looked_at(given.others, eyes, (given.label_column, given.group), None, given.most)
        noise["as people err"] = confusable(others, eyes, data.classes)
    clean = data.scores(eyes, truth, 0)
    print(f"{len(truth)} pictures, {len(data.classes)} classes, a held-out head is right in {clean.accuracy:.3f}")
    rows: dict[tuple[str, float, str], list[dict[str, float]]] = {}
    for kind, part, seed, labels, scores in planted(data, eyes, noise, given.seeds):
        for name, one in RANKERS.items():
            try:
                found = figures(one(scores), labels != truth, truth)
            except MissingExtraError as error:
                print(error, flush=True)
                continue
            rows.setdefault((kind, part, name), []).append(found)
            print(json.dumps({"noise": kind, "part": part, "seed": seed, "by": name, **found}), flush=True)
    print("\n| noise | moved | by | " + " | ".join(FIGURES) + " |\n|---|---|---|" + "---|" * len(FIGURES))
    for (kind, part, name), found in rows.items():
        cells = [_cell([row[figure] for row in found], figure) for figure in FIGURES]
        print(f"| {kind} | {part:.0%} | {name} | " + " | ".join(cells) + " |")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="class folders, or a table")
    parser.add_argument("--others", type=Path, help="other pictures of the same classes, whose confusions are planted")
    parser.add_argument("--encoder", default="lite0")
    parser.add_argument("--label-column", default="label")
    parser.add_argument("--group", help="a table's column that says which pictures belong together")
    parser.add_argument("--per-class", type=int, help="at most so many of each class")
    parser.add_argument("--most", type=int, help="at most so many pictures")
    parser.add_argument("--seeds", type=int, default=3)
    return parser.parse_args()


def _cell(values: list[float], figure: str) -> str:
    spread = stdev(values) if len(values) > 1 else 0.0
    return f"{mean(values):.0f}" if figure == "flagged" else f"{mean(values):.2f} ± {spread:.2f}"


if __name__ == "__main__":
    main()
