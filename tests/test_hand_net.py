"""HandNet against the torch modules that it is compiled from."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dgpose_ext import _loader
from dgpose_ext.hand_net import AnchorRegression, HandNet
from dgpose_ext.hand_net.graph import import_module

pytestmark = pytest.mark.skipif(_loader.core is None, reason=_loader.why_no_core() or "no core")

ALGORITHMS = ("auto", "direct", "winograd2", "winograd4")


def check(
    module: nn.Module, shape: tuple[int, int, int], batch: int = 2, algorithm: str = "auto"
) -> HandNet:
    """The engine equals the module: 1e-4 of the largest output (1 at least)."""
    module = module.eval()
    net = HandNet(import_module(module, shape), algorithm=algorithm)
    crops = torch.randn(batch, *shape, generator=torch.Generator().manual_seed(batch))
    with torch.no_grad():
        expected = torch.cat([module(crop[None]) for crop in crops])
    actual = net(crops)
    assert actual.shape == expected.shape
    tolerance = 1e-4 * max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=0.0)
    return net


def randomise(module: nn.Module) -> nn.Module:
    """Batch norm with statistics that matter."""
    for layer in module.modules():
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.3)
            nn.init.normal_(layer.running_mean, std=0.3)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    return module


class Regressor(nn.Module):
    """Every kind of layer in one network of odd sizes."""

    def __init__(self, joints: int = 5) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(16, 17, 3, padding=1), nn.BatchNorm2d(17), nn.ReLU())
        self.down = nn.Conv2d(17, 33, 3, stride=2, padding=1)
        self.first = nn.Sequential(
            nn.Conv2d(33, 33, 3, padding=1, bias=False), nn.BatchNorm2d(33), nn.LeakyReLU(0.1)
        )
        self.second = nn.Sequential(nn.Conv2d(33, 33, 3, padding=1), nn.BatchNorm2d(33))
        self.skip = nn.Conv2d(17, 33, 1)
        self.head = nn.Conv2d(33, 4 * joints, 1)
        self.anchors = AnchorRegression(joints)

    def forward(self, crops: Tensor) -> Tensor:
        wide = self.stem(F.pixel_unshuffle(crops, 4))
        x = F.relu(self.down(wide))
        x = F.relu(x + self.second(self.first(x)))
        x = F.interpolate(F.max_pool2d(x, 2), scale_factor=4.0, mode="nearest") + self.skip(wide)
        result: Tensor = self.anchors(self.head(F.leaky_relu(x, 0.2)))
        return result


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("channels", [(1, 3), (3, 15), (15, 17), (16, 16), (17, 33), (33, 1), (48, 80)])
def test_channel_counts(channels: tuple[int, int], algorithm: str) -> None:
    check(nn.Conv2d(*channels, 3, padding=1), (channels[0], 9, 13), algorithm=algorithm)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (4, 4), (5, 7), (8, 8), (13, 31), (16, 17)])
@pytest.mark.parametrize("padding", [0, 1, 2])
def test_3x3_sizes(size: tuple[int, int], padding: int, algorithm: str) -> None:
    if min(size) + 2 * padding < 3:
        return
    check(nn.Conv2d(17, 16, 3, padding=padding), (17, *size), algorithm=algorithm)


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 1},
        {"kernel_size": 1, "stride": 2},
        {"kernel_size": 3, "stride": 2, "padding": 1},
        {"kernel_size": 3, "dilation": 2, "padding": 2},
        {"kernel_size": 5, "padding": 2, "bias": False},
        {"kernel_size": 6, "stride": 2, "padding": 2},
        {"kernel_size": (3, 1), "padding": (1, 0)},
        {"kernel_size": (2, 5), "stride": (1, 3), "padding": (0, 2)},
        {"kernel_size": 3, "padding": "same"},
        {"kernel_size": 3, "padding": "valid"},
    ],
)
@pytest.mark.parametrize("channels", [(1, 32), (17, 20)])
def test_convolutions(options: dict, channels: tuple[int, int]) -> None:
    check(nn.Conv2d(*channels, **options), (channels[0], 19, 23))


@pytest.mark.parametrize("batch", [1, 2, 3, 4, 5])
def test_whole_regressor(batch: int) -> None:
    torch.manual_seed(0)
    net = check(randomise(Regressor()), (1, 48, 32), batch)
    assert net.output_shape == (5, 3)
    # Everything fused: input, 6 convolutions with batch norm, activations and one residual addition,
    # pooling, one sum that also enlarges, anchors.
    assert len(net.graph.layers) == 10


@pytest.mark.parametrize(
    "layers",
    [
        [nn.MaxPool2d(2)],
        [nn.MaxPool2d(3, stride=2, padding=1)],
        [nn.MaxPool2d(3, stride=2, ceil_mode=True)],
        [nn.AvgPool2d(2)],
        [nn.AvgPool2d(3, stride=2, padding=1)],
        [nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False)],
        [nn.AdaptiveAvgPool2d((3, 2))],
        [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(18, 6), nn.Unflatten(1, (2, 3))],
        [nn.Upsample(scale_factor=2)],
        [nn.Upsample(scale_factor=3), nn.ReLU()],
        [nn.ReLU()],
        [nn.LeakyReLU(0.3), nn.Conv2d(18, 5, 3)],
        [nn.Flatten(), nn.Linear(18 * 77, 40), nn.BatchNorm1d(40), nn.ReLU(), nn.Linear(40, 9)],
        [nn.Dropout(0.5), nn.Conv2d(18, 7, 1), nn.Identity()],
        [nn.Conv2d(18, 8, 1), nn.ReLU(inplace=True), nn.LeakyReLU(0.2, inplace=True)],
    ],
    ids=lambda layers: "-".join(type(layer).__name__ for layer in layers),
)
@pytest.mark.parametrize("after_conv", [False, True])
def test_other_layers(layers: list[nn.Module], after_conv: bool) -> None:
    first = [nn.Conv2d(18, 18, 3, padding=1)] if after_conv else []
    check(randomise(nn.Sequential(*first, *layers)), (18, 11, 7))


class Fork(nn.Module):
    """Maps with several readers, where fusing would be wrong."""

    def __init__(self, variant: str) -> None:
        super().__init__()
        self.variant = variant
        self.a = nn.Conv2d(3, 16, 3, padding=1)
        self.b = nn.Conv2d(16, 16, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        if self.variant == "activation beside its input":
            return F.relu(x) + x
        if self.variant == "activation of a view":
            return (F.relu(x.flatten(1)) + x.flatten(1)).unflatten(1, (16, 8, 8))
        if self.variant == "in place":
            y = F.relu_(x)
            return self.b(x) + y
        if self.variant == "in place after a reader":
            before = self.b(x)
            F.relu_(x)
            return before + x
        if self.variant == "twice the same":
            return x + x
        if self.variant == "residual of a later map":
            return self.b(x) + self.b(self.b(x))
        if self.variant == "two residuals":
            y = self.b(x)
            return F.relu(self.b(y) + y + x)
        if self.variant == "activated before the sum":
            return x + F.relu(self.b(x))
        up = F.interpolate(x, scale_factor=2.0)
        return up + F.interpolate(F.leaky_relu(x, 0.1), scale_factor=2.0)


@pytest.mark.parametrize(
    "variant",
    [
        "activation beside its input",
        "activation of a view",
        "in place",
        "in place after a reader",
        "twice the same",
        "residual of a later map",
        "two residuals",
        "activated before the sum",
        "two enlarged maps",
    ],
)
def test_fusing_keeps_the_meaning(variant: str) -> None:
    check(Fork(variant), (3, 8, 8))


@pytest.mark.parametrize("joints", [1, 4, 16, 36])
@pytest.mark.parametrize("size", [(1, 1), (4, 6), (16, 16)])
def test_anchor_regression(joints: int, size: tuple[int, int]) -> None:
    torch.manual_seed(joints)
    module = nn.Sequential(nn.Conv2d(2, 4 * joints, 1), AnchorRegression(joints))
    check(module, (2, *size), batch=3)
    sharp = nn.Sequential(nn.Conv2d(2, 4 * joints, 1), AnchorRegression(joints))
    nn.init.normal_(sharp[0].weight, std=40.0)  # weights of cells below the smallest float
    check(sharp, (2, *size))


def test_anchor_regression_by_hand() -> None:
    maps = torch.zeros(1, 4, 2, 4)
    maps[0, 0, 1, 2] = 100.0  # all weight on the cell x = 2, y = 1
    maps[0, 1], maps[0, 2], maps[0, 3] = 0.5, -1.0, 0.25
    # anchors (0.25, 0.5); offsets of half a cell (2/4) to the right and one cell (2/2) up
    expected = torch.tensor([[[0.25 + 0.25, 0.5 - 1.0, 0.25]]])
    torch.testing.assert_close(AnchorRegression(1)(maps), expected)
    with pytest.raises(ValueError, match=r"maps must have shape \[B, 8, h, w\], got \[1, 4, 2, 4\]"):
        AnchorRegression(2)(maps)


def test_arrays_and_out() -> None:
    net = HandNet.from_module(Regressor(), input_shape=(1, 32, 32))
    crops = torch.randn(3, 1, 32, 32)
    expected = net(crops)
    array = net(crops.numpy())
    assert isinstance(array, np.ndarray)
    np.testing.assert_array_equal(array, expected.numpy())
    out = torch.empty(3, 5, 3)
    assert net(crops, out=out) is out
    torch.testing.assert_close(out, expected, atol=0.0, rtol=0.0)
    strided = torch.randn(3, 1, 32, 64)[..., ::2]
    torch.testing.assert_close(net(strided), net(strided.contiguous()), atol=0.0, rtol=0.0)
    assert net(crops[:0]).shape == (0, 5, 3)


def test_wrong_arguments() -> None:
    net = HandNet.from_module(Regressor(), input_shape=(1, 32, 32))
    with pytest.raises(ValueError, match=r"crops must have shape \[B, 1, 32, 32\].*got \[1, 32, 32\]"):
        net(torch.zeros(1, 32, 32))
    with pytest.raises(ValueError, match="dtype float32, got .* float64"):
        net(torch.zeros(1, 1, 32, 32, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"out must have shape \[1, 5, 3\]"):
        net(torch.zeros(1, 1, 32, 32), out=torch.zeros(2, 5, 3))
    with pytest.raises(ValueError, match="out must be C-contiguous"):
        net(torch.zeros(1, 1, 32, 32), out=torch.zeros(1, 3, 5).transpose(1, 2))
    with pytest.raises(TypeError, match="crops must be a torch tensor or a numpy array, got list"):
        net([[1.0]])  # type: ignore[arg-type]


class Refused(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(4, 4, 3), layer)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.body(x)
        return result


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.Sigmoid(), "sigmoid in module 'body.1'"),
        (nn.Conv2d(4, 4, 3, groups=2), "groups=2 in module 'body.1'"),
        (nn.Sequential(nn.ReLU(), nn.BatchNorm2d(4)), "module 'body.1.1' does not follow one"),
        (nn.PixelUnshuffle(2), "pixel_unshuffle on the input only, not in module 'body.1'"),
        (nn.Upsample(size=(9, 14)), "module 'body.1' goes from"),
        (nn.MaxPool2d(2, dilation=2), "dilation in 'body.1'"),
        (nn.Sequential(AnchorRegression(1), nn.ReLU()), "anchor regression must be the last layer"),
        (nn.Linear(6, 3), "linear in module 'body.1' must read features"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refuses_by_name(layer: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HandNet.from_module(Refused(layer), input_shape=(4, 8, 8))


def test_refuses_other_precisions() -> None:
    with pytest.raises(ValueError, match="precision must be one of float32, got 'int8'"):
        HandNet.from_module(Regressor(), "int8", input_shape=(1, 32, 32))


def test_module_is_left_alone() -> None:
    module = Regressor().train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    HandNet.from_module(module, input_shape=(1, 32, 32))
    assert module.training
    for name, value in module.state_dict().items():
        torch.testing.assert_close(value, before[name], atol=0.0, rtol=0.0)


def test_save_and_load(tmp_path: Path) -> None:
    net = HandNet.from_module(randomise(Regressor()), input_shape=(1, 32, 32))
    path = tmp_path / "net.safetensors"
    net.save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["net.safetensors"]
    again = HandNet.load(path)
    crops = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(again(crops), net(crops), atol=0.0, rtol=0.0)

    data = path.read_bytes()
    path.write_bytes(data[:-100])
    with pytest.raises(ValueError, match="truncated"):
        HandNet.load(path)
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ValueError, match="checksum"):
        HandNet.load(path)
    path.write_bytes(data.replace(b'"version":"1"', b'"version":"9"'))
    with pytest.raises(ValueError, match="format version 9, this program reads version 1"):
        HandNet.load(path)
    path.write_text("hello")
    with pytest.raises(ValueError, match="not a safetensors file"):
        HandNet.load(path)
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match=r"not one that HandNet\.save wrote"):
        HandNet.load(path)
    with pytest.raises(FileNotFoundError):
        HandNet.load(tmp_path / "nowhere")


def test_threads_share_a_net() -> None:
    net = HandNet.from_module(Regressor(), input_shape=(1, 48, 48))
    crops = torch.randn(8, 40, 1, 48, 48)
    expected = [net(frames) for frames in crops]
    results: dict[int, list[Tensor]] = {}

    def work(thread: int) -> None:
        results[thread] = [net(crops[thread, i : i + 1]) for i in range(40)]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(8):
        torch.testing.assert_close(torch.cat(results[i]), expected[i], atol=0.0, rtol=0.0)


def test_nan_stays_nan() -> None:
    net = HandNet.from_module(
        nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU()), input_shape=(1, 8, 8)
    )
    crops = torch.zeros(1, 1, 8, 8)
    crops[0, 0, 4, 4] = float("nan")
    assert bool(net(crops)[0, :, 4, 4].isnan().all())
    assert not bool(net(torch.zeros(1, 1, 8, 8)).isnan().any())  # nothing is left behind


@pytest.mark.parametrize("capability", ["scalar", "avx2", "avx512"])
def test_every_capability(capability: str) -> None:
    core = _loader.core
    assert core is not None
    levels = ["scalar", "avx2", "avx512"]
    if levels.index(capability) > levels.index(core.detected_cpu_capability()):
        pytest.skip(f"this processor has no {capability}")
    if os.environ.get("DGPOSE_CPU_CAPABILITY") == capability:
        pytest.skip("this is the process that tests it")
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__]
        + ["-k", "whole_regressor or channel_counts or anchor_regression or other_layers"],
        env={**os.environ, "DGPOSE_CPU_CAPABILITY": capability},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-4000:]
