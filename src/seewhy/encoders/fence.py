"""Where other libraries load what was read from files: nothing of it runs or asks, and a network is what its files say.

Each loader is told so by its own options; the fence stands behind them, for one that a loader forgets to hand on.
"""

from __future__ import annotations

import io
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
from ..storage.reading import read_json, read_layout, reason
from .split import NotFiniteError, example_pixels

LIBRARIES = (
    "seewhy", "torch", "torchvision", "timm", "open_clip", "transformers", "huggingface_hub", "tokenizers",
    "safetensors", "gguf", "accelerate", "diffusers", "numpy", "PIL",
)  # fmt: skip
"""Those that load; one that is installed from its sources lies outside of the places for packages."""
NETWORK = frozenset({"socket.connect", "socket.getaddrinfo", "socket.sendto"})
MOST_LARGER, SLACK = 8, 1 << 24
"""How many times the numbers of its files a network may have, for embeddings of positions grow with the picture, and
how many more."""
MOST_PARTS = 1_000
"""Layers, and tensors beyond eight times those of its files, that a network may have."""
MOST_CLASSES = 1_000_000
COUNTS = re.compile("(layer|depth|block|stage|expert)s?$")
WHOLE_NUMBERS = re.compile(r"(ids|index|tracked|mask|attn\.bias|version)$")
"""Ends of the names of tensors that may be whole numbers."""
UNREAD = ("mask_token", "position_ids", "inv_freq", "num_batches_tracked")
"""Parts that some training needs, or that follow from the configuration."""
OWN: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
"""What every loader of transformers is told, whoever named the model."""

Kind = tuple[str, tuple[int, ...]]
"""Kind of numbers and shape of a tensor, as a header says them."""


class FenceError(ModelError):
    """A file or library that is being loaded tried to run code or to call the network."""


class _Fences(threading.local):
    """Of this thread: how many fences it stands behind, and whether the network was asked for."""

    depth = 0
    online = False


_fences = _Fences()


@contextmanager
def fenced(*, online: bool = False) -> Iterator[None]:
    """Inside this context, this thread runs only code of installed packages, without pickles, standard input or
    network.
    """
    from huggingface_hub import constants

    _watch()
    before, stdin, hub = (_fences.depth, _fences.online), sys.stdin, constants.HF_HUB_OFFLINE
    _fences.depth, _fences.online = before[0] + 1, online
    sys.stdin = io.StringIO()
    constants.HF_HUB_OFFLINE = hub or not online
    try:
        yield
    except Exception as error:
        # Libraries wrap what goes wrong inside them in errors of their own.
        own: BaseException | None = error
        while own is not None and not isinstance(own, FenceError):
            own = own.__cause__ or own.__context__
        if own is not None and own is not error:
            raise own from error
        raise
    finally:
        sys.stdin, constants.HF_HUB_OFFLINE = stdin, hub
        _fences.depth, _fences.online = before


@contextmanager
def loading(refusal: Callable[[str], ModelError], *, online: bool = False) -> Iterator[None]:
    """:func:`fenced`; an error that a library raises inside becomes the error that ``refusal`` makes from its
    reason.
    """
    try:
        with fenced(online=online):
            yield
    except ModelError:
        raise
    except Exception as error:  # a configuration that makes no sense raises anything
        raise refusal(reason(error)) from error


def _audit(event: str, given: tuple[Any, ...]) -> None:
    if not _fences.depth:
        return
    if event == "exec" and isinstance(given[0], CodeType):
        file = given[0].co_filename
        if not file.startswith("<") and not os.path.realpath(file).startswith(_places()):
            raise FenceError(
                f"The model brings its own code, {file!r}, which SeeWhy never runs. Expected a model that the "
                "installed libraries know. Choose another one."
            )
    elif event == "pickle.find_class":
        raise FenceError(
            f"The model holds {given[0]}.{given[1]} in a pickle, which could run code. Expected only tensors. If you "
            "trust it, convert it to safetensors."
        )
    elif event in NETWORK and not _fences.online:
        address = given[1] if len(given) == 2 else given[0]
        if not isinstance(address, str | bytes) or len(given) > 2:  # else it is a pipe of this machine's
            raise FenceError(
                "The model tried to load a file from the network that you did not name. Expected all files in its "
                "folder or in the cache. Copy the whole folder."
            )


