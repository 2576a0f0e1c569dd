"""Training of the judge: it learns, resumes bit for bit, and says what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dgpose.data.person_pool import PersonPool, rendered_people
from dgpose.data.synthetic_people import SyntheticPeople
from dgpose.nn.keypoint_network import KeypointNetworkConfig
from dgpose.train.keypoints import KeypointTrainConfig, judge_errors, train_keypoints

TINY = KeypointNetworkConfig(32, channels=(16, 16, 16, 16), inner=(8, 8, 8))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Networks this small only wait for a second thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _people(split: Any, count: int) -> PersonPool:
    return rendered_people(SyntheticPeople(poses="kinematic", split=split, size=32), count)


@pytest.fixture(scope="module")
def pools() -> tuple[PersonPool, PersonPool]:
    return _people("train", 48), _people("val", 16)


def config(out: Path, **changes: Any) -> KeypointTrainConfig:
    settings: dict[str, Any] = {"steps": 6, "batch": 8, "save_every": 2, "validate_every": 3}
    return KeypointTrainConfig(out, network=TINY, accelerator="cpu", **settings | changes)


def test_it_learns(tmp_path: Path, pools: tuple[PersonPool, PersonPool]) -> None:
    result = train_keypoints(
        config(tmp_path, steps=150, batch=16, validate_every=50), *pools, data="rendered"
    )
    assert result.finished
    areas = [validation.pck["area"] for validation in result.validations]
    assert len(areas) == 3
    assert max(areas) > areas[0] + 0.05
    # The best weights are what comes back; the file holds them as float16.
    assert abs(judge_errors(result.model, pools[1]).area - max(areas)) < 0.01


def test_a_resumed_run_ends_in_the_same_bits(
    tmp_path: Path, pools: tuple[PersonPool, PersonPool], monkeypatch: pytest.MonkeyPatch
) -> None:
    import dgpose.train.training_run as module

    whole = train_keypoints(config(tmp_path / "whole"), *pools)
    asked = iter([False] * 3 + [True])
    with monkeypatch.context() as patch:
        patch.setattr(module, "agree_to_stop", lambda *_: next(asked))
        assert not train_keypoints(config(tmp_path / "cut"), *pools).finished
    resumed = train_keypoints(config(tmp_path / "cut", resume=True), *pools)
    assert resumed.finished
    for one, other in zip(whole.validations, resumed.validations, strict=True):
        assert (one.step, one.pck) == (other.step, other.pck)
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name]), name


def test_fine_tuning_starts_from_weights(
    tmp_path: Path, pools: tuple[PersonPool, PersonPool]
) -> None:
    first = train_keypoints(config(tmp_path / "first", steps=30, batch=16), *pools)
    weights = tmp_path / "first" / "weights.safetensors"
    tuned = train_keypoints(
        config(tmp_path / "tuned", steps=1, learning_rate=1e-9, init=weights), *pools
    )
    before, after = (judge_errors(result.model, pools[1]).area for result in (first, tuned))
    assert abs(before - after) < 0.03
    other = replace(TINY, channels=(8, 16, 16, 16))
    with pytest.raises(ValueError, match="init must hold a network of"):
        train_keypoints(replace(config(tmp_path / "new", init=weights), network=other), *pools)


def test_what_it_refuses(tmp_path: Path, pools: tuple[PersonPool, PersonPool]) -> None:
    with pytest.raises(ValueError, match="steps or minutes must be given"):
        KeypointTrainConfig(tmp_path)
    with pytest.raises(ValueError, match="learning_rate must be positive, got 0"):
        config(tmp_path, learning_rate=0)
    nobody = pools[0].subset(torch.empty(0, dtype=torch.int64))
    with pytest.raises(ValueError, match="validation must have at least one image, got none"):
        train_keypoints(config(tmp_path / "a"), pools[0], nobody)
    seen = torch.zeros_like(pools[1].known)
    faces = replace(pools[1], keypoints_px=torch.zeros(16, 18, 2), known=seen, visible=seen.clone())
    with pytest.raises(ValueError, match="validation must know a shoulder and"):
        train_keypoints(config(tmp_path / "a"), pools[0], faces)
    with pytest.raises(ValueError, match=r"must have images of 64x64 pixels, got \[32, 32\]"):
        train_keypoints(KeypointTrainConfig(tmp_path / "b", steps=1), *pools)
    train_keypoints(config(tmp_path / "run", steps=1), *pools)
    with pytest.raises(ValueError, match="holds a run: resume it"):
        train_keypoints(config(tmp_path / "run", steps=1), *pools)
    with pytest.raises(ValueError, match="batch must be that of the resumed run, 8, got 4"):
        train_keypoints(config(tmp_path / "run", steps=1, batch=4, resume=True), *pools)
