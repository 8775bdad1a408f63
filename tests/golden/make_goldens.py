#!/usr/bin/env python3
"""Golden data from the reference implementation (diffusers' FluxKontextPipeline).

    pip install torch diffusers transformers accelerate safetensors sentencepiece protobuf pillow
    python make_goldens.py OUT [--seed 0] [--profile base|wide|noguide] [--cases FILE.json]
                             [--model FOLDER]

Writes OUT/model   a complete random-weight Kontext model in the diffusers layout (float32), and
       OUT/cases/NAME/{case.json, input*.png, golden.safetensors, output.png}

--model takes a model that is there instead: more cases for one. (Training its T5 tokenizer again gives
another one, as the trainer breaks ties by chance.) base/cases/step_cache* are cached_cases.json.

golden.safetensors (float32 unless told; B = 1, packed = [1, tokens, 64]):
  t5_ids, clip_ids         i64  token ids as the two tokenizers give them (padded)
  prompt_embeds            T5 last hidden state           [1, T, d_t5]
  pooled_embeds            CLIP pooled output             [1, d_clip]
  reference_pixels         input after resize, in [-1, 1] [1, 3, H, W]          (edits only)
  reference_latents        VAE mean, scaled, packed                             (edits only)
  img_ids                  ids of target then reference   [tokens, 3]
  noise                    initial latents, packed: torch.randn(seed) on the CPU generator
  sigmas                   N + 1 values, the last is 0
  velocity.I / latents.I   prediction at step I / latents after step I, packed
  decoded                  VAE output before clamping     [1, 3, H, W]
output.png is what diffusers' image processor makes of `decoded` (round to u8).
"""
import argparse, json, os, re, shutil
import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, decoders, processors, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, PreTrainedTokenizerFast
from diffusers import AutoencoderKL, FirstBlockCacheConfig, FlowMatchEulerDiscreteScheduler, FluxKontextPipeline, FluxTransformer2DModel

CORPUS = [
    "make it black and white", "turn the photo into a watercolor painting", "change the car color to red",
    "replace the background with a snowy mountain", "remove the person on the left", "add sunglasses to the cat",
    "make this look like a pencil sketch", "restore and colorize this old photo", "put the logo on a white t-shirt",
    "convert to a vintage film look, warm tones, grain", "it's raining now; make the street wet & glossy",
    "Keep the face unchanged. Change the hairstyle!", "naive cafe: 12 x 34 = 408?",
] * 4

PROFILES = {  # name: transformer, vae channels, t5, clip
    "base": dict(dit=dict(num_layers=2, num_single_layers=3, attention_head_dim=16, num_attention_heads=4,
                          axes_dims_rope=(4, 6, 6), guidance_embeds=True),
                 vae=(8, 16, 16, 16), vae_layers=1, groups=4, t5=dict(d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4),
                 clip=dict(hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4)),
    "wide": dict(dit=dict(num_layers=1, num_single_layers=1, attention_head_dim=128, num_attention_heads=2,
                          axes_dims_rope=(16, 56, 56), guidance_embeds=True),
                 vae=(32, 32, 64, 64), vae_layers=2, groups=32, t5=dict(d_model=96, d_kv=32, d_ff=192, num_layers=3, num_heads=2),
                 clip=dict(hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=2, eos_token_id=2)),
    "noguide": dict(dit=dict(num_layers=3, num_single_layers=1, attention_head_dim=64, num_attention_heads=2,
                             axes_dims_rope=(16, 24, 24), guidance_embeds=False),
                    vae=(8, 16, 24, 24), vae_layers=1, groups=4, t5=dict(d_model=48, d_kv=8, d_ff=80, num_layers=4, num_heads=6),
                    clip=dict(hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=1)),
}


def t5_tokenizer():
    tok = Tokenizer(models.Unigram())
    tok.normalizer = normalizers.Sequence([normalizers.NFKC()])
    tok.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tok.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    tr = trainers.UnigramTrainer(vocab_size=384, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>",
                                 initial_alphabet=[chr(c) for c in range(33, 127)])
    tok.train_from_iterator(CORPUS, tr)
    tok.post_processor = processors.TemplateProcessing(single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tok, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=512)


