"""The shipped models: each with a card, each loaded by its name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import dgpose
from dgpose import model_zoo
from dgpose.cli.app import app
from dgpose.model_zoo import ShippedModel, model_path, shipped_models
from dgpose.models.crossing_nets import CrossingNets, CrossingNetsConfig, save_crossing_nets
from dgpose.nn.hand_regressor import SIZES, HandRegressor, load_weights, save_weights
from dgpose_ext.tensor_file import write_tensor_file

MODELS = shipped_models()


def test_the_hand_models_are_there() -> None:
    assert {"hand_accurate", "hand_fast"} <= {model.name for model in MODELS}


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.name)
def test_every_model_has_a_card_and_runs(model: ShippedModel) -> None:
    assert model.card.startswith(f"# Model card: {model.name}\n")
    assert 10 < len(model.summary) < 90
    assert model.licence.startswith("Apache-2.0")
    assert model.bytes == model.path.stat().st_size
    by_hand_net = model.kind in ("crossing_nets", "hand_regressor")
    estimator = dgpose.load(model.name, **({"engine": "torch"} if by_hand_net else {}))
    assert estimator.info()["parameters"] == model.parameters
    assert f"{model.bytes:,} bytes" in model.card


def test_names_may_be_short() -> None:
    for size in SIZES:
        path = model_path(size)
        assert path == model_path(f"hand_{size}")
        assert load_weights(path)[0].config == SIZES[size]
    assert model_path("default") == model_path("accurate")
    left = dgpose.load("fast", hand="left", engine="torch")
    assert isinstance(left, dgpose.HandEstimator)
    assert left.info()["hand"] == "left"


def test_a_weight_file_says_what_runs_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    save_weights(HandRegressor(SIZES["fast"]), path)
    assert isinstance(dgpose.load(path, engine="torch"), dgpose.HandEstimator)
    assert isinstance(dgpose.load(str(path), engine="torch"), dgpose.HandEstimator)


def test_what_load_refuses(tmp_path: Path) -> None:
    names = ", ".join(model.name for model in MODELS)
    with pytest.raises(ValueError, match=rf"a shipped model \({names}\), got 'hand_exact'"):
        dgpose.load("hand_exact")
    with pytest.raises(FileNotFoundError, match="no such file"):
        dgpose.load(tmp_path / "none.safetensors")
    path = tmp_path / "other.safetensors"
    write_tensor_file(path, {"a": torch.ones(1)}, kind="poses", version=1, metadata={})
    with pytest.raises(ValueError, match=r"must be weights of crossing_nets or .*, got poses"):
        dgpose.load(path)
    with pytest.raises(TypeError, match="colour"):
        dgpose.load("fast", colour="red")


def test_the_folder_is_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of another system needs its two files, and nothing else."""
    monkeypatch.setattr(model_zoo, "_weights", lambda: tmp_path)
    with pytest.raises(ValueError, match=r"shipped model \(none is shipped\), got 'accurate'"):
        dgpose.load("accurate")
    config = CrossingNetsConfig.strong(image_size=32, channels=4, hidden=10, metric=8)
    nets = CrossingNets(config)
    save_crossing_nets(nets, tmp_path / "crossing_nets.safetensors")
    rows = "| task | all of it |\n| summary | hand poses |\n| licence | Apache-2.0; and names |\n"
    (tmp_path / "crossing_nets.md").write_text(f"# Model card: crossing_nets\n\n{rows}")
    (model,) = shipped_models()
    assert (model.name, model.kind) == ("crossing_nets", "crossing_nets")
    assert (model.summary, model.licence) == ("hand poses", "Apache-2.0")
    assert model.parameters == sum(parameter.numel() for parameter in nets.parameters())
    estimator = dgpose.load("crossing_nets", hand="left", engine="torch")
    assert isinstance(estimator, dgpose.CrossingNetsEstimator)
    assert estimator.info()["cube_mm"] == 250.0


def test_command() -> None:
    result = CliRunner().invoke(app, ["models"])
    assert result.exit_code == 0
    for model in MODELS:
        assert model.name in result.stdout
        assert f"{model.parameters:,}" in result.stdout
    card = CliRunner().invoke(app, ["models", "fast"])
    assert card.stdout.strip() == model_path("fast").with_suffix(".md").read_text().strip()
    wrong = CliRunner().invoke(app, ["models", "hand_exact"])
    assert wrong.exit_code == 2
    assert wrong.stderr.startswith("error: model must be a weight file or a shipped model (")
    assert CliRunner().invoke(app, ["models", "none.safetensors"]).exit_code == 2
