"""Projection heads: what does a representation keep before its head, and lose behind it?

    python reproductions/projection_head.py --out projection_head.json
    python reproductions/projection_head.py --seeds 2 --steps 2 --pictures 200 --draws 3 --out projection_head.json

Xue et al. 2024 (arXiv 2403.11391). Layer by layer in the linear model; then on scikit-learn's digits over drawn
textures, with a small network from scratch: a digit that augmentation drops, ten digits after training on even and odd,
and ink whose colour goes with the class. Takes three minutes on one idle core; a stopped run continues after its last
part.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import torch
from claims import JUDGED, Claim, Interval, Report, Verdict, command, deliver, judged, machine, parser, verdict
from digits_on_texture import Digits, split
from jaxtyping import Float
from linear_features import Descent, closed_form, probe_errors
from torch import Tensor, nn

from seewhy.classifiers.linear.choosing import c_path
from seewhy.classifiers.linear.solvers import fit_linear
from seewhy.encoders.new import Residual
from seewhy.learning.encoders.projection import Projection, Reweighted
from seewhy.learning.objectives.pictures import Vectors
from seewhy.learning.objectives.vectors import CrossEntropy, SimCLR, SupCon
from seewhy.learning.pretrain import Views
from seewhy.seeded import seeded
from seewhy.storage.output import write_atomic
from seewhy.studies.bootstrap import mean_of
from seewhy.training.batches import TrainingData
from seewhy.training.loop import Training, train

WIDTH, BATCH = 64, 64
DECAYS = (0.0, 0.02, 0.05)
"""Of the linear model's weights; at 0.06 its weak features die out."""
WEAK, STRONG, DROP = 0.3, 1.0, 0.6
LABELS = (20, 200)
LINEAR, TEXTURE, COARSE, COLOUR = "linear model", "digits on textures", "even and odd, then digits", "ink of a colour"
CLOSE = 0.03
"""What is called as good."""
OBJECTIVES: dict[str, Vectors] = {
    "simclr": SimCLR(temperature=0.5),
    "supcon": SupCon(temperature=0.5),
    "cross_entropy": CrossEntropy(),
}
KAPPA = {"simclr": 1.2, "supcon": 1.5, "cross_entropy": 1.2}
"""Those that reports of the paper's settings name for SupCon and cross entropy; on 64 coordinates 1.05 would weigh the
last a twentieth, so that for SimCLR the larger of the two others is not needed."""


@dataclass(frozen=True)
class Arm:
    """One network.

    Attributes:
        section: which world, and which task is probed.
        objective: by name.
        head: ``"none"``, ``"linear"``, ``"mlp"``, ``"fixed"``; ``"frozen"``, an mlp that stays random; ``"permuted"``,
            a fixed one in another order.
        strength: of the digit.
        drop: how often a view goes without it.
        decay: of all weights.
        part: of the steps.
    """

    section: str
    objective: str
    head: str
    strength: float = 1.0
    drop: float = 0.0
    decay: float = 1e-6
    part: float = 1.0


def arms() -> list[Arm]:
    """All of them."""
    never = [Arm(TEXTURE, "simclr", "mlp", strength) for strength in (STRONG, WEAK)]
    dropped = [Arm(TEXTURE, "simclr", head, STRONG, DROP) for head in ("mlp", "none", "fixed", "frozen", "permuted")]
    coarse = [Arm(COARSE, o, head) for o in ("supcon", "cross_entropy") for head in ("none", "mlp", "fixed")]
    return dropped + never + coarse + [Arm(COLOUR, "cross_entropy", head) for head in ("none", "mlp", "fixed")]


def network(seed: int) -> nn.Module:
    with seeded(seed):
        return nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.GroupNorm(8, 16), nn.ReLU(), Residual(16, 16, 2),
            Residual(16, WIDTH, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        )  # fmt: skip


def head_of(arm: Arm, seed: int) -> nn.Module:
    with seeded(seed + 1):
        if arm.head in ("fixed", "permuted"):
            made = Reweighted(WIDTH, KAPPA[arm.objective])
            if arm.head == "permuted":
                made.weight.copy_(made.weight[torch.randperm(WIDTH)])
            return made
        return Projection("mlp" if arm.head == "frozen" else arm.head, WIDTH).build(WIDTH)  # type: ignore[arg-type]


