import pytest

from autocompress.compression.depth import uniform


@pytest.mark.parametrize(
    ("layers", "keep", "expected"),
    [(12, 4, (2, 5, 8, 11)), (6, 6, (0, 1, 2, 3, 4, 5)), (6, 1, (5,)), (6, 4, (0, 2, 3, 5))],
)
def test_the_uniform_map_is_evenly_spaced_and_ends_with_the_last_layer(layers, keep, expected):
    assert uniform(layers, keep) == expected
