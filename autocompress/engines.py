"""Open an artifact in the engine that runs it. Imports neither torch nor transformers, so boards can use it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from autocompress.cost import Artifact
from autocompress.errors import UnsupportedError

Ids: TypeAlias = npt.NDArray[np.int64]
Logits: TypeAlias = npt.NDArray[np.float32]
Run: TypeAlias = Callable[[Ids, Ids], Logits]
"""(input_ids, attention_mask), both (batch x tokens) int64 -> logits (batch x classes) float32."""


def open_onnxruntime(artifact: Artifact, *, threads: int) -> Run:
    """Load an ONNX model into ONNX Runtime's CPU provider."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(artifact.path), options, providers=["CPUExecutionProvider"])

    def run(input_ids: Ids, attention_mask: Ids) -> Logits:
        (logits,) = session.run(["logits"], {"input_ids": input_ids, "attention_mask": attention_mask})
        return np.asarray(logits)

    return run


ENGINES: dict[str, Callable[..., Run]] = {"onnxruntime": open_onnxruntime}
"""Engine name -> ``open(artifact, threads=...)``."""


def open_artifact(artifact: Artifact, *, threads: int) -> Run:
    """Return a function that runs ``artifact``.

    Raises:
        UnsupportedError: The artifact names an engine that is not in ``ENGINES``.
    """
    if artifact.engine not in ENGINES:
        raise UnsupportedError(
            f"The engine {artifact.engine!r} is not known.",
            right=f"Engines are {', '.join(ENGINES)}.",
            next_step="Set device.engine to one of them.",
        )
    return ENGINES[artifact.engine](artifact, threads=threads)
