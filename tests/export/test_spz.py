"""The spz file, decoded here by the format's published layout."""

import gzip
import struct
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from svad_ray.errors import BackendUnavailable
from svad_ray.export.spz import write_spz
from svad_ray.motion import blank_track
from svad_ray.stages.avatar.asset import PosableAvatar

pytest.importorskip("gsply", reason="gsply, which writes spz, is not installed")


def decoded(path) -> dict[str, np.ndarray]:
    """Version 3: gzip of a 16-byte header and the planes positions, alphas, colours, scales, rotations (smallest three, xyzw)."""
    data = gzip.decompress(path.read_bytes())
    magic, version, count, degree, bits, _, _ = struct.unpack("<IIIBBBB", data[:16])
    assert (magic, version, degree) == (0x5053474E, 3, 0) and len(data) == 16 + count * (9 + 1 + 3 + 3 + 4)
    planes, at = [], 16
    for width in (9, 1, 3, 3, 4):
        planes.append(np.frombuffer(data, np.uint8, count * width, at).reshape(count, width).astype(np.int64))
        at += count * width
    fixed = (planes[0].reshape(count, 3, 3) << [0, 8, 16]).sum(2)
    packed = (planes[4] << [0, 8, 16, 24]).sum(1)
    largest, quats = packed >> 30, np.zeros((count, 4))
    for row in range(count):
        rest = packed[row]
        for k in (3, 2, 1, 0):  # ten bits each, the last component in the lowest ones: nine of size, one of sign
            if k != largest[row]:
                quats[row, k] = (rest & 511) / 511 * np.sqrt(0.5) * (-1 if rest >> 9 & 1 else 1)
                rest >>= 10
        quats[row, largest[row]] = np.sqrt(max(0, 1 - np.square(quats[row]).sum()))
    return {
        "means": np.where(fixed >= 1 << 23, fixed - (1 << 24), fixed) / 2.0**bits,
        "opacities": planes[1][:, 0] / 255,
        "colors": 0.5 + 0.28209479177387814 * (planes[2] / 255 - 0.5) / 0.15,
        "scales": np.exp(planes[3] / 16 - 10),
        "quats": quats,
    }


def agree(found: dict[str, np.ndarray], means, quats, t) -> None:
    np.testing.assert_allclose(found["means"], means, atol=1.3e-4)
    np.testing.assert_allclose(found["opacities"], t["opacities"], atol=1.01 / 255)
    np.testing.assert_allclose(found["colors"], t["colors"], atol=0.51 * 0.2821 / 0.15 / 255)
    np.testing.assert_allclose(found["scales"], t["scales"], rtol=0.033)
    turned = Rotation.from_quat(found["quats"]).inv() * Rotation.from_quat(quats, scalar_first=True)
    assert np.rad2deg(turned.magnitude()).max() < 0.4


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**16), count=st.integers(1, 60))
def test_gaussians_come_back(avatar_of, tmp_path, seed, count):
    avatar = avatar_of(max(count, 25), seed=seed)
    write_spz(avatar, tmp_path / "a.spz")
    agree(decoded(tmp_path / "a.spz"), avatar.tensors["means"], avatar.tensors["quats"], avatar.tensors)


def test_a_posed_file_holds_the_pose(avatar, tmp_path):
    track = blank_track(np.random.default_rng(1).normal(0, 0.4, (2, 55, 3)), fps=25.0)
    write_spz(avatar, tmp_path / "a.spz", pose=track, frame=1)
    posed = PosableAvatar(avatar).posed(track, 1)
    agree(decoded(tmp_path / "a.spz"), posed.means.numpy(), posed.quats.numpy(), avatar.tensors)


def test_without_the_package_it_is_named(avatar, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gsply", None)
    with pytest.raises(BackendUnavailable, match=r"svad-ray\[spz\]"):
        write_spz(replace(avatar), tmp_path / "a.spz")
    assert not list(tmp_path.iterdir())
