"""``seewhy evaluate``: measure accuracy, faithfulness and drift, and check a contract."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from ..bounds import Natural
from ..errors import DataError, InputError
from ..storage.output import check_file, write
from . import options
from .places import check_report
from .session import Session
from .terminal import say

if TYPE_CHECKING:
    from ..classifiers.multi_output import MultiOutput
    from ..dense import Detector
    from ..pictures.boxes import BoxData
    from ..report.paging import Page

FIT = "fit"
"""Value of ``--against`` for the pictures of the fit."""
OF_ONE_DECISION = (
    "labels", "faithfulness", "cards", "contract", "against", "descriptions", "follow_up", "n_explained", "unknown",
    "masks", "object_", "retrieval", "also", "probe", "detector", "pictures", "novel",
)  # fmt: skip
"""Options that cannot be combined with a model of several decisions."""
DEFAULT = "default"
"""Value of ``--contract`` for the contract of ``--write-contract``."""


def evaluate(
    session: Session,
    data: list[str] | None = None,
    *,
    model: str | None = None,
    labels: str | None = None,
    output: Path | None = None,
    faithfulness: bool = False,
    cards: Path | None = None,
    contract: str | None = None,
    against: str | None = None,
    junit: Path | None = None,
    write_contract: Path | None = None,
    descriptions: Path | None = None,
    follow_up: Path | None = None,
    n_explained: Natural | None = None,
    crops: str = "center",
    level: float = 0.9,
    unknown: Path | None = None,
    masks: list[str] | None = None,
    object_: str | None = None,
    retrieval: bool = False,
    also: list[Path] | None = None,
    probe: Path | None = None,
    detector: str | None = None,
    pictures: Path | None = None,
    novel: str | None = None,
) -> None:
    """Measure accuracy, calibration and confusions; with --faithfulness, also how faithful the explanations are.

    With --contract, check the metrics against limits. With --against, compare new pictures with the training pictures.
    """
    from ..evidence.batch import check_output
    from ..pictures.pixel_classes import is_masked
    from ..report.paging import check_ending

    if write_contract is not None:
        _write_contract(session)
    if not data:
        raise InputError("Labelled pictures are required. Give a folder or a table.")
    several = session.several(model, *OF_ONE_DECISION)
    if contract is not None:
        _audit(session, _only(data))
    if against is not None:
        _drift(session)
    place = Path(_only(data))
    path = None if output is None else _page_in(output) or check_ending(output, force=session.force)
    if path is not None and path != output:
        check_report(output, path.stem, session.force)
    boxed, masked = _is_of_boxes(model, detector), not retrieval and is_masked(place)
    if (masks or object_) and (retrieval or boxed or masked or n_explained == 0):
        raise InputError(
            "--masks and --object require pictures with classes and at least one explained picture. Leave them out."
        )
    if cards is not None and check_output(cards):
        raise DataError(f"--cards must be a folder, got {cards}. Leave the ending out.")
    run = _retrieval if retrieval else _boxes if boxed else _masks if masked else _decisions
    if several is not None:
        run = partial(_several, model=several)
    report, n = run(session, place, path)
    session.report(report, output, None if path == output else "evaluation")
    session.end(n)


def _decisions(session: Session, place: Path, path: Path | None) -> tuple[Page, int]:
    from ..classifiers.linear.jitter import predict_views
    from ..evaluation import evaluate as run
    from ..evaluation.report import address, write_cards

    session.finish_settings()
    o = session.given
    classifier = session.classifier(o.model, o.labels, o.descriptions, o.follow_up)
    samples = session.samples(place, group=session.group)
    objects, _ = options.objects_of(session, classifier, [s.image for s in samples.items])
    report = run(
        classifier, samples, n_explained=o.n_explained, views=predict_views(o.crops), seed=session.seed,
        faithfulness=o.faithfulness, level=o.level, unknown=o.unknown, objects=objects, **session.kept,
    )  # fmt: skip
    if o.cards is not None:
        made = write_cards(report, classifier, o.cards, **session.kept)
        report = replace(report, cards={name: address(card, path or card) for name, card in made.items()})
    return report, report.data["n"]


def _several(session: Session, place: Path, _path: Path | None, *, model: MultiOutput) -> tuple[Page, int]:
    from ..classifiers.linear.jitter import predict_views
    from ..evaluation.multi_output import evaluate_multi

    session.finish_settings()
    answers, o = session.answers_to(model, place), session.given
    report = evaluate_multi(model, answers, views=predict_views(o.crops), level=o.level, **session.kept)
    return report, report.data["n"]


def _page_in(output: Path) -> Path | None:
    """Return the page's place if the output is a folder."""
    return output / "evaluation.html" if output.is_dir() or not output.suffix else None


