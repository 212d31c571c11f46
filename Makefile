# Needs Python 3.11 or newer and make; everything else is installed into .venv.
PYTHON ?= python3
EXTRAS ?= dev plan cloud wandb mlflow trackio
BIN := .venv/bin
LOCKS := requirements/base.lock $(foreach extra,$(EXTRAS),requirements/$(extra).lock)
INSTALLED := .venv/.installed-$(subst $() ,-,$(sort $(EXTRAS)))

.PHONY: install quickstart finetune-demo test lint wheel test-wheel clean

install: $(INSTALLED)

# --no-deps: the lock is the whole truth; t5's own requirements would unpack two nightlies over it.
$(INSTALLED): $(LOCKS) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "switchx needs Python 3.11 or newer; $(PYTHON) is older. Try: make PYTHON=python3.11" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $(addprefix -r ,$(LOCKS))
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

quickstart: $(INSTALLED)
	$(BIN)/switchx train

# The quickstart first, where its last step is not there yet.
finetune-demo: $(INSTALLED)
	test -d runs/quickstart/checkpoints/4800 || $(BIN)/switchx train
	$(BIN)/python scripts/finetune_demo.py

test: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Without isolation: what builds it is locked like everything else.
wheel: $(INSTALLED)
	rm -rf build dist
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation -w dist .

# A wheel as its users install it: by pip alone, into an environment of its own. Some minutes.
test-wheel: wheel
	scripts/test_wheel.sh dist/switchx-*.whl

clean:
	rm -rf .venv build dist
