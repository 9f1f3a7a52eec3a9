"""PixPro: do matching cells of two crops make better segmentation maps than whole views?

    python reproductions/pixpro.py --camvid CAMVID --out pixpro.json
    python reproductions/pixpro.py --seeds 1 --steps 20 --pictures 100 --labelled 40 --out pixpro.json

Xie et al. 2020 (arXiv 2011.10043). Drawn scenes of textured objects with known pixels: small networks learn from
pictures alone, with as many steps in every arm, and a linear layer on each frozen cell predicts the texture. The same
is done for street scenes (CamVid: a folder with train and test, each with images and labels). Takes six minutes on one
idle core; a stopped run continues after its last whole part.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from claims import Claim, Interval, Report, command, deliver, machine, parser, verdict
from jaxtyping import Float, Int, UInt8
from PIL import Image
from textured_scenes import N_CLASSES, SIDE, TEXTURES, Views, normalised, scenes
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize

from seewhy.classifiers.linear.choosing import c_path
from seewhy.encoders.base import Layout
from seewhy.encoders.new import Residual
from seewhy.learning.encoders.projection import Projection
from seewhy.learning.objectives.regional import PixPro, apart
from seewhy.learning.pretrain import DenseViews, OneMap
from seewhy.seeded import seeded
from seewhy.storage.output import write_atomic
from seewhy.studies.bootstrap import paired
from seewhy.training.batches import TrainingData
from seewhy.training.loop import Training, train

ARMS: dict[str, PixPro | None] = {
    "random": None,
    "instance": PixPro(cell_weight=0.0, instance_weight=1.0),
    "no propagation": PixPro(form="plain"),
    "PixPro": PixPro(),
    "PixPro + instance": PixPro(instance_weight=1.0),
    "PixContrast": PixPro(form="contrast"),
}
STREETS = ("random", "instance", "PixPro")
"""Arms on CamVid."""
STREET_CLASSES = 11
SCENES, CAMVID = "drawn scenes", "street scenes (CamVid)"
WIDTH, CROP = 64, 64
"""Channels of the last map, and side of the views in pixels."""
SCALE = (0.2, 1.0)
"""Area of a view, as a part of its picture."""


@dataclass(frozen=True)
class World:
    """Pictures to learn from, and those with labels that the linear layer is fitted and measured on.

    Attributes:
        alone: without labels.
        fitted: pictures and the class of each pixel; beyond the classes is not counted.
        held: others.
        n_classes: how many.
        step: of the cells that the layer is fitted on: every one, or every second one, either way.
    """

    alone: UInt8[Tensor, "n 3 h w"]
    fitted: tuple[UInt8[Tensor, "n 3 h w"], Int[Tensor, "n h w"]]
    held: tuple[UInt8[Tensor, "n 3 h w"], Int[Tensor, "n h w"]]
    n_classes: int
    step: int = 1


def drawn(seed: int, args: argparse.Namespace) -> World:
    """A draw of the scenes."""
    alone, _ = scenes(args.pictures, 3 * seed)
    return World(alone, scenes(args.labelled, 3 * seed + 1), scenes(args.labelled, 3 * seed + 2), N_CLASSES)


def streets(folder: Path) -> World:
    """The training pictures are learnt from and fitted on; the test pictures are measured on."""
    train_, test = (_labelled(folder / part) for part in ("train", "test"))
    return World(train_[0], train_, test, STREET_CLASSES, step=2)


def _labelled(folder: Path) -> tuple[Tensor, Tensor]:
    pictures, labels = [], []
    for file in sorted((folder / "labels").iterdir()):
        with Image.open(next((folder / "images").glob(f"{file.stem}.*"))) as image:
            pictures.append(torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1))
        with Image.open(file) as image:
            labels.append(torch.from_numpy(np.array(image)).long())
    return torch.stack(pictures), torch.stack(labels)


def network(seed: int) -> nn.Module:
    """Three stages; an eighth of the side remains."""
    with seeded(seed):
        made = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.GroupNorm(8, 16), nn.ReLU(),
            Residual(16, 32, 2), Residual(32, WIDTH, 2),
        )  # fmt: skip
    return made.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def learnt(arm: str, world: World, seed: int, steps: int) -> tuple[nn.Module, dict[str, float]]:
    """The network of an arm, frozen, and the last terms of its training; all arms begin alike."""
    trunk, objective = network(seed), ARMS[arm]
    if objective is None:
        return trunk.eval().requires_grad_(False), {}
    with seeded(seed + 1):
        head = Projection("mlp", WIDTH, normalised=True)
        task = DenseViews(OneMap(trunk, Layout()), head, objective, n_in=WIDTH, n_steps=steps)
    how = Training(steps, 32, lr=2e-3, weight_decay=1e-4, schedule="cosine", warmup=steps // 10, seed=seed)
    views = Views(world.alone, CROP, SCALE)
    done = train(task, TrainingData(len(world.alone), views.columns()), how)
    return trunk, {name: round(value, 4) for name, value in done.history[-1].items()}


@torch.no_grad()
def maps_of(trunk: nn.Module, pictures: UInt8[Tensor, "n 3 h w"]) -> Float[Tensor, "n c gh gw"]:
    return torch.cat([trunk(normalised(part.float() / 255)) for part in pictures.split(16)])


def deviation(maps: Float[Tensor, "n c gh gw"]) -> float:
    """Of cells of unit length by channel, times the root of the channels' number: 0 where all have become one."""
    unit = normalize(maps, dim=1).transpose(0, 1).flatten(1)
    return float(unit.std(1).mean() * len(unit) ** 0.5)


