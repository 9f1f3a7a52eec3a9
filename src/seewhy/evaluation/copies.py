"""Pictures that a classifier is judged on and was fitted on: byte for byte, or as copies that were saved anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from ..classifiers.base import Classifier
from ..pictures.miniatures import stacked


class Judged(NamedTuple):
    """What tells a picture again: its name, the SHA-256 of its file, and its miniature."""

    image: str
    digest: str
    miniature: UInt8[Tensor, " w"]


def find_copies(
    classifier: Classifier, files: Sequence[Judged], pooled: Float[Tensor, "n d"], right: Bool[Tensor, " n"]
) -> dict[str, Any] | None:
    """What of the pictures judged on was fitted on; ``None`` where that is not known."""
    known = classifier.known
    if known is None:
        return None
    same = [known.by_digest.get(file.digest) for file in files]
    other = [i for i, twin in enumerate(same) if twin is None]
    near = dict.fromkeys(range(len(files)))
    if len(known.miniatures):
        features = pooled[other] if known.encoder == classifier.encoder.fingerprint else None
        near |= dict(zip(other, known.copies_of(stacked([files[i].miniature for i in other]), features), strict=True))
    rows: list[dict[str, Any]] = []
    for i, (file, twin) in enumerate(zip(files, same, strict=True)):
        if twin is not None:
            rows.append({"image": file.image, "fitted_on": twin, "same_bytes": True, "agreement": None})
        elif (alike := near[i]) is not None:
            rows.append(
                {"image": file.image, "fitted_on": alike[0], "same_bytes": False, "agreement": round(alike[1], 4)}
            )
    fresh = right[[i for i in other if near[i] is None]]
    n_same = len(files) - len(other)
    return {
        "n_same_bytes": n_same,
        "n_near": len(rows) - n_same,
        "n_compared": len(known.miniatures),
        "accuracy_without": round(float(fresh.float().mean()), 4) if len(fresh) else None,
        "pictures": rows,
    }


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
