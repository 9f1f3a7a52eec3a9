"""Kinds of an object among ImageNet's classes, from WordNet's definitions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import pairwise

from ...clusters import grouped
from ...encoders.names import imagenet_classes, wordnet
from .prompts import spoken

PLURAL = re.compile(r"(?<=\w{3})((?<=ch|sh|ss)e)?(?<!s)s$")
ASIDE = re.compile(r"\([^)]*\)")
GENUS_ENDS = re.compile(
    r"[;:,]|\b(?:with|having|that|which|who|whose|used|in|from|for|by|to|on|at|made|originating|developed|"
    r"(?<!breed )(?<!breeds )(?<!any )(?<!variety )(?<!type )(?<!kind )(?<!various )(?<!several )of)\b"
)
"""Words that end the hypernym part of a definition."""
BETWEEN = 16
"""Largest number of animal classes between two kinds of an object that also count as kinds."""
COMPOUND = 4
"""Minimum length of a word that may end a compound, such as tri-cycle; shorter words give false hits (eleph-ant)."""


def words_of(name: str) -> frozenset[str]:
    """Return the words of a name in lower-case singular.

    >>> sorted(words_of("Bell_Peppers")), sorted(words_of("T-shirt"))
    (['bell', 'pepper'], ['shirt', 't'])
    """
    return frozenset(PLURAL.sub("", word) for word in re.findall(r"\w+", spoken(name).lower()))


def last_word(name: str) -> frozenset[str]:
    """Return the last word of a name, which usually gives the kind of object.

    >>> sorted(last_word("Egyptian cat")), sorted(last_word("crane (large bird)"))
    (['cat'], ['crane'])
    """
    return words_of((re.findall(r"\w+", spoken(ASIDE.sub(" ", name))) or [name])[-1])


def _realm(synset: str) -> str:
    """Return the branch of WordNet that contains a synset: animals, artefacts or a range of synset numbers."""
    return "animals" if synset < "n02666" else "artefacts" if synset < "n05" else synset[:3]


@cache
def _synsets() -> Mapping[frozenset[str], Sequence[str]]:
    return grouped((words_of(name), synset) for synset, (names, _) in wordnet().items() for name in names)


@cache
def _genus(synset: str) -> frozenset[frozenset[str]]:
    """Return the hypernym words of a synset, from its names and definition."""
    names, gloss = wordnet()[synset]
    own = frozenset(last_word(name) for name in names)
    part = GENUS_ENDS.split(ASIDE.sub(" ", gloss).strip(), maxsplit=1)[0].replace("-", " ").split()
    if _realm(synset) == "animals":
        return own | {words_of(word) for word in part}
    tails = (words_of(" ".join(part[i:])) for i in range(len(part)))
    return own | {next((tail for tail in tails if tail in _synsets()), frozenset())}


@cache
def _above() -> Mapping[str, frozenset[frozenset[str]]]:
    """Return the names of each ImageNet synset and of its hypernyms."""
    found = {}
    for start in sorted(c.synset for c in imagenet_classes()):
        todo, seen, names = [start], {start}, set[frozenset[str]]()
        while todo:
            synset = todo.pop()
            genus = _genus(synset)
            names |= genus | {words_of(name) for name in wordnet()[synset][0]}
            for name in genus:
                over = [s for s in _synsets().get(name, ()) if _realm(s) == _realm(start)]
                over = over if len(over) == 1 or _realm(start) == "animals" else []
                todo += [s for s in over if s not in seen]
                seen.update(over)
        found[start] = frozenset(names - {frozenset()})
    return found


def kinds_of(names: Iterable[str]) -> frozenset[str]:
    """Return the ImageNet labels that equal a name, or are kinds of a name or of the name's last word.

    Compared with WordNet's tree, the result has many more labels (a wolf for a dog, a bear for a cat) and misses some.

    >>> {"toy poodle", "Irish terrier", "collie"} <= kinds_of(["dog"]), kinds_of(["sofas"])
    (True, frozenset({'studio couch'}))
    """
    above = _above()
    order, found = list(above), set()
    for name in names:
        own = {words_of(name), last_word(name)} - {frozenset()}
        own |= {words_of(one) for key in own for s in _synsets().get(key, ()) for one in wordnet()[s][0]}
        ends = tuple(word for words in own if len(words) == 1 for word in words if len(word) >= COMPOUND)
        is_kind = [
            not own.isdisjoint(above[s]) or any(w.endswith(ends) for n in wordnet()[s][0] for w in last_word(n))
            for s in order
        ]
        found |= {s for s, hit in zip(order, is_kind, strict=True) if hit}
        animals = [i for i, hit in enumerate(is_kind) if hit and _realm(order[i]) == "animals"]
        found |= {s for a, b in pairwise(animals) if b - a <= BETWEEN for s in order[a:b]}
    return frozenset(c.label for c in imagenet_classes() if c.synset in found)
