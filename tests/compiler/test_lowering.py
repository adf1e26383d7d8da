from dataclasses import replace

import pytest

from autocompress.compiler.dots import nibble_maddubs, pmaddwd, shifted
from autocompress.compiler.graph import random_weights
from autocompress.compiler.lowering import lower
from autocompress.compiler.machine import Machine
from autocompress.shape import BITS, LayerShape, ModelShape, WeightGrid, by_block, nearest_embedding_bits

MACHINE = Machine(lanes=8, registers=16, dot=pmaddwd(8), nibbles=nibble_maddubs(8), half=shifted(8))


def shape(bits, layers=2):
    return ModelShape(
        "bert",
        50,
        32,
        20,
        24,
        (LayerShape(3, 7, 45, *by_block(bits, bits)),) * layers,
        3,
        embedding_bits=nearest_embedding_bits(bits),
    )


EVERY = [*((bits, "dynamic") for bits in BITS), (8, "static"), (8, "smoothed"), (8, "token")]
GRIDS = [WeightGrid(), WeightGrid(64), WeightGrid(128, zero_points=True)]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize(("bits", "activations"), EVERY)
def test_constants_are_packed_into_the_dimensions_that_the_kernels_are_written_for(bits, activations, grid):
    encoder = shape(bits).with_activations(activations).with_grid(grid)
    weights, program = random_weights(encoder), lower(encoder, tokens=5, batch=2, machine=MACHINE)
    for constant in program.constants:
        packed = constant.pack(weights)
        assert (packed.shape, str(packed.dtype)) == (constant.tensor.dimensions, constant.tensor.dtype), constant


@pytest.mark.parametrize(("bits", "activations"), EVERY)
def test_every_value_is_written_once_before_it_is_read(bits, activations):
    program = lower(shape(bits).with_activations(activations), tokens=5, machine=MACHINE)
    known = {*program.inputs, *(constant.tensor for constant in program.constants)}
    for call in program.calls:
        assert set(call.inputs) <= known
        assert not set(call.outputs) & known
        known |= set(call.outputs)
    assert program.output in known
    assert program.output.dimensions == (1, 3)


def test_equal_layers_share_their_kernels_and_other_sizes_do_not():
    few, many = (len(lower(shape(8, layers), tokens=5, machine=MACHINE).names()) for layers in (1, 4))
    assert few == many
    odd = replace(shape(8), layers=(shape(8).layers[0], LayerShape(3, 7, 46, *by_block(8, 8))))
    assert len(lower(odd, tokens=5, machine=MACHINE).names()) > many


def test_fixed_ranges_change_how_activations_are_quantized_and_nothing_else():
    kinds = ("dynamic", "static", "smoothed")
    programs = [lower(shape(8).with_activations(kind), tokens=5, machine=MACHINE) for kind in kinds]
    families = [[call.kernel.family for call in program.calls] for program in programs]
    assert families[0].count("quantize") == 8
    for found in families[1:]:
        assert found == [name if name != "quantize" else "quantize_static" for name in families[0]]
    products = [{kernel for kernel in program.names() if kernel.family == "gemm_i8"} for program in programs]
    assert products[0] == products[1] == products[2]


def test_activations_a_token_run_the_kernels_of_fewer_bits_with_bytes_that_pairs_of_sums_hold():
    """``maddubs`` adds two products of bytes up as int16, which 2 * 255 * 127 would saturate: 32,767 is the most."""
    eight, four = (lower(shape(bits).with_activations("token"), tokens=5, machine=MACHINE) for bits in (8, 4))
    assert [call.kernel.family for call in eight.calls] == [call.kernel.family for call in four.calls]
    names = {bits: str(program.names()) for bits, program in ((8, eight), (4, four))}
    assert ("maddubs" in names[8], "maddubs" in names[4]) == (False, True)
    assert 2 * 15 * 127 <= 32_767 < 2 * 255 * 127


def test_the_usual_grid_is_no_size_of_a_kernel_and_others_are():
    usual, other = (lower(shape(4).with_grid(grid), tokens=5, machine=MACHINE) for grid in GRIDS[::2])
    assert "grid" not in str(usual.names())
    # Four products, and quantizers of three widths: 24, 3 * 7 and 45.
    assert sum("grid=128z" in str(kernel) for kernel in other.names()) == 4 + 3


def test_a_kernel_names_all_that_its_code_depends_on():
    names = [str(kernel) for kernel in lower(shape(8), tokens=5, machine=MACHINE).names()]
    assert "gemm_i8(activation=gelu, columns=45, depth=24, dot=pmaddwd8, rows=5, tile=6x16)" in names
    assert len(set(names)) == len(names)
