"""GIST's towers: they learn what texts part, change what they name and nothing else, are saved and gone on with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seewhy.classifiers.base import Classifier
from seewhy.classifiers.saving import load
from seewhy.descriptions import Descriptions
from seewhy.encoders.base import GlobalAverage, Tokenised, TrainableText
from seewhy.errors import InputError, ModelError
from seewhy.learning.adaptation.gist import GIST, DistinctTexts, Form, GISTNetwork, grown, tune_towers
from seewhy.learning.encoders.towers import TunedTowers, trainable
from seewhy.learning.objectives.pairs import GIST as Contrast
from seewhy.pictures.samples import load_samples
from seewhy.progress import Progress
from seewhy.training.loop import Training
from tiny import CLASSES, class_folders, noise, picture, tiny_cnn, tiny_tokens
from tiny_words import bag_of_words, drawn_pairs, hashed, tiny_pair, trained

WORDS = Descriptions({c: (f"{c} one", f"{c} two") for c in CLASSES[:3]})
BOTH = pytest.mark.parametrize("train", ["image", "towers"])


def fitted(tmp_path: Path, train: Form, **options: object) -> Classifier:
    given = {"n_steps": 3, "batch_size": 4, "n_crops": 1, "lr": 0.02} | options
    samples = load_samples(class_folders(tmp_path / "d", 5))
    return GIST(train, **given).fit(tiny_pair(), samples, descriptions=WORDS)  # type: ignore[arg-type]


@BOTH
def test_training_lowers_the_loss_and_pictures_find_their_own_text(tmp_path: Path, train: Form) -> None:
    """Each class has texts of its own, so a picture whose class is seen is nearest to its own text's class."""
    made = fitted(tmp_path, train, n_steps=80, batch_size=9, lr=0.02, same_class="positive", n_captions=1)
    assert made.measures["recall_before"] <= 0.5
    assert made.measures["recall"] >= made.measures["recall_before"] + 0.4
    _, done = trained(tiny_pair(), train, Training(60, 6, lr=0.02, schedule="constant"))
    assert done.history[-1]["loss"] < 0.5 * done.history[0]["loss"]


def test_before_training_the_copies_see_and_say_what_the_encoder_does() -> None:
    for train in ("image", "towers"):
        on = tiny_pair()
        made = GISTNetwork(on, TunedTowers.before(on, train)).encoder()
        assert torch.allclose(made.encode_image(noise(3)), on.encode_image(noise(3)), atol=1e-6)
        assert torch.allclose(made.encode_text(["a b", "c"]), on.encode_text(["a b", "c"]), atol=1e-6)
        assert GISTNetwork(on, TunedTowers.before(on, train)).tensors() == {}


@pytest.mark.parametrize(
    ("train", "parts"), [("image", {"trunk", "projection"}), ("towers", {"trunk", "projection", "words"})]
)
def test_what_is_named_changes_and_nothing_else(train: Form, parts: set[str]) -> None:
    on = tiny_pair()
    before = on.encode(noise(2)).pooled.clone(), on.encode_image(noise(2)), on.encode_text(["x y"])
    towers, _ = trained(on, train, Training(2, 6, lr=0.02))
    tensors = GISTNetwork(on, towers).tensors()
    assert {name.partition(".")[0] for name in tensors} == parts
    after = grown(towers, on)
    assert torch.equal(after.encode_text(["x y"]), on.encode_text(["x y"])) == (train == "image")
    assert (after.text.fingerprint == on.text.fingerprint) == (train == "image")
    assert not torch.equal(after.encode(noise(2)).pooled, on.encode(noise(2)).pooled)
    now = on.encode(noise(2)).pooled, on.encode_image(noise(2)), on.encode_text(["x y"])
    assert all(torch.equal(a, b) for a, b in zip(before, now, strict=True))
    assert not any(p.requires_grad for p in [*towers.parameters(), *on.text.module.parameters()])  # type: ignore[attr-defined]


