"""Gradients of a large batch in the memory of a small one: features first, the loss on all, then part by part.

Gao et al. 2021, arXiv 2101.06983 (gradient caching). The loss sees the whole batch, so that in-batch negatives, learnt
temperatures and biases get the very gradient of the full batch, which summing over parts does not give.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..encoders.split import hooked
from ..errors import InputError
from ..seeded import reseed
from .batches import Batch
from .task import Task


def cached_gradients(
    task: Task, batch: Batch, own: Sequence[Tensor], size: int, seed: int, weight: float
) -> Mapping[str, Tensor]:
    """Add the gradients of a batch to its parameters, and give the terms.

    Costs one more pass forward than the full batch. Random numbers of each part are seeded by its number, and are the
    same in both passes.
    """
    parts, found = batch.parts(size), []
    with torch.no_grad():
        for i, part in enumerate(parts):
            reseed(_seed(seed, i))
            found.append(task.features(part))
            _check(task, found[-1], len(part))
    whole = _joined(found)
    leaves = [leaf.requires_grad_() for leaf in tensors_in(whole) if leaf.is_floating_point()]
    reseed(seed)
    terms = task.loss(whole, batch)
    (weight * terms["loss"]).backward(inputs=[*leaves, *own])
    slopes = [leaf.grad if leaf.grad is not None else torch.zeros_like(leaf) for leaf in leaves]
    pieces = zip(*(slope.split(size) for slope in slopes), strict=True)
    for i, (part, piece) in enumerate(zip(parts, pieces, strict=True)):
        reseed(_seed(seed, i))
        outputs = [value for value in tensors_in(task.features(part)) if value.is_floating_point()]
        learn = [(value, slope) for value, slope in zip(outputs, piece, strict=True) if value.requires_grad]
        if learn:
            torch.autograd.backward([v for v, _ in learn], [s for _, s in learn], inputs=list(own))
    return terms


def _seed(seed: int, part: int) -> int:
    return (1009 * seed + part + 1) % 2**63


@contextmanager
def exact(task: Task, reason: str | None) -> Iterator[None]:
    """See that nothing in a task depends on which samples are computed together."""

    def refuse(module: nn.Module, _: Any) -> None:
        if normalises(module):
            raise InputError(
                f"{type(task).__name__} normalises by the statistics of what is computed together, and {reason}. "
                "Statistics that are held, or a normalisation of each sample, were expected. Put its batch "
                "normalisations into evaluation mode, or train in one piece."
            )

    normal = [m for m in task.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    handles = [] if reason is None else [m.register_forward_pre_hook(refuse) for m in normal]
    with hooked(handles):
        yield


def normalises(module: nn.Module) -> bool:
    """Whether a module is a batch normalisation that takes the statistics of what it is given."""
    normal = isinstance(module, nn.modules.batchnorm._BatchNorm)
    return normal and (module.training or getattr(module, "running_mean", None) is None)


def _each(value: Any, of: Callable[[list[Tensor]], Any], others: list[Any]) -> Any:
    """The same places of several alike values, put together."""
    if isinstance(value, Tensor):
        return of(others)
    if isinstance(value, dict):
        return {name: _each(one, of, [other[name] for other in others]) for name, one in value.items()}
    if isinstance(value, list | tuple):
        made = [_each(one, of, [other[i] for other in others]) for i, one in enumerate(value)]
        return made if isinstance(value, list) else tuple(made)
    return value


def _joined(found: list[Any]) -> Any:
    return _each(found[0], torch.cat, found)


def tensors_in(value: Any) -> list[Tensor]:
    """Every tensor in dicts, lists and tuples, however deep."""
    kept: list[Tensor] = []
    _each(value, lambda one: kept.extend(one), [value])
    return kept


def has_rows(features: Any, n: int) -> bool:
    """Whether features have a row for each of ``n`` samples."""
    every = tensors_in(features)
    return bool(every) and all(value.shape[:1] == (n,) for value in every)


def _check(task: Task, features: Any, n: int) -> None:
    if not has_rows(features, n):
        given = ", ".join(str(tuple(value.shape)) for value in tensors_in(features)) or "nothing"
        raise InputError(
            f"{type(task).__name__} was given micro_batch, and made features of the shapes {given} of {n} samples. One "
            "row a sample was expected. Leave micro_batch out, or move what needs the whole batch into the loss."
        )
