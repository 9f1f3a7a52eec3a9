"""Prompts in both towers: as the authors compute them, saved with the encoder they make, refused without tokens."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seewhy.classifiers.saving import load
from seewhy.encoders.base import Encoder
from seewhy.encoders.open_clip import split_visual, text_tower
from seewhy.encoders.split import weights_digest
from seewhy.errors import InputError, ModelError
from seewhy.learning.adaptation.prompt_recipe import Lesson
from seewhy.learning.adaptation.prompts import Names, as_it_was, begun
from seewhy.learning.adaptation.tower_prompts import (
    ConsistentTowers,
    MaPLe,
    PromptSRCTowers,
    TowerPrompt,
    TowerPromptedNetwork,
    Towers,
    TowerTask,
)
from seewhy.learning.adaptation.word_prompts import epoch_weights
from seewhy.pictures.samples import load_samples
from seewhy.studies.forgetting import forgetting
from seewhy.training.batches import Batch, TrainingData
from seewhy.training.loop import Training, train
from tiny import TRANSFORM, class_folders
from tiny_words import opened, opened_vit

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "maple.json").read_text("utf-8"))
CLOSE = {"atol": GOLDEN["tolerance"], "rtol": 1e-3}


@pytest.fixture(scope="module")
def authors() -> Encoder:
    """The pair that the golden numbers were made with, weights drawn in the same order."""
    open_clip = pytest.importorskip("open_clip")
    text = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 3}
    vision = {"image_size": 32, "layers": 3, "width": 64, "patch_size": 16}
    model = open_clip.CLIP(16, vision, text, quick_gelu=True).eval().requires_grad_(False)
    generator, state = torch.Generator().manual_seed(GOLDEN["seed"]), model.state_dict()
    for name in sorted(state):
        if name == "logit_scale":
            state[name] = torch.tensor(math.log(20.0))
            continue
        value = torch.randn(state[name].shape, generator=generator) * 0.3
        norm = name.endswith(tuple(f"{n}.weight" for n in ("ln_1", "ln_2", "ln_pre", "ln_post", "ln_final")))
        state[name] = value + 1 if norm else value
    model.load_state_dict(state)
    split, projection = split_visual(model.visual, (32, 32), "golden")
    words = text_tower(model, open_clip.SimpleTokenizer(), "golden", projection)
    return Encoder(
        name="golden",
        transform=TRANSFORM,
        trunk=lambda: split.trunk,
        head=split.head,
        layout=split.layout,
        fingerprint=weights_digest(state),
        text=lambda: words,
        module=lambda: model.visual,
        engine="torch",
    )


def drawn() -> Any:
    """Numbers in the order in which the authors' prompts were drawn."""
    generator = torch.Generator().manual_seed(GOLDEN["prompts_seed"])
    return lambda *shape: torch.randn(*shape, generator=generator) * 0.3


def golden_batch() -> Batch:
    pixels = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(GOLDEN["pixels_seed"]))
    return Batch([*range(4)], {"pixels": pixels, "labels": torch.tensor(GOLDEN["labels"])})


def close(ours: Tensor | None, theirs: Any) -> None:
    assert ours is not None
    torch.testing.assert_close(ours, torch.tensor(theirs), **CLOSE)


def test_maple_against_the_authors(authors: Encoder) -> None:
    """Two of three layers have vectors of their own, which then travel on."""
    draw, towers, expected = drawn(), Towers.of(authors), GOLDEN["maple"]
    prompt = TowerPrompt.begun(towers, "a photo", 2, expected["depth"], None)
    prompt.deeper[0].data = draw(2, 16)
    for one in prompt.maps:
        assert isinstance(one, nn.Linear)
        one.weight.data, one.bias.data = draw(64, 16), draw(64)
    task, batch = TowerTask(towers, prompt, Names(towers.text, GOLDEN["classes"])), golden_batch()
    image, text = task.features(batch)
    terms = task.loss((image, text), batch)
    terms["loss"].backward()
    close(image, expected["image"])
    close(towers.text.logit_scale * image @ text.T, expected["logits"])
    assert terms["loss"].item() == pytest.approx(expected["loss"], abs=1e-3)
    close(prompt.vectors.grad, expected["gradient"])
    close(prompt.deeper[0].grad, expected["deeper_gradient"])
    close(torch.stack([one.weight.grad.sum(0) for one in prompt.maps]), expected["map_gradients"])  # type: ignore[union-attr,operator,misc]


