"""Vision transformers as graphs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import seewhy
from seewhy.classifiers.base import Classifier
from seewhy.encoders.base import Encoder
from seewhy.encoders.timm import encoder_of
from seewhy.heads.head import Head
from seewhy.heads.normalise import Normalise
from seewhy.pictures.images import read_picture
from seewhy.service import export as exporting
from seewhy.service.export import OUTPUTS, Graph, Run, _stack, open_graph, write_graph
from seewhy.types import Transform
from tiny_transformer import tiny_network

SMALL = {"depth": 2, "embed_dim": 48}


def of_size(height: int, width: int) -> dict[str, Any]:
    """Options of timm for pictures of this size."""
    config = {"input_size": (3, height, width), "crop_mode": "squash"}
    return {"img_size": (height, width), "pretrained_cfg_overlay": config}


def drawn_weights(network: nn.Module) -> nn.Module:
    """Frozen, with weights so large that attentions, norms and scores all have something to say."""
    random = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in network.eval().requires_grad_(False).parameters():
            noise = torch.randn(parameter.shape, generator=random)
            if parameter.ndim == 1:
                parameter.add_(0.3 * noise)
            else:
                parameter.copy_(noise * (1.5 / parameter[0].numel() ** 0.5))
    return network


def of_timm(name: str, **options: Any) -> Encoder:
    import timm

    network = drawn_weights(timm.create_model(name, pretrained=False, num_classes=5, **options))
    return encoder_of(network, name, engine="torch")


def classifier_of(encoder: Encoder) -> Classifier:
    """A linear one of three classes."""
    with torch.no_grad():
        features = encoder.trunk(torch.zeros(1, 3, *encoder.transform.input_size))
    width = encoder.head(features).shape[1]
    weight = torch.randn(3, width, generator=torch.Generator().manual_seed(1)) / width**0.5
    return Classifier("linear", {}, encoder, ("a", "b", "c"), Head(Normalise(1.0, False), weight))


def vit() -> Classifier:
    """Two blocks, a class token and 4 by 4 patches of 16 pixels, in a network of timm's."""
    return classifier_of(of_timm("vit_tiny_patch16_224", **of_size(64, 64), **SMALL))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Classifier, Graph, Run]:
    """It as a graph, and what runs of it."""
    classifier, folder = vit(), tmp_path_factory.mktemp("graphs")
    graph = Graph(classifier)
    write_graph(graph.program((64, 64)), folder, {})
    return classifier, graph, open_graph(folder)


def test_a_class_token_is_exported_for_batches_of_any_length(made: tuple[Classifier, Graph, Run]) -> None:
    classifier, _, run = made
    for n in (1, 3, 5):
        assert (
            max(exporting.compare(classifier, run, exporting.drawn((64, 64), n, seed=n)).values())
            <= exporting.TOLERANCE
        )


def test_its_heat_is_that_of_explain(made: tuple[Classifier, Graph, Run], tmp_path: Path) -> None:
    """Grad-CAM of the tokens that the last block reads, for every class; ``explain`` keeps these as halves."""
    classifier, graph, run = made
    Image.fromarray(exporting.drawn((90, 71), 1, seed=4)[0]).save(photo := tmp_path / "one.png")
    picture = read_picture(photo, classifier.encoder.transform).pixels
    tokens = classifier.encoder.trunk(classifier.encoder.pixels([picture]))
    for index, target in enumerate(classifier.classes):
        where = classifier.explain(photo, where="grad_cam", target=target, measure=False).where
        size = np.abs(where.heat).max()
        assert size > 1e-4
        _, _, rounded, _ = graph.tail(tokens.half().float(), torch.tensor([[index]]))
        np.testing.assert_allclose(rounded[0].numpy() / size, where.heat / size, atol=1e-5)
        exact = run(picture[None], np.array([[index]]))["heat"][0]
        np.testing.assert_allclose(exact / size, where.heat / size, atol=5e-3)
    scores = run(picture[None], np.array([[-1]]))["probabilities"][0]
    np.testing.assert_allclose(classifier.predict_proba(photo)[0], scores, atol=1e-4)


def in_torch(program: torch.export.ExportedProgram) -> Run:
    """What torch runs of a program."""
    module = program.module()

    def run(picture: np.ndarray, index: np.ndarray) -> dict[str, np.ndarray]:
        found = module(torch.from_numpy(picture), torch.from_numpy(index))
        return {name: one.numpy() for name, one in zip(OUTPUTS, found, strict=True)}

    return run


def cut_by_hooks() -> Classifier:
    """A network of timm's through ``from_module``, which ``torch.fx`` cannot follow."""
    transform = Transform((32, 32), 32, "bicubic", (0.5,) * 3, (0.25,) * 3)
    return seewhy.pretrained(seewhy.from_module(tiny_network(depth=2), transform=transform, engine="torch"))


@pytest.mark.slow
def test_a_network_that_is_cut_by_hooks_is_exported_too() -> None:
    classifier = cut_by_hooks()
    assert type(classifier.encoder.trunk).__name__ == "UntilLayer"
    run = in_torch(Graph(classifier).program((32, 32)))
    for n in (1, 3):
        assert max(exporting.compare(classifier, run, exporting.drawn((32, 32), n)).values()) <= exporting.TOLERANCE


@pytest.mark.parametrize("dim", [0, 1, 2, -1])
def test_stacked_as_torch_stacks(dim: int) -> None:
    tensors: list[Tensor] = list(torch.arange(24.0).reshape(4, 3, 2))
    assert _stack(tensors, dim).equal(torch.stack(tensors, dim))


ZOO: dict[str, Callable[[], Encoder]] = {
    "class token, registers, layer scale": lambda: of_timm("vit_small_patch14_reg4_dinov2", **of_size(70, 98), **SMALL),
    "SwiGLU, average": lambda: of_timm("vit_giant_patch14_reg4_dinov2", global_pool="avg", **of_size(70, 70), **SMALL),
    "rotary, registers": lambda: of_timm("vit_small_patch16_dinov3", depth=2, **of_size(64, 96)),
    "two class tokens": lambda: of_timm("deit_tiny_distilled_patch16_224", **of_size(64, 64), **SMALL),
    "ConvNeXt": lambda: of_timm(
        "test_convnext", pretrained_cfg_overlay={"input_size": (3, 64, 96), "crop_mode": "squash"}
    ),
    "Swin": lambda: of_timm(
        "swin_tiny_patch4_window7_224", depths=(1, 2), num_heads=(1, 2), embed_dim=24, window_size=4, **of_size(64, 96)
    ),
    "BEiT": lambda: of_timm("beit_base_patch16_224", **of_size(64, 64), **SMALL),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ZOO)
def test_networks_of_users(name: str, tmp_path: Path) -> None:
    """At lengths that the graph was not traced at."""
    classifier = classifier_of(ZOO[name]())
    size = classifier.encoder.transform.input_size
    program = Graph(classifier).program(size)
    assert exporting.answers(classifier, exporting.drawn(size, 2))["heat"].abs().amax() > 1e-4
    write_graph(program, tmp_path, {})
    run = open_graph(tmp_path)
    for n in (1, 3):
        assert max(exporting.compare(classifier, run, exporting.drawn(size, n)).values()) <= exporting.TOLERANCE
