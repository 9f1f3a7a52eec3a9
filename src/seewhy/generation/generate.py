"""From a question to pictures: walks in codes, beside them the two controls, and a second network's judgement."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..arguments import checked
from ..bounds import Count
from ..classifiers.base import Classifier
from ..classifiers.unfitted import Pretrained
from ..encoders.base import Encoder
from ..encoders.find import encoder as find
from ..errors import DataError, InputError
from ..metrics.calibration import accuracy_interval
from ..pictures.images import read_picture
from ..pictures.sources import One, name_of
from ..progress import Progress
from ..report.paging import Page
from ..types import Transform
from .conditions import Condition, Judge, Verdict, diversity, of_class, of_neuron, of_picture, of_text
from .generator import Generator, Reader, as_read, bytes_of, load_generator
from .sampler import PPGN, STARTS, Chains, Hole, PixelAscent, at_picture, facets, in_hole, noise

WAYS = {
    "ppgn": "with the prior",
    "no_prior": "without the prior (ε1 = 0)",
    "pixels": "in pixels",
}
"""What is made, and the two controls, as people read it."""


@dataclass(frozen=True)
class Question:
    """What the pictures are to show: one of the first three, or none where a picture is given.

    Args:
        label: a class of the model, by name or number.
        text: a sentence.
        neuron: a unit of the model's pooled features.
        like: a picture; beside one of the first three chains start at it, alone it is what is climbed.
        inpaint: a picture with a hole.
        mask: a picture, white where the hole is.
    """

    label: str | int | None = None
    text: str | None = None
    neuron: int | None = None
    like: One | None = None
    inpaint: One | None = None
    mask: One | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("label", "text", "neuron") if getattr(self, name) is not None]
        if len(given) > 1:
            raise InputError(
                f"{len(given)} things were asked for at once: {', '.join(given)}. One class, one text or one neuron "
                "was expected. Drop the others."
            )
        if not given and self.like is None and self.inpaint is None:
            raise InputError(
                "Nothing was asked for. A class, a text, a neuron, a picture to be like or one to fill in was "
                "expected. Name one, for example: --class wren"
            )
        if (self.inpaint is None) != (self.mask is None):
            raise InputError(
                "A picture to fill in and the mask of its hole were expected together, and one of them was given. "
                "Give both: --inpaint photo.jpg --mask mask.png"
            )
        if self.like is not None and self.inpaint is not None:
            raise InputError("--like and --inpaint were both given. One picture to start at was expected. Drop one.")

    def condition(self, model: Classifier | Encoder) -> Condition | None:
        """What is climbed; nothing where a hole is filled by the prior alone."""
        on = model if isinstance(model, Encoder) else model.encoder
        if self.label is not None:
            if isinstance(model, Encoder):
                raise InputError(
                    f"The class {self.label!r} was asked of the encoder {model.name!r}. A classifier was expected. "
                    "Give one, or seewhy.pretrained(encoder)."
                )
            return of_class(model, self.label)
        if self.text is not None:
            return of_text(on, self.text)
        if self.neuron is not None:
            with torch.no_grad():
                n_units = Reader(on)(torch.zeros(1, 3, *on.transform.input_size)).shape[1]
            return of_neuron(on, self.neuron, n_units)
        if self.like is not None:
            return of_picture(on, as_read(self.like, on, min(on.transform.input_size)), name_of(self.like, 1))
        return None

    def start(self, generator: Generator) -> Float[Tensor, "1 3 s s"] | None:
        """The picture to start at, if one is given beside something to climb."""
        if self.like is None or (self.label is None and self.text is None and self.neuron is None):
            return None
        return as_read(self.like, generator.read.encoder, generator.side)

    def hole(self, generator: Generator) -> Hole | None:
        """What is filled in."""
        if self.inpaint is None or self.mask is None:
            return None
        encoder, side = generator.read.encoder, generator.side
        white = _white_part(self.inpaint, self.mask)
        picture = as_read(self.inpaint, encoder, side)
        inside = (as_read(self.mask, encoder, side).mean(1, keepdim=True) > 0.5).float()
        if not 0 < white < 1 or not 0 < float(inside.mean()) < 1:
            raise DataError(
                f"{name_of(self.mask, 1)} marks {white:.0%} of the picture as hole. A part of it, white on black, was "
                "expected, and one that is seen where the picture is cut for the network. Draw the mask anew."
            )
        return Hole(picture, inside)


def _white_part(picture: One, mask: One) -> float:
    """How much of a mask is white."""
    plain = Transform((64, 64), (64, 64), "bilinear", (0.5,) * 3, (0.5,) * 3)
    own, marks = read_picture(picture, plain), read_picture(mask, plain)
    if own.original_size != marks.original_size:
        (w, h), (width, height) = own.original_size, marks.original_size
        raise DataError(
            f"{name_of(mask, 1)} is {width} by {height} pixels and {name_of(picture, 1)} is {w} by {h}. A mask of the "
            "picture's own size, white where the hole is, was expected. Make it that size."
        )
    return float((marks.pixels.mean(2) > 127).mean())


@dataclass(frozen=True, repr=False)
class Made(Page):
    """Pictures that a network takes for what was asked, with their chains; ``data`` is the documented JSON.

    ``strips`` has, for each way and each of its chains, the pictures from start to end, uint8 ``(t, h, w, 3)``.
    """

    strips: dict[str, list[np.ndarray]] = field(default_factory=dict, repr=False)

    def to_html(self) -> str:
        from ..report.made import render_made

        return render_made(self.data, self.strips)

    @property
    def pictures(self) -> list[np.ndarray]:
        """The last ones, made with the prior, uint8 ``(h, w, 3)``."""
        return [strip[-1] for strip in self.strips["ppgn"]]

    @property
    def files(self) -> dict[str, np.ndarray]:
        """Name of a file → a last picture, of every way."""
        return {_file(way, i): strip[-1] for way, strips in self.strips.items() for i, strip in enumerate(strips)}


def _file(way: str, i: int) -> str:
    return f"{way}-{i + 1}.png"


@dataclass(frozen=True)
class Asking:
    """How many pictures, and from where.

    Args:
        n: chains.
        start: ``"facets"``, ``"noise"`` or ``"picture"``.
        controls: whether the same is made without the prior, and in pixels.
        seed: of starts and noise.
    """

    n: int = 4
    start: str = "facets"
    controls: bool = True
    seed: int = 0


def make(
    generator: Generator,
    condition: Condition | None,
    *,
    sampler: PPGN | None = None,
    asking: Asking | None = None,
    judge: Classifier | Encoder | None = None,
    classes: tuple[str, ...] = (),
    picture: Float[Tensor, "1 3 s s"] | None = None,
    hole: Hole | None = None,
    progress: Progress | None = None,
) -> Made:
    """Make pictures, judge them, and put the controls beside them."""
    sampler, asking, progress = sampler or PPGN(), asking or Asking(), progress or Progress()
    judging = None if judge is None or condition is None else Judge.of(judge, condition, classes)
    starts = _starts(generator, condition, asking, picture, hole)
    walks = {"ppgn": sampler.sample(generator, condition, starts, seed=asking.seed, hole=hole, progress=progress)}
    if asking.controls and condition is not None:
        plain = replace(sampler, eps1=0.0)
        walks["no_prior"] = plain.sample(generator, condition, starts, seed=asking.seed, hole=hole, progress=progress)
        progress.note("the same in pixels, as a control")
        walks["pixels"] = PixelAscent(sampler).sample(generator, condition, walks["ppgn"].pictures[0], hole)
    rows, chains = [], []
    for way, walk in walks.items():
        verdicts, features = ([], None) if judging is None else judging.look(walk.pictures[-1])
        rows.append(_row(way, walk, verdicts, None if features is None else diversity(features)))
        chains += [_chain(way, i, walk, verdicts) for i in range(len(starts))]
    data: dict[str, Any] = {
        "asked": "what fits the rest" if condition is None else condition.asked,
        "kind": "hole" if condition is None else condition.kind,
        "filled": hole is not None,
        "measure": None if condition is None else condition.measure,
        "climbed": None if condition is None else condition.encoder.name,
        "generator": {"encoder": generator.read.encoder.name, **generator.facts},
        "sampler": asdict(sampler),
        "start": STARTS[asking.start if picture is None and hole is None else "picture"],
        "seed": asking.seed,
        "judge": None if judging is None else _judge(judging, generator),
        "ways": rows,
        "chains": chains,
    }
    strips = {way: [bytes_of(walk.pictures[:, i]).numpy() for i in range(len(starts))] for way, walk in walks.items()}
    return Made({"sentence": sentence(data), **data}, strips)


def _starts(
    generator: Generator,
    condition: Condition | None,
    asking: Asking,
    picture: Float[Tensor, "1 3 s s"] | None,
    hole: Hole | None,
) -> Float[Tensor, "n d"]:
    if hole is not None:
        return in_hole(generator, hole, asking.n, asking.seed)
    if picture is not None:
        return at_picture(generator, picture, asking.n, asking.seed)
    if asking.start == "noise" or condition is None:
        return noise(generator, asking.n, asking.seed)
    return facets(generator, condition, asking.n, asking.seed)


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


def _judge(judge: Judge, generator: Generator) -> dict[str, Any]:
    encoder = judge.classifier.encoder
    is_the_prior = encoder.looks == generator.read.encoder.looks
    return {"name": judge.name, "n_classes": len(judge.classifier.classes), "is_the_prior": is_the_prior}


def sentence(data: dict[str, Any]) -> str:
    """What came of it, as the page and the command line say it."""
    if data["measure"] is None:
        return "The hole was filled by the prior alone. Not judged."
    by = {row["way"]: row for row in data["ways"]}
    own = by["ppgn"]
    message = f"{data['climbed']}, which was climbed, gives them a {data['measure']} of {own['value']:.2f} on average"
    if data["judge"] is None:
        return f"Not judged: no second network was named. {message}."
    if own["judged"] is None:
        labels = sorted({c["judged"]["label"] for c in data["chains"] if c["way"] == "ppgn"})
        return f"The judge has no such class; on the pictures it sees {', '.join(labels)}. {message}."
    others = [f"{by[way]['judged']:.0%} {WAYS[way]}" for way in ("no_prior", "pixels") if way in by]
    beside = f"; of the controls, on {' and '.join(others)}" if others else ""
    return f"A second network sees {data['asked']} on {own['judged']:.0%} of the pictures{beside}. {message}."


def check_place(folder: Path) -> None:
    """See that pages, JSON and pictures can be written into a folder; asked before the work begins."""
    from ..report.paging import ENDINGS, check_ending
    from ..storage.output import check_folder

    check_folder(folder)
    if folder.is_dir():
        for ending in ENDINGS:
            check_ending(folder / f"generate{ending}")


def save(made: Made, folder: Path) -> Path:
    """The page, its JSON and the last pictures; where the page is."""
    from ..report.page import png_of
    from ..storage.output import make_folder, write

    make_folder(folder)
    for name, pixels in made.files.items():
        write(folder / name, png_of(pixels))
    made.save(folder / "generate.json")
    return made.save(folder / "generate.html")


@checked
def generate(
    generator: str | Path,
    model: Classifier | Encoder | str = "lite0",
    *,
    target: str | int | None = None,
    text: str | None = None,
    neuron: int | None = None,
    like: One | None = None,
    inpaint: One | None = None,
    mask: One | None = None,
    judge: Classifier | Encoder | None = None,
    n: Count = 4,
    start: Literal["facets", "noise"] = "facets",
    controls: bool = True,
    sampler: PPGN | None = None,
    encoder: Encoder | str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Made:
    """Pictures of what a model takes for a class, a text, a neuron or a picture: what ``seewhy study generate`` makes.

    Args:
        generator: the folder of a generator, as :meth:`seewhy.generation.generator.Generator.save` writes it.
        model: what is climbed: a classifier, or an encoder or its name, whose own classes are then those.
        target: a class of the model.
        text: a sentence, where the model has words.
        neuron: a unit of the model's pooled features.
        like: a picture to start at; alone, it is what is climbed.
        inpaint: a picture with a hole.
        mask: of the same size, white where the hole is.
        judge: a second network that says what is on the pictures, never the one that is climbed.
        n: how many different ones.
        start: near training pictures that fit, or anywhere.
        controls: whether the same is made without the prior and in pixels.
        sampler: the walk; left out, :class:`seewhy.generation.sampler.PPGN` as it stands.
        encoder: whose codes the generator turns round; left out, found by its name.
        seed: of starts and noise.
        progress: callback for progress.

    Raises:
        InputError: nothing was asked for or several things at once; the judge is what is climbed.
        DataError: there is no such class, or the mask does not fit.
        ModelError: there is no generator, it was made for another encoder, or the model has no words.
    """
    question = Question(target, text, neuron, like, inpaint, mask)
    climbed = find(model) if isinstance(model, str) else model
    if isinstance(climbed, Encoder) and climbed.classifier is not None:
        climbed = Pretrained().build(climbed)
    own = climbed if isinstance(climbed, Encoder) else climbed.encoder
    loaded = load_generator(generator, encoder, own=own)
    return make(
        loaded,
        question.condition(climbed),
        sampler=sampler,
        asking=Asking(n, start, controls, seed),
        judge=judge,
        classes=climbed.classes,
        picture=question.start(loaded),
        hole=question.hole(loaded),
        progress=progress,
    )
