"""Studies of words: planted meaning is found, ensembling is not taken for it, and edits change what they should."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from seewhy.classifiers.by_sentences import Selector
from seewhy.classifiers.linear.recipe import Linear
from seewhy.classifiers.unfitted import Described
from seewhy.classifiers.words import reworded, words_decide
from seewhy.descriptions import Descriptions
from seewhy.descriptions.base import Change, without_names
from seewhy.errors import DataError, InputError
from seewhy.pictures.samples import Sample, Samples, load_samples
from seewhy.studies.words_compared import gap_between
from tiny import CLASSES, HashedWords, class_folders, colours, tiny_cnn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "reproductions"))

from description_controls import flaws, own_noise, randomly_assigned, scrambled, shared_noise, swapped
from description_semantics import DescriptionSemanticsStudy
from edit_words import Edit, EditWordsStudy
from semantics_arms import Arms, halves

HUES = {"moss": "green", "rust": "brown", "sky": "blue"}
WORDS = Descriptions({c: (f"very {h}", f"quite {h}", f"rather {h}") for c, h in HUES.items()})


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
    assert [a["name"] for a in found.data["arms"] if a["group"] == "pictures"] == [
        "1 picture a class",
        "2 pictures a class",
        "4 pictures a class",
    ]
    assert found.value("1 picture a class", "pictures") == 1.0  # one picture of a colour says it all
    assert "As far as tried, no pictures do more" in found.sentence
    assert found.data["luck"] == round(1 / 6, 4)  # of the six ways to deal three lists out, this one alone
    assert found.sentence.startswith("These words help, by what they say; right on 100.0% of the pictures")
    assert "they carry meaning of their own" in found.sentence
    again = study.run(colours(), WORDS, samples, tmp_path / "study")
    assert again.data["arms"] == found.data["arms"]
    with pytest.raises(KeyError):
        found.value("no such arm")


def test_meaningless_descriptions_are_not_said_to_mean(samples: Samples) -> None:
    nothing = Descriptions({c: (f"xq {c[::-1]}", f"zw {c[::-1]}") for c in HUES})
    found = DescriptionSemanticsStudy(n_noise=3, n_draws=200).run(colours(), nothing, samples)
    assert found.sentence.startswith("These words do not help, and meaningless texts do as well; ")
    assert "no meaning of their own is shown" in found.sentence
    assert found.data["luck"] == 1.0
    assert "A linear probe on 1 picture a class does more than names and words together (100.0%)" in found.sentence
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
    plural, _ = without_names(Descriptions({"cherry": ("Ripe cherries",), "peach": ("two peaches", "peachy")}))
    assert plural.texts == {"cherry": ("Ripe it",), "peach": ("two it", "peachy")}
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
        "No description has 'blue beak'. Expected whole words of a description, in upper or lower case. The nearest is"
    )
    with pytest.raises(DataError, match="'b' would be left without descriptions"):
        Edit(remove=("red beaks", "short tail"))(words)
    with pytest.raises(InputError, match="No change was given"):
        Edit()


def test_an_edit_turns_over_the_pictures_it_should(samples: Samples, tmp_path: Path) -> None:
    words = Descriptions({c: (f"very {h}",) for c, h in HUES.items()})
    model = Described(with_names=False).build(colours(), words)
    items = tuple(Sample(s.image, s.label, ("low" if s.label == "sky" else "high",)) for s in samples.items)
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


def test_a_group_that_is_not_drawn_is_not_the_worst() -> None:
    """Of 40 pictures three are of the small group, which one draw in twenty misses."""
    small = torch.arange(40) < 3
    right = torch.ones(40, 2, dtype=torch.bool)
    right[:3, 1] = False
    gap = gap_between(right.double(), torch.stack([~small, small], 1).double())
    assert (gap["before"], gap["after"], gap["real"]) == (0.0, 1.0, True)
    assert gap["interval"][0] >= 0


def test_where_words_are_evidence_the_decision_stays(samples: Samples) -> None:
    fitted = Linear(n_crops=0).fit(tiny_cnn(), samples, descriptions=WORDS)
    changed = reworded(fitted, Descriptions(dict.fromkeys(fitted.classes, ("nothing",))))
    assert not words_decide(fitted)
    assert torch.equal(changed.head.weight, fitted.head.weight)
    assert changed.words is not None
    assert changed.words.texts == ("nothing",) * 3


LABELS = torch.arange(24) % 3
HALF = halves(LABELS, 0)


def arms_on(looks: Tensor, names: Tensor, **options: Any) -> Arms:
    """Pictures by how much each has of six looks and of three names; a sentence with a look in it says that alone."""
    axes = torch.eye(9)
    said = {f"look {i}": axes[i] for i in range(6)} | {c: axes[6 + i] for i, c in enumerate(HUES)}
    seen = normalize(torch.cat([looks, names], 1), dim=1)
    return Arms(tiny_cnn(text=HashedWords(9, said)), tuple(HUES), seen, LABELS, **options)


def of(classes: Tensor, n: int) -> Tensor:
    return one_hot(classes, n).float()


def test_nothing_is_chosen_or_learnt_on_the_half_that_is_tested() -> None:
    """In one half every class looks as the next one does in the other: what one half teaches is wrong of the other."""
    words = Descriptions({c: (f"look {i}",) for i, c in enumerate(HUES)})
    following = (LABELS + 1) % 3
    crossed = torch.where(HALF, LABELS, following)
    for looks, right in ((LABELS, True), (crossed, False)):
        arms = arms_on(of(looks, 6), torch.zeros(24, 3))
        found = (arms.selected(words), arms.selected_with_names(words), arms.few_shot(), arms.probe(4, 0))
        assert [set(f.hits.tolist()) for f in found] == [{right}] * 4
    # Names are wrong where words are right, so that either half asks for the weight that is wrong on the other.
    assert arms_on(of(LABELS, 6), of(following, 3)).weighed(words).hits.all()
    assert not arms_on(of(crossed, 6), of(torch.where(HALF, following, LABELS), 3)).weighed(words).hits.any()


def test_the_weight_of_the_names_is_not_chosen_on_pictures_that_chose_descriptions() -> None:
    """A quarter has one look of its class, a quarter another and a little of a wrong one, a half that little alone.

    What the first quarter chooses is wrong of the second, so that names are needed; and on the half they decide.
    """
    part = torch.zeros_like(HALF)
    part[HALF] = halves(LABELS[HALF], 1)
    looks = HALF[:, None] * of(torch.where(part, LABELS, LABELS + 3), 6)
    looks += 0.2 * ~part[:, None] * of((LABELS + 1) % 3, 6)
    arms = arms_on(looks, of(LABELS, 3), selector=Selector(2, margin=0.1))
    found = arms.selected(Descriptions({c: (f"look {i}", f"look {i + 3}") for i, c in enumerate(HUES)}))
    assert found.hits[~HALF].all()


def test_labels_by_chance_are_found_by_chance() -> None:
    generator = torch.Generator().manual_seed(0)
    texts = [f"sentence {i:02}" for i in range(60)]
    vectors = torch.randn(64, 32, generator=generator)
    said = dict(zip([*texts, *CLASSES], vectors, strict=True))
    encoder = tiny_cnn(text=HashedWords(32, said))
    words = Descriptions({c: tuple(texts[i::4]) for i, c in enumerate(CLASSES)})
    seen = normalize(torch.randn(200, 32, generator=generator), dim=1)
    labels = torch.arange(200)[torch.randperm(200, generator=generator)] % 4
    arms = Arms(encoder, CLASSES, seen, labels, k=4)
    bound = 3 * (0.25 * 0.75 / 200) ** 0.5
    for found in (arms.weighed(words), arms.selected(words), arms.selected_with_names(words), arms.few_shot()):
        assert float(found.hits.float().mean()) == pytest.approx(0.25, abs=bound)


def test_scrambled_words_stand_elsewhere() -> None:
    words = Descriptions({c: tuple(f"{c}{i} {c}{i + 1} {c}{i + 2} {c}{i + 3}" for i in range(0, 20, 4)) for c in HUES})
    mixed = scrambled(words, 0)
    for c, lines in words.texts.items():
        before, after = " ".join(lines).split(), " ".join(mixed.texts[c]).split()
        assert sorted(after) == sorted(before)
        assert sum(a == b for a, b in zip(before, after, strict=True)) <= 5  # by chance one of the twenty stays
        assert [len(t.split()) for t in mixed.texts[c]] == [4] * 5


def test_noise_has_as_many_letters_and_words_as_the_names() -> None:
    texts = ("plumage", "feathers", "chirping", "brownish")
    words = Descriptions({"great tit": texts, "lapwing": texts})  # three words of five letters, in two names
    lengths = [[len(w) for w in t.split(", ")] for lines in own_noise(words, 0).texts.values() for t in lines]
    assert lengths == [[5, 5]] * 8
    shared = shared_noise(words, 0).texts["lapwing"]
    assert [[len(w) for w in t.replace(",", "").split()] for t in shared] == [[5, 5]] * 4
    assert all(any(t.startswith(w) for t in texts) for line in shared[::2] for w in line.split())
