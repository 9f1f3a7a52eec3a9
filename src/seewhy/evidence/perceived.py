"""What a perceiver saw: the picture it classified in place of the one it was given, and whether to believe in it."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from torch import Tensor

from ..classifiers.network import Perceiver, Perception
from ..explanation.pictures import Memorised, Perceived
from ..explanation.verdict import Level, Verdict
from .case import Case

STILL = 1 / 255
"""Less than a grey level: the picture no longer moves."""
ALIKE = 0.05
"""Distance of copies to their mean below which they show one picture."""
RULE = (
    "Believable when the last loop moved the picture by less than one grey level in 255, its copies, if there are "
    f"several, end within {ALIKE} of their mean, and the memorised picture nearest to it is of the class decided for, "
    "which is looked up without the classifier; partly when it has settled, or is of the class, but not both; "
    "otherwise do not rely on it."
)
LEVELS: tuple[Level, ...] = ("do not rely", "partly", "believable")
LOOPS = (0, 1, 2, 3, 5, 8, 13, 21)
"""Of the path so much is shown, and the end."""


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
        _judge(found, label, case.prediction.label),
    )


def _grey(picture: Float[Tensor, "h w"]) -> np.ndarray:
    """For the eye alone: clamped, which the loop never is; what is not a number is middle grey."""
    values: np.ndarray = np.nan_to_num(picture.numpy() * 255, nan=127.5, posinf=255, neginf=0)
    return np.rint(values.clip(0, 255)).astype(np.uint8)


def _judge(found: Perception, label: str, decided: str) -> Verdict:
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
    return Verdict(LEVELS[int(settled and one) + int(label == decided)], said, RULE)
