"""HandNet in bfloat16 and int8: against the reference of the graph that it runs, whose int8 maps it
must equal to the bit, and against the float32 module that the graph was made of."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_hand_net import Fork, Regressor, conv_graph, frame, randomise
from torch import Tensor, nn

from dgpose_ext import _loader
from dgpose_ext.hand_net import AnchorRegression, HandNet
from dgpose_ext.hand_net.graph import Graph, import_module
from dgpose_ext.hand_net.quantize import to_bfloat16, to_int8
from dgpose_ext.hand_net.reference import real_values, run_graph
from dgpose_ext.tensor_file import read_tensor_file, write_tensor_file

pytestmark = pytest.mark.skipif(_loader.core is None, reason=_loader.why_no_core() or "no core")

LOWER = ("bfloat16", "int8")
Shape = tuple[int, int, int]


def random_crops(shape: Shape, batch: int = 3, seed: int = 0) -> Tensor:
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(seed))


def lowered(graph: Graph, precision: str, crops: Tensor) -> Graph:
    return to_bfloat16(graph) if precision == "bfloat16" else to_int8(graph, [crops])


def check(graph: Graph, precision: str, share: float = 0.08, algorithm: str = "auto") -> HandNet:
    """The engine equals the reference, int8 to the bit (but for the softmax of anchors), and both
    are near float32: `share` of the output's standard deviation, in the mean square."""
    crops = random_crops(graph.input_shape)
    lower = lowered(graph, precision, crops)
    net = HandNet(lower, precision=precision, algorithm=algorithm)
    actual, expected = net(crops).flatten(1), run_graph(lower, crops)[-1].flatten(1)
    if precision == "bfloat16":  # Winograd's transforms round differently
        assert rms(actual - expected) <= 0.05 * float(expected.std())
    elif graph.layers[-1]["kind"] == "anchor_regression":
        torch.testing.assert_close(actual, expected, atol=2e-5, rtol=0.0)
    else:
        assert torch.equal(actual, expected)
    exact = run_graph(graph, crops)[-1].flatten(1)
    assert rms(actual - exact) <= share * float(exact.std())
    return net


def rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())


# ---- the reference, and what makes the graphs ----


@pytest.mark.parametrize("variant", ["two residuals", "two enlarged maps", "in place on a clone"])
def test_reference_in_float32(variant: str) -> None:
    module = Fork(variant).eval()
    crops = random_crops((3, 8, 8))
    maps = run_graph(import_module(module, (3, 8, 8)), crops)
    with torch.no_grad():
        torch.testing.assert_close(maps[-1], module(crops), atol=1e-5, rtol=1e-5)


def test_codes_are_the_nearest() -> None:
    """By hand: an input of uint8 and its scale."""
    graph = import_module(nn.Sequential(nn.ReLU(), nn.Conv2d(1, 1, 1)), (1, 2, 2))
    crops = torch.tensor([[[[-1.0, 1.0], [0.6, -0.003]]]])
    lower = to_int8(graph, [crops])
    codes, rectified, _ = run_graph(lower, crops)
    # Range -1..1, zero point round(127.5) = 128, one code 1/127: 0.6 * 127 = 76.2.
    assert codes.flatten().tolist() == [1, 255, 204, 128]
    assert lower.layers[1]["zero_point"] == 0
    assert rectified.flatten().tolist() == [0, 255, 153, 0]  # 255 codes for 0..1; 76/127 * 255
    real = real_values(lower, 0, codes).flatten()
    torch.testing.assert_close(real, crops.flatten(), atol=0.5 / 127, rtol=0.0)


