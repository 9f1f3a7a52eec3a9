"""GLoRIA's attention: does it locate a sentence, and better than Grad-CAM does?

    python reproductions/gloria_attention.py --out gloria_attention.json

Huang et al. 2021 (ICCV). Two drawn objects are in two of four quarters, and the caption names the colour and shape of
both. A small ResNet and a small text encoder learn from pictures and captions: once by whole pictures and whole
captions (CLIP's form of the loss), once with words and regions too. Then one of the two objects is named, and the maps
are compared with its pixels.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from claims import Claim, Report, command, lead, machine, mean_of, parser, table, verdict
from drawn_shapes import COLOURS, GROUNDS, SHAPES, Thing, draw
from torch import Tensor, nn
from torch.nn.functional import gelu

from seewhy.attributions import attributions
from seewhy.classifiers.base import Classifier
from seewhy.classifiers.unfitted import ZeroShot
from seewhy.encoders.base import Encoder, GlobalAverage, Layout
from seewhy.encoders.split import freeze
from seewhy.encoders.text_tokens import ClipText, Sentence, TokenEmbeddings, TokenVectors
from seewhy.heads.head import Target
from seewhy.learning.adaptation.backbone import SmallResNet
from seewhy.learning.contrast import ImageRegions, RegionalContrast, TextWords
from seewhy.learning.objectives.regional import GLoRIA
from seewhy.metrics.controls import CONTROLS
from seewhy.seeded import seeded
from seewhy.training.batches import TrainingData
from seewhy.training.loop import Training, train
from seewhy.types import Transform

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
from planting import hit_and_energy

SIDE, NOISE, WIDTH, HALF = 64, 10.0, 64, 32
NAMES = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)
WORDS = ("<pad>", "a", "and", "on", "ground", *COLOURS, *SHAPES, *GROUNDS)
ARMS = {"whole": 0.0, "words and regions": 1.0}
MAPS = ("gloria_attention", "grad_cam", *CONTROLS)


class Drawn:
    """Pictures of two things, their captions and where each thing is."""

    def __init__(self, n: int, seed: int) -> None:
        rng = np.random.default_rng([seed, n])
        pixels, self.captions, self.asked, self.masks = [], [], [], []
        for _ in range(n):
            one, masks, names, ground = picture(rng)
            pixels.append(one)
            self.masks.append([torch.from_numpy(mask) for mask in masks])
            self.asked.append([NAMES.index(name) for name in names])
            self.captions.append(f"a {names[0]} and a {names[1]} on a {ground} ground")
        self.pixels = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float().div(255).sub(0.5).div(0.25)


def picture(rng: np.random.Generator) -> tuple[np.ndarray, list[np.ndarray], list[str], str]:
    """Two things of other colours and other shapes in two quarters, without grain the mask of each."""
    ground = str(rng.choice(list(GROUNDS)))
    whole = np.zeros((SIDE, SIDE, 3)) + np.array(GROUNDS[ground])
    colours, shapes = rng.choice(list(COLOURS), 2, replace=False), rng.choice(len(SHAPES), 2, replace=False)
    masks, names = [], []
    for quarter, colour, shape in zip(rng.choice(4, 2, replace=False), colours, shapes, strict=True):
        row, column = (HALF * int(v) for v in divmod(int(quarter), 2))
        thing = Thing(2 * int(shape), str(colour), ground, "middle", True)
        drawn = draw(thing, rng, HALF, 0.0)
        mask = np.zeros((SIDE, SIDE), bool)
        mask[row : row + HALF, column : column + HALF] = np.abs(drawn - np.array(GROUNDS[ground])).max(2) > 30
        whole[row : row + HALF, column : column + HALF] = drawn
        masks.append(mask)
        names.append(f"{colour} {SHAPES[int(shape)]}")
    grained = np.rint((whole + rng.normal(0, NOISE, whole.shape)).clip(0, 255)).astype(np.uint8)
    return grained, masks, names, ground


class Reader(nn.Module):
    """A vector for each word through a small network, and the mean of them for the sentence."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.inner = nn.Embedding(len(WORDS), WIDTH), nn.Linear(WIDTH, WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)

    def embed(self, ids: Tensor) -> TokenEmbeddings:
        return TokenEmbeddings.of(self.words(ids), ids, (ids > 0).sum(1), Sentence(32, 0, 0))

    def read(self, embeddings: TokenEmbeddings) -> TokenVectors:
        vectors = self.out(gelu(self.inner(embeddings.vectors)))
        weight = embeddings.words[..., None].to(vectors)
        return TokenVectors(vectors, embeddings.words, (vectors * weight).sum(1) / weight.sum(1))

    def forward(self, ids: Tensor) -> Tensor:
        return self.read(self.embed(ids)).pooled


