"""A transformer without its weights: the widths, heads, tokens and bits that decide what it costs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from math import ceil
from typing import Literal, TypeAlias, TypeVar, get_args

Bits: TypeAlias = Literal[2, 3, 4, 8, 16, 32]
"""Width of a stored weight. 32: f32 arithmetic. 16: bfloat16 weights, summed in f32; processors that multiply bfloat16
may round activations to it too. 8: int8 weights times activations quantized to uint8, summed as int32. 4, 3 and 2:
integers in -8..7, -4..3 and -2..1, in groups of input channels (``WeightGrid``), times activations dynamically
quantized to int8 a token and group, summed as int32 within the group and in f32 across groups."""
Activations: TypeAlias = Literal["dynamic", "static", "smoothed", "token"]
"""How activations that meet 8-bit weights become integers: ``dynamic``, uint8 over the range of each sequence, as the
model runs; ``static``, over a range that calibration fixed; ``smoothed``, so too, but each channel is scaled before by
a number of its own, which its weights make up for; ``token``, as at fewer bits: int8 a token and group of channels, as
the model runs, and weights -128..127 in such groups as well."""
WeightGroup: TypeAlias = Literal[32, 64, 128]
"""Input channels that share a scale. With 16, ONNX Runtime 1.32 makes floats of 2-bit weights."""
EmbeddingBits: TypeAlias = Literal[4, 8, 16, 32]
"""Width of the stored token table, whose rows are looked up and scaled to f32: eight levels are too few for rows."""

Order: TypeAlias = Literal["post", "pre"]
"""Where a layer's two norms stand: ``post``, after the sum with the residual stream, as in the original Transformer and
BERT; ``pre``, before attention and feed-forward, so that the stream is summed only, and one more norm ends it."""
Head: TypeAlias = Literal["dense", "first", "first_and_mean"]
"""What writes logits: a ``dense`` layer over the first token and a classifier; a classifier over the ``first`` token
alone; or one over the ``first`` token beside the mean of the patches."""

TokenShare: TypeAlias = float | Literal["all"]
"""Share of the longest document's tokens that reaches the last layer (``ModelShape.with_schedule``); ``all`` leaves
every token in every layer."""

BITS: tuple[Bits, ...] = get_args(Bits)
EMBEDDING_BITS: tuple[EmbeddingBits, ...] = get_args(EmbeddingBits)
WEIGHT_GROUPS: tuple[WeightGroup, ...] = get_args(WeightGroup)
WEIGHT_GROUP: WeightGroup = 32
"""Channels of a token table's row that share one scale at 4 bits; input channels of a linear, unless it says more."""


T = TypeVar("T")
LayerBits: TypeAlias = tuple[Bits, Bits, Bits, Bits]
"""Of the four groups of a layer's linears: attention in (query, key, value) and out, feed-forward in and out."""


def by_block(attention: T, ffn: T) -> tuple[T, T, T, T]:
    """Return what each of the four groups of linears gets where the two of a block get the same."""
    return attention, attention, ffn, ffn


def nearest_embedding_bits(bits: Bits) -> EmbeddingBits:
    """Return ``bits``, or the fewest that a token table can have: its width where all weights have ``bits``."""
    return 4 if bits == 2 or bits == 3 else bits