@pytest.mark.parametrize("kernel", [1, 2, 3, 5, 6, 7])
@pytest.mark.parametrize("stride", [2, 3, 4])
@pytest.mark.parametrize("precision", LOWER)
def test_stride_over_a_narrow_input_is_folded(kernel: int, stride: int, precision: str) -> None:
    """A convolution that steps over one channel reads it unshuffled, and means the same."""
    for padding in range((kernel + 1) // 2 + 1):
        shape = (1, 24, 36)
        conv = nn.Conv2d(1, 5, kernel, stride=stride, padding=padding)
        graph = conv_graph(conv, shape)
        crops = random_crops(shape)
        lower = lowered(graph, precision, crops)
        if (kernel, stride) == (6, 2):  # the published network's first layer
            assert lower.layers[0]["unshuffle"] == 2
        with torch.no_grad():
            expected = conv(crops)
        actual = run_graph(lower, crops)[-1]
        torch.testing.assert_close(
            actual, expected, atol=0.03 * float(expected.abs().max()), rtol=0
        )


# ---- the kernels ----


@pytest.mark.parametrize("precision", LOWER)
@pytest.mark.parametrize(
    "channels", [(1, 3), (2, 5), (3, 15), (15, 17), (16, 16), (17, 33), (33, 1), (48, 80)]
)
def test_channel_counts(channels: tuple[int, int], precision: str) -> None:
    graph = conv_graph(nn.Conv2d(*channels, 3, padding=1), (channels[0], 9, 13))
    for algorithm in ("auto", "direct", "winograd2", "winograd4"):
        check(graph, precision, algorithm=algorithm)


@pytest.mark.parametrize("precision", ["float32", *LOWER])
@pytest.mark.parametrize(("factor", "planes"), [(2, 1), (4, 1), (2, 3), (3, 1)])
def test_unshuffled_inputs(factor: int, planes: int, precision: str) -> None:
    conv = nn.Conv2d(planes * factor**2, 5, 3, padding=1)
    graph = conv_graph(conv, (planes * factor**2, 3, 270))
    graph.layers[0]["unshuffle"] = factor
    graph = replace(graph, input_shape=(planes, 3 * factor, 270 * factor))
    if precision != "float32":
        check(graph, precision)
        return
    crops = random_crops(graph.input_shape)
    torch.testing.assert_close(HandNet(graph)(crops), run_graph(graph, crops)[-1])


@pytest.mark.parametrize("slope", [0.0, 0.2, 1.0, 1.5])
@pytest.mark.parametrize("shrink", [1.0, 1e-12])
def test_codes_saturate(slope: float, shrink: float) -> None:
    """Crops beyond the calibrated range, and values beyond int32."""
    convs = [nn.Conv2d(3, 40, 3, padding=1), nn.LeakyReLU(slope), nn.Conv2d(40, 3, 3)]
    graph = import_module(nn.Sequential(*convs).eval(), (3, 7, 17))
    crops = random_crops((3, 7, 17))
    lower = to_int8(graph, [crops / 4])
    scale = lower.layers[1]["scale"]
    lower.tensors[scale] = lower.tensors[scale] * np.float32(shrink)
    codes = run_graph(lower, crops)[1]
    assert (codes == 255).any()
    assert (codes == codes.min()).sum() > 10
    assert torch.equal(HandNet(lower, precision="int8")(crops), run_graph(lower, crops)[-1])


@pytest.mark.parametrize("precision", LOWER)
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 7), (8, 8), (13, 31), (16, 17)])
@pytest.mark.parametrize("stride", [1, 2])
def test_3x3_sizes(size: tuple[int, int], stride: int, precision: str) -> None:
    for padding in (0, 1, 2):
        if min(size) + 2 * padding >= 3:
            conv = nn.Conv2d(17, 16, 3, stride=stride, padding=padding)
            check(conv_graph(conv, (17, *size)), precision)


@pytest.mark.parametrize("precision", LOWER)
@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 1, "stride": 2},
        {"kernel_size": 3, "dilation": 2, "padding": 2},
        {"kernel_size": 6, "stride": 2, "padding": 2},
        {"kernel_size": (3, 1), "padding": (1, 0)},
        {"kernel_size": (2, 5), "stride": (1, 3), "padding": (0, 2)},
    ],
)
def test_convolutions(options: dict[str, Any], precision: str) -> None:
    for channels in (1, 17):
        check(conv_graph(nn.Conv2d(channels, 20, **options), (channels, 19, 23)), precision)


@pytest.mark.parametrize("precision", LOWER)
@pytest.mark.parametrize(
    "layers",
    [
        [nn.MaxPool2d(3, stride=2, padding=1)],
        [nn.AvgPool2d(3, stride=2, padding=1)],
        [nn.AdaptiveAvgPool2d((3, 2)), nn.Conv2d(18, 4, 1)],
        [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(18, 6), nn.Unflatten(1, (2, 3))],
        [nn.Upsample(scale_factor=3), nn.ReLU(), nn.Conv2d(18, 4, 1)],
        [nn.LeakyReLU(0.3), nn.Conv2d(18, 5, 3)],
        [nn.Flatten(), nn.Linear(18 * 77, 40), nn.BatchNorm1d(40), nn.ReLU(), nn.Linear(40, 9)],
    ],
    ids=lambda layers: "-".join(type(layer).__name__ for layer in layers),
)
@pytest.mark.parametrize("after_conv", [False, True])
def test_other_layers(layers: list[nn.Module], after_conv: bool, precision: str) -> None:
    torch.manual_seed(0)
    first = [nn.Conv2d(18, 18, 3, padding=1), nn.LeakyReLU(0.1)] if after_conv else []
    module = randomise(nn.Sequential(*first, *layers)).eval()
    check(import_module(module, (18, 11, 7)), precision)


