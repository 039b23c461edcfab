import numpy as np
import pytest

from svad_ray.body.names import JOINT_INDEX as J
from svad_ray.evaluate.synthetic import build, random_person
from svad_ray.evaluate.synthetic.gaits import balanced, centre_of_mass, grounded, random_moment
from svad_ray.evaluate.synthetic.poses import joint_transforms, move_joints, skin


@pytest.fixture(scope="module")
def character():
    return build(random_person(3))


def soles(character, pose):
    """Lowest points of left and right shoe, of all vertices."""
    (shoes,) = (mesh for mesh in character.meshes if mesh.name == "shoes")
    y = skin(shoes.vertices, shoes.lbs_weights, joint_transforms(pose, character.joints))[:, 1]
    return y[shoes.vertices[:, 0] > 0].min(), y[shoes.vertices[:, 0] < 0].min()


STEP = {"pelvis": (0.0, 0.0, 0.0), "left_hip": (-0.3, 0.0, 0.0), "right_hip": (0.2, 0.0, 0.0), "left_knee": (0.05, 0.0, 0.0)}
STEP |= {"right_knee": (0.2, 0.0, 0.0), "left_ankle": (0.1, 0.0, 0.0), "right_ankle": (0.0, 0.0, 0.0), "spine2": (0.9, 0.0, 0.0)}


def test_balance_puts_the_mass_over_the_feet_as_it_is_at_rest(character):
    def off(pose):
        joints = move_joints(character.joints, joint_transforms(pose, character.joints))
        return centre_of_mass(joints)[2] - (0.6 * joints[J["left_ankle"], 2] + 0.4 * joints[J["right_ankle"], 2])

    goal = off({})
    assert abs(off(STEP) - goal) > 0.03
    assert abs(off(balanced(STEP, character, {"left": 0.6, "right": 0.4})) - goal) < 0.01
    assert abs(off(balanced(STEP, character, {"left": 0.6, "right": 0.4}, off=0.04)) - goal - 0.04) < 0.01


def test_mass_is_a_mean_of_the_joints():
    joints = np.tile([1.0, 2.0, 3.0], (55, 1))
    assert np.allclose(centre_of_mass(joints), [1, 2, 3])


def test_both_feet_come_to_one_ground(character):
    left, right = soles(character, STEP)
    assert abs(left - right) > 0.02
    left, right = soles(character, grounded(STEP, character, "right"))
    assert abs(left - right) < 0.01


def test_steps_go_both_ways_and_are_long_and_short_and_standing_people_make_none(character):
    rng = np.random.default_rng(0)

    def step(kind):
        pose, _ = random_moment(rng, character, kind)
        joints = move_joints(character.joints, joint_transforms(pose, character.joints))
        return joints[J["left_ankle"], 2] - joints[J["right_ankle"], 2]

    walks, stands = np.array([step("gait") for _ in range(12)]), np.array([step("stand") for _ in range(6)])
    assert walks.min() < -0.15 and walks.max() > 0.15 and np.abs(walks).min() < 0.2
    assert np.abs(stands).max() < 0.15


def test_the_same_seed_catches_the_same_moment(character):
    one, other = (random_moment(np.random.default_rng(5), character, "gesture") for _ in range(2))
    assert one == other and one != random_moment(np.random.default_rng(6), character, "gesture")
