"""Training of max-margin retrieval: its stages, and that a resumed run is the run
that was not interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from safetensors.torch import load_file
from torch import Tensor, distributed

from dgpose.data.pose_pool import PosePool
from dgpose.models.max_margin import MaxMarginConfig, MaxMarginModel, MaxMarginRecipe, load_model
from dgpose.train.max_margin import MaxMarginTrainConfig, MaxMarginTrainResult, train_max_margin
from dgpose.train.max_margin_learner import _DROPOUT, _SAMPLE, MaxMarginLearner
from dgpose.train.pose_validation import retrieval_errors


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums of several threads differ in the last bit, which Adam's first steps make large."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


PAPER = MaxMarginConfig.paper(
    32,
    channels=(4, 4, 4),
    hidden=(10, 12, 14),
    embedding=16,
    pose_hidden=9,
    recipe=MaxMarginRecipe(batch=4, sampled_candidates=8, frequent_violators=3),
)
_STRONG = MaxMarginConfig.strong(
    32, channels=(4, 8, 8, 8), inner=(4, 4, 4), hidden=(14,), embedding=16, pose_hidden=9
)
STRONG = replace(_STRONG, recipe=replace(_STRONG.recipe, batch=4, candidates="full", refresh=5))


def with_recipe(config: MaxMarginConfig, **changes: Any) -> MaxMarginConfig:
    return replace(config, recipe=replace(config.recipe, **changes))


def pool(count: int = 24) -> PosePool:
    """Images that show their pose: six poses, each in its own colours."""
    generator = torch.Generator().manual_seed(0)
    poses = torch.randn(6, 17, 3, generator=generator) * 200
    looks = torch.randint(0, 256, (6, 3, 4, 4), generator=generator)
    kind = torch.arange(count) % 6
    shown = looks.repeat_interleave(8, 2).repeat_interleave(8, 3)[kind]
    noisy = shown + torch.randint(-20, 21, shown.shape, generator=generator)
    pixels = torch.rand(count, 17, 2, generator=generator) * 32
    return PosePool(noisy.clamp(0, 255).to(torch.uint8), poses[kind], pixels)


def settings(out: Path, **changes: Any) -> MaxMarginTrainConfig:
    given: dict[str, Any] = {
        "model": STRONG, "steps": 12, "accelerator": "cpu", "save_every": 3, "log_every": 1,
        "validate_every": 4,
    }  # fmt: skip
    return MaxMarginTrainConfig(out, **(given | changes))


def trained(config: MaxMarginTrainConfig, **more: Any) -> MaxMarginTrainResult:
    result = train_max_margin(config, pool(), pool(), **more)
    assert result.finished
    return result


def weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of the checkpoint of a run."""
    return load_file(folder / "checkpoint.safetensors")


