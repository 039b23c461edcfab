"""Where an ExAvatar's training starts (ours): Gaussians that close the surface, in the colours that the views show.

Colours and sizes are fitted to the mesh's vertices, before any picture is drawn: a step costs a few thousand rows of two networks and no render.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from svad_ray.body.model import Body
from svad_ray.fitting.clothed import Surface, parts_of
from svad_ray.geometry.mesh import adjacency, normals_np
from svad_ray.nets.exavatar.mesh import AvatarMesh
from svad_ray.nets.exavatar.model import AvatarModel
from svad_ray.stages.avatar.colors import SurfacePoints, View, colors_from_views
from svad_ray.subject import BodyTrack

ROWS = 8192  # vertices of a step
COVER = 0.8  # first sigma over a vertex's reach: three neighbours leave a sixth of the light between them, those around them less
INSET = 2.0  # sigmas below the surface: where one grazes it, many round Gaussians overlap, and half of the light passes that far above their middles
EVEN = 4  # rounds of averaging over neighbours
DEEPEST = 0.012  # metres
SIZES = 0.01  # weight of squared log sizes beside squared colours
WAVES = (4, 8, 16, 32)  # texels a side of the noise that a quarter of a triplane's channels each start with
STILL = {
    "mean_offset_net": 1e-3,
    "mean_offset_offset_net": 1e-3,
    "scale_offset_net": 1e-3,
    "rgb_offset_net": 0.02,
}  # of the last layers' first weights


def begin(
    model: AvatarModel, mesh: AvatarMesh, body: Body, track: BodyTrack, views: Sequence[View], *, looks: int, steps: int, rate: float, seed: int
) -> float:
    """Bring fresh networks to our start; returns what ``prefit`` does.

    Args:
        mesh: The model's, on the CPU. views: Those of the track's frames, then photos.
        looks: Frames that colours are taken from, the photos besides. steps, rate: Of ``prefit``.
    """
    calm(model, seed=seed)
    frames = len(track)
    few = [views[i] for i in np.linspace(0, frames - 1, min(looks, frames)).astype(int)]
    return prefit(model, vertex_colors(mesh, body, track, [*few, *views[frames:]]), steps=steps, rate=rate, seed=seed)


def vertex_colors(mesh: AvatarMesh, body: Body, track: BodyTrack, views: Sequence[View]) -> np.ndarray:
    """(N, 3) colours in [0, 1] that the views show where the mesh's vertices lie on the clothed body."""
    surface = _surface(mesh, body, track)
    count = len(surface.rest)
    face, bary = np.zeros(count, np.int64), np.zeros((count, 3), np.float32)
    corner = np.zeros(count, np.int64)
    for k in range(3):
        face[surface.faces[:, k]], corner[surface.faces[:, k]] = np.arange(len(surface.faces)), k
    bary[np.arange(count), corner] = 1
    normal = normals_np(surface.rest, surface.faces).astype(np.float32)
    reach = reaches(surface.rest, surface.faces).astype(np.float32)
    points = SurfacePoints(face, bary, surface.rest, normal, reach, surface.lbs_weights.numpy(), reach)
    return colors_from_views(surface, points, views)


def _surface(mesh: AvatarMesh, body: Body, track: BodyTrack) -> Surface:
    rest = body.v_template + body.shapedirs[..., : len(track.betas)] @ torch.as_tensor(track.betas, dtype=torch.float32)
    if track.surface_offset is not None:
        rest = rest + torch.as_tensor(track.surface_offset, dtype=torch.float32)
    weights = mesh.lbs_weights
    return Surface(mesh.up(rest).numpy(), mesh.faces, weights, mesh.up(body.v_template).numpy(), parts_of(weights.numpy()), {})


def reaches(vertices: np.ndarray, faces: np.ndarray, *, rounds: int = EVEN) -> np.ndarray:
    """(N,) metres from a vertex to the farthest middle of a triangle around it, averaged ``rounds`` times with the neighbours'.

    The model wants neighbours of like size; a vertex without a triangle has the others' median.
    """
    middle = vertices[faces].mean(1)
    out = np.zeros(len(vertices))
    for k in range(3):
        np.maximum.at(out, faces[:, k], np.linalg.norm(vertices[faces[:, k]] - middle, axis=1))
    out[out == 0] = np.median(out[out > 0])
    around = adjacency(faces, len(vertices))
    degree = np.asarray(around.sum(1)).ravel()
    for _ in range(rounds):
        out = (out + around @ out) / (1 + degree)
    return out


