"""Where it looked, and whether hiding those places changes the answer as it should; and what a perceiver saw."""

from __future__ import annotations

from functools import partial

import numpy as np
from jaxtyping import Float
from torch import Tensor

from ..classifiers.network import Perceiver, Perception
from ..errors import ImageError
from ..explanation.base import Where
from ..explanation.pictures import Memorised, Perceived
from ..explanation.verdict import Level, Verdict
from ..explanation.where import Outside
from ..metrics.base import upsampled
from ..metrics.localisation import positive_share
from ..pictures.images import Picture
from ..pictures.object_masks import MaskSource
from ..pictures.samples import Sample
from .case import Case
from .faithfulness import RULE, judge, measure

STILL = 1 / 255
"""Less than a grey level: the picture no longer moves."""
ALIKE = 0.05
"""Distance of copies to their mean below which they show one picture."""
RULE_OF_PERCEIVED = (
    "Believable when the last loop moved the picture by less than one grey level in 255, its copies, if there are "
    f"several, end within {ALIKE} of their mean, and the memorised picture nearest to it is of the class decided for, "
    "which is looked up without the classifier; partly when it has settled, or is of the class, but not both; "
    "otherwise do not rely on it."
)
LEVELS: tuple[Level, ...] = ("do not rely", "partly", "believable")
LOOPS = (0, 1, 2, 3, 5, 8, 13, 21)
"""Of the path so much is shown, and the end."""


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


def show_perceived(case: Case) -> Perceived | None:
    """What was seen, if the classifier is a perceiver."""
    network, classifier = case.classifier.network, case.classifier
    if network is None or not isinstance(network, Perceiver):
        return None
    found = network.perceived(classifier.encoder.pixels([case.picture.pixels])[0])
    if found is None:
        return None
    n = len(found.moves)
    loops = (*(loop for loop in LOOPS if loop < n), n)
    label = classifier.classes[found.label]
    return Perceived(
        tuple(_grey(found.path[loop]) for loop in loops),
        loops,
        found.moves[-1],
        found.spread,
        found.n_copies,
        Memorised(found.name, label, found.distance, _grey(found.nearest)),
        _judge_perceived(found, label, case.prediction.label),
    )


def _grey(picture: Float[Tensor, "h w"]) -> np.ndarray:
    """For the eye alone: clamped, which the loop never is; what is not a number is middle grey."""
    values: np.ndarray = np.nan_to_num(picture.numpy() * 255, nan=127.5, posinf=255, neginf=0)
    return np.rint(values.clip(0, 255)).astype(np.uint8)


def _judge_perceived(found: Perception, label: str, decided: str) -> Verdict:
    settled, one = found.moves[-1] < STILL, found.spread < ALIKE
    moved = "It has settled" if settled else "It was still moving"
    said = f"{moved}: the last of {len(found.moves)} loops moved it by {255 * found.moves[-1]:.1f} grey levels of 255."
    if found.n_copies > 1:
        alike = "" if one else ": it is a blend that no copy shows"
        said += f" Its {found.n_copies} copies end {found.spread:.3f} from their mean{alike}."
    where = f"{found.distance:.3f} from the nearest memorised picture, which is of {label}"
    said += f" It lies {where}, {'the class decided for' if label == decided else f'not of {decided}'}."
    if found.distance < ALIKE:
        said += " So near, it is that training picture rather than yours, and gives it away."
    return Verdict(LEVELS[int(settled and one) + int(label == decided)], said, RULE_OF_PERCEIVED)
