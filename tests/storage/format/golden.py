#!/usr/bin/env python3
"""Golden vectors of KDN's formats, recomputed from docs/formats.md with hashlib and struct alone.

  golden.py            writes golden.json beside this file
  golden.py --check    fails unless golden.json is what this file computes

golden_test.cc holds the C++ library to the same golden.json. The two share no code, so an encoding that drifts fails in
one of them. What this file does not recompute is XXH3-64, which hashlib lacks: the manifest's closing checksum is kept
as golden.json has it, and only golden_test.cc verifies it.
"""

import hashlib
import json
import pathlib
import struct
import sys

FILE = pathlib.Path(__file__).with_name("golden.json")

DTYPES = {"bf16": 1, "f16": 2, "f32": 3, "f8e4m3": 4, "f8e5m2": 5, "i8": 6}
STORED = {"kv": 1, "k_only": 2, "latent": 3}
NO_ROPE = {"kind": 0, "scaling": 0, "rotary_dim": 0, "theta": 0.0, "factor": 0.0, "low_freq_factor": 0.0,
           "high_freq_factor": 0.0, "attention_factor": 0.0, "original_max_position": 0}


def framed(data):
    return struct.pack("<I", len(data)) + data


# ---- spaces ----


def run(count, kv_heads, k_dim, v_dim, stored="kv", sliding_window=0, **rope):
    return {"count": count, "kv_heads": kv_heads, "k_dim": k_dim, "v_dim": v_dim, "stored": stored,
            "sliding_window": sliding_window, "rope": {**NO_ROPE, **rope}}


SPACES = [
    {"name": "llama", "model_id": "acme/tiny-llama", "weights_revision": "3f2a9c", "adapter_id": "",
     "adapter_revision": "", "tenant_salt_hex": "", "dtype": "bf16", "keys_after_rope": True, "tp_rank": 0,
     "tp_world": 1, "pp_first_layer": 0, "chunk_tokens": 256, "layer_map": [],
     "layers": [run(8, 4, 64, 64, kind=1, rotary_dim=64, theta=10000.0)]},
    {"name": "every field", "model_id": "acme/mixed-π", "weights_revision": "sha256:00ff", "adapter_id": "sql",
     "adapter_revision": "7", "tenant_salt_hex": "00ff10", "dtype": "f16", "keys_after_rope": False, "tp_rank": 1,
     "tp_world": 2, "pp_first_layer": 4, "chunk_tokens": 64, "layer_map": [4, 6, 7, 12, 13, 14, 15],
     "layers": [
         run(2, 2, 128, 96, sliding_window=4096, kind=2, scaling=4, rotary_dim=64, theta=500000.0, factor=8.0,
             low_freq_factor=1.0, high_freq_factor=4.0, original_max_position=8192),
         run(1, 2, 128, 0, stored="k_only"),
         run(3, 1, 576, 0, stored="latent", kind=1, scaling=3, rotary_dim=64, theta=10000.0, factor=40.0,
             low_freq_factor=1.0, high_freq_factor=32.0, attention_factor=1.3688879454113936,
             original_max_position=4096),
         run(1, 2, 128, 128, kind=1, scaling=1, rotary_dim=128, theta=10000.0, factor=2.5)]},
]


def encode_space(s):
    out = b"KDNS" + bytes([1])
    for field in ("model_id", "weights_revision", "adapter_id", "adapter_revision"):
        out += framed(s[field].encode())
    out += framed(bytes.fromhex(s["tenant_salt_hex"]))
    out += struct.pack("<BBIIII", DTYPES[s["dtype"]], s["keys_after_rope"], s["tp_rank"], s["tp_world"],
                       s["pp_first_layer"], s["chunk_tokens"])
    out += struct.pack("<I", len(s["layers"]))
    for r in s["layers"]:
        out += struct.pack("<IIIIBI", r["count"], r["kv_heads"], r["k_dim"], r["v_dim"], STORED[r["stored"]],
                           r["sliding_window"])
        p = r["rope"]
        out += struct.pack("<BBIdddddI", p["kind"], p["scaling"], p["rotary_dim"], p["theta"], p["factor"],
                           p["low_freq_factor"], p["high_freq_factor"], p["attention_factor"],
                           p["original_max_position"])
    return out + struct.pack(f"<I{len(s['layer_map'])}I", len(s["layer_map"]), *s["layer_map"])


# ---- chunk keys ----


def chunk_key(space, parent, tokens, extras=()):
    data = b"kdn/chunk/1" + space + parent + struct.pack(f"<I{len(tokens)}I", len(tokens), *tokens)
    data += struct.pack("<I", len(extras)) + b"".join(framed(e) for e in extras)
    return hashlib.sha256(data).digest()


