"""Experiments with DPIG: the baselines learn and generate, pools are joined, figures are found."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from dgpose.data.person_pairs import PersonPairs, pose_pairs
from dgpose.data.synthetic_people import SyntheticPeople
from dgpose.metrics.dpig_evaluation import People
from dgpose.models.dpig import DPIG
from dgpose.train.training_run import TrainConfig
from experiments.dpig import people
from experiments.dpig.baselines import (
    NAMES,
    PG2,
    ImageVAE,
    generator_of_baseline,
    load_baseline,
    train_baseline,
)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads cost more than they bring on networks so small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def pairs() -> PersonPairs:
    rendered = SyntheticPeople(poses="kinematic", split="test", size=people.SIZE)
    return pose_pairs(rendered, 3)


def test_pools_as_one(pairs: PersonPairs) -> None:
    both = people.joined(*pairs)
    assert len(both) == 6
    assert torch.equal(both.images[3:], pairs.target.images)
    assert both.identity is not None
    assert both.identity[:3].equal(both.identity[3:])
    assert both.names == ()


@pytest.mark.parametrize("name", NAMES)
def test_a_baseline_learns(tmp_path: Path, pairs: PersonPairs, name: str) -> None:
    config = TrainConfig(tmp_path / "run", steps=1, accelerator="cpu")
    model, steps, _ = train_baseline(name, config, *pairs, pairs)
    assert model is not None
    assert steps == 1
    loaded = load_baseline(tmp_path / "run" / "weights.safetensors")
    source, target = (People.of(pool) for pool in pairs)
    one, other = generator_of_baseline(model), generator_of_baseline(loaded)
    made = one.reconstruct(source)
    assert made.shape == source.images.shape
    assert torch.allclose(made, other.reconstruct(source))
    assert (one.pose_guided is None) == (name == "whole-image VAE")
    if one.pose_guided is not None:
        # The pose that is asked for matters.
        assert not torch.allclose(one.pose_guided(source, target), made)
    else:
        drawn = one.draw["all drawn"](source, 0)
        assert not drawn.visible.any()
        assert not torch.allclose(drawn.images, one.draw["all drawn"](source, 1).images)


def test_baselines_are_of_the_size_of_stage_1() -> None:
    model = DPIG(people.DPIG_MODELS["DPIG, part crops"])
    stage1 = sum(p.numel() for part in (model.encoder, model.decoder) for p in part.parameters())
    for baseline in (PG2(), ImageVAE()):
        count = sum(weight.numel() for weight in baseline.parameters())
        assert 0.8 < count / stage1 < 1.25


def test_figures_of_a_result() -> None:
    result: dict[str, Any] = {
        "report": {
            "scores": {"pose-guided": {"mask_ssim": 0.5, "pck": {"0.2": 0.25}}},
            "diversity": {"pose": {"drawn": 2.0}},
        }
    }
    columns = {title: get for title, get, _ in people.columns("pose-guided")}
    assert columns["mask-SSIM"](result) == 0.5
    assert columns["PCK@0.2, %"](result) == 25
    assert people.diversity_of("pose", "drawn")(result) == 2
    assert people.diversity_of("background", "drawn")(result) is None


def test_each_model_has_a_file_of_its_own() -> None:
    keys = {people.key(name, seed) for name in people.MODELS for seed in range(2)}
    assert len(keys) == 2 * len(people.MODELS)
