"""Training of DGPose: labels, batches, and that a resumed run is the run that was not
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
from dgpose.models.dgpose import DGPoseConfig, DGPoseRecipe, SemiDGPose
from dgpose.skeletons import BODY14, OPENPOSE18, flip_keypoints
from dgpose.train.dgpose import DGPoseTrainConfig, DGPoseTrainResult, train_dgpose
from dgpose.train.dgpose_learner import DGPoseLearner, labelled_rows
from dgpose.train.person_validation import person_errors

SIZE = 32


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums of several threads differ in the last bit, which Adam's first steps make large."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def tiny(make: Any, system: str, **changes: Any) -> DGPoseConfig:
    sizes: dict[str, Any] = {
        "channels": (4, 8, 8, 8), "latent_size": 6, "part_size": 2, "discriminator_channels": (4, 6)
    }  # fmt: skip
    config: DGPoseConfig = make(SIZE, **{"system": system, **sizes} | changes)
    return replace(config, recipe=replace(config.recipe, batch=4, mapper_steps=3))


CONDITIONAL = tiny(DGPoseConfig.strong, "conditional")
SEMI = tiny(DGPoseConfig.strong, "semi")
PAPER = tiny(DGPoseConfig.paper, "semi")


def pool(count: int = 24) -> PersonPool:
    """Noise, with joints that lie anywhere and are not all known."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, SIZE, SIZE), generator=generator).to(torch.uint8)
    keypoints = torch.rand(count, 18, 2, generator=generator) * SIZE
    known = torch.rand(count, 18, generator=generator) < 0.9
    keypoints = keypoints.where(known[..., None], 0)
    return PersonPool(images, keypoints, known, known, source="noise")


def settings(out: Path, **changes: Any) -> DGPoseTrainConfig:
    given: dict[str, Any] = {
        "model": SEMI, "labelled": 0.5, "steps": 6, "accelerator": "cpu", "save_every": 2,
        "log_every": 1, "validate_every": 3,
    }  # fmt: skip
    return DGPoseTrainConfig(out, **(given | changes))


def trained(config: DGPoseTrainConfig) -> DGPoseTrainResult:
    result = train_dgpose(config, pool(), pool(9))
    assert result.finished
    return result


def tensors(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "checkpoint.safetensors")


def same_bits(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def learner(config: DGPoseConfig, labelled: float = 0.5, seed: int = 0) -> DGPoseLearner:
    torch.manual_seed(1)
    return DGPoseLearner(Fabric(accelerator="cpu"), config, pool(), labelled, seed)


# ---- labels and batches ----


def test_labels_are_a_function_of_the_seed() -> None:
    people = pool(40)
    rows = labelled_rows(people, 0.25, 3)
    assert len(rows) == 10
    assert torch.equal(rows, labelled_rows(people, 0.25, 3))
    assert not torch.equal(rows, labelled_rows(people, 0.25, 4))
    assert set(rows.tolist()) < set(labelled_rows(people, 0.5, 3).tolist())
    assert labelled_rows(people, 1.0, 3).tolist() == list(range(40))
    with pytest.raises(ValueError, match=r"labelled share must lie in \(0, 1\], got 2"):
        labelled_rows(people, 2, 0)
    with pytest.raises(ValueError, match="must leave at least 2 images, got 0"):
        labelled_rows(people, 0.01, 0)


@pytest.mark.parametrize(
    ("config", "labelled", "kinds"),
    [
        (SEMI, 0.5, {True: 2, False: 2}),
        (SEMI, 1.0, {True: 4}),
        (replace(SEMI, unlabelled_weight=0.0), 0.5, {True: 4}),
        (CONDITIONAL, 0.5, {True: 4}),
        (tiny(DGPoseConfig.strong, "regression"), 0.5, {True: 4}),
    ],
)
def test_which_images_are_drawn(
    config: DGPoseConfig, labelled: float, kinds: dict[bool, int]
) -> None:
    run = learner(config, labelled)
    for _ in range(5):
        rows = run._rows()
        drawn = run.labels[rows].tolist()
        assert {kind: drawn.count(kind) for kind in set(drawn)} == kinds
        run.step += 1
    plain = learner(tiny(DGPoseConfig.strong, "vae"), 0.1)
    drawn = []
    for plain.step in range(20):
        drawn += plain._rows().tolist()
    assert len(set(drawn)) > 20  # of 24: no label is needed


def test_joints_move_with_the_image() -> None:
    """A white pixel at a joint is there after mirroring and moving."""
    people = pool()
    keypoints = (8 + people.keypoints_px * 0.5).round().where(people.known[..., None], 0)
    images = torch.zeros_like(people.images)
    joint, side = (BODY14.joints.index(f"{side}_wrist") for side in ("right", "left"))
    for row, points in enumerate(keypoints[:, joint].int().tolist()):
        images[row, :, points[1], points[0]] = 255
    known = people.known.clone()
    known[:, joint] = True
    keypoints = keypoints.where(known[..., None], 0)
    images[:, :, 0, 0] = 0
    seen = set()
    run = learner(CONDITIONAL, 1.0)
    run.pool = replace(people, images=images, keypoints_px=keypoints, known=known, visible=known)
    run.poses, run.known = run.pool.body
    for run.step in range(8):
        batch = run._batch()
        for row in range(4):
            spots = batch.images[row, 0].nonzero()
            if len(spots) != 1:
                continue  # a pixel in the corner was covered
            at = spots[0].flip(0).float()
            here = [bool((batch.pose_px[row, j] == at).all()) for j in (joint, side)]
            assert any(here)
            seen.add(here[0])
    assert seen == {True, False}
    assert OPENPOSE18.joints[joint] == "right_wrist"


# ---- runs ----


@pytest.mark.parametrize(
    "model",
    [CONDITIONAL, SEMI, PAPER, tiny(DGPoseConfig.paper, "vae"),
     tiny(DGPoseConfig.strong, "regression")],
    ids=lambda config: f"{config.system}-{config.latent}",
)  # fmt: skip
def test_a_resumed_run_is_the_same(model: DGPoseConfig, tmp_path: Path) -> None:
    whole = settings(tmp_path / "whole", model=model)
    result = trained(whole)
    assert [v.step for v in result.validations] == [3, 6]
    part = settings(tmp_path / "part", model=model)
    stopped = stop_after(part, 3)
    assert not stopped.finished
    again = trained(replace(part, resume=True))
    same_bits(tensors(whole.out), tensors(part.out))
    assert again.validations[-1].errors == pytest.approx(
        result.validations[-1].errors, rel=0, nan_ok=True
    )


def stop_after(config: DGPoseTrainConfig, step: int) -> DGPoseTrainResult:
    """The run, sent SIGTERM in this step."""
    learn = DGPoseLearner.learn

    def interrupted(self: DGPoseLearner, progress: float) -> dict[str, Tensor]:
        if self.step + 1 == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return learn(self, progress)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DGPoseLearner, "learn", interrupted)
        return train_dgpose(config, pool(), pool(9))


