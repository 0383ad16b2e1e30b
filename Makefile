# Everything runs in an environment of its own under .venv; PYTHON chooses the interpreter (3.11+).
PYTHON ?= python3
# One exact torch release, so that a CPU build is enough and runs repeat.
TORCH ?= torch==2.13.0
BIN := .venv/bin
# Material warns of a MkDocs 2 that its requirements exclude.
# The tests need one module of vLLM's wheel, which is not kept.
VLLM ?= 0.33.0
VLLM_FOLDER := .venv-vllm/$(VLLM)
VLLM_MODULE := vllm/model_executor/model_loader/checkpoint_weight_patch.py
MKDOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs

.PHONY: help setup demo test torture fuzz test-lm-eval test-vllm test-quantised check docs docs-serve gpu gpu-wheels bench bench-build bench-merge bench-memory bench-speed bench-size bench-kernels bench-linear bench-smollm2 bench-fix bench-landscape bench-first-use bench-signing clean

help:
	@echo "make demo          set everything up and fix a tiny embedded model, kept in play;"
	@echo "                   SEEDS=\"0 1 2\" fixes three"
	@echo "make test          set everything up, check style, types and layering, run the tests"
	@echo "make torture       kills, power losses, system errors and other programs, in full; half an hour;"
	@echo "                   MATRICES=\"kills faults\" POINTS=50 SEED=7 narrow it down"
	@echo "make fuzz          look for inputs that crash a reader, a minute for each of 16 readers;"
	@echo "                   FUZZ_SECONDS=600 TARGETS=\"rice recipes\" JOBS=2 OUT=folder change it"
	@echo "make test-lm-eval  the test that needs lm-evaluation-harness, in an environment of its own"
	@echo "make test-vllm     the tests against vLLM's loader of sparse updates: downloads its wheel, 340 MB,"
	@echo "                   for one module"
	@echo "make test-quantised  models quantised by GPT-QModel and torchao, which need another torch,"
	@echo "                   in an environment of its own"
	@echo "make docs          build the documentation in site/, strictly; it needs no network"
	@echo "make docs-serve    the same at localhost:8000, anew after every change"
	@echo "make gpu           all that a CUDA device has to show, in 9 minutes, without a network; WHEELS=folder"
	@echo "                   installs what PYTHON lacks, OUT=folder takes the results, PARTS=\"tests kernels\""
	@echo "                   narrows it down; without a device, a rehearsal on the CPU"
	@echo "make gpu-wheels    download the wheels for it to WHEELS=folder; NAMES=\"blake3\" narrows it down"
	@echo "make bench         all benchmarks of speed and memory, one after the other, with mergekit beside"
	@echo "make bench-build   build in parameters per second and exact top-k, beside torch and NumPy"
	@echo "make bench-merge   merges beside mergekit's, in an environment of its own"
	@echo "make bench-memory  peak memory of build, apply, revert and diff on a 4 GB checkpoint"
	@echo "make bench-speed   apply and revert against cp -r, build in parameters per second"
	@echo "make bench-size    sizes of patches beside those of peers and the entropy"
	@echo "make bench-kernels kernels on a CUDA device beside its copy bandwidth; counted bytes without one"
	@echo "make bench-linear  time and peak memory from 1 to 14 GB, drawn in benchmarks/linear.svg"
	@echo "make bench-smollm2 the method's experiment on SmolLM2-135M-Instruct, resumable"
	@echo "make bench-first-use  install and first runs in fresh environments, beside
	@echo "                   mergekit-yaml --help and hf --help"
	@echo "make bench-signing what signatures cost at build and apply, and of the install"
	@echo "make bench-fix     fixes of stand-in policies on SmolLM2-135M-Instruct, resumable, in hours"
	@echo "make bench-landscape  how far refusals hold around one of these fixes, resumable, 90 minutes"
	@echo "make clean         remove the environment and the caches"

setup: .venv/ready

.venv/ready: .venv/derive
	@echo "installing the tools of development into .venv; a minute or more"
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[derive,dev]"
	@touch $@

.venv/derive: pyproject.toml
	$(PYTHON) -m venv .venv
	@echo "installing $(TORCH) into .venv; minutes, as fast as the network is"
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/pip install --quiet --disable-pip-version-check "$(TORCH)"
	@echo "installing patchc with transformers into .venv; a minute or more"
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[derive]"
	@touch $@

# A folder that is there may hold somebody's work, so that another demo leaves it alone.
demo: .venv/derive
	@for seed in $(or $(SEEDS),0); do \
		folder=play; [ "$$seed" = 0 ] || folder=play-$$seed; \
		if [ -e "$$folder" ]; \
		then echo "$$folder is there already and stays as it is; this demo keeps nothing"; kept=; \
		else kept="-o $$folder"; fi; \
		$(BIN)/patchc demo --seed "$$seed" $$kept || exit; \
	done
	@echo "before a command of your own: source .venv/bin/activate"

check: setup docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: setup
	$(MKDOCS) build --strict --config-file docs/site/mkdocs.yml

docs-serve: setup
	$(MKDOCS) serve --config-file docs/site/mkdocs.yml

test: check
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist worksteal

torture: setup
	OMP_NUM_THREADS=1 $(BIN)/python tests/torture/run.py $(MATRICES) $(if $(POINTS),--points $(POINTS)) $(if $(SEED),--seed $(SEED))

fuzz: .venv/fuzz
	PYTHONPATH=tests/fuzz:tests/support $(BIN)/python -m fuzzing $(TARGETS) --seconds $(or $(FUZZ_SECONDS),60) \
		$(if $(JOBS),--jobs $(JOBS)) $(if $(OUT),--out "$(OUT)")

