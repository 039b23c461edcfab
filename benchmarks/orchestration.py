"""What orchestration costs: per frame, per Serve call, after a lost node; and how long GPUs stand idle. Prints a Markdown table.

    flock /tmp/heavy.lock python benchmarks/orchestration.py [--only frames serve loss loss-default idle] [--plot idle.png] [--quick]

Each section is a process with a Ray of its own on the loopback interface. Times of one section come from one run, alternating between the things that
are compared; on a busy machine trust the ratios. Stages are scripted (``orchestration_kit``): what is measured is everything round them.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import pickle
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = str(Path(__file__).parents[1])
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)

import numpy as np  # noqa: E402

from benchmarks import orchestration_kit as kit  # noqa: E402

Row = tuple[str, str, str]  # what, measured, target
TRIES = 2  # Ray gives up when it has not started within 30 s, which a busy machine may need
FAST_CHECKS = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 3,
}


def environment() -> dict[str, str]:
    """Of every process here: no telemetry, no token for a Ray that lives for seconds on the loopback interface, modules that workers find."""
    path = os.pathsep.join([ROOT, os.environ.get("PYTHONPATH", "")])
    fair = {"RAY_worker_niceness": "0"}  # Ray's workers stand back behind other programs otherwise, and those would be measured
    return {**os.environ, **fair, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1", "PYTHONPATH": path}


@contextmanager
def local_ray(**options: Any) -> Iterator[None]:
    """A Ray of six logical cores."""
    from svad_ray.cluster.session import session

    with session("local", **{"num_cpus": 6, "object_store_memory": 1 << 30, **options}):
        yield


# frames --------------------------------------------------------------------------------------------------------------------------------------------


def frames(quick: bool) -> list[Row]:
    """Milliseconds per frame of two frame steps: a loop, actors, the bulk run's rows without and with the store."""
    blocks, repeats = (12, 1) if quick else (32, 3)
    found: dict[str, list[float]] = {"loop": [], "actors": [], "rows": [], "loop with store": [], "bulk": []}
    with local_ray():
        actors = started_actors()
        rows_ms(4)
        for _ in range(repeats):
            found["loop"].append(loop_ms(blocks))
            found["actors"].append(actors_ms(actors, blocks))
            found["rows"].append(rows_ms(blocks))
            with tempfile.TemporaryDirectory(prefix="svad-bench-") as folder:
                found["loop with store"].append(stored_loop_ms(f"{folder}/loop", blocks))
                found["bulk"].append(bulk_ms(f"{folder}/bulk", blocks))
    ms = {name: statistics.median(values) for name, values in found.items()}
    spread = {name: f"{ms[name]:.2f} ({min(values):.2f} to {max(values):.2f})" for name, values in found.items()}
    stored = f"{spread['bulk']} against {spread['loop with store']} in a loop: ratio {ms['bulk'] / ms['loop with store']:.2f}"
    return [
        ("1 MB frame through two steps in a plain loop, ms", spread["loop"], "-"),
        ("... in plain actors started before, ms", spread["actors"], "-"),
        ("... in the bulk run's rows (Ray Data), ms", f"{spread['rows']}: {ms['rows'] - ms['loop']:.2f} more than the loop", "<= 5 more"),
        ("... in the bulk run itself, each block committed twice to the store, ms", stored, "-"),
    ]


def loop_ms(blocks: int) -> float:
    """Two stages, called."""
    first, second = ready("identity"), ready("restore")
    began = time.perf_counter()
    for _ in range(blocks):
        second(first(kit.clip(), None), ())
    return (time.perf_counter() - began) / (blocks * kit.BLOCK) * 1e3


def ready(stage: str) -> Any:
    """The scripted stage, set up."""
    made = kit.KIT.stages(kit.request("any", count=kit.BLOCK).settings)
    chosen = getattr(made, stage)
    chosen.setup()
    return chosen


class Held:
    """An actor with a stage; "" makes the clips."""

    def __init__(self, stage: str) -> None:
        self.stage = ready(stage) if stage else None

    def call(self, clip: Any = None) -> Any:
        if self.stage is None:
            return kit.clip()
        return self.stage(clip, ())

    def last(self, clip: Any) -> int:
        return int(self.stage(clip, ()).frames[0, 0, 0, 0]) if self.stage else 0


