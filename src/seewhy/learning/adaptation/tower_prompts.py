"""Prompt learning in several layers of the text encoder and of the image encoder."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, ClassVar, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from ...bounds import Bound, Count, NotNegative, Positive, SomePart
from ...classifiers import classifiers
from ...classifiers.encoded_set import EncodedSet, with_logits
from ...classifiers.fitting import Outcome
from ...classifiers.network import Network
from ...encoders.base import Encoder, Layout, TrainableText
from ...encoders.split import LastBlock, example_pixels, freeze, replaced
from ...errors import InputError, ModelError
from ...pictures.samples import Sample
from ...progress import Progress
from ...training.augmentation import TrainingPictures
from ...training.batches import Batch
from ..encoders.delta import seeing_the_same
from ..encoders.token_blocks import Placed, Without, first_norm, image_stack, text_stack, with_more_prefix
from .prompt_recipe import Lesson, PromptRecipe
from .prompts import STD, Names, NamingNetwork, Prompt, PromptTask, begun, opened
from .word_prompts import Consistent


@dataclass(frozen=True, eq=False)
class Towers:
    """The layers of an encoder's text and image transformers in which prompts can be inserted."""

    on: Encoder
    text: TrainableText
    image_stack: str
    n_layers: int
    n_text: int
    width: int

    @classmethod
    def of(cls, on: Encoder) -> Self:
        """Return the layers of an encoder."""
        tower, stack = opened(on), image_stack(on)
        if stack is None:
            raise ModelError(
                f"The image encoder of {on.name!r} does not accept prompts. Use a vision transformer whose name begins "
                "with 'open_clip:' or 'hf:', or a method that changes only the text encoder, such as --method coop."
            )
        words = text_stack(tower.module)
        n_text = 0 if words is None else len([*tower.module.get_submodule(words).children()])
        n_layers = len([*on.trunk.get_submodule(stack).children()]) + 1
        with torch.no_grad():
            width = on.trunk(example_pixels(on.transform.input_size)).shape[2]
        return cls(on, tower, stack, n_layers, n_text, width)

    def check(self, depth: int) -> None:
        """Check that both transformers have at least ``depth`` layers."""
        if depth > 1 and not self.n_text:
            raise ModelError(
                f"`depth` must be 1 for {self.on.name!r}, whose text encoder has no known layers, got {depth}. Set "
                "depth=1, or choose a CLIP model whose name begins with 'open_clip:' or 'hf:'."
            )
        deepest = min(self.n_layers, self.n_text or 1)
        if depth > deepest:
            raise InputError(
                f"`depth` must be between 1 and {deepest} for {self.on.name!r}, whose image and text encoders have "
                f"{self.n_layers} and {self.n_text} layers, got {depth}."
            )


