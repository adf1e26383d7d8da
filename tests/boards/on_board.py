"""Run on the board: open artifacts as a device does, and write the logits of the inputs in files."""

import sys
from pathlib import Path

import numpy as np

from autocompress import engines
from autocompress.cost import Artifact
from autocompress.engines import open_artifact
from autocompress.feeds import of_text


def main(engine: str, inputs: str, *words: str) -> None:
    """Read ids and mask (batch x tokens) from ``inputs``, an .npz, and write the logits of artifact N to ``N.npy``."""
    if "--unchecked" in words:
        engines._reported_instructions = set
    given = np.load(inputs)
    batch, tokens = given["ids"].shape
    for number, artifact in enumerate(word for word in words if not word.startswith("--")):
        run = open_artifact(Artifact(Path(artifact), engine, tokens, batch), threads=1)
        np.save(f"{number}.npy", run(of_text(given["ids"], given["mask"])))
    found = {"torch", "transformers", "optuna", "tvm"} & set(sys.modules)
    assert not found, f"a board has no room for {found}"


if __name__ == "__main__":
    main(*sys.argv[1:])
