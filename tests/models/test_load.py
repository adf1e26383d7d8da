import json

import pytest
import torch

from autocompress.errors import SourceError, UnsupportedError
from autocompress.models.load import adapter_of, load_classifier, load_shape
from tests.conftest import tiny_model


@pytest.fixture
def folder(tmp_path):
    tiny_model("bert").save_pretrained(tmp_path)
    return tmp_path


def change(folder, **settings) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def test_a_saved_model_is_read_back_with_its_weights_in_eval_mode(folder):
    model, saved = load_classifier(folder), tiny_model("bert")
    assert not model.training
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), saved.state_dict().values(), strict=True))


def test_the_shape_is_known_without_the_weights(folder):
    expected = adapter_of(tiny_model("bert")).shape(tiny_model("bert"))
    (folder / "model.safetensors").unlink()
    assert load_shape(folder) == expected


@pytest.mark.parametrize("settings", [{"hidden_size": "wide"}, {"num_attention_heads": 5}])
@pytest.mark.parametrize("read", [load_shape, load_classifier])
def test_a_configuration_that_makes_no_model_is_unreadable(folder, settings, read):
    change(folder, **settings)
    with pytest.raises(SourceError, match="cannot be read") as caught:
        read(folder)
    assert "\n" not in caught.value.wrong


@pytest.mark.parametrize("size", [0, 4, 500])
def test_weights_that_were_cut_off_are_unreadable(folder, size):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:size])
    with pytest.raises(SourceError, match="cannot be read"):
        load_classifier(folder)


@pytest.mark.parametrize("read", [load_shape, load_classifier])
def test_a_type_without_adapter_is_answered_with_those_that_there_are(folder, read):
    change(folder, model_type="gpt2")
    with pytest.raises(UnsupportedError, match="gpt2") as caught:
        read(folder)
    assert "bert, distilbert" in caught.value.right


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"model_type": "be'])
def test_a_folder_without_a_models_configuration_is_named(folder, text):
    (folder / "config.json").unlink()
    if text is not None:
        (folder / "config.json").write_text(text)
    with pytest.raises(SourceError, match=r"config\.json"):
        load_shape(folder)
