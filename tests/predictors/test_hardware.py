from __future__ import annotations

import itertools
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocompress.compiler.dots import nibble_widening, pmaddwd, shifted
from autocompress.compiler.machine import Machine
from autocompress.predictors.hardware import NOMINAL, Hardware
from autocompress.shape import BITS

PLAIN = Hardware(Machine(4, 16, pmaddwd(4), nibble_widening(pmaddwd(4)), shifted(4)), 2**18)
WIDTH = st.integers(1, 400)


def test_whole_tiles_cover_a_product():
    # 10 rows in two tiles of 5; 40 columns in two panels of 2 x 16; groups of 4, 2 and 32 along a depth of 33.
    assert NOMINAL.padded_macs(10, 33, 40, 32) == 10 * 33 * 64
    assert NOMINAL.padded_macs(10, 33, 40, 8) == 10 * 36 * 64
    assert NOMINAL.padded_macs(10, 33, 40, 16) == 10 * 34 * 64
    # Ten rows leave registers for one vector of 4-bit columns.
    assert {NOMINAL.padded_macs(10, 33, 40, bits) for bits in (4, 3, 2)} == {10 * 64 * 48}
    # 11 rows in tiles of 6 are 12.
    assert NOMINAL.padded_macs(11, 32, 64, 32) == 12 * 32 * 64


@pytest.mark.parametrize("hardware", [NOMINAL, PLAIN], ids=["nominal", "plain"])
@pytest.mark.parametrize("bits", BITS)
@given(rows=st.integers(1, 40), depth=WIDTH, columns=WIDTH)
def test_padding_only_adds_and_never_less_for_a_wider_product(hardware, bits, rows, depth, columns):
    padded = hardware.padded_macs(rows, depth, columns, bits)
    assert padded >= rows * depth * columns
    assert hardware.padded_macs(rows, depth + 1, columns, bits) >= padded
    assert hardware.padded_macs(rows, depth, columns + 1, bits) >= padded


def test_instructions_that_multiply_bytes_or_halves_as_they_are_count_as_dot_products():
    assert [bits for bits in BITS if NOMINAL.has_dot(bits)] == [2, 3, 4, 8, 16]
    assert not any(PLAIN.has_dot(bits) for bits in BITS)


def test_a_missing_cache_is_taken_over_by_its_neighbour():
    def holds(l2_bytes, l3_bytes):
        return Hardware.of(PLAIN.machine, l1d_bytes=1, l2_bytes=l2_bytes, l3_bytes=l3_bytes).l2_bytes

    assert [holds(2, 3), holds(2, None), holds(None, 3), holds(None, None)] == [2, 2, 3, 1]


@pytest.mark.parametrize("hardware", [NOMINAL, PLAIN, replace(NOMINAL, l2_bytes=5)])
def test_json_keeps_a_processor(hardware):
    assert Hardware.from_dict(json.loads(json.dumps(hardware.to_dict()))) == hardware


def test_channels_in_aligned_multiples_leave_no_tile_of_either_product_half_empty():
    rows, depth = 24, 384  # Whole tiles of 6 and of 8 rows.
    for hardware, bits in ((NOMINAL, (32, 8)), (NOMINAL, (32, 8, 4)), (PLAIN, (32,)), (PLAIN, (8, 4))):
        step = hardware.alignment(rows, depth, 1536, bits)
        for channels, width in itertools.product((step, 5 * step), bits):
            assert hardware.padded_macs(rows, depth, channels, width) == rows * depth * channels
            assert hardware.padded_macs(rows, channels, depth, width) == rows * depth * channels
    assert PLAIN.alignment(rows, depth, 1536, (32,)) == 2 * PLAIN.machine.lanes
    assert NOMINAL.alignment(rows, depth, 1536, (32, 8, 4)) == 32
