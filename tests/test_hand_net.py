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

import dgpose_ext
from dgpose_ext import _loader, depth_crop, find_hand_center
from dgpose_ext.hand_net import AnchorRegression, HandNet
from dgpose_ext.hand_net.graph import Graph, import_module
from dgpose_ext.tensor_file import write_tensor_file

pytestmark = pytest.mark.skipif(_loader.core is None, reason=_loader.why_no_core() or "no core")

ALGORITHMS = ("auto", "direct", "winograd2", "winograd4")


def check(
    module: nn.Module,
    shape: tuple[int, int, int],
    batch: int = 2,
    algorithms: tuple[str, ...] = ("auto",),
    graph: Graph | None = None,
) -> HandNet:
    """The engine equals the module: to 1e-4, or 1e-4 of the largest output where that exceeds 1."""
    graph = graph or import_module(module, shape)
    crops, expected = example(module, shape, batch)
    tolerance = 1e-4 * max(1.0, float(expected.abs().max()))
    for algorithm in algorithms:
        net = HandNet(graph, algorithm=algorithm)
        torch.testing.assert_close(net(crops), expected, atol=tolerance, rtol=0.0)
    return net


def conv_graph(conv: nn.Conv2d, shape: tuple[int, int, int], joints: int = 0) -> Graph:
    """The graph of a convolution (and anchors) without torch.export, which takes most of the time
    that a test of the kernels has."""
    fields = {name: list(getattr(conv, name)) for name in ("stride", "padding", "dilation")}
    layer = {"kind": "conv", "input": 0, "weight": "weight", "bias": "bias", "slope": 1.0}
    layers = [{"kind": "input", "unshuffle": 1}, {**layer, **fields, "residual": None}]
    output = tuple(conv(torch.zeros(1, *shape)).shape[1:])
    if joints:
        layers.append({"kind": "anchor_regression", "input": 1})
        output = (joints, 3)
    tensors = {name: value.detach().numpy() for name, value in conv.named_parameters()}
    return Graph(shape, output, layers, tensors)


def example(module: nn.Module, shape: tuple[int, int, int], batch: int) -> tuple[Tensor, Tensor]:
    """Crops and what torch makes of them."""
    crops = torch.randn(batch, *shape, generator=torch.Generator().manual_seed(batch))
    with torch.no_grad():
        return crops, module.eval()(crops)


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


@pytest.mark.parametrize(
    "channels", [(1, 3), (3, 15), (15, 17), (16, 16), (17, 33), (33, 1), (48, 80)]
)
def test_channel_counts(channels: tuple[int, int]) -> None:
    module, shape = nn.Conv2d(*channels, 3, padding=1), (channels[0], 9, 13)
    check(module, shape, algorithms=ALGORITHMS, graph=conv_graph(module, shape))


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (4, 4), (5, 7), (8, 8), (13, 31), (16, 17)])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (4, 2), (5, 2), (6, 2)])
def test_winograd_sizes(size: tuple[int, int], kernel: int, stride: int) -> None:
    for padding in range(kernel):
        if min(size) + 2 * padding >= kernel:
            module = nn.Conv2d(17, 16, kernel, stride=stride, padding=padding)
            graph = conv_graph(module, (17, *size))
            check(module, (17, *size), batch=1, algorithms=ALGORITHMS, graph=graph)


