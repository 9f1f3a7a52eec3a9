"""Do maps find the evidence? Planted evidence, boxes round blood cells, masks of cars; beside controls."""

from __future__ import annotations

import random
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from claims import Claim, lead, mean_of, table, verdict
from tiles import LABELS, Annotated, Cut, bccd, camvid, write_tiles
from torch import Tensor

import seewhy
from seewhy.classifiers.base import Classifier
from seewhy.heads.head import Target
from seewhy.metrics.base import Case
from seewhy.metrics.controls import CONTROLS
from seewhy.metrics.localisation import EnergyPointingGame, IoULocalisation, PointingGame
from seewhy.pictures.images import read_picture
from seewhy.pictures.sources import list_pictures

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
import planting as planted

Maps = dict[str, Callable[..., Tensor]]
Found = tuple[list[Claim], dict[str, Any]]
Columns = dict[str, list[float]]
PLANTED = {
    "copies": "both copies of the evidence",
    "shortcut": "a small watermark beside a large object",
    "part": "the part in which two classes differ",
    "region": "the one of four symbols that a network with another head than a mean reads",
}


def in_planted(maps: Maps, n: int, seed: int) -> Found:
    """Each kind of planted evidence in a network that provably reads nothing else."""
    claims, numbers = [], {}
    for kind in planted.KINDS:
        model = planted.reader("cnn", kind == "region")
        hits, energy = defaultdict(list), defaultdict(list)
        for i in range(n):
            one = planted.plant(kind, seed + i)
            look = model.encoder.encode(model.encoder.pixels([one.pixels]))
            against = None if one.against is None else torch.tensor([one.against])
            for name in ("grad_cam", *CONTROLS):
                heat = maps[name](model, look, Target(torch.tensor([one.target]), against))[0]
                hit, part = planted.hit_and_energy(heat, torch.from_numpy(one.mask))
                hits[name].append(hit)
                energy[name].append(part)
        claims.append(planted_claim(kind, hits, energy))
        numbers[kind] = {"pointing": table(hits), "energy": table(energy)}
    return claims, numbers


def planted_claim(kind: str, hits: Columns, energy: Columns) -> Claim:
    """There the truth is known and a perfect score possible, also for a control: the edges of a lone symbol."""
    ours, part = mean_of(hits["grad_cam"]), mean_of(energy["grad_cam"])
    best = max(CONTROLS, key=lambda c: mean_of(energy[c]).value)
    more = all(lead(energy["grad_cam"], energy[c]).low > 0 for c in CONTROLS)
    return Claim(
        f"Grad-CAM finds {PLANTED[kind]}",
        "hits (pointing game) in 90 % of the pictures or more, and energy above every control (random, centred, edges, "
        "area) in pairs; partly: one of the two",
        f"hits {ours}; energy {part}, best control {best} {mean_of(energy[best])}",
        verdict(ours.value >= 0.9 and more, ours.value >= 0.9 or more),
        len(hits["grad_cam"]),
        "planted evidence",
    )


def pointing_claim(section: str, thing: str, hits: Columns, energy: Columns) -> Claim:
    """Grad-CAM against every control, in pairs; the uniform map is the baseline of the thing's area."""
    clear = [all(lead(t["grad_cam"], t[c]).low > 0 for c in CONTROLS) for t in (hits, energy)]
    best = [max(CONTROLS, key=lambda c, t=t: mean_of(t[c]).value) for t in (hits, energy)]
    said = [
        f"{w} {mean_of(t['grad_cam'])}, best control {c} {mean_of(t[c])}"
        for w, t, c in zip(("pointing", "energy"), (hits, energy), best, strict=True)
    ]
    return Claim(
        f"Grad-CAM points at {thing}",
        "pointing game and energy each above every control (random, centred, edges, area), in pairs; partly: one",
        f"{'; '.join(said)}; area {mean_of(energy['uniform']).value:.3f}",
        verdict(all(clear), any(clear)),
        len(hits["grad_cam"]),
        section,
    )


def in_blood(maps: Maps, folder: Path, thing: str, word: str, cut: Cut, seed: int) -> Found:
    pictures = bccd(folder, thing)
    random.Random(seed).shuffle(pictures)
    half = len(pictures) * 3 // 5
    return localised(maps, f"BCCD: {word}", f"the {word}'s box", pictures[:half], pictures[half:], cut, seed)


def in_streets(maps: Maps, folder: Path, cut: Cut, seed: int) -> Found:
    train, test = (camvid(folder / part, 8) for part in ("train", "test"))
    return localised(maps, "CamVid: car", "the car", train, test, cut, seed)


def localised(
    maps: Maps, section: str, thing: str, train: list[Annotated], test: list[Annotated], cut: Cut, seed: int
) -> Found:
    """Maps of the class "with", of a classifier that was never told where, on other pictures' tiles."""
    encoder = seewhy.encoder("lite0")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_tiles(train, cut, encoder.transform, folder / "train", seed)
        masks = write_tiles(test, cut, encoder.transform, folder / "test", seed)
        model = seewhy.fit(folder / "train", encoder, n_crops=2, seed=seed)
        right = [p.label == Path(p.image).parent.name for p in model.predict_all(list_pictures([folder / "test"]))]
        hits, energy, overlap = judged(maps, model, masks)
    wins = [lead(overlap["grad_cam"], overlap[c]) for c in CONTROLS]
    best = max(CONTROLS, key=lambda c: mean_of(overlap[c]).value)
    accuracy = sum(right) / len(right)
    claims = [
        pointing_claim(section, thing, hits, energy),
        Claim(
            "The box round Grad-CAM's largest piece above 15 % of the maximum finds the object",
            "its overlap (IoU) above every control's, in pairs; partly: above all but one",
            f"IoU {mean_of(overlap['grad_cam'])}, best control {best} {mean_of(overlap[best])}",
            verdict(all(w.low > 0 for w in wins), sum(w.low > 0 for w in wins) == len(wins) - 1),
            len(overlap["grad_cam"]),
            section,
        ),
    ]
    tables = {"pointing": table(hits), "energy": table(energy), "IoU": table(overlap)}
    return claims, {**tables, "n_tiles": len(masks), "accuracy": round(accuracy, 3), "n_accuracy": len(right)}


def judged(maps: Maps, model: Classifier, masks: dict[Path, tuple[int, Tensor]]) -> tuple[Columns, Columns, Columns]:
    """Hits, energy and overlap by method, a number a picture: the mean over its tiles."""
    metrics = (PointingGame(), EnergyPointingGame(), IoULocalisation())
    found: list[dict[str, dict[int, list[float]]]] = [defaultdict(lambda: defaultdict(list)) for _ in metrics]
    target = model.index_of(LABELS[0])
    for path, (number, mask) in masks.items():
        pixels = model.encoder.pixels([read_picture(str(path), model.encoder.transform).pixels])
        look = model.encoder.encode(pixels)
        case = Case.of(model, pixels[0], target, mask=mask)
        for name, method in maps.items():
            heat = method(model, look, Target(torch.tensor([target])))
            for rows, metric in zip(found, metrics, strict=True):
                score = metric.measure(case, heat)[0]
                rows[name][number].append(score.parts.get("iou", score.value))
    hits, energy, overlap = ({n: [sum(v) / len(v) for v in by.values()] for n, by in rows.items()} for rows in found)
    return hits, energy, overlap
