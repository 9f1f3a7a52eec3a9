"""Audits: one that passes, and one that fails for each reason, by models and pictures whose faults are planted."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from planting import CLASSES, plant, reader
from schemas import check
from seewhy.classifiers.base import Classifier
from seewhy.classifiers.linear.recipe import Linear
from seewhy.cli import app
from seewhy.descriptions import Descriptions
from seewhy.errors import DataError, InputError, SeeWhyError
from seewhy.explanation.verdict import Level, Missing, Verdict
from seewhy.heads.head import Head
from seewhy.pictures.samples import Sample, Samples, gathered, load_samples
from seewhy.studies.auditing.audit import Audit, audit
from seewhy.studies.auditing.contract import CHECKS, Contract, Figure, Limit
from seewhy.studies.auditing.figures import apart, group_rows
from seewhy.studies.bootstrap import fisher
from tiny import HUES, class_folders, colours, picture

RUNNER = CliRunner()
LABELS = ("moss", "rust", "sky")


@cache
def shown() -> Samples:
    """Pictures whose symbols' colour is their class, in two groups."""
    planted = [plant("copies", seed) for seed in range(48)]
    items = [Sample(f"p{i}", CLASSES[p.target], group="ab"[i % 2], pixels=p.pixels) for i, p in enumerate(planted)]
    return gathered(items)


def with_labels(wrong: range) -> Samples:
    """The same with the labels of some of them exchanged."""
    items = list(shown().items)
    for i in wrong:
        items[i] = replace(items[i], label=CLASSES[(CLASSES.index(items[i].label) + 1) % 3])
    return gathered(items)


def asked(name: str, **changes: Any) -> Contract:
    return Contract({name: replace(CHECKS[name].limit, **{"required": True, **changes})})


def figure(found: Audit, name: str) -> dict[str, Any]:
    return next(dict(row) for row in found.data["figures"] if row["name"] == name)


def model(words: dict[str, str] | None = None) -> Classifier:
    """A layer on mean colours, fitted on pictures that are the colour of their class."""
    items = [Sample(f"fit {c} {i}", c, pixels=picture(c, i)) for c in LABELS for i in range(12)]
    texts = Descriptions({c: (w,) for c, w in words.items()}) if words else None
    return Linear(n_crops=0).fit(colours(), gathered(items), descriptions=texts)


@cache
def described() -> Classifier:
    return model({c: f"a {HUES[c]} thing" for c in LABELS})


@cache
def coloured() -> Samples:
    return gathered([Sample(f"{c} {i}", c, pixels=picture(c, 50 + i)) for c in LABELS for i in range(8)])


def test_a_model_that_reads_the_symbols_passes_all_that_can_be_measured_of_it() -> None:
    found = audit(reader("cnn", False), shown(), n_explained=12)
    states = {row["name"]: row["state"] for row in found.data["figures"]}
    without = {
        "like_verdict",
        "words_verdict",
        "words_meaning",
        "agreement",
        "unseen_sure",
        "copies",
        "background",
        "drift_p",
        "far_pictures",
    }
    found_of_few = audit(reader("cnn", False), shown(), n_explained=6, contract=asked("one_place"))
    assert figure(found_of_few, "one_place")["state"] == "not measured"
    assert states == {name: "not measured" if name in without else "pass" for name in CHECKS}
    assert found.passed
    assert found.data["audit"] == "pass"
    assert found.sentence == (
        "Passed: 7 figures within their limits on 48 pictures. Not measured, but not required: unseen_sure, "
        "copies, like_verdict, words_verdict, words_meaning, agreement, background, drift_p, far_pictures."
    )
    check("audit", [{**found.data, "report": None}])
    page = found.to_html()
    assert "Passed: 7 figures within their limits on 48 pictures.</h1>" in page
    assert ">Not measured, but not required: unseen_sure, copies, " in page
    assert page.count("<tr>") == 2 * (1 + len(CHECKS)) + 3
    assert audit(reader("cnn", False), shown(), n_explained=12).data == found.data


@pytest.mark.parametrize("name", ["accuracy", "calibration_error", "coverage"])
def test_decisions_that_are_wrong_fail_it(name: str) -> None:
    """20 of 48 labels are exchanged: the model is sure, and wrong."""
    found = audit(reader("cnn", False), with_labels(range(20)), contract=asked(name), n_explained=0)
    row = figure(found, name)
    assert (found.passed, row["state"], row["broken"]) == (False, "fail", True)
    assert row["interval"][0] <= row["value"] <= row["interval"][1]
    assert found.sentence.startswith(f"Failed: 1 of 1 figures broke the contract on 48 pictures. {name} is ")
    if name == "accuracy":
        assert row["value"] == round(28 / 48, 4)
        assert found.sentence.endswith(
            "accuracy is 0.583 (the worse end of the interval: 0.443), and the limit is at least 0.8."
        )


