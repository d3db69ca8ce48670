# Everything a developer runs, and all that CI runs. `make` alone lists the targets.

PYTHON ?= python3
BIN := .venv/bin
PY := $(BIN)/python
PIP := $(PY) -m pip --quiet --disable-pip-version-check
READY := .venv/.ready
CACHE := $(or $(FLOWC_CACHE),$(HOME)/.cache/flowc)
DEMO := out/demo
SMOLLM2 := $(CACHE)/models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
QUESTION := What is the capital of France?

.DEFAULT_GOAL := help
.PHONY: help demo test check check-full lint type gen gen-full generated golden parity parity-fuzz wheel bench bench-commands bench-memory bench-cuda bench-peers format clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# The environment: made again when pyproject.toml changes. A Python without ensurepip (Debian's) lends its own pip.
$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "flowc needs Python 3.11 or newer: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@test -x $(PY) && $(PY) -m pip --version >/dev/null 2>&1 \
		|| $(PYTHON) -m venv .venv 2>/dev/null \
		|| { $(PYTHON) -m venv --clear --without-pip .venv && $(PYTHON) -m pip --python $(PY) install --quiet pip; }
	$(PIP) install -e '.[dev]'
	@touch $@

demo: $(READY) ## fetch SmolLM2 (98 MB), compile it, ask it a question
	$(PY) examples/fetch.py smollm2
	@mkdir -p $(DEMO)
	$(BIN)/flowc import '$(SMOLLM2)' -o $(DEMO)/model.yaml
	$(BIN)/flowc build $(DEMO)/model.yaml -o $(DEMO)/model.onnx
	$(BIN)/flowc run $(DEMO)/model.onnx --prompt '$(QUESTION)'
	@echo; echo 'Next: change $(DEMO)/model.yaml and build it again, or'
	@echo '  $(BIN)/flowc report $(DEMO)/model.onnx        a page with a drawing of what was built'
	@echo '  $(BIN)/flowc verify $(DEMO)/model.onnx        is it what its spec means?'
	@echo '  $(BIN)/flowc explain $(DEMO)/model.yaml       what each pass did'
	@echo 'README.md says what a spec looks like, docs/README.md lists the pages.'

test: $(READY) ## run the tests; needs no network
	$(PY) -m pytest

check: lint type generated golden test wheel ## all that a change must pass

check-full: check ## check, and the long fuzz, mutation and real-weight runs
	$(PY) -m pytest -m slow

lint: $(READY) ## ruff: rules and format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

format: $(READY) ## let ruff mend what it can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

type: $(READY) ## pyright, strict
	$(BIN)/pyright --project pyproject.toml

gen: $(READY) ## write every generated page that takes seconds and needs no models
	$(PY) -m tests.project.pages

gen-full: $(READY) ## write all of them: minutes, real models and all oracle cases
	$(PY) -m tests.project.pages --full

generated: $(READY) ## are the generated pages up to date?
	$(PY) -m tests.project.pages --check

golden: $(READY) ## play the recorded cases of golden/ again
	$(BIN)/flowc golden check golden/cases

parity: $(READY) ## compare every case with HuggingFace and write docs/parity.md
	$(PY) -m tests.parity

parity-fuzz: $(READY) $(if $(FLOWC_PEERS),,.venvs/peers/.ready) ## draw 5,000 configurations, compare each with HuggingFace, write docs/config-fuzz.md
	$(PY) -m tests.parity.fuzz_configs

wheel: $(READY) ## build sdist and wheel, install the wheel into a new venv, use it from another folder
	rm -rf build dist out/wheel
	$(PY) -m build --outdir dist >/dev/null
	$(PY) -m venv --without-pip out/wheel/venv
	$(PIP) --python out/wheel/venv/bin/python install dist/*.whl
	cp examples/tiny-llama.yaml out/wheel
	cd out/wheel && venv/bin/flowc build tiny-llama.yaml -o out/model.onnx && venv/bin/flowc run out/model.onnx --ids 1,2,3 -n 4

bench: $(READY) .venvs/peers/.ready ## time and memory of builds, and time of runs, beside both peers
	$(PY) -m tests.bench.build
	$(PY) -m tests.bench.run
	$(PY) -m tests.bench.memory

bench-commands: $(READY) ## processor time of short commands beside another checkout: make bench-commands BASE=FOLDER
	$(PY) -m tests.bench.commands $(BASE)

bench-memory: $(READY) ## peak memory of builds of large models
	$(PY) -m tests.bench.memory

bench-cuda: $(READY) ## numbers and times on a machine with a GPU: make bench-cuda ONLY="families llama-1b"
	$(PY) -m tests.bench.cuda $(or $(ONLY),families llama-1b)

bench-peers: .venvs/peers/.ready ## make the venv of the peers that the benchmarks compare with

# torch first and alone: a bare resolve may pick a build that brings CUDA along.
.venvs/peers/.ready: tests/bench/peers.txt | $(READY)
	$(PY) -m venv --without-pip .venvs/peers
	$(PIP) --python .venvs/peers/bin/python install "$$(grep ^torch== $<)"
	$(PIP) --python .venvs/peers/bin/python install -r $<
	@touch $@

clean: ## remove everything that was made here, except the venvs
	rm -rf build dist out *.egg-info .pytest_cache .ruff_cache .hypothesis
	find flowc lowering passes tests -name __pycache__ -type d -prune -exec rm -rf {} +
