"""What a person sees of a card before the first click: few words, plain ones, all of it on one screen."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch

import seewhy
from browser import NEEDS_BROWSER, Browser
from reading import grade
from seewhy.classifiers.network import Perception
from seewhy.dense.part_evidence import UNJUDGED
from seewhy.dense.part_evidence import _judge as judge_part
from seewhy.evidence.explain import _judge_perceived as judge_perceived
from seewhy.explanation.base import TOO_LITTLE, Agreement, Explanation, Subject, Where
from seewhy.explanation.kinds import MadePicture, Memorised, Perceived, Typical
from seewhy.explanation.part import Outside, Part
from seewhy.explanation.prediction import Decision, Prediction, Ranked
from seewhy.explanation.similar import Like, PatchDeletion
from seewhy.explanation.verdict import Missing, Verdict
from seewhy.generation.typical import believed
from seewhy.learning.self_explaining.protopnet.network import ProtoPNetPrototypes
from seewhy.prototypes.base import Group, Match
from seewhy.prototypes.measure import LikenessMeasure, Showing
from seewhy.report import render_html
from seewhy.report.card import card_lines, card_of, sign_of

CURE = "Neither? Add pictures of it and fit again: seewhy fit PHOTOS -o MODEL"
MOST_WORDS, MOST_GRADE = 150, 9.0
LONG = "a class with a rather long and unwieldy name, number {} of three hundred of them"
PATH = "/".join(["a_folder_with_quite_a_long_name"] * 12) + "/" + "a_file_name_that_goes_on_" * 4 + ".jpg"


class Open(HTMLParser):
    """The words of a card that stand there before anything is clicked."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.hidden, self.tags, self.said = 0, [], []
        self.feed(page[page.index("<body") :])

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag in ("meta", "link", "img", "input", "br", "path", "circle"):
            return
        given = dict(attrs)
        shut = tag in ("script", "style") or given.get("class") == "unseen" or "hidden" in given
        self.tags.append((tag, shut, tag == "details" and "open" not in given))

    def handle_endtag(self, tag: str) -> None:
        while self.tags and self.tags.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        if any(shut for _, shut, _ in self.tags):
            return
        folded = [i for i, (_, _, fold) in enumerate(self.tags) if fold]
        if folded and not (len(folded) == 1 and "summary" in (tag for tag, _, _ in self.tags[folded[0] :])):
            return
        self.said.append(data)

    @property
    def words(self) -> list[str]:
        return re.findall(r"[\w’'–-]*\w[\w’'–-]*", " ".join(self.said))


@pytest.fixture(scope="module")
def coffee() -> Explanation:
    return seewhy.pretrained().explain(skimage.data.coffee())


def decided(full: Explanation, **given: Any) -> Explanation:
    made = {"classes": ("tabby cat", "red fox"), "probability": 0.84, "interval": (0.7, 0.9), "fit": 0.4, "n": 200}
    said = "In 90 % of cases like this, the true class is tabby cat or red fox."
    decision = Decision("not sure", said, level=0.9, cure=CURE, **{**made, **given})
    assert isinstance(full.like, Like)
    near = tuple(one if i % 6 == 3 else replace(one, label="tabby cat") for i, one in enumerate(full.like.neighbours))
    prediction = replace(full.prediction, decision=decision)
    return replace(full, prediction=prediction, like=replace(full.like, neighbours=near))


@pytest.fixture(scope="module")
def ordinary(full: Explanation, coffee: Explanation) -> dict[str, Explanation]:
    words = Missing("No descriptions of your classes were given.", "Write some.")
    return {"imagenet": coffee, "fitted": replace(decided(full), words=words, agreement=Agreement(0.8, {"a": 0.8}, ""))}


def test_few_words_stand_before_the_first_click(ordinary: dict[str, Explanation], full: Explanation) -> None:
    for name, why in {"every kind": decided(full), **ordinary}.items():
        assert len(Open(render_html(why)).words) <= MOST_WORDS, name
    for name, why in ordinary.items():
        for agrees in (True, False):
            assert len(Open(render_html(replace(why, typical=typical(agrees)))).words) <= MOST_WORDS, (name, agrees)
    for agrees in (True, False):
        all_at_once = replace(decided(full), typical=typical(agrees), agreement=Agreement(0.1, {"a": 0.1}, ""))
        assert len(Open(render_html(all_at_once)).words) <= MOST_WORDS, agrees