@dataclass(frozen=True)
class WeightGrid:
    """How weights are stored in groups of input channels: a level less the zero point, times the scale.

    Attributes:
        group: Input channels that share a scale, and over which a token's activations do.
        zero_points: Whether each group of each output channel also has the level that stands for 0; else that is 0.
    """

    group: WeightGroup = WEIGHT_GROUP
    zero_points: bool = False

    def count(self, channels: int) -> int:
        """Return how many groups so many input channels make."""
        return -(-channels // self.group)

    def __str__(self) -> str:
        """Say the group, and z where there are zero points."""
        return f"{self.group}{'z' * self.zero_points}"

    def at(self, bits: Bits, activations: Activations) -> WeightGrid | None:
        """Return how weights of so many bits are stored in groups; ``None``: in none.

        At 8 bits groups have no zero points: 256 levels are fine enough without.
        """
        if bits == 8 and activations == "token":
            return replace(self, zero_points=False)
        return self if bits < 8 else None


def usual_grid(bits: Bits) -> WeightGrid | None:
    """Return how weights of so many bits are stored in groups where nothing more is said of them."""
    return WeightGrid().at(bits, "dynamic")


@dataclass(frozen=True)
class LayerShape:
    """One transformer layer.

    Attributes:
        heads: Attention heads that are left (>= 1).
        head_width: Channels of one head; ``heads * head_width`` need not equal the hidden width.
        ffn: Neurons of the feed-forward block (>= 1).
        attention_in_bits: Bits of the query, key and value weights.
        attention_out_bits: Bits of the weights that map what attention gives into the residual stream.
        ffn_in_bits: Bits of the weights before the feed-forward activation.
        ffn_out_bits: Bits of those after it.
        most_tokens: Tokens that go on from this layer's attention at most: the first, and those that others attend to
            most; 0: all of them.
        activations: Of what 8-bit weights read; ``dynamic`` where there are none.
        weight_group: ``WeightGrid.group`` of weights in groups; 32 where there are none.
        zero_points: ``WeightGrid.zero_points`` of weights of fewer than 8 bits; ``False`` where there are none.
    """

    heads: int
    head_width: int
    ffn: int
    attention_in_bits: Bits = 32
    attention_out_bits: Bits = 32
    ffn_in_bits: Bits = 32
    ffn_out_bits: Bits = 32
    most_tokens: int = 0
    activations: Activations = "dynamic"
    weight_group: WeightGroup = WEIGHT_GROUP
    zero_points: bool = False

    @property
    def attention(self) -> int:
        """Inner width of the attention block, in channels."""
        return self.heads * self.head_width

    @property
    def bits(self) -> LayerBits:
        """Bits of each group of linears, in the order in which they run."""
        return self.attention_in_bits, self.attention_out_bits, self.ffn_in_bits, self.ffn_out_bits

    def with_bits(self, attention_in: Bits, attention_out: Bits, ffn_in: Bits, ffn_out: Bits) -> LayerShape:
        """Return the layer with these bits."""
        return replace(
            self,
            attention_in_bits=attention_in,
            attention_out_bits=attention_out,
            ffn_in_bits=ffn_in,
            ffn_out_bits=ffn_out,
        )

    def passes_on(self, tokens: int) -> int:
        """Return how many of ``tokens`` tokens go on from the attention."""
        return min(tokens, self.most_tokens or tokens)

    def activations_at(self, bits: Bits) -> Activations:
        """Return how linears of so many bits read activations; ``dynamic`` at any but 8."""
        return self.activations if bits == 8 else "dynamic"

    def with_activations(self, activations: Activations) -> LayerShape:
        """Return the layer with these, as far as it has 8-bit weights, and its grid as far as these are in groups."""
        read = replace(self, activations=activations if 8 in self.bits else "dynamic")
        return read.with_grid(WeightGrid(self.weight_group, self.zero_points))

    def grid_at(self, bits: Bits) -> WeightGrid | None:
        """Return how linears of so many bits are stored in groups; ``None``: in none."""
        return WeightGrid(self.weight_group, self.zero_points).at(bits, self.activations)

    def with_grid(self, grid: WeightGrid) -> LayerShape:
        """Return the layer with this grid, as far as it has weights in groups."""
        found = [each for bits in self.bits if (each := grid.at(bits, self.activations))]
        return replace(
            self,
            weight_group=grid.group if found else WEIGHT_GROUP,
            zero_points=any(each.zero_points for each in found),
        )


@dataclass(frozen=True)
class Pixels:
    """An image as a model reads it: cut into square patches, each a token, behind learned ones.

    Attributes:
        channels: Of each pixel.
        height, width: In pixels; what is left of them beside whole patches is not read.
        patch: Edge of a patch, in pixels.
        learned: Tokens before the patches: the class token, those of distillation, registers.
    """

    channels: int
    height: int
    width: int
    patch: int
    learned: int = 1

    @property
    def rows(self) -> int:
        """Patches one above the other."""
        return self.height // self.patch

    @property
    def columns(self) -> int:
        """Patches side by side."""
        return self.width // self.patch

    @property
    def patches(self) -> int:
        """Patches of an image."""
        return self.rows * self.columns

    @property
    def values(self) -> int:
        """Numbers of a patch."""
        return self.channels * self.patch**2


@dataclass(frozen=True)
class ModelShape:
    """An encoder with a classification head.

    Attributes:
        family: Key of the adapter that reads such a model (``models.ADAPTERS``).
        vocabulary: Rows of the token embedding; 0 where a model reads ``pixels``.
        positions: Rows of the position embedding, i.e. the longest sequence in tokens; of an image, all that it has.
        embedding: Width of the embeddings; projected to ``hidden`` where the two differ.
        hidden: Width of the residual stream.
        layers: The layers, first to last (may be empty only in tests).
        classes: Outputs of the classifier.
        activation: Of the feed-forward block.
        head_activation: Between the dense layer and the classifier of the head.
        embedding_bits: Bits of the token embedding table.
        norm_epsilon: Added to the variance in every layer norm.
        embedding_rank: Width of the token table's rows where a linear map expands them to ``embedding``; 0: the table
            is that wide itself.
        head_bits: Bits of the head's linears. They read one token, at 8 bits as ``dynamic`` activations; fewer bits are
            in the usual groups.
        order: Of norms and sums, the same in all layers.
        head: What it is made of.
        pixels: The image that is read; ``None``: token ids are.
    """

    family: str
    vocabulary: int
    positions: int
    embedding: int
    hidden: int
    layers: tuple[LayerShape, ...]
    classes: int
    activation: Literal["gelu", "relu"] = "gelu"
    head_activation: Literal["tanh", "relu", "gelu"] = "tanh"
    embedding_bits: EmbeddingBits = 32
    norm_epsilon: float = 1e-12
    embedding_rank: int = 0
    head_bits: Bits = 32
    order: Order = "post"
    head: Head = "dense"
    pixels: Pixels | None = None

    @property
    def token_width(self) -> int:
        """Channels of a row of the token table."""
        return self.embedding_rank or self.embedding

    @property
    def head_maps(self) -> dict[str, tuple[int, int]]:
        """Name -> (inputs, outputs) of the head's linears, in the order in which they run."""
        if self.head == "dense":
            return {"head.dense": (self.hidden, self.hidden), "head.classifier": (self.hidden, self.classes)}
        read = 2 * self.hidden if self.head == "first_and_mean" else self.hidden
        return {"head.classifier": (read, self.classes)}

    def tokens_reaching(self, tokens: int) -> tuple[int, ...]:
        """Return how many of ``tokens`` tokens reach each layer's attention and, last, what comes after all layers."""
        return tuple(accumulate(self.layers, lambda left, layer: layer.passes_on(left), initial=tokens))

    def with_hidden(self, hidden: int) -> ModelShape:
        """Return the shape with another width of the residual stream; embeddings that are projected keep theirs."""
        return replace(self, hidden=hidden, embedding=hidden if self.embedding == self.hidden else self.embedding)

    def with_activations(self, activations: Activations) -> ModelShape:
        """Return the shape whose layers read these, as far as they have 8-bit weights."""
        return replace(self, layers=tuple(layer.with_activations(activations) for layer in self.layers))

    def with_grid(self, grid: WeightGrid) -> ModelShape:
        """Return the shape whose layers have this grid, as far as they have weights in groups."""
        return replace(self, layers=tuple(layer.with_grid(grid) for layer in self.layers))

    def with_schedule(self, share: TokenShare, tokens: int) -> ModelShape:
        """Return the shape whose layers pass on fewer and fewer of ``tokens`` tokens.

        They fall in equal steps, so that ``share`` of them reaches the last layer, which passes on the first alone.
        Where the head reads the mean of all, all go on.
        """
        gaps = len(self.layers) - 1
        most = [0] * len(self.layers)
        if share != "all" and self.head != "first_and_mean":
            # Rounded first: 64 tokens less 0.3 of them are 44.8, and not a little more.
            counts = [ceil(round(tokens * (1 - (1 - share) * gap / gaps), 6)) for gap in range(1, gaps + 1)]
            most = [*(count if count < tokens else 0 for count in counts), 1]
        pairs = zip(self.layers, most, strict=True)
        return replace(self, layers=tuple(replace(layer, most_tokens=count) for layer, count in pairs))

    def to_dict(self) -> dict[str, object]:
        """Return plain JSON values; ``from_dict`` reads them back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, object]) -> ModelShape:
        """Read what ``to_dict`` wrote."""
        values = dict(data)
        layers, pixels = values.pop("layers"), values.pop("pixels", None)
        assert isinstance(layers, list | tuple)
        image = Pixels(**pixels) if isinstance(pixels, dict) else None
        return cls(layers=tuple(LayerShape(**layer) for layer in layers), pixels=image, **values)  # type: ignore[arg-type]

    def describe(self) -> str:
        """Say the shape in one line, for tables and logs."""

        def span(values: list[int]) -> str:
            return str(values[0]) if len(set(values)) == 1 else f"{min(values)}-{max(values)}"

        if not self.layers:
            return f"0 layers x {self.hidden}"
        attention = [int(bits) for layer in self.layers for bits in layer.bits[:2]]
        feeding = [int(bits) for layer in self.layers for bits in layer.bits[2:]]
        bits = "/".join(map(span, (attention, feeding, [int(self.embedding_bits)])))
        heads, ffn = span([layer.heads for layer in self.layers]), span([layer.ffn for layer in self.layers])
        rank = f", embedding rank {self.embedding_rank}" if self.embedding_rank else ""
        widths = f"{len(self.layers)} layers x {self.hidden}, {heads} heads, ffn {ffn}, bits {bits}"
        left = [layer.most_tokens for layer in self.layers if layer.most_tokens]
        tokens = f", tokens left {span(left)}" if left else ""
        kinds = sorted({layer.activations for layer in self.layers} - {"dynamic"})
        fixed = f", {'/'.join(kinds)} activations" if kinds else ""
        head = f", head {self.head_bits} bits" if self.head_bits != 32 else ""
        groups = [int(layer.weight_group) for layer in self.layers]
        grid = f", groups of {span(groups)}" if max(groups) > WEIGHT_GROUP else ""
        zeros = ", zero points" if any(layer.zero_points for layer in self.layers) else ""
        reads = f"vocabulary {self.vocabulary}"
        if self.pixels is not None:
            reads = f"{self.pixels.height} x {self.pixels.width} pixels in patches of {self.pixels.patch}"
        return f"{widths}, {reads}{rank}{head}{tokens}{fixed}{grid}{zeros}"
