"""The base of objectives that train a detector's heads without anybody having drawn a box."""

from __future__ import annotations

from .contrastive import Contrastive


class RandomBoxes(Contrastive):
    """Compares whole pictures with texts, and besides what heads make of random boxes of each picture.

    Called, it gives the number of one kind of vectors; the training adds those of the heads' levels. Who has no heads
    can use it alone.

    Class attributes:
        n_boxes: drawn of each picture at every step.
        smallest: side of a box, as a part of the picture's.
        level_weight: of the mean over levels, beside whole pictures.
    """

    n_boxes: int
    smallest: float
    level_weight: float
