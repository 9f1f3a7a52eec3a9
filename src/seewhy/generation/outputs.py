"""The JSON that generation answers with, as types."""

from __future__ import annotations

from typing import Annotated, Literal

from typing_extensions import TypedDict

from ..results import Count, Doc, Share
from .conditions import Verdict
from .sampler import PPGN


class Generator(TypedDict):
    encoder: Annotated[str, Doc("whose codes it turns back into pictures")]
    side: Annotated[int, Doc("of the pictures, in pixels")]
    reads: Annotated[int | None, Doc("side at which the encoder reads them; `null` is its own")]
    width: Annotated[int, Doc("of the network")]
    hidden: Annotated[int, Doc("of the network")]
    h1: Annotated[float, Doc("weight of the encoder's features")]
    gan: Annotated[float, Doc("weight of the discriminator")]
    n_steps: Annotated[int, Doc("batches")]
    batch_size: Annotated[int, Doc("pictures at once")]
    lr: Annotated[float, Doc("highest learning rate")]
    held_out: Annotated[Share, Doc("part of the pictures held out")]
    seed: Annotated[int, Doc("of weights, order and what is held out")]
    n_pictures: Annotated[Count, Doc("trained on")]
    n_held_out: Annotated[Count, Doc("held out")]
    last_loss: Annotated[float, Doc("mean over the last 20 steps")]
    held_out_error: Annotated[float, Doc("root mean square over pixels of held-out pictures and those made of their")]
    mean_picture_error: Annotated[float, Doc("the same of the mean picture: what knowing nothing gives")]
    code_error: Annotated[float, Doc("how far codes of made pictures are from the codes they were made of")]


class Judge(TypedDict):
    name: Annotated[str, Doc("recipe and encoder")]
    n_classes: Annotated[int, Doc("it tells")]
    is_the_prior: Annotated[bool, Doc("whether the generator rests on the same network")]


class Way(TypedDict):
    way: Annotated[Literal["ppgn", "no_prior", "pixels"], Doc("`ppgn`; `no_prior`: the same with ε1 = 0; `pixels`")]
    start: Annotated[float, Doc("mean of the measure at the start")]
    value: Annotated[float, Doc("mean of the measure in the end")]
    judged: Annotated[Share | None, Doc("part of the pictures on which the judge sees what was asked for")]
    interval: Annotated[list[float] | None, Doc("95 % interval (Wilson)")]
    diversity: Annotated[float | None, Doc("mean of 1 − cosine over pairs of pictures, in the judge's features")]
    prior_error: Annotated[float | None, Doc("how far the last pictures' codes are from those they were made of")]
    sizes: Annotated[list[list[float]], Doc("mean size of the prior's and of the condition's pull on a unit")]


class Chain(TypedDict):
    way: Annotated[str, Doc("as above")]
    file: Annotated[str, Doc("of the last picture, in the folder written")]
    steps: Annotated[list[int], Doc("of the pictures on the page")]
    values: Annotated[list[float], Doc("the measure on them")]
    judged: Annotated[Verdict | None, Doc("of the last picture")]


class GenerateOutput(TypedDict):
    """The object of seewhy study generate --json."""

    sentence: Annotated[str, Doc("what came of it")]
    asked: Annotated[str, Doc("what the pictures are to show")]
    kind: Annotated[Literal["class", "text", "neuron", "like"], Doc("`class`, `text`, `neuron`, `like`")]
    measure: Annotated[str, Doc("what `values` are: `probability`, `similarity` or `activation`")]
    climbed: Annotated[str, Doc("the network that the pictures were made for")]
    generator: Annotated[Generator, Doc("what made them")]
    sampler: Annotated[PPGN, Doc("the walk")]
    start: Annotated[str, Doc("where chains begin")]
    seed: Annotated[int, Doc("of starts and noise")]
    judge: Annotated[Judge | None, Doc("a second network; `null` where none was named")]
    ways: Annotated[list[Way], Doc("with the prior, then the controls")]
    chains: Annotated[list[Chain], Doc("each walk, with the prior first")]
