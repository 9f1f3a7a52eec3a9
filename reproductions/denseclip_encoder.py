"""DenseCLIP with an encoder that learns: does the map of text scores help it, and because of the words?

    python reproductions/denseclip_encoder.py --camvid CAMVID --out denseclip_encoder.json
    python reproductions/denseclip_encoder.py --pictures 6 --steps 2 --seeds 1 --out denseclip_encoder.json

Rao et al. 2022 (arXiv 2112.01518): the image encoder learns with the decoder, at a tenth of its rate, also through the
map of scores. Drawn objects, with a small encoder that learnt their names from captions, and street scenes (CamVid: a
folder with train and test, each with images and labels of the 11 classes; 11 means none), with lite0. Six arms see the
same windows in as many steps, and nothing is chosen. Takes ten minutes on one idle core; a stopped run continues after
its last whole training.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from claims import JUDGED, Claim, Interval, Report, command, deliver, judged, machine, parser, rule_of
from composites import CLASSES as THINGS
from composites import NAMES, composites, encoder_of_captions
from denseclip import CLASSES, Parts, World, streets
from torch import Tensor

import seewhy
from seewhy.dense.denseclip import DenseCLIP
from seewhy.dense.detection.denseclip_boxes import DenseCLIPBoxes
from seewhy.dense.detection.trained import TrainedDetector
from seewhy.dense.mask_training import Crops
from seewhy.dense.miou import mean_iou, pixel_confusion, sums
from seewhy.dense.reader import Reader
from seewhy.encoders.base import Encoder
from seewhy.metrics.average_precision import average_precision, boxes_of, mean
from seewhy.pictures.boxes import BoxData
from seewhy.progress import Progress

WITHOUT: dict[str, Any] = {"texts": "none", "auxiliary": 0.0}
LEARNS: dict[str, Any] = {"train": "all"}
ARMS: dict[str, dict[str, Any]] = {
    "frozen, no map": WITHOUT,
    "frozen, words": {},
    "learns, no map": LEARNS | WITHOUT,
    "learns, words": LEARNS,
    "learns, random directions": LEARNS | {"texts": "random"},
    "learns, names shuffled": LEARNS | {"texts": "shuffled"},
}
OWN = "learns, words"
EFFECT = 0.039
"""The paper's gain of the whole over the same pyramid without texts: ResNet-50, ADE20K, 43.5 - 39.6 (their README)."""
LEADS: tuple[tuple[str, str, str, float], ...] = (
    ("The pixel-text map adds to an encoder that learns", OWN, "learns, no map", EFFECT),
    ("It is the words that add it: directions drawn at random are behind", OWN, "learns, random directions", 0.0),
    ("Names at their own places are ahead of names that were shuffled", OWN, "learns, names shuffled", 0.0),
    ("An encoder that learns is ahead of a frozen one, with words", OWN, "frozen, words", 0.0),
    ("It is so without any text", "learns, no map", "frozen, no map", 0.0),
    ("The pixel-text map adds to a frozen encoder", "frozen, words", "frozen, no map", EFFECT),
)
"""Claim, arm, the arm that it should be ahead of, and the paper's effect where it gives one."""
WHAT = {
    "CamVid": f"CamVid street scenes, a small cut, {len(CLASSES)} classes",
    "drawn things": f"drawn things in {len(THINGS)} classes with the ground",
}
ZOOM = {"CamVid": 128 / 224, "drawn things": 1.0}
"""Inputs of 128 and 48 pixels, so that a step takes a tenth of a second."""
ENCODERS: dict[str, Callable[[], Encoder]] = {
    "CamVid": lambda: seewhy.encoder("lite0", engine="torch"),  # each arm's is exported for 40 pictures otherwise
    "drawn things": encoder_of_captions,
}
LEVELS, N_DRAWS, N_BOX_DRAWS = 3, 2000, 400


def trained(encoder: Encoder, world: World, crops: Crops, how: DenseCLIP) -> list[Any]:
    """Of each test picture: pixels by true class and by class found."""
    made = how.learn(encoder, world.classes, crops, progress=(progress := Progress()))
    print(*progress.notes, sep="\n", flush=True)
    looked = made.reader.with_masks(world.test, progress, "Looking")
    return [
        pixel_confusion(truth, made.pixels(made.scores(one), one)[0], len(world.classes)).tolist()
        for one, truth, _ in looked
    ]


