"""Encoders of transformers: ``hf:ORG/NAME`` and ``hf:/folder``; CLIP, SigLIP, DINO, ViT, ConvNeXt, ResNet."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import MissingExtraError, ModelError, WeightsError
from ..types import Transform
from .base import Encoder, Layout
from .fence import check_folder, loading
from .hub import fetch
from .huggingface_text import text_tower
from .names import distinct
from .split import (
    LastBlock,
    Split,
    average_if_equal,
    example_pixels,
    fingerprint,
    freeze,
    in_single,
    prove,
    replaced,
    run_and_record,
    same,
)
from .whole import OWN, Missing, Stored, from_saved

STACKS = ("encoder.layer", "encoder.layers", "model.layer", "layers", "layer")
WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json")
BESIDE = ("*.json", "*.txt", "*.model")
RESAMPLE = {1: "lanczos", 2: "bilinear", 3: "bicubic"}


@dataclass(frozen=True)
class Family:
    """What differs between token networks.

    Attributes:
        norm: the norm after the last block.
        prefix: class and register tokens before the patches, from the config.
        read: norm, tower, tokens after the last block → pooled.
    """

    norm: str
    prefix: Callable[[Any], int]
    read: Callable[[nn.Module, Any, Tensor, int], Tensor]


def _class_then_norm(norm: nn.Module, tower: nn.Module, tokens: Tensor, prefix: int) -> Tensor:
    return norm(tokens[:, 0])


def _norm_then_class(norm: nn.Module, tower: nn.Module, tokens: Tensor, prefix: int) -> Tensor:
    return norm(tokens)[:, 0]


def _norm_then_head(norm: nn.Module, tower: Any, tokens: Tensor, prefix: int) -> Tensor:
    return tower.head(norm(tokens))


def _class_and_mean(norm: nn.Module, tower: nn.Module, tokens: Tensor, prefix: int) -> Tensor:
    tokens = norm(tokens)
    return torch.cat([tokens[:, 0], tokens[:, prefix:].mean(1)], 1)


def _registers(config: Any) -> int:
    return 1 + int(config.num_register_tokens)


FAMILIES = {
    "clip_vision_model": Family("post_layernorm", lambda c: 1, _class_then_norm),
    "siglip_vision_model": Family("post_layernorm", lambda c: 0, _norm_then_head),
    "vit": Family("layernorm", lambda c: 1, _norm_then_class),
    "deit": Family("layernorm", lambda c: 2, _norm_then_class),
    "dinov2": Family("layernorm", lambda c: 1, _norm_then_class),
    "dinov2_with_registers": Family("layernorm", _registers, _norm_then_class),
    "dinov3_vit": Family("norm", _registers, _norm_then_class),
}
"""model_type → how its tokens are read. Everything else must give a map ``(b, c, h, w)``."""


def load(name: str, *, engine: str = "auto", **options: Any) -> Encoder:
    """A transformers network from safetensors, without remote code.

    Args:
        name: ``"ORG/NAME"`` on the hub or a folder written by ``save_pretrained``.
        engine: what runs the trunk.
        options: passed to ``from_pretrained``.

    Raises:
        WeightsError: the weights are not here, or only as a pickle.
        ModelError: preprocessing unknown or not expressible, or no cut is known for this family.
    """
    try:
        import transformers
    except ImportError as error:
        raise MissingExtraError("huggingface", "transformers") from error
    folder = Path(name).expanduser()
    if not (name.startswith(("/", "./", "../", "~")) or folder.is_dir()):
        folder = fetch(f"hf:{name}", name, WEIGHT_FILES, BESIDE, f"hf:/path/to/{name.split('/')[-1]}")
    check_saved(f"hf:{name}", folder)
    with loading(
        lambda why: ModelError(
            f"'hf:{name}' cannot be loaded: {why} A family that transformers itself knows was expected; code from a "
            "repository is never run. Choose another model."
        )
    ):
        model, missing = _model(f"hf:{name}", folder, options)
        transform = transform_of(processor_of(folder, f"hf:{name}"), f"hf:{name}")
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **OWN) if hasattr(model, "text_model") else None
    with missing.unread():
        encoder = _encoder(model, transform, tokenizer, f"hf:{name}", engine)
        if missing.tensors and tokenizer is not None:
            same(words := encoder.text.encode_text(["a"]), words)
    return encoder


def _model(name: str, folder: Path, options: dict[str, Any]) -> tuple[Any, Missing]:
    """The classifier if the weights are one, else the backbone or the pair; and what they leave out."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder, **OWN)
    classifies = any("ForImageClassification" in a for a in config.architectures or ())
    auto = transformers.AutoModelForImageClassification if classifies else transformers.AutoModel
    model, missing = from_saved(auto, name, folder, **{"dtype": torch.float32, **options})
    return in_single(freeze(model)), missing


