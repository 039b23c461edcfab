"""THuman and People-Snapshot from files to rows, the files written of a synthetic person in the data sets' own layouts."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from test_synthetic import QUICK

from svad_ray.config import load_settings
from svad_ray.evaluate.scoring import Choice
from svad_ray.evaluate.snapshot import SPLITS, Split
from svad_ray.evaluate.synthetic import A_POSE, PEOPLE, build
from svad_ray.evaluate.synthetic.poses import axis_angles
from svad_ray.evaluate.synthetic.render import render
from svad_ray.protocols import snapshot, thuman
from svad_ray.protocols.orders import measured, run_here

pytestmark = [pytest.mark.models, pytest.mark.slow]
NAME = "female-3-casual"


def write_scan(folder):
    """The character as one mesh; each face looks up its own texel."""
    character = build(PEOPLE[0])
    vertices = 40 * character.posed(A_POSE)  # a scan has units of its own
    faces = character.faces
    colors = np.zeros((len(faces), 3))
    for mesh, first, last in character.spans:
        colors[first:last] = mesh.material(mesh.coords[mesh.coord_faces].mean(1))
    side = int(np.ceil(np.sqrt(len(faces))))
    texture = np.zeros((side * side, 3))
    texture[: len(faces)] = colors
    rows, columns = np.divmod(np.arange(len(faces)), side)
    folder.mkdir(parents=True)
    cv2.imwrite(str(folder / "material0.png"), (texture.reshape(side, side, 3)[..., ::-1] * 255).astype(np.uint8))
    (folder / "material0.mtl").write_text("map_Kd material0.png\n")
    lines = [f"v {x:.4f} {y:.4f} {z:.4f}" for x, y, z in vertices]
    lines += [f"vt {(c + 0.5) / side:.6f} {1 - (r + 0.5) / side:.6f}" for r, c in zip(rows, columns)]
    lines += [f"f {a + 1}/{k} {b + 1}/{k} {c + 1}/{k}" for k, (a, b, c) in enumerate(faces, 1)]
    (folder / f"{folder.name}.obj").write_text("\n".join(lines))


def test_a_scan_from_its_files_to_four_views(tmp_path):
    write_scan(tmp_path / "data" / "0007")
    settings = load_settings(sets=[*QUICK, "perceive.largest=true"])
    (order,) = thuman.orders(tmp_path / "data", str(tmp_path / "out"), settings, Choice(("psnr", "iou")), count=5, seed=0, size=128)
    result = measured(order)
    assert [row["view"] for row in result.rows] == ["front", "left", "right", "back"] and not result.refused
    ious = [row["iou"] for row in result.rows]  # from the side a person is 15 pixels wide, and few steps know little of depth
    assert min(ious) > 0.5 and min(ious[0], ious[3]) > 0.75 and min(row["psnr"] for row in result.rows) > 12, ious
    assert "middle of the scan's box" in result.rows[0]["protocol.placement"] and result.pictures


@pytest.mark.parametrize("refine", [False, True])
def test_a_subject_from_its_files_to_its_test_frames(tmp_path, monkeypatch, refine):
    """The test frames show the photo's person moved and turned a little: the avatar must be where they are."""
    monkeypatch.setitem(SPLITS, NAME, Split((0, 0), (1, 2), 1))
    folder = tmp_path / "data" / NAME
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    character, size = build(PEOPLE[0]), 512
    thetas, transl = np.zeros((3, 72)), np.zeros((3, 3))
    first = render(character, A_POSE, size=(size, size))
    for k, (yaw, step) in enumerate([(0.0, 0.0), (0.0, 0.1), (0.25, -0.1)]):
        pose = axis_angles(A_POSE)
        pose[0] = [0, yaw, 0]
        view = render(character, pose, size=(size, size), look_at=0.0, supersample=2)
        shift = round(float(first.K[0, 0]) * step / 3.4)
        cv2.imwrite(str(folder / "images" / f"image_{k:04d}.png"), np.roll(view.image, shift, axis=1)[..., ::-1])
        np.save(folder / "masks" / f"mask_{k:04d}.npy", (np.roll(view.mask, shift, axis=1) > 0.5).astype(np.uint8))
        thetas[k], transl[k] = np.concatenate([pose[:22].ravel(), np.zeros(6)]), [step, 0, 0]
        viewmat = view.viewmat
    np.savez(folder / "cameras.npz", intrinsic=first.K, extrinsic=viewmat, height=size, width=size)
    np.savez(folder / "poses.npz", thetas=thetas, transl=transl, betas=np.zeros(10))
    settings = load_settings(sets=[*QUICK, "perceive.largest=true"])
    how = snapshot.Refinement(steps=3) if refine else None
    made = snapshot.orders(
        tmp_path / "data", str(tmp_path / "out"), settings, Choice(("psnr", "iou")), background="white", mask_mode="none", refine=how
    )
    assert list(run_here(made)) == [None]
    result = measured(made[0])
    assert [row["view"] for row in result.rows] == ["frame 0001", "frame 0002"] and result.rows[0]["flicker"] > 0
    assert all(row["iou"] > 0.6 for row in result.rows), [row["iou"] for row in result.rows]
    assert ("not refined" in result.rows[0]["protocol.poses"]) != refine
