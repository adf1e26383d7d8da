import json
from dataclasses import replace

import pytest

from autocompress.shape import BITS, EMBEDDING_BITS, LayerShape, ModelShape, nearest_embedding_bits

SHAPE = ModelShape("bert", 100, 40, 24, 48, (LayerShape(3, 16, 96, 16, 2),), 5, embedding_bits=16)


@pytest.mark.parametrize("rank", [0, 8])
def test_a_shape_reads_back_from_json(rank):
    shape = replace(SHAPE, embedding_rank=rank)
    assert ModelShape.from_dict(json.loads(json.dumps(shape.to_dict()))) == shape


def test_a_shape_written_before_there_were_ranks_has_a_table_as_wide_as_the_embedding():
    written = SHAPE.to_dict()
    del written["embedding_rank"]
    assert ModelShape.from_dict(written) == SHAPE
    assert SHAPE.token_width == 24


def test_a_rank_is_the_width_of_the_token_table_and_is_told():
    shape = replace(SHAPE, embedding_rank=8)
    assert shape.token_width == 8
    assert shape.describe() == f"{SHAPE.describe()}, embedding rank 8"


def test_a_token_table_has_the_bits_asked_for_or_the_fewest_it_can_have():
    assert [nearest_embedding_bits(bits) for bits in BITS] == [max(bits, min(EMBEDDING_BITS)) for bits in BITS]
