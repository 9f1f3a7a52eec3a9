"""A sandbox for loading model files with other libraries, without code execution or network access."""

from __future__ import annotations

import logging
import math
import os
import re
import site
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import CodeType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as registration

from ..errors import ModelError, WeightsError
from ..pictures.samples import some
from ..seeded import seeded
from ..storage.reading import read_json, read_layout, readable, reason
from ..threads import Together
from .split import NotFiniteError, example_pixels

LIBRARIES = (
    "seewhy", "torch", "torchvision", "timm", "open_clip", "transformers", "huggingface_hub", "tokenizers",
    "safetensors", "gguf", "accelerate", "diffusers", "numpy", "PIL",
)  # fmt: skip
"""Libraries whose code may run, even if installed in editable mode."""
NETWORK = frozenset({"socket.connect", "socket.getaddrinfo", "socket.sendto"})
MOST_LARGER, SLACK = 8, 1 << 24
"""A network may have ``MOST_LARGER`` times the parameters of its files plus ``SLACK``."""
MOST_PARTS = 1_000
"""Largest number of layers in a configuration."""
MOST_CLASSES = 1_000_000
COUNTS = re.compile("(layer|depth|block|stage|expert)s?$")
WHOLE_NUMBERS = re.compile(r"(ids|index|tracked|mask|attn\.bias|version)$")
"""Pattern for the names of tensors that may hold integers."""
UNREAD = ("mask_token", "position_ids", "inv_freq", "num_batches_tracked")
"""Names of tensors that inference does not need."""
BARS = ("transformers", "diffusers")
"""Libraries that show progress bars."""
OWN: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
"""Options for every loader of transformers."""

Kind = tuple[str, tuple[int, ...]]
"""The data type and shape of a tensor in a safetensors header."""


class FenceError(ModelError):
    """A model file or library tried to run code or to access the network during loading."""


class _Fences(threading.local):
    """The nesting depth of the sandbox, the network permission and the hooks of :func:`building`, per thread."""

    depth = 0
    online = False
    hooks: tuple[tuple[Callable[..., None], Callable[..., None]], ...] = ()


_fences = _Fences()


def _registers(which: int) -> Callable[[nn.Module, str, Any], None]:
    def call(module: nn.Module, name: str, new: Any) -> None:
        for hooks in _fences.hooks:
            hooks[which](module, name, new)

    return call


# Once for all: torch walks over these hooks, and would fail if another thread added or removed one meanwhile.
registration.register_module_parameter_registration_hook(_registers(0))
registration.register_module_module_registration_hook(_registers(1))


@contextmanager
def fenced(*, online: bool = False) -> Iterator[None]:
    """Restrict this thread to code of installed packages, without pickles, standard input or network."""
    from huggingface_hub import constants  # noqa: F401  imported before other threads wait for this one

    _watch()
    before = _fences.depth, _fences.online
    _fences.depth, _fences.online = before[0] + 1, online
    try:
        with _hub, seeded(0):
            yield
    except Exception as error:
        # Libraries wrap exceptions in their own.
        own: BaseException | None = error
        while own is not None and not isinstance(own, FenceError):
            own = own.__cause__ or own.__context__
        if own is not None and own is not error:
            raise own from error
        raise
    finally:
        _fences.depth, _fences.online = before


class _Offline(int):
    """A setting of the whole process that is also true in a thread inside :func:`fenced`."""

    def __bool__(self) -> bool:
        return self != 0 or (_fences.depth > 0 and not _fences.online)

    def __repr__(self) -> str:
        return str(self != 0)


def _offline() -> Callable[[], None]:
    """Put :class:`_Offline` in the place of the hub's setting, and put the setting back unless it was set anew."""
    constants: Any = sys.modules["huggingface_hub.constants"]
    before, own = constants.HF_HUB_OFFLINE, _Offline(bool(constants.HF_HUB_OFFLINE))
    constants.HF_HUB_OFFLINE = own

    def undo() -> None:
        if constants.HF_HUB_OFFLINE is own:
            constants.HF_HUB_OFFLINE = before

    return undo


