"""Kills commands: ``python -m tests.kills FOLDER CASE,... KILLS SEED [aimed|random|lost]``.

Every command runs in a fork of this process, by the command line's own entry. It, or one of its
workers, is killed with SIGKILL, at a random moment or at one of its writes to the file system, and
started again until it is done. Its values are compared, and what every attempt computed is counted.
Prints JSON: per case the kills, the work of an undisturbed run, and what was found wrong.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

from elsewhere.models.conduct import N_REPEATS
from elsewhere.storage import verify
from tests.tiny import (
    COUNTED,
    DEEP,
    OUTSIDE,
    STAGE,
    curriculum,
    images_by_process,
    images_by_stage,
    write_networks,
)

CLUSTER = """
import sys
from distributed import LocalCluster
if __name__ == "__main__":
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        print(cluster.scheduler_address, flush=True)
        sys.stdin.read()
"""

SHOWN = ("--objects", "novel", "--categories", "4", "--canvas", "24", "--object-size", "8",
         "--grid", "4x4")  # fmt: skip
BUILD = ("tiny_networks:build", *SHOWN)
RECORD = ("record", *BUILD, "--engine", "dense", "--layers", "2,4", "--max-memory", "1MiB")
WINDOWS = ("record", "tiny_networks:windowed", *SHOWN[:-1], "all", "--engine", "incremental")
ATTRIBUTE = ("attribute", *BUILD, "--method", "saliency", "--target", "logit:1")
TRUST = ("--trust-factory", COUNTED[0])
TRACK = ("track", "run", "--grid", "2x2", "--exemplars", "2", *TRUST)
REPRODUCE = ("reproduce", "--scale", "tiny", "--trust-factory", DEEP[0])
CASES = {
    "record": RECORD,
    "record-windows": WINDOWS,
    "record-workers": (*RECORD, "--workers", "2"),
    "record-cluster": (*RECORD, "--scheduler", "CLUSTER"),
    "similarity": ("similarity", *BUILD, "--engine", "dense", "--layers", "4"),
    "measure": ("measure", *BUILD, "--names", "cosine,partition", "--layers", "4"),
    "probe": ("probe", "r.h5", "--train-at", "left", "--controls", "untrained", "--split", "same",
              "--layers", "4", *TRUST),
    "sanity": ("sanity", *BUILD, "--method", "saliency", "--target", "logit:1"),
    "attribute": ATTRIBUTE,
    "attribute-workers": (*ATTRIBUTE, "--workers", "2"),
    "attribute-cluster": (*ATTRIBUTE, "--scheduler", "CLUSTER"),
    "accuracy": ("accuracy", "CHECKPOINT", "--grid", "3x3", "--exemplars", "2", *TRUST),
    "track": TRACK,
    "track-workers": (*TRACK, "--workers", "2"),
    "track-cluster": (*TRACK, "--scheduler", "CLUSTER"),
    "train": ("train", "tiny.toml", *TRUST),
    "reproduce": (*REPRODUCE, "--workers", "1"),
    "reproduce-workers": (*REPRODUCE, "--workers", "2"),
}  # fmt: skip
UNITS = {"record": (4, 16), "record-windows": (34, 1), "attribute": (4, 32), "track": (3, 132)}
"""How many units the work is cut into, and how many images (tiles of windows) each takes: of track,
with its accuracy, its similarity and a look at the network of each checkpoint."""
LOOKS = {"track": 31}
"""Images of a look at what a factory builds, for each result that is there already."""
FOLDERS = ("train", "reproduce")
EVENTS = ("replace", "link", "unlink", "rename", "rmdir", "fsync", "mkdir")


def run(arguments, *, after=None, at=None, worker=False, meanwhile=None):
    """Run a command in a fork; kill it `after` seconds or `at` its n-th write; return how it ended.

    With `worker` one of its workers is killed instead, where there is one.

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
            if "incremental" in arguments:
                _count_tiles()
            if arguments[0] == "reproduce":
                mark_stages()
            events = _watch(at)
            sys.argv = ["elsewhere", *arguments]
            from elsewhere.cli import main

            try:
                main()
                status = 0
            except SystemExit as end:
                status = int(end.code or 0)
            os.write(writer, b"%d" % events[0])
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status)
    os.close(writer)
    below, lost = [], 0
    if meanwhile is not None:
        meanwhile(child)
    if after is not None:
        time.sleep(after)
        below = psutil.Process(child).children(recursive=True)
        crew = [each for each in below if _is_worker(each)] if worker else []
        (crew[0] if crew else psutil.Process(child)).kill()
        lost, below = len(crew[:1]), [] if crew else below
    _, status = os.waitpid(child, 0)
    written = os.read(reader, 64)
    os.close(reader)
    _, alive = psutil.wait_procs(below, timeout=300)
    alive = [each for each in alive if _is_worker(each)]
    for each in alive:
        each.kill()
    return {
        "killed": os.WIFSIGNALED(status),
        "code": None if os.WIFSIGNALED(status) else os.WEXITSTATUS(status),
        "events": int(written or 0),
        "seconds": time.monotonic() - begin,
        "alive": len(alive),
        "lost": lost,
        "process": child,
    }


