"""What `--help` says, and that it costs nothing."""

import subprocess
import sys

import pytest
import typer

from elsewhere.cli import app

GROUP = typer.main.get_command(app)
COMMANDS = sorted(GROUP.commands)
ISSUED = {"layers", "objects", "plan", "record", "inspect", "similarity", "figure"}

HEAVY = {"torch", "torchvision", "xarray", "h5py", "h5netcdf", "matplotlib", "sklearn", "pandas"}
HEAVY |= {"scipy.ndimage", "scipy.stats"}  # scipy alone imports its parts when they are used
IMPORTED = """
import sys
from elsewhere.cli import main
sys.argv = ["elsewhere", *{arguments!r}]
try:
    main()
except SystemExit as end:
    status = end.code or 0
print("status", status, file=sys.stderr)
print("found", *sorted(set(sys.modules) & set({heavy!r})), file=sys.stderr)
"""


def test_the_commands_of_the_main_line_are_there():
    assert set(COMMANDS) >= ISSUED


@pytest.mark.parametrize("name", COMMANDS)
def test_help_ends_in_an_example(name, run):
    outcome = run(name, "--help")
    said = " ".join(outcome.out.split())
    example = GROUP.commands[name].epilog
    assert example.startswith(f"Example: elsewhere {name}")
    assert said.endswith(example)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_example_is_one_that_parses(name):
    words = GROUP.commands[name].epilog.split()
    arguments = words[words.index(name) + 1 :]
    context = GROUP.commands[name].make_context(name, arguments)
    assert context.command.name == name


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_a_help_text(name):
    command = GROUP.commands[name]
    assert command.help
    for parameter in command.params:
        assert parameter.help, f"{name} {parameter.name}"


def test_plan_takes_what_record_takes():
    of = {
        name: {option for parameter in GROUP.commands[name].params for option in parameter.opts}
        for name in ("plan", "record")
    }
    assert of["record"] - of["plan"] == set()


def test_objects_has_no_option_that_it_ignores():
    options = {o for parameter in GROUP.commands["objects"].params for o in parameter.opts}
    assert not options & {"--grid", "--reference", "--canvas", "--objects"}


@pytest.mark.parametrize(
    "arguments",
    [
        *(["--help"], ["record", "--help"], ["similarity", "--help"], ["objects"], ["train"]),
        *(["layers", "vgg16"], ["layers", "resnet18", "--weights", "none", "--json"]),
    ],
)
def test_nothing_heavy_is_imported(arguments, tmp_path):
    heavy = HEAVY | ({"numpy"} if "--help" in arguments else set())
    code = IMPORTED.format(arguments=arguments, heavy=sorted(heavy))
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert "status 0" in found.stderr
    assert found.stderr.splitlines()[-1].split() == ["found"]
    listed = "lyphs" in found.stdout or "maxpool" in found.stdout or "pool5" in found.stdout
    assert listed or "Example: elsewhere" in found.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["recrod"], "record"),
        (["record"], "model"),
        (["record", "small-cnn"], "--out"),
        (["record", "small-cnn", "--frobnicate"], "--frobnicate"),
        (["objects", "novel", "--per-category", "many"], "--per-category"),
        (["plan", "small-cnn", "vgg16"], "vgg16"),
    ],
)
def test_wrong_usage_exits_2(arguments, says, here):
    from typer.testing import CliRunner

    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert says in result.stderr
    assert result.stdout == ""
    assert list(here.iterdir()) == []
