"""Curricula that come with the package: TOML files in the folder ``curricula``."""

from __future__ import annotations

from pathlib import Path

from elsewhere.registry import Registry

presets: Registry[Path] = Registry("curriculum")

_FOLDER = Path(__file__).parent / "curricula"

for _name, _summary in {
    "vanilla": "new objects at one location, from random weights",
    "acquired": "glyphs everywhere on the canvas, then new objects at one location",
    "fixed": "as acquired, but each glyph has a place of its own",
    "interference": "as acquired with digits, which then are trained on at one location",
}.items():
    presets.add(_name, _FOLDER / f"{_name}.toml", summary=_summary)
    presets.add(
        f"{_name}-quick", _FOLDER / f"{_name}-quick.toml", summary=f"{_summary}; a minute or less"
    )
