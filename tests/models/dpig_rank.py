"""One of two processes that train DPIG together; run by torchrun from test_train_dpig.py. Writes
the networks that each stage ends with, critics, too, to FOLDER/STAGE_R.safetensors."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from test_train_dpig import STAGES, settings, train

from dgpose.train.training_run import TrainingRun

if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    runs: list[Any] = []
    steps = TrainingRun.run_steps

    def kept(run: Any) -> bool:
        runs.append(run)
        return steps(run)

    TrainingRun.run_steps = kept  # type: ignore[method-assign]
    for stage in STAGES:
        config = settings(folder / stage, devices=2, strategy="ddp", steps=3, validate_every=99)
        assert train(stage, config).finished
        weights = {
            f"{part}.{key}": tensor.contiguous()
            for part, module in runs[-1].learner.modules.items()
            for key, tensor in module.state_dict().items()
        }
        save_file(weights, folder / f"{stage}_{os.environ['RANK']}.safetensors")
