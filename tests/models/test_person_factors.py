"""PersonFactors, inversion and the virtual Market on tiny untrained models: what is kept, what is
drawn, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dpig_models import tiny_dpig
from torch import Tensor

import dgpose
from dgpose.data.market1501 import open_market1501
from dgpose.data.person_pool import PersonPool
from dgpose.data.person_sources import read_people
from dgpose.inference.code_inversion import InversionConfig, invert_codes
from dgpose.inference.person_factors import PersonFactors
from dgpose.inference.person_keypoints import KeypointEstimator
from dgpose.inference.person_views import view_person
from dgpose.inference.virtual_market import virtual_market, write_market
from dgpose.metrics.image_quality import psnr
from dgpose.models.dpig import FACTORS, Factor, save_dpig
from dgpose.nn.keypoint_network import KeypointNetwork, KeypointNetworkConfig
from dgpose.skeletons import OPENPOSE18

SIZE = (128, 64)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny networks: threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def people() -> PersonFactors:
    return PersonFactors(tiny_dpig(), name="tiny")


@pytest.fixture(scope="module")
def large() -> PersonFactors:
    """256x256, without a background."""
    return PersonFactors(tiny_dpig(size=(256, 256), background_code=0))


@pytest.fixture(scope="module")
def pool() -> PersonPool:
    return read_people("rendered", size=SIZE, count=8)


def picture(seed: int = 0, height: int = 90, width: int = 120) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def pose(seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).uniform((30, 10), (80, 80), (18, 2))


class Decoded:
    """What the model's decoder is given, row by row."""

    def __init__(self, factors: PersonFactors, monkeypatch: pytest.MonkeyPatch) -> None:
        self.foreground: list[Tensor] = []
        self.background: list[Tensor] = []
        self.pose: list[Tensor] = []
        decode = factors.model.decode

        def seen(foreground: Tensor, background: Any, keypoints: Tensor, visible: Tensor) -> Tensor:
            self.foreground += foreground
            self.background += [] if background is None else background
            self.pose += torch.cat([keypoints, visible[..., None]], 2)
            return decode(foreground, background, keypoints, visible)

        monkeypatch.setattr(factors.model, "decode", seen)

    def of(self, factor: Factor) -> Tensor:
        return torch.stack(getattr(self, factor))


def test_reconstruction_is_the_models_own(people: PersonFactors) -> None:
    joints = pose()
    joints[4] = np.nan
    made = people.reconstruct(picture(), joints)
    view = view_person(picture(), SIZE, joints, skeleton=OPENPOSE18)
    assert view.pose_px is not None
    px = torch.from_numpy(np.nan_to_num(view.pose_px)).float()[None]
    visible = torch.ones(1, 18, dtype=torch.bool)
    visible[0, 4] = False
    with torch.no_grad():
        foreground, background, _ = people.model.encode(view.image[None], px, visible)
        expected = people.model.decode(foreground, background, px, visible)
    torch.testing.assert_close(made.images, expected)
    assert made.sources is not None
    torch.testing.assert_close(made.sources[0], view.image)
    assert made.poses_px[0, 4].isnan().all()
    assert made.pictures().shape == (1, *SIZE, 3)


def test_a_pose_of_14_joints_has_no_eyes_and_ears(people: PersonFactors) -> None:
    made = people.reconstruct(picture(), pose()[:14])
    assert made.poses_px[0, 14:].isnan().all()
    assert made.poses_px[0, :14].isfinite().all()


@pytest.mark.parametrize("vary", [*FACTORS, ("foreground", "pose"), None])
def test_kept_factors_are_kept_to_the_bit(
    people: PersonFactors, monkeypatch: pytest.MonkeyPatch, vary: Any
) -> None:
    seen = Decoded(people, monkeypatch)
    people.reconstruct(picture(), pose())
    people.sample(picture(), pose(), vary=vary, count=3, seed=4)
    drawn = FACTORS if vary is None else (vary,) if isinstance(vary, str) else vary
    for factor in FACTORS:
        own, *samples = seen.of(factor)
        for sample in samples:
            assert torch.equal(sample, own) == (factor not in drawn), factor
        if factor in drawn:
            assert not torch.equal(samples[0], samples[1])