class Boxes:
    """Arms of the detector that reads the map, on drawn things; the encoder is frozen and looks once.

    Args:
        folder: where the pictures go.
        args: of this run.
    """

    def __init__(self, folder: Path, args: argparse.Namespace) -> None:
        self.folder, self.args = folder, args

    @cached_property
    def pictures(self) -> tuple[Reader, BoxData, BoxData]:
        """What looks at each picture once, and pictures to learn from and to test on."""
        sides = []
        for i, n in enumerate((self.args.pictures, 100)):
            made = composites(n, self.args.seed + i)
            made.masked(self.folder / f"boxes{i}")
            sides.append(made.boxed(self.folder / f"boxes{i}"))
        return Reader(encoder_of_captions(), 1.0, kept={}), sides[0], sides[1]

    def arm(self, kind: Any, seed: int) -> dict[str, Any]:
        """AP50 on the test pictures, and on pictures drawn from them again, the same for every arm."""
        reader, train, test = self.pictures
        weight = 0.0 if kind == "none" else 1.0
        how = DenseCLIPBoxes(texts=kind, auxiliary=weight, n_steps=self.args.steps, n_proposed=30, zoom=1.0, seed=seed)
        finder = how.fit(reader, train)
        detector = TrainedDetector("denseclip_boxes", {}, reader.base, NAMES, finder, (0.0,) * len(NAMES), looks=reader)
        found = [one.record() for one in detector.detect_all([p.image for p in test.pictures])]
        there, boxes = ([boxes_of(p, NAMES) for p in side] for side in (test.pictures, found))
        measured = average_precision(there, boxes, NAMES)
        draws = [round(float(mean(one[:, 0])), 5) for one in measured.resampled(N_BOX_DRAWS, 0)]
        return {"ap50": round(measured.ap50, 5), "draws": draws}


def of_boxes(found: dict[tuple[str, int], dict[str, Any]], seeds: Sequence[int], n: int) -> list[Claim]:
    """What the map adds to a detector, and whether it is the words."""
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randint(len(seeds), (N_BOX_DRAWS, len(seeds)), generator=generator)
    made = []
    for claim, over in (
        ("The map adds to a detector on a frozen encoder", "none"),
        ("It is the words that add it: directions drawn at random are behind", "random"),
    ):
        each = [[found[kind, seed] for seed in seeds] for kind in ("names", over)]
        own, other = (torch.tensor([one["draws"] for one in rows]).T for rows in each)  # draws, seeds
        by_seed = [a["ap50"] - b["ap50"] for a, b in zip(*each, strict=True)]
        lead = _interval(sum(by_seed) / len(seeds), (own - other).double().gather(1, chosen).mean(1))
        values = [sum(one["ap50"] for one in rows) / len(seeds) for rows in each]
        told = (
            f"AP50 {values[0]:.3f} and {values[1]:.3f}; lead {lead}; by seed {', '.join(f'{v:.3f}' for v in by_seed)}"
        )
        made.append(Claim(claim, JUDGED, told, judged(lead), n, "boxes of drawn things", interval=lead))
    return made


class Measured:
    """Every arm and seed on the same pictures; pictures and seeds are both drawn again.

    Args:
        confusions: arm → seeds → pictures.
    """

    def __init__(self, confusions: dict[str, list[Any]], n_draws: int = N_DRAWS) -> None:
        self.names = list(confusions)
        every = torch.tensor(list(confusions.values()))  # arm, seed, picture
        _, self.n_seeds, self.n = every.shape[:3]
        each = sums(every.flatten(0, 1).flatten(0, 1)).double().unflatten(0, every.shape[:3])
        generator = torch.Generator().manual_seed(0)
        pictures = torch.randint(self.n, (n_draws, self.n), generator=generator)
        weights = torch.zeros(n_draws, self.n, dtype=torch.double)
        weights.scatter_add_(1, pictures, torch.ones_like(pictures, dtype=torch.double))
        seeds = torch.randint(self.n_seeds, (n_draws, 1, self.n_seeds), generator=generator)
        drawn_ = mean_iou(torch.einsum("np,asp...->nas...", weights, each))
        self.drawn = drawn_.gather(2, seeds.expand(-1, len(self.names), -1)).mean(2)
        self.each: Tensor = mean_iou(each.sum(2))

    def value(self, name: str) -> Interval:
        i = self.names.index(name)
        return _interval(float(self.each[i].mean()), self.drawn[:, i])

    def lead(self, name: str, over: str) -> Interval:
        i, j = self.names.index(name), self.names.index(over)
        return _interval(float((self.each[i] - self.each[j]).mean()), self.drawn[:, i] - self.drawn[:, j])


def _interval(value: float, draws: Tensor) -> Interval:
    low, high = draws.quantile(torch.tensor([0.025, 0.975], dtype=draws.dtype)).tolist()
    return Interval(value, low, high)


def of_world(name: str, measured: Measured) -> list[Claim]:
    """All claims on one kind of pictures."""
    made = []
    for claim, own, over, effect in LEADS:
        found = measured.lead(own, over)
        by_seed = measured.each[measured.names.index(own)] - measured.each[measured.names.index(over)]
        told = (
            f"mIoU {measured.value(own)} and {measured.value(over)}; lead {found}; by seed "
            f"{', '.join(f'{v:.3f}' for v in by_seed.tolist())}"
        )
        made.append(Claim(claim, rule_of(effect), told, judged(found, effect), measured.n, name, interval=found))
    return made


