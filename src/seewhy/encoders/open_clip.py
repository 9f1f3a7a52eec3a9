"""Load encoders of open_clip: ``open_clip:MODEL/PRETRAINED`` (a tag or a file) or ``open_clip:local-dir:/folder``."""

from __future__ import annotations

import json
import logging
import math
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..errors import ModelError, UnknownNameError, WeightsError, needs
from ..types import Transform
from .base import Encoder, Layout
from .fence import OWN, Stored, building, check_numbers, loading, silent
from .split import (
    LastBlock,
    Part,
    Split,
    example_pixels,
    fingerprint,
    freeze,
    prove,
    replaced,
    run_and_record,
)  # fmt: skip
from .text_tokens import ClipText, Given, Sentence, TokenEmbeddings, TokenVectors
from .timm import split_timm
from .weights import check_file, fetch, is_offline, read_config, weights_in

log = logging.getLogger("seewhy")

LIBRARIES = ("open_clip",)
EXAMPLE = (
    '{"preprocess_cfg": {"size": 224, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], '
    '"interpolation": "bicubic", "resize_mode": "squash"}}'
)
KEYS = ("mean", "std", "interpolation", "resize_mode")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "spiece.model", "sentencepiece.bpe.model", "vocab.txt")
TOKENIZER_OPTIONS = frozenset({"clean", "strip_sep_token", "language"})
"""Tokenizer options that a configuration file may set."""
REPO = r"([A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*"
BESIDE = ("*.json", "*.txt", "*.model")
WEIGHT_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")


def load(name: str, *, engine: str = "auto", **options: Any) -> Encoder:
    """Load an encoder of open_clip.

    Args:
        name: ``"ViT-B-32/laion2b_s34b_b79k"``, ``"ViT-B-32//path/to/weights.safetensors"``, ``"local-dir:/folder"`` or
            ``"hf-hub:ORG/NAME"``.
        engine: engine that runs the trunk.
        **options: keyword arguments of ``open_clip.create_model``.
    """
    with needs("open-clip", "open_clip"):
        import open_clip
    whole, source = f"open_clip:{name}", find_source(name)
    forced = {"force_quick_gelu": True} if source.quick_gelu else {}
    for repo, files in source.fetched:
        fetch(whole, repo, files, BESIDE)

    def refusal(why: str) -> WeightsError:
        return WeightsError(f"'{whole}' cannot be loaded: {why}. Check the model name, and that the file is complete.")

    with silent(), loading(refusal, online=source.online):
        if source.files:
            stored = Stored.in_files(whole, source.files, source.config)
            with torch.device("meta"), building(stored):
                open_clip.create_model(source.model, load_weights=False, pretrained_hf=False, device="meta", **options)
        model = open_clip.create_model(
            source.model, source.pretrained, require_pretrained=True, force_preprocess_cfg=source.preprocess,
            pretrained_hf=False, weights_only=True, **forced, **options,
        )  # fmt: skip
        tokenizer = open_clip.get_tokenizer(source.model, **(OWN if source.hf_tokenizer else {}))
    check_numbers(whole, model)
    freeze(model).float()
    transform = transform_of(model.visual.preprocess_cfg, whole)
    split, projection = split_visual(model.visual, transform.input_size, whole)
    digest = fingerprint(model, transform)
    text = lambda: text_tower(model, tokenizer, digest, projection)  # noqa: E731
    return split.encoder(model.visual, whole, transform, fingerprint=digest, text=text, engine=engine)


def transform_of(preprocess: dict[str, Any], name: str) -> Transform:
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
            f"`resize_mode` of {name} must be 'squash', or 'shortest' with a square input, got {mode!r} with "
            f"{height} x {width} pixels. Choose another model."
        )
    mean, std = tuple(map(float, preprocess["mean"])), tuple(map(float, preprocess["std"]))
    return Transform((height, width), resize, preprocess["interpolation"], mean, std)  # type: ignore[arg-type]


