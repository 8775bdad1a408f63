#!/usr/bin/env python3
"""Adapters in the names of every program that writes them, and what the reference makes of them.

    pip install torch diffusers transformers accelerate peft safetensors sentencepiece protobuf
    python make.py            (diffusers 0.42.1, peft 0.21.2, transformers 5.23.0, torch 2.15.0)

Writes, beside itself, NAME.safetensors for each adapter and goldens.safetensors:
  text, pooled, image, ids, time, guidance   what goes into the transformer of ../models/base
  clip_ids                                   what goes into its CLIP
  velocity.CASE, pooled.CASE                 what comes out with the adapters of CASE; `plain` has none

One LoRA (rank 2, alpha 4) is written in all namings. It is loaded by diffusers' own `load_lora_weights`
in its own naming; the others are translated here, and diffusers' translators, with the sizes of the
small model put into their source, must give the original back. DoRA is computed by peft; LoKr, LoHa,
whole differences and DoRA over inputs are merged into the weights with torch, LoKr and LoHa after
peft's layers gave the same matrices.
"""
import inspect, os, re
import torch
from diffusers import FluxKontextPipeline
from diffusers.loaders import lora_conversion_utils as theirs
from peft import LoHaConfig, LoKrConfig, LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from safetensors.torch import load_file, save_file

HERE = os.path.dirname(os.path.abspath(__file__))
MODEL = f"{HERE}/../models/base/model"
DIM, DOUBLE, SINGLE, RANK, ALPHA = 64, 2, 3, 2, 4.0
QKV = ["attn.to_q", "attn.to_k", "attn.to_v"]
ADDED = ["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"]
# BFL's layer -> diffusers' layers, one below another
OF_DOUBLE = {
    "img_mod.lin": ["norm1.linear"], "img_attn.qkv": QKV, "img_attn.proj": ["attn.to_out.0"],
    "img_mlp.0": ["ff.net.0.proj"], "img_mlp.2": ["ff.net.2"],
    "txt_mod.lin": ["norm1_context.linear"], "txt_attn.qkv": ADDED, "txt_attn.proj": ["attn.to_add_out"],
    "txt_mlp.0": ["ff_context.net.0.proj"], "txt_mlp.2": ["ff_context.net.2"],
}
OF_SINGLE = {"modulation.lin": ["norm.linear"], "linear1": [*QKV, "proj_mlp"], "linear2": ["proj_out"]}
OUTSIDE = {
    "img_in": ["x_embedder"], "txt_in": ["context_embedder"],
    "time_in.in_layer": ["time_text_embed.timestep_embedder.linear_1"],
    "time_in.out_layer": ["time_text_embed.timestep_embedder.linear_2"],
    "guidance_in.in_layer": ["time_text_embed.guidance_embedder.linear_1"],
    "guidance_in.out_layer": ["time_text_embed.guidance_embedder.linear_2"],
    "vector_in.in_layer": ["time_text_embed.text_embedder.linear_1"],
    "vector_in.out_layer": ["time_text_embed.text_embedder.linear_2"],
    "final_layer.linear": ["proj_out"], "final_layer.adaLN_modulation.1": ["norm_out.linear"],
}
LAST = "final_layer.adaLN_modulation.1"  # shift and scale; diffusers has scale and shift
XLABS = {"img_attn.qkv": "qkv_lora1", "img_attn.proj": "proj_lora1", "txt_attn.qkv": "qkv_lora2",
         "txt_attn.proj": "proj_lora2"}

pipe = FluxKontextPipeline.from_pretrained(MODEL, torch_dtype=torch.float32)
gen = torch.Generator().manual_seed(5)


def noise(*shape, scale=1.0):
    """Numbers that bf16 and f16 hold too, so that the type of a file changes nothing."""
    return (torch.randn(*shape, generator=gen) * scale).bfloat16().float()


