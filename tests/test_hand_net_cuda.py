"""CudaHandNet against the torch modules and HandNet: on a GPU, or its kernels emulated on the CPU.

As tests/test_cuda.py: `make cuda-check` names the emulation in DGPOSE_CUDA_EMULATION.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_hand_net import Fork, Regressor, conv_graph, example, net_equal, randomise
from torch import Tensor, nn
from torch.nn import functional as F

from dgpose_ext import _loader
from dgpose_ext.hand_net import AnchorRegression, CudaHandNet, HandNet, cuda_engine
from dgpose_ext.hand_net.cuda_plan import plan
from dgpose_ext.hand_net.graph import Graph, import_module

EMULATION = os.environ.get("DGPOSE_CUDA_EMULATION")
if EMULATION:
    torch.ops.load_library(EMULATION)

Device = str
EPSILON = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
every_precision = pytest.mark.parametrize("precision", EPSILON)


@pytest.fixture(params=["emulated", "cuda"])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Device:
    """Where tensors lie; on the CPU the kernels are the emulated ones."""
    if request.param == "cuda":
        if why := _loader.why_no_cuda():
            pytest.skip(why)
        return "cuda"
    if EMULATION is None:
        pytest.skip("needs the emulated kernels: `make cuda-check`")
    monkeypatch.setattr(cuda_engine, "_ops", lambda: torch.ops.dgpose_emulated)
    monkeypatch.setattr(cuda_engine, "_require_cuda", lambda device: None)
    return "cpu"


def run(graph: Graph, crops: Tensor, precision: str, device: Device) -> Tensor:
    return CudaHandNet(graph, precision=precision, device=device)(crops.to(device)).cpu()


def check(
    module: nn.Module,
    shape: tuple[int, int, int],
    device: Device,
    batch: int = 2,
    graph: Graph | None = None,
    layers: int = 4,
) -> None:
    """Equals the module within a few roundings a layer, relative to the largest output."""
    graph = graph or import_module(module, shape)
    crops, expected = example(module, shape, batch)
    largest = max(1.0, float(expected.abs().max()))
    for precision, epsilon in EPSILON.items():
        tolerance = max(1e-5, 2 * layers * epsilon) * largest
        got = run(graph, crops, precision, device)
        torch.testing.assert_close(got, expected, atol=tolerance, rtol=0.0)


def whole_numbers(*shape: int, most: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-most, most + 1, shape, generator=generator).float()


def check_exactly(conv: nn.Conv2d, size: tuple[int, int], device: Device, batch: int = 2) -> None:
    """Of small whole numbers all sums are exact, in every precision and order."""
    outputs, inputs, *kernel = conv.weight.shape
    conv.weight.data = whole_numbers(outputs, inputs, *kernel, most=1, seed=1)
    if conv.bias is not None:
        conv.bias.data = whole_numbers(outputs, most=8, seed=2)
    crops = whole_numbers(batch, inputs, *size, most=2, seed=3)
    with torch.no_grad():
        expected = conv(crops)
    graph = conv_graph(conv, (inputs, *size))
    for precision in EPSILON:
        assert torch.equal(run(graph, crops, precision, device), expected), precision


@pytest.mark.parametrize("channels", [(1, 3), (3, 15), (8, 16), (15, 17), (33, 1), (40, 72)])
def test_equals_reference_for_any_channels(channels: tuple[int, int], device: Device) -> None:
    check_exactly(nn.Conv2d(*channels, 3, padding=1), (5, 7), device)


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 1},
        {"kernel_size": 1, "stride": 2},
        {"kernel_size": 3, "stride": 2, "padding": 1},
        {"kernel_size": 3, "dilation": 2, "padding": 2},
        {"kernel_size": 5, "padding": 2},
        {"kernel_size": 6, "stride": 2, "padding": 2},
        {"kernel_size": (3, 1), "padding": (1, 0)},
        {"kernel_size": (2, 5), "stride": (1, 3), "padding": (0, 2)},
        {"kernel_size": 3, "padding": 3},
    ],
)
@pytest.mark.parametrize("inputs", [1, 9])
def test_equals_reference_for_any_kernel(
    options: dict[str, Any], inputs: int, device: Device
) -> None:
    check_exactly(nn.Conv2d(inputs, 12, **options), (12, 18), device)


@pytest.mark.parametrize(
    ("outputs", "size", "batch"),
    [(9, (4, 5), 1), (40, (9, 11), 2), (24, (23, 24), 2), (72, (25, 22), 1)],
    ids=["Small", "Medium", "Narrow", "Large"],
)
def test_equals_reference_in_every_tiling(
    outputs: int, size: tuple[int, int], batch: int, device: Device
) -> None:
    """Each with rows and columns beyond the last tile, and more stages than fit at once."""
    check_exactly(nn.Conv2d(20, outputs, 3, padding=1), size, device, batch)


def test_equals_reference_over_many_stages(device: Device) -> None:
    check_exactly(nn.Conv2d(130, 5, 3, padding=1), (3, 3), device)


@pytest.mark.parametrize("batch", [1, 11])
def test_equals_reference_as_a_whole(batch: int, device: Device) -> None:
    """Every kind of layer; 11 frames do not fit in an emulated cache at once."""
    torch.manual_seed(0)
    module = randomise(Regressor())
    graph = import_module(module, (1, 16, 32))
    check(module, (1, 16, 32), device, batch, graph, layers=10)
    net = CudaHandNet(graph, device=device)
    assert net.launches == 10
    crops = torch.randn(batch, 1, 16, 32, device=device)
    assert torch.equal(net(crops), net(crops))


def test_equals_reference_of_the_hand_network(device: Device) -> None:
    from dgpose.nn.hand_regressor import HandRegressor, HandRegressorConfig

    torch.manual_seed(3)
    config = HandRegressorConfig(joints=7, channels=(8, 16, 24, 32), inner=(16, 16, 8))
    module = randomise(HandRegressor(config))
    check(module, (1, 128, 128), device, batch=1, layers=16)


@pytest.mark.parametrize(
    "layers",
    [
        [nn.MaxPool2d(2)],
        [nn.MaxPool2d(3, stride=2, padding=1)],
        [nn.AvgPool2d(3, stride=2, padding=1)],
        [nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False)],
        [nn.AdaptiveAvgPool2d((3, 2))],
        [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(18, 6), nn.Unflatten(1, (2, 3))],
        [nn.Upsample(scale_factor=2)],
        [nn.Upsample(scale_factor=3), nn.ReLU()],
        [nn.Conv2d(18, 7, 1), nn.Upsample(scale_factor=2), nn.LeakyReLU(0.2)],
        [nn.LeakyReLU(0.3), nn.Conv2d(18, 5, 3)],
        [nn.Flatten(), nn.Linear(18 * 77, 40), nn.BatchNorm1d(40), nn.ReLU(), nn.Linear(40, 9)],
        [nn.Upsample(scale_factor=2), nn.Flatten(), nn.Linear(18 * 77 * 4, 5)],
    ],
    ids=lambda layers: "-".join(type(layer).__name__ for layer in layers),
)
@pytest.mark.parametrize("after_conv", [False, True])
def test_equals_reference_for_other_layers(
    layers: list[nn.Module], after_conv: bool, device: Device
) -> None:
    first = [nn.Conv2d(18, 18, 3, padding=1)] if after_conv else []
    check(randomise(nn.Sequential(*first, *layers)), (18, 11, 7), device)


@pytest.mark.parametrize(
    "variant",
    [
        "activation beside its input",
        "activation of a view",
        "in place after a reader",
        "twice the same",
        "residual of a later map",
        "two residuals",
        "activated before the sum",
        "two enlarged maps",
    ],
)
def test_equals_reference_where_maps_are_shared(variant: str, device: Device) -> None:
    check(Fork(variant), (3, 8, 8), device)


class Lateral(nn.Module):
    """A coarse convolution enlarged and added, where it may be fused with the sum and where not."""

    def __init__(self, variant: str) -> None:
        super().__init__()
        self.variant = variant
        self.fine, self.down = nn.Conv2d(3, 20, 3, padding=1), nn.MaxPool2d(2)
        self.coarse, self.head = nn.Conv2d(20, 20, 1), nn.Conv2d(20, 8, 1)
        self.anchors = AnchorRegression(5)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.fine(x)
        coarse = self.coarse(self.down(fine))
        if self.variant == "activated":
            coarse = F.relu(coarse)
        enlarged = F.interpolate(coarse, scale_factor=2.0, mode="nearest")
        if self.variant == "to anchors":
            result: Tensor = self.anchors(fine + enlarged)
            return result
        if self.variant == "to the output":
            return F.relu(fine + enlarged)
        if self.variant == "read twice":
            return self.head(F.relu(fine + enlarged)) + F.interpolate(
                self.head(coarse), scale_factor=2.0, mode="nearest"
            )
        return self.head(F.relu(fine + enlarged))


@pytest.mark.parametrize(
    ("variant", "launches"),
    [("plain", 5), ("activated", 6), ("to anchors", 5), ("to the output", 4), ("read twice", 7)],
)
def test_equals_reference_of_enlarged_convolutions(
    variant: str, launches: int, device: Device
) -> None:
    module = Lateral(variant)
    graph = import_module(module, (3, 8, 12))
    check(module, (3, 8, 12), device, graph=graph)
    assert plan(graph, "float16").launches == launches


@pytest.mark.parametrize("joints", [1, 36])
@pytest.mark.parametrize("size", [(1, 1), (4, 6), (16, 16)])
def test_equals_reference_for_anchors(joints: int, size: tuple[int, int], device: Device) -> None:
    torch.manual_seed(joints)
    for std in (0.5, 40.0):  # 40: weights of cells below the smallest float
        conv = nn.Conv2d(2, 4 * joints, 1)
        nn.init.normal_(conv.weight, std=std)
        # Votes without roundings before them: one logit too many would move the joint.
        conv.weight.data = conv.weight.data.bfloat16().float()
        module, shape = nn.Sequential(conv, AnchorRegression(joints)), (2, *size)
        crops = torch.randn(3, *shape).bfloat16().float()
        with torch.no_grad():
            expected = module(crops)
        graph = conv_graph(conv, shape, joints)
        tolerance = 2e-4 * max(1.0, float(expected.abs().max()))
        for precision in ("float32", "bfloat16"):
            got = run(graph, crops, precision, device)
            torch.testing.assert_close(got, expected, atol=tolerance, rtol=0.0)


@pytest.mark.parametrize(
    ("layers", "shape"),
    [
        ([AnchorRegression(5)], (20, 4, 6)),
        ([nn.PixelUnshuffle(4), AnchorRegression(8)], (2, 16, 24)),
        ([nn.Conv2d(3, 24, 3), nn.MaxPool2d(2), AnchorRegression(6)], (3, 12, 12)),
        ([nn.Conv2d(3, 24, 3), nn.Upsample(scale_factor=2), AnchorRegression(6)], (3, 6, 6)),
    ],
    ids=["input", "unshuffled input", "pool", "sum"],
)
def test_equals_reference_for_anchors_of_any_map(
    layers: list[nn.Module], shape: tuple[int, int, int], device: Device
) -> None:
    check(nn.Sequential(*layers), shape, device)


@every_precision
def test_hostile_values(precision: str, device: Device) -> None:
    conv = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
    net = CudaHandNet.from_module(conv, precision, input_shape=(1, 8, 8), device=device)
    for y, x in ((4, 4), (4, 5), (5, 4), (5, 5)):  # the first or the last of a window
        crops = torch.zeros(1, 1, 8, 8, device=device)
        crops[0, 0, y, x] = float("nan")
        assert bool(net(crops)[0, :, 2, 2].isnan().all())
    assert not bool(net(torch.zeros(1, 1, 8, 8, device=device)).isnan().any())
    values = torch.tensor([[[[-torch.inf, torch.inf, -1.0, torch.nan]]]])
    for slope in (0.0, 0.25):
        layer = nn.LeakyReLU(slope) if slope else nn.ReLU()
        net = CudaHandNet.from_module(layer, precision, input_shape=(1, 1, 4), device=device)
        assert net_equal(net(values.to(device)).cpu(), layer(values))
    # Channels that only fill a chunk stay 0 where the others are infinite.
    two = nn.Sequential(nn.Conv2d(1, 3, 1), nn.ReLU(), nn.Conv2d(3, 2, 1))
    for parameter in two.parameters():
        parameter.data.fill_(1.0)
    net = CudaHandNet.from_module(two, precision, input_shape=(1, 1, 2), device=device)
    got = net(torch.tensor([[[[torch.inf, 1.0]]]], device=device)).cpu()
    assert net_equal(got, torch.tensor([[[[torch.inf, 7.0]], [[torch.inf, 7.0]]]]))


# ---- whole frames ----

CAMERA = (300.0, 302.0, 160.0, 120.0)
CENTERS = torch.tensor([[150.0, 110.0, 600.0], [170.5, 125.25, 650.0], [20.0, 230.0, 580.0]])


def frames(dtype: torch.dtype) -> Tensor:
    """[3, 240, 320]: a bumpy ball before a wall, holes; nothing before the wall in the last."""
    generator = torch.Generator().manual_seed(4)
    y, x = torch.meshgrid(torch.arange(240.0), torch.arange(320.0), indexing="ij")
    depth = torch.full((3, 240, 320), 1300.0)
    for i in (0, 1):
        u, v, mm = CENTERS[i]
        ball = ((x - u) / 45) ** 2 + ((y - v) / 50) ** 2 < 1
        depth[i][ball] = (mm + 160 * torch.sin(x / 17) * torch.cos(y / 23))[ball]
    depth[torch.rand(depth.shape, generator=generator) < 0.02] = 0
    return depth.to(torch.int32).to(dtype)


@pytest.fixture(scope="module")
def module() -> nn.Module:
    torch.manual_seed(1)
    return randomise(Regressor()).eval()


@pytest.mark.parametrize("dtype", [torch.uint16, torch.float32])
def test_frames_equal_reference(dtype: torch.dtype, module: nn.Module, device: Device) -> None:
    """joints as of HandNet.run; the crops' shares are the same bits."""
    graph = import_module(module, (1, 32, 32))
    host = HandNet(graph)
    depth = frames(dtype)
    want = [
        host.run(d, CAMERA, c.tolist(), cube_mm=280.0) for d, c in zip(depth, CENTERS, strict=True)
    ]
    for precision, tolerance in {"float32": 1e-3, "float16": 0.5, "bfloat16": 4.0}.items():
        net = CudaHandNet(graph, precision=precision, device=device)
        got = net.run(depth.to(device), CENTERS.to(device), CAMERA, cube_mm=280.0)
        assert got.found.tolist() == [frame.found for frame in want] == [True, True, False]
        for i, frame in enumerate(want):
            close = {"atol": tolerance, "rtol": 0.0, "equal_nan": True}
            torch.testing.assert_close(got.joints_mm[i].cpu(), frame.joints_mm, **close)
            torch.testing.assert_close(got.joints_uvd[i].cpu(), frame.joints_uvd, **close)
            assert float(got.foreground[i]) == frame.foreground
            assert float(got.clipped[i]) == frame.clipped
    assert want[0].clipped > 0


