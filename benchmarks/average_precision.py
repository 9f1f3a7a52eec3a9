"""Average precision of boxes beside pycocotools': the answers, and seconds of the processor.

    pip install pycocotools
    python benchmarks/average_precision.py [--json out.json]

150 drawn pictures of 640 x 480 like blood smears (BCCD): about twelve red cells, a white one and a platelet, and boxes
"found" of them, moved and with scores by chance, a tenth under another name; as many boxes as there are things, three
times as many, and 100 for each picture. pycocotools counts four ranges of area and three numbers of boxes, as it does
unasked, and again with what this library counts alone: every area, 100 boxes. Reading of files is in neither.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from seewhy.metrics.average_precision import PictureBoxes, average_precision

CLASSES, SIZES, NUMBERS = ("RBC", "WBC", "Platelets"), (100, 200, 40), (12.0, 1.0, 1.0)


def drawn(n_found: float, seed: int = 0, n: int = 150) -> tuple[list[PictureBoxes], list[PictureBoxes]]:
    """What is there in ``n`` pictures, and what was found: ``n_found`` boxes for each thing, 100 a picture at most."""
    rng, there, found = np.random.default_rng(seed), [], []
    for _ in range(n):
        labels = np.repeat(np.arange(3), rng.poisson(NUMBERS))
        side = np.array(SIZES)[labels, None] * rng.uniform(0.8, 1.2, (len(labels), 2))
        corner = rng.uniform(0, 1, (len(labels), 2)) * (np.array([640, 480]) - side)
        there.append(PictureBoxes.of(np.hstack([corner, corner + side]), labels))
        of = np.resize(rng.permutation(len(labels)), min(100, round(len(labels) * n_found))) if len(labels) else labels
        moved = corner[of] + side[of] * rng.normal(0, 0.12, (len(of), 2))
        size = side[of] * rng.uniform(0.75, 1.3, (len(of), 2))
        names = np.where(rng.random(len(of)) < 0.1, rng.integers(0, 3, len(of)), labels[of])
        found.append(PictureBoxes.of(np.hstack([moved, moved + size]), names, rng.random(len(of))))
    return there, found


def coco_of(there: list[PictureBoxes], found: list[PictureBoxes]) -> tuple[COCO, COCO]:
    """The same for pycocotools."""
    tables = COCO(), COCO()
    for table, pictures in zip(tables, (there, found), strict=True):
        rows = [
            {"image_id": i, "category_id": int(k) + 1, "bbox": [*b[:2], *(b[2:] - b[:2])], "score": float(s),
             "area": float((b[2:] - b[:2]).prod()), "iscrowd": 0}
            for i, p in enumerate(pictures)
            for b, k, s in zip(p.boxes, p.labels, p.scores, strict=True)
        ]  # fmt: skip
        table.dataset = {
            "images": [{"id": i} for i in range(len(pictures))],
            "categories": [{"id": k + 1, "name": c} for k, c in enumerate(CLASSES)],
            "annotations": [row | {"id": i + 1} for i, row in enumerate(rows)],
        }
        table.createIndex()
    return tables


def counted(there: COCO, found: COCO, alone: bool) -> np.ndarray:
    """Precision by pycocotools, overlap by recall by class, every area, 100 boxes."""
    made = COCOeval(there, found, "bbox")
    if alone:
        made.params.areaRng, made.params.areaRngLbl, made.params.maxDets = [[0, 1e10]], ["all"], [100]
    made.evaluate()
    made.accumulate()
    return np.asarray(made.eval["precision"])[..., 0, -1]


def least(run: Callable[[], Any], n: int = 3) -> tuple[float, Any]:
    """Seconds of the processor, the least of ``n`` runs, and the answer."""
    spent = []
    for _ in range(n):
        start = time.process_time()
        answer = run()
        spent.append(time.process_time() - start)
    return min(spent), answer


def row(name: str, n_found: float) -> dict[str, Any]:
    there, found = drawn(n_found)
    with contextlib.redirect_stdout(io.StringIO()):
        tables = coco_of(there, found)
        unasked, _ = least(lambda: counted(*tables, False))
        alone, theirs = least(lambda: counted(*tables, True))
    own, ours = least(lambda: average_precision(there, found, CLASSES).ap)
    per_class = average_precision(there, found, CLASSES).per_class()[0]
    return {
        "found": name,
        "n_there": sum(len(p.boxes) for p in there),
        "n_found": sum(len(p.boxes) for p in found),
        "ap": ours,
        "largest_difference": float(np.abs(theirs.mean(1).T - per_class).max()),
        "seconds": own,
        "pycocotools_seconds": unasked,
        "times_faster": unasked / own,
        "pycocotools_alone_seconds": alone,
        "times_faster_than_alone": alone / own,
    }


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--json", type=Path)
    args = made.parse_args()
    rows = [row("one for each thing", 1.0), row("three for each", 3.0), row("100 for each picture", 100.0)]
    for one in rows:
        print(json.dumps({k: round(v, 12) if isinstance(v, float) else v for k, v in one.items()}), flush=True)
    if args.json is not None:
        args.json.write_text(json.dumps(rows, indent=1), "utf-8")


if __name__ == "__main__":
    main()
