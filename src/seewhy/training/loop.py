"""The one training loop: seeded, resumable after any kill, told as it goes; what is trained is a task."""

from __future__ import annotations

import json
import math
import time
from array import array
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..progress import Progress
from ..seeded import reseed, seeded
from ..storage.marks import CHECKPOINT, marked_tensors
from ..storage.output import check_checkpoint, write
from ..storage.reading import MAX_JSON, parse_json, read_tensors
from .batches import Batch, TrainingData
from .task import Task

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
        weight_decay: of everything but biases, scales, and the weights of normalisations.
        schedule: ``"constant"``; ``"cosine"`` down to 0; ``"milestones"``, times 0.2 at 40, 60 and 80 % of the
            steps, as COMET's authors do; ``"one_cycle"`` (Smith & Topin 2018, as in torch: 30 % of the steps up from
            1/25, then down to 1/250,000; with SGD its momentum 0.95 to 0.85 and back); ``"per_epoch"``, times 0.95
            after each.
        seed: of the order of samples and of everything drawn within a step.
        checkpoint_every: steps between two checkpoints.
        nesterov: whether SGD's momentum is Nesterov's.
        warmup: first steps, in which the rate rises evenly to its highest instead of following the schedule.
        part_lr: rates of parts of the task, as multiples: ``(beginning of the parameters' names, multiple)``.
        part_decay: weight decays of parts, in the same way.
        clip: longest gradient, over all parameters; left out, any.
        ema: decay of a running average of the weights, with which a training ends; 0 ends with the weights themselves.
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
    part_decay: tuple[tuple[str, float], ...] = ()
    clip: float | None = None
    ema: float = 0.0

    def __post_init__(self) -> None:
        if self.n_steps < 1 or self.batch_size < 1 or self.lr <= 0 or self.checkpoint_every < 1:
            raise InputError(
                f"Training was given n_steps={self.n_steps}, batch_size={self.batch_size}, lr={self.lr:g}, "
                f"checkpoint_every={self.checkpoint_every}. Numbers above zero were expected. Change them."
            )
        if not 0 <= self.ema < 1 or (self.clip is not None and self.clip <= 0):
            raise InputError(
                f"Training was given ema={self.ema:g}, clip={self.clip}. An average's decay from 0 to below 1, and a "
                "length above zero or none, were expected. Change them."
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
    task: Task,
    data: TrainingData,
    how: Training,
    *,
    checkpoint: tuple[Path, str] | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Train a task in place; it ends frozen, in evaluation mode, where it was before.

    A step depends on the seed, its number and the weights alone, so a run that was killed and started again ends at
    the weights of one that was not. Only the task's own parameters get gradients.

    Args:
        task: what is trained.
        data: what it learns from; torch's random numbers are seeded for every step.
        how: steps, optimiser, seed.
        checkpoint: a file, and a text that says what is trained on what: a file of another text is not gone on from.
            The caller deletes it when the result is safe.
        progress: hears of progress.

    Raises:
        InputError: there are no samples, not what the task needs of them, nothing learns, or the loss is not finite.
        DataError: the checkpoint cannot be written, or no picture of a batch can be read.
    """
    data.check(task)
    progress = progress or Progress()
    home = next(task.parameters()).device
    device = torch.device("cuda" if task.moves and torch.cuda.is_available() else home)
    run = _Run(task.to(device), how)
    seal = "" if checkpoint is None else json.dumps([checkpoint[1], asdict(how), data.n_samples], sort_keys=True)
    first = 0 if checkpoint is None else run.resume(checkpoint[0], seal, progress)
    steps, begun = range(first, how.n_steps), time.perf_counter()
    task.train()
    with closing(data.batches(steps, how.batch_size, how.seed)) as batches, seeded(how.seed), torch.enable_grad():
        for step in progress.track(steps, "Training", len(steps)):
            reseed(how.seed * 1_000_003 + step)
            run.step(step, next(batches).to(device), data.n_samples)
            if checkpoint is not None and (step + 1) % how.checkpoint_every == 0:
                run.keep(checkpoint[0], seal)
    run.finish(home)
    return Trained(run.history.steps(), (time.perf_counter() - begun) / len(steps) if steps else 0.0, first)


class _History:
    """Every step's terms: only added to, and read from the device only now and then."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.numbers = array("d")
        self.waiting: list[list[Tensor]] = []

    def add(self, terms: Mapping[str, Tensor]) -> bool:
        """Whether the numbers are to be read now."""
        self.names = self.names or list(terms)
        self.waiting.append([terms[name].detach() for name in self.names])
        if not any(term.is_cuda for term in self.waiting[-1]):
            return True
        self.waiting[-1] = [term.clone() for term in self.waiting[-1]]  # a task may go on changing what it gave
        return len(self.waiting) == 32

    def read(self, players: Sequence[str], lr: float) -> None:
        """Wait for the numbers, and see that those that go down are finite."""
        for terms in self.waiting:
            self.numbers.extend(round(float(term), 6) for term in terms)
            if not all(math.isfinite(terms[self.names.index(name)]) for name in players):
                raise InputError(
                    f"The loss is not finite at step {len(self)}. A smaller learning rate was expected: lr is {lr:g}. "
                    "Give a tenth of it."
                )
        self.waiting.clear()

    def __len__(self) -> int:
        return len(self.numbers) // max(1, len(self.names))

    def steps(self) -> tuple[dict[str, float], ...]:
        rows = torch.tensor(self.numbers, dtype=torch.float64).view(len(self), -1).tolist() if self.numbers else []
        return tuple(dict(zip(self.names, row, strict=True)) for row in rows)


class _Run:
    """A training under way: the task, its optimiser, its average and its history, which are kept together."""

    def __init__(self, task: Task, how: Training) -> None:
        self.task, self.how, self.history = task, how, _History()
        self.optimiser = _optimiser(task, how)
        named = {name: p for name, p in task.named_parameters() if p.requires_grad}
        self.own: list[Tensor] = list(named.values())
        self.average = {n: p.detach().clone() for n, p in named.items()} if how.ema else {}
        self.players = {
            name: [p for p in player.parameters() if p.requires_grad] for name, player in task.players().items()
        }

    def step(self, step: int, batch: Batch, n_samples: int) -> None:
        """Gradients, one step of the optimiser, and what follows the weights."""
        _set_rates(self.optimiser, self.how, step, n_samples)
        terms = self.task.loss(self.task.features(batch), batch)
        self.optimiser.zero_grad()
        for i, (name, own) in enumerate(self.players.items(), 1):
            terms[name].backward(inputs=own, retain_graph=i < len(self.players))
        if self.how.clip is not None:
            nn.utils.clip_grad_norm_(self.own, self.how.clip)
        self.optimiser.step()
        with torch.no_grad():
            if self.average:
                torch._foreach_lerp_(list(self.average.values()), self.own, 1 - self.how.ema)
            self.task.after_step()
        if self.history.add(terms):
            self.history.read(list(self.players), self.how.lr)

    def finish(self, home: torch.device) -> None:
        """The task as it is given back."""
        self.history.read(list(self.players), self.how.lr)
        for p, value in zip(self.own, self.average.values(), strict=False):
            p.data.copy_(value)
        self.task.eval().requires_grad_(False).to(home)

    def _trained(self) -> dict[str, Tensor]:
        """What a step changes: all of the task's state but frozen weights."""
        frozen = {name for name, p in self.task.named_parameters() if not p.requires_grad}
        state = {f"task.{n}": value for n, value in self.task.state_dict().items() if n not in frozen}
        return state | {f"average.{n}": value for n, value in self.average.items()}

    def keep(self, path: Path, seal: str) -> None:
        """Task, optimiser and history in one file, so that they always belong together."""
        self.history.read(list(self.players), self.how.lr)
        tensors = self._trained()
        for i, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{i}.{k}": v for k, v in state.items() if isinstance(v, Tensor)}
        plain = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
        plain["history"] = torch.tensor(self.history.numbers, dtype=torch.float64)
        facts = {"seal": seal, "history": json.dumps(self.history.names)}
        write(path, marked_tensors(plain, facts), CHECKPOINT)

    def resume(self, path: Path, seal: str, progress: Progress) -> int:
        """How many steps an earlier run left, put back; 0 where there is nothing or it was another training."""
        if not check_checkpoint(path).exists():
            return 0
        own = self._trained()
        try:
            # Weights and what the optimiser keeps of each; a task may be larger than anything else that is read.
            most = MAX_JSON + 8 * sum(value.nbytes for value in own.values()) + 1024 * self.how.n_steps
            tensors, about = read_tensors(path, most)
            names = parse_json(about.get("history", "[]"))
        except (OSError, ValueError):
            tensors, about, names = {}, {}, []
        if about.get("seal") != seal:
            progress.note(f"{path} belongs to another training or is damaged; this one begins at the first step")
            return 0
        numbers, state = tensors.pop("history", None), _optimiser_state(tensors, self.optimiser)
        kept = {name: value for name, value in tensors.items() if not name.startswith("optimiser.")}
        same = {n: (v.shape, v.dtype) for n, v in own.items()} == {n: (v.shape, v.dtype) for n, v in kept.items()}
        if not same or state is None or numbers is None or not isinstance(names, list):
            progress.note(f"{path} is damaged; this training begins at the first step")
            return 0
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(kept[name])
        self.optimiser.load_state_dict({"state": state, "param_groups": self.optimiser.state_dict()["param_groups"]})
        self.history.names, self.history.numbers = names, array("d", numbers.tolist())
        progress.note(f"going on at step {len(self.history) + 1}, where an earlier run was stopped")
        return len(self.history)


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


def _optimiser(task: Task, how: Training) -> torch.optim.Optimizer:
    """One group for each pair of a rate and a decay; the names of parameters and modules say which."""
    normal = {id(p) for m in task.modules() if "norm" in type(m).__name__.lower() for p in m.parameters(recurse=False)}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, p in task.named_parameters():
        if not p.requires_grad:
            continue
        plain = id(p) in normal or p.numel() == 1 or name.endswith(("bias", "scale"))
        multiple = _multiple(how.part_lr, name) * (how.bias_lr if name.endswith("bias") else 1.0)
        decay = 0.0 if plain else how.weight_decay * _multiple(how.part_decay, name)
        groups.setdefault((multiple, decay), []).append(p)
    given = [{"params": own, "multiple": m, "weight_decay": decay} for (m, decay), own in groups.items()]
    if how.optimiser == "sgd":
        return torch.optim.SGD(given, lr=how.lr, momentum=0.9, nesterov=how.nesterov)
    return torch.optim.AdamW(given, lr=how.lr)


def _multiple(parts: tuple[tuple[str, float], ...], name: str) -> float:
    return next((multiple for start, multiple in parts if name.startswith(start)), 1.0)


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
