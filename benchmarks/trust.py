"""When not to trust a decision: right told from wrong, promises kept, known told from unknown, on groceries.

    git clone https://github.com/marcusklasson/GroceryStoreDataset
    pip install --no-deps pytorch-ood
    python benchmarks/trust.py GroceryStoreDataset/dataset --far cells=slides/ [--store looks.sqlite] [--json out.json]

Fitted on the authors' training list, held out with all others of the same thing; the test list is looked at once, after
everything is chosen. Three tables: what `seewhy evaluate` prints for the test list; the published scores and ours for
pictures of other worlds; and, with 20 of the 81 classes withheld in three draws, how well their test pictures are told
from those of the other 61, with the difference to the best published score and its 95 % interval over pictures.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from grocery import read_list
from pytorch_ood import detector
from torch import Tensor

import seewhy
from seewhy.classifiers.base import Classifier
from seewhy.classifiers.certainty import trust_inputs
from seewhy.classifiers.encoded_set import encode_labelled
from seewhy.encoders.find import encoder as find
from seewhy.evaluation.figures import look_at_unknown, trust_figures
from seewhy.pictures.samples import Samples
from seewhy.progress import Progress
from seewhy.storage.features import FeatureStore
from seewhy.trust.measure import auroc

LEVELS = (0.8, 0.9, 0.95)
N_WITHHELD, N_DRAWS, N_BOOTSTRAP = 20, 3, 1000


def scores(model: Classifier, pooled: Tensor) -> dict[str, Tensor]:
    """How strange each picture is: ours, and pytorch-ood's scores on the same features and logits, as they come."""
    head, held = model.head, model.held_out
    assert held is not None
    assert model.measured_trust is not None
    last = torch.nn.Linear(head.weight.shape[1], len(head.weight))
    with torch.no_grad():
        last.weight.copy_(head.weight)
        last.bias.copy_(head.bias)
        x, logits, bank = head.feature(pooled), head(pooled), head.feature(held.pooled)
        found = {"seewhy": model.measured_trust.judge(trust_inputs(model, pooled, logits)).unusual}
        for name in ("MaxSoftmax", "MaxLogit", "EnergyBased", "Entropy", "GEN"):
            found[name] = getattr(detector, name)(None).predict_logits(logits)
        by_features = {name: getattr(detector, name)(None) for name in ("KNN", "Mahalanobis", "RMD")}
        by_features |= {name: getattr(detector, name)(None, last) for name in ("NCI", "fDBD", "SHE")}
        by_features["ViM"] = detector.ViM(None, d=x.shape[1] // 2, w=last.weight, b=last.bias)
        for name, score in by_features.items():
            try:
                found[name] = score.fit_features(bank, held.labels).predict_features(x).float()
            except Exception as error:
                print(f"{name} left out: {error}")
    return found


def withheld(
    train: Samples, test: Samples, seed: int, store: FeatureStore, encoder: Any, n_crops: int
) -> dict[str, Any]:
    """Fitted without some classes: AUROC of their test pictures against the others', for every score."""
    order = torch.randperm(len(train.classes), generator=torch.Generator().manual_seed(seed)).tolist()
    gone = {train.classes[i] for i in order[:N_WITHHELD]}
    rest = tuple(c for c in train.classes if c not in gone)
    model = seewhy.fit(
        Samples(tuple(s for s in train.items if s.label in rest), rest), encoder, store=store, n_crops=n_crops
    )
    seen = encode_labelled(encoder, test.classes, test, store)
    unknown = torch.tensor([test.classes[k] in gone for k in seen.labels.tolist()])
    found = scores(model, seen.pooled)
    areas = {name: auroc(s[unknown], s[~unknown]) for name, s in found.items()}
    best = max((n for n in areas if n != "seewhy"), key=lambda n: areas[n] or 0.0)
    draws = []
    generator = torch.Generator().manual_seed(seed)
    for _ in range(N_BOOTSTRAP):
        part = torch.randint(len(unknown), (len(unknown),), generator=generator)
        u = unknown[part]
        ours, theirs = (auroc(found[n][part][u], found[n][part][~u]) for n in ("seewhy", best))
        draws.append((ours or 0.0) - (theirs or 0.0))
    low, high = torch.tensor(draws).quantile(torch.tensor([0.025, 0.975])).tolist()
    assert model.measured_trust is not None
    told = vars(model.measured_trust.unknowns)
    return {"draw": seed, "auroc": areas, "best_published": best, "lead": [low, high], "told_on_the_card": told}


def run(folder: Path, far: dict[str, Path], store: FeatureStore, encoder_name: str, n_crops: int) -> dict[str, Any]:
    encoder = find(encoder_name)
    train, test = read_list(folder, "train", "fine"), read_list(folder, "test", "fine")
    model = seewhy.fit(train, encoder, store=store, n_crops=n_crops)
    near = [withheld(train, test, seed, store, encoder, n_crops) for seed in range(N_DRAWS)]
    seen = encode_labelled(encoder, model.classes, test, store)
    with torch.no_grad():
        logits = model.head(seen.pooled)
    rows = [trust_figures(model, seen.pooled, logits, seen.labels, level=level) for level in LEVELS]
    inside = scores(model, seen.pooled)
    worlds = {}
    for name, pictures in far.items():
        pooled, _ = look_at_unknown(model, pictures, store, None, Progress())
        outside = scores(model, pooled)
        worlds[name] = {"n": len(pooled)} | {n: auroc(outside[n], inside[n]) for n in inside}
    assert model.measured_trust is not None
    return {
        "held_out": {k: model.measures.get(k) for k in ("held_out_accuracy", "random_accuracy", "n_held_out")},
        "sure_held_out": model.measured_trust.sure_held_out(),
        "told_on_the_card": vars(model.measured_trust.unknowns),
        "test": [{k: v for k, v in row.items() if k != "risk_coverage"} for row in rows],
        "near": near,
        "far": worlds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--far", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--store")
    parser.add_argument("--encoder", default="lite0")
    parser.add_argument("--crops", type=int, default=8)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    far = {name: Path(path) for name, path in (item.split("=", 1) for item in given.far)}
    found = run(given.folder, far, FeatureStore(given.store), given.encoder, given.crops)
    text = json.dumps(found, indent=1)
    print(text)
    if given.json:
        given.json.write_text(text)


if __name__ == "__main__":
    main()
