from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from transformers import ViTConfig, ViTForImageClassification

from autocompress.errors import ConfigError, UnsupportedError
from autocompress.evaluation.image_classification import ImageClassification
from autocompress.evaluation.pixel_format import PixelFormat, read_format
from autocompress.evaluation.task import answered_by, predict_with
from autocompress.evaluation.text_classification import text_of
from autocompress.feeds import Feeds, Logits, check_feeds, feeds_of
from autocompress.shape import Pixels
from autocompress.training.batches import arrays_of
from autocompress.training.loop import cross_entropy, repeat, train
from tests.evaluation.pictures import CLASSES, dataset

IMAGE = Pixels(channels=1, height=8, width=8, patch=4)
FORMAT = PixelFormat(1, 8, 8, (0.5,), (0.5,))
TOKENS = IMAGE.patches + IMAGE.learned


@pytest.fixture
def task() -> ImageClassification:
    return ImageClassification(dataset(), FORMAT, tokens=TOKENS)


def tiny_vit() -> ViTForImageClassification:
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        image_size=8, patch_size=4, num_channels=1, num_labels=len(CLASSES),
    )  # fmt: skip
    return ViTForImageClassification(config).eval()


def bright(given: Feeds) -> Logits:
    """Answer right: each class is 90 levels brighter than the one before, from 0 to 59."""
    levels = 255 * (given["pixel_values"] + 1) / 2
    return np.eye(3, dtype=np.float32)[np.round((levels.mean((1, 2, 3)) - 30) / 90).astype(int)]


def places(batches) -> list[int]:
    return torch.cat([batch.indices for batch in batches]).tolist()


@pytest.mark.parametrize("seed", [None, 0, 1])
def test_batches_hold_each_image_once_with_its_pixels_and_label(task, seed):
    batches = task.batches("train", batch_size=7, seed=seed)
    assert len(batches) == math.ceil(60 / 7)
    assert sorted(places(batches)) == list(range(60))
    images, labels = task.dataset.train.images, task.dataset.train.labels
    for batch in batches:
        check_feeds(arrays_of(batch), feeds_of(IMAGE))
        assert batch.attention_mask.shape == (len(batch.labels), TOKENS)
        assert batch.labels.tolist() == [labels[place] for place in batch.indices]
        expected = images[batch.indices.numpy()] / 255 * 2 - 1
        np.testing.assert_allclose(batch.inputs["pixel_values"].numpy(), expected, atol=1e-6)


def test_the_seed_alone_decides_the_order(task):
    first, again, other = (places(task.batches("train", batch_size=8, seed=seed)) for seed in (1, 1, 2))
    assert first == again != other
    assert first != places(task.batches("train", batch_size=8)) == list(range(60))


def test_a_limit_draws_the_same_images_for_every_seed_and_nests(task):
    drawn = [set(places(task.batches("train", batch_size=8, seed=seed, limit=12))) for seed in (None, 3, 4)]
    assert drawn[0] == drawn[1] == drawn[2]
    assert drawn[0] < set(places(task.batches("train", batch_size=8, limit=20)))
    assert sorted(task.dataset.train.labels[place] for place in drawn[0]) == [0] * 4 + [1] * 4 + [2] * 4


def test_some_of_the_batches_are_batches_too(task):
    some = task.batches("train", batch_size=8)[2:5]
    assert len(some) == 3
    assert places(some) == list(range(16, 40))


def test_images_are_gathered_in_the_order_asked_for(task):
    batch = task.gather("test", torch.tensor([5, 0, 5]))
    assert batch.indices.tolist() == [5, 0, 5]
    assert torch.equal(batch.pixels[0], batch.pixels[2])
    assert batch.labels.tolist() == [task.dataset.test.labels[place] for place in (5, 0, 5)]


def test_who_tells_brightness_is_right_on_every_split_and_who_does_not_is_as_often_as_chance(task):
    for split, count in (("train", 60), ("validation", 15), ("test", 18)):
        score = task.evaluate(bright, split)
        assert (score.value, score.count) == (1.0, count)
    assert task.evaluate(lambda given: -bright(given), "test", limit=6).value == pytest.approx(0)


def test_a_model_answers_the_same_one_by_one_and_many_at_once(task):
    predict = predict_with(tiny_vit())
    assert task.answers(predict, "test", batch_size=1) == task.answers(predict, "test", batch_size=50)


def test_a_vision_transformer_is_fitted_to_images(task):
    model = tiny_vit()
    batches = repeat(lambda number: task.batches("train", batch_size=20, seed=number), steps=60)
    log = train(model, batches, cross_entropy, learning_rate=3e-3, steps=60)
    assert log.losses[-1] < 0.3 < log.losses[0]
    assert task.evaluate(predict_with(model), "test").value > 0.9


def test_answers_can_take_the_place_of_labels(task):
    fidelity = answered_by(task, lambda given: np.roll(bright(given), 1, axis=1), ("train", "validation"))
    assert fidelity.dataset.train.labels == tuple((label + 1) % 3 for label in task.dataset.train.labels)
    assert fidelity.dataset.test is not fidelity.dataset.train
    assert fidelity.dataset.test.labels == task.dataset.test.labels
    assert fidelity.dataset.train.content() != task.dataset.train.content()


def test_every_image_has_as_many_tokens_and_what_is_saved_makes_the_same_pixels(task, tmp_path):
    assert {len(tokens) for tokens in task.tokens("train")} == {TOKENS}
    assert len(task.tokens("validation")) == 15
    task.save(tmp_path)
    assert read_format(tmp_path, IMAGE) == FORMAT
    assert json.loads(json.dumps(task.encoding))["mean"] == [0.5]


def test_an_unknown_metric_and_what_needs_text_are_refused(task):
    with pytest.raises(ConfigError, match="accuracy, macro_f1"):
        ImageClassification(dataset(), FORMAT, tokens=TOKENS, metric="f2")
    with pytest.raises(UnsupportedError, match="A smaller vocabulary needs text"):
        text_of(task, "A smaller vocabulary")
