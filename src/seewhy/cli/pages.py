"""``seewhy app``, ``seewhy serve`` and ``seewhy export``."""

from __future__ import annotations

import re
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from ..bounds import Bound
from ..errors import DataError, InputError, needs
from . import options
from .check import export_corrected, label_columns, note_links, serve_page
from .session import Session

if TYPE_CHECKING:
    from ..classifiers.base import Classifier
    from ..language.annotation.labels import LabelledData
    from ..language.annotation.store import AnnotationStore
    from ..pictures.samples import Samples

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
STDOUT = 1


def app(
    session: Session,
    *,
    model: str | None = None,
    labels: str | None = None,
    data: list[Path] | None = None,
    unlabelled: Path | None = None,
    decisions: Path | None = None,
    annotate: Path | None = None,
    port: Annotated[int, Bound(0, 65535)] = 8000,
    descriptions: Path | None = None,
    follow_up: Path | None = None,
    by: str | None = None,
    export: Path | None = None,
    backup: Path | None = None,
    against: Path | None = None,
    measure: bool = True,
    host: str = "127.0.0.1",
    name: list[str] | None = None,
) -> None:
    """Open the web page: drop a picture and see its card, edit descriptions, compare classes, browse mistakes."""
    from ..language.annotation.labels import Corrections, open_decisions
    from ..service.app import make_app

    if backup is not None:
        _backup(session)
    if annotate is not None:
        _annotate(session)
    if data is not None and len(data) > 1:
        raise InputError(f"--data must be given once, got {len(data)} values.")
    place = data[0] if data else None
    if export is not None:
        _export_decisions(session, place)
    if decisions is not None and place is None:
        raise InputError(f"--decisions {decisions} requires labelled pictures. Add --data FOLDER.")
    if by is not None and place is None:
        raise InputError(f"--by {by} requires a table. Add --data FILE.")
    others = _unlabelled(session, place)
    settings = _web_settings(session, measure=measure)
    classifier = session.classifier(model, labels, descriptions, follow_up)
    samples = None if place is None else options.grouped_samples(place, *label_columns(session), by)
    session.terminal.note_all(() if samples is None else samples.notes)
    shown = [*(samples.items if samples else ()), *(others.items if others else ())]
    note_links(session, shown, place, session.given.unlabelled)
    corrections = None
    if place is not None and samples is not None and decisions is not None:
        known = tuple(dict.fromkeys((*classifier.classes, *samples.classes)))  # a label may be of either
        corrections = Corrections(_labelled(session, place, samples, others), open_decisions(decisions, known))
    served = make_app(
        classifier, settings, data=samples, store=session.store, corrections=corrections, unlabelled=others,
        sources=[one for one in (place, session.given.unlabelled) if one is not None],
    )  # fmt: skip
    told = "SeeWhy is at {} (Ctrl-C stops it)"
    serve_page(served, settings, lambda url: session.ready(told.format(url)), "use it")


def _web_settings(session: Session, **more: Any) -> Any:
    """Return the settings of a page; sizes are given in megabytes."""
    from ..service.app.settings import MEGABYTE, Settings

    max_upload, decode_seconds = session.take("max_upload", "decode_seconds")
    if max_upload < 0.001 or decode_seconds < 1:
        raise InputError(
            "`max_upload` must be at least 0.001 (MB) and `decode_seconds` at least 1, got "
            f"max_upload={max_upload:g} and decode_seconds={decode_seconds}."
        )
    session.finish_settings()
    o, size = session.given, round(max_upload * MEGABYTE)
    web = {"host": o.host, "port": o.port, "names": tuple(o.name or ())}
    return Settings(**web, max_upload=size, decode_seconds=decode_seconds, **more)


def _unlabelled(session: Session, data: Path | None) -> Samples | None:
    """Load the pictures of ``--unlabelled``; any labels are ignored."""
    from ..pictures.samples import Sample, gathered, load_pictures
    from ..pictures.sources import list_pictures

    place = session.given.unlabelled
    if place is None:
        return None
    if data is None:
        raise InputError(f"--unlabelled {place} requires labelled pictures. Add --data FOLDER.")
    if place.is_dir():
        return gathered([Sample(name) for name in list_pictures([place])])
    return load_pictures(place, image=label_columns(session)[0], label="")


