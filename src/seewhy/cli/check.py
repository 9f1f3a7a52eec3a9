"""``seewhy check``: find wrong labels, copies, outliers, faulty pictures and texts that do not fit."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from ..bounds import Bound
from ..errors import InputError, SeeWhyError, needs
from ..parameters import configured
from ..printable import csv_row
from ..storage.output import check_apart, check_file, make_folder, remove, write
from .places import check_report
from .session import Session
from .terminal import say

if TYPE_CHECKING:
    from ..language.annotation.labels import LabelDecisions, LabelledData
    from ..language.pairs import Rule
    from ..pictures.samples import Sample
    from ..studies.inspection.check import Finding


def check(
    session: Session,
    data: Path,
    *,
    output: Path | None = None,
    model: str | None = None,
    by: str = "odds",
    against: Path | None = None,
    from_: Path | None = None,
    serve: bool = False,
    export: Path | None = None,
    texts: bool = False,
    skip: list[str] | None = None,
    host: str = "127.0.0.1",
    port: Annotated[int, Bound(0, 65535)] = 8000,
    name: list[str] | None = None,
) -> None:
    """Find wrong labels, copies, outliers and faulty pictures in labelled data, each with its reason."""
    if texts:
        _texts(session)
    if from_ is not None or serve or export is not None:
        _go_on(session)
    _labels(session)


def _labels(session: Session) -> NoReturn:
    from ..classifiers.saving import shared_in
    from ..pictures.samples import gathered, load_pictures
    from ..studies.inspection.check import Check, sentence

    o = session.given
    how = session.make(Check, by=o.by)
    check_report(o.output, "check", session.force)
    csv = None if o.output is None else o.output / "findings.csv"
    if csv is not None and csv.parent.is_dir():
        check_file(csv, force=session.force)
    model, answers = session.several(o.model), None
    if model is None:
        samples = session.samples(o.data, group=session.group, split=session.columns.get("split")).labelled()
    else:
        answers = session.answers_to(model, o.data)
        samples = gathered(answers.items, answers.notes)
    others = None if o.against is None else load_pictures(o.against, **session.picture_columns)
    classifier = None if o.model is None or model is not None else session.saved(o.model)
    encoder = session.encoder() if classifier is None else classifier.base
    encoder = encoder if model is None else model.encoder
    if o.model is not None and any(map(shared_in, (Path(o.model), Path(o.model).parent))):
        encoder = encoder.base or encoder  # which has not learnt the labels
    known = None if classifier is None else classifier.classes
    soon = None if o.output is None else o.output / "findings-so-far.csv"
    session.resumes += [] if soon is None else [soon]
    notes = [""]

    def early(so_far: Sequence[Finding]) -> None:
        if so_far and soon is not None:
            with suppress(SeeWhyError):  # what is early stops nothing
                write(make_folder(soon.parent) / soon.name, _table([f.to_json() for f in so_far]), force=session.force)
        notes.append(f"so far, {sentence(len(samples), Counter(f.kind for f in so_far))}")
        if so_far and notes[-1] != notes[-2]:
            session.terminal.tell(notes[-1])

    findings = how.run(encoder, samples, known=known, answers=answers, against=others, early=early, **session.kept)
    session.report(findings, o.output, "check")
    if csv is not None and soon is not None:
        write(csv, _table(findings.data["findings"]), force=session.force)
        remove(soon)
    session.end(findings.data["n"])


def _table(findings: Sequence[Mapping[str, Any]]) -> str:
    from ..studies.inspection.check import COLUMNS, rows_of

    return "".join(csv_row(row) for row in [list(COLUMNS), *rows_of(findings)])


def _go_on(session: Session) -> NoReturn:
    """Continue an earlier check: write the corrected table, or serve the page for decisions."""
    from ..language.annotation.labels import Corrections, LabelledData, check_corrected, open_decisions
    from ..pictures.samples import load_pictures
    from ..studies.inspection.check import read_check, small_picture

    o = session.given
    if o.from_ is None or o.serve == (o.export is not None):
        raise InputError(
            "--serve and --export require --from FOLDER, the folder of an earlier check, and --from requires one of "
            "them. Example: seewhy check DATA --from FOLDER --serve"
        )
    if o.export is not None:
        check_corrected(o.export, o.data, session.force)
    samples = session.samples(o.data, group=session.group)
    earlier = read_check(o.from_, o.data, samples.items)
    labelled = LabelledData(o.data, samples.items, *label_columns(session))
    others = () if o.against is None else load_pictures(o.against, image=labelled.image, label=labelled.label).items
    corrections = Corrections(labelled, open_decisions(o.from_, earlier["classes"]))
    if o.export is None:
        with needs("app", "The page"):
            from ..service.app import Settings
            from ..service.app.deciding import make_check_app
        settings = Settings(host=o.host, port=o.port, names=tuple(o.name or ()))
        note_links(session, [*samples.items, *others], o.data, o.against)
        page = make_check_app(earlier, corrections, small_picture, settings, others)

        def told(url: str) -> None:
            session.ready()
            say(f"{len(earlier['findings'])} findings at {url} (stop with Ctrl-C)")

        with closing(corrections.decisions.store):
            serve_page(page, settings, told, "decide")
    else:
        export_corrected(session, o.export, corrections.data, corrections.decisions)
    raise typer.Exit


def note_links(session: Session, items: Sequence[Sample], *folders: Path | None) -> None:
    """Say that a page shows the files elsewhere to which links in the folders lead."""
    own = tuple(os.path.join(os.path.realpath(folder), "") for folder in folders if folder is not None)
    away = [one.image for one in items if os.path.islink(one.image) and not os.path.realpath(one.image).startswith(own)]
    if away:
        session.terminal.note(
            f"{len(away)} of the pictures are links to files in other folders, such as {away[0]}. Everybody who can "
            "open the page can see them."
        )


def label_columns(session: Session) -> tuple[str, str]:
    return session.columns.get("image", "image"), session.columns.get("label", "label")


def export_corrected(session: Session, path: Path, data: LabelledData, decisions: LabelDecisions) -> None:
    from ..language.annotation.labels import write_corrected

    standing = decisions.standing()
    counts = write_corrected(path, data, standing, force=session.force)
    decisions.store.close()
    parts = ", ".join(f"{n} {what.replace('_', ' ')}" for what, n in counts.items() if what != "n")
    session.say({"file": str(path), **counts}, f"{path}: {counts['n']} pictures ({parts})")
    if counts["outdated"]:
        say(
            f"seewhy: {data.path} now has other labels in {counts['outdated']} of {counts['n']} rows. People decided "
            f"on these rows when they had their old labels, so the decisions are marked outdated and not applied. "
            f"Decide on these rows again.",
            file=sys.stderr,
        )
    bare = sum(one["decision"] == "changed" and not one["given"] for one in standing.values())
    if bare and not data.unlabelled:
        say(
            f"seewhy: {path} lacks the labels of {bare} unlabelled picture(s). Give their folder to seewhy app with "
            "--unlabelled.",
            file=sys.stderr,
        )


def serve_page(page: Any, settings: Any, told: Callable[[str], None], what: str) -> None:
    """Serve a page; ``what`` says what everybody can do who reaches it."""
    with needs("app", "The page"):
        from ..service.app.serving import run

    def ready(url: str) -> None:
        told(url)
        if settings.is_open:
            say(
                f"seewhy: other machines can reach {settings.host}, and everybody who does can read this page and "
                f"{what}: it has no passwords. Leave out --host to serve only this machine.",
                file=sys.stderr,
            )

    run(page, settings, ready)


def _texts(session: Session) -> NoReturn:
    """Check pictures with texts by rules, and optionally write the pairs that pass and the others."""
    from ..language.pairs import check as check_pairs

    o = session.given
    (n_examples,) = session.take("n_examples")
    scoring = {"encoder": session.encoder(), "store": session.store} if session.was_given(["encoder"]) else {}
    how = {"with_rules": _rules(session, o.skip), **session.pair_columns(), **scoring, "progress": session.terminal}
    if o.output is not None:
        _clean(session, how)
    result = check_pairs(o.data, n_examples=n_examples, **how)
    session.terminal.note_all(result.notes)
    session.say(result.to_json(), *str(result).splitlines())
    raise typer.Exit


def _clean(session: Session, how: dict[str, Any]) -> NoReturn:
    from ..language.pairs import clean
    from ..language.pairs.checking import beside, check_place

    output, pairs = session.given.output, session.given.data
    for place in (output, beside(output)):
        check_apart(place, [pairs])
    check_place(output, force=session.force)
    cleaned = clean(pairs, **how)
    session.terminal.note_all(cleaned.kept.notes)
    kept, removed = cleaned.save(output, force=session.force)
    n, n_texts, n_removed = len(cleaned.kept), cleaned.kept.n_texts, len(cleaned.removed)
    session.say(
        {"file": str(kept), "removed_file": str(removed), "pictures": n, "pairs": n_texts, "removed": n_removed},
        f"{kept}: {n} pictures with {n_texts} texts; {removed}: {n_removed} removed",
    )
    raise typer.Exit


def _rules(session: Session, skip: list[str] | None) -> list[Rule]:
    from ..language.pairs import rules

    for name in skip or ():
        rules[name]
    given: dict[str, dict[str, str]] = {}
    for setting, value in session.settings.items():
        name, _, field = setting.partition(":")
        if not field:
            raise InputError(
                f"--set must be RULE:FIELD=VALUE, got '{setting}={value}'. Use, for example, too_long:most=40."
            )
        given.setdefault(rules[name].name, {})[field] = value
    return [configured(rules[name], given.get(name, {})) for name in rules if name not in (skip or ())]
