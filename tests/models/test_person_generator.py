"""PersonGenerator and KeypointEstimator on tiny untrained models: what goes where, and what is
refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import dgpose
from dgpose.data.person_crops import from_crop, person_crop, to_crop, whole_image
from dgpose.data.pose_edits import drag_joint, scale_height
from dgpose.inference.generated_people import GeneratedPeople
from dgpose.inference.person_generator import PersonGenerator
from dgpose.inference.person_keypoints import KeypointEstimator
from dgpose.inference.person_views import as_picture, as_pose, pose_box, view_person
from dgpose.models.dgpose import DGPoseConfig, DGPoseModel, make_model, save_model
from dgpose.nn.keypoint_network import KeypointNetwork, KeypointNetworkConfig, save_judge
from dgpose.skeletons import OPENPOSE18

S = 32


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny networks: threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def model_of(system: Any, seed: int = 0) -> DGPoseModel:
    torch.manual_seed(seed)
    config = DGPoseConfig.strong(
        S, system=system, channels=(4, 8, 8, 8), latent_size=4, part_size=2, blocks=0
    )
    return make_model(config).eval()


@pytest.fixture(scope="module")
def semi() -> PersonGenerator:
    return PersonGenerator(model_of("semi"), name="tiny")  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def conditional() -> PersonGenerator:
    return PersonGenerator(model_of("conditional"))  # type: ignore[arg-type]


def picture(seed: int = 0, height: int = 90, width: int = 120) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def pose(seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).uniform((30, 10), (80, 80), (14, 2))


# ---- views ----


def test_the_square_is_moved_into_the_picture_or_made_smaller() -> None:
    joints = np.full((14, 2), np.nan)
    joints[:2] = (20, 10), (30, 50)
    free = pose_box(joints)
    np.testing.assert_allclose(free, [25 - 27.4, 30 - 27.4, 25 + 27.4, 30 + 27.4])
    inside = pose_box(joints, 1, picture(height=100, width=100))
    np.testing.assert_allclose(inside, [-0.5, 2.6, 54.3, 57.4], atol=0.01)
    smaller = pose_box(joints, 1, picture(height=52, width=100))
    assert smaller[3] - smaller[1] == pytest.approx(52)
    tight = pose_box(joints, 1, picture(height=40, width=22))
    np.testing.assert_allclose(tight, [1, 6, 49, 54])  # 1.2 times, around the joints


def test_a_view_of_another_shape() -> None:
    """Of 128x64 the box is twice as high as wide; the picture's pixels and the pose agree."""
    joints = np.full((18, 2), np.nan)
    joints[[2, 16]] = (20, 10), (30, 70)
    image = np.zeros((100, 60, 3), np.uint8)
    image[8:13, 18:23] = image[68:73, 28:33] = 255
    view = view_person(image, (128, 64), joints, skeleton=OPENPOSE18)
    assert view.image.shape == (3, 128, 64)
    # Moved down by 0.6 pixels, into the picture.
    np.testing.assert_allclose(view.box, (25 - 20.55, 0.6 - 1.1, 25 + 20.55, 0.6 + 81.1))
    assert view.pose_px is not None
    for x, y in view.pose_px[[2, 16]].round().astype(int):
        assert view.image[:, y, x].min() > 0.9
    assert np.isnan(view.pose_px[3]).all()
    np.testing.assert_allclose(from_crop(view.pose_px, view.box, (128, 64)), joints)
    boxed = view_person(image, (128, 64), joints, (10, 20, 30, 40)).box
    np.testing.assert_allclose(boxed, [20 - 12, 30 - 24, 20 + 12, 30 + 24])
    assert view_person(image, (128, 64), joints).pose_px.shape == (14, 2)  # type: ignore[union-attr]


def test_a_view_is_the_crop_and_the_pose_in_it() -> None:
    joints = pose()
    joints[3] = np.nan
    view = view_person(picture(), S, joints)
    np.testing.assert_array_equal(
        (255 * view.image).round().byte(),
        person_crop(picture(), view.box, S, repeat_border=True),
    )
    assert view.pose_px is not None
    np.testing.assert_allclose(from_crop(view.pose_px, view.box, S), joints)
    assert np.nanmin(view.pose_px) > 0
    assert np.nanmax(view.pose_px) < S - 1
    boxed = view_person(picture(), S, joints, (30, 10, 80, 80))
    np.testing.assert_allclose(boxed.box, [13, 3, 97, 87])


