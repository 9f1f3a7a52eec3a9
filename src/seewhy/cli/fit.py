"""``seewhy fit``: fit a classifier, a segmenter or a detector, or explain a saved classifier."""

from __future__ import annotations

import math
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, Literal, NoReturn, get_args

from ..errors import InputError, ModelError
from ..parameters import settings_of
from ..printable import printable
from ..types import Failure
from . import options
from .session import Session, not_both

if TYPE_CHECKING:
    from ..classifiers.base import Classifier
    from ..prototypes.fitted import FittedBank, Fitting

Task = Literal["classes", "masks", "boxes", "labels", "prototypes", "explainer"]
AUTO, BEST = "auto", ("denseclip", "linear")
"""Preferred segmenters, for encoders that support them; on street scenes, denseclip had 8.5 points more mIoU."""
OF_ONE_DECISION = ("model", "labels", "pictures", "descriptions", "captions")
"""Options that cannot be combined with several decisions."""


def fit(
    session: Session,
    data: Path,
    *,
    output: Path | None = None,
    method: str | None = None,
    descriptions: Path | None = None,
    validation: Path | None = None,
    model: str | None = None,
    labels: str | None = None,
    captions: Path | None = None,
    pictures: Path | None = None,
    task: Task | None = None,
    questions: str | None = None,
    aim: str | None = None,
) -> None:
    """Train a classifier, segmenter or detector on your pictures, or fit prototypes or an explainer for a classifier.

    Run again to continue a stopped run.
    """
    if questions is not None or aim is not None:
        if task not in (None, "labels"):
            raise not_both("--questions" if aim is None else "--aim", f"--task {task}")
        task = "labels"
    learnt = task or _task(data, method, model)
    if task is None and learnt not in ("classes", "prototypes", "explainer"):
        session.terminal.note(
            f"{data} has {learnt}, so these are learned; use --task classes to learn classes of whole pictures"
        )
    if output is None and learnt not in ("prototypes", "explainer"):
        raise InputError("An output folder is required. Give one with -o.")
    run = {
        "classes": _fit_classifier, "masks": _fit_segmenter, "boxes": _fit_detector, "prototypes": _fit_prototypes,
        "explainer": _fit_explainer, "labels": _fit_several,
    }  # fmt: skip
    run[learnt](session)


def _task(data: Path, method: str | None, model: str | None) -> str:
    """Return the task: to explain a saved classifier, or to learn what the data has."""
    from ..attributions.explainers import Variant
    from ..classifiers import classifiers
    from ..dense import detectors, segmenters
    from ..prototypes import prototypes

    if method in get_args(Variant):
        return "explainer"
    method = method or ""
    if model is not None or (method in prototypes and method not in classifiers):
        return "prototypes"
    if method in classifiers and method not in segmenters and method not in detectors:
        return "classes"
    return _kind_of(data)


def _kind_of(data: Path) -> str:
    """Return whether the data has masks, boxes or classes."""
    from ..pictures.pixel_classes import FOLDERS
    from ..pictures.tables import TABLES, rows_of

    suffix = data.suffix.lower()
    if data.is_dir():
        texts = any(next((data / name).glob("*.txt"), None) for name in FOLDERS)
        if (data / "images").is_dir() and not texts and any((data / name).is_dir() for name in FOLDERS):
            return "masks"
        listed = any(next(data.glob(pattern), None) for pattern in ("*.xml", "annotations/*.xml", "*.coco.json"))
        return "boxes" if listed or texts or (data / "boxes.json").is_file() else "classes"
    if suffix in TABLES and data.is_file():
        columns = {str(name).strip().lower() for name in next(iter(rows_of(data)), {})}
        return "boxes" if {"left", "top", "right", "bottom"} <= columns else "classes"
    return "boxes" if suffix in (".json", ".xml", ".yaml", ".yml") else "classes"


