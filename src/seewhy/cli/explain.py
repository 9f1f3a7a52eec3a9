"""``seewhy explain``: explain the predictions for pictures, boxes or segments."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ..bounds import Count
from ..errors import InputError
from . import options
from .session import Session, not_both
from .terminal import say

if TYPE_CHECKING:
    from ..classifiers.multi_output import MultiOutput
    from ..evidence.batch import Done
    from ..evidence.explain import ExplainOptions

OF_WHOLE_PICTURES = ("follow_up", "validation", "typical", "masks", "object_")
"""Options that do not apply to boxes and segments."""
OF_ONE_DECISION = (
    "labels", "descriptions", "follow_up", "validation", "contrast", "typical", "masks", "object_", "parts", "known",
    "parquet",
)  # fmt: skip
"""Options that cannot be combined with a model of several decisions."""
ONE_BY_ONE = ("typical", "masks", "object_", "parts", "known", "png")
"""Options that do not apply to Parquet."""


def explain(
    session: Session,
    pictures: list[str],
    *,
    model: str | None = None,
    labels: str | None = None,
    output: Path | None = None,
    where: str | None = None,
    target: str | None = None,
    contrast: str | None = None,
    descriptions: Path | None = None,
    follow_up: Path | None = None,
    validation: Path | None = None,
    level: float = 0.9,
    measure: bool = True,
    like: str | None = None,
    because: bool = False,
    masks: list[str] | None = None,
    object_: str | None = None,
    typical: Path | None = None,
    png: bool = False,
    parts: str | None = None,
    known: Path | None = None,
    parquet: bool = False,
    shard: str = "1/1",
    workers: Count = 1,
    cluster: str | None = None,
) -> None:
    """Explain pictures: print each decision with its reasons; with -o, write cards. Resumes a stopped run.

    With a saved segmenter or detector, or with --parts and --labels, each object found gets a card.
    """
    from ..evidence.batch import Batch

    strengths, explainer, judge, most_cards = session.take("strengths", "explainer", "judge", "most_cards")
    model_of_several = session.several(model, *OF_ONE_DECISION)
    if parquet:
        from .many import Spread

        for name in session.was_given(ONE_BY_ONE):
            raise InputError(
                f"--parquet cannot be combined with {_option(name)}, because --parquet "
                "writes tables only. Use only one of them."
            )
        spread = session.make(Spread, rest=False)
    how = _how(
        session, where=where, target=target, contrast=contrast, measure=measure, like=like, level=level,
        typical=typical, because=strengths if because else None, judge=judge_named(session, judge),
    )  # fmt: skip
    if parquet:
        from .many import Explain, into_parquet

        chosen = session.choice(model, labels, descriptions, follow_up, validation)
        into_parquet(session, Explain(chosen, how, explainer), spread)
    if model_of_several is not None:
        _explain_several(session, model_of_several, how)
    if _are_parts_wanted(session):
        _explain_parts(session, how, most_cards)
    _check(output, png, session.force)
    classifier = session.classifier(model, labels, descriptions, follow_up, validation)
    names: Iterable[str] = session.pictures(pictures, output)
    names = list(names) if masks else names  # which may come one by one, for as long as somebody types them
    objects, _ = options.objects_of(session, classifier, names)
    if explainer is not None:
        from ..attributions.explainers import trained

        how = replace(how, where=trained(where or classifier.where, explainer))
    how = replace(how, objects=objects)
    _note_layer(session, classifier, how)
    batch = Batch(classifier, how, output, png=png, store=session.store, force=session.force)
    if output is not None and batch.index is not None:
        session.resumes.append(output)
    tell_results(session, batch.run(names), told, session.n_pictures)
    done = session.n_results
    if batch.index is not None and done and not session.as_json:
        say(f"index: {batch.index}")
    if output is None and done:
        session.terminal.note("no card was written; -o why writes a card for each picture to the folder why")
    session.end()


def _how(session: Session, *, because: str | None, **given: Any) -> ExplainOptions:
    """Return the options of the explanation; other settings belong to the attribution method."""
    from ..evidence.explain import ExplainOptions
    from ..prototypes.perturbations import find_changes

    how: ExplainOptions = session.make(
        ExplainOptions, rest=False, because=None if because is None else find_changes(because).name, **given
    )
    return replace(how, settings=session.take_all())


def _option(name: str) -> str:
    return f"--{name.rstrip('_').replace('_', '-')}"


def judge_named(session: Session, name: str | None) -> Any:
    if name is None:
        return None
    return session.saved(name) if (Path(name) / "seewhy.json").is_file() else session.encoder(name)


def tell_results(
    session: Session, results: Iterator[Any], tell: Callable[[Any], None], total: int | None = None
) -> None:
    """Print each result as soon as it is computed."""
    for result in session.results(results, "Explaining pictures" if total else "Explaining", total):
        if session.as_json:
            session.say(result.record)
        else:
            tell(result)


def _check(output: Path | None, png: bool, force: bool) -> None:
    from ..evidence.batch import check_output

    if png and (output is None or output.suffix):
        problem = "without -o" if output is None else f"with the single file {output}"
        raise InputError(f"--png requires an output folder, but it was given {problem}. Give one with -o.")
    if output is not None:
        check_output(output, force=force)


def _note_layer(session: Session, classifier: Any, how: ExplainOptions) -> None:
    """Note which layer the map is computed from, if another layer can be chosen."""
    from ..evidence.explain import reads_layer

    method = how.method(classifier.where)
    if reads_layer(type(method)) and getattr(method, "layer", None) is None:
        place = f"the last map of {classifier.encoder.name}, before its pooling"
        session.terminal.note(f"{method.name} uses {place}. To use an inner layer: --set layer=NAME.")


def told(done: Done) -> None:
    from ..report.card import card_lines

    image, label, card = (done.record[key] for key in ("image", "label", "card"))
    if done.explanation is None:
        say(f"{image}: {label}", f"  card: {card} (kept)", "")
    else:
        say(*card_lines(done.explanation), *([] if card is None else [f"  card: {card}"]), "")


def _explain_several(session: Session, model: MultiOutput, how: ExplainOptions) -> NoReturn:
    """Explain each question, or each label that is given, in a folder of its own; or only ``--target``."""
    from ..classifiers.multi_output import places
    from ..evidence.batch import Batch

    o, asked = session.given, dict[str, list[str]]()
    stream = model.predict_all(session.pictures(o.pictures, o.output), store=session.store, level=o.level)
    for one in session.results(stream, "Looking at pictures", session.n_pictures):
        for name in one.asked(o.target):
            asked.setdefault(name, []).append(one.image)
        if not session.as_json:
            say(f"{one.image}: {'; '.join(one.parts)}")
    done, session.n_results = session.n_results, 0
    for name, images in asked.items():
        output = o.output if o.output is None or o.target is not None else o.output / places(model.decisions)[name]
        _check(output, o.png, session.force)
        batch = Batch(
            model.decisions[name], replace(how, target=model.aimed(name).get("target")), output, png=o.png,
            store=session.store, force=session.force,
        )  # fmt: skip
        say(*(() if session.as_json else ("", f"{name}:")))
        for result in session.results(batch.run(images), f"Explaining {name}", len(images)):
            if session.as_json:
                session.say({"question": name, **result.record})
            else:
                told(result)
        say(*(() if batch.index is None or session.as_json else (f"index: {batch.index}",)))
    session.end(done)


def _are_parts_wanted(session: Session) -> bool:
    from ..classifiers.saving import CARD

    o = session.given
    if (o.parts, o.known) != (None, None):
        return True
    if o.model is None or (Path(o.model) / CARD).is_file():
        return False
    from ..dense.saving import is_detector, is_segmenter  # which takes long

    return is_segmenter(o.model) or is_detector(o.model)


def _explain_parts(session: Session, how: ExplainOptions, most: int) -> NoReturn:
    from ..dense.part_evidence import PartBatch, PartExplainer, with_examples
    from ..evidence.batch import INDEX

    o, terminal = session.given, session.terminal
    for name in session.was_given(OF_WHOLE_PICTURES):
        raise InputError(f"{_option(name)} applies to whole pictures, not to boxes or segments. Leave it out.")
    words = options.read_descriptions(o.descriptions)
    explainer = PartExplainer.of(_finder(session), words, session.store)
    if o.known is not None:
        explainer = with_examples(explainer, o.known, terminal)
    batch = PartBatch(explainer, how, o.output, most=most, png=o.png, force=session.force, progress=terminal)
    session.resumes += [] if o.output is None else [o.output]
    tell_results(session, batch.run(session.pictures(o.pictures, o.output)), _told_part)
    if o.output is not None and batch.n_pictures and not session.as_json:
        say(f"index: {o.output / INDEX}")
    session.end(batch.n_pictures)


def _finder(session: Session) -> Any:
    from ..dense import detectors, segmenters
    from ..dense.by_words import finder_for
    from ..dense.saving import is_detector, load_detector, load_segmenter

    o = session.given
    if o.model is not None:
        if o.parts is not None or o.labels is not None:
            other = "--labels" if o.parts is None else "--parts"
            raise not_both("--model", other, "a saved model has its own class names")
        load = load_detector if is_detector(o.model) else load_segmenter
        return load(o.model, encoder=session.own_encoder, engine=session.engine)
    if o.parts is None:
        raise InputError(
            "--known requires boxes or segments. Add --parts word_regions, for example, or a saved "
            "segmenter or detector with -m."
        )
    if o.labels is None:
        raise InputError('--parts requires names of what to find. Add --labels "stamp, platelet", for example.')
    methods = detectors if o.parts.partition(":")[0] in detectors else segmenters
    names = options.label_names(o.labels)
    return finder_for(methods, o.parts, names, session.encoder_name, engine=session.engine, store=session.store)


def _told_part(done: Any) -> None:
    part = done.record["part"]
    say(f"{part['kind']} {part['number']} of {part['n']}, {part['label']}, score {part['score']:.2f}")
    shown = None if done.explanation is None else done.explanation.part
    if shown is not None and shown.outside is not None:
        say(f"  {'inside':<10} {shown.outside.verdict.level}: {shown.outside.verdict.sentence}")
    told(done)
