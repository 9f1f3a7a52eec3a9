"""The attention of class prompts: in the right columns, on what sets a class apart, and nowhere without prompts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from seewhy.attributions import attributions
from seewhy.attributions.attention import run_with_attention
from seewhy.attributions.attention_rollout import AttentionRollout
from seewhy.attributions.grad_cam import GradCAM
from seewhy.classifiers.base import Classifier
from seewhy.classifiers.unfitted import Pretrained
from seewhy.encoders.base import EncoderOutput
from seewhy.errors import InputError
from seewhy.explanation.base import Where
from seewhy.heads.head import Head, Target
from seewhy.heads.normalise import Normalise
from seewhy.learning.self_explaining.prompt_cam.network import PromptCAM, PromptCAMNetwork, Prompts, rank_heads
from seewhy.learning.self_explaining.prompt_cam.recipe import PromptCAM as Recipe
from seewhy.pictures.samples import load_samples
from tiny import SIDE, noise, tiny_cnn
from tiny_transformer import tiny_network, tiny_vit

SQUARE = 8
COLOURED = ("red", "green", "blue")


def classifier_of(network: PromptCAMNetwork) -> Classifier:
    n = len(network.prompts.own)
    classes = tuple(f"class {i}" for i in range(n))
    return Classifier(
        "prompt_cam", {}, network.encoder(), classes, Head(Normalise(), torch.eye(n, n + 16)), network=network
    )


def looking_for(signs: list[float], **options: Any) -> Classifier:
    """A last block in which class ``c`` attends to tokens along ``signs[c]`` times one direction, in both heads."""
    network = tiny_network(**options)
    block: Any = network.blocks[-1]
    with torch.no_grad():
        block.norm1.weight.fill_(1)
        block.norm1.bias.zero_()
        block.attn.qkv.bias.zero_()
        block.attn.qkv.weight.zero_()
        block.attn.qkv.weight[:32] = 5 * torch.eye(16).repeat(2, 1)  # queries and keys are the tokens themselves
    prompts = Prompts(0, len(signs), 16)
    with torch.no_grad():
        prompts.own.copy_(torch.tensor(signs)[:, None] * pattern())
    return classifier_of(PromptCAMNetwork(tiny_vit(network), 2, prompts))


def pattern() -> torch.Tensor:
    return torch.tensor([1.0, -1.0]).repeat(8)


@pytest.mark.parametrize("options", [{}, {"reg_tokens": 4}, {"class_token": False, "global_pool": "avg"}])
@pytest.mark.parametrize(("row", "column"), [(0, 0), (1, 3), (2, 0), (3, 3)])
def test_columns_are_those_of_the_patches(options: dict[str, Any], row: int, column: int) -> None:
    """Prompts, class token and registers come first; one column off would be one cell off."""
    model = looking_for([1.0, -1.0], **options)
    prefix = model.encoder.layout.prefix
    assert prefix == {"{}": 1, "{'reg_tokens': 4}": 5}.get(str(options), 0)
    tokens = torch.zeros(1, prefix + 16, 16)
    tokens[0, prefix + 4 * row + column] = pattern()
    look = EncoderOutput(tokens, model.encoder.head(tokens))
    heat = PromptCAM()(model, look, Target(torch.tensor([0])))[0]
    assert divmod(int(heat.argmax()), 4) == (row, column)
    # The prompt of the class attends to itself as much as to the patch: the mass that is missing is there.
    assert heat[row, column] == pytest.approx(0.5, abs=1e-3)
    assert float(heat.sum()) == pytest.approx(0.5, abs=1e-3)
    # The other class's prompt looks away from it, and the contrast says so.
    other = PromptCAM()(model, look, Target(torch.tensor([1])))[0]
    assert other[row, column] < 1e-3
    contrast = PromptCAM()(model, look, Target(torch.tensor([0]), torch.tensor([1])))[0]
    torch.testing.assert_close(contrast, heat - other)


def test_maps_are_parts_of_one() -> None:
    torch.manual_seed(0)
    model = classifier_of(PromptCAMNetwork(tiny_vit(num_heads=4), 0, Prompts(0, 3, 16)))
    look = model.encoder.encode(noise(3))
    heads = PromptCAM().heads_of(model, look, torch.tensor([0, 1, 2]))
    assert heads.shape == (3, 4, 4, 4)
    assert bool((heads > 0).all())
    assert bool((heads.sum((2, 3)) < 1).all())
    whole = PromptCAM(n_heads=4)(model, look, Target(torch.tensor([0, 1, 2])))
    torch.testing.assert_close(whole, heads.mean(1))
    ranked = rank_heads(model.encoder.head, look.features, torch.tensor([0, 1, 2]), 16)  # type: ignore[arg-type]
    best = torch.stack([heads[i, r.order[0]] for i, r in enumerate(ranked)])
    torch.testing.assert_close(PromptCAM(n_heads=1)(model, look, Target(torch.tensor([0, 1, 2]))), best)


FORMS = [(2, 2), (2, 0), (0, 0), (1, 1), (1, 0)]
"""Where the classes' prompts enter, and layers before it with others."""