.venv/fuzz: .venv/ready
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[fuzz]"
	@touch $@

test-lm-eval:
	$(PYTHON) -m venv .venv-lm-eval
	.venv-lm-eval/bin/pip install --quiet --disable-pip-version-check "$(TORCH)"
	.venv-lm-eval/bin/pip install --quiet --disable-pip-version-check -e ".[derive,dev,lm-eval]"
	.venv-lm-eval/bin/pytest -m lm_eval

test-vllm: setup $(VLLM_FOLDER)/$(VLLM_MODULE)
	PATCHC_VLLM=$(VLLM_FOLDER)/$(VLLM_MODULE) OMP_NUM_THREADS=1 $(BIN)/pytest -m vllm tests/torch/test_vllm.py

$(VLLM_FOLDER)/$(VLLM_MODULE): | setup
	@echo "downloading the wheel of vllm $(VLLM), some 340 MB, for one module of it"
	$(BIN)/pip download --quiet --disable-pip-version-check --no-cache-dir --no-deps \
		--only-binary :all: --dest $(VLLM_FOLDER) "vllm==$(VLLM)"
	$(BIN)/python -c "import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extract(*sys.argv[2:])" \
		$(VLLM_FOLDER)/vllm-*.whl $(VLLM_MODULE) $(VLLM_FOLDER)
	rm $(VLLM_FOLDER)/vllm-*.whl

# GPT-QModel asks for a newer torch than TORCH, and brings torchao.
test-quantised:
	$(PYTHON) -m venv .venv-quantised
	.venv-quantised/bin/pip install --quiet --disable-pip-version-check "gptqmodel==7.7.0"
	.venv-quantised/bin/pip install --quiet --disable-pip-version-check -e ".[derive,dev]"
	OMP_NUM_THREADS=1 .venv-quantised/bin/pytest -m quantisers tests/checkpoint

# Where PYTHON has a torch that sees a device, that is the environment: there may be no network for another.
gpu:
	@if $(PYTHON) -c "import torch; raise SystemExit(not torch.cuda.is_available())" 2>/dev/null; \
	then chosen="$(PYTHON)"; else $(MAKE) setup && chosen=$(BIN)/python; fi && \
	PYTHONPATH=benchmarks$${PYTHONPATH:+:$$PYTHONPATH} $$chosen -m gpu $(if $(WHEELS),--wheels "$(WHEELS)") \
		$(if $(OUT),--out "$(OUT)") $(if $(PARTS),--parts $(PARTS))

gpu-wheels:
	PYTHONPATH=benchmarks $(PYTHON) -m gpu.wheels "$(or $(WHEELS),wheels)" $(if $(NAMES),--only $(NAMES))

bench: bench-speed bench-build bench-merge bench-memory bench-kernels
	$(BIN)/python benchmarks/codec.py

bench-build: setup
	$(BIN)/python benchmarks/build_speed.py

bench-merge: setup .venv-mergekit/ready
	$(BIN)/python benchmarks/merge_speed.py --mergekit .venv-mergekit/bin/mergekit-yaml

.venv-mergekit/ready:
	$(PYTHON) -m venv .venv-mergekit
	.venv-mergekit/bin/pip install --quiet --disable-pip-version-check "$(TORCH)"
	.venv-mergekit/bin/pip install --quiet --disable-pip-version-check "mergekit==0.1.5"
	@touch $@

bench-memory: setup
	$(BIN)/python benchmarks/memory.py

bench-speed: setup
	$(BIN)/python benchmarks/speed.py

bench-size: .venv-bench-size/ready
	ARC3_CANDIDATE_WAIT_MULTIPLIER=1000 PYTHONPATH=tests/support:benchmarks/smollm2 \
		.venv-bench-size/bin/python benchmarks/size/run.py

.venv-bench-size/ready: pyproject.toml
	$(PYTHON) -m venv .venv-bench-size
	.venv-bench-size/bin/pip install --quiet --disable-pip-version-check "$(TORCH)"
	.venv-bench-size/bin/pip install --quiet --disable-pip-version-check -e ".[derive]" "gguf>=0.10" \
		"fireworks-delta-compression==0.1.0" "deltatensors==0.2.0" "zstandard>=0.23" "bsdiff4==1.3.2"
	@touch $@

bench-kernels: setup
	$(BIN)/python benchmarks/kernels.py

bench-linear: setup
	$(BIN)/python benchmarks/linear.py

bench-first-use: setup
	$(BIN)/python benchmarks/first_use.py --torch "$(TORCH)"

bench-signing: setup
	$(BIN)/python benchmarks/signing.py

bench-fix: setup
	PYTHONPATH=benchmarks/fix:benchmarks/smollm2:tests/support $(BIN)/python benchmarks/fix/run.py $(if $(ROWS),--rows "$(ROWS)") $(if $(POLICIES),--policies $(POLICIES)) $(if $(SEEDS),--seeds $(SEEDS))

bench-landscape: setup
	PYTHONPATH=benchmarks/fix:benchmarks/smollm2:tests/support $(BIN)/python benchmarks/fix/landscape.py $(if $(POLICIES),--policy $(POLICIES))

bench-smollm2: setup
	PYTHONPATH=tests/support $(BIN)/python benchmarks/smollm2/run.py

clean:
	rm -rf .venv .venv-lm-eval .venv-vllm .venv-quantised .venv-bench-size .venv-mergekit site .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