def check_saved(name: str, folder: Path) -> None:
    """Refuse a folder in which no whole model lies, or one whose weights are a pickle alone."""
    check_folder(name, folder)
    if not (folder / "config.json").is_file():
        raise WeightsError(
            f"{name!r} has no config.json. A folder written by save_pretrained was expected. "
            "Write it with model.save_pretrained(folder) and processor.save_pretrained(folder)."
        )
    if (folder / "adapter_config.json").exists():
        raise ModelError(
            f"{name!r} has an adapter_config.json, which names another model to be loaded. A whole model was "
            "expected. Merge the adapter into its model, and save that."
        )
    if any((folder / file).is_file() for file in WEIGHT_FILES):
        Stored.beside(name, folder)
        return
    if (folder / "pytorch_model.bin").is_file():
        raise WeightsError(
            f"{name!r} has its weights only as pytorch_model.bin. model.safetensors was expected, because a pickle "
            "can run code. Convert it where you trust it: "
            "AutoModel.from_pretrained(folder).save_pretrained(folder, safe_serialization=True)."
        )
    raise WeightsError(
        f"{name!r} has no weights. model.safetensors beside config.json was expected. "
        "Write it with model.save_pretrained(folder)."
    )


def processor_of(folder: Path, name: str) -> dict[str, Any]:
    """The picture half of the saved processor; to be called behind the fence."""
    import transformers

    try:
        processor = transformers.AutoImageProcessor.from_pretrained(folder, **OWN)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{name!r} does not say its preprocessing: there is no preprocessor_config.json. SeeWhy never guesses "
            "it. Write it with processor.save_pretrained(folder), or copy the file from the hub."
        ) from error
    return json.loads(processor.to_json_string())


def transform_of(data: dict[str, Any], name: str) -> Transform:
    """An image processor's settings as a Transform."""
    size, crop = data.get("size") or {}, data.get("crop_size") or {}
    crops = bool(data.get("do_center_crop")) and bool(crop)
    interpolation = RESAMPLE.get(data.get("resample", -1))
    resize: int | tuple[int, int] | None = None
    target: tuple[int, int] | None = (crop["height"], crop["width"]) if crops else None
    if "height" in size and "width" in size:
        resize = (size["height"], size["width"])
        target = target or resize
    elif "shortest_edge" in size and crops:
        resize = size["shortest_edge"]
    elif "shortest_edge" in size and data.get("crop_pct"):
        # ConvNeXt: below 384 pixels a centre crop of a larger picture, from 384 on a stretch.
        edge = size["shortest_edge"]
        target = (edge, edge)
        resize = int(edge / data["crop_pct"]) if edge < 384 else (edge, edge)
    plain = data.get("do_resize", True) and data.get("do_rescale", True) and not data.get("do_pad")
    scaled = abs(data.get("rescale_factor", 1 / 255) * 255 - 1) < 1e-6
    if resize is None or target is None or interpolation is None or not plain or not scaled:
        keys = ("size", "crop_size", "do_center_crop", "resample", "do_resize", "do_rescale", "rescale_factor")
        said = {key: data.get(key) for key in keys}
        raise ModelError(
            f"{name} prepares pictures in a way SeeWhy does not express: {said}. A resize of the short side with a "
            "centre crop, or a stretch, in lanczos, bilinear or bicubic, was expected. Choose another model."
        )
    mean = tuple(data["image_mean"]) if data.get("do_normalize", True) else (0.0, 0.0, 0.0)
    std = tuple(data["image_std"]) if data.get("do_normalize", True) else (1.0, 1.0, 1.0)
    return Transform(target, resize, interpolation, mean, std)


class Tokens(nn.Module):
    """A tower up to the input of its last block."""

    def __init__(self, tower: Any, stack: str, norm: str) -> None:
        super().__init__()
        blocks = nn.ModuleList(list(tower.get_submodule(stack))[:-1])
        changes: dict[str, nn.Module] = {stack: blocks, norm: nn.Identity()}
        if hasattr(tower, "head"):
            changes["head"] = nn.Identity()
        self.tower = replaced(tower, changes)

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b t d"]:
        return self.tower(pixels).last_hidden_state


class TokenTail(nn.Module):
    """Norm and reading of the tokens after the last block."""

    def __init__(self, tower: nn.Module, family: Family, prefix: int) -> None:
        super().__init__()
        self.norm = tower.get_submodule(family.norm)
        self.tower = nn.Module()
        if hasattr(tower, "head"):
            self.tower.head = tower.head
        self.read = family.read
        self.prefix = prefix

    def forward(self, tokens: Float[Tensor, "b t d"]) -> Float[Tensor, "b p"]:
        return self.read(self.norm, self.tower, tokens, self.prefix)


