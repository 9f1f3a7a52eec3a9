"""DenseCLIP: does a decoder with a map of text scores beat a linear probe of cells, and because of the words?

    python reproductions/denseclip.py --camvid CAMVID --out denseclip.json
    python reproductions/denseclip.py --pictures 8 --steps 4 --seeds 1 --out denseclip.json

Rao et al. 2022 (arXiv 2112.01518). Street scenes (CamVid: a folder with train and test, each with images and labels of
the 11 classes; 11 means none), or drawn scenes of textured objects. The encoder is frozen and encodes every picture
once. The numbers of levels and steps are chosen on a quarter of the training pictures. Each arm is then trained on all
of them with three seeds, and measured on the test pictures. Takes eight minutes on one idle core; a stopped run
continues after its last whole part.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from claims import Claim, Interval, Report, command, deliver, machine, parser, verdict
from PIL import Image
from textured_scenes import TEXTURES, scenes
from torch import Tensor

import seewhy
from seewhy.dense.denseclip import DenseCLIP
from seewhy.dense.finders import Looked, Segmenter
from seewhy.dense.linear import Linear
from seewhy.dense.mask_training import Maps
from seewhy.dense.maskclip import MaskCLIP
from seewhy.dense.miou import N_SHUFFLES, mean_iou, pixel_confusion, shuffled, sums
from seewhy.encoders.base import Encoder, Layout
from seewhy.pictures.pixel_classes import MaskedPictures, load_masks
from seewhy.progress import Progress
from seewhy.storage.output import write_atomic
from seewhy.studies.bootstrap import paired

CLASSES = (
    "sky", "building", "pole", "road", "pavement", "tree", "traffic sign", "fence", "car", "pedestrian", "bicyclist",
)  # fmt: skip
LEVELS = 2
PROBE, FREE = "linear probe", "MaskCLIP"
ARMS: dict[str, dict[str, Any]] = {
    "DenseCLIP": {},
    "random texts": {"texts": "random"},
    "no texts": {"texts": "none", "auxiliary": 0.0},
}
NARROW, FEW, RATE = 64, 4, 2e-3
"""Channels of the decoder, windows a step, and the learning rate."""


Looks = list[tuple[Looked, np.ndarray]]


class World:
    """Pictures with masks, each looked at once, with all levels.

    Args:
        train: to learn from; every fourth of them is what is chosen on.
        test: on which nothing is chosen.
    """

    def __init__(self, train: MaskedPictures, test: MaskedPictures) -> None:
        self.train, self.test, self.classes = train, test, train.classes

    @cached_property
    def encoder(self) -> Encoder:
        return seewhy.encoder("lite0")

    @cached_property
    def maps(self) -> Maps:
        """Of the training pictures."""
        return DenseCLIP(levels=LEVELS).look(self.encoder, self.train)

    def looked(self, data: MaskedPictures) -> Looks:
        """What is measured on."""
        reader = DenseCLIP(levels=LEVELS).reader(self.encoder)
        return [(one, truth) for one, truth, _ in reader.with_masks(data, Progress(), "Looking")]

    @cached_property
    def held(self) -> Looks:
        return self.looked(replace(self.train, items=self.train.items[::4]))

    @cached_property
    def tested(self) -> Looks:
        return self.looked(self.test)

    def learnt(self, how: DenseCLIP, *, part: bool = False) -> Segmenter:
        """Trained on all training pictures; or on three quarters, where something is to be chosen."""
        maps = self.maps
        layout = Layout(finer=maps.layout.finer[: how.levels - 1])
        one = torch.tensor([not part or i % 4 > 0 for i in range(len(maps.maps))])  # a picture is one window here
        kept = [x[one] for x in (_cut(maps.maps, maps.layout, how.levels), maps.joint, maps.whole, maps.labels)]
        return how.learn(self.encoder, self.classes, Maps(*kept, layout, int(one.sum())))


def _cut(features: Tensor, layout: Layout, levels: int) -> Tensor:
    """The coarsest so many of the levels that are packed."""
    return features[:, : features.shape[1] - sum(c * t * t for c, t in layout.finer[levels - 1 :])]


def measured(segmenter: Segmenter, looks: Looks, layout: Layout) -> Tensor:
    """Of each picture: pixels by true class and by class found."""
    found = []
    for one, truth in looks:
        own = replace(one, features=_cut(one.features, layout, segmenter.levels))
        found.append(pixel_confusion(truth, segmenter.pixels(segmenter.scores(own), own)[0], len(segmenter.classes)))
    return torch.stack(found)


def streets(folder: Path) -> World:
    """CamVid."""
    train, test = (load_masks(folder / part, classes=CLASSES, ignore=(11, 255)) for part in ("train", "test"))
    return World(train, test)


def drawn(n: int, seed: int, folder: Path) -> World:
    """Textured things on a ground, as files."""
    made = []
    for i, part in enumerate(("train", "test")):
        for name in ("images", "labels"):
            (folder / part / name).mkdir(parents=True)
        for j, (picture, labels) in enumerate(zip(*scenes(n, 2 * seed + i), strict=True)):
            Image.fromarray(picture.permute(1, 2, 0).numpy()).save(folder / part / "images" / f"{j:03}.png")
            Image.fromarray(labels.numpy().astype(np.uint8)).save(folder / part / "labels" / f"{j:03}.png")
        made.append(load_masks(folder / part, classes=("ground", *TEXTURES)))
    return World(*made)


class Parts:
    """What is computed once and kept beside the report.

    Args:
        args: of this run; what was kept under others is not taken.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.folder = None if args.out is None else args.out.parent / f".{args.out.stem}.parts"
        self.of = f"{'camvid' if args.camvid else f'drawn{args.pictures}'}-{args.steps}"

    def get(self, name: str, make: Callable[[], Any]) -> Any:
        """A part, as JSON has it."""
        place = None if self.folder is None else self.folder / f"{self.of}-{name}.json".replace(" ", "_")
        if place is not None and place.exists():
            return json.loads(place.read_text("utf-8"))
        begun, cpu = time.perf_counter(), time.process_time()
        value = make()
        if place is not None:
            place.parent.mkdir(exist_ok=True)
            write_atomic(place, json.dumps(value))
        print(
            name, f"{time.perf_counter() - begun:.0f} s, {time.process_time() - cpu:.0f} of the processor", flush=True
        )
        return value


