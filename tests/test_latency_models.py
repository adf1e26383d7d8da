"""What every predictor in ``latency_models/`` keeps."""

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autocompress.cost import FIGURES
from autocompress.devices.load import list_profiles, load_profile
from autocompress.engines import ENGINES
from autocompress.errors import OutOfRangeError
from autocompress.predictors.families import fit_from_dict
from autocompress.predictors.fit import fit
from autocompress.predictors.intervals import COVERAGE
from autocompress.predictors.predictor import FittedPredictor
from autocompress.predictors.sampling import COMMON_BITS
from autocompress.predictors.store import file_name, load
from autocompress.shape import BITS
from benchmarks.hat import FEATURES, LABEL

FOLDER = Path(__file__).parents[1] / "latency_models"
FILES = sorted(FOLDER.glob("*.json"))
FOREIGN = sorted((FOLDER / "foreign").glob("*.json"))


@pytest.fixture(params=FILES, ids=lambda file: file.stem)
def file(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture
def predictor(file: Path) -> FittedPredictor:
    return load(file)


def test_there_is_one() -> None:
    assert FILES


def test_its_file_is_named_after_what_it_speaks_of(file: Path, predictor: FittedPredictor) -> None:
    assert file.name == file_name(predictor.device, predictor.engine, predictor.threads)
    assert predictor.engine in ENGINES


def test_it_belongs_to_a_device_that_says_it_was_measured(predictor: FittedPredictor) -> None:
    profile = load_profile(predictor.device)
    assert profile.calibration == "measured"
    assert predictor.threads <= profile.core_count
    assert predictor.provenance["cpu"] == profile.cpu
    assert predictor.provenance["engine_version"] == profile.engines[predictor.engine]
    assert predictor.provenance.keys() >= {"date", "conditions"}


def test_every_device_that_says_it_was_measured_has_one() -> None:
    boards = [load_profile(name) for name in list_profiles() if name != "host"]
    says = {profile.name for profile in boards if profile.calibration == "measured"}
    assert says == {load(file).device for file in FILES}


@pytest.mark.parametrize("figure", FIGURES)
def test_its_drawn_samples_lie_in_its_intervals_as_often_as_promised(predictor: FittedPredictor, figure: str) -> None:
    drawn = [sample for sample in predictor.samples if sample.drawn]
    table = predictor.predict_many([sample.shape for sample in drawn], drawn[0].tokens)
    _, low, high = table.figures[figure].T
    values = np.array([getattr(sample, figure) for sample in drawn])
    # The width is that of errors on samples left out, at a rank between two samples: one may lie on either side.
    assert np.mean((low <= values) & (values <= high)) >= COVERAGE - 1 / len(drawn)


def test_it_is_what_a_fit_to_its_samples_gives(predictor: FittedPredictor) -> None:
    """Numbers were fitted, not written: fitting again foresees every sample alike, up to rounding of the solver."""
    again = fit(
        predictor.samples,
        device=predictor.device,
        engine=predictor.engine,
        threads=predictor.threads,
        provenance=predictor.provenance,
    )
    assert again.ranges == predictor.ranges
    for sample in predictor.samples:
        stored, fresh = (one.predict(sample.shape, sample.tokens).figures() for one in (predictor, again))
        assert fresh == pytest.approx(stored, rel=1e-3)


def test_it_refuses_widths_that_none_of_its_samples_has(predictor: FittedPredictor) -> None:
    shape, tokens = predictor.samples[0].shape, predictor.samples[0].tokens
    measured = {layer.ffn_in_bits for sample in predictor.samples for layer in sample.shape.layers}
    assert set(COMMON_BITS) <= measured < set(BITS)
    for bits in BITS:
        asked = replace(
            shape, layers=tuple(replace(layer, ffn_in_bits=bits, ffn_out_bits=bits) for layer in shape.layers)
        )
        with nullcontext() if bits in measured else pytest.raises(OutOfRangeError, match=f"_{bits} = "):
            predictor.predict(asked, tokens)


@pytest.mark.parametrize("path", FOREIGN, ids=lambda path: path.stem)
def test_what_was_fitted_on_others_measurements_says_exactly_what_it_is(path: Path) -> None:
    """It is no device's predictor: it lies apart, and nothing finds it by a device's name."""
    data = json.loads(path.read_text())
    assert data["label"] == LABEL
    assert data["provenance"].keys() >= {"source", "file", "licence", "paper", "records", "records_left_out_as_slow"}
    low, high = np.array(list(data["ranges"].values())).T
    assert tuple(data["ranges"]) == tuple(data["features"]) == FEATURES
    ends = fit_from_dict(data["fit"]).predict(np.array([low, high]))
    assert 0 < ends[0] < ends[1]
    assert data["selection"]["held_out_mape"] < 0.011
