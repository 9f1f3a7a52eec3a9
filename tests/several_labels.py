"""Pictures with several answers each: labels, and two questions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def paint(place: Path, light: bool, warm: bool, seed: int) -> str:
    """A noisy picture, lighter or darker, redder or bluer; the noise of a picture hides a little of both."""
    rng = np.random.default_rng(seed)
    colour = 110 + 40 * light + np.array([25, 0, -25]) * (1 if warm else -1) + rng.normal(0, 24, 3)
    pixels = colour + rng.normal(0, 10, (32, 32, 3))
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(place)
    return str(place)


def painted(folder: Path, n: int, seed: int = 0) -> Path:
    """A table of ``n`` pictures: labels, two questions; every tenth has unknown labels, the first three are rare."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    rows = ["image,label,tone,hue"]
    for i in range(n):
        light, warm = bool(rng.random() < 0.3), bool(rng.random() < 0.5)
        paint(folder / f"{i}.png", light, warm, 1000 * seed + i)
        given = [name for name, has in (("light", light), ("warm", warm), ("rare", i < 3)) if has]
        labels = "" if i % 10 == 9 else "|".join(given) or "none"
        rows.append(
            f"{i}.png,{labels},{'light' if light else 'dark'},{'' if i % 7 == 6 else 'warm' if warm else 'cold'}"
        )
    (folder / "t.csv").write_text("\n".join(rows) + "\n")
    return folder / "t.csv"
