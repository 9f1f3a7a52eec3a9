"""Influences of 40 prototypes over pictures, beside the paper's way: one picture at a time, a row for every prototype.

The peer does what the authors' script does with the same network in eager torch: change and save nothing, one pass for
the picture, one for its six copies, then a row for each prototype and property in a list, averaged at the end. Its
non-local means are OpenCV's where that is installed, else ours. Both give the same means up to those; the correlation
is printed. Rounds are interleaved, so that whatever else the machine does falls on both alike; the median counts.
On a busy machine read the CPU seconds.

    python benchmarks/characteristics.py
    python benchmarks/characteristics.py --pictures FOLDER --n 60 --json
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import resource
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor

from seewhy.encoders.base import Encoder, EncoderOutput
from seewhy.encoders.find import encoder as load_encoder
from seewhy.pictures.images import read_picture
from seewhy.pictures.sources import list_pictures
from seewhy.prototypes.bank import patch_vectors
from seewhy.prototypes.characteristics import Characteristics
from seewhy.prototypes.perturbations import PROPERTIES, EqualChanges, PaperChanges, denoise


def read(folder: Path | None, n: int) -> list[np.ndarray]:
    """Pictures from a folder, or parts of the photographs that come with scikit-image."""
    if folder is not None:
        names = list(list_pictures([folder]))
        step = max(1, len(names) // n)
        return [np.asarray(Image.open(name).convert("RGB")) for name in names[::step][:n]]
    import skimage.data

    photos = [skimage.data.chelsea(), skimage.data.coffee(), skimage.data.astronaut(), skimage.data.rocket()]
    rng, found = np.random.default_rng(0), []
    for i in range(n):
        photo = photos[i % len(photos)]
        top, left = (int(rng.integers(side - 240)) for side in photo.shape[:2])
        found.append(np.ascontiguousarray(photo[top : top + 240, left : left + 240]))
    return found


def maps_of(vectors: Tensor, encoder: Encoder) -> Callable[[EncoderOutput], Tensor]:
    """Cosine of every cell with every prototype."""
    return lambda look: torch.einsum(
        "pc,bchw->bphw", vectors, patch_vectors(encoder.layout.to_grid(look.features)).float()
    )


def theirs(encoder: Encoder, maps: Callable[[EncoderOutput], Tensor], pictures: list[np.ndarray]) -> np.ndarray:
    """The authors' loop: every row is kept until the end."""
    rows: list[dict[str, Any]] = []
    for number, picture in enumerate(pictures):
        copies = [their_change(picture, name) for name in PROPERTIES]
        with torch.no_grad():
            first, rest = (
                eager(encoder, [read_picture(p, encoder.transform).pixels for p in part])
                for part in ([picture], copies)
            )
            similarity = maps(first)[0].flatten(1)
            best = similarity.argmax(1)
            before = similarity.gather(1, best[:, None])[:, 0]
            after = maps(rest).flatten(2).gather(2, best[None, :, None].expand(len(copies), -1, 1))[..., 0]
        for m, name in enumerate(PROPERTIES):
            for p in range(len(before)):
                delta = float(before[p] - after[m, p])
                rows.append({"image": number, "prototype": p, "m": name, "delta": delta, "g": float(before[p])})
    sums: dict[tuple[int, str], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for row in rows:
        pair = sums[row["prototype"], row["m"]]
        pair[0] += row["g"] * row["delta"]
        pair[1] += row["g"]
    return np.array([[sums[p, m][0] / sums[p, m][1] for m in PROPERTIES] for p in range(len(before))])


def their_change(picture: np.ndarray, name: str) -> np.ndarray:
    if name != "texture":
        return PaperChanges().change(picture, name)
    if importlib.util.find_spec("cv2") is None:
        return denoise(picture, 4.0)
    import cv2

    bgr = np.ascontiguousarray(picture[..., ::-1])
    return np.ascontiguousarray(cv2.fastNlMeansDenoisingColored(bgr, None, 4, 4, 7, 21)[..., ::-1])


def eager(encoder: Encoder, views: list[np.ndarray]) -> EncoderOutput:
    features = encoder.trunk(encoder.pixels(views))
    return EncoderOutput(features, encoder.head(features))


def main() -> None:
    args = arguments()
    encoder = load_encoder("lite0")
    pictures = read(args.pictures, args.n)
    seen = [encoder.encode(encoder.pixels([read_picture(p, encoder.transform).pixels])) for p in pictures[:8]]
    cells = torch.cat([patch_vectors(encoder.layout.to_grid(s.features))[0].flatten(1).T for s in seen])
    vectors = cells[torch.linspace(0, len(cells) - 1, args.prototypes).long()].float()
    maps = maps_of(vectors, encoder)
    found: dict[str, Any] = {}
    ways: dict[str, Callable[[], Any]] = {
        "seewhy, calibrated": lambda: Characteristics(EqualChanges()).overall(encoder, maps, pictures).phi.numpy(),
        "seewhy, paper": lambda: Characteristics(PaperChanges()).overall(encoder, maps, pictures).phi.numpy(),
        "one by one, eager torch": lambda: theirs(encoder, maps, pictures),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    busy: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(args.rounds):
        for name, way in ways.items():
            begun, used = time.perf_counter(), time.process_time()
            found[name] = way()
            seconds[name].append(time.perf_counter() - begun)
            busy[name].append(time.process_time() - used)
    agreement = float(np.corrcoef(found["seewhy, paper"].ravel(), found["one by one, eager torch"].ravel())[0, 1])
    report = {
        "pictures": len(pictures),
        "prototypes": args.prototypes,
        "seconds_a_picture": {name: round(median(times) / len(pictures), 3) for name, times in seconds.items()},
        "cpu_seconds_a_picture": {name: round(median(times) / len(pictures), 3) for name, times in busy.items()},
        "minutes_for_500": {
            name: round(median(times) / len(pictures) * 500 / 60, 1) for name, times in seconds.items()
        },
        "correlation": round(agreement, 5),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    show(report, args.json)


def show(report: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(report))
        return
    table = Table(title=f"{report['prototypes']} prototypes over {report['pictures']} pictures")
    for head in ("way", "s a picture", "CPU s a picture", "minutes for 500"):
        table.add_column(head)
    for name, seconds in report["seconds_a_picture"].items():
        table.add_row(
            name,
            f"{seconds:.3f}",
            f"{report['cpu_seconds_a_picture'][name]:.3f}",
            f"{report['minutes_for_500'][name]:.1f}",
        )
    Console().print(table)
    print(f"correlation of the influences with the peer's: {report['correlation']}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, help="a folder; left out, those that come with scikit-image")
    parser.add_argument("--n", type=int, default=32)
    parser.add_argument("--prototypes", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
