"""The training loop: seeded, and resumable after an interruption."""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import FrameType
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from ..bounds import Checked, Count, OpenPart, Positive
from ..errors import DataError, InputError, SeeWhyError
from ..progress import Progress
from ..seeded import seeded
from ..storage.marks import CHECKPOINT
from ..storage.output import check_checkpoint, write
from ..storage.reading import MAX_JSON, parse_json, read_tensors
from ..storage.tensors import marked_tensors
from .batches import Batch, Processes, TrainingData
from .memory import cached_gradients, exact, measure
from .task import Schedule, Task, optimiser_of, optimiser_state, set_rates

SECONDS = 30.0
"""Seconds between two checkpoints, if the setting ``checkpoint_every`` is not given."""
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


@dataclass(frozen=True)
class Training(Checked):
    """The length, speed and seed of a training run.

    Attributes:
        n_steps: number of batches.
        batch_size: samples per batch over all processes; the last, incomplete batch of an epoch is dropped.
        optimiser: ``"sgd"`` (momentum 0.9) or ``"adamw"``.
        lr: highest learning rate.
        bias_lr: learning rate of biases, as a multiple of ``lr``.
        weight_decay: weight decay, not applied to biases, scales and normalisation layers.
        schedule: learning rate schedule: ``"constant"``; ``"cosine"``: decays to 0; ``"milestones"``: multiplied by 0.2
            after 40, 60 and 80 % of the steps, as in the code of COMET; ``"one_cycle"``: Smith & Topin 2018, as in
            torch: rises from ``lr / 25`` for 30 % of the steps, then falls to ``lr / 250000``; with SGD, the momentum
            goes from 0.95 to 0.85 and back; ``"per_epoch"``: multiplied by 0.95 after each epoch.
        seed: seed of the sample order and of all random numbers within a step.
        checkpoint_every: steps between checkpoints; default: 30 seconds, or ten times the time to write a checkpoint.
        nesterov: whether SGD uses Nesterov momentum.
        warmup: number of steps with a linear warm-up, in which ``schedule`` is ignored.
        part_lr: learning rates of parameter groups: pairs ``(prefix of the parameter names, multiple of lr)``.
        part_decay: weight decays of parameter groups: pairs ``(prefix of the parameter names, weight decay)``.
        clip: maximum norm of the gradient over all parameters; default: no clipping.
        ema: decay of an exponential moving average of the weights, which replaces the final weights; 0 turns it off.
        micro_batch: number of samples per forward pass; default: the whole batch if it fits in half of the free memory,
            otherwise as many samples as fit in 2 GB. With gradient caching, the gradient equals that of the whole
            batch, at the cost of a second forward pass.
        precision: ``"bf16"`` computes networks in bfloat16; GPU only.
    """

    noun = "Training"

    n_steps: Count
    batch_size: Count = 32
    optimiser: Literal["sgd", "adamw"] = "adamw"
    lr: Positive = 1e-3
    bias_lr: float = 1.0
    weight_decay: float = 5e-4
    schedule: Schedule = "one_cycle"
    seed: int = 0
    checkpoint_every: Count | None = None
    nesterov: bool = True
    warmup: int = 0
    part_lr: tuple[tuple[str, float], ...] = ()
    part_decay: tuple[tuple[str, float], ...] = ()
    clip: Positive | None = None
    ema: OpenPart = 0.0
    micro_batch: Count | None = None
    precision: Literal["f32", "bf16"] = "f32"

    @classmethod
    def of(cls, how: Any, **more: Any) -> Self:
        """Return the settings that are fields of a method, such as ``lr``; ``more`` replaces or adds settings."""
        own = {field.name: getattr(how, field.name) for field in fields(cls) if hasattr(how, field.name)}
        return cls(**{**own, **more})

    @classmethod
    def cosine(cls, how: Any, data: TrainingData, lr: float, **more: Any) -> Self:
        """Return settings with a warm-up of up to 20 steps followed by a cosine schedule."""
        size = min(how.batch_size, data.n_samples)
        steps = how.epochs * data.steps_per_epoch(size)
        usual = {"schedule": "cosine", "warmup": min(20, steps // 5)}
        return cls.of(how, n_steps=steps, batch_size=size, lr=lr, **usual, **more)


@dataclass(frozen=True)
class Trained:
    """The result of a finished training run."""

    history: tuple[dict[str, float], ...]
    seconds_per_step: float
    resumed_at: int

    @property
    def loss(self) -> float:
        """The mean loss of the last 20 steps."""
        return mean_terms(self.history[-20:])["loss"]


def mean_terms(steps: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the mean of each loss term over the steps."""
    return {name: round(sum(step[name] for step in steps) / len(steps), 4) for name in (steps[0] if steps else ())}


def train(
    task: Task,
    data: TrainingData,
    how: Training,
    *,
    checkpoint: tuple[Path, str] | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Train a task in place, and return it frozen, in evaluation mode, and on its original device.

    On Ctrl-C, ``SIGTERM`` or ``SIGHUP``, the loop finishes the current step and writes a checkpoint. A resumed run ends
    with the same weights as an uninterrupted one. Under ``torchrun``, each process computes an equal share of every
    batch.
    """
    data.check(task)
    among = Processes.joined()
    size = min(how.batch_size, data.n_samples)
    if size < among.world:
        raise InputError(
            f"`batch_size` must be at least the number of processes ({among.world}), got {size}. Start "
            "fewer processes or raise batch_size."
        )
    progress = progress if progress is not None and among.rank == 0 else Progress()
    home = next(task.parameters()).device
    device = torch.device(f"cuda:{among.local}" if task.moves and torch.cuda.is_available() else home)
    if how.precision == "bf16" and device.type != "cuda":
        raise InputError(
            f"precision='bf16' requires a GPU, but the training runs on {device.type}. Leave `precision` out."
        )
    run = _Run(task.to(device), data, how, among, progress, checkpoint)
    first = run.resume()
    among.agree(run.trained(), first)
    steps, begun = range(first, how.n_steps), time.perf_counter()
    task.train()
    if steps:
        run.fit_into_memory(device)
    with ExitStack() as stack:
        batches = stack.enter_context(closing(data.batches(steps, how.batch_size, how.seed, among)))
        for context in (torch.enable_grad(), exact(task, run.in_parts())):
            stack.enter_context(context)
        if run.path is not None:
            stack.enter_context(run.interrupt.heard())
            stack.enter_context(run.kept_on_error())
        for step in progress.track(steps, "Training", len(steps)):
            stops = run.step(step, next(batches).to(device))
            keeps = run.path is not None and (stops or run.due(step))
            if keeps:
                run.read()
            progress.measured(step + 1, run.history.last)
            if keeps:
                run.keep()
            if stops:
                run.stop()
        run.read()
        if run.interrupt.signal is not None:  # the signal came while the last step was written
            run.stop()
    for p, value in zip(run.own, run.average.values(), strict=False):
        p.data.copy_(value)
    task.eval().requires_grad_(False).to(home)
    return Trained(run.history.steps(), (time.perf_counter() - begun) / len(steps) if steps else 0.0, first)


class Interrupt:
    """A signal handler that delays the first signal to the end of a step; a second signal acts at once."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._handlers: dict[int, Callable[[int, FrameType | None], Any] | int] = {}

    @contextmanager
    def heard(self) -> Iterator[None]:
        try:
            if threading.current_thread() is threading.main_thread():
                for number in SIGNALS:
                    handler = signal.getsignal(number)
                    if handler is not None and handler != signal.SIG_IGN:
                        self._handlers[number] = handler
                        signal.signal(number, self._hear)
            yield
        finally:
            self._give_back()

    def _give_back(self) -> None:
        while self._handlers:
            signal.signal(*self._handlers.popitem())

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        self._give_back()

    def act(self) -> None:
        """Raise the delayed signal; Ctrl-C becomes a ``KeyboardInterrupt``."""
        self._give_back()
        number, self.signal = self.signal or signal.SIGTERM, None
        signal.raise_signal(number)


class History:
    """The loss terms of every step, copied from the device in groups of 32 steps."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.numbers = array("d")
        self.waiting: list[list[Tensor]] = []

    def add(self, terms: Mapping[str, Tensor]) -> bool:
        """Add the terms of one step, and return whether to copy the numbers from the device now."""
        self.names = self.names or list(terms)
        if not set(self.names) <= set(terms):
            raise DataError(
                f"The checkpoint must have the loss terms {', '.join(terms)}, got "
                f"{', '.join(self.names):.200}. Delete the checkpoint and start again."
            )
        self.waiting.append([terms[name].detach() for name in self.names])
        if not any(term.is_cuda for term in self.waiting[-1]):
            return True
        self.waiting[-1] = [term.clone() for term in self.waiting[-1]]  # the task may change its tensors in place
        return len(self.waiting) == 32

    def resume(self, names: Any, numbers: Tensor) -> bool:
        """Restore the loss terms from a checkpoint, and return whether all steps are present."""
        fits = isinstance(names, list) and all(isinstance(n, str) for n in names) and len(set(names)) == len(names)
        if not fits or numbers.ndim != 1 or (len(numbers) % len(names) if names else len(numbers)):
            return False
        self.names, self.numbers = names, array("d", numbers.tolist())
        return True

    @property
    def last(self) -> dict[str, float]:
        """The terms of the last step that was copied from the device."""
        n = len(self.names)
        return dict(zip(self.names, self.numbers[-n:], strict=True)) if n and self.numbers else {}

    def __len__(self) -> int:
        return len(self.numbers) // max(1, len(self.names))

    def steps(self) -> tuple[dict[str, float], ...]:
        rows = torch.tensor(self.numbers, dtype=torch.float64).view(len(self), -1).tolist() if self.numbers else []
        return tuple(dict(zip(self.names, row, strict=True)) for row in rows)


class _Run:
    """The state of a training run: the task, its optimiser, the moving average and the history."""

    def __init__(
        self,
        task: Task,
        data: TrainingData,
        how: Training,
        among: Processes,
        progress: Progress,
        checkpoint: tuple[Path, str] | None,
    ) -> None:
        self.task, self.data, self.how, self.among, self.progress = task, data, how, among, progress
        self.path: Path | None
        self.path, what = checkpoint or (None, "")
        # Task, data and settings, except those that do not change the result.
        facts = {n: value for n, value in asdict(how).items() if n not in ("checkpoint_every", "micro_batch")}
        self.seal = json.dumps([what, facts, data.n_samples], sort_keys=True)
        self.history, self.interrupt = History(), Interrupt()
        self.at_once = how.micro_batch
        self.was_at_once: int | None = None
        self.kept, self.unkept, self.due_at = "", False, time.monotonic() + SECONDS
        self.optimiser = optimiser_of(task, how)
        named = {name: p for name, p in task.named_parameters() if p.requires_grad}
        self.own: list[Tensor] = list(named.values())
        self.average = {n: p.detach().clone() for n, p in named.items()} if how.ema else {}
        self.players = {
            name: [p for p in player.parameters() if p.requires_grad] for name, player in task.players().items()
        }

    def in_parts(self) -> str | None:
        """Return the reason why a batch is split, or ``None`` if it is not."""
        if self.how.micro_batch is not None and len(self.players) > 1:
            raise InputError(
                f"`micro_batch` must not be set for {type(self.task).__name__}, which has "
                f"{len(self.players)} losses. Leave it out."
            )
        if self.among.world > 1:
            return f"{self.among.world} processes compute a part of each batch"
        return None if self.at_once is None else f"micro_batch={self.at_once} computes batches in parts"

    def fit_into_memory(self, device: torch.device) -> None:
        """Choose the micro-batch size, and report the memory that a step takes."""
        n = -(-min(self.how.batch_size, self.data.n_samples) // self.among.world)
        found = measure(self.task, self.data, n, self.how.seed, device)
        if found is None:
            return
        if self.how.micro_batch is None:
            sizes = [size for size in (found.at_once(n), self.was_at_once) if size is not None and size < n]
            self.at_once = min(sizes, default=None)
        if (note := found.say(n, self.at_once)) is not None:
            self.progress.note(note)

    def step(self, step: int, batch: Batch) -> bool:
        """Run one step, and return whether any process was asked to stop."""
        self.unkept = False
        set_rates(self.optimiser, self.how, step, self.data.n_samples)
        self.optimiser.zero_grad()
        seed = self.how.seed * 1_000_003 + step
        terms = self._gradients(batch, seed if not self.among.rank else (seed + self.among.rank * 2**40) % 2**63)
        stops = self.interrupt.signal is not None
        if self.among.world > 1:
            terms, stops = self.among.average(self.own, terms, len(batch), stop=stops)
        if self.history.add(terms):
            self.read()
        if self.how.clip is not None:
            nn.utils.clip_grad_norm_(self.own, self.how.clip)
        self.optimiser.step()
        with torch.no_grad():
            if self.average:
                torch._foreach_lerp_(list(self.average.values()), self.own, 1 - self.how.ema)
            self.task.after_step()
        self.unkept = True
        return stops if self.among.world > 1 else self.interrupt.signal is not None

    def _gradients(self, batch: Batch, seed: int) -> Mapping[str, Tensor]:
        """Compute the gradients of the whole batch, and return its loss terms."""
        alone, micro, device = self.among.world == 1, self.at_once, self.own[0].device.type
        weight = 1.0 if alone else float(len(batch))
        half = torch.autocast(device, torch.bfloat16) if self.how.precision == "bf16" else nullcontext()
        if micro is not None and micro < len(batch):
            with half:
                return cached_gradients(self.task, batch, self.own, micro, seed, weight)
        with half, seeded(seed):
            terms = self.task.loss(self.task.features(batch), batch)
        for i, (name, own) in enumerate(self.players.items(), 1):
            down = terms[name] if alone else weight * terms[name]
            down.backward(inputs=own, retain_graph=i < len(self.players))
        return terms

    def read(self) -> None:
        """Copy the terms from the device, and check that the losses are finite."""
        history = self.history
        for terms in history.waiting:
            history.numbers.extend(round(float(term), 6) for term in terms)
            if not all(math.isfinite(terms[history.names.index(name)]) for name in self.players):
                raise InputError(
                    f"The loss is not finite at step {len(history)}{self.kept}. Lower the learning rate, for "
                    f"example to a tenth of {self.how.lr:g}."
                )
        history.waiting.clear()

    def trained(self) -> dict[str, Tensor]:
        """Return the tensors that a step changes: the task's state without frozen weights."""
        frozen = {name for name, p in self.task.named_parameters() if not p.requires_grad}
        state = {f"task.{n}": value for n, value in self.task.state_dict().items() if n not in frozen}
        return state | {f"average.{n}": value for n, value in self.average.items()}

    def due(self, step: int) -> bool:
        if step + 1 == self.how.n_steps:
            return True
        if self.how.checkpoint_every is not None:
            return (step + 1) % self.how.checkpoint_every == 0
        return time.monotonic() >= self.due_at

    def stop(self, *, act: bool = True) -> None:
        done, n = len(self.history), self.how.n_steps
        self.progress.note(f"stopped after step {done} of {n}{self.kept}; run the same command to resume")
        if act:
            self.interrupt.act()

    @contextmanager
    def kept_on_error(self) -> Iterator[None]:
        """Write a checkpoint if an error occurs between two steps."""
        try:
            yield
        except BaseException:
            if self.unkept and self.interrupt.signal is None:  # a second signal acts at once
                with suppress(SeeWhyError):  # the first error is the one to hear of
                    self.keep()
                    self.stop(act=False)
            raise

    def keep(self) -> None:
        """Write the task, the optimiser and the history to one file."""
        assert self.path is not None
        self.unkept = False
        self.read()
        self.kept = f"; the checkpoint {self.path} is at step {len(self.history)}"
        if self.among.rank:
            return
        begun = time.monotonic()
        tensors = self.trained()
        for i, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{i}.{k}": v for k, v in state.items() if isinstance(v, Tensor)}
        plain = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
        plain["history"] = torch.tensor(self.history.numbers, dtype=torch.float64)
        facts = {"seal": self.seal, "history": json.dumps(self.history.names), "at_once": json.dumps(self.at_once)}
        write(self.path, marked_tensors(plain, facts), CHECKPOINT)
        self.due_at = time.monotonic() + max(SECONDS, 10 * (time.monotonic() - begun))

    def resume(self) -> int:
        """Load the checkpoint, and return its number of steps; 0 if there is none or it belongs to another training."""
        path, note = self.path, self.progress.note
        if path is None or not check_checkpoint(path).exists():
            return 0
        own = self.trained()
        try:
            # Size limit for the weights and the optimiser state.
            most = MAX_JSON + 8 * sum(value.nbytes for value in own.values()) + 1024 * self.how.n_steps
            tensors, about = read_tensors(path, most)
            names, size = parse_json(about.get("history", "[]")), parse_json(about.get("at_once", "null"))
        except (OSError, ValueError):
            tensors, about, names, size = {}, {}, [], None
        if about.get("seal") != self.seal:
            note(f"{path} is damaged or belongs to another training; starting at step 1")
            return 0
        numbers, state = tensors.pop("history", None), optimiser_state(tensors, self.optimiser)
        kept = {name: value for name, value in tensors.items() if not name.startswith("optimiser.")}
        same = {n: (v.shape, v.dtype) for n, v in own.items()} == {n: (v.shape, v.dtype) for n, v in kept.items()}
        if not same or state is None or numbers is None or not self.history.resume(names, numbers):
            note(f"{path} is damaged; starting at step 1")
            return 0
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(kept[name])
        self.optimiser.load_state_dict({"state": state, "param_groups": self.optimiser.state_dict()["param_groups"]})
        self.was_at_once = size if isinstance(size, int) and size > 0 else None
        done, n = len(self.history), self.how.n_steps
        self.kept = f"; the checkpoint {path} is at step {done}"
        rest = f"resuming at step {done + 1}"
        note(rest if done < n else f"all {done} steps were finished by an earlier run")
        return done
