"""The layer against recorded outputs of the official layers (smplx and ExAvatar's changed copy), and against finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from svad_ray.body.model import Body, contour_bins
from svad_ray.errors import InputError

POSE = ("global_orient", "body_pose", "left_hand_pose", "right_hand_pose", "jaw_pose", "leye_pose", "reye_pose")
MODS = ("face_offset", "joint_offset", "locator_offset")
TOLERANCE = 1e-5  # metres on a body of two metres


def inputs(recorded: dict[str, np.ndarray], *extra: str, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    return {k: torch.tensor(recorded[f"in_{k}"], dtype=dtype) for k in ("betas", "expression", *POSE, *extra)}


@pytest.mark.parametrize(
    ("prefix", "offsets", "options"),
    [
        ("up", ("transl",), {}),
        ("up_notransl", (), {}),
        ("up_flat_nocontour", ("transl",), {"flat_hand_mean": True, "face_contour": False}),
        ("mod_none", ("transl",), {}),
        ("mod_face", ("transl", "face_offset"), {}),
        ("mod_joint", ("transl", "joint_offset"), {}),
        ("mod_all", ("transl", *MODS), {}),
    ],
)
def test_equals_the_official_layers(golden_body: Body, recorded, prefix, offsets, options) -> None:
    out = golden_body.forward(**inputs(recorded, *offsets), **options)
    np.testing.assert_allclose(out.vertices, recorded[f"{prefix}_vertices"], atol=TOLERANCE)
    np.testing.assert_allclose(out.joints, recorded[f"{prefix}_joints"], atol=TOLERANCE)


@pytest.mark.parametrize(("prefix", "offsets"), [("up", ()), ("mod_all", MODS), ("mod_none", ())])
def test_gradients_equal_the_official_ones(golden_body: Body, recorded, prefix, offsets) -> None:
    params = {k: v.requires_grad_() for k, v in inputs(recorded, "transl", *offsets).items()}
    out = golden_body.forward(**params)
    scalar = (out.vertices * torch.tensor(recorded["w_vertices"])).sum() + (out.joints * torch.tensor(recorded["w_joints"])).sum()
    scalar.backward()
    for name, value in params.items():
        expected = recorded[f"{prefix}_grad_{name}"]
        assert np.abs(value.grad.numpy() - expected).max() <= 1e-4 * np.abs(expected).max(), name


def test_gradients_equal_finite_differences(golden_body: Body, recorded) -> None:
    body = golden_body.to(torch.float64)
    params = {k: v[:1].clone().requires_grad_() for k, v in inputs(recorded, "transl", *MODS, dtype=torch.float64).items()}
    weight_v, weight_j = torch.tensor(recorded["w_vertices"]).double(), torch.tensor(recorded["w_joints"]).double()

    def scalar() -> torch.Tensor:
        out = body.forward(**params)
        return (out.vertices * weight_v).sum() + (out.joints * weight_j).sum()

    scalar().backward()
    generator = torch.Generator().manual_seed(0)
    for name, value in params.items():
        direction = torch.randn(value.shape, generator=generator, dtype=torch.float64)
        step, start = 1e-6, value.detach().clone()
        with torch.no_grad():
            value.copy_(start + step * direction)
            up = scalar()
            value.copy_(start - step * direction)
            down = scalar()
            value.copy_(start)
        expected = float(up - down) / (2 * step)
        assert float((value.grad * direction).sum()) == pytest.approx(expected, rel=1e-6, abs=1e-6), name


def test_transforms_carry_the_rest_mesh_to_the_posed_one(golden_body: Body, recorded) -> None:
    out = golden_body.forward(**inputs(recorded, "transl"))
    blended = torch.einsum("vj,bjik->bvik", golden_body.lbs_weights, out.transforms)
    homogeneous = torch.cat([out.rest_vertices, torch.ones_like(out.rest_vertices[..., :1])], -1)
    np.testing.assert_allclose(torch.einsum("bvik,bvk->bvi", blended, homogeneous)[..., :3], out.vertices, atol=1e-5)


def test_clothing_moves_vertices_but_no_joint(golden_body: Body, recorded) -> None:
    offset = torch.full_like(golden_body.v_template, 0.01)
    bare, dressed = (golden_body.forward(betas=torch.zeros(1, 3), vertex_offset=o, flat_hand_mean=True) for o in (None, offset))
    np.testing.assert_allclose((dressed.vertices - bare.vertices)[0], offset, atol=1e-6)
    assert torch.equal(dressed.joints[:, :55], bare.joints[:, :55])


def test_missing_parameters_are_zero(golden_body: Body, recorded) -> None:
    full = {k: torch.zeros_like(v[:1]) for k, v in inputs(recorded, "transl").items()}
    assert torch.equal(golden_body.forward(**full).vertices, golden_body.forward(betas=torch.zeros(1, 1)).vertices)


def test_wrong_sizes_are_told(golden_body: Body) -> None:
    with pytest.raises(InputError, match="betas of shape"):
        golden_body.forward(betas=torch.zeros(1, 101))
    with pytest.raises(InputError, match="batches"):
        golden_body.forward(betas=torch.zeros(2, 10), transl=torch.zeros(3, 3))


@pytest.mark.parametrize(("degrees", "row"), [(0, 0), (-7, 7), (7, 46), (-60, 39), (60, 78), (-39, 39), (39, 78)])
def test_contour_rows(degrees: float, row: int) -> None:
    a = np.deg2rad(degrees)
    turn = torch.tensor([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    assert int(contour_bins(turn[None])) == row
