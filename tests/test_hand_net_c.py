"""dgpose_core and examples/cpp: HandNet without Python, with the bits of HandNet in Python."""

from __future__ import annotations

import ctypes
import functools
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

import dgpose_ext
from dgpose_ext import _loader
from dgpose_ext.hand_net import AnchorRegression, HandNet
from dgpose_ext.hand_net.engine import PRECISIONS
from dgpose_ext.hand_net.graph import Graph

pytest.importorskip("safetensors")
if _loader.core is None:
    pytest.skip(_loader.why_no_core(), allow_module_level=True)

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "c_library"  # kept: the next run compiles what changed
CAMERA = (480.0, 475.0, 160.0, 120.0)


def cmake(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["cmake", *map(str, arguments)], capture_output=True, text=True)


def succeed(*arguments: str | Path) -> None:
    result = cmake(*arguments)
    assert result.returncode == 0, result.stdout + result.stderr


def unavailable(reason: str) -> None:
    """Skips, or fails under DGPOSE_REQUIRE_DATA=1 (CI)."""
    if os.environ.get("DGPOSE_REQUIRE_DATA") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def install(shared: bool, prefix: Path) -> Path:
    """The prefix, with dgpose_core in it; the second kind of library is only linked anew."""
    options = ("-DDGPOSE_BUILD_MODULE=OFF", "-DDGPOSE_BUILD_C_LIBRARY=ON")
    kind = f"-DBUILD_SHARED_LIBS={'ON' if shared else 'OFF'}"
    result = cmake("-S", ROOT, "-B", BUILD, "-G", "Ninja", *options, kind)
    if "apt install nlohmann-json3-dev" in result.stderr:
        unavailable("no nlohmann-json (apt install nlohmann-json3-dev)")
    assert result.returncode == 0, result.stdout + result.stderr
    succeed("--build", BUILD, "--target", "dgpose_core")
    succeed("--install", BUILD, "--prefix", prefix)
    return prefix


def build_example(prefix: Path, folder: Path) -> Path:
    """The program, compiled as a user would, with all warnings as errors."""
    warnings = "-DCMAKE_C_FLAGS=-Wall -Wextra -Wpedantic -Wconversion -Werror"
    found = f"-DCMAKE_PREFIX_PATH={prefix}"
    succeed("-S", ROOT / "examples" / "cpp", "-B", folder, "-G", "Ninja", warnings, found)
    succeed("--build", folder)
    return folder / "hand_from_depth"


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """dgpose_core, shared, as installed."""
    if not shutil.which("cmake") or not shutil.which("ninja"):
        unavailable("cmake or ninja is not installed")
    return install(True, tmp_path_factory.mktemp("installed"))


