"""Prompt-CAM: the authors' numbers, prompts inside every family of transformers, and a training that can be stopped."""

from __future__ import annotations

import copy
import json
import math
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor, nn

from seewhy.classifiers.encoded_set import EncodedSet
from seewhy.classifiers.saving import load
from seewhy.descriptions import Descriptions
from seewhy.encoders.base import Encoder
from seewhy.encoders.huggingface import split_tower
from seewhy.encoders.open_clip import split_visual
from seewhy.encoders.stream import file_digest
from seewhy.encoders.timm import split_timm
from seewhy.errors import InputError, ModelError
from seewhy.learning.self_explaining.prompt_cam.network import (
    PromptCAMNetwork,
    Prompts,
    flattened_scores,
    rank_heads,
    run_last_block,
)
from seewhy.learning.self_explaining.prompt_cam.recipe import PromptCAM
from seewhy.pictures.samples import Samples, load_samples, split
from seewhy.progress import Progress
from seewhy.storage.features import FeatureStore
from seewhy.training.batches import Batch, TrainingData
from seewhy.training.loop import Training, train
from seewhy.training.task import Task
from tiny import CLASSES, SIDE, build, class_folders, noise, picture, tiny_cnn, tiny_tokens
from tiny_transformer import tiny_network, tiny_vit, waves

T = TypeVar("T")
GOLDEN: dict[str, Any] = json.loads((Path(__file__).parents[1] / "golden" / "prompt_cam.json").read_text("utf-8"))
QUICK: dict[str, Any] = {"epochs": 3, "batch_size": 4, "lr": 0.05, "n_bank": 6}


def wave(shape: tuple[int, ...], shift: float, size: float) -> Tensor:
    numbers = torch.arange(math.prod(shape), dtype=torch.float64) * 1.3 + shift
    return (size * torch.sin(numbers)).float().reshape(shape)


def prompts_of(n_early: int, own: int, width: int = 16, n: int = 5, layers: int = 3) -> Prompts:
    """The golden ones: of all layers, those of ``own`` are the classes'."""
    made = Prompts(n_early, n, width)
    values = wave((layers, n, width), 7, 1.5)
    with torch.no_grad():
        for parameter, value in zip(made.early, values, strict=False):
            parameter.copy_(value)
        made.own.copy_(values[own])
        made.weight.copy_(wave((1, width), 2, 4.0))
    return made


FORMS = {"deep": (2, 2), "shallow": (0, 0), "last": (2, 0)}
"""Where the classes' prompts enter, and how many layers before it have others."""


def golden_network(form: str) -> PromptCAMNetwork:
    network = tiny_network(num_heads=4)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "qkv.weight" in name:
                parameter.mul_(4)
    first, n_early = FORMS[form]
    return PromptCAMNetwork(tiny_vit(network), first, prompts_of(n_early, first))


@pytest.mark.parametrize("form", FORMS)
def test_scores_and_attention_are_the_authors(form: str) -> None:
    encoder = golden_network(form).encoder()
    look = encoder.encode(waves(2))
    scores = torch.tensor(GOLDEN[form]["scores"])
    assert scores.std() > 0.1
    torch.testing.assert_close(look.pooled[:, :5], scores, atol=GOLDEN["tolerance"], rtol=1e-5)
    weights = run_last_block(encoder.head, look.features)[1]  # type: ignore[arg-type]
    expected = torch.tensor(GOLDEN[form]["attention"])
    assert expected.std() > 0.01
    torch.testing.assert_close(weights[:, :, :5, -16:], expected, atol=GOLDEN["tolerance"], rtol=1e-4)


def test_greedy_ranking_is_the_authors() -> None:
    encoder = golden_network("deep").encoder()
    look = encoder.encode(waves(2))
    orders = set()
    for known in GOLDEN["ranking"]:
        tokens = look.features[known["picture"] :][:1]
        found = rank_heads(encoder.head, tokens, torch.tensor([known["class"]]), 16)[0]  # type: ignore[arg-type]
        assert found.order == tuple(reversed(known["pruned"]))
        assert found.probability[1:] == pytest.approx(known["probability"], abs=GOLDEN["tolerance"])
        orders.add(found.order)
    assert len(orders) > 1


