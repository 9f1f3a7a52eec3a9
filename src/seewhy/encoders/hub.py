"""Weights from the Hugging Face hub: from the cache without a network call, else one quick try, never a hang."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ..errors import WeightsError


def missing_weights(name: str, repo: str, filename: str, instead: str, reason: str) -> WeightsError:
    """The error for weights that are not here.

    Args:
        name: the encoder as the user wrote it.
        repo: repository on the hub.
        filename: file that was looked for.
        instead: the encoder name that reads a copied folder.
        reason: why the hub was not an answer.
    """
    from huggingface_hub import constants

    return WeightsError(
        f"The weights of {name!r} are not on this machine: {filename} of {repo} was looked for in "
        f"{constants.HF_HUB_CACHE} and {reason}. A copy of that file was expected. On a machine with a network run "
        f"'huggingface-cli download {repo} --local-dir {repo.split('/')[-1]}', copy the folder here and use "
        f"{instead!r}, or set HF_HOME to a cache that holds it."
    )


def is_cached(repo: str, filename: str) -> bool:
    """Whether the hub's cache holds a file of a repository."""
    from huggingface_hub import try_to_load_from_cache

    repo, _, revision = repo.partition("@")
    return isinstance(try_to_load_from_cache(repo, filename, revision=revision or None), str)


@contextmanager
def offline() -> Iterator[None]:
    """No hub library calls the network inside."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def is_offline() -> bool:
    """Whether ``HF_HUB_OFFLINE`` forbids the network, also when it was set after the hub's library was imported."""
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def unreachable(timeout_seconds: float = 5.0) -> str:
    """Why the hub cannot be asked, or an empty string when it can. The hub's own retries take minutes."""
    from huggingface_hub import constants, get_session

    if is_offline():
        return "HF_HUB_OFFLINE forbids asking the hub"
    try:
        get_session().head(constants.ENDPOINT, timeout=timeout_seconds)
    except Exception as error:
        return f"the hub at {constants.ENDPOINT} does not answer ({type(error).__name__})"
    return ""


@contextmanager
def from_hub(name: str, repo: str, filenames: Sequence[str], instead: str) -> Iterator[None]:
    """Load inside this: cached weights make no network call, missing ones a WeightsError.

    Args:
        name: the encoder as the user wrote it.
        repo: repository on the hub.
        filenames: the same weights under other names; one cached file is enough.
        instead: the encoder name that reads a copied folder.

    Raises:
        WeightsError: not in the cache, and the hub may not be asked, does not answer or does not have it.
    """
    if any(is_cached(repo, f) for f in filenames):
        reason = "the cached copy is not complete"
        context = offline()
    else:
        reason = unreachable()
        if reason:
            raise missing_weights(name, repo, filenames[0], instead, reason)
        reason = "the hub did not give it"
        context = _online()
    try:
        with context:
            yield
    except OSError as error:
        raise missing_weights(name, repo, filenames[0], instead, f"{reason} ({type(error).__name__})") from error


@contextmanager
def _online() -> Iterator[None]:
    yield
