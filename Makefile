# What a newcomer needs; `make` alone lists it. Every target installs the Debian packages it lacks (tests/packages.sh).
#
# There is no `clean`: `cargo clean` does that, and nothing here needs it.

CARGO ?= cargo
# Binaries and tests are built from exactly the versions of Cargo.lock.
LOCKED := --locked
AGENT := target/release/mountwarden

# Further flags of the agent, as in `make run ARGS='--interval 5s'`.
ARGS ?=

.DEFAULT_GOAL := help
# One target after the other even with -j: cargo uses all cores by itself, and the tests measure times.
.NOTPARALLEL:

# lab, lab-quick, lab-blind and demo are declared where their rules are: a phony target without a rule would count as done.
.PHONY: help build run test page-test runbooks demo-picture model fuzz bench lint fmt static image deb release

help: ## List the targets
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## Build the release binary, target/release/mountwarden
	@tests/packages.sh build
	$(CARGO) build --release $(LOCKED)

run: build ## Build, then watch the network mounts of this host (ARGS='--interval 5s'; Ctrl-C ends it)
	@echo 'table: $(AGENT) status   page: http://127.0.0.1:12050/   metrics: http://127.0.0.1:12049/metrics'
	$(AGENT) run $(ARGS)

test: lint ## Run all tests: format, lints, unit and integration tests, a part of the lab
	@tests/packages.sh test
	$(CARGO) test $(LOCKED)
	$(MAKE) lab-quick

# An accessibility checker (MPL-2.0): used here, not shipped.
AXE := axe-core@4.14.1
page-test: ## Look at the status page in headless Chromium; pictures in target/page (1 minute, fetches axe-core)
	@tests/packages.sh page
	@npm install --silent --no-save --no-audit --no-fund --prefix target/axe $(AXE)
	AXE=$(CURDIR)/target/axe/node_modules/axe-core/axe.min.js $(CARGO) test --quiet $(LOCKED) --test page -- run

# Where docs/runbooks.md can be read; alerts name the file itself without it.
URL ?= docs/runbooks.md
runbooks: ## Let alerts and dashboards link to your copy of docs/runbooks.md (URL=https://wiki.example.com/runbooks)
	sed -i 's|runbook_url: .*#|runbook_url: $(URL)#|' alerts/rules.yaml alerts/rules_test.yaml
	RUNBOOKS=$(filter http%,$(URL)) python3 dashboards/generate.py

demo-picture: ## Draw the README's picture from what `make demo` prints, docs/demo.svg
	$(MAKE) --no-print-directory demo >target/demo.txt
	python3 packaging/picture.py 'make demo' <target/demo.txt >docs/demo.svg

model: ## Run 100,000 random histories through the rescue planner, and find a bug planted in each guard (10 minutes)
	@tests/packages.sh build
	MOUNTWARDEN_HISTORIES=100000 $(CARGO) test --release $(LOCKED) --test rescue -- --nocapture

lint: ## Check format and lints, change nothing
	@tests/packages.sh build
	$(CARGO) fmt --check
	$(CARGO) clippy $(LOCKED) --all-targets -- -D warnings

fmt: ## Format the code
	$(CARGO) fmt

# Ten minutes for each target; FUZZ='--seconds 60 mountinfo' for less.
FUZZ ?= --keep

fuzz: ## Fuzz every decoder, ten minutes each (FUZZ='--seconds 60 mountinfo'); the corpus is in tests/fixtures/fuzz
	@tests/packages.sh build
	nice -n 19 $(CARGO) test $(LOCKED) --profile fuzz --test fuzz -- run $(FUZZ)

# amd64 or arm64.
ARCH ?= amd64

static: ## Build the static binary (ARCH=arm64: cross-compiled), target/static/ARCH/mountwarden
	@tests/packages.sh image
	packaging/static.sh $(ARCH) target/static/$(ARCH)

image: static ## Build the container image that k8s/ names, target/static/ARCH/image.tar
	packaging/image.sh $(ARCH) target/static/$(ARCH)/mountwarden target/static/$(ARCH)/image.tar

deb: build ## Build the Debian package, target/deb/
	@tests/packages.sh image
	packaging/deb.sh "$$(dpkg --print-architecture)" $(AGENT) target/deb

release: ## Everything that is published of a version, into target/dist (ARCHES='amd64 arm64')
	@tests/packages.sh image
	packaging/release.sh $(ARCHES)

bench: build ## Measure the cost of the agent (docs/performance.md)
	@tests/packages.sh bench
	$(CARGO) bench $(LOCKED) --bench agent

# lab, lab-quick, lab-blind and demo. Without the file they have no rule, and so they fail: a lab that did not run did not pass.
-include tests/lab/lab.mk
