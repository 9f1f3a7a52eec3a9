"""The runner of all reproductions: data where it lies, nothing made twice, a killed one goes on."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "reproductions"
VERDICTS = ("shown", "not shown")
STEPS = """
import shutil, sys, time
from pathlib import Path
out = Path(sys.argv[sys.argv.index("--out") + 1])
part = out.with_suffix(".part")
done = len(part.read_text()) if part.exists() else 0
for step in range(done, 4):
    print("step", step, flush=True)
    part.open("a").write("x")
    if {slow} and step == 1 and done == 0:
        time.sleep(60)
if {fails}:
    raise SystemExit("it cannot")
shutil.copy(Path(__file__).with_suffix(".next"), out)
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    module = importlib.import_module("run")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/generate.py").write_text("")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "RESULTS", tmp_path / "reproductions/results")
    monkeypatch.setattr(module, "BUILD", tmp_path / "build/reproductions")
    monkeypatch.setattr(module, "same_code", lambda commit: commit == "today")
    monkeypatch.setattr(module.claims, "COMMIT", "today")
    return module


def add(run: ModuleType, name: str, words: str = "", *, seconds: float = 9, fails: int = 0, slow: int = 0) -> None:
    claims = run.claims
    line = f"python reproductions/{name}.py {words}".strip()
    told = (name, "X?", "A", "d", "m", line, "1 core", seconds, 0)
    last, following = (claims.Report(*told, (claims.Claim("a", "b", "c", v, 4),), commit="old") for v in VERDICTS)
    last.write(run.RESULTS / f"{name}.json")
    following.write(run.ROOT / "reproductions" / f"{name}.next")
    (run.ROOT / "reproductions" / f"{name}.py").write_text(STEPS.format(fails=fails, slow=slow))


def test_files_are_found_below_data_and_a_store_in_build(run: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "pictures/cifar").mkdir(parents=True)
    (tmp_path / "pictures/cifar/train.csv").write_text("")
    words = "--photos data/cifar --labelled c=cifar/train.csv,cifar/test.csv,kind --store some/seen.sqlite"
    words += " --encoder open_clip:B/x"
    add(run, "x", words)
    found, missing = run.Script("x", run.claims.read_report(run.RESULTS / "x.json")).words(tmp_path / "pictures")
    assert missing == ["cifar/test.csv"]
    assert found[1] == "cifar"
    assert found[3] == "c=cifar/train.csv,cifar/test.csv,kind"
    assert found[5] == str(run.BUILD / "seen.sqlite")
    assert found[7] == "open_clip:B/x"


def test_what_cannot_or_need_not_run_is_left_out_with_the_reason(run: ModuleType) -> None:
    add(run, "slower", seconds=50)
    add(run, "quicker", seconds=5)
    add(run, "far", "--pictures grocery/train")
    add(run, "made")
    report = run.claims.read_report(run.RESULTS / "made.json")
    replace(report, commit="today").write(run.RESULTS / "made.json")
    scripts, left = run.planned((), None, again=False)
    assert [s.name for s in scripts] == ["quicker", "slower"]
    assert left == {
        "far": "grocery/train not in DATA, which was not given",
        "made": "made by this code already (today)",
    }
    assert "made" in [s.name for s in run.planned((), None, again=True)[0]]
    assert [s.name for s in run.planned(["slower"], None, again=False)[0]] == ["slower"]
    with pytest.raises(SystemExit, match="new has no result"):
        run.planned(["new"], None, again=False)


def test_one_that_fails_is_told_at_the_end_and_the_rest_goes_on(
    run: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    add(run, "broken", seconds=1, fails=1)
    add(run, "whole", seconds=2)
    assert run.main([]) == 1
    said = capsys.readouterr().out
    assert "1 not shown (before: 1 shown)" in said
    assert said.strip().splitlines()[-1] == "failed: broken: it cannot (build/reproductions/broken.log)"
    assert run.claims.read_report(run.RESULTS / "broken.json").commit == "old"
    assert run.claims.read_report(run.RESULTS / "whole.json").claims[0].verdict == "not shown"


def test_a_script_of_a_killed_runner_goes_on_where_it_was(run: ModuleType) -> None:
    add(run, "x", slow=1)
    kept = run.Script("x", run.claims.read_report(run.RESULTS / "x.json"))
    folder = kept.folder
    folder.mkdir(parents=True)
    (folder / "made_by.json").write_text('{"commit": "today", "words": []}')
    line = [sys.executable, str(run.ROOT / "reproductions/x.py"), "--out", str(folder / "x.json")]
    process = subprocess.Popen(line)
    for _ in range(500):
        if (folder / "x.part").exists() and (folder / "x.part").read_text() == "xx":
            break
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert run.one(kept, None) is not None
    assert (run.BUILD / "x.log").read_text() == "step 2\nstep 3\n"


def test_parts_of_other_code_or_of_another_command_are_not_gone_on_with(run: ModuleType) -> None:
    add(run, "x")
    for commit, words in (("old", []), ("today", ["--n", "3"])):
        kept = run.Script("x", run.claims.read_report(run.RESULTS / "x.json"))
        kept.folder.mkdir(parents=True, exist_ok=True)
        (kept.folder / "x.part").write_text("xxx")
        (kept.folder / "x.json").unlink(missing_ok=True)
        (kept.folder / "made_by.json").write_text(run.json.dumps({"commit": commit, "words": words}))
        (run.BUILD / "x.log").unlink(missing_ok=True)
        assert run.one(kept, None) is not None
        assert (run.BUILD / "x.log").read_text().startswith("step 0")
