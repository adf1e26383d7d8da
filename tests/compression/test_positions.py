from dataclasses import replace

import numpy as np
import pytest
import torch

from autocompress.compiler.build import build
from autocompress.compiler.graph import weight_specs
from autocompress.compression import positions
from autocompress.compression.method import Space
from autocompress.compression.positions import PositionsStep
from autocompress.engines import open_artifact
from autocompress.errors import AutoCompressError, ConfigError
from autocompress.feeds import of_text
from autocompress.models.load import adapter_of, load_classifier
from tests.compression.training_data import context_for

TOKENS = 9
IDS = torch.arange(4, 4 + 2 * TOKENS).reshape(2, TOKENS)


def logits(model, ids=IDS):
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits


def shortened(model):
    return positions.apply(model, PositionsStep(TOKENS), context_for(model))


def test_documents_that_are_still_read_are_answered_to_the_bit_as_before(model):
    before = logits(model)
    assert torch.equal(logits(shortened(model)), before)


def test_the_rows_are_gone_from_parameters_and_weights(model):
    shape, before = adapter_of(model).shape(model), sum(each.numel() for each in model.parameters())
    small = shortened(model)
    assert before - sum(each.numel() for each in small.parameters()) == (shape.positions - TOKENS) * shape.embedding
    assert adapter_of(small).shape(small) == replace(shape, positions=TOKENS)
    found = adapter_of(small).weights(small)
    assert {name: found[name].shape for name in found} == {
        name: spec.dimensions for name, spec in weight_specs(replace(shape, positions=TOKENS)).items()
    }


def test_what_was_shortened_is_saved_and_loaded_as_it_is(model, tmp_path):
    small = shortened(model)
    small.save_pretrained(tmp_path)
    assert torch.equal(logits(load_classifier(tmp_path)), logits(small))


def test_an_artifact_reads_documents_of_so_many_tokens_and_none_that_are_longer(model, tmp_path):
    small = shortened(model)
    adapter = adapter_of(small)
    shape, weights = adapter.shape(small), adapter.weights(small)
    run = open_artifact(build(shape, weights, tmp_path / "model", engine="onnxruntime", tokens=TOKENS), threads=1)
    got = run(of_text(IDS[:1].numpy()))
    np.testing.assert_allclose(got, logits(small, IDS[:1]).numpy(), rtol=0, atol=1e-4)
    with pytest.raises(AutoCompressError, match=f"1 to {TOKENS}|{TOKENS + 1}"):
        build(shape, weights, tmp_path / "longer", engine="onnxruntime", tokens=TOKENS + 1)


def test_a_space_leaves_all_or_those_of_the_longest_document(model):
    shape = adapter_of(model).shape(model)

    def kept(**space):
        return positions.suggest(None, shape, Space(depth=(1,), **space)).keep

    assert kept(max_tokens=TOKENS) == kept(positions="task") == shape.positions
    assert kept(positions="task", max_tokens=TOKENS) == TOKENS
    assert kept(positions="task", max_tokens=shape.positions + 1) == shape.positions


@pytest.mark.parametrize("keep", [0, 41])
def test_positions_that_are_not_there_are_refused(keep, model):
    with pytest.raises(ConfigError, match=f"{keep} positions"):
        positions.apply(model, PositionsStep(keep), context_for(model))
