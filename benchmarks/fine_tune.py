"""Fine-tuning beside the frozen default and a plain loop, on official test lists or on folders.

    git clone https://github.com/marcusklasson/GroceryStoreDataset
    python benchmarks/fine_tune.py GroceryStoreDataset/dataset --validation [--set epochs=6] [--json out.json]
    python benchmarks/fine_tune.py PHOTOS --per-class 5 15 40 --seeds 0 1 2

The folder has the Grocery Store lists, or class folders in ``train/`` and ``test/``. The test pictures are looked at
after everything is fitted: in one view each, and in twelve (``12 views``), whose logits are averaged. ``plain`` is what
one writes by hand: a new last layer, AdamW with 3e-4 (network) and 3e-3 (layer), one-cycle, random crops of .35 to 1,
flips, slight changes of colour, label smoothing .1, batch norms as they are, six passes; it learns from all pictures,
as it measures nothing. Differences from the frozen default are paired by picture, of one view.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from grocery import read_list
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import seewhy
from seewhy.classifiers.base import Classifier
from seewhy.classifiers.linear.jitter import CROPS, predict_views
from seewhy.encoders.base import Encoder
from seewhy.encoders.find import encoder as find
from seewhy.metrics.calibration import accuracy_interval
from seewhy.pictures.images import read_views
from seewhy.pictures.samples import Sample, Samples, load_samples
from seewhy.progress import Progress
from seewhy.training.augmentation import Augmentation, TrainingPictures
from seewhy.training.batches import TrainingData
from seewhy.training.loop import Training, train
from seewhy.training.task import Supervised
from seewhy.types import Failure

PLAIN = Augmentation(scale=(0.35, 1.0), brightness=0.2, contrast=0.2, saturation=0.2, hue=0.0, grey=0.0, blur=(0.0,))


def drawn(samples: Samples, n: int | None, seed: int) -> Samples:
    """Up to ``n`` pictures of each class."""
    if n is None:
        return samples
    by_class: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples.items:
        by_class[sample.label].append(sample)
    draw = random.Random(seed)
    some = [s for own in by_class.values() for s in draw.sample(own, min(n, len(own)))]
    return Samples(tuple(some), samples.classes)


class Plain(nn.Module):
    def __init__(self, encoder: Encoder, n_classes: int) -> None:
        super().__init__()
        self.trunk, self.pool = copy.deepcopy(encoder.trunk), copy.deepcopy(encoder.head)
        with torch.no_grad():
            width = self.pool(self.trunk(torch.zeros(1, 3, *encoder.transform.input_size))).shape[1]
        self.last = nn.Linear(width, n_classes)

    def train(self, mode: bool = True) -> Plain:
        return super().train(False)

    def forward(self, pixels: Tensor) -> Tensor:
        scores: Tensor = self.last(self.pool(self.trunk(pixels)))
        return scores


def plain(encoder: Encoder, samples: Samples, seed: int, epochs: int = 6) -> Plain:
    torch.manual_seed(seed)
    network = Plain(encoder, len(samples.classes)).requires_grad_(True)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    labels = torch.tensor([samples.classes.index(s.label) for s in samples.items])
    read = TrainingPictures(encoder, [s.source for s in samples.items], None, Progress(), augmentation=PLAIN)
    data = TrainingData(len(labels), {"pixels": read, "labels": labels})
    steps = epochs * data.steps_per_epoch(min(32, len(labels)))
    how = Training(steps, 32, lr=3e-4, weight_decay=0.02, part_lr=(("network.last.", 10.0),), seed=seed)
    train(Supervised(network, 0.1), data, how)
    return network.eval()


@torch.no_grad()
def plain_right(network: Plain, encoder: Encoder, test: Samples, crops: str) -> Tensor:
    labels = torch.tensor([test.classes.index(s.label) for s in test.items])
    chosen = (predict_views(crops) or (lambda _index: [None]))(0)
    read = (read_views(s.image, encoder.transform, chosen) for s in test.items)
    scores = [network(encoder.pixels([view.pixels for view in views])).mean(0) for views in read]
    return torch.stack(scores).argmax(1) == labels


def right_of(model: Classifier, test: Samples, crops: str) -> Tensor:
    found = model.predict_all([s.image for s in test.items], views=predict_views(crops))
    pairs = zip(found, test.items, strict=True)
    return torch.tensor([not isinstance(p, Failure) and p.label == s.label for p, s in pairs])


def rows(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    folder, encoder = arguments.folder, find(arguments.encoder)
    lists = (folder / "train.txt").is_file()
    whole = read_list(folder, "train", "fine") if lists else load_samples(folder / "train")
    validation = read_list(folder, "val", "fine") if lists and arguments.validation else None
    settings = dict(each.split("=") for each in arguments.set)
    fitted = []
    for n in arguments.per_class or [None]:
        for seed in arguments.seeds:
            samples = drawn(whole, n, seed)
            for method in arguments.methods:
                start, cpu = time.perf_counter(), time.process_time()
                if method == "plain":
                    made: Any = plain(find(arguments.encoder, engine="torch"), samples, seed)
                else:
                    own = settings if method == "fine_tune" else {}
                    made = seewhy.fit(samples, encoder, method=method, settings=own, validation=validation, seed=seed)
                fitted.append((n, seed, method, made, time.process_time() - cpu, time.perf_counter() - start))
                print(f"{method}, {n or 'all'} of each class, seed {seed}: {fitted[-1][4]:.0f} CPU s", flush=True)
    test = read_list(folder, "test", "fine") if lists else load_samples(folder / "test")
    test = Samples(test.items, whole.classes)
    frozen: dict[Any, Tensor] = {}
    for n, seed, method, made, cpu, clock in fitted:
        is_ours = isinstance(made, Classifier)
        own = find(arguments.encoder, engine="torch")
        right, twelve = (
            right_of(made, test, crops) if is_ours else plain_right(made, own, test, crops) for crops in CROPS
        )
        if method == "linear":
            frozen[n, seed] = right
        low, high = accuracy_interval(right)
        row = {"per class": n or "all", "seed": seed, "method": method, "CPU s": round(cpu), "s": round(clock)}
        row |= {"accuracy": round(float(right.double().mean()), 4), "interval": f"{low:.3f} to {high:.3f}", "gain": ""}
        row |= {"12 views": round(float(twelve.double().mean()), 4), "kept": "", "held out": "", "range": ""}
        if method != "linear" and (n, seed) in frozen:
            gain = right.double() - frozen[n, seed].double()
            row["gain"] = f"{100 * float(gain.mean()):+.1f} ± {196 * float(gain.std()) / len(gain) ** 0.5:.1f}"
        if is_ours:
            row |= {"kept": made.measures.get("kept", ""), "held out": made.measures["held_out_accuracy"]}
            row["range"] = str(made.measures["expected_range"])
        yield row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--encoder", default="lite0")
    parser.add_argument("--validation", action="store_true", help="Measure on the data set's own validation list.")
    parser.add_argument("--per-class", type=int, nargs="*")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--methods", nargs="*", default=["linear", "fine_tune", "plain"])
    parser.add_argument("--set", nargs="*", default=[])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found = list(rows(arguments))
    table = Table(*found[0])
    for row in found:
        table.add_row(*(str(v) for v in row.values()))
    Console(width=180).print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
