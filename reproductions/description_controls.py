"""Descriptions that keep their number and lose their meaning, and what is wrong with a set whatever the pictures.

Every control keeps as many texts a class as the descriptions have (WaffleCLIP, arXiv 2306.07282), so that nothing
differs but what they say.
"""

from __future__ import annotations

import random
import re
import string
from collections.abc import Callable, Sequence

from seewhy.descriptions.base import APART, Descriptions, without_names
from seewhy.errors import DataError


def shared_noise(descriptions: Descriptions, seed: int) -> Descriptions:
    """Random words and random characters in turn, the same for every class (WaffleCLIP).

    As in the authors' code, a noise text has as many words as the classes' names on average, at least one, and its
    words or groups of characters are as long as theirs; the characters are those of the descriptions. Their words come
    from a list of English words that is not ours to ship; here they are drawn from the descriptions of all classes,
    cut to the same length, so that they are words and say nothing of the class.
    """
    noise = _Noise(descriptions, seed)
    most = max(map(len, descriptions.texts.values()))
    drawn = [noise.words() if i % 2 == 0 else noise.characters() for i in range(most)]
    return Descriptions({label: tuple(drawn[: len(lines)]) for label, lines in descriptions.texts.items()})


def own_noise(descriptions: Descriptions, seed: int) -> Descriptions:
    """Random characters, other ones for every class."""
    noise = _Noise(descriptions, seed)
    return Descriptions({c: tuple(noise.characters() for _ in lines) for c, lines in descriptions.texts.items()})


class _Noise:
    """Draws meaningless texts, each once, shaped like the classes' names."""

    def __init__(self, descriptions: Descriptions, seed: int) -> None:
        self._rng = random.Random(seed)
        names = [re.split(APART, c.strip()) for c in descriptions.texts]
        texts = [t for lines in descriptions.texts.values() for t in lines]
        self._n = max(1, round(sum(map(len, names)) / len(names)))
        self._length = max(2, round(sum(len(w) for n in names for w in n) / sum(map(len, names))))
        self._words = sorted({w.lower() for t in texts for w in re.findall(r"\w{3,}", t)}) or ["word"]
        self._letters = sorted({c for t in texts for c in t.lower() if not c.isspace()}) or list(string.ascii_lowercase)
        self._drawn: set[str] = set()

    def words(self) -> str:
        return self._new(lambda: " ".join(w[: self._length] for w in self._rng.choices(self._words, k=self._n)))

    def characters(self) -> str:
        return self._new(
            lambda: ", ".join("".join(self._rng.choices(self._letters, k=self._length)) for _ in range(self._n))
        )

    def _new(self, draw: Callable[[], str]) -> str:
        """One not drawn before; after a hundred tries with a number, since a small vocabulary may be used up."""
        for _ in range(100):
            if (text := draw()) not in self._drawn:
                self._drawn.add(text)
                return text
        text = f"{draw()} {len(self._drawn)}"
        self._drawn.add(text)
        return text


def swapped(descriptions: Descriptions, seed: int) -> Descriptions:
    """Each class with the whole list of another; none keeps its own.

    The number of texts a class changes with the list, as in WaffleCLIP's code. A class may still get a text that both
    have.
    """
    labels = list(descriptions.texts)
    if len(labels) < 2:
        raise DataError(
            "One class was given. Expected at least two, to swap their descriptions. Describe another class."
        )
    order = random.Random(seed).sample(labels, len(labels))
    # A cycle through all classes in random order: every class gets its successor's list.
    following = dict(zip(order, order[1:] + order[:1], strict=True))
    return Descriptions({label: descriptions.texts[following[label]] for label in labels})


def scrambled(descriptions: Descriptions, seed: int) -> Descriptions:
    """The words of each class's list in random order over its texts, each as many words long as before."""
    rng = random.Random(seed)
    found: dict[str, tuple[str, ...]] = {}
    for label, lines in descriptions.texts.items():
        words = [w for t in lines for w in t.split()]
        rng.shuffle(words)
        rest = iter(words)
        found[label] = tuple(" ".join(next(rest) for _ in t.split()) for t in lines)
    return Descriptions(found)


def randomly_assigned(descriptions: Descriptions, seed: int) -> Descriptions:
    """Each class with texts of the pool of all, drawn with replacement, as many as it has."""
    rng = random.Random(seed)
    pool = sorted({t for lines in descriptions.texts.values() for t in lines})
    return Descriptions({c: tuple(rng.choices(pool, k=len(lines))) for c, lines in descriptions.texts.items()})


CONTROLS: dict[str, Callable[[Descriptions, int], Descriptions]] = {
    "swapped": swapped,
    "scrambled": scrambled,
    "shared noise": shared_noise,
    "own noise": own_noise,
}
"""By name, each with a seed."""


def flaws(descriptions: Descriptions) -> list[str]:
    """What is wrong with a set of descriptions whatever the pictures: names inside, lists that two classes share."""
    found = []
    _, n_named = without_names(descriptions)
    n_texts = sum(map(len, descriptions.texts.values()))
    if n_named:
        found.append(f"{n_named} of {n_texts} descriptions contain their own class's name.")
    lists: dict[frozenset[str], list[str]] = {}
    owners: dict[str, set[str]] = {}
    for label, lines in descriptions.texts.items():
        lists.setdefault(frozenset(lines), []).append(label)
        for text in lines:
            owners.setdefault(text, set()).add(label)
    alike = [same for same in lists.values() if len(same) > 1]
    found += [f"{_named(same)} have the same descriptions; words cannot tell them apart." for same in alike]
    shared = sum(len(c) > 1 for c in owners.values())
    if shared:
        found.append(f"{shared} of {len(owners)} different descriptions belong to more than one class.")
    return found


def _named(labels: Sequence[str]) -> str:
    return f"{', '.join(labels[:-1])} and {labels[-1]}"
