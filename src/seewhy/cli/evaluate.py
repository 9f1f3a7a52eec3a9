"""``seewhy evaluate``: how good, and how far to trust the explanations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..printable import printable
from . import options
from .evaluate_boxes import DetectorName, Novel, PicturesFolder, is_of_boxes, run_boxes
from .masks import run_masks
from .object_options import ObjectWords, SegmenterFolder, masks_of
from .outputs import deliver
from .pairs import TextColumn
from .retrieval import run_retrieval
from .terminal import say

if TYPE_CHECKING:
    from ..errors import InputError
    from ..evaluation import Report

EXAMPLES = """
Examples:\n
  seewhy evaluate test/ -m birds\n
  seewhy evaluate test.csv -m birds --json > report.json\n
  seewhy evaluate test/ --labels classes.json -o report.html\n
  seewhy evaluate test/ -m birds --cards why/\n
  seewhy evaluate test/ -m birds --unknown holidays/ --level 0.95\n
  seewhy evaluate streets/ --labels "sky, road, car" --probe more-streets/ -o masks.html\n
  seewhy evaluate boxes.json -m det -o boxes.html\n
  seewhy evaluate boxes.json --detector word_regions --pictures photos/\n
  seewhy evaluate captions.jsonl --retrieval -m enc -o found.html
