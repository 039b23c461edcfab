"""FLAME, the head: shape, expression and pose in, vertices, joints and landmarks out.

Source: FLAME (Li et al. 2017) in the layout of its published files; landmarks by the embeddings that come with them or with DECA.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from svad_ray.body.lbs import forward_kinematics, rotation_matrices, skin_points
from svad_ray.body.model import Body, batch_of, contour_bins, on_faces
from svad_ray.body.pickled import read_npy_dictionary, read_pickle
from svad_ray.errors import InputError, WeightsMissing

FLAME_JOINTS = ("root", "neck", "jaw", "left_eye", "right_eye")
INNER, CONTOUR = 51, 17  # points of the 68: 17 of the contour are 0-16
_SHAPE_SPACE = 300  # columns of shapedirs that are betas; 100 of expression follow
_FILES = ("FLAME_with_eye.pt", "FLAME_NEUTRAL.pkl", "FLAME_NEUTRAL.npz", "generic_model.pkl")
_EMBEDDINGS = ("landmark_embedding.npy", "flame_static_embedding.pkl")
_CONTOURS = "flame_dynamic_embedding.npy"
_LICENCE = "Max Planck FLAME licence (non-commercial research), as accepted by whoever downloaded the file"


@dataclass(frozen=True)
class Embedding:
    """Points on the surface: (..., L) numbers of faces and (..., L, 3) barycentric coordinates."""

    faces: np.ndarray
    bary: np.ndarray


class JointSpace(NamedTuple):
    """Rest joints (5, 3) of the template, and how they follow betas (5, 3, S) and expression (5, 3, E)."""

    template: torch.Tensor
    by_shape: torch.Tensor
    by_expression: torch.Tensor


@dataclass(frozen=True)
class FlameOutput:
    """A posed batch: vertices (B, V, 3) and joints (B, 5, 3) in ``FLAME_JOINTS``' order, metres; rotations (B, 5, 3, 3) in the world."""

    vertices: torch.Tensor
    joints: torch.Tensor
    rotations: torch.Tensor


