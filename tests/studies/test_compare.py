"""Methods compared on the same held-out pictures: what is recommended, what is kept, and what time does."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from schemas import check
from seewhy.classifiers import classifiers
from seewhy.classifiers.fitting import PictureRecipe
from seewhy.cli import app
from seewhy.cli.session import Session
from seewhy.descriptions.base import Descriptions
from seewhy.errors import DataError, InputError
from seewhy.pictures.samples import Sample, Samples, gathered
from seewhy.progress import Progress
from seewhy.report.blocks import Table
from seewhy.studies import compare
from seewhy.studies.compare import (
    Candidate,
    CompareStudy,
    Deadline,
    Held,
    OutOfTimeError,
    cheapest_of_the_best,
    read_on_the_other_half,
    sentence,
)
from seewhy.studies.study import Findings, bits
from tiny import class_folders, colours, picture, tiny_cnn

STUDY = CompareStudy(only=("linear", "neighbours", "coop"), n_explained=3, held_out=0.3)


def drawn(n: int = 10) -> Samples:
    labels = ("moss", "rust", "sky")
    return gathered([Sample(f"{k} {i}", k, pixels=picture(k, i, 16)) for k in labels for i in range(n)])


def costs(*milliseconds: float, seconds: float = 1.0) -> list[dict[str, Any]]:
    return [{"values": {"milliseconds": m, "seconds": seconds, "accuracy": 0}} for m in milliseconds]


def columns(*right: list[int]) -> torch.Tensor:
    return torch.tensor(right, dtype=torch.double).T


@pytest.fixture(scope="module")
def found() -> Findings:
    return STUDY.run({"colours": colours()}, drawn())


def test_the_findings_are_as_their_schema_says_and_draw_themselves(found: Findings) -> None:
    check("study-compare", [{**found.data, "report": None}])
    assert {row["method"] for row in found.data["rows"]} == {"linear", "neighbours"}
    assert found.data["n_test"] + found.data["n_learn"] == 30
    html = found.to_html()
    assert "Methods compared" in html
    assert "What accuracy costs" in html


def test_a_method_that_cannot_learn_from_these_is_named_with_the_reason(found: Findings) -> None:
    (left,) = found.data["skipped"]
    assert left["method"] == "coop"
    assert "does not accept learnt prompts" in left["skipped"]
    assert left["skipped"] in found.to_html().replace("&#39;", "'")


def test_colours_are_recognised_and_the_evidence_of_each_is_judged(found: Findings) -> None:
    for row in found.data["rows"]:
        assert row["accuracy"] == 1.0
        assert row["low"] > 0.6
        assert row["milliseconds"] > 0
        assert 0 <= row["believable_where"] <= 1
    assert found.sentence.startswith(f"Use {found.data['recommended']}: it predicts 100.0 % of 9 held-out pictures")


def test_a_stopped_study_fits_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = STUDY.run({"colours": colours()}, drawn(), tmp_path)
    monkeypatch.setattr(PictureRecipe, "fit", lambda *_, **__: pytest.fail("it was fitted again"))
    again = CompareStudy(only=("linear", "neighbours"), n_explained=3, held_out=0.3)
    second = again.run({"colours": colours()}, drawn(), tmp_path)
    assert second.data["rows"] == first.data["rows"]


TAMPERED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a score of another type": lambda row: row["values"].update(accuracy="high"),
    "a score that is no number": lambda row: row["values"].update(accuracy=float("nan")),
    "a score is gone": lambda row: row["values"].pop("accuracy"),
    "no scores": lambda row: row.update(values=[]),
    "too few answers": lambda row: row.update(right=row["right"][:1]),
    "answers of another form": lambda row: row.update(right=7),
    "another key": lambda row: row.update(key=[1]),
    "deep": lambda row: row.update(values=[[[[]]]]),
    "another sum": lambda row: row.update(crc="x"),
}


@pytest.mark.parametrize("way", TAMPERED)
def test_changed_records_are_measured_again(way: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    study = CompareStudy(only=("neighbours",), n_explained=0)
    first = study.run({"colours": colours()}, drawn(), tmp_path).data
    journal = tmp_path / "progress.jsonl"
    rows = [json.loads(line) for line in journal.read_text().splitlines()]
    TAMPERED[way](next(row for row in rows if "values" in row))
    journal.write_text("".join(json.dumps(row) + "\n" for row in rows))
    again = study.run({"colours": colours()}, drawn(), tmp_path).data
    assert again["rows"][0]["accuracy"] == first["rows"][0]["accuracy"]
    assert caplog.messages == [f"{journal}: 1 of {len(rows)} records were changed and are measured again."]


def test_other_pictures_are_not_taken_for_the_same(tmp_path: Path) -> None:
    one = CompareStudy(only=("neighbours",), n_explained=0)
    one.run({"colours": colours()}, drawn(), tmp_path)
    other = one.run({"colours": colours()}, drawn(12), tmp_path)
    assert other.data["n"] == 36
    assert (tmp_path / "progress.jsonl").read_text().count('"values"') == 2
    assert other.data["n_runs"] == 1, "runs on other pictures are not counted"


def test_when_time_is_up_no_method_is_begun_and_what_is_there_is_told(tmp_path: Path) -> None:
    CompareStudy(only=("neighbours",), n_explained=0).run({"colours": colours()}, drawn(), tmp_path)
    late = CompareStudy(only=("linear", "neighbours"), minutes=1e-9, n_explained=0)
    data = late.run({"colours": colours()}, drawn(), tmp_path).data
    assert [row["method"] for row in data["rows"]] == ["neighbours"]
    assert [(row["method"], row["skipped"]) for row in data["skipped"]] == [
        ("linear", "Stopped after 1e-09 minutes. Run again to continue.")
    ]


def test_no_time_at_all_is_an_error_with_the_cure() -> None:
    with pytest.raises(InputError, match="Raise --minutes"):
        CompareStudy(only=("neighbours",), minutes=1e-9).run({"colours": colours()}, drawn())


def test_a_deadline_stops_in_the_middle_and_hands_on_what_is_done() -> None:
    passed, late = [], Deadline(Progress(), end=0.0)
    with pytest.raises(OutOfTimeError):
        passed.extend(late.track([1, 2, 3], "Working"))
    assert list(Deadline(Progress(), end=float("inf")).track([1, 2, 3], "Working")) == [1, 2, 3]
    assert passed == [1]


def test_a_slow_method_leaves_time_for_the_others_and_gets_a_second_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    fast, begun = Candidate.measure, []

    def measure(one: Candidate, folder: Path, progress: Progress) -> dict[str, Any]:
        begun.append(one.name)
        if begun == ["linear"]:
            raise OutOfTimeError
        return fast(one, folder, progress)

    monkeypatch.setattr(Candidate, "measure", measure)
    data = CompareStudy(only=("linear", "neighbours"), n_explained=0).run({"colours": colours()}, drawn()).data
    assert begun == ["linear", "neighbours", "linear"]
    assert [row["method"] for row in data["rows"]] == ["linear", "neighbours"]


def test_a_continued_method_counts_all_its_seconds_and_keeps_its_own_checkpoint(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    linear, asked = classifiers["linear"](), []

    def fit(_: object, encoder: Any, samples: Samples, checkpoint: Path, **__: object) -> Any:
        asked.append(checkpoint)
        checkpoint.write_text("so far")
        time.sleep(0.2)
        if len(asked) <= 2:
            raise OutOfTimeError
        return linear.fit(encoder, samples)

    monkeypatch.setattr(classifiers["prompt_cam"], "fit", fit)
    encoders = {"a": colours(), "b": tiny_cnn()}
    data = CompareStudy(only=("prompt_cam",), n_explained=0).run(encoders, drawn(), tmp_path).data
    assert len(asked) == 4
    assert len(set(asked)) == 2, "one checkpoint for each encoder"
    assert all(row["seconds"] >= 0.4 for row in data["rows"])


class Clock:
    """A clock that moves when it is told; the processor works half of the time."""

    now = 0.0

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        parts = {"monotonic": lambda: self.now, "process_time": lambda: self.now / 2, "time_ns": time.time_ns}
        monkeypatch.setattr(compare, "time", SimpleNamespace(**parts))
        monkeypatch.setattr(Candidate, "_milliseconds", lambda *_: 1.0)
        self._patch = monkeypatch

    def fits(self, seconds: float, stops: list[type[BaseException] | None], kept: bool = True) -> None:
        """Each fit of a method that trains a network takes so long, leaves a checkpoint, and ends as the list says."""
        linear = classifiers["linear"]()

        def fit(_: object, encoder: Any, samples: Samples, checkpoint: Path, **__: object) -> Any:
            self.now += seconds
            if kept:
                checkpoint.write_text("so far")
            if stop := stops.pop(0):
                raise stop
            return linear.fit(encoder, samples)

        self._patch.setattr(classifiers["prompt_cam"], "fit", fit)


@pytest.mark.parametrize("stop", [OutOfTimeError, KeyboardInterrupt])
def test_seconds_of_a_resumed_study_are_the_sum_of_its_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stop: type[BaseException]
) -> None:
    clock, encoders = Clock(monkeypatch), {"a": colours()}
    study = CompareStudy(only=("neighbours", "prompt_cam"), n_explained=0, minutes=1)
    clock.fits(100, [stop, stop])
    for _ in range(2):
        with contextlib.suppress(KeyboardInterrupt):
            study.run(encoders, drawn(), tmp_path)
    first = CompareStudy(only=("neighbours",), n_explained=0).run(encoders, drawn(), tmp_path).data
    assert (first["seconds"], first["n_runs"]) == (200, 3)
    clock.fits(7, [None])
    last = study.run(encoders, drawn(), tmp_path)
    rows = {row["method"]: row for row in last.data["rows"]}
    assert rows["prompt_cam"]["seconds"] == 207, "the runs that were stopped count"
    assert rows["prompt_cam"]["processor_seconds"] == 103.5
    assert rows["neighbours"]["seconds"] == 0, "the run that fitted it"
    assert (last.data["seconds"], last.data["n_runs"]) == (207, 4)
    assert "took 3 minutes, the sum of its 4 runs" in last.to_html()
    again = study.run(encoders, drawn(), tmp_path).data
    assert again["rows"] == last.data["rows"], "nothing was fitted"
    assert (again["seconds"], again["n_runs"]) == (207, 5)


def test_a_fit_that_begins_again_costs_what_its_last_run_cost(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clock, study = Clock(monkeypatch), CompareStudy(only=("prompt_cam",), n_explained=0)
    clock.fits(100, [KeyboardInterrupt, None], kept=False)
    with pytest.raises(KeyboardInterrupt):
        study.run({"a": colours()}, drawn(), tmp_path)
    data = study.run({"a": colours()}, drawn(), tmp_path).data
    assert data["rows"][0]["seconds"] == 100, "no checkpoint was left to continue from"
    assert data["seconds"] == 200


def test_a_method_that_trains_no_network_takes_as_long_as_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, float] = {}

    def measure(one: Candidate, _: Path, progress: Deadline) -> dict[str, Any]:
        given[one.name] = progress.end - time.monotonic()
        raise InputError("It cannot learn from these.")

    monkeypatch.setattr(Candidate, "measure", measure)
    with pytest.raises(InputError, match="No method could be fitted"):
        CompareStudy(only=("coop", "linear", "neighbours", "protopnet"), minutes=10).run({"c": colours()}, drawn())
    assert {name: round(left / 60) for name, left in given.items()} == {
        "linear": 10, "neighbours": 10, "coop": 5 if list(given)[2] == "coop" else 10,
        "protopnet": 5 if list(given)[2] == "protopnet" else 10,
    }  # fmt: skip


def test_all_encoders_get_the_fast_methods_before_any_gets_a_slow_one(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[tuple[str, str]] = []

    def measure(one: Candidate, *_: object) -> None:
        begun.append((one.name, one.label))
        raise InputError("It cannot learn from these.")

    monkeypatch.setattr(Candidate, "measure", measure)
    study = CompareStudy(only=("prompt_cam", "linear"), n_explained=0)
    with pytest.raises(InputError, match="No method could be fitted"):
        study.run({"a": colours(), "b": colours()}, drawn())
    assert begun == [("linear", "a"), ("linear", "b"), ("prompt_cam", "a"), ("prompt_cam", "b")]


def test_the_cheapest_within_one_standard_error_is_chosen() -> None:
    best, near, far = [1] * 90 + [0] * 10, [1] * 89 + [0] * 11, [1] * 60 + [0] * 40
    right = columns(best, near[::-1], far)
    each = torch.arange(100)
    assert cheapest_of_the_best(right, costs(50, 5, 1), each) == 1
    assert cheapest_of_the_best(right, costs(5.5, 5, 1), each) == 0, (
        "as cheap within the clock's error: the more accurate one"
    )
    assert cheapest_of_the_best(columns(best, far), costs(50, 1), each) == 0
    assert cheapest_of_the_best(columns(best, best), costs(50, 1), each) == 1, "equal, so with an error of 0"
    rows = [*costs(5, seconds=9), *costs(5, seconds=1)]
    assert cheapest_of_the_best(columns(best, best), rows, each) == 1, "equal in all, so the one that is fitted faster"


@pytest.mark.parametrize(("wins", "losses", "chosen"), [(6, 3, 0), (7, 4, 1)])
def test_the_standard_error_is_that_of_the_formula(wins: int, losses: int, chosen: int) -> None:
    """Of n pictures, the difference g / n of D discordant ones has the variance (D − g² / n) / n²; so it is within one
    standard error if g² (1 + 1 / n) ≤ D.
    """
    same = [1] * (100 - wins - losses)
    right = columns([1] * wins + [0] * losses + same, [0] * wins + [1] * losses + same)
    assert (wins + losses >= 9 * 1.01) == (chosen == 1)
    assert cheapest_of_the_best(right, costs(50, 1), torch.arange(100)) == chosen


def test_a_method_is_beaten_by_one_that_is_better_in_something_and_worse_in_nothing() -> None:
    def row(accuracy: float, milliseconds: float) -> dict[str, Any]:
        return {"values": {"accuracy": accuracy, "milliseconds": milliseconds}}

    one, *others = row(0.8, 10), row(0.8, 10), row(0.9, 10), row(0.8, 9), row(0.9, 11), row(0.7, 9)
    assert [compare._beats(other, one) for other in others] == [False, True, True, False, False]


def test_evidence_that_was_not_measured_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    class Card:
        def __init__(self, **levels: str) -> None:
            self.answers = [SimpleNamespace(key=key, level=level) for key, level in levels.items()]

    monkeypatch.setattr(compare, "Explanation", Card)
    cards = [
        Card(where="believable", like="not shown"), Card(where="not measured", like="not shown"),
        Card(where="not shown"), "failed",
    ]  # fmt: skip
    held = Held(drawn(1), drawn(2), torch.arange(6), "x")
    candidate = Candidate("linear", "c", colours(), held, None, None, CompareStudy(n_explained=4))
    classifier: Any = SimpleNamespace(explain_all=lambda *_, **__: iter(cards))
    assert candidate._believable(classifier, Progress()) == {"believable_where": 0.5, "believable_like": 0.0}


def test_pictures_that_look_alike_count_as_one_for_the_standard_error_and_the_interval(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    best, worse = [1] * 25 + [0] * 5 + [1] * 70, [0] * 25 + [1] * 75
    right = columns(best, worse)
    assert cheapest_of_the_best(right, costs(50, 1), torch.arange(100)) == 0
    assert cheapest_of_the_best(right, costs(50, 1), torch.arange(100) // 25) == 1, "one group of four is no gap"

    def measure(one: Candidate, *_: object) -> dict[str, Any]:
        own = [1] * 9 if one.name == "linear" else [1] * 6 + [0] * 3
        values = dict.fromkeys(("seconds", "milliseconds", "calibration_error", "low", "high"), 1.0)
        return {"right": bits(own), "values": {**values, "accuracy": sum(own) / 9}}

    monkeypatch.setattr(Candidate, "measure", measure)
    monkeypatch.setattr(Held, "of", lambda _: Held(drawn(7), drawn(3), torch.arange(9) // 3, "x"))
    data = CompareStudy(only=("linear", "neighbours"), n_explained=0).run({"c": colours()}, drawn()).data
    (other,) = [row["against"] for row in data["rows"] if row["against"]]
    assert other["difference"] == -0.3333, "of the other method from the recommended one"
    assert other["interval"] == [-1.0, 0.0], "resampled by three groups, all or none of them may be the wrong one"


def test_what_is_reported_of_a_choice_was_not_chosen() -> None:
    draws = torch.Generator().manual_seed(0)
    luck = (torch.rand(40, 30, generator=draws) < 0.5).double()  # thirty methods that guess
    groups = torch.arange(40)
    chosen_on_all = float(luck[:, cheapest_of_the_best(luck, costs(*[1.0] * 30), groups)].mean())
    read = [read_on_the_other_half(luck, costs(*[1.0] * 30), groups, seed) for seed in range(20)]
    assert chosen_on_all > 0.6
    assert abs(sum(read) / 20 - 0.5) < 0.06


def test_halves_keep_pictures_of_one_group_together() -> None:
    right = columns([1] * 10 + [0] * 10, [0] * 10 + [1] * 10)
    assert read_on_the_other_half(right, costs(1, 1), torch.arange(20) // 10, 0) == 0.0


def test_nothing_to_test_on_is_an_error_with_the_cure() -> None:
    with pytest.raises(DataError, match=r"No picture can be held out.*or give test pictures"):
        CompareStudy(only=("neighbours",)).run({"colours": colours()}, drawn(1))


def test_a_single_method_has_a_headline_with_one_full_stop() -> None:
    document = CompareStudy(only=("neighbours",), n_explained=0).run({"c. d": colours()}, drawn()).document()
    assert document.headline.endswith("%).")
    assert document.below == ()


def test_the_page_has_each_gap_with_its_interval_and_says_which_times_are_equal(found: Findings) -> None:
    row = found.data["rows"][0]
    gaps = [(-0.1, [-0.2, -0.05], True), (0.1, [0.05, 0.2], True), (0.0139, [-0.0845, 0.1127], False)]
    against = [None, *(dict(zip(("difference", "interval", "real"), gap, strict=True)) for gap in gaps)]
    rows = [{**row, "accuracy": 0.9 - 0.1 * i, "against": gap} for i, gap in enumerate(against)]
    document = compare.page({**found.data, "rows": rows})
    methods: Any = document.blocks[0]
    (table,) = (block for block in methods.blocks if isinstance(block, Table))
    best, *others = (line[table.columns.index("against linear")] for line in table.rows)
    assert best == "recommended"
    assert [(cell.text, *cell.small, cell.colour) for cell in others] == [
        ("−10.0", "−20.0 to −5.0", "bad"), ("+10.0", "+5.0 to +20.0", "good"), ("+1.4", "−8.5 to +11.3", ""),
    ]  # fmt: skip
    assert "Times that differ by at most 25\u202f% count as equal" in methods.blocks[0].text
    data = {**found.data, "rows": rows}
    faster = {**rows[0], "milliseconds": 10.0}, {**rows[2], "milliseconds": 25.0}
    assert sentence({**data, "rows": faster}).endswith(" linear is more accurate (70.0 %) and takes 2.5 times as long.")
    assert sentence({**data, "rows": [rows[0], rows[3]]}).endswith(" No other method is shown to be more accurate.")


def test_another_seed_or_other_descriptions_are_fitted_again(tmp_path: Path) -> None:
    test = gathered([Sample(f"{k} {i}", k, pixels=picture(k, i, 16)) for k in ("moss", "sky") for i in (50, 51)])
    fitted: list[int] = []
    for seed, texts in ((0, None), (1, None), (1, "green"), (1, "soft"), (1, "soft")):
        study = CompareStudy(only=("neighbours",), n_explained=0, seed=seed)
        words = texts and Descriptions.of({k: [f"{texts} {k}"] for k in ("moss", "rust", "sky")})
        study.run({"c": colours()}, drawn(), tmp_path, test=test, descriptions=words or None)
        fitted.append((tmp_path / "progress.jsonl").read_text().count('"right"'))
    assert fitted == [1, 2, 3, 4, 4]


def test_an_unknown_method_is_refused_with_those_there_are() -> None:
    with pytest.raises(InputError, match=r"'liner' is not a method that learns from pictures\. Choose .*linear"):
        CompareStudy(only=("liner",))


def test_the_command_writes_a_page_and_one_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Session, "encoders", lambda _self: {"colours": colours()})
    folders, out = class_folders(tmp_path / "photos", n=6), tmp_path / "out"
    words = ["study", "compare", str(folders), "--method", "neighbours,prompt_cam", "--set", "n_explained=0"]
    Clock(monkeypatch).fits(50, [OutOfTimeError, None])
    found = []
    for minutes in ("0.1", "30"):
        done = CliRunner().invoke(app, [*words, "-o", str(out), "--minutes", minutes, "--json", "--quiet"])
        assert done.exit_code == 0, done.output
        found.append(json.loads(done.stdout))
        check("study-compare", [found[-1]])
    assert found[1]["report"] == str(out / "compare.html")
    assert [[row["method"] for row in data["rows"]] for data in found] == [["neighbours"], ["neighbours", "prompt_cam"]]
    assert [(data["seconds"], data["n_runs"]) for data in found] == [(50, 1), (100, 2)]
    assert found[1]["rows"][1]["seconds"] == 100
