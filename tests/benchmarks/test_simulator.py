"""The simulator against queueing theory, closed forms of small schedules, and conservation of work."""

import math
from itertools import permutations

import numpy as np
import pytest

from benchmarks.simulator import (
    HOUR_S,
    PAPER,
    POLICIES,
    Kind,
    Plant,
    Policy,
    Simulation,
    Stage,
    Subject,
    best_list,
    front_count,
    pooled,
    shortest_possible,
    simulate,
    study,
    subjects_of,
    table,
)

ONE = Policy("one kind", lambda gpus: [Kind((0,))] * gpus, long_first=False)


def queue(servers: int, load: float, services: np.ndarray, *, seed: int) -> np.ndarray:
    """Waiting times of Poisson arrivals that find ``servers`` of mean service time 1 at the given load each."""
    rng = np.random.default_rng(seed)
    arrivals = np.cumsum(rng.exponential(1 / (load * servers), len(services)))
    plant = Plant(1, servers, (Stage("only", 1.0),), dispatch_s=0.0)
    outcome = Simulation(plant, ONE, [Subject((float(s),), float(a)) for s, a in zip(services, arrivals)]).run()
    return np.asarray(outcome.waits[0][len(services) // 20 :])


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_one_server_with_exponential_services_waits_as_the_closed_form_says(load):
    waits = [queue(1, load, np.random.default_rng(100 + i).exponential(1.0, 20_000), seed=i).mean() for i in range(4)]
    assert np.mean(waits) == pytest.approx(load / (1 - load), rel=0.08)  # M/M/1: rho / (mu - lambda)


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_one_server_with_constant_services_waits_half_as_long(load):
    waits = [queue(1, load, np.ones(20_000), seed=i).mean() for i in range(4)]
    assert np.mean(waits) == pytest.approx(load / (2 * (1 - load)), rel=0.06)  # Pollaczek-Khinchine without variance


def test_several_servers_wait_as_erlang_c_says():
    servers, load = 8, 0.8
    offered = servers * load
    last = offered**servers / math.factorial(servers) / (1 - load)
    waiting = last / (sum(offered**k / math.factorial(k) for k in range(servers)) + last)
    waits = np.concatenate([queue(servers, load, np.random.default_rng(50 + i).exponential(1.0, 30_000), seed=i) for i in range(4)])
    assert (waits > 0).mean() == pytest.approx(waiting, rel=0.06)
    assert waits.mean() == pytest.approx(waiting / (servers * (1 - load)), rel=0.12)


def test_a_batch_of_equal_calls_takes_as_many_rounds_as_it_needs():
    plant = Plant(2, 4, (Stage("only", 10.0, load_s=3.0),), dispatch_s=0.5)
    outcome = Simulation(plant, ONE, [Subject((10.0,))] * 21).run()
    assert outcome.makespan == pytest.approx(3.0 + 3 * 10.5)  # 21 calls on 8 GPUs: three rounds, the model loaded once
    assert (outcome.useful, outcome.loading, outcome.dispatching) == pytest.approx((210.0, 24.0, 10.5))


def test_blocks_flow_on_one_by_one_and_the_next_whole_stage_waits_for_the_last():
    stages = (Stage("first", 4.0), Stage("a", 8.0, blocks=4), Stage("b", 4.0, blocks=4), Stage("last", 5.0))
    policy = Policy("each its own", lambda gpus: [Kind((0,)), Kind((1,)), Kind((2,)), Kind((3,))])
    outcome = Simulation(Plant(1, 4, stages, dispatch_s=0.0), policy, [Subject((4.0, 8.0, 4.0, 5.0))]).run()
    assert outcome.makespan == pytest.approx(4 + 8 + 1 + 5)  # b trails a by one block


def test_long_work_first_is_the_four_thirds_rule_on_grahams_example():
    """Graham 1969: on m = 3 machines, times 5 5 4 4 3 3 3 take 11 by longest first and 9 at best."""
    times = (5.0, 5.0, 4.0, 4.0, 3.0, 3.0, 3.0)
    plant = Plant(1, 3, (Stage("only", 1.0),), dispatch_s=0.0)
    longest = Policy("", lambda gpus: [Kind((0,))] * gpus)
    assert Simulation(plant, longest, [Subject((t,)) for t in times]).run().makespan == pytest.approx(11.0)
    assert shortest_possible(plant, [Subject((t,)) for t in times]) == pytest.approx(9.0)


def test_the_bound_is_never_above_the_best_of_all_orders():
    """Every order of up to six calls on two and three GPUs, exhaustively: the optimum of one stage is the best list schedule over all orders."""
    rng = np.random.default_rng(3)
    for _ in range(12):
        times, gpus = rng.integers(1, 20, rng.integers(2, 7)).astype(float), int(rng.integers(2, 4))

        def makespan(order: tuple[float, ...], gpus: int = gpus) -> float:
            ends = [0.0] * gpus
            for t in order:
                ends[ends.index(min(ends))] += t
            return max(ends)

        plant = Plant(1, gpus, (Stage("only", 1.0),), dispatch_s=0.0)
        people = [Subject((float(t),)) for t in times]
        optimum = min(makespan(order) for order in permutations(times))
        assert shortest_possible(plant, people) <= optimum + 1e-9 <= best_list(plant, people) + 2e-9


@pytest.mark.parametrize("mtbf_h", [0.0, 30.0])
@pytest.mark.parametrize("policy", POLICIES, ids=lambda p: p.name)
def test_no_work_is_lost_or_invented_and_all_gpu_time_is_accounted_for(policy, mtbf_h):
    plant = Plant(2, mtbf_h=mtbf_h)
    people = subjects_of(plant, 4, seed=1)
    outcome = simulate(plant, policy, people, seed=2)
    assert outcome.finished == len(people)
    assert outcome.useful == pytest.approx(sum(p.total for p in people), rel=1e-9)
    assert 0 <= outcome.idle < outcome.unproductive < 1
    assert outcome.makespan >= shortest_possible(plant, people)
    assert (outcome.redone > 0) == (outcome.down > 0) == (mtbf_h > 0)


def test_a_failure_costs_half_a_checkpoint_interval_on_average():
    stage = Stage("avatar", 100 * HOUR_S, checkpointed=True)
    plant = Plant(1, 1, (stage,), dispatch_s=0.0, checkpoint_s=600.0, mtbf_h=5.0, detect_s=10.0, repair_s=60.0)
    redone, failures = 0.0, 0.0
    for seed in range(40):
        outcome = Simulation(plant, ONE, [Subject((stage.mean_s,))], seed=seed).run()
        redone, failures = redone + outcome.redone, failures + outcome.down / 60.0
    assert failures > 500
    assert redone / failures == pytest.approx(300.0, rel=0.08)


def test_failures_arrive_as_often_as_the_mean_says():
    stage = Stage("avatar", 1000 * HOUR_S, checkpointed=True)
    plant = Plant(20, 1, (stage,), mtbf_h=50.0, repair_s=1.0, detect_s=1.0, checkpoint_s=1.0)
    outcome = Simulation(plant, ONE, [Subject((stage.mean_s,))] * 20, seed=5).run()
    expected = outcome.makespan / HOUR_S / 50.0 * 20
    assert outcome.down == pytest.approx(expected, abs=4 * math.sqrt(expected))


def test_frame_gpus_turn_to_training_when_the_pools_run_dry():
    people = subjects_of(Plant(1), 4, seed=0)
    outcome = simulate(Plant(1), Policy("", pooled, keeps=frozenset({3})), people)
    stuck = Policy("", lambda gpus: [Kind((2, 1, 0))] + [Kind((4, 3))] * (gpus - 1), keeps=frozenset({3}))
    assert outcome.makespan < simulate(Plant(1), stuck, people).makespan


def test_the_papers_times_are_those_that_it_prints():
    assert [round(stage.mean_s / 60, 2) for stage in PAPER] == [18.33, 3.02, 11.00, 60.55, 273.23]
    assert front_count(8) == 1 and front_count(512) == 46 and front_count(1) == 1


def test_the_bulk_runs_policy_is_within_five_points_of_what_no_schedule_can_beat():
    line = study(2, per_gpu=20, seeds=2)
    assert line.policies[POLICIES[0].name].mean - line.bound.mean < 5
    assert line.bound.mean <= line.reached.mean
    assert table([line]).count("\n") == 2
