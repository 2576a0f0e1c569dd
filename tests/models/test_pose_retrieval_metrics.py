"""Errors of retrieval against loops, and the bounds that hold for any model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from human36m_files import write_mmpose
from test_pose_retriever import images_of, model_of, one_thread, poses_of  # noqa: F401

from dgpose.data.human36m import open_human36m
from dgpose.data.human36m_pool import human36m_pool
from dgpose.data.pose_pool import PosePool
from dgpose.inference.pose_retriever import PoseRetriever
from dgpose.metrics.body import mpjpe
from dgpose.metrics.pose_retrieval import evaluate_retrieval, nearest_candidates


def pool_of(count: int) -> PosePool:
    poses = poses_of(count, seed=9)
    actions = torch.arange(count) % 2
    images = (255 * images_of(count)).to(torch.uint8)
    return PosePool(images, poses - poses[:, :1], None, actions, ("Eating", "Walking"))


def test_nearest_candidates_against_a_loop() -> None:
    poses, candidates = poses_of(7, 3), poses_of(9000, 4)
    candidates[8999] = candidates[5]
    poses[0] = candidates[5]
    distances = (poses[:, None] - candidates).norm(dim=-1).mean(dim=-1)
    assert nearest_candidates(poses, candidates).tolist() == distances.argmin(1).tolist()
    assert nearest_candidates(poses, candidates)[0] == 5


def test_methods_and_bounds() -> None:
    pool = pool_of(70)
    retriever = PoseRetriever.build(model_of(), poses_of(200))
    seen: list[tuple[int, int]] = []
    report = evaluate_retrieval(
        retriever, pool, counts=(5, 20), progress=lambda *at: seen.append(at)
    )
    assert list(report.methods) == [
        "Max", "Avg(5)", "Avg(20)", "auxiliary", "oracle", "mean pose",
    ]  # fmt: skip
    assert seen[-1] == (70, 70)
    estimate = retriever.estimate(pool.images, 20)
    errors = {name: method.frame_mean_mm for name, method in report.methods.items()}
    assert errors["Max"] == pytest.approx(mpjpe(estimate.best_mm, pool.poses))
    assert errors["Avg(20)"] == pytest.approx(mpjpe(estimate.pose_mm, pool.poses), rel=1e-5)
    assert errors["oracle"] <= errors["Max"]
    single = report.methods["oracle"].errors_mm.mean(1)
    assert (single <= report.methods["Max"].errors_mm.mean(1) + 1e-6).all()
    assert set(report.methods["Max"].by_action) == {"Eating", "Walking"}
    assert set(report.guesses) == {"spread_mm", "best score", "auxiliary_distance_mm"}
    retriever.calibrate(pool.images)
    report = evaluate_retrieval(retriever, pool, counts=(5, 20))
    assert -1 <= report.guesses["confidence"] <= 1
    assert report.close_share == 0


def test_candidates_that_are_the_truth() -> None:
    pool = pool_of(30)
    retriever = PoseRetriever.build(model_of(auxiliary=False), pool.poses)
    report = evaluate_retrieval(retriever, pool, counts=(1,))
    assert report.methods["oracle"].frame_mean_mm == 0
    assert report.methods["Avg(1)"].frame_mean_mm == report.methods["Max"].frame_mean_mm
    assert "auxiliary" not in report.methods
    right = retriever.estimate(pool.images, 1).rows[:, 0] == torch.arange(30)
    assert report.close_share == pytest.approx(right.float().mean().item())


def test_human36m_pool(tmp_path: Path) -> None:
    write_mmpose(tmp_path, frames=3)
    frames = open_human36m(tmp_path, "test", every=1)
    pool = human36m_pool(frames, 24)
    assert pool.image_size == 24
    assert pool.action_names == ("Eating", "TakingPhoto", "Walking", "WalkingDog")
    assert pool.source == "24 frames of Human3.6M, subjects S9, S11"
    assert (pool.poses[:, 0] == 0).all()
    report = evaluate_retrieval(PoseRetriever.build(model_of(), pool.poses), pool, counts=(2,))
    assert set(report.methods["Max"].by_action) == set(pool.action_names)
    frames.image_path(4).unlink()
    with pytest.raises(FileNotFoundError):
        human36m_pool(frames, 24)
    with pytest.raises(ValueError, match="frames must hold at least one image"):
        human36m_pool(frames.rows([]), 24)


def test_wrong_arguments() -> None:
    retriever = PoseRetriever.build(model_of(), poses_of(20))
    with pytest.raises(ValueError, match=r"counts must ascend from 1 on, got \[20, 5\]"):
        evaluate_retrieval(retriever, pool_of(3), counts=(20, 5))
    with pytest.raises(ValueError, match="pool must hold at least one crop"):
        evaluate_retrieval(retriever, pool_of(3).subset(torch.tensor([], dtype=torch.int64)))
