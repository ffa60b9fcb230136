# Everything a newcomer types. `make` alone lists the targets; each works on a fresh machine with Python 3.11, make and git.

VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
# Processes that share the tests; each has servers of its own. 0: one process, as `pytest` alone.
WORKERS ?= 2
export VENV PYTHON WORKERS

.DEFAULT_GOAL := help
.PHONY: help install vendors lock protos protos-check lint format test demo up bench bench-profile conformance bench-overload steady soak docs secrets compose-check wheels clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  \033[1mmake %-16s\033[0m %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: ## Install what is missing: .venv from the lock files, RabbitMQ and a few system packages
	@tools/install.sh

demo: install ## Start the platform, store real models, predict over REST, gRPC and the SDK, and check every answer
	@$(BIN)/python -m demo

up: install ## Start the platform and keep it up (more: .venv/bin/stellwerk up --help)
	@$(BIN)/stellwerk up

vendors: install
	@tools/install_vendors.sh

test: install vendors protos-check lint ## Install, check generated code and style, then run every test in two processes (WORKERS=)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup $(PYTEST_ARGS)

lint: install ## ruff, ruff format --check, mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install ## Let ruff repair and format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

protos: install ## Write generated/ from protos/
	$(BIN)/python tools/protos.py

protos-check: install ## Fail if generated/ is stale, the contract breaks its style, or a change breaks callers
	$(BIN)/python tools/protos_check.py

bench: install ## Measure side by side with other servers; writes benchmarks/results/ and the README's comparison
	@$(BIN)/python -m benchmarks

bench-profile: install ## Measure where the CPU time of a request goes; writes docs/benchmarks/where-the-time-goes.md
	@$(BIN)/python -m benchmarks profile

bench-overload: install ## Measure what overload and short timeouts do, here and to Triton; draws docs/benchmarks/overload.png
	@$(BIN)/python -m benchmarks overload timeouts

conformance: install ## Check Stellwerk, Triton and MLServer against the protocol, and compare; writes docs/conformance/
	@$(BIN)/python -m tests.differential

steady: install vendors ## Run the suite ten times in a row under CPU load, to the first failure (TIMES=, BURNERS=; hours)
	@tools/steady.sh

soak: install ## Long runs that show that nothing grows, leaks or wears out; writes soak/results/ (about half an hour)
	@$(BIN)/python -m soak

secrets: install ## Write the secrets that compose/compose.yaml mounts (kept if they exist)
	@$(BIN)/python -m services.local init-secrets --containers compose/secrets

compose-check: install ## Validate compose/ with the real Compose binary and hadolint
	$(BIN)/python -m pytest tests/integration/test_compose.py

wheels: install ## Write the wheels of the SDK and of the platform to dist/
	@rm -rf dist
	@$(BIN)/python -m pip wheel -q --no-deps --no-build-isolation -w dist ./sdk .
	@ls dist/*.whl

docs: install ## Write docs/reference from the code
	@$(BIN)/python tools/settings_docs.py

lock: ## Resolve the lock files anew (needs uv)
	@tools/lock.sh

clean: ## Remove .venv, caches and local data
	rm -rf $(VENV) .stellwerk .pytest_cache .mypy_cache .ruff_cache .hypothesis dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
