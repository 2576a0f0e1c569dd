"""DGPose's networks and losses: terms against formulas, and whom their gradients reach."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributions, nn

from dgpose.models.dgpose import (
    PART_NAMES,
    ConditionalDGPose,
    DGPoseConfig,
    Discriminator,
    FittedGaussian,
    Gaussian,
    ImageVAE,
    LearnedMapper,
    RenderedMapper,
    SemiDGPose,
    latent_size,
    load_model,
    make_model,
    save_model,
)
from dgpose.models.dgpose.body_parts import PartMaps, place_codes, pool_features
from dgpose.models.dgpose.losses import (
    PersonBatch,
    discriminator_loss,
    generator_losses,
    pose_regression,
    rebuild,
)
from dgpose.models.dgpose.pose_maps import map_channels, normalized_pose, pose_pixels
from dgpose.nn.hand_regressor import HandRegressor, save_weights
from dgpose.skeletons import BODY14
from dgpose_ext import gaussian_heatmap, limb_heatmap

SIZE = 32
TINY: dict[str, Any] = {"channels": (4, 6, 8, 8), "latent_size": 5, "part_size": 2}
SYSTEMS = ("conditional", "semi", "vae", "regression")


def paper(system: str, **changes: Any) -> DGPoseConfig:
    return DGPoseConfig.paper(
        SIZE, **{"system": system, **TINY, "discriminator_channels": (4, 4)} | changes
    )


def strong(system: str, **changes: Any) -> DGPoseConfig:
    return DGPoseConfig.strong(
        SIZE, **{"system": system, **TINY, "discriminator_channels": (4, 4)} | changes
    )


CONFIGS = [make(system) for make in (paper, strong) for system in SYSTEMS]


@pytest.fixture(autouse=True)
def fixed_noise() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def people(count: int = 6, labelled: int = 3) -> PersonBatch:
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(count, 3, SIZE, SIZE, generator=generator)
    pose = 4 + torch.rand(count, 14, 2, generator=generator) * (SIZE - 8)
    known = torch.rand(count, 14, generator=generator) < 0.9
    pose = pose.where(known[..., None], 0)
    return PersonBatch(images, pose, known, torch.arange(count) < labelled)


def noise() -> torch.Generator:
    return torch.Generator().manual_seed(2)


# ---- Gaussians ----


def posterior(batch: int = 4, size: int = 5) -> Gaussian:
    return Gaussian(torch.randn(batch, size), torch.randn(batch, size))


def as_distribution(one: Gaussian) -> distributions.Independent:
    return distributions.Independent(
        distributions.Normal(one.mean, (one.log_variance / 2).exp()), 1
    )


def test_divergence_from_the_standard_normal() -> None:
    one = posterior()
    standard = distributions.Independent(distributions.Normal(torch.zeros(5), torch.ones(5)), 1)
    want = distributions.kl_divergence(as_distribution(one), standard)
    torch.testing.assert_close(one.divergence(), want)
    assert bool((one.divergence() > 0).all())


def test_draws_have_the_posteriors_moments() -> None:
    one = Gaussian(torch.tensor([[1.0, -2.0]]), torch.tensor([[0.0, -2.0]]))
    many = Gaussian(*(values.expand(20000, 2) for values in one)).sample(noise())
    torch.testing.assert_close(many.mean(0), one.mean[0], atol=0.03, rtol=0)
    torch.testing.assert_close(many.std(0), (one.log_variance[0] / 2).exp(), atol=0.03, rtol=0)


@pytest.mark.parametrize("diagonal", [True, False])
def test_fitted_gaussian(diagonal: bool) -> None:
    """Moments of the rows, and the divergence that torch computes."""
    rows = torch.randn(500, 5) @ torch.randn(5, 5) + torch.randn(5)
    prior = FittedGaussian(5, diagonal=diagonal)
    prior.fit(rows)
    covariance = torch.cov(rows.T, correction=0)
    want = covariance.diagonal().diag() if diagonal else covariance
    torch.testing.assert_close(prior.mean, rows.mean(0))
    torch.testing.assert_close(prior.scale @ prior.scale.T, want, atol=1e-4, rtol=1e-4)
    one = posterior()
    normal = distributions.MultivariateNormal(prior.mean, scale_tril=prior.scale)
    own = distributions.MultivariateNormal(one.mean, one.log_variance.exp().diag_embed())
    want_kl = distributions.kl_divergence(own, normal)
    torch.testing.assert_close(prior.divergence(one), want_kl)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(prior.divergence(one), want_kl)
    drawn = prior.sample(20000, noise())
    torch.testing.assert_close(torch.cov(drawn.T), want, atol=0.1 * float(want.max()), rtol=0)


def test_prior_counts_known_numbers_alone() -> None:
    rows, known = torch.randn(200, 3), torch.rand(200, 3) < 0.7
    spoilt = rows.where(known, math.nan)
    prior = FittedGaussian(3)
    prior.fit(spoilt, known)
    for number in range(3):
        own = rows[known[:, number], number]
        torch.testing.assert_close(prior.mean[number], own.mean())
        variance = (prior.scale @ prior.scale.T)[number, number]
        torch.testing.assert_close(variance, own.var(correction=0), atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="known in at least 2 rows, got 1"):
        prior.fit(rows, torch.arange(200)[:, None].expand(-1, 3) < 1)


# ---- maps and parts ----


def test_pose_units() -> None:
    corners = torch.tensor([[0.0, 0.0], [SIZE - 1, (SIZE - 1) / 2]])[None]
    y = normalized_pose(corners, SIZE)
    assert y.tolist() == [[-1, -1, 1, 0]]
    torch.testing.assert_close(pose_pixels(y, SIZE), corners)


def test_rendered_maps_are_joints_limbs_and_body() -> None:
    config, batch = paper("conditional", mapper="rendered"), people()
    maps = RenderedMapper(config)(batch.pose_px, batch.known)
    size = (SIZE, SIZE)
    joints = gaussian_heatmap(batch.pose_px, size, config.joint_sigma, visible=batch.known)
    limbs = limb_heatmap(batch.pose_px, BODY14.edges, size, config.limb_sigma, visible=batch.known)
    torch.testing.assert_close(maps, torch.cat((joints, limbs, limbs.amax(1, keepdim=True)), 1))
    for off, channels in (("joint_maps", 14), ("limb_maps", 15), ("body_map", 27)):
        fewer = replace(config, **{off: False})
        assert map_channels(fewer) == channels
        assert RenderedMapper(fewer)(batch.pose_px).shape[1] == channels


def test_parts_share_the_image() -> None:
    """Parts are where their joints are, nowhere where one is not known, and leave the rest."""
    pose = torch.tensor(
        [[16, 5], [16, 9], [12, 9], [9, 13], [7, 17], [20, 9], [23, 13], [25, 17], [13, 18],
         [12, 23], [12, 28], [19, 18], [20, 23], [20, 28]]
    )[None].float()  # fmt: skip
    known = torch.ones(1, 14, dtype=torch.bool)
    maps = PartMaps(strong("conditional"))
    shares = maps(pose, known)
    exact = maps(pose + 0.3, known)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(maps(pose + 0.3, known), exact, rtol=0, atol=0)
    assert shares.shape == (1, len(PART_NAMES), SIZE // 2, SIZE // 2)
    assert float(shares.sum(1).max()) < 1
    assert float(shares.sum(1)[0, 0, 0]) < 0.01
    # The middle of the right forearm lies at pixel (8, 15), cell (3.75, 7.25).
    assert PART_NAMES[int(shares[0, :, 7, 4].argmax())] == "right_forearm"
    hidden = known.clone()
    hidden[0, BODY14.joints.index("right_wrist")] = False
    without = maps(pose, hidden)
    gone = {name for name, one in zip(PART_NAMES, without[0], strict=True) if not one.any()}
    assert gone == {"right_forearm", "right_hand"}


def test_codes_are_pooled_and_placed_under_the_parts() -> None:
    shares = torch.zeros(1, 2, 4, 4)
    shares[0, 0, 0, 0] = shares[0, 1, 2, 1:3] = 1.0
    codes = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    placed = place_codes(codes, shares)
    assert placed[0, :, 0, 0].tolist() == [1, 2]
    assert placed[0, :, 2, 2].tolist() == [3, 4]
    assert float(placed.sum()) == 3 + 7 * 2
    torch.testing.assert_close(pool_features(placed, shares), codes, atol=4e-3, rtol=0)


def test_learned_mapper_comes_near_the_rendered_one() -> None:
    """After a short training its maps explain most of the rendered maps' variance."""
    config = paper("conditional", joint_maps=False, joint_sigma=3.0, limb_sigma=3.0)
    learned, rendered = LearnedMapper(config), RenderedMapper(config)
    generator = torch.Generator().manual_seed(0)

    def poses(count: int) -> Tensor:
        middle = 8 + 16 * torch.rand(count, 1, 2, generator=generator)
        return middle + 4 * torch.randn(1, 14, 2, generator=torch.Generator().manual_seed(5))

    optimizer = torch.optim.Adam(learned.parameters(), 3e-3)
    for _ in range(150):
        pose = poses(16)
        loss = (learned(pose) - rendered(pose)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    pose = poses(64)
    target = rendered(pose)
    with torch.no_grad():
        error = (learned(pose) - target).square().mean()
    assert float(error / target.var(0).mean()) < 0.2


# ---- systems ----


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.system}-{c.latent}")
def test_weight_file(config: DGPoseConfig, tmp_path: Path) -> None:
    model = make_model(config)
    if isinstance(model, SemiDGPose):
        model.fit_pose_prior(people().pose_px, torch.ones(6, 14, dtype=torch.bool))
    save_model(model.eval(), tmp_path / "m.safetensors", {"data": "noise"})
    again = load_model(tmp_path / "m.safetensors")
    assert type(again) is type(model)
    assert again.config == config
    assert again.training_facts == {"data": "noise"}
    assert not again.training
    one, other = (rebuild(m, people(), noise()) for m in (model, again))
    assert (one.images is None) == (config.system == "regression")
    for before, after in ((one.images, other.images), (one.code, other.code)):
        if before is not None:
            torch.testing.assert_close(before, after, rtol=0, atol=0)
    if isinstance(model, SemiDGPose):
        drawn = [m.sample_pose(3, noise()) for m in (model, again)]
        torch.testing.assert_close(*drawn, rtol=0, atol=0)


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    save_weights(HandRegressor(), tmp_path / "hand.safetensors")
    with pytest.raises(ValueError, match="dgpose"):
        load_model(tmp_path / "hand.safetensors")


