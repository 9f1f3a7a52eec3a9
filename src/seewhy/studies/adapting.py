"""Measure what an encoder gains and forgets by adaptation, on held-out pictures."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from ..classifiers.encoded_set import EncodedSet
from ..classifiers.linear.choosing import c_path
from ..classifiers.linear.solvers import fit_linear
from ..encoders.base import Encoder
from ..encoders.names import filled, names_of, own_sentences
from ..errors import DataError
from ..evaluation.figures import groups_of
from ..heads.votes import Votes
from ..learning.adapt import Adapted, agrees
from ..learning.contrast import DEPTHS, Ranks, ranks
from ..learning.encoders.adapted import DIGITS
from ..learning.encoders.heads import PairedHeads, place
from ..learning.from_columns import Judged, Taught
from ..learning.pooled import PooledPairs, encode_pairs, joint_vectors
from ..learning.pretrain import Pretrained
from ..learning.way import AGREES, AGREES_AS_NEW, Finished
from ..pictures.samples import Sample, Samples, split
from ..printable import csv_row
from ..progress import Progress
from ..storage.features import FeatureStore
from .bootstrap import accuracy_sums, measure_row, told_rows
from .pages import adaptation_page, pretraining_page
from .study import Findings, Row, beside

N_EXAMPLES = 12
K = 20
"""Number of neighbours."""
TEMPERATURE = 0.07
"""Temperature of the votes (Wu et al. 2018, arXiv 1805.01978)."""
CS = (0.01, 0.1, 1.0, 10.0)
"""Inverse regularisation strengths of the linear probe, from which one is chosen on validation pictures."""
MOST = 5000
"""Largest number of training pictures for neighbours and linear probe."""
Named = tuple[Tensor, Tensor]
"""For each picture, whether its zero-shot prediction is correct, and the probability of this prediction."""


@dataclass(frozen=True, eq=False)
class _Measured:
    """Results of one encoder; ``hits`` has hits and tries per picture ``(p, 2)`` for each measure."""

    hits: dict[str, Float[Tensor, "p 2"]]
    found: Ranks
    image: Float[Tensor, "p d"]
    text: Float[Tensor, "n d"]
    seen: PooledPairs
    named: Named | None


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
) -> Findings:
    """Measure image-text retrieval (R@1, R@5, R@10) and zero-shot accuracy, before and after training.

    Intervals are bootstrap intervals over pictures, or over groups. A difference counts as real if its interval
    excludes 0.

    Args:
        encoder: image-text encoder.
        pairs: pictures with texts; with labels, zero-shot accuracy is measured too.
        before: encoder to compare with; default: the encoder before adaptation, if any.
        also: labelled pictures of other classes, by name of the set, on which zero-shot accuracy is measured; default:
            none.
        trained_on: digests of the training pictures, to warn about test pictures that were used for training.
        store: cache of encoded pictures.
        seed: seed of the resampling.
        progress: progress reporter.

    Raises:
        DataError: no picture can be read.
        ModelError: the encoder has no text encoder.
    """
    progress = progress or Progress()
    before = encoder.base if before is None else before
    encoders = [e for e in (before, encoder) if e is not None]
    each = list(zip(encoders, (progress, Progress()), strict=False))  # unreadable pictures are reported once
    measured = [_measure(e, encoders[0], pairs.items, store, p) for e, p in each]
    encoded, groups = measured[-1].seen, groups_of(measured[-1].seen.items)
    reused = [
        item.image for item, d in zip(encoded.items, encoded.digests, strict=True) if d[:DIGITS] in set(trained_on)
    ]
    if reused:
        progress.note(
            f"The encoder was trained on {len(reused)} of these pictures, so its results are too good: {reused[0]}, …"
        )
    rows = [measure_row(name, [t.hits[name] for t in measured], groups, seed) for name in measured[-1].hits]
    if measured[-1].named is not None:
        rows += told_rows("these classes by name", [t.named for t in measured if t.named is not None], groups, seed)
    for name, samples in (also or {}).items():
        items = [Sample(s.image, s.label, (s.label.replace("_", " "),), s.group, s.pixels) for s in samples.items]
        named = [_by_name(e, encode_pairs(e, items, store, p)) for e, p in each]
        rows += told_rows(f"{name} by name", named, None, seed)
    data = {
        "encoder": encoder.describe(),
        "before": None if before is None else before.describe(),
        "n_pictures": len(encoded), "n_texts": len(encoded.pairs), "measures": rows,
        "examples": _pair_examples(measured, seed),
        "notes": [*pairs.notes, *progress.notes],
        "failures": [f.to_json() for f in {f.image: f for f in progress.failures}.values()],
    }  # fmt: skip
    return Findings(data, adaptation_page)


def _measure(
    encoder: Encoder, first: Encoder, items: Sequence[Sample], store: FeatureStore | None, progress: Progress
) -> _Measured:
    seen = encode_pairs(encoder, items, store, progress)
    if len(seen) < 2:
        raise DataError(f"At least two readable pictures are needed, got one: {seen.items[0].image}.")
    image, text = joint_vectors(encoder, seen)
    found = ranks(image, text, seen.owner)
    count = torch.bincount(seen.owner, minlength=len(seen)).float()
    hits = {f"picture to text R@{depth}": accuracy_sums(found.image_to_text < depth) for depth in DEPTHS}
    for depth in DEPTHS:
        own = torch.zeros(len(seen)).index_add_(0, seen.owner, (found.text_to_image < depth).float())
        hits[f"text to picture R@{depth}"] = torch.stack([own, count], 1)
    named = _by_name(encoder, seen) if len(seen.classes) > 1 else None
    if first.classifier is not None and len(first.classes) == first.classifier.out_features:
        own_class = first.classifier(encode_pairs(first, seen.items, store, Progress()).pooled).argmax(1)
        names = place(encoder.text, own_sentences(encoder.text, names_of(first)))
        hits[AGREES] = accuracy_sums((image @ names.T).argmax(1) == own_class)
    return _Measured(hits, found, image, text, seen, named)


def _by_name(encoder: Encoder, seen: PooledPairs) -> Named:
    """Predict classes by prompts from all templates."""
    classes = sorted({item.label for item in seen.items})
    image, _ = joint_vectors(encoder, seen)
    said = [filled(t, c.replace("_", " ")) for c in classes for t in encoder.text.templates]
    text = encoder.encode_text(said).unflatten(0, (len(classes), -1)).mean(1)
    labels = torch.tensor([classes.index(item.label) for item in seen.items])
    confidence, nearest = (encoder.text.logit_scale * image @ normalize(text, dim=1).T).softmax(1).max(1)
    return nearest == labels, confidence


def _pair_examples(told: Sequence[_Measured], seed: int) -> list[Row]:
    """Return random texts, each with its three nearest pictures before and after training."""
    last, found = told[-1], []
    drawn = torch.randperm(len(last.seen.pairs), generator=torch.Generator().manual_seed(seed))[:N_EXAMPLES].tolist()
    for pair in drawn:
        own, text = last.seen.pairs[pair].tolist()
        one: Row = {"text": last.seen.texts[text], "picture": last.seen.items[own].image}
        for when, m in zip(("before", "after")[-len(told) :], told, strict=True):
            one[when] = _nearest(m.seen.items, m.image @ m.text[pair], int(m.found.text_to_image[pair]) + 1)
        found.append(one)
    return found


def _nearest(items: Sequence[Sample], scores: Tensor, place: int) -> Row:
    """Return the three nearest pictures, and the rank of the first correct one."""
    near = scores.topk(min(3, len(scores))).indices.tolist()
    return {"place": place, "nearest": [items[i].image for i in near]}


def run_report(
    done: Finished[Any, Any],
    name: str = "adapted",
    *,
    store: FeatureStore | None = None,
    notes: Sequence[str] = (),
    progress: Progress | None = None,
) -> Findings:
    """Return the report of a run of :func:`seewhy.adapt` or :func:`seewhy.pretrain`."""
    guarded = isinstance(done.adaptation.trained, PairedHeads) and done.adaptation.trained.heard is not None
    if isinstance(done, Pretrained):
        report = measure_pretraining(done, done.adaptation.encoder(name), store=store, progress=progress)
    elif isinstance(done, Taught):
        report = _taught(done, done.adaptation.encoder(name))
    else:
        classes = tuple(sorted({item.label for item in done.held.items} - {""}))
        held, after = Samples(tuple(done.held.items), classes), done.adaptation.encoder(name)
        report = measure_retrieval(after, held, before=done.adaptation.base, store=store, progress=progress)
        if guarded:  # names of guarded classes stay fixed, so their texts say nothing about other texts
            heads: Any = done.adaptation.trained
            both = [agrees(heads, k, done.adaptation.base, done.held.pooled) for k in (0.0, done.adaptation.keep)]
            sums = [accuracy_sums(found) for found in both if found is not None]
            report.data["measures"] += [measure_row(AGREES_AS_NEW, sums, groups_of(held.items))] if sums else []
    run = report.data["run"] = {
        "provenance": dict(done.adaptation.provenance),
        "history": list(done.done.history),
        "seconds_per_step": round(done.done.seconds_per_step, 4),
        "tried": [asdict(kept) for kept in done.tried],
    }
    if isinstance(done, Adapted | Taught) and done.tried:
        run |= {"tried_apart": done.chosen_on is not done.held, "tried_named": AGREES_AS_NEW if guarded else AGREES}
    report.data["notes"] = [*notes]
    return report


def _taught(done: Taught, encoder: Encoder) -> Findings:
    rows = [
        measure_row(measure, (j.right(j.before), j.right(j.after)), groups_of(j.items))
        for measure, j in done.judged.items()
    ]
    said = {measure: j for measure, j in done.judged.items() if measure != AGREES}
    texts = {text for texts in done.held.columns.values() for several in texts for text in several}
    examples = [e for m, j in said.items() for e in _examples(m, j, max(2, N_EXAMPLES // len(said)))]
    data = {
        "encoder": encoder.describe(), "before": done.adaptation.base.describe(), "n_pictures": len(done.held),
        "n_texts": len(texts), "measures": rows, "examples": examples, "notes": [], "failures": [],
    }  # fmt: skip
    return Findings(data, adaptation_page)


def _examples(measure: str, judged: Judged, n: int) -> list[Row]:
    """Return random values, each with its three nearest pictures before and after training."""
    drawn = torch.randperm(len(judged.own), generator=torch.Generator().manual_seed(0)).tolist()
    found: dict[int, Row] = {}
    for row in drawn:
        value = int(judged.own[row])
        if value in found or len(found) == n:
            continue
        is_own = judged.own == value
        own = [judged.items[i].image for i in is_own.nonzero()[:, 0].tolist()]
        one: Row = {"text": judged.words[value], "measure": measure, "own": own, "picture": judged.items[row].image}
        for when, scores in (("before", judged.before[:, value]), ("after", judged.after[:, value])):
            place = 1 + int((scores[~is_own] >= scores[is_own].max()).sum())
            one[when] = _nearest(judged.items, scores, place)
        found[value] = one
    return list(found.values())


def files_of(done: Finished[Any, Any], report: Findings) -> dict[str, str]:
    """Return the page, its JSON, and the training log as CSV."""
    document = json.dumps(report.data, indent=1, ensure_ascii=False)
    rows: list[list[object]] = [["step", *done.done.history[0]]]
    rows += ([i, *step.values()] for i, step in enumerate(done.done.history, 1))
    return {"run.html": report.to_html(), "run.json": document, "log.csv": "".join(map(csv_row, rows))}


def title_of(provenance: Mapping[str, Any]) -> str:
    """Return a one-line title of a training."""
    learns = dict.fromkeys((provenance["objective"], provenance["train"]))
    return f"{', '.join(learns)}, {provenance['n_steps']} steps, keep {provenance['keep']:g}"


def measure_pretraining(
    done: Pretrained, encoder: Encoder, *, store: FeatureStore | None = None, progress: Progress | None = None
) -> Findings:
    """Measure k-nearest-neighbour and linear-probe accuracy before and after training; empty without classes."""
    progress = progress or Progress()
    rows: list[Row] = []
    own = done.train.subset(range(0, len(done.train), -(-len(done.train) // MOST)))
    classes = sorted({item.label for item in own.items} if own.classes else ())
    held = done.held.subset([i for i, item in enumerate(done.held.items) if item.label in classes])
    if len(classes) > 1 and len(held):
        seed = int(done.adaptation.provenance["seed"])
        again = EncodedSet.of(encoder, [*own.items, *held.items], store=store, progress=progress)
        after = (again.subset(range(len(own))), again.subset(range(len(own), len(again))))
        told = [_right(*seen, classes, seed) for seen in ((own, held), after)]
        rows = [measure_row(name, [one[name] for one in told], groups_of(held.items)) for name in told[0]]
    data = {
        "encoder": encoder.describe(), "before": done.adaptation.base.describe(), "n_pictures": len(done.train),
        "n_held_out": len(done.held), "classes": classes, "measures": rows, **beside(progress),
    }  # fmt: skip
    return Findings(data, pretraining_page)


def _right(own: EncodedSet, held: EncodedSet, classes: Sequence[str], seed: int) -> dict[str, Float[Tensor, "n 2"]]:
    """Return hits and tries ``(n, 2)`` per held-out picture for each measure."""
    y, true = (torch.tensor([classes.index(item.label) for item in seen.items]) for seen in (own, held))
    inner = torch.tensor(split([item.label for item in own.items], own.digests, 0.2, seed))
    by_votes = neighbours(own.pooled, y, held.pooled, len(classes))
    return {
        f"class by {min(K, len(own))} neighbours": accuracy_sums(by_votes == true),
        "class by a linear probe": accuracy_sums(probe(own.pooled, y, held.pooled, len(classes), inner) == true),
    }


def neighbours(
    known: Float[Tensor, "n d"], labels: Int[Tensor, " n"], asked: Float[Tensor, "m d"], n_classes: int, k: int = K
) -> Int[Tensor, " m"]:
    """Return the class predicted by a weighted k-nearest-neighbour vote with cosine similarity."""
    return Votes(labels, n_classes, k)(normalize(asked, dim=1) @ normalize(known, dim=1).T / TEMPERATURE).argmax(1)


def probe(
    known: Float[Tensor, "n d"], labels: Int[Tensor, " n"], asked: Float[Tensor, "m d"], n_classes: int, inner: Tensor
) -> Int[Tensor, " m"]:
    """Return the class predicted by logistic regression on standardised features."""
    mean, scale = known.mean(0), known.std(0, unbiased=False).clamp(min=1e-6)
    x, z = (known - mean) / scale, (asked - mean) / scale
    best = CS[1]
    if inner.any() and len(labels[~inner].unique()) > 1:
        best = c_path(x, labels, n_classes, inner.long() - 1, usual=best, grid=CS).best.c
    return fit_linear(x, labels, n_classes, best).logits(z).argmax(1)