def _count_tiles():
    from elsewhere.recording.engines import windows
    from elsewhere.recording.incremental import Incremental

    windows.TILE_WORK = 500_000  # several tiles, small as it is
    plain = Incremental.run

    def run(self, *arguments, **options):
        with open("work.log", "a") as file:
            file.write(f"{os.getpid()} 1\n")
        return plain(self, *arguments, **options)

    Incremental.run = run


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
    found = [*folder.rglob("*.parts/unit-*.h5"), *folder.glob("run/track/*.nc")]
    results = folder.glob("run-*/seeds/*/*.json")  # and the table of a seed, made of them each time
    found += [path for path in results if path.name != "measurements.json"]
    return {str(p): (p.stat().st_mtime_ns, _made_with(p)) for p in found}


def _made_with(path):
    """Return what a reproduction's task says that its numbers depend on; nothing of other files."""
    return json.loads(path.read_text())["measured_with"] if path.suffix == ".json" else None


def prepare(cases):
    """Make what the commands take; it is the same for all."""
    Path("tiny.toml").write_text(curriculum(COUNTED))
    shutil.copytree(Path(__file__).parent / "reproduction" / "tiny", "tiny")
    scale = Path("tiny/scale.toml")
    network = "name = {!r}\narguments = {}".format(*DEEP)
    scale.write_text(re.sub(r'name = "small.*\narguments.*', network, scale.read_text()))
    if "probe" in cases:
        assert run((*RECORD, "--out", "r.h5"))["code"] == 0, Path("output.txt").read_text()[-2000:]
    if {"run", "CHECKPOINT"} & {word for case in cases for word in CASES[case]}:
        made = run(("train", "tiny.toml", *TRUST, "--out", "run"))
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
        images_by_process(log)

    clear()
    whole = Path(f"whole-{case}{ending}")
    plain = run(call(whole))
    assert plain["code"] == 0, (case, Path("output.txt").read_text()[-2000:])
    stages = images_by_stage(log)
    expected, work = values(whole), Work(case, plain["process"], images_by_process(log))
    counts, wrong, number, begun = Counter(), [], 0, False
    earlier = Counter()
    out = Path(f"run-{case}-0{ending}")
    clear()
    before = set(os.listdir())
    stuck = 0
    while counts["kills"] < kills or begun:
        done, fresh, complete = parts(Path()), not begun, out.exists()
        finished = finished_stages(out, stages)
        how = {}
        if counts["kills"] < kills and stuck < 3:
            if way == "aimed":
                how = {"at": int(draw.integers(1, plain["events"] + 1))}
            else:
                worker = bool(draw.random() < 0.4 and case.endswith("-workers"))
                how = {"after": float(draw.uniform(0, plain["seconds"])), "worker": worker}
        found = run(call(out), **how)
        if command == "reproduce":
            by_stage = images_by_stage(log)
            wrong += judge_stages(stages, by_stage, finished, found, earlier)
            earlier += by_stage
            counts["stages done before"] += len(finished)
        begun = found["killed"]
        counts["kills"] += found["killed"] or found["lost"]
        counts["workers killed"] += found["lost"]
        stuck = stuck + 1 if found["killed"] else 0
        if found["alive"]:
            wrong.append(f"{found['alive']} processes outlived their parent")
        again = parts(Path())
        twice = [name for name in done if name in again and again[name] != done[name]]
        if twice:
            wrong.append(f"written twice: {[(name, done[name], again[name]) for name in twice]}")
        spent = images_by_process(log)
        counts["images"] += sum(spent.values())
        new = len(again.keys() - done.keys())
        if complete or (begun and out.exists()):  # parts were removed, or never seen
            new = work.n_units - len(done)
        n_done = work.n_units if complete and command not in FOLDERS else len(done)
        if command != "reproduce":
            wrong += work.judge(found, spent, n_done, new, fresh=fresh)
        if begun:
            counts["with parts"] += bool(again)
            continue
        said = Path("output.txt").read_text()
        if found["code"] != 0 and not (found["code"] == 1 and "exists already" in said):
            wrong.append(f"ended with {found['code']}: {said[-300:]}")
            break
        if values(out) != expected:
            wrong.append("other values")
        if command == "record" and not verify(out).ok:
            wrong.append("damaged")
        counts["runs"] += 1
        if fresh:  # the first run also imports, in workers of a cluster
            plain["seconds"] = min(plain["seconds"], found["seconds"])
        left = {p for p in os.listdir() if p.startswith(".elsewhere-") or p.endswith(".parts")}
        inner = [str(p) for p in Path().rglob(".elsewhere-*")]
        if left or inner:
            wrong.append(f"left behind: {sorted(left)} {inner}")
        number, stuck, earlier = number + 1, 0, Counter()
        shutil.rmtree(out, ignore_errors=True) if out.is_dir() else out.unlink()
        out = Path(f"run-{case}-{number}{ending}")
        clear()
    extra = set(os.listdir()) - before - {"output.txt", out.name, log.name}
    if extra:
        wrong.append(f"left behind: {sorted(extra)}")
    return {**counts, "work": work.all, "wrong": wrong, "events": plain["events"]}


