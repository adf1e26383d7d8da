"""A predictor held against models that are measured now; a formula takes the place of the runner."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autocompress.compiler.build import BUILDERS
from autocompress.cost import Failure, Measurement
from autocompress.devices.load import load_profile
from autocompress.errors import DeviceError
from autocompress.pipeline.bench import Bench
from autocompress.pipeline.fresh import TWICE, check_fresh, fresh_shapes
from autocompress.pipeline.known import HOST
from autocompress.predictors.predictor import FittedPredictor
from autocompress.predictors.store import load
from tests.pipeline.test_profiling import TEACHER, TOKENS, Device, profiled


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("AUTOCOMPRESS_HOME", str(tmp_path))
    return tmp_path


def checked(predictor: FittedPredictor, device: Device, count: int, **settings):
    return check_fresh(predictor, load_profile(HOST), count=count, bench=Bench(device), **settings)


def test_fresh_models_are_no_samples_and_lie_within_what_was_fitted():
    predictor = profiled(Device(), samples=16)["onnxruntime"]
    shapes = fresh_shapes(predictor, 12)
    assert len(set(shapes)) == 12
    assert not set(shapes) & {sample.shape for sample in predictor.samples}
    assert predictor.predict_many(shapes, TOKENS).known.all()
    assert all(len(shape.layers) <= len(TEACHER.layers) for shape in shapes)


def test_what_was_foreseen_stands_beside_what_was_measured():
    device, predictor = Device(), profiled(Device(), samples=24)["onnxruntime"]
    check = checked(predictor, device, 8)
    assert len(device.runs) == 8 + 8 // TWICE
    assert [len(model.measured) for model in check.models] == [2, 1, 1, 1] * 2
    for model, error in zip(check.models, check.errors, strict=True):
        latency = 1 + model.measured[0].size_bytes / 102_400
        assert model.latency_ms == pytest.approx(latency)
        assert error == pytest.approx(abs(model.foreseen.latency_p50_ms.value / latency - 1))
    assert check.held == sum(
        model.foreseen.latency_p50_ms.low <= model.latency_ms <= model.foreseen.latency_p50_ms.high
        for model in check.models
    )
    assert check.floor == 0.0


def test_the_floor_is_how_far_two_measurements_of_one_model_lie_apart():
    predictor = profiled(Device(), samples=16)["onnxruntime"]
    check = checked(predictor, Device(slow=range(4, 5)), 4)
    assert check.floor == pytest.approx(0.4)


def test_they_are_added_to_the_predictor_only_where_that_is_asked_for(home):
    predictor = profiled(Device(), samples=16)["onnxruntime"]
    (path,) = (home / "latency_models").glob("*.json")
    checked(predictor, Device(), 5)
    assert len(load(path).samples) == 16
    check = checked(predictor, Device(), 5, keep=True)
    kept = load(path).samples
    assert {model.shape for model in check.models} == {sample.shape for sample in kept[16:]}
    assert len(kept) == 21


def test_models_that_cannot_be_measured_are_counted_and_none_at_all_is_an_error():
    predictor = profiled(Device(), samples=16)["onnxruntime"]
    check = checked(predictor, Device(failing=range(1)), 4)
    assert dict(check.failures) == {"crash": 1} and len(check.models) == 4  # It ran when it was measured again.
    with pytest.raises(DeviceError, match="could be measured") as caught:
        checked(predictor, Device(failing=range(100)), 4)
    assert "crash" in caught.value.next_step


def test_times_of_an_emulator_are_refused_where_the_device_is_real():
    predictor = profiled(Device(), samples=16)["onnxruntime"]
    with pytest.raises(DeviceError, match="emulated"):
        checked(predictor, Device(emulated="qemu-aarch64"), 4)


def test_what_is_measured_is_of_the_predictors_engine_and_threads(monkeypatch):
    monkeypatch.setitem(BUILDERS, "tvm", BUILDERS["onnxruntime"])  # Nothing runs it, so nothing need be compiled.

    class Watched(Device):
        def run(self, artifact, timing, *, provenance) -> Measurement | Failure:
            assert (artifact.engine, timing.threads) == ("tvm", 3)
            return super().run(artifact, timing, provenance=provenance)

    predictor = replace(profiled(Device(), "tvm", samples=16)["tvm"], threads=3)
    assert len(checked(predictor, Watched(), 3).models) == 3
