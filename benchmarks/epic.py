"""How many pictures EPIC's rotation takes: purity on pictures held out, and time.

    python benchmarks/epic.py MODEL PICTURES TEST [--sizes 60,120,240,480] [--json out.json]

Purity is that of the five strongest test pictures of every channel. ``--sizes`` fits to so many pictures and gives the
gain with its interval. The paper's optimiser is compared in ``reproductions/epic.py``.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import seewhy
from seewhy.classifiers.base import Classifier
from seewhy.encoders.stream import Encoded, EncodeRequest, encode_stream
from seewhy.pictures.sources import list_pictures
from seewhy.progress import Progress
from seewhy.prototypes.cells import CellMaps, cells_of
from seewhy.prototypes.epic.rotation import Matrix
from seewhy.prototypes.epic.training import choose, compare
from seewhy.storage.features import FeatureStore


def cells(model: Classifier, folder: Path, seed: int = 0) -> CellMaps:
    """The cells of a folder's pictures, in random order."""
    names = list(list_pictures([folder]))
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed)).tolist()
    maps: CellMaps | None = None
    stream = encode_stream(
        model.encoder, [names[i] for i in order], store=FeatureStore(), request=EncodeRequest(features=lambda _i: True)
    )
    for i, seen in enumerate(stream):
        assert isinstance(seen, Encoded)
        assert seen.features is not None
        found = cells_of(model, seen.features[None])[0].flatten(1).T
        maps = maps or CellMaps((len(names), *found.shape))
        maps[i] = found
    assert maps is not None
    return maps


def ours(train: CellMaps, n: int) -> tuple[Matrix, dict[str, Any]]:
    """Its setting chosen on a fifth of the first ``n`` pictures, then fitted to all of them."""
    begun = time.process_time()
    found = choose(train.part(range(n * 4 // 5)), train.part(range(n * 4 // 5, n)), {}, Progress())
    found = found.refitted(train.part(range(n)))
    seconds = time.process_time() - begun
    return found.rotation, {"seconds": round(seconds, 1), "setting": found.setting(train.pooled.shape[1])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="A saved classifier, or the name of an encoder.")
    parser.add_argument("pictures", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("--sizes", default="", help="Numbers of pictures to fit to, separated by commas.")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    folder = Path(arguments.model)
    model = seewhy.load(folder) if folder.is_dir() else seewhy.pretrained(arguments.model)
    train, test = cells(model, arguments.pictures), cells(model, arguments.test)
    rows = []
    rotation, about = ours(train, len(train))
    rows.append({"optimiser": "Procrustes, ours", "pictures": len(train), **about, **compare(test, rotation, 0)})
    for n in (int(part) for part in arguments.sizes.split(",") if part):
        rotation, about = ours(train, n)
        rows.append({"optimiser": "Procrustes, ours", "pictures": n, **about, **compare(test, rotation, 0)})
        print(json.dumps(rows[-1]), flush=True)
    show(rows)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


def show(rows: list[dict[str, Any]]) -> None:
    names = ("optimiser", "pictures", "seconds", "before", "purity", "random", "gain", "gain_interval")
    table = Table(*names)
    for row in rows:
        table.add_row(*(str(row[name]) for name in names))
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
