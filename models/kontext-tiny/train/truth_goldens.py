"""Writes small pictures that pin the truth of every edit down: input.png and one NAME.png per edit of edits.py.

The tests of the server compute the same edits in Rust and compare them with these pictures. The input is made of
formulas alone: colour ramps, waves, discs, a checkerboard and a little noise, 64 by 48 pixels.
"""
import argparse
import pathlib

import numpy as np

import edits

WIDTH, HEIGHT = 64, 48


def busy_picture():
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    red = 0.5 + 0.5 * np.sin(x / 5) * np.cos(y / 9)
    green = x / (WIDTH - 1)
    blue = 1 - y / (HEIGHT - 1)
    picture = np.stack([red, green, blue], -1)
    for cx, cy, radius, colour in [(14, 12, 9, (0.95, 0.1, 0.1)), (46, 30, 11, (0.1, 0.75, 0.2)), (30, 40, 6, (1, 1, 1))]:
        picture[(x - cx) ** 2 + (y - cy) ** 2 < radius**2] = colour
    board = (x >= 44) & (y < 14)
    checks = ((x // 4 + y // 4) % 2)[..., None].repeat(3, -1)
    picture[board] = checks[board]
    noise = ((x * 37 + y * 101) * (x + 3) % 64) / 64 - 0.5  # the same everywhere: no random generator
    return edits.to_image(picture + 0.12 * noise[..., None])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    root = pathlib.Path(__file__).resolve().parents[3]
    parser.add_argument("--out", type=pathlib.Path, default=root / "tests" / "golden" / "edits")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    picture = busy_picture()
    picture.save(args.out / "input.png", optimize=True)
    for name in edits.NAMES:
        edits.apply(name, picture).save(args.out / f"{name}.png", optimize=True)
    print(f"{1 + len(edits.NAMES)} pictures in {args.out}")


if __name__ == "__main__":
    main()
