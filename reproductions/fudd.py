"""FuDD: do captions that part the classes in question help, and is it because they part those?

    python reproductions/fudd.py --out fudd.json                                                 # seconds
    python reproductions/fudd.py --pictures GROCERY/test --descriptions classes.json --out fudd.json
    python reproductions/fudd.py --pictures P --descriptions D --encoder open_clip:ViT-B-32/openai

Esfandiarpoor & Bach 2023 (arXiv 2311.07593). In the drawn world pairs follow exactly from the attributes. For PICTURES,
class folders, a pair is made of the texts that one class has in DESCRIPTIONS and the other has not: no language model.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from attribute_world import World
from claims import Claim, Report, command, lead, machine, mean_of, parser, verdict
from torch import Tensor

from seewhy.classifiers.base import Classifier
from seewhy.classifiers.follow_up import FollowUp
from seewhy.data import load_samples
from seewhy.descriptions import Descriptions
from seewhy.descriptions.base import describe
from seewhy.descriptions.class_questions import Difference, Pair
from seewhy.descriptions.controls import own_noise
from seewhy.encoders.base import Encoder
from seewhy.encoders.find import encoder as find
from seewhy.features import Seen, see
from seewhy.store import FeatureStore

KS = (2, 3, 5, 10)
DRAWN_K = 3
"""Classes in question in the drawn world, where with more of them a class's four captions are all used anyway."""


@dataclass(frozen=True)
class Pairs:
    """What parts classes, and the control that does not.

    Attributes:
        differ: the captions of FuDD.
        control: draw → captions of the same classes that were not written to part the two.
        k: classes in question.
    """

    differ: list[Pair]
    control: Callable[[int], list[Pair]]
    n_draws: int
    k: int


def pairs_of(descriptions: Descriptions) -> list[Pair]:
    """For each two classes what only one of them is said to be, said with its name."""
    found, names = [], list(descriptions.texts)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            mine, theirs = descriptions.texts[a], descriptions.texts[b]
            first, second = [t for t in mine if t not in theirs], [t for t in theirs if t not in mine]
            n = max(len(first), len(second)) if first and second else 0
            said = [(first[j % len(first)], second[j % len(second)]) for j in range(n)]
            if said:
                found.append(Pair((a, b), tuple(Difference("", describe(a, s), describe(b, t)) for s, t in said)))
    return found


def other_rivals(pairs: Sequence[Pair], seed: int) -> list[Pair]:
    """Each pair's captions exchanged for as many that the same class has and that were not written for this pair.

    Where a class has no others, or too few, the rest are left as they were: classes with few texts have no choice.
    """
    rng = random.Random(seed)
    every: dict[str, set[str]] = {}
    for p in pairs:
        for label in p.classes:
            every.setdefault(label, set()).update(p.captions(label))

    def drawn(label: str, p: Pair) -> list[str]:
        others = sorted(every[label] - set(p.captions(label)))
        rng.shuffle(others)
        own = list(p.captions(label))
        return (others + own)[: len(own)]

    return [replaced(p, drawn(p.classes[0], p), drawn(p.classes[1], p)) for p in pairs]


def noisy(pairs: Sequence[Pair], seed: int) -> list[Pair]:
    """As many meaningless captions, with the class's name."""
    counts: dict[str, int] = {}
    for p in pairs:
        for label in p.classes:
            counts[label] = max(counts.get(label, 0), len(p.captions(label)))
    noise = own_noise(
        Descriptions({label: tuple(f"{label} {i}" for i in range(n)) for label, n in counts.items()}), seed
    )
    made = []
    for p in pairs:
        a, b = ([describe(c, t) for t in noise.texts[c][: len(p.captions(c))]] for c in p.classes)
        made.append(replaced(p, a, b))
    return made


def replaced(pair: Pair, first: Sequence[str], second: Sequence[str]) -> Pair:
    n = max(len(first), len(second))
    return replace(
        pair, differences=tuple(Difference("", first[i % len(first)], second[i % len(second)]) for i in range(n))
    )


def measured(
    encoder: Encoder, names: Sequence[str], pairs: Pairs, pictures: Path, args: Any, store: FeatureStore | None
) -> dict[str, Any]:
    """Who is right on which picture, arm by arm."""
    samples = load_samples(pictures)
    items = [s for s in samples.items if s.label in names]
    seen = [s for s in see(encoder, [s.image for s in items], store=store) if isinstance(s, Seen)]
    pooled = torch.cat([s.pooled[:1] for s in seen])
    at = {n: i for i, n in enumerate(names)}
    label_of = {s.image: at[s.label] for s in items}
    labels = torch.tensor([label_of[s.name] for s in seen])

    def right(made: Classifier) -> Tensor:
        return (made.head.probabilities(pooled).argmax(1) == labels).double()

    def built(given: list[Pair], k: int = pairs.k) -> Classifier:
        return FollowUp(k=k).build(encoder, list(names), given, store)

    def drawn(make: Callable[[int], list[Pair]], n: int) -> Tensor:
        return torch.stack([right(built(make(args.seed + i))) for i in range(n)]).mean(0)

    plain = built([])
    scores = plain.head.feature(pooled) @ plain.head.weight.T
    hits = {
        "template": right(plain),
        "FuDD": right(built(pairs.differ)),
        "control": drawn(pairs.control, pairs.n_draws),
        "noise captions": drawn(lambda seed: noisy(pairs.differ, seed), args.n_noise),
        "in question": (scores.topk(min(pairs.k, len(names)), dim=1).indices == labels[:, None]).any(1).double(),
        **{f"FuDD, k = {k}": right(built(pairs.differ, k)) for k in KS if k <= len(names)},
    }
    return {name: found.tolist() for name, found in hits.items()}