@pytest.mark.parametrize(
    ("kernel", "size", "way"),
    [
        (6, 32, " winograd4"),
        (6, 8, " winograd2"),
        (6, 4, " winograd2"),
        (5, 8, " winograd2"),
        (5, 4, ""),
        (4, 32, " winograd4"),
        (4, 8, ""),
        (7, 32, ""),
    ],
)
def test_stride_2_takes_the_faster_way(kernel: int, size: int, way: str) -> None:
    module, shape = nn.Conv2d(16, 16, kernel, 2, (kernel - 1) // 2), (16, size, size)
    net = HandNet(conv_graph(module, shape))
    assert net.profile(1)[1][0].partition(f"@{net.output_shape[1]}x{net.output_shape[2]}")[2] == way


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
def test_convolutions(options: dict) -> None:
    wide = nn.Conv2d(17, 20, **options)
    check(wide, (17, 19, 23))
    if isinstance(wide.padding, tuple) and wide.bias is not None:
        narrow = nn.Conv2d(1, 32, **options)
        check(narrow, (1, 19, 23), graph=conv_graph(narrow, (1, 19, 23)))


def test_whole_regressor() -> None:
    torch.manual_seed(0)
    module = randomise(Regressor())
    graph = import_module(module, (1, 48, 32))
    for batch in (1, 2, 3, 4, 5):
        net = check(module, (1, 48, 32), batch, ALGORITHMS, graph)
    assert net.output_shape == (5, 3)
    # Everything fused: input, 6 convolutions (with batch norm, activations, one residual addition),
    # pooling, one sum that also enlarges, anchors.
    assert len(net.graph.layers) == 10


def test_default_hand_regressor() -> None:
    from dgpose.nn.hand_regressor import HandRegressor

    torch.manual_seed(3)
    module = HandRegressor()
    net = check(randomise(module), (1, 128, 128))
    assert net.output_shape == (36, 3)
    assert net.multiply_adds == module.macs()


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
        if self.variant == "unused branch":
            self.b(x)
            return self.b(F.relu(x))
        if self.variant == "unused branch at the end":
            y = self.b(x)
            F.relu_(self.b(y))
            return y
        if self.variant == "in place after a clone":
            before = x.clone()
            F.relu_(x)
            return before + x
        if self.variant == "in place on a clone":
            return F.relu_(x.clone()) + x
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
        "unused branch",
        "unused branch at the end",
        "in place after a clone",
        "in place on a clone",
        "activated before the sum",
        "two enlarged maps",
    ],
)
def test_fusing_keeps_the_meaning(variant: str, tmp_path: Path) -> None:
    net = check(Fork(variant), (3, 8, 8))
    net.save(tmp_path / "net")  # also where two layers share their weights
    crops = torch.randn(1, 3, 8, 8)
    assert torch.equal(HandNet.load(tmp_path / "net")(crops), net(crops))


def test_layers_that_nobody_reads_are_dropped() -> None:
    kinds = {
        variant: [layer["kind"] for layer in import_module(Fork(variant), (3, 8, 8)).layers]
        for variant in ("unused branch", "unused branch at the end")
    }
    assert kinds == {
        "unused branch": ["input", "conv", "sum", "conv"],
        "unused branch at the end": ["input", "conv", "conv"],
    }
    graph = import_module(Fork("unused branch at the end"), (3, 8, 8))
    assert len(graph.tensors) == 4


class Slices(nn.Module):
    """Parts of a linear layer's features, and their repetition."""

    def __init__(self, in_place: bool = False) -> None:
        super().__init__()
        self.in_place = in_place
        self.first, self.second = nn.Linear(12, 9), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        z = F.leaky_relu(self.first(x.flatten(1)), 0.1)
        if self.in_place:
            F.relu_(z[:, :3])
            return z
        part: Tensor = self.second(z[:, :6]) + z[:, 6:].repeat(1, 2) + z[:, -6:] + z[:, 1:7]
        return part + z[:, :6]


def test_slices_of_features() -> None:
    torch.manual_seed(0)
    check(Slices(), (3, 2, 2))
    with pytest.raises(ValueError, match="relu_ in module '' must not work in place"):
        import_module(Slices(in_place=True), (3, 2, 2))
    for layers, op in (
        ([nn.Conv2d(3, 4, 1), Part(slice(0, 2))], "slice"),
        ([nn.Flatten(), Part(slice(0, 2))], "slice"),
    ):
        with pytest.raises(ValueError, match=f"HandNet runs {op} on the features"):
            import_module(nn.Sequential(*layers), (3, 2, 2))


