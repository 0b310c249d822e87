"""Canvas, grids and object sets; imports no torch."""

from elsewhere.stimuli.canvas import Canvas
from elsewhere.stimuli.grid import Grid, parse_location
from elsewhere.stimuli.objects import ObjectRequest, ObjectSet, ObjectSetBuilder
from elsewhere.stimuli.sets import load_objects, object_sets, parse_categories

__all__ = [
    "Canvas",
    "Grid",
    "ObjectRequest",
    "ObjectSet",
    "ObjectSetBuilder",
    "load_objects",
    "object_sets",
    "parse_categories",
    "parse_location",
]