def bfl_layers(doubles, singles, outside=True):
    """BFL's name -> diffusers' names, of some blocks."""
    layers = {}
    for i in doubles:
        layers |= {f"double_blocks.{i}.{b}": [f"transformer_blocks.{i}.{d}" for d in ds] for b, ds in OF_DOUBLE.items()}
    for i in singles:
        layers |= {f"single_blocks.{i}.{b}": [f"single_transformer_blocks.{i}.{d}" for d in ds] for b, ds in OF_SINGLE.items()}
    return layers | (OUTSIDE if outside else {})


def shape(layer):
    return pipe.transformer.get_submodule(layer).weight.shape


def lora(layers):
    """A LoRA whose layers that BFL has as one share their lower matrix: {layer: (down, up)}."""
    made = {}
    for parts in layers.values():
        down = noise(RANK, shape(parts[0])[1], scale=0.15)
        for part in parts:
            made[part] = (down, noise(shape(part)[0], RANK, scale=0.15))
    return made


def swap(rows):
    first, second = rows.chunk(2, dim=0)
    return torch.cat([second, first])


def joined(name, parts):
    rows = torch.cat(parts)
    return swap(rows) if name == LAST else rows


def to_bfl(made, layers):
    """The same with BFL's layers."""
    return {b: (made[ds[0]][0], joined(b, [made[d][1] for d in ds])) for b, ds in layers.items()}


def to_block_diagonal(made, layers):
    """As sd-scripts writes it with split_qkv: each part has ranks of its own."""
    return {b: (torch.cat([made[d][0] for d in ds]), joined(b, [torch.block_diag(*[made[d][1] for d in ds])]))
            for b, ds in layers.items()}


def write(name, tensors, dtype=torch.float16):
    save_file({k: v.to(dtype).contiguous().clone() for k, v in tensors.items()}, f"{HERE}/{name}.safetensors")


def named(made, prefix, down, up, alpha=None, scale=1.0, scored=False):
    """Names with this prefix and these suffixes; without an alpha the upper matrix takes the scale."""
    out = {}
    for layer, (a, b) in made.items():
        layer = prefix + (layer.replace(".", "_") if scored else layer)
        out[layer + down], out[layer + up] = a.clone(), b * scale
        if alpha is not None:  # rank of this matrix over rank of the LoRA keeps the scale
            out[layer + ".alpha"] = torch.tensor(alpha * a.shape[0] / RANK)
    return out


def small(function):
    """diffusers' translator for a model of these sizes."""
    source = inspect.getsource(function)
    for pattern, value in [(r"range\(19\)", f"range({DOUBLE})"), (r"range\(38\)", f"range({SINGLE})"),
                           (r"num_layers = 19", f"num_layers = {DOUBLE}"), (r"num_single_layers = 38", f"num_single_layers = {SINGLE}"),
                           (r"inner_dim = 3072", f"inner_dim = {DIM}"),
                           (r"\[3072, 3072, 3072, 12288\]", f"[{DIM}, {DIM}, {DIM}, {4 * DIM}]")]:
        source = re.sub(pattern, value, source)
    scope = dict(vars(theirs))
    exec(source, scope)
    return scope[function.__name__]


def check_translation(name, found, made, skip=()):
    """That a translator's result is the LoRA `made`, whatever its scale is spread over."""
    missing = [l for l in made if l not in skip]
    for layer in missing:
        prefix = next(p for p in ("transformer.", "") if f"{p}{layer}.lora_A.weight" in found)
        a, b = found[f"{prefix}{layer}.lora_A.weight"], found[f"{prefix}{layer}.lora_B.weight"]
        want = made[layer][1] @ made[layer][0] * (ALPHA / RANK)
        assert torch.allclose(b @ a, want, atol=1e-6), (name, layer)
    print(f"{name}: diffusers' translator gives the LoRA back, {len(missing)} layers")


