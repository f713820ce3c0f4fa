# make quickstart:    from nothing to a trained, compared, exported and asked model
# make test:          the test suite
# make lint:          ruff's rules and format
# make test-io:       fast tests with the extra [io] and the oldest packages allowed
# make test-backends: tests of the layers and optimizers on JAX and on PyTorch
# make test-wheel:    the wheel, built, installed and used outside of this folder
# make docs:          the site below site/, with the tutorial, which it runs
# make docs-test:     every command and Python snippet of the pages
# make soak:          the runs that are too long for the test suite
PYTHON ?= python3
# test-io and test-backends have environments of their own beside it.
VENV ?= .venv
BIN := $(VENV)/bin
# Installs in a fraction of pip's time, where there is one.
UV ?= $(shell command -v uv)
OUT := quickstart
# The longest files come first, see tests/conftest.py. After the end of a process pytest-xdist
# would wait for ever for files that are done.
PYTEST := -m pytest -q --numprocesses=auto --dist=loadfile --no-loadscope-reorder \
	--max-worker-restart=0
TRAIN := $(BIN)/python train_main.py --data_dir=$(OUT)/data --feature_maps=$(OUT)/maps

ifneq ($(UV),)
environment = $(UV) venv --quiet --seed --allow-existing --python=$(PYTHON) $(1)
install = $(UV) pip install --quiet --python=$(1)/bin/python --editable
install_oldest = $(UV) pip install --quiet --python=$(1)/bin/python \
	--resolution=lowest-direct --editable
else
environment = $(PYTHON) -m venv $(1)
install = $(1)/bin/pip install --quiet --editable
# pip takes the newest.
install_oldest = $(1)/bin/pip install --quiet uv && $(1)/bin/uv pip install --quiet \
	--python=$(1)/bin/python --resolution=lowest-direct --editable
endif

.PHONY: quickstart test test-io test-backends test-wheel lint docs docs-test soak

$(VENV)/base: setup.cfg pyproject.toml
	$(call environment,$(VENV))
	$(call install,$(VENV)) .
	touch $@

$(VENV)/test: $(VENV)/base
	$(call install,$(VENV)) '.[test]'
	touch $@

$(VENV)/docs: $(VENV)/base
	$(call install,$(VENV)) '.[docs]'
	touch $@

# From nothing, as packages that are there already would stay.
$(VENV)-io/test: setup.cfg pyproject.toml
	rm -rf $(VENV)-io
	$(call environment,$(VENV)-io)
	$(call install_oldest,$(VENV)-io) '.[io]'
	$(call install,$(VENV)-io) '.[io,test]'
	touch $@

# PyTorch by pip, which knows where this machine keeps builds of it. Newer releases come
# with gigabytes of CUDA libraries.
$(VENV)-backends/test: setup.cfg pyproject.toml
	$(call environment,$(VENV)-backends)
	$(VENV)-backends/bin/pip install --quiet torch==2.13.0
	$(call install,$(VENV)-backends) '.[backends,test]'
	touch $@

quickstart: $(VENV)/base
	rm -rf $(OUT)
	$(BIN)/python -m tfrecords_tools.make_demo --output_dir=$(OUT)/shop
	$(BIN)/python -m tfrecords_tools.extract_feature_maps \
		--items=$(OUT)/shop/items.csv --image_dir=$(OUT)/shop/images \
		--output_dir=$(OUT)/maps --flagfile=configs/demo_feature_maps.flags
	$(BIN)/python -m tfrecords_tools.build_examples \
		--items=$(OUT)/shop/items.csv --impressions=$(OUT)/shop/impressions.csv \
		--output_dir=$(OUT)/data --max_history=50
	$(TRAIN) --flagfile=configs/demo.flags --model=din --run_dir=$(OUT)/runs/din
	$(TRAIN) --flagfile=configs/demo.flags --model=hccm --run_dir=$(OUT)/runs/hccm \
		--export_dir=$(OUT)/saved_models/hccm
	$(BIN)/python hccm_tf/serving/ask.py $(OUT)/saved_models/hccm/1 \
		$(OUT)/runs/hccm/request.json
	$(BIN)/python -m hccm_tf.report --oracle=$(OUT)/shop/oracle.json \
		$(OUT)/runs/din $(OUT)/runs/hccm

