import pytest

from autocompress.compression.method import Space
from autocompress.compression.tokens import TokenStep, apply, reshape, schedule, suggest
from autocompress.errors import ConfigError
from autocompress.models.load import adapter_of
from tests.compression.training_data import context_for
from tests.conftest import tiny_model
from tests.contracts.test_methods import FirstChoice


def test_counts_fall_in_equal_steps_to_the_share_and_end_at_the_first_token():
    # 64 tokens over five gaps to 16: 48 less in steps of 9.6, rounded up.
    assert schedule(0.25, depth=6, tokens=64) == (55, 45, 36, 26, 16, 1)
    assert schedule(0.5, depth=2, tokens=64) == (32, 1)
    assert schedule(0.5, depth=1, tokens=64) == (1,)


def test_a_whole_share_leaves_all_but_the_last_layer_alone():
    assert schedule(1.0, depth=4, tokens=64) == (0, 0, 0, 1)


def test_all_leaves_the_model_as_it_is():
    model = tiny_model("bert")
    shape = adapter_of(model).shape(model)
    step = suggest(FirstChoice(), shape, Space(depth=(3,)))
    assert reshape(shape, step) == shape
    assert type(apply(model, step, context_for(model)).bert.encoder).__name__ == "BertEncoder"


def test_shares_are_of_the_longest_document_of_the_task():
    shape = adapter_of(tiny_model("bert")).shape(tiny_model("bert"))
    step = suggest(FirstChoice(), shape, Space(depth=(3,), tokens_keep=(0.5,), max_tokens=16))
    assert step == TokenStep((12, 8, 1))


@pytest.mark.parametrize(("most", "problem"), [((4, 5, 1), "more from a later layer"), ((4, 2), "3 layers"),
                                               ((4, -1, 1), "3 layers")])  # fmt: skip
def test_counts_that_grow_or_do_not_fit_the_layers_are_refused(most, problem):
    model = tiny_model("bert")
    with pytest.raises(ConfigError, match=problem):
        apply(model, TokenStep(most), context_for(model))
