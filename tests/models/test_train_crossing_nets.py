"""Training of Crossing Nets: a resumed run is the run that was not interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import distributed

from dgpose.data.hand_pool import HandPool
from dgpose.models.crossing_nets import (
    CrossingNets,
    CrossingNetsConfig,
    JointWeights,
    LatentDistribution,
    StageConfig,
    load_crossing_nets,
)
from dgpose.train import crossing_nets
from dgpose.train.crossing_nets import (
    CrossingNetsTrainConfig,
    stage_steps,
    train_crossing_nets,
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums of several threads differ in the last bit, which Adam's first steps make large."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


NETWORKS = CrossingNetsConfig(
    joints=6,
    origin_joint=2,
    image_size=32,
    channels=4,
    hidden=10,
    vae=StageConfig(1, 4, 1e-2),
    gan=StageConfig(1, 4, 1e-3),
    joint=StageConfig(2, 4, 1e-3),
    warm_up_epochs=1,
)


def pool(labelled: int = 12) -> HandPool:
    generator = torch.Generator().manual_seed(0)
    joints = torch.randn(16, 6, 3, generator=generator)
    depth = torch.rand(16, 1, 32, 32, generator=generator) * 2 - 1
    return HandPool(depth, joints, torch.arange(16) < labelled)


def config(out: Path, **changes: object) -> CrossingNetsTrainConfig:
    settings: dict[str, object] = {
        "networks": NETWORKS, "accelerator": "cpu", "save_every": 3, "log_every": 1,
    }  # fmt: skip
    return CrossingNetsTrainConfig(out, **(settings | changes))  # type: ignore[arg-type]


def trained(settings: CrossingNetsTrainConfig, frames: HandPool, **more: str) -> CrossingNets:
    """The networks at the end of a run that was let go on to its end."""
    result = train_crossing_nets(settings, frames, **more)
    assert result.finished
    return result.nets


def same_bits(one: CrossingNets, other: CrossingNets) -> None:
    for (name, a), b in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("killed_at", [4, 8, 12])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {
            "networks": replace(
                NETWORKS,
                direct_head=True,
                palm_joints=(0, 3, 5),
                weights=JointWeights(cycle=1.0, generated_posterior=1.0),
                joint=StageConfig(2, 4, 1e-3, schedule="cosine"),
            ),
            "rotation_deg": 40.0,
            "precision": "bf16-mixed",
        },
    ],
    ids=["paper", "everything"],
)
def test_resumed_run_ends_in_the_same_bits(
    settings: dict[str, object], killed_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 12 steps, 3 + 3 + 6, with a checkpoint every third: killed after that at a stage's end,
    within a stage, and in the last step, after which the statistics are estimated."""
    whole = trained(config(tmp_path / "whole", **settings), pool())
    learn = crossing_nets._Run._learn
    steps = 0

    def die(run: crossing_nets._Run) -> dict[str, torch.Tensor]:
        nonlocal steps
        steps += 1
        if steps == killed_at:
            raise KeyboardInterrupt
        return learn(run)

    monkeypatch.setattr(crossing_nets._Run, "_learn", die)
    with pytest.raises(KeyboardInterrupt):
        train_crossing_nets(config(tmp_path / "parts", **settings), pool())
    monkeypatch.undo()
    again = config(tmp_path / "parts", resume=True, **settings)
    same_bits(trained(again, pool()), whole)
    same_bits(trained(again, pool()), whole)  # a finished run, once more