def split_visual(visual: Any, size: tuple[int, int], name: str) -> tuple[Split, nn.Module | None]:
    """Split an image network into trunk and head; return the split and the projection into the shared space."""
    pixels = example_pixels(size)
    kind = type(visual).__name__
    if kind == "TimmModel":
        split, _ = split_timm(visual.trunk, size, name)
        if isinstance(getattr(visual.head, "pool", None), nn.Module):
            return Split(split.trunk, freeze(visual.head), split.layout), None
        # With ``proj=''`` open_clip projects with the timm network's own classifier.
        classifier = visual.trunk.get_classifier()
        return split, visual.head if len(visual.head) else classifier if isinstance(classifier, nn.Linear) else None
    projection: nn.Module | None = None
    if kind == "ModifiedResNet":
        trunk = Part(replaced(visual, {"attnpool": nn.Identity()}), lambda module, x: module(x))
        split = Split(freeze(trunk), visual.attnpool, Layout("nchw"))
    elif kind == "VisionTransformer":
        blocks = list(visual.transformer.resblocks)
        first = replaced(visual, {"transformer.resblocks": nn.ModuleList(blocks[:-1])})
        trunk = Part(first, lambda visual, x: visual.transformer(visual._embeds(x)), "visual")
        behind = replaced(visual, {"conv1": nn.Identity(), "transformer": nn.Identity()})
        last = replaced(visual.transformer, {"resblocks": nn.ModuleList(blocks[-1:])})
        head = freeze(LastBlock(last, Part(behind, _pooled, "visual")))
        split = Split(freeze(trunk), head, Layout("tokens", tuple(visual.grid_size), 1))
        projection = Projection(visual.proj) if visual.proj is not None else None
    else:
        raise ModelError(
            f"The image encoder of {name} must be a VisionTransformer, ModifiedResNet or TimmModel, got {kind}. Use "
            "seewhy.encoders.module.from_module with a target_layer."
        )
    out, _ = run_and_record(lambda: visual(pixels), visual)
    whole = Split(split.trunk, nn.Sequential(split.head, projection or nn.Identity()), split.layout)
    expected = out[0] if isinstance(out, tuple) else out
    prove(whole, pixels, expected[:, 0] if expected.ndim == 3 else expected, name)
    return split, projection


def _pooled(visual: Any, tokens: Float[Tensor, "b t d"]) -> Float[Tensor, "b p"]:
    """Apply the final norm and the pooling, without the projection."""
    pooled: Tensor = visual._pool(tokens)[0]
    return pooled[:, 0] if pooled.ndim == 3 else pooled  # a contrastive pooler keeps the axis of its one query


