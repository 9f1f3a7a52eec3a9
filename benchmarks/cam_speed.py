"""The CAM family beside pytorch-grad-cam, in one run: what a map costs, and whether it is the same map.

Inner layers: both sides take the same network in eager torch and the same layer; ours is :mod:`seewhy.compat`, which
cuts the graph at the layer. "At most" is the peer beside a plain forward pass, which every map needs. Ablation-CAM: the
same network and layer; only what lies behind the layer runs again. Score-CAM: both sides mask the same pictures with
the same channels of lite0; ours runs in the engine, and a labelled variant with fewer masks is measured beside it. The
last layer: a prediction with its map, by the engine and by torch.

    python benchmarks/cam_speed.py
    python benchmarks/cam_speed.py --only inner --batch 32 --json
    python benchmarks/cam_speed.py --threads 1

On a busy machine two threads wait for each other at every small operation, which costs the short side most.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from contextlib import redirect_stderr
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_grad_cam as peers
import timm
import torch
from files_to_embeddings import read_pictures
from pytorch_grad_cam.utils.image import scale_cam_image
from rich.console import Console
from rich.table import Table
from side_by_side import in_turn, ratios
from torch import Tensor, nn

from seewhy import compat
from seewhy.attributions.grad_cam import GradCAM
from seewhy.attributions.score_cam import ScoreCAM
from seewhy.classifiers.unfitted import Pretrained
from seewhy.encoders.find import encoder as load_encoder
from seewhy.heads.head import Target

Maps = Callable[[], np.ndarray]


def silently(call: Maps) -> Maps:
    """Without the peer's progress bars, which cannot be turned off."""

    def quiet() -> np.ndarray:
        with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):
            return call()

    return quiet


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """The least of the pictures, over maps that are not empty."""
    pairs = [(x.ravel(), y.ravel()) for x, y in zip(a, b, strict=True) if x.std() > 0 and y.std() > 0]
    return min(float(np.corrcoef(x, y)[0, 1]) for x, y in pairs)


def shown(maps: Tensor, like: np.ndarray) -> np.ndarray:
    """Our maps as the peer shows its own."""
    return scale_cam_image(maps.relu().numpy(), (like.shape[2], like.shape[1]))


