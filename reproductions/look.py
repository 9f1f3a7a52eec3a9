"""LOOK: does training on coarse classes by nearest neighbours keep more of the finer classes?

    python reproductions/look.py --out look.json
    python reproductions/look.py --seeds 2 --steps 10 --pictures 240 --out look.json

Feng et al. 2021 (arXiv 2110.06014). A small network learns coarse classes: even and odd digits, the shape of drawn
shapes, or a mark on a scene. The scene is much easier to see than the mark, and not needed for it. All arms have as
many steps. A linear layer on the frozen vectors then predicts the digit, the colour and texture, or the mark with its
scene. A draw of digits or marks takes three quarters of a minute on one idle core, a draw of shapes twice as long; a
stopped run continues after its last whole part.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from claims import Claim, Interval, Report, Verdict, command, deliver, judged, machine, parser, rule_of
from coarse_worlds import SIDE, Moved, World, digits, marks, shapes
from jaxtyping import Float, Int
from power import Compared, compared, interval, rule
from torch import Tensor, nn
from torch.nn.functional import normalize, one_hot

from seewhy.classifiers.linear.choosing import c_path
from seewhy.classifiers.linear.solvers import fit_linear
from seewhy.encoders.new import Residual
from seewhy.learning.encoders.projection import Form, Projection
from seewhy.learning.objectives.pictures import Vectors
from seewhy.learning.objectives.vectors import LOOK, CrossEntropy, SimCLR, SupCon
from seewhy.learning.pretrain import Views
from seewhy.seeded import seeded
from seewhy.storage.output import write_atomic
from seewhy.studies.faithfulness_findings import kendall_tau
from seewhy.training.batches import TrainingData
from seewhy.training.loop import Training, train

WIDTH, PROJECTED = 64, 32
"""Of the vectors, and behind the projection."""
KS = (5, 10, 50)
K = 10
"""Neighbours of the LOOK that claims are of; said before any run."""
SHARES = (0.01, 0.1, 1.0)
"""Of the fine labels."""
DRAWS = (5, 3, 1)
"""Of the labels at each share, on average."""
NEAR = 10
"""Neighbours whose fine class is looked at."""
MOMENTUM = 0.9
"""Of the slow copy at first. With the library's 0.99 it still had 29 % of its first weights after 250 steps."""


@dataclass(frozen=True)
class Arm:
    """How a network is taught.

    Attributes:
        objective: what is made small; without one nothing is learnt.
        projection: what stands behind the network.
        weight_decay: of AdamW.
        part: of the steps.
    """

    objective: Vectors | None
    projection: Form = "mlp"
    weight_decay: float = 1e-4
    part: float = 1.0


CE, ALL, RANDOM, AT_ONCE = "cross entropy", "k = all", "random", f"k = {K} from the first step"
CONTROLS = {
    "cross entropy, no projection": Arm(CrossEntropy(), "none"),
    "cross entropy, weight decay": Arm(CrossEntropy(), weight_decay=1.0),
    "cross entropy, a quarter of the steps": Arm(CrossEntropy(), part=0.25),
}


DRAWN = {"marks": marks, "shapes": shapes}
FINES = {"marks": ("both",), "digits": ("digit",), "shapes": ("colour", "texture")}
"""World → what is asked of it."""
DATA = {
    "marks": "{n} drawn marks on scenes, the mark told, both asked, {draws} draws",
    "digits": "scikit-learn's 1,797 digits, even or odd told, the digit asked, {draws} draws",
    "shapes": "{n} drawn shapes of {side} px, the shape told, colour and texture asked, {draws} draws",
}
ARMS: dict[str, Arm] = {
    RANDOM: Arm(None),
    CE: Arm(CrossEntropy()),
    "SupCon": Arm(SupCon()),
    **{f"k = {k}": Arm(LOOK(k=k, momentum=MOMENTUM)) for k in KS},
    ALL: Arm(LOOK(k=0, momentum=MOMENTUM)),
    AT_ONCE: Arm(LOOK(k=K, cold="own_class", momentum=MOMENTUM)),
    "SimCLR": Arm(SimCLR()),
    **CONTROLS,
}


