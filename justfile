# The project's chores. `scripts/just` runs them on a machine without just.

set positional-arguments

bin := justfile_directory() / ".venv/bin"

# What `connector` and the tools below find first.
export PATH := bin + ":" + env("PATH")

# List the recipes
[private]
default:
    @"{{ just_executable() }}" --justfile "{{ justfile() }}" --list --unsorted

# Set up .venv as requirements-dev.lock says; at once when nothing changed
[group('set-up')]
setup:
    @scripts/setup

# Install the stock JavaScript software that interop tests and benchmarks run against
[group('set-up')]
setup-node:
    @scripts/setup-node

# Start the five-peer network, and stay until Ctrl-C
[group('run')]
[no-exit-message]
dev: setup
    @python scripts/dev.py start

# Stop the five-peer network from elsewhere
[group('run')]
[no-exit-message]
dev-stop: setup
    @python scripts/dev.py stop

# Pay AMOUNT units from peer FROM to alice at peer TO: just pay 1 5 1000
[group('run')]
[no-exit-message]
pay from to amount *options: setup
    @python scripts/dev.py pay "$@"

# Run connectors, one for each configuration file
[group('run')]
[no-cd]
[no-exit-message]
start +configs: setup
    @python -m connector run "$@"

# Check everything that can be checked without running it
[group('check')]
lint: setup
    ruff check
    ruff format --check
    mypy
    lint-imports
    shellcheck scripts/just scripts/setup scripts/setup-node .ci/run

# Format the code, and mend what ruff can
[group('check')]
format: setup
    ruff check --fix
    ruff format

# Run all tests; on a fresh machine this sets up all they need
[group('check')]
test *options: setup setup-node
    python -m pytest "$@"

# Run the tests that need neither Node.js nor another process
[group('check')]
test-unit *options: setup
    python -m pytest tests/unit tests/property "$@"

# Run the tests against stock JavaScript software
[group('check')]
test-interop *options: setup setup-node
    python -m pytest tests/interop "$@"

# Run the simulation of five nodes with faults, 1 000 seeds
[group('check')]
test-simulation *options: setup
    python -m pytest tests/simulation "$@"

# Kill nodes and TigerBeetle under load, and compare the books: just test-crash --crash-kills 100
[group('check')]
test-crash *options: setup
    python -m pytest tests/crash "$@"

# Play COUNT seeds of the simulation from SEED on, and say what happened
[group('check')]
simulate seed count="1": setup
    python -m tests.simulation "$@"

# Search the property tests for new counterexamples, for longer than the tests do
[group('check')]
fuzz *options: setup
    HYPOTHESIS_PROFILE=search python -m pytest tests/property "$@"

# Compare packets/s, latency and memory with ilp-connector: just bench --help
[group('check')]
[no-exit-message]
bench *options: setup setup-node
    @python tests/bench/bench.py "$@"

# Measure how the connector alone grows with links, routes and packet size
[group('check')]
[no-exit-message]
bench-growth *options: setup setup-node
    @python tests/bench/bench.py --only connector --windows 128 --links 1,4,16,64 "$@"
    @python tests/bench/bench.py --only connector --windows 128 --routes 0,1000,100000 "$@"
    @python tests/bench/bench.py --only connector --windows 16 --data-bytes 32,1024,8192,32767 "$@"

# Compare packets/s and latency without books, with a journal, and with each ledger: just bench-books --help
[group('check')]
[no-exit-message]
bench-books *options: setup setup-node
    @python -m tests.bench.books "$@"

# Measure the parts of the packet path by themselves
[group('check')]
bench-micro *options: setup
    python -m pytest tests/bench/micro.py --benchmark-only --benchmark-columns=median,iqr,ops "$@"

# Measure how many transfers a second the ledgers post: just bench-ledger --help
[group('check')]
[no-exit-message]
bench-ledger *options: setup
    @python -m tests.bench.ledger "$@"

# Pin the newest dependencies that pyproject.toml allows: just lock --upgrade
[group('release')]
lock *options: setup
    {{ compile }} "$@" --output-file requirements.lock pyproject.toml
    {{ compile }} "$@" --group dev --constraint requirements.lock --output-file requirements-dev.lock pyproject.toml

compile := "uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header"

# Build the wheel and the source archive into dist/
[group('release')]
build: setup
    uv build --quiet --no-build-isolation --clear --out-dir dist
    @ls dist

# Remove what the other recipes made, .venv and node_modules too
[group('release')]
clean:
    rm -rf .venv .dev build dist .benchmarks .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
    rm -rf tests/interop/node_modules
    find connector explorer_bridge scripts tests -name __pycache__ -type d -prune -exec rm -rf {} +
