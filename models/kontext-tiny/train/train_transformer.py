"""Trains the transformer and both text encoders of kontext-tiny on cached latents, by flow matching.

The network sees the noisy edited picture and the clean original as two sets of tokens, as the released model does, and
predicts the velocity (noise minus picture). Two things make so small a network learn: the query and key biases of four
heads begin at 1.5, so that attention starts as a positional kernel and finds the reference's matching token at once; and
positions are shifted at random, so that other picture sizes work. The learning rate follows a cosine over the minutes
given; a moving average of the weights is saved as a diffusers pipeline every eight minutes and at the end.
"""
import argparse
import math
import random
import time

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxKontextPipeline, FluxTransformer2DModel

import edits
import text
from wordings import training_prompt

HEADS, HEAD_SIZE = 6, 32
BATCH = 16


def new_transformer():
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=64,
        num_layers=2,
        num_single_layers=4,
        attention_head_dim=HEAD_SIZE,
        num_attention_heads=HEADS,
        joint_attention_dim=96,
        pooled_projection_dim=64,
        guidance_embeds=True,
        axes_dims_rope=(8, 12, 12),
    )
    with torch.no_grad():
        for name, parameter in transformer.named_parameters():
            if name.endswith(("attn.to_q.bias", "attn.to_k.bias")):
                parameter.view(HEADS, HEAD_SIZE)[:4] += 1.5
            if any(part in name for part in ("norm1", "norm.linear", "norm_out")) or name.startswith("proj_out"):
                parameter.mul_(0.05)
    return transformer


def new_scheduler():
    return FlowMatchEulerDiscreteScheduler(
        base_image_seq_len=256, base_shift=0.5, max_image_seq_len=4096, max_shift=1.15, shift=3.0, use_dynamic_shifting=True
    )


def load(args):
    """Transformer, T5 encoder and tokenizer, CLIP encoder and tokenizer: new, or those of a saved pipeline."""
    if not args.start:
        clip_tok, t5_tok = text.clip_tokenizer(args.out + "-clip"), text.t5_tokenizer()
        t5, clip = text.encoders(clip_tok, t5_tok)
        return new_transformer(), t5, t5_tok, clip, clip_tok
    pipe = FluxKontextPipeline.from_pretrained(args.start, torch_dtype=torch.float32)
    t5, t5_tok, clip, clip_tok = pipe.text_encoder_2, pipe.tokenizer_2, pipe.text_encoder, pipe.tokenizer
    if args.new_text:
        new_clip_tok, new_t5_tok = text.clip_tokenizer(args.out + "-clip"), text.t5_tokenizer()
        new_t5, new_clip = text.encoders(new_clip_tok, new_t5_tok)
        text.take_over(new_t5, new_t5_tok, t5, t5_tok)
        text.take_over(new_clip, new_clip_tok, clip, clip_tok)
        return pipe.transformer, new_t5, new_t5_tok, new_clip, new_clip_tok
    return pipe.transformer, t5, t5_tok, clip, clip_tok


