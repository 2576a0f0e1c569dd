"""One of two processes that train max-margin retrieval together; run by torchrun from
test_train_max_margin.py. Writes the networks that it ends with, and counts of violators, to
FOLDER/{paper,strong}_R.safetensors."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from test_train_max_margin import PAPER, STRONG, pool, settings, with_recipe

from dgpose.train.max_margin import _Run

if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    strong = with_recipe(STRONG, pretrain_share=0.5, candidates="sampled")
    for name, model in (("paper", PAPER), ("strong", strong)):
        config = settings(
            folder / name, model=model, devices=2, strategy="ddp", steps=6, validate_every=99
        )
        run = _Run(config, pool(), pool(), pool().poses, "")
        assert run.run().finished
        run.learner.learn(0.99)  # the run's end made some of it alike
        weights = {
            f"{part}.{key}": tensor.contiguous()
            for part, module in run.learner.modules.items()
            for key, tensor in module.state_dict().items()
        }
        save_file(weights, folder / f"{name}_{os.environ['RANK']}.safetensors")
