#!/usr/bin/env python3
"""Golden vectors of placement, recomputed from docs/formats.md ("Assignment" and "Topology") in plain Python.

  golden.py            writes golden.json beside this file
  golden.py --check    fails unless golden.json is what this file computes

golden_test.cc holds the C++ library to the same golden.json. The two share no code. What this file does not recompute
is XXH3-64, which hashlib lacks: golden_test.cc computes the topology's checksum over the canonical bytes that are here.
"""

import fractions
import json
import pathlib
import struct
import sys

FILE = pathlib.Path(__file__).with_name("golden.json")
ALL_ONES = 2**64 - 1

# ---- hashes ----


def mix(x):
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & ALL_ONES
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & ALL_ONES
    return x ^ (x >> 31)


def node_hash(node_id):
    h = 0xCBF29CE484222325
    for byte in node_id.encode():
        h = (h ^ byte) * 0x100000001B3 & ALL_ONES
    return mix(h)


def pair_hash(node_id, thing):
    return mix(node_hash(node_id) ^ mix(thing + 0x9E3779B97F4A7C15 & ALL_ONES))


def log_step(i):
    """log2(1 + i/256) * 2^32, rounded down bit by bit."""
    if i == 256:
        return 2**32
    y, result = (256 + i) << 55, 0
    for bit in reversed(range(32)):
        y = y * y
        if y >> 127:
            y >>= 64
            result |= 1 << bit
        else:
            y >>= 63
    return result


LOG_STEPS = [log_step(i) for i in range(257)]


def negative_log2(h):
    x = h | 1
    zeros = 64 - x.bit_length()
    mantissa = x << zeros
    step, rest = mantissa >> 55 & 255, mantissa >> 23 & 0xFFFFFFFF
    return ((zeros + 1) << 32) - LOG_STEPS[step] - ((LOG_STEPS[step + 1] - LOG_STEPS[step]) * rest >> 32)


def rank(node_id, thing, weight):
    return (negative_log2(pair_hash(node_id, thing)) << 20) // weight


# ---- shares and rows ----


def zone_names(nodes):
    return [node["zone"] or f"\0{node['id']}" for node in nodes]


def zone_limit(zones, replicas):
    wanted = min(replicas, len(zones))
    for limit in range(1, replicas):
        if sum(min(zones.count(zone), limit) for zone in set(zones)) >= wanted:
            return limit
    return replicas


def level(weights, cap, total):
    """Water-filling: what each gets of `total` by weight when none may have more than `cap`."""
    full = set()
    while True:
        rest = total - cap * len(full)
        weight = sum(w for i, w in weights.items() if i not in full)
        more = {i for i, w in weights.items() if i not in full and fractions.Fraction(rest * w, weight) >= cap}
        if not more:
            return {i: fractions.Fraction(cap) if i in full else fractions.Fraction(rest * w, weight)
                    for i, w in weights.items()}
        full |= more


def whole(exact, cap):
    """Largest remainder; equal ones by order."""
    shares = {i: int(x) for i, x in exact.items()}
    for i in sorted(exact, key=lambda i: (shares[i] - exact[i], i)):
        if sum(shares.values()) == sum(exact.values()):
            break
        if shares[i] < cap:
            shares[i] += 1
    return shares


def fair_shares(nodes, partitions, replicas):
    zones = zone_names(nodes)
    cap = zone_limit(zones, replicas) * partitions
    weights = {i: node["weight"] for i, node in enumerate(nodes)}
    total, result, opened = partitions * min(replicas, len(nodes)), {}, set(zones)
    while True:
        exact = level({i: w for i, w in weights.items() if zones[i] in opened}, partitions, total)
        over = {zone for zone in opened if sum(x for i, x in exact.items() if zones[i] == zone) > cap}
        if not over:
            return {**result, **whole(exact, partitions)}
        for zone in over:
            result |= whole(level({i: w for i, w in weights.items() if zones[i] == zone}, partitions, cap), partitions)
            total -= cap
        opened -= over


def assign(nodes, bits, replicas):
    """Rows of a cluster whose nodes (sorted by id) all join at once."""
    partitions, zones = 1 << bits, zone_names(nodes)
    limit, wanted = zone_limit(zones, replicas), min(replicas, len(nodes))
    needs = fair_shares(nodes, partitions, replicas)
    rows = []
    for partition in range(partitions):
        row, left = [], partitions - partition
        while len(row) < wanted:
            def order(i):
                in_zone = sum(need for j, need in needs.items() if zones[j] == zones[i])
                return (needs[i] < left, in_zone <= (left - 1) * min(limit, wanted),
                        rank(nodes[i]["id"], partition, nodes[i]["weight"]), -pair_hash(nodes[i]["id"], partition))
            i = min((i for i in needs if needs[i] > 0 and i not in row and
                     sum(zones[j] == zones[i] for j in row) < limit), key=order)
            needs[i] -= 1
            row.append(i)
        row.sort(key=lambda i: -pair_hash(nodes[i]["id"], partition))
        rows.append([nodes[i]["id"] for i in row])
    assert not any(needs.values())
    return rows


# ---- canonical bytes ----


def string(text):
    return struct.pack("<I", len(text)) + text.encode()


def slots(numbers):
    return struct.pack("<B", len(numbers)) + b"".join(struct.pack("<H", n) for n in numbers)


