# One obvious line each: make run, make test, make data, make lab, make bench.
PYTHON ?= python3
PROFILE ?= demo
VENV := .venv/bin
STAMP := .venv/.lock-installed
EXTRA := $(shell nvidia-smi >/dev/null 2>&1 && echo gpu || echo cpu)
# An environment cannot move with its clone; the stamp says where it was made.
MOVED := $(shell [ -s $(STAMP) ] && [ "$$(cat $(STAMP))" != "$(CURDIR)" ] && echo yes)

.PHONY: env run reports test data verify lab bench gpu-check clean-cache moved

env: $(STAMP)

# Done again only when the lock or the list of dependencies changes, or the clone was moved.
# PIP_USER: a pip.conf with user = true would install beside the environment.
$(STAMP): requirements.lock pyproject.toml $(if $(MOVED),moved)
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "make env needs Python 3.11 to 3.13; $(PYTHON) is `$(PYTHON) -V 2>&1`. Name another: make env PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "make env needs the venv module: on Debian or Ubuntu, apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(if $(MOVED),--clear) .venv
	PIP_USER=0 $(VENV)/python -m pip install -q --disable-pip-version-check -c requirements.lock -e ".[$(EXTRA),test]"
	$(VENV)/python -m ipykernel install --prefix .venv --name python3 --display-name "Python 3 (breakhis)" >/dev/null
	@echo "$(CURDIR)" > $(STAMP)

moved:
	@echo "moved from `cat $(STAMP)`: the environment is made again"

run: env
	$(VENV)/python -m runner --profile "$(PROFILE)" \
	  $(if $(RUN),--run "$(RUN)") $(if $(DATA),--data "$(DATA)") $(if $(NOTEBOOKS),--notebooks "$(NOTEBOOKS)") $(ARGS)

# The database, about 4 GB: downloaded, verified, installed.
data: env
	$(VENV)/python -m runner.fetch $(ARGS)

# Is a folder the database? Compared file by file.
verify: env
	$(VENV)/python -m helpers.data "$(or $(DATA),data/BreaKHis_v1)"

clean-cache: env
	$(VENV)/python -m helpers.images

# What is committed under reports/, and what README.md shows of it; no other command writes there.
# The demo is the phantom's; with DATA, real images without their pictures.
commit = rm -rf reports/$(1) && mkdir -p reports/$(1)/results && \
  cp reports/runs/$(1)/*.html reports/runs/$(1)/run.json reports/$(1) && \
  cp reports/runs/$(1)/results/metrics.csv reports/$(1)/results
reports: env
	BREAKHIS_DIR= $(VENV)/python -m runner --run demo
	@grep -q '"kind": "phantom"' reports/runs/demo/run.json || \
	  { echo "the demo must show the phantom: move data/BreaKHis_v1 away first"; exit 1; }
	$(call commit,demo)
ifneq ($(DATA),)
	$(VENV)/python -m runner --run sample --profile sample --data "$(DATA)" --no-tissue
	$(call commit,sample)
	cp reports/sample/results/metrics.csv reports/sample-metrics.csv
endif
	$(VENV)/python -m runner.readme

test: env
	$(VENV)/python -m pytest $(ARGS)

lab: env
	$(VENV)/jupyter lab --notebook-dir notebooks

# Ratios of speed, measured side by side: the data path, then training.
bench: env
	$(VENV)/python -m bench.bench_data
	$(VENV)/python -m bench.bench_training $(ARGS)

# Is the GPU used, how fast is it, and how long will the full profile take? Two minutes.
gpu-check: env
	TF_CPP_MIN_LOG_LEVEL=2 $(VENV)/python -m bench.gpu_check $(ARGS)
