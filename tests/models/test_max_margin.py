"""Max-margin retrieval: networks, losses, search of violators, weight file."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dgpose.data.crop_augmentation import add_color_noise, color_components, random_crops
from dgpose.models.max_margin import (
    MaxMarginConfig,
    MaxMarginModel,
    MaxMarginRecipe,
    PretrainingHeads,
    ViolatorSearch,
    load_model,
    save_model,
)
from dgpose.models.max_margin.losses import (
    auxiliary_loss,
    detection_loss,
    weight_penalty,
)

PAPER = MaxMarginConfig.paper(
    32, channels=(4, 6, 8), hidden=(10, 12, 14), embedding=16, pose_hidden=9
)
STRONG = MaxMarginConfig.strong(
    32, channels=(4, 8, 8, 8), inner=(4, 4, 4), hidden=(14,), embedding=16, pose_hidden=9
)


def drawn(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale


def images(count: int = 3, size: int = 32) -> Tensor:
    generator = torch.Generator().manual_seed(9)
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)


# ---- networks ----


def test_shapes_of_the_published_networks() -> None:
    """Crops of 112 pixels: maps of 28 and 14 cells, h1 on the second convolution, h2 on the third,
    h3 on both, h4 and the pose's embedding of 1024."""
    with torch.device("meta"):
        model = MaxMarginModel(MaxMarginConfig.paper())
    shapes = {name: list(weight.shape) for name, weight in model.named_parameters()}
    weights = {name: shape for name, shape in shapes.items() if len(shape) > 1}
    assert weights == {
        "image_network.backbone.conv1.0.weight": [32, 3, 5, 5],
        "image_network.backbone.conv2.0.weight": [64, 32, 5, 5],
        "image_network.backbone.conv3.0.weight": [64, 64, 5, 5],
        "image_network.backbone.h1.0.weight": [512, 64 * 28 * 28],
        "image_network.backbone.h2.0.weight": [512, 64 * 14 * 14],
        "image_network.backbone.h3.0.weight": [1024, 1024],
        "image_network.embedding.0.weight": [1024, 1024],
        "pose_network.layers.0.weight": [1024, 51],
        "pose_network.layers.2.weight": [1024, 1024],
        "auxiliary.linear.weight": [51, 1024],
    }


def test_third_convolution_is_linear_and_embeddings_are_not() -> None:
    model = MaxMarginModel(PAPER).eval()
    conv2, conv3 = model.image_network.maps(torch.rand(2, 3, 24, 24))
    assert conv2.shape == (2, 6, 6, 6)
    assert conv3.shape == (2, 8, 3, 3)
    assert float(conv2.detach().min()) >= 0 > float(conv3.detach().min())
    assert float(model.embed_images(images()).min()) >= 0
    assert float(model.embed_poses(drawn(5, 17, 3, scale=300)).min()) >= 0


@pytest.mark.parametrize("config", [PAPER, STRONG], ids=["paper", "strong"])
def test_dropout_is_on_h1_and_h2_alone(config: MaxMarginConfig) -> None:
    torch.manual_seed(0)
    network = MaxMarginModel(config).image_network.train()
    seen: list[float] = []
    network.backbone.dropout.register_forward_hook(
        lambda _, inputs, output: seen.append(float((output == 0).float().mean()))
    )
    network(torch.rand(64, 3, 24, 24))
    assert network.backbone.dropout.p == (0.75 if config is PAPER else 0)
    assert len(seen) == (2 if config is PAPER else 1)
    if config is PAPER:
        assert min(seen) > 0.7


