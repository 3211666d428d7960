#!/usr/bin/env python3
"""Trains the variable-tracking model: a tiny Llama whose answers need attention between the segments of a prompt.

  tracking.py --seed 1 --out tracking-1     writes config.json, model.safetensors and train.log; some 15 minutes
  tracking.py --evaluate tracking-1         measures the committed weights again

A prompt is a few chunks and a question. A chunk is SEP and statements of two tokens, `VAR literal` or `VAR VAR`; every
variable is assigned once. A reference names a variable of an earlier statement, mostly one of an earlier chunk; one
that names no earlier statement resolves to UNK, and so does one to a variable that is UNK. The question is `Q VAR`; the
answer, expected as the next token, is the literal that VAR resolves to. Its *hops* are the cross-chunk references on
the way. A chunk encoded on its own cannot resolve its cross-chunk references, so their rows hold UNK and plain reuse
of its KV cache answers wrongly: the task measures exactly what blending has to mend.

tracking_task.h draws the same prompts in C++ (the same distribution, not the same numbers).
"""

import time

import llama  # before NumPy and PyTorch
import numpy as np
import torch

VARIABLES, VALUES = 64, 32
FIRST_VALUE = VARIABLES  # tokens 0-63 are variables, 64-95 are values
UNK, SEP, Q, PAD = 96, 97, 98, 99  # PAD is not used; it makes the vocabulary 100
VOCAB = 100
CHUNKS, STATEMENTS = 4, 14
CROSS, LOCAL = 2, 2  # references to earlier chunks, and to literals of the same chunk, in each chunk


def draw(random, batch, chunks=CHUNKS, statements=STATEMENTS, references=True):
    """Chunks' tokens, and the tables that describe them.

    Returns tokens [batch, chunks × (1 + 2 × statements)], and for every statement [batch, chunks × statements] its
    variable, its resolved value's token, and its hops (-1 where it is UNK).
    """
    total = chunks * statements
    order = random.permuted(np.tile(np.arange(VARIABLES), (batch, 1)), axis=1)
    names, unused = order[:, :total], order[:, total:]
    argument = random.integers(FIRST_VALUE, FIRST_VALUE + VALUES, (batch, total))
    resolved = argument.copy()
    hops = np.zeros((batch, total), np.int64)
    each = np.arange(batch)
    cross = np.zeros((batch, chunks, CROSS), np.int64)  # statements that are cross-chunk references
    for c in range(chunks if references else 0):
        base = c * statements
        # Slots in random order: the first are cross-chunk references, the next local ones, the others literals.
        slots = random.permuted(np.tile(np.arange(statements), (batch, 1)), axis=1)
        for j in range(CROSS):
            at = base + slots[:, j]
            cross[:, c, j] = at
            nothing = unused[each, random.integers(0, unused.shape[1], batch)]
            if c == 0:
                argument[each, at], resolved[each, at], hops[each, at] = nothing, UNK, -1
                continue
            target = random.integers(0, base, batch)
            if c >= 2:  # half of them continue a chain, else long chains would be rare
                chain = cross[each, c - 1, random.integers(0, CROSS, batch)]
                target = np.where(random.random(batch) < 0.5, chain, target)
            unknown = random.random(batch) < 0.1
            argument[each, at] = np.where(unknown, nothing, names[each, target])
            lost = unknown | (hops[each, target] < 0)
            resolved[each, at] = np.where(lost, UNK, resolved[each, target])
            hops[each, at] = np.where(lost, -1, hops[each, target] + 1)
        literals = np.sort(slots[:, CROSS + LOCAL:], axis=1)
        for j in range(LOCAL if statements >= CROSS + LOCAL + 2 else 0):
            at = slots[:, CROSS + j]
            earlier = (literals < at[:, None]).sum(1)
            source = base + literals[each, (random.random(batch) * earlier).astype(np.int64)]
            keep = earlier > 0  # a slot before every literal stays a literal
            argument[each, base + at] = np.where(keep, names[each, source], argument[each, base + at])
            resolved[each, base + at] = np.where(keep, resolved[each, source], resolved[each, base + at])
    tokens = np.full((batch, chunks, 1 + 2 * statements), SEP)
    tokens[:, :, 1::2] = names.reshape(batch, chunks, statements)
    tokens[:, :, 2::2] = argument.reshape(batch, chunks, statements)
    return tokens.reshape(batch, -1), names, resolved, hops


def training_batch(random, batch, chunks, statements, references, queries):
    """Tokens with the queries appended, and (rows, labels) of every statement's argument and every query."""
    tokens, names, resolved, _ = draw(random, batch, chunks, statements, references)
    asked = random.integers(0, names.shape[1], (batch, queries))
    tail = np.full((batch, 2 * queries), Q)
    tail[:, 1::2] = np.take_along_axis(names, asked, 1)
    labels = np.concatenate((resolved, np.take_along_axis(resolved, asked, 1)), 1)
    width = 1 + 2 * statements
    rows = [c * width + 2 + 2 * s for c in range(chunks) for s in range(statements)]
    rows += [chunks * width + 1 + 2 * j for j in range(queries)]
    return (torch.from_numpy(np.concatenate((tokens, tail), 1)), torch.tensor(rows), torch.from_numpy(labels))