def same_bits(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


# ---- one step ----


def learner(config: MaxMarginConfig) -> MaxMarginLearner:
    torch.manual_seed(1)
    return MaxMarginLearner(Fabric(accelerator="cpu"), config, pool(), pool().poses, 0)


def changed_by(step: Any, model: MaxMarginModel) -> set[str]:
    """Parameters and buffers that a step changes."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    step()
    return {n for n, value in model.state_dict().items() if not torch.equal(value, before[n])}


def test_pretraining_teaches_the_convolutions_alone() -> None:
    run = learner(PAPER)
    changed = changed_by(lambda: run.learn(0.1), run.model)
    backbone = "image_network.backbone."
    assert {name.removeprefix(backbone)[:5] for name in changed} == {"conv1", "conv2", "conv3"}


@pytest.mark.parametrize("config", [PAPER, with_recipe(STRONG, freeze_convolutions=True)])
def test_frozen_convolutions_stay(config: MaxMarginConfig) -> None:
    """Their batch statistics, too."""
    run = learner(config)
    convolutions = ("conv", "stem", "stage")
    changed = changed_by(lambda: run.learn(0.9), run.model)
    backbone = {n.removeprefix("image_network.backbone.") for n in changed}
    assert not {name for name in backbone if name.startswith(convolutions)}
    assert {"image_network.embedding.0.weight", "pose_network.layers.0.weight"} <= changed
    assert {"image_network.backbone.h3.0.weight", "auxiliary.linear.weight"} <= changed


def test_end_to_end_is_a_switch() -> None:
    run = learner(with_recipe(PAPER, freeze_convolutions=False, pretrain_share=0.0))
    changed = changed_by(lambda: run.learn(0.0), run.model)
    assert "image_network.backbone.conv1.0.weight" in changed


def test_random_layer_stays_as_it_starts() -> None:
    run = learner(replace(STRONG, pose_layers="random"))
    changed = changed_by(lambda: run.learn(0.5), run.model)
    assert not {name for name in changed if name.startswith("pose_network")}
    assert "image_network.embedding.0.weight" in changed


def test_step_of_the_line_search_lowers_the_loss_of_its_batch() -> None:
    """By more than the half-decade steps beside it."""
    config = with_recipe(PAPER, pretrain_share=0.0)

    def loss_after(step_length: float | None) -> tuple[float, float]:
        run = learner(config)
        if step_length is not None:
            run._search_step = lambda *_: step_length  # type: ignore[method-assign]
        run.learn(0.0)
        found = run.step_length
        images, poses, _ = first_batch
        run.step = 0  # the noise and the sample of the first step
        torch.manual_seed(run._number(_DROPOUT))
        with torch.no_grad():
            terms, _ = run._margin_terms(run.model.image_network.maps(images), poses, False)
        return float(sum(terms.values())), found

    first_batch = learner(config)._batch()
    loss, found = loss_after(None)
    for other in (0.0, found * 10**-0.5, found * 10**0.5):
        assert loss < loss_after(other)[0]


@pytest.mark.parametrize("search", ["full", "sampled"])
def test_margin_is_the_plain_double_loop(search: str) -> None:
    """Over all candidates, or those of the step's sample."""
    config = with_recipe(replace(STRONG, margin_unit_mm=150.0), candidates=search, refresh=1)
    config = with_recipe(config, sampled_candidates=5, frequent_violators=2)
    run = learner(config)
    run.search.refresh(run.model.pose_network)
    images, poses, _ = run._batch()
    terms, violators = run._margin_terms(
        run.model.image_network.maps(images), poses, search == "full"
    )
    rows = list(range(len(run.candidates)))
    if search == "sampled":
        rows = run.search.sample(run._generator(_SAMPLE)).tolist()
    with torch.no_grad():
        queries = run.model.image_network(images).embedding
        embeddings = run.model.pose_network(run.candidates)
        positives = run.model.pose_network(poses)
    hinges, worst_rows = [], []
    for query, pose, positive in zip(queries, poses, positives, strict=True):
        values = []
        for row in rows:
            distance = (run.candidates[row] - pose).norm(dim=1).mean()
            values.append(float(query @ embeddings[row] - query @ positive + distance / 150))
        hinges.append(max(0.0, *values))
        worst_rows.append(rows[values.index(max(values))])
    assert float(terms["margin"].detach()) == pytest.approx(sum(hinges) / 4, rel=1e-4)
    assert violators.tolist() == worst_rows


def test_violators_are_counted() -> None:
    run = learner(with_recipe(PAPER, pretrain_share=0.0))
    run.learn(0.0)
    # Four images; the first networks' scores are all alike, so that margins are violated.
    assert int(run.search.counts.sum()) == 4


@pytest.mark.parametrize("refresh", [1, 5])
def test_candidates_are_embedded_anew_every_so_many_steps(refresh: int) -> None:
    run = learner(with_recipe(STRONG, refresh=refresh))
    embedded = []
    for _ in range(7):
        run.learn(0.0)
        assert run.search.embeddings is not None
        embedded.append(run.search.embeddings)
    same = [bool(torch.equal(a, b)) for a, b in pairwise(embedded)]
    assert same == ([True] * 4 + [False] + [True] if refresh == 5 else [False] * 6)


def test_all_candidates_are_searched_at_the_end_of_the_stage() -> None:
    run = learner(with_recipe(STRONG, candidates="full", full_share=0.25))
    run.learn(0.74)
    assert run.search.embeddings is None
    counted = int(run.search.counts.sum())
    assert counted > 0
    run.learn(0.75)
    assert run.search.embeddings is not None
    assert int(run.search.counts.sum()) == counted


@pytest.mark.parametrize("candidates", ["sampled", "full"])
def test_pose_network_sees_the_same_shapes_in_all_steps(candidates: str) -> None:
    """Each new shape costs memory that is never given back: gigabytes in a long run in bfloat16."""
    run = learner(with_recipe(STRONG, candidates=candidates, violators=3, sampled_candidates=9))
    shapes = set()
    run.model.pose_network.register_forward_hook(
        lambda _, inputs, output: shapes.add(tuple(inputs[0].shape))
    )
    run.learn(0.0)
    first = set(shapes)
    for step in range(8):
        run.learn(step / 8)
    assert shapes == first


def test_regression_alone_searches_nothing() -> None:
    run = learner(replace(STRONG, loss="none"))
    terms = run.learn(0.0)
    assert list(terms) == ["auxiliary"]
    assert run.search.embeddings is None
    assert run.search_clock.seconds == 0


# ---- runs ----


def test_errors_are_the_plain_loop() -> None:
    torch.manual_seed(0)
    model = MaxMarginModel(STRONG).eval()
    frames, candidates = pool(8), torch.randn(30, 17, 3) * 200
    scores = model.embed_images(frames.images) @ model.embed_poses(candidates).T
    best, average, auxiliary = [], [], []
    for score, pose, image in zip(scores, frames.poses, frames.images, strict=True):
        order = score.argsort(descending=True)
        best.append((candidates[order[0]] - pose).norm(dim=1).mean())
        average.append((candidates[order[:20]].mean(0) - pose).norm(dim=1).mean())
        auxiliary.append((model.estimate_auxiliary(image[None])[0] - pose).norm(dim=1).mean())
    expected = [float(torch.stack(errors).mean()) for errors in (best, average, auxiliary)]
    assert list(retrieval_errors(model, frames, candidates)) == pytest.approx(expected, rel=1e-5)
    few = retrieval_errors(model, frames, candidates[:1])
    assert few.best_mm == pytest.approx(few.average_mm)


def test_strong_learns_the_toy_set(tmp_path: Path) -> None:
    """The loss falls, most poses are found, and the best weights are kept."""
    config = with_recipe(STRONG, batch=12, learning_rate=1e-2)
    frames = pool()
    run = settings(tmp_path, model=config, steps=200, validate_every=50, save_every=500)
    result = trained(run, candidates=frames.poses)
    mean_pose = float((frames.poses - frames.poses.mean(0)).norm(dim=2).mean())
    first, last = result.validations[0].errors, result.validations[-1].errors
    assert last.best_mm < 0.3 * mean_pose
    assert last.auxiliary_mm < min(first.auxiliary_mm, 0.3 * mean_pose)
    least = min(v.errors.average_mm for v in result.validations)
    assert result.model.training_facts["average_mm"] == round(least, 2)
    kept = retrieval_errors(load_model(tmp_path / "weights.safetensors"), frames, frames.poses)
    assert kept.average_mm == pytest.approx(least, rel=1e-4)


def test_paper_learns_the_toy_set(tmp_path: Path) -> None:
    config = replace(with_recipe(PAPER, batch=12), dropout=0.0, hidden=(32, 32, 32))
    run = settings(tmp_path, model=config, steps=200, validate_every=50, save_every=500)
    result = trained(run, candidates=pool().poses[:6])
    mean_pose = float((pool().poses - pool().poses.mean(0)).norm(dim=2).mean())
    assert min(v.errors.best_mm for v in result.validations) < 0.5 * mean_pose


@pytest.mark.parametrize("killed_at", [2, 7, 11])
@pytest.mark.parametrize(
    "model",
    [
        PAPER,
        with_recipe(STRONG, violators=3),
        with_recipe(replace(STRONG, dropout=0.5), pretrain_share=0.5, candidates="sampled"),
    ],
    ids=["paper", "full", "sampled"],
)
def test_resumed_run_ends_in_the_same_bits(
    model: MaxMarginConfig, killed_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 12 steps with a checkpoint every third; `full` embeds its candidates every fifth."""
    whole = trained(settings(tmp_path / "whole", model=model))
    learn, steps = MaxMarginLearner.learn, 0

    def die(run: MaxMarginLearner, progress: float) -> dict[str, Tensor]:
        nonlocal steps
        steps += 1
        if steps == killed_at:
            raise KeyboardInterrupt
        return learn(run, progress)

    monkeypatch.setattr(MaxMarginLearner, "learn", die)
    with pytest.raises(KeyboardInterrupt):
        trained(settings(tmp_path / "parts", model=model))
    monkeypatch.undo()
    again = trained(settings(tmp_path / "parts", model=model, resume=True))
    same_bits(weights(tmp_path / "parts"), weights(tmp_path / "whole"))
    assert [v.step for v in again.validations] == [v.step for v in whole.validations]
    assert [v.errors for v in again.validations] == [v.errors for v in whole.validations]
    once_more = trained(settings(tmp_path / "parts", model=model, resume=True))
    assert len(once_more.validations) == len(whole.validations)
    same_bits(weights(tmp_path / "parts"), weights(tmp_path / "whole"))


def test_stopped_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained(settings(tmp_path / "whole"))
    learn = MaxMarginLearner.learn

    def stop_in_step_7(run: MaxMarginLearner, progress: float) -> dict[str, Tensor]:
        if run.step == 7:
            signal.raise_signal(signal.SIGTERM)
        return learn(run, progress)

    monkeypatch.setattr(MaxMarginLearner, "learn", stop_in_step_7)
    stopped = train_max_margin(settings(tmp_path / "parts"), pool(), pool())
    assert not stopped.finished
    monkeypatch.undo()
    trained(settings(tmp_path / "parts", resume=True))
    same_bits(weights(tmp_path / "parts"), weights(tmp_path / "whole"))


def test_run_by_minutes_ends_with_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that goes by 6 s in each step, and in nothing else: 10 steps a minute."""
    seconds = 0.0
    learn = MaxMarginLearner.learn
    seen: list[float] = []

    def slow(run: MaxMarginLearner, progress: float) -> dict[str, Tensor]:
        nonlocal seconds
        seconds += 6
        seen.append(progress)
        return learn(run, progress)

    monkeypatch.setattr("dgpose.train.run.time", SimpleNamespace(monotonic=lambda: seconds))
    monkeypatch.setattr(MaxMarginLearner, "learn", slow)
    result = trained(settings(tmp_path, steps=None, minutes=1.0))
    assert result.seconds == pytest.approx(60)
    assert seen == pytest.approx([k / 10 for k in range(10)])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": None}, "steps or minutes must be given"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"minutes": 0.0}, "minutes must be positive, got 0.0"),
        ({"validate_every": 0}, "validate_every must be at least 1, got 0"),
    ],
)
def test_settings_refuse(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        settings(tmp_path, **changes)


def test_data_that_do_not_fit(tmp_path: Path) -> None:
    run, none = settings(tmp_path / "run"), pool().subset(torch.zeros(24, dtype=torch.bool))
    small = PosePool(pool().images[:, :, :16, :16], pool().poses)
    with pytest.raises(ValueError, match="pool must have images of 32 pixels a side, got 16"):
        train_max_margin(run, small, pool())
    with pytest.raises(ValueError, match="validation must have at least one image"):
        train_max_margin(run, pool(), none)
    with pytest.raises(ValueError, match=r"candidates must have shape \[N, 17, 3\]"):
        train_max_margin(run, pool(), pool(), torch.zeros(4, 16, 3))
    with pytest.raises(ValueError, match="candidates must be at least one pose, all finite"):
        train_max_margin(run, pool(), pool(), torch.full((4, 17, 3), torch.nan))
    assert not (tmp_path / "run").exists()


def test_run_of_other_settings_is_not_resumed(tmp_path: Path) -> None:
    trained(settings(tmp_path))
    with pytest.raises(ValueError, match="holds a run: resume it, or give another folder"):
        trained(settings(tmp_path))
    other = with_recipe(STRONG, refresh=2)
    with pytest.raises(ValueError, match=r"model.recipe.refresh must be that of .*, 5, got 2"):
        trained(settings(tmp_path, model=other, resume=True))
    with pytest.raises(ValueError, match="data must be that of the resumed run"):
        trained(settings(tmp_path, resume=True), data="other")


@pytest.mark.skipif(not distributed.is_gloo_available(), reason="torch without gloo")
def test_two_ranks_hold_the_same_networks(tmp_path: Path) -> None:
    worker = Path(__file__).with_name("max_margin_rank.py")
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
        str(worker), str(tmp_path),
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)
    assert done.returncode == 0, done.stderr
    for name in ("paper", "strong"):
        first, second = (load_file(tmp_path / f"{name}_{rank}.safetensors") for rank in (0, 1))
        same_bits(first, second)