def learnt(arm: Arm, own: Digits, seed: int, steps: int) -> tuple[nn.Module, nn.Module]:
    """The network and its head, frozen."""
    tower, head, objective = network(seed), head_of(arm, seed), OBJECTIVES[arm.objective]
    n_steps = max(1, round(arm.part * steps))
    with seeded(seed + 2):
        task = Views(
            tower, head, objective, width=WIDTH, n_classes=2 if objective.needs_labels else 0, n_pictures=len(own),
            n_steps=n_steps, hold=False,
        )  # fmt: skip
    if arm.head == "frozen":
        head.requires_grad_(False)
    columns: dict[str, Any] = {"views": own.views(objective.n_views, arm.drop), "labels": own.odd}
    how = Training(
        n_steps, min(BATCH, len(own)), lr=2e-3, weight_decay=arm.decay, schedule="cosine", warmup=n_steps // 10,
        seed=seed,
    )  # fmt: skip
    train(task, TrainingData(len(own), columns), how)
    return tower, head


def folds_of(y: Tensor, n_folds: int, seed: int) -> Tensor:
    """Folds of rows over which every class is spread evenly; a class of one row is in none, -1."""
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    order = order[y[order].argsort(stable=True)]
    fold = torch.empty_like(order)
    fold[order] = torch.arange(len(order)) % n_folds
    return torch.where((y.bincount() == 1)[y], -1, fold)


def probed(
    x: Float[Tensor, "n d"], y: Tensor, held: Float[Tensor, "t d"], truth: Tensor, rows: Tensor, seed: int
) -> str:
    """Which held pictures are told right by a linear classifier on these rows: 1 or 0 each.

    Vectors are centred and all scaled by one number: by one for each coordinate the fixed head would be undone. The
    penalty is chosen on folds of the rows.
    """
    mean = x[rows].mean(0)
    scale = (x[rows] - mean).square().sum(1).mean().sqrt().clamp_min(1e-9)
    a, b = (x[rows] - mean) / scale, (held - mean) / scale
    n_classes, own = int(truth.max()) + 1, y[rows]
    folds = folds_of(own, 2, seed)
    grid = (0.1, 1.0, 10.0)
    c = c_path(a, own, n_classes, folds, grid=grid).best.c
    return "".join(str(int(v)) for v in fit_linear(a, own, n_classes, c, tol=1e-4).logits(b).argmax(1) == truth)


@torch.no_grad()
def seen(network_: nn.Module, pictures: Tensor) -> Tensor:
    return torch.cat([network_.eval()(part) for part in pictures.split(256)])


