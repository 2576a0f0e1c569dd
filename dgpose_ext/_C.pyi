"""The compiled core: what the *_bind.cpp of csrc/ define. Tensor ops are in torch.ops.dgpose."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

_Floats = npt.NDArray[np.float32]
_Shape = tuple[int, int, int]
_Capability = Literal["scalar", "avx2", "avx512"]

# csrc/torch/build_info_bind.cpp

def cpu_capability() -> _Capability: ...
def detected_cpu_capability() -> _Capability: ...
def cpu_features() -> dict[str, bool]: ...
def cpu_model_name() -> str: ...
def build_info() -> dict[str, str]: ...

# csrc/hand_net/hand_net_bind.cpp

class ConvAlgorithm:
    auto: ClassVar[ConvAlgorithm]
    direct: ClassVar[ConvAlgorithm]
    winograd2: ClassVar[ConvAlgorithm]
    winograd4: ClassVar[ConvAlgorithm]
    __members__: ClassVar[dict[str, ConvAlgorithm]]
    def __init__(self, value: int) -> None: ...
    @property
    def name(self) -> str: ...
    @property
    def value(self) -> int: ...

class HandNetElement:
    float32: ClassVar[HandNetElement]
    bfloat16: ClassVar[HandNetElement]
    uint8: ClassVar[HandNetElement]
    __members__: ClassVar[dict[str, HandNetElement]]
    def __init__(self, value: int) -> None: ...
    @property
    def name(self) -> str: ...
    @property
    def value(self) -> int: ...

def spend_multiply_adds(count: int, element: HandNetElement = ...) -> None: ...

class HandNetwork:
    def forward(self, crops: _Floats, out: _Floats) -> None: ...
    def run(
        self,
        depth: npt.NDArray[np.uint16] | _Floats,
        camera: Sequence[float],
        center: Sequence[float] | None,
        cube_mm: float,
        near: float,
        far: float,
        nearest_pixel: bool,
        metric: bool,
        unit_mm: float,
        joints_mm: _Floats,
        joints_uvd: _Floats,
    ) -> tuple[bool, float, float, float, float, float]: ...
    def profile(self, crop: _Floats, repeats: int) -> list[tuple[str, float, int]]: ...
    @property
    def input_shape(self) -> _Shape: ...
    @property
    def output_shape(self) -> _Shape: ...
    @property
    def multiply_adds(self) -> int: ...
    @property
    def workspace_bytes(self) -> int: ...
    @property
    def weight_bytes(self) -> int: ...

class HandNetBuilder:
    def __init__(self, input_shape: _Shape, algorithm: ConvAlgorithm = ...) -> None: ...
    def add_input(self, unshuffle: int) -> int: ...
    def add_conv(
        self,
        input: int,
        weight: _Floats | npt.NDArray[np.int8],
        bias: _Floats,
        stride: tuple[int, int],
        padding: tuple[int, int],
        dilation: tuple[int, int],
        slope: float,
        residual: int | None = None,
        scale: _Floats | None = None,
    ) -> int: ...
    def add_linear(
        self,
        input: int,
        weight: _Floats | npt.NDArray[np.int8],
        bias: _Floats,
        slope: float,
        scale: _Floats | None = None,
    ) -> int: ...
    def add_pool(
        self,
        input: int,
        kind: Literal["max", "average"],
        rows: tuple[Sequence[int], Sequence[int]],
        columns: tuple[Sequence[int], Sequence[int]],
        divisor: int,
    ) -> int: ...
    def add_sum(self, a: int | None, b: int, upsample: int, slope: float) -> int: ...
    def store_as(
        self,
        map: int,
        element: HandNetElement,
        scale: _Floats | None = None,
        zero_point: int = 0,
    ) -> None: ...
    def add_anchor_regression(self, input: int) -> int: ...
    def shape(self, arg0: int) -> _Shape: ...
    def finish(self, output: int) -> HandNetwork: ...

# csrc/scoring/pose_index_bind.cpp

class PoseIndexCore:
    def __init__(self, storage: int, dim: int, joints: int) -> None: ...
    @staticmethod
    def from_arrays(
        storage: int,
        dim: int,
        joints: int,
        rows: _Floats,
        poses: _Floats | None,
        ids: npt.NDArray[np.int64],
        mean: _Floats | None,
        panels: npt.NDArray[np.uint8] | None,
        bounds: _Floats | None,
    ) -> PoseIndexCore: ...
    def add(
        self,
        embeddings: _Floats,
        poses: _Floats | None,
        ids: npt.NDArray[np.int64] | None,
    ) -> None: ...
    def remove(self, ids: npt.NDArray[np.int64]) -> None: ...
    def search(
        self,
        queries: _Floats,
        k: int,
        allowed: npt.NDArray[np.uint64] | None,
        allowed_count: int,
        only_ids: npt.NDArray[np.int64] | None,
        targets: _Floats | None,
        margin_weight: float,
        mean_poses: bool,
    ) -> tuple[_Floats, npt.NDArray[np.int64], _Floats]: ...
    def poses(self, ids: npt.NDArray[np.int64]) -> _Floats: ...
    def reserve(self, count: int) -> None: ...
    def with_arrays(self, use: Callable[[dict[str, npt.NDArray[Any]]], object]) -> None: ...
    def count(self) -> int: ...
    def memory_bytes(self) -> int: ...
    def stats(self) -> dict[str, float]: ...