@pytest.mark.parametrize("precision", LOWER)
@pytest.mark.parametrize(
    "variant", ["residual of a later map", "two residuals", "twice the same", "two enlarged maps"]
)
def test_sums(variant: str, precision: str) -> None:
    torch.manual_seed(1)
    check(import_module(Fork(variant).eval(), (3, 8, 8)), precision)


@pytest.mark.parametrize("precision", LOWER)
def test_whole_regressor(precision: str) -> None:
    torch.manual_seed(0)
    graph = import_module(randomise(Regressor()).eval(), (1, 48, 32))
    net = check(graph, precision, share=0.2)
    elements = [layer.get("element", "float32") for layer in net.graph.layers]
    assert elements[-2:] == ["float32"] * 2
    assert set(elements[:-2]) == {"uint8" if precision == "int8" else "bfloat16"}


def test_mixed_elements() -> None:
    """Each map on its own: float32, bfloat16 and uint8 meet in residuals, sums and pools."""
    torch.manual_seed(2)
    module = Fork("two residuals").eval()
    graph, crops = import_module(module, (3, 8, 8)), random_crops((3, 8, 8))
    expected = run_graph(graph, crops)[-1]
    count = len(graph.layers)
    for kept in range(count - 1):
        for element in ("float32", "bfloat16"):
            lower, real = to_int8(graph, [crops]), to_bfloat16(graph)
            lower.tensors |= {f"real {name}": value for name, value in real.tensors.items()}
            lower.layers[kept] = {**lower.layers[kept], "element": element}
            for key in ("scale", "zero_point"):
                del lower.layers[kept][key]
            for layer, floating in zip(lower.layers, real.layers, strict=True):
                if layer.get("input") == kept:  # a float map is met by float weights
                    layer["weight"] = f"real {floating['weight']}"
                    del layer["weight_scale"]
            net = HandNet(lower, precision="int8")
            reference = run_graph(lower, crops)[-1]
            assert rms(net(crops) - reference) < 0.02  # what is not exact may tip a code over
            assert rms(reference - expected) < 0.05


def test_not_finite() -> None:
    conv = nn.Conv2d(1, 4, 3, padding=1)
    crops = random_crops((1, 8, 9))
    nets = {
        precision: HandNet.from_module(
            conv,
            precision,
            input_shape=(1, 8, 9),
            calibration=crops if precision == "int8" else None,
        )
        for precision in LOWER
    }
    for y, x in ((0, 0), (4, 4), (7, 8)):
        for bad in (float("nan"), float("inf")):
            frames = crops.clone()
            frames[1, 0, y, x] = bad
            result = nets["int8"](frames)
            assert bool(result[1].isnan().all())
            assert torch.equal(result[::2], nets["int8"](crops)[::2])
        assert bool(
            nets["bfloat16"](frames.nan_to_num(posinf=float("nan")))[1, :, y, x].isnan().all()
        )


def test_codes_are_clamped() -> None:
    """Crops far beyond the calibration saturate, and don't wrap round."""
    conv = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.ReLU(), nn.Conv2d(1, 1, 1, bias=False))
    nn.init.ones_(conv[0].weight)
    nn.init.ones_(conv[2].weight)
    net = HandNet.from_module(
        conv, "int8", input_shape=(1, 1, 4), calibration=torch.linspace(-1, 1, 40).view(-1, 1, 1, 4)
    )
    crops = torch.tensor([[[[-1e30, 5.0, 1e9, 3e38]]]])
    torch.testing.assert_close(
        net(crops).flatten(), torch.tensor([0.0, 1, 1, 1]), atol=0.02, rtol=0
    )


# ---- the interface ----


@pytest.mark.parametrize("precision", LOWER)
def test_save_and_load(precision: str, tmp_path: Path) -> None:
    torch.manual_seed(3)
    module, crops = Regressor().eval(), random_crops((1, 48, 32))
    net = HandNet.from_module(
        module,
        precision,
        input_shape=(1, 48, 32),
        calibration=iter([crops[:2].numpy(), crops[2:]]) if precision == "int8" else None,
    )
    assert net.precision == precision
    assert precision in repr(net)
    net.save(tmp_path / "net")
    again = HandNet.load(tmp_path / "net")
    assert again.precision == precision
    assert torch.equal(again(crops), net(crops))
    assert again.graph.layers == net.graph.layers
    read_tensor_file(tmp_path / "net", kind="hand_net", version=2)
    with pytest.raises(ValueError, match=r"of version 1, got hand_net of version 2"):
        read_tensor_file(tmp_path / "net", kind="hand_net", version=1)
    if precision == "int8":
        whole = HandNet.from_module(module, "int8", input_shape=(1, 48, 32), calibration=crops)
        assert torch.equal(whole(crops), net(crops))
        exact = HandNet.from_module(module, input_shape=(1, 48, 32))
        assert net.weight_bytes < 0.4 * exact.weight_bytes
        exact.save(tmp_path / "exact")
        read_tensor_file(tmp_path / "exact", kind="hand_net", version=1)  # as it ever was
        assert (tmp_path / "net").stat().st_size < 0.4 * (tmp_path / "exact").stat().st_size