def test_what_is_not_required_is_told_and_breaks_nothing() -> None:
    optional = Contract({**asked("accuracy", required=False).limits, **asked("unreadable").limits})
    found = audit(reader("cnn", False), with_labels(range(20)), contract=optional, n_explained=0)
    row = figure(found, "accuracy")
    assert (found.passed, row["state"], row["broken"]) == (True, "fail", False)
    told = "Passed: 1 figure within its limit on 48 pictures. Missed, but not required: accuracy."
    assert found.sentence == told
    page = found.to_html()
    assert "<small>(not required)</small>" in page
    assert f"<small>What to do: {CHECKS['accuracy'].cure}</small>" in page
    assert page.index("<summary>Figures</summary>") < page.index(">accuracy<") < page.index("0.443 to 0.712")
    assert 'class="fail"' not in page
    assert (
        audit(reader("cnn", False), with_labels(range(20)), contract=asked("accuracy"), n_explained=0).data["audit"]
        == "fail"
    )


def test_what_was_given_for_a_figure_makes_it_required() -> None:
    worse = gathered([replace(s, group="ab"[i % 2]) for i, s in enumerate(shown().items)])
    found = audit(reader("cnn", False), worse, n_explained=0)
    assert not any(figure(found, name)["limit"]["required"] for name in ("group_gap", "copies", "background"))
    told = audit(reader("cnn", False), worse, group="site", train=shown(), n_explained=0)
    assert [figure(told, name)["limit"]["required"] for name in ("group_gap", "copies", "background")] == [
        True,
        True,
        False,
    ]
    assert figure(told, "copies")["broken"]
    with_limit = asked("copies", required=False)
    assert audit(reader("cnn", False), worse, train=shown(), contract=with_limit, n_explained=0).passed, "as it says"


def test_what_a_figure_is_and_what_to_do_are_short_sentences() -> None:
    for one in CHECKS.values():
        for text in (one.told, one.cure):
            assert text.endswith(".")
            assert max(len(sentence.split()) for sentence in text.split(". ")) <= 20, text


@pytest.mark.parametrize("bound", ["worst", "value", "best"])
def test_the_number_that_is_judged_is_printed_by_its_name(bound: Any) -> None:
    limit = asked("accuracy", value=0.9, bound=bound)
    found = audit(reader("cnn", False), with_labels(range(2)), contract=limit, n_explained=0)
    row = figure(found, "accuracy")
    expected = {"worst": row["interval"][0], "value": row["value"], "best": row["interval"][1]}[bound]
    assert row["judged"] == pytest.approx(expected, abs=1e-4)
    name = {"worst": "the worse end of the interval", "value": "the figure", "best": "the better end of the interval"}[
        bound
    ]
    assert row["judged_by"] == f"{name}, {expected:.3f}"
    page = found.to_html()
    assert row["judged_by"] in page
    assert ">at least 0.9" in page.replace("\n", "")
    assert f"judged by {row['judged_by']}" in found.to_junit()


def test_a_number_is_never_rounded_across_its_limit() -> None:
    for value, said in ((0.89996, "0.89996"), (0.9, "0.900"), (0.9004, "0.900"), (0.8999999, "0.8999999")):
        assert Limit("at_least", 0.9).said(Figure(value)) == f"the figure, {said}"
    assert Limit("at_most", 0.1, "worst").said(Figure(0.05, (0.0, 0.10001))) == "the worse end of the interval, 0.10001"
    assert Limit("at_most", 0.0, "worst").said(Figure(0.02)) == "the figure, 0.020", "it was counted: no interval"
    assert Limit("at_most", 0.0).said(Figure(None)) == ""


