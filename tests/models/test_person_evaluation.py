"""What is measured of a model, against figures that follow from how it was made."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch

from dgpose.data.person_pairs import PersonPairs, pose_pairs
from dgpose.data.person_pool import PersonPool, rendered_people
from dgpose.data.synthetic_people import SyntheticPeople
from dgpose.metrics.image_quality import psnr
from dgpose.metrics.keypoints import pck
from dgpose.metrics.person_evaluation import (
    estimate,
    evaluate_person_model,
    mean_pose,
    reconstruct,
    transfer,
)
from dgpose.models.dgpose import (
    ConditionalDGPose,
    DGPoseConfig,
    ImageVAE,
    PoseRegressor,
    SemiDGPose,
    make_model,
)
from dgpose.nn.keypoint_network import KeypointNetwork, KeypointNetworkConfig

SMALL = {"image_size": 32, "channels": (8, 8, 8, 8), "latent_size": 6}


def model(system: str) -> ConditionalDGPose | SemiDGPose | ImageVAE | PoseRegressor:
    torch.manual_seed(0)
    return make_model(DGPoseConfig(system=system, **SMALL)).eval()  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def judge() -> KeypointNetwork:
    torch.manual_seed(1)
    network = KeypointNetwork(KeypointNetworkConfig(32, (8, 8, 8, 8), (8, 8, 8))).eval()
    torch.nn.init.normal_(network.head.weight)
    return network


@pytest.fixture(scope="module")
def people() -> tuple[PersonPool, PersonPool, PersonPairs]:
    rendered = SyntheticPeople(poses="kinematic", split="test", size=32)
    reference = SyntheticPeople(poses="kinematic", split="train", size=32)
    return (
        rendered_people(rendered, 10, source="ten people"),
        rendered_people(reference, 8),
        pose_pairs(rendered, 6),
    )


def floats(pool: PersonPool) -> torch.Tensor:
    return pool.images.float() / 255


@pytest.mark.parametrize(
    ("system", "rows"),
    [
        ("conditional", ("reconstruction", "swap", "samples", "transfer")),
        ("semi", ("reconstruction", "swap", "samples", "transfer", "indirect transfer")),
        ("vae", ("reconstruction", "swap", "samples")),
        ("regression", ()),
    ],
)
def test_each_system_has_its_rows(
    system: str,
    rows: tuple[str, ...],
    judge: KeypointNetwork,
    people: tuple[PersonPool, PersonPool, PersonPairs],
) -> None:
    pool, reference, pairs = people
    report = evaluate_person_model(model(system), pool, judge, reference, pairs=pairs)
    always = {"true images", "mean image", "true targets", "copy of the source"}
    beside = {"another person"} if "swap" in rows else set()
    assert set(report.scores) == always | beside | set(rows)
    assert ("model" in report.poses) == (system in ("semi", "regression"))
    plain = json.loads(json.dumps(report.as_json(), allow_nan=False))
    assert plain["source"] == "ten people"
    assert plain["images"] == 10


def test_figures_are_those_of_the_metrics(
    judge: KeypointNetwork, people: tuple[PersonPool, PersonPool, PersonPairs]
) -> None:
    pool, reference, pairs = people
    semi = model("semi")
    assert isinstance(semi, SemiDGPose)
    report = evaluate_person_model(semi, pool, judge, reference, pairs=pairs)
    images, (keypoints, known) = floats(pool), pool.body

    found = semi.pose_px(semi.estimate_pose(images).mean)
    assert report.poses["model"].pck(0.5) == pck(found, keypoints, known)[2]
    true = report.scores["true images"].pck
    assert true is not None
    assert true["0.2"] == report.poses["judge"].pck(0.2)

    z = semi.appearance(images).mean
    expected = psnr(semi.decode(z, found), images).mean().item()
    row = report.scores["reconstruction"]
    assert row.psnr is not None
    assert math.isclose(row.psnr, expected, rel_tol=1e-5)
    copied = report.scores["copy of the source"].psnr
    assert copied is not None
    plain = psnr(floats(pairs.source), floats(pairs.target)).mean().item()
    assert math.isclose(copied, plain, rel_tol=1e-5)
    mean = reference.images.float().mean(0) / 255
    flat = report.scores["mean image"].psnr
    assert flat is not None
    assert math.isclose(flat, psnr(mean.expand_as(images), images).mean().item(), rel_tol=1e-5)


def test_more_images_than_are_taken_at_once(
    people: tuple[PersonPool, PersonPool, PersonPairs], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results do not depend on how many images are worked on at once."""
    pool, _, pairs = people
    given = floats(pool), *pool.body
    conditional, vae = model("conditional"), model("vae")
    assert isinstance(conditional, ConditionalDGPose)
    assert isinstance(vae, ImageVAE)
    moved = (conditional, *(floats(pairs.source), *pairs.source.body))
    arguments = (*moved, *(floats(pairs.target), *pairs.target.body))
    whole = [reconstruct(conditional, *given), reconstruct(vae, *given), transfer(*arguments)]
    monkeypatch.setattr("dgpose.metrics.person_evaluation._AT_ONCE", 4)
    parts = [reconstruct(conditional, *given), reconstruct(vae, *given), transfer(*arguments)]
    for one, other in zip(whole, parts, strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    # Of the plain VAE a reconstruction decodes the code as it is.
    assert torch.allclose(whole[1], vae.decode(vae.appearance(given[0]).mean), atol=1e-5)


def test_poses_of_the_regressor(people: tuple[PersonPool, PersonPool, PersonPairs]) -> None:
    regressor = model("regression")
    assert isinstance(regressor, PoseRegressor)
    assert estimate(regressor, floats(people[0])).shape == (10, 14, 2)


def test_the_mean_pose_knows_what_is_known() -> None:
    keypoints = torch.zeros(2, 14, 2)
    keypoints[0] = 10
    known = torch.ones(2, 14, dtype=torch.bool)
    known[1, 3] = False
    mean = mean_pose(keypoints, known)
    assert mean[0].tolist() == [5, 5]
    assert mean[3].tolist() == [10, 10]


def test_what_it_refuses(
    judge: KeypointNetwork, people: tuple[PersonPool, PersonPool, PersonPairs]
) -> None:
    pool, reference, _ = people
    with pytest.raises(ValueError, match="at least two images of 32x32 pixels, got 1 of 32x32"):
        evaluate_person_model(model("semi"), pool.subset(torch.tensor([0])), judge, reference)
    nothing = torch.zeros_like(pool.known)
    unknown = replace(
        pool, keypoints_px=torch.zeros_like(pool.keypoints_px), known=nothing, visible=nothing
    )
    with pytest.raises(ValueError, match="pool must know a shoulder and the other side's hip"):
        evaluate_person_model(model("semi"), unknown, judge, reference)
    large = rendered_people(SyntheticPeople(poses="kinematic", size=48), 2)
    with pytest.raises(ValueError, match=r"reference must .* got 2 of 48x48"):
        evaluate_person_model(model("semi"), pool, judge, large)
