"""Weights and what is said of them: one file with its side-car, and what the hub or a web address publishes.

What is not here is fetched from the repository that a person named, and from no other; from the cache without a network
call, else by one quick try, never a hang. It is then loaded as a folder is: without network, without its code.
"""

from __future__ import annotations

import os
import pickle
import re
import urllib.request
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError, ModelError, UnknownNameError, WeightsError
from ..storage.output import make_folder
from ..storage.reading import check_regular, file_sha256, parse_json, read_json, reason
from ..types import Transform
from .base import Encoder
from .fence import FenceError, Stored, building, check_kinds, check_numbers, fenced
from .split import freeze

EXAMPLE = (
    '{"architecture": "resnet18", "num_classes": 2, "classes": ["healthy", "ill"], "transform": {"input_size": '
    '[224, 224], "resize": 256, "interpolation": "bicubic", "mean": [0.485, 0.456, 0.406], '
    '"std": [0.229, 0.224, 0.225]}}'
)
CURE = f"For example: {EXAMPLE}"
LARGEST = 4096
"""Side in pixels above which a file is not believed: one picture would take hundreds of megabytes."""


def load(name: str, *, engine: str = "auto", **options: Any) -> Encoder:
    """A timm architecture filled from a file, whose metadata or ``FILE.json`` beside it has ``architecture`` (a timm
    name), ``num_classes`` or ``classes``, and ``transform``; options go to ``timm.create_model``.
    """
    import timm

    from .timm import encoder_of

    file = WeightsFile.open(name)
    file.require(["architecture", "transform"])
    architecture, transform = str(file.said["architecture"]), file.transform
    if not timm.is_model(architecture):
        raise UnknownNameError("timm network", architecture, timm.list_models())
    with fenced():
        model = file.fill(
            lambda: timm.create_model(architecture, pretrained=False, num_classes=file.num_classes, **options),
            architecture,
        )
    frozen, size = freeze(model), transform.input_size
    why = f"more than {LARGEST} pixels" if max(size) > LARGEST else ""
    try:
        with torch.no_grad():
            _ = why or frozen(torch.zeros(1, 3, *size))  # one look at nothing
    except (RuntimeError, AssertionError, ValueError) as error:
        why = str(error).partition("\n")[0] or type(error).__name__
    if why:
        raise ModelError(
            f"{name!r} says an input_size of {size[0]} × {size[1]}, which its {architecture} does not take ({why}). "
            "Expected the size it was trained with. Correct the transform."
        )
    return encoder_of(frozen, f"file:{name}", engine=engine, transform=transform, classes=file.classes)


