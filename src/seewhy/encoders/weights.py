"""Find, download and read weights and their metadata.

Missing files are downloaded only from the repository that the user named.
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
from ..storage.reading import check_regular, file_sha256, parse_json, read_json, readable, reason
from ..types import Transform
from .base import Encoder
from .fence import FenceError, Stored, building, check_kinds, check_numbers, fenced
from .split import freeze

LIBRARIES = ("timm",)
EXAMPLE = (
    '{"architecture": "resnet18", "num_classes": 2, "classes": ["healthy", "ill"], "transform": {"input_size": '
    '[224, 224], "resize": 256, "interpolation": "bicubic", "mean": [0.485, 0.456, 0.406], '
    '"std": [0.229, 0.224, 0.225]}}'
)
CURE = f"For example: {EXAMPLE}"
LARGEST = 4096
"""Largest input side in pixels that a file's metadata may state."""


def load(name: str, *, engine: str = "auto", **options: Any) -> Encoder:
    """Load a timm network from a weights file.

    Args:
        name: path of the file. The metadata of the file, or ``FILE.json`` next to it, must have ``architecture`` (a
            timm name), ``transform``, and ``num_classes`` or ``classes``.
        engine: engine that runs the trunk.
        **options: keyword arguments of ``timm.create_model``.
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
            _ = why or frozen(torch.zeros(1, 3, *size))  # a forward pass on zeros
    except (RuntimeError, AssertionError, ValueError) as error:
        why = str(error).partition("\n")[0] or type(error).__name__
    if why:
        raise ModelError(
            f"input_size in the transform of {name!r} does not fit {architecture}: {size[0]} × {size[1]} ({why}). Use "
            "the input size from training."
        )
    return encoder_of(frozen, f"file:{name}", engine=engine, transform=transform, classes=file.classes)


@dataclass(frozen=True)
class WeightsFile:
    """A weights file with its metadata; a JSON file next to it takes precedence."""

    path: Path
    said: dict[str, Any]

    @classmethod
    def open(cls, path: str | Path) -> WeightsFile:
        """Read the metadata without the weights."""
        path = Path(path).expanduser()
        with readable(f"The weights file {str(path)!r}", "Copy it again.", WeightsError):
            try:
                check_regular(path)
            except FileNotFoundError as error:
                cure = "Give the path of a .safetensors or .pth file."
                raise WeightsError(f"There is no file {str(path)!r}. {cure}") from error
        said = _metadata(path) if path.suffix == ".safetensors" else {}
        sidecar = path.with_name(path.name + ".json")
        if sidecar.exists():
            said |= read_config(str(path), sidecar, CURE)
        return cls(path, said)

    def require(self, keys: Iterable[str]) -> None:
        missing = [key for key in keys if self.said.get(key) is None]
        if missing:
            raise ModelError(
                f"The metadata of {str(self.path)!r} must have {', '.join(missing)}. "
                f"Write it into {self.path.name + '.json'!r} beside the file, for example: {EXAMPLE}"
            )

    @property
    def transform(self) -> Transform:
        self.require(["transform"])
        its = f"The transform of {str(self.path)!r}"
        try:
            return Transform.from_json(self.said["transform"])
        except KeyError as error:
            raise ModelError(f"{its} must have {error}. {CURE}") from error
        except (InputError, TypeError) as error:
            raise ModelError(f"{its} is invalid: {error} {CURE}") from error

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names of the last layer, or an empty tuple."""
        names = self.said.get("classes") or []
        if not isinstance(names, list) or not all(isinstance(c, str | int | float) for c in names):
            raise ModelError(f"`classes` of {str(self.path)!r} must be a list of names, got {names!r}. {CURE}")
        return tuple(map(str, names))

    @property
    def num_classes(self) -> int:
        """The number of outputs of the last layer; 0 if the network has no last layer."""
        self.require([] if self.classes else ["num_classes"])
        n = self.said.get("num_classes") or len(self.classes)
        if not isinstance(n, int) or isinstance(n, bool) or n < 0:
            raise ModelError(f"`num_classes` of {str(self.path)!r} must be a whole number, got {n!r}. {CURE}")
        if self.classes and n != len(self.classes):
            raise ModelError(
                f"`num_classes` of {str(self.path)!r} must equal the number of classes, got {n} and "
                f"{len(self.classes)}."
            )
        return n

    def weights(self) -> dict[str, Tensor]:
        """Read the tensors without running code in the file."""
        try:
            check_regular(self.path)
            with fenced():
                if self.path.suffix == ".safetensors":
                    from safetensors.torch import load_file

                    return load_file(self.path)
                found = torch.load(self.path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, FenceError) as error:
            raise WeightsError(
                f"{str(self.path)!r} must contain only tensors, because other pickled objects can run code. If you "
                "trust it, save it again with torch.save(model.state_dict(), path) or, better, as safetensors."
            ) from error
        except Exception as error:
            raise _damaged(self.path, error) from error
        for key in ("state_dict", "model", "model_state_dict"):
            if isinstance(found, dict) and isinstance(found.get(key), dict):
                found = found[key]
        if not isinstance(found, dict) or not all(isinstance(v, Tensor) for v in found.values()):
            raise WeightsError(
                f"{str(self.path)!r} must contain a state dict. Write it with torch.save(model.state_dict(), path)."
            )
        tensors = OrderedDict((name.removeprefix("module."), tensor) for name, tensor in found.items())
        tensors._metadata = getattr(found, "_metadata", {})  # type: ignore[attr-defined]  # layer versions
        return tensors

    def fill(self, make: Callable[[], Any], architecture: str) -> Any:
        """Create the network and load all weights, after checking that the network is not larger than the weights."""
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
                f"{str(self.path)!r} does not fit {architecture}: {' '.join(lines)} Correct 'architecture' or "
                "'num_classes'."
            ) from error
        check_numbers(str(self.path), module)
        return module


