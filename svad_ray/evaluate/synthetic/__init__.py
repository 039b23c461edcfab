"""Synthetic dressed people with exact ground truth: a seeded generator, a z-buffer renderer and the scoring protocol.

In: a :class:`Person` specification. Out: a :class:`Character` that can be posed, and :class:`View` pictures of it with mask, depth, camera and
joints. Everything is made on the CPU from MakeHuman's CC0 base mesh; nothing here is a photo.

What it is not. The characters share base mesh, rig and skinning weights with the open body that svad-ray fits, so part of the error of
fitting and skinning cannot show: scores **flatter** the embedded profile and are comparable with themselves only, not with scores on scans of
real people. Clothes are draped offsets of the body and hair is a shell: easier than cloth and strands. The light is soft and fixed to the
camera, backgrounds are plain, hands are relaxed and open, and nobody holds anything or crosses their arms.
"""

from svad_ray.evaluate.synthetic.build import build
from svad_ray.evaluate.synthetic.character import Character, Mesh
from svad_ray.evaluate.synthetic.demo import DemoPerson, demo_person
from svad_ray.evaluate.synthetic.people import PEOPLE, Bottom, HairStyle, Person, Top, random_person
from svad_ray.evaluate.synthetic.poses import A_POSE, ARMS_OUT, STEP, WALK
from svad_ray.evaluate.synthetic.protocol import VIEWS, JointError, ViewScore, evaluation_cameras, joint_error, score_views
from svad_ray.evaluate.synthetic.render import View, render

__all__ = [
    "ARMS_OUT",
    "A_POSE",
    "PEOPLE",
    "STEP",
    "VIEWS",
    "WALK",
    "Bottom",
    "Character",
    "DemoPerson",
    "HairStyle",
    "JointError",
    "Mesh",
    "Person",
    "Top",
    "View",
    "ViewScore",
    "build",
    "demo_person",
    "evaluation_cameras",
    "joint_error",
    "random_person",
    "render",
    "score_views",
]
