import pytest

from autocompress.compression.method import Space
from autocompress.compression.tokens import TokenStep, apply, reshape, suggest
from autocompress.errors import ConfigError
from autocompress.models.load import adapter_of
from tests.compression.training_data import context_for
from tests.conftest import tiny_model
from tests.contracts.test_methods import FirstChoice


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