def test_one_known_joint_shows_the_whole_picture() -> None:
    joints = np.full((14, 2), np.nan)
    joints[5] = 40, 50
    view = view_person(picture(), S, joints)
    np.testing.assert_allclose(view.box, whole_image(picture()))


def test_pictures_of_any_kind() -> None:
    given = picture()
    tensor = torch.from_numpy(given).permute(2, 0, 1)
    for same in (given, tensor, tensor.float() / 255, tensor.double() / 255):
        np.testing.assert_array_equal(as_picture(same), given)
    for wrong, error, message in (
        (given[..., 0], ValueError, r"\[H, W, 3\] as an array, got \[90, 120\]"),
        (np.dstack([given, given[..., :1]]), ValueError, r"got \[90, 120, 4\]"),
        (given.astype(np.uint16), TypeError, "array of uint8, got uint16"),
        ([1, 2], TypeError, "got list"),
        (given[:0], ValueError, r"got \[0, 120, 3\]"),
        (tensor[:1], ValueError, r"\[3, H, W\] as a tensor, got \[1, 90, 120\]"),
        (tensor.float(), ValueError, r"lie in \[0, 1\]"),
        (torch.full((3, 4, 4), torch.nan), ValueError, r"lie in \[0, 1\]"),
        (tensor.int(), TypeError, "got torch.int32"),
    ):
        with pytest.raises(error, match=message):
            as_picture(wrong)  # type: ignore[arg-type]


def test_poses_of_any_kind() -> None:
    eighteen = np.zeros((18, 2), np.float32)
    eighteen[:14] = pose()
    np.testing.assert_allclose(as_pose(eighteen), pose(), rtol=1e-6)
    half = torch.from_numpy(pose())
    half[2, 0] = torch.nan
    assert np.isnan(as_pose(half)[2]).all()
    assert not half[2, 1].isnan()  # the caller's is left as it was
    for wrong, error, message in (
        (pose()[:13], ValueError, r"\[14, 2\] or \[18, 2\], got \[13, 2\]"),
        (np.full((14, 2), np.inf), ValueError, "finite .NaN: not known., got Inf"),
        (np.full((14, 2), np.nan), ValueError, "a known joint, got none"),
        (np.full((14, 2), "a"), TypeError, "of numbers"),
        (None, TypeError, "got NoneType"),
    ):
        with pytest.raises(error, match=message):
            as_pose(wrong)  # type: ignore[arg-type]


# ---- generator ----


def test_reconstruction_is_the_models_own(conditional: PersonGenerator) -> None:
    joints = pose()
    joints[4] = np.nan
    made = conditional.reconstruct(picture(), joints)
    view = view_person(picture(), S, joints)
    known = torch.ones(1, 14, dtype=torch.bool)
    known[0, 4] = False
    crop = view.image[None]
    assert view.pose_px is not None
    px = torch.from_numpy(np.nan_to_num(view.pose_px)).float()[None]
    with torch.no_grad():
        z = conditional.model.appearance(crop, px, known).mean
        expected = conditional.model.decode(z, px, known)
    torch.testing.assert_close(made.images, expected)
    torch.testing.assert_close(made.sources, crop)
    assert made.poses_px[0, 4].isnan().all()
    assert made.pictures().shape == (1, S, S, 3)


def test_transfer_places_each_pose_by_itself(conditional: PersonGenerator) -> None:
    """A pose in another place and size is the same pose; so is one of a given box."""
    target = pose(1)
    many = np.stack([target, 5 * target + 100])
    made = conditional.transfer(picture(), pose(), many)
    torch.testing.assert_close(made.poses_px[0], made.poses_px[1], atol=0.3, rtol=0)
    assert len(made) == 2
    other = conditional.transfer(picture(), pose(1), target)
    assert not torch.allclose(other.images, made.images[:1], atol=1e-6)
    boxed = conditional.transfer(picture(), pose(), target, target_boxes=(0, 0, 100, 100))
    expected = to_crop(target, (-10, -10, 110, 110), S)
    np.testing.assert_allclose(boxed.poses_px[0], expected, atol=1e-4)


def test_many_images_are_each_alone(semi: PersonGenerator) -> None:
    pictures, poses = [picture(0), picture(1, 40, 40)], np.stack([pose(0), pose(1) / 2])
    together = semi.reconstruct(pictures, poses)
    alone = GeneratedPeople.joined(
        [semi.reconstruct(p, q) for p, q in zip(pictures, poses, strict=True)]
    )
    torch.testing.assert_close(together.images, alone.images)
    tensor = torch.from_numpy(np.stack([picture(0), picture(1)])).permute(0, 3, 1, 2)
    assert len(semi.reconstruct(tensor)) == 2
    assert semi.reconstruct(tensor)[1:].images.shape == (1, 3, S, S)


