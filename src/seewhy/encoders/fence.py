"""Where other libraries load what was read from files: nothing of it runs, nothing asks, and nothing is called unasked.

Each loader is told so by its own options. The fence stands behind them, for the option that a loader forgets to hand
on: a model's configuration may name a class, a tokenizer, another model, each with a loader of its own.
"""

from __future__ import annotations

import io
import os
import site
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import CodeType
from typing import Any

from ..errors import ModelError, WeightsError
from ..storage.reading import check_regular, reason
from .hub import offline

LIBRARIES = (
    "seewhy", "torch", "torchvision", "timm", "open_clip", "transformers", "huggingface_hub", "tokenizers",
    "safetensors", "gguf", "accelerate", "diffusers", "numpy", "PIL",
)  # fmt: skip
"""Those that load; one that is installed from its sources lies outside of the places for packages."""

NETWORK = frozenset({"socket.connect", "socket.getaddrinfo", "socket.sendto"})


class FenceError(ModelError):
    """Something that is loaded tried to run code or to call the network."""


class _Depth(threading.local):
    """Of this thread: how many fences it stands behind, and whether the network was asked for."""

    fences = 0
    online = False


_depth = _Depth()


@contextmanager
def fenced(*, online: bool = False) -> Iterator[None]:
    """Inside, in this thread: no code but that of installed packages, no pickles, no standard input, and no network."""
    _watch()
    before, stdin = (_depth.fences, _depth.online), sys.stdin
    _depth.fences, _depth.online = before[0] + 1, online
    sys.stdin = io.StringIO()
    try:
        with nullcontext() if online else offline():
            yield
    except Exception as error:
        # Libraries wrap what goes wrong inside them in errors of their own.
        if (own := _behind(error)) is not None and own is not error:
            raise own from error
        raise
    finally:
        sys.stdin = stdin
        _depth.fences, _depth.online = before


@contextmanager
def loading(refusal: Callable[[str], ModelError], *, online: bool = False) -> Iterator[None]:
    """:func:`fenced`; whatever a library raises inside becomes the error that ``refusal`` makes of its reason."""
    try:
        with fenced(online=online):
            yield
    except ModelError:
        raise
    except Exception as error:  # a configuration that makes no sense raises anything
        raise refusal(reason(error)) from error


def _behind(error: BaseException | None) -> FenceError | None:
    """What the fence said, wherever it is in a chain of errors."""
    while error is not None and not isinstance(error, FenceError):
        error = error.__cause__ or error.__context__
    return error


@cache
def _watch() -> None:
    """Once a process, since such a hook cannot be taken away."""
    sys.addaudithook(_audit)


def _audit(event: str, given: tuple[Any, ...]) -> None:
    if not _depth.fences:
        return
    if event == "exec" and isinstance(given[0], CodeType):
        _check_code(given[0].co_filename)
    elif event == "pickle.find_class":
        raise FenceError(
            f"What is loaded holds {given[0]}.{given[1]} in a pickle, which could run code. Tensors alone were "
            "expected. Convert it to safetensors where you trust it."
        )
    elif event in NETWORK and not _depth.online and _goes_out(given):
        raise FenceError(
            "What is loaded asked for something on the network, and nobody named it. Everything it needs was expected "
            "in its own folder or in the cache. Bring the whole folder."
        )


def _check_code(file: str) -> None:
    if file.startswith("<") or os.path.realpath(file).startswith(_places()):
        return
    raise FenceError(
        f"What is loaded brings code of its own, {file!r}, which is never run. A model that the installed libraries "
        "know was expected. Choose another one."
    )


def _goes_out(given: tuple[Any, ...]) -> bool:
    """Whether an address is one of a network, and not a pipe of this machine's."""
    address = given[1] if len(given) == 2 else given[0]
    return not isinstance(address, str | bytes) or len(given) > 2


@cache
def _places() -> tuple[str, ...]:
    """Where installed code lies."""
    paths = sysconfig.get_paths()
    found = {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    found |= {*site.getsitepackages(), site.getusersitepackages()}
    for library in LIBRARIES:
        spec = find_spec(library)
        found |= set(spec.submodule_search_locations or ()) if spec is not None else set()
    return tuple(os.path.realpath(path) + os.sep for path in found)


def check_folder(name: str, folder: Path) -> None:
    """Refuse a model's folder in which a file would be waited on."""
    try:
        files = sorted(folder.iterdir())
    except OSError as error:
        raise WeightsError(
            f"{name!r} cannot be read: {error.strerror or error}. A folder with a model was expected. Check the path."
        ) from error
    for file in files:
        if not file.is_dir():
            check_file(name, file)


def check_file(name: str, file: Path) -> None:
    """Refuse a file of a model that would be waited on."""
    try:
        check_regular(file)
    except OSError as error:
        raise WeightsError(
            f"The file {file.name!r} of {name!r} cannot be read: {error}. The files of a model as its library writes "
            "them were expected. Copy it again."
        ) from error