def test_frames_of_any_layout_and_camera(module: nn.Module, device: Device) -> None:
    net = CudaHandNet.from_module(module, "float32", input_shape=(1, 32, 32), device=device)
    depth, centers = frames(torch.uint16).to(device), CENTERS.to(device)
    want = net.run(depth, centers, CAMERA)
    wide = torch.zeros(3, 250, 330, dtype=torch.int32).to(torch.uint16).to(device)
    wide[:, 5:245, 7:327] = depth
    cameras = torch.tensor([CAMERA], dtype=torch.float64, device=device)
    for frames_, centers_, camera in (
        (wide[:, 5:245, 7:327], centers, CAMERA),
        (depth.mT.contiguous().mT, centers.double(), cameras[0]),
        (depth, centers.repeat_interleave(2, 1)[:, ::2], cameras.expand(3, 4)),
    ):
        got = net.run(frames_, centers_, camera)
        for a, b in zip(got, want, strict=True):
            assert net_equal(a.cpu(), b.cpu())
    one = net.run(depth[1:2], centers[1:2], cameras)
    assert torch.equal(one.joints_mm[0], want.joints_mm[1])


def test_hostile_centers_find_nothing(module: nn.Module, device: Device) -> None:
    net = CudaHandNet.from_module(module, "float32", input_shape=(1, 32, 32), device=device)
    depth = frames(torch.float32)[:1].to(device)
    for column in range(3):
        for value in (float("nan"), float("inf"), -float("inf"), -1e30):
            centers = CENTERS[:1].clone()
            centers[0, column] = value
            got = net.run(depth, centers.to(device), CAMERA)
            assert not bool(got.found)
            assert bool(got.joints_mm.isnan().all())
            assert float(got.foreground) == 0
    camera = torch.full((1, 4), float("nan"), dtype=torch.float64, device=device)
    assert not bool(net.run(depth, CENTERS[:1].to(device), camera).found)