class Part(nn.Module):
    """x[:, part]."""

    def __init__(self, part: slice) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: Tensor) -> Tensor:
        return x[:, self.part]


def test_refuses_to_change_its_input() -> None:
    with pytest.raises(ValueError, match="relu_ in module '0' must not work in place"):
        import_module(nn.Sequential(nn.ReLU(inplace=True)), (3, 8, 8))


@pytest.mark.parametrize("joints", [1, 4, 16, 36])
@pytest.mark.parametrize("size", [(1, 1), (4, 6), (16, 16)])
def test_anchor_regression(joints: int, size: tuple[int, int]) -> None:
    torch.manual_seed(joints)
    shape = (2, *size)
    for std in (0.5, 40.0):  # 40: weights of cells below the smallest float
        conv = nn.Conv2d(2, 4 * joints, 1)
        nn.init.normal_(conv.weight, std=std)
        module = nn.Sequential(conv, AnchorRegression(joints))
        check(module, shape, batch=3, graph=conv_graph(conv, shape, joints))


@pytest.mark.parametrize(
    ("layers", "shape"),
    [
        ([AnchorRegression(5)], (20, 4, 6)),
        ([AnchorRegression(12)], (48, 5, 3)),
        ([nn.PixelUnshuffle(4), AnchorRegression(8)], (2, 16, 24)),
        ([nn.Conv2d(3, 24, 3), nn.MaxPool2d(2), AnchorRegression(6)], (3, 12, 12)),
        ([nn.Conv2d(3, 24, 3), nn.Upsample(scale_factor=2), AnchorRegression(6)], (3, 6, 6)),
        ([nn.Conv2d(3, 40, 3, stride=2, padding=1), AnchorRegression(10)], (3, 9, 9)),
    ],
    ids=["input", "wide input", "unshuffled input", "pool", "sum", "3x3"],
)
def test_anchors_of_any_map(layers: list[nn.Module], shape: tuple[int, int, int]) -> None:
    check(nn.Sequential(*layers), shape, algorithms=ALGORITHMS)


def test_anchor_regression_by_hand() -> None:
    maps = torch.zeros(1, 4, 2, 4)
    maps[0, 0, 1, 2] = 100.0  # all weight on the cell x = 2, y = 1
    maps[0, 1], maps[0, 2], maps[0, 3] = 0.5, -1.0, 0.25
    # anchors (0.25, 0.5); offsets of half a cell (2/4) to the right and one cell (2/2) up
    expected = torch.tensor([[[0.25 + 0.25, 0.5 - 1.0, 0.25]]])
    torch.testing.assert_close(AnchorRegression(1)(maps), expected)
    with pytest.raises(
        ValueError, match=r"maps must have shape \[B, 8, h, w\], got \[1, 4, 2, 4\]"
    ):
        AnchorRegression(2)(maps)


@pytest.fixture(scope="module")
def small() -> tuple[nn.Module, HandNet]:
    """A module and its engine."""
    torch.manual_seed(1)
    module = randomise(Regressor()).eval()
    return module, HandNet.from_module(module, input_shape=(1, 32, 32))


@pytest.fixture
def net(small: tuple[nn.Module, HandNet]) -> HandNet:
    return small[1]


def test_arrays_and_out(net: HandNet) -> None:
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


def misaligned(array: np.ndarray) -> np.ndarray:
    """The same values one byte off, as in a file with a header."""
    buffer = bytearray(array.nbytes + 1)
    result = np.frombuffer(buffer, array.dtype, offset=1).reshape(array.shape)
    result[...] = array
    assert not result.flags.aligned
    return result


def test_misaligned_arrays(net: HandNet) -> None:
    crops = torch.randn(1, 1, 32, 32).numpy()
    np.testing.assert_array_equal(net(misaligned(crops)), net(crops))
    for depth in (frame(), frame().astype(np.float32)):
        got, want = net.run(misaligned(depth), CAMERA), net.run(depth, CAMERA)
        np.testing.assert_array_equal(got.joints_mm, want.joints_mm)