def test_ranking_counts_the_heads_a_class_needs() -> None:
    encoder = golden_network("deep").encoder()
    head: Any = encoder.head
    look = encoder.encode(waves(1))
    label = int(look.pooled[0, :5].argmax())
    found = rank_heads(head, look.features, torch.tensor([label]), 16, "patches")[0]
    flat = torch.zeros(5, 4, dtype=torch.bool)
    for step, one in enumerate(reversed(found.order)):
        flat[step + 1 :, one] = True
    index, tokens = torch.full((5,), label), look.features.expand(5, -1, -1)
    scores = flattened_scores(head, tokens, index, flat, 16, "patches")
    assert scores.softmax(1)[:, label].tolist() == pytest.approx(found.probability)
    keys = rank_heads(head, look.features, torch.tensor([label]), 16)[0]
    assert max(abs(a - b) for a, b in zip(keys.probability, found.probability, strict=True)) > 1e-3
    # A class that is not the predicted one needs them all.
    assert rank_heads(head, look.features, torch.tensor([(label + 1) % 5]), 16)[0].n_needed == 4


def with_hooks(
    network: nn.Module, blocks: Any, norm: nn.Module, prompts: Prompts, form: tuple[int, int], pixels: Tensor
) -> Tensor:
    """The same scores by hooks on the network itself, which is told about more tokens where it counts them."""
    first, n_early = form
    n, found, handles = len(prompts.own), [], []

    def put(own: Tensor) -> Any:
        return lambda _m, args: (torch.cat([own.expand(len(pixels), -1, -1), args[0]], 1), *args[1:])

    def strip(_m: nn.Module, _a: Any, out: Any) -> Any:
        return (out[0][:, n:], *out[1:]) if isinstance(out, tuple) else out[:, n:]

    def keep(_m: nn.Module, _a: Any, out: Any) -> Any:
        tokens = out[0] if isinstance(out, tuple) else out
        found.append((norm(tokens[:, :n]) * prompts.weight).sum(2))
        return (tokens[:, n:], *out[1:]) if isinstance(out, tuple) else tokens[:, n:]

    for i, block in enumerate(blocks):
        if i < n_early:
            handles += [block.register_forward_pre_hook(put(prompts.early[i])), block.register_forward_hook(strip)]
        elif i == first:
            handles.append(block.register_forward_pre_hook(put(prompts.own)))
        for part in block.modules() if i < n_early or i >= first else ():
            if isinstance(getattr(part, "num_prefix_tokens", None), int):
                part.num_prefix_tokens += n
    handles.append(blocks[-1].register_forward_hook(keep))
    with torch.no_grad():
        network(pixels)
    for handle in handles:
        handle.remove()
    return found[0]


