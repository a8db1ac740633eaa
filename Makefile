# `make demo` and `make test` install what is missing, on Debian and its relatives, and then do their work.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BUILD := build
SAMPLES := $(patsubst samples/%.c,$(BUILD)/samples/%,$(wildcard samples/*.c)) $(BUILD)/samples/burst_static
SAMPLE_FLAGS := -g -O0 -Wall -Werror -fno-omit-frame-pointer

# samples/stacks: a variant is the end of a program's name and the flags it stands for.
STACK_FLAGS := -Wall -Werror -falign-functions=1 -fno-toplevel-reorder
STACK_LIBRARIES := -L$(BUILD)/samples -Wl,--as-needed -lstacks -Wl,-rpath,'$$ORIGIN'
VARIANTS := O0 O2 static nopie fp lazy now
FLAGS_O0 := -O0 -fomit-frame-pointer
FLAGS_O2 := -O2 -fomit-frame-pointer
FLAGS_static := $(FLAGS_O2) -static
FLAGS_nopie := $(FLAGS_O2) -no-pie
FLAGS_fp := -O2 -fno-omit-frame-pointer -DKEEP_FRAMES
FLAGS_lazy := $(FLAGS_O2) -Wl,-z,lazy
FLAGS_now := $(FLAGS_O2) -Wl,-z,now
STACKS := $(filter-out libstacks plt split,$(basename $(notdir $(wildcard samples/stacks/*.c samples/stacks/*.cc))))
STACKS := $(STACKS:%=%_O0) $(STACKS:%=%_O2) split_O2 recursion_fp recursion_nopie plt_lazy plt_now \
	recursion_static signals_static threads_static exceptions_static
STACKS := $(STACKS:%=$(BUILD)/samples/%)

SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

RUN_PACKAGES := libbpf1 gcc libc6-dev python3-venv
BPF_PACKAGES := clang-14 llvm-14 libbpf-dev linux-libc-dev
TEST_PACKAGES := $(RUN_PACKAGES) $(BPF_PACKAGES) g++ binutils bpftool bpftrace chromium golang-go linux-perf util-linux

.PHONY: all demo test lint types unit bench bpf samples stacks clean
.DELETE_ON_ERROR:

all: test

demo: $(VENV)/installed $(BUILD)/packages-run samples
	$(SUDO) $(BIN)/pyprof cpu -F 499 -o demo.svg -- $(BUILD)/samples/demo 5
	@echo "The flame graph is in demo.svg: open it in a browser."

test: $(VENV)/installed-dev $(BUILD)/packages-test samples stacks lint types unit

lint:
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python bpf/build.py --check

types: $(BUILD)/types
	$(BIN)/mypy -p pyprof.bpf -p pyprof.profiler -p pyprof.render -p pyprof.symbolize

unit: samples stacks
	$(BIN)/pytest

bench: $(VENV)/installed-dev $(BUILD)/packages-test samples stacks
	$(SUDO) $(BIN)/python benchmarks/run.py
	$(SUDO) $(BIN)/python benchmarks/unwind.py

bpf: $(BUILD)/packages-bpf
	$(PYTHON) bpf/build.py

samples: $(SAMPLES)

stacks: $(STACKS)

$(BUILD)/samples/%: samples/%.c $(BUILD)/packages-run
	@mkdir -p $(@D)
	$(CC) $(SAMPLE_FLAGS) -o $@ $<

# Statically linked: every frame, libc's own too, has a symbol in the file.
$(BUILD)/samples/burst_static: samples/burst.c $(BUILD)/packages-run
	@mkdir -p $(@D)
	$(CC) $(SAMPLE_FLAGS) -static -o $@ $<

define stack-variant
$(BUILD)/samples/%_$(1): samples/stacks/%.c samples/stacks/burn.h $(BUILD)/samples/libstacks.so
	$$(CC) $(STACK_FLAGS) $(FLAGS_$(1)) -o $$@ $$< $(if $(filter static,$(1)),,$$(STACK_LIBRARIES))

$(BUILD)/samples/%_$(1): samples/stacks/%.cc samples/stacks/burn.h $(BUILD)/samples/libstacks.so
	$$(CXX) $(STACK_FLAGS) $(FLAGS_$(1)) -o $$@ $$< $(if $(filter static,$(1)),,$$(STACK_LIBRARIES))
endef
$(foreach variant,$(VARIANTS),$(eval $(call stack-variant,$(variant))))

$(BUILD)/samples/libstacks.so: samples/stacks/libstacks.c $(BUILD)/packages-test
	@mkdir -p $(@D)
	$(CC) $(STACK_FLAGS) $(FLAGS_O2) -shared -fPIC -o $@ $<

# The virtual environment: with what pyprof needs, and with what its tests need.
$(VENV)/installed $(VENV)/installed-dev: pyproject.toml | $(BUILD)/packages-run
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.$(if $(findstring dev,$@),[dev])'
	@touch $@

# mypy reads the packages under their import names.
$(BUILD)/types:
	mkdir -p $@/pyprof
	for folder in bpf profiler render symbolize; do ln -sfn ../../../$$folder $@/pyprof/$$folder; done

# System packages, where apt-get is there to bring them; elsewhere the tests say what they miss.
define install-packages
@mkdir -p $(@D)
@if ! command -v apt-get >/dev/null; then echo "please install: $(1)"; \
elif ! dpkg-query -W -f '$${db:Status-Abbrev}\n' $(1) 2>/dev/null | grep -vq '^ii' \
	&& dpkg-query -W $(1) >/dev/null 2>&1; then :; \
else $(SUDO) apt-get update -q && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $(1); fi
@touch $@
endef

$(BUILD)/packages-run: ; $(call install-packages,$(RUN_PACKAGES))
$(BUILD)/packages-test: ; $(call install-packages,$(TEST_PACKAGES))
$(BUILD)/packages-bpf: ; $(call install-packages,$(BPF_PACKAGES))

clean:
	rm -rf $(BUILD) $(VENV) dist *.egg-info
