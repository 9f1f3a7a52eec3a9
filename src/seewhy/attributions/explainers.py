"""Train, save and load the trained explainers T-TAME, TAME and L-CAM."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import conv2d, cross_entropy, interpolate

from ..errors import InputError
from ..progress import Progress
from ..seeded import seeded
from ..storage import archive
from ..storage.archive import TensorArchive
from ..storage.output import make_folder
from ..storage.reading import MAX_TENSORS, read_file
from ..storage.tensors import tensors_digest
from ..training.augmentation import TrainingPictures
from ..training.batches import Batch, TrainingData
from ..training.loop import Training, mean_terms, train
from ..training.task import Task
from . import attributions
from .base import Attribution, Explainable
from .layers import LAST, find_layers, layer_maps

FORMAT = 1
FOLDER = "explainers"
Variant = Literal["t_tame", "tame", "l_cam"]
Fill = Literal["black", "mean"]
LARGEST_SIDE = 56
"""Largest grid side of the first layer; finer maps are resized to it, as in the authors' code."""


class AttentionMechanism(nn.Module):
    """The attention mechanism of T-TAME, TAME or L-CAM.

    T-TAME and TAME compute

        c = W [r(A_1), …, r(A_n)] + b,    A_i = ReLU(BN(U_i F_i + u_i) + F_i)

    where ``c`` are the logit maps, ``F_i`` is the feature map of layer ``i``, ``BN`` a batch norm, ``r`` resizes a map,
    and ``W``, ``b``, ``U_i`` and ``u_i`` are trained. L-CAM computes ``c = W F + b`` from the last feature map ``F``.
    """

    def __init__(self, channels: Sequence[int], n_classes: int, variant: Variant = "t_tame") -> None:
        super().__init__()
        self.channels = tuple(channels)
        self.variant = variant
        mixed = () if variant == "l_cam" else self.channels
        self.mixes = nn.ModuleList(nn.Conv2d(c, c, 1) for c in mixed)
        self.norms = nn.ModuleList(nn.BatchNorm2d(c) for c in mixed)
        self.last = nn.Conv2d(sum(self.channels), n_classes, 1)

    def forward(
        self, maps: Sequence[Float[Tensor, "b _c _h _w"]], classes: Int[Tensor, " m"]
    ) -> Float[Tensor, "b m h w"]:
        """Return the logit maps of the requested classes at the first layer's resolution."""
        side = (min(maps[0].shape[2], LARGEST_SIDE), min(maps[0].shape[3], LARGEST_SIDE))
        assert self.last.bias is not None
        total = self.last.bias[classes][:, None, None]
        for i, (one, weight) in enumerate(zip(maps, self.last.weight[classes].split(self.channels, 1), strict=True)):
            mixed = one if self.variant == "l_cam" else (self.norms[i](self.mixes[i](one)) + one).relu()
            total = total + resized(conv2d(mixed, weight), side)
        return total


def resized(maps: Float[Tensor, "b c _h _w"], side: tuple[int, int]) -> Float[Tensor, "b c h w"]:
    if tuple(maps.shape[2:]) == tuple(side):
        return maps
    return interpolate(maps, size=side, mode="bilinear", align_corners=False)


def masked(
    pixels: Float[Tensor, "b 3 h w"],
    masks: Float[Tensor, "b gh gw"],
    fill: Fill,
    mean: Sequence[float],
    std: Sequence[float],
) -> Float[Tensor, "b 3 h w"]:
    """Replace the pixels outside masks by black or the mean colour."""
    large = resized(masks[:, None], (pixels.shape[2], pixels.shape[3]))
    if fill == "mean":
        return pixels * large
    black = -(torch.tensor(mean) / torch.tensor(std)).to(pixels)[:, None, None]
    return black + (pixels - black) * large


@dataclass(frozen=True, eq=False)
class TTAMEExplainer:
    """A trained attention mechanism, with the names of its layers, its fill colour and the digest of its classifier."""

    mechanism: AttentionMechanism
    layers: tuple[str, ...]
    fill: Fill
    classifier: str
    trained: dict[str, Any] = field(default_factory=dict)

    @property
    def variant(self) -> Variant:
        return self.mechanism.variant

    def save(self, folder: str | Path) -> Path:
        """Save the explainer to ``folder/VARIANT.safetensors``, with a readable summary as JSON."""
        path = ARCHIVE.check(make_folder(folder) / f"{self.variant}.safetensors")
        card = {
            "format": FORMAT,
            "seewhy": version("seewhy"),
            "method": "t_tame",
            "variant": self.variant,
            "layers": list(self.layers),
            "channels": list(self.mechanism.channels),
            "n_classes": self.mechanism.last.out_channels,
            "fill": self.fill,
            "classifier": self.classifier,
            "trained": self.trained,
        }
        return ARCHIVE.save(path, self.mechanism.state_dict(), card, spoken=card)


ARCHIVE = TensorArchive(
    otherwise="no explainer",
    again="Train it again.",
    missing="There is no explainer {path}. Train one with: seewhy fit --task explainer PICTURES",
    format=FORMAT,
)