_hub = Together(_offline)


@contextmanager
def loading(refusal: Callable[[str], ModelError], *, online: bool = False) -> Iterator[None]:
    """Enter :func:`fenced`, and convert library errors to the error that ``refusal`` returns."""
    try:
        with fenced(online=online):
            yield
    except ModelError:
        raise
    except Exception as error:  # a configuration that makes no sense may raise any exception
        raise refusal(reason(error)) from error


def _audit(event: str, given: tuple[Any, ...]) -> None:
    if not _fences.depth:
        return
    if event == "exec" and isinstance(given[0], CodeType):
        file = given[0].co_filename
        if not file.startswith("<") and not os.path.realpath(file).startswith(_places()):
            raise FenceError(
                f"The model has its own code, {file!r}, which SeeWhy never runs. Choose a model that the installed "
                "libraries support."
            )
    elif event == "builtins.input":
        raise EOFError("a library asks a question")
    elif event == "pickle.find_class":
        raise FenceError(
            f"The model contains {given[0]}.{given[1]} in a pickle, which could run code. If you trust it, convert it "
            "to safetensors."
        )
    elif event in NETWORK and not _fences.online:
        address = given[1] if len(given) == 2 else given[0]
        if not isinstance(address, str | bytes) or len(given) > 2:  # otherwise it is a local pipe
            raise FenceError(
                "The model tried to download a file. All its files must be in its folder or in the cache. Copy the "
                "whole folder."
            )


@cache
def _watch() -> None:
    sys.addaudithook(_audit)


