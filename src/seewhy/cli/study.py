"""``seewhy study``: questions about a model, answered on many pictures. Stopped, each goes on where it was."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from ..bounds import Count
from ..errors import DataError, InputError
from . import options
from .places import check_report
from .session import Session
from .verbs import register

if TYPE_CHECKING:
    from ..encoders.base import Encoder
    from ..pictures.samples import Samples

FAITHFULNESS = """
seewhy study faithfulness photos/ -m birds
seewhy study faithfulness photos/ --methods grad_cam,rise:50 --metrics deletion,road:20 -o study
seewhy study faithfulness photos/ --methods all --metrics all --n-pictures 200
seewhy study faithfulness photos/ --masks masks/ --json > study.json
"""
BACKGROUND = """
seewhy study background photos/ -m birds --masks masks/ -o study
seewhy study background photos/ -m birds --object bird --masks boxes.json -o study
seewhy study background photos/ -m birds --masks seg --json
"""
INTERPRETABILITY = """
seewhy study interpretability photos/ -o study
seewhy study interpretability photos/ -e lite0 -e lite2 --concepts words.txt
seewhy study interpretability photos/ -e lite0 -e timm:resnet18.a1_in1k --judge lite0 --json
seewhy study interpretability train/ --test test/ --set libraries=prototype,random --set n_concepts=50
"""
SCALING = """
seewhy study scaling photos/ --target 0.95
seewhy study scaling train/ --test test/ -m birds --target 0.95 -o study
seewhy study scaling photos/ -e lite0 -e lite2 --set noise=0.2 --json
seewhy study scaling photos.csv --group visit --target 0.99 --set beyond=16
"""
TRANSFER = """
seewhy study transfer photos/ -e lite0 -e lite2
seewhy study transfer train/ --test test/ -e lite0 -e timm:resnet50.a1_in1k -e adapted/ -o study
seewhy study transfer photos/ -e lite0 -e lite2 --set shots=1,4 --set n_corrupted=0 --json
seewhy study transfer photos.csv --group visit -e lite0 -e open_clip:ViT-B-32/openai
"""
BASE_TO_NEW = """
seewhy study base-to-new photos/ --method coop,ogen
seewhy study base-to-new train/ --test test/ --method coop --set shots=1,4 -o study
seewhy study base-to-new photos/ --method coop,promptsrc,ogen --set n_seeds=5 --json
"""
GENERATE = """
seewhy study generate gen --class wren -m birds -o made/
seewhy study generate gen --class wren -m birds --judge timm:resnet18 -o made/
seewhy study generate gen --text "a photo of a wren" --set n=6 -o made/
seewhy study generate gen --neuron 17 --json
seewhy study generate gen --class wren -m birds --like photo.jpg -o made/
"""


def _finish(session: Session, findings: Any, output: Path | None, name: str) -> NoReturn:
    """Write a study's page and its JSON, and say what it found."""
    session.report(findings, output, name)
    session.end(findings.data["n"])


def _learnt_and_tested(session: Session, data: Path, test: Path | None) -> tuple[Samples, Samples | None]:
    """Labelled pictures, and those to test on if they were named."""
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
) -> None:
    """Which explanations of this model can be believed? Stopped, it goes on where it was.

    Args:
        methods: Attributions, separated by commas, or 'all'; NAME:50 is measured on 50 pictures at most. Left
            out, those that need no forward pass of their own.
        metrics: Metrics, separated by commas, or 'all'; NAME:50 is measured on 50 pictures at most. Left out,
            the usual ones. See: seewhy methods.
        n_pictures: So many of the pictures; left out, all.
        masks: A folder of masks named like the pictures, for metrics of localisation.
    """
    from ..storage.output import working_folder
    from ..studies.faithfulness import FaithfulnessStudy

    check_report(output, "study", session.force)
    study = FaithfulnessStudy.of(methods, metrics, masks=masks, seed=session.seed)
    classifier = session.classifier(model, labels)
    # In random order, so that what is measured on the first few is measured on a sample.
    names = list(session.pictures(pictures))
    random.Random(session.seed).shuffle(names)
    with working_folder(output) as folder:
        findings = study.run(classifier, names[:n_pictures], folder, session.terminal)
    _finish(session, findings, output, "study")