class Trials:
    """Trainings on some kinds of pictures, of which each is done once.

    Args:
        worlds: by name.
        parts: what is kept.
        steps: of each training.
    """

    def __init__(self, worlds: dict[str, World], parts: Parts, steps: int) -> None:
        self.worlds, self.parts, self.steps = worlds, parts, steps
        self.encoders: dict[str, Encoder] = {}
        self.crops: dict[str, Crops] = {}

    def get(self, name: str, arm: str, seed: int) -> list[Any]:
        """Confusions of the test pictures of a world."""
        how = DenseCLIP(n_steps=self.steps, levels=LEVELS, zoom=ZOOM[name], crops=True, seed=seed)
        return self.parts.get(f"{name} {arm} {seed}", lambda: self._made(name, replace(how, **ARMS[arm])))

    def _made(self, name: str, how: DenseCLIP) -> list[Any]:
        world = self.worlds[name]
        if name not in self.crops:
            self.encoders[name] = ENCODERS[name]()
            reader = how.reader(self.encoders[name])
            self.crops[name] = Crops.of(reader, world.train, Progress())
        return trained(self.encoders[name], world, self.crops[name], how)


def run(args: argparse.Namespace) -> Report:
    begun = time.perf_counter()
    with TemporaryDirectory() as folder:
        worlds = {"CamVid": streets(args.camvid)} if args.camvid else {}
        sides = [composites(n, args.seed + i).masked(Path(folder) / str(i)) for i, n in enumerate((args.pictures, 100))]
        worlds["drawn things"] = World(*sides)
        parts, seeds = Parts(args), range(args.seed, args.seed + args.seeds)
        trials = Trials(worlds, parts, args.steps)
        boxes = Boxes(Path(folder), args)
        kinds = ("none", "names", "random")
        aps = {
            (kind, seed): parts.get(f"boxes {kind} {seed}", lambda k=kind, s=seed: boxes.arm(k, s))
            for seed in seeds
            for kind in kinds
        }
        found = {(seed, name, arm): trials.get(name, arm, seed) for name in worlds for seed in seeds for arm in ARMS}
    measured = {name: Measured({arm: [found[seed, name, arm] for seed in seeds] for arm in ARMS}) for name in worlds}
    pictures = [
        f"{WHAT[name]}: {len(world.train)} to train on, {len(world.test)} to test on" for name, world in worlds.items()
    ]
    numbers = {
        name: {
            "mIoU": {arm: one.value(arm).rounded() for arm in ARMS},
            "mIoU by seed": {a: [round(v, 4) for v in row] for a, row in zip(ARMS, one.each.tolist(), strict=True)},
        }
        for name, one in measured.items()
    }
    return Report(
        "denseclip_encoder",
        "An encoder that learns with its decoder: does the pixel-text map help it, and is it the words?",
        "Rao et al. 2022, arXiv:2112.01518", "; ".join(pictures),
        "lite0 with its words; a small ResNet with those of 2,000 captions; all weights learning at a tenth of the "
        "decoder's rate", command("denseclip_encoder"),
        machine(), time.perf_counter() - begun, args.seed,
        (*(c for name, one in measured.items() for c in of_world(name, one)), *of_boxes(aps, seeds, 100)), DIFFERENCES,
        numbers
        | {"AP50 of boxes, by seed": {kind: [aps[kind, seed]["ap50"] for seed in seeds] for kind in kinds}}
        | {"steps": args.steps, "windows a step": DenseCLIP().batch_size, "levels": LEVELS, "zoom": ZOOM},
    )  # fmt: skip


DIFFERENCES = (
    "lite0 for CLIP's ResNet-50: it was trained on classes of ImageNet, and its words were fitted to them; the drawn "
    "things have an encoder of 78,000 weights.",
    "A decoder of one convolution a level and one 3 by 3; 120 steps of 4 windows for 80,000 of 32.",
    "The encoder's rate is a tenth of the decoder's, as theirs is, but the decoder's is 2e-3 and theirs 1e-4.",
    "Batch normalisations keep their statistics, as windows are few; the authors' go on.",
    "Arms with a map have 2.4 (drawn things) to 4.2 million weights more than those without: random directions are the "
    "control for these.",
    "Boxes: a frozen encoder with a 6 by 6 map, a small detector of two stages, no masks of instances.",
    "Nothing was chosen: steps, rates and levels are the same for all arms, and were set before the run.",
)


def main(given: Sequence[str] | None = None) -> Report:
    options = parser(__doc__ or "", "denseclip_encoder")
    options.add_argument("--camvid", type=Path, help="street scenes with masks; left out, drawn things alone")
    options.add_argument("--pictures", type=int, default=60, help="drawn pictures to train on; 100 are tested on")
    options.add_argument("--steps", type=int, default=120, help="of each training")
    options.add_argument("--seeds", type=int, default=3, help="of weights, order, windows and controls")
    return deliver(options, run, given)


if __name__ == "__main__":
    main()
