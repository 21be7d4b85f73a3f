#!/usr/bin/env python3
"""mosixlab storm: says "same" of what is the same, finds what differs and keeps it, and repeats a seed.

  storm_test.py MOSIXLAB
"""
import json
import os
import subprocess
import sys
import tempfile
import unittest

MOSIXLAB = os.path.abspath(sys.argv.pop(1))


class Storm(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix='storm-test-')

    def tearDown(self):
        self.folder.cleanup()

    def storm(self, *words):
        return subprocess.run([MOSIXLAB, 'storm', *words], cwd=self.folder.name, text=True, capture_output=True,
                              stdin=subprocess.DEVNULL, check=False, timeout=300)

    def test_a_tree_of_processes_is_the_same(self):
        script = 'for i in 1 2 3 4 5 6; do seq $i 200 | sort -n | tail -1 >f$i; sleep 0.05; done; cat f*; exit 3'
        done = self.storm('--seed', '11', '--runs', '2', '--interval', '20', '--json', '--', 'bash', '-c', script)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        figures = json.loads(done.stdout)
        self.assertEqual((figures['runs'], figures['different'], figures['seed']), (2, 0, 11))
        self.assertGreater(figures['moves'], 4)
        self.assertGreater(figures['seen'].get('node2', 0) + figures['seen'].get('node3', 0), 0)
        self.assertEqual(figures['not_compared'], '')
        self.assertEqual(os.listdir(self.folder.name), [])

    def test_what_differs_is_found_and_kept(self):
        # A program that knows which of its runs this is: the first two are native.
        count = os.path.join(self.folder.name, 'count')
        script = f'echo x >>{count}; if [ $(wc -l <{count}) -gt 2 ]; then echo late; else echo early; fi >seen; cat seen'
        done = self.storm('--seed', '13', '--', 'bash', '-c', script)
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        self.assertIn('DIFFERENT', done.stdout)
        self.assertIn('output differs, line 1: natively "early", here "late"', done.stdout)
        kept = os.path.join(self.folder.name, 'storm-13', '13')
        self.assertEqual(sorted(os.listdir(kept)), ['err', 'files', 'moves', 'native.err', 'native.files', 'native.out',
                                                    'out', 'why'])
        with open(kept + '/why') as why:
            self.assertIn('file seen:', why.read())
        self.assertIn('node2.log', os.listdir(os.path.join(self.folder.name, 'storm-13', 'nodes')))

    def test_what_differs_natively_is_not_compared(self):
        done = self.storm('--seed', '13', '--', 'bash', '-c', 'echo $$; sleep 0.1; echo x >f; date +%s%N >g')
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn('are not compared: output, file g', done.stderr)

    def test_files_are_there_anew_for_each_run(self):
        os.mkdir(self.folder.name + '/given')
        with open(self.folder.name + '/given/count', 'w') as count:
            count.write('1\n')
        done = self.storm('--seed', '14', '--files', 'given', '--', 'bash', '-c', 'cat count; echo 2 >count; sleep 0.1')
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_a_program_that_does_not_end(self):
        done = self.storm('--limit', '1', '--', 'sleep', '60')
        self.assertEqual(done.returncode, 125)
        self.assertIn('does not end natively; --limit is 1 s', done.stderr)

    def test_bad_input(self):
        for words, status, text in ((('--', '/no/such'), 127, 'run /no/such: No such file'),
                                    (('--', self.folder.name), 126, 'Permission denied'),
                                    ((), 125, 'no command given'),
                                    (('--runs', '0', '--', 'true'), 125, '--runs 0: expected a number'),
                                    (('--files', 'nowhere', '--', 'true'), 125, '--files nowhere: not a folder')):
            done = self.storm(*words)
            self.assertEqual(done.returncode, status, done.stderr)
            self.assertIn(text, done.stderr)
        self.assertEqual(os.listdir(self.folder.name), [])


unittest.main(verbosity=2)
