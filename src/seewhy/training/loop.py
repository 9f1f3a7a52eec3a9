"""The one training loop: seeded, resumable after any kill, told to a listener; what is trained is the caller's."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..listener import Listener
from ..seeded import seeded
from ..storage.marks import CHECKPOINT, marked_tensors
from ..storage.output import check_checkpoint, write
from ..storage.reading import MAX_JSON, parse_json, read_tensors

Loss = Callable[[Sequence[int]], Mapping[str, Tensor]]
"""Positions of the samples in a batch → named terms, of which ``"loss"``, or each player's own, is what goes down."""

Schedule = Literal["constant", "cosine", "milestones", "one_cycle", "per_epoch"]


@dataclass(frozen=True)
class Training:
    """How long, how fast, and from which seed.

    Attributes:
        n_steps: batches in all.
        batch_size: samples a batch; an epoch's last, smaller one is left out.
        optimiser: ``"sgd"`` (momentum 0.9) or ``"adamw"``.
        lr: learning rate, at its highest.
        bias_lr: that of biases, as a multiple.
        weight_decay: of everything but biases.
        schedule: ``"constant"``; ``"cosine"`` down to 0; ``"milestones"``, times 0.2 at 40, 60 and 80 % of the
            steps, as COMET's authors do; ``"one_cycle"`` (Smith & Topin 2018, as in torch: 30 % of the steps up from
            1/25, then down to 1/250,000; with SGD its momentum 0.95 to 0.85 and back); ``"per_epoch"``, times 0.95
            after each.
        seed: of the order of samples and of everything drawn within a step.
        checkpoint_every: steps between two checkpoints.
        nesterov: whether SGD's momentum is Nesterov's.
        warmup: first steps, in which the rate rises evenly to its highest instead of following the schedule.
        part_lr: rates of parts of the module, as multiples: ``(beginning of the parameters' names, multiple)``.
    """

    n_steps: int
    batch_size: int = 32
    optimiser: Literal["sgd", "adamw"] = "adamw"
    lr: float = 1e-3
    bias_lr: float = 1.0
    weight_decay: float = 5e-4
    schedule: Schedule = "one_cycle"
    seed: int = 0
    checkpoint_every: int = 50
    nesterov: bool = True
    warmup: int = 0
    part_lr: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        if self.n_steps < 1 or self.batch_size < 1 or self.lr <= 0 or self.checkpoint_every < 1:
            raise InputError(
                f"Training was given n_steps={self.n_steps}, batch_size={self.batch_size}, lr={self.lr:g}, "
                f"checkpoint_every={self.checkpoint_every}. Numbers above zero were expected. Change them."
            )


@dataclass(frozen=True)
class Trained:
    """What a training was like.

    Attributes:
        history: the terms of every step, first to last.
        seconds_per_step: on average, over the steps of this run; 0 when none was left to do.
        resumed_at: the step it went on from.
    """

    history: tuple[dict[str, float], ...]
    seconds_per_step: float
    resumed_at: int


def train(
    module: nn.Module,
    loss: Loss,
    n_samples: int,
    how: Training,
    *,
    players: Mapping[str, nn.Module] | None = None,
    checkpoint: tuple[Path, str] | None = None,
    listener: Listener | None = None,
) -> Trained:
    """Train ``module`` in place; it ends in evaluation mode.

    A step depends on the seed, its number and the weights alone, so a run that was killed and started again ends at
    the weights of one that was not. Only the module's own parameters get gradients.

    Args:
        module: what is trained.
        loss: called with the positions of a batch's samples; torch's random numbers are seeded around the call.
        n_samples: how many there are.
        how: steps, optimiser, seed.
        players: name of a term → the part of ``module`` that it trains, for games in which the parts want different
            things: each part gets the gradient of its own term alone, all from one batch, and then all move at once.
            The optimisers keep no number that two parameters share, so this is one optimiser a player. Left out,
            ``"loss"`` trains the whole module.
        checkpoint: a file, and a text that says what is trained on what: a file of another text is not gone on from.
            The caller deletes it when the result is safe.
        listener: hears of progress.

    Raises:
        InputError: there are no samples, or the loss is not finite any more.
        DataError: the checkpoint cannot be written.
    """
    if n_samples < 1:
        raise InputError("There is nothing to train on: 0 samples were given. Give at least one.")
    listener = listener or Listener()
    players = players or {"loss": module}
    optimiser = _optimiser(module, how)
    seal = "" if checkpoint is None else json.dumps([checkpoint[1], asdict(how), n_samples], sort_keys=True)
    history = [] if checkpoint is None else _resume(checkpoint[0], seal, module, optimiser, listener)
    first, begun = len(history), time.perf_counter()
    module.train()
    for step in listener.track(range(first, how.n_steps), "Training", how.n_steps - first):
        _set_rates(optimiser, how, step, n_samples)
        with seeded(how.seed * 1_000_003 + step), torch.enable_grad():
            terms = loss(batch_at(step, n_samples, how.batch_size, how.seed))
            optimiser.zero_grad()
            _share_out(terms, players)
        optimiser.step()
        history.append({name: round(float(term.detach()), 6) for name, term in terms.items()})
        if not all(math.isfinite(history[-1][name]) for name in players):
            raise InputError(
                f"The loss is not finite at step {step + 1}. A smaller learning rate was expected: lr is {how.lr:g}. "
                "Give a tenth of it."
            )
        if checkpoint is not None and (step + 1) % how.checkpoint_every == 0:
            _keep(checkpoint[0], seal, module, optimiser, history)
    module.eval()
    done = how.n_steps - first
    return Trained(tuple(history), (time.perf_counter() - begun) / done if done > 0 else 0.0, first)


