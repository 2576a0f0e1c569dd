"""The hand network as one file for other programs: ONNX, an exported program, HandNet's own.

    export_hand("hand.onnx", "onnx")
    export_hand("hand.pt2", "program")  # torch.export.load("hand.pt2").module()(crops), torch alone
    export_hand("hand.net.safetensors", "safetensors")  # HandNet.load, and the C library

Every file is run right after it was written and compared with `dgpose_ext.HandNet`; one that
differs is not put in place. ONNX and the exported program say what goes in and comes out.
"""

from __future__ import annotations

import io
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

import dgpose_ext
import dgpose_ext.onnx
from dgpose.data.synthetic_hands import SyntheticHands
from dgpose.inference.hand_calibration import calibration_crops
from dgpose.inference.hand_estimator import CUBE_MM
from dgpose.model_zoo import model_path
from dgpose.nn.hand_regressor import CROP_SIZE, HandRegressor, load_weights
from dgpose.skeletons import NYU36
from dgpose_ext.hand_net import HandNet
from dgpose_ext.tensor_file import write_bytes_atomically

__all__ = ["OPSET", "PROGRAM_DESCRIPTION", "Export", "Format", "export_hand"]

Format = Literal["onnx", "program", "safetensors"]

OPSET = 18
"""Of ONNX, where no other is asked for."""

PROGRAM_DESCRIPTION = "dgpose.json"
"""Where an exported program keeps its description (`extra_files` of torch.export.load)."""

_TOLERANCE = {"float32": 1e-4, "bfloat16": 0.1, "int8": 0.1}
"""Largest difference from HandNet in float32, in crop coordinates: its own tolerance, and 15 mm,
which only a broken file reaches (0.4 and 2.9 mm were seen)."""

_INPUT, _OUTPUT = "crops", "joints"
_CROP = (
    "Depth in the cube of edge cube_mm around the hand's centre (u, v in pixels, mm): row j, "
    "column i is the pixel nearest to (u - hw_x + (i + 0.5) * 2 hw_x / 128, v - hw_y + (j + 0.5) "
    "* 2 hw_y / 128), hw_x = cube_mm/2 * fx / mm, hw_y = cube_mm/2 * fy / mm; its value is (depth "
    "in mm - mm) / (cube_mm/2) clamped to -1 (front) .. 1 (back, and where there is no depth)."
)
_JOINTS = (
    "(a, b, c) of each joint in crop coordinates, without unit: a right, b down, -1..1 over the "
    "crop, c depth, -1..1 over the cube. Pixel u + a hw_x, v + b hw_y; depth d = mm + c cube_mm/2 "
    "in mm; in mm from the camera, x right, y UP, z forward: ((pixel_u - cx) d / fx, "
    "-(pixel_v - cy) d / fy, d)."
)


@dataclass(frozen=True)
class Export:
    """A file that was written, and how it compares.

    Attributes:
        path: the file.
        bytes: its size.
        reference: what it was compared with: "HandNet", or "torch" where the compiled core is
            missing; either in float32.
        difference: largest |difference| of the joints on rendered crops, in crop coordinates.
        difference_mm: the same in millimetres, for a cube of 300 mm.
    """

    path: Path
    bytes: int
    reference: str
    difference: float
    difference_mm: float


def export_hand(
    path: str | Path,
    format: Format,
    *,
    model: str | Path = "accurate",
    precision: str = "float32",
    opset: int = OPSET,
) -> Export:
    """Writes a hand network to one file, atomically, and compares it with HandNet.

    The network takes crops [B, 1, 128, 128] float32 of `dgpose_ext.depth_crop` (cube normalisation,
    nearest) and gives joints [B, J, 3] in crop coordinates: a right, b down, both -1..1 over the
    crop, c depth from the centre in half cubes. The anchor regression is part of it.

    Args:
        path: the file; its folder is made, a file that is there is replaced.
        format: "onnx" (standard operators, any batch), "program" (`torch.export`, any batch, runs
            where torch alone is installed) or "safetensors" (HandNet's, also for dgpose_core).
        model: name of a shipped model, or a weight file of `save_weights`.
        precision: of HandNet's file, "float32", "bfloat16" or "int8" (calibrated on rendered
            crops); the others are float32.
        opset: version of the ONNX operators, 18 or later.

    Raises:
        ValueError: an unknown format, model, precision or opset, or a damaged weight file.
        FileNotFoundError: there is no such weight file.
        ModuleNotFoundError: onnx, onnxscript or onnxruntime is not installed (format "onnx").
        RuntimeError: what was written does not compute what HandNet does, and was removed; or
            the compiled core is missing (format "safetensors").
        OSError: the file cannot be written.
    """
    if format not in _WRITERS:
        raise ValueError(f"format must be one of {', '.join(_WRITERS)}, got {format!r}")
    if format != "safetensors" and precision != "float32":
        raise ValueError(f"precision must be float32 for format {format}, got {precision!r}")
    if format == "safetensors" and (why := dgpose_ext.why_no_core()):
        raise RuntimeError(f"format safetensors needs the compiled core. {why}")
    source = model_path(model)
    module, training = load_weights(source)
    task = _Task(module, _describe(module, str(model), source, training), precision, opset)
    crops = SyntheticHands(0, split="test", poses="kinematic").batch(range(4)).crop
    reference, expected = _reference(module, crops)

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        written = Path(folder) / path.name
        run = _WRITERS[format](task, written)
        difference = float((run(crops) - expected).abs().max())
        if not difference <= _TOLERANCE[precision]:
            raise RuntimeError(
                f"the {format} file differs from {reference} by {difference:.2g} in crop "
                f"coordinates, {_TOLERANCE[precision]:g} is allowed: nothing was written to {path}"
            )
        os.replace(written, path)
    return Export(path, path.stat().st_size, reference, difference, difference * CUBE_MM / 2)


