"""The command that runs the paper's claims."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from elsewhere.errors import InputError
from elsewhere.options import CostOptions, JsonOption, ModelOptions, StimulusOptions, part
from elsewhere.terminal import bar, command_line, duration, print_json, print_table, put, say
from elsewhere.types import format_bytes

if TYPE_CHECKING:
    from elsewhere.reproduction import Event


def reproduce(
    network: Annotated[ModelOptions, part("state_key", "device", "trust")],
    stimuli: Annotated[StimulusOptions, part("data_dir")],
    cost: Annotated[CostOptions, part("workers", workers=None)],
    scale: Annotated[
        str | None,
        typer.Option(
            "--scale",
            help="A name, such as laptop (the default) or imagenet, or a folder.",
        ),
    ] = None,
    systems: Annotated[
        str | None,
        typer.Option(
            "--systems",
            help="A list of networks, all asked the same: slim, or a TOML file; the list names "
            "the scale.",
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", help="Of --systems, these, by name, with commas."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="The directory.")] = None,
    seeds: Annotated[int, typer.Option("--seeds", help="How many; one seed gives no verdict.")] = 1,
    first_seed: Annotated[
        int, typer.Option("--first-seed", help="First seed to run; scales are tuned on 0, 1 and 2.")
    ] = 100,
    development: Annotated[
        bool,
        typer.Option(
            "--development", help="Allow seeds of tuning; the table is not for reporting."
        ),
    ] = False,
    confounds: Annotated[
        bool, typer.Option("--confounds", help="Run other explanations as conditions too.")
    ] = False,
    imagenet_weights: Annotated[
        str | None,
        typer.Option("--imagenet-weights", help="imagenet, or a file, for C2."),
    ] = None,
    only_plan: Annotated[bool, typer.Option("--plan", help="Only say what it would cost.")] = False,
    max_steps: Annotated[
        int | None, typer.Option("--max-steps", help="At most so many steps: to see that it runs.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Train all conditions, measure them, and give each of the paper's claims a verdict."""
    common: dict[str, Any] = {
        "seeds": seeds,
        "workers": cost.sharing,
        "device": network.device,
        "max_steps": max_steps,
        "trust": network.trust,
    }
    training: dict[str, Any] = {
        "first_seed": first_seed,
        "development": development,
        "data_dir": stimuli.data_dir,
        "command": command_line(),
    }
    if systems is not None:
        unused = {
            "--confounds": confounds,
            "--imagenet-weights": imagenet_weights,
            "--state-key": network.state_key,
        }
        if given := [name for name, value in unused.items() if value]:
            raise InputError(f"{given[0]} is not for --systems; leave one of the two out")
        names = [part.strip() for text in only or () for part in text.split(",") if part.strip()]
        common |= {"scale": scale, "only": names}
        return _reproduce_systems(systems, out, only_plan, as_json, common, training)
    if only is not None:
        raise InputError("--only chooses systems of a list; add --systems, or leave it out")
    from elsewhere.reproduction import load_scale

    # refused before torch is there
    chosen = load_scale("laptop" if scale is None else scale, trust=network.trust)
    from elsewhere.reproduction import plan
    from elsewhere.reproduction import reproduce as run

    common |= {
        "confounds": confounds,
        "imagenet_weights": imagenet_weights,
        "state_key": network.state_key,
    }
    if only_plan:
        costs = plan(chosen, **common)
        if as_json:
            print_json(dataclasses.asdict(costs))
            return
        put(f"{costs.runs} runs, {costs.steps} steps of training, {costs.workers} process(es)")
        put(f"time: about {duration(costs.seconds)}")
        put(f"disk: at most {format_bytes(costs.disk_bytes)}")
        return
    with _progress(seeds) as report:
        path = run(chosen, _directory(out), progress=report, **training, **common)
    found = json.loads(path.read_text())
    if as_json:
        print_json(found)
    else:
        _print_claims(found)
    say(f"wrote {path}")


def _directory(out: Path | None) -> Path:
    if out is None:
        raise InputError("--out is missing; expected the directory of the reproduction")
    return out


