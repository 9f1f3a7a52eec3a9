"""Pictures that a classifier is judged on and was fitted on: byte for byte, or as copies that were saved anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor

from ..classifiers.base import Classifier
from ..classifiers.known_pictures import KnownPictures


def find_copies(
    classifier: Classifier,
    names: Sequence[str],
    digests: Sequence[str],
    pooled: Float[Tensor, "n d"],
    right: Bool[Tensor, " n"],
) -> dict[str, Any] | None:
    """What of the pictures judged on was fitted on; ``None`` where the classifier does not know what it was fitted on.

    Args:
        classifier: what is judged.
        names: of the pictures.
        digests: SHA-256 of their files.
        pooled: their features.
        right: whether it decides each rightly.
    """
    known = classifier.known
    if known is None:
        return None
    same = [known.same_bytes(digest) for digest in digests]
    near = _near(classifier, known, pooled)
    rows: list[dict[str, Any]] = []
    for name, twin, alike in zip(names, same, near, strict=True):
        if twin is not None:
            rows.append({"image": name, "fitted_on": twin, "same_bytes": True, "cosine": None})
        elif alike is not None:
            rows.append({"image": name, "fitted_on": alike[0], "same_bytes": False, "cosine": alike[1]})
    fresh = right[[i for i, (a, b) in enumerate(zip(same, near, strict=True)) if a is None and b is None]]
    return {
        "n_same_bytes": sum(twin is not None for twin in same),
        "n_near": len(rows) - sum(twin is not None for twin in same),
        "least_cosine": known.least_cosine if known.encoder == classifier.encoder.fingerprint else None,
        "accuracy_without": round(float(fresh.float().mean()), 4) if len(fresh) else None,
        "pictures": rows,
    }


def _near(classifier: Classifier, known: KnownPictures, pooled: Tensor) -> list[tuple[str, float] | None]:
    """The most similar picture fitted on, where it is alike enough; only the same encoder's can be compared."""
    if known.encoder != classifier.encoder.fingerprint or not len(known.names):
        return [None] * len(pooled)
    cosines, which = known.nearest(pooled)
    pairs = zip(cosines.tolist(), which.tolist(), strict=True)
    return [(known.names[i], round(c, 4)) if c >= known.least_cosine else None for c, i in pairs]


def say(copies: dict[str, Any]) -> str:
    """One sentence, for a note; empty where there are none."""
    same, near = copies["n_same_bytes"], copies["n_near"]
    if not same + near:
        return ""
    kinds = [f"{same} byte for byte"] * bool(same) + [f"{near} as near copies"] * bool(near)
    first = ", ".join(f"{row['image']} (fitted on: {row['fitted_on']})" for row in copies["pictures"][:3])
    left = copies["accuracy_without"]
    without = "all are" if left is None else f"without them it is right on {left:.1%}"
    among = f"{same + near} of these pictures {'is' if same + near == 1 else 'are'} among those"
    return (
        f"{among} the classifier was fitted on, {' and '.join(kinds)}: the figures say less of new pictures than they "
        f"seem to; {without}. The first: {first}"
    )