def test_promptsrc_against_the_authors(authors: Encoder) -> None:
    """All three layers, the last one too; texts and pictures are held near what they were."""
    draw, towers, expected = drawn(), Towers.of(authors), GOLDEN["promptsrc"]
    drawn_before = [draw(2, 16), draw(64, 16), draw(64), draw(64, 16), draw(64)]
    vectors = [draw(2, 16) for _ in range(3)]
    assert len(drawn_before) == 5
    prompt = TowerPrompt(vectors[0], vectors[1:], own=[draw(4, 64) for _ in range(3)])
    classes, batch = tuple(GOLDEN["classes"]), golden_batch()
    lesson = Lesson(authors, classes, Names(towers.text, classes), torch.zeros(4, 16), batch["labels"], 1, 1, 0.1)
    task = ConsistentTowers(towers, prompt, lesson, PromptSRCTowers())
    image, text = task.features(batch)
    terms = task.loss((image, text), batch)
    terms["loss"].backward()
    close(towers.text.logit_scale * image @ text.T, expected["logits"])
    assert terms["loss"].item() == pytest.approx(expected["loss"], abs=2e-3)
    close(prompt.vectors.grad, expected["gradient"])
    close(prompt.deeper[1].grad, expected["deeper_gradient"])
    close(torch.stack([one.grad.sum(1) for one in prompt.own]), expected["image_gradients"])  # type: ignore[union-attr]
    lighter = ConsistentTowers(towers, prompt, lesson, PromptSRCTowers(image_weight=0.0)).loss((image, text), batch)
    assert (terms["loss"] - lighter["loss"]).item() == pytest.approx(expected["image_term"], abs=1e-3)


