"""Learn the side profile that an outline from the front does not tell, and measure it on people left out: the table of ``svad_ray.fitting.drape``.

    python -m benchmarks.drape measure FOLDER [--seeds 41000-41050]     about fifteen seconds a person; goes on where it stopped
    python -m benchmarks.drape learn FOLDER [--to TABLE] [--seeds ...]

People and pictures are those of ``benchmarks/limb_depth.py``, one standing picture each. The clothed surface that is fitted without the table is
brought to the true joints of the zero pose, and compared with the true surface as seen from straight ahead and from behind.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch

from benchmarks.limb_depth import MOMENTS
from svad_ray.body import load_body
from svad_ray.body.model import Body
from svad_ray.config import AnimateConfig
from svad_ray.evaluate.synthetic import build, random_person
from svad_ray.evaluate.synthetic.gaits import random_photo
from svad_ray.evaluate.synthetic.render import View
from svad_ray.fitting.drape import SHAPES, TABLE, Drape, basis_of
from svad_ray.fitting.silhouette import shaped
from svad_ray.fitting.state import FitState, pose_body
from svad_ray.fitting.surface import ring_basis
from svad_ray.geometry.mesh import normals_np, vertex_normals
from svad_ray.geometry.raster import rasterize_mesh, to_camera
from svad_ray.stages.animate.embedded import clothe_photo, fit_photo
from svad_ray.subject import Photo

CELL, FAR = 0.004, 400.0  # metres: of the depth maps, and of the camera that sees the zero pose as good as without perspective
LEFT, TOP, WIDTH, HEIGHT = 0.6, 0.9, 1.2, 2.2  # metres that the maps cover, from the pelvis
BELIEVABLE = 0.06  # metres of difference beyond which something else is seen, an arm or a curtain of hair
RIDGE, RIDGE_SHAPE = 3.0, 30.0  # vertices' worth of belief in no step, and in one that does not depend on the shape
PARTS = 5


def depth_map(points: np.ndarray, faces: np.ndarray, *, behind: bool) -> np.ndarray:
    """(H, W) the z that is nearest to somebody far ahead, or far behind; NaN where nothing is."""
    sign = -1.0 if behind else 1.0
    seen = np.stack([sign * points[:, 0], -points[:, 1], FAR - sign * points[:, 2]], 1).astype(np.float64)
    focal = FAR / CELL
    K = np.array([[focal, 0, LEFT / CELL], [0, focal, TOP / CELL], [0, 0, 1]])
    drawn = rasterize_mesh(seen, faces, K, int(HEIGHT / CELL), int(WIDTH / CELL), threads=1)
    return np.where(drawn.mask, sign * (FAR - drawn.depth), np.nan)


def read_map(depth: np.ndarray, points: np.ndarray, *, behind: bool) -> np.ndarray:
    """(N,) the map's z where points (N, 3) are."""
    column = np.floor((points[:, 0] * (-1 if behind else 1) + LEFT) / CELL).astype(int)
    row = np.floor((TOP - points[:, 1]) / CELL).astype(int)
    inside = (row >= 0) & (column >= 0) & (row < depth.shape[0]) & (column < depth.shape[1])
    out = np.full(len(points), np.nan)
    out[inside] = depth[row[inside], column[inside]]
    return out


def lacking(body: Body, betas: np.ndarray, offset: np.ndarray, truth: tuple[np.ndarray, np.ndarray, np.ndarray], scale: float) -> np.ndarray:
    """(V,) metres in depth from the fitted, clothed zero pose to the true one; NaN where they cannot be compared.

    Args:
        truth: True vertices (N, 3), faces (F, 3) and joints (55, 3) in the zero pose.
        scale: True metres for a metre of the fit, as the picture tells it.
    """
    points, faces, joints = truth
    rest = shaped(body, torch.tensor(betas)).numpy()
    own = body.J_regressor.numpy() @ rest
    placed = scale * (rest + offset) + body.lbs_weights.numpy() @ (joints - scale * own)
    outside = body.faces[~body.tables.regions["inner_mouth"][body.faces].any(1)]
    behind, out = normals_np(placed, body.faces)[:, 2] < 0, np.full(len(placed), np.nan)
    for back in (False, True):
        maps = [depth_map(p, f, behind=back) for p, f in ((points, faces), (placed, outside))]
        step = np.subtract(*(read_map(one, placed, behind=back) for one in maps))
        out[behind == back] = step[behind == back]
    return np.where(np.abs(out) < BELIEVABLE, out, np.nan) / scale


def picture_scale(body: Body, state: FitState, view: View) -> float:
    """True metres for a metre of the fit: what a pixel covers at the pelvis, in truth and in the fit."""
    pelvis = pose_body(body, body.J_regressor @ shaped(body, state.betas), state.pose, state.transl).joints[0, :1].numpy()
    own = to_camera(pelvis, state.viewmats[0].numpy())[0, 2] / float(state.Ks[0, 0, 0])
    return float(to_camera(view.joints3d[:1], view.viewmat)[0, 2] / view.K[0, 0] / own)


