"""Many scripted subjects on a cluster of several nodes, while workers, nodes and the driver are killed at random, or stand still for seconds.

    python tests/cluster/chaos.py --subjects 1000 --kills 120

Prints what was killed and what was lost, and ends with status 1 unless every subject is committed exactly once with exactly the bytes that an
undisturbed run gives, every poison subject is quarantined, and nobody else is. A subject whose worker was killed by us is left alone on its second
try of the same step: two deaths of its worker are what quarantine is for, and no run could tell ours from its own doing.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PATHS = [str(HERE), str(HERE.parent), str(ROOT)]
sys.path[:0] = PATHS
os.environ.update(RAY_AUTH_MODE="disabled", RAY_USAGE_STATS_ENABLED="0", OMP_NUM_THREADS="1")
os.environ["PYTHONPATH"] = os.pathsep.join([*PATHS, os.environ.get("PYTHONPATH", "")])

import psutil  # noqa: E402
import scripted  # noqa: E402

QUICK_DEATH = {
    "health_check_initial_delay_ms": 2000,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 3,
}
PAUSE_S = 6.0
POISON_EVERY = 25
POISONS: list[dict[str, int]] = [{"restore": scripted.RAISE}, {"avatar": scripted.KILL}, {"animate": scripted.RAISE}, {"identity": scripted.KILL}]


def requests(count: int) -> list[Any]:
    """Every 25th subject is poison, in turn in another stage and another way; the others take a few milliseconds a step."""
    made = []
    for i in range(count):
        poison = i % POISON_EVERY == POISON_EVERY - 1
        seeds = POISONS[i // POISON_EVERY % len(POISONS)] if poison else {"restore": scripted.SLEEP + i % 50}
        made.append(scripted.request(f"{'poison' if poison else 'good'} {i}", **seeds))
    return made


def drive(address: str, out: str, count: int) -> None:
    """The driver process: one bulk run, its summary on the last line."""
    from test_bulk import config

    from svad_ray.cluster.bulk import run_bulk
    from svad_ray.cluster.session import session
    from svad_ray.cluster.view import View

    pools = {name: {"workers": 2, "cpus": 0.5, "timeout_s": 60} for name in ("generate", "fuse", "restore")}
    with session(address), open(f"{out}.jsonl", "a") as log, View(count, json_to=log) as view:
        summary = run_bulk(requests(count), out, config(**pools, train={"cpus": 0.5, "timeout_s": 60, "at_once": 4}), view=view)
    print(json.dumps({"complete": summary.complete, "committed": summary.committed, "quarantined": summary.quarantined}))


@dataclass
class Killer:
    """Kills what it finds, at random and by process id."""

    cluster: Any
    out: str
    rng: random.Random
    nodes: list[Any]
    node_options: dict[str, Any]
    done: Counter[str] = field(default_factory=Counter)

    def one(self, driver: subprocess.Popen[str]) -> None:
        kind = self.rng.choices(["worker", "node", "driver", "pause"], [0.65, 0.12, 0.08, 0.15])[0]
        if getattr(self, f"kill_{kind}")(driver):
            self.done[kind] += 1

    def kill_worker(self, driver: Any) -> bool:
        """One busy worker, unless its subject is on its last try of this step."""
        from svad_ray.ledger import Ledger

        found = [p for p in _workers() if "svad" in p.name() or "MapWorker" in " ".join(p.cmdline()) or "train" in " ".join(p.cmdline())]
        if not found:
            return False
        victim = self.rng.choice(found)
        ledger = Ledger(f"{self.out}/ledger")
        try:
            victim.suspend()
            mine = [a for a in ledger.open_attempts() if a.worker.endswith(f":{victim.pid}")]
            if any(len(ledger.attempts(a.key, a.step)) > 1 for a in mine):
                victim.resume()
                return False
            victim.kill()
        except psutil.NoSuchProcess:
            return False
        return True

    def kill_pause(self, driver: Any) -> bool:
        """A worker stands still for some seconds, as on a node that swaps."""
        found = _workers()
        if not found:
            return False
        victim = self.rng.choice(found)
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.suspend()
            threading.Timer(PAUSE_S, _resume, [victim]).start()
        return True

    def kill_node(self, driver: Any) -> bool:
        victim = self.rng.choice(self.nodes)
        self.cluster.remove_node(victim, allow_graceful=False)
        self.nodes.remove(victim)
        self.nodes.append(self.cluster.add_node(**self.node_options))
        return True

    def kill_driver(self, driver: subprocess.Popen[str]) -> bool:
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        return True


def _resume(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.resume()


def _workers() -> list[psutil.Process]:
    """Ray's worker processes below this one."""
    below = psutil.Process().children(recursive=True)
    found = []
    for process in below:
        try:
            if process.cmdline() and process.cmdline()[0].startswith("ray::") and "Serve" not in process.cmdline()[0]:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return found


