# One obvious line each: make run, make test, make data, make lab, make bench.
PYTHON ?= python3
PROFILE ?= demo
VENV := .venv/bin
STAMP := .venv/.lock-installed
EXTRA := $(shell nvidia-smi >/dev/null 2>&1 && echo gpu || echo cpu)

.PHONY: env run reports test data lab bench clean-cache

env: $(STAMP)

# Done again only when the lock or the list of dependencies changes.
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "make env needs Python 3.11 to 3.13; $(PYTHON) is `$(PYTHON) -V 2>&1`. Name another: make env PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "make env needs the venv module: on Debian or Ubuntu, apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv .venv
	$(VENV)/python -m pip install -q --disable-pip-version-check -c requirements.lock -e ".[$(EXTRA),test]"
	$(VENV)/python -m ipykernel install --prefix .venv --name python3 --display-name "Python 3 (breakhis)" >/dev/null
	@touch $(STAMP)

run: env
	$(VENV)/python -m helpers.runner --profile $(PROFILE) \
	  $(if $(RUN),--run $(RUN)) $(if $(DATA),--data "$(DATA)") $(if $(NOTEBOOKS),--notebooks "$(NOTEBOOKS)") $(ARGS)

data: env
	$(VENV)/python -m helpers.fetch $(ARGS)

clean-cache: env
	$(VENV)/python -m helpers.cache

# The committed report: remade in build/, where no other run is listed, then put in its place.
reports: env
	BREAKHIS_DIR= $(VENV)/python -m helpers.runner --reports build/reports --run demo
	@grep -q '"kind": "phantom"' build/reports/demo/run.json || \
	  { echo "the demo must show the phantom: move data/BreaKHis_v1 away first"; exit 1; }
	rm -rf reports/demo && cp -R build/reports/demo reports/demo
	@if [ -z "$(DATA)" ]; then echo "reports/sample-metrics.csv is not remade: name real images, as in make reports DATA=..."; else \
	  $(VENV)/python -m helpers.runner --reports build/sample --run sample --profile sample --data "$(DATA)" && \
	  cp build/sample/sample/results/metrics.csv reports/sample-metrics.csv; fi
	$(VENV)/python -m helpers.report.readme

test: env
	$(VENV)/python -m pytest $(ARGS)

lab: env
	$(VENV)/jupyter lab --notebook-dir notebooks

# Ratios of speed, measured side by side: the data path, then training.
bench: env
	$(VENV)/python -m bench.bench_data
	$(VENV)/python -m bench.bench_training $(ARGS)