def background(
    session: Session,
    data: Path,
    *,
    model: str | None = None,
    labels: str | None = None,
    masks: list[str] | None = None,
    object_: str | None = None,
    output: Path | None = None,
) -> None:
    """Does it use the background? Give pictures it was not fitted on. Stopped, it goes on where it was."""
    from ..dense.by_words import WordMasks
    from ..studies.background import BackgroundStudy

    check_report(output, "background", session.force)
    study = session.make(BackgroundStudy)
    classifier = session.classifier(model, labels)
    samples = session.samples(data).labelled()
    names = [s.image for s in samples.items]
    source, boxes = options.objects_of(session, classifier, names)
    source = source or WordMasks(classifier.encoder, store=session.store)
    findings = study.run(classifier, samples, source, output, boxes=boxes, progress=session.terminal)
    _finish(session, findings, output, "background")


def interpretability(
    session: Session,
    data: Path,
    *,
    concepts: Path | None = None,
    judge: str = "lite0",
    test: Path | None = None,
    output: Path | None = None,
) -> None:
    """How much of what encoders know do a few concepts say? Stopped, it goes on where it was.

    Args:
        concepts: What concepts in words say: a .txt with one per line, or a .json with descriptions. Left out,
            phrases from the glosses of ImageNet's classes.
        judge: An encoder with words that judges for those without how well words fit a picture.
    """
    from ..studies.interpretability import InterpretabilityStudy

    check_report(output, "interpretability", session.force)
    study = session.make(InterpretabilityStudy)
    samples, others = session.samples(data), None if test is None else session.samples(test)
    in_words = "text" in study.libraries
    texts = _texts(concepts) if in_words else ()
    encoders = list(session.encoders().values())
    findings = study.run(
        encoders,
        samples,
        output,
        test=others,
        concepts=texts,
        judge=_judge(session, judge, encoders) if in_words else None,
        store=session.store,
        progress=session.terminal,
    )
    _finish(session, findings, output, "interpretability")


def _judge(session: Session, name: str, encoders: Sequence[Encoder]) -> Encoder | None:
    """The judge, where an encoder needs one."""
    from ..encoders.find import encoder

    if all(one.has_text for one in encoders):
        return None
    judge = encoder(name, engine=session.engine)
    if not judge.has_text:
        raise InputError(f"The judge {name} has no words. An encoder with words was expected. Take lite0, say.")
    return judge


def _texts(path: Path | None) -> tuple[str, ...]:
    """What concepts say, each once."""
    from ..descriptions.base import Descriptions
    from ..encoders.names import imagenet_descriptions

    if path is None:
        return tuple(dict.fromkeys(t for texts in imagenet_descriptions().values() for t in texts))
    if path.suffix == ".json":
        return tuple(dict.fromkeys(t for texts in Descriptions.read(path).texts.values() for t in texts))
    return tuple(dict.fromkeys(line.strip() for line in options.lines_of(path, "concept") if line.strip()))


def scaling(
    session: Session,
    data: Path,
    *,
    target: float | None = None,
    model: str | None = None,
    test: Path | None = None,
    output: Path | None = None,
) -> None:
    """How many more pictures are needed for an accuracy? Stopped, it goes on where it was.

    Args:
        target: The accuracy wanted, like 0.95; left out, what a doubling brings.
        model: A classifier by linear: of its encoder and settings. Left out, --encoder.
    """
    from ..classifiers.linear.recipe import Linear
    from ..studies.scaling import ScalingStudy

    check_report(output, "scaling", session.force)
    (n_crops,) = session.take("n_crops")
    recipe: Any = Linear()
    encoders: dict[str, Encoder] = {}
    if model is not None:
        saved = session.saved(model)
        if saved.recipe != recipe.name:
            raise DataError(
                f"{model} is a classifier by {saved.recipe}. One by linear was expected, which is what is fitted on "
                "more and more pictures. Give its encoder with --encoder instead."
            )
        recipe, encoders = Linear(**saved.parameters), {saved.encoder.name: saved.encoder}
    if model is None or session.was_given(["encoder"]):
        encoders |= session.encoders()
    study = session.make(ScalingStudy, target=target, recipe=replace(recipe, n_crops=n_crops, seed=session.seed))
    samples, tested = _learnt_and_tested(session, data, test)
    findings = study.run(encoders, samples, output, test=tested, store=session.store, progress=session.terminal)
    _finish(session, findings, output, "scaling")


