import numpy as np
import pytest

from autocompress.errors import ParityError
from autocompress.export.parity import Tolerance, compare, gate

RNG = np.random.default_rng(0)
LOGITS = {ids: RNG.standard_normal((1, 3)).astype(np.float32) for ids in range(5)}
INPUTS = [(np.array([[ids]]), np.ones((1, 1), np.int64)) for ids in LOGITS]
SPREAD = float(np.ptp(np.concatenate(list(LOGITS.values())).astype(np.float64)))
TOLERANCE = Tolerance(max_abs_logit=0.02, metric_drop_points=0.5)


def student(ids, mask):
    return LOGITS[int(ids[0, 0])]


def shifted(by: float):
    return lambda ids, mask: student(ids, mask) + np.array([[by, 0, 0]], np.float32)


def found(artifact, scores=(0.9, 0.9)):
    return compare("onnxruntime", student, artifact, INPUTS, scores=scores, tolerance=TOLERANCE)


def test_an_equal_artifact_passes_with_no_difference():
    parity = found(student)
    assert (parity.max_abs_logit_diff, parity.argmax_agreement, parity.inputs) == (0.0, 1.0, 5)
    assert parity.logit_tolerance == pytest.approx(0.02 * SPREAD)
    gate(parity)


def test_the_largest_difference_of_any_logit_decides():
    assert found(shifted(0.25)).max_abs_logit_diff == pytest.approx(0.25, rel=1e-5)
    gate(found(shifted(0.019 * SPREAD)))
    with pytest.raises(ParityError, match="onnxruntime"):
        gate(found(shifted(0.021 * SPREAD)))


def test_a_loss_of_the_metric_beyond_tolerance_fails_and_a_gain_does_not():
    gate(found(student, scores=(0.9, 0.895)))
    gate(found(student, scores=(0.9, 0.95)))
    with pytest.raises(ParityError, match=r"0\.8940"):
        gate(found(student, scores=(0.9, 0.894)))


def test_logits_that_are_no_numbers_fail():
    with pytest.raises(ParityError):
        gate(found(shifted(np.nan)))


def test_agreement_counts_equal_answers():
    flipped = [int(np.argmax(LOGITS[i] * [[-1, -1, -1]])) == int(np.argmax(LOGITS[i])) for i in LOGITS]
    assert found(lambda ids, mask: -student(ids, mask)).argmax_agreement == np.mean(flipped)
