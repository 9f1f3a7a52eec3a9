"""CLIP in medical imaging: do notes about X-rays teach a classifier, and do findings as soft targets help?

    python reproductions/clip_medical.py --n-planted 200 --steps 20     # seconds, and no pictures needed
    python reproductions/clip_medical.py --notes xray/xray.csv --store seen.sqlite --out clip_medical.json

CLIP with whole notes, ConVIRT (Zhang et al. 2020) with their sentences, MedCLIP (Wang et al. 2022) with findings as
soft targets, and pairs of prompts (Tiu et al. 2022). Both encoders are frozen and encode everything once; a linear
layer behind each is trained. --notes is a table with image, split (train or test, by patient), patient, finding, text
and source; pictures whose finding is "todo" are left out. The question is whether the finding is COVID-19. A probe on
all labels answers it, and so do the sentences of PromptPairs without any label. Intervals resample patients. Everything
is repeated without the pictures of each of the two sources that have the most training pictures.

Written before the run: a difference is shown if its whole interval lies above 0 and, where there is a control, so does
the difference from the control. It is not shown if the whole interval lies below 0, and too small to tell otherwise.
Takes minutes on one busy core.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
import torch
from captioned import RATE, WIDTH, Captioned, Kept, Space, deranged, learn, over_seeds, recipe, seen, sentence_vectors
from claims import JUDGED, Claim, Interval, Report, command, deliver, judged, lead, machine, mean_of, parser
from convirt import Reports, by_group, commonest, planted_reports, probed, space_of
from torch import Tensor
from torch.nn.functional import normalize

import seewhy
from seewhy.classifiers.prompt_pairs import Findings, PromptPairs
from seewhy.encoders.base import Encoder
from seewhy.encoders.stream import encode_texts
from seewhy.learning.objectives.contrastive import Contrastive
from seewhy.learning.objectives.pairs import CLIP, ConVIRT, MedCLIP
from seewhy.learning.pooled import spans
from seewhy.pictures.samples import Sample, gathered
from seewhy.storage.features import FeatureStore

ASKED = "COVID-19"
N_SOURCES = 2
START, UNTRAINED = "the start", "untrained layer"
OTHERS, SOFT_OTHERS = "clip, texts of others", "medclip, findings of others"
OBJECTIVES: dict[str, Contrastive] = {"clip": CLIP(), "convirt": ConVIRT(), "medclip": MedCLIP()}
BOTH = (
    "shown: above 0 with its whole interval, and so above the control; not shown: below 0 with its whole interval; "
    "too small to tell: else"
)


@dataclass(frozen=True)
class Notes:
    """Pictures with notes, and what is asked of them.

    Attributes:
        whole: with each note as it is.
        sentences: of each training picture, the rows of its note's sentences.
        findings: of the training pictures; 1 named, -1 not.
        sources: of training and of test pictures.
        present: sentence vectors that say it is there.
        absent: that say it is not.
        own: what the encoder's own words give on test pictures: the margin of the pair, and the cosine with the name.
    """

    whole: Reports
    sentences: tuple[tuple[int, ...], ...]
    findings: Tensor
    sources: tuple[tuple[str, ...], tuple[str, ...]]
    present: Tensor
    absent: Tensor
    own: dict[str, Tensor]

    def without(self, source: str) -> Notes:
        """Without the pictures of one source, on both sides."""
        train, test = ([i for i, s in enumerate(side) if s != source] for side in self.sources)
        w = self.whole
        cut = Reports(
            w.names, w.train.cut(train), w.test.cut(test), w.y_train[train], w.y_test[test],
            tuple(w.groups[i] for i in test),
        )  # fmt: skip
        left = tuple(self.sources[0][i] for i in train), tuple(self.sources[1][i] for i in test)
        kept = tuple(self.sentences[i] for i in train)
        own = {n: v[test] for n, v in self.own.items()}
        return replace(self, whole=cut, sentences=kept, findings=self.findings[train], sources=left, own=own)


def named(finding: str) -> set[str]:
    """What a finding names."""
    return {one.strip() for one in finding.split(",")} - {"No Finding", ""}


def host(source: str) -> str:
    """Where a picture is from: a site, or some journal."""
    return urlparse(source).netloc.removeprefix("www.") or "a journal"


def notes(encoder: Encoder, store: FeatureStore | None, path: Path) -> Notes:
    """What the table has."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["finding"] != "todo" and r["text"].strip()]
    sides = [[r for r in rows if r["split"] == split] for split in ("train", "test")]
    both = {r["patient"] for r in sides[0]} & {r["patient"] for r in sides[1]}
    if both:
        raise SystemExit(
            f"{len(both)} patients are in train and test. Expected each patient on one side. Split by patient."
        )
    files = [[str(path.parent / r["image"]) for r in side] for side in sides]
    train, test = (
        seen(encoder, gathered([Sample(f, texts=(r["text"],)) for f, r in zip(fs, side, strict=True)]), store)
        for fs, side in zip(files, sides, strict=True)
    )
    parts = [spans((r["text"],), "sentence") for r in sides[0]]
    ends = np.cumsum([len(train.sentences), *(len(one) for one in parts)]).tolist()
    vectors = torch.cat([train.sentences, sentence_vectors(encoder, [t for one in parts for t in one], store)])
    names = sorted(set().union(*(named(r["finding"]) for r in sides[0])))
    found = torch.tensor([[1 if n in named(r["finding"]) else -1 for n in names] for r in sides[0]])
    ys = [torch.tensor([int(ASKED in named(r["finding"])) for r in side]) for side in sides]
    whole = Reports(
        ("other", ASKED), Captioned(train.pooled, vectors, train.said), test, ys[0], ys[1],
        tuple(r["patient"] for r in sides[1]),
    )  # fmt: skip
    pair = PromptPairs()
    present, absent = (
        sentence_vectors(encoder, [t.replace("{}", ASKED) for t in said], store) for said in (pair.present, pair.absent)
    )
    margins = [
        one.found[0].margin for one in pair(encoder, files[1], [ASKED], store=store) if isinstance(one, Findings)
    ]
    with torch.no_grad():
        pictures = normalize(encoder.text.project(test.pooled), dim=1)
    name = pictures @ encode_texts(encoder, [ASKED], store)[0]
    sources = tuple(tuple(host(r["source"]) for r in side) for side in sides)
    rows_of = tuple(tuple(range(a, b)) for a, b in pairwise(ends))
    own = {"pairs": torch.tensor(margins), "name": name}
    return Notes(whole, rows_of, found, (sources[0], sources[1]), present, absent, own)


