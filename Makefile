# The two main commands are `make run` and `make test`. Both first install what is missing.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := run
.PHONY: run build dist model watch test check unit adapters end2end engines packages random bundle snapshots setup setup-test

ENV := . scripts/env

run: build model ## Build if needed, fetch the speech model, then serve on http://127.0.0.1:3000
	@exec target/release/hark serve

build: setup ## target/release/hark: the whole app in one file
	@scripts/build
	@scripts/bundle-size || true  # exceeding the budget doesn't fail the build

dist: build ## target/dist: an archive, a Debian package, checksums, and a list of every crate in the program (CycloneDX)
	@scripts/setup dist
	@scripts/dist

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

packages: setup-test ## Test what is given to others: program, archive, Debian package, image. Needs root
	@scripts/test dist

random: setup-test ## Search for unknown faults with random actions in a browser: SEEDS=1-10
	@SEEDS="$(SEEDS)" scripts/test random

snapshots: setup-test ## Update what tests/snapshots.rs compares: the API's description, errors, docs/configuration.md
	@$(ENV); INSTA_UPDATE=always cargo test -q --features ssr --test snapshots

bundle: setup-test ## Print the size of what a browser loads
	@scripts/test bundle