@dataclass(frozen=True)
class Flame:
    """One head in FLAME's layout.

    Attributes:
        name, licence: For people.
        v_template: (V, 3) metres. faces: (F, 3) int64. shapedirs: (V, 3, S). exprdirs: (V, 3, E). posedirs: (V, 3, 36).
        J_regressor: (5, V). lbs_weights: (V, 5). parents: -1, 0, 1, 1, 1.
        inner: The 51 points of brows, nose, eyes and lips (17-67 of the 68).
        contour: (79, 17) look-up by yaw, see :func:`svad_ray.body.model.contour_bins`.
        full: All 68 at fixed places, and as many more as the file has (pupils). Each is None where no file gives it.
        rest: ``joint_space`` of the whole head, kept by its parts.
    """

    name: str
    licence: str
    v_template: torch.Tensor
    faces: np.ndarray
    shapedirs: torch.Tensor
    exprdirs: torch.Tensor
    posedirs: torch.Tensor
    J_regressor: torch.Tensor
    lbs_weights: torch.Tensor
    parents: tuple[int, ...] = (-1, 0, 1, 1, 1)
    inner: Embedding | None = None
    contour: Embedding | None = None
    full: Embedding | None = None
    rest: JointSpace | None = None

    @cached_property
    def neck_vertices(self) -> np.ndarray:
        """(V,) bool: moved most by the root joint."""
        return (self.lbs_weights.argmax(1) == 0).numpy()

    def to(self, dtype: torch.dtype) -> Flame:
        """This head in another floating dtype."""
        changed: dict[str, Any] = {f.name: v.to(dtype) for f in fields(self) if isinstance(v := getattr(self, f.name), torch.Tensor)}
        rest = None if self.rest is None else JointSpace(*(x.to(dtype) for x in self.rest))
        return replace(self, **changed, rest=rest)

    def forward(
        self,
        *,
        betas: torch.Tensor,
        expression: torch.Tensor | None = None,
        global_orient: torch.Tensor | None = None,
        neck_pose: torch.Tensor | None = None,
        jaw_pose: torch.Tensor | None = None,
        leye_pose: torch.Tensor | None = None,
        reye_pose: torch.Tensor | None = None,
        transl: torch.Tensor | None = None,
    ) -> FlameOutput:
        """Shape and pose the head; a missing argument is zero.

        Args:
            betas, expression: (B, b) and (B, e), any number of coefficients up to the head's.
            global_orient, neck_pose, jaw_pose, leye_pose, reye_pose: (B, 3) axis-angle. transl: (B, 3) metres.

        Raises:
            InputError: Batch sizes or coefficient counts do not fit.
        """
        poses = (global_orient, neck_pose, jaw_pose, leye_pose, reye_pose)
        limits = (self.shapedirs.shape[-1], self.exprdirs.shape[-1])
        batch = batch_of(betas, expression, transl, *poses, limits=limits, what="head")
        zero = self.v_template.new_zeros(1, 3)
        pose = torch.stack([(zero if p is None else p).expand(batch, 3) for p in poses], 1)
        posed = self.forward_rotations(betas=betas, expression=expression, rotations=rotation_matrices(pose))
        return posed if transl is None else FlameOutput(posed.vertices + transl[:, None], posed.joints + transl[:, None], posed.rotations)

    def forward_rotations(self, *, betas: torch.Tensor, expression: torch.Tensor | None, rotations: torch.Tensor) -> FlameOutput:
        """As ``forward``, posed by (B, 5, 3, 3) rotations relative to the parents."""
        joints = self._rest_joints(betas, expression)
        feature = (rotations[:, 1:] - torch.eye(3, dtype=rotations.dtype)).flatten(1)
        correctives = (feature @ self.posedirs.flatten(0, 1).T).reshape(len(feature), -1, 3)
        world, posed, skin = forward_kinematics(rotations, joints.expand(len(rotations), -1, -1), self.parents)
        vertices = skin_points(self.shaped(betas, expression) + correctives, self.lbs_weights, skin)
        return FlameOutput(vertices, posed, world)

    def part(self, vertices: np.ndarray) -> Flame:
        """This head with only (N,) of its vertices, posed as they are in the whole head; it has no faces and no landmarks."""
        rows = torch.as_tensor(vertices)
        kept: dict[str, Any] = {name: getattr(self, name)[rows] for name in ("v_template", "shapedirs", "exprdirs", "posedirs", "lbs_weights")}
        none = np.zeros((0, 3), np.int64)
        return replace(self, **kept, faces=none, J_regressor=self.J_regressor[:, rows], rest=self.joint_space, inner=None, contour=None, full=None)

    @cached_property
    def joint_space(self) -> JointSpace:
        """The regressor applied to the shape space, once."""
        if self.rest is not None:
            return self.rest
        by_shape, by_expression = (torch.einsum("jv,vkb->jkb", self.J_regressor, dirs) for dirs in (self.shapedirs, self.exprdirs))
        return JointSpace(self.J_regressor @ self.v_template, by_shape, by_expression)

    def _rest_joints(self, betas: torch.Tensor, expression: torch.Tensor | None) -> torch.Tensor:
        template, by_shape, by_expression = self.joint_space
        joints = template + torch.einsum("jkb,nb->njk", by_shape[..., : betas.shape[1]], betas)
        return joints if expression is None else joints + torch.einsum("jke,ne->njk", by_expression[..., : expression.shape[1]], expression)

    def shaped(self, betas: torch.Tensor, expression: torch.Tensor | None = None) -> torch.Tensor:
        """(B, V, 3) template with shape and expression, zero pose."""
        rest = self.v_template + torch.einsum("vkb,nb->nvk", self.shapedirs[..., : betas.shape[1]], betas)
        return rest if expression is None else rest + torch.einsum("vke,ne->nvk", self.exprdirs[..., : expression.shape[1]], expression)

    def landmarks(self, vertices: torch.Tensor, root: torch.Tensor | None = None) -> torch.Tensor:
        """(B, 68, 3) points of posed (B, V, 3) vertices, in iBUG's order: contour first.

        Args:
            root: (B, 3, 3) rotation of the chain that turns the contour (smplx: the root joint). None: the contour at its fixed place.

        Raises:
            InputError: No embedding was found beside the head's file.
        """
        if root is None or self.contour is None or self.inner is None:
            return self.on_surface(vertices, self.fixed_landmarks)[:, : CONTOUR + INNER]
        rows = contour_bins(root).numpy()
        moving = self.on_surface(vertices, Embedding(self.contour.faces[rows], self.contour.bary[rows]))
        return torch.cat([moving, self.on_surface(vertices, self.inner)], 1)

    def on_surface(self, vertices: torch.Tensor, at: Embedding) -> torch.Tensor:
        """(B, L, 3) points of (B, V, 3) vertices at an embedding, one for all or one for each of the batch."""
        corners = self.faces[at.faces]
        bary = torch.as_tensor(at.bary, dtype=vertices.dtype)
        return on_faces(vertices, corners if corners.ndim == 3 else corners[None], bary if bary.dim() == 3 else bary[None])

    @property
    def fixed_landmarks(self) -> Embedding:
        """All landmarks at fixed places: the file's own, else the contour of a head that looks ahead and the inner points.

        Raises:
            InputError: No embedding was found beside the head's file.
        """
        if self.full is not None:
            return self.full
        if self.inner is None or self.contour is None:
            raise InputError(f"head {self.name!r} has no landmarks", expected=" or ".join(_EMBEDDINGS), remedy="put the file beside the head's file")
        return Embedding(np.concatenate([self.contour.faces[0], self.inner.faces]), np.concatenate([self.contour.bary[0], self.inner.bary]))