@cache
def _watch() -> None:
    """Once a process, since such a hook cannot be taken away."""
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
    """The number of tensors in files of weights, and of the numbers in them."""

    n_numbers: int
    n_tensors: int

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Stored:
        return cls(sum(t.numel() for t in tensors.values()), len(tensors))

    @classmethod
    def in_files(cls, name: str, files: Iterable[Path], config: Any = None) -> Stored:
        """Count from the headers of files of weights; for other files, estimate from their size in bytes."""
        layout: dict[str, Kind] = {}
        try:
            for file in files:
                whole = ("F16", (file.stat().st_size // 2,))
                layout |= read_layout(file) if file.suffix == ".safetensors" else {file.name: whole}
        except (OSError, ValueError) as error:
            raise WeightsError(
                f"The weights of {name!r} cannot be read: {reason(error)}. Expected complete files of tensors. Copy "
                "them again."
            ) from error
        if not isinstance(config, dict) or config.get("quantization_config") is None:
            check_kinds(name, layout)
        check_counts(name, config)
        return cls(sum(math.prod(shape) for _, shape in layout.values()), len(layout))

    @classmethod
    def beside(cls, name: str, folder: Path) -> Stored:
        try:
            config = read_json(folder / "config.json")
            for index in sorted(folder.glob("*.index.json")):
                _check_index(name, folder, index)
        except (OSError, ValueError) as error:
            raise WeightsError(
                f"{name!r} cannot be read: {reason(error)}. Expected the files that save_pretrained writes. Copy them "
                "again."
            ) from error
        return cls.in_files(name, sorted(folder.glob("*.safetensors")), config)


def _check_index(name: str, folder: Path, index: Path) -> None:
    """Refuse an index that names anything but files of its own folder, or of the cache that the folder stands in."""
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
                f"{index.name} of {name!r} names {str(file)[:200]!r}, which lies outside its folder. Expected files "
                "beside it. Correct it, or copy that file there."
            )


def check_counts(name: str, config: Any) -> None:
    """Refuse a configuration that names more layers or classes than any network has, before a loader builds them."""
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
                f"The configuration of {name!r} says {key} = {value:,}. Expected at most {most:,}. Use the "
                "configuration that belongs to the weights."
            )


def check_kinds(name: str, weights: Mapping[str, Tensor | Kind]) -> None:
    for tensor, about in weights.items():
        kind, shape = (str(about.dtype).removeprefix("torch."), about.shape) if isinstance(about, Tensor) else about
        whole = kind.lower().startswith(("i", "u", "b")) and kind.lower() not in ("bf16", "bfloat16")
        if whole and math.prod(shape) > 1 and not WHOLE_NUMBERS.search(tensor):
            raise WeightsError(
                f"{tensor[:120]} of {name!r} holds whole numbers ({kind}). Expected floating-point weights. Save the "
                "model again."
            )


@contextmanager
def building(stored: Stored) -> Iterator[set[str]]:
    """Inside this context, this thread makes no network far larger than its weights. The network is stopped at the
    first tensor too many, before that is filled. Yields the tensors that the weights leave out.
    """
    missing, known, thread = set[str](), set[nn.Module](), threading.get_ident()
    n_numbers = n_tensors = 0

    def count(_: nn.Module, __: str, new: Any) -> None:
        nonlocal n_numbers, n_tensors
        if threading.get_ident() != thread or new is None:
            return
        n_numbers += new.numel() if isinstance(new, Tensor) else 0
        n_tensors += 1
        if n_numbers > MOST_LARGER * stored.n_numbers + SLACK:
            raise ValueError(f"it has at least {n_numbers:,} parameters, and there are {stored.n_numbers:,} numbers")
        if n_tensors > MOST_LARGER * stored.n_tensors + 4 * MOST_PARTS:
            raise ValueError(f"it has at least {n_tensors:,} parts, and there are {stored.n_tensors:,} tensors")

    with ExitStack() as stack:

        def note(module: nn.Module, name: str, new: Any) -> None:
            count(module, name, new)
            if threading.get_ident() == thread and module not in known:
                known.add(module)
                hook = module.register_load_state_dict_post_hook(lambda _, keys: missing.update(keys.missing_keys))
                stack.enter_context(hook)

        stack.enter_context(registration.register_module_parameter_registration_hook(count))
        stack.enter_context(registration.register_module_module_registration_hook(note))
        yield missing