def test_the_sampled_pose_is_what_is_decoded(
    people: PersonFactors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The authors' tester decodes the real one."""
    seen = Decoded(people, monkeypatch)
    made = people.sample(picture(), pose(), vary="pose", count=2, seed=1)
    random = torch.Generator().manual_seed(3 * 1 + FACTORS.index("pose"))
    with torch.no_grad():
        joints, visible = people.model.decode_pose(people.model.sample("pose", 2, random))
    torch.testing.assert_close(made.poses_px, joints.where(visible[..., None], torch.nan),
                               equal_nan=True)  # fmt: skip
    shown = seen.of("pose")
    torch.testing.assert_close(shown[..., 2].bool(), visible)
    torch.testing.assert_close(shown[..., :2][visible], joints[visible])


def test_draws_are_those_of_the_seed(people: PersonFactors) -> None:
    first = people.sample(count=3, seed=5)
    torch.testing.assert_close(people.sample(count=3, seed=5).images, first.images)
    assert not torch.allclose(people.sample(count=3, seed=6).images, first.images)
    assert first.sources is None
    # Whatever else is drawn, a factor's draws of a seed are the same; so are those of each image.
    alone = people.sample(picture(), pose(), vary="pose", count=3, seed=5)
    torch.testing.assert_close(alone.poses_px, first.poses_px, equal_nan=True)
    both = people.sample([picture(), picture(1)], pose(), vary="foreground", count=2, seed=5)
    torch.testing.assert_close(
        both.images[:2],
        people.sample(picture(), pose(), vary="foreground", count=2, seed=5).images,
    )
    assert len(both) == 4
    given = people.sample(poses=pose(), count=2)
    torch.testing.assert_close(given.poses_px[0], given.poses_px[1])


def test_swap_takes_each_factor_from_its_own_image(
    people: PersonFactors, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Decoded(people, monkeypatch)
    for number in range(3):
        people.reconstruct(picture(number), pose(number))
    made = people.swap(
        picture(0), pose(0), backgrounds=picture(1), background_poses=pose(1), targets=pose(2)
    )
    torch.testing.assert_close(seen.of("foreground")[3], seen.of("foreground")[0])
    torch.testing.assert_close(seen.of("background")[3], seen.of("background")[1])
    guided = people.pose_guided(picture(0), pose(0), pose(2))
    torch.testing.assert_close(made.poses_px, guided.poses_px)
    torch.testing.assert_close(seen.of("background")[4], seen.of("background")[0])
    many = people.pose_guided(picture(), pose(), np.stack([pose(2), 5 * pose(2) + 100]))
    torch.testing.assert_close(many.poses_px[0], many.poses_px[1], atol=0.5, rtol=0)
    assert len(people.swap([picture(0), picture(1)], pose())) == 2


def test_a_walk_begins_and_ends_with_the_draws(people: PersonFactors) -> None:
    walk = people.interpolate(count=5, seeds=(3, 8))
    for end, seed in ((walk.images[:1], 3), (walk.images[-1:], 8)):
        torch.testing.assert_close(end, people.sample(seed=seed).images)
    part = people.interpolate(vary="background", count=3, seeds=(3, 8))
    torch.testing.assert_close(part.poses_px[0], part.poses_px[2], equal_nan=True)
    assert not torch.equal(part.images[0], part.images[2])
    kept = people.interpolate(picture(), pose(), vary="foreground", count=3)
    torch.testing.assert_close(kept.poses_px[0], kept.poses_px[2])
    assert kept.sources is not None


@pytest.mark.parametrize("factor", FACTORS)
def test_inversion_recovers_a_code_that_the_mapper_made(
    people: PersonFactors, factor: Factor
) -> None:
    noise = people.model.sample_noise(factor, 3, torch.Generator().manual_seed(9))
    codes = people.model.map_noise(factor, noise).detach()
    found = invert_codes(people.model, factor, codes, config=InversionConfig(steps=200))
    assert float(found.error.max()) < 0.2 * float(found.drawn_error.min())
    torch.testing.assert_close(people.model.map_noise(factor, found.noise), found.codes)
    again = invert_codes(people.model, factor, codes, config=InversionConfig(steps=200))
    assert torch.equal(found.noise, again.noise)
    worse = invert_codes(people.model, factor, codes, config=InversionConfig(1, 1))
    assert (worse.error > found.error).all()
    assert all(p.grad is None for p in people.model.parameters())


def test_two_images_through_noise(people: PersonFactors) -> None:
    pictures, poses = [picture(0), picture(1)], np.stack([pose(0), pose(1)])
    pair = people.invert(pictures, poses, count=4, config=InversionConfig(2, 20))
    assert set(pair.found) == set(FACTORS)
    assert len(pair.frames) == 4
    torch.testing.assert_close(pair.frames.images[0], pair.inverted.images[0])
    torch.testing.assert_close(pair.frames.images[-1], pair.inverted.images[1])
    own = people.reconstruct(pictures, poses)
    assert own.sources is not None
    torch.testing.assert_close(pair.rebuilt.images, own.images)
    torch.testing.assert_close(pair.rebuilt_psnr, psnr(own.images, own.sources))
    torch.testing.assert_close(pair.psnr, psnr(pair.inverted.images, own.sources))
    assert pair.pose_error_px is not None


def test_a_motion_between_two_images_keeps_the_person_of_the_first(
    people: PersonFactors, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Decoded(people, monkeypatch)
    pair = people.invert(
        [picture(0), picture(1)], np.stack([pose(0), pose(1)]), factors="pose", count=3,
        config=InversionConfig(2, 20),
    )  # fmt: skip
    people.reconstruct(picture(0), pose(0))
    for factor in ("foreground", "background"):
        *_, first, middle, last, own = seen.of(factor)  # type: ignore[arg-type]
        for code in (first, middle, last):
            torch.testing.assert_close(code, own)
    assert not torch.equal(
        pair.frames.poses_px[0].nan_to_num(), pair.frames.poses_px[-1].nan_to_num()
    )


def test_an_estimator_beside_it() -> None:
    network = KeypointNetwork(KeypointNetworkConfig(16, (4, 4, 4, 4), (4, 4, 4))).eval()
    estimator = KeypointEstimator(network)
    people = PersonFactors(tiny_dpig(), estimator=estimator)
    found = estimator.estimate(picture(), boxes=(30, 10, 80, 80)).poses_px[0]
    made = people.reconstruct(picture(), boxes=(30, 10, 80, 80))
    expected = people.reconstruct(picture(), found, boxes=(30, 10, 80, 80))
    torch.testing.assert_close(made.images, expected.images)


def test_what_cannot_be(people: PersonFactors, large: PersonFactors) -> None:
    for use, message in (
        (lambda: people.reconstruct(picture()), "a pose must be given, or an estimator"),
        (lambda: people.sample(count=0), "count must be at least 1, got 0"),
        (lambda: people.sample(vary="foreground"), "without images, what is not given must be"),
        (lambda: people.sample(vary=()), "got none"),
        (lambda: people.sample(vary="face"), "must be among foreground, background, pose, which"),
        (lambda: people.sample(boxes=(1, 2, 3, 4)), "boxes must come with images"),
        (lambda: people.interpolate(count=1), "at least 2 frames, got 1"),
        (lambda: people.interpolate(poses=pose(), vary="pose"), "poses must not be given where"),
        (lambda: people.invert(picture(), pose()), "images must be two, got 1"),
        (lambda: large.sample(vary="background"), "must be among foreground, pose, which this"),
        (lambda: large.swap(picture(), pose(), backgrounds=picture(), background_poses=pose()),
         "what is swapped must be among foreground, pose, which this model has, got background"),
        (lambda: people.pose_guided(picture(), pose(), np.full((18, 2), 3.0)), "two known joints"),
        (lambda: people.reconstruct(picture(), pose() + 900), "pose must lie in the image"),
        (lambda: invert_codes(people.model, "pose", torch.zeros(1, 8)), "not 0 throughout"),
        (lambda: invert_codes(people.model, "pose", torch.ones(1, 9)), r"shape \[B, 8\]"),
        (lambda: InversionConfig(restarts=0), "restarts must be at least 1"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            use()


def test_256x256(large: PersonFactors) -> None:
    assert large.factors == ("foreground", "pose")
    assert large.sample(count=1).images.shape == (1, 3, 256, 256)
    assert large.reconstruct(picture(), pose()).images.shape == (1, 3, 256, 256)


def test_what_was_not_trained_is_said() -> None:
    only = PersonFactors(tiny_dpig(trained=("stage1",)))
    assert len(only.pose_guided(picture(), pose(), pose(1))) == 1
    with pytest.raises(ValueError, match=r"foreground mapper must .*`dgpose train dpig-stage2`"):
        only.sample()
    with pytest.raises(ValueError, match="eval mode"):
        PersonFactors(tiny_dpig().train())


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "dpig.safetensors"
    save_dpig(tiny_dpig(), path)
    loaded = dgpose.load(path)
    assert isinstance(loaded, dgpose.PersonFactors)
    info = loaded.info()
    assert (info["network"], info["image_size"], info["joints"]) == ("DPIG", SIZE, "openpose18")
    assert info["factors"] == list(FACTORS)
    torch.testing.assert_close(loaded.sample().images, PersonFactors(tiny_dpig()).sample().images)


# ---- virtual Market ----


def test_virtual_market_is_read_as_market(
    people: PersonFactors, pool: PersonPool, tmp_path: Path
) -> None:
    made = virtual_market(people.model, pool, 8, backgrounds=7)
    assert made.identity is not None
    assert made.identity.tolist() == [1 + person for person in range(8) for _ in range(7)]
    assert made.names[6:9] == (
        "0001_c1s1_000006_00.jpg", "0002_c1s1_000000_00.jpg", "0002_c2s1_000001_00.jpg"
    )  # fmt: skip
    done: list[tuple[int, int]] = []
    write_market(made, tmp_path / "market", progress=lambda *at: done.append(at))
    assert done[-1] == (56, 56)
    parts = {split: open_market1501(tmp_path / "market", split) for split in ("train", "val")}
    assert [len(parts[split]) for split in ("train", "val")] == [49, 7]  # person 7 is held out
    rows = [row for row, who in enumerate(made.identity.tolist()) if who % 20 != 7]
    expected, read = made.subset(torch.tensor(rows)), parts["train"].pool(SIZE)
    assert read.identity is not None
    assert expected.identity is not None
    assert torch.equal(read.identity, expected.identity)
    assert torch.equal(read.known, expected.visible)
    torch.testing.assert_close(read.keypoints_px, expected.keypoints_px.round().clamp(0))
    off = (read.images.float() - expected.images.float()).abs().mean()
    assert float(off) < 12  # JPEG


@pytest.mark.parametrize("named", [".", "link"])
def test_a_virtual_market_takes_the_place_of_an_empty_folder(
    named: str, people: PersonFactors, pool: PersonPool, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    folder = tmp_path / "market"
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(folder if named == "." else tmp_path)
    write_market(virtual_market(people.model, pool, 1, backgrounds=2), named)
    monkeypatch.chdir(tmp_path)
    assert len(list(folder.glob("bounding_box_train/*.jpg"))) == 2
    assert sorted(tmp_path.iterdir()) == [tmp_path / "link", folder]


def test_an_identity_is_one_foreground_in_many_places_and_poses(
    people: PersonFactors, pool: PersonPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Decoded(people, monkeypatch)
    made = virtual_market(people.model, pool, 2, backgrounds=5, seed=3)
    foreground, background = seen.of("foreground"), seen.of("background")
    assert len(foreground.unique(dim=0)) == 2
    assert len(background.unique(dim=0)) == 10
    assert all(len(poses.unique(dim=0)) == 5 for poses in seen.of("pose").split(5))
    for row, pose_row in enumerate(seen.of("pose")):
        shown = pose_row[:, 2].bool()
        own = [
            bool(torch.equal(shown, visible) and torch.equal(pose_row[shown, :2], px[visible]))
            for px, visible in zip(pool.keypoints_px, pool.visible, strict=True)
        ]
        assert any(own), row
    first = virtual_market(people.model, pool, 1, backgrounds=5, seed=3)
    assert torch.equal(first.images, made.images[:5])
    other = virtual_market(people.model, pool, 1, backgrounds=5, seed=4)
    assert not torch.equal(other.images, first.images)


def test_virtual_markets_that_cannot_be(
    people: PersonFactors, large: PersonFactors, pool: PersonPool, tmp_path: Path
) -> None:
    hidden = PersonPool(pool.images, pool.keypoints_px, pool.known, pool.visible & False)
    outside = replace(pool, names=tuple(f"../{row}.jpg" for row in range(len(pool))))
    for use, message in (
        (lambda: virtual_market(people.model, pool, 0), "from 1 to 9,999, got 0"),
        (lambda: virtual_market(people.model, pool, 1, backgrounds=0), "at least 1, got 0"),
        (lambda: virtual_market(large.model, pool, 1), "poses must be of images of 256x256"),
        (lambda: virtual_market(people.model, hidden, 1), "4 visible joints, got none"),
        (lambda: virtual_market(tiny_dpig(trained=("stage1",)), pool, 1), "foreground mapper must"),
        (lambda: write_market(hidden, tmp_path / "new"), "must have names of files"),
        (lambda: write_market(outside, tmp_path / "new"), "must have names of files"),
    ):
        with pytest.raises(ValueError, match=message):
            use()
    made = virtual_market(people.model, pool, 1, backgrounds=1)
    (tmp_path / "a.txt").write_text("kept")
    with pytest.raises(FileExistsError, match="must be a new or an empty folder"):
        write_market(made, tmp_path)

    def interrupted(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_market(made, tmp_path / "half", progress=interrupted)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