def with_flame_expressions(body: Body, flame: Flame, head: np.ndarray, *, count: int = 50) -> Body:
    """A body whose first ``count`` expressions are FLAME's on its head, so that both share their coefficients.

    Args:
        head: (F,) the body's vertex of each of FLAME's.
    """
    count = min(count, flame.exprdirs.shape[-1])
    directions = body.v_template.new_zeros(*body.v_template.shape, count)
    own = min(count, body.exprdirs.shape[-1])
    directions[..., :own] = body.exprdirs[..., :own]
    directions[torch.as_tensor(head)] = flame.exprdirs[..., :count].to(directions)
    return replace(body, exprdirs=directions)


def load_flame(path: str | Path) -> Flame:
    """A head from the user's file, or from a folder that holds one under its original name.

    Read are ``FLAME_with_eye.pt``, ``FLAME_NEUTRAL.pkl`` or ``generic_model.pkl`` (pickles, of which nothing is run) and ``.npz``; landmarks from the
    same file, or from ``landmark_embedding.npy`` or ``flame_static_embedding.pkl`` and ``flame_dynamic_embedding.npy`` in the same folder.

    Raises:
        WeightsMissing: No such file. InputError: It is damaged or no head.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        path = next((path / name for name in _FILES if (path / name).is_file()), path / _FILES[1])
    if not path.is_file():
        raise WeightsMissing(
            f"there is no head model {path}",
            expected=f"{' or '.join(_FILES)} from https://flame.is.tue.mpg.de under its own licence",
            remedy="register there and put the file into that folder",
        )
    data, landmarks = _read(path)
    return flame_from_arrays(data, landmarks or _beside(path.parent), name=path.stem)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(arrays of the head, landmark embeddings) of one file."""
    if path.suffix == ".pt":
        try:
            groups = torch.load(path, map_location="cpu", weights_only=True)
            head, points = groups["flame_model"], groups["lmk_embeddings"]
            return {key: np.asarray(value) for key, value in head.items()}, {key: np.asarray(value) for key, value in points.items()}
        except (RuntimeError, EOFError, OSError, ValueError, KeyError, TypeError, AttributeError, pickle.UnpicklingError) as error:
            raise InputError(
                f"{path.name} cannot be read ({path.stat().st_size} bytes): {str(error).splitlines()[0] if str(error) else type(error).__name__}",
                expected="GAGAvatar's FLAME_with_eye.pt: flame_model and lmk_embeddings",
                remedy="download it again and compare its size",
            ) from error
    if path.suffix == ".npz":
        try:
            with np.load(path, allow_pickle=False) as file:
                return {key: file[key] for key in file.files if file[key].dtype != object}, {}
        except (ValueError, OSError, EOFError) as error:
            raise InputError(f"{path.name} cannot be read as an npz ({error})", expected="a head in FLAME's layout") from error
    return read_pickle(path), {}


