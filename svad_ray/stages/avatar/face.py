"""The face's texture drawn on the Gaussians' own mesh: where it lies in a picture tells the geometry where the face is (avatar 4.3, 4.4)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from svad_ray.geometry.raster import rasterize_mesh
from svad_ray.nets.exavatar.mesh import AvatarMesh
from svad_ray.stages.avatar.colors import View
from svad_ray.subject import TexturedFace

WHOLE = 0.999  # of the texels around a sample lie in the mask


class FacePicture:
    """A face texture that can be drawn, differentiably in the vertices.

    Which triangle a pixel shows is found by the mesh rasteriser; where in the triangle it lies, and so its colour, follows the vertices.

    Args:
        face: Texture and mesh. mesh: Whose Gaussians it is drawn on, of any device. seen: For every frame, whether the face looks at the camera.
        keep: Visits of a frame for which the found triangles are kept; a GPU waits for the CPU at every search.
    """

    def __init__(self, face: TexturedFace, mesh: AvatarMesh, seen: Sequence[bool], *, keep: int = 1) -> None:
        device, low = mesh.lbs_weights.device, mesh.low.cpu().numpy()
        place = np.full(max(int(low.max()), int(face.rows.max())) + 1, -1)
        place[low] = np.arange(len(low))
        rows = place[face.rows]
        whole = (rows[face.faces] >= 0).all(1)
        self.faces, self.seen, self.keep = face.faces[whole], [bool(x) for x in seen], keep
        self.rows = torch.from_numpy(np.maximum(rows, 0)).to(device)
        self.corners = torch.from_numpy(np.ascontiguousarray(self.faces)).long().to(device)
        self.uv = torch.from_numpy(face.uv[face.uv_faces[whole]]).float().to(device) * 2 - 1
        picture = np.concatenate([face.image.astype(np.float32) / 255, face.mask[..., None].astype(np.float32)], 2)
        self.texture = torch.from_numpy(picture).permute(2, 0, 1)[None].contiguous().to(device)
        self._found: dict[int, tuple[int, torch.Tensor, torch.Tensor]] = {}

    def draw(self, means: torch.Tensor, view: View, frame: int) -> torch.Tensor | None:
        """(1, 4, H, W) texture and mask, -1 where nothing is; None where the frame does not show the face.

        Args:
            means: (N, 3) Gaussians in the world.
        """
        if not self.seen[frame]:
            return None
        local = means.index_select(0, self.rows) @ view.viewmat[:3, :3].T + view.viewmat[:3, 3]
        pixels, triangles = self._triangles(local, view, frame)
        height, width = view.alpha.shape
        out = means.new_full((4, height * width), -1.0)
        if len(pixels):
            where = torch.stack([pixels % width, pixels // width], 1) + 0.5
            inside = _barycentric(local[self.corners[triangles]], where, view.K)
            uv = (self.uv[triangles] * inside[..., None]).sum(1)
            color = F.grid_sample(self.texture, uv[None, :, None], align_corners=False)[0, :, :, 0]
            out = out.index_copy(1, pixels, torch.cat([color[:3], (color[3:] > WHOLE).float()]))
        return out.view(1, 4, height, width)

    def _triangles(self, local: torch.Tensor, view: View, frame: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Numbers of the pixels that show the face, and of the triangle that each shows."""
        visits, *found = self._found.get(frame, (0,))
        if not visits % self.keep:
            height, width = view.alpha.shape
            ids = rasterize_mesh(local.detach().cpu().numpy(), self.faces, view.K.cpu().numpy(), height, width, threads=1).face_id.ravel()
            shown = np.flatnonzero(ids >= 0)
            found = [torch.from_numpy(x.astype(np.int64)).to(local.device) for x in (shown, ids[shown])]
        self._found[frame] = (visits + 1, found[0], found[1])
        return found[0], found[1]


def _barycentric(corners: torch.Tensor, where: torch.Tensor, K: torch.Tensor) -> torch.Tensor:
    """(P, 3) perspective-correct barycentric coordinates of pixels (P, 2) in triangles (P, 3, 3) in camera axes."""
    depth = corners[..., 2]
    flat = torch.stack([corners[..., k] / depth * K[k, k] + K[k, 2] for k in (0, 1)], -1) - where[:, None]
    a, b, c = flat.unbind(1)
    areas = torch.stack([_cross(b, c), _cross(c, a), _cross(a, b)], 1) / depth
    return areas / areas.sum(1, keepdim=True)


def _cross(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