"""


def evaluate(
    data: Annotated[
        Path,
        typer.Argument(
            help="Labelled pictures: class folders or a table; or masks: images/ and labels/, COCO's JSON; or boxes.",
            show_default=False,
        ),
    ],
    model: Annotated[
        str | None,
        options.saved(
            "A classifier; of masks a segmenter, of boxes a detector, with --retrieval an adapted encoder. "
            f"{options.OTHERWISE}"
        ),
    ] = None,
    labels: options.Labels = None,
    encoder: options.EncoderName = "lite0",
    engine: options.EngineName = "auto",
    descriptions: options.DescriptionFile = None,
    follow_up: options.FollowUpFile = None,
    output: Annotated[Path | None, options.output("The report, .html or .json; left out, it is only printed.")] = None,
    cards: Annotated[
        Path | None,
        typer.Option(help="A folder for cards of the wrong decisions; the report leads to them.", show_default=False),
    ] = None,
    n_explained: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Pictures on which explanations are measured. Left out, 32 with --faithfulness or masks, else none.",
            show_default=False,
        ),
    ] = None,
    crops: options.Crops = "center",
    image_column: options.ImageColumn = "image",
    label_column: options.LabelColumn = "label",
    group: options.Group = None,
    faithfulness: Annotated[
        bool,
        typer.Option(
            "--faithfulness",
            help="Measure explanations too: deletion and insertion, average drop, increase, gain, ROAD and sparsity of "
            "maps, and how often neighbours are of the class decided for.",
        ),
    ] = False,
    level: options.Level = 0.9,
    unknown: Annotated[
        Path | None,
        typer.Option(help="A folder of pictures of no class: how well are they told?", show_default=False),
    ] = None,
    retrieval: Annotated[
        bool,
        typer.Option(
            "--retrieval",
            help="Pictures with texts: how often they find one another, and what an adapted encoder, given as "
            "-m, gained and forgot.",
        ),
    ] = False,
    also: Annotated[
        list[Path] | None,
        options.also("With --retrieval."),
    ] = None,
    text_column: TextColumn = None,
    probe: Annotated[
        Path | None,
        typer.Option(help="Masks of other pictures: what a linear probe trained on them reaches.", show_default=False),
    ] = None,
    ignore: Annotated[
        list[int] | None,
        typer.Option(help="A value of masks that counts for nothing. Left out, 255.", show_default=False),
    ] = None,
    detector: DetectorName = None,
    pictures: PicturesFolder = None,
    novel: Novel = None,
    object_mask: Annotated[
        Path | None,
        typer.Option(
            help="The object's mask, or a folder of masks named like the pictures: how much of the heat lies outside.",
            show_default=False,
        ),
    ] = None,
    object_segmenter: SegmenterFolder = None,
    object_words: ObjectWords = None,
    seed: Annotated[int, options.seed("The pictures explained.")] = 0,
    force: options.Force = False,
    as_json: options.Json = False,
    store: options.Store = None,
    quiet: options.Quiet = False,
) -> None:
    """Accuracy, per class, calibration, confusions, and, where asked, how faithful explanations are."""
    from ..classifiers.linear.jitter import predict_views
    from ..errors import DataError
    from ..evaluation import evaluate as run
    from ..evaluation.confusions import address, write_cards
    from ..evidence.batch import check_output
    from ..pictures.pixel_classes import is_masked
    from ..pictures.samples import load_samples
    from ..report.paging import check_ending
    from .terminal import Terminal

    path = None if output is None else check_ending(output, force=force)
    drawn = (object_mask, object_segmenter, object_words)
    boxed, masked = is_of_boxes(model, detector), not retrieval and is_masked(data)
    if any(drawn) and (retrieval or boxed or masked or n_explained == 0):
        raise _no_maps()
    if retrieval:
        columns: dict[str, Any] = {"image": _own(image_column, "image"), "label": _own(label_column, "label")}
        columns |= {"text": text_column, "group": group}
        run_retrieval(str(data), model or encoder, engine, columns, also, path, seed, force, as_json, store, quiet)
        return
    if boxed:
        boxes = (data, model, detector, labels, encoder, engine, pictures, novel)
        run_boxes(*boxes, path, seed, force, as_json, store, quiet)
    if masked:
        run_masks(data, model, labels, encoder, engine, probe, ignore, path, seed, force, as_json, store, quiet)
        return
    if cards is not None and check_output(cards):
        raise DataError(f"{cards} would be one file. A folder for several cards was expected. Leave the ending out.")
    terminal, kept = Terminal(quiet), options.open_store(store)
    classifier = options.resolve(model, labels, encoder, engine, descriptions, kept, follow_up)
    samples = load_samples(data, image=image_column, label=label_column, group=group)
    report = run(
        classifier,
        samples,
        n_explained=n_explained,
        store=kept,
        views=predict_views(crops),
        seed=seed,
        faithfulness=faithfulness,
        level=level,
        unknown=unknown,
        objects=masks_of(classifier, samples, drawn, encoder, engine, kept),
        progress=terminal,
    )
    if cards is not None:
        made = write_cards(report, classifier, cards, store=kept, progress=terminal)
        report = replace(report, cards={name: address(card, path or card) for name, card in made.items()})
    deliver(report, path, force, as_json, lambda: _print(report, path))
    raise typer.Exit(terminal.exit_code(report.data["n"]))


def _no_maps() -> InputError:
    from ..errors import InputError

    return InputError(
        "Where the objects are was told, and no map of a classifier is measured here. Pictures with classes, and one "
        "explained picture or more, were expected. Leave --object-mask, --object-segmenter and --object out."
    )


def _own(column: str, preset: str) -> str | None:
    """A column, if a person named one."""
    return None if column == preset else column


def _print(report: Report, path: Path | None) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from ..classifiers.figures import range_in_words

    d = report.data
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    low, high = d["accuracy_interval"]
    table.add_row("accuracy", f"{d['accuracy']:.1%} of {d['n']} pictures (95 % interval {low:.1%} to {high:.1%})")
    if expected := d["expected"]:
        low, high = expected["held_out_interval"] or (None, None)
        between = "" if low is None else f" (95 % interval {low:.1%} to {high:.1%})"
        if (other := expected["expected_range"]) is not None:
            between += f"; on another day {range_in_words(other)}"
        table.add_row("expected", f"{expected['held_out_accuracy']:.1%}, held out while fitting{between}")
    table.add_row("calibration error", f"{d['calibration_error']:.3f} (0 is perfect)")
    for name, said in _trust_rows(d["trust"]):
        table.add_row(name, said)
    for name, said in _where_rows(d["faithfulness"]):
        table.add_row(name, said)
    if not (d["faithfulness"] or d["like"]):
        table.add_row("explanations", "not measured; --faithfulness measures them")
    if like := d["like"]:
        table.add_row("like what", f"{like['held_out_precision']:.0%} of neighbours carry the predicted class")
    if words := d["words"]:
        table.add_row(
            "in words",
            f"alone right on {words['accuracy']:.1%}; bare names {words['name_only']:.1%}, "
            f"meaningless words {words['random_words']:.1%}",
        )
    for confusion in d["confusions"][:3]:
        times = "once" if confusion["n"] == 1 else f"{confusion['n']} times"
        said = f"{confusion['true']} taken for {confusion['predicted']}, {times}"
        table.add_row("confusion", escape(printable(said)))
    console = Console(soft_wrap=True)
    console.print(table)
    if path is not None:
        say(f"report: {path}")


def _where_rows(where: dict[str, Any] | None) -> Iterator[tuple[str, str]]:
    """How faithful the maps are."""
    from ..evaluation.faithfulness import FURTHER

    if not where:
        return
    zero = f"; nothing speaks for the class on {where['n_zero']} of {where['n']}" if where["n_zero"] else ""
    figures = "no map has a place to hide first"
    if where["deletion"] is not None:
        figures = (
            f"deletion {where['deletion']:.2f}, at shuffled places {where['deletion_random']:.2f} (low is good); "
            f"insertion {where['insertion']:.2f}, {where['insertion_random']:.2f} (high is good); n = {where['n']}"
        )
    yield ("where it looked", figures + zero)
    yield ("than a random map", where["than_random"]["sentence"])
    if where["match"] is not None:
        levels = ", ".join(f"{level} {n}" for level, n in where["verdicts"].items() if n)
        middle = where["match_centre"]
        yield ("its match", f"{where['match']:.2f}, of a bump in the middle {middle:.2f}; {levels}")
    for name in (k for k in FURTHER if k in where):
        figures = f"{where[name]:.3g}, at shuffled places {where[f'{name}_random']:.3g}"
        yield (name.replace("_", " "), figures)
    if "outside" in where:
        yield ("on the background", where["outside"]["sentence"])


def _trust_rows(t: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Whether decisions keep what they promise."""
    low, high = t["coverage_interval"]
    promised = f"{t['level']:.0%} were promised" + ("" if t["by"] == "held-out pictures" else " by its own count")
    yield (
        "true class among those named",
        f"{t['coverage']:.1%} ({low:.1%} to {high:.1%}), {promised}; {t['set_size']:.2f} classes on average",
    )
    if t["sure_right"] is not None:
        yield "called sure", f"{t['n_sure']} pictures, {t['sure_right']:.1%} of them right"
    if t["auroc"] is not None:
        yield (
            "right told from wrong",
            f"AUROC {t['auroc']:.3f}, by its own probability {t['auroc_probability']:.3f}; risk-coverage area "
            f"{t['aurc']:.4f}, by its own {t['aurc_probability']:.4f} (best {t['aurc_best']:.4f}, "
            f"chance {t['aurc_chance']:.4f})",
        )
    if (unseen := t["unseen"]) is not None and unseen["near_found"] is not None:
        low, high = unseen["near_interval"]
        yield (
            "classes it never saw",
            f"{unseen['near_found']:.1%} ({low:.1%} to {high:.1%}) noticed, {unseen['near_sure']:.1%} called sure, "
            f"when its own classes were left out of the fit in turn; n = {unseen['n_near']}",
        )
    if (u := t["unknown"]) is not None:
        found = (
            ""
            if u["found"] is None
            else f"; {u['found']:.1%} noticed, {u['sure']:.1%} called sure; {1 - u['kept']:.1%} of its own taken for it"
        )
        yield (
            "known told from unknown",
            f"AUROC {u['auroc']:.3f} on {u['n']} pictures, by its own probability {u['auroc_probability']:.3f}{found}",
        )
