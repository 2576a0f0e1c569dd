"""The benchmark of HandNet: peers get the frames HandNet gets, and wrong results are caught."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest
import torch

from dgpose.cli.bench import _harness
from dgpose_ext import _loader, depth_crop

pytestmark = pytest.mark.skipif(_loader.core is None, reason=_loader.why_no_core() or "no core")

harness = _harness()
networks = importlib.import_module("benchmarks.hand_networks")
engines = importlib.import_module("benchmarks.hand_engines")
layers = importlib.import_module("benchmarks.hand_net_layers")


@pytest.fixture(params=[0, 1], ids=["published path", "shipped model"])
def network(request: pytest.FixtureRequest) -> Any:
    return networks.networks()[request.param]


def test_opencv_makes_the_crop_of_depth_crop(network: Any) -> None:
    pytest.importorskip("cv2")
    depth = networks.frame()
    ours = depth_crop(
        torch.from_numpy(depth)[None],
        torch.tensor([networks.CENTER]),
        networks.CAMERA,
        network.cube_mm,
        normalize=network.normalize,
    ).numpy()
    theirs = network.crop_with_opencv(depth)
    assert theirs.shape == ours.shape
    assert theirs.min() == pytest.approx(ours.min(), abs=1e-5)
    # OpenCV rounds the places of the pixels to 1/32.
    assert (np.abs(ours - theirs) < 1e-5).mean() > 0.95


def test_results_are_checked(network: Any) -> None:
    net = engines.hand_net(network, "float32")
    assert engines.relative_error(network, lambda crop: net(crop)[0]) < 1e-4
    other = np.random.default_rng(0).standard_normal((36, 3)).astype(np.float32)
    with pytest.raises(ValueError, match="wrong results"):
        engines.checked(network, lambda _: other, "int8")


@pytest.mark.parametrize("index", [0, 1])  # the published path and a shipped model
def test_millimetres_are_those_of_run(index: int) -> None:
    network = networks.networks()[index]
    net = engines.hand_net(network, "float32")
    options = network.run_options()
    frame = net.run(networks.frame(), networks.CAMERA, networks.CENTER, **options)
    crop = depth_crop(
        torch.from_numpy(networks.frame())[None],
        torch.tensor([networks.CENTER]),
        networks.CAMERA,
        network.cube_mm,
        normalize=network.normalize,
    ).numpy()
    np.testing.assert_allclose(network.joints_mm(net(crop)[0]), frame.joints_mm, atol=1e-2)


def test_calls_are_timed_one_by_one() -> None:
    case = harness.Case("x", "calls", 1, 1, {}, "ours", by_call=True)
    times = harness.seconds_of_calls(lambda: None, seconds=1e-4)
    assert len(times) >= 200
    row = harness.spread(times, case.by_call)
    assert 0 < row["median_s"] <= row["p90_s"] <= row["p99_s"]
    assert "p99_s" not in harness.spread(times)


def test_layers_stand_against_the_peak() -> None:
    rows = layers.layers(networks.networks()[0], "float32", 1e9, repeats=1)
    assert sum(row["multiply_adds"] for row in rows) > 54e6
    for row in rows:
        if row["multiply_adds"]:
            expected = row["multiply_adds"] / row["median_s"] / 1e9
            assert row["share_of_peak"] == pytest.approx(expected)
    text = layers.table(
        {
            "network": "n",
            "precision": "float32",
            "peak_multiply_adds_per_s": 1e9,
            "layers": rows,
        }
    )
    assert len(text.splitlines()) == 1 + len(rows)
    assert "of the peak" in text
