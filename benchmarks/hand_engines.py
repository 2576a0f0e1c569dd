"""HandNet's peers, each a function from a crop [1, 1, 128, 128] to [J, 3], on one thread.

Every engine gets the module's weights. The int8 engines are calibrated by their own tools, with the
same rendered crops as HandNet. Each is checked against torch before it is timed.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .hand_networks import CALIBRATION, CHECK, SIZE, Floats, Network

Engine = Callable[[Floats], Floats]

#: Largest error by precision: that of a crop's outputs (root mean square) over the standard
#: deviation of the network's outputs. An engine that computes something else is beyond 1.
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1, "int8": 0.8}


def checked(network: Network, engine: Engine, precision: str) -> Engine:
    """The engine.

    Raises:
        ValueError: its results are not the network's.
    """
    error = relative_error(network, engine)
    if not error <= TOLERANCE[precision]:
        raise ValueError(f"wrong results: error {error:.3g} of the outputs' spread")
    return engine


def relative_error(network: Network, engine: Engine) -> float:
    """Root mean square of (engine - torch), over the standard deviation of torch's outputs."""
    import torch

    crops = network.crops(CHECK, calibration=False)
    with torch.no_grad():
        expected = network.module()(torch.from_numpy(crops)).numpy()
    actual = np.stack([engine(crop[None]).reshape(expected.shape[1:]) for crop in crops])
    spread = float(expected.std(0).mean())
    return float(np.sqrt(np.square(actual - expected).mean())) / spread


def torch_eager(network: Network, *, channels_last: bool = False) -> Engine:
    """torch, op by op."""
    import torch

    module = network.module()
    if channels_last:
        module = module.to(memory_format=torch.channels_last)

    def run(crop: Floats) -> Floats:
        with torch.inference_mode():
            result: Floats = module(torch.from_numpy(crop))[0].numpy()
        return result.copy()

    return run


def torch_compiled(network: Network) -> Engine:
    """torch.compile with frozen weights."""
    import torch
    import torch._inductor.config as inductor

    inductor.freezing = True
    compiled = torch.compile(network.module())

    def run(crop: Floats) -> Floats:
        with torch.no_grad():
            result: Floats = compiled(torch.from_numpy(crop))[0].numpy()
        return result.copy()

    return run


def _onnx_file(network: Network, folder: Path) -> Path:
    import torch

    path = folder / "net.onnx"
    example = (torch.zeros(1, 1, SIZE, SIZE),)
    torch.onnx.export(
        network.module(), example, str(path), input_names=["crop"], dynamo=True, verbose=False
    )
    return path


def onnx_runtime(network: Network, precision: str) -> Engine:
    """ONNX Runtime; int8 by its static quantisation (QDQ, weights per channel)."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        path = _onnx_file(network, Path(folder))
        if precision == "int8":
            path = _onnx_int8(network, path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )

    def run(crop: Floats) -> Floats:
        result: Floats = session.run(None, {"crop": crop})[0][0]
        return result

    return run


def _onnx_int8(network: Network, path: Path) -> Path:
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.crops: Iterator[Floats] = iter(network.crops(CALIBRATION, calibration=True))

        def get_next(self) -> dict[str, Floats] | None:
            crop = next(self.crops, None)
            return None if crop is None else {"crop": crop[None]}

    prepared, result = path.with_name("prepared.onnx"), path.with_name("int8.onnx")
    quant_pre_process(str(path), str(prepared))
    quantize_static(
        str(prepared),
        str(result),
        Reader(),
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        # What has int8 kernels; the softmax and the votes after it stay in float32.
        op_types_to_quantize=["Conv", "Gemm", "MatMul", "Add", "LeakyRelu", "MaxPool", "Resize"],
        extra_options={"ForceQuantizeNoInputCheck": False},
    )
    return result


def openvino(network: Network, precision: str) -> Engine:
    """OpenVINO; int8 by NNCF's post-training quantisation."""
    import openvino as ov

    with tempfile.TemporaryDirectory() as folder:
        model = ov.convert_model(str(_onnx_file(network, Path(folder))))
    model.reshape([1, 1, SIZE, SIZE])
    settings: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": 1,
        "NUM_STREAMS": 1,
    }
    if precision == "int8":
        os.environ.setdefault("NNCF_CI", "1")  # no telemetry
        import nncf

        crops = network.crops(CALIBRATION, calibration=True)
        model = nncf.quantize(
            model,
            nncf.Dataset([crop[None] for crop in crops]),
            # Symmetric activations: here faster, and nearer to torch, than the other preset.
            preset=nncf.QuantizationPreset.PERFORMANCE,
            subset_size=CALIBRATION,
        )
    else:
        settings["INFERENCE_PRECISION_HINT"] = {"float32": "f32", "bfloat16": "bf16"}[precision]
    request = ov.Core().compile_model(model, "CPU", settings).create_infer_request()
    # Tensors bound once: passing them takes Python 50 us a call.
    tensor = ov.Tensor(np.zeros((1, 1, SIZE, SIZE), np.float32))
    request.set_input_tensor(tensor)
    request.infer()
    given, result = tensor.data, request.get_output_tensor().data[0]

    def run(crop: Floats) -> Floats:
        np.copyto(given, crop)
        request.infer()
        copied: Floats = result.copy()
        return copied

    return run


def spend_multiply_adds(count: int, precision: str) -> None:
    """The limit: that many multiply-adds on one core, with the instructions HandNet uses."""
    from dgpose_ext import _loader

    core = _loader.core
    assert core is not None
    element = "uint8" if precision == "int8" else precision
    core.spend_multiply_adds(count, core.HandNetElement.__members__[element])


def hand_net(network: Network, precision: str) -> Any:
    """The HandNet of the network; int8 calibrated with the peers' crops."""
    from dgpose_ext.hand_net import HandNet

    options: dict[str, Any] = {}
    if precision == "int8":
        options["calibration"] = network.crops(CALIBRATION, calibration=True)
    return HandNet.from_module(network.module(), precision=precision, **options)


#: name -> (precision, maker)
PEERS: dict[str, tuple[str, Callable[[Network], Engine]]] = {
    "torch eager": ("float32", torch_eager),
    "torch eager, channels_last": ("float32", lambda n: torch_eager(n, channels_last=True)),
    "torch.compile, frozen": ("float32", torch_compiled),
    "ONNX Runtime": ("float32", lambda n: onnx_runtime(n, "float32")),
    "ONNX Runtime, int8": ("int8", lambda n: onnx_runtime(n, "int8")),
    "OpenVINO, float32": ("float32", lambda n: openvino(n, "float32")),
    "OpenVINO, bfloat16": ("bfloat16", lambda n: openvino(n, "bfloat16")),
    "OpenVINO, int8": ("int8", lambda n: openvino(n, "int8")),
}
