from itertools import combinations, product

import pytest
import torch

from autocompress.compression.ranking.fisher import MaskGradients
from autocompress.compression.ranking.importance import LayerRanking, by_score
from autocompress.compression.ranking.mask_search import (
    Keep,
    encoder_macs,
    mask_search,
    pruned_objective,
    rearrange,
    rearranged,
    share_out,
)
from autocompress.errors import ConfigError
from autocompress.shape import LayerShape, ModelShape

SHAPE = ModelShape("bert", 100, 32, 16, 16, (LayerShape(3, 8, 6),) * 2, 2)
TOKENS = 5


def rankings(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        LayerRanking(by_score(20 * torch.rand(3, generator=generator)), by_score(torch.rand(6, generator=generator)))
        for _ in range(2)
    ]


def test_macs_are_those_of_the_linears_and_of_the_two_products_of_attention():
    linears = 4 * 16 * 24 + 2 * 16 * 6
    assert encoder_macs(SHAPE, TOKENS) == 2 * (TOKENS * linears + 2 * TOKENS * TOKENS * 24)
    assert encoder_macs(SHAPE, TOKENS, Keep((1, 2), (3, 4))) == 3 * TOKENS * 8 * (4 * 16 + 2 * TOKENS) + 7 * 2 * 16 * 5


@pytest.mark.parametrize("ratio", [0.45, 0.6, 0.75, 1.0])
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("align", [1, 2])
def test_the_search_finds_what_trying_every_mask_finds(ratio, seed, align):
    found, macs = rankings(seed), ratio * encoder_macs(SHAPE, TOKENS)

    def total(keep):
        heads = sum(sum(layer.heads.importance[:count]) for layer, count in zip(found, keep.heads, strict=True))
        return heads + sum(sum(layer.neurons.importance[:n]) for layer, n in zip(found, keep.neurons, strict=True))

    every = [
        Keep(heads, neurons)
        for heads in product(range(1, 4), repeat=2)
        for neurons in product(range(align, 7, align), repeat=2)
    ]
    best = max(total(keep) for keep in every if encoder_macs(SHAPE, TOKENS, keep) <= macs)
    keep = mask_search(found, SHAPE, macs=macs, tokens=TOKENS, align=align)
    assert encoder_macs(SHAPE, TOKENS, keep) <= macs
    assert total(keep) == pytest.approx(best)


def test_a_budget_below_one_head_and_one_neuron_a_layer_is_refused():
    with pytest.raises(ConfigError, match="multiply-accumulates") as caught:
        mask_search(rankings(), SHAPE, macs=10, tokens=TOKENS)
    assert "take" in caught.value.right and caught.value.next_step


def test_units_of_all_layers_compete_and_none_loses_its_last():
    assert share_out([(9.0, 8.0, 7.0), (1.0, 0.5, 0.1)], 4) == (3, 1)
    assert share_out([(9.0, 1.0, 1.0), (8.0, 7.5, 0.1)], 4) == (2, 2)
    assert share_out([(4.0, 4.0, 3.0, 3.0), (9.0, 0.0, 5.0, 5.0)], 6, unit=2) == (2, 4)
    assert share_out([(1.0,) * 3, (1.0,) * 3], 6) == (3, 3)


def test_fewer_units_than_layers_are_refused():
    with pytest.raises(ConfigError, match="1 units"):
        share_out([(1.0, 2.0), (1.0, 2.0)], 1)


@pytest.mark.parametrize("seed", range(5))
def test_rearrangement_prunes_as_many_and_never_raises_the_objective(seed):
    gradients = torch.randn(12, 8, generator=torch.Generator().manual_seed(seed))
    warm = tuple(gradients.square().sum(0).argsort()[:3].tolist())
    found = rearranged(gradients, warm)
    objectives = {chosen: pruned_objective(gradients, chosen) for chosen in combinations(range(8), 3)}
    assert len(set(found)) == 3
    assert objectives[found] <= pruned_objective(gradients, warm) + 1e-9
    one_swap_away = [chosen for chosen in objectives if len(set(chosen) & set(found)) == 2]
    assert all(objectives[chosen] >= objectives[found] - 1e-9 for chosen in one_swap_away)
    assert rearranged(gradients, ()) == ()


def test_rearranged_rankings_keep_the_units_that_are_left_first():
    found = rankings()
    generator = torch.Generator().manual_seed(7)
    slopes = [MaskGradients(torch.randn(9, 3, generator=generator), torch.randn(9, 6, generator=generator))] * 2
    better = rearrange(found, slopes, Keep((2, 1), (3, 4)))
    for layer, before, kept in zip(better, found, (3, 4), strict=True):
        assert set(layer.neurons.order[kept:]) == set(rearranged(slopes[0].neurons, before.neurons.order[kept:]))
        assert [unit for unit in before.neurons.order if unit in layer.neurons.order[:kept]] == list(
            layer.neurons.order[:kept]
        )


def test_rearrangement_sees_units_that_cancel():
    gradients = torch.tensor([[1.0, -1.0, 0.3, 0.3], [0.0, 0.0, 0.3, 0.3]])
    assert rearranged(gradients, (1, 2)) == (0, 1)