@dataclass(frozen=True)
class Missing:
    """Tensors that the weights of a network leave out. They are filled with NaN, so that reading them shows; and
    ``others``.
    """

    name: str
    tensors: tuple[str, ...]
    others: tuple[str, ...] = ()

    @classmethod
    def of(cls, name: str, network: nn.Module, tensors: Iterable[str], others: Iterable[str] = ()) -> Missing:
        """Fill them with NaN in a network whose other weights are numbers."""
        missing = cls(name, tuple(sorted(tensors)), tuple(sorted(others)))
        check_numbers(name, network, missing.tensors)
        held = dict(network.named_parameters(remove_duplicate=False)) | dict(network.named_buffers())
        for tensor in map(held.get, missing.tensors):
            if tensor is not None and tensor.is_floating_point():
                tensor.data.fill_(math.nan)
        return missing

    @contextmanager
    def unread(self) -> Iterator[None]:
        """Inside this context, the network is run; if it gives no numbers, the error says that weights are missing."""
        try:
            yield
        except NotFiniteError as error:
            if self.tensors:
                raise self.refusal() from error
            raise

    @torch.no_grad()
    def check(self, network: Any, size: tuple[int, int]) -> None:
        """Check that a network's output for a picture of noise depends on its weights alone."""
        if self.tensors:
            out = network(example_pixels(size))
            if not getattr(out, "logits", out).isfinite().all():
                raise self.refusal()

    def refusal(self) -> WeightsError:
        more = f" They hold {_listed(self.others)} instead, which it does not use." if self.others else ""
        return WeightsError(
            f"The weights of {self.name!r} leave out {_listed(self.tensors)}.{more} Expected all weights that its "
            "configuration describes. Save the model again."
        )


def _listed(names: Iterable[str], most: int = 3) -> str:
    first = [name[:120] for name in names]
    n = len(first) - most
    return ", ".join(first[:most]) + (f" and {n:,} more" if n > 0 else "")


@torch.no_grad()
def check_numbers(name: str, network: nn.Module, missing: Iterable[str] = ()) -> None:
    left = set(missing)
    for tensor, weights in network.named_parameters():
        kind = torch.float32 if weights.dtype in (torch.float16, torch.bfloat16) else None
        if tensor not in left and weights.is_floating_point() and not weights.sum(dtype=kind).isfinite():
            raise WeightsError(
                f"{tensor} of {name!r} holds NaN or infinity. Expected finite weights. Use a copy from before its "
                "training broke off."
            )


def from_saved(kind: Any, name: str, folder: Path, file: str | None = None, **options: Any) -> tuple[Any, Missing]:
    """Load a network that ``save_pretrained`` wrote with the class ``kind``, behind the fence, and return the tensors
    that its weights leave out. ``file`` is a ``.gguf`` in the folder, with weights and configuration in one.
    """
    if file is None:
        own: dict[str, Any] = {"use_safetensors": True}
        stored = Stored.beside(name, folder)
    else:  # of less than two bits a number
        own = {"gguf_file": file}
        stored = Stored((folder / file).stat().st_size * 8, MOST_PARTS)
    told = {**options, **own, "ignore_mismatched_sizes": True, "output_loading_info": True}
    with fenced(), building(stored), silent():
        network, info = kind.from_pretrained(folder, **told, **OWN)
    if info["mismatched_keys"]:
        tensor, theirs, ours = min(info["mismatched_keys"])
        raise WeightsError(
            f"{tensor} of {name!r} has the shape {tuple(theirs)} in its weights, but {tuple(ours)} in its network. "
            "Expected equal shapes. Use the configuration that belongs to the weights."
        )
    others = info["unexpected_keys"]
    missing = Missing.of(name, network, info["missing_keys"], others)
    if odd := sorted(key for key in others if _is_inside(network, key)):
        if missing.tensors:
            raise missing.refusal()
        raise WeightsError(
            f"The network of {name!r} has no {_listed(odd)}, but its weights do. Expected the config.json that belongs "
            "to them. Save the model again."
        )
    return network, missing


def _is_inside(network: nn.Module, key: str) -> bool:
    """Whether weights without a place belong inside a part that the network has; a part left out whole is not read."""
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
    """Inside this context, this thread shows no bars or reports of the libraries; SeeWhy itself says what it does."""
    thread, root, names = threading.get_ident(), logging.getLogger(), ("transformers", "diffusers")
    bars: list[Any] = [sys.modules.get(f"{name}.utils.logging") for name in names]
    shown = [bar for bar in bars if bar is not None and getattr(bar, "_tqdm_active", True)]
    quiet: list[logging.Filterer] = [root, *(handler for name in names for handler in logging.getLogger(name).handlers)]

    def others(record: logging.LogRecord) -> bool:
        return record.thread != thread

    handler = logging.NullHandler()  # without one, open_clip's first word would set up logging for the whole program
    root.addHandler(handler)
    for log in quiet:
        log.addFilter(others)
    for bar in shown:
        bar.disable_progress_bar()
    try:
        yield
    finally:
        for bar in shown:
            bar.enable_progress_bar()
        for log in quiet:
            log.removeFilter(others)
        root.removeHandler(handler)
