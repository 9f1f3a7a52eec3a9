"""Compare attribution methods by metrics of explanations, with control maps."""

from __future__ import annotations

import hashlib
import itertools
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from ..api import pretrained
from ..arguments import checked
from ..attributions import attributions
from ..attributions.base import Attribution
from ..attributions.explainers import trained_digest
from ..bounds import Count
from ..classifiers.base import Classifier
from ..clusters import grouped
from ..encoders.base import Encoder, EncoderOutput
from ..encoders.module import from_module
from ..encoders.stream import Encoded, EncodeRequest, encode_stream, file_digest
from ..errors import DataError, InputError, SeeWhyError
from ..heads.head import Target
from ..metrics import Metric, metrics
from ..metrics.base import Case, Explain, upsampled
from ..metrics.controls import controls
from ..metrics.removal import ROAD, Deletion, Insertion, PixelFlipping
from ..pictures.datasets import pictures_of
from ..pictures.object_masks import mask_beside
from ..pictures.sources import Many
from ..progress import Progress, shown
from ..storage.output import temporary_folder
from ..types import Failure
from .faithfulness_findings import faithfulness_page, findings
from .study import Findings, StudyRecords, beside, records_in

DEFAULT_METRICS = (
    *("deletion", "deletion_black", "deletion_blur", "insertion", "average_drop", "average_increase", "average_gain"),
    *("road", "sparsity"),
)
LOCALISATION = ("energy_pointing_game", "pointing_game", "pixel_ap")
N_STEPS = 8
AS_STUDIED: dict[str, Metric] = {
    "deletion": Deletion(n_steps=N_STEPS),
    "deletion_black": Deletion(n_steps=N_STEPS, fill="black"),
    "deletion_blur": Deletion(n_steps=N_STEPS, fill="blur"),
    "insertion": Insertion(n_steps=N_STEPS),
    "pixel_flipping": PixelFlipping(n_steps=N_STEPS),
    "road": ROAD(fractions=(0.1, 0.3, 0.5, 0.7, 0.9)),
}
"""Metrics with fewer steps than by default."""

QUICK: dict[str, Callable[[], Explain]] = {
    "gradient_shap_quick": lambda: attributions["gradient_shap"](n_samples=8),  # type: ignore[call-arg]
    "integrated_gradients_quick": lambda: attributions["integrated_gradients"](n_steps=10),  # type: ignore[call-arg]
    "rise_quick": lambda: attributions["rise"].quick(400),  # type: ignore[attr-defined]
    "score_cam_quick": lambda: attributions["score_cam"](n_masks=128),  # type: ignore[call-arg]
    "smooth_grad_quick": lambda: attributions["smooth_grad"](n_samples=8),  # type: ignore[call-arg]
}
"""Slow methods with fewer forward passes than in the papers."""

LIMITS = {
    **dict.fromkeys(("deletion_black", "deletion_blur", "random_logit"), 100),
    **dict.fromkeys(("road", "pixel_flipping", "faithfulness_correlation", "infidelity", "sensitivity_n"), 50),
    **dict.fromkeys(("model_randomisation", "efficient_model_randomisation", "max_box_acc"), 50),
    **dict.fromkeys(("irof", "max_sensitivity", "smooth_model_randomisation"), 20),
    **dict.fromkeys(("gradient_shap", "integrated_gradients", "occlusion", "rise", "score_cam", "smooth_grad"), 50),
    **dict.fromkeys(QUICK, 50),
}
"""Default number of pictures for slow methods and metrics."""


def named(text: str | Sequence[str] | None) -> tuple[list[str] | None, dict[str, int]]:
    """Parse ``"grad_cam,rise:50"``, or a list, into names and limits on the number of pictures."""
    if text is None:
        return None, {}
    names: list[str] = []
    limits: dict[str, int] = {}
    for part in (p.strip() for p in (text.split(",") if isinstance(text, str) else text)):
        name, colon, number = part.partition(":")
        if colon and not (number.strip().isdecimal() and int(number) > 0):
            raise InputError(f"A limit must be a whole number of pictures above 0, as in {name}:50, got {part!r}.")
        if name:
            names.append(name.strip())
            limits |= {name.strip(): int(number)} if colon else {}
    return names, limits


def chosen_methods(names: Sequence[str] | None = None) -> dict[str, Explain]:
    """Return attribution methods by name; default: methods that need no extra forward pass."""
    if names is None:
        names = [n for n in attributions if attributions[n].cost.startswith("0") and not attributions[n].needs_words]
    every = [f"{n}_quick" if f"{n}_quick" in QUICK else n for n in attributions if not attributions[n].needs_training]
    chosen = [one for name in names for one in (every if name == "all" else [name])]
    return {one: QUICK[one]() if one in QUICK else attributions[one]() for one in chosen}


