# make demo       a land-cover map of a generated scene, from nothing
# make check      format, lint, types and the fast tests: what to run before each commit
# make test       the test suite without its slow tests, from nothing
# make test-slow  the slow tests: many processes, benchmarks, the wheel
# make docs       the documentation site into build/site/
# make dist       wheel and source archive into dist/
# make lock       the lock file anew, from setup.cfg, with the hash of every file
# make release VERSION=0.2.0    version, changelog, wheel and the tag's message; commits and sends nothing
# make audit      licences of the locked packages, and their known vulnerabilities; needs PyPI's, and says so without

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
# these start Ray, DeepSpeed, servers or whole commands
LONG := tests/train tests/launch tests/packaging tests/api tests/docs tests/shards/test_stores.py \
	$(patsubst %,tests/benchmarks/test_%.py,archive_io scaling throughput training_step)
# these send signals and kill processes; they run one after the other, as the long ones do
SIGNALS := tests/cli tests/mapping/test_unfinished_map.py tests/shards/test_building.py
# every test that starts Python anew would compile our sources again
export PYTHONDONTWRITEBYTECODE :=
PYTEST := $(BIN)/pytest
# all others run in a process for each core, of one thread each
PARALLEL := OMP_NUM_THREADS=1 $(PYTEST) --numprocesses logical --dist loadfile $(LONG:%=--ignore=%) $(SIGNALS:%=--ignore=%)

.PHONY: demo check test test-slow lint docs dist release lock audit clean

demo: .venv/installed
	$(BIN)/python launch/demo.py

check: lint
	$(PARALLEL) -m "not slow"
	$(PYTEST) -m "not slow" $(SIGNALS)

# both parts run, whatever the first says
test: .venv/installed
	status=0; $(PARALLEL) -m "not slow" || status=1; $(PYTEST) -m "not slow" $(SIGNALS) $(LONG) || status=1; exit $$status

test-slow: .venv/installed
	status=0; $(PARALLEL) -m slow || status=1; $(PYTEST) -m slow $(SIGNALS) $(LONG) || status=1; exit $$status

lint: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# without --quiet: that would hide the warnings from strict mode, which then counts none
docs: .venv/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

# the build backend is in the lock, so nothing is downloaded
dist: .venv/installed
	rm -rf build dist
	$(BIN)/uv build --quiet --offline --no-build-isolation --python $(BIN)/python --out-dir dist
	ls -l dist

release: .venv/installed
	$(BIN)/python .ci/release.py prepare $(VERSION)
	$(MAKE) dist
	$(BIN)/python .ci/release.py tag-message $(VERSION) > dist/tag-message.txt
	@echo "git commit --all --message 'Release $(VERSION)'"
	@echo "git tag --annotate v$(VERSION) --file dist/tag-message.txt"

lock: .venv/installed
	$(BIN)/uv pip compile --quiet setup.py --all-extras --python-version 3.11 \
		--no-header --no-annotate --generate-hashes --output-file requirements.lock

# --strict: a package that cannot be asked about fails the audit
audit: .venv/installed
	$(BIN)/uv tool run --quiet pip-licenses==5.5.5 --python $(BIN)/python --summary
	$(BIN)/uv tool run --quiet pip-audit==2.10.1 --strict --requirement requirements.lock --no-deps --disable-pip

.venv/installed: requirements.lock setup.cfg setup.py pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "Python 3.11 is needed: make PYTHON=...")'
	$(PYTHON) -m venv .venv
	# --no-compile: most of the 27,000 files are never imported, and Python compiles the others when they are
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-compile \
		--requirement requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

clean:
	rm -rf .venv build dist demo runs
