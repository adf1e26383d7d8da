"""Which predictor speaks for a device, and what is measured to make it; a formula takes the place of the runner."""

from dataclasses import replace

import pytest

from autocompress.cost import Artifact, Failure, Measurement
from autocompress.devices.load import load_profile
from autocompress.devices.profile import DeviceProfile
from autocompress.errors import DeviceError, OutOfRangeError, StorageError, UnsupportedError
from autocompress.pipeline import profiling
from autocompress.pipeline.bench import Bench
from autocompress.pipeline.calibration import predictor_for
from autocompress.pipeline.known import HOST, best_known, widths
from autocompress.pipeline.profiling import profile_device
from autocompress.predictors.predictor import FittedPredictor
from autocompress.predictors.sampling import COMMON_BITS, Variety, corners
from autocompress.profiling.timing import Timing
from autocompress.shape import BITS, LayerShape, ModelShape

TEACHER = ModelShape("bert", 60, 16, 32, 32, (LayerShape(4, 8, 64),) * 3, 2)
SAMPLES, TOKENS = 12, 8
FINE = Variety(align=16)


class ByFormula:
    """A runner whose latency is 1 ms and 0.01 ms a KiB of the artifact; every ``failing``-th artifact crashes."""

    runs = 0
    failing = 0

    def __init__(self, device: str) -> None:
        self.device = device

    def run(self, artifact: Artifact, timing: Timing, *, provenance) -> Measurement | Failure:
        ByFormula.runs += 1
        if self.failing and self.runs % self.failing == 0:
            return Failure("crash: SIGSEGV")
        latency_ms = 1 + artifact.size_bytes / 102_400
        return Measurement(
            samples_ms=(latency_ms,) * 5,
            peak_memory_bytes=10_000_000 + 2 * artifact.size_bytes,
            base_memory_bytes=10_000_000,
            size_bytes=artifact.size_bytes,
            device=self.device,
            engine=artifact.engine,
            threads=timing.threads,
            provenance={"reference_ms": "1.0", **provenance},
        )


@pytest.fixture(autouse=True)
def runner(monkeypatch, tmp_path):
    monkeypatch.setenv("AUTOCOMPRESS_HOME", str(tmp_path))
    monkeypatch.setattr(profiling, "LocalRunner", ByFormula)
    monkeypatch.setattr(ByFormula, "runs", 0)


@pytest.fixture
def host() -> DeviceProfile:
    return load_profile(HOST)


def predictor(profile: DeviceProfile, teacher: ModelShape = TEACHER, told=lambda *args: None, **other):
    size = {"threads": 1, "tokens": TOKENS, "samples": SAMPLES, "variety": FINE, **other}
    return predictor_for(profile, teacher, engine="onnxruntime", progress=told, **size)


def test_this_machine_is_measured_once_and_the_predictor_kept(host, tmp_path):
    made = predictor(host)
    assert isinstance(made, FittedPredictor)
    assert ByFormula.runs == len(made.samples) == SAMPLES
    assert (tmp_path / "latency_models/host-onnxruntime-1t.json").is_file()
    told = []
    again = predictor(host, told=lambda *event: told.append(event))
    assert ByFormula.runs == SAMPLES
    assert again.predict(TEACHER, TOKENS) == made.predict(TEACHER, TOKENS)
    assert told == [("calibrate", 1, 1, again.source)]


def test_profiling_replaces_a_predictor_that_cannot_be_read(host, tmp_path):
    predictor(host)
    path = tmp_path / "latency_models/host-onnxruntime-1t.json"
    path.write_text(path.read_text().replace("gemm_macs_8", "an older column"))
    with pytest.raises(StorageError, match="autocompress profile"):
        predictor(host)
    profile_device(host, TEACHER, engines=["onnxruntime"], threads=1, tokens=TOKENS, samples=SAMPLES)
    assert isinstance(best_known(host, "onnxruntime", 1), FittedPredictor)


def test_the_steps_of_calibration_are_told_from_none_to_all(host):
    told = []
    predictor(host, told=lambda stage, done, total, note: told.append((stage, done, total)))
    assert told == [("calibrate", done, SAMPLES) for done in range(SAMPLES + 1)]


