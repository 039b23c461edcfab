"""``python -m svad_ray`` is ``svad-ray``."""

from svad_ray.cli import main

main()