def _only(data: Sequence[str]) -> str:
    if len(data) > 1:
        raise InputError(
            f"Exactly one folder or table is required without --against, got {len(data)}. Put the "
            "pictures into one table."
        )
    return data[0]


def _write_contract(session: Session) -> NoReturn:
    from ..studies.auditing.contract import Contract

    o = session.given
    if o.model is not None or o.data:
        raise InputError("--write-contract cannot be combined with a model or pictures. Use only one of them.")
    write(o.write_contract, Contract.preset().to_toml(), force=session.force)
    say(f"contract: {o.write_contract}")
    raise typer.Exit


def _audit(session: Session, data: str) -> NoReturn:
    """Check a contract on labelled pictures, and exit with code 1 if a limit is not met."""
    from ..studies.auditing import audit
    from ..studies.auditing.contract import Contract

    o = session.given
    if o.model is None:
        raise InputError("--contract requires a saved classifier. Give it with -m.")
    asked = None if o.contract == DEFAULT else Contract.load(Path(o.contract))
    check_report(o.output, "audit", session.force)
    if o.junit is not None:
        _check_junit(o.junit, o.output, session.force)
    session.finish_settings()
    samples = session.samples(data, group=session.group)
    train = None if o.against in (None, FIT) else session.samples(o.against)
    classifier = session.classifier(o.model)
    source, boxes = options.objects_of(session, classifier, [s.image for s in samples.items])
    if boxes is not None and (len(o.masks) > 1 or o.object_):
        raise InputError("Boxes cannot be combined with another source of masks. Use only one of them.")
    done = audit(
        classifier, samples, contract=asked, group=session.group, train=train, masks=source, seed=session.seed,
        n_explained=32 if o.n_explained is None else o.n_explained, **session.kept,
    )  # fmt: skip
    session.report(done, o.output, "audit")
    if o.junit is not None:
        write(o.junit, done.to_junit(), force=session.force)
    raise typer.Exit(0 if done.passed else 1)


def _check_junit(junit: Path, folder: Path | None, force: bool) -> None:
    """Check that the JUnit file can be written, even if it is in the report's folder, which may not exist yet."""
    from ..report.paging import ENDINGS

    place = Path(os.path.realpath(junit))
    report = None if folder is None else Path(os.path.realpath(folder))
    if report is not None and place in [report / f"audit{ending}" for ending in ENDINGS]:
        raise InputError(
            f"--junit must not be a file of the report, got {junit}. Use {junit.with_suffix('.xml')}, for example."
        )
    if report is None or place.parent != report or report.is_dir():
        check_file(junit, force=force)


def _drift(session: Session) -> NoReturn:
    from ..pictures.samples import Sample
    from ..studies.auditing.audit import with_known
    from ..studies.auditing.drift import DriftTest

    o, test = session.given, session.make(DriftTest)
    check_report(o.output, "drift", session.force)
    classifier = session.classifier(o.model)
    if o.against != FIT:
        classifier = with_known(classifier, session.samples(o.against), session.store, session.terminal)
    new = [Sample(name) for name in session.pictures(o.data, o.output)]
    drift = test.run(classifier, new, **session.kept)
    session.report(drift, o.output, "drift")
    raise typer.Exit(int(drift.data["drift"] == "yes"))


