"""Trying the oldest and the newest versions: every extra has its tests, and what did not run counts as failed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from argparse import Namespace
from pathlib import Path
from subprocess import CompletedProcess
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
OPTIONAL = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
OURS = {"all", "demo", "dev", "docs", "release"}
"""Extras that stand for others, or that work on SeeWhy itself."""


@pytest.fixture
def floors(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "release"))
    import floors

    return floors


class Commands:
    """In place of processes: what was asked, with answers by a word in it."""

    def __init__(self, **answers: CompletedProcess[str]) -> None:
        self.answers, self.asked, self.environments = answers, [], []

    def __call__(self, command: list[Any], **how: Any) -> CompletedProcess[str]:
        line = " ".join(map(str, command))
        self.asked.append(line)
        self.environments.append(how.get("env"))
        answer = next((a for word, a in self.answers.items() if re.search(rf"(?<!\S){re.escape(word)}\b", line)), None)
        answer = answer or CompletedProcess(line, 0, "", "")
        if how.get("check"):
            answer.check_returncode()
        return answer


def answer(code: int = 0, printed: str = "") -> CompletedProcess[str]:
    return CompletedProcess("", code, printed, "")


def test_every_extra_of_a_user_is_tried(floors: ModuleType) -> None:
    assert set(floors.EXTRAS) == set(OPTIONAL) - OURS


def test_what_is_tried_is_there(floors: ModuleType) -> None:
    for trial in (floors.CORE, *floors.EXTRAS.values()):
        assert trial.tests
        assert [name for name in trial.tests if not (ROOT / name).is_file()] == []


def test_tools_are_those_of_development(floors: ModuleType) -> None:
    assert set(floors.TOOLS) <= set(OPTIONAL["dev"])


def test_an_extra_that_names_others_stands_for_theirs(floors: ModuleType) -> None:
    core = {str(one) for one in floors.requirements()}
    assert {"torch>=2.6", "pillow>=10.3"} <= core
    serve = {str(one) for one in floors.requirements("serve")} - core
    assert serve == {*OPTIONAL["app"], *(line for line in OPTIONAL["serve"] if not line.startswith("seewhy"))}
    everything = floors.requirements("all")
    assert len({str(one) for one in everything}) == len(everything)
    assert not [one for one in everything if one.name == "seewhy"]


@pytest.mark.parametrize("installed", ["2.6", "2.6.0", "2.6.0+cpu"])
def test_the_floor_itself_is_told_from_later_versions(floors: ModuleType, installed: str) -> None:
    asked = [Requirement("torch>=2.6"), Requirement("ray[data]>=2.60,<4")]
    assert floors.above_floor(asked, {"torch": installed, "ray": "2.60.0"}) == []
    found = floors.above_floor(asked, {"torch": "2.6.1", "ray": "2.60"})
    assert found == ["torch>=2.6: 2.6.1 is installed"]


@pytest.mark.parametrize(("newest", "how"), [(False, "lowest-direct"), (True, "highest")])
def test_the_floors_are_named_beside_the_wheel(
    floors: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, newest: bool, how: str
) -> None:
    commands = Commands()
    monkeypatch.setattr(floors.subprocess, "run", commands)
    python = floors.installed(tmp_path, Path("s.whl"), "3.12", newest=newest, extras=["heif"], tools=["pytest>=8"])
    made, wheel, tools = commands.asked
    assert made.endswith(f"venv --quiet --python 3.12 {tmp_path / 'environment'}")
    asked = " ".join(map(str, floors.requirements("heif")))
    assert wheel.endswith(f"pip install --quiet --no-build --python {python} --resolution {how} s.whl[heif] {asked}")
    assert tools.endswith(f"pip install --quiet --no-build --python {python} pytest>=8")
    assert python.is_relative_to(tmp_path / "environment")


def test_the_core_is_the_wheel_alone(floors: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    commands = Commands()
    monkeypatch.setattr(floors.subprocess, "run", commands)
    floors.installed(tmp_path, Path("s.whl"), "3.12", newest=False, extras=[], tools=[])
    assert len(commands.asked) == 2
    assert " s.whl torch>=2.6 " in commands.asked[1]


def test_versions_are_those_of_the_environment(floors: ModuleType) -> None:
    import numpy

    assert floors.versions(Path(sys.executable), ["numpy"]) == {"numpy": numpy.__version__}


@pytest.mark.parametrize(("version", "oldest"), [("3.11", True), ("3.1", False), ("3.12", False)])
def test_the_oldest_python_is_that_of_the_project(
    floors: ModuleType, monkeypatch: pytest.MonkeyPatch, version: str, oldest: bool
) -> None:
    monkeypatch.setattr(floors.subprocess, "run", Commands(print=answer(0, f"{version}\n")))
    monkeypatch.setitem(floors.PROJECT, "requires-python", ">=3.11")
    assert floors.is_oldest(Path("python")) is oldest


@pytest.mark.parametrize(
    ("answers", "failed"),
    [
        ({}, []),
        ({"doctor": answer(1)}, ["doctor"]),
        ({"explain": answer(2)}, ["explain"]),
        ({"predict": answer(2)}, ["predict", "predict with it"]),
        ({"fit": answer(2)}, ["fit"]),
        ({"error::DeprecationWarning:seewhy": answer(0, "rust\n")}, ["load"]),
        ({"error::DeprecationWarning:seewhy": answer(1, "moss\n")}, ["load"]),
    ],
)
def test_every_step_of_a_first_use_counts(
    floors: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answers: dict[str, Any], failed: list[str]
) -> None:
    commands = Commands(**{"error::DeprecationWarning:seewhy": answer(0, "moss\n"), **answers})
    monkeypatch.setattr(floors.subprocess, "run", commands)
    assert floors.first_use(tmp_path / "bin" / "python", tmp_path) == failed
    assert len(commands.asked) == 7
    assert all(line.startswith(str(tmp_path / "bin")) for line in commands.asked)


def test_nothing_of_the_repository_is_in_reach(
    floors: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    monkeypatch.setenv("LANG", "C.UTF-8")
    found = floors.alone(tmp_path)
    assert {"PYTHONPATH", "VIRTUAL_ENV"}.isdisjoint(found)
    assert found["SEEWHY_CACHE"].startswith(str(tmp_path))
    assert (found["HF_HUB_OFFLINE"], found["LANG"]) == ("1", "C.UTF-8")


REPORT = """<testsuites><testsuite>
<testcase classname="tests.index.test_index" name="a"/>
<testcase classname="tests.index.test_index" name="b"><skipped message="no faiss"/></testcase>
<testcase classname="tests.index.test_query" name="c"><skipped message="no faiss"/></testcase>
</testsuite></testsuites>"""


def test_a_file_of_which_nothing_ran_has_failed(floors: ModuleType) -> None:
    report = ElementTree.ElementTree(ElementTree.fromstring(REPORT))
    files = ("tests/index/test_index.py", "tests/index/test_query.py", "tests/index/test_new.py")
    assert floors.unanswered(report, files) == list(files[1:])


@pytest.mark.parametrize(("slow", "code"), [(False, 0), (True, 0), (False, 1)])
def test_tests_run_beside_the_installed_package(
    floors: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, slow: bool, code: int
) -> None:
    monkeypatch.setattr(floors, "ROOT", tmp_path / "repository")
    for name in ("tests/index", "docs/methods"):
        (tmp_path / "repository" / name).mkdir(parents=True)
    (tmp_path / "repository" / "pyproject.toml").write_text("")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "report.xml").write_text(REPORT)
    commands = Commands(pytest=answer(code))
    monkeypatch.setattr(floors.subprocess, "run", commands)
    names = ("tests/index/test_index.py", "tests/index/test_query.py")
    found = floors.tests(Path("python"), folder, floors.Trial(names, slow=slow))
    assert found == (["tests"] if code else []) + ["tests/index/test_query.py: no test ran"]
    assert ("-m not slow" in commands.asked[0]) is not slow
    assert commands.asked[0].endswith(" ".join(names))
    assert (folder / "tests" / "index").is_dir()
    assert (folder / "docs" / "methods").is_dir()
    assert (folder / "pyproject.toml").is_file()


def test_later_versions_than_the_oldest_are_a_failure(
    floors: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(floors, "installed", lambda *_, **how: how)
    monkeypatch.setattr(floors, "versions", lambda python, names: dict.fromkeys(names, "9999"))
    monkeypatch.setattr(floors, "is_oldest", lambda python: True)
    monkeypatch.setattr(floors, "first_use", lambda *_: ["doctor"])
    monkeypatch.setattr(floors, "tests", lambda *_: ["tests"])
    given = Namespace(wheel=Path("s.whl"), newest=True, python="3.11", no_tests=False)
    assert floors.tried(["core"], given) == ["core: doctor", "core: tests"]
    assert floors.tried(["heif", "dicom"], given) == ["heif, dicom: tests"]
    given.no_tests = True
    assert floors.tried(["core"], given) == ["core: doctor"]
    given.newest = False
    said = ["heif, dicom: pillow-heif>=0.18: 9999 is installed", "heif, dicom: pydicom>=3: 9999 is installed"]
    assert floors.tried(["heif", "dicom"], given) == said
    assert re.search(r"^heif, dicom: FAILED: pillow-heif>=0\.18: 9999 is installed; ", capsys.readouterr().out, re.M)
    found = floors.tried(["core"], given)
    assert (len(found), found[-1]) == (len(floors.requirements()) + 1, "core: doctor")
    monkeypatch.setattr(floors, "is_oldest", lambda python: False)
    assert floors.tried(["heif"], given) == []
    assert re.search(r"^heif: ok, ", capsys.readouterr().out, re.M)


def test_an_environment_holds_what_its_tests_need(floors: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    monkeypatch.setattr(floors, "installed", lambda folder, wheel, python, **how: made.append(how) or Path("python"))
    monkeypatch.setattr(floors, "versions", lambda python, names: {})
    monkeypatch.setattr(floors, "is_oldest", lambda python: True)
    monkeypatch.setattr(floors, "tests", lambda python, folder, trial: made.append(trial) or [])
    given = Namespace(wheel=Path("s.whl"), newest=True, python="3.11", no_tests=False)
    assert floors.tried(["app", "serve"], given) == []
    trial = floors.together([floors.EXTRAS["app"], floors.EXTRAS["serve"]])
    assert made[1] == trial
    assert made[0] == {"newest": True, "extras": ["app", "serve"], "tools": [*floors.TOOLS, *trial.tools]}


def test_trials_together_are_all_of_them_once(floors: ModuleType) -> None:
    trials = [floors.Trial(("a", "b"), ("x",)), floors.Trial(("b", "c"), ("y", "x"), slow=True)]
    assert floors.together(trials) == floors.Trial(("a", "b", "c"), ("x", "y"), slow=True)
    assert floors.together(trials[:1]) == trials[0]


def test_extras_share_an_environment_where_their_tests_are_fast(floors: ModuleType) -> None:
    names = ["heif", "core", "ray", "dicom"]
    assert floors.environments(names, each=False) == [["core"], ["heif", "dicom"], ["ray"]]
    assert floors.environments(names, each=True) == [["core"], ["heif"], ["ray"], ["dicom"]]
    assert floors.environments(["ray"], each=False) == [["ray"]]


def test_what_failed_is_named_and_decides_the_exit_code(
    floors: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[list[str]] = []

    def tried(names: list[str], given: Namespace) -> list[str]:
        asked.append(names)
        return ["ray: tests"] if "ray" in names else []

    monkeypatch.setattr(floors, "tried", tried)
    for arguments, code, expected in (
        ([], 1, floors.environments(["core", *floors.EXTRAS], each=False)),
        (["--each"], 1, [["core"], *([name] for name in floors.EXTRAS)]),
        (["--no-tests"], 0, [["core"]]),
        (["--only", "dicom,core"], 0, [["core"], ["dicom"]]),
    ):
        asked.clear()
        monkeypatch.setattr(sys, "argv", ["floors.py", "s.whl", *arguments])
        assert floors.main() == code
        assert asked == expected
        assert capsys.readouterr().out == ("failed:\nray: tests\n" if code else "all well\n")
    monkeypatch.setattr(sys, "argv", ["floors.py", "s.whl", "--only", "heic"])
    with pytest.raises(SystemExit):
        floors.main()
    assert "no such extra: heic; there are core, openvino," in capsys.readouterr().err


def test_the_workflow_runs_both_ends_on_the_oldest_python(floors: ModuleType) -> None:
    job = yaml.safe_load((ROOT / ".github" / "workflows" / "floors.yml").read_text("utf-8"))["jobs"]["floors"]
    matrix = job["strategy"]["matrix"]
    assert matrix["versions"] == ["oldest", "newest"]
    assert floors.PROJECT["requires-python"] == f">={matrix['python'][0]}"
    assert "make floors" in job["steps"][-1]["run"]
    assert "--newest" in job["steps"][-1]["run"]


def test_what_could_not_be_fetched_is_not_called_a_failure(
    floors: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unreachable(command: list[str], **_: Any) -> None:
        raise subprocess.CalledProcessError(2, command)

    monkeypatch.setattr(floors.subprocess, "run", unreachable)
    monkeypatch.setattr(sys, "argv", ["floors.py", "s.whl", "--no-tests"])
    assert floors.main() == 75
    assert capsys.readouterr().err.startswith("core: NOT TRIED, for it could not be installed: Command ")
    monkeypatch.setattr(floors, "installed", lambda *_, **__: Path("python"))
    with pytest.raises(subprocess.CalledProcessError):  # what is installed and does not work is a failure
        floors.main()


@pytest.mark.parametrize(
    ("code", "fails", "ends"),
    [(0, "nothing", 0), (75, "nothing", 0), (1, "nothing", 1), (2, "nothing", 1)]
    + [(0, name, 3) for name in ("test", "check", "docs", "wheel")],
)
def test_ci_goes_on_where_nothing_could_be_fetched_and_ends_where_a_part_failed(
    tmp_path: Path, code: int, fails: str, ends: int
) -> None:
    text = (ROOT / ".ci" / "run").read_text("utf-8")
    python, make = tmp_path / ".venv" / "bin" / "python", tmp_path / "make"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\necho floors $4 >> tried\nexit {code}\n")
    make.write_text(f"#!/bin/sh\necho $1 >> tried\n[ $1 != {fails} ] || exit 3\n")
    for file in (python, make):
        file.chmod(0o755)
    (tmp_path / "build").mkdir()
    command = ["bash", "-euc", text[text.index("first_use()") :]]
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=tmp_path, env=env, check=False)
    assert done.returncode == ends
    tried = (tmp_path / "tried").read_text().split("\n")
    assert "test" in tried
    if ends == 0:
        assert sorted(tried) == ["", "check", "docs", "floors", "floors --newest", "test", "wheel"]
