"""Decisions on labels: corrected, confirmed, put off or left out, by several people, with undo; nothing is lost.

A decision is a version of the task ``label`` in an annotation store. It is on a picture by its bytes, so that copies
share it and a table that has changed does not lose it. Undoing adds a version too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...encoders.stream import file_digest
from ...errors import DataError, ImageError, InputError
from ...pictures.sizes import upright_size
from ...spelling import nearest
from .records import DECISIONS, LABEL, OPEN, Content, Picture, Version
from .store import AnnotationStore, Conflict, Saved

KEY = 16
"""Digits of a picture's SHA-256 that name it."""
FILE = "decisions.sqlite"
"""Where decisions lie in the folder that a person named."""


def known_picture(name: str, key: str | None = None) -> Picture:
    """The picture in a file, as the store knows pictures."""
    digest, short = file_digest(name), Path(name).name
    try:
        size = upright_size(name)
    except ImageError as error:
        raise DataError(f"{short} {error.reason}. A picture was expected. Nothing was decided.") from error
    if digest is None or (key is not None and digest[:KEY] != key):
        raise DataError(
            f"{short} has changed since it was looked at. The same picture was expected. Look at the data again; "
            "decisions on other pictures are kept."
        )
    return Picture(digest[:KEY], digest, name, *size)


def open_decisions(folder: Path, classes: Sequence[str], *, new: bool = True) -> LabelDecisions:
    """What people decided, as it is kept in a folder; several processes may have it open.

    Args:
        folder: of ``seewhy check -o`` or of its own.
        classes: labels that a picture can be given.
        new: begin where nothing was decided yet; the folder is made where there is none.

    Raises:
        DataError: nothing was decided there and nothing is to be begun, or it cannot be kept there.
        ForeignFileError: the file there is somebody else's.
    """
    path = folder / FILE
    if not new and not path.is_file():
        raise DataError(
            f"Nothing was decided in {folder}: it has no {FILE}. The folder that decisions are kept in was expected. "
            "Name the one that was given with --decisions, or that of a check."
        )
    return LabelDecisions(AnnotationStore(path), classes)


class LabelDecisions:
    """What people decided on the labels of pictures.

    Args:
        store: where it is kept.
        classes: labels that a picture can be given.
    """

    def __init__(self, store: AnnotationStore, classes: Sequence[str]) -> None:
        self.store = store
        self.classes = tuple(classes)

    def decide(
        self, picture: Picture, author: str, decision: str, label: str, given: str, base: int
    ) -> Saved | Conflict:
        """Add a decision on top of the one that was seen."""
        if decision not in DECISIONS:
            raise InputError(f"The decision {decision!r:.40} was given. One of {', '.join(DECISIONS)} was expected.")
        if decision == "corrected":
            self._check_label(label)
        content: Content = {"decision": decision, "label": label if decision == "corrected" else given, "given": given}
        self.store.add_pictures([picture])
        return self.store.save(picture.key, LABEL, author, content, base, 0.0)

    def undo(self, key: str, author: str, base: int) -> Saved | Conflict:
        """Go back to what was decided before the decision that stands; again, to what was before that."""
        versions = {v.number: v for v in self.store.versions(key, LABEL)}
        latest = versions.get(max(versions, default=0))
        if latest is None or shown(latest) == 0:
            raise InputError(f"Nothing is decided on the picture {key!r:.40}. A decision to undo was expected.")
        earlier = versions.get(shown(latest) - 1)
        back = shown(earlier) if earlier is not None else 0
        source = versions.get(back)
        was = source.content if source is not None else {**latest.content, "decision": OPEN, "label": ""}
        return self.store.save(key, LABEL, author, {**was, "restores": back}, base, 0.0)

    def standing(self) -> dict[str, dict[str, Any]]:
        """Picture → the decision that stands, with who made it and its number; ``open`` where it was undone."""
        found = {}
        for key, tasks in self.store.histories().items():
            if versions := tasks.get(LABEL):
                found[key] = told(versions[-1])
        return found

    def history(self, key: str) -> list[dict[str, Any]]:
        """All that was decided on a picture, oldest first."""
        return [told(v) for v in self.store.versions(key, LABEL)]

    def _check_label(self, label: str) -> None:
        if label in self.classes:
            return
        near = nearest(label, self.classes)
        meant = f"Did you mean {near[0]!r}?" if near else f"The first are {', '.join(self.classes[:5])}."
        raise InputError(
            f"The label {label!r:.80} is of none of the {len(self.classes)} classes. One of them was expected. {meant}"
        )


def shown(version: Version) -> int:
    """The version whose content this one shows; 0 where it shows that nothing is decided."""
    back = version.content.get("restores")
    return version.number if back is None else int(back)


def told(version: Version) -> dict[str, Any]:
    """A decision for pages and tables."""
    content = version.content
    return {
        "decision": content["decision"],
        "label": content["label"],
        "given": content["given"],
        "author": version.author,
        "number": version.number,
        "made": version.made,
        "undone": "restores" in content,
    }