def test_a_card_says_how_little_of_a_wide_picture_the_network_looks_at(full: Explanation, coffee: Explanation) -> None:
    """A weld of 12,000 × 300 pixels had cards as any other: 2 % of it had been looked at, and nothing said so."""
    assert coffee.in_view == pytest.approx(0.875**2 * 2 / 3, abs=0.002)
    assert coffee.to_json()["in_view"] == round(coffee.in_view, 4)
    for share, said in ((0.02, "centre only, 2 % of this picture."), (0.57, ""), (1.0, "")):
        why = replace(full, in_view=share)
        words, lines = Open(render_html(why)).said, "\n".join(card_lines(why))
        for text in (" ".join(words), lines):
            assert ("The network looks at the" in text) == bool(said), share
            assert said in text
        assert ("The network looks at the centre only" in render_html(why)) == (share < 1)  # if not open, in Details


def test_the_open_sentences_are_read_at_once(ordinary: dict[str, Explanation]) -> None:
    said = []
    for why in ordinary.values():
        card = card_of(why)
        assert card.sign is not None
        said += [str(card.sign.sentence), *(str(one.verdict.sentence) for one in card.evidence)]
    assert grade(said) <= MOST_GRADE, grade(said)
    assert max(len(one.split()) for one in said) <= 24


def test_every_term_of_an_open_sentence_has_a_definition(ordinary: dict[str, Explanation]) -> None:
    page = render_html(ordinary["fitted"])
    for phrase in ("cases like this", "most similar parts", "Hiding parts"):
        assert re.search(rf'class="def" href="#def-[\w-]+">{phrase}</a>', page), phrase


def outside(share: float, fall: float, still: bool = False) -> Outside:
    found = Outside(0.8, 0.3, 0.7, fall, 0.2, (0.1, 0.4, 0.2, 0.3), share, UNJUDGED)
    return replace(found, verdict=judge_part(found, "segment", still))


def typical(agrees: bool | None, judge: str | None = "zoo", poor: bool = False) -> Typical:
    grey, seen = np.full((96, 96, 3), 99, np.uint8), None if judge is None else "red fox"
    made = tuple(MadePicture(grey, 0.93, seen, agrees) for _ in range(3))
    return Typical("tabby cat", "lite0", made, judge, "trained", believed("tabby cat", "lite0", judge, made, poor))


def prototypes_of(full: Explanation, precision: float | None, matters: bool = True) -> Like:
    measure = None if precision is None else LikenessMeasure(precision, 0.1, 40)
    hidden = PatchDeletion(9.0, 4.0 if matters else 0.1, (0.5, 1.0), 0.1)
    groups = [Group((0, i), 0.2, (Match(i, 0.9),), channel=i, contribution=2.0) for i in range(3)]
    assert isinstance(full.like, Like)
    model: Any = SimpleNamespace(likeness=measure)
    nothing: Any = None
    subject = Subject("tabby cat", "tabby cat")
    showing = Showing(model, nothing, nothing, 0, subject, groups, full.like.neighbours, hidden)
    return ProtoPNetPrototypes().judge(showing)


def perceived(moved: float, spread: float, distance: float, label: str = "tabby cat") -> Perceived:
    small = np.full((28, 28), 128, np.uint8)
    grey = torch.zeros(28, 28)
    found = Perception(torch.zeros(3, 28, 28), (moved, moved), spread, 5, grey, "a.jpg", 0, distance)
    near = Memorised("a.jpg", label, distance, small)
    verdict = judge_perceived(found, label, "tabby cat")
    return Perceived((small, small), (0, 12), moved, spread, 5, near, verdict)


