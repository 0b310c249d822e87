"""Kills commands: ``python kills.py FOLDER CASE,... KILLS SEED [aimed|random|lost]``.

Every command runs in a fork of this process, by the command line's own entry. It is killed with
SIGKILL, at a random moment or at one of its writes to the file system, and started again until it
is done. Prints JSON: per case the kills, the work of an undisturbed run, and what was found wrong.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

NETWORK = """
import os
import torch
from torch import nn

class Counting(nn.Module):
    '''Notes which process sees how many images that are not the empty canvas.'''
    def forward(self, values):
        shown = (values.amax((1, 2, 3)) != values.amin((1, 2, 3))).sum().item()
        if isinstance(shown, int):  # it is none while the network is traced
            with open({log!r}, "a") as file:
                file.write(f"{{os.getpid()}} {{shown}}\\n")
        return values

def build():
    torch.manual_seed(0)
    network = nn.Sequential(Counting(), nn.Conv2d(3, 4, 5, stride=2), nn.ReLU(), nn.Flatten(),
                            nn.Linear(4 * 10 * 10, 6))
    network.canvas_size = 24
    return network
"""
CURRICULUM = """
name = "tiny"
[network]
name = "small-cnn"
arguments = {channels = "4-8", hidden = 12}
gain = 4.0
[canvas]
size = 16
object_size = 7
[[phase]]
name = "learn"
objects = "glyphs"
categories = 3
exemplars = {train = 4, held_out = 2}
environment = "one"
steps = 40
batch = 4
checkpoints = [0, 20, 40]
"""
CLUSTER = """
import sys
from distributed import LocalCluster
if __name__ == "__main__":
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        print(cluster.scheduler_address, flush=True)
        sys.stdin.read()
"""

SHOWN = ("killed_network:build", "--objects", "novel", "--categories", "4", "--canvas", "24",
         "--object-size", "8", "--grid", "4x4")  # fmt: skip
LIVE = ("similarity", *SHOWN, "--engine", "dense", "--layers", "4")
RECORD = ("record", *SHOWN, "--engine", "dense", "--layers", "2,4", "--max-memory", "1MiB")
ATTRIBUTE = ("attribute", *SHOWN, "--method", "saliency", "--target", "logit:1")
CASES = {
    "record": RECORD,
    "record-workers": (*RECORD, "--workers", "2"),
    "record-cluster": (*RECORD, "--scheduler", "CLUSTER"),
    "similarity": LIVE,
    "measure": ("measure", *SHOWN, "--names", "cosine,partition", "--layers", "4"),
    "probe": ("probe", "r.h5", "--train-at", "left", "--controls", "shuffled", "--split", "same",
              "--layers", "4"),
    "attribute": ATTRIBUTE,
    "attribute-workers": (*ATTRIBUTE, "--workers", "2"),
    "attribute-cluster": (*ATTRIBUTE, "--scheduler", "CLUSTER"),
    "accuracy": ("accuracy", "CHECKPOINT", "--grid", "3x3", "--exemplars", "2"),
    "track": ("track", "run", "--grid", "2x2", "--exemplars", "2"),
    "track-workers": ("track", "run", "--grid", "2x2", "--exemplars", "2", "--workers", "2"),
    "track-cluster": ("track", "run", "--grid", "2x2", "--exemplars", "2", "--scheduler",
                      "CLUSTER"),
    "train": ("train", "tiny.toml"),
    "reproduce": ("reproduce", "--scale", "quick", "--seeds", "1", "--max-steps", "3"),
}  # fmt: skip
FOLDERS = ("train", "reproduce")
KEEPS = ("record", "attribute", "track", "train")
"""Commands that go on with what is there; the others begin again."""
EVENTS = ("replace", "link", "unlink", "rename", "rmdir", "fsync", "mkdir")


def run(arguments, *, after=None, at=None, meanwhile=None):
    """Run a command in a fork; kill it `after` seconds or `at` its n-th write; return how it ended.

    Also returns how many writes there were (if it ended by itself), the seconds, and which of its
    processes were left (a worker that is only being imported ends when it begins).
    """
    import psutil

    reader, writer = os.pipe()
    begin = time.monotonic()
    child = os.fork()
    if child == 0:
        status = 70
        try:
            os.close(reader)
            with open("output.txt", "w") as output:
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
            if meanwhile is not None:
                import elsewhere.recording.cluster

                elsewhere.recording.cluster.PATIENCE = 5.0
            if arguments[0] == "train":
                _count_steps()
            events = _watch(at)
            sys.argv = ["elsewhere", *arguments]
            from elsewhere.cli import main

            try:
                main()
                status = 0
            except SystemExit as end:
                status = int(end.code or 0)
            os.write(writer, b"%d" % events[0])
        finally:
            sys.stdout.flush()
            os._exit(status)
    os.close(writer)
    below = []
    if meanwhile is not None:
        meanwhile(child)
    if after is not None:
        time.sleep(after)
        below = psutil.Process(child).children(recursive=True)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    written = os.read(reader, 64)
    os.close(reader)
    _, alive = psutil.wait_procs(below, timeout=60)
    alive = [each for each in alive if _is_worker(each)]
    for each in alive:
        each.kill()
    return {
        "killed": os.WIFSIGNALED(status),
        "code": None if os.WIFSIGNALED(status) else os.WEXITSTATUS(status),
        "events": int(written or 0),
        "seconds": time.monotonic() - begin,
        "alive": len(alive),
    }


def _count_steps():
    from torch.optim.optimizer import register_optimizer_step_post_hook

    def note(*_):
        with open("work.log", "a") as file:
            file.write(f"{os.getpid()} 1\n")

    register_optimizer_step_post_hook(note)


def _is_worker(process):
    """Tell a worker that is alive from zombies that nobody waits for, and from Python's helper."""
    import psutil

    try:
        return "resource_tracker" not in " ".join(process.cmdline())
    except psutil.Error:
        return False


