"""Commands of the command line that need more than one screenful; ``svad_ray.cli`` registers them."""
