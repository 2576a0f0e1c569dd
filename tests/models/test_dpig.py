"""DPIG's networks and losses: sizes, what sees what, terms against formulas, the weight file."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgpose.models.dpig import (
    DPIG,
    FACTORS,
    TRAINABLE,
    Critic,
    Discriminator,
    DPIGConfig,
    DPIGRecipe,
    Mapper,
    PoseInputs,
    Rebuilt,
    clip_weights,
    critic_loss,
    discriminator_loss,
    generator_losses,
    load_dpig,
    mapper_loss,
    pose_inputs,
    pose_losses,
    rebuild,
    save_dpig,
)
from dgpose.models.dpig.dense_networks import straight_through_round
from dgpose.models.dpig.pose_inputs import coordinates_px, normalized_coordinates
from dgpose.nn.hand_regressor import HandRegressor, save_weights
from dgpose.nn.weight_files import write_model
from dgpose.skeletons import DPIG_PARTS

TINY: dict[str, Any] = {
    "channels": (4, 6, 8),
    "crop": 12,
    "part_code": 3,
    "pose_width": 12,
    "mapper_width": 8,
    "background_mapper_width": 8,
    "critic_width": 8,
    "discriminator_channels": (4, 6),
}
# x, y of somebody who stands upright in the middle of 64x128 pixels
STANDING = torch.tensor(
    [[32, 20], [32, 30], [24, 30], [20, 45], [18, 58], [40, 30], [44, 45], [46, 58], [27, 60],
     [26, 85], [25, 108], [37, 60], [38, 85], [39, 108], [30, 18], [34, 18], [28, 20], [36, 20]]
).float()  # fmt: skip
FORMS = {
    "paper": DPIGConfig.paper(**TINY, background_code=5),
    "small": DPIGConfig.small(**TINY, background_code=5),
    "whole": DPIGConfig.small(**TINY, background_code=5, foreground="whole"),
    "tiled": DPIGConfig.small(**TINY, background_code=0, placement="tiled"),
}


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Networks as small as these only wait for a second one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def people(count: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(count, 3, 128, 64, generator=generator)
    moved = STANDING + torch.randn(count, 18, 2, generator=generator)
    return images, moved, torch.ones(count, 18, dtype=torch.bool)


def model(form: str) -> DPIG:
    """A model that says it is trained."""
    torch.manual_seed(0)
    made = DPIG(FORMS[form]).eval()
    made.trained = frozenset(TRAINABLE)
    return made


def count(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def test_paper_has_the_published_number_of_parameters() -> None:
    """118.5 M, counted layer by layer: residual pairs of the decoder are as wide as features and
    skip connection together, and all encoders begin with the full-resolution pair's channels."""

    def conv(inputs: int, outputs: int, kernel: int = 3) -> int:
        return (inputs * kernel**2 + 1) * outputs

    widths = (128, 256, 384, 512, 640)
    levels = sum(2 * conv(c, c) for c in widths) + sum(conv(*two) for two in pairwise(widths))
    stem = conv(3, 128) + 2 * conv(128, 128)
    part, background = conv(3 * 3 * 640, 32, 1), conv(8 * 4 * 640, 128, 1)
    joined = (128 + 640, 2 * 512, 2 * 384, 2 * 256, 2 * 128)
    decoder = (
        conv(7 * 32 + 128 + 18, 128)
        + levels
        + conv(8 * 4 * 640, 64, 1)
        + conv(64, 8 * 4 * 128, 1)
        + sum(2 * conv(c, c) for c in joined)
        + sum(conv(c, after, 1) for c, after in zip(joined, widths[-2::-1], strict=False))
        + conv(256, 3)
    )
    with torch.device("meta"):
        made = DPIG(DPIGConfig.paper())
    assert count(made.encoder) == stem + 2 * levels + part + background
    assert count(made.decoder) == decoder
    assert count(made.encoder, made.decoder) == 118_549_859


def test_recipes_of_the_paper_are_those_of_the_authors_scripts() -> None:
    for size, batches in (((128, 64), (16, 64, 32)), ((256, 256), (6, 16, 16))):
        config = DPIGConfig.paper(size)
        recipes = (config.stage1, config.pose, config.stage2)
        assert tuple(recipe.batch for recipe in recipes) == batches
        assert [recipe.optimizer for recipe in recipes] == ["adam", "adam", "rmsprop"]
        for recipe in recipes:
            assert recipe.learning_rate == recipe.critic_learning_rate == 2e-5
            assert recipe.halving_steps == 50_000