def test_files_of_a_run(tmp_path: Path) -> None:
    """Facts in the weights, pictures in TensorBoard; no other settings, data or folder go on."""
    config = settings(tmp_path / "run")
    result = trained(config)
    facts = result.model.training_facts
    assert facts["data"] == "noise"
    assert (facts["images"], facts["labelled_images"]) == (24, 12)
    events = EventAccumulator(str(config.out / "tensorboard"))
    events.Reload()
    assert events.Tags()["images"] == ["validation/people"]
    picture = events.Images("validation/people")[0]
    assert (picture.width, picture.height) == (8 * SIZE, 5 * SIZE)
    assert {"train/kl_y", "train/discriminator", "validation/pose_px"} <= set(
        events.Tags()["scalars"]
    )
    with pytest.raises(ValueError, match="holds a run: resume it"):
        train_dgpose(config, pool(), pool(9))
    with pytest.raises(ValueError, match=r"labelled must be that of .*, 0\.5, got 1\.0"):
        train_dgpose(replace(config, labelled=1.0, resume=True), pool(), pool(9))
    with pytest.raises(ValueError, match="pool must have images of 64 x 64 pixels, got 32 x 32"):
        train_dgpose(replace(config, model=DGPoseConfig(), out=tmp_path / "b"), pool(), pool())


def test_what_is_kept_is_the_average_with_its_codes(tmp_path: Path) -> None:
    model = trained(settings(tmp_path / "run", steps=3)).model
    stored = tensors(tmp_path / "run")
    weight = "decoder.last.weight"
    assert torch.equal(model.state_dict()[weight], stored[f"module/average/{weight}"])
    assert not torch.equal(stored[f"module/model/{weight}"], stored[f"module/average/{weight}"])
    assert isinstance(model, SemiDGPose)
    assert bool(model.codes.mean.any())  # fitted
    assert not bool((model.pose_head.deviation_factors == 1).any())  # calibrated
    pose, known = pool().subset(labelled_rows(pool(), 0.5, 0)).body
    mirrored = flip_keypoints(pose, BODY14, SIZE), known[:, list(BODY14.flip)]
    # Images are mirrored at random: the prior is that of their poses.
    model.fit_pose_prior(torch.cat((pose, mirrored[0])), torch.cat((known, mirrored[1])))
    torch.testing.assert_close(model.pose_prior.mean, stored["module/model/pose_prior.mean"])


def test_settings_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"labelled share must lie in \(0, 1\], got 2"):
        DGPoseTrainConfig(tmp_path, labelled=2, steps=1)
    with pytest.raises(ValueError, match="steps or minutes must be given"):
        DGPoseTrainConfig(tmp_path)


@pytest.mark.parametrize("system", ["conditional", "semi"])
def test_a_tiny_model_learns_eight_images(system: str, tmp_path: Path) -> None:
    """Smooth images and their joints are held after a short training."""
    generator = torch.Generator().manual_seed(3)
    coarse = torch.rand(8, 3, 4, 4, generator=generator)
    images = torch.nn.functional.interpolate(coarse, size=SIZE, mode="bilinear")
    keypoints = 6 + 20 * torch.rand(8, 18, 2, generator=generator)
    known = torch.ones(8, 18, dtype=torch.bool)
    people = PersonPool((images * 255).to(torch.uint8), keypoints, known, known)
    config = DGPoseConfig.strong(
        SIZE, system=system, channels=(8, 16, 16, 16), blocks=0, latent_size=16, part_size=2,
        adversarial_weight=0.0, pose_head="vector",
        recipe=DGPoseRecipe(batch=8, learning_rate=5e-3, warmup_steps=5, ema=0.9),
    )  # fmt: skip
    run = settings(tmp_path, model=config, steps=150, validate_every=999, labelled=1.0)
    before = person_errors(learner(config).average.eval(), people)
    result = train_dgpose(run, people, people)
    after = result.validations[-1].errors
    assert after.l1 < 0.3 * before.l1
    if system == "semi":
        assert after.pose_px < 0.3 * before.pose_px


def test_two_processes_learn_the_same(tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone",
        str(Path(__file__).with_name("dgpose_rank.py")), str(tmp_path),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    for name in ("semi", "paper"):
        first, second = (load_file(tmp_path / f"{name}_{rank}.safetensors") for rank in (0, 1))
        same_bits(first, second)
