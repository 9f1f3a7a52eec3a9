"""Load encoders by name."""

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
from ..storage.archive import FolderArchive
from ..threads import import_libraries
from .base import Encoder

ADAPTED = "encoder.json"
"""Name of the file that marks a folder made by ``seewhy adapt``; ``CLASSIFIER``: made by ``seewhy fit``."""
CLASSIFIER = "seewhy.json"
EMBEDDED = ("lite0", "lite1", "lite2")
BEGINNINGS = ("new:resnet", "new:vit", "new:vit_swl")
"""Encoders with random weights, which read no files."""
LONGEST = 200
"""Largest number of characters shown of a name from a file."""
SCHEMES = {
    "timm": "timm", "torchvision": "torchvision", "open_clip": "open_clip", "hf": "huggingface",
    "mllm": "multimodal", "file": "weights", "new": "new", "diffusion": "diffusion",
}  # fmt: skip


@cache
def schemes() -> dict[str, str]:
    """Return, for each scheme such as ``timm:``, the full name of the module that loads it.

    A package adds a scheme by an entry point in the group ``seewhy.encoders`` that names a module with a function
    ``load`` and optionally ``names`` and ``LIBRARIES``, the modules to import before it. A package cannot replace a
    built-in scheme.
    """
    theirs = {point.name: point.value for point in entry_points(group="seewhy.encoders")}
    return theirs | {scheme: f"{__package__}.{stem}" for scheme, stem in SCHEMES.items()}


def is_there(place: str) -> bool:
    """Check whether a text is the path of an existing file or folder."""
    try:
        return Path(place).exists()
    except (OSError, ValueError):
        return False


@checked
def encoder(name: str = "lite0", *, engine: str = "auto", **options: Any) -> Encoder:
    """Load an encoder by name.

    Args:
        name: one of
                - an embedded encoder, ``"lite0"``, ``"lite1"`` or ``"lite2"``;
                - the folder of an encoder that ``seewhy adapt`` wrote, or of a classifier, for its encoder;
                - ``"timm:NAME"``, ``"torchvision:NAME"``, ``"open_clip:MODEL/PRETRAINED"``, ``"hf:ORG/NAME"`` or
                    ``"file:PATH.safetensors"``, or a local folder after the colon;
                - ``"mllm:FOLDER"`` or ``"diffusion:FOLDER"``;
                - a name with a scheme of another package (:func:`schemes`).
            An instruction may follow after ``#``, as in ``"enc#the colour"`` (:meth:`Encoder.under`).
        engine: ``"auto"``, ``"torch"``, ``"onnxruntime"`` or ``"openvino"``.
        **options: keyword arguments of the scheme's function ``load``.

    Raises:
        UnknownNameError: the encoder or scheme does not exist.
        WeightsError: the weights are not on this machine; the message says how to get them.
        MissingExtraError: the library is not installed; the message names the extra.
    """
    whole, mark, condition = name.partition("#")
    if mark and not is_there(name if ":" not in whole else name.partition(":")[2]):
        return encoder(whole, engine=engine, **options).under(condition)
    scheme, colon, rest = name.partition(":")
    if name in EMBEDDED:
        module, rest = importlib.import_module(".embedded", __package__), name
    elif any((Path(name.partition("@")[0]) / card).is_file() for card in (ADAPTED, CLASSIFIER)):
        module, rest = importlib.import_module(schemes()["adapted"]), name
    elif not colon or scheme not in schemes():
        raise UnknownNameError("encoder", name, [*EMBEDDED, *(f"{s}:{name}" for s in schemes())])
    else:
        module = importlib.import_module(schemes()[scheme])
    import_libraries(*getattr(module, "LIBRARIES", ()))
    try:
        found: Encoder = module.load(rest, engine=engine, **options)
    except TypeError as error:
        if not options:
            raise
        raise InputError(
            f"The loader of {name!r} does not accept the options {', '.join(options)}: {error}. See "
            f"help({module.__name__}.load)."
        ) from error
    return found


@checked
def list_encoders(pattern: str = "*") -> list[str]:
    """List the encoder names that match a pattern, embedded encoders first.

    The list has no names that begin with ``hf:``, ``file:``, ``mllm:`` or ``diffusion:``. Weights are downloaded on
    first use.

    Args:
        pattern: pattern of names, in which ``*`` matches everything: ``"timm:resnet*"``.

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
    """Load the encoder with which a saved file was made.

    The name in the file is used only for embedded encoders and encoders with random weights. The user must name any
    other encoder, because a name decides which files are read and which addresses are called.
    """
    name, fingerprint = _name_and_fingerprint(about)
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


def encoder_in(
    archive: FolderArchive, folder: Path, given: Encoder | str | None, *, engine: str, command: str,
    key: str = "encoder",
) -> tuple[dict[str, Any], Encoder]:  # fmt: skip
    """Return the card of a saved folder, and the encoder of :func:`saved_encoder` that it describes under ``key``."""
    card = archive.load_card(folder)
    with archive.reading(folder):
        _name_and_fingerprint(card[key])
    place, again = str(folder), archive.again
    return card, saved_encoder(card[key], given, engine=engine, place=place, command=command, again=again, argument=key)


def _name_and_fingerprint(about: Any) -> tuple[str, str]:
    name, fingerprint = about["encoder"], about["fingerprint"]
    if not isinstance(name, str) or not isinstance(fingerprint, str):
        raise TypeError(f"its encoder and fingerprint must be texts, got {name!r} and {fingerprint!r}")
    return name, fingerprint


def shown(name: str) -> str:
    """Shorten and escape a name for display on one line."""
    short = name if len(name) <= LONGEST else name[:LONGEST] + "…"
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in short)


def _check(found: str, found_name: str, made: str, made_name: str, place: str, again: str) -> None:
    if found != made:
        raise ModelError(
            f"{place} needs '{shown(made_name)}' with the fingerprint {shown(made[:12])}, got '{shown(found_name)}' "
            f"with {found[:12]}. Use the same weights, or {again}."
        )