def families() -> dict[str, Any]:
    """Name → (network, its blocks and norm, encoder)."""
    import open_clip
    import timm
    import transformers as t

    torch.manual_seed(0)
    found: dict[str, Any] = {}

    def add(name: str, network: nn.Module, blocks: Any, norm: nn.Module, split: Any, width: int) -> None:
        encoder = build(split.trunk, split.head, split.layout, width, name=name)
        found[name] = (copy.deepcopy(network), blocks, norm, encoder, width)

    for name, options in {
        "timm": {},
        "timm registers": {"reg_tokens": 4, "no_embed_class": True},
        "timm qk-norm": {"qk_norm": True, "init_values": 0.3},
        "timm mean": {"global_pool": "avg", "class_token": False},
    }.items():
        vit = tiny_network(**options)
        norm = "fc_norm" if "mean" in name else "norm"
        add(name, vit, "blocks", norm, split_timm(vit, (SIDE, SIDE), name)[0], 16)
    dino = timm.create_model("vit_small_patch16_dinov3", img_size=64, embed_dim=32, depth=3, num_heads=2).eval()
    found["timm rope"] = (copy.deepcopy(dino), "blocks", "norm", _big(split_timm(dino, (64, 64), "rope")[0], 32), 32)
    vision: dict[str, Any] = {"image_size": SIDE, "patch_size": 8, "hidden_size": 16, "num_hidden_layers": 3}
    vision |= {"num_attention_heads": 2, "intermediate_size": 32}
    hf = t.ViTModel(t.ViTConfig(**vision), add_pooling_layer=False).eval()
    add("hf vit", hf, "encoder.layer" if hasattr(hf, "encoder") else "layers", "layernorm", _hf(hf), 16)
    reg = t.Dinov2WithRegistersModel(t.Dinov2WithRegistersConfig(**vision, num_register_tokens=3)).eval()
    add("hf registers", reg, "encoder.layer", "layernorm", _hf(reg), 16)
    clip = {"image_size": SIDE, "layers": 3, "width": 16, "head_width": 8, "patch_size": 8}
    text = {"context_length": 8, "vocab_size": 50, "width": 16, "heads": 2, "layers": 1}
    visual = open_clip.CLIP(8, clip, text).eval().requires_grad_(False).visual
    add("open_clip", visual, "transformer.resblocks", "ln_post", split_visual(visual, (SIDE, SIDE), "clip")[0], 16)
    return found


def _hf(model: Any) -> Any:
    return split_tower(model.requires_grad_(False), None, (SIDE, SIDE), "hf")[0]


def _big(split: Any, width: int) -> Encoder:
    from dataclasses import replace

    encoder = build(split.trunk, split.head, split.layout, width)
    encoder.transform = replace(encoder.transform, input_size=(64, 64), resize=(64, 64))
    return encoder


@pytest.fixture(scope="module")
def family() -> dict[str, Any]:
    return families()


NAMES = ("timm", "timm registers", "timm qk-norm", "timm mean", "timm rope", "hf vit", "hf registers", "open_clip")


@pytest.mark.parametrize("form", [(2, 2), (2, 0), (0, 0), (1, 1)], ids=["deep", "last", "shallow", "between"])
@pytest.mark.parametrize("name", NAMES)
def test_prompts_enter_every_family(family: dict[str, Any], name: str, form: tuple[int, int]) -> None:
    network, blocks, norm, encoder, width = family[name]
    prompts = prompts_of(form[1], form[0], width)
    pixels = torch.randn(2, 3, *encoder.transform.input_size, generator=torch.Generator().manual_seed(1))
    grown = PromptCAMNetwork(encoder, form[0], prompts).encoder()
    scores = grown.encode(pixels).pooled
    twin = copy.deepcopy(network)
    expected = with_hooks(twin, twin.get_submodule(blocks), twin.get_submodule(norm), prompts, form, pixels)
    assert expected.std() > 1e-3
    torch.testing.assert_close(scores[:, :5], expected, atol=1e-5, rtol=1e-4)
    grid = grown.layout.to_grid(grown.forward_features(pixels))
    assert grid.shape[2:] == encoder.layout.grid
    # One by one is a batch, and the base is as it was.
    torch.testing.assert_close(scores[1:], grown.encode(pixels[1:]).pooled, atol=1e-5, rtol=1e-4)


def test_parameters_start_as_published() -> None:
    made = Prompts(11, 200, 768, 256.0)
    assert sum(p.numel() for p in made.parameters()) == 12 * 200 * 768 + 768  # theirs has a bias, which cancels
    bound = math.sqrt(6 / (3 * 256 + 768))
    values = torch.cat([p.detach().flatten() for p in (*made.early, made.own)])
    assert 0.999 * bound < values.abs().max() <= bound
    assert abs(float(values.mean())) < 1e-3
    assert float(made.weight.detach().abs().max()) <= 768**-0.5


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    return load_samples(class_folders(tmp_path_factory.mktemp("data"), 5))


