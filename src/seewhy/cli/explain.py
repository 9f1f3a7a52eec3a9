"""``seewhy explain``: the decision, and where, like what, in words."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options
from .explain_parts import DetectorName, Known, Most, PartsAsked, SegmenterName, run_parts
from .method_options import Set
from .object_options import ObjectWords, SegmenterFolder, loaded_segmenter, with_objects
from .scale_options import (
    ClusterOption,
    Decoders,
    Gpus,
    Parquet,
    PartOption,
    PerShard,
    Threads,
    WorkersOption,
)
from .scaled import explain_many
from .terminal import say

if TYPE_CHECKING:
    from ..classifiers.base import Classifier
    from ..evidence.batch import Batch, Done
    from ..evidence.explain import ExplainOptions
    from ..storage.features import FeatureStore
    from ..types import Failure
    from .terminal import Terminal

EXAMPLES = """
Examples:\n
  seewhy explain photo.jpg -o why/\n
  seewhy explain photo.jpg --labels "wren, house sparrow, blue tit"\n
  seewhy explain new.jpg other/ -m birds -o why/\n
  seewhy explain photo.jpg --target wren --contrast "house sparrow" -o wren.html\n
  seewhy explain photo.jpg --target-text "a red beak" --contrast-text "a yellow beak"\n
  seewhy explain photo.jpg --labels "wren, robin" --follow-up pairs.json\n
  seewhy explain photo.jpg --labels birds.json --validation photos/\n
  seewhy explain photo.jpg -m birds --typical gen --judge timm:resnet18 -o why/\n
  seewhy explain photo.jpg --object bird -o why/\n
  seewhy explain photos/ -m birds --object-mask masks/ -o why/\n
  seewhy explain photos/ -m birds --parquet -o why/ --shard 3/16\n
  seewhy explain photo.jpg --where layer_cam --layer blocks.4\n
  seewhy explain photo.jpg -m seg -o why/\n
  seewhy explain photo.jpg --labels "stamp, platelet" --detector word_regions -o why/\n
  seewhy explain photo.jpg --where rise --set n_masks=1000 --set masks=stratified
