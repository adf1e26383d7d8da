"""What one shape costs on one device."""

from __future__ import annotations

from dataclasses import replace

from autocompress.compression.method import Space
from autocompress.compression.methods import draw, reshape_plan
from autocompress.cost import Cost
from autocompress.devices.load import load_profile
from autocompress.devices.paths import cache_folder
from autocompress.errors import UnsupportedError
from autocompress.evaluation.sources import fetch
from autocompress.models.load import load_shape
from autocompress.pipeline.candidates import choices
from autocompress.pipeline.known import best_known, roofline
from autocompress.plan import Chosen
from autocompress.predictors.activations import planned_bytes
from autocompress.predictors.hardware import NOMINAL
from autocompress.predictors.predictor import FittedPredictor
from autocompress.predictors.roofline import Roofline
from autocompress.shape import BITS, LayerShape, ModelShape, nearest_embedding_bits

COMMON = ModelShape(
    family="bert",
    vocabulary=30522,
    positions=512,
    embedding=384,
    hidden=384,
    layers=(LayerShape(heads=12, head_width=32, ffn=1536),) * 6,
    classes=2,
)
"""The shape of MiniLM-L6, asked about where no model is named."""


def shape_of(source: str | None) -> ModelShape:
    """Return the shape of a model source; of ``COMMON`` for ``None``."""
    return COMMON if source is None else load_shape(fetch(source, cache=cache_folder()))


def shrink(
    shape: ModelShape,
    *,
    depth: int | None = None,
    heads_keep: float = 1.0,
    ffn_keep: float = 1.0,
    hidden_keep: float = 1.0,
    bits: int = 32,
    head_bits: int = 32,
) -> ModelShape:
    """Return ``shape`` with so many layers, shares of heads, neurons and channels (0 to 1), and bits of its weights.

    Those of the head have bits of their own.

    At 3 and 2 bits the token table has the fewest that it can have.

    Raises:
        UnsupportedError: There are fewer layers, or no such bits.
    """
    layers = len(shape.layers)
    depth, width = depth or layers, next((known for known in BITS if known == bits), None)
    head = next((known for known in BITS if known == head_bits), None)
    if width is None or head is None or depth > layers:
        raise UnsupportedError(
            f"{depth} layers of {bits} and a head of {head_bits} bits are asked for.",
            right=f"The model has {layers} layers; bits are one of {', '.join(map(str, BITS))}.",
            next_step="Correct --depth, --bits or --head-bits.",
        )
    space = Space((depth,), (heads_keep,), (ffn_keep,), (width,), (width,), (nearest_embedding_bits(width),))
    space = replace(space, hidden_keep=(hidden_keep,), head_bits=(head,))
    params = {name: values[0] for name, values in choices(space).items()}
    return reshape_plan(shape, draw(Chosen(params), shape, space))


def predict(shape: ModelShape, *, device: str, engine: str, threads: int, tokens: int) -> Cost:
    """Return the predicted cost of ``shape``: fitted where the device was measured, its roofline where not.

    Raises:
        OutOfRangeError: The device's predictor was not fitted on such shapes.
        ConfigError: There is no such device.
    """
    return best_predictor(device, engine, threads).predict(shape, tokens)


def best_predictor(device: str, engine: str, threads: int) -> FittedPredictor | Roofline:
    """Return what knows most of a device: a fit where it was measured, its roofline where not.

    Raises:
        ConfigError: There is no such device.
    """
    profile = load_profile(device)
    return best_known(profile, engine, threads) or roofline(profile, engine, threads)


def activation_bytes(shape: ModelShape, tokens: int) -> int:
    """Return the bytes of activations and workspace of a library compiled for ``tokens`` tokens (``NOMINAL``)."""
    return planned_bytes(shape, tokens, NOMINAL.machine)