@pytest.fixture(scope="module")
def example(prefix: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """examples/cpp, built against it."""
    return build_example(prefix, tmp_path_factory.mktemp("example"))


@pytest.fixture(scope="module")
def library(prefix: Path) -> ctypes.CDLL:
    """The interface, as a foreign language sees it."""
    (path,) = prefix.glob("lib*/libdgpose_core.so")
    core = ctypes.CDLL(str(path))
    core.dgpose_last_error.restype = ctypes.c_char_p
    core.dgpose_version.restype = ctypes.c_char_p
    core.dgpose_hand_net_precision.restype = ctypes.c_char_p
    core.dgpose_hand_net_output_size.restype = ctypes.c_int64
    return core


class Regressor(nn.Module):
    """Every kind of layer that a file may hold, in odd sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(16, 17, 3, padding=1)
        self.down = nn.Conv2d(17, 33, 3, stride=2, padding=1)
        self.same = nn.Conv2d(33, 33, 3, padding=1)
        self.skip = nn.Conv2d(17, 33, 1)
        self.head = nn.Conv2d(33, 20, (3, 2), dilation=(1, 2), padding=(1, 1))
        self.anchors = AnchorRegression(5)

    def forward(self, crops: Tensor) -> Tensor:
        wide = F.leaky_relu(self.stem(F.pixel_unshuffle(crops, 4)), 0.3)
        x = F.relu(self.down(wide))
        x = F.relu(x + self.same(x))
        x = F.interpolate(F.max_pool2d(x, 2), scale_factor=4.0, mode="nearest") + self.skip(wide)
        result: Tensor = self.anchors(self.head(F.avg_pool2d(F.relu(x), 3, 2, padding=1)))
        return result


def flat() -> nn.Module:
    """A network that ends in linear layers."""
    return nn.Sequential(
        nn.Conv2d(2, 9, 5), nn.ReLU(), nn.Flatten(), nn.Linear(54, 7), nn.ReLU(), nn.Linear(7, 6)
    )


def hand_regressor() -> nn.Module:
    """The architecture that is shipped."""
    from dgpose.nn.hand_regressor import HandRegressor

    return HandRegressor()


NETWORKS: dict[str, tuple[Any, tuple[int, int, int]]] = {
    "every layer": (Regressor, (1, 48, 48)),
    "flat": (flat, (2, 6, 7)),
    "hand": (hand_regressor, (1, 128, 128)),
}


def random_crops(shape: tuple[int, ...]) -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float32)


@functools.cache
def network(name: str, precision: str = "float32") -> HandNet:
    """One of NETWORKS with random weights."""
    torch.manual_seed(0)
    make, shape = NETWORKS[name]
    calibration = random_crops(shape) if precision == "int8" else None
    return HandNet.from_module(make(), precision, input_shape=shape, calibration=calibration)


def test_networks_hold_every_kind_of_layer() -> None:
    kinds = {layer["kind"] for name in NETWORKS for layer in network(name).graph.layers}
    assert kinds == set(re.findall(r"^    - (\w+):", Graph.__doc__ or "", re.MULTILINE))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", NETWORKS)
def test_same_bits_as_python(
    library: ctypes.CDLL, name: str, precision: str, tmp_path: Path
) -> None:
    net = network(name, precision)
    net.save(tmp_path / "net")
    handle = ctypes.c_void_p()
    status = library.dgpose_hand_net_load(bytes(tmp_path / "net"), ctypes.byref(handle))
    assert status == 0, library.dgpose_last_error()
    assert library.dgpose_hand_net_precision(handle).decode() == precision
    crops = random_crops(net.input_shape)
    want = net(crops)
    got = np.empty_like(want)
    assert library.dgpose_hand_net_output_size(handle) == want[0].size
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in (crops, got)]
    status = library.dgpose_hand_net_forward(handle, pointers[0], ctypes.c_int64(3), pointers[1])
    assert status == 0, library.dgpose_last_error()
    assert np.array_equal(got, want)
    library.dgpose_hand_net_free(handle)


def test_version(library: ctypes.CDLL) -> None:
    assert library.dgpose_version().decode() == dgpose_ext.__version__
    assert library.dgpose_abi_version() == 1


@pytest.mark.skipif(not shutil.which("nm"), reason="needs nm (binutils)")
def test_exports_its_interface_and_nothing_else(prefix: Path) -> None:
    (path,) = prefix.glob("lib*/libdgpose_core.so")
    listing = subprocess.run(
        ["nm", "-D", "--defined-only", path], capture_output=True, text=True, check=True
    )
    exported = {line.split()[-1].partition("@")[0] for line in listing.stdout.splitlines()}
    header = (prefix / "include" / "dgpose" / "hand_net_c.h").read_text()
    declared = set(re.findall(r"^DGPOSE_API .*?\b(dgpose_\w+)\(", header, re.MULTILINE))
    assert exported - {"DGPOSE_1"} == declared


# ---- the example ----


def frame() -> NDArray[np.uint16]:
    """A bumpy surface of a hand's size before a wall, with holes."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:240, :320]
    depth = np.full((240, 320), 1400, np.uint16)
    hand = ((x - 170) / 60) ** 2 + ((y - 125) / 70) ** 2 < 1
    surface = 600 + 40 * np.sin(x / 17) * np.cos(y / 23) + rng.normal(0, 2, x.shape)
    depth[hand] = surface[hand].astype(np.uint16)
    depth[rng.random(depth.shape) < 0.01] = 0
    return depth


def write_pgm(path: Path, depth: NDArray[np.uint16]) -> Path:
    head = f"P5\n# depth in mm\n{depth.shape[1]} {depth.shape[0]}\n65535\n"
    path.write_bytes(head.encode() + depth.astype(">u2").tobytes())
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with net and frame.pgm."""
    folder = tmp_path_factory.mktemp("files")
    network("hand").save(folder / "net")
    write_pgm(folder / "frame.pgm", frame())
    return folder


def run(program: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """The program in an empty environment: no Python, no torch, no search path."""
    keep = {k: v for k, v in os.environ.items() if k == "DGPOSE_CPU_CAPABILITY"}
    return subprocess.run(
        [program, *map(str, arguments)], env=keep, capture_output=True, text=True, timeout=60
    )


def joints(result: subprocess.CompletedProcess[str]) -> NDArray[np.float32]:
    assert result.returncode == 0, result.stderr
    return np.array([line.split() for line in result.stdout.splitlines()], dtype=np.float32)


CAMERA_TEXT = ",".join(map(str, CAMERA))


@pytest.mark.parametrize("center", [None, (171.25, 124.5, 606.125)])
def test_example_equals_python(
    example: Path, files: Path, center: tuple[float, float, float] | None
) -> None:
    want = HandNet.load(files / "net").run(frame(), CAMERA, center)
    assert want.found
    given = [",".join(map(str, center))] if center else []
    got = joints(run(example, files / "net", files / "frame.pgm", CAMERA_TEXT, *given))
    assert np.array_equal(got, want.joints_mm)


def test_static_library_gives_the_same(
    example: Path, files: Path, tmp_path: Path, prefix: Path
) -> None:
    installed = install(False, tmp_path / "installed")
    assert list(installed.glob("lib*/libdgpose_core.a"))
    static = build_example(installed, tmp_path / "example")
    arguments = (files / "net", files / "frame.pgm", CAMERA_TEXT)
    assert np.array_equal(joints(run(static, *arguments)), joints(run(example, *arguments)))


def test_example_says_what_is_wrong(example: Path, files: Path, tmp_path: Path) -> None:
    network_bytes = (files / "net").read_bytes()
    (tmp_path / "short").write_bytes(network_bytes[:-1])
    (tmp_path / "changed").write_bytes(network_bytes[:-1] + bytes([network_bytes[-1] ^ 1]))
    (tmp_path / "frame.png").write_bytes(b"\x89PNG")
    empty = write_pgm(tmp_path / "empty.pgm", np.zeros((240, 320), np.uint16))

    def error(network: Path, depth: Path, camera: str = CAMERA_TEXT, code: int = 2) -> str:
        result = run(example, network, depth, camera)
        assert (result.returncode, result.stdout) == (code, "")
        return result.stderr.strip()

    good, net = files / "frame.pgm", files / "net"
    missing = tmp_path / "missing"
    assert error(missing, good) == f"error: network: {missing}: no such file"
    assert error(good, good).endswith("frame.pgm: not a safetensors file, or cut short")
    assert error(tmp_path / "short", good).endswith("lies outside the file")
    assert error(tmp_path / "changed", good).endswith(
        "checksum differs, the file was changed after it was written"
    )
    assert error(net, tmp_path / "frame.png").endswith("cannot be read as a binary PGM of 16 bits")
    assert error(net, good, "1,2,3").endswith("must be fx,fy,cx,cy in pixels")
    assert error(net, good, "-1,1,2,3").endswith("must be finite with fx, fy > 0")
    assert error(net, empty, code=1) == "no hand was found"
