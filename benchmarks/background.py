"""Does `seewhy study background` find models that lean on the background, and leave others alone?

    python benchmarks/background.py --stamps FOLDER --imagenet FOLDER [--seeds 20] [--out rows.jsonl]
    python benchmarks/background.py --planted 200

Stamps (Debian's tuxpaint-stamps-default, whose alpha is the mask) lie on photographs of ImageNet, in four groups of
ten that k-means of lite0's features makes. A linear layer on lite0 learns from stamps of four kinds: each kind on
photographs of its own group in --kept of its pictures, or all on any. Tested is with stamps and photographs that
neither has seen: the one that leans with each kind on its own group, the clean one with all on any, where every "yes"
is a false alarm. In a third row the clean one is tested with each kind on its own group: photographs show things, and
a dog behind a stamp speaks for a mammal, whether the model was taught so or not; how often that shows is told apart.
With --planted, a network that reads the colour of all that is bright, on pictures whose backgrounds are bright by
chance: how often is it accused?
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from PIL import Image
from torch import Tensor

from seewhy.classifiers.linear.recipe import Linear
from seewhy.encoders.base import Encoder, larger
from seewhy.encoders.find import encoder as find
from seewhy.encoders.stream import Encoded, encode_stream
from seewhy.pictures.images import Picture
from seewhy.pictures.object_masks import in_view, usable
from seewhy.pictures.samples import Sample, Samples, gathered
from seewhy.studies.background import BackgroundStudy

KINDS = {
    "mammal": "animals/mammals",
    "fruit": "food/fruit",
    "bird": "animals/birds",
    "house": "town/houses",
}
SIDE = 224
LEAST = 24
"""Photographs of a group."""
N_UNSEEN = 14
"""Stamps of a kind that nothing is learnt from."""
ARMS = (("leans", True, 1.0), ("clean", False, 0.0), ("clean, own groups", False, 1.0))
"""Of models: whether their kinds were taught on groups of their own, and in what part they are tested there."""


@dataclass
class Known:
    """Masks by the picture's name."""

    masks: dict[str, Bool[np.ndarray, "h w"]]
    told = "the stamps' own"
    by_hand = True
    seal = ""

    def mask(self, sample: Sample, picture: Picture) -> Bool[Tensor, "h w"]:
        return usable(in_view(self.masks[sample.image], picture), sample.image)


def groups(encoder: Encoder, photographs: Sequence[Path], seed: int) -> list[list[Path]]:
    """Photographs in as many groups as there are kinds: those of ten, by k-means of unit features, that lie apart."""
    from sklearn.cluster import KMeans

    seen = [s for s in encode_stream(encoder, map(str, photographs)) if isinstance(s, Encoded)]
    x = torch.stack([s.pooled[0] for s in seen])
    x = torch.nn.functional.normalize(x - x.mean(0), dim=1).numpy()
    means = KMeans(10, n_init=4, random_state=seed).fit(x)
    large = [k for k in range(10) if (means.labels_ == k).sum() >= LEAST]
    apart = np.linalg.norm(means.cluster_centers_[:, None] - means.cluster_centers_[None], axis=2)
    chosen = max(combinations(large, len(KINDS)), key=lambda ks: min(apart[a, b] for a, b in combinations(ks, 2)))
    return [[photographs[i] for i in np.flatnonzero(means.labels_ == k)] for k in chosen]


