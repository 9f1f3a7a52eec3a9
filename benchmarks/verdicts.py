"""Do the verdicts mean what they say? How stable they are, and how often maps that know nothing win them.

python benchmarks/verdicts.py PHOTOS --every 10             # a folder, with the embedded classifier
python benchmarks/verdicts.py PHOTOS -m MODEL --n 50        # a fitted one: likenesses, words and agreement too
python benchmarks/verdicts.py PHOTOS --maps 30              # many controls against one set of looks: the error rate
python benchmarks/verdicts.py --planted 20                  # pictures whose evidence is known
"""

from __future__ import annotations

import argparse
import io
import json
import random
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

import seewhy
from seewhy.attributions.base import Attribution, Explainable
from seewhy.attributions.grad_cam import GradCAM
from seewhy.classifiers.base import Classifier
from seewhy.encoders.base import EncoderOutput
from seewhy.evidence.case import Watched
from seewhy.evidence.faithfulness import PARTLY, Match, masks, match, stands_out
from seewhy.explanation.base import Explanation, Where, Words
from seewhy.explanation.similar import Like
from seewhy.heads.head import Target
from seewhy.metrics.base import Case, shuffled
from seewhy.metrics.controls import CONTROLS
from seewhy.metrics.removal import ROAD
from seewhy.pictures.sources import list_pictures

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
import planting as planted

LEVELS = ("believable", "partly", "do not rely", "not measured")


@dataclass(frozen=True)
class Control(Attribution):
    """A map that knows nothing of the model, in the place of an explanation of it."""

    name: ClassVar[str] = "control"
    paper: ClassVar[str] = ""
    needs: ClassVar[str] = "pixels"
    cost: ClassVar[str] = "0"
    needs_pixels: ClassVar[bool] = True
    draw: str = "gaussian"

    def attribute(self, model: Explainable, look: EncoderOutput, target: Any) -> Tensor:
        return CONTROLS[self.draw](model, look, target)


@dataclass(frozen=True)
class WrongClass(Attribution):
    """Grad-CAM of another class, drawn at random, in the place of the explanation of the target."""

    name: ClassVar[str] = "wrong_class"
    paper: ClassVar[str] = ""
    needs: ClassVar[str] = "nothing"
    cost: ClassVar[str] = "0"
    seed: int = 0

    def attribute(self, model: Explainable, look: EncoderOutput, target: Any) -> Tensor:
        n = len(model.head.bias)
        draw = random.Random(f"{self.seed} {float(look.pooled.sum()):.3f}")
        wrong = [draw.choice([k for k in range(n) if k != t]) for t in target.index.tolist()]
        return GradCAM()(model, look, Target(torch.tensor(wrong)))


def upright(path: str) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))


def moved(pixels: np.ndarray) -> np.ndarray:
    """One pixel to the right and down, the border repeated."""
    return np.pad(pixels, ((1, 0), (1, 0), (0, 0)), mode="edge")[:-1, :-1]


