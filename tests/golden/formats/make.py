#!/usr/bin/env python3
"""Weights in every format, each file by another's writer, and what the reference makes of them.

    pip install torch diffusers transformers accelerate safetensors gguf sentencepiece pillow
    python make.py OUT SD_CLI

SD_CLI is stable-diffusion.cpp's program `sd-cli`, here of the PyPI source package
stable-diffusion-cpp-python 0.4.7: gguf-py cannot write K types. The rest was made with torch 2.15.0,
diffusers 0.42.1, transformers 5.24.0, gguf 0.19.0, sentencepiece 0.2.3.

`tiny`: a whole model of random weights
  all-in-one.safetensors   checkpoint with ComfyUI's prefixes: BFL's and LDM's names; bf16, VAE f16
  flux-fp8.safetensors     transformer in BFL's names, matrices e4m3 as they round
  flux-fp8-scaled.safetensors  with `model.diffusion_model.`, `scale_weight`, `scaled_fp8`
  flux-fp8-rows.safetensors    in diffusers' names, `weight_scale` per row, `comfy_quant`
  flux-Q8_0.gguf           as ComfyUI-GGUF's convert.py lays it out
  t5.gguf                  T5 as llama.cpp names it, Q8_0, with its tokenizer inside
  transformer.json, vae.json, text_encoder.json, text_encoder_2.json   their configurations
`mixed`: a transformer with a matrix or more in each of ggml's types
  mixed.gguf, mixed.json   by stable-diffusion.cpp
golden.safetensors (f32 unless told):
  tiny.*, mixed.*          one forward's inputs: hidden, text, pooled, img_ids
  velocity.FILE            what the transformer in FILE gives with weights dequantised by torch or gguf-py
  decoded, latents         the VAE of the checkpoint: latents and the picture of them
  picture, encoded         and a picture and its latents, the mean
  t5_ids, embeds           ids (i64) of PROMPT, padded to 32, and T5's output of t5.gguf's weights
  noise, edit.latents.I    an edit with flux-Q8_0.gguf, t5.gguf, and CLIP and VAE of the checkpoint:
                           packed latents after step I of 2, 64x64, guidance 2.5, seed 1, no picture
tokens.json                texts and their ids by sentencepiece
"""
import inspect, json, os, re, subprocess, sys, tempfile
import gguf
import numpy as np
import sentencepiece
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxKontextPipeline, FluxTransformer2DModel
from diffusers.loaders import single_file_utils
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast, T5Config, T5EncoderModel

HERE = os.path.dirname(os.path.abspath(__file__))
BASE = f"{HERE}/../models/base/model"
OUT, SD_CLI = sys.argv[1:3]
PROMPT = "turn the photo into a watercolor painting"
CORPUS = [
    "make it black and white", PROMPT, "change the car color to red", "add sunglasses to the cat",
    "replace the background with a snowy mountain", "remove the person on the left", "restore this old photo",
    "convert to a vintage film look, warm tones, grain", "Keep the face unchanged. Change the hairstyle!",
] * 8
TEXTS = [PROMPT, "Make  it   red", " leading and trailing ", "a\nline\tbreak", "\ufb01lm \u2026 look", "12 x 34 = 408?", "\u96ea", "", "don't"]


def shaken(module, seed, gain):
    """Moves norms and biases off 0 and 1 and raises matrices, so that whatever is swapped shows."""
    gen = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(torch.randn(p.shape, generator=gen) * 0.15) if p.dim() == 1 else p.mul_(gain)
    return module.eval()


