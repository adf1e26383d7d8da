"""How samples are taken; a formula takes the place of the runner, and a counter that of the clock."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from autocompress.compiler.build import BUILDERS
from autocompress.cost import Artifact, Failure, Measurement
from autocompress.devices.load import load_profile
from autocompress.errors import DeviceError
from autocompress.pipeline.bench import Bench
from autocompress.pipeline.campaign import KEPT_BACK
from autocompress.pipeline.known import HOST, best_known
from autocompress.pipeline.profiling import POOL_SEED, profile_device
from autocompress.predictors.acquisition import POOL
from autocompress.predictors.sampling import BLOCK_VOCABULARY, Variety, block, candidates, corners, sample_shapes
from autocompress.predictors.store import load
from autocompress.profiling.sustained import Interval, Sustained
from autocompress.profiling.timing import Timing
from autocompress.shape import LayerShape, ModelShape

TEACHER = ModelShape("bert", 60, 16, 32, 32, (LayerShape(4, 8, 64),) * 3, 2)
FINE = Variety(align=16)
CORNERS = len(corners(TEACHER, FINE))
TOKENS = 8
LASTING = Sustained(120.0, (Interval(0.0, 10.0, 100), Interval(119.0, 12.0, 83)))


class Device:
    """Runs artifacts in no time; a second passes with each on its own clock."""

    def __init__(self, slow=range(0), failing=range(0), emulated="") -> None:
        self.runs: list[str] = []
        self.vocabularies: list[int] = []
        self.slow, self.failing = slow, failing
        self.said = {"emulated": emulated} if emulated else {}

    def clock(self) -> float:
        return float(len(self.runs))

    def run(self, artifact: Artifact, timing: Timing, *, provenance) -> Measurement | Failure:
        position = len(self.runs)
        self.runs.append(artifact.engine)
        self.vocabularies.append(timing.vocabulary)
        if position in self.failing:
            return Failure("crash: SIGSEGV")
        factor = 1.4 if position in self.slow else 1.0
        return Measurement(
            samples_ms=(factor * (1 + artifact.size_bytes / 102_400),) * 5,
            peak_memory_bytes=10_000_000 + 2 * artifact.size_bytes,
            base_memory_bytes=10_000_000,
            size_bytes=artifact.size_bytes,
            device="d",
            engine=artifact.engine,
            threads=timing.threads,
            provenance={
                "reference_ms": f"{factor}",
                "start_s": f"{position}",
                **({"sustained": LASTING.to_json()} if timing.sustained_s == 120 else {}),
                **self.said,
                **provenance,
            },
        )


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("AUTOCOMPRESS_HOME", str(tmp_path))
    return tmp_path


def profiled(device: Device, *engines: str, profile=None, teacher=TEACHER, **settings):
    asked = {"engines": engines or ("onnxruntime",), "tokens": TOKENS, "variety": FINE, "tune": "off", **settings}
    asked |= {} if "tvm" in asked["engines"] else {"tune": None}
    profile = profile or load_profile(HOST)
    return profile_device(profile, teacher, bench=Bench(device), clock=device.clock, **asked)


def test_engines_take_turns_on_each_shape(monkeypatch):
    monkeypatch.setitem(BUILDERS, "tvm", BUILDERS["onnxruntime"])  # Nothing runs it, so nothing need be compiled.
    device = Device()
    made = profiled(device, "onnxruntime", "tvm", samples=12)
    assert device.runs == ["onnxruntime", "tvm"] * 12
    assert {engine: predictor.engine for engine, predictor in made.items()} == {
        "onnxruntime": "onnxruntime",
        "tvm": "tvm",
    }
    assert [sample.shape for sample in made["tvm"].samples] == [sample.shape for sample in made["onnxruntime"].samples]


def test_minutes_end_the_sampling_and_keep_a_share_for_measuring_again():
    device = Device()
    made = profiled(device, minutes=1)
    assert len(made["onnxruntime"].samples) == len(device.runs) == 60 * (1 - KEPT_BACK)


def test_how_much_is_left_is_told_by_the_time_where_that_ends_the_sampling():
    told = []
    profiled(Device(), minutes=1, progress=lambda stage, done, total, note: told.append((done, total)))
    assert told[0] == (0, 400)
    assert told[1:48] == [(done, 48) for done in range(1, 48)]
    told.clear()
    profiled(Device(), samples=12, progress=lambda stage, done, total, note: told.append((done, total)))
    assert told[:12] == [(done, 12) for done in range(12)]


def test_the_corners_are_measured_however_few_minutes_there_are():
    assert len(profiled(Device(), minutes=0.01)["onnxruntime"].samples) == CORNERS + 1 == 9


def test_samples_limit_what_minutes_would_allow():
    assert len(profiled(Device(), minutes=60, samples=15)["onnxruntime"].samples) == 15


def test_a_slow_stretch_is_told_measured_again_and_kept_in_the_timeline(home):
    told = []
    device = Device(slow=range(10, 16))
    made = profiled(device, samples=24, progress=lambda *event: told.append(event[-1]))["onnxruntime"]
    assert len(device.runs) == 30
    assert [moment.slow for moment in made.timeline] == [10 <= position < 16 for position in range(24)]
    assert [moment.reference_ms for moment in made.timeline if moment.slow] == [1.4] * 6
    assert any("slow by 40 % from sample 10 to 15" in note for note in told)
    assert "slow by 40 % from sample 10 to 15" in made.provenance["episodes"]
    assert all(sample.latency_p50_ms == pytest.approx(1 + sample.size_bytes / 102_400) for sample in made.samples)
    assert load(home / "latency_models/host-onnxruntime-1t.json").timeline == made.timeline


def test_what_fails_is_counted_and_told():
    told = []
    made = profiled(Device(failing={3, 7}), samples=20, progress=lambda *event: told.append(event[-1]))["onnxruntime"]
    assert len(made.samples) == 18
    assert made.provenance["failures"] == "crash 2"
    assert "onnxruntime: not measured: crash 2" in told


def test_the_times_of_an_emulator_never_become_a_devices(home):
    board = load_profile("raspberry-pi-4")
    with pytest.raises(DeviceError, match="was emulated by qemu-aarch64, and the profile raspberry-pi-4 is of a real"):
        profiled(Device(emulated="qemu-aarch64"), profile=board)
    assert best_known(board, "onnxruntime", 1) is None
    assert not any(
        "shape" in json.loads(line) for path in home.rglob("*.jsonl") for line in path.read_text().splitlines()
    )


def test_the_times_of_a_device_never_become_an_emulators():
    board = load_profile("raspberry-pi-4").model_copy(update={"name": "emulated", "emulated": "qemu-aarch64"})
    with pytest.raises(DeviceError, match="ran on a real processor, and the profile emulated is of one that qemu"):
        profiled(Device(), profile=board)


def test_a_predictor_of_an_emulated_board_says_so_and_is_not_calibrated(home):
    board = load_profile("raspberry-pi-4").model_copy(update={"name": "emulated", "emulated": "qemu-aarch64"})
    profiled(Device(emulated="qemu-aarch64"), profile=board, samples=12)
    cost = load(home / "latency_models/emulated-onnxruntime-1t.json").predict(TEACHER, TOKENS)
    assert not cost.calibrated
    assert cost.source.endswith("fitted on 12 samples that qemu-aarch64 emulated, not calibrated")


def test_minutes_under_load_are_a_figure_of_their_own():
    told, device = [], Device()
    settings = {"samples": 12, "sustained_minutes": 2, "progress": lambda *event: told.append(event[-1])}
    made = profiled(device, **settings)["onnxruntime"]
    assert len(device.runs) == 13 and len(made.samples) == 12
    assert Sustained.from_json(made.provenance["sustained"]) == LASTING
    assert "onnxruntime: 12.0 ms after 2 minutes under load, 10.0 ms at first (20 % slower)" in told


def test_energy_follows_from_the_power_that_the_profile_states(home):
    profile = load_profile("raspberry-pi-4")
    sources = {**profile.sources, "power_w": "a meter at the plug"}
    board = profile.model_copy(update={"power_w": 5.0, "sources": sources})
    made = profiled(Device(), profile=board, samples=9)["onnxruntime"]
    lines = [json.loads(line) for path in home.rglob("*.jsonl") for line in path.read_text().splitlines()]
    found = [line["measurement"] for line in lines if "measurement" in line]
    assert [one["energy_mj"] for one in found] == [pytest.approx(5 * one["samples_ms"][0]) for one in found]
    cost = made.predict(TEACHER, TOKENS)
    assert made.provenance["energy_source"] == "power_w of the profile"
    assert cost.energy_mj.value == pytest.approx(5 * cost.latency_p50_ms.value)
    assert cost.energy_mj.high == pytest.approx(5 * cost.latency_p50_ms.high)


def test_without_a_figure_of_power_there_is_no_energy():
    assert profiled(Device(), samples=9)["onnxruntime"].predict(TEACHER, TOKENS).energy_mj is None


def test_blocks_are_asked_about_ids_that_they_know_and_are_not_counted_as_drawn():
    device, large = Device(), replace(TEACHER, vocabulary=BLOCK_VOCABULARY + 1)
    made = profiled(device, teacher=large, samples=16)["onnxruntime"]
    assert set(device.vocabularies) == {BLOCK_VOCABULARY, large.vocabulary}
    assert [sample.shape.vocabulary for sample in made.samples] == device.vocabularies
    blocks = [sample for sample in made.samples if sample.shape.vocabulary == BLOCK_VOCABULARY]
    assert blocks and all(len(sample.shape.layers) == 1 for sample in blocks)
    assert not any(sample.drawn for sample in blocks)


def test_every_fourth_shape_after_the_corners_is_chosen_by_what_it_is_expected_to_tell_and_is_not_called_drawn():
    large = replace(TEACHER, vocabulary=BLOCK_VOCABULARY + 1)
    samples = profiled(Device(), teacher=large, samples=CORNERS + 8)["onnxruntime"].samples
    fourth = [samples[CORNERS + 3], samples[CORNERS + 7]]
    fixed = sample_shapes(large, CORNERS + 8, 0, FINE)
    assert [each.shape for each in samples if each not in fourth] == [
        shape for shape in fixed if shape not in (fixed[CORNERS + 3], fixed[CORNERS + 7])
    ]
    pool = candidates(large, POOL, POOL_SEED, FINE)
    assert all(each.shape in (*pool, *map(block, pool)) for each in fourth)
    assert [each.drawn for each in samples] == [False] * CORNERS + ([True] * 3 + [False]) * 2


def test_a_second_device_starts_from_the_first():
    first = profiled(Device(), samples=40, threads=2)["onnxruntime"]
    second = profiled(Device(), samples=CORNERS + 2)["onnxruntime"]
    families = [score.family for score in second.figures["latency_p50_ms"].scores]
    assert families[0] == f"from {first.device}, 2 threads"
