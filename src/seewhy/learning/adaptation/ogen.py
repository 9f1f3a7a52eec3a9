"""OGEN (Zang et al. 2024, arXiv 2401.15914): prompts that also learn from features made for unseen classes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, mse_loss, normalize

from ...bounds import Count, NotNegative, OpenPart, Positive
from ...classifiers import classifiers
from ...errors import InputError
from ...training.batches import Batch
from .prompt_recipe import Lesson, PromptLearning
from .prompts import Names, Prompt, PromptTask, SharedPrompt, begun, opened


class FeatureGenerator(nn.Module):
    """``G(Q, K, V) = normalise(MHA(Q, K, V) + MLP(Q))``, with names as queries and keys and pictures as values."""

    def __init__(self, width: int, n_heads: int = 4, dropout: float = 0.1) -> None:
        super().__init__()
        heads = n_heads if width % n_heads == 0 else 1
        self.attention = nn.MultiheadAttention(width, heads, dropout=dropout, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    def forward(
        self, query: Float[Tensor, "b q d"], key: Float[Tensor, "b k d"], value: Float[Tensor, "b k d"]
    ) -> Float[Tensor, "n d"]:
        """One unit vector per query, all batches in a row."""
        found, _ = self.attention(query, key, value)
        return normalize(self.mlp(query) + found, dim=-1).flatten(0, 1)


@torch.no_grad()
def statistics(
    image: Float[Tensor, "n d"], labels: Tensor, n_classes: int
) -> tuple[Float[Tensor, "c d"], Float[Tensor, "c d"]]:
    """Mean and standard deviation of each class's pictures; 0 for one of a single picture."""
    own = [image[labels == c] for c in range(n_classes)]
    return torch.stack([x.mean(0) for x in own]), torch.stack([x.std(0, correction=0) for x in own])


def neighbours(mean: Float[Tensor, "c d"], k: int) -> Tensor:
    """The ``k`` nearest other classes of each, by the product of means."""
    near = mean @ mean.T
    return near.fill_diagonal_(-torch.inf).topk(min(k, len(mean) - 1)).indices


class OGENTask(PromptTask):
    """A prompt and a generator of features; see :class:`OGEN` for the loss."""

    n_done: Tensor
    past: Tensor
    taught: Tensor

    def __init__(self, how: OGEN, prompt: Prompt, lesson: Lesson, scale: float, new: Names | None) -> None:
        super().__init__(prompt, lesson.names, scale)
        self.how, self.new = how, new
        self.generator = FeatureGenerator(lesson.image.shape[1]).requires_grad_(True)
        self.rates = (("generator.", how.generator_lr / (how.lr or lesson.lr)),)
        self.n_epochs, self.steps_per_epoch = lesson.n_epochs, lesson.steps_per_epoch
        n = len(lesson.classes)
        self.mean, self.deviation = statistics(lesson.image, lesson.labels, n)
        self.near = neighbours(self.mean, how.k)
        self.register_buffer("n_done", torch.zeros((), dtype=torch.long))
        self.register_buffer("past", prompt.vectors.detach().repeat(how.window_max, 1, 1))
        self.register_buffer("taught", torch.zeros(n, lesson.image.shape[1]))

    @property
    def epoch(self) -> int:
        """That is under way."""
        return int(self.n_done) // self.steps_per_epoch

    @property
    def warming(self) -> bool:
        """Whether the generator learns alone."""
        return self.epoch < int(self.how.warm * self.n_epochs)

    def features(self, batch: Batch) -> tuple[Tensor, Tensor]:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.warming):
            return batch["image"], self.prompt.texts(self.names, batch["image"])

    def loss(self, features: tuple[Tensor, Tensor], batch: Batch) -> Mapping[str, Tensor]:
        (image, text), labels = features, batch["labels"]
        near = self.near[labels]
        value = self.mean[near] + torch.rand(1, image.shape[1]) * self.deviation[near]
        terms = self.made(image, text, labels, value)
        logits = self.scale * image @ text.T
        right = (logits.argmax(1) == labels).float().mean()
        if self.warming:
            zero = terms["generated"].detach() * 0
            return {"loss": terms["generated"], "right": right, "generated": terms["generated"], "distilled": zero}
        distilled = logits.sum() * 0
        if self.how.distil and bool(self.taught.any()):  # KL(teacher || student), once there is a teacher
            said = (self.scale * image @ self.taught.T).log_softmax(1)
            distilled = kl_div(logits.log_softmax(1), said, reduction="batchmean", log_target=True)
        whole = terms["loss"] + 0.25 * cross_entropy(logits, labels) + self.how.distil * distilled
        return {"loss": whole, "right": right, "generated": terms["generated"], "distilled": distilled}

    def made(
        self, image: Float[Tensor, "b d"], text: Float[Tensor, "c d"], labels: Int[Tensor, " b"], value: Tensor
    ) -> dict[str, Tensor]:
        """The terms of features that were made: how far they are from real ones, and how they are told."""
        near, width = self.near[labels], image.shape[1]
        k = near.shape[1]
        query, key = text[labels].detach()[:, None], text[near].detach()
        if self.how.extrapolation == "joint":
            one, target, of = self.generator(query, key, value), image, labels
        else:
            apart = (t.reshape(-1, 1, width) for t in (query.expand(-1, k, -1), key, value))
            one = self.generator(*apart)
            target, of = image.repeat_interleave(k, 0), labels.repeat_interleave(k)
        back = self.generator(key, query, image[:, None])
        generated = width * (mse_loss(one, target) + mse_loss(back, value.flatten(0, 1)))
        if self.warming:
            return {"generated": generated}
        told = 0.25 * cross_entropy(self.scale * one @ text.T, of)
        told = told + 0.25 / k * cross_entropy(self.scale * back @ text.T, near.flatten())
        if self.new is not None:
            told = told + self._unknown(image, query)
        return {"generated": generated, "loss": generated + told}

    def _unknown(self, image: Tensor, query: Tensor) -> Tensor:
        """Features of the names without pictures that are nearest to each picture's own class."""
        assert self.new is not None
        text = self.prompt.texts(self.new, image)
        nearest = (query[:, 0] @ text.T).topk(min(self.near.shape[1], len(text))).indices
        made = self.generator(text[nearest], query, image[:, None])
        return 0.5 / nearest.shape[1] * cross_entropy(self.scale * made @ text.T, nearest.flatten())

    def after_step(self) -> None:
        self.n_done += 1
        if int(self.n_done) % self.steps_per_epoch:
            return
        self.past.copy_(torch.cat([self.past[1:], self.prompt.vectors.detach()[None]]))
        if self.how.distil and not self.warming:
            self.taught.copy_(self.names.read(self.teacher()))

    def teacher(self) -> Float[Tensor, "p w"]:
        """A running average over the last ``floor((1 - cos(pi t / T)) / 2 (m_max - m_min) + m_min)`` epochs."""
        least, most = self.how.window_min, self.how.window_max
        t = min(1.0, self.epoch / self.n_epochs)
        n = min(most, self.epoch, math.floor((1 - math.cos(math.pi * t)) / 2 * (most - least) + least))
        found = self.past[-max(n, 1)]
        for one in self.past[len(self.past) - max(n, 1) + 1 :]:
            found = (1 - 1 / max(n, 2)) * found + one / max(n, 2)
        return found


