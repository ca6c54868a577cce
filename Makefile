# Run `make` for a list of targets.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Programs need no C library; only the race detector does.
export CGO_ENABLED = 0
# A version of the toolchain or of a module other than the pinned one is an error, not a download.
export GOTOOLCHAIN = local
# All builds trim paths, so that tests and linters use what programs were compiled from.
export GOFLAGS = -buildvcs=false -mod=readonly -trimpath

BIN := bin
VERSION ?= $(shell git describe --tags --match 'v*' --dirty 2>/dev/null || echo v0.0.0-$$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown))
# The version of Kubernetes that a module file names.
kubernetes_of = $(shell sed -n 's|^\tk8s.io/kubernetes \(v[0-9.]*\)$$|\1|p' $(1))
KUBERNETES := $(call kubernetes_of,go.mod)

version_packages := k8s.io/component-base/version k8s.io/client-go/pkg/version
version_flags = $(foreach package,$(version_packages),-X $(package).gitVersion=$(1))
LDFLAGS := -s -w $(call version_flags,$(VERSION))
# What is Kubernetes' own says which Kubernetes it is. Clients compare the two parts of its version.
kubernetes_ldflags = -s -w $(call version_flags,$(1)) \
  $(foreach package,$(version_packages),-X $(package).gitMajor=1 -X $(package).gitMinor=$(word 2,$(subst ., ,$(1))))
KUBERNETES_LDFLAGS := $(call kubernetes_ldflags,$(KUBERNETES))

go_build = go build -o $(BIN)/
tool_build = go build -modfile=tools.mod -ldflags '-s -w' -o $(BIN)/
hack_build = go build -modfile=hack/tools.mod -ldflags '-s -w' -o $(BIN)/
manifests_build = go build -modfile=test/manifests/tools.mod -ldflags '-s -w' -o $(BIN)/
karpenter_mod := -modfile=test/localcluster/karpenter.mod
node_build = go build -modfile=test/localcluster/node.mod -ldflags '-s -w' -o $(BIN)/node/

.PHONY: help
help: ## Print this list
	@awk 'BEGIN {FS = ":.*## "} \
	  /^##@/ {printf "\n\033[1m%s\033[0m\n", substr($$0, 5)} \
	  /^[a-z][a-z0-9-]*:.*## / {gsub(/[$$][$$]/, "$$", $$2); printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ Try

.PHONY: demo
demo: build ## Show what everynode does, on a control plane of its own (1 minute once built)
	@$(BIN)/demo

.PHONY: up
up: build ## Start a cluster to play with, and leave it running
	@$(BIN)/localcluster up --detach

.PHONY: down
down: ## End the cluster that make up has started
	@$(BIN)/localcluster down

##@ Build

.PHONY: build
build: ## Build everynode, and a Kubernetes control plane to run it in, into bin/
	@hack/progress.sh 'Building everynode' $(go_build) -ldflags '$(LDFLAGS)' ./cmd/everynode-scheduler ./cmd/everynode-webhook ./cmd/kubectl-everynode
	@hack/progress.sh 'Building the Kubernetes $(KUBERNETES) control plane' $(go_build) -ldflags '$(KUBERNETES_LDFLAGS)' \
	  ./cmd/localcluster ./test/demo k8s.io/kubernetes/cmd/kubectl
	@hack/progress.sh 'Building kwok, which plays the kubelets' $(tool_build) sigs.k8s.io/kwok/cmd/kwok