def test_wrong_arguments(net: HandNet) -> None:
    with pytest.raises(
        ValueError, match=r"crops must have shape \[B, 1, 32, 32\].*got \[1, 32, 32\]"
    ):
        net(torch.zeros(1, 32, 32))
    with pytest.raises(ValueError, match=r"dtype float32, got .* float64"):
        net(torch.zeros(1, 1, 32, 32, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"out must have shape \[1, 5, 3\]"):
        net(torch.zeros(1, 1, 32, 32), out=torch.zeros(2, 5, 3))
    with pytest.raises(ValueError, match="out must be C-contiguous"):
        net(torch.zeros(1, 1, 32, 32), out=torch.zeros(1, 3, 5).transpose(1, 2))
    with pytest.raises(ValueError, match=r"crops must be a dense tensor.*got strided of bfloat16"):
        net(torch.zeros(1, 1, 32, 32, dtype=torch.bfloat16))
    with pytest.raises(ValueError, match="out must be C-contiguous, aligned"):
        net(torch.zeros(1, 1, 32, 32), out=misaligned(np.zeros((1, 5, 3), np.float32)))
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


def test_module_is_left_alone() -> None:
    module = Regressor().train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    HandNet.from_module(module, input_shape=(1, 32, 32))
    assert module.training
    for name, value in module.state_dict().items():
        torch.testing.assert_close(value, before[name], atol=0.0, rtol=0.0)


def test_save_and_load(net: HandNet, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    net.save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["net.safetensors"]
    again = HandNet.load(path)
    crops = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(again(crops), net(crops), atol=0.0, rtol=0.0)
    assert again.graph.layers == net.graph.layers

    data = path.read_bytes()
    path.write_bytes(data[:-100])
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        HandNet.load(path)
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ValueError, match="checksum differs"):
        HandNet.load(path)
    path.write_text("hello")
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        HandNet.load(path)
    write_tensor_file(path, {}, kind="hand_net", version=9, metadata={})
    with pytest.raises(ValueError, match=r"hand_net file of version 1 or 2, got .* of version 9"):
        HandNet.load(path)
    write_tensor_file(path, {}, kind="hand_regressor", version=1, metadata={})
    with pytest.raises(ValueError, match="be a hand_net file of version 1 or 2, got hand_regr"):
        HandNet.load(path)
    with pytest.raises(FileNotFoundError):
        HandNet.load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": None}, "NoneType"),
        ({"precision": "int4"}, "precision must be one of float32"),
        ({"input_shape": [1, 32]}, "incompatible"),
        ({"output_shape": [5, 2]}, r"output_shape \[5, 2\] does not hold what the layers make"),
        ({"input_shape": [1, 2**40, 32]}, "sizes must be less than 1048576"),
    ],
    ids=str,
)
def test_files_that_describe_no_network(
    net: HandNet, tmp_path: Path, change: dict, message: str
) -> None:
    graph, path = net.graph, tmp_path / "net"
    plan = {name: getattr(graph, name) for name in ("input_shape", "output_shape", "layers")}
    tensors = {name: torch.from_numpy(array) for name, array in graph.tensors.items()}
    metadata = {"precision": "float32", **plan, **change}
    write_tensor_file(path, tensors, kind="hand_net", version=1, metadata=metadata)
    with pytest.raises(ValueError, match=f"does not describe a network: (.|\n)*{message}"):
        HandNet.load(path)


def test_threads_share_a_net(net: HandNet) -> None:
    crops = torch.randn(8, 40, 1, 32, 32)
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


CAMERA = (300.0, 310.0, 158.0, 121.0)


def frame() -> np.ndarray:
    y, x = np.mgrid[:240, :320]
    depth = np.where((x - 150) ** 2 + (y - 110) ** 2 < 45**2, 650 + (x + 2 * y) % 37, 1480)
    depth[::17, ::13] = 0
    return depth.astype(np.uint16)