@dataclass
class Source:
    """The location of a model's weights and configuration, with loading options."""

    model: str
    pretrained: str | None = None
    preprocess: dict[str, Any] = field(default_factory=dict)
    quick_gelu: bool | None = None
    fetched: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Hub repositories and, for each, alternative file names."""
    hf_tokenizer: bool = False
    online: bool = False
    """Whether open_clip downloads the weights from its own list of addresses."""
    files: tuple[Path, ...] = ()
    """Local weight files, if the user gave any."""
    config: Any = None


def find_source(name: str) -> Source:
    """Resolve a model name to its :class:`Source`."""
    import open_clip

    schema, _, rest = name.partition(":")
    if schema == "local-dir":
        return _from_folder(name, Path(rest).expanduser())
    if schema == "hf-hub":
        return _from_folder(name, fetch(f"open_clip:{name}", rest, WEIGHT_FILES, BESIDE))
    model, _, pretrained = name.partition("/")
    UnknownNameError.check("open_clip model", model, open_clip.list_models())
    tags = open_clip.list_pretrained_tags_by_model(model)
    config = open_clip.get_model_config(model) or {}
    if pretrained in tags:
        known = open_clip.get_pretrained_cfg(model, pretrained)
        repo, _, file = known.get("hf_hub", "").rpartition("/")
        files = (str(Path(file).with_suffix(".safetensors")), file) if file else WEIGHT_FILES
        source = Source(
            model,
            pretrained,
            quick_gelu=bool(known.get("quick_gelu")),
            fetched=((repo, files),) if repo else (),
            online=not (repo or is_offline()),
        )
    elif Path(pretrained).expanduser().exists():
        source = _from_file(name, model, Path(pretrained).expanduser(), tags, config)
    elif "/" in pretrained or not tags:
        raise WeightsError(
            f"'open_clip:{name}' must name a tag or a weights file, but {pretrained!r} does not exist. "
            f"Tags of {model}: {', '.join(tags) or 'none'}."
        )
    else:
        raise UnknownNameError(f"pretrained tag of {model}", pretrained, tags)
    text = config.get("text_cfg", {})
    words = (("hf_model_name", ("config.json",)), ("hf_tokenizer_name", TOKENIZER_FILES))
    more = tuple((text[key], files) for key, files in words if text.get(key))
    return replace(source, fetched=source.fetched + more, hf_tokenizer=bool(text.get("hf_tokenizer_name")))


def _from_folder(name: str, folder: Path) -> Source:
    config = "open_clip_config.json"
    files = tuple(weights_in(f"open_clip:{name}", folder, config, "Copy both from the hub."))
    data = _read(name, folder / config)
    words = check_config(name, data.get("model_cfg"))
    return Source(f"local-dir:{folder}", hf_tokenizer=words, files=files, config=data["model_cfg"])


def _read(name: str, path: Path) -> dict[str, Any]:
    data = read_config(f"open_clip:{name}", path, "Copy it again.")
    _require_preprocessing(name, data.get("preprocess_cfg"), str(path))
    return data


def check_config(name: str, config: Any) -> bool:
    """Check a configuration, and return whether the tokenizer is one of transformers."""
    import timm

    text, vision = (config.get(key) if isinstance(config, dict) else None for key in ("text_cfg", "vision_cfg"))
    if not isinstance(text, dict) or not isinstance(vision, dict):
        wrong = "a model_cfg without a text_cfg and a vision_cfg"
    else:
        timm_name, hf_name = vision.get("timm_model_name"), text.get("hf_model_name")
        options = text.get("tokenizer_kwargs") or {}
        if timm_name is not None and not (isinstance(timm_name, str) and timm.is_model(timm_name)):
            wrong = f"timm_model_name {timm_name!r}"
        elif hf_name is not None and not (isinstance(hf_name, str) and re.fullmatch(REPO, hf_name)):
            wrong = f"hf_model_name {hf_name!r}"
        elif not isinstance(options, dict) or set(options) - TOKENIZER_OPTIONS:
            wrong = f"tokenizer_kwargs {options!r}"
        else:
            return bool(text.get("hf_tokenizer_name"))
    known = ", ".join(sorted(TOKENIZER_OPTIONS))
    raise ModelError(
        f"open_clip_config.json of 'open_clip:{name}' has {wrong[:200]}. timm_model_name must be a timm network, "
        f"hf_model_name a hub name, and tokenizer_kwargs may have only {known}."
    )


def _from_file(name: str, model: str, path: Path, tags: list[str], config: dict[str, Any]) -> Source:
    """Return the source of a weights file.

    The preprocessing comes from a JSON file next to the weights or, if all tags of the model have the same, from the
    tags.
    """
    import open_clip

    sidecar, own = path.with_name(path.name + ".json"), bool(config.get("quick_gelu"))
    check_file(f"open_clip:{name}", path)
    if sidecar.exists():
        data = _read(name, sidecar)
        return Source(model, str(path), data["preprocess_cfg"], bool(data.get("quick_gelu", own)), files=(path,))
    cfgs = [open_clip.get_pretrained_cfg(model, tag) for tag in tags]
    ways = {json.dumps({key: cfg.get(key) for key in KEYS}) for cfg in cfgs}
    preprocess = json.loads(ways.pop()) if len(ways) == 1 else {}
    _require_preprocessing(name, preprocess, str(sidecar))
    if {bool(cfg.get("quick_gelu")) for cfg in cfgs} != {own}:
        log.warning(
            "open_clip:%s does not name its activation, so SeeWhy uses %s. If it is an OpenAI, MetaCLIP or DFN "
            'checkpoint, write "quick_gelu": true into %s.',
            name, "QuickGELU" if own else "GELU", sidecar.name,
        )  # fmt: skip
    return Source(model, str(path), preprocess, files=(path,))


def _require_preprocessing(name: str, preprocess: Any, where: str) -> None:
    said = preprocess if isinstance(preprocess, dict) else {}
    if missing := [key for key in KEYS if said.get(key) is None]:
        raise ModelError(
            f"The preprocessing of 'open_clip:{name}' is unknown: {where} must have {', '.join(missing)}. Add the "
            f"model's values, for example: {EXAMPLE}"
        )


class Projection(nn.Module):
    def __init__(self, matrix: Float[Tensor, "p d"]) -> None:
        super().__init__()
        self.matrix = nn.Parameter(matrix.detach(), requires_grad=False)

    def forward(self, pooled: Float[Tensor, "b p"]) -> Float[Tensor, "b d"]:
        return pooled @ self.matrix


def text_tower(model: Any, tokenizer: Any, digest: str, projection: nn.Module | None) -> ClipText:
    scale = math.exp(float(model.logit_scale.detach().reshape(-1)[0]))
    longest = tokenizer.context_length
    theirs = getattr(tokenizer, "tokenizer", None)
    if theirs is None:
        sentence = Sentence(longest, end=tokenizer.eot_token_id)
    else:
        sentence = Sentence.of(theirs, longest, closed=not tokenizer.strip_sep_token)

    def n_cut(texts: list[str]) -> int:
        if theirs is None:
            return sum(len(tokenizer.encode(text)) + 2 > longest for text in texts)
        cleaned = [tokenizer.clean_fn(text) for text in texts]
        return sum(len(ids) > longest for ids in theirs(cleaned, verbose=False)["input_ids"]) if texts else 0

    module = TextHalf(model, sentence)
    return ClipText(digest, scale, module, lambda texts: (tokenizer(texts),), projection, n_cut=n_cut)


class TextHalf(nn.Module):
    """The text encoder of an open_clip model."""

    def __init__(self, model: nn.Module, sentence: Sentence) -> None:
        super().__init__()
        self.model: Any = replaced(model, {"visual": nn.Identity()})
        self.sentence = sentence

    def forward(self, tokens: Int[Tensor, "n t"]) -> Float[Tensor, "n d"]:
        model, tower = self.model, _tower(self.model)
        cut = _without_padding(model, tower, tokens)
        if cut is tokens:
            return model.encode_text(tokens)
        return _read_plain(model, tower, tower.token_embedding(cut), cut)[1]

    def embed(self, tokens: Int[Tensor, "n t"]) -> TokenEmbeddings:
        tower = _tower(self.model)
        tokens = _without_padding(self.model, tower, tokens)
        lengths = self.sentence.lengths(tokens)
        return TokenEmbeddings.of(tower.get_submodule(_words(tower))(tokens), tokens, lengths, self.sentence)

    def read(self, embeddings: TokenEmbeddings) -> TokenVectors:
        """Compute one vector per token, with the final norm and the projection of the pooled token."""
        model, tower = self.model, _tower(self.model)
        if _is_plain(tower):
            states, pooled = _read_plain(model, tower, embeddings.vectors, embeddings.ids)
            return TokenVectors(_projected(tower, states), embeddings.words, pooled)
        given: Any = replaced(tower, {_words(tower): Given(embeddings.vectors)})
        given.output_tokens = True  # changes only this copy
        if hasattr(tower, "pooler"):  # a text network of the transformers library
            mask = embeddings.ids != tower.config.pad_token_id
            out = given.transformer(input_ids=embeddings.ids, attention_mask=mask.long())
            pooled = tower.proj(tower.pooler(out, mask.long()))
            return TokenVectors(tower.proj(out.last_hidden_state), embeddings.words, pooled)
        pooled, states = given(embeddings.ids)  # CoCa pools its own token and applies the norm after it
        return TokenVectors(_projected(tower, tower.ln_final(states)), embeddings.words, pooled)


def _tower(model: Any) -> Any:
    return model.text if hasattr(model, "text") else model


def _words(tower: nn.Module) -> str:
    """Return the name of the token embedding layer."""
    if hasattr(tower, "token_embedding"):
        return "token_embedding"
    words = tower.transformer.get_input_embeddings()  # type: ignore[union-attr,operator]
    return next(name for name, module in tower.named_modules() if module is words)


def _is_plain(tower: Any) -> bool:
    """Check that the text encoder has no class token and no padding mask."""
    own = hasattr(tower, "token_embedding") and getattr(tower, "cls_emb", None) is None
    return own and not getattr(tower, "use_pad_mask", False)


def _pool(model: Any, tower: Any) -> str:
    return getattr(tower, "pool_type", getattr(model, "text_pool_type", ""))


def _without_padding(model: Any, tower: Any, tokens: Int[Tensor, "n t"]) -> Int[Tensor, "n s"]:
    """Remove trailing padding if it cannot change the pooled vector."""
    causal = getattr(tower, "attn_mask", None) is not None
    if not (causal and _is_plain(tower) and _pool(model, tower) in ("argmax", "eos")):
        return tokens
    used = (tokens != int(getattr(tower, "pad_id", 0) or 0)).any(0).nonzero()
    return tokens[:, : int(used.max()) + 1] if len(used) else tokens[:, :1]


def _read_plain(
    model: Any, tower: Any, words: Float[Tensor, "n t w"], ids: Int[Tensor, "n t"]
) -> tuple[Float[Tensor, "n t w"], Float[Tensor, "n d"]]:
    """Compute the normalised token states and the projected pooled vector."""
    from open_clip.transformer import text_global_pool

    n, mask = ids.shape[1], tower.attn_mask
    x = words + tower.positional_embedding[:n]
    x = tower.ln_final(tower.transformer(x, attn_mask=None if mask is None else mask[:n, :n]))
    end = getattr(tower, "eos_id", getattr(model, "text_eos_id", None))
    return x, _projected(tower, text_global_pool(x, ids, _pool(model, tower), eos_token_id=end))


def _projected(tower: Any, states: Tensor) -> Tensor:
    projection = tower.text_projection
    if projection is None:
        return states
    return projection(states) if isinstance(projection, nn.Linear) else states @ projection


def names() -> list[str]:
    """List all pretrained models as ``MODEL/PRETRAINED``."""
    try:
        import open_clip
    except ImportError:
        return []
    return [f"{model}/{weights}" for model, weights in open_clip.list_pretrained()]