def test_the_intervals_hold_nine_of_ten_measurements(host):
    made = predictor(host)
    held = 0
    for sample in made.samples:
        cost = made.predict(sample.shape, TOKENS)
        assert cost.calibrated
        held += cost.latency_p50_ms.low <= sample.latency_p50_ms <= cost.latency_p50_ms.high
    assert held >= 0.9 * SAMPLES


def test_a_larger_teacher_is_measured_too_and_the_earlier_samples_are_used(host):
    predictor(host)
    larger = replace(TEACHER, layers=(LayerShape(8, 8, 128),) * 4)
    made = predictor(host, larger)
    assert ByFormula.runs == 2 * SAMPLES
    assert {sample.shape for sample in made.samples} >= {TEACHER, larger}
    assert len(made.samples) > SAMPLES
    predictor(host)
    assert ByFormula.runs == 2 * SAMPLES  # the smaller one is still covered


@pytest.mark.parametrize("other", [{"cpu": "another processor"}, {"engines": {"onnxruntime": "0.1"}}])
def test_a_predictor_of_another_processor_or_engine_version_is_not_used(host, other):
    predictor(host)
    changed = host.model_copy(update=other)
    assert best_known(changed, "onnxruntime", 1) is None
    made = predictor(changed)
    assert ByFormula.runs == 2 * SAMPLES
    assert len(made.samples) == SAMPLES  # the samples of the other one are not mixed in


def test_another_number_of_threads_is_another_predictor(host):
    predictor(host)
    assert best_known(host, "onnxruntime", 2) is None
    assert best_known(host, "tvm", 1) is None


def test_a_board_that_was_never_measured_gets_its_roofline_and_nothing_runs(host):
    cost = predictor(load_profile("raspberry-pi-4")).predict(TEACHER, TOKENS)
    assert not cost.calibrated and "not calibrated" in cost.source
    assert ByFormula.runs == 0


def test_a_board_to_which_a_bench_leads_is_calibrated_once_and_then_known():
    board = load_profile("raspberry-pi-4")
    bench = Bench(ByFormula(board.name), board.tvm_target)
    size = {"threads": 1, "tokens": TOKENS, "samples": SAMPLES, "variety": FINE, "bench": bench}
    made = predictor_for(board, TEACHER, engine="onnxruntime", **size)
    assert made.predict(TEACHER, TOKENS).calibrated and ByFormula.runs == SAMPLES
    predictor_for(board, TEACHER, engine="onnxruntime", **size)
    assert ByFormula.runs == SAMPLES


def test_a_calibration_of_a_board_that_was_interrupted_goes_on():
    def interrupted(stage, done, total, note):
        if done == 5:
            raise KeyboardInterrupt

    board = load_profile("raspberry-pi-4")
    bench = Bench(ByFormula(board.name), board.tvm_target)
    size = {"threads": 1, "tokens": TOKENS, "samples": SAMPLES, "variety": FINE, "bench": bench}
    with pytest.raises(KeyboardInterrupt):
        predictor_for(board, TEACHER, engine="onnxruntime", progress=interrupted, **size)
    predictor_for(board, TEACHER, engine="onnxruntime", resume=True, **size)
    assert ByFormula.runs == SAMPLES


def test_samples_that_fail_are_left_out(host, monkeypatch):
    monkeypatch.setattr(ByFormula, "failing", 6)
    assert len(predictor(host).samples) == SAMPLES - SAMPLES // 6


def test_a_machine_on_which_too_little_runs_is_a_device_error_and_leaves_no_predictor(host, monkeypatch, tmp_path):
    monkeypatch.setattr(ByFormula, "failing", 2)
    with pytest.raises(DeviceError, match="Only 6 shapes"):
        profile_device(host, TEACHER, engines=["onnxruntime"], threads=1, tokens=TOKENS, samples=SAMPLES)
    assert list(tmp_path.rglob("*.json")) == []