def expected_joints(
    module: nn.Module, depth: np.ndarray, center: tuple[float, float, float]
) -> Tensor:
    fx, fy, cx, cy = CAMERA
    crop = depth_crop(
        torch.from_numpy(depth.astype(np.float32))[None], torch.tensor([center]), CAMERA, 300.0, 32
    )
    with torch.no_grad():
        a, b, c = module.eval()(crop)[0].double().unbind(1)
    u, v, mm = center
    d = mm + c * 150
    u, v = u + a * 150 * fx / mm, v + b * 150 * fy / mm
    return torch.stack(((u - cx) * d / fx, -(v - cy) * d / fy, d), 1)


def test_run_is_search_crop_network_unproject(small: tuple[nn.Module, HandNet]) -> None:
    module, net = small
    depth = frame()
    found = find_hand_center(torch.from_numpy(depth), CAMERA)
    assert found is not None
    for center in (None, (140.0, 100.0, 655.0)):
        for image in (depth, depth.astype(np.float32), np.asfortranarray(depth)):
            result = net.run(image, CAMERA, center)
            assert result.found
            assert result.center == pytest.approx(center or found)
            assert 0.1 < result.foreground < 0.9
            expected = expected_joints(module, depth, center or found)
            np.testing.assert_allclose(result.joints_mm, expected.numpy(), atol=0.05)
            d = result.joints_uvd[:, 2]
            u = result.joints_mm[:, 0] * CAMERA[0] / d + CAMERA[2]
            v = -result.joints_mm[:, 1] * CAMERA[1] / d + CAMERA[3]
            np.testing.assert_allclose(result.joints_uvd[:, :2], np.stack((u, v), 1), atol=1e-2)
    out = torch.zeros(5, 3)
    tensors = net.run(torch.from_numpy(depth), CAMERA, out=out)
    assert tensors.joints_mm is out
    assert isinstance(tensors.joints_uvd, Tensor)
    np.testing.assert_array_equal(out.numpy(), net.run(depth, CAMERA).joints_mm)
    window = np.zeros((240, 400), np.uint16)
    window[:, 40:360] = depth  # rows of a larger image
    np.testing.assert_array_equal(net.run(window[:, 40:360], CAMERA).joints_mm, out.numpy())


def test_run_without_a_hand(net: HandNet) -> None:
    for depth in (
        np.zeros((48, 64), np.uint16),
        np.full((48, 64), np.nan, np.float32),
        np.full((48, 64), 5000, np.uint16),
        np.zeros((1, 1), np.uint16),
    ):
        result = net.run(depth, CAMERA)
        assert not result.found
        assert result.center is None
        assert np.isnan(result.joints_mm).all()
        assert np.isnan(result.joints_uvd).all()
        outside = net.run(depth, CAMERA, (1e6, 0.0, 500.0))
        assert not outside.found
        assert outside.foreground == 0.0
        assert outside.center == (1e6, 0.0, 500.0)


def test_run_without_a_hand_leaves_no_center(net: HandNet) -> None:
    depth = np.zeros((240, 320), np.uint16)
    depth[10:230, 10:310] = 300
    depth[13:227, 13:307] = 0  # a component whose cube is empty
    result = net.run(depth, (240.0, 240.0, 160.0, 120.0))
    assert not result.found
    assert result.center is None


