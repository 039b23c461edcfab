"""Hand4Whole: a person in, the pose, hands, jaw and shape of SMPL-X out. It gives the paper's fit its first poses (paper section 3.3)."""

from svad_ray.nets.hand4whole.crop import crop_people, person_box
from svad_ray.nets.hand4whole.load import FILE, LICENCE, SOURCE, load_hand4whole
from svad_ray.nets.hand4whole.network import Hand4Whole, WholeBody

__all__ = ["FILE", "LICENCE", "SOURCE", "Hand4Whole", "WholeBody", "crop_people", "load_hand4whole", "person_box"]
