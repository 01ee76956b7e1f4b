# Everything a fresh clone needs: `make demo` shows the mesh, `make test` proves it. `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# What is compiled is kept, also where the environment says otherwise: a test run starts Python some thousand times.
export PYTHONDONTWRITEBYTECODE :=

# For tests on a real Kubernetes, beside Go.
CLUSTER_PACKAGES := etcd-server runc containernetworking-plugins conntrack buildah debootstrap

.PHONY: help demo test lint bench clean system cluster system-cluster system-prometheus system-browser

help: ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Heddle needs Python 3.11 or newer; $(PYTHON) is older. Say which to use: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || sh scripts/install-packages python3-venv
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	$(BIN)/python -m compileall -q mesh kube svid agent local # containers see the project read-only and could not keep this
	@touch $@

system: # iptables and iproute2, from Debian's or Ubuntu's packages
	@sh scripts/install-packages iptables iproute2

system-cluster: # as root; otherwise, and without Go, the tests that need a cluster are skipped, and say so at the end
	@[ "$$(id -u)" -ne 0 ] || sh scripts/install-packages $(CLUSTER_PACKAGES) || true

system-browser: # as root; otherwise, and where there is none, the tests of the dashboard's page are skipped, and say so at the end
	@[ "$$(id -u)" -ne 0 ] || sh scripts/install-packages chromium || true

system-prometheus: # as root; otherwise the test of metrics fails, and names the program
	@[ "$$(id -u)" -ne 0 ] || sh scripts/install-packages prometheus

demo: $(VENV)/.ready system ## the mesh on bookinfo, told in the terminal, in about two minutes
	@$(BIN)/heddle demo

test: $(VENV)/.ready system system-cluster system-prometheus system-browser ## lint, types, import rules and every test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pytest -v -n auto --dist loadgroup # -v takes back pyproject.toml's -q

lint: $(VENV)/.ready ## ruff, mypy and the import rules alone
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

cluster: $(VENV)/.ready system system-cluster ## a Kubernetes cluster that stays until Ctrl-C, its kubeconfig printed
	@$(BIN)/python -m tests.cluster.up

bench: $(VENV)/.ready system ## the figures of docs/performance.md, measured on this machine
	@set -e; for program in tests/bench/bench_*.py; do echo "== $$program"; $(BIN)/python $$program; done

clean: ## remove the virtual environment and what the tools left
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
