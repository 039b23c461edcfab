"""Differentiable 3D Gaussian rasterisation: gsplat's `rasterization`, with kernels of our own on the CPU.

In: Gaussians and cameras. Out: images, alphas and what the projection found. Compiled kernels are cached on disk.
"""

from svad_ray.splat.api import rasterization
from svad_ray.splat.threads import get_threads, set_threads

__all__ = ["get_threads", "rasterization", "set_threads"]
