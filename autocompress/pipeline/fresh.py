"""Hold a fitted predictor against models that it was not fitted on, measured now on its device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr

from autocompress.cost import Cost, Failure, Measurement
from autocompress.devices.paths import data_folders
from autocompress.devices.profile import DeviceProfile
from autocompress.errors import DeviceError
from autocompress.pipeline.bench import Bench
from autocompress.pipeline.campaign import measure_shape
from autocompress.pipeline.known import MODELS
from autocompress.pipeline.learning import refit
from autocompress.pipeline.profiling import SAMPLE_CAP_S
from autocompress.pipeline.progress import Progress, quiet
from autocompress.predictors.predictor import FittedPredictor, Sample
from autocompress.predictors.sampling import Variety, candidates
from autocompress.predictors.store import save
from autocompress.profiling.drift import without_waiting
from autocompress.profiling.runner import LocalRunner
from autocompress.profiling.timing import Timing
from autocompress.shape import BITS, Activations, ModelShape, WeightGrid

SEED = 2
"""Of the fresh shapes: neither that of samples drawn nor of those that samples are chosen from."""
TWICE = 4
"""Every so many shapes, one is measured again at the end: how far two measurements of one model lie apart is the floor
of any error."""


@dataclass(frozen=True)
class Checked:
    """One fresh model.

    Attributes:
        shape: What it is.
        foreseen: What was predicted.
        measured: In each of one or two fresh processes.
    """

    shape: ModelShape
    foreseen: Cost
    measured: tuple[Measurement, ...]

    @property
    def latency_ms(self) -> float:
        """Median latency of the first measurement, waiting taken off."""
        return self.measured[0].latency_p50_ms


@dataclass(frozen=True)
class Check:
    """How well the latency of fresh models was foreseen.

    Attributes:
        models: Each of them.
        failures: Reasons of those that could not be measured, with counts.
    """

    models: tuple[Checked, ...]
    failures: Counter[str]

    @property
    def errors(self) -> npt.NDArray[np.float64]:
        """(models,) absolute errors, as shares of the measured value."""
        foreseen = np.array([model.foreseen.latency_p50_ms.value for model in self.models])
        measured = np.array([model.latency_ms for model in self.models])
        return np.asarray(np.abs(foreseen / measured - 1), dtype=np.float64)

    @property
    def held(self) -> int:
        """How many measured values lie inside their intervals."""
        return sum(
            model.foreseen.latency_p50_ms.low <= model.latency_ms <= model.foreseen.latency_p50_ms.high
            for model in self.models
        )

    @property
    def rank_correlation(self) -> float:
        """Spearman's, of foreseen and measured latency."""
        foreseen = [model.foreseen.latency_p50_ms.value for model in self.models]
        return float(spearmanr(foreseen, [model.latency_ms for model in self.models]).statistic)

    @property
    def floor(self) -> float:
        """Mean distance of two measurements of one model, as a share of the first; nan where none was taken twice."""
        pairs = [model.measured for model in self.models if len(model.measured) > 1]
        apart = [abs(second.latency_p50_ms / first.latency_p50_ms - 1) for first, second in pairs]
        return float(np.mean(apart)) if apart else float("nan")


def check_fresh(
    predictor: FittedPredictor,
    profile: DeviceProfile,
    *,
    count: int,
    keep: bool = False,
    bench: Bench | None = None,
    progress: Progress = quiet,
) -> Check:
    """Measure ``count`` random models that are nested within those of the fit and not among them, on the device itself.

    Args:
        predictor: What is checked.
        profile: Its device.
        count: Models, at least 2.
        keep: Fit the device's predictor again, with these models among its samples, and keep it.
        bench: The way to a board; ``None``: this machine.
        progress: Told of every model.

    Raises:
        DeviceError: The device cannot be reached, or fewer than two models could be measured.
    """
    bench = bench or Bench(LocalRunner(profile.name))
    shapes, tokens = fresh_shapes(predictor, count), predictor.samples[0].tokens
    again = shapes[::TWICE]
    found: dict[ModelShape, list[Measurement]] = {shape: [] for shape in shapes}
    failures: Counter[str] = Counter()
    for done, shape in enumerate((*shapes, *again)):
        progress("check", done, len(shapes) + len(again), shape.describe())
        timing = Timing(predictor.threads, shape.vocabulary, cap_s=SAMPLE_CAP_S)
        result = measure_shape(shape, profile, predictor.engine, tokens=tokens, timing=timing, bench=bench)
        if isinstance(result, Failure):
            failures[result.reason.partition(":")[0]] += 1
        else:
            found[shape].append(without_waiting(result))
    models = tuple(
        Checked(shape, predictor.predict(shape, tokens), tuple(taken)) for shape, taken in found.items() if taken
    )
    if len(models) < 2:
        raise DeviceError(
            f"Of {count} fresh models {len(models)} could be measured on {profile.name}.",
            right="Two or more are needed to say anything of a predictor.",
            next_step=f"Look at why: {', '.join(failures) or 'more models were needed'}; then try again.",
        )
    if keep:
        new = [Sample.of(model.shape, tokens, model.measured[0]) for model in models]
        save(refit(predictor, new), data_folders(MODELS)[0])
    return Check(models, failures)


def fresh_shapes(predictor: FittedPredictor, count: int) -> Sequence[ModelShape]:
    """Return new random shapes within the widest one of a fit, at bits, activations and grids that it knows."""
    samples = {sample.shape: sample.tokens for sample in predictor.samples}
    widest = max(samples, key=lambda each: (each.vocabulary, sum(layer.attention + layer.ffn for layer in each.layers)))
    bits = {width for shape in samples for layer in shape.layers for width in layer.bits}
    heads = {shape.head_bits for shape in samples}
    kinds = {layer.activations for shape in samples for layer in shape.layers}
    grids = {WeightGrid(layer.weight_group, layer.zero_points) for shape in samples for layer in shape.layers}
    variety = Variety(
        bits=tuple(width for width in BITS if width in bits),
        activations=tuple(kind for kind in get_args(Activations) if kind in kinds),
        grids=tuple(sorted(grids, key=str)),
        head_bits=tuple(width for width in BITS if width in heads),
    )
    drawn = candidates(widest, count + len(samples), SEED, variety)
    new = [shape for shape in drawn if shape not in samples]
    known = predictor.predict_many(new, samples[widest]).known
    return [shape for shape, inside in zip(new, known, strict=True) if inside][:count]
