"""Does the held-out figure hold? What ``seewhy fit`` says of new pictures, beside what is so on pictures it never saw.

    python benchmarks/held_out.py train.csv test.csv [train/ test/ ...] [--store looks.sqlite] [--json out.json]

Each pair is class folders or tables. A classifier is fitted twice on the first of a pair, with pictures of the same
thing held out together and at random; each is then evaluated once on the second. Nothing is chosen on the second.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import seewhy
from seewhy.encoders.find import encoder as find
from seewhy.storage.features import FeatureStore

SPLITS = ("grouped", "random")


def rows(train: str, test: str, options: argparse.Namespace, store: FeatureStore) -> Iterator[dict[str, Any]]:
    """One row a split."""
    looker = find(options.encoder)
    for split in SPLITS:
        model = seewhy.fit(train, looker, store=store, split=split, n_crops=options.n_crops, seed=options.seed)
        report = model.evaluate(test, n_explained=0, store=store).data
        said = model.measures
        yield {
            "pictures": Path(train).name,
            "split": split,
            "things": said["split"]["n_groups"],
            "said": said["held_out_accuracy"],
            "interval": said["held_out_interval"],
            "test": report["accuracy"],
            "too high by": round(said["held_out_accuracy"] - report["accuracy"], 4),
            "calibration error, said": said["held_out_calibration_error"],
            "calibration error, test": report["calibration_error"],
        }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", help="training and test pictures, in pairs")
    parser.add_argument("--encoder", default="lite0")
    parser.add_argument("--n-crops", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--store")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    if len(options.folders) % 2:
        parser.error(f"{len(options.folders)} places were given. Pairs of training and test pictures were expected.")
    store = FeatureStore(options.store)
    pairs = zip(options.folders[::2], options.folders[1::2], strict=True)
    found = [row for train, test in pairs for row in rows(train, test, options, store)]
    table = Table(*found[0])
    for row in found:
        table.add_row(*(str(v) for v in row.values()))
    Console().print(table)
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
