"""The parity gate: an exported artifact against the torch student, on real inputs. Beyond tolerance is an error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite, log, sqrt

import numpy as np

from autocompress.errors import ParityError
from autocompress.feeds import Feeds, Run
from autocompress.shape import ModelShape

FLIPS = 1 / 16
"""Share of the inputs on which what is rounded to the other side may move a logit of a quantized student further."""
BF16_ERROR = 2**-8 / sqrt(3) * sqrt(3 / (8 * log(2)))
"""Relative error of a value that is rounded to bfloat16, root mean square."""


@dataclass(frozen=True)
class Tolerance:
    """How far an artifact may be from its student.

    Attributes:
        max_abs_logit: Largest difference of a logit, as a share of the spread (largest minus smallest) of the
            student's logits.
        metric_drop_points: Largest loss of the metric, in points.
        excused: Share of the inputs whose logits may differ more (0 to 1).
    """

    max_abs_logit: float
    metric_drop_points: float
    excused: float = 0.0


def allow_bf16(tolerance: Tolerance, shape: ModelShape) -> Tolerance:
    """Return ``tolerance``, with what the rounding of activations to bfloat16 may move a logit.

    Students multiply 16-bit weights by f32 activations, and so does ONNX Runtime; TVM rounds these activations to
    bfloat16 where the processor has such products. Rounding to 8 significant bits is off by up to 2^-8 of the power of
    two below, evenly spread: 2^-8 / sqrt(3) * sqrt(3 / (8 ln 2)) = 0.0017 of a value whose digits are spread evenly
    (root mean square). Products of n maps, each with its own errors, add up to 0.0017 sqrt(n) of a logit; the spread
    that a share is of is at least two deviations of the logits, and among some hundred logits the largest error is
    below four: 0.0033 sqrt(n) of the spread. Attention that jumps between tokens can amplify more than that.
    """
    bits = [width for layer in shape.layers for width in layer.bits] + 2 * [shape.head_bits]
    maps = bits.count(16)
    return replace(tolerance, max_abs_logit=tolerance.max_abs_logit + 2 * BF16_ERROR * sqrt(maps))


def allow_flips(tolerance: Tolerance, shape: ModelShape) -> Tolerance:
    """Return ``tolerance``, with the share of inputs on which rounding may have decided otherwise than in the student.

    Where activations are quantized, a value at the edge of a step falls to either side by its last bit, and what
    follows differs; where layers also select tokens, it decides now and then which of two nearly equal ones goes on. Of
    400 documents, 2 differed by more than 2 % of the spread (MiniLM on Reuters, three layers of int8, ONNX Runtime),
    and 1 where noise of one f32 rounding (2e-7) was added to the student's own norms; of 400 sentences, 3 to 4 by more
    than 4 % (SST-2, half of 32 tokens left). What computes something else differs on most of them.
    """
    narrowest = min(shape.head_bits, *(min(layer.bits) for layer in shape.layers))
    selects = any(layer.most_tokens > 1 for layer in shape.layers)
    return replace(tolerance, excused=FLIPS) if narrowest < (32 if selects else 16) else tolerance


@dataclass(frozen=True)
class Parity:
    """What the comparison found.

    Attributes:
        engine: Engine that ran the artifact.
        max_abs_logit_diff: Largest difference of any logit.
        logit_tolerance: Largest that is allowed.
        argmax_agreement: Share of inputs with the same answer (0 to 1).
        inputs: How many inputs were compared.
        student_score: Metric of the torch student (0 to 1).
        artifact_score: Metric of the artifact on the same documents (0 to 1).
        metric_tolerance: Largest allowed loss of the metric (0 to 1).
        beyond: Inputs with a logit that differs more than allowed.
        excused: How many of them may be.
    """

    engine: str
    max_abs_logit_diff: float
    logit_tolerance: float
    argmax_agreement: float
    inputs: int
    student_score: float
    artifact_score: float
    metric_tolerance: float
    beyond: int = 0
    excused: int = 0

    @property
    def passed(self) -> bool:
        """Whether logits and metric are both within tolerance."""
        loss = self.student_score - self.artifact_score
        close = isfinite(self.max_abs_logit_diff) and self.beyond <= self.excused
        return close and loss <= self.metric_tolerance + 1e-12


def compare(
    engine: str,
    student: Run,
    artifact: Run,
    inputs: Sequence[Feeds],
    *,
    scores: tuple[float, float],
    tolerance: Tolerance,
) -> Parity:
    """Run both on ``inputs``, one document at a time, and compare.

    Args:
        engine: Engine that runs the artifact.
        student: The torch student.
        artifact: The opened artifact.
        inputs: Real documents, one in each.
        scores: Metric of student and artifact on the evaluation documents (0 to 1).
        tolerance: What is allowed.
    """
    pairs = [(student(feeds), artifact(feeds)) for feeds in inputs]
    expected, found = (np.concatenate(side).astype(np.float64) for side in zip(*pairs, strict=True))
    differences = np.abs(found - expected).max(axis=1) if np.isfinite(found).all() else np.full(len(found), np.inf)
    logit_tolerance = float(tolerance.max_abs_logit * np.ptp(expected))
    return Parity(
        engine=engine,
        max_abs_logit_diff=float(differences.max()),
        logit_tolerance=logit_tolerance,
        argmax_agreement=float((expected.argmax(1) == found.argmax(1)).mean()),
        inputs=len(inputs),
        student_score=scores[0],
        artifact_score=scores[1],
        metric_tolerance=tolerance.metric_drop_points / 100,
        beyond=int((differences > logit_tolerance).sum()),
        excused=int(tolerance.excused * len(inputs)),
    )


def gate(parity: Parity) -> None:
    """Let the artifact through, or raise.

    Raises:
        ParityError: Logits or metric are beyond tolerance.
    """
    if not parity.passed:
        raise ParityError(
            f"The {parity.engine} artifact differs from its student: a logit by {parity.max_abs_logit_diff:.3g}"
            f" ({parity.beyond} of {parity.inputs} documents are beyond tolerance),"
            f" the metric {parity.artifact_score:.4f} against {parity.student_score:.4f}.",
            right=f"Logits within {parity.logit_tolerance:.3g} and the metric within"
            f" {100 * parity.metric_tolerance:g} points are allowed.",
            next_step="Run autocompress doctor and report the artifact; raise export.parity only if you know why.",
        )
