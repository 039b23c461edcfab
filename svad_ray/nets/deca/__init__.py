"""DECA's coarse encoder: a face in, the shape, expression and pose of FLAME out. It gives the paper's fit its first head (paper section 3.3)."""

from svad_ray.nets.deca.crop import crop_faces, face_square
from svad_ray.nets.deca.landmarks import deca_landmarks, project
from svad_ray.nets.deca.network import FILE, LICENCE, SOURCE, DecaCode, DecaEncoder, load_deca, split_code

__all__ = [
    "FILE",
    "LICENCE",
    "SOURCE",
    "DecaCode",
    "DecaEncoder",
    "crop_faces",
    "deca_landmarks",
    "face_square",
    "load_deca",
    "project",
    "split_code",
]
