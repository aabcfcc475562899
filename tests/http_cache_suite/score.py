#!/usr/bin/env python3
"""Counts the results of the public tests for HTTP caches by the suite's own rule, and compares them with
the list of those that must pass.

A test passes if it and all tests that it depends on pass. Its kind is required unless it says another one:
`required` is what the standard demands, `optimal` is what a good cache does besides, and `check` only tells
what a cache does. Tests for browsers are left out. Those of `Surrogate-Control`, which RFC 9213 has put other
fields in place of, the suite keeps apart, and they are counted apart here.
"""

import argparse
import json
import sys

KINDS = ["required", "optimal", "check"]
APART = "surrogate"


def read_tests(path):
    """All tests for caches that are no browsers, by name. Those kept apart are of the kind `surrogate`."""
    with open(path, encoding="utf-8") as file:
        known = json.load(file)
    tests = {}
    for group, kind in [("suites", None), ("targeted", APART)]:
        for test in (test for suite in known[group] for test in suite["tests"]):
            if not test.get("browser_only"):
                tests[test["id"]] = {**test, "counted_as": kind or kind_of(test)}
    return tests


def kind_of(test):
    kind = test.get("kind", "required")
    if kind not in KINDS:
        sys.exit(f"{test['id']} is of an unknown kind: {kind}")
    return kind


def outcome(name, tests, results):
    """`None` if the test passes, else why not."""
    result = results.get(name)
    if result is None:
        return "it was not run"
    for other in tests[name].get("depends_on", []):
        # What is for browsers only was not run, and does not pass.
        if other not in tests or outcome(other, tests, results) is not None:
            return f"it depends on {other}"
    if result is True:
        return None
    text = ": ".join(str(part) for part in result) if isinstance(result, list) else str(result)
    return " ".join(text.split())


def read_list(path):
    """Kinds and names of the tests that must pass."""
    with open(path, encoding="utf-8") as file:
        lines = [line.strip() for line in file]
    return [tuple(line.split(" ", 1)) for line in lines if line and not line.startswith("#")]


def write_list(path, passed):
    """Keeps the comment at the head of the list."""
    with open(path, encoding="utf-8") as file:
        comment = [line for line in file if line.startswith("#")]
    lines = [f"{kind} {name}\n" for kind in KINDS[:2] for name in sorted(passed[kind])]
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(comment + lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("tests", help="what the suite knows of its tests")
    parser.add_argument("results", help="what its client wrote")
    parser.add_argument("--must-pass", help="the list of tests that must pass")
    parser.add_argument("--write", action="store_true", help="write that list instead of comparing")
    arguments = parser.parse_args()

    tests = read_tests(arguments.tests)
    with open(arguments.results, encoding="utf-8") as file:
        results = json.load(file)
    unknown = sorted(set(results) - set(tests))
    if unknown:
        sys.exit(f"results of tests that the suite does not have: {', '.join(unknown)}")

    passed = {kind: [] for kind in [*KINDS, APART]}
    failed = {kind: [] for kind in [*KINDS, APART]}
    for name, test in sorted(tests.items()):
        why = outcome(name, tests, results)
        if why is None:
            passed[test["counted_as"]].append(name)
        else:
            failed[test["counted_as"]].append((name, why))

    for kind in failed:
        if failed[kind]:
            print(f"{kind}, not passed:")
            for name, why in failed[kind]:
                print(f"    {name}: {why}")
    counts = [f"{kind}: {len(passed[kind])} of {len(passed[kind]) + len(failed[kind])}" for kind in failed]
    print(", ".join(counts))

    if arguments.must_pass is None:
        return
    if arguments.write:
        write_list(arguments.must_pass, passed)
        return
    must = read_list(arguments.must_pass)
    lost = [(kind, name) for kind, name in must if name not in passed.get(kind, [])]
    for kind, name in lost:
        print(f"lost: {kind} {name}")
    gained = [
        f"{kind} {name}" for kind in KINDS[:2] for name in passed[kind] if (kind, name) not in must
    ]
    if gained:
        print(f"{len(gained)} pass that are not on the list: --write adds them")
    if lost:
        sys.exit(1)


if __name__ == "__main__":
    main()
