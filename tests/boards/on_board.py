"""Run on the board: open an artifact as a device does, and write the logits of the inputs in a file."""

import sys
from pathlib import Path

import numpy as np

from autocompress import engines
from autocompress.cost import Artifact
from autocompress.engines import open_artifact
from autocompress.feeds import of_text


def main(engine: str, artifact: str, inputs: str, outputs: str, *options: str) -> None:
    """Read ids and mask (batch x tokens) from ``inputs``, an .npz, and write the logits to ``outputs``, an .npy."""
    if "--unchecked" in options:
        engines._reported_instructions = set
    given = np.load(inputs)
    batch, tokens = given["ids"].shape
    run = open_artifact(Artifact(Path(artifact), engine, tokens, batch), threads=1)
    np.save(outputs, run(of_text(given["ids"], given["mask"])))
    found = {"torch", "transformers", "optuna", "tvm"} & set(sys.modules)
    assert not found, f"a board has no room for {found}"


if __name__ == "__main__":
    main(*sys.argv[1:])