@dataclass(frozen=True)
class WeightsFile:
    """A weights file with its metadata, which the JSON file beside it overrides."""

    path: Path
    said: dict[str, Any]

    @classmethod
    def open(cls, path: str | Path) -> WeightsFile:
        """Read the metadata, but not yet the weights."""
        path = Path(path).expanduser()
        try:
            check_regular(path)
        except FileNotFoundError as error:
            raise WeightsError(
                f"There is no file {str(path)!r}. Expected a .safetensors or .pth file. Check the path."
            ) from error
        except OSError as error:
            raise _damaged(path, error) from error
        said = _metadata(path) if path.suffix == ".safetensors" else {}
        sidecar = path.with_name(path.name + ".json")
        if sidecar.exists():
            said |= read_config(str(path), sidecar, CURE)
        return cls(path, said)

    def require(self, keys: Iterable[str]) -> None:
        missing = [key for key in keys if self.said.get(key) is None]
        if missing:
            raise ModelError(
                f"{str(self.path)!r} does not say its {', '.join(missing)}. SeeWhy never guesses it. "
                f"Write it into {self.path.name + '.json'!r} beside the file, for example: {EXAMPLE}"
            )

    @property
    def transform(self) -> Transform:
        self.require(["transform"])
        its = f"The transform of {str(self.path)!r}"
        try:
            return Transform.from_json(self.said["transform"])
        except KeyError as error:
            raise ModelError(f"{its} is not complete: {error} is missing. SeeWhy never guesses it. {CURE}") from error
        except (InputError, TypeError) as error:
            raise ModelError(f"{its} cannot be used: {error} {CURE}") from error

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the last layer's rows; empty if they are not stated."""
        names = self.said.get("classes") or []
        if not isinstance(names, list) or not all(isinstance(c, str | int | float) for c in names):
            raise ModelError(f"{str(self.path)!r} says its classes are {names!r}. Expected a list of names. {CURE}")
        return tuple(map(str, names))

    @property
    def num_classes(self) -> int:
        """The number of rows of the last layer; 0 for a network without a last layer."""
        self.require([] if self.classes else ["num_classes"])
        n = self.said.get("num_classes") or len(self.classes)
        if not isinstance(n, int) or isinstance(n, bool) or n < 0:
            raise ModelError(f"{str(self.path)!r} says num_classes {n!r}. Expected a whole number. {CURE}")
        if self.classes and n != len(self.classes):
            raise ModelError(
                f"{str(self.path)!r} says num_classes {n}, but names {len(self.classes)} classes. Expected equal "
                "numbers. Correct one of them."
            )
        return n

    def weights(self) -> dict[str, Tensor]:
        """The tensors. No code in the file is run."""
        try:
            check_regular(self.path)
            with fenced():
                if self.path.suffix == ".safetensors":
                    from safetensors.torch import load_file

                    return load_file(self.path)
                found = torch.load(self.path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, FenceError) as error:
            raise WeightsError(
                f"{str(self.path)!r} holds more than tensors, and loading it could run code. Expected a state dict. If "
                "you trust it, save it again with torch.save(model.state_dict(), path) or, better, as safetensors."
            ) from error
        except Exception as error:
            raise _damaged(self.path, error) from error
        for key in ("state_dict", "model", "model_state_dict"):
            if isinstance(found, dict) and isinstance(found.get(key), dict):
                found = found[key]
        if not isinstance(found, dict) or not all(isinstance(v, Tensor) for v in found.values()):
            raise WeightsError(
                f"{str(self.path)!r} holds no state dict. Expected names and tensors. Write it with "
                "torch.save(model.state_dict(), path)."
            )
        tensors = OrderedDict((name.removeprefix("module."), tensor) for name, tensor in found.items())
        tensors._metadata = getattr(found, "_metadata", {})  # type: ignore[attr-defined]  # layer versions
        return tensors

    def fill(self, make: Callable[[], Any], architecture: str) -> Any:
        """Make the network and fill it with all tensors, after a check that it is no larger than they are."""
        weights = self.weights()
        check_kinds(str(self.path), weights)
        try:
            with building(Stored.of(weights)):
                with torch.device("meta"):
                    make()
                module = make()
            module.load_state_dict(weights, strict=True)
        except (RuntimeError, ValueError) as error:
            lines = [line.strip() for line in str(error).splitlines()][-3:]
            raise WeightsError(
                f"{str(self.path)!r} does not fit {architecture}: {' '.join(lines)} Expected weights of exactly this "
                "architecture and number of classes. Correct 'architecture' or 'num_classes'."
            ) from error
        check_numbers(str(self.path), module)
        return module


def _metadata(path: Path) -> dict[str, Any]:
    """safetensors keeps strings only; lists and objects are JSON in them."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            said: dict[str, Any] = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error
    for key, value in said.items():
        with suppress(ValueError):
            said[key] = parse_json(value)
    return said


def _damaged(path: Path, error: Exception) -> WeightsError:
    return WeightsError(
        f"{str(path)!r} cannot be read: {reason(error)}. Expected a complete weights file. Copy it again."
    )


def is_offline() -> bool:
    """Whether ``HF_HUB_OFFLINE`` forbids the network, even if it was set after the hub's library was imported."""
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def unreachable() -> str:
    """Why the hub cannot be asked, or an empty string if it can. The hub's own retries would take minutes."""
    from huggingface_hub import constants, get_session

    if is_offline():
        return "HF_HUB_OFFLINE forbids asking the hub"
    try:
        get_session().head(constants.ENDPOINT, timeout=5.0)
    except Exception as error:
        return f"the hub at {constants.ENDPOINT} does not answer ({type(error).__name__})"
    return ""