class TowerPrompt(Prompt):
    """Learnt vectors before names and in the first layers of both encoders.

    The image encoder's vectors are linear functions of the text encoder's vectors, or independent of them.
    """

    def __init__(
        self, vectors: Tensor, deeper: Sequence[Tensor], maps: Sequence[nn.Linear] = (), own: Sequence[Tensor] = ()
    ) -> None:
        super().__init__(vectors)
        self.deeper = nn.ParameterList(nn.Parameter(one.detach().clone()) for one in deeper)
        self.maps = nn.ModuleList(maps)
        self.own = nn.ParameterList(nn.Parameter(one.detach().clone()) for one in own)

    @classmethod
    def begun(cls, towers: Towers, words: str, n_tokens: int, depth: int, n_image: int | None) -> Self:
        """Return the initial vectors: embedded words in the first text layer, random vectors in all others."""
        towers.check(depth)
        vectors = begun(towers.text, words, n_tokens)
        deeper = [STD * torch.randn_like(vectors) for _ in range(depth - 1)]
        if n_image is not None:
            return cls(vectors, deeper, own=[STD * torch.randn(n_image, towers.width) for _ in range(depth)])
        first, others = (nn.Linear(vectors.shape[1], towers.width) for _ in range(2))
        return cls(vectors, deeper, [first, *(copy.deepcopy(others) for _ in range(depth - 1))])

    @property
    def depth(self) -> int:
        return len(self.deeper) + 1

    @property
    def n_image(self) -> int:
        return len(self.own[0] if len(self.own) else self.vectors)

    def among_patches(self, layer: int) -> Float[Tensor, "q v"]:
        """Return the learnt vectors of a layer of the image encoder; the first layer is 0."""
        if len(self.own):
            return self.own[layer]
        among_words = self.vectors if layer == 0 else self.deeper[layer - 1]
        return self.maps[layer](among_words)

    def texts(self, names: Names, image: Tensor | None = None) -> Float[Tensor, "k d"]:
        tower, placed = names.tower, {}
        if len(self.deeper):  # the words half with the deeper vectors in it
            stack, opening = str(text_stack(tower.module)), tower.embed(tower.tokens(["a"])).sentence.opening
            for i in range(1, self.depth):
                block, own = tower.module.get_submodule(f"{stack}.{i}"), partial(getattr, self.deeper, str(i - 1))
                placed[f"{stack}.{i}"] = Placed(block, own, opening, replaces=True)
        return names.read(self.vectors, replaced(tower.module, placed) if placed else tower.module)

    @classmethod
    def restored(cls, tensors: Mapping[str, Tensor]) -> Self:
        def several(part: str, ending: str = "") -> list[Tensor]:
            n = sum(name.startswith(f"{part}.") and name.endswith(ending) for name in tensors)
            return [tensors[f"{part}.{i}{ending}"].float() for i in range(n)]

        maps = [nn.Linear(weight.shape[1], weight.shape[0]) for weight in several("maps", ".weight")]
        vectors, deeper, own = tensors["vectors"].float(), several("deeper"), several("own")
        if len({one.shape for one in (vectors, *deeper)}) > 1 or len({one.shape for one in own}) > 1:
            raise ValueError("its vectors have different shapes")
        found = cls(vectors, deeper, maps, own)
        found.load_state_dict(dict(tensors))
        if (len(maps) or len(own)) != found.depth or (maps and own):
            raise ValueError(f"it has {len(maps)} maps and {len(own)} sets of vectors for {found.depth} layers")
        return found


class PromptedPictures(nn.Module):
    """Image encoder with learnt vectors between the class token and the patches."""

    def __init__(self, towers: Towers, prompt: TowerPrompt) -> None:
        super().__init__()
        on, at, n = towers.on, towers.on.layout.prefix, prompt.n_image
        last = on.head
        assert isinstance(last, LastBlock)
        self.norm, self.prompt = first_norm(on.trunk), prompt
        blocks = [with_more_prefix(b, n) for b in (*on.trunk.get_submodule(towers.image_stack).children(), last.block)]
        for i in range(prompt.depth):
            vectors = partial(prompt.among_patches, i) if i else self._first
            blocks[i] = Placed(blocks[i], vectors, at, replaces=i > 0)
        self.trunk = replaced(on.trunk, {f"{towers.image_stack}.{i}": block for i, block in enumerate(blocks[:-1])})
        self.head = LastBlock(blocks[-1], Without(last.tail, at, n), last.keywords)

    def _first(self) -> Tensor:
        return self.norm(self.prompt.among_patches(0))

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b p"]:
        return self.head(self.trunk(pixels))


