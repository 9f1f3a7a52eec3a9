"""A trained detector beside every control, on blood smears and on composites, and its time beside a prediction's.

    python benchmarks/detectors.py --bccd BCCD --grocery GROCERY --photos PHOTOS --work WORK [--json out.json]
    python benchmarks/detectors.py --bccd BCCD --small [--json out.json]
    python benchmarks/detectors.py --bccd BCCD --grocery GROCERY --photos PHOTOS --work WORK --draws 8 --method dito

BCCD has images/ and annotations/ (VOC); GROCERY has iconic/, one clean picture for each product; PHOTOS are photographs
of other things. Composites are one to three of ten groceries, cut out of their white ground, at random place, size (.2
to .55 of the short side) and side on a photograph; a thing is the same cut-out in training and test, photographs are
not.
Splits are by seed: 50 of BCCD's pictures and 80 composites are tested on, once. ``--small`` is one row of 60 smears to
learn from and 30 to test on, at twice the size with one round of mistakes and 64 components: under a minute of an idle
core. What is found is told by the size of things as well, in thirds of each class.

``--draws N`` asks whether what a fit says of itself comes true: N times 40 pictures are learnt from, 60 others found,
and beside each range that the fit said stands the later figure, and whether it lies in it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

import seewhy
from seewhy.dense.evaluation import evaluate_boxes
from seewhy.metrics.average_precision import average_precision, boxes_of, overlap_of
from seewhy.pictures.boxes import BoxData, BoxedPicture, BoxRecord

KINDS = (
    "Banana", "Pomegranate", "Lemon", "Regular-Tomato", "Kiwi", "Pineapple", "Avocado", "Carrots", "Mango",
    "Red-Bell-Pepper",
)  # fmt: skip


def cut_out(file: Path) -> Image.Image:
    """A thing without the white that touches the picture's edge."""
    pixels = np.asarray(Image.open(file).convert("RGB"))
    piece, _ = ndimage.label((pixels >= 244).all(2))
    edge = np.unique(np.concatenate([piece[0], piece[-1], piece[:, 0], piece[:, -1]]))
    inside = ndimage.binary_erosion(~np.isin(piece, edge[edge > 0]))
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    whole = np.dstack([pixels, inside * np.uint8(255)])[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return Image.fromarray(np.ascontiguousarray(whole), "RGBA")


def composites(grocery: Path, photos: list[Path], folder: Path, seed: int) -> BoxData:
    """Photographs with things on them that do not overlap, and where they are."""
    rng, things, pictures = np.random.default_rng(seed), {k: cut_out(grocery / f"{k}.jpg") for k in KINDS}, []
    folder.mkdir(parents=True, exist_ok=True)
    for i, photo in enumerate(photos):
        ground, boxes = Image.open(photo).convert("RGB"), list[BoxRecord]()
        for _ in range(int(rng.integers(1, 4))):
            label = KINDS[int(rng.integers(len(KINDS)))]
            thing = things[label]
            scale = min(ground.size) * rng.uniform(0.2, 0.55) / max(thing.size)
            w, h = (max(8, int(side * scale)) for side in thing.size)
            thing = thing.resize((w, h), Image.Resampling.LANCZOS)
            if rng.random() < 0.5:
                thing = thing.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            for _ in range(20):
                x, y = int(rng.integers(0, ground.width - w)), int(rng.integers(0, ground.height - h))
                if all(x + w <= b.box[0] or x >= b.box[2] or y + h <= b.box[1] or y >= b.box[3] for b in boxes):
                    ground.paste(thing, (x, y), thing)
                    boxes.append(BoxRecord((x, y, x + w, y + h), label))
                    break
        ground.save(folder / f"{i}.jpg", quality=92)
        pictures.append(BoxedPicture(str(folder / f"{i}.jpg"), ground.size, tuple(boxes)))
    return BoxData(tuple(pictures), KINDS)


def split(data: BoxData, n: int, seed: int = 0) -> tuple[BoxData, BoxData]:
    """All but ``n`` pictures, and these."""
    order = np.random.default_rng(seed).permutation(len(data))
    return tuple(replace(data, pictures=tuple(data.pictures[i] for i in sorted(o))) for o in (order[n:], order[:n]))  # type: ignore[return-value]


def by_size(test: BoxData, found: list[BoxedPicture], classes: tuple[str, ...]) -> dict[str, list[list[float]]]:
    """Of each class's things in thirds by area: the mean root of the area, and the part that any of the boxes finds.

    A thing is found where a box of its class, among as many of the surest as the picture has things, overlaps by half.
    """
    sizes: dict[str, list[tuple[float, bool]]] = {label: [] for label in classes}
    for picture, other in zip(test.pictures, found, strict=True):
        surest = sorted(other.boxes, key=lambda b: -(b.score or 0.0))[: len(picture.boxes)]
        for thing in picture.boxes:
            boxes = np.array([b.box for b in surest if b.label == thing.label]).reshape(-1, 4)
            right = bool((overlap_of(np.array([thing.box], float), boxes) >= 0.5).any())
            left, top, far, low = thing.box
            sizes.setdefault(thing.label, []).append((((far - left) * (low - top)) ** 0.5, right))
    thirds = {label: np.array_split(np.array(sorted(rows), float).reshape(-1, 2), 3) for label, rows in sizes.items()}
    return {
        label: [[round(float(v), 3) for v in part.mean(0)] + [len(part)] for part in parts if len(part)]
        for label, parts in thirds.items()
    }


def measured(name: str, train: BoxData, test: BoxData, **parameters: Any) -> dict[str, Any]:
    """One row: AP50 with its interval and controls, what the thresholds reach, seconds of the processor."""
    start = time.process_time()
    made = seewhy.fit_detector(train, **parameters)
    seconds = time.process_time() - start
    every = made.keeping(least=0.0)
    found = [
        one.record() for one in every.detect_all([p.image for p in test.pictures]) if isinstance(one, seewhy.Detections)
    ]
    data = evaluate_boxes(test, BoxData(tuple(found), made.classes)).data
    row = {key: data[key] for key in ("n_pictures", "n_boxes", "ap", "ap50", "ap50_interval", "any_name")}
    row |= {"name": name, "parameters": parameters, "fit_seconds": round(seconds, 1), "measured": made.measured}
    row["per_class"] = {c["label"]: c["ap50"] for c in data["per_class"]}
    row["found_by_size"] = by_size(test, found, made.classes)
    row["controls"] = {c["name"]: [c["ap50"], c["ap50_best"], c["real"]] for c in data["controls"]}
    print(json.dumps(row), flush=True)
    return row


def later(name: str, data: BoxData, seed: int, n: int = 40, **parameters: Any) -> dict[str, Any]:
    """What a fit on ``n`` pictures expects of itself, and what it reaches on 60 others."""
    drawn, rest = split(data, len(data) - n, seed)
    made = seewhy.fit_detector(drawn, **parameters)
    test = replace(rest, pictures=rest.pictures[:60])
    told = {row["label"]: row for row in made.calibration["classes"] if row["ap50"] is not None}
    images = [p.image for p in test.pictures]
    every, kept = ([one.record() for one in d.detect_all(images)] for d in (made.keeping(least=0.0), made))  # type: ignore[union-attr]
    there, found, at = ([boxes_of(p, tuple(told)) for p in side] for side in (test.pictures, every, kept))
    ap50 = average_precision(there, found, tuple(told)).ap50
    low, high = made.calibration["ap50_interval"] or (0.0, 1.0)
    row: dict[str, Any] = {"name": name, "method": made.method, "seed": seed, "said": [low, high], "later": ap50}
    row |= {"inside": low <= ap50 <= high, "thresholds": {}}
    for label, one in zip(told, average_precision(there, at, tuple(told)).matched, strict=True):
        right, counts = one.right[0], one.right[0] | one.counts[0]
        reached = (right.sum() / max(counts.sum(), 1), right.sum() / max(one.n_there.sum(), 1))
        row["thresholds"][label] = {
            what: [*told[label][f"{what}_interval"], float(value)]
            for what, value in zip(("precision", "recall"), reached, strict=True)
        }
    print(json.dumps(row), flush=True)
    return row


def per_picture(run: Callable[[list[str]], Any], names: list[str], n: int = 3) -> float:
    """Seconds of the processor for each picture, the best of ``n`` runs."""
    run(names)
    spent = []
    for _ in range(n):
        start = time.process_time()
        run(names)
        spent.append((time.process_time() - start) / len(names))
    return min(spent)


def times(train: BoxData, names: list[str]) -> dict[str, float]:
    """Of a prediction, a segmentation and a detection, by words and trained, at one and at two inputs."""
    model, found = seewhy.pretrained("lite0"), {}
    words = ["banana", "lemon", "tomato", "background"]
    found["predict"] = per_picture(lambda n: list(model.predict(n)), names)
    for zoom in (1.0, 2.0):
        made = seewhy.fit_detector(replace(train, pictures=train.pictures[:24]), zoom=zoom, method="linear", rounds=0)
        found[f"detect -m, zoom {zoom:g}"] = per_picture(lambda n, m=made: list(m.detect_all(n)), names)
        found[f"segment, zoom {zoom:g}"] = per_picture(lambda n, z=zoom: seewhy.segment(n, words, zoom=z), names)
        found[f"detect, zoom {zoom:g}"] = per_picture(lambda n, z=zoom: seewhy.detect(n, words[:3], size=z), names)
        print(json.dumps(found), flush=True)
    return found


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--bccd", type=Path, required=True)
    for name in ("grocery", "photos", "work"):
        made.add_argument(f"--{name}", type=Path)
    made.add_argument("--small", action="store_true", help="one row of fewer smears")
    made.add_argument("--draws", type=int, default=0, help="fits whose own range is compared with later figures")
    made.add_argument("--method", default="linear", help="that is fitted for --draws")
    made.add_argument("--json", type=Path)
    args = made.parse_args()
    blood = seewhy.load_boxes(args.bccd / "annotations", pictures=args.bccd / "images")
    smears, new = split(blood, 50)
    if args.draws:
        sets = {
            "BCCD": blood,
            "composites": composites(args.grocery / "iconic", shuffled(args.photos)[:150], args.work, 1),
        }
        rows = [later(name, d, i, method=args.method) for name, d in sets.items() for i in range(args.draws)]
        spent = None
    elif args.small:
        smears, new = (replace(d, pictures=d.pictures[:n]) for d, n in ((smears, 60), (new, 30)))
        rows, spent = [measured("BCCD, 60", smears, new, method="linear", rounds=1, width=64)], None
    else:
        rows, spent = whole(args, smears, new)
    if args.json is not None:
        args.json.write_text(json.dumps({"rows": rows, "seconds": spent}, indent=1), "utf-8")


def shuffled(folder: Path) -> list[Path]:
    """The photographs of a folder."""
    photos = sorted(folder.glob("*.jpg"))
    np.random.default_rng(0).shuffle(photos)  # type: ignore[arg-type]
    return photos


def whole(args: argparse.Namespace, smears: BoxData, new: BoxData) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Every row, and the times."""
    photos = shuffled(args.photos)
    train = composites(args.grocery / "iconic", photos[:160], args.work / "train", 1)
    test = composites(args.grocery / "iconic", photos[220:300], args.work / "test", 3)
    rows = [
        measured("composites", train, test),
        measured("BCCD, zoom 4", smears, new, zoom=4.0),
        measured("BCCD", smears, new),
    ]
    return rows, times(train, [p.image for p in test.pictures[:40]])


if __name__ == "__main__":
    main()