@pytest.mark.parametrize(
    "options", [{}, {"variant": "deep"}, {"variant": "shallow"}, {"variant": "deep", "first": 1}, {"shared": False}]
)
def test_saved_and_loaded_it_is_the_same(options: dict[str, Any], samples: Samples, tmp_path: Path) -> None:
    encoder = tiny_vit(reg_tokens=2)
    weights = {k: v.clone() for k, v in encoder.trunk.state_dict().items()}
    made = PromptCAM(**QUICK, **options).fit(encoder, samples)
    again = load(made.save(tmp_path / "model"), encoder=encoder)
    assert again.encoder.fingerprint == made.encoder.fingerprint != encoder.fingerprint
    assert torch.equal(again.probabilities(noise(3)), made.probabilities(noise(3)))
    before, after = (m.explain(picture("rust", 1)).to_json() for m in (made, again))
    assert after == before
    assert before["where"]["method"] == "prompt_cam"
    assert all(torch.equal(v, weights[k]) for k, v in encoder.trunk.state_dict().items())
    assert not any(p.requires_grad for p in made.encoder.module.parameters())
    # The network as one module gives the scores, and a gradient at the pixels.
    pixels = noise(2).requires_grad_()
    scores = made.encoder.module(pixels)
    torch.testing.assert_close(scores, made.encoder.encode(noise(2)).pooled, atol=1e-6, rtol=1e-5)
    assert torch.autograd.grad(scores.sum(), pixels)[0].abs().max() > 0


