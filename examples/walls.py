"""Make pictures to try SeeWhy on: walls that are fine, cracked or stained, six of them with a wrong label.

    python examples/walls.py            # writes walls/photos, walls/test and walls/wrong.txt

The walls are cut from a photograph of bricks that comes with scikit-image (CC0), and tinted. Cracks and stains are
drawn on them. There are 90 pictures for training and 30 for testing, of 224 pixels each. docs/start.md uses them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image, ImageDraw, ImageFilter

SIDE = 224
TINTS = {"red": (1.05, 0.8, 0.68), "sand": (1.35, 1.15, 0.85)}
WRONG = (
    ("cracked", "fine"), ("cracked", "fine"), ("stained", "cracked"), ("fine", "stained"), ("stained", "fine"),
    ("fine", "cracked"),
)  # fmt: skip
"""True class and the folder that the picture is put in."""


def wall(rng: np.random.Generator, colour: str) -> Image.Image:
    """A part of the photograph, turned, lit and shaded at random."""
    photo = Image.fromarray(skimage.data.brick()).convert("RGB")
    (x, y), half = rng.uniform(136, 376, 2), rng.uniform(72, 95)  # no corner of the photograph, however it is turned
    turned = photo.rotate(rng.uniform(10, 80), Image.Resampling.BICUBIC, center=(x, y))
    part = turned.crop((x - half, y - half, x + half, y + half)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    shade = Image.fromarray(rng.uniform(0.65, 1.15, (4, 4)).astype(np.float32)).resize(
        part.size, Image.Resampling.BICUBIC
    )
    lit = np.asarray(part) * np.array(TINTS[colour]) * np.asarray(shade)[..., None]
    return Image.fromarray((lit + rng.normal(0, 3, lit.shape)).clip(0, 255).astype(np.uint8))


def fine(on: Image.Image, rng: np.random.Generator) -> Image.Image:
    return on


def cracked(on: Image.Image, rng: np.random.Generator) -> Image.Image:
    (x, y), angle, points = rng.uniform(0.25, 0.75, 2) * SIDE, rng.uniform(0, 2 * np.pi), []
    for _ in range(22):
        points.append((float(x), float(y)))
        angle += rng.normal(0, 0.5)
        x, y = x + 8 * np.cos(angle), y + 8 * np.sin(angle)
    mask = Image.new("L", on.size)
    pen = ImageDraw.Draw(mask)
    for ends in pairwise(points):
        pen.line(ends, fill=235, width=int(rng.integers(3, 7)))
    on.paste((22, 20, 18), mask=mask.filter(ImageFilter.GaussianBlur(0.8)))
    return on


def stained(on: Image.Image, rng: np.random.Generator) -> Image.Image:
    mask, centre = Image.new("L", on.size), rng.uniform(0.25, 0.75, 2)
    pen = ImageDraw.Draw(mask)
    for _ in range(9):
        (x, y), radius = (centre + rng.normal(0, 0.07, 2)) * SIDE, rng.uniform(0.06, 0.13) * SIDE
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=170)
    on.paste((105, 60, 20), mask=mask.filter(ImageFilter.GaussianBlur(5)))
    return on


def make(folder: Path, n: int = 40, seed: int = 0) -> list[Path]:
    """Three quarters of ``n`` pictures per class to learn from, the rest to test on.

    Returns:
        The pictures that lie in another class's folder, also named in ``wrong.txt``.
    """
    kinds: tuple[Callable[[Image.Image, np.random.Generator], Image.Image], ...] = (fine, cracked, stained)
    rng, to_move, wrong = np.random.default_rng(seed), list(WRONG), []
    for kind in kinds:
        for i in range(n):
            part, label = "photos" if i < 3 * n // 4 else "test", kind.__name__
            moved = (
                next((pair for pair in to_move if pair[0] == label), None) if part == "photos" and i % 4 == 3 else None
            )
            if moved:
                to_move.remove(moved)
            path = folder / part / (moved[1] if moved else label) / f"{len(kinds) * i + kinds.index(kind):03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            kind(wall(rng, ("red", "sand")[i % 2]), rng).save(path)
            wrong += [path] if moved else []
    (folder / "wrong.txt").write_text("".join(f"{path.relative_to(folder)}\n" for path in wrong), "utf-8")
    return wrong


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", default="walls", type=Path, help="the folder to write to (default: walls)")
    place = parser.parse_args().folder
    print(f"{place}: {len(make(place))} of the pictures in {place / 'photos'} have a wrong label (see wrong.txt)")