def started_actors() -> list[Any]:
    """One actor for making clips and one for each step, warm."""
    import ray

    actors: list[Any] = [ray.remote(Held).options(num_cpus=0.5).remote(stage) for stage in ("", "identity", "restore")]
    ray.get(actors[2].last.remote(actors[1].call.remote(actors[0].call.remote())))
    return actors


def actors_ms(actors: list[Any], blocks: int) -> float:
    """The same with the clips handed from actor to actor, four on their way."""
    import ray

    making, first, second = actors
    began, waiting = time.perf_counter(), []
    for _ in range(blocks):
        waiting.append(second.last.remote(first.call.remote(making.call.remote())))
        if len(waiting) == 4:
            ray.get(waiting.pop(0))
    ray.get(waiting)
    return (time.perf_counter() - began) / (blocks * kit.BLOCK) * 1e3


class Making:
    """Rows as ``cluster.workers`` makes them: one block of frames each, pickled."""

    def __call__(self, batch: dict[str, Any]) -> Iterator[dict[str, list[Any]]]:
        for i in batch["id"]:
            yield {"message": [json.dumps({"block": int(i)})], "pixels": [pickle.dumps(kit.clip(), protocol=5)]}


class Working:
    """A frame step on such rows; the last one passes no pixels on."""

    def __init__(self, stage: str) -> None:
        self.stage, self.last = ready(stage), stage == "restore"

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        clips = [self.stage(pickle.loads(pixels), ()) for pixels in batch["pixels"]]
        times = [time.time()] * len(clips)
        return {"message": list(batch["message"]), "pixels": [b"" if self.last else pickle.dumps(c, protocol=5) for c in clips], "time": times}


def rows_ms(blocks: int) -> float:
    """The same through Ray Data as the bulk run uses it, from the first quarter to the last block: pools that are started cost seconds, once."""
    import ray.data

    ray.data.DataContext.get_current().target_max_block_size = 1
    pool: dict[str, Any] = {"compute": ray.data.ActorPoolStrategy(size=1, max_tasks_in_flight_per_actor=2), "num_cpus": 0.5, "batch_size": 1}
    made: Any = ray.data.from_items([{"id": i} for i in range(blocks)], override_num_blocks=blocks).map_batches(Making, **pool)
    for stage in ("identity", "restore"):
        made = made.map_batches(Working, fn_constructor_args=(stage,), **pool)
    times = sorted(t for batch in made.iter_batches(batch_size=None, prefetch_batches=0) for t in batch["time"])
    if len(times) != blocks:
        raise RuntimeError(f"{len(times)} of {blocks} blocks came out")
    return steady_ms(times)


def steady_ms(times: list[float]) -> float:
    """Milliseconds per frame after the first quarter of the blocks."""
    start = len(times) // 4
    return (times[-1] - times[start]) / ((len(times) - 1 - start) * kit.BLOCK) * 1e3


