"""Objectives on pairs of a picture and a text."""

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
    """Symmetric cross entropy between the pictures and the texts of a batch (the default).

        s_ij = exp(theta) cos(image_i, text_j)
        loss = (mean_i CE(s_i·, i) + mean_j CE(s_·j, j)) / 2

    * ``s_ij``: score of picture ``i`` and text ``j``; ``s_i·`` is a row and ``s_·j`` a column.
    * ``CE(s, i)``: cross entropy of the scores ``s`` if ``i`` is correct.
    * ``theta``: logarithm of the scale, learnt.

    Follows section 2.3 of the paper. Loss and gradients equal ``open_clip.loss.ClipLoss``, even over several processes.
    If two pairs have the same text, each text counts as wrong for the other picture. At random initialisation, the loss
    is about ``ln(batch_size)``.

    Example:
        >>> round(float(CLIP(temperature=1.0)(torch.eye(2), torch.eye(2))), 4)  # log(1 + exp(-1))
        0.3133
    """

    name: ClassVar[str] = "clip"
    paper: ClassVar[str] = "Radford et al. 2021, arXiv:2103.00020"


@objectives.register
@dataclass(frozen=True)
class SigLIP(Contrastive):
    """Sigmoid loss over all combinations of a picture and a text.

        s_ij = exp(t) cos(image_i, text_j) + b
        loss = -1/n sum_ij log sigmoid(z_ij s_ij)

    * ``z_ij``: 1 if picture ``i`` and text ``j`` are a pair, otherwise -1.
    * ``t``, ``b``: logarithm of the scale, and bias, both learnt; ``n``: number of pairs.

    Follows equation 1 and algorithm 1 of the paper. The paper has no ``max_scale``. Loss and gradients equal
    ``open_clip.loss.SigLipLoss``, even over several processes.

    Args:
        scale: initial factor on the cosines (paper: 10).
        bias: initial bias (paper: −10).
        max_scale: largest factor on the cosines.
    """

    name: ClassVar[str] = "siglip"
    paper: ClassVar[str] = "Zhai et al. 2023, arXiv:2303.15343"

    scale: Scale = 10.0
    bias: Finite = -10.0
    max_scale: Scale = 100.0

    def check(self) -> None:
        if self.scale > self.max_scale:
            raise self.refusal("scale", "max_scale", expected="scale must be at most max_scale")

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
    """Cross entropy in both directions with label smoothing.

        s_ij = cos(image_i, text_j) / sigma
        loss = mean_i CE(s_i·, q_i) + mean_j CE(s_·j, q_j)

    * ``CE(s, q)``: cross entropy of the scores ``s`` with the target distribution ``q``.
    * ``sigma``: learnt temperature; ``q_i``: one-hot target at ``i`` with label smoothing.

    Follows equations 1 and 2 of the paper; the authors published no code. The implementation in transformers averages
    the two directions, so the loss there is half as large.

    Args:
        temperature: initial temperature (paper: 1).
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
    """Weighted cross entropy in both directions between pictures and sentences of their reports.

        s_ij = cos(image_i, text_j) / tau
        loss = lam mean_i CE(s_i·, i) + (1 - lam) mean_j CE(s_·j, j)

    * ``tau``: fixed temperature; ``lam``: weight of the direction from pictures to sentences.

    Follows equations 2 to 4 of the paper; the authors published no training code. Each step draws one sentence per
    report. If two reports have the same sentence ("no effusion"), each counts as wrong for the other picture. The loss
    equals ``NTXentLoss`` of the most used reimplementation, in which the text encoder gets no gradient.

    Args:
        temperature: fixed temperature ``tau`` (paper: 0.1).
        lam: weight of the direction from pictures to sentences, 0 to 1 (paper: 0.75).
        spans: text to draw from a report: one ``"sentence"``, or the whole ``"text"``.
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
    """Cross entropy in both directions with soft targets from the similarity of findings.

        s_ij = exp(theta) cos(image_i, text_j)
        q_i  = softmax_j(l_i · m_j)
        loss = (mean_i CE(s_i·, q_i) + mean_j CE(s_·j, q_j)) / 2

    * ``theta``: logarithm of the scale, learnt.
    * ``l_i``, ``m_j``: findings of picture ``i`` and text ``j``, each 1 (present), -1 (absent) or 0 (uncertain, not
      mentioned).

    Follows section 3.3 of the paper and ``_soft_clip_loss`` of the authors' code. Where SeeWhy differs: ``l`` and ``m``
    are not normalised, because the paper's normalisation makes the targets nearly uniform, and the code's second term,
    for augmented texts, is left out. Instead of findings, labels may be
    class indices. For unpaired pictures and texts, they are two sets, one for each. Without labels, the loss is CLIP's.

    Args:
        alike: similarity of findings: ``"dot"`` (authors' code) or ``"cosine"`` (paper).
    """

    name: ClassVar[str] = "medclip"
    paper: ClassVar[str] = "Wang et al. 2022, arXiv:2210.10163"
    needs: ClassVar[str] = "pictures and texts, with findings or classes"
    uses_labels: ClassVar[bool] = True

    alike: Literal["dot", "cosine"] = "dot"

    def targets(self, rows: Shaped[Tensor, "a ..."], columns: Shaped[Tensor, "n ..."]) -> Float[Tensor, "a n"]:
        """Return the target distribution over columns for each row."""
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
    """Symmetric cross entropy that can treat other pairs of the same class as correct.

        s_ij = scale cos(image_i, text_j)
        loss = (mean_i CE(s_i·, target_i) + mean_j CE(s_·j, target_j)) / 2

    * ``target_i``: target distribution of picture or text ``i``, which ``same_class`` determines.
    * ``same_class="negative"`` (authors): only pair ``i`` is correct, even if other pairs have the same class or
      picture.
    * ``"masked"``: other pairs of the same class are left out.
    * ``"positive"``: all pairs of the same class are equally correct (UniCL, arXiv 2204.03610).

    Where SeeWhy differs: the scale is fixed. The authors learn the scale, but at their learning rate of 1e-6 it hardly
    changes.

    Args:
        scale: factor on the cosines (CLIP: 100).
        same_class: treatment of other pairs of the same class (authors: ``"negative"``).
    """

    name: ClassVar[str] = "gist"
    paper: ClassVar[str] = "Lewis et al. 2023, arXiv:2307.11315"

    scale: Positive = 100.0
    same_class: SameLabel = "negative"

    def state(self) -> Temperature:
        return Fixed(self.scale)

    def rows(self, scores: Scores, own: Own, labels: Sides) -> Costs:
        what = "a class label for each pair"
        return self.same_label_rows(scores, own, labels, self.same_class, what, "same_class='negative'")