def load_explainer(path: str | Path) -> TTAMEExplainer:
    """Load an explainer that :meth:`TTAMEExplainer.save` wrote."""
    return ARCHIVE.load(Path(path), _assemble)


def _assemble(card: dict[str, Any], tensors: dict[str, Tensor]) -> TTAMEExplainer:
    _check_card(card)
    # Built without random initialisation: weights are loaded next, and the global random state is unchanged.
    with torch.device("meta"):
        mechanism = AttentionMechanism(card["channels"], card["n_classes"], card["variant"])
    kinds = {name: tensor.dtype for name, tensor in mechanism.state_dict().items()}
    finite = all(bool(tensor.isfinite().all()) for tensor in tensors.values())
    if not finite or kinds != {name: tensor.dtype for name, tensor in tensors.items()}:
        raise ValueError("its tensors have the wrong data type or are not finite")
    mechanism.load_state_dict(tensors, assign=True)
    mechanism.eval().requires_grad_(False)
    return TTAMEExplainer(mechanism, tuple(card["layers"]), card["fill"], card["classifier"], card["trained"])


def _check_card(card: dict[str, Any]) -> None:
    """Raise ``ValueError`` if the metadata of an explainer is invalid."""
    kinds = {"layers": list, "channels": list, "n_classes": int, "classifier": str, "trained": dict}
    wrong = [name for name, kind in kinds.items() if type(card[name]) is not kind]
    if card["variant"] not in get_args(Variant) or card["fill"] not in ("black", "mean"):
        wrong.append("variant or fill")
    if not all(isinstance(layer, str) for layer in card["layers"]) or len(card["layers"]) != len(card["channels"]):
        wrong.append("layers")
    if wrong:
        raise ValueError(f"its metadata has an invalid value for {', '.join(wrong)}")


def find_file(model: Explainable, variant: str, place: str | None) -> Path:
    own: Path | None = getattr(model, "folder", None)
    root = Path(place) if place is not None else own
    if (path := archive.find_file(root, f"{variant}.safetensors", FOLDER)) is not None:
        return path
    where = f"{root} has none" if root is not None else "this classifier has no folder"
    train = f"seewhy fit --task explainer PICTURES --method {variant}"
    cure = f"{train} -m {own}" if own is not None else f"{train} -o FOLDER, and pass --set explainer=FOLDER"
    raise InputError(f"{variant} needs a trained explainer, but {where}. Train one with: {cure}")


def explainer_of(model: Explainable, variant: str, place: str | None) -> TTAMEExplainer:
    path = find_file(model, variant, place)
    status = path.stat()
    found = _loaded(path, status.st_mtime_ns, status.st_size)
    if found.classifier != classifier_digest(model):
        raise InputError(
            f"{path} was trained for another classifier. Train it again with: seewhy fit --task explainer PICTURES "
            f"--method {found.variant}"
        )
    return found


@lru_cache(maxsize=4)
def _loaded(path: Path, _changed: int, _size: int) -> TTAMEExplainer:
    return load_explainer(path)


def trained(name: str, place: str | Path) -> Attribution:
    """Return the attribution method ``name`` with the trained explainer in the folder ``place``."""
    method: Any = attributions[name]
    if not method.needs_training:
        able = ", ".join(n for n in attributions if attributions[n].needs_training)
        raise InputError(f"{name} takes no explainer, got {str(place)!r}. Remove it, or use {able}.")
    return cast(Attribution, method(explainer=str(place)))


def trained_digest(method: Attribution, model: Explainable) -> bytes:
    """Return the digest of a method's trained explainer; empty if the method needs no training."""
    if not method.needs_training:
        return b""
    given, variant = getattr(method, "explainer", None), getattr(method, "variant", method.name)
    if isinstance(given, TTAMEExplainer):
        return bytes.fromhex(tensors_digest(given.mechanism.state_dict()))
    return hashlib.sha256(read_file(find_file(model, variant, given), MAX_TENSORS)).digest()


def classifier_digest(model: Explainable) -> str:
    """Return a digest of the encoder, feature and head as 16 hexadecimal digits."""
    head = model.head
    about = getattr(head.feature, "to_json", lambda: type(head.feature).__name__)()
    own = {"weight": head.weight, "bias": head.bias}
    return tensors_digest(own, f"{model.encoder.fingerprint}|{about}|{head.scale}")[:16]


