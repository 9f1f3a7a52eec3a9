"""Figures of explanations: verdicts, agreement, and whether words say more than noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ...classifiers.base import Classifier
from ...descriptions.base import Descriptions, WordBank
from ...descriptions.controls import random_words
from ...evidence.agreement import IN_PART
from ...explanation.base import Explanation
from ...explanation.verdict import Level, Missing, Verdict
from ...heads.head import Projected
from ..bootstrap import paired
from .check import Check, Material, share
from .limit import Figure, Limit, missing

RANK: dict[Level, int] = {"not measured": 0, "do not rely": 1, "partly": 2, "believable": 3}
N_NOISE = 7
NO_CARDS = "No card was made; explain one picture at least."


class _Verdicts(Check):
    """Part of the cards that have the evidence whose verdict is the contract's level at least; Wilson's interval."""

    side, preset, required, level = "at_least", 0.5, False, "partly"
    evidence: str
    cure: str

    def measure(self, material: Material, limit: Limit) -> Figure:
        found = list(self._verdicts(material.explained))
        if not found:
            return missing(f"No card has this evidence. {self.cure}" if material.explained else NO_CARDS)
        least = RANK[limit.level]  # type: ignore[index]
        kept = torch.tensor([RANK[v.level] >= least for v in found])
        counts = ", ".join(f"{level} {n}" for level in RANK if (n := sum(v.level == level for v in found)))
        return share(kept, f"Of {len(found)} cards: {counts}.")

    def _verdicts(self, cards: tuple[Explanation, ...]) -> Iterator[Verdict]:
        for card in cards:
            evidence = getattr(card, self.evidence)
            if not isinstance(evidence, Missing):
                yield evidence.verdict


class WhereVerdict(_Verdicts):
    """Of heat maps."""

    name, title = "where_verdict", "Heat maps to be believed"
    told = "Part of the cards whose heat map gets this verdict at least: partly, or believable."
    evidence, cure, required = "where", "Another way of showing where is needed.", True


class LikeVerdict(_Verdicts):
    """Of likenesses."""

    name, title = "like_verdict", "Likenesses to be believed"
    told = "The same of the user's own pictures that it is shown to look like."
    evidence, cure = "like", "Fit on pictures of your own."


class WordsVerdict(_Verdicts):
    """Of descriptions."""

    name, title = "words_verdict", "Descriptions to be believed"
    told = "The same of descriptions."
    evidence, cure = "words", "Give descriptions with --descriptions FILE."


class Agreement(Check):
    """Part of the cards whose kinds of evidence do not disagree (:data:`~seewhy.evidence.agreement.IN_PART`)."""

    name, title = "agreement", "Evidence that agrees"
    told = "Part of the cards whose kinds of evidence (where, like what, in words) agree, in part at least."
    side, preset, required = "at_least", 0.5, False

    def measure(self, material: Material, limit: Limit) -> Figure:
        scores = [c.agreement.score for c in material.explained if c.agreement.score is not None]
        if not scores:
            cure = "Too little evidence of different kinds to compare. Fit on pictures, or give descriptions."
            return missing(cure if material.explained else NO_CARDS)
        alike = torch.tensor(scores) >= IN_PART
        n = int((~alike).sum())
        return share(alike, f"On {n} of {len(scores)} cards the kinds of evidence disagree.")


class WordsMeaning(Check):
    """Accuracy of the words alone less that of meaningless words in equal number; paired bootstrap over pictures."""

    name, title = "words_meaning", "Words say more than noise"
    told = "Accuracy of the descriptions alone, less that of meaningless words in equal number (WaffleCLIP)."
    side, preset, bound, required, low = "at_least", 0.01, "worst", False, -1.0

    def measure(self, material: Material, limit: Limit) -> Figure:
        words = material.classifier.words
        if words is None:
            return missing("It has no descriptions. Give some with --descriptions FILE.")
        texts: dict[str, list[str]] = {c: [] for c in words.classes}
        for text, owner in zip(words.texts, words.owner.tolist(), strict=True):
            texts[words.classes[owner]].append(text)
        described = Descriptions({c: tuple(t) for c, t in texts.items()})
        noise = [self._noise(material, described, material.seed + i) for i in range(N_NOISE)]
        both = torch.stack([_by_words(material.classifier, material).float(), torch.stack(noise).mean(0)], 1)
        found = paired(both[..., None], lambda means: means[..., 0], seed=material.seed)
        value, interval, _ = found.difference(0, 1)
        said, control = found.values.tolist()
        return Figure(
            value,
            interval,
            len(both),
            f"By its descriptions alone it is right on {said:.1%}, by meaningless words on {control:.1%}.",
        )

    @staticmethod
    def _noise(material: Material, described: Descriptions, seed: int) -> Float[Tensor, " n"]:
        control = Descriptions(random_words(described, seed))
        bank = WordBank.build(material.classifier.encoder, control, with_names=False, store=material.store)
        return _by_words(replace(material.classifier, words=bank), material).float()


def _by_words(classifier: Classifier, material: Material) -> Bool[Tensor, " n"]:
    """Which pictures are decided rightly by the words alone."""
    if classifier.words is None:
        raise TypeError("words were expected")
    joint = Projected(classifier.encoder.text)(material.pooled)
    return (joint @ classifier.words.measured.class_weight().T).argmax(1) == material.labels
