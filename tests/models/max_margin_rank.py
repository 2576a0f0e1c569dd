"""One of two processes that train max-margin retrieval together; run by torchrun from
test_train_max_margin.py. Writes the networks that it ends with to FOLDER/rank_R.safetensors."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from test_train_max_margin import PAPER, pool, settings

from dgpose.train.max_margin import train_max_margin

if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    config = settings(folder / "run", model=PAPER, devices=2, strategy="ddp", steps=6)
    result = train_max_margin(config, pool(), pool())
    assert result.finished
    weights = {name: tensor.contiguous() for name, tensor in result.model.state_dict().items()}
    save_file(weights, folder / f"rank_{os.environ['RANK']}.safetensors")