def fetch(name: str, repo: str, weights: Sequence[str], others: Sequence[str]) -> Path:
    """The folder of a repository in the cache, with one of its ``weights`` (the same under several names) and the files
    of these patterns. Missing files are downloaded from the hub.
    """
    from huggingface_hub import HfApi, constants, snapshot_download, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    def missing(why: str) -> WeightsError:
        folder, scheme = repo.split("/")[-1], name.partition(":")[0]
        instead = f"{scheme}:{'local-dir:' if scheme == 'open_clip' else ''}/path/to/{folder}"
        return WeightsError(
            f"The weights of {name!r} are not on this machine: {constants.HF_HUB_CACHE} has no {weights[0]} of {repo}, "
            f"and {why}. On a machine with a network run 'huggingface-cli download {repo} --local-dir {folder}', copy "
            f"the folder here and use {instead!r}, or set HF_HOME to a cache that holds it."
        )

    plain, _, revision = repo.partition("@")
    with suppress(ValueError):  # no name that a repository can have
        for file in weights:  # the cache is named, as the library binds its default when it is imported
            cached = try_to_load_from_cache(plain, file, constants.HF_HUB_CACHE, revision or None)
            if isinstance(cached, str):
                return Path(cached).parent
    if why := unreachable():
        raise missing(why)
    try:
        # The first of the weights' names that the repository has, with its parts; the others are the same once more.
        there = HfApi(constants.ENDPOINT).list_repo_files(plain, revision=revision or None)
        first = next((file for file in weights if file in there), weights[0])
        wanted = [*others, first, *(["model-*-of-*.safetensors"] if first.endswith(".index.json") else [])]
        cache = constants.HF_HUB_CACHE
        folder = Path(snapshot_download(plain, revision=revision or None, cache_dir=cache, allow_patterns=wanted))
    except (OSError, HfHubHTTPError, HFValidationError) as error:
        raise missing(f"the hub did not give it ({type(error).__name__})") from error
    if not any((folder / file).is_file() for file in weights):
        raise missing("the hub has no such file there")
    return folder


def fetch_url(name: str, url: str, instead: str) -> Path:
    """A published file in torch's cache, downloaded if it is missing and checked by the digits in its name."""
    file = url.rsplit("/", 1)[-1]
    path = Path(torch.hub.get_dir()) / "checkpoints" / file
    said = re.search(r"-([0-9a-f]{8,64})\.", file)
    if not path.exists():
        # torch.hub waits for minutes when nothing answers, so ask first, once and briefly.
        why = "HF_HUB_OFFLINE forbids asking the network" if is_offline() else ""
        try:
            if not why:
                urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=5).close()
        except OSError as error:
            why = f"{url} does not answer ({type(error).__name__})"
        if why:
            raise WeightsError(
                f"The weights of {name!r} are not on this machine: {path.parent} has no {file}, and {why}. On a "
                f"machine with a network download {url}, copy it here and use {instead!r}."
            )
        make_folder(path.parent)
        torch.hub.download_url_to_file(url, str(path), said and said[1], progress=True)
    try:
        digest = file_sha256(path)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error}. Delete it, and SeeWhy downloads it again.") from error
    if said is not None and not digest.startswith(said[1]):
        raise WeightsError(
            f"{path} is not the published file: its SHA-256 begins with {digest[:8]}, not {said[1]}. Delete it, and "
            "SeeWhy downloads it again."
        )
    return path


def local_folder(name: str, folder: Path) -> Path:
    if not folder.is_dir():
        raise WeightsError(
            f"{name!r} was given, but there is no such folder. Expected a folder written by save_pretrained. Download "
            "the model there first."
        )
    return folder


def read_config(name: str, file: Path, cure: str) -> dict[str, Any]:
    """The configuration beside a model's weights."""
    try:
        data = read_json(file)
        if not isinstance(data, dict):
            raise ValueError(f"it holds a {type(data).__name__}")
    except (OSError, ValueError) as error:
        raise ModelError(
            f"The {file.name} of {name!r} cannot be read: {reason(error)}. Expected a JSON object. {cure}"
        ) from error
    return data


def weights_in(name: str, folder: Path, config: str, cure: str) -> list[Path]:
    """The weights in a model's folder, which must also hold a configuration."""
    check_folder(name, folder)
    files = [f for f in sorted(folder.iterdir()) if f.suffix in (".safetensors", ".bin", ".pth")]
    has_config = (folder / config).is_file()
    if not has_config or not files:
        raise WeightsError(
            f"{name!r} has no {'weights' if has_config else config}. Expected a folder with {config} and weights "
            f"beside it. {cure}"
        )
    return files


def check_folder(name: str, folder: Path) -> None:
    """Refuse a model's folder with a file whose reading would wait, such as a pipe."""
    try:
        files = sorted(folder.iterdir())
    except OSError as error:
        raise WeightsError(
            f"{name!r} cannot be read: {error.strerror or error}. Expected a folder with a model. Check the path."
        ) from error
    for file in files:
        if not file.is_dir():
            check_file(name, file)


def check_file(name: str, file: Path) -> None:
    """Refuse a model's file whose reading would wait, such as a pipe."""
    try:
        check_regular(file)
    except OSError as error:
        raise WeightsError(
            f"The file {file.name!r} of {name!r} cannot be read: {error}. Expected a file as the model's library "
            "writes it. Copy it again."
        ) from error
