"""Explaining prototypes: does the influence of a property name the property a prototype depends on?

    python reproductions/explaining_prototypes.py --seeds 5 --out explaining_prototypes.json

Nauta, Jutte, Provoost & Seifert 2020 (arXiv 2011.02863). The truth is planted. For each property, a small ProtoPNet
learns two classes of drawn pictures that differ in this property and in nothing else; all other properties are random
in every picture. The property must then come first for the prototypes of the class that has it. Takes ten minutes on
two cores.
"""

from __future__ import annotations

import argparse
import colorsys
import json
import math
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from claims import Claim, Report, command, lead, machine, mean_of, parser, verdict
from PIL import Image, ImageDraw
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import seewhy
from seewhy.encoders.base import Encoder, EncoderOutput
from seewhy.prototypes.bank import cell_box, redundant
from seewhy.prototypes.characteristics import Characteristics, GlobalInfluences, Influences
from seewhy.prototypes.perturbations import PROPERTIES, Changes, EqualChanges, PaperChanges

SIDE = 64
PLANTED = ("hue", "saturation", "contrast", "texture", "shape")
HAS_IT = {"hue": (0, 1), "saturation": (1,), "contrast": (1,), "texture": (1,), "shape": (0, 1)}
"""Classes that lose the property when it is changed: less saturation takes nothing from pale pictures."""
N_PROTOTYPES = 4
EPSILON = 1e-4


def draw(planted: str, label: int, rng: np.random.Generator) -> np.ndarray:
    """A figure on a ground, uint8 ``(64, 64, 3)``; the label decides the planted property, chance all others."""
    hue = rng.uniform(0.0, 0.07) + 0.15 * label if planted == "hue" else rng.uniform(0, 1)
    saturation = rng.uniform(0.75, 0.95) - 0.42 * (1 - label) if planted == "saturation" else rng.uniform(0.35, 0.95)
    step = rng.uniform(0.45, 0.6) - 0.32 * (1 - label) if planted == "contrast" else rng.uniform(0.2, 0.6)
    grain = rng.uniform(5, 9) * label if planted == "texture" else rng.uniform(0, 9)
    figure = label if planted == "shape" else int(rng.integers(2))
    middle = rng.uniform(0.45, 0.6)
    sign = rng.choice([-1, 1])
    colours = [np.array(colorsys.hsv_to_rgb(hue % 1, saturation, middle + sign * step * s)) for s in (-0.5, 0.5)]
    size, scale = rng.uniform(26, 38), 4
    left, top = rng.uniform(4, SIDE - 4 - size, 2)
    mask = Image.new("L", (SIDE * scale, SIDE * scale))
    box = [v * scale for v in (left, top, left + size, top + size)]
    (ImageDraw.Draw(mask).rectangle if figure else ImageDraw.Draw(mask).ellipse)(box, fill=255)
    part = np.asarray(mask.resize((SIDE, SIDE), Image.Resampling.BOX))[..., None] / 255
    pixels = 255 * (colours[0] * (1 - part) + colours[1] * part) + rng.normal(0, 1, (SIDE, SIDE, 1)) * grain
    return np.rint(pixels.clip(0, 255)).astype(np.uint8)


