"""A head read for one target: its own rows give what all rows give."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from seewhy.attributions.base import feature_gradient
from seewhy.errors import ModelError
from seewhy.heads.head import Head, Target
from seewhy.heads.normalise import Normalise

DRAW = torch.Generator().manual_seed(0)
HEAD = Head(Normalise(0.5, True), torch.randn(7, 5, generator=DRAW), torch.randn(7, generator=DRAW), 3.0)
POOLED = torch.randn(4, 5, generator=DRAW)
INDEX = torch.tensor([0, 6, 2, 2])
TARGETS = [Target(INDEX), Target(INDEX, torch.tensor([1, 0, 3, 2])), lambda logits: logits.logsumexp(1)]


@pytest.mark.parametrize("target", TARGETS, ids=["class", "contrast", "function"])
def test_score_and_its_gradient_are_those_of_the_logits(target) -> None:
    def of(score) -> tuple[Tensor, Tensor]:
        leaf = POOLED.clone().requires_grad_()
        values = score(leaf)
        return values.detach(), torch.autograd.grad(values.sum(), leaf)[0]

    ours, theirs = of(lambda leaf: HEAD.score(leaf, target)), of(lambda leaf: target(HEAD(leaf)))
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours[1], theirs[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("target", TARGETS[:2], ids=["class", "contrast"])
def test_slope_is_of_the_lead_over_the_mean_or_the_other(target: Target) -> None:
    plain = Head(Normalise(), HEAD.weight, HEAD.bias, 3.0)
    logits = plain(POOLED) - plain.bias
    lead = target(logits) - (logits.mean(1) if target.against is None else 0)
    torch.testing.assert_close((plain.slope(POOLED, target) * POOLED).sum(1), lead)


def test_the_gradient_of_a_class_reads_no_other_row(monkeypatch: pytest.MonkeyPatch) -> None:
    import seewhy
    from tiny import tiny_cnn

    model = seewhy.pretrained(tiny_cnn())
    look = model.encoder.encode(torch.randn(2, 3, 32, 32, generator=DRAW))
    whole = feature_gradient(model, look, lambda logits: logits[:, 1])
    monkeypatch.setattr(nn.Module, "__call__", lambda *_: pytest.fail("all classes were scored"))
    torch.testing.assert_close(feature_gradient(model, look, Target(torch.tensor([1, 1]))), whole)


def test_features_of_another_width_are_refused() -> None:
    for read in (HEAD, lambda pooled: HEAD.score(pooled, TARGETS[0])):
        with pytest.raises(ModelError, match="needs 5 features per picture, but the encoder returns 6"):
            read(torch.zeros(4, 6))
