"""The judge: shapes, coordinates, files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dgpose.nn.keypoint_network import (
    KeypointNetwork,
    KeypointNetworkConfig,
    load_judge,
    save_judge,
)

TINY = KeypointNetworkConfig(32, channels=(8, 8, 8, 8), inner=(8, 8, 8))


@pytest.fixture(scope="module")
def network() -> KeypointNetwork:
    torch.manual_seed(0)
    network = KeypointNetwork(TINY).eval()
    torch.nn.init.normal_(network.head.weight)
    return network


def test_the_default_is_small() -> None:
    assert sum(weights.numel() for weights in KeypointNetwork().parameters()) == 370_190


def test_a_joint_lies_where_its_map_is_high(network: KeypointNetwork) -> None:
    """Cell (c, r) covers the pixels 2c, 2c + 1 of the rows 2r, 2r + 1."""
    cells = torch.tensor([[3.0, 5.0], [0.0, 15.0]])
    pixels = network.to_pixels(cells, 32)
    assert torch.equal(pixels, torch.tensor([[6.5, 10.5], [0.5, 30.5]]))
    assert torch.equal(network.to_cells(pixels), cells)
    bright = torch.full((1, 14, 16, 16), -20.0)
    bright[:, :, 5, 3] = 20.0

    class Fixed(KeypointNetwork):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return bright

    for size, place in ((32, [6.5, 10.5]), (64, [13.5, 21.5])):
        keypoints, scores = Fixed(TINY).eval().estimate(torch.zeros(1, 3, size, size))
        assert torch.allclose(keypoints, torch.tensor(place).expand(1, 14, 2), atol=1e-3)
        assert torch.allclose(scores, torch.ones(1, 14))


def test_bytes_are_shares(network: KeypointNetwork) -> None:
    images = torch.randint(256, (3, 3, 32, 32), dtype=torch.uint8)
    for give in (network.features, lambda i: network.estimate(i)[0]):
        assert torch.equal(give(images), give(images.float() / 255))
    assert network.features(images).shape == (3, 24)
    assert network.features(images[:0]).shape == (0, 24)
    assert network.estimate(images[:0])[0].shape == (0, 14, 2)


def test_features_do_not_depend_on_the_batch(network: KeypointNetwork) -> None:
    images = torch.rand(130, 3, 32, 32)
    alone = torch.cat([network.features(image[None]) for image in images[-3:]])
    assert torch.allclose(network.features(images)[-3:], alone, atol=1e-5)


def test_images_that_are_not_square(network: KeypointNetwork) -> None:
    """Their border is repeated; places are those of the given image."""
    squares = torch.rand(2, 3, 48, 48)
    squares[..., :11] = squares[..., 11:12]
    squares[..., 36:] = squares[..., 35:36]
    for images, cut in (
        (squares, squares[..., 11:36]),
        (squares.transpose(2, 3), squares.transpose(2, 3)[:, :, 11:36]),
    ):
        whole, scores = network.estimate(images)
        places, same = network.estimate(cut)
        aside = torch.tensor((11, 0) if cut.shape[2] == 48 else (0, 11))
        assert torch.equal(places, whole - aside)
        assert torch.equal(same, scores)
        assert torch.equal(network.features(cut), network.features(images))


def test_files(network: KeypointNetwork, tmp_path: Path) -> None:
    save_judge(network, tmp_path / "judge.safetensors", {"steps": 3})
    again, training = load_judge(tmp_path / "judge.safetensors")
    assert training == {"steps": 3}
    assert again.config == TINY
    assert not any(parameter.requires_grad for parameter in again.parameters())
    images = torch.rand(2, 3, 32, 32)
    assert torch.allclose(again(images), network(images), atol=0.05)
    loaded = KeypointNetwork.load(tmp_path / "judge.safetensors")
    assert torch.equal(loaded(images), again(images))


def test_what_it_refuses(network: KeypointNetwork) -> None:
    with pytest.raises(ValueError, match=r"shape \[B, 3, H, W\], got \[1, 1, 32, 16\]"):
        network.estimate(torch.zeros(1, 1, 32, 16))
    with pytest.raises(ValueError, match="image_size must be a multiple of 16, got 40"):
        KeypointNetworkConfig(40)
    with pytest.raises(ValueError, match=r"channels must be 4 integers >= 1, got \[8, 8, 8\]"):
        KeypointNetworkConfig(32, channels=(8, 8, 8))  # type: ignore[arg-type]
