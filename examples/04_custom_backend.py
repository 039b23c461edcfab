"""A backend of one's own: frames sharpened without any network, chosen like every other, with its terms in the avatar's provenance.

python examples/04_custom_backend.py [OUT]      about a minute on two cores: a small avatar of the demo's person
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from svad_ray.backends import Backend, register
from svad_ray.config import RestoreConfig, load_settings
from svad_ray.deliver import deliver
from svad_ray.evaluate.synthetic.demo import demo_person


class Unsharp:
    """The restore stage: what it is called with and gives back is in svad_ray/stages/base.py."""

    version = 1
    backend = Backend(
        name="unsharp",
        stage="restore",
        summary="unsharp masking of whole frames",
        code_licence="Apache-2.0",
        weights_licence="none needed",
        commercial=True,
        commercial_reason="no weights at all",
        batch=16,
    )

    def __init__(self, config=None):
        self.config = config or RestoreConfig()

    def setup(self):
        """Nothing to load."""

    def plan(self, track):
        """Nothing to plan."""
        return ()

    def __call__(self, shard, plan=None):
        """Frames minus half of their own blur."""
        blurred = np.stack([cv2.GaussianBlur(frame, (0, 0), 2.0) for frame in shard.frames]).astype(np.float32)
        sharp = 1.5 * shard.frames - 0.5 * blurred
        return replace(shard, frames=sharp.round().clip(0, 255).astype(np.uint8))


if __name__ == "__main__":
    register("restore", "unsharp", f"{__name__}:Unsharp")
    small = ["animate.frames=24", "animate.size=256", "avatar.gaussians=8000", "avatar.iterations=60"]
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "out/unsharp")
    delivery = deliver(demo_person().photo, out, load_settings(sets=["restore.backend=unsharp", *small]), consent="nobody's likeness")
    print(json.dumps(delivery.avatar.facts["provenance"]["stages"]["restore"], indent=1))
    print(f"open {out / 'report.html'}")
