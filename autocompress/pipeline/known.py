"""What is known of a device before anything is measured: an earlier fit, or its data sheet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress

from autocompress.devices.paths import data_folders
from autocompress.devices.profile import DeviceProfile
from autocompress.errors import ConfigError, OutOfRangeError, StorageError, UnsupportedError
from autocompress.pipeline.tuning import TVM, kept_log
from autocompress.predictors.predictor import FittedPredictor
from autocompress.predictors.roofline import Peak, Roofline
from autocompress.predictors.sampling import COMMON_BITS, USUAL, Variety, corners
from autocompress.predictors.store import find, load
from autocompress.shape import BITS, Bits, ModelShape

MODELS = "latency_models"
HOST = "host"
IDENTITY = ("cpu", "engine_version", "tuning")
"""What must be equal for samples to be comparable."""
UNKNOWN_BANDWIDTH_GB_S = 8.0
"""Assumed where a profile states none: what a single-channel board reaches."""


def best_known(profile: DeviceProfile, engine: str, threads: int) -> FittedPredictor | None:
    """Return the fitted predictor of a device; of this machine only one made on its processor and engine version."""
    path = find(data_folders(MODELS), profile.name, engine, threads)
    known = None if path is None else load(path)
    # What a board's predictor was fitted on is in its provenance; this machine says nothing of it.
    current = known is not None and (profile.name != HOST or made_by(known, identity(profile, engine)))
    return known if current else None


def fitted(device: str | None = None) -> tuple[FittedPredictor, ...]:
    """Return every fitted predictor of a device, by default of all; the user's own take the place of shipped ones.

    Raises:
        ConfigError: There is none.
    """
    paths = {path.name: path for folder in reversed(data_folders(MODELS)) for path in sorted(folder.glob("*.json"))}
    found = [load(path) for path in paths.values()]
    kept = tuple(predictor for predictor in found if device in (None, predictor.device))
    if not kept:
        raise ConfigError(
            f"No predictor was fitted for {device or 'any device'}.",
            right=f"There are predictors for {', '.join(sorted({each.device for each in found})) or 'none'}.",
            next_step=f"Run: autocompress profile {device or 'host'}",
        )
    return kept


def relatives(device: str, engine: str, threads: int, provenance: Mapping[str, str]) -> tuple[FittedPredictor, ...]:
    """Return what a fit of a device can start from: real devices with this engine, and this one as it was before.

    Files that cannot be read, or are of a version that is not read any more, are left out: nothing hangs on them.

    Args:
        device: Name of the device profile.
        engine: Key of ``engines.ENGINES``.
        threads: Of the engine.
        provenance: Of the samples to be fitted; what of the device has the same ``IDENTITY`` holds these.
    """
    now = {key: provenance[key] for key in IDENTITY if key in provenance}
    found = []
    for folder in data_folders(MODELS):
        for path in sorted(folder.glob("*.json")):
            with suppress(StorageError):
                found.append(load(path))
    return tuple(
        known
        for known in found
        if known.engine == engine
        and not known.emulator
        and not ((known.device, known.threads) == (device, threads) and made_by(known, now))
    )


def roofline(profile: DeviceProfile, engine: str, threads: int) -> Roofline:
    """Return the analytic estimate of a device."""
    peak = Peak(
        cores=profile.core_count,
        ghz=profile.frequency_ghz,
        f32_flops_per_cycle=profile.f32_flops_per_cycle,
        int8_ops_per_cycle=profile.int8_ops_per_cycle,
        bandwidth_gb_s=profile.memory_bandwidth_gb_s or UNKNOWN_BANDWIDTH_GB_S,
    )
    return Roofline(profile.name, engine, threads, peak, profile.power_w)


def identity(profile: DeviceProfile, engine: str) -> dict[str, str]:
    """Return the ``IDENTITY`` of samples that are taken now: processor, engine version and, of TVM, tuning."""
    found = {"cpu": profile.cpu, "engine_version": profile.engines.get(engine, "unknown")}
    target = None if profile.name == HOST else profile.tvm_target
    return found | {"tuning": kept_log(target).digest} if engine == TVM else found


def made_by(known: FittedPredictor, identity: Mapping[str, str]) -> bool:
    """Return whether a predictor was fitted on samples of this ``identity``."""
    return all(known.provenance.get(key) == value for key, value in identity.items())


def widths(asked: Iterable[int]) -> tuple[Bits, ...]:
    """Return the widths that a predictor must know, ascending: the common ones, and those that are asked for.

    Raises:
        UnsupportedError: There is no such width.
    """
    return known_bits((*COMMON_BITS, *asked))


def known_bits(asked: Iterable[int]) -> tuple[Bits, ...]:
    """Return the widths that are asked for, ascending, each once.

    Raises:
        UnsupportedError: There is no such width.
    """
    asked = set(asked)
    unknown = sorted(asked.difference(BITS))
    if unknown:
        raise UnsupportedError(
            f"Weights of {', '.join(map(str, unknown))} bits are asked for.",
            right=f"Bits are one of {', '.join(map(str, BITS))}.",
            next_step="Correct --bits or --head-bits.",
        )
    return tuple(bits for bits in BITS if bits in asked)


def covers(known: FittedPredictor, teacher: ModelShape, tokens: int, variety: Variety = USUAL) -> bool:
    """Return whether a predictor was fitted on shapes like those nested within ``teacher``: see ``corners``."""
    try:
        for shape in corners(teacher, variety):
            known.predict(shape, tokens)
    except OutOfRangeError:
        return False
    return True