def test_numbers_that_do_not_fit(semi: PersonGenerator) -> None:
    with pytest.raises(ValueError, match="2 images, 3 poses, 1 boxes"):
        semi.reconstruct([picture()] * 2, np.stack([pose()] * 3))
    with pytest.raises(ValueError, match="0 images"):
        semi.reconstruct([])


def test_a_semi_model_estimates_what_is_not_given(semi: PersonGenerator) -> None:
    found = semi.estimate(picture())
    made = semi.reconstruct(picture())
    np.testing.assert_allclose(
        from_crop(made.poses_px[0].numpy(), found.squares[0], S), found.poses_px[0], atol=1e-3
    )
    mixed = semi.reconstruct([picture(), picture()], [pose(), None])  # type: ignore[list-item]
    torch.testing.assert_close(mixed.poses_px[1], made.poses_px[0])
    torch.testing.assert_close(mixed.images[1:], made.images)


def test_the_estimate_is_in_pixels_of_the_picture(semi: PersonGenerator) -> None:
    """The same pixels in a larger frame give the same pose, farther on."""
    small = picture(2, 48, 48)
    large = np.zeros((100, 130, 3), np.uint8)
    large[20:68, 50:98] = small
    alone = semi.estimate(small, boxes=(3.5, 3.5, 43.5, 43.5))
    inside = semi.estimate(large, boxes=(53.5, 23.5, 93.5, 63.5))
    np.testing.assert_allclose(inside.poses_px - (50, 20), alone.poses_px, atol=1e-3)
    assert inside.std_px is not None
    assert inside.std_px.shape == (1, 14)
    # With the posterior's deviation in half crops of 48 picture pixels.
    with torch.no_grad():
        posterior = semi.model.estimate_pose(inside.crops)  # type: ignore[operator]
    deviation = (0.5 * posterior.log_variance).exp().view(14, 2).square().mean(1).sqrt()
    np.testing.assert_allclose(inside.std_px[0], deviation * (S - 1) / 2 * 48 / S, rtol=1e-4)
    assert ((inside.confidence >= 0) & (inside.confidence <= 1)).all()


def test_the_crop_repeats_the_border() -> None:
    white = np.full((20, 30, 3), 255, np.uint8)
    assert view_person(white, S, None, (-10, 0, 20, 30)).image.min() == 1
    assert person_crop(white, (-10, 0, 20, 30), S).min() == 0


def test_indirect_transfer_takes_the_other_images_pose(semi: PersonGenerator) -> None:
    made = semi.indirect_transfer(picture(0), [picture(1), picture(2)], poses=pose())
    assert len(made) == 2
    expected = semi.reconstruct(picture(2)).poses_px
    torch.testing.assert_close(made.poses_px[1:], expected)
    assert made.source_poses_px is not None
    torch.testing.assert_close(made.source_poses_px[0], made.source_poses_px[1])


def test_edits_of_an_image_share_the_crop(conditional: PersonGenerator) -> None:
    joints = pose()
    joints[0] = np.nan

    def taller(px: Tensor, known: Tensor) -> Tensor:
        return scale_height(px, 1.5, known)

    def waving(px: Tensor, known: Tensor) -> Tensor:
        return drag_joint(px, "left_wrist", (60, 20), known)

    made = conditional.edit([picture(), picture(1)], joints, [taller, waving, lambda px, _: px])
    assert len(made) == 6
    assert made.sources is not None
    assert made.source_poses_px is not None
    torch.testing.assert_close(made.sources[0], made.sources[2])
    torch.testing.assert_close(made.poses_px[2], made.source_poses_px[2], equal_nan=True)
    own, higher = made.source_poses_px[0], made.poses_px[0]
    np.testing.assert_allclose(
        np.nanmax(higher[:, 1]), np.nanmax(own[:, 1]), atol=1e-3
    )  # the ground
    assert float(np.nanmin(higher)) > 0
    assert higher[0].isnan().all()