def _fit_classifier(session: Session) -> None:
    from ..classifiers.certainty import held_out_lines, why_unmeasured
    from ..classifiers.saving import ARCHIVE
    from ..language.matching import read_captions

    o, output = session.given, session.given.output
    ARCHIVE.check(output)
    recipe = recipe_from(session, o.method or "linear")
    words = options.read_descriptions(o.descriptions)
    samples = session.samples(o.data, group=session.group)
    chosen_on = None if o.validation is None else session.samples(o.validation)
    texts = None if o.captions is None else read_captions(o.captions)
    recipe.check_given(descriptions=words, captions=texts)
    with session.checkpoint(output) if "checkpoint" in recipe.takes else nullcontext() as checkpoint:
        classifier = recipe.fit(
            session.encoder(), samples, validation=chosen_on, descriptions=words, captions=texts,
            checkpoint=checkpoint, **session.kept,
        )  # fmt: skip
        classifier = classifier.with_trust(session.terminal)
        classifier.save(output)
    measures = classifier.measures
    lines = [f"{output}: trained on {classifier.trained_on}", *held_out_lines(measures)]
    missing = None if classifier.trust is not None else str(why_unmeasured(classifier))
    if missing is not None:
        lines.append(f"decisions will not be measured: {missing}")
    if recipe.network is None and (time := _time_to_fine_tune(classifier)) is not None:
        lines.append(f"if this accuracy is too low, train the whole network with --method fine_tune: {time}")
    session.say({"model": str(output), "unmeasured": missing, **measures}, *lines)
    session.end(measures.get("n_pictures", len(samples)))


def _fit_several(session: Session) -> None:
    """Fit a model of several labels or questions."""
    from ..classifiers.fit_answers import fit_answers
    from ..classifiers.saving import OUTPUTS

    o, output = session.given, session.given.output
    if o.questions is not None and o.aim is not None:
        raise not_both("--questions", "--aim", "only labels have a threshold")
    for name in session.was_given(OF_ONE_DECISION):
        raise not_both("--task labels" if o.questions is None else "--questions", f"--{name}")
    OUTPUTS.check(output)
    recipe = recipe_from(session, o.method or "linear")
    questions = () if o.questions is None else [name.strip() for name in o.questions.split(",") if name.strip()]
    answers = session.answers(o.data, questions=questions)
    validation = None
    if o.validation is not None:
        validation = session.answers(o.validation, questions=questions, names=[*answers.given])
    with session.checkpoint(output) if "checkpoint" in recipe.takes else nullcontext() as checkpoint:
        how = {"validation": validation, "aim": o.aim or "f1", "checkpoint": checkpoint, **session.kept}
        model = fit_answers(session.encoder(), answers, recipe, **how)
        model.save(output)
    failures = [f.to_json() for f in session.terminal.failures]
    lines = [f"{output}: {len(model.decisions)} {model.kind}, learnt from {len(answers):,} pictures", *model.lines()]
    session.say({"model": str(output), **model.to_json(), "failures": failures}, *map(printable, lines))
    session.end(len(answers) - len(failures))


def _time_to_fine_tune(classifier: Classifier) -> str | None:
    """Return what fine-tuning takes; ``None`` for few pictures, or if there is no linear layer or trainable weight."""
    from ..learning.adaptation.fine_tune import N_PER_CLASS, FineTune

    few = classifier.measures["n_pictures"] < N_PER_CLASS * len(classifier.classes)
    if few or classifier.head.votes is not None:
        return None
    with suppress(ModelError):
        return FineTune().time_for(classifier)
    return None


def recipe_from(session: Session, name: str, **given: Any) -> Any:
    from ..classifiers import classifiers

    cls = _trainable(classifiers, name, "cannot be fitted on pictures", "fitting: seewhy explain")
    known = [s.name for s in settings_of(cls)]
    for field in given:
        if field not in known:
            written = "--" + field.replace("_", "-")
            raise InputError(f"{written} is not a setting of {name}, which has {', '.join(known)}. Leave it out.")
    return session.make(cls, **given)