@contextlib.contextmanager
def _progress(seeds: int) -> Iterator[Callable[[Event], None]]:
    """Yield what shows how tasks stand."""
    begun = False
    with bar("reproducing", note=True) as update:

        def report(event: Event) -> None:
            nonlocal begun
            if seeds == 1 and not begun:
                say(
                    "one seed shows a claim in this run or does not show it, and gives no verdict: "
                    "seeds differ, and so does one seed between processors; --seeds 10 gives "
                    "verdicts"
                )
            begun = True
            _, slash, system = event.system.rpartition("/")
            note = f"{system} " if slash else ""
            note += f"seed {event.seed} {event.run} {event.stage}"
            if event.phase:
                note += f" {event.phase} {event.step}/{event.steps}"
            update(event.finished, event.total, note)

        yield report


def _reproduce_systems(
    listed: str,
    out: Path | None,
    only_plan: bool,
    as_json: bool,
    common: dict[str, Any],
    training: dict[str, Any],
) -> None:
    """Plan or run a list of systems."""
    from elsewhere.reproduction import load_systems

    chosen = load_systems(listed, scale=common.pop("scale"), trust=common["trust"])
    from elsewhere.reproduction import plan_systems, reproduce_systems

    if only_plan:
        costs = plan_systems(chosen, **common)
        if as_json:
            print_json(dataclasses.asdict(costs))
            return
        rows = [
            {
                "system": name,
                "network": chosen.scales[name].system.removesuffix(" (analogue)"),
                "step, ms": f"{each.step_seconds * 1000:.1f}",
                "image, ms": f"{each.image_seconds * 1000:.2f}",
                "steps": str(each.steps),
                "one process": duration(each.seconds),
            }
            for name, each in costs.systems.items()
        ]
        print_table(rows, right=("step, ms", "image, ms", "steps", "one process"))
        put(f"{costs.runs} runs, {costs.steps} steps of training, {costs.workers} process(es)")
        put(f"time: about {duration(costs.seconds)}")
        put(f"disk: at most {format_bytes(costs.disk_bytes)}")
        return
    with _progress(common["seeds"]) as report:
        path = reproduce_systems(chosen, _directory(out), progress=report, **training, **common)
    found = json.loads(path.read_text())
    if as_json:
        print_json(found)
    else:
        _print_systems(found)
    say(f"wrote {path}")


def _print_systems(found: dict[str, Any]) -> None:
    rows = [
        {
            "system": table["name"],
            **{claim: each["verdict"] for claim, each in table["summary"].items()},
            "seeds": ", ".join(map(str, table["seeds"])),
        }
        for table in found["systems"]
    ]
    print_table(rows)
    for claim, statement in found["statements"].items():
        put(f"{claim}: {statement}")
    for table in found["systems"]:
        for refused in table["refused"]:
            put(f"{table['name']}, {refused}")
    if any(table["development"] for table in found["systems"]):
        put("seeds of tuning are among them: this table is not for reporting")


def _print_claims(found: dict[str, Any]) -> None:
    rows = []
    for row in found["claims"]:
        if not row.get("decides", True):
            continue
        value, interval = row["value"], row.get("interval")
        bounds = [None, None] if interval is None else interval
        known = all(bound is not None for bound in bounds)
        rows.append(
            {
                "claim": row["claim"],
                "statistic": row.get("part") or row.get("statistic"),
                "pair": row["pair"],
                "exemplars": row.get("exemplars") or "",
                "value": "-" if value is None else f"{value:.2f}",
                "interval": f"[{bounds[0]:.2f}, {bounds[1]:.2f}]" if known else "",
                "holds when": f"{row['direction']} {row['threshold']:.2f}",
                "verdict": row["verdict"],
            }
        )
    print_table(rows, right=("value", "interval", "holds when"))
    for claim, summary in found["summary"].items():
        parts = "".join(f"; {key}: {said}" for key, said in summary.get("parts", {}).items())
        note = f"; {summary['note']}" if summary.get("note") else ""
        put(f"{claim}: {summary['verdict']} ({summary['statement']}){parts}{note}")
    put(f"measured on {found['system']}, seeds {', '.join(map(str, found['seeds']))}")
    if found.get("development"):
        put("seeds of tuning are among them: this table is not for reporting")
    verdicts = {summary["verdict"] for summary in found["summary"].values()}
    if "not shown in this run" in verdicts:
        put(
            "a claim that is not shown in one run is no fault of it: interference most of all "
            "differs between seeds; see docs/reproduction.md for what ten seeds say"
        )
