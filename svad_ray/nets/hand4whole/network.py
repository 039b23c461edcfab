"""The networks of Hand4Whole, and what they say of a person.

Source: Moon et al. (2022), section 3, in the layout of the released checkpoint (spec: avatar 2, 3.3). All coordinates of joints are cells of heat
maps: 8 x 8 x 6 for the body, 8 x 8 x 8 for a hand. The left hand is seen mirrored by the same network as the right one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from svad_ray.geometry.rotations import axis_angle_of, matrices_of_rows
from svad_ray.nets.hand4whole.crop import PATCH, roi_align
from svad_ray.nets.resnet import ResNet

BODY_MAP, HAND_MAP = (8, 8, 6), (8, 8, 8)  # cells of depth, rows and columns
BODY_JOINTS, HAND_JOINTS, KNUCKLES = 25, 20, (4, 8, 12, 16)
BODY_ROTATIONS, HAND_ROTATIONS = 21, 15
BODY_INPUT = (256, 192)
HAND_SIDE, FACE_SIDE = 256, 192
_HAND_ROOM, _FACE_ROOM = 2.0, 1.5
_FOCAL, _CUBE = 5000.0, 2.5  # pixels of ``BODY_INPUT``; metres about the body
_FEATURES, _CODE = 2048, 10


@dataclass(frozen=True)
class WholeBody:
    """What is said of N people; poses are axis-angle in the camera, y down.

    Attributes:
        global_orient: (N, 3). body_pose: (N, 21, 3). left_hand_pose, right_hand_pose: (N, 15, 3), without the hands' mean. jaw_pose: (N, 3).
        betas, expression: (N, 10) of SMPL-X.
        transl: (N, 3) of the virtual camera, metres.
        joints: (N, 65, 3) cells of the body's heat map: 25 of the body, 20 of each hand.
        left_hand_box, right_hand_box, face_box: (N, 4) x1, y1, x2, y2, pixels of the patch.
    """

    global_orient: Tensor
    body_pose: Tensor
    left_hand_pose: Tensor
    right_hand_pose: Tensor
    jaw_pose: Tensor
    betas: Tensor
    expression: Tensor
    transl: Tensor
    joints: Tensor
    left_hand_box: Tensor
    right_hand_box: Tensor
    face_box: Tensor


def rotations_of(columns: Tensor) -> Tensor:
    """(..., 6 K) two columns of each of K rotations, interleaved -> (..., K, 3) axis-angle."""
    six = columns.unflatten(-1, (-1, 3, 2)).transpose(-1, -2).flatten(-2)
    return axis_angle_of(matrices_of_rows(six).transpose(-1, -2))


def expected_place(heat: Tensor) -> tuple[Tensor, Tensor]:
    """(N, J, ...cells) logits -> (N, J, ...cells) probabilities and (N, J, 2 or 3) mean cell, x first."""
    shares = heat.flatten(2).softmax(-1).reshape(heat.shape)
    places = []
    for axis in range(heat.dim() - 1, 1, -1):
        others = [other for other in range(2, heat.dim()) if other != axis]
        places.append((shares.sum(others) * torch.arange(heat.shape[axis], dtype=heat.dtype)).sum(-1))
    return shares, torch.stack(places, -1)


def features_at(features: Tensor, places: Tensor) -> Tensor:
    """(N, J, C) of (N, C, H, W) at (N, J, 2) cells x, y, bilinear."""
    size = torch.tensor([features.shape[3] - 1, features.shape[2] - 1], dtype=features.dtype)
    grid = (2 * places / size - 1)[:, :, None]
    return F.grid_sample(features, grid, align_corners=True)[..., 0].transpose(1, 2)


def _conv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1), nn.BatchNorm2d(outputs), nn.ReLU())


def _only(layer: nn.Module) -> nn.Sequential:
    """One layer under the number that the checkpoint gives it."""
    return nn.Sequential(layer)


class _PositionNet(nn.Module):
    """Where joints are: a heat map of each."""

    def __init__(self, joints: int, cells: tuple[int, int, int]) -> None:
        super().__init__()
        self.shape, self.conv = (joints, *cells), _only(nn.Conv2d(_FEATURES, joints * cells[0], 1))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return expected_place(self.conv(features).reshape(-1, *self.shape))


class _BodyRotationNet(nn.Module):
    """Rotations from the features at the joints of the body and at the knuckles."""

    def __init__(self) -> None:
        super().__init__()
        self.body_conv, self.lhand_conv, self.rhand_conv = (_conv(_FEATURES, 512) for _ in range(3))
        seen = (BODY_JOINTS + 2 * len(KNUCKLES)) * (512 + 3)
        self.root_pose_out, self.body_pose_out = _only(nn.Linear(seen, 6)), _only(nn.Linear(seen, 6 * BODY_ROTATIONS))
        self.shape_out, self.cam_out = _only(nn.Linear(_FEATURES, _CODE)), _only(nn.Linear(_FEATURES, 3))

    def forward(self, features: Tensor, joints: Tensor, hands: tuple[Tensor, Tensor], knuckles: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        """Root and body as pairs of columns, shape, camera."""
        seen = []
        for conv, part, places in zip((self.body_conv, self.lhand_conv, self.rhand_conv), (features, *hands), (joints, *knuckles)):
            seen.append(torch.cat([features_at(conv(part), places[..., :2]), places], 2))
        flat, mean = torch.cat(seen, 1).flatten(1), features.mean((2, 3))
        return self.root_pose_out(flat), self.body_pose_out(flat), self.shape_out(mean), self.cam_out(mean)


class _HandRotationNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hand_conv, self.hand_pose_out = _conv(_FEATURES, 512), _only(nn.Linear(HAND_JOINTS * (512 + 3), 6 * HAND_ROTATIONS))

    def forward(self, features: Tensor, joints: Tensor) -> Tensor:
        return self.hand_pose_out(torch.cat([features_at(self.hand_conv(features), joints[..., :2]), joints], 2).flatten(1))


class _BoxNet(nn.Module):
    """Middle and size of both hands and the face, in cells of the body's heat map."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs in (_FEATURES + BODY_JOINTS * BODY_MAP[0], 256, 256):
            layers += [nn.ConvTranspose2d(inputs, 256, 4, 2, 1, bias=False), nn.BatchNorm2d(256), nn.ReLU()]
        self.deconv, self.bbox_center = nn.Sequential(*layers), _only(nn.Conv2d(256, 3, 1))
        self.lhand_size, self.rhand_size, self.face_size = (nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 2)) for _ in range(3))

    def forward(self, features: Tensor, heat: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, 2) middles and (N, 3, 2) sizes of left hand, right hand and face."""
        fine = self.deconv(torch.cat([features, heat.flatten(1, 2)], 1))
        _, middles = expected_place(self.bbox_center(fine))
        seen = features_at(fine, middles)
        sizes = [net(seen[:, i]) for i, net in enumerate((self.lhand_size, self.rhand_size, self.face_size))]
        return middles / 8, torch.stack(sizes, 1)


class _Roi(nn.Module):
    def __init__(self, depth: int) -> None:
        super().__init__()
        self.backbone = ResNet(depth)

    def forward(self, parts: Tensor) -> Tensor:
        return self.backbone(parts)[-1]


class _FaceRegressor(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.expr_out, self.jaw_pose_out = _only(nn.Linear(512, _CODE)), _only(nn.Linear(512, 6))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        mean = features.mean((2, 3))
        return self.expr_out(mean), self.jaw_pose_out(mean)


def square_boxes(middles: Tensor, sizes: Tensor, room: float) -> Tensor:
    """(N, 4) squares x1, y1, x2, y2 in pixels of ``BODY_INPUT``, of (N, 2) middles and sizes in cells, larger by ``room``."""
    pixels = torch.tensor([BODY_INPUT[1] / BODY_MAP[2], BODY_INPUT[0] / BODY_MAP[1]], dtype=middles.dtype)
    half = (sizes * pixels).amax(1, keepdim=True) * room / 2
    return torch.cat([middles * pixels - half, middles * pixels + half], 1)


class Hand4Whole(nn.Module):
    """All networks; the body model in the checkpoint is not among them."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = ResNet(50)
        self.body_position_net, self.body_rotation_net, self.box_net = _PositionNet(BODY_JOINTS, BODY_MAP), _BodyRotationNet(), _BoxNet()
        self.hand_roi_net, self.hand_position_net, self.hand_rotation_net = _Roi(50), _PositionNet(HAND_JOINTS, HAND_MAP), _HandRotationNet()
        self.face_roi_net, self.face_regressor = _Roi(18), _FaceRegressor()

    @torch.inference_mode()
    def forward(self, patches: Tensor) -> WholeBody:
        """(N, 3, 512, 384) RGB in [0, 1] -> what is said of N people."""
        features = self.backbone(F.interpolate(patches, BODY_INPUT))[-1]
        heat, joints = self.body_position_net(features)
        middles, sizes = self.box_net(features, heat)
        left_box, right_box, face_box = (
            square_boxes(middles[:, i], sizes[:, i], room) for i, room in enumerate((_HAND_ROOM, _HAND_ROOM, _FACE_ROOM))
        )
        expression, jaw = self.face_regressor(self.face_roi_net(roi_align(patches, _in_patch(face_box), FACE_SIDE)))
        left = roi_align(patches, _in_patch(left_box), HAND_SIDE).flip(3)
        hands = self.hand_roi_net(torch.cat([left, roi_align(patches, _in_patch(right_box), HAND_SIDE)]))
        _, places = self.hand_position_net(hands)
        left_pose, right_pose = rotations_of(self.hand_rotation_net(hands, places)).chunk(2)
        left_places, right_places = places.chunk(2)
        left_places = torch.cat([HAND_MAP[2] - 1 - left_places[..., :1], left_places[..., 1:]], -1)
        left_features, right_features = hands.chunk(2)
        knuckles = (left_places[:, KNUCKLES], right_places[:, KNUCKLES])
        root, body, betas, camera = self.body_rotation_net(features, joints, (left_features.flip(3), right_features), knuckles)
        return WholeBody(
            global_orient=rotations_of(root)[:, 0],
            body_pose=rotations_of(body),
            left_hand_pose=left_pose * torch.tensor([1.0, -1.0, -1.0]),
            right_hand_pose=right_pose,
            jaw_pose=rotations_of(jaw)[:, 0],
            betas=betas,
            expression=expression,
            transl=torch.cat([camera[:, :2], _depth(camera[:, 2:])], 1),
            joints=torch.cat([joints, _in_body(left_places, left_box), _in_body(right_places, right_box)], 1),
            left_hand_box=_in_patch(left_box),
            right_hand_box=_in_patch(right_box),
            face_box=_in_patch(face_box),
        )


def _in_patch(boxes: Tensor) -> Tensor:
    """Pixels of ``BODY_INPUT`` -> of the patch, whose proportions are the same."""
    return boxes * (PATCH[0] / BODY_INPUT[0])


def _in_body(places: Tensor, boxes: Tensor) -> Tensor:
    """(N, 20, 3) cells of a hand's heat map -> x and y in cells of the body's; depth stays, it is relative to the wrist."""
    cells = torch.tensor([BODY_MAP[2] / BODY_INPUT[1], BODY_MAP[1] / BODY_INPUT[0]], dtype=places.dtype)
    low, extent = boxes[:, None, :2] * cells, (boxes[:, None, 2:] - boxes[:, None, :2]) * cells
    flat = places[..., :2] * extent / torch.tensor([HAND_MAP[2], HAND_MAP[1]], dtype=places.dtype) + low
    return torch.cat([flat, places[..., 2:]], -1)


def _depth(raw: Tensor) -> Tensor:
    """Metres from the virtual camera: at most where a body of ``_CUBE`` fills the input."""
    return math.sqrt(_FOCAL**2 * _CUBE**2 / (BODY_INPUT[0] * BODY_INPUT[1])) * raw.sigmoid()