def _labelled(session: Session, data: Path, samples: Samples, others: Samples | None) -> LabelledData:
    from ..language.annotation.labels import LabelledData

    bare = () if others is None else others.items
    return LabelledData(data, samples.items, *label_columns(session), unlabelled=bare)


def _export_decisions(session: Session, data: Path | None) -> NoReturn:
    from ..language.annotation.labels import check_corrected, open_decisions

    path, decisions = session.given.export, session.given.decisions
    if data is None or decisions is None:
        raise InputError(f"--export {path} requires --data and --decisions. Add --data FOLDER --decisions FOLDER.")
    check_corrected(path, data, session.force)
    samples = session.samples(data)
    standing = open_decisions(decisions, samples.classes, new=False)
    export_corrected(session, path, _labelled(session, data, samples, _unlabelled(session, data)), standing)
    raise typer.Exit


def _backup(session: Session) -> NoReturn:
    """Copy the decisions or annotations, also while another process serves them."""
    from ..language.annotation.labels import FILE
    from ..language.annotation.store import AnnotationStore

    o = session.given
    if (o.annotate is None) == (o.decisions is None):
        raise InputError(f"--backup {o.backup} requires either --decisions FOLDER or --annotate FILE.")
    place = o.annotate or o.decisions / FILE
    if not place.is_file():
        raise DataError(f"{place} does not exist, so there is nothing to copy. Give another --decisions or --annotate.")
    AnnotationStore(place).backup(o.backup, force=session.force)
    session.say({"file": str(o.backup), "of": str(place)}, f"{o.backup}: a copy of {place}")
    raise typer.Exit


def _annotate(session: Session) -> NoReturn:
    """Serve the annotation page, import texts to compare with, or export annotations."""
    from ..language.annotation.desk import AnnotationDesk, ClassifierSeeder, check_export
    from ..language.annotation.desk import export as write
    from ..language.annotation.rounds import StopRule
    from ..language.annotation.store import AnnotationStore

    o = session.given
    if not o.data:
        raise InputError(f"--annotate {o.annotate} requires pictures. Add --data FOLDER.")
    if o.export is not None:
        check_export(o.export, force=session.force)
    rule = session.make(StopRule, rest=False)
    store = AnnotationStore(o.annotate)
    n = _list_pictures(session, store, [str(place) for place in o.data])
    if o.export is not None:
        written = write(store, o.export, rule, force=session.force)
        session.say({"file": str(o.export), "pictures": written}, f"{o.export}: {written} pictures")
        store.close()
        session.end(n)
    seeder = None
    if o.model is not None or o.labels is not None:  # proposes objects and a first text
        seeder = ClassifierSeeder(session.classifier(o.model, o.labels, o.descriptions))
    desk = AnnotationDesk(store, rule, seeder)
    if o.against is not None:
        session.terminal.note(_take_texts(store, o.against))
    with needs("app", "The page"):
        from ..service.app.annotate import make_annotation_app
    settings = _web_settings(session)

    def told(url: str) -> None:
        session.ready()
        session.say({"address": url, "pictures": n}, f"{n} pictures at {url} (stop with Ctrl-C)")

    with closing(store):
        serve_page(make_annotation_app(desk, settings), settings, told, "write")
    raise typer.Exit


def _list_pictures(session: Session, store: AnnotationStore, data: list[str]) -> int:
    from ..language.annotation.desk import find_pictures

    readable = list(session.results(find_pictures(session.pictures(data)), "Reading pictures", as_json=False))
    if not readable:
        raise DataError(f"None of the pictures in {', '.join(data)} can be read. Give other files.")
    store.add_pictures(readable)
    return len(readable)


def _take_texts(store: AnnotationStore, path: Path) -> str:
    from ..clusters import grouped
    from ..language.textualize import read_drafts

    keys = grouped((Path(picture.name).name, picture.key) for picture in store.pictures())
    texts = [(key, text) for name, text in read_drafts(path) for key in keys.get(name, ())]
    store.put_texts(path.stem, texts)
    return f"{len(texts)} texts of {path} to compare with"