def flux_names(state):
    """diffusers' transformer in Black Forest Labs' names; checked below against diffusers' converter."""
    out, s = {}, dict(state)
    def move(to, *names, join=lambda x: torch.cat(x)):
        for kind in ("weight", "bias"):
            if f"{names[0]}.{kind}" in s:
                out[f"{to}.{kind}"] = join([s.pop(f"{n}.{kind}") for n in names])
    def norm(to, name):
        out[f"{to}.scale"] = s.pop(f"{name}.weight")
    for to, name in dict(img_in="x_embedder", txt_in="context_embedder").items():
        move(to, name)
    for to, name in dict(time_in="timestep", guidance_in="guidance", vector_in="text").items():
        move(f"{to}.in_layer", f"time_text_embed.{name}_embedder.linear_1")
        move(f"{to}.out_layer", f"time_text_embed.{name}_embedder.linear_2")
    for i in range(1 + max(int(k.split(".")[1]) for k in state if k.startswith("transformer_blocks."))):
        b, d = f"double_blocks.{i}", f"transformer_blocks.{i}"
        for side, mod, ff, add, out_name in (("img", "norm1", "ff", "to_{}", "to_out.0"), ("txt", "norm1_context", "ff_context", "add_{}_proj", "to_add_out")):
            move(f"{b}.{side}_mod.lin", f"{d}.{mod}.linear")
            move(f"{b}.{side}_attn.qkv", *[f"{d}.attn.{add.format(x)}" for x in "qkv"])
            move(f"{b}.{side}_attn.proj", f"{d}.attn.{out_name}")
            move(f"{b}.{side}_mlp.0", f"{d}.{ff}.net.0.proj")
            move(f"{b}.{side}_mlp.2", f"{d}.{ff}.net.2")
            added = "added_" if side == "txt" else ""
            norm(f"{b}.{side}_attn.norm.query_norm", f"{d}.attn.norm_{added}q")
            norm(f"{b}.{side}_attn.norm.key_norm", f"{d}.attn.norm_{added}k")
    for i in range(1 + max(int(k.split(".")[1]) for k in state if k.startswith("single_transformer_blocks."))):
        b, d = f"single_blocks.{i}", f"single_transformer_blocks.{i}"
        move(f"{b}.modulation.lin", f"{d}.norm.linear")
        move(f"{b}.linear1", *[f"{d}.attn.to_{x}" for x in "qkv"], f"{d}.proj_mlp")
        move(f"{b}.linear2", f"{d}.proj_out")
        norm(f"{b}.norm.query_norm", f"{d}.attn.norm_q")
        norm(f"{b}.norm.key_norm", f"{d}.attn.norm_k")
    move("final_layer.adaLN_modulation.1", "norm_out.linear", join=lambda x: torch.cat(x[0].chunk(2)[::-1]))
    move("final_layer.linear", "proj_out")
    assert not s, list(s)
    return out


def to_diffusers(state, width):
    """diffusers' own converter, which has the released width written into it."""
    source = inspect.getsource(single_file_utils.convert_flux_transformer_checkpoint_to_diffusers)
    scope = dict(vars(single_file_utils))
    exec(source.replace("3072", str(width)), scope)
    return scope["convert_flux_transformer_checkpoint_to_diffusers"](dict(state))


