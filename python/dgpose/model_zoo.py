"""The models that ship in the package, and what runs them.

A model is two files in `dgpose/weights`: NAME.safetensors, which says itself what kind of network
it holds, and NAME.md, its card, whose first table has the rows `summary` and `licence`. The folder
is the list of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import import_module, resources
from math import prod
from pathlib import Path
from typing import Any

from dgpose_ext.tensor_file import read_tensor_header

__all__ = ["ShippedModel", "load", "model_path", "shipped_models"]

_RUNS = {
    "crossing_nets": ("dgpose.inference.crossing_nets", "CrossingNetsEstimator"),
    "dgpose": ("dgpose.inference.person_generator", "PersonGenerator"),
    "dpig": ("dgpose.inference.person_factors", "PersonFactors"),
    "hand_regressor": ("dgpose.inference.hand_estimator", "HandEstimator"),
    "keypoint_network": ("dgpose.inference.person_keypoints", "KeypointEstimator"),
}
"""Kind of weight file to the class (module, name) whose `load` takes it."""

_SUFFIX = ".safetensors"


@dataclass(frozen=True)
class ShippedModel:
    """One model of the package.

    Attributes:
        name: what `load` takes.
        path: its weight file.
        kind: of network.
        summary: what it does, as its card says.
        licence: likewise, without what follows a semicolon.
        parameters: learned numbers.
        bytes: size of the file.
        card: text of its card, Markdown.
    """

    name: str
    path: Path
    kind: str
    summary: str
    licence: str
    parameters: int
    bytes: int
    card: str


def load(model: str | Path = "hand_accurate", **options: Any) -> Any:
    """What runs a model, ready to be called.

        dgpose.load("accurate", hand="left")(depth, camera)

    Args:
        model: name of a shipped model (`dgpose models` lists them; "hand_" may be left out), or a
            weight file.
        options: go to the class that runs it.

    Returns:
        `HandEstimator` for hand_accurate, hand_fast and other weights of a `HandRegressor`;
        `CrossingNetsEstimator` for crossing_nets and other weights of `CrossingNets`;
        `PersonGenerator` for person_semi, person_conditional and other weights of DGPose;
        `PersonFactors` for dpig_small and other weights of DPIG;
        `KeypointEstimator` for person_judge and other weights of a `KeypointNetwork`.

    Raises:
        ValueError: a name that no shipped model has, a damaged file, or one that holds no model.
        FileNotFoundError: there is no such file.
        TypeError, ValueError, RuntimeError: as from that class's `load`.
    """
    path = model_path(model)
    kind = read_tensor_header(path).kind
    if kind not in _RUNS:
        raise ValueError(f"{path}: must be weights of {' or '.join(_RUNS)}, got {kind}")
    module, name = _RUNS[kind]
    return getattr(import_module(module), name).load(model, **options)


def model_path(model: str | Path) -> Path:
    """The weight file of a shipped model ("default" is "accurate"), or the path that was given.

    Raises:
        ValueError: a name without suffix that no shipped model has.
    """
    if not isinstance(model, str) or Path(model).suffix or Path(model).name != model:
        return Path(model)
    name = "accurate" if model == "default" else model
    weights = _weights()
    for stem in (name, f"hand_{name}"):
        path = weights / f"{stem}{_SUFFIX}"
        if path.is_file():
            return path
    names = ", ".join(path.stem for path in _files()) or "none is shipped"
    raise ValueError(f"model must be a weight file or a shipped model ({names}), got {model!r}")


def shipped_models() -> list[ShippedModel]:
    """All of them, by name."""
    models = []
    for path in _files():
        header = read_tensor_header(path)
        card = path.with_suffix(".md").read_text(encoding="utf-8")
        learned = {
            name: shape for name, shape in header.shapes.items() if ".running_" not in name
        }  # without batch norm's statistics
        models.append(
            ShippedModel(
                path.stem,
                path,
                header.kind,
                _row(card, "summary"),
                _row(card, "licence").partition(";")[0],
                sum(prod(shape) for shape in learned.values()),
                path.stat().st_size,
                card,
            )
        )
    return models


def _weights() -> Path:
    return Path(str(resources.files("dgpose"))) / "weights"


def _files() -> list[Path]:
    return sorted(_weights().glob(f"*{_SUFFIX}"))


def _row(card: str, name: str) -> str:
    """The cell beside `name` in the table that a card begins with."""
    found = re.search(rf"^\| *{name} *\| *(.*?) *\|$", card, re.MULTILINE)
    return found[1] if found else ""