def test_run_with_a_linear_head() -> None:
    """The published network of Crossing Nets: five 6x6 convolutions of stride 2, then linear."""
    torch.manual_seed(4)
    convolutions = [
        layer
        for i in range(5)
        for layer in (nn.Conv2d(32 if i else 1, 32, 6, stride=2, padding=2), nn.ReLU())
    ]
    head = [
        nn.Flatten(),
        nn.Linear(512, 23),
        nn.ReLU(),
        nn.Linear(23, 108),
        nn.Unflatten(1, (36, 3)),
    ]
    module = nn.Sequential(*convolutions, *head)
    net = check(module, (1, 128, 128))
    result = net.run(frame(), CAMERA, (150.0, 110.0, 665.0))
    crop = depth_crop(
        torch.from_numpy(frame())[None], torch.tensor([[150.0, 110.0, 665.0]]), CAMERA, 300.0
    )
    with torch.no_grad():
        expected = module(crop)[0, :, 2] * 150 + 665
    np.testing.assert_allclose(result.joints_mm[:, 2], expected.numpy(), atol=0.02)


@pytest.mark.parametrize("center", [None, (140.0, 100.0, 655.0)])
@pytest.mark.parametrize("normalize", ["cube", "nearest_pixel"])
@pytest.mark.parametrize("unit_mm", [50.0, 20.0])
def test_run_with_metric_outputs(
    net: HandNet, center: tuple[float, float, float] | None, normalize: str, unit_mm: float
) -> None:
    """depth_crop, the network, and units from the point at the centre, y up."""
    depth, cube_mm = torch.from_numpy(frame()), 250.0
    result = net.run(
        depth,
        CAMERA,
        center,
        cube_mm=cube_mm,
        normalize=normalize,
        output="metric",
        unit_mm=unit_mm,
    )
    assert result.center is not None
    crop = depth_crop(
        depth[None],
        torch.tensor([result.center], dtype=torch.float64),
        CAMERA,
        cube_mm,
        32,
        normalize=normalize,
    )
    (fx, fy, cx, cy), (u, v, mm) = CAMERA, result.center
    origin = torch.tensor([(u - cx) * mm / fx, -(v - cy) * mm / fy, mm])
    expected = net(crop)[0] * unit_mm + origin
    torch.testing.assert_close(result.joints_mm, expected, atol=1e-3, rtol=0.0)
    x, y, z = expected.unbind(1)
    pixels = torch.stack((x * fx / z + cx, -y * fy / z + cy, z), 1)
    torch.testing.assert_close(result.joints_uvd, pixels, atol=1e-2, rtol=0.0)


def test_run_counts_the_crop_before_it_is_stretched(net: HandNet) -> None:
    """The nearest pixel of a stretched crop is always -1."""
    depth = frame()
    plain = net.run(depth, CAMERA, (150.0, 110.0, 810.0))
    stretched = net.run(depth, CAMERA, (150.0, 110.0, 810.0), normalize="nearest_pixel")
    assert 0.0 < plain.clipped < plain.foreground
    assert (stretched.clipped, stretched.foreground) == (plain.clipped, plain.foreground)
    whole = net.run(depth, CAMERA, (150.0, 110.0, 665.0), normalize="nearest_pixel")
    assert whole.clipped == 0.0
    assert not np.array_equal(whole.joints_mm, net.run(depth, CAMERA, whole.center).joints_mm)