def undisturbed(request: Any) -> dict[str, bytes]:
    """The files of a subject when nothing happens."""
    from svad_ray.fulfil import fulfil
    from svad_ray.store import ArtefactStore

    with tempfile.TemporaryDirectory() as folder:
        fulfil(request, folder, kit=scripted.KIT)
        store = ArtefactStore(f"{folder}/subjects")
        return {name: store.open(request.key, name).read() for name in store.listing(request.key)}


def judge(out: str, count: int) -> list[str]:
    """Everything that is wrong."""
    from svad_ray.ledger import Ledger
    from svad_ray.store import ArtefactStore

    store, wrong = ArtefactStore(f"{out}/subjects"), []
    committed = Counter(str(key) for key in store.committed_keys())
    given_up = {str(key): entry for key, entry in Ledger(f"{out}/ledger").quarantined().items()}
    for request in requests(count):
        key, poison = str(request.key), request.subject_id.startswith("poison")
        if committed[key] + (key in given_up) != 1:
            wrong.append(f"{request.subject_id}: {committed[key]} commits, {'' if key in given_up else 'not '}quarantined")
        elif poison != (key in given_up):
            wrong.append(f"{request.subject_id}: {given_up[key].reason if key in given_up else 'committed although poison'}")
        elif poison and given_up[key].attempts > 2:
            wrong.append(f"{request.subject_id}: {given_up[key].attempts} attempts")
        elif not poison and len(list(Path(out, "subjects", key).glob("attempt-*"))) != 1:
            wrong.append(f"{request.subject_id}: more than one delivery")
        elif not poison:
            files = {name: store.open(request.key, name).read() for name in store.listing(request.key)}
            if files != undisturbed(request):
                wrong.append(f"{request.subject_id}: other bytes than undisturbed")
    for stage in ("work",):
        artefacts = ArtefactStore(f"{out}/{stage}")
        for key in artefacts.committed_keys():
            artefacts.verify(key)
    return wrong


def run(count: int, kills: int, every_s: float, seed: int, out: str, *, limit_s: float) -> int:
    from ray.cluster_utils import Cluster

    rng = random.Random(seed)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "_system_config": QUICK_DEATH, "include_dashboard": False})
    options = {"num_cpus": 3, "object_store_memory": 200 << 20}
    nodes = [cluster.add_node(**options) for _ in range(2)]
    killer = Killer(cluster, out, rng, nodes, options)
    began, starts, summary = time.monotonic(), 0, ""
    driver: subprocess.Popen[str] | None = None
    try:
        while True:
            if driver is None or driver.poll() is not None:
                if driver is not None:
                    summary = Path(said.name).read_text().strip()
                    if driver.returncode == 0:
                        break
                    if driver.returncode != -signal.SIGKILL:
                        print(f"the driver ended with {driver.returncode}", summary[-2000:])
                        return 1
                command = [sys.executable, __file__, "--drive", cluster.address, "--out", out, "--subjects", str(count)]
                said = open(f"{out}.said", "w")  # noqa: SIM115  a pipe that nobody reads would stop the driver
                driver = subprocess.Popen(command, text=True, stdout=said)
                said.close()
                starts += 1
            time.sleep(rng.expovariate(1 / every_s))
            if driver.poll() is None and sum(killer.done.values()) < kills and Path(out, "work", "restore").exists():
                killer.one(driver)
            if time.monotonic() - began > limit_s:
                print(f"no end after {limit_s} s")
                return 1
    finally:
        if driver is not None and driver.poll() is None:
            driver.kill()
        cluster.shutdown()
    wrong = judge(out, count)
    killed = ", ".join(f"{n} {what}s" for what, n in sorted(killer.done.items()))
    print(f"{count} subjects in {time.monotonic() - began:.0f} s, {starts} driver starts; killed: {killed or 'nothing'}; {summary.splitlines()[-1]}")
    print("\n".join(wrong) or "0 lost, 0 committed twice, 0 neighbours lost, every byte as undisturbed")
    return 1 if wrong else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subjects", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=120)
    parser.add_argument("--every-s", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit-s", type=float, default=3600)
    parser.add_argument("--out", default="")
    parser.add_argument("--drive", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.drive:
        drive(given.drive, given.out, given.subjects)
        return
    with tempfile.TemporaryDirectory(prefix="svad-chaos-") as folder:
        out = given.out or f"{folder}/out"
        sys.exit(run(given.subjects, given.kills, given.every_s, given.seed, out, limit_s=given.limit_s))


if __name__ == "__main__":
    main()