def composite(stamp: Path, photograph: Path, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A stamp at a random place and scale on a photograph; and its mask."""
    ground = Image.open(photograph).convert("RGB")
    short = min(ground.size)
    left, top = (int(rng.integers(0, n - short + 1)) for n in ground.size)
    ground = ground.crop((left, top, left + short, top + short)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    thing = Image.open(stamp).convert("RGBA")
    thing = thing.crop(thing.getchannel("A").getbbox())
    scale = rng.uniform(0.35, 0.5) * SIDE / max(thing.size)
    thing = thing.resize([max(1, round(n * scale)) for n in thing.size], Image.Resampling.LANCZOS)
    if rng.random() < 0.5:
        thing = thing.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    at = tuple(int(rng.integers(0, SIDE - n + 1)) for n in thing.size)
    ground.paste(thing, at, thing)
    mask = Image.new("L", (SIDE, SIDE))
    mask.paste(thing.getchannel("A"), at)
    return np.array(ground), np.array(mask) > 16


def world(
    stamps: dict[str, list[Path]],
    photographs: list[list[Path]],
    kept: float,
    n: int,
    name: str,
    seed: int,
) -> tuple[Samples, dict[str, np.ndarray]]:
    """``n`` pictures of each kind; each on a photograph of its own group in ``kept`` of them, else on any."""
    rng, items, masks = np.random.default_rng(seed), [], {}
    everything = [p for group in photographs for p in group]
    for k, (kind, own) in enumerate(stamps.items()):
        for i in range(n):
            among = photographs[k] if rng.random() < kept else everything
            pixels, mask = composite(own[i % len(own)], among[int(rng.integers(len(among)))], rng)
            items.append(Sample(f"{kind} {name} {i}", kind, pixels=pixels))
            masks[items[-1].image] = mask
    return gathered(items), masks


def one_seed(
    encoder: Encoder,
    grouped: Sequence[Sequence[Path]],
    args: argparse.Namespace,
    seed: int,
) -> list[dict[str, Any]]:
    """One leaning and one clean model, which is tested on both kinds of worlds."""
    rng = np.random.default_rng(seed)
    stamps = {kind: sorted((args.stamps / place).rglob("*.png")) for kind, place in KINDS.items()}
    stamps = {kind: [own[i] for i in rng.permutation(len(own))] for kind, own in stamps.items()}
    by_group = [[group[i] for i in rng.permutation(len(group))] for group in grouped]
    by_group = [by_group[k] for k in rng.permutation(len(by_group))]
    learn, test = ({k: v[part] for k, v in stamps.items()} for part in (slice(N_UNSEEN, None), slice(N_UNSEEN)))
    seen, unseen = (
        [g[len(g) // 3 :] for g in by_group],
        [g[: len(g) // 3] for g in by_group],
    )
    rows: list[dict[str, Any]] = []
    for name, kept, there in ((n, args.kept if k else 0.0, t) for n, k, t in ARMS):
        if there == 0 or not rows:
            samples, _ = world(learn, seen, kept, args.n_learn, name, seed)
            model = Linear(n_crops=0, n_bank=1, split="random", seed=seed).fit(encoder, samples)
        tested, masks = world(test, unseen, there, args.n_test, "test", 1000 + seed)
        found = BackgroundStudy(n_rounds=args.n_rounds, seed=seed, n_draws=500).run(model, tested, Known(masks))
        rows.append({"seed": seed, "model": name, **told(found.data)})
        if args.page is not None:
            found.save(args.page / f"background_{name}_{seed}.html")
    return rows


def told(data: dict[str, Any]) -> dict[str, Any]:
    """What a table needs of a study."""
    versions = {v["version"]: v["accuracy"]["value"] for v in data["all"]["versions"]}
    classes = {row["label"]: row["verdict"] for row in data["classes"]}
    difference = data["all"]["difference"]
    return {
        "verdict": data["verdict"],
        "classes": classes,
        "difference": difference,
        "right": versions,
    }


def planted(n_seeds: int) -> dict[str, Any]:
    """Models that read everything, backgrounds of no class: how often is one accused, and how often cleared."""
    sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
    from planting import CLASSES, LEVEL, SIDE, reader

    verdicts: list[str] = []
    for seed in range(n_seeds):
        rng, items, masks = np.random.default_rng(seed), [], {}
        for k, label in enumerate(CLASSES):
            for i in range(14):
                canvas = rng.uniform(0.2, LEVEL - 0.1, (SIDE, SIDE, 3))
                mask = np.zeros((SIDE, SIDE), bool)
                row, column = rng.integers(4, 36, 2)
                mask[row : row + 24, column : column + 24] = True
                canvas[..., k][mask & (rng.random(mask.shape) < rng.uniform(0, 0.4))] = 0.95
                other = int(rng.integers(len(CLASSES)))
                canvas[..., other][~mask & (rng.random(mask.shape) < rng.uniform(0, 0.06))] = 0.95
                items.append(
                    Sample(
                        f"{label} {i}",
                        label,
                        pixels=(canvas * 255).round().astype(np.uint8),
                    )
                )
                masks[items[-1].image] = mask
        found = BackgroundStudy(n_draws=2, seed=seed).run(reader("cnn", False), gathered(items), Known(masks))
        verdicts.append(found.data["verdict"])
    return {
        "seeds": n_seeds,
        **{v: verdicts.count(v) for v in ("yes", "no", "undecided")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stamps", type=Path)
    parser.add_argument("--imagenet", type=Path)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--input", type=int, default=SIDE, help="pixels at which lite0 looks")
    parser.add_argument("--kept", type=float, default=0.95)
    parser.add_argument("--n-learn", type=int, default=60)
    parser.add_argument("--n-test", type=int, default=N_UNSEEN)
    parser.add_argument("--n-rounds", type=int, default=2)
    parser.add_argument(
        "--planted",
        type=int,
        default=0,
        help="so many planted worlds, and nothing else",
    )
    parser.add_argument("--page", type=Path, help="a folder for the pages")
    parser.add_argument("--out", type=Path, help="a row a line; seeds that are in it are not run again")
    args = parser.parse_args()
    if args.planted:
        print(json.dumps(planted(args.planted)))
        return
    if args.stamps is None or args.imagenet is None:
        parser.error("--stamps and --imagenet are needed")
    rows = []
    if args.out is not None and args.out.exists():
        rows = [json.loads(line) for line in args.out.read_text("utf-8").splitlines()]
    encoder = find("lite0")
    if args.input != SIDE:
        encoder = larger(encoder, args.input / SIDE)
    grouped = groups(encoder, sorted(args.imagenet.glob("*.*")), 0)
    for seed in range(args.seeds):
        if any(row["seed"] == seed for row in rows):
            continue
        new = one_seed(encoder, grouped, args, seed)
        rows += new
        if args.out is not None:
            with args.out.open("a", encoding="utf-8") as out:
                out.writelines(json.dumps(row) + "\n" for row in new)
        print(new, file=sys.stderr, flush=True)
    for model, *_ in ARMS:
        own = [row for row in rows if row["model"] == model]
        counts = {v: sum(row["verdict"] == v for row in own) for v in ("yes", "no", "undecided")}
        differences = np.array([row["difference"]["value"] for row in own])
        spread = f"{differences.min():+.3f} to {differences.max():+.3f}"
        print(f"{model}: {counts}, difference {differences.mean():+.3f} ({spread})")


if __name__ == "__main__":
    main()
