"""Weights from the Hugging Face hub: from the cache without a network call, else one quick try, never a hang.

Naming an encoder of the hub is asking for it: what is not here is fetched from the repository that was named, and from
no other. Whatever the fetched files say, they are then loaded as a folder is: without network, without their code.
"""

from __future__ import annotations

import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..errors import WeightsError
from ..storage.output import make_folder
from ..storage.reading import file_sha256


def missing_weights(name: str, repo: str, filename: str, instead: str, reason: str) -> WeightsError:
    """The error for weights that are not here."""
    from huggingface_hub import constants

    return WeightsError(
        f"The weights of {name!r} are not on this machine: {filename} of {repo} was looked for in "
        f"{constants.HF_HUB_CACHE} and {reason}. A copy of that file was expected. On a machine with a network run "
        f"'huggingface-cli download {repo} --local-dir {repo.split('/')[-1]}', copy the folder here and use "
        f"{instead!r}, or set HF_HOME to a cache that holds it."
    )


def cached_file(repo: str, filename: str) -> Path | None:
    """A file of a repository in the hub's cache."""
    from huggingface_hub import constants, try_to_load_from_cache

    repo, _, revision = repo.partition("@")
    try:
        # The cache is named, as the library binds its default when it is imported.
        found = try_to_load_from_cache(repo, filename, constants.HF_HUB_CACHE, revision or None)
    except ValueError:  # no name that a repository can have
        return None
    return Path(found) if isinstance(found, str) else None


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


def fetch(name: str, repo: str, weights: Sequence[str], others: Sequence[str], instead: str) -> Path:
    """The folder of a repository in the cache, with its weights; asked for on the hub where they are not there.

    Args:
        name: the encoder as the user wrote it.
        repo: repository on the hub, ``@revision`` behind it where one was named.
        weights: the same weights under other names, and patterns of their parts; one of them is enough.
        others: patterns of the files that are read beside them.
        instead: the encoder name that reads a copied folder.

    Raises:
        WeightsError: not in the cache, and the hub may not be asked, does not answer or does not have it.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    for file in weights:
        if (found := cached_file(repo, file)) is not None:
            return found.parent
    if reason := unreachable():
        raise missing_weights(name, repo, weights[0], instead, reason)
    plain, _, revision = repo.partition("@")
    try:
        folder = Path(
            snapshot_download(
                plain,
                revision=revision or None,
                cache_dir=constants.HF_HUB_CACHE,
                allow_patterns=[*others, *_first_there(plain, revision, weights)],
            )
        )
    except (OSError, HfHubHTTPError, HFValidationError) as error:
        reason = f"the hub did not give it ({type(error).__name__})"
        raise missing_weights(name, repo, weights[0], instead, reason) from error
    if not any((folder / file).is_file() for file in weights):
        raise missing_weights(name, repo, weights[0], instead, "the hub has no such file there")
    return folder


def _first_there(repo: str, revision: str, weights: Sequence[str]) -> list[str]:
    """The first of the weights' names that the repository has, with its parts; the others are the same once more."""
    from huggingface_hub import HfApi, constants

    there = HfApi(constants.ENDPOINT).list_repo_files(repo, revision=revision or None)
    found = next((file for file in weights if file in there), weights[0])
    return [found, "model-*-of-*.safetensors"] if found.endswith(".index.json") else [found]


def fetch_url(name: str, url: str, instead: str) -> Path:
    """A published file in torch's cache, checked; asked for at its address where it is not there."""
    import torch

    file = url.rsplit("/", 1)[-1]
    path = Path(torch.hub.get_dir()) / "checkpoints" / file
    said = re.search(r"-([0-9a-f]{8,64})\.", file)
    if not path.exists():
        # torch.hub waits for minutes when nothing answers, so ask first, once and briefly.
        reason = "HF_HUB_OFFLINE forbids asking the network" if is_offline() else _silent(url)
        if reason:
            raise WeightsError(
                f"The weights of {name!r} are not on this machine: {file} was looked for in {path.parent} and "
                f"{reason}. A copy of that file was expected. On a machine with a network download {url}, copy it here "
                f"and use {instead!r}."
            )
        make_folder(path.parent)
        torch.hub.download_url_to_file(url, str(path), said and said[1], progress=True)
    try:
        digest = file_sha256(path)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error}. Delete it, and it is fetched again.") from error
    if said is not None and not digest.startswith(said[1]):
        raise WeightsError(
            f"{path} is not the file that was published: its SHA-256 begins with {digest[:8]}, and {said[1]} was "
            "expected. Delete it, and it is fetched again."
        )
    return path


def _silent(url: str) -> str:
    """Why an address cannot be asked; empty where it can."""
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=5).close()
    except (urllib.error.URLError, OSError) as error:
        return f"{url} does not answer ({type(error).__name__})"
    return ""
