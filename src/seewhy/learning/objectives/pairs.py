"""Objectives over pictures with a text each: the loss of a row of scores, and the weight of each direction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn.functional import cross_entropy, logsigmoid, normalize

from ...bounds import Bound, Count, Finite, NotNegative, OpenPart, Part, Positive, SomePart
from . import objectives
from .contrastive import (
    LEAST,
    Contrastive,
    Costs,
    Divided,
    Fixed,
    Learnt,
    LearntScale,
    Own,
    RandomBoxes,
    SameLabel,
    Scale,
    Scores,
    Sides,
    Temperature,
)


@objectives.register
@dataclass(frozen=True)
class CLIP(LearntScale):
    """The default: each picture must find its own text among those of the batch, and each text its picture.

    ``s_ij = exp(theta) cos(image_i, text_j)``; ``loss = (mean_i CE(s_i·, i) + mean_j CE(s_·j, j)) / 2`` (section 2.3).

    Equal to ``open_clip.loss.ClipLoss`` in loss and gradients, also over several processes. As there, two pairs with
    the same text count as wrong for one another. The loss of a random start is about ``ln(batch)``.

    Example:
        >>> round(float(CLIP(temperature=1.0)(torch.eye(2), torch.eye(2))), 4)  # log(1 + exp(-1))
        0.3133
    """

    name: ClassVar[str] = "clip"
    paper: ClassVar[str] = "Radford et al. 2021, arXiv:2103.00020"


@objectives.register
@dataclass(frozen=True)
class SigLIP(Contrastive):
    """Decides for each picture and each text whether they belong together.

    ``s_ij = exp(t) cos(image_i, text_j) + b``; ``loss = -1/n sum_ij log sigmoid(z_ij s_ij)``, where ``z`` is 1 for a
    pair and -1 for all others (equation 1 and algorithm 1). ``t`` and ``b`` are learnt; the paper has no ``max_scale``.

    Equal to ``open_clip.loss.SigLipLoss`` in loss and gradients, also over several processes.

    Args:
        scale: factor on the cosines at the start (paper: 10).
        bias: bias at the start (paper: −10); it keeps the many wrong pairs cheap.
        max_scale: largest factor on the cosines.
    """

    name: ClassVar[str] = "siglip"
    paper: ClassVar[str] = "Zhai et al. 2023, arXiv:2303.15343"

    scale: Scale = 10.0
    bias: Finite = -10.0
    max_scale: Scale = 100.0

    def check(self) -> None:
        if self.scale > self.max_scale:
            raise self.refusal("scale", "max_scale", expected="scale to be at most max_scale")

    def state(self) -> Temperature:
        return Learnt(self.scale, self.max_scale, self.bias)

    def weights(self) -> tuple[float, float]:
        return 1.0, 0.0

    def rows(self, scores: Scores, own: Own, labels: Sides) -> Costs:
        together = torch.full_like(scores, -1.0).scatter(1, own[:, None], 1.0)
        return -logsigmoid(together * scores).sum(1)


@objectives.register
@dataclass(frozen=True)
class ALIGN(Contrastive):
    """Each picture must find its own text and each text its own picture, with smoothed labels.

    ``s_ij = cos(image_i, text_j) / sigma``; ``loss = mean_i CE(s_i·, q_i) + mean_j CE(s_·j, q_j)`` (equations 1 and 2),
    where ``q_i`` is ``label_smoothing / n`` everywhere, and the rest of 1 is added at ``i``. ``sigma`` is learnt.

    The authors published no code. The loss is twice that of the port in transformers, which takes the mean of both
    directions where the paper takes the sum.

    Args:
        temperature: temperature at the start (paper: 1).
        label_smoothing: label smoothing, 0 to 1 (paper: 0.1).
    """

    name: ClassVar[str] = "align"
    paper: ClassVar[str] = "Jia et al. 2021, arXiv:2102.05918"

    temperature: Annotated[float, Bound(LEAST)] = 1.0
    label_smoothing: OpenPart = 0.1

    def state(self) -> Temperature:
        return Divided(self.temperature)

    def weights(self) -> tuple[float, float]:
        return 1.0, 1.0

    def rows(self, scores: Scores, own: Own, labels: Sides) -> Costs:
        return cross_entropy(scores, own, reduction="none", label_smoothing=self.label_smoothing)


@objectives.register
@dataclass(frozen=True)
class ConVIRT(Contrastive):
    """Each picture must find a sentence of its own report and, with less weight, each sentence its picture.

    ``s_ij = cos(image_i, text_j) / tau``; ``loss = lam mean_i CE(s_i·, i) + (1 - lam) mean_j CE(s_·j, j)`` (equations
    2 to 4). Every step draws one sentence of each report.

    The authors published no training code. Equal to ``NTXentLoss`` of the most used port, whose text side gets no
    gradient. As in the paper, two reports with the same words ("no effusion") count as wrong for one another.

    Args:
        temperature: temperature, which is fixed (paper: 0.1).
        lam: weight of pictures against sentences, 0 to 1 (paper: 0.75).
        spans: part of a report to draw: ``"sentence"``, or ``"text"`` for all of it.
    """

    name: ClassVar[str] = "convirt"
    paper: ClassVar[str] = "Zhang et al. 2020, arXiv:2010.00747"
    needs: ClassVar[str] = "pictures with a report each"

    temperature: Positive = 0.1
    lam: Part = 0.75
    spans: Literal["sentence", "text"] = "sentence"

    def state(self) -> Temperature:
        return Fixed(1 / self.temperature)

    def weights(self) -> tuple[float, float]:
        return self.lam, 1 - self.lam


@objectives.register
@dataclass(frozen=True)
class MedCLIP(LearntScale):
    """Similarities of pictures and texts must follow the similarity of their findings.

    ``s_ij = exp(theta) cos(image_i, text_j)``; ``q_i = softmax_j(l_i · m_j)``, with ``l`` the findings of pictures
    and ``m`` those of texts: 1 present, -1 absent, 0 uncertain or not mentioned; ``loss = (mean_i CE(s_i·, q_i) +
    mean_j CE(s_·j, q_j)) / 2`` (section 3.3). Labels may also be classes; then items of one class are similar.
    Without labels it is CLIP's objective, as in the authors' code.

    Follows ``_soft_clip_loss`` of the authors' code; the paper divides by the lengths of ``l`` and ``m``, which makes
    the targets nearly even. Its second term, for augmented texts, is left out. Pictures and texts need not be pairs:
    ``labels`` may be two, one for each side.

    Args:
        alike: similarity of labels: ``"dot"`` (code) or ``"cosine"`` (paper).
    """

    name: ClassVar[str] = "medclip"
    paper: ClassVar[str] = "Wang et al. 2022, arXiv:2210.10163"
    needs: ClassVar[str] = "pictures and texts, with findings or classes"
    uses_labels: ClassVar[bool] = True

    alike: Literal["dot", "cosine"] = "dot"

    def targets(self, rows: Shaped[Tensor, "a ..."], columns: Shaped[Tensor, "n ..."]) -> Float[Tensor, "a n"]:
        """Return how much each column counts as each row's answer: rows sum to 1."""
        if rows.ndim == 1:
            return (rows[:, None] == columns).float().softmax(1)
        findings, others = rows.float(), columns.float()
        if self.alike == "cosine":
            findings, others = normalize(findings, dim=1), normalize(others, dim=1)
        return (findings @ others.T).softmax(1)

    def rows(self, scores: Scores, own: Own, labels: Sides) -> Costs:
        target = own if labels is None else self.targets(*labels).to(scores)
        return cross_entropy(scores, target, reduction="none")