def closing(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(N,) metres: sigmas with which neighbours leave no gap between them, from however near they are seen."""
    return COVER * reaches(vertices, faces)


def inset(body: Body, track: BodyTrack, mesh: AvatarMesh) -> np.ndarray:
    """(V, 3) metres by which vertices lie below the surface, so that the round Gaussians' outsides, not their middles, lie on it."""
    surface = _surface(mesh, body, track)
    width = np.minimum(INSET * closing(surface.rest, mesh.faces), DEEPEST)
    down = -width[:, None] * normals_np(surface.rest, surface.faces)
    out = np.zeros((len(body.v_template), 3), np.float32)
    low = mesh.low.numpy()
    out[low] = down[: len(low)]
    return out


@torch.no_grad()
def calm(model: AvatarModel, *, seed: int) -> None:
    """Let the heads that move, grow or tint Gaussians start at nearly nothing, and the triplanes at something smooth that tells places apart."""
    networks = model.networks
    for name, share in STILL.items():
        last = _last(getattr(networks, name))
        last.weight.mul_(share)
        last.bias.zero_()
    generator = torch.Generator().manual_seed(seed)
    for planes in (networks.triplane, networks.triplane_face):
        count, channels, side, _ = planes.shape
        coarse = [torch.randn(count, channels // len(WAVES), min(n, side), min(n, side), generator=generator) for n in WAVES]
        fine = [torch.nn.functional.interpolate(x, size=(side, side), mode="bicubic", align_corners=False) for x in coarse]
        planes.add_((0.1 * torch.cat(fine, 1)).to(planes.device))


def prefit(model: AvatarModel, colors: np.ndarray, *, steps: int, rate: float, seed: int) -> float:
    """Fit triplanes and the colour and size heads to the vertices' colours (N, 3) and reaches; returns the last colours' root mean square error.

    Every step looks at other vertices, ``ROWS`` at most, by Adam whose rate falls to nothing along a half cosine.
    """
    networks, device = model.networks, model.positions.device
    true = torch.from_numpy(colors).to(device)
    mesh = model.canonical().mesh.detach()
    sizes = torch.from_numpy(np.log(closing(mesh.cpu().numpy(), model.mesh.faces))).float().to(device)[:, None]
    with torch.no_grad():
        _last(networks.scale_net).bias.fill_(float(sizes.mean()))
        _last(networks.rgb_net).bias.copy_(torch.atanh(2 * true.mean(0).clamp(0.02, 0.98) - 1))
    order = np.random.default_rng(seed).permutation(len(true))
    parts = np.array_split(order, -(-len(true) // ROWS))
    looks = [model.looks(part) for part in parts]
    trained = [
        networks.triplane,
        networks.triplane_face,
        *(p for net in (networks.rgb_net, networks.geo_net, networks.scale_net) for p in net.parameters()),
    ]
    adam = torch.optim.Adam(trained, lr=rate, fused=True)
    error = torch.zeros(len(parts), device=device)
    for step in range(steps):
        which = step % len(parts)
        rows = torch.from_numpy(parts[which]).to(device)
        adam.param_groups[0]["lr"] = rate * (0.5 + 0.5 * np.cos(np.pi * step / steps))
        features = model.features(looks[which])
        rgb = model.through(networks.rgb_net, features, precision=model.precision).float()
        geometry = model.through(networks.geo_net, features, precision=model.precision).float()
        shape = SIZES * (networks.scale_net(geometry) - sizes[rows]).pow(2).mean()
        away = ((torch.tanh(rgb) + 1) / 2 - true[rows]).pow(2).mean()
        adam.zero_grad()
        (away + shape).backward()
        adam.step()
        error[which] = away.detach()
    return float(error.mean().sqrt())


def _last(net: nn.Module) -> nn.Linear:
    layer = net[-1]  # type: ignore[index]
    if not isinstance(layer, nn.Linear):
        raise TypeError(f"{type(net).__name__} does not end with a linear layer")
    return layer
