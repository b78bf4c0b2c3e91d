# `make run` and `make test` need nothing but Python 3.11 or later and make; they set everything else up in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: run test test-all lint lock clean

# The main job: a thousand processes and one exit, without a breaker and with one, side by side.
run: $(READY)
	$(BIN)/aar compare exit-door --vary breaker=off,default

# Three workers on two cores, as a worker often waits for processes of its test; a whole module goes to one worker, in
# the order of tests/conftest.py.
TESTS := $(BIN)/python -m pytest -q -n 3

test: lint
	$(TESTS) -m "not slow"

# Everything: longer fuzzing, two nodes, 2,000 agents, ten runs of the breaker.
test-all: lint
	$(TESTS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "aar-swarm needs Python 3.11 or later; this is $$($(PYTHON) --version). Name another: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	@echo 'Setting up .venv with the locked dependencies: about a minute, 1 GB.'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# Choose the newest versions anew (needs uv); everyone else installs what the lock says.
lock:
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		--extra dev --quiet --output-file requirements.lock pyproject.toml
	sed -n 's/ \\$$//; /==/p' requirements.lock | grep '^[a-z]' > .constraints
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		--extra cluster --constraint .constraints --quiet --output-file cluster/launch/requirements.lock pyproject.toml
	rm .constraints

clean:
	rm -rf $(VENV) runs build *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
