"""``seewhy study``: answer questions about a model on many pictures."""

from __future__ import annotations

import random
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..bounds import Count
from ..errors import DataError, InputError
from ..storage.output import working_folder
from . import options
from .places import check_report
from .session import Session, assignments
from .verbs import register

if TYPE_CHECKING:
    from ..encoders.base import Encoder
    from ..pictures.samples import Samples


def _reported(study: Callable[..., Any]) -> Callable[..., None]:
    """Make a verb of a study: check its folder before, and write and print its report after."""
    name = study.__name__.replace("_", "-")
    page = "study" if name == "faithfulness" else name

    @wraps(study)
    def verb(session: Session, **given: Any) -> None:
        output = session.given.output
        check_report(output, page, session.force)
        if output is not None:
            from ..studies.study import PROGRESS

            session.resumes.append(output / PROGRESS)
        findings = study(session, **given)
        session.report(findings, output, page)
        session.end(findings.data["n"])

    return verb


def _learnt_and_tested(session: Session, data: Path, test: Path | None) -> tuple[Samples, Samples | None]:
    samples = session.samples(data, group=session.group).labelled()
    return samples, None if test is None else session.samples(test, group=session.group).labelled()


def faithfulness(
    session: Session,
    pictures: list[str],
    *,
    model: str | None = None,
    labels: str | None = None,
    methods: str | None = None,
    metrics: str | None = None,
    n_pictures: Count | None = None,
    masks: Path | None = None,
    output: Path | None = None,
) -> Any:
    """Which explanations of this model can you believe? Resumes a stopped run."""
    from ..studies.faithfulness import FaithfulnessStudy

    study = FaithfulnessStudy.of(methods, metrics, masks=masks, seed=session.seed)
    classifier = session.classifier(model, labels)
    # In random order, so that what is measured on the first few is measured on a sample.
    names = list(session.pictures(pictures))
    random.Random(session.seed).shuffle(names)
    with working_folder(output) as folder:
        return study.run(classifier, names[:n_pictures], folder, session.terminal)


def background(
    session: Session,
    data: Path,
    *,
    model: str | None = None,
    labels: str | None = None,
    masks: list[str] | None = None,
    object_: str | None = None,
    output: Path | None = None,
) -> Any:
    """Does the model rely on the background? Give pictures that it was not fitted on. Resumes a stopped run."""
    from ..dense.by_words import WordMasks
    from ..studies.background import BackgroundStudy

    study = session.make(BackgroundStudy)
    classifier = session.classifier(model, labels)
    samples = session.samples(data).labelled()
    names = [s.image for s in samples.items]
    source, boxes = options.objects_of(session, classifier, names)
    source = source or WordMasks(classifier.encoder, store=session.store)
    return study.run(classifier, samples, source, output, boxes=boxes, progress=session.terminal)


def interpretability(
    session: Session,
    data: Path,
    *,
    concepts: Path | None = None,
    judge: str = "lite0",
    test: Path | None = None,
    output: Path | None = None,
) -> Any:
    """How much of an encoder's knowledge do a few concepts express? Resumes a stopped run."""
    from ..studies.interpretability import InterpretabilityStudy

    study = session.make(InterpretabilityStudy)
    samples, others = session.samples(data), None if test is None else session.samples(test)
    encoders = list(session.encoders().values())
    words: dict[str, Any] = {}
    if "text" in study.libraries:
        words = {"concepts": _texts(concepts), "judge": _judge(session, judge, encoders)}
    return study.run(encoders, samples, output, test=others, **words, **session.kept)


def _judge(session: Session, name: str, encoders: Sequence[Encoder]) -> Encoder | None:
    if all(one.has_text for one in encoders):
        return None
    judge = session.encoder(name)
    if not judge.has_text:
        raise InputError(f"--judge must be an image-text encoder, got {name}. Use --judge lite0, for example.")
    return judge


def _texts(path: Path | None) -> tuple[str, ...]:
    from ..descriptions.base import Descriptions
    from ..encoders.names import imagenet_descriptions

    if path is not None and path.suffix != ".json":
        return tuple(dict.fromkeys(line.strip() for line in options.lines_of(path, "concept") if line.strip()))
    known = imagenet_descriptions() if path is None else Descriptions.read(path).texts
    return tuple(dict.fromkeys(t for texts in known.values() for t in texts))


def scaling(
    session: Session,
    data: Path,
    *,
    target: float | None = None,
    model: str | None = None,
    test: Path | None = None,
    output: Path | None = None,
) -> Any:
    """How many more pictures does a target accuracy need? Resumes a stopped run."""
    from ..classifiers.linear.recipe import Linear
    from ..studies.scaling import ScalingStudy

    (n_crops,) = session.take("n_crops")
    recipe: Any = Linear()
    encoders: dict[str, Encoder] = {}
    if model is not None:
        saved = session.saved(model)
        if saved.recipe != recipe.name:
            raise DataError(
                f"{model} must be a linear classifier for this study, got {saved.recipe}. Give its "
                "encoder with --encoder instead."
            )
        recipe, encoders = Linear(**saved.parameters), {saved.encoder.name: saved.encoder}
    if model is None or session.was_given(["encoder"]):
        encoders |= session.encoders()
    study = session.make(ScalingStudy, target=target, recipe=replace(recipe, n_crops=n_crops, seed=session.seed))
    samples, tested = _learnt_and_tested(session, data, test)
    return study.run(encoders, samples, output, test=tested, **session.kept)


