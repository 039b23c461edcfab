"""The head: against the recorded official layer, its landmark conventions, and its files as their publishers write them."""

import pickle

import numpy as np
import pytest
import torch
from published_models import published

from svad_ray.body.flame import CONTOUR, INNER, flame_from_arrays, load_flame
from svad_ray.errors import InputError, WeightsMissing

PARTS = ("betas", "expression", "global_orient", "neck_pose", "jaw_pose", "leye_pose", "reye_pose")


@pytest.fixture(scope="module")
def arrays(golden_avatar):
    if not (golden_avatar / "body_flame.npz").exists():
        pytest.skip("no recorded head")
    with np.load(golden_avatar / "body_flame.npz") as head, np.load(golden_avatar / "body_companions.npz") as more:
        return dict(head), {key: more[key] for key in more.files if "lmk" in key}


@pytest.fixture(scope="module")
def flame(arrays):
    return flame_from_arrays(*arrays)


def test_forward_and_gradients_equal_the_recorded_layer(flame, recorded):
    inputs = {name: torch.tensor(recorded[f"flame_in_{name}"], requires_grad=True) for name in PARTS}
    out = flame.forward(**inputs)
    points = flame.landmarks(out.vertices, out.rotations[:, 0])  # smplx turns the contour with the root joint
    joints = torch.cat([out.joints, points[:, CONTOUR:], points[:, :CONTOUR]], 1)
    np.testing.assert_allclose(out.vertices.detach(), recorded["flame_vertices"], atol=1e-5)
    np.testing.assert_allclose(joints.detach(), recorded["flame_joints"], atol=1e-5)
    weighted = (out.vertices * torch.tensor(recorded["flame_w_vertices"])).sum() + (joints * torch.tensor(recorded["flame_w_joints"])).sum()
    assert weighted.item() == pytest.approx(float(recorded["flame_scalar"]), rel=1e-4)
    weighted.backward()
    for name, value in inputs.items():
        theirs = recorded[f"flame_grad_{name}"]
        np.testing.assert_allclose(value.grad, theirs, atol=1e-4 * np.abs(theirs).max(), err_msg=name)


def test_a_batch_is_a_loop_and_missing_arguments_are_zero(flame, recorded):
    inputs = {name: torch.tensor(recorded[f"flame_in_{name}"]) for name in PARTS}
    whole = flame.forward(**inputs).vertices
    alone = torch.cat([flame.forward(**{name: value[i : i + 1] for name, value in inputs.items()}).vertices for i in range(len(whole))])
    torch.testing.assert_close(alone, whole, atol=1e-6, rtol=0)
    zero = flame.forward(betas=torch.zeros(1, 3)).vertices
    torch.testing.assert_close(zero[0], flame.v_template, atol=1e-6, rtol=0)
    with pytest.raises(InputError, match="batches"):
        flame.forward(betas=torch.zeros(2, 3), jaw_pose=torch.zeros(3, 3))
    with pytest.raises(InputError, match="betas"):
        flame.forward(betas=torch.zeros(1, 301))


def test_published_files_are_read_and_nothing_in_them_runs(arrays, flame, recorded, tmp_path):
    head, points = arrays
    published(head, tmp_path / "FLAME_NEUTRAL.pkl")
    static = {"lmk_face_idx": points["static_lmk_face_idx"], "lmk_b_coords": points["static_lmk_b_coords"]}
    (tmp_path / "flame_static_embedding.pkl").write_bytes(pickle.dumps(static, protocol=2))
    moving = {"lmk_face_idx": points["dynamic_lmk_face_idx"], "lmk_b_coords": points["dynamic_lmk_b_coords"]}
    np.save(tmp_path / "flame_dynamic_embedding.npy", np.array(moving, object), allow_pickle=True)
    read = load_flame(tmp_path)
    for name in ("v_template", "shapedirs", "exprdirs", "posedirs", "J_regressor", "lbs_weights"):
        torch.testing.assert_close(getattr(read, name), getattr(flame, name))
    assert (read.inner.faces == flame.inner.faces).all() and len(read.inner.faces) == INNER
    np.testing.assert_array_equal(read.contour.bary, flame.contour.bary)

    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    (tmp_path / "FLAME_NEUTRAL.pkl").write_bytes(pickle.dumps(dict(head) | {"extra": Trap()}, protocol=2))
    load_flame(tmp_path)
    assert not (tmp_path / "sprung").exists()


def test_the_torch_file_with_eyes(arrays, flame, tmp_path):
    head = {key: torch.tensor(np.asarray(value).astype(np.float32)) for key, value in arrays[0].items()}
    with_eye = {"full_lmk_faces_idx_with_eye": torch.arange(70)[None], "full_lmk_bary_coords_with_eye": torch.full((1, 70, 3), 1 / 3)}
    torch.save(
        {"flame_model": {k: torch.tensor(np.asarray(v).astype(np.float32)) for k, v in head.items()}, "lmk_embeddings": with_eye},
        tmp_path / "FLAME_with_eye.pt",
    )
    read = load_flame(tmp_path)
    assert len(read.full.faces) == 70
    centres = read.v_template[read.faces].mean(1)[:70]
    torch.testing.assert_close(read.on_surface(read.v_template[None], read.full)[0], centres)
    torch.testing.assert_close(read.landmarks(read.v_template[None])[0], centres[:68])


def test_bad_files_are_named(arrays, tmp_path):
    head, _ = arrays
    with pytest.raises(WeightsMissing, match="FLAME_NEUTRAL"):
        load_flame(tmp_path)
    whole = published(head, tmp_path / "FLAME_NEUTRAL.pkl").read_bytes()
    (tmp_path / "FLAME_NEUTRAL.pkl").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"FLAME_NEUTRAL\.pkl cannot be read"):
        load_flame(tmp_path)
    (tmp_path / "FLAME_with_eye.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match=r"FLAME_with_eye\.pt cannot be read"):
        load_flame(tmp_path)
    with pytest.raises(InputError, match="lacks posedirs"):
        flame_from_arrays({key: value for key, value in head.items() if key != "posedirs"})
    with pytest.raises(InputError, match="vertex counts"):
        flame_from_arrays(head | {"weights": head["weights"][:-1]})
    with pytest.raises(InputError, match="5 joints"):
        flame_from_arrays(head | {"kintree_table": np.zeros((2, 55), np.int64)})
    with pytest.raises(InputError, match="no landmarks"):
        flame_from_arrays(head).landmarks(torch.zeros(1, len(head["v_template"]), 3))