@pytest.mark.parametrize("make", [paper, strong])
def test_shapes(make: Any) -> None:
    batch = people()
    model = make_model(make("semi")).eval()
    assert isinstance(model, SemiDGPose)
    y = model.estimate_pose(batch.images)
    assert y.mean.shape == (6, 28)
    assert model.pose_px(y.mean).shape == (6, 14, 2)
    z = model.appearance(batch.images).mean
    assert z.shape == model.sample_appearance(6).shape == (6, latent_size(model.config))
    image = model.decode(z, model.sample_pose(6)).detach()
    assert image.shape == batch.images.shape
    assert 0 <= float(image.min()) <= float(image.max()) <= 1


@pytest.mark.parametrize("make", [paper, strong])
def test_bad_input(make: Any) -> None:
    model, batch = ConditionalDGPose(make("conditional")).eval(), people()
    spoilt = batch.images.clone()
    spoilt[2, 0, 3, 3] = math.nan
    with pytest.raises(ValueError, match="images must be finite, got NaN"):
        model.appearance(spoilt, batch.pose_px)
    pose = batch.pose_px.clone()
    pose[1, 2] = math.inf
    with pytest.raises(ValueError, match="pose_px must be finite where known"):
        model.appearance(batch.images, pose)
    known = torch.ones(6, 14, dtype=torch.bool)
    known[1, 2] = False
    z = model.appearance(batch.images, pose, known).mean
    assert bool(z.isfinite().all())  # a joint that is not known may be anything
    with pytest.raises(ValueError, match=r"images must have shape \[B, 3, 32, 32\], got"):
        model.appearance(batch.images[..., 1:], batch.pose_px)
    with pytest.raises(ValueError, match=r"pose_px must have shape \[B, 14, 2\], got"):
        model.decode(z, batch.pose_px[:, 1:])
    with pytest.raises(ValueError, match=r"z must have shape \[B, "):
        model.decode(z[:, 1:], batch.pose_px)
    with pytest.raises(ValueError, match="pose_px must have B = 6 as z, got 5"):
        model.decode(z, batch.pose_px[1:])
    with pytest.raises(ValueError, match="pose_px must have B = 6 as images, got 5"):
        model.appearance(batch.images, batch.pose_px[1:])
    with pytest.raises(ValueError, match=r"known must be bool of shape \[6, 14\], got"):
        model.decode(z, batch.pose_px, known.float())
    with pytest.raises(ValueError, match="z must be finite, got NaN"):
        model.decode(z * math.nan, batch.pose_px)
    with pytest.raises(TypeError, match="images must be of floating point"):
        model.appearance(batch.images.byte(), batch.pose_px)
    with pytest.raises(ValueError, match=r"config.system must be 'vae', got 'semi'"):
        ImageVAE(strong("semi"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 40}, "image_size must be a multiple of 16"),
        ({"system": "other"}, "system must be one of conditional, semi, vae, regression"),
        ({"channels": (4, 4)}, "channels must have 4 numbers"),
        ({"kl_weight": -1.0}, "kl_weight must not be negative"),
        ({"l1_weight": math.nan}, "l1_weight must be positive"),
        ({"latent": "parts", "encoder_sees_pose": False}, "encoder_sees_pose must be true"),
        ({"joint_maps": False, "limb_maps": False, "body_map": False}, "maps must have a channel"),
    ],
)
def test_configurations_are_checked(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DGPoseConfig(**changes)


# ---- losses ----


def test_terms_are_the_written_ones() -> None:
    """L_u + gamma L_l, each a mean over its images, with the signs of negative bounds."""
    config = paper(
        "semi", mapper="rendered", kl_weight=0.3, pose_kl_weight=0.7, l1_weight=2.0,
        adversarial_weight=0.5, pose_weight=1.5, labelled_weight=3.0, body_weight=4.0,
    )  # fmt: skip
    model, critic = SemiDGPose(config), Discriminator(config, map_channels(config))
    batch = people(6, 2)
    model.fit_pose_prior(batch.pose_px, torch.ones_like(batch.known))
    rebuilt = rebuild(model, batch, noise())
    terms = generator_losses(config, model, critic, batch, rebuilt)
    assert rebuilt.images is not None
    assert rebuilt.code is not None
    assert rebuilt.pose is not None

    def total(per_image: Tensor) -> Tensor:
        return per_image[2:].mean() + 3.0 * per_image[:2].mean()

    m, v = rebuilt.code
    kl = (0.5 * (m**2 + v.exp() - 1 - v)).sum(1)
    torch.testing.assert_close(terms["kl_z"], 0.3 * total(kl))
    assert rebuilt.body is not None
    body = 1 + 4.0 * rebuilt.body
    apart = ((rebuilt.images - batch.images).abs() * body).mean((1, 2, 3))
    torch.testing.assert_close(terms["l1"], 2.0 * total(apart))
    logits, _ = critic(rebuilt.images, rebuilt.maps)
    fooled = -logits.sigmoid().log().mean((1, 2, 3))
    torch.testing.assert_close(terms["adversarial"], 0.5 * total(fooled))
    prior = distributions.MultivariateNormal(
        model.pose_prior.mean, scale_tril=model.pose_prior.scale
    )
    own = distributions.MultivariateNormal(
        rebuilt.pose.mean, rebuilt.pose.log_variance.exp().diag_embed()
    )
    kl_y = distributions.kl_divergence(own, prior)
    torch.testing.assert_close(terms["kl_y"], 0.7 * kl_y[2:].mean())
    apart_y = (rebuilt.pose.mean - normalized_pose(batch.pose_px, SIZE)).view(6, 14, 2)
    errors = [float((d[k] ** 2).mean()) for d, k in zip(apart_y, batch.known, strict=True)]
    assert float(terms["pose"]) == pytest.approx(1.5 * 3.0 * sum(errors[:2]) / 2, rel=1e-5)
    assert set(terms) == {"kl_z", "kl_y", "l1", "adversarial", "pose"}
    loss = discriminator_loss(config, critic, batch, rebuilt)
    real, _ = critic(batch.images, rebuilt.maps)
    want = -real.sigmoid().log().mean() - (1 - logits.sigmoid()).log().mean()
    torch.testing.assert_close(loss, want)


def test_conditional_terms() -> None:
    config = paper("conditional", mapper="rendered")
    model, batch = ConditionalDGPose(config), people()
    rebuilt = rebuild(model, batch, noise())
    terms = generator_losses(config, model, None, batch, rebuilt)
    assert set(terms) == {"kl_z", "l1"}
    assert rebuilt.images is not None
    torch.testing.assert_close(terms["l1"], (rebuilt.images - batch.images).abs().mean())


def test_distance_loss_and_unknown_joints() -> None:
    config, batch = strong("regression"), people()
    estimate = torch.zeros(6, 28)
    known = batch.known.clone()
    known[0] = False
    errors = pose_regression(config, estimate, batch.pose_px, known)
    assert float(errors[0]) == 0
    apart = normalized_pose(batch.pose_px, SIZE).view(6, 14, 2)[1].norm(dim=1)
    torch.testing.assert_close(errors[1], apart[known[1]].mean(), atol=1e-4, rtol=0)


def reached(parts: dict[str, nn.Module], loss: Tensor) -> set[str]:
    """Names of the modules whose parameters get a gradient that is not 0."""
    for module in parts.values():
        module.zero_grad(set_to_none=True)
    loss.backward(retain_graph=True)
    return {
        name
        for name, module in parts.items()
        if any(p.grad is not None and bool(p.grad.any()) for p in module.parameters())
    }


@pytest.mark.parametrize("make", [paper, strong])
def test_whom_each_term_teaches(make: Any) -> None:
    """Unlabelled images teach the pose encoder through the mapper; labelled ones by alpha alone;
    nothing teaches the mapper, and the generator's terms not the discriminator."""
    config = make("semi")
    model, critic = SemiDGPose(config), Discriminator(config, map_channels(config))
    critic.requires_grad_(False)
    model.fit_pose_prior(torch.rand(20, 14, 2) * SIZE, torch.ones(20, 14, dtype=torch.bool))
    parts: dict[str, nn.Module] = {
        "pose": model.pose_head, "encoder": model.code_head, "decoder": model.decoder,
        "mapper": model.mapper, "critic": critic,
    }  # fmt: skip
    everything = {}
    for labelled in (0, 6):
        batch = people(6, labelled)
        rebuilt = rebuild(model, batch, noise())
        everything[labelled] = generator_losses(config, model, critic, batch, rebuilt)
    unlabelled, all_labelled = everything[0], everything[6]
    generator = {"encoder", "decoder"}
    assert reached(parts, unlabelled["l1"]) == generator | {"pose"}
    assert reached(parts, unlabelled["adversarial"]) == generator | {"pose"}
    assert reached(parts, unlabelled["kl_y"]) == {"pose"}
    assert float(unlabelled["pose"]) == 0
    assert reached(parts, all_labelled["l1"]) == generator
    assert reached(parts, all_labelled["pose"]) == {"pose"}
    assert "kl_y" not in all_labelled
    sees = {"pose"} if config.encoder_sees_pose else set()
    assert reached(parts, unlabelled["kl_z"]) == {"encoder"} | sees
    critic.requires_grad_(True)
    loss = discriminator_loss(config, critic, batch, rebuilt)
    assert reached(parts, loss) == {"critic"}


def test_a_discriminator_of_a_model_without_poses_sees_none() -> None:
    config = paper("vae", discriminator_sees_pose=True)
    model, critic, batch = make_model(config), Discriminator(config, 0), people()
    rebuilt = rebuild(model, batch, noise())
    assert generator_losses(config, model, critic, batch, rebuilt)["adversarial"] > 0
    assert discriminator_loss(config, critic, batch, rebuilt) > 0


def test_gradient_penalty_and_features() -> None:
    config = strong("conditional", spectral_norm=False, adversarial_weight=0.0)
    model, critic, batch = make_model(config), Discriminator(config, 0), people()
    rebuilt = rebuild(model, batch, noise())
    plain = discriminator_loss(config, critic, batch, rebuilt)
    images = batch.images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(images)[0].sum(), images)
    penalised = discriminator_loss(replace(config, gradient_penalty=2.0), critic, batch, rebuilt)
    torch.testing.assert_close(penalised - plain, 2 * gradient.square().sum((1, 2, 3)).mean())
    with_features = replace(config, feature_weight=0.5)
    terms = generator_losses(with_features, model, critic, batch, rebuilt)
    pairs = zip(critic(batch.images)[1], critic(rebuilt.images)[1], strict=True)
    apart = [(one - other).abs().mean() for one, other in pairs]
    torch.testing.assert_close(terms["features"], 0.5 * torch.stack(apart).mean())


def test_deviations_are_calibrated_on_poses_that_were_not_learned_from() -> None:
    """A posterior that says a third of the true deviation, of wrists a tenth, is put right."""
    model = make_model(DGPoseConfig.strong(32, system="semi")).eval()
    assert isinstance(model, SemiDGPose)
    generator = torch.Generator().manual_seed(0)
    said = torch.full((4000, 28), 2 * math.log(0.01))
    true = torch.full((14,), 3.0)
    true[[4, 7]] = 10.0
    y = torch.randn(4000, 28, generator=generator) * 0.01 * true.repeat_interleave(2)
    known = torch.rand(4000, 14, generator=generator) < 0.9
    known[:, 0] = False
    y[~known.repeat_interleave(2, 1)] = 1e6  # no number that is not known counts
    posterior = Gaussian(torch.zeros_like(said), said)
    model.pose_head.calibrate(posterior, y, known)
    true[0] = 1.0  # as it was
    torch.testing.assert_close(model.pose_head.deviation_factors, true, rtol=0.05, atol=0)
    want = (0.01 * true * 31 / 2).expand(4000, -1)
    torch.testing.assert_close(model.pose_std_px(posterior), want, rtol=0.05, atol=0)
