"""Run as a user: profile a board around a model as small as a test can wait for."""

from __future__ import annotations

import sys

from autocompress.boards.address import Direct, parse_place
from autocompress.boards.connection import Connection, Patience
from autocompress.boards.remote import RemoteRunner
from autocompress.devices.load import load_profile
from autocompress.pipeline.bench import Bench
from autocompress.pipeline.profiling import profile_device
from autocompress.predictors.sampling import Variety
from autocompress.shape import LayerShape, ModelShape

SAMPLES, TOKENS, VARIETY = 9, 8, Variety(align=16)
PATIENCE = Patience(pauses_s=(0.5,) * 12)


def teacher(layers: int) -> ModelShape:
    return ModelShape("bert", 60, 16, 32, 32, (LayerShape(4, 8, 64),) * layers, 2)


def main(name: str, place: str, layers: str) -> None:
    profile = load_profile("host").model_copy(update={"name": name})
    connection = Connection(name, Direct(parse_place(place)), PATIENCE)
    with RemoteRunner(connection, name, keeps=1) as runner:
        bench = Bench(runner, profile.tvm_target)
        size = {"samples": SAMPLES, "tokens": TOKENS, "variety": VARIETY}
        profile_device(profile, teacher(int(layers)), engines=("onnxruntime",), bench=bench, **size)


if __name__ == "__main__":
    main(*sys.argv[1:])