@objectives.register
@dataclass(frozen=True)
class GIST(Contrastive):
    """Each picture must find its own text among those of the batch, and each text its own picture.

    ``s_ij = scale cos(image_i, text_j)``; ``loss = (mean_i CE(s_i·, target_i) + mean_j CE(s_·j, target_j)) / 2``.
    In the authors' form the target of ``i`` is ``i`` alone, so another picture of the same class, and the same picture
    with another of its captions, count as wrong. Two other forms avoid that: ``"masked"`` leaves pairs of one
    class out of the comparison, ``"positive"`` makes all of them right, with equal parts (UniCL, arXiv 2204.03610).

    Differences: the scale is fixed (CLIP learns it; at the authors' rate of 1e-6 it hardly moves).

    Args:
        scale: factor on the cosines (CLIP: 100).
        same_class: how to treat other pairs of the same class (authors: ``"negative"``).
    """

    name: ClassVar[str] = "gist"
    paper: ClassVar[str] = "Lewis et al. 2023, arXiv:2307.11315"

    scale: Positive = 100.0
    same_class: SameLabel = "negative"

    def state(self) -> Temperature:
        return Fixed(self.scale)

    def rows(self, scores: Scores, own: Own, labels: Sides) -> Costs:
        what = "the class of each pair"
        return self.same_label_rows(scores, own, labels, self.same_class, what, "same_class='negative'")


