"""Training of DPIG: what each stage teaches, and that a resumed run is the run that was not
interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from dgpose.data.person_pool import PersonPool
from dgpose.models.dpig import DPIG, DPIGConfig, load_dpig
from dgpose.skeletons import OPENPOSE18, flip_keypoints
from dgpose.train.dpig import (
    DPIGTrainConfig,
    DPIGTrainResult,
    continued_config,
    train_dpig_pose,
    train_dpig_stage1,
    train_dpig_stage2,
)
from dgpose.train.dpig_learner import DPIGLearner, PoseLearner, Stage1Learner
from dgpose.train.dpig_mappers import MapperLearner, codes_of
from dgpose.train.dpig_validation import mapper_errors, stage1_errors

SIZE = (128, 64)
STAGES = ("stage1", "pose", "stage2")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums of several threads differ in the last bit, which Adam's first steps make large."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def tiny(make: Any = DPIGConfig.small, **changes: Any) -> DPIGConfig:
    sizes: dict[str, Any] = {
        "fold": 2, "channels": (4, 4, 6, 6), "crop": 8, "part_code": 3, "background_code": 5,
        "bottleneck": 6, "bottleneck_channels": 4, "discriminator_channels": (4, 4), "pose_code": 6,
        "pose_width": 16, "pose_blocks": 1, "mapper_width": 16, "background_mapper_width": 16,
        "mapper_blocks": 1, "critic_width": 16, "critic_blocks": 1, "critic_steps": 2,
    }  # fmt: skip
    config: DPIGConfig = make(**sizes | changes)
    return replace(config, **{stage: replace(getattr(config, stage), batch=4) for stage in STAGES})


SMALL, PAPER = tiny(), tiny(DPIGConfig.paper)


def pool(count: int = 12) -> PersonPool:
    """Noise, with joints that lie anywhere and are not all visible."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, *SIZE), generator=generator).to(torch.uint8)
    keypoints = torch.rand(count, 18, 2, generator=generator) * torch.tensor((64.0, 128.0))
    known = torch.rand(count, 18, generator=generator) < 0.9
    visible = known & (torch.rand(count, 18, generator=generator) < 0.8)
    return PersonPool(images, keypoints.where(known[..., None], 0), known, visible, source="noise")


def untrained(config: DPIGConfig) -> DPIG:
    """A model that says it is trained as far as stage 2 needs it."""
    torch.manual_seed(2)
    model = DPIG(config).eval()
    model.trained = frozenset({"stage1", "pose_autoencoder"})
    return model


def settings(out: Path, model: DPIGConfig = SMALL, **changes: Any) -> DPIGTrainConfig:
    given: dict[str, Any] = {
        "model": model, "steps": 4, "accelerator": "cpu", "save_every": 2, "log_every": 1,
        "validate_every": 2,
    }  # fmt: skip
    return DPIGTrainConfig(out, **(given | changes))


def train(stage: str, config: DPIGTrainConfig) -> DPIGTrainResult[Any]:
    assert config.model is not None
    if stage == "stage1":
        return train_dpig_stage1(config, pool(), pool(5))
    init = untrained(config.model)
    if stage == "pose":
        return train_dpig_pose(config, init, pool(), pool(5))
    return train_dpig_stage2(config, init, pool(), pool(5))


def tensors(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "checkpoint.safetensors")


