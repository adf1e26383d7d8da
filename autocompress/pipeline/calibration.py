"""What predicts costs on a device: a fit to measurements where it can be measured, its data sheet where not."""

from __future__ import annotations

from autocompress.devices.profile import DeviceProfile
from autocompress.pipeline.bench import Bench
from autocompress.pipeline.known import HOST, best_known, covers, roofline
from autocompress.pipeline.profiling import profile_device
from autocompress.pipeline.progress import Progress, quiet
from autocompress.predictors.predictor import Predictor
from autocompress.predictors.sampling import USUAL, Variety
from autocompress.shape import ModelShape


def predictor_for(
    profile: DeviceProfile,
    teacher: ModelShape,
    *,
    engine: str,
    threads: int,
    tokens: int,
    samples: int,
    variety: Variety = USUAL,
    bench: Bench | None = None,
    resume: bool = False,
    progress: Progress = quiet,
) -> Predictor:
    """Return the predictor of a device for shapes nested within ``teacher``.

    A fitted one is used if it was made on this processor, with this engine version and tuning, and covers the teacher.
    Otherwise this machine is profiled (device ``host``), or the board to which ``bench`` leads; a board to which none
    leads gets its roofline. With ``resume``, the samples of a profiling that was interrupted are not taken anew.

    Raises:
        DeviceError: Too few samples could be measured, or the board cannot be reached.
        ConfigError: What is to be resumed is another profiling.
    """
    known = best_known(profile, engine, threads)
    if known is not None and covers(known, teacher, tokens, variety):
        progress("calibrate", 1, 1, known.source)
        return known
    if profile.name != HOST and bench is None:
        return known or roofline(profile, engine, threads)
    made = profile_device(
        profile,
        teacher,
        engines=(engine,),
        threads=threads,
        tokens=tokens,
        samples=samples,
        variety=variety,
        bench=bench,
        resume=resume,
        progress=progress,
    )
    return made[engine]
