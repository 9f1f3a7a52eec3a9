"""An encoder from any module: same numbers, and the module left as it was."""

from __future__ import annotations

import copy
import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seewhy.attributions.grad_cam import GradCAM
from seewhy.attributions.shares import cell_evidence
from seewhy.classifiers.unfitted import Pretrained
from seewhy.encoders.base import Layout
from seewhy.encoders.module import from_module
from seewhy.encoders.split import cut_by_graph, frozen_copy
from seewhy.errors import ModelError, UnknownNameError
from seewhy.heads.head import Target
from seewhy.types import Transform

TRANSFORM = Transform((16, 16), 18, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


class Convs(nn.Module):
    """Two convolutions, an in-place activation behind the last one, a mean and a linear layer."""

    def __init__(self, fan: bool = False) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU())
        self.body = nn.Conv2d(4, 6, 3, 2, 1)
        self.relu = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.body(self.stem(x)))
        return self.fc(self.drop(x.mean((2, 3))))


class Branching(Convs):
    """``torch.fx`` cannot follow a decision on numbers."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.body(self.stem(x)))
        if x.sum() < 0:
            x = -x
        return self.fc(x.mean((2, 3)))


class Bypassed(Convs):
    """The picture's own mean goes around every layer."""

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.relu(self.body(self.stem(x))).mean((2, 3)) + x.mean((1, 2, 3))[:, None])


class ClassToken(nn.Module):
    """A ViT of torch's own encoder layers, read at the class token."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        layers = [nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True) for _ in range(3)]
        self.blocks = nn.Sequential(*layers)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        return self.fc(self.blocks(x)[:, 0])


def pixels(n: int = 3) -> Tensor:
    return torch.randn(n, 3, 16, 16, generator=torch.Generator().manual_seed(5))


def evaluated(module: nn.Module) -> Tensor:
    with torch.no_grad():
        return copy.deepcopy(module).eval()(pixels())


@pytest.mark.parametrize("cls", [Convs, Branching])
@pytest.mark.parametrize("layer", ["stem", "stem.2", "body", "relu", None])
def test_equals_the_module(cls: type[nn.Module], layer: str | None) -> None:
    torch.manual_seed(0)
    module = cls()
    encoder = from_module(module, target_layer=layer, transform=TRANSFORM, classes=["a", "b", "c"], engine="torch")
    look = encoder.encode(pixels())
    assert torch.allclose(encoder.classifier(look.pooled), evaluated(module), atol=1e-6)
    with torch.no_grad():
        again = encoder.head(look.features)
    assert torch.equal(again, look.pooled), "an in-place head must not spoil the features"
    assert encoder.classes == ("a", "b", "c")


def test_the_mean_is_recognised() -> None:
    encoder = from_module(Convs(), target_layer="relu", transform=TRANSFORM)
    assert encoder.is_average
    assert not from_module(Convs(), target_layer="body", transform=TRANSFORM).is_average
    assert encoder.classes == ("class 0", "class 1", "class 2")


def test_layer_itself_instead_of_its_name() -> None:
    module = Convs()
    assert from_module(module, target_layer=module.stem, transform=TRANSFORM).encode(pixels()).features.shape == (
        3,
        4,
        8,
        8,
    )
    with pytest.raises(ModelError, match="must be a layer of Convs, got another ReLU"):
        from_module(module, target_layer=nn.ReLU(), transform=TRANSFORM)


def test_class_token_network_is_cut_before_its_last_block() -> None:
    torch.manual_seed(0)
    module = ClassToken()
    encoder = from_module(module, transform=TRANSFORM, engine="torch")
    assert encoder.layout == Layout("tokens", (4, 4), 1)
    look = encoder.encode(pixels())
    assert torch.allclose(encoder.classifier(look.pooled), evaluated(module), atol=1e-6)
    leaf = look.features.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(encoder.head(leaf)[:, 0].sum(), leaf)
    assert (encoder.layout.to_grid(gradient).abs().sum(1) > 0).all()


def test_layer_without_gradient_is_refused() -> None:
    with pytest.raises(ModelError, match=r"uses only the class token of 'blocks\.2'"):
        from_module(ClassToken(), target_layer="blocks.2", transform=TRANSFORM)


def test_misspelt_layer() -> None:
    with pytest.raises(UnknownNameError) as caught:
        from_module(Convs(), target_layer="bodi", transform=TRANSFORM)
    assert str(caught.value) == "There is no layer of Convs called 'bodi'. Did you mean 'body'?"


def test_bypassed_layer_is_refused() -> None:
    with pytest.raises(ModelError, match="cannot be split here,"):
        from_module(Bypassed(), target_layer="body", transform=TRANSFORM)


def test_wrong_number_of_classes() -> None:
    with pytest.raises(ModelError, match=r"got 2 names for 3 outputs\. Add or remove names\."):
        from_module(Convs(), transform=TRANSFORM, classes=["a", "b"])
    one = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1))
    with pytest.raises(ModelError, match=r"got 2 names for 1 output\. Wrap it in a module that returns one logit"):
        from_module(one, transform=TRANSFORM, classes=["a", "b"])


def ending_in(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 6, 4, 4), nn.ReLU(), *layers).eval()


class Scaled(Convs):
    def forward(self, x: Tensor) -> Tensor:
        return 3 * super().forward(x)


@pytest.mark.parametrize(
    "network",
    [
        ending_in(nn.Conv2d(6, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        ending_in(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3), nn.LogSoftmax(1)),
        ending_in(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3), nn.BatchNorm1d(3)),
        Scaled().eval(),
    ],
)
def test_a_network_that_does_not_end_in_a_linear_layer(network: nn.Module) -> None:
    """The last linear layer in it is not its last layer; the maps are those of its own outputs."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for part in network.modules():
            if hasattr(part, "reset_parameters"):
                part.reset_parameters()
    encoder = from_module(network, transform=TRANSFORM, classes=["a", "b", "c"], engine="torch")
    pixels = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    look = encoder.encode(pixels)
    model = Pretrained().build(encoder)
    assert torch.allclose(model.head(look.pooled), network(pixels), atol=1e-6)
    leaf = look.features.clone().requires_grad_()
    (slope,) = torch.autograd.grad(encoder.head(leaf)[:, 1].sum(), leaf)
    maps = (slope.mean((2, 3), keepdim=True) * leaf).sum(1)
    assert torch.allclose(GradCAM()(model, look, Target(torch.tensor([1, 1]))), maps, atol=1e-6)
    features = from_module(network, transform=TRANSFORM, engine="torch")
    assert features.classes == ()
    with pytest.raises(ModelError, match=r"\(from_module: classes=\[\.\.\.\]\)"):
        Pretrained().build(features)