def same_bits(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def learner(make: Any, config: DPIGConfig = SMALL, *more: Any) -> Any:
    fabric = Fabric(accelerator="cpu")
    recipes = {Stage1Learner: config.stage1, PoseLearner: config.pose}
    if make is MapperLearner:
        return MapperLearner(fabric, untrained(config), pool(), 0, *more)
    return make(fabric, untrained(config), recipes[make], pool(), 0)


def changed_by(run: DPIGLearner) -> set[str]:
    """Networks, mappers and critics by their factor, that a step changes."""
    both = {"": run.model, "critic ": run.critics}
    before = {k: {n: v.clone() for n, v in m.state_dict().items()} for k, m in both.items()}
    run.learn(0.0)
    return {
        kind + name.removeprefix("mappers.").split(".")[0]
        for kind, module in both.items()
        for name, value in module.state_dict().items()
        if not torch.equal(value, before[kind][name])
    }


# ---- one step ----


def test_each_stage_teaches_its_own_networks() -> None:
    discriminator = "critic discriminator"
    assert changed_by(learner(Stage1Learner)) == {"encoder", "decoder", discriminator}
    alone = replace(SMALL, adversarial_weight=0.0)
    assert changed_by(learner(Stage1Learner, alone)) == {"encoder", "decoder"}
    assert changed_by(learner(PoseLearner)) == {"pose_encoder", "pose_decoder"}
    some = learner(MapperLearner, SMALL, ("pose", "foreground"))
    assert changed_by(some) == {"pose", "foreground", "critic pose", "critic foreground"}


def test_joints_move_with_the_image() -> None:
    """A white pixel at a visible joint is there after mirroring and moving."""
    people = pool()
    keypoints = (10 + people.keypoints_px * 0.7).round()
    joint, side = (OPENPOSE18.joints.index(f"{side}_wrist") for side in ("right", "left"))
    images = torch.zeros_like(people.images)
    for row, (x, y) in enumerate(keypoints[:, joint].int().tolist()):
        images[row, :, y, x] = 255
    visible = torch.ones_like(people.visible)
    visible[:, side] = False
    run = learner(Stage1Learner)
    run.pool = PersonPool(images, keypoints, torch.ones_like(visible), visible)
    seen = set()
    for run.step in range(6):
        drawn, joints, shown = run._batch()
        for image, points, there in zip(drawn, joints, shown, strict=True):
            (spot,) = image[0].nonzero().flip(1).float()
            here = side if bool(there[side]) else joint
            assert torch.equal(points[here], spot)
            seen.add(here)
    assert seen == {joint, side}


def test_learning_rates_of_the_paper_are_halved() -> None:
    config = replace(PAPER, pose=replace(PAPER.pose, halving_steps=3))
    run = learner(PoseLearner, config)
    rates = []
    for step in range(7):
        run.learn(step / 7)
        rates.append(run.optimizer.param_groups[0]["lr"] / config.pose.learning_rate)
    assert rates == [1, 1, 1, 0.5, 0.5, 0.5, 0.25]


def test_codes_of_mirrored_people() -> None:
    """They are the codes of the mirrored images with their joints on the other side."""
    config = replace(SMALL, stage2=replace(SMALL.stage2, flip=True))
    run = learner(MapperLearner, config, config.factors)
    people = pool()
    turned = flip_keypoints(people.keypoints_px, OPENPOSE18, SIZE[1])
    images = people.images.flip(3).float() / 255
    expected = run.model.encode(images, turned, people.visible[:, list(OPENPOSE18.flip)])
    for factor in config.factors:
        assert run.codes[factor].shape == (24, config.code_size(factor))
        torch.testing.assert_close(run.codes[factor][12:], getattr(expected, factor))
    plain = codes_of(run.model, people, ("background",))
    torch.testing.assert_close(run.codes["background"][:12], plain["background"])


def test_critics_are_clipped_or_penalised() -> None:
    def largest(config: DPIGConfig) -> float:
        run = learner(MapperLearner, config, ("foreground",))
        run.learn(0.0)
        return max(float(weight.abs().max()) for weight in run.critics.parameters())

    assert largest(SMALL) <= SMALL.weight_clip + 1e-9
    assert largest(replace(SMALL, gradient_penalty=10.0)) > 2 * SMALL.weight_clip


# ---- runs ----


@pytest.mark.parametrize(
    ("stage", "model"),
    [("stage1", SMALL), ("stage1", PAPER), ("pose", SMALL), ("stage2", SMALL),
     ("stage2", replace(PAPER, gradient_penalty=10.0))],
    ids=["stage1-small", "stage1-paper", "pose", "stage2", "stage2-penalty"],
)  # fmt: skip
def test_a_resumed_run_is_the_same(stage: str, model: DPIGConfig, tmp_path: Path) -> None:
    whole = train(stage, settings(tmp_path / "whole", model))
    assert whole.finished
    part = settings(tmp_path / "part", model)
    kind = {"stage1": Stage1Learner, "pose": PoseLearner, "stage2": MapperLearner}[stage]
    learn = kind.learn

    def interrupted(self: Any, progress: float) -> dict[str, Tensor]:
        if self.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return learn(self, progress)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "learn", interrupted)
        assert not train(stage, part).finished
    again = train(stage, replace(part, resume=True))
    assert again.finished
    same_bits(tensors(tmp_path / "whole"), tensors(tmp_path / "part"))
    assert [v.step for v in again.validations] == [2, 4]
    for one, other in zip(whole.validations, again.validations, strict=True):
        assert one.errors == pytest.approx(other.errors, rel=0, nan_ok=True)