def grown(first: int, n_early: int) -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return classifier_of(PromptCAMNetwork(tiny_vit(reg_tokens=1), first, Prompts(n_early, 3, 16)))


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_rollout_follows_tokens_through_prompts(form: tuple[int, int]) -> None:
    """The same by one set of all tokens there ever are, on which a layer leaves those it does not see as they are."""
    model = grown(*form)
    first, n_early = form
    look = model.encoder.encode(noise(2))
    names = [*(f"early {i}" for i in range(n_early)), "own"]
    places = {name: list(range(3 * i, 3 * i + 3)) for i, name in enumerate(names)}
    base = list(range(3 * len(names), 3 * len(names) + 18))  # class token, register, patches
    for seen in run_with_attention("x", model, look, 2):
        total = torch.eye(len(base) + 3 * len(names)).expand(2, -1, -1)
        for layer, weights in enumerate(seen.maps):
            put = places[f"early {layer}"] if layer < n_early else places["own"] if layer >= first else []
            there = torch.tensor([*put, *base])
            step = torch.eye(total.shape[1]).repeat(2, 1, 1)
            step[:, there[:, None], there] = AttentionRollout().residual(weights.detach())
            total = step @ total
        read = torch.tensor([*places["own"], base[0]])  # what is pooled: the prompts and the class token
        expected = total[:, read].mean(1)[:, base[2:]].unflatten(1, (4, 4))
        maps = AttentionRollout()(model, look, Target(torch.tensor([0, 1])))
        torch.testing.assert_close(maps, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("form", [(2, 2), (0, 0)], ids=["deep", "shallow"])
def test_every_attribution_works_on_it(form: tuple[int, int]) -> None:
    model = grown(*form)
    look = model.encoder.encode(noise(2))
    small = {"rise": {"n_masks": 8}, "smooth_grad": {"n_samples": 2}, "gradient_shap": {"n_samples": 2}}
    for name in attributions:
        if (
            attributions[name].needs_training
            or attributions[name].needs_words
            or attributions[name].recipe not in ("", "prompt_cam")
        ):
            continue
        method: Any = attributions[name]
        own, other = (
            method(**small.get(name, {}))(model, look, Target(torch.tensor(t), torch.tensor(a)))
            for t, a in (([0, 1], [2, 2]), ([2, 2], [0, 1]))
        )
        assert own.shape[0] == 2
        assert own.isfinite().all()
        # FullGrad takes the size of what speaks either way: one class against another is the other against it. So does
        # Eigen-Grad-CAM before a layer norm, where what speaks for a class adds up to nothing.
        either = ("attention_rollout", "eigen_cam", "eigen_grad_cam", "kpca_cam", "full_grad")
        assert name in either or not torch.equal(own, other)


def planted(label: str, seed: int, side: int = SIDE) -> tuple[np.ndarray, tuple[int, int]]:
    """Grey noise with one coloured square, whose colour is the class, in a cell drawn at random; none for ``plain``."""
    rng = np.random.default_rng([len(label), seed])
    pixels = rng.normal(128, 12, (side, side, 3))
    row, column = (int(v) for v in rng.integers(0, side // SQUARE, 2))
    colour = {"red": (230, 40, 40), "blue": (40, 40, 230), "green": (40, 220, 40)}.get(label)
    if label != "plain":
        pixels[row * SQUARE : (row + 1) * SQUARE, column * SQUARE : (column + 1) * SQUARE] = colour
    return pixels.clip(0, 255).astype(np.uint8), (row, column)


def colour_transformer() -> VisionTransformer:
    """Tokens are the mean colours of patches beside constants; the last block compares and hands on tokens as they are.

    The first block does nothing, and there is no MLP.
    """
    network = VisionTransformer(
        img_size=SIDE, patch_size=SQUARE, embed_dim=16, depth=2, num_heads=2, num_classes=4, reg_tokens=2
    )
    constant = torch.tensor([0.0, 0.0, 0.0, 1.0, -1.0, 1.0, -1.0, 0.0]).repeat(2)
    eye = torch.eye(16)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        for module in network.modules():
            if isinstance(module, nn.LayerNorm):
                module.weight.fill_(1)
        for channel in range(3):
            network.patch_embed.proj.weight[[channel, 8 + channel], channel] = 1 / SQUARE**2
        network.pos_embed.add_(constant)
        last: Any = network.blocks[-1].attn
        last.qkv.weight.copy_(torch.cat([1.5 * eye, 1.5 * eye, 4 * eye]))
        last.proj.weight.copy_(eye)
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    """Prompts trained to tell the colour of a square; "plain" is there because one class may be told by elimination."""
    folder = tmp_path_factory.mktemp("planted")
    for label in (*COLOURED, "plain"):
        (folder / label).mkdir()
        for i in range(20):
            Image.fromarray(planted(label, i)[0]).save(folder / label / f"{i}.png")
    encoder = tiny_vit(colour_transformer())
    recipe = Recipe(epochs=40, batch_size=16, optimiser="adamw", lr=0.1, n_bank=8, dropout=0.0)
    return recipe.fit(encoder, load_samples(folder))


def test_the_true_prompt_attends_to_what_decides(trained: Classifier) -> None:
    assert trained.measures["held_out_accuracy"] > 0.9
    for label in COLOURED:
        for seed in range(100, 110):
            pixels, cell = planted(label, seed)
            look = trained.encoder.encode(trained.encoder.pixels([pixels]))
            maps = {k: PromptCAM()(trained, look, Target(torch.tensor([trained.index_of(k)])))[0] for k in COLOURED}
            assert divmod(int(maps[label].argmax()), 4) == cell
            assert all(maps[label][cell] > 3 * maps[k][cell] for k in COLOURED if k != label)


def test_it_is_what_explain_shows(trained: Classifier) -> None:
    pixels, (row, column) = planted("red", 200)
    why = trained.explain(pixels)
    assert isinstance(why.where, Where)
    assert why.where.method == "prompt_cam"
    assert divmod(int(why.where.heat.argmax()), 4) == (row, column)
    assert why.where.verdict.level == "believable"
    assert trained.explain(pixels, where="grad_cam", measure=False).where.method == "grad_cam"  # type: ignore[union-attr]


def test_other_classifiers_are_refused() -> None:
    model = Pretrained().build(tiny_cnn())
    with pytest.raises(InputError) as caught:
        PromptCAM()(model, model.encoder.encode(noise(1)), Target(torch.tensor([0])))
    assert str(caught.value) == (
        "prompt_cam can only explain a prompt_cam classifier, got another classifier on 'tiny'. Use "
        "grad_cam, or fit a classifier with: seewhy fit --method prompt_cam"
    )


def test_other_functions_of_the_logits_are_refused(trained: Classifier) -> None:
    look = trained.encoder.encode(noise(1))
    with pytest.raises(InputError) as caught:
        PromptCAM()(trained, look, lambda logits: logits.logsumexp(1))
    assert str(caught.value) == (
        "prompt_cam can only explain a class, got another target. Give a class, or use grad_cam."
    )
    assert GradCAM()(trained, look, lambda logits: logits.logsumexp(1)).shape == (1, 4, 4)


@pytest.mark.parametrize("wrong", [{"n_heads": 0}, {"flatten": "rows"}])
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=" of prompt_cam must be"):
        PromptCAM(**wrong)