def chosen(world: World, parts: Parts, args: argparse.Namespace) -> tuple[DenseCLIP, dict[str, float]]:
    """Levels, then steps, by mIoU on a quarter of the training pictures."""
    best = DenseCLIP(n_steps=args.steps, width=NARROW, batch_size=FEW, lr=RATE, seed=args.seed)
    figures: dict[str, float] = {}

    def judged(how: DenseCLIP) -> float:
        name = f"levels={how.levels} steps={how.n_steps}"
        figures[name] = parts.get(
            f"chosen {name}", lambda: _miou(measured(world.learnt(how, part=True), world.held, world.maps.layout))
        )
        return figures[name]

    for options in ([{"levels": n} for n in range(1, LEVELS + 1)], [{"n_steps": n * args.steps} for n in (1, 2)]):
        best = max((replace(best, **one) for one in options), key=judged)
    return best, {name: round(value, 4) for name, value in figures.items()}


def _miou(confusions: Tensor) -> float:
    return float(mean_iou(sums(confusions).sum(0)))


def arm(name: str, how: DenseCLIP, world: World, seed: int) -> list[Any]:
    """Confusions of every test picture."""
    if name == PROBE:
        made = Linear(seed=seed).fit(world.encoder, world.train)
    elif name == FREE:
        made = MaskCLIP().build(world.encoder, world.classes)
    else:
        made = world.learnt(replace(how, seed=seed, **ARMS[name]))
    return measured(made, world.tested, world.maps.layout).tolist()


class Measured:
    """Confusions of every arm and seed on the same pictures, which are resampled together.

    Args:
        found: name → seeds → pictures.
    """

    def __init__(self, found: dict[str, list[Tensor]]) -> None:
        self.names = list(found)
        self.n_seeds = max(map(len, found.values()))
        self.n = len(next(iter(found.values()))[0])
        filled = [[seeds[i % len(seeds)] for i in range(self.n_seeds)] for seeds in found.values()]
        summed = torch.stack([torch.stack([sums(one) for one in seeds], 1) for seeds in filled], 1)
        self.resampled = paired(summed.flatten(2), lambda means: self._each(means).mean(-1))
        self.each = self._each(summed.flatten(2).mean(0))

    def _each(self, means: Tensor) -> Tensor:
        return mean_iou(means.unflatten(-1, (self.n_seeds, -1)))

    def value(self, name: str) -> Interval:
        i = self.names.index(name)
        return Interval(float(self.resampled.values[i]), *self.resampled.interval(i))

    def lead(self, name: str, over: str) -> tuple[Interval, list[float]]:
        i, j = self.names.index(name), self.names.index(over)
        value, (low, high), _ = self.resampled.difference(i, j)
        return Interval(value, low, high), [round(v, 4) for v in (self.each[i] - self.each[j]).tolist()]


AHEAD = "shown: above 0 with its whole interval and in every seed; partly: above 0 with its interval; not shown: else"


