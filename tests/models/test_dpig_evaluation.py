"""What is measured of DPIG: which rows a model has, and that figures are those of the metrics."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from dgpose.data.person_pairs import PersonPairs, pose_pairs
from dgpose.data.person_pool import PersonPool, rendered_people
from dgpose.data.synthetic_people import SyntheticPeople
from dgpose.metrics import dpig_evaluation
from dgpose.metrics.dpig_evaluation import (
    FactorScores,
    Generator,
    People,
    draw_factor,
    evaluate_generator,
    factor_diversity,
    generator_of,
)
from dgpose.metrics.image_quality import mask_ssim, psnr, ssim
from dgpose.metrics.reid_features import chance, color_histograms, foreground_codes
from dgpose.models.dpig import DPIG, TRAINABLE, DPIGConfig, Trainable, pose_inputs
from dgpose.nn.keypoint_network import KeypointNetwork, KeypointNetworkConfig

SIZE = (128, 64)
TINY = {
    "channels": (4, 4, 4, 4), "crop": 8, "part_code": 4, "background_code": 6, "pose_width": 8,
    "mapper_width": 8, "background_mapper_width": 8, "placed_channels": 4, "bottleneck": 4,
    "bottleneck_channels": 4, "pose_code": 4,
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads cost more than they bring on networks so small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def model(*trained: Trainable, **changes: object) -> DPIG:
    torch.manual_seed(0)
    network = DPIG(DPIGConfig.small(**(TINY | changes))).eval()
    network.trained = frozenset(trained or TRAINABLE)
    return network


@pytest.fixture(scope="module")
def judge() -> KeypointNetwork:
    torch.manual_seed(1)
    network = KeypointNetwork(KeypointNetworkConfig(32, (8, 8, 8, 8), (8, 8, 8))).eval()
    torch.nn.init.normal_(network.head.weight)
    return network


@pytest.fixture(scope="module")
def people() -> tuple[PersonPool, PersonPool, PersonPairs]:
    rendered = SyntheticPeople(poses="kinematic", split="test", size=SIZE)
    return (
        rendered_people(rendered, 6, source="six people"),
        rendered_people(SyntheticPeople(poses="kinematic", size=SIZE), 4),
        pose_pairs(rendered, 4),
    )


Given = tuple[PersonPool, PersonPool, PersonPairs]


def test_rows_of_what_is_trained(judge: KeypointNetwork, people: Given) -> None:
    pool, reference, pairs = people
    whole = evaluate_generator(generator_of(model()), pool, judge, reference, pairs=pairs)
    drawn = {"foreground drawn", "background drawn", "pose drawn", "all drawn"}
    always = {"true images", "mean image", "reconstruction", "true targets", "copy of the source"}
    assert set(whole.scores) == always | drawn | {"pose-guided"}
    assert set(whole.diversity) == {"foreground", "background", "pose"}
    assert all(found.drawn > 0 and found.encoded > 0 for found in whole.diversity.values())
    plain = json.loads(json.dumps(whole.as_json(), allow_nan=False))
    assert plain["diversity"]["pose"]["frechet"] >= 0
    assert plain["poses"]["judge"]["scored"] == 6
    stage1 = evaluate_generator(generator_of(model("stage1")), pool, judge, reference)
    assert set(stage1.scores) == {"true images", "mean image", "reconstruction"}
    assert not stage1.diversity


def test_figures_are_those_of_the_metrics(judge: KeypointNetwork, people: Given) -> None:
    pool, reference, pairs = people
    network = model("stage1")
    report = evaluate_generator(generator_of(network), pool, judge, reference, pairs=pairs)
    source, target = People.of(pairs.source), People.of(pairs.target)
    codes = network.encode_images(*source)
    made = network.decode(*codes, *target[1:]).detach()
    bodies = [
        pose_inputs(some.keypoints_px, some.visible, network.config).mask
        for some in (source, target)
    ]
    row = report.scores["pose-guided"]
    assert isinstance(row, FactorScores)
    # Only the target's mask counts for mask-SSIM, both for the background.
    expected = mask_ssim(made, target.images, bodies[1]).mean().item()
    assert math.isclose(row.mask_ssim or 0, expected, rel_tol=1e-5)
    # The pose that is asked for has hidden joints, too.
    known = pose_inputs(target.keypoints_px, pairs.target.known, network.config).mask
    behind = psnr(made, source.images, (bodies[0] + known) == 0).mean().item()
    assert math.isclose(row.background_psnr or 0, behind, rel_tol=1e-5)
    copied = report.scores["copy of the source"]
    assert isinstance(copied, FactorScores)
    assert copied.background_psnr is None
    assert math.isclose(
        copied.ssim or 0, ssim(source.images, target.images).mean().item(), rel_tol=1e-5
    )


def test_mask_ssim_knows_nothing_outside() -> None:
    torch.manual_seed(0)
    true, masks = torch.rand(2, 3, 32, 32), torch.zeros(2, 1, 32, 32)
    masks[..., 8:24, 8:24] = 1
    other = true.where(masks > 0, torch.rand(2, 3, 32, 32))
    assert torch.allclose(mask_ssim(other, true, masks), torch.ones(2))
    assert (ssim(other, true) < 0.9).all()
    assert (mask_ssim(other.flip(1), true, masks) < 0.99).all()
    with pytest.raises(ValueError, match=r"masks must have shape \[B, 1, H, W\]"):
        mask_ssim(other, true, masks[:1])


def test_drawn_factors_change_and_others_stay(people: Given) -> None:
    network, some = model(), People.of(people[0])
    plain = network.decode(*network.encode_images(*some), *some[1:])
    for factor in ("foreground", "background", "pose"):
        drawn = draw_factor(network, some, (factor,), 3)
        assert not torch.allclose(drawn.images, plain), factor
        again = draw_factor(network, some, (factor,), 3)
        assert torch.equal(drawn.images, again.images)
        kept = torch.equal(drawn.keypoints_px, some.keypoints_px)
        assert kept == (factor != "pose")
        assert torch.allclose(draw_factor(network, some, (), 3).images, plain.detach(), atol=1e-6)


def test_diversity_of_a_model_that_always_maps_to_one_code(
    judge: KeypointNetwork, people: Given
) -> None:
    network = model(fitted_codes=False)
    for weight in network.mappers["background"].parameters():
        torch.nn.init.zeros_(weight)
    found = factor_diversity(network, People.of(people[0]), judge)["background"]
    assert found.drawn == pytest.approx(0, abs=1e-6)
    assert found.encoded > 0


def test_diversity_of_many_people_is_that_of_some(
    judge: KeypointNetwork, people: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dpig_evaluation, "_VARIED", 3)
    shown, network = People.of(people[0]), model("stage1", "background_mapper")
    some = People(*(part[torch.tensor((0, 2, 5))] for part in shown))
    assert factor_diversity(network, shown, judge) == factor_diversity(network, some, judge)


def test_a_model_without_background(judge: KeypointNetwork, people: Given) -> None:
    pool, reference, _ = people
    network = model(background_code=0, **{"placement": "tiled"})
    report = evaluate_generator(generator_of(network), pool, judge, reference)
    assert "background drawn" not in report.scores
    assert "all drawn" in report.scores


def test_other_generators_and_errors(judge: KeypointNetwork, people: Given) -> None:
    pool, reference, pairs = people
    same = Generator(lambda given: given.images)
    report = evaluate_generator(same, pool, judge, reference, pairs=pairs)
    assert report.scores["reconstruction"].ssim == pytest.approx(1)
    assert "pose-guided" not in report.scores
    few = pool.subset(torch.tensor([0]))
    with pytest.raises(ValueError, match="pool must hold at least two images of 64x128 pixels"):
        evaluate_generator(same, few, judge, reference)
    none = torch.zeros_like(pool.known)
    unknown = replace(
        pool, keypoints_px=torch.zeros_like(pool.keypoints_px), known=none, visible=none
    )
    with pytest.raises(ValueError, match="pool must know a shoulder and the other side's hip"):
        evaluate_generator(same, unknown, judge, reference)


def test_features_of_reidentification(people: Given) -> None:
    pool = people[0]
    histograms = color_histograms(pool)
    # Each half's squares are shares.
    assert torch.allclose(histograms.square().view(6, 2, -1).sum(2), torch.ones(6, 2), atol=1e-5)
    hips = pool.keypoints_px[:, [8, 11], 1].mean(1).round().long()
    redder = pool.images.clone()
    for row, hip in enumerate(hips.tolist()):
        redder[row, :, hip + 3 :] = torch.tensor([255, 0, 0], dtype=torch.uint8)[:, None, None]
    changed = color_histograms(replace(pool, images=redder, visible=pool.known))
    same = color_histograms(replace(pool, visible=pool.known))
    assert torch.allclose(changed[:, :512], same[:, :512], atol=0.35)
    assert not torch.allclose(changed[:, 512:], same[:, 512:], atol=0.35)
    nobody = replace(pool, visible=torch.zeros_like(pool.visible))
    assert color_histograms(nobody).isfinite().all()
    codes = foreground_codes(model("stage1"), pool)
    assert torch.equal(codes, model().encode_images(*People.of(pool))[0])
    assert not foreground_codes(model("stage1"), nobody).any()
    assert foreground_codes(model("stage1", foreground="whole"), pool).shape == (6, 28)
    assert torch.equal(chance()(pool), chance()(pool))
    once = chance()
    assert not torch.equal(once(pool), once(pool))
