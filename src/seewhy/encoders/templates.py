"""Names of classes in sentences."""

from __future__ import annotations

import re

ARTICLE = re.compile(r"\b(a|an|the) $", re.IGNORECASE)
NAMED = re.compile(r"(a|an|the) ", re.IGNORECASE)


def filled(template: str, name: str) -> str:
    """A template with a name in place of ``{}``; a name that brings its article takes the place of the template's.

    Example:
        >>> filled("a photo of a {}.", "dog"), filled("a photo of a {}.", "a dog"), filled("a photo of a {}.", "an owl")
        ('a photo of a dog.', 'a photo of a dog.', 'a photo of an owl.')
        >>> filled("{}", "a dog"), filled("a {}, or the {}", "the sky")
        ('a dog', 'the sky, or the sky')
    """
    if not NAMED.match(name.lstrip()):
        return template.replace("{}", name)
    *parts, last = template.split("{}")
    return "".join(ARTICLE.sub("", part) + name.lstrip() for part in parts) + last
