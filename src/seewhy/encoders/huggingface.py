"""Load encoders of transformers, ``hf:ORG/NAME`` or ``hf:/folder``: CLIP, SigLIP, DINO, ViT, ConvNeXt, ResNet."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..errors import ModelError, WeightsError, needs
from ..types import Transform
from .base import Encoder, Layout
from .fence import OWN, Stored, from_saved, loading
from .names import distinct
from .split import (
    LastBlock,
    Part,
    Split,
    average_if_equal,
    example_pixels,
    fingerprint,
    freeze,
    prove,
    replaced,
    run_and_record,
    same,
)  # fmt: skip
from .text_tokens import ClipText, Given, Sentence, TokenEmbeddings, Tokenised, TokenVectors
from .weights import fetch, weights_in

LIBRARIES = ("timm", "transformers")
STACKS = ("encoder.layer", "encoder.layers", "model.layer", "layers", "layer")
WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json")
BESIDE = ("*.json", "*.txt", "*.model")
RESAMPLE = {1: "lanczos", 2: "bilinear", 3: "bicubic"}


Read = Callable[[nn.Module, Any, Tensor, int], Tensor]
"""Function from norm, network, last tokens and number of prefix tokens to the pooled vector."""


class Family(NamedTuple):
    """The pooling of a model type: the name of the last norm, the number of prefix tokens and the pooling function."""

    norm: str
    prefix: int
    read: Read


def _class_and_mean(norm: nn.Module, tower: nn.Module, tokens: Tensor, prefix: int) -> Tensor:
    tokens = norm(tokens)
    return torch.cat([tokens[:, 0], tokens[:, prefix:].mean(1)], 1)


_class_then_norm: Read = lambda norm, tower, tokens, prefix: norm(tokens[:, 0])  # noqa: E731
_norm_then_class: Read = lambda norm, tower, tokens, prefix: norm(tokens)[:, 0]  # noqa: E731
_norm_then_head: Read = lambda norm, tower, tokens, prefix: tower.head(norm(tokens))  # noqa: E731
FAMILIES = {
    "clip_vision_model": Family("post_layernorm", 1, _class_then_norm),
    "siglip_vision_model": Family("post_layernorm", 0, _norm_then_head),
    "vit": Family("layernorm", 1, _norm_then_class),
    "deit": Family("layernorm", 2, _norm_then_class),
    "dinov2": Family("layernorm", 1, _norm_then_class),
    "dinov2_with_registers": Family("layernorm", 1, _norm_then_class),
    "dinov3_vit": Family("norm", 1, _norm_then_class),
}
"""Supported token networks by ``model_type``; other networks must return a feature map ``(b, c, h, w)``."""


def load(name: str, *, engine: str = "auto", **options: Any) -> Encoder:
    """Load a transformers network from safetensors, without remote code.

    Args:
        name: ``"ORG/NAME"`` on the hub, or a folder that ``save_pretrained`` wrote.
        engine: engine that runs the trunk.
        **options: keyword arguments of ``from_pretrained``.
    """
    with needs("huggingface", "transformers"):
        import transformers
    whole, folder = f"hf:{name}", Path(name).expanduser()
    if not (name.startswith(("/", "./", "../", "~")) or folder.is_dir()):
        folder = fetch(whole, name, WEIGHT_FILES, BESIDE)
    check_saved(whole, folder)
    with loading(
        lambda why: ModelError(
            f"'{whole}' cannot be loaded: {why} Choose a model that transformers supports without code from the "
            "repository."
        )
    ):
        config = transformers.AutoConfig.from_pretrained(folder, **OWN)
        # The classifier if the weights are one, else the backbone or the pair.
        classifies = any("ForImageClassification" in a for a in config.architectures or ())
        auto = transformers.AutoModelForImageClassification if classifies else transformers.AutoModel
        model, missing = from_saved(auto, whole, folder, **{"dtype": torch.float32, **options})
        freeze(model).float()
        transform = transform_of(processor_of(folder, whole), whole)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **OWN) if hasattr(model, "text_model") else None
    with missing.unread():
        encoder = _encoder(model, transform, tokenizer, whole, engine)
        if missing.tensors and encoder.has_text:
            same(words := encoder.text.encode_text(["a"]), words)
    return encoder


def check_saved(name: str, folder: Path) -> None:
    """Check that a folder has a complete model with safetensors weights."""
    write = "Write it with model.save_pretrained(folder) and processor.save_pretrained(folder)."
    weights_in(name, folder, "config.json", write)
    if (folder / "adapter_config.json").exists():
        raise ModelError(
            f"{name!r} is only an adapter (adapter_config.json). Merge the adapter into its model, and save the model."
        )
    if not any((folder / file).is_file() for file in WEIGHT_FILES):
        raise WeightsError(
            f"The folder of {name!r} must have {WEIGHT_FILES[0]}, because a pickle such as pytorch_model.bin can run "
            "code. If you trust it, convert it: AutoModel.from_pretrained(folder).save_pretrained(folder, "
            "safe_serialization=True)."
        )
    Stored.beside(name, folder)


def processor_of(folder: Path, name: str) -> dict[str, Any]:
    """Return the configuration of the saved image processor."""
    import transformers

    try:
        processor = transformers.AutoImageProcessor.from_pretrained(folder, **OWN)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"The preprocessing of {name!r} is unknown: preprocessor_config.json is missing. Write it with "
            "processor.save_pretrained(folder), or copy the file from the hub."
        ) from error
    return json.loads(processor.to_json_string())


def transform_of(data: dict[str, Any], name: str) -> Transform:
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
            f"The preprocessing of {name} must be a resize, optionally with a centre crop, in lanczos, bilinear or "
            f"bicubic, got {said}. Choose another model."
        )
    own = data.get("do_normalize", True)
    mean, std = (data["image_mean"], data["image_std"]) if own else ((0.0,) * 3, (1.0,) * 3)
    return Transform(target, resize, interpolation, tuple(mean), tuple(std))


def _states(tower: Any, pixels: Tensor) -> Tensor:
    return tower(pixels).last_hidden_state


class TokenTail(nn.Module):
    def __init__(self, tower: nn.Module, family: Family, prefix: int) -> None:
        super().__init__()
        self.norm = tower.get_submodule(family.norm)
        self.tower = nn.Module()
        if hasattr(tower, "head"):
            self.tower.head = tower.head
        self.read, self.prefix = family.read, prefix

    def forward(self, tokens: Float[Tensor, "b t d"]) -> Float[Tensor, "b p"]:
        return self.read(self.norm, self.tower, tokens, self.prefix)


class MapTail(nn.Module):
    """Pooling of a feature map: the network's pooler, or the mean followed by the norm."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.pooler = getattr(tower, "pooler", None)
        self.norm = getattr(tower, "layernorm", None) or nn.Identity()

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c"]:
        return self.norm(features.mean((2, 3))) if self.pooler is None else self.pooler(features).flatten(1)


