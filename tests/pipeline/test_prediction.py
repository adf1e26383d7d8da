import pytest

from autocompress.engines import stored_bits
from autocompress.errors import UnsupportedError
from autocompress.pipeline.prediction import COMMON, activation_bytes, predict, shrink
from autocompress.predictors.roofline import EFFICIENCY
from autocompress.shape import BITS


@pytest.mark.parametrize("bits", BITS)
def test_all_weights_get_the_bits_asked_for_and_the_token_table_no_fewer_than_four(bits):
    shape = shrink(COMMON, depth=2, heads_keep=0.5, bits=bits)
    assert [(layer.heads, layer.attention_in_bits, layer.ffn_in_bits) for layer in shape.layers] == [
        (6, bits, bits)
    ] * 2
    assert shape.embedding_bits == max(4, bits)


@pytest.mark.parametrize("engine", EFFICIENCY)
def test_fewer_bits_make_a_smaller_model_on_a_device_that_was_never_measured_as_far_as_the_engine_stores_them(engine):
    costs = {
        bits: predict(shrink(COMMON, bits=bits), device="pixel-8", engine=engine, threads=1, tokens=64) for bits in BITS
    }
    sizes = [costs[stored_bits(engine, bits)].size_bytes.value for bits in BITS]
    assert [cost.size_bytes.value for cost in costs.values()] == pytest.approx(sizes, rel=1e-9)
    different = {stored_bits(engine, bits) for bits in BITS}
    assert sizes == sorted(sizes) and len(set(sizes)) == len(different)


def test_activations_of_a_shape_hold_at_least_what_its_widest_layer_reads_and_writes_at_once():
    # The residual stream, the neurons and what they give, all f32; a greedy plan stays below twice that.
    least = 64 * (384 + 1536 + 384) * 4
    assert least <= activation_bytes(COMMON, tokens=64) < 2 * least


@pytest.mark.parametrize("wrong", [{"bits": 5}, {"depth": 7}])
def test_a_width_or_depth_that_there_is_not_is_refused(wrong):
    with pytest.raises(UnsupportedError, match="bits are asked for"):
        shrink(COMMON, **wrong)
