# Every target works as the first command on a fresh clone: what it needs is installed first, once.
#
#   PYTHON=python3.12   the interpreter that makes the virtual environment (3.11 or newer)
#   VENV=.venv          where that environment lives
#   TORCH_INDEX=<url>   an extra package index for PyTorch, for example of its CPU wheels
#   DATA=<dir>          real images for `make demo` and `make study`, instead of the embedded digit scenes
#   MAE=<dir> SWIN=<dir>  clones of the reference implementations for `make bench`; without them they are absent
#   IMAGES=<dir>        JPEG photographs for `make bench`; drawn ones without it
#   PACKAGE=<name>      the package that `make release` releases; TAG=yes tags it
#   OUT=<dir>           where `make demo` and `make study` write (default: runs/demo, runs/demo-<name of DATA>, runs/study-...)
#
# pip's own settings (PIP_INDEX_URL, PIP_FIND_LINKS, a pip.conf) apply as usual.

PYTHON ?= python3
VENV ?= .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
BENCH := $(if $(MAE),--mae $(MAE)) $(if $(SWIN),--swin $(SWIN)) $(if $(IMAGES),--images $(IMAGES))
PIP_INSTALL := $(PY) -m pip install --disable-pip-version-check -c constraints.txt
PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest

.DEFAULT_GOAL := help
.PHONY: help install demo bench bench-gpu study study-gpu docs release gate test test-all test-gpu test-install test-slurm lint types contracts format clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' Makefile
	@sed -n 's/^#   /  /p' Makefile

install: $(STAMP) ## .venv with the four packages (editable), everything the demo and the tests need, and the dev tools

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "make: $(PYTHON) is Python " + sys.version.split()[0] + "; 3.11 or newer is needed, for example: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

# torch goes first, so that an index of CPU wheels decides which build everything after it finds. mmengine and mmcv
# require opencv-python, which needs the system's libGL; the headless build of the same version has the same files
# without that need and, installed last, takes their place.
$(STAMP): constraints.txt workspace.toml pyproject.toml $(wildcard packages/*/pyproject.toml) | $(PY)
	$(PIP_INSTALL) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch torchvision
	$(PY) tools/workspace_manifest.py requirements > $(VENV)/requirements.txt
	$(PIP_INSTALL) -r $(VENV)/requirements.txt
	$(PIP_INSTALL) --no-deps --force-reinstall opencv-python-headless
	$(PY) -c 'import cv2'
	@touch $@

demo: install ## data, pre-training, four tasks, correlation: ends with a table and the path of a report
	$(PY) -m demo $(if $(OUT),--out $(OUT)) $(if $(DATA),--data $(DATA))

bench: install ## everything against its peers on this CPU: one table of ratios, in at most a quarter of an hour
	OMP_NUM_THREADS=1 $(PY) -m benchmarks $(BENCH)

bench-gpu: install ## the same on one GPU, with MFU and peak memory, in at most nine minutes
	$(PY) -m benchmarks --device cuda $(BENCH)

docs: install ## the documents as a site in site/; a broken link, anchor or reference fails
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict

release: install ## check and build PACKAGE=masking into dist/; TAG=yes also tags it (nothing is uploaded)
	$(PY) tools/release.py $(PACKAGE) $(if $(TAG),--tag)

study: install ## the papers' claims at the size of two CPU cores: both grids, four tasks, verdicts; two hours, resumable
	OMP_NUM_THREADS=1 $(PY) -m study $(if $(DATA),--data $(DATA)) $(if $(OUT),--out $(OUT))

study-gpu: install ## the same, larger, on a GPU: stops by itself after nine minutes, and goes on when called again
	$(PY) -m study --profile gpu --minutes 8.5 $(if $(DATA),--data $(DATA)) $(if $(OUT),--out $(OUT))

gate: install ## a tiny checkpoint against the baseline in tests/gate: did this change move a number?
	OMP_NUM_THREADS=1 $(PY) tools/self_gate.py

test: install ## the fast tests of all packages and of the workspace
	$(PYTEST) -n 2 -m "not slow and not gpu and not slurm"

test-all: install ## every test, slow ones included
	$(PYTEST) -n 2

test-gpu: install ## the tests that need a CUDA device, a package at a time: shapes that others check would be compiled
	for package in masking backbones pretrain evalharness; do $(PYTEST) packages/$$package -m gpu || exit 1; done

test-install: install ## each package installed alone in a fresh environment (slow: unpacks torch)
	$(PYTEST) tests/workspace/test_install.py -m slow

test-slurm: install ## tests on a real SLURM of one node: installed (by root, on Debian), started and stopped by this
	OMP_NUM_THREADS=1 tools/slurm_on_loopback.sh run $(PY) -m pytest tests/slurm

lint: install ## ruff: rules and formatting
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: install ## basedpyright
	$(VENV)/bin/basedpyright --pythonpath $(PY)

contracts: install ## which package may import what
	$(VENV)/bin/lint-imports

format: install ## let ruff format and fix
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

clean: ## remove the environment, caches and builds (runs/ stays)
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis .import_linter_cache build dist site packages/*/dist packages/*/build
	find packages tests demo tools -name __pycache__ -type d -prune -exec rm -rf {} +