def vae_names(state, levels):
    """diffusers' autoencoder in latent diffusion's names; checked below against diffusers' converter."""
    rules = [
        (r"conv_norm_out", "norm_out"), (r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}"),
        (r"mid_block\.attentions\.0\.group_norm", "mid.attn_1.norm"), (r"mid_block\.attentions\.0\.to_out\.0", "mid.attn_1.proj_out"),
        (r"mid_block\.attentions\.0\.to_([qkv])", r"mid.attn_1.\1"), (r"down_blocks\.(\d)\.resnets", r"down.\1.block"),
        (r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample"), (r"conv_shortcut", "nin_shortcut"),
        (r"up_blocks\.(\d)\.resnets", lambda m: f"up.{levels - 1 - int(m[1])}.block"),
        (r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{levels - 1 - int(m[1])}.upsample"),
    ]
    out = {}
    for name, t in state.items():
        conv = "attentions" in name and t.dim() == 2
        for rule in rules:
            name = re.sub(*rule, name)
        out[name] = t[:, :, None, None] if conv else t
    return out


def model(config):
    return FluxTransformer2DModel(**{k: v for k, v in config.items() if k[0] != "_"})


def velocity(config, state, inputs):
    net = model(config).eval()
    net.load_state_dict({k: v.float() for k, v in state.items()})
    text = inputs["text"]
    return net(hidden_states=inputs["hidden"][None], encoder_hidden_states=text[None], pooled_projections=inputs["pooled"],
               timestep=torch.tensor([0.7]), guidance=torch.tensor([2.5]) if config["guidance_embeds"] else None, img_ids=inputs["img_ids"],
               txt_ids=torch.zeros(len(text), 3), return_dict=False)[0][0]


def inputs_for(config, seed):
    g = torch.Generator().manual_seed(seed)
    ids = torch.tensor([[0, y, x] for y in range(2) for x in range(3)] + [[1, y, x] for y in range(2) for x in range(2)])
    r = lambda *s: torch.randn(s, generator=g)
    return dict(hidden=r(10, 64), text=r(5, config["joint_attention_dim"]), pooled=r(1, config["pooled_projection_dim"]), img_ids=ids.float())


def is_matrix(name, t):
    return t.dim() == 2 and name.endswith(".weight")


def fp8(t, scale):
    return (t.float() / scale).clamp(-448, 448).to(torch.float8_e4m3fn)


def write_gguf(path, arch, state, kind, extra=lambda w: None):
    """One-dimensional tensors in f32, matrices in `kind` where their rows fill blocks, as ComfyUI-GGUF does."""
    w = gguf.GGUFWriter(path, arch)
    w.add_quantization_version(gguf.GGML_QUANT_VERSION)
    extra(w)
    for name, t in state.items():
        t = t.float().numpy()
        q = kind if t.ndim > 1 and t.shape[-1] % gguf.GGML_QUANT_SIZES[kind][0] == 0 else gguf.GGMLQuantizationType.F32
        w.add_tensor(name, gguf.quants.quantize(t, q), raw_dtype=q)
    w.write_header_to_file(); w.write_kv_data_to_file(); w.write_tensors_to_file(); w.close()


def read_gguf(path):
    r, out = gguf.GGUFReader(path), {}
    for t in r.tensors:
        shape = [int(d) for d in reversed(t.shape)]
        out[t.name] = torch.from_numpy(gguf.quants.dequantize(t.data, t.tensor_type).copy()).reshape(shape).float()
    return out, {t.name: t.tensor_type.name for t in r.tensors}


def spm():
    """A tokenizer like T5's: unigram, with a table of letters that are brought to one form."""
    with tempfile.TemporaryDirectory() as d:
        open(f"{d}/corpus", "w").write("\n".join(CORPUS))
        rules = {"\ufb01": "fi", "\u2026": "...", "\t": " ", "\n": " ", "\u00a0": " "}
        hexes = lambda s: " ".join(f"{ord(c):X}" for c in s)
        open(f"{d}/rules", "w").write("".join(f"{hexes(a)}\t{hexes(b)}\n" for a, b in rules.items()))
        sentencepiece.SentencePieceTrainer.train(
            input=f"{d}/corpus", model_prefix=f"{d}/m", vocab_size=76, pad_id=0, eos_id=1, unk_id=2, bos_id=-1,
            normalization_rule_tsv=f"{d}/rules", minloglevel=2, num_threads=1)
        blob = open(f"{d}/m.model", "rb").read()
    from sentencepiece import sentencepiece_model_pb2
    proto = sentencepiece_model_pb2.ModelProto.FromString(blob)
    return sentencepiece.SentencePieceProcessor(model_proto=blob), proto


def main():
    os.makedirs(OUT, exist_ok=True)
    at = lambda name: f"{OUT}/{name}"
    golden = {}
    torch.manual_seed(11)
    tokens, proto = spm()
    dit = dict(_class_name="FluxTransformer2DModel", patch_size=1, in_channels=64, num_layers=1, num_single_layers=1, attention_head_dim=16,
               num_attention_heads=2, joint_attention_dim=32, pooled_projection_dim=16, guidance_embeds=True, axes_dims_rope=[4, 6, 6])
    mixed = dict(dit, num_layers=3, num_attention_heads=4, guidance_embeds=False)
    flux = {k: v.bfloat16() for k, v in shaken(model(dit), 1, 1.6).state_dict().items()}
    t5 = shaken(T5EncoderModel(T5Config(vocab_size=128, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2, dropout_rate=0.0,
                                        feed_forward_proj="gated-gelu", tie_word_embeddings=False)), 2, 2.0)
    clip = shaken(CLIPTextModel(CLIPTextConfig(vocab_size=686, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
                                               max_position_embeddings=77, hidden_act="quick_gelu", bos_token_id=684, eos_token_id=685, pad_token_id=685)), 3, 1.5)
    vae = shaken(AutoencoderKL(in_channels=3, out_channels=3, down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4,
                               block_out_channels=(4, 4, 4, 4), layers_per_block=1, latent_channels=16, norm_num_groups=2, use_quant_conv=False,
                               use_post_quant_conv=False, scaling_factor=0.3611, shift_factor=0.1159, sample_size=64), 4, 1.3)
    for name, config in dict(transformer=dit, mixed=mixed, vae=dict(vae.config), text_encoder=clip.config.to_dict(), text_encoder_2=t5.config.to_dict()).items():
        if name == "vae":
            config["_class_name"] = "AutoencoderKL"
        json.dump(config, open(at(f"{name}.json"), "w"), indent=1, sort_keys=True, default=str)

    tiny_in, mixed_in = inputs_for(dit, 5), inputs_for(mixed, 6)
    golden.update({f"tiny.{k}": v for k, v in tiny_in.items()} | {f"mixed.{k}": v for k, v in mixed_in.items()})
    bfl = flux_names(flux)
    back = to_diffusers(bfl, 32)
    assert back.keys() == flux.keys() and all(torch.equal(back[k], flux[k]) for k in flux)

    # a checkpoint with all parts
    vae16 = {k: v.half() for k, v in vae.state_dict().items()}
    ldm = vae_names(vae16, 4)
    back = single_file_utils.convert_ldm_vae_checkpoint(dict(ldm), vae.config)
    assert back.keys() == vae16.keys() and all(torch.equal(back[k], vae16[k]) for k in vae16)
    bf16 = lambda state: {k: v.bfloat16() for k, v in state.items()}
    clip16, t516 = bf16(clip.state_dict()), bf16(t5.state_dict())
    prefixed = lambda prefix, state: {prefix + k: v.clone().contiguous() for k, v in state.items()}
    nested = {k if k.startswith("text_model.") else f"text_model.{k}": v for k, v in clip16.items()}
    save_file(prefixed("model.diffusion_model.", bfl) | prefixed("vae.", ldm) | prefixed("text_encoders.clip_l.transformer.", nested)
              | {"text_encoders.clip_l.logit_scale": torch.tensor(4.6)} | prefixed("text_encoders.t5xxl.transformer.", t516), at("all-in-one.safetensors"))
    golden["velocity.all-in-one.safetensors"] = velocity(dit, flux, tiny_in)
    vae.load_state_dict({k: v.float() for k, v in vae16.items()})
    clip.load_state_dict({k: v.float() for k, v in clip16.items()})
    golden["latents"] = torch.randn((1, 16, 4, 6), generator=torch.Generator().manual_seed(8))
    golden["decoded"] = vae.decode(golden["latents"] / 0.3611 + 0.1159, return_dict=False)[0]

    golden["picture"] = torch.rand((1, 3, 16, 24), generator=torch.Generator().manual_seed(9)) * 2 - 1
    golden["encoded"] = (vae.encode(golden["picture"]).latent_dist.mean - 0.1159) * 0.3611

    # 8-bit floats
    plain = {k: fp8(v, 1) if is_matrix(k, v) else v for k, v in bfl.items()}
    save_file(plain, at("flux-fp8.safetensors"))
    golden["velocity.flux-fp8.safetensors"] = velocity(dit, to_diffusers({k: v.float() for k, v in plain.items()}, 32), tiny_in)
    scaled, exact = {"scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)}, {}
    for k, v in bfl.items():
        scaled[k], exact[k] = v, v
        if is_matrix(k, v):
            scale = v.float().abs().max() / 448
            scaled[k], layer = fp8(v, scale), k.removesuffix(".weight")
            exact[k] = scaled[k].float() * scale
            scaled[f"{layer}.scale_weight"] = scale.reshape(1) if "mlp" in k else scale
            scaled[f"{layer}.scale_input"] = torch.tensor(1.0)
    save_file(prefixed("model.diffusion_model.", scaled), at("flux-fp8-scaled.safetensors"))
    golden["velocity.flux-fp8-scaled.safetensors"] = velocity(dit, to_diffusers(exact, 32), tiny_in)
    rows, exact = {}, {}
    for k, v in flux.items():
        rows[k], exact[k] = v, v
        if is_matrix(k, v):
            scale = v.float().abs().amax(1, keepdim=True) / 448
            rows[k], layer = fp8(v, scale), k.removesuffix(".weight")
            exact[k] = rows[k].float() * scale
            rows[f"{layer}.weight_scale"] = scale if "ff" in k else scale[:, 0].contiguous()
            rows[f"{layer}.comfy_quant"] = torch.tensor(list(json.dumps({"format": "float8_e4m3fn"}).encode()), dtype=torch.uint8)
    save_file(rows, at("flux-fp8-rows.safetensors"))
    golden["velocity.flux-fp8-rows.safetensors"] = velocity(dit, exact, tiny_in)

    # GGUF
    write_gguf(at("flux-Q8_0.gguf"), "flux", bfl, gguf.GGMLQuantizationType.Q8_0)
    q8 = to_diffusers(read_gguf(at("flux-Q8_0.gguf"))[0], 32)
    golden["velocity.flux-Q8_0.gguf"] = velocity(dit, q8, tiny_in)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.T5ENCODER, 2)
    llama = {names.get_name(k, try_suffixes=(".weight",)): v for k, v in t5.state_dict().items() if k != "encoder.embed_tokens.weight"}
    assert None not in llama, llama.keys()

    def tokenizer(w):  # as convert_hf_to_gguf.py does for T5
        pieces = [(p.piece, p.score, p.type) for p in proto.pieces]
        pieces += [(f"[PAD{i}]", -10000.0, 5) for i in range(len(pieces), 128)]
        w.add_tokenizer_model("t5"); w.add_tokenizer_pre("default")
        w.add_token_list([p[0].encode() for p in pieces]); w.add_token_scores([p[1] for p in pieces]); w.add_token_types([p[2] for p in pieces])
        w.add_add_space_prefix(True); w.add_remove_extra_whitespaces(True)
        w.add_precompiled_charsmap(proto.normalizer_spec.precompiled_charsmap)
        w.add_eos_token_id(1); w.add_unk_token_id(2); w.add_pad_token_id(0)
    write_gguf(at("t5.gguf"), "t5encoder", llama, gguf.GGMLQuantizationType.Q8_0, tokenizer)
    back = {v: k for k, v in ((k, names.get_name(k, try_suffixes=(".weight",))) for k in t5.state_dict() if k != "encoder.embed_tokens.weight")}
    t5.load_state_dict({back[k]: v for k, v in read_gguf(at("t5.gguf"))[0].items()}, strict=False)
    json.dump([dict(text=t, ids=tokens.encode(t) + [1]) for t in TEXTS], open(at("tokens.json"), "w"), indent=1)
    ids = (tokens.encode(PROMPT) + [1] + [0] * 32)[:32]
    golden["t5_ids"] = torch.tensor([ids])
    golden["embeds"] = t5(golden["t5_ids"])[0]

    # one matrix or more in each of ggml's types
    big = {k: v.bfloat16() for k, v in shaken(model(mixed), 7, 1.6).state_dict().items()}
    with tempfile.TemporaryDirectory() as d:
        save_file({k: v.contiguous() for k, v in flux_names(big).items()}, f"{d}/in.safetensors")
        rules = {r"blocks.0.img_mlp.2.weight": "q2_K", r"blocks.0.txt_mlp.2.weight": "q3_K", r"blocks.1.img_mlp.2.weight": "q4_K",
                 r"blocks.1.txt_mlp.2.weight": "q5_K", r"blocks.2.img_mlp.2.weight": "q6_K", r"img_attn.qkv": "q5_0", r"txt_attn.qkv": "q5_1",
                 r"txt_mlp.0": "q4_1", r"img_attn.proj": "q8_0", r"0.txt_attn.proj": "f32", r"1.txt_attn.proj": "f16",
                 r"2.txt_attn.proj": "bf16"}
        subprocess.run([SD_CLI, "-M", "convert", "-m", f"{d}/in.safetensors", "-o", at("mixed.gguf"), "--type", "q4_0", "--tensor-type-rules",
                        ",".join(f"{k}={v}" for k, v in rules.items())], check=True)
    state, kinds = read_gguf(at("mixed.gguf"))
    wanted = {"F32", "F16", "BF16", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"}
    assert set(kinds.values()) == wanted, wanted ^ set(kinds.values())
    golden["velocity.mixed.gguf"] = velocity(mixed, to_diffusers(state, 64), mixed_in)

    # an edit with a part of each
    net = model(dit).eval()
    net.load_state_dict(q8)
    clip_ids = PreTrainedTokenizerFast(tokenizer_file=f"{BASE}/tokenizer/tokenizer.json", pad_token="<|endoftext|>", bos_token="<|startoftext|>",
                                       eos_token="<|endoftext|>", model_max_length=77)
    ids = clip_ids(PROMPT, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    sched = FlowMatchEulerDiscreteScheduler(base_image_seq_len=256, base_shift=0.5, max_image_seq_len=4096, max_shift=1.15, shift=3.0, use_dynamic_shifting=True)
    pipe = FluxKontextPipeline(scheduler=sched, vae=vae, text_encoder=clip, tokenizer=clip_ids, text_encoder_2=t5, tokenizer_2=clip_ids, transformer=net)
    steps = []
    pipe.set_progress_bar_config(disable=True)
    pipe(image=None, prompt_embeds=golden["embeds"], pooled_prompt_embeds=clip(ids).pooler_output, height=64, width=64, num_inference_steps=2, guidance_scale=2.5,
         generator=torch.Generator().manual_seed(1), max_sequence_length=32, output_type="latent", _auto_resize=False, max_area=64 * 64,
         callback_on_step_end=lambda p, i, t, kw: (steps.append(kw["latents"].clone()), {})[1])
    golden.update({f"edit.latents.{i}": v for i, v in enumerate(steps)})
    save_file({k: v.detach().contiguous() for k, v in golden.items()}, at("golden.safetensors"))
    print({k: (tuple(v.shape), f"{v.float().std():.3f}") for k, v in golden.items()})
    print(sum(os.path.getsize(f"{OUT}/{f}") for f in os.listdir(OUT)), "bytes")


with torch.no_grad():
    main()
