"""What must be known about a bare weights file, from its own metadata or from ``FILE.json`` beside it."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError, ModelError, WeightsError
from ..storage.reading import check_regular, parse_json, read_json, reason
from ..types import Transform
from .fence import FenceError, fenced
from .whole import Stored, building, check_kinds, check_numbers

EXAMPLE = (
    '{"architecture": "resnet18", "num_classes": 2, "classes": ["healthy", "ill"], "transform": {"input_size": '
    '[224, 224], "resize": 256, "interpolation": "bicubic", "mean": [0.485, 0.456, 0.406], '
    '"std": [0.229, 0.224, 0.225]}}'
)


@dataclass(frozen=True)
class WeightsFile:
    """A weights file and what is said about it.

    Attributes:
        path: the file.
        said: its metadata, side-car over file.
    """

    path: Path
    said: dict[str, Any]

    @classmethod
    def open(cls, path: str | Path) -> WeightsFile:
        """Read the metadata, not yet the weights."""
        path = Path(path).expanduser()
        try:
            check_regular(path)
        except FileNotFoundError as error:
            raise WeightsError(
                f"There is no file {str(path)!r}. A .safetensors or .pth file was expected. Check the path."
            ) from error
        except OSError as error:
            raise _damaged(path, error) from error
        said: dict[str, Any] = {}
        if path.suffix == ".safetensors":
            said = _metadata(path)
        sidecar = path.with_name(path.name + ".json")
        if sidecar.exists():
            try:
                beside = read_json(sidecar)
                if not isinstance(beside, dict):
                    raise ValueError(f"it holds a {type(beside).__name__}")
            except (OSError, ValueError) as error:
                raise ModelError(
                    f"{str(sidecar)!r} cannot be read: {error}. A JSON object was expected. For example: {EXAMPLE}"
                ) from error
            said |= beside
        return cls(path, said)

    def require(self, keys: Iterable[str]) -> None:
        """Refuse a file that does not say what is needed."""
        missing = [key for key in keys if self.said.get(key) is None]
        if missing:
            raise ModelError(
                f"{str(self.path)!r} does not say its {', '.join(missing)}. SeeWhy never guesses it. "
                f"Write it into {self.path.name + '.json'!r} beside the file, for example: {EXAMPLE}"
            )

    @property
    def transform(self) -> Transform:
        """The preprocessing."""
        self.require(["transform"])
        try:
            return Transform.from_json(self.said["transform"])
        except KeyError as error:
            raise ModelError(
                f"The transform of {str(self.path)!r} is not complete: {error} is missing. SeeWhy never guesses it. "
                f"For example: {EXAMPLE}"
            ) from error
        except (InputError, TypeError) as error:
            raise ModelError(
                f"The transform of {str(self.path)!r} cannot be: {error} For example: {EXAMPLE}"
            ) from error

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the last layer's rows; none where they are not said."""
        found = self.said.get("classes") or []
        if not isinstance(found, list) or not all(isinstance(c, str | int | float) for c in found):
            raise ModelError(
                f"{str(self.path)!r} says its classes are {found!r}. A list of names was expected. "
                f"For example: {EXAMPLE}"
            )
        return tuple(map(str, found))

    @property
    def num_classes(self) -> int:
        """Rows of the last layer; 0 for a network without one."""
        self.require([] if self.classes else ["num_classes"])
        n = self.said.get("num_classes") or len(self.classes)
        if not isinstance(n, int) or isinstance(n, bool) or n < 0:
            raise ModelError(
                f"{str(self.path)!r} says num_classes {n!r}. A whole number was expected. For example: {EXAMPLE}"
            )
        if self.classes and n != len(self.classes):
            raise ModelError(
                f"{str(self.path)!r} says num_classes {n} and names {len(self.classes)} classes. Equal numbers were "
                "expected. Correct one of them."
            )
        return n

    def weights(self) -> dict[str, Tensor]:
        """The tensors; no code in the file is ever run."""
        try:
            check_regular(self.path)
            with fenced():
                if self.path.suffix == ".safetensors":
                    from safetensors.torch import load_file

                    return load_file(self.path)
                found = torch.load(self.path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, FenceError) as error:
            raise WeightsError(
                f"{str(self.path)!r} holds more than tensors, and loading it could run code. A state dict was "
                "expected. Where you trust it: torch.save(model.state_dict(), path), or better safetensors."
            ) from error
        except Exception as error:
            raise _damaged(self.path, error) from error
        for key in ("state_dict", "model", "model_state_dict"):
            if isinstance(found, dict) and isinstance(found.get(key), dict):
                found = found[key]
        if not isinstance(found, dict) or not all(isinstance(v, Tensor) for v in found.values()):
            raise WeightsError(
                f"{str(self.path)!r} holds no state dict. Names and tensors were expected. "
                "Write it with torch.save(model.state_dict(), path)."
            )
        tensors = OrderedDict((name.removeprefix("module."), tensor) for name, tensor in found.items())
        tensors._metadata = getattr(found, "_metadata", {})  # type: ignore[attr-defined]  # layer versions
        return tensors

    def fill(self, make: Callable[[], Any], architecture: str) -> Any:
        """A network with the tensors, all of them, made once it is known to be no larger than they are."""
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
                f"{str(self.path)!r} does not fit {architecture}: {' '.join(lines)} The weights of exactly this "
                "architecture and number of classes were expected. Correct 'architecture' or 'num_classes'."
            ) from error
        check_numbers(str(self.path), module)
        return module


def _metadata(path: Path) -> dict[str, Any]:
    """safetensors keeps strings only; lists and objects are JSON in them."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            raw = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error
    said: dict[str, Any] = {}
    for key, value in raw.items():
        try:
            said[key] = parse_json(value)
        except ValueError:
            said[key] = value
    return said


def _damaged(path: Path, error: Exception) -> WeightsError:
    return WeightsError(
        f"{str(path)!r} cannot be read: {reason(error)}. A complete weights file was expected. Copy it again."
    )
