"""The published inference path of Crossing Nets: its size, its output, and HandNet's copy of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dgpose.models.crossing_nets import (
    CrossingNets,
    CrossingNetsConfig,
    CrossingNetsPath,
    JointWeights,
    load_crossing_nets,
    losses,
    save_crossing_nets,
    stages,
)
from dgpose_ext import _loader
from dgpose_ext.hand_net import HandNet


@pytest.fixture
def path() -> CrossingNetsPath:
    torch.manual_seed(0)
    path = CrossingNetsPath()
    with torch.no_grad():
        for norm in path.modules():
            if isinstance(norm, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
                norm.weight.uniform_(0.5, 1.5)
                norm.bias.normal_(std=0.3)
                norm.running_mean.normal_(std=0.3)
                norm.running_var.uniform_(0.5, 2)
    return path.eval()


def test_has_the_published_size(path: CrossingNetsPath) -> None:
    assert sum(parameter.numel() for parameter in path.parameters()) == 166_570
    with FlopCounterMode(display=False) as counter:
        path(torch.zeros(1, 1, 128, 128))
    # Convolutions, fc 512 -> 23, fc 23 -> 23, decoder 20 -> 40 -> 108: 54.9 million.
    expected = 54_853_632 + 512 * 23 + 23 * 23 + 20 * 40 + 40 * 108
    assert counter.get_total_flops() == 2 * expected == 2 * 54_871_057


def test_origin_moves_all_joints(path: CrossingNetsPath) -> None:
    latent = torch.randn(2, 23)
    moved = latent.clone()
    moved[:, 20:] += torch.tensor([1.0, -2.0, 3.0])
    with torch.no_grad():
        shift = path.decode(moved) - path.decode(latent)
    assert shift.shape == (2, 36, 3)
    torch.testing.assert_close(shift, torch.tensor([1.0, -2.0, 3.0]).expand(2, 36, 3))


@pytest.mark.skipif(_loader.core is None, reason=_loader.why_no_core() or "no core")
def test_hand_net_runs_it(path: CrossingNetsPath) -> None:
    crops = torch.rand(2, 1, 128, 128) * 2 - 1
    net = HandNet.from_module(path)
    with torch.no_grad():
        torch.testing.assert_close(net(crops), path(crops), atol=1e-4, rtol=0.0)
    assert net.output_shape == (36, 3)


# ---- the networks that are trained ----


@pytest.fixture
def small() -> CrossingNetsConfig:
    return CrossingNetsConfig(joints=6, origin_joint=2, image_size=32, channels=4, hidden=10)


def test_shapes_of_every_layer_as_published() -> None:
    nets = CrossingNets().eval()
    shapes: dict[str, list[int]] = {}

    def note(name: str) -> Callable[..., None]:
        return lambda module, inputs, output: shapes.__setitem__(name, list(output.shape[1:]))

    for name, module in nets.named_modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            module.register_forward_hook(note(name))
    joints = torch.zeros(2, 36, 3)
    nets.vae(nets.split(joints)[0])
    nets.discriminator(nets.depth_of(nets.latent_of(joints)))
    convolutions = [[32, 64, 64], [32, 32, 32], [32, 16, 16], [32, 8, 8], [32, 4, 4]]
    expected = {
        "vae.first": [40], "vae.mean": [20], "vae.log_variance": [20],
        "vae.decoder.0": [40], "vae.decoder.2": [108],
        "alignment.layers.0": [23],
        "generator.dense.0": [512],
        "generator.convolutions.12": [1, 128, 128],
        "discriminator.realness": [1],
        "discriminator.posterior.10": [23], "discriminator.posterior.13": [23],
        "discriminator.metric.10": [512], "discriminator.metric.12": [23],
    }  # fmt: skip
    for i, shape in enumerate(convolutions[3::-1]):
        expected[f"generator.convolutions.{3 * i}"] = shape
    for i, shape in enumerate(convolutions):
        for part in ("gan", "posterior", "metric"):
            part, place = ("shared", i) if i < 2 else (part, i - 2)
            expected[f"discriminator.{part}.{3 * place}"] = shape
    assert shapes == expected


def test_vae_starts_from_components(small: CrossingNetsConfig) -> None:
    """Ten components carry ten-dimensional poses whole."""
    generator = torch.Generator().manual_seed(0)
    poses = torch.randn(50, 10, generator=generator) @ torch.randn(10, 18, generator=generator) + 3
    vae = CrossingNets(small).vae
    vae.start_from_components(poses)
    torch.testing.assert_close(vae.decoder[2](vae.first(poses)), poses, atol=1e-3, rtol=1e-3)
    with pytest.raises(ValueError, match="poses must be at least 10, got 9"):
        vae.start_from_components(poses[:9])


def test_pose_and_latent_are_two_ways_to_say_it(small: CrossingNetsConfig) -> None:
    nets = CrossingNets(small)
    joints = torch.randn(3, 6, 3)
    latent = nets.latent_of(joints)
    torch.testing.assert_close(latent[:, 20:], joints[:, 2])
    mean = nets.vae.encode(nets.split(joints)[0])[0]
    torch.testing.assert_close(latent[:, :20], mean)
    decoded = nets.joints_of(latent)
    pose = nets.vae.decode(mean).view(3, 6, 3)
    torch.testing.assert_close(decoded, pose + joints[:, None, 2])


def test_vae_loss_by_hand() -> None:
    pose, decoded = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 4.0]])
    mean, log_variance = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    divergence = 0.5 * ((1 + 4 - 1 - 0) + (np.e + 0 - 1 - 1))
    expected = divergence + 0.5 * (1 + 4)
    assert float(losses.vae_loss(pose, decoded, mean, log_variance)) == pytest.approx(expected)


def test_losses_by_hand() -> None:
    depth, made = torch.tensor([[[[0.0, 1.0]]]]), torch.tensor([[[[0.5, -1.0]]]])
    assert float(losses.reconstruction_loss(depth, made)) == pytest.approx((0.25 + 1) / 2)
    assert float(losses.reconstruction_loss(depth, made, None)) == pytest.approx(4.25 / 2)
    a, b, c = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 4.0]]), torch.tensor([[3.0, 3.0]])
    assert float(losses.posterior_loss(a, b)) == pytest.approx(2.5)
    # z_l - z_r = (1, -2); m(x_l) - m(x_r') = (3 - 1, 3 - 2); m(x_l) - m(x_l') = (3 - 0, 3 - 4).
    expected = ((1 - 2) ** 2 + (-2 - 1) ** 2) / 2 + (9 + 1) / 2
    assert float(losses.smoothness_loss(a, b, c, a, b)) == pytest.approx(expected)
    logits = torch.tensor([0.0]), torch.tensor([np.log(3.0)]), torch.tensor([0.0])
    # -log 1/2; mean of -log(1 - 3/4) and -log(1 - 1/2).
    expected = np.log(2) + (np.log(4) + np.log(2)) / 2
    assert float(losses.adversarial_loss(*logits)) == pytest.approx(expected)
    real, fake = torch.tensor([[0.0], [2.0]]), torch.tensor([[4.0], [0.0]])
    assert float(losses.feature_matching_loss(real, fake)) == pytest.approx(1.0)
    mixed = losses.mixtures(
        torch.tensor([[0.0], [10.0]]), torch.tensor([[3.0, 1.0]]), torch.tensor([[0, 1]])
    )
    assert float(mixed) == pytest.approx(2.5)


@pytest.mark.parametrize("labels_only", [True, False])
def test_joint_step_teaches_whom_it_should(small: CrossingNetsConfig, labels_only: bool) -> None:
    torch.manual_seed(0)
    nets = CrossingNets(small)
    depth, joints = torch.randn(8, 1, 32, 32), torch.randn(8, 6, 3)
    mixture = stages.LatentMixture.draw(8, torch.Generator().manual_seed(0))
    more = None if labels_only else torch.randn(4, 1, 32, 32)
    game = stages.joint_losses(nets, depth, joints, mixture, more)
    terms = {name: float(value) for name, value in game.terms.items()}
    assert float(game.generator.detach()) == pytest.approx(
        terms["reconstruction"] + terms["smoothness"] + terms["feature_matching"], rel=1e-5
    )
    assert float(game.discriminator.detach()) == pytest.approx(
        terms["posterior"] + terms["smoothness"] + terms["adversarial"], rel=1e-5
    )
    makers, judges = list(stages.generator_side(nets)), list(stages.discriminator_side(nets))
    game.backward(makers, judges)
    taught = {name for name, p in nets.named_parameters() if p.grad is not None}
    assert taught == {name for name, _ in nets.named_parameters() if not name.startswith("vae.")}
    # Each side has its own loss's gradient: the judge's posterior none of the generator's.
    again = stages.joint_losses(nets, depth, joints, mixture, more)
    expected = torch.autograd.grad(again.discriminator, judges)
    for parameter, gradient in zip(judges, expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_unlabelled_frames_move_the_game_alone(small: CrossingNetsConfig) -> None:
    """Without labels there is no latent: posterior and smoothness must not see those frames but
    through batch statistics, which eval mode leaves out."""
    torch.manual_seed(0)
    nets = CrossingNets(small).eval()
    depth, joints = torch.randn(8, 1, 32, 32), torch.randn(8, 6, 3)
    mixture = stages.LatentMixture.draw(8, torch.Generator().manual_seed(0))
    with_more = stages.joint_losses(nets, depth, joints, mixture, torch.randn(4, 1, 32, 32))
    without = stages.joint_losses(nets, depth, joints, mixture)
    for name in ("reconstruction", "posterior", "smoothness"):
        torch.testing.assert_close(with_more.terms[name], without.terms[name])
    assert with_more.terms["adversarial"] != without.terms["adversarial"]


def test_losses_without_weight_are_not_computed(small: CrossingNetsConfig) -> None:
    torch.manual_seed(0)
    nets = CrossingNets(small)
    depth, joints = torch.randn(8, 1, 32, 32), torch.randn(8, 6, 3)
    mixture = stages.LatentMixture.draw(8, torch.Generator().manual_seed(0))
    nothing = JointWeights(0, 1, 0, 0, 0)
    game = stages.joint_losses(nets, depth, joints, mixture, weights=nothing)
    assert set(game.terms) == {"posterior"}
    game.backward(list(stages.generator_side(nets)), list(stages.discriminator_side(nets)))
    assert all(p.grad is None for p in stages.generator_side(nets))
    assert nets.discriminator.posterior[0].weight.grad is not None
    assert nets.discriminator.gan[0].weight.grad is None
    smooth = replace(nothing, smoothness=1.0, reconstruction=1.0)
    game = stages.joint_losses(
        nets, depth, joints, mixture, torch.randn(4, 1, 32, 32), weights=smooth
    )
    assert set(game.terms) == {"posterior", "reconstruction", "smoothness"}
    cycle = replace(nothing, cycle=1.0)
    game = stages.joint_losses(
        nets, depth, joints, mixture, torch.randn(4, 1, 32, 32), weights=cycle
    )
    assert set(game.terms) == {"posterior", "cycle"}


def test_direct_head_corrects_the_joints(small: CrossingNetsConfig) -> None:
    """It begins at nothing, is taught by the joints, and the inference path has it."""
    torch.manual_seed(0)
    nets = CrossingNets(replace(small, direct_head=True))
    depth, joints = torch.randn(8, 1, 32, 32), torch.randn(8, 6, 3)
    found = nets.posterior_of(depth)
    assert found.correction is not None
    assert found.correction.shape == (8, 6, 3)
    assert not found.correction.any()
    mixture = stages.LatentMixture.draw(8, torch.Generator().manual_seed(0))
    game = stages.joint_losses(nets, depth, joints, mixture)
    expected = (nets.joints_of(found.latent) - joints).square().mean()
    torch.testing.assert_close(game.terms["direct"], expected)
    game.backward(list(stages.generator_side(nets)), list(stages.discriminator_side(nets)))
    direct = nets.discriminator.direct
    assert direct is not None
    assert direct.weight.grad is not None
    assert direct.weight.grad.any()
    with torch.no_grad():
        direct.weight.normal_()
    nets.eval()
    with torch.no_grad():
        torch.testing.assert_close(CrossingNetsPath(nets)(depth), nets.estimate(depth))


def test_palm_frame_hides_rotation_from_the_pose(small: CrossingNetsConfig) -> None:
    """Turned hands have the same pose; the latent's last numbers say how they are turned."""
    torch.manual_seed(0)
    nets = CrossingNets(replace(small, palm_joints=(0, 3, 5))).double()
    joints = torch.randn(4, 6, 3, dtype=torch.float64)
    turn, _ = torch.linalg.qr(torch.randn(4, 3, 3, dtype=torch.float64))
    turn *= torch.linalg.det(turn)[:, None, None].sign()
    pose, place = nets.split(joints)
    turned_pose, turned_place = nets.split(joints @ turn)
    torch.testing.assert_close(turned_pose, pose)
    assert not torch.allclose(turned_place, place)
    latent = nets.latent_of(joints)
    assert latent.shape == (4, 29)
    decoded = nets.vae.decode(latent[:, :20]).view(4, 6, 3)
    axes = torch.stack(
        (place[:, 6:], place[:, 3:6], torch.linalg.cross(place[:, 6:], place[:, 3:6])), 1
    )
    torch.testing.assert_close(nets.joints_of(latent), decoded @ axes + joints[:, None, 2])
    torch.testing.assert_close((joints - joints[:, 2:3]), pose.view(4, 6, 3) @ axes)
    with pytest.raises(ValueError, match="palm_joints must be None for the inference path"):
        CrossingNetsPath(nets)
    with pytest.raises(ValueError, match="palm_joints must be three of the 6 joints"):
        replace(small, palm_joints=(0, 3, 6))


