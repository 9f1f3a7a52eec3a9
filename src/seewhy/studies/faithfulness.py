"""Which way of showing where a model looked can be believed? Methods × metrics × pictures, beside controls."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool
from torch import Tensor

from ..attributions import attributions
from ..classifiers.head import Target
from ..encoders.base import Look
from ..errors import DataError, SeeWhyError
from ..features import Seen, Wish, file_digest, see
from ..images import read_views
from ..listener import Listener
from ..metrics import Metric, metrics
from ..metrics.base import Case, Explain, upsampled
from ..metrics.controls import controls
from ..metrics.deletion import Deletion
from ..types import Failure
from .findings import Findings, findings
from .progress import Progress

if TYPE_CHECKING:
    from ..classifiers.base import Classifier

PROGRESS = "progress.jsonl"
DEFAULT_METRICS = (
    "deletion",
    "deletion_black",
    "deletion_blur",
    "insertion",
    "average_drop",
    "average_increase",
    "average_gain",
    "road",
    "sparsity",
)
VARIANTS: dict[str, Metric] = {"deletion_black": Deletion(fill="black"), "deletion_blur": Deletion(fill="blur")}
CHUNK = 16


def chosen_methods(names: Sequence[str] | None = None) -> dict[str, Explain]:
    """Attributions by name; left out, those that need no forward pass of their own; ``all`` is all of them."""
    if names is None:
        names = [n for n in attributions if attributions[n].cost.startswith("0")]
    elif list(names) == ["all"]:
        names = [n for n in attributions if not attributions[n].needs_training]
    return {n: attributions[n]() for n in names}


def chosen_metrics(names: Sequence[str] | None = None, *, with_masks: bool = False) -> dict[str, Metric]:
    """Metrics by name, among them deletion with other fills; left out, the usual ones."""
    if names is None:
        names = [*DEFAULT_METRICS, *(("energy_pointing_game", "pointing_game", "pixel_ap") if with_masks else ())]
    return {n: VARIANTS[n] if n in VARIANTS else metrics[n]() for n in names}


@dataclass(frozen=True)
class FaithfulnessStudy:
    """Measures every method and every control on the same pictures, for the class predicted on each.

    Each number is noted as soon as it is there; stopped in any way, the same study in the same folder goes on.

    Args:
        methods: what makes maps.
        metrics: what judges them.
        masks: a folder with a mask a picture, of the same stem, an image whose object is not black.
        seed: of the resampling; metrics have their own.
        n_draws: resampled sets of pictures.
        level: of the intervals.
    """

    methods: Mapping[str, Explain] = field(default_factory=chosen_methods)
    metrics: Mapping[str, Metric] = field(default_factory=chosen_metrics)
    masks: Path | None = None
    seed: int = 0
    n_draws: int = 2000
    level: float = 0.95

    def run(
        self, classifier: Classifier, pictures: Iterable[Any], output: str | Path, listener: Listener | None = None
    ) -> Findings:
        """Measure what is not measured yet, and say what follows.

        Args:
            classifier: whose explanations are judged.
            pictures: file names (or pixels, which are measured anew every time).
            output: folder of ``progress.jsonl``.
            listener: hears of progress, failures and methods that do not fit the model.

        Raises:
            DataError: a name is both a method's and a control's, no picture can be read, or nothing was measured.
        """
        listener = listener or Listener()
        known = controls()
        if twice := sorted(set(known) & set(self.methods)):
            raise DataError(f"A method is called {twice[0]!r}, which is a control's name. Rename the method.")
        runner = _Runner(self, classifier, {**self.methods, **known}, listener)
        with Progress(Path(output) / PROGRESS) as progress:
            total = len(pictures) if isinstance(pictures, Sequence) else None
            used = list(listener.track(runner.measure(pictures, progress), "Measuring", total))
            done = progress.done
        rows = [done[key] for keys in used for key in keys if key in done]
        if not rows:
            first = f" The first: {listener.failures[0].error}." if listener.failures else ""
            raise DataError(f"Nothing was measured on {len(used)} pictures.{first} Give pictures that can be read.")
        return findings(
            rows,
            self.metrics,
            [n for n in self.methods if n not in runner.unfit],
            [n for n in known if n not in runner.unfit],
            model=classifier.provenance(),
            n_draws=self.n_draws,
            level=self.level,
            seed=self.seed,
            failures=listener.failures,
            notes=listener.notes,
        )


class _Runner:
    """One run of a study."""

    def __init__(
        self, study: FaithfulnessStudy, classifier: Classifier, methods: dict[str, Explain], listener: Listener
    ) -> None:
        self.study, self.classifier, self.listener = study, classifier, listener
        self.methods = methods
        self.unfit: set[str] = set()
        self._model = _fingerprint(classifier)

    def measure(self, pictures: Iterable[Any], progress: Progress) -> Iterator[list[str]]:
        """The keys of each picture's numbers, once they are there."""
        stream = iter(pictures)
        while chunk := list(itertools.islice(stream, CHUNK)):
            digests = [file_digest(p) for p in chunk]
            todo = [p for p, d in zip(chunk, digests, strict=True) if d is None or not self._is_done(d, progress)]
            wish = Wish(features=lambda _index: True, pictures=True)
            fresh = see(self.classifier.encoder, todo, wish=wish, batch_size=CHUNK)
            for picture, digest in zip(chunk, digests, strict=True):
                if digest is not None and not any(picture is t for t in todo):
                    yield self._keys(digest)
                    continue
                seen = next(fresh)
                if isinstance(seen, Failure):
                    self.listener.failed(seen)
                    yield []
                    continue
                self._measure_one(seen, picture, progress)
                yield self._keys(seen.digest)

    def _is_done(self, digest: str, progress: Progress) -> bool:
        return all(key in progress.done for key in self._keys(digest))

    def _keys(self, digest: str) -> list[str]:
        methods = [n for n in self.methods if n not in self.unfit]
        return [self._key(digest, method, metric) for metric in self.study.metrics for method in methods]

    def _key(self, digest: str, method: str, metric: str) -> str:
        seal = f"{self._model}|{digest}|{method}={_said(self.methods[method])}|{metric}={self.study.metrics[metric]!r}"
        return hashlib.sha256(f"{seal}|{self.study.masks}".encode("utf-8", "surrogatepass")).hexdigest()[:32]

    def _measure_one(self, seen: Seen, picture: Any, progress: Progress) -> None:
        assert seen.picture is not None
        assert seen.features is not None
        pixels = self.classifier.encoder.pixels([seen.picture.pixels]).contiguous()
        look = Look(seen.features[None], seen.pooled[:1], pixels)
        target = self.classifier.head.probabilities(look.pooled).argmax(1)
        maps = self._maps(look, target)
        mask = self._mask(picture)
        for label, metric in self.study.metrics.items():
            names = [n for n in maps if self._key(seen.digest, n, label) not in progress.done]
            if not names or ("mask" in metric.requires and mask is None):
                continue
            methods = [self.methods[n] for n in names]
            case = Case.of(self.classifier, pixels[0], int(target), methods=methods, mask=mask)
            for name, score in zip(names, metric.measure(case, torch.stack([maps[n] for n in names])), strict=True):
                progress.add(
                    {
                        "key": self._key(seen.digest, name, label),
                        "image": seen.name,
                        "digest": seen.digest,
                        "class": self.classifier.classes[int(target)],
                        "method": name,
                        "metric": label,
                        "value": score.value,
                        "sums": list(score.sums),
                        "parts": score.parts,
                        "settings": score.settings,
                    }
                )

    def _maps(self, look: Look, target: Tensor) -> dict[str, Tensor]:
        """Every method's map; a method that does not fit the model is left out from then on, and said so."""
        assert look.pixels is not None
        size = (look.pixels.shape[2], look.pixels.shape[3])
        found = {}
        for name, method in self.methods.items():
            if name in self.unfit:
                continue
            try:
                found[name] = upsampled(method(self.classifier, look, Target(target)), size)[0]
            except SeeWhyError as error:
                self.unfit.add(name)
                self.listener.note(f"{name} is left out: {error}")
        return found

    def _mask(self, picture: Any) -> Bool[Tensor, "h w"] | None:
        """The picture's mask, cut and resized like it."""
        if self.study.masks is None or not isinstance(picture, str | Path):
            return None
        found = sorted(self.study.masks.glob(f"{Path(picture).stem}.*"))
        if not found:
            return None
        view = read_views(found[0], self.classifier.encoder.transform, [None])[0].pixels
        mask = torch.from_numpy(view.max(2) > view.max() / 2)
        return mask if bool(mask.any()) and not bool(mask.all()) else None


def _said(method: Explain) -> str:
    """What tells two settings of a method apart."""
    return getattr(method, "__qualname__", None) or repr(method)


def _fingerprint(classifier: Classifier) -> str:
    """What decides a number beside the picture, the method and the metric."""
    encoder, head = classifier.encoder, classifier.head
    digest = hashlib.sha256(f"{encoder.fingerprint}|{encoder.engine.precision}|{classifier.classes}".encode())
    for tensor in (head.weight, head.bias):
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
