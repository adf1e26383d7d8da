"""A whole small world: a model with its tokenizer, labelled text that can be learned, and a run file."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
import torch
import yaml
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from autocompress.cli import main

ROOT = Path(__file__).parents[2]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
CUES = {"animal": ["cat", "dog", "horse"], "plant": ["oak", "rose", "fern"]}
FILLER = ["the", "a", "old", "near", "house", "river", "stands", "was", "seen", "today", "and", "very"]
WORDS = [word for words in CUES.values() for word in words] + FILLER


def write_model(
    folder: Path, seed: int = 0, *, layers: int = 3, hidden: int = 32, words: Sequence[str] = WORDS
) -> Path:
    """Save a random BERT with a WordPiece tokenizer of whole words, as save_pretrained lays it out."""
    vocabulary = SPECIAL + list(words)
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=32, **names).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=2 * hidden,
        max_position_embeddings=32,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: nn.Module = BertForSequenceClassification(config).bert
    model.save_pretrained(folder)
    return folder


def write_data(folder: Path) -> Path:
    """Write train.tsv and test.tsv: whether a text names an animal or a plant."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(0)

    def line() -> str:
        label = rng.choice(sorted(CUES))
        words = rng.choices(FILLER, k=rng.randint(3, 8))
        words.insert(rng.randrange(len(words)), rng.choice(CUES[label]))
        return f"{' '.join(words)}\t{label}"

    for split, count in (("train", 240), ("test", 60)):
        lines = ["text\tlabel", *(line() for _ in range(count))]
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    return folder


class World:
    """A folder with model, data, home and run file, in which the command line runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run_file = folder / "first.yaml"
        write_model(folder / "model")
        write_data(folder / "data")
        self.write_run()

    def write_run(self, **sections: object) -> None:
        """Write the run file; ``sections`` take the place of its own."""
        run = {
            "model": {"source": "model", "finetune": {"epochs": 8, "learning_rate": 5.0e-3, "head_ratio": 1.0}},
            "task": {"data": {"source": "data"}, "max_tokens": 12},
            "budget": {"latency_p50": "1 s", "size": "0.7x"},  # Sizes are exact: noise cannot move what fits.
            "goal": {"max_drop": "20 points"},
            "calibrate": {"samples": 9},
            "search": {
                "trials": 5,
                "distill_steps": 4,
                "refine_steps": 8,
                "quantization_aware_steps": 4,
                "finalists": 2,
                "learning_rate": 1.0e-3,
                "space": {"align": 16},
            },
        }
        self.run_file.write_text(yaml.safe_dump({**run, **sections}))

    @property
    def variables(self) -> dict[str, str]:
        """What decides where files are kept, and how wide what is printed may be."""
        return {"AUTOCOMPRESS_HOME": str(self.folder / "home"), "COLUMNS": "160"}

    @property
    def environment(self) -> dict[str, str]:
        """Of a process that runs here."""
        return os.environ | self.variables | {"PYTHONPATH": str(ROOT)}

    def start(self, *arguments: str, folder: Path = Path()) -> subprocess.Popen[str]:
        """Start the command line in ``folder``; Ctrl-C reaches it also where tests run in the background of a shell."""
        how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "preexec_fn": _heed_ctrl_c}
        command = [sys.executable, "-m", "autocompress", *arguments]
        return subprocess.Popen(command, cwd=self.folder / folder, env=self.environment, text=True, **how)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command line to its end, in a process of its own."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=600)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def answer(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run it to its end in this process, without the seconds that another takes to load everything."""
        out, err = StringIO(), StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.chdir(self.folder)
            for name, value in self.variables.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as ended:
                main(arguments)
        return subprocess.CompletedProcess(arguments, ended.value.code, out.getvalue(), err.getvalue())


def _heed_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
