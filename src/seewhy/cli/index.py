"""``seewhy index`` and ``seewhy search``: make pictures searchable, and search them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from ..bounds import Count
from ..errors import InputError
from ..printable import printable
from .session import Session, not_both

if TYPE_CHECKING:
    from ..retrieval.writing import Entry


def index(
    session: Session,
    data: list[Path] | None = None,
    *,
    output: Path | None = None,
    model: str | None = None,
    add: bool = False,
    forget: list[Path] | None = None,
    forget_missing: bool = False,
    rebuild: bool = False,
    verify: Path | None = None,
    parquet: bool = False,
    shard: str = "1/1",
    workers: Count = 1,
    cluster: str | None = None,
    status: Path | None = None,
) -> None:
    """Make pictures searchable, or change an index; with --parquet, only write their vectors.

    Only new pictures are read. Run again to continue a stopped run.
    """
    from ..retrieval import Index
    from ..retrieval.index import check_place
    from ..retrieval.settings import Settings
    from ..retrieval.writing import Change
    from ..scale.reading import add_run, is_run

    if verify is not None or status is not None:
        _look_at(session, verify, status, data or output or forget or forget_missing or rebuild)
    of_model = None if model is None else "@".join(filter(None, (f"adapted:{model}", session.own_encoder)))
    if parquet and not data:
        raise InputError(
            "--parquet requires pictures. Write seewhy index PICTURES -o FOLDER --parquet, or --status FOLDER."
        )
    if parquet:
        from ..scale.work import Embed
        from .many import Spread, into_parquet

        spread = session.make(Spread, rest=False)
        work = replace(session.make(Embed), encoder=of_model or session.encoder_name, engine=session.engine)
        into_parquet(session, work, spread)
    if output is None:
        raise InputError("The folder of the index is required. Give it with -o.")
    if not (data or forget or forget_missing or rebuild):
        raise InputError(
            "No change to the index was given. Give pictures to add, or use --forget, "
            "--forget-missing, --rebuild or --verify."
        )
    session.resumes.append(check_place(output))
    settings = session.make(Settings)
    runs = [folder for folder in data or [] if is_run(folder)]
    entries = list(_entries(session, [p for p in data or [] if p not in runs]))  # a wrong name is told first
    if add or not data:
        opened = Index.open(output, session.own_encoder, engine=session.engine)
    else:
        opened = Index.create(output, session.encoder(of_model), settings)
    terminal = session.terminal
    removed = opened.remove(forget) if forget else 0
    if forget_missing:
        removed += opened.remove_missing()
    change = opened.add(entries, store=session.store, progress=terminal, total=len(entries)) if entries else None
    for folder in runs:
        change = (change or Change()) + add_run(opened, folder, terminal)
    if rebuild:
        opened.rebuild()
    told = {"index": str(output), **(vars(change) if change else {}), "removed": removed, **opened.describe()}
    opened.close()  # leaves one file, which can be read from a medium that cannot be written
    failures = [f.to_json() for f in terminal.failures]
    session.say({**told, "notes": list(terminal.notes), "failures": failures}, _index_line(told))
    session.end(told["n"])


def _look_at(session: Session, verify: Path | None, status: Path | None, change: Any) -> NoReturn:
    """Verify an index or a run, or print a run's status; exit with code 2 if it is damaged, 1 if it is incomplete."""
    from ..retrieval import Index
    from ..scale.reading import is_run
    from ..scale.reading import status as read_status
    from ..scale.reading import verify as verify_run

    option = "--verify" if verify is not None else "--status"
    if change or (verify is not None and status is not None):
        other = "--status" if not change else "pictures or a change"
        raise not_both(option, other)
    if status is not None:
        run = read_status(status)
        session.say(run.to_json(), *run.lines())
        raise typer.Exit(1 if run.missing else 0)
    assert verify is not None
    if is_run(verify):
        checked = verify_run(verify)
    else:
        with closing(Index.open(verify)) as opened:
            checked = opened.verify()
    session.say(checked.to_json(), *checked.lines())
    raise typer.Exit(2 if checked.damaged else 0)


def _entries(session: Session, data: Sequence[Path]) -> Iterator[Entry]:
    from ..pictures.samples import TABLES
    from ..pictures.sources import list_pictures
    from ..retrieval.writing import Entry

    for source in data:
        if source.suffix.lower() in TABLES:
            yield from (Entry(s.image, s.label) for s in session.samples(source).items)
            continue
        for name in list_pictures([source]):
            inside = Path(name).relative_to(source).parts if source.is_dir() else ()
            yield Entry(name, inside[0] if len(inside) > 1 else "")


def _index_line(told: dict[str, Any]) -> str:
    changes = [f"{told[key]:,} {key}" for key in ("added", "updated", "unchanged", "removed") if told.get(key)]
    classes = f" in {told['labels']} classes" if told["labels"] else ""
    return f"{told['index']}: {told['n']:,} pictures{classes}" + (f" ({', '.join(changes)})" if changes else "")


def search(
    session: Session,
    index: Path,
    *,
    image: list[str] | None = None,
    text: str = "",
    k: Count = 10,
    output: Path | None = None,
    unlike: list[str] | None = None,
    without: str = "",
    where_label: list[str] | None = None,
) -> None:
    """Search an index by picture, by words, or by both."""
    from ..report.paging import check_ending
    from ..retrieval import Index, Query

    _ = session.terminal  # sets what is noted
    if output is not None:
        check_ending(output, force=session.force)
    collapse, levels = session.take("collapse", "levels")
    query = session.make(Query, like=image or (), text=text, unlike=unlike or (), without=without)
    results = Index.open(index, session.own_encoder, engine=session.engine).search(
        query, k=k, labels=where_label or None, collapse=None if collapse == 1 else collapse, levels=levels
    )
    if output is not None:
        results.save(output, force=session.force)
    lines = []
    for hit in results.hits:
        copies = f"  (+{len(hit.copies)})" if hit.copies else ""
        lines.append(f"{hit.cosine:.3f}\t{printable(hit.label)}\t{printable(hit.image)}{copies}")
    lines.append(f"{len(results.hits)} of {results.data['n_searched']:,} pictures; every picture compared")
    session.say(results.data, *lines, *([] if output is None else [f"page: {output}"]))