def test_weight_file_keeps_networks_and_configuration(
    small: CrossingNetsConfig, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    config = replace(small, direct_head=True, palm_joints=(0, 3, 5), clip_reconstruction=None)
    nets = CrossingNets(config).eval()
    path = tmp_path / "nets.safetensors"
    save_crossing_nets(nets, path, {"frames": 7}, dtype=torch.float32)
    again, facts = load_crossing_nets(path)
    assert facts == {"frames": 7}
    assert again.config == config
    assert not again.training
    depth = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(again.estimate(depth), nets.estimate(depth))
        assert torch.equal(
            again.depth_of(again.latent_of(torch.ones(1, 6, 3))),
            nets.depth_of(nets.latent_of(torch.ones(1, 6, 3))),
        )


def test_strong_leaves_the_game_out(small: CrossingNetsConfig) -> None:
    strong = CrossingNetsConfig.strong(joints=6, origin_joint=2, image_size=32)
    assert (strong.normalize, strong.direct_head, strong.clip_reconstruction) == (
        "cube",
        True,
        None,
    )
    torch.manual_seed(0)
    nets = CrossingNets(strong)
    depth, joints = torch.randn(8, 1, 32, 32), torch.randn(8, 6, 3)
    mixture = stages.LatentMixture.draw(8, torch.Generator().manual_seed(0))
    game = stages.joint_losses(nets, depth, joints, mixture)
    assert set(game.terms) == {"posterior", "direct", "reconstruction"}
    generated = nets.depth_of(nets.latent_of(joints))
    torch.testing.assert_close(game.terms["reconstruction"], (depth - generated).square().mean())
    assert CrossingNetsConfig.paper() == CrossingNetsConfig()


def test_config_refuses(small: CrossingNetsConfig) -> None:
    with pytest.raises(ValueError, match="image_size must be a multiple of 32, got 48"):
        replace(small, image_size=48)
    with pytest.raises(ValueError, match="origin_joint must be one of the 6 joints, got 6"):
        replace(small, origin_joint=6)
    with pytest.raises(ValueError, match="normalize must be one of nearest_pixel, cube, got 'box'"):
        replace(small, normalize="box")
    with pytest.raises(ValueError, match="alignment must be one of batch_norm, tanh, got 'none'"):
        replace(small, alignment="none")
    for wrong in ({"epochs": -1}, {"batch": 0}, {"schedule": "step"}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} must"):
            replace(small.joint, **wrong)


def test_generated_maps_leave_the_batch_statistics_alone(small: CrossingNetsConfig) -> None:
    """They are what the posterior of real maps is estimated with."""
    torch.manual_seed(0)
    nets, same = CrossingNets(small), CrossingNets(small)
    same.load_state_dict(nets.state_dict())
    depth, joints = torch.randn(8, 1, 32, 32), torch.randn(8, 6, 3)
    mixture = stages.LatentMixture.draw(8, torch.Generator().manual_seed(0))
    stages.joint_losses(nets, depth, joints, mixture)
    same.discriminator(depth)
    for (name, one), other in zip(
        nets.discriminator.named_buffers(), same.discriminator.buffers(), strict=True
    ):
        if "num_batches" not in name:
            torch.testing.assert_close(one, other, msg=name)
    assert all(m.momentum == 0.1 for m in nets.modules() if isinstance(m, nn.BatchNorm2d))
