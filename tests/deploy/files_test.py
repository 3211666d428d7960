#!/usr/bin/env python3
"""Files of deploy/ that no program here runs: flag files, units, rules, images, manifests. Structure, and agreement with
one another and with the daemons' flags."""

import json
import re
import subprocess
import unittest

import yaml

import deployment
from deployment import DEPLOY, tool

DAEMONS = {"kdn-node": "node", "kdn-placement": "placement"}


def flags_of(daemon):
    program = {"kdn-node": deployment.build.node, "kdn-placement": deployment.build.placement}[daemon]
    out = subprocess.run([program, "--help"], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"--([a-z-]+)", out))


def documents(path):
    return [d for d in yaml.safe_load_all(path.read_text()) if d]


class FlagFileTest(unittest.TestCase):
    def test_every_flag_there_is_one_of_the_daemon(self):
        for daemon in DAEMONS:
            text = (DEPLOY / f"{daemon}.conf").read_text()
            # Settings that are commented out are examples: their names count as well.
            named = set(re.findall(r"^(?:# )?([a-z][a-z-]*) = ", text, re.M))
            self.assertGreater(len(named), 10)
            self.assertEqual(named - flags_of(daemon), set(), daemon)

    def test_the_daemons_read_them(self):
        for daemon, program in [("kdn-node", deployment.build.node), ("kdn-placement", deployment.build.placement)]:
            # An address that cannot be listened on ends the daemon once all flags were found to be right.
            done = subprocess.run([program, "--config", DEPLOY / f"{daemon}.conf", "--listen", "127.0.0.1:99999"],
                                  capture_output=True, text=True, timeout=20)
            self.assertEqual(done.returncode, 2)
            self.assertIn("--listen", done.stderr)


class UnitTest(unittest.TestCase):
    def settings(self, daemon):
        lines = (DEPLOY / f"systemd/{daemon}.service").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))

    def test_what_packages_and_units_say_agrees(self):
        for daemon in DAEMONS:
            unit = self.settings(daemon)
            self.assertEqual(unit["ExecStart"], f"/usr/bin/{daemon} --config /etc/kdn/{daemon}.conf")
            rules = (DEPLOY / "CMakeLists.txt").read_text()
            self.assertIn(f"kdn_daemon_package({daemon} {unit['User']} /var/lib/{unit['StateDirectory']})", rules)
            conf = (DEPLOY / f"{daemon}.conf").read_text()
            self.assertRegex(conf, rf"(?m)^(disk-path|data-dir) = /var/lib/{unit['StateDirectory']}$")

    def test_stopping_has_the_time_that_the_flags_give(self):
        for daemon in DAEMONS:
            grace = int(re.search(r"^stop-grace = (\d+)s$", (DEPLOY / f"{daemon}.conf").read_text(), re.M).group(1))
            self.assertGreaterEqual(int(self.settings(daemon)["TimeoutStopSec"].removesuffix("s")), 2 * grace)

    def test_systemd_takes_them_for_right_and_safe(self):
        analyze = tool("systemd-analyze", "systemd")
        for daemon in DAEMONS:
            unit = DEPLOY / f"systemd/{daemon}.service"
            verify = subprocess.run([analyze, "verify", "--man=no", unit], capture_output=True, text=True)
            # Programs are where packages put them, not here.
            complaints = [line for line in verify.stderr.splitlines()
                          if unit.name in line and "is not executable" not in line]
            self.assertEqual(complaints, [])
            score = subprocess.run([analyze, "security", "--offline=true", "--threshold=16", unit],
                                   capture_output=True, text=True)
            self.assertEqual(score.returncode, 0, score.stdout[-500:])  # 1.6 of 10


