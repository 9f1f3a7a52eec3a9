"""Do descriptions help because of what they say, or only because there are several? With and without names.

python reproductions/description_semantics.py photos/ words.json -e open_clip:ViT-B-32/openai
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from description_controls import CONTROLS, flaws, own_noise, randomly_assigned, swapped
from scripts import ended, parser, settled
from semantics_arms import Arms, Right

import seewhy
from seewhy.classifiers.by_sentences import WEIGHTS, Selector
from seewhy.classifiers.encoded_set import encode_labelled
from seewhy.descriptions.base import Descriptions, without_names
from seewhy.encoders.base import Encoder
from seewhy.heads.head import Projected
from seewhy.pictures.samples import Samples
from seewhy.progress import Progress
from seewhy.storage.features import FeatureStore
from seewhy.studies.bootstrap import Paired, paired_means
from seewhy.studies.study import Findings, Row, beside, bits, from_bits, measured

N_DEALT = 999
"""Random assignments of the lists to the classes; all there are, where there are fewer."""
MEANINGLESS = ("swapped", "shared noise", "own noise")
"""Controls that say nothing true of the class; scrambled words still do, one by one."""


@dataclass(frozen=True)
class Arm:
    """One way to decide.

    Attributes:
        name: for tables.
        group: ``"with names"``, ``"without names"``, ``"chosen"`` or ``"pictures"``.
        seeds: draws it is averaged over; none for what is not drawn.
        decide: seed → who is right.
    """

    name: str
    group: str
    seeds: int
    decide: Callable[[int], Right]


@dataclass(frozen=True, repr=False)
class SemanticsFindings(Findings):
    """What the study found."""

    def value(self, name: str, group: str = "with names") -> float:
        """Accuracy of an arm."""
        for arm in self.data["arms"]:
            if (arm["name"], arm["group"]) == (name, group):
                return float(arm["value"])
        raise KeyError(f"{name}, {group}")


@dataclass(frozen=True)
class DescriptionSemanticsStudy:
    """Names, descriptions and controls on the same pictures, resampled in pairs.

    - *With names*: every arm says its texts with the class's name in the same sentence (mean of cosines); controls
      have as many texts a class as the descriptions (WaffleCLIP, Roth et al. 2023, arXiv:2306.07282).
    - *Without names*: the texts alone, the class's name taken out, then ``w · name + texts`` with ``w`` swept as Ma et
      al. 2024 (arXiv:2412.11917) do. ``w`` is chosen on one half of the pictures for the other; the best ``w`` on the
      pictures themselves, which their table takes, is reported as the oracle.
    - *Chosen*: descriptions chosen on labelled pictures (:class:`~seewhy.classifiers.by_sentences.Selector`), by
      halves; beside them the nearest class mean of the same labelled pictures, and how often the class is in question.
    - *Pictures*: no words at all, but a logistic regression on 1, 2, 4, … pictures a class of one half, drawn anew each
      time, for the other half: how many pictures the words are worth.

    Words help *by what they say* when they are ahead of the mean of every control that says nothing true of the class,
    and above each of its draws. They *carry meaning of their own* when, without names, they are above chance, ahead of
    swapped lists, and right more often than all but 5 % of random assignments of the lists to the classes (of three
    classes or fewer, more often than in any other).

    Args:
        n_noise: draws of every control.
        k: classes in question, where descriptions are chosen.
        m: descriptions chosen for each.
        seed: of halves, draws and resampling.
        n_draws: resampled sets of pictures.
        level: of the intervals.
    """

    n_noise: int = 7
    k: int = 3
    m: int = 5
    seed: int = 0
    n_draws: int = 2000
    level: float = 0.95

    def run(
        self,
        encoder: Encoder,
        descriptions: Descriptions,
        samples: Samples,
        output: str | Path | None = None,
        *,
        store: FeatureStore | None = None,
        progress: Progress | None = None,
    ) -> SemanticsFindings:
        """Decide by every arm, and say what follows. Stopped, it goes on where it was."""
        progress = progress or Progress()
        looked = encode_labelled(encoder, tuple(descriptions.texts), samples, store, progress)
        seen, labels = Projected(encoder.text)(looked.pooled).detach(), looked.labels
        arms = Arms(encoder, tuple(descriptions.texts), seen, labels, Selector(self.m), self.k, self.seed, store)
        made = list(self._arms(arms, descriptions, progress))
        base = [
            encoder.fingerprint,
            encoder.text.fingerprint,
            {c: list(t) for c, t in descriptions.texts.items()},
            looked.digests,
            labels.tolist(),
        ]
        found = self._measured(
            made, hashlib.sha256(json.dumps([base, vars(self)]).encode()).hexdigest(), output, progress
        )
        tables = torch.stack([torch.stack([r.hits.double() for r in rights]).mean(0) for rights in found], 1)
        resampled = paired_means(tables, n_draws=self.n_draws, level=self.level, seed=self.seed)
        rows = [_row(i, arm, rights, resampled, made) for i, (arm, rights) in enumerate(zip(made, found, strict=True))]
        chance = 1 / len(descriptions.texts)
        luck = arms.luck(without_names(descriptions)[0], N_DEALT)
        curves = {f"{a.name}, {a.group}": _curve(r) for a, r in zip(made, found, strict=True) if r[0].curve}
        return SemanticsFindings(
            {
                "study": "description-semantics",
                "sentence": verdict(made, resampled, [row["best"] for row in rows], chance, luck),
                "n": len(labels),
                "n_classes": len(descriptions.texts),
                "n_texts": sum(map(len, descriptions.texts.values())),
                "chance": round(chance, 4),
                "luck": round(luck, 4),
                "arms": rows,
                "curves": {"weights": list(WEIGHTS), "arms": curves},
                "flaws": flaws(descriptions),
                "model": {"encoder": encoder.name, "fingerprint": encoder.fingerprint[:12]},
                "settings": vars(self),
                **beside(progress),
            }
        )

    def _arms(self, arms: Arms, descriptions: Descriptions, progress: Progress) -> Iterator[Arm]:
        n, bare = self.n_noise, without_names(descriptions)[0]
        yield Arm("names", "with names", 0, lambda _: arms.names())
        if arms.encoder.text.templates != ("{}",):
            yield Arm("templates", "with names", 0, lambda _: arms.templates())
        yield Arm("descriptions", "with names", 0, lambda _: arms.with_names(descriptions))
        for name, control in CONTROLS.items():
            yield Arm(name, "with names", n, partial(_drawn, arms.with_names, control, descriptions))
        free = {"swapped": swapped, "randomly assigned": randomly_assigned, "own noise": own_noise}
        yield Arm("descriptions alone", "without names", 0, lambda _: arms.alone(bare))
        yield Arm("swapped alone", "without names", n, partial(_drawn, arms.alone, swapped, bare))
        yield Arm("descriptions", "without names", 0, lambda _: arms.weighed(bare))
        for name, control in free.items():
            yield Arm(name, "without names", n, partial(_drawn, arms.weighed, control, bare))
        for shots in arms.n_shots:
            yield Arm(_shots(shots), "pictures", n, partial(arms.probe, shots))
        if not arms.can_select:
            progress.note("Choosing descriptions was left out: every described class needs four pictures for it")
            return
        yield Arm("descriptions", "chosen", 0, lambda _: arms.selected(bare))
        yield Arm("own noise", "chosen", n, partial(_drawn, arms.selected, own_noise, bare))
        yield Arm("descriptions with names", "chosen", 0, lambda _: arms.selected_with_names(bare))
        yield Arm("nearest class mean", "chosen", 0, lambda _: arms.few_shot())
        yield Arm("class in question", "chosen", 0, lambda _: arms.ceiling())

    def _measured(self, arms: list[Arm], base: str, output: str | Path | None, progress: Progress) -> list[list[Right]]:
        """Every arm with every seed; what an earlier run noted is not decided again."""
        todo = [(i, seed) for i, arm in enumerate(arms) for seed in range(max(1, arm.seeds))]

        def decide(i: int, seed: int) -> Row:
            right = arms[i].decide(self.seed + seed)
            return {"right": bits(right.hits), "curve": [round(v, 5) for v in right.curve]}

        def key(i: int, seed: int) -> str:
            return f"{base} {arms[i].group} {arms[i].name} {seed}"

        found: list[list[Right]] = [[] for _ in arms]
        for (i, _), row in measured(todo, key, decide, output, progress, "Deciding"):
            found[i].append(Right(torch.tensor(from_bits(row["right"])).bool(), tuple(row["curve"])))
        return found


def _shots(n: int) -> str:
    return f"{n} picture{'s' if n > 1 else ''} a class"


def _drawn(
    decide: Callable[[Descriptions], Right],
    control: Callable[[Descriptions, int], Descriptions],
    descriptions: Descriptions,
    seed: int,
) -> Right:
    return decide(control(descriptions, seed))


def _curve(rights: list[Right]) -> list[float]:
    """Mean over the draws."""
    return [round(sum(v) / len(v), 4) for v in zip(*(r.curve for r in rights), strict=True)]


def _row(i: int, arm: Arm, rights: list[Right], resampled: Paired, arms: list[Arm]) -> dict[str, Any]:
    """An arm's figures, and its difference from the names and from the descriptions of its group."""
    low, high = resampled.interval(i)
    row: dict[str, Any] = {
        "name": arm.name,
        "group": arm.group,
        "draws": arm.seeds or None,
        "value": round(float(resampled.values[i]), 4),
        "interval": [round(low, 4), round(high, 4)],
        "best": round(max(float(r.hits.double().mean()) for r in rights), 4),
    }
    if rights[0].best is not None:
        row["oracle"] = round(sum(r.best or 0.0 for r in rights) / len(rights), 4)
    own = "with names" if arm.group == "pictures" else arm.group
    for key, name, group in (("less_names", "names", "with names"), ("less_descriptions", "descriptions", own)):
        j = next(j for j, other in enumerate(arms) if (other.name, other.group) == (name, group))
        if i != j:
            value, (low, high), real = resampled.difference(i, j)
            row[key] = {"value": round(value, 4), "interval": [round(low, 4), round(high, 4)], "real": real}
    return row