def planted_notes(n: int) -> Notes:
    """Things without a picture; asked is on which side their first number lies."""
    whole = planted_reports(n)
    draw = torch.Generator().manual_seed(7)
    _, ways = (torch.randn(8, width, generator=draw) for width in (32, 16))  # as in planted
    there = normalize(ways[:1], dim=1)
    found = torch.stack([2 * whole.y_train - 1, 1 - 2 * whole.y_train], 1)
    sources = tuple("ab"[i % 2] for i in range(n)), tuple("ab"[i % 2] for i in range(len(whole.test)))
    own = {kind: torch.zeros(len(whole.test)) for kind in ("pairs", "name")}
    return Notes(whole, whole.train.said, found, sources, there, -there, own)


def ranked(scores: Tensor, y: Tensor, groups: Sequence[str]) -> list[float]:
    """Of each picture, the share of the other kind, of other groups, that it is on the right side of; 0.5 by chance."""
    found = []
    for i, score in enumerate(scores):
        rival = torch.tensor([bool(y[j] != y[i]) and groups[j] != groups[i] for j in range(len(y))])
        beside = (score - scores[rival]) * (1 if y[i] else -1)
        found.append(float(((beside > 0).float() + 0.5 * (beside == 0).float()).mean()))
    return found


def margins(space: Space, data: Notes) -> dict[str, Tensor]:
    """Of each test picture, by the pair and by the name alone; PromptPairs' equation in a space of one's own."""
    pictures = space.pictures(data.whole.test.pooled)
    present, absent = (normalize(space.texts(t).mean(0), dim=0) for t in (data.present, data.absent))
    return {"pairs": pictures @ (present - absent), "name": pictures @ present}


