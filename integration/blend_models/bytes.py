#!/usr/bin/env python3
"""Trains a byte-level language model on text that every Debian system has, and measures reuse and blending by log-loss.

  bytes.py --out bytes-1           writes config.json, model.safetensors, train.log
  bytes.py --evaluate bytes-1

Tokens are as integration/engine/tokenizer.h has them: a byte each, 256 begins a sequence. A prompt is consecutive
passages of one document, each beginning with 256 so that every passage looks the same wherever it stands; what is
measured is the log-loss of the last passage, which is always computed, given those before it. Passages are short:
where they are long, a small model foretells the last one from their reused KV as well as from theirs computed (four
passages of 95 bytes: 0.001 bits a byte apart).

Training text: the Python library's sources (Debian's libpython3.*-stdlib and -minimal) and the licences in
/usr/share/common-licenses (base-files) but for those measured on. Measured on: GPL-3 and CC0-1.0 of base-files, whose
lines are left out of the training text wherever they occur.
"""

import glob
import math
import os
import time

import llama  # before NumPy and PyTorch
import numpy as np
import torch

BOS, VOCAB = 256, 260
ROWS = 384  # of a prompt
LENGTHS = [24, 48, 96]  # rows of a passage, its BOS included; in training one of them for each step …
LENGTH = 24  # … and this one to measure
LICENCES = "/usr/share/common-licenses"
MEASURED = ["GPL-3", "CC0-1.0"]


def read(path):
    with open(path, "rb") as file:
        return file.read()


def measured_text():
    return [read(os.path.join(LICENCES, name)) for name in MEASURED]


def training_text():
    """Documents as byte arrays, long enough for a prompt, none with a line of the measured ones."""
    library = os.path.dirname(os.__file__)
    paths = sorted(glob.glob(os.path.join(library, "*.py")) + glob.glob(os.path.join(library, "[a-z]*", "*.py")))
    paths = [path for path in paths if "/test" not in path and "-packages" not in path and "/encodings/" not in path]
    paths += sorted(os.path.join(LICENCES, name) for name in os.listdir(LICENCES)
                    if name not in MEASURED and not os.path.islink(os.path.join(LICENCES, name)))
    held = {line.strip() for text in measured_text() for line in text.splitlines() if len(line.strip()) >= 20}
    documents = []
    for path in paths:
        lines = [line for line in read(path).splitlines(keepends=True) if line.strip() not in held]
        text = np.frombuffer(b"".join(lines), np.uint8).astype(np.int64)
        if len(text) > ROWS:
            documents.append(text)
    return documents


def draw(random, documents, weights, batch, length):
    """Prompts [batch, ROWS] of consecutive passages."""
    passages = ROWS // length
    prompts = np.full((batch, passages, length), BOS)
    size = passages * (length - 1)
    for i, chosen in enumerate(random.choice(len(documents), batch, p=weights)):
        begin = random.integers(0, len(documents[chosen]) - size + 1)
        prompts[i, :, 1:] = documents[chosen][begin:begin + size].reshape(passages, length - 1)
    return torch.from_numpy(prompts.reshape(batch, -1))


def losses(logits, tokens):
    """Log-loss of each token given the row before it; a passage's BOS says nothing and counts for nothing."""
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), tokens[:, 1:], reduction="none")
    return loss[tokens[:, 1:] != BOS]


def train(model, flags, log):
    random = np.random.default_rng(flags.seed)
    documents = training_text()
    sizes = np.array([len(text) for text in documents], np.float64)
    log(f"{len(documents)} documents, {sizes.sum() / 1e6:.1f} MB")
    peak = 2e-3
    adam = llama.optimizer(model, peak)
    begin, seen = time.monotonic(), []
    for step in range(flags.steps):
        tokens = draw(random, documents, sizes / sizes.sum(), flags.batch, LENGTHS[step % len(LENGTHS)])
        for group in adam.param_groups:
            group["lr"] = llama.learning_rate(step, flags.steps, peak)
        loss = losses(model.forward(tokens), tokens).mean()
        adam.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        seen.append(loss.item())
        if (step + 1) % 100 == 0 or step + 1 == flags.steps:
            log(f"step {step + 1} bits a byte {np.mean(seen) / math.log(2):.4f} seconds {time.monotonic() - begin:.0f}")
            seen = []


def evaluate(model, flags, log):
    """Bits a byte of the last passage, and the share of the gap, plain reuse to full prefill, that a policy closes."""
    layers = range(1, model.layers - 1)
    policies = [("full prefill", [(0, 1.0)], "k"), ("plain reuse", [], "k")]
    policies += [(f"K 15 % at layer {i}", [(i, 0.15)], "k") for i in layers]
    policies += [(f"V 15 % at layer {i}", [(i, 0.15)], "v") for i in layers]
    policies += [(f"random 15 % at layer {i}", [(i, 0.15)], "random") for i in layers]
    policies += [("first rows of each chunk 15 %", [(0, 0.15)], "first")]
    documents = [np.frombuffer(text, np.uint8).astype(np.int64) for text in measured_text()]
    sizes = np.array([len(text) for text in documents], np.float64)
    count = flags.prompts
    prompts = draw(np.random.default_rng(flags.seed), documents, sizes / sizes.sum(), count, LENGTH)
    random = torch.Generator().manual_seed(flags.seed)
    sums = np.zeros(len(policies))
    with torch.no_grad():
        for some in prompts.split(16):
            *segments, tail = some.chunk(ROWS // LENGTH, 1)
            cache = llama.reuse_cache(model, segments)
            for i, (_, schedule, selection) in enumerate(policies):
                logits = llama.blended(model, segments, tail, schedule, selection, LENGTH, random, cache)
                sums[i] += losses(logits, tail).sum().item()
    bits = sums / (count * (LENGTH - 1)) / math.log(2)
    log(f"bits a byte of the last of {ROWS // LENGTH} passages of {', '.join(MEASURED)}, {count} prompts; the first is exact")
    for (name, _, _), value in zip(policies, bits):
        log(f"{name:32s} {value:.4f} closes {100 * (bits[1] - value) / (bits[1] - bits[0]):6.1f} %")


if __name__ == "__main__":
    llama.main(__doc__, lambda layers, seed: llama.Llama(VOCAB, 128, 352, layers, heads=8, max_positions=2048, seed=seed),
               {"steps": (1000, None), "layers": (6, None), "batch": (6, "prompts of a step"),
                "prompts": (200, "to measure with")}, train, evaluate)
