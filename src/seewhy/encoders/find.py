"""From the name of an encoder to the encoder; what is read from a file never chooses what is loaded."""

from __future__ import annotations

import importlib
import shlex
from fnmatch import fnmatchcase
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from ..arguments import checked
from ..errors import InputError, ModelError, UnknownNameError
from .base import Encoder

ADAPTED = "encoder.json"
"""By which a folder is known that ``seewhy adapt`` made."""
EMBEDDED = ("lite0", "lite1", "lite2")
BEGINNINGS = ("new:resnet", "new:vit", "new:vit_swl")
"""Made of random numbers: nothing is read, and no address is asked. A side may follow, as in ``new:resnet/32``."""
LONGEST = 200
"""Signs of a name out of a file that are shown."""
SCHEMES = {
    "timm": "timm", "torchvision": "torchvision", "open_clip": "open_clip", "hf": "huggingface",
    "mllm": "multimodal", "file": "weights", "new": "new", "diffusion": "diffusion",
}  # fmt: skip


@cache
def schemes() -> dict[str, str]:
    """Scheme → full name of the module with its ``load``, and ``names`` where it can list them.

    A package adds a scheme by an entry point in the group ``seewhy.encoders`` that names such a module; it cannot
    replace a scheme of SeeWhy's.
    """
    theirs = {point.name: point.value for point in entry_points(group="seewhy.encoders")}
    return theirs | {scheme: f"{__package__}.{stem}" for scheme, stem in SCHEMES.items()}


def is_there(place: str) -> bool:
    """Whether a text is the path of an existing file or folder; a sentence may be too long for a path."""
    try:
        return Path(place).exists()
    except (OSError, ValueError):
        return False


@checked
def encoder(name: str = "lite0", *, engine: str = "auto", **options: Any) -> Encoder:
    """Load an encoder by name.

    Args:
        name: ``"lite0"``, ``"lite1"``, ``"lite2"`` (embedded), or ``"timm:NAME"``, ``"torchvision:NAME"``,
            ``"open_clip:MODEL/PRETRAINED"``, ``"hf:ORG/NAME"``, ``"file:PATH.safetensors"``; each also takes a
            local folder, and ``"mllm:FOLDER"`` and ``"diffusion:FOLDER"`` nothing else. Or the folder of an encoder
            that ``seewhy adapt`` made. Packages add schemes of their own (:func:`schemes`). With ``#WORDS`` after it,
            the encoder under an instruction, as in ``"enc#the colour"`` (:meth:`Encoder.under`).
        engine: ``"auto"``, ``"torch"``, ``"onnxruntime"`` or ``"openvino"``.
        **options: passed to the scheme's loader.

    Raises:
        UnknownNameError: no such encoder or scheme.
        WeightsError: its weights are not on this machine; the message names the missing file and how to get it.
        MissingExtraError: its library is not installed; the message names the extra.
    """
    whole, mark, condition = name.partition("#")
    if mark and not is_there(name if ":" not in whole else name.partition(":")[2]):
        return encoder(whole, engine=engine, **options).under(condition)
    scheme, colon, rest = name.partition(":")
    if name in EMBEDDED:
        module, rest = importlib.import_module(".embedded", __package__), name
    elif (Path(name.partition("@")[0]) / ADAPTED).is_file():
        module, rest = importlib.import_module(schemes()["adapted"]), name
    elif not colon or scheme not in schemes():
        raise UnknownNameError("encoder", name, [*EMBEDDED, *(f"{s}:{name}" for s in schemes())])
    else:
        module = importlib.import_module(schemes()[scheme])
    try:
        found: Encoder = module.load(rest, engine=engine, **options)
    except TypeError as error:
        if not options:
            raise
        raise InputError(
            f"The encoder {name!r} was given {', '.join(options)}, but its loader refused: {error}. Expected options "
            f"of its loader. See help({module.__name__}.load), or leave them out."
        ) from error
    return found


@checked
def list_encoders(pattern: str = "*") -> list[str]:
    """List the names that :func:`encoder` takes, the embedded ones first. Other weights are downloaded on first use.

    :func:`encoder` also takes ``hf:ORG/NAME`` and ``file:PATH``, which cannot be listed.

    Args:
        pattern: list only matching names; ``*`` stands for anything: ``"timm:resnet*"``.

    Example:
        >>> list_encoders("lite*"), list_encoders("torchvision:resnet1*")
        (['lite0', 'lite1', 'lite2'], ['torchvision:resnet101', 'torchvision:resnet152', 'torchvision:resnet18'])
    """
    found = [*EMBEDDED]
    for scheme, place in schemes().items():
        if fnmatchcase(scheme, pattern.partition(":")[0]):
            module = importlib.import_module(place)
            found += [f"{scheme}:{name}" for name in getattr(module, "names", list)()]
    return [name for name in found if fnmatchcase(name, pattern)]


def saved_encoder(
    about: Any,
    given: Encoder | str | None,
    *,
    engine: str,
    place: str,
    command: str,
    again: str,
    argument: str = "encoder",
) -> Encoder:
    """Load the encoder that a saved file was made with.

    A file may name an embedded encoder or one with random weights. SeeWhy loads any other only if a person names it,
    because a name decides which library reads which file and which address it calls.
    """
    name, fingerprint = about["encoder"], about["fingerprint"]
    if not isinstance(name, str) or not isinstance(fingerprint, str):
        raise TypeError(f"its encoder is {name!r} of {fingerprint!r}")
    if given is None:
        if name not in EMBEDDED and name.partition("/")[0] not in BEGINNINGS:
            cure = (
                f"If you trust it, name it: {command.replace('{}', shlex.quote(name))} (from Python: "
                f"{argument}={name!r})"
            )
            if name.partition(":")[0] not in schemes() or shown(name) != name:
                cure = f"No name loads this encoder, so pass it from Python: {argument}=…."
            raise ModelError(
                f"{place} was made with the encoder '{shown(name)}'. SeeWhy never loads an encoder only because a file "
                f"names it. {cure}"
            )
        given = name
    if isinstance(given, str):
        if given in EMBEDDED:
            from .embedded import fingerprint_of

            _check(fingerprint_of(given), given, fingerprint, name, place, again)
        given = encoder(given, engine=engine)
    _check(given.fingerprint, given.name, fingerprint, name, place, again)
    return given


def shown(name: str) -> str:
    """A name from a file, on one line, without characters that act on a terminal."""
    short = name if len(name) <= LONGEST else name[:LONGEST] + "…"
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in short)


def _check(found: str, found_name: str, made: str, made_name: str, place: str, again: str) -> None:
    if found != made:
        raise ModelError(
            f"{place} was made with '{shown(made_name)}' of fingerprint {shown(made[:12])}; this is "
            f"'{shown(found_name)}' of {found[:12]}, so their features cannot be compared. Use the same weights, or "
            f"{again}."
        )