# --- what goes in ---
T, TARGET, REFERENCE = 8, (3, 4), (2, 3)
grid = lambda c, h, w: [[c, y, x] for y in range(h) for x in range(w)]
ids = torch.tensor(grid(0, *TARGET) + grid(1, *REFERENCE), dtype=torch.float32)
inputs = dict(text=noise(T, 64), pooled=noise(1, 48), image=noise(len(ids), 64), ids=ids,
              time=torch.tensor([0.7]), guidance=torch.tensor([2.5]))
target = TARGET[0] * TARGET[1]
clip_ids = pipe.tokenizer("make it black and white", padding="max_length", max_length=77, return_tensors="pt").input_ids
goldens = {**inputs, "clip_ids": clip_ids}


@torch.no_grad()
def velocity(transformer=None):
    out = (transformer or pipe.transformer)(
        hidden_states=inputs["image"][None], encoder_hidden_states=inputs["text"][None],
        pooled_projections=inputs["pooled"], timestep=inputs["time"], guidance=inputs["guidance"],
        txt_ids=torch.zeros(T, 3), img_ids=ids, return_dict=False)[0]
    return out[0, :target].clone()


@torch.no_grad()
def pooled():
    return pipe.text_encoder(clip_ids).pooler_output.clone()


def keep(case, value):
    base = goldens[f"{case.split('.')[0]}.plain"]
    moved = ((value - base).norm() / base.norm()).item()
    assert moved > 0.02, (case, moved)
    print(f"{case}: moved by {moved:.3f}")
    goldens[case] = value


@torch.no_grad()
def merged(changes, run=velocity):
    """The velocity with weights {layer: weight} and biases {layer: (None, bias)} put in place."""
    before = {}
    for layer, (weight, bias) in changes.items():
        module = pipe.transformer.get_submodule(layer)
        before[layer] = (module.weight.data.clone(), module.bias.data.clone())
        if weight is not None:
            module.weight.data.copy_(weight)
        if bias is not None:
            module.bias.data.copy_(bias)
    out = run()
    for layer, (weight, bias) in before.items():
        module = pipe.transformer.get_submodule(layer)
        module.weight.data.copy_(weight)
        module.bias.data.copy_(bias)
    return out


def weight(layer):
    return pipe.transformer.get_submodule(layer).weight.data


goldens["velocity.plain"], goldens["pooled.plain"] = velocity(), pooled()

# --- one LoRA in all namings ---
layers = bfl_layers([1], [2])
made = lora(layers)
# diffusers' own writer; alpha is in the header's metadata alone.
config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=sorted(made)).to_dict()
config = {k: sorted(v) if isinstance(v, set) else v for k, v in config.items()}
FluxKontextPipeline.save_lora_weights(HERE, named(made, "", ".lora_A.weight", ".lora_B.weight"), weight_name="diffusers.safetensors",
                                      transformer_lora_adapter_metadata=config)
pipe.load_lora_weights(f"{HERE}/diffusers.safetensors", adapter_name="one")
keep("velocity.lora", velocity())
pipe.set_adapters("one", 0.5)
keep("velocity.lora_half", velocity())
pipe.unload_lora_weights()
assert torch.equal(velocity(), goldens["velocity.plain"])

bfl, diagonal = to_bfl(made, layers), to_block_diagonal(made, layers)
S = ALPHA / RANK
kohya = dict(down=".lora_down.weight", up=".lora_up.weight", alpha=ALPHA, scored=True)
write("diffusers_old", named(made, "transformer.", ".lora.down.weight", ".lora.up.weight", ALPHA))
write("aitoolkit", named(made, "transformer.", ".lora_A.weight", ".lora_B.weight", scale=S), torch.bfloat16)
write("kohya", named(bfl, "lora_unet_", **kohya))
write("kohya_split", named(diagonal, "lora_unet_", **kohya), torch.bfloat16)
write("onetrainer", named(made, "lora_transformer_", **kohya))
write("comfyui", named(bfl, "diffusion_model.", ".lora_down.weight", ".lora_up.weight", ALPHA))
write("fal", named(bfl, "base_model.model.", ".lora_A.weight", ".lora_B.weight", scale=S))
write("bfl", named(bfl, "", ".lora_A.weight", ".lora_B.weight", scale=S))