def labelled(own: Digits, n: int, seed: int, *, balanced: bool) -> Tensor:
    """Places of those with a label: as many of each digit; or of parity and ink, no more than of the rarest."""
    draw = torch.Generator().manual_seed(100 + seed)
    kind = 2 * own.odd + own.ink if balanced else own.digit
    order = torch.randperm(len(own), generator=draw)
    every = [order[kind[order] == k] for k in kind.unique().tolist()]
    each = max(2, n // len(every))
    if balanced:
        each = min(each, *map(len, every))
    return torch.cat([mine[:each] for mine in every])


def examine(arm: Arm, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """One network: right or wrong of each test picture, before and behind its head, by number of labels."""
    begun, cpu = time.perf_counter(), time.process_time()
    own, test = split(arm.strength, 0.95 if arm.section == COLOUR else None, args.pictures)
    tower, head = learnt(arm, own, seed, args.steps)
    pre, held = seen(tower, own.plain()), seen(tower, test.plain())
    y, truth = (own.odd, test.odd) if arm.section == COLOUR else (own.digit, test.digit)
    against = test.ink != 1 + test.odd if arm.section == COLOUR else torch.ones(len(test), dtype=torch.bool)
    found: dict[str, Any] = {}
    for name, (a, b) in {"pre": (pre, held), "post": (seen(head, pre), seen(head, held))}.items():
        for n in LABELS:
            rows = labelled(own, min(n, len(own)), seed, balanced=arm.section == COLOUR)
            found[f"{name} {n}"] = probed(a, y, b[against], truth[against], rows, seed)
    seconds = {"seconds": round(time.perf_counter() - begun, 1), "cpu": round(time.process_time() - cpu, 1)}
    return {**found, **seconds}


class NotRunError(Exception):
    """A claim asks for a network that was left out."""


@dataclass(frozen=True, eq=False)
class Measured:
    """What all networks give.

    Attributes:
        found: arm and seed → what was measured.
        seeds: of first weights, order, views and labels.
    """

    found: dict[tuple[Arm, int], dict[str, Any]]
    seeds: tuple[int, ...]

    def right(self, arm: Arm, name: str, n: int = 200) -> Float[Tensor, "r t"]:
        """Of each seed and test picture, ``"pre"`` or ``"post"``.

        Raises:
            NotRunError: the arm was left out.
        """
        if not self.has(arm):
            raise NotRunError(arm)
        return torch.tensor([[float(v) for v in self.found[arm, s][f"{name} {n}"]] for s in self.seeds])

    def has(self, arm: Arm) -> bool:
        """Whether an arm was run on every seed."""
        return all((arm, seed) in self.found for seed in self.seeds)

    def interval(self, values: Float[Tensor, "r t"]) -> Interval:
        """Over test pictures and seeds."""
        found = mean_of(values, torch.arange(values.shape[1]))
        return Interval(found.value, *found.interval(0.95))

    def gap(self, arm: Arm, n: int = 200) -> Float[Tensor, "r t"]:
        """Before the head less behind it."""
        return self.right(arm, "pre", n) - self.right(arm, "post", n)


def parts(args: argparse.Namespace) -> Measured:
    """Every arm on every seed; what an earlier run of the same settings left beside the report is taken as it is."""
    found: dict[tuple[Arm, int], dict[str, Any]] = {}
    seeds = tuple(range(args.seed, args.seed + args.seeds))
    for seed in seeds:
        for arm in arms():
            settings = "-".join(str(v) for v in [*asdict(arm).values(), seed, args.steps, args.pictures])
            name = f"{settings}.json".replace(" ", "_")
            kept = None if args.out is None else args.out.parent / f".{args.out.stem}.parts" / name
            if args.finished and (kept is None or not kept.exists()):
                continue
            if kept is None or not kept.exists():
                found[arm, seed] = examine(arm, seed, args)
                if kept is not None:
                    kept.parent.mkdir(exist_ok=True)
                    write_atomic(kept, json.dumps(found[arm, seed]))
            else:
                found[arm, seed] = json.loads(kept.read_text("utf-8"))
            print(arm, seed, found[arm, seed]["cpu"], "s", flush=True)
    return Measured(found, seeds)


def of_linear(args: argparse.Namespace) -> tuple[list[Claim], dict[str, Any]]:
    """Claims of the linear model."""
    seeds = list(range(args.seed, args.seed + args.seeds))
    steps = args.linear_steps
    form, found = (
        closed_form(),
        {depth: Descent(depth, n_steps=steps, start=0.3 if depth == 2 else 0.6)(seeds) for depth in (2, 3, 4)},
    )
    off = float(((found[2][-1] / form - 1).abs()).max()), float(((found[2][0] / form.sqrt() - 1).abs()).max())
    claims = [
        Claim(
            "Behind two layers a feature weighs phi / (phi² + sigma²), behind the first the square root of it",
            "shown: no weight is off by more than 1 %, in any draw of first weights", f"off by at most {off[1]:.1e} "
            f"(first), {off[0]:.1e} (last); weights {_list(found[2][0, 0])} and {_list(found[2][-1, 0])}",
            verdict(max(off) < 0.01), len(seeds), LINEAR,
        )
    ]  # fmt: skip
    powers = {}
    for depth in (3, 4):
        logs = found[depth].log().flatten(1)
        slope = (logs * logs[-1]).sum(1) / logs[-1].square().sum()
        powers[depth] = [round(v, 4) for v in slope.tolist()]
    law = max(abs(v - (i + 1) / depth) for depth, own in powers.items() for i, v in enumerate(own))
    claims.append(
        Claim(
            "Behind layer l of L a feature weighs its last weight to the power l / L",
            "shown: no power, fitted over features and draws, is off by more than 0.01",
            f"3 layers: {powers[3]}; 4 layers: {powers[4]}", verdict(law < 0.01), len(seeds), LINEAR,
        )
    )  # fmt: skip
    early = {n: Descent(n_steps=n)(seeds).mean(1) for n in (steps // 200, steps // 50)}
    more, samples = _of_samples(args.draws, steps)
    said = {str(n): [_list(v) for v in w] for n, w in early.items()}
    return [*claims, *more], {"powers": powers, "early": said, "samples": samples}


def _of_samples(n_draws: int, n_steps: int) -> tuple[list[Claim], dict[str, Any]]:
    """Theorem 3.6: forty features, of which ten each are middling, disrupted, weak and strong."""
    kinds = {"disrupted": (1.0, 1.0), "too weak": (0.2, 0.4), "too strong": (3.0, 0.0), "middling": (0.7, 0.0)}
    phi, sigma = ([v[i] for v in kinds.values() for _ in range(10)] for i in (0, 1))
    claims, numbers, leads = [], {}, []
    for decay in DECAYS:
        layers = Descent(decay=decay, start=1.0, n_steps=n_steps)([0], phi, sigma)[:, 0]
        wrong = {kind: probe_errors(layers, 10 * k, 20, n_draws) for k, kind in enumerate(kinds)}
        numbers[str(decay)] = {kind: [round(float(v), 4) for v in own.mean(0)] for kind, own in wrong.items()}
        leads.append(sum(own[:, 1] - own[:, 0] for kind, own in wrong.items() if kind in ("disrupted", "too strong")))
        if decay == 0:
            claims = [_needs_fewer(kind, own, n_draws) for kind, own in wrong.items()]
    falls = [_over(a - b) for a, b in pairwise(leads)]
    claims.append(
        Claim(
            "Weight decay makes the lead of the first layer smaller",
            "the lead at features disrupted and too strong; shown: falls with every step of the decay by the whole "
            "interval; partly: with the first; not shown: else",
            f"at decays {DECAYS}: {[round(float(one.mean()) / 2, 4) for one in leads]}",
            verdict(all(one.low > 0 for one in falls), falls[0].low > 0), n_draws, LINEAR,
        )
    )  # fmt: skip
    return claims, numbers


def _over(values: Tensor) -> Interval:
    found = mean_of(values[None], torch.arange(len(values)))
    return Interval(found.value, *found.interval(0.95))


def _needs_fewer(kind: str, wrong: Tensor, n_draws: int) -> Claim:
    first, last = (round(float(v), 4) for v in wrong.mean(0))
    ahead = _over((wrong[:, 1] - wrong[:, 0]) * (1 if kind != "middling" else -1))
    better = "the first layer" if kind != "middling" else "the last layer"
    return Claim(
        f"For a class told by a feature that is {kind}, {better} needs fewer labels",
        f"{better} less often wrong at 20 labels; shown: by the whole interval; not shown: more often, by the whole "
        "interval; too small to tell: else",
        f"wrong {first} (first) and {last} (last); ahead {ahead}", judged(ahead), n_draws, LINEAR,
    )  # fmt: skip


def _list(values: Tensor) -> list[float]:
    return [round(v, 4) for v in values.tolist()]


def lead(section: str, claim: str, measured: Measured, values: Tensor, said: str, n: int = 200) -> Claim:
    """A difference that should lie above 0."""
    found = measured.interval(values)
    return Claim(
        claim, JUDGED, f"{said}; lead {found}; {n} labels", judged(found), values.numel(), section, interval=found
    )


def as_good(section: str, claim: str, measured: Measured, values: Tensor, said: str) -> Claim:
    """A difference that should not lie below -0.03."""
    found = measured.interval(values)
    word = judged(Interval(found.value + CLOSE, found.low + CLOSE, found.high + CLOSE))
    rule = f"shown: all of the interval above -{CLOSE}; not shown: all of it below; too small to tell: else"
    return Claim(claim, rule, f"{said}; difference {found}; 200 labels", word, values.numel(), section)


def of_texture(m: Measured) -> list[Claim]:
    """Claims of digits on textures."""
    base, none, fixed, frozen, permuted = (
        Arm(TEXTURE, "simclr", head, STRONG, DROP) for head in ("mlp", "none", "fixed", "frozen", "permuted")
    )
    strong, weak = (Arm(TEXTURE, "simclr", "mlp", strength) for strength in (STRONG, WEAK))

    def each(arm: Arm) -> str:
        return f"{m.right(arm, 'pre').mean():.3f} before and {m.right(arm, 'post').mean():.3f} behind"

    def pre(a: Arm, b: Arm) -> Tensor:
        return m.right(a, "pre") - m.right(b, "pre")

    return asked(
        lambda: lead(
             TEXTURE, "Where views often go without the digit, more of it is left before the head than behind it", m,
             m.gap(base), f"dropped from {DROP:.0%} of views: {each(base)}"),
        lambda: lead(TEXTURE, "With few labels the same", m, m.gap(base, 20), "before less behind", 20),
        lambda: lead(TEXTURE, "Dropping the digit costs more behind the head than before it", m,
             m.gap(base) - m.gap(strong), f"{each(base)}, never dropped {each(strong)}"),
        lambda: lead(TEXTURE, "Also where the digit is very weak and never dropped", m, m.gap(weak), each(weak)),
        lambda: lead(TEXTURE, "Also where it is very strong and never dropped", m, m.gap(strong), each(strong)),
        lambda: lead(TEXTURE, "A network with an mlp head keeps more before it than one without a head has", m,
             pre(base, none), f"{each(base)}; without {m.right(none, 'pre').mean():.3f}"),
        lambda: as_good(TEXTURE, "What stands before the fixed head is about as good as before an mlp", m,
                pre(fixed, base), f"fixed {each(fixed)}"),
        lambda: lead(TEXTURE, "The fixed head, too, has less behind it than before it", m, m.gap(fixed), each(fixed)),
        lambda: no_difference(
            "Control: the order of the fixed weights does not matter", m, pre(permuted, fixed),
            f"permuted {each(permuted)}",
        ),
        lambda: lead(TEXTURE, "Control: an mlp that learns keeps more before it than one that stays random", m,
             pre(base, frozen), f"random {each(frozen)}"),
    )  # fmt: skip


def no_difference(claim: str, m: Measured, values: Tensor, said: str) -> Claim:
    """A difference that should not be one."""
    found = m.interval(values)
    inside, outside = found.low > -CLOSE and found.high < CLOSE, found.low > CLOSE or found.high < -CLOSE
    rule = f"shown: within {CLOSE} of 0 with the whole interval; not shown: outside with it; too small to tell: else"
    word: Verdict = "shown" if inside else "not shown" if outside else "too small to tell"
    return Claim(claim, rule, f"{said}; difference {found}; 200 labels", word, values.numel(), TEXTURE)


def asked(*makers: Callable[[], Claim]) -> list[Claim]:
    """Claims of which every network was run."""
    found = []
    for make in makers:
        with suppress(NotRunError):
            found.append(make())
    return found


def of_classes(m: Measured, section: str, objective: str, what: str) -> list[Claim]:
    """Claims of training with classes."""
    none, mlp, fixed = (Arm(section, objective, head) for head in ("none", "mlp", "fixed"))
    label = objective.replace("_", " ")

    def each(arm: Arm) -> str:
        return f"{arm.head} {m.right(arm, 'pre').mean():.3f} before and {m.right(arm, 'post').mean():.3f} behind"

    def pre(a: Arm, b: Arm) -> Tensor:
        return m.right(a, "pre") - m.right(b, "pre")

    return asked(
        lambda: lead(section, f"{label}: {what} is better told before an mlp than behind it", m, m.gap(mlp), each(mlp)),
        lambda: lead(section, f"{label}: and better than by a network without a head", m, pre(mlp, none), each(none)),
        lambda: as_good(section, f"{label}: before the fixed head about as well as before an mlp", m, pre(fixed, mlp),
                each(fixed)),
    )  # fmt: skip


def run(args: argparse.Namespace) -> Report:
    begun = time.perf_counter()
    linear, numbers = of_linear(args)
    seconds = time.perf_counter() - begun
    m = parts(args)
    claims = linear + of_texture(m)
    claims += of_classes(m, COARSE, "supcon", "the digit") + of_classes(m, COARSE, "cross_entropy", "the digit")
    claims += of_classes(m, COLOUR, "cross_entropy", "the class, where the ink speaks against it,")
    table = {
        " ".join(str(v) for v in asdict(arm).values()): {
            f"{name} {n}": m.interval(m.right(arm, name, n)).rounded() for name in ("pre", "post") for n in LABELS
        }
        for arm in arms()
        if m.has(arm)
    }
    left_out = [
        f"{arm.section}, {arm.objective}, {arm.head}, strength {arm.strength:g}" for arm in arms() if not m.has(arm)
    ]
    cpu = sum(one["cpu"] for one in m.found.values())
    return Report(
        "projection_head", "What does a representation keep before its projection head, and lose behind it?",
        "Xue et al. 2024, arXiv:2403.11391",
        f"scikit-learn's 1,797 digits (597 to test on) at 16 px on drawn textures of 32 px; the linear model's own "
        f"features; {args.seeds} draws of weights, order, views and labels",
        f"a small residual network from nothing, 64 wide; {args.steps} steps of {BATCH}; {len(table)} networks a draw",
        command("projection_head"), machine(), round(seconds + sum(o["seconds"] for o in m.found.values()), 1),
        args.seed, tuple(claims),
        ("A network of 0.1 million weights and some hundred steps, not ResNets for 200 to 400 epochs on CIFAR",
         "Digits on textures in the place of MNIST on CIFAR-10; even and odd in the place of CIFAR-100's superclasses; "
         "coloured ink in the place of Waterbirds and the like; no shifted ImageNet",
         "Probes on vectors that are centred and scaled by one number, the penalty chosen for each; scaling each "
         "coordinate would undo the fixed head",
         "AdamW; the fixed head's kappa is 1.2 (SimCLR, cross entropy) or 1.5 (SupCon) on 64 coordinates, named before "
         "the run; the network is normalised by groups, the heads are not normalised",
         "Group-balanced labels for the probe where ink has a colour, as in the paper's retraining of the last layer; "
         "told is how often those are right whose ink speaks against their class, not the worst of four groups",
         "Two settings were looked at before (strength 0.4 with a drop of 0.9, one network; 0.3 without, three), in "
         "which next to nothing of the digit was left on either side; of the planned grid of strengths and drops two "
         "strengths and one drop were run, without a linear head, early stopping and weight decay of networks",
         "Weight decay in the linear model was first judged by the largest over the smallest weight, which does not "
         "change with it: two of the four features obey one equation in other units. It is judged by labels now",
         "The weak feature of the linear model (strength 0.2, noise 0.4) weighs 1 behind the last layer, more than the "
         "disrupted and the strong one: it is weak beside its noise, not in its weight",
         "Intervals are of test pictures and of the draws, which are few: an interval is as wide as two degrees of "
         "freedom make it",
         *([f"The run was stopped; left out, with their claims: {'; '.join(left_out)}"] if left_out else [])),
        {"linear": numbers, "networks": table, "cpu_seconds": round(cpu, 1)},
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> Report:
    options: argparse.ArgumentParser = parser(__doc__ or "", "projection_head")
    options.add_argument("--seeds", type=int, default=3, help="draws of weights, order, views and labels; 2 at least")
    options.add_argument("--steps", type=int, default=120, help="batches of 64 pictures")
    options.add_argument("--pictures", type=int, default=None, help="to learn from; left out, all 1,200")
    options.add_argument("--draws", type=int, default=300, help="of pictures, for probes in the linear model")
    options.add_argument("--linear-steps", type=int, default=8_000, help="of gradient descent in the linear model")
    options.add_argument("--finished", action="store_true", help="train nothing more; report what is there")
    return deliver(options, run, arguments)


if __name__ == "__main__":
    main()
