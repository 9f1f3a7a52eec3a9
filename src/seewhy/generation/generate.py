"""Generation of pictures for a target, with two controls and a judge."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import TypedDict

from ..arguments import checked
from ..bounds import Checked, Count
from ..classifiers.base import Classifier
from ..classifiers.unfitted import Pretrained
from ..encoders.base import Encoder
from ..encoders.find import encoder as find
from ..errors import InputError
from ..metrics.calibration import accuracy_interval
from ..pictures.samples import load_pictures
from ..pictures.sources import One, name_of
from ..progress import Progress
from ..report.blocks import Document
from ..report.paging import Page
from ..results import Doc, Share
from .conditions import Condition, Judge, Verdict, diversity, of_class, of_neuron, of_picture, of_text
from .decoders import Bring, Decoder, load_decoder
from .generator import Generator, Reader, as_read, bytes_of, check_errors, load_generator
from .sampler import PPGN, STARTS, Chains, PixelAscent, at_picture, facets, noise

WAYS = {"ppgn": "with the prior", "no_prior": "without the prior (ε1 = 0)", "pixels": "in pixels"}
"""Displayed names of the method and its two controls."""


@dataclass(frozen=True)
class Question:
    """The target of generation: a class, a text, a neuron, or a picture to resemble.

    Args:
        label: class of the model, by name or index.
        text: a sentence.
        neuron: index of a unit of the model's pooled features.
        like: picture to resemble; together with another target, the picture to start from.
    """

    label: str | int | None = None
    text: str | None = None
    neuron: int | None = None
    like: One | None = None

    def __post_init__(self) -> None:
        named = {"class": self.label, "text": self.text, "neuron": self.neuron}
        given = [name for name, value in named.items() if value is not None]
        if len(given) > 1:
            raise InputError(f"Only one target may be given, got {', '.join(given)}.")
        if not given and self.like is None:
            raise InputError(
                "A target must be given: a class, a text, a neuron or a picture to resemble. Example: --class wren"
            )

    def condition(self, model: Classifier | Encoder) -> Condition:
        on = model if isinstance(model, Encoder) else model.encoder
        if self.label is not None:
            if isinstance(model, Encoder):
                raise InputError(
                    f"The class {self.label!r} needs a classifier, got the encoder {model.name!r}. Use "
                    "seewhy.pretrained(encoder) for the encoder's own classes."
                )
            return of_class(model, self.label)
        if self.text is not None:
            return of_text(on, self.text)
        if self.neuron is not None:
            with torch.no_grad():
                n_units = Reader(on)(torch.zeros(1, 3, *on.transform.input_size)).shape[1]
            return of_neuron(on, self.neuron, n_units)
        assert self.like is not None
        return of_picture(on, as_read(self.like, on.transform.at(min(on.transform.input_size))), name_of(self.like, 1))

    def start(self, generator: Generator) -> Float[Tensor, "1 3 s s"] | None:
        """Return the picture to start from, or ``None``."""
        if self.like is None or (self.label is None and self.text is None and self.neuron is None):
            return None
        return as_read(self.like, generator.read.cut(generator.side))


@dataclass(frozen=True, repr=False)
class Made(Page):
    """The generated pictures of each method, with intermediate steps, uint8 ``(t, h, w, 3)``."""

    strips: dict[str, list[np.ndarray]] = field(default_factory=dict, repr=False)

    def document(self) -> Document:
        from ..report.documents import made_document

        return made_document(self.data, self.strips)

    @property
    def pictures(self) -> list[np.ndarray]:
        """The final pictures with the prior, uint8 ``(h, w, 3)``."""
        return [strip[-1] for strip in self.strips["ppgn"]]

    @property
    def files(self) -> dict[str, np.ndarray]:
        """The final pictures of all methods, by file name."""
        return {_file(way, i): strip[-1] for way, strips in self.strips.items() for i, strip in enumerate(strips)}


def _file(way: str, i: int) -> str:
    return f"{way}-{i + 1}.png"


@dataclass(frozen=True)
class Asking(Checked):
    """The number of pictures to generate, and their starting points.

    Args:
        n: number of pictures to generate.
        start: starting points, unless --like gives one: ``facets`` (clusters of training pictures with high scores for
            the target) or ``noise``.
        controls: whether to also generate pictures without the prior and by optimising pixels, for comparison.
        seed: seed for starting points and noise.
    """

    noun = "the generation"

    n: Count = 4
    start: Literal["facets", "noise"] = "facets"
    controls: bool = True
    seed: int = 0


def make(
    generator: Generator,
    condition: Condition,
    *,
    sampler: PPGN | None = None,
    asking: Asking | None = None,
    judge: Classifier | Encoder | None = None,
    classes: tuple[str, ...] = (),
    picture: Float[Tensor, "1 3 s s"] | None = None,
    progress: Progress | None = None,
) -> Made:
    """Generate pictures and controls for a target, and judge them."""
    facts = generator.facts
    check_errors(facts.get("decoder", f"the generator of {generator.read.name}'s codes"), facts)
    sampler, asking, progress = sampler or PPGN(), asking or Asking(), progress or Progress()
    n, seed = asking.n, asking.seed
    judging = None if judge is None else Judge.of(judge, condition, classes)
    with progress.doing("Choosing where to start"):
        if picture is not None:
            starts = at_picture(generator, picture, n, seed)
        else:
            starts = noise(generator, n, seed) if asking.start == "noise" else facets(generator, condition, n, seed)
    walks = {"ppgn": sampler.sample(generator, condition, starts, seed=seed, progress=progress)}
    if asking.controls:
        plain = replace(sampler, eps1=0.0)
        walks["no_prior"] = plain.sample(generator, condition, starts, seed=seed, progress=progress)
        progress.note("the same in pixels, for comparison")
        with progress.doing("Changing pixels, for comparison"):
            walks["pixels"] = PixelAscent(sampler).sample(condition, walks["ppgn"].pictures[0])
    rows, chains = [], []
    for way, walk in walks.items():
        verdicts, features = ([], None) if judging is None else judging.look(walk.pictures[-1])
        rows.append(_row(way, walk, verdicts, None if features is None else diversity(features)))
        chains += [_chain(way, i, walk, verdicts) for i in range(len(starts))]
    judged = None
    if judging is not None:
        own = judging.classifier
        same = own.encoder.looks == generator.read.looks
        judged = {"name": judging.name, "n_classes": len(own.classes), "is_the_prior": same}
    data: dict[str, Any] = {
        "asked": condition.asked, "kind": condition.kind, "measure": condition.measure,
        "climbed": condition.encoder.name, "generator": {"encoder": generator.read.name, **generator.facts},
        "sampler": asdict(sampler), "start": STARTS[asking.start if picture is None else "picture"], "seed": seed,
        "judge": judged, "ways": rows, "chains": chains,
    }  # fmt: skip
    strips = {way: [bytes_of(walk.pictures[:, i]).numpy() for i in range(len(starts))] for way, walk in walks.items()}
    return Made({"sentence": sentence(data), **data}, strips)


def _row(way: str, walk: Chains, verdicts: list[Verdict], spread: float | None) -> dict[str, Any]:
    told = [v.agrees for v in verdicts if v.agrees is not None]
    agrees = torch.tensor(told, dtype=torch.bool)
    return {
        "way": way,
        "start": round(float(walk.values[0].mean()), 5),
        "value": round(float(walk.values[-1].mean()), 5),
        "judged": sum(told) / len(told) if told else None,
        "interval": [round(v, 4) for v in accuracy_interval(agrees)] if told else None,
        "diversity": None if spread is None else round(spread, 5),
        "prior_error": None if walk.prior_error is None else round(float(walk.prior_error.mean()), 5),
        "sizes": [[float(f"{v:.4g}") for v in pair] for pair in walk.sizes],
    }


def _chain(way: str, i: int, walk: Chains, verdicts: list[Verdict]) -> dict[str, Any]:
    judged = None
    if verdicts:
        judged = {**vars(verdicts[i]), "probability": round(verdicts[i].probability, 5)}
    values = [round(float(v), 5) for v in walk.values[:, i]]
    return {"way": way, "file": _file(way, i), "steps": list(walk.steps), "values": values, "judged": judged}


def sentence(data: dict[str, Any]) -> str:
    by = {row["way"]: row for row in data["ways"]}
    own = by["ppgn"]
    message = f"{data['climbed']}, which guided them, gives them an average {data['measure']} of {own['value']:.2f}"
    if data["judge"] is None:
        return f"No second network has judged these pictures (--judge). {message}."
    if own["judged"] is None:
        labels = sorted({c["judged"]["label"] for c in data["chains"] if c["way"] == "ppgn"})
        return f"The judge does not know this class. It sees {', '.join(labels)}. {message}."
    others = [f"{100 * by[way]['judged']:.0f} % {WAYS[way]}" for way in ("no_prior", "pixels") if way in by]
    beside = f" Among the controls: {' and '.join(others)}." if others else ""
    recognised = f"A second network recognises {data['asked']} in {100 * own['judged']:.0f} % of the pictures."
    return f"{recognised}{beside} {message}."


def check_place(folder: Path) -> None:
    """Check that pages, JSON and pictures can be written to a folder."""
    from ..report.paging import ENDINGS, check_ending
    from ..storage.output import check_folder

    check_folder(folder)
    if folder.is_dir():
        for ending in ENDINGS:
            check_ending(folder / f"generate{ending}")


def save(made: Made, folder: Path) -> Path:
    """Write the page, its JSON and the final pictures, and return the page's path."""
    from ..report.page import encoded
    from ..storage.output import output_folder, write

    output_folder(folder)
    for name, pixels in made.files.items():
        write(folder / name, encoded(pixels))
    made.save(folder / "generate.json")
    return made.save(folder / "generate.html")