@objectives.register
@dataclass(frozen=True)
class FocalLens(LearntScale):
    """Each picture, seen under an instruction, must find its answer among those of the batch, and the reverse.

    ``s_ij = exp(theta) cos(F(image_i, instruction_i), G(answer_j))``; ``loss = (mean_i CE(s_i·, i) + mean_j CE(s_·j,
    j)) / 2``, with ``theta`` learnt and bounded as CLIP's. A picture has several instructions, so its answer to one
    is wrong for another. ``G`` is the frozen text encoder. ``F`` is
    :class:`seewhy.learning.encoders.instructed.Instructed`, the encoder's last layers under the instruction's
    sentence: modulated convolutions, or a token in a vision transformer's last block. For the paper's other form, an
    unchanged multimodal language model, use the encoder ``mllm:``.

    The authors published no code; this follows the abstract and reviews. The network's own weights stay fixed; the
    authors tune them. The treatment of repeated short answers ("red") and of untrained instructions is SeeWhy's own.

    Args:
        same_answer: how to treat triplets with the same answer: left out (``"masked"``), right in equal parts
            (``"positive"``), or wrong (``"negative"``).
    """

    name: ClassVar[str] = "focallens"
    paper: ClassVar[str] = "Zhang et al. 2025, arXiv:2504.08368"
    needs: ClassVar[str] = "pictures with instructions and their answers"
    plain_pairs: ClassVar[bool] = False
    options: ClassVar[str] = (
        '--instruction COLUMN=WORDS, once or more, for example --instruction colour="the colour"; in Python, '
        'instructions={"colour": "the colour"}'
    )

    same_answer: SameLabel = "positive"

    def rows(self, scores: Scores, own: Own, labels: Sides) -> Costs:
        what = "the number of each triplet's answer"
        return self.same_label_rows(scores, own, labels, self.same_answer, what, "same_answer='negative'")


@objectives.register
@dataclass(frozen=True)
class Prefix(LearntScale):
    """Pictures find their texts, and a learnt prefix says whether a text is a class name or a caption.

    ``text_j = G([p_s(j), words_j])`` with one ``p_s`` for class names and one for captions
    (:class:`seewhy.learning.encoders.towers.PrefixedWords`); ``s_ij = exp(theta) cos(image_i, text_j)``; ``loss =
    (mean_i CE(s_i·, q_i) + mean_j CE(s_·j, q_j)) / 2``, where ``q_i`` is equal over all pairs with the label of ``i``
    (UniCL, arXiv 2204.03610) and each caption has its own label. Each batch has one source, because otherwise a text
    could be recognised by its kind instead of its meaning. At test all texts get the captions' prefix.

    The authors published no code; this follows the abstract and their blog post. Only the prefix of the batch's source
    gets gradients, so prefixes must not decay.

    Args:
        n_tokens: learnt vectors per prefix (paper: 1).
        debiased: whether each batch comes from one source.
        same_label: whether pairs with one label count as right for one another (UniCL), or only a picture's own
            text (CLIP).
    """

    name: ClassVar[str] = "prefix"
    paper: ClassVar[str] = "Saito et al. 2023, arXiv:2206.01125"
    needs: ClassVar[str] = "labelled pictures and captioned pictures"
    plain_pairs: ClassVar[bool] = False
    options: ClassVar[str] = "--column label=COLUMN and --column text=COLUMN; in Python, label= and text="

    n_tokens: Count = 1
    debiased: bool = True
    same_label: bool = True

    def rows(self, scores: Scores, own: Own, labels: Sides) -> Costs:
        form: SameLabel = "positive" if self.same_label else "negative"
        what = "the number of each pair's class, and a number of its own for each caption"
        return self.same_label_rows(scores, own, labels, form, what, "same_label=False")


@objectives.register
@dataclass(frozen=True)
class GPT4Image(Contrastive):
    """An auxiliary loss that places each picture near its own text, beside the classifier's main loss.

    It is added with weight ``lam``. With ``s_ij = cos(z_i, t_j) / tau``, ``z`` the projected features and ``t`` texts:

    * ``"clip"``: ``(mean_i CE(s_i·, i) + mean_j CE(s_·j, j)) / 2``
    * ``"ctr"``: the first half of ``"clip"``
    * ``"byol"``: ``mean_i (2 - 2 cos(z_i, t_i))``, without comparison with other texts

    Follows the authors' code on one device. As there, copies of one text in a batch count as wrong for one another.

    Args:
        form: which of the three forms (authors: ``"clip"``).
        tau: temperature (authors: 0.2 for ResNets, 0.05 for DeiT).
        lam: weight beside the cross entropy, from 0 (authors: 0.3).
    """

    name: ClassVar[str] = "gpt4image"
    paper: ClassVar[str] = "Ding et al. 2023, arXiv:2306.00693"

    form: Literal["clip", "ctr", "byol"] = "clip"
    tau: Positive = 0.2
    lam: NotNegative = 0.3

    def state(self) -> Temperature:
        return Fixed(1.0 if self.form == "byol" else 1 / self.tau)

    def weights(self) -> tuple[float, float]:
        return (0.5, 0.5) if self.form == "clip" else (1.0, 0.0)

    def rows(self, scores: Scores, own: Own, labels: Sides) -> Costs:
        if self.form == "byol":
            return 2 - 2 * scores.gather(1, own[:, None])[:, 0]
        return cross_entropy(scores, own, reduction="none")


