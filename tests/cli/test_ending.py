"""A command that a signal ends leaves no temporary files, and its parent is told of the signal as always."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import signal, sys
from pathlib import Path
from seewhy import cli
from seewhy.storage.folders import new_folder

signal.signal({number}, signal.{how})  # nohup leaves it ignored, and a child inherits that

def work():
    with new_folder(Path("out")) as fresh:
        (fresh / "graph").write_text("half")
        print("writing", flush=True)
        sys.stdin.read()

cli.take_standard_input = lambda: None
cli._of_verb = lambda name: work
cli.main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize("number", ["SIGTERM", "SIGHUP"])
def test_a_signal_ends_the_command_and_leaves_nothing(number: str, tmp_path: Path) -> None:
    code = CODE.format(number=f"signal.{number}", how="SIG_DFL")
    command = [sys.executable, "-c", code]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=tmp_path, **pipes) as process:  # type: ignore[call-overload]
        assert process.stdout.readline() == b"writing\n"
        assert len([*tmp_path.iterdir()]) == 1
        process.send_signal(getattr(signal, number))
        _, complaints = process.communicate()
    assert (process.returncode, complaints) == (-getattr(signal, number), b"seewhy: stopped.\n")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_a_signal_that_is_ignored_stays_so(tmp_path: Path) -> None:
    code = CODE.format(number="signal.SIGHUP", how="SIG_IGN").replace("sys.stdin.read()", "signal.raise_signal(1)")
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize(
    ("shell", "code", "line"),
    [
        ("methods rise > /dev/full", 2, "seewhy: Standard output could not be written: no space left on device. "),
        ("methods rise >&-", 0, ""),
        ("methods nope 2>&-", 2, ""),
        ("methods rise <&-", 0, ""),
    ],
)
def test_streams_that_are_full_or_closed(shell: str, code: int, line: str) -> None:
    done = subprocess.run(f"{sys.executable} -m seewhy {shell}", shell=True, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith(line)
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == (line != "")
