"""Hand errors: known by hand on small cases, and as published on the published files."""

import gzip

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dgpose.metrics.hand import (
    HAND_PROTOCOLS,
    ResultFormatError,
    area_under_curve,
    evaluate,
    joint_errors,
    mean_error_success_rate,
    mean_joint_error,
    per_joint_error,
    read_uvd,
    success_rate,
    uvd_to_mm,
    write_uvd,
)
from dgpose.skeletons import ICVL16, MSRA21, NYU14, NYU36, NYU_SCORED14

PUBLISHED_ICVL_MM = {
    "CVPR14_LRF_Results": 12.578,
    "ICIP17_ICVL_Guo_Basic": 8.358,
    "IJCAI16_ICVL_DeepModel": 11.561,
    "JVCI18_ICVL_REN_9x6x6": 7.305,
    "NEUCOM18_ICVL_Pose_REN": 6.791,
    "CVPR19_ICVL_CrossInfoNet": 6.732,
    "CVPR18_ICVL_V2V_PoseNet": 6.284,
    "SRN_icvl": 6.271,
    "A2J_icvl_646_epoch12_UVD": 6.461,
    "ArXiv_ICVL_TriHorn_Net": 5.736,
}


@pytest.mark.parametrize(("name", "published_mm"), PUBLISHED_ICVL_MM.items())
def test_published_icvl_errors_are_reproduced(data_dir, name, published_mm):
    icvl = data_dir / "hand" / "icvl"
    labels = read_uvd(icvl / "labels" / "icvl_test_groundtruth_label.txt.gz")
    predictions = read_uvd(icvl / "predictions" / f"{name}.txt.gz")
    errors = evaluate(predictions, labels, "icvl")
    assert errors.errors_mm.shape == (1596, 16)
    assert errors.mean_mm == pytest.approx(published_mm, abs=0.001)
    parts = errors.subset_means_mm
    assert (702 * parts["test_seq_1"] + 894 * parts["test_seq_2"]) / 1596 == pytest.approx(
        errors.mean_mm
    )


