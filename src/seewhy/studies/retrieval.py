"""Do pictures and texts find one another, before and after an encoder was adapted, and what was forgotten meanwhile?"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from ..encoders.adapted import DIGITS
from ..encoders.base import Encoder
from ..encoders.names import filled, names_of, own_sentences
from ..encoders.paired_heads import place
from ..errors import DataError
from ..learning.pooled import PooledPairs, encode_pairs, joint_vectors
from ..learning.retrieval import DEPTHS, Ranks, ranks
from ..learning.way import AGREES
from ..pictures.samples import Sample, Samples
from ..progress import Progress
from ..storage.features import FeatureStore
from .adaptation_page import AdaptationReport, adaptation_page
from .bootstrap import accuracy_sums, calibration_sums, gap, groups_of, measure_row

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
        trained_on: :attr:`seewhy.encoders.adapted.Adaptation.trained_on`, to tell pictures that the encoder knows.
        store: where looks are kept.
        seed: of the resampling.
        progress: hears of progress and failures.

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
        "examples": _examples(told, seed),
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


def _examples(told: Sequence[_Measured], seed: int) -> list[dict[str, Any]]:
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
