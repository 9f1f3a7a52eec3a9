"""Encoders of open_clip: ``open_clip:MODEL/PRETRAINED`` (a tag or a file) and ``open_clip:local-dir:/folder``."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import MissingExtraError, ModelError, WeightsError
from ..types import Transform
from .base import Encoder, Layout
from .clip_text import Projection
from .fence import loading
from .open_clip_source import fetch_for, find_source
from .open_clip_text import text_tower
from .split import (
    LastBlock,
    Method,
    Split,
    example_pixels,
    fingerprint,
    freeze,
    in_single,
    prove,
    replaced,
    run_and_record,
)
from .timm import split_timm
from .whole import OWN, Stored, building, check_numbers, silent


def load(name: str, *, engine: str = "auto", **options: Any) -> Encoder:
    """An open_clip network with its own transform, tokenizer and activation.

    Args:
        name: ``"ViT-B-32/laion2b_s34b_b79k"``, ``"ViT-B-32//path/to/weights.safetensors"``,
            ``"local-dir:/folder"`` or ``"hf-hub:ORG/NAME"``.
        engine: what runs the trunk.
        options: passed to ``open_clip.create_model``.

    Raises:
        UnknownNameError: no such model or tag; carries the nearest names.
        WeightsError: the weights are not on this machine and cannot be fetched.
        ModelError: the preprocessing is not known or cannot be expressed.
    """
    try:
        import open_clip
    except ImportError as error:
        raise MissingExtraError("open-clip", "open_clip") from error
    source = find_source(name)
    forced = {"force_quick_gelu": True} if source.quick_gelu else {}
    for repo, files in source.fetched:
        fetch_for(name, repo, files)

    def refusal(why: str) -> WeightsError:
        return WeightsError(
            f"'open_clip:{name}' cannot be loaded: {why}. Weights that fit the model were expected. "
            "Check the model name, and that the file is complete."
        )

    with silent(), loading(refusal, online=source.online):
        if source.files:
            stored = Stored.in_files(f"open_clip:{name}", source.files, source.config)
            with torch.device("meta"), building(stored):
                open_clip.create_model(source.model, load_weights=False, pretrained_hf=False, device="meta", **options)
        model = open_clip.create_model(
            source.model, source.pretrained, require_pretrained=True, force_preprocess_cfg=source.preprocess,
            pretrained_hf=False, weights_only=True, **forced, **options,
        )  # fmt: skip
        tokenizer = open_clip.get_tokenizer(source.model, **(OWN if source.hf_tokenizer else {}))
    check_numbers(f"open_clip:{name}", model)
    return _encoder(in_single(freeze(model)), tokenizer, f"open_clip:{name}", engine)


def transform_of(preprocess: dict[str, Any], name: str) -> Transform:
    """open_clip's evaluation preprocessing as a Transform."""
    size = preprocess["size"]
    height, width = (size, size) if isinstance(size, int) else size
    mode = preprocess["resize_mode"]
    resize: int | tuple[int, int]
    if mode == "squash":
        resize = (height, width)
    elif mode == "shortest" and height == width:
        resize = height
    else:
        raise ModelError(
            f"{name} prepares pictures with resize mode {mode!r} to {height} x {width} pixels. 'squash', or 'shortest' "
            "with a square input, was expected. Choose another model."
        )
    mean, std = tuple(map(float, preprocess["mean"])), tuple(map(float, preprocess["std"]))
    return Transform((height, width), resize, preprocess["interpolation"], mean, std)  # type: ignore[arg-type]


def _encoder(model: Any, tokenizer: Any, name: str, engine: str) -> Encoder:
    transform = transform_of(model.visual.preprocess_cfg, name)
    split, projection = split_visual(model.visual, transform.input_size, name)
    digest = fingerprint(model, transform)

    return Encoder(
        name=name,
        transform=transform,
        trunk=lambda: split.trunk,
        head=split.head,
        layout=split.layout,
        fingerprint=digest,
        text=lambda: text_tower(model, tokenizer, digest, projection),
        module=lambda: model.visual,
        engine=engine,
    )


class VisualTail(nn.Module):
    """What follows the last block of open_clip's ViT: norm and pooling, without the projection."""

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = replaced(visual, {"conv1": nn.Identity(), "transformer": nn.Identity()})

    def forward(self, tokens: Float[Tensor, "b t d"]) -> Float[Tensor, "b p"]:
        pooled = self.visual._pool(tokens)[0]  # type: ignore[operator]
        return pooled[:, 0] if pooled.ndim == 3 else pooled  # a contrastive pooler keeps the axis of its one query


class Embedded(nn.Module):
    """open_clip's ViT up to the input of its last block."""

    def __init__(self, visual: Any) -> None:
        super().__init__()
        blocks = nn.ModuleList(list(visual.transformer.resblocks)[:-1])
        self.visual = replaced(visual, {"transformer.resblocks": blocks})

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b t d"]:
        return self.visual.transformer(self.visual._embeds(pixels))  # type: ignore[operator]


def split_visual(visual: Any, size: tuple[int, int], name: str) -> tuple[Split, nn.Module | None]:
    """Cut a picture tower; beside the halves, the projection into the space shared with text."""
    pixels = example_pixels(size)
    kind = type(visual).__name__
    if kind == "TimmModel":
        split, _ = split_timm(visual.trunk, size, name)
        if isinstance(getattr(visual.head, "pool", None), nn.Module):
            split = Split(split.trunk, freeze(visual.head), split.layout)
            return split, None
        return split, visual.head if len(visual.head) else _timm_classifier(visual.trunk)
    if kind == "ModifiedResNet":
        trunk = Method(replaced(visual, {"attnpool": nn.Identity()}), "forward")
        split = Split(freeze(trunk), visual.attnpool, Layout("nchw"))
        projection: nn.Module | None = None
    elif kind == "VisionTransformer":
        transformer = visual.transformer
        last = replaced(transformer, {"resblocks": nn.ModuleList([transformer.resblocks[-1]])})
        split = Split(
            freeze(Embedded(visual)),
            freeze(LastBlock(last, VisualTail(visual))),
            Layout("tokens", tuple(visual.grid_size), 1),
        )
        projection = Projection(visual.proj) if visual.proj is not None else None
    else:
        raise ModelError(
            f"{name} has a picture tower {kind} that SeeWhy has no cut for. VisionTransformer, ModifiedResNet or "
            "TimmModel was expected. Use seewhy.encoders.module.from_module with a target_layer."
        )
    out, _ = run_and_record(lambda: visual(pixels), visual)
    whole = Split(split.trunk, nn.Sequential(split.head, projection or nn.Identity()), split.layout)
    expected = out[0] if isinstance(out, tuple) else out
    prove(whole, pixels, expected[:, 0] if expected.ndim == 3 else expected, name)
    return split, projection


def _timm_classifier(trunk: Any) -> nn.Module | None:
    """With ``proj=''`` open_clip projects with the timm network's own classifier."""
    classifier = trunk.get_classifier()
    return classifier if isinstance(classifier, nn.Linear) else None


def names() -> list[str]:
    """All models that open_clip has weights for, each to be written after ``open_clip:``; none where it is missing."""
    try:
        import open_clip
    except ImportError:
        return []
    return [f"{model}/{weights}" for model, weights in open_clip.list_pretrained()]
