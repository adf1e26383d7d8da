"""The benchmark of rounding a decoder: it walks the layers as the model runs them, and scores what is left."""

import copy
import json
import math
from dataclasses import asdict, replace
from itertools import product

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from autocompress.compression.rounding.grids import grid_of
from autocompress.compression.rounding.levels import levels_of
from autocompress.compression.rounding.objective import Objective, second_moment
from autocompress.compression.rounding.optq import pivots
from autocompress.compression.rounding.rotary import rotary_objectives
from autocompress.compression.rounding.zfold import column_factors
from benchmarks.decoder_attention import attention_errors
from benchmarks.decoder_folding import FoldPlace, fold_places
from benchmarks.decoder_quantization import FLOATS, ROUNDINGS, Extent, Records, alone, extent, measure, report, settings
from benchmarks.decoder_rows import (
    WINDOW,
    Scored,
    Setting,
    Subject,
    documents,
    nats,
    reads_of,
    round_decoder,
    round_inward,
    windows,
)

LINEARS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
LINEARS += ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
PLACES = (LINEARS[:3], LINEARS[3:4], LINEARS[4:6], LINEARS[6:])
"""Linears that read the same."""
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


def setting(rounding, *, bits=3, scales="groups", layers=3, fold=False):
    return Setting(bits, rounding, scales, len(DOCUMENTS), 20, layers, fold)