def _beside(folder: Path) -> dict[str, Any]:
    """Landmark embeddings from the files that lie beside the head's."""
    found: dict[str, Any] = {}
    if (folder / _EMBEDDINGS[1]).is_file():
        found |= {f"static_{key}": value for key, value in read_pickle(folder / _EMBEDDINGS[1]).items()}
    if (folder / _CONTOURS).is_file():
        found |= {f"dynamic_{key}": value for key, value in read_npy_dictionary(folder / _CONTOURS).items()}
    if (folder / _EMBEDDINGS[0]).is_file():
        found |= read_npy_dictionary(folder / _EMBEDDINGS[0])
    return found


def flame_from_arrays(data: Mapping[str, Any], landmarks: Mapping[str, Any] | None = None, *, name: str = "flame") -> Flame:
    """A head from the arrays of its file.

    Args:
        data: FLAME's layout. landmarks: Embeddings under the names of any of their publishers (``static_lmk_faces_idx``, ``lmk_face_idx``, ...).

    Raises:
        InputError: Arrays are missing, or the skeleton is not FLAME's.
    """
    needed = ("v_template", "f", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table")
    if missing := [key for key in needed if key not in data]:
        raise InputError(f"head model {name!r} lacks {', '.join(missing)}", expected="FLAME's layout", remedy="use the published FLAME 2020 file")
    parents = np.asarray(data["kintree_table"])[0].astype(np.int64).copy()
    parents[0] = -1
    if tuple(parents.tolist()) != (-1, 0, 1, 1, 1):
        raise InputError(f"a skeleton of {len(parents)} joints", expected="FLAME's 5 joints: root, neck, jaw and two eyes")
    vertices = len(np.asarray(data["v_template"]))
    shapedirs = _real(data["shapedirs"])
    if shapedirs.shape[:2] != (vertices, 3) or np.shape(data["weights"]) != (vertices, 5):
        raise InputError(f"head model {name!r} has arrays of different vertex counts", expected=f"{vertices} vertices in all of them")
    betas = _SHAPE_SPACE if shapedirs.shape[-1] > _SHAPE_SPACE else shapedirs.shape[-1] // 2
    points = dict(landmarks or {})
    return Flame(
        name=name,
        licence=_LICENCE,
        v_template=_real(data["v_template"]),
        faces=np.asarray(data["f"]).astype(np.int64),
        shapedirs=shapedirs[..., :betas].contiguous(),
        exprdirs=shapedirs[..., betas:].contiguous(),
        posedirs=_real(data["posedirs"]).reshape(vertices, 3, -1),
        J_regressor=_real(data["J_regressor"]),
        lbs_weights=_real(data["weights"]),
        inner=_embedding(points, "static"),
        contour=_embedding(points, "dynamic"),
        full=_embedding(points, "full"),
    )


def _embedding(points: Mapping[str, Any], kind: str) -> Embedding | None:
    """The embedding of one kind, under whichever of the published names it has; the one with the eyes is preferred."""
    for faces, bary in (
        (f"{kind}_lmk_faces_idx_with_eye", f"{kind}_lmk_bary_coords_with_eye"),
        (f"{kind}_lmk_faces_idx", f"{kind}_lmk_bary_coords"),
        (f"{kind}_lmk_face_idx", f"{kind}_lmk_b_coords"),
    ):
        if faces in points and bary in points:
            index = np.asarray(points[faces]).astype(np.int64)
            weights = np.asarray(points[bary], np.float32)
            if kind != "dynamic":
                index, weights = index.reshape(-1), weights.reshape(-1, 3)
            return Embedding(index, weights)
    return None


def _real(array: Any) -> torch.Tensor:
    return torch.tensor(np.asarray(array, np.float32))