def majority(labels: Int[Tensor, "n h w"], grid: tuple[int, int], n_classes: int) -> Int[Tensor, "n gh gw"]:
    """The class of most pixels of each cell; ``n_classes`` where that is none of them."""
    high, wide = labels.shape[1] // grid[0], labels.shape[2] // grid[1]
    cells = labels.unfold(1, high, high).unfold(2, wide, wide).flatten(3)
    counts = torch.stack([(cells == k).sum(3) for k in range(n_classes)], 3)
    most = counts.max(3)
    return torch.where(2 * most.values > high * wide, most.indices, n_classes)


def layer(x: Float[Tensor, "n d"], y: Int[Tensor, " n"], held: Tensor, n_classes: int) -> Callable[[Tensor], Tensor]:
    """A linear layer on rows, its penalty chosen on those that are held out of the fit."""
    mean, scale = x.mean(0), x.std(0).clamp_min(1e-6)
    folds = torch.where(held, 0, -1)
    best = c_path((x - mean) / scale, y, n_classes, folds, grid=[c / len(x) for c in (1.0, 10.0, 100.0, 1000.0)]).fit
    return lambda rows: ((rows - mean) / scale) @ best.weight.T + best.bias


@torch.no_grad()
def segmented(trunk: nn.Module, world: World) -> Int[Tensor, "n 2 k"]:
    """Of each held picture and class: pixels that are both said and true, and that are either."""
    own = maps_of(trunk, world.fitted[0])
    grid = (own.shape[2], own.shape[3])
    truth = majority(world.fitted[1], grid, world.n_classes)[:, :: world.step, :: world.step].flatten(1)
    cells = own[:, :, :: world.step, :: world.step].flatten(2).transpose(1, 2)
    held = (torch.arange(len(own)) % 4 == 0)[:, None].expand_as(truth)
    counted = truth < world.n_classes
    say = layer(cells[counted], truth[counted], held[counted], world.n_classes)
    found = []
    for picture, labels in zip(maps_of(trunk, world.held[0]), world.held[1], strict=True):
        scores = say(picture.flatten(1).T).T.unflatten(1, grid)[None]
        said = interpolate(scores, size=labels.shape, mode="bilinear", align_corners=False)[0].argmax(0)
        counted = labels < world.n_classes
        each = [((said == k) & counted, (labels == k) & counted) for k in range(world.n_classes)]
        found.append(torch.tensor([[int((a & b).sum()) for a, b in each], [int((a | b).sum()) for a, b in each]]))
    return torch.stack(found)


