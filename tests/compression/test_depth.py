import copy
from typing import get_args

import pytest
import torch

from autocompress.compression.depth import MAPS, DepthStep, apply, dynabert, reshape, select, suggest, uniform
from autocompress.compression.method import Space
from autocompress.compression.ranking.layer_importance import ORDERS
from autocompress.errors import ConfigError, UnsupportedError
from autocompress.models.load import adapter_of
from autocompress.plan import LayerSelection
from tests.compression.training_data import context_for
from tests.conftest import tiny_model

ORDER = {"replace_one": (4, 0, 3, 1, 5, 2)}


class Chosen:
    def __init__(self, **params):
        self.params = params

    def suggest_categorical(self, name, choices):
        assert self.params[name] in choices
        return self.params[name]


@pytest.mark.parametrize(
    ("layers", "keep", "expected"),
    [(12, 4, (2, 5, 8, 11)), (6, 6, (0, 1, 2, 3, 4, 5)), (6, 1, (5,)), (6, 4, (0, 2, 3, 5))],
)
def test_the_uniform_map_is_evenly_spaced_and_ends_with_the_last_layer(layers, keep, expected):
    assert uniform(layers, keep) == expected


def test_every_selection_is_a_map_or_measured():
    assert {*MAPS, *ORDERS} == set(get_args(LayerSelection))
    assert not set(MAPS) & set(ORDERS)


def test_distilbert_starts_from_the_layers_of_its_paper_and_of_no_other_depth():
    assert select("distilbert", 12, 6, {}) == (0, 2, 4, 7, 9, 11)
    for layers, keep in ((12, 4), (6, 3), (24, 12)):
        with pytest.raises(UnsupportedError, match=rf"{keep} of {layers}") as caught:
            select("distilbert", layers, keep, {})
        assert "6 of 12" in caught.value.right and "uniform" in caught.value.next_step


@pytest.mark.parametrize("keep", [1, 2, 3, 4, 6])
def test_tinybert_keeps_layer_g_of_m_counted_from_one(keep):
    assert select("tinybert", 12, keep, {}) == tuple(m * 12 // keep - 1 for m in range(1, keep + 1))


def test_tinybert_is_not_defined_where_layers_do_not_divide():
    with pytest.raises(UnsupportedError, match="5 of 12") as caught:
        select("tinybert", 12, 5, {})
    assert "1, 2, 3, 4, 6, 12" in caught.value.right


def test_dynaberts_two_maps_drop_every_fourth_layer_from_either_end():
    of_the_paper = tuple(d - 1 for d in range(1, 13) if (d + 1) % 4)
    of_the_code = tuple(int(i / 0.75) for i in range(9))
    assert (uniform(12, 9), dynabert(12, 9)) == (of_the_paper, of_the_code)
    assert of_the_paper[-1] == 11 and of_the_code[-1] == 10


def test_a_measured_order_loses_its_first_layers_and_the_others_keep_their_places():
    kept = [select("replace_one", 6, keep, ORDER) for keep in range(6, 0, -1)]
    assert kept == [(0, 1, 2, 3, 4, 5), (0, 1, 2, 3, 5), (1, 2, 3, 5), (1, 2, 5), (2, 5), (2,)]


@pytest.mark.parametrize("selection", get_args(LayerSelection))
def test_all_layers_stay_however_they_are_chosen(selection):
    assert select(selection, 7, 7, {}) == tuple(range(7))


@pytest.mark.parametrize("keep", [0, -1, 7])
def test_a_depth_that_the_teacher_cannot_have_is_refused(keep):
    with pytest.raises(ConfigError, match=f"depth of {keep}") as caught:
        select("uniform", 6, keep, {})
    assert "1 to 6" in caught.value.right and "search.space.depth" in caught.value.next_step


def test_a_trial_chooses_depth_and_selection():
    model = tiny_model("bert")
    shape = adapter_of(model).shape(model)
    space = Space((1, 2), depth_selection=("uniform", "block_influence"), layer_orders={"block_influence": (2, 0, 1)})
    assert suggest(Chosen(depth=1, depth_selection="uniform"), shape, space) == DepthStep((2,))
    assert suggest(Chosen(depth=1, depth_selection="block_influence"), shape, space) == DepthStep((1,))
    assert suggest(Chosen(depth=2, depth_selection="block_influence"), shape, space) == DepthStep((0, 1))


@pytest.mark.parametrize("kept", [(), (0, 3), (-1, 0), (1, 0), (1, 1), (0, 1, 2, 3)])
def test_a_plan_with_other_layers_than_the_models_is_refused_and_changes_nothing(kept):
    model = tiny_model("bert")
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ConfigError):
        reshape(adapter_of(model).shape(model), DepthStep(kept))
    with pytest.raises(ConfigError):
        apply(model, DepthStep(kept), context_for(model))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
