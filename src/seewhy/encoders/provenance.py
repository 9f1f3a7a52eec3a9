"""Which encoder looks for something that was saved: what is read from a file never chooses what is loaded."""

from __future__ import annotations

import shlex
from typing import Any

from ..errors import ModelError
from .base import Encoder
from .find import BEGINNINGS, EMBEDDED, encoder, schemes

LONGEST = 200
"""Signs of a name out of a file that are shown."""


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
    """The encoder that something was made with.

    A file may name an embedded encoder, which is part of what is installed, or one that begins from nothing, for which
    no file is read. Any other is loaded only where a person names it, for a name decides which library reads which
    file, and asks which address.
    """
    name, fingerprint = about["encoder"], about["fingerprint"]
    if not isinstance(name, str) or not isinstance(fingerprint, str):
        raise TypeError(f"its encoder is {name!r} of {fingerprint!r}")
    if given is None:
        if name not in EMBEDDED and name.partition("/")[0] not in BEGINNINGS:
            raise _unnamed(name, place, command, argument)
        given = name
    if isinstance(given, str):
        if given in EMBEDDED:
            from .embedded import fingerprint_of

            _check(fingerprint_of(given), given, fingerprint, name, place, again)
        given = encoder(given, engine=engine)
    _check(given.fingerprint, given.name, fingerprint, name, place, again)
    return given


def shown(name: str) -> str:
    """A name out of a file, on one line, with nothing in it that acts on a terminal."""
    short = name if len(name) <= LONGEST else name[:LONGEST] + "…"
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in short)


def _unnamed(name: str, place: str, command: str, argument: str) -> ModelError:
    begun = (
        f"{place} was made with the encoder '{shown(name)}', and what is read from a file never chooses what is loaded"
    )
    if name.partition(":")[0] not in schemes() or shown(name) != name:
        return ModelError(
            f"{begun}. The encoder itself was expected, as no name brings it back. Pass it from Python: {argument}=…."
        )
    return ModelError(
        f"{begun}. You were expected to name it. Where you trust it, type: {command.replace('{}', shlex.quote(name))} "
        f"(from Python: {argument}={name!r})"
    )


def _check(found: str, found_name: str, made: str, made_name: str, place: str, again: str) -> None:
    if found != made:
        raise ModelError(
            f"{place} was made with '{shown(made_name)}' of fingerprint {shown(made[:12])}; this is "
            f"'{shown(found_name)}' of {found[:12]}, and what they see cannot be compared. Bring the same weights, or "
            f"{again}."
        )
