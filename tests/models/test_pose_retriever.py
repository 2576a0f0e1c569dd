"""PoseRetriever against a plain loop over all candidates, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dgpose.inference.pose_retriever import PoseRetriever
from dgpose.models.max_margin import MaxMarginConfig, MaxMarginModel, save_model
from dgpose_ext import PoseIndex, topk_mean_pose


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny networks: threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def model_of(seed: int = 0, *, auxiliary: bool = True) -> MaxMarginModel:
    torch.manual_seed(seed)
    config = MaxMarginConfig(
        image_size=24, crop_size=16, channels=(4, 4, 4), hidden=(8, 8, 16), embedding=32,
        pose_hidden=16, auxiliary=auxiliary,
    )  # fmt: skip
    return MaxMarginModel(config).eval()


def poses_of(count: int, seed: int = 1) -> Tensor:
    return 300 * torch.randn(count, 17, 3, generator=torch.Generator().manual_seed(seed))


def images_of(count: int, seed: int = 2) -> Tensor:
    return torch.rand(count, 3, 24, 24, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("storage", ["float32", "int8"])
def test_against_a_plain_loop(storage: str) -> None:
    model, poses, images = model_of(), poses_of(700), images_of(70)
    retriever = PoseRetriever.build(model, poses, storage=storage)  # type: ignore[arg-type]
    estimate = retriever.estimate(images, k=30)
    relative = poses - poses[:, :1]
    embeddings = model.embed_poses(relative)
    for number, query in enumerate(model.embed_images(images)):
        scores = (embeddings.double() * query.double()).sum(1)
        best = scores.argsort(descending=True, stable=True)[:30]
        assert estimate.rows[number].tolist() == best.tolist()
        torch.testing.assert_close(estimate.scores[number], scores[best].float())
        found = relative[best]
        torch.testing.assert_close(estimate.pose_mm[number], found.mean(0), atol=1e-3, rtol=0)
        assert torch.equal(estimate.best_mm[number], found[0])
        distances = (found[:20] - found[:20].mean(0)).norm(dim=-1).mean(1)
        torch.testing.assert_close(estimate.spread_mm[number], distances.mean())
    means = topk_mean_pose(model.embed_images(images), embeddings, relative, 30)
    torch.testing.assert_close(estimate.pose_mm, means, atol=1e-3, rtol=0)
    assert estimate.auxiliary_mm is not None
    assert estimate.auxiliary_distance_mm is not None
    torch.testing.assert_close(estimate.auxiliary_mm, model.estimate_auxiliary(images))
    means = topk_mean_pose(model.embed_images(images), embeddings, relative, 20)
    off = (estimate.auxiliary_mm - means).norm(dim=-1).mean(1)
    torch.testing.assert_close(estimate.auxiliary_distance_mm, off)
    assert estimate.confidence is None
    few = retriever.estimate(images, k=3)  # what does not know the truth does not depend on k
    assert torch.equal(few.rows, estimate.rows[:, :3])
    assert few.auxiliary_distance_mm is not None
    assert torch.equal(few.auxiliary_distance_mm, estimate.auxiliary_distance_mm)
    assert torch.equal(few.spread_mm, estimate.spread_mm)


def test_spread() -> None:
    model = model_of()
    alike = poses_of(1) + torch.randn(60, 17, 3)
    near, far = (
        PoseRetriever.build(model, p).estimate(images_of(3)) for p in (alike, poses_of(60))
    )
    assert (near.spread_mm < 3).all()
    assert (far.spread_mm > 200).all()


@pytest.mark.parametrize("auxiliary", [True, False])
def test_confidence_is_the_rank_among_calibration_images(tmp_path: Path, auxiliary: bool) -> None:
    model = model_of(auxiliary=auxiliary)
    retriever = PoseRetriever.build(model, poses_of(60))
    seen = images_of(101, seed=7)
    retriever.calibrate(seen)
    result = retriever.estimate(seen)
    order = result.scores[:, 0].argsort().argsort().double()
    if result.auxiliary_distance_mm is not None:
        order += result.auxiliary_distance_mm.argsort(descending=True).argsort()
    confidence = result.confidence
    assert confidence is not None
    for better, worse in ((60, 40), (90, 80), (100, 0)):
        rows = order.argsort()[[worse, better]]
        assert confidence[rows[0]] < confidence[rows[1]]
    for share in (0.05, 0.3, 0.9):  # among their own kind every value is as likely
        assert (confidence < share).float().mean().item() == pytest.approx(share, abs=0.035)
    if not auxiliary:
        torch.testing.assert_close(confidence, (order / 100).float(), atol=1e-5, rtol=0)
    retriever.save(tmp_path / "poses.dgx")
    loaded = PoseRetriever.load(model, tmp_path / "poses.dgx").estimate(seen).confidence
    assert loaded is not None
    assert torch.equal(loaded, confidence)
    with torch.no_grad():
        model.image_network.embedding[0].bias.add_(1)  # sees images otherwise from now on
    assert PoseRetriever.load(model, tmp_path / "poses.dgx").estimate(seen).confidence is None
    with pytest.raises(ValueError, match=r"images must have shape \[C, 3, S, S\] with C >= 20"):
        retriever.calibrate(seen[:19])


def test_one_image_or_a_batch_of_either_dtype() -> None:
    retriever = PoseRetriever.build(model_of(), poses_of(50))
    images = (images_of(3) * 255).to(torch.uint8)
    batch = retriever.estimate(images, k=5)
    assert len(batch) == 3
    one = retriever.estimate(images[1], k=5)
    assert torch.equal(one.rows, batch.rows[1:2])
    scaled = retriever.estimate(images.float() / 255, k=5)
    assert torch.equal(scaled.rows, batch.rows)
    assert retriever.estimate(images, k=500).rows.shape == (3, 50)  # all that there are


def test_without_auxiliary_head() -> None:
    estimate = PoseRetriever.build(model_of(auxiliary=False), poses_of(9)).estimate(images_of(2))
    assert estimate.auxiliary_mm is None
    assert estimate.auxiliary_distance_mm is None


def test_files(tmp_path: Path) -> None:
    model = model_of()
    save_model(model, tmp_path / "model.safetensors")
    retriever = PoseRetriever.build(model, poses_of(50), description="fifty")
    retriever.save(tmp_path / "poses.dgx")
    loaded = PoseRetriever.load(tmp_path / "model.safetensors", tmp_path / "poses.dgx")
    assert loaded.index.metadata["poses"] == "fifty"
    want, got = retriever.estimate(images_of(4), 7), loaded.estimate(images_of(4), 7)
    assert torch.equal(want.pose_mm, got.pose_mm)
    # The pose network decides which indexes fit, whatever its image network learned since.
    with torch.no_grad():
        model.image_network.embedding[0].bias.add_(1)
    PoseRetriever.load(model, tmp_path / "poses.dgx")
    save_model(model_of(seed=5), tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"poses\.dgx: index must hold poses that this model"):
        PoseRetriever.load(tmp_path / "other.safetensors", tmp_path / "poses.dgx")
    PoseIndex(torch.ones(3, 32), poses=poses_of(3)).save(tmp_path / "foreign.dgx")
    with pytest.raises(ValueError, match="got one that says of its rows nothing"):
        PoseRetriever.load(model, tmp_path / "foreign.dgx")


def test_bad_input() -> None:
    model = model_of()
    retriever = PoseRetriever.build(model, poses_of(50))
    images = images_of(5)
    images[3, 1, 2, 2] = torch.nan
    for wrong, k, message in (
        (images, 5, "images must be finite, got NaN or Inf in image 3"),
        (images_of(2), 0, "k must be at least 1, got 0"),
        (images_of(0), 5, "images must hold at least one image, got none"),
        (2 * images_of(2) - 1, 5, r"images must lie in \[0, 1\], got image 0 in \[-"),
        (images_of(2)[..., :20], 5, r"images must have shape \[B, 3, 24, 24\]"),
    ):
        with pytest.raises(ValueError, match=message):
            retriever.estimate(wrong, k)
    with pytest.raises(TypeError, match=r"images must be uint8 or floating point"):
        retriever.estimate(torch.zeros(1, 3, 24, 24, dtype=torch.int64))
    poses = poses_of(5)
    poses[4, 3, 0] = torch.inf
    with pytest.raises(ValueError, match="poses_mm must be finite, got NaN or Inf in row 4"):
        PoseRetriever.build(model, poses)
    with pytest.raises(ValueError, match=r"poses_mm must have shape \[N, 17, 3\], got \[5, 51\]"):
        PoseRetriever.build(model, poses.flatten(1))
    with pytest.raises(
        ValueError, match=r"must be in millimetres, got poses that reach \d\.\d+ mm"
    ):
        PoseRetriever.build(model, poses_of(5) / 1000)
    with pytest.raises(ValueError, match="index must hold poses of 17 joints, got 0 of 17"):
        PoseRetriever.build(model, poses[:0])
    with pytest.raises(ValueError, match="model must be in eval mode"):
        PoseRetriever(model.train(), retriever.index)


def test_crop() -> None:
    retriever = PoseRetriever.build(model_of(), poses_of(9))
    picture = np.zeros((50, 80, 3), np.uint8)
    picture[10:34, 20:44] = 255
    tight = retriever.crop(picture, (21.5, 11.5, 41.5, 31.5))  # 20 pixels, and 20 % around them
    assert (tight == 255).all()
    with pytest.raises(ValueError, match="box must have x1 < x2 and y1 < y2"):
        retriever.crop(picture, (5, 9, 5, 9))
    with pytest.raises(ValueError, match=r"box must be x1, y1, x2, y2, got \(5, 9, 7\)"):
        retriever.crop(picture, (5, 9, 7))
    for wrong in (picture[..., 0], picture / 255):
        with pytest.raises(ValueError, match=r"picture must be uint8 of shape \[H, W, 3\], got"):
            retriever.crop(wrong)
    whole = retriever.crop(picture)
    assert whole.shape == (3, 24, 24)
    assert 0 < whole.float().mean() < 60