# diffusers leaves the last layer's alpha aside, so its scale is not compared.
skip = ("norm_out.linear", "proj_out")
f32 = lambda name: {k: v.float() for k, v in load_file(f"{HERE}/{name}.safetensors").items()}
for name in ("kohya", "kohya_split", "comfyui"):
    check_translation(name, small(theirs._convert_kohya_flux_lora_to_diffusers)(f32(name)), made, skip)
# These two want every layer. The first swaps the halves of the last modulation's lower matrix too, which
# is its rank and not its outputs: not compared.
whole_layers = bfl_layers(range(DOUBLE), range(SINGLE))
whole = lora(whole_layers)
everything = named(to_bfl(whole, whole_layers), "", ".lora_A.weight", ".lora_B.weight", scale=S)
norms = {f"double_blocks.{i}.{s}_attn.norm.{n}_norm.scale": torch.ones(16) for i in range(DOUBLE) for s in ("img", "txt") for n in ("query", "key")}
norms |= {f"single_blocks.{i}.norm.{n}_norm.scale": torch.ones(16) for i in range(SINGLE) for n in ("query", "key")}
check_translation("bfl", small(theirs._convert_bfl_flux_control_lora_to_diffusers)({**everything, **norms}), whole, ("norm_out.linear",))
fal = {f"base_model.model.{k}": v for k, v in everything.items() if not k.startswith(("img_in", "txt_in", "time_in", "vector_in", "guidance_in", LAST))}
check_translation("fal", small(theirs._convert_fal_kontext_lora_to_diffusers)(fal), whole, [d for ds in OUTSIDE.values() for d in ds if d != "proj_out"])

# --- XLabs has the attention alone ---
attention = {b: ds for b, ds in bfl_layers([0], [], False).items() if b.split(".", 2)[2] in XLABS}
some = lora(attention)
single = {f"single_transformer_blocks.1.{d}": (noise(RANK, shape(f"single_transformer_blocks.1.{d}")[1], scale=0.15), noise(DIM, RANK, scale=0.15)) for d in ("attn.to_q", "proj_out")}
for d in QKV[1:]:
    single[f"single_transformer_blocks.1.{d}"] = (single["single_transformer_blocks.1.attn.to_q"][0], noise(DIM, RANK, scale=0.15))
xlabs = {}
for b, (a, u) in to_bfl(some, attention).items():
    block, layer = b.rsplit(".", 2)[0], ".".join(b.rsplit(".", 2)[1:])
    xlabs |= {f"{block}.processor.{XLABS[layer]}.down.weight": a, f"{block}.processor.{XLABS[layer]}.up.weight": u * S}
q = single["single_transformer_blocks.1.attn.to_q"][0]
xlabs |= {"single_blocks.1.processor.qkv_lora.down.weight": q,
          "single_blocks.1.processor.qkv_lora.up.weight": S * torch.cat([single[f"single_transformer_blocks.1.{d}"][1] for d in QKV]),
          "single_blocks.1.processor.proj_lora.down.weight": single["single_transformer_blocks.1.proj_out"][0],
          "single_blocks.1.processor.proj_lora.up.weight": S * single["single_transformer_blocks.1.proj_out"][1]}
write("xlabs", xlabs)
check_translation("xlabs", theirs._convert_xlabs_flux_lora_to_diffusers(f32("xlabs")), {**some, **single})
pipe.load_lora_weights(theirs._convert_xlabs_flux_lora_to_diffusers(f32("xlabs")), adapter_name="x")
keep("velocity.xlabs", velocity())
# --- two at once ---
pipe.load_lora_weights(f"{HERE}/diffusers.safetensors", adapter_name="one")
pipe.set_adapters(["one", "x"], [0.75, -0.5])
keep("velocity.two", velocity())
pipe.unload_lora_weights()

