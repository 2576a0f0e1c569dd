"""One of two processes that train DGPose together; run by torchrun from test_train_dgpose.py.
Writes the networks that it ends with to FOLDER/{semi,paper}_R.safetensors."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from test_train_dgpose import PAPER, SEMI, pool, settings

from dgpose.train.dgpose import _Run

if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    for name, model in (("semi", SEMI), ("paper", PAPER)):
        config = settings(folder / name, model=model, devices=2, strategy="ddp", steps=4)
        run = _Run(config, pool(), pool(9), "")
        assert run.run().finished
        weights = {
            f"{part}.{key}": tensor.contiguous()
            for part, module in run.learner.modules.items()
            for key, tensor in module.state_dict().items()
        }
        save_file(weights, folder / f"{name}_{os.environ['RANK']}.safetensors")
