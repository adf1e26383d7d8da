from dataclasses import replace

import numpy as np
import pytest

from autocompress.compiler.graph import emit, random_weights, round_bf16
from autocompress.errors import ParityError
from autocompress.export.parity import BF16_ERROR, Tolerance, allow_bf16, allow_flips, compare, gate
from autocompress.feeds import of_text
from autocompress.shape import LayerShape, ModelShape, by_block
from tests.compiler.numpy_graph import NumpyGraph, reference

RNG = np.random.default_rng(0)
LOGITS = {ids: RNG.standard_normal((1, 3)).astype(np.float32) for ids in range(5)}
INPUTS = [of_text(np.array([[ids]])) for ids in LOGITS]
SPREAD = float(np.ptp(np.concatenate(list(LOGITS.values())).astype(np.float64)))
TOLERANCE = Tolerance(max_abs_logit=0.02, metric_drop_points=0.5)


def student(given):
    return LOGITS[int(given["input_ids"][0, 0])]


def shifted(by: float):
    return lambda given: student(given) + np.array([[by, 0, 0]], np.float32)


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
    assert found(lambda given: -student(given)).argmax_agreement == np.mean(flipped)


def at(bits):
    return replace(SHAPE, layers=tuple(layer.with_bits(*by_block(bits, bits)) for layer in SHAPE.layers))


def test_where_rounding_decides_one_document_in_sixteen_may_differ():
    tolerance = allow_flips(TOLERANCE, at(8))
    assert tolerance.excused == 1 / 16
    assert allow_flips(TOLERANCE, at(16).with_schedule(0.5, 16)) == tolerance
    for same in (at(32), at(32).with_schedule(0.5, 16), at(16), at(16).with_schedule(1.0, 16)):
        assert allow_flips(TOLERANCE, same) == TOLERANCE
    inputs = [of_text(np.array([[place]])) for place in range(32)]

    def logits(given):
        return np.array([[1.0, -1.0]], np.float32)

    def parity(wrong, by=1.0):
        def artifact(given):
            return logits(given) + (by if given["input_ids"][0, 0] < wrong else 0.0)

        return compare("tvm", logits, artifact, inputs, scores=(0.9, 0.9), tolerance=tolerance)

    assert [parity(wrong).beyond for wrong in (0, 2, 3)] == [0, 2, 3]
    assert [parity(wrong).passed for wrong in (0, 2, 3)] == [True, True, False]
    assert not parity(1, by=np.inf).passed


def test_the_error_of_bfloat16_is_the_one_of_values_of_every_size():
    values = np.exp2(RNG.uniform(-8, 8, 200_000)).astype(np.float32)
    found = np.sqrt(np.mean((round_bf16(values) / values.astype(np.float64) - 1) ** 2))
    assert found == pytest.approx(BF16_ERROR, rel=0.02)


SHAPE = ModelShape("bert", 200, 16, 64, 64, (LayerShape(4, 16, 256, *by_block(16, 16)),) * 6, classes=2)


def test_activations_may_be_rounded_in_maps_of_sixteen_bits_only():
    eight = replace(SHAPE, layers=tuple(layer.with_bits(*by_block(8, 32)) for layer in SHAPE.layers))
    assert allow_bf16(TOLERANCE, eight) == TOLERANCE
    half = replace(
        SHAPE, layers=tuple(replace(layer, attention_in_bits=8, attention_out_bits=8) for layer in SHAPE.layers)
    )
    more = [allow_bf16(TOLERANCE, shape).max_abs_logit - TOLERANCE.max_abs_logit for shape in (half, SHAPE)]
    assert more == pytest.approx([2 * BF16_ERROR * np.sqrt(12), 2 * BF16_ERROR * np.sqrt(24)])


class Rounding(NumpyGraph):
    """What an engine computes that multiplies bfloat16 by bfloat16."""

    def linear(self, x, name, bits, activation=None, **options):
        x = round_bf16(x.astype(np.float32)) if bits == 16 else x
        return super().linear(x, name, bits, activation, **options)


def test_an_engine_that_rounds_activations_passes_where_only_that_is_allowed():
    # 0.03 * 4 * sqrt(64): linear maps keep the size of what they read.
    weights = {
        name: round_bf16(values * 4) if name.startswith("layers") and values.ndim == 2 else values
        for name, values in random_weights(SHAPE).items()
    }
    documents = [of_text(RNG.integers(0, 200, (1, 12))) for _ in range(24)]

    def rounding(given):
        return emit(Rounding(weights, *given.values()), SHAPE)

    def run(given):
        return reference(SHAPE, weights, *given.values())

    def parity(tolerance):
        return compare("tvm", run, rounding, documents, scores=(0.9, 0.9), tolerance=tolerance)

    gate(parity(allow_bf16(replace(TOLERANCE, max_abs_logit=0.0), SHAPE)))
    assert not parity(replace(TOLERANCE, max_abs_logit=2**-10)).passed
