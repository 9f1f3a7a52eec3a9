"""Any pipeline of diffusers, from a folder on this disk: a prompt and a seed in, a picture out."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from ..encoders.fence import OWN, fenced, from_saved, loading, silent
from ..encoders.weights import check_file
from ..errors import InputError, MissingExtraError, ModelError, WeightsError
from ..storage.reading import file_sha256, read_json, reason

INDEX = "model_index.json"
CODE, PICKLES = (".py", ".pyc", ".so"), (".bin", ".ckpt", ".pkl", ".pt", ".pth")
LIBRARIES = ("diffusers", "transformers")
"""That a pipeline's folder may name classes of; beside them the pipelines of diffusers themselves."""


@dataclass(frozen=True, eq=False)
class Pipeline:
    """A pipeline with its weights.

    Attributes:
        pipe: of diffusers.
        name: of its class.
        fingerprint: of all its files and of how it is asked.
        in_words: whether it reads a prompt; else it makes what it makes.
        steps: of denoising; left out, the pipeline's own.
        guidance: how much the prompt weighs; left out, the pipeline's own.
    """

    pipe: Any
    name: str
    fingerprint: str
    in_words: bool
    steps: int | None = None
    guidance: float | None = None

    def refusal(self, classes: tuple[str, ...]) -> str | None:
        """Why it does not make pictures of these classes, if it does not."""
        if bool(classes) == self.in_words:
            return None
        return f"{self.name} {'has to be told what to make' if self.in_words else 'reads no words'}"

    def picture(self, label: str | None, prompt: str, seed: int) -> UInt8[np.ndarray, "h w 3"]:
        """The picture of a prompt and a seed, always the same."""
        asked: dict[str, Any] = {"prompt": prompt} if self.in_words else {}
        asked |= {"num_inference_steps": self.steps} if self.steps else {}
        asked |= {"guidance_scale": self.guidance} if self.guidance is not None else {}
        with loading(self._refusal):
            made = self.pipe(**asked, generator=torch.Generator().manual_seed(seed), output_type="pil").images[0]
            return np.asarray(made.convert("RGB"))

    def _refusal(self, why: str) -> ModelError:
        return ModelError(
            f"{self.name} made no picture: {why} A pipeline that makes one was expected. Try it by itself."
        )


def is_pipeline(folder: Path) -> bool:
    """Whether a folder says that it is one."""
    return (folder / INDEX).is_file()


def load_pipeline(folder: Path, *, steps: int | None = None, guidance: float | None = None) -> Pipeline:
    """Read what ``save_pretrained`` wrote. The hub is not asked, and no code in the folder is run.

    Classes are those that the installed diffusers and transformers have; weights are safetensors.
    """
    try:
        import diffusers
    except ImportError as error:
        raise MissingExtraError("diffusion", "diffusers") from error
    kind, parts = _checked(folder, diffusers)
    with (
        silent(),
        loading(lambda why: ModelError(f"{folder} cannot be built: {why} Another one was expected. Save it again.")),
    ):
        networks = dict(_networks(folder, parts, diffusers))
        pipe = kind.from_pretrained(str(folder), use_safetensors=True, **OWN, **networks)
    pipe.set_progress_bar_config(disable=True)
    takes = inspect.signature(type(pipe).__call__).parameters
    for name, given in (("num_inference_steps", steps), ("guidance_scale", guidance)):
        if given is not None and name not in takes:
            raise InputError(f"{kind.__name__} was given {name}={given:g}. It has no such setting. Leave it out.")
    if "generator" not in takes or "image" in takes or "class_labels" in takes:
        raise ModelError(
            f"{kind.__name__} in {folder} wants a picture or numbers of classes, or draws by no seed. A pipeline that "
            "makes pictures from a prompt, or from nothing, was expected. Choose another one."
        )
    with fenced():
        pipe.to("cuda" if torch.cuda.is_available() else "cpu")
    key = hashlib.sha256(f"{steps} {guidance}".encode())
    for file in sorted(one for one in folder.rglob("*") if one.is_file()):
        key.update(f"{file.relative_to(folder)} {file_sha256(file)}".encode())
    return Pipeline(pipe, kind.__name__, key.hexdigest()[:32], "prompt" in takes, steps, guidance)


def _networks(folder: Path, parts: dict[str, Any], diffusers: Any) -> Iterator[tuple[str, Any]]:
    """The networks among a pipeline's parts, each with all its weights."""
    for part, (library, name) in parts.items():
        home = import_module(library) if library in LIBRARIES else getattr(diffusers.pipelines, library or "", None)
        kind = getattr(home, name or "", None)
        if isinstance(kind, type) and issubclass(kind, torch.nn.Module):
            told: dict[str, Any] = {"dtype": torch.float32} if library == "transformers" else {}
            network, missing = from_saved(kind, f"{folder}/{part}", folder / part, **told)
            if missing.tensors:
                raise missing.refusal()
            yield part, network


def _checked(folder: Path, diffusers: Any) -> tuple[Any, dict[str, Any]]:
    """The pipeline's class and its parts, once nothing in the folder can choose what is loaded."""
    try:
        said = read_json(folder / INDEX)
        kind = getattr(diffusers, said["_class_name"])
        parts = {k: v for k, v in said.items() if not k.startswith("_") and isinstance(v, list)}
        if not issubclass(kind, diffusers.DiffusionPipeline):
            raise ValueError(f"{kind.__name__} is no pipeline")
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(
            f"{folder} has no {INDEX} that names a pipeline of diffusers ({reason(error)}). A folder written by "
            "save_pretrained was expected. Save the pipeline again, or update diffusers."
        ) from error
    for part, names in parts.items():
        if names not in ([None, None],) and not (len(names) == 2 and _known(names[0], diffusers)):
            raise ModelError(
                f"{folder} says that its {part} is {names!r}. A class of {' or '.join(LIBRARIES)} was expected: a file "
                "never chooses what else is loaded. Choose another pipeline."
            )
    files = sorted(one for one in folder.rglob("*") if not one.is_dir())
    for file in files:
        check_file(str(folder), file)
        if file.suffix in CODE:
            raise ModelError(
                f"{folder} brings code of its own, {file.name!r}, which is never run. A pipeline that the installed "
                "diffusers knows was expected. Choose another one."
            )
        if file.suffix in PICKLES and not any(other.suffix == ".safetensors" for other in file.parent.iterdir()):
            raise WeightsError(
                f"{file.relative_to(folder)} of {folder} is a pickle, which can run code. Weights in safetensors were "
                "expected. Where you trust it, save it again with save_pretrained(…, safe_serialization=True)."
            )
    return kind, parts


def _known(library: Any, diffusers: Any) -> bool:
    return library in LIBRARIES or (
        isinstance(library, str) and inspect.ismodule(getattr(diffusers.pipelines, library, None))
    )
