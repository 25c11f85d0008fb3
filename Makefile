# `make demo` and `make test` are all a fresh machine needs: Python >= 3.11, git, make and a package registry.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# Test processes; each takes one core and some 1.5 GB.
WORKERS ?= 2

.PHONY: install demo test test-lowest lint browser docs clean

# The stamp is newer than what it was made from, so a second call installs nothing.
install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or newer is needed; call make PYTHON=python3.11')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[test]"
	touch $@

demo: install
	rm -rf runs/demo runs/explananda
	$(BIN)/python train.py --dataset shapes --name demo
	$(BIN)/python evaluate.py --run runs/demo --methods explainer grad_cam --tables segmentation --split test --report
	@echo "TensorBoard:  $(BIN)/tensorboard --logdir runs/demo"

test: install lint browser
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile

# The oldest versions that pyproject.toml admits, e.g. `make test-lowest PYTHON=python3.12`.
test-lowest:
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --constraint constraints-lowest.txt --editable ".[test]"
	OMP_NUM_THREADS=1 .venv-lowest/bin/python -m pytest -q -n $(WORKERS) --dist loadfile

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# A headless Chromium for the tests of the report page, into $(VENV), unless there is one; without it they are skipped.
browser: install
	$(BIN)/python benchmarks/browser.py

# The pages as a site in site/, strictly: a link that leads nowhere is an error. `make test` builds it too, elsewhere.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build
	@echo "Open site/index.html, or with search: $(BIN)/python -m http.server --directory site"

clean:
	rm -rf $(VENV) .venv-lowest site