def numbers(texts: Sequence[str]) -> tuple[Tensor, ...]:
    rows = [[WORDS.index(word) for word in text.split()] for text in texts]
    return (torch.tensor([row + [0] * (max(map(len, rows)) - len(row)) for row in rows]),)


def learnt(data: Drawn, weight: float, steps: int, seed: int) -> Classifier:
    """Both towers from nothing; the names of all things as classes."""
    with seeded(seed):
        image = ImageRegions(SmallResNet(), GlobalAverage(), nn.Linear(WIDTH, WIDTH), Layout())
        reader = Reader()
    task = RegionalContrast(image, TextWords(reader), GLoRIA(local_weight=weight))
    how = Training(steps, 32, lr=2e-3, weight_decay=0.01, schedule="cosine", seed=seed, warmup=10)
    train(task, TrainingData(len(data.captions), {"pixels": data.pixels, "text": numbers(data.captions)[0]}), how)
    text = ClipText(f"words {seed}", 10.0, freeze(reader), numbers, image.projection, ("a {} on a ground",))
    encoder = Encoder(
        name="two small towers", trunk=lambda: image.trunk, head=GlobalAverage(),
        transform=Transform((SIDE, SIDE), (SIDE, SIDE), "bicubic", (0.5,) * 3, (0.25,) * 3),
        layout=Layout(), fingerprint=f"{seed} {weight}", text=lambda: text, engine="torch",
    )  # fmt: skip
    return ZeroShot().build(encoder, NAMES)


@torch.no_grad()
def found_in(data: Drawn, model: Classifier) -> dict[str, list[float]]:
    """Hit and energy of each map on the thing asked for; on the other thing; and whether both things are named."""
    made: dict[str, list[float]] = defaultdict(list)
    look = model.encoder.encode(data.pixels)
    top = model.head(look.pooled).topk(2, 1).indices
    asked = torch.tensor(data.asked)
    made["right"] = (top.sort(1).values == asked.sort(1).values).all(1).float().tolist()
    for name in MAPS:
        method: Callable[..., Tensor] = CONTROLS[name] if name in CONTROLS else attributions[name]()
        for i, heat in enumerate(method(model, look, Target(asked[:, 0]))):
            for thing, mask in zip(("asked", "other"), data.masks[i], strict=True):
                hit, energy = hit_and_energy(heat, mask)
                made[f"{name} hit {thing}"].append(hit)
                made[f"{name} energy {thing}"].append(energy)
    return made


