"""DITO: do heads that learn from captions find what no box was drawn of, and what do blending and shifted windows add?

    python reproductions/dito.py --out dito.json
    python reproductions/dito.py --seeds 1 --steps 4 --pictures 64 --scenes 24 --out dito.json

Kim et al. 2023 (arXiv 2310.00161). Drawn scenes of coloured shapes with captions. Four of sixteen pairs of a colour and
a shape are in captions and never in a box. Arm A learns whole pictures from captions; arm B besides, with as many
steps, a detector's pyramid and heads by random boxes. Then both learn the same boxes of the other twelve pairs on their
frozen trunks, A with new heads. Four minutes of one idle core; a run that was stopped goes on after its last whole
part.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from claims import Claim, Interval, Report, command, deliver, lead, machine, mean_of, parser, verdict
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize
from torchvision.ops import batched_nms
from worded_scenes import BASE, MOST, NAMES, NOVEL, SIDE, WORDS, Scenes, normalised, scenes, tokens

from seewhy.dense.reader import box_means
from seewhy.dense.two_stage import Blend, TwoStage, TwoStageLearning, shrunk
from seewhy.encoders.base import Layout
from seewhy.encoders.new import Patches, Residual
from seewhy.encoders.region_heads import HeadSizes, RegionHeads
from seewhy.learning.contrast import BoxContrast, Contrast
from seewhy.learning.objectives.pairs import CLIP, DITO
from seewhy.metrics.average_precision import PictureBoxes, average_precision
from seewhy.seeded import seeded
from seewhy.storage.output import write_atomic
from seewhy.training.batches import TrainingData
from seewhy.training.loop import Training, train

CHANNELS, SPACE = 64, 64
"""Of the trunk's map, and of the space of pictures and words."""
N_PROPOSED, N_KEPT = 30, 20
"""Boxes of a picture that are scored, and kept at most."""
WEIGHTS = (0.0, 0.35, 0.65, 1.0)
"""Of the frozen words, for base and for novel names."""
N_DRAWS = 200
"""Of the test scenes."""
POWERS = (0.0, 1.0)
"""Of the objectness, beside the authors' 3."""
ARMS = ("image", "heads")
WINDOWED, SHIFTED = "windows", "shifted windows"
CELLS = 8
"""Along the map of the transformers."""


class Words(nn.Module):
    """Numbers of words → a vector: one layer of attention, then the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(len(WORDS), SPACE), nn.Parameter(torch.zeros(3 * MOST - 1, SPACE))
        self.layer = nn.TransformerEncoderLayer(SPACE, 4, 2 * SPACE, 0.0, batch_first=True, norm_first=True)
        self.out = nn.Linear(SPACE, SPACE)

    def forward(self, said: Tensor) -> Float[Tensor, "b d"]:
        there = (said > 0)[:, :, None]
        x = self.layer(
            self.words(said) + self.places, src_key_padding_mask=~(there[:, :, 0] | (said.sum(1) == 0)[:, None])
        )
        return self.out((x * there).sum(1) / there.sum(1).clamp(min=1))


def trunk() -> nn.Module:
    """A quarter of the side remains."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.GroupNorm(8, 16), nn.ReLU(),
        Residual(16, 32, 2), Residual(32, CHANNELS, 1),
    )  # fmt: skip