class Network(nn.Module):
    """Four convolutions and ProtoPNet's add-on layers: 8 × 8 cells of 32 numbers in 0…1, and their prototypes."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(3, 16, 3, 1, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(16, 32, 3, 1, 1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(32, 64, 3, 1, 1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(64, 64, 3, 1, 1), nn.BatchNorm2d(64), nn.ReLU()),
            *(nn.Conv2d(64, 32, 1), nn.ReLU(), nn.Conv2d(32, 32, 1), nn.Sigmoid()),
        )
        for layer in self.features:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(layer.bias)
        self.pool, self.flatten = nn.AdaptiveAvgPool2d(1), nn.Flatten()
        self.classifier = nn.Linear(32, 2)
        self.prototypes = nn.Parameter(torch.rand(2 * N_PROTOTYPES, 32))
        own = torch.arange(2 * N_PROTOTYPES) // N_PROTOTYPES
        self.last = nn.Parameter(torch.where(own[:, None] == torch.arange(2), 1.0, -0.5))
        self.register_buffer("own", own)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.flatten(self.pool(self.features(x))))

    def distances(self, grid: Tensor) -> Tensor:
        """Squared distances of every cell to every prototype, ``(b, p, h, w)``."""
        p = self.prototypes
        squares = (grid**2).sum(1)[:, None] + (p**2).sum(1)[None, :, None, None]
        return (squares - 2 * torch.einsum("bchw,pc->bphw", grid, p)).clamp(min=0)

    def similarities(self, grid: Tensor) -> Tensor:
        d = self.distances(grid)
        return ((d + 1) / (d + EPSILON)).log()

    def logits(self, grid: Tensor) -> Tensor:
        return self.similarities(grid).amax((2, 3)) @ self.last


@dataclass(frozen=True)
class Trained:
    """One network for one planted property and seed."""

    planted: str
    network: Network
    encoder: Encoder
    before_push: float
    after_push: float
    pictures: dict[str, list[np.ndarray]]

    def maps(self, look: EncoderOutput) -> Tensor:
        return self.network.similarities(look.features)

    @property
    def having(self) -> Tensor:
        """Flags of the prototypes whose class has the property."""
        return torch.isin(self.network.own, torch.tensor(HAS_IT[self.planted]))


def train(planted: str, seed: int, n: int, epochs: int, n_measured: int) -> Trained:
    """Draw the pictures, train as ProtoPNet does (joint steps, push, last layer), and wrap the network."""
    rng = np.random.default_rng([seed, PLANTED.index(planted)])
    labels = torch.arange(2 * n) % 2
    drawn = {split: [draw(planted, int(k), rng) for k in labels] for split in ("train", "test")}
    transform = seewhy.Transform((SIDE, SIDE), (SIDE, SIDE), "bilinear", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    torch.manual_seed(seed)
    network = Network()
    x = {split: (torch.tensor(np.stack(p)).permute(0, 3, 1, 2) / 255 - 0.5) / 0.25 for split, p in drawn.items()}
    network.train().requires_grad_(True)
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
    for _ in range(epochs):
        for batch in torch.randperm(2 * n).split(40):
            optimiser.zero_grad()
            loss(network, x["train"][batch], labels[batch]).backward()
            optimiser.step()
            with torch.no_grad():
                network.prototypes.clamp_(0, 1)
    network.eval().requires_grad_(False)
    before = accuracy(network, x["test"], labels)
    push(network, x["train"], labels)
    after = accuracy(network, x["test"], labels)
    encoder = seewhy.from_module(
        network, target_layer="features", transform=transform, classes=["0", "1"], engine="torch"
    )
    kept = {split: pictures[:n_measured] for split, pictures in drawn.items()}
    return Trained(planted, network, encoder, before, after, kept)


def loss(network: Network, x: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy + 0.8 cluster − 0.08 separation, as in ProtoPNet."""
    d = network.distances(network.features(x))
    nearest = d.amin((2, 3))
    own = network.own[None] == y[:, None]
    cluster = nearest.masked_fill(~own, torch.inf).amin(1).mean()
    separation = nearest.masked_fill(own, torch.inf).amin(1).mean()
    similarity = ((nearest + 1) / (nearest + EPSILON)).log()
    return cross_entropy(similarity @ network.last, y) + 0.8 * cluster - 0.08 * separation


@torch.no_grad()
def push(network: Network, x: Tensor, y: Tensor) -> None:
    """Each prototype becomes the nearest cell of a training picture of its own class."""
    grid = network.features(x)
    d = network.distances(grid)
    for p, label in enumerate(network.own.tolist()):
        of_class = (y == label).nonzero()[:, 0]
        flat = int(d[of_class, p].flatten(1).flatten().argmin())
        picture, cell = divmod(flat, d.shape[2] * d.shape[3])
        network.prototypes[p] = grid[of_class[picture]].flatten(1)[:, cell]


@torch.no_grad()
def accuracy(network: Network, x: Tensor, y: Tensor) -> float:
    return float((network.logits(network.features(x)).argmax(1) == y).float().mean())


def local(one: Trained, changes: Changes, split: str = "train", **options: Any) -> list[Influences]:
    return list(Characteristics(changes).local(one.encoder, one.maps, one.pictures[split], **options))


def overall(found: list[Influences]) -> Tensor:
    """φ_global of each prototype, (p, m)."""
    return GlobalInfluences.of(found, "").phi