def test_run_refuses_wrong_arguments(net: HandNet) -> None:
    depth = frame()
    with pytest.raises(ValueError, match=r"depth must have shape \[H, W\].*got \[2, 240, 320\]"):
        net.run(np.stack((depth, depth)), CAMERA)
    with pytest.raises(ValueError, match=r"uint16 or float32.*got \[240, 320\] and float64"):
        net.run(depth.astype(np.float64), CAMERA)
    with pytest.raises(ValueError, match="at least one pixel"):
        net.run(depth[:0], CAMERA)
    with pytest.raises(
        ValueError, match=r"camera \(fx, fy, cx, cy\) must be finite with fx, fy > 0"
    ):
        net.run(depth, (0.0, 0.0, 0.0, 0.0))
    with pytest.raises(
        ValueError, match=r"camera \(fx, fy, cx, cy\) must be finite with fx, fy > 0"
    ):
        net.run(depth, (300.0, float("nan"), 1.0, 1.0))
    with pytest.raises(ValueError, match=r"camera must be \(fx, fy, cx, cy\), got 3 numbers"):
        net.run(depth, (1.0, 2.0, 3.0))
    with pytest.raises(ValueError, match=r"center must be \(u, v, mm\), got 2 numbers"):
        net.run(depth, CAMERA, (1.0, 1.0))
    with pytest.raises(ValueError, match="center must be finite"):
        net.run(depth, CAMERA, (1.0, 1.0, 0.0))
    with pytest.raises(ValueError, match="cube_mm must be positive"):
        net.run(depth, CAMERA, cube_mm=0.0)
    with pytest.raises(ValueError, match="unit_mm must be positive and finite, got nan"):
        net.run(depth, CAMERA, output="metric", unit_mm=float("nan"))
    with pytest.raises(ValueError, match="normalize must be one of cube, nearest_pixel, got 'max'"):
        net.run(depth, CAMERA, normalize="max")
    with pytest.raises(ValueError, match="output must be one of crop, metric, got 'mm'"):
        net.run(depth, CAMERA, output="mm")
    with pytest.raises(ValueError, match="near and far"):
        net.run(depth, CAMERA, near=500.0, far=100.0)
    for far in (65536.0, float("inf"), float("nan")):  # as find_hand_center
        with pytest.raises(ValueError, match="0 <= near < far <= 65535"):
            net.run(depth, CAMERA, far=far)
    with pytest.raises(TypeError, match="depth must be"):
        net.run([[1]], CAMERA)  # type: ignore[arg-type]
    other = HandNet.from_module(nn.Conv2d(3, 4, 1), input_shape=(3, 8, 8))
    with pytest.raises(ValueError, match=r"run needs a network from \[1, S, S\] to \[J, 3\]"):
        other.run(depth, CAMERA)


def test_nan_stays_nan() -> None:
    module = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
    net = HandNet.from_module(module, input_shape=(1, 8, 8))
    for y, x in ((4, 4), (4, 5), (5, 4), (5, 5)):  # the first or the last of a window
        crops = torch.zeros(1, 1, 8, 8)
        crops[0, 0, y, x] = float("nan")
        assert bool(net(crops)[0, :, 2, 2].isnan().all())
    assert not bool(net(torch.zeros(1, 1, 8, 8)).isnan().any())  # nothing is left behind
    pool = HandNet.from_module(nn.MaxPool2d(2), input_shape=(1, 4, 4))
    crops = torch.zeros(1, 1, 4, 4)
    crops[0, 0, 0, 0] = crops[0, 0, 1, 3] = float("nan")
    assert net_equal(pool(crops), F.max_pool2d(crops, 2))


@pytest.mark.parametrize("slope", [0.0, 0.25])
def test_activations_of_infinity(slope: float) -> None:
    net = HandNet.from_module(nn.LeakyReLU(slope) if slope else nn.ReLU(), input_shape=(1, 1, 4))
    crops = torch.tensor([[[[-torch.inf, torch.inf, -1.0, torch.nan]]]])
    assert net_equal(net(crops), F.leaky_relu(crops, slope) if slope else F.relu(crops))


def net_equal(actual: Tensor, expected: Tensor) -> bool:
    """Equal, NaN to NaN."""
    return bool(torch.isclose(actual, expected, atol=0.0, rtol=0.0, equal_nan=True).all())


