"""Whatever was asked for, no statement of a card contradicts another: heading, verdicts, agreement, JSON, terminal."""

from __future__ import annotations

import html
import itertools
import re
from typing import Any

import pytest

from seewhy.classifiers.base import Classifier
from seewhy.classifiers.linear.recipe import Linear
from seewhy.descriptions import Descriptions
from seewhy.explanation.base import Explanation, Where, Words
from seewhy.explanation.similar import Like
from seewhy.pictures.samples import load_samples
from seewhy.report import canvas
from seewhy.report.card import card_lines, sign_of
from tiny import class_folders, picture, tiny_cnn

CLASSES = ("moss", "rust", "sky")


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    words = Descriptions({c: (f"{c} one", f"rather {c}", "something rough") for c in CLASSES})
    samples = load_samples(class_folders(tmp_path_factory.mktemp("data"), 6))
    return Linear(n_crops=0).fit(tiny_cnn(), samples, descriptions=words)


def options() -> list[dict[str, Any]]:
    """Every class as target or none, every class as contrast or none, sentences, and maps of what speaks against."""
    found: list[dict[str, Any]] = [
        {"target": t, "contrast": c} for t, c in itertools.product((None, *CLASSES), repeat=2) if t is None or t != c
    ]
    found += [{"target_text": "something rough"}, {"target_text": "something rough", "contrast_text": "something wet"}]
    return found + [{"target": t, "settings": {"counterfactual": True}} for t in (None, *CLASSES)]


@pytest.mark.parametrize("asked", options(), ids=lambda o: " ".join(f"{k}={v}" for k, v in o.items() if v))
@pytest.mark.parametrize("measure", [False, True])
def test_no_statement_contradicts_another(
    fitted: Classifier, asked: dict[str, Any], measure: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for label in CLASSES[:2]:
        decided = fitted.predict(picture(label, 40))
        why = fitted.explain(picture(label, 40), measure=measure, **asked)
        assert why.prediction == decided  # what is asked about it does not change the decision
        check_subject(why, asked)
        check_agreement(why)
        check_words(why)
        check_forms(why, monkeypatch)


def check_subject(why: Explanation, asked: dict[str, Any]) -> None:
    about = why.subject
    assert about is not None
    assert about.decision == why.prediction.label
    assert about.label == (asked.get("target") or why.prediction.label)
    plain = about.label == about.decision and not any(v for k, v in asked.items() if k != "target")
    assert about.is_decision == plain
    assert (why.aside == "") == plain
    assert isinstance(why.where, Where)
    spoken = why.where.target if why.where.contrast is None else f"{why.where.target} rather than {why.where.contrast}"
    assert spoken == about.of_regions
    if not plain:
        assert about.decision in why.aside
        assert about.of_goal in why.aside
    if asked.get("contrast") == why.prediction.label and not asked.get("target"):
        assert why.aside.startswith(f"You asked why the decision is not {about.decision}, but it is {about.decision}.")
        assert about.contrast == why.prediction.top[1].label
    if isinstance(why.like, Like):
        assert f"of the evidence for {about.of_regions}" in why.like.verdict.figures
        assert why.like.target == about.label


def check_agreement(why: Explanation) -> None:
    about, found = why.subject, why.agreement
    assert about is not None
    assert (found.about or why.prediction.label) == (about.label if found.parts else why.prediction.label)
    expected: dict[str, float] = {}
    if isinstance(why.like, Like) and about.regions_are_of_class:
        labels = [n.label for n in why.like.neighbours]
        share = labels.count(about.label) / len(labels)
        far = why.like.of_target is not None and why.like.of_target.far
        shown = f"{share * 100:.0f} % of the most similar parts are {about.label}"
        assert shown in f"{why.like.verdict.sentence} {why.like.verdict.figures}"
        if not far:
            expected["neighbours"] = share
        assert f"{expected['neighbours'] * 100:.0f} % of the similar parts are {about.label}" in found.sentence
    else:
        assert "similar parts" not in found.sentence
        assert not isinstance(why.like, Like) or why.like.verdict.level == "not measured"
    assert isinstance(why.words, Words)
    expected["words"] = float(why.words.decision == about.label)
    assert {k: v for k, v in found.parts.items() if k != "place"} == expected
    assert ("which is not the decision" in found.sentence) == (about.label != about.decision)


def check_words(why: Explanation) -> None:
    assert isinstance(why.words, Words)
    about, words = why.subject, why.words
    assert about is not None
    said = f"{words.verdict.sentence} {words.verdict.figures}"
    also = "also " if words.decision == about.label else ""
    assert f"The descriptions alone {also}choose {words.decision}" in said
    assert (f", not {about.label}" in said) == (words.decision != about.label)
    assert words.words[0].label == about.label
    if words.decision == about.label:
        assert " fit better than " not in words.would_change
    ahead = re.match(r"The descriptions of (\w+) fit better than those of (\w+)", words.would_change)
    assert ahead is None or ahead[2] == about.label


def plain(page: str) -> str:
    """The words of a page, without its tags."""
    return html.unescape(re.sub(r"<[^>]*>", "", page)).replace("\u202f", " ")


def check_forms(why: Explanation, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the page, the still, the JSON and the terminal say is the same."""
    terminal, page, data = "\n".join(card_lines(why)), plain(why.to_html()), why.to_json()
    drawn: list[str] = []
    text = canvas.Canvas.text

    def record(self: Any, x: float, y: float, said: str, *args: Any, **more: Any) -> float:
        drawn.append(said)
        return text(self, x, y, said, *args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(canvas.Canvas, "text", record)
        why.to_png()
    still = " ".join(drawn).replace("\u202f", " ")
    assert terminal.splitlines()[0].startswith(f"{why.prediction.image}: {why.prediction.label} ")
    decision = why.prediction.decision
    assert decision is not None
    assert decision.label == why.prediction.label == data["decision"]["set"][0]
    assert f"{sign_of(decision)[1]}. {decision.sentence}" in terminal
    assert decision.sentence in page
    assert decision.sentence[:60] in still
    assert why.prediction.label in drawn[:12]  # the picture with its letters, file, sign, then the heading
    assert data["label"] == why.prediction.label
    assert data["subject"]["label"] == (
        data["where"]["target"] if data["subject"]["is_decision"] else why.subject.label
    )
    for said in filter(None, (why.aside, why.agreement.sentence)):
        assert said in terminal
        assert said in page
        short = said.partition(": ")[2] or said  # the still has the reason alone, under a heading
        assert short[1:40] in still or len(why.agreement.parts) < 2
    if why.agreement.about:
        assert f"agreement about {why.agreement.about}" in page
        assert data["agreement_about"] == why.agreement.about
