"""Words measured on labelled pictures: what a name does in a sentence is not counted as what the words say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from seewhy.classifiers.encoded_set import encode_labelled
from seewhy.classifiers.follow_up import FollowUp
from seewhy.classifiers.unfitted import Described, ZeroShot
from seewhy.classifiers.words import measured_on
from seewhy.descriptions import Descriptions
from seewhy.errors import DataError
from seewhy.explanation.base import Words
from seewhy.language.questions import Difference, Pair
from seewhy.pictures.samples import Sample, Samples, load_samples
from seewhy.progress import Progress
from tiny import class_folders, colours, picture

HUES = {"moss": "green", "rust": "brown", "sky": "blue"}
CLASSES = tuple(HUES.values())


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    """Pictures whose classes are called by their colours."""
    drawn = load_samples(class_folders(tmp_path_factory.mktemp("colours"), 6))
    items = tuple(Sample(s.image, HUES[s.label]) for s in drawn.items if s.label in HUES)
    return Samples(items, tuple(sorted(CLASSES)))


def test_a_name_does_not_count_for_the_words_beside_it(samples: Samples) -> None:
    empty = Descriptions({c: (f"x{c[::-1]}",) for c in CLASSES})
    made = Described().build(colours(), empty)
    named = replace(made, held_out=measured_on(made, samples).held_out)
    measured = measured_on(made, samples)
    assert measured.words_accuracy_on == "18 labelled pictures, without the class names"
    assert measured.words_accuracy == pytest.approx(1 / 3, abs=1e-3)
    for model, separates in ((named, 1.0), (measured, 0.5)):
        words = model.explain(picture("sky", 50), measure=False).words
        assert isinstance(words, Words)
        assert {w.separates for w in words.words} == {separates}
    assert isinstance(words, Words)
    assert words.decision == "green"  # without names all score alike, and the first class is taken
    assert "Assigned to wrong classes, descriptions fit equally well in 100 % of cases" in words.verdict.figures
    assert words.verdict.level == "do not rely"


def test_words_that_mean_something_are_measured_to(samples: Samples) -> None:
    kinds = {"green": "leaf", "brown": "wood", "blue": "sea"}
    renamed = Samples(tuple(Sample(s.image, kinds[s.label]) for s in samples.items), tuple(sorted(kinds.values())))
    true = Descriptions({kind: (f"something {c}", f"quite {c}") for c, kind in kinds.items()})
    made = measured_on(Described().build(colours(), true), renamed)
    assert made.words_accuracy == 1.0
    words = made.explain(picture("sky", 50), measure=False).words
    assert isinstance(words, Words)
    assert [w.separates for w in words.words if w.label == "sea"] == [1.0, 1.0]
    assert words.verdict.level == "believable"
    # A name inside a text is taken out too: of these texts nothing is left that says anything.
    own = Descriptions({c: (f"a {c} thing", f"quite {c}") for c in CLASSES})
    assert measured_on(Described().build(colours(), own), samples).words_accuracy == pytest.approx(1 / 3, abs=1e-3)


def test_names_and_follow_ups_are_measured_as_they_are(samples: Samples) -> None:
    encoder = colours()
    zero = measured_on(ZeroShot().build(encoder, CLASSES), samples)
    assert (zero.words_accuracy, zero.words_accuracy_on) == (1.0, "18 labelled pictures")
    pair = Pair(("green", "blue"), (Difference("hue", "a green one", "a blue one"),))
    again = measured_on(FollowUp(k=2).build(encoder, CLASSES, [pair]), samples)
    assert again.words_accuracy == 1.0
    words = again.explain(picture("sky", 50), target="blue", contrast="green", measure=False).words
    assert isinstance(words, Words)
    assert [w.separates for w in words.words] == [1.0, 1.0]


def test_other_classes_are_noted_and_none_is_an_error(samples: Samples, tmp_path: Path) -> None:
    heard, encoder = Progress(), colours()
    found = encode_labelled(encoder, ("blue", "brown"), samples, progress=heard)
    assert heard.notes == ["left out 6 picture(s) of 1 unknown class(es): 'green'"]
    assert found.labels.bincount().tolist() == [6, 6]
    assert [s.label for s in found.items] == [("blue", "brown")[i] for i in found.labels]
    with pytest.raises(DataError) as caught:
        encode_labelled(encoder, ("cat", "dog"), samples)
    assert str(caught.value) == (
        "None of the 3 labels ('blue', 'brown', 'green') is one of the 2 classes ('cat', "
        "'dog'). Use the same class names in both."
    )
    broken = tmp_path / "broken.png"
    broken.write_text("no picture")
    with pytest.raises(DataError, match="None of the 1 pictures can be read"):
        encode_labelled(encoder, ("blue",), Samples((Sample(str(broken), "blue"),), ("blue",)))