@torch.no_grad()
def told(trunk: nn.Module, world: World) -> list[float]:
    """Which held pictures' largest texture a linear layer says from the mean of their cells."""
    x, y = ([maps_of(trunk, p).mean((2, 3)), _largest(labels)] for p, labels in (world.fitted, world.held))
    say = layer(x[0], x[1], torch.arange(len(x[0])) % 4 == 0, len(TEXTURES))
    return (say(y[0]).argmax(1) == y[1]).float().tolist()


def _largest(labels: Int[Tensor, "n h w"]) -> Int[Tensor, " n"]:
    return torch.stack([(labels == k).sum((1, 2)) for k in range(1, N_CLASSES)], 1).argmax(1)


@torch.no_grad()
def same_spot(trunk: nn.Module, world: World) -> float:
    """How often the nearest of another view's cells shows the same spot, of cells that have one."""
    views = Views(world.held[0], CROP, SCALE).columns()
    index, draw = list(range(len(world.held[0]))), torch.Generator().manual_seed(5)
    (one, other), boxes, flipped = (views[name](index, draw) for name in ("views", "boxes", "flipped"))
    x, y = (normalize(trunk(view), dim=1).flatten(2) for view in (one, other))
    near = apart(boxes, flipped, CROP // 8, CROP // 8) < 0.7
    hit = near.gather(2, torch.einsum("bdi,bdj->bij", x, y).argmax(2, keepdim=True))[..., 0]
    return float(hit[near.any(2)].float().mean())


def examine(arm: str, world: World, seed: int, steps: int) -> dict[str, Any]:
    """One arm on one draw."""
    begun, cpu = time.perf_counter(), time.process_time()
    trunk, last = learnt(arm, world, seed, steps)
    found: dict[str, Any] = {"counts": segmented(trunk, world).tolist(), "last": last}
    found["spread"] = round(deviation(maps_of(trunk, world.held[0][:100])), 4)
    if world.n_classes == N_CLASSES:
        found |= {"told": told(trunk, world), "same spot": round(same_spot(trunk, world), 4)}
    seconds = {"seconds": round(time.perf_counter() - begun, 1), "cpu": round(time.process_time() - cpu, 1)}
    return {**found, **seconds}


def parts(args: argparse.Namespace) -> dict[tuple[str, str, int], dict[str, Any]]:
    """Every arm on every draw; what an earlier run of the same settings left beside the report is taken as it is."""
    found: dict[tuple[str, str, int], dict[str, Any]] = {}
    worlds: dict[str, tuple[Sequence[str], int, int, Callable[[int], World]]] = {
        SCENES: (tuple(ARMS), args.seeds, args.steps, lambda seed: drawn(seed, args))
    }
    if args.camvid is not None:
        worlds[CAMVID] = (STREETS, args.street_seeds, args.street_steps, lambda seed: streets(args.camvid))
    for place, (arms, seeds, steps, make) in worlds.items():
        for seed in range(args.seed, args.seed + seeds):
            world = None
            for arm in arms:
                settings = f"{place}-{arm}-{seed}-{steps}-{args.pictures}-{args.labelled}".replace(" ", "_")
                kept = None if args.out is None else args.out.parent / f".{args.out.stem}.parts" / f"{settings}.json"
                if kept is None or not kept.exists():
                    world = world or make(seed)
                    found[place, arm, seed] = examine(arm, world, seed, steps)
                    if kept is not None:
                        kept.parent.mkdir(exist_ok=True)
                        write_atomic(kept, json.dumps(found[place, arm, seed]))
                else:
                    found[place, arm, seed] = json.loads(kept.read_text("utf-8"))
                print(place, arm, seed, found[place, arm, seed]["cpu"], "s", flush=True)
    return found


class Measured:
    """What all draws give of one kind of pictures.

    Args:
        found: arm and seed → what was measured.
        arms: in order.
    """

    def __init__(self, found: dict[tuple[str, int], dict[str, Any]], arms: Sequence[str]) -> None:
        self.arms, self.found = list(arms), found
        self.seeds = sorted({seed for _, seed in found})
        counts = torch.stack(
            [torch.stack([torch.tensor(found[a, s]["counts"]) for s in self.seeds], 1) for a in arms], 1
        ).double()
        self.n, self.k = len(counts), counts.shape[-1]
        sums = counts.flatten(2)
        self.resampled = paired(sums, lambda means: self._each(means).mean(-1))
        self.each = self._each(sums.mean(0))

    def _each(self, means: Float[Tensor, "*n v"]) -> Float[Tensor, "*n seeds"]:
        """Of each seed: the mean over classes that there are."""
        both, either = means.unflatten(-1, (len(self.seeds), 2, self.k)).unbind(-2)
        there = either > 0
        return torch.where(there, both / either.clamp_min(1e-12), 0.0).sum(-1) / there.sum(-1).clamp_min(1)

    def value(self, arm: str) -> Interval:
        i = self.arms.index(arm)
        return Interval(float(self.resampled.values[i]), *self.resampled.interval(i))

    def lead(self, arm: str, over: str) -> tuple[Interval, list[float]]:
        """In mIoU, over resampled pictures; and in each draw."""
        i, j = self.arms.index(arm), self.arms.index(over)
        value, (low, high), _ = self.resampled.difference(i, j)
        return Interval(value, low, high), [round(v, 4) for v in (self.each[i] - self.each[j]).tolist()]


RULE = "shown: above 0 with its whole interval and in every draw; partly: above 0; not shown: else"


def of_leads(section: str, claim: str, measured: Measured, arm: str, over: str) -> Claim:
    """One arm ahead of another in mIoU, by :data:`RULE`."""
    found, each = measured.lead(arm, over)
    said = f"mIoU {measured.value(arm)} and {measured.value(over)}; lead {found}; by draw {', '.join(map(str, each))}"
    word = verdict(found.low > 0 and min(each) > 0, found.value > 0)
    return Claim(claim, RULE, said, word, measured.n * len(measured.seeds), section, interval=found)


def of_whole(measured: Measured) -> Claim:
    """What whole views add."""
    both, alone = (
        torch.tensor([measured.found[arm, s]["told"] for s in measured.seeds]).T
        for arm in ("PixPro + instance", "PixPro")
    )
    sums = torch.stack([both, alone], 1)
    more = paired(sums, lambda means: means.mean(-1))
    value, (low, high), _ = more.difference(0, 1)
    ahead, (cells, _) = Interval(value, low, high), measured.lead("PixPro + instance", "PixPro")
    return Claim(
        "Whole views beside cells help with whole pictures and do not hurt maps",
        "shown: ahead of cells alone in whole pictures with the whole interval, and mIoU not behind with its whole "
        "interval; partly: ahead in whole pictures",
        f"right {float(more.values[0]):.3f} and {float(more.values[1]):.3f}; lead {ahead}; lead in mIoU {cells}",
        verdict(ahead.low > 0 and not cells.high < 0, ahead.value > 0), measured.n * len(measured.seeds), SCENES,
    )  # fmt: skip


def of_spread(measured: Measured) -> Claim:
    """Nothing has become one."""
    each = {arm: [measured.found[arm, s]["spread"] for s in measured.seeds] for arm in measured.arms}
    kept = all(a > 0.5 * b for a, b in zip(each["PixPro"], each["random"], strict=True))
    means = ", ".join(f"{arm} {np.mean(values):.3f}" for arm, values in each.items())
    return Claim(
        "Without any negative, cells do not all become one",
        "shown: the deviation of unit cells by channel is more than half of what it is before training, in every draw",
        means, verdict(kept), len(measured.seeds), SCENES,
    )  # fmt: skip


def run(args: argparse.Namespace) -> Report:
    found = parts(args)
    of = {place: {(a, s): one for (p, a, s), one in found.items() if p == place} for place in {p for p, _, _ in found}}
    drawn_, claims = Measured(of[SCENES], tuple(ARMS)), []
    pairs = (
        ("Cells that find the same spot make better maps than views that find the whole picture", "PixPro", "instance"),
        ("Smoothing over what is alike beats the same without it", "PixPro", "no propagation"),
        ("Pixel to propagation beats PixContrast", "PixPro", "PixContrast"),
        ("Learning from pictures alone beats a network that has learnt nothing", "PixPro", "random"),
    )
    claims += [of_leads(SCENES, *one[:1], drawn_, *one[1:]) for one in pairs]
    claims += [of_whole(drawn_), of_spread(drawn_)]
    numbers = {SCENES: _numbers(drawn_)}
    if CAMVID in of:
        seen = Measured(of[CAMVID], STREETS)
        claims += [of_leads(CAMVID, pairs[i][0], seen, *pairs[i][1:]) for i in (0, 3)]
        numbers[CAMVID] = _numbers(seen)
    cpu = sum(one["cpu"] for one in found.values())
    return Report(
        "pixpro", "Do cells that find the same spot in another crop make better maps than whole views?",
        "Xie et al. 2020, arXiv:2011.10043",
        f"{SCENES}, {SIDE} px, {len(TEXTURES)} textures of any colours, {args.seeds} draws of {args.pictures} without "
        f"labels, {args.labelled} to fit on and {args.labelled} to measure on"
        + (f"; {CAMVID}: 80 and 40, {args.street_seeds} first weights" if CAMVID in of else ""),
        f"a small residual network from nothing, an eighth of the side; {args.steps} steps of 32 pictures"
        + (f", {args.street_steps} on street scenes" if CAMVID in of else ""),
        command("pixpro"), machine(), round(sum(one["seconds"] for one in found.values()), 1), args.seed, tuple(claims),
        ("Seconds from nothing on a small network, not days of ImageNet on ResNet-50",
         "A linear layer on frozen cells, no fine-tuning of detectors",
         f"AdamW, {args.steps} steps and batches of 32; crops of 20 to 100 % of the area, not 8 to 100 %",
         "Brightness, contrast and grey, no hue, blur or solarisation",
         "The trunk is normalised by groups, heads by the batch, as the authors' are",
         "Textures and colours of the scenes were made easier to tell after a look at a draw that is not reported",
         "The largest texture of a whole picture is told little above chance (0.2) by any arm: that claim had no room",
         "Intervals resample test pictures, the same in all arms; draws stand beside them"),
        {**numbers, "cpu_seconds": round(cpu, 1)},
    )  # fmt: skip


def _numbers(measured: Measured) -> dict[str, Any]:
    rows = {}
    for i, arm in enumerate(measured.arms):
        own = [measured.found[arm, s] for s in measured.seeds]
        row: dict[str, Any] = {
            "mIoU": measured.value(arm).rounded(),
            "by draw": [round(v, 4) for v in measured.each[i].tolist()],
        }
        row |= {
            "spread": [one["spread"] for one in own],
            "last": {n: v for n, v in own[0]["last"].items() if n != "spread"},
        }
        if "told" in own[0]:
            row |= {
                "whole": [round(float(np.mean(one["told"])), 4) for one in own],
                "same spot": [o["same spot"] for o in own],
            }
        rows[arm] = row
    return rows


def main(arguments: Sequence[str] | None = None) -> Report:
    options: argparse.ArgumentParser = parser(__doc__ or "", "pixpro")
    options.add_argument(
        "--camvid", type=Path, help="street scenes: a folder with train and test, of images and labels"
    )
    options.add_argument("--seeds", type=int, default=3, help="draws of scenes, and of first weights")
    options.add_argument("--street-seeds", type=int, default=3, help="first weights on street scenes")
    options.add_argument("--steps", type=int, default=150, help="batches of 32 pictures, on drawn scenes")
    options.add_argument("--street-steps", type=int, default=150, help="the same on street scenes")
    options.add_argument("--pictures", type=int, default=2000, help="drawn scenes without labels")
    options.add_argument(
        "--labelled", type=int, default=300, help="drawn scenes to fit the layer on, and as many to measure"
    )
    return deliver(options, run, arguments)


if __name__ == "__main__":
    main()