def of_lead(claim: str, measured: Measured, over: str) -> Claim:
    """DenseCLIP ahead of another arm."""
    own = next(iter(ARMS))
    found, each = measured.lead(own, over)
    said = f"mIoU {measured.value(own)} and {measured.value(over)}; lead {found}; by seed {', '.join(map(str, each))}"
    return Claim(claim, AHEAD, said, verdict(found.low > 0 and min(each) > 0, found.low > 0), measured.n)


def of_target(measured: Measured) -> Claim:
    """Three points over the probe."""
    found, each = measured.lead(next(iter(ARMS)), PROBE)
    said = f"lead {found}; by seed {', '.join(map(str, each))}"
    rule = "shown: at least 0.03 in every seed, the mean's interval above 0; partly: the interval above 0; else not"
    word = verdict(found.low > 0 and min(each) >= 0.03, found.low > 0)
    return Claim("Trained, it is 3 points of mIoU or more above a linear probe", rule, said, word, measured.n)


def of_free(measured: Measured, free: Tensor) -> Claim:
    """Words without training."""
    draws = [_miou(one) for one in shuffled(free, 0)]
    own = measured.value(FREE)
    return Claim(
        "Without training, words find more than twice what shuffled names do",
        "shown: mIoU at least 0.13 and twice the best of 20 shuffles; partly: twice the mean shuffle; not shown: else",
        f"mIoU {own}; shuffled {max(draws):.3f} at best of {N_SHUFFLES}, {np.mean(draws):.3f} on average",
        verdict(own.value >= 0.13 and own.value >= 2 * max(draws), own.value >= 2 * float(np.mean(draws))), measured.n,
    )  # fmt: skip


def run(args: argparse.Namespace) -> Report:
    begun = time.perf_counter()
    with TemporaryDirectory() as folder:
        world = streets(args.camvid) if args.camvid else drawn(args.pictures, args.seed, Path(folder))
        parts = Parts(args)
        how, figures = chosen(world, parts, args)
        found: dict[str, list[Tensor]] = {}
        for name in (PROBE, FREE, *ARMS):
            seeds = range(args.seed, args.seed + (1 if name == FREE else args.seeds))
            found[name] = [
                torch.tensor(parts.get(f"{name} {seed}", lambda n=name, s=seed: arm(n, how, world, s)))
                for seed in seeds
            ]
    measured_ = Measured(found)
    claims = [of_target(measured_)]
    for over, said in (
        (PROBE, "A decoder that is shown texts' map of scores beats a probe of cells"),
        ("no texts", "The texts' map of scores adds to what the same decoder learns without it"),
        ("random texts", "It is the words that add it: directions drawn at random are behind"),
        (FREE, "Training beats the same words without it"),
    ):
        claims.append(of_lead(said, measured_, over))
    claims.append(of_free(measured_, found[FREE][0]))
    seconds = time.perf_counter() - begun
    numbers = {
        "chosen": {k: v for k, v in asdict(how).items() if k in ("levels", "n_steps", "batch_size", "lr", "width")},
        "tried, mIoU on a quarter of the training pictures": figures,
        "mIoU": {name: measured_.value(name).rounded() for name in found},
        "mIoU by seed": {n: [round(v, 4) for v in row] for n, row in zip(found, measured_.each.tolist(), strict=True)},
    }
    return Report(
        "denseclip", "Do texts that look at the picture make better masks, and is it the words?",
        "Rao et al. 2022, arXiv:2112.01518",
        f"{'CamVid street scenes, a small cut' if args.camvid else 'drawn scenes of textured things'}: "
        f"{len(world.train)} pictures to train on, {len(world.test)} to test on, {len(world.classes)} classes",
        "lite0 with its words, frozen, at twice its own size", command("denseclip"), machine(), seconds, args.seed,
        tuple(claims), DIFFERENCES, numbers,
    )  # fmt: skip


DIFFERENCES = (
    "The encoder stays frozen; the paper trains CLIP's picture network with it, at a tenth of the rate.",
    "lite0 was trained on classes of ImageNet, and its words were fitted to them; the paper has CLIP.",
    "Levels and steps were chosen for DenseCLIP, and the other arms have the same; texts are sentences, not learnt.",
    "CamVid for ADE20K: 80 pictures to train on, 11 classes, inputs of 448 pixels; minutes of a processor.",
)


def main(given: Sequence[str] | None = None) -> Report:
    options = parser(__doc__ or "", "denseclip")
    options.add_argument("--camvid", type=Path, help="street scenes with masks; left out, drawn scenes")
    options.add_argument("--pictures", type=int, default=40, help="drawn scenes to train on, and as many to test on")
    options.add_argument("--steps", type=int, default=150, help="of a short training; a long one has twice as many")
    options.add_argument("--seeds", type=int, default=3, help="of weights, order and controls")
    return deliver(options, run, given)


if __name__ == "__main__":
    main()