def _share_out(terms: Mapping[str, Tensor], players: Mapping[str, nn.Module]) -> None:
    """Each player's parameters get the gradient of its own term."""
    for i, (name, player) in enumerate(players.items()):
        own = [p for p in player.parameters() if p.requires_grad]
        terms[name].backward(inputs=own, retain_graph=i + 1 < len(players))


def batch_at(step: int, n_samples: int, batch_size: int, seed: int) -> list[int]:
    """Positions of the samples of a step: every epoch in an order of its own.

    Example:
        >>> sorted(batch_at(0, 4, 2, seed=0) + batch_at(1, 4, 2, seed=0))
        [0, 1, 2, 3]
    """
    size = min(batch_size, n_samples)
    epoch, place = divmod(step, n_samples // size)
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.randperm(n_samples, generator=generator)[place * size : (place + 1) * size].tolist()


def rates(schedule: Schedule, step: int, n_steps: int, steps_per_epoch: int) -> tuple[float, float]:
    """Factor of the learning rate, and momentum.

    Example:
        >>> [round(rates("one_cycle", step, 10, 5)[0], 3) for step in (0, 2, 9)]
        [0.04, 1.0, 0.0]
    """
    if schedule == "constant":
        return 1.0, 0.9
    if schedule == "per_epoch":
        return float(0.95 ** (step // steps_per_epoch)), 0.9
    if schedule == "milestones":
        return 0.2 ** sum(step >= share * n_steps for share in (0.4, 0.6, 0.8)), 0.9
    if schedule == "cosine":
        return (1 + math.cos(math.pi * step / n_steps)) / 2, 0.9
    top = max(0.3 * n_steps - 1, 1e-9)
    if step <= top:
        share = (1 - math.cos(math.pi * step / top)) / 2
        return 0.04 + 0.96 * share, 0.95 - 0.10 * share
    share = (1 - math.cos(math.pi * (step - top) / max(n_steps - 1 - top, 1e-9))) / 2
    return 1 + (4e-6 - 1) * share, 0.85 + 0.10 * share


def _set_rates(optimiser: torch.optim.Optimizer, how: Training, step: int, n_samples: int) -> None:
    per_epoch = n_samples // min(how.batch_size, n_samples)
    factor, momentum = rates(how.schedule, step, how.n_steps, per_epoch)
    if step < how.warmup:
        factor = (step + 1) / how.warmup
    for group in optimiser.param_groups:
        group["lr"] = how.lr * group["multiple"] * factor
        if how.optimiser == "sgd":
            group["momentum"] = momentum


def _optimiser(module: nn.Module, how: Training) -> torch.optim.Optimizer:
    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = []
    for start, multiple in ((None, 1.0), *how.part_lr):
        own = [(n, p) for n, p in named if next((s for s, _ in how.part_lr if n.startswith(s)), None) == start]
        weights, biases = ([p for n, p in own if n.endswith("bias") is is_bias] for is_bias in (False, True))
        groups += [
            {"params": weights, "weight_decay": how.weight_decay, "multiple": multiple},
            {"params": biases, "weight_decay": 0.0, "multiple": multiple * how.bias_lr},
        ]
    if how.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=how.lr, momentum=0.9, nesterov=how.nesterov)
    return torch.optim.AdamW(groups, lr=how.lr)


def _keep(
    path: Path, seal: str, module: nn.Module, optimiser: torch.optim.Optimizer, history: list[dict[str, float]]
) -> None:
    """Module, optimiser and history in one file, so that they always belong together."""
    tensors = {f"module.{name}": value for name, value in module.state_dict().items()}
    for i, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{i}.{k}": v for k, v in state.items() if isinstance(v, Tensor)}
    plain = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
    write(path, marked_tensors(plain, {"seal": seal, "history": json.dumps(history)}), CHECKPOINT)


def _resume(
    path: Path, seal: str, module: nn.Module, optimiser: torch.optim.Optimizer, listener: Listener
) -> list[dict[str, float]]:
    """What an earlier run left, put back; nothing where there is none or it was another training."""
    if not check_checkpoint(path).exists():
        return []
    try:
        # Weights and what the optimiser keeps of each; a module may be larger than anything else that is read.
        most = MAX_JSON + 8 * sum(value.nbytes for value in module.state_dict().values())
        tensors, about = read_tensors(path, most)
        history = parse_json(about.get("history", "[]"))
    except (OSError, ValueError):
        tensors, about, history = {}, {}, []
    if about.get("seal") != seal:
        listener.note(f"{path} belongs to another training or is damaged; this one begins at the first step")
        return []
    inside = {name.removeprefix("module."): v for name, v in tensors.items() if name.startswith("module.")}
    own = {name: (value.shape, value.dtype) for name, value in module.state_dict().items()}
    state = _optimiser_state(tensors, optimiser)
    if state is None or not isinstance(history, list) or own != {n: (v.shape, v.dtype) for n, v in inside.items()}:
        listener.note(f"{path} is damaged; this training begins at the first step")
        return []
    module.load_state_dict(inside)
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})
    listener.note(f"going on at step {len(history) + 1}, where an earlier run was stopped")
    return history


def _optimiser_state(
    tensors: Mapping[str, Tensor], optimiser: torch.optim.Optimizer
) -> dict[int, dict[str, Tensor]] | None:
    """What the optimiser keeps of each parameter, by its number; ``None`` where that is not of these parameters."""
    shapes = [p.shape for group in optimiser.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if not name.startswith("optimiser."):
            continue
        number, _, key = name.removeprefix("optimiser.").partition(".")
        if not number.isdecimal() or int(number) >= len(shapes) or value.shape not in ((), shapes[int(number)]):
            return None
        state.setdefault(int(number), {})[key] = value
    return state
