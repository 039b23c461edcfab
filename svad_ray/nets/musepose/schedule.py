"""Noise schedule and context windows.

Source: MusePose's inference configuration and its uniform context scheduler with stride 1, open ends (spec: generation 3, "Sampler").
"""

from __future__ import annotations

from diffusers import DDIMScheduler

from svad_ray.errors import ConfigError


def ddim(steps: int) -> DDIMScheduler:
    """DDIM with v-prediction, zero terminal signal-to-noise ratio and trailing steps, set to ``steps`` steps."""
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        steps_offset=1,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
    )
    scheduler.set_timesteps(steps)
    return scheduler


def padded_length(frames: int, *, size: int = 48, overlap: int = 4) -> int:
    """Frames after the last pose was repeated until the windows tile them."""
    _check(frames, size, overlap)
    step = size - overlap
    return frames + (step - (frames - size) % step) % step


def windows(frames: int, *, size: int = 48, overlap: int = 4, shorten: bool = False) -> list[list[int]]:
    """Frame numbers of every window of one denoising step.

    Args:
        frames: Frames that there are (padded, unless ``shorten``).
        size, overlap: Of a window with the next, frames.
        shorten: The last window ends with the last frame; else it goes on at the first one, as in the original.
    """
    _check(frames, size, overlap)
    if frames <= size:
        return [list(range(frames))]
    starts = range(0, frames - overlap, size - overlap)
    if shorten:
        return [list(range(start, min(start + size, frames))) for start in starts]
    return [[i % frames for i in range(start, start + size)] for start in starts]


def _check(frames: int, size: int, overlap: int) -> None:
    if frames < 1:
        raise ConfigError("the pose sequence has no frames", expected="at least one frame", remedy="choose another motion")
    if not 0 <= overlap < size:
        raise ConfigError(f"windows of {size} frames cannot overlap by {overlap}", expected="0 <= overlap < window")
