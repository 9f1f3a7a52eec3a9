"""Code in the current folder: a data set may hold ``multiprocessing.py``, and no process that SeeWhy starts runs it."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from pathlib import Path

import pytest

import seewhy
from seewhy.processes import start_python
from seewhy.scale.inputs import find_input
from seewhy.scale.on_ray import _job_config
from seewhy.scale.run import run
from seewhy.service.app.worker import Decoder
from simulated_work import Simulated, make_pictures
from tiny import TRANSFORM

SOURCE = Path(seewhy.__file__).parent
SHOW = "import json, os, sys; print(json.dumps([sys.path, os.environ['PYTHONPATH'].split(os.pathsep)]))"


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures beside a module for each name that any process could import; each of them leaves a file."""
    folder = tmp_path_factory.mktemp("planted") / "data"
    make_pictures(folder / "pics", 4)
    names = {*sys.stdlib_module_names, *packages_distributions(), "sitecustomize", "usercustomize"}
    for name in names - {"encodings", "codecs", "io", "abc", "site", "os"}:
        (folder / f"{name}.py").write_text(f"open({str(folder.parent / 'ran')!r}, 'a').write({name!r})")
    return folder


@pytest.fixture
def data(planted: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (planted.parent / "ran").unlink(missing_ok=True)
    monkeypatch.chdir(planted)
    yield planted
    assert not (planted.parent / "ran").exists(), (planted.parent / "ran").read_text()


def path_of_child() -> list[str]:
    """The path for modules in a process that SeeWhy starts."""
    with start_python(["-c", SHOW], stdout=subprocess.PIPE) as process:
        return json.loads(process.communicate()[0])[0]


@pytest.mark.parametrize("entry", ["", ".", "./", "HERE", "../data"])
def test_the_current_folder_is_left_out_however_it_is_named(
    data: Path, entry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setattr(sys, "path", [entry.replace("HERE", str(data)), *sys.path])
    path = path_of_child()
    assert {os.path.realpath(entry) for entry in path}.isdisjoint({str(data), os.path.realpath(data)})
    assert str(SOURCE.parent) in path


def test_what_the_user_names_in_full_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "own"
    data.mkdir()
    monkeypatch.chdir(data)
    named = [str(tmp_path / "plugins"), str(data)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(named))
    monkeypatch.setattr(sys, "path", [*named, "more", *sys.path])
    assert path_of_child()[:3] == [*named, str(data / "more")]
    monkeypatch.delenv("PYTHONPATH")
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(data / "script.py"), raising=False)
    assert str(data) in path_of_child(), "the folder of the user's script, where its modules are"


@pytest.mark.parametrize("how", ["link", "deleted"])
def test_a_current_folder_by_another_name_or_gone(
    data: Path, tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    link = tmp_path / "link"
    link.symlink_to(data)
    monkeypatch.setattr(sys, "path", [str(link), *sys.path])
    if how == "deleted":
        (tmp_path / "gone").mkdir()
        monkeypatch.chdir(tmp_path / "gone")
        (tmp_path / "gone").rmdir()
        monkeypatch.setattr(sys, "path", sys.path[1:])
        with start_python(["-c", "print(1)"], stdout=subprocess.PIPE, cwd="/") as process:
            assert process.communicate()[0] == b"1\n"
    else:
        assert str(link) not in path_of_child()


@pytest.mark.parametrize(
    ("given", "expected"),
    [("", [""]), (":X", ["X"]), ("X:.", ["X"]), ("./:X:", ["X"]), ("HERE:X:", ["HERE", "X"]), ("more:", ["HERE/more"])],
)
def test_the_command_line_hands_on_no_entry_for_the_current_folder(
    tmp_path: Path, given: str, expected: list[str]
) -> None:
    """Python itself reads an empty entry as the current folder: before SeeWhy runs, nobody can help."""

    def full(text: str) -> str:
        return text.replace("HERE", str(tmp_path)).replace("X", str(SOURCE.parent))

    (tmp_path / "show.py").write_text(
        f"from seewhy.processes import leave_current_folder\nleave_current_folder()\n{SHOW}"
    )
    done = subprocess.run(
        [sys.executable, "-m", "show"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": full(given) if given else ""}, capture_output=True, check=True,
    )  # fmt: skip
    path, handed_on = json.loads(done.stdout)
    assert handed_on == [full(entry) for entry in expected]
    assert (str(tmp_path) in path) == ("HERE:" in given)


@pytest.mark.parametrize("path", [None, ":", "."])
def test_the_command_itself_loads_nothing_from_the_current_folder(tmp_path: Path, path: str | None) -> None:
    """Python loads a few modules itself before SeeWhy begins: of ``python -m seewhy``, those of runpy."""
    for name in ("json", "numpy", "typer", "multiprocessing", "gc", "PIL"):
        (tmp_path / f"{name}.py").write_text("open('ran', 'a').write(__name__)\n")
    more = {} if path is None else {"PYTHONPATH": path}
    whole = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    arguments = ["-m", "seewhy"] if path is None else [shutil.which("seewhy", path=Path(sys.executable).parent)]
    if arguments[0] is None:
        pytest.skip("The command seewhy is not installed beside this Python")
    done = subprocess.run(
        [sys.executable, *arguments, "--version"],
        cwd=tmp_path,
        env=whole | more,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, (tmp_path / "ran").exists()) == (0, False), done.stderr


def test_processes_that_share_a_run(data: Path, tmp_path: Path) -> None:
    report = run(Simulated(), find_input(data / "pics", per_shard=2), tmp_path / "out", workers=2, threads=2)
    assert (report.done, report.rows) == (2, 4)


def test_a_process_that_decodes(data: Path) -> None:
    decoder = Decoder(20, 4)
    try:
        picture = decoder.read(str(next(data.glob("pics/**/*.png"))), "x", TRANSFORM).result(120)
    finally:
        decoder.stop()
    assert picture.pixels.shape == (32, 32, 3)


RUN = "from seewhy.__main__ import run\nif __name__ == '__main__':\n    run()\n"


@pytest.mark.slow
@pytest.mark.parametrize("cluster", [(), ("--cluster", "local")])
@pytest.mark.parametrize("verb", ["predict", "explain", "index"])
def test_verbs_that_start_processes(data: Path, tmp_path: Path, verb: str, cluster: tuple[str, ...]) -> None:
    """As the installed command does: its script lies in another folder."""
    if cluster and (verb != "predict" or find_spec("ray") is None):
        pytest.skip("Ray's processes are the same for all verbs" if verb != "predict" else "Ray is not installed")
    script = tmp_path / "bin" / "command.py"
    script.parent.mkdir()
    script.write_text(RUN)
    labels = ("--labels", "stripes,dots") if verb != "index" else ()
    arguments = [verb, "pics", *labels, "--parquet", "--set", "per_shard=2", "--workers", "2", *cluster]
    done = subprocess.run(
        [sys.executable, script, *arguments, "-o", tmp_path / "out"], capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "_SUCCESS").exists()


def test_rays_workers_get_no_path_of_the_driver() -> None:
    """Ray's driver adds the current folder and its script's to the path of its workers, in front of all."""
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'seewhy[ray]'")
    config = _job_config(ray)
    config._py_driver_sys_path.extend([os.getcwd()])
    assert list(config._get_proto_job_config().py_driver_sys_path) == []


STARTS = re.compile(
    r"subprocess|multiprocessing(?!\.connection$)|_posixsubprocess|pty$|joblib|loky|ray\b|concurrent\.futures\.process|"
    r"torch\.multiprocessing|torch\.utils\.data\.DataLoader"
)
CALLS = re.compile(
    r"os\.(fork\w*|spawn\w+|exec\w+|posix_spawn\w*|system|popen|startfile)|.*\bcreate_subprocess_\w+|"
    r"(.*\.)?(Popen|ProcessPoolExecutor|DataLoader|start_processes|mp\.spawn)|pty\.\w+|sys\.executable"
)
NUMBERS = ("n_jobs", "num_workers", "n_workers", "num_proc", "nprocs")
PIPES = {"service/app/worker.py": {"DEVNULL", "PIPE", "Popen"}}
"""Names of ``subprocess`` that start nothing: the type is for annotations."""
THREADS = {("service/app/map.py", "n_jobs"): "openTSNE computes with threads"}


def starts(tree: ast.Module, file: str) -> list[str]:
    """The places that start a process, or have a library start some."""
    places = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            places += [name.name for name in node.names if STARTS.match(name.name)]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = {name.name for name in node.names}
            module = node.module or ""
            whole = [module, *(f"{module}.{name}" for name in names)]
            if any(map(STARTS.match, whole)) and module != "multiprocessing.connection":
                places += [] if names <= PIPES.get(file, set()) else whole[:1]
            places += sorted(names & {"ProcessPoolExecutor"})
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            places += [name] if CALLS.fullmatch(name) else []
            for keyword in node.keywords:
                one = isinstance(keyword.value, ast.Constant) and keyword.value.value in (0, 1, None)
                counts = keyword.arg in NUMBERS or (keyword.arg == "workers" and "uvicorn" in name)
                if counts and not one and (file, keyword.arg) not in THREADS:
                    places.append(f"{name}({keyword.arg}=…)")
        elif isinstance(node, ast.Attribute) and ast.unparse(node) == "sys.executable":
            places.append("sys.executable")
    return places


def test_processes_start_at_one_place() -> None:
    places = {
        file.relative_to(SOURCE).as_posix(): starts(ast.parse(file.read_text("utf-8")), str(file.relative_to(SOURCE)))
        for file in SOURCE.rglob("*.py")
    }
    assert {file for file, found in places.items() if found} == {
        "processes.py",
        "scale/on_ray.py",
        "storage/database.py",
    }, places


@pytest.mark.parametrize(
    "code",
    [
        "import multiprocessing", "from multiprocessing import get_context", "from subprocess import run",
        "import os\nos.fork()", "os.execv('x', [])", "from concurrent.futures import ProcessPoolExecutor",
        "from concurrent import futures\nfutures.ProcessPoolExecutor()", "DataLoader(x, num_workers=2)",
        "asyncio.create_subprocess_exec('x')", "LogisticRegression(n_jobs=-1)", "uvicorn.run(app, workers=2)",
        "from joblib import Parallel", "import torch.multiprocessing as mp", "import ray", "[sys.executable]",
    ],
)  # fmt: skip
def test_each_way_to_start_a_process_is_seen(code: str) -> None:
    assert starts(ast.parse(code), "x.py")
