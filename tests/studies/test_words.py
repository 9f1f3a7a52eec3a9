"""Studies of words: planted meaning is found, ensembling is not taken for it, and edits change what they should."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from seewhy.classifiers.described import Described
from seewhy.classifiers.linear import Linear
from seewhy.classifiers.rewording import reworded, words_decide
from seewhy.data import Sample, Samples, load_samples
from seewhy.descriptions import Descriptions
from seewhy.descriptions.controls import (
    flaws,
    own_noise,
    randomly_assigned,
    scrambled,
    shared_noise,
    swapped,
    without_names,
)
from seewhy.descriptions.edits import Change, Edit
from seewhy.encoders.base import Encoder, GlobalAverage, Layout
from seewhy.errors import DataError, InputError
from seewhy.studies.description_semantics import DescriptionSemanticsStudy
from seewhy.studies.edit_words import EditWordsStudy
from tiny import COLOURS, Channels, HashedWords, build, class_folders, tiny_cnn

HUES = {"moss": "green", "rust": "brown", "sky": "blue"}
WORDS = Descriptions({c: (f"very {h}", f"quite {h}", f"rather {h}") for c, h in HUES.items()})


class ColourWords(HashedWords):
    """Knows colours by their words; every other text is at right angles to all pictures."""

    def __init__(self) -> None:
        seen = {h: torch.tensor(COLOURS[c]) / 255 - 0.5 for c, h in HUES.items()}
        super().__init__(3, {h: torch.cat([v, torch.zeros(3)]) for h, v in seen.items()})
        self.fingerprint = "colour words of studies"

    def _vector(self, text: str) -> Tensor:
        drawn = super()._vector(text)
        return drawn if len(drawn) == 6 else torch.cat([torch.zeros(3), drawn])

    def project(self, pooled: Tensor) -> Tensor:
        return torch.cat([2 * pooled, torch.zeros_like(pooled)], 1)


def colours() -> Encoder:
    return build(Channels(), GlobalAverage(), Layout(), 3, text=ColourWords())


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    return load_samples(class_folders(tmp_path_factory.mktemp("colours"), 8))


def test_planted_meaning_is_found(samples: Samples, tmp_path: Path) -> None:
    study = DescriptionSemanticsStudy(n_noise=3, n_draws=200)
    found = study.run(colours(), WORDS, samples, tmp_path / "study")
    assert found.value("descriptions") == 1.0
    assert found.value("descriptions alone", "without names") == 1.0
    assert found.value("swapped alone", "without names") < 0.5
    assert found.value("class in question", "chosen") == 1.0
    assert found.sentence.startswith("These words help, by what they say; right on 100.0% of the pictures")
    assert "they carry meaning of their own" in found.sentence
    again = study.run(colours(), WORDS, samples, tmp_path / "study")
    assert again.data["arms"] == found.data["arms"]
    page = found.save(tmp_path / "study.html").read_text("utf-8")
    assert "These words help, by what they say" in page
    with pytest.raises(KeyError):
        found.value("no such arm")


def test_meaningless_descriptions_are_not_said_to_mean(samples: Samples) -> None:
    nothing = Descriptions({c: (f"xq {c[::-1]}", f"zw {c[::-1]}") for c in HUES})
    found = DescriptionSemanticsStudy(n_noise=3, n_draws=200).run(colours(), nothing, samples)
    assert found.sentence.startswith("These words do not help, and meaningless texts do as well; ")
    assert "no meaning of their own is shown" in found.sentence
    assert json.loads(json.dumps(found.data)) == found.data


def test_controls_keep_counts_and_lose_what_they_should() -> None:
    words = Descriptions({"moss": ("soft green", "wet stones"), "rust": ("brown old",), "sky": ("blue", "far", "high")})
    for control in (swapped, scrambled, shared_noise, own_noise, randomly_assigned):
        made = control(words, 3)
        assert made == control(words, 3)
        assert list(made.texts) == list(words.texts)
        if control is not swapped:
            assert [len(t) for t in made.texts.values()] == [2, 1, 3]
    assert all(a != b for a, b in zip(swapped(words, 0).texts.values(), words.texts.values(), strict=True))
    assert sorted(swapped(words, 0).texts.values()) == sorted(words.texts.values())
    mixed = scrambled(words, 1)
    assert sorted(" ".join(mixed.texts["moss"]).split()) == ["green", "soft", "stones", "wet"]
    noise = shared_noise(words, 0)
    assert noise.texts["rust"] == noise.texts["sky"][:1]
    own = own_noise(words, 0)
    assert len({t for lines in own.texts.values() for t in lines}) == 6
    pool = {t for lines in words.texts.values() for t in lines}
    assert {t for lines in randomly_assigned(words, 0).texts.values() for t in lines} <= pool


def test_names_and_other_flaws_are_found() -> None:
    words = Descriptions({"Red-Beet": ("Red beets are round", "a beet"), "b": ("dark",), "c": ("dark",)})
    bare, n = without_names(words)
    assert bare.texts["Red-Beet"] == ("it are round", "a beet")
    assert n == 1
    assert flaws(words) == [
        "1 of 4 descriptions contain their own class's name.",
        "b and c have the same descriptions; words cannot tell them apart.",
        "1 of 3 different descriptions belong to more than one class.",
    ]


def test_edits() -> None:
    words = Descriptions({"a": ("a Red  beak", "redder legs", "long tail"), "b": ("red beaks", "short tail")})
    changed, changes = Edit(remove=("red beak",), replace=(("tail", "wing"),))(words)
    assert changed.texts == {"a": ("redder legs", "long wing"), "b": ("red beaks", "short wing")}
    assert changes == [
        Change("a", "a Red  beak", None),
        Change("a", "long tail", "long wing"),
        Change("b", "short tail", "short wing"),
    ]
    only, _ = Edit(replace=(("tail", "wing"),), label="b")(words)
    assert only.texts["a"] == words.texts["a"]
    with pytest.raises(DataError) as caught:
        Edit(remove=("blue beak",))(words)
    assert str(caught.value).startswith(
        "No description has 'blue beak'. A phrase of one was expected, in any case and whole words. The nearest is 'r"
    )
    with pytest.raises(DataError, match="'b' would be left without descriptions"):
        Edit(remove=("red beaks", "short tail"))(words)
    with pytest.raises(InputError, match="No change was asked for"):
        Edit()


def test_an_edit_turns_over_the_pictures_it_should(samples: Samples, tmp_path: Path) -> None:
    words = Descriptions({c: (f"very {h}",) for c, h in HUES.items()})
    model = Described(with_names=False).build(colours(), words)
    items = tuple(Sample(s.image, s.label, "low" if s.label == "sky" else "high") for s in samples.items)
    grouped = Samples(items, samples.classes)
    # The sky is said to be green, and moss blue: both turn over, rust stays.
    edit = Edit(replace=(("blue", "azure"), ("green", "blue"), ("azure", "green")))
    found = EditWordsStudy(edit, n_draws=200).run(model, grouped)
    data = found.data
    assert data["decides"]
    assert data["accuracy"]["before"] == 1.0
    assert data["accuracy"]["after"] == pytest.approx(1 / 3, abs=1e-3)
    assert data["accuracy"]["real"]
    assert {f["kind"] for f in data["flips"]} == {"broken"}
    assert {f["label"] for f in data["flips"]} == {"moss", "sky"}
    assert [(g["group"], g["after"]) for g in data["groups"]] == [("high", 0.5), ("low", 0.0)]
    assert data["gap"]["before"] == 0.0
    assert data["gap"]["after"] == 0.5
    assert "widens it" in found.sentence
    page = found.save(tmp_path / "edit.html").read_text("utf-8")
    assert "Right before, wrong now: 16" in page


def test_where_words_are_evidence_the_decision_stays(samples: Samples) -> None:
    fitted = Linear(n_crops=0).fit(tiny_cnn(), samples, descriptions=WORDS)
    changed = reworded(fitted, Descriptions(dict.fromkeys(fitted.classes, ("nothing",))))
    assert not words_decide(fitted)
    assert torch.equal(changed.head.weight, fitted.head.weight)
    assert changed.words is not None
    assert changed.words.texts == ("nothing",) * 3