.PHONY: build-real
build-real: build ## Build what real nodes are made of, into bin/node/ (needs libseccomp-dev)
	@CGO_ENABLED=1 hack/progress.sh 'Building runc' $(node_build) -tags seccomp github.com/opencontainers/runc
	@hack/progress.sh 'Building the kubelet and kube-proxy' go build -ldflags '$(KUBERNETES_LDFLAGS)' -o $(BIN)/node/ \
	  k8s.io/kubernetes/cmd/kubelet k8s.io/kubernetes/cmd/kube-proxy
	@hack/progress.sh 'Building containerd and its network plugins' $(node_build) -tags no_btrfs,no_devmapper,no_zfs \
	  github.com/containerd/containerd/v2/cmd/{containerd,containerd-shim-runc-v2,ctr} \
	  github.com/containernetworking/plugins/plugins/{ipam/host-local,main/ptp,meta/portmap}
	@hack/progress.sh 'Building what the containers run' go build -ldflags '-s -w' -o $(BIN)/node/ \
	  ./test/localcluster/pause ./test/real/workload

# Older versions of Kubernetes, each with a module file of its own.
versions_dir := test/localcluster
older := $(patsubst $(versions_dir)/kubernetes-%.mod,%,$(wildcard $(versions_dir)/kubernetes-*.mod))
.PHONY: build-versions
build-versions: $(older:%=build-kubernetes-%) ## Build the control planes of older versions of Kubernetes, into bin/

build-kubernetes-%:
	@hack/progress.sh 'Building the Kubernetes $(call kubernetes_of,$(versions_dir)/kubernetes-$*.mod) control plane' \
	  go build -modfile=$(versions_dir)/kubernetes-$*.mod -ldflags '$(call kubernetes_ldflags,$(call kubernetes_of,$(versions_dir)/kubernetes-$*.mod))' \
	  -o $(BIN)/kubernetes-$* ./$(versions_dir)/controlplane/kubernetes

DIST := dist
PROGRAMS := everynode-scheduler everynode-webhook kubectl-everynode
# What stands before the images' names.
IMAGE_REPOSITORY ?= localhost
REVISION ?= $(shell git rev-parse HEAD 2>/dev/null)
# The images are as old as what they are made of (https://reproducible-builds.org/specs/source-date-epoch).
export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 0)

# It finds the standard library by GOROOT. The licence file of load-watcher has only the notice of Apache-2.0, which it
# takes for no licence.
go_licenses = GOROOT=$$(go env GOROOT) $(BIN)/go-licenses $(1) --logtostderr=false --log_file=/dev/null --stderrthreshold=ERROR \
  --ignore everynode.dev/everynode --ignore github.com/paypal/load-watcher

.PHONY: images
images: ## Make the container images of everynode, for amd64 and arm64, and their SBOMs, in dist/images/
	@for arch in amd64 arm64; do \
	  GOOS=linux GOARCH=$$arch hack/progress.sh "Building everynode for $$arch" \
	    go build -ldflags '$(LDFLAGS)' -o $(DIST)/linux/$$arch/ $(PROGRAMS:%=./cmd/%); \
	done
	@hack/progress.sh 'Building cyclonedx-gomod and go-licenses' $(hack_build) \
	  github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod github.com/google/go-licenses/v2
	@# What the programs are made of wants its licences to come along.
	@rm -rf $(DIST)/files && $(call go_licenses,save) --save_path $(DIST)/files/licenses $(PROGRAMS:%=./cmd/%)
	@install -D -m 0644 LICENSE $(DIST)/files/licenses/everynode.dev/everynode/LICENSE
	@install -D -m 0644 "$$(go list -m -f '{{.Dir}}' github.com/paypal/load-watcher)/LICENSE" $(DIST)/files/licenses/github.com/paypal/load-watcher/LICENSE
	@go run ./hack/images -programs $(DIST) -files $(DIST)/files -out $(DIST)/images -repository '$(IMAGE_REPOSITORY)' \
	  -version '$(VERSION)' -revision '$(REVISION)' -created $(SOURCE_DATE_EPOCH)
	@for program in $(PROGRAMS); do for arch in amd64 arm64; do \
	  $(BIN)/cyclonedx-gomod bin -json -std -noserial -notimestamp -version '$(VERSION)' \
	    -output $(DIST)/images/$${program}_linux_$$arch.cdx.json $(DIST)/linux/$$arch/$$program 2>/dev/null; \
	done; done

