"""Rotations, cameras, meshes and the triangle z-buffer: pure arrays, no model and no stage."""
