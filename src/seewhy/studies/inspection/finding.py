"""Faults of labelled pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from ...explanation.result import Json, Result
from ...results import Doc, Share


@dataclass(frozen=True)
class Like(Result):
    """A similar picture and its cosine."""

    image: Annotated[str, Doc("its file name")]
    label: Annotated[str, Doc("its label")]
    cosine: Annotated[float, Doc("cosine of the features of both pictures")]


@dataclass(frozen=True)
class Likes(Result):
    own: Annotated[tuple[Like, ...], Doc("the nearest pictures with the same label, without copies")] = ()
    other: Annotated[tuple[Like, ...], Doc("the nearest pictures with the proposed label")] = ()


@dataclass(frozen=True)
class Finding(Result):
    """A fault of a picture."""

    kind: Annotated[str, Doc("kind of fault, as in `counts`")]
    image: Annotated[str, Doc("the picture")]
    label: Annotated[str, Doc("its label")]
    key: Annotated[str, Doc("first 16 digits of the SHA-256 of the file; empty if it cannot be read")]
    why: Annotated[str, Doc("the reason, in a sentence")]
    figures: Annotated[str, Doc("further numbers, in words; may be empty")] = ""
    proposed: Annotated[str | None, Doc("another label, or `null`")] = None
    doubt: Annotated[Share, Doc("degree of doubt, comparable within a kind")] = 1.0
    pictures: Annotated[tuple[str, ...], Doc("related pictures, such as copies"), Json("with")] = ()
    splits: Annotated[
        tuple[str, ...], Doc("for copies in different splits of a table: the splits of both pictures")
    ] = ()
    like: Annotated[Likes, Doc("the nearest pictures")] = Likes()