class Work:
    """How many images an attempt has to compute: no more, and no fewer.

    Parameters
    ----------
    case
        Of `CASES`.
    process
        The one that asked.
    images
        Of each process of an undisturbed run.
    """

    def __init__(self, case, process, images):
        self.command, _, self.shared = case.partition("-")
        self.all = sum(images.values())
        self.n_units, self.unit = UNITS.get(case, UNITS.get(self.command, (0, 0)))
        self.own = images.pop(process, 0)
        self.look, left = 0, self.n_units * self.unit
        if images:
            self.look, rest = divmod(sum(images.values()) - left, len(images))
            assert self.shared == "cluster" or not rest, images
        else:
            self.own -= left
        assert not self.n_units or self.own >= 0, (case, self.own)

    def judge(self, found, images, done, new, *, fresh):
        """Return what is wrong with an attempt that began with `done` units and made `new` ones."""
        spent, shown = sum(images.values()), dict(images)
        images.pop(found["process"], None)
        others, cluster = len(images), self.shared == "cluster"
        looks = self.own + self.look * others + LOOKS.get(self.command, 0) * done
        least = most = 0
        if not self.n_units:  # begins again
            most = self.all
            least = most if fresh and not found["killed"] else 0
        elif found["killed"]:
            most = looks + self.unit * (new + max(others, 1))
        elif found["code"] == 0:
            left = self.unit * (self.n_units - done)
            least = most = looks + left
            most += self.unit * found["lost"]
            least -= self.look * found["lost"]
            least = 0 if done == self.n_units else least  # it sees that it is complete
        else:
            most = looks
        if cluster:  # other threads of its worker draw random numbers: looks may be longer; and
            # what was begun when the asking process was killed is finished
            most, least = most + 2 * N_REPEATS + self.unit, 0
        if least <= spent <= most:
            return []
        return [f"{shown} images, {least} to {most} expected; {done} of {self.n_units} units done"]