def pack(z):
    """Latents (n, 16, h, w) to tokens (n, h/2 * w/2, 64)."""
    n, c, h, w = z.shape
    return z.view(n, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(n, h * w // 4, c * 4)


def positions(height, width, top, left, index):
    y, x = torch.meshgrid(torch.arange(height) + top, torch.arange(width) + left, indexing="ij")
    return torch.stack([torch.full_like(y, index), y, x], -1).reshape(-1, 3).float()


class Groups:
    """The cache's groups as tokens; `draw` gives a batch from one of them."""

    def __init__(self, file):
        groups = torch.load(file)
        self.shift = groups[0]["source"].mean().item()
        self.std = groups[0]["source"].std().item()
        self.groups = []
        for g in groups:
            height, width = (n // 2 for n in g["source"].shape[-2:])
            source, target = (pack((g[k] - self.shift) / self.std) for k in ("source", "target"))
            self.groups.append((source, target, g["piece"], g["edit"], height, width))

    def draw(self, rng, large_share):
        if rng.random() < large_share:
            group = rng.choice([self.groups[1], self.groups[1], *self.groups[2:]])
        else:
            group = self.groups[0]
        source, target, piece, edit, height, width = group
        batch = max(4, round(BATCH * 64 / (height * width)))
        i = torch.randint(0, len(edit), (batch,))
        return source[piece[i]], target[i], [edits.NAMES[e] for e in edit[i].tolist()], height, width


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--cache", default="cache.pt")
    parser.add_argument("--vae", default="vae")
    parser.add_argument("--start", help="a saved pipeline to start from (else random weights)")
    parser.add_argument("--new-text", action="store_true", help="with --start: new tokenizers, old weights where they fit")
    parser.add_argument("--rate", type=float, default=1e-3, help="highest learning rate (1.5e-3 from random weights)")
    parser.add_argument("--out", default="run")
    args = parser.parse_args()
    torch.set_num_threads(2)
    torch.manual_seed(int(time.time()))
    rng = random.Random(time.time())

    transformer, t5, t5_tok, clip, clip_tok = load(args)
    modules = [transformer, t5, clip]
    parameters = [p for m in modules for p in m.parameters()]
    print("million parameters:", [round(sum(p.numel() for p in m.parameters()) / 1e6, 2) for m in modules])
    groups = Groups(args.cache)
    print(f"shift {groups.shift:.5f}, scale {1 / groups.std:.5f}", flush=True)
    optimizer = torch.optim.AdamW(parameters, lr=args.rate, betas=(0.9, 0.98), weight_decay=1e-3)
    average = [p.detach().clone() for p in parameters]

    @torch.no_grad()
    def save():
        current = [p.detach().clone() for p in parameters]
        for p, a in zip(parameters, average):
            p.copy_(a)
        vae = AutoencoderKL.from_pretrained(args.vae, torch_dtype=torch.float32)
        vae.register_to_config(scaling_factor=1 / groups.std, shift_factor=groups.shift)
        FluxKontextPipeline(
            scheduler=new_scheduler(),
            vae=vae,
            text_encoder=clip,
            tokenizer=clip_tok,
            text_encoder_2=t5,
            tokenizer_2=t5_tok,
            transformer=transformer,
        ).save_pretrained(args.out)
        for p, c in zip(parameters, current):
            p.copy_(c)

    begin = saved = said = time.time()
    step, losses = 0, []
    while (elapsed := (time.time() - begin) / 60) < args.minutes:
        done = elapsed / args.minutes
        rate = args.rate * min(1, (step + 1) / 100) * (0.49 * (1 + math.cos(math.pi * done)) + 0.02)
        for group in optimizer.param_groups:
            group["lr"] = rate
        source, x0, names, height, width = groups.draw(rng, 0.15 if done < 0.6 else 0.35)
        batch = len(names)
        noise = torch.randn_like(x0)
        t = torch.sigmoid(torch.randn(batch) + 0.3)
        noisy = (1 - t)[:, None, None] * x0 + t[:, None, None] * noise
        hidden, pooled = text.encode(t5, t5_tok, clip, clip_tok, [training_prompt(n, rng) for n in names])
        # The guidance makes no difference to the edits: the network learns to live with any.
        guidance = torch.where(torch.rand(batch) < 0.5, torch.full((batch,), 2.5), torch.rand(batch) * 10)
        top, left = rng.randint(0, 32), rng.randint(0, 32)
        velocity = transformer(
            hidden_states=torch.cat([noisy, source], 1),
            timestep=t,
            guidance=guidance,
            pooled_projections=pooled,
            encoder_hidden_states=hidden,
            txt_ids=torch.zeros(text.T5_LENGTH, 3),
            img_ids=torch.cat([positions(height, width, top, left, i) for i in (0, 1)]),
            return_dict=False,
        )[0][:, : x0.shape[1]]
        loss = F.mse_loss(velocity, noise - x0)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        step += 1
        losses.append(loss.item())
        with torch.no_grad():
            decay = min(0.998, step / (step + 20))
            torch._foreach_lerp_(average, parameters, 1 - decay)
        if time.time() - said > 60:
            said = time.time()
            print(f"{elapsed:.1f} min, step {step}, loss {np.mean(losses[-100:]):.4f}", flush=True)
        if time.time() - saved > 480:
            saved = time.time()
            save()
    save()
    print("end, step", step)


if __name__ == "__main__":
    main()
