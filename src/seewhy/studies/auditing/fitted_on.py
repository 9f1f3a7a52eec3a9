"""Whether pictures that are judged on are among those that were fitted on."""

from __future__ import annotations

from ...evaluation.copies import find_copies
from .check import Check, Material
from .limit import Figure, Limit, missing


class Copies(Check):
    """Pictures that were fitted on, byte for byte or as near copies; all of them are counted."""

    name, title = "copies", "Pictures it was fitted on"
    told = "Part of the pictures that the classifier was fitted on: the same file, or a near copy of one."
    side, preset, required = "at_most", 0.0, False

    def measure(self, material: Material, limit: Limit) -> Figure:
        found = find_copies(material.classifier, material.files, material.pooled, material.right)
        if found is None:
            return missing("It does not know what it was fitted on. Give those pictures with --train.")
        same, near, n = found["n_same_bytes"], found["n_near"], len(material.files)
        left = found["accuracy_without"]
        rest = "" if not same + near or left is None else f" On the others it is right on {left:.1%}."
        looked = "" if found["n_compared"] else " Near copies are not sought: it was saved before they could be."
        said = f"{same} of {n} pictures are the same file as one that it was fitted on, {near} are near copies."
        return Figure((same + near) / n, None, n, said + rest + looked, found["pictures"])
