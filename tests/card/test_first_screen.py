"""What a person sees of a card before the first click: few words, plain ones, all of it on one screen."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data

import seewhy
from browser import NEEDS_BROWSER, Browser
from seewhy.explanation.base import Agreement, Explanation, Where
from seewhy.explanation.prediction import Decision, Prediction, Ranked
from seewhy.explanation.similar import Like
from seewhy.explanation.verdict import Missing
from seewhy.report import render_html
from seewhy.report.card import card_lines, card_of, sign_of

CURE = "Is it neither? Add pictures of what it is, and fit again: seewhy fit PHOTOS -o MODEL"
MOST_WORDS, MOST_OF_ALL, MOST_GRADE = 150, 180, 9.0
"""Of an ordinary card, and of one that has every kind of evidence."""
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


def syllables(word: str) -> int:
    """An estimate: groups of vowels, less a silent e."""
    word = word.lower()
    found = len(re.findall(r"[aeiouy]+", word))
    return max(1, found - (word.endswith("e") and not word.endswith(("le", "ee")) and found > 1))


def grade(sentences: list[str]) -> float:
    """Flesch and Kincaid's, by estimated syllables; numbers and names count as any word."""
    words = [word for sentence in sentences for word in re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", sentence)]
    return 0.39 * len(words) / len(sentences) + 11.8 * sum(map(syllables, words)) / len(words) - 15.59


@pytest.fixture(scope="module")
def coffee() -> Explanation:
    return seewhy.pretrained().explain(skimage.data.coffee())


def decided(full: Explanation, **given: Any) -> Explanation:
    made = {"classes": ("tabby cat", "red fox"), "probability": 0.84, "interval": (0.7, 0.9), "fit": 0.4, "n": 200}
    said = "In 90 % of cases like this, one of these two is right: tabby cat or red fox."
    decision = Decision("one of few", said, level=0.9, cure=CURE, **{**made, **given})
    assert isinstance(full.like, Like)
    near = tuple(one if i % 6 == 3 else replace(one, label="tabby cat") for i, one in enumerate(full.like.neighbours))
    prediction = replace(full.prediction, decision=decision)
    return replace(full, prediction=prediction, like=replace(full.like, neighbours=near))


@pytest.fixture(scope="module")
def ordinary(full: Explanation, coffee: Explanation) -> dict[str, Explanation]:
    words = Missing("No descriptions of your classes were given.", "Write some.")
    return {"imagenet": coffee, "fitted": replace(decided(full), words=words, agreement=Agreement(0.8, {"a": 0.8}, ""))}


def test_few_words_stand_before_the_first_click(ordinary: dict[str, Explanation], full: Explanation) -> None:
    assert len(Open(render_html(decided(full))).words) <= MOST_OF_ALL
    for name, why in ordinary.items():
        assert len(Open(render_html(why)).words) <= MOST_WORDS, name


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
    for phrase in ("cases like this", "most similar parts", "held-out pictures", "Hiding parts"):
        assert re.search(rf'class="def" href="#def-[\w-]+">{phrase}</a>', page), phrase


def test_the_file_has_its_name_and_the_path_stands_in_the_title(full: Explanation) -> None:
    page = render_html(replace(full, prediction=replace(full.prediction, image=PATH)))
    assert f'<p class="file" title="{PATH}">{PATH.rpartition("/")[2]}</p>' in page


def test_what_to_do_next_follows_the_decision(full: Explanation, cards: dict[str, Explanation]) -> None:
    assert card_of(full).href == "#like"
    assert str(card_of(decided(full)).next) == CURE
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
    assert next(iter(card_lines(wrong))).startswith("picture 1: None of these names fits well. Best guess: ")
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
