"""Prompts before names: as the authors compute them, for any names, kept in part, drawn and parted."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from seewhy.classifiers.encoded_set import HoldOut
from seewhy.classifiers.fitting import Fitting
from seewhy.classifiers.unfitted import ZeroShot
from seewhy.encoders.open_clip import text_tower
from seewhy.encoders.text_tokens import ClipText
from seewhy.errors import DataError, InputError, ModelError
from seewhy.learning.adaptation.ogen import OGEN
from seewhy.learning.adaptation.prompt_recipe import Lesson, drawn, halved
from seewhy.learning.adaptation.prompts import (
    Kept,
    Names,
    PromptedNetwork,
    PromptTask,
    SharedPrompt,
    as_it_was,
    begun,
    opened,
    scores,
)
from seewhy.learning.adaptation.word_prompts import (
    CoCoOp,
    CoOp,
    PromptSRC,
    ShiftedPrompt,
    consistency,
    epoch_weights,
)
from seewhy.learning.way import choose
from seewhy.pictures.samples import Samples, load_samples
from seewhy.progress import Progress
from seewhy.training.batches import Batch, TrainingData
from seewhy.training.loop import Training, train
from tiny import class_folders, noise, tiny_cnn
from tiny_words import opened as with_words

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "coop.json").read_text("utf-8"))
NAMES = ("wren", "oak_tree", "rain")


@pytest.fixture(scope="module")
def authors() -> ClipText:
    """The words half that the golden numbers were made with, weights drawn in the same order."""
    open_clip = pytest.importorskip("open_clip")
    text = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
    vision = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16}
    model = open_clip.CLIP(16, vision, text, quick_gelu=True).eval().requires_grad_(False)
    generator, state = torch.Generator().manual_seed(GOLDEN["seed"]), model.state_dict()
    for name in sorted(n for n in state if not n.startswith("visual.")):
        if name == "logit_scale":
            state[name] = torch.tensor(math.log(20.0))
            continue
        value = torch.randn(state[name].shape, generator=generator) * 0.3
        norm = name == "ln_final.weight" or name.endswith(("ln_1.weight", "ln_2.weight"))
        state[name] = value + 1 if norm else value
    model.load_state_dict(state)
    return text_tower(model, open_clip.SimpleTokenizer(), "golden", None)


def golden_batch() -> tuple[Tensor, Tensor]:
    return torch.nn.functional.normalize(torch.tensor(GOLDEN["image"]), dim=1), torch.tensor(GOLDEN["labels"])


def test_coop_against_the_authors(authors: ClipText) -> None:
    image, labels = golden_batch()
    expected, prompt = GOLDEN["coop"], SharedPrompt(torch.tensor(GOLDEN["coop"]["context"]))
    task = PromptTask(prompt, Names(authors, GOLDEN["classes"]), authors.logit_scale)
    batch = Batch([*range(4)], {"image": image, "labels": labels})
    read, text = task.features(batch)
    logits = authors.logit_scale * read @ text.T
    terms = task.loss((read, text), batch)
    terms["loss"].backward()
    close = {"atol": GOLDEN["tolerance"], "rtol": 1e-3}
    torch.testing.assert_close(logits, torch.tensor(expected["logits"]), **close)
    assert terms["loss"].item() == pytest.approx(expected["loss"], abs=1e-4)
    torch.testing.assert_close(prompt.vectors.grad, torch.tensor(expected["gradient"]), **close)
    assert cross_entropy(logits, labels).item() == pytest.approx(terms["loss"].item())


def test_cocoop_against_the_authors(authors: ClipText) -> None:
    image, labels = golden_batch()
    expected = GOLDEN["cocoop"]
    prompt = ShiftedPrompt(torch.tensor(GOLDEN["coop"]["context"]), 16)
    names = {"linear1": "0", "linear2": "2"}
    for name, value in expected["meta"].items():
        layer, _, part = name.partition(".")
        prompt.meta[int(names[layer])].get_parameter(part).data = torch.tensor(value)
    task = PromptTask(prompt, Names(authors, GOLDEN["classes"]), authors.logit_scale)
    features = task.features(Batch([*range(4)], {"image": image, "labels": labels}))
    logits = authors.logit_scale * scores(*features)
    terms = task.loss(features, Batch([*range(4)], {"image": image, "labels": labels}))
    terms["loss"].backward()
    close = {"atol": GOLDEN["tolerance"], "rtol": 1e-3}
    torch.testing.assert_close(logits, torch.tensor(expected["logits"]), **close)
    assert terms["loss"].item() == pytest.approx(expected["loss"], abs=1e-4)
    torch.testing.assert_close(prompt.vectors.grad, torch.tensor(expected["gradient"]), **close)


def test_promptsrc_terms_and_weights_against_the_authors() -> None:
    golden = json.loads((Path(__file__).parents[1] / "golden" / "promptsrc.json").read_text("utf-8"))
    text, before, image, frozen = (unit(n, seed) for n, seed in ((5, 13), (5, 14), (4, 15), (4, 16)))
    logits, then = 20 * image @ text.T, 20 * frozen @ before.T
    by_hand = consistency(text, before, logits, then, 25.0) - consistency(text, before, logits, then, 0.0)
    assert by_hand.item() == pytest.approx(golden["text"], abs=1e-4)
    assert consistency(text, before, logits, then, 0.0).item() == pytest.approx(golden["logits"], abs=1e-5)
    assert epoch_weights(20, 15, 1) == pytest.approx(golden["gauss"], abs=1e-7)


def unit(n: int, seed: int) -> Tensor:
    drawn = torch.randn(n, 16, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(drawn, dim=1)


def test_promptsrc_ends_at_the_average_of_its_epochs_and_stays_nearer(folders: Path) -> None:
    on, classes = with_words(), ("moss", "rust", "sky")
    image = torch.nn.functional.normalize(torch.randn(12, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    lesson = Lesson(on, classes, Names(opened(on), classes), image, torch.arange(12) % 3, 4, 3, 0.5)
    data = TrainingData(12, {"image": image, "labels": lesson.labels})
    found: dict[float, Any] = {}
    for weight in (0.0, 50.0):
        torch.manual_seed(0)
        found[weight] = PromptSRC(text_weight=weight, epochs=4).task(lesson)
        train(found[weight], data, Training(12, 4, optimiser="sgd", lr=0.01, schedule="constant"))
    before = as_it_was(on.text, classes)
    near, far = ((found[w].names.read(found[w].prompt.vectors) - before).abs().mean().item() for w in (50.0, 0.0))
    assert near < far
    torch.testing.assert_close(found[0.0].average, found[0.0].prompt.vectors.flatten())
    task, kept = PromptSRC(epochs=4).task(lesson), []
    for step in range(12):
        with torch.no_grad():
            task.prompt.vectors.fill_(step // 3)
            task.after_step()
        kept.append(task.prompt.vectors[0, 0].item())
    weights = epoch_weights(4, 3.0, 0.5)
    assert kept[-1] == pytest.approx(sum(e * w for e, w in enumerate(weights)))
    assert kept[:-1] == [s // 3 for s in range(11)]


def test_words_it_begins_with_are_the_template(authors: ClipText) -> None:
    prompt = SharedPrompt(begun(authors, "a photo of a", 9))
    assert prompt.vectors.shape == (4, 16)
    with torch.no_grad():
        torch.testing.assert_close(
            Names(authors, GOLDEN["classes"]).read(prompt.vectors), as_it_was(authors, GOLDEN["classes"])
        )


def made(keep: float = 0.5, **settings: Any) -> PromptedNetwork:
    on = with_words()
    torch.manual_seed(0)
    prompt = SharedPrompt(torch.randn(2, 8))
    return PromptedNetwork(on, prompt.requires_grad_(False), keep, "coop", {**CoOp(**settings).parameters()})


def test_what_is_kept_lies_between_names_before_and_behind_the_prompt() -> None:
    whole, half, none = made(1.0), made(0.5), made(0.0)
    texts = [n.replace("_", " ") for n in NAMES]
    before = ZeroShot().build(with_words(), texts).head.weight
    torch.testing.assert_close(none.classifier(texts).head.weight, before)
    behind = Names(opened(with_words()), NAMES).read(whole.prompt.vectors)
    torch.testing.assert_close(whole.classifier(NAMES).head.weight, behind)
    assert not torch.allclose(behind, before, atol=1e-2)
    between = torch.nn.functional.normalize(behind + before, dim=1)
    torch.testing.assert_close(half.classifier(NAMES).head.weight, between)
    third = torch.nn.functional.normalize(behind + 2 * before, dim=1)
    torch.testing.assert_close(made(1 / 3).classifier(NAMES).head.weight, third)
    torch.testing.assert_close(half.untrained().classifier(texts).head.weight, before)
    assert len({n.encoder().fingerprint for n in (whole, half, none)}) == 3


def test_names_are_read_alike_alone_and_together() -> None:
    names = ("wren", "an oak tree in the rain", "sand", "old sand by the sea", "rain")
    tower, context = opened(with_words()), torch.randn(2, 8, generator=torch.Generator().manual_seed(1))
    together = Names(tower, names).read(context)
    alone = torch.cat([Names(tower, [name]).read(context) for name in names])
    torch.testing.assert_close(together, alone)
    several = Names(tower, names).read(torch.stack([context, 2 * context]))
    torch.testing.assert_close(several[0], together)
    torch.testing.assert_close(several[1], Names(tower, names).read(2 * context))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_folders(tmp_path_factory.mktemp("prompts"), 8)


def test_held_out_pictures_are_chosen_on_or_measured_on_and_shots_are_drawn(folders: Path) -> None:
    fitting = Fitting(
        with_words(), load_samples(folders), HoldOut(0.5, split="random"), None, None, None, Progress(), None
    )
    pictures = fitting.look()
    few = drawn(pictures, 2, 0, Progress())
    assert few.labels[~few.held].bincount().tolist() == [2, 2, 2]
    assert few.held.sum() == pictures.held.sum() == 12
    other = drawn(pictures, 2, 1, Progress())
    assert set(few.digests) != set(other.digests)
    one, two = (set(part.tolist()) for part in halved(few, 0))
    assert not one & two
    assert one | two == set(few.held.nonzero()[:, 0].tolist())
    assert {len(one), len(two)} == {6}
    said = Progress()
    drawn(pictures, 5, 0, said)
    assert said.notes == ["3 class(es) have fewer than 5 training pictures, for example moss"]


def test_training_lowers_the_loss_and_the_seed_decides(folders: Path) -> None:
    samples = load_samples(folders)
    how = CoOp(keep=1.0, epochs=12, batch_size=8, lr=0.5, n_bank=0)
    once, again, other = (replace(how, seed=s).fit(with_words(), samples) for s in (0, 0, 1))
    assert torch.equal(once.head.weight, again.head.weight)
    assert not torch.equal(once.head.weight, other.head.weight)
    short = replace(how, epochs=1).fit(with_words(), samples)
    assert once.measures["loss"] < short.measures["loss"]
    assert once.measures["n_chosen_on"] + once.measures["n_held_out"] > 0


def test_the_least_that_does_as_well_is_kept() -> None:
    found = [Kept(0, 0.5, 0.9), Kept(0.2, 0.7, 0.85), Kept(0.4, 0.7, 0.85), Kept(1, 0.8, 0.79)]
    assert choose(found, 0.1).keep == 0.2
    assert choose(found, 0.11).keep == 1
    assert choose([Kept(0, 0.5, None), Kept(1, 0.6, None)], 0.0).keep == 1


def test_an_encoder_without_tokens_is_refused(folders: Path) -> None:
    with pytest.raises(ModelError) as caught:
        CoOp().fit(tiny_cnn(), load_samples(folders))
    assert str(caught.value) == (
        "The text encoder of 'tiny' does not accept learnt prompts. Use the embedded encoder, or one whose name "
        "begins with 'open_clip:' or 'hf:'."
    )


def test_one_picture_of_each_class_leaves_none_to_choose_on(folders: Path) -> None:
    every = load_samples(folders)
    one = {s.label: s for s in every.items}
    with pytest.raises(DataError) as caught:
        CoOp(epochs=1).fit(with_words(), Samples(tuple(one.values()), every.classes))
    assert str(caught.value) == (
        "coop cannot choose `keep` on held-out pictures, because no class has 2 or more objects. Add pictures, give "
        "--validation, or set keep=1."
    )


def test_a_class_that_is_absent_where_it_is_measured_is_named(folders: Path) -> None:
    every, said = load_samples(folders), Progress()
    seen = Samples(tuple(s for s in every.items if "0.png" not in s.image), every.classes)
    other = Samples(tuple(s for s in every.of(["moss", "rust"])[0] if "0.png" in s.image), ("moss", "rust"))
    how = CoOp(keep=1.0, epochs=1, n_bank=0, split="random")
    how.fit(with_words(), seen, validation=other, progress=said)
    assert "1 class(es) have no held-out picture and are not evaluated, for example sky" in said.notes


def test_an_encoder_without_words_is_refused(folders: Path) -> None:
    mute = tiny_cnn()
    mute._text = None
    with pytest.raises(ModelError) as caught:
        CoOp().fit(mute, load_samples(folders))
    assert str(caught.value).startswith("The encoder 'tiny' has no text encoder. Use an image-text model:")


def test_one_class_is_refused(folders: Path) -> None:
    every = load_samples(folders)
    with pytest.raises(
        DataError,
        match=(
            r"At least two classes must have readable pictures, got 1\. Put the pictures of each "
            r"class into one folder\."
        ),
    ):
        CoOp().fit(with_words(), Samples(every.of(["moss"])[0], ("moss",)))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"keep": 1.5}, "`keep` of coop must be a number from 0 to 1, got 1.5."),
        ({"shots": 0}, "`shots` of coop must be a whole number of at least 1, got 0."),
    ],
)
def test_values_that_cannot_be(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        CoOp(**settings)
    assert str(caught.value).startswith(said)


def test_a_prompt_longer_than_is_read(folders: Path) -> None:
    with pytest.raises(InputError) as caught:
        CoOp(words="", n_tokens=9, keep=1.0, n_bank=0).fit(with_words(), load_samples(folders))
    assert str(caught.value) == (
        "The prompt must have between 1 and 8 vectors for this encoder, got 9. Shorten words, or lower n_tokens."
    )


def test_the_classifier_looks_as_before(folders: Path) -> None:
    on = with_words()
    fitted = CoOp(keep=0.5, epochs=1, n_bank=0).fit(on, load_samples(folders))
    assert torch.equal(fitted.encoder.encode(noise(2)).pooled, on.encode(noise(2)).pooled)
    assert fitted.encoder.looks == on.looks


def test_cocoop_tells_other_classes_each_picture_by_texts_of_its_own(folders: Path) -> None:
    on = with_words()
    fitted = CoCoOp(keep=1.0, epochs=1, n_bank=0, lr=0.5).fit(on, load_samples(folders))
    pooled = on.encode(noise(3)).pooled
    network: Any = fitted.network
    for keep, names in ((1.0, fitted.classes), (0.5, ("wren", "oak")), (0.0, ("wren", "oak"))):
        head = replace(network, keep=keep).classifier(names).head
        with torch.no_grad():
            found = head(pooled)
            image = torch.nn.functional.normalize(on.text.project(pooled), dim=1)
            rows = []
            for one in image:
                now = Names(opened(on), names).read(network.prompt.vectors + network.prompt.meta(one))
                before = as_it_was(on.text, names)
                text = keep * now + (1 - keep) * before
                rows.append(on.text.logit_scale * one @ torch.nn.functional.normalize(text, dim=1).T)
        torch.testing.assert_close(found, torch.stack(rows), atol=1e-4, rtol=1e-4)
    assert (network.prompt.meta[0].weight - torch.zeros(1)).abs().sum() > 0


class Stopped(Progress):
    """Killed at a step."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    def measured(self, step: int, terms: Any) -> None:
        if step == self.at:
            raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize("kind", [CoOp, PromptSRC, OGEN], ids=["coop", "promptsrc", "ogen"])
def test_stopped_and_run_again_it_ends_as_one_that_was_not(kind: Any, folders: Path, tmp_path: Path) -> None:
    how = kind(keep=1.0, epochs=24, batch_size=6, lr=0.2, n_bank=0)
    samples, checkpoint = load_samples(folders), tmp_path / "checkpoint"
    whole = how.fit(with_words(), samples)
    with pytest.raises(KeyboardInterrupt):
        how.fit(with_words(), samples, checkpoint=checkpoint, progress=Stopped(60))
    said = Progress()
    again = how.fit(with_words(), samples, checkpoint=checkpoint, progress=said)
    assert any("resuming at step 61" in note for note in said.notes)
    assert torch.equal(again.head.weight, whole.head.weight)
    other = Progress()
    replace(how, seed=1).fit(with_words(), samples, checkpoint=checkpoint, progress=other)
    assert any("belongs to another training" in note for note in other.notes)
