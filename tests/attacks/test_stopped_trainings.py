"""A training that is stopped at an odd moment keeps its steps, goes on to the same end, and says how far it is."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from seewhy import progress as telling
from seewhy.cli.terminal import Terminal
from seewhy.errors import DataError
from seewhy.progress import Bars, Progress
from seewhy.storage.reading import read_tensors
from seewhy.training import loop
from seewhy.training.loop import Training, train
from seewhy.training.task import Task
from training.test_loop import DATA, Line

HOW = Training(24, 8, lr=0.05)


class Signalled(Line):
    """Sends a signal to its own process within a step."""

    def __init__(self, number: int, at: int) -> None:
        super().__init__(stop_at=at)
        self.number = number

    def stop(self) -> None:
        os.kill(os.getpid(), self.number)
        for _ in range(1000):  # Python hears it between two of its instructions
            pass


def clock(now: list[float]) -> SimpleNamespace:
    """In place of the module, as the clock of threads must go on."""
    return SimpleNamespace(monotonic=lambda: now[0], perf_counter=lambda: now[0])


def same(one: Task, other: Task) -> None:
    torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=0, atol=0)


def twin(task: Task) -> Line:
    again = Line()
    again.frozen.load_state_dict(task.frozen.state_dict())
    return again


@pytest.mark.parametrize("at", [1, 11, 24])
def test_ctrl_c_ends_the_step_and_keeps_it(at: int, tmp_path: Path) -> None:
    """Of 24 steps none was kept: a checkpoint was written every 50."""
    kept, straight, progress = (tmp_path / "c", "line"), Line(), Progress()
    whole = train(straight, DATA, HOW)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(Signalled(signal.SIGINT, at), DATA, HOW, checkpoint=kept, progress=progress)
    assert signal.getsignal(signal.SIGINT) is before
    assert progress.notes == [f"stopped after step {at} of 24; {kept[0]} holds step {at}; run it again to go on"]
    again = twin(straight)
    rest = train(again, DATA, HOW, checkpoint=kept)
    assert (rest.resumed_at, rest.history) == (at, whole.history)
    same(again, straight)


def test_a_second_ctrl_c_acts_at_once(tmp_path: Path) -> None:
    class Twice(Signalled):
        def stop(self) -> None:
            super().stop()
            super().stop()

    with pytest.raises(KeyboardInterrupt):
        train(Twice(signal.SIGINT, 5), DATA, HOW, checkpoint=(tmp_path / "c", "line"))
    assert not (tmp_path / "c").exists()


def test_a_signal_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        progress = Progress()
        done = train(Signalled(signal.SIGHUP, 5), DATA, HOW, checkpoint=(tmp_path / "c", "line"), progress=progress)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
    assert (len(done.history), progress.notes) == (24, [])


def test_a_training_in_another_thread_hears_no_signals(tmp_path: Path) -> None:
    done: list[int] = []
    run = lambda: done.append(len(train(Line(), DATA, HOW, checkpoint=(tmp_path / "c", "line")).history))  # noqa: E731
    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)
    assert done == [24]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_scheduler_s_signal_keeps_the_step_and_ends_as_it_always_does(number: int, tmp_path: Path) -> None:
    code = (
        f"import sys\nsys.path[:0] = {[str(Path(__file__).parents[1]), str(Path(__file__).parent)]!r}\n"
        "from test_stopped_trainings import *\n"
        f"train(Signalled({int(number)}, 11), DATA, HOW, checkpoint=(Path({str(tmp_path / 'c')!r}), 'line'),"
        " progress=Terminal())"
    )
    done = subprocess.run([sys.executable, "-c", code], timeout=120, capture_output=True, text=True)
    assert done.returncode == -number
    kept = tmp_path / "c"
    assert done.stderr == f"note: stopped after step 11 of 24; {kept} holds step 11; run it again to go on\n"
    straight = Line()
    train(straight, DATA, HOW)
    again = twin(straight)
    assert train(again, DATA, HOW, checkpoint=(kept, "line")).resumed_at == 11
    same(again, straight)


def test_checkpoints_are_written_by_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step takes 11 s on this clock; writing one takes 5, so that the next is due 50 s later and not 30."""
    now, kept, at = [0.0], tmp_path / "c", []

    class Slow(Line):
        def after_step(self) -> None:
            super().after_step()
            now[0] += 11

    def write(path: Path, data: bytes, mark: object) -> None:
        now[0] += 5
        at.append(now[0])

    monkeypatch.setattr(loop, "time", clock(now))
    monkeypatch.setattr(loop, "write", write)
    train(Slow(), DATA, replace(HOW, n_steps=12), checkpoint=(kept, "line"))
    # due at 30: after step 3 at 33, written by 38; due at 88: after step 8; the last step's is always written
    assert at == [38.0, 98.0, 147.0]


