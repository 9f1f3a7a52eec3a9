"""From labelled photographs to a classifier: `seewhy.fit` beside a DataLoader and scikit-learn.

The peer is what those write who know both: every picture once as it is and eight (or `--crops`) times as a random crop
or its mirror, decoded once for all of its views by two processes, timm's network frozen and channels last, then
scikit-learn's LogisticRegression, C chosen among five on a quarter held out, and fitted again to everything.
`seewhy.fit` does this and more: it also finds which pictures show the same thing, measures on all of them held out,
calibrates, and keeps patches for cards.

    python benchmarks/fit_speed.py PHOTOS TEST [--n 320] [--crops 8] [--rounds 3] [--json out.json]

PHOTOS and TEST are class folders or tables; both classifiers are compared on TEST.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from side_by_side import in_turn, ratios
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import Compose, Normalize, RandomHorizontalFlip, RandomResizedCrop, ToTensor

import seewhy

OURS, THEIRS = "seewhy.fit", "DataLoader, timm, scikit-learn"
CS = (0.1, 1.0, 10.0, 100.0, 1000.0)
PER_BATCH = 8
"""Pictures, each with its nine views."""


class Views(Dataset[Tensor]):
    """Each picture as it is and in random crops."""

    def __init__(self, files: Sequence[str], module: torch.nn.Module, n_crops: int) -> None:
        how = timm.data.resolve_model_data_config(module)
        self.files, self.n_crops = files, n_crops
        self.plain = timm.data.create_transform(**how, is_training=False)
        norm = Normalize(how["mean"], how["std"])
        self.crop = Compose([RandomResizedCrop(how["input_size"][1:]), RandomHorizontalFlip(), ToTensor(), norm])

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        picture = Image.open(self.files[index]).convert("RGB")
        return torch.stack([self.plain(picture), *(self.crop(picture) for _ in range(self.n_crops))])


def features(module: torch.nn.Module, files: Sequence[str], n_crops: int) -> np.ndarray:
    """Of every view, ``(n, views, d)``."""
    loader = DataLoader(Views(files, module, n_crops), batch_size=PER_BATCH, num_workers=2)
    found = []
    with torch.inference_mode():
        for views in loader:
            pixels = views.flatten(0, 1).contiguous(memory_format=torch.channels_last)
            pooled = module.forward_head(module.forward_features(pixels), pre_logits=True)
            found.append(pooled.unflatten(0, views.shape[:2]))
    return torch.cat(found).numpy()


def peer(module: torch.nn.Module, samples: seewhy.Samples, n_crops: int) -> Callable[[Sequence[str]], list[str]]:
    """Fits; what comes back classifies files."""
    x = features(module, [s.image for s in samples.items], n_crops)
    x /= np.linalg.norm(x, axis=2, keepdims=True)
    y = np.array([s.label for s in samples.items])

    def fitted(rows: np.ndarray, c: float) -> LogisticRegression:
        return LogisticRegression(C=c, max_iter=1000).fit(x[rows].reshape(-1, x.shape[2]), y[rows].repeat(x.shape[1]))

    some, rest = train_test_split(np.arange(len(y)), test_size=0.25, random_state=0)
    best = max(CS, key=lambda c: float(fitted(some, c).score(x[rest, 0], y[rest])))
    model = fitted(np.arange(len(y)), best)

    def classify(files: Sequence[str]) -> list[str]:
        seen = features(module, files, 0)[:, 0]
        return list(model.predict(seen / np.linalg.norm(seen, axis=1, keepdims=True)))

    return classify


def part(samples: seewhy.Samples, n: int) -> seewhy.Samples:
    """``n`` of them, spread over the list."""
    chosen = np.linspace(0, len(samples.items) - 1, min(n, len(samples.items))).round().astype(int)
    return seewhy.Samples(tuple(samples.items[i] for i in chosen), samples.classes)


def run(photos: str, test: str, n: int, n_crops: int, rounds: int) -> dict[str, Any]:
    train, held = part(seewhy.load_samples(photos), n), seewhy.load_samples(test)
    encoder = seewhy.encoder("lite0")
    module = seewhy.encoder("lite0", engine="torch").module.to(memory_format=torch.channels_last)
    files, truth = [s.image for s in held.items], [s.label for s in held.items]
    seewhy.fit(part(train, 2 * len(train.classes)), encoder)  # warm, and the engine's conversion kept
    made: dict[str, Callable[[Sequence[str]], list[str]]] = {}

    def ours() -> None:
        model = seewhy.fit(train, encoder, n_crops=n_crops)
        made[OURS] = lambda names: [p.label for p in model.predict(names)]

    def theirs() -> None:
        made[THEIRS] = peer(module, train, n_crops)

    times = in_turn({THEIRS: theirs, OURS: ours}, rounds)
    right = {name: float(np.mean([a == b for a, b in zip(made[name](files), truth, strict=True)])) for name in made}
    return {
        "pictures": len(train.items),
        "seconds": {name: t.to_json() for name, t in times.items()},
        "times as fast": times[THEIRS].over(times[OURS]),
        "right on the test pictures": right,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos")
    parser.add_argument("test")
    parser.add_argument("--n", type=int, default=320)
    parser.add_argument("--crops", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = run(options.photos, options.test, options.n, options.crops, options.rounds)
    table = Table("program", "seconds", "CPU seconds", "right on the test pictures", box=None)
    for name, t in found["seconds"].items():
        right = found["right on the test pictures"][name]
        table.add_row(name, f"{t['median']:.1f}", f"{t['cpu_median']:.1f}", f"{right:.1%}")
    Console().print(table)
    print(f"{found['pictures']} pictures; times as fast: {ratios(found['times as fast'])}")
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
