from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from transformers import ViTConfig, ViTForImageClassification

from autocompress.config import RunConfig, load_config
from autocompress.errors import ConfigError, UnsupportedError
from autocompress.evaluation.image_classification import ImageClassification
from autocompress.pipeline import inputs
from autocompress.pipeline.inputs import fetch_inputs, settled
from autocompress.shape import LayerShape, ModelShape, Pixels
from tests.evaluation.pictures import CLASSES, write_idx

IMAGE = Pixels(channels=1, height=8, width=8, patch=4)
SHAPE = ModelShape("vit", 0, 5, 16, 16, (LayerShape(2, 8, 32),) * 2, 3, pixels=IMAGE)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Write a vision transformer, images and a run file; return what reads the file with overrides."""
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        image_size=8, patch_size=4, num_channels=1, num_labels=len(CLASSES),
    )  # fmt: skip
    for name in ("teacher", "small"):
        ViTForImageClassification(config).save_pretrained(tmp_path / name)
    (tmp_path / "images").mkdir()
    write_idx(write_idx(tmp_path / "images", "train", 60), "t10k", 12, seed=1)
    monkeypatch.setattr(inputs, "load_shape", lambda folder: SHAPE)
    path = tmp_path / "run.yaml"
    path.write_text(
        f"model: {{source: {tmp_path / 'teacher'}}}\nbudget: {{size: 0.5x}}\n"
        f"task: {{kind: image-classification, data: {{source: {tmp_path / 'images'}}}}}\n"
    )

    def read(*overrides: str) -> RunConfig:
        return load_config(path, overrides)

    return read


def told(folder, mean: float) -> None:
    size = {"height": 8, "width": 8}
    written = {"size": size, "image_mean": [mean], "image_std": [0.25], "resample": 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(written))


def test_a_model_that_reads_images_gets_a_task_of_images_in_its_size_and_with_its_processor(run, tmp_path):
    told(tmp_path / "teacher", 0.3)
    found = fetch_inputs(run("task.eval_limit=6"))
    task = found.teacher.task
    assert isinstance(task, ImageClassification)
    assert found.start is found.teacher
    assert (task.format.mean, task.format.deviation, task.format.resampling) == ((0.3,), (0.25,), "bicubic")
    assert [len(split) for split in (task.dataset.train, task.dataset.validation, task.dataset.test)] == [54, 6, 6]
    assert task.max_tokens == 5
    assert found.teacher.shape == SHAPE


def test_only_the_model_tells_how_many_tokens_an_image_has(run):
    config = run()
    assert settled(config, fetch_inputs(config)).task.max_tokens == 5


def test_a_model_and_a_task_of_two_kinds_are_refused(run, monkeypatch):
    with pytest.raises(ConfigError, match=r"task\.kind is 'text-classification', and .*teacher reads images"):
        fetch_inputs(run("task.kind=text-classification"))
    monkeypatch.setattr(inputs, "load_shape", lambda folder: dataclasses.replace(SHAPE, pixels=None))
    with pytest.raises(ConfigError, match=r"task\.kind is 'image-classification', and .*teacher reads text"):
        fetch_inputs(run())


@pytest.mark.parametrize("override", ["search.space.recipe=[logits,distilbert]", "search.space.recipe=[tinybert]"])
def test_recipes_that_learn_from_text_are_refused_of_images(run, override):
    with pytest.raises(ConfigError, match="varied or masked") as caught:
        fetch_inputs(run(override))
    assert "self_distillation" in caught.value.right


def test_another_model_for_students_reads_images_as_the_teacher_does(run, tmp_path):
    small = f"model.student.source={tmp_path / 'small'}"
    found = fetch_inputs(run(small))
    assert found.start.task is found.teacher.task
    assert found.counterparts is None
    told(tmp_path / "small", 0.3)
    with pytest.raises(UnsupportedError, match="small reads images in another size"):
        fetch_inputs(run(small))