def test_stopped_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an earlier run left in the folder does not make it a finished one."""
    trained(config(tmp_path, steps=(1, 1, 1)), pool())
    (tmp_path / "checkpoint.safetensors").unlink()
    whole = trained(config(tmp_path / "whole"), pool())
    learn = crossing_nets._Run._learn

    def stop_in_the_last_step(run: crossing_nets._Run) -> dict[str, torch.Tensor]:
        if (run.stage, run.step) == (2, 5):
            signal.raise_signal(signal.SIGTERM)
        return learn(run)

    monkeypatch.setattr(crossing_nets._Run, "_learn", stop_in_the_last_step)
    stopped = train_crossing_nets(config(tmp_path), pool())
    monkeypatch.undo()
    assert not stopped.finished
    assert not stopped.nets.training
    same_bits(trained(config(tmp_path, resume=True), pool()), whole)


def test_losses_that_are_not_finite_end_the_run(tmp_path: Path) -> None:
    frames = pool()
    frames.depth[:] = torch.nan
    with pytest.raises(RuntimeError, match=r"must be finite, got .* nan at step 1 of stage gan"):
        train_crossing_nets(config(tmp_path, steps=(1, 2, 0)), frames)
    assert not (tmp_path / "checkpoint.safetensors").exists()


needs_gloo = pytest.mark.skipif(
    not (distributed.is_available() and distributed.is_gloo_available()),
    reason="needs torch.distributed with gloo",
)


@needs_gloo
def test_two_ranks_end_with_the_same_networks(tmp_path: Path) -> None:
    """Their batches differ, so their gradients do, until they are averaged."""
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    worker = Path(__file__).with_name("crossing_nets_rank.py")
    result = subprocess.run(
        [sys.executable, *launch, str(worker), str(tmp_path)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert result.returncode == 0, result.stderr
    first, second = (load_file(tmp_path / f"rank_{rank}.safetensors") for rank in (0, 1))
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
    alone = trained(config(tmp_path / "alone", steps=(3, 3, 3)), pool(8)).state_dict()
    assert not torch.equal(first["vae.first.weight"], alone["vae.first.weight"])
    with pytest.raises(ValueError, match="ranks must be that of the resumed run, 2, got 1"):
        train_crossing_nets(config(tmp_path / "run", steps=(3, 3, 3), resume=True), pool(8))


def test_steps_of_the_stages() -> None:
    assert stage_steps(config(Path("out")), 12) == (3, 3, 6)
    assert stage_steps(config(Path("out")), 12, ranks=2) == (1, 1, 2)
    assert stage_steps(config(Path("out"), steps=(7, 0, 1)), 12) == (7, 0, 1)
    paper = stage_steps(CrossingNetsTrainConfig(Path("out")), 72_757)
    assert paper == (201 * 363, 1001 * 727, 101 * 363)


def test_another_source_of_frames_is_refused(tmp_path: Path) -> None:
    train_crossing_nets(config(tmp_path, steps=(1, 0, 0)), pool(), data="one set")
    again = config(tmp_path, steps=(1, 0, 0), resume=True)
    with pytest.raises(ValueError, match=r"data.source must be .*, 'one set', got 'another set'"):
        train_crossing_nets(again, pool(), data="another set")
    trained(again, pool(), data="one set")


def test_few_labels_and_stages_in_steps(tmp_path: Path) -> None:
    before = trained(config(tmp_path / "a", steps=(0, 0, 0)), pool(2))
    after = trained(config(tmp_path / "b", steps=(2, 0, 2)), pool(2))
    assert not torch.equal(before.vae.first.weight, after.vae.first.weight)
    warm_up = trained(config(tmp_path / "c", steps=(2, 0, 1)), pool(2))
    assert not torch.equal(warm_up.alignment.layers[0].weight, before.alignment.layers[0].weight)
    assert torch.equal(warm_up.generator.dense[0].weight, before.generator.dense[0].weight)


def test_refuses(tmp_path: Path) -> None:
    run = config(tmp_path, steps=(1, 0, 0))
    train_crossing_nets(run, pool())
    with pytest.raises(ValueError, match="holds a run: resume it"):
        train_crossing_nets(run, pool())
    with pytest.raises(ValueError, match="seed must be that of the resumed run, 0, got 1"):
        train_crossing_nets(config(tmp_path, steps=(1, 0, 0), resume=True, seed=1), pool())
    other = replace(NETWORKS, joint=replace(NETWORKS.joint, batch=5))
    with pytest.raises(ValueError, match=r"^networks\.joint\.batch must be .* run, 4, got 5$"):
        train_crossing_nets(config(tmp_path, steps=(1, 0, 0), resume=True, networks=other), pool())
    with pytest.raises(ValueError, match="precision must be that of the resumed run"):
        train_crossing_nets(
            config(tmp_path, steps=(1, 0, 0), resume=True, precision="bf16-mixed"), pool()
        )
    with pytest.raises(ValueError, match="unit_mm must be 50, a pool's unit, got 10"):
        train_crossing_nets(
            config(tmp_path / "b", networks=replace(NETWORKS, unit_mm=10.0)), pool()
        )
    with pytest.raises(ValueError, match="pool must have 36 joints, got 6"):
        train_crossing_nets(config(tmp_path / "b", networks=CrossingNetsConfig()), pool())
    with pytest.raises(ValueError, match="labelled must be true for at least one frame"):
        pool(0)
    with pytest.raises(ValueError, match="steps must not be negative"):
        config(tmp_path, steps=(-1, 0, 0))


def test_gan_stage_sees_unlabelled_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labelled frames lie above 0, the others at -1."""
    seen = []
    losses = crossing_nets.gan_losses

    def note(nets: object, depth: torch.Tensor, latent: torch.Tensor) -> object:
        seen.append(float(depth.min()))
        return losses(nets, depth, latent)  # type: ignore[arg-type]

    monkeypatch.setattr(crossing_nets, "gan_losses", note)
    frames = pool()
    depth = torch.where(frames.labelled[:, None, None, None], frames.depth.abs(), -1.0)
    marked = HandPool(depth, frames.joints, frames.labelled)
    train_crossing_nets(config(tmp_path, steps=(0, 2, 0)), marked)
    assert seen == [-1.0, -1.0]


