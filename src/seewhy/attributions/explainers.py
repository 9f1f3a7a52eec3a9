"""Trained explainers, T-TAME, TAME and L-CAM: what is kept of them beside a classifier, and how a method finds it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate

from ..errors import InputError
from ..storage.archive import TensorArchive
from ..storage.output import make_folder
from ..storage.reading import MAX_TENSORS, read_file
from . import attributions
from .base import Attribution, Explainable

FORMAT = 1
FOLDER = "explainers"
Variant = Literal["t_tame", "tame", "l_cam"]
LARGEST_SIDE = 56
"""A first layer finer than this is brought down to it, as in the authors' code."""


class AttentionMechanism(nn.Module):
    """``c = W [r(A_1), …, r(A_n)] + b`` with ``A_i = ReLU(BN(U_i F_i + u_i) + F_i)``; of ``l_cam`` ``c = W F + b``.

    As ``W`` acts on each place alone, it is applied before ``r``, on each layer's own grid, for the classes asked for.
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
        """Maps, as logits, of some classes, at the first layer's resolution."""
        side = (min(maps[0].shape[2], LARGEST_SIDE), min(maps[0].shape[3], LARGEST_SIDE))
        assert self.last.bias is not None
        total = self.last.bias[classes][:, None, None]
        for i, (one, weight) in enumerate(zip(maps, self.last.weight[classes].split(self.channels, 1), strict=True)):
            mixed = one if self.variant == "l_cam" else (self.norms[i](self.mixes[i](one)) + one).relu()
            total = total + resized(conv2d(mixed, weight), side)
        return total


def resized(maps: Float[Tensor, "b c _h _w"], side: tuple[int, int]) -> Float[Tensor, "b c h w"]:
    """Bilinear; a map of the right size as it is."""
    if tuple(maps.shape[2:]) == tuple(side):
        return maps
    return interpolate(maps, size=side, mode="bilinear", align_corners=False)


def masked(
    pixels: Float[Tensor, "b 3 h w"],
    masks: Float[Tensor, "b gh gw"],
    fill: Literal["black", "mean"],
    mean: Sequence[float],
    std: Sequence[float],
) -> Float[Tensor, "b 3 h w"]:
    """Pictures times masks: what is hidden becomes black, or the colour that is zero in normalised pixels."""
    large = resized(masks[:, None], (pixels.shape[2], pixels.shape[3]))
    if fill == "mean":
        return pixels * large
    black = -(torch.tensor(mean) / torch.tensor(std)).to(pixels)[:, None, None]
    return black + (pixels - black) * large


@dataclass(frozen=True, eq=False)
class TTAMEExplainer:
    """A mechanism, the layers that it reads, what it was trained to hide with, and the digest of its classifier."""

    mechanism: AttentionMechanism
    layers: tuple[str, ...]
    fill: Literal["black", "mean"]
    classifier: str
    trained: dict[str, Any] = field(default_factory=dict)

    @property
    def variant(self) -> Variant:
        return self.mechanism.variant

    def save(self, folder: str | Path) -> Path:
        """Write ``folder/VARIANT.safetensors``, which holds everything, and the same facts as JSON, for people."""
        path = check_explainer(make_folder(folder), self.variant) / f"{self.variant}.safetensors"
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


def check_explainer(folder: Path, variant: str) -> Path:
    """The folder, if an explainer can be saved there; asked before the work begins."""
    return ARCHIVE.check(folder / f"{variant}.safetensors").parent


def load_explainer(path: str | Path) -> TTAMEExplainer:
    """Read what :meth:`TTAMEExplainer.save` wrote. It runs no code."""
    return ARCHIVE.load(Path(path), _assemble)


