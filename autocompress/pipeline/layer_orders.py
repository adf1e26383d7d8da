"""The orders in which layers are left out: measured once for each start, and kept in the cache."""

from __future__ import annotations

import json
from pathlib import Path

from autocompress.compression.depth import MAPS
from autocompress.compression.ranking.layer_importance import ORDERS
from autocompress.config import RunConfig
from autocompress.devices.paths import cache_folder, write_text
from autocompress.pipeline.progress import Progress, quiet
from autocompress.pipeline.start import Start
from autocompress.pipeline.teacher import training_batches
from autocompress.plan import LayerSelection

CALIBRATION_BATCHES = 8


def layer_orders(config: RunConfig, start: Start, progress: Progress = quiet) -> dict[LayerSelection, tuple[int, ...]]:
    """Return the order of each measured selection that the run may choose from; see ``compression.method.Space``."""
    asked = [selection for selection in config.search.space.depth_selection if selection not in MAPS]
    return {selection: _order(selection, config, start, progress) for selection in asked}


def _order(selection: LayerSelection, config: RunConfig, start: Start, progress: Progress) -> tuple[int, ...]:
    search, path = config.search, _path(selection, config, start)
    if not path.is_file():
        progress("layer order", 0, 1, selection)
        batches = training_batches(start.task, CALIBRATION_BATCHES, batch_size=search.batch_size, seed=search.seed)
        order = ORDERS[selection](start.model, list(batches))
        write_text(path, json.dumps(order))
        progress("layer order", 1, 1, f"{selection}: {order}")
    return tuple(json.loads(path.read_text(encoding="utf-8")))


def _path(selection: LayerSelection, config: RunConfig, start: Start) -> Path:
    """Return where the order lies: its name says all that decides it."""
    search = config.search
    batches = f"{CALIBRATION_BATCHES}x{search.batch_size}x{config.task.max_tokens}"
    return cache_folder() / "layer_orders" / f"{start.fingerprint}-{selection}-{batches}-{search.seed}.json"
