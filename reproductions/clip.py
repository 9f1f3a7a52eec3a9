"""CLIP: are class names worth as much as labels, because captions fit, and does it need a softmax?

    python reproductions/clip.py --n-planted 600 --steps 40     # seconds, and no pictures needed
    python reproductions/clip.py --pairs flickr8k/train.jsonl --test flickr8k/dev.jsonl --store seen.sqlite \\
        --labelled "fashion sub-categories=fashion/train.csv,fashion/test.csv,subCategory" --out clip.json

Radford et al. 2021 (arXiv 2103.00020), and the sigmoid loss of Zhai et al. 2023 (arXiv 2303.15343). Both encoders are
frozen and encode everything once; a linear layer behind each is trained on the captions. --labelled, which may be
repeated, names what is classified by class names alone: two folders of classes, or two tables and the column of
classes. Takes about ten minutes on one busy core once everything is in the store.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise, product
from typing import Any

import numpy as np
import torch
from captioned import (
    BATCH,
    RATE,
    WIDTH,
    Captioned,
    Kept,
    Material,
    Space,
    deranged,
    found_by_caption,
    learn,
    material,
    options,
    over_seeds,
    picture_vectors,
    recipe,
    sentence_vectors,
)
from claims import JUDGED, Claim, Interval, Report, command, deliver, judged, lead, machine, mean_of, parser, verdict
from torch import Tensor
from torch.nn.functional import normalize

import seewhy
from seewhy.classifiers.linear.solvers import fit_linear
from seewhy.encoders.stream import encode_texts
from seewhy.learning.objectives.contrastive import Contrastive
from seewhy.learning.objectives.pairs import CLIP, SigLIP

LABELS = (1, 2, 4, 8, 16)
"""Per class, that a probe is given."""
EQUAL = 4
"""Labels per class that names alone are worth: section 3.1.5 and figure 6."""
DRAWS = 5
GRID = (1.0, 10.0, 100.0)
"""C of the probe, in units of the features' mean square; chosen on training pictures that the first draw left."""
SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Of captions that have changed their pictures."""
RATES = (5e-4, 1.5e-3, 5e-3, 1.5e-2)
"""Of learning, for the two losses; chosen on the choosing half with the first seed."""
BATCHES = ((BATCH, 1), (64, 3))
"""Pictures a step, and steps as a multiple of --steps."""


@dataclass(frozen=True)
class Labelled:
    """A set of classes: features and classes of training and test pictures, and what the words say of the names."""

    names: tuple[str, ...]
    train: Tensor
    y_train: Tensor
    test: Tensor
    y_test: Tensor
    sentences: Tensor
    own: Tensor


def labelled(stuff: Material, source: str) -> tuple[str, Labelled]:
    """What ``NAME=TRAIN,TEST[,COLUMN]`` names; classes with fewer than eight training pictures, or untested, go."""
    assert stuff.encoder is not None
    name, _, rest = source.partition("=")
    first, second, *column = rest.split(",")
    sets = [seewhy.load_samples(path, label=column[0] if column else "label") for path in (first, second)]
    counts, tested = Counter(s.label for s in sets[0].items), {s.label for s in sets[1].items}
    names = tuple(sorted(c for c, n in counts.items() if n >= 8 and c in tested))
    parts = [[s for s in one.items if s.label in names] for one in sets]
    vectors = [picture_vectors(stuff.encoder, [s.source for s in part], stuff.store) for part in parts]
    ys = [torch.tensor([names.index(s.label) for s in part]) for part in parts]
    said = [c.replace("-", " ").replace("_", " ") for c in names]
    own = encode_texts(stuff.encoder, said, stuff.store)
    return name, Labelled(
        names, vectors[0], ys[0], vectors[1], ys[1], sentence_vectors(stuff.encoder, said, stuff.store), own
    )


def drawn_labels(y: Tensor, n: int, seed: int) -> Tensor:
    """Rows, so many of each class; all of a class that has fewer."""
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    return torch.cat([order[y[order] == k][:n] for k in y.unique()])


def probed(data: Labelled, n: int) -> list[float]:
    """Of each test picture, how often a probe with n labels per class is right, over the draws."""
    k = len(data.names)
    unit = 1.0 / float(data.train.square().sum(1).mean())
    first = drawn_labels(data.y_train, n, 0)
    left = torch.ones(len(data.y_train), dtype=torch.bool).index_fill(0, first, False)
    scored = []
    for c in GRID:
        fitted = fit_linear(data.train[first], data.y_train[first], k, c * unit, tol=1e-3)
        scored.append(float((fitted.logits(data.train[left]).argmax(1) == data.y_train[left]).float().mean()))
    best = GRID[int(np.argmax(scored))] * unit
    right = []
    for seed in range(DRAWS):
        rows = drawn_labels(data.y_train, n, seed)
        fitted = fit_linear(data.train[rows], data.y_train[rows], k, best, tol=1e-3)
        right.append((fitted.logits(data.test).argmax(1) == data.y_test).float().tolist())
    return over_seeds(right)


def by_names(space: Space | None, stuff: Material, data: Labelled) -> list[float]:
    """Of each test picture, whether its class's name is the nearest; without a space, by the encoder's own words."""
    if space is None:
        assert stuff.encoder is not None
        with torch.no_grad():
            pictures, texts = normalize(stuff.encoder.text.project(data.test), dim=1), data.own
    else:
        pictures, texts = space.pictures(data.test), space.texts(data.sentences)
    return ((pictures @ texts.T).argmax(1) == data.y_test).float().tolist()


def shuffled(data: Captioned, share: float, seed: int) -> Captioned:
    """A share of all captions have changed places."""
    rng = np.random.default_rng([seed, round(100 * share)])
    rows = np.concatenate([np.array(one) for one in data.said])
    places = iter(rows[deranged(len(rows), share, rng)].tolist())
    return data.saying([[next(places) for _ in one] for one in data.said])


def worth(labels: dict[int, Interval], values: dict[int, float], mine: float) -> str:
    """Between which numbers of labels a probe is as right as names."""
    below = [n for n in labels if values[n] <= mine]
    above = [n for n in labels if values[n] > mine]
    if not below:
        return f"fewer than {min(labels)}"
    return f"more than {max(labels)}" if not above else f"{max(below)} to {min(above)}"


def transfer_claims(right: dict[str, dict[str, list[float]]]) -> list[Claim]:
    """Names beside labels, on each set and by both kinds of words."""
    found = []
    for words in ("words from captions", "the encoder's own words"):
        for name, arms in right.items():
            labels = {n: lead(arms[words], arms[f"{n} labels"]) for n in LABELS if f"{n} labels" in arms}
            values = {n: float(np.mean(arms[f"{n} labels"])) for n in labels}
            mine = float(np.mean(arms[words]))
            found.append(
                Claim(
                    f"Names alone classify {name} as well as a probe on the same features does by {EQUAL} labels "
                    "of each",
                    f"names over {EQUAL} labels; {JUDGED}",
                    f"{labels[EQUAL]}; over 1 label {labels[1]}; accuracy by names {mine:.3f}, by the names of other "
                    f"classes {np.mean(arms[words + ', exchanged']):.3f}, by labels per class "
                    + ", ".join(f"{n}: {v:.3f}" for n, v in values.items())
                    + f"; names are worth {worth(labels, values, mine)} labels of each class",
                    judged(labels[EQUAL]), len(arms[words]), f"names and labels, {words}", interval=labels[EQUAL],
                )
            )  # fmt: skip
    return found


def corruption_claims(recalls: dict[float, list[float]], chance: float) -> list[Claim]:
    """What is learnt as captions change their pictures."""
    clean = recalls[0.0]
    drops = [lead(recalls[a], recalls[b]) for a, b in pairwise(SHARES)]
    last = mean_of(recalls[1.0])
    half = lead(recalls[0.4], [0.9 * v for v in clean])
    said = ", ".join(f"{share:.0%}: {mean_of(values)}" for share, values in recalls.items())
    n = len(clean)
    return [
        Claim("What is learnt comes from captions that fit: the more are shuffled, the less",
              "shown: R@5 falls from each share to the next with its whole interval, and chance lies in the interval "
              "where all are shuffled; partly: it falls at each by value",
              f"R@5, text to picture, by share of shuffled captions: {said}; chance {chance:.3f}",
              verdict(all(d.low > 0 for d in drops) and last.low <= chance <= last.high,
                      all(d.value > 0 for d in drops)), n, "shuffled captions"),
        Claim("Web captions may be wrong: with 40 % of them shuffled, nine tenths of R@5 are left",
              f"R@5 at 40 % less 0.9 times that at 0 %; {JUDGED}",
              f"{half}; R@5 {np.mean(recalls[0.4]):.3f} of {np.mean(clean):.3f}", judged(half), n, "shuffled captions"),
    ]  # fmt: skip


def loss_claims(arms: dict[str, list[float]], rates: dict[str, float], steps: int) -> list[Claim]:
    """Softmax and sigmoid."""
    found = []
    for batch, times in BATCHES:
        clip, siglip = arms[f"clip {batch}"], arms[f"siglip {batch}"]
        over = lead(siglip, clip)
        found.append(
            Claim(
                f"A sigmoid for each pair learns more than a softmax in batches of {batch}, at equal steps",
                f"SigLIP's R@5 over CLIP's; {JUDGED}",
                f"{over}; R@5 {np.mean(siglip):.3f} and {np.mean(clip):.3f} after {steps * times} steps, rates "
                f"{rates[f'siglip {batch}']:g} and {rates[f'clip {batch}']:g} chosen "
                f"of {RATES[0]:g} to {RATES[-1]:g}", judged(over), len(clip),
                "softmax or sigmoid",
            )
        )  # fmt: skip
    return found


def losses(stuff: Material, kept: Kept, args: argparse.Namespace) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Both losses at both sizes of batch, each at the rate that the choosing half takes."""
    arms, rates = {}, {}
    both: dict[str, Contrastive] = {"clip": CLIP(), "siglip": SigLIP()}
    for (name, objective), (batch, times) in product(both.items(), BATCHES):
        arm, train = f"{name} {batch}", partial(one_loss, stuff, objective, batch, args.steps * times)
        tried = [
            np.mean(kept.get(f"{arm} {lr:g} choosing", partial(train, stuff.choosing, lr, args.seed))) for lr in RATES
        ]
        rates[arm] = RATES[int(np.argmax(tried))]
        arms[arm] = over_seeds([
            kept.get(f"{arm} seed {seed}", partial(train, stuff.reported, rates[arm], seed))
            for seed in range(args.seed, args.seed + args.seeds)
        ])  # fmt: skip
    return arms, rates


