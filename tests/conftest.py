"""What every test runs under: a cache of its own, no network, shapes checked in every annotated call, JSON held to its
schema."""

from __future__ import annotations

import gc
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.main
import typer.testing
from jaxtyping import install_import_hook
from typer.testing import CliRunner

import shapes

# Tensors here are so small that waiting for a second thread costs more than it saves: a fit takes twenty times longer.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Compiled files are kept, also where the environment says otherwise: each command that a test starts would compile
# all of them again, and the checks of shapes and asserts are compiled in as well.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

install_import_hook("seewhy", "shapes.shapes_checked")
shapes.leave_out_those_without_shapes()

ROOT = Path(__file__).resolve().parents[1]

# Two million objects are made while tests are collected, and none of them is garbage: looking for some took 17 of 39 s
# there, and 1.4 s more at each later look at all of them.
gc.disable()


def pytest_collection_finish() -> None:
    """What was collected stays to the end; the tests' own garbage is looked for again."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One cache for the session, shared by its processes, so that weights are converted once."""
    shared = "PYTEST_XDIST_WORKER" in os.environ
    folder = tmp_path_factory.getbasetemp().parent / "cache" if shared else tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEEWHY_CACHE", str(folder))
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("SEEWHY_PRECISION", "f32")  # what is compared to the last digit; bfloat16 has tests of its own
        yield folder


@pytest.fixture(scope="session", autouse=True)
def outputs_as_their_schemas_say() -> Iterator[None]:
    """What ``seewhy … --json`` prints in any test is held to its schema."""
    from schemas import printed  # after the hook above

    run, invoke = subprocess.run, CliRunner.invoke

    def ran(command: Any, *arguments: Any, **how: Any) -> Any:
        done = run(command, *arguments, **how)
        if isinstance(command, list) and done.returncode in (0, 1):
            printed(command, done.stdout)
        return done

    def invoked(runner: CliRunner, app: Any, arguments: Any = None, *more: Any, **how: Any) -> Any:
        done = invoke(runner, app, arguments, *more, **how)
        if isinstance(arguments, list) and done.exit_code in (0, 1) and not done.exception:
            printed(arguments, done.stdout)
        return done

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "run", ran)
        patch.setattr(CliRunner, "invoke", invoked)
        yield


LOG = logging.getLogger("seewhy")
LEVEL, HANDLERS = LOG.level, (*LOG.handlers,)


@pytest.fixture(autouse=True)
def own_log() -> Iterator[None]:
    """A command run in the tests' own process, or by what a module's tests share, sets what is logged for itself."""
    LOG.setLevel(LEVEL)
    LOG.handlers[:] = HANDLERS
    yield
    LOG.setLevel(LEVEL)
    LOG.handlers[:] = HANDLERS


@pytest.fixture(autouse=True)
def own_threads() -> Iterator[None]:
    """A test, or a command run in the tests' own process, may set torch's threads: for itself, not for those after it.

    With several, sums are rounded in another order, and what is compared to the last digit depends on what ran before.
    An engine may also leave denormal numbers flushed to zero, and hypothesis draws such numbers.
    """
    import torch

    from seewhy import threads

    before, bound = torch.get_num_threads(), [*threads._bound]
    torch.set_flush_denormal(False)
    yield
    threads._bound[:] = bound
    torch.set_num_threads(before)


@pytest.fixture(scope="session", autouse=True)
def commands_built_once() -> Iterator[None]:
    """Typer builds all commands anew on each call of ``main``: 36 of the 41 ms in which a wrong one is refused."""
    with pytest.MonkeyPatch.context() as patch:
        built = cache(typer.main.get_command)
        patch.setattr(typer.main, "get_command", built)
        patch.setattr(typer.testing, "_get_command", built)
        yield


@pytest.fixture
def beside_the_scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts of reproductions find what they share beside them, as when they are run."""
    monkeypatch.syspath_prepend(str(ROOT / "reproductions"))


@pytest.fixture(scope="module")
def tab() -> Iterator[Any]:
    """A page of a real browser."""
    from browser import Browser

    pytest.importorskip("websocket", reason="websocket-client is not installed, so the browser cannot be spoken to")
    with Browser() as browser:
        yield browser


@pytest.fixture(scope="session")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photograph of a cat that comes with scikit-image."""
    import skimage.data
    from PIL import Image

    path = tmp_path_factory.mktemp("photo") / "chelsea.png"
    Image.fromarray(skimage.data.chelsea()).save(path)
    return path


@pytest.fixture(scope="session")
def grocery() -> Path:
    """Real photographs of groceries; the tests that need them skip where they are not."""
    folder = Path(os.environ.get("SEEWHY_TEST_DATA", ROOT.parent / "shared" / "data")) / "grocery"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there; set SEEWHY_TEST_DATA to the folder that holds 'grocery'")
    return folder


@pytest.fixture(scope="session")
def command() -> list[str]:
    """The real entry point."""
    return [sys.executable, "-m", "seewhy"]
