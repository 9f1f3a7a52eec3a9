"""A PNG of pictures and their maps in rows, to look at with one's own eyes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from seewhy.report.palette import blend
from seewhy.types import Transform

Row = tuple[Tensor, list[tuple[Tensor, bool]]]
"""Normalised pixels and their maps, each with whether it is fine."""


def write_sheet(path: Path, rows: list[Row], transform: Transform) -> None:
    """Coarse maps are laid on the picture; of fine ones single pixels could not be seen there, so they stand alone."""
    lines = []
    for pixels, maps in rows:
        view = shown(pixels, transform)
        lines.append(np.concatenate([view, *(grey(m) if fine else blend(view, m.numpy()) for m, fine in maps)], 1))
    Image.fromarray(np.concatenate(lines)).save(path)


def grey(heat: Float[Tensor, "h w"]) -> np.ndarray:
    """A map on black, up to its 99th percentile."""
    scaled = (heat.clamp(min=0) / heat.flatten().quantile(0.99).clamp(min=1e-9)).clamp(max=1)
    return (scaled * 255).byte()[..., None].expand(-1, -1, 3).numpy()


def shown(pixels: Float[Tensor, "3 h w"], transform: Transform) -> np.ndarray:
    """Normalised pixels as they look."""
    raw = pixels * torch.tensor(transform.std)[:, None, None] + torch.tensor(transform.mean)[:, None, None]
    return (raw.permute(1, 2, 0) * 255).round().clamp(0, 255).byte().numpy()
