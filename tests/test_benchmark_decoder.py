"""The benchmark of rounding a decoder: it walks the layers as the model runs them, and scores what is left."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from autocompress.compression.grids import grid_of
from autocompress.compression.objective import Objective, second_moment
from autocompress.compression.rotary import rotary_objectives
from autocompress.compression.rounding import levels_of
from benchmarks.decoder_quantization import BITS, FLOATS, ROUNDINGS, SCALES, report, settings
from benchmarks.decoder_rows import WINDOW, Scored, Setting, nats, reads_of, round_decoder, windows

LINEARS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
LINEARS += ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
DOCUMENTS = torch.randint(0, 50, (4, 12), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def decoder():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=64, initializer_range=0.3,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def read_by(model, layer):
    """What each linear of a layer reads as the model runs."""
    found = {}
    handles = [
        model.model.layers[layer]
        .get_submodule(path)
        .register_forward_pre_hook(lambda _module, inputs, path=path: found.setdefault(path, inputs[0]))
        for path in LINEARS
    ]
    with torch.no_grad():
        model(input_ids=DOCUMENTS, use_cache=False)
    for handle in handles:
        handle.remove()
    return found


def setting(rounding, *, bits=3, scales="groups", layers=3):
    return Setting(bits, rounding, scales, len(DOCUMENTS), 20, layers)


def test_attention_is_the_models_own(decoder):
    attention, read = decoder.model.layers[1].self_attn, read_by(decoder, 1)
    x = read["self_attn.q_proj"]
    turns = decoder.model.rotary_emb(x, torch.arange(x.shape[1])[None])
    with torch.no_grad():
        shares = reads_of(attention, x, turns).probabilities()
        values = attention.v_proj(x).unflatten(-1, (2, 8)).transpose(1, 2)
        mixed = (shares @ values[:, :, None]).flatten(1, 2).transpose(1, 2).flatten(2)
    torch.testing.assert_close(mixed, read["self_attn.o_proj"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scales", SCALES)
@pytest.mark.parametrize("rounding", ["optq", "descent"])
def test_a_linear_is_rounded_for_what_reaches_it_behind_rounded_ones(decoder, rounding, scales):
    """By hand: of the second layer, on inputs that the rounded model itself gives."""
    student = copy.deepcopy(decoder)
    round_decoder(student, setting(rounding, scales=scales), DOCUMENTS)
    for path, x in read_by(student, 1).items():
        if rounding == "descent" and path in LINEARS[:3]:
            continue  # For what attention gives: the next test.
        weight = decoder.model.layers[1].get_submodule(path).weight.detach()
        grid = grid_of(weight, 3, whole_rows=scales == "rows")
        levels = levels_of(weight, grid, Objective(second_moment([x.flatten(0, 1)])[None]), rounding)
        found = student.model.layers[1].get_submodule(path).weight
        assert (found == grid.values(levels)).float().mean() > 0.995  # Sums in another order may tip one.


@pytest.mark.parametrize("rounding", ["descent", "aespa"])
def test_queries_keys_and_values_are_rounded_for_attention_with_floats(decoder, rounding):
    student = copy.deepcopy(decoder)
    round_decoder(student, setting(rounding, layers=1), DOCUMENTS)
    attention, x = decoder.model.layers[0].self_attn, read_by(decoder, 0)["self_attn.q_proj"]
    turns = decoder.model.rotary_emb(x, torch.arange(x.shape[1])[None])
    with torch.no_grad():
        objectives = rotary_objectives(reads_of(attention, x, turns))
    for path, objective in zip(LINEARS[:3], vars(objectives).values(), strict=True):
        weight = decoder.model.layers[0].get_submodule(path).weight.detach()
        grid = grid_of(weight, 3)
        levels = levels_of(weight, grid, objective, rounding, iterations=20)
        found = student.model.layers[0].get_submodule(path).weight
        assert (found == grid.values(levels)).float().mean() > 0.995


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_only_linears_of_the_first_layers_change_and_those_to_few_values(decoder, rounding):
    student = copy.deepcopy(decoder)
    round_decoder(student, setting(rounding, bits=2, scales="rows", layers=2), DOCUMENTS)
    before, after = decoder.state_dict(), student.state_dict()
    changed = {name for name in before if not before[name].equal(after[name])}
    assert changed == {f"model.layers.{layer}.{path}.weight" for layer in (0, 1) for path in LINEARS}
    assert all(len(row.unique()) <= 4 for name in changed for row in after[name])


def test_a_model_that_knows_nothing_loses_the_logarithm_of_its_vocabulary(decoder):
    decoder.lm_head.weight.data.zero_()
    assert nats(decoder, DOCUMENTS) == pytest.approx([math.log(50)] * 4)


def test_documents_are_windows_of_the_text_without_what_is_left():
    ids = list(range(2 * WINDOW + 5))
    assert windows(ids).tolist() == [ids[:WINDOW], ids[WINDOW : 2 * WINDOW]]


def test_every_rounding_is_tried_at_every_width_with_either_scales():
    found = settings(30, iterations=7, quick=False)
    assert found[0] == FLOATS
    assert {(each.bits, each.rounding, each.scales) for each in found[1:]} == {
        (bits, rounding, scales) for bits in BITS for rounding in ROUNDINGS for scales in SCALES
    }
    assert len(set(found)) == len(found)
    assert all(each.iterations == (7 if each.rounding == "aespa" else 0) for each in found)
    assert all((each.documents == 0) == (each.rounding == "nearest") for each in found)
    assert [each.rounding for each in found] == sorted((each.rounding for each in found), key=ROUNDINGS.index)


def test_perplexity_is_of_all_tokens_and_losses_are_paired_by_document():
    floats = Scored(FLOATS, (2.0, 4.0), 0.0)
    rounded = replace(floats, setting=setting("optq"), nats=(2.5, 4.7), cpu_s=3.0)
    _, row = report([floats, rounded])
    assert row["perplexity"] == pytest.approx(math.exp(3.6))
    assert row["lost"] == pytest.approx((0.6, 0.1))  # Of 0.5 and 0.7: sd 0.1 sqrt(2), over sqrt(2).
