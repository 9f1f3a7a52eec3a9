"""Results: what is shown on a card, in JSON and in a notebook. Nothing here computes evidence."""

from .base import Explanation, Region, Subject, Where, Words
from .prediction import Prediction, Ranked
from .similar import Like, Likeness
from .verdict import Missing, Verdict

__all__ = [
    "Explanation",
    "Like",
    "Likeness",
    "Missing",
    "Prediction",
    "Ranked",
    "Region",
    "Subject",
    "Verdict",
    "Where",
    "Words",
]