@pytest.fixture(scope="module")
def kinds(full: Explanation) -> dict[str, Explanation]:
    """A card of every further kind of evidence, with whatever stands beside it."""
    words = Missing("No descriptions of your classes were given.", "Write some.")
    card = replace(decided(full), words=words, agreement=Agreement(0.8, {"a": 0.8}, ""))
    assert isinstance(card.where, Where)
    part = Part(
        "segment",
        1,
        2,
        "tabby cat",
        0.8,
        (20, 20, 180, 180),
        (224, 224),
        full.view,
        (0, 0, 224, 224),
        outside=outside(0.9, 2.0),
    )
    score = replace(card.prediction, decision=None)  # a part has no decision, only a score
    missing = Missing("There are no pictures of yours to compare with.", "Give some with --known.")
    return {
        "segment": replace(card, prediction=score, part=part, like=missing, agreement=Agreement(None, {}, TOO_LITTLE)),
        "ProtoPNet": replace(card, like=prototypes_of(full, 0.8)),
        "COMET": replace(card, where=replace(card.where, method="comet")),
        "PromptCAM": replace(card, where=replace(card.where, method="prompt_cam")),
        "perceptual": replace(card, like=missing, seen=perceived(0.0, 0.0, 0.0)),
        "made": replace(card, typical=typical(True)),
    }


def every_verdict(full: Explanation) -> list[Verdict]:
    """Whatever a box or segment, a prototype, a redrawn or a made picture can be told."""
    found = [one.verdict for one in (outside(0.9, 2.0), outside(0.9, 0.1), outside(0.6, 2.0), outside(0.2, 2.0))]
    found.append(outside(0.9, 2.0, still=True).verdict)
    found += [prototypes_of(full, p).verdict for p in (None, 0.1, 0.4, 0.8)]
    found.append(prototypes_of(full, 0.8, matters=False).verdict)
    found += [typical(agrees).verdict for agrees in (True, False, None)]
    found += [typical(None, None).verdict, typical(True, poor=True).verdict]
    for moved, spread in ((0.0, 0.0), (0.0, 0.5), (0.5, 0.0)):
        found += [perceived(moved, spread, *near).verdict for near in ((0.0,), (0.4,), (0.4, "red fox"))]
    return found


def test_few_words_stand_open_beside_every_kind_of_evidence(kinds: dict[str, Explanation]) -> None:
    words = {name: len(Open(render_html(why)).words) for name, why in kinds.items()}
    assert max(words.values()) <= MOST_WORDS, words


def test_every_verdict_is_one_short_sentence_and_its_figures_are_another_text(full: Explanation) -> None:
    for verdict in every_verdict(full):
        assert len(verdict.sentence.split()) <= 20, verdict.sentence
        assert re.search(r"[.;:!?] ", verdict.sentence) is None, verdict.sentence
        assert grade([verdict.sentence]) <= 12, verdict.sentence
        assert len(re.findall(r"\d+(?:\.\d+)?", verdict.sentence)) <= 2, verdict.sentence
    assert grade([one.sentence for one in every_verdict(full)]) <= MOST_GRADE


def test_figures_of_a_verdict_stand_behind_the_click(kinds: dict[str, Explanation]) -> None:
    for name, key in (("segment", "part"), ("ProtoPNet", "like"), ("perceptual", "seen"), ("made", "typical")):
        why = kinds[name]
        judged = (why.part.outside if key == "part" else getattr(why, key)).verdict  # type: ignore[union-attr]
        open_words = " ".join(Open(render_html(why)).said)
        assert judged.figures, name
        assert judged.figures[:40] not in open_words, name
        assert judged.figures[:40].split("“")[0] in " ".join(re.sub(r"<[^>]*>", "", render_html(why)).split()), name


def test_the_file_has_its_name_and_the_path_stands_in_the_title(full: Explanation) -> None:
    page = render_html(replace(full, prediction=replace(full.prediction, image=PATH)))
    assert f'<p class="file" title="{PATH}">{PATH.rpartition("/")[2]}</p>' in page


def test_what_to_do_next_follows_the_decision(full: Explanation, cards: dict[str, Explanation]) -> None:
    assert card_of(full).href == "#like"
    assert str(card_of(decided(full)).next).startswith("Is it red fox? Compare: seewhy … ")
    assert str(card_of(decided(full, classes=("tabby cat",), probability=0.95)).next) == CURE
    assert str(card_of(cards["bare"]).next) == ""


