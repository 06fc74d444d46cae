# The two main commands are `make run` and `make test`. Both first install what is missing.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := run
.PHONY: run build model watch test check unit adapters end2end engines random bundle snapshots sbom setup setup-test

ENV := . scripts/env

run: build model ## Build if needed, fetch the speech model, then serve on http://127.0.0.1:3000
	@exec target/release/hark serve

build: setup ## target/release/hark and target/site
	@$(ENV); cargo leptos build --release -P
	@scripts/bundle-size || true  # exceeding the budget doesn't fail the build

model: build ## Fetch the speech model unless it is there
	@scripts/setup model

watch: setup ## Rebuild and reload on every change
	@$(ENV); cargo leptos watch

setup:
	@scripts/setup build

setup-test:
	@scripts/setup test

test: setup-test ## Run everything that CI runs
	@scripts/test

check: setup-test ## Check format, lints, the direction of imports, and licences and known vulnerabilities of dependencies
	@scripts/test check deny

unit: setup-test ## Test the server and the shared code
	@scripts/test unit

adapters: setup-test ## Test the feed's adapters in a browser
	@scripts/test adapters

end2end: setup-test ## Test whole pages in a browser
	@scripts/test end2end

engines: setup-test ## Test the main path in Firefox and WebKit
	@scripts/test engines

random: setup-test ## Search for unknown faults with random actions in a browser: SEEDS=1-10
	@SEEDS="$(SEEDS)" scripts/test random

snapshots: setup-test ## Update what tests/snapshots.rs compares: the API's description, errors, docs/configuration.md
	@$(ENV); INSTA_UPDATE=always cargo test -q --features ssr --test snapshots

sbom: ## target/hark.cdx.json: every crate in the server, with version, licence and source (CycloneDX)
	@scripts/setup sbom
	@$(ENV); cargo cyclonedx -q --format json --features ssr --no-default-features --target x86_64-unknown-linux-gnu --override-filename hark.cdx
	@mv hark.cdx.json target/hark.cdx.json

bundle: setup-test ## Print the size of what a browser loads
	@scripts/test bundle