def _trainable(registry: Any, name: str, problem: str, other: str) -> Any:
    """Return a registered class that can be fitted; ``other`` is a command that uses the method without a fit."""
    able = [n for n in registry if hasattr(registry[n], "fit")]
    if not hasattr(cls := registry[name], "fit"):
        raise InputError(
            f"--method {name} {problem}. Use one of {', '.join(able)}, or use it without {other} --labels."
        )
    return cls


def _fit_explainer(session: Session) -> None:
    from ..attributions.explainers import ARCHIVE, FOLDER, FitTTAME

    epochs, steps, batch_size, lr, paper = session.take("epochs", "steps", "batch_size", "lr", "paper")
    o, data, method = session.given, session.given.data, session.given.method or "t_tame"
    fit = session.make(FitTTAME, variant=method)
    classifier = session.classifier(o.model, o.labels)
    folder = _folder(classifier, o.output, FOLDER)
    ARCHIVE.check(folder / f"{method}.safetensors")
    pictures = [image for image, _ in _pictures(session, data, classifier)]
    n_steps = steps or epochs * math.ceil(len(pictures) / batch_size)
    how = fit.paper_training(n_steps, session.seed) if paper else fit.training(n_steps, batch_size, session.seed, lr)
    with session.checkpoint(folder / method) as checkpoint:
        explainer = fit.fit(classifier, pictures, how, checkpoint=checkpoint, progress=session.terminal)
        path = explainer.save(folder)
    final = explainer.trained["final"]
    session.say(
        {"explainer": str(path), **explainer.trained},
        f"{path}: {n_steps} steps on {len(pictures)} pictures, layers {', '.join(explainer.layers)}",
        f"when only the pixels inside the mask are shown ({100 * final['mean_mask']:.0f} % of a picture on average), "
        f"{100 * final['agree']:.0f} % of the training pictures keep their predicted class",
    )
    session.end(len(pictures))


def _fit_segmenter(session: Session) -> None:
    from ..dense import segmenters
    from ..dense.saving import SEGMENTERS, save_segmenter
    from ..pictures.pixel_classes import load_masks

    (ignore,) = session.take("ignore")
    o, output, method = session.given, session.given.output, session.given.method or AUTO
    SEGMENTERS.archive.check(output)
    encoder = session.encoder()
    if method == AUTO:
        method = next(name for name in BEST if encoder.has_text or not getattr(segmenters[name], "needs_words", False))
    cls = _trainable(segmenters, method, "cannot be trained", f"training: seewhy segment --method {method}")
    how = session.make(cls)
    masked = load_masks(o.data, classes=None if o.labels is None else options.names_in(o.labels), ignore=list(ignore))
    session.terminal.note_all(masked.notes)
    with session.checkpoint(output) as checkpoint:
        keeps = {"checkpoint": checkpoint} if "checkpoint" in cls.fit.__annotations__ else {}
        segmenter = how.fit(encoder, masked, progress=session.terminal, **keeps)
        save_segmenter(segmenter, output)
    line = f"{output}: {len(segmenter.classes)} classes, trained on {segmenter.trained_on}"
    _say_made(session, method, segmenter, [line])
    session.end(len(masked) - len(session.terminal.failures))


def _fit_detector(session: Session) -> None:
    from ..dense.detection.fit import FOLDS, beside, fit_detector, methods_for
    from ..dense.saving import DETECTORS, save_detector
    from ..storage.output import remove

    folds, precision = session.take("folds", "precision")
    o, output, method = session.given, session.given.output, session.given.method or AUTO
    DETECTORS.archive.check(output)
    methods_for(method, session.settings)
    with session.checkpoint(output) as checkpoint:
        detector = fit_detector(
            o.data, session.encoder(), method=method, pictures=o.pictures, folds=folds, precision=precision,
            seed=session.seed, progress=session.terminal, checkpoint=checkpoint, **session.settings,
        )  # fmt: skip
        save_detector(detector, output)
        remove(beside(checkpoint), FOLDS)
    _say_made(session, detector.method, detector, _detector_lines(output, detector), calibration=detector.calibration)
    session.end(1)