def claims_of(found: dict[str, dict[str, list[float]]], n: int) -> list[Claim]:
    """By the rules that stand beside them, in pairs of the same pictures."""
    ours, whole = found["words and regions"], found["whole"]

    def both(a: dict[str, list[float]], x: str, b: dict[str, list[float]], y: str) -> tuple[Any, Any, str]:
        hit, energy = (lead(a[f"{x} {k}"], b[f"{y} {k}"]) for k in ("hit asked", "energy asked"))
        said = ", ".join(
            f"{k} {mean_of(a[f'{x} {k} asked'])} against {mean_of(b[f'{y} {k} asked'])}, lead {d}"
            for k, d in (("hit", hit), ("energy", energy))
        )
        return hit, energy, said

    rule = "hit and energy each above, with their whole intervals, in pairs; partly: one of them"
    cam = both(ours, "gloria_attention", ours, "grad_cam")
    best_cam = both(ours, "gloria_attention", whole, "grad_cam")
    trained = both(ours, "gloria_attention", whole, "gloria_attention")
    other = lead(ours["gloria_attention hit asked"], ours["gloria_attention hit other"])
    right = ", ".join(f"{arm} {mean_of(one['right'])}" for arm, one in found.items())
    where = "two drawn things"
    return [
        Claim("The attention of an encoder trained with words and regions finds the thing asked for better than "
              "Grad-CAM on the same encoder", rule, cam[2],
              verdict(cam[0].low > 0 and cam[1].low > 0, cam[0].low > 0 or cam[1].low > 0), n, where, interval=cam[0]),
        Claim("It finds it better than Grad-CAM on an encoder trained by whole pictures and captions", rule,
              f"{best_cam[2]}; both things named: {right}",
              verdict(min(c.low for c in best_cam[:2]) > 0, max(c.low for c in best_cam[:2]) > 0), n, where),
        Claim("It is the training with words and regions that makes the attention a where", rule, trained[2],
              verdict(trained[0].low > 0 and trained[1].low > 0, trained[0].low > 0 or trained[1].low > 0), n, where),
        Claim("It points at the thing asked for and not at whatever is drawn",
              "hits on the thing asked for above hits on the other one with the whole interval",
              f"{mean_of(ours['gloria_attention hit asked'])} against {mean_of(ours['gloria_attention hit other'])}, "
              f"lead {other}", verdict(other.low > 0), n, where),
    ]  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> Report:
    options: argparse.ArgumentParser = parser(__doc__ or "", "gloria_attention")
    options.add_argument("--seeds", type=int, default=2, help="trainings of each arm")
    options.add_argument("--n", type=int, default=2000, help="training pictures")
    options.add_argument("--test", type=int, default=150, help="test pictures of each seed")
    options.add_argument("--steps", type=int, default=400, help="batches of 32")
    given = options.parse_args(arguments)
    begun = time.perf_counter()
    found: dict[str, dict[str, list[float]]] = {arm: defaultdict(list) for arm in ARMS}
    by_seed: dict[str, list[list[float]]] = defaultdict(list)
    for seed in range(given.seed, given.seed + given.seeds):
        data, test = Drawn(given.n, seed), Drawn(given.test, 1000 + seed)
        for arm, weight in ARMS.items():
            for key, values in found_in(test, learnt(data, weight, given.steps, seed)).items():
                found[arm][key] += values
                by_seed[f"{arm}: {key}"].append(round(float(np.mean(values)), 3))
            print(seed, arm, {k: v[-1] for k, v in by_seed.items() if k.startswith(arm)}, flush=True)
    n = given.seeds * given.test
    report = Report(
        "gloria_attention", "Does GLoRIA's attention show where a sentence is seen, and better than Grad-CAM?",
        "Huang et al. 2021, ICCV, GLoRIA",
        f"drawn pictures of two things, {SIDE} px, noise {NOISE:.0f}, {given.n:,} to learn from and {given.test} test "
        f"pictures a seed; {len(NAMES)} names", "small ResNet (78,000 weights, 8 by 8 cells) and a tower that reads "
        "words one by one, both from nothing", command("gloria_attention"), machine(),
        round(time.perf_counter() - begun, 1), given.seed, tuple(claims_of(found, n)),
        ("Drawn pictures and small towers, not chest X-rays, ResNet-50 and BioClinicalBERT",
         "Words do not know their neighbours in this tower, so that \"red\" and \"circle\" each find their own place",
         "The words of a name are weighed by the paper's likeness and added up; the authors show each word by itself",
         "Intervals resample test pictures, not trainings; the means of each seed are in the file"),
        {**{arm: table(one) for arm, one in found.items()}, "by seed": dict(by_seed)},
    )  # fmt: skip
    report.show()
    if given.out:
        report.write(given.out)
    return report


if __name__ == "__main__":
    main()
