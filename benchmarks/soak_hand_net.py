"""A long run of HandNet: `python -m benchmarks.soak_hand_net [--frames 1000000] [--threads 8]
[--check-every 10000] [--precision float32] [--model NAME]`.

Threads share one engine and go round a cycle of raw frames: rendered hands, uint16 and float32,
with the centre given and searched, and frames without a hand. Every result must equal, bit for bit,
what one thread made of the same frame before; every --check-every-th must lie near the reference
(the torch module, after the torch twins of the kernels that crop); and the memory of the process
must stay flat. Exit code 1 where one of these fails. Writes results/soak_hand_net.json.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .hand_engines import hand_net
from .hand_networks import CAMERA, SIZE, Floats, Network, networks
from .harness import RESULTS, environment, write_json

#: Largest mean distance of a frame's joints from the reference, mm. Tight in float32; where hands
#: are ambiguous, single joints move by more in the narrow precisions.
TOLERANCE_MM = {"float32": 0.02, "bfloat16": 3.0, "int8": 8.0}
#: Growth after the warm-up that counts as flat, MiB: malloc's and Python's pools move that much.
GROWTH_MIB = 4.0
WARM_UP = 0.1  # share of the frames
SAMPLES = 100  # of the memory


@dataclass(frozen=True)
class Sample:
    """A frame, what one thread makes of it, and the reference's joints (None: no hand)."""

    depth: NDArray[Any]
    center: tuple[float, float, float] | None
    expected: tuple[Any, ...]
    reference_mm: Floats | None


@dataclass
class Tally:
    """What one thread has seen."""

    frames: int = 0
    different: int = 0
    checked: int = 0
    wrong: int = 0
    worst_mm: float = 0.0
    error: BaseException | None = None


def bits(frame: Any) -> tuple[Any, ...]:
    """A HandFrame as something that is equal only to the same bits (NaN included)."""
    arrays = frame.joints_mm.tobytes(), frame.joints_uvd.tobytes()
    return (*arrays, frame.found, frame.center, frame.foreground, frame.clipped)


def reference_mm(
    network: Network,
    module: Any,
    depth: NDArray[Any],
    center: tuple[float, float, float] | None,
) -> Floats | None:
    """Joints by torch alone; None where there is no hand."""
    import torch

    from dgpose_ext import depth_crop, find_hand_center

    frame = torch.from_numpy(depth)
    center = center or find_hand_center(frame, CAMERA, backend="reference")
    if center is None:
        return None
    crop = depth_crop(
        frame[None],
        torch.tensor([center], dtype=torch.float64),
        CAMERA,
        network.cube_mm,
        SIZE,
        normalize=network.normalize,
        backend="reference",
    )
    if not bool((crop < 1).any()):
        return None
    with torch.no_grad():
        return network.joints_mm(module(crop)[0].numpy(), center)


def cycle(net: Any, network: Network, hands: int = 25) -> list[Sample]:
    """The frames that go round, with the results of one thread and of the reference.

    27 of them: no divisor in common with 10,000, so that each is checked in turn.

    Raises:
        ValueError: HandNet and the reference disagree on whether a frame shows a hand.
    """
    from dgpose.data.synthetic_hands import SyntheticHands

    rendered = SyntheticHands(11, poses="kinematic", split="test")
    frames: list[tuple[NDArray[Any], tuple[float, float, float] | None]] = [
        (np.zeros((480, 640), np.uint16), None),
        (np.full((240, 320), np.nan, np.float32), (160.0, 120.0, 700.0)),
    ]
    for index in range(hands):
        frame = rendered.frame(index)
        depth: NDArray[Any] = frame.depth
        if index % 3 == 1:
            depth = depth.astype(np.float32)
            depth[depth == 0] = np.nan
        x, y, z = map(float, frame.joints_mm.mean(0))
        fx, fy, cx, cy = CAMERA
        frames.append((depth, None if index % 2 else (fx * x / z + cx, cy - fy * y / z, z)))

    module, samples = network.module(), []
    for depth, center in frames:
        result = net.run(depth, CAMERA, center, cube_mm=network.cube_mm)
        reference = reference_mm(network, module, depth, center)
        if result.found != (reference is not None):
            raise ValueError("HandNet and the reference must agree on whether there is a hand")
        samples.append(Sample(depth, center, bits(result), reference))
    return samples


def work(
    net: Any,
    cube_mm: float,
    samples: Sequence[Sample],
    mine: range,
    check_every: int,
    tolerance_mm: float,
    tally: Tally,
) -> None:
    """One thread: frame i of the run is frame i of the cycle, round and round."""
    try:
        for i in mine:
            sample = samples[i % len(samples)]
            result = net.run(sample.depth, CAMERA, sample.center, cube_mm=cube_mm)
            tally.different += bits(result) != sample.expected
            if (i + 1) % check_every == 0:
                tally.checked += 1
                far = distance_mm(result, sample.reference_mm)
                tally.wrong += not far <= tolerance_mm
                tally.worst_mm = max(tally.worst_mm, far)
            tally.frames += 1
    except BaseException as error:
        tally.error = error


