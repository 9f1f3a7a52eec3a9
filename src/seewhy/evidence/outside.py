"""The heat outside the object, where somebody says where the object is."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from ..errors import ImageError
from ..explanation.outside import Outside
from ..metrics.base import upsampled
from ..metrics.masked_map import positive_share
from ..pictures.images import Picture
from ..pictures.object_masks import MaskSource
from ..pictures.samples import Sample


def show_outside(heat: Float[Tensor, "h w"], picture: Picture, label: str, masks: MaskSource) -> Outside:
    """Part of the positive heat, laid over the view bilinearly, that lies outside the object."""
    if not bool((heat > 0).any()):
        return Outside(masks.told, why="there is no heat")
    try:
        mask = masks.mask(Sample(picture.name, label), picture)
    except ImageError as error:
        return Outside(masks.told, why=f"the picture {error.reason}" if _is_verb(error.reason) else error.reason)
    full = upsampled(heat[None], (mask.shape[0], mask.shape[1]))
    return Outside(masks.told, float(positive_share(full, ~mask)[0]), float((~mask).float().mean()))


def _is_verb(reason: str) -> bool:
    return reason.partition(" ")[0] in ("has", "is")
