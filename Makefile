# make demo and make test do all the set-up they need: a virtual environment in .venv, and the install.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup demo test test-slow check types house reference k8s kind clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@echo "setup: virtual environment in $(VENV), about 2 GB, 1 to 4 minutes the first time"
	$(PYTHON) -c 'import sys; assert (3, 11) <= sys.version_info[:2] <= (3, 12), f"Python 3.11 or 3.12 is needed, this is {sys.version}"'
	$(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

demo: $(STAMP)
	@echo "demo: 8 small language models on this machine's own code, docs and licences; under 4 minutes on 2 cores"
	rm -rf runs/demo
	$(RUN)/shoal run examples/demo.yaml

test: $(STAMP)
	@echo "test: all but the slow ones, in two processes, the longest first; 10 to 28 minutes on 2 cores"
	$(RUN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-slow: $(STAMP)
	@echo "test-slow: the tests that take minutes each"
	$(RUN)/python -m pytest -m slow

check: $(STAMP)
	@echo "check: lint, format, types and layers, under a minute"
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(MAKE) --no-print-directory types
	$(RUN)/python -m pytest tests/house/test_layers.py

# mypy needs the packages below shoal/, where an installation puts them
types: $(STAMP)
	mkdir -p build/types/shoal
	for place in policies trainables cluster search $$(cd shoal && ls *.py); do \
		ln -sfn $$( [ -d $$place ] && echo ../../../$$place || echo ../../../shoal/$$place ) build/types/shoal/$$place; done
	cd build/types && ../../$(RUN)/mypy --config-file ../../pyproject.toml -p shoal

house: $(STAMP)
	@echo "house: sizes, circles, names and comments of the source"
	$(RUN)/python -m tests.helpers.house --names

reference: $(STAMP)
	@echo "reference: writes the pages of all keys again"
	$(RUN)/shoal explain --all > docs/keys.md
	$(RUN)/shoal schema > docs/run.schema.json

k8s: $(STAMP)
	@echo "k8s: writes the generated manifests again"
	$(RUN)/shoal k8s render examples/toy.yaml directory=/runs/toy --claim shoal-runs > k8s/base/job/rayjob.yaml
	$(RUN)/shoal k8s render examples/toy.yaml directory=/runs/toy cluster.gpus_per_worker=1 --claim shoal-runs > k8s/overlays/gpu/rayjob.yaml
	$(RUN)/shoal k8s render examples/toy.yaml directory=/runs/toy cluster.spot=true --claim shoal-runs > k8s/overlays/spot/rayjob.yaml
	$(RUN)/shoal k8s cluster --claim shoal-runs --gpus > k8s/base/cluster/raycluster.yaml
	$(RUN)/shoal grafana install --dry-run --url http://grafana > k8s/overlays/monitoring/shoal.json

kind:
	@echo "kind: the toy on a local Kubernetes; needs docker, kind, kubectl, and helm with KubeRay's charts as kuberay"
	kind get clusters | grep -qx shoal || kind create cluster --name shoal
	docker build --tag shoal:0.1.0 .
	kind load docker-image --name shoal shoal:0.1.0
	helm upgrade --install kuberay-operator kuberay/kuberay-operator --version 1.7.0
	kubectl get secret shoal-auth >/dev/null 2>&1 || kubectl create secret generic shoal-auth --from-literal=auth_token=$$(openssl rand -hex 32)
	kubectl wait --for=condition=established --timeout=60s crd/rayjobs.ray.io
	kubectl apply -k k8s/overlays/local
	kubectl get rayjob shoal-toy

clean:
	rm -rf $(VENV) runs build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