def chain(space, chunk_tokens, tokens):
    keys, parent = [], bytes(32)
    for first in range(0, len(tokens), chunk_tokens):
        parent = chunk_key(space, parent, tokens[first:first + chunk_tokens])
        keys.append(parent.hex())
    return keys


# ---- manifest ----


def manifest_vector(space, key):
    kinds, codecs = {"k": 1, "v": 2, "latent": 3}, {"raw": 0, "zstd": 1}
    slabs = []
    for layer in range(2):
        shape = {"tokens": 3, "heads": 2, "dim": 64, "dtype": "bf16"}
        slabs.append({"layer": layer, "kind": "k", "codec": "zstd", "shape": shape, "encoded_size": 500 + layer,
                      "checksum": f"{0x0123456789abcdef + layer:016x}"})
        slabs.append({"layer": layer, "kind": "v", "codec": "raw", "shape": {**shape, "dim": 32},
                      "encoded_size": 384, "checksum": f"{0xfedcba9876543210 + layer:016x}"})
    shapes = []
    for s in slabs:
        if s["shape"] not in shapes:
            shapes.append(s["shape"])
    body = b"KDNM" + bytes([1, 3]) + space + key + bytes(32) + struct.pack("<IIHH", 0, 3, len(shapes), len(slabs))
    for s in shapes:
        body += struct.pack("<IIIB", s["tokens"], s["heads"], s["dim"], DTYPES[s["dtype"]])
    for s in slabs:
        body += struct.pack("<HHBBIQ", s["layer"], shapes.index(s["shape"]), kinds[s["kind"]], codecs[s["codec"]],
                            s["encoded_size"], int(s["checksum"], 16))
    return {"space": space.hex(), "key": key.hex(), "parent": bytes(32).hex(), "first_token": 0, "tokens": 3,
            "fidelity": 3, "slabs": slabs, "body_hex": body.hex()}


# ---- plane split, and the zstd codec's payload where nothing compresses ----


def split(words):
    rotated = [(w << 1 | w >> 15) & 0xffff for w in words]
    return bytes(r >> 8 for r in rotated), bytes(r & 0xff for r in rotated)


def planes_vector():
    words = [0x0000, 0x8000, 0x3f80, 0xbf80, 0x7f80, 0xff80, 0x7fc1, 0x0001, 0x8001, 0xffff]
    words += [(0x9e37 * i + 0x79b9) & 0xffff for i in range(61)]
    high, low = split(words)
    return {"words_hex": struct.pack(f"<{len(words)}H", *words).hex(), "high_hex": high.hex(), "low_hex": low.hex()}


def stored_payload_vector():
    words = [0x3f80, 0xc000, 0x0001]
    high, low = split(words)
    payload = bytes([1, 1]) + struct.pack("<II", len(high), len(low)) + high + low
    return {"shape": {"tokens": 1, "heads": 1, "dim": 3, "dtype": "bf16"},
            "raw_hex": struct.pack("<3H", *words).hex(), "payload_hex": payload.hex()}


def compute(manifest_checksum):
    spaces = []
    for s in SPACES:
        encoded = encode_space(s)
        spaces.append({**s, "bytes_hex": encoded.hex(), "id": hashlib.sha256(encoded).hexdigest()})
    space = bytes.fromhex(spaces[0]["id"])
    tokens = [(i * 2654435761) & 0xffffffff for i in range(10)]
    extras = [b"", b"image:\x00\xff"]
    keys = chain(space, 4, tokens)
    return {
        "spaces": spaces,
        "chunk_keys": {
            "space": space.hex(), "chunk_tokens": 4, "tokens": tokens, "chain": keys,
            "extras_hex": [e.hex() for e in extras],
            "first_with_extras": chunk_key(space, bytes(32), tokens[:4], extras).hex()},
        "manifest": {**manifest_vector(space, bytes.fromhex(keys[0])), "xxh3_64": manifest_checksum},
        "planes16": planes_vector(),
        "zstd_stored_payload": stored_payload_vector(),
    }


def main():
    committed = json.loads(FILE.read_text()) if FILE.exists() else {}
    computed = compute(committed.get("manifest", {}).get("xxh3_64", "0" * 16))
    if sys.argv[1:] == ["--check"]:
        for name, value in computed.items():
            if committed.get(name) != value:
                sys.exit(f"golden.json differs from what golden.py computes, in \"{name}\"")
        if committed.keys() != computed.keys():
            sys.exit("golden.json has entries that golden.py does not compute")
    elif not sys.argv[1:]:
        FILE.write_text(json.dumps(computed, indent=1, ensure_ascii=False) + "\n")
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
