#!/usr/bin/env python3
"""What run_suites.py makes of reports and results: a table that hides nothing."""
import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import run_suites  # noqa: E402


def result(mode, outcome='pass', **more):
    return dict(suite='s', case='c', mode=mode, status=0 if outcome == 'pass' else 1, seconds=1.0, outcome=outcome, **more)


class Reports(unittest.TestCase):
    def test_kinds(self):
        for text, kind in (
                ('real 1.00s\naway 0.22s (1 move, last on node2)\n', ('away', '')),
                ('away at least 0.22s (1 move, last on node2)\n', ('away', '')),
                ('away 0.00s (0 moves, last at home (it is set-id))\n', ('home only', '')),
                ('away 0.10s (2 moves)\nbrought home 3 times: mlock (2), ptrace\n', ('brought home', 'mlock (2), ptrace')),
                ('the program prints away 9.99s (7 moves)\n', ('no report', '')),
                ('', ('no report', ''))):
            self.assertEqual(run_suites.parse_report(text), kind, text)

    def test_the_last_report_counts(self):
        text = 'away 5.00s (9 moves)\naway 0.00s (0 moves)\n'
        self.assertEqual(run_suites.parse_report(text), ('home only', ''))


class Tables(unittest.TestCase):
    def table(self, cases):
        return run_suites.table_of({'s': cases}, {'s': 'version 1'})

    def test_everything_passes(self):
        table = self.table({'c': {'native': result('native'), 'away': result('away', kind='away', brought=''),
                                  'storm': result('storm', kind='away', brought='', moves=7)}})
        self.assertIn('| s (version 1) | 1 | 1 | - | 1 of 1 | 1 | 0 | 0 | 1 of 1 | 7 |', table)
        self.assertNotIn('to be removed', table)

    def test_what_fails_natively_is_no_case_for_us(self):
        table = self.table({'c': {'native': result('native', 'fail')}})
        self.assertIn('| 1 | 0 | - | - | 0 | 0 | 0 | - | 0 |', table)

    def test_every_difference_has_a_row(self):
        table = self.table({
            'failing': {'native': result('native'), 'away': result('away', 'fail', kind='away', brought='')},
            'hanging': {'native': result('native'), 'storm': result('storm', 'timeout', kind='no report', brought='')},
            'leaving': {'native': result('native'), 'home': result('home', 'fail', left='1 guest remains')},
            'returning': {'native': result('native'), 'away': result('away', kind='brought home', brought='mlock')},
            'staying': {'native': result('native'), 'away': result('away', kind='home only', brought='')}})
        for row in ('| s | failing | away | fail (status 1) |', '| s | hanging | storm | timeout |',
                    '| s | leaving | home | fail (status 1): 1 guest remains |',
                    '| s | returning | away | brought home: mlock |', '| s | staying | away | home only |'):
            self.assertIn(row, table)
        self.assertIn('| 5 | 5 | 0 of 1 | 2 of 3 | 0 | 1 | 1 | 0 of 1 | 0 |', table)


if __name__ == '__main__':
    unittest.main()