def split_tower(tower: Any, classifier: nn.Linear | None, size: tuple[int, int], name: str) -> tuple[Split, Tensor]:
    """Split an image network into trunk and head, and compute the pooled vector of a random picture."""
    pixels = example_pixels(size)
    kind, config = tower.config.model_type, tower.config
    family = FAMILIES.get(kind)
    if family is None:
        return _split_map(tower, pixels, name)
    tower.pooler = None  # ViT's tanh pooler is not in DINO's weights, and no classifier reads it
    parts = dict(tower.named_modules())
    stack = next(s for s in STACKS if isinstance(parts.get(s), nn.ModuleList))
    prefix = family.prefix + int(getattr(config, "num_register_tokens", 0))
    if classifier is not None and kind.startswith("dinov2") and classifier.in_features == 2 * config.hidden_size:
        family = family._replace(read=_class_and_mean)
    patch = config.patch_size if isinstance(config.patch_size, int) else config.patch_size[0]
    layout = Layout("tokens", (size[0] // patch, size[1] // patch), prefix)
    last = parts[stack][-1]
    out, keywords = run_and_record(lambda: tower(pixels), last)
    changes = {stack: nn.ModuleList(list(parts[stack])[:-1]), family.norm: nn.Identity()}
    changes |= {"head": nn.Identity()} if hasattr(tower, "head") else {}
    trunk, tail = Part(replaced(tower, changes), _states, "tower"), TokenTail(tower, family, prefix)
    split = Split(freeze(trunk), freeze(LastBlock(last, tail, keywords)), layout)
    tokens, pooled = out.last_hidden_state, getattr(out, "pooler_output", None)
    if family.read is _class_and_mean:
        pooled = torch.cat([tokens[:, 0], tokens[:, prefix:].mean(1)], 1)
    return split, prove(split, pixels, tokens[:, 0] if pooled is None else pooled, name)


def _split_map(tower: Any, pixels: Float[Tensor, "b 3 h w"], name: str) -> tuple[Split, Tensor]:
    try:
        with torch.no_grad():
            out = tower(pixels)
    except (TypeError, ValueError):  # the network needs more inputs than pixels
        out = None
    features = getattr(out, "last_hidden_state", None)
    if features is None or features.ndim != 4 or getattr(out, "pooler_output", None) is None:
        raise ModelError(
            f"{name} must be of the type {', '.join(sorted(FAMILIES))}, or return a feature map (b, c, h, w), got the "
            f"type {tower.config.model_type!r}. Use seewhy.encoders.module.from_module with a target_layer."
        )
    layout = Layout("nchw")
    head = average_if_equal(MapTail(tower), features, layout)
    split = Split(freeze(Part(tower, _states, "tower")), freeze(head), layout)
    return split, prove(split, pixels, out.pooler_output.flatten(1), name)


def _encoder(model: Any, transform: Transform, tokenizer: Any, name: str, engine: str) -> Encoder:
    if hasattr(model, "vision_model"):  # a pair
        tower = model.vision_model
    elif "ForImageClassification" in type(model).__name__:
        # Not model.base_model: DINOv3's prefix, "model", is also the name of a part of its backbone.
        tower = getattr(model, model.base_model_prefix)
    else:
        tower = model
    last = getattr(model, "classifier", None)
    last = last[-1] if isinstance(last, nn.Sequential) else last
    classifier = last if isinstance(last, nn.Linear) else None
    split, pooled = split_tower(tower, classifier, transform.input_size, name)
    if classifier is not None:
        with torch.no_grad():
            logits = model(example_pixels(transform.input_size)).logits
            if classifier.in_features != pooled.shape[1] or not same(classifier(pooled), logits):
                classifier = None
    digest = fingerprint(model, transform)
    labels = getattr(model.config, "id2label", None) or {}
    names = distinct(str(labels[i]) for i in sorted(labels))
    text = (lambda: text_tower(model, tokenizer, digest)) if tokenizer is not None else None
    return split.encoder(
        tower, name, transform, fingerprint=digest, classifier=classifier, classes=names, text=text, engine=engine
    )


def text_tower(model: Any, tokenizer: Any, digest: str) -> ClipText:
    length = model.config.text_config.max_position_embeddings
    fills = "siglip" in model.config.model_type
    padding = "max_length" if fills else "longest"

    def tokens(texts: list[str]) -> Tokenised:
        encoded = tokenizer(texts, padding=padding, truncation=True, max_length=length, return_tensors="pt")
        wanted = ("input_ids",) if fills else ("input_ids", "attention_mask")
        return tuple(encoded[key] for key in wanted if key in encoded)

    def n_cut(texts: list[str]) -> int:
        return sum(len(ids) > length for ids in tokenizer(texts, verbose=False)["input_ids"]) if texts else 0

    projection = getattr(model, "visual_projection", None)
    module = TextHalf(model, Sentence.of(tokenizer, length))
    return ClipText(digest, math.exp(float(model.logit_scale.detach())), module, tokens, projection, n_cut=n_cut)


class TextHalf(nn.Module):
    """The text encoder of a transformers model."""

    def __init__(self, model: Any, sentence: Sentence) -> None:
        super().__init__()
        others = {name: nn.Identity() for name in ("vision_model", "visual_projection") if hasattr(model, name)}
        self.model: Any = replaced(model, others)
        self.sentence = sentence

    def forward(self, ids: Int[Tensor, "n t"], mask: Int[Tensor, "n t"] | None = None) -> Float[Tensor, "n d"]:
        out = self.model.get_text_features(input_ids=ids, attention_mask=mask)
        return out if isinstance(out, Tensor) else out.pooler_output

    def embed(self, ids: Int[Tensor, "n t"], mask: Int[Tensor, "n t"] | None = None) -> TokenEmbeddings:
        vectors = self.model.text_model.get_input_embeddings()(ids)
        return TokenEmbeddings.of(vectors, ids, self.sentence.lengths(ids, mask), self.sentence)

    def read(self, embeddings: TokenEmbeddings) -> TokenVectors:
        """Compute one vector per token, with the projection that the network applies to the pooled token."""
        tower = self.model.text_model
        words = tower.get_input_embeddings()
        place = next(name for name, module in tower.named_modules() if module is words)
        # SigLIP attends to its padding, and has no layer of its own behind the tower.
        projection = getattr(self.model, "text_projection", None)
        mask = None if projection is None else embeddings.mask.long()
        out = replaced(tower, {place: Given(embeddings.vectors)})(input_ids=embeddings.ids, attention_mask=mask)
        if projection is not None:
            return TokenVectors(projection(out.last_hidden_state), embeddings.words, projection(out.pooler_output))
        return TokenVectors(tower.head(out.last_hidden_state), embeddings.words, out.pooler_output)