def chosen_metrics(names: Sequence[str] | None = None, *, with_masks: bool = False) -> dict[str, Metric]:
    """Return metrics by name; default: all metrics that work with the available masks."""
    if names is None:
        names = [*DEFAULT_METRICS, *(LOCALISATION if with_masks else ())]
    # Metrics of mosaics do not measure pictures of the data set.
    fits = [n for n in metrics if (with_masks or "mask" not in metrics[n].requires) and not metrics[n].of_mosaics]
    every = sorted({*fits, *AS_STUDIED})
    chosen = [one for name in names for one in (every if name == "all" else [name])]
    return {one: AS_STUDIED[one] if one in AS_STUDIED else metrics[one]() for one in chosen}


def passes(method: Explain) -> float:
    """Return the number of forward passes per explanation; infinite if ``cost`` has no number."""
    cost = getattr(method, "cost", "0")
    number = re.match(r"\d+", cost)
    return float(number[0]) if number else float("inf")


NUMBERS = ("value", "sums", "parts", "settings")
"""Fields of a record that depend only on the map."""
CHUNK = 16
SAME = 1e-5
"""Relative difference below which two maps count as the same."""


@dataclass(frozen=True)
class FaithfulnessStudy:
    """A comparison of attribution methods and control maps on the same pictures, for the predicted classes.

    The pictures must be in random order, because methods with a limit are measured only on the first pictures.

    Args:
        methods: attribution methods by name.
        metrics: metrics by name.
        limits: largest number of pictures for each method or metric; default: all pictures, but fewer for slow methods
            and metrics.
        masks: folder with an object mask for each picture, under the same file name; the object is not black.
        most_passes: largest number of forward passes per map for metrics that compute maps again.
        seed: seed of the resampling.
        n_draws: number of bootstrap resamples.
        level: confidence level of the intervals, 0.5 to 1.
    """

    methods: Mapping[str, Explain] = field(default_factory=chosen_methods)
    metrics: Mapping[str, Metric] = field(default_factory=chosen_metrics)
    limits: Mapping[str, int] = field(default_factory=dict)
    masks: Path | None = None
    most_passes: int = 2
    seed: int = 0
    n_draws: int = 2000
    level: float = 0.95

    @classmethod
    def of(
        cls,
        methods: str | Sequence[str] | None = None,
        metrics: str | Sequence[str] | None = None,
        *,
        masks: Path | None = None,
        seed: int = 0,
    ) -> FaithfulnessStudy:
        """Build a study from names; ``rise:50`` measures RISE on at most 50 pictures."""
        method_names, of_methods = named(methods)
        metric_names, of_metrics = named(metrics)
        makes = chosen_methods(method_names)
        judges = chosen_metrics(metric_names, with_masks=masks is not None)
        limits = {**{name: LIMITS[name] for name in (*makes, *judges) if name in LIMITS}, **of_methods, **of_metrics}
        return cls(makes, judges, limits=limits, masks=masks, seed=seed)

    @shown("Working out the answer")
    def run(
        self, classifier: Classifier, pictures: Iterable[Any], output: str | Path, progress: Progress | None = None
    ) -> Findings:
        """Run the study; results that an earlier run stored in ``output`` are not computed again."""
        progress = progress or Progress()
        known = controls()
        if twice := sorted(set(known) & set(self.methods)):
            raise DataError(f"`methods` must not have the name of a control map, got {twice[0]!r}. Rename this method.")
        runner = _Runner(self, classifier, {**self.methods, **known}, progress)
        with records_in(output) as records:
            places = range(len(pictures)) if isinstance(pictures, Sequence) else None
            total = None if places is None else sum(len(runner.wanted(at)) for at in places)
            used = list(progress.track(runner.measure(pictures, records), "Measuring explanations", total))
        rows = [records.done[key] for key in used if key in records.done]
        if not rows:
            first = f" The first: {progress.failures[0].error}." if progress.failures else ""
            raise DataError(f"None of {runner.n_given} pictures could be measured.{first}")
        methods, others = ([n for n in of if n not in runner.unfit] for of in (self.methods, known))
        how = {"seed": self.seed, "n_draws": self.n_draws, "level": self.level}
        data = findings(rows, self.metrics, methods, others, **how)
        told = beside(progress)
        data |= {"model": classifier.provenance(), **told, "notes": [*told["notes"], *runner.notes()]}
        return Findings(data, faithfulness_page)


