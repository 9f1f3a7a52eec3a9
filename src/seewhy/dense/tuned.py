"""Fine-tuning of an encoder together with layers on top of it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, Literal

import torch
from torch import Tensor

from ..attributions.layers import find_layers, find_place, run_through
from ..encoders.base import Encoder
from ..encoders.split import example_pixels
from ..errors import ModelError
from ..learning.encoders.pyramid import stages_of
from ..learning.encoders.towers import TunedPictures
from ..progress import duration
from ..seeded import seeded
from ..training.batches import TrainingData
from ..training.loop import Training
from ..training.memory import N_MEASURED, gigabytes, measure
from ..training.task import Task

Learns = Literal["none", "last_stage", "all"]
"""Encoder weights to train: none, the last stage, or all."""
SLOWER = 0.1
"""Learning rate of the encoder, as a share of the layers' learning rate."""
SAVED = "encoder."
"""Prefix of the encoder's tensor names in a saved file."""
ALL_BLOCKS = 1000


def halves_to_train(on: Encoder, which: Learns) -> TunedPictures:
    """Return copies of an encoder's trunk and pooling with gradients for the weights to train."""
    halves = TunedPictures.before(on)
    if which == "none":
        return halves
    own = list(halves.requires_grad_(True).parameters())
    gradients = _gradients(halves, on, own, _last_stage(on) if which == "last_stage" else "")
    for p, gradient in zip(own, gradients, strict=True):
        p.requires_grad_(gradient is not None)  # a trunk may carry a layer that it does not use
    return halves


@torch.enable_grad()
def _gradients(halves: TunedPictures, on: Encoder, own: Sequence[Tensor], layer: str) -> tuple[Tensor | None, ...]:
    """Return the gradient of the pooled vector for each weight after a layer."""
    places = {layer: find_place(halves.trunk, layer, on.name)} if layer else {}
    cut: Any = SimpleNamespace(take=lambda _name, out: out.detach())
    pooled = halves.pool(run_through(halves.trunk, places, example_pixels(on.transform.input_size), cut))
    if not pooled.requires_grad and not layer:
        raise ModelError(
            f"The encoder {on.name!r} has no trainable weights. Choose another encoder or leave `train` out."
        )
    if not pooled.requires_grad:  # no trainable weight after the layer
        return _gradients(halves, on, own, "")
    return torch.autograd.grad(pooled.sum(), own, allow_unused=True)


def _last_stage(on: Encoder) -> str:
    """Return the name of the layer before the last stage."""
    try:
        return stages_of(on.trunk, on.layout, on.transform.input_size, 2)[0].layer
    except ModelError:  # all maps have the same size
        blocks = find_layers(on, ALL_BLOCKS)[:-1]  # without the trunk's last block
        return blocks[-max(1, (len(blocks) + 1) // 4)] if blocks else ""


def looking_through(on: Encoder, halves: TunedPictures) -> Encoder:
    """Return the encoder with the given trunk and pooling, for training in torch."""
    return on.but(trunk=lambda: halves.trunk, head=halves.pool, engine="torch")


def tuned(on: Encoder, halves: TunedPictures) -> Encoder:
    """Return the encoder with trained modules, in its own engine."""
    text = {"text": lambda: on.text} if on.has_text else {}
    return halves.grown(on, on.name, 1.0).but(base=on, **text)


def saved_tensors(halves: TunedPictures | None, on: Encoder) -> dict[str, Tensor]:
    return {} if halves is None else {f"{SAVED}{name}": t for name, t in halves.delta(on).items()}


def restored(on: Encoder, tensors: Mapping[str, Tensor]) -> tuple[TunedPictures | None, dict[str, Tensor]]:
    """Split saved tensors into those of the encoder's modules, if any, and all others."""
    rest = {name: t for name, t in tensors.items() if not name.startswith(SAVED)}
    own = {name.removeprefix(SAVED): t for name, t in tensors.items() if name.startswith(SAVED)}
    return (TunedPictures.restored(on, {}, own) if own else None), rest


def said_cost(task: Task, data: TrainingData, how: Training, n_trainings: int = 1) -> str:
    """Estimate the time and memory of training from one step."""
    home = next(task.parameters()).device
    device = torch.device("cuda" if task.moves and torch.cuda.is_available() else home)
    task.to(device)
    memory = measure(task, data, how.batch_size, how.seed, device)
    batch = data.batch(0, min(N_MEASURED, how.batch_size), how.seed).to(device)
    step = 0.0
    for _ in range(2):  # the first one allocates
        begun = time.perf_counter()
        with torch.enable_grad():
            with seeded(how.seed):
                loss = task.loss(task.features(batch), batch)["loss"]
            loss.backward()
        _ = float(loss.detach())
        step = (time.perf_counter() - begun) * how.batch_size / len(batch)
    task.zero_grad()
    task.to(home)
    n = sum(p.numel() for p in task.parameters() if p.requires_grad)
    needs = "" if memory is None else f" and about {gigabytes(memory.of(how.batch_size))} of memory"
    several = f"{n_trainings} trainings of " if n_trainings > 1 else ""
    return (
        f"{n / 1e6:.1f} million weights are trained; a step of {how.batch_size} samples takes about {step:.2g} seconds"
        f"{needs}, {several}{how.n_steps} steps about {duration(n_trainings * step * how.n_steps)}"
    )