def _watch(at):
    """Count the writes of this process, and kill it before the one with number `at`."""
    events = [0]

    def wrapped(call):
        def counting(*arguments, **options):
            events[0] += 1
            if events[0] == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **options)

        return counting

    for name in EVENTS:
        setattr(os, name, wrapped(getattr(os, name)))
    return events


def images(log):
    """Return how many images were computed since the last call, or steps trained."""
    lines = log.read_text().splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    return sum(int(line.split()[1]) for line in lines)


def values(path):
    """Return what a command made, so that it can be compared bit for bit."""
    from elsewhere.storage import load_result, open_recording

    if path.is_dir():
        found = {}
        for file in sorted(path.rglob("*")):
            if file.suffix in (".safetensors",):
                found[str(file.relative_to(path))] = file.read_bytes()
            if file.name == "claims.json":
                found["claims"] = file.read_text()
        assert found, path
        return found
    if path.suffix == ".h5":
        with open_recording(path) as recording:
            return {name: recording[name].values.tobytes() for name in recording}
    result = load_result(path)
    return {
        str(name): (variable.dims, str(variable.dtype), repr(variable.values.tolist()))
        for name, variable in result.variables.items()
    }


def parts(folder):
    """Return the files of work that is done, and when they were written."""
    found = [*folder.rglob("*.parts/*-*"), *folder.glob("run/track/*.nc")]
    return {str(p): p.stat().st_mtime_ns for p in found if p.suffix in (".h5", ".nc")}


def prepare(cases):
    """Make what the commands take; it is the same for all."""
    Path("tiny.toml").write_text(CURRICULUM)
    if "probe" in cases:
        assert run((*RECORD, "--out", "r.h5"))["code"] == 0, Path("output.txt").read_text()[-2000:]
    if {"run", "CHECKPOINT"} & {word for case in cases for word in CASES[case]}:
        made = run(("train", "tiny.toml", "--out", "run"))
        assert made["code"] == 0, Path("output.txt").read_text()[-2000:]


def attack(case, kills, draw, way, cluster, log):
    """Kill a command so often; return counts and what was wrong."""
    command = case.partition("-")[0]
    places = {"CLUSTER": cluster, "CHECKPOINT": "run/checkpoints/learn-000040.safetensors"}
    ending = "" if command in FOLDERS else ".h5" if command == "record" else ".nc"

    def call(out):
        return [*(places.get(each, each) for each in CASES[case]), "--out", str(out)]

    def clear():
        shutil.rmtree("run/track", ignore_errors=True)
        images(log)

    clear()
    whole = Path(f"whole-{case}{ending}")
    plain = run(call(whole))
    assert plain["code"] == 0, (case, Path("output.txt").read_text()[-2000:])
    expected, work = values(whole), images(log)
    counts, wrong, number, begun = Counter(), [], 0, False
    out = Path(f"run-{case}-0{ending}")
    clear()
    before = set(os.listdir())
    stuck = 0
    while counts["kills"] < kills or begun:
        done = parts(Path())
        if counts["kills"] < kills and stuck < 3:
            if way == "aimed":
                found = run(call(out), at=int(draw.integers(1, plain["events"] + 1)))
            else:
                found = run(call(out), after=float(draw.uniform(0, plain["seconds"])))
        else:
            found = run(call(out))
        begun = found["killed"]
        counts["kills"] += found["killed"]
        stuck = stuck + 1 if found["killed"] else 0
        if found["alive"]:
            wrong.append(f"{found['alive']} processes outlived their parent")
        again = parts(Path())
        rewritten = [name for name in done if name in again and again[name] != done[name]]
        if rewritten and command != "train":
            wrong.append(f"written twice: {rewritten[:2]}")
        if begun:
            counts["with parts"] += bool(again)
            continue
        said = Path("output.txt").read_text()
        if found["code"] != 0 and not (found["code"] == 1 and "exists already" in said):
            wrong.append(f"ended with {found['code']}: {said[-300:]}")
            break
        if values(out) != expected:
            wrong.append("other values")
        spent = images(log)
        counts["images"] += spent
        counts["runs"] += 1
        left = {p for p in os.listdir() if p.startswith(".elsewhere-") or p.endswith(".parts")}
        inner = [str(p) for p in Path().rglob(".elsewhere-*")]
        if left or inner:
            wrong.append(f"left behind: {sorted(left)} {inner}")
        number, stuck = number + 1, 0
        shutil.rmtree(out, ignore_errors=True) if out.is_dir() else out.unlink()
        out = Path(f"run-{case}-{number}{ending}")
        clear()
    extra = set(os.listdir()) - before - {"output.txt", out.name, log.name}
    if extra:
        wrong.append(f"left behind: {sorted(extra)}")
    if command in KEEPS and work and counts["kills"]:
        # what a kill costs: looks at the network and a unit in each process; training goes on
        # from its last state, of which this one is too short to write any
        # (a look is 23 images, and a unit at most 23 more)
        cost = work if command == "train" else 46 if case == command else 92
        most = work * counts["runs"] + counts["kills"] * cost
        if counts["images"] > most:
            wrong.append(f"{counts['images']} images computed, at most {most} expected")
    return {**counts, "work": work, "wrong": wrong, "events": plain["events"]}