class _Runner:
    def __init__(
        self, study: FaithfulnessStudy, classifier: Classifier, methods: dict[str, Explain], progress: Progress
    ) -> None:
        self.study, self.classifier, self.methods, self.progress = study, classifier, methods, progress
        self.unfit: set[str | tuple[str, str]] = set()
        self.n_given = 0
        self._model, self._masks = classifier.digest, _masks_seal(study.masks)
        self._said = {name: _said(method, classifier) for name, method in methods.items()}
        self._unmasked: Counter[str] = Counter()

    def measure(self, pictures: Iterable[Any], records: StudyRecords) -> Iterator[str]:
        """Yield the key of each measurement after it was stored."""
        stream = enumerate(pictures)
        while chunk := list(itertools.islice(stream, CHUNK)):
            self.n_given += len(chunk)
            known: list[list[str] | None] = []
            for at, picture in chunk:
                digest = file_digest(picture)
                keys = [] if digest is None else [self._key(digest, m, label) for label, m in self.wanted(at)]
                is_known = digest is not None and all(key in records.done for key in keys)
                known.append(keys if is_known else None)
            todo = [p for (_, p), measured in zip(chunk, known, strict=True) if measured is None]
            request = EncodeRequest(features=lambda _index: True, pictures=True)
            fresh = encode_stream(self.classifier.encoder, todo, request=request, batch_size=CHUNK)
            for (at, picture), measured in zip(chunk, known, strict=True):
                if measured is not None:
                    yield from measured
                elif isinstance(seen := next(fresh), Failure):
                    self.progress.failed(seen)
                else:
                    yield from self._measure_one(seen, picture, at, records)

    def wanted(self, at: int) -> list[tuple[str, str]]:
        """Return the pairs of metric and method to measure on the picture at this position."""
        found = []
        for label, metric in self.study.metrics.items():
            for name, method in self.methods.items():
                limit = min(self.study.limits.get(n, at + 1) for n in (label, name))
                slow = "methods" in metric.requires and passes(method) > self.study.most_passes
                if at < limit and not slow and not self.unfit & {name, (label, name)}:
                    found.append((label, name))
        return found

    def _key(self, digest: str, method: str, metric: str) -> str:
        seal = f"{self._model}|{digest}|{method}={self._said[method]}|{metric}={self.study.metrics[metric]!r}"
        return hashlib.sha256(f"{seal}|{self._masks}".encode("utf-8", "surrogatepass")).hexdigest()[:32]

    def _scores(self, label: str, case: Case, maps: Mapping[str, Tensor]) -> dict[str, Any]:
        """Return a metric's score of each map; a method that fails is skipped from then on, with a note."""
        if not maps:
            return {}
        case = replace(case, methods=[self.methods[name] for name in maps])
        try:
            measured = self.study.metrics[label].measure(case, torch.stack(list(maps.values())))
            return dict(zip(maps, measured, strict=True))
        except SeeWhyError as error:
            if len(maps) > 1:
                return {n: s for name in maps for n, s in self._scores(label, case, {name: maps[name]}).items()}
            (name,) = maps
            self.unfit.add((label, name))
            self.progress.note(f"{label} was not measured for {name}: {error}")
            return {}

    def _measure_one(self, seen: Encoded, picture: Any, at: int, records: StudyRecords) -> Iterator[str]:
        assert seen.picture is not None
        assert seen.features is not None
        wanted = grouped(self.wanted(at))
        pixels = self.classifier.encoder.pixels([seen.picture.pixels]).contiguous()
        look = EncoderOutput(seen.features[None], seen.pooled[:1], pixels)
        target = self.classifier.head.probabilities(look.pooled).argmax(1)
        maps = self._maps(look, target, {n for names in wanted.values() for n in names})
        leaders = _leaders(maps)
        whole = Case.of(self.classifier, pixels[0], int(target), mask=self._mask(picture))
        for label, names in wanted.items():
            metric = self.study.metrics[label]
            if "mask" in metric.requires and whole.mask is None:
                self._unmasked[label] += 1
                continue
            names = [n for n in names if n in maps]
            # Of methods with the same map, only the first is measured, except by metrics that compute maps again.
            first: dict[str, str] = {}
            for n in names:
                first.setdefault(leaders[n], n)
            led = {n: n if "methods" in metric.requires else first[leaders[n]] for n in names}
            keys = {n: self._key(seen.digest, n, label) for n in names}
            new = [n for n in dict.fromkeys(led.values()) if keys[n] not in records.done]
            scores = self._scores(label, whole, {n: maps[n] for n in new})
            for name in names:
                known = records.done.get(keys[led[name]])
                if known is None and led[name] not in scores:
                    continue
                numbers = known or {k: getattr(scores[led[name]], k) for k in NUMBERS}
                row = {
                    "image": seen.name, "digest": seen.digest, "class": self.classifier.classes[int(target)],
                    "method": name, "same_as": led[name] if led[name] != name else None, "metric": label,
                    **{k: numbers[k] for k in NUMBERS}, "sums": list(numbers["sums"]),
                }  # fmt: skip
                records.row(keys[name], partial(dict, row))
                yield keys[name]

    def _maps(self, look: EncoderOutput, target: Tensor, names: set[str]) -> dict[str, Tensor]:
        """Compute the maps of the methods; a method that fails is skipped from then on, with a note."""
        assert look.pixels is not None
        size = (look.pixels.shape[2], look.pixels.shape[3])
        found = {}
        for name, method in self.methods.items():
            if name not in names or name in self.unfit:
                continue
            try:
                found[name] = upsampled(method(self.classifier, look, Target(target)), size)[0]
            except SeeWhyError as error:
                self.unfit.add(name)
                self.progress.note(f"{name} was not measured: {error}")
        return found

    def _mask(self, picture: Any) -> Bool[Tensor, "h w"] | None:
        """Return the picture's mask, cropped and resized like the picture."""
        if self.study.masks is None or not isinstance(picture, str | Path):
            return None
        return mask_beside(self.study.masks, picture, self.classifier.encoder.transform)

    def notes(self) -> list[str]:
        again = [label for label, m in self.study.metrics.items() if "methods" in m.requires]
        slow = [n for n in self.methods if passes(self.methods[n]) > self.study.most_passes and n not in self.unfit]
        without = [f"{label} was not measured on {n} pictures without a mask." for label, n in self._unmasked.items()]
        if not (again and slow):
            return without
        lead = f"{', '.join(again)} need many maps per picture. So SeeWhy did not measure {', '.join(slow)} on them:"
        return [f"{lead} they take more than {self.study.most_passes} forward passes per map.", *without]


