"""How much memory a run takes, before it starts.

Parameters are counted exactly. Activations are those alive at the widest moment of the denoising network: a feed-forward layer at full latent
resolution while the skip connections wait, for one half of guidance, plus the keys and values of the reference repeated over the frames.
"""

from __future__ import annotations

from svad_ray.nets.musepose.networks import DOWN

PARAMETERS = {"denoiser": 1_312_730_244, "reference": 859_508_800, "guider": 1_086_480, "image_encoder": 303_966_208, "vae": 83_653_863}
BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
_WIDTH = 320  # channels at full latent resolution
_FEED_FORWARD = 2 * 4 + 4 + 3  # gate and value, their product, and input, norm and residual, in widths
_SKIPS = 4 + 3 * 2 / 4 + 3 * 4 / 16 + 2 * 4 / 64  # the twelve skip connections, in widths
_GIB = 2**30


def estimate(width: int, height: int, window: int, dtype: str) -> dict[str, float]:
    """GiB by part, and their "total".

    Args:
        width, height: Of the frames, pixels. window: Frames of one window. dtype: "float32", "float16" or "bfloat16".
    """
    size = BYTES[dtype]
    tokens = (width // DOWN) * (height // DOWN)
    parts = {name: count * size / _GIB for name, count in PARAMETERS.items()}
    parts["activations"] = window * tokens * _WIDTH * (_FEED_FORWARD + _SKIPS) * size / _GIB
    parts["reference keys and values"] = 2 * 2 * window * tokens * _WIDTH * size / _GIB
    parts["total"] = sum(parts.values())
    return parts