def after(channels: int) -> nn.Module:
    """Map → a vector among the words."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, SPACE))


def columns(data: Scenes) -> dict[str, Any]:
    pixels, texts = data.pixels, data.texts()
    return {"pixels": lambda index, draw: normalised(pixels[index]), "text": texts}


def schedule(steps: int, size: int, seed: int, lr: float = 2e-3) -> Training:
    return Training(steps, size, lr=lr, weight_decay=0.01, schedule="cosine", warmup=steps // 10, seed=seed)


def pretrained(arm: str, data: Scenes, seed: int, args: argparse.Namespace) -> BoxContrast:
    """Both arms begin alike; of the one without heads these stay as drawn."""
    with seeded(seed):
        objective = DITO(n_boxes=4)
        heads = RegionHeads(HeadSizes(CHANNELS, SPACE, width=32, hidden=128))
        task = BoxContrast(trunk(), after(CHANNELS), heads, Words(), objective, layout=Layout())
    if arm == "heads":
        train(task, TrainingData(len(data), columns(data)), schedule(args.steps, args.batch, seed))
        return task
    whole = Contrast(nn.Sequential(task.image, task.pool), task.text, CLIP())
    train(whole, TrainingData(len(data), columns(data)), schedule(args.steps, args.batch, seed))
    task.state.load_state_dict(whole.state.state_dict())
    return task.eval().requires_grad_(False)


@torch.no_grad()
def texts(task: BoxContrast) -> Float[Tensor, "k d"]:
    """The background, which is an empty text, then the names."""
    return normalize(task.text(tokens(["", *NAMES])), dim=1)


@torch.no_grad()
def maps(network: nn.Module, data: Scenes) -> Float[Tensor, "n c h w"]:
    return torch.cat([network(normalised(part)) for part in data.pixels.split(128)])


def detector(arm: str, task: BoxContrast, data: Scenes, seed: int, args: argparse.Namespace) -> TwoStage:
    """Boxes of base names; arm A's heads begin anew."""
    place = torch.full((len(NAMES) + 1,), -1)
    place[list(BASE)] = torch.arange(len(BASE))
    with seeded(seed + 100):
        heads = RegionHeads(task.heads.sizes)
        if arm == "heads":
            heads.load_state_dict(task.heads.state_dict())
        network = TwoStage(heads, texts(task)[[0, *(1 + i for i in BASE)]], 0.1)
    learning = TwoStageLearning(network)
    given = {"maps": maps(task.image, data), "boxes": data.boxes, "labels": place[data.labels]}
    train(learning, TrainingData(len(data), given), schedule(args.box_steps, 16, seed, 5e-3))
    network.texts = texts(task)
    return network


@dataclass(frozen=True, eq=False)
class Seen:
    """Proposals of test scenes with both their logits, and what is there."""

    boxes: Float[Tensor, "n r 4"]
    objectness: Float[Tensor, "n r"]
    detector: Float[Tensor, "n r k"]
    words: Float[Tensor, "n r k"]
    there: Scenes


@torch.no_grad()
def looked(task: BoxContrast, network: TwoStage, data: Scenes) -> Seen:
    grid = maps(task.image, data)
    places, logits = network.found(grid, N_PROPOSED)
    return Seen(places.boxes, places.objectness, logits, said(task, grid, places.boxes), data)


@torch.no_grad()
def said(task: BoxContrast, grid: Tensor, boxes: Float[Tensor, "n r 4"]) -> Float[Tensor, "n r k"]:
    """What frozen words say of boxes, made smaller by .7, on the frozen map."""
    scale = torch.tensor([grid.shape[3], grid.shape[2]] * 2)
    cells = (shrunk(boxes.flatten(0, 1), 0.7) * scale).unflatten(0, boxes.shape[:2])
    cells[..., 2:] = torch.maximum(cells[..., 2:], cells[..., :2] + 1e-3)
    means = torch.stack([box_means(one, own) for one, own in zip(grid, cells, strict=True)])
    vectors = normalize(task.pool[-1](means), dim=2)
    return task.state(vectors @ texts(task).T)


def score_of(seen: Seen, how: Callable[[Tensor, Tensor], Tensor]) -> Float[Tensor, "n r k"]:
    """Scores of names."""
    return torch.stack([how(p, z) for p, z in zip(seen.detector, seen.words, strict=True)])[..., 1:]


IS_BASE = torch.tensor([i in BASE for i in range(len(NAMES))])


def geometric(alpha: float, beta: float) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda p, z: Blend(alpha, beta, 0.0)(p, z, IS_BASE)


def arithmetic(alpha: float, beta: float) -> Callable[[Tensor, Tensor], Tensor]:
    """The control: the mean of both probabilities with the same weights."""
    w = torch.where(IS_BASE, alpha, beta)

    def mean(p: Tensor, z: Tensor) -> Tensor:
        a, b = p.softmax(1), z.softmax(1)
        both = torch.cat([a[:, :1], (1 - w) * a[:, 1:] + w * b[:, 1:]], 1)
        return both / both.sum(1, keepdim=True)

    return mean


