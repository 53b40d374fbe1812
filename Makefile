# `make` shows what there is.

SHELL       := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help build envoy test check unit sdk e2e browser manifests golden schemas prometheus demo docs bench faults fuzz clean

VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
STATICCHECK := 2026.2.2
STATICCHECK_MODULE := honnef.co/go/tools/cmd/staticcheck@v0.8.2
FUZZTIME    ?= 10s
FAULTTIME   ?= 30s

# The race detector needs a C compiler. Without one the tests say so and run without it; CI must have one.
RACE := $(shell command -v "$$(go env CC)" >/dev/null 2>&1 && echo -race)

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## Build ./hookauthz
	CGO_ENABLED=0 go build -trimpath -ldflags "-X main.version=$(VERSION)" -o hookauthz .

test: check unit sdk e2e browser manifests prometheus ## Run every test; end-to-end ones through a real Envoy
	@echo "make test: all passed"

# What follows tests without vet: check has run it.
check: .cache/bin/staticcheck-$(STATICCHECK) ## Check format and run go vet and staticcheck
	@unformatted=$$(gofmt -l .); \
	if [ -n "$$unformatted" ]; then printf 'gofmt -w is missing for:\n%s\n' "$$unformatted"; exit 1; fi
	go vet ./...
	.cache/bin/staticcheck-$(STATICCHECK) ./...
	@for module in deploy/test tests/browser tests/prometheus tests/sdk; do (cd "$$module" && go vet ./... && ../../.cache/bin/staticcheck-$(STATICCHECK) ./...) || exit 1; done

.cache/bin/staticcheck-$(STATICCHECK):
	@echo "installing staticcheck $(STATICCHECK) into .cache/"
	@mkdir -p .cache/bin
	@GOFLAGS= GOBIN="$(CURDIR)/.cache/bin" go install $(STATICCHECK_MODULE)
	@mv .cache/bin/staticcheck $@

unit: ## Run unit and property tests, with the race detector
	@[ -n "$(RACE)" ] || { echo "no C compiler: tests run WITHOUT the race detector"; [ "$${CI:-}" != true ]; }
	@if redis=$$(scripts/valkey); then export HOOKAUTHZ_REDIS="$$redis"; fi; \
	go test -vet=off $(RACE) $$(go list ./... | grep -v '/e2e$$')

sdk: ## Check signatures against what senders publish to sign and verify them
	cd tests/sdk && go test -vet=off -count=1 ./...

e2e: ## Run end-to-end tests; Envoy is installed into .cache/ where there is none
	@if envoy=$$(scripts/envoy); then export HOOKAUTHZ_ENVOY="$$envoy"; fi; \
	if redis=$$(scripts/valkey); then export HOOKAUTHZ_REDIS="$$redis"; fi; \
	cd e2e && go test -vet=off $(RACE) -count=1 -parallel 4 -timeout 20m

browser: ## Test the console in a real Chromium; pictures go to .cache/console/
	@if chromium=$$(scripts/chromium); then export HOOKAUTHZ_CHROMIUM="$$chromium"; fi; \
	cd tests/browser && go test -vet=off -count=1 ./...

manifests: ## Check docker-compose.yml, the Dockerfile and all of deploy/
	cd deploy/test && go test -vet=off -count=1 ./...

golden: ## Write what the chart, the overlays and envoy render make of deploy/, after a change there
	cd deploy/test && go test -count=1 -run 'Golden|UpToDate' . -update

schemas: ## Write the schemas of deploy/test from the packages that it pins
	cd deploy/test && go run ./generate

prometheus: ## Check alert rules and dashboard with Prometheus's own packages
	cd tests/prometheus && go test -vet=off -count=1 ./...

faults: ## See what each failure of the shared store does, at full length (FAULTTIME=30s)
	@export HOOKAUTHZ_ENVOY="$$(scripts/envoy)" HOOKAUTHZ_REDIS="$$(scripts/valkey)" HOOKAUTHZ_FAULT_TIME=$(FAULTTIME) CI=true; \
	cd e2e && go test -count=1 -timeout 60m -v -run '^TestStoreFaults$$' . | grep -v '^{'

demo: ## See deliveries pass and be refused at a real Envoy (ONCE=1: end after the table)
	@mkdir -p .cache/bin && go build -o .cache/bin/demo ./demo && exec .cache/bin/demo $(if $(ONCE),-once)

docs: ## Write the pages of docs/ that are made from data
	go run ./docs/generate

envoy: ## Write examples/envoy.yaml from its policies, the golden files of envoy/, and what deploy/ shows of render
	go test -count=1 -run '^TestExampleIsUpToDate$$' . -update
	go test -count=1 ./envoy -update
	cd deploy/test && go test -count=1 -run '^TestRenderedFilesAreUpToDate$$' . -update

bench: build ## Measure what a check costs into docs/performance.md (BENCH=-quick: only show that it runs)
	@mkdir -p .cache/bin && go build -o .cache/bin/bench ./bench
	.cache/bin/bench $(if $(BENCH),$(BENCH),-write docs/performance.md)

fuzz: ## Fuzz every parser for a short time (FUZZTIME=10s)
	@for package in $$(go list ./... | grep -v '/e2e$$'); do \
	  for target in $$(go test -list '^Fuzz' "$$package" | grep '^Fuzz' || true); do \
	    echo "$$package $$target"; \
	    go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x "$$package"; \
	  done; \
	done

clean: ## Remove what was built and installed
	rm -rf .cache hookauthz
