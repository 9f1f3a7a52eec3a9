"""Interpretability score: does it rise with accuracy, and does training for it help?

    python reproductions/iis.py --out iis.json
    python reproductions/iis.py --n-train 100 --seeds 1 --epochs 1 2 --steps 5       # a small look

Shen et al. 2025 (arXiv 2510.24105). Pictures: scikit-learn's 1,797 digits. Small networks that differ in width, epochs,
shifted copies and wrong labels are trained on a third of them. `seewhy study interpretability` measures the score on
the others (pieces of pictures, their k-means centres, random directions). Then one start is fine-tuned with equal steps
and order: by cross entropy alone, with the sparse-concept term, with that term on random directions, and with weight
decay. Takes a few minutes on two idle cores. With `--out`, a stopped run continues from `iis.part` beside it.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from claims import JUDGED, Claim, Interval, Report, command, deliver, judged, lead, machine, mean_of, parser, verdict
from torch import Tensor, nn

from seewhy.encoders.base import Encoder, GlobalAverage, Layout
from seewhy.encoders.split import fingerprint
from seewhy.learning.objectives.vectors import IIS, Layers
from seewhy.pictures.samples import Sample, Samples
from seewhy.pictures.sources import InMemory
from seewhy.studies.concepts import HeadTraining
from seewhy.studies.interpretability import InterpretabilityStudy
from seewhy.types import Transform

NAME = "iis"
SIDE, WIDTH, N_CONCEPTS = 16, 64, 48
TRANSFORM = Transform((SIDE, SIDE), (SIDE, SIDE), "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
LIBRARIES = ("prototype", "cluster", "random")
ALONE, METHOD, RANDOM, DECAY = "cross entropy", "with concepts", "with random directions", "with weight decay"
ARMS = {
    ALONE: (IIS(n_concepts=200, weight=0.0), 0.0),
    METHOD: (IIS(n_concepts=200), 0.0),
    RANDOM: (IIS(n_concepts=200, concepts="random"), 0.0),
    DECAY: (IIS(n_concepts=200, weight=0.0), 0.1),
}
LR, BATCH = 2e-3, 64
JUDGED_RHO = "shown: interval of rho above 0; partly: rho above 0"


def main(given: Sequence[str] | None = None) -> Report:
    options = parser(__doc__, NAME)
    options.add_argument("--n-train", type=int, default=600, help="pictures the networks are trained on")
    options.add_argument("--epochs", type=int, nargs="+", default=[1, 4, 16], help="of the networks compared")
    options.add_argument("--seeds", type=int, default=5, help="of the fine-tuning")
    options.add_argument("--steps", type=int, default=200, help="of the fine-tuning")
    return deliver(options, lambda args: run(args, given), given)


@dataclass(frozen=True)
class Digits:
    """Pictures as a network takes them, and as the study does."""

    x: Tensor
    labels: Tensor
    rows: np.ndarray

    @classmethod
    def read(cls) -> Digits:
        from sklearn.datasets import load_digits

        found = load_digits()
        grey = (found.images * 15.9).astype(np.uint8).repeat(2, 1).repeat(2, 2)  # as large as the networks take them
        rows = np.repeat(grey[..., None], 3, 3)
        pixels = torch.from_numpy(rows).permute(0, 3, 1, 2).float() / 127.5 - 1
        return cls(pixels, torch.from_numpy(found.target), rows)

    def samples(self, index: Sequence[int]) -> Samples:
        """Those pictures, for the study."""
        items = [
            Sample(f"digit {i}", str(int(self.labels[i])), pixels=InMemory(f"digit {i}", lambda i=i: self.rows[i]))
            for i in index
        ]
        return Samples(tuple(items), tuple(sorted({s.label for s in items})))


def trunk(width: int) -> nn.Sequential:
    """Three convolutions, the last always as wide, so that the score sees as many features."""
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, 2, padding=1),
        nn.ReLU(),
        nn.Conv2d(2 * width, WIDTH, 3, 2, padding=1),
        nn.ReLU(),
    )


def as_encoder(network: nn.Sequential, name: str) -> Encoder:
    """A trained network as an encoder like any other."""
    whole = network.eval().requires_grad_(False)
    return Encoder(
        name=name,
        transform=TRANSFORM,
        trunk=lambda: whole,
        head=GlobalAverage(),
        layout=Layout(),
        fingerprint=fingerprint(whole, TRANSFORM),
        module=lambda: whole,
        engine="torch",
    )


def learn(
    network: nn.Sequential,
    layers: Layers,
    objective: IIS,
    x: Tensor,
    labels: Tensor,
    n_steps: int,
    seed: int,
    *,
    decay: float = 0.0,
    shifts: bool = False,
) -> None:
    """Train a network and the layers behind it."""
    network.train().requires_grad_(True)
    adam = torch.optim.AdamW([*network.parameters(), *layers.parameters()], LR, weight_decay=decay)
    draws = torch.Generator().manual_seed(seed)
    order: list[Tensor] = []
    for _ in range(n_steps):
        order = order or list(torch.randperm(len(x), generator=draws).split(BATCH))
        rows = order.pop()
        seen = x[rows]
        if shifts:
            move = torch.randint(-2, 3, (2,), generator=draws).tolist()
            seen = seen.roll(move, (2, 3))
        adam.zero_grad()
        vectors = network(seen).mean((2, 3))[:, None]
        objective(vectors, labels[rows], state=layers, index=rows).backward()
        adam.step()


def right(network: nn.Sequential, layers: Layers, x: Tensor, labels: Tensor) -> Tensor:
    """Which pictures the network with its own layer tells."""
    with torch.no_grad():
        return (layers.whole(network.eval()(x).mean((2, 3))).argmax(1) == labels).double()


def run(args: argparse.Namespace, given: Sequence[str] | None) -> Report:
    begun, digits = time.perf_counter(), Digits.read()
    order = torch.randperm(len(digits.labels), generator=torch.Generator().manual_seed(args.seed))
    train, rest = order[: args.n_train], order[args.n_train :]
    encoders = checkpoints(digits, train, args)
    found = measured(encoders, digits, rest, args)
    tuning = arms(digits, train, rest, args)
    return Report(
        NAME,
        "Does the score of interpretability rise with accuracy, and does training for it help?",
        "Shen et al. 2025, arXiv:2510.24105",
        f"scikit-learn's digits: {len(train)} to train networks on, of {len(rest)} others three fifths to train the "
        f"study's layers on, {found['n']} to report on",
        f"{len(encoders)} convolutional networks of {WIDTH} features, {N_CONCEPTS} concepts; fine-tuning {args.seeds} "
        f"seeds of {args.steps} steps, 200 concepts, s = 0.1",
        command(NAME, given),
        machine(),
        round(time.perf_counter() - begun, 1),
        args.seed,
        (*score_claims(found), *tuning_claims(tuning)),
        (
            "Small networks on digits instead of ImageNet models; the ranges of accuracy are wider here.",
            "Concepts are cells of a 2 × 2 grid of training pictures, and no words, as digits have no words half.",
            "Learning rate and epoch are chosen on pictures of their own, not on those reported.",
            "Concepts of the fine-tuning are training pictures as the network sees them now; the paper's training is "
            "not in the released code, its second term weighs 1 here.",
            "Seeds differ more than intervals over pictures say, so a gain must also hold in every seed.",
        ),
        {
            "encoders": [
                {
                    "encoder": e["encoder"],
                    "accuracy": e["accuracy"]["value"],
                    "neighbours": e["neighbours"],
                    **{
                        r["library"]: [r["iis"]["value"], r["area"]["value"]]
                        for r in found["rows"]
                        if r["encoder"] == e["encoder"]
                    },
                }
                for e in found["encoders"]
            ],
            "correlations": found["correlations"],
            "floor": found["floor"],
            "fine-tuning": {
                k: {arm: mean_of(v).rounded() if k == "right" else v for arm, v in by.items()}
                for k, by in tuning.items()
            },
        },
    )


def checkpoints(digits: Digits, train: Tensor, args: argparse.Namespace) -> list[Encoder]:
    """Networks that differ in width, epochs, shifted copies and wrong labels."""
    kinds = [("plain", False, 0.0), ("shifts", True, 0.0), ("wrong labels", False, 0.4)]
    found = []
    for i, (width, (kind, shifts, wrong), epochs) in enumerate(itertools.product((4, 16), kinds, args.epochs)):
        torch.manual_seed(args.seed + 100 + i)
        network, objective = trunk(width), IIS(n_concepts=2, weight=0.0)
        layers = Layers(WIDTH, 10, len(train), 2, False)
        labels = digits.labels[train].clone()
        bad = torch.rand(len(labels)) < wrong
        labels[bad] = torch.randint(0, 10, (int(bad.sum()),))
        n_steps = epochs * -(-len(train) // BATCH)
        learn(network, layers, objective, digits.x[train], labels, n_steps, args.seed + i, shifts=shifts)
        found.append(as_encoder(network, f"{kind}, width {width}, {epochs} epochs"))
        print(found[-1].name, flush=True)
    return found


def measured(
    encoders: Sequence[Encoder],
    digits: Digits,
    rest: Tensor,
    args: argparse.Namespace,
    libraries: tuple[str, ...] = LIBRARIES,
) -> dict:
    """What the study says of these encoders."""
    training = HeadTraining(least_steps=150)
    study = InterpretabilityStudy(libraries, N_CONCEPTS, grid=2, n_random=1, seed=args.seed, training=training)
    part = args.out and args.out.with_suffix(".part")
    found = study.run(list(encoders), digits.samples(rest.tolist()), part).data
    print(found["sentence"], flush=True)
    return found


def score_claims(found: dict) -> list[Claim]:
    """What the paper says of the score, and the controls."""
    said = {(c["library"], c["of"], c["with"], c["given"]): c for c in found["correlations"]}

    def claim(text: str, key: tuple[str, str, str, str | None]) -> Claim:
        line = said.get(key)
        if line is None or line["rho"] is None or line["interval"] is None:
            return Claim(text, JUDGED_RHO, "too few networks above the floor", "too small to tell", 0, "the score")
        rho = Interval(line["rho"], *line["interval"])
        return Claim(
            text, JUDGED_RHO, f"rho {rho}", verdict(rho.low > 0, rho.value > 0), line["n"], "the score", interval=rho
        )

    claims = [
        claim("The score rises with accuracy (pieces of pictures)", ("prototype", "iis", "accuracy", None)),
        claim("The score rises with accuracy (k-means centres)", ("cluster", "iis", "accuracy", None)),
        claim(
            "It does so beyond what random directions say (pieces, their score held)",
            ("prototype", "iis", "accuracy", "iis of random"),
        ),
        claim(
            "It goes with accuracy on other pictures once that of its own denominator is held (pieces)",
            ("prototype", "iis", "neighbours", "accuracy"),
        ),
    ]
    random = said.get(("random", "iis", "accuracy", None))
    if random is not None and random["rho"] is not None and random["interval"] is not None:
        rho = Interval(random["rho"], *random["interval"])
        claims.append(
            Claim(
                "Control: the score of random directions does not rise with accuracy",
                "shown: interval of rho not above 0",
                f"rho {rho}",
                verdict(not rho.low > 0),
                random["n"],
                "the score",
            )
        )
    own = {e["encoder"] for e in found["encoders"] if not e["below_floor"]}
    by = {(r["encoder"], r["library"]): r["iis"]["value"] for r in found["rows"] if r["encoder"] in own}
    names = sorted({e for e, _ in by})
    ahead = lead([by[e, "prototype"] for e in names], [by[e, "random"] for e in names])
    rule = f"mean difference over networks; {JUDGED}"
    text = "Pieces of pictures keep more than random directions"
    return [*claims, Claim(text, rule, f"difference of the scores {ahead}", judged(ahead), len(names), "the score")]


def arms(digits: Digits, train: Tensor, rest: Tensor, args: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """Fine-tuning arm → which test pictures are right, mean over seeds, and each seed's score and sparse accuracy."""
    correct: dict[str, list[Tensor]] = {arm: [] for arm in ARMS}
    score: dict[str, list[float]] = {arm: [] for arm in ARMS}
    area: dict[str, list[float]] = {arm: [] for arm in ARMS}
    x, labels = digits.x[train], digits.labels[train]
    for seed in range(args.seed, args.seed + args.seeds):
        torch.manual_seed(seed)
        start = trunk(8)
        learn(start, Layers(WIDTH, 10, len(train), 2, False), IIS(2, weight=0.0), x, labels, 30, seed)
        tuned = []
        for arm, (objective, decay) in ARMS.items():
            torch.manual_seed(seed)
            network = trunk(8)
            network.load_state_dict(start.state_dict())
            layers = objective.state(WIDTH, 10, len(train))
            assert isinstance(layers, Layers)
            learn(network, layers, objective, x, labels, args.steps, seed, decay=decay)
            correct[arm].append(right(network, layers, digits.x[rest], digits.labels[rest]))
            tuned.append(as_encoder(network, arm))
        for row in measured(tuned, digits, rest, args, LIBRARIES[:1])["rows"]:
            score[row["encoder"]].append(row["iis"]["value"])
            area[row["encoder"]].append(row["area"]["value"])
        print(f"seed {seed}: " + ", ".join(f"{a} {float(c[-1].mean()):.3f}" for a, c in correct.items()), flush=True)
    seeds = {arm: [round(float(one.mean()), 4) for one in c] for arm, c in correct.items()}
    means = {arm: torch.stack(c).mean(0).tolist() for arm, c in correct.items()}
    return {"right": means, "seeds": seeds, "iis": score, "area": area}


