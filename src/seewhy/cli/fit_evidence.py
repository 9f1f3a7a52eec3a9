"""``seewhy fit -m``: the pictures that stand for a classifier's channels."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, NoReturn

from ..errors import InputError
from .session import Session

if TYPE_CHECKING:
    from ..classifiers.base import Classifier
    from ..prototypes import Prototypes
    from ..prototypes.fitted import FittedBank, Fitting


def fit_prototypes(session: Session) -> NoReturn:
    """Find prototypes for a classifier, whose decisions stay as they are."""
    from ..prototypes import prototypes
    from ..prototypes.fitted import FOLDER, check_bank, file_name
    from ..storage.output import check_checkpoint

    o = session.given
    cls = prototypes[o.method or "epic"]
    if not cls.fitted_by:
        raise InputError(f"{cls.name} has its prototypes already, and nothing was left to do. Name another method.")
    fit: Fitting = session.make(resolve_name(cls.fitted_by))
    classifier = session.classifier(o.model, o.labels)
    folder = o.output or (None if classifier.folder is None else classifier.folder / FOLDER)
    if folder is None:
        raise InputError("No place was given for the prototypes of a classifier that has no folder. Name one with -o.")
    check_bank(folder, file_name(cls.name))
    if folder.is_dir():
        check_checkpoint(folder / f".{cls.name}.checkpoint")
    pictures = _pictures(session, o.data, classifier)
    answer, lines = _fitted(session, fit, cls, classifier, pictures, folder)
    session.say(answer, *lines)
    session.end(len(pictures) - len(session.terminal.failures))


def _fitted(
    session: Session,
    fit: Fitting,
    cls: type[Prototypes],
    classifier: Classifier,
    pictures: list[tuple[str, int | None]],
    folder: Path,
) -> tuple[dict[str, Any], list[str]]:
    """The prototypes for JSON and for people; those that are there, of the same making, are not made again."""
    from ..attributions.explainers import classifier_digest
    from ..errors import ModelError
    from ..prototypes.fitted import file_name
    from ..storage.marks import CHECKPOINT
    from ..storage.output import remove
    from ..types import Failure

    seal, path = fit.seal(classifier, pictures), folder / file_name(cls.name)
    bank: FittedBank | None = None
    if cls.kept_as is not None:
        with suppress(ModelError):  # there is none, or it is damaged
            bank = cls.kept_as.load(path)
    is_kept = bank is not None and bank.made_from == seal
    if bank is None or not is_kept:
        checkpoint = folder / f".{cls.name}.checkpoint"
        bank = fit.fit(classifier, pictures, checkpoint=checkpoint, **session.kept)
        bank = replace(bank, classifier=classifier_digest(classifier), made_from=seal)
        bank.save(folder)
        remove(checkpoint, CHECKPOINT)
    first, *rest = bank.lines()
    lines = [f"{path}: {first}", *rest]
    if is_kept:
        for failure in bank.measures.get("failures", ()):
            session.terminal.failed(Failure(**failure))
        lines.insert(0, "These prototypes were there already, of the same pictures and settings:")
    return {"prototypes": str(path), "kept": is_kept, **bank.measures}, lines


def _earlier(cls: type[Prototypes], path: Path, seal: str) -> FittedBank | None:
    """What an earlier call left, if it would be made again as it is."""
    from ..errors import ModelError

    if cls.kept_as is None:
        return None
    try:
        bank = cls.kept_as.load(path)
    except ModelError:
        return None  # there is none, or it is damaged
    return bank if bank.made_from == seal else None


def _pictures(session: Session, data: Path, classifier: Classifier) -> list[tuple[str, int | None]]:
    """File names with the index of their class, where it is one of the classifier's."""
    from ..pictures.samples import TABLES
    from ..pictures.sources import list_pictures

    index = {name: i for i, name in enumerate(classifier.classes)}
    if data.suffix.lower() in TABLES:
        return [(s.image, index.get(s.label)) for s in session.samples(data).items]
    return [(name, index.get(Path(name).parent.name)) for name in list_pictures([data])]