def _metadata(path: Path) -> dict[str, Any]:
    """Read safetensors metadata, with JSON values decoded."""
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
    return WeightsError(f"The weights file {str(path)!r} cannot be read: {reason(error)}. Copy it again.")


def is_offline() -> bool:
    """Check whether ``HF_HUB_OFFLINE`` forbids network access."""
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def unreachable() -> str:
    """Return the reason why the hub is unreachable, or an empty string."""
    from huggingface_hub import constants, get_session

    if is_offline():
        return "HF_HUB_OFFLINE forbids asking the hub"
    try:
        get_session().head(constants.ENDPOINT, timeout=5.0)
    except Exception as error:
        return f"the hub at {constants.ENDPOINT} does not answer ({type(error).__name__})"
    return ""


def fetch(name: str, repo: str, weights: Sequence[str], others: Sequence[str]) -> Path:
    """Download a repository to the cache, if necessary, and return its folder.

    ``weights`` are alternative file names of the weights, and ``others`` are patterns of additional files.
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
    with suppress(ValueError):  # not a valid name of a repository
        for file in weights:  # pass the cache folder, because the library fixes its default at import
            cached = try_to_load_from_cache(plain, file, constants.HF_HUB_CACHE, revision or None)
            if isinstance(cached, str):
                return Path(cached).parent
    if why := unreachable():
        raise missing(why)
    try:
        # Only the first of these files that the repository has, with its parts: the others have the same weights.
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
    """Download a published file to torch's cache, if necessary, check its hash, and return its path."""
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
    with readable(path, "Delete it, and SeeWhy downloads it again.", WeightsError):
        digest = file_sha256(path)
    if said is not None and not digest.startswith(said[1]):
        raise WeightsError(
            f"{path} is not the published file: its SHA-256 begins with {digest[:8]}, not {said[1]}. Delete it, and "
            "SeeWhy downloads it again."
        )
    return path


def local_folder(name: str, folder: Path) -> Path:
    if not folder.is_dir():
        raise WeightsError(
            f"There is no folder {str(folder)!r} for {name!r}. Download the model there, or save it with "
            "save_pretrained."
        )
    return folder


def read_config(name: str, file: Path, cure: str) -> dict[str, Any]:
    """Read the JSON configuration of a model."""
    with readable(f"The {file.name} of {name!r}", cure, ModelError):
        data = read_json(file)
        if not isinstance(data, dict):
            raise ValueError(f"it must be a JSON object, got {type(data).__name__}")
    return data


def weights_in(name: str, folder: Path, config: str, cure: str) -> list[Path]:
    """Return the weight files in a model's folder, after checking that it has a configuration."""
    check_folder(name, folder)
    files = [f for f in sorted(folder.iterdir()) if f.suffix in (".safetensors", ".bin", ".pth")]
    has_config = (folder / config).is_file()
    if not has_config or not files:
        raise WeightsError(
            f"The folder of {name!r} must have {config} and weights, but {'weights are' if has_config else 'it is'} "
            f"missing. {cure}"
        )
    return files


def check_folder(name: str, folder: Path) -> None:
    """Check that a model's folder has only regular files and folders."""
    with readable(f"The folder of {name!r}", "Check the path.", WeightsError):
        files = sorted(folder.iterdir())
    for file in files:
        if not file.is_dir():
            check_file(name, file)


def check_file(name: str, file: Path) -> None:
    """Check that a model's file is a regular file."""
    with readable(f"The file {file.name!r} of {name!r}", "Copy it again.", WeightsError):
        check_regular(file)
