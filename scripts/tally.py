#!/usr/bin/env python3
"""tally.py TESTLOG.json STATUS: the one line at the end of a test run.

Counts the tests in meson's log. A test that consists of many (tests/run_matrix.py) says so with a line
"tally: N passed, N failed, N skipped" in its output, and is counted by that. What a unit test leaves out by
MESSAGE("skipped: WHY"), or by unittest's skipTest, counts as skipped beside the test itself. Exit status 1 if anything
failed or `meson test` itself ended badly (STATUS not 0) without a failure to show for it.
"""
import json
import re
import sys

TALLY = re.compile(r'^tally: (\d+) passed, (\d+) failed, (\d+) skipped$', re.M)
LEFT_OUT = re.compile(r'\bMESSAGE: skipped: ')
SKIPPED_CASES = re.compile(r'^OK \(skipped=(\d+)\)$', re.M)  # unittest's last line


def count(record):
    """(passed, failed, skipped) of one line of meson's log."""
    result = record['result']
    many = TALLY.findall(record.get('stdout') or '')
    if many:
        passed, failed, skipped = (sum(int(row[i]) for row in many) for i in range(3))
        # A crash or a time limit after the last tally must not look like success.
        if result not in ('OK', 'SKIP', 'EXPECTEDFAIL') and failed == 0:
            failed = 1
        return passed, failed, skipped
    if result in ('OK', 'EXPECTEDFAIL'):
        output = (record.get('stdout') or '') + (record.get('stderr') or '')
        return 1, 0, len(LEFT_OUT.findall(output)) + sum(map(int, SKIPPED_CASES.findall(output)))
    if result == 'SKIP':
        return 0, 0, 1
    return 0, 1, 0


def main():
    log_path, status = sys.argv[1], int(sys.argv[2])
    totals, bad, skips = [0, 0, 0], [], []
    try:
        with open(log_path) as log:
            for line in log:
                record = json.loads(line)
                counts = count(record)
                totals = [a + b for a, b in zip(totals, counts)]
                if counts[1]:
                    bad.append(record['name'])
                if counts[2]:
                    skips.append(record['name'])
    except OSError as error:
        print(f'tally: no test log: {error}', file=sys.stderr)
        status = status or 1
    if status and not bad:
        print(f'tally: the test run itself ended with status {status}', file=sys.stderr)
        totals[1] += 1
    if skips:
        print('with skips:', ', '.join(skips))
    if bad:
        print('failed:', ', '.join(bad))
    print(f'{totals[0]} passed, {totals[1]} failed, {totals[2]} skipped')
    return 1 if totals[1] else 0


sys.exit(main())