def test_networks_of_vectors_of_the_paper() -> None:
    """LeakyReLU of 0.2, and critics of four plain layers before the last."""
    config = DPIGConfig.paper()
    with torch.device("meta"):
        critic, mapper = Critic(config, "background"), Mapper(config, "foreground")
    widths = [m.out_features for m in critic.modules() if isinstance(m, nn.Linear)]
    assert widths == [512, 512, 512, 512, 1]
    for network in (critic, mapper):
        kinds = {type(m) for m in network.modules() if not list(m.children())}
        assert kinds == {nn.Linear, nn.LeakyReLU}
    assert count(mapper) == 225 * 512 + 8 * 513 * 512 + 513 * 224


def test_a_file_from_before_has_the_networks_that_it_had() -> None:
    config = DPIGConfig.small()
    values = asdict(config)
    for name in ("decoder_levels", "mask_crops", "critic_layers", "dense_slope"):
        del values[name]
    assert DPIGConfig.from_dict(values) == config


def test_larger_images_go_through_in_smaller_parts() -> None:
    assert DPIGConfig.small().images_at_once == 64
    assert DPIGConfig.paper((256, 256)).images_at_once == 8


def test_small_is_small() -> None:
    """A file of less than 8 MB at two bytes a number."""
    with torch.device("meta"):
        made = DPIG(DPIGConfig.small())
    assert count(made) < 3_700_000
    assert sum(tensor.numel() for tensor in made.state_dict().values()) < 4_000_000


@pytest.mark.parametrize("size", [(128, 64), (256, 256)])
def test_shapes_of_the_paper(size: tuple[int, int]) -> None:
    """A whole pass on the meta device, which computes nothing."""
    config = DPIGConfig.paper(size)
    height, width = size
    with torch.device("meta"):
        made, discriminator = DPIG(config), Discriminator(config)
        pose = pose_inputs(torch.zeros(2, 18, 2), torch.ones(2, 18, dtype=torch.bool), config)
        rebuilt = rebuild(made, torch.zeros(2, 3, *size), pose)
        logits = discriminator(rebuilt.images)
    assert pose.maps.shape == (2, 18, *size)
    assert pose.mask.shape == (2, 1, *size)
    assert pose.boxes.shape == (2, 7, 4)
    assert rebuilt.images.shape == (2, 3, *size)
    assert logits.shape == (2,)
    codes = [list(code.shape) for code in rebuilt.codes]
    market = size == (128, 64)
    assert codes == ([[2, 224], [2, 128]] if market else [[2, 224]])
    assert config.factors == (FACTORS if market else ("foreground", "pose"))
    assert made.encoder.foreground.linear.in_features == (3 * 3 * 640 if market else 896)
    assert made.decoder.coarse == ((8, 4) if market else (16, 16))  # five levels
    assert height * width == pose.mask[0].numel()


def test_pose_inputs_are_the_authors_on_real_people(data_dir: Path) -> None:
    golden = np.load(data_dir / "body/dpig_golden/market_golden.npz")
    keypoints = torch.from_numpy(golden["xy"]).float()
    visible = (keypoints >= 0).all(-1)
    assert not visible.all()
    keypoints[~visible] = torch.nan
    y1, x1, y2, x2 = torch.from_numpy(golden["part_bbox37"])[:, :7].float().unbind(-1)

    def arrays(name: str) -> Tensor:
        return torch.from_numpy(np.unpackbits(golden[name], axis=-1)).float()

    for radius in (4, 7):
        pose = pose_inputs(keypoints, visible, DPIGConfig.paper(mask_radius=radius))
        expected = arrays(f"pose_mask_r{radius}").reshape(pose.mask.shape)
        assert torch.equal(pose.mask, expected)
    assert torch.equal(pose.maps, 2 * arrays("pose_disks_r4").reshape(pose.maps.shape) - 1)
    assert torch.equal(pose.boxes, torch.stack([x1, y1, x2, y2], -1))
    assert torch.equal(pose.present, torch.from_numpy(golden["part_vis37"])[:, :7] != 0)