def people(blocks: int) -> list[Any]:
    """Requests of four blocks each."""
    return [kit.request(f"person {i}", count=4 * kit.BLOCK) for i in range(blocks // 4)]


def stored_loop_ms(out: str, blocks: int) -> float:
    """Everything of the subjects in this process, one after the other."""
    from svad_ray.fulfil import fulfil

    began = time.perf_counter()
    for request in people(blocks):
        fulfil(request, out, kit=kit.KIT)
    return (time.perf_counter() - began) / (blocks * kit.BLOCK) * 1e3


def bulk_ms(out: str, blocks: int) -> float:
    """The bulk run on the same subjects, from the first finished subject to the last."""
    from svad_ray.cluster.bulk import run_bulk
    from svad_ray.cluster.config import load_cluster_config
    from svad_ray.store import ArtefactStore

    small = {"workers": 1, "cpus": 0.5}
    config = load_cluster_config(
        values={"generate": small, "fuse": small, "restore": small, "train": {"cpus": 0.5, "at_once": 2}, "kit": kit.KIT_PATH}
    )
    summary = run_bulk(people(blocks), out, config)
    if summary.committed != summary.total:
        raise RuntimeError(f"{summary.committed} of {summary.total} subjects were committed")
    store = ArtefactStore(f"{out}/subjects")
    times = sorted(Path(out, "subjects", str(key), "COMMITTED.json").stat().st_mtime for key in store.committed_keys())
    return (times[-1] - times[0]) / ((len(times) - 1) * 4 * kit.BLOCK) * 1e3


# serve ---------------------------------------------------------------------------------------------------------------------------------------------


class Resident:
    """The part of a resident frame deployment that carries frames."""

    async def frames(self, config: dict[str, Any], shard: Any, context: Any) -> Any:
        """As ``FramesResident``: the block, worked on."""
        return kit.Restore("restore", None, lambda what: None).worked(shard)

    async def count(self, shard: Any) -> int:
        """How many frames came."""
        return len(shard)


def serve(quick: bool) -> list[Row]:
    """Milliseconds per call of 8 frames, by value and by reference."""
    import ray
    from ray import serve as ray_serve

    from svad_ray.cluster.serve_calls import ResidentFrames

    calls = 15 if quick else 60
    shard = kit.clip(8)
    with local_ray():
        deployment = ray_serve.deployment(name="frames-restore", ray_actor_options={"num_cpus": 0.5}, max_ongoing_requests=4)(Resident)
        ray_serve.start(http_options={"host": "127.0.0.1", "port": 0, "location": "NoServer"}, logging_config={"enable_access_log": False})
        handle = ray_serve.run(deployment.bind(), name="bench", route_prefix=None)
        host, reference = ResidentFrames("bench"), ray.put(shard)
        ways: dict[str, Callable[[], Any]] = {
            "value": lambda: handle.count.remote(shard).result(),
            "reference": lambda: handle.count.remote(reference).result(),
            "put and reference": lambda: handle.count.remote(ray.put(shard)).result(),
            "host": lambda: host("restore", {}, shard, ()),
        }
        ms = alternate(ways, calls)
        ray_serve.shutdown()
    return [
        ("Serve call with 8 frames (8.4 MB) by value, ms", quartiles(ms["value"]), "-"),
        ("... by reference, put before, ms", quartiles(ms["reference"]), "<= 15"),
        ("... by reference, put included, ms", quartiles(ms["put and reference"]), "<= 15"),
        ("... as the workers call it, worked-on frames back, ms", quartiles(ms["host"]), "-"),
    ]


def alternate(ways: dict[str, Callable[[], Any]], calls: int) -> dict[str, list[float]]:
    """Milliseconds of every call, the ways taking turns; the first fifth is warming up."""
    ms: dict[str, list[float]] = {name: [] for name in ways}
    for i in range(calls + calls // 5):
        for name, call in ways.items():
            began = time.perf_counter()
            call()
            if i >= calls // 5:
                ms[name].append((time.perf_counter() - began) * 1e3)
    return ms


def quartiles(values: list[float]) -> str:
    low, middle, high = np.percentile(values, [25, 50, 75])
    return f"{middle:.1f} ({low:.1f} to {high:.1f})"


# loss of a node ------------------------------------------------------------------------------------------------------------------------------------

LOAD_S, CHECKPOINT_S = 2.0, 1.0


def loss(quick: bool, *, checks: dict[str, int] | None = None) -> list[Row]:
    """Seconds from the loss of the node that trains to the first step that had not been made before."""
    import ray
    from ray.cluster_utils import Cluster

    from svad_ray.cluster.session import quiet

    name = "short" if checks else "default"
    with tempfile.TemporaryDirectory(prefix="svad-bench-") as folder:
        log = Path(folder, "steps.log")
        os.environ.update({kit.LOG_VARIABLE: str(log), kit.LOAD_VARIABLE: str(LOAD_S), kit.STEPS_VARIABLE: "60"})
        cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 3, "object_store_memory": 200 << 20, "_system_config": checks or {}, "include_dashboard": False},
        )
        nodes = [cluster.add_node(num_cpus=1, num_gpus=1, object_store_memory=100 << 20) for _ in range(2)]
        cluster.wait_for_nodes()
        ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        quiet()
        seen: dict[str, Any] = {}
        killer = threading.Thread(target=lose_training_node, args=(cluster, nodes, log, seen), daemon=True)
        killer.start()
        committed = train_one(f"{folder}/out")
        killer.join(timeout=5)
        ray.shutdown()
        cluster.shutdown()
        steps = read_steps(log)
    before = max(step for _, step, node in steps if node == seen["node"])  # its workers outlive the node's manager by a moment
    elsewhere = [(when, step) for when, step, node in steps if node != seen["node"]]
    recovered = next(when for when, step in elsewhere if step > before)
    seconds, detected = recovered - seen["lost"], seen["detected"] - seen["lost"]
    redone = max(0, before + 1 - elsewhere[0][1]) * kit.STEP_S
    target = detected + LOAD_S + 60
    text = f"{seconds:.1f} (detection {detected:.1f}, model load {LOAD_S:.1f}, {redone:.1f} of training done again; committed: {committed})"
    return [(f"Node lost in training to the first new step, {name} health checks, s", text, f"<= {target:.1f}")]


def train_one(out: str) -> int:
    """The bulk run of one subject whose training needs a GPU; the pools stay on the head. Returns committed subjects."""
    from svad_ray.cluster.bulk import run_bulk
    from svad_ray.cluster.config import load_cluster_config

    small = {"workers": 1, "cpus": 0.3}
    train = {"cpus": 1, "gpus": 1, "checkpoint_s": CHECKPOINT_S}
    config = load_cluster_config(values={"generate": small, "fuse": small, "restore": small, "train": train, "kit": kit.KIT_PATH})
    return run_bulk([kit.request("person", count=kit.BLOCK)], out, config).committed


def lose_training_node(cluster: Any, nodes: list[Any], log: Path, seen: dict[str, Any]) -> None:
    """Wait for 25 steps, end the node that makes them without warning, and see when the cluster knows."""
    import ray

    while not log.exists() or len(read_steps(log)) < 25:
        time.sleep(0.05)
    seen["node"] = read_steps(log)[-1][2]
    doomed = next(node for node in nodes if node.node_id == seen["node"])
    seen["lost"] = time.time()
    cluster.remove_node(doomed, allow_graceful=False)
    while any(node["NodeID"] == seen["node"] and node["Alive"] for node in ray.nodes()):
        time.sleep(0.05)
    seen["detected"] = time.time()


def read_steps(log: Path) -> list[tuple[float, int, str]]:
    """(time, step, node) of every whole line."""
    lines = [line.split() for line in log.read_text(encoding="utf-8").splitlines()]
    return [(float(when), int(step), node) for when, step, node in (line for line in lines if len(line) == 3)]


# idle ----------------------------------------------------------------------------------------------------------------------------------------------


def idle(quick: bool) -> list[Row]:
    """The simulator's answer for one size of cluster; ``benchmarks/simulator.py`` has all of them."""
    from benchmarks import simulator

    rows = []
    for nodes in (1, 4) if quick else (1, 4, 16, 64):
        line = simulator.study(nodes, per_gpu=20, seeds=2 if quick else 3, policies=simulator.POLICIES[:1])
        ours = line.policies[simulator.POLICIES[0].name]
        text = f"{ours}; no schedule below {line.bound}, best list schedule {line.reached}"
        rows.append((f"GPU time that brings no subject forward, {nodes} nodes (simulated), %", text, f"<= {line.bound.mean + 5:.1f}"))
    return rows


SECTIONS: dict[str, Callable[[bool], list[Row]]] = {
    "frames": frames,
    "serve": serve,
    "loss": lambda quick: loss(quick, checks=FAST_CHECKS),
    "loss-default": loss,
    "idle": idle,
}


def machine() -> str:
    """What this ran on."""
    import ray

    models = [line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    load = os.getloadavg()[0]
    return f"{os.cpu_count()} cores ({models[0] if models else platform.machine()}), load {load:.1f} at the start, Ray {ray.__version__}"


def measured(name: str, quick: bool) -> list[Row]:
    """A section in a process of its own."""
    with tempfile.NamedTemporaryFile(suffix=".json") as answer:
        command = [sys.executable, __file__, "--section", name, "--answer", answer.name, *(["--quick"] if quick else [])]
        for _ in range(TRIES):
            done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=600)
            if not done.returncode:
                return [tuple(row) for row in json.loads(Path(answer.name).read_text())]
        raise RuntimeError(f"section {name} failed:\n{done.stderr[-3000:]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--plot", type=Path, help="draw the simulator's curves")
    parser.add_argument("--section", choices=list(SECTIONS), help=argparse.SUPPRESS)
    parser.add_argument("--answer", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.section:
        given.answer.write_text(json.dumps(SECTIONS[given.section](given.quick)))
        return
    print(f"{machine()}\n\n| | measured: median (range or quartiles) | target |\n| --- | --- | --- |")
    for name in given.only:
        for row in measured(name, given.quick):
            print("| " + " | ".join(row) + " |", flush=True)
    if given.plot:
        from benchmarks import simulator

        simulator.plot([simulator.study(nodes, per_gpu=20, seeds=2) for nodes in (1, 4, 16)], given.plot)


if __name__ == "__main__":
    main()