# Chunks, statements in each, and whether there are references. The next stage comes when the queries of one are
# answered: on a clock instead, a seed that learns to look up late is overrun by growing prompts and never does.
STAGES = [(1, 4, False), (1, 6, True), (1, 8, True), (2, 8, True), (3, 10, True), (4, 12, True), (4, 14, True)]
STAGE_DONE = 0.9
QUERIES = 16
# The layers from the middle on are read by the head too (early exits), so that references are resolved in the first
# half, as large models resolve them well before their last layers.
EXIT_WEIGHT = 0.5


def train(model, flags, log):
    random = np.random.default_rng(flags.seed)
    peak = 2e-3
    adam = llama.optimizer(model, peak)
    begin = time.monotonic()
    stage, done = 0, 0.0
    losses, right = [], []
    for step in range(flags.steps):
        chunks, statements, references = STAGES[stage]
        batch = flags.tokens // (chunks * (1 + 2 * statements) + 2 * QUERIES)
        tokens, rows, labels = training_batch(random, batch, chunks, statements, references, QUERIES)
        for group in adam.param_groups:
            group["lr"] = llama.learning_rate(step, flags.steps, peak)
        exits = model.forward(tokens, rows=lambda x: x[:, rows], exits=model.layers // 2 - 1)
        logits = exits[-1]
        each = [torch.nn.functional.cross_entropy(read.reshape(-1, VOCAB), labels.reshape(-1)) for read in exits]
        loss = each[-1]
        total = loss + EXIT_WEIGHT * sum(each[:-1]) / (len(each) - 1)
        adam.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        losses.append(loss.item())
        right.append((logits[:, -QUERIES:].argmax(-1) == labels[:, -QUERIES:]).float().mean().item())
        done += 0.05 * (right[-1] - done)
        if (step + 1) % 250 == 0 or step + 1 == flags.steps or (done > STAGE_DONE and stage + 1 < len(STAGES)):
            log(f"step {step + 1} chunks x statements {chunks} x {statements} loss {np.mean(losses):.4f} "
                f"queries right {np.mean(right):.4f} seconds {time.monotonic() - begin:.0f}")
            losses, right = [], []
        if done > STAGE_DONE and stage + 1 < len(STAGES):
            stage, done = stage + 1, 0.0


def questions(random, count, hops):
    """`count` prompts [chunks], questions and answers of that many hops."""
    segments, tails, answers = [], [], []
    found = 0
    while found < count:
        tokens, names, resolved, depth = draw(random, 1024)
        fits = depth == hops
        some = np.flatnonzero(fits.any(1))
        asked = np.argmax(fits * random.random(fits.shape), 1)[some]
        segments.append(tokens[some])
        tails.append(np.stack((np.full(len(some), Q), names[some, asked]), 1))
        answers.append(resolved[some, asked])
        found += len(some)
    tokens, tail, answer = (torch.from_numpy(np.concatenate(x)[:count]) for x in (segments, tails, answers))
    return list(tokens.chunk(CHUNKS, 1)), tail, answer


def evaluate(model, flags, log):
    """The share of questions answered rightly, by hops and policy."""
    last = model.layers - 1
    policies = [("full prefill", [(0, 1.0)], "k"), ("plain reuse", [], "k")]
    policies += [(f"{kind.upper()} 15 % at layer {i}", [(i, 0.15)], kind) for kind in "kv" for i in range(1, last + 1)]
    policies += [(f"K 30 % at {i}, 10 % at {i + 1}", [(i, 0.30), (i + 1, 0.10)], "k") for i in range(1, last)]
    policies += [(f"K 50 % at {i}, 15 % at {i + 1}", [(i, 0.50), (i + 1, 0.15)], "k") for i in range(1, last)]
    policies += [(f"V 30 % at {i}, 10 % at {i + 1}", [(i, 0.30), (i + 1, 0.10)], "v") for i in range(1, last)]
    policies += [(f"random 15 % at layer {i}", [(i, 0.15)], "random") for i in range(0, last)]
    policies += [("first rows of each chunk 15 %", [(0, 0.15)], "first")]
    count = flags.questions
    random = np.random.default_rng(1_000_000 + flags.seed)
    torch_random = torch.Generator().manual_seed(flags.seed)
    shares = np.zeros((len(policies), 4))
    with torch.no_grad():
        for hops in range(4):
            segments, tail, answer = questions(random, count, hops)
            for begin in range(0, count, 100):
                some = slice(begin, begin + 100)
                chunks = [chunk[some] for chunk in segments]
                cache = llama.reuse_cache(model, chunks)
                for i, (_, schedule, selection) in enumerate(policies):
                    logits = llama.blended(model, chunks, tail[some], schedule, selection, 1, torch_random, cache)
                    shares[i, hops] += (logits[:, 0].argmax(-1) == answer[some]).sum().item()
    log(f"share of {count} questions answered rightly, by cross-chunk hops; the first chunk is exact, layers from 0")
    log(f"{'policy':32s} " + " ".join(f"{hops} hops" for hops in range(4)))
    for (name, _, _), row in zip(policies, shares / count):
        log(f"{name:32s} " + " ".join(f"{share:6.3f}" for share in row))


if __name__ == "__main__":
    llama.main(__doc__, lambda layers, seed: llama.Llama(VOCAB, 64, 176, layers, heads=4, max_positions=2048, seed=seed),
               {"steps": (4000, None), "layers": (8, None), "tokens": (2400, "a step"),
                "questions": (500, "to measure with, for each number of hops")}, train, evaluate)
