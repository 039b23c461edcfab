"""The open body: it loads through smplx with equal results, and its tables mean what they say."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch

from svad_ray.body.builder import BuildConfig, build_open_body
from svad_ray.body.building.expressions import expression_space
from svad_ray.body.building.joints import fit_regressor
from svad_ray.body.building.parts import JOINT_MIRROR, Parts
from svad_ray.body.building.shapes import draw_people, principal_shapes, vertex_areas
from svad_ray.body.load import body_from_arrays
from svad_ray.body.makehuman import MakeHuman
from svad_ray.body.model import Body
from svad_ray.body.names import FINGERS, JOINT_NAMES, OUTPUT_INDEX, SIDES
from svad_ray.body.tables import SHORT_NAMES

pytestmark = pytest.mark.models
FLIP = np.array([-1, 1, 1])


def at(body: Body) -> dict[str, np.ndarray]:
    """Zero-pose output points by name."""
    joints = body.forward(betas=torch.zeros(1, 1)).joints[0].numpy()
    return {name: joints[i] for name, i in OUTPUT_INDEX.items()}


def test_equals_smplx_on_the_same_file(small_arrays, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smplx = pytest.importorskip("smplx")
    np.savez(tmp_path / "SMPLX_NEUTRAL.npz", **small_arrays)
    body = body_from_arrays(small_arrays)
    short = {word: body.tables.vertex[name] for word, name in SHORT_NAMES.items()}
    monkeypatch.setitem(smplx.vertex_ids.vertex_ids, "smplx", short)
    theirs = smplx.create(
        str(tmp_path / "SMPLX_NEUTRAL.npz"), "smplx", num_betas=10, num_expression_coeffs=10, use_pca=False, use_face_contour=True, batch_size=2
    )
    generator = torch.Generator().manual_seed(0)
    sizes = {"betas": 10, "expression": 10, "body_pose": 63, "left_hand_pose": 45, "right_hand_pose": 45}
    sizes |= dict.fromkeys(("global_orient", "jaw_pose", "leye_pose", "reye_pose", "transl"), 3)
    params = {name: 0.3 * torch.randn(2, n, generator=generator) for name, n in sizes.items()}
    expected, got = theirs(**params), body.forward(**params)
    np.testing.assert_allclose(got.vertices, expected.vertices.detach(), atol=1e-5)
    np.testing.assert_allclose(got.joints, expected.joints.detach(), atol=1e-5)


@pytest.mark.slow
def test_two_builds_are_bit_identical(small_arrays, makehuman: MakeHuman) -> None:
    again = build_open_body(makehuman, BuildConfig(people=24, betas=10))
    assert again.keys() == small_arrays.keys()
    for key, value in again.items():
        np.testing.assert_array_equal(value, small_arrays[key], err_msg=key)


def test_the_file_needs_no_pickle_and_carries_its_licence(small_arrays) -> None:
    stream = io.BytesIO()
    np.savez(stream, **{key: value for key, value in small_arrays.items() if key != "posedirs"})
    stream.seek(0)
    with np.load(stream, allow_pickle=False) as file:
        assert "CC0" in str(file["licence"]) and "MakeHuman" in str(file["licence"])


def test_the_body_is_mirror_symmetric(open_body: Body) -> None:
    v, mirror = open_body.v_template.numpy(), open_body.tables.mirror
    np.testing.assert_allclose(v[mirror] * FLIP, v, atol=1e-6)
    shapes = open_body.shapedirs.numpy()
    np.testing.assert_allclose(shapes[mirror] * FLIP[:, None], shapes, atol=1e-5)
    np.testing.assert_allclose(open_body.lbs_weights[mirror][:, JOINT_MIRROR], open_body.lbs_weights, atol=1e-6)
    joints = open_body.joint_template.numpy()
    np.testing.assert_allclose(joints[JOINT_MIRROR] * FLIP, joints, atol=1e-5)


def test_the_regressor_is_an_average_of_skin(open_body: Body) -> None:
    assert (open_body.J_regressor >= 0).all()
    np.testing.assert_allclose(open_body.J_regressor.sum(1), 1, atol=1e-5)
    assert open_body.J_regressor[:, torch.tensor(open_body.tables.regions["inner_mouth"])].abs().max() == 0
    leak = torch.einsum("jke,ue->juk", open_body.joint_exprdirs, torch.tensor(open_body.unit_to_expression)).norm(dim=-1)
    assert leak[: JOINT_NAMES.index("jaw")].max() < 1e-3 and leak.max() < 2e-3  # metres, any face unit at full strength


@pytest.mark.slow
def test_joints_of_unseen_people(makehuman: MakeHuman) -> None:
    """Regressor and shape space are fitted on some people and judged on others."""
    parts = Parts.of(makehuman)
    people = draw_people(parts, 160, seed=5, progress=lambda share: None)
    skin = parts.in_groups("body") & ~parts.regions()["inner_mouth"]
    seen, unseen = people.vertices[:128], people.vertices[128:]
    regressor = fit_regressor(seen, people.joints[:128], skin, parts.mirror)
    error = np.linalg.norm(regressor @ unseen - people.joints[128:], axis=2)
    assert error.mean() < 3e-3
    areas = vertex_areas(seen.mean(0), parts.faces)
    mean, shapes = principal_shapes(seen, areas, 50)
    basis, weight = shapes.reshape(-1, 50), np.repeat(np.sqrt(areas), 3)[:, None]
    target = (unseen - mean).reshape(len(unseen), -1).T
    betas = np.linalg.lstsq(basis * weight, target * weight, rcond=None)[0]
    left = np.linalg.norm((target - basis @ betas).T.reshape(unseen.shape), axis=2)
    assert left[:, parts.in_groups("body")].mean() < 3e-3
    assert 0.6 < betas[0].std() < 1.6  # one unit is one standard deviation of people


def test_betas_keep_statures_human(open_body: Body) -> None:
    betas = torch.zeros(2, 10)
    betas[:, 0] = torch.tensor([-2.5, 2.5])
    for mesh in open_body.forward(betas=betas).vertices:
        assert 1.35 < float(mesh[:, 1].max() - mesh[:, 1].min()) < 2.05


def test_named_points_lie_where_their_names_say(open_body: Body) -> None:
    p = at(open_body)
    tall = open_body.v_template[:, 1]
    for side, sign in zip(SIDES, (1, -1)):
        assert all(sign * p[f"{side}_{name}"][0] > 0 for name in ("ear", "big_toe", "heel", "eye_vertex", "hip", "shoulder"))
        assert p[f"{side}_big_toe"][2] > p[f"{side}_ankle"][2] + 0.1 > p[f"{side}_heel"][2] + 0.1
        assert sign * (p[f"{side}_small_toe"][0] - p[f"{side}_big_toe"][0]) > 0.03
        assert p[f"{side}_heel"][1] < float(tall.min()) + 0.05
        for finger in FINGERS:
            bone = p[f"{side}_{finger}3"] - p[f"{side}_{finger}2"]
            beyond = p[f"{side}_{finger}_tip"] - p[f"{side}_{finger}3"]
            assert 0.01 < np.linalg.norm(beyond) < 0.04 and beyond @ bone > 0
        assert abs(p[f"{side}_ear"][1] - p["nose"][1]) < 0.05 and p[f"{side}_ear"][2] < p[f"{side}_eye_vertex"][2] - 0.04
    assert np.argmax([p["nose"][2], *(p[f"face_{i}"][2] for i in range(68) if i != 30)]) == 0


def test_face_points_have_ibugs_order(open_body: Body) -> None:
    p = at(open_body)
    x, y = (np.array([p[f"face_{i}"][k] for i in range(68)]) for k in (0, 1))
    assert (np.diff(x[:17]) > 0).all() and y[:17].argmin() == 8  # from the person's right ear over the chin to the left
    assert (np.diff(x[17:27]) > 0).all() and (np.diff(y[27:31]) < 0).all() and (np.diff(x[31:36]) > 0).all()
    assert (np.diff(x[48:55]) > 0).all() and (np.diff(x[54:60]) < 0).all() and (np.diff(x[36:40]) > 0).all() and (np.diff(x[42:46]) > 0).all()
    assert y[17:27].min() > y[36:48].max() > y[30] > y[33] > y[51] > y[62] >= y[66] > y[57] > y[8]
    assert abs(x[8]) < 3e-3
    for pair in ((0, 16), (4, 12), (17, 26), (21, 22), (36, 45), (39, 42), (37, 44), (41, 46), (31, 35), (48, 54), (49, 53), (59, 55), (60, 64)):
        a, b = (p[f"face_{i}"] for i in pair)
        np.testing.assert_allclose(a * FLIP, b, atol=4e-3, err_msg=str(pair))


def test_face_points_move_with_the_face(open_body: Body) -> None:
    still, units = at(open_body), list(open_body.expression_units)

    def moved(**params: torch.Tensor) -> np.ndarray:
        joints = open_body.forward(betas=torch.zeros(1, 1), **params).joints[0].numpy()
        return np.array([joints[OUTPUT_INDEX[f"face_{i}"]] - still[f"face_{i}"] for i in range(68)])

    def unit(name: str) -> torch.Tensor:
        return torch.tensor(open_body.unit_to_expression[units.index(name)])[None]

    blink = moved(expression=unit("eyeBlinkLeft"))
    assert blink[[43, 44], 1].max() < -2e-3 and np.abs(blink[36:42]).max() < 5e-4
    jaw = moved(jaw_pose=torch.tensor([[0.3, 0, 0]]))
    assert jaw[[65, 66, 67, 57, 8], 1].max() < -0.008 and np.abs(jaw[[61, 62, 63, 51, 30, 27]]).max() < 3e-3
    smile = moved(expression=unit("mouthSmileLeft"))
    assert smile[54, 0] > 3e-3 and smile[54, 1] > 3e-3 and np.linalg.norm(smile[54]) > 3 * np.linalg.norm(smile[48])


def test_the_contour_slides_with_yaw(open_body: Body) -> None:
    """Seen from the front, the contour's points stay on the outline's side when the head turns."""
    t, v = open_body.tables, open_body.v_template.numpy()
    for row, degrees in ((0, 0), (25, -25), (64, 25)):
        a = np.deg2rad(degrees)
        turn = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
        points = (v[open_body.faces[t.contour_faces[row]]] * t.contour_bary[row][..., None]).sum(1) @ turn.T
        inner = (v[open_body.faces[t.landmark_faces]] * t.landmark_bary[..., None]).sum(1) @ turn.T
        assert points[:8, 0].max() < inner[13:19, 0].mean() < points[9:, 0].min()
        assert points[:, 1].argmin() in (7, 8, 9)
        assert points[:3, 0].max() < inner[:, 0].min() + 0.01 and points[14:, 0].min() > inner[:, 0].max() - 0.01


def test_regions(open_body: Body) -> None:
    r, v = open_body.tables.regions, open_body.v_template.numpy()
    joints = dict(zip(JOINT_NAMES, open_body.joint_template.numpy()))
    for name, mask in r.items():
        assert 100 < mask.sum() < 3000, name
    for a, b in (
        ("left_hand", "right_hand"),
        ("left_foot", "right_foot"),
        ("face", "scalp"),
        ("face", "ears"),
        ("scalp", "ears"),
        ("face", "inner_mouth"),
    ):
        assert not (r[a] & r[b]).any(), (a, b)
    assert v[r["left_hand"], 0].min() > joints["left_elbow"][0] and v[r["left_foot"], 1].max() < joints["left_knee"][1]
    assert v[r["scalp"], 1].max() == v[:, 1].max() and (r["lips"] <= (r["face"] | r["inner_mouth"])).all()
    np.testing.assert_array_equal(r["left_hand"][open_body.tables.mirror], r["right_hand"])


def test_uv_maps_every_corner(open_body: Body) -> None:
    t = open_body.tables
    assert t.uv_faces.shape == open_body.faces.shape and t.uv_faces.max() < len(t.uv)
    assert t.uv.min() >= 0 and t.uv.max() <= 1
    corner = {(int(v), int(u)) for f, g in zip(open_body.faces, t.uv_faces) for v, u in zip(f, g)}
    assert len({u for _, u in corner}) == len(corner)  # no texture coordinate is shared by two vertices


def test_expression_space_rebuilds_its_units() -> None:
    units = np.random.default_rng(0).normal(size=(6, 40, 3))
    directions, coefficients = expression_space(units)
    np.testing.assert_allclose(np.einsum("vke,ue->uvk", directions, coefficients), units, atol=1e-9)
    gram = np.einsum("vki,vkj->ij", directions, directions)
    np.testing.assert_allclose(gram - np.diag(np.diag(gram)), 0, atol=1e-9)


def test_tables_derived_from_geometry_agree_with_the_meshs_own(small_arrays) -> None:
    """What a body file without tables gets: the same named vertices, and regions that overlap the painted ones."""
    own = body_from_arrays(small_arrays).tables
    bare = {
        key: value for key, value in small_arrays.items() if key not in ("vertex_names", "vertex_numbers", "region_names", "region_masks", "mirror")
    }
    derived = body_from_arrays(bare).tables
    v = small_arrays["v_template"]
    for name, number in own.vertex.items():
        assert np.linalg.norm(v[number] - v[derived.vertex[name]]) < 0.02, name
    skin = (
        ~own.regions["inner_mouth"] & ~own.regions["eyes"]
    )  # a bare file tells no mouth from a face; the skull has only 300 vertices, a third of them around the ears
    for name, least in {"face": 0.6, "ears": 0.6, "lips": 0.5, "scalp": 0.5, "left_hand": 0.99}.items():
        a, b = own.regions[name] & skin, derived.regions[name] & skin
        overlap = (a & b).sum() / (a | b).sum()
        assert overlap > least, (name, overlap)
    assert (derived.mirror == own.mirror).mean() > 0.95