def test_the_bound_decides_which_end_of_the_interval_is_held_against_the_limit() -> None:
    """46 of 48 right: 0.958, 0.860 to 0.989."""
    seen = with_labels(range(2))
    for bound, least, state in (
        ("worst", 0.85, "pass"), ("worst", 0.87, "fail"), ("value", 0.95, "pass"), ("value", 0.96, "fail"),
        ("best", 0.98, "pass"), ("best", 0.99, "fail"),
    ):  # fmt: skip
        found = audit(reader("cnn", False), seen, contract=asked("accuracy", value=least, bound=bound), n_explained=0)
        assert figure(found, "accuracy")["state"] == state, (bound, least)
    most = {bound: Limit("at_most", 0.1, bound).state(Figure(0.1, (0.05, 0.2))) for bound in ("worst", "value", "best")}  # type: ignore[arg-type]
    assert most == {"worst": "fail", "value": "pass", "best": "pass"}
    assert Limit("at_most", 0.0, "worst").state(Figure(0.0)) == "pass"


def test_what_a_calibrated_model_would_show_stands_beside_the_calibration_error() -> None:
    row = figure(audit(reader("cnn", False), with_labels(range(20)), n_explained=0), "calibration_error")
    assert row["value"] > 0.3
    usual = float(row["meaning"].rsplit(" ", 1)[1].rstrip("."))
    assert 0 <= usual < 0.1


def test_a_group_that_is_worse_off_fails_it_and_one_by_chance_does_not() -> None:
    items = list(shown().items)
    worse = [replace(s, label=CLASSES[(CLASSES.index(s.label) + 1) % 3]) if s.group == "b" and i < 30 else s
             for i, s in enumerate(items)]  # fmt: skip
    found = audit(reader("cnn", False), gathered(worse), contract=asked("group_gap"), n_explained=0)
    row = figure(found, "group_gap")
    assert (row["state"], row["value"]) == ("fail", 0.625)
    groups = {g["group"]: g for g in found.data["groups"]}
    assert (groups["b"]["accuracy"], groups["b"]["accuracy_rest"], groups["a"]["gap"]) == (0.375, 1.0, -0.625)
    assert groups["a"]["p"] == groups["b"]["p"] == pytest.approx(2 * fisher(9, 24, 24, 24))
    assert "On b (24 pictures) the accuracy is 37.5 %, on all other pictures 100.0 %" in row["meaning"]
    chance = audit(reader("cnn", False), with_labels(range(5)), contract=asked("group_gap"), n_explained=0)
    assert figure(chance, "group_gap")["value"] == pytest.approx(0.0417, abs=1e-4)
    assert chance.passed
    assert "Groups</h2>" in found.to_html()


def test_groups_that_are_too_small_are_named_and_not_judged() -> None:
    right = torch.tensor([True] * 30 + [False] * 9)
    rows = group_rows(["x"] * 15 + ["y"] * 15 + ["z"] * 9, right)
    assert [row["gap"] is None for row in rows] == [False, False, True]
    assert rows[0]["p"] <= rows[1]["p"] <= 1
    items = [replace(s, group="one") for s in shown().items]
    found = audit(reader("cnn", False), gathered(items), contract=asked("group_gap", required=True), n_explained=0)
    assert figure(found, "group_gap")["meaning"] == (
        "0 of 1 groups have 10 pictures or more. At least two such groups are needed."
    )
    assert not found.passed
    assert found.sentence.endswith("group_gap was not measured, but is required.")


def test_figures_of_groups_by_hand() -> None:
    assert fisher(3, 4, 1, 4) == pytest.approx(34 / 70)  # the lady who tastes tea
    assert fisher(0, 5, 5, 5) == pytest.approx(2 / 252)
    assert fisher(5, 5, 5, 5) == 1
    low, high = apart((5, 10, 5, 10), 0.95)
    assert low == pytest.approx(-high)
    wide = apart((5, 10, 5, 10), 0.99)
    assert wide[0] < low < 0


def test_pictures_without_a_group_are_told() -> None:
    items = [replace(s, group=None) if i < 4 else s for i, s in enumerate(shown().items)]
    with pytest.raises(DataError) as caught:
        audit(reader("cnn", False), gathered(items), contract=asked("group_gap"), n_explained=0)
    assert str(caught.value) == (
        "Every picture must have a group, and 4 of 48 have none: p0, p1, p2 and 1 more. Fill the column, or leave "
        "these pictures out."
    )


def test_labels_of_no_class_are_told() -> None:
    items = [replace(s, label="rod") if i < 2 else s for i, s in enumerate(shown().items)]
    with pytest.raises(DataError) as caught:
        audit(reader("cnn", False), gathered(items), n_explained=0)
    assert str(caught.value) == (
        "Labels must be among the 3 classes of the classifier, such as 'red', 'green', 'blue', and 2 of 48 pictures "
        "have others: 'rod'. Rename the labels, or leave these pictures out."
    )