def first(one: Trained, phi: Tensor) -> list[float]:
    """Whether the planted property comes first, for each prototype whose class has it."""
    return (phi.argmax(1) == PROPERTIES.index(one.planted))[one.having].double().tolist()


def in_box(one: Trained, changes: Changes, whole: list[Influences], n: int) -> list[float]:
    """Part of the planted property's influence that is left when only the surroundings of the cell are changed."""
    parts, m = [], PROPERTIES.index(one.planted)
    for picture, found in list(zip(one.pictures["train"], whole, strict=True))[:n]:
        p = int(torch.where(one.having, found.similarity, -torch.inf).argmax())
        row, column = found.cells[p].tolist()
        (boxed,) = Characteristics(changes).local(
            one.encoder, one.maps, [picture], cells=found.cells, box=cell_box((row, column), (8, 8))
        )
        if float(found.phi[p, m]) > 0.05:
            parts.append(float(boxed.phi[p, m] / found.phi[p, m]))
    return parts


@torch.no_grad()
def n_groups(one: Trained) -> int:
    """Prototypes left after merging those that say the same, over the eight pictures each is most like."""
    similarity = torch.cat(
        [one.maps(one.encoder.encode(one.encoder.pixels([p]))).amax((2, 3)) for p in one.pictures["train"]]
    )
    top = similarity.topk(min(8, len(similarity)), dim=0).indices.T.tolist()
    return len(redundant(one.network.prototypes, top, cosine=0.95))


def measure(one: Trained) -> dict[str, Any]:
    """Everything asked of one network."""
    paper, equal = PaperChanges(), EqualChanges()
    whole = local(one, paper)
    m = PROPERTIES.index(one.planted)
    phi = {"paper": overall(whole), "calibrated": overall(local(one, equal))}
    phi["free"] = overall(local(one, paper, follow=True))
    phi["half"], phi["double"] = overall(local(one, times(paper, 0.5))), overall(local(one, times(paper, 2)))
    per_change = []
    for found in whole:
        scaled = found.similarity[:, None] - found.phi / found.change.clamp(min=0.5)
        per_change.append(Influences(found.similarity, scaled, found.cells, found.change))
    phi["per change"] = GlobalInfluences.of(per_change, "").phi
    distance = torch.stack([log_distance(f.changed) - log_distance(f.similarity[:, None]) for f in whole]).mean(0)
    positive = torch.stack([found.phi[one.having] > 0 for found in whole]).double().mean((0, 1))
    test = overall(local(one, paper, "test"))
    others = [i for i, name in enumerate(PROPERTIES) if i != m and name != "brightness"]
    return {
        "planted": one.planted,
        "accuracy": [one.before_push, one.after_push],
        "first": {k: first(one, v) for k, v in phi.items()} | {"distance": first(one, distance)},
        "first_all": (phi["paper"].argmax(1) == m).double().tolist(),
        "first_absolute": (phi["paper"].abs().argmax(1) == m).double().tolist(),
        "same": {k: (phi[k].argmax(1) == phi["paper"].argmax(1)).double().tolist() for k in ("half", "double")},
        "positive": float(positive[m]),
        "positive_others": float(positive[others].mean()),
        "box": in_box(one, paper, whole, 8),
        "train": phi["paper"].flatten().tolist(),
        "test": test.flatten().tolist(),
        "n_groups": n_groups(one),
        "phi": [round(v, 3) for v in phi["paper"][one.having].mean(0).tolist()],
        "phi_calibrated": [round(v, 3) for v in phi["calibrated"][one.having].mean(0).tolist()],
        "change": [round(v, 1) for v in torch.stack([f.change for f in whole]).mean(0).tolist()],
    }


def by_network(rows: list[dict[str, Any]], of: str) -> list[float]:
    """Rank accuracy of each network: prototypes of one network are no independent draws."""
    return [float(np.mean(row["first"][of])) for row in rows]