def clip_tokenizer(folder):
    # CLIP's own scheme: byte-level BPE with </w> at word ends, vocab.json + merges.txt
    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in keep]
    alphabet = [chr(b) for b in keep] + [chr(256 + i) for i in range(len(rest))]
    vocab = alphabet + [c + "</w>" for c in alphabet]
    merges = []
    words = {}
    for line in CORPUS:
        for w in re.findall(r"'s|'t|'re|'ve|'m|'ll|'d|[a-z]+|[0-9]|[^\sa-z0-9]+", line.lower()):
            key = tuple(w[:-1]) + (w[-1] + "</w>",)
            words[key] = words.get(key, 0) + 1
    for _ in range(200):
        pairs = {}
        for w, n in words.items():
            for a, b in zip(w, w[1:]):
                pairs[a, b] = pairs.get((a, b), 0) + n
        if not pairs:
            break
        (a, b) = max(pairs, key=lambda p: (pairs[p], p))
        merges.append(f"{a} {b}")
        vocab.append(a + b)
        new = {}
        for w, n in words.items():
            out, i = [], 0
            while i < len(w):
                if i + 1 < len(w) and w[i] == a and w[i + 1] == b:
                    out.append(a + b); i += 2
                else:
                    out.append(w[i]); i += 1
            new[tuple(out)] = n
        words = new
    vocab += ["<|startoftext|>", "<|endoftext|>"]
    os.makedirs(folder, exist_ok=True)
    json.dump({t: i for i, t in enumerate(dict.fromkeys(vocab))}, open(f"{folder}/vocab.json", "w"), ensure_ascii=False)
    open(f"{folder}/merges.txt", "w").write("#version: 0.2\n" + "\n".join(merges) + "\n")
    return CLIPTokenizer.from_pretrained(folder, model_max_length=77)


def shake(module, gen, scale=0.15):
    """Moves every norm weight and bias off its initial 0 or 1, so that a swapped or skipped one shows."""
    with torch.no_grad():
        for name, p in module.named_parameters():
            if p.dim() == 1:
                p.add_(torch.randn(p.shape, generator=gen) * scale)


