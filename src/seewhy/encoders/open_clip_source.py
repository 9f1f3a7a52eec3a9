"""What the name of an open_clip model means: tag, file or folder, and what must be known before weights are loaded."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import ModelError, UnknownNameError, WeightsError
from ..storage.reading import read_json
from .fence import check_file, check_folder
from .hub import fetch, is_offline

log = logging.getLogger("seewhy")

EXAMPLE = (
    '{"preprocess_cfg": {"size": 224, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], '
    '"interpolation": "bicubic", "resize_mode": "squash"}}'
)
KEYS = ("mean", "std", "interpolation", "resize_mode")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "spiece.model", "sentencepiece.bpe.model", "vocab.txt")
TOKENIZER_OPTIONS = frozenset({"clean", "strip_sep_token", "language"})
"""What a configuration may tell open_clip's tokenizer; anything else would be handed on to transformers."""
REPO = r"([A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*"
BESIDE = ("*.json", "*.txt", "*.model")
WEIGHT_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")


@dataclass
class Source:
    """Where a model comes from.

    Attributes:
        model: open_clip's model name, with its schema.
        pretrained: tag or file.
        preprocess: what the source says about preprocessing, over open_clip's own.
        quick_gelu: activation the weights were trained with, where the source says so.
        fetched: repositories that open_clip itself names, each with files of which one is needed.
        hf_tokenizer: whether transformers reads its tokenizer.
        online: whether open_clip itself fetches the weights, from an address in its own list.
        files: of weights, where they are a person's own.
        config: of the network, where it is a person's own.
    """

    model: str
    pretrained: str | None = None
    preprocess: dict[str, Any] = field(default_factory=dict)
    quick_gelu: bool | None = None
    fetched: tuple[tuple[str, tuple[str, ...]], ...] = ()
    hf_tokenizer: bool = False
    online: bool = False
    files: tuple[Path, ...] = ()
    config: Any = None


def find_source(name: str) -> Source:
    """What the user's name means, with everything that must be known before weights are loaded."""
    import open_clip

    schema, _, rest = name.partition(":")
    if schema == "local-dir":
        return _from_folder(name, Path(rest).expanduser())
    if schema == "hf-hub":
        return _from_folder(name, fetch_for(name, rest, WEIGHT_FILES))
    model, _, pretrained = name.partition("/")
    if model not in open_clip.list_models():
        raise UnknownNameError("open_clip model", model, open_clip.list_models())
    tags = open_clip.list_pretrained_tags_by_model(model)
    config = open_clip.get_model_config(model) or {}
    if pretrained in tags:
        known = open_clip.get_pretrained_cfg(model, pretrained)
        repo, _, file = known.get("hf_hub", "").rpartition("/")
        files = (str(Path(file).with_suffix(".safetensors")), file) if file else WEIGHT_FILES
        quick = bool(known.get("quick_gelu"))
        found = Source(model, pretrained, quick_gelu=quick, fetched=((repo, files),) if repo else ())
        found = replace(found, online=not (repo or is_offline()))
    elif Path(pretrained).expanduser().exists():
        found = _from_file(name, model, Path(pretrained).expanduser(), tags, config)
    elif "/" in pretrained or not tags:
        raise WeightsError(
            f"'open_clip:{name}': there is no file {pretrained!r}. A tag or a weights file was expected. "
            f"Tags of {model}: {', '.join(tags) or 'none'}."
        )
    else:
        raise UnknownNameError(f"pretrained tag of {model}", pretrained, tags)
    text = config.get("text_cfg", {})
    words = (("hf_model_name", ("config.json",)), ("hf_tokenizer_name", TOKENIZER_FILES))
    more = tuple((text[key], files) for key, files in words if text.get(key))
    return replace(found, fetched=found.fetched + more, hf_tokenizer=bool(text.get("hf_tokenizer_name")))


def fetch_for(name: str, repo: str, files: Sequence[str]) -> Path:
    return fetch(f"open_clip:{name}", repo, files, BESIDE, f"open_clip:local-dir:/path/to/{repo.split('/')[-1]}")


def _from_folder(name: str, folder: Path) -> Source:
    config = folder / "open_clip_config.json"
    if not config.exists():
        raise WeightsError(
            f"'open_clip:{name}' has no open_clip_config.json. A folder with open_clip_config.json and "
            "open_clip_model.safetensors was expected. Copy both from the hub."
        )
    check_folder(f"open_clip:{name}", folder)
    files = tuple(sorted(f for f in folder.iterdir() if f.suffix in (".safetensors", ".bin", ".pth")))
    if not files:
        raise WeightsError(
            f"'open_clip:{name}' has no weights. open_clip_model.safetensors beside open_clip_config.json was "
            "expected. Copy it from the hub."
        )
    data = _read(name, config)
    _require_preprocessing(name, data.get("preprocess_cfg", {}), str(config))
    words = check_config(name, data.get("model_cfg"))
    return Source(f"local-dir:{folder}", hf_tokenizer=words, files=files, config=data["model_cfg"])


def _read(name: str, path: Path) -> dict[str, Any]:
    try:
        data = read_json(path)
        if not isinstance(data, dict) or not isinstance(data.get("preprocess_cfg", {}), dict):
            raise ValueError("its preprocess_cfg is no object")
        return data
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{path.name} of 'open_clip:{name}' cannot be read: {error}. A JSON object was expected. Copy it again."
        ) from error


def check_config(name: str, config: Any) -> bool:
    """Refuse a configuration out of a folder that would have other loaders load what it names."""
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
        f"'open_clip:{name}' has {wrong[:200]} in its open_clip_config.json. A network of timm's by its name, a text "
        f"network by its name on the hub, and of tokenizer_kwargs {known} alone were expected, since what is read "
        "never chooses what is loaded. Correct it."
    )


def _from_file(name: str, model: str, path: Path, tags: list[str], config: dict[str, Any]) -> Source:
    """A bare weights file: its preprocessing from a side-car, or from tags that all agree."""
    import open_clip

    sidecar = path.with_name(path.name + ".json")
    check_file(f"open_clip:{name}", path)
    if sidecar.exists():
        data = _read(name, sidecar)
        preprocess = data.get("preprocess_cfg", {})
        _require_preprocessing(name, preprocess, str(sidecar))
        gelu = bool(data.get("quick_gelu", config.get("quick_gelu")))
        return Source(model, str(path), preprocess, gelu, files=(path,))
    cfgs = [open_clip.get_pretrained_cfg(model, tag) for tag in tags]
    ways = {json.dumps({key: cfg.get(key) for key in KEYS}) for cfg in cfgs}
    preprocess = json.loads(ways.pop()) if len(ways) == 1 else {}
    _require_preprocessing(name, preprocess, str(sidecar))
    activations = {bool(cfg.get("quick_gelu")) for cfg in cfgs}
    if activations != {bool(config.get("quick_gelu"))}:
        log.warning(
            "open_clip:%s does not say its activation and is computed with %s. If it is an OpenAI, MetaCLIP or DFN "
            'checkpoint, write "quick_gelu": true into %s.',
            name, "QuickGELU" if config.get("quick_gelu") else "GELU", sidecar.name,
        )  # fmt: skip
    return Source(model, str(path), preprocess, files=(path,))


def _require_preprocessing(name: str, preprocess: dict[str, Any], where: str) -> None:
    missing = [key for key in KEYS if preprocess.get(key) is None]
    if missing:
        raise ModelError(
            f"'open_clip:{name}' does not say its preprocessing: {', '.join(missing)} not in {where}. "
            f"SeeWhy never guesses it. Write there, with the model's own numbers: {EXAMPLE}"
        )