def verdict(arms: list[Arm], resampled: Paired, best: Sequence[float], chance: float, luck: float) -> str:
    """What the study says, in sentences.

    Args:
        arms: in the order of the others.
        resampled: their accuracies.
        best: of each, the accuracy of its best draw.
        chance: accuracy of guessing.
        luck: :meth:`~seewhy.studies.semantics_arms.Arms.luck` of the descriptions.
    """
    at = {(a.name, a.group): i for i, a in enumerate(arms)}

    def said(name: str, group: str = "with names") -> str:
        return f"{float(resampled.values[at[name, group]]):.1%}"

    mine, names = at["descriptions", "with names"], at["names", "with names"]
    gain, _, real = resampled.difference(mine, names)
    controls = {n: at[n, "with names"] for n in MEANINGLESS}
    strongest = max(controls, key=lambda n: float(resampled.values[controls[n]]))
    means = all(_ahead(resampled, mine, i) and best[mine] > best[i] for i in controls.values())
    figures = f"right on {said('descriptions')} of the pictures, the names alone on {said('names')}"
    control = f"as many meaningless texts on up to {said(strongest)} ({strongest})"
    if real and gain > 0:
        how = "by what they say" if means else "not shown to be by what they say: it may be ensembling alone"
        first = f"These words help, {how}; {figures}, {control}."
    elif real:
        first = f"These words do harm; {figures}, {control}."
    else:
        more = "though they do better than meaningless texts" if means else "and meaningless texts do as well"
        first = f"These words do not help, {more}; {figures}, {control}."
    alone = at["descriptions alone", "without names"]
    low, _ = resampled.interval(alone)
    fits = luck <= max(0.05, 1 / math.factorial(round(1 / chance)) + 1e-6)
    carries = low > chance and fits and _ahead(resampled, alone, at["swapped alone", "without names"])
    second = (
        f"Without names they are right on {said('descriptions alone', 'without names')} (chance {chance:.1%}, another "
        f"class's words {said('swapped alone', 'without names')}): "
        + ("they carry meaning of their own." if carries else "no meaning of their own is shown.")
    )
    second += _in_pictures(arms, resampled)
    if ("descriptions", "chosen") not in at:
        return f"{first} {second}"
    chosen, noise = at["descriptions", "chosen"], at["own noise", "chosen"]
    third = (
        f"Chosen on labelled pictures and weighed with the names they are right on {said('descriptions', 'chosen')}, "
        f"{'' if _ahead(resampled, chosen, noise) else 'not shown to be '}more than noise chosen the same way "
        f"({said('own noise', 'chosen')}); the nearest mean of the same pictures on "
        f"{said('nearest class mean', 'chosen')}."
    )
    return f"{first} {second} {third}"


