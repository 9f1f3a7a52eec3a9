"""Prompts in the text half alone: CoOp, CoCoOp and PromptSRC; OGEN has its own file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import kl_div, l1_loss, normalize
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from ...bounds import Count, NotNegative, Positive, SomePart
from ...classifiers import classifiers
from ...classifiers.base import Classifier, check_names
from ...classifiers.network import Network
from ...encoders.base import Encoder
from ...encoders.split import freeze
from ...heads.head import Head
from ...training.batches import Batch
from ...training.task import classified
from .prompt_recipe import Lesson, PromptLearning
from .prompts import Names, Prompt, PromptNetwork, PromptTask, SharedPrompt, as_it_was, begun, mixed, opened, scores

N_AT_ONCE = 256
"""Texts that CoCoOp encodes at once when predicting."""


@classifiers.register
@dataclass(frozen=True)
class CoOp(PromptLearning):
    """Learns a prompt, vectors before every class's name, from a few labelled pictures. The encoder stays frozen.

    ``p(y = i | x) = softmax_i(scale cos(g([v_1, …, v_M, name_i]), f(x)))`` (equations 2 and 3), trained by its cross
    entropy. Class names stay words, so other classes can be named behind the same prompt. What it learns of some
    classes may cost others; the forgetting table shows it.

    Differences: each picture is encoded once, by its own crop (the authors draw a crop and a flip each epoch); 20
    epochs (theirs 50 to 200); another learning rate behind the embedded encoder; and only as much of the prompt is
    kept as forgets little (theirs keeps all).

    Cost: one pass of the text encoder over all classes per step, forward and backward; nothing when predicting.
    """

    name: ClassVar[str] = "coop"
    spelt: ClassVar[str] = "CoOp"
    paper: ClassVar[str] = "Zhou et al. 2022, arXiv:2109.01134"

    def task(self, lesson: Lesson) -> PromptTask:
        tower = opened(lesson.on)
        return PromptTask(SharedPrompt(begun(tower, self.words, self.n_tokens)), lesson.names, tower.logit_scale)


class ShiftedPrompt(Prompt):
    """``v_m(x) = v_m + h(x)``, where ``h`` has two layers, the inner one a sixteenth as wide."""

    conditional: ClassVar[bool] = True

    def __init__(self, vectors: Float[Tensor, "p w"], width: int) -> None:
        super().__init__(vectors)
        inner = max(1, width // 16)
        self.meta = nn.Sequential(nn.Linear(width, inner), nn.ReLU(), nn.Linear(inner, vectors.shape[1]))

    def texts(self, names: Names, image: Any = None) -> Float[Tensor, "b k d"]:
        return names.read(self.vectors + self.meta(image)[:, None])

    @classmethod
    def restored(cls, tensors: Mapping[str, Tensor]) -> Self:
        found = cls(tensors["vectors"].float(), tensors["meta.0.weight"].shape[1])
        found.load_state_dict(dict(tensors))
        return found


class ShiftedFeature:
    """Pooled pictures → cosines with the classes' names, where every picture has its own texts."""

    def __init__(self, on: Encoder, prompt: ShiftedPrompt, keep: float, classes: Sequence[str]) -> None:
        self.on, self.prompt, self.keep = on, prompt, keep
        self.names, self.before = Names(opened(on), classes), as_it_was(on.text, classes)

    def __call__(self, pooled: Float[Tensor, "b p"]) -> Float[Tensor, "b k"]:
        if not len(pooled):
            return pooled.new_empty(0, self.names.n)
        found = []
        for part in pooled.split(max(1, N_AT_ONCE // self.names.n)):
            image, text = normalize(self.on.text.project(part), dim=1), self.before
            if self.keep:
                text = mixed(self.prompt.texts(self.names, image), self.before, self.keep)
            found.append(scores(image, text))
        return torch.cat(found)

    @torch.enable_grad()
    def slope(self, pooled: Float[Tensor, "b p"], rows: Float[Tensor, "b k"]) -> Float[Tensor, "b p"]:
        """Return the gradient, to first order, because texts depend on the picture."""
        leaf = pooled.detach().requires_grad_()
        return torch.autograd.grad((self(leaf) * rows).sum(), leaf)[0]


@dataclass(frozen=True, eq=False)
class ShiftedNetwork(PromptNetwork):
    """A prompt between pooled pictures and the classes' names, which are encoded again for each picture."""

    prompt: ShiftedPrompt
    classes: tuple[str, ...] = ()

    def encoder(self) -> Encoder:
        return self.on

    def feature(self) -> ShiftedFeature:
        """Return a module from pooled pictures to cosines with the names."""
        return ShiftedFeature(self.on, self.prompt, self.keep, self.classes)

    def classifier(self, classes: Sequence[str]) -> Classifier:
        """Return a classifier for any classes, by their names."""
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
            raise ValueError(f"it keeps {keep} and has {len(classes)} classes")
        prompt = ShiftedPrompt.restored(tensors)
        freeze(prompt)
        return cls(base, prompt, keep, str(facts["recipe"]), dict(facts["parameters"]), classes)


@classifiers.register
@dataclass(frozen=True)
class CoCoOp(PromptLearning):
    """CoOp's prompt, shifted by each picture, so that it adapts to classes it never saw.

    ``v_m(x) = v_m + h(x)`` (equation 3), where ``h`` has two layers on the picture's unit vector. The classes' names
    are encoded again for each picture.

    Differences: those of CoOp; and the head encodes the names, so a map of the decision holds to first order only.

    Cost: one pass of the text encoder over all classes for every *picture*, forward and backward in training, and again
    when predicting: about a second for 40 classes on a CPU. Use few shots.
    """

    name: ClassVar[str] = "cocoop"
    spelt: ClassVar[str] = "CoCoOp"
    paper: ClassVar[str] = "Zhou et al. 2022, arXiv:2203.05557"
    cost: ClassVar[str] = "1, and 1 of the text encoder"
    network: ClassVar[type[Network] | None] = ShiftedNetwork

    epochs: Count = 10
    batch_size: Count = 1

    def task(self, lesson: Lesson) -> PromptTask:
        tower = opened(lesson.on)
        vectors = begun(tower, self.words, self.n_tokens)
        return PromptTask(ShiftedPrompt(vectors, lesson.image.shape[1]), lesson.names, tower.logit_scale)


def epoch_weights(n_epochs: int, mean: float, std: float) -> list[float]:
    """Return the weight of each epoch's prompt in the average: a Gaussian over epochs 1, 2, … with sum 1."""
    raw = [math.exp(-0.5 * ((epoch - mean) / std) ** 2) for epoch in range(1, n_epochs + 1)]
    return [weight / sum(raw) for weight in raw]


def consistency(text: Tensor, before: Tensor, logits: Tensor, logits_before: Tensor, weight: float) -> Tensor:
    """Return ``weight mean|text - before| + sum KL(before || now) / (b k)``; the authors divide by all numbers."""
    now, then = logits.log_softmax(1), logits_before.log_softmax(1)
    return weight * l1_loss(text, before) + kl_div(now, then, reduction="sum", log_target=True) / logits.numel()


class Consistent(PromptTask):
    """CoOp's loss plus the distance from the original encoder, with a final average over epochs."""

    n_done: Tensor
    average: Tensor

    def begin(self, lesson: Lesson, weights: list[float], text: float, image: float) -> None:
        """Set the original names, the weight of each epoch, and the weights of the distances of texts and pictures."""
        self.weights, self.steps_per_epoch = weights, lesson.steps_per_epoch
        self.weights_held = (text, image)
        self.before = as_it_was(lesson.on.text, lesson.classes)
        self.register_buffer("n_done", torch.zeros((), dtype=torch.long))
        self.register_buffer("average", torch.zeros_like(parameters_to_vector(self.prompt.parameters()).detach()))

    def unprompted(self, image: Tensor, batch: Batch) -> Tensor:
        """Return the pictures before training; without prompts in the picture tower they are the same."""
        return image

    def loss(self, features: tuple[Tensor, Tensor], batch: Batch) -> Mapping[str, Tensor]:
        (image, text), (of_text, of_image) = features, self.weights_held
        before = self.unprompted(image, batch)
        logits, logits_before = self.scale * image @ text.T, self.scale * before @ self.before.T
        terms = classified(logits, batch["labels"])
        held = consistency(text, self.before, logits, logits_before, of_text)
        if of_image:
            held = held + of_image * l1_loss(image, before)
        return {**terms, "loss": terms["loss"] + held, "held": held}

    def after_step(self) -> None:
        self.n_done += 1
        epoch, left = divmod(int(self.n_done), self.steps_per_epoch)
        if left:
            return
        own = list(self.prompt.parameters())
        self.average += self.weights[min(epoch, len(self.weights)) - 1] * parameters_to_vector(own).detach()
        if epoch == len(self.weights):
            vector_to_parameters(self.average, own)


@classifiers.register
@dataclass(frozen=True)
class PromptSRC(PromptLearning):
    """CoOp's prompt, kept close to the encoder's own reading of the names, and averaged over epochs.

    ``L = CE + text_weight mean|T - T_0| + KL(p_0 || p) / k``, with ``T_0`` and ``p_0`` from the encoder's own
    templates. At the end ``v = sum_e w_e v_e``, ``w`` a Gaussian over epochs (sections 3.2 and 3.3).

    Differences: no prompts in the image encoder or in deeper layers, so pictures stay as they are and the paper's
    distance of pictures is 0; the encoder's own templates instead of the authors' sixty; and those of CoOp.

    Cost: that of CoOp.

    Args:
        text_weight: weight of keeping names where they were, from 0 (authors: 25); raise it to forget less.
        mean_epoch: centre of the Gaussian average, as a share of the epochs (authors: 15 of 20).
        epoch_std: its width, as a share of the epochs (authors: 1 of 20).
    """

    name: ClassVar[str] = "promptsrc"
    spelt: ClassVar[str] = "PromptSRC"
    paper: ClassVar[str] = "Khattak et al. 2023, arXiv:2307.06948"

    text_weight: NotNegative = 25.0
    mean_epoch: SomePart = 0.75
    epoch_std: Positive = 0.05

    def task(self, lesson: Lesson) -> PromptTask:
        tower, n = opened(lesson.on), lesson.n_epochs
        prompt = SharedPrompt(begun(tower, self.words, self.n_tokens))
        weights = epoch_weights(n, self.mean_epoch * n, max(self.epoch_std * n, 0.5))
        task = Consistent(prompt, lesson.names, tower.logit_scale)
        task.begin(lesson, weights, self.text_weight, 0.0)
        return task