@pytest.mark.parametrize("form", FORMS)
def test_codes_and_images(form: str) -> None:
    made = model(form).requires_grad_(False)
    images, keypoints, visible = people(3)
    codes = made.encode(images, keypoints, visible)
    assert codes.foreground.shape == (3, made.code_size("foreground")) == (3, 21)
    assert (codes.background is None) == (form == "tiled")
    assert codes.pose.shape == (3, 32)
    torch.testing.assert_close(codes.pose, made.encode_pose(keypoints, visible))
    decoded = made.decode(codes.foreground, codes.background, keypoints, visible)
    assert decoded.shape == images.shape
    assert float(decoded.min()) >= 0
    assert float(decoded.max()) <= 1
    rebuilt = rebuild(made, images, pose_inputs(keypoints, visible, made.config))
    torch.testing.assert_close(decoded, ((rebuilt.images + 1) / 2).clamp(0, 1))
    # Each factor changes the image.
    others = made.decode(codes.foreground + 1, codes.background, keypoints, visible)
    assert not torch.equal(others, decoded)
    moved = made.decode(codes.foreground, codes.background, keypoints + 3, visible)
    assert not torch.equal(moved, decoded)
    if codes.background is not None:
        elsewhere = made.decode(codes.foreground, codes.background + 1, keypoints, visible)
        assert not torch.equal(elsewhere, decoded)


@pytest.mark.parametrize("form", ["paper", "small", "whole"])
def test_foreground_and_background_see_no_pixel_of_each_other(form: str) -> None:
    """But for the few pixels that the convolutions before the split reach across its border."""
    made = model(form)
    images, keypoints, visible = people(1)
    mask = pose_inputs(keypoints, visible, made.config).mask
    inside, outside = (1 - F.max_pool2d(1 - m, 9, 1, 4) for m in (mask, 1 - mask))
    assert float(inside.sum()) > 100

    def codes(given: Tensor) -> tuple[Tensor, Tensor]:
        foreground, background = made.encode_images(given, keypoints, visible)
        assert background is not None
        return foreground, background

    foreground, background = codes(images)
    of_body, of_place = codes(images.where(inside == 0, 1 - images))
    assert torch.equal(of_place, background)
    assert not torch.allclose(of_body, foreground)
    of_body, of_place = codes(images.where(outside == 0, 1 - images))
    assert torch.equal(of_body, foreground)
    assert not torch.allclose(of_place, background)


def test_crops_that_are_not_masked_see_what_is_beside_the_body() -> None:
    images, keypoints, visible = people(1)
    config = replace(FORMS["paper"], mask_crops=False)
    torch.manual_seed(0)
    made = DPIG(config).eval()
    made.trained = frozenset(TRAINABLE)
    outside = 1 - F.max_pool2d(pose_inputs(keypoints, visible, config).mask, 9, 1, 4)
    beside = images.where(outside == 0, 1 - images)
    one, two = (made.encode_images(given, keypoints, visible)[0] for given in (images, beside))
    assert not torch.allclose(one, two)


@pytest.mark.parametrize("form", ["paper", "small"])
def test_absent_part_has_code_zero_and_no_influence(form: str) -> None:
    made = model(form)
    images, keypoints, visible = people(2)
    left_arm = DPIG_PARTS[3]
    visible[0, list(left_arm)] = False
    wild = keypoints.clone()
    wild[0, list(left_arm)] = torch.nan
    codes = made.encode(images, wild, visible)
    parts = codes.foreground.unflatten(1, (7, -1))
    assert not parts[0, 3].any()
    assert (parts.abs().sum(2) > 0).sum() == 13
    decoded = made.decode(codes.foreground, codes.background, wild, visible)
    elsewhere = made.encode(images, keypoints + 5 * ~visible[..., None], visible)
    for one, other in zip(codes, elsewhere, strict=True):
        torch.testing.assert_close(one, other)
    # Another image in the corner that the absent part's box lies in changes the background alone.
    images[0, :, :4, :4] = 0
    corner = made.encode(images, wild, visible)
    torch.testing.assert_close(corner.foreground, codes.foreground)
    assert bool(decoded.isfinite().all())


def test_whole_body_is_the_box_around_the_parts() -> None:
    """Without its features the code of the whole is one number a linear layer adds, and nobody's
    code is 0."""
    made = model("whole")
    images, keypoints, visible = people(2)
    visible[0] = False
    foreground, _ = made.encode_images(images, keypoints, visible)
    assert not foreground[0].any()
    assert foreground[1].all()


