"""Image measures: PSNR, SSIM, the overlap of silhouettes, and the flicker of a sequence.

Images are (H, W, 3) or (H, W) float in [0, 1]; larger is better for all but the flicker.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import correlate1d

from svad_ray.errors import InputError

SSIM_SIGMA = 1.5
SSIM_RADIUS = 5  # an 11 x 11 window
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB over all values; inf for equal images.

    Raises:
        InputError: The images differ in size.
    """
    a, b = _pair(a, b)
    mse = float(np.mean((a - b) ** 2))
    return float("inf") if mse == 0 else -10 * float(np.log10(mse))


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Structural similarity, mean over the pixels whose window lies inside the image, and over channels.

    Gaussian window 11 x 11, sigma 1.5, data range 1, population covariance: Wang's original, scikit-image's with ``gaussian_weights=True,
    use_sample_covariance=False``, and torchmetrics' map inside its border of five pixels, of which its early versions took the mean, as the
    published protocols did; torchmetrics 1.9 counts the border too, padded by reflection.

    Raises:
        InputError: The images differ in size or are smaller than the window.

    Source: Wang et al., "Image quality assessment" (2004), eq. 13.
    """
    a, b = _pair(a, b)
    if min(a.shape[:2]) <= 2 * SSIM_RADIUS:
        raise InputError(f"The images have {a.shape[1]} x {a.shape[0]} pixels.", expected="at least 11 x 11 for SSIM")
    mean_a, mean_b = _blur(a), _blur(b)
    var_a, var_b = _blur(a * a) - mean_a**2, _blur(b * b) - mean_b**2
    covariance = _blur(a * b) - mean_a * mean_b
    top = (2 * mean_a * mean_b + SSIM_C1) * (2 * covariance + SSIM_C2)
    bottom = (mean_a**2 + mean_b**2 + SSIM_C1) * (var_a + var_b + SSIM_C2)
    r = SSIM_RADIUS
    return float(np.mean((top / bottom)[r:-r, r:-r]))


def silhouette_iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two masks (H, W), bool or values above one half; 1 for two empty masks."""
    a, b = _binary(a), _binary(b)
    if a.shape != b.shape:
        raise InputError(f"The masks have the shapes {a.shape} and {b.shape}.", expected="two masks of one size")
    union = int(np.sum(a | b))
    return 1.0 if union == 0 else int(np.sum(a & b)) / union


def temporal_flicker(frames: np.ndarray, truth: np.ndarray) -> float:
    """How differently two sequences change from frame to frame: mean absolute difference of their differences, in shares of the range; 0 is best.

    A steady error (a wrong colour, a shape that is always a little off) does not count; what trembles or pops does.

    Args:
        frames, truth: (T, H, W, 3) float in [0, 1], consecutive frames, T of 2 or more.

    Raises:
        InputError: The sequences differ in size or have one frame. Source: ours.
    """
    frames, truth = _pair(frames, truth)
    if len(frames) < 2:
        raise InputError("The sequence has one frame.", expected="two or more for the flicker")
    return float(np.mean(np.abs(np.diff(frames, axis=0) - np.diff(truth, axis=0))))


def _binary(mask: np.ndarray) -> np.ndarray:
    if mask.dtype == bool:
        return mask
    return mask > (127 if mask.dtype == np.uint8 else 0.5)


def _pair(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if a.shape != b.shape:
        raise InputError(f"The images have the shapes {a.shape} and {b.shape}.", expected="two images of one size")
    if a.dtype.kind != "f" or b.dtype.kind != "f":
        raise InputError(f"The images are {a.dtype} and {b.dtype}.", expected="float images in [0, 1]", remedy="svad_ray.conventions.to_float")
    return a.astype(np.float64), b.astype(np.float64)


def _blur(image: np.ndarray) -> np.ndarray:
    x = np.arange(-SSIM_RADIUS, SSIM_RADIUS + 1)
    window = np.exp(-(x**2) / (2 * SSIM_SIGMA**2))
    window /= window.sum()
    return correlate1d(correlate1d(image, window, axis=0), window, axis=1)
