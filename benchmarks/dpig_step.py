"""A training step of DPIG's stage 1, with our kernels and in plain torch: `python -m
benchmarks.dpig_step`.

Plain torch is the reference of each op (DGPOSE_BACKEND=reference). Each runs in a process of its
own, on one thread, in bf16-mixed, as the training does; times are of the process's processor, so
that other work on the machine counts for little. Beside the step: how long the maps, mask and boxes
of the poses take in it, the crops of features (forward and backward) and the maps that codes are
placed by. Peak memory is what the process grew by from before the first step. Writes
results/dpig_step.json.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import dgpose.models.dpig.networks as networks
import dgpose.train.dpig_learner as learner_module
from dgpose.data.person_sources import read_people
from dgpose.models.dpig import DPIG, DPIGConfig
from dgpose.train.dpig import DPIGTrainConfig
from dgpose.train.run import launch_fabric

from .harness import RESULTS, environment, write_json

BACKENDS = {"our kernels": "cpu", "plain torch": "reference"}
_WARM_UP = 2


class Timed:
    """A function that counts the processor time it takes, and keeps its last arguments."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.seconds = function, 0.0
        self.last: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        self.last = arguments, options
        start = time.process_time()
        result = self.function(*arguments, **options)
        self.seconds += time.process_time() - start
        return result


def _backward_seconds(crop: Timed, repeats: int) -> float:
    """Of the crops that were made last."""
    (features, *rest), options = crop.last
    times = []
    for _ in range(repeats):
        leaf = features.detach().requires_grad_()
        crops = crop.function(leaf, *rest, **options)
        gradient = torch.ones_like(crops)
        start = time.process_time()
        crops.backward(gradient)
        times.append(time.process_time() - start)
    return statistics.median(times)


def measure(config: str, steps: int) -> dict[str, float]:
    """Seconds and bytes of a step in this process, by the backend of its environment."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = DPIGConfig.paper() if config == "paper" else DPIGConfig.small()
    pool = read_people("rendered", size=model.size, count=64)
    timed: dict[str, Timed] = {}
    for module, name in (
        (learner_module, "pose_inputs"),
        (networks, "crop_and_resize"),
        (networks, "limb_heatmap"),
    ):
        timed[name] = Timed(getattr(module, name))
        setattr(module, name, timed[name])
    with tempfile.TemporaryDirectory() as folder:
        run = DPIGTrainConfig(Path(folder), steps=1, precision="bf16-mixed", accelerator="cpu")
        learner = learner_module.Stage1Learner(
            launch_fabric(run), DPIG(model), model.stage1, pool, seed=0
        )
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        times: list[float] = []
        for step in range(_WARM_UP + steps):
            if step == _WARM_UP:
                for function in timed.values():
                    function.seconds = 0.0
            start = time.process_time()
            learner.learn(0.5)
            times.append(time.process_time() - start)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {
        "step_s": statistics.median(times[_WARM_UP:]),
        "pose_inputs_s": timed["pose_inputs"].seconds / steps,
        "crops_forward_s": timed["crop_and_resize"].seconds / steps,
        "crops_backward_s": _backward_seconds(timed["crop_and_resize"], min(steps, 10)),
        "placing_maps_s": timed["limb_heatmap"].seconds / steps,
        "peak_growth_mb": grown / 1024,
        "batch": float(model.stage1.batch),
    }


def _in_a_process(backend: str, config: str, steps: int) -> dict[str, Any]:
    command = [sys.executable, "-m", f"{__package__}.dpig_step", "--alone"]
    command += ["--config", config, "--steps", str(steps)]
    one_thread = {"OMP_NUM_THREADS": "1", "DGPOSE_BACKEND": backend}
    done = subprocess.run(
        command, env=os.environ | one_thread, stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", choices=("small", "paper"), default="small")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.alone:
        print(json.dumps(measure(args.config, args.steps)))
        return
    results = {}
    for name, backend in BACKENDS.items():
        found = results[name] = _in_a_process(backend, args.config, args.steps)
        parts = ("pose_inputs", "crops_forward", "crops_backward", "placing_maps")
        inside = sum(found[f"{part}_s"] for part in parts)
        found["share"] = inside / found["step_s"]
        said = ", ".join(f"{part} {1e3 * found[f'{part}_s']:.1f}" for part in parts)
        print(
            f"{name}: {1e3 * found['step_s']:.0f} ms a step, of which ms: {said} "
            f"({100 * found['share']:.1f} %); {found['peak_growth_mb']:.0f} MB"
        )
    facts = {"environment": environment(), "config": args.config, "results": results}
    write_json(facts, RESULTS / f"dpig_step{'' if args.config == 'small' else '_paper'}.json")


if __name__ == "__main__":
    main()