@pytest.mark.parametrize(("layers", "learned"), [("raw", 0), ("random", 0), ("one", 2), ("two", 4)])
def test_pose_networks_of_the_ablation(layers: Any, learned: int) -> None:
    torch.manual_seed(0)
    config = replace(PAPER, pose_layers=layers)
    model = MaxMarginModel(config)
    wanted = [p for p in model.pose_network.parameters() if p.requires_grad]
    assert len(wanted) == learned
    poses = drawn(4, 17, 3, scale=300)
    embedded = model.embed_poses(poses)
    assert embedded.shape == model.eval().embed_images(images(4)).shape
    if layers == "raw":
        torch.testing.assert_close(embedded, poses.flatten(1) / config.pose_unit_mm)
    else:
        assert embedded.shape == (4, 16)
    if layers == "raw":  # what is held against coordinates must be able to be negative
        assert float(model.embed_images(images(4)).min()) < 0


def test_images_of_bytes_and_of_numbers_are_the_same_and_only_the_middle_is_seen() -> None:
    model = MaxMarginModel(STRONG).eval()
    whole = images()
    embedded = model.embed_images(whole)
    torch.testing.assert_close(model.embed_images(whole.float() / 255), embedded)
    framed = whole.clone()
    framed[:, :, :4] = 0
    framed[:, :, :, -4:] = 255
    assert torch.equal(model.embed_images(framed), embedded)
    assert model.estimate_auxiliary(whole).shape == (3, 17, 3)


def test_model_refuses_what_does_not_fit() -> None:
    model = MaxMarginModel(replace(PAPER, auxiliary=False)).eval()
    with pytest.raises(ValueError, match=r"images must have shape \[B, 3, 32, 32\], got \[1, 3, 2"):
        model.embed_images(images(1, 24))
    with pytest.raises(TypeError, match="images must be uint8 or floating point"):
        model.embed_images(images().long())
    with pytest.raises(ValueError, match=r"poses must have shape \[B, 17, 3\], got \[2, 16, 3\]"):
        model.embed_poses(torch.zeros(2, 16, 3))
    with pytest.raises(ValueError, match="model must have an auxiliary head"):
        model.estimate_auxiliary(images())