def test_normalisation_is_held() -> None:
    """Means and variances of batches are not taken in: twenty pairs are too few for that."""
    trunk = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5))
    on = tiny_pair()
    on.__dict__["trunk"] = trunk.eval().requires_grad_(False)
    towers, done = trained(on, "image", Training(3, 6, lr=0.02))
    names = set(towers.delta(on))
    assert {"trunk.0.weight", "trunk.1.weight", "trunk.1.bias"} <= names
    assert not names & {"trunk.1.running_mean", "trunk.1.running_var", "trunk.1.num_batches_tracked"}
    on.__dict__["trunk"] = trunk[:3]
    assert trained(on, "image", Training(3, 6, lr=0.02))[1].history == done.history  # nothing was dropped


@BOTH
def test_saved_and_loaded_it_decides_and_says_the_same(tmp_path: Path, train: Form) -> None:
    made = fitted(tmp_path, train)
    again = load(made.save(tmp_path / "m"), encoder=tiny_pair())
    assert torch.equal(again.probabilities(noise(4)), made.probabilities(noise(4)))
    assert torch.equal(again.encoder.encode_text(["moss one"]), made.encoder.encode_text(["moss one"]))
    assert again.encoder.fingerprint == made.encoder.fingerprint != tiny_pair().fingerprint
    why, before = (m.explain(picture("rust", 1)).to_json() for m in (again, made))
    assert why["where"] == before["where"]
    assert [(w["text"], w["score"]) for w in why["words"]] == [(w["text"], w["score"]) for w in before["words"]]
    card = tmp_path / "m" / "seewhy.json"
    said = card.read_text().rstrip()
    assert json.loads(said)["network"] == {"train": train}  # as it has been on disk from the first
    for other in ("x", "text"):
        card.write_text(said.replace(f'"train": "{train}"', f'"train": "{other}"'))
        with pytest.raises(ModelError, match="damaged"):
            load(tmp_path / "m", encoder=tiny_pair())


def test_a_text_that_is_several_times_in_a_batch_is_read_once() -> None:
    tower, seen = trainable(tiny_pair()), []

    def tokens(texts: list[str]) -> Tokenised:
        seen.append(texts)
        return tower.tokens(texts)

    vectors = DistinctTexts(tower.module, tokens, ("a", "b c", "d"))(torch.tensor([2, 0, 2]))
    assert seen == [["a", "d"]]
    assert torch.allclose(vectors, tower.module(*tower.tokens(["d", "a", "d"])), atol=1e-6)


@BOTH
def test_a_stopped_training_ends_where_an_unbroken_one_does(tmp_path: Path, train: Form) -> None:
    on, how = tiny_pair(), Training(8, 3, lr=0.02, checkpoint_every=4, schedule="constant")
    whole = trained(on, train, how)[0]

    class Stopped(Contrast):
        def rows(self, scores: Tensor, own: Tensor, labels: Any) -> Tensor:
            calls.append(1)
            if len(calls) == 2 * 6:
                raise KeyboardInterrupt
            return super().rows(scores, own, labels)

    calls: list[int] = []
    kept, pairs, tower = (tmp_path / "x", "seal"), drawn_pairs(on), trainable(on)
    with pytest.raises(KeyboardInterrupt):
        tune_towers(TunedTowers.before(on, train), tower, pairs, Stopped(10.0), how, kept)
    second = TunedTowers.before(on, train)
    assert tune_towers(second, tower, pairs, Contrast(10.0), how, kept).resumed_at == 4
    assert all(
        torch.equal(a, b) for a, b in zip(second.state_dict().values(), whole.state_dict().values(), strict=True)
    )


