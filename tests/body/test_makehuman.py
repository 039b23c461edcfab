"""The reader of MakeHuman's data: facts of the published mesh, and the zero pose's geometry."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from svad_ray.body.makehuman import MakeHuman, Phenotype, macro_targets
from svad_ray.body.makehuman_rig import rotation_between, zero_pose_rotations
from svad_ray.body.names import JOINT_INDEX, SIDES
from svad_ray.errors import InputError


@pytest.mark.models
def test_the_base_mesh_is_the_published_one(makehuman: MakeHuman) -> None:
    assert makehuman.vertices.shape == (19158, 3)
    assert makehuman.uv.shape == (21334, 2)
    faces, uv_faces = makehuman.triangles("body")
    assert faces.max() == 13379 and faces.min() == 0 and uv_faces.shape == faces.shape
    np.testing.assert_allclose(makehuman.lbs_weights.sum(1), 1, atol=1e-12)
    assert len(makehuman.face_units) == 52


@pytest.mark.models
def test_faces_look_outwards(makehuman: MakeHuman) -> None:
    faces, _ = makehuman.triangles("body")
    a, b, c = (makehuman.vertices[faces[:, k]] for k in range(3))
    volume = (a * np.cross(b, c)).sum() / 6
    assert 0.02 < volume < 0.15  # cubic metres; an inverted mesh has a negative one


@pytest.mark.models
def test_a_shape_is_the_base_plus_weighted_targets(makehuman: MakeHuman) -> None:
    """One local target, read here by other means, adds exactly its lines times its weight."""
    path = next((makehuman.root / "mpfb2/targets/nose").glob("nose-hump-incr.target.gz"))
    delta = np.zeros_like(makehuman.vertices)
    for line in gzip.decompress(path.read_bytes()).decode().splitlines():
        if line.strip() and not line.startswith("#"):
            number, *xyz = line.split()
            delta[int(number)] = [float(x) / 10 for x in xyz]
    plain, humped = makehuman.shape(Phenotype()), makehuman.shape(Phenotype(), {"nose-hump-incr": 0.4})
    np.testing.assert_allclose(humped - plain, 0.4 * delta, atol=1e-8)


@pytest.mark.parametrize("value", [0.0, 0.3, 0.5, 0.8, 1.0])
def test_macro_weights_of_a_kind_sum_to_one(value: float) -> None:
    person = Phenotype(gender=value, age=value, muscle=value, weight=1 - value)
    weights = list(macro_targets(person))
    assert sum(w for name, w in weights if "universal" in name) == pytest.approx(1)
    assert sum(w for name, w in weights if name.count("/") == 1 and "universal" not in name and "breast" not in name) == pytest.approx(1)
    assert sum(w for name, w in weights if "breast" in name) == pytest.approx(1 - value)


@pytest.mark.models
def test_gender_and_height_do_what_they_say(makehuman: MakeHuman) -> None:
    def stature(**change: float) -> float:
        return float(np.ptp(makehuman.shape(Phenotype(**change))[:13380, 1]))

    assert stature(gender=1.0) > stature(gender=0.0)
    assert stature(height=0.3) < stature(height=0.5) < stature(height=0.6)


@pytest.mark.models
def test_the_zero_pose(makehuman: MakeHuman) -> None:
    """Arms and fingers along x, legs straight down, palms level, pelvis at the origin, no bone stretched."""
    mesh = makehuman.shape(Phenotype(gender=1.0))
    before = makehuman.joints(mesh)
    vertices, joints = makehuman.unpose(mesh)
    at = {name: joints[i] for name, i in JOINT_INDEX.items()}
    np.testing.assert_allclose(at["pelvis"], 0, atol=1e-12)
    for side, sign in zip(SIDES, (1, -1)):
        for a, b in (("shoulder", "elbow"), ("elbow", "wrist")):
            bone = at[f"{side}_{b}"] - at[f"{side}_{a}"]
            np.testing.assert_allclose(bone / np.linalg.norm(bone), [sign, 0, 0], atol=1e-9)
        assert at[f"{side}_index1"][1] == pytest.approx(at[f"{side}_pinky1"][1], abs=1e-9)
        assert at[f"{side}_index1"][2] > at[f"{side}_pinky1"][2]  # thumb side to the front: palm down
        for a, b in (("hip", "knee"), ("knee", "ankle")):
            bone = at[f"{side}_{b}"] - at[f"{side}_{a}"]
            assert abs(bone[0]) < 1e-9 and bone[1] < 0
    for a, b in (("left_hip", "left_knee"), ("right_elbow", "right_wrist"), ("left_ring1", "left_ring2"), ("neck", "head")):
        i, j = JOINT_INDEX[a], JOINT_INDEX[b]
        assert np.linalg.norm(joints[i] - joints[j]) == pytest.approx(np.linalg.norm(before[i] - before[j]))
    assert np.abs(vertices[:13380, 0]).max() > 0.7 and vertices[:13380, 1].min() < -0.7


@pytest.mark.models
def test_mirror_is_an_involution_of_the_mesh(makehuman: MakeHuman) -> None:
    body = np.arange(13380)
    mirror = makehuman.mirror
    assert (mirror[mirror[body]] == body).all()
    assert np.abs(makehuman.vertices[mirror[body]] * [-1, 1, 1] - makehuman.vertices[body]).max() < 2e-3


@pytest.mark.models
def test_region_masks(makehuman: MakeHuman) -> None:
    lips = makehuman.region_image("lips")
    assert lips.shape == (2048, 2048) and lips.dtype == np.float32 and lips.min() >= 0 and lips.max() <= 1
    assert 1e-4 < (lips > 0.5).mean() < 0.01


@pytest.mark.models
def test_unknown_names_are_told(makehuman: MakeHuman) -> None:
    for call in (lambda: makehuman.triangles("hat"), lambda: makehuman.face_unit("frown"), lambda: makehuman.region_image("tail")):
        with pytest.raises(InputError, match="Expected: one of"):
            call()
    with pytest.raises(InputError, match="no shape target"):
        makehuman.shape(Phenotype(), {"nose-longer": 1.0})


def test_a_folder_without_the_data_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no MakeHuman data"):
        MakeHuman.load(tmp_path)


def test_rotation_between_directions() -> None:
    rng = np.random.default_rng(0)
    for a, b in rng.normal(size=(20, 2, 3)):
        r = rotation_between(a, b)
        np.testing.assert_allclose(r @ r.T, np.eye(3), atol=1e-9)
        np.testing.assert_allclose(r @ a / np.linalg.norm(a), b / np.linalg.norm(b), atol=1e-9)
        assert np.linalg.det(r) == pytest.approx(1)


@pytest.mark.models
def test_zero_pose_rotations_are_rotations(makehuman: MakeHuman) -> None:
    r = zero_pose_rotations(makehuman.joints(makehuman.vertices))
    np.testing.assert_allclose(r @ r.transpose(0, 2, 1), np.tile(np.eye(3), (55, 1, 1)), atol=1e-9)
    np.testing.assert_allclose(np.linalg.det(r), 1, atol=1e-9)
