"""svad-ray: one photo of a person to an animatable 3D Gaussian avatar."""

__version__ = "0.1.0"