def test_the_stages_make_one_model(tmp_path: Path) -> None:
    """Each adds its part, and its facts, to what was there; TensorBoard shows it."""
    first = train_dpig_stage1(settings(tmp_path / "a"), pool(), pool(5)).model
    assert first.trained == {"stage1"}
    with pytest.raises(ValueError, match=r"pose autoencoder must have been trained .*dpig-pose"):
        train_dpig_stage2(settings(tmp_path / "c"), first, pool(), pool(5))
    config = settings(tmp_path / "b")
    second = train_dpig_pose(config, first, pool(), pool(5)).model
    assert second.trained == {"stage1", "pose_autoencoder"}
    third = train_dpig_stage2(
        settings(tmp_path / "c", factors=("background", "pose")), second, pool(), pool(5)
    )
    model = load_dpig(tmp_path / "c" / "weights.safetensors")
    assert model.trained == second.trained | {"background_mapper", "pose_mapper"}
    facts = model.training_facts
    assert facts["stage1"]["l1"] == pytest.approx(first.training_facts["stage1"]["l1"])
    assert facts["pose_mapper"]["data"] == facts["stage1"]["data"] == "noise"
    assert torch.equal(
        model.state_dict()["decoder.last.weight"], first.state_dict()["decoder.last.weight"]
    )
    errors = third.validations[-1].errors
    assert errors.foreground != errors.foreground  # NaN: not trained
    assert errors.background > 0
    with pytest.raises(ValueError, match="foreground mapper must have been trained"):
        model.sample("foreground", 2)
    for folder, name, rows in (("a", "people", 5), ("b", "poses", 2), ("c", "samples", 5)):
        events = EventAccumulator(str(tmp_path / folder / "tensorboard"))
        events.Reload()
        picture = events.Images(f"validation/{name}")[0]
        assert (picture.width, picture.height) == (5 * SIZE[1], rows * SIZE[0])
    # What was trained for another stage 1 is not kept.
    tuned = train_dpig_stage1(settings(tmp_path / "d", steps=1), pool(), pool(5), init=model).model
    assert tuned.trained == {"stage1", "pose_autoencoder", "pose_mapper"}
    assert "background_mapper" not in tuned.training_facts
    # Another model to start from is another run.
    with pytest.raises(ValueError, match="init must be that of the resumed run"):
        train_dpig_pose(replace(config, resume=True), tuned, pool(), pool(5))


def test_what_a_model_may_go_on_with(tmp_path: Path) -> None:
    init = untrained(SMALL)
    wider = replace(SMALL, mapper_width=24, crop=16, critic_width=8)
    assert continued_config(init, wider) == replace(SMALL, mapper_width=24, critic_width=8)
    init.trained |= {"pose_mapper"}
    assert continued_config(init, wider) == replace(SMALL, critic_width=8)
    with pytest.raises(ValueError, match="crop must be that of the model to start from, 8, got 16"):
        train_dpig_stage2(settings(tmp_path, wider), init, pool(), pool(5))