def measure_people(folder: Path, seeds: range) -> None:
    """One file for every person: what the fit lacks, its shape, and whether it found a skirt."""
    from svad_ray.stages.perceive.embedded import MediaPipePerceive

    perceive, body, config = MediaPipePerceive(), load_body(), AnimateConfig()
    nothing = Drape(np.zeros((2, ring_basis(body)[0].shape[1], 2, 1 + SHAPES)))
    perceive.setup()
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        path = folder / f"{seed}.npz"
        if path.exists():
            continue
        start, rng, character = time.process_time(), np.random.default_rng([seed, 31]), build(random_person(seed))
        view = next(view for kind, view in [(kind, random_photo(rng, character, kind)[0]) for kind in MOMENTS] if kind == "stand")
        seen = perceive(Photo(f"{seed}", view.image, ""))
        state = fit_photo(body, seen, config)
        offset = clothe_photo(body, state, seen, config, drape=nothing)
        truth = character.posed(np.zeros((55, 3))), character.faces, character.joints
        step = lacking(body, state.betas.numpy(), offset, truth, picture_scale(body, state, view))
        np.savez(path, step=step, betas=state.betas.numpy(), skirt=random_person(seed).bottom.kind == "skirt")
        print(f"{seed}: {1000 * np.nanmean(np.abs(step)):.1f} mm, {time.process_time() - start:.1f} s", flush=True)


class Profile:
    """Least squares of rings on what people lack.

    Args:
        body: Gives rings and normals; left and right are one by its mirrored template.
    """

    def __init__(self, body: Body) -> None:
        self.normal_z = vertex_normals(body.v_template, torch.as_tensor(body.faces)).numpy()[:, 2]
        self.rings = ring_basis(body, behind=0.0)[0]
        front, back = basis_of(self.rings, self.normal_z)
        self.basis = sp.hstack([front, back]).tocsr()

    def fit(self, steps: np.ndarray, betas: np.ndarray) -> np.ndarray:
        """(R, 2, 1 + SHAPES) of steps (N, V) with shapes (N, B)."""
        shapes = np.concatenate([np.ones((len(betas), 1)), np.clip(betas[:, :SHAPES], -3, 3)], 1)
        gram = np.zeros((self.basis.shape[1] * (1 + SHAPES),) * 2)
        right = np.zeros(len(gram))
        for step, shape in zip(steps, shapes):
            known = np.isfinite(step)
            rows = self.basis[known]
            gram += np.kron((rows.T @ rows).toarray(), np.outer(shape, shape))
            right += np.kron(rows.T @ step[known], shape)
        gram += np.diag(np.tile([RIDGE, *[RIDGE_SHAPE] * SHAPES], self.basis.shape[1]) * len(steps) ** 0.5)
        told = np.linalg.solve(gram, right).reshape(2, -1, 1 + SHAPES)
        return told.transpose(1, 0, 2)

    def __call__(self, coefficients: np.ndarray, betas: np.ndarray) -> np.ndarray:
        """(N, V) steps."""
        return np.stack([Drape(np.stack([coefficients] * 2))(self.rings, self.normal_z, b, skirt=False) for b in betas])


def report(label: str, profile: Profile, steps: np.ndarray, betas: np.ndarray) -> None:
    """What is lacking before and after, of people left out, weighted as the basis is."""
    told = np.zeros_like(steps)
    for k in range(PARTS):
        here = np.arange(len(steps)) % PARTS == k
        told[here] = profile(profile.fit(steps[~here], betas[~here]), betas[here])
    counts = np.abs(profile.normal_z) > 0.5
    before, after = (1000 * np.sqrt(np.nanmean(one[:, counts] ** 2)) for one in (steps, steps - told))
    print(f"{label}: {len(steps)} people, {before:.1f} mm rms before, {after:.1f} mm after, told by the others")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("measure", "learn"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", default="41000-41050", help="first and one past the last")
    parser.add_argument("--to", type=Path, default=TABLE)
    options = parser.parse_args()
    seeds = range(*(int(n) for n in options.seeds.split("-")))
    if options.what == "measure":
        return measure_people(options.folder, seeds)
    found = [np.load(options.folder / f"{seed}.npz") for seed in seeds if (options.folder / f"{seed}.npz").exists()]
    if not found:
        raise SystemExit(f"{options.folder} holds nobody of seeds {options.seeds}: run measure first")
    steps, betas, skirt = (np.stack([one[name] for one in found]) for name in ("step", "betas", "skirt"))
    profile = Profile(load_body())
    tables = []
    for label, some in (("without a skirt", ~skirt), ("with a skirt", skirt)):
        report(label, profile, steps[some], betas[some])
        tables.append(profile.fit(steps[some], betas[some]))
    Drape(np.stack(tables)).save(options.to)
    print(f"{options.to}: {options.to.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main()