def test_placed_codes_follow_the_limbs() -> None:
    placed = model("small").requires_grad_(False).decoder.placed
    assert placed is not None
    nn.init.constant_(placed.linear.weight, 1 / 21)  # all limbs say 1: what is seen is their share
    nn.init.zeros_(placed.linear.bias)
    codes = torch.ones(1, 21)
    one = STANDING[None]
    visible = torch.ones(1, 18, dtype=torch.bool)
    config = FORMS["small"]
    here, there = (placed(codes, pose_inputs(k, visible, config)) for k in (one, one + 4))
    torch.testing.assert_close(here[..., :-2, :-2], there[..., 2:, 2:], rtol=1e-4, atol=1e-5)
    assert float(here.max()) < 1
    wrist, corner = (0, 0, 29, 9), (0, 0, 0, 0)  # the right wrist is at pixel (18, 58)
    assert float(here[wrist]) > 0.7
    assert float(here[corner]) < 1e-3
    visible[0, [2, 3, 4, 8]] = False  # the arm, and the hip beside it
    without = placed(codes, pose_inputs(one, visible, config))
    assert float(without[wrist]) < 0.1


def test_pose_autoencoder() -> None:
    made = model("small").requires_grad_(False)
    _, keypoints, visible = people(4)
    visible[0, 5] = False
    config = made.config
    there = normalized_coordinates(keypoints, visible, config)
    torch.testing.assert_close(there[1, 0, 0], 2 * keypoints[1, 0, 0] / 63 - 1)
    torch.testing.assert_close(there[1, 0, 1], 2 * keypoints[1, 0, 1] / 127 - 1)
    assert not there[0, 5].any()
    torch.testing.assert_close(coordinates_px(there, config)[visible], keypoints[visible])
    decoded, shown = made.decode_pose(3 * torch.randn(50, 32))
    assert shown.dtype == torch.bool
    assert 0 < int(shown.sum()) < shown.numel()
    assert float(decoded.min()) >= 0
    assert float((decoded - torch.tensor([63.0, 127.0])).max()) <= 0