def canonical(t):
    out = b"KDNT\x01" + string(t["cluster"])
    out += struct.pack("<QQBBI", int(t["cluster_id"], 16), t["epoch"], t["partition_bits"], t["replicas"],
                       len(t["nodes"]))
    for n in t["nodes"]:
        out += string(n["id"]) + struct.pack("<H", n["slot"]) + string(n["address"]) + string(n["zone"])
        out += struct.pack("<IBBQQ", n["weight"], n["state"], n["returns_draining"], int(n["incarnation"], 16),
                           n["capacity_bytes"])
    out += b"".join(struct.pack("<H", slot) for row in t["owners"] for slot in row)
    out += struct.pack("<I", len(t["moves"]))
    for m in t["moves"]:
        out += struct.pack("<I", m["partition"]) + slots(m["filling"]) + slots(m["leaving"]) + slots(m["partial"])
    out += struct.pack("<I", len(t["hot"]))
    for h in t["hot"]:
        out += bytes.fromhex(h["key"]) + bytes.fromhex(h["space"]) + slots(h["extra"])
    return out


# ---- the vectors ----

IDS = ["a", "node-1", "node-2", "eu-west.rack7_kdn-0042", "Z" * 64]

CLUSTERS = [
    {"replicas": 2, "nodes": [("n1", "", 100), ("n2", "", 100), ("n3", "", 100)]},
    {"replicas": 2, "nodes": [("big", "", 300), ("mid", "", 200), ("tiny", "", 7), ("zero", "", 1)]},
    {"replicas": 2, "nodes": [("a1", "a", 300), ("a2", "a", 300), ("b1", "b", 100), ("c1", "c", 100)]},
    {"replicas": 3, "nodes": [("p", "x", 100), ("q", "x", 100), ("r", "x", 50), ("s", "y", 100), ("t", "y", 1)]},
    {"replicas": 5, "nodes": [("one", "", 100), ("two", "z", 100)]},
    {"replicas": 1, "nodes": [(f"w{i}", f"z{i % 3}", 10 + 37 * i) for i in range(7)]},
]

TOPOLOGY = {
    "cluster": "golden", "cluster_id": "0123456789abcdef", "epoch": 7, "partition_bits": 4, "replicas": 2,
    "nodes": [
        {"id": "a", "slot": 0, "address": "10.0.0.1:7401", "zone": "z1", "weight": 100, "state": 2,
         "returns_draining": False, "incarnation": "fedcba9876543210", "capacity_bytes": 1 << 40},
        {"id": "b", "slot": 3, "address": "[::1]:7402", "zone": "", "weight": 250, "state": 4,
         "returns_draining": True, "incarnation": "0000000000000001", "capacity_bytes": 0},
        {"id": "c", "slot": 1, "address": "c.example:1", "zone": "z 2", "weight": 1, "state": 1,
         "returns_draining": False, "incarnation": "0000000000000002", "capacity_bytes": 5},
    ],
    "owners": [[0, 1]] * 12 + [[0, 65535]] * 3 + [[65535, 65535]],
    "moves": [{"partition": 2, "filling": [1], "leaving": [3], "partial": [3]},
              {"partition": 15, "filling": [], "leaving": [0, 3], "partial": []}],
    "hot": [{"key": "aa" * 32, "space": "11" * 32, "extra": [3]}],
}


def compute():
    return {
        "node_hash": [{"id": i, "hash": f"{node_hash(i):016x}"} for i in IDS],
        "ranks": [{"id": i, "thing": thing, "weight": weight, "pair_hash": f"{pair_hash(i, thing):016x}",
                   "negative_log2": negative_log2(pair_hash(i, thing)), "rank": rank(i, thing, weight)}
                  for i in IDS for thing, weight in [(0, 1), (1, 100), (16383, 250), (2**64 - 1, 1000000)]],
        "logarithms": [{"hash": f"{h:016x}", "negative_log2": negative_log2(h)}
                       for h in [0, 1, 2, 3, 2**63, 2**63 - 1, 2**63 + 2**54, ALL_ONES, 0x0123456789ABCDEF]],
        "partitions": [{"key": key, "bits": bits, "partition": int(key[:8], 16) >> 32 - bits}
                       for key in ["00" * 32, "ff" * 32, "8001" + "00" * 30, "0123456789abcdef" * 4]
                       for bits in [4, 14, 16]],
        "clusters": [
            {"replicas": c["replicas"], "bits": 5,
             "nodes": (nodes := [{"id": i, "zone": zone, "weight": weight} for i, zone, weight in c["nodes"]]),
             "shares": [s for _, s in sorted(fair_shares(nodes, 32, c["replicas"]).items())],
             "owners": assign(nodes, 5, c["replicas"])} for c in CLUSTERS],
        "static_cluster_id": {"cluster": "demo", "id": f"{node_hash('kdn/static/demo') | 1:016x}"},
        "topology": TOPOLOGY,
        "canonical_hex": canonical(TOPOLOGY).hex(),
    }


def main():
    computed = compute()
    if sys.argv[1:] == ["--check"]:
        committed = json.loads(FILE.read_text())
        for name, value in computed.items():
            if committed.get(name) != value:
                sys.exit(f"golden.json differs from what golden.py computes, in \"{name}\"")
        if committed.keys() != computed.keys():
            sys.exit("golden.json has entries that golden.py does not compute")
    elif not sys.argv[1:]:
        FILE.write_text(json.dumps(computed, indent=1) + "\n")
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
