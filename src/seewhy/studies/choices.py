"""What a study is made of: methods and metrics by name, and on how many pictures each is worth its time."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from ..attributions import attributions
from ..errors import InputError
from ..metrics import Metric, metrics
from ..metrics.base import Explain
from ..metrics.deletion import Deletion
from ..metrics.insertion import Insertion
from ..metrics.pixel_flipping import PixelFlipping
from ..metrics.road import ROAD

DEFAULT_METRICS = (
    "deletion",
    "deletion_black",
    "deletion_blur",
    "insertion",
    "average_drop",
    "average_increase",
    "average_gain",
    "road",
    "sparsity",
)
LOCALISATION = ("energy_pointing_game", "pointing_game", "pixel_ap")
N_STEPS = 8
AS_STUDIED: dict[str, Metric] = {
    "deletion": Deletion(n_steps=N_STEPS),
    "deletion_black": Deletion(n_steps=N_STEPS, fill="black"),
    "deletion_blur": Deletion(n_steps=N_STEPS, fill="blur"),
    "insertion": Insertion(n_steps=N_STEPS),
    "pixel_flipping": PixelFlipping(n_steps=N_STEPS),
    "road": ROAD(fractions=(0.1, 0.3, 0.5, 0.7, 0.9)),
}
"""Metrics whose settings in a study are not their own: many pictures make up for coarser curves."""

QUICK: dict[str, Callable[[], Explain]] = {
    "gradient_shap_quick": lambda: attributions["gradient_shap"](n_samples=8),  # type: ignore[call-arg]
    "integrated_gradients_quick": lambda: attributions["integrated_gradients"](n_steps=10),  # type: ignore[call-arg]
    "rise_quick": lambda: attributions["rise"].quick(400),  # type: ignore[attr-defined]
    "score_cam_quick": lambda: attributions["score_cam"](n_masks=128),  # type: ignore[call-arg]
    "smooth_grad_quick": lambda: attributions["smooth_grad"](n_samples=8),  # type: ignore[call-arg]
}
"""Slow methods with fewer passes than the papers', under names of their own."""

LIMITS = {
    **dict.fromkeys(("deletion_black", "deletion_blur", "random_logit"), 100),
    **dict.fromkeys(("road", "pixel_flipping", "faithfulness_correlation", "infidelity", "sensitivity_n"), 50),
    **dict.fromkeys(("model_randomisation", "efficient_model_randomisation", "max_box_acc"), 50),
    **dict.fromkeys(("irof", "max_sensitivity", "smooth_model_randomisation"), 20),
    **dict.fromkeys(("gradient_shap", "integrated_gradients", "occlusion", "rise", "score_cam", "smooth_grad"), 50),
    **dict.fromkeys(QUICK, 50),
}
"""Pictures on which what is slow is measured, where no other number is given."""


def named(text: str | Sequence[str] | None) -> tuple[list[str] | None, dict[str, int]]:
    """``"grad_cam,rise:50"``, or a list → names, and on how many pictures at most those are measured that say so.

    >>> named("grad_cam, rise:50")
    (['grad_cam', 'rise'], {'rise': 50})
    """
    if text is None:
        return None, {}
    names: list[str] = []
    limits: dict[str, int] = {}
    for part in (p.strip() for p in (text.split(",") if isinstance(text, str) else text)):
        name, colon, number = part.partition(":")
        if colon and not (number.strip().isdecimal() and int(number) > 0):
            raise InputError(f"{part!r} was given. After the colon a number of pictures was expected, like {name}:50.")
        if name:
            names.append(name.strip())
            limits |= {name.strip(): int(number)} if colon else {}
    return names, limits


def chosen_methods(names: Sequence[str] | None = None) -> dict[str, Explain]:
    """Attributions by name."""
    if names is None:
        names = [n for n in attributions if attributions[n].cost.startswith("0") and not attributions[n].needs_words]
    found: dict[str, Explain] = {}
    for name in names:
        for one in _every_method() if name == "all" else [name]:
            found[one] = QUICK[one]() if one in QUICK else attributions[one]()
    return found


def _every_method() -> list[str]:
    every = [n for n in attributions if not attributions[n].needs_training]
    return [f"{n}_quick" if f"{n}_quick" in QUICK else n for n in every]


def chosen_metrics(names: Sequence[str] | None = None, *, with_masks: bool = False) -> dict[str, Metric]:
    """Metrics by name, among them deletion with other fills."""
    if names is None:
        names = [*DEFAULT_METRICS, *(LOCALISATION if with_masks else ())]
    found: dict[str, Metric] = {}
    for name in names:
        for one in _every_metric(with_masks) if name == "all" else [name]:
            found[one] = AS_STUDIED[one] if one in AS_STUDIED else metrics[one]()
    return found


def _every_metric(with_masks: bool) -> list[str]:
    """All that the masks allow; a mosaic is no picture of the set."""
    fits = [n for n in metrics if (with_masks or "mask" not in metrics[n].requires) and not metrics[n].of_mosaics]
    return sorted({*fits, *AS_STUDIED})


def chosen_limits(given: Mapping[str, int], names: Sequence[str]) -> dict[str, int]:
    """On how many pictures each name is measured at most: as given, else by :data:`LIMITS`."""
    known = {n: LIMITS[n] for n in names if n in LIMITS}
    return {**known, **given}


def passes(method: Explain) -> float:
    """Forward passes of one explanation, as its ``cost`` says; those that name no number count as many.

    >>> passes(attributions["grad_cam"]()), passes(attributions["rise"]())
    (0.0, 4000.0)
    """
    cost = getattr(method, "cost", "0")
    number = re.match(r"\d+", cost)
    return float(number[0]) if number else float("inf")
