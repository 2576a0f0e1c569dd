"""`dgpose train crossing-nets`, `dgpose reproduce crossing-nets`: on small sets, in few steps."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hand_set_files import write_icvl, write_msra, write_nyu
from typer.testing import CliRunner

from dgpose.cli import reproduce
from dgpose.cli import train_crossing_nets as train_crossing_nets_cli
from dgpose.cli.app import app
from dgpose.cli.train_crossing_nets import networks_for
from dgpose.data.hand_pool import HandPool
from dgpose.metrics.hand import HAND_PROTOCOLS, HandErrors, read_uvd
from dgpose.metrics.hand_pool import pool_estimates
from dgpose.metrics.published import HAND_RESULTS
from dgpose.models.crossing_nets import CrossingNets, load_crossing_nets
from dgpose.train import crossing_nets

pytest.importorskip("scipy.io")

Write = Callable[[Path, np.random.Generator], None]
WRITE: dict[str, Write] = {"nyu": write_nyu, "icvl": write_icvl, "msra": write_msra}
SMALL = ("--image-size", "32", "--batch", "4", "--accelerator", "cpu")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def run(*arguments: object, code: int = 0) -> Any:
    result = CliRunner().invoke(app, [str(word) for word in arguments])
    assert result.exit_code == code, result.output + result.stderr
    return result


def error(*arguments: object) -> str:
    """The one line of a command that is refused."""
    (line,) = run(*arguments, code=2).stderr.strip().splitlines()
    return str(line).removeprefix("error: ")


# ---- dgpose train crossing-nets ----


@pytest.mark.parametrize(("dataset", "frames", "tested"), [("nyu", 6, 4), ("icvl", 3, 6)])
def test_train_on_a_data_set(
    dataset: str, frames: int, tested: int, tmp_path: Path, rng: np.random.Generator
) -> None:
    data, out = tmp_path / "data", tmp_path / "run"
    WRITE[dataset](data, rng)
    source = ("--source", dataset, "--data", data, "--out", out)
    said = run(
        *("train", "crossing-nets", *source, *SMALL, "--steps", "2,1,2", "--validate"),
        *("--labelled-fraction", "0.5", "--rotation", "20", "--config", "strong", "--cube", "300"),
    ).stdout
    assert f"{dataset}, centres found: {frames} frames, {round(frames / 2)} labels" in said
    assert "steps: vae 2, gan 1, joint 2, on 1 device" in said
    joints = len(HAND_PROTOCOLS[dataset].skeleton)
    assert f"\n{tested} test frames, {joints} joints: mean error " in said
    nets, facts = load_crossing_nets(out / "weights.safetensors")
    assert nets.config.joints == HAND_PROTOCOLS[dataset].full_joints
    assert nets.config.origin_joint == {"nyu": 32, "icvl": 0}[dataset]
    assert (nets.config.normalize, nets.config.cube_mm) == ("cube", 300)
    assert facts["data"] == f"{dataset}, centres found"
    assert "holds a run: resume it" in error("train", "crossing-nets", *source, *SMALL)


def test_train_on_msra_without_a_subject(tmp_path: Path, rng: np.random.Generator) -> None:
    data, out = tmp_path / "data", tmp_path / "run"
    write_msra(data, rng)
    centers = tmp_path / "centers.txt"
    centers.write_text("160 120 450\n" * 153)
    said = run(
        *("train", "crossing-nets", "--source", "msra", "--data", data, "--out", out, *SMALL),
        *("--steps", "1,0,1", "--subjects", "0,7", "--validate", "--centers", centers),
    ).stdout
    assert "msra without subjects 0, 7, centers.txt: 119 frames, 119 labels" in said
    assert "\n34 test frames, 21 joints: mean error " in said


def test_train_on_rendered_poses(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = {"train": range(2500, 2530), "val": range(2600, 2610)}
    monkeypatch.setattr(
        "dgpose.data.hand_pool.pose_split", lambda poses, by, split: np.isin(poses.row, part[split])
    )
    said = run(
        *("train", "crossing-nets", "--data", data_dir, "--out", tmp_path / "run", *SMALL),
        *("--steps", "1,1,1", "--labelled-fraction", "0.1", "--split-by", "actor"),
    ).stdout
    assert "rendered NYU poses, split by actor, 1 a pose: 30 frames, 3 labels" in said
    assert "\n10 rendered validation frames, 14 joints: mean error " in said


def test_train_on_synthetic_hands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No data folder is needed: poses are kinematic then."""
    monkeypatch.delenv("DGPOSE_DATA", raising=False)
    monkeypatch.setattr(train_crossing_nets_cli, "_VALIDATION_FRAMES", 3)
    source = ("--source", "synthetic", "--frames", "6", "--out", tmp_path)
    said = run("train", "crossing-nets", *source, *SMALL, "--steps", "1,1,1").stdout
    assert "6 SyntheticHands, seed 0, kinematic poses: 6 frames, 6 labels" in said
    assert "\n3 rendered validation frames, 14 joints: mean error " in said
    _, facts = load_crossing_nets(tmp_path / "weights.safetensors")
    assert facts["data"] == "6 SyntheticHands, seed 0, kinematic poses"
    source = ("--source", "synthetic", "--data", tmp_path, "--out", tmp_path / "b")
    assert "nyu_poses36.npz, labelled NYU poses" in error("train", "crossing-nets", *source, *SMALL)
    (tmp_path / "file").touch()
    assert error("train", "crossing-nets", "--out", tmp_path / "file") == (
        f"{tmp_path / 'file'} must be a folder, got a file"
    )
    assert error("train", "crossing-nets", "--out", tmp_path / "b") == (
        "--source rendered needs --data; --source synthetic needs none"
    )