def test_pictures_that_it_was_fitted_on_fail_it(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "photos", 2, LABELS)
    found = audit(described(), root, train=root, contract=asked("copies"), n_explained=0)
    assert figure(found, "copies")["value"] == 1.0
    assert {(c["image"], c["fitted_on"], c["same_bytes"]) for c in found.data["copies"]} == {
        (s.image, s.image, True) for s in load_samples(root).items
    }
    assert (
        "6 of 6 pictures are training pictures (same file), and 0 are near copies of training pictures."
        in found.to_html()
    )
    plain = audit(reader("cnn", False), shown(), contract=asked("copies", required=True), n_explained=0)
    assert not plain.passed
    other = gathered([Sample(f"n{i}", "red", pixels=n) for i, n in enumerate(noise())])
    told = audit(reader("cnn", False), shown(), train=other, contract=asked("copies"), n_explained=0)
    assert told.data["copies"] == [] or figure(told, "copies")["value"] < 1


def noise() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (64, 64, 3)).astype(np.uint8) for _ in range(4)]


def test_maps_that_are_not_to_be_relied_on_fail_it() -> None:
    blind = reader("cnn", False)
    head = Head(blind.head.feature, torch.zeros_like(blind.head.weight), blind.head.bias)
    found = audit(replace(blind, head=head), shown(), contract=asked("where_verdict"), n_explained=5)
    assert figure(found, "where_verdict")["value"] == 0.0
    assert not found.passed
    assert figure(found, "where_verdict")["meaning"] == "Verdicts on 5 cards: do not rely 5."
    none = audit(reader("cnn", False), shown(), contract=asked("where_verdict"), n_explained=0)
    assert figure(none, "where_verdict")["meaning"] == "No card was made. Explain at least one picture."
    assert figure(none, "where_verdict")["n"] == 0
    assert figure(none, "where_verdict")["limit"]["level"] == "partly"
    assert not none.passed


def test_verdicts_count_from_the_level_that_the_contract_names() -> None:
    levels: list[Level] = ["believable", "partly", "partly", "do not rely", "not measured"]
    cards: Any = [SimpleNamespace(where=SimpleNamespace(verdict=Verdict(level, "", ""))) for level in levels]
    cards.append(SimpleNamespace(where=Missing("It has none.", "")))
    material: Any = SimpleNamespace(explained=tuple(cards))
    values = {level: CHECKS["where_verdict"].measure(material, Limit("at_least", 0.5, level=level)).value
              for level in ("partly", "believable")}  # fmt: skip
    assert values == pytest.approx({"partly": 0.6, "believable": 0.2})


def test_words_that_mean_the_colours_pass_and_words_that_mean_nothing_fail() -> None:
    good = audit(described(), coloured(), contract=asked("words_meaning"), n_explained=0)
    row = figure(good, "words_meaning")
    assert row["state"] == "pass"
    assert row["meaning"].startswith("The descriptions alone predict 100.0 % of the pictures correctly")
    empty = model(dict(zip(LABELS, ("plain", "usual", "common"), strict=True)))
    bad = audit(empty, coloured(), contract=asked("words_meaning"), n_explained=0)
    assert figure(bad, "words_meaning")["state"] == "fail"
    same = audit(model(dict.fromkeys(LABELS, "a thing")), coloured(), contract=asked("words_meaning"), n_explained=0)
    assert not same.passed
    none = audit(model(), coloured(), contract=asked("words_meaning", required=True), n_explained=0)
    assert not none.passed
    assert (
        figure(none, "words_meaning")["meaning"]
        == "The classifier has no descriptions. Give some with --descriptions FILE."
    )


def test_words_of_other_classes_disagree_with_the_decision() -> None:
    own = audit(described(), coloured(), contract=asked("agreement"), n_explained=4)
    exchanged = model(dict(zip(LABELS, (f"a {HUES[c]} thing" for c in ("rust", "sky", "moss")), strict=True)))
    other = audit(exchanged, coloured(), contract=asked("agreement", value=0.9), n_explained=4)
    assert figure(own, "agreement")["value"] > figure(other, "agreement")["value"]
    assert not other.passed
    worse = audit(exchanged, coloured(), contract=asked("words_verdict"), n_explained=4)
    assert not worse.passed
    assert audit(described(), coloured(), contract=asked("words_verdict"), n_explained=4).passed