def test_widths_are_measured_only_where_they_are_asked_for(host):
    sixteen = replace(TEACHER, layers=(replace(TEACHER.layers[0], ffn_in_bits=16), *TEACHER.layers[1:]))
    with pytest.raises(OutOfRangeError, match="_16 = "):
        predictor(host).predict(sixteen, TOKENS)
    knows = predictor(host, variety=replace(FINE, bits=(16, *COMMON_BITS)))
    assert ByFormula.runs == 2 * SAMPLES
    assert knows.predict(sixteen, TOKENS).calibrated
    assert not any(layer.ffn_in_bits == 2 for sample in knows.samples for layer in sample.shape.layers)
    predictor(host)
    assert ByFormula.runs == 2 * SAMPLES  # the one that knows more is used where less is asked


def test_several_widths_of_the_stream_are_measured_where_they_are_asked_for(host):
    narrow = TEACHER.with_hidden(20)
    with pytest.raises(OutOfRangeError, match="hidden = 20"):
        predictor(host).predict(narrow, TOKENS)
    knows = predictor(host, variety=replace(FINE, hidden=(16, 32)))
    assert ByFormula.runs == 2 * SAMPLES
    assert {sample.shape.hidden for sample in knows.samples} == {16, 32}
    assert knows.predict(narrow, TOKENS).calibrated
    predictor(host, variety=replace(FINE, hidden=(24, 32)))
    assert ByFormula.runs == 2 * SAMPLES


def test_token_schedules_are_measured_where_they_are_asked_for(host):
    variety = replace(FINE, tokens_keep=("all", 1.0, 0.25), max_tokens=TOKENS)
    few = replace(TEACHER, layers=TEACHER.layers[:2]).with_schedule(0.25, TOKENS)
    with pytest.raises(OutOfRangeError, match="which this predictor never saw"):
        predictor(host).predict(few, TOKENS)
    knows = predictor(host, variety=variety)
    assert {sample.shape for sample in knows.samples} >= set(corners(TEACHER, variety))
    assert {sample.shape.layers[-1].most_tokens for sample in knows.samples} >= {0, 1}
    assert knows.predict(few, TOKENS).calibrated
    assert knows.predict(TEACHER, TOKENS).calibrated


def test_all_corners_are_measured_however_few_samples_are_asked_for(host):
    every = Variety(bits=BITS)
    made = profile_device(host, TEACHER, engines=["onnxruntime"], tokens=TOKENS, samples=9, variety=every)
    assert {sample.shape for sample in made["onnxruntime"].samples} >= set(corners(TEACHER, every))


def test_widths_are_the_common_ones_and_those_asked_for():
    assert widths(()) == (4, 8, 32)
    assert widths([16, 8, 16, 3]) == (3, 4, 8, 16, 32)
    with pytest.raises(UnsupportedError, match="Weights of 5, 7 bits"):
        widths([7, 16, 5])


def test_a_profiling_that_was_interrupted_takes_only_what_is_missing(host, monkeypatch):
    def interrupted(stage, done, total, note):
        if done == 5:
            raise KeyboardInterrupt

    settings = {"engines": ["onnxruntime"], "threads": 1, "tokens": TOKENS, "samples": SAMPLES, "variety": FINE}
    with pytest.raises(KeyboardInterrupt):
        profile_device(host, TEACHER, **settings, progress=interrupted)
    assert ByFormula.runs == 5
    made = profile_device(host, TEACHER, **settings, resume=True)["onnxruntime"]
    assert ByFormula.runs == len(made.samples) == SAMPLES
    profile_device(host, TEACHER, **settings)
    assert ByFormula.runs == 2 * SAMPLES


def test_a_board_is_measured_by_its_runner_and_compiled_for_its_target(host):
    board = load_profile("raspberry-pi-4")
    bench = Bench(ByFormula(board.name), board.tvm_target)
    settings = {"engines": ["onnxruntime"], "threads": 1, "tokens": TOKENS, "samples": SAMPLES, "variety": FINE}
    made = profile_device(board, TEACHER, **settings, bench=bench)["onnxruntime"]
    assert made.device == board.name
    assert predictor(board).predict(TEACHER, TOKENS).calibrated