def transfer(session: Session, data: Path, *, test: Path | None = None, output: Path | None = None) -> Any:
    """Would another encoder be better? Compares several encoders on the same pictures. Resumes a stopped run."""
    from ..classifiers.linear.recipe import Linear
    from ..studies.transfer import TransferStudy

    study = session.make(TransferStudy, recipe=Linear(n_crops=0, seed=session.seed))
    samples, tested = _learnt_and_tested(session, data, test)
    return study.run(session.encoders(), samples, output, test=tested, **session.kept)


def base_to_new(
    session: Session, data: Path, *, method: str = "coop", test: Path | None = None, output: Path | None = None
) -> Any:
    """How much does prompt learning gain on its training classes, and lose on new classes? Resumes a stopped run."""
    from ..studies.base_to_new import BaseToNewStudy

    methods = tuple(name.strip() for name in method.split(",") if name.strip())
    study = session.make(BaseToNewStudy, methods=methods)
    samples, tested = _learnt_and_tested(session, data, test)
    return study.run(session.encoder(), samples, output, test=tested, **session.kept)


def compare(
    session: Session,
    data: Path,
    *,
    method: str | None = None,
    test: Path | None = None,
    descriptions: Path | None = None,
    minutes: float | None = None,
    output: Path | None = None,
) -> Any:
    """Which method suits your pictures? Fits all applicable ones within a time limit. Resumes a stopped run."""
    from ..studies.compare import CompareStudy

    names = None if method is None else tuple(name.strip() for name in method.split(",") if name.strip())
    study = session.make(CompareStudy, only=names, minutes=minutes)
    samples, tested = _learnt_and_tested(session, data, test)
    texts = options.read_descriptions(descriptions)
    return study.run(session.encoders(), samples, output, test=tested, descriptions=texts, **session.kept)


def claims(
    session: Session,
    data: Path,
    *,
    only: list[str] | None = None,
    test: Path | None = None,
    descriptions: Path | None = None,
    follow_up: Path | None = None,
    captions: Path | None = None,
    masks: Path | None = None,
    labels: str | None = None,
    instruction: list[str] | None = None,
    device: str = "auto",
    output: Path | None = None,
) -> Any:
    """Which claims of papers hold for your weights? Lists your result beside the paper's. Resumes a stopped run."""
    from ..language.questions import read_pairs
    from ..pictures.pairs import load_pairs
    from ..pictures.pixel_classes import load_masks
    from ..studies.claims import ClaimData, ClaimsStudy

    study = session.make(ClaimsStudy, only=tuple(only or ()))
    samples, tested = _learnt_and_tested(session, data, test)
    given = ClaimData(
        samples,
        tested,
        options.read_descriptions(descriptions),
        None if follow_up is None else read_pairs(follow_up),
        None if captions is None else load_pairs(captions),
        None if masks is None else load_masks(masks, classes=None if labels is None else options.names_in(labels)),
        dict(assignments("--instruction", instruction, "COLUMN=WORDS", "colour='the colour'")) or None,
        data,
    )
    study.asked(given)
    options.check_device(device)
    typed = shlex.join(["seewhy", *sys.argv[1:]])
    return study.run(session.encoder(), given, output, command=typed, **session.kept)


def generate(
    session: Session,
    generator: Path | None = None,
    *,
    class_: str | None = None,
    text: str | None = None,
    neuron: int | None = None,
    decoder: Path | None = None,
    pictures: Path | None = None,
    model: str | None = None,
    labels: str | None = None,
    like: str | None = None,
    judge: str | None = None,
    output: Path | None = None,
) -> None:
    """Generate pictures with a high score for a class, a text or a neuron of a model (PPGN)."""
    from ..generation.decoders import Bring
    from ..generation.generate import Asking, Question, check_place, make, prepared, save
    from ..generation.sampler import PPGN
    from .explain import judge_named

    if output is not None:
        check_place(output)
    (own,) = session.take("generator_encoder")
    asking, bring = session.make(Asking, rest=False), session.make(Bring, rest=False)
    sampler = session.make(PPGN)
    question = Question(class_, text, neuron, like)
    session.store_name = "none"
    climbed = session.classifier(model, labels)
    loaded = prepared(
        generator, decoder, pictures, bring=bring, seed=asking.seed, progress=session.terminal,
        encoder=own, own=climbed.encoder, engine=session.engine,
    )  # fmt: skip
    made = make(
        loaded, question.condition(climbed), sampler=sampler, asking=asking, judge=judge_named(session, judge),
        classes=climbed.classes, picture=question.start(loaded), progress=session.terminal,
    )  # fmt: skip
    page = None if output is None else save(made, output)
    session.say(made.data, made.data["sentence"], *([] if page is None else [f"page: {page}"]))


app = typer.Typer(help="Answer questions about a model on many pictures.", no_args_is_help=True)
for study in (faithfulness, background, interpretability, scaling, transfer, base_to_new, compare, claims):
    register(app, _reported(study))
register(app, generate)
