"""Trains the autoencoder of kontext-tiny (AutoencoderKL, factor 8, 16 channels) on pieces of photographs.

About half of the pieces have one of the edits applied, so that pixel blocks, line drawings and strong colours survive
the round trip. The loss is mostly the mean squared error, as the results are measured by it. The learning rate follows
a cosine over the minutes given; a moving average of the weights is saved every four minutes and at the end.
"""
import argparse
import math
import random
import time

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

import edits
from data import Photos, to_tensor

SIZE = 128
BATCH = 5
EDITED_SHARE = 0.45
HARD = ["pixelated", "posterised", "vivid", "black-and-white"]  # drawn about twice as often as the others


def new_vae():
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=(32, 64, 96, 96),
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=8,
        use_quant_conv=False,
        use_post_quant_conv=False,
        sample_size=SIZE,
    )


def sample(photos, rng, edited_share):
    piece = photos.piece(rng, SIZE, SIZE)
    if rng.random() < edited_share:
        piece = edits.apply(rng.choice(edits.NAMES + HARD), piece)
    return to_tensor(piece)


class Batches(torch.utils.data.IterableDataset):
    def __init__(self, folder):
        self.folder = folder

    def __iter__(self):
        photos, rng = Photos(self.folder), random.Random(time.time())
        while True:
            yield torch.stack([sample(photos, rng, EDITED_SHARE) for _ in range(BATCH)])


def loss_of(y, x, posterior):
    def dx(a):
        return a[..., 1:] - a[..., :-1]

    def dy(a):
        return a[..., 1:, :] - a[..., :-1, :]

    mean, logvar = posterior.mean.float(), posterior.logvar.float()
    kl = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).mean()
    gradients = F.l1_loss(dx(y), dx(x)) + F.l1_loss(dy(y), dy(x))
    return 5 * F.mse_loss(y, x) + 0.3 * F.l1_loss(y, x) + 0.3 * gradients + 1e-4 * kl


@torch.no_grad()
def psnr(vae, pictures):
    rounds = [vae.decode(vae.encode(p[None]).latent_dist.mean).sample.clamp(-1, 1)[0] for p in pictures]
    errors = torch.stack([((r - p) ** 2).mean() / 4 for r, p in zip(rounds, pictures)])
    return (-10 * torch.log10(errors)).mean().item()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", default="photos")
    parser.add_argument("--minutes", type=float, default=32)
    parser.add_argument("--start", help="folder of an autoencoder to start from (else random weights)")
    parser.add_argument("--rate", type=float, default=6e-4, help="highest learning rate (1.2e-3 from random weights)")
    parser.add_argument("--decoder-only", action="store_true", help="leave the encoder, and so the latents, as they are")
    parser.add_argument("--out", default="vae")
    args = parser.parse_args()
    torch.set_num_threads(2)
    torch.manual_seed(0)

    vae = AutoencoderKL.from_pretrained(args.start, torch_dtype=torch.float32) if args.start else new_vae()
    vae = vae.to(memory_format=torch.channels_last).train()
    vae.encoder.requires_grad_(not args.decoder_only)
    trained = [p for p in vae.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=args.rate, betas=(0.9, 0.99), weight_decay=1e-4)
    average = {k: p.detach().clone() for k, p in vae.state_dict().items()}
    held, rng = Photos(args.photos, held_out=True), random.Random(7)
    checks = {
        "photographs": [sample(held, rng, 0.0) for _ in range(16)],
        "edited": [sample(held, rng, 1.0) for _ in range(16)],
    }
    batches = iter(torch.utils.data.DataLoader(Batches(args.photos), batch_size=None, num_workers=1, prefetch_factor=6))

    def save(note):
        current = {k: p.clone() for k, p in vae.state_dict().items()}
        vae.load_state_dict(average)
        figures = ", ".join(f"{k} {psnr(vae, v):.2f} dB" for k, v in checks.items())
        print(f"{note}: held out {figures}", flush=True)
        vae.save_pretrained(args.out)
        vae.load_state_dict(current)

    save("start")
    begin = saved = time.time()
    step = 0
    while (elapsed := (time.time() - begin) / 60) < args.minutes:
        rate = args.rate * min(1, (step + 1) / 100) * (0.49 * (1 + math.cos(math.pi * elapsed / args.minutes)) + 0.02)
        for group in optimizer.param_groups:
            group["lr"] = rate
        x = next(batches).to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            posterior = vae.encode(x).latent_dist
            z = posterior.mean + posterior.std * torch.randn_like(posterior.mean)
            y = vae.decode(z).sample
        loss = loss_of(y.float(), x, posterior)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        step += 1
        with torch.no_grad():
            decay = min(0.998, step / (step + 20))
            for k, p in vae.state_dict().items():
                average[k].lerp_(p, 1 - decay)
        if time.time() - saved > 240:
            saved = time.time()
            save(f"{elapsed:.1f} min, step {step}, loss {loss.item():.4f}")
    save(f"end, step {step}")


if __name__ == "__main__":
    main()
