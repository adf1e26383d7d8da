"""The benchmark of low-bit vision transformers: its arithmetic, on a tiny one."""

import gzip
import math
import struct
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from autocompress.compression.activations.attention_maps import AttentionMap
from autocompress.compression.activations.logarithm import fit_log_sqrt2
from benchmarks.attention_probe import attentions, maps_of, operands
from benchmarks.vit_model import DEVIATION, MEAN, SMALL, Pictures, read_pictures, train
from benchmarks.vit_quantization import SENTENCES, TOKENS, Scored, documents, report_vit
from benchmarks.vit_simulated import DOPQ, RECIPES, REPQ, UNIFORM, published_log_sqrt2, quantized
from tests.compression.pre_norm import LAYERS, pictures, tiny_vit


@torch.no_grad()
def logits(model):
    return model(**pictures()).logits


def test_probed_attention_is_attention_and_shows_its_operands():
    model = tiny_vit()
    expected = logits(model)
    found = operands(model, [pictures()])
    torch.testing.assert_close(logits(model), expected)
    assert len(found) == LAYERS
    (each,) = maps_of(found[0])
    torch.testing.assert_close(each.probabilities.sum(-1), torch.ones(64, 2, 5))
    scores = found[0]["query"][0] @ found[0]["key"][0].transpose(-1, -2) / 8**0.5
    torch.testing.assert_close(scores.softmax(-1), each.probabilities)
    (some,) = maps_of(found[0], every=2)
    assert torch.equal(some.probabilities, each.probabilities[..., [0, 2, 4], :])
    assert torch.equal(some.values, each.values)


@pytest.mark.parametrize("name", RECIPES)
def test_every_linear_reads_and_holds_no_more_values_than_its_bits_tell_apart(name):
    model = tiny_vit()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    student = quantized(model, RECIPES[name], pictures()["pixel_values"], 3)
    read = {}

    def hook(key):
        return lambda _module, inputs: read.update({key: inputs[0].unique()})

    mapped = {key: each for key, each in student.named_modules() if isinstance(each, nn.Linear | nn.Conv2d)}
    for key, module in mapped.items():
        module.register_forward_pre_hook(hook(key))
    assert torch.isfinite(logits(student)).all()
    for key, module in mapped.items():
        outer = "projection" in key or "classifier" in key
        # A mean as zero point is a fraction, and clamped ends are a value more.
        spare = not outer and RECIPES[name].norm == "mean"
        assert len(read[key]) <= 2 ** (8 if outer else 3) + spare, key
        assert all(len(row.unique()) <= 2 ** (8 if outer else 3) for row in module.weight.flatten(1)), key
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", [REPQ, DOPQ])
def test_more_bits_come_nearer_to_the_float_model(name):
    model = tiny_vit()
    expected, images = logits(model), pictures()["pixel_values"]
    errors = [
        float((logits(quantized(model, RECIPES[name], images, bits)) - expected).square().mean()) for bits in (3, 8)
    ]
    assert errors[1] < errors[0] / 20


def test_channels_of_uneven_ranges_are_what_reparameterization_is_for():
    model = tiny_vit()
    expected, images = logits(model), pictures()["pixel_values"]
    uniform = RECIPES["uniform"]
    errors = {
        norm: float((logits(quantized(model, replace(uniform, norm=norm), images, 6)) - expected).square().mean())
        for norm in ("layer", "mean", "mosf")
    }
    assert max(errors["mean"], errors["mosf"]) < errors["layer"]


def test_the_baseline_is_the_published_one_fitted_to_maps_alone_with_a_level_more():
    maps = [AttentionMap(torch.softmax(3 * torch.randn(2, 9, 9), -1), 1e3 * torch.rand(2, 9, 4))]
    found = published_log_sqrt2(maps, 4)
    assert len(found.levels) == 17
    assert found.top == fit_log_sqrt2([AttentionMap(maps[0].probabilities)], 4).top


def test_gains_are_of_equal_models_and_images():
    def scored(name, bits, trained, correct):
        return Scored("tiny", bits, name, trained, 0, correct, 100)

    found = [scored("float", 32, seed, 90) for seed in (0, 1)]
    for bits in (4, 3):
        for name in RECIPES:
            points = {UNIFORM: (50, 70), REPQ: (60, 80), DOPQ: (62, 86)}.get(name, (1, 1))
            found += [scored(name, bits, seed, points[seed]) for seed in (0, 1)]
    row = report_vit(found)[0]
    assert (row["models"], row["runs"], row["accuracy"]["float"]) == (2, 2, (90.0, 0.0))
    # 2 and 6 points: a mean of 4, and a standard error of sqrt(8) / sqrt(2).
    assert row["gains"]["DopQ-ViT over RepQ-ViT"] == (4.0, 2.0)
    assert row["gains"]["RepQ-ViT over uniform"] == (10.0, 0.0)


def test_pictures_are_read_from_the_files_of_mnist(tmp_path):
    levels = bytes(range(256)) * 7 + bytes(784 * 3 - 256 * 7)
    files = {"images-idx3": struct.pack(">4B3I", 0, 0, 8, 3, 3, 28, 28) + levels}
    files["labels-idx1"] = struct.pack(">4BI", 0, 0, 8, 1, 3) + bytes([3, 1, 9])
    for name, content in files.items():
        (tmp_path / f"t10k-{name}-ubyte.gz").write_bytes(gzip.compress(content))
    found = read_pictures(tmp_path, "t10k")
    assert (tuple(found.pixels.shape), found.labels.tolist()) == ((3, 1, 28, 28), [3, 1, 9])
    assert float(found.pixels[0, 0, 0, 5]) == pytest.approx((5 / 255 - MEAN) / DEVIATION)
    assert len(found.draw(2, 0)) == 2 and torch.equal(found.draw(2, 0), found.draw(2, 0))


def test_training_lowers_the_loss_and_a_seed_repeats_it():
    torch.manual_seed(0)
    labels = torch.randint(10, (200,))
    pixels = torch.randn(200, 1, 28, 28) + labels[:, None, None, None]
    size = replace(SMALL, hidden=16, depth=1, heads=2, patch=14, steps=150)
    first, second = (train(size, 0, Pictures(pixels, labels)) for _ in range(2))
    with torch.no_grad():
        loss = nn.functional.cross_entropy(first(pixel_values=pixels).logits, labels)
        assert torch.equal(first(pixel_values=pixels).logits, second(pixel_values=pixels).logits)
    assert float(loss) < 0.9 * math.log(10)  # less than what is known before any training
    assert not first.training and len(attentions(first)) == 1


def test_documents_are_whole_and_of_sentences_that_follow_each_other():
    class Task:
        def encode(self, texts):
            return [[int(word) for word in text.split()][:TOKENS] for text in texts]

    sentences = ["1"] * SENTENCES + ["2 3 4 5 6 7 8 9"] * SENTENCES + ["5 5 5 5 5 5 5 5 5"] * SENTENCES
    found = list(documents(SimpleNamespace(task=Task()), sentences, 5))
    # The first sixteen sentences are too short for a document, the others are 128 and 144 words, of which 128 are kept.
    assert [tuple(each["input_ids"].shape) for each in found] == [(1, 128), (1, 128)]
    assert found[0]["input_ids"][0, 8:16].tolist() == [2, 3, 4, 5, 6, 7, 8, 9]
    assert len(list(documents(SimpleNamespace(task=Task()), sentences, 1))) == 1
