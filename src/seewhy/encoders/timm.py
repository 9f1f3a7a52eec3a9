"""Load encoders of timm: ``timm:NAME``, ``timm:/folder`` and ``timm:hf-hub:ORG/NAME``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ModelError, UnknownNameError, WeightsError
from ..types import Transform
from .base import Encoder, Layout
from .fence import Missing, Stored, building, check_counts, check_kinds, fenced, loading
from .module import split_module
from .names import distinct, imagenet_labels
from .split import (
    LastBlock,
    NotFiniteError,
    Part,
    Split,
    average_if_equal,
    example_pixels,
    follows,
    freeze,
    linear_of,
    prove,
    replaced,
    run_and_record,
)  # fmt: skip
from .weights import WeightsFile, fetch, fetch_url, read_config, weights_in

LIBRARIES = ("timm",)
WEIGHT_FILES = ("model.safetensors", "open_clip_model.safetensors", "pytorch_model.bin", "open_clip_pytorch_model.bin")


def load(name: str, *, engine: str = "auto", **options: Any) -> Encoder:
    """Load a timm network.

    Args:
        name: name (``"resnet18.a1_in1k"``), folder written by ``timm.models.save_for_hf``, or ``"hf-hub:ORG/NAME"``.
        engine: engine that runs the trunk.
        **options: keyword arguments of ``timm.create_model``.
    """
    model, missing = _create(name, options)
    freeze(model).float()
    with missing.unread():
        encoder = encoder_of(model, f"timm:{name}", engine=engine)
        missing.check(model, encoder.transform.input_size)
    return encoder


def encoder_of(
    model: nn.Module,
    name: str,
    *,
    engine: str = "auto",
    transform: Transform | None = None,
    classes: Sequence[str] = (),
) -> Encoder:
    """Make an encoder from a timm network in evaluation mode."""
    with _configuration(name):
        transform = transform or transform_of(model, name)
    split, classifier = split_timm(model, transform.input_size, name)
    with _configuration(name):
        names = tuple(classes) or distinct(class_names(model))
    return split.encoder(model, name, transform, classifier=classifier, classes=names, engine=engine)


def _create(name: str, options: dict[str, Any]) -> tuple[nn.Module, Missing]:
    """Load a network from a folder, the cache or the hub; return it with its missing tensors."""
    import timm

    folder = Path(name).expanduser()
    if name.startswith(("/", "./", "../", "~")) or folder.is_dir():
        return _create_from_folder(name, folder, options)
    if name.startswith("hf-hub:"):
        repo = name.removeprefix("hf-hub:")
        return _create_from_folder(name, fetch(f"timm:{name}", repo, WEIGHT_FILES, ("config.json",)), options)
    if not timm.is_model(name):
        raise UnknownNameError("timm network", name, timm.list_models())
    stem, _, tag = name.partition(".")
    tagged = timm.list_pretrained(f"{stem}.*") + timm.list_pretrained(stem)
    if tag and name not in tagged:  # a misspelt tag gets suggestions
        raise UnknownNameError("timm network", name, tagged or timm.list_models())
    cfg = timm.models.get_pretrained_cfg(name)
    if cfg is None or not cfg.has_weights:
        raise WeightsError(
            f"timm has no pretrained weights for {name!r}. Choose one of timm.list_pretrained(), or save your own with "
            "timm.models.save_for_hf: 'timm:/folder'."
        )
    if cfg.hf_hub_id:
        files = (cfg.hf_hub_filename,) if cfg.hf_hub_filename else WEIGHT_FILES
        folder = fetch(f"timm:{name}", cfg.hf_hub_id, files, ("config.json",))
        file = next(folder / file for file in files if (folder / file).is_file())
        return _filled(name, name, WeightsFile.open(file).weights(), options)
    # timm finds it in torch's cache, and reads it as tensors alone
    fetch_url(f"timm:{name}", cfg.url, "timm:/path/to/a/folder")
    with fenced():
        model = timm.create_model(name, pretrained=True, **options)
    return model, Missing.of(f"timm:{name}", model, ())


def _filled(
    name: str, architecture: str, weights: Mapping[str, Tensor], options: dict[str, Any]
) -> tuple[nn.Module, Missing]:
    import timm

    check_kinds(f"timm:{name}", weights)
    with loading(
        lambda why: WeightsError(
            f"'timm:{name}' cannot be loaded: {why}. Write the folder again with timm.models.save_for_hf."
        )
    ):
        given = {"source": "", "state_dict": weights}
        with building(Stored.of(weights)) as missing:
            with torch.device("meta"):
                timm.create_model(architecture, pretrained=False, **options)
            model = timm.create_model(architecture, pretrained=True, pretrained_cfg_overlay=given, **options)
        model.pretrained_cfg.pop("state_dict", None)  # else the weights stay in memory
    return model, Missing.of(f"timm:{name}", model, missing)


def _create_from_folder(name: str, folder: Path, options: dict[str, Any]) -> tuple[nn.Module, Missing]:
    cure = "Write one with timm.models.save_for_hf(model, folder, safe_serialization=True)."
    found = weights_in(f"timm:{name}", folder, "config.json", cure)
    order = {file: i for i, file in enumerate(WEIGHT_FILES)}  # among other names, safetensors first
    first = min(found, key=lambda f: (order.get(f.name, len(order)), f.suffix != ".safetensors"))
    file = WeightsFile.open(first)
    data = read_config(f"timm:{name}", folder / "config.json", cure)
    known = data.get("pretrained_cfg", data)
    keys = ("input_size", "mean", "std", "interpolation")
    if unknown := [key for key in keys if not isinstance(known, dict) or key not in known]:
        raise ModelError(
            f"config.json of 'timm:{name}' must have {', '.join(unknown)}. Add the keys under 'pretrained_cfg', for "
            "example "
            '"input_size": [3, 224, 224], "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], '
            '"interpolation": "bicubic", "crop_pct": 0.875.'
        )
    check_counts(f"timm:{name}", data)
    # The file is opened here, because some versions of timm run the code in a pickle.
    return _filled(name, f"local-dir:{folder}", file.weights(), options)


def _configuration(name: str) -> AbstractContextManager[None]:
    """Convert errors from an invalid configuration to ``ModelError``."""
    return loading(
        lambda why: ModelError(f"The configuration of {name} is invalid: {why}. Correct its pretrained_cfg.")
    )


def transform_of(model: nn.Module, name: str) -> Transform:
    import timm

    data = timm.data.resolve_model_data_config(model)
    size = getattr(getattr(model, "patch_embed", None), "img_size", None)
    if size is not None and not getattr(model, "dynamic_img_size", False):
        data["input_size"] = (data["input_size"][0], *size)
    return transform_of_config(data, name)


def transform_of_config(data: dict[str, Any], name: str) -> Transform:
    """Convert timm's data configuration (``resolve_data_config``) to a :class:`Transform`."""
    channels, height, width = data["input_size"]
    if channels != 3:
        raise ModelError(f"{name} must take 3 channels (RGB), got {channels}. Choose another network.")
    percent = data.get("crop_pct") or 1.0
    data = {"crop_mode": "center", **data}
    scaled = (math.floor(height / percent), math.floor(width / percent))
    resize: int | tuple[int, int]
    if data["crop_mode"] == "squash":
        resize = scaled
    elif data["crop_mode"] == "center" and scaled[0] == scaled[1]:
        resize = scaled[0]
    else:
        raise ModelError(
            f"`crop_mode` of {name} must be 'squash', or 'center' with a square input, got {data['crop_mode']!r} with "
            f"{height} x {width} pixels. Set crop_mode to 'squash' in its config."
        )
    mean, std = tuple(map(float, data["mean"])), tuple(map(float, data["std"]))
    return Transform((height, width), resize, data["interpolation"], mean, std)  # type: ignore[arg-type]


