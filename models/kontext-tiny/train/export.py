"""Turns a trained pipeline into the model that is shipped: float16, files of at most 7 MB, only the model's own folders.

The folders are replaced one by one in the target, whatever else lies there stays.
"""
import argparse
import pathlib
import shutil
import tempfile

import torch
from diffusers import FluxKontextPipeline

FOLDERS = ["scheduler", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "transformer", "vae"]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help="the pipeline that train_transformer.py saved")
    parser.add_argument("--vae", help="take the autoencoder's weights from this folder instead")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parents[1])
    args = parser.parse_args()
    pipe = FluxKontextPipeline.from_pretrained(args.run, torch_dtype=torch.float32)
    if args.vae:
        pipe.vae.load_state_dict(type(pipe.vae).from_pretrained(args.vae, torch_dtype=torch.float32).state_dict())
    pipe.to(torch.float16)
    for module in (pipe.transformer, pipe.vae, pipe.text_encoder, pipe.text_encoder_2):
        for name, tensor in module.state_dict().items():
            assert torch.isfinite(tensor).all(), f"{name} does not fit in float16"
    with tempfile.TemporaryDirectory() as folder:
        made = pathlib.Path(folder) / "kontext-tiny"
        pipe.save_pretrained(made, max_shard_size="7MB")
        args.out.mkdir(parents=True, exist_ok=True)
        for name in FOLDERS:
            shutil.rmtree(args.out / name, ignore_errors=True)
            shutil.copytree(made / name, args.out / name)
        shutil.copy(made / "model_index.json", args.out / "model_index.json")
    files = [f for name in FOLDERS for f in (args.out / name).iterdir()]
    sizes = {f.relative_to(args.out).as_posix(): f.stat().st_size for f in files}
    for name, size in sorted(sizes.items()):
        print(f"{size:9} {name}")
    print(f"{sum(sizes.values()):9} in all")
    if max(sizes.values()) > 8_000_000 or sum(sizes.values()) > 30_000_000:
        raise SystemExit("too large")


if __name__ == "__main__":
    main()
