"""Controls for descriptions: is it what they say, or only that there are several? (WaffleCLIP, arXiv 2306.07282)"""

from __future__ import annotations

import random
import re
import string
from collections.abc import Mapping

from .base import Descriptions

APART = r"[\s_-]+"
"""What may stand between the words of a name."""


def naming(name: str) -> re.Pattern[str] | None:
    """Finds a name as whole words, in any case, its last word in the singular or the plural; ``None`` for no name.

    Example:
        >>> finder = naming("red_cherry")
        >>> [bool(finder.search(text)) for text in ("Ripe Red-Cherries", "a red cherry", "a cherry", "red cherryade")]
        [True, True, False, False]
    """
    words = [re.escape(word) for word in re.split(APART, name.strip()) if word]
    if not words:
        return None
    is_y = words[-1][-1:].lower() == "y"
    stem = APART.join(words)[:-1] if is_y else APART.join(words)
    return re.compile(rf"(?<!\w){stem}{'(?:y|ies|ys)' if is_y else '(?:s|es)?'}(?!\w)", re.IGNORECASE)


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


def without_names(descriptions: Descriptions) -> tuple[Descriptions, int]:
    """The same texts with the class's own name replaced by *it*, and how many had it.

    The name is found in any case, with spaces, hyphens or underscores between its words, and in the plural. Single
    words of a longer name stay, since they may be what the class looks like (*orange* of *orange bell pepper*).

    >>> without_names(Descriptions({"red-beet": ("Red beets are round", "dark red")}))[0].texts["red-beet"]
    ('it are round', 'dark red')
    """
    n = 0
    found: dict[str, tuple[str, ...]] = {}
    for label, lines in descriptions.texts.items():
        name = naming(label)
        said = [t if name is None else name.sub("it", t) for t in lines]
        n += sum(a != b for a, b in zip(lines, said, strict=True))
        found[label] = tuple(dict.fromkeys(said))
    return Descriptions(found), n