def one_loss(
    stuff: Material, objective: Contrastive, batch: int, steps: int, test: Captioned, lr: float, seed: int
) -> list[float]:
    return found_by_caption(learn(stuff.train, objective, recipe(steps, seed, lr=lr, batch=batch)), test)


def corrupted(
    stuff: Material, sets: dict[str, Labelled], steps: int, share: float, seed: int
) -> dict[str, list[float]]:
    """Recall after training on captions of which a share is shuffled; without, also what names alone get right."""
    space = learn(shuffled(stuff.train, share, seed), CLIP(), recipe(steps, seed))
    found = {"recall": found_by_caption(space, stuff.reported)}
    if share == 0:
        found |= {name: by_names(space, stuff, data) for name, data in sets.items()}
        found |= {f"{name}, exchanged": by_names(space, stuff, exchanged(data)) for name, data in sets.items()}
    return found


def answers(
    stuff: Material, kept: Kept, name: str, data: Labelled, runs: Sequence[dict[str, list[float]]]
) -> dict[str, list[float]]:
    """Of each test picture of a set, how often it is right: by names, by others' names, and by labels."""
    most = max(8, min(int((data.y_train == k).sum()) for k in range(len(data.names))))
    return {
        "words from captions": over_seeds([one[name] for one in runs]),
        "words from captions, exchanged": over_seeds([one[f"{name}, exchanged"] for one in runs]),
        "the encoder's own words": by_names(None, stuff, data),
        "the encoder's own words, exchanged": by_names(None, stuff, exchanged(data)),
    } | {f"{n} labels": kept.get(f"{name} {n} labels", partial(probed, data, n)) for n in LABELS if n <= most}