def class_names(model: nn.Module) -> tuple[str, ...]:
    """Return the class names: those of the configuration, those of ImageNet, or ``class 0``, ``class 1``, …."""
    from timm.data import ImageNetInfo, infer_imagenet_subset

    n = int(getattr(model, "num_classes", 0) or 0)
    cfg = getattr(model, "pretrained_cfg", None) or {}
    labels = cfg.get("label_names") or ()
    words = cfg.get("label_descriptions") or {}
    if len(labels) == n:
        return tuple(str(words.get(label, label)) if isinstance(words, dict) else str(label) for label in labels)
    subset = infer_imagenet_subset(model)
    said = " ".join(str(cfg.get(key) or "") for key in ("tag", "hf_hub_id", "url")).lower()
    if n == 1000 and subset == "imagenet-1k":
        return imagenet_labels()
    if subset and ("in21k" in said or "in22k" in said or "in12k" in said):
        return tuple(ImageNetInfo(subset).label_descriptions())
    return tuple(f"class {i}" for i in range(n))


def split_timm(model: Any, size: tuple[int, int], name: str) -> tuple[Split, nn.Linear | None]:
    """Split a timm network before its pooling, or before the last block if it has tokens."""
    if not hasattr(model, "forward_head") or not hasattr(model, "forward_features"):
        raise _no_cut(name)
    pixels = example_pixels(size)
    stack: Any = getattr(model, "blocks", None)
    blocks = list(stack) if isinstance(stack, nn.Sequential | nn.ModuleList) else []
    last = blocks[-1] if blocks else model
    features, keywords = run_and_record(lambda: model.forward_features(pixels), last)
    stem = getattr(model, "patch_embed", None) or getattr(model, "stem", None)
    grid = getattr(stem, "grid_size", None)
    n_axes = features.ndim if isinstance(features, Tensor) else 0
    if n_axes == 4:
        layout = Layout("nhwc" if getattr(model, "output_fmt", "NCHW") == "NHWC" else "nchw")
        pool = Part(model, lambda model, x: model.forward_head(x, pre_logits=True))
        split = Split(freeze(Part(model, _features)), freeze(average_if_equal(pool, features, layout)), layout)
        with torch.no_grad():
            pooled = split.head(features)
    elif (
        n_axes == 3
        and grid is not None
        and hasattr(model, "norm")
        and blocks
        and follows(lambda: model.forward_features(pixels), last, model.norm)
    ):
        split = _split_tokens(model, blocks, keywords, tuple(grid))
        with torch.no_grad():
            pooled = prove(split, pixels, model.forward_head(features, pre_logits=True), name)
    else:
        return _split_by_name(model, [f"blocks.{len(blocks) - 1}"] if blocks else [], size, name)
    if not getattr(model, "num_classes", 0):
        return split, None
    with torch.no_grad():
        logits = model.forward_head(features)
    # A few networks give their whole head, or only the last of its layers.
    last = model.get_classifier() if hasattr(model, "get_classifier") else None
    layers = (getattr(last, "fc", last), getattr(model, "head", None))
    return split, next((found for layer in layers if (found := linear_of(layer, pooled, logits)) is not None), None)


