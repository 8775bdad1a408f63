"""Edits photographs that training never saw, in wordings that it never saw, and compares with the truth of edits.py.

Per edit the table shows: the PSNR of the results to the truth (mean over the photographs), that of an unedited copy,
on how many photographs the result is nearer to its own truth than to the input and to every other edit's truth, and the
similarity (SSIM of luma) of the result to the input. An edit passes with 18 dB or more and nearest on all but one
photograph. Then come the autoencoder's round trip and the colour left in the black-and-white results.

With --controls two wrong editors are judged in the same way, and neither may pass any edit: the input's own round trip
given as every result, and the transformer with the numbers inside each of its tensors shuffled.
"""
import argparse
import glob
import os
import time

import numpy as np
import torch
from diffusers import FluxKontextPipeline
from PIL import Image, ImageOps

import edits
from data import from_tensor, to_tensor
from text import T5_LENGTH
from wordings import HELD_OUT, HELD_OUT_PATTERNS, PHRASES


def mse(a, b):
    return float(((edits.to_float(a).astype(float) - edits.to_float(b)) ** 2).mean())


def psnr(a, b):
    return -10 * np.log10(max(mse(a, b), 1e-9))


def ssim(a, b):
    """SSIM of luma with a Gaussian window (sigma 1.5, 11 taps)."""
    x, y = edits.luma(edits.to_float(a)), edits.luma(edits.to_float(b))
    mx, my, mxx, myy, mxy = (edits.gaussian(v, 1.5) for v in (x, y, x * x, y * y, x * y))
    c1, c2 = 0.01**2, 0.03**2
    top = (2 * mx * my + c1) * (2 * (mxy - mx * my) + c2)
    return float((top / ((mx**2 + my**2 + c1) * (mxx - mx**2 + myy - my**2 + c2))).mean())


def chroma(image):
    x = edits.to_float(image)
    return float((x.max(-1) - x.min(-1)).mean())


def prompt_for(edit, number, wordings):
    if wordings == "held-out":
        return HELD_OUT[edit][number % 3]
    return HELD_OUT_PATTERNS[number % 3].format(PHRASES[edit][number % len(PHRASES[edit])])


@torch.no_grad()
def round_trip(vae, image):
    return from_tensor(vae.decode(vae.encode(to_tensor(image)[None]).latent_dist.mean).sample[0])


def run(pipe, image, prompt, steps):
    return pipe(
        image=image,
        prompt=prompt,
        width=image.width,
        height=image.height,
        num_inference_steps=steps,
        guidance_scale=2.5,
        max_sequence_length=T5_LENGTH,
        max_area=image.width * image.height,
        _auto_resize=False,
        generator=torch.Generator().manual_seed(1),
    ).images[0]


def judge(photos, truths, results):
    """Prints the table and returns the edits that pass."""
    passed = []
    for edit in results[0]:
        quality = np.mean([psnr(r[edit], t[edit]) for r, t in zip(results, truths)])
        copy = np.mean([psnr(p, t[edit]) for p, t in zip(photos, truths)])
        nearest = 0
        rivals = set()
        for photo, truth, result in zip(photos, truths, results):
            distances = {"input": mse(result[edit], photo), **{k: mse(result[edit], v) for k, v in truth.items()}}
            best = min(distances, key=distances.get)
            nearest += best == edit
            rivals |= {best} - {edit}
        similar = np.mean([ssim(r[edit], p) for r, p in zip(results, photos)])
        good = bool(quality >= 18 and nearest >= len(photos) - 1)
        passed += [edit] if good else []
        print(
            f"| {edit:16} | {quality:5.1f} | {copy:5.1f} | {nearest} of {len(photos)} | {similar:.2f} "
            f"| {'yes' if good else 'NO'} | {' '.join(sorted(rivals))}"
        )
    print(f"{len(passed)} of {len(results[0])} edits pass", flush=True)
    return passed


def sheet(rows, file, cell=128):
    picture = Image.new("RGB", (len(rows[0]) * cell, len(rows) * cell))
    for j, row in enumerate(rows):
        for i, image in enumerate(row):
            picture.paste(image.resize((cell, cell)), (i * cell, j * cell))
    picture.save(file)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--photos", required=True, help="folder of the test photographs")
    parser.add_argument("--size", default="256x256", help="WIDTHxHEIGHT, both multiples of 16")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--wordings", choices=["held-out", "patterns"], default="held-out")
    parser.add_argument("--shift", type=int, default=0, help="which of the three wordings the first photograph gets")
    parser.add_argument("--only", help="a few edits, separated by commas")
    parser.add_argument("--sheet", help="a picture of all results: input, round trip, then the edits")
    parser.add_argument("--half", action="store_true", help="compute in bfloat16")
    parser.add_argument("--controls", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(2)
    pipe = FluxKontextPipeline.from_pretrained(args.model, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    if args.half:
        pipe.to(torch.bfloat16)
    size = tuple(int(n) for n in args.size.split("x"))
    files = sorted(glob.glob(os.path.join(args.photos, "*.jpg")))
    photos = [ImageOps.fit(Image.open(f).convert("RGB"), size, Image.LANCZOS) for f in files]
    truths = [{name: edits.apply(name, p) for name in edits.NAMES} for p in photos]
    chosen = args.only.split(",") if args.only else edits.NAMES

    rounds = [round_trip(pipe.vae.float(), p) for p in photos]
    if args.half:
        pipe.vae.to(torch.bfloat16)
    figures = ", ".join(f"{os.path.basename(f)[:-4]} {psnr(p, r):.1f}" for f, p, r in zip(files, photos, rounds))
    print(f"round trip {np.mean([psnr(p, r) for p, r in zip(photos, rounds)]):.2f} dB ({figures})", flush=True)

    def edit_all():
        return [
            {e: run(pipe, p, prompt_for(e, j + args.shift, args.wordings), args.steps) for e in chosen}
            for j, p in enumerate(photos)
        ]

    begin = time.time()
    results = edit_all()
    print(f"{(time.time() - begin) / len(photos) / len(chosen):.1f} s an edit, {args.steps} steps, {args.size}")
    print("| edit | PSNR | a copy's | nearest | SSIM to input | passes | nearer to")
    judge(photos, truths, results)
    if "black-and-white" in chosen:
        for file, p, r in zip(files, photos, results):
            left, allowed = chroma(r["black-and-white"]), max(0.03, chroma(p) / 10)
            likeness = ssim(r["black-and-white"], p)
            print(f"{os.path.basename(file):14} black and white: colour {left:.3f} of {allowed:.3f}, SSIM {likeness:.2f}")
    if args.sheet:
        sheet([[p, r, *row.values()] for p, r, row in zip(photos, rounds, results)], args.sheet)
    if args.controls:
        print("control: the round trip of the input given as every result")
        copies = judge(photos, truths, [{e: r for e in chosen} for r in rounds])
        print("control: shuffled transformer")
        torch.manual_seed(0)
        with torch.no_grad():
            for p in pipe.transformer.parameters():
                p.copy_(p.flatten()[torch.randperm(p.numel())].view_as(p))
        shuffled = judge(photos, truths, edit_all())
        if copies or shuffled:
            raise SystemExit("a control passed")


if __name__ == "__main__":
    main()