def mark_stages():
    """Note in this process' environment what a reproduction computes, as SEED/RUN/STAGE."""
    from elsewhere.reproduction import tasks
    from elsewhere.training import loop

    def marked(call, stage):
        def marking(*arguments):
            os.environ[STAGE] = "/".join(stage(*arguments))
            return call(*arguments)

        return marking

    def of_run(name):
        return lambda task: (str(task.seed), task.run.name, name)

    tasks.start_of = marked(tasks.start_of, of_run("start"))
    tasks.measure = marked(tasks.measure, of_run("measure"))
    loop.Stage = marked(
        loop.Stage,
        lambda phase, model, state, around: (*around.directory.parts[-2:], f"{phase.index}"),
    )


def finished_stages(out, stages):
    """Return which stages of a reproduction no attempt has to compute again."""
    from elsewhere.training.state import read_state

    found = set()
    for stage in stages if out.is_dir() else ():
        if stage == OUTSIDE:
            continue
        *run, name = stage.split("/")
        folder = out.joinpath("seeds", *run)
        state = read_state(folder / "state.pt") if name.isdecimal() else None
        if folder.with_name(f"{folder.name}.json").exists() or (state and state.phase > int(name)):
            found.add(stage)
    return found


def judge_stages(whole, spent, finished, found, earlier):
    """Return what is wrong with the work of an attempt at a reproduction.

    Nothing is computed of stages that were finished, and no other more often than needed: once,
    and once more where a worker was lost on the way. Of measuring, what earlier attempts computed
    may serve: a checkpoint that was tracked is not tracked again.
    """
    times, wrong = 1 + found["lost"], []
    for stage in whole.keys() | spent.keys():
        most = 0 if stage in finished else times * whole[stage]
        least = whole[stage] if found["code"] == 0 and stage not in finished else 0
        if stage.endswith("measure"):
            least = max(0, least - earlier[stage])
        if stage == OUTSIDE or stage.endswith("start"):  # looks at the network, where it is needed
            least = 0
        if not least <= spent[stage] <= most:
            wrong.append(f"{stage}: {spent[stage]} images, {least} to {most} expected")
    return wrong


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
    sum(images_by_process(log).values())
    again = run([*own, "--out", str(out)])
    if again["code"] != 0:
        wrong.append(f"ended with {again['code']}: {Path('output.txt').read_text()[-600:]}")
    spent, result = sum(images_by_process(log).values()), out.exists() and values(out)
    shutil.rmtree("run/track", ignore_errors=True)
    out.unlink(missing_ok=True)
    if run([*own, "--out", str(out)])["code"] != 0 or values(out) != result:
        wrong.append("other values")
    work = sum(images_by_process(log).values())
    if work and spent >= work:
        wrong.append(f"all {work} images were computed again")
    return {"parts": len(done), "images": spent, "work": work, "wrong": wrong}


def main():
    folder, cases, kills, seed, *way = sys.argv[1:]
    os.chdir(folder)
    sys.path.insert(0, os.getcwd())
    sys.dont_write_bytecode = True
    log = write_networks(Path())
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
elif __name__ == "__mp_main__" and sys.argv[1:2] == ["reproduce"]:  # in a worker of its own
    mark_stages()