def precision(
    seen: Seen, how: Callable[[Tensor, Tensor], Tensor], power: float = 3.0, n_draws: int = 0
) -> dict[str, Any]:
    """AP50 of base and of novel names, and the same in drawings of the test scenes."""
    names = score_of(seen, how) * seen.objectness[..., None] ** power
    found, there = [], []
    for boxes, scores, own, labels in zip(seen.boxes, names, seen.there.boxes, seen.there.labels, strict=True):
        k = scores.shape[1]
        every, flat, which = boxes.repeat_interleave(k, 0), scores.flatten(), torch.arange(k).repeat(len(boxes))
        kept = batched_nms(every * SIDE, flat, which, 0.5)[:N_KEPT]
        found.append(PictureBoxes.of(every[kept].tolist(), which[kept].tolist(), flat[kept].tolist()))
        real = labels >= 0
        there.append(PictureBoxes.of(own[real].tolist(), labels[real].tolist()))
    ap = average_precision(there, found, NAMES)
    value = {"value": _groups(ap.per_class()[:, :, 0])[0]}
    return value if not n_draws else value | {"draws": _groups(ap.resampled(n_draws, 0)[:, :, 0])}


def _groups(each: np.ndarray) -> list[list[float]]:
    """Means over base and over novel names, of rows of names."""
    return [[round(float(np.nanmean(row[list(which)])), 4) for which in (BASE, NOVEL)] for row in each]


@torch.no_grad()
def told(task: BoxContrast, network: TwoStage, data: Scenes, how: Callable[[Tensor, Tensor], Tensor]) -> dict[str, Any]:
    """Which things are named rightly in their own boxes: recognition without finding."""
    grid, real = maps(task.image, data), data.labels >= 0
    owner, _ = real.nonzero(as_tuple=True)
    logits = network.read(network.heads.levels(grid), data.boxes[real], owner)[0]
    words = said(task, grid, data.boxes)[real]
    labels, right = data.labels[real], how(logits, words)[:, 1:].argmax(1)
    is_base = IS_BASE[labels]
    hit = (right == labels).float()
    return {"base": hit[is_base].tolist(), "novel": hit[~is_base].tolist()}


