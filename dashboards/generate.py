#!/usr/bin/env python3
"""Writes the dashboards beside it: dashboards/generate.py. No dependency; tests/dashboards.rs compares and checks them."""

import json
import os
import pathlib

HERE = pathlib.Path(__file__).parent
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
# Where docs/runbooks.md is served: Grafana cannot open a file. Without it there is no link (`make runbooks URL=...`).
RUNBOOKS = os.environ.get("RUNBOOKS", "")
TRIPLE = "instance, mountpoint, source, fstype"
# The server of each mount; the same join as in alerts/rules.yaml.
SERVER = f"on ({TRIPLE}) group_left (server) max by ({TRIPLE}, server) (mountwarden_mount_info)"
DEAD = "hung|stale|lost|corrupt|error"
STATES = ["healthy", "slow", "readonly", "denied", "full", "unknown", "hung", "stale", "lost", "corrupt", "error"]


def links(*names):
    pages = {
        "Server": "/d/mountwarden-server?var-datasource=${datasource}&var-server=${__data.fields.server}",
        "Node": "/d/mountwarden-node?var-datasource=${datasource}&var-instance=${__data.fields.instance}",
        "Server of this line": "/d/mountwarden-server?var-datasource=${datasource}&var-server=${__field.labels.server}",
        "Node of this line": "/d/mountwarden-node?var-datasource=${datasource}&var-instance=${__field.labels.instance}",
        "Runbooks": RUNBOOKS,
    }
    return [{"title": name, "url": pages[name]} for name in names if pages[name]]


