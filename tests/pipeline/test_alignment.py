from __future__ import annotations

import pytest

from autocompress.config import load_config
from autocompress.pipeline.alignment import align_of
from autocompress.pipeline.prediction import COMMON

F32 = ["search.space.attention_bits=[32]", "search.space.ffn_bits=[32]"]


@pytest.mark.parametrize(
    ("given", "multiple"),
    [
        (["search.space.align=48"], 48),
        # Two vectors of four lanes in f32; groups of 32 channels at 4 bits; eight lanes with AVX2.
        (["search.space.align=auto", "device.profile=raspberry-pi-4", *F32], 8),
        (["search.space.align=auto", "device.profile=raspberry-pi-4"], 32),
        (["search.space.align=auto", "device.profile=generic-x86-avx2", *F32], 16),
    ],
)
def test_auto_is_the_width_of_the_devices_tiles(given, multiple):
    assert align_of(load_config("examples/quickstart.yaml", given), COMMON) == multiple


def test_this_machine_has_tiles_too():
    align = align_of(load_config("examples/quickstart.yaml", ["search.space.align=auto"]), COMMON)
    assert align >= 4 and COMMON.layers[0].ffn % align == 0