@dataclass(frozen=True, eq=False)
class TowerPromptedNetwork(NamingNetwork):
    """An encoder with learnt vectors in its text and its image encoder; ``keep`` is 0 or 1."""

    of_names: ClassVar[str] = "nothing but the names of the classes, with prompts in both encoders"

    prompt: TowerPrompt

    def encoder(self) -> Encoder:
        on, text = self.base, self.words()
        if not self.keep:
            return seeing_the_same(on, on.name, text.fingerprint, lambda: text, None)
        pictures, own = PromptedPictures(Towers.of(on), self.prompt), on.layout
        freeze(pictures)
        return on.but(
            trunk=lambda: pictures.trunk,
            head=pictures.head,
            layout=Layout("tokens", own.grid, own.prefix + self.prompt.n_image),
            fingerprint=text.fingerprint,
            text=lambda: text,
            module=lambda: nn.Sequential(pictures.trunk, pictures.head),
            classifier=None,
            classes=(),
            base=on,
        )

    @classmethod
    def restore(cls, base: Encoder, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        keep, prompt = float(facts["keep"]), TowerPrompt.restored(tensors)
        if keep not in (0.0, 1.0):
            raise ValueError(f"keep is {keep}")
        freeze(prompt)
        towers = Towers.of(base)
        width = towers.text.embed(towers.text.tokens(["a"])).vectors.shape[2]
        widths = {one.shape[1] for one in (prompt.vectors, *prompt.deeper)}
        if widths != {width} or prompt.among_patches(0).shape[1] != towers.width:
            raise ValueError(f"its prompts have the widths {sorted(widths)}")
        try:
            towers.check(prompt.depth)
        except (InputError, ModelError) as error:
            raise ValueError(str(error)) from error
        return cls(base, prompt, keep, str(facts["recipe"]), dict(facts["parameters"]))


def image_of(pictures: nn.Module, on: Encoder, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
    return normalize(on.text.project(pictures(pixels)), dim=1)


class TowerTask(PromptTask):
    """The training of prompts in both encoders with the loss ``CE(scale cos(image, text), label)``."""

    needs = ("pixels", "labels")

    def __init__(self, towers: Towers, prompt: TowerPrompt, names: Names) -> None:
        super().__init__(prompt, names, towers.text.logit_scale)
        self.on, self.towers = towers.on, (PromptedPictures(towers, prompt),)  # used, and no part of what is trained

    def features(self, batch: Batch) -> tuple[Tensor, Tensor]:
        image = image_of(self.towers[0], self.on, batch["pixels"])
        return image, self.prompt.texts(self.names, image)


@dataclass(frozen=True)
class TowerPromptLearning(PromptRecipe):
    """Prompt learning in the text and the image encoder.

    Args:
        depth: number of layers with prompts in each encoder, at least 1 (authors: 9 of 12).
        keep: 1 for the trained encoder, 0 for the original one.
    """

    needs: ClassVar[str] = "labelled pictures, and an encoder of two transformers"
    network: ClassVar[type[Network] | None] = TowerPromptedNetwork
    needs_attention: ClassVar[bool] = True
    small: ClassVar[Mapping[str, Any]] = {"depth": 1, "epochs": 2, "batch_size": 4}
    column: ClassVar[str] = "pixels"

    words: str = "a photo"
    n_tokens: Count = 2
    depth: Count = 9
    keep: Annotated[float, Bound(0, 1)] = 1.0  # type: ignore[misc]
    epochs: Count = 5
    batch_size: Count = 4
    lr: Annotated[float, Bound(0, open=(True, False))] = 0.0035

    def check(self) -> None:
        if self.keep not in (0, 1):
            raise InputError(
                f"`keep` must be 0 (original encoder) or 1 (trained encoder) for {self.name}, got {self.keep:g}."
            )

    def refuse(self, on: Encoder) -> None:
        Towers.of(on).check(self.depth)

    def shown(self, on: Encoder, items: Sequence[Sample], image: Tensor, progress: Progress) -> TrainingPictures:
        return TrainingPictures(on, [item.source for item in items], None, progress)

    def outcome(self, network: Any, pictures: EncodedSet, measured: Tensor, figures: Any, progress: Any) -> Outcome:
        classifier = network.classifier(pictures.classes)
        index, held = pictures.held_by(classifier.encoder, progress)
        if held is not None:
            held = with_logits(classifier.head, replace(held, before=pictures.own_crops(index).pooled))
        n = len(pictures.trained)
        trained_on = f"{n:,} of your pictures, {len(pictures.classes)} classes, for prompts in both encoders"
        classifier, places = replace(classifier, held_out=held, trained_on=trained_on), None if held is None else index
        return Outcome(classifier, pictures, figures, measured=held, index=places, keep=False)


@classifiers.register
@dataclass(frozen=True)
class MaPLe(TowerPromptLearning):
    """Prompt learning in several layers of the text and the image encoder.

    In layer ``i`` of the first ``depth`` layers, learnt vectors ``P_i`` precede the class name in the text encoder. In
    the image encoder, the vectors ``F_i(P_i)`` join the patches, where ``F_i`` is a learnt linear map (equations 4 to
    8). The loss is CoOp's cross entropy. Because the image encoder changes, every picture is encoded again.

    Where SeeWhy differs from the authors:

    * Training uses single precision.
    * The learnt vectors come after the class token instead of after the patches, which is equivalent.
    * In the first epoch, the learning rate rises; the authors use 1e-5.
    * The end of the encoder's own template follows the name.

    Each epoch takes a forward and a backward pass of the image encoder per picture. Each step takes a forward and a
    backward pass of the text encoder for all classes. Prediction takes as long as with the original encoder.
    """

    name: ClassVar[str] = "maple"
    spelt: ClassVar[str] = "MaPLe"
    paper: ClassVar[str] = "Khattak et al. 2023, arXiv:2210.03117"

    def task(self, lesson: Lesson) -> TowerTask:
        towers = Towers.of(lesson.on)
        prompt = TowerPrompt.begun(towers, self.words, self.n_tokens, self.depth, None)
        return TowerTask(towers, prompt, lesson.names)


class ConsistentTowers(TowerTask, Consistent):
    """The training of prompts in both encoders, with PromptSRC's consistency losses and Gaussian average."""

    def __init__(self, towers: Towers, prompt: TowerPrompt, lesson: Lesson, how: PromptSRCTowers) -> None:
        super().__init__(towers, prompt, lesson.names)
        self.plain = (nn.Sequential(towers.on.trunk, towers.on.head),)
        self.begin(how, lesson, how.image_weight)

    @torch.no_grad()
    def unprompted(self, image: Tensor, batch: Batch) -> Tensor:
        return image_of(self.plain[0], self.on, batch["pixels"])


@classifiers.register
@dataclass(frozen=True)
class PromptSRCTowers(TowerPromptLearning):
    """Prompt learning in both encoders, regularised towards the outputs of the frozen encoders.

        L = CE + text_weight mean|T - T_0| + image_weight mean|x - x_0| + KL(p_0 || p) / k

    * ``CE``: cross entropy.
    * ``T``, ``x``, ``p``: text features, image features and class probabilities with prompts.
    * ``T_0``, ``x_0``, ``p_0``: the same outputs of the frozen encoders, for the same crop.
    * ``k``: number of classes.

    At the end, the prompts of all epochs are averaged with Gaussian weights (sections 3.2 and 3.3). The method
    ``promptsrc`` has prompts in the text encoder only. Because the image encoder changes, every picture is encoded
    again.

    Where SeeWhy differs from the authors:

    * Training uses single precision.
    * The frozen text features come from the encoder's own templates; the authors use sixty others.
    * The learnt vectors come after the class token instead of after the patches, which is equivalent.
    * In the first epoch, the learning rate rises; the authors use 1e-5.

    Each epoch takes two forward passes and one backward pass of the image encoder per picture, and each step takes a
    pass of the text encoder for all classes. Prediction takes as long as with the original encoder.

    Args:
        n_image: number of learnt vectors among the patches in each layer (authors: 4).
        text_weight: weight of the distance between text features, at least 0 (authors: 25); a higher value forgets
            less.
        image_weight: weight of the distance between image features, at least 0 (authors: 10); a higher value forgets
            less.
        mean_epoch: epoch with the largest Gaussian weight, as a fraction of all epochs (authors: 15 of 20).
        epoch_std: standard deviation of the Gaussian weights, as a fraction of all epochs (authors: 1 of 20).
    """

    name: ClassVar[str] = "promptsrc_towers"
    spelt: ClassVar[str] = "PromptSRC in both towers"
    paper: ClassVar[str] = "Khattak et al. 2023, arXiv:2307.06948"

    words: str = "a photo of a"
    n_tokens: Count = 4
    epochs: Count = 20
    lr: Positive = 0.0025
    n_image: Count = 4
    text_weight: NotNegative = 25.0
    image_weight: NotNegative = 10.0
    mean_epoch: SomePart = 0.75
    epoch_std: Positive = 0.05

    def task(self, lesson: Lesson) -> TowerTask:
        towers = Towers.of(lesson.on)
        prompt = TowerPrompt.begun(towers, self.words, self.n_tokens, self.depth, self.n_image)
        return ConsistentTowers(towers, prompt, lesson, self)
