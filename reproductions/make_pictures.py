"""Generates a set of pictures from class names, and notes the seed of each (as CIFAKE was made).

    python reproductions/make_pictures.py data/GENERATED --generator sd/ --classes "cat, ship" --count 500 --seed 1

The generator is the folder of a diffusers pipeline, or of reproductions/train_generator.py. A stopped run continues.
"""

from __future__ import annotations

import argparse
import hashlib
import inspect
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol
from zlib import crc32

import numpy as np
import torch
from jaxtyping import UInt8

import seewhy
from seewhy.classifiers.base import Classifier
from seewhy.encoders.fence import OWN, fenced, from_saved, loading, silent
from seewhy.encoders.split import weights_digest
from seewhy.encoders.weights import check_file as check_readable
from seewhy.errors import DataError, ForeignFileError, InputError, MissingExtraError, ModelError, WeightsError
from seewhy.generation.conditions import of_class, of_text
from seewhy.generation.generator import Generator, bytes_of, load_generator
from seewhy.generation.sampler import PPGN, noise
from seewhy.progress import Progress
from seewhy.storage.journal import Journal
from seewhy.storage.marks import Lines, Record
from seewhy.storage.output import check_file, check_folder, make_folder, write
from seewhy.storage.reading import file_sha256, read_json, reason

INDEX = "model_index.json"
CODE, PICKLES = (".py", ".pyc", ".so"), (".bin", ".ckpt", ".pkl", ".pt", ".pth")
LIBRARIES = ("diffusers", "transformers")
"""That a pipeline's folder may name classes of; beside them the pipelines of diffusers themselves."""


@dataclass(frozen=True, eq=False)
class Pipeline:
    """A pipeline with its weights."""

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
            f"{self.name} made no picture: {why} Expected a pipeline that makes one. Try it without SeeWhy."
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
        loading(
            lambda why: ModelError(f"{folder} cannot be built: {why} Expected a complete pipeline. Save it again.")
        ),
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
            f"{kind.__name__} in {folder} needs a picture or class numbers, or takes no seed. Expected a pipeline "
            "that makes pictures from a prompt, or from noise. Choose another one."
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
            f"{folder} has no {INDEX} that names a pipeline of diffusers ({reason(error)}). Expected a folder that "
            "save_pretrained wrote. Save the pipeline again, or update diffusers."
        ) from error
    for part, names in parts.items():
        if names not in ([None, None],) and not (len(names) == 2 and _known(names[0], diffusers)):
            raise ModelError(
                f"{folder} says that its {part} is {names!r}. Expected a class of {' or '.join(LIBRARIES)}: a file "
                "must not choose what else is loaded. Choose another pipeline."
            )
    files = sorted(one for one in folder.rglob("*") if not one.is_dir())
    for file in files:
        check_readable(str(folder), file)
        if file.suffix in CODE:
            raise ModelError(
                f"{folder} brings its own code, {file.name!r}, which SeeWhy never runs. Expected a pipeline that "
                "the installed diffusers knows. Choose another one."
            )
        if file.suffix in PICKLES and not any(other.suffix == ".safetensors" for other in file.parent.iterdir()):
            raise WeightsError(
                f"{file.relative_to(folder)} of {folder} is a pickle, which can run code. Expected weights in "
                "safetensors. If you trust it, save it again with save_pretrained(…, safe_serialization=True)."
            )
    return kind, parts


def _known(library: Any, diffusers: Any) -> bool:
    return library in LIBRARIES or (
        isinstance(library, str) and inspect.ismodule(getattr(diffusers.pipelines, library, None))
    )


TABLE = "pictures.jsonl"
FIELDS = ("image", "label", "prompt", "seed", "generator", "sha256")
ROWS = Lines((Record(FIELDS),))
NO_CLASS = "made"
"""Folder and label of pictures of no class."""


class Source(Protocol):
    """What makes pictures."""

    @property
    def name(self) -> str: ...
    @property
    def fingerprint(self) -> str: ...
    def refusal(self, classes: tuple[str, ...]) -> str | None:
        """Why it does not make these, if it does not."""
        ...

    def picture(self, label: str | None, prompt: str, seed: int) -> UInt8[np.ndarray, "h w 3"]: ...