def test_how_often_a_checkpoint_is_written_is_not_what_is_trained(tmp_path: Path) -> None:
    kept = (tmp_path / "c", "line")
    with pytest.raises(KeyboardInterrupt):
        train(Signalled(signal.SIGINT, 9), DATA, replace(HOW, checkpoint_every=2), checkpoint=kept)
    assert train(Line(), DATA, HOW, checkpoint=kept).resumed_at == 9


def test_a_finished_training_is_not_trained_again(tmp_path: Path) -> None:
    """What follows a training, such as measuring it, may be stopped too."""
    kept, straight, again = (tmp_path / "c", "line"), Line(), Line()
    train(straight, DATA, replace(HOW, ema=0.9), checkpoint=kept)
    again.frozen.load_state_dict(straight.frozen.state_dict())
    assert train(again, DATA, replace(HOW, ema=0.9), checkpoint=kept).resumed_at == 24
    same(again, straight)
    assert "history" in read_tensors(kept[0])[0]


def test_a_full_disk_is_a_sentence_and_keeps_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, real, n = tmp_path / "c", os.fsync, [0]

    def full(number: int) -> None:
        n[0] += 1
        if n[0] > 1:
            raise OSError(28, "No space left on device")
        real(number)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError) as caught:
        train(Line(), DATA, replace(HOW, checkpoint_every=5), checkpoint=(kept, "line"))
    assert str(kept) in str(caught.value)
    monkeypatch.setattr(os, "fsync", real)
    assert train(Line(), DATA, HOW, checkpoint=(kept, "line")).resumed_at == 5
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


@pytest.mark.parametrize("progress", [Terminal, Bars])
def test_a_log_is_told_how_long_it_will_take(
    progress: type[Progress], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing was written for 26 minutes where there was no terminal."""
    now, heard = [0.0], progress()
    monkeypatch.setattr(telling, "time", clock(now))
    for step in heard.track(range(5), "Training", 5):
        now[0] += 15
        heard.measured(step + 1, {"loss": 2.0 / (step + 1)})
    said = capsys.readouterr()
    lines = (said.err if progress is Terminal else said.out).splitlines()
    assert lines == [
        "Training: 2 of 5, loss 1, about 45 seconds left",
        "Training: 4 of 5, loss 0.5, about 15 seconds left",
    ]
    for _ in heard.track(range(2), "Measuring", 2):
        now[0] += 30
    after = capsys.readouterr()
    assert (after.err + after.out) == "Measuring: 1 of 2, about 30 seconds left\n", "the loss was another's"
    for _ in Terminal(quiet=True).track(range(5), "Training", 5):
        now[0] += 15
    assert capsys.readouterr() == ("", "")


def test_a_log_that_nobody_reads_any_more_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    now = [0.0]
    monkeypatch.setattr(telling, "time", clock(now))
    monkeypatch.setattr(sys, "stderr", Gone())
    for _ in Terminal().track(range(5), "Training", 5):
        now[0] += 30