class PrometheusTest(unittest.TestCase):
    def test_rules(self):
        for words in [["check", "rules", "kdn.rules.yml"], ["test", "rules", "kdn.rules.test.yml"],
                      ["check", "config", "prometheus.yml"]]:
            done = subprocess.run([tool("promtool", "prometheus"), *words], capture_output=True, text=True,
                                  cwd=DEPLOY / "prometheus")
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_every_alert_has_a_test_a_severity_and_advice(self):
        rules = [r for g in yaml.safe_load((DEPLOY / "prometheus/kdn.rules.yml").read_text())["groups"]
                 for r in g["rules"]]
        tested = (DEPLOY / "prometheus/kdn.rules.test.yml").read_text()
        fired = set()
        for test in yaml.safe_load(tested)["tests"]:
            fired |= {t["alertname"] for t in test.get("alert_rule_test", []) if t["exp_alerts"]}
        alerts = {r["alert"]: r for r in rules if "alert" in r}
        self.assertEqual(set(alerts) - fired, set())
        for name, rule in alerts.items():
            self.assertIn(rule["labels"]["severity"], ("info", "warning", "critical"), name)
            self.assertTrue(rule["annotations"]["summary"] and rule["annotations"]["description"], name)

    def test_boards_do_not_overlap(self):
        for path in (DEPLOY / "grafana").glob("*.json"):
            taken = set()
            for panel in json.loads(path.read_text())["panels"]:
                at = panel["gridPos"]
                cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
                self.assertLessEqual(at["x"] + at["w"], 24)
                self.assertFalse(cells & taken, f"{path.name}: {panel['title']}")
                taken |= cells


class ContainersTest(unittest.TestCase):
    def setUp(self):
        self.compose = yaml.safe_load((DEPLOY / "containers/compose.yaml").read_text())
        self.dockerfile = (DEPLOY / "containers/Dockerfile").read_text()

    def test_services_name_what_there_is(self):
        stages = set(re.findall(r"^FROM \S+ AS (\S+)$", self.dockerfile, re.M))
        services = self.compose["services"]
        for name, service in services.items():
            self.assertEqual(set(service.get("depends_on", [])) - set(services), set(), name)
            self.assertEqual(set(service["networks"]) - set(self.compose["networks"]), set(), name)
            for volume in service.get("volumes", []):
                source = volume.split(":")[0]
                if source.startswith("."):
                    self.assertTrue((DEPLOY / "containers" / source).exists(), f"{name}: {source}")
                else:
                    self.assertIn(source, self.compose["volumes"], name)
            if "build" in service:
                self.assertIn(service["build"]["target"], stages)
            else:
                self.assertRegex(service["image"], r":v?\d+\.\d+\.\d+$", f"{name}: a version that stays")
            for port in service.get("ports", []):
                self.assertTrue(port.startswith("127.0.0.1:"), f"{name}: nothing authenticates, {port}")

    def test_flags_are_those_of_the_daemons(self):
        for name, service in self.compose["services"].items():
            kind = name.split("-")[0]
            if kind in DAEMONS.values():
                named = {word.removeprefix("--").split("=")[0] for word in service["command"]}
                self.assertEqual(named - flags_of(f"kdn-{kind}"), set(), name)

    def test_images_run_as_users_of_their_own_from_the_packages(self):
        for daemon, stage in DAEMONS.items():
            text = self.dockerfile.split(f" AS {stage}\n")[1].split("\nFROM ")[0]
            self.assertRegex(text, r"(?m)^USER [1-9]\d*:[1-9]\d*$")
            self.assertIn(f"{daemon}_*.deb", text)
            self.assertIn(f'ENTRYPOINT ["/usr/bin/{daemon}"]', text)
            command = json.loads(re.search(r"^CMD (\[\".*\])$", text, re.M).group(1))
            named = {word[2:] for word in command if word.startswith("--")}
            self.assertEqual(named - flags_of(daemon), set())