@dataclass(frozen=True, eq=False)
class OfGenerator:
    """A generator: a walk (PPGN) from noise towards the class."""

    generator: Generator
    classifier: Classifier | None = None
    sampler: PPGN = field(default_factory=PPGN)

    @property
    def name(self) -> str:
        return f"seewhy generator on {self.generator.read.encoder.name}"

    @property
    def fingerprint(self) -> str:
        tensors = {f"g.{k}": v for k, v in self.generator.network.state_dict().items()}
        told = f"{self.sampler}|{self.generator.read.encoder.fingerprint}"
        if self.classifier is not None:
            tensors |= {f"c.{k}": v for k, v in self.classifier.head.state_dict().items()}
            told += f"|{self.classifier.encoder.fingerprint}"
        return weights_digest(tensors, told)[:32]

    def refusal(self, classes: tuple[str, ...]) -> str | None:
        if classes and self.classifier is None and not self.generator.read.encoder.has_text:
            return f"the encoder {self.generator.read.encoder.name!r} of the generator reads no words"
        for name in classes if self.classifier is not None else ():
            self.classifier.index_of(name)  # type: ignore[union-attr]
        return None

    def picture(self, label: str | None, prompt: str, seed: int) -> UInt8[np.ndarray, "h w 3"]:
        """The picture of a class and a seed, always the same."""
        own, goal = self.generator.read.encoder, None
        if label is not None:
            goal = of_text(own, prompt) if self.classifier is None else of_class(self.classifier, label)
        walk = self.sampler.sample(self.generator, goal, noise(self.generator, 1, seed), seed=seed)
        return bytes_of(walk.pictures[-1])[0].numpy()


@dataclass(frozen=True)
class MadeSet:
    """Which pictures are made.

    A picture's seed follows from the set's seed, the class's name and the picture's number alone, so that more
    pictures or further classes change none that are there.

    Args:
        classes: names; none for a generator that reads no words.
        count: pictures of each.
        prompt: sentence with ``{}`` where the name goes; CIFAKE's own sentences are not known word for word.
        seed: of all of them.

    Example:
        >>> [row["seed"] for row in MadeSet(("wren",), 2).rows("g")]
        [1633811461, 1414937683]
    """

    classes: tuple[str, ...] = ()
    count: int = 10
    prompt: str = "a photograph of a {}"
    seed: int = 0

    def __post_init__(self) -> None:
        folders = [_folder(name) for name in self.classes]
        if self.count < 1 or not all(folders) or len(set(folders)) < len(folders):
            raise InputError(
                f"{self.count} pictures of each of {', '.join(map(repr, self.classes)) or 'no class'} were asked for. "
                "Expected one or more, and names that differ in letters and digits. Change them."
            )
        if self.classes and self.prompt.count("{}") != 1:
            raise InputError(
                f"The prompt is {self.prompt!r}. Expected a sentence with {{}} in the place of the class's name. For "
                "example: 'a photograph of a {}'"
            )

    def rows(self, fingerprint: str) -> Iterator[dict[str, Any]]:
        """What is made, one picture of each class after another; all but the digest."""
        for number in range(self.count):
            for name in self.classes or (None,):
                label = NO_CLASS if name is None else name
                yield {
                    "image": f"{_folder(label)}/{number:06d}.png",
                    "label": label,
                    "prompt": "" if name is None else self.prompt.replace("{}", name),
                    "seed": crc32(f"{self.seed}|{label}|{number}".encode()),
                    "generator": fingerprint,
                }

    def make(self, source: Source, folder: Path, progress: Progress | None = None) -> dict[str, Any]:
        """Make what is not there yet; a stopped run goes on."""
        progress = progress or Progress()
        refusal = source.refusal(self.classes)
        if refusal is not None:
            given = f"{len(self.classes)} class(es) were named" if self.classes else "No class was named"
            cure = "Leave them out, or give a classifier that knows them." if self.classes else "Name some."
            raise InputError(f"{given}, and {refusal}. {cure}")
        check_set(folder)
        planned, n_new = list(self.rows(source.fingerprint)), 0
        with Journal(folder / TABLE, ROWS, force=None, sync=True) as table:
            known = {row["image"]: row for row in table.rows}
            for row in planned:
                self._check(row, known.get(row["image"]), folder)
            for row in progress.track(planned, "Making", len(planned)):
                digest = known.get(row["image"], {}).get("sha256")
                path = folder / row["image"]
                if digest is not None and path.is_file():
                    continue
                found = self._made(source, row, path)
                if digest is None:
                    table.add({**row, "sha256": found})
                elif found != digest:
                    progress.note(f"{row['image']} was made again and is another picture: libraries may have changed")
                n_new += 1
        return {
            "made": str(folder),
            "table": str(folder / TABLE),
            "generator": source.name,
            "fingerprint": source.fingerprint,
            "n": len(planned),
            "n_new": n_new,
            "pictures": [{k: row[k] for k in ("image", "label", "prompt", "seed")} for row in planned],
            "notes": list(dict.fromkeys(progress.notes)),
        }

    def _check(self, row: dict[str, Any], known: dict[str, Any] | None, folder: Path) -> None:
        path = folder / row["image"]
        if known is not None and {k: known[k] for k in row} != row:
            raise DataError(
                f"{folder} holds pictures that were made otherwise: {row['image']} by generator {known['generator']}, "
                f"seed {known['seed']}, prompt {known['prompt']!r}. Expected the same generator, settings, seed and "
                "prompt. Give another folder."
            )
        if known is None and path.parent.is_dir():
            check_file(path, force=None)
        if known is not None and path.is_file() and file_sha256(path) != known["sha256"]:
            raise ForeignFileError(
                f"{path} is no longer the picture that was made. Expected it unchanged, or no file. Move it away."
            )

    def _made(self, source: Source, row: dict[str, Any], path: Path) -> str:
        from seewhy.report.page import encoded

        make_folder(path.parent)
        label = None if not self.classes else row["label"]
        write(path, encoded(source.picture(label, row["prompt"], row["seed"])), force=None)
        return file_sha256(path)


