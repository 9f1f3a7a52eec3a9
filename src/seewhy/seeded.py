"""Random numbers that follow from a seed, with the global generators left as they were found."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside this context, torch draws from this seed on every device. Afterwards its generators continue where they
    were.
    """
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield


def reseed(seed: int) -> None:
    """Inside :func:`seeded`, continue from another seed; ``torch.manual_seed`` would cost more than a small training
    step.
    """
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