def _say_made(session: Session, method: str, made: Any, lines: list[str], **more: Any) -> None:
    about = {"classes": list(made.classes), "trained_on": made.trained_on, **more}
    failures = [f.to_json() for f in session.terminal.failures]
    session.say({"model": str(session.given.output), "method": method, **about, "failures": failures}, *lines)


def _detector_lines(output: Path, detector: Any) -> list[str]:
    calibration, name = detector.calibration, detector.method
    lines = [
        f"{output}: {name}, {len(detector.classes)} class(es), trained on {detector.trained_on}",
        detector.measured,
    ]
    others = [f"{m['name']} {100 * m['ap50']:.1f}" for m in calibration["methods"] if m["name"] != name]
    if others:
        lines.append(f"{name} was chosen: its cross-validated AP50 is the highest; the others: {', '.join(others)}")
    rows = calibration["classes"]
    return lines + [
        f"{printable(row['label'])}\tfrom a score of {row['threshold']:.2f}: {_reached(row)}" for row in rows
    ]


def _reached(row: dict[str, Any]) -> str:
    if row["precision"] is None:
        return f"{row['n']} box(es), too few to measure; it uses the threshold of all classes"

    def said(name: str) -> str:
        low, high = row[f"{name}_interval"]
        return f"{name} {100 * row[name]:.0f} % ({100 * low:.0f} to {100 * high:.0f} %)"

    precision, recall = said("precision"), said("recall")
    short = " (lower than required)" if row["promised"] is False else ""
    return f"{precision}{short}, {recall}, {row['n']} boxes"


def _fit_prototypes(session: Session) -> NoReturn:
    """Find prototypes for a classifier, unless the folder has them already."""
    from ..attributions.explainers import classifier_digest
    from ..prototypes import prototypes
    from ..prototypes.fitted import ARCHIVE, FOLDER, file_name

    o, terminal = session.given, session.terminal
    cls = prototypes[o.method or "epic"]
    if not cls.fitted_by:
        raise InputError(f"{cls.name} needs no fitting, because it already has its prototypes. Give another method.")
    fit: Fitting = session.make(resolve_name(cls.fitted_by))
    classifier = session.classifier(o.model, o.labels)
    folder = _folder(classifier, o.output, FOLDER)
    path = ARCHIVE.check(folder / file_name(cls.name))
    pictures = _pictures(session, o.data, classifier)
    seal = fit.seal(classifier, pictures)
    bank: FittedBank | None = None
    if cls.kept_as is not None:
        with suppress(ModelError):  # there is none, or it is damaged
            bank = cls.kept_as.load(path)
    is_kept = bank is not None and bank.made_from == seal
    if bank is None or not is_kept:
        with session.checkpoint(folder / cls.name) as checkpoint:
            bank = fit.fit(classifier, pictures, checkpoint=checkpoint, **session.kept)
            bank = replace(bank, classifier=classifier_digest(classifier), made_from=seal)
            bank.save(folder)
    first, *rest = bank.lines()
    lines = [f"{path}: {first}", *rest]
    if is_kept:
        for failure in bank.measures.get("failures", ()):
            terminal.failed(Failure(**failure))
        lines.insert(0, "The folder already has the prototypes of these pictures and settings:")
    session.say({"prototypes": str(path), "kept": is_kept, **bank.measures}, *lines)
    session.end(len(pictures) - len(terminal.failures))


def _folder(classifier: Classifier, output: Path | None, name: str) -> Path:
    if output is not None:
        return output
    if classifier.folder is None:
        raise InputError(
            "An output folder is required, because the classifier was not loaded from a folder. Give one with -o."
        )
    return classifier.folder / name


def _pictures(session: Session, data: Path, classifier: Classifier) -> list[tuple[str, int | None]]:
    from ..pictures.samples import TABLES
    from ..pictures.sources import list_pictures

    index = {name: i for i, name in enumerate(classifier.classes)}
    if data.suffix.lower() in TABLES:
        return [(s.image, index.get(s.label)) for s in session.samples(data).items]
    return [(name, index.get(Path(name).parent.name)) for name in list_pictures([data])]
