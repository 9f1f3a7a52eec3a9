"""What a training of an encoder gained and forgot on held-out pictures, and the files beside its page."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import singledispatch
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from ..classifiers.linear.solvers import fit_logistic
from ..encoders.base import Encoder
from ..encoders.names import filled, names_of, own_sentences
from ..errors import DataError
from ..learning.adapt import Adapted, agrees
from ..learning.contrast import DEPTHS, Ranks, ranks
from ..learning.encoders.adapted import DIGITS
from ..learning.encoders.paired_heads import PairedHeads, place
from ..learning.from_columns import Judged, Taught
from ..learning.pooled import PooledPairs, encode_pairs, encode_pictures, joint_vectors
from ..learning.pretrain import PooledSet, Pretrained
from ..learning.way import AGREES, AGREES_AS_NEW, Finished
from ..pictures.samples import Sample, Samples, split
from ..progress import Progress
from ..storage.features import FeatureStore
from ..training.loop import Trained
from .adaptation_page import AdaptationReport, adaptation_page, pretraining_page
from .bootstrap import accuracy_sums, calibration_sums, gap, groups_of, measure_row
from .study import beside

N_EXAMPLES = 12


@dataclass(frozen=True, eq=False)
class _Measured:
    """What one encoder gives: measure → each picture's hits and tries ``(p, 2)``."""

    hits: dict[str, Float[Tensor, "p 2"]]
    found: Ranks
    image: Float[Tensor, "p d"]
    text: Float[Tensor, "n d"]
    seen: PooledPairs
    named: Float[Tensor, "p 2"] | None = None