def distance_mm(result: Any, reference: Floats | None) -> float:
    """Mean distance of the joints from the reference; infinite where only one has a hand."""
    if reference is None or not result.found:
        return 0.0 if reference is None and not result.found else float("inf")
    return float(np.linalg.norm(result.joints_mm - reference, axis=1).mean())


def memory_mib() -> float:
    """Resident memory of this process (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def growth_mib(memory: Sequence[tuple[int, float]], frames: int) -> float:
    """How far the memory rose above what it was at the end of the warm-up."""
    warm = [mib for done, mib in memory if done >= WARM_UP * frames]
    return max(warm) - warm[0]


def soak(
    net: Any,
    network: Network,
    samples: Sequence[Sample],
    *,
    frames: int,
    threads: int,
    check_every: int,
    progress: Callable[[int], Any] = lambda done: None,
) -> dict[str, Any]:
    """Runs and counts.

    Raises:
        whatever a thread raised.
    """
    tolerance = TOLERANCE_MM[net.precision]
    tallies = [Tally() for _ in range(threads)]
    pool = [
        threading.Thread(
            target=work,
            args=(
                net,
                network.cube_mm,
                samples,
                range(first, frames, threads),
                check_every,
                tolerance,
                tally,
            ),
        )
        for first, tally in enumerate(tallies)
    ]
    start = time.perf_counter()
    memory: list[tuple[int, float]] = []
    for thread in pool:
        thread.start()
    while any(thread.is_alive() for thread in pool):
        done = sum(tally.frames for tally in tallies)
        if done >= len(memory) * frames / SAMPLES:
            memory.append((done, memory_mib()))
            progress(done)
        time.sleep(0.001)
    seconds = time.perf_counter() - start
    memory.append((sum(tally.frames for tally in tallies), memory_mib()))
    for tally in tallies:
        if tally.error is not None:
            raise tally.error
    return {
        "network": network.name,
        "precision": net.precision,
        "threads": threads,
        "frames": sum(tally.frames for tally in tallies),
        "seconds": seconds,
        "different_from_one_thread": sum(tally.different for tally in tallies),
        "checked_against_reference": sum(tally.checked for tally in tallies),
        "wrong": sum(tally.wrong for tally in tallies),
        "worst_mm": max(tally.worst_mm for tally in tallies),
        "tolerance_mm": tolerance,
        "growth_mib": growth_mib(memory, frames),
        "memory_mib": [[done, round(mib, 2)] for done, mib in memory],
    }


def failures(result: dict[str, Any]) -> list[str]:
    """What is wrong with a run; empty if nothing is."""
    found = []
    if result["different_from_one_thread"]:
        found.append(f"{result['different_from_one_thread']} frames differ from one thread's")
    if result["wrong"]:
        found.append(f"{result['wrong']} frames are off the reference by {result['worst_mm']} mm")
    if result["growth_mib"] > GROWTH_MIB:
        found.append(f"memory grew by {result['growth_mib']:.1f} MiB")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs, prints and writes; returns the exit code."""
    known = {network.name: network for network in networks() if network.output == "crop"}
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--check-every", type=int, default=10_000)
    parser.add_argument("--precision", default="float32", choices=list(TOLERANCE_MM))
    parser.add_argument("--model", default="model accurate", choices=list(known))
    parser.add_argument("--out", type=Path, default=RESULTS / "soak_hand_net.json")
    options = parser.parse_args(arguments)
    if min(options.frames, options.threads, options.check_every) < 1:
        parser.error("--frames, --threads and --check-every must be at least 1")

    network = known[options.model]
    net = hand_net(network, options.precision)
    result = soak(
        net,
        network,
        cycle(net, network),
        frames=options.frames,
        threads=options.threads,
        check_every=options.check_every,
        progress=lambda done: print(
            f"\r{done:,} frames, {memory_mib():.1f} MiB", end="", flush=True
        ),
    )
    write_json({"environment": environment(), "result": result}, options.out)
    print(
        f"\n{result['network']}, {result['precision']}: {result['frames']:,} frames on "
        f"{result['threads']} threads in {result['seconds']:.0f} s "
        f"({result['frames'] / result['seconds']:,.0f} frames/s)\n"
        f"  {result['different_from_one_thread']} differ from one thread's\n"
        f"  {result['checked_against_reference']} checked against the reference, "
        f"{result['wrong']} wrong, worst {result['worst_mm']:.4f} mm\n"
        f"  memory {result['memory_mib'][-1][1]:.1f} MiB, grown by {result['growth_mib']:.2f} MiB\n"
        f"wrote {options.out}"
    )
    problems = failures(result)
    for problem in problems:
        print(f"FAILED: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