def serve(
    session: Session,
    *,
    model: list[str] | None = None,
    port: Annotated[int, Bound(0, 65535)] = 8000,
    host: str = "127.0.0.1",
    name: list[str] | None = None,
    token_file: Path | None = None,
    no_token: bool = False,
    rate: Annotated[float, Bound(0.01)] | None = None,
    access_log: bool = True,
    measure: bool = True,
) -> None:
    """Serve classifiers over HTTP: many pictures per request, evidence on demand, metrics, reload."""
    from ..service.serve import ServiceSettings, make_service
    from ..service.serve.serving import run
    from ..service.serve.settings import read_token

    names = ("request_seconds", "max_waiting", "max_batch", "max_wait")
    request_seconds, max_waiting, max_batch, max_wait = session.take(*names)
    max_pictures, reload_seconds, drain_seconds = session.take("max_pictures", "reload_seconds", "drain_seconds")
    web = _web_settings(
        session, request_seconds=request_seconds, measure=measure,
        n_waiting=max_waiting, batch=max_batch, gather_seconds=max_wait / 1000,
    )  # fmt: skip
    settings = ServiceSettings(
        web, token=None if no_token else read_token(token_file), open_without_token=no_token, n_pictures=max_pictures,
        rate=rate, reload_seconds=reload_seconds, drain_seconds=drain_seconds,
    )  # fmt: skip
    _ = session.terminal  # sets up logging
    sources: dict[str, Classifier | Path] = dict(named(model or []))
    if not sources:
        session.store_name = "none"
        sources["imagenet"] = session.classifier()
    service = make_service(sources, settings, load=session.saved, log_to=STDOUT if access_log else None)
    listed = ", ".join(sources)
    said = f"SeeWhy serves {listed} at {{}} (SIGTERM or Ctrl-C stops it)"
    run(service, lambda url: session.ready(said.format(url), file=sys.stderr))


def named(models: list[str]) -> dict[str, Path]:
    """Return the name and the folder of the model in each option ``-m``.

    >>> named(["birds", "plants=models/plants-3"])
    {'birds': PosixPath('birds'), 'plants': PosixPath('models/plants-3')}
    """
    folders: dict[str, Path] = {}
    for text in models:
        name, is_named, folder = text.partition("=")
        if not is_named or Path(text).exists():
            name, folder = Path(text).resolve().name, text
        if not NAME.fullmatch(name) or not folder:
            raise InputError(
                f"The name of a model must be up to 64 letters, digits, points and dashes, got {name!r} "
                f"from -m {text!r}. Give -m NAME=FOLDER."
            )
        for one, place in _decisions(name, Path(folder)).items():
            if one in folders:
                raise InputError(f"Models must have different names, but {one!r} occurs twice. Give -m NAME=FOLDER.")
            folders[one] = place
    return folders


def _decisions(name: str, folder: Path) -> dict[str, Path]:
    """Return a model, or each decision of a model that makes several, as ``NAME.DECISION``."""
    from ..classifiers.saving import OUTPUTS

    if not OUTPUTS.is_one(folder):
        return {name: folder}
    parts = [one["folder"] for one in OUTPUTS.load_card(folder)["decisions"]]
    return {f"{name}.{re.sub('[^A-Za-z0-9_-]', '-', part)}"[:64]: folder / part for part in parts}


def export(
    session: Session,
    *,
    output: Path,
    model: str | None = None,
    labels: str | None = None,
    check_on: list[str] | None = None,
) -> None:
    """Write a classifier as one ONNX graph with its prediction and Grad-CAM, and check that graph and classifier give
    the same answers.
    """
    from ..service.export import check_place
    from ..service.export import export as write

    check_place(output)
    session.engine, session.store_name = "torch:f32", "none"
    classifier = session.classifier(model, labels)
    pictures = None if check_on is None else list(session.pictures(check_on))
    exported = write(classifier, output, pictures=pictures, progress=session.terminal)
    for failure in exported.failures:
        session.terminal.failed(failure)
    check = exported.card["check"]
    far = ", ".join(f"{name} {value:g}" for name, value in check["differences"].items())
    kind = "generated pictures" if check["drawn"] else "pictures"
    lines = [
        f"{exported.graph}: {len(classifier.classes)} classes",
        f"{check['pictures']} {kind}, largest differences from SeeWhy: {far}",
    ]
    session.say(exported.to_json(), *lines)
    session.end(check["pictures"])
