"""A small Llama in PyTorch: training forward, blended forward, and files as Hugging Face writes them.

The mathematics is that of Hugging Face's LlamaForCausalLM (RMSNorm, half-split RoPE, SwiGLU, no biases), so what is
trained here runs in any engine that reads such files. Everything runs on one thread and from one seed: the same
machine and the same PyTorch give the same weights.
"""

import argparse
import ctypes
import json
import math
import os
import struct

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # read when NumPy or PyTorch load it: import this module before them

import numpy as np
import torch


def single_thread():
    """One thread, and memory that is kept: else each step maps and unmaps its tensors, a quarter of the time."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(-3, 32 << 20)  # M_MMAP_THRESHOLD, at glibc's limit
    mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


class Llama:
    """Weights and forward passes; q, k, v and gate, up are fused, as a small model spends its time on call overhead."""

    def __init__(self, vocab, hidden, intermediate, layers, heads, theta=10000.0, eps=1e-5, max_positions=2048, seed=0):
        self.vocab, self.hidden, self.intermediate, self.layers, self.heads = vocab, hidden, intermediate, layers, heads
        self.theta, self.eps, self.max_positions = theta, eps, max_positions
        self.head_dim = hidden // heads
        random = torch.Generator().manual_seed(seed)

        def matrix(rows, columns, scale=1.0):
            return torch.randn(rows, columns, generator=random) * (scale / math.sqrt(columns))

        residual = 1 / math.sqrt(2 * layers)
        # Embeddings of standard deviation 1: with the customary 0.02 this size of model does not learn to look up.
        self.weights = {"embed": torch.randn(vocab, hidden, generator=random)}
        for i in range(layers):
            self.weights[f"{i}.norm1"] = torch.ones(hidden)
            self.weights[f"{i}.qkv"] = matrix(3 * hidden, hidden)
            self.weights[f"{i}.o"] = matrix(hidden, hidden, residual)
            self.weights[f"{i}.norm2"] = torch.ones(hidden)
            self.weights[f"{i}.gate_up"] = matrix(2 * intermediate, hidden)
            self.weights[f"{i}.down"] = matrix(hidden, intermediate, residual)
        self.weights["norm"] = torch.ones(hidden)
        self.weights["head"] = matrix(vocab, hidden)
        inverse = theta ** (-torch.arange(0, self.head_dim, 2, dtype=torch.float64) / self.head_dim)
        angles = torch.outer(torch.arange(max_positions, dtype=torch.float64), inverse)
        self.cos = torch.cos(angles).repeat(1, 2).float()
        self.sin = torch.sin(angles).repeat(1, 2).float()

    def parameters(self):
        return list(self.weights.values())

    def normed(self, x, name):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weights[name]

    def rotated(self, x, positions):
        """RoPE of x [batch, heads, rows, head_dim] at positions [rows] or [batch, rows]."""
        cos, sin = self.cos[positions], self.sin[positions]
        if cos.dim() == 3:
            cos, sin = cos[:, None], sin[:, None]
        half = self.head_dim // 2
        turned = torch.cat((-x[..., half:], x[..., :half]), -1)
        return x * cos + turned * sin

    def project(self, layer, x):
        """Q, K and V before RoPE, each [batch, heads, rows, head_dim]."""
        batch, rows, _ = x.shape
        qkv = self.normed(x, f"{layer}.norm1") @ self.weights[f"{layer}.qkv"].T
        return qkv.view(batch, rows, 3, self.heads, self.head_dim).permute(2, 0, 3, 1, 4)

    def finish(self, layer, x, q, k, v, mask):
        """Attention of q over k, v under an additive mask, then the feed-forward part."""
        batch, rows, _ = x.shape
        scores = q @ k.transpose(-1, -2) * (1 / math.sqrt(self.head_dim)) + mask
        attended = (scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, rows, self.hidden)
        x = x + attended @ self.weights[f"{layer}.o"].T
        gate, up = (self.normed(x, f"{layer}.norm2") @ self.weights[f"{layer}.gate_up"].T).chunk(2, -1)
        return x + (torch.nn.functional.silu(gate) * up) @ self.weights[f"{layer}.down"].T

    def logits(self, x):
        return self.normed(x, "norm") @ self.weights["head"].T

    def forward(self, tokens, rows=None, cache=None, exits=None):
        """Logits of `rows` (an index into the rows; all without it); `cache` receives (K before RoPE, V) per layer.

        With `exits`, a layer, the result is a list: the logits that head and last norm read after that layer and each
        later one.
        """
        length = tokens.shape[1]
        positions = torch.arange(length)
        mask = torch.full((length, length), -1e9).triu(1)
        x = self.weights["embed"][tokens]
        read = []
        for i in range(self.layers):
            q, k, v = self.project(i, x)
            if cache is not None:
                cache.append((k, v))
            x = self.finish(i, x, self.rotated(q, positions), self.rotated(k, positions), v, mask)
            if exits is not None and i >= exits:
                read.append(self.logits(x if rows is None else rows(x)))
        return self.logits(x if rows is None else rows(x)) if exits is None else read

    # ---- files ----

    def config(self, name):
        return {
            "_name_or_path": name, "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
            "vocab_size": self.vocab, "hidden_size": self.hidden, "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers, "num_attention_heads": self.heads, "num_key_value_heads": self.heads,
            "head_dim": self.head_dim, "rms_norm_eps": self.eps, "rope_theta": self.theta,
            "tie_word_embeddings": False, "attention_bias": False, "mlp_bias": False,
            "max_position_embeddings": self.max_positions, "torch_dtype": "float16"}

    def hugging_face_tensors(self):
        w = self.weights
        tensors = {"model.embed_tokens.weight": w["embed"]}
        for i in range(self.layers):
            prefix = f"model.layers.{i}."
            q, k, v = w[f"{i}.qkv"].chunk(3)
            gate, up = w[f"{i}.gate_up"].chunk(2)
            tensors.update({
                prefix + "input_layernorm.weight": w[f"{i}.norm1"],
                prefix + "self_attn.q_proj.weight": q, prefix + "self_attn.k_proj.weight": k,
                prefix + "self_attn.v_proj.weight": v, prefix + "self_attn.o_proj.weight": w[f"{i}.o"],
                prefix + "post_attention_layernorm.weight": w[f"{i}.norm2"],
                prefix + "mlp.gate_proj.weight": gate, prefix + "mlp.up_proj.weight": up,
                prefix + "mlp.down_proj.weight": w[f"{i}.down"]})
        tensors.update({"model.norm.weight": w["norm"], "lm_head.weight": w["head"]})
        return tensors

    def round_to_float16(self):
        """Makes the weights what save() writes, so that what is measured afterwards is the committed model."""
        for name, value in self.weights.items():
            self.weights[name] = value.detach().half().float()

    def save(self, folder, name):
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, "config.json"), "w") as out:
            json.dump(self.config(name), out, indent=2)
            out.write("\n")
        header, data, end = {"__metadata__": {"format": "pt"}}, [], 0
        for tensor_name, tensor in self.hugging_face_tensors().items():
            raw = tensor.detach().numpy().astype("<f2").tobytes()
            header[tensor_name] = {"dtype": "F16", "shape": list(tensor.shape), "data_offsets": [end, end + len(raw)]}
            data.append(raw)
            end += len(raw)
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        with open(os.path.join(folder, "model.safetensors"), "wb") as out:
            out.write(struct.pack("<Q", len(text)) + text + b"".join(data))


def load(folder):
    """The model that save() wrote to a folder."""
    with open(os.path.join(folder, "config.json")) as file:
        config = json.load(file)
    model = Llama(config["vocab_size"], config["hidden_size"], config["intermediate_size"],
                  config["num_hidden_layers"], config["num_attention_heads"], config["rope_theta"],
                  config["rms_norm_eps"], config["max_position_embeddings"])
    with open(os.path.join(folder, "model.safetensors"), "rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header, data = json.loads(file.read(size)), file.read()

    def tensor(name):
        begin, end = header[name]["data_offsets"]
        values = np.frombuffer(data[begin:end], "<f2").astype(np.float32)
        return torch.from_numpy(values.reshape(header[name]["shape"]))

    w = model.weights
    w["embed"], w["norm"], w["head"] = map(tensor, ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"))
    for i in range(model.layers):
        prefix = f"model.layers.{i}."
        w[f"{i}.norm1"] = tensor(prefix + "input_layernorm.weight")
        w[f"{i}.norm2"] = tensor(prefix + "post_attention_layernorm.weight")
        w[f"{i}.qkv"] = torch.cat([tensor(f"{prefix}self_attn.{part}_proj.weight") for part in "qkv"])
        w[f"{i}.gate_up"] = torch.cat([tensor(f"{prefix}mlp.{part}_proj.weight") for part in ("gate", "up")])
        w[f"{i}.o"] = tensor(prefix + "self_attn.o_proj.weight")
        w[f"{i}.down"] = tensor(prefix + "mlp.down_proj.weight")
    return model


# ---- training ----


def learning_rate(step, steps, peak):
    """A short rise, constant to 70 % of the steps, then a line to nothing."""
    return peak * min(1.0, (step + 1) / 100, max(0.0, (steps - step) / (0.3 * steps)))


def optimizer(model, peak):
    for weight in model.parameters():
        weight.requires_grad_(True)
    return torch.optim.AdamW(model.parameters(), lr=peak, betas=(0.9, 0.95), weight_decay=0.01, foreach=True)


# ---- blending ----


def reuse_cache(model, segments):
    """(K before RoPE, V) per layer of each segment [batch, rows] encoded on its own, laid one after another.

    K is kept before RoPE, so that giving it the position of the whole prompt is the same as encoding the segment from
    position 0 and turning its keys by the distance.
    """
    parts = []
    for segment in segments:
        cache = []
        model.forward(segment, cache=cache)
        parts.append(cache)
    return [tuple(torch.cat([part[i][kind] for part in parts], 2) for kind in (0, 1)) for i in range(model.layers)]


def blended(model, segments, tail, schedule, selection="k", keep_last=1, random=None, cache=None):
    """Logits of the last `keep_last` rows when the segments' caches are reused and some rows computed anew, as
    kdn-client/blend does it: from a check layer on, rows that are not selected keep their cached K and V.

    The first segment's cache is exact, as it stands where it was encoded. `schedule` is a list of (layer, ratio): from
    that layer on only that share of the later segments' rows is computed, chosen by the deviation of K ("k", "v" or
    "kv"), by "random", or as the "first" rows of each segment; the tail's rows are always computed. Before the
    schedule's first layer all rows are. An empty schedule is plain reuse, [(0, 1.0)] full prefill.
    `cache` is reuse_cache() of the segments, where the caller has it.
    """
    tokens = torch.cat(segments + [tail], 1)
    batch, length = tokens.shape
    exact = segments[0].shape[1]
    reused = sum(s.shape[1] for s in segments)
    cache = cache or reuse_cache(model, segments)
    schedule = dict(schedule)
    first = min(schedule, default=-1)
    rows = torch.arange(exact if first >= 0 else reused, length).expand(batch, -1)
    steps = torch.arange(length)
    starts = np.cumsum([0] + [s.shape[1] for s in segments])
    in_segment = torch.tensor([p - max(s for s in starts if s <= p) for p in range(length)])
    x = model.weights["embed"][tokens.gather(1, rows)]
    for i in range(model.layers):
        q, k, v = model.project(i, x)
        old_k, old_v = cache[i]
        shape = (batch, model.heads, length - reused, model.head_dim)
        all_k = torch.cat((model.rotated(old_k, steps[:reused]), torch.zeros(shape)), 2)
        all_v = torch.cat((old_v, torch.zeros(shape)), 2)
        k = model.rotated(k, rows)
        index = rows[:, None, :, None].expand(k.shape)
        if i in schedule and schedule[i] < 1.0:
            dk = (k - all_k.gather(2, index)).pow(2).sum((1, 3))
            dv = (v - all_v.gather(2, index)).pow(2).sum((1, 3))
            score = {"k": dk, "v": dv, "kv": dk + dv,
                     "random": torch.rand(dk.shape, generator=random) if random is not None else dk,
                     "first": -in_segment[rows].float()}[selection]
            score = torch.where(rows >= reused, torch.full_like(score, float("inf")), score)
            # The tail's rows are at the end and always stay.
            wanted = math.floor(schedule[i] * (reused - exact) + 0.5) + length - reused
            chosen = score.topk(min(wanted, rows.shape[1]), dim=1).indices.sort(1).values
            rows = rows.gather(1, chosen)
            x = x.gather(1, chosen[..., None].expand(-1, -1, model.hidden))
            index = chosen[:, None, :, None].expand(-1, model.heads, -1, model.head_dim)
            q, k, v = (part.gather(2, index) for part in (q, k, v))
            index = rows[:, None, :, None].expand(k.shape)
        all_k = all_k.scatter(2, index, k)
        all_v = all_v.scatter(2, index, v)
        mask = torch.where(steps <= rows[..., None], 0.0, -1e9)[:, None]
        x = model.finish(i, x, model.rotated(q, rows), all_k, all_v, mask)
    return model.logits(x[:, -keep_last:])


# ---- scripts ----


def main(description, size, numbers, train, evaluate):
    """What a script of a task does: trains and measures, or measures again.

    `size` makes the model of a number of layers and a seed. `numbers` are the script's own flags, {name: (value, help)}.
    `train` and `evaluate` take the model, the flags and a function that logs a line.
    """
    arguments = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--out", help="folder for config.json, model.safetensors and train.log")
    arguments.add_argument("--evaluate", metavar="FOLDER", help="measure the model of a folder; train nothing")
    arguments.add_argument("--seed", type=int, default=1)
    for name, (value, text) in numbers.items():
        arguments.add_argument(f"--{name}", type=int, default=value, help=text)
    flags = arguments.parse_args()
    if (flags.out is None) == (flags.evaluate is None):
        arguments.error("give --out or --evaluate")
    single_thread()
    torch.manual_seed(flags.seed)
    if flags.evaluate:
        evaluate(load(flags.evaluate), flags, lambda line: print(line, flush=True))
        return
    os.makedirs(flags.out, exist_ok=True)
    with open(os.path.join(flags.out, "train.log"), "w") as file:
        def log(line):
            print(line, flush=True)
            file.write(line + "\n")
            file.flush()

        given = " ".join(f"--{name} {getattr(flags, name)}" for name in ["seed", *numbers])
        log(f"{arguments.prog} {given}; PyTorch {torch.__version__}, NumPy {np.__version__}, 1 thread")
        model = size(flags.layers, flags.seed)
        train(model, flags, log)
        model.round_to_float16()
        model.save(flags.out, os.path.basename(os.path.normpath(flags.out)))
        evaluate(model, flags, log)
