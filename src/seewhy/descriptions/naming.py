"""A name found in a text."""

from __future__ import annotations

import re

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