def check_set(folder: Path) -> Path:
    """The folder, if a set can be made or gone on with there; nothing is touched."""
    check_folder(folder)
    if folder.is_dir() and any(folder.iterdir()) and not (folder / TABLE).is_file():
        raise ForeignFileError(
            f"{folder} is not empty and holds no {TABLE}. Expected a new folder, or one that this command made. "
            "Choose another name."
        )
    return folder


def _folder(name: str) -> str:
    return re.sub(r"\W+", "_", name.strip()).strip("_").lower()


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Make a set and print what it has."""
    parser = argparse.ArgumentParser(description="Makes a set of pictures, each with its seed; run again, it goes on.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--generator", required=True, type=Path, help="of a diffusers pipeline, or a trained one")
    parser.add_argument("--classes", default="", help="names of what is made, separated by commas")
    parser.add_argument("--count", type=int, default=10, help="pictures of each")
    parser.add_argument("--prompt", default=MadeSet.prompt, help="{} is the class's name")
    parser.add_argument("--steps", type=int, help="of denoising, or of the walk")
    parser.add_argument("--guidance", type=float, help="how much the prompt weighs in a pipeline")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-m", "--model", help="a saved classifier whose classes a trained generator climbs")
    given = parser.parse_args(arguments)
    names = tuple(filter(None, (name.strip() for name in given.classes.split(","))))
    source: Source
    if is_pipeline(given.generator):
        source = load_pipeline(given.generator, steps=given.steps, guidance=given.guidance)
    else:
        climbed = None if given.model is None else seewhy.load(given.model)
        loaded = load_generator(given.generator, own=None if climbed is None else climbed.encoder)
        source = OfGenerator(loaded, climbed, PPGN() if given.steps is None else PPGN(n_steps=given.steps))
    row = MadeSet(names, given.count, given.prompt, given.seed).make(source, given.folder)
    print(json.dumps(row, ensure_ascii=False))
    return row


if __name__ == "__main__":
    main()