@objectives.register
@dataclass(frozen=True)
class FocalLens(LearntScale):
    """Contrastive loss between a picture, encoded with an instruction, and the text of the answer.

        s_ij = exp(theta) cos(F(image_i, instruction_i), G(answer_j))
        loss = (mean_i CE(s_i·, i) + mean_j CE(s_·j, j)) / 2

    * ``theta``: logarithm of the scale, learnt and bounded as in CLIP.
    * ``F``: encoder whose last layers depend on the instruction
      (:class:`seewhy.learning.encoders.instructed.Instructed`).
    * ``G``: frozen text encoder.

    Answers to other instructions about the same picture count as wrong. The authors published no code; the loss follows
    the abstract and reviews. Where SeeWhy differs: the authors also train the weights of the image encoder.

    Args:
        same_answer: treatment of other triplets (picture, instruction, answer) with the same answer: left out
            (``"masked"``), equally correct (``"positive"``) or wrong (``"negative"``).
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
        what = "an answer label for each triplet"
        return self.same_label_rows(scores, own, labels, self.same_answer, what, "same_answer='negative'")


@objectives.register
@dataclass(frozen=True)
class Prefix(LearntScale):
    """Symmetric cross entropy, with a learnt prefix before class names and another prefix before captions.

        text_j = G([p_s(j), words_j])
        s_ij   = exp(theta) cos(image_i, text_j)
        loss   = (mean_i CE(s_i·, q_i) + mean_j CE(s_·j, q_j)) / 2

    * ``G``: text encoder; ``theta``: logarithm of the scale, learnt.
    * ``p_s(j)``: learnt prefix for the source of text ``j``, class names or captions
      (:class:`seewhy.learning.encoders.towers.PrefixedWords`).
    * ``q_i``: uniform distribution over all pairs with the label of pair ``i`` (UniCL, arXiv 2204.03610). Each caption
      counts as a different label.

    The texts of a batch all come from the same source; otherwise the style of a text would reveal its source. At test
    time, all texts get the caption prefix. Do not apply weight decay to the prefixes, because the prefix of the other
    source gets no gradient in a step. The authors published no code; the loss follows the abstract and their blog post.

    Args:
        n_tokens: number of learnt vectors per prefix (paper: 1).
        debiased: whether all texts of a batch come from the same source.
        same_label: whether all pairs with the same label are correct (UniCL), or only a picture's own text (CLIP).
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
        what = "a class label for each pair, and a unique label for each caption"
        return self.same_label_rows(scores, own, labels, form, what, "same_label=False")