# ---- configuration and weight file ----


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "resnet"}, "backbone must be one of paper, residual, got 'resnet'"),
        ({"pose_layers": "three"}, "pose_layers must be one of raw, random, one, two"),
        ({"loss": "l2"}, "loss must be one of hinge, none"),
        ({"crop_size": 20}, "crop_size must be a multiple of 8 from 16 on, got 20"),
        ({"crop_size": 40}, "image_size must be at least crop_size, 40, got 32"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
        ({"margin_unit_mm": 0.0}, "margin_unit_mm must be positive, got 0.0"),
        ({"embedding": 0}, "embedding must be at least 1, got 0"),
        ({"channels": (4, 0, 4)}, r"channels must be at least 1, got \(4, 0, 4\)"),
        ({"auxiliary_weight": float("nan")}, "auxiliary_weight must not be negative, got nan"),
        ({"hidden": (8,)}, "backbone must have 3, 0, 3 numbers, got 3, 0, 1"),
        ({"loss": "none", "auxiliary": False}, "auxiliary must be true where loss is none"),
    ],
)
def test_configuration_refuses(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(PAPER, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": "sgd"}, "optimizer must be one of line_search, adamw, got 'sgd'"),
        ({"candidates": "some"}, "candidates must be one of sampled, full, got 'some'"),
        ({"batch": 1}, "batch must be at least 2, got 1"),
        ({"refresh": 0}, "refresh must be at least 1, got 0"),
        ({"violators": 0}, "violators must be at least 1, got 0"),
        ({"frequent_violators": -1}, "frequent_violators must not be negative, got -1"),
        ({"learning_rate": float("nan")}, "learning_rate must be positive, got nan"),
        ({"pretrain_share": 1.5}, r"pretrain_share must lie in \[0, 1\], got 1.5"),
        ({"lowest_step": 1.0, "highest_step": 0.1}, "line search must have 0 < lowest_step"),
    ],
)
def test_recipe_refuses(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MaxMarginRecipe(**changes)


def test_line_search_needs_a_network_without_batch_statistics() -> None:
    with pytest.raises(ValueError, match="optimizer of the residual backbone must be adamw"):
        replace(STRONG, recipe=MaxMarginRecipe())


@pytest.mark.parametrize("config", [PAPER, STRONG], ids=["paper", "strong"])
def test_file_gives_the_model_back(config: MaxMarginConfig, tmp_path: Path) -> None:
    model = MaxMarginModel(config).eval()
    save_model(model, tmp_path / "weights.safetensors", {"steps": 7})
    read = load_model(tmp_path / "weights.safetensors")
    assert read.config == config
    assert read.training_facts == {"steps": 7}
    assert read.fingerprint == model.fingerprint
    assert torch.equal(read.embed_images(images()), model.embed_images(images()))


def test_fingerprint_is_of_the_embedding_of_poses() -> None:
    torch.manual_seed(0)
    model = MaxMarginModel(PAPER)
    before = model.fingerprint
    with torch.no_grad():
        model.image_network.embedding[0].weight.add_(1)
    assert model.fingerprint == before
    with torch.no_grad():
        model.pose_network.layers[0].weight[0, 0] += 1e-3
    assert model.fingerprint != before
    raw, finer = (
        MaxMarginModel(replace(PAPER, pose_layers="raw", pose_unit_mm=unit)) for unit in (500, 250)
    )
    assert raw.fingerprint != finer.fingerprint


def test_refuses_weights_of_another_architecture(tmp_path: Path) -> None:
    from dgpose.nn.weight_files import write_model

    path = tmp_path / "weights.safetensors"
    config = asdict(replace(PAPER, embedding=20))
    write_model(MaxMarginModel(PAPER), path, kind="max_margin", config=config, dtype=torch.float32)
    with pytest.raises(ValueError, match=r"must have shape \[20"):
        load_model(path)
    del config["recipe"]
    write_model(MaxMarginModel(PAPER), path, kind="max_margin", config=config, dtype=torch.float32)
    with pytest.raises(ValueError, match="its architecture is not one this version knows"):
        load_model(path)


# ---- losses ----


def test_auxiliary_loss_is_the_plain_loop() -> None:
    estimates, targets = drawn(2, 17, 3, scale=300), drawn(2, 17, 3, seed=1, scale=300)
    squared = distance = 0.0
    for a, b in zip(estimates.flatten(0, 1), targets.flatten(0, 1), strict=True):
        distance += float((a - b).norm()) / 34
        squared += float((a - b).norm() / 1500) ** 2 / 2
    assert float(auxiliary_loss(PAPER, estimates, targets)) == pytest.approx(squared, rel=1e-5)
    config = replace(PAPER, auxiliary_loss="distance", margin_unit_mm=50.0)
    assert float(auxiliary_loss(config, estimates, targets)) == pytest.approx(
        distance / 50, rel=1e-5
    )


def test_weight_penalty_is_the_sum_of_squares() -> None:
    weights = [torch.nn.Parameter(torch.tensor([1.0, 2.0])), torch.nn.Parameter(torch.tensor(3.0))]
    assert weight_penalty(weights).item() == 14


def test_auxiliary_task_teaches_neither_h4_nor_the_pose_network() -> None:
    model = MaxMarginModel(PAPER)
    output = model.image_network(torch.rand(2, 3, 24, 24))
    assert model.auxiliary is not None
    estimates = model.auxiliary(output.hidden)
    auxiliary_loss(PAPER, estimates, torch.zeros(2, 17, 3)).backward()  # type: ignore[no-untyped-call]
    taught = {name for name, weight in model.named_parameters() if weight.grad is not None}
    assert not {name for name in taught if "embedding" in name or "pose_network" in name}
    backbone = {name for name, _ in model.image_network.backbone.named_parameters()}
    assert taught == {f"image_network.backbone.{name}" for name in backbone} | {
        "auxiliary.linear.weight",
        "auxiliary.linear.bias",
    }


def test_auxiliary_head_is_a_tanh() -> None:
    """What lies beyond its unit cannot be estimated."""
    model = MaxMarginModel(PAPER)
    assert model.auxiliary is not None
    estimate = model.auxiliary(torch.full((1, 14), 1e6))
    assert float(estimate.detach().abs().max()) == PAPER.auxiliary_unit_mm


def test_detection_is_the_plain_loop() -> None:
    """A joint belongs to the window it lies in; joints outside of the image to none."""
    logits = drawn(1, 3, 2, 4)
    joints = torch.tensor([[[-0.5, -0.5], [31.4, 7.9], [31.6, 3.0]]])  # of 32 x 32 pixels
    inside = {(0, 0, 0), (1, 0, 3)}
    expected = 0.0
    for joint in range(3):
        for row in range(2):
            for column in range(4):
                chance = float(logits[0, joint, row, column].sigmoid())
                true = (joint, row, column) in inside
                expected -= float(torch.tensor(chance if true else 1 - chance).log()) / 3
    assert float(detection_loss(logits, joints, 32)) == pytest.approx(expected, rel=1e-4)


def test_pretraining_heads_see_the_last_map() -> None:
    model = MaxMarginModel(PAPER)
    heads = PretrainingHeads(PAPER, model.image_network.backbone.map_shape)
    poses, logits = heads(model.image_network.maps(torch.rand(2, 3, 24, 24))[1])
    assert poses.shape == (2, 17, 3)
    assert logits.shape == (2, 17, 3, 3)


# ---- violators ----


def search(recipe: MaxMarginRecipe, count: int = 50) -> tuple[ViolatorSearch, MaxMarginModel]:
    torch.manual_seed(0)
    model = MaxMarginModel(PAPER)
    poses = drawn(count, 17, 3, seed=5, scale=300)
    return ViolatorSearch(poses, model.pose_network, recipe, PAPER.margin_weight), model


def most_violated(queries: Tensor, targets: Tensor, embeddings: Tensor, poses: Tensor) -> list[int]:
    scores = queries.double() @ embeddings.double().T
    margins = (targets[:, None] - poses[None]).double().norm(dim=3).mean(2)
    return (scores + PAPER.margin_weight * margins).argmax(1).tolist()


def test_full_search_goes_by_the_last_refresh() -> None:
    """Whatever the pose network has learned since, embeddings are those of the refresh."""
    found, model = search(MaxMarginRecipe())
    queries, targets = drawn(6, 16).abs() * 5, drawn(6, 17, 3, seed=7, scale=300)
    generator = torch.Generator()
    with pytest.raises(RuntimeError, match="candidates must be embedded first"):
        found.find(queries, targets, model.pose_network, generator, True)
    found.refresh(model.pose_network)
    old = model.embed_poses(found.poses)
    with torch.no_grad():
        for weight in model.pose_network.parameters():
            weight.copy_(drawn(*weight.shape, seed=11))
    new = model.embed_poses(found.poses)
    before = most_violated(queries, targets, old, found.poses)
    after = most_violated(queries, targets, new, found.poses)
    assert before != after
    _, rows = found.find(queries, targets, model.pose_network, generator, True)
    assert rows[:, 0].tolist() == before
    state = {name: value.clone() for name, value in found.state_dict().items()}
    found.refresh(model.pose_network)
    _, rows = found.find(queries, targets, model.pose_network, generator, True)
    assert rows[:, 0].tolist() == after
    again, _ = search(MaxMarginRecipe())
    again.load_state_dict(state)  # what a resumed run does
    again.restore()
    _, rows = again.find(queries, targets, model.pose_network, generator, True)
    assert rows[:, 0].tolist() == before


def test_several_violators_by_rank() -> None:
    found, model = search(MaxMarginRecipe(violators=4), count=3)
    found.refresh(model.pose_network)
    queries, targets = drawn(2, 16).abs(), drawn(2, 17, 3, seed=7, scale=300)
    values, rows = found.find(queries, targets, model.pose_network, torch.Generator(), True)
    assert rows.shape == (2, 4)
    assert rows[:, :3].sort(1).values.tolist() == [[0, 1, 2]] * 2
    assert rows[:, 3].tolist() == [-1, -1]
    assert bool((values.diff(dim=1) <= 0).all())


def test_sampled_search_is_by_the_network_as_it_is() -> None:
    found, model = search(MaxMarginRecipe(sampled_candidates=20, frequent_violators=0))
    with torch.no_grad():
        for weight in model.pose_network.parameters():
            weight.copy_(drawn(*weight.shape, seed=11))
    queries, targets = drawn(6, 16).abs() * 5, drawn(6, 17, 3, seed=7, scale=300)
    generator = torch.Generator().manual_seed(3)
    _, rows = found.find(queries, targets, model.pose_network, generator, False)
    sample = found.sample(generator.manual_seed(3))
    poses = found.poses[sample]
    best = most_violated(queries, targets, model.embed_poses(poses), poses)
    assert rows[:, 0].tolist() == sample[best].tolist()


def test_sample_holds_the_most_frequent_violators() -> None:
    """And as many others that its size is always the same."""
    found, _ = search(MaxMarginRecipe(sampled_candidates=5, frequent_violators=3))
    generator = torch.Generator()
    plain = found.sample(generator.manual_seed(0)).tolist()
    assert len(set(plain)) == 8
    found.counts[torch.tensor([7, 21, 33, 48])] = torch.tensor([2, 9, 1, 4])
    sample = found.sample(generator.manual_seed(0)).tolist()
    assert sample == sorted(set(sample))
    assert len(sample) == 8
    assert {21, 48, 7} < set(sample) <= {*plain, 21, 48, 7}
    found.counts.zero_()[3] = 1  # fewer than K were ever found
    sample = found.sample(generator.manual_seed(0)).tolist()
    assert len(sample) == 8
    assert 3 in sample
    drawn = [found.sample(generator.manual_seed(seed)) for seed in range(200)]
    assert torch.cat(drawn).unique().tolist() == list(range(50))
    few, _ = search(MaxMarginRecipe(sampled_candidates=5, frequent_violators=3), count=6)
    assert few.sample(generator).tolist() == list(range(6))


# ---- augmentation ----


def test_crops_are_parts_of_the_image() -> None:
    whole = images(40, 12)
    parts, first = random_crops(whole, 8, torch.Generator().manual_seed(0))
    assert parts.shape == (40, 3, 8, 8)
    assert set(map(tuple, first.tolist())) <= {(x, y) for x in range(5) for y in range(5)}
    assert set(first.flatten().tolist()) == set(range(5))
    for part, image, (x, y) in zip(parts, whole, first.tolist(), strict=True):
        assert torch.equal(part, image[:, y : y + 8, x : x + 8])


def test_color_noise_goes_along_the_components_of_the_colours() -> None:
    """Grey images of different brightness: all noise is grey, and its size that of their
    variance."""
    grey = torch.arange(0, 256, 5, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 4, 4)
    components = color_components(grey)
    variance = float((grey.double() / 255).var(correction=0))
    scaled = 3 * variance / 3**0.5
    torch.testing.assert_close(components[:, 2], torch.full((3,), scaled), atol=1e-4, rtol=0)
    assert float(components[:, :2].abs().max()) < 1e-6
    noise = add_color_noise(torch.zeros(2000, 3, 2, 2), components, 0.1, torch.Generator())
    assert float(noise[:, 0].std()) == pytest.approx(0.1 * scaled, rel=0.1)
    counts = Counter(len(image.flatten(1).unique(dim=1)[0]) for image in noise)
    assert counts == {1: 2000}  # one colour for all pixels of an image
    torch.testing.assert_close(noise[:, 0], noise[:, 2])
