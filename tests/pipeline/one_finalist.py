"""A process that makes one finalist in a small world: ``python -m tests.pipeline.one_finalist FOLDER NAME PAUSE``.

It prints a line a training step, waits for so many seconds after each, and ends with a digest of the weights.
"""

import hashlib
import sys
import time
from functools import partial
from pathlib import Path

from autocompress.compression.methods import draw
from autocompress.compression.quantization_aware import QuantizationAwareStep
from autocompress.compression.recipes.store import OutputStore
from autocompress.config import load_config
from autocompress.pipeline import finalists
from autocompress.pipeline.candidates import Students, space_of
from autocompress.pipeline.teacher import load_teacher
from autocompress.pipeline.workspace import Workspace
from autocompress.plan import Chosen
from autocompress.training.checkpoint import Checkpoint

STEPS, AWARE_STEPS = 30, 10
PARAMS = {"depth": 2, "heads_keep": 0.5, "ffn_keep": 0.5, "attention_bits": 8, "ffn_bits": 4, "embedding_bits": 8}


def main(folder: Path, name: str, pause_s: float) -> None:
    """Make it, with a checkpoint a step; the recipe reads features, which come from a store of the same name."""

    def tell(line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    def on_step(*event: object) -> None:
        tell("step")
        time.sleep(pause_s)

    finalists.Checkpoint = partial(Checkpoint, seconds=0.0)
    config = load_config(folder / "first.yaml", ["search.space.recipe=[minilm]"])
    teacher, workspace = load_teacher(config), Workspace(folder / name)
    workspace.create()
    store = OutputStore(folder / f"{name}-outputs", 10**9)
    plan = draw(Chosen(PARAMS), teacher.shape, space_of(config, teacher.shape))
    made = finalists.make(
        name,
        finalists.refined(plan, STEPS, QuantizationAwareStep(AWARE_STEPS, 1e-3, seed=0)),
        config=config,
        students=Students(teacher, batch_size=16, seed=0, store=store, progress=on_step),
        workspace=workspace,
        target=None,
        container="so",
        finalist=True,
    )
    tensors = made.student.state_dict().values()
    tell(hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in tensors)).hexdigest())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
