"""The published inference path of Crossing Nets: its size, its output, and HandNet's copy of it."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from dgpose.models.crossing_nets import CrossingNetsPath
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