def space_by(data: Notes, arm: str, steps: int, seed: int) -> Space:
    """Trained on the notes as the arm says, or not at all."""
    if arm == UNTRAINED:
        return space_of(data.whole, "untrained", steps, seed)
    train, name, labels = data.whole.train, arm.partition(",")[0], data.findings
    places = deranged(len(train), 1.0, np.random.default_rng(seed)).tolist()
    if arm == OTHERS:
        train = train.saying([train.said[i] for i in places])
    if arm == SOFT_OTHERS:
        labels = labels[places]
    objective = OBJECTIVES[name]
    if isinstance(objective, ConVIRT):
        train = train.saying(data.sentences)
    how = recipe(steps, seed, batch=min(256, len(train) // 2))
    return learn(train, objective, how, labels if isinstance(objective, MedCLIP) else None)


def judged_of(data: Notes, arm: str, steps: int, seed: int) -> dict[str, list[float]]:
    """Of each test picture, whether the probe is right and how the prompts rank it."""
    w = data.whole
    if arm == START:
        x, test, scores = w.train.pooled, w.test.pooled, data.own
    else:
        space = space_by(data, arm, steps, seed)
        x, test, scores = space.pictures(w.train.pooled), space.pictures(w.test.pooled), margins(space, data)
    return {"probe": probed(x, test, w, 1.0)} | {n: ranked(s, w.y_test, w.groups) for n, s in scores.items()}


def beside(over: Interval, control: Interval) -> Any:
    """By :data:`BOTH`."""
    said = judged(over)
    return said if said != "shown" or control.low > 0 else "too small to tell"


def set_claims(section: str, arms: dict[str, dict[str, list[float]]]) -> list[Claim]:
    """By the rules that stand beside them; numbers are of patients."""
    n, found = len(arms[START]["probe"]), []
    for name in OBJECTIVES:
        over, control = (lead(arms[name]["probe"], arms[other]["probe"]) for other in (START, OTHERS))
        found.append(
            Claim(f"A probe is better after {name} on notes than on the features it started from",
                  f"accuracy {name} less start; control: {OTHERS}; {BOTH}",
                  f"{over}; accuracies {np.mean(arms[name]['probe']):.3f} and {np.mean(arms[START]['probe']):.3f}; "
                  f"over the control {control}; untrained layer {np.mean(arms[UNTRAINED]['probe']):.3f}",
                  beside(over, control), n, section)
        )  # fmt: skip
    for name in OBJECTIVES:
        pairs = arms[name]["pairs"]
        over, control = lead(pairs, [0.5] * n), lead(pairs, arms[OTHERS]["pairs"])
        found.append(
            Claim(f"After {name} on notes, a pair of prompts ranks pictures without a label",
                  f"part of the other kind that a picture is on the right side of, less 0.5; control: {OTHERS}; {BOTH}",
                  f"{over}; {np.mean(pairs):.3f}, by the name alone {np.mean(arms[name]['name']):.3f}, by the "
                  f"encoder's own words {np.mean(arms[START]['pairs']):.3f}; over the control {control}",
                  beside(over, control), n, section, interval=over)
        )  # fmt: skip
    for what, words in {"probe": "by a probe", "pairs": "by a pair of prompts"}.items():
        control = lead(arms["medclip"][what], arms[SOFT_OTHERS][what])
        for rival in ("clip", "convirt"):
            over = lead(arms["medclip"][what], arms[rival][what])
            found.append(
                Claim(f"Findings as soft targets do better than {rival}, {words}",
                      f"medclip less {rival}; control: {SOFT_OTHERS}; {BOTH}", f"{over}; over the control {control}",
                      beside(over, control), n, section)
            )  # fmt: skip
    over = lead(arms["clip"]["pairs"], arms["clip"]["name"])
    found.append(
        Claim("A pair of prompts ranks better than the name alone", f"clip, pair less name; {JUDGED}", str(over),
              judged(over), n, section)
    )  # fmt: skip
    return found


def sets_of(data: Notes) -> dict[str, Notes]:
    """All pictures, and those without each of the sources with most training pictures."""
    most = [source for source, _ in Counter(data.sources[0]).most_common(N_SOURCES)]
    return {"all": data} | {f"without {source}": data.without(source) for source in most}


def about(name: str, data: Notes) -> str:
    """The pictures of a set."""
    w = data.whole
    return (
        f"{name}: {len(w.train)} training pictures ({int(w.y_train.sum())} with what is asked) and {len(w.test)} test "
        f"pictures ({int(w.y_test.sum())}) of {len(set(w.groups))} patients, always the commonest {commonest(w):.3f}"
    )


def run(args: Any) -> Report:
    data = (
        notes(seewhy.encoder(args.encoder), FeatureStore(args.store), args.notes)
        if args.notes
        else planted_notes(args.n_planted)
    )
    kept, claims, numbers = Kept(args.out, str(args.steps)), [], {}
    sets = sets_of(data)
    for name, part in sets.items():
        arms = {}
        for arm in (START, *OBJECTIVES, OTHERS, SOFT_OTHERS, UNTRAINED):
            seeds = range(args.seed, args.seed + (1 if arm == START else args.seeds))
            runs = [kept.get(f"{name} {arm} {s}", partial(judged_of, part, arm, args.steps, s)) for s in seeds]
            arms[arm] = {w: by_group(over_seeds([one[w] for one in runs]), part.whole.groups) for w in runs[0]}
        claims += set_claims(name, arms)
        numbers[name] = {a: {w: mean_of(v).rounded() for w, v in one.items()} for a, one in arms.items()}
    return Report(
        "clip_medical", "Do notes about X-rays teach to tell a finding, and do findings as soft targets help?",
        "Radford et al. 2021, arXiv:2103.00020; Zhang et al. 2020, arXiv:2010.00747; Wang et al. 2022, "
        "arXiv:2210.10163; Tiu et al. 2022, doi:10.1038/s41551-022-00936-9",
        "X-rays, is it COVID-19; " * bool(args.notes) + "; ".join(about(*one) for one in sets.items()),
        f"{args.encoder}, frozen; a linear layer to {WIDTH} numbers behind each tower, {args.steps} steps at a rate of "
        f"{RATE:g}, {args.seeds} trainings",
        command("clip_medical"), machine(), round(kept.seconds, 1), args.seed, tuple(claims),
        ("Linear layers behind frozen towers on some hundred pictures, not networks on hundreds of thousands",
         "Neither tower was trained on medicine: the pictures' on ImageNet, the sentences' on common texts",
         "MedCLIP's findings are the table's column, which the labels of the test are made of too; what a finding does "
         "not name counts as absent; clip and convirt see no finding, but notes may name it",
         "Pictures of one patient have one note, which is a wrong answer for the others of the patient",
         "The probe's C is chosen on training pictures of the same patients; steps and rate are not chosen here",
         "Where the start is as right as always the commonest class, its probe calls all pictures alike, and a lead "
         "over it is one over no answer: seen after the run, the rule left as it was",
         "GLoRIA's local part is not in it",
         "What a control learnt points anywhere, so that its prompts may rank far from 0.5 on either side",
         f"{len(claims)} differences are judged, of which one in forty lies above 0 with its interval by chance alone",
         "Intervals resample patients on the test side, not trainings"),
        numbers,
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> Report:
    made = parser(__doc__ or "", "clip_medical")
    made.add_argument("--notes", type=Path, help="the table; left out: planted vectors")
    made.add_argument("--encoder", default="lite0", help="with words; frozen")
    made.add_argument("--store", type=Path, help="where what it saw is kept")
    made.add_argument("--steps", type=int, default=132, help="batches of 256 pictures, or of half of them")
    made.add_argument("--seeds", type=int, default=3, help="trainings of each arm")
    made.add_argument("--n-planted", type=int, default=200, help="planted things, where no notes are given")
    return deliver(made, run, arguments)


if __name__ == "__main__":
    main()
