"""Where it looked, and whether hiding and showing those places changes the answer as it should."""

from __future__ import annotations

from functools import partial

from jaxtyping import Float
from torch import Tensor

from ..errors import ImageError
from ..explanation.base import Where
from ..explanation.verdict import Verdict
from ..explanation.where import Outside
from ..metrics.base import upsampled
from ..metrics.localisation import positive_share
from ..pictures.images import Picture
from ..pictures.object_masks import MaskSource
from ..pictures.samples import Sample
from .case import Case
from .faithfulness import RULE, judge, measure


def show_where(case: Case) -> Where:
    """The map with its regions and, where that is measured, how well it goes with what hiding does."""
    watched, heat, objects = case.watched, case.heat, case.options.objects
    found = partial(
        Where,
        case.options.label(case.question.method),
        watched.name_of(watched.target),
        None if watched.contrast is None else watched.name_of(watched.contrast),
        heat.numpy(),
        case.regions,
        neurons=case.neurons,
        outside=None if objects is None else show_outside(heat, case.picture, case.label, objects),
    )
    if not bool((heat > 0).any()):
        nothing = f"Nothing on this picture speaks for {watched.name_of(watched.target)}: the map is zero."
        return found(Verdict("do not rely", nothing, RULE))
    if case.pixels is None:
        return found(Verdict("not measured", "Deletion and insertion have not been measured.", RULE))
    rival = None if watched.rival is None else partial(case.heat_of, watched.rival)
    measured = measure(watched, heat, case.pixels, case.options.seed, rival)
    (deleted, deleted_random), (inserted, inserted_random) = measured.deleted, measured.inserted
    has_rival = measured.lead is not None and watched.rival is not None
    return found(
        judge(measured, watched),
        steps=deleted.steps,
        deletion_curve=deleted.values,
        insertion_curve=inserted.values,
        deletion_random_curve=deleted_random.values,
        insertion_random_curve=inserted_random.values,
        deletion=round(deleted.area, 4),
        insertion=round(inserted.area, 4),
        deletion_random=round(deleted_random.area, 4),
        insertion_random=round(inserted_random.area, 4),
        match=round(measured.match.value, 4),
        match_centre=round(measured.match.centre, 4),
        rival=watched.name_of(watched.rival) if has_rival and watched.rival is not None else None,
        match_lead=None if measured.lead is None else round(measured.lead, 4),
    )


def show_outside(heat: Float[Tensor, "h w"], picture: Picture, label: str, masks: MaskSource) -> Outside:
    """Part of the positive heat, laid over the view bilinearly, that lies outside the object."""
    if not bool((heat > 0).any()):
        return Outside(masks.told, why="there is no heat")
    try:
        mask = masks.mask(Sample(picture.name, label), picture)
    except ImageError as error:
        is_verb = error.reason.partition(" ")[0] in ("has", "is")
        return Outside(masks.told, why=f"the picture {error.reason}" if is_verb else error.reason)
    full = upsampled(heat[None], (mask.shape[0], mask.shape[1]))
    return Outside(masks.told, float(positive_share(full, ~mask)[0]), float((~mask).float().mean()))
