# The lab: included by the Makefile at the top. Machines of its own; needs no root, no network, nothing of the host's mounts.

LAB_JOBS ?= 6
LAB = cargo test --quiet --test lab --

.PHONY: lab lab-quick lab-page lab-blind lab-trials lab-nodes lab-pending lab-story lab-containers lab-releases lab-diagnose lab-says lab-prometheus lab-capabilities demo

lab: build ## Every fault of the design in real machines (about 30 minutes)
	@tests/packages.sh lab
	$(LAB) run --jobs $(LAB_JOBS)

lab-quick: build ## The part of the lab that catches the common breakage (5 minutes)
	@tests/packages.sh lab
	$(LAB) run --quick --jobs $(LAB_JOBS)
	$(LAB) diagnoses --quick
	$(LAB) story --only '^4.1-swap_dir_filled-same'

lab-page: ## docs/detection.md from the results of the last runs
	$(LAB) page

lab-blind: build ## Every cell without each detector that it needs: it has to miss its fault
	@tests/packages.sh lab
	$(LAB) run --without-detector each --jobs $(LAB_JOBS)

lab-trials: build ## Trial mounts of NFS v3 to v4.2, and what they leave (2 minutes)
	@tests/packages.sh lab
	$(LAB) trials

lab-story: build ## A pod on a replaced server is brought back, one stuck in Terminating is let go: agent in its pod, coordinator, real NFS, a fake API server (15 minutes)
	@tests/packages.sh lab
	$(LAB) story

lab-pending: build ## Pods whose volume cannot be mounted, and what the agent says about it (6 minutes)
	@tests/packages.sh lab
	$(LAB) pending

lab-containers: build ## Containers that keep an old mount while the host has a new one: who is told, and how (3 minutes)
	@tests/packages.sh lab
	$(LAB) containers

RUNS ?= 1

lab-releases: build ## Dead mounts of pods with stuck processes, let go on NFS v3 to v4.2 (4 minutes; RUNS=20: an hour)
	@tests/packages.sh lab
	$(LAB) releases --runs $(RUNS)

lab-nodes: build ## Two nodes whose canaries see each other, until one is cut off (2 minutes)
	@tests/packages.sh lab
	$(LAB) nodes

lab-says: build ## What log, metrics, check and diagnose say about real faults (8 minutes); writes docs/what-it-says.md
	@tests/packages.sh lab
	$(LAB) says

lab-diagnose: build ## What `mountwarden diagnose` says about real faults (5 minutes); writes docs/diagnose.md
	@tests/packages.sh lab
	$(LAB) diagnoses --page

# RECORD=--record writes the run's series into alerts/lab_test.yaml.
RECORD ?=

lab-prometheus: build ## Real NFS faults, the real Prometheus and Alertmanager: alerts, notifications, dashboards (6 minutes)
	@tests/packages.sh test
	$(LAB) prometheus $(RECORD)

lab-capabilities: build ## What stops working without each capability of the agent's pod; writes into docs/privileges.md (5 minutes)
	@tests/packages.sh lab
	$(LAB) capabilities

demo: build ## A server that goes silent, is replaced, unexported: the agent at work
	@tests/packages.sh demo
	$(LAB) demo
