"""What do few bits cost attention, and a vision transformer? ``python -m benchmarks.vit_quantization TEACHERS DATA``.

Part of the benchmark of quantization. First post-softmax maps of MiniLM-L6 fine-tuned on SST-2, 128 tokens of
consecutive sentences each: quantizers are fitted, a layer each, on training sentences and judged on test sentences.
Then small vision transformers that are trained here on Fashion-MNIST (``apt install dataset-fashion-mnist``, or
``--images FOLDER``) get 4 and 3 bits for weights and activations by published recipes, without more training; patch
embedding and classifier keep 8. All is simulated in floats: no engine multiplies such codes, and nothing here is about
speed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from statistics import mean

import torch
from torch import Tensor, nn

from autocompress.compression.activations.attention_maps import AttentionMap, AttentionQuantizer, squared_error
from autocompress.compression.activations.attention_quantizers import ATTENTION_QUANTIZERS
from benchmarks.attention_probe import maps_of, operands, without_values
from benchmarks.l2p import spread
from benchmarks.record import finish, print_table
from benchmarks.teachers import Tutored, load
from benchmarks.vit_model import IMAGES, LARGE, SMALL, Pictures, Size, read_pictures, trained
from benchmarks.vit_simulated import DOPQ, RECIPES, REPQ, UNIFORM, published_log_sqrt2, quantized

TOKENS, DOCUMENTS = 128, 24
"""Of a document; documents that are fitted on, and as many others that are judged on."""
SENTENCES = 16
"""Joined to a document: enough for 128 tokens."""
EVERY = 32
"""Queries: of so many one is fitted on."""
MAP_BITS = (3, 4, 6)
VIT_BITS = (4, 3)
CALIBRATION = 32
"""Images, without labels, as in RepQ-ViT."""
DRAWS = (0, 1, 2)
"""Seeds of the calibration images."""
SEEDS = {SMALL: (0, 1, 2), LARGE: (0,)}
"""Of training: a large one takes a quarter of an hour on a core."""
METHODS = {SMALL: tuple(RECIPES), LARGE: (UNIFORM, REPQ, DOPQ)}
"""Recipes that are tried."""
TESTED = 2000
"""Test images."""
MAP_QUANTIZERS: Mapping[str, Callable[[Sequence[AttentionMap], int], AttentionQuantizer]] = {
    **ATTENTION_QUANTIZERS,
    "log_sqrt2, one code too many": published_log_sqrt2,
}


def documents(tutored: Tutored, texts: Sequence[str], count: int) -> Iterator[dict[str, Tensor]]:
    """Yield ``count`` documents of ``TOKENS`` tokens as inputs of the model."""
    joined = [" ".join(texts[start : start + SENTENCES]) for start in range(0, len(texts), SENTENCES)]
    whole = (ids for ids in tutored.task.encode(joined) if len(ids) == TOKENS)
    for _, ids in zip(range(count), whole, strict=False):
        yield {"input_ids": torch.tensor([ids])}


def map_rows(tutored: Tutored, count: int) -> Iterator[dict[str, object]]:
    """Yield, for each quantizer and width, means over layers of MSE(A) and |dA V|^2 / |A V|^2 on unseen sentences.

    Each is of quantizers that were fitted to that very error, on sentences of their own.
    """
    split = tutored.task.dataset
    fitted_on, judged_on = (
        [maps_of(layer, every=every) for layer in operands(tutored.model, documents(tutored, part.texts, count))]
        for part, every in ((split.train, EVERY), (split.test, 1))
    )
    for bits, (name, fit) in product(MAP_BITS, MAP_QUANTIZERS.items()):
        errors, shares = [], []
        for seen, unseen in zip(fitted_on, judged_on, strict=True):
            plain = without_values(unseen)
            error = squared_error(fit(without_values(seen), bits), plain)
            errors.append(error / sum(each.probabilities.numel() for each in plain))
            whole = sum(each.norm(each.probabilities) for each in unseen)
            shares.append(squared_error(fit(seen, bits), unseen) / whole)
        yield {"bits": bits, "quantizer": name, "mse": mean(errors), "output_error": mean(shares)}


def report_maps(rows: Sequence[Mapping[str, object]]) -> None:
    """Print a line for each quantizer."""
    header = ["post-softmax maps", *(f"{bits} bits: {what}" for bits in MAP_BITS for what in ("MSE(A)", "of A·V"))]
    table = []
    for name in MAP_QUANTIZERS:
        cells = [row for row in rows if row["quantizer"] == name]
        table.append([name, *(f"{row[what]:.2g}" for row in cells for what in ("mse", "output_error"))])
    print_table(header, table)


@dataclass(frozen=True)
class Scored:
    """One model.

    Attributes:
        size: Name of the trained transformer's size.
        bits: Of weights and activations; 32 for the float model.
        recipe: Key of ``RECIPES``, or "float".
        trained, drawn: Seeds of training and of the calibration images.
        correct: Of the test images, how many.
        tested: How many there were.
    """

    size: str
    bits: int
    recipe: str
    trained: int
    drawn: int
    correct: int
    tested: int


@torch.inference_mode()
def correct(model: nn.Module, test: Pictures) -> int:
    """Return how many images get their class."""
    return sum(
        int((model(pixel_values=pixels).logits.argmax(1) == labels).sum()) for pixels, labels in test.batches(250)
    )


@dataclass(frozen=True)
class Study:
    """Scores trained transformers.

    Attributes:
        images: Folder of Fashion-MNIST.
        cache: Of trained transformers, or ``None``.
        tested: Test images.
        draws: Seeds of calibration images.
    """

    images: Path
    cache: Path | None
    tested: int
    draws: Sequence[int]

    def scores(self, size: Size, seed: int, known: Sequence[Scored]) -> Iterator[Scored]:
        """Yield the float model, then each recipe with each draw of images; what is in ``known`` as it is."""
        model = trained(size, seed, self.images, self.cache)
        test, train = read_pictures(self.images, "t10k"), read_pictures(self.images, "train")
        test = Pictures(test.pixels[: self.tested], test.labels[: self.tested])
        done = {replace(each, correct=0): each for each in known}

        def scored(bits: int, recipe: str, draw: int, make: Callable[[], nn.Module]) -> Scored:
            wanted = Scored(size.name, bits, recipe, seed, draw, 0, self.tested)
            return done.get(wanted) or replace(wanted, correct=correct(make(), test))

        yield scored(32, "float", 0, lambda: model)
        for draw, bits in product(self.draws, VIT_BITS):
            images = train.draw(CALIBRATION, draw)
            for name in METHODS[size]:
                yield scored(bits, name, draw, partial(quantized, model, RECIPES[name], images, bits))


def report_vit(found: Sequence[Scored]) -> list[dict[str, object]]:
    """Print and return mean accuracies, and gains on equal models and images.

    ± are standard errors over models and draws, which all see the same test images: that there are only so many of
    those adds a point to the error of an accuracy, and less to that of a gain.
    """
    rows: list[dict[str, object]] = []
    for size, bits in product(dict.fromkeys(each.size for each in found), VIT_BITS):
        share = {
            name: {
                (each.trained, each.drawn): 100 * each.correct / each.tested
                for each in found
                if (each.size, each.bits, each.recipe) == (size, bits, name)
            }
            for name in RECIPES
        }
        whole = [100 * each.correct / each.tested for each in found if (each.size, each.bits) == (size, 32)]
        row: dict[str, object] = {"size": size, "bits": bits, "models": len(whole), "runs": len(share[DOPQ])}
        tried = {name: spread(list(runs.values())) for name, runs in share.items() if runs}
        row["accuracy"] = {"float": spread(whole), **tried}
        row["gains"] = {
            f"{better} over {worse}": spread([share[better][run] - share[worse][run] for run in share[better]])
            for better, worse in ((DOPQ, REPQ), (REPQ, UNIFORM), (DOPQ, UNIFORM))
        }
        rows.append(row)
    for key in ("accuracy", "gains"):
        names = dict.fromkeys(name for row in rows for name in row[key])
        print_table(
            [key, *(f"W{row['bits']}A{row['bits']}: {row['size']}" for row in rows)],
            [
                [name, *(_cell(row[key].get(name), row["models" if name == "float" else "runs"]) for row in rows)]
                for name in names
            ],
        )
    return rows


def _cell(value: tuple[float, float] | None, runs: int) -> str:
    """Write points, with their standard error where there are several runs."""
    if value is None:
        return ""
    return "{:.2f} ± {:.2f}".format(*value) if runs > 1 else f"{value[0]:.2f}"


def main() -> None:
    """Measure both and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("teachers", type=Path, help="folder of fine-tuned models")
    parser.add_argument("data", type=Path, help="folder of labelled data")
    parser.add_argument("--images", type=Path, default=IMAGES, help="folder of Fashion-MNIST's four files")
    parser.add_argument("--cache", type=Path, help="keep trained vision transformers here, and use those that are")
    parser.add_argument("--records", type=Path, help="keep scores in this file, and go on with what it holds")
    parser.add_argument("--quick", action="store_true", help="few documents, one small transformer, 1,000 images")
    arguments = parser.parse_args()
    if not arguments.images.is_dir():
        parser.error(f"no images in {arguments.images}: apt install dataset-fashion-mnist, or give --images FOLDER")
    quick = arguments.quick
    with tempfile.TemporaryDirectory() as cache:
        tutored = load("sst2", teachers=arguments.teachers, data=arguments.data, cache=Path(cache), max_tokens=TOKENS)
    maps = list(map_rows(tutored, 8 if quick else DOCUMENTS))
    report_maps(maps)
    path: Path | None = arguments.records
    lines = path.read_text().splitlines() if path and path.exists() else []
    known, found = [Scored(**json.loads(line)) for line in lines], []
    study = Study(arguments.images, arguments.cache, *((1000, DRAWS[:1]) if quick else (TESTED, DRAWS)))
    for size, seeds in {SMALL: SEEDS[SMALL][:1]}.items() if quick else SEEDS.items():
        for seed in seeds:
            for each in study.scores(size, seed, known):
                found.append(each)
                if path and each not in known:
                    with path.open("a") as file:
                        file.write(json.dumps(asdict(each)) + "\n")
    figures = {"maps": maps, "vit": report_vit(found)}
    details = {
        "scores": [asdict(each) for each in found],
        "training": {size.name: asdict(size) for size in SEEDS},
        "calibration_images": CALIBRATION,
    }
    finish("vit_quantization", figures, quick=quick, details=details)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