def start_cluster():
    """Start a scheduler and a worker; return their process and address."""
    Path("cluster.py").write_text(CLUSTER)
    cluster = subprocess.Popen(
        [sys.executable, "-B", "cluster.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    return cluster, cluster.stdout.readline().strip()


def lose(case, log):
    """Kill the scheduler once there is a part: one line, exit 1, and the parts serve the next."""
    command = case.partition("-")[0]
    ending = ".h5" if command == "record" else ".nc"
    shutil.rmtree("run/track", ignore_errors=True)
    cluster, address = start_cluster()
    out = Path(f"lost{ending}")

    def kill(_):
        give_up = time.monotonic() + 600
        while not parts(Path()) and not out.exists() and time.monotonic() < give_up:
            time.sleep(0.005)
        cluster.kill()
        cluster.wait()

    own = CASES[command]
    found = run([*own, "--scheduler", address, "--out", str(out)], meanwhile=kill)
    said, done, wrong = Path("output.txt").read_text(), parts(Path()), []
    last = said.strip().splitlines()[-1]
    if found["code"] != 1 or "was lost" not in last or "Traceback" in said:
        wrong.append(f"ended with {found['code']}: {said[-1500:]}")
    if out.exists() or not done:
        wrong.append("it was over before the scheduler was lost")
    refused = run([*own, "--scheduler", address, "--out", str(out)])  # nobody answers there now
    said = Path("output.txt").read_text()
    if refused["code"] != 1 or "no Dask scheduler answers" not in said or "Traceback" in said:
        wrong.append(f"ended with {refused['code']}: {said[-1500:]}")
    if parts(Path()) != done:
        wrong.append("parts were lost or written again")
    images(log)
    again = run([*own, "--out", str(out)])
    if again["code"] != 0:
        wrong.append(f"ended with {again['code']}: {Path('output.txt').read_text()[-600:]}")
    spent, result = images(log), out.exists() and values(out)
    shutil.rmtree("run/track", ignore_errors=True)
    out.unlink(missing_ok=True)
    if run([*own, "--out", str(out)])["code"] != 0 or values(out) != result:
        wrong.append("other values")
    work = images(log)
    if work and spent >= work:
        wrong.append(f"all {work} images were computed again")
    return {"parts": len(done), "images": spent, "work": work, "wrong": wrong}


def main():
    folder, cases, kills, seed, *way = sys.argv[1:]
    os.chdir(folder)
    sys.path.insert(0, os.getcwd())
    sys.dont_write_bytecode = True
    log = Path("work.log").resolve()
    Path("killed_network.py").write_text(NETWORK.format(log=str(log)))
    import numpy as np
    import torch
    import xarray

    import elsewhere.analyzer.attribution
    import elsewhere.analyzer.trajectories
    import elsewhere.cli
    import elsewhere.figures
    import elsewhere.probes
    import elsewhere.reproduction  # noqa: F401
    from elsewhere.storage import load_result, save_result

    torch.set_num_threads(1)
    # what is imported here, also by other packages at their first use, no fork imports again
    load_result(save_result(xarray.Dataset({"none": ("x", [0.0])}, {"kind": "none"}), "none.nc"))
    prepare(cases.split(","))
    cluster = address = None
    if "cluster" in cases and way != ["lost"]:
        cluster, address = start_cluster()
    draw = np.random.default_rng(int(seed))
    found = {}
    try:
        for case in cases.split(","):
            if way == ["lost"]:
                found[case] = lose(case, log)
            else:
                found[case] = attack(case, int(kills), draw, (way or ["random"])[0], address, log)
            sys.stderr.write(f"{case} {found[case]}\n")
    finally:
        if cluster is not None:
            cluster.stdin.close()
            cluster.wait(30)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
