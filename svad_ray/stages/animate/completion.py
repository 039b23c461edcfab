"""Colours for what the photo does not show: mirrored, continued round the body, never a face on the back of the head.

Order: the other side of the body where that was seen; clothes continued from front to back by height and place across, taken only from
cloth that also reaches the garment's sides (an open coat's shirt, a print, a tie or crossed hands do not); hair colours over the back of the
head; a Laplace fill of what is left. Photo coordinates are kept beside colours, so that the fill is as sharp as the photo. What is carried to another
place is lit as that place is (``shading``). Source: ours.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import scipy.sparse as sp
from scipy.ndimage import labeled_comprehension
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu
from scipy.spatial import cKDTree

from svad_ray.fitting.clothed import MIRRORED_PART, Surface
from svad_ray.fitting.hair import TEXELS, above_face
from svad_ray.geometry.cut import best_cut
from svad_ray.geometry.raster import sample_bilinear
from svad_ray.stages.animate.appearance import Appearance, odd
from svad_ray.stages.animate.projection import SeenSurface
from svad_ray.stages.animate.shading import STRONGEST, Shading, fit_shading

SURE = 0.55  # photo weight from which a vertex can lend its colour
MIRROR_REACH = 0.012  # metres between a vertex and its partner's mirror image
PART_STEP = 3.0  # added per part to the look-up key: parts never mix
COAT = len(MIRRORED_PART)  # of a coat among the parts
SKIN = 0.18  # shade-free colour distance within which a vertex counts as skin like the face's
REFLECT = 0.025  # metres from any source beyond which a pattern is continued by reflection
HAIR_GUARD = 0.003  # of the person's size: so far beside hair the photo mixes it with skin
THROUGH = 0.75  # cosine between normal and view below which skin is no part of where hair falls
STRAND = 3.0  # degrees round the head that share a shade
NECKLINE = 0.10  # metres from the middle within which a garment's upper edge is looked for, and below the shoulder joints
BESIDE = 0.05  # metres before the ears up to which hair may hide the side of the face
OTHER_SIDE = 0.04  # metres that a source on the other side counts farther away
BANNED_NEAR = 0.006  # of the person's size: a place in the photo so near to what must not be copied shows it
PRINT, OPENING = 0.04, 0.15  # metres of height from which what must not be copied is a print, and from which an opening
BESIDE_HEM = 0.01  # metres above a coat's hem from which what is no coat lies in its opening
COLLAR = 0.35  # of the neck's seen vertices like skin: less, and a collar or a scarf covers it
CLEAR = 0.01  # metres of the neck's uppermost seen skin that tell its colour in any case
HEM = 4  # edges beside an opening that are not copied either
LEG_INNER, LEG_OUTER = 0.7, 0.6  # of a leg's width from its inner side: what is judged, and what it is compared with
SUPPORT_COLOR, SUPPORT_HEIGHT, SUPPORT_COUNT = 0.13, 0.07, 6  # when cloth counts as reaching the sides


def complete(
    surface: Surface,
    seen: SeenSurface,
    face_mesh: np.ndarray | None,
    mask: np.ndarray,
    *,
    hair: np.ndarray | None = None,
    coat: np.ndarray | None = None,
    seed: int = 0,
    relight: bool = True,
) -> Appearance:
    """Fill everything unseen.

    Args:
        face_mesh: (468, 3) face landmarks in the first photo's pixels (10 = top of the face oval, 152 = chin) for the hair's colour, or None.
        mask: (H, W) bool, the person in the first photo.
        hair: (H, W) bool, the first photo's pixels that show hair, or None: what lies behind them is not seen.
        coat: (H, W) bool, the first photo's pixels that show an open coat, or None without one: all of the back is that coat's.
        seed: Of the hair's strands.
        relight: Light what is carried to another place as that place is lit.
    """
    on_hair = np.zeros(len(surface.rest), bool) if hair is None else shows_hair(seen, hair)
    seen = behind_hair(surface, seen, on_hair)
    if coat is not None:  # between the legs a coat's back shows where the photo shows the coat
        keep = ~(surface.regions["coat_back"] & ~pixels_at(coat, seen.uvs[0]) & (seen.page == 0))
        seen = replace(seen, weight=seen.weight * keep, shares=seen.shares * keep)
    filler = _Filler(surface, seen, on_hair, relight=relight)
    filler.mirror()
    filler.continue_clothes(coat)
    drawn = filler.hair(hair_colors(seen, face_mesh, mask), seed)
    base = filler.harmonic(filler.hair_zone | filler.on_hair if drawn is not None else None)
    if drawn is not None:
        base[filler.hair_zone] = drawn[filler.hair_zone]
    return Appearance(
        seen.photo,
        seen.uvs,
        seen.shares,
        np.clip(base, 0, 1).astype(np.float32),
        filler.uv.astype(np.float32),
        np.exp(filler.gain).astype(np.float32),
        float(seen.size * 0.02),
    )


def shows_hair(seen: SeenSurface, hair: np.ndarray) -> np.ndarray:
    """(N,) bool: vertices where the first photo's pixels are hair's, or beside hair and mixed with it."""
    return shows(seen, cv2.dilate(hair.astype(np.uint8), np.ones((odd(HAIR_GUARD * seen.size),) * 2, np.uint8)) > 0)


def shows(seen: SeenSurface, pixels: np.ndarray) -> np.ndarray:
    """(N,) bool: vertices that lie on the first photo's ``pixels`` (H, W) bool."""
    return pixels_at(pixels, seen.uvs[0]) & (seen.page == 0)