def test_probabilities_are_no_logits() -> None:
    network = ending_in(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3), nn.Softmax(1))
    with pytest.raises(ModelError, match=r"must return logits, but its outputs add up to 1, .* Remove its softmax\."):
        from_module(network, transform=TRANSFORM, classes=["a", "b", "c"])


class Ungraded(Branching):
    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


def test_a_network_without_gradients_is_refused() -> None:
    with pytest.raises(ModelError, match=r"has no gradient at 'relu'\. Remove torch\.no_grad\(\)"):
        from_module(Ungraded(), transform=TRANSFORM)


def test_torchscript_is_refused() -> None:
    compiled = nn.Sequential(Convs())
    compiled.__class__ = type("Compiled", (nn.Sequential, torch.jit.ScriptModule), {})
    with pytest.raises(ModelError, match=r"is compiled by TorchScript, .* Pass the module from which it was made"):
        from_module(compiled, transform=TRANSFORM)


class Shared(Convs):
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.relu(self.body(self.relu(self.stem(x)))).mean((2, 3)))


class Maps(Convs):
    def forward(self, x: Tensor) -> Any:
        return self.body(self.stem(x))


class Named(Convs):
    def forward(self, x: Tensor) -> Any:
        return {"logits": super().forward(x)}


@pytest.mark.parametrize(
    ("module", "layer", "message"),
    [
        (Shared(), "relu", "ran 2 times"),
        (Convs(), "fc", r"got \(1, 3\)"),
        (Maps(), None, "must return one vector per picture"),
        (Named(), None, "got a dict"),
        (nn.Sequential(nn.Flatten(), nn.Linear(768, 3)), None, "has no layer that returns a feature map"),
    ],
)
def test_modules_that_cannot_be_used(module: nn.Module, layer: str | None, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        from_module(module, target_layer=layer, transform=TRANSFORM)


@pytest.mark.parametrize("train", [True, False])
def test_the_module_is_left_as_it_was(train: bool) -> None:
    torch.manual_seed(0)
    module = Convs().train(train)
    module.stem[0].weight.requires_grad_(False)
    module(pixels()).sum().backward()
    calls: list[int] = []
    module.body.register_forward_hook(lambda *_: calls.append(1))
    state = {k: v.clone() for k, v in module.state_dict().items()}
    grads = {k: None if p.grad is None else p.grad.clone() for k, p in module.named_parameters()}
    flags = {k: p.requires_grad for k, p in module.named_parameters()}
    random = torch.get_rng_state()
    encoder = from_module(module, transform=TRANSFORM)
    encoder.encode(pixels())
    assert torch.equal(torch.get_rng_state(), random)
    assert all(m.training is train for m in module.modules())
    assert all(torch.equal(v, state[k]) for k, v in module.state_dict().items())
    assert {k: p.requires_grad for k, p in module.named_parameters()} == flags
    for key, p in module.named_parameters():
        assert (p.grad is None) == (grads[key] is None)
        assert p.grad is None or torch.equal(p.grad, grads[key])
    assert [len(m._forward_hooks) for m in module.modules()].count(1) == 1
    assert all(p.grad is None and not p.requires_grad for p in encoder.module.parameters())


def test_the_encoder_is_a_snapshot() -> None:
    module = Convs()
    encoder = from_module(module, transform=TRANSFORM)
    before = encoder.encode(pixels()).pooled
    module.body.weight.data.zero_()
    assert torch.equal(encoder.encode(pixels()).pooled, before)


def test_graph_is_plain() -> None:
    """No hook and no Python state is left in a trunk that an exporter has to follow."""
    parts = cut_by_graph(frozen_copy(Convs()), "body", "fc")
    assert parts is not None
    assert not any(m._forward_hooks or m._forward_pre_hooks for p in parts for m in p.modules())
    traced = torch.export.export(parts[0], (pixels(2),), strict=False).module()
    assert torch.allclose(traced(pixels(2)), parts[0](pixels(2)))


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="the extra 'openvino' is not installed")
@pytest.mark.parametrize(("cls", "layer"), [(Branching, "stem"), (ClassToken, None)])
def test_openvino_sees_the_same(
    cls: type[nn.Module], layer: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEEWHY_CACHE", str(tmp_path))
    encoder = from_module(cls(), target_layer=layer, transform=TRANSFORM, engine="openvino")
    with torch.no_grad():
        golden = encoder._trunk()(pixels())
    assert torch.allclose(encoder.forward_features(pixels()), golden, atol=2e-2 * float(golden.abs().max()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_computed_in_single(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    for module in (Convs(), ClassToken()):
        module = module.to(dtype).eval()
        encoder = from_module(module, transform=TRANSFORM, engine="torch")
        look = encoder.encode(pixels())
        assert look.features.dtype == look.pooled.dtype == encoder.classifier.weight.dtype == torch.float32
        assert next(module.parameters()).dtype == dtype, "the one handed in is left as it was"
        exact = copy.deepcopy(module).float()(pixels()).detach()
        torch.testing.assert_close(encoder.classifier(look.pooled), exact)
        if dtype != torch.float16:  # not every half kernel exists on a CPU
            theirs = module(pixels().to(dtype)).detach().float()
            torch.testing.assert_close(encoder.classifier(look.pooled), theirs, rtol=0.05, atol=0.05)
        model = Pretrained().build(encoder)
        target = Target(torch.tensor([0, 1, 2]))
        for maps in (GradCAM()(model, look, target), cell_evidence(model, look, target)):
            assert maps.dtype == torch.float32
            assert maps.isfinite().all()
            assert maps.any()