def test_icvl_label_files_of_both_forms_agree(data_dir):
    labels = data_dir / "hand" / "icvl" / "labels"
    whole = read_uvd(labels / "icvl_test_groundtruth_label.txt.gz")
    parts = [read_uvd(labels / f"test_seq_{i}.txt.gz") for i in (1, 2)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_errors_by_hand():
    truth = np.zeros((2, 2, 3))
    predicted = np.array([[[3.0, 4, 0], [0, 0, 1]], [[0, 0, 0], [0, 12, 5]]])
    errors = joint_errors(predicted, truth)
    np.testing.assert_allclose(errors, [[5, 1], [0, 13]])
    assert mean_joint_error(errors) == 4.75
    np.testing.assert_allclose(per_joint_error(errors), [2.5, 7])
    thresholds = [0.0, 5.0, 5.1, 13.0, 13.1]
    np.testing.assert_allclose(success_rate(errors, thresholds), [0, 0, 0.5, 0.5, 1])
    np.testing.assert_allclose(mean_error_success_rate(errors, [3.0, 3.1, 7.0]), [0, 0.5, 1])
    assert area_under_curve([0.0, 10.0, 20.0], np.array([0, 0.5, 1])) == pytest.approx(0.5)
    assert area_under_curve([0.0, 80.0], np.array([1, 1])) == 1


@given(hnp.arrays(float, (7, 3), elements=st.floats(0, 100)))
def test_success_rates_rise_and_the_mean_is_more_lenient(errors):
    thresholds = np.arange(0, 101, 5)
    strict = success_rate(errors, thresholds)
    assert (np.diff(strict) >= 0).all()
    assert (mean_error_success_rate(errors, thresholds + 1e-9) >= strict).all()
    assert strict[0] == 0


def test_cameras_of_the_evaluation():
    uvd = np.array([260.0, 220.0, 1000.0])
    np.testing.assert_allclose(uvd_to_mm(uvd, "icvl"), [1e5 / 240.99, -1e5 / 240.96, 1000])
    np.testing.assert_allclose(uvd_to_mm(uvd, "msra"), [1e5 / 241.42, -1e5 / 241.42, 1000])
    np.testing.assert_allclose(uvd_to_mm(uvd, "nyu"), [-6e4 / 588.03, 2e4 / 587.07, 1000])


def test_nyu_scores_14_joints_of_14_or_36():
    rng = np.random.default_rng(0)
    truth = rng.uniform(200, 400, (4, 36, 3))
    predicted = truth + rng.normal(size=truth.shape)
    scored = list(NYU_SCORED14)
    expected = evaluate(predicted[:, scored], truth[:, scored], "nyu").errors_mm
    assert expected.shape == (4, 14)
    np.testing.assert_array_equal(evaluate(predicted, truth[:, scored], "nyu").errors_mm, expected)
    unscored = np.setdiff1d(np.arange(36), scored)
    predicted[:, unscored] += 1000
    np.testing.assert_array_equal(evaluate(predicted, truth, "nyu").errors_mm, expected)


def test_nyu_actors_are_reported_apart_on_the_whole_test_set_only():
    truth = np.full((8252, 14, 3), 300.0)
    predicted = truth.copy()
    predicted[2440:, :, 2] += 1
    errors = evaluate(predicted, truth, "nyu")
    assert errors.subset_means_mm["training actor"] == 0
    assert errors.subset_means_mm["other actor"] > 0.9
    assert evaluate(predicted[1:], truth[1:], "nyu").subset_means_mm == {}


@pytest.mark.parametrize(
    ("predicted", "truth", "dataset", "message"),
    [
        ((5, 16, 3), (4, 16, 3), "icvl", r"one frame per label \(4\), got 5 frames"),
        ((4, 15, 3), (4, 16, 3), "icvl", r"predictions for icvl .* \[N, 16, 3\], got \[4, 15, 3\]"),
        ((4, 14, 3), (4, 16, 3), "nyu", r"labels for nyu .* \[N, 14 or 36, 3\], got \[4, 16, 3\]"),
        (
            (4, 21, 3),
            (4, 21, 3),
            "bighand",
            "dataset must be one of icvl, nyu, msra, got 'bighand'",
        ),
    ],
)
def test_evaluate_refuses(predicted, truth, dataset, message):
    with pytest.raises(ValueError, match=message):
        evaluate(np.ones(predicted), np.ones(truth), dataset)


def test_evaluate_refuses_nan_and_names_the_frame():
    predicted = np.ones((4, 21, 3))
    predicted[2, 5, 1] = np.nan
    with pytest.raises(ValueError, match="predictions must be finite, got NaN or Inf in frame 2"):
        evaluate(predicted, np.ones((4, 21, 3)), "msra")


def test_joint_errors_refuses_shapes():
    with pytest.raises(ValueError, match=r"shape of truth_mm \[2, 4, 3\], got \[2, 5, 3\]"):
        joint_errors(np.zeros((2, 5, 3)), np.zeros((2, 4, 3)))
    with pytest.raises(ValueError, match=r"truth_mm must have shape \[N, J, 3\], got \[0, 4, 3\]"):
        joint_errors(np.zeros((0, 4, 3)), np.zeros((0, 4, 3)))


def test_read_uvd_forms(tmp_path):
    rows = [[1.5, 2, 300, 4, 5, 600], [7, 8, 900, 1e1, 11, 1.2e3]]
    text = "\n".join(" ".join(map(str, row)) for row in rows)
    plain, packed, named = tmp_path / "a.txt", tmp_path / "b.gz", tmp_path / "c.txt"
    plain.write_text(text + " \n\n")
    packed.write_bytes(gzip.compress(text.encode()))
    named.write_text("\n".join(f"seq/{i}.png {line}" for i, line in enumerate(text.splitlines())))
    for path in (plain, packed, named):
        np.testing.assert_array_equal(read_uvd(path), np.array(rows).reshape(2, 2, 3))


def test_write_uvd(tmp_path):
    uvd = np.random.default_rng(0).uniform(-9, 900, (4, 21, 3))
    write_uvd(tmp_path / "new" / "folder" / "a.txt", uvd)
    np.testing.assert_allclose(read_uvd(tmp_path / "new/folder/a.txt"), uvd, atol=5.1e-4)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "holds no frame"),
        (b" \n\n", "holds no frame"),
        (b"1 2 3 4\n", r"line 1: must hold J x \(u v d\), got 4 numbers"),
        (b"1 2 3\n1 2 3 4 5 6\n", "line 2: must hold 3 numbers like the lines before, got 6"),
        (b"1 2 3\n\n1 2 x\n", "line 3: not a finite number: 'x'"),
        (b"1 2 nan\n", "line 1: not a finite number: 'nan'"),
        (b"1 2 inf\n", "line 1: not a finite number: 'inf'"),
        (b"a.png b.png 2 3\n", "line 1: not a finite number: 'b.png'"),
        (b"\x89PNG\xff\xfe", "not a text file"),
        (gzip.compress(b"1 2 3\n" * 50, mtime=0)[:-9], "the gzip file is damaged"),
        (b"\x1f\x8b garbage", "the gzip file is damaged"),
    ],
)
def test_read_uvd_refuses(tmp_path, data, message):
    path = tmp_path / "x.txt"
    path.write_bytes(data)
    with pytest.raises(ResultFormatError, match=rf"x\.txt.*{message}"):
        read_uvd(path)


@given(st.binary())
def test_read_uvd_of_any_bytes(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("fuzz") / "x"
    path.write_bytes(data)
    try:
        uvd = read_uvd(path)
    except ResultFormatError:
        return
    assert uvd.ndim == 3
    assert np.isfinite(uvd).all()


@pytest.mark.parametrize("skeleton", [NYU36, NYU14, ICVL16, MSRA21])
def test_every_joint_hangs_on_the_drawing(skeleton):
    joints = len(skeleton)
    linked = {0}
    for _ in range(joints):
        linked |= {j for edge in skeleton.edges if linked & set(edge) for j in edge}
    assert linked == set(range(joints))
    assert len(set(skeleton.joints)) == joints
    assert len(skeleton.edge_colors) == len(skeleton.edges)


def test_nyu_joint_names_and_datasets():
    assert NYU36.joints[:3] == ("F1_KNU3_A", "F1_KNU3_B", "F1_KNU2_A")
    assert NYU36.joints[24:31] == (
        *(f"TH_KNU{k}_{end}" for k in (3, 2, 1) for end in "AB"),
        "PALM_1",
    )
    assert NYU36.groups[0] == "little"
    assert NYU36.groups[23] == "index"
    assert NYU14.joints[-1] == "PALM_3"
    assert {name: len(d.skeleton) for name, d in HAND_PROTOCOLS.items()} == {
        "icvl": 16,
        "nyu": 14,
        "msra": 21,
    }


def test_nyu_joint_names_are_those_of_the_data(data_dir):
    import json

    model = json.loads((data_dir / "hand" / "models" / "nyu36_sphere_model.json").read_text())
    assert list(NYU36.joints) == model["joint_names"]
    assert list(NYU_SCORED14) == model["eval14"]
