"""A training that is stopped at an odd moment keeps its steps, goes on to the same end, and says how far it is."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TypeVar

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
T = TypeVar("T")


@pytest.fixture(autouse=True)
def ctrl_c_is_heard() -> Iterator[None]:
    """A shell starts what it puts in the background with Ctrl-C ignored, and so would every test here be."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


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
    assert progress.notes == [
        f"stopped after step {at} of 24; the checkpoint {kept[0]} is at step {at}; run the same command to resume"
    ]
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


class Fails(Progress):
    """Fails before a step or after it."""

    def __init__(self, at: int, before: bool, error: BaseException) -> None:
        super().__init__()
        self.at, self.before, self.error = at, before, error

    def track(self, items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
        for i, item in enumerate(items):
            if self.before and i + 1 == self.at:
                raise self.error
            yield item

    def measured(self, step: int, terms: Mapping[str, float]) -> None:
        if not self.before and step == self.at:
            raise self.error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ZeroDivisionError(), DataError("A picture is gone.")])
@pytest.mark.parametrize(("before", "done"), [(True, 10), (False, 11)])
def test_an_error_between_two_steps_loses_none(before: bool, done: int, error: BaseException, tmp_path: Path) -> None:
    """In another thread Ctrl-C is such an error, and what hears of progress may fail in any way."""
    kept, straight, progress = (tmp_path / "c", "line"), Line(), Fails(11, before, error)
    whole = train(straight, DATA, HOW)
    with pytest.raises(type(error)) as caught:
        train(twin(straight), DATA, HOW, checkpoint=kept, progress=progress)
    assert caught.value is error
    assert progress.notes == [
        f"stopped after step {done} of 24; the checkpoint {kept[0]} is at step {done}; run the same command to resume"
    ]
    again = twin(straight)
    rest = train(again, DATA, HOW, checkpoint=kept)
    assert (rest.resumed_at, rest.history) == (done, whole.history)
    same(again, straight)


@pytest.mark.parametrize("where", ["features", "after_step"])
def test_an_error_within_a_step_leaves_the_last_checkpoint(where: str, tmp_path: Path) -> None:
    """The means of a normalisation, or the weights, are new there, and the rest is old."""
    kept, straight, broken = (tmp_path / "c", "line"), Line(), Line()
    whole, real, calls = train(straight, DATA, HOW), getattr(broken, where), [0]

    def fails(*given: object) -> object:
        calls[0] += 1
        done = real(*given)
        if calls[0] == 8:
            raise ZeroDivisionError
        return done

    object.__setattr__(broken, where, fails)
    with pytest.raises(ZeroDivisionError):
        train(broken, DATA, replace(HOW, checkpoint_every=5), checkpoint=kept)
    rest = train(twin(straight), DATA, HOW, checkpoint=kept)
    assert (rest.resumed_at, rest.history[5:]) == (5, whole.history[5:])


def test_an_error_while_the_disk_is_full_is_the_one_that_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: object) -> None:
        raise DataError("The disk is full.")

    monkeypatch.setattr(loop, "write", full)
    progress = Fails(11, False, ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        train(Line(), DATA, HOW, checkpoint=(tmp_path / "c", "line"), progress=progress)
    assert progress.notes == []


def test_a_second_ctrl_c_between_two_steps_writes_nothing(tmp_path: Path) -> None:
    class Again(Progress):
        def measured(self, step: int, terms: Mapping[str, float]) -> None:
            if step == 5:
                signal.raise_signal(signal.SIGINT)
                signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(Line(), DATA, HOW, checkpoint=(tmp_path / "c", "line"), progress=Again())
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
        f"signal.signal({int(number)}, signal.SIG_DFL)\n"  # nohup leaves it ignored, and a child inherits that
        f"train(Signalled({int(number)}, 11), DATA, HOW, checkpoint=(Path({str(tmp_path / 'c')!r}), 'line'),"
        " progress=Terminal())"
    )
    done = subprocess.run([sys.executable, "-c", code], timeout=120, capture_output=True, text=True)
    assert done.returncode == -number
    kept = tmp_path / "c"
    assert (
        done.stderr
        == f"note: stopped after step 11 of 24; the checkpoint {kept} is at step 11; run the same command to resume\n"
    )
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
    assert said.out == "", "which is for results"
    assert said.err.splitlines() == [
        "Training: 1 of 5, loss 2, about 60 seconds left",
        "Training: 3 of 5, loss 0.667, about 30 seconds left",
        "Training: finished after 75 seconds",
    ]
    for _ in heard.track(range(2), "Measuring", 2):
        now[0] += 30
    assert capsys.readouterr().err.splitlines() == [
        "Measuring: 1 of 2, about 30 seconds left",
        "Measuring: finished after 60 seconds",
    ], "the loss was another's"
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