# --- biases: PEFT's lora_bias in BFL's names ---
biased = {"single_transformer_blocks.0.proj_out": "single_blocks.0.linear2", "transformer_blocks.0.ff.net.0.proj": "double_blocks.0.img_mlp.0"}
two = lora({b: [d] for d, b in biased.items()})
bias = {d: noise(shape(d)[0], scale=0.3) for d in biased}
write("bfl_bias", {k: v for d, b in biased.items() for k, v in
      {f"{b}.lora_A.weight": two[d][0], f"{b}.lora_B.weight": two[d][1] * S, f"{b}.lora_B.bias": bias[d]}.items()})
inject_adapter_in_model(LoraConfig(r=RANK, lora_alpha=RANK, lora_bias=True, target_modules=list(biased)), pipe.transformer, adapter_name="b")
for d in biased:
    module = pipe.transformer.get_submodule(d)
    module.lora_A["b"].weight.data, module.lora_B["b"].weight.data = two[d][0], two[d][1] * S
    module.lora_B["b"].bias.data = bias[d]
keep("velocity.bias", velocity())
pipe = FluxKontextPipeline.from_pretrained(MODEL, torch_dtype=torch.float32)

# --- DoRA: PEFT, and a magnitude for each output of BFL's layers ---
layers = bfl_layers([0], [1], False)
made = lora(layers)
magnitude = {d: (weight(d) + S * made[d][1] @ made[d][0]).norm(dim=1) * (1 + noise(shape(d)[0], scale=0.2)) for d in made}
magnitude = {d: m.half().float() for d, m in magnitude.items()}
inject_adapter_in_model(LoraConfig(r=RANK, lora_alpha=ALPHA, use_dora=True, target_modules=list(made)), pipe.transformer, adapter_name="d")
for d, (a, b) in made.items():
    module = pipe.transformer.get_submodule(d)
    module.lora_A["d"].weight.data, module.lora_B["d"].weight.data = a, b
    module.lora_magnitude_vector["d"].weight.data = magnitude[d]
keep("velocity.dora", velocity())
state = get_peft_model_state_dict(pipe.transformer, adapter_name="d")
write("peft_dora", {f"base_model.model.{k.removeprefix('base_model.model.')}": v * (S if "lora_B" in k else 1) for k, v in state.items()})
pipe = FluxKontextPipeline.from_pretrained(MODEL, torch_dtype=torch.float32)
scales = {f"lora_unet_{b.replace('.', '_')}.dora_scale": torch.cat([magnitude[d] for d in ds])[:, None] for b, ds in layers.items()}
write("kohya_dora", {**named(to_bfl(made, layers), "lora_unet_", **kohya), **scales})
new = {d: magnitude[d][:, None] * (w := weight(d) + S * made[d][1] @ made[d][0]) / w.norm(dim=1, keepdim=True) for d in made}
found = merged({d: (w, None) for d, w in new.items()})
assert torch.allclose(found, goldens["velocity.dora"], atol=1e-5)
# Half of it is half of the way, as in ComfyUI.
keep("velocity.dora_half", merged({d: ((weight(d) + w) / 2, None) for d, w in new.items()}))

# --- DoRA with a magnitude for each input: over all rows of BFL's layers together ---
some_layers = {b: layers[b] for b in ("double_blocks.0.img_attn.qkv", "double_blocks.0.txt_mlp.2", "single_blocks.1.linear1")}
scales, new = {}, {}
for b, ds in some_layers.items():
    w = torch.cat([weight(d) + S * made[d][1] @ made[d][0] for d in ds])
    m = (w.norm(dim=0) * (1 + noise(w.shape[1], scale=0.2))).half().float()
    scales[f"lora_unet_{b.replace('.', '_')}.dora_scale"] = m[None]
    w = w * (m / w.norm(dim=0))
    for d in ds:
        new[d], w = w[: shape(d)[0]], w[shape(d)[0]:]
write("kohya_dora_inputs", {**named(to_bfl(made, some_layers), "lora_unet_", **kohya), **scales})
keep("velocity.dora_inputs", merged({d: (w, None) for d, w in new.items()}))