.PHONY: reproduce
reproduce: ## Make the images again in another folder, and compare; GOCACHE=$$(mktemp -d) compiles everything again, too
	@dir=$$(mktemp -d); trap 'rm -rf "$$dir"' EXIT; \
	git ls-files -z --cached --others --exclude-standard --deduplicate | xargs -0 cp --no-dereference --parents --target-directory "$$dir"; \
	$(MAKE) -C "$$dir" images VERSION='$(VERSION)' REVISION='$(REVISION)' IMAGE_REPOSITORY='$(IMAGE_REPOSITORY)'; \
	diff --recursive $(DIST)/images "$$dir/$(DIST)/images"; \
	echo 'They are the same, and so are their SBOMs.'

.PHONY: release
release: ## Make the files of a release in dist/release/: make release VERSION=v0.1.0
	@[[ '$(VERSION)' =~ ^v[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$$ ]] || \
	  { echo "VERSION is '$(VERSION)', want a version like v0.1.0: make release VERSION=v0.1.0" >&2; exit 2; }
	@tar --version | grep -q GNU || { echo 'make release needs GNU tar, for archives that are the same every time' >&2; exit 2; }
	@$(MAKE) images
	@$(MAKE) build-helm
	@IMAGE_REPOSITORY='$(IMAGE_REPOSITORY)' hack/release.sh '$(VERSION)' '$(LDFLAGS)'

.PHONY: clean
clean: ## Remove what was built; Go's caches are kept
	rm -rf $(BIN) $(DIST) _artifacts

##@ Test

.PHONY: test
test: test-unit test-browser test-e2e test-docs test-install test-dashboard ## Run all tests; those on real nodes where the machine has what they need
	@if needs=$$($(BIN)/localcluster needs 2>&1); then $(MAKE) test-real; else echo "Not running make test-real: $${needs#localcluster: }"; fi

.PHONY: test-unit
test-unit: ## Run the unit tests, with the race detector (needs a C compiler)
	@CGO_ENABLED=1 hack/progress.sh 'Running the unit tests' go test -race -timeout 10m ./cmd/... ./docs/... ./pkg/... ./test/rights

.PHONY: test-browser
test-browser: ## Try the page of kubectl everynode map in Chromium, where there is one
	@hack/progress.sh 'Trying the map in a browser' go test ./test/browser -timeout 5m -count 1 -v

vpa := k8s.io/autoscaler/vertical-pod-autoscaler
.PHONY: build-vpa
build-vpa:
	@hack/progress.sh 'Building the VerticalPodAutoscaler, which sizes pods too' $(tool_build)vpa-admission-controller \
	  $(vpa)/pkg/admission-controller
	@install -m 0644 "$$(go list -modfile=tools.mod -m -f '{{.Dir}}' $(vpa))/deploy/vpa-v1-crd-gen.yaml" $(BIN)/

karpenter := sigs.k8s.io/karpenter
.PHONY: build-karpenter
build-karpenter:
	@hack/progress.sh 'Building Karpenter, with the provider whose nodes kwok plays' \
	  go build $(karpenter_mod) -ldflags '-s -w' -o $(BIN)/karpenter $(karpenter)/kwok
	@dir=$$(go list $(karpenter_mod) -m -f '{{.Dir}}' $(karpenter)); cat "$$dir"/pkg/apis/crds/*.yaml "$$dir"/kwok/apis/crds/*.yaml > $(BIN)/karpenter-crds.yaml

# The tests start clusters; more at a time than this wait for one another.
E2E_PARALLEL ?= 3
E2E_FLAGS ?=
E2E_TIMEOUT ?= 30m
# Whether everynode is what the chart installs, and may do no more than the chart allows.
INSTALLED ?=
# How long nodes and DaemonSets come and go in the test that looks for leaks; 0 skips it.
CHURN ?= 0
# Who buys the nodes in it: karpenter, or nobody.
AUTOSCALER ?=
.PHONY: test-e2e
test-e2e: build build-vpa $(if $(INSTALLED),build-helm) $(if $(AUTOSCALER),build-karpenter) ## Run the end-to-end tests; SCHEDULER=stock shows which need everynode, INSTALLED=1 tries the chart
	go test ./test/e2e -timeout $(E2E_TIMEOUT) -parallel $(E2E_PARALLEL) -count 1 -v $(E2E_FLAGS) -args -bin '$(CURDIR)/$(BIN)' -scheduler '$(or $(SCHEDULER),everynode)' -artifacts '$(CURDIR)/_artifacts' -churn $(CHURN) -churn-autoscaler '$(AUTOSCALER)' $(if $(INSTALLED),-installed)

# Which storms, and how many at a time. SEED=N is the one with that seed only.
SEEDS ?= 20
SEED ?= 0
.PHONY: test-chaos
test-chaos: build ## Kill, halt and cut off every component in SEEDS (20) random storms; SEED=N repeats one
	go test ./test/e2e -timeout 120m -parallel $(E2E_PARALLEL) -count 1 -v -run '^TestChaos$$' $(E2E_FLAGS) -args -bin '$(CURDIR)/$(BIN)' -scheduler '$(or $(SCHEDULER),everynode)' -artifacts '$(CURDIR)/_artifacts' -chaos-seeds $(SEEDS) -chaos-seed $(SEED)

.PHONY: test-install
test-install: build build-helm ## Install the chart, and run the programs with its rights alone
	go test ./test/install -timeout 15m -count 1 -v -args -bin '$(CURDIR)/$(BIN)'

.PHONY: build-prometheus
build-prometheus:
	@# What it reads here is named in its configuration, so it need not know how to find any.
	@hack/progress.sh 'Building Prometheus' $(manifests_build) -tags remove_all_sd github.com/prometheus/prometheus/cmd/{prometheus,promtool}

.PHONY: test-dashboard
test-dashboard: build build-prometheus ## Read the dashboard's queries with a real Prometheus
	go test ./test/dashboard -timeout 10m -count 1 -v -args -bin '$(CURDIR)/$(BIN)'

.PHONY: dashboard-picture
dashboard-picture: build build-prometheus ## Draw what the dashboard shows, for the docs (3 minutes)
	go test ./test/dashboard -timeout 10m -count 1 -v -args -bin '$(CURDIR)/$(BIN)' -picture '$(CURDIR)/docs/dashboard.svg'

.PHONY: test-real
test-real: build build-helm ## Run the tests on real nodes, with kubelets and containers (needs root, and says what else)
	@$(BIN)/localcluster needs
	@$(MAKE) build-real
	go test ./test/real -timeout 15m -count 1 -v -args -bin '$(CURDIR)/$(BIN)' -artifacts '$(CURDIR)/_artifacts'

# How often K1 is measured, and how long K2 watches.
K1_ROUNDS ?= 1
K2_WATCH ?= 2m
.PHONY: test-karpenter
test-karpenter: build build-karpenter ## Run the tests with Karpenter (15 minutes); K1_ROUNDS=5 K2_WATCH=10m measures for the docs
	go test ./test/karpenter -timeout 120m -parallel $(E2E_PARALLEL) -count 1 -v $(E2E_FLAGS) -args -bin '$(CURDIR)/$(BIN)' -artifacts '$(CURDIR)/_artifacts' -rounds $(K1_ROUNDS) -watch $(K2_WATCH)

.PHONY: bench
bench: ## Run the benchmarks of the hot paths
	go test ./pkg/... -run '^$$' -bench . -benchmem

PAIRS ?= 5
.PHONY: perf
perf: ## Measure the throughput beside the stock scheduler, PAIRS (5) times each
	@hack/progress.sh 'Building the benchmark' go test -c -o $(BIN)/perf.test ./test/perf
	@hack/progress.sh 'Building etcd' go build -o $(BIN)/etcd go.etcd.io/etcd/server/v3
	@hack/progress.sh 'Building benchstat' $(tool_build) golang.org/x/perf/cmd/benchstat
	hack/perf.sh $(PAIRS) _artifacts/perf.txt

# What joins at once, and what waits.
NODES ?= 40
PODS ?= 2000
DAEMONSETS ?= 20
ROUNDS ?= 5
.PHONY: perf-join
perf-join: build ## Measure how long daemon pods wait when NODES (40) join while PODS (2000) wait, beside kube-scheduler (20 minutes)
	@mkdir -p _artifacts
	go run ./test/perf/join -bin '$(CURDIR)/$(BIN)' -nodes $(NODES) -pods $(PODS) -daemonsets $(DAEMONSETS) -rounds $(ROUNDS) -json _artifacts/join.json

.PHONY: perf-webhook
perf-webhook: build ## Measure how many requests the webhook answers, beside a server that does nothing
	go test ./test/perf/webhook -count 1 -v -args -bin '$(CURDIR)/$(BIN)' -pairs $(PAIRS)

.PHONY: perf-cli
perf-cli: build ## Measure kubectl everynode on 5,000 nodes, 50 DaemonSets and 100,000 pods
	go test ./test/perf/cli -timeout 30m -count 1 -v -args -bin '$(CURDIR)/$(BIN)'

FUZZTIME ?= 30s
.PHONY: fuzz
fuzz: ## Run every fuzz target for FUZZTIME (30s)
	@for package in $$(grep -rl '^func Fuzz' --include '*_test.go' pkg | xargs -n 1 dirname | sort -u); do \
	  for target in $$(grep -ho '^func Fuzz[A-Za-z]*' $$package/*_test.go | cut -c 6-); do \
	    echo "$$package $$target"; \
	    go test ./$$package -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1x; \
	  done; \
	done

.PHONY: conformance
conformance: build ## Run Kubernetes' own end-to-end tests of DaemonSets against everynode
	go test ./test/conformance -timeout 60m -count 1 -v -args -bin '$(CURDIR)/$(BIN)' -scheduler '$(or $(SCHEDULER),everynode)'

# The versions of Kubernetes to test on, and the scenarios: daemon pods and their room, adoption, the webhook, the plugin.
VERSIONS ?= $(older) 1.$(word 2,$(subst ., ,$(KUBERNETES)))
versions_run := ^Test((A(1|2|4|5|9|10|14|16|17|18|19|20|21|22|23|25)|T[1-8]|M1|W[134]|E12)[A-Z]|Admission|Quota|WebhookOutage|SecondWebhook|Explain|Map|Access|Printed)
.PHONY: test-versions
test-versions: build build-helm $(addprefix build-kubernetes-,$(filter $(older),$(VERSIONS))) ## Test on all VERSIONS of Kubernetes (1.35 1.36 1.37; 40 minutes once built)
	@for version in $(VERSIONS); do \
	  flags="-bin $(CURDIR)/$(BIN) -kubernetes $$version"; \
	  echo "Kubernetes $$version, with what the chart installs"; \
	  go test ./test/e2e -timeout 30m -parallel $(E2E_PARALLEL) -count 1 -v -run '$(versions_run)' -args \
	    $$flags -installed -artifacts '$(CURDIR)'/_artifacts/$$version; \
	  echo "Kubernetes $$version, with the programs alone"; \
	  go test ./test/e2e -timeout 5m -count 1 -v -run '^TestW1' -args $$flags; \
	  go test ./test/conformance -timeout 60m -count 1 -v -args $$flags; \
	done

.PHONY: test-docs
test-docs: build ## Run the commands of Start and of the tutorial, in both languages, on local clusters
	go test ./test/docs -timeout 15m -count 1 -v -args -bin '$(CURDIR)/$(BIN)' -artifacts '$(CURDIR)/_artifacts'

##@ Docs

site := docs/.vitepress
$(site)/node_modules: $(site)/package-lock.json
	@hack/progress.sh 'Installing VitePress' npm --prefix $(site) ci --no-audit --no-fund
	@touch $@

.PHONY: docs
docs: $(site)/node_modules ## Build the docs as a site, into docs/.vitepress/dist (needs Node.js 20 and npm)
	@hack/progress.sh 'Building the docs' npm --prefix $(site) run build
	@echo 'make docs-serve shows them.'

.PHONY: docs-serve
docs-serve: docs ## Show the docs in a browser, until Ctrl-C
	@npm --prefix $(site) run preview

##@ Check

.PHONY: lint
lint: ## Run the linters
	@hack/progress.sh 'Building golangci-lint' $(tool_build) github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	$(BIN)/golangci-lint run --allow-parallel-runners ./...

.PHONY: verify
verify: lint verify-chart licenses vulncheck workflows ## Check everything but how it runs
	go mod verify
	go mod tidy -diff

# What everynode is made of, and is tested with, may be under one of these.
LICENSES := Apache-2.0,BSD-2-Clause,BSD-3-Clause,ISC,MIT,MPL-2.0
.PHONY: licenses
licenses: ## Check the licences of all dependencies
	@hack/progress.sh 'Building go-licenses' $(hack_build) github.com/google/go-licenses/v2
	@$(call go_licenses,check) --include_tests --allowed_licenses '$(LICENSES)' ./...

.PHONY: workflows
workflows: ## Lint the GitHub workflows
	@hack/progress.sh 'Building actionlint' $(hack_build) github.com/rhysd/actionlint/cmd/actionlint
	$(BIN)/actionlint -shellcheck= -pyflakes=

.PHONY: build-helm
build-helm:
	@hack/progress.sh 'Building helm and kustomize' $(tool_build) helm.sh/helm/v4/cmd/helm sigs.k8s.io/kustomize/kustomize/v5

.PHONY: build-chart-tools
build-chart-tools: build-helm build-prometheus
	@hack/progress.sh 'Building what checks the chart' $(manifests_build) github.com/norwoodj/helm-docs/cmd/helm-docs github.com/helm-unittest/helm-unittest/cmd/helm-unittest

.PHONY: manifests
manifests: build-helm ## Render the kustomize files in deploy/ from the chart
	go test ./test/manifests -run TestDeployIsWhatTheChartRenders -count 1 -args -bin '$(CURDIR)/$(BIN)' -update

helm_docs = $(BIN)/helm-docs --chart-search-root charts --sort-values-order file --log-level error
helm_unittest = $(BIN)/helm-unittest --strict charts/everynode

.PHONY: chart-update
chart-update: build-chart-tools ## Write the chart's README and deploy/, and record what the chart renders
	@$(MAKE) manifests
	$(helm_docs)
	$(helm_unittest) --update-snapshot

.PHONY: verify-chart
verify-chart: build build-chart-tools ## Check the chart, the kustomizations, the alerts and the dashboard
	$(BIN)/helm lint --strict --quiet charts/everynode
	@$(helm_docs) --dry-run | diff charts/everynode/README.md - || { echo 'charts/everynode/README.md is not up to date: run make chart-update'; exit 1; }
	$(helm_unittest)
	go test ./test/manifests -count 1 -args -bin '$(CURDIR)/$(BIN)'

.PHONY: vulncheck
vulncheck: ## Look for known vulnerabilities; VULNDB=live asks the newest database, over the network
	@hack/progress.sh 'Building govulncheck' $(tool_build) golang.org/x/vuln/cmd/govulncheck
	@hack/progress.sh 'Building what makes its database' $(hack_build) golang.org/x/vulndb/cmd/indexdb
	@hack/vulncheck.sh $(BIN) $(PROGRAMS:%=./cmd/%)
