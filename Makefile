# The commands of the project. Everything they build lands in build/, everything they fetch in .deps/.
.PHONY: help demo test bench faults sim asan tsan fuzz tidy clean
.DEFAULT_GOAL := help

INPUT ?=
ARGS ?=
SEEDS ?= 20000
FUZZ_S ?= 60

help:
	@echo 'make demo [INPUT=file]  install what is missing, build, run orders through crashes ("-": stdin)'
	@echo 'make test               the same set-up, then every test; the last line says N passed, M failed'
	@echo 'make bench [ARGS=...]   the benchmarks, each beside the limit it is measured against'
	@echo 'make faults             the fault experiments at full size'
	@echo 'make sim [SEEDS=n]      the simulator over n seeds (build/dev/tests/sim --seed N replays one)'
	@echo 'make asan | tsan        the tests under the address and undefined-behaviour, or the thread sanitizer'
	@echo 'make fuzz [FUZZ_S=s]    each fuzz target for s seconds'
	@echo 'make tidy               the checks of the source tree itself'
	@echo 'make clean              remove build/ (.deps/ stays)'

# By the environment, where no character of a file's name means anything to the shell.
demo: export TOWLINE_DEMO_INPUT = $(value INPUT)
demo:
	@scripts/run-demo $(if $(value INPUT),--input "$$TOWLINE_DEMO_INPUT") $(ARGS)

test:
	@scripts/bootstrap test
	@scripts/run-tests

asan tsan faults:
	@scripts/bootstrap test
	@scripts/run-tests $@

bench:
	@scripts/bootstrap test
	@scripts/build measure towline_bench
	@scripts/run-bench $(ARGS)

sim:
	@scripts/bootstrap test
	@scripts/build dev sim
	@build/dev/tests/sim --seeds $(SEEDS) $(ARGS)

fuzz:
	@scripts/bootstrap fuzz
	@scripts/build fuzz towline_fuzz
	@scripts/run-fuzz $(FUZZ_S)

tidy:
	@python3 tests/tidy/tidy.py

clean:
	rm -rf build
