"""Prompts in the words half alone: CoOp, CoCoOp, PromptSRC and OGEN."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, l1_loss, mse_loss, normalize
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from ...bounds import Count, NotNegative, OpenPart, Positive, SomePart
from ...classifiers import classifiers
from ...classifiers.base import Classifier, check_names
from ...classifiers.network import Network
from ...encoders.base import Encoder
from ...encoders.split import freeze
from ...errors import InputError
from ...heads.head import Head
from ...training.batches import Batch
from ...training.task import classified
from .prompt_recipe import Lesson, PromptLearning
from .prompts import Names, Prompt, PromptNetwork, PromptTask, SharedPrompt, as_it_was, begun, mixed, opened, scores

N_AT_ONCE = 256
"""Texts that CoCoOp reads at once when predicting."""


@classifiers.register
@dataclass(frozen=True)
class CoOp(PromptLearning):
    """Vectors before every class's name are learnt of pictures, through the frozen words half.

    ``p(y = i | x) = softmax_i(scale cos(g([v_1, …, v_M, name_i]), f(x)))`` (equations 2 and 3), trained by its cross
    entropy. The classes' names stay words, so any others can be named behind the same prompt; those who do so pay: what
    is learnt of some classes may be lost on others, which the forgetting table says.

    Differences: pictures are looked at once, by their own crop (the authors draw a crop and a flip anew each epoch);
    20 epochs (theirs are 50 to 200); a learning rate of its own behind the embedded encoder; and as much is kept as
    forgets little, where theirs keeps all.

    Cost: one pass of the words half over all classes per step, forwards and backwards; nothing when predicting.
    """

    name: ClassVar[str] = "coop"
    spelt: ClassVar[str] = "CoOp"
    paper: ClassVar[str] = "Zhou et al. 2022, arXiv:2109.01134"

    def task(self, lesson: Lesson) -> PromptTask:
        tower = opened(lesson.on)
        return PromptTask(SharedPrompt(begun(tower, self.words, self.n_tokens)), lesson.names, tower.logit_scale)


class ShiftedPrompt(Prompt):
    """``v_m(x) = v_m + h(x)``, with ``h`` two layers of which the inner one has a sixteenth of the width."""

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
    """Pooled pictures → the cosines with the classes' names, every picture with texts of its own."""

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


def epoch_weights(n_epochs: int, mean: float, std: float) -> list[float]:
    """How much each epoch's prompt counts in the end: a Gaussian over epochs 1, 2, …, that adds up to 1."""
    raw = [math.exp(-0.5 * ((epoch - mean) / std) ** 2) for epoch in range(1, n_epochs + 1)]
    return [weight / sum(raw) for weight in raw]


def consistency(text: Tensor, before: Tensor, logits: Tensor, logits_before: Tensor, weight: float) -> Tensor:
    """``weight mean|text - before| + sum KL(before || now) / (b k)``; the authors divide by all numbers."""
    now, then = logits.log_softmax(1), logits_before.log_softmax(1)
    return weight * l1_loss(text, before) + kl_div(now, then, reduction="sum", log_target=True) / logits.numel()


class Consistent(PromptTask):
    """CoOp's loss, the distance from what was known, and an average over epochs in the end."""

    n_done: Tensor
    average: Tensor

    def begin(self, lesson: Lesson, weights: list[float], text: float, image: float) -> None:
        """Take what names were, how much each epoch counts, and how much the distances of texts and pictures."""
        self.weights, self.steps_per_epoch = weights, lesson.steps_per_epoch
        self.weights_held = (text, image)
        self.before = as_it_was(lesson.on.text, lesson.classes)
        self.register_buffer("n_done", torch.zeros((), dtype=torch.long))
        self.register_buffer("average", torch.zeros_like(parameters_to_vector(self.prompt.parameters()).detach()))

    def unprompted(self, image: Tensor, batch: Batch) -> Tensor:
        """What pictures were before; in a tower without prompts the same."""
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
    """CoOp's prompt, held near the names as they were, and averaged over epochs.

    ``L = CE + text_weight mean|T - T_0| + KL(p_0 || p) / k``, with ``T_0`` and ``p_0`` what the encoder's own templates
    make of the names, and in the end ``v = sum_e w_e v_e``, ``w`` a Gaussian over epochs (sections 3.2 and 3.3).

    Differences: no prompts in the picture tower and none in deeper layers, so that pictures stay as they are and the
    paper's distance of pictures is 0; the encoder's own templates instead of the authors' sixty; and those of CoOp.

    Cost: as CoOp.

    Args:
        text_weight: of the distance from what names were (authors: 25).
        mean_epoch: middle of the Gaussian, as a part of the epochs (authors: 15 of 20).
        epoch_std: its width, as a part of the epochs (authors: 1 of 20).
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
        own = [lesson.image[lesson.labels == c].detach() for c in range(n)]
        self.mean = torch.stack([x.mean(0) for x in own])
        self.deviation = torch.stack([x.std(0, correction=0) for x in own])
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

    No name of a class without pictures is read unless ``new_names`` gives some, and then ``u3`` alone uses them; the
    authors' code gives the very names that are judged on.

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
