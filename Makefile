# make demo: set up, then show the main job. make test: set up, then every check and test.
.PHONY: setup demo test check clean

setup:
	scripts/setup

demo: setup
	.venv/bin/routed lab demo

check: setup
	scripts/check

test: setup
	scripts/check
	.venv/bin/python -m pytest

clean:
	rm -rf .venv build *.egg-info