def _split_by_name(model: Any, last: list[str], size: tuple[int, int], name: str) -> tuple[Split, nn.Linear | None]:
    """Split a network after its last block or, if its last tokens have no gradient, earlier."""
    for layer in (*last, None):
        try:
            n_classes = int(getattr(model, "num_classes", 0) or 0)
            split, classifier, _ = split_module(model, layer, None, size, name, n_classes)
        except NotFiniteError:
            raise
        except ModelError:
            continue
        if split.layout.kind == "tokens":
            return split, classifier
    raise _no_cut(name)


def _split_tokens(model: Any, blocks: list[nn.Module], keywords: dict[str, Any], grid: tuple[int, int]) -> Split:
    rest = nn.Sequential(*blocks[:-1]) if isinstance(model.blocks, nn.Sequential) else nn.ModuleList(blocks[:-1])
    trunk = Part(replaced(model, {"blocks": rest, "norm": nn.Identity()}), _features)
    # Behind the last block: norm, pooling, norm.
    behind = replaced(model, {"patch_embed": nn.Identity(), "blocks": nn.Sequential()})
    tail = Part(behind, lambda model, x: model.forward_head(model.norm(x), pre_logits=True), "model")
    layout = Layout("tokens", grid, int(getattr(model, "num_prefix_tokens", 0)))
    return Split(freeze(trunk), freeze(LastBlock(blocks[-1], tail, keywords)), layout)


def _features(model: Any, pixels: Tensor) -> Tensor:
    return model.forward_features(pixels)


def _no_cut(name: str) -> ModelError:
    return ModelError(
        f"{name} must return a feature map (b, c, h, w) or the tokens of one stack of blocks. Use "
        "seewhy.encoders.module.from_module with a target_layer."
    )


def names() -> list[str]:
    """List the names of all pretrained timm networks."""
    import timm

    return timm.list_pretrained()