def test_an_encoder_of_its_own_that_keeps_its_grid(authors: Encoder) -> None:
    towers = Towers.of(authors)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        prompt = TowerPrompt.begun(towers, "", 2, 3, 4)
    prompt.requires_grad_(False)
    network = TowerPromptedNetwork(authors, prompt, 1.0, "promptsrc_towers", {})
    made, pixels = network.encoder(), golden_batch()["pixels"]
    seen = made.encode(pixels)
    assert seen.features.shape == (4, 4 + 4 + 1, 64)
    assert made.layout.to_grid(seen.features).shape == (4, 64, 2, 2)
    assert made.fingerprint != authors.fingerprint
    assert not torch.allclose(seen.pooled, authors.encode(pixels).pooled, atol=1e-3)
    plain = network.untrained().encoder()
    assert torch.equal(plain.encode(pixels).pooled, authors.encode(pixels).pooled)
    torch.testing.assert_close(plain.encode_text(["wren"]), as_it_was(authors.text, ["wren"]))
    again = TowerPromptedNetwork.restore(authors, network.facts(), network.tensors())
    assert torch.equal(again.encoder().encode_image(pixels), made.encode_image(pixels))
    assert torch.equal(again.encoder().encode_text(["wren"]), made.encode_text(["wren"]))
    torch.testing.assert_close(made.encode_text(["wren"]), prompt.texts(Names(towers.text, ["wren"])))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"own.3": torch.zeros(4, 64)}, "4 sets of vectors"),
        ({"vectors": torch.zeros(2, 8)}, "different shapes"),
        ({f"own.{i}": torch.zeros(4, 8) for i in range(3)}, "widths"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(authors: Encoder, change: dict[str, Tensor], said: str) -> None:
    prompt = TowerPrompt.begun(Towers.of(authors), "", 2, 3, 4)
    network = TowerPromptedNetwork(authors, prompt, 1.0, "promptsrc_towers", {})
    with pytest.raises(ValueError, match=said):
        TowerPromptedNetwork.restore(authors, network.facts(), network.tensors() | change)


def test_maps_of_deeper_layers_begin_alike_and_another_than_the_first(authors: Encoder) -> None:
    maps = TowerPrompt.begun(Towers.of(authors), "a photo", 2, 3, None).maps
    assert isinstance(maps[0], nn.Linear)
    assert isinstance(maps[1], nn.Linear)
    assert isinstance(maps[2], nn.Linear)
    assert torch.equal(maps[1].weight, maps[2].weight)
    assert not torch.equal(maps[0].weight, maps[1].weight)


def test_what_each_begins_with(authors: Encoder) -> None:
    towers, classes = Towers.of(authors), tuple(GOLDEN["classes"])
    lesson = Lesson(authors, classes, Names(towers.text, classes), torch.zeros(4, 16), torch.arange(4), 4, 1, 0.1)
    prompt: Any = MaPLe(depth=2).task(lesson).prompt
    assert (prompt.depth, len(prompt.maps), len(prompt.own)) == (2, 2, 0)
    torch.testing.assert_close(prompt.vectors.detach(), begun(towers.text, "a photo", 2))
    task: Any = PromptSRCTowers(depth=3, n_image=5, text_weight=2.0, image_weight=3.0, epoch_std=0.5).task(lesson)
    assert (task.prompt.depth, task.prompt.n_image, task.weights_held) == (3, 5, (2.0, 3.0))
    assert task.weights == epoch_weights(4, 3.0, 2.0)


def test_it_learns_and_ends_at_the_average_of_its_epochs() -> None:
    on, classes = opened_vit(), ("moss", "rust", "sky")
    towers, labels = Towers.of(on), torch.arange(12) % 3
    pixels = torch.randn(12, 3, *TRANSFORM.input_size, generator=torch.Generator().manual_seed(0))
    lesson = Lesson(on, classes, Names(towers.text, classes), torch.zeros(12, 16), labels, 4, 3, 0.1)
    data, kept = TrainingData(12, {"pixels": pixels, "labels": labels}), []

    class Watched(ConsistentTowers):
        def after_step(self) -> None:
            kept.append(self.prompt.vectors.detach().clone())
            super().after_step()

    with torch.random.fork_rng():
        torch.manual_seed(0)
        prompt = TowerPrompt.begun(towers, "a photo", 2, 1, 3)
    task = Watched(towers, prompt, lesson, PromptSRCTowers(text_weight=0.0, image_weight=0.0))
    done = train(task, data, Training(12, 4, "sgd", lr=0.1, schedule="constant", weight_decay=0.0))
    torch.testing.assert_close(prompt.vectors, sum(w * kept[3 * i + 2] for i, w in enumerate(task.weights)))
    assert done.history[-1]["loss"] < done.history[0]["loss"]
    assert not any(p.requires_grad for p in on.trunk.parameters())


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_folders(tmp_path_factory.mktemp("classes"))


def test_saved_and_loaded_it_sees_and_tells_the_same(folders: Path, tmp_path: Path) -> None:
    on = opened_vit()
    made = MaPLe(depth=1, epochs=2, lr=0.1).fit(on, load_samples(folders))
    assert made.held_out is not None
    assert made.held_out.before is not None
    assert not torch.allclose(made.held_out.before, made.held_out.pooled)
    made.save(tmp_path / "model")
    again = load(tmp_path / "model", encoder=on)
    pixels = golden_batch()["pixels"]
    seen = [one.head(one.encoder.encode(pixels).pooled) for one in (again, made)]
    assert torch.equal(*seen)
    rows = {row["measure"]: row for row in forgetting(made)}
    zero = as_it_was(on.text, made.classes)
    image = torch.nn.functional.normalize(on.text.project(made.held_out.before), dim=1)
    right = ((image @ zero.T).argmax(1) == made.held_out.labels).float().mean().item()
    assert rows["these classes"]["before"] == pytest.approx(right, abs=1e-4)
    assert set(again.network.classifier(("oak", "wren")).classes) == {"oak", "wren"}  # type: ignore[union-attr]


def test_an_encoder_without_tokens_is_refused(folders: Path) -> None:
    with pytest.raises(ModelError) as found:
        MaPLe().fit(opened(), load_samples(folders))
    assert str(found.value) == (
        "The image encoder of 'tiny' does not accept prompts. Use a vision transformer whose name begins with "
        "'open_clip:' or 'hf:', or a method that changes only the text encoder, such as --method coop."
    )


def test_layers_that_are_not_there_are_refused(authors: Encoder, folders: Path) -> None:
    with pytest.raises(InputError) as found:
        Towers.of(authors).check(4)
    assert str(found.value) == (
        "`depth` must be between 1 and 3 for 'golden', whose image and text encoders have 3 and 3 layers, got 4."
    )
    with pytest.raises(
        ModelError, match=r"^`depth` must be 1 for 'tiny vit', whose text encoder has no known layers, got 2\."
    ):
        PromptSRCTowers(depth=2).fit(opened_vit(), load_samples(folders))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"keep": 0.5}, "`keep` must be 0 .*for maple, got 0.5"),
        ({"depth": 0}, "`depth` of maple must be .*, got 0"),
        ({"lr": 0.0}, "`lr` of maple must be .*, got 0"),
        ({"shots": 0}, "`shots` of maple must be .*, got 0"),
    ],
)
def test_values_that_cannot_be(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        MaPLe(**settings)
    with pytest.raises(InputError, match=r"`image_weight` of promptsrc_towers must be .*, got -1"):
        PromptSRCTowers(image_weight=-1)