def test_a_poses_code_needs_no_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would take 14 GB for 1,000 poses of 256x256 pixels."""
    made, (_, keypoints, visible) = model("small"), people(3)
    monkeypatch.setattr(sys.modules["dgpose.models.dpig.pose_inputs"], "disk_heatmap", None)
    assert made.encode_pose(keypoints, visible).shape == (3, made.code_size("pose"))
    with pytest.raises(ValueError, match="keypoints_px must be finite where visible"):
        made.encode_pose(torch.full_like(keypoints, math.nan), visible)


def test_rounding_passes_the_gradient() -> None:
    values = torch.tensor([0.1, 0.49, 0.51, 0.9], requires_grad=True)
    rounded = straight_through_round(values)
    assert rounded.tolist() == [0, 0, 1, 1]
    (rounded * torch.tensor([1.0, 2.0, 3.0, 4.0])).sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [1, 2, 3, 4]


def test_mapped_noise() -> None:
    made = model("small")
    for factor in FACTORS:
        size = made.code_size(factor)
        generator = torch.Generator().manual_seed(1)
        noise = made.sample_noise(factor, 2000, generator)
        assert noise.shape == (2000, size)
        assert float(noise.std()) == pytest.approx(0.2, rel=0.05)
        again = made.sample(factor, 2000, torch.Generator().manual_seed(1))
        torch.testing.assert_close(again, made.map_noise(factor, noise))


def test_fitted_mapper_starts_from_the_gaussian_of_the_codes() -> None:
    made = model("small")
    mapper, critic = made.mappers["background"], Critic(made.config, "background")
    assert isinstance(mapper, Mapper)
    codes = torch.randn(4000, 5) @ torch.randn(5, 5) + torch.arange(5.0)
    for network in (mapper, critic):
        network.fit(codes)
    mapped = made.sample("background", 4000).detach()
    torch.testing.assert_close(mapped.mean(0), codes.mean(0), rtol=0, atol=0.2)
    torch.testing.assert_close(mapped.T.cov(), codes.T.cov(), rtol=0.15, atol=0.2)
    seen = critic.seen(codes)
    torch.testing.assert_close(seen.T.cov(), torch.eye(5), rtol=0, atol=0.01)
    assert mapper.fitted is not None
    torch.testing.assert_close(mapper.fitted.colored(seen), codes, rtol=1e-4, atol=1e-4)
    # What the network says is a step in the whitened space.
    nn.init.constant_(list(mapper.parameters())[-1], 1.0)
    moved = made.map_noise("background", torch.zeros(1, 5))
    torch.testing.assert_close(critic.seen(moved), torch.ones(1, 5), rtol=0, atol=1e-4)
    # A plain one has nothing to fit.
    plain = Critic(FORMS["paper"], "background")
    plain.fit(codes)
    assert torch.equal(plain.seen(codes), codes)


def _given(form: str) -> tuple[DPIG, Discriminator, Rebuilt, PoseInputs, Tensor]:
    made, discriminator = model(form), Discriminator(FORMS[form]).eval()
    images, keypoints, visible = people(3)
    pose = pose_inputs(keypoints, visible, made.config)
    return made, discriminator, rebuild(made, images, pose), pose, images


@pytest.mark.parametrize("form", ["paper", "small"])
def test_losses_of_stage1(form: str) -> None:
    made, discriminator, rebuilt, pose, images = _given(form)
    config = made.config
    torch.testing.assert_close(rebuilt.truth, 2 * images - 1)
    terms = generator_losses(config, discriminator, rebuilt)
    apart = (rebuilt.images - (2 * images - 1)).abs().detach()
    if form == "small":  # the body counts for more
        apart = apart * (1 + config.body_weight * pose.mask)
    assert float(terms["l1"].detach()) == pytest.approx(20 * float(apart.mean()))
    with torch.no_grad():
        true, false = discriminator(rebuilt.truth), discriminator(rebuilt.images)
        fooled = sum(terms.values()) - terms["l1"]
        loss = discriminator_loss(config, discriminator, rebuilt)
    if form == "paper":
        assert float(fooled) == pytest.approx(float(-false.sigmoid().log().mean()), rel=1e-5)
        expected = -true.sigmoid().log().mean() - (1 - false.sigmoid()).log().mean()
    else:
        weight = config.adversarial_weight
        assert float(fooled) == pytest.approx(float(-weight * false.mean()), rel=1e-4, abs=1e-6)
        expected = (1 - true).clamp(min=0).mean() + (1 + false).clamp(min=0).mean()
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    assert set(generator_losses(config, None, rebuilt)) <= {"l1", "codes"}


def test_noise_on_codes_and_their_weight() -> None:
    made, _, _, pose, images = _given("small")
    config = made.config
    made.config = replace(config, code_noise=0.5, code_weight=0.1)
    noisy, again, other = (
        rebuild(made, images, pose, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(noisy.images, again.images)
    assert not torch.equal(noisy.images, other.images)
    assert torch.equal(noisy.codes[0], other.codes[0])
    terms = generator_losses(made.config, None, noisy)
    squares = sum(float(code.detach().square().mean()) for code in noisy.codes)
    assert float(terms["codes"].detach()) == pytest.approx(0.1 * squares)


def test_loss_of_the_pose_autoencoder() -> None:
    made = model("paper")
    _, keypoints, visible = people(2)
    visible[1, 3] = False
    given = normalized_coordinates(keypoints, visible, made.config)
    with torch.no_grad():
        terms = pose_losses(made, keypoints, visible)
        coordinates, visibility = made.pose_decoder(made.pose_encoder(given, visible))
    squares = (coordinates - given)[visible].square().sum()
    assert float(terms["coordinates"]) == pytest.approx(float(20 * squares / (2 * 54)), rel=1e-5)
    wrong = float((visibility != visible).sum())
    assert float(terms["visibility"]) == pytest.approx(20 * wrong / (2 * 54), rel=1e-5)


def test_losses_of_stage2() -> None:
    config = FORMS["paper"]
    torch.manual_seed(0)
    critic = Critic(config, "background")
    codes, mapped = torch.randn(6, 5), torch.randn(6, 5, requires_grad=True)
    apart = float((critic(mapped).mean() - critic(codes).mean()).detach())
    assert float(critic_loss(config, critic, codes, mapped).detach()) == pytest.approx(apart)
    assert float(mapper_loss(critic, mapped).detach()) == pytest.approx(
        -float(critic(mapped).mean().detach())
    )
    penal = replace(config, gradient_penalty=10.0)
    generator = torch.Generator().manual_seed(3)
    loss = critic_loss(penal, critic, codes, mapped, generator)
    shares = torch.rand(6, 1, generator=torch.Generator().manual_seed(3))
    between = (codes + shares * (mapped.detach() - codes)).requires_grad_()
    slope = torch.autograd.functional.jacobian(lambda x: critic(x).sum(), between)
    penalty = 10 * ((slope.norm(dim=1) - 1) ** 2).mean()
    assert float(loss.detach()) == pytest.approx(apart + float(penalty), rel=1e-5)
    loss.backward()
    assert mapped.grad is None
    clip_weights(critic, 0.01)
    largest = max(float(p.detach().abs().max()) for p in critic.parameters())
    assert largest == pytest.approx(0.01)


def _reached(module: nn.Module) -> bool:
    return any(p.grad is not None and bool(p.grad.any()) for p in module.parameters())


@pytest.mark.parametrize("form", FORMS)
def test_whom_gradients_reach(form: str) -> None:
    made, discriminator, rebuilt, pose, _ = _given(form)
    made.train()
    discriminator_loss(made.config, discriminator, rebuilt).backward()
    assert _reached(discriminator.last)
    assert not any(_reached(module) for module in made.children())
    discriminator.zero_grad()
    torch.stack([*generator_losses(made.config, discriminator, rebuilt).values()]).sum().backward()
    for module in (made.encoder.stem, made.encoder.foreground.linear, made.decoder.last):
        assert _reached(module)
    if made.encoder.background is not None:
        assert _reached(made.encoder.background.linear)
    others = (made.pose_encoder, made.pose_decoder, made.mappers)
    assert not any(_reached(module) for module in others)
    made.zero_grad()
    torch.stack([*pose_losses(made, pose.keypoints_px, pose.visible).values()]).sum().backward()
    assert _reached(made.pose_decoder.layers[-1])
    assert _reached(made.pose_encoder.layers[-1])
    assert not _reached(made.decoder.last)


def test_weight_file(tmp_path: Path) -> None:
    made = model("small")
    made.trained = frozenset({"stage1"})
    path = tmp_path / "dpig.safetensors"
    save_dpig(made, path, {"steps": 3})
    read = load_dpig(path)
    assert read.config == made.config
    assert read.trained == {"stage1"}
    assert read.training_facts["steps"] == 3
    images, keypoints, visible = people(2)
    for one, other in zip(
        made.encode_images(images, keypoints, visible),
        read.encode_images(images, keypoints, visible),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    save_dpig(made, tmp_path / "half.safetensors", dtype=torch.float16)
    half = load_dpig(tmp_path / "half.safetensors")
    assert half.trained == {"stage1"}
    assert half.config.from_dict(asdict(made.config)) == made.config


def test_wrong_and_damaged_weight_files(tmp_path: Path) -> None:
    hand = tmp_path / "hand.safetensors"
    save_weights(HandRegressor(), hand)
    with pytest.raises(ValueError, match="dpig"):
        load_dpig(hand)
    path = tmp_path / "dpig.safetensors"
    save_dpig(model("small"), path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    with pytest.raises(ValueError, match=r"dpig\.safetensors"):
        load_dpig(path)
    path.write_bytes(whole[:-7] + bytes([whole[-7] ^ 1]) + whole[-6:])
    with pytest.raises(ValueError, match=r"dpig\.safetensors"):
        load_dpig(path)
    with pytest.raises(FileNotFoundError):
        load_dpig(tmp_path / "nothing.safetensors")
    made = model("small")
    for strange in (["face"], [["stage1"]], "stage1"):
        write_model(
            made, path, kind="dpig", config=asdict(made.config), training={"trained": strange}
        )
        with pytest.raises(ValueError, match="what is trained must be among"):
            load_dpig(path)
    made = model("small")
    made.trained = frozenset({"everything"})  # type: ignore[arg-type]
    save_dpig(made, path)
    with pytest.raises(ValueError, match="what is trained must be among"):
        load_dpig(path)


def test_untrained_parts_are_refused() -> None:
    made = model("small")
    images, keypoints, visible = people(1)
    codes = made.encode(images, keypoints, visible)
    made.trained = frozenset({"stage1", "foreground_mapper"})
    made.encode_images(images, keypoints, visible)
    made.sample("foreground", 1)
    for call in (
        lambda: made.encode(images, keypoints, visible),
        lambda: made.encode_pose(keypoints, visible),
        lambda: made.decode_pose(codes.pose),
    ):
        with pytest.raises(ValueError, match=r"pose autoencoder .*dgpose train dpig-pose.* stage1"):
            call()
    with pytest.raises(ValueError, match=r"background mapper .*dgpose train dpig-stage2"):
        made.sample("background", 1)
    made.trained = frozenset()
    with pytest.raises(ValueError, match=r"stage1 .*dgpose train dpig-stage1.*nothing trained"):
        made.decode(codes.foreground, codes.background, keypoints, visible)


def test_wrong_inputs_are_refused() -> None:
    made = model("small")
    images, keypoints, visible = people(2)
    foreground, background = made.encode_images(images, keypoints, visible)
    nan = torch.full_like
    cases = [
        (r"images must have shape \[B >= 1, 3, 128, 64\]", (images[..., :32], keypoints, visible)),
        (r"images must have shape \[B >= 1, 3, ", (images[:0], keypoints[:0], visible[:0])),
        ("images must be finite", (nan(images, math.nan), keypoints, visible)),
        (r"images must lie in \[0, 1\], got .* to 255", (nan(images, 255), keypoints, visible)),
        (r"images must lie in \[0, 1\], got .*-1 to", (nan(images, -1), keypoints, visible)),
        ("keypoints_px must be finite where visible", (images, nan(keypoints, math.inf), visible)),
        (r"keypoints_px must have shape \[B, 18, 2\]", (images, keypoints[:, :14], visible)),
        (r"visible must be bool of shape \[2, 18\]", (images, keypoints, visible.float())),
        ("keypoints_px must have B = 2 as images", (images, keypoints[:1], visible[:1])),
    ]
    for message, given in cases:
        with pytest.raises(ValueError, match=message):
            made.encode(*given)
    with pytest.raises(TypeError, match="images must be of floating point"):
        made.encode((255 * images).to(torch.uint8), keypoints, visible)
    assert torch.equal(made.encode_images(images.double(), keypoints, visible)[0], foreground)
    with pytest.raises(ValueError, match=r"the foreground's code must have shape \[B, 21\]"):
        made.decode(foreground[:, 1:], background, keypoints, visible)
    with pytest.raises(ValueError, match="background must be a code where the model has one"):
        made.decode(foreground, None, keypoints, visible)
    with pytest.raises(ValueError, match="the background's code must be finite"):
        made.decode(foreground, nan(foreground[:, :5], math.nan), keypoints, visible)
    with pytest.raises(ValueError, match=r"noise must have shape \[B, 5\]"):
        made.map_noise("background", torch.zeros(1, 6))
    with pytest.raises(ValueError, match="factor must be one of foreground, background, pose"):
        made.map_noise("face", torch.zeros(1, 6))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no code for the background"):
        model("tiled").sample("background", 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": (64, 64)}, r"size must be \(128, 64\) or \(256, 256\)"),
        ({"fold": 3}, "fold must be 1 or 2"),
        ({"channels": (8,)}, "channels must have 2 to 7 numbers"),
        ({"channels": (8,) * 7, "fold": 2, "crop": 64}, "size must be a multiple of fold"),
        ({"part_code": 0}, "part_code must be at least 1"),
        ({"crop": 40}, "crop must be a multiple of"),
        ({"placement": "thrown"}, "placement must be one of tiled, placed"),
        ({"noise_std": 0.0}, "noise_std must be positive"),
        ({"code_noise": -1.0}, "code_noise must not be negative"),
        ({"discriminator_channels": ()}, "discriminator_channels must have"),
        ({"decoder_levels": 6}, r"decoder_levels must lie in \[2, 5\], got 6"),
    ],
)
def test_wrong_configurations(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DPIGConfig(**changes)


def test_wrong_recipes() -> None:
    with pytest.raises(ValueError, match="batch must be at least 2"):
        DPIGRecipe(batch=1)
    with pytest.raises(ValueError, match="halving_steps must be at least 1"):
        DPIGRecipe(halving_steps=0)
    with pytest.raises(ValueError, match="optimizer must be one of adam, rmsprop"):
        DPIGRecipe(optimizer="sgd")  # type: ignore[arg-type]