def pixels_at(pixels: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """(N,) bool: the first photo's ``pixels`` (H, W) bool at places ``uv`` (N, 2)."""
    at = np.clip(np.round(np.nan_to_num(uv) - 0.5).astype(int), 0, [pixels.shape[1] - 1, pixels.shape[0] - 1])
    return pixels[at[:, 1], at[:, 0]]


def behind_hair(surface: Surface, seen: SeenSurface, on_hair: np.ndarray) -> SeenSurface:
    """The same without what hair hides of cheeks and ears (the photo's pixels are the hair's), and without skin seen aslant where hair falls."""
    side = (surface.part == 0) & ~hair_zone(surface) & ~surface.neck & (surface.template[:, 2] < _ear_depth(surface) + BESIDE)
    through = surface.regions["hair"] & ~on_hair & (seen.facing < THROUGH)
    hidden = on_hair & side | through
    keep = 1 - np.maximum(hidden, np.clip(2 * seen.smooth(hidden.astype(np.float32)), 0, 1) * (side | through))
    return replace(seen, weight=(seen.weight * keep).astype(np.float32), shares=(seen.shares * keep).astype(np.float32))


class _Filler:
    """The growing fill: colours, where they came from, which vertices have one."""

    def __init__(self, surface: Surface, seen: SeenSurface, on_hair: np.ndarray, *, relight: bool) -> None:
        self.surface, self.seen = surface, seen
        count = len(surface.rest)
        self.sure = seen.weight > SURE
        self.color, self.have = np.zeros((count, 3)), np.zeros(count, bool)
        self.uv, self.gain = np.full((count, 2), np.nan), np.zeros(count)
        lights = [self._light(k) if relight else Shading(np.zeros(5)) for k in range(len(seen.shares))]
        self.light = np.stack([light(normals) for light, normals in zip(lights, seen.normals)])  # (K, N) log brightness, each photo's
        self.hair_zone = hair_zone(surface) & (seen.weight < 0.9)
        self.on_hair = on_hair & self.sure & (surface.part == 0)  # no source of skin

    def _light(self, page: int) -> Shading:
        """The light of one photo."""
        sure = np.where(self.sure & (self.seen.page == page), self.seen.weight, 0)
        return fit_shading(self.seen.color, self.seen.normals[page], self.surface.part, sure)

    def put(self, target: np.ndarray, source: np.ndarray, uv: np.ndarray) -> None:
        """Fill vertices ``target`` (M,) with the photo at ``uv`` (M, 2), which lies at the seen vertices ``source`` (M,), lit as the targets are."""
        page = self.seen.page[source]
        gain = np.clip(self.light[page, target] - self.light[page, source], -STRONGEST, STRONGEST)
        self.color[target] = sample_bilinear(self.seen.photo, uv) * np.exp(gain)[:, None]
        self.have[target], self.uv[target], self.gain[target] = True, uv, gain

    def mirror(self) -> None:
        """The other side of the body, where that was seen (helps when the person is turned)."""
        source = np.where(self.sure & ~self.on_hair)[0]
        if not len(source):
            return
        v = self.surface.template
        distance, i = cKDTree(v[source] * [-1, 1, 1]).query(v)
        hit = np.where((distance < MIRROR_REACH) & ~self.sure)[0]
        self.put(hit, source[i[hit]], self.seen.uv[source[i[hit]]])

    def continue_clothes(self, coat: np.ndarray | None = None) -> None:
        """Front to back at the same height and place across; depth counts little; a head is never copied to its back.

        Args:
            coat: (H, W) bool, pixels of an open coat, or None without one.

        Torso and legs are one garment group, so that a shirt's hem and a belt lie at one height all round. A source's photo coordinates are
        carried on to the exact place by the group's linear map from body to photo, which keeps stripes straight.
        """
        v, part = self.surface.template, self.surface.part
        bare = self.neckline()
        neck = (part == 0) & self.surface.neck & ~bare
        group = np.where(np.isin(part, (1, 4, 5)), 1, part)
        lend = self.sure & (self.seen.facing > 0.5) & ((part != 0) | neck)
        if coat is None:
            banned = lend & ~reaches_sides(self.surface, self.seen, lend)
        else:  # in the opening the legs lend to legs, the trunk to nothing
            group, v = self._with_coat(group, coat), np.where(self.surface.regions["coat"][:, None], self.surface.rest, v)
            banned = lend & ((part == 1) & (group != COAT) | (group == COAT) & self._beside_opening(group))
        lend &= ~banned
        source = np.where(lend)[0]
        if not len(source):
            return
        key = np.concatenate([v * [1.0, 1.0, 0.1], group[:, None] * PART_STEP], 1)
        best, uv, lender = np.full(len(v), np.inf), np.full((len(v), 2), np.nan), np.zeros(len(v), int)
        for flip in (False, True):
            distance, found, at = self._look_up(key, v[:, :2], source, group, flip)
            better = distance + OTHER_SIDE * flip < best
            best[better], uv[better], lender[better] = distance[better] + OTHER_SIDE * flip, found[better], at[better]
        go = ~self.sure & (best < 1.0) & ((part != 0) | neck) & ~bare & (~self.have | self._over_banned(banned))
        go = np.flatnonzero(go)
        prints = _tall(banned, self.seen.neighbours, v[:, 1], PRINT)
        if prints.any():  # the exact place may lie on what must not be copied: then the lender's own
            distance, _ = cKDTree(self.seen.uv[prints]).query(uv[go])
            onto = go[distance < BANNED_NEAR * self.seen.size]
            uv[onto] = self.seen.uv[lender[onto]]
        if coat is not None:  # nor may it lie beside the coat
            beside = go[(group[go] == COAT) & ~pixels_at(coat, uv[go])]
            uv[beside] = self.seen.uv[lender[beside]]
        self.put(go, lender[go], uv[go])

    def _with_coat(self, group: np.ndarray, coat: np.ndarray) -> np.ndarray:
        """(N,) the groups with a coat's own: what shows it, and of the rest all of the trunk and what hangs beside the legs."""
        cloth = group == 1
        seen = self.sure & (self.seen.page == 0)
        worn = np.where(seen, pixels_at(coat, self.seen.uvs[0]), self.surface.regions["coat"] | (self.surface.part == 1))
        return np.where(cloth & worn, COAT, group)

    def _beside_opening(self, group: np.ndarray) -> np.ndarray:
        """(N,) bool: beside what an open coat shows of trunk and legs, where its trim and buttons are; its hem is none of that."""
        hem = self.surface.rest[self.surface.regions["coat"], 1].min(initial=np.inf) + BESIDE_HEM
        beside = self.sure & (group == 1) & (self.surface.rest[:, 1] > hem)
        for _ in range(HEM):
            beside |= (self.seen.neighbours @ beside.astype(np.float32)) > 0
        return beside

    def neckline(self) -> np.ndarray:
        """(N,) bool, bare skin of the neck all round, filled with its colour.

        None under a scarf. A garment's upper edge is where it is seen highest beside the neck, and where a collar covers most of the neck that is
        seen, where skin begins on it: behind, cloth reaches that far.
        """
        s, (x, y, z) = self.surface, self.surface.template.T
        none = np.zeros(len(x), bool)
        neck, face = (s.part == 0) & s.neck, s.regions["face"] & self.sure
        seen = neck & self.sure
        if face.sum() < 50 or seen.sum() < 10:
            return none
        skin = np.median(self.seen.color[face], 0)
        close = np.linalg.norm(_shade_free(self.seen.color) - _shade_free(skin[None]), axis=1) < SKIN
        near = (s.part == 1) & (np.abs(x) < NECKLINE) & (y > y[neck].min() - NECKLINE)
        cloth = near & self.sure & ~close
        edge = np.quantile(y[cloth], 0.97) if cloth.sum() >= 10 else -np.inf
        if close[seen].mean() < COLLAR:
            edge = max(edge, _skin_begins(y[seen], close[seen]))
            above = seen & (y > edge)
            if above.sum() < 10 or close[above].mean() < COLLAR:
                return none
        bare = (neck | near & (z < _ear_depth(s)) & np.isfinite(edge)) & (y > edge)
        fill = bare & ~self.sure & ~self.hair_zone
        self.color[fill] = np.median(self.seen.color[seen & close & (y > min(edge, y[seen & close].max() - CLEAR))], 0)
        self.have[fill], self.uv[fill] = True, np.nan
        return bare

    def _look_up(
        self, key: np.ndarray, place: np.ndarray, source: np.ndarray, group: np.ndarray, flip: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(N,) distance of the nearest source, (N, 2) photo coordinates there, (N,) that source; far away the pattern is continued by reflection."""
        at = key[source].copy()
        if flip:
            at[:, 0] *= -1
            at[:, 3] = np.append(MIRRORED_PART, COAT)[group[source]] * PART_STEP
        tree = cKDTree(at)
        distance, i = tree.query(key)
        wanted = key[:, :2].copy()
        far = np.where((distance > REFLECT) & (distance < 1.0))[0]
        if len(far):
            mirror = 2 * at[i[far]] - key[far]
            mirror[:, 3] = key[far, 3]
            _, i[far] = tree.query(mirror)
            wanted[far] = mirror[:, :2]
        step = wanted - at[i, :2]
        step = np.where(np.linalg.norm(step, axis=1, keepdims=True) < REFLECT, step, 0)
        if flip:
            step[:, 0] *= -1
        uv = self.seen.uv[source[i]].astype(np.float64)
        cloth = group * len(self.seen.shares) + self.seen.page  # one map per garment and photo
        for g in np.unique(cloth[source]):
            members = source[cloth[source] == g]
            uv += (cloth[source[i]] == g)[:, None] * (step @ _linear_map(place[members], self.seen.uv[members]))
        return distance, uv, source[i]

    def _over_banned(self, banned: np.ndarray) -> np.ndarray:
        """Vertices whose mirrored fill came from cloth that must not be copied."""
        if not banned.any():
            return np.zeros(len(banned), bool)
        distance, _ = cKDTree(self.seen.uv[banned]).query(np.nan_to_num(self.uv, nan=-1e6))
        return distance < 0.5

    def hair(self, pool: np.ndarray | None, seed: int) -> np.ndarray | None:
        """(N, 3) hair colours in strands, or None without a pool; unseen skin of head and neck is left to the Laplace fill."""
        head_back = (self.surface.part == 0) & ~self.sure & (self.surface.template[:, 2] < _ear_depth(self.surface))
        bare = head_back & ~self.hair_zone & ~self.surface.neck
        self.have[bare], self.uv[bare] = False, np.nan
        if pool is None:
            return None
        strands = pool[np.random.default_rng(seed).integers(0, len(pool), round(360 / STRAND) + 1)]
        pick = strands[(self._round_the_head() / STRAND).astype(int)]
        pick = 0.5 * np.median(pool, 0) + 0.5 * (0.5 * pick + 0.5 * self.seen.smooth(pick))
        self.color[self.hair_zone], self.have[self.hair_zone], self.uv[self.hair_zone] = pick[self.hair_zone], True, np.nan
        return pick

    def _round_the_head(self) -> np.ndarray:
        """(N,) degrees from the back of the head's axis, in [0, 360]."""
        v = self.surface.template
        scalp = v[self.surface.regions["scalp"]]
        x, z = v[:, 0], v[:, 2] - (scalp[:, 2].min() + scalp[:, 2].max()) / 2
        return np.degrees(np.arctan2(x, z)) + 180

    def harmonic(self, apart: np.ndarray | None = None) -> np.ndarray:
        """(N, 3): sure photo colours and the fill, the rest by Laplace's equation on the mesh without the vertices ``apart`` (N,) bool."""
        out = np.where(self.sure[:, None], self.seen.color, self.color).astype(np.float64)
        among = np.arange(len(out)) if apart is None else np.flatnonzero(~apart)
        known = (self.sure | self.have)[among]
        fixed, unknown = among[known], among[~known]
        if not len(unknown) or not len(fixed):
            return out
        a = self.seen.neighbours[among][:, among]
        lap = (sp.diags(np.asarray(a.sum(1)).ravel()) - a).tocsr()[~known]
        pull = 1e-6  # what hangs together with nothing known gets the mean
        rhs = pull * out[fixed].mean(0) - lap[:, known] @ out[fixed]
        out[unknown] = splu((lap[:, ~known] + sp.eye(len(unknown)) * pull).tocsc()).solve(np.asarray(rhs))
        return out


def _linear_map(xy: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """(2, 2) least-squares map from steps on the body (metres across and up) to steps in the photo (pixels); zero for too few points."""
    if len(xy) < 10:
        return np.zeros((2, 2))
    return np.linalg.lstsq(xy - xy.mean(0), uv - uv.mean(0), rcond=None)[0]


def reaches_sides(surface: Surface, seen: SeenSurface, lend: np.ndarray) -> np.ndarray:
    """(N,) bool: lenders whose colour also occurs at the outer part of the same garment at about the same height.

    Torso and legs are judged. Stripes and plaids pass (their colours reach the sides); prints, ties, hands and what an open coat shows do not.
    """
    ok = np.ones(len(lend), bool)
    torso, legs = lend & (surface.part == 1), lend & np.isin(surface.part, (4, 5))
    x, y = np.abs(surface.template[:, 0]), surface.template[:, 1]
    key = np.concatenate([_shade_free(seen.color) / SUPPORT_COLOR, y[:, None] / SUPPORT_HEIGHT], 1)
    sides = (torso | legs) & (x > 0.62 * np.quantile(x[torso], 0.98)) if torso.sum() >= 50 else np.zeros(len(lend), bool)
    across = _across_leg(x, y, np.isin(surface.part, (4, 5)))
    for judged, outer in ((torso, sides), (legs & (across < LEG_INNER), legs & (across > LEG_OUTER))):
        if outer.sum() >= SUPPORT_COUNT and judged.any():
            distance, _ = cKDTree(key[outer]).query(key[judged], k=SUPPORT_COUNT)
            ok[judged] = distance[:, -1] < 1.0
    bad = lend & ~ok
    beside = (seen.neighbours @ bad.astype(np.float32)) > 0  # a lender beside it may carry its blurred edge
    opening = _tall(bad, seen.neighbours, y, OPENING)
    for _ in range(HEM):  # beside an opening all the way down there is a hem, or buttons
        opening |= (seen.neighbours @ opening.astype(np.float32)) > 0
    return ok & ~beside & ~opening


def _skin_begins(height: np.ndarray, skin: np.ndarray) -> float:
    """The height that tells most of the vertices right, as skin above it and none below."""
    order = np.argsort(height)
    cut, _ = best_cut(skin[order])
    return float(height[order[max(0, cut - 1)]])


def _tall(marked: np.ndarray, neighbours: sp.csr_matrix, y: np.ndarray, least: float) -> np.ndarray:
    """(N,) bool: the ``marked`` vertices of pieces that reach over more than ``least`` of height ``y``."""
    out, numbers = np.zeros(len(marked), bool), np.flatnonzero(marked)
    if len(numbers):
        _, piece = connected_components(neighbours[numbers][:, numbers], directed=False)
        high = labeled_comprehension(y[numbers], piece, np.arange(piece.max() + 1), np.ptp, float, 0.0)
        out[numbers] = high[piece] > least
    return out


def _across_leg(x: np.ndarray, y: np.ndarray, legs: np.ndarray) -> np.ndarray:
    """(N,) from 0 at a leg's inner side to 1 at its outer side at each height; ``x``: metres from the middle, ``y``: height, ``legs`` (N,) bool."""
    out = np.zeros(len(x))
    if not legs.any():
        return out
    band = ((y - y[legs].min()) / SUPPORT_HEIGHT).astype(int)
    for b in np.unique(band[legs]):
        here = legs & (band == b)
        out[here] = (x[here] - x[here].min()) / max(float(np.ptp(x[here])), 1e-6)
    return out


def _shade_free(color: np.ndarray) -> np.ndarray:
    """Colours whose brightness counts half: a fold or the shaded side is the same cloth."""
    return color - 0.5 * color.mean(1, keepdims=True)


def _ear_depth(surface: Surface) -> float:
    ears = surface.template[surface.regions["ears"]]
    return float(ears[:, 2].mean()) if len(ears) else 0.0


def hair_zone(surface: Surface) -> np.ndarray:
    """(N,) bool: where a haircut is when the photo does not say otherwise (the scalp, less the ears), and hair that falls below it."""
    scalp = surface.regions["scalp"] & ~surface.regions["ears"] & (surface.part == 0)
    return (scalp | surface.regions["hair"]) & ~surface.regions["eyes"]


def hair_colors(seen: SeenSurface, face_mesh: np.ndarray | None, mask: np.ndarray) -> np.ndarray | None:
    """(M, 3) photo colours just above the face oval (hair, or a hat), the brightest strands left out; None when there are too few."""
    if face_mesh is None:
        return None
    crown = above_face(face_mesh, mask)
    if crown.sum() < TEXELS:
        return None
    color = seen.photo[: len(mask), : mask.shape[1]][crown]
    light = color.mean(1)
    low, high = np.percentile(light, [10, 55])
    return color[(light >= low) & (light <= high)]
