"""The profiling worker, which also runs the engines that AutoCompress only compares itself with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from autocompress.cost import Artifact
from autocompress.engines import ENGINES, Opened
from autocompress.feeds import TEXT, Feeds, Logits
from autocompress.profiling import worker


def open_torch(artifact: Artifact, *, threads: int, compiled: bool = False) -> Opened:
    """Load a classifier that ``torch.save`` wrote whole, and run it eagerly or as TorchInductor compiles it.

    Compiled, its weights are constants (``freezing``), which is TorchInductor's faster way to infer.
    """
    import torch

    torch.set_num_threads(threads)
    model = torch.load(artifact.path, weights_only=False).eval()
    torch.compiler.reset()  # Else another length compiled before, in this process, would make lengths a variable.
    forward = torch.compile(model, options={"freezing": True}) if compiled else model
    # Weights are frozen only where gradients are off without inference mode.
    without_gradients = torch.no_grad if compiled else torch.inference_mode

    def run(given: Feeds) -> Logits:
        with without_gradients():
            logits: Logits = forward(
                **{name: torch.from_numpy(values) for name, values in given.items()}
            ).logits.numpy()
        return logits

    return Opened(TEXT, run)


@dataclass(frozen=True)
class OpenVino:
    """A compiled model of OpenVINO, ready to run.

    Attributes:
        request: The one inference request.
        precision: What OpenVINO computes with where a model asks for floats: ``float32``, ``bfloat16``.
    """

    request: Any
    precision: str

    def __call__(self, given: Feeds) -> Logits:
        """See ``Run``."""
        self.request.infer(dict(given), share_inputs=True)
        return np.array(self.request.get_output_tensor(0).data)


def open_openvino(artifact: Artifact, *, threads: int, f32: bool = False) -> Opened:
    """Load OpenVINO's ``.xml`` beside the weights file for the least latency of one request.

    Args:
        artifact: Its path is the ``.bin``, so that its size is that of the weights.
        threads: Of the one stream.
        f32: Compute in f32. Where a processor has bf16, OpenVINO would else compute all that is float in it.
    """
    import openvino

    options: dict[str, object] = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": threads}
    # Bound to one core, it would wait for whoever else is there; on an idle machine it is as fast either way.
    options["ENABLE_CPU_PINNING"] = False
    if f32:
        options["INFERENCE_PRECISION_HINT"] = "f32"
    compiled = openvino.Core().compile_model(str(artifact.path.with_suffix(".xml")), "CPU", options)
    precision = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    return Opened(TEXT, OpenVino(compiled.create_infer_request(), precision))


PEER_ENGINES = {
    "torch": open_torch,
    "torch.compile": partial(open_torch, compiled=True),
    "openvino": open_openvino,
    "openvino-f32": partial(open_openvino, f32=True),
}
"""Engine name -> ``open(artifact, threads=...)``."""


def know_peers() -> None:
    """Let this process open the peers' artifacts as it opens AutoCompress's."""
    ENGINES.update(PEER_ENGINES)
    worker.PACKAGES.update({"torch.compile": "torch", "openvino-f32": "openvino"})


if __name__ == "__main__":
    know_peers()
    worker.main()
