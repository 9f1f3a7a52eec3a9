"""What hiding patches did is said with the digits by which it is judged."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from seewhy.explanation.similar import PatchDeletion
from seewhy.prototypes.measure import Showing


@pytest.mark.parametrize(
    ("fall", "elsewhere", "said"),
    [
        (
            0.5,
            (0.1, 0.1),
            "by 0.5; hiding other parts of the same size lowers it by 0.1 (at most 0.1).",
        ),
        (
            0.13,
            (0.09, 0.11),
            "by 0.13; hiding other parts of the same size lowers it by 0.10 (at most 0.11).",
        ),
        (
            0.104,
            (0.099, 0.107),
            "by 0.104; hiding other parts of the same size lowers it by 0.103 (at most 0.107).",
        ),
        (
            0.1,
            (0.1, 0.1),
            "by 0.100; hiding other parts of the same size lowers it by 0.100 (at most 0.100).",
        ),
        (
            -0.2,
            (-0.5, -0.3),
            "by −0.2; hiding other parts of the same size lowers it by −0.4 (at most −0.3).",
        ),
    ],
)
def test_figures_that_differ_are_not_rounded_to_one(fall: float, elsewhere: tuple[float, ...], said: str) -> None:
    showing: Any = SimpleNamespace(
        deletion=PatchDeletion(3.0, fall, elsewhere, 0.1), subject=SimpleNamespace(label="moss")
    )
    hidden: Any = Showing.hidden
    assert (
        hidden.fget(showing) == f" Hiding these parts lowers the lead of moss (logit minus the mean logit, 3.0) {said}"
    )