def _in_pictures(arms: list[Arm], resampled: Paired) -> str:
    """What the words are worth in labelled pictures, where some were tried."""
    tried = [i for i, a in enumerate(arms) if a.group == "pictures"]
    if not tried:
        return ""
    mine = next(i for i, a in enumerate(arms) if (a.name, a.group) == ("descriptions", "with names"))
    more = next((i for i in tried if _ahead(resampled, i, mine)), None)
    if more is None:
        most = tried[-1]
        return f" As far as tried, no pictures do more: {arms[most].name} are right on {resampled.values[most]:.1%}."
    n = arms[more].name
    return f" A linear probe on {n} does more than names and words together ({resampled.values[more]:.1%})."


def _ahead(resampled: Paired, i: int, j: int) -> bool:
    value, _, real = resampled.difference(i, j)
    return real and value > 0


def main(arguments: Sequence[str] | None = None) -> Findings:
    """Decide on labelled pictures with and without what descriptions say."""
    options = parser(__doc__, DescriptionSemanticsStudy, "data", "descriptions")
    options.add_argument("-e", "--encoder", required=True, help="with text")
    given = options.parse_args(arguments)
    study, texts = settled(DescriptionSemanticsStudy, given.set), Descriptions.read(given.descriptions)
    how = {"store": seewhy.FeatureStore(), "progress": seewhy.Bars()}
    found = study.run(seewhy.encoder(given.encoder), texts, seewhy.load_samples(given.data), given.folder, **how)
    return ended(found, given.out)


if __name__ == "__main__":
    main()
