from __future__ import annotations

from dataclasses import replace

import pytest

from autocompress.errors import UnsupportedError
from autocompress.predictors.features import columns, features
from autocompress.predictors.roofline import EFFICIENCY, LABEL, LATENCY_FACTORS, Peak, Roofline
from autocompress.predictors.sampling import Variety, corners
from autocompress.shape import BITS
from tests.predictors.synthetic import TEACHER, TOKENS, as_stored, true_bytes

BOARD = Roofline("my-board", "onnxruntime", 4, Peak(4, 1.5, 16, 32, 4.0))


def latency(roofline: Roofline = BOARD, shape=TEACHER, tokens: int = TOKENS) -> float:
    return roofline.predict(shape, tokens).latency_p50_ms.value


def with_peak(**changes: float) -> Roofline:
    return replace(BOARD, peak=replace(BOARD.peak, **changes))


def test_an_estimate_says_that_it_is_not_calibrated():
    cost = BOARD.predict(TEACHER, TOKENS)
    assert not cost.calibrated
    assert LABEL in cost.source
    assert cost.latency_p50_ms.low == pytest.approx(LATENCY_FACTORS[0] * cost.latency_p50_ms.value)
    assert cost.latency_p50_ms.high == pytest.approx(LATENCY_FACTORS[1] * cost.latency_p50_ms.value)
    assert cost.latency_p95_ms.value > cost.latency_p50_ms.value


def test_no_device_is_faster_than_its_arithmetic_or_its_memory_allows():
    layers = len(TEACHER.layers) * (4 * 128 * 128 + 2 * 128 * 512)
    flops = 2 * TOKENS * layers
    assert latency() > 1e3 * flops / (4 * 1.5e9 * 16)
    assert latency(tokens=1) > 1e3 * 4 * layers / 4.0e9


@pytest.mark.parametrize("better", [{"ghz": 3.0}, {"f32_flops_per_cycle": 32}, {"cores": 8}])
def test_a_processor_that_computes_more_is_faster(better):
    plain = replace(BOARD, threads=8, peak=replace(BOARD.peak, bandwidth_gb_s=20.0))
    assert latency(replace(plain, peak=replace(plain.peak, **better))) < latency(plain)


def test_a_model_that_reads_its_weights_for_few_tokens_gains_from_bandwidth():
    assert latency(with_peak(bandwidth_gb_s=8.0), tokens=1) < latency(tokens=1)


def test_threads_beyond_the_cores_bring_nothing():
    assert latency(replace(BOARD, threads=8)) == latency()
    assert latency(replace(BOARD, threads=1)) > latency()


def test_int8_pays_only_where_the_processor_has_fast_int8():
    wide, int8, _ = corners(TEACHER)[:3]
    fast, slow = (with_peak(int8_ops_per_cycle=operations, bandwidth_gb_s=20.0) for operations in (64, 16))
    assert latency(fast, int8) < latency(fast, wide)
    assert latency(slow, int8) > latency(slow, wide)


@pytest.mark.parametrize("engine", EFFICIENCY)
def test_four_bits_gain_from_fast_int8_but_less_than_eight(engine):
    _, int8, int4 = corners(TEACHER)[:3]
    fast, slow = (replace(with_peak(int8_ops_per_cycle=operations), engine=engine) for operations in (64, 16))
    assert latency(fast, int8) < latency(fast, int4) < latency(slow, int4)


@pytest.mark.parametrize("engine", EFFICIENCY)
def test_sixteen_bits_cost_the_arithmetic_of_floats_and_fewer_than_eight_that_of_integers(engine):
    board = replace(with_peak(bandwidth_gb_s=1000.0), engine=engine)
    wide, half, int8, int4, int3, int2 = corners(TEACHER, Variety(bits=BITS))[:6]
    assert latency(board, half) == pytest.approx(latency(board, wide))
    assert latency(board, int8) < latency(board, int4) <= latency(board, int3) <= latency(board, int2)


def test_fixed_ranges_start_fewer_kernels():
    int8 = corners(TEACHER)[1]
    shapes = [int8.with_activations(kind) for kind in ("dynamic", "smoothed", "static")]
    assert int8.layers[0].ffn_in_bits == 8
    assert latency(BOARD, shapes[0]) > latency(BOARD, shapes[1]) > latency(BOARD, shapes[2])


@pytest.mark.parametrize("engine", EFFICIENCY)
def test_eight_bits_read_a_token_are_multiplied_as_fewer_bits_are(engine):
    board, int8 = replace(BOARD, engine=engine), corners(TEACHER)[1]
    four, token = (latency(board, shape) for shape in (corners(TEACHER)[2], int8.with_activations("token")))
    assert token == pytest.approx(four)


def test_onnxruntime_holds_weights_of_sixteen_and_three_bits_wider_and_tvm_as_they_are():
    def without_activations(engine, shape):
        held = float(columns(features(shape, TOKENS), ("activation_bytes",))[0])
        return replace(BOARD, engine=engine).predict(shape, TOKENS).peak_memory_bytes.value - 2 * held

    def weights(engine, bits):
        shape = replace(
            TEACHER, layers=tuple(replace(layer, ffn_in_bits=bits, ffn_out_bits=bits) for layer in TEACHER.layers)
        )
        empty = replace(
            TEACHER, layers=tuple(replace(layer, ffn_in_bits=32, ffn_out_bits=32, ffn=1) for layer in TEACHER.layers)
        )
        return without_activations(engine, shape) - without_activations(engine, empty)

    assert weights("onnxruntime", 16) == pytest.approx(weights("onnxruntime", 32))
    stored = 4 * 2 * 128 * 512 * len(TEACHER.layers)
    assert weights("tvm", 32) - weights("tvm", 16) == pytest.approx(1.1 * stored / 2)
    # Three bits are four in ONNX Runtime.
    assert weights("onnxruntime", 3) == pytest.approx(weights("onnxruntime", 4))
    assert weights("tvm", 4) - weights("tvm", 3) == pytest.approx(1.1 * stored / 32)


def test_size_is_known_and_memory_holds_the_weights_and_the_process():
    for shape in corners(TEACHER, Variety(bits=BITS)):
        cost, stored = BOARD.predict(shape, TOKENS), as_stored(shape)
        assert cost.size_bytes.low <= true_bytes(stored) + 2500 * len(shape.layers) <= cost.size_bytes.high
        assert cost.peak_memory_bytes.value > EFFICIENCY["onnxruntime"].process_bytes + true_bytes(stored) / 2


def test_an_unknown_engine_is_refused():
    with pytest.raises(UnsupportedError) as caught:
        replace(BOARD, engine="abacus")
    assert "onnxruntime" in caught.value.right
