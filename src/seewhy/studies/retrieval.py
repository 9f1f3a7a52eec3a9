"""Do pictures and texts find one another, before and after an encoder was adapted, and what was forgotten meanwhile?"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from ..card.adaptation import render_adaptation
from ..card.paging import Page
from ..encoders.adapted import DIGITS
from ..encoders.base import Encoder
from ..encoders.own_names import names_of, own_sentences
from ..encoders.paired_heads import place
from ..encoders.templates import filled
from ..errors import DataError
from ..evaluation.confusions import small_copies
from ..pictures.samples import Sample, Samples
from ..progress import Progress
from ..storage.features import FeatureStore
from ..training.retrieval import DEPTHS, Ranks, ranks
from ..training.seen_pairs import SeenPairs, joint_vectors, look_at_pairs
from .bootstrap import paired

N_EXAMPLES = 12


class RetrievalReport(Page):
    """What :func:`measure_retrieval` found; displays itself in a notebook, and ``save("run.html")`` writes it."""

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One measure each, before and after."""
        found: list[dict[str, Any]] = self.data["measures"]
        return found

    def to_html(self) -> str:
        shown = [name for e in self.data["examples"] for name in _pictures_in(e)]
        return render_adaptation(self.data, small_copies(dict.fromkeys(shown)))


@dataclass(frozen=True, eq=False)
class _Measured:
    """What one encoder gives: measure → each picture's hits and tries ``(p, 2)``."""

    hits: dict[str, Float[Tensor, "p 2"]]
    found: Ranks
    image: Float[Tensor, "p d"]
    text: Float[Tensor, "n d"]
    seen: SeenPairs


def _pictures_in(example: Mapping[str, Any]) -> list[str]:
    near = [name for when in ("before", "after") if when in example for name in example[when]["nearest"]]
    return [example["picture"], *near]


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
) -> RetrievalReport:
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
    rows = [measure_row(name, [t.hits[name] for t in told], groups_of(seen.items), seed) for name in told[-1].hits]
    for name, samples in (also or {}).items():
        each = zip(encoders, (progress, quiet), strict=False)
        others = [_by_name(e, look_at_pairs(e, _silent(samples), store, p)) for e, p in each]
        rows.append(measure_row(f"{name} by name", others, None, seed))
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
    return RetrievalReport(data)


def _measure(
    encoder: Encoder, first: Encoder, items: Sequence[Sample], store: FeatureStore | None, progress: Progress
) -> _Measured:
    seen = look_at_pairs(encoder, items, store, progress)
    if len(seen) < 2:
        raise DataError(
            f"One picture can be read, {seen.items[0].image}. Two or more were expected, as they are told from one "
            "another. Give more pairs."
        )
    image, text = joint_vectors(encoder, seen)
    found = ranks(image, text, seen.owner)
    hits: dict[str, Tensor] = {}
    one, count = torch.ones(len(seen)), torch.bincount(seen.owner, minlength=len(seen)).float()
    for depth in DEPTHS:
        hits[f"picture to text R@{depth}"] = torch.stack([(found.image_to_text < depth).float(), one], 1)
    for depth in DEPTHS:
        own = torch.zeros(len(seen)).index_add_(0, seen.owner, (found.text_to_image < depth).float())
        hits[f"text to picture R@{depth}"] = torch.stack([own, count], 1)
    if all(item.label for item in seen.items) and len({item.label for item in seen.items}) > 1:
        hits["these classes by name"] = _by_name(encoder, seen)
    if first.classifier is not None and len(first.classes) == first.classifier.out_features:
        own_class = first.classifier(look_at_pairs(first, seen.items, store, Progress()).pooled).argmax(1)
        names = place(encoder.text, own_sentences(encoder.text, names_of(first)))
        named = (image @ names.T).argmax(1) == own_class
        hits["agrees with its own classes by name"] = torch.stack([named.float(), one], 1)
    return _Measured(hits, found, image, text, seen)


def _say_known(seen: SeenPairs, trained_on: Collection[str], progress: Progress) -> None:
    """A note of pictures that the encoder was trained on."""
    known = [item.image for item, d in zip(seen.items, seen.digests, strict=True) if d[:DIGITS] in trained_on]
    if known:
        progress.note(f"{len(known)} picture(s) are among those it was trained on, which flatters it: {known[0]}, …")


def _silent(samples: Samples) -> list[Sample]:
    """Labelled pictures as pairs with their class's name."""
    return [Sample(s.image, s.label, (s.label.replace("_", " "),), s.group, s.pixels) for s in samples.items]


def _by_name(encoder: Encoder, seen: SeenPairs) -> Float[Tensor, "n 2"]:
    """Whether each picture is nearest to its own class's name, in every template."""
    classes = sorted({item.label for item in seen.items})
    image, _ = joint_vectors(encoder, seen)
    said = [[filled(t, c.replace("_", " ")) for t in encoder.text.templates] for c in classes]
    text = encoder.encode_text([one for several in said for one in several]).unflatten(0, (len(classes), -1)).mean(1)
    text = normalize(text, dim=1)
    labels = torch.tensor([classes.index(item.label) for item in seen.items])
    right = ((image @ text.T).argmax(1) == labels).float()
    return torch.stack([right, torch.ones(len(right))], 1)


def groups_of(items: Sequence[Sample]) -> Tensor | None:
    """The number of each picture's group, if any has one."""
    if not any(item.group for item in items):
        return None
    number: dict[str, int] = {}
    return torch.tensor([number.setdefault(item.group or f"\0{i}", len(number)) for i, item in enumerate(items)])


def measure_row(name: str, hits: Sequence[Float[Tensor, "n 2"]], groups: Tensor | None, seed: int) -> dict[str, Any]:
    """A measure before and after, with intervals."""
    sums = torch.stack(list(hits), 1)
    n = len(sums)
    if groups is not None:
        sums = torch.zeros(int(groups.max()) + 1, *sums.shape[1:]).index_add_(0, groups, sums)
    found = paired(sums, lambda means: means[..., 0] / means[..., 1].clamp(min=1e-12), seed=seed)
    *_, last = range(len(hits))
    row: dict[str, Any] = {"measure": name, "n": n, "after": _rounded(float(found.values[last]))}
    row["after_interval"] = [_rounded(x) for x in found.interval(last)]
    if last:
        difference, interval, real = found.difference(1, 0)
        row |= {"before": _rounded(float(found.values[0])), "before_interval": [_rounded(x) for x in found.interval(0)]}
        row |= {"difference": _rounded(difference), "difference_interval": [_rounded(x) for x in interval]}
        row["real"] = real
    return row


def _rounded(value: float) -> float:
    return round(value, 4)


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
