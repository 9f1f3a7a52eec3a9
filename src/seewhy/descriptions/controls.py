"""Controls for descriptions: what the same count of meaningless words achieves (WaffleCLIP, arXiv 2306.07282)."""

from __future__ import annotations

import random
import string
from collections.abc import Mapping

from .base import Descriptions


def name_only(descriptions: Descriptions) -> dict[str, tuple[str, ...]]:
    """Each class by its bare name."""
    return {label: (label,) for label in descriptions.texts}


def random_words(descriptions: Descriptions, seed: int) -> Mapping[str, tuple[str, ...]]:
    """For each class as many sentences as it has descriptions, each with its name and a meaningless word.

    The noise is drawn once and shared by all classes, as in the paper; its words are as long as the descriptions'
    on average.
    """
    texts = [t for lines in descriptions.texts.values() for t in lines]
    n_words = max(1, round(sum(len(t.split()) for t in texts) / len(texts)))
    length = max(2, round(sum(len(w) for t in texts for w in t.split()) / sum(len(t.split()) for t in texts)))
    rng = random.Random(seed)
    most = max(len(lines) for lines in descriptions.texts.values())
    noise = [
        " ".join("".join(rng.choices(string.ascii_lowercase, k=length)) for _ in range(n_words)) for _ in range(most)
    ]
    return {
        label: tuple(f"{label}, which has {n}" for n in noise[: len(lines)])
        for label, lines in descriptions.texts.items()
    }
