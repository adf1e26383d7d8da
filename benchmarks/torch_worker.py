"""The profiling worker, which also runs torch in eager mode: an artifact is the weights file of a saved classifier."""

from __future__ import annotations

from autocompress.cost import Artifact
from autocompress.engines import ENGINES, Ids, Logits, Run
from autocompress.profiling import worker


def open_torch(artifact: Artifact, *, threads: int) -> Run:
    """Load a saved classifier into torch, f32, as a program that uses transformers would."""
    import torch
    from transformers import AutoModelForSequenceClassification

    torch.set_num_threads(threads)
    model = AutoModelForSequenceClassification.from_pretrained(artifact.path.parent).eval()

    def run(input_ids: Ids, attention_mask: Ids) -> Logits:
        with torch.inference_mode():
            ids, mask = torch.from_numpy(input_ids), torch.from_numpy(attention_mask)
            logits: Logits = model(input_ids=ids, attention_mask=mask).logits.numpy()
        return logits

    return run


if __name__ == "__main__":
    ENGINES["torch"] = open_torch
    worker.main()