def noise(batch: int) -> Tensor:
    coarse = torch.randn(batch, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    return nn.functional.interpolate(coarse, (224, 224), mode="bicubic").contiguous()


def compare(
    what: str, peer: Maps, ours: dict[str, Maps], rounds: int, floor: Callable[[], Any] | None = None
) -> list[dict[str, Any]]:
    """Rows of the table: one for each of our ways, beside the peer; ``floor`` is what no way can do without."""
    theirs = peer()
    found = {name: call() for name, call in ours.items()}
    least: dict[str, Callable[[], Any]] = {"floor": floor} if floor else {}
    # Ours is so short that one run a round would be mostly noise.
    times = in_turn({"peer": peer, **ours, **least}, rounds, ["peer", *[*ours, *least] * 3])
    return [
        {
            "what": what,
            "ours": name,
            "peer_s": round(times["peer"].median, 3),
            "ours_s": round(times[name].median, 3),
            "faster": times["peer"].over(times[name]),
            "at_most": times["peer"].over(times["floor"]) if floor else None,
            "correlation": round(correlation(theirs, found[name]), 7),
        }
        for name in ours
    ]


def inner(batch: int, rounds: int, only: str | None = None) -> list[dict[str, Any]]:
    """ResNet-50 and a small ViT with random weights."""
    torch.manual_seed(0)
    resnet, vit = timm.create_model("resnet50").eval(), timm.create_model("vit_small_patch16_224").eval()

    def to_grid(tokens: Tensor) -> Tensor:
        return tokens[:, 1:].transpose(1, 2).unflatten(2, (14, 14))

    cases = [
        ("resnet50 layer4", resnet, resnet.layer4[-1], None),
        ("resnet50 layer3", resnet, resnet.layer3[-1], None),
        ("vit_small blocks.11.norm1", vit, vit.blocks[-1].norm1, to_grid),
        ("vit_small blocks.8", vit, vit.blocks[8], to_grid),
    ]
    rows = []
    pixels = noise(batch)
    for what, model, layer, reshape in cases:
        if only and not what.startswith(only):
            continue
        with peers.GradCAM(model, [layer], reshape_transform=reshape) as cam:
            mine: dict[str, Maps] = {"torch": partial(compat.GradCAM(model, [layer]), pixels)}
            alone = torch.no_grad()(partial(model, pixels))
            rows += compare(f"{what}, batch {batch}", partial(cam, pixels, None), mine, rounds, alone)
        model.zero_grad(set_to_none=True)
    return rows


def ablation(rounds: int) -> list[dict[str, Any]]:
    torch.manual_seed(0)
    model = timm.create_model("resnet18").eval()
    pixels, layer = noise(1), model.layer4[-1]
    with peers.AblationCAM(model, [layer], batch_size=32) as cam:
        mine = compat.AblationCAM(model, [layer], batch_size=256)
        peer = silently(lambda: cam(pixels, None))
        return compare("AblationCAM resnet18, 1 picture", peer, {"torch": lambda: mine(pixels)}, rounds)


def lite0(batch: int, pictures: Path | None, engine: str) -> tuple[Any, nn.Module, Tensor, Tensor]:
    encoder = load_encoder("lite0", engine=engine)
    module = load_encoder("lite0", engine="torch").module.requires_grad_(True)
    model = Pretrained().build(encoder)
    pixels = read_pictures(pictures, batch, encoder)
    return model, module, pixels, model.probabilities(pixels).argmax(1)


def last(batch: int, rounds: int, pictures: Path | None, engine: str) -> list[dict[str, Any]]:
    """A prediction with its Grad-CAM map."""
    model, module, pixels, classes = lite0(batch, pictures, engine)
    eager = Pretrained().build(load_encoder("lite0", engine="torch"))
    targets = [compat.ClassifierOutputTarget(int(c)) for c in classes]
    with peers.GradCAM(module, [module.bn2]) as cam:
        theirs = cam(pixels, targets)

        def by(classifier: Any) -> Maps:
            return lambda: shown(GradCAM()(classifier, classifier.encoder.encode(pixels), Target(classes)), theirs)

        ours = {model.encoder.engine.name: by(model), "torch": by(eager)}
        return compare(f"Grad-CAM lite0 last map, batch {batch}", lambda: cam(pixels, targets), ours, rounds)


def score(rounds: int, pictures: Path | None, engine: str, n_masks: int) -> list[dict[str, Any]]:
    model, module, pixels, classes = lite0(1, pictures, engine)
    targets = [compat.ClassifierOutputTarget(int(c)) for c in classes]
    look = model.encoder.encode(pixels)
    with peers.ScoreCAM(module, [module.bn2]) as cam:
        cam.batch_size = 32
        like = np.empty((1, 224, 224))

        def by(n: int) -> Maps:
            return lambda: shown(ScoreCAM(n_masks=n)(model, look, Target(classes)), like)

        peer = silently(lambda: cam(pixels, targets))
        ours = {model.encoder.engine.name: by(0), f"{model.encoder.engine.name}, {n_masks} masks": by(n_masks)}
        return compare("Score-CAM lite0, 1 picture", peer, ours, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("inner", "ablation", "score", "last"), help="one part of it")
    parser.add_argument("--engine", default="auto", help="of our side where it says so")
    parser.add_argument("--batch", type=int, default=8, help="pictures in a batch")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds; Score-CAM and Ablation-CAM take one")
    parser.add_argument("--threads", type=int, help="of torch, for both; 1 where other programs are running")
    parser.add_argument("--network", choices=("resnet50", "vit_small"), help="of the inner layers; both if left out")
    parser.add_argument("--n-masks", type=int, default=256, help="of the labelled Score-CAM variant")
    parser.add_argument("--pictures", type=Path, help="a folder of photographs; smooth noise where none is given")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    parts: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "last": lambda: last(options.batch, options.rounds, options.pictures, options.engine),
        "inner": lambda: inner(options.batch, options.rounds, options.network),
        "ablation": lambda: ablation(1),
        "score": lambda: score(1, options.pictures, options.engine, options.n_masks),
    }
    rows = [row for name, part in parts.items() if options.only in (None, name) for row in part()]
    if options.json:
        print(json.dumps({"threads": torch.get_num_threads(), "rows": rows}, indent=2))
        return
    table = Table("", "ours by", "pytorch-grad-cam s", "ours s", "faster by", "at most", "least correlation")
    for r in rows:
        table.add_row(
            r["what"],
            r["ours"],
            f"{r['peer_s']}",
            f"{r['ours_s']}",
            ratios(r["faster"]),
            ratios(r["at_most"]) if r["at_most"] else "",
            f"{r['correlation']:.6f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