def prepared(
    generator: str | Path | None,
    decoder: Decoder | str | Path | None,
    pictures: str | Path | None,
    *,
    bring: Bring | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    **trained: Any,
) -> Generator:
    """Load a generator from a folder, or build one from a decoder and pictures."""
    if (generator is None) == (decoder is None) or (decoder is None) != (pictures is None):
        given = {"a generator": generator, "a decoder": decoder, "pictures": pictures}
        names = ", ".join(name for name, value in given.items() if value is not None) or "nothing"
        raise InputError(
            f"Either a generator, or a decoder with pictures, must be given, got {names}. Example: --decoder vae/ "
            "--pictures photos/"
        )
    if generator is not None:
        return load_generator(generator, **trained)
    how = bring or Bring()
    assert decoder is not None and pictures is not None  # noqa: PT018
    brought = decoder if isinstance(decoder, Decoder) else load_decoder(decoder, side=how.side)
    return how.ready(brought, load_pictures(pictures).items, seed=seed, progress=progress)


@checked
def generate(
    generator: str | Path | None = None,
    model: Classifier | Encoder | str = "lite0",
    *,
    target: str | int | None = None,
    text: str | None = None,
    neuron: int | None = None,
    like: One | None = None,
    decoder: Decoder | str | Path | None = None,
    pictures: str | Path | None = None,
    bring: Bring | None = None,
    judge: Classifier | Encoder | None = None,
    n: Count = 4,
    start: Literal["facets", "noise"] = "facets",
    controls: bool = True,
    sampler: PPGN | None = None,
    encoder: Encoder | str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Made:
    """Generate pictures that get a high score for a target (``seewhy study generate``).

    Args:
        generator: folder of a generator, written by reproductions/train_generator.py.
        model: the model whose score is maximised: a classifier, or an encoder with classes, or its name.
        target: a class of the model.
        text: a sentence, if the model has a text encoder.
        neuron: index of a unit of the model's pooled features.
        like: picture to start from; without another target, the picture to resemble.
        decoder: instead of a generator, a :class:`seewhy.generation.decoders.Decoder`, or a diffusers folder with an
            autoencoder or a U-Net.
        pictures: with a decoder, a folder or table of pictures like those that the decoder was trained on.
        bring: with a decoder, the settings for its evaluation and its prior; default:
            :class:`seewhy.generation.decoders.Bring` with its default settings.
        judge: a second network that classifies the generated pictures; it must differ from the network of ``model``.
            Default: none.
        n: number of pictures.
        start: starting points: ``"facets"``, clusters of the training pictures with high scores for the target, or
            ``"noise"``.
        controls: whether to also generate pictures without the prior and by optimising pixels, for comparison.
        sampler: the sampler; default: :class:`seewhy.generation.sampler.PPGN` with its default settings.
        encoder: encoder whose features the generator turns into pictures; default: the encoder that the generator
            names.
        seed: seed of starting points and noise.
        progress: progress callback.

    Raises:
        InputError: if there is no target or more than one, or if the judge uses the network of ``model``.
        DataError: if the model does not have the class.
        ModelError: if there is no generator, if it belongs to another encoder or has a high error, or if the model has
            no text encoder.
    """
    question = Question(target, text, neuron, like)
    climbed = find(model) if isinstance(model, str) else model
    if isinstance(climbed, Encoder) and climbed.classifier is not None:
        climbed = Pretrained().build(climbed)
    own = climbed if isinstance(climbed, Encoder) else climbed.encoder
    loaded = prepared(
        generator, decoder, pictures, bring=bring, seed=seed, progress=progress, encoder=encoder, own=own
    )  # fmt: skip
    return make(
        loaded,
        question.condition(climbed),
        sampler=sampler,
        asking=Asking(n, start, controls, seed),
        judge=judge,
        classes=climbed.classes,
        picture=question.start(loaded),
        progress=progress,
    )


class JudgeOutput(TypedDict):
    name: Annotated[str, Doc("recipe and encoder")]
    n_classes: Annotated[int, Doc("number of its classes")]
    is_the_prior: Annotated[bool, Doc("whether the judge's network is also the generator's")]


class Way(TypedDict):
    way: Annotated[Literal["ppgn", "no_prior", "pixels"], Doc("method: `ppgn`, `no_prior` (with ε1 = 0) or `pixels`")]
    start: Annotated[float, Doc("mean at the start of the chains, of the value that `measure` names")]
    value: Annotated[float, Doc("the same at the end of the chains")]
    judged: Annotated[Share | None, Doc("share of the pictures that the judge assigns to the target")]
    interval: Annotated[list[float] | None, Doc("95 % interval (Wilson)")]
    diversity: Annotated[float | None, Doc("mean of 1 − cosine over pairs of pictures, in the judge's features")]
    prior_error: Annotated[float | None, Doc("distance of the last codes from the codes of their pictures")]
    sizes: Annotated[list[list[float]], Doc("mean size of the steps of the prior and of the target, per unit")]


class Chain(TypedDict):
    way: Annotated[str, Doc("method of the chain: `ppgn`, `no_prior` or `pixels`")]
    file: Annotated[str, Doc("file of the last picture, in the output folder")]
    steps: Annotated[list[int], Doc("steps of the pictures on the page")]
    values: Annotated[list[float], Doc("for each of these pictures, the value that `measure` names")]
    judged: Annotated[Verdict | None, Doc("prediction of the judge for the last picture")]


class GenerateOutput(TypedDict):
    """The JSON object of ``seewhy study generate --json``."""

    sentence: Annotated[str, Doc("the result")]
    asked: Annotated[str, Doc("the target")]
    kind: Annotated[Literal["class", "text", "neuron", "like"], Doc("`class`, `text`, `neuron`, `like`")]
    measure: Annotated[str, Doc("what `values` are: `probability`, `similarity` or `activation`")]
    climbed: Annotated[str, Doc("the network that guided the generation")]
    generator: Annotated[dict[str, Any], Doc("the generator: its encoder, sizes, training and errors")]
    sampler: Annotated[PPGN, Doc("settings of the sampler")]
    start: Annotated[str, Doc("starting points")]
    seed: Annotated[int, Doc("seed of starts and noise")]
    judge: Annotated[JudgeOutput | None, Doc("the judge; `null` without one")]
    ways: Annotated[list[Way], Doc("results with the prior, then of the controls")]
    chains: Annotated[list[Chain], Doc("each chain, starting with those with the prior")]