def claims_of(rows: list[dict[str, Any]]) -> list[Claim]:
    """The paper's claims, and what can be said of them here."""
    chance, n = 1 / len(PROPERTIES), len(rows)
    paper, equal, free = (by_network(rows, k) for k in ("paper", "calibrated", "free"))
    present = [p for p in PLANTED if any(r["planted"] == p for r in rows)]
    by_property, equal_by = (
        {p: float(np.mean([v for v, r in zip(found, rows, strict=True) if r["planted"] == p])) for p in present}
        for found in (paper, equal)
    )
    over, over_equal = lead(paper, [chance] * n), lead(equal, [chance] * n)
    sign = lead([r["positive"] for r in rows], [r["positive_others"] for r in rows])
    gain, fixed = lead(equal, paper), lead(paper, free)
    same = {k: float(np.mean([v for r in rows for v in r["same"][k]])) for k in ("half", "double")}
    box = [v for r in rows for v in r["box"]]
    match = [float(np.corrcoef(r["train"], r["test"])[0, 1]) for r in rows]
    before, after = ([r["accuracy"][i] for r in rows] for i in (0, 1))

    def said(table: dict[str, float]) -> str:
        return ", ".join(f"{k} {table[k]:.0%}" for k in present)

    return [
        Claim(
            "The influence of a property quantifies how much a prototype depends on it (the paper's fixed strengths)",
            "planted property first more often than by chance, interval above 1/6, and for at least half of the "
            "prototypes of every property; partly: the interval alone",
            f"first for {mean_of(paper)} of the prototypes, chance {chance:.2f}; by property: {said(by_property)}",
            verdict(over.low > 0 and min(by_property.values()) >= 0.5, partly=over.low > 0),
            n,
            interval=mean_of(paper),
        ),
        Claim(
            "The same with strengths calibrated to an equal change of the picture (ours)",
            "as above",
            f"first for {mean_of(equal)}; lead over the paper's strengths {gain}; by property: {said(equal_by)}",
            verdict(over_equal.low > 0 and min(equal_by.values()) >= 0.5, partly=over_equal.low > 0),
            n,
        ),
        Claim(
            "A positive local influence means that the property matters",
            "share of positive local influences of the planted property above that of the others, interval above 0",
            f"{mean_of([r['positive'] for r in rows])} against {mean_of([r['positive_others'] for r in rows])}, "
            f"difference {sign}",
            verdict(sign.low > 0, partly=sign.value > 0),
            n,
        ),
        Claim(
            "The similarity is to be read again at the same position",
            "rank accuracy at the fixed position above that at the changed picture's own maximum; partly: not below",
            f"{mean_of(paper)} against {mean_of(free)}, difference {fixed}",
            verdict(fixed.low > 0, partly=not fixed.high < 0),
            n,
        ),
        Claim(
            "The ranking does not hang on the strengths chosen",
            "the same property first at half and at double strength for at least 80 % of the prototypes; partly: 60 %",
            f"half {same['half']:.0%}, double {same['double']:.0%}",
            verdict(min(same.values()) >= 0.8, partly=min(same.values()) >= 0.6),
            n * 2 * N_PROTOTYPES,
        ),
        Claim(
            "The influence is the patch's own, not its surroundings'",
            "at least 80 % of the planted property's influence is left when only a box of two cells is changed; "
            "partly: 50 %",
            f"median {float(np.median(box)):.0%} is left" if box else "no positive influence to divide",
            verdict(bool(box) and float(np.median(box)) >= 0.8, partly=bool(box) and float(np.median(box)) >= 0.5),
            len(box),
        ),
        Claim(
            "Influences generalise from training to test pictures",
            "correlation over prototypes and properties at least 0.9 in every network; partly: in the mean",
            f"mean {float(np.mean(match)):.3f}, least {min(match):.3f}",
            verdict(min(match) >= 0.9, partly=float(np.mean(match)) >= 0.9),
            n,
        ),
        Claim(
            "Pushing prototypes onto training patches keeps the accuracy (host model)",
            "loss below 2 points in the mean; partly: below 10",
            f"test accuracy {mean_of(before)} before, {mean_of(after)} after",
            verdict(
                float(np.mean(before) - np.mean(after)) < 0.02, partly=float(np.mean(before) - np.mean(after)) < 0.1
            ),
            n,
        ),
    ]


