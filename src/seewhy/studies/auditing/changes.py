"""Figures of drift: whether the pictures are like those that were fitted on."""

from __future__ import annotations

from ...errors import DataError
from ...metrics.calibration import accuracy_interval
from .check import Check, Material
from .drift import FAR, Drifted, DriftTest, known_of
from .limit import Figure, Limit, missing


def _compared(material: Material) -> Drifted | Figure:
    try:
        known = known_of(material.classifier)
    except DataError as error:
        return missing(str(error))
    if min(len(known.names), len(material.items)) < 10:
        return missing("Fewer than ten pictures are on either side. Give more.")
    return DriftTest(seed=material.seed).compare(known, material.pooled)


class DriftP(Check):
    """The p value of :class:`~seewhy.studies.auditing.drift.DriftTest`."""

    name, title = "drift_p", "From the same source as training"
    told = (
        "How often pictures of one source differ as much as these from those fitted on (a p value): at least so often."
    )
    side, preset, required = "at_least", 0.01, False

    def measure(self, material: Material, limit: Limit) -> Figure:
        found = _compared(material)
        if isinstance(found, Figure):
            return found
        said = f"Pictures of one source differ as much (energy distance {found.energy:.4f}) in {found.p:.1%} of draws."
        return Figure(found.p, None, len(material.items), said)


class FarPictures(Check):
    """Part of the pictures farther from the training pictures than 95 % of these are from one another."""

    name, title = "far_pictures", "Pictures unlike all of training"
    told = "Part of the pictures that are farther from those fitted on than 95 % of these are from one another."
    side, preset, bound, required = "at_most", 0.25, "best", False

    def measure(self, material: Material, limit: Limit) -> Figure:
        found = _compared(material)
        if isinstance(found, Figure):
            return found
        share, n = float(found.far.float().mean()), int(found.far.sum())
        first = material.items[int(found.near.argmin())].image
        said = f"{n} of {len(found.far)} pictures are that far, where {FAR:.0%} would be; the farthest is {first}."
        return Figure(share, accuracy_interval(found.far), len(found.far), said)
