"""Prompt learning in the text encoder: CoOp, CoCoOp and PromptSRC."""

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
"""Texts per batch of CoCoOp's prediction."""


@classifiers.register
@dataclass(frozen=True)
class CoOp(PromptLearning):
    """Prompt learning from a few labelled pictures: learnt vectors before class names, with a frozen encoder.

        p(y = i | x) = softmax_i(scale cos(g([v_1, …, v_M, name_i]), f(x)))

    ``x`` is a picture, ``f`` the image encoder, ``g`` the text encoder, ``v_1`` to ``v_M`` are the learnt vectors, and
    ``name_i`` is the name of class ``i``. This follows equations 2 and 3 of the paper; the loss is the cross entropy.
    Names of other classes can also be used, but the accuracy on them may be lower than before; the forgetting table
    shows by how much.

    Where SeeWhy differs from the authors:

    * Each picture is encoded once, without random crops and flips.
    * Training takes 20 epochs (authors: 50 to 200).
    * The embedded encoder has another learning rate.
    * ``keep`` is chosen to limit forgetting (authors: 1).

    Each step takes a forward and a backward pass of the text encoder for all classes. Prediction takes no additional
    pass.
    """

    name: ClassVar[str] = "coop"
    spelt: ClassVar[str] = "CoOp"
    paper: ClassVar[str] = "Zhou et al. 2022, arXiv:2109.01134"

    def task(self, lesson: Lesson) -> PromptTask:
        tower = opened(lesson.on)
        return PromptTask(SharedPrompt(begun(tower, self.words, self.n_tokens)), lesson.names, tower.logit_scale)


class ShiftedPrompt(Prompt):
    """A prompt that depends on the picture ``x``: ``v_m(x) = v_m + h(x)``, where ``h`` is an MLP."""

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
    """A head that returns the cosines of a picture with class names; their prompt depends on the picture."""

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
        """Return the gradient of ``rows · self(pooled)``."""
        leaf = pooled.detach().requires_grad_()
        return torch.autograd.grad((self(leaf) * rows).sum(), leaf)[0]


@dataclass(frozen=True, eq=False)
class ShiftedNetwork(PromptNetwork):
    """A prompt that depends on the picture, so that class names are encoded for each picture."""

    prompt: ShiftedPrompt
    classes: tuple[str, ...] = ()

    def encoder(self) -> Encoder:
        return self.base

    def feature(self) -> ShiftedFeature:
        return ShiftedFeature(self.base, self.prompt, self.keep, self.classes)

    def classifier(self, classes: Sequence[str]) -> Classifier:
        own = replace(self, classes=check_names(classes))
        trained_on = "nothing but the names of the classes, after a learnt prompt that each picture shifts"
        head = Head(own.feature(), torch.eye(len(own.classes)), scale=self.base.text.logit_scale)
        made = Classifier(self.recipe, dict(self.parameters), self.base, own.classes, head, trained_on=trained_on)
        return replace(made, network=own)

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "classes": list(self.classes)}

    @classmethod
    def restore(cls, base: Encoder, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        keep, classes = float(facts["keep"]), tuple(map(str, facts["classes"]))
        if not 0 <= keep <= 1 or len(classes) < 2:
            raise ValueError(f"its `keep` is {keep}, and it has {len(classes)} classes")
        prompt = ShiftedPrompt.restored(tensors)
        freeze(prompt)
        return cls(base, prompt, keep, str(facts["recipe"]), dict(facts["parameters"]), classes)


@classifiers.register
@dataclass(frozen=True)
class CoCoOp(PromptLearning):
    """Prompt learning with a prompt that depends on the picture.

        v_m(x) = v_m + h(x)

    ``v_m`` is learnt vector ``m``, ``x`` the unit vector of the picture, and ``h`` an MLP with two layers. This follows
    equation 3 of the paper.

    SeeWhy differs from the authors as for :class:`CoOp`. Because the prompt depends on the picture, attribution maps
    are exact only to first order.

    Training takes a forward and a backward pass of the text encoder for all classes for *each picture*, so use few
    shots. A prediction takes one such forward pass, about a second for 40 classes on a CPU.
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
    """Return the Gaussian weights of epochs 1, 2, …; they add up to 1."""
    raw = [math.exp(-0.5 * ((epoch - mean) / std) ** 2) for epoch in range(1, n_epochs + 1)]
    return [weight / sum(raw) for weight in raw]


def consistency(text: Tensor, before: Tensor, logits: Tensor, logits_before: Tensor, weight: float) -> Tensor:
    """Return PromptSRC's losses, ``weight mean|text - before| + sum KL(before || now) / (b k)``."""
    now, then = logits.log_softmax(1), logits_before.log_softmax(1)
    return weight * l1_loss(text, before) + kl_div(now, then, reduction="sum", log_target=True) / logits.numel()


class Consistent(PromptTask):
    """The training of a prompt with PromptSRC's consistency losses and Gaussian average over epochs."""

    n_done: Tensor
    average: Tensor

    def begin(self, how: Any, lesson: Lesson, image_weight: float = 0.0) -> None:
        """Set the frozen text features and the weights of epochs and losses, from a method's settings."""
        n, self.steps_per_epoch = lesson.n_epochs, lesson.steps_per_epoch
        self.weights = epoch_weights(n, how.mean_epoch * n, max(how.epoch_std * n, 0.5))
        self.weights_held = (how.text_weight, image_weight)
        self.before = as_it_was(lesson.on.text, lesson.classes)
        self.register_buffer("n_done", torch.zeros((), dtype=torch.long))
        self.register_buffer("average", torch.zeros_like(parameters_to_vector(self.prompt.parameters()).detach()))

    def unprompted(self, image: Tensor, batch: Batch) -> Tensor:
        """Return the image vectors of the frozen encoder."""
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
    """Prompt learning regularised towards the frozen text encoder, with an average over epochs.

        L = CE + text_weight mean|T - T_0| + KL(p_0 || p) / k
        v = sum_e w_e v_e

    * ``CE``: cross entropy.
    * ``T``, ``p``: text features and class probabilities with the prompt.
    * ``T_0``, ``p_0``: text features and class probabilities with the encoder's own templates.
    * ``k``: number of classes.
    * ``v``: final prompt; ``v_e`` is the prompt after epoch ``e``, and ``w_e`` its weight, a Gaussian over epochs.

    This follows sections 3.2 and 3.3 of the paper. SeeWhy differs from the authors as for :class:`CoOp`, and in two
    more points:

    * There are no prompts in the image encoder or in deeper layers, so image features have no loss.
    * ``T_0`` comes from the encoder's own templates; the authors use sixty others.

    The time is that of :class:`CoOp`.

    Args:
        text_weight: weight of the text features' distance, at least 0 (authors: 25); raise it to forget less.
        mean_epoch: mean of the Gaussian weights, as a fraction of the epochs (authors: 15 of 20).
        epoch_std: standard deviation of the Gaussian weights, as a fraction of the epochs (authors: 1 of 20).
    """

    name: ClassVar[str] = "promptsrc"
    spelt: ClassVar[str] = "PromptSRC"
    paper: ClassVar[str] = "Khattak et al. 2023, arXiv:2307.06948"

    text_weight: NotNegative = 25.0
    mean_epoch: SomePart = 0.75
    epoch_std: Positive = 0.05

    def task(self, lesson: Lesson) -> PromptTask:
        tower = opened(lesson.on)
        task = Consistent(SharedPrompt(begun(tower, self.words, self.n_tokens)), lesson.names, tower.logit_scale)
        task.begin(self, lesson)
        return task