def recompressed(pixels: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def levels(e: Explanation) -> dict[str, str]:
    """The verdict on each kind of evidence there is, and how the agreement is said."""
    found = {k: v.verdict.level for k, v in (("where", e.where), ("like", e.like), ("words", e.words)) if has(v)}
    if e.seen is not None:
        found["seen"] = e.seen.verdict.level
    if e.agreement.score is not None:
        found["agreement"] = "agree" if e.agreement.score >= 0.7 else "part" if e.agreement.score >= 0.4 else "disagree"
    return found


def has(evidence: Any) -> bool:
    return isinstance(evidence, Where | Like | Words)


def road(model: Classifier, e: Explanation) -> float:
    """An independent measure of the same map; not one pixel of it is read by the verdict."""
    assert isinstance(e.where, Where)
    case = Case.of(model, model.encoder.pixels([e.view])[0], model.index_of(e.where.target))
    return float(ROAD().measure(case, torch.from_numpy(e.where.heat)[None])[0].value)


class Passes:
    """Counts the pictures that the trunk sees."""

    def __init__(self, model: Classifier) -> None:
        self.n = 0
        self.encode: Callable[[Tensor], EncoderOutput] = model.encoder.encode

    def __call__(self, pixels: Tensor) -> EncoderOutput:
        self.n += len(pixels)
        return self.encode(pixels)


def trial(model: Classifier, pictures: Sequence[str], n_seeds: int, n_wrong: int, like: str | None) -> dict[str, Any]:
    """Every picture under every change, and every control in place of its map."""
    rows: list[dict[str, Any]] = []
    ask: dict[str, Any] = {} if like is None else {"like": like}
    for path in pictures:
        pixels = upright(path)
        plain = model.explain(pixels, **ask)
        assert isinstance(plain.where, Where)
        same = {"target": plain.prediction.label, **ask}
        row = {"match": plain.where.match, "road": road(model, plain), "plain": levels(plain)}
        row["seeds"] = [levels(model.explain(pixels, seed=s, **ask)) for s in range(1, n_seeds)]
        row["moved"] = levels(model.explain(moved(pixels), **same))
        row["jpeg"] = [levels(model.explain(recompressed(pixels, q), **same)) for q in (95, 75)]
        for name, control in (("gaussian", Control("gaussian")), ("random", Control("random"))):
            row[name] = [model.explain(pixels, where=control).where.verdict.level]
        row["wrong class"] = [model.explain(pixels, where=WrongClass(s)).where.verdict.level for s in range(n_wrong)]
        rows.append(row)
    return {"n": len(rows), "rows": rows, **summary(rows)}


def rates(model: Classifier, pictures: Sequence[str], n: int) -> dict[str, dict[str, float]]:
    """How often maps are believable, by the match alone and with the next class's map; ``n`` of each kind a picture.

    Each kind is a pair: the maps given for the class decided for, and those the same maker gives for the next class.
    """
    found: dict[str, list[tuple[Match, float]]] = {}
    for i, path in enumerate(pictures):
        pixels = model.encoder.pixels([model.explain(upright(path), measure=False).view])
        size = (pixels.shape[2], pixels.shape[3])
        look, draw = model.encoder.encode(pixels), random.Random(i)
        logits = model.head(look.pooled)[0]
        target, *others = logits.argsort(descending=True).tolist()
        watched = Watched(model, target, None, others[0])
        seen = torch.cat([watched.read(part) for part in (pixels[0] * masks(*size)).split(12)])
        own, rival = of_classes(model, look, [target, others[0]]).split(1)
        far = others[4:] or others[1:] or others
        generator = torch.Generator().manual_seed(i)
        bump, edges = (CONTROLS[name](model, look, None) for name in ("gaussian", "edges"))
        noise = torch.rand(2, n, *own.shape[1:], generator=generator)
        maps = {
            "own": (own, rival),
            "next class": (rival, rival),
            "next class, exchanged": (rival, own),
            "third to fifth class": (of_classes(model, look, others[1:4]), rival),
            "random other class": (of_classes(model, look, draw.sample(far, min(n, len(far)))), rival),
            "random cells": (noise[0], noise[1]),
            "shuffled": (shuffled(own[0], n, i), shuffled(rival[0], n, i)),
            "gaussian": (bump, bump),
            "edges": (edges, edges),
        }
        for name, (group, of_next) in maps.items():
            leads = match(seen[:, 2], group - of_next, size)
            odds = match(seen[:, 1], group, size)
            found.setdefault(name, []).extend((m, lead.value) for m, lead in zip(odds, leads, strict=True))
    return {
        name: {
            "believable by the match alone": round(float(np.mean([stands_out(m) for m, _ in of])), 3),
            "believable": round(float(np.mean([stands_out(m) and lead >= PARTLY for m, lead in of])), 3),
            "maps": len(of),
        }
        for name, of in found.items()
    }


def of_classes(model: Classifier, look: EncoderOutput, classes: Sequence[int]) -> Tensor:
    if not classes:
        return torch.empty(0, *model.encoder.layout.to_grid(look.features).shape[2:])
    return torch.cat([GradCAM()(model, look, Target(torch.tensor([k]))) for k in classes])


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {"levels": {}, "kept": {}, "controls": {}, "road": {}}
    for kind in rows[0]["plain"]:
        of = [r for r in rows if kind in r["plain"]]
        found["levels"][kind] = dict(Counter(r["plain"][kind] for r in of))
        found["kept"][kind] = {
            "over seeds": sum(all(s.get(kind) == r["plain"][kind] for s in r["seeds"]) for r in of),
            "moved by a pixel": sum(r["moved"].get(kind) == r["plain"][kind] for r in of),
            "JPEG 95 against 75": sum(r["jpeg"][0].get(kind) == r["jpeg"][1].get(kind) for r in of),
            "of": len(of),
        }
    for name in ("gaussian", "random", "wrong class"):
        given = [level for r in rows for level in r[name]]
        found["controls"][name] = {level: round(given.count(level) / len(given), 3) for level in LEVELS}
    for level in LEVELS:
        values = [r["road"] for r in rows if r["plain"]["where"] == level]
        if values:
            found["road"][level] = {"mean": round(float(np.mean(values)), 3), "n": len(values)}
    return found


def on_planted(n: int) -> list[dict[str, Any]]:
    """Grad-CAM on planted evidence: how often it is believable, where it points at the evidence and where not."""
    found = []
    for architecture in ("cnn", "transformer"):
        for kind in planted.KINDS:
            model = planted.reader(architecture, kind == "region")
            count: Counter[str] = Counter()
            for i in range(n):
                one = planted.plant(kind, 1000 + i)
                contrast = None if one.against is None else model.classes[one.against]
                where = model.explain(one.pixels, target=model.classes[one.target], contrast=contrast).where
                assert isinstance(where, Where)
                hit, _ = planted.hit_and_energy(torch.from_numpy(where.heat), torch.from_numpy(one.mask))
                count[f"{'hit' if hit > 0.99 else 'miss'}: {where.verdict.level}"] += 1
            found.append({"architecture": architecture, "kind": kind, "n": n, **count})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", nargs="?", type=Path)
    parser.add_argument("-m", "--model", type=Path)
    parser.add_argument("--encoder", default="lite0")
    parser.add_argument("--like", help="a way of finding likenesses")
    parser.add_argument("--n", type=int, default=50, help="pictures")
    parser.add_argument("--every", type=int, default=1, help="of the sorted folder, each so many-th")
    parser.add_argument("--first", type=int, default=0, help="where to begin in the folder")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--wrong", type=int, default=3, help="wrong classes a picture")
    parser.add_argument("--maps", type=int, default=0, help="only the error rates, by so many maps of each kind")
    parser.add_argument("--planted", type=int, default=0, help="planted pictures a kind")
    parser.add_argument("--json", type=Path, help="a file for every row")
    args = parser.parse_args()
    torch.set_num_threads(1)
    result: dict[str, Any] = {}
    if args.planted:
        result["planted"] = on_planted(args.planted)
    if args.pictures is not None:
        model = seewhy.load(args.model) if args.model else seewhy.pretrained(args.encoder)
        pictures = list(list_pictures([args.pictures]))[args.first :: args.every][: args.n]
        if args.maps:
            print(json.dumps(rates(model, pictures, args.maps), indent=1))
            return
        passes = Passes(model)
        model.encoder.encode = passes  # type: ignore[method-assign]
        model.explain(pictures[0])
        result["passes for one measured map, likenesses included"] = passes.n
        result |= trial(model, pictures, args.seeds, args.wrong, args.like)
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    print(json.dumps({k: v for k, v in result.items() if k != "rows"}, indent=1))


if __name__ == "__main__":
    main()