def network(seed: int, channels: int, side: int) -> nn.Module:
    """A stem and two stages; vectors are the mean over cells."""
    stride = 1 if side < 16 else 2
    with seeded(seed):
        return nn.Sequential(
            nn.Conv2d(channels, 16, 3, stride, 1, bias=False), nn.GroupNorm(8, 16), nn.ReLU(),
            Residual(16, 32, 2), Residual(32, WIDTH, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        )  # fmt: skip


def learnt(arm: Arm, world: World, seed: int, steps: int) -> tuple[nn.Module, nn.Module, dict[str, float]]:
    """The network of an arm and its projection, frozen, and the last terms; all arms begin alike."""
    trunk, projection = network(seed, *world.pictures.shape[1:3]), Projection(arm.projection, PROJECTED)
    with seeded(seed + 1):
        head = projection.build(WIDTH)
    if arm.objective is None:
        return trunk.eval().requires_grad_(False), head.requires_grad_(False), {}
    own, n_steps = ~world.held, max(1, round(arm.part * steps))
    labels = world.upstream[own]
    sizes = {"n_classes": int(world.upstream.max()) + 1 if arm.objective.needs_labels else 0, "n_pictures": len(labels)}
    with seeded(seed + 2):
        task = Views(trunk, head, arm.objective, width=projection.out_width(WIDTH), n_steps=n_steps, **sizes)
    data = TrainingData(len(labels), {"views": Moved(world.pictures[own], arm.objective.n_views), "labels": labels})
    how = Training(
        n_steps, 128, lr=2e-3, weight_decay=arm.weight_decay, schedule="cosine", warmup=n_steps // 10, seed=seed
    )
    done = train(task, data, how)
    return trunk, head, {name: round(value, 4) for name, value in done.history[-1].items()}


@torch.no_grad()
def vectors(trunk: nn.Module, pictures: Tensor) -> Float[Tensor, "n d"]:
    return torch.cat([trunk(part) for part in pictures.split(256)])


def some(labels: Int[Tensor, " n"], share: float, draw: torch.Generator) -> Int[Tensor, " m"]:
    """Rows: of each class a share, one at least."""
    rows = []
    for label in labels.unique():
        own = (labels == label).nonzero()[:, 0]
        rows.append(own[torch.randperm(len(own), generator=draw)[: max(1, round(share * len(own)))]])
    return torch.cat(rows)


def probe(x: Tensor, y: Tensor, held_x: Tensor, held_y: Tensor, share: float, n_draws: int, seed: int) -> float:
    """How often a linear layer on a share of the labels is right on others; on average over draws of those.

    Vectors are centred and scaled by those of all pictures that are fitted on. The penalty is C = 1 where there are too
    few labels to choose it, and chosen on a quarter of them otherwise.
    """
    mean, scale = x.mean(0), x.std(0).clamp_min(1e-6)
    x, held_x = (x - mean) / scale, (held_x - mean) / scale
    n_classes, draw, right = int(y.max()) + 1, torch.Generator().manual_seed(seed), 0.0
    for _ in range(n_draws):
        rows = some(y, share, draw)
        if share < 0.05:
            fit = fit_linear(x[rows], y[rows], n_classes)
        else:
            folds = torch.where(torch.rand(len(rows), generator=draw) < 0.25, 0, -1)
            fit = c_path(x[rows], y[rows], n_classes, folds, grid=(0.001, 0.01, 0.1, 1.0)).fit
        right += float((fit.logits(held_x).argmax(1) == held_y).float().mean())
    return right / n_draws


def ratio(x: Float[Tensor, "n d"], y: Int[Tensor, " n"]) -> float:
    """Variance of unit vectors within coarse classes, as a multiple of that between their means."""
    unit, each = normalize(x, dim=1), one_hot(y).float()
    means = (each.T @ unit) / each.sum(0)[:, None]
    within, between = (unit - means[y]).pow(2).sum(), (means[y] - unit.mean(0)).pow(2).sum()
    return float(within / between)


def purity(x: Tensor, y: Tensor, held_x: Tensor, held_y: Tensor) -> float:
    """Part of the nearest others that are of one's own class."""
    near = (normalize(held_x, dim=1) @ normalize(x, dim=1).T).topk(NEAR, 1).indices
    return float((y[near] == held_y[:, None]).float().mean())


def votes(x: Tensor, y: Tensor, held_x: Tensor, held_y: Tensor) -> float:
    """How often most of the nearest others are of one's own class."""
    near = (normalize(held_x, dim=1) @ normalize(x, dim=1).T).topk(NEAR, 1).indices
    return float((one_hot(y)[near].sum(1).argmax(1) == held_y).float().mean())


def examine(arm: str, world: World, seed: int, steps: int) -> dict[str, Any]:
    """One arm on one draw."""
    begun, cpu = time.perf_counter(), time.process_time()
    trunk, head, last = learnt(ARMS[arm], world, seed, steps)
    held, up = world.held, world.upstream
    x = vectors(trunk, world.pictures)
    behind = vectors(head, x)
    parts = [x[~held], up[~held], x[held], up[held]]
    found = {
        "upstream": probe(*parts, 1.0, 1, seed),
        "upstream votes": votes(*parts),
        "ratio": ratio(x[held], up[held]),
    }
    for name, fine in world.downstream.items():
        parts = [x[~held], fine[~held], x[held], fine[held]]
        for share, n_draws in zip(SHARES, DRAWS, strict=True):
            found[f"{name} {share:.0%}"] = probe(*parts, share, n_draws, seed)
        found[f"{name} purity"] = purity(*parts)
        found[f"{name} behind"] = probe(behind[~held], fine[~held], behind[held], fine[held], 1.0, 1, seed)
    seconds = {"seconds": round(time.perf_counter() - begun, 1), "cpu": round(time.process_time() - cpu, 1)}
    return {"found": {name: round(value, 4) for name, value in found.items()}, "last": last, **seconds}


def parts(args: argparse.Namespace) -> dict[tuple[str, str, int], dict[str, Any]]:
    """Every arm on every draw; what an earlier run of the same settings left beside the report is taken as it is."""
    found: dict[tuple[str, str, int], dict[str, Any]] = {}
    draws = {"marks": args.seeds, "digits": args.other_seeds, "shapes": args.other_seeds}
    for world_name, seed in ((name, args.seed + i) for name in args.worlds for i in range(draws[name])):
        world = digits(seed) if world_name == "digits" else DRAWN[world_name](seed, args.pictures)
        for arm in ARMS:
            settings = f"{world.name}-{arm}-{seed}-{args.steps}-{args.pictures}".replace(" ", "_")
            kept = None if args.out is None else args.out.parent / f".{args.out.stem}.parts" / f"{settings}.json"
            if kept is not None and kept.exists():
                found[world.name, arm, seed] = json.loads(kept.read_text("utf-8"))
                continue
            one = found[world.name, arm, seed] = examine(arm, world, seed, args.steps)
            if kept is not None:
                kept.parent.mkdir(exist_ok=True)
                write_atomic(kept, json.dumps(one))
            print(world.name, arm, seed, one["cpu"], "s", one["found"], flush=True)
    return found


class Measured:
    """What all draws give of one world.

    Args:
        found: arm and seed → its figures.
    """

    def __init__(self, found: dict[tuple[str, int], dict[str, float]]) -> None:
        self.found, self.seeds = found, sorted({seed for _, seed in found})

    def each(self, arm: str, name: str) -> list[float]:
        """Of every draw."""
        return [self.found[arm, seed][name] for seed in self.seeds]

    def value(self, arm: str, name: str) -> Interval:
        return interval(self.each(arm, name))

    def lead(self, arm: str, over: str, name: str) -> Interval:
        """On the same draws."""
        return self.beside(arm, over, name).found

    def beside(self, arm: str, over: str, name: str) -> Compared:
        return compared(self.each(arm, name), self.each(over, name))


LOOKS = f"k = {K}"
TENTH = "10%"
MATCHED = 0.02
"""By so much the coarse classes may be told worse."""


def weakest(verdicts: Sequence[Verdict]) -> Verdict:
    """Of several that must all be shown."""
    order: tuple[Verdict, ...] = ("not shown", "too small to tell", "partly", "shown")
    return min(verdicts, key=order.index)


def of_lead(measured: Measured, section: str, fine: str, claim: str, over: str, arm: str = LOOKS) -> Claim:
    """LOOK ahead of another arm at a tenth of the labels, with the coarse classes as well told."""
    name = f"{fine} {TENTH}"
    test, up = measured.beside(arm, over, name), measured.lead(arm, over, "upstream")
    others = ", ".join(f"{share:.0%}: {measured.lead(arm, over, f'{fine} {share:.0%}')}" for share in (0.01, 1.0))
    return Claim(
        claim,
        f"right with {K} neighbours at 10 % of the labels; {rule()}; partly: above 0, and the coarse classes told more "
        f"than {MATCHED} worse",
        f"{test}; at {others}; lead in the coarse classes {up}",
        "partly" if test.found.low > 0 and up.value < -MATCHED else test.verdict, len(measured.seeds), section,
        interval=test.found,
    )  # fmt: skip


def of_ks(measured: Measured, section: str, fine: str) -> Claim:
    """The fewer neighbours, the more is kept."""
    name, order = f"{fine} {TENTH}", [*(f"k = {k}" for k in KS), ALL]
    means, test = [measured.value(arm, name).value for arm in order], measured.beside(order[0], ALL, name)
    tau = kendall_tau([float(i) for i in range(len(order))], means)
    return Claim(
        "The fewer neighbours, the more of the finer classes is kept",
        f"{KS[0]} beside all; {rule()}; partly: above 0, and Kendall's tau of k with what is right above -0.6",
        f"{', '.join(f'{arm} {mean:.3f}' for arm, mean in zip(order, means, strict=True))}; tau {tau:.2f}; {test}",
        "partly" if test.found.low > 0 and tau > -0.6 else test.verdict, len(measured.seeds), section,
        interval=test.found,
    )  # fmt: skip


def of_controls(measured: Measured, section: str, fine: str) -> Claim:
    """What else is known to keep more."""
    tests = {arm: measured.beside(LOOKS, arm, f"{fine} {TENTH}") for arm in CONTROLS}
    return Claim(
        "It is not for the projection, the weight decay or the length of the training",
        "the weakest of three leads, over cross entropy without projection, with weight decay and with a quarter of "
        f"the steps; {rule()}",
        "; ".join(
            f"{arm}, which tells {measured.value(arm, 'upstream').value:.3f} of the coarse classes: {test}"
            for arm, test in tests.items()
        ),
        weakest([one.verdict for one in tests.values()]), len(measured.seeds), section,
        interval=min((one.found for one in tests.values()), key=lambda one: one.low),
    )  # fmt: skip


def of_places(measured: Measured, section: str, fine: str) -> Claim:
    """A class may lie in several places."""
    wide, pure = measured.lead(LOOKS, CE, "ratio"), measured.lead(LOOKS, CE, f"{fine} purity")
    return Claim(
        "A coarse class keeps several places, which are the finer classes",
        "more variance within coarse classes beside that between them, and more of the nearest ten of the same finer "
        f"class, than by cross entropy; the weaker of two; {rule_of()}",
        f"within through between {measured.value(LOOKS, 'ratio')} and {measured.value(CE, 'ratio')}, lead {wide}; "
        f"nearest {measured.value(LOOKS, f'{fine} purity')} and {measured.value(CE, f'{fine} purity')}, lead {pure}",
        weakest([judged(wide), judged(pure)]), len(measured.seeds), section, interval=pure,
    )  # fmt: skip


def of_start(measured: Measured, section: str) -> Claim:
    """Whether few neighbours teach a network that has learnt nothing."""
    lead, spread = measured.lead(AT_ONCE, LOOKS, "upstream"), measured.each(AT_ONCE, "spread")
    within = Interval(lead.value + MATCHED, lead.low + MATCHED, lead.high + MATCHED)
    return Claim(
        "A few neighbours teach from the first step on",
        f"how the coarse classes are told, less where k falls from all to {K}; shown: above -{MATCHED} with its whole "
        f"interval; not shown: below -{MATCHED} with its whole interval; too small to tell: else",
        f"{lead}; spread of what is compared, at the end, by draw {', '.join(f'{one:.3f}' for one in spread)}; of a "
        f"falling k {', '.join(f'{one:.3f}' for one in measured.each(LOOKS, 'spread'))}",
        judged(within), len(measured.seeds), section, interval=lead,
    )  # fmt: skip


def claims_of(measured: Measured, world: str, fines: Sequence[str]) -> list[Claim]:
    made = []
    for fine in fines:
        section = world if len(fines) == 1 else f"{world}, {fine}"
        pairs = (
            ("An encoder taught by its neighbours keeps more of the finer classes than by cross entropy", CE),
            ("More than by SupCon", "SupCon"),
            ("More than without any class (SimCLR)", "SimCLR"),
            ("More than a network that has learnt nothing", RANDOM),
        )
        made += [of_lead(measured, section, fine, claim, over) for claim, over in pairs]
        start = f"With {K} neighbours from the first step on, more than by"
        made.append(of_lead(measured, section, fine, f"{start} cross entropy", CE, AT_ONCE))
        late = "(added when the draws had been seen)"
        made.append(of_lead(measured, section, fine, f"{start} SupCon {late}", "SupCon", AT_ONCE))
        made += [one(measured, section, fine) for one in (of_ks, of_controls, of_places)]
    return [*made, of_start(measured, world)]


def run(args: argparse.Namespace) -> Report:
    found = parts(args)
    of = {
        world: Measured({
            (arm, seed): {**one["found"], "spread": one["last"].get("spread", 0.0)}
            for (name, arm, seed), one in found.items() if name == world
        })
        for world in args.worlds
    }  # fmt: skip
    claims = [claim for world, measured in of.items() for claim in claims_of(measured, world, FINES[world])]
    cpu = sum(one["cpu"] for one in found.values())
    return Report(
        "look", "Does an encoder that is taught coarse classes by its neighbours keep more of the fine ones?",
        "Feng et al. 2021, arXiv:2110.06014",
        "; ".join(DATA[world].format(n=args.pictures, side=SIDE, draws=len(of[world].seeds)) for world in args.worlds)
        + "; a third of each measured on",
        f"a small residual network from nothing, {WIDTH} wide, an MLP of {PROJECTED} behind it while it learns; "
        f"{args.steps} steps of 128 pictures",
        command("look"), machine(), round(sum(one["seconds"] for one in found.values()), 1), args.seed, tuple(claims),
        ("No code is public and the body of the paper was not at hand: the loss is rebuilt from its abstract",
         "Seconds from nothing on a small network, not ImageNet on ResNet-50",
         "k falls from the whole store to its value in the first two fifths of the steps; that this is needed was seen "
         "on a draw that is not reported, as was how hard the shapes are",
         f"The store holds a vector of every training picture by a slow copy, momentum {MOMENTUM} rising to 1",
         "How strong marks, scenes and noise are was set on draws that are not reported",
         "AdamW at 0.002; views are turned, sized and moved a little, in their own colours, the same in every arm",
         "SimCLR and SupCon see two views of each picture, the others one, in as many steps",
         "Intervals are Student's over draws of the split, the first weights and the labels that are given"),
        {world: _numbers(measured) for world, measured in of.items()} | {"cpu_seconds": round(cpu, 1)},
    )  # fmt: skip


def _numbers(measured: Measured) -> dict[str, Any]:
    names = [n for n in next(iter(measured.found.values())) if not n.endswith(("behind", "votes", "100%"))]
    arms_ = dict.fromkeys(arm for arm, _ in measured.found)
    return {arm: {name: measured.value(arm, name).rounded() for name in names} for arm in arms_}


def main(arguments: Sequence[str] | None = None) -> Report:
    options: argparse.ArgumentParser = parser(__doc__ or "", "look")
    options.add_argument("--seeds", type=int, default=5, help="draws of marks: of the split, first weights, pictures")
    options.add_argument("--other-seeds", type=int, default=3, help="draws of digits and shapes")
    options.add_argument("--worlds", nargs="+", choices=FINES, default=["marks", "digits"], help="shapes cost most")
    options.add_argument("--steps", type=int, default=250, help="batches of 128 pictures")
    options.add_argument("--pictures", type=int, default=1800, help="drawn shapes")
    return deliver(options, run, arguments)


if __name__ == "__main__":
    main()