def _leaders(maps: Mapping[str, Tensor]) -> dict[str, str]:
    """Return, for each map, the first method with the same map."""
    found: dict[str, str] = {}
    for name, one in maps.items():
        bound = SAME * float(one.abs().max())
        led = (n for n in dict.fromkeys(found.values()) if float((maps[n] - one).abs().max()) <= bound)
        found[name] = next(led, name)
    return found


def _said(method: Explain, classifier: Classifier) -> str:
    """Return an identifier of a method with its settings and training."""
    said: str = getattr(method, "__qualname__", None) or repr(method)
    try:
        return said + trained_digest(method, classifier).hex() if isinstance(method, Attribution) else said
    except SeeWhyError:  # an untrained method fails later, with the reason
        return said


def _masks_seal(folder: Path | None) -> str:
    """Return a digest of the state of the folder of masks."""
    if folder is None:
        return ""
    if not folder.is_dir():
        raise DataError(f"--masks must be a folder with one mask per picture, got {folder}.")
    found = sorted((p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in folder.iterdir())
    return hashlib.sha256(repr(found).encode("utf-8", "surrogatepass")).hexdigest()


@checked
def study(
    model: Classifier | Encoder | nn.Module,
    pictures: Many | str | Path,
    *,
    transform: Any = None,
    methods: str | Sequence[str] | None = None,
    metrics: str | Sequence[str] | None = None,
    n: Count | None = None,
    masks: str | Path | None = None,
    output: str | Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Findings:
    """Measure the faithfulness of attribution methods on pictures (``seewhy study faithfulness``).

    Args:
        model: a classifier, an encoder with classes, or a network that maps ``(b, 3, h, w)`` to logits ``(b, k)``.
        pictures: pictures, or their folder.
        transform: preprocessing of a network, as for :func:`seewhy.from_module`.
        methods: names of attribution methods, as a list or separated by commas; default: those of the command.
        metrics: names of metrics, in the same forms; default: those of the command.
        n: number of random pictures to use; default: all.
        masks: folder with an object mask for each picture, under the same file name; the object is not black.
        output: folder for the results; default: a temporary folder.
        seed: seed of the choice of pictures and of the resampling.
        progress: progress reporter.
    """
    asked = FaithfulnessStudy.of(methods, metrics, masks=None if masks is None else Path(masks), seed=seed)
    if isinstance(model, nn.Module):
        model = from_module(model, transform=transform)
    classifier = model if isinstance(model, Classifier) else pretrained(model)
    many = pictures_of(pictures)
    random.Random(seed).shuffle(many)
    return asked.run(classifier, many[:n], output or temporary_folder(), progress)