def test_names_that_do_not_fit_are_said_not_to_first() -> None:
    photo = skimage.data.coffee()
    wrong = seewhy.zero_shot(["red fox", "oak tree", "violin", "glacier", "locomotive", "beaver"]).explain(photo)
    right = seewhy.zero_shot(["red fox", "a cup of coffee", "violin"]).explain(photo)
    assert wrong.prediction.score < 0.5 < right.prediction.score
    decision = wrong.prediction.decision
    assert decision is not None
    assert sign_of(decision) == ("do not rely", "None of these names fits well")
    assert decision.sentence.startswith(f"Best guess: {wrong.prediction.label}, with a score of only ")
    page = render_html(wrong)
    assert page.index("None of these names fits well") < page.index("<h1")
    assert next(iter(card_lines(wrong))).startswith(f"picture 1: {wrong.prediction.label} or ")
    assert next(iter(card_lines(wrong))).endswith("? None of these names fits well")
    assert "None of these names" not in render_html(right)
    assert "fits_poorly" not in wrong.to_json()["decision"]


@pytest.mark.parametrize("where", [None, "occlusion", "eigen_cam"])
def test_letters_lie_on_the_hottest_places_of_the_map_shown(where: str | None) -> None:
    why = seewhy.pretrained().explain(skimage.data.chelsea(), where=where, measure=False)
    assert isinstance(why.where, Where)
    heat = why.where.heat
    rows, columns = heat.shape
    at = []
    for region in why.where.regions:
        left, top, right, bottom = region.box
        cut = heat[int(top * rows) : round(bottom * rows), int(left * columns) : round(right * columns)]
        at.append(float(cut.max()))
    assert at, "a letter"
    assert at[0] >= 0.9 * heat.max()
    assert min(at) >= 0.4 * heat.max()
    assert min(at) >= np.quantile(heat, 0.7)


def hard(cards: dict[str, Explanation]) -> dict[str, Explanation]:
    """Long names, two and 300 classes, a long path."""
    full = cards["full"]
    many = tuple(Ranked(LONG.format(i), 0.3 - i / 50) for i in range(5))
    return {
        **cards,
        "many": replace(full, prediction=Prediction(PATH, many, 300)),
        "two": replace(full, prediction=Prediction("a.jpg", full.prediction.top[:2])),
        "decided": decided(full),
    }


@pytest.fixture(scope="module")
def tab() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


@NEEDS_BROWSER
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_runs_out_of_the_page(tab: Browser, cards: dict[str, Explanation], tmp_path: Path, width: int) -> None:
    for name, why in hard(cards).items():
        why.save(tmp_path / f"{name}.html")
        tab.open(tmp_path / f"{name}.html", width)
        for opened in (False, True):
            tab.run(f"document.querySelectorAll('details').forEach((node) => {{ node.open = {str(opened).lower()}; }})")
            assert tab.run("document.documentElement.scrollWidth") <= width, (name, opened)
        assert tab.complaints == []


@NEEDS_BROWSER
@pytest.mark.parametrize("width", [1280, 390])
def test_picture_decision_trust_and_next_step_are_on_the_first_screen(
    tab: Browser, full: Explanation, tmp_path: Path, width: int
) -> None:
    decided(full).save(tmp_path / "card.html")
    tab.open(tmp_path / "card.html", width)
    tab.call("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 500)
    for part in (".photo", "h1", ".trust", ".next"):
        box = tab.run(f"(({{top, bottom}}) => [top, bottom])(document.querySelector({part!r}).getBoundingClientRect())")
        assert 0 <= box[0] < box[1] <= 800, (part, box)


@NEEDS_BROWSER
def test_a_term_opens_its_definition_where_it_stands(tab: Browser, full: Explanation, tmp_path: Path) -> None:
    full.save(tmp_path / "card.html")
    tab.open(tmp_path / "card.html", 1280)
    term = "document.querySelector('#where .verdict a.def')"
    tab.run(f"{term}.click()")
    assert tab.run(f"{term}.nextElementSibling.className") == "meaning"
    assert tab.run(f"{term}.nextElementSibling.textContent").startswith("SeeWhy hides half of the picture")
    assert tab.run("document.querySelector('.glossary').open") is False
    tab.run(f"{term}.click()")
    assert tab.run("document.querySelector('.meaning')") is None