def measure_retrieval(
    encoder: Encoder,
    pairs: Samples,
    *,
    before: Encoder | None = None,
    also: Mapping[str, Samples] | None = None,
    trained_on: Collection[str] = (),
    store: FeatureStore | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> AdaptationReport:
    """R@1, R@5 and R@10 both ways, classes by name, and the same before.

    Intervals come from resampling pictures, the same ones before and after; with groups, whole groups. A difference is
    real where its interval leaves out 0.

    Args:
        encoder: with words.
        pairs: pictures with texts; where they have labels, they are also told by name.
        before: what it is compared with; left out, the encoder that it was adapted from, if any.
        also: labelled pictures of other things, by a name for each set: are they still told by name?
        trained_on: digests, to tell pictures that the encoder knows.
        store: where looks are kept.
        seed: of the resampling.
        progress: callback for progress and failures.

    Raises:
        DataError: no picture can be read.
        ModelError: the encoder has no text half.
    """
    progress = progress or Progress()
    before = encoder.base if before is None else before
    encoders = [e for e in (before, encoder) if e is not None]
    quiet = Progress()  # what cannot be read is said once
    told = [_measure(e, encoders[0], pairs.items, store, p) for e, p in zip(encoders, (progress, quiet), strict=False)]
    seen = told[-1].seen
    _say_known(seen, set(trained_on), progress)
    groups = groups_of(seen.items)
    rows = [measure_row(name, [t.hits[name] for t in told], groups, seed) for name in told[-1].hits]
    if told[-1].named is not None:
        rows += _named_rows("these classes by name", [t.named for t in told if t.named is not None], groups, seed)
    for name, samples in (also or {}).items():
        each = zip(encoders, (progress, quiet), strict=False)
        others = [_by_name(e, encode_pairs(e, _silent(samples), store, p)) for e, p in each]
        rows += _named_rows(f"{name} by name", others, None, seed)
    data = {
        "encoder": encoder.describe(),
        "before": None if before is None else before.describe(),
        "n_pictures": len(seen),
        "n_texts": len(seen.pairs),
        "measures": rows,
        "examples": _pair_examples(told, seed),
        "notes": [*pairs.notes, *progress.notes],
        "failures": [f.to_json() for f in {f.image: f for f in progress.failures}.values()],
    }
    return AdaptationReport(data, adaptation_page)


def _measure(
    encoder: Encoder, first: Encoder, items: Sequence[Sample], store: FeatureStore | None, progress: Progress
) -> _Measured:
    seen = encode_pairs(encoder, items, store, progress)
    if len(seen) < 2:
        raise DataError(
            f"One picture can be read, {seen.items[0].image}. Two or more were expected, as they are told from one "
            "another. Give more pairs."
        )
    image, text = joint_vectors(encoder, seen)
    found = ranks(image, text, seen.owner)
    hits: dict[str, Tensor] = {}
    told: Float[Tensor, "p 2"] | None = None
    one, count = torch.ones(len(seen)), torch.bincount(seen.owner, minlength=len(seen)).float()
    for depth in DEPTHS:
        hits[f"picture to text R@{depth}"] = torch.stack([(found.image_to_text < depth).float(), one], 1)
    for depth in DEPTHS:
        own = torch.zeros(len(seen)).index_add_(0, seen.owner, (found.text_to_image < depth).float())
        hits[f"text to picture R@{depth}"] = torch.stack([own, count], 1)
    if all(item.label for item in seen.items) and len({item.label for item in seen.items}) > 1:
        told = _by_name(encoder, seen)
    if first.classifier is not None and len(first.classes) == first.classifier.out_features:
        own_class = first.classifier(encode_pairs(first, seen.items, store, Progress()).pooled).argmax(1)
        names = place(encoder.text, own_sentences(encoder.text, names_of(first)))
        named = (image @ names.T).argmax(1) == own_class
        hits[AGREES] = torch.stack([named.float(), one], 1)
    return _Measured(hits, found, image, text, seen, told)


def _say_known(seen: PooledPairs, trained_on: Collection[str], progress: Progress) -> None:
    """A note of pictures that the encoder was trained on."""
    known = [item.image for item, d in zip(seen.items, seen.digests, strict=True) if d[:DIGITS] in trained_on]
    if known:
        progress.note(f"{len(known)} picture(s) are among those it was trained on, which flatters it: {known[0]}, …")


def _silent(samples: Samples) -> list[Sample]:
    """Labelled pictures as pairs with their class's name."""
    return [Sample(s.image, s.label, (s.label.replace("_", " "),), s.group, s.pixels) for s in samples.items]


def _named_rows(
    name: str, named: Sequence[Float[Tensor, "n 2"]], groups: Tensor | None, seed: int
) -> list[dict[str, Any]]:
    """How often the nearest name is the right one, and how well its probability says so."""
    right = [accuracy_sums(one[:, 0] > 0) for one in named]
    gaps = [calibration_sums(one[:, 1], one[:, 0] > 0) for one in named]
    return [
        measure_row(name, right, groups, seed),
        measure_row(f"calibration error, {name}", gaps, groups, seed, gap),
    ]


def _by_name(encoder: Encoder, seen: PooledPairs) -> Float[Tensor, "n 2"]:
    """Whether each picture is nearest to its own class's name, in every template; and the name's probability."""
    classes = sorted({item.label for item in seen.items})
    image, _ = joint_vectors(encoder, seen)
    said = [[filled(t, c.replace("_", " ")) for t in encoder.text.templates] for c in classes]
    text = encoder.encode_text([one for several in said for one in several]).unflatten(0, (len(classes), -1)).mean(1)
    text = normalize(text, dim=1)
    number = {name: i for i, name in enumerate(classes)}
    labels = torch.tensor([number[item.label] for item in seen.items])
    confidence, nearest = (encoder.text.logit_scale * image @ text.T).softmax(1).max(1)
    return torch.stack([(nearest == labels).float(), confidence], 1)


def _pair_examples(told: Sequence[_Measured], seed: int) -> list[dict[str, Any]]:
    """Texts, drawn at random, each with the three pictures nearest to it, before and after."""
    last = told[-1]
    drawn = torch.randperm(len(last.seen.pairs), generator=torch.Generator().manual_seed(seed))[:N_EXAMPLES].tolist()
    found = []
    for pair in drawn:
        own, text = last.seen.pairs[pair].tolist()
        one: dict[str, Any] = {"text": last.seen.texts[text], "picture": last.seen.items[own].image}
        for when, m in zip(("before", "after")[-len(told) :], told, strict=True):
            near = (m.image @ m.text[pair]).topk(min(3, len(m.image))).indices.tolist()
            place = int(m.found.text_to_image[pair]) + 1
            one[when] = {"place": place, "nearest": [m.seen.items[i].image for i in near]}
        found.append(one)
    return found


K = 20
"""Neighbours that vote."""
TEMPERATURE = 0.07
"""Of their votes (Wu et al. 2018, arXiv 1805.01978)."""
CS = (0.01, 0.1, 1.0, 10.0)
"""Strengths of a probe, one of which is chosen on a part of the training pictures."""
MOST = 5000
"""Training pictures that neighbours and probes are taken from, at most."""


def run_report(
    done: Finished[Any, Any],
    name: str = "adapted",
    *,
    store: FeatureStore | None = None,
    notes: Sequence[str] = (),
    progress: Progress | None = None,
) -> AdaptationReport:
    """The page of a training that :func:`seewhy.adapt` or :func:`seewhy.pretrain` gave; ``save("run.html")`` writes it.

    Args:
        done: the training.
        name: of the adapted encoder.
        store: where looks are kept.
        notes: what was said meanwhile.
        progress: callback for progress.
    """
    report = measured(done, name, store, progress)
    report.data["run"] = {
        "provenance": dict(done.adaptation.provenance),
        "history": list(done.done.history),
        "seconds_per_step": round(done.done.seconds_per_step, 4),
        "tried": [asdict(kept) for kept in done.tried],
    }
    if isinstance(done, Adapted | Taught) and done.tried:
        report.data["run"]["tried_apart"] = done.chosen_on is not done.held
        report.data["run"]["tried_named"] = AGREES_AS_NEW if _guarded(done) else AGREES
    report.data["notes"] = [*notes]
    return report


@singledispatch
def measured(
    done: Finished[Any, Any], name: str, store: FeatureStore | None, progress: Progress | None
) -> AdaptationReport:
    """What a finished training gives on the pictures held out to measure on, and what was before."""
    raise TypeError(f"a training that ended as {type(done).__name__} has no page")


@measured.register
def _(done: Adapted, name: str, store: FeatureStore | None, progress: Progress | None) -> AdaptationReport:
    classes = tuple(sorted({item.label for item in done.held.items} - {""}))
    held = Samples(done.held.items, classes)
    after, before = done.adaptation.encoder(name), done.adaptation.base
    report = measure_retrieval(after, held, before=before, store=store, progress=progress)
    if _guarded(done):
        both = [found for keep in (0.0, done.adaptation.keep) if (found := _as_new(done, keep)) is not None]
        if both:
            report.data["measures"].append(measure_row(AGREES_AS_NEW, both, groups_of(done.held.items), 0))
    return report


def _guarded(done: Finished[Any, Any]) -> bool:
    """Whether own classes' names keep their place, so that they do not say what becomes of others."""
    return isinstance(done.adaptation.trained, PairedHeads) and done.adaptation.trained.heard is not None


def _as_new(done: Adapted, keep: float) -> Float[Tensor, "p 2"] | None:
    heads: Any = done.adaptation.trained
    found = agrees(heads, keep, done.adaptation.base, done.held.pooled)
    return None if found is None else accuracy_sums(found)


@measured.register
def _(done: Pretrained, name: str, store: FeatureStore | None, progress: Progress | None) -> AdaptationReport:
    return measure_pretraining(done, done.adaptation.encoder(name), store=store, progress=progress)


@measured.register
def _(done: Taught, name: str, store: FeatureStore | None, progress: Progress | None) -> AdaptationReport:
    rows = [
        measure_row(measure, (j.right(j.before), j.right(j.after)), groups_of(j.items), 0)
        for measure, j in done.judged.items()
    ]
    said = {measure: j for measure, j in done.judged.items() if measure != AGREES}
    n_texts = len({text for texts in done.held.said.values() for several in texts for text in several})
    data = {
        "encoder": done.adaptation.encoder(name).describe(),
        "before": done.adaptation.base.describe(),
        "n_pictures": len(done.held),
        "n_texts": n_texts,
        "measures": rows,
        "examples": [e for m, j in said.items() for e in _examples(m, j, max(2, N_EXAMPLES // len(said)))],
        "notes": [],
        "failures": [],
    }
    return AdaptationReport(data, adaptation_page)


def _examples(measure: str, judged: Judged, n: int) -> list[dict[str, Any]]:
    """Values, drawn at random, each with the three pictures nearest to it, before and after."""
    drawn = torch.randperm(len(judged.own), generator=torch.Generator().manual_seed(0)).tolist()
    found: dict[int, dict[str, Any]] = {}
    for row in drawn:
        value = int(judged.own[row])
        if value in found or len(found) == n:
            continue
        own = [judged.items[i].image for i in (judged.own == value).nonzero()[:, 0].tolist()]
        one: dict[str, Any] = {"text": judged.words[value], "measure": measure, "own": own}
        one["picture"] = judged.items[row].image
        for when, scores in (("before", judged.before), ("after", judged.after)):
            one[when] = _nearest(judged, scores[:, value], value)
        found[value] = one
    return list(found.values())


def _nearest(judged: Judged, scores: Float[Tensor, " m"], value: int) -> dict[str, Any]:
    """The three nearest pictures, and the place of the first that has the value; a tie counts against."""
    is_own = judged.own == value
    place = 1 + int((scores[~is_own] >= scores[is_own].max()).sum())
    near = scores.topk(min(3, len(scores))).indices.tolist()
    return {"place": place, "nearest": [judged.items[i].image for i in near]}


def files_of(done: Finished[Any, Any], report: AdaptationReport) -> dict[str, str]:
    """The page, its JSON, and the log of all steps as CSV."""
    document = json.dumps(report.data, indent=1, ensure_ascii=False)
    return {"run.html": report.to_html(), "run.json": document, "log.csv": log_of(done.done)}


def log_of(done: Trained) -> str:
    """Every step as CSV."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["step", *done.history[0]])
    rows.writerows([i, *step.values()] for i, step in enumerate(done.history, 1))
    return text.getvalue()


def title_of(provenance: Mapping[str, Any]) -> str:
    """What was trained, in a line."""
    learns = dict.fromkeys((provenance["objective"], provenance["train"]))
    return f"{', '.join(learns)}, {provenance['n_steps']} steps, keep {provenance['keep']:g}"


def measure_pretraining(
    done: Pretrained, encoder: Encoder, *, store: FeatureStore | None = None, progress: Progress | None = None
) -> AdaptationReport:
    """How often held-out pictures are told right, before and after, where all have classes.

    Neighbours and the probe are those of the pictures trained on. The strength of the probe is chosen on a part of
    those. Intervals come from resampling held-out pictures, the same ones before and after; with groups, whole groups.
    """
    progress = progress or Progress()
    rows: list[dict[str, Any]] = []
    own = done.train.only(range(0, len(done.train), -(-len(done.train) // MOST)))
    known = set(own.classes)
    held = done.held.only([i for i, item in enumerate(done.held.items) if item.label in known])
    if len(known) > 1 and len(held):
        seed = int(done.adaptation.provenance["seed"])
        both = ((own, held), _anew(encoder, own, held, store, progress))
        told = [_right(*seen, sorted(known), seed) for seen in both]
        groups = groups_of(held.items)
        rows = [measure_row(name, [one[name] for one in told], groups, 0) for name in told[0]]
    data = {
        "encoder": encoder.describe(),
        "before": done.adaptation.base.describe(),
        "n_pictures": len(done.train),
        "n_held_out": len(done.held),
        "classes": sorted(known),
        "measures": rows,
        **beside(progress),
    }
    return AdaptationReport(data, pretraining_page)


def _anew(
    encoder: Encoder, own: PooledSet, held: PooledSet, store: FeatureStore | None, progress: Progress
) -> tuple[PooledSet, PooledSet]:
    """The same pictures as the trained encoder sees them."""
    both = encode_pictures(encoder, [*own.items, *held.items], store, progress)
    return both.only(range(len(own))), both.only(range(len(own), len(both)))


def _right(own: PooledSet, held: PooledSet, classes: Sequence[str], seed: int) -> dict[str, Float[Tensor, "n 2"]]:
    """Measure → whether each held-out picture is told right, and 1."""
    number = {name: i for i, name in enumerate(classes)}
    y, true = (torch.tensor([number[item.label] for item in seen.items]) for seen in (own, held))
    inner = torch.tensor(split([item.label for item in own.items], own.digests, 0.2, seed))
    found = {
        f"class by {min(K, len(own))} neighbours": neighbours(own.pooled, y, held.pooled, len(classes)) == true,
        "class by a linear probe": probe(own.pooled, y, held.pooled, len(classes), inner) == true,
    }
    return {name: torch.stack([right.float(), torch.ones(len(held))], 1) for name, right in found.items()}


def neighbours(
    known: Float[Tensor, "n d"], labels: Int[Tensor, " n"], asked: Float[Tensor, "m d"], n_classes: int, k: int = K
) -> Int[Tensor, " m"]:
    """The class with the most weight among the nearest, by cosines.

    Example:
        >>> neighbours(torch.eye(2), torch.tensor([0, 1]), torch.tensor([[0.2, 0.9]]), 2).tolist()
        [1]
    """
    near, where = (normalize(asked, dim=1) @ normalize(known, dim=1).T).topk(min(k, len(known)), 1)
    weights = (near / TEMPERATURE - near[:, :1] / TEMPERATURE).exp()
    return (one_hot(labels[where], n_classes) * weights[:, :, None]).sum(1).argmax(1)


def probe(
    known: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
    asked: Float[Tensor, "m d"],
    n_classes: int,
    inner: Tensor,
) -> Int[Tensor, " m"]:
    """The class by logistic regression on standardised vectors."""
    mean, scale = known.mean(0), known.std(0, unbiased=False).clamp(min=1e-6)
    x, z = (known - mean) / scale, (asked - mean) / scale
    best = CS[1]
    if inner.any() and len(labels[~inner].unique()) > 1:
        fits = [fit_logistic(x[~inner], labels[~inner], n_classes, c) for c in CS]
        right = [float((fit.logits(x[inner]).argmax(1) == labels[inner]).float().mean()) for fit in fits]
        best = CS[right.index(max(right))]
    return fit_logistic(x, labels, n_classes, best).logits(z).argmax(1)
