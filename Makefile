# make train, make test: each sets up .venv by itself the first time. `make help` lists the rest.

ACCELERATOR ?= $(if $(shell nvidia-smi -L 2>/dev/null | grep '^GPU'),cuda12,cpu)
PRESET ?= $(if $(filter cpu,$(ACCELERATOR)),cpu,paper)
WORKDIR ?= runs/cheetah_run_$(PRESET)
BIN := .venv/bin
export PYTHON
# Images of containers like to set it: every process would compile the 2,000 modules that it imports anew.
unexport PYTHONDONTWRITEBYTECODE

# XLA on the CPU allocates large arrays with malloc, and glibc hands each one back to the kernel when it is freed, only to
# fault it in again page by page. These keep the memory and ask for huge pages. glibc reads them before Python starts.
FAST_MALLOC := GLIBC_TUNABLES=glibc.malloc.hugetlb=1 MALLOC_TOP_PAD_=1073741824 \
	MALLOC_MMAP_THRESHOLD_=17179869184 MALLOC_TRIM_THRESHOLD_=17179869184

# A package that lists its names in __all__ hides its modules from pdoc, so the modules of these are named one by one.
LISTED := $(wildcard wmjax/envs/*.py wmjax/planners/*.py wmjax/models/*/*.py wmjax/agents/*/*.py)
MODULES := $(filter-out %.__init__,$(subst /,.,$(basename $(LISTED))))

.PHONY: help setup train accelerator-report test test-all check docs locks clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /make \1\t/p' Makefile | expand -t 24
	@echo "variables: PYTHON ACCELERATOR=cpu|cuda12 PRESET WORKDIR MINUTES ARGS"

setup: ## .venv with the locked versions; at once when nothing changed
	@launch/install/setup.sh $(ACCELERATOR)

train: setup ## PlaNet on cheetah run; in the same WORKDIR it resumes
	$(FAST_MALLOC) $(BIN)/python -m experiments.planet --config=experiments/planet/config.py:cheetah_run,$(PRESET) \
		--workdir='$(subst ','\'',$(WORKDIR))' $(if $(MINUTES),--minutes=$(MINUTES)) $(ARGS)

accelerator-report: setup ## one page about a GPU or TPU, eight minutes; ARGS=--dry: on any machine, tiny
	mkdir -p runs
	$(FAST_MALLOC) $(BIN)/python -m experiments.benchmark --preset=accelerator --page=runs/accelerator.html \
		--json=runs/accelerator.json $(ARGS)

# Workers take tests from each other, so that no file holds a core; one that dies is not replaced.
test: setup ## the tests, on the CPU, in two processes
	$(BIN)/python -m pytest -n 2 --dist worksteal --max-worker-restart=0 $(ARGS)

test-all: override ARGS += -m '' # also where the command line gives ARGS
test-all: test ## with those that are left out because they take long

check: setup ## lint, format, types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

docs: setup ## the API reference of wmjax, build/docs/index.html
	$(BIN)/python -m pdoc --docformat google --output-directory build/docs wmjax $(MODULES)

locks: setup ## launch/install/locks from pyproject.toml; ARGS=--upgrade takes newer versions
	for python in 3.11 3.12; do for extra in dev cuda12; do \
		lock=launch/install/locks/py$$(echo $$python | tr -d .)$$(test $$extra = dev || echo -$$extra).txt; \
		$(BIN)/uv pip compile --quiet --only-binary :all: --generate-hashes --no-emit-index-url --no-emit-find-links \
			--custom-compile-command "make locks" --python-version $$python --extra dev --extra $$extra $(ARGS) \
			pyproject.toml -o $$lock || exit; \
	done; done

clean: ## removes .venv, build/ and the caches; keeps runs/
	rm -rf .venv build .jax_cache .mypy_cache .pytest_cache .ruff_cache *.egg-info
