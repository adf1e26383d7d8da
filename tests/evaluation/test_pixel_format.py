from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor

from autocompress.errors import SourceError
from autocompress.evaluation.pixel_format import PROCESSOR_FILE, PixelFormat, read_format
from autocompress.shape import Pixels

COLOUR = Pixels(channels=3, height=8, width=8, patch=4)
FORMAT = PixelFormat(3, 8, 8, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), resampling="bicubic")
PHOTO = np.random.default_rng(0).integers(0, 256, (21, 34, 3), dtype=np.uint8)


def processor(folder: Path, **told: object) -> Path:
    usual = {"size": {"height": 8, "width": 8}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 2}
    (folder / PROCESSOR_FILE).write_text(json.dumps(usual | told))
    return folder


@pytest.mark.parametrize(
    ("resampling", "filter_"), [("bilinear", Image.Resampling.BILINEAR), ("bicubic", Image.Resampling.BICUBIC)]
)
@pytest.mark.parametrize("size", [(8, 8), (5, 11), (40, 50)])
def test_an_image_is_resized_as_pillow_resizes_it(resampling, filter_, size):
    found = PixelFormat(3, *size, (0.5,) * 3, (0.5,) * 3, resampling=resampling).fit(PHOTO, "here")
    expected = np.asarray(Image.fromarray(PHOTO).resize(size[::-1], filter_)).transpose(2, 0, 1)
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_an_image_of_the_right_size_stays_as_it_is():
    assert np.array_equal(FORMAT.fit(PHOTO[:8, :8], "here"), PHOTO[:8, :8].transpose(2, 0, 1))


@pytest.mark.parametrize(("resize", "scaled"), [((12,), (12, 19)), ((10, 9), (10, 9))])
def test_the_middle_of_a_larger_image_is_cut_out(resize, scaled):
    found = PixelFormat(3, 8, 8, (0.5,) * 3, (0.5,) * 3, resize=resize).fit(PHOTO, "here")
    whole = np.asarray(Image.fromarray(PHOTO).resize(scaled[::-1], Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    top, left = (scaled[0] - 8) // 2, (scaled[1] - 8) // 2
    assert np.abs(found.astype(int) - whole[:, top : top + 8, left : left + 8]).max() <= 1


def test_grey_images_are_read_by_a_model_of_colour_images_and_colour_by_no_model_of_grey_ones():
    grey = FORMAT.fit(PHOTO[:, :, :1], "here")
    assert grey.shape == (3, 8, 8)
    assert np.array_equal(grey[0], grey[2])
    with pytest.raises(SourceError, match="here has 3 channels, and the model reads 1"):
        PixelFormat(1, 8, 8, (0.5,), (0.5,)).fit(PHOTO, "here")


def test_levels_become_numbers_of_mean_0_and_deviation_1():
    levels = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(3, 1, 1, 1).expand(3, 3, 1, 1)
    found = FORMAT.normalize(levels)
    expected = (levels.double() / 255 - torch.tensor(FORMAT.mean).view(3, 1, 1)) / torch.tensor(FORMAT.deviation).view(
        3, 1, 1
    )
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected)


def test_a_model_without_a_processor_reads_pixels_from_minus_one_to_one(tmp_path):
    found = read_format(tmp_path, COLOUR).normalize(torch.tensor([[[[0]], [[255]], [[255]]]], dtype=torch.uint8))
    assert found.flatten().tolist() == pytest.approx([-1, 1, 1])


@pytest.mark.parametrize("resize", [(), (12,), (10, 9)])
def test_a_format_survives_its_file_and_transformers_reads_that(tmp_path, resize):
    format_ = PixelFormat(3, 8, 8, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), 1 / 127, resize, "bicubic")
    format_.save(tmp_path)
    assert read_format(tmp_path, COLOUR) == format_
    theirs = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")(Image.fromarray(PHOTO), return_tensors="pt")
    ours = format_.normalize(torch.from_numpy(format_.fit(PHOTO, "here"))[None])
    assert (ours - theirs["pixel_values"]).abs().max() <= 1.01 / 127 / 0.2


def test_what_a_processor_leaves_out_is_left_out(tmp_path):
    found = read_format(processor(tmp_path, do_normalize=False, do_rescale=False), COLOUR)
    assert found.normalize(torch.full((1, 3, 8, 8), 7, dtype=torch.uint8)).unique().tolist() == [7.0]


@pytest.mark.parametrize(
    ("told", "wrong"),
    [
        ({"image_mean": [0.5, 0.5]}, "2 numbers for 3 channels"),
        ({"resample": 1}, "KeyError: 1"),
        ({"size": {"longest_edge": 8}}, "shortest_edge"),
        ({"size": {"height": 16, "width": 8}}, "makes images of 16 x 8 pixels"),
        ({"do_center_crop": True, "crop_size": {"height": 8, "width": 6}}, "makes images of 8 x 6 pixels"),
        ({"do_center_crop": True, "size": {"shortest_edge": 7}, "crop_size": 8}, "makes images of 7 pixels"),
    ],
)
def test_a_processor_that_does_not_fit_its_model_is_refused(tmp_path, told, wrong):
    with pytest.raises(SourceError, match=wrong) as caught:
        read_format(processor(tmp_path, **told), COLOUR)
    assert "8 x 8" in caught.value.right or "channels" in caught.value.right


def test_a_processor_that_is_no_json_is_refused(tmp_path):
    (tmp_path / PROCESSOR_FILE).write_text("{")
    with pytest.raises(SourceError, match="cannot be used"):
        read_format(tmp_path, COLOUR)