def damaged_layer(change: str, layer: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    if change == "scale of zero":
        tensors[layer["scale"]][0] = 0.0
    elif change == "too few scales":
        tensors[layer["scale"]] = tensors[layer["scale"]][:-1].clone()
    elif change == "zero point of 300":
        layer["zero_point"] = 300
    elif change == "float weights":
        tensors[layer["weight"]] = tensors[layer["weight"]].float()
    elif change == "no such tensor":
        layer["weight_scale"] = "nowhere"
    elif change == "unknown element":
        layer["element"] = "int4"
    else:
        del layer["element"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("scale of zero", "scales of a map must be positive and finite"),
        ("too few scales", "scale must have 17 elements, got 16"),
        ("zero point of 300", "zero point of 0 to 255"),
        ("float weights", "weight must be C-contiguous float32, or int8 with a scale"),
        ("no such tensor", "nowhere"),
        ("unknown element", "int4"),
        ("no element", "int8 weights belong to a layer that reads uint8"),
    ],
)
def test_damaged_files(change: str, message: str, tmp_path: Path) -> None:
    graph = import_module(Regressor().eval(), (1, 48, 32))
    net = HandNet(to_int8(graph, [random_crops((1, 48, 32))]), precision="int8")
    net.save(tmp_path / "net")
    tensors, plan = read_tensor_file(tmp_path / "net", kind="hand_net", version=2)
    damaged_layer(change, plan["layers"][1], tensors)
    write_tensor_file(tmp_path / "net", tensors, kind="hand_net", version=2, metadata=plan)
    with pytest.raises(ValueError, match=f"does not describe a network: (.|\n)*{message}"):
        HandNet.load(tmp_path / "net")


@pytest.mark.parametrize(
    ("precision", "calibration", "message"),
    [
        ("int8", None, r"needs calibration, crops \[N, 1, 16, 16\] float32 .* got None"),
        (
            "bfloat16",
            torch.zeros(1, 1, 16, 16),
            "calibration is for precision='int8', got .*bfloat",
        ),
        ("int8", torch.zeros(1, 16, 16), r"shape \[N, 1, 16, 16\].*got \[1, 16, 16\]"),
        ("int8", torch.zeros(1, 1, 16, 16).double(), "dtype float32, got .* float64"),
        ("int8", torch.full((1, 1, 16, 16), torch.nan), "finite, got NaN or Inf"),
        ("int8", torch.zeros(0, 1, 16, 16), "at least one crop, got none"),
        ("int8", [], "at least one crop, got none"),
        ("int4", None, "precision must be one of float32, bfloat16, int8, got 'int4'"),
    ],
    ids=str,
)
def test_refusals(precision: str, calibration: Any, message: str) -> None:
    module = nn.Conv2d(1, 2, 3)
    with pytest.raises(ValueError, match=message):
        HandNet.from_module(module, precision, input_shape=(1, 16, 16), calibration=calibration)


def test_builder_refuses_what_cannot_be_run() -> None:
    core = _loader.core
    assert core is not None
    uint8 = core.HandNetElement.uint8
    ones = np.ones(16, np.float32)

    def builder(channels: int = 16) -> Any:
        made = core.HandNetBuilder((channels, 1, 1))
        made.store_as(made.add_input(1), uint8, np.ones(channels, np.float32), 0)
        return made

    made = builder()
    with pytest.raises(ValueError, match="the map that is the output must be stored as float32"):
        made.finish(0)
    made = builder()
    made.add_anchor_regression(made.add_sum(None, 0, 1, 1.0))
    made.store_as(1, uint8, ones, 0)
    with pytest.raises(ValueError, match="the map that anchor regression reads must be stored as"):
        made.finish(2)
    made = builder(2**17)
    codes = np.full((1, 2**17, 1, 1), 127, np.int8)
    made.add_conv(0, codes, ones[:1], (1, 1), (0, 0), (1, 1), 1.0, None, ones[:1])
    with pytest.raises(ValueError, match="sums of a layer with int8 weights must fit int32"):
        made.finish(1)
    made = core.HandNetBuilder((16, 1, 1))
    made.store_as(made.add_input(1), uint8, np.arange(1, 17, dtype=np.float32), 0)
    made.add_sum(None, 0, 1, 1.0)
    with pytest.raises(ValueError, match="the input's channels must have one scale"):
        made.finish(1)