# --- LoKr and LoHa ---
def kron(t):
    w1 = t["lokr_w1"] if "lokr_w1" in t else t["lokr_w1_a"] @ t["lokr_w1_b"]
    w2 = t["lokr_w2"] if "lokr_w2" in t else t["lokr_w2_a"] @ t["lokr_w2_b"]
    ranks = [t[k].shape[0] for k in ("lokr_w2_b", "lokr_w1_b") if k in t]
    return torch.kron(w1, w2) * (ALPHA / ranks[0] if ranks else 1)


def peft_delta(config, layer, tensors):
    """What PEFT's layer makes of these factors."""
    net = torch.nn.ModuleDict({"x": torch.nn.Linear(shape(layer)[1], shape(layer)[0])})
    net = inject_adapter_in_model(config, net, adapter_name="p")
    module = net["x"]
    for name, tensor in tensors.items():
        parameters = getattr(module, name)
        assert parameters["p"].shape == tensor.shape, (name, parameters["p"].shape, tensor.shape)
        parameters["p"].data = tensor
    return module.get_delta_weight("p")


lokr = {
    "transformer_blocks.1.attn.to_q": dict(lokr_w1=noise(4, 4, scale=0.3), lokr_w2_a=noise(16, 2, scale=0.3), lokr_w2_b=noise(2, 16, scale=0.3)),
    "transformer_blocks.1.ff_context.net.0.proj": dict(lokr_w1=noise(8, 8, scale=0.2), lokr_w2=noise(32, 8, scale=0.2)),
    "single_transformer_blocks.0.proj_out": dict(lokr_w1_a=noise(8, 2, scale=0.3), lokr_w1_b=noise(2, 16, scale=0.3), lokr_w2_a=noise(8, 2, scale=0.3), lokr_w2_b=noise(2, 20, scale=0.3)),
    "norm_out.linear": dict(lokr_w1=noise(4, 4, scale=0.3), lokr_w2=noise(32, 16, scale=0.3)),
}
layer = "transformer_blocks.1.attn.to_q"
config = LoKrConfig(r=2, alpha=int(ALPHA), target_modules=["x"], decompose_factor=4)
assert torch.allclose(peft_delta(config, layer, lokr[layer]), kron(lokr[layer]).detach(), atol=1e-6)
alphas = lambda names: {f"{n}.alpha": torch.tensor(ALPHA) for n in names}
scored = {f"lycoris_{l.replace('.', '_')}": t for l, t in lokr.items()}
write("lycoris_lokr", {**{f"{l}.{k}": v for l, t in scored.items() for k, v in t.items()}, **alphas(scored)})
keep("velocity.lokr", merged({l: (weight(l) + kron(t), None) for l, t in lokr.items()}))

# Kronecker products over BFL's layers, whose parts no factor ends with, and which swap rows
fused = {
    "double_blocks.1.txt_attn.qkv": dict(lokr_w1=noise(2, 4, scale=0.2), lokr_w2=noise(96, 16, scale=0.2)),
    "single_blocks.2.linear1": dict(lokr_w1=noise(7, 8, scale=0.2), lokr_w2_a=noise(64, 2, scale=0.2), lokr_w2_b=noise(2, 8, scale=0.2)),
    LAST: dict(lokr_w1=noise(8, 4, scale=0.2), lokr_w2=noise(16, 16, scale=0.2)),
}
new = {}
for b, t in fused.items():
    w = swap(kron(t)) if b == LAST else kron(t)
    for d in bfl_layers([1], [2])[b]:
        new[d], w = weight(d) + w[: shape(d)[0]], w[shape(d)[0]:]
write("comfyui_lokr", {**{f"diffusion_model.{b}.{k}": v for b, t in fused.items() for k, v in t.items()}, **alphas([f"diffusion_model.{b}" for b in fused])})
keep("velocity.lokr_bfl", merged({d: (w, None) for d, w in new.items()}))