def focal_costs(scores: Scores, own: Own, alpha: float, gamma: float) -> Costs:
    """Return ``2 sum_j w_j (1 - p_j)^gamma (-log p_j)``: each pair is a question, and easy ones count little."""
    pairs = torch.zeros_like(scores, dtype=torch.bool).scatter(1, own[:, None], True)
    right = torch.where(pairs, scores, -scores)
    cost = -(gamma * logsigmoid(-right)).exp() * logsigmoid(right)
    return 2 * torch.where(pairs, alpha * cost, (1 - alpha) * cost).sum(1)


@objectives.register
@dataclass(frozen=True)
class FocalContrastive(LearntScale):
    """Decides for each picture and each text whether they belong together, and weighs hard pairs most.

    ``loss = 2/n sum_ij w_ij (1 - p_ij)^gamma (-log p_ij)`` with ``p_ij = sigmoid(s_ij)`` for a pair,
    ``sigmoid(-s_ij)`` for all others, ``s_ij = exp(theta) cos(image_i, text_j)``, and ``w`` ``alpha`` and ``1 -
    alpha``. So rare content can be learnt from few pairs.

    Equal to the authors' ``compute_focal_contrastive_loss`` divided by the batch. Both directions are equal, so only
    one is computed. Unlike SigLIP, it has no bias.

    Args:
        alpha: weight of right pairs, 0 to 1 (authors: 0.5).
        gamma: how much easy pairs are discounted, from 0 (authors: 1); 0 is SigLIP without its bias.
    """

    name: ClassVar[str] = "focal_contrastive"
    spelt: ClassVar[str] = "focal contrastive"
    paper: ClassVar[str] = "Kim et al. 2023, arXiv:2305.07011"

    alpha: Part = 0.5
    gamma: NotNegative = 1.0

    def weights(self) -> tuple[float, float]:
        return 1.0, 0.0

    def rows(self, scores: Scores, own: Own, labels: Sides) -> Costs:
        return focal_costs(scores, own, self.alpha, self.gamma)


@objectives.register
@dataclass(frozen=True)
class DITO(LearntScale, RandomBoxes):
    """Teaches a detector's heads from captions: features of random boxes must find the picture's text.

    ``v_l = max_r head(box_r on level l)``, the elementwise maximum over random boxes ``r`` on each level ``l`` of the
    pyramid. The loss is ``L(whole pictures, texts) + level_weight mean_l L(v_l, texts)``, with ``L`` CLIP's symmetric
    cross entropy over the batch, or RO-ViT's focal loss, at one learnt temperature.

    The authors published the detector but not this training. It follows their abstracts; the number of boxes, their
    distribution, and the weights of the terms are SeeWhy's. The heads are saved with the encoder, for ``seewhy fit
    --task boxes --method dito``. Cost: no pass; ``3 n_boxes`` small heads per picture.

    Args:
        loss: ``"softmax"`` or ``"focal"`` (alpha 0.5, gamma 1).
        n_boxes: boxes drawn per picture.
        smallest: smallest side of a box, as a share of the picture's side.
        level_weight: weight of single levels beside the whole, from 0.
    """

    name: ClassVar[str] = "dito"
    spelt: ClassVar[str] = "DITO"
    paper: ClassVar[str] = "Kim et al. 2023, arXiv:2310.00161"

    loss: Literal["softmax", "focal"] = "softmax"
    n_boxes: Count = 6
    smallest: SomePart = 0.2
    level_weight: NotNegative = 1.0

    def weights(self) -> tuple[float, float]:
        return (0.5, 0.5) if self.loss == "softmax" else (1.0, 0.0)

    def rows(self, scores: Scores, own: Own, labels: Sides) -> Costs:
        if self.loss == "softmax":
            return cross_entropy(scores, own, reduction="none")
        return focal_costs(scores, own, 0.5, 1.0)
