"""Tiny models of every family, made on the spot."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # Threads that spin crawl where another process has a core.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # The other cores are the other workers'.

from collections.abc import Generator
from itertools import chain, zip_longest

import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DeiTConfig,
    DeiTForImageClassification,
    Dinov2Config,
    Dinov2ForImageClassification,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersForImageClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
    ViTConfig,
    ViTForImageClassification,
)

from autocompress.errors import MissingDependencyError
from autocompress.models.load import adapter_of

WIDTHS = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 96}
COMMON = {"vocab_size": 60, "max_position_embeddings": 40, "num_labels": 3}
IMAGE = {"image_size": 24, "patch_size": 6, "num_channels": 3, "num_labels": 3}
TEXT_FAMILIES = ("bert", "distilbert", "roberta", "electra")
IMAGE_FAMILIES = ("vit", "deit", "dinov2", "dinov2_with_registers")


@pytest.fixture(scope="session", autouse=True)
def no_user_files(tmp_path_factory: pytest.TempPathFactory) -> Generator[None, None, None]:
    """Let nothing that a user measured or tuned on this machine decide a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTOCOMPRESS_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One process more than there are cores, for boards and killed processes are waited for; at most four."""
    return min(4, 1 + (os.cpu_count() or 1))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with files that take long, lest one is left at the end; what waits stands between what computes."""
    slow = dict.fromkeys(item.path for item in items if any(map(item.get_closest_marker, ("slow", "board"))))
    waiting = dict.fromkeys(item.path for item in items if "boards" in item.path.parts)
    pairs = zip_longest(waiting, (path for path in slow if path not in waiting))
    order = {path: place for place, path in enumerate(dict.fromkeys(chain.from_iterable(pairs)))}
    items.sort(key=lambda item: order.get(item.path, len(order)))


@pytest.fixture(autouse=True)
def same_draws() -> None:
    """Let a test that draws without a seed of its own draw the same every time."""
    torch.manual_seed(0)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    """Skip a test whose fixtures need a tool that this machine lacks, such as a linker; in CI it fails."""
    return (yield from _skip_without_tools())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """The same for the test itself."""
    return (yield from _skip_without_tools())


def _skip_without_tools() -> Generator[None, object, object]:
    try:
        return (yield)
    except MissingDependencyError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


def tiny_model(family: str, seed: int = 0) -> nn.Module:
    """Return a random classifier whose logits differ between inputs by more than rounding errors."""
    torch.manual_seed(seed)
    makers = {
        "bert": lambda: BertForSequenceClassification(BertConfig(**WIDTHS, **COMMON)),
        "roberta": lambda: RobertaForSequenceClassification(RobertaConfig(**WIDTHS, **COMMON, pad_token_id=1)),
        "electra": lambda: ElectraForSequenceClassification(ElectraConfig(**WIDTHS, **COMMON, embedding_size=32)),
        "distilbert": lambda: DistilBertForSequenceClassification(
            DistilBertConfig(dim=48, n_layers=3, n_heads=4, hidden_dim=96, **COMMON)
        ),
        "vit": lambda: ViTForImageClassification(ViTConfig(**WIDTHS, **IMAGE, qkv_bias=False)),
        "deit": lambda: DeiTForImageClassification(DeiTConfig(**WIDTHS, **IMAGE)),
        "dinov2": lambda: Dinov2ForImageClassification(Dinov2Config(**WIDTHS, **IMAGE, mlp_ratio=2)),
        "dinov2_with_registers": lambda: Dinov2WithRegistersForImageClassification(
            Dinov2WithRegistersConfig(**WIDTHS, **IMAGE, mlp_ratio=2, num_register_tokens=3)
        ),
    }
    model = makers[family]().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2:
                parameter.mul_(4.0)
            elif name.endswith(("bias", "lambda1", "tokens", "token")):
                parameter.add_(torch.randn_like(parameter) * 0.1)
    adapter_of(model).fold(model)
    return model


@pytest.fixture(params=TEXT_FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def model(family: str) -> nn.Module:
    return tiny_model(family)


@pytest.fixture(params=IMAGE_FAMILIES)
def image_family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def image_model(image_family: str) -> nn.Module:
    return tiny_model(image_family)


@pytest.fixture(params=(*TEXT_FAMILIES, *IMAGE_FAMILIES))
def any_model(request: pytest.FixtureRequest) -> nn.Module:
    return tiny_model(request.param)


@pytest.fixture(params=("bert", "vit"))
def either_model(request: pytest.FixtureRequest) -> nn.Module:
    """One with norms behind its sums, and one with norms before its parts."""
    return tiny_model(request.param)
