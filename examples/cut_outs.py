"""Cuts natural objects out of the photographs that scikit-image ships: a folder for `--objects`.

    python examples/cut_outs.py cut-outs
    elsewhere objects folder:cut-outs --out cut-outs.png

Ten objects, each a category of its own: a PNG whose alpha is 0 outside the object. The outlines
were drawn by hand. The photographs are not copied into this repository: they come with the wheel of
scikit-image (BSD; `pip install scikit-image`), whose `skimage/data/README.txt` says the source of
each.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from PIL import Image, ImageDraw

# The file, and the object's outline in it: x, y, x, y ... in px of the picture.
OUTLINES = {
    "astronaut": ("astronaut.png", """
        154 70 158 50 172 35 190 24 212 16 230 15 250 20 268 28 285 42 297 60 301 85 300 105
        292 120 280 127 272 130 262 152 250 170 240 183 222 189 200 184 187 165 182 140 172 128
        160 115 154 95"""),
    "shuttle": ("astronaut.png", """
        396 20 402 5 410 0 428 0 436 10 438 45 446 40 453 55 455 190 457 225 455 268 436 268
        434 240 416 240 418 275 394 275 392 240 384 262 370 275 366 262 374 242 376 224 354 224
        358 210 384 175 384 50 392 42"""),
    "helmet": ("astronaut.png", """
        276 511 276 470 281 430 294 395 315 370 345 352 380 343 405 343 435 350 460 367 480 392
        492 420 499 450 508 455 511 480 511 511"""),
    "cat": ("chelsea.png", """
        40 60 48 0 315 0 330 5 352 2 356 60 358 100 352 160 340 200 322 235 292 265 262 290
        240 299 60 299 20 240 4 200 8 150"""),
    "cup": ("coffee.png", """
        78 185 85 150 105 115 140 85 172 75 182 55 205 35 240 22 290 17 340 25 375 45 395 70
        420 66 424 80 418 105 445 125 468 155 478 195 470 250 448 300 410 345 360 372 300 385
        240 378 180 355 125 315 92 265"""),
    "rocket": ("rocket.jpg", """
        311 143 312 133 320 127 328 128 335 136 337 177 333 180 332 310 331 403 313 403 312 300
        311 180"""),
    "motorcycle": ("motorcycle_left.png", """
        108 238 130 210 145 195 140 170 146 152 165 152 185 172 205 180 240 182 270 172 300 170
        330 155 360 135 395 128 410 140 440 152 462 125 490 118 512 98 528 100 532 140 560 125
        590 122 600 145 592 178 560 195 568 240 578 262 620 270 650 300 670 340 690 400 680 440
        650 450 610 430 575 380 560 330 545 300 520 330 480 365 420 375 380 372 360 380 362 410
        340 410 335 375 280 360 240 372 220 392 190 390 150 350 132 300 130 262 112 258"""),
    "photographer": ("camera.png", """
        0 300 8 240 25 200 60 160 110 125 150 105 170 75 200 60 240 70 268 95 280 120 270 130
        282 140 315 138 322 165 330 190 315 208 300 210 302 250 318 260 300 290 312 310 360 420
        405 510 395 511 340 410 298 325 292 330 296 480 288 480 286 340 245 510 234 511 280 320
        275 312 235 300 200 320 150 335 155 400 168 511 98 511 105 430 98 360 40 355 5 335"""),
    "coin": ("coins.png", """
        335 16 345 18 354 25 360 34 361 45 358 55 350 64 340 69 330 69 318 64 309 55 304 45
        305 34 311 25 322 18"""),
    "retina": ("retina.jpg", """
        705 10 840 20 970 60 1090 130 1190 215 1290 340 1360 480 1395 620 1398 760 1370 900
        1310 1040 1220 1170 1100 1280 960 1355 800 1395 620 1395 470 1360 320 1285 190 1170
        100 1050 40 910 10 760 12 640 50 480 120 330 220 205 350 110 500 45"""),
}  # fmt: skip


def photographs() -> Path:
    """Return the folder of scikit-image's photographs."""
    found = importlib.util.find_spec("skimage")
    if found is None or not found.submodule_search_locations:
        sys.exit("scikit-image is missing; its photographs are needed: pip install scikit-image")
    return Path(found.submodule_search_locations[0]) / "data"


def cut_out(file: Path, outline: str) -> Image.Image:
    """Return the object of a picture, cropped, with an alpha of 0 outside its outline."""
    picture = Image.open(file).convert("RGB")
    mask = Image.new("L", picture.size, 0)
    numbers = [int(number) for number in outline.split()]
    points = list(zip(numbers[::2], numbers[1::2], strict=True))
    ImageDraw.Draw(mask).polygon(points, fill=255)
    picture.putalpha(mask)
    return picture.crop(mask.getbbox())


def main(folder: Path) -> None:
    """Write `folder`/CATEGORY/CATEGORY.png for every object, at most 256 px large."""
    data = photographs()
    for name, (file, outline) in OUTLINES.items():
        place = folder / name / f"{name}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        picture = cut_out(data / file, outline)
        picture.thumbnail((256, 256), Image.Resampling.LANCZOS)
        picture.save(place)
    print(f"{len(OUTLINES)} objects in {folder}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "cut-outs"))