def test_what_it_refuses(tmp_path: Path) -> None:
    run = settings(tmp_path / "run")
    square = PersonPool(
        torch.zeros(2, 3, 64, 64, dtype=torch.uint8), torch.zeros(2, 18, 2),
        torch.zeros(2, 18, dtype=torch.bool), torch.zeros(2, 18, dtype=torch.bool),
    )  # fmt: skip
    with pytest.raises(ValueError, match="pool must have images of 128 x 64 pixels, got 64 x 64"):
        train_dpig_stage1(run, square, pool())
    nobody = pool().subset(torch.empty(0, dtype=torch.int64))
    with pytest.raises(ValueError, match="validation must have at least one image, got none"):
        train_dpig_stage1(run, pool(), nobody)
    hidden = replace(pool(), visible=torch.zeros(12, 18, dtype=torch.bool))
    with pytest.raises(ValueError, match="validation must show a joint, got none that is visible"):
        train_dpig_pose(run, None, pool(), hidden)
    with pytest.raises(ValueError, match="validation must have at least 2 images, got 1"):
        train_dpig_stage2(run, untrained(SMALL), pool(), pool(1))
    with pytest.raises(ValueError, match="factors must be some of foreground, background, pose"):
        train_dpig_stage2(replace(run, factors=()), untrained(SMALL), pool(), pool(5))
    assert not run.out.exists()


def test_stage1_learns_four_images(tmp_path: Path) -> None:
    """Smooth images are held after a short training, and the best weights are kept."""
    generator = torch.Generator().manual_seed(3)
    coarse = torch.rand(4, 3, 4, 2, generator=generator)
    images = torch.nn.functional.interpolate(coarse, size=SIZE, mode="bilinear")
    people = replace(pool(4), images=(images * 255).to(torch.uint8))
    recipe = replace(SMALL.stage1, batch=4, learning_rate=1e-2, warmup_steps=5, flip=False, shift=0)
    model = tiny(channels=(8, 8, 8, 8), background_code=16, adversarial_weight=0.0)
    config = settings(tmp_path, replace(model, stage1=recipe), steps=80, validate_every=40)
    result = train_dpig_stage1(config, people, people)
    mean = (people.images.float() / 255).mean((0, 2, 3), keepdim=True)
    assert result.validations[-1].errors.l1 < 0.4 * float((images - mean).abs().mean())
    least = min(v.errors.l1 for v in result.validations)
    assert stage1_errors(result.model, people).l1 == pytest.approx(least, rel=1e-4)


def test_the_autoencoder_learns_poses(tmp_path: Path) -> None:
    recipe = replace(SMALL.pose, batch=12, learning_rate=1e-2, flip=False)
    model = replace(tiny(pose_width=64, pose_code=16), pose=recipe)
    config = settings(tmp_path, model, steps=200, validate_every=100)
    result = train_dpig_pose(config, None, pool(), pool())
    errors = result.validations[-1].errors
    people = pool()
    joints = people.keypoints_px[people.visible]
    assert errors.joint_px < 0.4 * float((joints - joints.mean(0)).norm(dim=1).mean())
    assert errors.visibility > 0.95


@pytest.mark.parametrize("penalty", [0.0, 10.0])
def test_a_mapper_learns_where_codes_lie(penalty: float, tmp_path: Path) -> None:
    recipe = replace(SMALL.stage2, batch=32, learning_rate=1e-3, critic_learning_rate=1e-3, ema=0.9)
    model = replace(tiny(critic_steps=5, mapper_width=32), stage2=recipe, gradient_penalty=penalty)
    init = untrained(model)
    config = settings(tmp_path, model, steps=100, validate_every=100, factors=("pose",))
    result = train_dpig_stage2(config, init, pool(), pool())
    true = codes_of(init, pool(), ("pose",))
    init.trained |= {"pose_mapper"}
    assert result.validations[-1].errors.pose < 0.6 * mapper_errors(init, true).pose


def test_two_processes_learn_the_same(tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone",
        str(Path(__file__).with_name("dpig_rank.py")), str(tmp_path),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    for name in STAGES:
        first, second = (load_file(tmp_path / f"{name}_{rank}.safetensors") for rank in (0, 1))
        same_bits(first, second)
