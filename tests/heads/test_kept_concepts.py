"""A sum of the few sentences that stand out: by hand, planted, on the card, saved, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from schemas import check
from seewhy.classifiers.base import Classifier
from seewhy.classifiers.by_sentences import SparseConcepts, _telling
from seewhy.classifiers.saving import load
from seewhy.descriptions import Descriptions
from seewhy.errors import DataError, InputError
from seewhy.explanation.base import Words
from seewhy.heads.head import Target
from seewhy.heads.sparse_concepts import KeptConcepts
from seewhy.pictures.samples import Samples, load_samples
from tiny import class_folders, colours, picture

HUES = Descriptions(
    {"moss": ("very green", "a door"), "rust": ("very brown", "a cup"), "sky": ("very blue", "two windows")}
)
MADE = KeptConcepts(
    ("a", "b", "c"),
    torch.tensor([0.0, 0.0, 1.0]),
    torch.tensor([1.0, 0.5, 1.0]),
    torch.tensor([[1.0, 2.0, 0.0], [0.0, -1.0, 3.0]]),
    torch.tensor([0.5, 0.0]),
    2,
)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    return load_samples(class_folders(tmp_path_factory.mktemp("colours"), 12))


@pytest.fixture(scope="module")
def fitted(samples: Samples) -> Classifier:
    return SparseConcepts(kept=2, n_concepts=3).fit(colours(), samples, descriptions=HUES)


def test_by_hand() -> None:
    scores = torch.tensor([[1.5, -1.0, 2.0]])  # in standard units 1.5, -2 and 1
    assert MADE.which(scores).tolist() == [[True, True, False]]
    assert MADE.values(scores).tolist() == [[1.5, -2.0, 0.0]]
    assert MADE(scores).tolist() == [[1.5 - 4 + 0.5, 2.0]]
    assert MADE.by_words(scores).tolist() == [1]
    whole, without = MADE.without(scores)
    assert whole.tolist() == MADE(scores).tolist()
    # Second ahead of first by 4: the first adds -1.5 to that, the second 6, which is taken out.
    assert without.tolist() == [[2.0, 0.0]]
    assert MADE.without(scores, at_random=True)[1].tolist() in ([[2.0, 0.0]], [[-3.5, 2.0]])
    # What each adds is weighed against the second class: 2 and 2.7, and not 2 and 1.8.
    assert MADE.without(torch.tensor([[2.0, 0.45, 1.0]]))[1].tolist() == [[2.5, 0.0]]
    # Only what is kept can be taken out, though it speaks against the class and what is not kept says nothing.
    torch.testing.assert_close(MADE.without(torch.tensor([[-0.1, -0.025, 1.01]]))[1], torch.tensor([[0.4, 0.05]]))


def test_planted_words_are_chosen_and_decide(fitted: Classifier, samples: Samples) -> None:
    votes = fitted.head.votes
    assert isinstance(votes, KeptConcepts)
    assert set(votes.texts) == {"very green", "very brown", "very blue"}
    assert fitted.words_accuracy == 1.0
    assert fitted.measures["n_used"] == 3
    assert [fitted.predict(s.image).label == s.label for s in samples.items[::5]] == [True] * 8


def test_the_card_names_what_was_kept_and_what_each_adds(fitted: Classifier) -> None:
    why = fitted.explain(picture("moss", 0))
    assert isinstance(why.words, Words)
    assert why.words.words[0].text == "very green"
    assert why.words.words[0].score > why.words.words[0].score_other
    assert len(why.words.words) <= 2
    votes = fitted.head.votes
    assert isinstance(votes, KeptConcepts)
    signed = [(1 if w.label == "moss" else -1) * (w.adds or 0.0) for w in why.words.words]
    scores = fitted.head.feature(fitted.encoder.encode(fitted.encoder.pixels([picture("moss", 0)])).pooled)
    logits = fitted.head(fitted.encoder.encode(fitted.encoder.pixels([picture("moss", 0)])).pooled)[0]
    assert len(scores) == 1
    first, second = logits.topk(2).indices.tolist()
    lead = float(logits[first] - logits[second] - votes.offset[first] + votes.offset[second])
    assert sum(signed) == pytest.approx(lead, abs=1e-3)
    assert (
        "2 of 3 concepts make the decision. Without the concept that adds most, the decision would be"
        in why.words.would_change
    )
    assert "removing random concepts changes" in why.words.would_change
    data = why.to_json()
    check("explanation", [data])
    assert data["words"][0]["adds"] > 0
    assert f"adds {why.words.words[0].adds:.2f}" in why.to_html()


def test_without_held_out_pictures_the_card_says_less(fitted: Classifier) -> None:
    words = replace(fitted, held_out=None).explain(picture("moss", 0), measure=False).words
    assert isinstance(words, Words)
    assert "held-out" not in words.would_change
    assert all(w.separates is None for w in words.words)


def test_concepts_that_nobody_wrote_for_the_classes_are_not_relied_on(fitted: Classifier) -> None:
    own = fitted.explain(picture("moss", 0), measure=False).words
    foreign = replace(fitted, words=None).explain(picture("moss", 0), measure=False).words
    assert isinstance(own, Words)
    assert isinstance(foreign, Words)
    assert (own.verdict.level, foreign.verdict.level) == ("believable", "do not rely")
    assert foreign.verdict.sentence.startswith("The concepts were not written for these classes")


def test_saved_and_loaded(fitted: Classifier, tmp_path: Path) -> None:
    fitted.save(tmp_path / "model")
    again = load(tmp_path / "model", encoder=colours())
    pixels = fitted.encoder.pixels([picture("rust", 1)])
    assert torch.equal(again.probabilities(pixels), fitted.probabilities(pixels))
    votes = again.head.votes
    assert isinstance(votes, KeptConcepts)
    weight = again.head.weight
    for wrong in (
        {"mean": votes.mean[:2]},
        {"spread": torch.zeros(3)},
        {"layer": votes.layer[:, :2]},
        {"layer": votes.layer[:2]},
    ):
        with pytest.raises(ValueError, match=r"is \(|rows for|zero spread"):
            KeptConcepts.restore(votes.facts(), {**votes.tensors(), **wrong}, weight)
    with pytest.raises(ValueError, match=r"^`kept` must be between 1 and 3"):
        KeptConcepts.restore({**votes.facts(), "kept": 9}, votes.tensors(), weight)


def test_the_slope_is_that_of_what_is_kept(fitted: Classifier) -> None:
    pooled = fitted.encoder.encode(fitted.encoder.pixels([picture("sky", 1)])).pooled
    target = Target(torch.tensor([2]), torch.tensor([0]))
    slope = fitted.head.slope(pooled, target)
    step = 1e-3 * slope
    ahead = target(fitted.head(pooled + step)) - target(fitted.head(pooled - step))
    # Exact with the length of the projected vector held; along it the two differ.
    assert slope.abs().sum() > 0
    assert float(ahead) != 0


def test_texts_that_tell_classes_apart_come_first() -> None:
    labels = torch.tensor([0, 0, 1, 1])
    cosines = torch.tensor([[0.1, 0.9, 0.5], [0.3, 0.8, 0.5], [0.2, 0.1, 0.5], [0.4, 0.2, 0.5]])
    assert _telling(cosines, labels).tolist() == [1, 0]  # the third never changes


def test_bad_input(samples: Samples) -> None:
    with pytest.raises(InputError) as caught:
        SparseConcepts(kept=10).fit(colours(), samples, descriptions=HUES)
    assert str(caught.value) == (
        "`kept` must be between 1 and 3, the number of concepts, got 10. Use --set kept=1, for example."
    )
    one = dict.fromkeys(HUES.texts, ("a door",))
    with pytest.raises(
        DataError, match=r"Every description fits all pictures equally well\. Give descriptions that differ\."
    ):
        SparseConcepts(kept=1).fit(colours(), samples, descriptions=Descriptions(one))


def test_one_picture_of_a_class(samples: Samples) -> None:
    few = tuple(next(s for s in samples.items if s.label == c) for c in samples.classes)
    made = SparseConcepts(kept=1).fit(colours(), replace(samples, items=few), descriptions=HUES)
    assert made.held_out is None
    assert made.words_accuracy is None