@cache
def _places() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    places = {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    places |= {*site.getsitepackages(), site.getusersitepackages()}
    for library in LIBRARIES:
        spec = find_spec(library)
        places |= set(spec.submodule_search_locations or ()) if spec is not None else set()
    return tuple(os.path.realpath(path) + os.sep for path in places)


@dataclass(frozen=True)
class Stored:
    """The numbers of parameters and tensors in weight files."""

    n_numbers: int
    n_tensors: int

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Stored:
        return cls(sum(t.numel() for t in tensors.values()), len(tensors))

    @classmethod
    def in_files(cls, name: str, files: Iterable[Path], config: Any = None) -> Stored:
        """Count the parameters in safetensors headers, or estimate them from the sizes of other files."""
        layout: dict[str, Kind] = {}
        with readable(f"The weights of {name!r}", "Copy them again.", WeightsError):
            for file in files:
                whole = ("F16", (file.stat().st_size // 2,))
                layout |= read_layout(file) if file.suffix == ".safetensors" else {file.name: whole}
        if not isinstance(config, dict) or config.get("quantization_config") is None:
            check_kinds(name, layout)
        check_counts(name, config)
        return cls(sum(math.prod(shape) for _, shape in layout.values()), len(layout))

    @classmethod
    def beside(cls, name: str, folder: Path) -> Stored:
        cure = "It must have the files that save_pretrained writes. Copy them again."
        with readable(repr(name), cure, WeightsError):
            config = read_json(folder / "config.json")
            for index in sorted(folder.glob("*.index.json")):
                _check_index(name, folder, index)
        return cls.in_files(name, sorted(folder.glob("*.safetensors")), config)


def _check_index(name: str, folder: Path, index: Path) -> None:
    """Check that a weights index names only files in its own folder or in the hub's cache."""
    places = read_json(index)
    named = places.get("weight_map") if isinstance(places, dict) else None
    if not isinstance(named, dict):
        raise ValueError(f"{index.name} has no weight_map")
    inside = folder.resolve()
    homes = [inside] + [inside.parents[1] / "blobs"] * (inside.parent.name == "snapshots")  # the hub's cache
    for file in {str(value): value for value in named.values()}.values():
        plain = isinstance(file, str) and file not in ("", ".", "..") and not re.search(r"[/\\\0:]", file)
        if not plain or not any((folder / file).resolve().is_relative_to(home) for home in homes):
            raise WeightsError(
                f"{index.name} of {name!r} must name files in its own folder, got {str(file)[:200]!r}. Copy that file "
                "into the folder."
            )


def check_counts(name: str, config: Any) -> None:
    """Check that a configuration has a plausible number of layers and classes before the network is built."""
    todo = [("", config)]
    while todo:
        key, value = todo.pop()
        if isinstance(value, dict):
            todo += [(str(inner), item) for inner, item in value.items()]
        elif isinstance(value, list):
            todo += [(key, item) for item in value if not isinstance(item, str)]
        most = MOST_CLASSES if key in ("num_labels", "num_classes") else MOST_PARTS if COUNTS.search(key) else None
        if most is not None and isinstance(value, int) and value > most:
            raise WeightsError(
                f"{key} in the configuration of {name!r} must be at most {most:,}, got {value:,}. Use the "
                "configuration that belongs to the weights."
            )


def check_kinds(name: str, weights: Mapping[str, Tensor | Kind]) -> None:
    for tensor, about in weights.items():
        kind, shape = (str(about.dtype).removeprefix("torch."), about.shape) if isinstance(about, Tensor) else about
        whole = kind.lower().startswith(("i", "u", "b")) and kind.lower() not in ("bf16", "bfloat16")
        if whole and math.prod(shape) > 1 and not WHOLE_NUMBERS.search(tensor):
            raise WeightsError(
                f"{tensor[:120]} of {name!r} must have a floating-point type, got {kind}. Save the model again."
            )


@contextmanager
def building(stored: Stored) -> Iterator[set[str]]:
    """Limit the size of networks that this thread builds to a multiple of the stored weights.

    Yields the names of tensors that the weights do not contain.
    """
    missing, known = set[str](), set[nn.Module]()
    n_numbers = n_tensors = 0

    def count(_: nn.Module, __: str, new: Any) -> None:
        nonlocal n_numbers, n_tensors
        if new is None:
            return
        n_numbers += new.numel() if isinstance(new, Tensor) else 0
        n_tensors += 1
        if n_numbers > MOST_LARGER * stored.n_numbers + SLACK:
            raise ValueError(f"it has at least {n_numbers:,} parameters, but its files have {stored.n_numbers:,}")
        if n_tensors > MOST_LARGER * stored.n_tensors + 4 * MOST_PARTS:
            raise ValueError(f"it has at least {n_tensors:,} tensors, but its files have {stored.n_tensors:,}")

    with ExitStack() as stack:

        def note(module: nn.Module, name: str, new: Any) -> None:
            count(module, name, new)
            if module not in known:
                known.add(module)
                hook = module.register_load_state_dict_post_hook(lambda _, keys: missing.update(keys.missing_keys))
                stack.enter_context(hook)

        outer = _fences.hooks
        stack.callback(setattr, _fences, "hooks", outer)
        _fences.hooks = (*outer, (count, note))
        yield missing


@dataclass(frozen=True)
class Missing:
    """Tensors that are missing from the weights of a network, and unexpected tensors (``others``)."""

    name: str
    tensors: tuple[str, ...]
    others: tuple[str, ...] = ()

    @classmethod
    def of(cls, name: str, network: nn.Module, tensors: Iterable[str], others: Iterable[str] = ()) -> Missing:
        """Fill missing tensors with NaN and check that the remaining weights are finite."""
        missing = cls(name, tuple(sorted(tensors)), tuple(sorted(others)))
        check_numbers(name, network, missing.tensors)
        held = dict(network.named_parameters(remove_duplicate=False)) | dict(network.named_buffers())
        for tensor in map(held.get, missing.tensors):
            if tensor is not None and tensor.is_floating_point():
                tensor.data.fill_(math.nan)
        return missing

    @contextmanager
    def unread(self) -> Iterator[None]:
        """Convert ``NotFiniteError`` to an error that names the missing weights."""
        try:
            yield
        except NotFiniteError as error:
            if self.tensors:
                raise self.refusal() from error
            raise

    @torch.no_grad()
    def check(self, network: Any, size: tuple[int, int]) -> None:
        """Check that a network's output does not depend on missing tensors."""
        if self.tensors:
            out = network(example_pixels(size))
            if not getattr(out, "logits", out).isfinite().all():
                raise self.refusal()

    def refusal(self) -> WeightsError:
        more = f" They have {_listed(self.others)} instead, which the network does not use." if self.others else ""
        return WeightsError(f"The weights of {self.name!r} lack {_listed(self.tensors)}.{more} Save the model again.")


def _listed(names: Iterable[str]) -> str:
    return some([name[:120] for name in names], 3)


@torch.no_grad()
def check_numbers(name: str, network: nn.Module, missing: Iterable[str] = ()) -> None:
    left = set(missing)
    for tensor, weights in network.named_parameters():
        kind = torch.float32 if weights.dtype in (torch.float16, torch.bfloat16) else None
        if tensor not in left and weights.is_floating_point() and not weights.sum(dtype=kind).isfinite():
            raise WeightsError(
                f"{tensor} of {name!r} must be finite, but it has NaN or infinity. Use an earlier checkpoint."
            )


def from_saved(kind: Any, name: str, folder: Path, file: str | None = None, **options: Any) -> tuple[Any, Missing]:
    """Load a network that ``save_pretrained`` wrote, and return the network and the names of missing tensors.

    ``file`` is the name of a ``.gguf`` file in the folder.
    """
    if file is None:
        own: dict[str, Any] = {"use_safetensors": True}
        stored = Stored.beside(name, folder)
    else:  # GGUF, for formats below two bits per weight
        own = {"gguf_file": file}
        stored = Stored((folder / file).stat().st_size * 8, MOST_PARTS)
    told = {**options, **own, "ignore_mismatched_sizes": True, "output_loading_info": True}
    with fenced(), building(stored), silent():
        network, info = kind.from_pretrained(folder, **told, **OWN)
    if info["mismatched_keys"]:
        tensor, theirs, ours = min(info["mismatched_keys"])
        raise WeightsError(
            f"{tensor} of {name!r} must have the shape {tuple(ours)}, got {tuple(theirs)} in the weights. Use the "
            "configuration that belongs to the weights."
        )
    others = info["unexpected_keys"]
    missing = Missing.of(name, network, info["missing_keys"], others)
    if odd := sorted(key for key in others if _is_inside(network, key)):
        if missing.tensors:
            raise missing.refusal()
        raise WeightsError(
            f"The weights of {name!r} have {_listed(odd)}, but its network does not. Use the config.json that belongs "
            "to them, or save the model again."
        )
    return network, missing


def _is_inside(network: nn.Module, key: str) -> bool:
    """Check whether an unexpected tensor belongs to a module of the network."""
    *path, last = key.split(".")
    if last in UNREAD:
        return False
    at, outside = network, ["", getattr(network, "base_model_prefix", "")]
    for depth, part in enumerate(path):
        inner = at._modules.get(part)
        if inner is None:
            return ".".join(path[:depth]) not in outside
        at = inner
    return True


@contextmanager
def silent() -> Iterator[None]:
    """Hide progress bars and log messages of the libraries in this thread."""
    thread, root = threading.get_ident(), logging.getLogger()
    quiet: list[logging.Filterer] = [root, *(handler for name in BARS for handler in logging.getLogger(name).handlers)]

    def others(record: logging.LogRecord) -> bool:
        return record.thread != thread

    for log in quiet:
        log.addFilter(others)
    try:
        with _no_bars:
            yield
    finally:
        for log in quiet:
            log.removeFilter(others)


def _hide_bars() -> Callable[[], None]:
    bars: list[Any] = [sys.modules.get(f"{name}.utils.logging") for name in BARS]
    shown = [bar for bar in bars if bar is not None and getattr(bar, "_tqdm_active", True)]
    handler = logging.NullHandler()  # without one, open_clip's first word would set up logging for the whole program
    logging.getLogger().addHandler(handler)
    for bar in shown:
        bar.disable_progress_bar()

    def undo() -> None:
        logging.getLogger().removeHandler(handler)
        for bar in shown:
            bar.enable_progress_bar()

    return undo


_no_bars = Together(_hide_bars)
