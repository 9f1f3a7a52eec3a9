"""Small pictures of numbers alone, the same on every machine."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"moss": (40, 150, 50), "rust": (180, 70, 30), "sky": (90, 150, 230)}


def noise(seed: int, height: int, width: int, channels: int = 3) -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def patch(name: str, seed: int, side: int = 48) -> np.ndarray:
    """A colour with some noise."""
    mixed = 0.7 * np.array(COLOURS[name]) + 0.3 * noise(seed, side, side)
    return mixed.astype(np.uint8)


def class_folders(root: Path, n: int = 5) -> Path:
    for k, name in enumerate(COLOURS):
        (root / name).mkdir(parents=True)
        for i in range(n):
            Image.fromarray(patch(name, 100 * k + i)).save(root / name / f"{name}-{i}.png")
    return root


def table(root: Path, folders: Path) -> Path:
    rows = ["image,label,text,visit"]
    for name in COLOURS:
        rows += [
            f"{folders.name}/{name}/{name}-{i}.png,{name},a patch of {name} number {i},{name}{i // 2}" for i in range(5)
        ]
    path = root / "table.csv"
    path.write_text("\n".join(rows) + "\n")
    (root / "table.jsonl").write_text(
        "".join(json.dumps(dict(zip(rows[0].split(","), row.split(","), strict=True))) + "\n" for row in rows[1:])
    )
    return path
