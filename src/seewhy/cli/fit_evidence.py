"""``seewhy fit -m``: the pictures that stand for a classifier's channels, and what those rest on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ..errors import InputError
from .session import Session
from .terminal import table

if TYPE_CHECKING:
    from ..classifiers.base import Classifier
    from ..prototypes import Prototypes
    from ..prototypes.fitted import FittedBank, Fitting


def fit_prototypes(session: Session) -> NoReturn:
    """Find prototypes for a classifier, whose decisions stay as they are."""
    from ..prototypes import prototypes
    from ..prototypes.bank_influences import file_of, measure_bank
    from ..prototypes.find import find_prototypes
    from ..prototypes.perturbations import find_changes

    strengths, because_on = session.take("strengths", "because_on")
    o, method = session.given, session.given.method or "epic"
    cls, changes = prototypes[method], find_changes(strengths)
    fit = _fitting(session, cls)
    classifier = session.classifier(o.model, o.labels)
    folder = _folder(classifier, cls, o.because, o.output)
    _check(folder, cls, o.because)
    pictures = _pictures(session, o.data, classifier)
    answer: dict[str, Any] = {}
    lines: list[str] = []
    if fit is not None:
        answer, lines = _fitted(session, fit, cls, classifier, pictures, folder)
    if o.because:
        place = None if fit is None else folder
        bank = find_prototypes(classifier, method, place)
        if bank is None:
            raise InputError(f"This classifier was made without pictures of yours, so {method} has nothing to show.")
        step = max(1.0, len(pictures) / because_on)  # spread over the data
        names = [pictures[int(i * step)][0] for i in range(min(because_on, len(pictures)))]
        influences, is_kept = measure_bank(classifier, *bank, names, folder, changes, progress=session.terminal)
        answer["because"] = {"file": str(folder / file_of(method)), "kept": is_kept, **influences.summary()}
        lines += _influence_lines(answer["because"])
    session.say(answer, *lines)
    session.end(len(pictures) - len(session.terminal.failures))


def _fitting(session: Session, cls: type[Prototypes]) -> Fitting | None:
    """What fits the method's prototypes, by ``--set``; nothing where none does.

    Raises:
        UnknownNameError: there is no such field.
        InputError: a value is not one, or nothing is fitted.
    """
    from pkgutil import resolve_name

    if cls.fitted_by:
        fitting: Fitting = session.make(resolve_name(cls.fitted_by))
        return fitting
    for name in session.settings:
        raise InputError(f"{cls.name} is not fitted, and {name} was given. Leave it out.")
    return None


def _folder(classifier: Classifier, cls: type[Prototypes], because: bool, output: Path | None) -> Path:
    """Where everything is kept."""
    from ..prototypes.find import find_prototypes
    from ..prototypes.fitted import FOLDER

    method = cls.name
    if not cls.fitted_by:
        if not because:
            raise InputError(f"{method} has its prototypes already, and nothing was left to do. Add --because.")
        if output is not None:
            raise InputError(f"What {method} rests on is kept with the classifier, and {output} was given. Drop -o.")
        if find_prototypes(classifier, method) is None:
            raise InputError(f"This classifier was made without pictures of yours, so {method} has nothing to show.")
    folder = output or (None if classifier.folder is None else classifier.folder / FOLDER)
    if folder is None:
        raise InputError("No place was given for the prototypes of a classifier that has no folder. Name one with -o.")
    return folder


def _check(folder: Path, cls: type[Prototypes], because: bool) -> None:
    """See that nothing lies where the results will, but earlier ones.

    Raises:
        ForeignFileError: something does.
    """
    from ..prototypes.bank_influences import file_of
    from ..prototypes.fitted import check_bank, file_name
    from ..storage.output import check_checkpoint

    if cls.fitted_by:
        check_bank(folder, file_name(cls.name))
        if folder.is_dir():
            check_checkpoint(folder / f".{cls.name}.checkpoint")
    if because:
        check_bank(folder, file_of(cls.name))


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
    from ..prototypes.fitted import file_name
    from ..storage.marks import CHECKPOINT
    from ..storage.output import remove
    from ..types import Failure

    seal, path = fit.seal(classifier, pictures), folder / file_name(cls.name)
    bank = _earlier(cls, path, seal)
    is_kept = bank is not None
    if bank is None:
        checkpoint = folder / f".{cls.name}.checkpoint"
        bank = fit.fit(classifier, pictures, store=session.store, checkpoint=checkpoint, progress=session.terminal)
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


def _influence_lines(found: dict[str, Any]) -> list[str]:
    rows = []
    for row in found["properties"]:
        strongest = ", ".join(f"{one['prototype']} ({one['lost']:+.0%})" for one in row["strongest"])
        rows.append((row["name"], f"{row['change']:.1f}", f"{row['mean']:+.1%}", f"{row['first']:.0%}", strongest))
    lines = [f"What {found['n_prototypes']} prototypes rest on, over {found['n_pictures']} pictures"]
    lines += table(("changed", "by", "similarity lost", "matters most to", "most of all to"), rows)
    if found["strengths"] == "paper":
        lines.append("The paper's strengths change a picture by different amounts: rows cannot be compared.")
    return [*lines, f"{'kept' if found['kept'] else 'written'}: {found['file']}"]


def _pictures(session: Session, data: Path, classifier: Classifier) -> list[tuple[str, int | None]]:
    """File names with the index of their class, where it is one of the classifier's."""
    from ..pictures.samples import TABLES
    from ..pictures.sources import list_pictures

    index = {name: i for i, name in enumerate(classifier.classes)}
    if data.suffix.lower() in TABLES:
        return [(s.image, index.get(s.label)) for s in session.samples(data).items]
    return [(name, index.get(Path(name).parent.name)) for name in list_pictures([data])]
