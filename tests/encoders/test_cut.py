"""The halves of a network that is cut by hooks, and what torch exports of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.export import Dim, export

from seewhy.encoders.convert import quiet
from seewhy.encoders.split import FromLayer, UntilLayer


class InPlace(nn.Module):
    """What stands behind the layer writes into its output."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1)), nn.Sequential(nn.ReLU(inplace=True)))
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        pooled: Tensor = self.fc(self.blocks(x).mean((2, 3)))
        return pooled


def network() -> InPlace:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return InPlace().eval().requires_grad_(False)


def pixels(n: int) -> Tensor:
    return torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(n))


def test_the_part_before_a_layer_is_exported_for_any_batch() -> None:
    module = network()
    until = UntilLayer(module, "blocks.0")
    program = export(until, (pixels(2),), dynamic_shapes=({0: Dim("n", min=1, max=64)},), strict=False)
    for n in (1, 2, 5):
        golden = module.blocks[0](pixels(n))
        assert (golden < 0).any(), "what the activation behind it would change"
        assert until(pixels(n)).equal(golden)
        torch.testing.assert_close(program.module()(pixels(n)), golden)
    with quiet():
        nodes = program.run_decompositions().graph.nodes
    kept = {str(node.target) for node in nodes if node.op == "call_function"}
    assert "aten.convolution.default" in kept
    assert not any("relu" in one or "addmm" in one for one in kept), "what follows is no part of it"
    assert not module.blocks[0]._forward_hooks


def test_the_part_behind_a_layer_is_exported_for_any_batch() -> None:
    module = network()
    behind = FromLayer(module, "blocks.0", "fc", (8, 8))
    features = module.blocks[0](pixels(2))
    program = export(behind, (features,), dynamic_shapes=({0: Dim("n", min=1, max=64)},), strict=False)
    for n in (1, 2, 5):
        features = module.blocks[0](pixels(n))
        torch.testing.assert_close(program.module()(features), features.relu().mean((2, 3)))
