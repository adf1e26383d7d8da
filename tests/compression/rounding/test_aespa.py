import pytest
import torch

from autocompress.compression.rounding.aespa import attention, attention_objectives
from autocompress.compression.rounding.layer_inputs import LayerInputs
from autocompress.compression.rounding.objective import Objective, second_moment
from autocompress.models.load import adapter_of
from tests.compression.padded import padded

WIDTH, HEADS = 6, 3


def linears(seed=0):
    """Return query and key of 3 heads of 6 channels that read 20."""
    torch.manual_seed(seed)
    return torch.nn.Linear(20, WIDTH * HEADS).double(), torch.nn.Linear(20, WIDTH * HEADS).double()


def documents(count, seed=1):
    """Return one batch of documents of 3 tokens and more, padded to 9 with numbers that must not matter."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 9, 20, generator=generator, dtype=torch.float64)
    return x, torch.arange(9)[None] < torch.arange(3, 3 + count)[:, None]


def head(tensor, index):
    return tensor[index * WIDTH : (index + 1) * WIDTH]


def test_the_value_loss_is_what_the_output_of_attention_changes_by():
    (query, key), (x, real), change = linears(), documents(5), torch.randn(WIDTH * HEADS, 20, dtype=torch.float64)
    objective = attention_objectives([(x, real)], query, key, head_width=WIDTH).value
    moved = 0.0
    for document, mask in zip(x, real, strict=True):
        tokens = document[mask]  # Without its padding, a document is on its own.
        for index in range(HEADS):
            scores = (tokens @ head(query.weight, index).T + head(query.bias, index)) @ (
                tokens @ head(key.weight, index).T + head(key.bias, index)
            ).T
            moved += (torch.softmax(scores / WIDTH**0.5, -1) @ tokens @ head(change, index).T).square().sum()
    torch.testing.assert_close(objective.loss(change), 2 * moved / real.sum())


@pytest.mark.parametrize("side", ["query", "key"])
def test_with_one_document_query_and_key_losses_are_exact(side):
    (query, key), (x, real), change = linears(), documents(1), torch.randn(WIDTH * HEADS, 20, dtype=torch.float64)
    objectives = attention_objectives([(x, real)], query, key, head_width=WIDTH)
    tokens, other = x[real], key if side == "query" else query
    moved = sum(
        (head(other(tokens).T, index).T @ head(change, index) @ tokens.T).square().sum() for index in range(HEADS)
    )
    torch.testing.assert_close(getattr(objectives, side).loss(change), 2 * moved / len(tokens) ** 2)


def test_losses_are_the_same_in_any_batches_and_whatever_the_padding_is():
    (query, key), (x, real) = linears(), documents(6)
    noisy = torch.where(real[..., None], x, 100.0)
    whole = attention_objectives([(x, real)], query, key, head_width=WIDTH)
    parts = attention_objectives([(noisy[:2], real[:2]), (noisy[2:], real[2:])], query, key, head_width=WIDTH)
    for one, other in zip(vars(whole).values(), vars(parts).values(), strict=True):
        torch.testing.assert_close(one.inputs, other.inputs)
        assert (one.outputs is None) == (other.outputs is None)
        if one.outputs is not None:
            torch.testing.assert_close(one.outputs, other.outputs)


def test_no_change_costs_nothing_and_any_change_costs():
    query, key = linears()
    objectives = attention_objectives([documents(20)], query, key, head_width=WIDTH)
    for objective in vars(objectives).values():
        assert objective.loss(torch.zeros(WIDTH * HEADS, 20, dtype=torch.float64)) == 0
        assert all((torch.linalg.eigvalsh(matrix) > -1e-12).all() for matrix in objective.inputs)
        for seed in range(5):
            change = torch.randn(WIDTH * HEADS, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
            assert (objective.losses(change) > 0).all()


def test_a_loss_is_the_trace_that_it_is_written_as():
    change, h = torch.randn(6, 5, dtype=torch.float64), second_moment(torch.randn(1, 2, 9, 5).double())
    g = second_moment(torch.randn(1, 2, 9, 3).double())
    expected = sum(
        torch.trace(block @ rows @ matrix @ rows.T) for block, rows, matrix in zip(g, change.chunk(2), h, strict=True)
    )
    torch.testing.assert_close(Objective(h, g).loss(change), expected)
    torch.testing.assert_close(Objective(h, g).losses(change).sum(), expected)


def test_attention_is_the_models_own(model):
    """On every family: what its output projection reads is A V."""
    layer, inputs = adapter_of(model).layers(model)[0], LayerInputs(model, [padded()])
    with torch.no_grad():
        ((x, real),), ((mixed, _),) = inputs.of(layer.query), inputs.of(layer.output)
        a = attention(x, real, layer.get(layer.query), layer.get(layer.key), head_width=layer.head_width)
        values = layer.get(layer.value)(x).reshape(*x.shape[:2], -1, layer.head_width).permute(2, 0, 1, 3)
    found = (a @ values).permute(1, 2, 0, 3).reshape(mixed.shape)
    torch.testing.assert_close(found[real], mixed[real], rtol=1e-4, atol=1e-5)