class Board:
    def __init__(self, uid, title, variables):
        self.uid, self.title, self.variables = uid, title, variables
        self.panels, self.x, self.y, self.row = [], 0, 0, 0

    def panel(self, kind, title, queries, width, height, unit="short", description="", link=(), **options):
        if self.x + width > 24:
            self.x, self.y, self.row = 0, self.y + self.row, 0
        defaults = {"unit": unit, "links": links(*link)}
        defaults.update(options.pop("defaults", {}))
        targets = []
        for number, query in enumerate(queries):
            expr, legend = query if isinstance(query, tuple) else (query, "__auto")
            target = {"refId": "ABCDEFGH"[number], "datasource": DATASOURCE, "expr": expr, "legendFormat": legend}
            if kind in ("table", "stat"):
                target.update({"instant": True, "range": False})
            if kind == "table":
                target["format"] = "table"
            targets.append(target)
        self.panels.append({
            "id": len(self.panels) + 1, "type": kind, "title": title, "description": description, "datasource": DATASOURCE,
            "gridPos": {"x": self.x, "y": self.y, "w": width, "h": height},
            "fieldConfig": {"defaults": defaults, "overrides": []},
            "options": options.pop("options", {}), "targets": targets, **options,
        })
        self.x, self.row = self.x + width, max(self.row, height)

    def number(self, title, expr, unit="short", bad=True, description="", width=4):
        steps = [{"color": "green", "value": None}] + ([{"color": "red", "value": 1}] if bad else [])
        self.panel("stat", title, [expr], width, 4, unit, description,
                   defaults={"thresholds": {"mode": "absolute", "steps": steps}, "color": {"mode": "thresholds"}},
                   options={"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "background"})

    def lines(self, title, queries, unit="short", description="", width=12, link=()):
        self.panel("timeseries", title, queries, width, 8, unit, description, link,
                   options={"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}})

    def table(self, title, expr, unit="short", description="", width=24, link=(), height=8):
        hide = {"id": "organize", "options": {"excludeByName": {"Time": True, "__name__": True, "job": True}}}
        self.panel("table", title, [expr], width, height, unit, description, link, transformations=[hide])

    def write(self):
        board = {
            "uid": self.uid, "title": self.title, "tags": ["mountwarden"], "schemaVersion": 39, "version": 1,
            "editable": True, "refresh": "30s", "time": {"from": "now-3h", "to": "now"}, "timezone": "browser",
            "templating": {"list": self.variables}, "panels": self.panels, "annotations": {"list": []},
            "links": [
                {"type": "dashboards", "tags": ["mountwarden"], "title": "mountwarden", "asDropdown": True, "includeVars": True, "keepTime": True},
            ] + ([{"type": "link", "title": "Runbooks", "url": RUNBOOKS, "targetBlank": True}] if RUNBOOKS else []),
        }
        (HERE / (self.uid.removeprefix("mountwarden-") + ".json")).write_text(json.dumps(board, indent=1) + "\n")


SOURCE = {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}


def choice(name, label, metric):
    query = f"label_values({metric}, {name})"
    return {"name": name, "label": label, "type": "query", "datasource": DATASOURCE, "refresh": 2, "sort": 1,
            "definition": query, "query": {"query": query, "refId": name}}


def fleet():
    board = Board("mountwarden-fleet", "Network mounts: fleet", [SOURCE])
    board.number("Dead mounts", "sum(mountwarden_mount_up == bool 0)", width=3)
    board.number("Pods on dead mounts",
                 f'count(count by (instance, namespace, pod) (mountwarden_pod_mount_state{{state=~"{DEAD}"}} == 1)) or vector(0)', width=3)
    board.number("Nodes with dead mounts", "count(max by (instance) (mountwarden_mount_up == 0)) or vector(0)", width=3)
    board.number("Servers with dead mounts",
                 f'count(count by (server) ((mountwarden_mount_up == 0) * {SERVER})) or vector(0)', width=3)
    board.number("Mounts unknown", 'sum(mountwarden_mounts{state="unknown"})')
    board.number("Mounts watched", "sum(mountwarden_mounts)", bad=False)
    board.number("Agents", "count(mountwarden_ready == 1)", bad=False)
    board.lines("Mounts by state", [('sum by (state) (mountwarden_mounts{state!="healthy"})', "{{state}}")])
    board.lines("Why", [("sum by (cause) (mountwarden_mount_cause)", "{{cause}}")])
    board.table("Dead mounts by server and node", f"count by (server, node, instance) ((mountwarden_mount_up == 0) * {SERVER})",
                link=("Server", "Node", "Runbooks"))
    board.table("Dead since", f'sort_desc(max by ({TRIPLE}, node, state) ((time() - mountwarden_mount_state_changed_timestamp_seconds) * on ({TRIPLE}) group_right () (mountwarden_mount_state{{state=~"{DEAD}"}} == 1)))',
                "s", link=("Node", "Runbooks"))
    board.lines("Time to answer of the slowest tenth, by server",
                [("histogram_quantile(0.9, sum by (server, le) (rate(mountwarden_probe_duration_seconds_bucket[$__rate_interval])))", "{{server}}")],
                "s", link=("Server of this line",))
    board.lines("Agents that need a look", [
        ('sum by (instance) (mountwarden_workers{state="stuck"}) > 0', "stuck workers {{instance}}"),
        ("sum by (instance) (increase(mountwarden_overloads_total[$__rate_interval])) > 0", "late {{instance}}"),
        ("sum by (instance) (mountwarden_config_ok == bool 0) > 0", "bad configuration {{instance}}"),
    ], link=("Node of this line",))
    board.lines("Rescues", [
        ("sum by (action, result) (increase(mountwarden_remedies_total[$__rate_interval]))", "{{action}} {{result}}"),
        ("max(mountwarden_coordinator_requests)", "requests"),
        ("max(mountwarden_coordinator_in_flight)", "in flight"),
    ], description="Only with the coordinator.")
    board.lines("Why pods are not rescued", [("sum by (guard) (increase(mountwarden_coordinator_decisions_total[$__rate_interval]))", "{{guard}}")],
                description="Only with the coordinator.")
    board.write()


def server():
    board = Board("mountwarden-server", "Network mounts: server", [SOURCE, choice("server", "Server", "mountwarden_mount_info")])
    of = f'on ({TRIPLE}) group_left () max by ({TRIPLE}) (mountwarden_mount_info{{server="$server"}})'
    board.number("Nodes", 'count(count by (instance) (mountwarden_mount_info{server="$server"}))', bad=False)
    board.number("Mounts", 'count(mountwarden_mount_info{server="$server"})', bad=False)
    board.number("Dead mounts", f"count((mountwarden_mount_up == 0) * {of}) or vector(0)")
    board.table("Mounts that are not healthy", f'sum by ({TRIPLE}, node, state) ((mountwarden_mount_state{{state!="healthy"}} == 1) * {of})', link=("Node", "Runbooks"))
    board.lines("Causes", [(f"sum by (cause) (mountwarden_mount_cause * {of})", "{{cause}}")])
    board.lines("Time to answer by node, slowest tenth",
                [('histogram_quantile(0.9, sum by (instance, le) (rate(mountwarden_probe_duration_seconds_bucket{server="$server"}[$__rate_interval])))', "{{instance}}")],
                "s", link=("Node of this line",))
    for title, metric, unit in (("Operations", "operations", "ops"), ("Retransmissions", "retransmissions", "ops"), ("Major timeouts", "timeouts", "ops"), ("Errors", "errors", "ops")):
        board.lines(f"{title} of the NFS clients", [(f"sum by (instance) (rate(mountwarden_nfs_{metric}_total[$__rate_interval]) * {of})", "{{instance}}")],
                    unit, "Counted per superblock: mounts that share one show the same.", link=("Node of this line",))
    board.lines("Round trip by operation", [(
        f"sum by (operation) (rate(mountwarden_nfs_rtt_seconds_total[$__rate_interval]) * {of}) / (sum by (operation) (rate(mountwarden_nfs_operations_total[$__rate_interval]) * {of}) > 0)",
        "{{operation}}")], "s")
    board.lines("Free space", [(f"min by (source) (mountwarden_filesystem_avail_bytes / (mountwarden_filesystem_size_bytes > 0) * {of})", "{{source}}")], "percentunit")
    board.lines("Canary: time of a write", [(f"max by (instance, source) (mountwarden_canary_last_duration_seconds * {of})", "{{instance}} {{source}}")], "s")
    board.lines("Canary: how soon other nodes' writes are seen", [(f"max by (instance, peer) (mountwarden_canary_peer_lag_seconds * {of})", "{{instance}} sees {{peer}}")], "s")
    board.write()


def node():
    board = Board("mountwarden-node", "Network mounts: node", [SOURCE, choice("instance", "Node", "mountwarden_ready")])
    own = 'instance="$instance"'
    mappings = [{"type": "value", "options": {
        str(n): {"text": state, "index": n, "color": "green" if n == 0 else "red" if n > 5 else "yellow"} for n, state in enumerate(STATES)}}]
    board.panel("state-timeline", "States over time",
                [(" or ".join(f'max by (mountpoint, source) (mountwarden_mount_state{{{own}, state="{state}"}} == 1) * {number}' for number, state in enumerate(STATES)), "{{source}} {{mountpoint}}")],
                24, 10, defaults={"mappings": mappings, "color": {"mode": "thresholds"}}, link=("Runbooks",),
                options={"showValue": "auto", "mergeValues": True, "rowHeight": 0.9})
    board.table("Mounts", f"max by ({TRIPLE}, server, version, mode) (mountwarden_mount_info{{{own}}})", link=("Server", "Runbooks"))
    board.lines("Duration of the last probe", [(f"sum by (source, mountpoint) (mountwarden_probe_last_duration_seconds{{{own}}})", "{{source}} {{mountpoint}}")], "s")
    board.lines("Blocked", [(f"max by (source, mountpoint) (mountwarden_probe_blocked_seconds{{{own}}})", "{{source}} {{mountpoint}}")], "s")
    board.lines("Probes by result", [(f"sum by (result) (rate(mountwarden_probes_total{{{own}}}[$__rate_interval]))", "{{result}}")], "ops")
    board.lines("Findings", [(f"sum by (finding) (mountwarden_mount_finding{{{own}}})", "{{finding}}")])
    board.lines("Workers", [(f"mountwarden_workers{{{own}}}", "{{state}}")])
    board.lines("Agent: CPU", [(f"rate(process_cpu_seconds_total{{{own}}}[$__rate_interval])", "agent")], "percentunit", "Without its workers.")
    board.lines("Agent: memory", [(f"process_resident_memory_bytes{{{own}}}", "agent")], "bytes", "Without its workers.")
    board.lines("Agent: delay of its loop", [(f"mountwarden_loop_delay_seconds{{{own}}}", "delay")], "s")
    board.lines("Kernel log about NFS", [(f"sum by (kind) (increase(mountwarden_kernel_log_lines_total{{{own}}}[$__rate_interval]))", "{{kind}}")])
    board.write()


fleet()
server()
node()