class Map(nn.Module):
    """A convolutional tower up to its last map."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c gh gw"]:
        return self.tower(pixels).last_hidden_state


class MapTail(nn.Module):
    """Pooling of a map: the tower's pooler, or the mean and then the norm."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.pooler = getattr(tower, "pooler", None)
        self.norm = getattr(tower, "layernorm", None) or nn.Identity()

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c"]:
        if self.pooler is not None:
            return self.pooler(features).flatten(1)
        return self.norm(features.mean((2, 3)))


def _tower(model: Any) -> Any:
    """The picture half: of a pair, of a classifier, or the model itself."""
    if hasattr(model, "vision_model"):
        return model.vision_model
    # Not model.base_model: DINOv3's prefix, "model", is also the name of a part of its backbone.
    return getattr(model, model.base_model_prefix) if "ForImageClassification" in type(model).__name__ else model


def split_tower(tower: Any, classifier: nn.Linear | None, size: tuple[int, int], name: str) -> tuple[Split, Tensor]:
    """Cut a tower; beside the halves, what they pool from the example picture."""
    pixels = example_pixels(size)
    kind = tower.config.model_type
    family = FAMILIES.get(kind)
    if family is None:
        try:
            with torch.no_grad():
                out = tower(pixels)
        except (TypeError, ValueError):  # a network that wants more than pixels
            out = None
        features = getattr(out, "last_hidden_state", None)
        if features is None or features.ndim != 4 or getattr(out, "pooler_output", None) is None:
            raise ModelError(
                f"{name} is a {kind!r}, for which SeeWhy has no cut. One of {', '.join(sorted(FAMILIES))} or a network "
                "with a map (b, c, h, w) was expected. Use seewhy.encoders.module.from_module with a target_layer."
            )
        layout = Layout("nchw")
        split = Split(freeze(Map(tower)), freeze(average_if_equal(MapTail(tower), features, layout)), layout)
        return split, prove(split, pixels, out.pooler_output.flatten(1), name)
    tower.pooler = None  # ViT's tanh pooler is not in DINO's weights, and no classifier reads it
    stack = next(s for s in STACKS if _has(tower, s))
    config = tower.config
    prefix = family.prefix(config)
    if classifier is not None and kind.startswith("dinov2") and classifier.in_features == 2 * config.hidden_size:
        family = Family(family.norm, family.prefix, _class_and_mean)
    patch = config.patch_size if isinstance(config.patch_size, int) else config.patch_size[0]
    layout = Layout("tokens", (size[0] // patch, size[1] // patch), prefix)
    last = tower.get_submodule(stack)[-1]
    out, keywords = run_and_record(lambda: tower(pixels), last)
    tail = TokenTail(tower, family, prefix)
    split = Split(freeze(Tokens(tower, stack, family.norm)), freeze(LastBlock(last, tail, keywords)), layout)
    tokens = out.last_hidden_state
    with torch.no_grad():
        if family.read is _class_and_mean:
            expected = torch.cat([tokens[:, 0], tokens[:, prefix:].mean(1)], 1)
        else:
            pooled = getattr(out, "pooler_output", None)
            expected = tokens[:, 0] if pooled is None else pooled
    return split, prove(split, pixels, expected, name)


def _has(module: nn.Module, path: str) -> bool:
    try:
        return isinstance(module.get_submodule(path), nn.ModuleList)
    except AttributeError:
        return False


def _classifier(model: nn.Module) -> nn.Linear | None:
    found = getattr(model, "classifier", None)
    if isinstance(found, nn.Sequential):
        found = found[-1]
    return found if isinstance(found, nn.Linear) else None


def _encoder(model: Any, transform: Transform, tokenizer: Any, name: str, engine: str) -> Encoder:
    tower, classifier = _tower(model), _classifier(model)
    split, pooled = split_tower(tower, classifier, transform.input_size, name)
    if classifier is not None:
        with torch.no_grad():
            fits = classifier.in_features == pooled.shape[1] and same(
                classifier(pooled), model(example_pixels(transform.input_size)).logits
            )
        classifier = classifier if fits else None
    digest = fingerprint(model, transform)
    labels = getattr(model.config, "id2label", None) or {}
    return Encoder(
        name=name,
        transform=transform,
        trunk=lambda: split.trunk,
        head=split.head,
        layout=split.layout,
        fingerprint=digest,
        classifier=classifier,
        classes=distinct(str(labels[i]) for i in sorted(labels)) if classifier is not None else (),
        text=(lambda: text_tower(model, tokenizer, digest)) if tokenizer is not None else None,
        module=lambda: tower,
        engine=engine,
    )