@dataclass(frozen=True)
class FitTTAME:
    """Train an explainer to explain the predictions of a frozen classifier, without labels.

    The loss of pictures ``x`` is

        L = ce · CE(f(x ∘ a_y), y) + area · mean((a + 0.0005)^power) + smooth · TV(a)

        a = sigmoid(c),    y = argmax f(x),    TV = (Σ dx² + Σ dy² + 0.3 Σ border²) / 2B

    where ``f`` is the classifier, ``CE`` the cross-entropy, ``c`` the output of the attention mechanism, ``a`` the
    maps, ``a_y`` the map of class ``y``, and ``B`` the batch size. ``dx`` and ``dy`` are differences of neighbouring
    pixels, and ``border`` are the values at the border. As in the authors' code, the last two terms use the maps of
    every class in the batch. Where we differ from the authors' code: the classifier is in evaluation mode, so its
    normalisation statistics stay constant.

    Args:
        variant: ``"t_tame"``, ``"tame"`` or ``"l_cam"``. TAME and L-CAM train biases at twice the learning rate; L-CAM
            is one 1 × 1 convolution on the last feature map.
        layers: names of the layers whose maps the explainer reads; default: those of :func:`find_layers`.
        fill: colour of hidden pixels, ``"black"`` or ``"mean"``; default: as the authors, black for networks with
            feature maps and the mean colour for networks with tokens.
        ce: weight of the cross-entropy of the masked picture (authors: 1.5).
        area: weight of the mask's area (authors: 2).
        smooth: weight of the mask's total variation (authors: 0.01).
        power: exponent of the area term, which moves mask values towards 0 or 1 (authors: 0.3).
        size: side of the training pictures in pixels; default: the network's input size. Smaller is faster.
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
        if self.variant not in get_args(Variant):
            raise InputError(f"`variant` must be 't_tame', 'tame' or 'l_cam', got {self.variant!r}.")
        if self.layers is not None and (not self.layers or (self.variant == "l_cam" and len(self.layers) > 1)):
            one = "one layer for l_cam" if self.variant == "l_cam" else "at least one layer"
            raise InputError(f"`layers` must name {one}, got {len(self.layers)} layers.")

    def training(self, n_steps: int, batch_size: int = 32, seed: int = 0, lr: float = 2e-3) -> Training:
        """Return the default training of this variant: AdamW with a one-cycle schedule."""
        bias = 2.0 if self.variant in ("tame", "l_cam") else 1.0
        return Training(n_steps, batch_size, lr=lr, bias_lr=bias, seed=seed)

    def paper_training(self, n_steps: int, seed: int = 0) -> Training:
        """Return the training of the authors' code: SGD, meant for 8 epochs of ImageNet (L-CAM: 26)."""
        if self.variant == "l_cam":
            return Training(n_steps, 64, "sgd", 1e-4, 2.0, schedule="per_epoch", seed=seed)
        return Training(n_steps, 32, "sgd", 1e-3, 2.0 if self.variant in ("tame", "l_cam") else 1.0, seed=seed)

    def fit(
        self,
        model: Explainable,
        pictures: Sequence[Any],
        how: Training,
        *,
        checkpoint: Path | None = None,
        progress: Progress | None = None,
    ) -> TTAMEExplainer:
        """Train an explainer on pictures."""
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
        task = _MaskedClassifier(self, model, mechanism, layers, fill)
        data = TrainingData(len(names), {"pixels": reader})
        kept = None if checkpoint is None else (checkpoint, seal)
        done = train(task, data, how, checkpoint=kept, progress=progress)
        ends = {"first": mean_terms(done.history[:10]), "final": mean_terms(done.history[-10:])}
        seconds = round(done.seconds_per_step, 3)
        trained = {**settings, **asdict(how), "n_pictures": len(names), **ends, "seconds_per_step": seconds}
        return TTAMEExplainer(mechanism, layers, fill, digest, json.loads(json.dumps(trained)))

    def objective(
        self, logits: Float[Tensor, "b k"], label: Int[Tensor, " b"], a: Float[Tensor, "b m h w"]
    ) -> dict[str, Tensor]:
        """Compute the loss and its three unweighted terms."""
        ce, area, smooth = cross_entropy(logits, label), ((a + 5e-4) ** self.power).mean(), variation(a)
        loss = self.ce * ce + self.area * area + self.smooth * smooth
        return {"loss": loss, "ce": ce, "area": area, "smooth": smooth}


class _MaskedClassifier(Task):
    """The training task of an attention mechanism for a frozen classifier."""

    needs = ("pixels",)
    moves = False

    def __init__(
        self, fit: FitTTAME, model: Explainable, mechanism: AttentionMechanism, layers: tuple[str, ...], fill: Fill
    ) -> None:
        super().__init__()
        self.fit, self.classifier, self.layers, self.fill = fit, (model,), layers, fill
        self.mechanism = mechanism

    def features(self, batch: Batch) -> tuple[Float[Tensor, "b k"], Int[Tensor, " b"], Float[Tensor, "b m h w"]]:
        """Return the logits of the masked pictures, the classes predicted for the unmasked pictures, and the maps."""
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
    """Return each picture's map of its predicted class."""
    return a[torch.arange(len(a)), torch.arange(len(a))]


def variation(a: Float[Tensor, "b m h w"]) -> Float[Tensor, ""]:
    """Compute ``(Σ dx² + Σ dy² + 0.3 Σ border²) / 2B`` over the maps of ``B`` pictures, as in the authors' code."""
    down, right = a[:, :, 1:] - a[:, :, :-1], a[:, :, :, 1:] - a[:, :, :, :-1]
    border = sum(side.square().sum() for side in (a[:, :, 0], a[:, :, -1], a[:, :, :, 0], a[:, :, :, -1]))
    return (down.square().sum() + right.square().sum() + 0.3 * border) / (2 * len(a))
