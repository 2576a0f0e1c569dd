"""Sheets of generated people."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dgpose.inference.generated_people import GeneratedPeople
from dgpose.viz.person import estimate_picture, grid_sheet, person_tile, pose_tile, result_sheet


def people(count: int, *, sources: bool = True) -> GeneratedPeople:
    poses = torch.full((count, 14, 2), torch.nan)
    poses[:, 0], poses[:, 1] = torch.tensor([4.0, 4.0]), torch.tensor([4.0, 28.0])
    images = torch.arange(count).view(-1, 1, 1, 1).expand(count, 3, 32, 32) / max(1, count)
    return (
        GeneratedPeople(images, poses, images, poses) if sources else GeneratedPeople(images, poses)
    )


def test_tiles_have_the_skeleton_where_the_joints_are() -> None:
    tile = pose_tile(people(1).poses_px[0].numpy(), 32, 256)
    changed = (tile != tile[-1, -1]).any(-1)
    assert changed[36:228, 36].all()  # nose to neck, at 4.5 / 32 of the tile
    assert not changed[:, 60:].any()
    grey = np.full((32, 32, 3), 99, np.uint8)
    assert (person_tile(grey) == 99).all()
    assert (person_tile(grey, people(1).poses_px[0].numpy()) != 99).any()


def test_a_sheet_grows_with_what_is_on_it() -> None:
    assert result_sheet(people(1), ["a"], "t").shape[1] == 3 * (256 + 8) + 8
    assert result_sheet(people(1, sources=False), ["a"], "t").shape[1] == 2 * (256 + 8) + 8
    assert result_sheet(people(9), ["a"] * 9, "t").shape[1] == 6 * (144 + 8) + 8
    poses = ["x", "y", "z"]
    grid = grid_sheet(people(6), ["a", "b"], "t", poses)
    assert grid.shape[1] == 4 * (256 + 8) + 8
    assert (
        grid_sheet(people(6, sources=False), ["a", "b"], "t", poses).shape[1] == 3 * (256 + 8) + 8
    )
    with pytest.raises(ValueError, match="3 poses of 1 appearances, got 6"):
        grid_sheet(people(6), ["a"], "t", poses)
    nameless = grid_sheet(people(6), ["a", "b"], "t", [""] * 3)
    captions = slice(44 + 256, 44 + 256 + 26)  # below the poses
    assert (grid[captions] != nameless[captions]).any()
    np.testing.assert_array_equal(grid[captions.stop :], nameless[captions.stop :])


def test_an_estimate_over_its_photograph() -> None:
    photo = np.zeros((100, 50, 3), np.uint8)
    drawn = estimate_picture(photo, people(1).poses_px[0].numpy(), "t")
    assert drawn.shape == (640 + 32, 320, 3)
    below = drawn[32:]
    assert below[(4 + 1) * 6 : 28 * 6, 28].any(-1).all()
    assert not below[300:].any()