def test_stopped_run_says_how_to_go_on(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = tmp_path / "data", tmp_path / "run"
    write_nyu(data, rng)
    command = ("train", "crossing-nets", "--source", "nyu", "--data", data, "--out", out, *SMALL)
    command = (*command, "--steps", "2,3,2", "--validate")
    learn = crossing_nets._Run._learn

    def stop_at_step_4(run: crossing_nets._Run) -> Any:
        if (run.stage, run.step) == (1, 1):
            signal.raise_signal(signal.SIGINT)
        return learn(run)

    monkeypatch.setattr(crossing_nets._Run, "_learn", stop_at_step_4)
    said = run(*command).stdout
    monkeypatch.undo()
    assert "stopped at step 2 of 3 of stage gan; the same command with --resume goes on" in said
    assert "test frames" not in said
    assert not (out / "weights.safetensors").exists()
    said = run(*command, "--resume").stdout
    assert "resumed at step 2 of stage gan" in said
    assert "4 test frames, 14 joints: mean error " in said
    assert "the run has ended already" in run(*command, "--resume").stdout


def test_train_refuses(tmp_path: Path, rng: np.random.Generator) -> None:
    data, out = tmp_path / "data", tmp_path / "run"
    write_nyu(data, rng)
    rendered = ("train", "crossing-nets", "--data", data, "--out", out)
    nyu = (*rendered, "--source", "nyu")
    for options, message in (
        ((*nyu, "--steps", "1,2"), "--steps must be three numbers VAE,GAN,JOINT, got '1,2'"),
        ((*nyu, "--steps", "a"), "--steps must be integers separated by commas, got 'a'"),
        ((*nyu, "--batch", 1), "batch must be at least 2, got 1"),
        ((*nyu, "--cube", 0), "cube must be positive, got 0.0"),
        ((*nyu, "--image-size", 48), "image_size must be a multiple of 32, got 48"),
        ((*nyu, "--labelled-fraction", 2), "labelled fraction must lie in (0, 1], got 2.0"),
        ((*nyu, "--subjects", 1), "subjects are MSRA's, and nyu is split by its own files"),
        ((*nyu, "--test-centers", "c.txt"), "--test-centers needs --validate"),
        ((*nyu, "--accelerator", "abacus"), "You selected an invalid accelerator name"),
        ((*rendered, "--validate"), "--validate needs a data set (--source)"),
        ((*rendered, "--centers", "c.txt"), "--centers needs a data set (--source)"),
    ):
        refused = run(*options, code=2)
        assert refused.stderr.removeprefix("error: ").startswith(message)
        assert not refused.stdout  # nothing has been read yet
    assert not list(tmp_path.rglob("checkpoint*"))
    (data / "train/depth_1_0000003.png").unlink()
    assert error(*nyu) == (
        f"{data}: 1 of 6 images are missing, the first is train/depth_1_0000003.png: "
        f"dgpose data check {data} --dataset nyu says more"
    )


# ---- dgpose reproduce crossing-nets ----


def perfect(nets: CrossingNets, pool: HandPool) -> torch.Tensor:
    return pool.joints


@pytest.mark.parametrize(
    ("dataset", "more", "frames"),
    [("nyu", (), 4), ("icvl", (), 6), ("msra", ("--subjects", "8,2"), 34)],
)
def test_reproduce(
    dataset: str,
    more: tuple[str, ...],
    frames: int,
    tmp_path: Path,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With estimates that are right the result file scores 0: cameras, centres and order fit."""
    monkeypatch.setattr("dgpose.cli.reproduce.pool_estimates", perfect)
    data, out = tmp_path / "data", tmp_path / "out"
    WRITE[dataset](data, rng)
    command = ("reproduce", "crossing-nets", "--data", data, "--dataset", dataset, "--out", out)
    command = (*command, *SMALL, *more, "--steps", "1,1,1")
    said = run(*command).stdout
    assert "mean joint error 0.00" in said
    assert read_uvd(out / "labels.txt").shape == (frames, HAND_PROTOCOLS[dataset].full_joints, 3)
    assert read_uvd(out / "crossing_nets.txt").shape == read_uvd(out / "labels.txt").shape
    assert (out / "success_rate.png").is_file()
    assert "A2J" in said or dataset == "msra"
    assert "this run (not the published" in " ".join(said.split())
    assert ("subjects 2, 8 alone" in " ".join(said.split())) == (dataset == "msra")
    monkeypatch.setattr(crossing_nets._Run, "_learn", None)  # what is finished is not trained again
    assert "mean joint error 0.00" in run(*command).stdout
    assert "holds results of other settings: give another --out" in error(*command, "--seed", 1)


def test_reproduce_writes_what_the_networks_say(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    write_nyu(data, rng)
    depths = []

    def note(nets: CrossingNets, pool: HandPool) -> torch.Tensor:
        joints = pool_estimates(nets, pool)
        assert pool.centers_mm is not None
        depths.append((joints * 50 + pool.centers_mm[:, None])[..., 2])
        return joints

    monkeypatch.setattr("dgpose.cli.reproduce.pool_estimates", note)
    said = run(
        *("reproduce", "crossing-nets", "--data", data, "--dataset", "nyu", "--out", out),
        *(*SMALL, "--epochs-scale", "0.001"),
    ).stdout
    assert "steps: vae 1, gan 1, joint 1, on 1 device" in said
    nets, _ = load_crossing_nets(out / "run" / "weights.safetensors")
    assert nets.config.warm_up_epochs == 0
    np.testing.assert_allclose(read_uvd(out / "crossing_nets.txt")[..., 2], depths[0], atol=2e-3)


def test_stopped_reproduction_goes_on(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    write_nyu(data, rng)
    command = ("reproduce", "crossing-nets", "--data", data, "--dataset", "nyu", *SMALL)
    command = (*command, "--steps", "2,0,2", "--out", tmp_path / "out")
    learn = crossing_nets._Run._learn

    def stop_at_once(run: crossing_nets._Run) -> Any:
        signal.raise_signal(signal.SIGINT)
        return learn(run)

    monkeypatch.setattr(crossing_nets._Run, "_learn", stop_at_once)
    said = run(*command).stdout
    monkeypatch.undo()
    assert "stopped at step 1 of 2 of stage vae; the same command goes on" in said
    assert "TriHorn-Net" not in said
    assert "TriHorn-Net" in run(*command).stdout


def test_reproduce_refuses(tmp_path: Path, rng: np.random.Generator) -> None:
    data = tmp_path / "data"
    write_icvl(data, rng)
    command = ("reproduce", "crossing-nets", "--data", data, "--out", tmp_path / "out")
    icvl = (*command, "--dataset", "icvl")
    assert error(*icvl, "--subjects", 1).startswith("--subjects are MSRA's")
    assert error(*icvl, "--epochs-scale", 0) == "--epochs-scale must be positive, got 0.0"
    msra = (*command, "--dataset", "msra")
    assert error(*msra, "--subjects", "0,9") == "--subjects must be 0 to 8, got 0,9"
    assert "P0/1/joint.txt: No such file" in error(*msra)
    (data / "Testing/Depth/test_seq_2/image_0001.png").unlink()
    assert "1 of 6 images are missing" in error(*icvl)


def test_what_counts_as_the_published_recipe() -> None:
    networks = networks_for("icvl", "paper")
    config = crossing_nets.CrossingNetsTrainConfig(Path("out"), networks=networks)
    assert reproduce._as_published(config, "icvl")
    for other in (
        {"steps": (1, 1, 1)},
        {"devices": 2},
        {"precision": "bf16-mixed"},
        {"networks": networks_for("icvl", "paper", batch=100)},
        {"networks": reproduce._scaled(networks, 0.5)},
        {"networks": networks_for("icvl", "strong")},
    ):
        assert not reproduce._as_published(replace(config, **other), "icvl"), other


def test_table_names_both_actors_and_what_is_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    errors = np.full((8252, 14), 20.0)
    errors[:2440] = 10
    reproduce._print_table("nyu", "this run", HandErrors(HAND_PROTOCOLS["nyu"], errors))
    rows = capsys.readouterr().out.splitlines()
    for words in (
        ("this run, all frames", "17.04"),
        ("this run, training actor", "10.00"),
        ("this run, other actor", "20.00"),
        ("Crossing Nets (2017)", "?"),
        ("TriHorn-Net", "7.68"),
    ):
        assert [row for row in rows if all(word in row for word in words)], words


def test_published_figures_are_those_of_the_published_files(data_dir: Path) -> None:
    """ICVL's, of which the prediction files of the methods are there."""
    from dgpose.metrics.hand import evaluate

    icvl = data_dir / "hand" / "icvl"
    truth = read_uvd(icvl / "labels" / "icvl_test_groundtruth_label.txt.gz")
    published = {result.method: result.mean_mm.get("icvl") for result in HAND_RESULTS}
    for method, file in (
        ("V2V-PoseNet", "CVPR18_ICVL_V2V_PoseNet"),
        ("A2J", "A2J_icvl_646_epoch12_UVD"),
        ("SRN", "SRN_icvl"),
        ("TriHorn-Net", "ArXiv_ICVL_TriHorn_Net"),
    ):
        errors = evaluate(read_uvd(icvl / "predictions" / f"{file}.txt.gz"), truth, "icvl")
        assert errors.mean_mm == pytest.approx(published[method], abs=0.01), method
