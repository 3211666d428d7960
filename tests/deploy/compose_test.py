#!/usr/bin/env python3
"""The three-node example of deploy/containers/compose.yaml, run by its own command lines without containers; and what is
read of a running cluster: metrics, rules, boards, probes."""

import json
import re
import subprocess
import unittest
import urllib.request

import yaml

import deployment
from deployment import DEPLOY, Process, metrics, temporary_folder, tool, wait_until

# Values of labels that a series gets only once it happens.
ON_DEMAND = {("code", "RESOURCE_EXHAUSTED"), ("reason", "ALREADY_EXISTS")}
ON_DEMAND_SERIES = {"kdn_cluster_heartbeat_failures_total"}


class Compose:
    """Services of the compose file whose programs are here, on this machine's loopback."""

    def __init__(self, add_cleanup):
        self.folder = temporary_folder(add_cleanup)
        services = yaml.safe_load((DEPLOY / "containers/compose.yaml").read_text())["services"]
        self.commands = {name: service["command"] for name, service in services.items()
                         if name.startswith(("etcd-", "placement-", "node-"))}
        places = sorted({(name, port) for name, command in self.commands.items() for word in command
                         for port in re.findall(r"0\.0\.0\.0:(\d+)", word)})
        self.ports = dict(zip(places, deployment.free_ports(len(places))))
        self.processes = {}
        build = deployment.build
        for name, command in self.commands.items():
            program = {"etcd": [tool("etcd", "etcd-server")], "placement": [build.placement], "node": [build.node]}
            kind = name.split("-")[0]
            words = command[1:] if kind == "etcd" else command
            self.processes[name] = Process(add_cleanup, name,
                                           program[kind] + [self.translate(name, w) for w in words], self.folder)

    def translate(self, service, word):
        """A flag as it is on one machine: own addresses and folders for each service."""
        word = re.sub(r"0\.0\.0\.0:(\d+)", lambda m: f"{service}:{m.group(1)}", word)
        word = re.sub(r"\b((?:etcd|placement|node)-\d):(\d+)",
                      lambda m: f"127.0.0.1:{self.ports[m.group(1), m.group(2)]}", word)
        return word.replace("=/var/lib/", f"={self.folder}/{service}/")

    def metrics(self, service):
        return metrics(self.ports[service, "7402" if service.startswith("node") else "7412"])

    def services(self, kind):
        return sorted(name for name in self.commands if name.startswith(kind))

    def wait_until_serving(self):
        def settled():
            pages = [self.metrics(node) for node in self.services("node")]
            return all(page and re.search(r'^kdn_cluster_partitions\{state="owned"\} [1-9]', page, re.M) and
                       'kdn_cluster_partitions{state="filling"} 0\n' in page for page in pages)
        wait_until(settled, "partitions on all nodes", self.processes.values())


def selectors(expression):
    """(series, {label: value matched by =}) of each selector of a PromQL expression; values with variables left out."""
    bare = re.sub(r"\b(?:by|on|without|ignoring)\s*\([^)]*\)|\[[^\]]*\]", " ", expression)
    found = []
    for name, call, labels in re.findall(r"([a-zA-Z_:][\w:]*)\s*(\()?(?:\{([^}]*)\})?", bare):
        if not call and name.startswith(("kdn_", "up", "instance", "job")):
            found.append((name, dict(re.findall(r'(\w+)="([^"$]*)"', labels))))
    return found


class ComposeTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Compose(cls.addClassCleanup)
        cls.cluster.wait_until_serving()
        placement = ",".join(f"127.0.0.1:{cls.cluster.ports[s, '7411']}" for s in cls.cluster.services("placement"))
        cls.stored = subprocess.run([deployment.build.store_fetch, "cluster", placement], capture_output=True, text=True,
                                    timeout=60)
        cls.pages = {s: cls.cluster.metrics(s) for s in cls.cluster.services("node") + cls.cluster.services("placement")}
        rules = yaml.safe_load((DEPLOY / "prometheus/kdn.rules.yml").read_text())
        cls.rules = [rule for group in rules["groups"] for rule in group["rules"]]

    def check_exists(self, expression, where):
        """Every series that an expression names is served by a daemon, with those labels, or recorded."""
        recorded = {rule["record"] for rule in self.rules if "record" in rule}
        live = "".join(self.pages.values())
        named = selectors(expression)
        self.assertTrue(named, f"{where}: no series in {expression}")
        for name, labels in named:
            if name in recorded or name in ON_DEMAND_SERIES or name == "up":
                continue
            lines = re.findall(rf"^{name}(?:{{.*}})? .*$", live, re.M)
            self.assertTrue(lines, f"{where}: no daemon has {name}")
            for label, value in labels.items():
                if label in ("instance", "job") or (label, value) in ON_DEMAND:
                    continue
                self.assertTrue([line for line in lines if f'{label}="{value}"' in line],
                                f'{where}: no {name} has {label}="{value}"')

    def test_a_store_and_a_fetch_through_the_three_nodes(self):
        self.assertEqual(self.stored.returncode, 0, self.stored.stderr)
        self.assertIn("fetched 4 chunks", self.stored.stdout)
        held = [re.search(r'^kdn_tier_chunks\{tier="disk"\} (\d+)', self.pages[n], re.M).group(1)
                for n in self.cluster.services("node")]
        self.assertEqual(sum(map(int, held)), 8, "four chunks, two replicas each")

    def test_every_placement_daemon_has_the_page_of_the_three_nodes(self):
        def all_answered(port):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/overview", timeout=10) as answer:
                overview = json.load(answer)
            return overview["nodes_answered"] == 3 and overview["total"]["stored"]["chunks"] == 8
        for service in self.cluster.services("placement"):
            port = self.cluster.ports[service, "7413"]
            wait_until(lambda port=port: all_answered(port), f"the page of {service}", self.cluster.processes.values())

    def test_selectors_reads_expressions(self):
        self.assertEqual(selectors('sum by (job) (rate(kdn_a_total{x="y",z!="w",i=~"$i"}[5m])) / on (q) job:b:c > 1'),
                         [("kdn_a_total", {"x": "y"}), ("job:b:c", {})])
        self.assertEqual(selectors("up == 0 and delta(kdn_b[1h]) * kdn_c"), [("up", {}), ("kdn_b", {}), ("kdn_c", {})])

    def test_a_series_that_nobody_serves_is_found_out(self):
        for wrong in ["kdn_no_such_total", 'rate(kdn_tier_hits_total{tier="tape"}[5m])', "instance:kdn_none:ratio"]:
            with self.assertRaises(AssertionError):
                self.check_exists(wrong, "here")

    def test_metrics_are_named_by_the_conventions(self):
        for service, page in self.pages.items():
            done = subprocess.run([tool("promtool", "prometheus"), "check", "metrics"], input=page, capture_output=True,
                                  text=True)
            self.assertEqual((done.returncode, done.stdout + done.stderr), (0, ""), service)

    def test_rules_name_series_that_exist(self):
        for rule in self.rules:
            self.check_exists(rule["expr"], rule.get("alert", rule.get("record")))

    def test_boards_name_series_that_exist(self):
        boards = sorted((DEPLOY / "grafana").glob("*.json"))
        self.assertTrue(boards)
        for path in boards:
            board = json.loads(path.read_text())
            panels = [p for p in board["panels"] if p["type"] != "row"]
            for panel in panels:
                for target in panel["targets"]:
                    self.check_exists(target["expr"], f"{path.name}, {panel['title']}")
            self.assertEqual(len({p["id"] for p in board["panels"]}), len(board["panels"]))
            for variable in board["templating"]["list"]:
                if variable["type"] == "query":
                    self.check_exists(variable["query"]["query"].split("(")[1].split(",")[0], path.name)

    def test_the_readiness_probe_of_kubernetes_says_what_a_node_is(self):
        documents = yaml.safe_load_all((DEPLOY / "kubernetes/base/node.yaml").read_text())
        pod = next(d for d in documents if d["kind"] == "StatefulSet")["spec"]["template"]["spec"]
        command = pod["containers"][0]["readinessProbe"]["exec"]["command"]
        script = command[-1]
        self.assertIn("/7402", script)

        def probe(port):
            return subprocess.run([*command[:-1], script.replace("/7402", f"/{port}")], capture_output=True,
                                  timeout=20).returncode
        self.assertEqual(probe(self.cluster.ports["node-1", "7402"]), 0)
        self.assertNotEqual(probe(self.cluster.ports["placement-1", "7412"]), 0)  # no node
        self.assertNotEqual(probe(deployment.free_ports(1)[0]), 0)                # nobody

    def test_prometheus_scrapes_all_daemons_of_the_example(self):
        config = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
        targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in config["scrape_configs"]}
        self.assertEqual(targets, {"kdn-node": [f"{n}:7402" for n in self.cluster.services("node")],
                                   "kdn-placement": [f"{p}:7412" for p in self.cluster.services("placement")]})


if __name__ == "__main__":
    deployment.main()
