#!/usr/bin/env python3
"""Seconds and peak memory of one 256x256 edit with kontext-tiny, 20 steps, through the command line.

    cargo build --release && python3 benches/edit.py             five runs, medians
    python3 benches/edit.py --diffusers PYTHON                   each run beside diffusers' pipeline on the same
                                                                 model, picture, prompt and seed, in turns; PYTHON has
                                                                 torch, diffusers, transformers (float32, all threads)

Denoising and whole edit are timed without loading; the peak is of the whole process, loading and picture included.
"""
import argparse
import json
import pathlib
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
PHOTO, PROMPT, STEPS, SEED = "tests/photos/friends.jpg", "a pencil sketch", 20, 1

REFERENCE = f"""
import json, resource, time, torch
from diffusers import FluxKontextPipeline
from PIL import Image
pipe = FluxKontextPipeline.from_pretrained("models/kontext-tiny", torch_dtype=torch.float32)
pipe.set_progress_bar_config(disable=True)
image = Image.open("{PHOTO}").convert("RGB").resize((256, 256), Image.LANCZOS)
def edit():
    start = time.perf_counter()
    pipe(image=image, prompt="{PROMPT}", height=256, width=256, num_inference_steps={STEPS}, guidance_scale=2.5,
         max_sequence_length=32, generator=torch.Generator().manual_seed({SEED}), _auto_resize=False, max_area=65536)
    return time.perf_counter() - start
first = edit()
print(json.dumps(dict(seconds=edit(), first=first, mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)))
"""


def darkroom():
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        run = subprocess.run(
            [ROOT / "target/release/darkroom", "edit", "--image", PHOTO, "--prompt", PROMPT, "--steps", str(STEPS),
             "--seed", str(SEED), "--width", "256", "--height", "256", "-o", f"{folder}/out.png"],
            cwd=ROOT, capture_output=True, text=True, check=True)
        whole = time.perf_counter() - start
    seconds, step = re.search(r"steps, ([\d.]+) s \(([\d.]+) s a step\)", run.stderr).groups()
    return dict(seconds=float(seconds), step=float(step), process=whole)


def diffusers(python):
    run = subprocess.run([python, "-W", "ignore", "-c", REFERENCE], cwd=ROOT, capture_output=True, text=True)
    if run.returncode:
        sys.exit(run.stderr)
    return json.loads(run.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--diffusers", metavar="PYTHON")
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    own, other = [], []
    for _ in range(args.runs):
        own.append(darkroom())
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024 if not other else peak
        if args.diffusers:
            other.append(diffusers(args.diffusers))
    median = lambda rows, key: statistics.median(row[key] for row in rows)
    print(f"darkroom: {median(own, 'seconds'):.2f} s an edit, {median(own, 'step'):.3f} s a step, "
          f"{median(own, 'process'):.2f} s the process, peak {peak:.0f} MiB")
    if other:
        print(f"diffusers: {median(other, 'seconds'):.2f} s an edit (the first {median(other, 'first'):.2f} s), "
              f"peak {median(other, 'mib'):.0f} MiB")
        print(f"diffusers / darkroom: {median(other, 'seconds') / median(own, 'seconds'):.2f}")


if __name__ == "__main__":
    main()