# One of them is cheaper as a whole matrix than as a product of all pairs of ranks.
loha = {}
for d, r in {"transformer_blocks.0.attn.to_v": 2, "single_transformer_blocks.2.proj_mlp": 3, "transformer_blocks.1.ff.net.2": 9}.items():
    n, k = shape(d)
    s = 0.6 / r**0.5
    loha[d] = dict(hada_w1_a=noise(n, r, scale=s), hada_w1_b=noise(r, k, scale=s), hada_w2_a=noise(n, r, scale=s), hada_w2_b=noise(r, k, scale=s))
hada = lambda t: (t["hada_w1_a"] @ t["hada_w1_b"]) * (t["hada_w2_a"] @ t["hada_w2_b"]) * ALPHA / t["hada_w1_a"].shape[1]
layer = "transformer_blocks.0.attn.to_v"
assert torch.allclose(peft_delta(LoHaConfig(r=2, alpha=int(ALPHA), target_modules=["x"]), layer, loha[layer]), hada(loha[layer]).detach(), atol=1e-6)
scored = {f"lycoris_{l.replace('.', '_')}": t for l, t in loha.items()}
write("lycoris_loha", {**{f"{l}.{k}": v for l, t in scored.items() for k, v in t.items()}, **alphas(scored)})
keep("velocity.loha", merged({d: (weight(d) + hada(t), None) for d, t in loha.items()}))

# --- whole differences and biases ---
change = noise(*shape("transformer_blocks.0.attn.to_out.0"), scale=0.1)
bias = {"double_blocks.0.img_attn.proj": noise(DIM, scale=0.3), "double_blocks.0.txt_mlp.0": noise(4 * DIM, scale=0.3), LAST: noise(2 * DIM, scale=0.3)}
write("comfyui_diff", {"diffusion_model.double_blocks.0.img_attn.proj.diff": change, **{f"diffusion_model.{b}.diff_b": v for b, v in bias.items()}})
own_bias = lambda layer: pipe.transformer.get_submodule(layer).bias.data
keep("velocity.diff", merged({
    "transformer_blocks.0.attn.to_out.0": (weight("transformer_blocks.0.attn.to_out.0") + change, own_bias("transformer_blocks.0.attn.to_out.0") + bias["double_blocks.0.img_attn.proj"]),
    "transformer_blocks.0.ff_context.net.0.proj": (None, own_bias("transformer_blocks.0.ff_context.net.0.proj") + bias["double_blocks.0.txt_mlp.0"]),
    "norm_out.linear": (None, own_bias("norm_out.linear") + swap(bias[LAST])),
}))

# --- CLIP, in kohya's names, by diffusers ---
clip = {}
for i in range(2):
    for l in ("self_attn.q_proj", "self_attn.v_proj", "self_attn.out_proj", "mlp.fc1", "mlp.fc2"):
        module = next(m for n, m in pipe.text_encoder.named_modules() if n.endswith(f"encoder.layers.{i}.{l}"))
        n, k = module.weight.shape
        clip[f"text_model.encoder.layers.{i}.{l}"] = (noise(RANK, k, scale=0.3), noise(n, RANK, scale=0.3))
layers = {"double_blocks.0.img_attn.proj": ["transformer_blocks.0.attn.to_out.0"]}
both = {**named(to_bfl(lora(layers), layers), "lora_unet_", **kohya), **named(clip, "lora_te1_", **kohya)}
write("kohya_clip", both)
@torch.no_grad()
def clip_merged():
    for name, module in pipe.text_encoder.named_modules():
        for layer, (a, b) in clip.items():
            if f"text_model.{name.removeprefix('text_model.')}" == layer:
                module.weight.data += S * b @ a
    return pooled()
keep("pooled.clip", clip_merged())

save_file({k: v.contiguous() for k, v in goldens.items()}, f"{HERE}/goldens.safetensors")
print(sum(os.path.getsize(f"{HERE}/{f}") for f in os.listdir(HERE) if f.endswith(".safetensors")), "bytes")