class Stops(Progress):
    """Stops the run at a step of the training."""

    def track(self, items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
        for i, item in enumerate(items):
            if what == "Training" and i == 7:
                raise KeyboardInterrupt
            yield item


@pytest.mark.parametrize("variant", ["last", "deep"])
def test_a_stopped_run_ends_at_the_same_weights(
    variant: Any, samples: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "seewhy.learning.self_explaining.prompt_cam.recipe.Training", partial(Training, checkpoint_every=2)
    )
    recipe = PromptCAM(**QUICK | {"epochs": 5}, variant=variant)
    whole = recipe.fit(tiny_vit(), samples)
    with pytest.raises(KeyboardInterrupt):
        recipe.fit(tiny_vit(), samples, progress=Stops(), checkpoint=tmp_path / "kept")
    assert [p.name for p in tmp_path.iterdir()] == ["kept.0.05"]
    progress = Progress()
    again = recipe.fit(tiny_vit(), samples, progress=progress, checkpoint=tmp_path / "kept")
    assert "resuming at step 8" in progress.notes
    a, b = whole.network, again.network
    assert a is not None
    assert b is not None
    assert all(torch.equal(v, b.tensors()[k]) for k, v in a.tensors().items())


def test_features_from_the_store_train_the_same(samples: Samples, tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "store.sqlite")
    made = [PromptCAM(**QUICK).fit(tiny_vit(), samples, store=s) for s in (None, store, store)]
    first, *others = (m.network.tensors() for m in made if m.network is not None)
    assert all(torch.equal(v, other[k]) for other in others for k, v in first.items())
    other = PromptCAM(**QUICK, seed=1).fit(tiny_vit(), samples).network
    assert other is not None
    assert not torch.equal(other.tensors()["own"], first["own"])


def test_the_rate_is_chosen_on_held_out_pictures(samples: Samples) -> None:
    made = PromptCAM(**QUICK | {"lr": None}, optimiser="adamw").fit(tiny_vit(), samples)
    rates = made.measures["held_out_accuracy_by_lr"]
    assert set(rates) == {"0.001", "0.01"}
    assert made.measures["held_out_accuracy"] == max(rates.values()) == rates[f"{made.measures['lr']:g}"]
    assert made.held_out is not None
    right = (made.held_out.pooled[:, :3].argmax(1) == made.held_out.labels).float().mean()
    assert made.measures["held_out_accuracy"] == pytest.approx(float(right), abs=1e-4)
    assert made.measures["n_pictures"] + made.measures["n_held_out"] == len(samples)
    assert made.bank is not None
    assert len(made.bank.pictures) == 6


def test_what_cannot_be_done_is_said(samples: Samples) -> None:
    def refused(kind: type[Exception], make: Any) -> str:
        with pytest.raises(kind) as caught:
            make()
        return str(caught.value)

    needs = (
        "prompt_cam needs a vision transformer from timm, open_clip or transformers, got 'tiny'. Choose another "
        "encoder with --encoder."
    )
    for encoder in (tiny_cnn(), tiny_tokens()):
        assert refused(ModelError, lambda encoder=encoder: PromptCAM().fit(encoder, samples)) == needs
    words = Descriptions({c: (f"{c} one",) for c in CLASSES[:3]})
    assert refused(InputError, lambda: PromptCAM().fit(tiny_vit(), samples, descriptions=words)) == (
        "The method prompt_cam does not take descriptions, only pictures. Leave descriptions out, or use one of comet, "
        "discriminative, fine_tune, gist, linear, neighbours, sparse_concepts."
    )
    assert refused(InputError, lambda: PromptCAM(variant="deep", first=3).fit(tiny_vit(), samples)) == (
        "`first`, the first layer with prompts, must be from 0 to 2, got 3."
    )
    assert refused(InputError, lambda: PromptCAM(first=1)) == (
        "`first`, the first layer with prompts, can only be given with variant='deep', got variant='last' and first=1."
    )
    assert refused(InputError, lambda: PromptCAM(optimiser="adam")).startswith(  # type: ignore[arg-type]
        "`optimiser` of prompt_cam must be"
    )
    assert refused(InputError, lambda: PromptCAM(dropout=1.0)).startswith("`dropout` of prompt_cam must be")


@pytest.mark.slow
def test_through_the_command_line(tmp_path: Path, command: list[str]) -> None:
    """A timm folder, fitted, explained by its own attention, against another class, and by one head."""
    import timm

    network = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2, num_classes=4)
    network.pretrained_cfg.update(input_size=(3, 32, 32), hf_hub_id=None, url="")
    about = {"img_size": 32, "depth": 2, "num_classes": 4}
    timm.models.save_for_hf(network, tmp_path / "vit", model_args=about, safe_serialization=True)
    data = class_folders(tmp_path / "photos", 5)

    def run(*words: str) -> dict[str, Any]:
        done = subprocess.run(
            [*command, *words, "--json", "--store", "none"], cwd=tmp_path, capture_output=True, encoding="utf-8"
        )
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout.splitlines()[-1]))

    named = ("--encoder", f"timm:{tmp_path / 'vit'}")
    made = ("fit", str(data), "-o", "birds", "--method", "prompt_cam", *named)
    fitted = run(*made, "--engine", "torch", "--set", "epochs=2", "--set", "lr=0.05")
    assert fitted["n_pictures"] + fitted["n_held_out"] == 15
    picture_file = str(next(data.rglob("*.png")))
    shown = run("explain", picture_file, "-m", "birds", *named, "-o", "a.json")["where"]
    assert (shown["method"], shown["contrast"], len(shown["heat"])) == ("prompt_cam", None, 2)
    against = run(
        "explain", picture_file, "-m", "birds", *named, "-o", "b.json", "--target", "moss", "--contrast", "rust"
    )
    assert (against["where"]["target"], against["where"]["contrast"]) == ("moss", "rust")
    one = run("explain", picture_file, "-m", "birds", *named, "-o", "c.json", "--set", "n_heads=1")["where"]
    assert one["heat"] != shown["heat"]


