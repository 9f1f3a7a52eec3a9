"""Planted label noise on photographs of groceries: what each ranker of ``seewhy check`` finds of it.

Labels of a part of the pictures are changed to another class, drawn evenly. Precision and recall are of the pictures
flagged; the area under precision and recall is of the order of all pictures; "repaired" is the part of those found
whose proposed label is the true one. Labels that were wrong before count as right, which lowers every precision alike.

    python benchmarks/label_errors.py ../shared/data/grocery/test          # cleanlab: pip install 'seewhy[cleanlab]'
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

import torch

from seewhy.encoders.find import encoder
from seewhy.encoders.stream import Encoded, encode_stream
from seewhy.errors import MissingExtraError
from seewhy.inspection.label_errors import RANKERS, LabelIssues, held_out_scores
from seewhy.pictures.samples import load_samples
from seewhy.storage.features import FeatureStore

PARTS = (0.05, 0.2)
FIGURES = ("flagged", "precision", "recall", "area", "repaired")


def noisy(labels: torch.Tensor, n_classes: int, part: float, seed: int) -> torch.Tensor:
    """The labels, a part of them moved to another class."""
    draw = torch.Generator().manual_seed(seed)
    moved = torch.randperm(len(labels), generator=draw)[: round(part * len(labels))]
    shift = torch.randint(1, n_classes, (len(moved),), generator=draw)
    return labels.index_copy(0, moved, (labels[moved] + shift) % n_classes)


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    samples, looks = load_samples(given.data), encoder("lite0")
    stream = encode_stream(looks, [s.image for s in samples.items], store=FeatureStore())
    seen = [one for one in stream if isinstance(one, Encoded)]
    items = list(samples.items)
    truth = torch.tensor([samples.classes.index(s.label) for s in items])
    rows: dict[tuple[float, str], list[dict[str, float]]] = {}
    for part in PARTS:
        for seed in range(given.seeds):
            labels = noisy(truth, len(samples.classes), part, seed)
            moved = [replace(s, label=samples.classes[k]) for s, k in zip(items, labels.tolist(), strict=True)]
            scores = held_out_scores(looks, moved, seen, samples.classes, torch.arange(len(items)), seed)
            for name, one in RANKERS.items():
                try:
                    found = figures(one(scores), labels != truth, truth)
                except MissingExtraError as error:
                    print(error, flush=True)
                    continue
                rows.setdefault((part, name), []).append(found)
                print(json.dumps({"part": part, "seed": seed, "by": name, **found}), flush=True)
    print("\n| noise | by | " + " | ".join(FIGURES) + " |\n|---|---|" + "---|" * len(FIGURES))
    for (part, name), found in rows.items():
        cells = [_cell([row[figure] for row in found], figure) for figure in FIGURES]
        print(f"| {part:.0%} | {name} | " + " | ".join(cells) + " |")


def _cell(values: list[float], figure: str) -> str:
    spread = stdev(values) if len(values) > 1 else 0.0
    return f"{mean(values):.0f}" if figure == "flagged" else f"{mean(values):.2f} ± {spread:.2f}"


if __name__ == "__main__":
    main()
