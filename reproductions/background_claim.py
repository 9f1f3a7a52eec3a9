"""Does it look at the background? Two measurements with the object's mask, beside networks that never learnt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from seewhy.attributions import attributions
from seewhy.attributions.base import Explainable
from seewhy.heads.head import Target
from seewhy.metrics.base import upsampled
from seewhy.metrics.localisation import positive_share
from seewhy.metrics.randomised import forget, layers, twin
from seewhy.studies.background import moved
from seewhy.studies.bootstrap import paired_means


@dataclass(frozen=True)
class Looked:
    """Of each picture.

    Attributes:
        excess: part of the map on the background, less the background's part of the picture.
        cost: by how much more the decision falls when a piece of background is filled than when as much of the object
            is, both with the picture's mean colour.
    """

    excess: Float[Tensor, " n"]
    cost: Float[Tensor, " n"]


@torch.no_grad()
def look(model: Explainable, pixels: Float[Tensor, "n 3 h w"], objects: Bool[Tensor, "n h w"], seed: int = 0) -> Looked:
    """Grad-CAM's share and the cost of deletion, for the class decided for.

    Filling all of the background would take away most of the picture, and cost more whatever the network reads; so the
    object is filled, and a piece of the background of the same shape, moved to where it covers least of the object.
    Where some of it still does, that part is left out of both.

    Args:
        model: a classifier.
        pixels: normalised.
        objects: true on the object.
        seed: of which of equally good places is taken.
    """
    seen = model.encoder.encode(pixels)
    decided = model.head(seen.pooled).argmax(1)
    maps = upsampled(attributions["grad_cam"]()(model, seen, Target(decided)), (pixels.shape[2], pixels.shape[3]))
    on = torch.cat([positive_share(one[None], ~mask) for one, mask in zip(maps, objects, strict=True)])
    pieces = [moved(mask, seed + i) for i, mask in enumerate(objects)]
    own, other = (torch.stack(part) for part in zip(*pieces, strict=True))
    filled = [_lead(model, _filled(pixels, where), decided) for where in (own, other)]
    return Looked(on - (~objects).float().mean((1, 2)), filled[0] - filled[1])


def _filled(pixels: Float[Tensor, "n 3 h w"], where: Bool[Tensor, "n h w"]) -> Float[Tensor, "n 3 h w"]:
    return torch.where(where[:, None], pixels.mean((2, 3), keepdim=True), pixels)


def _lead(model: Explainable, pixels: Float[Tensor, "n 3 h w"], decided: Tensor) -> Float[Tensor, " n"]:
    """Of the class decided for over the best other."""
    logits = model.head(model.encoder.pooled(pixels))
    own = logits.gather(1, decided[:, None])[:, 0]
    return own - logits.scatter(1, decided[:, None], -torch.inf).amax(1)


def claim(
    model: Explainable,
    pixels: Float[Tensor, "n 3 h w"],
    objects: Bool[Tensor, "n h w"],
    *,
    n_controls: int = 5,
    n_draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Any]:
    """Whether it looks at the background: the map and the deletion must agree, and networks that never learnt must not.

    Args:
        model: a classifier.
        pixels: normalised.
        objects: true on the object, and not everywhere.
        n_controls: copies of the model whose layers were all drawn anew.
        n_draws: resampled sets of pictures.
        level: of the intervals.
        seed: of places, copies and resampling.

    Returns:
        ``excess`` and ``cost`` with intervals, ``control`` the same of the copies' mean, ``n``, and ``holds``: true
        where both lie above 0 and, of the copies, not both do.
    """
    own = look(model, pixels, objects, seed)
    copies = [look(_unlearnt(model, seed + 1 + i), pixels, objects, seed) for i in range(n_controls)]
    control = Looked(*(torch.stack([getattr(c, name) for c in copies]).mean(0) for name in ("excess", "cost")))
    found = {name: _told(one, n_draws, level, seed) for name, one in (("own", own), ("control", control))}
    above = {name: all(part["interval"][0] > 0 for part in one.values()) for name, one in found.items()}
    return {
        "n": len(pixels),
        **found["own"],
        "control": found["control"],
        "background_area": round(float((~objects).float().mean()), 4),
        "holds": above["own"] and not above["control"],
    }


def _unlearnt(model: Explainable, seed: int) -> Explainable:
    copy = twin(model)
    for i, layer in enumerate(layers(copy)):
        forget(layer, "initialise", seed * 1009 + i)
    return copy


def _told(looked: Looked, n_draws: int, level: float, seed: int) -> dict[str, dict[str, Any]]:
    values = torch.stack([looked.excess, looked.cost], 1).double()
    drawn = paired_means(values, n_draws=n_draws, level=level, seed=seed)
    return {name: drawn.figure(i) for i, name in enumerate(("excess", "cost"))}


def sentence(data: dict[str, Any]) -> str:
    """What may be said of the background."""
    low, high = data["excess"]["interval"]
    lead = "looks at the background" if data["holds"] else "was not shown to look at the background"
    return (
        f"it {lead}: the map lies there {data['excess']['value']:+.1%} ({low:+.1%} to {high:+.1%}) beyond its area, "
        f"and filling as much of it costs {data['cost']['value']:+.2f} ({data['cost']['interval'][0]:+.2f} to "
        f"{data['cost']['interval'][1]:+.2f}) more than filling the object"
    )
