"""One of two processes that train Crossing Nets together; run by torchrun from
test_train_crossing_nets.py. Writes the networks that it ends with to FOLDER/rank_R.safetensors."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from test_train_crossing_nets import config, pool

from dgpose.train.crossing_nets import train_crossing_nets

if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    settings = config(folder / "run", devices=2, strategy="ddp", steps=(3, 3, 3))
    result = train_crossing_nets(settings, pool(labelled=8))
    assert result.finished
    weights = {name: tensor.contiguous() for name, tensor in result.nets.state_dict().items()}
    save_file(weights, folder / f"rank_{os.environ['RANK']}.safetensors")
