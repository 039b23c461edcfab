"""Denoising spread over actors gives what one process gives, also when one of them dies."""

import os
import signal

import numpy as np
import pytest
import torch

from svad_ray.nets.musepose.load import load_networks
from svad_ray.nets.musepose.sample import HerePredict, SamplerOptions, denoise, prepare
from svad_ray.nets.musepose.tiny import write_tiny

OPTIONS = SamplerOptions(steps=3, window=4, overlap=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def networks(folder):
    """In as many threads as a worker has: with other numbers rounding differs, and sampling doubles it with every step."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield load_networks(folder)
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def spread(ray_cluster, folder):
    from svad_ray.cluster.diffusion import SpreadPredict

    predict = SpreadPredict(str(folder), workers=2, cpus=0.5)
    yield predict
    predict.close()


def conditions(networks, seed):
    random = np.random.default_rng(seed)
    image, poses = random.integers(0, 255, (80, 60, 3), np.uint8), random.integers(0, 255, (8, 64, 64, 3), np.uint8)
    return prepare(networks, image, poses, width=64, height=64, options=OPTIONS)


class Once:
    """Does something to the workers before the step ``at``."""

    def __init__(self, predict, at, what):
        self.predict, self.at, self.what, self.step = predict, at, what, 0

    def __call__(self, *args):
        if self.step == self.at:
            self.what(self.predict)
        self.step += 1
        return self.predict(*args)


def kill_one(predict):
    import ray

    pid = ray.get(predict.workers[0].__ray_call__.remote(lambda self: os.getpid()))
    os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
def test_windows_and_halves_on_two_workers_equal_one_process(networks, spread):
    for seed in (1, 2):  # a second run takes the place of the first
        given = conditions(networks, seed)
        alone = denoise(HerePredict(networks), given, OPTIONS)
        torch.testing.assert_close(denoise(spread, given, OPTIONS), alone, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_a_worker_that_dies_between_steps_costs_nothing(networks, spread):
    given = conditions(networks, 3)
    alone = denoise(HerePredict(networks), given, OPTIONS)
    torch.testing.assert_close(denoise(Once(spread, 1, kill_one), given, OPTIONS), alone, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_a_fault_of_the_input_is_said_and_not_tried_again(networks, spread):
    given = conditions(networks, 4)
    with pytest.raises(Exception, match=r"shape|size"):
        spread(torch.zeros(1, 7, 4, 8, 8), 999, given, [[0, 1, 2, 3]])