def examine(arm: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    begun, cpu = time.perf_counter(), time.process_time()
    first = 10 * seed
    task = pretrained(arm, scenes(args.pictures, first), seed, args)
    network = detector(arm, task, scenes(args.scenes, first + 1, BASE), seed, args)
    test = scenes(args.test, first + 2)
    seen = looked(task, network, test)
    found: dict[str, Any] = {}
    for kind, mean, weights in (("geometric", geometric, WEIGHTS), ("arithmetic", arithmetic, WEIGHTS[1:3])):
        pairs = [(a, b) for a in weights for b in weights]
        judged = ("0.35, 0.35", "0.35, 0.65", "0.65, 0.65")
        found[kind] = {
            (name := f"{a}, {b}"): precision(seen, mean(a, b), n_draws=N_DRAWS if name in judged else 0)
            for a, b in pairs
        }
    for power in POWERS:
        found[f"objectness {power}"] = precision(seen, geometric(0.35, 0.65), power)["value"]
    found["shuffled"] = [round(v, 4) for v in _shuffled(seen, seed)]
    found["told"] = {
        name: told(task, network, test, how)
        for name, how in (("detector", geometric(0, 0)), ("words", geometric(1, 1)), ("blend", geometric(0.35, 0.65)))
    }
    return {**found, "seconds": round(time.perf_counter() - begun, 1), "cpu": round(time.process_time() - cpu, 1)}


def _shuffled(seen: Seen, seed: int) -> tuple[float, float]:
    """The same boxes under other names, the mean of five drawings."""
    draw, each = np.random.default_rng(seed), []
    for _ in range(5):
        order = torch.from_numpy(np.concatenate([[0], 1 + draw.permutation(len(NAMES))]))
        mixed = Seen(seen.boxes, seen.objectness, seen.detector[..., order], seen.words[..., order], seen.there)
        each.append(precision(mixed, geometric(0.35, 0.65))["value"])
    base, novel = np.mean(each, 0)
    return float(base), float(novel)


def windows(kind: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """How much a map changes with where the windows' edges fall, after a short training from captions."""
    begun, cpu = time.perf_counter(), time.process_time()
    shift = CELLS // 4
    with seeded(seed):
        net = Patches(CELLS * 8, 3, 4, width=SPACE, windows=2, shifts=(0, shift) if kind == SHIFTED else (0,))
        task = Contrast(nn.Sequential(net, after(SPACE)), Words(), CLIP())
    data = scenes(args.pictures, 10 * seed)
    pixels = data.pixels
    larger = {
        "pixels": lambda index, draw: _larger(normalised(pixels[index])),
        "text": data.texts(),
    }
    train(task, TrainingData(len(data), larger), schedule(args.window_steps, args.batch, seed))
    given = _larger(normalised(scenes(args.test // 2, 10 * seed + 2).pixels))
    found = {"moved": moved_by_cells(net, given)}
    if kind == WINDOWED:
        net.shifts = (0, 0)
        found["twice"] = moved_by_cells(net, given)
        net.shifts = (0, shift)
        found["shifted afterwards"] = moved_by_cells(net, given)
    return {**found, "seconds": round(time.perf_counter() - begun, 1), "cpu": round(time.process_time() - cpu, 1)}


def _larger(pixels: Tensor) -> Tensor:
    return nn.functional.interpolate(pixels, size=(CELLS * 8, CELLS * 8), mode="bilinear", align_corners=False)


@torch.no_grad()
def moved_by_cells(net: nn.Module, given: Float[Tensor, "n 3 h w"]) -> list[list[float]]:
    """Of each picture, ``1 - cos`` of its map and that of the picture rolled by 1, 2, … cells, rolled back."""
    own, found = normalize(net(given), dim=1), []
    for by in range(1, CELLS // 2 + 1):
        other = net(given.roll((8 * by, 8 * by), (2, 3))).roll((-by, -by), (2, 3))
        found.append(1 - (own * normalize(other, dim=1)).sum(1).mean((1, 2)))
    return [[round(float(v), 5) for v in one] for one in torch.stack(found, 1)]


def parts(args: argparse.Namespace) -> dict[tuple[str, int], dict[str, Any]]:
    """Every arm of every seed; what an earlier run of the same settings left beside the report is taken as it is."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for seed in range(args.seed, args.seed + args.seeds):
        for arm in (*ARMS, WINDOWED, SHIFTED):
            sizes = (args.steps, args.batch, args.box_steps, args.window_steps, args.pictures, args.scenes, args.test)
            settings = "-".join(map(str, (arm, seed, *sizes)))
            folder = None if args.out is None else args.out.parent / f".{args.out.stem}.parts"
            kept = None if folder is None else folder / f"{settings.replace(' ', '_')}.json"
            if kept is None or not kept.exists():
                found[arm, seed] = examine(arm, seed, args) if arm in ARMS else windows(arm, seed, args)
                if kept is not None:
                    kept.parent.mkdir(exist_ok=True)
                    write_atomic(kept, json.dumps(found[arm, seed]))
            else:
                found[arm, seed] = json.loads(kept.read_text("utf-8"))
            print(arm, seed, found[arm, seed]["cpu"], "s", flush=True)
    return found


OWN = "0.35, 0.65"
"""The paper's weights."""
RULE = "shown: above 0 with its whole interval and in every draw; partly: above 0; not shown: else"


@dataclass(frozen=True)
class Lead:
    """One AP50 over another, the mean over draws of scenes.

    Attributes:
        found: with its interval, over the same drawings of test scenes.
        each: of every draw.
    """

    found: Interval
    each: list[float]

    @classmethod
    def of(cls, more: Sequence[dict[str, Any]], less: Sequence[dict[str, Any]], which: int) -> Lead:
        """Of values and resampled values, ``which`` 0 for base and 1 for novel names."""
        each = [a["value"][which] - b["value"][which] for a, b in zip(more, less, strict=True)]
        draws = np.mean(
            [np.array(a["draws"])[:, which] - np.array(b["draws"])[:, which] for a, b in zip(more, less, strict=True)],
            0,
        )
        low, high = np.nanpercentile(draws, [2.5, 97.5])
        return cls(Interval(float(np.mean(each)), float(low), float(high)), [round(v, 3) for v in each])

    @property
    def shown(self) -> bool:
        return self.found.above and min(self.each) > 0

    def __str__(self) -> str:
        return f"{self.found}, by draw {', '.join(map(str, self.each))}"


class Measured:
    """What all draws gave."""

    def __init__(self, found: dict[tuple[str, int], dict[str, Any]]) -> None:
        self.found, self.seeds = found, sorted({seed for _, seed in found})

    def of(self, arm: str, kind: str = "geometric", weights: str = OWN) -> list[dict[str, Any]]:
        return [self.found[arm, seed][kind][weights] for seed in self.seeds]

    def value(self, arm: str, which: int, kind: str = "geometric", weights: str = OWN) -> float:
        return float(np.mean([one["value"][which] for one in self.of(arm, kind, weights)]))

    def named(self, arm: str, by: str, which: str) -> list[float]:
        return [hit for seed in self.seeds for hit in self.found[arm, seed]["told"][by][which]]

    def edges(self, kind: str, name: str = "moved") -> list[float]:
        """Of each picture: what moving by a part of a window changes more than moving by a whole one does."""
        rows = [row for seed in self.seeds for row in self.found[kind, seed][name]]
        return [float(np.mean(row[:-1]) - row[-1]) for row in rows]


def claims_of(measured: Measured, n: int) -> list[Claim]:
    novel = Lead.of(measured.of("heads"), measured.of("image"), 1)
    base = Lead.of(measured.of("heads"), measured.of("image"), 0)
    values = [f"{measured.value(arm, which):.3f}" for which in (1, 0) for arm in ("heads", "image")]
    recognised = of_recognised(measured)
    return [
        Claim(
            "Heads that learnt from captions find more of what no box was drawn of", RULE,
            f"novel AP50 {values[0]} and {values[1]}; lead {novel}; base {values[2]} and {values[3]}; lead {base}",
            verdict(novel.shown, novel.found.value > 0), n,
        ),
        recognised, of_ridge(measured, n), of_mean(measured, n), of_names(measured, n), of_windows(measured),
    ]  # fmt: skip


def of_recognised(measured: Measured) -> Claim:
    """In true boxes, so that finding plays no part."""
    more, less = (measured.named(arm, "detector", "novel") for arm in ("heads", "image"))
    found = lead(more, less)
    words = mean_of(measured.named("heads", "words", "novel")), mean_of(measured.named("image", "words", "novel"))
    return Claim(
        "In true boxes, heads that learnt from captions name novel things better",
        "shown: above 0 with its whole interval; partly: above 0; not shown: else",
        f"named by the heads {mean_of(more)} and {mean_of(less)}; lead {found}; by the frozen words {words[0]} and "
        f"{words[1]}",
        verdict(found.above, found.value > 0), len(more),
    )  # fmt: skip


def of_ridge(measured: Measured, n: int) -> Claim:
    novel = Lead.of(measured.of("heads"), measured.of("heads", weights="0.35, 0.35"), 1)
    base = Lead.of(measured.of("heads"), measured.of("heads", weights="0.65, 0.65"), 0)
    return Claim(
        "More of the frozen words for novel names than for base ones helps the novel and does not cost the base",
        "shown: novel AP50 at .35 and .65 above .35 and .35, and base AP50 above .65 and .65, both by the rule of the "
        "first claim; partly: both above 0; not shown: else",
        f"novel {novel}; base {base}",
        verdict(novel.shown and base.shown, min(novel.found.value, base.found.value) > 0), n,
    )  # fmt: skip


def of_mean(measured: Measured, n: int) -> Claim:
    novel, base = (Lead.of(measured.of("heads"), measured.of("heads", "arithmetic"), which) for which in (1, 0))
    return Claim(
        "The geometric mean beats the arithmetic one of the same weights",
        "shown: for novel and base names by the rule of the first claim; partly: for one of them; not shown: else",
        f"novel {novel}; base {base}", verdict(novel.shown and base.shown, novel.shown or base.shown), n,
    )  # fmt: skip


def of_names(measured: Measured, n: int) -> Claim:
    each = [
        one["geometric"][OWN]["value"][1] - one["shuffled"][1]
        for (arm, _), one in measured.found.items()
        if arm == "heads"
    ]
    other = [one["shuffled"][1] for (arm, _), one in measured.found.items() if arm == "heads"]
    return Claim(
        "What is found of novel names hangs on the names",
        "shown: novel AP50 more than twice that of shuffled names in every draw; not shown: else",
        f"{measured.value('heads', 1):.3f} and {np.mean(other):.3f} shuffled; lead by draw "
        f"{', '.join(f'{v:.3f}' for v in each)}",
        verdict(all(v > o for v, o in zip(each, other, strict=True))), n,
    )  # fmt: skip


def of_windows(measured: Measured) -> Claim:
    plain, shifted = measured.edges(WINDOWED), measured.edges(SHIFTED)
    found, twice = lead(plain, shifted), measured.edges(WINDOWED, "twice")
    after_ = mean_of(measured.edges(WINDOWED, "shifted afterwards"))
    return Claim(
        "Shifted windows take out what hangs on where windows' edges fall",
        "shown: the excess change of moving by a part of a window over a whole one falls by more than half, with the "
        "whole interval above 0; partly: it falls; not shown: else",
        f"1 - cos: {mean_of(plain)} with windows, {mean_of(shifted)} shifted; fall {found}; a second pass that is not "
        f"shifted {mean_of(twice)}; shifted after a training without {after_}",
        verdict(found.above and mean_of(shifted).value < mean_of(plain).value / 2, found.value > 0), len(plain),
    )  # fmt: skip


def run(args: argparse.Namespace) -> Report:
    found = parts(args)
    measured, n = Measured(found), args.seeds * args.test
    numbers: dict[str, Any] = {"AP50, base and novel": {}}
    for arm in ARMS:
        rows = {
            f"{kind} {weights}": [round(measured.value(arm, which, kind, weights), 4) for which in (0, 1)]
            for kind in ("geometric", "arithmetic")
            for weights in found[arm, measured.seeds[0]][kind]
        }
        for name in ("shuffled", *(f"objectness {p}" for p in POWERS)):
            rows[name] = [round(v, 4) for v in np.mean([found[arm, s][name] for s in measured.seeds], 0)]
        numbers["AP50, base and novel"][arm] = rows
        numbers[f"named in true boxes, {arm}"] = {
            by: [round(float(np.mean(measured.named(arm, by, which))), 4) for which in ("base", "novel")]
            for by in ("detector", "words", "blend")
        }
    for kind in (WINDOWED, SHIFTED):
        for name in [
            name for name in ("moved", "twice", "shifted afterwards") if name in found[kind, measured.seeds[0]]
        ]:
            rows_ = np.mean([row for s in measured.seeds for row in found[kind, s][name]], 0)
            numbers[f"1 - cos by cells moved, {kind}, {name}"] = [round(float(v), 5) for v in rows_]
    return Report(
        "dito", "Do a detector's heads that learn from captions find what no box was drawn of?",
        "Kim et al. 2023, arXiv:2310.00161",
        f"drawn scenes of one to three coloured shapes, {SIDE} px, {len(NAMES)} pairs of a colour and a shape, "
        f"{len(NOVEL)} of them novel; {args.seeds} draws of {args.pictures} with captions, {args.scenes} with boxes of "
        f"base names, {args.test} to measure on",
        f"a small residual network and one layer of words from nothing, {args.steps} steps of {args.batch} pictures; "
        f"{args.box_steps} steps on boxes; transformers of three layers with windows, {args.window_steps} steps",
        command("dito"), machine(), round(sum(one["cpu"] for one in found.values()), 1), args.seed,
        tuple(claims_of(measured, n)),
        ("Seconds on drawn scenes, not weeks on billions of pictures; a convolutional trunk in both arms",
         "The trunk is frozen while boxes are learnt, as F-VLM's is; DITO trains it at .6 of the rate",
         "Novel things are not on the pictures with boxes; in LVIS they are, without a box",
         "Three levels, heads of one convolution and 4 x 4 cells, not four of 7 x 7; the temperature begins at .1",
         "How random boxes are drawn and how losses are weighed is ours: that part of the code is not published",
         "Frozen words are scaled by the temperature that their training ends with",
         "Shifted windows are measured on a transformer of their own, by rolling pictures, not by AP",
         "Steps and sizes were set by the time there was, before any draw was looked at",
         "After so few steps things are named by their colour alone: claims about names had little room",
         "Intervals resample test scenes, the same in both arms; draws stand beside them",
         "Time is that of the processor: parts ran side by side on a busy machine"),
        numbers,
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> Report:
    options: argparse.ArgumentParser = parser(__doc__ or "", "dito")
    options.add_argument("--seeds", type=int, default=3, help="draws of scenes, and of first weights")
    options.add_argument("--steps", type=int, default=100, help="batches of pictures with captions")
    options.add_argument("--batch", type=int, default=48, help="pictures with captions at once")
    options.add_argument("--box-steps", type=int, default=80, help="batches of 16 pictures with boxes")
    options.add_argument("--window-steps", type=int, default=30, help="batches for the transformers with windows")
    options.add_argument("--pictures", type=int, default=1500, help="drawn scenes with captions")
    options.add_argument("--scenes", type=int, default=300, help="drawn scenes with boxes of base names")
    options.add_argument("--test", type=int, default=100, help="drawn scenes to measure on")
    return deliver(options, run, arguments)


if __name__ == "__main__":
    main()
