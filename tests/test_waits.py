"""While work lasts a line says what is done: it moves on a terminal, is rare in a log, and leaves results clean."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
import torch

import seewhy
import tiny
from seewhy import progress as waits
from seewhy.cli.session import Session
from seewhy.cli.terminal import Terminal, say
from seewhy.progress import Bars, Progress, Step, TerminalScreen

T = TypeVar("T")


class Teletype(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True

    @property
    def drawn(self) -> list[str]:
        return [line.strip() for line in self.getvalue().split("\r") if line.strip()]


def teletype(monkeypatch: pytest.MonkeyPatch) -> Teletype:
    """A terminal as standard error; not a fixture, as pytest takes the stream back after the set-up."""
    stream = Teletype()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(TerminalScreen, "was_shown", False)
    return stream


def test_the_line_moves_while_one_part_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = teletype(monkeypatch)
    with Terminal().doing("Measuring how far to trust it"):
        time.sleep(1.2)
    moved = {line for line in terminal.drawn if line.endswith("Measuring how far to trust it …")}
    assert len(moved) >= 3, "the sign before it turns"
    assert terminal.getvalue().endswith(" \r"), "and the line goes"


def test_quick_work_and_quiet_work_draw_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = teletype(monkeypatch)
    with Terminal().doing("Loading"):
        list(Terminal().track(range(3), "Looking", 3))
    with Terminal(quiet=True).doing("Loading"):
        assert list(Terminal(quiet=True).track(range(3), "Looking", 3)) == [0, 1, 2]
        time.sleep(0.6)
    assert terminal.getvalue() == ""


def test_results_stand_above_the_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    terminal = teletype(monkeypatch)
    TerminalScreen.was_shown = True
    for _ in Terminal().track(range(2), "Explaining", 2):
        waits.LINE.tick()
        say("a.jpg\tcat")
        assert terminal.getvalue().endswith(" \r"), "the line was taken away before"
    assert capsys.readouterr().out == "a.jpg\tcat\n" * 2
    assert "cat" not in terminal.getvalue()


def test_a_part_says_of_which_part_of_the_whole_it_is_one() -> None:
    whole, part = Step("Measuring claims", 9, done=2, start=0.0), Step("Looking", 40, done=10, start=0.0)
    part.counted = 5.0
    drawn = part.drawn(6.0, waits.PLAIN_SIGNS, whole)[2:]
    assert drawn == f"[3 of 9] Looking {'#' * 6}{'-' * 18} 10 of 40, about 14 seconds left"
    assert Step("Fitting", start=0.0).drawn(12.0, waits.SIGNS)[2:] == "Fitting: 12 seconds so far"


def test_a_log_gets_a_line_each_half_minute_and_one_at_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(waits, "time", SimpleNamespace(monotonic=lambda: now[0]))
    bars = Bars()
    with bars.doing("Making the model"):
        for name in ("Looking", "Measuring"):
            for _ in bars.track(range(10), name, 10):
                now[0] += 4
        waits.LINE.tick()
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "Looking: 3 of 10, about 28 seconds left",
        "Looking: finished after 40 seconds",
        "Measuring: 1 of 10, about 36 seconds left",
        "Measuring: 9 of 10, about 4 seconds left",
        "Measuring: finished after 40 seconds",
        "Making the model: finished after 80 seconds",
    ]


class Heard(Progress):
    """What is said to be done, in order, at its beginning."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[str] = []

    @contextmanager
    def doing(self, what: str) -> Iterator[None]:
        self.begun.append(what)
        yield

    def track(self, items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
        self.begun.append(what)
        yield from items


def test_a_fit_says_each_step_before_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = Heard()
    at: dict[str, str] = {}

    def spied(module: str, name: str) -> None:
        place = f"seewhy.classifiers.{module}"
        real = getattr(import_module(place), name)

        def spy(*args: Any, **keywords: Any) -> Any:
            at[name] = heard.begun[-1]
            return real(*args, **keywords)

        monkeypatch.setattr(f"{place}.{name}", spy)

    spied("encoded_set", "_grouping")
    spied("fitting", "_patches")
    spied("fitting", "common_figures")
    spied("certainty", "measure_trust")
    labels = [label for label in tiny.CLASSES[:3] for _ in range(6)]
    pictures = [tiny.picture(label, i % 6) for i, label in enumerate(labels)]
    seewhy.fit(pictures, labels, tiny.tiny_cnn(), n_crops=0, progress=heard)
    assert at == {
        "_grouping": "Grouping pictures that look alike",
        "_patches": "Measuring it on held-out pictures",
        "common_figures": "Testing whether similar parts have the same class, round 5 of 5",
        "measure_trust": "Measuring how far to trust it",
    }
    assert heard.begun[0] == "Loading the encoder"


def test_a_log_is_told_that_the_work_was_stopped_and_how_far_it_came(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each used to say "finished"."""
    now = [0.0]
    monkeypatch.setattr(waits, "time", SimpleNamespace(monotonic=lambda: now[0]))
    bars = Bars()

    def work() -> None:
        with bars.doing("Making the model"):
            for i in bars.track(range(10), "Looking", 10):
                now[0] += 20
                if i == 3:
                    raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        work()
    assert capsys.readouterr().err.splitlines() == [
        "Looking: 1 of 10, about 3 minutes left",
        "Looking: 3 of 10, about 2 minutes left",
        "Looking: 3 of 10: stopped after 80 seconds",
        "Making the model: stopped after 80 seconds",
    ]
    assert waits.LINE.reached == "Looking: 3 of 10"
    assert waits.LINE._screen is None, "although the traceback holds the loop"
    assert len(caught.traceback) > 1
    with bars.doing("Next"):
        assert waits.LINE.reached == ""


def test_a_loop_that_is_left_early_says_where_and_one_that_ends_says_finished(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(waits, "time", SimpleNamespace(monotonic=lambda: now[0]))
    for names, last in ((range(4), "Looking: 2 of 9: stopped after 60 seconds"), (range(9), "Looking: finished")):
        items = Bars().track(range(9), "Looking", 9)
        for i, _ in zip(names, items, strict=False):  # which asks for no more than it needs
            now[0] += 20
            if len(names) == 4 and i == 2:
                break
        items.close()  # type: ignore[attr-defined]
        assert capsys.readouterr().err.splitlines()[-1].startswith(last)


@pytest.mark.parametrize(
    ("error", "always"), [(KeyboardInterrupt(), True), (SystemExit(143), True), (OSError(), False)]
)
def test_what_stops_a_command_notes_how_far_it_came_and_what_is_kept(
    error: BaseException, always: bool, tmp_path: Path
) -> None:
    def note(session: Session, n: int) -> str:
        def work() -> None:
            with session.working():
                for i in session.terminal.track(range(5), "Looking", 5):
                    if i == n:
                        raise error

        error.__notes__ = []
        with pytest.raises(type(error)):
            work()
        return " ".join(error.__notes__)

    again = "Run the same command again to "
    goes_on = f"{again}continue" if always else "The next run continues"
    session = Session("fit", None)
    nothing = f"stopped (Looking: 0 of 5). {again}start over."
    assert note(session, 0) == (nothing if always else ""), "an error before the work is only an error"
    checkpoint = tmp_path / ".model.checkpoint"
    session.resumes.append(checkpoint)
    checkpoint.touch()
    assert "Kept" not in note(session, 2), "it is empty"
    for name in (".model.checkpoint", ".model.checkpoint.plain", ".model.checkpoint-folds.jsonl"):
        (tmp_path / name).write_text("x")
    assert note(session, 2).startswith("stopped (Looking: 2 of 5). Kept: ")
    assert all(str(path) in note(session, 2) for path in tmp_path.iterdir())
    store = session.__dict__["store"] = seewhy.FeatureStore(tmp_path / "f.sqlite")
    assert "the features" not in note(session, 1), "it has none of them"
    store.put([(b"key", torch.zeros(2), None)])
    assert note(session, 1).endswith(f" and the features so far, in {store.path}. {goes_on} from there.")
    quiet = Session("explain", None, quiet=True)
    assert note(quiet, 3) == (f"stopped. {again}start over." if always else "")
    quiet.ready()
    assert note(quiet, 3) == ("stopped." if always else ""), "a page is not started over"