def claims(where: str, hits: dict[str, Any], k: int) -> list[Claim]:
    gain, other, noise = (lead(hits["FuDD"], hits[name]) for name in ("template", "control", "noise captions"))
    turned = [b - a for a, b in zip(hits["template"], hits["FuDD"], strict=True)]
    n, rule = len(turned), "the difference of the same pictures lies above 0 with its interval"
    which = "captions on what the two classes share" if where == "drawn world" else "captions against other rivals"
    return [
        Claim(
            "Follow-up captions are right more often than one template",
            rule,
            f"{mean_of(hits['FuDD'])} against {mean_of(hits['template'])}, difference {gain}; {turned.count(1.0)} "
            f"mended, {turned.count(-1.0)} broken; in question (k = {k}) {mean_of(hits['in question'])}",
            verdict(gain.above),
            n,
            where,
        ),
        Claim(
            "because they part the classes in question: captions of the same class that do not part them do less",
            rule,
            f"{which} {mean_of(hits['control'])}, FuDD less these {other}",
            verdict(other.above),
            n,
            where,
        ),
        Claim(
            "and because of what they say: as many noise captions with the name do less",
            rule,
            f"noise {mean_of(hits['noise captions'])}, FuDD less these {noise}",
            verdict(noise.above),
            n,
            where,
        ),
    ]


def main(given: Sequence[str] | None = None) -> Report:
    made = parser(__doc__, "fudd")
    made.add_argument("--n", type=int, default=30, help="drawn pictures a class")
    made.add_argument("--n-noise", type=int, default=7, help="draws of every control")
    made.add_argument("--k", type=int, default=10, help="classes in question, of the photographs")
    made.add_argument("--pictures", type=Path, help="class folders")
    made.add_argument("--descriptions", type=Path, help="of these classes")
    made.add_argument("--encoder", default="lite0", help="for the photographs")
    args = made.parse_args(given)
    begun = time.perf_counter()
    found = {}
    with tempfile.TemporaryDirectory() as temporary:
        world = World(args.seed)
        drawn = world.draw(Path(temporary) / "drawn", args.n)
        exact = Pairs(world.pairs(), lambda _: world.pairs(shared=True), 1, DRAWN_K)
        found["drawn world"] = measured(world.encoder(), list(world.kinds), exact, drawn, args, None)
        if args.pictures is not None and args.descriptions is not None:
            store = FeatureStore(args.out.with_suffix(".sqlite") if args.out else Path(temporary) / "texts.sqlite")
            words = Descriptions.read(args.descriptions)
            written = pairs_of(words)
            told = Pairs(written, lambda seed: other_rivals(written, seed), args.n_noise, args.k)
            found["photographs"] = measured(find(args.encoder), list(words.texts), told, args.pictures, args, store)
    ks = {"drawn world": DRAWN_K, "photographs": args.k}
    pictures = f"a drawn world: 12 classes, {args.n} pictures each"
    pictures += "" if args.pictures is None else f"; {'/'.join(args.pictures.parts[-2:])} with people's descriptions"
    done = Report(
        name="fudd",
        title="Do follow-up captions help, and because they part the classes in question?",
        paper="Esfandiarpoor & Bach 2023, arXiv:2311.07593",
        data=pictures,
        model="an encoder that reads the drawn world" + ("" if args.pictures is None else f"; {args.encoder}"),
        command=command("fudd", given),
        machine=machine(),
        seconds=round(time.perf_counter() - begun),
        seed=args.seed,
        claims=tuple(c for where, hits in found.items() for c in claims(where, hits, ks[where])),
        differences=(
            "CLIP's weights were not at hand; the command with --encoder open_clip:ViT-B-32/openai runs the paper's.",
            "No language model: pairs of the drawn world follow from its attributes, those of photographs from what "
            "people wrote of one class and not of the other, which they did not write to part them.",
        ),
        numbers={where: {n: mean_of(v).rounded() for n, v in hits.items()} for where, hits in found.items()},
    )
    done.show()
    if args.out is not None:
        done.write(args.out)
    return done


if __name__ == "__main__":
    main()
