"""What a classifier read from files must be before it is used: shapes that fit, indices that point at something.

A classifier is read from a card and tensors that somebody else may have written. What is not checked here would show
later as a wrong answer or as an error deep in a method.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from ..heads.normalise import Normalise
from ..heads.word_decision import WordDecision
from ..prototypes.bank import check_index, check_patches
from ..prototypes.measure import NEVER
from .base import Classifier

KINDS = {
    "head.weight": "float2",
    "head.bias": "float1",
    "head.owner": "int1",
    "words.vectors": "float2",
    "words.owner": "int1",
    "words.nameless": "float2",
    "held_out.pooled": "float2",
    "held_out.labels": "int1",
    "held_out.logits": "float2",
    "held_out.groups": "int1",
    "bank.pooled": "float2",
    "bank.vectors": "float2",
    "bank.owner": "int1",
    "bank.boxes": "float2",
    "bank.pixel_boxes": "int2",
    "bank.thumbnails": "bytes1",
    "trust.gaussian.weight": "float2",
    "trust.gaussian.bias": "float1",
    "trust.gaussian.within": "float2",
    "trust.gaussian.among": "float2",
    "trust.gaussian.flat": "float1",
    "trust.gaussian.middle": "float1",
    "trust.strangeness.posteriors": "float2",
    "trust.strangeness.spread": "float2",
    **{f"trust.strangeness.{name}": "float1" for name in ("mean", "deviation", "usual")},
    "trust.held.labels": "int1",
    "trust.held.score": "float1",
    "trust.held.rivals": "float2",
    "trust.held.rival_classes": "int2",
    **{f"trust.held.{name}": "float1" for name in ("probability", "strangeness", "unusual")},
    **{f"trust.right.{name}": "float1" for name in ("mean", "deviation", "slopes")},
    "trust.right.drawn": "float2",
}
"""Kinds of numbers and of axes, for :func:`seewhy.storage.reading.check_kinds`."""


def check(classifier: Classifier) -> None:
    """Refuse a classifier whose parts do not fit together.

    Args:
        classifier: whose tensors are known to be finite.

    Raises:
        TypeError, ValueError: says what does not fit; the caller says which file is damaged.
    """
    _check_facts(classifier)
    _check_head(classifier)
    _check_evidence(classifier)


def _check_facts(c: Classifier) -> None:
    for name, found, kind in (
        ("recipe", c.recipe, str),
        ("parameters", c.parameters, dict),
        ("measures", c.measures, dict),
        ("trained_on", c.trained_on, str),
        ("decided_by_words", c.decided_by_words, bool),
        ("words_accuracy_on", c.words_accuracy_on, str),
    ):
        if not isinstance(found, kind):
            raise TypeError(f"{name} is {found!r}")
    if not all(isinstance(label, str) for label in c.classes):
        raise TypeError("a class has a name that is no text")
    parts: list[Any] = [] if c.words_accuracy is None else [c.words_accuracy]
    if c.likeness is not None:
        parts += [c.likeness.precision, c.likeness.chance]
        counts = [c.likeness.n, *(count for band in c.likeness.bands for count in (band.n, band.right))]
        parts += [band.least for band in c.likeness.bands]
        for count in counts:
            if not isinstance(count, int) or count < 0:
                raise ValueError(f"a likeness measured on {count!r} pictures")
        for limit in (c.likeness.limit, c.likeness.near):
            if limit is not None and not (isinstance(limit, int | float) and abs(limit) <= NEVER):
                raise ValueError(f"a limit of likenesses is {limit!r}")
        if c.likeness.limit is not None and not (c.likeness.bands and c.likeness.near is not None):
            raise ValueError("a limit of likenesses without bands, or without how near they are")
        if any(band.n == 0 or band.right > band.n for band in c.likeness.bands):
            raise ValueError("a band of likenesses has no pictures, or more right than there are")
    for part in parts:
        if not isinstance(part, int | float) or not 0 <= part <= 1:
            raise ValueError(f"a measure is {part!r}, of 0 to 1")


def _check_head(c: Classifier) -> None:
    head, k = c.head, len(c.classes)
    if head.bias.shape != (k,):
        raise ValueError(f"{k} classes for {len(head.bias)} rows")
    if head.votes is not None and head.votes.n_classes != k:
        raise ValueError(f"{k} classes for a vote over {head.votes.n_classes}")
    n_rows = k
    if isinstance(head.votes, WordDecision):
        n_rows = max(head.votes.least_rows, len(head.weight))
    elif head.votes is not None:
        n_rows = len(head.votes.owner)
        check_index("the rows' classes", head.votes.owner, k)
        if head.votes.names and len(head.votes.names) != n_rows:
            raise ValueError(f"{len(head.votes.names)} names for {n_rows} rows")
    if head.weight.ndim != 2 or len(head.weight) != n_rows:
        raise ValueError(f"weights {tuple(head.weight.shape)} for {n_rows} rows")
    if not math.isfinite(head.scale):
        raise ValueError(f"a scale of {head.scale}")


def _check_evidence(c: Classifier) -> None:
    """Words, held-out pictures and bank; whatever is of one space, pooled or shared with text, has one width."""
    k = len(c.classes)
    pooled: list[Tensor] = []
    joint: list[Tensor] = []
    (pooled if isinstance(c.head.feature, Normalise) else joint).append(c.head.weight)
    if c.words is not None:
        joint.append(c.words.vectors)
        check_index("the words' classes", c.words.owner, k)
        if not all(isinstance(text, str) for text in c.words.texts):
            raise TypeError("a description is no text")
        vectors = [c.words.vectors, *([] if c.words.nameless is None else [c.words.nameless])]
        if {len(c.words.texts)} != {len(c.words.owner), *map(len, vectors)} or len({v.shape for v in vectors}) != 1:
            raise ValueError(f"{len(c.words.vectors)} vectors for {len(c.words.texts)} descriptions")
    if c.held_out is not None:
        pooled.append(c.held_out.pooled)
        check_index("the held-out pictures' classes", c.held_out.labels, k)
        if len(c.held_out.labels) != len(c.held_out.pooled):
            raise ValueError(f"{len(c.held_out.pooled)} held-out pictures with {len(c.held_out.labels)} classes")
        n, logits, groups = len(c.held_out.labels), c.held_out.logits, c.held_out.groups
        if logits is not None and logits.shape != (n, k):
            raise ValueError(f"logits {tuple(logits.shape)} of {n} held-out pictures and {k} classes")
        if groups is not None and (groups.shape != (n,) or groups.is_floating_point()):
            raise ValueError(f"groups {tuple(groups.shape)} of {n} held-out pictures")
    if c.trust is not None:
        c.trust.check(k, None if c.held_out is None else c.held_out.pooled.shape[1])
    if c.bank is not None:
        if c.network is None:  # a network's bank may be of the encoder it was grown on
            pooled.append(c.bank.pooled)
        check_patches(c.bank, k)
        if c.bank.vectors.ndim != 2 or len(c.bank.vectors) != len(c.bank.owner):
            raise ValueError(f"vectors {tuple(c.bank.vectors.shape)} for {len(c.bank.owner)} patches")
    for tensors in (pooled, joint):
        if any(t.ndim != 2 for t in tensors) or len({t.shape[1] for t in tensors}) > 1:
            raise ValueError(f"widths that differ: {', '.join(str(tuple(t.shape)) for t in tensors)}")
