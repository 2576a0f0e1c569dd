"""The network of re-identification: its training learns, resumes, and refuses what it must."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dgpose.data.person_pool import PersonPool
from dgpose.nn.reid_network import (
    ReidNetwork,
    ReidNetworkConfig,
    load_reid_network,
    save_reid_network,
)
from dgpose.train.reid import ReidTrainConfig, found_again, hardest_triplets, train_reid

TINY = ReidNetworkConfig((32, 16), (8, 8, 8, 8), stripes=2, embedding=8)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads cost more than they bring on networks so small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def people(persons: int, images: int, seed: int) -> PersonPool:
    """Everybody has a colour of their own."""
    generator = torch.Generator().manual_seed(seed)
    identity = torch.arange(persons).repeat(images)
    colors = torch.randint(0, 255, (persons, 3, 1, 1), generator=generator)[identity]
    noise = torch.randint(-40, 40, (len(identity), 3, 32, 16), generator=generator)
    joints = torch.zeros(len(identity), 18, dtype=torch.bool)
    return PersonPool(
        (colors + noise).clamp(0, 255).to(torch.uint8),
        torch.zeros(len(identity), 18, 2),
        joints,
        joints,
        identity,
        source=f"colours {seed}",
    )


def config(out: Path, **changes: Any) -> ReidTrainConfig:
    return ReidTrainConfig(
        out,
        network=TINY,
        **({"steps": 8, "persons": 4, "images": 3, "accelerator": "cpu"} | changes),
    )


def test_it_learns(tmp_path: Path) -> None:
    result = train_reid(
        config(tmp_path, steps=60, learning_rate=1e-2, tint=0.0), people(8, 6, 0), people(6, 4, 1)
    )
    assert result.finished
    assert result.steps == 60
    untrained = found_again(ReidNetwork(TINY).eval(), people(6, 4, 2)).mean_average_precision
    learned = found_again(result.model, people(6, 4, 2)).mean_average_precision
    assert learned > max(untrained, 0.7)
    network, facts = load_reid_network(tmp_path / "weights.safetensors")
    assert facts["persons"] == 8
    assert torch.equal(
        network.embed(people(2, 2, 3).images), result.model.embed(people(2, 2, 3).images)
    )


def test_a_resumed_run_goes_on_number_for_number(tmp_path: Path) -> None:
    pools = people(6, 3, 0), people(3, 2, 1)
    whole = train_reid(config(tmp_path / "whole"), *pools)

    class Stop(Exception):
        pass

    calls = 0

    def stopping(*_: Any) -> bool:
        nonlocal calls
        calls += 1
        return calls == 3

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dgpose.train.training_run.agree_to_stop", stopping)
        first = train_reid(config(tmp_path / "parts"), *pools)
    assert not first.finished
    second = train_reid(config(tmp_path / "parts", resume=True), *pools)
    assert (first.steps, second.steps) == (3, 8)
    for name, weights in whole.model.state_dict().items():
        assert torch.equal(weights, second.model.state_dict()[name]), name


def test_hardest_triplets() -> None:
    """Cosines 1, 0.6 and 0 between the images of a, b | c."""
    embeddings = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    loss = hardest_triplets(embeddings, torch.tensor([0, 0, 1]), 0.3)
    # a: 0.3 + 0 - 0.6; b: 0.3 + 0.8 - 0.6; c: 0.3 + 0.8 - 1
    assert loss.item() == pytest.approx((0 + 0.5 + 0.1) / 3, abs=1e-6)


def test_size_of_the_default() -> None:
    assert sum(weight.numel() for weight in ReidNetwork().parameters()) < 1_000_000


def test_errors(tmp_path: Path) -> None:
    pool, validation = people(6, 3, 0), people(3, 2, 1)
    nobody = replace(pool, identity=None)
    with pytest.raises(ValueError, match="pool must have identities, got none"):
        train_reid(config(tmp_path), nobody, validation)
    with pytest.raises(ValueError, match="validation must show two persons, one of them twice"):
        train_reid(config(tmp_path), pool, people(3, 1, 1))
    with pytest.raises(ValueError, match="pool must have images of 64x128 pixels, got 16x32"):
        train_reid(replace(config(tmp_path), network=ReidNetworkConfig()), pool, validation)
    with pytest.raises(ValueError, match=r"label_smoothing must lie in \[0, 1\), got 1"):
        config(tmp_path, label_smoothing=1)
    with pytest.raises(ValueError, match=r"images must have shape \[B, 3, 32, 16\]"):
        ReidNetwork(TINY).eval().embed(torch.zeros(1, 3, 16, 32))
    with pytest.raises(ValueError, match=r"stripes must lie in \[1, H / 16\], got 3"):
        ReidNetworkConfig((32, 16), stripes=3)
    path = tmp_path / "weights.safetensors"
    save_reid_network(ReidNetwork(TINY), path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"weights.safetensors"):
        load_reid_network(path)