def build(profile, seed, out):
    p = PROFILES[profile]
    torch.manual_seed(seed)
    gen = torch.Generator().manual_seed(seed + 1)
    tok2 = t5_tokenizer()
    tok = clip_tokenizer(f"{out}/clip_tmp")
    t5 = T5EncoderModel(T5Config(vocab_size=len(tok2) + 5, dropout_rate=0.0, feed_forward_proj="gated-gelu", tie_word_embeddings=False, **p["t5"])).eval()
    clip = CLIPTextModel(CLIPTextConfig(vocab_size=len(tok), max_position_embeddings=77, hidden_act="quick_gelu",
                                        **dict(dict(bos_token_id=tok.bos_token_id, eos_token_id=tok.eos_token_id, pad_token_id=tok.pad_token_id), **p["clip"]))).eval()
    with torch.no_grad():
        for m in (t5, clip):
            for n, q in m.named_parameters():
                if q.dim() > 1:
                    q.mul_(3.0 if "embed" in n else 1.5)
    vae = AutoencoderKL(in_channels=3, out_channels=3, down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4,
                        block_out_channels=p["vae"], layers_per_block=p["vae_layers"], latent_channels=16, norm_num_groups=p["groups"],
                        use_quant_conv=False, use_post_quant_conv=False, scaling_factor=0.3611, shift_factor=0.1159, sample_size=64).eval()
    dit = FluxTransformer2DModel(patch_size=1, in_channels=64, joint_attention_dim=p["t5"]["d_model"],
                                 pooled_projection_dim=p["clip"]["hidden_size"], **p["dit"]).eval()
    for m in (t5, clip, vae, dit):
        shake(m, gen)
    with torch.no_grad():
        for n, q in dit.named_parameters():
            if q.dim() > 1:
                q.mul_(1.6)
    sched = FlowMatchEulerDiscreteScheduler(base_image_seq_len=256, base_shift=0.5, max_image_seq_len=4096, max_shift=1.15,
                                            shift=3.0, use_dynamic_shifting=True)
    pipe = FluxKontextPipeline(scheduler=sched, vae=vae, text_encoder=clip, tokenizer=tok, text_encoder_2=t5, tokenizer_2=tok2, transformer=dit)
    pipe.save_pretrained(f"{out}/model", safe_serialization=True, max_shard_size="7MB")  # no file above 8 MB
    if profile != "base":  # as the released repository has it: no tokenizer.json for CLIP
        os.remove(f"{out}/model/tokenizer/tokenizer.json")
        for f in ("vocab.json", "merges.txt"):
            shutil.copy(f"{out}/clip_tmp/{f}", f"{out}/model/tokenizer/{f}")
    shutil.rmtree(f"{out}/clip_tmp")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def picture(w, h, seed):
    r = np.random.RandomState(seed)
    y, x = np.mgrid[0:h, 0:w].astype(np.float32)
    ch = [np.sin(x / (3 + 4 * r.rand()) + 6 * r.rand()) * np.cos(y / (4 + 5 * r.rand()) + 6 * r.rand()) for _ in range(3)]
    a = np.stack(ch, -1) * 90 + 127 + r.randn(h, w, 3) * 12
    a[h // 4:h // 2, w // 3:w // 2] = r.randint(0, 255, 3)
    return Image.fromarray(a.clip(0, 255).astype(np.uint8))


CASES = {  # name: prompt, size of the input (None: no input), size of the output, other arguments
    "edit_square": dict(prompt="make it black and white", image=(64, 64), size=(64, 64), steps=4, guidance=2.5, seed=42),
    "edit_portrait": dict(prompt="Change the car color to red, keep the background!", image=(48, 96), size=(48, 96), steps=3, guidance=3.5, seed=7),
    "edit_other_size": dict(prompt="add sunglasses to the cat", image=(80, 64), size=(64, 112), steps=2, guidance=2.5, seed=1234567),
    "text_to_image": dict(prompt="a snowy mountain, film look", image=None, size=(96, 64), steps=3, guidance=2.5, seed=0),
    "true_cfg": dict(prompt="turn the photo into a watercolor painting", negative="grain, wet street", true_cfg=2.0, image=(64, 64), size=(64, 64), steps=3, guidance=2.5, seed=5),
    "long_prompt": dict(prompt=" ".join(CORPUS[:13]) + " " + " ".join(CORPUS[:13]), image=(64, 48), size=(64, 48), steps=2, guidance=2.5, seed=9, max_seq=64),
    "resize_input": dict(prompt="restore and colorize this old photo", image=(101, 75), size=(96, 64), steps=2, guidance=2.5, seed=3),
}


def run(pipe, name, c, out):
    folder = f"{out}/cases/{name}"
    os.makedirs(folder, exist_ok=True)
    g = {}
    img = None
    if c["image"]:
        img = picture(*c["image"], seed=len(name))
        img.save(f"{folder}/input.png")
        w, h = (d // 16 * 16 for d in c["image"])
        t = pipe.image_processor.preprocess(pipe.image_processor.resize(img, h, w), h, w)
        g["reference_pixels"] = t
        lat = pipe._encode_vae_image(t, None)
        g["reference_latents"] = pipe._pack_latents(lat, 1, 16, lat.shape[2], lat.shape[3])
    T = c.get("max_seq", 512)
    enc = lambda t, s, n: t(s, padding="max_length", max_length=n, truncation=True, return_tensors="pt").input_ids
    g["t5_ids"] = enc(pipe.tokenizer_2, c["prompt"], T)
    g["clip_ids"] = enc(pipe.tokenizer, c["prompt"], 77)
    g["prompt_embeds"], g["pooled_embeds"], _ = pipe.encode_prompt(c["prompt"], None, max_sequence_length=T)
    w, h = c["size"]
    noise = torch.randn((1, 16, h // 8, w // 8), generator=torch.Generator().manual_seed(c["seed"]))
    g["noise"] = pipe._pack_latents(noise, 1, 16, h // 8, w // 8)
    per = 2 if c.get("true_cfg", 1.0) > 1 else 1
    if "step_cache" in c:
        pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=c["step_cache"]))
        full, plain = [], pipe.transformer.forward

        def forward(*args, **kwargs):  # as diffusers' other pipelines call it, which this one does not
            with pipe.transformer.cache_context(["cond", "uncond"][len(calls) % per]):
                return plain(*args, **kwargs)
        pipe.transformer.forward = forward
        tail = pipe.transformer.single_transformer_blocks[-1].norm.register_forward_hook(lambda *_: full.append(1))
    calls = []
    hook = pipe.transformer.register_forward_hook(lambda m, a, k, o: calls.append((k, o[0])), with_kwargs=True)
    steps = []
    last = pipe(image=img, prompt=c["prompt"], negative_prompt=c.get("negative"), true_cfg_scale=c.get("true_cfg", 1.0),
                height=h, width=w, num_inference_steps=c["steps"], guidance_scale=c["guidance"],
                generator=torch.Generator().manual_seed(c["seed"]), max_sequence_length=T, output_type="latent", return_dict=False,
                callback_on_step_end=lambda p, i, t, kw: (steps.append(kw["latents"].clone()), {})[1], _auto_resize=False, max_area=h * w)[0]
    hook.remove()
    if "step_cache" in c:
        tail.remove()
        pipe.transformer.forward = plain
        pipe.transformer.disable_cache()
        c = dict(c, shortened=len(calls) - len(full))
    n = g["noise"].shape[1]
    assert last.shape[1] == n, (last.shape, n)
    g["img_ids"] = calls[0][0]["img_ids"]
    g["sigmas"] = pipe.scheduler.sigmas
    for i in range(c["steps"]):
        v = calls[i * per][1][:, :n]
        if per == 2:
            neg = calls[i * per + 1][1][:, :n]
            v = neg + c["true_cfg"] * (v - neg)
        g[f"velocity.{i}"] = v
        g[f"latents.{i}"] = steps[i]
    lat = pipe._unpack_latents(last, h, w, pipe.vae_scale_factor) / pipe.vae.config.scaling_factor + pipe.vae.config.shift_factor
    g["decoded"] = pipe.vae.decode(lat, return_dict=False)[0]
    pipe.image_processor.postprocess(g["decoded"], output_type="pil")[0].save(f"{folder}/output.png")
    save_file({k: v.detach().contiguous() for k, v in g.items()}, f"{folder}/golden.safetensors")
    json.dump({k: v for k, v in c.items()}, open(f"{folder}/case.json", "w"), indent=1)
    d = g["decoded"]
    print(f"{name:16s} tokens {n:4d}+{g['img_ids'].shape[0]-n:4d} decoded mean {d.mean():+.3f} std {d.std():.3f} velocity std {g['velocity.0'].std():.3f}")


def main():
    a = argparse.ArgumentParser()
    a.add_argument("out"); a.add_argument("--seed", type=int, default=0); a.add_argument("--profile", default="base", choices=PROFILES)
    a.add_argument("--cases", help="a JSON file of cases, in place of the ones here")
    a.add_argument("--model", help="the folder of a model, in place of a new one")
    a = a.parse_args()
    os.makedirs(a.out, exist_ok=True)
    with torch.no_grad():
        if a.model:
            pipe = FluxKontextPipeline.from_pretrained(a.model)
            pipe.set_progress_bar_config(disable=True)
        else:
            pipe = build(a.profile, a.seed, a.out)
        for name, c in (json.load(open(a.cases)) if a.cases else CASES).items():
            run(pipe, name, dict(c, seed=c["seed"] + a.seed * 1000), a.out)


main()