def exchanged(data: Labelled) -> Labelled:
    """Every class with the next one's name."""
    return replace(data, sentences=data.sentences.roll(1, 0), own=data.own.roll(1, 0))


def run(args: argparse.Namespace) -> Report:
    stuff = material(args)
    sets = dict(labelled(stuff, one) for one in args.labelled)
    kept = Kept(args.out, f"{len(stuff.train)} {args.steps}")
    done = {
        share: [
            kept.get(f"{share} {seed} {[*sets]}", partial(corrupted, stuff, sets, args.steps, share, seed))
            for seed in range(args.seed, args.seed + args.seeds)
        ]
        for share in SHARES
    }
    recalls = {share: over_seeds([one["recall"] for one in runs]) for share, runs in done.items()}
    arms, rates = losses(stuff, kept, args)
    right = {name: answers(stuff, kept, name, data, done[0.0]) for name, data in sets.items()}
    numbers: dict[str, Any] = {
        "R@5 by share of shuffled captions": {str(s): mean_of(v).rounded() for s, v in recalls.items()},
        "R@5 by share and seed": {
            str(s): [round(float(np.mean(one["recall"])), 4) for one in runs] for s, runs in done.items()
        },
        "R@5 by loss and batch": {name: mean_of(v).rounded() for name, v in arms.items()},
        "rates chosen": rates,
        "accuracy": {name: {arm: mean_of(v).rounded() for arm, v in one.items()} for name, one in right.items()},
    }
    about = "".join(f"; {name}: {len(d.names)} classes, {len(d.y_test)} test pictures" for name, d in sets.items())
    chance = 5 / len(stuff.reported)
    return Report(
        "clip", "Do names alone do what labels do, and does it come from captions that fit?",
        "Radford et al. 2021, arXiv:2103.00020; sigmoid loss of Zhai et al. 2023, arXiv:2303.15343",
        stuff.about() + about,
        f"{args.encoder}, frozen; a linear layer to {WIDTH} numbers behind each tower, {args.steps} steps of {BATCH} "
        f"pictures at a rate of {RATE:g}, {args.seeds} trainings",
        command("clip"), machine(), round(kept.seconds, 1), args.seed,
        (*transfer_claims(right), *corruption_claims(recalls, chance), *loss_claims(arms, rates, args.steps)),
        ("Two linear layers behind frozen towers on 6,000 pictures, not two networks on 400 million",
         "The picture tower was trained on ImageNet's labels, so its features are not from captions",
         "Names are given as they are, without a sentence around them or an ensemble of such",
         f"The probe's C is chosen on training pictures that its first draw left; {DRAWS} draws of labels",
         "Intervals resample test pictures, not trainings; what the towers saw was in the store, not in the time"),
        numbers,
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> Report:
    made = options(parser(__doc__ or "", "clip"))
    made.add_argument("--labelled", action="append", default=[], help="NAME=TRAIN,TEST[,COLUMN]; may be repeated")
    return deliver(made, run, arguments)


if __name__ == "__main__":
    main()
