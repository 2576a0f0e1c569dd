"""HandNet at each precision beside its peers with the same weights: one thread, batch 1.

Two tables a network (the published path and every shipped model): the network alone (a crop to its
joints), and the whole way from Python, a raw 640x480 frame and the hand's centre to joints in
millimetres, for which the peers crop with OpenCV and go back to millimetres in NumPy. Every call is
timed by itself: the median is p50, and p99 stands beside it.

Limits: the multiply-adds of the direct convolutions at the core's measured peak of each precision.
Winograd's convolutions need fewer, so HandNet may pass that of float32; no direct convolution can.
What each layer takes of its limit: `python -m benchmarks.hand_net_layers`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from .hand_engines import PEERS, checked, hand_net, spend_multiply_adds
from .hand_net_gpu import GPU_CASES as GPU_CASES  # for benchmarks.gpu
from .hand_networks import CAMERA, CENTER, SIZE, Floats, Network, frame, networks
from .harness import Case

OURS = "HandNet"
PRODUCTS = ("float32", "bfloat16", "int8")


def _crop() -> Floats:
    return np.random.default_rng(0).uniform(-1, 1, (1, 1, SIZE, SIZE)).astype(np.float32)


# ---- the peers ----


def _peer_alone(network: Network, name: str) -> Callable[[], Any]:
    precision, make = PEERS[name]
    run, crop = checked(network, make(network), precision), _crop()
    return lambda: run(crop)


def _peer_raw(network: Network, name: str) -> Callable[[], Any]:
    import cv2

    cv2.setNumThreads(1)
    precision, make = PEERS[name]
    run, depth = checked(network, make(network), precision), frame()
    return lambda: network.joints_mm(run(network.crop_with_opencv(depth)))


# ---- ours ----


def _hand_net(network: Network, precision: str) -> Any:
    net = hand_net(network, precision)
    checked(network, lambda crop: net(crop)[0], precision)
    return net


def _ours_alone(network: Network, precision: str) -> Callable[[], Any]:
    net, crop = _hand_net(network, precision), _crop()
    return lambda: net(crop)


def _ours_raw(network: Network, precision: str) -> Callable[[], Any]:
    net, depth = _hand_net(network, precision), frame()
    return lambda: net.run(depth, CAMERA, CENTER, **network.run_options())


def _limit(network: Network, precision: str) -> Callable[[], Any]:
    multiply_adds = hand_net(network, "float32").multiply_adds
    return lambda: spend_multiply_adds(multiply_adds, precision)


def _cases(network: Network) -> list[Case]:
    from dgpose_ext.hand_net.engine import PRECISIONS

    ways = (
        ("network alone", _ours_alone, _peer_alone, "crop [1, 1, 128, 128] to joints"),
        ("raw frame to mm", _ours_raw, _peer_raw, "640x480 uint16, centre given; peers use OpenCV"),
    )
    return [
        Case(
            name=f"{network.name}, {way}, batch 1",
            unit="frames",
            work=1,
            threads=1,
            contenders={
                **{f"{OURS}, {p}": partial(ours, network, p) for p in PRECISIONS},
                **{name: partial(peer, network, name) for name in PEERS},
                **{f"{p} peak, direct convolution": partial(_limit, network, p) for p in PRODUCTS},
            },
            ours=f"{OURS}, float32",
            limit="float32 peak, direct convolution",
            note=note,
            repeats=2,
            by_call=True,
        )
        for way, ours, peer, note in ways
    ]


CASES = [case for network in networks() for case in _cases(network)]