def test_pictures_that_cannot_be_read_fail_it(tmp_path: Path) -> None:
    items = (*shown().items, Sample(str(tmp_path / "nowhere.png"), "red"))
    found = audit(reader("cnn", False), gathered(items), contract=asked("unreadable"), n_explained=0)
    assert figure(found, "unreadable")["value"] == round(1 / 49, 4)
    assert found.data["n"] == 48
    assert not found.passed


def test_the_contract_that_is_written_is_the_one_that_is_used(tmp_path: Path) -> None:
    path = tmp_path / "audit.toml"
    path.write_text(Contract.preset().to_toml(), "utf-8")
    assert dict(Contract.load(path).limits) == dict(Contract.preset().limits)
    assert Contract.load(path).source == str(path)
    for name, kind in CHECKS.items():
        assert f"# {kind.told}\n[{name}]\n" in path.read_text("utf-8")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[acuracy]\nat_least = 0.9", "has the unknown section [acuracy]. Did you mean 'accuracy'?"),
        ("[zzz]\nat_least = 0.9", "has the unknown section [zzz]. Choose one of accuracy, calibration_error,"),
        ("accuracy = 0.9", "must have a section [accuracy] with at_least = 0.8, got accuracy = 0.9."),
        ("[accuracy]\nat_last = 0.9", "has the unknown option 'at_last' in [accuracy]. Did you mean 'at_least'"),
        ("[accuracy]\nat_most = 0.9", "must set at_least in [accuracy], such as at_least = 0.8, got at_most."),
        ("[accuracy]", "must set at_least in [accuracy], such as at_least = 0.8, got no limit."),
        ("[accuracy]\nat_least = 90", "at_least in [accuracy] must be a number from 0 to 1, got 90."),
        ("[accuracy]\nat_least = nan", "at_least in [accuracy] must be a number from 0 to 1, got nan."),
        ("[accuracy]\nat_least = true", "at_least in [accuracy] must be a number from 0 to 1, got True."),
        (
            "[accuracy]\nat_least = 0.9\nbound = 'low'",
            "bound in [accuracy] must be one of worst, value, best, got 'low'.",
        ),
        (
            "[accuracy]\nat_least = 0.9\nbound = [1]",
            "bound in [accuracy] must be one of worst, value, best, got [1].",
        ),
        ("[accuracy]\nat_least = 0.9\nrequired = 1", "required in [accuracy] must be true or false, got 1."),
        ("[accuracy]\nat_least = 0.9\nlevel = 'partly'", "has the unknown option 'level' in [accuracy]."),
        (
            "[where_verdict]\nat_least = 0.9\nlevel = 'not measured'",
            "must be one of partly, believable, got 'not measured'.",
        ),
        ("[coverage]\nat_least = 0.4", "must be a number from 0.5 to 0.99, got 0.4."),
        ("accuracy", "is not valid TOML: "),
        (f"accuracy = {'9' * 5000}", "is not valid TOML: Exceeds the limit"),
        ("a = " + "[" * 5000, "is not valid TOML: "),
        (f"accuracy = 0x{'f' * 5000}", "got accuracy = a number of thousands of digits."),
        (
            f"[accuracy]\nat_least = 0x{'f' * 5000}",
            "at_least in [accuracy] must be a number from 0 to 1, got a number of thousands of digits.",
        ),
        ("# nothing", "must have at least one section, such as [accuracy]."),
    ],
)
def test_a_contract_that_makes_no_sense_is_told_in_a_sentence(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "audit.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(DataError) as caught:
        Contract.load(path)
    assert str(caught.value).startswith(f"The contract {path} {says}") or says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_contract_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes(b"# caf\xe9")
    (tmp_path / "large.toml").write_bytes(b"#" * (2**20 + 1))
    for name, says in (
        ("nowhere.toml", "No such file or directory"), ("latin.toml", "it is not text in UTF-8"),
        ("large.toml", "it has 1,048,577 bytes, more than the limit of 1,048,576"),
        ("", "it is a folder, not a file"),
    ):  # fmt: skip
        with pytest.raises(DataError) as caught:
            Contract.load(tmp_path / name)
        assert str(caught.value) == (
            f"The contract {tmp_path / name} cannot be read: {says}. Write one with seewhy evaluate --write-contract "
            "FILE."
        )


ALLOWED = {
    "testsuites": {"name", "time", "tests", "failures", "errors"},
    "testsuite": {"name", "time", "tests", "failures", "errors", "skipped", "timestamp", "hostname", "id", "package"},
    "testcase": {"name", "classname", "time", "group"},
    "failure": {"message", "type"},
    "skipped": {"message", "type"},
    "system-out": set[str](),
}
"""What the schema of Jenkins' xUnit plugin (junit-10.xsd) lets each element have, as far as it matters here."""


def test_junit_has_a_case_for_each_figure_and_no_character_that_xml_forbids() -> None:
    found = audit(reader("cnn", False), with_labels(range(20)), n_explained=0, contract=Contract(
        {**asked("accuracy").limits, **asked("agreement", required=False).limits, **asked("words_meaning").limits,
         **asked("unreadable").limits}))  # fmt: skip
    data = {
        **found.data,
        "figures": [{**row, "meaning": row["meaning"] + "\x1b\ud800\uffff<&😀]]>"} for row in found.data["figures"]],
    }
    suites = ET.fromstring(Audit(data).to_junit())
    suite = suites[0]
    counts = {"tests": "4", "failures": "2", "errors": "0"}
    assert dict(suites.attrib) == counts
    assert dict(suite.attrib) == {"name": "seewhy audit", **counts, "skipped": "1"}
    assert all(set(part.attrib) <= ALLOWED[part.tag] for part in suites.iter())
    assert {case.get("classname") for case in suite} == {"seewhy.audit"}
    text = suite[0][0].text or ""
    assert text.endswith("\\u001b\ufffd\ufffd<&😀]]>")
    assert {case.get("name"): case[0].tag for case in suite} == {
        "accuracy": "failure", "agreement": "skipped", "words_meaning": "failure", "unreadable": "system-out",
    }  # fmt: skip
    assert [case[0].get("type") for case in suite if case[0].tag == "failure"] == ["broken", "not measured"]
    assert suite[0][0].get("message") == (
        "Accuracy: 0.5833 (0.4428 to 0.7115), judged by the worse end of the interval, 0.443; limit: at least 0.8."
    )
    optional = Contract({**asked("accuracy", required=False).limits, **asked("unreadable").limits})
    kept = audit(reader("cnn", False), with_labels(range(20)), n_explained=0, contract=optional)
    case = ET.fromstring(kept.to_junit())[0][0]
    assert (case.get("name"), case[0].tag) == ("accuracy", "skipped")
    assert (case[0].get("message") or "").startswith("Not required. Accuracy: 0.5833 (")


def test_exit_codes_and_what_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seewhy.cli.options.ClassifierChoice.opened", lambda *_: described())
    test = str(class_folders(tmp_path / "test", 4, LABELS))

    def run(*arguments: str, code: int) -> str:
        done = RUNNER.invoke(app, ["evaluate", *arguments, "--quiet"], catch_exceptions=False)
        assert done.exit_code == code, done.output
        return done.stdout

    contract = tmp_path / "audit.toml"
    assert run("--write-contract", str(contract), code=0) == f"contract: {contract}\n"
    assert run("--write-contract", str(contract), code=0)
    contract.write_text("[accuracy]\nat_least = 0.5\n", "utf-8")
    with pytest.raises(SeeWhyError, match="exists, and either SeeWhy did not write it"):
        run("--write-contract", str(contract), code=2)
    places = ["-o", str(tmp_path / "report"), "--junit", str(tmp_path / "audit.xml"), "--json"]
    data = json.loads(run("-m", "model", test, "--contract", str(contract), *places, code=0))
    check("audit", [data])
    assert (data["audit"], data["contract"]) == ("pass", str(contract))
    assert data["report"] == str(tmp_path / "report" / "audit.html")
    assert json.loads((tmp_path / "report" / "audit.json").read_text("utf-8"))["n"] == 12
    assert ET.parse(tmp_path / "audit.xml").getroot().get("failures") == "0"
    contract.write_text(
        "[agreement]\nat_least = 1.0\nbound = 'worst'\n[group_gap]\nat_most = 0.1\nrequired = false", "utf-8"
    )
    told = run("-m", "model", test, "--contract", str(contract), "--n-explained", "3", *places[:4], code=1)
    assert "Failed: 1 of 2 figures broke the contract on 12 pictures." in told
    assert "Groups treated alike" in told
    for arguments, says in (
        (
            ["-m", "model", "--contract", "default"],
            "Labelled pictures are required. Give a folder or a table.",
        ),
        (
            ["--write-contract", str(tmp_path / "c.toml"), "-m", "model"],
            "--write-contract cannot be combined with a model or pictures. Use only one of them.",
        ),
    ):
        with pytest.raises(InputError, match="^" + says):
            run(*arguments, code=2)
