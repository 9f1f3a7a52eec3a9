"""Controls for descriptions: is it what they say, or only that there are several? (WaffleCLIP, arXiv 2306.07282)"""

from __future__ import annotations

import random
import re
import string
from collections.abc import Callable, Mapping, Sequence

from ..errors import DataError
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
        raise DataError("One class was given. Two were expected to swap descriptions between. Describe another.")
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