def test_sizes_that_would_overflow_are_refused() -> None:
    core = _loader.core
    assert core is not None
    weight, bias = np.zeros((1, 1, 3, 3), np.float32), np.zeros(1, np.float32)
    for stride, padding, dilation in ((1, 2**62, 1), (1, 2**62, 2**61), (2**40, 1, 1)):
        builder = core.HandNetBuilder((1, 8, 8))
        pairs = ((stride,) * 2, (padding,) * 2, (dilation,) * 2)
        with pytest.raises(ValueError, match="sizes must be less than 1048576"):
            builder.add_conv(builder.add_input(1), weight, bias, *pairs, 1.0)
    builder = core.HandNetBuilder((1, 8, 8))
    with pytest.raises(ValueError, match="sizes must be less than 1048576"):
        builder.add_sum(None, builder.add_input(1), 2**61, 1.0)
    builder = core.HandNetBuilder((16, 8, 8))
    large = builder.add_sum(None, builder.add_input(1), 2**16, 1.0)
    with pytest.raises(ValueError, match="a map is too large"):
        builder.finish(large)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_no_memory_for_a_workspace() -> None:
    """Each thread of a batch takes one: the error arrives here, as what it is."""
    import resource

    core = _loader.core
    assert core is not None
    builder = core.HandNetBuilder((16, 1, 1))
    large = builder.add_sum(None, builder.add_input(1), 8192, 1.0)  # 4 GiB
    window = ([0], [8192])
    network = builder.finish(builder.add_pool(large, "max", window, window, 0))
    crops, out = np.zeros((2, 16, 1, 1), np.float32), np.zeros((2, 16, 1, 1), np.float32)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, before[1]))
    try:
        with pytest.raises(MemoryError):
            network.forward(crops, out)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_is_exported() -> None:
    assert dgpose_ext.HandNet is HandNet
    assert "HandNet" in dir(dgpose_ext)
    with pytest.raises(AttributeError, match="no attribute 'HandNets'"):
        dgpose_ext.HandNets  # noqa: B018


@pytest.fixture(scope="module")
def files(small: tuple[nn.Module, HandNet], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Networks (*.net) with crops and what torch makes of them (*.npz)."""
    torch.manual_seed(2)
    folder = tmp_path_factory.mktemp("networks")
    fully_connected = [nn.AvgPool2d(2), nn.Flatten(), nn.Linear(3 * 18 * 5, 40), nn.LeakyReLU(0.1)]
    modules = {
        "regressor": (small[0], (1, 48, 32)),
        "many joints": (nn.Sequential(nn.Conv2d(3, 144, 1), AnchorRegression(36)), (3, 9, 5)),
        "odd channels": (nn.Sequential(nn.Conv2d(33, 47, 3), nn.Conv2d(47, 1, 3)), (33, 13, 11)),
        "phases": (nn.Conv2d(18, 33, 6, stride=2, padding=2), (18, 21, 17)),
        "linear": (nn.Sequential(nn.Conv2d(1, 3, 6, 2), *fully_connected), (1, 76, 24)),
    }
    for name, (module, shape) in modules.items():
        HandNet(import_module(module, shape)).save(folder / f"{name}.net")
        crops, expected = example(module, shape, 3)
        np.savez(folder / f"{name}.npz", crops=crops.numpy(), expected=expected.numpy())
    return folder


@pytest.mark.parametrize("capability", ["scalar", "avx2"])
def test_lower_capabilities(capability: str, files: Path) -> None:
    core = _loader.core
    assert core is not None
    levels = ["scalar", "avx2", "avx512"]
    if levels.index(capability) >= levels.index(core.cpu_capability()):
        pytest.skip("the other tests run at this level, or below")
    result = subprocess.run(
        [sys.executable, "-c", CHILD, str(files), *ALGORITHMS],
        env={**os.environ, "DGPOSE_CPU_CAPABILITY": capability},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == [capability, str(5 * len(ALGORITHMS))]


CHILD = """
import sys
from pathlib import Path
import numpy as np
from dgpose_ext import _loader
from dgpose_ext.hand_net import HandNet

checked = 0
for path in Path(sys.argv[1]).glob("*.net"):
    arrays = np.load(path.with_suffix(".npz"))
    for algorithm in sys.argv[2:]:
        net = HandNet(HandNet.load(path).graph, algorithm=algorithm)
        np.testing.assert_allclose(net(arrays["crops"]), arrays["expected"], rtol=0, atol=1e-4)
        checked += 1
print(_loader.core.cpu_capability(), checked)
"""
