"""Measure models of many shapes on a device, in one or several engines, and fit what predicts their costs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from autocompress.devices.profile import DeviceProfile
from autocompress.pipeline.bench import Bench
from autocompress.pipeline.campaign import Campaign, Deadline
from autocompress.pipeline.known import HOST
from autocompress.pipeline.progress import Progress, quiet
from autocompress.pipeline.tuning import TVM, Tune, read_tune, tune_device, tune_host
from autocompress.predictors.acquisition import POOL, most_telling
from autocompress.predictors.intervals import FEWEST_SAMPLES
from autocompress.predictors.predictor import FittedPredictor
from autocompress.predictors.sampling import (
    USUAL,
    Variety,
    block,
    candidates,
    corners,
    is_block,
    sample_shapes,
)
from autocompress.profiling.runner import LocalRunner
from autocompress.profiling.timing import Timing
from autocompress.shape import ModelShape

SAMPLE_CAP_S = 0.5
"""Seconds of timing a sample."""
USUAL_SAMPLES = 24
"""Also the most shapes whose products are tuned first: others share their classes, or do by the rule."""
POOL_SEED = 1
"""Of the shapes that samples are chosen from, so that these are others than those drawn at random."""
MOST_SAMPLES = 400
"""However many minutes there are: more hardly helps."""


def profile_device(
    profile: DeviceProfile,
    teacher: ModelShape,
    *,
    engines: Sequence[str],
    threads: int = 1,
    tokens: int = 64,
    samples: int | None = None,
    minutes: float | None = None,
    sustained_minutes: float = 0.0,
    variety: Variety = USUAL,
    tune: str | None = None,
    bench: Bench | None = None,
    resume: bool = False,
    progress: Progress = quiet,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, FittedPredictor]:
    """Measure models of many shapes around ``teacher``, fit each engine's predictor, and keep it as JSON.

    They are measured on this machine or, given a ``bench``, on the device of ``profile`` as that says; engines take
    turns on each shape, so that a slow hour is slow for all. Each sample is written down in a ``Journal`` as it
    arrives; with ``resume``, those of an interrupted run are not taken anew.

    Samples that an earlier profiling took on the same processor with the same engine and kernels are used too. All
    corners of the space are measured, however few samples or minutes are asked for. Of the others three in four are
    drawn at random, which intervals need, and the fourth is the one that is expected to tell the most
    (``predictors.acquisition``). The compiler is tuned first (``tune``: see ``pipeline.tuning``), so that what is
    measured is what will be deployed.

    Args:
        profile: The device.
        teacher: The largest shape.
        engines: Keys of ``engines.ENGINES``.
        threads: Threads of the engine.
        tokens: Length of the sequences.
        samples: Shapes to measure; ``None``: as many as the minutes allow, or ``USUAL_SAMPLES``.
        minutes: Time after which no further shape is measured, if any; each start counts anew.
        sustained_minutes: Time for which ``teacher`` runs without a pause at the end, to see what lasting load makes of
            it; 0 for not at all.
        variety: What models may differ in, beside depth, heads and neurons.
        tune: How to tune the compiler first.
        bench: Where samples are taken.
        resume: Keep those of a run that was interrupted.
        progress: Told of every sample.
        clock: Seconds, monotonic.

    Returns:
        The predictor of each engine.

    Raises:
        DeviceError: Too few samples could be measured, or the device cannot be reached, or it is emulated.
        ConfigError: There is no such way to tune, or what is to be resumed is another run.
    """
    hows = {engine: _read_tune(tune, engine, engines, profile) for engine in engines}
    usual = USUAL_SAMPLES if minutes is None else MOST_SAMPLES
    cornered = corners(teacher, variety)
    needed = max(len(cornered), FEWEST_SAMPLES)
    shapes = sample_shapes(teacher, max(samples or usual, needed), 0, variety)
    deadline = Deadline.of(minutes, clock)
    if (how := hows.get(TVM, "off")) != "off":
        _tune(shapes[:USUAL_SAMPLES], tokens, how, bench, progress)
    bench = bench or Bench(LocalRunner(profile.name))
    timing = Timing(threads, teacher.vocabulary, cap_s=SAMPLE_CAP_S)
    campaigns = [Campaign(profile, engine, tokens, timing, bench) for engine in engines]
    for campaign in campaigns:
        campaign.begin(resume=resume)
    pool = candidates(teacher, POOL, POOL_SEED, variety)
    for index, foreseen in enumerate(shapes):
        if index >= needed and deadline.sampling_is_over:
            break
        placeholder = is_block(foreseen, teacher) and foreseen not in cornered
        shape = _most_telling(pool, campaigns, tokens) or foreseen if placeholder else foreseen
        drawn = not placeholder and foreseen not in cornered
        for turn, campaign in enumerate(campaigns):
            done = index * len(engines) + turn
            progress("calibrate", done, deadline.foreseen(done, len(engines) * len(shapes)), shape.describe())
            campaign.take(shape, drawn=drawn)
    sustained_s = 60 * sustained_minutes
    return {
        campaign.engine: campaign.finish(campaign.settle(deadline, progress), teacher, sustained_s, progress)
        for campaign in campaigns
    }


def _most_telling(pool: Sequence[ModelShape], campaigns: Sequence[Campaign], tokens: int) -> ModelShape | None:
    """Return which of ``pool``, or of its blocks, to measure next; ``None`` where too little is known to say."""
    taken = [campaign.so_far() for campaign in campaigns]
    every = dict.fromkeys((*pool, *map(block, pool)))
    left = [shape for shape in every if all(shape not in campaign.shapes.values() for campaign in campaigns)]
    if not left or min(len(shapes) for shapes, _ in taken) < FEWEST_SAMPLES:
        return None
    return most_telling(left, pool, taken, tokens)


def _read_tune(tune: str | None, engine: str, engines: Sequence[str], profile: DeviceProfile) -> Tune:
    """Return how to tune for one of ``engines``; what is asked for concerns TVM, where it is among them."""
    asked = tune if engine == TVM or TVM not in engines else None
    return read_tune(asked, engine, board="" if profile.name == HOST else profile.name)


def _tune(shapes: Sequence[ModelShape], tokens: int, how: Tune, bench: Bench | None, progress: Progress) -> None:
    """Tune this machine, or the board of a bench that can time kernels."""
    if bench is None:
        tune_host(shapes, tokens=tokens, how=how, progress=progress)
    elif bench.timer is not None:
        from autocompress.compiler.target import Target

        tune_device(shapes, tokens=tokens, target=Target.of(bench.target), timer=bench.timer, progress=progress)
