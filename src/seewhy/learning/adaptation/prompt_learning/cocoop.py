"""CoCoOp (Zhou et al. 2022, arXiv 2203.05557): a prompt that each picture shifts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from ....bounds import Count
from ....classifiers import classifiers
from ....classifiers.base import Classifier, check_names
from ....classifiers.network import Network
from ....encoders.base import Encoder
from ....encoders.split import freeze
from ....heads.head import Head
from ..prompt_recipe import Lesson, PromptLearning
from ..prompts import Names, Prompt, PromptNetwork, PromptTask, as_it_was, begun, mixed, opened, scores

N_AT_ONCE = 256
"""Texts read at once when predicting."""


class ShiftedPrompt(Prompt):
    """``v_m(x) = v_m + h(x)``, with ``h`` two layers of which the inner one has a sixteenth of the width."""

    conditional: ClassVar[bool] = True

    def __init__(self, vectors: Float[Tensor, "p w"], width: int) -> None:
        super().__init__(vectors)
        inner = max(1, width // 16)
        self.meta = nn.Sequential(nn.Linear(width, inner), nn.ReLU(), nn.Linear(inner, vectors.shape[1]))

    def texts(self, names: Names, image: Float[Tensor, "b d"]) -> Float[Tensor, "b k d"]:
        return names.read(self.vectors + self.meta(image)[:, None])

    @classmethod
    def restored(cls, tensors: Mapping[str, Tensor]) -> Self:
        found = cls(tensors["vectors"].float(), tensors["meta.0.weight"].shape[1])
        found.load_state_dict(dict(tensors))
        return found


class ShiftedFeature:
    """Pooled pictures → the cosines with the classes' names, every picture with texts of its own."""

    def __init__(self, on: Encoder, prompt: ShiftedPrompt, keep: float, classes: Sequence[str]) -> None:
        self.on, self.prompt, self.keep = on, prompt, keep
        self.names = Names(opened(on), classes)
        self.before = as_it_was(on.text, classes)

    def __call__(self, pooled: Float[Tensor, "b p"]) -> Float[Tensor, "b k"]:
        if not len(pooled):
            return pooled.new_empty(0, self.names.n)
        parts = pooled.split(max(1, N_AT_ONCE // self.names.n))
        return torch.cat([self._cosines(normalize(self.on.text.project(part), dim=1)) for part in parts])

    def _cosines(self, image: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]:
        if not self.keep:
            return scores(image, self.before)
        return scores(image, mixed(self.prompt.texts(self.names, image), self.before, self.keep))

    @torch.enable_grad()
    def slope(self, pooled: Float[Tensor, "b p"], rows: Float[Tensor, "b k"]) -> Float[Tensor, "b p"]:
        """The gradient: to first order, as texts follow the picture."""
        leaf = pooled.detach().requires_grad_()
        return torch.autograd.grad((self(leaf) * rows).sum(), leaf)[0]


@dataclass(frozen=True, eq=False)
class ShiftedNetwork(PromptNetwork):
    """A prompt that stands between pooled pictures and the classes' names, which are read anew for each picture."""

    prompt: ShiftedPrompt
    classes: tuple[str, ...] = ()

    def encoder(self) -> Encoder:
        return self.on

    def feature(self) -> ShiftedFeature:
        """Pooled pictures → cosines with the names."""
        return ShiftedFeature(self.on, self.prompt, self.keep, self.classes)

    def classifier(self, classes: Sequence[str]) -> Classifier:
        """A classifier for classes by their names, whichever they are."""
        own = replace(self, classes=check_names(classes))
        told = "nothing but the names of the classes, read behind a learnt prompt that each picture shifts"
        head = Head(own.feature(), torch.eye(len(own.classes)), scale=self.on.text.logit_scale)
        made = Classifier(self.recipe, dict(self.parameters), self.on, own.classes, head, trained_on=told)
        return replace(made, network=own)

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "classes": list(self.classes)}

    @classmethod
    def restore(cls, base: Encoder, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        keep, classes = float(facts["keep"]), tuple(map(str, facts["classes"]))
        if not 0 <= keep <= 1 or len(classes) < 2:
            raise ValueError(f"it keeps {keep} and tells {len(classes)} classes")
        prompt = ShiftedPrompt.restored(tensors)
        freeze(prompt)
        return cls(base, prompt, keep, str(facts["recipe"]), dict(facts["parameters"]), classes)


@classifiers.register
@dataclass(frozen=True)
class CoCoOp(PromptLearning):
    """CoOp's prompt, shifted by each picture, so that it follows what is seen where classes are new.

    ``v_m(x) = v_m + h(x)`` (equation 3), ``h`` two layers behind the picture's unit vector. The classes' names are read
    anew for each picture.

    Differences: those of CoOp; the classifier's head reads the names, so that a map of the decision is of first order.

    Cost: one pass of the words half over all classes for every *picture*, in training forwards and backwards, and again
    when predicting: a second or so for some forty classes on a CPU. Take few shots.
    """

    name: ClassVar[str] = "cocoop"
    spelt: ClassVar[str] = "CoCoOp"
    paper: ClassVar[str] = "Zhou et al. 2022, arXiv:2203.05557"
    cost: ClassVar[str] = "1, and one of the words half"
    network: ClassVar[type[Network] | None] = ShiftedNetwork

    epochs: Count = 10
    batch_size: Count = 1

    def task(self, lesson: Lesson) -> PromptTask:
        tower = opened(lesson.on)
        vectors = begun(tower, self.words, self.n_tokens)
        return PromptTask(ShiftedPrompt(vectors, lesson.image.shape[1]), lesson.names, tower.logit_scale)
