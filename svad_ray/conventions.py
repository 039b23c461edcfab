"""Every convention of the project and every conversion between conventions, in one place.

Images are uint8 ``H x W x 3`` RGB at every boundary and float32 [0, 1] inside. Metres, radians, pixels.
Pixel centres lie at half integers: the centre of the top left pixel is (0.5, 0.5), as in gsplat.
Cameras use OpenCV axes (x right, y down, z forward); ``viewmats`` map world to camera.
The body's own world has y up, x to the person's left and z forward (SMPL-X). ``quats`` are wxyz.
"""

from __future__ import annotations

import numpy as np

# Body world (y up, z towards a viewer who faces the person) to OpenCV camera axes: a half turn about x.
BODY_TO_CAMERA = np.diag([1.0, -1.0, -1.0, 1.0]).astype(np.float32)

# COCO-WholeBody: 17 body, 6 feet, 68 face, 21 + 21 hands.
WHOLEBODY_KEYPOINTS = 133
WHOLEBODY_BODY = slice(0, 17)
WHOLEBODY_FEET = slice(17, 23)
WHOLEBODY_FACE = slice(23, 91)
WHOLEBODY_LEFT_HAND = slice(91, 112)
WHOLEBODY_RIGHT_HAND = slice(112, 133)


def to_float(image: np.ndarray) -> np.ndarray:
    """uint8 image(s) [0, 255] to float32 [0, 1]."""
    return image.astype(np.float32) * np.float32(1 / 255)


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Float image(s) [0, 1] to uint8 with rounding; values outside are clipped."""
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
