#!/usr/bin/env python3
"""Tiny models of the Llama kind in Hugging Face's layout, and what an independent forward pass says about them.

    make_fixtures.py           writes fixtures/NAME/{config.json, *.safetensors} and fixtures/NAME/expected.safetensors
    make_fixtures.py --check   makes them again in memory and compares with what is there

The forward pass below shares no code with the engine: it takes the whole sequence at once, in double precision, with a
full attention matrix. `expected.safetensors` holds `tokens` [n] and `logits` [n, vocab], both F32.
"""
import argparse
import json
import pathlib
import struct
import sys

import numpy as np

FIXTURES = pathlib.Path(__file__).resolve().parent / "fixtures"
TOKENS = 37

MODELS = {
    # Grouped queries, as plain as Llama gets.
    "gqa_f32": dict(dtype="F32", hidden=32, heads=4, kv_heads=2, inner=48, layers=2, vocab=64, theta=10000.0),
    # Linear RoPE scaling, another theta, one key head for all.
    "scaled_bf16": dict(dtype="BF16", hidden=32, heads=4, kv_heads=1, inner=40, layers=3, vocab=64, theta=500000.0,
                        factor=4.0),
    # The output head is the embedding; heads are wider than hidden / heads.
    "tied_f16": dict(dtype="F16", hidden=24, heads=2, kv_heads=2, head_dim=16, inner=56, layers=2, vocab=80,
                     theta=10000.0, tied=True),
    # Two files and an index; RoPE told the newer way.
    "sharded_bf16": dict(dtype="BF16", hidden=16, heads=4, kv_heads=4, inner=32, layers=2, vocab=48, theta=1000.0,
                         factor=2.0, sharded=True),
    # Qwen2: biases of queries, keys and values, a tied output head, YaRN with all that it leaves to itself.
    "qwen2_bf16": dict(family="qwen2", dtype="BF16", hidden=32, heads=4, kv_heads=2, inner=48, layers=2, vocab=64,
                       theta=1000000.0, tied=True,
                       scaling={"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}),
    # Qwen3: norms of queries and keys, heads of a width of their own.
    "qwen3_f32": dict(family="qwen3", dtype="F32", hidden=24, heads=3, kv_heads=1, head_dim=16, inner=40, layers=2,
                      vocab=64, theta=1000000.0),
    # Llama 3's scaling; some frequencies are kept, some divided, some in between.
    "llama3_bf16": dict(dtype="BF16", hidden=64, heads=2, kv_heads=1, inner=48, layers=2, vocab=64, theta=10000.0,
                        scaling={"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                 "original_max_position_embeddings": 32}),
    # YaRN with all that it can be told, and half of each head rotated.
    "yarn_bf16": dict(dtype="BF16", hidden=48, heads=2, kv_heads=2, inner=40, layers=2, vocab=64, theta=10000.0,
                      rotary=0.5, parameters={"rope_type": "yarn", "rope_theta": 5000.0, "factor": 16.0,
                                              "beta_fast": 8.0, "beta_slow": 0.5, "mscale": 1.0, "mscale_all_dim": 0.5,
                                              "original_max_position_embeddings": 24}),
    # NTK-aware scaling.
    "ntk_f16": dict(dtype="F16", hidden=32, heads=2, kv_heads=1, inner=40, layers=2, vocab=64, theta=10000.0,
                    scaling={"type": "ntk", "factor": 4.0}),
    # SmolLM3: layers without RoPE.
    "nope_bf16": dict(family="smollm3", dtype="BF16", hidden=32, heads=4, kv_heads=2, inner=40, layers=4, vocab=64,
                      theta=50000.0, nope=[1, 0, 1, 0]),
}
CLASSES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM",
           "smollm3": "SmolLM3ForCausalLM"}


def config_of(spec):
    family = spec.get("family", "llama")
    config = {
        "architectures": [CLASSES[family]],
        "model_type": family,
        "hidden_act": "silu",
        "hidden_size": spec["hidden"],
        "intermediate_size": spec["inner"],
        "max_position_embeddings": 4096,
        "num_attention_heads": spec["heads"],
        "num_hidden_layers": spec["layers"],
        "num_key_value_heads": spec["kv_heads"],
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": spec.get("tied", False),
        "vocab_size": spec["vocab"],
    }
    if "head_dim" in spec:
        config["head_dim"] = spec["head_dim"]
    if "rotary" in spec:
        config["partial_rotary_factor"] = spec["rotary"]
    if "nope" in spec:
        config["no_rope_layers"] = spec["nope"]
    if "parameters" in spec:
        config["rope_parameters"] = spec["parameters"]
    elif spec.get("sharded"):
        config["rope_parameters"] = {"rope_type": "linear", "rope_theta": spec["theta"], "factor": spec["factor"]}
    else:
        config["rope_theta"] = spec["theta"]
        linear = {"type": "linear", "factor": spec["factor"]} if "factor" in spec else None
        config["rope_scaling"] = spec.get("scaling", linear)
    return config


def weights_of(spec, random):
    """Name -> float32 array of values that the model's dtype can hold exactly."""
    hidden, inner = spec["hidden"], spec["inner"]
    dim = spec.get("head_dim", hidden // spec["heads"])
    query, kv = spec["heads"] * dim, spec["kv_heads"] * dim
    shapes = {"model.embed_tokens.weight": (spec["vocab"], hidden), "model.norm.weight": (hidden,)}
    for layer in range(spec["layers"]):
        at = f"model.layers.{layer}."
        shapes |= {
            at + "input_layernorm.weight": (hidden,),
            at + "self_attn.q_proj.weight": (query, hidden),
            at + "self_attn.k_proj.weight": (kv, hidden),
            at + "self_attn.v_proj.weight": (kv, hidden),
            at + "self_attn.o_proj.weight": (hidden, query),
            at + "post_attention_layernorm.weight": (hidden,),
            at + "mlp.gate_proj.weight": (inner, hidden),
            at + "mlp.up_proj.weight": (inner, hidden),
            at + "mlp.down_proj.weight": (hidden, inner),
        }
        if spec.get("family") == "qwen2":
            shapes |= {at + f"self_attn.{name}_proj.bias": (width,) for name, width in zip("qkv", (query, kv, kv))}
        if spec.get("family") == "qwen3":
            shapes |= {at + f"self_attn.{name}_norm.weight": (dim,) for name in "qk"}
    if not spec.get("tied"):
        shapes["lm_head.weight"] = (spec["vocab"], hidden)
    weights = {}
    for name, shape in shapes.items():
        if name.endswith(".bias"):
            values = 0.7 * random.standard_normal(shape)
        elif len(shape) == 1:
            values = 1.0 + 0.2 * random.standard_normal(shape)
        else:
            values = random.standard_normal(shape) * 1.5 / np.sqrt(shape[1])
        weights[name] = unpack(pack(values.astype(np.float32), spec["dtype"]), spec["dtype"]).reshape(shape)
    return weights


def pack(values, dtype):
    if dtype == "F32":
        return values.astype("<f4").tobytes()
    if dtype == "F16":
        return values.astype("<f2").tobytes()
    bits = values.astype("<f4").view("<u4").astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()


def unpack(data, dtype):
    if dtype == "F32":
        return np.frombuffer(data, "<f4")
    if dtype == "F16":
        return np.frombuffer(data, "<f2").astype(np.float32)
    return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")


def safetensors(tensors, dtype):
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, values in tensors.items():
        packed = pack(values, dtype)
        header[name] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": [len(data), len(data) + len(packed)]}
        data += packed
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def rms_norm(x, weight, epsilon):
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + epsilon) * weight


def rotate(x, angles, magnitude=1.0):
    """x is [tokens, heads, dim]; angles is [tokens, rotary dims / 2]; dims behind those stay as they are."""
    rotary = 2 * angles.shape[-1]
    x, rest = x[..., :rotary], x[..., rotary:]
    cos = magnitude * np.cos(np.concatenate([angles, angles], axis=-1))[:, None, :]
    sin = magnitude * np.sin(np.concatenate([angles, angles], axis=-1))[:, None, :]
    turned = np.concatenate([-x[..., rotary // 2:], x[..., :rotary // 2]], axis=-1)
    return np.concatenate([x * cos + turned * sin, rest], axis=-1)


def frequencies_of(config, dim):
    """Radians a position of the rotated pairs, and what cosines and sines are multiplied by."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    theta = rope.get("rope_theta", config.get("rope_theta"))
    kind = rope.get("rope_type", rope.get("type", "default"))
    factor = rope.get("factor", 1.0)
    dim = int(dim * config.get("partial_rotary_factor", 1.0))
    pair = np.arange(dim // 2)
    plain = theta ** (-2.0 * pair / dim)
    if kind == "linear":
        return plain / factor, 1.0
    if kind == "ntk":
        return (theta * factor ** (dim / (dim - 2))) ** (-2.0 * pair / dim), 1.0
    original = rope.get("original_max_position_embeddings")
    if kind == "yarn":
        # Peng et al. 2023, equations 17 to 23, by dims as the authors' code has them.
        def dim_of(turns):
            return dim * np.log(original / (turns * 2 * np.pi)) / (2 * np.log(theta))
        low = max(np.floor(dim_of(rope.get("beta_fast", 32.0))), 0)
        high = min(np.ceil(dim_of(rope.get("beta_slow", 1.0))), dim - 1)
        ramp = np.clip((pair - low) / (high - low if high != low else 0.001), 0, 1)
        scale = [0.1 * rope.get(name, 0.0) * np.log(factor) + 1.0 for name in ("mscale", "mscale_all_dim")]
        magnitude = scale[0] / scale[1] if "mscale" in rope else 0.1 * np.log(factor) + 1.0
        return plain / factor * ramp + plain * (1 - ramp), rope.get("attention_factor", magnitude)
    if kind == "llama3":
        # By wavelengths, as in Meta's reference code.
        low, high = rope["low_freq_factor"], rope["high_freq_factor"]
        result = []
        for frequency in plain:
            wavelength = 2 * np.pi / frequency
            if wavelength < original / high:
                result.append(frequency)
            elif wavelength > original / low:
                result.append(frequency / factor)
            else:
                smooth = (original / wavelength - low) / (high - low)
                result.append((1 - smooth) * frequency / factor + smooth * frequency)
        return np.array(result), 1.0
    return plain, 1.0


def forward(config, weights, tokens):
    w = {name: values.astype(np.float64) for name, values in weights.items()}
    n, heads, kv_heads = len(tokens), config["num_attention_heads"], config["num_key_value_heads"]
    dim = config.get("head_dim", config["hidden_size"] // heads)
    frequencies, magnitude = frequencies_of(config, dim)
    angles = np.outer(np.arange(n), frequencies)
    future = np.triu(np.ones((n, n), dtype=bool), k=1)
    epsilon = config["rms_norm_eps"]

    x = w["model.embed_tokens.weight"][tokens]
    for layer in range(config["num_hidden_layers"]):
        p = {name: w[f"model.layers.{layer}.{name}.weight"] for name in (
            "input_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
            "post_attention_layernorm", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")}
        h = rms_norm(x, p["input_layernorm"], epsilon)
        q, k, v = (h @ p[f"self_attn.{name}_proj"].T + w.get(f"model.layers.{layer}.self_attn.{name}_proj.bias", 0)
                   for name in "qkv")
        q, k, v = (t.reshape(n, -1, dim) for t in (q, k, v))
        if config["model_type"] == "qwen3":
            q, k = (rms_norm(t, w[f"model.layers.{layer}.self_attn.{name}_norm.weight"], epsilon)
                    for name, t in (("q", q), ("k", k)))
        if config.get("no_rope_layers", [1] * 99)[layer]:
            q, k = (rotate(t, angles, magnitude) for t in (q, k))
        k, v = (np.repeat(t, heads // kv_heads, axis=1) for t in (k, v))
        scores = np.einsum("ihd,jhd->hij", q, k) / np.sqrt(dim)
        scores[:, future] = -np.inf
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        attention = np.einsum("hij,jhd->ihd", scores / scores.sum(axis=-1, keepdims=True), v)
        x = x + attention.reshape(n, heads * dim) @ p["self_attn.o_proj"].T
        h = rms_norm(x, p["post_attention_layernorm"], epsilon)
        gate = h @ p["mlp.gate_proj"].T
        x = x + (gate / (1 + np.exp(-gate)) * (h @ p["mlp.up_proj"].T)) @ p["mlp.down_proj"].T
    x = rms_norm(x, w["model.norm.weight"], epsilon)
    return x @ w.get("lm_head.weight", w["model.embed_tokens.weight"]).T


def files_of(seed, spec):
    """Path -> bytes of one model, and its expected tokens and logits."""
    random = np.random.default_rng(seed)
    config, weights = config_of(spec), weights_of(spec, random)
    tokens = random.integers(0, spec["vocab"], TOKENS)
    files = {"config.json": (json.dumps(config, indent=1) + "\n").encode()}
    if spec.get("sharded"):
        names = list(weights)
        shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
        for shard, members in shards.items():
            files[shard] = safetensors({name: weights[name] for name in members}, spec["dtype"])
        weight_map = {name: shard for shard, members in shards.items() for name in members}
        index = {"metadata": {}, "weight_map": weight_map}
        files["model.safetensors.index.json"] = (json.dumps(index, indent=1) + "\n").encode()
    else:
        files["model.safetensors"] = safetensors(weights, spec["dtype"])
    logits = forward(config, weights, tokens).astype(np.float32)
    return files, {"tokens": tokens.astype(np.float32), "logits": logits}


def read_expected(path):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + length])
    result = {}
    for name in ("tokens", "logits"):
        begin, end = header[name]["data_offsets"]
        values = np.frombuffer(data[8 + length + begin:8 + length + end], "<f4")
        result[name] = values.reshape(header[name]["shape"])
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with the files that are there; write nothing")
    check = parser.parse_args().check
    wrong = []
    for seed, (name, spec) in enumerate(MODELS.items()):
        files, expected = files_of(seed, spec)
        folder = FIXTURES / name
        if check:
            wrong += [f"{name}/{file}" for file, data in files.items() if (folder / file).read_bytes() != data]
            there = read_expected(folder / "expected.safetensors")
            # The last bit of a double-precision product is the BLAS's own; the engine is held to a hundred times this.
            same = np.array_equal(there["tokens"], expected["tokens"]) and np.allclose(
                there["logits"], expected["logits"], rtol=0, atol=1e-6)
            wrong += [] if same else [f"{name}/expected.safetensors"]
        else:
            folder.mkdir(parents=True, exist_ok=True)
            for file, data in files.items():
                (folder / file).write_bytes(data)
            (folder / "expected.safetensors").write_bytes(safetensors(expected, "F32"))
    if wrong:
        sys.exit("not what this script makes: " + ", ".join(wrong))


if __name__ == "__main__":
    main()
