"""The linear recipe beside a plain linear probe on the Grocery Store data (Klasson et al. 2019, arXiv 1901.00711).

    git clone https://github.com/marcusklasson/GroceryStoreDataset
    python benchmarks/grocery.py GroceryStoreDataset/dataset [--store looks.sqlite] [--json out.json]

Natural photographs from shops in 81 fine and 43 coarse classes, with the authors' own lists: 2,640 to train on, 296 to
choose on, 2,485 to test on. Photographs of one visit are near-duplicates, so a split inside the training list flatters
every C alike; both rows choose C and temperature on the validation list. The plain probe is logistic regression on the
pooled features of the centre crop, as they are. The test list is looked at once, after everything is chosen.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import seewhy
from seewhy.classifiers.linear.jitter import CROPS, predict_views
from seewhy.encoders.find import encoder as find
from seewhy.pictures.samples import Sample, Samples
from seewhy.storage.features import FeatureStore

RECIPES: dict[str, dict[str, Any]] = {"plain probe": {"n_crops": 0, "power": 1.0, "l2": False}, "SeeWhy": {}}
LEVELS = {"fine": "Class Name (str)", "coarse": "Coarse Class Name (str)"}
IDS = {"fine": "Class ID (int)", "coarse": "Coarse Class ID (int)"}


def read_list(folder: Path, part: str, level: str) -> Samples:
    """One of the authors' lists, ``path, fine id, coarse id``, with the names of the classes."""
    with open(folder / "classes.csv", newline="", encoding="utf-8") as file:
        names = {row[IDS[level]]: row[LEVELS[level]] for row in csv.DictReader(file)}
    items = []
    for line in (folder / f"{part}.txt").read_text("utf-8").splitlines():
        path, fine, coarse = (field.strip() for field in line.rsplit(",", 2))
        items.append(Sample(str(folder / path), names[fine if level == "fine" else coarse]))
    return Samples(tuple(items), tuple(sorted({s.label for s in items})))


def rows(folder: Path, encoder: str, store: FeatureStore) -> Iterator[dict[str, Any]]:
    """Everything is fitted before anything is tested."""
    looker = find(encoder)
    fitted = []
    for level in LEVELS:
        train, validation = read_list(folder, "train", level), read_list(folder, "val", level)
        for name, parameters in RECIPES.items():
            start = time.perf_counter()
            model = seewhy.fit(train, looker, validation=validation, store=store, **parameters)
            fitted.append((level, name, model, time.perf_counter() - start))
    for level, name, model, seconds in fitted:
        for crops in CROPS:
            part = read_list(folder, "test", level)
            report = model.evaluate(part, n_explained=0, store=store, views=predict_views(crops)).data
            yield {
                "classes": level,
                "recipe": name,
                "test views": crops,
                "C": model.measures["C"],
                "validation accuracy, center": model.measures["held_out_accuracy"],
                "test accuracy": report["accuracy"],
                "test interval": report["accuracy_interval"],
                "calibration error": report["calibration_error"],
                "likeness precision": None if model.likeness is None else round(model.likeness.precision, 4),
                "fit seconds, with looking": round(seconds, 1),
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="The data set's folder, with train.txt, val.txt and test.txt.")
    parser.add_argument("--encoder", default="lite0")
    parser.add_argument("--store", type=Path, help="Where looks are kept; left out, SeeWhy's own store.")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found = list(rows(arguments.folder, arguments.encoder, FeatureStore(arguments.store)))
    table = Table(*found[0])
    for row in found:
        table.add_row(*(str(v) for v in row.values()))
    Console(width=180).print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
