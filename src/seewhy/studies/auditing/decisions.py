"""Figures of decisions: right, calibrated, as sure as promised, and of pictures that can be read at all."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ...evaluation.trust import trust_figures
from ...metrics.calibration import calibration_error, reliability
from .check import Check, Material, share
from .limit import Figure, Limit, missing

N_DRAWS, N_BINS = 500, 15


class Accuracy(Check):
    """Part of the decisions that are right; interval by Wilson."""

    name, title = "accuracy", "Accuracy"
    told = "Part of the pictures that are decided rightly."
    side, preset, bound = "at_least", 0.8, "worst"

    def measure(self, material: Material, limit: Limit) -> Figure:
        right = material.right
        return share(right, f"{int(right.sum())} of {len(right)} pictures are decided rightly.")


class CalibrationError(Check):
    """Expected calibration error (Guo et al. 2017, arXiv:1706.04599) in 15 bins; interval by resampling pictures.

    It is never 0 on few pictures, so what a perfectly calibrated model with these confidences would show stands beside
    it.
    """

    name, title = "calibration_error", "Calibration error"
    told = "Mean gap between how sure decisions are and how often they are right (ECE); few pictures make it larger."
    side, preset = "at_most", 0.15

    def measure(self, material: Material, limit: Limit) -> Figure:
        confidence = material.logits.softmax(1).max(1).values
        value = calibration_error(reliability(confidence, material.right, N_BINS))
        generator = torch.Generator().manual_seed(material.seed)
        n = len(confidence)
        drawn = torch.randint(n, (N_DRAWS, n), generator=generator)
        again = _errors(confidence[drawn], material.right[drawn])
        lucky = _errors(confidence.expand(N_DRAWS, n), torch.rand(N_DRAWS, n, generator=generator) < confidence)
        low, high = torch.quantile(again, torch.tensor([0.025, 0.975])).tolist()
        usual = float(lucky.mean())
        return Figure(
            value,
            (min(low, value), max(high, value)),
            n,
            f"How sure a decision is and how often it is right differ by {value:.3f} on average; on {n} pictures a "
            f"perfectly calibrated model would show {usual:.3f}.",
        )


def _errors(confidence: Float[Tensor, "d n"], right: Bool[Tensor, "d n"]) -> Float[Tensor, " d"]:
    """Calibration errors of many sets at once."""
    place = (confidence * N_BINS).long().clamp(0, N_BINS - 1)
    sums = torch.zeros(len(confidence), N_BINS).scatter_add_(1, place, confidence - right.float())
    return sums.abs().sum(1) / confidence.shape[1]


class Coverage(Check):
    """How often the true class is among those that a decision names, where the limit is what is promised."""

    name, title = "coverage", "Promise kept"
    told = "How often the true class is among those that a decision names; the limit is also the promise, 0.5 to 0.99."
    side, preset, bound = "at_least", 0.9, "best"
    low, high = 0.5, 0.99

    def measure(self, material: Material, limit: Limit) -> Figure:
        found = trust_figures(material.classifier, material.pooled, material.logits, material.labels, level=limit.value)
        low, high = found["coverage_interval"]
        by = "on held-out pictures" if found["by"] == "held-out pictures" else "by its own probability"
        return Figure(
            found["coverage"],
            (low, high),
            len(material.labels),
            f"{limit.value:.0%} were promised {by}; a decision names {found['set_size']:.2f} classes on average.",
        )


class UnseenSure(Check):
    """Of pictures of classes that were left out of the fit in turn, the share called sure (measured while fitting)."""

    name, title = "unseen_sure", "Sure of what it never saw"
    told = "Part of the pictures of a class left out of the fit that are called sure; measured when it was fitted."
    side, preset, bound, required = "at_most", 0.3, "best", False

    def measure(self, material: Material, limit: Limit) -> Figure:
        trust = material.classifier.measured_trust
        found = None if trust is None else trust.unknowns
        if found is None or found.near_found is None:
            return missing("It was fitted on too few pictures, or on fewer than three classes.")
        return Figure(
            found.near_sure, found.near_sure_interval, found.n_near, f"{found.near_found:.0%} of them are noticed."
        )


class Unreadable(Check):
    """Pictures that cannot be read, counted."""

    name, title = "unreadable", "Pictures that cannot be read"
    told = "Part of the pictures that cannot be read."
    side, preset = "at_most", 0.0

    def measure(self, material: Material, limit: Limit) -> Figure:
        n, failed = len(material.items) + material.n_unreadable, material.n_unreadable
        return Figure(failed / n, None, n, f"{failed} of {n} pictures cannot be read.")
