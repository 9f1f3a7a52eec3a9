"""Grad-CAM at layers inside a ResNet-50 and a small ViT, from files, beside pytorch-grad-cam; and whether maps agree.

SeeWhy: ``classifier.explain_all(files, layer=…, measure=False)`` on ``timm:FOLDER``, random weights in timm's format.
The peer runs as its README has it, frozen, and with one layer open, which is the least it can do. Everything starts
from file names. SeeWhy gives a prediction, lettered regions and the map; the peers a class and the map.

    python benchmarks/inner_layers.py
    python benchmarks/inner_layers.py --only vit --n 32 --rounds 3 --threads 1 --json
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import grad_cam_peers as peers
import timm
import torch
from files_to_embeddings import SMALL, make_photographs
from rich.console import Console
from rich.table import Table
from side_by_side import in_turn, keep_memory, ratios
from torch import Tensor, nn

import seewhy
from seewhy.classifiers.base import Classifier
from seewhy.explanation.base import Explanation, Where
from seewhy.pictures.sources import list_pictures


def to_grid(tokens: Tensor) -> Tensor:
    return tokens[:, 1:].transpose(1, 2).unflatten(2, (14, 14))


CASES = {
    "resnet50 layer4.2": ("resnet50", "layer4.2", None),
    "resnet50 layer3.5": ("resnet50", "layer3.5", None),
    "vit_small blocks.10": ("vit_small_patch16_224", "blocks.10", to_grid),
    "vit_small blocks.8": ("vit_small_patch16_224", "blocks.8", to_grid),
}


def explain(classifier: Classifier, layer: str, names: Sequence[str]) -> tuple[Tensor, Tensor]:
    """The public call; classes and maps are only taken out to be compared."""
    found = [
        one
        for one in classifier.explain_all(names, where="grad_cam", layer=layer, measure=False)
        if isinstance(one, Explanation)
    ]
    classes = torch.tensor([classifier.index_of(one.prediction.label) for one in found])
    return classes, torch.stack([torch.from_numpy(one.where.heat) for one in found if isinstance(one.where, Where)])


def case(name: str, folder: Path, names: Sequence[str], engine: str, rounds: int) -> dict[str, Any]:
    architecture, layer, reshape = CASES[name]
    torch.manual_seed(0)
    module = timm.create_model(architecture, pretrained=False).eval()
    if not folder.exists():
        timm.models.save_for_hf(module, folder, safe_serialization=True)
    classifier = seewhy.pretrained(seewhy.encoder(f"timm:{folder}", engine=engine))

    def peer(tuned: str, workers: int) -> peers.Explain:
        own = timm.create_model(architecture, pretrained=False).eval()
        own.load_state_dict(module.state_dict())
        part: nn.Module = own.get_submodule(layer)
        return peers.pytorch_grad_cam(own, part, tuned=tuned, reshape=reshape, workers=workers)

    others = {
        "README": peer("", 0),
        "frozen": peer("frozen", 0),
        "one layer open": peer("one layer open", 0),
    }
    mine = explain(classifier, layer, names)
    answers = {n: peers.agreement(mine, call(names)) for n, call in others.items()}
    programs: dict[str, Callable[[], Any]] = {
        "SeeWhy": partial(explain, classifier, layer, names),
        **{n: partial(call, names) for n, call in others.items()},
    }
    times = in_turn(programs, rounds, ["SeeWhy", *others, "SeeWhy"])
    return {
        "case": name,
        "engine": classifier.provenance()["engine"],
        "files": len(names),
        "rounds": rounds,
        "seconds": {n: t.to_json() for n, t in times.items()},
        "times_faster": {n: times[n].over(times["SeeWhy"]) for n in others},
        "answers": answers,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cases that begin so")
    parser.add_argument("--engine", default="auto", help="of SeeWhy")
    parser.add_argument("--n", type=int, default=16, help="files")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, help="of torch, for all; 1 where other programs are running")
    parser.add_argument("--pictures", type=Path, help="a folder of photographs; made from samples where none is given")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    options = parser.parse_args()
    keep_memory()
    if options.threads:
        torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as made:
        if options.pictures is None:
            names = [str(p) for p in make_photographs(Path(made), options.n, SMALL)]
        else:
            names = [str(p) for p in list_pictures(options.pictures)][: options.n]
        rows = [
            case(name, Path(made) / CASES[name][0], names, options.engine, options.rounds)
            for name in CASES
            if name.startswith(options.only)
        ]
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    table = Table(
        "", "beside pytorch-grad-cam", "CPU s: theirs, ours", "SeeWhy is faster by", "same class, correlation"
    )
    for row in rows:
        for n, faster in row["times_faster"].items():
            found, seconds = row["answers"][n], row["seconds"]
            both = f"{seconds[n]['cpu_median']:.2f}, {seconds['SeeWhy']['cpu_median']:.2f}"
            same = f"{found['same_class']}/{row['files']}, ≥ {found['least_correlation']}"
            table.add_row(f"{row['case']}, {row['engine']}", n, both, ratios(faster), same)
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
