# make demo: set up, then show the main job. make test: set up, then every check and test.
# make test-faults: the tests of tests/faults for as long as docs/reliability.md says (an hour).
# make test-ipam-long: a million operations of IPAM under two hundred faults, judged (a quarter of an hour).
# make test-policy-long: thirty thousand random sets of policies, evaluated and compiled (seven minutes).
# make bench: every figure of docs/performance.md, beside its peer and its floor (half an hour).
# make deb: build/routed_VERSION_ARCH.deb for the system that it is made on.
.PHONY: setup setup-tests demo test test-faults test-ipam-long test-policy-long bench check deb clean

setup:
	scripts/setup

setup-tests:
	scripts/setup tests

demo: setup
	.venv/bin/routed lab demo

check: setup
	scripts/check

test: setup-tests
	scripts/check
	.venv/bin/python -m pytest

test-faults: setup-tests
	.venv/bin/python -m pytest --faults=full tests/faults tests/lab/test_reboot.py tests/kernel/test_overflow.py tests/api/test_disk_full.py tests/api/test_hostile_input.py

test-ipam-long: setup-tests
	.venv/bin/python -m pytest --faults=long tests/faults/test_owner_histories.py

test-policy-long: setup-tests
	.venv/bin/python -m pytest --policy-sets=30000 tests/policies/test_random_policies.py

bench:
	scripts/setup bench
	.venv/bin/python benchmarks/all.py

deb: setup
	scripts/deb

clean:
	rm -rf .venv .cache build *.egg-info