def test_attention_is_the_models_own(decoder):
    attention, read = decoder.model.layers[1].self_attn, read_by(decoder, 1)
    x = read["self_attn.q_proj"]
    turns = decoder.model.rotary_emb(x, torch.arange(x.shape[1])[None])
    with torch.no_grad():
        shares = reads_of(attention, x, turns).probabilities()
        values = attention.v_proj(x).unflatten(-1, (2, 8)).transpose(1, 2)
        mixed = (shares @ values[:, :, None]).flatten(1, 2).transpose(1, 2).flatten(2)
    torch.testing.assert_close(mixed, read["self_attn.o_proj"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scales", ["groups", "rows"])
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


@pytest.mark.parametrize("whole_rows", [True, False])
@pytest.mark.parametrize("bits", [4, 3, 2])
@torch.no_grad()
def test_folding_alone_leaves_what_a_decoder_computes(decoder, bits, whole_rows):
    student, expected = copy.deepcopy(decoder), decoder(input_ids=DOCUMENTS).logits
    found = [place.fold(bits, whole_rows=whole_rows) for layer in student.model.layers for place in fold_places(layer)]
    assert [len(factors) for factors in found] == 3 * [32, 32, 32, 64]
    assert all((factors > 0).all() for factors in found)
    assert sum(bool((factors != 1).any()) for factors in found) > 6
    for factors in found[1::4]:  # Heads 0 and 1 read the values of one, 2 and 3 those of the other.
        one, other = factors.reshape(2, 2, 8).unbind(1)
        assert one.equal(other)
    torch.testing.assert_close(student(input_ids=DOCUMENTS).logits, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scales", ["groups", "rows"])
def test_factors_are_found_behind_rounded_linears_and_folded_before_the_next_are_rounded(decoder, scales, monkeypatch):
    """By hand, of the second layer: on what the rounded model gives, less the factors that it was multiplied by."""
    found, own, whole_rows = [], FoldPlace.fold, scales == "rows"
    monkeypatch.setattr(FoldPlace, "fold", lambda *args, **kwargs: found.append(own(*args, **kwargs)) or found[-1])
    student = copy.deepcopy(decoder)
    round_decoder(student, setting("optq", scales=scales, fold=True), DOCUMENTS)
    read, before, after = (read_by(student, 1), decoder.model.layers[1], student.model.layers[1])
    given = {"self_attn.v_proj": found[5].reshape(2, 2, 8)[:, 0].flatten(), "mlp.up_proj": found[7]}
    owners = [None, torch.arange(16).reshape(2, 1, 8).expand(-1, 2, -1).flatten(), None, None]
    assert len(found) == 4 * 3
    for paths, factors, shared in zip(PLACES, found[4:8], owners, strict=True):
        weights, x = [before.get_submodule(path).weight.detach() for path in paths], read[paths[0]].flatten(0, 1)
        costs = pivots(Objective(second_moment([x / factors])[None]).damped().inputs[0])
        expected = column_factors(torch.cat(weights), costs, 3, owners=shared, whole_rows=whole_rows).factors
        torch.testing.assert_close(factors, expected if shared is None else expected[shared], rtol=1e-3, atol=0.0)
        for path, weight in zip(paths, weights, strict=True):
            grid = grid_of(weight / factors, 3, whole_rows=whole_rows)
            levels = levels_of(weight / factors, grid, Objective(second_moment([x])[None]), "optq")
            ratio = after.get_submodule(path).weight / given.get(path, torch.ones(len(weight)))[:, None]
            near = torch.isclose(ratio, grid.values(levels), rtol=1e-3, atol=1e-6)
            assert near.float().mean() > 0.99  # Sums in another order may tip one.


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


@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_only_first_layers_change_linears_to_few_values_and_norms_where_they_are_folded(decoder, rounding, fold):
    student = copy.deepcopy(decoder)
    round_decoder(student, setting(rounding, bits=2, scales="rows", layers=2, fold=fold), DOCUMENTS)
    before, after = decoder.state_dict(), student.state_dict()
    changed = {name for name in before if not before[name].equal(after[name])}
    norms = ("input_layernorm", "post_attention_layernorm") if fold else ()
    assert changed == {f"model.layers.{layer}.{path}.weight" for layer in (0, 1) for path in (*LINEARS, *norms)}
    assert all(len(row.unique()) <= 4 for name in changed if "proj" in name for row in after[name])


def test_a_model_that_knows_nothing_loses_the_logarithm_of_its_vocabulary(decoder):
    decoder.lm_head.weight.data.zero_()
    assert nats(decoder, DOCUMENTS) == pytest.approx([math.log(50)] * 4)


def test_documents_are_windows_of_the_text_without_what_is_left():
    ids = list(range(2 * WINDOW + 5))
    assert windows(ids).tolist() == [ids[:WINDOW], ids[WINDOW : 2 * WINDOW]]


def test_documents_come_from_all_of_one_text_and_the_beginning_of_the_other(tmp_path):
    (tmp_path / "valid.txt").write_text("v" * 9 * WINDOW)
    (tmp_path / "test.txt").write_text("t" * 3 * WINDOW)

    def tokenizer(text):
        """Number characters, from 0 in one text, from 1,000,000 in the other."""
        first = 0 if text[0] == "v" else 1_000_000
        return {"input_ids": list(range(first, first + len(text)))}

    known, unknown = documents(tokenizer, tmp_path, calibration=4, test=2)
    assert (known[:, 0] // WINDOW).tolist() == [0, 2, 4, 6]
    assert unknown[:, 0].tolist() == [1_000_000, 1_000_000 + WINDOW]


def test_attention_is_judged_behind_floats_with_one_layer_rounded(decoder):
    """By hand: the first test documents, through a model in which those three linears are rounded and nothing else."""
    subject = Subject(decoder, DOCUMENTS, DOCUMENTS.flip(0))
    ways = [setting(rounding, layers=1) for rounding in ROUNDINGS]
    found = list(attention_errors(subject, ways, 1))
    assert [(each.setting, each.layer) for each in found] == [(way, 1) for way in ways]
    for each in found:
        student, x = copy.deepcopy(decoder), read_by(decoder, 1)
        turns = decoder.model.rotary_emb(DOCUMENTS.float()[..., None], torch.arange(DOCUMENTS.shape[1])[None])
        with torch.no_grad():
            round_inward(student.model.layers[1].self_attn, each.setting, [x[LINEARS[0]]], turns)
        moved = read_by(student, 1)["self_attn.o_proj"] - x["self_attn.o_proj"]
        assert each.error == pytest.approx(float(moved.norm() / x["self_attn.o_proj"].norm()), rel=1e-3)


def test_every_rounding_is_tried_at_every_width_with_either_scales_folded_and_not():
    of = extent(30, quick=False)
    found = settings(of)
    assert {(each.bits, each.rounding, each.scales, each.fold) for each in found} == set(
        product((4, 3, 2), ROUNDINGS, ("groups", "rows"), (False, True))
    )
    assert len(set(found)) == len(found)
    assert alone(of) == [replace(each, layers=1) for each in found if not each.fold]
    assert all((each.iterations == 0) == (each.rounding != "aespa") for each in found)
    assert all((each.documents == 0) == (each.rounding == "nearest") for each in found)
    assert all(each.layers == 30 for each in found)
    assert all(layer < 30 for layer in of.probed)


def tiny_extent():
    return Extent(4, 4, 5, 1, (0, 2), bits=(2,), scales=("groups",))


def test_a_second_run_measures_nothing_and_reports_the_same(decoder, tmp_path, capsys):
    subject, path, of = Subject(decoder, DOCUMENTS, DOCUMENTS.flip(0)), tmp_path / "records", tiny_extent()
    first = Records(path)
    measure(subject, of, first)
    found = report(of, first)
    assert len(found["attention"]) == 2 * len(ROUNDINGS)
    assert len(found["perplexity"]) == 1 + 2 * len(ROUNDINGS)
    assert not found["missing_attention"]
    assert not found["missing_perplexity"]
    kept = path.read_text()
    second = Records(path, end_s=0.0)
    measure(subject, of, second)
    assert path.read_text() == kept
    assert report(of, second) == found


def test_records_from_before_there_was_folding_are_read_as_without(tmp_path):
    known = Scored(setting("optq"), (3.5, 3.0), 80.0)
    line = asdict(known)
    del line["setting"]["fold"]
    (tmp_path / "records").write_text(json.dumps(line) + "\n")
    records = Records(tmp_path / "records")
    assert records.get(known.setting, 2) == known
    assert records.get(replace(known.setting, fold=True), 2) is None


def test_what_time_did_not_allow_is_told(decoder, capsys):
    of, records = tiny_extent(), Records(None, end_s=0.0)
    measure(Subject(decoder, DOCUMENTS, DOCUMENTS), of, records)
    found = report(of, records)
    assert [row["setting"]["bits"] for row in found["perplexity"]] == [32]
    assert found["missing_perplexity"] == [
        f"W2 groups {rounding}{fold}" for rounding in ROUNDINGS for fold in ("", " folded")
    ]
    assert len(found["missing_attention"]) == 2 * len(ROUNDINGS)


def test_perplexity_is_of_all_tokens_and_losses_are_paired_by_document(capsys):
    of, records = replace(tiny_extent(), test=2), Records(None)
    records.add(Scored(FLOATS, (2.0, 4.0), 0.0))
    records.add(Scored(settings(of)[2], (2.5, 4.7), 3.0))
    _, row = report(of, records)["perplexity"]
    assert row["perplexity"] == pytest.approx(math.exp(3.6))
    assert row["lost"] == pytest.approx((0.6, 0.1))  # Of 0.5 and 0.7: sd 0.1 sqrt(2), over sqrt(2).