test: $(VENV)/test
	$(BIN)/python $(PYTEST)

test-io: $(VENV)-io/test
	$(VENV)-io/bin/python $(PYTEST) tests/test_files.py tests/data tests/layers \
		tests/serving/test_signatures.py tests/serving/test_c_api.py \
		tests/preparation/test_tables.py tests/preparation/examples/test_log_inputs.py \
		tests/models/test_attention.py tests/models/test_cscnn.py

# JAX compiles each test for longer than it then runs it: what tests have in common once.
JAX_CACHE = JAX_COMPILATION_CACHE_DIR=$(VENV)-backends/compiled \
	JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0
test-backends: $(VENV)-backends/test
	KERAS_BACKEND=jax JAX_DISABLE_MOST_OPTIMIZATIONS=1 $(JAX_CACHE) \
		$(VENV)-backends/bin/python $(PYTEST) tests/layers tests/optimizers
	KERAS_BACKEND=torch \
		$(VENV)-backends/bin/python $(PYTEST) tests/layers tests/optimizers

# Into an environment that has nothing else.
test-wheel: $(VENV)/test
	rm -rf build dist $(VENV)-wheel
	$(BIN)/python -m build --no-isolation
	$(BIN)/twine check --strict dist/*
	$(call environment,$(VENV)-wheel)
	$(subst --editable,,$(call install,$(VENV)-wheel)) dist/*.whl
	PATH="$(abspath $(VENV)-wheel)/bin:$$PATH" tests/first_hour.sh

lint: $(VENV)/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The tutorial's commands are those of this environment.
TUTORIAL := build/tutorial
docs: $(VENV)/docs
	rm -rf $(TUTORIAL)
	mkdir -p $(TUTORIAL)/run
	$(BIN)/jupytext --quiet --from=py:percent --to=ipynb \
		--output=$(TUTORIAL)/run/tutorial.ipynb docs/tutorial.py
	PATH="$(abspath $(BIN)):$$PATH" TF_CPP_MIN_LOG_LEVEL=3 $(BIN)/jupyter nbconvert \
		--log-level=ERROR --execute --to=notebook --output-dir=$(TUTORIAL) \
		$(TUTORIAL)/run/tutorial.ipynb
	$(BIN)/jupyter nbconvert --log-level=ERROR --to=markdown \
		--CoalesceStreamsPreprocessor.enabled=True \
		--TagRemovePreprocessor.enabled=True \
		--TagRemovePreprocessor.remove_all_outputs_tags='{"quiet"}' \
		$(TUTORIAL)/tutorial.ipynb
	NO_MKDOCS_2_WARNING=1 TF_CPP_MIN_LOG_LEVEL=3 $(BIN)/mkdocs build --quiet --strict

docs-test: $(VENV)/docs
	TF_CPP_MIN_LOG_LEVEL=3 $(BIN)/python -m docs.make.run_examples

soak: $(VENV)/test
	test -d $(OUT)/data || $(MAKE) quickstart
	$(TRAIN) --flagfile=configs/demo.flags --run_dir=$(OUT)/comparison \
		--compare="din,din_fixed_cnn,hcm,hccm,hccm --shuffle_images" --seeds=5 \
		--epochs=24 --search_trials=1 --oracle=$(OUT)/shop/oracle.json
	$(BIN)/python benchmarks/strategies.py $(OUT) --run_dir=$(OUT)/strategies
	$(BIN)/python benchmarks/faults.py --data_dir=$(OUT)/data \
		--feature_maps=$(OUT)/maps --model=din --epochs=8
	TF_CPP_MIN_LOG_LEVEL=3 $(BIN)/python -m tests.soak.fuzzed_requests --data_dir=$(OUT)/data \
		--version=$(OUT)/saved_models/hccm/1 --count=1500
	$(BIN)/python -m tests.soak.kills $(OUT) --kills=6
	$(BIN)/python -m tests.soak.damaged_inputs --count=100
	$(BIN)/python -m tests.soak.slurm $(OUT)
	REFRESHES=50 $(BIN)/python -m pytest -q tests/serving/test_refresh_polling.py