def test_generation(semi: PersonGenerator, conditional: PersonGenerator) -> None:
    made = conditional.generate(np.stack([pose(), pose(1)]), count=3, seed=5)
    assert made.images.shape == (6, 3, S, S)
    assert made.sources is None
    torch.testing.assert_close(made.poses_px[0], made.poses_px[2])
    again = conditional.generate(pose(1), count=3, seed=5)
    torch.testing.assert_close(again.images, made.images[3:])
    assert not torch.allclose(conditional.generate(pose(1), seed=6).images, again.images[:1])
    drawn = semi.generate(count=4, seed=1)
    torch.testing.assert_close(drawn.images, semi.generate(count=4, seed=1).images)
    assert not torch.allclose(drawn.poses_px[0], drawn.poses_px[1])


def test_what_a_conditional_model_cannot(conditional: PersonGenerator) -> None:
    for use in (
        lambda: conditional.reconstruct(picture()),
        lambda: conditional.estimate(picture()),
        lambda: conditional.indirect_transfer(picture(), picture(), poses=pose()),
    ):
        with pytest.raises(ValueError, match="a pose must be given: a conditional model estimates"):
            use()
    with pytest.raises(ValueError, match="poses must be given to a conditional model"):
        conditional.generate()
    with pytest.raises(ValueError, match="edits must hold at least one, got none"):
        conditional.edit(picture(), pose(), [])
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        conditional.generate(pose(), count=0)


def test_an_estimator_beside_it() -> None:
    network = KeypointNetwork(KeypointNetworkConfig(16, (4, 4, 4, 4), (4, 4, 4))).eval()
    judge = KeypointEstimator(network)
    generator = PersonGenerator(model_of("conditional"), estimator=judge)  # type: ignore[arg-type]
    made = generator.reconstruct(picture())
    seen = view_person(picture(), S).image[None]
    torch.testing.assert_close(made.poses_px, network.estimate(seen)[0])
    assert generator.estimate(picture()).std_px is None
    regressor = KeypointEstimator(model_of("regression"))  # type: ignore[arg-type]
    assert regressor.estimate([picture(), picture(1)]).poses_px.shape == (2, 14, 2)


def test_poses_far_outside(conditional: PersonGenerator) -> None:
    joints = pose()
    joints[7] = 4000, -3000
    for outside in (joints, pose() + 5000, pose() - 500):
        with pytest.raises(ValueError, match="pose must lie in the image of 120x90 pixels, unless"):
            conditional.reconstruct(picture(), outside)
        boxed = conditional.reconstruct(picture(), outside, boxes=(30, 10, 80, 80))
        assert boxed.images.isfinite().all()
    with pytest.raises(ValueError, match="two known joints a pixel or more apart"):
        conditional.transfer(picture(), pose(), np.full((14, 2), 3.0))
    with pytest.raises(ValueError, match="x1, y1, x2, y2 with x1 < x2"):
        conditional.transfer(picture(), pose(), pose(), target_boxes=(5, 5, 5, 9))


# ---- files ----


def test_files(tmp_path: Path) -> None:
    paths = {}
    for system in ("semi", "conditional", "vae", "regression"):
        paths[system] = tmp_path / f"{system}.safetensors"
        save_model(model_of(system), paths[system])
    generator = dgpose.load(paths["semi"])
    assert isinstance(generator, dgpose.PersonGenerator)
    info = generator.info()
    assert (info["network"], info["image_size"], info["device"]) == ("SemiDGPose", S, "cpu")
    for system in ("vae", "regression"):
        with pytest.raises(ValueError, match=rf"{system}.safetensors: model must be a Cond"):
            PersonGenerator.load(paths[system])
    for system in ("vae", "conditional"):
        with pytest.raises(ValueError, match=rf"{system}.safetensors: .* estimates no poses"):
            KeypointEstimator.load(paths[system])
    assert KeypointEstimator.load(paths["regression"]).image_size == S
    judge = tmp_path / "judge.safetensors"
    save_judge(KeypointNetwork(KeypointNetworkConfig(16, (4, 4, 4, 4), (4, 4, 4))), judge)
    assert isinstance(dgpose.load(judge), dgpose.KeypointEstimator)
    both = PersonGenerator.load(paths["conditional"], estimator=judge)
    assert len(both.reconstruct(picture())) == 1
    with pytest.raises(FileNotFoundError, match="no such file"):
        PersonGenerator.load(tmp_path / "none.safetensors")


def test_training_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="eval mode"):
        PersonGenerator(model_of("semi").train())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="eval mode"):
        KeypointEstimator(model_of("semi").train())  # type: ignore[arg-type]