def tuning_claims(found: dict[str, dict[str, list[float]]]) -> list[Claim]:
    """The gain counts against cross entropy alone with equal steps."""
    rule = (
        "shown: interval of the difference over pictures above 0, and ahead in every seed; partly: that interval above "
        "0; not shown: below 0; too small to tell: else"
    )
    own, n = found["right"], len(found["right"][ALONE])
    claims = []
    for other, text in (
        (ALONE, "Training for sparse concepts makes the whole classifier more accurate"),
        (RANDOM, "Concepts are what helps: random directions in their place help less"),
        (DECAY, "It helps more than weight decay"),
    ):
        gain = lead(own[METHOD], own[other])
        ahead = sum(a > b for a, b in zip(found["seeds"][METHOD], found["seeds"][other], strict=True))
        n_seeds = len(found["seeds"][METHOD])
        told = f"{mean_of(own[METHOD])} against {mean_of(own[other])}; difference {gain}, ahead in {ahead} of {n_seeds}"
        made = judged(gain) if ahead == n_seeds or not gain.low > 0 else "partly"
        claims.append(Claim(text, rule, f"{told} seeds", made, n, "fine-tuning"))
    for key, text in (("iis", "It raises the score"), ("area", "It raises the accuracy with few concepts")):
        a, b = found[key][METHOD], found[key][ALONE]
        signs = sum(x > y for x, y in zip(a, b, strict=True))
        told = f"{statistics.mean(a):.3f} against {statistics.mean(b):.3f}, higher in {signs} of {len(a)} seeds"
        rule = "shown: higher in every seed; partly: on average"
        made = verdict(signs == len(a), statistics.mean(a) > statistics.mean(b))
        claims.append(Claim(text, rule, told, made, len(a), "fine-tuning"))
    return claims


if __name__ == "__main__":
    main()
