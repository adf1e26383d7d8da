"""Measurements that ``benchmarks.predictors`` fits on and holds predictions against, each written down as it is taken.

Shapes to fit on and shapes to foresee are measured in one shuffled order, engines in turn, so that a slow hour is no
property of either. Those to foresee are then measured in further rounds, each time in another process: processes of one
model differ among themselves, and how much says how well anything can be foreseen.
"""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from autocompress.compiler.build import build
from autocompress.compiler.graph import random_weights
from autocompress.compression.method import Space
from autocompress.compression.methods import draw, reshape_plan
from autocompress.cost import Failure, Measurement
from autocompress.pipeline.candidates import choices
from autocompress.pipeline.profiling import SAMPLE_CAP_S
from autocompress.plan import Chosen
from autocompress.predictors.sampling import is_block, sample_shapes
from autocompress.profiling.drift import disturbance, remeasure_drifted
from autocompress.profiling.runner import LocalRunner
from autocompress.profiling.timing import Timing
from autocompress.shape import ModelShape

FIT_SEED, FRESH_SEED = 0, 2
REMEASURED, PASSES = 0.25, 2
"""Most samples that are measured again because the machine was disturbed, as a share of all, in each
pass."""
Role: TypeAlias = Literal["fit", "fresh"]


@dataclass(frozen=True)
class Wanted:
    """One measurement to take."""

    engine: str
    role: Role
    shape: ModelShape
    round: int = 0


@dataclass(frozen=True)
class Taken:
    """One measurement that was taken.

    Attributes:
        wanted: What was asked for.
        measurement: What was found.
        spent_s: Seconds that it took in all, building included.
        retaken: Whether it replaces an earlier one that was disturbed.
    """

    wanted: Wanted
    measurement: Measurement
    spent_s: float
    retaken: bool = False


def wanted(
    teacher: ModelShape, engines: Sequence[str], *, fit: int, fresh: int, rounds: int, seed: int = 0
) -> tuple[Wanted, ...]:
    """Return what is to be measured, each round shuffled; the engines of one shape follow each other.

    Args:
        teacher: The largest shape.
        engines: Keys of ``engines.ENGINES``.
        fit: Shapes to fit on, as ``autocompress profile`` draws them; measured in the first round.
        fresh: Shapes to foresee, none of them among the former; measured in every round.
        rounds: How many there are.
        seed: Of the order.
    """
    fitted = sample_shapes(teacher, fit, FIT_SEED)
    unseen = [("fresh", shape) for shape in fresh_plans(teacher, fresh, set(fitted))]
    rng, found = random.Random(seed), []
    for number in range(rounds):
        shapes: list[tuple[Role, ModelShape]] = [*unseen, *(("fit", shape) for shape in fitted if number == 0)]
        rng.shuffle(shapes)
        found += [Wanted(engine, role, shape, number) for role, shape in shapes for engine in engines]
    return tuple(found)


def fresh_plans(teacher: ModelShape, count: int, seen: set[ModelShape]) -> tuple[ModelShape, ...]:
    """Return ``count`` shapes of random plans: every other one equal in all layers, as today's search draws them."""
    even, uneven = _even(teacher), _uneven(teacher, count)
    found: dict[ModelShape, None] = {}
    while len(found) < count:
        shape = next(even if len(found) % 2 else uneven)
        if shape not in seen:
            found.setdefault(shape)
    return tuple(found)


def _even(teacher: ModelShape) -> Iterator[ModelShape]:
    space = Space(depth=tuple(range(1, len(teacher.layers) + 1)))
    rng = random.Random(FRESH_SEED)
    while True:
        params = {name: rng.choice(values) for name, values in choices(space).items()}
        yield reshape_plan(teacher, draw(Chosen(params), teacher, space))


def _uneven(teacher: ModelShape, count: int) -> Iterator[ModelShape]:
    drawn = sample_shapes(teacher, 4 * count + 32, FRESH_SEED)
    yield from (shape for shape in drawn if not is_block(shape, teacher))


def measure(
    wants: Sequence[Wanted], path: Path, *, threads: int, tokens: int, target: Mapping[str, object] | None = None
) -> tuple[Taken, ...]:
    """Take what is not in the file ``path`` yet, append it there, measure again what was disturbed, and return all.

    Args:
        wants: What to take.
        path: Of the file.
        threads: Of the engine.
        tokens: Length of the sequences.
        target: What to compile for, as a device profile has it; ``None``: this machine.

    Raises:
        RuntimeError: A shape cannot be built or run: a benchmark with holes says nothing.
    """
    known = read(path)

    def take(want: Wanted, *, retaken: bool) -> Taken:
        start_s = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            weights = random_weights(want.shape)
            artifact = build(
                want.shape, weights, Path(folder, "model"), engine=want.engine, tokens=tokens, target=target
            )
            timing = Timing(threads, want.shape.vocabulary, cap_s=SAMPLE_CAP_S)
            result = LocalRunner("host").run(artifact, timing)
        if isinstance(result, Failure):
            raise RuntimeError(f"{want.engine}: {want.shape.describe()}: {result.reason}")
        found = Taken(want, result, time.monotonic() - start_s, retaken)
        with path.open("a") as file:
            file.write(json.dumps(_plain(found)) + "\n")
        return found

    for position, want in enumerate(wants):
        if want not in known:
            known[want] = take(want, retaken=False)
        if position % 20 == 0:
            print(f"{position} of {len(wants)} measured", flush=True)
    for engine in dict.fromkeys(want.engine for want in wants):
        named = {str(index): want for index, want in enumerate(wants) if want.engine == engine}
        _retake(named, known, lambda want: take(want, retaken=True))
    return tuple(known[want] for want in wants)


def _retake(named: Mapping[str, Wanted], known: dict[Wanted, Taken], take: Callable[[Wanted], Taken]) -> None:
    """Put calmer measurements in place of disturbed ones, in two passes."""
    for _ in range(PASSES):
        again: dict[str, Taken] = {}

        def measured(name: str, again: dict[str, Taken] = again) -> Measurement:
            again[name] = take(named[name])
            return again[name].measurement

        results = {name: known[want].measurement for name, want in named.items()}
        steady = remeasure_drifted(results, measured, at_most=int(REMEASURED * len(results)))
        print(f"{len(again)} measured again", flush=True)
        known |= {named[name]: taken for name, taken in again.items() if steady[name] is taken.measurement}


def read(path: Path) -> dict[Wanted, Taken]:
    """Return what a file holds; of several measurements of one shape in one round the least disturbed."""
    found: dict[Wanted, Taken] = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        taken = _taken(json.loads(line))
        before = found.get(taken.wanted)
        if before is None or disturbance(taken.measurement) < disturbance(before.measurement):
            found[taken.wanted] = taken
    return found


def _plain(taken: Taken) -> dict[str, object]:
    want = taken.wanted
    return {
        "engine": want.engine,
        "role": want.role,
        "shape": want.shape.to_dict(),
        "round": want.round,
        "measurement": taken.measurement.to_dict(),
        "spent_s": round(taken.spent_s, 3),
        "retaken": taken.retaken,
    }


def _taken(values: dict[str, object]) -> Taken:
    fields = values["measurement"]
    measurement = Measurement(**{**fields, "samples_ms": tuple(fields["samples_ms"])})
    want = Wanted(values["engine"], values["role"], ModelShape.from_dict(values["shape"]), values["round"])
    return Taken(want, measurement, values["spent_s"], values["retaken"])
