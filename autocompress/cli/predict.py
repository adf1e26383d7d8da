"""``autocompress predict``: what a shape costs on a device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional, cast

import typer

from autocompress.cli.options import GROUPS, READINGS, Engine, Threads, Tokens, reading, token_share, weight_group
from autocompress.cli.terminal import say, show

if TYPE_CHECKING:
    from autocompress.shape import Activations, TokenShare, WeightGroup

NAME, HELP = "predict", "Say what a compressed model would cost on a device, without running it."

Share = Annotated[float, typer.Option(min=0.01, max=1.0, help="Share that each layer keeps.")]


def run(
    device: Annotated[str, typer.Option(help="Name of a device profile.")] = "host",
    model: Annotated[
        Optional[str],  # noqa: UP045 - typer reads the annotation
        typer.Option(help="A folder, hub:NAME or wheel:...; default 6 layers x 384."),
    ] = None,
    depth: Annotated[Optional[int], typer.Option(min=1, help="Layers to keep; default all.")] = None,  # noqa: UP045
    heads_keep: Share = 1.0,
    ffn_keep: Share = 1.0,
    hidden_keep: Annotated[float, typer.Option(min=0.01, max=1.0, help="Share of the hidden channels.")] = 1.0,
    tokens_keep: Annotated[
        str,
        typer.Option(
            parser=token_share,
            metavar="all|SHARE",
            help="Share of the tokens that reaches the last layer, which passes on the first; all leaves every token.",
        ),
    ] = "all",
    bits: Annotated[int, typer.Option(help="Bits of all weights: 32, 16, 8, 4, 3 or 2 (4 for the token table).")] = 32,
    head_bits: Annotated[int, typer.Option(help="Bits of the head: 32, 16, 8, 4, 3 or 2.")] = 32,
    activations: Annotated[
        str, typer.Option(parser=reading, metavar=READINGS, help="How 8-bit weights read them.")
    ] = "dynamic",
    group: Annotated[
        int,
        typer.Option(
            "--weight-group",
            parser=weight_group,
            metavar=GROUPS,
            help="Input channels that share a scale, below 8 bits or at 8 with --activations token.",
        ),
    ] = 32,
    zero_points: Annotated[
        bool, typer.Option("--zero-points", help="Zero points of such groups below 8 bits.")
    ] = False,
    engine: Engine = "onnxruntime",
    threads: Threads = 1,
    tokens: Tokens = 64,
) -> None:
    """See ``HELP``."""
    from autocompress.engines import stored_bits
    from autocompress.pipeline.prediction import activation_bytes, best_predictor, shape_of, shrink
    from autocompress.predictors.predictor import FittedPredictor
    from autocompress.report.units import TITLES, figure
    from autocompress.shape import WeightGrid

    whole = shape_of(model)
    shares = {"heads_keep": heads_keep, "ffn_keep": ffn_keep, "hidden_keep": hidden_keep}
    shape = shrink(whole, depth=depth, **shares, bits=bits, head_bits=head_bits).with_schedule(
        cast("TokenShare", tokens_keep), tokens
    )
    grid = WeightGrid(cast("WeightGroup", group), zero_points)
    shape = shape.with_activations(cast("Activations", activations)).with_grid(grid)
    predictor = best_predictor(device, engine, threads)
    cost = predictor.predict(shape, tokens)
    rows = []
    for name, title in TITLES.items():
        estimate = getattr(cost, name)
        if estimate is None:
            continue
        rows.append([title, *(figure(name, value) for value in (estimate.value, estimate.low, estimate.high))])
    show(["figure", "predicted", "from", "to"], rows, title=shape.describe())
    if isinstance(predictor, FittedPredictor):
        parts = predictor.layer_shares_ms(shape, tokens)
        names = ["embeddings and head", *(f"layer {number}" for number in range(1, len(parts)))]
        total = sum(parts)
        cells = [
            [name, figure("latency_p50_ms", part), f"{part / total:.0%}"]
            for name, part in zip(names, parts, strict=True)
        ]
        show(["part", "median latency", "share"], cells, title="Of which")
    say(cost.source)
    width = shape.layers[0].ffn_in_bits
    if (stored := stored_bits(engine, width)) != width:
        say(f"{engine} has no product of {width}-bit weights: it stores and multiplies them as {stored}-bit ones.")
    if engine == "tvm":
        held = figure("activation_bytes", activation_bytes(shape, tokens))
        say(f"Of the memory, {held} are activations, as they are planned when the model is compiled.")