@classifiers.register
@dataclass(frozen=True)
class OGEN(PromptLearning):
    """CoOp's prompt, kept from its classes alone by a generator of features, and by its own past.

    ``G(Q, K, V) = normalise(MHA(Q, K, V) + MLP(Q))`` makes a picture's features of a name, from names and features of
    near classes. With ``T`` the names behind the prompt, ``x`` a picture of class ``y``, ``N`` the ``k`` classes whose
    mean features are nearest, and ``V = mean + u std`` drawn of these: ``u1 = G(T_y, T_N, V)`` as if ``y`` had none,
    ``u2 = G(T_N, T_y, x)`` the other way round, ``u3 = G(T'_M, T_y, x)`` for the nearest names ``M`` without pictures.
    For the first ``warm`` part of the epochs ``L = d MSE(u1, x) + d MSE(u2, V)``; then also
    ``CE(u1, y)/4 + CE(u2, N)/(4k) + CE(u3, M)/(2k) + CE(x, y)/4``, as the authors' code has it; that code divides by
    ``k`` what is a mean already, and draws ``u`` from [0, 1), which is not around 0. Both are kept.

    No name of a class without pictures is read unless ``new_names`` gives some, and then ``u3`` alone uses them. The
    authors' code gives the very names that are judged on; names of anything else may be given.

    The teacher is not in the authors' code. After the paper: ``KL(teacher || student)`` on each batch, the teacher a
    running average of the prompt over the last ``m_t`` epochs, ``m_t`` widening as a cosine from ``window_min`` to
    ``window_max``; its weight and the form of its loss are ours. ``distil=0`` leaves it out. Per-class extrapolation,
    ``u1`` of each near class alone, is the paper's other form, and not in the code either.

    Other differences: ``d`` is the encoder's width (512 there), everything is in single precision, and those of CoOp.

    Cost: CoOp's and the generator, and one pass more of the words half over ``new_names``; nothing when predicting.

    Args:
        new_names: of classes without pictures, to learn for; none unless given.
        k: near classes (authors: 3).
        extrapolation: ``"joint"``, from all near classes at once, or ``"per_class"``.
        warm: part of the epochs in which the generator alone learns (authors: 0.2).
        distil: weight of the teacher's word.
        window_min: epochs that the teacher is made of at first (paper, from memory: 2),
        window_max: and in the end (9).
        generator_lr: the generator's learning rate (authors: 0.002, as the prompt's).
    """

    name: ClassVar[str] = "ogen"
    spelt: ClassVar[str] = "OGEN"
    paper: ClassVar[str] = "Zang et al. 2024, arXiv:2401.15914"

    new_names: tuple[str, ...] = ()
    k: Count = 3
    extrapolation: Literal["joint", "per_class"] = "joint"
    warm: OpenPart = 0.2
    distil: NotNegative = 1.0
    window_min: Count = 2
    window_max: Count = 9
    generator_lr: Positive = 2e-3

    def check(self) -> None:
        if self.window_min > self.window_max:
            raise InputError(
                f"ogen was given window_min={self.window_min}, window_max={self.window_max}. A window that does not "
                "shrink was expected. Change them."
            )

    def task(self, lesson: Lesson) -> PromptTask:
        tower = opened(lesson.on)
        same = [name for name in self.new_names if name in lesson.classes]
        if same:
            raise InputError(
                f"The new name {same[0]!r} is one of the {len(lesson.classes)} classes with pictures. Names of other "
                "classes were expected. Drop it."
            )
        prompt = SharedPrompt(begun(tower, self.words, self.n_tokens))
        new = Names(tower, self.new_names) if self.new_names else None
        return OGENTask(self, prompt, lesson, tower.logit_scale, new)
