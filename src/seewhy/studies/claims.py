"""Test claims of papers with an encoder on the user's pictures."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..bounds import Bound, Count, InnerPart, check_fields
from ..classifiers.base import Classifier
from ..classifiers.certainty import linear_fit
from ..classifiers.encoded_set import EncodedSet, HoldOut, encode_samples
from ..descriptions.base import Descriptions, Pair
from ..encoders.base import Encoder
from ..encoders.stream import encode_stream
from ..errors import DataError, SeeWhyError, UnknownNameError
from ..evaluation.figures import N_FEWEST
from ..pictures.pairs import load_pairs
from ..pictures.pixel_classes import MaskedPictures
from ..pictures.samples import Sample, Samples, content_digest
from ..progress import Progress, shown
from ..storage.features import FeatureStore
from ..storage.output import temporary_folder
from ..trust.measure import trust_features
from . import pages
from .bootstrap import paired_means
from .study import Findings, Row, beside, inputs_digest, records_in
from .transfer import few

T = TypeVar("T")
PASSES, N_STEPS = 100, 20
"""Estimated forward passes per explained picture, and training steps per prompt."""


Verdict = Literal["shown", "too small to tell", "not shown"]


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % bootstrap interval; as text ``0.712 (0.690 to 0.735)``."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"

    def rounded(self) -> list[float]:
        """Return ``[value, low, high]``, for the JSON."""
        return [round(v, 4) for v in (self.value, self.low, self.high)]


def judged(found: Interval, effect: float = 0.0) -> Verdict:
    """Return the verdict on a difference that a claim says is above 0.

    Args:
        found: the difference.
        effect: the paper's difference, in the same unit, or 0 if the paper has none; if the interval ends below
            ``effect``, the verdict is ``not shown``.

    >>> judged(Interval(0.1, -0.1, 0.3)), judged(Interval(0.01, -0.01, 0.03), effect=0.05)
    ('too small to tell', 'not shown')
    """
    return "shown" if found.low > 0 else "not shown" if found.high < effect else "too small to tell"


def mean_of(values: Sequence[float], seed: int = 0) -> Interval:
    """Return the mean over pictures with its percentile bootstrap interval (2,000 resamples)."""
    found = paired_means(torch.tensor([list(values)], dtype=torch.double).T, seed=seed)
    return Interval(float(found.values[0]), *found.interval(0))


def lead(a: Sequence[float], b: Sequence[float], seed: int = 0) -> Interval:
    """Return the mean of ``a − b`` over the same pictures, with its paired bootstrap interval.

    Raises:
        ValueError: the lengths differ.
    """
    if len(a) != len(b):
        raise ValueError(f"`a` and `b` must have the same length, got {len(a)} and {len(b)}.")
    found = paired_means(torch.tensor([list(a), list(b)], dtype=torch.double).T, seed=seed)
    value, (low, high), _ = found.difference(0, 1)
    return Interval(value, low, high)


@dataclass(frozen=True)
class Compared:
    """The result for a claim: a difference, which is positive if the claim is true, and the number of pictures."""

    difference: Interval
    told: str
    n: int

    @classmethod
    def of(cls, first: str, a: Float[Tensor, " n"], second: str, b: Float[Tensor, " n"]) -> Compared:
        """Compare two numbers for each picture; the claim says that the first is larger."""
        found = lead(a.tolist(), b.tolist())
        said = f"{first} {mean_of(a.tolist())}, {second} {mean_of(b.tolist())}; difference {found}"
        return cls(found, said, len(a))


@dataclass(frozen=True)
class PaperClaim:
    """A claim of a paper, and how to measure it.

    Args:
        name: name for ``--only``.
        claim: the claim in a sentence.
        paper: authors, year, arXiv number.
        measure: function that measures the claim.
        figure: the paper's result, with the table or section that reports it; empty if it was not verified.
        effect: the paper's result as a difference, or 0 if it has none; an interval that ends below ``effect``
            contradicts the claim.
        needs: field of :class:`ClaimData` that must be given.
        work: slow step in addition to encoding.
    """

    name: str
    claim: str
    paper: str
    measure: Callable[[ClaimMaterial], Compared]
    figure: str = ""
    effect: float = 0.0
    needs: str = "samples"
    work: Literal["", "explaining", "learning prompts"] = ""

    def lacks(self, data: ClaimData) -> str:
        """Return a message about missing input; empty if nothing is missing."""
        option = "--" + {"instructions": "instruction"}.get(self.needs, self.needs).replace("_", "-")
        return f"no {self.needs} were given ({option})" if getattr(data, self.needs) is None else ""


@dataclass(frozen=True)
class ClaimData:
    """Input of the claims study; each optional input allows more claims."""

    samples: Samples
    test: Samples | None = None
    descriptions: Descriptions | None = None
    follow_up: Sequence[Pair] | None = None
    captions: Samples | None = None
    masks: MaskedPictures | None = None
    instructions: Mapping[str, str] | None = None
    table: Any = None
    """Table whose columns have the answers to ``instructions``."""

    def digest(self) -> str:
        """Return a digest of all input except the pictures in class folders."""
        said: list[Any] = [self.descriptions and dict(self.descriptions.texts), self.follow_up, self.instructions]
        said += [None if self.captions is None else _contents(self.captions), self._answers()]
        if self.masks is not None:
            said += [self.masks.classes, dict(self.masks.values), self.masks.ignored]
            for item in self.masks.items:
                drawn = content_digest(Sample(item.mask)) if isinstance(item.mask, str) else item.mask
                said.append((content_digest(Sample(item.image)), drawn))
        return hashlib.sha256(repr(said).encode("utf-8", "surrogatepass")).hexdigest()

    def _answers(self) -> list[Any]:
        """Return the contents of the table columns that answer the instructions."""
        try:
            return [_contents(load_pairs(self.table, text=column)) for column in self.instructions or {}]
        except SeeWhyError as error:  # reported by the claim about instructions
            return [str(error)]


def _contents(samples: Samples) -> list[Any]:
    return [(content_digest(s), s.texts, s.group) for s in samples.items]


@dataclass(frozen=True, eq=False)
class ClaimMaterial:
    """Encoded pictures, and results that several claims use."""

    study: ClaimsStudy
    encoder: Encoder
    data: ClaimData
    seen: EncodedSet
    folder: Path
    store: FeatureStore | None
    progress: Progress
    studies: dict[str, Row] = field(default_factory=dict)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.seen.classes

    @property
    def labels(self) -> Int[Tensor, " t"]:
        return self.seen.labels[self.seen.held]

    @cached_property
    def tested(self) -> Float[Tensor, "t p"]:
        return self.seen.pooled[self.seen.held]

    def right(self, classifier: Classifier) -> Float[Tensor, " t"]:
        """Return 1 for each test picture that the classifier predicts correctly, else 0."""
        place = torch.tensor([self.classes.index(c) for c in classifier.classes])
        with torch.no_grad():
            return (place[classifier.head.probabilities(self.tested).argmax(1)] == self.labels).double()

    def probe(self, shots: int | None = None, of: Callable[[Tensor], Tensor] = trust_features) -> Float[Tensor, " t"]:
        """Return the accuracy of a linear classifier on each test picture, averaged over draws.

        The classifier is trained on all other pictures, or on ``shots`` pictures per class.
        """
        learn, right = (~self.seen.held).nonzero()[:, 0], []
        for seed in range(1 if shots is None else self.study.n_seeds):
            rows = learn if shots is None else few(self.seen.labels, learn, len(self.classes), shots, seed)
            with torch.no_grad():
                fit = linear_fit(of(self.seen.pooled[rows]), self.seen.labels[rows], len(self.classes))
                right.append((fit(of(self.tested)).argmax(1) == self.labels).double())
        return torch.stack(right).mean(0)

    def study_of(self, name: str, run: Callable[[Path], Findings]) -> Row:
        """Return cached results of a study, such as the base-to-new study, on the given pictures."""
        if name not in self.studies:
            self.studies[name] = run(self.folder / name).data
        return self.studies[name]


def known_claims() -> dict[str, PaperClaim]:
    """Return all claims by name. Packages add a tuple of claims by an entry point in the group ``seewhy.claims``."""
    points = sorted(entry_points(group="seewhy.claims"), key=lambda point: (point.name != "studies", point.name))
    return {claim.name: claim for point in points for claim in point.load()}


@dataclass(frozen=True)
class ClaimsStudy:
    """A study that tests claims of papers with an encoder; the verdict is shown, not shown, or too small to tell.

    A claim is tested by a difference on the same test pictures. The claim is shown if the 95 % interval of the
    difference lies above 0. The claim is not shown if the interval ends below the paper's effect, or below 0 if the
    paper has no comparable effect. With fewer than :data:`~seewhy.evaluation.figures.N_FEWEST` pictures, the difference
    is too small to tell.

    Args:
        only: names of the claims to test; default: all that the input allows.
        shots: number of training pictures per class for methods that learn prompts, at least 1.
        n_seeds: number of random draws of training pictures and of random texts, at least 2; more draws give narrower
            intervals.
        n_explained: number of test pictures to explain.
        held_out: fraction of the pictures to test on, 0 to 1, if no test pictures are given.
        seed: seed of the split.
        settings: settings of methods that learn prompts, instead of the defaults.
    """

    only: tuple[str, ...] = ()
    shots: Count = 4
    n_seeds: Annotated[int, Bound(2)] = 3
    n_explained: Count = 48
    held_out: InnerPart = 0.3
    seed: int = 0
    settings: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        check_fields(self, "the study")
        object.__setattr__(self, "only", tuple(dict.fromkeys(self.only)))
        for name in self.only:
            UnknownNameError.check("claim", name, known_claims())

    def asked(self, data: ClaimData) -> list[PaperClaim]:
        """Return the claims to test.

        Raises:
            DataError: no claim can be tested with the given input.
        """
        claims = [known_claims()[name] for name in self.only or known_claims()]
        lacking = [claim.lacks(data) for claim in claims]
        if all(lacking):
            raise DataError(f"No claim can be tested: {'; '.join(dict.fromkeys(lacking))}.")
        return claims

    @shown("Working out the answer")
    def run(
        self,
        encoder: Encoder,
        data: ClaimData,
        folder: Path | None = None,
        *,
        command: str = "",
        store: FeatureStore | None = None,
        progress: Progress | None = None,
    ) -> Findings:
        """Run the study; claims whose results an earlier run stored in ``folder`` are not tested again."""
        progress = progress or Progress()
        _ = encoder.text  # claims compare pictures with words
        claims = self.asked(data)
        for reason in dict.fromkeys(filter(None, (claim.lacks(data) for claim in claims if self.only))):
            progress.tell(f"Some of these claims cannot be tested: {reason}")
        progress.tell(self.cost(encoder, data))
        hold = HoldOut(self.held_out, self.seed, data.test)
        seen = encode_samples(encoder, data.samples, hold, store=store, progress=progress)
        material = ClaimMaterial(self, encoder, data, seen, folder or temporary_folder(), store, progress)
        rows, left = self._measured(claims, material, folder)
        if not rows:
            raise DataError(f"No claim could be tested. The first reason: {left[0]['reason']}")
        verdicts = [row["verdict"] for row in rows]
        of = f"{len(rows)} claim{'s' * (len(rows) != 1)}"
        said = ", ".join(f"{verdicts.count(word)} {word}" for word in get_args(Verdict))
        from .. import __version__

        return Findings(
            {
                "study": "claims", "sentence": f"Of {of} tested with {encoder.name}: {said}.",
                "n": len(seen), "n_test": int(seen.held.sum()), "n_classes": len(seen.classes),
                "encoder": {"name": encoder.name, "fingerprint": encoder.fingerprint[:12]},
                "claims": rows, "left_out": left, "command": command, "version": __version__,
                "settings": {k: v for k, v in asdict(self).items() if k not in ("only", "settings")},
                **beside(progress),
            },
            pages.claims,
        )  # fmt: skip

    def cost(self, encoder: Encoder, data: ClaimData) -> str:
        """Estimate time and memory from encoding a few pictures and class names."""
        claims = [claim for claim in self.asked(data) if not claim.lacks(data)]
        needs, work = {claim.needs for claim in claims}, {claim.work for claim in claims}
        others = [data.test, *(getattr(data, name) for name in ("captions", "masks") if name in needs)]
        n = len(data.samples) + sum(len(one) for one in others if one is not None)
        some = [s.source for s in data.samples.items[:8]]
        look = _seconds(lambda: list(encode_stream(encoder, some)))[0] / len(some)
        read, vectors = _seconds(lambda: encoder.text.encode_text(list(data.samples.classes)))
        minutes = {"encoding": n * look / 60}
        if "explaining" in work:
            minutes["explaining"] = self.n_explained * PASSES * look / 60
        if "learning prompts" in work:
            minutes["learning prompts"] = 3 * 3 * self.n_seeds * N_STEPS * read / 60
        memory = f"{n * 4 * vectors.shape[1] / 2**20:.1f} MB of features"
        if torch.cuda.is_available():
            memory += f", {torch.cuda.mem_get_info()[0] / 2**30:.1f} GB free on the GPU"
        times = ", ".join(f"{value:.1f} minutes of {what}" for what, value in minutes.items())
        return f"This takes about {times} if nothing is cached; {memory}"

    def _measured(
        self, claims: Sequence[PaperClaim], material: ClaimMaterial, folder: Path | None
    ) -> tuple[list[Row], list[Row]]:
        """Return a row for each measured claim, and the reasons for those that could not be measured."""
        seen, rows, left = material.seen, [], []
        inputs: list[Any] = [material.encoder.fingerprint, seen.digests, seen.labels.tolist(), seen.held.tolist()]
        inputs += [material.data.digest(), {**asdict(self), "only": ()}]
        digest = inputs_digest(inputs)[:16]
        with records_in(folder) as records:
            for claim in material.progress.track(claims, "Measuring claims", len(claims)):
                try:
                    row = records.row(f"{digest} {claim.name}", partial(_record, claim, material))
                except SeeWhyError as error:
                    left.append({"name": claim.name, "claim": claim.claim, "reason": str(error)})
                else:
                    rows.append(_row(claim, row["values"]))
        return rows, left


def _seconds(of: Callable[[], T]) -> tuple[float, T]:
    """Return the duration of the second call, in seconds, and its result."""
    of()
    begun = time.perf_counter()
    found = of()
    return time.perf_counter() - begun, found


def _record(claim: PaperClaim, material: ClaimMaterial) -> Row:
    if reason := claim.lacks(material.data):
        raise DataError(reason)
    found = claim.measure(material)
    ours = [found.difference.value, found.difference.low, found.difference.high]
    return {"values": {"difference": ours, "told": found.told, "n": found.n}, "cell": {"claim": claim.name}}


def _row(claim: PaperClaim, values: Mapping[str, Any]) -> Row:
    ours = Interval(*values["difference"])
    value, *interval = ours.rounded()
    verdict = judged(ours, claim.effect) if values["n"] >= N_FEWEST else "too small to tell"
    return {
        "name": claim.name, "claim": claim.claim, "paper": claim.paper, "figure": claim.figure,
        "difference": value, "interval": interval, "measured": values["told"], "n": values["n"],
        "effect": claim.effect, "verdict": verdict,
    }  # fmt: skip