@pytest.mark.slow
def test_the_reproduction_runs_in_small(tmp_path: Path) -> None:
    folder, out = Path(__file__).parents[2] / "reproductions", tmp_path / "report.json"
    words = [sys.executable, "prompt_cam.py", "--planted", "4", "--out", str(out)]
    done = subprocess.run(words, cwd=folder, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    report = json.loads(out.read_text("utf-8"))
    assert [c["verdict"] for c in report["claims"]] == ["shown"]
    assert report["numbers"]["planted"]["accuracy"] > 0.9


class Sum(Task):
    """A number that is made small."""

    def __init__(self, module: nn.Linear) -> None:
        super().__init__()
        self.module = module

    def features(self, batch: Batch) -> Tensor:
        return self.module.weight.sum()

    def loss(self, features: Tensor, batch: Batch) -> dict[str, Tensor]:
        return {"loss": features}


@pytest.mark.parametrize(("nesterov", "first"), [(False, 1.0), (True, 1.9)])
def test_the_rate_warms_up_evenly(nesterov: bool, first: float) -> None:
    """One number whose gradient is 1: what a step takes from it is the rate times the momentum's sum."""
    taken = []
    for n_steps in (1, 2):
        module = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(module.weight)
        how = Training(n_steps, 1, "sgd", 0.1, weight_decay=0, schedule="constant", nesterov=nesterov, warmup=4)
        train(Sum(module), TrainingData(1, {}), how)
        taken.append(-float(module.weight.detach()))
    assert taken[0] == pytest.approx(0.1 * 1 / 4 * first)
    if not nesterov:
        assert taken[1] == pytest.approx(0.1 * (1 / 4 + 2 / 4 * 1.9))


@pytest.mark.parametrize("better", [0, 1])
def test_the_network_of_the_better_rate_is_given_back(
    better: int, samples: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores of held-out pictures that are all right after one training and all wrong after the other."""
    rates, tried = (0.01, 0.05), []

    def scored(network: PromptCAMNetwork, pictures: EncodedSet, *_: Any) -> Tensor:
        labels = pictures.labels[pictures.held]
        shown = torch.eye(3)[labels if len(tried) == better else (labels + 1) % 3]
        tried.append(network)
        return torch.cat([shown, torch.zeros(len(labels), network.parts.width)], 1)

    monkeypatch.setattr("seewhy.learning.self_explaining.prompt_cam.recipe._held_pooled", scored)
    monkeypatch.setattr("seewhy.learning.self_explaining.prompt_cam.recipe.RATES", {"sgd": rates})
    made = PromptCAM(**QUICK | {"lr": None}).fit(tiny_vit(), samples)
    assert made.measures["held_out_accuracy_by_lr"] == {"0.01": 1.0 - better, "0.05": float(better)}
    assert made.measures["lr"] == rates[better]
    assert made.measures["held_out_accuracy"] == 1.0
    assert made.network is tried[better]
    assert made.held_out is not None
    assert torch.equal(made.held_out.pooled[:, :3].argmax(1), made.held_out.labels)


def test_no_picture_of_the_bank_is_held_out_and_a_fifth_of_the_steps_warms_up(
    samples: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainings = []

    def training(*args: Any, **options: Any) -> Training:
        trainings.append(Training(*args, **options))
        return trainings[-1]

    monkeypatch.setattr("seewhy.learning.self_explaining.prompt_cam.recipe.Training", training)
    made = PromptCAM(**QUICK | {"n_bank": 100, "epochs": 5, "split": "random"}).fit(tiny_vit(), samples)
    digests = {s.image: file_digest(s.image) or "" for s in samples.items}
    held = split([s.label for s in samples.items], list(digests.values()), 0.2, 0)
    own = {d for d, out in zip(digests.values(), held, strict=True) if not out}
    assert len(own) == 12
    assert made.bank is not None
    assert {p.digest for p in made.bank.pictures} == own
    assert [(t.n_steps, t.warmup, t.nesterov, t.schedule) for t in trainings] == [(15, 3, False, "cosine")]