def test_a_fit_that_was_stopped_makes_the_same_classifier(tmp_path: Path) -> None:
    samples = load_samples(class_folders(tmp_path / "d", 4))
    recipe, progress, kept = GIST("towers", n_steps=6, batch_size=4, n_crops=0, lr=0.01), Progress(), tmp_path / "x"
    whole = recipe.fit(tiny_pair(), samples, descriptions=WORDS)

    class Stopped(Progress):
        def measured(self, step: int, terms: object) -> None:
            if step == 4:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recipe.fit(tiny_pair(), samples, descriptions=WORDS, checkpoint=kept, progress=Stopped())
    made = recipe.fit(tiny_pair(), samples, descriptions=WORDS, checkpoint=kept, progress=progress)
    assert "resuming at step 5" in progress.notes
    assert made.encoder.fingerprint == whole.encoder.fingerprint
    assert torch.equal(made.probabilities(noise(3)), whole.probabilities(noise(3)))


def test_a_mean_over_space_stays_one_where_nothing_follows_it() -> None:
    """Then the shares of the card are exact, as they are on the untouched encoder."""
    on = tiny_cnn(text=bag_of_words())
    on.text.projection = nn.Identity()  # type: ignore[attr-defined]
    assert isinstance(grown(TunedTowers.before(on, "image"), on).head, GlobalAverage)
    assert not isinstance(grown(TunedTowers.before(tiny_pair(), "image"), tiny_pair()).head, GlobalAverage)


def test_a_picture_that_vanishes_after_training_is_reported_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import seewhy.learning.adaptation.gist as module

    folder, progress = class_folders(tmp_path / "d", 5), Progress()
    tuned = module.tune_towers

    def then_gone(*given: object) -> object:
        done = tuned(*given)  # type: ignore[arg-type]
        (folder / "moss" / "moss_0.png").unlink()
        return done

    monkeypatch.setattr(module, "tune_towers", then_gone)
    recipe = GIST("image", n_steps=2, batch_size=4, n_crops=0)
    made = recipe.fit(tiny_pair(), load_samples(folder), descriptions=WORDS, progress=progress)
    assert made.measures["n_pictures"] == 14
    assert [Path(f["image"]).name for f in made.measures["failures"]] == ["moss_0.png"]


def test_without_weights_to_train_or_under_another_name_it_is_refused(tmp_path: Path) -> None:
    samples = load_samples(class_folders(tmp_path / "d", 3))
    assert not isinstance(tiny_tokens().text, TrainableText)
    assert isinstance(tiny_pair().text, TrainableText)
    with pytest.raises(ModelError) as caught:
        GIST("towers").fit(tiny_tokens(), samples, descriptions=WORDS)
    assert str(caught.value) == (
        "The text encoder of 'tiny' cannot be trained. Use the embedded encoder, one whose name begins with "
        "'open_clip:' or 'hf:', or train='layers'."
    )
    with pytest.raises(InputError, match=r"`train` of gist must be .*, got 'both'"):
        GIST("both")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "rate", "batch"), [({}, 1e-6, 20), ({"lr": 0.1, "batch_size": 3}, 0.1, 3)], ids=["left out", "given"]
)
def test_what_is_left_out_is_the_authors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], rate: float, batch: int
) -> None:
    class Told(Exception):
        pass

    def told(*given: object) -> None:
        raise Told(given[4])

    monkeypatch.setattr("seewhy.learning.adaptation.gist.tune_towers", told)
    samples = load_samples(class_folders(tmp_path / "d", 3))
    with pytest.raises(Told) as caught:
        GIST("towers", **given).fit(tiny_pair(), samples, descriptions=WORDS)
    how: Training = caught.value.args[0]
    assert (how.lr, how.batch_size, how.weight_decay, how.schedule) == (rate, batch, 1e-3, "constant")
    layers = GIST()._training(64, 3e-4, "one_cycle")
    assert (layers.lr, layers.batch_size) == (3e-4, 64)


def test_the_words_half_is_differentiated_as_finite_differences_say() -> None:
    module = bag_of_words(4).module.double().requires_grad_(True)
    ids, mask = hashed(["a b c", "b"])

    def loss(weight: Tensor) -> Tensor:
        return torch.func.functional_call(module, {"words.weight": weight}, (ids, mask)).square().sum()

    assert torch.autograd.gradcheck(loss, module.words.weight.detach().clone().requires_grad_())  # type: ignore[attr-defined]