def test_statistics_at_the_end_are_those_of_the_real_maps(tmp_path: Path) -> None:
    """In one batch of all frames, so the statistics are that batch's own."""
    frames = pool(16)
    nets = trained(config(tmp_path, steps=(0, 0, 2)), frames)
    first = nets.discriminator.shared[0](frames.depth)
    norm = nets.discriminator.shared[1]
    torch.testing.assert_close(norm.running_mean, first.mean((0, 2, 3)))
    torch.testing.assert_close(norm.running_var, first.var((0, 2, 3)))
    assert norm.momentum == 0.1
    again, facts = load_crossing_nets(tmp_path / "weights.safetensors")
    assert facts["frames"] == 16
    assert facts["steps"] == [0, 0, 2]
    known = LatentDistribution.from_facts(facts)
    torch.testing.assert_close(known.mean, nets.latent_of(frames.joints).mean(0), atol=1e-4, rtol=0)
    torch.testing.assert_close(
        again.estimate(frames.depth), nets.estimate(frames.depth), atol=0.05, rtol=0.01
    )


def test_cosine_schedule_ends_near_nothing(tmp_path: Path) -> None:
    rates = []
    learn = crossing_nets._Run._learn

    def note(run: crossing_nets._Run) -> dict[str, torch.Tensor]:
        terms = learn(run)
        rates.append(run.optimizer.param_groups[0]["lr"])
        return terms

    networks = replace(NETWORKS, joint=StageConfig(2, 4, 1e-3, schedule="cosine"), warm_up_epochs=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crossing_nets._Run, "_learn", note)
        train_crossing_nets(config(tmp_path, networks=networks, steps=(0, 0, 4)), pool())
    assert rates == pytest.approx([1e-3, 0.854e-3, 0.5e-3, 0.146e-3], rel=1e-2)


def test_rotation_and_bfloat16_train(tmp_path: Path) -> None:
    networks = replace(NETWORKS, direct_head=True, weights=JointWeights(cycle=1.0))
    settings = {"networks": networks, "rotation_deg": 45.0, "precision": "bf16-mixed"}
    nets = trained(config(tmp_path, steps=(2, 2, 2), **settings), pool(8))
    assert all(bool(p.isfinite().all()) for p in nets.parameters())
    with pytest.raises(ValueError, match=r"rotation_deg must lie in 0\.\.180, got 200"):
        config(tmp_path, rotation_deg=200)
