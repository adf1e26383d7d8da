from dataclasses import replace

import pytest
import torch
from safetensors.torch import load, save
from torch.nn import functional

from autocompress.compression.hidden import HiddenStep, apply, reshape, suggest
from autocompress.compression.method import Space
from autocompress.compression.ranking.channel_importance import channel_scores, order_hidden
from autocompress.errors import ConfigError, UnsupportedError
from autocompress.models.load import adapter_of
from autocompress.shape import LayerShape, ModelShape
from tests.compression.ranking.test_layer_importance import logits, padded
from tests.compression.training_data import context_for
from tests.conftest import tiny_model

BERT = ModelShape("bert", 100, 32, 384, 384, (LayerShape(12, 32, 1536),) * 2, 2)
ELECTRA = replace(BERT, family="electra", embedding=128, hidden=256)


class Share:
    def __init__(self, share):
        self.share = share

    def suggest_categorical(self, name, choices):
        assert name == "hidden_keep" and self.share in choices
        return self.share


def kept(shape, share, align) -> int:
    return suggest(Share(share), shape, Space((1,), hidden_keep=(share,), align=align)).keep


def test_the_kept_share_is_a_multiple_of_the_alignment():
    assert [kept(BERT, share, 32) for share in (1.0, 0.75, 0.5, 0.3, 0.01)] == [384, 288, 192, 4 * 32, 32]
    assert kept(BERT, 0.7, 1) == round(0.7 * 384)


def test_all_channels_stay_at_a_share_of_one_whatever_the_alignment():
    odd = replace(BERT, hidden=35, embedding=35)
    assert kept(odd, 1.0, 32) == 35
    assert kept(odd, 0.9, 64) == 35


def test_projected_embeddings_keep_their_width_and_never_meet_it():
    assert reshape(ELECTRA, HiddenStep(96)) == replace(ELECTRA, hidden=96)
    assert reshape(BERT, HiddenStep(96)) == replace(BERT, hidden=96, embedding=96)
    assert kept(ELECTRA, 0.5, 32) == 128 + 32
    with pytest.raises(UnsupportedError, match="128 hidden channels") as caught:
        reshape(ELECTRA, HiddenStep(128))
    assert "127 or 129" in caught.value.next_step


@pytest.mark.parametrize("keep", [0, -3, 49])
def test_a_width_that_the_model_cannot_have_is_refused(model, keep):
    with pytest.raises(ConfigError, match=f"{keep} hidden channels") as caught:
        apply(model, HiddenStep(keep), context_for(model))
    assert "1 to 48" in caught.value.right
    assert adapter_of(model).shape(model).hidden == 48


def test_keeping_all_channels_changes_nothing(model):
    before = {name: tensor.data_ptr() for name, tensor in model.state_dict().items()}
    apply(model, HiddenStep(48), context_for(model))
    assert {name: tensor.data_ptr() for name, tensor in model.state_dict().items()} == before


@pytest.mark.parametrize("keep", [1, 17, 47])
def test_a_slice_of_ordered_channels_equals_a_mask_with_norms_over_what_remains(model, family, keep):
    ordered = order_hidden(model, channel_scores(model, padded()))
    masked = tiny_model(family)
    order_hidden(masked, channel_scores(masked, padded()))
    adapter = adapter_of(masked)

    def over_kept(norm, inputs, _output):
        narrow = functional.layer_norm(inputs[0][..., :keep], (keep,), norm.weight[:keep], norm.bias[:keep], norm.eps)
        return functional.pad(narrow, (0, 48 - keep))

    for norm in adapter.hidden_norms(masked):
        norm.register_forward_hook(over_kept)
    if family == "electra":
        masked.electra.embeddings_project.register_forward_hook(
            lambda _module, _inputs, output: functional.pad(output[..., :keep], (0, 48 - keep))
        )
    with torch.no_grad():
        adapter.classifier_linear(masked).weight[:, keep:] = 0
    apply(ordered, HiddenStep(keep), context_for(ordered))
    torch.testing.assert_close(logits(ordered, padded()), logits(masked, padded()), rtol=1e-5, atol=1e-5)


def test_a_narrow_student_reads_back_from_its_file(model, family):
    other = apply(tiny_model(family, seed=1), HiddenStep(20), context_for(model))
    apply(model, HiddenStep(20), context_for(model))
    other.load_state_dict(load(save(model.state_dict())))
    assert torch.equal(logits(other, padded()), logits(model, padded()))


def test_a_narrow_student_attends_at_the_scale_of_its_heads(model):
    """Heads keep their width, so scores of attention are divided by its root and not by that of hidden / heads."""
    apply(model, HiddenStep(24), context_for(model))
    modules = adapter_of(model).layers(model)[0]
    assert adapter_of(model).shape(model).layers[0] == LayerShape(4, 12, 96)
    seen = []
    attention = modules.layer.get_submodule(modules.query.rpartition(".")[0])
    modules.get(modules.query).register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0]))
    modules.get(modules.output).register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0]))
    logits(model, padded()[:1])
    x, mixed = seen
    paths = (modules.query, modules.key, modules.value)
    q, k, v = (modules.get(path)(x).reshape(4, 6, 4, 12).transpose(1, 2) for path in paths)
    scores = q @ k.transpose(2, 3) / 12**0.5 + (1 - padded()[0].attention_mask[:, None, None, :]) * -1e9
    expected = (scores.softmax(-1) @ v).transpose(1, 2).reshape(4, 6, 48)
    torch.testing.assert_close(mixed, expected, rtol=1e-4, atol=1e-5)
    assert attention.attention_head_size == 12