def _retrieval(session: Session, place: Path, path: Path | None) -> tuple[Page, int]:
    from ..learning.encoders.adapted import is_adapted, open_adaptation
    from ..pictures.pairs import load_pairs
    from ..studies.adapting import measure_retrieval

    session.finish_settings()
    name = session.given.model or session.encoder_name
    others = {str(other): session.samples(other) for other in session.given.also or ()}
    pairs = load_pairs(str(place), **session.pair_columns())
    encoder = session.encoder(name)
    trained_on: tuple[str, ...] = ()
    folder, _, _ = name.removeprefix("adapted:").partition("@")
    if is_adapted(folder):
        trained_on = open_adaptation(folder, engine=session.engine, base=encoder.base).trained_on
    report = measure_retrieval(encoder, pairs, also=others, trained_on=trained_on, seed=session.seed, **session.kept)
    return report, report.data["n_pictures"]


def _masks(session: Session, place: Path, path: Path | None) -> tuple[Page, int]:
    from ..dense.evaluation import evaluate_segmenter
    from ..dense.maskclip import MaskCLIP
    from ..dense.saving import load_segmenter
    from ..pictures.pixel_classes import load_masks

    (ignore,) = session.take("ignore")
    session.finish_settings()
    o = session.given
    names = None if o.labels is None else options.names_in(o.labels)
    masked = load_masks(place, classes=names, ignore=list(ignore))
    others = None if o.probe is None else load_masks(o.probe, classes=names, ignore=list(ignore))
    if o.model is not None:
        segmenter: Any = load_segmenter(o.model, encoder=session.own_encoder, engine=session.engine)
    else:
        segmenter = MaskCLIP().build(session.encoder(), masked.classes, session.store)
    report = evaluate_segmenter(segmenter, masked, train=others, seed=session.seed, progress=session.terminal)
    return report, report.data["n"]


def _is_of_boxes(model: str | None, detector: str | None) -> bool:
    """Return whether to evaluate boxes: of a detector or in a folder."""
    from ..dense.saving import is_detector
    from ..pictures.boxes import has_boxes

    return detector is not None or (model is not None and (is_detector(model) or has_boxes(Path(model))))


def _boxes(session: Session, place: Path, path: Path | None) -> tuple[Page, int]:
    """Evaluate boxes by average precision, compared with simpler boxes."""
    from ..dense import detectors
    from ..dense.by_words import finder_for
    from ..dense.evaluation import evaluate_boxes
    from ..dense.saving import is_detector, load_detector
    from ..pictures.boxes import load_boxes

    session.finish_settings()
    o = session.given
    truth = load_boxes(place, pictures=o.pictures).present()
    names = None if o.labels is None else options.label_names(o.labels)
    if o.detector is not None:
        ranked: dict[str, Any] = getattr(detectors[o.detector.partition(":")[0]], "ranked", dict)()
        labels = names or truth.classes
        detector = finder_for(detectors, o.detector, labels, session.encoder(), store=session.store, **ranked)
        boxes = _detected(session, truth, detector)
    elif is_detector(o.model or ""):
        saved = load_detector(o.model or "", encoder=session.own_encoder, engine=session.engine).keeping(least=0.0)
        boxes = _detected(session, truth, saved.for_classes(names or (truth if saved.reads_words else saved).classes))
        if known := saved.known([p.image for p in truth.pictures]):
            note = (
                f"The detector was fitted on {len(known)} of {len(truth)} pictures, so its metrics are "
                f"too optimistic. The first is {known[0]}."
            )
            truth = replace(truth, notes=(*truth.notes, note))
    else:
        boxes = load_boxes(o.model or "", pictures=o.pictures)
    chosen = [] if o.novel is None else [n.strip() for n in o.novel.split(",")]
    report = evaluate_boxes(truth, boxes, novel=chosen, seed=session.seed)
    return report, len(truth)


def _detected(session: Session, truth: BoxData, detector: Detector) -> BoxData:
    from ..pictures.boxes import BoxData

    stream = detector.detect_all([p.image for p in truth.pictures])
    found = session.terminal.results(truth.pictures, stream, "Finding objects")
    return BoxData(tuple(one.record() for _, one in found), detector.classes)