def transfer(
    session: Session,
    data: Path,
    *,
    test: Path | None = None,
    output: Path | None = None,
) -> None:
    """Would another encoder be better? Several on the same pictures, with which differences are real; goes on where it
    was stopped."""
    from ..classifiers.linear.recipe import Linear
    from ..studies.transfer import TransferStudy

    check_report(output, "transfer", session.force)
    study = session.make(TransferStudy, recipe=Linear(n_crops=0, seed=session.seed))
    samples, tested = _learnt_and_tested(session, data, test)
    findings = study.run(
        session.encoders(), samples, output, test=tested, store=session.store, progress=session.terminal
    )
    _finish(session, findings, output, "transfer")


def base_to_new(
    session: Session,
    data: Path,
    *,
    method: str = "coop",
    test: Path | None = None,
    output: Path | None = None,
) -> None:
    """What does learning half of the classes by name bring these, and cost the others? Goes on where it was stopped.

    Args:
        method: Several of those of adapt, separated by commas.
    """
    from ..studies.base_to_new import BaseToNewStudy

    check_report(output, "base-to-new", session.force)
    methods = tuple(name.strip() for name in method.split(",") if name.strip())
    study = session.make(BaseToNewStudy, methods=methods)
    samples, tested = _learnt_and_tested(session, data, test)
    findings = study.run(
        session.encoder(), samples, output, test=tested, store=session.store, progress=session.terminal
    )
    _finish(session, findings, output, "base-to-new")


def generate(
    session: Session,
    generator: Path,
    *,
    class_: str | None = None,
    text: str | None = None,
    neuron: int | None = None,
    model: str | None = None,
    labels: str | None = None,
    like: str | None = None,
    judge: str | None = None,
    output: Path | None = None,
) -> None:
    """Make pictures of what a model takes for a class, a text or a neuron (PPGN).

    Args:
        generator: A generator's folder.
        class_: Make what the model takes for this class.
        neuron: A unit of the model's pooled features, by number.
        like: A picture to start at; alone, make what the model takes for it.
        judge: A saved classifier or an encoder with words that says what is on the pictures; not the one
            climbed.
        output: A folder for the page, its JSON and the pictures.
    """
    from ..generation.generate import Asking, Question, check_place, make, save
    from ..generation.generator import load_generator
    from ..generation.sampler import PPGN
    from .explain import judge_named

    if output is not None:
        check_place(output)
    (own,) = session.take("generator_encoder")
    asking = session.make(Asking, rest=False)
    sampler = session.make(PPGN)
    question = Question(class_, text, neuron, like)
    session.store_name = "none"
    climbed = session.classifier(model, labels)
    loaded = load_generator(generator, own, own=climbed.encoder, engine=session.engine)
    made = make(
        loaded,
        question.condition(climbed),
        sampler=sampler,
        asking=asking,
        judge=judge_named(session, judge),
        classes=climbed.classes,
        picture=question.start(loaded),
        progress=session.terminal,
    )
    page = None if output is None else save(made, output)
    session.say(made.data, made.data["sentence"], *([] if page is None else [f"page: {page}"]))


app = typer.Typer(help="Questions about a model, answered on many pictures.", no_args_is_help=True)
register(app, faithfulness, FAITHFULNESS)
register(app, background, BACKGROUND)
register(app, interpretability, INTERPRETABILITY)
register(app, scaling, SCALING)
register(app, transfer, TRANSFER)
register(app, base_to_new, BASE_TO_NEW)
register(app, generate, GENERATE)