def _reference(module: HandRegressor, crops: Tensor) -> tuple[str, Tensor]:
    if dgpose_ext.why_no_core():
        with torch.inference_mode():
            return "torch", module(crops)
    return "HandNet", HandNet.from_module(module)(crops)


def _describe(
    module: HandRegressor, model: str, source: Path, training: dict[str, Any]
) -> dict[str, Any]:
    """What goes in and comes out, for who has the file alone; JSON values."""
    card = source.with_suffix(".md")
    joints = module.config.joints
    return {
        "model": Path(model).name,
        "written_by": f"dgpose {dgpose_ext.__version__}",
        "input": {
            "name": _INPUT,
            "dtype": "float32",
            "shape": ["batch", 1, CROP_SIZE, CROP_SIZE],
            "meaning": _CROP,
        },
        "output": {
            "name": _OUTPUT,
            "dtype": "float32",
            "shape": ["batch", joints, 3],
            "meaning": _JOINTS,
        },
        "cube_mm": CUBE_MM,
        "hand": "right; mirror the crop and a for a left one",
        "joints": list(NYU36.joints) if joints == len(NYU36) else None,
        "training": training,
        "model_card": card.read_text(encoding="utf-8") if card.is_file() else None,
    }


# ---- one writer per format: the file, and how to run it ----

Run = Callable[[Tensor], Tensor]


class _Task(NamedTuple):
    module: HandRegressor
    description: dict[str, Any]
    precision: str
    opset: int

    def example(self) -> Tensor:
        """Not of batch 1, which would be taken for a constant."""
        return torch.zeros(2, 1, CROP_SIZE, CROP_SIZE)


def _write_onnx(task: _Task, path: Path) -> Run:
    if task.opset < OPSET:
        raise ValueError(f"opset must be at least {OPSET}, got {task.opset}")
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "ONNX export needs onnxruntime, to check what it wrote: run "
            "`pip install dgpose-ext[onnx]`",
            name=error.name,
        ) from None
    with _without_torchs_remarks():
        model = dgpose_ext.onnx.export(
            task.module,
            (task.example(),),
            input_names=[_INPUT],
            output_names=[_OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=task.opset,
            verbose=False,
        ).model_proto
    found = {entry.domain: entry.version for entry in model.opset_import}.get("")
    if found != task.opset:
        raise ValueError(f"opset must be one that torch can write, got {task.opset}")
    graph = model.graph
    for traced in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del traced.metadata_props[:]  # where in which file each op was called, on this machine
    model.producer_name = "dgpose"
    model.producer_version = dgpose_ext.__version__
    model.doc_string = "Hand joints from a depth crop; the metadata say what goes in and comes out."
    for value, key in ((graph.input[0], "input"), (graph.output[0], "output")):
        value.doc_string = task.description[key]["meaning"]
    for key, entry in task.description.items():
        text = entry if isinstance(entry, str) else json.dumps(entry)
        model.metadata_props.add(key=f"dgpose.{key}", value=text)
    write_bytes_atomically(path, model.SerializeToString())

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda crops: torch.from_numpy(session.run(None, {_INPUT: crops.numpy()})[0])


@contextmanager
def _without_torchs_remarks() -> Iterator[None]:
    """The exporter warns of what no user of this function can change: torchvision is not installed,
    torch calls a function of its own that will go."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logger.setLevel(level)


def _write_program(task: _Task, path: Path) -> Run:
    if path.suffix != ".pt2":
        raise ValueError(
            f"path must end in .pt2 for format program, torch.export.load asks for it, "
            f"got {path.name}"
        )
    batch = ({0: torch.export.Dim("batch")},)
    with torch.no_grad():
        program = torch.export.export(task.module, (task.example(),), dynamic_shapes=batch)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # names files of this machine
    buffer = io.BytesIO()
    torch.export.save(
        program, buffer, extra_files={PROGRAM_DESCRIPTION: json.dumps(task.description)}
    )
    write_bytes_atomically(path, buffer.getvalue())

    loaded = torch.export.load(path).module()

    def run(crops: Tensor) -> Tensor:
        with torch.no_grad():
            joints: Tensor = loaded(crops)
        return joints

    return run


def _write_safetensors(task: _Task, path: Path) -> Run:
    calibration = None
    if task.precision == "int8":
        calibration = calibration_crops()
    net = HandNet.from_module(task.module, task.precision, calibration=calibration)
    net.save(path)
    loaded = HandNet.load(path)

    def run(crops: Tensor) -> Tensor:
        joints: Tensor = loaded(crops)
        if not torch.equal(joints, net(crops)):
            raise RuntimeError(f"{path.name} does not compute what was saved")
        return joints

    return run


_WRITERS: dict[str, Callable[[_Task, Path], Run]] = {
    "onnx": _write_onnx,
    "program": _write_program,
    "safetensors": _write_safetensors,
}