def _assemble(card: dict[str, Any], tensors: dict[str, Tensor]) -> TTAMEExplainer:
    _check_card(card)
    # Built without drawing numbers: the weights follow, and the user's random state stays as it is.
    with torch.device("meta"):
        mechanism = AttentionMechanism(card["channels"], card["n_classes"], card["variant"])
    kinds = {name: tensor.dtype for name, tensor in mechanism.state_dict().items()}
    finite = all(bool(tensor.isfinite().all()) for tensor in tensors.values())
    if not finite or kinds != {name: tensor.dtype for name, tensor in tensors.items()}:
        raise ValueError("its numbers are not finite, or of another kind")
    mechanism.load_state_dict(tensors, assign=True)
    mechanism.eval().requires_grad_(False)
    return TTAMEExplainer(mechanism, tuple(card["layers"]), card["fill"], card["classifier"], card["trained"])


def _check_card(card: dict[str, Any]) -> None:
    """Refuse what no explainer says of itself; its tensors are checked against the rest."""
    kinds = {"layers": list, "channels": list, "n_classes": int, "classifier": str, "trained": dict}
    wrong = [name for name, kind in kinds.items() if type(card[name]) is not kind]
    if card["variant"] not in get_args(Variant) or card["fill"] not in ("black", "mean"):
        wrong.append("variant or fill")
    if not all(isinstance(layer, str) for layer in card["layers"]) or len(card["layers"]) != len(card["channels"]):
        wrong.append("layers")
    if wrong:
        raise ValueError(f"its {', '.join(wrong)} cannot be")


def find_file(model: Explainable, variant: str, place: str | None) -> Path:
    """The file of a trained explainer."""
    own: Path | None = getattr(model, "folder", None)
    root = Path(place) if place is not None else own
    if root is not None:
        name = f"{variant}.safetensors"
        # Whatever bears the name is it, also a pipe or a folder: reading it says what is wrong.
        for path in (root / name, root / FOLDER / name) if root.is_dir() else (root,):
            if path.exists():
                return path
    where = f"{root} has none" if root is not None else "this classifier has no folder to keep one in"
    train = f"seewhy fit --task explainer PICTURES --method {variant}"
    cure = f"{train} -m {own}" if own is not None else f"{train} -o FOLDER, and pass --set explainer=FOLDER"
    raise InputError(f"{variant} needs a trained explainer, and {where}. Train one with: {cure}")


def explainer_of(model: Explainable, variant: str, place: str | None) -> TTAMEExplainer:
    """The trained explainer of a classifier."""
    path = find_file(model, variant, place)
    status = path.stat()
    found = _loaded(path, status.st_mtime_ns, status.st_size)
    if found.classifier != classifier_digest(model):
        raise InputError(
            f"{path} was trained on another classifier than this one, whose maps it would not explain. "
            f"Train it again with: seewhy fit --task explainer PICTURES --method {found.variant}"
        )
    return found


@lru_cache(maxsize=4)
def _loaded(path: Path, _changed: int, _size: int) -> TTAMEExplainer:
    return load_explainer(path)


def trained(name: str, place: str | Path) -> Attribution:
    """A method with its trained explainer."""
    method: Any = attributions[name]
    if not method.needs_training:
        able = ", ".join(n for n in attributions if attributions[n].needs_training)
        raise InputError(f"{name} needs no explainer, and {str(place)!r} was given. These do: {able}.")
    return cast(Attribution, method(explainer=str(place)))


def trained_digest(method: Attribution, model: Explainable) -> bytes:
    """Of what a method was trained to; nothing where it needs no training."""
    if not method.needs_training:
        return b""
    given, variant = getattr(method, "explainer", None), getattr(method, "variant", method.name)
    if isinstance(given, TTAMEExplainer):
        return hashlib.sha256(b"".join(map(_bytes, given.mechanism.state_dict().values()))).digest()
    return hashlib.sha256(read_file(find_file(model, variant, given), MAX_TENSORS)).digest()


def classifier_digest(model: Explainable) -> str:
    """Of everything that decides a prediction; 16 hexadecimal digits."""
    head = model.head
    about = getattr(head.feature, "to_json", lambda: type(head.feature).__name__)()
    digest = hashlib.sha256(f"{model.encoder.fingerprint}|{about}|{head.scale}".encode())
    for tensor in (head.weight, head.bias):
        digest.update(_bytes(tensor))
    return digest.hexdigest()[:16]


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
