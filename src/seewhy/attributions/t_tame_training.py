"""Training of T-TAME, TAME and L-CAM: the classifier must still see its class in the picture times the map."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from ..errors import InputError
from ..progress import Progress
from ..seeded import seeded
from ..training.augmentation import TrainingPictures
from ..training.batches import Batch, TrainingData
from ..training.loop import Training, mean_terms, train
from ..training.task import Task
from .base import Explainable
from .explainers import FOLDER, AttentionMechanism, TTAMEExplainer, Variant, classifier_digest, masked
from .layers import LAST, find_layers, layer_maps

Fill = Literal["black", "mean"]


@dataclass(frozen=True)
class FitTTAME:
    """Trains an explainer on pictures without labels: the target is what the classifier itself predicts.

    ``L = ce · CE(f(x ∘ a_y), y) + area · mean((a + 0.0005)^power) + smooth · TV(a)``, ``a = sigmoid(c)``,
    ``y = argmax f(x)``; the last two terms on the maps of every class of the batch for every picture of it, and
    ``TV = (Σ dx² + Σ dy² + 0.3 Σ border²) / 2B``, as in the authors' code. The classifier stays frozen and in
    evaluation mode (the authors' is in training mode, so that its normalisation drifts).

    Args:
        variant: ``"t_tame"``; ``"tame"``, biases at twice the rate; ``"l_cam"``, one 1 × 1 convolution on the last
            map, biases at twice the rate.
        layers: whose maps are read; left out, found by :func:`find_layers`.
        fill: what hides: ``"black"`` or the ``"mean"`` colour; left out, black for maps and mean for tokens (authors).
        ce: 1.5 (authors).
        area: 2 (authors).
        smooth: 0.01 (authors).
        power: 0.3 (authors): pushes values to 0 or 1.
        size: side of the training pictures in pixels; left out, the network's own. Less is faster.
    """

    variant: Variant = "t_tame"
    layers: tuple[str, ...] | None = None
    fill: Fill | None = None
    ce: float = 1.5
    area: float = 2.0
    smooth: float = 0.01
    power: float = 0.3
    size: int | None = None

    def __post_init__(self) -> None:
        if self.variant not in ("t_tame", "tame", "l_cam"):
            raise InputError(f"The variant is {self.variant!r}. 't_tame', 'tame' or 'l_cam' was expected. Choose one.")
        if self.layers is not None and (not self.layers or (self.variant == "l_cam" and len(self.layers) > 1)):
            one = "one layer, as l_cam reads one," if self.variant == "l_cam" else "at least one layer"
            raise InputError(f"{len(self.layers)} layers were given; {one} was expected. Name layers, or leave it out.")

    def training(self, n_steps: int, batch_size: int = 32, seed: int = 0, lr: float = 2e-3) -> Training:
        """How this variant is trained by default here: AdamW on one cycle, which needs few steps."""
        bias = 1.0 if self.variant == "t_tame" else 2.0
        return Training(n_steps, batch_size, lr=lr, bias_lr=bias, seed=seed)

    def paper_training(self, n_steps: int, seed: int = 0) -> Training:
        """How the authors' code trains: SGD, meant for 8 epochs of ImageNet (L-CAM: 26)."""
        if self.variant == "l_cam":
            return Training(n_steps, 64, "sgd", 1e-4, 2.0, schedule="per_epoch", seed=seed)
        return Training(n_steps, 32, "sgd", 1e-3, 1.0 if self.variant == "t_tame" else 2.0, seed=seed)

    def fit(
        self,
        model: Explainable,
        pictures: Sequence[Any],
        how: Training,
        *,
        checkpoint: Path | None = None,
        progress: Progress | None = None,
    ) -> TTAMEExplainer:
        """Train on these pictures."""
        progress = progress or Progress()
        layers = self.layers or ((LAST,) if self.variant == "l_cam" else find_layers(model.encoder))
        fill = self.fill or ("mean" if model.encoder.layout.kind == "tokens" else "black")
        progress.note(f"layers: {', '.join(layers)} ({'given' if self.layers else 'found'}); hidden is {fill}")
        reader = TrainingPictures(model.encoder, pictures, self.size, progress)
        probe = torch.zeros(1, 3, *reader.transform.input_size)
        shapes = [m.shape[1] for m in layer_maps(model.encoder, probe, layers)[0]]
        with seeded(how.seed):
            mechanism = AttentionMechanism(shapes, len(model.head.bias), self.variant)
        settings = {**asdict(self), "layers": layers, "fill": fill}
        digest = classifier_digest(model)
        names = [str(p) if isinstance(p, str | Path) else f"picture {i + 1}" for i, p in enumerate(pictures)]
        named = hashlib.sha256("\0".join(names).encode("utf-8", "surrogatepass")).hexdigest()[:16]
        seal = json.dumps([settings, digest, named], sort_keys=True)
        task, data = (
            _MaskedClassifier(self, model, mechanism, layers, fill),
            TrainingData(len(names), {"pixels": reader}),
        )
        kept = None if checkpoint is None else (checkpoint, seal)
        done = train(task, data, how, checkpoint=kept, progress=progress)
        ends = {"first": mean_terms(done.history[:10]), "final": mean_terms(done.history[-10:])}
        seconds = round(done.seconds_per_step, 3)
        trained = {**settings, **asdict(how), "n_pictures": len(names), **ends, "seconds_per_step": seconds}
        return TTAMEExplainer(mechanism, layers, fill, digest, json.loads(json.dumps(trained)))

    def objective(
        self, logits: Float[Tensor, "b k"], label: Int[Tensor, " b"], a: Float[Tensor, "b m h w"]
    ) -> dict[str, Tensor]:
        """The loss and its three terms before they are weighed."""
        ce, area, smooth = cross_entropy(logits, label), ((a + 5e-4) ** self.power).mean(), variation(a)
        loss = self.ce * ce + self.area * area + self.smooth * smooth
        return {"loss": loss, "ce": ce, "area": area, "smooth": smooth}


class _MaskedClassifier(Task):
    """The mechanism, before a classifier that stays as and where it is."""

    needs = ("pixels",)
    moves = False

    def __init__(
        self, fit: FitTTAME, model: Explainable, mechanism: AttentionMechanism, layers: tuple[str, ...], fill: Fill
    ) -> None:
        super().__init__()
        self.fit, self.classifier, self.layers, self.fill = fit, (model,), layers, fill
        self.mechanism = mechanism

    def features(self, batch: Batch) -> tuple[Float[Tensor, "b k"], Int[Tensor, " b"], Float[Tensor, "b m h w"]]:
        """Logits of the masked pictures, the classes before, and the maps."""
        (model,), pixels = self.classifier, batch["pixels"]
        encoder = model.encoder
        maps, features = layer_maps(encoder, pixels, self.layers)
        with torch.no_grad():
            label = model.head(encoder.head(features)).argmax(1)
        a = self.mechanism(maps, label).sigmoid()
        hidden = masked(pixels, _own(a), self.fill, encoder.transform.mean, encoder.transform.std)
        logits = model.head(encoder.head(encoder.trunk(hidden.contiguous(memory_format=torch.channels_last))))
        return logits, label, a

    def loss(self, features: tuple[Tensor, Tensor, Tensor], batch: Batch) -> Mapping[str, Tensor]:
        logits, label, a = features
        agree = (logits.argmax(1) == label).float().mean()
        return {**self.fit.objective(*features), "mean_mask": _own(a).mean(), "agree": agree}


def _own(a: Float[Tensor, "b b h w"]) -> Float[Tensor, "b h w"]:
    """Each picture's map of its own class."""
    return a[torch.arange(len(a)), torch.arange(len(a))]


def variation(a: Float[Tensor, "b m h w"]) -> Float[Tensor, ""]:
    """``(Σ dx² + Σ dy² + 0.3 Σ border²) / 2B``; of all ``m`` maps of all ``B`` pictures, as in the authors' code."""
    down, right = a[:, :, 1:] - a[:, :, :-1], a[:, :, :, 1:] - a[:, :, :, :-1]
    border = sum(side.square().sum() for side in (a[:, :, 0], a[:, :, -1], a[:, :, :, 0], a[:, :, :, -1]))
    return (down.square().sum() + right.square().sum() + 0.3 * border) / (2 * len(a))


def explainer_folder(model: Explainable, output: Path | None) -> Path:
    """Where a trained explainer goes."""
    if output is not None:
        return output
    own: Path | None = getattr(model, "folder", None)
    if own is None:
        raise InputError(
            "This classifier has no folder of its own for the explainer. A folder was expected. Name one with -o."
        )
    return own / FOLDER