def test_run_from_depth_to_joints() -> None:
    torch.manual_seed(5)
    module, camera = Regressor().eval(), (300.0, 310.0, 158.0, 121.0)
    crops = random_crops((1, 32, 32), 8).clamp(-1, 1)
    exact = HandNet.from_module(module, input_shape=(1, 32, 32)).run(frame(), camera)
    for precision in LOWER:
        net = HandNet.from_module(
            module,
            precision,
            input_shape=(1, 32, 32),
            calibration=crops if precision == "int8" else None,
        )
        np.testing.assert_allclose(net.run(frame(), camera).joints_mm, exact.joints_mm, atol=3.0)


def test_peaks_can_be_spent() -> None:
    core = _loader.core
    assert core is not None
    for element in core.HandNetElement.__members__.values():
        core.spend_multiply_adds(10_000, element)


# ---- every instruction set ----


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Networks (*.net) of both precisions, with crops and what becomes of them here (*.npz)."""
    torch.manual_seed(6)
    folder = tmp_path_factory.mktemp("networks")
    linear = [nn.AvgPool2d(2), nn.Flatten(), nn.Linear(3 * 18 * 5, 40), nn.LeakyReLU(0.1)]
    modules: dict[str, tuple[nn.Module, Shape]] = {
        "regressor": (randomise(Regressor()), (1, 48, 32)),
        "many joints": (nn.Sequential(nn.Conv2d(3, 144, 1), AnchorRegression(36)), (3, 9, 5)),
        "odd channels": (nn.Sequential(nn.Conv2d(33, 47, 3), nn.Conv2d(47, 1, 3)), (33, 13, 11)),
        "linear": (nn.Sequential(nn.Conv2d(1, 3, 6, 2), *linear, nn.Linear(40, 7)), (1, 76, 24)),
        "sums": (Fork("two enlarged maps"), (3, 8, 8)),
    }
    for name, (module, shape) in modules.items():
        crops = random_crops(shape)
        for precision in LOWER:
            net = HandNet.from_module(
                module.eval(),
                precision,
                input_shape=shape,
                calibration=crops / 2 if precision == "int8" else None,  # the rest saturates
            )
            net.save(folder / f"{name} {precision}.net")
            np.savez(
                folder / f"{name} {precision}.npz", crops=crops.numpy(), expected=net(crops).numpy()
            )
    return folder


@pytest.mark.parametrize(
    ("capability", "extensions"),
    [("scalar", ""), ("avx2", "none"), ("avx2", ""), ("avx512", "none"), ("avx512", "")],
)
def test_every_capability(capability: str, extensions: str, files: Path) -> None:
    core = _loader.core
    assert core is not None
    levels = ["scalar", "avx2", "avx512"]
    if levels.index(capability) > levels.index(core.detected_cpu_capability()):
        pytest.skip(f"this processor has {core.detected_cpu_capability()}")
    result = subprocess.run(
        [sys.executable, "-c", CHILD, str(files)],
        env={
            **os.environ,
            "DGPOSE_CPU_CAPABILITY": capability,
            "DGPOSE_CPU_EXTENSIONS": extensions,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == [capability, "10"]


CHILD = """
import sys
from pathlib import Path
import numpy as np
from dgpose_ext import _loader
from dgpose_ext.hand_net import HandNet

checked = 0
for path in Path(sys.argv[1]).glob("*.net"):
    arrays = np.load(path.with_suffix(".npz"))
    net, expected = HandNet.load(path), arrays["expected"]
    actual = net(arrays["crops"])
    if net.precision == "int8":  # anchors included
        np.testing.assert_array_equal(actual, expected, str(path))
    else:
        np.testing.assert_allclose(actual, expected, rtol=0, atol=0.03 * np.abs(expected).max())
    checked += 1
print(_loader.core.cpu_capability(), checked)
"""


def test_unknown_extensions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    core = _loader.core
    assert core is not None
    monkeypatch.setenv("DGPOSE_CPU_EXTENSIONS", "amx")
    with pytest.raises(RuntimeError, match="EXTENSIONS must be none or unset, got amx"):
        core.cpu_features()
    monkeypatch.setenv("DGPOSE_CPU_EXTENSIONS", "none")
    assert not any(core.cpu_features().values())
