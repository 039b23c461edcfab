"""A frame of a motion as an ordinary Gaussian splat file, for any splat viewer.

python examples/03_posed_ply.py out/example/avatar walking.ply
"""

import sys

from svad_ray.export.ply import read_ply, write_ply
from svad_ray.motion import walk
from svad_ray.store import load_avatar

write_ply(load_avatar(sys.argv[1]), sys.argv[2], pose=walk(), frame=7, sh_degree=3)
splats = read_ply(sys.argv[2])
low, high = splats["means"].min(0), splats["means"].max(0)
print(f"wrote {sys.argv[2]}: {len(splats['means'])} Gaussians, {high[1] - low[1]:.2f} m high")
