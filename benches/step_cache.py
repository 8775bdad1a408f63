#!/usr/bin/env python3
"""What `--step-cache` costs and saves: edits of the test photographs with it against the same without.

    pip install pillow numpy
    python benches/step_cache.py PROGRAM [--model NAME] [--steps 20]

Prints, for each threshold, the passes that were shortened, the time of the process against
that without, alternating, and how far the pictures are from those without: PSNR in dB, the mean and the
least over photographs and styles.
"""
import argparse
import io
import pathlib
import re
import statistics
import subprocess
import time

import numpy as np
from PIL import Image

HERE = pathlib.Path(__file__).resolve().parent.parent
STYLES = ["black-and-white", "sepia", "sketch"]
THRESHOLDS = [0.02, 0.05, 0.1, 0.2, 0.4]


def edit(args, photo, style, threshold):
    start = time.perf_counter()
    done = subprocess.run(
        [args.program, "edit", "--image", photo, "--style", style, "--seed", "1", "--output", "-",
         "--format", "png", "--steps", str(args.steps), "--model", args.model,
         "--step-cache", str(threshold)],
        capture_output=True, cwd=HERE, check=True)
    took = time.perf_counter() - start
    said = done.stderr.decode()
    shortened = re.search(r"\((\d+) passes shortened\)", said)
    picture = np.asarray(Image.open(io.BytesIO(done.stdout)), np.float64)
    return picture, int(shortened[1]) if shortened else 0, took


def psnr(a, b):
    error = np.mean((a - b) ** 2)
    return 99.0 if error == 0 else 10 * np.log10(255 ** 2 / error)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program", type=lambda path: pathlib.Path(path).resolve())
    parser.add_argument("--model", default="kontext-tiny")
    parser.add_argument("--steps", type=int, default=20)
    args = parser.parse_args()
    photos = sorted((HERE / "tests/photos").glob("*.jpg"))
    print("| threshold | passes shortened | time | PSNR, mean | least |\n| --- | --- | --- | --- | --- |")
    for threshold in THRESHOLDS:
        shortened, ratios, quality = [], [], []
        for photo in photos:
            for style in STYLES:
                plain, _, before = edit(args, photo, style, 0)
                cached, count, after = edit(args, photo, style, threshold)
                shortened.append(count / args.steps)
                ratios.append(after / before)
                quality.append(psnr(plain, cached))
        print(f"| {threshold} | {statistics.mean(shortened):.0%} | {statistics.median(ratios):.2f} "
              f"| {statistics.mean(quality):.1f} dB | {min(quality):.1f} dB |", flush=True)


main()