@objectives.register
@dataclass(frozen=True)
class GPT4Image(Contrastive):
    """Auxiliary loss between pictures and their texts, which is added to a classifier's cross entropy.

        s_ij = cos(z_i, t_j) / tau

    ``z_i`` are the projected features of picture ``i``, ``t_j`` the features of text ``j``, and ``CE(s, i)`` is the
    cross entropy of the scores ``s`` if ``i`` is correct. The loss depends on ``form``:

    * ``"clip"``: ``(mean_i CE(s_i·, i) + mean_j CE(s_·j, j)) / 2``
    * ``"ctr"``: ``mean_i CE(s_i·, i) / 2``
    * ``"byol"``: ``mean_i (2 - 2 cos(z_i, t_i))``

    Follows the authors' code for a single device.

    Args:
        form: ``"clip"`` (authors), ``"ctr"`` or ``"byol"``.
        tau: temperature (authors: 0.2 for ResNets, 0.05 for DeiT).
        lam: weight of this loss, at least 0 (authors: 0.3).
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
    """Return the focal loss of each row of scores; see :class:`FocalContrastive`."""
    pairs = torch.zeros_like(scores, dtype=torch.bool).scatter(1, own[:, None], True)
    right = torch.where(pairs, scores, -scores)
    cost = -(gamma * logsigmoid(-right)).exp() * logsigmoid(right)
    return 2 * torch.where(pairs, alpha * cost, (1 - alpha) * cost).sum(1)


@objectives.register
@dataclass(frozen=True)
class FocalContrastive(LearntScale):
    """Focal loss over all combinations of a picture and a text.

        s_ij = exp(theta) cos(image_i, text_j)
        loss = 2/n sum_ij w_ij (1 - p_ij)^gamma (-log p_ij)

    * ``p_ij``: ``sigmoid(s_ij)`` if picture ``i`` and text ``j`` are a pair, otherwise ``sigmoid(-s_ij)``.
    * ``w_ij``: ``alpha`` for a pair, otherwise ``1 - alpha``.
    * ``theta``: logarithm of the scale, learnt; ``n``: number of pairs.

    The loss equals the authors' ``compute_focal_contrastive_loss`` divided by the batch size. Unlike SigLIP, it has no
    bias.

    Args:
        alpha: weight of pairs, 0 to 1 (authors: 0.5).
        gamma: focusing exponent, at least 0 (authors: 1); 0 is SigLIP's loss without the bias.
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
    """Contrastive training of a detector's heads on random boxes and captions.

        v_l  = max_r head(box_r on level l)
        loss = L(whole pictures, texts) + level_weight mean_l L(v_l, texts)

    * ``v_l``: picture vector from level ``l`` of the feature pyramid: the elementwise maximum over random boxes ``r``.
    * ``head``: detection head, which maps a box to a vector.
    * ``L``: CLIP's symmetric cross entropy or RO-ViT's focal loss; all terms share a learnt temperature.

    The heads are saved with the encoder, for ``seewhy fit --task boxes --method dito``. The authors published the code
    of the detector but not of this training, so the loss follows their abstracts.

    Each picture takes ``3 n_boxes`` evaluations of a small head, and no additional pass of the encoder.

    Args:
        loss: ``"softmax"`` or ``"focal"`` (alpha 0.5, gamma 1).
        n_boxes: number of random boxes per picture and level.
        smallest: smallest side of a box, as a fraction of the picture's side.
        level_weight: weight of the losses of the pyramid levels, at least 0.
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