def arguments() -> argparse.Namespace:
    found = parser(__doc__, "explaining_prototypes")
    found.add_argument("--seeds", type=int, default=5, help="networks for each property")
    found.add_argument("--properties", default=",".join(PLANTED))
    found.add_argument("--pictures", type=int, default=200, help="drawn a class, for training and for testing each")
    found.add_argument("--epochs", type=int, default=16)
    found.add_argument("--measured", type=int, default=24, help="pictures changed, of each split")
    return found.parse_args()


def main() -> None:
    args = arguments()
    kept = args.out.with_suffix(".networks.jsonl") if args.out else None
    lines = kept.read_text("utf-8").splitlines() if kept is not None and kept.exists() else []
    known = {(r["seed"], r["planted"], r["asked"]): r for r in map(json.loads, lines)}
    asked, rows = [args.pictures, args.epochs, args.measured], []
    for seed in range(args.seed, args.seed + args.seeds):
        for planted in args.properties.split(","):
            row = known.get((seed, planted, str(asked)))
            if row is None:
                begun = time.perf_counter()
                row = measure(train(planted, seed, args.pictures, args.epochs, args.measured))
                row |= {"seed": seed, "asked": str(asked), "seconds": time.perf_counter() - begun}
                if kept is not None:
                    with kept.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(row) + "\n")
            rows.append(row)
            print(seed, planted, row["accuracy"], "paper", row["phi"], "calibrated", row["phi_calibrated"], flush=True)
    report = report_of(rows, args, sum(r["seconds"] for r in rows))
    report.show()
    if args.out:
        report.write(args.out)


def report_of(rows: list[dict[str, Any]], args: argparse.Namespace, seconds: float) -> Report:
    accuracies = {k: round(float(np.mean(by_network(rows, k))), 3) for k in rows[0]["first"]}
    numbers = {
        "rank_accuracy": accuracies,
        "rank_accuracy_all_prototypes": round(float(np.mean([v for r in rows for v in r["first_all"]])), 3),
        "rank_accuracy_all_by_size": round(float(np.mean([v for r in rows for v in r["first_absolute"]])), 3),
        "prototypes_left_after_merging": [r["n_groups"] for r in rows],
        "prototypes": 2 * N_PROTOTYPES,
        "properties": list(PROPERTIES),
        "networks": [{k: r[k] for k in ("planted", "accuracy", "phi", "phi_calibrated", "change")} for r in rows],
    }
    return Report(
        name="explaining_prototypes",
        title="Does the influence of a property name what a prototype depends on?",
        paper="Nauta, Jutte, Provoost & Seifert 2020, arXiv:2011.02863",
        data=f"Drawn pictures of 64 x 64 pixels, two classes that differ in one property; {args.pictures} a class to "
        f"train, as many to test, {args.measured} of each split changed",
        model=f"{len(rows)} small ProtoPNets of four convolutions and {2 * N_PROTOTYPES} prototypes, test accuracy "
        f"after the push {mean_of([r['accuracy'][1] for r in rows])}",
        command=command("explaining_prototypes"),
        machine=machine(),
        seconds=seconds,
        seed=args.seed,
        claims=tuple(claims_of(rows)),
        differences=(
            "Truth is planted in drawn pictures; the paper looks at birds, where it is not known.",
            "A small network trained from scratch takes the place of a pretrained DenseNet-121.",
            "Prototypes of the class that lacks the property count only in the figures over all prototypes: less "
            "saturation makes pale pictures more alike, not less.",
        ),
        numbers=numbers,
    )


def times(changes: PaperChanges, factor: float) -> PaperChanges:
    """The same changes, so many times as strong: factors end at 0, the hue at half a turn."""
    colours = {k: max(0.0, 1 - factor * (1 - getattr(changes, k))) for k in ("saturation", "contrast", "brightness")}
    turn = math.copysign(min(0.5, abs(changes.hue) * factor), changes.hue)
    amounts = {k: getattr(changes, k) * factor for k in ("texture", "amplitude")}
    return replace(changes, hue=turn, **colours, **amounts)


def log_distance(similarity: Tensor, epsilon: float = 1e-4) -> Tensor:
    """ProtoPNet's squared distance ``d`` out of its similarity ``log((d + 1) / (d + ε))``, 0…∞.

    A drop of 2 in the similarity is a tiny step near its top and a long one near zero.
    """
    grown = similarity.double().exp()
    return ((1 - epsilon * grown) / (grown - 1)).to(similarity)


if __name__ == "__main__":
    main()
