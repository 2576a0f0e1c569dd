"""train_hand: what it draws, learns, keeps and continues from; on tiny networks and fake frames."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from dgpose.cli.train import app
from dgpose.data.cameras import CAMERAS, Camera, project
from dgpose.nn.hand_regressor import (
    HandRegressor,
    HandRegressorConfig,
    load_weights,
    save_weights,
)
from dgpose.skeletons import NYU_SCORED14
from dgpose.train.checkpoint import load_checkpoint, save_checkpoint
from dgpose.train.hand import (
    BEST_NAME,
    CHECKPOINT_NAME,
    HandLoss,
    HandTrainConfig,
    _attended_anchors,
    crop_to_mm,
    train_hand,
    update_ema,
)
from dgpose.train.run import learning_rate_factor
from dgpose_ext.tensor_file import read_tensor_file

NETWORK = HandRegressorConfig(channels=(16, 16, 16, 16), blocks=(0, 0, 0), inner=(16, 16, 16))
CAMERA = CAMERAS["nyu"]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads would cost such small networks more than they give."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class FakeBatch(NamedTuple):
    crop: Tensor
    joints: Tensor
    joints_mm: Tensor
    centers: Tensor
    cube_mm: float
    camera: Camera
    left: Tensor


class FakeFrames:
    """A square at a place that depends on the index; every joint lies in its middle."""

    def __init__(self, offset: int = 0, fail_at: int | None = None) -> None:
        self.offset = offset
        self.fail_at = fail_at
        self.drawn: list[int] = []

    def batch(self, indices: Sequence[int]) -> FakeBatch:
        if self.fail_at is not None and self.fail_at in indices:
            raise OSError("the power went out")
        self.drawn.extend(indices)
        crops, places = [], []
        for index in indices:
            random = torch.Generator().manual_seed(self.offset + index)
            x, y = torch.randint(16, 112, (2,), generator=random).tolist()
            crop = torch.ones(1, 128, 128)
            crop[:, y - 16 : y + 16, x - 16 : x + 16] = 0.25
            crops.append(crop)
            places.append([x / 64 - 1, y / 64 - 1, 0.25])
        joints = torch.tensor(places)[:, None].repeat(1, 36, 1)
        centers = torch.tensor([320.0, 240.0, 700.0]).repeat(len(indices), 1)
        batch = FakeBatch(
            torch.stack(crops), joints, joints, centers, 300.0, CAMERA, torch.zeros(len(indices))
        )
        return batch._replace(joints_mm=crop_to_mm(joints, batch))


@pytest.fixture
def config(tmp_path: Path) -> HandTrainConfig:
    return HandTrainConfig(
        out=tmp_path / "run",
        steps=6,
        batch=4,
        warmup_steps=2,
        precision="32-true",
        accelerator="cpu",
        validate_every=3,
        validation_frames=5,
        log_every=2,
        network=NETWORK,
    )


def run(config: HandTrainConfig, train: FakeFrames | None = None):  # type: ignore[no-untyped-def]
    return train_hand(config, train or FakeFrames(), FakeFrames(10_000), data="fake squares")


def test_crop_to_mm_is_the_inverse_of_projection() -> None:
    torch.manual_seed(0)
    joints_mm = torch.rand(3, 36, 3) * 200 + torch.tensor([-100.0, -100.0, 600.0])
    camera, cube = CAMERAS["nyu"], torch.tensor([200.0, 250.0, 300.0])
    centers = torch.tensor([[300.0, 250.0, 650.0], [10.0, 20.0, 700.0], [600.0, 400.0, 720.0]])
    half = cube[:, None] / 2
    uvd = project(joints_mm, camera)
    u, v, mm = centers[:, None].unbind(2)
    a = (uvd[..., 0] - u) / (half * camera.fx / mm)
    b = (uvd[..., 1] - v) / (half * camera.fy / mm)
    c = (uvd[..., 2] - mm) / half
    empty = torch.zeros(3)
    for given in (camera, torch.tensor(camera).repeat(3, 1)):
        batch = FakeBatch(empty, empty, joints_mm, centers, cube, given, empty)  # type: ignore[arg-type]
        found = crop_to_mm(torch.stack((a, b, c), 2), batch)  # type: ignore[arg-type]
        torch.testing.assert_close(found, joints_mm, atol=1e-2, rtol=0)


def test_learning_rate() -> None:
    assert learning_rate_factor(0, 0.0, 100) == pytest.approx(0.01)
    assert learning_rate_factor(99, 0.0, 100) == 1
    assert learning_rate_factor(500, 0.5, 100) == pytest.approx(0.505)
    assert learning_rate_factor(500, 1.0, 100) == pytest.approx(0.01)
    assert learning_rate_factor(500, 1.5, 0) == pytest.approx(0.01)


def test_ema_moves_toward_the_model() -> None:
    torch.manual_seed(0)
    model, average = HandRegressor(NETWORK), HandRegressor(NETWORK)
    model.stem[1][1].running_mean.fill_(4.0)
    model.stem[1][1].num_batches_tracked.fill_(9)
    before = average.head.weight.clone()
    update_ema(average, model, 0.75)
    torch.testing.assert_close(average.head.weight, 0.75 * before + 0.25 * model.head.weight)
    assert average.stem[1][1].running_mean.eq(1.0).all()
    assert average.stem[1][1].num_batches_tracked == 9


def test_loss_is_in_tens_of_millimetres_and_weighs_joints() -> None:
    model = HandRegressor(NETWORK).eval()
    torch.nn.init.zeros_(model.head.weight)  # all joints in the middle of the crop
    torch.nn.init.zeros_(model.head.bias)
    target = torch.zeros(2, 36, 3)
    target[:, 0, 2] = 1.0  # one joint half a cube (100 mm) away in depth
    loss, distance = HandLoss(model, [0], 5.0, 0.0)(
        torch.zeros(2, 1, 128, 128), target, torch.full((2,), 100.0)
    )
    away, near = (10**2 + 0.01) ** 0.5, 0.1
    torch.testing.assert_close(loss, torch.tensor((5 * away + 35 * near) / 40))
    torch.testing.assert_close(distance, torch.tensor(10 * (away + 35 * near) / 36))


def test_attention_loss_pulls_attention_to_the_joint() -> None:
    torch.manual_seed(0)
    model = HandRegressor(NETWORK).eval()
    with torch.no_grad():
        model.head.weight.zero_()
    model.head.bias.requires_grad_(True)
    crop, half = torch.rand(1, 1, 128, 128), torch.full((1,), 100.0)
    target = torch.full((1, 36, 3), 0.5)

    def logit_gradient(attention: float) -> Tensor:
        model.zero_grad()
        HandLoss(model, [0], 1.0, attention)(crop, target, half)[0].backward()
        assert model.head.weight.grad is not None
        return model.head.weight.grad[:36].clone()

    def attended() -> Tensor:
        with torch.no_grad():
            return _attended_anchors(model.maps(crop), 36)

    of_the_term = logit_gradient(0.5) - logit_gradient(0.0)
    before = (attended() - 0.5).norm()
    with torch.no_grad():
        model.head.weight[:36] -= of_the_term / of_the_term.abs().max()
    assert (attended() - 0.5).norm() < before


def test_it_learns_and_keeps_the_best(config: HandTrainConfig) -> None:
    config = replace(config, steps=60, batch=8, validate_every=20, learning_rate=5e-3)
    config = replace(config, validation_frames=16, ema_decay=0.8)
    result = run(config)
    assert result.finished
    assert result.best_error_mm < 30  # 58 mm: always in the middle
    assert (result.steps, result.frames) == (60, 480)
    model, facts = load_weights(config.out / BEST_NAME)
    assert facts["rendered_error_mm"] == pytest.approx(result.best_error_mm)
    assert facts["data"] == "fake squares"
    batch = FakeFrames(10_000).batch(range(16))
    with torch.no_grad():
        distances = (crop_to_mm(model(batch.crop), batch) - batch.joints_mm).norm(dim=2)  # type: ignore[arg-type]
    assert float(distances[:, list(NYU_SCORED14)].mean()) == pytest.approx(
        result.best_error_mm, rel=1e-4
    )
    summary = json.loads((config.out / "summary.json").read_text())
    assert summary["best_error_mm"] == result.best_error_mm
    events = list((config.out / "tensorboard").glob("events.out.tfevents.*"))
    assert sum(path.stat().st_size for path in events) > 1000


def test_resumed_run_equals_the_uninterrupted_one(config: HandTrainConfig) -> None:
    straight = replace(config, out=config.out / "straight")
    run(straight)
    broken = replace(config, out=config.out / "broken")
    with pytest.raises(OSError, match="power"):
        run(broken, FakeFrames(fail_at=4 * 4 + 1))  # in the fifth step; checkpoint at the third
    state = read_tensor_file(broken.out / CHECKPOINT_NAME, kind="training_checkpoint", version=1)
    assert state[1]["state"]["step"] == 3
    train = FakeFrames()
    run(replace(broken, resume=True), train)
    assert sorted(train.drawn)[: 3 * 4] == list(range(3 * 4, 6 * 4))
    arguments = {"kind": "training_checkpoint", "version": 1}
    one, _ = read_tensor_file(straight.out / CHECKPOINT_NAME, **arguments)
    two, _ = read_tensor_file(broken.out / CHECKPOINT_NAME, **arguments)
    assert one.keys() == two.keys()
    assert [name for name in one if not torch.equal(one[name], two[name])] == []


def test_same_seed_same_bits_other_seed_not(config: HandTrainConfig) -> None:
    found = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(replace(config, out=config.out / name, seed=seed, steps=2))
        found.append(load_weights(config.out / name / BEST_NAME)[0].head.weight)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_a_folder_with_a_run_is_not_overwritten(config: HandTrainConfig) -> None:
    run(replace(config, steps=1))
    with pytest.raises(ValueError, match="holds a run: resume it, or give another folder"):
        run(config)
    with pytest.raises(ValueError, match="batch must be that of the resumed run, 4, got 5"):
        run(replace(config, batch=5, resume=True))


def test_longer_schedule_continues_a_finished_run(config: HandTrainConfig) -> None:
    run(replace(config, steps=2))
    result = run(replace(config, steps=4, resume=True))
    assert (result.steps, result.finished) == (4, True)


def test_time_budget_ends_the_run(config: HandTrainConfig) -> None:
    result = run(replace(config, steps=None, minutes=1e-4))
    assert result.finished
    assert result.steps < 100


def test_fine_tuning_starts_from_the_given_weights(config: HandTrainConfig) -> None:
    torch.manual_seed(3)
    start = HandRegressor(NETWORK)
    save_weights(start, config.out.parent / "start", dtype=torch.float32)
    run(replace(config, steps=1, learning_rate=1e-9, init=config.out.parent / "start"))
    weights = load_weights(config.out / BEST_NAME)[0].head.weight
    torch.testing.assert_close(weights, start.head.weight, atol=1e-6, rtol=0)
    wider = replace(config, init=config.out.parent / "start", network=HandRegressorConfig())
    with pytest.raises(ValueError, match="init must be of the architecture"):
        run(replace(wider, out=config.out / "wider"))


def test_bf16_runs(config: HandTrainConfig) -> None:
    assert run(replace(config, steps=2, precision="bf16-mixed")).error_mm < 200


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"steps": None}, "steps or minutes must be given"),
        ({"steps": 0}, "steps must be positive, got 0"),
        ({"batch": -1}, "batch must be positive, got -1"),
        ({"ema_decay": 1.0}, r"ema_decay must be in \[0, 1\), got 1.0"),
        ({"learning_rate": float("nan")}, "learning_rate must be positive, got nan"),
    ],
)
def test_wrong_settings(config: HandTrainConfig, fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(config, **fields)  # type: ignore[arg-type]


def test_checkpoint_must_fit(tmp_path: Path) -> None:
    model = HandRegressor(NETWORK)
    optimizer = torch.optim.AdamW(model.parameters())
    path = tmp_path / "checkpoint"
    save_checkpoint(path, modules={"model": model}, optimizer=optimizer, state={"step": 1})
    with pytest.raises(ValueError, match=r"must hold modules \['ema', 'model'\], got \['model'\]"):
        load_checkpoint(path, modules={"model": model, "ema": model}, optimizer=optimizer)
    other = HandRegressor(replace(NETWORK, joints=3))
    with pytest.raises(ValueError, match="does not fit this training run"):
        load_checkpoint(path, modules={"model": other}, optimizer=optimizer)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        load_checkpoint(path, modules={"model": model}, optimizer=optimizer)


def test_command_line_trains_and_packs(tmp_path: Path) -> None:
    out, packed = tmp_path / "run", tmp_path / "hand.safetensors"
    settings = "--batch 2 --poses kinematic --validation-frames 2 --accelerator cpu --threads 1"
    command = ["hand", "--out", str(out), *settings.split()]
    first = CliRunner().invoke(app, [*command, "--steps", "1"])
    assert first.exit_code == 0, first.output
    assert "2 frames in" in first.output
    again = CliRunner().invoke(app, [*command, "--steps", "2"])
    assert again.exit_code == 2
    assert "holds a run: resume it" in again.output
    resumed = CliRunner().invoke(app, [*command, "--steps", "2", "--resume"])
    assert resumed.exit_code == 0, resumed.output
    assert CliRunner().invoke(app, ["pack", str(out / BEST_NAME), str(packed)]).exit_code == 0
    assert packed.stat().st_size < 2_000_000
    _, facts = load_weights(packed)
    assert facts["data"] == "rendered hands (SyntheticHands), right, kinematic poses"
    missing = CliRunner().invoke(app, ["pack", str(tmp_path / "none"), str(packed)])
    assert missing.exit_code == 2
    assert "no such file" in missing.output


def test_two_processes_share_the_frames_of_a_step(tmp_path: Path) -> None:
    launch = "-m torch.distributed.run --standalone --nproc-per-node 2 -m dgpose train hand"
    settings = "--steps 2 --batch 2 --poses kinematic --validation-frames 3 --accelerator cpu"
    distributed = "--devices 2 --strategy ddp --threads 1 --precision 32-true --out"
    command = [*launch.split(), *settings.split(), *distributed.split(), str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["ranks"], summary["steps"], summary["frames"]) == (2, 2, 8)