class KubernetesTest(unittest.TestCase):
    def setUp(self):
        self.folder = DEPLOY / "kubernetes"
        self.all = [d for f in sorted(self.folder.rglob("*.yaml")) if f.name != "kustomization.yaml"
                    for d in documents(f)]
        self.sets = {d["metadata"]["name"]: d for d in self.all if d["kind"] == "StatefulSet"}
        self.services = {d["metadata"]["name"]: d for d in self.all if d["kind"] == "Service"}

    def container(self, name):
        return self.sets[name]["spec"]["template"]["spec"]["containers"][0]

    def test_kustomizations_name_all_files(self):
        for folder in ["base", "etcd"]:
            listed = yaml.safe_load((self.folder / folder / "kustomization.yaml").read_text())["resources"]
            files = {f.name for f in (self.folder / folder).glob("*.yaml")} - {"kustomization.yaml"}
            self.assertEqual({r for r in listed if not r.startswith("..")}, files)
            for resource in listed:
                self.assertTrue((self.folder / folder / resource).exists(), resource)

    def test_labels_select_what_they_are_for(self):
        self.assertEqual(set(self.sets), {"kdn-node", "kdn-placement", "kdn-etcd"})
        budgets = {d["metadata"]["name"]: d for d in self.all if d["kind"] == "PodDisruptionBudget"}
        for name, each in self.sets.items():
            labels = each["spec"]["template"]["metadata"]["labels"]
            pod = each["spec"]["template"]["spec"]
            terms = pod["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
            selectors = [each["spec"]["selector"]["matchLabels"], self.services[name]["spec"]["selector"],
                         budgets[name]["spec"]["selector"]["matchLabels"], terms[0]["labelSelector"]["matchLabels"]]
            for selector in selectors:
                self.assertEqual(selector.items() & labels.items(), selector.items(), name)
            self.assertEqual(each["spec"]["serviceName"], name)
            self.assertEqual(self.services[name]["spec"]["clusterIP"], "None")
            self.assertEqual(budgets[name]["spec"]["maxUnavailable"], 1)

    def test_flags_and_addresses(self):
        for name in DAEMONS:
            named = {word.removeprefix("--").split("=")[0] for word in self.container(name)["args"]}
            self.assertEqual(named - flags_of(name), set(), name)
        for name in self.sets:
            container = self.container(name)
            words = container.get("args", []) + container.get("command", [])
            variables = {e["name"] for e in container.get("env", [])}
            for word in words:
                self.assertEqual(set(re.findall(r"\$\((\w+)\)", word)) - variables, set(), word)
                for pod, service, port in re.findall(r"(kdn-\w+)-\d\.(kdn-\w+):(\d+)", word):
                    self.assertEqual(pod, service)
                    self.assertIn(int(port), [p["port"] for p in self.services[service]["spec"]["ports"]])
                for address in re.findall(r"0\.0\.0\.0:(\d+)", word):
                    self.assertIn(int(address), [p["containerPort"] for p in container["ports"]], word)

    def test_pods_are_probed_bounded_and_confined(self):
        for name, each in self.sets.items():
            pod, container = each["spec"]["template"]["spec"], self.container(name)
            self.assertTrue(pod["securityContext"]["runAsNonRoot"])
            self.assertEqual(pod["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"})
            self.assertFalse(pod["automountServiceAccountToken"])
            self.assertEqual(container["securityContext"], {"allowPrivilegeEscalation": False,
                                                            "readOnlyRootFilesystem": True,
                                                            "capabilities": {"drop": ["ALL"]}})
            self.assertTrue(container["livenessProbe"] and container["readinessProbe"])
            self.assertIn("memory", container["resources"]["limits"])
            mounts = {m["name"] for m in container.get("volumeMounts", [])}
            claims = {c["metadata"]["name"] for c in each["spec"].get("volumeClaimTemplates", [])}
            self.assertEqual(mounts, claims)
        for name, service in [("kdn-node", "kdn.v1.NodeService"), ("kdn-placement", "kdn.v1.PlacementService")]:
            self.assertEqual(self.container(name)["startupProbe"]["grpc"]["service"], service)
            self.assertIn("preStop", self.container(name)["lifecycle"])

    def test_users_are_those_of_the_images(self):
        dockerfile = (DEPLOY / "containers/Dockerfile").read_text()
        for name in DAEMONS:
            user = self.sets[name]["spec"]["template"]["spec"]["securityContext"]["runAsUser"]
            self.assertIn(f"useradd --system --uid {user} --gid {user}", dockerfile)


class SourceTest(unittest.TestCase):
    def test_yaml(self):
        done = subprocess.run([tool("yamllint", "yamllint"), "-d",
                               "{extends: relaxed, rules: {line-length: disable, braces: disable}}", DEPLOY],
                              capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stdout), (0, ""))

    def test_maintainer_scripts(self):
        scripts = sorted((deployment.build.folder / "deploy/debian").glob("*/p*"))
        self.assertEqual(len([s for s in scripts if s.name in ("postinst", "prerm", "postrm")]), 6)
        for script in scripts:
            if script.name in ("postinst", "prerm", "postrm"):
                self.assertNotIn("@", re.sub(r"\$@", "", script.read_text()))
                done = subprocess.run([tool("shellcheck", "shellcheck"), script], capture_output=True, text=True)
                self.assertEqual(done.stdout, "")


if __name__ == "__main__":
    deployment.main()