def test_frames_of_a_network_without_anchors(device: Device) -> None:
    layers = [nn.Conv2d(1, 8, 6, stride=2, padding=2), nn.ReLU(), nn.Flatten()]
    module = nn.Sequential(*layers, nn.Linear(8 * 16 * 16, 6), nn.Unflatten(1, (2, 3)))
    graph = import_module(module, (1, 32, 32))
    depth = frames(torch.uint16)[:2]
    got = CudaHandNet(graph, precision="float32", device=device).run(
        depth.to(device), CENTERS[:2].to(device), CAMERA
    )
    for i in range(2):
        want = HandNet(graph).run(depth[i], CAMERA, CENTERS[i].tolist())
        torch.testing.assert_close(got.joints_mm[i].cpu(), want.joints_mm, atol=1e-3, rtol=0.0)


class TwoInputs(nn.Module):
    """Reads the crop as it is and folded: two input steps of unlike sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.folded, self.whole = nn.Conv2d(16, 8, 1), nn.Conv2d(1, 8, 3, padding=1)
        self.anchors = AnchorRegression(2)

    def forward(self, crops: Tensor) -> Tensor:
        result: Tensor = self.anchors(
            self.folded(F.pixel_unshuffle(crops, 4)) + F.max_pool2d(self.whole(crops), 4)
        )
        return result


def test_frames_of_two_input_steps(device: Device) -> None:
    graph = import_module(TwoInputs(), (1, 32, 32))
    got = CudaHandNet(graph, precision="float32", device=device).run(
        frames(torch.uint16)[:1].to(device), CENTERS[:1].to(device), CAMERA
    )
    want = HandNet(graph).run(frames(torch.uint16)[0], CAMERA, CENTERS[0].tolist())
    torch.testing.assert_close(got.joints_mm[0].cpu(), want.joints_mm, atol=1e-3, rtol=0.0)
    assert float(got.foreground) == want.foreground


def test_empty_batches(module: nn.Module, device: Device) -> None:
    net = CudaHandNet.from_module(module, input_shape=(1, 32, 32), device=device)
    assert net(torch.zeros(0, 1, 32, 32, device=device)).shape == (0, 5, 3)
    got = net.run(frames(torch.uint16)[:0].to(device), CENTERS[:0].to(device), CAMERA)
    assert got.joints_mm.shape == (0, 5, 3)
    assert got.found.shape == (0,)
    nowhere = torch.zeros(1, 0, 5, device=device)  # a frame without pixels
    assert not bool(net.run(nowhere, CENTERS[:1].to(device), CAMERA).found)


def test_reads_the_files_of_hand_net(module: nn.Module, device: Device, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    HandNet.from_module(module, input_shape=(1, 32, 32)).save(tmp_path / "net")
    net = CudaHandNet.load(tmp_path / "net", "float32", device=device)
    crops, expected = example(module, (1, 32, 32), 2)
    torch.testing.assert_close(net(crops.to(device)).cpu(), expected, atol=1e-4, rtol=0.0)
    assert (net.input_shape, net.output_shape, net.precision) == ((1, 32, 32), (5, 3), "float32")
    assert net.device.type == device
    assert net.weight_bytes > 0
    assert net.frame_bytes > 0
    assert "float32" in repr(net)


def test_files_of_other_precisions(device: Device, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    module = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 8, 3))
    crops, expected = example(module, (1, 12, 12), 2)
    HandNet.from_module(module, "bfloat16", input_shape=(1, 12, 12)).save(tmp_path / "bfloat16")
    got = CudaHandNet.load(tmp_path / "bfloat16", device=device)(crops.to(device)).cpu()
    torch.testing.assert_close(got, expected, atol=1e-2, rtol=0.0)
    net = HandNet.from_module(module, "int8", input_shape=(1, 12, 12), calibration=crops)
    net.save(tmp_path / "int8")
    with pytest.raises(ValueError, match="must have weights of float32, got int8; make it from"):
        CudaHandNet.load(tmp_path / "int8", device=device)


def test_errors(module: nn.Module, device: Device) -> None:
    net = CudaHandNet.from_module(module, input_shape=(1, 32, 32), device=device)
    depth, centers = frames(torch.uint16).to(device), CENTERS.to(device)
    calls: list[tuple[type[Exception], str, Callable[[], object]]] = [
        (ValueError, r"crops must have shape \[B, 1, 32, 32\], got \[1, 32, 32\]",
         lambda: net(torch.zeros(1, 32, 32, device=device))),
        (TypeError, "crops must be of dtype float32, got float64",
         lambda: net(torch.zeros(1, 1, 32, 32, dtype=torch.float64, device=device))),
        (TypeError, "crops must be a torch.Tensor", lambda: net([1.0])),  # type: ignore[arg-type]
        (ValueError, "crops must be on the device of the network",
         lambda: net(torch.zeros(1, 1, 32, 32, device="meta"))),
        (ValueError, r"depth must have shape \[B, H, W\]",
         lambda: net.run(depth[0], centers, CAMERA)),
        (TypeError, "depth must be of dtype uint16, float32, got int32",
         lambda: net.run(depth.int(), centers, CAMERA)),
        (ValueError, r"centers must have shape \[B, 3\] with B = 3",
         lambda: net.run(depth, centers[:2], CAMERA)),
        (ValueError, "must be finite", lambda: net.run(depth, centers, (0.0, 1.0, 1.0, 1.0))),
        (ValueError, "cube_mm must be positive",
         lambda: net.run(depth, centers, CAMERA, cube_mm=0.0)),
        (ValueError, "camera must be on the device of depth",
         lambda: net.run(depth, centers, torch.zeros(4, device="meta"))),
    ]  # fmt: skip
    for error, message, call in calls:
        with pytest.raises(error, match=message):
            call()
    other = CudaHandNet.from_module(nn.Conv2d(3, 4, 1), input_shape=(3, 8, 8), device=device)
    with pytest.raises(ValueError, match=r"run needs a network from \[1, S, S\] to \[J, 3\]"):
        other.run(depth, centers, CAMERA)


def test_programs_that_leave_their_memory_are_refused(device: Device) -> None:
    """Whatever a program holds, the kernels stay inside their memory: it is refused or harmless."""
    layers = [nn.Conv2d(1, 4, 1), nn.MaxPool2d(2), nn.Upsample(scale_factor=2), AnchorRegression(1)]
    graph = import_module(nn.Sequential(*layers), (1, 2, 2))
    net = CudaHandNet(graph, precision="float32", device=device)
    crops = torch.zeros(1, 1, 2, 2, device=device)
    op, program = net._ops.hand_net, net._program
    refused = 0
    for word in range(program.numel()):
        for value in (-3, 2**20 - 1, 2**62):
            changed = program.clone()
            changed[word] = value
            try:
                op(crops, net._weights, changed)
            except RuntimeError as error:
                refused += " must " in str(error)
    assert refused > program.numel()
    for wrong in (program[:-1], program[:3], program.int(), program[:0]):
        with pytest.raises(RuntimeError, match="program must"):
            op(crops, net._weights, wrong)
    with pytest.raises(RuntimeError, match="reads outside its memory"):
        op(crops, net._weights[:64], program)


def test_needs_a_gpu() -> None:
    with pytest.raises(ValueError, match="device must be a CUDA device, got cpu"):
        CudaHandNet(Graph((1, 4, 4)), device="cpu")
    if why := _loader.why_no_cuda():
        with pytest.raises(RuntimeError, match="CudaHandNet is not available") as error:
            CudaHandNet(Graph((1, 4, 4)))
        assert why in str(error.value)


# ---- the plan, which needs no kernels ----


def test_the_hand_network_takes_few_launches() -> None:
    from dgpose.nn.hand_regressor import HandRegressor

    laid_out = plan(import_module(HandRegressor(), (1, 128, 128)), "float16")
    # Input, 14 convolutions (both sums are part of one), anchors.
    assert laid_out.launches == 16
    assert laid_out.weights.numel() == pytest.approx(2 * 833_000, rel=0.01)


def test_strides_of_the_first_layer_are_folded() -> None:
    """One channel would fill an eighth of a chunk: 6x6/2 becomes 3x3 on four channels."""
    module = nn.Conv2d(1, 32, 6, stride=2, padding=2)
    folded = plan(import_module(module, (1, 16, 16)), "float16")
    whole = plan(import_module(module, (1, 16, 17)), "float16")
    assert folded.weights.numel() == 32 * 4 + 32 * 9 * 16
    assert whole.weights.numel() == 32 * 4 + 32 * 36 * 16


def test_plan_refuses() -> None:
    graph = conv_graph(nn.Conv2d(1, 2, 1), (1, 4, 4))
    with pytest.raises(ValueError, match="precision must be one of float32, float16, bfloat16"):
        plan(graph, "int8")
    graph.tensors["weight"] = graph.tensors["weight"] + 1e6
    with pytest.raises(ValueError, match="weights must be finite in float16: use bfloat16"):
        plan(graph, "float16")
    plan(graph, "bfloat16")
    graph.tensors["weight"] = graph.tensors["weight"].astype("int8")
    with pytest.raises(ValueError, match="must have weights of float32, got int8"):
        plan(graph, "float32")


# ---- what a GPU alone can tell ----

needs_gpu = pytest.mark.skipif(bool(_loader.why_no_cuda()), reason=_loader.why_no_cuda())


@needs_gpu
def test_captured_frames(module: nn.Module) -> None:
    net = CudaHandNet.from_module(module, input_shape=(1, 32, 32))
    depth, centers = frames(torch.uint16).cuda(), CENTERS.cuda()
    captured = net.captured(torch.zeros_like(depth), torch.ones_like(centers), CAMERA)
    assert not bool(captured().found.any())
    want = net.run(depth, centers, CAMERA)
    for a, b in zip(captured(depth, centers), want, strict=True):
        assert net_equal(a, b)
    moved = captured(frames(torch.uint16).pin_memory(), centers.flip(0))
    torch.cuda.synchronize()
    assert not net_equal(moved.joints_mm, want.joints_mm)


@needs_gpu
@pytest.mark.parametrize("batch", [1, 64, 1000])
def test_gpu_equals_reference_in_every_batch(batch: int) -> None:
    from dgpose.nn.hand_regressor import HandRegressor

    torch.manual_seed(3)
    module = randomise(HandRegressor()).cuda().eval()
    crops = torch.rand(batch, 1, 128, 128, device="cuda") * 2 - 1
    with torch.no_grad():
        expected = module(crops)
    for precision, epsilon in EPSILON.items():
        got = CudaHandNet.from_module(module, precision)(crops)
        tolerance = max(1e-3, 32 * epsilon) * max(1.0, float(expected.abs().max()))  # TF32 or not
        torch.testing.assert_close(got, expected, atol=tolerance, rtol=0.0)
