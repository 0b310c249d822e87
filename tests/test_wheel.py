"""The wheel, installed without its dependencies and used outside the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LABOUR = """
import elsewhere, pathlib, sys
assert pathlib.Path(elsewhere.__file__).is_relative_to(sys.prefix), elsewhere.__file__
with elsewhere.open("run.h5") as recording:
    print(dict(recording["fc6"].sizes))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("build", reason="the package `build` makes the wheel")
    pytest.importorskip("hatchling", reason="the wheel's build system")
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out)]
    done = subprocess.run([*command, str(ROOT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(out.glob("*.whl"))


def test_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "elsewhere/py.typed" in names
    assert "elsewhere/__init__.pyi" in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"elsewhere"}


def test_wheel_records_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    python = environment / "bin" / "python"
    own = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(own)
    # The packages of this environment are seen, but not its .pth files: no editable install.
    Path(own, "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    variables = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    variables["OMP_NUM_THREADS"] = "1"

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [str(python), *arguments],
            cwd=tmp_path,
            env=variables,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    command = "-m elsewhere.cli record small-cnn --objects digits --grid 2x2 --out run.h5"
    run(*command.split())
    assert run("-c", LABOUR) == "{'object': 10, 'y': 2, 'x': 2, 'unit': 256}\n"
