# The everyday commands. `make` alone lists them; PYTHON=... chooses another interpreter.
PYTHON ?= $(if $(wildcard .venv/bin/python),.venv/bin/python,python3)

.DEFAULT_GOAL := help
.PHONY: help install test lint format bench train ci clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: ## a virtual environment in .venv with fastgan (editable) and what the tests need
	python3 -m venv .venv
	.venv/bin/pip install -e ".[test]" -c constraints.txt

test: ## all tests, on all cores
	$(PYTHON) -m pytest -n auto

lint: ## ruff: rules and formatting, changing nothing
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

format: ## ruff: mend what can be mended
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

bench: ## all benchmarks, about a quarter of an hour, then pictures, tables and the README's section
	$(PYTHON) -m pytest bench/ --benchmark-only
	$(PYTHON) -m bench.report

train: ## the main job: a GAN on the bundled digits, into runs/
	$(PYTHON) -m fastgan.train

ci: ## what CI runs, in a fresh virtual environment
	bash .ci/run

clean: ## remove what builds, tests and caches leave; runs/ and .venv/ stay
	rm -rf build .benchmarks .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