"""


def explain(
    context: typer.Context,
    pictures: options.Pictures,
    model: Annotated[str | None, options.saved(f"A classifier, segmenter or detector. {options.OTHERWISE}")] = None,
    labels: options.Labels = None,
    descriptions: options.DescriptionFile = None,
    follow_up: options.FollowUpFile = None,
    encoder: options.EncoderName = "lite0",
    focus: options.Focus = None,
    engine: options.EngineName = "auto",
    output: Annotated[
        Path | None,
        options.output(
            "A folder for cards and their index, or one .html, .png or .json file; left out, no card is made.",
            "PATH|ADDRESS",
        ),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(
            help="How to show where it looked; see: seewhy methods. Left out, the model's own, or grad_cam.",
            show_default=False,
        ),
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="Explain this class, not the predicted one.", show_default=False)
    ] = None,
    contrast: Annotated[str | None, typer.Option(help="Rather than this class.", show_default=False)] = None,
    layer: Annotated[
        str | None,
        typer.Option(help="Read the map at this inner layer; left out, at the encoder's last map.", show_default=False),
    ] = None,
    setting: Set = None,
    neurons: Annotated[
        int, typer.Option(min=0, help="List this many neurons that speak most for it, and against it, by name.")
    ] = 0,
    explainer: Annotated[
        Path | None,
        typer.Option(help="A trained explainer or its folder; left out, the classifier's own.", show_default=False),
    ] = None,
    target_text: Annotated[
        str | None, typer.Option(help="Explain the similarity to this sentence, not a class.", show_default=False)
    ] = None,
    contrast_text: Annotated[str | None, typer.Option(help="Rather than to this sentence.", show_default=False)] = None,
    like: Annotated[
        str | None,
        typer.Option(
            help="epic, nearest, protopnet or voters; left out, epic where the model has its prototypes, else its own.",
            show_default=False,
        ),
    ] = None,
    prototypes: Annotated[
        str | None,
        typer.Option(help="What fit-prototypes wrote; left out, the classifier's own.", show_default=False),
    ] = None,
    because: Annotated[bool, options.because("7 forward passes more.")] = False,
    object_mask: Annotated[
        Path | None,
        typer.Option(
            help="The object's mask, or a folder of masks named like the pictures: how much of the heat lies outside.",
            show_default=False,
        ),
    ] = None,
    object_segmenter: SegmenterFolder = None,
    object_words: ObjectWords = None,
    strengths: options.Strengths = "calibrated",
    validation: options.Validation = None,
    measure: options.Measure = True,
    typical: Annotated[
        Path | None,
        typer.Option(
            help="Also typical pictures of the class, made once for each: the folder of a trained generator.",
            show_default=False,
        ),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            help="A saved classifier or an encoder with words that says what is on the pictures; not the one climbed.",
            show_default=False,
        ),
    ] = None,
    png: Annotated[bool, typer.Option("--png", help="Also a still picture of each card.")] = False,
    seed: Annotated[int, options.seed("The shuffled maps.")] = 0,
    parquet: Parquet = False,
    shard: PartOption = "1/1",
    per_shard: PerShard = 2048,
    workers: WorkersOption = 1,
    threads: Threads = None,
    cluster: ClusterOption = None,
    gpus: Gpus = 0.0,
    decoders: Decoders = 0,
    image_column: options.ImageColumn = "image",
    force: options.Force = False,
    level: options.Level = 0.9,
    detector: DetectorName = None,
    segmenter: SegmenterName = None,
    known: Known = None,
    most_cards: Most = 20,
    as_json: options.Json = False,
    store: options.Store = None,
    quiet: options.Quiet = False,
) -> None:
    """Explain pictures: print the answer; with -o, write a card each and an index. Stopped, it goes on where it was.

    With a saved segmenter, or --detector or --segmenter and --labels, what is found in each picture gets a card.
    """
    from ..attributions.explainers import trained
    from ..evidence.batch import Batch
    from ..evidence.explain import ExplainOptions
    from ..prototypes.perturbations import find_changes
    from .generate import judge_named
    from .method_options import settings
    from .terminal import Terminal

    if parquet:
        explain_many(context.params)
    parts = PartsAsked(model, labels, detector, segmenter, encoder, focus, engine, descriptions, known, most_cards)
    how = ExplainOptions(
        where=where,
        target=target,
        contrast=contrast,
        measure=measure,
        seed=seed,
        layer=layer,
        target_text=target_text,
        contrast_text=contrast_text,
        settings=settings(setting),
        neurons=neurons,
        like=like,
        prototypes=prototypes,
        because=find_changes(strengths).name if because else None,
        level=level,
        typical=typical,
        judge=None if judge is None else judge_named(judge, engine),
    )
    if parts.wanted:
        others = {
            "--follow-up": follow_up, "--explainer": explainer, "--validation": validation, "--typical": typical,
            "--object-mask": object_mask, "--object-segmenter": object_segmenter, "--object": object_words,
        }  # fmt: skip
        run_parts(parts, how, pictures, output, others, png=png, force=force, as_json=as_json, store=store, quiet=quiet)
    terminal = Terminal(quiet)
    _check(output, png, force)
    kept = options.open_store(store)
    classifier = options.resolve(model, labels, options.focused(encoder, focus), engine, descriptions, kept, follow_up)
    classifier = _measured(classifier, validation, kept, terminal)
    told_objects = (object_mask, loaded_segmenter(object_segmenter, encoder, engine), object_words)
    names, objects = with_objects(classifier, options.picture_names(pictures, output), *told_objects, kept)
    method = where if explainer is None else trained(where or classifier.where, explainer)
    how = replace(how, where=method, objects=objects)
    _note_layer(classifier, how, terminal)
    batch = Batch(classifier, how, output, png=png, store=kept, force=force)
    _run(batch, names, terminal, as_json)


def _run(batch: Batch, names: Iterable[str], terminal: Terminal, as_json: bool) -> None:
    """Explain them, one line or a few for each, and end with what could not be done."""
    done = say_results(batch.run(names), terminal, told, as_json)
    if batch.index is not None and done and not as_json:
        say(f"index: {batch.index}")
    if batch.output is None and done:
        terminal.note("no card was made; -o why makes one for each picture, in a folder why")
    raise typer.Exit(terminal.exit_code(done))


def say_results(
    results: Iterator[Done | Failure], terminal: Terminal, tell: Callable[[Done], None], as_json: bool
) -> int:
    """Print each result as it comes; how many there were beside failures."""
    done = 0
    for result in terminal.readable(results, "Explaining", as_json):
        done += 1
        if as_json:
            say(json.dumps(result.record, ensure_ascii=False), flush=True)
        else:
            tell(result)
    return done


def _check(output: Path | None, png: bool, force: bool) -> None:
    """See that cards can be written, before the work begins; without a place there are none."""
    from ..errors import InputError
    from ..evidence.batch import check_output

    if png and (output is None or output.suffix):
        found = "no place for it" if output is None else f"{output} is one file"
        raise InputError(f"--png was given, and {found}. A folder was expected. Name one with -o.")
    if output is not None:
        check_output(output, force=force)


def _note_layer(classifier: Classifier, options: ExplainOptions, terminal: Terminal) -> None:
    """Say where the map is read, where another place could be named."""
    from ..evidence.explain import reads_layer

    method = options.method(classifier.where)
    if reads_layer(type(method)) and getattr(method, "layer", None) is None:
        seen = f"the last map of {classifier.encoder.name}, before its pooling"
        terminal.note(f"{method.name} reads {seen}; --layer NAME reads an inner one.")


def _measured(
    classifier: Classifier, validation: Path | None, store: FeatureStore | None, terminal: Terminal
) -> Classifier:
    """The classifier with its decisions and words measured on labelled pictures."""
    from ..classifiers.words import measured_on
    from ..pictures.samples import load_samples

    return classifier if validation is None else measured_on(classifier, load_samples(validation), store, terminal)


def told(done: Done) -> None:
    """Print the answer."""
    from ..report.terminal import card_lines

    image, label, card = (done.record[key] for key in ("image", "label", "card"))
    if done.explanation is None:
        say(f"{image}: {label}", f"  card: {card} (kept)", "")
    else:
        say(*card_lines(done.explanation), *([] if card is None else [f"  card: {card}"]), "")
